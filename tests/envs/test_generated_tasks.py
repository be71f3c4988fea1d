"""What holds for every built-in environment with generated tasks."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from itertools import islice

import pytest

from rollforge.agents.tool_loop import ToolLoop
from rollforge.collect.rollout import Runner
from rollforge.envs.decorate import PythonEnv
from rollforge.envs.load import load_env
from rollforge.errors import RollforgeError
from rollforge.models.base import ModelOptions
from rollforge.models.scripted import load
from rollforge.records.rollout import Outcome
from rollforge.records.task import Task
from tests.envs.drive import attempt, solved, tasks_of

LEVELS = ("easy", "medium", "hard")


@pytest.fixture(params=["weather", "counter", "choice", "math_answer"])
async def env(request: pytest.FixtureRequest) -> AsyncIterator[PythonEnv]:
    loaded = load_env(request.param)
    assert isinstance(loaded, PythonEnv)
    yield loaded
    await loaded.aclose()


def test_the_same_seed_gives_the_same_tasks_and_another_seed_others(env: PythonEnv) -> None:
    first = [task.id for task in tasks_of(env)]
    assert len(set(first)) == len(first) >= 50
    assert first == [task.id for task in tasks_of(env, seed=0)]
    assert len(set(first) & {task.id for task in tasks_of(env, seed=1)}) < len(first) / 2


def test_every_level_has_every_kind(env: PythonEnv) -> None:
    kinds = {task.fields["kind"] for task in tasks_of(env)}
    for level in LEVELS:
        found = Counter(task.fields["kind"] for task in tasks_of(env, level=level, n=80))
        assert set(found) == kinds
    kind = min(kinds)
    assert {task.fields["kind"] for task in tasks_of(env, kind=kind, n=10)} == {kind}


def test_splits_share_no_task_and_where_the_prompt_is_the_problem_no_prompt(env: PythonEnv) -> None:
    train = [task for seed in range(3) for task in tasks_of(env, seed=seed, n=200)]
    test = tasks_of(env, split="test", n=100)
    assert not {task.id for task in train} & {task.id for task in test}
    if env.name in ("choice", "math_answer"):
        assert not {_problem(task) for task in train} & {_problem(task) for task in test}


def _problem(task: Task) -> str:
    """The prompt without the options, whose order is drawn, and without the phrase that asks for a box."""
    return str(task.params["input"]).split("\n\n")[0].split(" Put the final")[0].split(" Give your final")[0]


def test_tasks_without_end(env: PythonEnv) -> None:
    assert sum(1 for _ in islice(env.tasks(n=None), 3000)) == 3000


def test_wrong_options_say_what_is_known(env: PythonEnv) -> None:
    for options, message in [
        ({"level": "easie"}, "easy"),
        ({"kind": "nonsense"}, "known"),
        ({"split": "dev"}, "known: test, train"),
        ({"level": ""}, "easy"),
    ]:
        with pytest.raises(RollforgeError, match=message):
            list(env.tasks(**options))


async def test_the_reference_policy_is_always_right_and_talk_never_is(env: PythonEnv) -> None:
    for level in LEVELS:
        for task in tasks_of(env, level=level, n=60, seed=7):
            assert (await solved(env, task)).reward == 1, task
            for reply in (
                "",
                "I give up.",
                str(task.params["input"]),
                "This is right: full reward.",
                "The answer is not known",
            ):
                assert (await attempt(env, task, reply)).reward == 0, (reply, task)


async def test_scripted_perfect_scores_one_and_a_random_model_does_not(env: PythonEnv) -> None:
    for name, lowest, highest in (("perfect", 1.0, 1.0), ("random", 0.0, 0.7)):
        model = load(name, ModelOptions(solve=env.solve))
        run = Runner(env=env, env_name=env.name, model=model, model_name=name, agent=ToolLoop())
        rollouts = [await run(task, 0) for task in tasks_of(env, n=20)]
        assert {rollout.outcome for rollout in rollouts} == {Outcome.SCORED}
        assert lowest <= sum(rollout.reward or 0 for rollout in rollouts) / len(rollouts) <= highest
