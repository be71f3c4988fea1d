"""Rows to files: what is planned, what is stored where, what a killed run goes on with; then metrics of such files."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from rollforge.errors import SetupError, UserError
from rollforge.nemo.collect import Agent, Collection, Job, write_metrics
from rollforge.nemo.config import GymConfig, Server
from rollforge.nemo.data import prepare
from rollforge.nemo.profile import averages, matching, merge_shards, metrics_by_agent, reward_profile
from rollforge.nemo.prompt import read_prompt
from rollforge.nemo.rows import Plan, materialise
from rollforge.records.items import Json, assistant
from rollforge.records.rollout import Failure, Outcome, Rollout
from rollforge.records.rows import BadLine
from rollforge.records.task import Task


def write_rows(path: Path, *rows: Json | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def read_rows(path: Path) -> list[Json]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def question(text: str, **more: Any) -> Json:
    return {"responses_create_params": {"input": [{"role": "user", "content": text}]}, **more}


def planned(path: Path, **plan: Any) -> tuple[list[Json], list[BadLine]]:
    bad: list[BadLine] = []
    return list(materialise(path, Plan(**{"agent": "a", **plan}), bad.append)), bad


def keys(rows: list[Json]) -> list[tuple[int, int]]:
    return [(row["_ng_task_index"], row["_ng_rollout_index"]) for row in rows]


class Runs:
    """An agent that gives what it is told to, by task: a reward, or a failure as often as it says."""

    def __init__(self, fails: dict[int, list[Failure]] | None = None, wait: asyncio.Event | None = None) -> None:
        self.fails = fails or {}
        self.wait = wait
        self.began = asyncio.Event()
        self.calls: list[tuple[int, int, int]] = []

    async def __call__(self, task: Task, index: int, attempt: int, /) -> Rollout:
        assert task.index is not None
        self.calls.append((task.index, index, attempt))
        self.began.set()
        if self.wait is not None:
            await self.wait.wait()
        common: Any = {"params": task.params, "fields": {"score": 2}, "task": task.id, "task_index": task.index}
        failures = self.fails.get(task.index)
        if failures:
            failure = failures.pop(0)
            outcome = Outcome.INFRA_FAULT if failure.retryable else Outcome.VERIFIER_FAULT
            return Rollout(
                response=None, reward=None, outcome=outcome, failure=failure, index=index, attempt=attempt, **common
            )
        response: Any = {"output": [assistant("hi")], "usage": {"input_tokens": 1, "output_tokens": 2}}
        return Rollout(
            response=response, reward=float(index), outcome=Outcome.SCORED, index=index, attempt=attempt, **common
        )


BROKEN = Failure("agent", "InfraFault", "it broke", retryable=True)
WRONG = Failure("verify", "VerifierFault", "it is wrong", retryable=False)


def collection(tmp_path: Path, runs: Runs, said: list[str] | None = None, **options: Any) -> Collection:
    source = options.pop("input", tmp_path / "in.jsonl")
    plan = options.pop("plan", Plan(agent="a", repeats=2))
    job = Job(input=source, output=tmp_path / "out" / "r.jsonl", plan=plan, **options)
    return Collection(job, {"a": Agent(runs)}, (said if said is not None else []).append)


def test_lines_that_are_the_same_are_one_task(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "in.jsonl", question("x"), question("y"), question("x"), question("z", _ng_task_index=7))
    rows, bad = planned(path, repeats=2)
    assert keys(rows) == [(0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (0, 3), (7, 0), (7, 1)]
    assert not bad
    assert all(row["agent_ref"] == {"type": "responses_api_agents", "name": "a"} for row in rows)


def test_what_is_laid_over_rows(tmp_path: Path) -> None:
    row = question("x", agent_ref={"name": "b"})
    row["responses_create_params"] |= {"temperature": 0.1, "metadata": {"extra_body": '{"top_k": 5}'}}
    path = write_rows(tmp_path / "in.jsonl", row, {"prompt": "short", "answer": 1})
    rows, _ = planned(path, params={"temperature": 1.0}, repeats={"b": 2, "_default": 1}, add_seed=True)
    assert [row["agent_ref"]["name"] for row in rows] == ["b", "b", "a"]
    assert [row["responses_create_params"]["temperature"] for row in rows] == [1.0] * 3
    seeds = [json.loads(row["responses_create_params"]["metadata"]["extra_body"]) for row in rows]
    assert seeds == [{"top_k": 5, "seed": 0}, {"top_k": 5, "seed": 1}, {"seed": 0}]
    assert rows[2]["responses_create_params"]["input"] == "short"


async def test_repeats_with_seeds_of_their_own_are_one_task(tmp_path: Path) -> None:
    seeded = question("y")
    seeded["responses_create_params"]["metadata"] = {"extra_body": '{"top_k": 5}', "note": "n"}
    write_rows(tmp_path / "in.jsonl", question("x"), seeded)
    ids = []
    for add_seed in (True, False):
        one = collection(tmp_path, Runs(), plan=Plan(agent="a", repeats=2, add_seed=add_seed))
        await one.run()
        rows = read_rows(one.files.rollouts)
        ids.append({row["_ng_task_index"]: row["rollforge"]["task"] for row in rows})
        assert len({row["rollforge"]["task"] for row in rows}) == 2
    assert ids[0][0] == ids[1][0]


def test_a_seed_needs_a_place(tmp_path: Path) -> None:
    row = question("x")
    row["responses_create_params"]["metadata"] = {"extra_body": "{broken"}
    path = write_rows(tmp_path / "in.jsonl", row, question("y"))
    rows, bad = planned(path, add_seed=True)
    assert [row["responses_create_params"]["input"][0]["content"] for row in rows] == ["y"]
    assert "extra_body" in bad[0].reason


def test_unusable_lines_are_named_and_rows_without_an_agent_end_it(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "in.jsonl", "<PLACEHOLDER ROW>", question("x"), "[1]", "", {"no": "input"})
    rows, bad = planned(path)
    assert len(rows) == 1
    assert [line.line for line in bad] == [1, 3, 5]
    with pytest.raises(UserError, match=r"1 rows name no agent \(lines 2\)"):
        planned(path, agent=None)


def test_prompts_are_made_of_fields(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("system: Be brief.\nuser: 'Q: {question} {{literal}}'\n")
    path = write_rows(tmp_path / "in.jsonl", {"question": "why?"}, {"other": 1}, question("x"))
    rows, bad = planned(path, prompt=read_prompt(tmp_path / "p.yaml"))
    assert rows[0]["responses_create_params"]["input"][1]["content"] == "Q: why? {literal}"
    assert "question" in bad[0].reason
    assert "already" in bad[1].reason


@pytest.mark.parametrize("text", ["user: '{a.__class__}'", "user: '{0}'", "system: x", "user: '{'", "user: x\nuse: y"])
def test_templates_that_are_none_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(UserError):
        read_prompt(tmp_path / "p.yaml")


async def test_every_file_is_written_and_failures_are_no_rewards(tmp_path: Path) -> None:
    write_rows(tmp_path / "in.jsonl", question("x", expected_answer="1"), question("y"), question("z"))
    runs = Runs({0: [BROKEN], 1: [WRONG, WRONG]})
    one = collection(tmp_path, runs)
    await one.run()
    files = one.files
    rows = read_rows(files.rollouts)
    assert sorted(keys(rows)) == [(0, 0), (0, 1), (2, 0), (2, 1)]
    assert {row["agent_ref"]["name"] for row in rows} == {"a"}
    assert next(row for row in rows if row["_ng_task_index"] == 0)["expected_answer"] == "1"
    assert rows[0]["response"]["object"] == "response"
    failed = read_rows(files.failures)
    assert sorted((row["_ng_failure_class"], row["_ng_failure_terminal"]) for row in failed) == [
        ("infra_fault", False),
        ("verifier_fault", True),
        ("verifier_fault", True),
    ]
    assert all(row["reward"] is None for row in failed)
    assert len(read_rows(files.materialized)) == 6
    metrics = await write_metrics(files, one.agents, print)
    assert metrics[0]["agent_ref"]["name"] == "a"
    assert metrics[0]["agent_metrics"]["mean/reward"] == 0.5
    assert json.loads(files.metrics.read_text()) == metrics


async def test_a_killed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    write_rows(tmp_path / "in.jsonl", *(question(str(number)) for number in range(4)))
    first = collection(tmp_path, Runs({1: [BROKEN] * 6, 2: [WRONG]}))
    await first.run()
    done = read_rows(first.files.rollouts)
    with first.files.rollouts.open("ab") as file:
        file.write(b'{"torn": "li')
    runs = Runs()
    second = collection(tmp_path, runs, resume=True)
    await second.run()
    assert sorted(runs.calls) == [(1, 0, 4), (1, 1, 4)]  # what failed for good is left out, attempts are numbered on
    rows = read_rows(second.files.rollouts)
    assert rows[: len(done)] == done
    assert len(keys(rows)) == len(set(keys(rows))) == 7
    assert second.tally.outcomes[Outcome.VERIFIER_FAULT] == 1
    with pytest.raises(UserError, match="other inputs"):
        await collection(tmp_path, Runs(), resume=True, plan=Plan(agent="a", repeats=3)).run()


async def test_a_run_that_is_not_resumed_keeps_the_earlier_files(tmp_path: Path) -> None:
    write_rows(tmp_path / "in.jsonl", question("x"))
    said: list[str] = []
    for _ in range(3):
        await collection(tmp_path, Runs(), said).run()
    out = tmp_path / "out"
    assert len(read_rows(out / "r.jsonl")) == len(read_rows(out / "r.jsonl.1")) == len(read_rows(out / "r.jsonl.2")) == 2
    assert len(said) == 2
    assert "resume_from_cache" in said[0]


@pytest.mark.parametrize("name", ["r.jsonl", "r_failures.jsonl", "r_materialized_inputs.jsonl", "hard.jsonl", "soft.jsonl"])
async def test_the_tasks_are_never_written_over(tmp_path: Path, name: str) -> None:
    source = write_rows(tmp_path / "out" / name, question("x"))
    if name == "hard.jsonl":
        (tmp_path / "out" / "r.jsonl").hardlink_to(source)
    elif name == "soft.jsonl":
        (tmp_path / "out" / "r.jsonl").symlink_to(source)
    there = {path.name: path.read_bytes() for path in source.parent.iterdir()}
    with pytest.raises(UserError, match=r"choose another \+output_jsonl_fpath"):
        await collection(tmp_path, Runs(), input=source).run()
    assert {path.name: path.read_bytes() for path in source.parent.iterdir()} == there


async def test_rollouts_whose_plan_is_gone_are_not_gone_on_with(tmp_path: Path) -> None:
    write_rows(tmp_path / "in.jsonl", question("x"))
    first = collection(tmp_path, Runs())
    await first.run()
    first.files.materialized.unlink()
    done = first.files.rollouts.read_bytes()
    with pytest.raises(UserError, match=r"r_materialized_inputs\.jsonl is not there"):
        await collection(tmp_path, Runs(), resume=True).run()
    assert first.files.rollouts.read_bytes() == done
    assert not first.files.rollouts.with_name("r.jsonl.1").exists()


async def test_two_writers_are_refused(tmp_path: Path) -> None:
    write_rows(tmp_path / "in.jsonl", question("x"))
    first = Runs(wait=asyncio.Event())
    slow = asyncio.create_task(collection(tmp_path, first).run())
    await first.began.wait()
    with pytest.raises(UserError, match="another process"):
        await collection(tmp_path, Runs()).run()
    assert first.wait is not None
    first.wait.set()
    await slow
    assert len(read_rows(tmp_path / "out" / "r.jsonl")) == 2


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([question("x", agent_ref={"name": "aa"})], "unknown agent 'aa'; did you mean a"),
        (["not json"], "no task to work on"),
        ([], "is empty"),
    ],
)
async def test_what_cannot_be_planned_is_told_and_leaves_nothing(tmp_path: Path, rows: list[Any], told: str) -> None:
    write_rows(tmp_path / "in.jsonl", *rows)
    with pytest.raises(UserError) as error:
        await collection(tmp_path, Runs()).run()
    assert told in str(error.value)
    assert list((tmp_path / "out").iterdir()) == []


async def test_rows_of_agents_that_are_not_there_may_be_taken_by_another(tmp_path: Path) -> None:
    write_rows(tmp_path / "in.jsonl", question("x", agent_ref={"name": "aa"}), question("y"))
    said: list[str] = []
    one = collection(tmp_path, Runs(), said, adopt="a")
    await one.run()
    assert {row["agent_ref"]["name"] for row in read_rows(one.files.rollouts)} == {"a"}
    assert {row["agent_ref"]["name"] for row in read_rows(one.files.materialized)} == {"a"}
    assert said == ["2 rollouts are for aa, which is not here: a makes them"]


async def test_a_setup_that_can_never_work_ends_it(tmp_path: Path) -> None:
    write_rows(tmp_path / "in.jsonl", question("x"))

    async def never(*_: Any) -> Rollout:
        raise SetupError("no such model")

    one = collection(tmp_path, Runs())
    one.agents = {"a": Agent(never)}
    with pytest.raises(SetupError, match="no such model"):
        await one.run()


async def test_servers_that_are_gone_end_it(tmp_path: Path) -> None:
    write_rows(tmp_path / "in.jsonl", *(question(str(number)) for number in range(500)))
    gone = Runs({number: [BROKEN] * 6 for number in range(100, 500)})
    one = collection(tmp_path, gone, window=1, max_attempts=1)
    await one.run()
    assert one.stop.reason == "the last 50 attempts all failed"
    assert len(read_rows(one.files.rollouts)) == 200
    assert len(read_rows(one.files.failures)) == 50


async def test_profiles_name_what_is_missing(tmp_path: Path) -> None:
    write_rows(tmp_path / "in.jsonl", question("x"), question("y"))
    one = collection(tmp_path, Runs({1: [WRONG]}))
    await one.run()
    files = one.files
    with pytest.raises(UserError, match="allow_partial_rollouts"):
        reward_profile(files.materialized, files.rollouts, unexpected, partial=False)
    tasks, agents = reward_profile(files.materialized, files.rollouts, unexpected, partial=True, threshold=1.0)
    passed = {"pass_threshold": 1.0, "pass_rate": 0.5, "pass_rate_total": 2, "pass_rate_passed": 1}
    assert tasks[0] | passed == tasks[0]
    assert [(task["num_rollouts"], task["missing_num_rollouts"]) for task in tasks] == [(2, 0), (1, 1)]
    assert tasks[0]["mean/reward"] == 0.5
    assert tasks[0]["rollout_infos"][1] | {"reward": 1.0, "output_tokens": 2} == tasks[0]["rollout_infos"][1]
    assert tasks[0]["sample"]["responses_create_params"]["input"][0]["content"] == "x"
    assert agents[0]["agent_ref"]["name"] == "a"
    assert averages(files.rollouts, unexpected)["score"] == 2
    with files.rollouts.open("ab") as file:
        file.write(b'{"reward": 1.0}\n[1]\n{"_ng_task_index": 0, "_ng_rollout_index": 0}\n{"broken\n')
    bad: list[BadLine] = []
    tasks, agents = reward_profile(files.materialized, files.rollouts, bad.append, partial=True)
    assert [(line.line, line.reason.partition(":")[0].partition("(")[0].strip()) for line in bad] == [
        (4, "no _ng_task_index and _ng_rollout_index"),
        (5, "the line is list, not an object"),
        (6, "neither reward nor response"),
        (7, "not JSON"),
    ]
    assert [task["num_rollouts"] for task in tasks] == [2, 1]
    write_rows(files.materialized, question("x"))
    with pytest.raises(UserError, match=r"r_materialized_inputs\.jsonl:1: no _ng_task_index"):
        reward_profile(files.materialized, files.rollouts, bad.append, partial=True)


def unexpected(what: object) -> None:
    raise AssertionError(what)


def test_shards_are_merged_once_and_in_order(tmp_path: Path) -> None:
    def row(task: int, rollout: int, text: str = "") -> Json:
        return {"_ng_task_index": task, "_ng_rollout_index": rollout, "reward": 1.0, "text": text}

    write_rows(tmp_path / "s1.jsonl", row(1, 0), row(0, 1), "{torn")
    write_rows(tmp_path / "s2.jsonl", row(0, 0), row(1, 0), row(1, 0, "another shard's task 1"), {"reward": 0.0})
    shards = matching(f"{tmp_path}/s1.jsonl, {tmp_path}/s*.jsonl")
    bad: list[BadLine] = []
    assert merge_shards(shards, tmp_path / "all.jsonl", bad.append, unexpected) == 5
    assert [(line.file, line.line) for line in bad] == [(str(tmp_path / "s1.jsonl"), 3)]
    assert [row.get("_ng_task_index") for row in read_rows(tmp_path / "all.jsonl")] == [0, 0, 1, 1, None]
    (tmp_path / "link.jsonl").hardlink_to(shards[0])
    for taken in (shards[0], tmp_path / "link.jsonl"):
        with pytest.raises(UserError, match="one of the shards"):
            merge_shards(shards, taken, unexpected, unexpected)
    with pytest.raises(UserError, match="no file matches"):
        matching(str(tmp_path / "nothing*"))


def rollout(text: str, task: int, repeat: int, reward: float, **more: Any) -> Json:
    response = {"output": [assistant(f"{text} {repeat}")]}
    return {
        **question(text, _ng_task_index=task, _ng_rollout_index=repeat),
        "response": response,
        "reward": reward,
        "agent_ref": {"name": "a"},
        **more,
    }


def two_shards(tmp_path: Path, prompts: str, other: str, **more: Any) -> list[Path]:
    """Each numbered from 0, two rollouts of each task; the first has all right, the second nothing."""
    return [
        write_rows(
            tmp_path / f"{name}.jsonl",
            *(rollout(text, task, n, reward, **more) for task, text in enumerate(texts) for n in range(2)),
        )
        for name, texts, reward in (("a", prompts, 1.0), ("b", other, 0.0))
    ]


def test_shards_that_were_numbered_each_for_itself_are_not_mixed(tmp_path: Path) -> None:
    shards = two_shards(tmp_path, "pq", "rs")
    said: list[str] = []
    assert merge_shards(shards, tmp_path / "all.jsonl", unexpected, said.append) == 8
    assert said == ["2 task numbers mean different tasks in different files: the 4 tasks are numbered anew"]
    rows = read_rows(tmp_path / "all.jsonl")
    assert keys(rows) == [(task, n) for task in range(4) for n in range(2)]
    assert [row["responses_create_params"]["input"][0]["content"] for row in rows] == list("ppqqrrss")
    (merged,) = metrics_by_agent([tmp_path / "all.jsonl"], unexpected, unexpected)
    (apart,) = metrics_by_agent(shards, unexpected, said.append)
    assert len(said) == 2
    assert merged == apart
    assert merged["agent_metrics"]["pass@2/reward"] == 50
    assert [one["rollouts"] for one in merged["group_level_metrics"]] == [2, 2, 2, 2]


def test_shards_of_the_same_tasks_keep_their_numbers(tmp_path: Path) -> None:
    shards = two_shards(tmp_path, "pq", "pq")
    assert merge_shards(shards, tmp_path / "all.jsonl", unexpected, unexpected) == 8
    assert [row["_ng_task_index"] for row in read_rows(tmp_path / "all.jsonl")] == [0, 0, 0, 0, 1, 1, 1, 1]
    (found,) = metrics_by_agent(shards, unexpected, unexpected)
    assert found["agent_metrics"]["pass@4/reward"] == 100


def test_tasks_of_one_prompt_are_told_apart_by_their_ids_and_not_by_what_a_game_showed_first(tmp_path: Path) -> None:
    first = write_rows(tmp_path / "a.jsonl", rollout("p", 0, 0, 1.0, rollforge={"task": "seed 1"}))
    second = write_rows(tmp_path / "b.jsonl", rollout("p", 0, 0, 0.0, rollforge={"task": "seed 2"}))
    said: list[str] = []
    (found,) = metrics_by_agent([first, second], unexpected, said.append)
    assert len(found["group_level_metrics"]) == 2
    assert len(said) == 1
    bare = write_rows(tmp_path / "c.jsonl", rollout("p", 0, 0, 0.0))
    (found,) = metrics_by_agent([first, bare], unexpected, unexpected)
    assert [one["rollouts"] for one in found["group_level_metrics"]] == [2]
    (found,) = metrics_by_agent([bare, second], unexpected, unexpected)
    assert [one["rollouts"] for one in found["group_level_metrics"]] == [2]

    def game(hand: str, repeat: int) -> Json:
        row = rollout("Deal me in.", 0, repeat, 1.0, terminated=True, truncated=False)
        row["responses_create_params"]["input"].append({"role": "user", "content": hand})
        return row

    games = [write_rows(tmp_path / f"{n}.jsonl", game(hand, n)) for n, hand in enumerate(("8, 5", "K, 2"))]
    (found,) = metrics_by_agent(games, unexpected, unexpected)
    assert [one["rollouts"] for one in found["group_level_metrics"]] == [2]


def test_rollouts_without_numbers_are_grouped_by_their_prompts(tmp_path: Path) -> None:
    plain = [{k: v for k, v in rollout(text, 0, 0, 1.0).items() if not k.startswith("_ng_")} for text in "ppq"]
    (found,) = metrics_by_agent([write_rows(tmp_path / "r.jsonl", *plain)], unexpected, unexpected)
    assert sorted(one["rollouts"] for one in found["group_level_metrics"]) == [1, 2]


def test_what_stands_beside_rollouts_is_no_shard(tmp_path: Path) -> None:
    for name in ("r", "r_failures", "r_materialized_inputs", "r_reward_profiling", "of_failures"):
        write_rows(tmp_path / f"{name}.jsonl", rollout("p", 0, 0, 1.0))
    assert [path.name for path in matching(f"{tmp_path}/*.jsonl")] == ["of_failures.jsonl", "r.jsonl"]
    with pytest.raises(UserError, match=r"but what stands beside rollouts: .*r_failures"):
        matching(f"{tmp_path}/r_*.jsonl")
    plan = write_rows(tmp_path / "plan.jsonl", question("p", _ng_task_index=0, _ng_rollout_index=0))
    bad: list[BadLine] = []
    assert merge_shards([tmp_path / "r.jsonl", plan], tmp_path / "all.jsonl", bad.append, unexpected) == 1
    assert "it is no rollout" in bad[0].reason


def config_with(*entries: Json) -> GymConfig:
    return GymConfig({}, (Server("a", "responses_api_agents", "simple_agent", {"datasets": list(entries)}),))


def test_data_sets_are_checked_and_put_together(tmp_path: Path) -> None:
    first = write_rows(
        tmp_path / "d" / "one.jsonl", question("x", answer="1"), "<PLACEHOLDER ROW>", question("y", answer="2")
    )
    second = write_rows(tmp_path / "d" / "two.jsonl", question("z", answer="2", agent_ref={"name": "another"}))
    config = config_with(
        {"name": "one", "type": "train", "jsonl_fpath": str(first), "num_repeats": 2},
        {"name": "two", "type": "train", "jsonl_fpath": str(second)},
        {"name": "three", "type": "example", "jsonl_fpath": "not/needed.jsonl"},
    )
    done = prepare(config, tmp_path / "out", "train_preparation", overwrite=False, say=lambda _: None)
    rows = read_rows(done.files["train"])
    assert [row["answer"] for row in rows] == ["1", "1", "2", "2", "2"]
    assert {row["agent_ref"]["name"] for row in rows} == {"a"}
    assert not any(key.startswith("_ng_") for row in rows for key in row)
    assert [(line.line, line.file) for line in done.bad] == [(2, str(first))]
    metrics = json.loads((tmp_path / "out" / "train_metrics.json").read_text())
    assert metrics["Number of examples"] == 3
    assert metrics["answer"] == {"unique_count": 2, "total_count": 3}
    assert not done.conflicts
    write_rows(second, question("z"), question("another one"))
    again = prepare(config, tmp_path / "out", "train_preparation", overwrite=False, say=lambda _: None)
    assert {path.name for path in again.conflicts} == {"two_metrics.json", "train_metrics.json"}
    assert (tmp_path / "d" / "two_metrics_conflict.json").exists()
    assert not prepare(config, tmp_path / "out", "train_preparation", overwrite=True, say=lambda _: None).conflicts


def test_metrics_that_say_the_same_are_left_as_they_are(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "d" / "e.jsonl", question("x", answer="1"), question("y", answer="2"))
    config = config_with({"name": "e", "type": "example", "jsonl_fpath": str(data), "license": "MIT"})

    def prepared() -> list[Path]:
        return prepare(config, tmp_path / "out", "example_validation", overwrite=False, say=lambda _: None).conflicts

    assert not prepared()
    beside = tmp_path / "d" / "e_metrics.json"
    found = json.loads(beside.read_text())
    keys = ["name", "type", "jsonl_fpath", "num_repeats", "source", "gitlab_identifier", "huggingface_identifier", "license"]
    assert list(found)[:9] == [*keys, "Number of examples"]
    assert json.loads((tmp_path / "out" / "example_metrics.json").read_text()) == found
    assert type(found["Number of turns"]["Min"]) is float
    found["Number of turns"]["Average"] += 0.001
    beside.write_text(json.dumps(found | {"checked_by": "me"}))
    before = beside.read_bytes()
    assert not prepared()
    assert beside.read_bytes() == before
    write_rows(data, question("x", answer="1"), question("y", answer="1"))
    assert beside in prepared()
    assert beside.read_bytes() == before


@pytest.mark.parametrize("name", ["train.jsonl", "other_prepare.jsonl"])
def test_no_data_set_is_written_over(tmp_path: Path, name: str) -> None:
    paths = [write_rows(tmp_path / one, question("x")) for one in (name, "other.jsonl")]
    config = config_with(*({"name": path.stem, "type": "train", "jsonl_fpath": str(path)} for path in paths))
    before = paths[0].read_bytes()
    with pytest.raises(UserError, match=r"is a data set, and is written here.*\+output_dirpath"):
        prepare(config, tmp_path, "train_preparation", overwrite=False, say=print)
    assert paths[0].read_bytes() == before


def test_data_that_are_not_here_say_how_to_fetch_them(tmp_path: Path) -> None:
    hub = {"repo_id": "nvidia/x", "artifact_fpath": "train.jsonl"}
    config = config_with(
        {"name": "t", "type": "train", "jsonl_fpath": "d/t.jsonl", "huggingface_identifier": hub},
        {
            "name": "v",
            "type": "validation",
            "jsonl_fpath": "d/v.jsonl",
            "source": {"type": "huggingface", "repo_id": "nvidia/y"},
        },
    )
    with pytest.raises(UserError) as error:
        prepare(config, tmp_path, "train_preparation", overwrite=False, say=print)
    assert "hf download --repo-type dataset nvidia/x train.jsonl --local-dir d" in str(error.value)
    assert "d/v.jsonl" in str(error.value)
    with pytest.raises(UserError, match="no agent of the configuration has data sets of type example"):
        prepare(config, tmp_path, "example_validation", overwrite=False, say=print)
