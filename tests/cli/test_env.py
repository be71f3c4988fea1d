"""`rollforge env show`: what an environment is like, in a page."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from rollforge.cli.main import app
from tests.serve.started import BANK, started


def shown(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["env", "show", *arguments])
    return done.exit_code, done.output


def test_the_verdict_has_the_parts_of_the_reward_and_not_the_row_again() -> None:
    status, text = shown("weather", "--task", "3")
    assert status == 0
    assert "get_weather(city: string)  The weather in a city now." in text
    row, verdict = text.split("\nverdict\n")
    assert 'reward_components: {"asked":0.5,"stated":0.5}' in verdict
    assert "expected_answer" in row
    assert "expected_answer" not in verdict


def test_an_environment_that_is_played_by_steps_shows_every_step() -> None:
    status, text = shown("sokoban")
    assert status == 0
    assert text.count("\nuser\n") == text.count("\nassistant\n") + 1  # the prompt, and a board before each move
    assert "solved: 1.0" in text


def test_one_behind_a_url_shows_its_tools_for_a_task_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "bank.py").write_text(
        BANK.replace("self.balance = 0\n", "self.balance = 0; return 'Nothing\\x1b[2J yet.'\n")
    )
    (tmp_path / "tasks.jsonl").write_text('{"prompt": "pay", "target": 6}\n')
    with started(tmp_path, "bank.py", "--port", "0") as service:
        url = service.urls["environment"]
        status, text = shown(url, "--tasks", str(tmp_path / "tasks.jsonl"))
        without = CliRunner().invoke(app, ["env", "show", url])
    assert status == 0
    for part in (
        url,
        "pay(amount: integer)  Pay an amount.",
        "target: 6",
        "it opens with:\nNothing\\x1b[2J yet.",
        "no reference",
    ):
        assert part in text
    assert without.exit_code != 0
    assert "has no tasks of its own: give some with --tasks" in str(without.exception)


def test_parameters_of_classes_have_their_types(tmp_path: Path) -> None:
    file = tmp_path / "paint.py"
    file.write_text(
        """
from enum import Enum
import rollforge as rf
from pydantic import BaseModel

class Colour(Enum):
    RED = "red"

class Wall(BaseModel):
    width: int

@rf.env(tasks=[{"prompt": "Paint."}])
class Paint:
    def paint(self, colour: Colour, wall: Wall | None = None) -> str:
        '''Paint a wall.'''

    def verify(self) -> float:
        return 1.0
"""
    )
    assert "paint(colour: string, wall: object | null)  Paint a wall." in shown(str(file))[1]


def test_a_task_that_there_is_not() -> None:
    done = CliRunner().invoke(app, ["env", "show", "counter", "--task", "100000"])
    assert done.exit_code != 0
    assert "there is no task 100000" in done.output + str(done.exception)
