"""Drawing the next token from logits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rollforge.models.tiny.llama import Array
from rollforge.models.tokens import Sampling

COLDEST = 1e-6
"""Of temperatures above 0: none below makes another choice, and some would divide to infinity."""


def draw(logits: Array, settings: Sequence[Sampling], uniforms: Array) -> tuple[list[int], list[float]]:
    """One token for each row of `logits` [n, vocab], by inverting the distribution at its uniform number in [0, 1).

    The log probabilities are those of the model itself (temperature 1, nothing filtered), whatever the sampling: what vLLM
    reports and what a trainer recomputes. They are rounded to six decimals, far above the differences that batching makes.
    """
    shifted = logits - logits.max(-1, keepdims=True)
    log_probs = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    temperatures = np.array([s.temperature for s in settings])
    weights = np.exp(shifted / np.where(temperatures > 0, np.maximum(temperatures, COLDEST), 1.0)[:, None])
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
