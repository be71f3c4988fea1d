"""Tasks of the multi_reward environment: requests that mean one call."""

from __future__ import annotations

from random import Random

from rollforge.envs.function_calling.tasks import one_call
from rollforge.envs.generate import Kinds, generated
from rollforge.records.items import Json, system, user

RULE = "You act through tools. Answer each request with exactly one tool call and no text."
WEIGHTS = {"correctness": 0.5, "schema_valid": 0.25, "format": 0.25}


@generated("multi_reward", n=60)
def tasks() -> Kinds:
    """Rows `{prompt, tools, expected_call, weights, kind, level}`. Level: how many tools there are to choose from."""
    return {"call": _call}


def _call(rng: Random, level: int) -> tuple[str, Json]:
    text, tools, call = one_call(rng, level)
    prompt = [system(RULE), user(text)]
    return text, {"prompt": prompt, "tools": tools, "expected_call": call, "weights": WEIGHTS}
