"""Programs in front of the gateway: three dialects, one rollout each, nobody in anybody else's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, ClassVar

import aiohttp
import anthropic
import openai
import pytest

from rollforge.agents.tool_loop import ToolLoop
from rollforge.errors import DeadlineExceeded, InfraFault, JudgeFault, PolicyFault, SetupError
from rollforge.models.stream import Delta
from rollforge.records.items import Response, assistant, function_call, prompt_text
from rollforge.records.rows import rollout_from_row
from tests.serve.agents import COUNT, Call, agent, runner, says
from tests.serve.talker import Streamer, Talker
from tests.serve.test_agent_app import Broken

TOKENS = {"prompt_token_ids": [1, 2], "generation_token_ids": [3], "generation_log_probs": [-0.5]}


class Session:
    """One that nobody may reach."""

    tools = ()
    observation = None

    async def call(self, _: Any) -> Any:
        raise AssertionError("there is nothing to call")

    async def verify(self, _: Any) -> Any:
        raise AssertionError("there is nothing to judge")


async def begin(call: Call, row: Any = COUNT) -> Any:
    answer = await call("POST", "/rollouts", row)
    assert answer.status == 200, answer.text
    return answer.json


async def tool(call: Call, live: Any, name: str, arguments: str) -> str:
    return (await call("POST", f"{live['tools_url']}/{name}", arguments.encode())).text


async def responses(live: Any, call: Call, stream: bool) -> None:
    async with openai.AsyncOpenAI(base_url=live["base_url"], api_key=live["api_key"]) as client:
        history: list[Any] = list(live["prompt"])
        while True:
            if stream:
                async with client.responses.stream(model="m", input=history, tools=live["tools"]) as events:
                    answer: Any = await events.get_final_response()
            else:
                answer = await client.responses.create(model="m", input=history, tools=live["tools"])
            history += [item.model_dump(exclude_none=True) for item in answer.output]
            calls = [item for item in answer.output if item.type == "function_call"]
            if not calls:
                return
            for one in calls:
                output = await tool(call, live, one.name, one.arguments)
                history.append({"type": "function_call_output", "call_id": one.call_id, "output": output})


async def chat(live: Any, call: Call, stream: bool) -> None:
    tools: Any = [{"type": "function", "function": {k: t[k] for k in ("name", "parameters")}} for t in live["tools"]]
    async with openai.AsyncOpenAI(base_url=live["base_url"], api_key=live["api_key"]) as client:
        history: list[Any] = [{"role": "system", "content": "Count."}, *live["prompt"]]
        while True:
            if stream:
                async with client.chat.completions.stream(model="m", messages=history, tools=tools) as events:
                    message: Any = (await events.get_final_completion()).choices[0].message
            else:
                answer = await client.chat.completions.create(model="m", messages=history, tools=tools)
                message = answer.choices[0].message
            if not message.tool_calls:
                return
            called = [
                {"id": one.id, "type": "function", "function": one.function.model_dump(include={"name", "arguments"})}
                for one in message.tool_calls
            ]
            history.append({"role": "assistant", "content": message.content, "tool_calls": called})
            for one in message.tool_calls:
                output = await tool(call, live, one.function.name, one.function.arguments)
                history.append({"role": "tool", "tool_call_id": one.id, "content": output})


async def messages(live: Any, call: Call, stream: bool) -> None:
    tools: Any = [{"name": t["name"], "input_schema": t["parameters"]} for t in live["tools"]]
    async with anthropic.AsyncAnthropic(base_url=live["anthropic_base_url"], api_key=live["api_key"]) as client:
        history: list[Any] = [{"role": "user", "content": live["prompt"][0]["content"]}]
        ask: Any = {"model": "m", "max_tokens": 100, "system": "Count.", "tools": tools}
        while True:
            if stream:
                async with client.messages.stream(messages=history, **ask) as events:
                    answer: Any = await events.get_final_message()
            else:
                answer = await client.messages.create(messages=history, **ask)
            history.append({"role": "assistant", "content": [part.model_dump(exclude_none=True) for part in answer.content]})
            results = [
                {
                    "type": "tool_result",
                    "tool_use_id": part.id,
                    "content": await tool(call, live, part.name, json.dumps(part.input)),
                }
                for part in answer.content
                if part.type == "tool_use"
            ]
            if not results:
                return
            history.append({"role": "user", "content": results})


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("program", [responses, chat, messages])
async def test_a_program_of_any_dialect_becomes_one_verified_rollout(program: Any, stream: bool) -> None:
    async with agent(runner(model="scripted:perfect+tokens")) as (url, call):
        live = await begin(call)
        assert live["base_url"] == f"{url}/rollouts/{live['id']}/v1"
        assert [tool["name"] for tool in live["tools"]] == ["increment_counter", "get_counter_value"]
        await program(live, call, stream)
        answer = await call("POST", f"/rollouts/{live['id']}/finish", {})
        after = await call("POST", f"/rollouts/{live['id']}/finish", {})
    assert after.status == 404
    row = answer.json
    assert (answer.status, row["reward"], row["_rowidx"], row["_ng_rollout_index"]) == (200, 1.0, 12, 2)
    output = row["response"]["output"]
    kinds = [item["type"] for item in output]
    assert kinds == [*["function_call", "function_call_output"] * 2, "message"]
    assert all(("generation_token_ids" in item) == (item["type"] != "function_call_output") for item in output)
    assert (row["rollforge"]["calls"], row["rollforge"]["branches"]) == (3, 0)
    assert "token_drift" not in row["rollforge"]
    assert [tool["name"] for tool in row["responses_create_params"]["tools"]] == ["increment_counter", "get_counter_value"]
    assert prompt_text(rollout_from_row(row).params) == "Add 4, then tell me the count."


async def test_tools_are_the_sessions_own_and_their_errors_are_texts() -> None:
    async with agent(runner()) as (_, call):
        one, two = await begin(call), await begin(call)
        assert await tool(call, one, "increment_counter", '{"count": 5}') == '{"success":true}'
        assert await tool(call, one, "get_counter_value", "") == '{"count":8}'
        assert await tool(call, two, "get_counter_value", "{}") == '{"count":3}'
        wrong = await call("POST", f"{one['tools_url']}/increment_counter", {"count": "many"})
        assert (wrong.status, wrong.headers["X-Rollforge-Tool-Error"]) == (200, "1")
        assert "count" in wrong.text
        session = Session()
        for name, arguments in (
            *((name, "{}") for name in ("verify", "reset", "__init__", "a/b", "x" * 5000)),
            *(("get_counter_value", arguments) for arguments in ("[1]", "{", "null", "7", "[" * 10_000, '{"a": 1, }')),
        ):
            # The policy reads what it would read of a tool loop in this process.
            wrong = await call("POST", f"{one['tools_url']}/{name}", arguments.encode())
            item = function_call(name, arguments, "c")
            expected = await ToolLoop().run_call(item, ["increment_counter", "get_counter_value"], session)
            assert (wrong.status, wrong.headers["X-Rollforge-Tool-Error"], wrong.text) == (200, "1", expected["output"])
        for name in ("..%2fverify", "%2e%2e"):
            # 405 where the client itself has followed the dots.
            assert (await call("POST", f"{one['tools_url']}/{name}", {})).status in (200, 404, 405)
        assert await tool(call, one, "get_counter_value", "") == '{"count":8}'


async def test_the_id_is_the_key_and_another_key_is_refused() -> None:
    async with agent(runner(model=says([assistant("7")]))) as (_, call):
        live, other = await begin(call), await begin(call)
        root = f"/rollouts/{live['id']}"
        assert (await call("GET", root)).json == live
        assert (await call("GET", f"{root}/v1/models", Authorization=f"Bearer {live['api_key']}")).status == 200
        assert (await call("GET", f"{root}/v1/models", x_api_key=live["api_key"])).status == 200
        for path in ("", "/v1/models"):
            for key in ({"Authorization": f"Bearer {other['api_key']}"}, {"x_api_key": "EMPTY"}, {"Authorization": "é"}):
                assert (await call("GET", root + path, **key)).status == 401
        ask = {"model": "m", "input": "x"}
        assert (await call("POST", f"{root}/v1/responses", ask, x_api_key="wrong")).status == 401
        assert (await call("POST", f"{root}/finish", {}, x_api_key="wrong")).status == 401
        assert (await call("DELETE", root, x_api_key="wrong")).status == 401
        assert (await call("GET", "/rollouts/0.guess")).status == 404
        assert (await call("POST", "/rollouts/0.guess/v1/chat/completions", {"messages": []})).status == 404


async def test_the_token_of_the_service_begins_rollouts_and_programs_need_only_their_own_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GATE", "s3cret")
    async with agent(runner(model=says([assistant("7")])), token_env="GATE") as (_, call):
        assert (await call("POST", "/rollouts", COUNT)).status == 401
        live = (await call("POST", "/rollouts", COUNT, Authorization="Bearer s3cret")).json
        root = f"/rollouts/{live['id']}"
        asked = await call("POST", f"{root}/v1/responses", {"input": "x"}, Authorization=f"Bearer {live['api_key']}")
        assert asked.status == 200
        assert "s3cret" not in json.dumps(live)
        assert (await call("POST", f"{root}/finish", {}, Authorization="Bearer s3cret")).status == 200
        assert (await call("POST", "/run", COUNT, Authorization=f"Bearer {live['api_key']}")).status == 401


async def test_a_program_with_a_last_word_of_its_own_and_one_without() -> None:
    async with agent(runner("math_answer", "scripted:echo")) as (_, call):
        row = {"prompt": "2 + 2?", "expected_answer": "4"}
        live = await begin(call, row)
        done = await call("POST", f"/rollouts/{live['id']}/finish", {"reply": r"\boxed{4}"})
        assert (done.status, done.json["reward"], done.json["rollforge"]["calls"]) == (200, 1.0, 0)
        live = await begin(call, row)
        assert (await call("POST", f"/rollouts/{live['id']}/finish", {"reply": 4})).status == 400
        silent = await call("POST", f"/rollouts/{live['id']}/finish", {})
    assert (silent.status, silent.json["error"]["type"]) == (502, "infra_fault")
    assert "without a call" in silent.json["error"]["message"]


async def test_cancelled_rollouts_close_their_sessions() -> None:
    env = Broken(ValueError("never asked"))
    async with agent(runner(env, says([assistant("7")]))) as (_, call):
        live = await begin(call)
        assert env.open_now == 1
        assert (await call("DELETE", f"/rollouts/{live['id']}")).status == 200
        assert env.open_now == 0
        assert (await call("GET", f"/rollouts/{live['id']}")).status == 404
        assert (await call("DELETE", f"/rollouts/{live['id']}")).status == 404
        left = await begin(call)
        assert left["id"] != live["id"]
    assert (env.open_now, env.closed) == (0, 2)  # the second with the service


async def test_their_number_is_bounded_and_idle_ones_make_room() -> None:
    env = Broken(ValueError("never asked"))
    async with agent(runner(env, says([assistant("7")])), max_sessions=2, session_seconds=0.2) as (_, call):
        first = await begin(call)
        await begin(call)
        full = await call("POST", "/rollouts", COUNT)
        assert (full.status, full.json["error"]["type"], full.headers["Retry-After"]) == (503, "too_many_sessions", "1")
        while env.open_now:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        assert (await call("GET", f"/rollouts/{first['id']}")).status == 404
        await begin(call)


async def test_a_rollout_that_cannot_begin_says_why_and_leaves_nothing() -> None:
    broken = Broken(InfraFault("no room on the disk"), opening=True)
    async with agent(runner(broken, says([])), max_sessions=1) as (_, call):
        for _ in range(2):
            answer = await call("POST", "/rollouts", COUNT)
            assert (answer.status, answer.json["error"]["message"]) == (502, "no room on the disk")
        assert (await call("POST", "/rollouts", {"nothing": 1})).status == 400


async def test_a_failing_model_is_told_in_the_programs_dialect_and_the_verdict_waits_for_the_program() -> None:
    async with agent(runner(model=says(InfraFault("upstream is down"), [assistant("7")]))) as (_, call):
        live = await begin(call)
        async with openai.AsyncOpenAI(base_url=live["base_url"], api_key=live["api_key"], max_retries=0) as client:
            with pytest.raises(openai.InternalServerError, match="upstream is down"):
                await client.responses.create(model="m", input="x")
            await client.responses.create(model="m", input="x")
        row = (await call("POST", f"/rollouts/{live['id']}/finish", {})).json
    assert (row["rollforge"]["outcome"], row["rollforge"]["calls"]) == ("scored", 1)


async def test_a_rollout_that_ran_out_of_time_is_there_to_be_asked_for() -> None:
    async with agent(runner(model=says([function_call("x", "{}", "c")]), rollout_seconds=0.3)) as (_, call):
        live = await begin(call)
        await call("POST", f"/rollouts/{live['id']}/v1/responses", {"input": "mine"})
        while (late := await call("POST", f"/rollouts/{live['id']}/v1/responses", {"input": "x"})).status == 200:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        assert late.status == 404
        assert "it is over" in late.json["error"]["message"]
        answer = await call("POST", f"/rollouts/{live['id']}/finish", {})
    assert (answer.status, answer.json["error"]["type"]) == (504, "timeout")
    row = answer.json["error"]["rollout"]
    assert row["response"]["output"][0]["name"] == "x"  # what was captured until then
    assert row["responses_create_params"]["input"][0]["content"] in ("mine", "x")


async def test_finishing_ends_calls_under_way_and_a_lost_answer_can_be_fetched_again() -> None:
    began, verified = asyncio.Event(), asyncio.Event()

    async def model(request: Any) -> Response:
        if request.params["input"][-1]["content"] == "slow":
            began.set()
            await asyncio.Event().wait()
        return {"output": [assistant("7")]}

    class Slow(Broken):
        async def verify(self, _: Response) -> Any:
            await verified.wait()
            return 0.5

    async with agent(runner(Slow(ValueError()), model)) as (url, call):
        live = await begin(call)
        path = f"/rollouts/{live['id']}"
        await call("POST", f"{path}/v1/responses", {"input": "fast"})
        slow = asyncio.create_task(call("POST", f"{path}/v1/responses", {"input": "slow"}))
        await began.wait()
        async with aiohttp.ClientSession() as http:
            lost = asyncio.create_task(http.post(f"{url}{path}/finish"))
            assert "the rollout is over" in (await slow).text
            lost.cancel()
        verified.set()
        again = await call("POST", f"{path}/finish")
        assert (again.status, again.json["reward"]) == (200, 0.5)
        assert again.json["rollforge"]["calls"] == 1


async def test_a_model_that_streams_is_streamed_and_captured_whole() -> None:
    told, more = asyncio.Event(), asyncio.Event()

    class Streams:
        keeps_deadline = True

        async def __call__(self, _: Any) -> Response:
            raise AssertionError("it is to be streamed")

        async def stream(self, _: Any) -> AsyncIterator[Any]:
            yield Delta("text", "sev", 0)
            told.set()
            await more.wait()
            yield Delta("text", "en", 0)
            yield {"output": [{**assistant("seven"), **TOKENS}], "usage": {"input_tokens": 1, "output_tokens": 2}}

    async with agent(runner(model=Streams())) as (_, call):
        live = await begin(call)
        async with openai.AsyncOpenAI(base_url=live["base_url"], api_key=live["api_key"]) as client:
            ask: Any = {"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": True}
            texts = []
            async for chunk in await client.chat.completions.create(**ask):
                texts.append(chunk.choices[0].delta.content if chunk.choices else None)
                if "sev" in texts:
                    more.set()  # what was said first is here before the rest is said
            # A program that goes away gives its call up; a whole answer to the same is preferred.
            told.clear(), more.clear()
            left = asyncio.create_task(client.chat.completions.create(**ask))
            await told.wait()
            await (await left).close()
        row = (await call("POST", f"/rollouts/{live['id']}/finish")).json
    assert [text for text in texts if text] == ["sev", "en"]
    assert row["response"]["output"][0]["generation_token_ids"] == [3]
    assert (row["rollforge"]["calls"], row["rollforge"]["branches"], row["rollforge"]["outcome"]) == (2, 1, "scored")


async def test_a_stream_that_the_program_broke_off_is_what_it_was_told_of_it() -> None:
    class ForEver:
        keeps_deadline = True
        asked: ClassVar[list[Any]] = []

        async def __call__(self, _: Any) -> Response:
            raise AssertionError("it is to be streamed")

        async def stream(self, request: Any) -> AsyncIterator[Any]:
            self.asked.append(request.params["input"])
            if len(self.asked) == 2:
                yield {"output": [assistant("7")], "usage": {"input_tokens": 1, "output_tokens": 2}}
                return
            yield Delta("reasoning", "hm", 0)
            yield Delta("text", "Action: ", 1)
            yield Delta("text", "count", 1)
            yield Delta("call", "", 2, "c", "x")
            yield Delta("arguments", '{"un', 2, "c")
            await asyncio.Event().wait()

    async with agent(runner(model=ForEver())) as (_, call):
        live = await begin(call)
        async with openai.AsyncOpenAI(base_url=live["base_url"], api_key=live["api_key"]) as client:
            history: Any = [{"role": "user", "content": "x"}]
            stream = await client.responses.create(model="m", input=history, stream=True)
            async for event in stream:
                if event.type == "response.function_call_arguments.delta":
                    break
            await stream.close()
            history += [assistant("Action: count"), {"role": "user", "content": "seven"}]
            await client.responses.create(model="m", input=history, stream=True)
        row = (await call("POST", f"/rollouts/{live['id']}/finish")).json
    output = row["response"]["output"]
    assert [item.get("type", item.get("role")) for item in output] == ["reasoning", "message", "user", "message"]
    assert [item.get("status") for item in output[1:]] == ["incomplete", None, "completed"]
    assert output[1]["content"][0]["text"] == "Action: count"
    assert (row["rollforge"]["calls"], row["rollforge"]["branches"]) == (2, 0)


FAULTS = {
    "infra_fault": (InfraFault("upstream is down"), 502),
    "judge_fault": (JudgeFault("no verdict"), 502),
    "timeout": (DeadlineExceeded("too slow"), 504),
    "setup_error": (SetupError("the key was refused"), 424),
}


@pytest.mark.parametrize("kind", FAULTS)
async def test_a_program_that_swallows_the_fault_of_its_last_call_ends_with_it(kind: str) -> None:
    fault, status = FAULTS[kind]
    async with agent(runner(model=says([function_call("x", "{}", "c")], fault))) as (_, call):
        live = await begin(call)
        path = f"/rollouts/{live['id']}"
        assert (await call("POST", f"{path}/v1/responses", {"input": "x"})).status == 200
        assert (await call("POST", f"{path}/v1/responses", {"input": "x"})).status == status
        done = await call("POST", f"{path}/finish", {"reply": "I do not know."})
    assert (done.status, done.json["error"]["type"], done.json["error"]["message"]) == (status, kind, str(fault))
    if kind != "setup_error":
        assert done.json["error"]["rollout"]["reward"] is None


async def test_what_the_policy_itself_caused_is_judged() -> None:
    async with agent(runner(model=says([assistant("7")], PolicyFault("it spoke of nothing")))) as (_, call):
        live = await begin(call)
        for _ in range(2):
            await call("POST", f"/rollouts/{live['id']}/v1/responses", {"input": "x"})
        done = await call("POST", f"/rollouts/{live['id']}/finish", {})
    assert (done.status, done.json["rollforge"]["outcome"]) == (200, "scored")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_that_took_longer_than_a_request_may_is_a_fault_too(stream: bool) -> None:
    talker = Streamer(hang=True) if stream else Talker(hang=True)
    talker.keeps_deadline = True  # type: ignore[attr-defined]
    async with agent(runner(model=talker), request_seconds=0.3) as (_, call):
        live = await begin(call)
        asked = await call("POST", f"/rollouts/{live['id']}/v1/responses", {"input": "x", "stream": stream})
        done = await call("POST", f"/rollouts/{live['id']}/finish", {"reply": "no idea"})
    assert "longer than 0.3 s" in asked.text
    assert (done.status, done.json["error"]["type"]) == (504, "timeout")


async def test_tokens_are_counted_and_models_known_by_any_name() -> None:
    async with agent(runner(model="tiny")) as (_, call):
        live = await begin(call)
        root = live["anthropic_base_url"]
        ask = {"model": "m", "messages": [{"role": "user", "content": "Hello."}], "max_tokens": 1}
        async with anthropic.AsyncAnthropic(base_url=root, api_key=live["api_key"]) as client:
            counted: Any = await client.messages.count_tokens(model="m", messages=ask["messages"])  # type: ignore[arg-type]
        assert counted.input_tokens > 2
        assert (await call("GET", f"{root}/v1/models/org/any")).json["id"] == "org/any"
        assert (await call("GET", "/rollouts/0.guess/v1/models/any")).status == 404
        await call("POST", f"{root}/v1/messages", ask)
        row = (await call("POST", f"/rollouts/{live['id']}/finish", {})).json
    assert row["rollforge"]["calls"] == 1  # to count is not to ask
    async with agent(runner()) as (_, call):
        live = await begin(call)
        assert (await call("POST", f"{live['base_url']}/messages/count_tokens", ask)).status == 501


async def test_a_parameter_that_the_backend_does_not_know_is_whose_who_set_it() -> None:
    strange = {"logit_bias": {"1": 5}}
    row = {**COUNT, "responses_create_params": {**COUNT["responses_create_params"], **strange}}  # type: ignore[dict-item]
    async with agent(runner(model="tiny")) as (_, call):
        refused = [
            await call("POST", "/run", row),
            await call("POST", "/v1/responses", {"input": "x", **strange}),
        ]
        live = await begin(call)
        path = f"/rollouts/{live['id']}"
        refused.append(await call("POST", f"{path}/v1/responses", {"input": "x", **strange}))
        swallowed = await call("POST", f"{path}/finish", {"reply": "no idea"})
    for answer in refused:
        error = answer.json["error"]
        assert (answer.status, error["type"], error["param"]) == (400, "invalid_request_error", "logit_bias"), answer.text
    assert (swallowed.status, swallowed.json["error"]["type"]) == (502, "infra_fault")
    async with agent(runner(model="tiny", sampling=strange)) as (_, call):
        for answer in (await call("POST", "/run", COUNT), await call("POST", "/v1/responses", {"input": "x"})):
            assert (answer.status, answer.json["error"]["type"]) == (424, "setup_error")


async def test_a_rollout_that_is_ended_by_another_while_its_verdict_is_awaited() -> None:
    judging = asyncio.Event()

    class Slow(Broken):
        async def verify(self, _: Response) -> Any:
            judging.set()
            await asyncio.sleep(60)

    async with agent(runner(Slow(ValueError()), says([assistant("7")]))) as (_, call):
        live = await begin(call)
        path = f"/rollouts/{live['id']}"
        waiting = asyncio.create_task(call("POST", f"{path}/finish", {"reply": "7"}))
        await judging.wait()
        assert (await call("DELETE", path)).status in (200, 204)
        assert (await waiting).status == 404
