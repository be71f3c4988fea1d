"""Model servers of a configuration as models of this package: no server of their own, no converter of their own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

from rollforge.errors import UserError, unknown
from rollforge.models.base import Model, ModelOptions, Request
from rollforge.models.load import load_model
from rollforge.nemo.builtin import MODELS
from rollforge.nemo.config import Server
from rollforge.records.items import Item, Json, Response, input_items, mapping
from rollforge.records.lossless import loads

KEY = "POLICY_API_KEY"
"""The variable that messages name where a key is needed."""
ANYWHERE = ("entrypoint", "host", "port", "num_workers", "name", "description", "domain", "verified", "value")
"""Keys that any server may have, and that need nothing here."""
AUTOMATIC = (
    *(
        "uses_reasoning_parser",
        "uses_interleaved_reasoning",
        "preserve_reasoning_in_assistant_content",
        "render_chat_template",
    ),
    *("sequential_reasoning_allowed", "request_prompt_and_generation_token_ids", "tokenizer"),
)
"""Keys about what the backends here find out themselves."""
UNDERSTOOD = (
    *("openai_base_url", "openai_api_key", "openai_model", "openai_default_headers", "base_url", "api_key", "model"),
    *("default_headers", "default_query", "extra_body", "chat_template_kwargs", "sampling_overrides", "is_responses_native"),
    *("return_token_id_information", "drop_input_reasoning_items", "replace_developer_role_with_system"),
    *("num_concurrent_requests", "max_concurrent_requests"),
)


def model_of(server: Server, options: ModelOptions) -> tuple[Model, str]:
    """The model and its name. Raises `UserError` for an implementation that is not here, or a key that is missing."""
    block = {key: value for key, value in server.block.items() if value is not None}
    if server.implementation == "rollforge":
        name = str(block.get("model") or "tiny")
        options = replace(options, base_urls=_list(block.get("base_url")), extra_body=_mapping(block, "extra_body"))
    else:
        name, options = _theirs(server, block, options)
    with _secret(block.get("openai_api_key", block.get("api_key"))) as key_env, _version(block):
        model = load_model(name, replace(options, api_key_env=key_env))
    limit = block.get("num_concurrent_requests") or block.get("max_concurrent_requests")
    return _Asked(
        model,
        pinned=_mapping(block, "sampling_overrides"),
        no_reasoning=true(block.get("drop_input_reasoning_items")),
        no_developer=true(block.get("replace_developer_role_with_system")),
        limit=asyncio.Semaphore(int(limit)) if limit else nullcontext(),
    ), name


def ignored(server: Server) -> list[str]:
    """The keys of a model server that have no effect here."""
    return [key for key in server.block if key not in (*ANYWHERE, *AUTOMATIC, *UNDERSTOOD)]


def true(value: Any) -> bool:
    """`${oc.env:NAME,false}` gives a text."""
    return value.strip().lower() in ("true", "1", "yes", "on") if isinstance(value, str) else bool(value)


def _theirs(server: Server, block: Json, options: ModelOptions) -> tuple[str, ModelOptions]:
    if server.implementation not in MODELS:
        hint = (
            f"(in {server.name}; or put its code into {server.type}/{server.implementation}/app.py; an engine such as vLLM "
            "is started on its own, and vllm_model told its address)"
        )
        raise unknown("model server", server.implementation, MODELS, hint)
    prefix = "openai_" if "openai_model" in MODELS[server.implementation] else ""
    for key in ("base_url", "model"):
        if not block.get(prefix + key):
            raise UserError(
                f"{server.name}: {prefix}{key} is not set (policy_{key}{'_name' * (key == 'model')} in env.yaml)"
            )
    backend = {"openai_model": "openai", "azure_openai_model": "azure"}.get(server.implementation, "chat")
    if server.implementation == "vllm_model":
        if true(block.get("is_responses_native")):
            backend = "openai"
        elif true(block.get("return_token_id_information")):
            backend = "vllm"
    extra = _mapping(block, "extra_body")
    if backend == "vllm":
        # The trainer's engine continues from the tokens of the turn before, if it is sent them; and it wants to be told 0.
        extra = {"send_token_ids": True, "top_logprobs": 0, **extra}
    if kwargs := _mapping(block, "chat_template_kwargs"):
        extra["chat_template_kwargs"] = kwargs
    headers = {key: str(value) for key, value in _mapping(block, f"{prefix}default_headers").items()}
    bases = _list(block[f"{prefix}base_url"])
    return f"{backend}:{block[f'{prefix}model']}", replace(options, base_urls=bases, headers=headers, extra_body=extra)


class _Asked:
    """A model as their model servers stand before it: pinned sampling, what `metadata` carries for it, a limit."""

    def __init__(
        self,
        model: Model,
        *,
        pinned: Mapping[str, Any],
        no_reasoning: bool,
        no_developer: bool,
        limit: AbstractAsyncContextManager[Any],
    ) -> None:
        self._model = model
        self._pinned = pinned
        self._no_reasoning = no_reasoning
        self._no_developer = no_developer
        self._limit = limit
        self.keeps_deadline = getattr(model, "keeps_deadline", False)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._model, name)
        return (lambda request: found(self._changed(request))) if name == "stream" else found

    async def __call__(self, request: Request, /) -> Response:
        async with self._limit:
            return await self._model(self._changed(request))

    async def aclose(self) -> None:
        if hasattr(self._model, "aclose"):
            await self._model.aclose()

    def _changed(self, request: Request) -> Request:
        params: Any = {**_unpacked(request.params), **self._pinned}
        if self._no_reasoning or self._no_developer:
            params["input"] = list(self._items(params))
        return replace(request, params=params)

    def _items(self, params: Mapping[str, Any]) -> Iterator[Item]:
        for item in input_items(params):
            if self._no_reasoning and item.get("type") == "reasoning":
                continue
            developer = self._no_developer and item.get("role") == "developer"
            yield {**item, "role": "system"} if developer else item


def _unpacked(params: Mapping[str, Any]) -> Json:
    """Parameters that the Responses API lacks travel as JSON texts in `metadata`: `extra_body`, `chat_template_kwargs`."""
    metadata = params.get("metadata")
    if not isinstance(metadata, dict) or metadata.keys().isdisjoint(("extra_body", "chat_template_kwargs")):
        return dict(params)
    rest = {key: value for key, value in metadata.items() if key not in ("extra_body", "chat_template_kwargs")}
    found = {key: value for key, value in params.items() if key != "metadata"} | ({"metadata": rest} if rest else {})
    extra, kwargs = _loaded(metadata.get("extra_body")), _loaded(metadata.get("chat_template_kwargs"))
    return {**found, **extra, **({"chat_template_kwargs": kwargs} if kwargs else {})}


def _loaded(text: Any) -> Json:
    try:
        value = loads(text) if isinstance(text, (str, bytes)) else text
    except ValueError:
        return {}
    return mapping(value)


@contextmanager
def _secret(key: Any) -> Iterator[str | None]:
    """The name of a variable that holds the key while the model is made, and is gone before anything else can read it."""
    if isinstance(key, list):
        key = key[0] if key else None
    if not key:
        yield None
        return
    with _variable(KEY, str(key)):
        yield KEY


@contextmanager
def _version(block: Json) -> Iterator[None]:
    version = _mapping(block, "default_query").get("api-version")
    with _variable("OPENAI_API_VERSION", str(version)) if version else nullcontext():
        yield


@contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _list(value: Any) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list) else (str(value),) if value else ()


def _mapping(block: Json, key: str) -> Json:
    value = block.get(key) or {}
    if not isinstance(value, dict):
        raise UserError(f"{key} is {value!r}, not keys and values")
    return dict(value)
