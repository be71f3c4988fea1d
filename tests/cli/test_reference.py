"""docs/reference/cli.md is what `--help` says. To write it anew: REWRITE=1 pytest tests/cli/test_reference.py"""

from __future__ import annotations

import os
import re
from pathlib import Path

from typer.testing import CliRunner

from rollforge.cli.main import app

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "cli.md"
VERBS = (
    ["collect"],
    ["stats"],
    ["show"],
    ["advise"],
    ["check"],
    ["diff"],
    ["export"],
    ["train"],
    ["eval"],
    ["loop"],
    ["curate"],
    ["reverify"],
    ["test"],
    ["audit"],
    ["validate"],
    ["serve"],
    ["env", "list"],
    ["env", "show"],
    ["env", "new"],
)
HEAD = """# Command line

Made from `--help`. Exit status: 0 done, 1 failed or incomplete, 2 the request was wrong or refused, 130 interrupted,
143 terminated.
"""


def test_the_page_says_what_help_says() -> None:
    sections = [HEAD]
    for verb in VERBS:
        shown = CliRunner().invoke(app, [*verb, "--help"], env={"COLUMNS": "100"}, terminal_width=100, prog_name="rollforge")
        assert shown.exit_code == 0
        text = "\n".join(line.rstrip() for line in shown.output.strip().splitlines())
        sections.append(f"## rollforge {' '.join(verb)}\n\n```text\n{text}\n```\n")
    page = "\n".join(sections)
    if os.environ.get("REWRITE"):
        PAGE.write_text(page, encoding="utf-8")
    # Not to the letter: another version of typer lays the same text out differently.
    assert said(PAGE.read_text(encoding="utf-8")) == said(page)


def said(page: str) -> list[tuple[str, list[str], set[str]]]:
    """Per section: its title, the options in order, and the words of their help."""
    sections = page.split("\n## ")[1:]
    return [
        (section.splitlines()[0], re.findall(r"^ *(?:-\w, )?(--[\w-]+)", section, re.MULTILINE), words(section))
        for section in sections
    ]


def words(section: str) -> set[str]:
    return {word for word in re.findall(r"[A-Za-z]{5,}", section) if word.lower() not in ("integer", "float", "boolean")}
