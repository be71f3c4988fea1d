"""`rollforge show` as a user types it."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from rollforge.cli.main import app
from rollforge.records.items import assistant, system, user
from tests.stats.made import called, made, write


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["show", *map(str, arguments)])


@pytest.fixture
def sums(tmp_path: Path) -> Path:
    params = {
        "input": [system("Be brief."), user("What is 2+2?")],
        "instructions": "Use the tool.",
        "tools": [{"type": "function", "name": "add"}],
    }
    thought = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "I should add."}]}
    good = [thought, *called("add", "4", arguments='{"a": 2, "b": 2}'), assistant("The sum is 4.")]
    wrong = [*called("add", '{"error": "b is missing"}', arguments='{"a": 2}'), assistant("It is 5.")]
    fields = {"answer": "4", "accuracy": 1.0, "metadata": None}
    usage = {"usage": {"input_tokens": 11, "output_tokens": 7}}
    rollouts = [
        made(1.0, 0, 0, output=good, params=params, fields=fields, response=usage, seconds={"total": 1.25}),
        made(0.0, 0, 1, output=wrong, params=params, fields={"answer": "4", "accuracy": 0.0}),
        made(0.5, 1, 0),
    ]
    write(tmp_path / "sums/rollouts.jsonl", rollouts)
    write(tmp_path / "sums/failures.jsonl", [made(None, 1, 1)])
    return tmp_path / "sums"


def test_one_success_and_one_failure(sums: Path) -> None:
    result = run(sums, "--best", "--worst")
    assert result.exit_code == 0
    best, worst = result.stdout.split("worst: ")
    for text in (
        "best: math, task 0 (task0000), repeat 0: reward 1\n─",
        "instructions\n  Use the tool.\n",
        "tools\n  add\n",
        "system\n  Be brief.\nuser\n  What is 2+2?\n",
        'reasoning\n  I should add.\ncall add\n  {"a": 2, "b": 2}\noutput of add\n  4\nassistant\n  The sum is 4.\n',
        "verdict\n  outcome: scored\n  answer: 4\n  accuracy: 1.0\n  tokens: 11 in, 7 out\n  seconds: total 1.25\n",
    ):
        assert text in best
    assert worst.startswith("math, task 0 (task0000), repeat 1: reward 0\n")
    assert '{"error": "b is missing"}' in worst


def test_a_failure_with_its_stage(sums: Path) -> None:
    result = run(sums, "--failures")
    assert "failure 1 of 1: math, task 1 (task0001), repeat 1: no reward" in result.stdout
    assert "failure: InfraFault in model: HTTP 503 (another attempt may succeed)" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ([], 3),
        (["--limit", 9], 4),
        (["--task", 0], 2),
        (["--task", "task0001"], 2),
        (["--task", 0, "--index", 1], 1),
        (["--best", "--limit", 2], 2),
        (["--best", "--worst", "--failures"], 3),
    ],
)
def test_which(sums: Path, arguments: list[object], shown: int) -> None:
    assert run(sums, *arguments).stdout.count("\nverdict\n") == shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", 9], "has no usable rollout of task 9; tasks are listed by: rollforge stats"),
        (["--task", 0, "--failures"], "has no usable rollout without a reward of task 0;"),
        (["--index", 7, "--best"], "has no usable rollout with a reward of repeat 7\n"),
    ],
)
def test_nothing_to_show_fails(sums: Path, arguments: list[object], message: str) -> None:
    result = run(sums, *arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert message in result.stderr


def test_long_texts_are_cut_with_a_count(tmp_path: Path) -> None:
    file = write(tmp_path / "long.jsonl", [made(reply="x" * 5000), made(index=1, reply="y\n" * 100)])
    assert "... 3,500 more characters (--full shows them)" in run(file).stdout
    assert "... 141 more characters" in run(file).stdout
    full = run(file, "--full").stdout
    assert ("x" * 5000 in full, full.count("  y\n"), "more characters" in full) == (True, 100, False)


def test_a_model_cannot_steer_the_terminal(tmp_path: Path) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J[red]red[/red] \u202e\r"
    output = [*called(evil, evil, arguments=evil), assistant(evil), {"type": evil, "x": evil}]
    file = write(tmp_path / "evil.jsonl", [made(output=output, prompt=evil, env=evil, fields={evil: evil})])
    text = run(file, "--full").stdout
    assert not set(text) & set("\x1b\x07\r\u202e")
    assert "\\x1b]0;owned\\x07\\x1b[2J[red]red[/red] \\u202e" in text


def test_parts_that_are_no_text(tmp_path: Path) -> None:
    image = {"role": "user", "content": [{"type": "input_text", "text": "look"}, {"type": "input_image", "image_url": "x"}]}
    output = [{"type": "reasoning", "encrypted_content": "zzz", "summary": []}, {"type": "web_search_call", "id": "w"}]
    file = write(tmp_path / "parts.jsonl", [made(params={"input": [image]}, output=output)])
    text = run(file).stdout
    assert "user\n  look\n  [input_image]\nreasoning\n  (encrypted)\nweb_search_call\n" in text


def test_a_prompt_in_chat_form(tmp_path: Path) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "put", "arguments": "{}"}}
    chat = [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "3"},
    ]
    tools = [{"type": "function", "function": {"name": "put"}}]
    broken = [{"role": "assistant", "content": "hm", "tool_calls": "put"}]
    file = write(tmp_path / "chat.jsonl", [made(params={"input": chat, "tools": tools}), made(params={"input": broken})])
    text = run(file).stdout
    assert "tools\n  put\ncall put\n  {}\noutput of put\n  3\n" in text
    assert "assistant\n  hm\n" in text
