"""The environment of the benchmarks: one tool and one verifier, both on the event loop: what is measured is the engine."""

from collections.abc import Iterator
from typing import Any

import rollforge as rf
from rollforge.models.base import Solution


def rows(n: int = 100_000) -> Iterator[dict[str, Any]]:
    for number in range(n):
        yield {"prompt": f"Task {number}: what is the value of amber?", "key": "amber", "answer": "42"}


@rf.env(tasks=rows, inline=True)
class Lookup:
    def lookup(self, key: str) -> str:
        """Look up the value of a key."""
        return f"{key} = 42"

    def verify(self, reply: str, answer: str) -> float:
        return float(answer in reply)

    def solve(self, key: str) -> Solution:
        found = yield "lookup", {"key": key}
        return f"The value of {found}."
