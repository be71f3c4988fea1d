"""Programs as agents of a collection: what they are given, what becomes of them, what they leave behind."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rollforge.agents.load import load_agent
from rollforge.collect.config import CollectConfig
from rollforge.collect.run import Collection, collect_rollouts
from rollforge.config import validate
from rollforge.errors import InfraFault, SetupError, UserError
from rollforge.records.items import Response, assistant
from rollforge.records.rollout import Outcome, Rollout
from rollforge.records.rows import read_rollouts
from rollforge.records.task import task_from_row
from tests.serve.agents import COUNT, agent, runner, says

PY = sys.executable

AGENT = """
import json, os, sys, urllib.request
from openai import OpenAI

client = OpenAI()
history = json.loads(os.environ["ROLLFORGE_TASK"])
tools = json.load(urllib.request.urlopen(os.environ["ROLLFORGE_BASE_URL"]))["tools"]
while True:
    answer = client.responses.create(model="any", input=history, tools=tools)
    history += [item.model_dump(exclude_none=True) for item in answer.output]
    calls = [item for item in answer.output if item.type == "function_call"]
    if not calls:
        break
    for call in calls:
        url = os.environ["ROLLFORGE_TOOLS_URL"] + "/" + call.name
        output = urllib.request.urlopen(url, data=call.arguments.encode()).read().decode()
        history.append({"type": "function_call_output", "call_id": call.call_id, "output": output})
print(answer.output_text)
"""

ASK = (
    """import os, urllib.request; urllib.request.urlopen(os.environ['OPENAI_BASE_URL'] + '/responses', b'{"input": "x"}')"""
)


async def rollout(command: str, model: Any = None, row: Any = COUNT, options: Any = None, **more: Any) -> Rollout:
    made = load_agent(f"command:{command}", options)
    try:
        run = runner(model=model or says([assistant("7")]), agent=made, **more)
        return await run(task_from_row(row, 0), 0)
    finally:
        await made.aclose()  # type: ignore[attr-defined]


def python(tmp_path: Path, code: str) -> str:
    path = tmp_path / "program.py"
    path.write_text(code)
    return f"{PY} {path}"


async def test_a_program_with_the_openai_sdk_collects_verified_rollouts(tmp_path: Path) -> None:
    command = python(tmp_path, AGENT)
    summary = await collect_rollouts(
        "counter",
        "scripted:perfect+tokens",
        agent=f"command:{command}",
        limit=3,
        out=tmp_path / "run",
        concurrency=2,
    )
    assert (summary.tally.judged, summary.tally.mean) == (3, 1.0)
    rows = [row for row in read_rollouts(tmp_path / "run" / "rollouts.jsonl") if isinstance(row, Rollout)]
    assert all(row.token_drift is None and row.extra["calls"] >= 2 for row in rows)
    assert all(row.output[-1]["generation_token_ids"] for row in rows)
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    assert re.fullmatch(r"command:python[\d.]* \*{3}[0-9a-f]{8}", about["identity"]["agent"]["use"])


async def test_what_a_program_prints_is_its_reply_if_its_model_said_nothing() -> None:
    row = {"prompt": r"Answer \boxed{4}.", "expected_answer": "4"}
    done = await rollout("cat", row=row, env="math_answer")
    assert (done.reward, done.output) == (1.0, [assistant(r"Answer \boxed{4}.", "msg_program")])
    assert done.extra == {"calls": 0, "branches": 0}


async def test_the_programs_environment_has_its_own_key_and_none_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "UPSTREAM", "SEARCH_KEY"):
        monkeypatch.setenv(name, "sk-ours")
    monkeypatch.setenv("PLAIN", "kept")
    monkeypatch.setenv("NO_PROXY", "example.org")
    program = python(tmp_path, "import json, os; print(json.dumps(dict(os.environ)))")
    done = await rollout(program, options={"hide_env": ["UPSTREAM"], "pass_env": ["SEARCH_KEY"]})
    found = json.loads(done.output[0]["content"][0]["text"])
    assert [name for name, value in found.items() if "sk-ours" in value] == ["SEARCH_KEY"]
    assert found["PLAIN"] == "kept"
    assert found["NO_PROXY"] == "example.org,127.0.0.1"
    base = found["ROLLFORGE_BASE_URL"]
    assert base.startswith("http://127.0.0.1:")
    assert found["OPENAI_BASE_URL"] == f"{base}/v1"
    assert found["ANTHROPIC_BASE_URL"] == base
    assert found["ROLLFORGE_TOOLS_URL"] == f"{base}/tools"
    assert found["OPENAI_API_KEY"] == found["ANTHROPIC_API_KEY"] == base.rpartition("/")[2]
    assert json.loads(found["ROLLFORGE_TASK"]) == COUNT["responses_create_params"]["input"]  # type: ignore[index]


async def test_a_collection_hides_the_variable_of_its_own_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINE", "sk-ours")
    program = python(tmp_path, "import os; print(os.environ.get('MINE', 'nothing'))")
    values = {
        "env": "math_answer",
        "model": {"use": "scripted:echo", "api_key_env": "MINE"},
        "agent": {"use": f"command:{program}"},
        "limit": 1,
        "out": tmp_path / "run",
    }
    await Collection(validate(CollectConfig, values, "the test")).run()
    text = (tmp_path / "run" / "rollouts.jsonl").read_text()
    assert "sk-ours" not in text
    assert "nothing" in text


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import sys; print('half'); sys.exit('it broke')", "exited with 1: it broke"),
        ("import os; os.kill(os.getpid(), 15)", "was ended by SIGTERM: nothing on stderr"),
        ("import sys; sys.stderr.write('x' * 100_000 + 'the end'); sys.exit(3)", "x" * 50 + "the end"),
        ("", "ended without a call of the model and printed nothing"),
    ],
)
async def test_a_program_that_fails_is_no_verdict_on_the_policy(tmp_path: Path, code: str, said: str) -> None:
    done = await rollout(python(tmp_path, code))
    assert (done.outcome, done.reward) == (Outcome.INFRA_FAULT, None)
    assert done.failure is not None
    assert done.failure.message.endswith(said)
    assert done.failure.retryable
    assert len(done.failure.message) < 3000


async def test_a_program_that_fails_because_the_model_did_has_the_models_fault(tmp_path: Path) -> None:
    program = python(tmp_path, AGENT.replace("OpenAI()", "OpenAI(max_retries=0)"))
    done = await rollout(program, says(InfraFault("the server burns")))
    assert (done.outcome, done.failure and done.failure.message) == (Outcome.INFRA_FAULT, "the server burns")


async def test_a_model_that_can_never_answer_stops_the_run_though_the_program_would_go_on(tmp_path: Path) -> None:
    program = python(tmp_path, f"while True:\n try:\n  {ASK}\n except OSError: pass\n")
    with pytest.raises(SetupError, match="wrong key"):
        await rollout(program, says(SetupError("wrong key")))


def alive(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout.strip()
    return bool(state) and not state.startswith("Z")


FAMILY = """
import subprocess, sys, time, os
children = [subprocess.Popen(["sleep", "1000"], start_new_session=own) for own in (False, True)]
open(sys.argv[1], "w").write(" ".join(str(pid) for pid in [os.getpid(), *[child.pid for child in children]]))
time.sleep(%s)
print("done")
"""


async def ends(pids: list[int]) -> None:
    while any(map(alive, pids)):  # noqa: ASYNC110
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("seconds", [1000, 0])
async def test_programs_die_with_their_children_at_the_deadline_and_when_they_end(tmp_path: Path, seconds: int) -> None:
    pids = tmp_path / "pids"
    done = await rollout(f"{python(tmp_path, FAMILY % seconds)} {pids}", rollout_seconds=1.0 if seconds else 60)
    assert done.outcome is (Outcome.TIMEOUT if seconds else Outcome.SCORED)
    await ends([int(pid) for pid in pids.read_text().split()])


def test_the_command_line_runs_programs_on_its_own_kind_of_event_loop(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    program = f"{python(tmp_path, FAMILY % 0)} {pids}"
    line = ["collect", "math_answer", "-m", "scripted:perfect", "--agent", f"command:{program}", "-n", "2", "--json"]
    command = [str(Path(PY).parent / "rollforge"), *line, "--out", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads(done.stdout)["outcomes"]["scored"] == 2
    assert not any(alive(int(pid)) for pid in pids.read_text().split())


def test_programs_that_end_before_they_are_told_anything(tmp_path: Path) -> None:
    """On the command line's event loop, which raises what asyncio's does not."""

    def collected(command: str) -> list[Rollout]:
        out = tmp_path / command
        line = ["collect", "math_answer", "-m", "tiny", "--agent", f"command:{command}", "-n", "40", "--max-attempts", "1"]
        subprocess.run([str(Path(PY).parent / "rollforge"), *line, "--out", str(out)], capture_output=True, check=False)
        files = (out / "rollouts.jsonl", out / "failures.jsonl")
        return [row for file in files if file.exists() for row in read_rollouts(file) if isinstance(row, Rollout)]

    assert {found.outcome for found in collected("echo 42")} == {Outcome.SCORED}
    messages = {found.failure.message for found in collected("false") if found.failure}
    assert messages == {"false exited with 1: nothing on stderr"}


async def test_a_cancelled_rollout_kills_its_program(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    job = asyncio.create_task(rollout(f"{python(tmp_path, FAMILY % 1000)} {pids}"))
    while not (pids.exists() and len(pids.read_text().split()) == 3):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job
    await ends([int(pid) for pid in pids.read_text().split()])


async def test_what_was_captured_by_the_deadline_is_kept(tmp_path: Path) -> None:
    done = await rollout(python(tmp_path, f"{ASK}\nimport time; time.sleep(1000)"), rollout_seconds=3.0)
    assert (done.outcome, done.reward) == (Outcome.TIMEOUT, None)
    assert done.output[0]["content"] == assistant("7")["content"]
    assert done.extra["calls"] == 1


async def test_long_prompts_long_outputs_and_programs_that_do_not_read(tmp_path: Path) -> None:
    row = {"prompt": "x" * 3_000_000, "expected_answer": "4"}
    code = r"print('y' * 3_000_000, r'\boxed{4}')"
    done = await rollout(python(tmp_path, code), row=row, env="math_answer")
    assert done.reward == 1.0
    assert len(done.output[0]["content"][0]["text"]) <= 2**20
    counted = await rollout("wc -c", row=row, env="math_answer")
    assert counted.output[0]["content"][0]["text"] == "3000000"


async def test_model_calls_are_bounded(tmp_path: Path) -> None:
    calls = 0

    async def model(_: Any) -> Response:
        nonlocal calls
        calls += 1
        return {"output": [assistant("7")]}

    done = await rollout(python(tmp_path, f"while True: {ASK}"), model, options={"max_turns": 3})
    assert (done.outcome, calls) == (Outcome.INFRA_FAULT, 3)
    assert done.failure is not None
    assert "403" in done.failure.message


@pytest.mark.parametrize(
    ("command", "printed"),
    [
        ("echo a b", "a b"),
        ("echo 'a | b' \"c;d\"", "a | b c;d"),
        ("echo a | tr a b", "b"),
        ("WORD=x; echo $WORD", "x"),
        ("echo '$HOME'", "$HOME"),
        ('test -n "$ROLLFORGE_TOOLS_URL" && echo yes', "yes"),
    ],
)
async def test_a_shell_runs_what_needs_one(command: str, printed: str) -> None:
    done = await rollout(command)
    assert done.output[0]["content"][0]["text"] == printed


@pytest.mark.parametrize(
    ("use", "options", "said"),
    [
        ("command:", {}, "is written command:"),
        ("command:no_such_program --x", {}, "there is no program 'no_such_program'"),
        ("command:echo 'a", {}, "cannot be read"),
        ("command:echo", {"max_turn": 3}, "max_turns"),
        ("comand:echo", {}, "comand"),
    ],
)
def test_commands_that_cannot_be(use: str, options: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        load_agent(use, options)


async def test_a_program_that_swallows_the_fault_of_its_last_call_is_not_judged(tmp_path: Path) -> None:
    swallow = f"try: {ASK}\nexcept Exception: print('I do not know.')"
    done = await rollout(python(tmp_path, swallow), says(InfraFault("upstream is down")))
    assert (done.outcome, done.reward) == (Outcome.INFRA_FAULT, None)
    assert done.failure is not None
    assert done.failure.message == "upstream is down"
    again = await rollout(python(tmp_path, f"{swallow}\n{ASK}"), says(InfraFault("upstream is down"), [assistant("7")]))
    assert (again.outcome, again.extra["calls"]) == (Outcome.SCORED, 1)


async def test_a_parameter_of_the_program_stops_its_rollout_and_one_of_the_run_stops_the_run(tmp_path: Path) -> None:
    odd = ASK.replace('"x"}', '"x", "logit_bias": {"1": 5}}')
    done = await rollout(python(tmp_path, odd), "tiny")
    assert done.outcome is Outcome.INFRA_FAULT
    with pytest.raises(SetupError, match="logit_bias"):
        await rollout(python(tmp_path, ASK), "tiny", sampling={"logit_bias": {"1": 5}})


@pytest.mark.parametrize("command", [f"KEY=s3cret {PY} -c 'exit(3)' --key s3cret", f"{PY} -c 'exit(3)' s3cret"])
async def test_messages_name_the_program_and_not_its_arguments(command: str) -> None:
    done = await rollout(command)
    assert done.failure is not None
    assert done.failure.message == f"{Path(PY).name} exited with 3: nothing on stderr"


async def test_a_shell_without_the_program_stops_the_run() -> None:
    with pytest.raises(SetupError, match="exited with 127"):
        await rollout("no_such_program_here && echo")


async def test_an_agent_service_collects_without_a_model_or_an_environment(tmp_path: Path) -> None:
    tasks = tmp_path / "tasks.jsonl"
    row = {key: value for key, value in COUNT.items() if not key.startswith("_ng_")}
    tasks.write_text("".join(json.dumps({**row, "_rowidx": number}) + "\n" for number in range(4)))
    async with agent(runner()) as (url, _):
        summary = await collect_rollouts(agent=url, tasks=tasks, repeats=2, out=tmp_path / "run")
        again = await collect_rollouts(agent=url, tasks=tasks, repeats=2, out=tmp_path / "run")
        env = await collect_rollouts("counter", agent={"use": url}, limit=2, out=tmp_path / "other")
    assert (summary.tally.judged, summary.tally.mean, again.tally.judged) == (8, 1.0, 8)
    assert (env.tally.judged, env.tally.mean) == (2, 1.0)
    rows = [row for row in read_rollouts(tmp_path / "run" / "rollouts.jsonl") if isinstance(row, Rollout)]
    assert sorted((row.task_index, row.index) for row in rows) == [(t, i) for t in range(4) for i in range(2)]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"agent": "http://127.0.0.1:1"}, "name an environment"),
        ({"agent": "tool_loop", "env": "counter"}, "give a model"),
        ({"agent": {"use": "http://127.0.0.1:1", "max_turns": 3}, "env": "counter"}, "max_turns"),
        ({"agent": "tool_lop", "env": "counter", "model": "scripted:echo"}, "did you mean tool_loop"),
    ],
)
async def test_what_does_not_go_together_is_said(options: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        await collect_rollouts(**options, out=tmp_path / "run")
