"""The base of model servers: Responses, Chat Completions and Messages, the last mapped through the first."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from typing import Any

from fastapi import Body as Body
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from rollforge.models.base import Request as ModelRequest
from rollforge.serve import model_app

from .config_types import BaseRunServerInstanceConfig
from .openai_utils import (
    NeMoGymChatCompletion,
    NeMoGymChatCompletionCreateParamsNonStreaming,
    NeMoGymResponse,
    NeMoGymResponseCreateParamsNonStreaming,
)
from .server_utils import BaseServer, SimpleServer


class BaseResponsesAPIModelConfig(BaseRunServerInstanceConfig): ...


class BaseResponsesAPIModel(BaseServer):
    config: BaseResponsesAPIModelConfig


class SimpleResponsesAPIModel(BaseResponsesAPIModel, SimpleServer):
    config: BaseResponsesAPIModelConfig

    def setup_webserver(self) -> FastAPI:
        app = FastAPI()
        self.setup_session_middleware(app)
        app.post("/v1/chat/completions")(self.chat_completions_dispatch)
        app.post("/v1/responses")(self.responses_dispatch)
        app.post("/v1/messages")(self.messages)
        return app

    @abstractmethod
    async def chat_completions(
        self, body: NeMoGymChatCompletionCreateParamsNonStreaming = Body()
    ) -> NeMoGymChatCompletion: ...

    @abstractmethod
    async def responses(self, body: NeMoGymResponseCreateParamsNonStreaming = Body()) -> NeMoGymResponse: ...

    async def responses_dispatch(self, request: Request, body: dict[str, Any] = Body()) -> Any:
        if body.get("stream"):
            return await model_app.responses(self._model(request), request)
        return await _asked(self.responses, request, _checked(NeMoGymResponseCreateParamsNonStreaming, body))

    async def chat_completions_dispatch(self, request: Request, body: dict[str, Any] = Body()) -> Any:
        if body.get("stream"):
            return await model_app.chat_completions(self._model(request), request)
        return await _asked(self.chat_completions, request, _checked(NeMoGymChatCompletionCreateParamsNonStreaming, body))

    async def messages(self, request: Request) -> Response:
        return await model_app.messages(self._model(request), request)

    def _model(self, request: Request) -> Any:
        """This server as a model of rollforge: what it does not do itself goes through its `responses`."""

        async def respond(asked: ModelRequest, /) -> Any:
            body = {key: value for key, value in asked.params.items() if key != "stream"}
            found = await _asked(self.responses, request, _checked(NeMoGymResponseCreateParamsNonStreaming, body))
            return found.model_dump(mode="json", exclude_unset=True) if isinstance(found, BaseModel) else found

        return respond


async def _asked(handler: Any, request: Request, params: BaseModel) -> Any:
    """Some servers' handlers take the request beside the body."""
    more = {"request": request} if "request" in inspect.signature(handler).parameters else {}
    return await handler(body=params, **more)


def _checked(kind: type[BaseModel], body: dict[str, Any]) -> Any:
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        raise RequestValidationError([{**found, "loc": ("body", *found["loc"])} for found in error.errors()]) from error
