"""State kept by session id."""

from fastapi import FastAPI, Request
from nemo_gym.base_resources_server import (
    BaseResourcesServerConfig,
    BaseSeedSessionRequest,
    BaseSeedSessionResponse,
    BaseVerifyRequest,
    BaseVerifyResponse,
    SimpleResourcesServer,
)
from nemo_gym.server_utils import SESSION_ID_KEY
from pydantic import BaseModel, Field


class CounterSeedRequest(BaseSeedSessionRequest):
    initial_count: int


class CounterVerifyRequest(BaseVerifyRequest):
    expected_count: int


class Amount(BaseModel):
    count: int


class CounterServer(SimpleResourcesServer):
    config: BaseResourcesServerConfig
    counts: dict[str, int] = Field(default_factory=dict)

    def setup_webserver(self) -> FastAPI:
        app = super().setup_webserver()
        app.post("/increment")(self.increment)
        app.post("/get")(self.get)
        return app

    async def seed_session(self, request: Request, body: CounterSeedRequest) -> BaseSeedSessionResponse:
        self.counts.setdefault(request.session[SESSION_ID_KEY], body.initial_count)
        return BaseSeedSessionResponse()

    async def increment(self, request: Request, body: Amount) -> dict[str, bool]:
        self.counts[request.session[SESSION_ID_KEY]] += body.count
        return {"success": True}

    async def get(self, request: Request) -> dict[str, int]:
        return {"count": self.counts.get(request.session[SESSION_ID_KEY], 0)}

    async def verify(self, request: Request, body: CounterVerifyRequest) -> BaseVerifyResponse:
        count = self.counts.get(request.session[SESSION_ID_KEY])
        return BaseVerifyResponse(**body.model_dump(), reward=float(count == body.expected_count))
