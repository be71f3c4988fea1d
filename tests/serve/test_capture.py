"""Model calls of programs become one conversation, whatever the programs do to their histories."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rollforge.errors import InfraFault, SetupError
from rollforge.models.base import Request
from rollforge.records.chat import chat_completion, params_from_chat
from rollforge.records.items import Response, assistant, function_call, function_call_output, system, user
from rollforge.records.problem import Problem
from rollforge.serve.capture import Capture

TOOLS = [{"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}]


class Told:
    """A model that says what it is told to, and remembers what it was asked."""

    def __init__(self, *outputs: Any) -> None:
        self.outputs = list(outputs)
        self.asked: list[Any] = []

    async def __call__(self, request: Request) -> Response:
        self.asked.append(request.params)
        output = self.outputs.pop(0)
        if isinstance(output, Exception):
            raise output
        return {"output": output, "status": "completed", "usage": {"input_tokens": 10, "output_tokens": 2}}


def capture(*outputs: Any, params: Any = None, **options: Any) -> tuple[Capture, Told]:
    model = Told(*outputs)
    return Capture(model, params or {"input": "the task's own"}, **options), model


async def ask(one: Capture, *items: Any, **params: Any) -> Any:
    return (await one(Request({"input": list(items), **params})))["output"]


def kinds(one: Capture) -> list[str]:
    return [item.get("type", "message") for item in (one.response() or {})["output"]]


CALL = [{"type": "reasoning", "id": "r", "summary": []}, function_call("look", '{"at": 1, "b": 2}', "c1")]
CALL2 = [function_call("look", '{"at": 2}', "c2")]
DONE = [assistant("Done.")]


async def test_a_tool_conversation_is_one_thread_with_the_programs_own_prompt_and_tools() -> None:
    tokens = {"prompt_token_ids": [1], "generation_token_ids": [2], "generation_log_probs": [-0.5]}
    call = [CALL[0], {**CALL[1], **tokens}]
    one, _ = capture(call, DONE)
    await ask(one, system("Be brief."), user("Look."), tools=TOOLS)
    await ask(one, system("Be brief."), user("Look."), *call, function_call_output("c1", "a wall"), tools=TOOLS)
    response = one.response()
    assert response is not None
    assert response["output"] == [*call, function_call_output("c1", "a wall"), *DONE]
    assert response["usage"] == {"input_tokens": 20, "output_tokens": 4}
    assert one.params["input"] == [system("Be brief."), user("Look.")]
    assert one.params["tools"] == TOOLS
    assert one.extra == {"calls": 2, "branches": 0}


async def test_histories_are_known_again_without_ids_reasoning_spaces_and_order_of_keys() -> None:
    one, model = capture(CALL, [assistant("  I see\n")], DONE)
    await ask(one, user("Look."))
    again = {"type": "function_call", "call_id": "other", "name": "look", "arguments": '{"b":2,"at":1}'}
    output = function_call_output("other", "a wall")
    await ask(one, {"role": "user", "content": [{"type": "input_text", "text": "Look. "}]}, again, output)
    await ask(one, user("Look."), again, output, {"role": "assistant", "content": "I see"}, user("And?"))
    assert kinds(one) == ["reasoning", "function_call", "function_call_output", "message", "message", "message"]
    assert one.extra == {"calls": 3, "branches": 0}
    # The model is sent its own words as it said them, and outputs under the ids that it gave its calls.
    told = function_call_output("c1", "a wall")
    assert model.asked[2]["input"] == [user("Look."), *CALL, told, assistant("  I see\n"), user("And?")]
    assert (one.response() or {})["output"] == [*CALL, told, assistant("  I see\n"), user("And?"), *DONE]


async def test_outputs_may_stand_behind_each_call_or_behind_all() -> None:
    both = [*CALL, *CALL2]
    one, _ = capture(both, CALL2, DONE)
    first, second = function_call_output("c1", "one"), function_call_output("c2", "two")
    await ask(one, user("Look."))
    await ask(one, user("Look."), CALL[1], first, CALL2[0], second)
    third = function_call_output("c2", "three")
    await ask(one, user("Look."), CALL[1], first, CALL2[0], second, CALL2[0], third)
    assert one.extra == {"calls": 3, "branches": 0}
    assert (one.response() or {})["output"] == [*both, first, second, *CALL2, third, *DONE]


async def test_a_conversation_held_in_chat_completions_is_one_thread() -> None:
    outputs = [[*CALL[:1], assistant("Let me see."), CALL[1], CALL2[0]], DONE]
    one, _ = capture(*outputs)
    chat: list[Any] = [{"role": "user", "content": "Look."}]
    for number in range(2):
        params = params_from_chat({"messages": chat})
        message = chat_completion(await one(Request(params)))["choices"][0]["message"]
        message.pop("reasoning_content", None)
        chat.append(message)
        for call in message.get("tool_calls") or []:
            chat.append({"role": "tool", "tool_call_id": call["id"], "content": f"seen {number}"})
    assert kinds(one) == [
        *("reasoning", "message", "function_call", "function_call"),
        *("function_call_output", "function_call_output", "message"),
    ]
    assert one.extra == {"calls": 2, "branches": 0}


async def test_a_retry_a_title_and_a_sub_agent_stay_aside() -> None:
    one, _ = capture([assistant("A title")], CALL, DONE, [assistant("Done again.")], [assistant("sub")])
    await ask(one, system("Give a title."), user("Look."))
    await ask(one, system("Work."), user("Look."))
    history = [user("Look."), *CALL, function_call_output("c1", "a wall")]
    await ask(one, system("Work, it is 12:01."), *history)
    await ask(one, system("Work, it is 12:02."), *history)
    await ask(one, user("You are a sub-agent."))
    response = one.response()
    assert response is not None
    assert response["output"] == [*CALL, function_call_output("c1", "a wall"), assistant("Done again.")]
    assert response["usage"] == {"input_tokens": 50, "output_tokens": 10}  # what it cost, aside or not
    assert one.params["input"][0] == system("Work.")
    assert one.extra == {"calls": 5, "branches": 3}


async def test_a_compacted_history_begins_anew_and_the_longer_way_is_the_rollout() -> None:
    one, _ = capture(CALL, CALL2, [assistant("Mid.")], DONE)
    await ask(one, user("Look."))
    await ask(one, user("Look."), *CALL, function_call_output("c1", "one"))
    await ask(one, user("Look."), *CALL, function_call_output("c1", "one"), *CALL2, function_call_output("c2", "two"))
    await ask(one, user("Summary: looked twice. Go on."))
    assert one.extra == {"calls": 4, "branches": 1}
    assert kinds(one)[-1] == "message"
    assert len(kinds(one)) == 6


async def test_the_run_decides_how_it_samples_and_which_model_answers() -> None:
    params: Any = {"input": "x", "temperature": 0.5, "max_output_tokens": None, "tools": [{"name": "env"}]}
    one, model = capture(DONE, params=params)
    await ask(one, user("Look."), model="gpt-9", temperature=1.0, top_p=0.9, store=True, tools=TOOLS)
    assert model.asked == [{"input": [user("Look.")], "temperature": 0.5, "top_p": 0.9, "tools": TOOLS}]
    assert one.params == model.asked[0]


async def test_what_the_program_says_counts_only_if_the_model_said_nothing_in_the_end() -> None:
    one, _ = capture(DONE)
    assert one.response() is None
    assert (one.response("42") or {})["output"] == [assistant("42", "msg_program")]
    assert one.params == {"input": "the task's own"}
    await ask(one, user("Look."))
    assert (one.response("42") or {})["output"] == DONE

    other, _ = capture(CALL)
    await ask(other, user("Look."))
    assert (other.response("42") or {})["output"] == [*CALL, assistant("42", "msg_program")]


async def test_calls_are_bounded_and_nonsense_is_no_call() -> None:
    one, model = capture(DONE, DONE, max_calls=1)
    with pytest.raises(Problem, match="input is missing") as wrong:
        await one(Request({"temperature": 1}))
    assert wrong.value.status == 400
    await ask(one, user("Look."))
    with pytest.raises(Problem, match="made its 1 model calls") as refused:
        await ask(one, user("Look."))
    assert refused.value.status == 403
    assert len(model.asked) == 1


async def test_a_failed_call_is_no_part_and_a_hopeless_one_is_told() -> None:
    one, _ = capture(InfraFault("busy"), DONE, SetupError("wrong key"))
    with pytest.raises(InfraFault, match="busy"):
        await ask(one, user("Look."))
    assert str(one.error) == "busy"
    await ask(one, user("Look."))
    assert one.error is None
    assert one.extra == {"calls": 1, "branches": 0}
    assert not one.hopeless.is_set()
    with pytest.raises(SetupError, match="wrong key"):
        await ask(one, user("Look."))
    assert one.hopeless.is_set()


async def test_what_is_under_way_ends_with_the_rollout() -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def slow(_: Request) -> Response:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return {}

    one = Capture(slow, {"input": "x"})
    call = asyncio.create_task(ask(one, user("Look.")))
    await began.wait()
    await one.in_flight.end()
    assert ended.is_set()
    with pytest.raises(InfraFault, match="the rollout is over"):
        await call
    with pytest.raises(InfraFault, match="the rollout is over"):
        await ask(one, user("Look."))
