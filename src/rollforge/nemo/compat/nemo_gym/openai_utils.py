"""The types of requests and answers, and a small client for endpoints that speak OpenAI's APIs."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import ClientResponse
from pydantic import BaseModel, Field

from ._chat import *  # noqa: F403
from ._items import *  # noqa: F403
from .server_utils import get_response_json, raise_for_status, request

RATE_LIMIT_ERROR_CODES = [429, 502, 503, 504, 520]
RETRY_ERROR_CODES = [*RATE_LIMIT_ERROR_CODES, 500]

_TRIES = 6
"""Ever longer pauses between them, half a minute in all; an endpoint that is down for longer is reported."""


class NeMoGymAsyncOpenAI(BaseModel):
    base_url: str
    api_key: str = Field(repr=False)
    internal: bool = False
    default_headers: dict[str, str] = Field(default_factory=dict, repr=False)

    async def create_models(self) -> Any:
        return await self._json("GET", f"{self.base_url}/models")

    async def create_chat_completion(self, **kwargs: Any) -> Any:
        return await self._json("POST", f"{self.base_url}/chat/completions", kwargs)

    async def create_completion(self, **kwargs: Any) -> Any:
        return await self._json("POST", f"{self.base_url}/completions", kwargs)

    async def create_response(self, **kwargs: Any) -> Any:
        return await self._json("POST", f"{self.base_url}/responses", kwargs)

    async def create_tokenize(self, **kwargs: Any) -> Any:
        return await self._json("POST", f"{self.base_url.removesuffix('/v1')}/tokenize", kwargs)

    async def _json(self, method: str, url: str, body: dict[str, Any] | None = None) -> Any:
        response = await self._request(method=method, url=url, **({} if body is None else {"json": body}))
        await raise_for_status(response)
        return await get_response_json(response)

    async def _request(self, **kwargs: Any) -> ClientResponse:
        headers = {**self.default_headers, "Authorization": f"Bearer {self.api_key}"}
        for attempt in range(_TRIES):
            response = await request(headers=headers, **kwargs)
            if response.status not in RETRY_ERROR_CODES or attempt == _TRIES - 1:
                break
            response.release()
            await asyncio.sleep(2**attempt)
        return response
