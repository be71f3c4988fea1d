"""How large a model is, by its name."""

from __future__ import annotations

import re


def billions(model: str) -> float | None:
    """Parameters: 1.5 for `Qwen2.5-1.5B`, 56 for `Mixtral-8x7B`, 0.135 for `SmolLM2-135M`; None where no part of the name
    says. Of a path the last part that says counts: `/models/70b/Qwen2.5-7B/checkpoint-500` has 7."""
    for part in reversed(model.split("/")):
        if found := _SIZE.search(part):
            return float(found[1] or 1) * float(found[2]) / (1000 if found[3] in "mM" else 1)
    return None


_SIZE = re.compile(r"(?<![A-Za-z0-9.])(?:(\d+)x)?(\d+(?:\.\d+)?)([bBmM])(?![A-Za-z0-9])")
