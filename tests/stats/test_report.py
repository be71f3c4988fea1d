"""The report on the terminal and as a page."""

from __future__ import annotations

import io
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from rollforge.cli.tables import table
from rollforge.errors import UserError
from rollforge.records.rollout import Failure
from rollforge.records.rows import BadLine
from rollforge.stats import Profile, profile
from rollforge.stats.html import page, write_report
from rollforge.stats.terminal import report
from tests.stats.made import called, grid, made

EVIL = "<script>alert(1)</script>\x1b[2J[red]\u202e&\"'"


def evil() -> Profile:
    """Hostile text wherever text can come from."""
    fault = Failure(EVIL, EVIL, EVIL)
    more = {"output": called(EVIL, "Error"), "fields": {EVIL: 1.0, "reward_components": {EVIL: 1.0}}, "seconds": {EVIL: 1.0}}
    cut = {"incomplete_details": {"reason": EVIL}}
    rows = [
        replace(made(reward, index=index, env=EVIL + env, prompt=EVIL, response=cut, **more), task=EVIL, task_index=None)
        for env in "ab"
        for index, reward in enumerate((1.0, 0.0))
    ]
    return profile([*rows, made(None, 5, env=EVIL + "a", failure=fault), BadLine(EVIL, 1, EVIL, EVIL)])


PROFILES = {
    "empty": lambda: profile([]),
    "single": lambda: profile([made()]),
    "failures": lambda: profile([made(None, t) for t in range(3)], planned=9),
    "groups": lambda: profile(
        grid([[1, 0, 1, 0], [0, 0, 0, 0]] * 12, output=called("add", "Error"), seconds={"total": 1.5})
    ),
    "fractions": lambda: profile(grid([[i / 40 for i in range(40)], [5.0, -7.5]])),
    "several": lambda: profile([*grid([[1, 0]] * 9, env="a"), *grid([[0, 9]], env="environment_with_a_long_name_" * 2)]),
    "huge": lambda: profile(grid([[1e308, -1e308], [1e308, 3]])),
    "evil": evil,
}


def printed(found: Profile, width: int = 80, encoding: str = "utf-8", section: int | None = None) -> str:
    buffer = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="replace")
    console = Console(file=buffer, width=width, highlight=False, markup=False, emoji=False)
    chosen = found.overall if section is None else found.environments[section]
    console.print(report(found, chosen, ["runs/one"]))
    buffer.flush()
    return buffer.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.parametrize("width", [80, 120])
def test_the_report_fits_and_is_plain(name: str, width: int) -> None:
    text = printed(PROFILES[name](), width)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    assert not set(text) & set("\x1b\u202e\r")
    assert ("Verdicts" in text) == (name != "empty")  # of no rollouts there is nothing to say
    assert "\x00" not in text


@pytest.mark.parametrize("name", [name for name in PROFILES if name not in ("empty", "evil")])
@pytest.mark.parametrize("width", [60, 40, 32])
def test_a_narrow_terminal_cuts_no_number(name: str, width: int) -> None:
    found = PROFILES[name]()
    text = printed(found, width)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    wide, narrow = numbers(printed(found, 300)), numbers(text)
    assert wide <= narrow  # names of columns are there more often
    assert set(narrow) == set(wide)


def numbers(text: str) -> Counter[str]:
    return Counter(number.rstrip(".,-") for number in re.findall(r"-?\d[-\d.,/e+]*%?", text))


@pytest.mark.parametrize("width", [80, 50, 34])
def test_a_table_of_a_command_cuts_no_number(width: int) -> None:
    names = ("model", "environment", "rollouts", "coverage", "mean reward", "p")
    rows = [("tiny", "arithmetic", "12,345", "100.0%", "0.188 [0.046, 0.517]", "0.062"), ("m" * 40, "x", "1", "-", "1", "1")]
    console = Console(file=io.StringIO(), width=width)
    console.print(*table("Rewards", names, rows, words=2))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, text.splitlines())) <= width
    assert all(cell in text for cell in ("12,345", "100.0%", "0.188 [0.046,", "0.517]", "0.062"))
    if width < 80:
        assert ("tiny, arithmetic" in text, "…" in text) == (True, width == 34)


def test_the_report_in_ascii() -> None:
    text = printed(PROFILES["groups"](), encoding="ascii")
    assert re.search(r"easy.* #+ ", text) or "#####" in text


def test_what_the_report_says() -> None:
    text = printed(PROFILES["groups"]())
    for words in (
        "96 rollouts of 24 tasks: scored 96 (coverage 100.0%)",
        "0.250 [0.",
        "  4     24   50.0%    0.0%",
        "Groups without signal (all rewards equal): 12 (50.0%) of 24, 0 of them",
        "96 (100.0%)",
        "warn      the mean reward is 0.25 (under 0.3)",
        "possible  GRPO: 50% of 24 groups have signal",
    ):
        assert words in text


def test_the_report_of_one_environment() -> None:
    text = printed(PROFILES["several"](), section=0)
    assert "environment a: 18 rollouts of 9 tasks" in text
    assert "Environments" not in text


class Checker(HTMLParser):
    """Every tag closed, no script, nothing from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "link", "img", "iframe", "object")
        assert not {name for name, _ in attrs if name.startswith("on") or name in ("src", "href")}
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in ("line", "rect", "polyline", "circle")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("name", PROFILES)
def test_the_page(name: str) -> None:
    text = "".join(page(PROFILES[name](), [EVIL]))
    checker = Checker()
    checker.feed(text)
    assert checker.open == []
    assert not set(text) & set("\x1b\u202e")
    assert "url(" not in text
    assert "nan" not in re.sub(r"<style>.*</style>", "", text).lower().replace("finance", "")


def test_the_page_replaces_only_pages(tmp_path: Path) -> None:
    file, found = tmp_path / "new/report.html", profile([made()])
    write_report(file, found, ["a"])
    write_report(file, found, ["b"])
    assert "<title>b" in file.read_text("utf-8")
    other = tmp_path / "rollouts.jsonl"
    other.write_text("precious")
    with pytest.raises(UserError, match="no report"):
        write_report(other, found, ["a"])
    assert other.read_text() == "precious"
    with pytest.raises(UserError, match="cannot write"):
        write_report(other / "below.html", found, ["a"])
