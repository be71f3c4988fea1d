"""A search that ends, whatever the pattern."""

import re
import threading

import pytest

from rollforge.curate.bounded import PATIENCE, HopelessPattern, Search
from rollforge.errors import UserError

LONG = "a" * 41 + "!"


def test_what_is_found() -> None:
    assert Search(re.compile("a.c"))("xabc")
    assert not Search(re.compile("a.c"))("xab")
    assert Search(re.compile(r"\d+$"))("x" * 1_000_000 + "7")


def test_a_pattern_without_an_end_is_ended_and_at_last_given_up() -> None:
    search = Search(re.compile("(a+)+$"), seconds=0.01)
    for _ in range(PATIENCE):
        with pytest.raises(UserError, match=r"the pattern '\(a\+\)\+\$' takes more than 0.01 s"):
            search(LONG)
    with pytest.raises(HopelessPattern, match="A repeat within a repeat"):
        search(LONG)
    assert search("aaa")


def test_other_threads_have_no_timer_and_an_answer() -> None:
    found: list[bool] = []
    thread = threading.Thread(target=lambda: found.append(Search(re.compile("b"))("abc")))
    thread.start()
    thread.join()
    assert found == [True]
