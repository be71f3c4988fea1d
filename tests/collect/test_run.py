"""A collection from configuration to run directory: reproducible, resumable, and clear about what went wrong."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rollforge as rf
from rollforge.collect.about import about, identity
from rollforge.collect.config import CollectConfig
from rollforge.collect.reverify import reverify
from rollforge.collect.run import Collection, Summary, collect_rollouts
from rollforge.collect.run_dir import RunDir
from rollforge.config import validate
from rollforge.errors import InfraFault, SetupError, UserError
from rollforge.models.base import Request
from rollforge.models.tiny import SHIPPED
from rollforge.records.items import Response
from rollforge.records.rows import read_rollouts
from rollforge.train.play import player
from tests.collect.parts import Script, keys, reply, rows, task, until

QUESTIONS = [{"prompt": f"{number}+1=?", "answer": str(number + 1)} for number in range(10)]


@rf.env(tasks=QUESTIONS, inline=True)
def addition(reply: str, answer: str) -> float:
    return float(reply == answer)


class Model:
    """Right answers, after as many failures of each attempt as it is told; remembers what it was asked."""

    name = "test"

    def __init__(self, *failing: str, wait: float = 0.0) -> None:
        self.failing = set(failing)
        self.wait = wait
        self.asked: list[str] = []

    async def __call__(self, request: Request, /) -> Response:
        self.asked.append(request.rollout)
        await asyncio.sleep(self.wait)
        if request.rollout in self.failing:
            raise InfraFault("no answer")
        assert request.task is not None
        return reply(request.task.fields["answer"])  # type: ignore[return-value]


async def collected(path: Path, env: Any = addition, model: Any = "scripted:perfect", **options: Any) -> Summary:
    return await rf.collect_rollouts(env, model, out=path, **{"backoff": 0.001, **options})  # type: ignore[no-any-return]


def stored(path: Path) -> list[tuple[int, int]]:
    return sorted(keys(path / "rollouts.jsonl"))


PLAN = [(index, repeat) for index in range(10) for repeat in range(3)]


async def test_a_whole_run(tmp_path: Path) -> None:
    done = await collected(tmp_path, repeats=3)
    assert (done.path, done.success, done.stopped, done.bad_lines, done.cost) == (tmp_path, True, None, [], None)
    assert stored(tmp_path) == PLAN
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert (metrics["planned"], metrics["outcomes"]["scored"], metrics["coverage"]) == (30, 30, 1.0)
    about = json.loads((tmp_path / "run.json").read_text())
    assert (about["planned"], about["env"], about["config"]["repeats"]) == (30, "addition", 3)
    assert all(one.reward == 1.0 for one in read_rollouts(tmp_path / "rollouts.jsonl") if isinstance(one, rf.Rollout))


# Reproducible


def without_times(path: Path) -> list[dict[str, Any]]:
    found = rows(path / "rollouts.jsonl") + rows(path / "failures.jsonl")
    for row in found:
        del row["rollforge"]["seconds"]
    return sorted(found, key=lambda row: (row["_ng_task_index"], row["_ng_rollout_index"], row["rollforge"]["attempt"]))


@pytest.mark.parametrize("model", ["scripted:random", "scripted:flaky:0.3", "scripted:perfect+tokens"])
async def test_rows_do_not_depend_on_concurrency(tmp_path: Path, model: str) -> None:
    options: dict[str, Any] = {"env": "arithmetic", "model": model, "limit": 10, "repeats": 4, "seed": 5}
    await collected(tmp_path / "one", concurrency=1, **options)
    await collected(tmp_path / "many", concurrency=64, **options)
    one, many = without_times(tmp_path / "one"), without_times(tmp_path / "many")
    assert one == many
    assert len({row["_ng_task_index"] for row in one}) == 10


async def test_a_resumed_run_draws_as_one_that_was_not_interrupted(tmp_path: Path) -> None:
    options: dict[str, Any] = {"env": "arithmetic", "model": "scripted:random", "limit": 10, "repeats": 4}
    await collected(tmp_path / "whole", seed=3, **options)
    for _ in range(5):
        await collected(tmp_path / "parts", seed=3, budget={"rollouts": 9}, **options)
    assert without_times(tmp_path / "whole") == without_times(tmp_path / "parts")


async def test_without_a_seed_a_run_keeps_the_one_it_was_begun_with(tmp_path: Path) -> None:
    options: dict[str, Any] = {"env": "arithmetic", "model": "scripted:random", "limit": 4}
    seeds = []
    for _ in range(2):
        await collected(tmp_path / "a", budget={"rollouts": 2}, **options)
        seeds.append(json.loads((tmp_path / "a" / "run.json").read_text())["seed"])
    await collected(tmp_path / "b", seed=seeds[0], **options)
    assert seeds[0] == seeds[1]

    def said(path: Path) -> list[Any]:
        return [row["response"]["output"][-1] for row in without_times(path)]

    assert said(tmp_path / "a") == said(tmp_path / "b")


async def test_the_same_row_twice_is_collected_twice_with_other_draws(tmp_path: Path) -> None:
    file = tmp_path / "tasks.jsonl"
    file.write_text('{"prompt": "Say something.", "answer": "x", "task_id": "same"}\n' * 2)
    await collected(tmp_path / "run", model="scripted:random", tasks=file, repeats=2, seed=1)
    found = rows(tmp_path / "run" / "rollouts.jsonl")
    assert sorted(keys(tmp_path / "run" / "rollouts.jsonl")) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert {row["rollforge"]["task"] for row in found} == {"same"}
    ids = {row["response"]["id"] for row in found}
    assert len(ids) == 4


# Resume


async def test_resume_does_what_is_left(tmp_path: Path) -> None:
    model = Model()
    first = await collected(tmp_path, model=model, repeats=3, budget={"rollouts": 7})
    assert (first.success, first.stopped, first.tally.done) == (False, "the budget of 7 rollouts is used up", 7)
    assert first.tally.row()["outcomes"]["cancelled"] == 23
    second = await collected(tmp_path, model=model, repeats=3, concurrency=5)
    assert (second.success, second.stopped, second.tally.before, second.tally.started) == (True, None, 7, 23)
    assert stored(tmp_path) == PLAN
    assert len(model.asked) == len(set(model.asked)) == 30
    third = await collected(tmp_path, model=model, repeats=3)
    assert (third.success, third.tally.started, len(model.asked)) == (True, 0, 30)
    assert third.tally.row() == second.tally.row()


async def test_what_failed_for_good_is_attempted_again_only_when_asked(tmp_path: Path) -> None:
    attempts = [f"4-0-{attempt}" for attempt in range(1, 8)]
    model = Model(*attempts[:4])
    for retry_failed, expected, coverage in (
        (False, attempts[:2], 0.9),
        (False, attempts[:2], 0.9),
        (True, attempts[:4], 0.9),  # from the attempt after the last, as many as ever
        (True, attempts[:5], 1.0),
        (True, attempts[:5], 1.0),
    ):
        done = await collected(tmp_path, model=model, max_attempts=2, retry_failed=retry_failed)
        assert [asked for asked in model.asked if asked.startswith("4-")] == expected
        assert (done.tally.coverage, done.success) == (coverage, coverage == 1.0)
        assert sum(done.tally.row()["outcomes"].values()) == 10
    assert stored(tmp_path) == [(index, 0) for index in range(10)]
    assert [row["rollforge"]["attempt"] for row in rows(tmp_path / "failures.jsonl")] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"repeats": 2}, "repeats: 1 there, 2 now"),
        ({"limit": 5}, "limit: not set there, 5 now"),
        ({"seed": 1}, "seed: not set there, 1 now"),
        ({"sampling": {"temperature": 0.5}}, "sampling.temperature: not set there, 0.5 now"),
        ({"agent": {"max_turns": 3}}, "agent.max_turns: 16 there, 3 now"),
        ({"model": "scripted:wrong"}, 'model.use: "scripted:perfect" there, "scripted:wrong" now'),
        ({"env": "arithmetic"}, 'env.use: "addition" there, "arithmetic" now'),
    ],
)
async def test_another_configuration(tmp_path: Path, change: dict[str, Any], named: str) -> None:
    await collected(tmp_path)
    before = (tmp_path / "rollouts.jsonl").read_bytes()
    with pytest.raises(UserError, match=named):
        await collected(tmp_path, **change)
    assert (tmp_path / "rollouts.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("model", "file"), [("tiny:{}/model", "model/config.json"), ("scripted:{}/said.jsonl", "said.jsonl")]
)
async def test_a_models_files_are_part_of_the_run(tmp_path: Path, model: str, file: str) -> None:
    shutil.copytree(SHIPPED, tmp_path / "model")
    (tmp_path / "said.jsonl").write_text('{"text": "3"}\n')
    for note in ("", "of another training"):
        (tmp_path / "model/rollforge.json").write_text(note)  # where the checkpoint comes from is not the checkpoint
        await collected(tmp_path / "run", model=model.format(tmp_path), limit=1)
    with (tmp_path / file).open("a") as handle:
        handle.write("\n")
    with pytest.raises(UserError, match=r"model.digest \(the model's files\)"):
        await collected(tmp_path / "run", model=model.format(tmp_path), limit=1)


async def test_a_model_that_is_a_function_has_its_name(tmp_path: Path) -> None:
    async def one(request: Request) -> Response:
        return reply("3")

    async def other(request: Request) -> Response:
        return reply("4")

    await collected(tmp_path, model=one)
    assert {row["rollforge"]["model"] for row in rows(tmp_path / "rollouts.jsonl")} == {"one"}
    with pytest.raises(UserError, match=r'model.use: "one" there, "other" now'):
        await collected(tmp_path, model=other)


async def test_an_agents_code_is_part_of_the_run(tmp_path: Path) -> None:
    agent = tmp_path / "mine.py"
    code = "from beside import reply\nasync def agent(task, model, session):\n    return {'output': [reply]}\n"
    agent.write_text(code)
    (tmp_path / "beside.py").write_text("reply = {'type': 'message', 'role': 'assistant', 'content': '3'}\n")
    for _ in range(2):
        await collected(tmp_path / "run", agent=f"{agent}:agent")
    for file in ("mine.py", "beside.py"):
        before = (tmp_path / file).read_text()
        (tmp_path / file).write_text(before + "# another\n")
        with pytest.raises(UserError, match=r"agent.digest \(the agent's code\)"):
            await collected(tmp_path / "run", agent=f"{agent}:agent")
        (tmp_path / file).write_text(before)


async def test_what_does_not_make_another_run(tmp_path: Path) -> None:
    await collected(tmp_path, budget={"rollouts": 1})
    changed: dict[str, Any] = {"concurrency": 2, "max_attempts": 9, "min_coverage": 0.5, "budget": {"rollouts": 2}}
    await collected(tmp_path, deadlines={"call": 5}, **changed)
    assert len(stored(tmp_path)) == 3


async def test_an_environments_code_and_tasks_are_part_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = 'import rollforge as rf\n@rf.env(tasks="tasks.jsonl", inline=True)\ndef same(reply, answer): return 1.0\n'
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "same.py").write_text(code)
    (tmp_path / "here" / "tasks.jsonl").write_text('{"prompt": "a", "answer": "b"}\n{"prompt": "c", "answer": "d"}\n')
    await collected(tmp_path / "run", env=str(tmp_path / "here" / "same.py"), budget={"rollouts": 1})
    # From another folder it is the same.
    monkeypatch.chdir(tmp_path / "here")
    await collected(tmp_path / "run", env="same.py", budget={"rollouts": 1})
    assert stored(tmp_path / "run") == [(0, 0), (1, 0)]
    # Other tasks under the same indices are not.
    (tmp_path / "here" / "tasks.jsonl").write_text('{"prompt": "a", "answer": "b"}\n{"prompt": "e", "answer": "f"}\n')
    with pytest.raises(UserError, match="task 1 is not the one this run was begun with"):
        await collected(tmp_path / "run", env="same.py")
    # Nor is another answer to a task that names its id.
    (tmp_path / "here" / "tasks.jsonl").write_text('{"prompt": "a", "answer": "b", "task_id": "t"}\n')
    for _ in range(2):
        assert (await collected(tmp_path / "named", env="same.py")).success
    (tmp_path / "here" / "tasks.jsonl").write_text('{"prompt": "a", "answer": "c", "task_id": "t"}\n')
    with pytest.raises(UserError, match=r"task 0 is not the one this run was begun with \(its content was another"):
        await collected(tmp_path / "named", env="same.py")
    (tmp_path / "given.jsonl").write_text('{"prompt": "a", "answer": "b"}\n')
    await collected(tmp_path / "other", env="same.py", tasks=tmp_path / "given.jsonl")
    (tmp_path / "given.jsonl").write_text('{"prompt": "a", "answer": "c"}\n')
    with pytest.raises(UserError, match=r"tasks.sha256 \(the content of the tasks file\)"):
        await collected(tmp_path / "other", env="same.py", tasks=tmp_path / "given.jsonl")


# Ends


@pytest.mark.parametrize(("min_coverage", "success"), [(0.0, True), (0.29, True), (0.3, True), (0.31, False), (1.0, False)])
async def test_success_is_coverage_of_the_plan(tmp_path: Path, min_coverage: float, success: bool) -> None:
    budget = await collected(tmp_path / "budget", budget={"rollouts": 3}, min_coverage=min_coverage)
    assert (budget.success, budget.tally.coverage) == (success, 0.3)
    model = Model(*(f"{index}-0-1" for index in range(7)))
    faults = await collected(tmp_path / "faults", model=model, max_attempts=1, min_coverage=min_coverage)
    assert (faults.success, faults.stopped, faults.tally.coverage) == (success, None, 0.3)


async def test_a_budget_that_the_last_rollout_uses_up_stopped_nothing(tmp_path: Path) -> None:
    done = await collected(tmp_path, budget={"tokens": 10 * 10}, model=Model(), concurrency=1)
    assert (done.stopped, done.success) == (None, True)


async def test_money(tmp_path: Path) -> None:
    prices = {"price_in": 1000.0, "price_out": 2000.0}
    done = await collected(tmp_path, model=Model(), concurrency=1, budget={"cost": 0.05, **prices})
    assert done.cost == pytest.approx(0.052)  # 4 rollouts of 7 and 3 tokens
    assert (done.tally.done, done.stopped) == (4, "the budget of 0.05 (at the prices given) is used up")
    with pytest.raises(UserError, match="a budget of cost needs prices"):
        await collected(tmp_path, budget={"cost": 1.0})


async def test_minutes(tmp_path: Path) -> None:
    done = await collected(tmp_path, model=Model(wait=0.02), concurrency=1, budget={"minutes": 0.001})
    assert done.stopped == "the budget of 0.001 minutes is used up"
    assert 0 < done.tally.done == len(stored(tmp_path)) < 10


async def test_deadlines_without_end(tmp_path: Path) -> None:
    for_ever = dict.fromkeys(("connect", "call", "tool", "verify", "rollout"), float("inf"))
    assert (await collected(tmp_path, deadlines=for_ever, budget={"minutes": float("inf")})).success


async def test_cancelled_from_outside(tmp_path: Path) -> None:
    model = Model(wait=0.01)
    job = asyncio.create_task(collected(tmp_path, model=model, concurrency=2))
    await until(lambda: len(model.asked) >= 5)
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job
    assert json.loads((tmp_path / "metrics.json").read_text())["outcomes"]["scored"] == len(stored(tmp_path))
    assert (await collected(tmp_path, model=model)).success


async def test_a_model_that_cannot_work_stops_the_run_and_what_was_done_is_kept(tmp_path: Path) -> None:
    class Leaving(Model):
        async def __call__(self, request: Request, /) -> Response:
            if len(self.asked) == 4:
                raise SetupError("the key was revoked")
            return await super().__call__(request)

    with pytest.raises(SetupError, match="the key was revoked"):
        await collected(tmp_path, model=Leaving(), concurrency=1)
    assert len(stored(tmp_path)) == 4
    assert json.loads((tmp_path / "metrics.json").read_text())["outcomes"]["cancelled"] == 6
    assert (await collected(tmp_path, model=Model(), concurrency=1)).tally.before == 4


async def test_a_journal_that_is_deleted_stops_the_run(tmp_path: Path) -> None:
    @rf.env(tasks=QUESTIONS, name="addition")
    async def addition(reply: str, answer: str) -> float:
        (tmp_path / "run" / "rollouts.jsonl").unlink(missing_ok=True)
        await asyncio.Event().wait()
        return 1.0

    with pytest.raises(SetupError, match=r"rollouts.jsonl was deleted while it was being written"):
        await asyncio.wait_for(collected(tmp_path / "run", env=addition), 20)


class Closing(Script):
    """An environment that holds something."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self.error = error
        self.ended = 0

    def tasks(self, source: object = None) -> Iterator[Any]:
        return iter([task(0)])

    async def aclose(self) -> None:
        self.ended += 1
        if self.error:
            raise self.error


async def test_what_does_not_close_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    env = Closing(OSError("it is stuck"))
    assert (await collected(tmp_path, env=env)).success
    assert env.ended == 1
    assert "closing Closing: OSError: it is stuck" in capsys.readouterr().err


async def test_a_run_that_is_refused_closes_too_but_not_a_model_that_it_was_given(tmp_path: Path) -> None:
    class Lent(Model):
        async def aclose(self) -> None:
            raise AssertionError("not ours to close")

    env = Closing()
    assert (await collected(tmp_path / "a", env=env, model=Lent())).success
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="no run directory"):
        await collected(tmp_path, env=env, model=Lent())
    assert env.ended == 2


async def test_of_two_collections_in_one_environment_the_last_one_closes_it(tmp_path: Path) -> None:
    env, slow = Closing(), Model(wait=0.05)
    at_end: list[int] = []

    async def one(name: str, model: Any) -> None:
        assert (await collected(tmp_path / name, env=env, model=model)).success
        at_end.append(env.ended)

    await asyncio.gather(one("quick", Model()), one("slow", slow))
    assert at_end == [0, 1]


# Tasks


def env_of(tasks: Any) -> Any:
    return rf.env(lambda reply, answer: 1.0, tasks=tasks, name="given", inline=True)


async def test_bad_rows_are_counted_and_the_first_ones_shown(tmp_path: Path) -> None:
    file = tmp_path / "tasks.jsonl"
    good, bad = '{"prompt": "a", "answer": "b"}\n', '{"answer": "b"}\n'
    file.write_text(good + "\n" + bad * 30 + good)
    done = await collected(tmp_path / "run", tasks=file)
    assert (done.success, done.tally.planned, done.tally.bad_lines, len(done.bad_lines)) == (True, 2, 31, 20)
    assert [line.line for line in done.bad_lines[:2]] == [2, 3]
    assert stored(tmp_path / "run") == [(0, 0), (1, 0)]


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "there are none"), ('{"answer": 1}\n', r"tasks.jsonl:1: no input"), ("{\n", r"tasks.jsonl:1: not JSON")],
)
async def test_no_task_at_all(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "tasks.jsonl").write_text(text)
    with pytest.raises(UserError, match=f"no task to work on: .*{said}"):
        await collected(tmp_path / "run", tasks=tmp_path / "tasks.jsonl")
    assert not (tmp_path / "run").exists()


async def test_environment_and_model_by_their_entries(tmp_path: Path) -> None:
    env, model = {"use": "choice", "level": "hard"}, {"use": "scripted:echo", "retries": 0}
    await collected(tmp_path, env, model, limit=3)
    rows = (tmp_path / "rollouts.jsonl").read_text().splitlines()
    assert [json.loads(row)["level"] for row in rows] == ["hard"] * 3
    used = json.loads((tmp_path / "run.json").read_text())["config"]
    assert (used["env"], used["model"]["retries"]) == (env, 0)
    with pytest.raises(UserError, match=r"unknown key 'model.retires'; did you mean retries"):
        await collected(tmp_path / "other", env, {"use": "scripted:echo", "retires": 0})


async def test_an_environment_by_its_path_and_what_is_no_model(tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text('import rollforge as rf\n@rf.env(tasks=[{"prompt": "?", "answer": "1"}])\ndef own(reply): return 1.0\n')
    for reference in (file, str(file)):  # the same run
        assert (await collect_rollouts(reference, "scripted:perfect", out=tmp_path / "a")).tally.mean == 1.0
    judged = await reverify(tmp_path / "a", file)
    assert judged.verified == 1
    assert player(file).env_name == "own"
    with pytest.raises(UserError, match=r"^model is list, not a model: give a name"):
        await collect_rollouts(file, ["tiny"], out=tmp_path / "b")  # type: ignore[arg-type]


async def test_an_environment_without_tasks(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="script has no tasks of its own: give some with --tasks"):
        await collected(tmp_path / "run", env=Script())
    (tmp_path / "tasks.jsonl").write_text('{"answer": "b"}\n')
    with pytest.raises(UserError, match="script does not say how it would ask for this: give the row a prompt"):
        await collected(tmp_path / "run", env=Script(), tasks=tmp_path / "tasks.jsonl")
    (tmp_path / "tasks.jsonl").write_text('{"prompt": "a", "answer": "b"}\n')
    url = {"use": "http://127.0.0.1:1", "level": "hard"}  # nobody there would be told
    with pytest.raises(UserError, match=r"http://127.0.0.1:1 takes no options \(got level\): set them where it is made"):
        await collected(tmp_path / "url", env=url, model="scripted:echo", tasks=tmp_path / "tasks.jsonl")
    assert (await collected(tmp_path / "run", env=Script(), tasks=tmp_path / "tasks.jsonl")).success


async def test_tasks_that_can_be_read_only_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="is not a file that can be read twice"):
        await collected(tmp_path / "run", tasks=tmp_path / "pipe")
    assert not (tmp_path / "run").exists()


async def test_tasks_that_come_only_once(tmp_path: Path) -> None:
    class Once(Script):
        def __init__(self) -> None:
            super().__init__()
            self.left = iter([task(0), task(1)])

        def tasks(self, source: object = None) -> Iterator[Any]:
            return self.left

    with pytest.raises(UserError, match="2 rollouts were planned, but there were tasks for 0 only"):
        await collected(tmp_path / "run", env=Once())


async def test_tasks_that_break_off(tmp_path: Path) -> None:
    readings = itertools.count()

    def broken() -> Iterator[dict[str, str]]:
        # The reading that counts goes well.
        reading = next(readings)
        yield from QUESTIONS[:4]
        if reading:
            raise ConnectionError("the data set is gone")
        yield from QUESTIONS[4:]

    with pytest.raises(UserError, match=r"the tasks of given .*ConnectionError: .* gone \(test_run.py:\d+\)"):
        await collected(tmp_path, env=env_of(broken), model=Model(wait=0.01), concurrency=8)
    assert stored(tmp_path) == [(index, 0) for index in range(4)]
    assert json.loads((tmp_path / "metrics.json").read_text())["outcomes"]["cancelled"] == 6


@pytest.mark.parametrize("breaks", ["when called", "at once"])
async def test_tasks_that_never_come(tmp_path: Path, breaks: str) -> None:
    def called() -> Iterator[dict[str, str]]:
        raise FileNotFoundError("no data")

    def started() -> Iterator[dict[str, str]]:
        yield from called()

    with pytest.raises(UserError, match=r"the tasks of given .*FileNotFoundError: no data"):
        await collected(tmp_path / "run", env=env_of(called if breaks == "when called" else started))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("at", [0, 2])
async def test_tasks_of_another_kind_of_environment_that_break_off(tmp_path: Path, at: int) -> None:
    class Broken(Script):
        readings = 0

        def tasks(self, source: object = None) -> Iterator[Any]:
            self.readings += 1
            if at == 0:
                raise ValueError("there is no data")
            # Of the third reading: one looks at them, one counts.
            return (task(number) for number in range(5) if self.readings < 3 or number < at or 1 / 0)

    said = "ValueError: there is no data" if at == 0 else r"ZeroDivisionError: division by zero \(test_run.py:\d+\)"
    with pytest.raises(UserError, match=rf"the tasks of script cannot be read: {said}"):
        await collected(tmp_path, env=Broken())
    if at:
        assert stored(tmp_path) == [(0, 0), (1, 0)]


async def test_tasks_too_many_to_count_are_counted_when_they_end(tmp_path: Path) -> None:
    def planned() -> Any:
        return json.loads((tmp_path / "run.json").read_text())["planned"]

    done = await collected(tmp_path, count_seconds=0.0, budget={"rollouts": 4})
    assert (done.tally.planned, done.stopped, planned()) == (None, "the budget of 4 rollouts is used up", None)
    assert (done.success, done.tally.coverage) == (True, 1.0)  # of what was begun: nobody knows the plan
    done = await collected(tmp_path, count_seconds=60.0, budget={"rollouts": 4})
    assert (done.tally.planned, planned(), done.success) == (10, 10, False)
    done = await collected(tmp_path, count_seconds=0.0)
    assert (done.tally.planned, done.stopped, done.success) == (10, None, True)


async def test_tasks_without_end(tmp_path: Path) -> None:
    endless = env_of(lambda: ({"prompt": f"{number}?", "answer": "x"} for number in itertools.count()))
    done = await collected(tmp_path, env=endless, count_seconds=0.01, budget={"rollouts": 25})
    assert (len(stored(tmp_path)), done.tally.planned, done.success) == (25, None, True)


# Names, secrets, threads


async def test_runs_of_one_second_do_not_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    paths = [(await rf.collect_rollouts(addition, "scripted:perfect", limit=1)).path for _ in range(3)]
    assert len(set(paths)) == 3
    assert all(str(path).startswith("runs/addition-scripted-perfect-") for path in paths)
    assert all(len(keys(path / "rollouts.jsonl")) == 1 for path in paths)


async def test_secrets_stay_out_of_the_run_directory(tmp_path: Path) -> None:
    secret = "sk-very-secret"
    urls = [f"http://user:{secret}@localhost:1/v1?key={secret}", "http://[broken"]
    body = {"api_key": secret, "top_k": 5}
    model = {"use": "scripted:perfect", "base_url": urls, "headers": {"Authorization": secret}, "extra_body": body}
    values = {"env": "arithmetic", "model": model, "limit": 1, "out": tmp_path}
    config = validate(CollectConfig, values, "here")
    for _ in range(2):
        assert (await Collection(config).run()).success
    other = {**values, "model": {**model, "extra_body": {**body, "api_key": "sk-another"}}}
    with pytest.raises(UserError, match=r"model.extra_body.api_key.*: \"\*\*\*\w{8}\" there, \"\*\*\*\w{8}\" now"):
        await Collection(validate(CollectConfig, other, "here")).run()
    everything = b"".join((tmp_path / name).read_bytes() for name in os.listdir(tmp_path))
    assert secret.encode() not in everything
    assert b"http://localhost:1/v1" in everything
    assert b"Authorization" in everything


@pytest.mark.parametrize("stored", ["as it is now", "as it was"])
def test_what_starts_an_agent_is_compared_and_not_stored(tmp_path: Path, stored: str) -> None:
    def opened(command: str) -> None:
        values = {"env": "arithmetic", "model": "tiny", "agent": command}
        config = validate(CollectConfig, values, "here")
        with RunDir(tmp_path, identity(config, None), {**about(config, "arithmetic"), "planned": 1, "seed": 1}):
            pass

    command = "command:MY_KEY=sk-secret python a.py"
    opened(command)
    file = tmp_path / "run.json"
    run = json.loads(file.read_text())
    assert "sk-secret" not in file.read_text()
    assert run["config"]["agent"]["use"] == "command:python"
    if stored == "as it was":
        run["identity"]["agent"]["use"] = command
        file.write_text(json.dumps(run))
    opened(command)
    with pytest.raises(UserError, match=r"agent.use.*command:python \*\*\*\w{8}\" there") as caught:
        opened(command.replace("a.py", "b.py"))
    assert "sk-secret" not in str(caught.value)


def test_outside_the_main_thread(tmp_path: Path) -> None:
    found = []
    thread = threading.Thread(target=lambda: found.append(asyncio.run(collected(tmp_path))))
    thread.start()
    thread.join()
    assert found[0].success
