"""The multi_step environment: what was handed in last, and how far off it was."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rollforge.envs.base import ToolCall
from rollforge.envs.multi_step import multi_step
from rollforge.errors import VerifierFault
from tests.envs.drive import attempt, solved, task, tasks_of

ROW = {
    "id": 0,
    "expected_synonyms": ["Blazing", "Warm"],
    "expected_synonym_values": [711, 407],
    "minefield_label": "Hot",
    "minefield_label_value": 299,
}


def extract(values: Any) -> tuple[str, dict[str, Any]]:
    return "extract_synonym_values", {"synonym_values": values}


@pytest.mark.parametrize(
    ("calls", "reward", "overlap", "mine", "disorder"),
    [
        ([extract([711, 407])], 1, 1, False, False),
        ([extract([407, 711])], 0, 1, False, True),
        ([extract([711])], 0, 0.5, False, False),
        ([extract([711, 407, 299])], 0, 1, True, True),
        ([extract([711, 711, 407])], 0, 1, False, True),
        ([extract([1]), extract([711, 407])], 1, 1, False, False),
        ([extract([711, 407]), extract([])], 0, 0, False, False),
        ([extract([711, 407]), extract("all")], 1, 1, False, False),  # an error: nothing was handed in
        ([extract(list(range(5000)))], 0, 1, True, True),
        ([extract([711.5])], 0, 0, False, False),
        ([], 0, 0, False, False),
    ],
)
async def test_what_is_handed_in(calls: list[Any], reward: int, overlap: float, mine: bool, disorder: bool) -> None:
    found = await attempt(multi_step, task(**ROW), "[711, 407]", calls)
    fields = found.fields
    assert len(fields.pop("parsed_synonym_values")) <= 64
    assert (found.reward, fields) == (
        reward,
        {
            "accuracy": bool(reward),
            "set_overlap": overlap,
            "original_term_minefield_hit": mine,
            "order_instruction_following_failure": disorder,
        },
    )


async def test_rows_of_nemo_gym_have_no_values() -> None:
    async with multi_step.open(task(**ROW)) as session:
        for name, value in zip(("Blazing", "Warm", "Hot"), (711, 407, 299), strict=True):
            output = await session.call(ToolCall("get_synonym_value", {"synonym": name}))
            assert json.loads(output.text) == {"synonym_value": value}
    assert (await solved(multi_step, task(**ROW))).reward == 1


async def test_own_rows_have_values_that_nobody_can_compute() -> None:
    async with multi_step.open(task(**ROW, values={"Blazing": 5})) as session:
        assert (await session.call(ToolCall("get_synonym_value", {"synonym": "Blazing"}))).text == '{"synonym_value":5}'
        assert (await session.call(ToolCall("get_synonym_value", {"synonym": "Warm"}))).error
    for one in tasks_of(multi_step, n=100):
        row = one.fields
        assert len(set(row["values"].values())) == len(row["values"])
        assert row["expected_synonym_values"] == [row["values"][name] for name in row["expected_synonyms"]]
        assert row["minefield_label_value"] not in row["expected_synonym_values"]
        rules, question = (str(item["content"]) for item in one.params["input"])
        listed = [line for line in rules.splitlines() if line.startswith(f"The term '{row['minefield_label']}'")]
        assert listed == [
            f"The term '{row['minefield_label']}' has a synonym '{name}'." for name in row["expected_synonyms"]
        ]
        assert row["minefield_label"].lower() not in question.lower().split()
        assert (await solved(multi_step, one)).reward == 1


async def test_a_row_without_expected_values_has_no_reward() -> None:
    for row in ({}, {"expected_synonym_values": []}):
        with pytest.raises(VerifierFault, match="expected_synonym_values"):
            await attempt(multi_step, task(**row))
