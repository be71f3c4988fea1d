"""Gymnasium's environments in text: small ones in its shape, and the real ones where the package is installed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from rollforge.agents.tool_loop import ToolLoop
from rollforge.collect.rollout import Runner
from rollforge.envs.actions import chosen_action
from rollforge.envs.gymnasium import gymnasium_env
from rollforge.envs.load import as_env, load_env
from rollforge.errors import UserError, VerifierFault
from rollforge.models.base import ModelOptions
from rollforge.models.scripted import load
from rollforge.records.items import assistant
from rollforge.records.rollout import Outcome
from tests.envs.drive import task, tasks_of


class Corridor:
    """Walk to the end of a corridor."""

    action_space = SimpleNamespace(n=2, start=0)
    render_mode = "ansi"
    closed = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[int, dict[str, Any]]:
        self.place, self.length = 0, 2 + (seed or 0) % 3
        return self.place, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        assert type(action) is int
        self.place = max(0, self.place + (1 if action else -1))
        return self.place, -0.1, self.place == self.length, False, {"place": self.place}

    def render(self) -> str:
        return "".join("\x1b[41m_\x1b[0m" if i == self.place else "_" for i in range(self.length + 1)) + "\n"

    def close(self) -> None:
        type(self).closed += 1


def walk(seed: int) -> list[str]:
    return ["<action>right</action>"] * (2 + seed % 3)


async def steps(env: Any, *replies: str, **row: Any) -> tuple[list[Any], Any]:
    async with env.open(task(**row)) as session:
        found = [await session.step({"output": [assistant(reply)]}) for reply in replies]
        return found, await session.verify({"output": []})


async def test_an_episode_by_names() -> None:
    env = gymnasium_env(Corridor, actions=("left", "right"), solve=walk)
    before = Corridor.closed
    for one in tasks_of(env, n=3):
        assert str(one.params["input"]).count("<action>right</action>") == 1
        model = load("perfect", ModelOptions(solve=env.solve))
        run = Runner(env=env, env_name="e", model=model, model_name="m", agent=ToolLoop())
        rollout = await run(one, 0)
        assert rollout.outcome is Outcome.SCORED
        assert rollout.reward == pytest.approx(-0.1 * (2 + one.fields["seed"]))
        assert rollout.params["input"][-1]["content"].startswith("[_]_")
    assert Corridor.closed == before + 4  # three episodes, and the one that is asked for its actions
    await env.aclose()


async def test_what_is_no_action_is_told_and_nothing_happens() -> None:
    env = gymnasium_env(Corridor, actions={"back": 0, "on": 1})
    found, verdict = await steps(env, "I fly", "<action>on</action> <action>back</action>", "<action>ON</action>", seed=0)
    assert [step.observation.split(". ")[-1] if step.observation else None for step in found] == ["[_]__", "[_]__", "_[_]_"]
    assert found[0].observation.startswith("That is no action: say one of back, on")
    assert (verdict.reward, verdict.fields["steps"], verdict.fields["info"]) == (-0.1, 3, {"place": 1})
    await env.aclose()


async def test_a_discrete_space_without_names_and_another_way_to_see() -> None:
    env = gymnasium_env(Corridor, observe=lambda game, place: {"at": place, "of": game.length})
    async with env.open(task(seed=1)) as session:
        assert session.observation == '{"at":0,"of":3}'
    found, _ = await steps(env, "1", "I think:\n1", "2", seed=1)
    assert [step.observation for step in found[:2]] == ['{"at":1,"of":3}', '{"at":2,"of":3}']
    assert "say one of 0, 1" in found[2].observation
    await env.aclose()


class Old:
    """As gym was: reset gives the observation, step four things; actions are texts."""

    def reset(self) -> str:
        return "Say xyzzy."

    def step(self, action: str) -> tuple[str, float, bool, dict[str, Any]]:
        if action == "raise":
            raise ValueError("a fault of the game")
        return "hm", float(action == "xyzzy"), action == "xyzzy", {}


async def test_gym_as_it_was_and_actions_of_text() -> None:
    env = gymnasium_env(Old)
    (one, *_) = tasks_of(env)
    assert "<action>...</action>" in str(one.params["input"])
    found, verdict = await steps(env, "plugh", "<action> xyzzy </action>")
    assert ([step.terminated for step in found], verdict.reward) == ([False, True], 1.0)
    with pytest.raises(VerifierFault, match="a fault of the game"):
        await steps(env, "raise")
    await env.aclose()


def test_a_class_with_steps_needs_no_decorator() -> None:
    assert as_env(Old, "x:Old").stepwise  # type: ignore[attr-defined]


def test_without_the_package_it_is_named(monkeypatch: Any) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(UserError, match="pip install gymnasium"):
        tasks_of(load_env("gymnasium:FrozenLake-v1"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        ("<action>Up</action>", "Up"),
        ("up", "Up"),
        ("I go up", None),
        ("The wall is below me.\n\n**UP**.\n", "Up"),
        ('{"reward": 1, "action": "up"}', None),
        ("<action> down </action> then <ACTION>down</ACTION>", "Down"),
        ("not down but <action>up</action>", "Up"),
        ("up or down", None),
        ("<action>up</action><action>down</action>", None),
        ("<action>up</action><action>sideways</action>", None),
        ("<action></action> up", None),
        ("<action>up", None),
        ("upper", None),
        ("ｕｐ", None),
        ("", None),
        ("<action>" * 50_000, None),
        ("<action>up</action>" * 50_000, "Up"),
    ],
)
def test_the_action_of_a_reply(reply: str, found: str | None) -> None:
    assert chosen_action(reply, ("Up", "Down")) == found


async def test_frozen_lake() -> None:
    pytest.importorskip("gymnasium")
    path = "ddrrdr"
    names = ("left", "down", "right", "up")
    env = gymnasium_env("FrozenLake-v1", actions=names, is_slippery=False)
    (one, *_) = tasks_of(env)
    assert all(f"<action>{name}</action>" in str(one.params["input"]) for name in names)
    async with env.open(one) as session:
        assert session.observation is not None
        assert "[S]FFF" in session.observation
        for move in path:
            last = await session.step({"output": [assistant({"d": "down", "r": "right"}[move])]})  # type: ignore[attr-defined]
        assert last.terminated
        assert (await session.verify({"output": []})).reward == 1.0
    await env.aclose()


async def test_a_space_of_numbers_takes_json() -> None:
    pytest.importorskip("gymnasium")
    env = gymnasium_env("Pendulum-v1")
    found, verdict = await steps(env, "[0.5]", "[9.0]", "push", '{"a": 1}', "<action>[-2]</action>", seed=3)
    bad = [step.observation.startswith("That is no action") for step in found]
    assert bad == [False, True, True, True, False]
    assert verdict.reward < 0
    again, same = await steps(env, "[0.5]", "[-2]", seed=3)
    assert (same.reward, again[0].observation) == (verdict.reward, found[0].observation)
    await env.aclose()


async def test_a_class_of_gymnasium_and_an_unknown_id() -> None:
    gymnasium = pytest.importorskip("gymnasium")
    from gymnasium.envs.toy_text.frozen_lake import FrozenLakeEnv

    env = as_env(FrozenLakeEnv, "x")
    found, _ = await steps(env, "0", "7", seed=1)
    assert found[0].observation in ("0", "1", "4")  # the ice is slippery
    assert "say one of 0, 1, 2, 3" in found[1].observation
    with pytest.raises(UserError, match="NoSuchGame"):
        tasks_of(gymnasium_env("NoSuchGame-v0"))
    assert gymnasium is not None
    await env.aclose()  # type: ignore[attr-defined]
