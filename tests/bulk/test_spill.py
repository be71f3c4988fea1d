"""Sorting on disk is sorting: stable, complete, whatever the size; kept items can be read by several readers at once."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollforge.bulk.spill import Kept, grouped, sort


@given(st.lists(st.integers(0, 5), max_size=60), st.integers(1, 20))
def test_sorting(tmp_path_factory: pytest.TempPathFactory, numbers: list[int], at_once: int) -> None:
    folder = tmp_path_factory.getbasetemp()
    items = list(enumerate(numbers))
    assert list(sort(items, lambda item: item[1], folder, at_once)) == sorted(items, key=lambda item: item[1])


def test_groups(tmp_path: Path) -> None:
    words = ["b1", "a1", "b2", "c1", "a2"]
    assert list(grouped(words, lambda word: word[0], tmp_path)) == [["a1", "a2"], ["b1", "b2"], ["c1"]]
    assert list(grouped([], str, tmp_path)) == []


def test_kept_items_are_read_as_often_as_needed(tmp_path: Path) -> None:
    kept = Kept(tmp_path, range(2500))
    assert len(kept) == 2500
    assert list(zip(kept, kept, strict=True)) == [(n, n) for n in range(2500)]
    assert list(kept) == list(range(2500))
    assert list(tmp_path.iterdir()) == []  # without a name: nothing is left behind
    kept.close()


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    for _ in sort(range(100, 0, -1), int, tmp_path, at_once=10):
        break
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files")
def test_any_size_is_sorted_with_few_open_files(tmp_path: Path) -> None:
    numbers = [n * 7919 % 5000 for n in range(5000)]
    before = len(os.listdir("/proc/self/fd"))
    most, found = 0, []
    for number in sort(numbers, int, tmp_path, at_once=1):
        most = max(most, len(os.listdir("/proc/self/fd")) - before) if number % 100 == 0 else most
        found.append(number)
    assert found == sorted(numbers)
    assert 0 < most < 100
    assert len(os.listdir("/proc/self/fd")) == before
