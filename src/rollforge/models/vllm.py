"""`vllm:MODEL`: Chat Completions with the token ids and log probabilities of every call, for training.

The ids are those the engine sampled, not a second tokenisation. Servers report them in one of four ways: `token_ids` and
`prompt_token_ids` (vLLM from 0.10.2, SGLang), tokens written "token_id:N" in the log probabilities (older vLLM), `meta_info`
(SGLang), or the training fields themselves on the message (the model servers of NeMo Gym). Several base URLs are replicas; a
rollout stays with one, whose prefix cache knows its conversation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rollforge.errors import InfraFault, SetupError
from rollforge.models.base import Model, ModelOptions, Request
from rollforge.models.chat import ChatModel
from rollforge.models.dial import Target, targets
from rollforge.models.transport import BadRequest, endpoint
from rollforge.records.chat import first_choice
from rollforge.records.items import TOKEN_FIELDS, Json, Response, inside

ASK = {"logprobs": True, "return_tokens_as_token_ids": True, "return_token_ids": True}


def load(name: str | None, options: ModelOptions) -> Model:
    """`extra_body` may say `return_token_ids: false` (no ids). Raises `UserError` if nothing says where the server is."""
    where = endpoint(options, "vllm", "OPENAI_BASE_URL", "OPENAI_API_KEY")
    extra = {**ASK, **options.extra_body}
    if not extra["return_token_ids"]:
        extra = {key: value for key, value in extra.items() if key not in ASK or key in options.extra_body}
    return VllmModel(
        name,
        replace(options, extra_body=extra),
        where,
        targets(where.bases, "/chat/completions"),
        tokenize=targets([base.removesuffix("/v1") for base in where.bases], "/tokenize"),
    )


class VllmModel(ChatModel):
    def __init__(self, *args: Any, tokenize: Sequence[Target], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._tokenize = tokenize

    async def tokenize(self, body: Json) -> list[int]:
        """The ids of `prompt`, or of `messages` as the server's template writes them; keys as for its /tokenize."""
        asked = {key: body[key] for key in ("prompt", *TEMPLATE_KEYS) if body.get(key) is not None}
        return await self._ids(asked | ({"model": self._name} if self._name else {}), "")

    def _refused(self, error: BadRequest, body: Json) -> Response:
        if "token_ids" in error.text:
            raise SetupError(f"{self} knows no token ids; to go on without them: chat:{self._name}; {error}") from error
        return super()._refused(error, body)

    async def _tokens(self, completion: Json, body: Json, request: Request) -> Json | None:
        if not body.get("return_token_ids"):
            return None
        choice, message = first_choice(completion)
        try:
            ids, log_probs = _generated(choice, message), _log_probs(choice, message)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise InfraFault(f"{self} reports tokens that cannot be read ({error!r}): {str(choice)[:300]}") from error
        if ids is None:
            raise SetupError(
                f"{self} reports no token ids of what it generated (vLLM from 0.10.2 and SGLang do); "
                f"to go on without them: chat:{self._name}, or return_token_ids: false in extra_body"
            )
        if log_probs is None:
            raise SetupError(f"{self} reports no log probabilities, though the request says logprobs: true")
        if len(ids) != len(log_probs):
            raise InfraFault(f"{self} reports {len(ids)} token ids and {len(log_probs)} log probabilities for one answer")
        if not ids:
            return None
        prompt = completion.get("prompt_token_ids") or choice.get("prompt_token_ids") or message.get("prompt_token_ids")
        tokens = dict(
            zip(TOKEN_FIELDS, (prompt or await self._prompt_ids(body, request.rollout), ids, log_probs), strict=True)
        )
        if choice.get("routed_experts") is not None:
            tokens["routed_experts"] = choice["routed_experts"]
        return tokens

    async def _prompt_ids(self, body: Json, rollout: str) -> list[int]:
        """What the server's own template and tokenizer make of the conversation: it does not say so with its answer."""
        asked = {key: body[key] for key in TEMPLATE_KEYS if key in body}
        try:
            return await self._ids(asked, rollout)
        except SetupError as error:
            raise SetupError(
                f"{self} reports no token ids of the prompt, and its /tokenize does not help: {error}"
            ) from error

    async def _ids(self, asked: Json, rollout: str) -> list[int]:
        answer = await self._transport.post(self._tokenize, asked, rollout)
        tokens = answer.get("tokens") if isinstance(answer, dict) else None
        if not isinstance(tokens, list) or not tokens:
            raise InfraFault(f"{self._tokenize[0].shown} answered with no tokens: {answer!r:.200}")
        return tokens


TEMPLATE_KEYS = (
    *("model", "messages", "tools", "chat_template", "chat_template_kwargs", "add_generation_prompt"),
    *("continue_final_message", "add_special_tokens", "mm_processor_kwargs"),
)
"""What decides how the conversation becomes a prompt."""


def _generated(choice: Json, message: Json) -> list[int] | None:
    for found in (choice.get("token_ids"), message.get("generation_token_ids")):
        if isinstance(found, list):
            return found
    sampled = (choice.get("meta_info") or {}).get("output_token_logprobs")
    if isinstance(sampled, list):
        return [entry[1] for entry in sampled]
    entries = _entries(choice)
    if entries is None or not all(entry["token"].startswith("token_id:") for entry in entries):
        return None
    return [int(entry["token"][9:]) for entry in entries]


def _log_probs(choice: Json, message: Json) -> list[float] | None:
    entries = _entries(choice)
    if entries is not None:
        return [entry["logprob"] for entry in entries]
    found = message.get("generation_log_probs")
    if isinstance(found, list):
        return found
    sampled = (choice.get("meta_info") or {}).get("output_token_logprobs")
    return [entry[0] for entry in sampled] if isinstance(sampled, list) else None


def _entries(choice: Json) -> list[Json] | None:
    entries = inside(choice, "logprobs", "content")
    return entries if isinstance(entries, list) else None
