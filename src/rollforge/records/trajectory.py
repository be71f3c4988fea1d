"""A rollout as the tokens a trainer sees: one prompt, then what the policy chose and what it was told, with a mask.

    call 1   prompt                      generated
    call 2   prompt    = all of call 1 + told           generated
             prompt_ids | completion_ids: generated (mask 1), told (mask 0), generated (mask 1)

Contiguous or not at all: a call whose prompt does not begin with everything before it was sampled from another context than
the one a trainer would compute its gradient in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rollforge.records.items import Item, item_type, model_calls, text_of


@dataclass(frozen=True, slots=True)
class Trajectory:
    prompt_ids: list[int]
    completion_ids: list[int]
    """Everything after the prompt of the first call."""
    log_probs: list[float]
    """As the sampler reported them, one per completion token; 0 where the mask is 0."""
    mask: list[int]
    """1: the policy chose this token. 0: it was told."""
    calls: int


@dataclass(frozen=True, slots=True)
class Flaw:
    """Why a rollout cannot be trained on token by token."""

    kind: Literal["missing", "unequal", "drift"]
    """No token ids; not as many log probabilities as tokens; a prompt that does not begin with all that was seen."""
    call: int
    """0-based, among the model calls."""
    text: str


def trajectory(output: Sequence[Item]) -> Trajectory | Flaw:
    """The tokens of an output, or what is wrong with them. A call that said nothing (the context was full) may lack them."""
    prompt: list[int] | None = None
    ids: list[int] = []
    log_probs: list[float] = []
    mask: list[int] = []
    calls = 0
    for number, items in enumerate(model_calls(output)):
        last = items[-1]
        given, generated = _ids(last, "prompt_token_ids"), _ids(last, "generation_token_ids")
        if not given or not generated:
            if any(_said(item) for item in items):
                return Flaw("missing", number, f"model call {number + 1} has no token ids")
            continue
        given, chosen = last["prompt_token_ids"], _ids(last, "generation_log_probs")
        if len(chosen) != len(generated):
            return Flaw(
                "unequal", number, f"model call {number + 1}: {len(generated)} tokens, {len(chosen)} log probabilities"
            )
        if prompt is None:
            prompt = given
        else:
            seen = len(prompt) + len(ids)
            place = _first_difference([*prompt, *ids], given)
            if place is not None:
                what = f"model call {number + 1}: its prompt leaves what came before at token {place + 1} of {seen}"
                return Flaw("drift", number, what)
            told = given[seen:]
            ids += told
            log_probs += [0.0] * len(told)
            mask += [0] * len(told)
        ids += generated
        log_probs += chosen
        mask += [1] * len(generated)
        calls += 1
    if prompt is None:
        return Flaw("missing", 0, "no model call has token ids")
    return Trajectory(prompt, ids, log_probs, mask, calls)


def _ids(item: Item, key: str) -> list[int]:
    value: Any = item.get(key)
    return value if isinstance(value, list) else []


def _said(item: Item) -> bool:
    return item_type(item) != "message" or bool(text_of(item.get("content")))


def _first_difference(seen: list[int], prompt: list[int]) -> int | None:
    """Where `prompt` stops being a continuation of `seen`; None if it is one."""
    if prompt[: len(seen)] == seen:
        return None
    return next((i for i, (a, b) in enumerate(zip(seen, prompt, strict=False)) if a != b), len(prompt))
