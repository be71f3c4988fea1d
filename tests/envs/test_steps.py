"""Environments that are played by steps: what `step` may return, how it is rewarded, and the same behind HTTP."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

import rollforge as rf
from rollforge.agents.tool_loop import ToolLoop
from rollforge.collect.rollout import Runner
from rollforge.envs.base import ToolCall
from rollforge.envs.remote import RemoteEnv
from rollforge.errors import UserError, VerifierFault
from rollforge.models.base import ModelOptions
from rollforge.models.scripted import load
from rollforge.records.items import assistant, function_call
from rollforge.records.rollout import Outcome, Rollout
from rollforge.records.task import Task
from rollforge.serve.env_app import env_app
from rollforge.serve.settings import Settings
from tests.envs.drive import task
from tests.serve.live import serving


class Guess:
    """Guess a number; each guess costs a little."""

    def reset(self, goal: int) -> str:
        self.goal = goal
        return "Guess."

    def step(self, action: str, hint: str = "no") -> tuple[str | None, float, bool, bool, dict[str, Any]]:
        """A docstring makes it no tool."""
        guess = int(action)
        if guess == self.goal:
            return None, 1.0, True, False, {"goal": self.goal}
        if guess < 0:
            return "enough", 0.0, False, True, {}
        return f"{hint}: {'more' if guess < self.goal else 'less'}", -0.25, False, False, {}

    def look(self) -> str:
        """Not a tool either."""
        return str(self.goal)

    def solve(self, goal: int) -> Any:
        low, high = 0, 8
        while True:
            seen = yield str((low + high) // 2)
            low, high = ((low + high) // 2, high) if seen.endswith("more") else (low, (low + high) // 2)


class Judged(Guess):
    """The same, but only the end counts."""

    def verify(self, reply: str, goal: int) -> dict[str, Any]:
        return {"reward": float(reply == str(goal)), "said": reply}


ROW = task(goal=5, hint="it is")


@asynccontextmanager
async def here(env: Any) -> AsyncIterator[Any]:
    yield env
    await env.aclose()


@asynccontextmanager
async def served(env: Any) -> AsyncIterator[Any]:
    async with serving(env_app(env, "e", Settings())) as url:
        remote = RemoteEnv(url)
        yield remote
        await remote.aclose()


@pytest.fixture(params=[here, served])
def form(request: pytest.FixtureRequest) -> Any:
    return request.param


async def played(env: Any, model: Any, task: Task = ROW, **loop: Any) -> Rollout:
    run = Runner(env=env, env_name="e", model=model, model_name="m", agent=ToolLoop(**loop))
    return await run(task, 0)


def says(*texts: str) -> Any:
    left = iter(texts)

    async def model(request: Any, /) -> Any:
        return {"output": [assistant(next(left))]}

    return model


def texts(rollout: Rollout) -> list[str]:
    found = []
    for item in rollout.output:
        content = item["content"]
        found.append(content if isinstance(content, str) else content[0]["text"])
    return found


async def test_rewards_are_summed_and_observations_are_what_the_policy_reads(form: Any) -> None:
    async with form(rf.env(Guess)) as env:
        rollout = await played(env, says("2", "7", "5", "never asked"))
    assert rollout.outcome is Outcome.SCORED
    assert rollout.reward == 0.5
    assert rollout.params["input"][-1]["content"] == "Guess."
    assert texts(rollout) == ["2", "it is: more", "7", "it is: less", "5"]
    told = {name: rollout.fields[name] for name in ("steps", "terminated", "truncated", "info")}
    assert told == {"steps": 3, "terminated": True, "truncated": False, "info": {"goal": 5}}


async def test_a_verifier_has_the_last_word(form: Any) -> None:
    async with form(rf.env(Judged)) as env:
        won, unfinished = await played(env, says("2", "5")), await played(env, says("2", "4"), max_turns=2)
    assert (won.reward, won.fields["said"], won.fields["steps"]) == (1.0, "5", 2)
    assert (unfinished.reward, unfinished.fields["said"], unfinished.fields["truncated"]) == (0.0, "4", True)


async def test_what_is_no_action_is_told_to_the_policy_and_the_episode_goes_on(form: Any) -> None:
    async with form(rf.env(Guess)) as env:
        rollout = await played(env, says("five?", "5"))
    assert rollout.reward == 1.0
    assert "ValueError: invalid literal" in json.loads(texts(rollout)[1])["error"]


async def test_a_call_of_a_tool_is_answered_that_there_are_none(form: Any) -> None:
    async def model(request: Any, /) -> Any:
        return {"output": [assistant("5") if len(request.params["input"]) > 2 else function_call("look", "{}", "c")]}

    async with form(rf.env(Guess)) as env:
        rollout = await played(env, model)
        async with env.open(ROW) as session:
            assert not session.tools
            assert (await session.call(ToolCall("look", {}))).error
    assert rollout.reward == 1.0
    assert "no tools" in rollout.output[1]["output"]


async def test_an_episode_that_the_environment_cuts_short(form: Any) -> None:
    async with form(rf.env(Guess)) as env:
        rollout = await played(env, says("2", "-1"))
    assert (rollout.reward, rollout.fields["truncated"], rollout.fields["terminated"]) == (-0.25, True, False)
    assert rollout.response is not None
    assert rollout.response["incomplete_details"] == {"reason": "truncated"}


async def test_a_response_that_was_not_played_is_played_when_it_is_judged(form: Any) -> None:
    async with form(rf.env(Guess)) as env:
        stored = await played(env, says("2", "7", "5"))
        for output, reward in ((stored.output, 0.5), ([assistant("5")], 1.0), ([], 0.0), ([assistant("")], 0.0)):
            async with env.open(ROW) as session:
                assert (await session.verify({"output": output})).reward == reward


async def test_nothing_changes_once_it_is_over(form: Any) -> None:
    async with form(rf.env(Guess)) as env, env.open(ROW) as session:
        assert (await session.step({"output": [assistant("5")]})).reward == 1.0
        again = await session.step({"output": [assistant("5")]})
        assert (again.reward, again.terminated) == (0.0, True)
        assert (await session.verify({"output": [assistant("5"), assistant("5")]})).reward == 1.0


async def test_the_reference_policy_says_its_actions() -> None:
    env = rf.env(Guess, tasks=[{"prompt": "?", "goal": goal} for goal in (1, 4, 6)])
    model = load("perfect", ModelOptions(solve=env.solve))
    found = [await played(env, model, one) for one in env.tasks()]
    assert [texts(rollout)[::2] for rollout in found] == [["4", "2", "1"], ["4"], ["4", "6"]]
    assert [rollout.reward for rollout in found] == [0.5, 1.0, 0.75]


async def test_a_reference_policy_may_be_a_list_of_actions() -> None:
    env = rf.env(Guess, solve=lambda goal: [str(goal - 1), str(goal)])
    model = load("perfect", ModelOptions(solve=env.solve))
    assert texts(await played(env, model)) == ["4", "it is: more", "5"]
    assert (await played(env, model)).reward == 0.75


@pytest.mark.parametrize(
    ("result", "observation", "reward", "over"),
    [
        ("seen", "seen", 0.0, (False, False)),
        (None, "Continue.", 0.0, (False, False)),
        (("", 1, 0), "Continue.", 1.0, (False, False)),
        (("end", 2.5, True), "end", 2.5, (True, False)),
        ((None, 0.0, True, True, {}), None, 0.0, (True, True)),
        (({"at": [1, 2]}, False, False), '{"at":[1,2]}', 0.0, (False, False)),
        (([1, 2], True, False, True, {"a": {1}}), "[1,2]", 1.0, (False, True)),
        (("a\ud800", 0, 0), "a?", 0.0, (False, False)),
    ],
)
async def test_what_a_step_may_return(result: Any, observation: str | None, reward: float, over: tuple[bool, bool]) -> None:
    class Game:
        def step(self, action: str) -> Any:
            return result

    async with rf.env(Game).open(ROW) as session:
        found = await session.step({"output": [assistant("x")]})
    assert (found.observation, found.reward, (found.terminated, found.truncated)) == (observation, reward, over)


@pytest.mark.parametrize(
    ("result", "fault"),
    [
        (("a", 1.0), "tuple of 2"),
        (("a", 1.0, False, {}), "tuple of 4"),
        (("a", float("nan"), False), "not finite"),
        (("a", "1.0", False), "not a number"),
        (("a", 1.0, False, False, "info"), "info of step"),
        (KeyError("lost"), "KeyError: 'lost'"),
        (SystemExit(3), "SystemExit"),
    ],
)
async def test_what_is_wrong_with_a_step_is_no_verdict_on_the_policy(result: Any, fault: str) -> None:
    class Game:
        def step(self, action: str) -> Any:
            if isinstance(result, BaseException):
                raise result
            return result

    env = rf.env(Game)
    rollout = await played(env, says("x", "y"))
    await env.aclose()
    assert (rollout.outcome, rollout.reward) == (Outcome.VERIFIER_FAULT, None)
    assert rollout.failure is not None
    assert fault in rollout.failure.message


async def test_gymnasium_s_reset_and_async_steps() -> None:
    class Game:
        def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
            self.seed = seed
            return {"seed": seed}, {}

        async def step(self, action: str) -> tuple[Any, float, bool]:
            return self.seed, 1.0, True

    async with rf.env(Game).open(task(seed=7)) as session:
        assert session.observation == '{"seed":7}'
        assert (await session.step({"output": [assistant("x")]})).observation == "7"


def test_a_step_without_a_parameter_and_a_class_without_anything_are_refused() -> None:
    class Mute:
        def step(self) -> None: ...

    with pytest.raises(UserError, match=r"write step\(self, action\)"):
        rf.env(Mute)
    with pytest.raises(UserError, match=r"nor step\(self, action\)"):
        rf.env(type("Empty", (), {}))


async def test_a_row_that_lacks_what_a_step_needs() -> None:
    class Game:
        def step(self, action: str, goal: int) -> Any:
            return None, 1.0, True

    async with rf.env(Game).open(task()) as session:
        with pytest.raises(VerifierFault, match="goal"):
            await session.step({"output": [assistant("x")]})


async def test_a_client_of_nemo_gym_is_told_rewards_that_add_up() -> None:
    import aiohttp

    async with (
        serving(env_app(rf.env(Judged), "e", Settings())) as url,
        aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as client,
    ):
        row = {"responses_create_params": {"input": "?"}, "goal": 5}
        async with client.post(f"{url}/reset", json=row) as answer:
            assert (await answer.json())["observation"] == "Guess."
        found = []
        for text in ("2", "5"):
            async with client.post(f"{url}/step", json={**row, "response": {"output": [assistant(text)]}}) as answer:
                found.append(await answer.json())
        assert [one["reward"] for one in found] == [-0.25, 1.25]
        assert (found[0]["observation"], found[1]["terminated"], found[1]["info"]["said"]) == ("no: more", True, "5")
        async with client.post(f"{url}/close", json={}) as answer:
            assert answer.status == 200
