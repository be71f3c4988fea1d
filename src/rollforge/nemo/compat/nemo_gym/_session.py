"""`request.session`: a dictionary that lives in a signed cookie, with an id that makes one client's requests one session.

The key is random and stays in this process (and in those forked from it): nobody else can make a cookie that is believed.
A cookie that is not believed is a new session, as with any client that comes for the first time.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from http.cookies import CookieError, SimpleCookie
from typing import Any
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SESSION_ID_KEY = "session_id"

_KEY = secrets.token_bytes(32)


class SessionCookie:
    """Reads the cookie before a request and sends it with every answer: many callers keep only the last answer's."""

    def __init__(self, app: ASGIApp, name: str) -> None:
        self.app = app
        self._name = name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        session = self._read(scope)
        session.setdefault(SESSION_ID_KEY, str(uuid4()))
        scope["session"] = session

        async def send_with_cookie(message: Message) -> None:
            if message["type"] == "http.response.start":
                cookie = f"{self._name}={self._signed(session)}; Path=/; HttpOnly; SameSite=lax"
                MutableHeaders(scope=message).append("Set-Cookie", cookie)
            await send(message)

        await self.app(scope, receive, send_with_cookie)

    def _read(self, scope: Scope) -> dict[str, Any]:
        cookies: SimpleCookie = SimpleCookie()
        try:
            cookies.load("; ".join(Headers(scope=scope).getlist("cookie")))
        except CookieError:
            return {}
        value, _, signature = cookies[self._name].value.rpartition(".") if self._name in cookies else ("", "", "")
        if not hmac.compare_digest(self._signature(value).encode(), signature.encode()):
            return {}
        found = json.loads(base64.urlsafe_b64decode(value))
        return found if isinstance(found, dict) else {}

    def _signed(self, session: dict[str, Any]) -> str:
        value = base64.urlsafe_b64encode(json.dumps(session, default=str).encode()).decode()
        return f"{value}.{self._signature(value)}"

    def _signature(self, value: str) -> str:
        return hmac.new(_KEY, f"{self._name}:{value}".encode(), hashlib.sha256).hexdigest()
