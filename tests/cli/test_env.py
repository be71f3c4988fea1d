"""`rollforge env show`: what an environment is like, in a page."""

from __future__ import annotations

from typer.testing import CliRunner

from rollforge.cli.main import app


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


def test_a_task_that_there_is_not() -> None:
    done = CliRunner().invoke(app, ["env", "show", "counter", "--task", "100000"])
    assert done.exit_code != 0
    assert "there is no task 100000" in done.output + str(done.exception)
