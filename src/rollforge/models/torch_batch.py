"""Sequences that a causal language model of transformers continues side by side: left padding, one cache for all of them.

torch and transformers are imported inside functions: this module can be imported without them.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rollforge.errors import UserError
from rollforge.models.tokens import Completion, Sampling


@dataclass(slots=True, eq=False)
class Row:
    """One sequence while it is generated."""

    prompt: list[int]
    sampling: Sampling
    limit: int
    """Tokens it may have."""
    seed: int
    future: Future[Completion] = field(default_factory=Future)
    ids: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    uniforms: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self.rewind()

    def rewind(self) -> None:
        """Draw what comes after `ids` again in the same way."""
        # One number per token.
        self.uniforms = np.random.Generator(np.random.PCG64(self.seed).advance(len(self.ids)))


class CausalLM:
    """What of a model's forward pass is used here, for every architecture in the same way."""

    def __init__(self, model: Any) -> None:
        """Raises `UserError` for a model that keeps no cache of the common kind."""
        # An adapter's own forward passes on whatever it is given.
        inner = model.get_base_model() if hasattr(model, "get_base_model") else model
        known = inspect.signature(type(inner).forward).parameters  # that of the object may be wrapped by a trainer
        if "past_key_values" not in known:
            raise UserError(
                f"{type(inner).__name__} takes no past_key_values: no causal language model that can be continued"
            )
        self.model = model
        self._config = inner.config
        self._positions = "position_ids" in known
        # The logits of a whole prompt can be larger than the model.
        self._options = {"logits_to_keep": 1} if "logits_to_keep" in known else {}

    @property
    def device(self) -> Any:
        return next(self.model.parameters()).device

    def new_cache(self) -> Any:
        from transformers import DynamicCache

        return DynamicCache(config=self._config)

    def __call__(self, tokens: Any, mask: Any, cache: Any) -> Any:
        """The logits [rows, vocabulary] after the last of `tokens` [rows, new]; `mask` [rows, all] covers the cache, too."""
        options = dict(self._options)
        if self._positions:
            options["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
        output = self.model(input_ids=tokens, attention_mask=mask, past_key_values=cache, use_cache=True, **options)
        return output.logits[:, -1]


@dataclass(slots=True)
class Batch:
    rows: list[Row]
    cache: Any
    mask: Any
    """[rows, length]: 1 where the cache holds a token, 0 for padding, which is on the left."""


def prefill(lm: CausalLM, rows: list[Row]) -> tuple[Batch, Any]:
    """Take prompts (and what has been generated already) in; the logits of the next token of each. Equal ones, repeats of a
    task, are computed once."""
    import torch

    texts = [(*row.prompt, *row.ids) for row in rows]
    distinct = {text: line for line, text in enumerate(dict.fromkeys(texts))}
    length = max(map(len, distinct))
    tokens = torch.zeros((len(distinct), length), dtype=torch.long)
    mask = torch.zeros_like(tokens)
    for text, line in distinct.items():
        tokens[line, length - len(text) :] = torch.tensor(text)
        mask[line, length - len(text) :] = 1
    batch = Batch(rows, lm.new_cache(), mask.to(lm.device))
    logits = lm(tokens.to(lm.device), batch.mask, batch.cache)
    if len(distinct) < len(rows):
        lines = torch.tensor([distinct[text] for text in texts], device=lm.device)
        batch.cache.reorder_cache(lines)
        batch.mask, logits = batch.mask[lines], logits[lines]
    return batch, logits


def decode(lm: CausalLM, batch: Batch) -> Any:
    """Take the last token of each row in; the logits of the next one."""
    import torch

    tokens = torch.tensor([row.ids[-1:] for row in batch.rows], device=lm.device)
    batch.mask = torch.cat([batch.mask, torch.ones_like(tokens)], dim=1)
    return lm(tokens, batch.mask, batch.cache)


def keep(batch: Batch, lines: Sequence[int]) -> None:
    """Go on with these rows only, without padding that none of them needs."""
    import torch

    if len(lines) == len(batch.rows):
        return
    batch.rows = [batch.rows[line] for line in lines]
    if not lines:
        return
    kept = torch.tensor(lines, device=batch.mask.device)
    batch.cache.reorder_cache(kept)
    batch.mask = batch.mask[kept]
    length = int(batch.mask.sum(-1).max())
    if length < batch.mask.shape[1] and _plain(batch.cache):
        batch.mask = batch.mask[:, -length:]
        for layer in _filled(batch.cache):
            layer.keys, layer.values = layer.keys[:, :, -length:], layer.values[:, :, -length:]
            _count(layer, length)


def merge(batch: Batch, other: Batch) -> bool:
    """Take the rows of `other` in; False if caches of this architecture cannot be put side by side."""
    import torch
    from torch.nn.functional import pad

    if not (_plain(batch.cache) and _plain(other.cache)):
        return False
    length = max(batch.mask.shape[1], other.mask.shape[1])
    for one, two in zip(_filled(batch.cache), _filled(other.cache), strict=True):
        wide = max(one.keys.shape[-2], two.keys.shape[-2])

        def both(a: Any, b: Any, wide: int = wide) -> Any:
            return torch.cat([pad(part, (0, 0, wide - part.shape[-2], 0)) for part in (a, b)])

        one.keys, one.values = both(one.keys, two.keys), both(one.values, two.values)
        _count(one, length)
    batch.mask = torch.cat([pad(part.mask, (length - part.mask.shape[1], 0)) for part in (batch, other)])
    batch.rows = [*batch.rows, *other.rows]
    return True


def _plain(cache: Any) -> bool:
    """Whether all that is remembered are keys and values by position: no recurrent or convolution states."""
    from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

    known = (DynamicLayer, DynamicSlidingWindowLayer)
    return all(type(layer) in known or _shares(layer) for layer in cache.layers)


def _shares(layer: Any) -> bool:
    """Whether the layer uses the keys of another, and has nothing of its own."""
    return not hasattr(layer, "conv_states") and layer.keys is None


def _filled(cache: Any) -> list[Any]:
    return [layer for layer in cache.layers if not _shares(layer)]


def _count(layer: Any, length: int) -> None:
    """A layer with a sliding window counts what it has seen; what it holds is the last of it."""
    if hasattr(layer, "cumulative_length"):
        layer.cumulative_length = length


def draw(logits: Any, settings: Sequence[Sampling], uniforms: Sequence[float]) -> tuple[list[int], list[float]]:
    """One token for each row of `logits`, as `tiny` draws: by inverting the distribution at a number in [0, 1).

    The log probabilities are the model's own (temperature 1, nothing filtered), in float32; NaN where the logits are no
    numbers.
    """
    import torch

    log_probs = torch.log_softmax(logits.float(), -1)
    best = log_probs.argmax(-1)
    temperatures = torch.tensor([s.temperature for s in settings], dtype=torch.float64, device=logits.device)
    ids = best
    if any(s.temperature > 0 for s in settings):
        warm = temperatures > 0
        weights = (log_probs - log_probs.max(-1, keepdim=True).values).double()
        weights = torch.exp(weights / torch.where(warm, temperatures, 1.0)[:, None])
        lines = [line for line, s in enumerate(settings) if s.filtered and s.temperature > 0]
        if lines:
            weights[lines] = _filtered(weights[lines], [settings[line] for line in lines])
        cumulative = weights.cumsum(-1)
        at = torch.tensor(uniforms, dtype=torch.float64, device=logits.device)[:, None] * cumulative[:, -1:]
        # The first token whose interval contains the number; one without weight has an empty interval and is never drawn.
        drawn = torch.searchsorted(cumulative, at, right=True)[:, 0].clamp(max=logits.shape[-1] - 1)
        ids = torch.where(warm, drawn, best)
    chosen = log_probs.gather(-1, ids[:, None])[:, 0]
    # One number that is none makes the whole row so.
    return ids.tolist(), [round(value, 6) for value in chosen.tolist()]


def _filtered(weights: Any, settings: Sequence[Sampling]) -> Any:
    """Top-k, then top-p among what is left, then min-p, in the order of vLLM and transformers."""
    import torch

    def column(values: list[float]) -> Any:
        return torch.tensor(values, dtype=torch.float64, device=weights.device)[:, None]

    ranked, order = weights.sort(dim=-1, descending=True, stable=True)
    size = weights.shape[-1]
    ranks = torch.arange(size, device=weights.device)
    ranked[ranks >= column([s.top_k or size for s in settings])] = 0.0
    share = ranked / ranked.sum(-1, keepdim=True)
    before = share.cumsum(-1) - share
    ranked[before >= column([max(s.top_p, 1e-12) for s in settings])] = 0.0
    ranked[share < column([s.min_p for s in settings]) * share[:, :1]] = 0.0
    return torch.zeros_like(weights).scatter(-1, order, ranked)
