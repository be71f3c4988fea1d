"""One typed tool; every answer is worth something."""

from fastapi import FastAPI
from nemo_gym.base_resources_server import (
    BaseResourcesServerConfig,
    BaseVerifyRequest,
    BaseVerifyResponse,
    SimpleResourcesServer,
)
from pydantic import BaseModel


class WeatherConfig(BaseResourcesServerConfig):
    degrees: int = 20


class Place(BaseModel):
    city: str


class Weather(BaseModel):
    city: str
    degrees: int


class WeatherServer(SimpleResourcesServer):
    config: WeatherConfig

    def setup_webserver(self) -> FastAPI:
        app = super().setup_webserver()
        app.post("/get_weather")(self.get_weather)
        return app

    async def get_weather(self, body: Place) -> Weather:
        if body.city == "Atlantis":
            raise ValueError("Atlantis has no weather")
        return Weather(city=body.city, degrees=self.config.degrees)

    async def verify(self, body: BaseVerifyRequest) -> BaseVerifyResponse:
        called = any(item.type == "function_call" for item in body.response.output)
        return BaseVerifyResponse(**body.model_dump(), reward=float(called))


if __name__ == "__main__":
    WeatherServer.run_webserver()
