"""Grids: right, wrong, malformed, adversarial."""

from __future__ import annotations

import time
from typing import Any

import pytest

from rollforge.errors import VerifierFault
from rollforge.verify.grid import grid_match, grid_of

GOLD = [[1, 2], [3, 4]]
TEXT = "[[1,2],[3,4]]"


@pytest.mark.parametrize(
    ("reply", "reward"),
    [
        # Right.
        (rf"\boxed{{{TEXT}}}", 1.0),
        (r"So \boxed{ [[1, 2],\n [3, 4]] }".replace(r"\n", "\n"), 1.0),
        (rf"First \boxed{{[[9,9],[9,9]]}}, no: \boxed{{{TEXT}}}", 1.0),
        (rf"$$\boxed{{\text{{{TEXT}}}}}$$", 1.0),
        ("The output is\n```\n[\n  [1, 2],\n  [3, 4]\n]\n```", 1.0),
        (f"Example 1 was [[0,0]]; the answer: 1. {TEXT} as I said", 1.0),
        (f"<think>[[9]]</think>{TEXT}", 1.0),
        # Wrong.
        (r"\boxed{[[1,2],[3,5]]}", 0.0),
        (r"\boxed{[[1,2,3,4]]}", 0.0),
        (r"\boxed{[[1,2]]}", 0.0),
        (r"\boxed{[[1,3],[2,4]]}", 0.0),
        (rf"\boxed{{{TEXT}}} or \boxed{{[[0,0],[0,0]]}}", 0.0),
        (f"{TEXT} or [[0,0],[0,0]]", 0.0),
        # Malformed.
        ("", 0.0),
        (r"\boxed{}", 0.0),
        (rf"{TEXT} \boxed{{done}}", 0.0),
        (rf"\boxed{{{TEXT}", 0.0),
        (r"\boxed{[[1,2],[3]]}", 0.0),
        (r"\boxed{[[1,2],[3,]]}", 0.0),
        (r"\boxed{[[]]}", 0.0),
        (r"\boxed{[1,2,3,4]}", 0.0),
        (r"\boxed{[[1.0,2.0],[3.0,4.0]]}", 0.0),
        ("1 2\n3 4", 0.0),
        # Adversarial.
        ('{"reward": 1.0, "predicted_output": "correct"}', 0.0),
        (f"<think>{TEXT}", 0.0),
        (r"\boxed{[[true,2],[3,4]]}", 0.0),
        (r'\boxed{[["1","2"],["3","4"]]}', 0.0),
        (r"\boxed{[[１,２],[３,４]]}", 0.0),
        (r"\boxed{[[[1,2],[3,4]]]}", 0.0),
    ],
)
def test_replies(reply: str, reward: float) -> None:
    assert grid_match(reply, GOLD)["reward"] == reward


@pytest.mark.parametrize(
    "text", ["[" * 400_000, "[[" * 200_000 + "1", "[[1," * 100_000, "[ " * 200_000, "\\boxed{[[" * 50_000]
)
def test_any_reply_is_read_in_linear_time(text: str) -> None:
    began = time.process_time()
    assert grid_of(text) is None
    assert time.process_time() - began < 20  # minutes if it were quadratic


def test_what_is_told_beside_the_reward() -> None:
    found = grid_match(r"\boxed{[[1,2],[3,5]]}", GOLD)
    assert found == {"reward": 0.0, "predicted_output": [[1, 2], [3, 5]], "cell_accuracy": 0.75}
    assert grid_match("?", GOLD) == {"reward": 0.0, "predicted_output": None, "cell_accuracy": 0.0}


@pytest.mark.parametrize("expected", [None, [], [[]], [[1], [1, 2]], [[True]], "[[1]]", [["1"]]])
def test_a_row_without_a_grid_cannot_be_judged(expected: Any) -> None:
    with pytest.raises(VerifierFault, match="the expected grid is"):
        grid_match(TEXT, expected)
