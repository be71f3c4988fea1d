"""Extraction in several steps: find the term that a question is about, ask for the value of each of its synonyms, hand the
values in, in the order of the list. Rows of NeMo Gym's `example_multi_step` (multineedle) work as they are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rollforge.envs.decorate import env
from rollforge.envs.multi_step.tasks import tasks
from rollforge.errors import VerifierFault
from rollforge.models.base import Solution

STORED = 64
"""Values that a verdict names."""


@env(name="multi_step", tasks=tasks, inline=True)
class multi_step:
    """Look up several values with one tool, and hand them in with another."""

    def reset(self, values: Mapping[str, int] | None = None) -> None:
        self.values = values
        self.extracted: list[int] = []

    def get_synonym_value(self, synonym: str) -> dict[str, int]:
        """Get the value of a synonym.

        Args:
            synonym: the synonym, as the list has it.
        """
        if self.values is None:
            # NeMo Gym's rows have no values; theirs is the sum of the code points.
            return {"synonym_value": sum(map(ord, synonym))}
        if synonym not in self.values:
            raise ValueError(f"no value for {synonym!r}")
        return {"synonym_value": self.values[synonym]}

    def extract_synonym_values(self, synonym_values: list[int]) -> dict[str, bool]:
        """Hand in the values of the synonyms of the term that the question is about. The last call counts.

        Args:
            synonym_values: the values, in the order of the list.
        """
        self.extracted = synonym_values
        return {"success": True}

    def verify(self, expected_synonym_values: list[int], minefield_label_value: int | None = None) -> dict[str, Any]:
        """1 if exactly the expected values were handed in, in their order, else 0."""
        if not expected_synonym_values:
            raise VerifierFault("the row has no expected_synonym_values")
        expected, found = set(expected_synonym_values), set(self.extracted)
        right = self.extracted == expected_synonym_values
        overlap = len(expected & found) / len(expected)
        return {
            "reward": float(right),
            "parsed_synonym_values": self.extracted[:STORED],
            "accuracy": right,
            "set_overlap": overlap,
            "original_term_minefield_hit": minefield_label_value in found,
            "order_instruction_following_failure": not right and overlap == 1.0,
        }

    def solve(self, expected_synonyms: Sequence[str]) -> Solution:
        values = []
        for synonym in expected_synonyms:
            values.append(json.loads((yield "get_synonym_value", {"synonym": synonym}))["synonym_value"])
        yield "extract_synonym_values", {"synonym_values": values}
        return f"The values are {values}."
