"""The base of servers that verify: `/seed_session`, `/verify`, `/aggregate_metrics`, and routes of their own for tools."""

from __future__ import annotations

from abc import abstractmethod
from enum import StrEnum
from typing import ClassVar

from fastapi import FastAPI
from pydantic import BaseModel

from .config_types import AggregateMetrics, AggregateMetricsRequest, BaseRunServerInstanceConfig
from .judge import judge_failsafe
from .openai_utils import NeMoGymResponse, NeMoGymResponseCreateParamsNonStreaming
from .reward_profile import AggregateMetricsMixin, compute_aggregate_metrics
from .rollout_correlation import RolloutContextMiddleware
from .server_utils import BaseServer, SimpleServer


class ReverifyMode(StrEnum):
    STATELESS = "stateless"
    UNSUPPORTED = "unsupported"
    UNKNOWN = "unknown"


class BaseResourcesServerConfig(BaseRunServerInstanceConfig):
    expose_tools_over_mcp: bool = False
    REVERIFY_MODE: ClassVar[ReverifyMode] = ReverifyMode.UNKNOWN


class BaseResourcesServer(BaseServer):
    config: BaseResourcesServerConfig


class BaseRunRequest(BaseModel):
    responses_create_params: NeMoGymResponseCreateParamsNonStreaming


class BaseVerifyRequest(BaseRunRequest):
    response: NeMoGymResponse


class BaseVerifyResponse(BaseVerifyRequest):
    reward: float


class BaseMultiRewardVerifyResponse(BaseVerifyResponse):
    reward_components: dict[str, float]


class BaseSeedSessionRequest(BaseModel): ...


class BaseSeedSessionResponse(BaseModel): ...


class SimpleResourcesServer(BaseResourcesServer, AggregateMetricsMixin, SimpleServer):
    config: BaseResourcesServerConfig

    def setup_webserver(self) -> FastAPI:
        app = FastAPI()
        self.setup_session_middleware(app)
        app.add_middleware(RolloutContextMiddleware)
        app.post("/seed_session")(self.seed_session)
        app.post("/verify")(judge_failsafe(self.verify))
        app.post("/aggregate_metrics")(self.aggregate_metrics)
        app.get("/reverify_mode")(self.get_reverify_mode)
        return app

    async def seed_session(self, body: BaseSeedSessionRequest) -> BaseSeedSessionResponse:
        return BaseSeedSessionResponse()

    @abstractmethod
    async def verify(self, body: BaseVerifyRequest) -> BaseVerifyResponse: ...

    async def aggregate_metrics(self, body: AggregateMetricsRequest) -> AggregateMetrics:
        return compute_aggregate_metrics(body.verify_responses, self.compute_metrics, self.get_key_metrics)

    async def get_reverify_mode(self) -> ReverifyMode:
        return self.config.REVERIFY_MODE

    def normalize_tool_name(self, name: str) -> str:
        """The tool's own name, where a client of MCP put its server's before it."""
        return name.removeprefix(f"mcp__{self.config.name}__")
