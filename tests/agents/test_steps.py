"""The loop over steps: what it shows the model, when it ends, and what it hands on."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from rollforge.agents.tool_loop import ToolLoop
from rollforge.envs.base import Step, Verdict
from rollforge.errors import InfraFault
from rollforge.records.items import assistant, function_call, function_call_output, user
from rollforge.records.task import Task

TASK = Task({"input": "Play."}, {}, "t", 0)


class Game:
    """Answers steps in order, over and over the last."""

    tools = ()
    observation = None

    def __init__(self, *steps: Step | Exception) -> None:
        self.steps = list(steps)
        self.seen: list[Any] = []

    async def step(self, response: Any, /) -> Step:
        self.seen.append(deepcopy(response))
        found = self.steps[min(len(self.seen), len(self.steps)) - 1]
        if isinstance(found, Exception):
            raise found
        return found

    async def call(self, call: Any, /) -> Any:
        raise AssertionError("the game runs the tools itself")

    async def verify(self, response: Any, /) -> Verdict:
        return Verdict(0.0)


class Model:
    def __init__(self, *answers: Any) -> None:
        self.answers = answers
        self.asked: list[Any] = []

    async def __call__(self, request: Any, /) -> Any:
        self.asked.append(deepcopy(request.params["input"]))
        items = self.answers[min(len(self.asked), len(self.answers)) - 1]
        return {"id": "r", "output": list(items), "usage": {"input_tokens": 9, "output_tokens": 10}}


CALL = function_call("look", "{}", "c1")


async def test_outputs_come_before_the_observation() -> None:
    game = Game(Step("Go on.", outputs=(("c1", "a wall"),)), Step(terminated=True))
    model = Model([CALL], [assistant("left")])
    found = await ToolLoop()(TASK, model, game)
    assert found["output"] == [CALL, function_call_output("c1", "a wall"), user("Go on."), assistant("left")]
    assert found["usage"] == {"input_tokens": 18, "output_tokens": 20}
    assert found.get("incomplete_details") is None
    assert model.asked[1] == [user("Play."), *found["output"][:3]]
    assert [seen["output"] for seen in game.seen] == [[CALL], [assistant("left")]]


async def test_a_call_without_an_id_has_one_in_the_step() -> None:
    game = Game(Step(terminated=True))
    await ToolLoop()(TASK, Model([{"type": "function_call", "name": "look", "arguments": "{}"}]), game)
    assert game.seen[0]["output"][0]["call_id"]


@pytest.mark.parametrize(
    ("agent", "step", "reason", "turns"),
    [
        (ToolLoop(max_turns=3), Step("more"), "max_turns", 3),
        (ToolLoop(max_total_tokens=15), Step("more"), "max_total_tokens", 2),
        (ToolLoop(), Step(truncated=True), "truncated", 1),
    ],
)
async def test_an_episode_that_is_cut_says_why(agent: ToolLoop, step: Step, reason: str, turns: int) -> None:
    game = Game(step)
    found = await agent(TASK, Model([assistant("?")]), game)
    assert (found["status"], found["incomplete_details"], len(game.seen)) == ("incomplete", {"reason": reason}, turns)


async def test_long_texts_are_cut_and_say_so() -> None:
    game = Game(Step("y" * 300, outputs=(("c1", "x" * 300),)), Step(terminated=True))
    found = await ToolLoop(max_tool_chars=100)(TASK, Model([CALL], [assistant("?")]), game)
    texts = found["output"][1]["output"], found["output"][2]["content"]
    assert [text.endswith("[cut: 300 characters, 100 shown]") for text in texts] == [True, True]


async def test_a_fault_brings_the_episode_so_far() -> None:
    with pytest.raises(InfraFault) as error:
        await ToolLoop()(TASK, Model([assistant("?")]), Game(Step("more"), InfraFault("gone")))
    assert error.value.partial["output"] == [assistant("?"), user("more"), assistant("?")]
