"""What all servers share: the application with its session, and the client through which they reach each other."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections import Counter
from typing import Any

import aiohttp
import orjson
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, PrivateAttr
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rollforge.errors import describe, short

from . import _calls
from ._session import SESSION_ID_KEY as SESSION_ID_KEY
from ._session import SessionCookie
from .config_types import (
    ROLLOUT_PATH_PREFIX,
    TOKEN_CAPTURE_PATH_SEGMENT,
    BaseRunServerInstanceConfig,
    BaseServerConfig,
)
from .global_config import DEFAULT_HEAD_SERVER_PORT as DEFAULT_HEAD_SERVER_PORT
from .global_config import (
    HEAD_SERVER_KEY_NAME,
    get_first_server_config_dict,
    get_global_config_dict,
)

log = logging.getLogger("nemo_gym")


async def request(method: str, url: str, _internal: bool = False, **kwargs: Any) -> aiohttp.ClientResponse:
    """One HTTP request; the options are aiohttp's."""
    return await _calls.http(method, url, **kwargs)


async def raise_for_status(response: aiohttp.ClientResponse) -> None:
    """Raise aiohttp's `ClientResponseError`, with the body as `response_content`, for a status from 400 on."""
    if response.ok:
        return
    content = await response.content.read()
    try:
        response.raise_for_status()
    except aiohttp.ClientResponseError as error:
        error.response_content = content  # type: ignore[attr-defined]
        raise


async def get_response_json(response: aiohttp.ClientResponse) -> Any:
    return orjson.loads(await response.read())


class ServerClient(BaseModel):
    """Reaches servers by the names that the configuration gives them."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    head_server_config: BaseServerConfig
    global_config_dict: Any
    _applications: _calls.Applications = PrivateAttr(default_factory=dict)

    @classmethod
    def load_head_server_config(cls) -> BaseServerConfig:
        return BaseServerConfig.model_validate(get_global_config_dict()[HEAD_SERVER_KEY_NAME])

    def served_here(self, applications: _calls.Applications) -> ServerClient:
        """The same client, which calls these applications directly; the mapping may still grow."""
        self._applications = applications
        return self

    async def request(self, server_name: str, url_path: str, method: str, **kwargs: Any) -> aiohttp.ClientResponse:
        if isinstance(kwargs.get("json"), BaseModel):
            kwargs["json"] = kwargs["json"].model_dump(exclude_unset=True)
        app = self._applications.get(server_name)
        if app is not None:
            answer: Any = await _calls.call(app, method, url_path, f"http://{_host_name(server_name)}", **kwargs)
            return answer  # type: ignore[no-any-return]
        block = get_first_server_config_dict(self.global_config_dict, server_name)
        return await request(method, f"{self._build_server_base_url(block)}{url_path}", _internal=True, **kwargs)

    async def get(self, server_name: str, url_path: str, **kwargs: Any) -> aiohttp.ClientResponse:
        return await self.request(server_name=server_name, url_path=url_path, method="GET", **kwargs)

    async def post(self, server_name: str, url_path: str, **kwargs: Any) -> aiohttp.ClientResponse:
        return await self.request(server_name=server_name, url_path=url_path, method="POST", **kwargs)

    def _build_server_base_url(self, server_config_dict: Any) -> str:
        return f"http://{server_config_dict['host']}:{server_config_dict['port']}"


class BaseServer(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)

    config: BaseRunServerInstanceConfig

    def setup_liveness(self, app: FastAPI) -> None:
        @app.get("/", include_in_schema=False)
        async def _alive() -> dict[str, str]:
            return {"status": "ok"}


class SimpleServer(BaseServer):
    server_client: ServerClient

    @abstractmethod
    def setup_webserver(self) -> FastAPI: ...

    def get_session_middleware_key(self) -> str:
        """The name of the session's cookie."""
        return f"{type(self).__name__}___{self.config.name}"

    def setup_session_middleware(self, app: FastAPI) -> None:
        if not getattr(app.state, "has_session", False):
            app.state.has_session = True
            app.add_middleware(SessionCookie, name=self.get_session_middleware_key())

    def setup_exception_middleware(self, app: FastAPI) -> None:
        """An exception becomes a 500 whose body is a JSON string: tools show it to the model."""
        app.add_middleware(_Exceptions, name=self.get_session_middleware_key())

    def prefix_server_logs(self) -> None: ...

    def set_ulimit(self, target_soft_limit: int = 65535) -> None: ...

    @classmethod
    def run_webserver(cls) -> FastAPI | None:
        raise SystemExit(f"{cls.__name__} is started by ng_run with its configuration, not as a program of its own")


class _Exceptions:
    def __init__(self, app: ASGIApp, name: str) -> None:
        self.app = app
        self._name = name
        self._times: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, receive, watched)
        except Exception as error:
            self._told(error)
            if started or scope["type"] != "http":
                raise
            content = getattr(error, "response_content", None)
            text = repr(error) if content is None else f"{self._name}: an inner server failed: {content!r}"
            await JSONResponse(text, 500)(scope, receive, send)

    def _told(self, error: Exception) -> None:
        """Once, and again when it was ten, a hundred, a thousand times: by its kind and where it came from."""
        says = describe(error)
        kind = f"{type(error).__name__}{says.removeprefix(short(error))}"
        self._times[kind] += 1
        times = self._times[kind]
        if times == 1:
            log.error("%s: %s", self._name, says)
        elif str(times).strip("0") == "1":
            log.error("%s: %d times by now: %s", self._name, times, says)
        log.debug("%s", self._name, exc_info=error)


def get_server_url(server_name: str) -> str:
    block = get_first_server_config_dict(get_global_config_dict(), server_name)
    return f"http://{block['host']}:{block['port']}"


def rollout_path_prefix(rollout_id: str | None, *, token_capture: bool = False) -> str:
    if not rollout_id:
        return ""
    return f"/{ROLLOUT_PATH_PREFIX}/{rollout_id}" + (f"/{TOKEN_CAPTURE_PATH_SEGMENT}" if token_capture else "")


def apply_rollout_prefix(base_url: str, rollout_id: str | None, *, token_capture: bool = False) -> str:
    return base_url.rstrip("/") + rollout_path_prefix(rollout_id, token_capture=token_capture) if rollout_id else base_url


def get_global_aiohttp_client(*_: Any, **__: Any) -> aiohttp.ClientSession:
    return _calls._session()


def is_global_aiohttp_client_request_debug_enabled() -> bool:
    return False


def is_nemo_gym_fastapi_worker() -> bool:
    """Always no: a server is an application of the process that loaded it."""
    return False


def is_nemo_gym_fastapi_entrypoint(file: str) -> bool:
    return False


def _host_name(server_name: str) -> str:
    return "".join(sign if sign.isascii() and sign.isalnum() else "-" for sign in server_name).strip("-") or "server"
