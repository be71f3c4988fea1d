"""HTTP to a service that answers with a status, a body and cookies: environments and agents, ours or NeMo Gym's.

    call --> try --2xx--> Answer
              |--refused before anything was done (429, too many sessions, shutting down), or no connection: wait, try again
              |--cut off, 502, 503, 504: again only if `replay`: a tool call that changed something must not happen twice
              '--another status: the fault that it names

Unlike `transport`, which knows what model servers say, this keeps cookies apart per caller and never guesses from texts.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from yarl import URL

from rollforge import __version__
from rollforge.errors import DeadlineExceeded, InfraFault, RolloutError, SetupError, UserError
from rollforge.models.base import ModelOptions
from rollforge.models.broken import SHOWN, Broken, TooLarge
from rollforge.models.dial import Target, shown, targets
from rollforge.models.hops import hop
from rollforge.models.http import MAX_ANSWER, NONE, Client
from rollforge.models.transport import BACKOFF, Budget, endpoint, retry_after
from rollforge.records.lossless import dumps, loads
from rollforge.records.problem import FAULTS, raised

RETRIES = 4
"""Further tries after failures; a service that asks to come back later is asked for as long as there is time."""

TOKEN_ENV = "ROLLFORGE_TOKEN"
"""The variable that holds the token of services named by URL, where a command has no other name for it."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes
    source: str = ""
    """Who answered, for messages."""
    cookies: dict[str, str] = field(default_factory=dict)
    """Those it set: to be sent with the next calls of the same session."""
    headers: Mapping[str, str] = field(default_factory=lambda: NONE)
    """By their names in small letters."""

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")

    @property
    def value(self) -> Any:
        """The JSON of the body, else its text: error answers are both."""
        try:
            return loads(self.body)
        except ValueError:
            return self.text

    @property
    def problem(self) -> str | None:
        """The type of an error in our shape (`records.problem`)."""
        value = None if self.ok else self.value
        error = value.get("error") if isinstance(value, dict) and value.get("type") == "error" else None
        kind = error.get("type") if isinstance(error, dict) else None
        return kind if isinstance(kind, str) else None

    def json(self) -> Any:
        """Raises `InfraFault` if the body is not JSON."""
        try:
            return loads(self.body)
        except ValueError as error:
            start = " ".join(self.text[:200].split()) or "an empty body"
            raise InfraFault(f"{self.source} answered {self.status} with what is not JSON ({error}): {start}") from None


class Service:
    """The connections to one service."""

    def __init__(self, url: str, *, token_env: str | None = None, connect_seconds: float = 10.0) -> None:
        """Raises `UserError` for what is no URL, and for a variable that was named and is not set."""
        where = endpoint(ModelOptions(base_urls=(url,), api_key_env=token_env), "the service", "", "")
        self._bases = where.bases
        self._token_env = token_env
        self._secrets = tuple(filter(None, (where.key, URL(where.bases[0]).password)))
        headers = {
            "Content-Type": "application/json",
            # As for models: compressing costs a local server more than the network does.
            "Accept-Encoding": "identity",
            "User-Agent": f"rollforge/{__version__}",
            **where.headers(),
        }
        self._client = Client(headers, connect_seconds=connect_seconds)
        self._budget = Budget()
        self._targets: dict[str, Target] = {}
        self._answered = False
        self.shown = self._target("").shown
        """Its URL for messages, without credentials."""

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        cookies: Mapping[str, str] = NONE,
        headers: Mapping[str, str] = NONE,
        seconds: float,
        replay: bool = False,
        refuse: bool = True,
    ) -> Answer:
        """The answer within `seconds`, tries included.

        `replay`: calling twice does no harm. An error answer raises the fault it stands for, or with `refuse=False` is
        returned. Raises `InfraFault` for no connection and for what was cut off, `DeadlineExceeded`, and `SetupError` when
        no call can succeed (unknown host, no TLS).
        """
        try:
            data = None if body is None else dumps(body)
        except ValueError as error:
            raise InfraFault(f"the request cannot be written as JSON: {error}") from error
        to = self._target(path)
        sent = {**hop(), **headers}
        if cookies:
            # As they came: a cookie jar would quote and unquote them.
            sent["Cookie"] = "; ".join(f"{name}={value}" for name, value in cookies.items())
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        last: _Lost | Answer | None = None
        failures = 0
        self._budget.call()
        try:
            async with asyncio.timeout_at(deadline):
                for tries in itertools.count():
                    last = await self._try(method, to, data, sent)
                    if isinstance(last, Answer) and not _again(last, replay):
                        break
                    if isinstance(last, _Lost) and (last.arrived and not replay):
                        break
                    polite = isinstance(last, Answer) and "retry-after" in last.headers
                    failures += not polite
                    wait = _wait(last, tries)
                    if failures > RETRIES or loop.time() + wait >= deadline:
                        break
                    if not polite and not self._budget.retry(loop.time()):
                        break
                    await asyncio.sleep(wait)
        except TimeoutError:
            before = f"; the try before: {_said(last)}" if last else ""
            raise DeadlineExceeded(f"{to.shown} gave no answer within {seconds:g} s{before}") from None
        if isinstance(last, _Lost):
            check = f"; check: curl -s {self.shown}/health"
            raise (SetupError if last.fatal else InfraFault)(last.message + check)
        assert last is not None
        if refuse and not last.ok:
            raise self.fault(last, known=bool(cookies))
        return last

    def fault(self, answer: Answer, *, known: bool = False) -> RolloutError | SetupError:
        """What an error answer stands for. `known`: the caller came with a session, so its token was right once."""
        found = raised(answer.status, answer.value, answer.source)
        text = self._clean(str(found))
        if answer.status in (401, 403) and not known:
            way = f"the token in {self._token_env} was refused" if self._token_env else f"export {TOKEN_ENV}=..."
            return SetupError(f"{text}; {way}")
        made = type(found)(text)
        if isinstance(found, RolloutError) and isinstance(made, RolloutError):
            made.stage = found.stage
        return made

    async def aclose(self) -> None:
        """Close the pool. A later call opens another one."""
        await self._client.aclose()

    async def _try(self, method: str, to: Target, data: bytes | None, headers: Mapping[str, str]) -> Answer | _Lost:
        try:
            answer = await self._client.send(method, to, data, headers)
        except TooLarge:
            raise InfraFault(f"{to.shown} answered with more than {MAX_ANSWER >> 20} MiB") from None
        except Broken as error:
            told = error.told(to.shown, self._clean)
            return _Lost(told, arrived=error.arrived, fatal=error.lasting and not self._answered)
        self._answered = True
        return Answer(answer.status, answer.body, to.shown, _cookies(answer.cookies), answer.headers)

    def _target(self, path: str) -> Target:
        found = self._targets.get(path)
        if found is None:
            if len(self._targets) > _KEPT:
                self._targets.clear()  # paths may come from a policy
            found = self._targets[path] = targets(self._bases, path)[0]
        return found

    def _clean(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


@dataclass(frozen=True, slots=True)
class _Lost:
    """A try without an answer."""

    message: str
    arrived: bool = False
    """Whether the request may have been received."""
    fatal: bool = False
    """If it goes on like this, it will for every call."""


def token_env() -> str | None:
    """The variable with the token for a service that was named by its URL alone; None if it is not set."""
    return TOKEN_ENV if os.environ.get(TOKEN_ENV) else None


def as_name(url: str) -> str:
    """A URL that is shown and stored as the name of what it leads to. Raises `UserError` if there is a password in it."""
    if shown(url) != url.partition("?")[0]:
        raise UserError(f"{shown(url)}: a user or password in the URL would be stored with the run; export {TOKEN_ENV}=...")
    return url


def _cookies(headers: Sequence[str]) -> dict[str, str]:
    """Those of `Set-Cookie`, as they came, without their attributes (RFC 6265, 5.2)."""
    pairs = (header.partition(";")[0].partition("=") for header in headers)
    return {name.strip(): value.strip() for name, _, value in pairs if name}


def _again(answer: Answer, replay: bool) -> bool:
    """Whether an answer says to come back: nothing was done, or it may be done again."""
    if answer.ok or answer.status not in (429, 502, 503, 504):
        return False
    kind = answer.problem
    if kind in FAULTS:
        return False  # a verdict on this very call, and not on the way to it
    return answer.status == 429 or kind in ("too_many_sessions", "shutting_down") or replay


def _wait(last: _Lost | Answer, tries: int) -> float:
    asked = retry_after(last.headers.get("retry-after"), time.time()) if isinstance(last, Answer) else None
    if asked is not None:
        return asked + random.uniform(0, max(0.1, min(1.0, 0.1 * asked)))
    return random.uniform(0, min(BACKOFF[0] * 2 ** min(tries, 16), BACKOFF[1]))


def _said(last: _Lost | Answer) -> str:
    return last.message if isinstance(last, _Lost) else f"it answered {last.status}: {last.text[:SHOWN]}"


_KEPT = 1000
