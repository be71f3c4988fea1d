"""Agents by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rollforge.agents.load import load_agent
from rollforge.agents.tool_loop import ToolLoop
from rollforge.errors import UserError


async def silent(task: Any, model: Any, session: Any) -> Any:
    return {"output": []}


class Configured:
    def __init__(self, turns: int = 1) -> None:
        self.turns = turns

    async def __call__(self, task: Any, model: Any, session: Any) -> Any:
        return {"output": []}


NOT_AN_AGENT = 3


def test_the_tool_loop_takes_its_options() -> None:
    assert load_agent() == ToolLoop()
    assert load_agent("tool_loop", {"max_turns": 3}) == ToolLoop(max_turns=3)


def test_an_agent_may_be_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("async def agent(task, model, session):\n    return {'output': []}\n")
    assert getattr(load_agent(f"{file}:agent"), "__name__", "") == "agent"
    with pytest.raises(UserError, match="did you mean agent"):
        load_agent(f"{file}:agnt")
    with pytest.raises(UserError, match="there is no file"):
        load_agent(f"{tmp_path}/yours.py:agent")


def test_an_agent_of_somebody_else_is_named_by_its_module() -> None:
    assert load_agent(f"{__name__}:silent") is silent
    made: Any = load_agent(f"{__name__}:Configured", {"turns": 4})
    assert made.turns == 4


@pytest.mark.parametrize(
    ("use", "options", "says"),
    [
        ("tool_lop", {}, "did you mean tool_loop"),
        ("tool_loop", {"max_turn": 3}, "option of the agent tool_loop 'max_turn'; did you mean max_turns"),
        (f"{__name__}:Configurd", {}, "did you mean Configured"),
        (f"{__name__}:Configured", {"turn": 1}, "did you mean turns"),
        (f"{__name__}:NOT_AN_AGENT", {}, "is int, not an agent"),
        (f"{__name__}:NOT_AN_AGENT", {"turns": 1}, "is int, not an agent"),
        ("tool_loop:x", {}, "tool_loop takes no argument"),
        ("no_such_package.module:agent", {}, "there is no module"),
        ("localhost:8100", {}, "named by its URL, http://localhost:8100"),
    ],
)
def test_what_is_no_agent_is_told(use: str, options: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        load_agent(use, options)
