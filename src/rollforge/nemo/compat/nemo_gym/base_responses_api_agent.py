"""The base of agent servers: `/run` for a whole rollout, `/v1/responses` for its conversation."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from fastapi import Body as Body
from fastapi import FastAPI

from .base_resources_server import BaseRunRequest, BaseVerifyResponse
from .config_types import (
    ROLLOUT_PATH_PREFIX,
    TOKEN_CAPTURE_PATH_SEGMENT,
    AggregateMetrics,
    AggregateMetricsRequest,
    BaseRunServerInstanceConfig,
)
from .global_config import get_first_server_config_dict
from .openai_utils import NeMoGymResponse, NeMoGymResponseCreateParamsNonStreaming
from .reward_profile import AggregateMetricsMixin, compute_aggregate_metrics
from .server_utils import BaseServer, SimpleServer, apply_rollout_prefix


class BaseResponsesAPIAgentConfig(BaseRunServerInstanceConfig):
    skip_verification: bool = False
    skip_verification_reward: float = 0.0
    token_id_capture: bool = False


class BaseResponsesAPIAgent(BaseServer):
    config: BaseResponsesAPIAgentConfig


class SimpleResponsesAPIAgent(BaseResponsesAPIAgent, AggregateMetricsMixin, SimpleServer):
    config: BaseResponsesAPIAgentConfig

    def setup_webserver(self) -> FastAPI:
        app = FastAPI()
        self.setup_session_middleware(app)
        capture = f"/{ROLLOUT_PATH_PREFIX}/{{rollout_id}}"
        for prefix in ("", capture, f"{capture}/{TOKEN_CAPTURE_PATH_SEGMENT}"):
            app.post(f"{prefix}/v1/responses", include_in_schema=not prefix)(self.responses)
        app.post("/run")(self.run)
        app.post("/aggregate_metrics")(self.aggregate_metrics)
        return app

    @abstractmethod
    async def responses(self, body: NeMoGymResponseCreateParamsNonStreaming = Body()) -> NeMoGymResponse: ...

    @abstractmethod
    async def run(self, body: BaseRunRequest = Body()) -> BaseVerifyResponse: ...

    async def aggregate_metrics(self, body: AggregateMetricsRequest = Body()) -> AggregateMetrics:
        return compute_aggregate_metrics(body.verify_responses, self.compute_metrics, self.get_key_metrics)

    # Captures of model calls are the gateway's business here: the paths stay as they are.

    def _model_call_capture_enabled(self) -> bool:
        return False

    def _token_id_capture_enabled(self) -> bool:
        return False

    def rollout_id_from_run(self, body: Any) -> str | None:
        return None

    def url_path_for_run(self, url_path: str, body: Any) -> str:
        return url_path

    def url_path_for_request(self, url_path: str, request: Any) -> str:
        return url_path

    def base_url_for_run(self, base_url: str, body: Any) -> str:
        return base_url

    def resolve_model_base_url(self, model_server_name: str, rollout_id: str | None = None) -> str:
        block = get_first_server_config_dict(self.server_client.global_config_dict, model_server_name)
        return f"{apply_rollout_prefix(self.server_client._build_server_base_url(block), rollout_id)}/v1"
