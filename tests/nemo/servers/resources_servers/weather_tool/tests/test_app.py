from unittest.mock import MagicMock

from app import Place, WeatherConfig, WeatherServer
from fastapi.testclient import TestClient
from nemo_gym.server_utils import ServerClient


def server() -> WeatherServer:
    config = WeatherConfig(host="0.0.0.0", port=8080, entrypoint="", name="weather_tool")
    return WeatherServer(config=config, server_client=MagicMock(spec=ServerClient))


async def test_the_tool() -> None:
    assert (await server().get_weather(Place(city="Oslo"))).degrees == 20


def test_a_session_is_kept_by_its_cookie() -> None:
    client = TestClient(server().setup_webserver())
    assert client.post("/seed_session", json={}).status_code == 200
    assert list(client.cookies) == ["WeatherServer___weather_tool"]
