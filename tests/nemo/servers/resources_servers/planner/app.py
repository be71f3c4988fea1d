"""One catch-all route for all tools of a session's desk."""

from fastapi import FastAPI, HTTPException, Request
from nemo_gym.base_resources_server import (
    BaseResourcesServerConfig,
    BaseSeedSessionRequest,
    BaseSeedSessionResponse,
    BaseVerifyRequest,
    BaseVerifyResponse,
    SimpleResourcesServer,
)
from nemo_gym.server_utils import SESSION_ID_KEY
from pydantic import BaseModel, ConfigDict, Field
from utils import Desk


class Anything(BaseModel):
    model_config = ConfigDict(extra="allow")


class DeskVerifyRequest(BaseVerifyRequest):
    ground_truth: list[str]


class DeskServer(SimpleResourcesServer):
    config: BaseResourcesServerConfig
    desks: dict[str, Desk] = Field(default_factory=dict)
    model_config = ConfigDict(arbitrary_types_allowed=True)

    def setup_webserver(self) -> FastAPI:
        app = super().setup_webserver()
        app.post("/{path}")(self.route)
        return app

    async def seed_session(self, request: Request, body: BaseSeedSessionRequest) -> BaseSeedSessionResponse:
        self.desks[request.session[SESSION_ID_KEY]] = Desk()
        return BaseSeedSessionResponse()

    async def route(self, path: str, body: Anything, request: Request) -> Anything:
        desk = self.desks.get(request.session[SESSION_ID_KEY])
        if desk is None:
            raise HTTPException(400, "Call /seed_session first.")
        try:
            return Anything(output=getattr(desk, path)(**body.model_dump()))
        except Exception as error:  # noqa: BLE001
            return Anything(output=f"{path}: {error}")

    async def verify(self, request: Request, body: DeskVerifyRequest) -> BaseVerifyResponse:
        desk = self.desks.pop(request.session[SESSION_ID_KEY], Desk())
        done = next(iter(vars(desk).values()))
        return BaseVerifyResponse(**body.model_dump(), reward=float(done == body.ground_truth))
