"""Server code in the shape of NeMo Gym's, in our process: loaded, called as a trainer and as an agent would, tested."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock, MagicMock

import aiohttp
import pytest
from pydantic import BaseModel, ConfigDict

import rollforge.nemo.test as ng_test
from rollforge.envs.base import ToolCall
from rollforge.envs.remote import RemoteEnv
from rollforge.errors import JudgeFault, UserError
from rollforge.nemo import compat_path
from rollforge.nemo.servers import Servers, load_server, theirs
from rollforge.records.items import Json, Response
from rollforge.records.task import Task, task_from_row
from rollforge.serve.model_app import model_app
from rollforge.serve.settings import Settings

from ..serve.live import serving

HERE = Path(__file__).parent / "servers"
RESOURCES = HERE / "resources_servers"
SAMPLES = sorted(path.parent.name for path in RESOURCES.glob("*/app.py"))


def example(name: str, **more: Any) -> Json:
    line = (RESOURCES / name / "data" / "example.jsonl").read_text().splitlines()[0]
    return {**json.loads(line), **more}


def task(name: str, *tools: str, **more: Any) -> Task:
    """The first example, with tools that take anything."""
    row = example(name, **more)
    row["responses_create_params"]["tools"] = [{"type": "function", "name": tool, "parameters": {}} for tool in tools]
    return task_from_row(row)


def said(text: str) -> Response:
    return {"output": [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}]}


def called(name: str, **arguments: Any) -> Any:
    return {"type": "function_call", "call_id": "c1", "name": name, "arguments": json.dumps(arguments)}


async def post(app: Any, path: str, row: Json, **more: Any) -> Any:
    return await theirs("_calls").call(app, "POST", path, "http://here", json=row, **more)


def write(directory: Path, app: str, **files: str) -> Path:
    directory.mkdir(parents=True)
    (directory / "app.py").write_text(app)
    for name, text in files.items():
        (directory / name.replace("_txt", ".txt")).write_text(text)
    return directory


SERVER = """
from nemo_gym.base_resources_server import *
from nemo_gym.base_resources_server import BaseVerifyRequest, BaseVerifyResponse, SimpleResourcesServer

class Server(SimpleResourcesServer):
    async def verify(self, body: BaseVerifyRequest) -> BaseVerifyResponse:
        return BaseVerifyResponse(**body.model_dump(), reward=REWARD)
"""


@pytest.mark.parametrize("name", SAMPLES)
def test_every_sample_passes(name: str) -> None:
    lines: list[str] = []
    assert ng_test.test_server(RESOURCES / name, lines.append) == 0
    assert any(line.startswith("pass  session cookies") for line in lines)
    assert any(line.startswith("pass  tasks") for line in lines)


async def test_a_tool_server_is_an_environment() -> None:
    async with serving(load_server(RESOURCES / "weather_tool", {"degrees": 31}, name="weather")) as url:
        env = RemoteEnv(url)
        async with env.open(task("weather_tool", "get_weather")) as session:
            output = await session.call(ToolCall("get_weather", {"city": "Oslo"}))
            assert json.loads(output.text) == {"city": "Oslo", "degrees": 31}
            failed = await session.call(ToolCall("get_weather", {"city": "Atlantis"}))
            assert "Atlantis has no weather" in failed.text  # the model sees what went wrong
            assert (await session.verify({"output": [called("get_weather", city="Oslo")]})).reward == 1.0
        await env.aclose()


async def test_sessions_do_not_see_each_other() -> None:
    async with serving(load_server(RESOURCES / "counter", {})) as url:
        env = RemoteEnv(url)
        rows = [task("counter", "increment", initial_count=start, expected_count=start + 5) for start in (1, 100)]
        async with env.open(rows[0]) as one, env.open(rows[1]) as other:
            await one.call(ToolCall("increment", {"count": 5}))
            assert (await other.verify(said(""))).reward == 0.0
            assert (await one.verify(said(""))).reward == 1.0
        await env.aclose()


async def test_a_forged_cookie_is_a_new_session() -> None:
    app = load_server(RESOURCES / "counter", {}, name="counter")
    seeded = await post(app, "/seed_session", example("counter", initial_count=7))
    [(cookie, found)] = seeded.cookies.items()
    value, _, signature = found.value.rpartition(".")
    assert (await (await post(app, "/get", {}, cookies=seeded.cookies)).json()) == {"count": 7}
    for forged in (f"{value}.{signature[::-1]}", f"{value[:-4]}AAAA.{signature}", value, "", "é", "a.b.c", f".{signature}"):
        answer = await post(app, "/get", {}, headers={"Cookie": f"{cookie}={forged}".encode().decode("latin-1")})
        assert (answer.status, await answer.json()) == (200, {"count": 0})


async def test_instances_have_their_own_configuration_and_state() -> None:
    servers = Servers()
    apps = [load_server(RESOURCES / "weather_tool", {"degrees": n}, name=f"w{n}", servers=servers) for n in (1, 2)]
    answers = [await (await post(app, "/get_weather", {"city": "Rome"})).json() for app in apps]
    assert [answer["degrees"] for answer in answers] == [1, 2]


async def test_modules_of_one_name_do_not_meet(tmp_path: Path) -> None:
    """Two servers with a `utils` of their own, and two roots with a server of one name."""
    for name, tool in (("planner", "plan_add"), ("workplace", "mail_add"), ("planner", "plan_add")):
        app = load_server(RESOURCES / name, {})
        cookies = (await post(app, "/seed_session", example(name))).cookies
        answer = await (await post(app, f"/{tool}", {"text": "a"}, cookies=cookies)).json()
        assert answer["output"].startswith("1 ")
    assert "utils" not in sys.modules
    rewards = []
    for root in ("one", "two"):
        directory = write(
            tmp_path / root / "resources_servers" / "twin", SERVER.replace("REWARD", str(len(root) + len(rewards)))
        )
        app = load_server(directory, {})
        answer = await post(app, "/verify", {**example("letters"), "response": WHOLE})
        rewards.append((await answer.json())["reward"])
    assert rewards == [3.0, 4.0]


LAZY = SERVER.replace(
    "        return",
    """        from tables.scores import score
        import tables.scores as same
        import tables.names
        from . import app
        from yarl import URL
        assert same.score is score and tables.names.NAME == "NAMED" and app.Server is type(self) and URL
        return""",
).replace("REWARD", "score()")


@pytest.mark.parametrize("place", ["resources_servers/one", "two"])
async def test_a_server_finds_its_own_modules_while_it_runs(tmp_path: Path, place: str) -> None:
    """Imported for the first time in a handler, beside a server with others of the same names."""
    apps = []
    for root, worth in (("a", "0.25"), ("b", "0.75")):
        directory = write(tmp_path / root / place, LAZY.replace("NAMED", root))
        package = directory / "tables"
        package.mkdir()
        (directory / "yarl").mkdir()  # no module as long as there is a library of that name
        (package / "__init__.py").write_text("")
        (package / "names.py").write_text(f"NAME = {root!r}")
        (package / "worth.py").write_text(f"from tables import names\nWORTH = {worth}")
        (package / "scores.py").write_text("def score():\n    from .worth import WORTH\n    return WORTH")
        apps.append(load_server(directory, {}, name=root))
    for app, reward in zip(apps * 2, (0.25, 0.75) * 2, strict=True):
        answer = await post(app, "/verify", {**example("letters"), "response": WHOLE})
        assert (await answer.json())["reward"] == reward
    assert "tables" not in sys.modules


async def test_what_a_server_raises_is_told_once_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    app = load_server(write(tmp_path / "failing", SERVER.replace("REWARD", "float(body.response.output_text)")), {})
    for number in range(12):
        message = {**said(f"no number {number}")["output"][0], "id": "m1"}
        answer = await post(app, "/verify", {**example("letters"), "response": {**WHOLE, "output": [message]}})
        assert answer.status == 500
    told = [record.getMessage() for record in caplog.records if record.name == "nemo_gym"]
    assert [line.partition("ValueError")[0] for line in told] == [
        "Server___failing: ",
        "Server___failing: 10 times by now: ",
    ]


WHOLE = {
    "id": "r",
    "created_at": 0,
    "model": "m",
    "object": "response",
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
    **said("\\boxed{A}"),
}
WHOLE["output"][0]["id"] = "m1"  # type: ignore[index]


def judged(**more: Any) -> Json:
    judge = {"type": "responses_api_models", "name": "judge"}
    return {"judge_model_server": judge, "judge_responses_create_params": {"input": []}, **more}


async def test_a_judge_in_the_same_process_needs_no_socket() -> None:
    servers = Servers()
    load_server(HERE / "responses_api_models" / "parrot_model", {"text": "yes"}, name="judge", servers=servers)
    app = load_server(RESOURCES / "judged", judged(), servers=servers)
    answer = await (await post(app, "/verify", {**example("judged"), "response": WHOLE})).json()
    assert (answer["reward"], answer["judged"]) == (1.0, "yes")


async def test_a_judge_elsewhere_is_called_over_http_and_its_failure_is_no_reward() -> None:
    parrot = load_server(HERE / "responses_api_models" / "parrot_model", {"text": "no"}, name="judge")
    async with serving(parrot) as url:
        host, port = url.removeprefix("http://").split(":")
        at = {"judge": {"responses_api_models": {"parrot_model": {"host": host, "port": int(port)}}}}
        async with serving(load_server(RESOURCES / "judged", judged(), servers=Servers(at))) as served:
            env = RemoteEnv(served)
            async with env.open(task("judged")) as session:
                assert (await session.verify(said("Rome"))).reward == 0.0
            await env.aclose()
    async with serving(load_server(RESOURCES / "judged", judged(), servers=Servers())) as served:
        env = RemoteEnv(served)
        async with env.open(task("judged")) as session:
            with pytest.raises(JudgeFault, match="judge"):
                await session.verify(said("Rome"))
        await env.aclose()


async def test_own_routes_middleware_and_components() -> None:
    app = load_server(RESOURCES / "multireward", {})
    response = {**WHOLE, "output": [called("search"), called("look")]}
    answer = await post(app, "/verify", {**example("multireward"), "response": response})
    row = await answer.json()
    assert (row["reward"], row["reward_components"]) == (0.5, {"named": 0.5, "alone": 0.0})
    assert float(answer.headers["X-Seconds"]) > 0
    listed = await theirs("_calls").call(app, "GET", "/objectives", "http://here")
    assert await listed.json() == ["named", "alone"]


async def test_own_metrics_and_reverify_mode() -> None:
    app = load_server(RESOURCES / "letters", {})
    rows = [
        {"reward": reward, "extracted_answer": answer, "subject": "art", "_ng_task_index": at, "_ng_rollout_index": run}
        for at, run, reward, answer in ((0, 0, 1.0, "A"), (0, 1, 0.0, "B"), (1, 0, 0.0, None), (1, 1, 0.0, "B"))
    ]
    found = await (await post(app, "/aggregate_metrics", {"verify_responses": rows})).json()
    assert found["key_metrics"] == {"pass@2/accuracy": 50.0}
    assert found["agent_metrics"]["pass@1[avg-of-2]/no_answer"] == 25.0
    assert found["agent_metrics"]["art/majority@1/accuracy"] == 50.0
    assert found["agent_metrics"]["mean/reward"] == 0.25
    assert [group["attempts"] for group in found["group_level_metrics"]] == [2, 2]
    mode = await theirs("_calls").call(app, "GET", "/reverify_mode", "http://here")
    assert await mode.json() == "stateless"


async def test_a_server_that_is_played_step_by_step() -> None:
    async with serving(load_server(RESOURCES / "guess", {})) as url:
        env = RemoteEnv(url)
        async with env.open(task("guess", secret=13)) as session:
            step: Any = session.step  # type: ignore[attr-defined]
            hinted = await step({"output": [called("hint")]})
            assert json.loads(hinted.outputs[0][1]) == {"hint": 1}
            assert not (await step(said("7"))).terminated
            last = await step(said("13"))
            assert (last.terminated, last.reward) == (True, 1.0)
        await env.aclose()


async def test_their_agent_their_environment_our_model() -> None:
    """A whole rollout in one process: the agent reaches itself, the environment and the model without a socket."""
    asked: list[Any] = []

    async def model(request: Any, /) -> Any:
        asked.append(request.params["input"])
        return {"output": [called("increment", count=3)]} if len(asked) == 1 else said("Done.")

    servers = Servers()
    servers.applications["policy"] = model_app(model, "policy", Settings())
    load_server(RESOURCES / "counter", {}, name="counter", servers=servers)
    block = {
        "resources_server": {"type": "resources_servers", "name": "counter"},
        "model_server": {"type": "responses_api_models", "name": "policy"},
    }
    agent = load_server(HERE / "responses_api_agents" / "patient_agent", block, name="patient", servers=servers)
    answer = await post(agent, "/run", example("counter", initial_count=2, expected_count=5))
    row = await answer.json()
    assert (answer.status, row["reward"]) == (200, 1.0)
    assert [item["type"] for item in row["response"]["output"]] == ["function_call", "function_call_output", "message"]
    assert len(asked) == 2


async def test_a_model_server_speaks_all_three_dialects() -> None:
    app = load_server(HERE / "responses_api_models" / "parrot_model", {"text": "Hello."}, name="parrot")
    messages = [{"role": "user", "content": "Hi"}]
    given = await (await post(app, "/v1/responses", {"input": "Hi"})).json()
    assert given["output"][0]["content"][0]["text"] == "Hello."
    chat = await (await post(app, "/v1/chat/completions", {"messages": messages})).json()
    assert chat["choices"][0]["message"]["content"] == "Hello."
    anthropic = await (await post(app, "/v1/messages", {"model": "p", "max_tokens": 5, "messages": messages})).json()
    assert anthropic["content"][0]["text"] == "Hello."
    streamed = await (await post(app, "/v1/responses", {"input": "Hi", "stream": True})).text()
    assert "event: response.completed" in streamed
    assert (await post(app, "/v1/responses", {"input": 7})).status == 422


async def test_the_gate_is_in_front_of_others_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVER_TOKEN", "open sesame")
    settings = Settings(token_env="SERVER_TOKEN", max_body_mb=0.001)
    servers = Servers()
    app = load_server(RESOURCES / "counter", {}, name="counter", servers=servers, settings=settings)
    async with serving(app) as url, aiohttp.ClientSession() as client:
        async with client.post(f"{url}/seed_session", json=example("counter")) as answer:
            assert answer.status == 401
        headers = {"Authorization": "Bearer open sesame"}
        async with client.post(f"{url}/seed_session", json=example("counter"), headers=headers) as answer:
            assert answer.status == 200
            assert answer.headers["X-Request-Id"]
        async with client.post(f"{url}/seed_session", data=b"x" * 2000, headers=headers) as answer:
            assert answer.status == 413
        async with client.get(f"{url}/health") as answer:
            assert (await answer.json()) == {"status": "ok"}
    inside = await servers.client().post(server_name="counter", url_path="/seed_session", json=example("counter"))
    assert inside.status == 200


async def test_an_unusable_body_is_refused_not_a_crash() -> None:
    app = load_server(RESOURCES / "letters", {})
    for row in (
        {},
        {"response": None},
        {**example("letters"), "response": {"output": "x"}},
        {"responses_create_params": []},
    ):
        assert (await post(app, "/verify", row)).status == 422
    half = {**WHOLE, "output": [{**said("x")["output"][0], "id": "m", "prompt_token_ids": [1]}]}
    answer = await post(app, "/verify", {**example("letters"), "response": half})
    assert answer.status == 422
    assert "generation_token_ids" in await answer.text()


async def test_token_ids_and_unknown_fields_come_through() -> None:
    app = load_server(RESOURCES / "letters", {})
    tokens = {"prompt_token_ids": [1], "generation_token_ids": [2], "generation_log_probs": [-0.5]}
    item = {**WHOLE["output"][0], **tokens, "future": {"field": 1}}  # type: ignore[index]
    other = {"type": "web_search_call", "id": "ws", "status": "completed", "action": {"query": "q"}}
    row = {**example("letters"), "response": {**WHOLE, "output": [other, item], "more": True}}
    found = await (await post(app, "/verify", row)).json()
    assert found["response"]["more"] is True
    assert found["response"]["output"][0] == other
    assert {key: found["response"]["output"][1][key] for key in (*tokens, "future")} == {**tokens, "future": {"field": 1}}
    assert found["subject"] == "art"  # the server's own class keeps what it does not know


def test_objects_of_openais_client_are_taken() -> None:
    class Theirs(BaseModel):  # as theirs are: pydantic's, and none of ours
        model_config = ConfigDict(extra="allow")

    class Message(Theirs):
        type: str = "message"
        role: str = "assistant"

    message = Message(id="m", content=[{"type": "output_text", "text": "hi", "annotations": []}])
    tool = Theirs(type="function", name="f", parameters={}, strict=True)
    more = {"incomplete_details": Theirs(reason="max_output_tokens"), "reasoning": Theirs(effort="low"), "text": Theirs()}
    found = theirs("openai_utils").NeMoGymResponse(**{**WHOLE, "output": [message], "tools": [tool], **more})
    assert (found.output_text, found.tools[0].name, found.reasoning.effort) == ("hi", "f", "low")
    assert found.incomplete_details.reason == "max_output_tokens"
    assert {"background", "conversation", "max_tool_calls", "prompt", "service_tier"} <= found.model_dump().keys()


def test_a_message_of_the_input_is_sent_as_it_was_given() -> None:
    given = {"input": [{"role": "user", "content": "x"}, {"role": "user", "content": [{"type": "input_text", "text": "y"}]}]}
    params = theirs("openai_utils").NeMoGymResponseCreateParamsNonStreaming(**given)
    assert params.model_dump(exclude_unset=True) == given


async def test_a_failure_carries_what_the_other_server_said() -> None:
    class Told:
        ok, content = False, SimpleNamespace(read=AsyncMock(return_value=b'{"why": "x"}'))

        def raise_for_status(self) -> None:
            raise aiohttp.ClientResponseError(MagicMock(), (), status=502)

    with pytest.raises(aiohttp.ClientResponseError) as raised:
        await theirs("server_utils").raise_for_status(Told())
    assert (raised.value.status, raised.value.response_content) == (502, b'{"why": "x"}')  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("app", "files", "message"),
    [
        ("import not_there_at_all", {"requirements_txt": "-e nemo-gym[dev] @ ../../\nnot-there-at-all==1.2\n"}, "1.2'"),
        ("import not_there_at_all", {}, "pip install 'not_there_at_all'"),
        ("import nemo_gym.sandbox", {}, "does not provide"),
        ("import broken_part.nowhere", {"broken_part.py": ""}, "broken_part beside it has no such module"),
        ("x = 1", {}, "defines no server"),
        ("1 / 0", {}, "ZeroDivisionError"),
        (SERVER + "    def setup_webserver(self): raise OSError('no disk')\n", {}, "no disk"),
        (SERVER + "    config: int\n", {}, "is not a class of configuration"),
    ],
)
def test_a_server_that_does_not_load_says_why(tmp_path: Path, app: str, files: dict[str, str], message: str) -> None:
    directory = write(tmp_path / "resources_servers" / "broken", app.replace("REWARD", "1"), **files)
    with pytest.raises(UserError, match=message):
        load_server(directory, {})


def test_a_configuration_that_does_not_fit_names_the_field_and_no_value() -> None:
    with pytest.raises(UserError, match="judge_model_server: Field required") as raised:
        load_server(RESOURCES / "judged", {"judge_prompt_fpath": ["secret"]}, name="j")
    assert "secret" not in str(raised.value)
    with pytest.raises(UserError, match="there is no"):
        load_server(RESOURCES / "nowhere", {})


@pytest.mark.parametrize(
    ("reward", "rows", "finding"),
    [
        ("float('nan')", 5, "not a number"),
        ("1 / 0", 5, "ZeroDivisionError"),
        ("1.0", 4, "has 4 rows"),
    ],
)
def test_findings(tmp_path: Path, reward: str, rows: int, finding: str) -> None:
    directory = write(tmp_path / "resources_servers" / f"bad{rows}", SERVER.replace("REWARD", reward))
    (directory / "data").mkdir()
    (directory / "data" / "example.jsonl").write_text((json.dumps(example("letters")) + "\n") * rows)
    lines: list[str] = []
    assert ng_test.test_servers(tmp_path, lines.append) == 1
    assert any(line.startswith("fail") and finding in line for line in lines), lines
    assert "0 of 1 passed" in lines[-1]


SHARED = """
from fastapi import FastAPI
from nemo_gym.base_resources_server import BaseVerifyRequest, BaseVerifyResponse, SimpleResourcesServer

class Server(SimpleResourcesServer):
    count: int = 0
    def setup_webserver(self) -> FastAPI:
        app = super().setup_webserver()
        app.post("/add")(self.add)
        return app
    async def add(self) -> float:
        self.count += 1
        return self.count
    async def verify(self, body: BaseVerifyRequest) -> BaseVerifyResponse:
        return BaseVerifyResponse(**body.model_dump(), reward=0.0)
"""
ADD = {"type": "function", "name": "add", "parameters": {"type": "object", "properties": {}}}


@pytest.mark.parametrize(
    ("app", "tools", "findings"),
    [
        (SHARED, [ADD], {"isolation": "the same calls twice"}),
        (SERVER.replace("REWARD", "__import__('random').random()"), [], {"determinism": "and then"}),
        (SHARED.replace("return self.count", "return __import__('random').random()"), [ADD], {}),  # chance is no state
        (SERVER.replace("REWARD", "1.0"), [ADD], {}),  # a server that judges calls, and runs none
        (SHARED.replace("self.count += 1", ""), [ADD, {**ADD, "name": "away"}], {"routes": "that have none: away"}),
        (
            SHARED.replace("self.count += 1", ""),
            [ADD, ADD, {**ADD, "name": "add it!", "parameters": {"type": "objekt", "properties": []}}],
            {"routes": "add it!", "tools": "'add' is declared twice; tool 'add it!': model servers take names"},
        ),
    ],
)
def test_what_breaks_the_contract_is_found(tmp_path: Path, app: str, tools: list[Json], findings: dict[str, str]) -> None:
    directory = write(tmp_path / "resources_servers" / "faulty", app)
    (directory / "data").mkdir()
    params = {"input": "Count.", "tools": tools}
    rows = [json.dumps({"responses_create_params": params, "goal": goal}) + "\n" for goal in range(5)]
    (directory / "data" / "example.jsonl").write_text("".join(rows))
    lines: list[str] = []
    assert ng_test.test_server(directory, lines.append) == bool(findings)
    failed = {line.split(":")[0].removeprefix("fail  "): line for line in lines if line.startswith("fail")}
    assert failed.keys() == findings.keys(), lines
    assert all(said in failed[name] for name, said in findings.items()), failed


def test_a_name_without_a_directory_is_what_is_built_in() -> None:
    lines: list[str] = []
    assert ng_test.test_server("resources_servers/simple_weather", lines.append) == 0
    assert "the built-in environment weather" in lines[0]
    assert any(line.startswith("pass  reference") for line in lines)
    with pytest.raises(UserError, match="there is no"):
        ng_test.test_server("resources_servers/nothing_like_it")


def test_without_pytest_the_contract_is_checked_and_the_suite_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytest", None)
    lines: list[str] = []
    assert ng_test.test_server(RESOURCES / "weather_tool", lines.append) == 1
    assert lines[:2] == [
        "fail  its own tests: they were not run: pytest is not installed",
        "      -> pip install 'rollforge[test]'",
    ]
    assert any(line.startswith("pass  isolation") for line in lines)


def test_its_own_failing_suite_is_shown(tmp_path: Path) -> None:
    directory = write(tmp_path / "resources_servers" / "doubtful", SERVER.replace("REWARD", "1.0"))
    (directory / "tests").mkdir()
    (directory / "tests" / "test_app.py").write_text("from app import Server\ndef test(): assert Server is None\n")
    lines: list[str] = []
    assert ng_test.test_server(directory, lines.append) == 1
    assert "assert Server is None" in lines[0]
    with pytest.raises(UserError, match="resources_servers"):
        ng_test.test_servers(tmp_path / "empty")


PROBE = """
import sys
sys.path.insert(0, {place!r})
import rollforge.nemo
rollforge.nemo.activate(ours={ours})
import nemo_gym
print(nemo_gym.__file__)
"""


@pytest.mark.parametrize(("ours", "installed"), [(False, True), (True, True), (False, False)])
def test_an_installed_nemo_gym_wins_unless_told(tmp_path: Path, ours: bool, installed: bool) -> None:
    (tmp_path / "nemo_gym").mkdir()
    (tmp_path / "nemo_gym" / "__init__.py").write_text("")
    if installed:  # and not only a checkout
        (tmp_path / "nemo_gym-0.5.1.dist-info").mkdir()
        (tmp_path / "nemo_gym-0.5.1.dist-info" / "METADATA").write_text("Name: nemo-gym\nVersion: 0.5.1\n")
    code = PROBE.format(place=str(tmp_path), ours=ours)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=os.sep)
    theirs = installed and not ours
    assert done.stdout.startswith(str(tmp_path) if theirs else compat_path())
    assert ("NeMo Gym is installed" in done.stderr) is theirs


def test_a_checkout_brings_its_servers_and_not_its_nemo_gym(tmp_path: Path) -> None:
    (tmp_path / "nemo_gym").mkdir()
    (tmp_path / "nemo_gym" / "__init__.py").write_text("import ray_that_nobody_has\n")
    directory = write(tmp_path / "resources_servers" / "plain", SERVER.replace("REWARD", "1.0"))
    (directory / "tests").mkdir()
    (directory / "tests" / "test_app.py").write_text(
        "import nemo_gym\nfrom app import Server\ndef test(): assert 'compat' in nemo_gym.__file__ and Server\n"
    )
    command = [str(Path(sys.executable).parent / "ng_test"), "+entrypoint=resources_servers/plain"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert "pass  its own tests: 1 passed" in done.stdout
    assert "pass  loads: Server" in done.stdout


def test_it_is_only_there_when_asked_for() -> None:
    code = "import rollforge, rollforge.nemo; import nemo_gym"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=os.sep)
    assert "No module named 'nemo_gym'" in done.stderr
