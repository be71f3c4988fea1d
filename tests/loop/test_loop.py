"""A loop from recipe to last policy, with real collections and evaluations around a training that is a stand-in."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from rollforge.collect.config import CollectConfig
from rollforge.collect.run import Summary
from rollforge.errors import UserError
from rollforge.evaluate.config import EvalConfig
from rollforge.evaluate.run import Evaluated
from rollforge.loop.lineage import find, lineage, related
from rollforge.loop.run import run_loop
from rollforge.loop.state import read_state
from rollforge.loop.steps import Measured
from tests.loop.parts import ENV, TASKS, StandIn, answers, loop, recipe


def rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def rounded(number: str) -> float:
    return round(float(number), 9)


def names_in(folder: Path) -> int:
    return sum(len(folders) + len(files) for _, folders, files in os.walk(folder))


def per_task(out: Path, n: int) -> Counter[str]:
    return Counter(row["responses_create_params"]["input"] for row in rows(out / f"iteration-{n}/collect/rollouts.jsonl"))


def test_the_policy_of_an_iteration_collects_in_the_next_and_is_measured_on_other_tasks(tmp_path: Path) -> None:
    steps = StandIn()
    looped = loop(tmp_path, steps)
    out = tmp_path / "out"
    assert looped.stopped is None
    assert looped.model == f"scripted:{out}/iteration-2/training/model/answers.jsonl"
    means = [row["eval"]["reward"]["value"] for row in looped.rows]
    assert means == sorted(means)
    assert means[0] < means[2]
    collected = [row["collect"]["mean"] for row in looped.rows[1:]]
    assert collected[0] < collected[1]
    assert [config.model for config in steps.trained] == ["tiny", f"{out}/iteration-1/training/model"]
    assert [config.data for config in steps.trained] == [[out / f"iteration-{n}/data"] for n in (1, 2)]
    assert [config.seed for config in steps.trained] == [0, 1]
    learned = {row["task_id"] for row in rows(out / "tasks/train.jsonl")}
    measured = {row["task_id"] for row in rows(out / "tasks/test.jsonl")}
    assert len(learned) + len(measured) == len(TASKS)
    assert not learned & measured
    assert {
        row["rollforge"]["task"] for n in (1, 2) for row in rows(out / f"iteration-{n}/collect/rollouts.jsonl")
    } == learned


def test_what_is_done_is_not_done_again_and_more_iterations_go_on(tmp_path: Path) -> None:
    first = loop(tmp_path)
    steps = StandIn()
    assert loop(tmp_path, steps) == first
    assert steps.trained == steps.evaluated == []
    more = loop(tmp_path, steps, iterations=3)
    assert [config.model for config in steps.trained] == [f"{tmp_path}/out/iteration-2/training/model"]
    assert more.rows[:3] == first.rows
    assert more.rows[3]["eval"]["reward"]["value"] == 1


def test_tasks_that_fail_are_tried_more_often_and_stay_one_group(tmp_path: Path) -> None:
    loop(tmp_path, target={"below": 0.5, "times": 3, "drop": 1.0}, iterations=2)
    out = tmp_path / "out"
    before, after = per_task(out, 1), per_task(out, 2)
    solved = {prompt for prompt in before if int(prompt[0]) < 3}
    assert set(before.values()) == {2}
    assert after == dict.fromkeys(before.keys() - solved, 6)
    repeats = Counter(row["_ng_rollout_index"] for row in rows(out / "iteration-2/collect/rollouts.jsonl"))
    assert set(repeats) == set(range(6))
    ids = [{row["rollforge"]["task"] for row in rows(out / f"iteration-{n}/collect/rollouts.jsonl")} for n in (1, 2)]
    assert ids[1] < ids[0]


def test_a_loop_that_has_solved_all_its_tasks_stops(tmp_path: Path) -> None:
    solved = f"scripted:{answers(tmp_path / 'solved.jsonl', below=6)}"
    looped = loop(tmp_path, model=solved, target={"drop": 1.0}, iterations=3, regression="ignore")
    assert looped.stopped == "iteration-2/target: all 169 tasks are solved at 1 or above, none is left to learn from"
    assert [row["iteration"] for row in looped.rows] == [0, 1]


def test_categories_that_fail_in_the_evaluation_are_tried_more_often(tmp_path: Path) -> None:
    loop(tmp_path, target={"by": "level", "below": 0.9, "times": 2})
    after = per_task(tmp_path / "out", 2)
    assert {count for prompt, count in after.items() if int(prompt[0]) < 3} == {2}
    assert {count for prompt, count in after.items() if int(prompt[0]) >= 3} == {4}


def test_a_reward_that_falls_short_by_its_last_bit_is_a_success(tmp_path: Path) -> None:
    recipe(tmp_path)
    env = tmp_path / "parts_env.py"
    env.write_text(ENV.replace("float(reply == str(answer))", "(0.7 + 0.2 + 0.1) * (reply == str(answer))"))
    looped = loop(tmp_path, collect={"env": f"{env}:sums", "repeats": 2}, curate=None, target={"drop": 1.0}, iterations=2)
    assert looped.rows[2]["target"]["dropped"] > 0


def test_a_changed_recipe_is_refused_or_holds_from_the_next_iteration_on(tmp_path: Path) -> None:
    loop(tmp_path, iterations=1)
    changed: dict[str, Any] = {
        "collect": {"env": f"{tmp_path}/sums_env.py:sums", "repeats": 3, "limit": 300, "concurrency": 5}
    }
    with pytest.raises(UserError, match=r"another recipe:\n  collect.repeats: 2 there, 3 now"):
        loop(tmp_path, iterations=2, **changed)
    loop(tmp_path, iterations=2, apply_next=True, **changed)
    assert [set(per_task(tmp_path / "out", n).values()) for n in (1, 2)] == [{2}, {3}]


def test_a_policy_that_was_trained_elsewhere_goes_on(tmp_path: Path) -> None:
    loop(tmp_path, train=None, trained=None, iterations=1)
    better = f"scripted:{answers(tmp_path / 'better.jsonl', below=5)}"
    looped = loop(tmp_path, train=None, trained=None, iterations=2, model=better, apply_next=True)
    assert looped.model == better
    assert looped.rows[2]["eval"]["model"] == "given-2"
    assert looped.rows[2]["eval"]["change"]["value"] > 0
    assert looped.rows[2]["collect"]["mean"] > looped.rows[1]["collect"]["mean"]
    known = lineage(read_state(tmp_path / "out").steps)
    assert known["models"]["given-2"]["made_runs"][-1] == "iteration-2/collect"


def test_a_changed_recipe_holds_for_tasks_and_start_too_where_no_iteration_has_begun(tmp_path: Path) -> None:
    class Broken(StandIn):
        def collect(self, config: CollectConfig, /) -> Summary:
            raise UserError("no collection")

    with pytest.raises(UserError, match="no collection"):
        loop(tmp_path, Broken(), iterations=1)
    better = f"scripted:{answers(tmp_path / 'better.jsonl', below=5)}"
    changed: dict[str, Any] = {
        "collect": {"env": f"{tmp_path}/sums_env.py:sums", "repeats": 2, "limit": 300},
        "model": better,
    }
    looped = loop(tmp_path, iterations=1, apply_next=True, **changed)
    assert looped.rows[0]["eval"]["reward"]["value"] == pytest.approx(5 / 6, abs=0.1)
    assert looped.rows[1]["eval"]["since_start"]["value"] == looped.rows[1]["eval"]["change"]["value"]
    steps = read_state(tmp_path / "out").steps
    assert lineage(steps)["models"]["start"]["model"] == better
    with pytest.raises(UserError, match="no collection"):
        loop(tmp_path, Broken(), iterations=2, apply_next=True, **changed | {"seed": 1})
    changed["collect"]["limit"] = 20
    loop(tmp_path, iterations=2, apply_next=True, **changed)
    assert len(per_task(tmp_path / "out", 2)) == 20


def test_a_policy_that_was_misnamed_is_named_again(tmp_path: Path) -> None:
    class Misnamed(StandIn):
        def evaluate(self, config: EvalConfig, /) -> Measured:
            super().evaluate(config)
            raise UserError("no such model")

    loop(tmp_path, train=None, trained=None, iterations=1)
    wrong, right = (f"scripted:{answers(tmp_path / f'{name}.jsonl', below=5)}" for name in ("wrong", "right"))
    with pytest.raises(UserError, match="no such model"):
        loop(tmp_path, Misnamed(), train=None, trained=None, iterations=2, model=wrong, apply_next=True)
    looped = loop(tmp_path, train=None, trained=None, iterations=2, model=right, apply_next=True)
    assert looped.rows[2]["eval"]["change"]["value"] > 0
    known = lineage(read_state(tmp_path / "out").steps)
    assert not any("wrong" in run for run in known["runs"])


def test_how_it_runs_may_change_and_keys_are_not_stored(tmp_path: Path) -> None:
    model = {"use": f"scripted:{answers(tmp_path / 'start.jsonl', below=3)}"}
    loop(tmp_path, iterations=1, model={**model, "headers": {"x-key": "hush"}})
    steps = StandIn()
    again = loop(tmp_path, steps, iterations=1, model={**model, "headers": {"x-key": "other"}, "retries": 1})
    assert again.stopped is None
    assert steps.trained == []
    stored = "".join((tmp_path / "out" / name).read_text() for name in ("loop.json", "lineage.json"))
    assert "hush" not in stored


def test_keys_among_the_options_of_an_environment_are_not_stored_and_work(tmp_path: Path) -> None:
    env = tmp_path / "guarded.py"
    opened = "def tasks(access_token):\n    assert access_token == 'hush'\n    return "
    env.write_text(ENV.replace("@rf.env(tasks=", opened).replace(", inline", "\n\n@rf.env(tasks=tasks, inline"))
    collect = {"env": {"use": f"{env}:sums", "access_token": "hush"}, "repeats": 2, "limit": 10}
    for iterations in (1, 2):
        looped = loop(tmp_path, iterations=iterations, collect=collect, eval=None)
        assert looped.stopped is None
    assert not [file for file in (tmp_path / "out").rglob("*.json*") if b"hush" in file.read_bytes()]
    other = {**collect, "env": {"use": f"{env}:sums", "access_token": "other"}}
    with pytest.raises(UserError, match=r"another recipe:\n  collect.env.access_token: \S+ there, \S+ now"):
        loop(tmp_path, collect=other, eval=None)


@pytest.mark.parametrize(
    ("regression", "stopped", "parents"),
    [("stop", True, ["start"]), ("back", False, ["start", "start"]), ("ignore", False, ["start", "iteration-1"])],
)
def test_a_policy_that_is_worse(tmp_path: Path, regression: str, stopped: bool, parents: list[str]) -> None:
    looped = loop(tmp_path, StandIn(gain=-2), regression=regression, eval={"repeats": 4})
    assert looped.rows[1]["eval"]["change"]["worse"]
    assert (looped.stopped is not None) == stopped
    assert [row["train"]["parent"] for row in looped.rows[1:]] == parents
    if stopped:
        assert "iteration 1 made the policy worse" in str(looped.stopped)
        assert loop(tmp_path, regression="back", eval={"repeats": 4}).stopped is None


def test_from_the_start_each_time_with_the_rollouts_of_all_iterations(tmp_path: Path) -> None:
    steps = StandIn()
    loop(tmp_path, steps, restart=True, window=None, curate=None)
    assert [config.model for config in steps.trained] == ["tiny", "tiny"]
    collected = [tmp_path / f"out/iteration-{n}/collect" for n in (1, 2)]
    assert [config.data for config in steps.trained] == [collected[:1], collected]


def test_lineage_leads_from_a_model_to_its_rollouts_and_back(tmp_path: Path) -> None:
    loop(tmp_path)
    out = tmp_path / "out"
    known = lineage(read_state(out).steps)
    assert json.loads((out / "lineage.json").read_text()) == known
    (source,) = known["models"]["iteration-2"]["made_of"]
    kept = rows(out / "iteration-2/data/rollouts.jsonl")
    assert (source["run"], source["used"], source["of"]) == ("iteration-2/collect", len(kept), per_task(out, 2).total())
    listed = rows(out / "iteration-2/made_of.jsonl")
    collected = rows(out / "iteration-2/collect/rollouts.jsonl")
    assert [collected[one["line"] - 1]["response"] for one in listed] == [row["response"] for row in kept]
    up = {name for _, _, name in related(known, "iteration-2", up=True)}
    assert up == {"iteration-2", "iteration-1", "start", "iteration-1/collect", "iteration-2/collect"}
    down = [name for _, _, name in related(known, "iteration-1/collect", up=False)]
    assert down[:3] == ["iteration-1/collect", "iteration-1", "iteration-2"]
    assert any(name.startswith("iteration-2/eval") for name in down)
    model = out / "iteration-1/training/model"
    mark = json.loads((model / "rollforge.json").read_text())
    assert (mark["iteration"], mark["parent"], mark["made_of"]) == (1, "start", known["models"]["iteration-1"]["made_of"])
    for said in ("iteration-1", str(model), f"scripted:{model}/answers.jsonl", mark["digest"][:10]):
        assert find(known, said, out) == "iteration-1"
    assert find(known, str(out / "iteration-2/collect/rollouts.jsonl"), out) == "iteration-2/collect"
    with pytest.raises(UserError, match="unknown model or run 'iteration-7'; did you mean"):
        find(known, "iteration-7", out)


def test_no_rollout_worth_learning_from_stops_the_loop_which_goes_on_when_there_is(tmp_path: Path) -> None:
    looped = loop(tmp_path, model=f"scripted:{answers(tmp_path / 'nothing.jsonl', below=0)}")
    assert "iteration-1/data: no rollout is left to learn from: the step 'filter" in str(looped.stopped)
    assert "train" not in looped.rows[1]


def test_an_evaluation_that_is_stopped_before_a_rollout_ended_stops_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stopped(config: EvalConfig, around: Any) -> Evaluated:
        return Evaluated(tmp_path, [], [], [], [], "SIGINT")

    with monkeypatch.context() as patched:
        patched.setattr("rollforge.loop.steps.evaluate", stopped)
        assert loop(tmp_path).stopped == "SIGINT"
    assert loop(tmp_path).stopped is None


def test_a_collection_with_too_few_verdicts_stops_the_loop(tmp_path: Path) -> None:
    looped = loop(tmp_path, model="scripted:flaky:1.0", eval=None, collect={"env": "counter", "limit": 2, "max_attempts": 1})
    assert "iteration-1/collect: 0 of 8 rollouts have a reward" in str(looped.stopped)
    measured = {"env": "counter", "limit": 2, "repeats": 2, "max_attempts": 1}
    looped = run_loop(recipe(tmp_path, model="scripted:flaky:1.0", eval=measured), tmp_path / "other", StandIn())
    assert looped.stopped == (
        "eval: 0 of 4 rollouts have a reward, less than eval.min_coverage wants; mend what failed and run the loop "
        "again with `retry_failed: true`, or lower it"
    )


def test_a_loop_without_training_exports_what_each_iteration_collected(tmp_path: Path) -> None:
    looped = loop(tmp_path, train=None, trained=None, export={"to": ["trl:sft"], "validation": 0}, iterations=1)
    exported = rows(tmp_path / "out/iteration-1/export/trl-sft/train.jsonl")
    assert len(exported) == looped.rows[1]["curate"]["rows"] == looped.rows[1]["export"]["rows"]["trl:sft"]
    assert looped.model.endswith("start.jsonl")


def test_grpo_acts_in_the_environment_and_only_the_evaluation_is_held_out(tmp_path: Path) -> None:
    steps = StandIn()
    env = recipe(tmp_path).collect["env"]  # type: ignore[index]
    loop(tmp_path, steps, collect=None, curate=None, train={"method": "grpo", "env": env, "steps": 1, "model": "tiny"})
    assert [str(config.env.use) for config in steps.trained if config.env] == [env, env]
    assert steps.trained[0].eval.tasks == tmp_path / "out/tasks/test.jsonl" == steps.evaluated[0].tasks
    models = lineage(read_state(tmp_path / "out").steps)["models"]
    assert [model.get("live") for model in models.values()] == [None, env, env]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"collect": None, "curate": None, "train": None, "trained": None}, "a loop collects, or trains, or both"),
        ({"collect": None}, "`curate` works on what was collected"),
        ({"collect": {"env": "counter", "model": "tiny"}}, r"collect.model is filled by the loop: give `model` at the top"),
        ({"collect": {"env": "counter", "repeat": 2}}, r"unknown key 'repeat'; did you mean repeats"),
        ({"collect": {"env": "countr"}}, r"unknown environment 'countr'; did you mean counter"),
        ({"curate": {"steps": ["dedupe"]}}, r"unknown step 'dedupe'; did you mean dedup"),
        ({"export": {"to": "trl:sfd"}}, r"unknown kind of trl 'sfd'"),
        ({"export": {"to": "trl:sft", "min_rewrad": 1}}, r"unknown key 'min_rewrad'; did you mean min_reward"),
        ({"train": {"method": "sft", "step": 2}}, r"unknown key 'step'; did you mean steps"),
        ({"train": {"method": "sft", "model": "missing"}}, "there is no model 'missing'"),
        ({"eval": {"repeat": 2}}, r"unknown key 'repeat'; did you mean repeats"),
        ({"eval": {"limit": 0}}, r"limit is 0"),
        ({"target": {"belw": 0.2}}, r"unknown key 'target.belw'; did you mean"),
        ({"train": None}, "`trained` says how a trained policy is played"),
    ],
)
def test_a_wrong_recipe_is_refused_before_anything_is_written(tmp_path: Path, more: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        loop(tmp_path, **more)
    assert not (tmp_path / "out").exists()


def test_a_policy_is_not_measured_on_what_it_learned(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="50 of the 50 tasks of `eval` are among those that are collected"):
        loop(tmp_path, eval={"env": f"{tmp_path}/sums_env.py:sums"})


def test_a_folder_that_is_no_loop_or_was_damaged(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"is not empty and no loop: it has no loop.json, but notes.txt"):
        loop(tmp_path)
    (tmp_path / "out/notes.txt").unlink()
    loop(tmp_path, iterations=1)
    state = (tmp_path / "out/loop.json").read_text()
    (tmp_path / "out/loop.json").write_text(state[:50])
    with pytest.raises(UserError, match=r"loop.json is not as a loop left it"):
        loop(tmp_path, iterations=1)


def test_killed_anywhere_the_same_command_ends_where_an_undisturbed_one_does(tmp_path: Path) -> None:
    whole = loop(tmp_path)
    program = [sys.executable, "-m", "tests.loop.parts", str(tmp_path), str(tmp_path / "killed")]
    names = names_in(tmp_path / "out")
    killed_at = set()  # how far each killed process came
    for goal in sorted(random.Random(1).sample(range(1, names), 12)):
        process = subprocess.Popen(program, cwd=Path(__file__).parents[2], stdout=subprocess.DEVNULL)
        while (there := names_in(tmp_path / "killed")) < goal and process.poll() is None:
            time.sleep(0.002)
        process.kill()
        if process.wait() < 0:
            killed_at.add(there)
    assert len(killed_at) > 3, killed_at
    output = subprocess.run(program, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, check=True).stdout
    done = json.loads(output, parse_float=rounded)  # sums in the order in which rollouts ended
    text = json.dumps(whole.row()).replace(str(tmp_path / "out"), str(tmp_path / "killed"))
    assert done == json.loads(text, parse_float=rounded)
    for n in (1, 2):
        assert per_task(tmp_path / "killed", n) == per_task(tmp_path / "out", n)
