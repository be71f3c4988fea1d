"""Stored rollouts judged again: every row accounted for, state rebuilt, resumed by line."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import rollforge as rf
from rollforge.collect.reverify import Reverified, compare, reverify
from rollforge.collect.run import collect_rollouts
from rollforge.envs.base import Step, Verdict
from rollforge.errors import InfraFault, JudgeFault, PolicyFault, SetupError, UserError, VerifierFault
from rollforge.records.items import assistant, function_call, function_call_output
from rollforge.records.rollout import Failure, Outcome
from rollforge.records.rows import read_rollouts
from rollforge.serve.env_app import env_app
from rollforge.serve.settings import Settings
from tests.collect.parts import rows
from tests.conformance.served import served
from tests.stats.made import made, write


def env(verify: Callable[[str], Any]) -> Any:
    def judged(reply: str) -> Any:
        return verify(reply)

    return rf.env(judged, inline=True)


STRICT, LENIENT = env(lambda reply: float(reply == "4")), env(lambda reply: float("4" in reply))


@rf.env(inline=True)
class Purse:
    """Spend it."""

    bonus = 0

    def reset(self, balance: int) -> None:
        self.balance = balance + Purse.target.bonus

    def pay(self, amount: int) -> str:
        """Pay."""
        self.balance -= amount
        return f"left {self.balance}"

    def verify(self, reply: str) -> float:
        return float(self.balance == 3)


TOOLS = [{"type": "function", "name": "pay", "parameters": {"type": "object", "properties": {}}}]


def paid(*amounts: int, start: int = 10, **more: Any) -> Any:
    output, left = [], start
    for number, amount in enumerate(amounts):
        left -= amount
        output += [function_call("pay", json.dumps({"amount": amount}), f"c{number}")]
        output += [function_call_output(f"c{number}", f"left {left}")]
    params: Any = {"input": "?", "tools": TOOLS}
    return made(output=[*output, assistant("done")], params=params, fields={"balance": start}, **more)


async def again(source: Path, by: Any, out: Path, **options: Any) -> Reverified:
    return await reverify(source, by, out=out, **{"backoff": 0.001, **options})


def written(folder: Path, *rollouts: Any, failures: Any = ()) -> Path:
    write(folder / "rollouts.jsonl", rollouts)
    if failures:
        write(folder / "failures.jsonl", failures)
    return folder


async def test_new_verdicts_on_old_rows(tmp_path: Path) -> None:
    old = [
        made(1.0, 0, 0, reply="4"),
        made(0.0, 0, 1, reply="it is 4"),
        made(0.0, 1, 0, reply="5", fields={"level": "hard"}),
    ]
    done = await again(written(tmp_path / "a", *old), LENIENT, tmp_path / "b")
    assert (done.verified, done.failed, done.kept, done.stopped, done.bad_count) == (3, 0, 0, None, 0)
    new = {(one.task_index, one.index): one for one in read_rollouts(tmp_path / "b/rollouts.jsonl")}  # type: ignore[union-attr]
    assert [new[key].reward for key in sorted(new)] == [1.0, 1.0, 0.0]  # type: ignore[union-attr]
    for one in old:
        found: Any = new[(one.task_index, one.index)]
        about = found.extra.pop("reverified")
        assert (about["reward"], about["file"]) == (one.reward, "rollouts.jsonl")
        assert replace(found, reward=one.reward) == one
    found = compare(tmp_path / "b")
    assert (found.agree, found.up, found.down) == (2, 1, 0)
    about = json.loads((tmp_path / "b/run.json").read_text())
    assert (about["planned"], about["identity"]["env"]["use"]) == (3, "judged")
    # The old file is as it was.
    assert [row["reward"] for row in rows(tmp_path / "a/rollouts.jsonl")] == [1.0, 0.0, 0.0]


async def test_fields_of_a_verdict_are_replaced_and_the_old_ones_kept_aside(tmp_path: Path) -> None:
    @rf.env(inline=True)
    def first(reply: str, answer: str) -> dict[str, Any]:
        return {"reward": float(reply == answer), "answer": reply, "length": 1}

    @rf.env(inline=True)
    def second(reply: str, answer: str) -> dict[str, Any]:
        return {"reward": float(reply == answer) / 2, "length": 2}

    one = made(0.0, reply="4", fields={"answer": "4"})
    await again(written(tmp_path / "a", one), first, tmp_path / "b")
    # What the verdict said in the place of the task's own `answer` is not what the next verifier is told.
    await again(tmp_path / "b", second, tmp_path / "c")
    (row,) = rows(tmp_path / "c/rollouts.jsonl")
    assert (row["reward"], row["answer"], row["length"]) == (0.5, "4", 2)
    assert row["rollforge"]["reverified"]["fields"] == {"length": 1}


async def test_state_is_rebuilt_from_the_stored_calls(tmp_path: Path) -> None:
    source = written(tmp_path / "a", paid(3, 4, task=0, reward=0.0), paid(3, task=1, reward=1.0))
    done = await again(source, Purse, tmp_path / "b")
    assert done.failed == 0
    assert {row["_ng_task_index"]: row["reward"] for row in rows(tmp_path / "b/rollouts.jsonl")} == {0: 1.0, 1: 0.0}


async def test_a_state_that_is_not_reproduced_gets_no_verdict_unless_forced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = written(tmp_path / "a", paid(3, 4), paid(task=1))
    monkeypatch.setattr(Purse.target, "bonus", 1)
    done = await again(source, Purse, tmp_path / "b")
    assert (done.verified, done.failed) == (1, 1)
    (row,) = rows(tmp_path / "b/failures.jsonl")
    assert row["reward"] is None
    failure = row["rollforge"]["failure"]
    assert (failure["stage"], failure["retryable"]) == ("tools", False)
    assert "state not reproduced: pay({'amount': 3}) gave 'left 8', it was 'left 7'" in failure["message"]
    assert failure["message"].endswith("; --force, with another --out, takes the verdict all the same")
    assert compare(str(tmp_path / "b")).unjudged == 1
    forced = await again(source, Purse, tmp_path / "c", force=True)
    assert (forced.verified, forced.failed) == (2, 0)
    by_task = {row["_ng_task_index"]: row for row in rows(tmp_path / "c/rollouts.jsonl")}
    assert (by_task[0]["reward"], by_task[1]["reward"]) == (0.0, 0.0)
    assert "left 8" in by_task[0]["rollforge"]["reverified"]["forced"]
    assert "forced" not in by_task[1]["rollforge"]["reverified"]
    without = await again(source, Purse, tmp_path / "d", replay=False)
    assert without.failed == 0


async def test_calls_that_never_came_to_the_environment_are_not_made(tmp_path: Path) -> None:
    one = paid(7)
    output = [
        function_call("steal", "{}", "x"),
        function_call_output("x", "unknown tool"),
        function_call("pay", "{broken", "y"),
        function_call_output("y", "not JSON"),
        function_call("pay", "[7]", "z"),
        function_call_output("z", "not an object"),
        *one.response["output"],
        function_call("pay", '{"amount": 1}', "cut off, and never answered"),
    ]
    source = written(tmp_path / "a", replace(one, response={"output": output}))
    assert (await again(source, Purse, tmp_path / "b")).failed == 0
    assert rows(tmp_path / "b/rollouts.jsonl")[0]["reward"] == 1.0


async def test_calls_of_one_id_are_made_in_their_order(tmp_path: Path) -> None:
    output = [function_call("pay", json.dumps({"amount": amount}), "c") for amount in (3, 4)]
    output += [function_call_output("c", f"left {left}") for left in (7, 3)]
    params: Any = {"input": "?", "tools": TOOLS}
    one = made(output=[*output, assistant("done")], params=params, fields={"balance": 10})
    done = await again(written(tmp_path / "a", one), Purse, tmp_path / "b")
    assert (done.verified, done.failed) == (1, 0)
    assert rows(tmp_path / "b/rollouts.jsonl")[0]["reward"] == 1


@pytest.mark.parametrize(
    ("stored", "same"),
    [
        ('{"a": 1, "b": [2]}', True),
        ('{"b":[2],"a":1}', True),
        ('{"b":[2],"a":2}', False),
        ('{"a": 1, \n[cut: 18 characters, 9 shown]', True),
        ('{"a": 2, \n[cut: 18 characters, 9 shown]', False),
        ('{"a": 1, \n[cut: 19 characters, 9 shown]', False),
        ([{"type": "input_text", "text": '{"a": 1, "b": [2]}'}], True),
    ],
)
async def test_outputs_are_compared_as_what_they_say(tmp_path: Path, stored: Any, same: bool) -> None:
    @rf.env(inline=True)
    class Look:
        def look(self) -> str:
            """Look."""
            return '{"a": 1, "b": [2]}'

        def verify(self) -> float:
            return 1.0

    params: Any = {"input": "?", "tools": [{"type": "function", "name": "look"}]}
    output = [function_call("look", "", "c"), {"type": "function_call_output", "call_id": "c", "output": stored}]
    source = written(tmp_path / "a", made(params=params, output=[*output, assistant("done")]))
    assert (await again(source, Look, tmp_path / "b")).verified == same


async def test_every_row_is_judged_or_taken_over_with_a_reason(tmp_path: Path) -> None:
    def failed(outcome: Outcome, stage: str, task: int, attempt: int = 1, **more: Any) -> Any:
        failure = Failure(stage, "Fault", "no", retryable=outcome is Outcome.JUDGE_FAULT)
        one = made(1.0, task, 0, attempt=attempt, **more)
        return replace(one, reward=None, outcome=outcome, failure=failure)

    policy = replace(made(0.0, 0), outcome=Outcome.POLICY_FAULT, failure=Failure("tools", "PolicyFault", "cheated"))
    judged = replace(made(0.0, 1), outcome=Outcome.POLICY_FAULT, failure=Failure("verify", "PolicyFault", "empty"))
    failures = [
        made(None, 2),
        failed(Outcome.VERIFIER_FAULT, "verify", 3),
        failed(Outcome.JUDGE_FAULT, "verify", 4, 1),
        failed(Outcome.JUDGE_FAULT, "verify", 4, 2, reply="another"),
        failed(Outcome.JUDGE_FAULT, "verify", 5),
    ]
    source = written(tmp_path / "a", policy, judged, made(1.0, 5, attempt=2), failures=failures)
    done = await again(source, STRICT, tmp_path / "b")
    assert (done.verified, done.failed, done.kept) == (4, 0, 4)
    found = {(row["_ng_task_index"], row["rollforge"]["attempt"]): row for row in rows(tmp_path / "b/rollouts.jsonl")}
    assert {key: row["reward"] for key, row in found.items()} == {
        (0, 1): 0.0,
        (1, 1): 1.0,
        (3, 1): 1.0,
        (4, 1): 1.0,
        (5, 2): 1.0,
    }
    assert found[(0, 1)]["rollforge"]["reverified"]["kept"] == "policy_fault before it came to the verifier"
    assert found[(1, 1)]["rollforge"]["reverified"]["outcome"] == "policy_fault"
    left = rows(tmp_path / "b/failures.jsonl")
    reasons = {(row["_ng_task_index"], row["rollforge"]["attempt"]): row["rollforge"]["reverified"]["kept"] for row in left}
    another = "another attempt at it is judged"
    assert reasons == {(2, 1): "infra_fault before it came to the verifier", (4, 2): another, (5, 1): another}
    comparison = compare(tmp_path / "b")
    assert (comparison.rollouts, comparison.newly_judged, comparison.kept) == (2, 2, 4)


async def test_rows_of_others(tmp_path: Path) -> None:
    asked = {"input": [{"role": "user", "content": "2+2?"}]}
    reply = {"output": [assistant("4")]}
    lines = [
        {"responses_create_params": asked, "response": reply, "reward": 0.0, "expected_answer": "4"},
        {"responses_create_params": asked, "output": [assistant("4")], "reward": 0.0, "expected_answer": "4"},
        {"responses_create_params": asked, "response": reply, "reward": 0.0, "_ng_failure_class": "judge_failed"},
        {
            "responses_create_params": asked,
            "response": reply,
            "reward": 0,
            "_ng_task_index": -1,
            "_ng_rollout_index": 1 << 40,
        },
    ]
    file = tmp_path / "rollouts_of_gym.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines[:3]) + "\n{torn\n" + json.dumps(lines[3]))
    done = await again(file, STRICT, tmp_path / "b")
    assert (done.verified, done.bad_count) == (4, 2)
    assert json.loads((tmp_path / "b/run.json").read_text())["planned"] == 4
    new = rows(tmp_path / "b/rollouts.jsonl")
    assert [row["reward"] for row in new] == [1.0] * 4
    assert "_ng_failure_class" not in new[2]
    assert new[1]["output"] == [assistant("4")]
    assert [row["rollforge"]["reverified"]["line"] for row in new] == [1, 2, 3, 6]
    assert compare(tmp_path / "b").newly_judged == 1
    assert all(isinstance(one, rf.Rollout) and one.outcome.judged for one in read_rollouts(tmp_path / "b/rollouts.jsonl"))


@pytest.mark.parametrize(
    ("fault", "outcome", "verified"),
    [
        (VerifierFault("no box"), "verifier_fault", 1),
        (ZeroDivisionError("oh"), "verifier_fault", 1),
        (JudgeFault("silent"), "judge_fault", 1),
        (InfraFault("down"), "infra_fault", 1),
        (PolicyFault("empty"), "policy_fault", 2),
    ],
)
async def test_what_cannot_be_judged_is_a_failure_not_a_zero(
    tmp_path: Path, fault: Exception, outcome: str, verified: int
) -> None:
    tries: list[str] = []

    def verify(reply: str) -> float:
        tries.append(reply)
        if reply == "odd":
            raise fault
        return 1.0

    source = written(tmp_path / "a", made(1.0, 0, reply="odd"), made(1.0, 1))
    done = await again(source, env(verify), tmp_path / "b", max_attempts=2)
    assert (done.verified, done.failed) == (verified, 2 - verified)
    all_rows = rows(tmp_path / "b/rollouts.jsonl") + rows(tmp_path / "b/failures.jsonl")
    (row,) = (row for row in all_rows if row["_ng_task_index"] == 0)
    assert row["rollforge"]["outcome"] == outcome
    assert row["reward"] == (0.0 if outcome == "policy_fault" else None)
    assert row["rollforge"]["reverified"]["reward"] == 1.0
    retried = outcome in ("judge_fault", "infra_fault")
    assert (tries.count("odd"), row["rollforge"]["reverified"]["attempts"]) == (1 + retried, 1 + retried)


async def test_rows_that_lost_their_fields_are_joined_with_their_tasks(tmp_path: Path) -> None:
    prompts = [{"input": [{"role": "user", "content": [{"type": "input_text", "text": text}]}]} for text in "abc"]
    stored = [made(params=params, reward=0.0, output=[assistant("4")], fields={"answer": "gone"}) for params in prompts]
    source = written(tmp_path / "a", *stored)
    (tmp_path / "tasks.jsonl").write_text('{"prompt": "a", "answer": "4"}\n{"prompt": "b", "answer": "5"}\n')

    @rf.env(inline=True)
    def judged(reply: str, answer: str) -> float:
        return float(reply == answer)

    done = await again(source, judged, tmp_path / "b", tasks=tmp_path / "tasks.jsonl")
    assert (done.verified, done.kept) == (2, 1)
    assert sorted((row["answer"], row["reward"]) for row in rows(tmp_path / "b" / "rollouts.jsonl")) == [
        ("4", 1.0),
        ("5", 0.0),
        ("gone", 0.0),
    ]
    assert done.kept_reasons == [("it is of no task in tasks.jsonl", 1)]
    (tmp_path / "tasks.jsonl").write_text('{"n": 1}\n')
    with pytest.raises(UserError, match=r"tasks.jsonl has no task: .*no input"):
        await again(source, judged, tmp_path / "c", tasks=tmp_path / "tasks.jsonl")


async def test_tasks_of_one_prompt_are_told_apart_by_their_place(tmp_path: Path) -> None:
    @rf.env(inline=True)
    def judged(reply: str, answer: str) -> float:
        return float(reply == answer)

    (tmp_path / "tasks.jsonl").write_text(
        '{"prompt": "go", "answer": "4"}\n{"prompt": "go", "answer": "5"}\n{"task_id": "x", "prompt": "go", "answer": "6"}\n'
    )
    stored = [made(0.0, task, prompt="go", reply=str(4 + task)) for task in range(2)]
    named = replace(made(0.0, prompt="go", reply="6"), task="x", task_index=None)
    source = written(tmp_path / "a", *stored, named, made(0.0, 9, prompt="go"))
    done = await again(source, judged, tmp_path / "b", tasks=tmp_path / "tasks.jsonl")
    assert (done.verified, done.kept_reasons) == (3, [("several tasks in tasks.jsonl have its prompt", 1)])
    judged_rows = [row for row in rows(tmp_path / "b/rollouts.jsonl") if "kept" not in row["rollforge"]["reverified"]]
    assert [row["reward"] for row in judged_rows] == [1.0] * 3


async def collected(env: Any, out: Path, say: Callable[[Any], str], **more: Any) -> Path:
    """A run of `env`, by a policy that says what `say` makes of the prompt's items."""

    async def model(request: Any, /) -> Any:
        return {"output": [assistant(say(request.params["input"]))]}

    await collect_rollouts(env, model, out=str(out), seed=1, **more)
    return out


async def test_what_an_environment_shows_on_opening_is_no_part_of_the_prompt_it_judges(tmp_path: Path) -> None:
    @rf.env(prompt="What is {a} + {a}?", tasks=[{"a": a} for a in range(4)], inline=True)
    class Sums:
        def reset(self) -> str:
            return "Take your time."

        def verify(self, reply: str, prompt: str) -> dict[str, Any]:
            return {"reward": float(prompt.endswith("?") and reply == str(2 * int(prompt.split()[2]))), "asked": prompt}

    def say(items: Any) -> str:
        assert items[-1]["content"].endswith("Take your time.")
        return str(2 * int(items[-1]["content"].split()[2]))

    source = await collected(Sums, tmp_path / "a", say)
    stored = rows(source / "rollouts.jsonl")
    assert [row["rollforge"]["observed"] for row in stored] == [len("Take your time.")] * 4
    assert [row["reward"] for row in stored] == [1.0] * 4
    await again(source, Sums, tmp_path / "b")
    assert compare(tmp_path / "b").agree == 4
    # As it was before rows said so.
    for row in stored:
        del row["rollforge"]["observed"]
    old = tmp_path / "old.jsonl"
    old.write_text("".join(json.dumps(row) + "\n" for row in stored))
    await again(old, Sums, tmp_path / "c")
    assert compare(tmp_path / "c").agree == 4
    # With the tasks as they are written, completed by the environment.
    tasks = tmp_path / "tasks.jsonl"
    tasks.write_text("".join(f'{{"a": {a}}}\n' for a in range(4)))
    for number, run in enumerate((source, old)):
        joined = await again(run, Sums, tmp_path / f"d{number}", tasks=tasks)
        assert (joined.verified, joined.kept) == (4, 0)
    for folder in ("b", "c", "d0", "d1"):
        for row in rows(tmp_path / folder / "rollouts.jsonl"):
            assert row["asked"] == f"What is {row['a']} + {row['a']}?"
            assert row["responses_create_params"]["input"][0]["content"] == f"{row['asked']}Take your time."
    async with served(env_app(Sums, "sums", Settings())) as url:
        for run in (source, old):
            await again(run, url, tmp_path / f"{run.name}-served")
            assert compare(tmp_path / f"{run.name}-served").agree == 4


async def test_a_service_that_is_down_ends_it(tmp_path: Path) -> None:
    def down(reply: str) -> float:
        raise InfraFault("connection refused")

    source = written(tmp_path / "a", *(made(1.0, task) for task in range(30)))
    with pytest.raises(SetupError, match="connection refused"):
        await again(source, env(down), tmp_path / "b", concurrency=4)


async def test_stopped_in_the_middle_it_goes_on(tmp_path: Path) -> None:
    asked: list[str] = []

    def verify(reply: str) -> float:
        asked.append(reply)
        if len(asked) == 5:
            signal.raise_signal(signal.SIGINT)
        return 1.0

    by = env(verify)
    source = written(
        tmp_path / "a", *(made(0.0, 0, index, reply=str(index)) for index in range(12)), failures=[made(None, 9)]
    )
    stopped = await again(source, by, tmp_path / "b", concurrency=1)
    assert (stopped.stopped, stopped.verified) == ("SIGINT", 5)
    before = (tmp_path / "b/rollouts.jsonl").read_bytes()
    assert before.count(b"\n") == 5
    (tmp_path / "b/rollouts.jsonl").write_bytes(before + b'{"torn":')
    done = await again(source, by, tmp_path / "b", concurrency=3)
    assert (done.verified, done.kept) == (12, 1)
    assert (tmp_path / "b/rollouts.jsonl").read_bytes().startswith(before)
    lines = [row["rollforge"]["reverified"]["line"] for row in rows(tmp_path / "b/rollouts.jsonl")]
    assert sorted(lines) == list(range(1, 13))
    assert len(asked) == 12
    # Finished: nothing is done again.
    assert (await again(source, by, tmp_path / "b")).verified == 12
    assert len(asked) == 12
    # Rows that came since are.
    stored = (source / "rollouts.jsonl").read_bytes()
    (source / "rollouts.jsonl").write_bytes(stored + stored[: stored.index(b"\n") + 1])
    assert (await again(source, by, tmp_path / "b")).verified == 13


async def test_stopped_before_the_first_verdict_it_says_nothing_of_the_source(tmp_path: Path) -> None:
    async def verify(reply: str) -> float:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        await asyncio.sleep(60)
        return 1.0

    source = written(tmp_path / "a", made(0.0))
    stopped = await again(source, rf.env(verify, inline=True), tmp_path / "b")
    assert (stopped.stopped, stopped.verified) == ("SIGINT", 0)


async def test_failures_are_judged_again_when_asked(tmp_path: Path) -> None:
    broken = [True]

    def verify(reply: str) -> float:
        if broken[0]:
            raise VerifierFault("no")
        return 1.0

    by, source = env(verify), written(tmp_path / "a", made(0.0))
    assert (await again(source, by, tmp_path / "b")).failed == 1
    assert (await again(source, by, tmp_path / "b", retry_failed=True)).failed == 1
    assert compare(tmp_path / "b").unjudged == 1
    broken[0] = False
    assert (await again(source, by, tmp_path / "b")).failed == 1
    done = await again(source, by, tmp_path / "b", retry_failed=True)
    assert (done.verified, done.failed) == (1, 0)
    found = compare(tmp_path / "b")
    assert (found.up, found.unjudged) == (1, 0)
    assert (await again(source, by, tmp_path / "b")).failed == 0


async def test_what_is_refused(tmp_path: Path) -> None:
    source = written(tmp_path / "a", made(0.0))
    await again(source, STRICT, tmp_path / "b")
    with pytest.raises(UserError, match=r"arguments of reverify\(\): env: .*\(got None\)"):
        await again(source, None, tmp_path / "c")
    with pytest.raises(UserError, match="another configuration"):
        await again(source, STRICT, tmp_path / "b", force=True)
    with pytest.raises(UserError, match="where the rollouts are"):
        await again(source, STRICT, source)
    with pytest.raises(UserError, match="where the rollouts are"):
        await again(source / "rollouts.jsonl", STRICT, source)
    with pytest.raises(UserError, match="there is no"):
        await again(tmp_path / "nowhere", STRICT, tmp_path / "c")
    with pytest.raises(UserError, match="holds no reverified rollout"):
        compare(source)
    empty = tmp_path / "empty.jsonl"
    empty.write_text("{torn\n")
    with pytest.raises(UserError, match=r"no usable rollout: .*empty.jsonl:1"):
        await again(empty, STRICT, tmp_path / "d")
    with pytest.raises(UserError, match="concurrency"):
        await again(source, STRICT, tmp_path / "e", concurrency=0)


async def test_the_first_rows_only_then_the_rest(tmp_path: Path) -> None:
    source = written(tmp_path / "a", *(made(0.0, task) for task in range(5)))
    assert (await again(source, STRICT, tmp_path / "b", limit=2)).verified == 2
    assert (await again(source, STRICT, tmp_path / "b")).verified == 5


async def test_by_a_served_verifier_with_state(tmp_path: Path) -> None:
    source = written(tmp_path / "a", *(paid(3, 4, task=task, reward=0.0) for task in range(5)), paid(3, task=5))
    async with served(env_app(Purse, "purse", Settings())) as url:
        done = await again(source, url, tmp_path / "b")
    assert (done.verified, done.failed) == (6, 0)
    found = {row["_ng_task_index"]: row["reward"] for row in rows(tmp_path / "b/rollouts.jsonl")}
    assert found == {0: 1.0, 1: 1.0, 2: 1.0, 3: 1.0, 4: 1.0, 5: 0.0}


def game(start: int, goal: int) -> Any:
    @rf.env(prompt="Count.", tasks=[{"n": 1}, {"n": 2}], inline=True)
    class Game:
        """Say the goal; each step tells how far it is."""

        def reset(self) -> str:
            self.steps = 0
            return f"start {start}"

        def step(self, action: str) -> tuple[str, float, bool]:
            self.steps += 1
            return f"{goal - int(action)} away", float(int(action) == goal), self.steps == 2

    return Game


@pytest.mark.parametrize(
    ("start", "goal", "says"),
    [
        (1, 5, None),
        (2, 5, "state not reproduced: opening it gave 'start 2', it was 'start 1'"),
        (1, 6, "state not reproduced: step 1 gave '1 away', it was '0 away'"),
    ],
)
@pytest.mark.parametrize("url", [False, True])
async def test_another_game_is_not_judged(tmp_path: Path, start: int, goal: int, says: str | None, url: bool) -> None:
    source = await collected(game(1, 5), tmp_path / "a", lambda items: "5")

    async def judged(out: str, **options: Any) -> Reverified:
        if not url:
            return await again(source, game(start, goal), tmp_path / out, **options)
        async with served(env_app(game(start, goal), "game", Settings())) as address:
            return await again(source, address, tmp_path / out, **options)

    done = await judged("b")
    if says is None:
        assert (done.verified, compare(done.path).agree) == (2, 2)
        return
    assert (done.verified, done.failed) == (0, 2)
    assert all(says in reason for reason, _ in compare(done.path).reasons)
    await judged("c", force=True)
    for row in rows(tmp_path / "c/rollouts.jsonl"):
        assert f"state not reproduced: {row['rollforge']['reverified']['forced']}" == says


async def test_what_a_run_elsewhere_does_not_store_of_its_last_step_is_not_missed(tmp_path: Path) -> None:
    prompt = [{"role": "user", "content": "Count."}, {"role": "user", "content": "start 1"}]
    output = [assistant("4"), {"role": "user", "content": "1 away"}, assistant("5")]
    row = {"responses_create_params": {"input": prompt}, "response": {"output": output}, "reward": 1.0}
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n")
    await again(tmp_path / "a.jsonl", game(1, 5), tmp_path / "b")
    assert compare(tmp_path / "b").agree == 1


async def test_a_source_may_grow_but_not_change(tmp_path: Path) -> None:
    source = written(tmp_path / "a", made(0.0, 0, reply="4"), made(0.0, 1, reply="5"))
    await again(source, STRICT, tmp_path / "b")
    file = source / "rollouts.jsonl"
    stored = file.read_bytes()
    file.write_bytes(stored + stored.splitlines(keepends=True)[0] + b'{"torn": ')
    write(source / "failures.jsonl", [made(None, 2)])
    grown = await again(source, STRICT, tmp_path / "b")
    assert (grown.verified, grown.kept, grown.earlier, grown.now) == (3, 1, 2, 2)
    assert grown.began == json.loads((tmp_path / "b/run.json").read_text())["created"]
    file.write_bytes(stored.replace(b'"text":"5"', b'"text":"4"'))
    with pytest.raises(UserError, match=r"source.rollouts.jsonl.sha256"):
        await again(source, STRICT, tmp_path / "b")


async def test_parts_of_the_old_reward_do_not_stay_beside_the_new(tmp_path: Path) -> None:
    parts = {"correct": 1.0}
    source = written(tmp_path / "a", made(1.0, reply="5", fields={"answer": "4", "reward_components": parts}))
    await again(source, STRICT, tmp_path / "b")
    (row,) = rows(tmp_path / "b/rollouts.jsonl")
    assert (row["reward"], row["answer"], "reward_components" in row) == (0.0, "4", False)
    assert row["rollforge"]["reverified"]["fields"] == {"reward_components": parts}


class Steps:
    """A session that judges as it is played."""

    tools = ()
    observation = None

    def __init__(self) -> None:
        self.reward = 0.0

    @asynccontextmanager
    async def open(self, task: Any, /) -> AsyncIterator[Steps]:
        yield Steps()

    async def call(self, call: Any, /) -> Any:
        raise NotImplementedError

    async def step(self, response: Any, /) -> Step:
        self.reward += len(response["output"])
        calls = [item["call_id"] for item in response["output"] if item["type"] == "function_call"]
        return Step(outputs=tuple(zip(calls, "xy", strict=False)), observation="go on", reward=1.0)

    async def verify(self, response: Any, /) -> Verdict:
        return Verdict(self.reward)


async def test_a_session_that_is_played_by_steps_is_played_again(tmp_path: Path) -> None:
    output = [
        function_call("look", "{}", "a"),
        function_call("look", "{}", "b"),
        function_call_output("a", "x"),
        function_call_output("b", "y"),
        {"type": "message", "role": "user", "content": "go on"},
        assistant("done"),
        {"type": "message", "role": "user", "content": "go on"},
    ]
    stored = made(0.0, output=output, seconds={"total": 1.0})
    await again(written(tmp_path / "a", stored), Steps(), tmp_path / "b")
    assert rows(tmp_path / "b/rollouts.jsonl")[0]["reward"] == 3.0
    other = [{**item, "output": "z"} if item.get("call_id") == "b" and "output" in item else item for item in output]
    await again(written(tmp_path / "c", replace(stored, response={"output": other})), Steps(), tmp_path / "d")
    assert "step 1 gave 'x y go on', it was 'x z go on'" in compare(tmp_path / "d").reasons[0][0]
