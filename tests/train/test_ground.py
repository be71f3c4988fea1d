"""What all trainers stand on: the tokens of a rollout, an environment that is played or judges, which tasks are held out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import rollforge as rf
from rollforge.collect.config import EnvConfig
from rollforge.config import validate
from rollforge.envs.load import load_env
from rollforge.errors import UserError
from rollforge.models.base import ModelOptions
from rollforge.models.load import load_model
from rollforge.records.items import Item, assistant, function_call, function_call_output
from rollforge.records.messages import messages
from rollforge.records.rollout import Outcome
from rollforge.records.rows import read_tasks
from rollforge.records.trajectory import Flaw, Trajectory, trajectory
from rollforge.train import run as training
from rollforge.train.config import TrainConfig
from rollforge.train.curve import Point, draw, plot, smooth
from rollforge.train.data import learned_tasks, prepare, tasks_of
from rollforge.train.play import player
from rollforge.train.policy import checkpoint
from rollforge.train.tasks import held_out_tasks, split_tasks, write_tasks

Json = dict[str, Any]


def tokens(item: Item, prompt: list[int], generated: list[int], log_probs: list[float] | None = None) -> Item:
    given = [-0.5] * len(generated) if log_probs is None else log_probs
    return {**item, "prompt_token_ids": prompt, "generation_token_ids": generated, "generation_log_probs": given}


CALL = function_call("add", "{}", "c1")
TOLD = function_call_output("c1", "3")


# Trajectories


def test_two_calls_are_one_sequence_in_which_the_policy_chose_what_it_generated() -> None:
    output = [tokens(CALL, [1, 2], [3, 4], [-0.1, -0.2]), TOLD, tokens(assistant("3"), [1, 2, 3, 4, 9, 9], [5], [-0.3])]
    assert trajectory(output) == Trajectory([1, 2], [3, 4, 9, 9, 5], [-0.1, -0.2, 0.0, 0.0, -0.3], [1, 1, 0, 0, 1], 2)


@pytest.mark.parametrize(
    ("output", "kind", "call", "says"),
    [
        ([], "missing", 0, "no model call has token ids"),
        ([assistant("hello")], "missing", 0, "model call 1 has no token ids"),
        ([tokens(CALL, [1], [2]), TOLD, assistant("3")], "missing", 1, "model call 2"),
        ([tokens(assistant("3"), [1], [2, 3], [-0.1])], "unequal", 0, "2 tokens, 1 log probabilities"),
        ([tokens(CALL, [1, 2], [3]), TOLD, tokens(assistant("3"), [1, 7, 3], [5])], "drift", 1, "at token 2 of 3"),
        ([tokens(CALL, [1, 2], [3]), TOLD, tokens(assistant("3"), [1, 2], [5])], "drift", 1, "at token 3 of 3"),
    ],
)
def test_what_cannot_be_trained_on_says_why(output: list[Item], kind: str, call: int, says: str) -> None:
    found = trajectory(output)
    assert isinstance(found, Flaw)
    assert (found.kind, found.call) == (kind, call)
    assert says in found.text


def test_a_last_call_for_which_there_was_no_room_says_nothing_and_is_no_flaw() -> None:
    found = trajectory([tokens(CALL, [1], [2]), TOLD, assistant("")])
    assert found == Trajectory([1], [2], [-0.5], [1], 1)


# An environment that is played, and one that judges


async def test_a_policy_plays_an_environment_and_its_tokens_come_back() -> None:
    acting, model = player("arithmetic"), load_model("tiny", ModelOptions())
    task = next(iter(acting.env.tasks(n=1)))  # type: ignore[attr-defined]
    first = await acting.play(task, model, seed=3, temperature=1.0)
    again = await acting.play(task, model, seed=3, temperature=1.0)
    assert first.outcome is Outcome.SCORED
    assert first.params["temperature"] == 1.0
    assert isinstance(trajectory(first.output), Trajectory)
    assert trajectory(first.output) == trajectory(again.output)
    judged = await acting.judge(task, messages({}, first.output))
    assert (judged.outcome, judged.reward) == (first.outcome, first.reward)
    await model.aclose()  # type: ignore[attr-defined]
    await acting.aclose()


async def test_a_text_is_judged_and_what_cannot_be_judged_has_no_reward() -> None:
    @rf.env(tasks=[{"prompt": "2+2=?", "answer": "4"}])
    def addition(reply: str, answer: str) -> float:
        if "?" in reply:
            raise rf.VerifierFault("cannot tell")
        return float(answer in reply)

    judge = player(addition)
    row = {"prompt": "2+2=?", "answer": "4"}
    assert [(await judge.judge(row, text)).reward for text in ("4", "5")] == [1.0, 0.0]
    unclear = await judge.judge(row, "4?")
    assert (unclear.reward, unclear.outcome) == (None, Outcome.VERIFIER_FAULT)
    await judge.aclose()


async def test_tool_calls_are_made_again_before_the_verdict_and_another_output_is_no_zero() -> None:
    @rf.env(tasks=[{"prompt": "pay 3", "target": 7}])
    class bank:
        def reset(self) -> None:
            self.left = 10

        def pay(self, amount: int) -> str:
            "Pay."
            self.left -= amount
            return f"left {self.left}"

        def verify(self, target: int) -> float:
            return float(self.left == target)

    judge = player(bank)
    call = {"id": "c", "type": "function", "function": {"name": "pay", "arguments": '{"amount": 3}'}}
    said: list[Json] = [
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "left 7"},
        {"role": "assistant", "content": "Done."},
    ]
    row = {"prompt": "pay 3", "target": 7}
    assert (await judge.judge(row, said)).reward == 1.0
    said[1]["content"] = "left 1000"
    other = await judge.judge(row, said)
    assert (other.reward, other.outcome) == (None, Outcome.VERIFIER_FAULT)
    await judge.aclose()


# Tasks


def test_generated_tasks_keep_their_own_splits() -> None:
    split = split_tasks(EnvConfig(use="arithmetic", level="easy"), None, 30, 20)
    assert (len(split.train), len(split.test)) == (30, 20)
    assert not {task.id for task in split.train} & {task.id for task in split.test}
    assert {task.fields["level"] for task in [*split.train, *split.test]} == {"easy"}


def without_splits(folder: Path, prefix: str) -> tuple[EnvConfig, Path]:
    """An environment that has 80 tasks and no splits, and their file; the ids are numbers behind the prefix."""
    file = folder / "tasks.jsonl"
    write_tasks(file, [rf.Task({"input": f"{n}+1=?"}, {"answer": str(n + 1)}, f"{prefix}{n}") for n in range(80)])
    env = folder / "mine.py"
    env.write_text(
        "import rollforge as rf\n\n\n@rf.env(tasks='tasks.jsonl', solve=lambda answer: answer)\n"
        "def mine(reply: str, answer: str) -> float:\n"
        "    return float(answer in reply)\n"
    )
    return EnvConfig(use=f"{env}:mine"), file


def test_tasks_without_splits_are_divided_by_their_ids_in_the_same_way_every_time(tmp_path: Path) -> None:
    config, file = without_splits(tmp_path, "t")
    split = split_tasks(config, None, 1000, 1000)
    train, test = ({task.id for task in side} for side in (split.train, split.test))
    assert train | test == {f"t{n}" for n in range(80)}
    assert not train & test
    assert 2 <= len(test) <= 25
    fewer = split_tasks(config, file, 1000, 1000)
    assert {task.id for task in fewer.test} == test
    left = held_out_tasks(config, file, 5, frozenset({"t0", "t1"}))
    assert [task.id for task in left] == ["t2", "t3", "t4", "t5", "t6"]


async def test_nothing_is_measured_that_is_learned_from(tmp_path: Path) -> None:
    config, file = without_splits(tmp_path, "t-")
    await rf.collect_rollouts(config.use, model="scripted:perfect", limit=70, out=tmp_path / "run")
    data = prepare(TrainConfig(method="sft", data=[tmp_path / "run"]), tmp_path / "data")
    learned = learned_tasks(data.files)
    assert learned == {f"t-{n}" for n in range(70)}
    for given in (None, file):
        assert [task.id for task in held_out_tasks(config, given, 5, learned)] == [f"t-{n}" for n in range(70, 75)]
    assert held_out_tasks(config, None, 5, frozenset(f"t-{n}" for n in range(80))) == []


def test_a_single_task_cannot_be_held_out(tmp_path: Path) -> None:
    file = write_tasks(tmp_path / "one.jsonl", [rf.Task({"input": "?"}, {"answer": 1}, "only")])
    with pytest.raises(UserError, match="both are needed"):
        split_tasks(EnvConfig(use="arithmetic"), file, 10, 10)


def test_written_tasks_are_read_as_they_were(tmp_path: Path) -> None:
    env: Any = load_env("function_calling")
    tasks = list(env.tasks(n=5))
    back = [task for task in read_tasks(write_tasks(tmp_path / "t.jsonl", tasks)) if isinstance(task, rf.Task)]
    assert [(task.id, task.params) for task in back] == [(task.id, task.params) for task in tasks]


# Data


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import asyncio

    out = tmp_path_factory.mktemp("runs") / "sums"
    asyncio.run(rf.collect_rollouts("arithmetic", "tiny", limit=8, repeats=4, seed=2, sampling={"temperature": 1}, out=out))
    return out


def config(**values: Any) -> TrainConfig:
    return validate(TrainConfig, values, "the test")


@pytest.mark.parametrize(("method", "column"), [("sft", "messages"), ("dpo", "chosen"), ("grpo", "prompt")])
def test_a_run_is_exported_for_the_method_and_an_export_is_taken_as_it_is(
    run: Path, tmp_path: Path, method: str, column: str
) -> None:
    made = prepare(config(method=method, data=[run], env="arithmetic"), tmp_path / "data")
    assert made.env == "arithmetic"
    assert f'"{column}"' in made.files[0].read_text("utf-8").splitlines()[0]
    assert made.sources[0]["path"] == str(run)
    assert len(made.sources[0]["made_from"][0]["sha256"]) == 64
    for given in (tmp_path / "data", tmp_path / "data" / f"trl-{method}", made.files[0]):
        again = prepare(config(method=method, data=[given], env="arithmetic"), tmp_path / "unused")
        assert again.files == made.files


@pytest.mark.parametrize(("env", "name"), [("arithmetic", "arithmetic"), (None, None), ({"use": "a.py:b"}, "a.py:b")])
def test_the_environment_of_a_run_as_each_command_says_it(run: Path, tmp_path: Path, env: Any, name: str | None) -> None:
    shutil.copytree(run, tmp_path / "run")
    about = json.loads((run / "run.json").read_text())
    about["config"]["env"] = env
    (tmp_path / "run/run.json").write_text(json.dumps(about))
    assert prepare(config(method="sft", data=[tmp_path / "run"]), tmp_path / "data").env == name


def test_the_tasks_of_an_exported_data_set_are_those_of_the_run(run: Path, tmp_path: Path) -> None:
    tasks = tasks_of(prepare(config(method="grpo", data=[run]), tmp_path).files)
    rows = [rollout for rollout in rf.read_rollouts(run / "rollouts.jsonl") if isinstance(rollout, rf.Rollout)]
    assert {task.id for task in tasks} == {rollout.task for rollout in rows}
    assert {task.fields["answer"] for task in tasks} == {rollout.fields["answer"] for rollout in rows}


def test_what_is_no_data_is_told_apart(run: Path, tmp_path: Path) -> None:
    exported = prepare(config(method="sft", data=[run]), tmp_path / "data").files[0]
    with pytest.raises(UserError, match="dpo learns from trl:dpo"):
        prepare(config(method="dpo", data=[exported.parent]), tmp_path)
    other = tmp_path / "other.jsonl"
    other.write_text('{"question": "?", "answer": "!"}\n')
    with pytest.raises(UserError, match="columns question, answer; sft learns"):
        prepare(config(method="sft", data=[other]), tmp_path)
    other.write_text("{broken\n")
    with pytest.raises(UserError, match=r"other.jsonl:1: not JSON"):
        prepare(config(method="sft", data=[other]), tmp_path)
    with pytest.raises(UserError, match="there is no"):
        prepare(config(method="sft", data=[tmp_path / "nowhere"]), tmp_path)


def test_a_run_without_a_good_rollout_says_so(tmp_path: Path) -> None:
    import asyncio

    out = tmp_path / "bad"
    done = rf.collect_rollouts("arithmetic", "scripted:empty", limit=3, seed=1, out=out)
    asyncio.run(done)
    with pytest.raises(UserError, match="can be learned from"):
        prepare(config(method="sft", data=[out]), tmp_path / "data")


# Settings


def test_a_training_is_taken_up_by_what_it_makes_not_by_how_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "need_for", lambda _: None)
    monkeypatch.setattr(training, "_versions", dict)
    out = tmp_path / "out"
    begun = config(method="sft", data=[tmp_path], out=out)

    def settled(**changed: Any) -> Any:
        with training.Training(begun.model_copy(update=changed))._settled() as about:
            return about["config"]["seed"]

    out.mkdir()
    (out / "train.tmp").write_text('{"half')  # killed in its first write
    assert settled() == 0
    assert settled(device="cpu", threads=2, keep=5, track=["tensorboard"]) == 0
    with pytest.raises(UserError, match="seed: 0 there, 1 now"):
        settled(seed=1)
    (out / "train.json").write_text('{"config":')
    with pytest.raises(UserError, match=r"train.json is not as a training left it"):
        settled()


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"method": "sft"}, "sft learns from data"),
        ({"method": "grpo"}, "grpo acts in an environment"),
        ({"method": "ppo", "env": "arithmetic"}, "method"),
        ({"method": "grpo", "env": "arithmetic", "grup": 4}, "group"),
        ({"method": "grpo", "env": "arithmetic", "group": 1}, "greater than or equal to 2"),
    ],
)
def test_settings_that_cannot_be_are_refused(values: Json, says: str) -> None:
    with pytest.raises(UserError, match=says):
        config(**values)


def test_names_of_models_are_those_of_collect(tmp_path: Path) -> None:
    assert checkpoint("tiny").endswith("policy")
    assert checkpoint(f"tiny:{tmp_path}") == checkpoint(str(tmp_path)) == str(tmp_path)
    assert checkpoint("Qwen/Qwen3-0.6B") == "Qwen/Qwen3-0.6B"
    with pytest.raises(UserError, match="cannot be trained"):
        checkpoint("openai:gpt-5")
    with pytest.raises(UserError, match="there is no directory"):
        checkpoint("./nowhere")


# Curves


def test_the_curve_of_a_terminal_has_its_points_where_they_belong() -> None:
    lines = plot([Point(0, 0.0), Point(50, 0.5), Point(100, 1.0)], height=11, width=41).splitlines()
    assert lines[0].startswith(" 1.00 ┤")
    places = {(row, column - 7) for row, line in enumerate(lines) for column, cell in enumerate(line) if cell == "●"}
    assert places == {(0, 40), (5, 20), (10, 0)}
    assert lines[-1].split() == ["0", "100"]
    assert plot([Point(7, 0.25)]) == "reward 0.250 at step 7"
    assert plot([]) == ""


def test_smoothing_takes_neighbours_only() -> None:
    assert smooth([(1, 0.0), (2, 3.0), (3, 6.0), (4, 9.0)], span=3) == [(1, 1.5), (2, 3.0), (3, 6.0), (4, 7.5)]


@pytest.mark.extras
def test_the_picture_is_a_png(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    draw(tmp_path / "curve.png", [Point(0, 0.2, 0.1, 0.3), Point(9, 0.9)], [(1, 0.2), (2, 0.4)], "a title")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
