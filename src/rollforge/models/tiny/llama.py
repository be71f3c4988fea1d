"""The Llama architecture in numpy: a step of many sequences at once over a shared key-value cache.

It computes in the type of its weights, float64 if nobody says otherwise. Matrix products of different shapes differ in their
last bits, so a sequence's numbers depend, by about 1e-15, on what happens to run beside it; in float32 that would change a
sampled token now and then, in float64 it does not. That is what makes a run reproducible at any concurrency. A training,
whose weights are float32 and change at every step, samples in float32: twice as fast.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.floating[Any]]
Ids: TypeAlias = NDArray[np.int64]
Linear: TypeAlias = tuple[Array, Array | None]
"""A matrix (inputs x outputs) and its bias."""

CHUNK = 256
"""Tokens of a sequence that are taken in at once; bounds the memory of a long one."""


@dataclass(frozen=True, slots=True)
class Config:
    vocab: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    context: int
    """The longest sequence, in tokens."""
    epsilon: float
    theta: float
    tied: bool


@dataclass(frozen=True, slots=True)
class Layer:
    before_attention: Array
    qkv: Linear
    out: Linear
    before_mlp: Array
    gate_up: Linear
    down: Linear


class Cache:
    """Keys and values of sequences, `[layer, row, kv head, position, dim]`; grows as needed and never shrinks."""

    def __init__(self, model: Llama) -> None:
        config = model.config
        self.keys: Array = np.zeros((config.layers, 0, config.kv_heads, 0, config.head_dim), model.embedding.dtype)
        self.values: Array = self.keys

    def reserve(self, rows: int, length: int) -> None:
        """Make room for so many sequences of such a length."""
        layers, have_rows, heads, have, dim = self.keys.shape
        if rows <= have_rows and length <= have:
            return
        rows = max(have_rows, -(-rows // 8) * 8)
        # By half at least, so that growing costs no more than the work it is for.
        length = have if length <= have else -(-max(length, have * 3 // 2) // 64) * 64
        keys, values = (np.zeros((layers, rows, heads, length, dim), self.keys.dtype) for _ in range(2))
        keys[:, :have_rows, :, :have] = self.keys
        values[:, :have_rows, :, :have] = self.values
        self.keys, self.values = keys, values

    def move(self, source: int, target: int, length: int) -> None:
        for part in (self.keys, self.values):
            part[:, target, :, :length] = part[:, source, :, :length]


@dataclass(frozen=True, slots=True)
class Llama:
    config: Config
    embedding: Array
    layers: tuple[Layer, ...]
    norm: Array
    head: Array

    def step(self, cache: Cache, rows: Ids | slice, tokens: Ids, starts: Ids, counts: Ids) -> Array:
        """Take `tokens` [n, length] of the sequences in `rows` at positions `starts`... into the cache; `counts` of them are
        real, the rest is padding. Returns the logits [n, vocab] after the last real one of each."""
        x = self._states(cache, rows, tokens, starts)
        last = x[np.arange(len(x)), counts - 1]
        return self._normed(last, self.norm) @ self.head

    def log_probs(self, tokens: Sequence[int]) -> list[float]:
        """Of each token but the first, given those before it: what a trainer's forward pass computes."""
        cache, found = Cache(self), []
        cache.reserve(1, len(tokens))
        for start in range(0, len(tokens) - 1, CHUNK):
            inside, told = tokens[start : start + CHUNK], tokens[start + 1 : start + CHUNK + 1]
            x = self._states(cache, slice(0, 1), np.array([inside]), np.array([start]))[0, : len(told)]
            logits = self._normed(x, self.norm) @ self.head
            logits -= logits.max(-1, keepdims=True)
            found += (logits[np.arange(len(told)), told] - np.log(np.exp(logits).sum(-1))).tolist()
        return found

    def _states(self, cache: Cache, rows: Ids | slice, tokens: Ids, starts: Ids) -> Array:
        """What the last layer gives at each of `tokens`, [n, length, hidden]."""
        length = tokens.shape[1]
        end = int((starts + length).max())
        cache.reserve(0, end)
        positions = starts[:, None] + np.arange(length)
        rotation = self._rotation(positions)
        # Padding writes beyond a sequence's end; what stands there is hidden by this mask until it is overwritten.
        hidden = np.arange(end) > positions[:, :, None]
        x = self.embedding[tokens]
        for number, layer in enumerate(self.layers):
            x = x + self._attention(
                layer, number, self._normed(x, layer.before_attention), cache, rows, starts, rotation, hidden
            )
            x = x + self._mlp(layer, self._normed(x, layer.before_mlp))
        return x

    def _attention(
        self,
        layer: Layer,
        number: int,
        x: Array,
        cache: Cache,
        rows: Ids | slice,
        starts: Ids,
        rotation: tuple[Array, Array],
        hidden: NDArray[np.bool_],
    ) -> Array:
        c = self.config
        n, length, _ = x.shape
        end = hidden.shape[-1]
        qkv = _linear(x, layer.qkv).reshape(n, length, c.heads + 2 * c.kv_heads, c.head_dim).transpose(0, 2, 1, 3)
        split = c.heads + c.kv_heads
        turned = _rotate(qkv[:, :split], rotation)
        indices = np.arange(cache.keys.shape[1])[rows] if isinstance(rows, slice) else rows
        at = (indices[:, None], slice(None), starts[:, None] + np.arange(length))
        # Advanced indices around a slice put the indexed axes first: [n, length, kv head, dim].
        cache.keys[number][at] = turned[:, c.heads :].transpose(0, 2, 1, 3)
        cache.values[number][at] = qkv[:, split:].transpose(0, 2, 1, 3)
        keys, values = cache.keys[number][rows][:, :, :end], cache.values[number][rows][:, :, :end]
        # Query heads of a group read the same keys: they are rows of one product.
        queries = turned[:, : c.heads].reshape(n, c.kv_heads, -1, c.head_dim)
        scores = (queries @ keys.swapaxes(-1, -2) / sqrt(c.head_dim)).reshape(n, c.kv_heads, -1, length, end)
        np.putmask(scores, np.broadcast_to(hidden[:, None, None], scores.shape), -np.inf)
        scores -= scores.max(-1, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(-1, keepdims=True)
        seen = (scores.reshape(n, c.kv_heads, -1, end) @ values).reshape(n, c.heads, length, c.head_dim)
        return _linear(seen.transpose(0, 2, 1, 3).reshape(n, length, -1), layer.out)

    def _mlp(self, layer: Layer, x: Array) -> Array:
        both = _linear(x, layer.gate_up)
        half = both.shape[-1] // 2
        gate, up = both[..., :half], both[..., half:]
        # exp overflows to inf for very negative inputs, where the quotient is the right limit: -0.
        with np.errstate(over="ignore"):
            return _linear(gate / (1.0 + np.exp(-gate)) * up, layer.down)

    def _normed(self, x: Array, weight: Array) -> Array:
        scale: Array = np.sqrt(np.square(x).mean(-1, keepdims=True) + self.config.epsilon)
        return x / scale * weight

    def _rotation(self, positions: Ids) -> tuple[Array, Array]:
        half = np.arange(0, self.config.head_dim, 2) / self.config.head_dim
        angles = positions[:, None, :, None] * self.config.theta**-half
        return np.cos(angles).astype(self.embedding.dtype), np.sin(angles).astype(self.embedding.dtype)


def _linear(x: Array, weights: Linear) -> Array:
    matrix, bias = weights
    y = (x.reshape(-1, x.shape[-1]) @ matrix).reshape(*x.shape[:-1], -1)
    return y if bias is None else y + bias


def _rotate(x: Array, rotation: tuple[Array, Array]) -> Array:
    """Rotary positions in the layout of Hugging Face checkpoints: the first half of a head pairs with the second."""
    cos, sin = rotation
    first, second = np.split(x, 2, axis=-1)
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
