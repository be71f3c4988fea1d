"""Environments of the package `verifiers`, played by our policy through their own loop."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("verifiers", reason="needs rollforge[verifiers]")
pytest.importorskip("verifiers.envs.multiturn_env", reason="needs verifiers below 0.4")

import verifiers as vf
from datasets import Dataset

from rollforge.agents.tool_loop import ToolLoop
from rollforge.collect.rollout import Runner
from rollforge.envs.verifiers import VerifiersEnv, verifiers_env
from rollforge.errors import UserError, VerifierFault
from rollforge.models.base import Request
from rollforge.records.items import Item, Response, assistant, function_call
from rollforge.records.task import Task

pytestmark = [
    pytest.mark.extras,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::ResourceWarning"),
]


def rows(count: int = 2) -> Any:
    made = [{"question": f"{n}+1?", "answer": str(n + 1), "info": {"low": n}} for n in range(count)]
    return Dataset.from_list(made)


def right(completion: Any, answer: str) -> float:
    return float(answer in str(completion[-1].content))


def words(completion: Any) -> float:
    return float(len(str(completion[-1].content).split()))


def single(**more: Any) -> VerifiersEnv:
    rubric = vf.Rubric(funcs=[right, words], weights=[1.0, 0.0])
    return verifiers_env(vf.SingleTurnEnv(dataset=rows(), rubric=rubric, system_prompt="Be brief.", **more))


class Guess(vf.MultiTurnEnv):  # type: ignore[misc]
    async def env_response(self, messages: Any, state: Any, **kwargs: Any) -> Any:
        said = str(messages[-1].content)
        if said == state["answer"]:
            state["final_env_response"] = [{"role": "user", "content": "right"}]
        return [{"role": "user", "content": f"not {said}"}]


class Forgetful(Guess):
    async def get_prompt_messages(self, state: Any) -> Any:
        return [*state["prompt"], {"role": "user", "content": f"turn {len(state['trajectory'])}"}]


def add(a: int, b: int) -> int:
    """Add two numbers.

    Args:
        a: one
        b: the other
    """
    return a + b


async def play(env: VerifiersEnv, answers: list[list[Item]], max_turns: int = 8, task: int = 1) -> Any:
    """The rollout of a policy that gives these answers in turn, the last again and again."""
    seen: list[Any] = []

    async def model(request: Request, /) -> Response:
        seen.append(request.params)
        output = answers[min(len(seen), len(answers)) - 1]
        return {"output": output, "usage": {"input_tokens": 5, "output_tokens": 2, "total_tokens": 7}}

    agent = ToolLoop(max_turns=max_turns)
    runner = Runner(env=env, env_name="v", model=model, model_name="m", agent=agent)
    rollout = await runner(list(env.tasks())[task], 0)  # type: ignore[arg-type]
    return rollout, seen


def say(text: str) -> list[Item]:
    return [assistant(text)]


def test_its_data_set_is_the_tasks_with_the_system_prompt() -> None:
    found = list(single().tasks())
    assert len(found) == 2
    one = found[1]
    assert isinstance(one, Task)
    assert [item["role"] for item in one.params["input"]] == ["system", "user"]  # type: ignore[index]
    assert (one.fields["answer"], one.fields["info"]) == ("2", {"low": 1})
    assert len(list(single().tasks(n=1))) == 1
    with pytest.raises(UserError, match="train or eval"):
        list(single().tasks(split="test"))


@pytest.mark.parametrize(("text", "reward"), [("It is 2", 1.0), ("It is 7", 0.0), ("", 0.0), ("\u0000 2 😀", 1.0)])
async def test_a_single_turn_is_judged_by_its_rubric(text: str, reward: float) -> None:
    rollout, seen = await play(single(), [say(text)])
    assert (rollout.outcome, rollout.reward) == ("scored", reward)
    assert rollout.fields["right"] == reward
    assert rollout.fields["words"] == len(text.split())
    assert len(seen) == 1


async def test_several_turns_go_through_its_loop() -> None:
    env = verifiers_env(Guess(dataset=rows(), rubric=vf.Rubric(funcs=[right])))
    rollout, seen = await play(env, [say("7"), say("8"), say("2")])
    assert rollout.outcome == "scored"
    assert [item["content"] for item in seen[-1]["input"] if item.get("role") == "user"] == ["1+1?", "not 7", "not 8"]
    assert len(seen) == 3
    assert rollout.fields["num_turns"] == 3
    assert rollout.fields["stop_condition"] == "has_final_env_response"


async def test_an_agent_that_stops_early_is_judged_on_what_there_is() -> None:
    env = verifiers_env(Guess(dataset=rows(), rubric=vf.Rubric(funcs=[right])))
    rollout, _ = await play(env, [say("7")], max_turns=2)
    assert (rollout.outcome, rollout.reward, rollout.fields["num_turns"]) == ("scored", 0.0, 2)
    assert rollout.fields["stopped"] is True


async def test_its_tools_are_told_and_run_by_it() -> None:
    env = verifiers_env(vf.ToolEnv(dataset=rows(), tools=[add], rubric=vf.Rubric(funcs=[right])))
    calls = [
        [function_call("add", json.dumps({"a": 1, "b": 1}), "c1"), function_call("add", "{nonsense", "c2")],
        say("2"),
    ]
    rollout, seen = await play(env, calls)
    assert (rollout.outcome, rollout.reward) == ("scored", 1.0)
    assert [tool["name"] for tool in seen[0]["tools"]] == ["add"]
    outputs = {item["call_id"]: item["output"] for item in seen[1]["input"] if item.get("type") == "function_call_output"}
    assert outputs["c1"] == "2"
    assert "property name" in outputs["c2"]
    assert rollout.fields["add_calls"] == 2


async def test_a_reward_function_that_raises_is_no_verdict() -> None:
    def broken(completion: Any) -> float:
        raise KeyError("oops")

    env = verifiers_env(vf.SingleTurnEnv(dataset=rows(), rubric=vf.Rubric(funcs=[broken])))
    rollout, _ = await play(env, [say("2")])
    assert rollout.outcome == "verifier_fault"
    assert "oops" in str(rollout.failure)


async def test_a_loop_that_rewrites_the_conversation_is_a_fault() -> None:
    env = verifiers_env(Forgetful(dataset=rows(), rubric=vf.Rubric(funcs=[right])))
    rollout, _ = await play(env, [say("7")])
    assert rollout.outcome == "verifier_fault"
    assert "rewrites the conversation" in str(rollout.failure)


async def test_a_stored_response_is_played_when_it_is_judged() -> None:
    env = single()
    async with env.open(list(env.tasks())[1]) as session:  # type: ignore[arg-type]
        assert (await session.verify({"output": say("2")})).reward == 1.0


async def test_a_session_that_is_left_ends_its_rollout() -> None:
    env = single()
    async with env.open(next(iter(env.tasks()))) as session:  # type: ignore[arg-type]
        running = session._running  # type: ignore[attr-defined]
    assert running.done()


def test_one_that_is_installed_is_loaded_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        "import verifiers as vf\nfrom datasets import Dataset\n"
        "def load_environment(count=3):\n"
        "    rows = Dataset.from_list([{'question': str(n), 'answer': str(n)} for n in range(count)])\n"
        "    return vf.SingleTurnEnv(dataset=rows, rubric=vf.Rubric(funcs=[lambda completion: 1.0]))\n"
    )
    (tmp_path / "my_vf_env.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    import signal

    before = signal.getsignal(signal.SIGTERM)
    found = verifiers_env("my-vf-env", count=5)
    assert len(list(found.tasks())) == 5
    assert found.name == "my-vf-env"
    assert signal.getsignal(signal.SIGTERM) == before
    del sys.modules["my_vf_env"]


def test_what_cannot_be_one() -> None:
    with pytest.raises(UserError, match="cannot load 'no-such-env'"):
        verifiers_env("no-such-env")
    with pytest.raises(UserError, match="no environment of verifiers"):
        verifiers_env(object())


async def test_an_environment_that_is_over_at_once_is_a_fault() -> None:
    class Over(Guess):
        async def setup_state(self, state: Any) -> None:
            state["final_env_response"] = [{"role": "user", "content": "no"}]

    env = verifiers_env(Over(dataset=rows(), rubric=vf.Rubric(funcs=[right])))
    with pytest.raises(VerifierFault, match="over before the policy was asked"):
        async with env.open(next(iter(env.tasks()))):  # type: ignore[arg-type]
            pytest.fail("it opened")
