"""The base of servers that are played step by step: `/reset` and `/step`."""

from __future__ import annotations

import json
from abc import abstractmethod
from typing import Any

from fastapi import FastAPI, Request
from pydantic import BaseModel, ConfigDict, Field

from .base_resources_server import BaseVerifyRequest, SimpleResourcesServer
from .openai_utils import (
    NeMoGymResponse,
    NeMoGymResponseCreateParamsNonStreaming,
    NeMoGymResponseFunctionToolCall,
)
from .rollout_correlation import RolloutContextMiddleware
from .server_utils import SESSION_ID_KEY


class EnvResetRequest(BaseModel):
    model_config = ConfigDict(extra="allow")

    responses_create_params: NeMoGymResponseCreateParamsNonStreaming


class EnvResetResponse(BaseModel):
    observation: str | None = None
    info: dict[str, Any] = Field(default_factory=dict)


class EnvStepRequest(EnvResetRequest):
    response: NeMoGymResponse


class EnvStepResponse(EnvResetResponse):
    reward: float = 0.0
    terminated: bool = False
    truncated: bool = False


def extract_text(response: NeMoGymResponse) -> str:
    """The text of all messages of the response."""
    return response.output_text


class GymnasiumServer(SimpleResourcesServer):
    session_state: dict[str, Any] = Field(default_factory=dict)

    def setup_webserver(self) -> FastAPI:
        app = FastAPI()
        self.setup_session_middleware(app)
        app.add_middleware(RolloutContextMiddleware)
        app.post("/reset")(self._reset_endpoint)
        app.post("/step")(self._step_endpoint)
        app.post("/aggregate_metrics")(self.aggregate_metrics)
        return app

    async def _reset_endpoint(self, body: EnvResetRequest, request: Request) -> EnvResetResponse:
        observation, info = await self.reset(body.model_extra or {}, request.session[SESSION_ID_KEY])
        return EnvResetResponse(observation=observation, info=info)

    async def _step_endpoint(self, body: EnvStepRequest, request: Request) -> EnvStepResponse:
        session_id = request.session[SESSION_ID_KEY]
        observation, reward, terminated, truncated, info = await self.step(body.response, body.model_extra or {}, session_id)
        if terminated or truncated:
            await self.close_session(session_id)
        return EnvStepResponse(observation=observation, reward=reward, terminated=terminated, truncated=truncated, info=info)

    async def reset(self, metadata: dict[str, Any], session_id: str | None = None) -> tuple[str | None, dict[str, Any]]:
        return None, {}

    @abstractmethod
    async def step(
        self, action: NeMoGymResponse, metadata: dict[str, Any], session_id: str | None = None
    ) -> tuple[str | None, float, bool, bool, dict[str, Any]]: ...

    async def close_session(self, session_id: str | None) -> None:
        self.session_state.pop(session_id or "", None)

    @staticmethod
    def tool_output(call: NeMoGymResponseFunctionToolCall, result: Any) -> dict[str, Any]:
        return {"call_id": call.call_id, "output": json.dumps(result, default=str)}

    async def verify(self, body: BaseVerifyRequest) -> Any:
        raise NotImplementedError("this environment is played with /reset and /step; it has no /verify")
