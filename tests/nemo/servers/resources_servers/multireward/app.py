"""Two objectives that sum to the reward; a middleware and a route of its own."""

from time import perf_counter

from fastapi import FastAPI, Request
from nemo_gym.base_resources_server import (
    BaseMultiRewardVerifyResponse,
    BaseResourcesServerConfig,
    BaseVerifyRequest,
    SimpleResourcesServer,
)


class TwoRewardsRequest(BaseVerifyRequest):
    expected_name: str


class TwoRewardsResponse(BaseMultiRewardVerifyResponse):
    named: float
    alone: float


class TwoRewardsServer(SimpleResourcesServer):
    config: BaseResourcesServerConfig

    def setup_webserver(self) -> FastAPI:
        app = super().setup_webserver()

        @app.middleware("http")
        async def timed(request: Request, call_next):
            started = perf_counter()
            response = await call_next(request)
            response.headers["X-Seconds"] = str(perf_counter() - started)
            return response

        @app.get("/objectives")
        async def objectives() -> list[str]:
            return ["named", "alone"]

        return app

    async def verify(self, body: TwoRewardsRequest) -> TwoRewardsResponse:
        calls = [item for item in body.response.output if item.type == "function_call"]
        parts = {"named": 0.5 * any(call.name == body.expected_name for call in calls), "alone": 0.5 * (len(calls) == 1)}
        return TwoRewardsResponse(**body.model_dump(), reward=sum(parts.values()), reward_components=parts, **parts)
