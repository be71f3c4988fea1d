"""Drawing the next token from logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rollforge.errors import SetupError
from rollforge.models.tiny.llama import Array

UNSUPPORTED = {"frequency_penalty": 0, "logit_bias": {}, "presence_penalty": 0, "repetition_penalty": 1, "top_logprobs": 0}
"""Parameters that would change an answer and are not implemented, with the value that means nothing."""


@dataclass(frozen=True, slots=True)
class Sampling:
    temperature: float = 1.0
    """0 takes the likeliest token."""
    top_p: float = 1.0
    top_k: int = 0
    """0: all tokens."""
    min_p: float = 0.0
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()

    @property
    def filtered(self) -> bool:
        return self.top_p < 1.0 or self.top_k > 0 or self.min_p > 0.0


def read_sampling(params: Mapping[str, Any], defaults: Mapping[str, Any]) -> Sampling:
    """What the request says, then the checkpoint's `generation_config.json`. Raises `SetupError` for an impossible value."""
    for name, neutral in UNSUPPORTED.items():
        if params.get(name) not in (None, neutral):
            raise SetupError(f"tiny does not know the sampling parameter {name} (here {params[name]!r}); leave it out")

    def number(name: str, fallback: float, low: float, high: float = float("inf")) -> float:
        value = params.get(name)
        value = defaults.get(name) if value is None else value
        value = fallback if value is None else value
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            limits = f"from {low:g} to {high:g}" if high < float("inf") else f"of at least {low:g}"
            raise SetupError(f"{name} is {value!r}, not a number {limits}")
        return value

    stop = params.get("stop") or ()
    asked = params.get("max_output_tokens")
    limit = number("max_output_tokens", 0, 1) if asked is not None else defaults.get("max_new_tokens")
    return Sampling(
        temperature=number("temperature", 1.0, 0.0),
        top_p=number("top_p", 1.0, 0.0, 1.0),
        top_k=max(0, int(number("top_k", 0, -1))),
        min_p=number("min_p", 0.0, 0.0, 1.0),
        max_tokens=None if limit is None else int(limit),
        stop=(stop,) if isinstance(stop, str) else tuple(str(text) for text in stop if text),
    )


def draw(logits: Array, settings: Sequence[Sampling], uniforms: Array) -> tuple[list[int], list[float]]:
    """One token for each row of `logits` [n, vocab], by inverting the distribution at its uniform number in [0, 1).

    The log probabilities are those of the model itself (temperature 1, nothing filtered), whatever the sampling: what vLLM
    reports and what a trainer recomputes. They are rounded to six decimals, far above the differences that batching makes.
    """
    shifted = logits - logits.max(-1, keepdims=True)
    log_probs = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    temperatures = np.array([s.temperature for s in settings])
    weights = np.exp(shifted / np.where(temperatures > 0, temperatures, 1.0)[:, None])
    for row, setting in enumerate(settings):
        if setting.filtered and setting.temperature > 0:
            weights[row] = _filtered(weights[row], setting)
    cumulative = weights.cumsum(-1)
    # The first token whose interval contains the number; one without weight has an empty interval and is never drawn.
    drawn = (cumulative <= uniforms[:, None] * cumulative[:, -1:]).sum(-1)
    ids = np.where(temperatures > 0, np.minimum(drawn, logits.shape[-1] - 1), logits.argmax(-1))
    chosen = np.round(log_probs[np.arange(len(ids)), ids], 6)
    return ids.tolist(), chosen.tolist()


def _filtered(weights: Array, setting: Sampling) -> Array:
    """Top-k, then top-p among what is left, then min-p, in the order of vLLM and transformers."""
    order = np.argsort(-weights, kind="stable")
    ranked = weights[order]
    if 0 < setting.top_k < len(ranked):
        ranked[setting.top_k :] = 0.0
    share = ranked / ranked.sum()
    ranked[np.cumsum(share) - share >= max(setting.top_p, 1e-12)] = 0.0
    ranked[share < setting.min_p * share[0]] = 0.0
    kept = np.zeros_like(weights)
    kept[order] = ranked
    return kept
