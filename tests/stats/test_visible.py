"""Text from models cannot steer a terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollforge.stats.visible import one_line, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain [red]text[/red]\n\tnext", "plain [red]text[/red]\n\tnext"),
        ("\x1b[2J\x07\r", "\\x1b[2J\\x07\\x0d"),
        ("\x9b31m\x7f", "\\x9b31m\\x7f"),
        ("user\u202etxt.exe\u2066", "user\\u202etxt.exe\\u2066"),
        ("a\u200bb\ufeff\u2028c", "a\\u200bb\\ufeff\\u2028c"),
        ("\U000e0041", "\\U000e0041"),
        ("naïve 数学 👩\u200d🔬 ∑", "naïve 数学 👩\u200d🔬 ∑"),
    ],
)
def test_visible(text: str, shown: str) -> None:
    assert visible(text) == shown


@given(st.text())
def test_nothing_that_controls_is_left(text: str) -> None:
    shown = visible(text)
    assert all(
        character.isprintable() or character in "\n\t\u200c\u200d\u00ad" or character.isspace() for character in shown
    )
    assert visible(shown) == shown


def test_one_line() -> None:
    assert one_line(" a\n\n b\x1b ", 10) == "a b\\x1b"
    assert one_line("x" * 50, 10) == "x" * 9 + "…"
