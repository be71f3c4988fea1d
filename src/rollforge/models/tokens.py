"""A model by its tokens: whatever continues token ids (an engine of this process, a trainer's own sampler) as a `Model`
with token ids and log probabilities, by way of a chat format."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from rollforge.errors import UnknownParameter
from rollforge.models.base import Request
from rollforge.models.chat_format import ChatFormat
from rollforge.records.chat import params_from_chat
from rollforge.records.items import Json, Response, input_items

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


@dataclass(frozen=True, slots=True)
class Completion:
    ids: list[int]
    """With the token that ended it."""
    log_probs: list[float]
    """Of the model itself (temperature 1, nothing filtered), whatever the sampling: what a trainer recomputes."""
    text: str
    """Without the ending token or stop text; special tokens inside are kept."""
    finish: Literal["stop", "length"]


def completed(
    ids: list[int],
    log_probs: list[float],
    sampling: Sampling,
    *,
    limit: int,
    eos: frozenset[int],
    decode: Callable[[list[int]], str],
) -> Completion | None:
    """What was generated, once it has ended; None while it goes on."""
    if ids[-1] in eos:
        return Completion(ids, log_probs, decode(ids[:-1]), "stop")
    if sampling.stop:
        # Bytes may be tokens of their own, four to a character: a text that has just ended lies within so many.
        tail = decode(ids[-4 * max(map(len, sampling.stop)) - 8 :])
        if any(stop in tail for stop in sampling.stop):
            text = decode(ids)
            places = [place for place in map(text.find, sampling.stop) if place >= 0]
            if places:
                return Completion(ids, log_probs, text[: min(places)], "stop")
    return Completion(ids, log_probs, decode(ids), "length") if len(ids) >= limit else None


class Generate(Protocol):
    async def __call__(self, prompt: list[int], sampling: Sampling, /, *, seed: int, seconds: float) -> Completion:
        """Raises `DeadlineExceeded` after `seconds`, `InfraFault` when this call failed, `SetupError` when all would. A
        prompt that leaves no room gets an empty completion with finish "length"."""
        ...


class TokenModel:
    """The model `name`: renders a conversation, has it continued, reads what was said. Later turns are prompted with the
    tokens of the earlier ones as they were generated (see `ChatFormat`)."""

    keeps_deadline = True

    def __init__(
        self,
        name: str,
        chat: ChatFormat,
        generate: Generate,
        *,
        defaults: Mapping[str, Any] | None = None,
        seconds: float = 600,
    ) -> None:
        self.name = name
        self._chat = chat
        self._generate = generate
        self._defaults = defaults or {}
        self._seconds = seconds

    async def __call__(self, request: Request, /) -> Response:
        params = request.params
        prompt = self._chat.prompt_ids(params)
        sampling = read_sampling(params, self._defaults, self.name)
        given = params.get("seed")
        seed = given if isinstance(given, int) else request.seed
        completion = await self._generate(prompt, sampling, seed=seed % 2**63, seconds=self._seconds)
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
                # What an engine happened to remember is a matter of timing; rows must not depend on it.
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens": len(completion.ids),
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": len(prompt) + len(completion.ids),
            },
        }

    async def tokenize(self, body: Json) -> list[int]:
        """The ids of `prompt`, or of chat `messages` (and `tools`) as the chat template writes them, with the opening of an
        answer unless `add_generation_prompt` is false."""
        if isinstance(body.get("prompt"), str):
            return self._chat.encode(body["prompt"])
        params = params_from_chat(body)
        if body.get("add_generation_prompt") is False:
            return self._chat.encode(self._chat.render(params, input_items(params), generation=False))
        return self._chat.prompt_ids(params)


def read_sampling(params: Mapping[str, Any], defaults: Mapping[str, Any], model: str) -> Sampling:
    """What the request says, then what holds by default (`generation_config.json`, its names). Raises `SetupError` for an
    impossible value, and for a parameter that would be ignored."""
    for name, neutral in UNSUPPORTED.items():
        if params.get(name) not in (None, neutral):
            what = f"{model} does not know the sampling parameter {name} (here {params[name]!r}); leave it out"
            raise UnknownParameter(what, name)

    def number(name: str, fallback: float, low: float, high: float = float("inf")) -> float:
        value = params.get(name)
        value = defaults.get(name) if value is None else value
        value = fallback if value is None else value
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            limits = f"from {low:g} to {high:g}" if high < float("inf") else f"of at least {low:g}"
            raise UnknownParameter(f"{name} is {value!r}, not a number {limits}", name)
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


def _token_fields(prompt: list[int], completion: Completion) -> Json:
    """All three or none: nothing was generated where the prompt filled the context."""
    if not completion.ids:
        return {}
    return {
        "prompt_token_ids": prompt,
        "generation_token_ids": completion.ids,
        "generation_log_probs": completion.log_probs,
    }
