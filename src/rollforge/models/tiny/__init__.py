"""`tiny`: a small Llama-architecture policy run by numpy in this process, with token ids and log probabilities.

`tiny` is the checkpoint that comes with the package (`policy/`, made by `scripts/train_tiny.py`), `tiny:DIR` any directory
in Hugging Face format. It stands in for an inference server wherever there is none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from rollforge.models.base import Model, ModelOptions
from rollforge.models.template import SHIPPED as SHIPPED
from rollforge.models.tiny.checkpoint import Checkpoint, read_checkpoint
from rollforge.models.tiny.engine import Engine
from rollforge.models.tiny.llama import Array
from rollforge.models.tokens import TokenModel


def load(name: str | None, options: ModelOptions) -> Model:
    """The shipped checkpoint, or the one in the directory `name`. Raises `UserError` if it cannot be used."""
    checkpoint = read_checkpoint(Path(name).expanduser() if name else SHIPPED)
    return Tiny(checkpoint, f"tiny:{checkpoint.name}" if name else "tiny", options.call_seconds)


class Tiny(TokenModel):
    """The model: owns an engine, and its thread from the first call until `aclose()`."""

    def __init__(self, checkpoint: Checkpoint, name: str, seconds: float, *, rows: int = 64) -> None:
        """`rows`: sequences that are generated side by side, at most."""
        self._checkpoint = checkpoint
        self._engine = Engine(checkpoint.model, checkpoint.tokenizer, checkpoint.eos_ids, rows=rows)
        super().__init__(name, checkpoint.chat(), self._engine.generate, defaults=checkpoint.defaults, seconds=seconds)

    def load_weights(self, weights: Mapping[str, Array]) -> None:
        """Go on with other weights of the same shapes, by the names of the checkpoint's tensors. Only while no call is
        under way. Raises `UserError` if one is missing or of another shape."""
        self._engine.replace(self._checkpoint.model_of(weights))

    async def aclose(self) -> None:
        await asyncio.to_thread(self._engine.close)
