"""Generation for many callers at once: continuous batching in one worker thread.

    event loop                                   worker thread
    generate() -- queue, then awaits a future -> admit: rows of the cache, keys and values known from earlier prompts
                                                 prefill the new ones together; draw a token for each
                                                 step all active ones; draw; finished ones leave, others may join
               <- the future's result ---------- deliver
    cancelled or out of time: the future is cancelled; the worker drops the sequence at its next step

The thread takes the lock only to look at the queue. A draw depends on its own seed and on nothing that runs beside it.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np
from tokenizers import Tokenizer

from rollforge.errors import InfraFault, SetupError
from rollforge.models.inbox import CLOSED, Inbox, settle
from rollforge.models.tiny.blas import use_one_thread
from rollforge.models.tiny.llama import CHUNK, Array, Cache, Ids, Llama
from rollforge.models.tiny.sampling import draw
from rollforge.models.tokens import Completion, Sampling, completed

PREFILL = 4096
"""Prompt tokens, padding included, of all sequences that join together."""


@dataclass(slots=True, eq=False)
class _Sequence:
    prompt: list[int]
    sampling: Sampling
    limit: int
    uniforms: np.random.Generator
    future: Future[Completion] = field(default_factory=Future)
    ids: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    row: int = -1
    cached: int = 0
    """How many tokens have keys and values in the cache: all but the last one drawn."""


class Engine:
    """Owns the worker thread and its cache; `close()` ends both."""

    def __init__(self, model: Llama, tokenizer: Tokenizer, eos: frozenset[int], *, rows: int = 64) -> None:
        """`rows`: sequences that are stepped side by side, at most."""
        self._model = model
        self._tokenizer = tokenizer
        self._eos = eos
        self._rows = rows
        self._known = _KnownPrefixes(model)
        self._active: list[_Sequence] = []
        self._inbox: Inbox[_Sequence] = Inbox("tiny", self._work)

    async def generate(self, prompt: Sequence[int], sampling: Sampling, /, *, seed: int, seconds: float) -> Completion:
        """Raises `DeadlineExceeded` after `seconds`, `SetupError` if the engine is closed. A prompt that leaves no room in
        the context gets an empty completion with finish "length", as from a server."""
        room = self._model.config.context - len(prompt)
        limit = room if sampling.max_tokens is None else min(room, sampling.max_tokens)
        if limit <= 0:
            return Completion([], [], "", "length")
        sequence = _Sequence(list(prompt), sampling, limit, np.random.Generator(np.random.PCG64(seed)))
        return await self._inbox.put(sequence, seconds)

    def replace(self, model: Llama) -> None:
        """Go on with other weights of the same shapes and type: what is known of prompts was computed with the old ones.
        Only while no call is under way."""
        self._model = model
        self._known = _KnownPrefixes(model)

    def close(self) -> None:
        """End the thread; calls that still wait get a `SetupError`."""
        self._inbox.close()

    def _work(self) -> None:
        use_one_thread()
        cache = Cache(self._model)
        while True:
            with self._inbox.wake:
                while not (self._inbox.waiting or self._active or self._inbox.closed):
                    self._inbox.wake.wait()
                if self._inbox.closed:
                    for sequence in (*self._inbox.waiting, *self._active):
                        settle(sequence.future, SetupError(CLOSED))
                    return
            try:
                self._leave(cache, [s for s in self._active if s.future.cancelled()])
                joining = self._admit()
                if joining:
                    self._prefill(cache, joining)
                if self._active:
                    self._decode(cache)
            except Exception as error:  # noqa: BLE001 - whoever waits must hear of it, and the thread must live on
                active, self._active = self._active, []
                for sequence in active:
                    settle(sequence.future, InfraFault(f"tiny failed: {type(error).__name__}: {error}"))

    def _admit(self) -> list[_Sequence]:
        """Take as many waiting sequences as there is room for. One whose next unknown block another is about to compute
        waits a step for it: repeats of a task come together and share their prompt."""
        joining: list[_Sequence] = []
        longest = 0
        coming: set[bytes | None] = set()
        with self._inbox.wake:
            candidates, self._inbox.waiting = self._inbox.waiting, deque()
            while candidates and len(self._active) < self._rows:
                sequence = candidates.popleft()
                if sequence.future.cancelled():
                    continue
                sequence.cached, unknown = self._known.look_up(sequence.prompt)
                if unknown is not None and unknown in coming:
                    self._inbox.waiting.append(sequence)
                    continue
                longest = max(longest, len(sequence.prompt) - sequence.cached)
                if joining and longest * (len(joining) + 1) > PREFILL:
                    self._inbox.waiting.append(sequence)
                    break
                coming.add(unknown)
                sequence.row = len(self._active)
                self._active.append(sequence)
                joining.append(sequence)
            self._inbox.waiting.extend(candidates)
        return joining

    def _prefill(self, cache: Cache, joining: list[_Sequence]) -> None:
        cache.reserve(len(self._active), max(len(s.prompt) for s in joining) + 1)
        for sequence in joining:
            self._known.load(cache, sequence.row, sequence.prompt, sequence.cached)
        logits: Array = np.zeros((len(joining), self._model.config.vocab))
        left = [i for i, _ in enumerate(joining)]
        while left:
            parts = [joining[i].prompt[joining[i].cached :][:CHUNK] for i in left]
            tokens = np.zeros((len(left), max(map(len, parts))), np.int64)
            for line, part in enumerate(parts):
                tokens[line, : len(part)] = part
            counts = np.array([len(part) for part in parts])
            rows = np.array([joining[i].row for i in left])
            starts = np.array([joining[i].cached for i in left])
            logits[left] = self._model.step(cache, rows, tokens, starts, counts)
            for i, count in zip(left, counts.tolist(), strict=True):
                joining[i].cached += count
            left = [i for i in left if joining[i].cached < len(joining[i].prompt)]
        for sequence in joining:
            self._known.store(cache, sequence.row, sequence.prompt, sequence.cached)
        self._draw(cache, joining, logits)

    def _decode(self, cache: Cache) -> None:
        active = self._active
        tokens: Ids = np.array([[s.ids[-1]] for s in active])
        starts: Ids = np.array([s.cached for s in active])
        logits = self._model.step(cache, slice(0, len(active)), tokens, starts, np.ones(len(active), np.int64))
        for sequence in active:
            sequence.cached += 1
        self._draw(cache, list(active), logits)

    def _draw(self, cache: Cache, sequences: list[_Sequence], logits: Array) -> None:
        usable = np.isfinite(logits.sum(-1))
        uniforms = np.array([s.uniforms.random() for s in sequences])
        ids, log_probs = draw(np.where(usable[:, None], logits, 0.0), [s.sampling for s in sequences], uniforms)
        done = []
        for sequence, fine, id, log_prob in zip(sequences, usable, ids, log_probs, strict=True):
            sequence.ids.append(id)
            sequence.log_probs.append(log_prob)
            if fine:
                completion = completed(
                    sequence.ids,
                    sequence.log_probs,
                    sequence.sampling,
                    limit=sequence.limit,
                    eos=self._eos,
                    decode=self._text,
                )
                if completion is None:
                    continue
                settle(sequence.future, completion)
            else:
                settle(sequence.future, InfraFault("tiny computed logits that are not finite: are the weights sound?"))
            done.append(sequence)
        self._leave(cache, done)

    def _text(self, ids: list[int]) -> str:
        # Some checkpoints mark the tool call tags as special: they must not get lost here.
        return self._tokenizer.decode(ids, skip_special_tokens=False)

    def _leave(self, cache: Cache, leaving: list[_Sequence]) -> None:
        """Free the rows, remember what the next turn will begin with, and keep the active rows without holes."""
        for sequence in leaving:
            self._known.store(cache, sequence.row, [*sequence.prompt, *sequence.ids], sequence.cached)
            last = self._active.pop()
            if last is not sequence:
                cache.move(last.row, sequence.row, last.cached)
                last.row = sequence.row
                self._active[last.row] = last


class _KnownPrefixes:
    """Keys and values of recent prompts by blocks of tokens, each under the whole prefix that ends with it."""

    BLOCK = 16
    BYTES = 64 * 2**20
    """At most so much is kept: the longest unused goes first."""

    def __init__(self, model: Llama) -> None:
        config, size = model.config, model.embedding.dtype.itemsize
        self._blocks: OrderedDict[bytes, tuple[Array, Array]] = OrderedDict()
        self._most = self.BYTES // (2 * size * self.BLOCK * config.layers * config.kv_heads * config.head_dim)

    def look_up(self, ids: list[int]) -> tuple[int, bytes | None]:
        """How many leading tokens are known (never the last one: its logits are wanted), and the first unknown block."""
        for end in range(self.BLOCK, len(ids), self.BLOCK):
            key = _key(ids, end)
            if key not in self._blocks:
                return end - self.BLOCK, key
        return (len(ids) - 1) // self.BLOCK * self.BLOCK, None

    def load(self, cache: Cache, row: int, ids: list[int], count: int) -> None:
        for end in range(self.BLOCK, count + 1, self.BLOCK):
            key = _key(ids, end)
            self._blocks.move_to_end(key)
            keys, values = self._blocks[key]
            cache.keys[:, row, :, end - self.BLOCK : end] = keys
            cache.values[:, row, :, end - self.BLOCK : end] = values

    def store(self, cache: Cache, row: int, ids: list[int], count: int) -> None:
        for end in range(self.BLOCK, count + 1, self.BLOCK):
            key = _key(ids, end)
            if key not in self._blocks:
                part = slice(end - self.BLOCK, end)
                self._blocks[key] = cache.keys[:, row, :, part].copy(), cache.values[:, row, :, part].copy()
        while len(self._blocks) > self._most:
            self._blocks.popitem(last=False)


def _key(ids: list[int], end: int) -> bytes:
    return np.array(ids[:end], np.int32).tobytes()
