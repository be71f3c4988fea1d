"""`tiny`: a small Llama-architecture policy run by numpy in this process, with token ids and log probabilities.

`tiny` is the checkpoint that comes with the package (`policy/`, made by `scripts/train_tiny.py`), `tiny:DIR` any directory
in Hugging Face format. It stands in for an inference server wherever there is none.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from pathlib import Path

from rollforge.models.base import Model, ModelOptions, Request
from rollforge.models.tiny.chat import ChatFormat
from rollforge.models.tiny.checkpoint import Checkpoint, read_checkpoint
from rollforge.models.tiny.engine import Completion, Engine
from rollforge.models.tiny.sampling import read_sampling
from rollforge.records.chat import params_from_chat
from rollforge.records.items import Json, Response

SHIPPED = Path(__file__).parent / "policy"


def load(name: str | None, options: ModelOptions) -> Model:
    """The shipped checkpoint, or the one in the directory `name`. Raises `UserError` if it cannot be used."""
    checkpoint = read_checkpoint(Path(name).expanduser() if name else SHIPPED)
    return Tiny(checkpoint, f"tiny:{checkpoint.name}" if name else "tiny", options.call_seconds)


class Tiny:
    """The model: owns an engine, and its thread from the first call until `aclose()`."""

    keeps_deadline = True

    def __init__(self, checkpoint: Checkpoint, name: str, seconds: float) -> None:
        self.name = name
        self._seconds = seconds
        self._defaults = checkpoint.defaults
        self._chat = ChatFormat(
            checkpoint.template,
            checkpoint.tokenizer,
            checkpoint.special_tokens,
            checkpoint.eos_ids,
            checkpoint.model.config.vocab,
        )
        self._engine = Engine(checkpoint.model, checkpoint.tokenizer, checkpoint.eos_ids)

    async def __call__(self, request: Request, /) -> Response:
        params = request.params
        prompt = self._chat.prompt_ids(params)
        sampling = read_sampling(params, self._defaults)
        given = params.get("seed")
        seed = given if isinstance(given, int) else request.seed
        completion = await self._engine.generate(prompt, sampling, seed=seed % 2**63, seconds=self._seconds)
        # Named by its content: the same run gives the same rows, and no two calls of a conversation share a name.
        name = hashlib.sha256(repr((request.rollout, seed, prompt)).encode()).hexdigest()[:16]
        output = self._chat.items(completion.text, params, name)
        cut = completion.finish == "length"
        if cut and output[-1]["type"] != "reasoning":
            output[-1]["status"] = "incomplete"
        output[-1] |= _token_fields(prompt, completion)
        return {
            "id": f"resp_{name}",
            "object": "response",
            "created_at": time.time(),
            "model": self.name,
            "status": "incomplete" if cut else "completed",
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "output": output,
            "usage": {
                "input_tokens": len(prompt),
                # What the engine happened to remember is a matter of timing; rows must not depend on it.
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens": len(completion.ids),
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": len(prompt) + len(completion.ids),
            },
        }

    async def tokenize(self, body: Json) -> list[int]:
        """The ids of `prompt`, or of chat `messages` (and `tools`) as the chat template writes them."""
        if isinstance(body.get("prompt"), str):
            return self._chat.encode(body["prompt"])
        return self._chat.prompt_ids(params_from_chat(body))

    async def aclose(self) -> None:
        await asyncio.to_thread(self._engine.close)


def _token_fields(prompt: list[int], completion: Completion) -> Json:
    """All three or none: nothing was generated where the prompt filled the context."""
    if not completion.ids:
        return {}
    return {
        "prompt_token_ids": prompt,
        "generation_token_ids": completion.ids,
        "generation_log_probs": completion.log_probs,
    }
