"""What messages of exports tell a user to type is there to be typed."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import typer.main

from rollforge.cli.main import app

SOURCE = Path(__file__).parents[2] / "src" / "rollforge" / "export"


def commands() -> Iterator[tuple[str, list[str]]]:
    """(verb, options) of every `rollforge VERB ...` in a text of the package."""
    for file in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            text = ""
            if isinstance(node, ast.JoinedStr):
                text = "".join(part.value if isinstance(part, ast.Constant) else "X" for part in node.values)  # type: ignore[misc]
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                text = node.value
            for found in re.finditer(r"rollforge ([a-z]+)((?: +(?:--?[a-z-]+|[^\s;,()]+))*)", text):
                yield found[1], re.findall(r"--[a-z][a-z-]+", found[2].partition(". ")[0])


def test_every_option_that_is_named_exists() -> None:
    verbs = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    named = [(verb, options) for verb, options in commands() if verb in verbs]
    assert {"curate", "export", "collect", "check"} <= {verb for verb, options in named if options}
    for verb, options in named:
        known = {option for parameter in verbs[verb].params for option in (*parameter.opts, *parameter.secondary_opts)}
        assert set(options) <= known, (verb, options)
