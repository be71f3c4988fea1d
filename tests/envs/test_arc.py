"""ARC: rows of NeMo Gym, and rules whose examples tell what the test asks."""

from __future__ import annotations

import re
from typing import Any

import pytest

from rollforge.envs.arc import arc
from rollforge.envs.arc.rules import RULES
from rollforge.errors import VerifierFault
from rollforge.verify.grid import is_grid
from tests.envs.drive import attempt, solved, task, tasks_of

ROW: dict[str, Any] = {
    "task_id": "0a",
    "train": [{"input": [[1, 2]], "output": [[2, 1]]}],
    "test_input": [[3, 4]],
    "expected_output": [[4, 3]],
}


@pytest.mark.parametrize(("reply", "reward"), [(r"\boxed{[[4,3]]}", 1.0), (r"\boxed{[[3,4]]}", 0.0), ("", 0.0)])
async def test_rows_of_nemo_gym(reply: str, reward: float) -> None:
    found = await attempt(arc, task(**ROW), reply)
    assert found.reward == reward
    assert set(found.fields) == {"predicted_output", "cell_accuracy"}


async def test_a_row_without_an_answer_cannot_be_judged() -> None:
    for row in ({**ROW, "expected_output": []}, {"train": []}):
        with pytest.raises(VerifierFault):
            await attempt(arc, task(**row), r"\boxed{[[4,3]]}")


async def test_tasks_show_grids_and_not_the_answer() -> None:
    for one in tasks_of(arc, n=320):
        row, prompt = one.fields, str(one.params["input"])
        pairs = [*row["train"], {"input": row["test_input"], "output": row["expected_output"]}]
        assert len(pairs) == 4
        for pair in pairs:
            assert is_grid(pair["input"])
            assert is_grid(pair["output"])
            assert max(len(pair["output"]), len(pair["output"][0])) <= 30
            assert {cell for line in pair["output"] for cell in line} <= set(range(10))
        assert len({str(pair["input"]) for pair in pairs}) == 4
        shown = re.findall(r"(?:Input|Output|Test input):\\n((?:[\d ]+\\n?)+)", prompt.replace("\n", "\\n"))
        assert len(shown) == 7
        assert (await solved(arc, one)).reward == 1.0


def test_every_rule_is_asked() -> None:
    assert {one.fields["kind"] for one in tasks_of(arc, n=400)} == set(RULES)


@pytest.mark.parametrize(
    ("kind", "check"),
    [
        ("transpose", lambda a: [list(row) for row in zip(*a, strict=True)]),
        (
            "most",
            lambda a: [[c * (c == max(range(1, 10), key=[c for row in a for c in row].count)) for c in row] for row in a],
        ),
    ],
)
def test_rules_do_what_they_say(kind: str, check: Any) -> None:
    for one in tasks_of(arc, n=30, kind=kind, level="easy,medium"):
        assert check(one.fields["test_input"]) == one.fields["expected_output"]
