"""Generation by a model of transformers for many callers at once: continuous batching in one worker thread.

    event loop                                   worker thread
    generate() -- queue, then awaits a future -> prefill those that wait together; draw a token for each; join the others
                                                 step all of them; draw; finished ones leave
               <- the future's result ---------- deliver; when nothing is left, first put the model back in its mode
    cancelled or out of time: the future is cancelled; the worker drops the row at its next step

The model may belong to somebody who trains it: it is in evaluation mode, without gradients, while there are calls, and as
it was before the last of them gets its answer. A draw depends on its own seed and, as far as float32 is exact, on nothing
that runs beside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from rollforge.errors import InfraFault, SetupError, UserError, short
from rollforge.models.inbox import CLOSED, Inbox, settle
from rollforge.models.tokens import Completion, Sampling, completed
from rollforge.models.torch_batch import Batch, CausalLM, Row, decode, draw, keep, merge, prefill

ROWS = 128
"""Sequences side by side."""
PREFILL = 16_384
"""Prompt tokens, padding included, of all sequences that join together."""


class TorchEngine:
    """Owns the worker thread; `close()` ends it. `tokenizer` is a fast one of transformers; `eos_ids` end an answer."""

    def __init__(
        self, model: Any, tokenizer: Any, *, eos_ids: Iterable[int], name: str = "transformers", rows: int = ROWS
    ) -> None:
        self._lm = CausalLM(model)
        self._decode = tokenizer.backend_tokenizer.decode
        self._eos = frozenset(eos_ids)
        if not self._eos:
            raise UserError(f"{name} names no eos token: no answer would end (eos_token_id in generation_config.json)")
        self._name = name
        self._rows = rows
        self._context = getattr(model.config.get_text_config(), "max_position_embeddings", None) or math.inf
        self._vocab = model.get_input_embeddings().weight.shape[0]
        self._active: list[Row] = []
        self._batches: list[Batch] = []
        """Of all that are active: one, unless caches of the architecture cannot be put side by side."""
        self._done: list[tuple[Row, Completion | Exception]] = []
        self._inbox: Inbox[Row] = Inbox(name, self._work)

    async def generate(self, prompt: list[int], sampling: Sampling, /, *, seed: int, seconds: float) -> Completion:
        """Raises `DeadlineExceeded` after `seconds`, `SetupError` if the engine is closed or the tokenizer knows more tokens
        than the model. A prompt that leaves no room in the context gets an empty completion with finish "length"."""
        if max(prompt, default=0) >= self._vocab:
            raise SetupError(
                f"{self._name}: token {max(prompt)} is not among the model's {self._vocab}: another tokenizer's"
            )
        room = self._context - len(prompt)
        limit = room if sampling.max_tokens is None else min(room, sampling.max_tokens)
        if limit <= 0 or not prompt:
            return Completion([], [], "", "length")
        row = Row(list(prompt), sampling, int(min(limit, 2**31)), seed)
        return await self._inbox.put(row, seconds)

    def close(self) -> None:
        """End the thread; calls that still wait get a `SetupError`."""
        self._inbox.close()

    def _work(self) -> None:
        while self._wait():
            with _sampling_from(self._lm):
                self._round()
                while not self._inbox.closed and (self._active or self._inbox.waiting):
                    self._deliver()
                    self._round()
            self._deliver()
        with self._inbox.wake:
            left = [*self._active, *self._inbox.waiting]
        self._done = [(row, SetupError(CLOSED)) for row in left]
        self._deliver()

    def _wait(self) -> bool:
        """Until there is something to do; False: the engine is closed."""
        with self._inbox.wake:
            while not (self._inbox.waiting or self._inbox.closed):
                self._inbox.wake.wait()
            return not self._inbox.closed

    def _deliver(self) -> None:
        done, self._done = self._done, []
        for row, outcome in done:
            settle(row.future, outcome)

    def _round(self) -> None:
        """A token for everybody, and a first one for who joins."""
        import torch

        full = False
        try:
            for batch in self._batches:
                self._draw(batch, decode(self._lm, batch))
            joining = self._admit()
            if joining:
                self._join(*prefill(self._lm, joining))
            self._batches = [batch for batch in self._batches if batch.rows]
        except torch.cuda.OutOfMemoryError:
            full = True
        except Exception as error:  # noqa: BLE001 - whoever waits must hear of it, and the thread must live on
            self._drop(InfraFault(f"{self._name} failed: {short(error)}"))
        if full:  # here, where the exception no longer holds on to the tensors
            self._shrink()

    def _admit(self) -> list[Row]:
        """As many of those that wait as there is room for."""
        joining: list[Row] = []
        texts: set[tuple[int, ...]] = set()
        longest = 0
        with self._inbox.wake:
            while self._inbox.waiting and len(self._active) < self._rows:
                row = self._inbox.waiting[0]
                text = (*row.prompt, *row.ids)
                longest = max(longest, len(text))
                if joining and longest * len(texts | {text}) > PREFILL:
                    break
                self._inbox.waiting.popleft()
                if not row.future.cancelled():
                    texts.add(text)
                    joining.append(row)
                    self._active.append(row)
        return joining

    def _join(self, batch: Batch, logits: Any) -> None:
        self._draw(batch, logits)
        if batch.rows and not (self._batches and self._batches[0].rows and merge(self._batches[0], batch)):
            self._batches.append(batch)

    def _draw(self, batch: Batch, logits: Any) -> None:
        rows = batch.rows
        ids, log_probs = draw(logits, [row.sampling for row in rows], [row.uniforms.random() for row in rows])
        staying = []
        for line, (row, id, log_prob) in enumerate(zip(rows, ids, log_probs, strict=True)):
            row.ids.append(id)
            row.log_probs.append(log_prob)
            outcome: Completion | Exception | None = completed(
                row.ids, row.log_probs, row.sampling, limit=row.limit, eos=self._eos, decode=self._text
            )
            if math.isnan(log_prob):
                outcome = InfraFault(f"{self._name} computed logits that are not finite: are the weights sound?")
            if outcome is None and not row.future.cancelled():
                staying.append(line)
                continue
            self._active.remove(row)
            if outcome is not None:
                self._done.append((row, outcome))
        keep(batch, staying)

    def _text(self, ids: list[int]) -> str:
        # Some checkpoints mark the tool call tags as special: they must not get lost here.
        text: str = self._decode(ids, skip_special_tokens=False)
        return text

    def _drop(self, error: Exception) -> None:
        self._done += [(row, error) for row in self._active]
        self._active, self._batches = [], []

    def _shrink(self) -> None:
        """Out of memory: half as many from here on. What was generated is kept; its keys and values are computed again."""
        import torch

        self._batches = []
        if len(self._active) == 1:
            (row,) = self._active
            tokens = len(row.prompt) + len(row.ids)
            self._drop(InfraFault(f"{self._name}: a single sequence of {tokens} tokens does not fit into memory"))
        else:
            self._rows = max(1, len(self._active) // 2)
            for row in self._active:
                row.rewind()
            with self._inbox.wake:
                self._inbox.waiting.extendleft(reversed(self._active))
            self._active = []
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


@contextmanager
def _sampling_from(lm: CausalLM) -> Iterator[None]:
    """Evaluation mode, no gradients; afterwards each module is in the mode that it had."""
    import torch

    trained = [module for module in lm.model.modules() if module.training]
    device = lm.device
    lm.model.eval()
    try:
        # Gradient mode and current device belong to a thread.
        with torch.no_grad(), torch.cuda.device(device) if device.type == "cuda" else nullcontext():
            yield
    finally:
        for module in trained:
            module.training = True
