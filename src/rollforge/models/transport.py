"""HTTP to model servers: one connection pool per model, deadlines, bounded retries, and errors that say how to check.

    post --> try --200--> JSON
              |--refused: 401, 403, 404, no quota: SetupError;  another 4xx: BadRequest (an InfraFault)
              '--may pass: no connection, cut off, 408, 429, 5xx
                    --> retries left? budget? deadline? --no--> InfraFault
                    --> wait (Retry-After, else backoff with full jitter) --> try the next base URL

`stream` does the same until the first event of the answer has come; from then on nothing is tried again.
The deadline of a call covers all its tries; running out of it is `DeadlineExceeded`. Nobody waits for anybody else here:
concurrency is bounded by who calls. Keys appear in no message: whatever text a server sends is searched for them.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any, TypeVar
from zlib import crc32

import orjson
from yarl import URL

from rollforge import __version__
from rollforge.errors import DeadlineExceeded, InfraFault, SetupError, UserError
from rollforge.models.base import ModelOptions
from rollforge.models.broken import SHOWN, Broken, Late, TooLarge, clipped
from rollforge.models.dial import Target, shown
from rollforge.models.hops import hop
from rollforge.models.http import MAX_ANSWER, Answer, Client
from rollforge.models.sse import event_data
from rollforge.records.lossless import dumps
from rollforge.records.problem import FAULTS

BACKOFF = (0.5, 30.0)
"""Seconds: the first retry waits at most the one, no retry waits more than the other (a Retry-After may)."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a server is, and how to be let in."""

    bases: tuple[str, ...]
    key: str | None = field(default=None, repr=False)
    key_env: str = ""
    """The variable that the key came from; only its name is ever shown."""
    header: str = "Authorization"

    @property
    def public(self) -> bool:
        """Whether it is OpenAI's own, which wants a key and takes no parameter that it does not know."""
        return any(URL(base).host == "api.openai.com" for base in self.bases)

    def headers(self) -> dict[str, str]:
        return {self.header: self._prefix + self.key} if self.key else {}

    def check(self, path: str = "/models") -> str:
        """The command that shows whether the server is there and takes the key."""
        url = shown(self.bases[0]) + path
        quoted = f'"{url}"' if "?" in url else url
        return f"curl -s {quoted}" + (f' -H "{self.header}: {self._prefix}${self.key_env}"' if self.key else "")

    @property
    def _prefix(self) -> str:
        return "Bearer " if self.header == "Authorization" else ""


class BadRequest(InfraFault):
    """The server understood and refused this one request (400, 413, 422, ...). Another rollout may do better."""

    def __init__(self, message: str, status: int = 400, text: str = "", code: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.text = text
        """What the server said."""
        self.code = code
        """Its word for it: error.code, else error.type."""


def endpoint(
    options: ModelOptions,
    name: str,
    url_env: str,
    key_env: str,
    *,
    default: str | None = None,
    header: str = "Authorization",
) -> Endpoint:
    """From the options, else the environment, else the default. Raises `UserError` saying what is missing."""
    given = options.base_urls or tuple(filter(None, [os.environ.get(url_env) or default]))
    if not given:
        raise UserError(f"{name} has no address: give --base-url http://HOST:8000/v1 (base_urls), or set {url_env}")
    bases = tuple(url.strip().rstrip("/") for url in given)
    for base in bases:
        _check_url(base)
    wanted = options.api_key_env or key_env
    key = os.environ.get(wanted, "").strip()
    if not key and options.api_key_env:
        raise UserError(f"the environment variable {wanted} is not set, and it was named as the one with the key for {name}")
    if header == "Authorization" and not options.api_key_env and all(map(_has_password, bases)):
        key = ""  # of a variable that nobody named
    own = any(one.title() == "Authorization" for one in options.headers)
    if own or (key and header == "Authorization"):
        _check_alone(name, "a header Authorization" if own else f"a key in {wanted}", bases)
    where = Endpoint(bases, key or None, wanted, header)
    if not key and (where.public or header != "Authorization"):
        raise UserError(
            f"{name} at {shown(bases[0])} needs a key: export {wanted}=..., or name another variable (api_key_env)"
        )
    return where


class Transport:
    """The connection pool and the retry budget of one model."""

    def __init__(self, options: ModelOptions, where: Endpoint, check: str) -> None:
        self._options = options
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            # Compressing costs a local server more than the network does, and a small body may unpack to a huge one.
            "Accept-Encoding": "identity",
            "User-Agent": f"rollforge/{__version__}",
            **where.headers(),
            **options.headers,
        }
        self._client = Client(headers, connect_seconds=options.connect_seconds)
        self._secrets = _secrets(where, options)
        self._key_env = where.key_env
        self._check = check
        self._budget = Budget()
        self._turn = itertools.count()
        self._answered = False
        """Whether this server ever answered: then its name and certificate were right once."""
        self._served: set[URL] = set()
        """What it ever answered well: then that address was right once."""

    async def post(self, to: Sequence[Target], body: Mapping[str, Any], rollout: str = "") -> Any:
        """The JSON of the answer. Calls of the same rollout go to the same target, as long as it answers.

        Raises `SetupError` (no call can succeed), `BadRequest`, `DeadlineExceeded`, `InfraFault`.
        """
        return await self._repeat(to, rollout, partial(self._try, data=_written(body)))

    async def stream(self, to: Sequence[Target], body: Mapping[str, Any], rollout: str = "") -> AsyncGenerator[Any, None]:
        """The JSON of each server-sent event of the answer, or of the whole answer where the server does not stream.

        Raises as `post` does. The consumer closes it (`aclosing`): that ends the request.
        """
        deadline = asyncio.get_running_loop().time() + self._options.call_seconds
        first, source, answer, events = await self._repeat(to, rollout, partial(self._begin, data=_written(body)))
        name = source.shown
        try:
            yield first
            while True:
                # Not around the loop: between two events the consumer does as it likes, in whatever task.
                async with asyncio.timeout_at(deadline):
                    event = await anext(events, None)
                if event is None:
                    return
                yield event
        except TimeoutError:
            seconds = f"{self._options.call_seconds:g} s (call_seconds)"
            raise DeadlineExceeded(f"{name} did not end its answer within {seconds}; check: {self._check}") from None
        except _Failure as error:
            raise InfraFault(f"{error.message}, in the middle of a stream; check: {self._check}") from None
        finally:
            await events.aclose()
            answer.close()

    async def _repeat(self, to: Sequence[Target], rollout: str, attempt: Callable[[Target], Awaitable[T]]) -> T:
        """What `attempt` gives, tried again as long as that makes sense."""
        options = self._options
        deadline = asyncio.get_running_loop().time() + options.call_seconds
        first = (crc32(rollout.encode()) if rollout else next(self._turn)) if len(to) > 1 else 0
        failure: _Failure | None = None
        self._budget.call()
        try:
            async with asyncio.timeout_at(deadline):
                tries = 0
                while True:
                    try:
                        return await attempt(to[(first + tries) % len(to)])
                    except _Failure as error:
                        failure = error
                    tries += 1
                    await asyncio.sleep(self._wait(failure, tries, deadline))
        except TimeoutError:
            before = f"; the try before: {failure.message}" if failure else ""
            limit = f"{options.call_seconds:g} s (call_seconds)"
            raise DeadlineExceeded(f"{to[0].shown} gave no answer within {limit}{before}; check: {self._check}") from None

    async def aclose(self) -> None:
        """Close the pool. A later call opens another one."""
        await self._client.aclose()

    async def _try(self, to: Target, data: bytes) -> Any:
        try:
            answer = await self._client.send("POST", to, data, hop())
        except TooLarge:
            raise _too_large(to) from None
        except Broken as error:
            raise self._broken(to, error) from None
        self._answered = True
        if not 200 <= answer.status < 300:
            raise self._refusal(to, answer, answer.body)
        try:
            value = orjson.loads(answer.body)
        except orjson.JSONDecodeError:
            raise self._no_json(to, answer, answer.body) from None
        self._served.add(to.url)
        return value

    async def _begin(self, to: Target, data: bytes) -> tuple[Any, Target, Answer, AsyncGenerator[Any, None]]:
        """The first event, who sent it, the open answer, and the events to come."""
        answer = None
        try:
            answer = await self._client.open("POST", to, data, {**hop(), "Accept": "text/event-stream, application/json"})
            self._answered = True
            if not 200 <= answer.status < 300:
                raise self._refusal(to, answer, await answer.read())
            events = self._events(to, answer)
            first = await anext(events, None)
            if first is None:
                raise _Failure(f"{to.shown} answered with an empty stream")
            self._served.add(to.url)
            return first, to, answer, events
        except BaseException as error:
            if answer is not None:
                answer.close()
            if isinstance(error, TooLarge):
                raise _too_large(to) from None
            if isinstance(error, Broken):
                raise self._broken(to, error) from None
            raise

    async def _events(self, to: Target, answer: Answer) -> AsyncGenerator[Any, None]:
        """Raises `_Failure` for what breaks off or cannot be read, `InfraFault` for too much."""
        data, size = b"", 0
        try:
            if answer.content_type != "text/event-stream":
                data = await answer.read()
                yield orjson.loads(data)
                return
            async for data in event_data(answer):
                size += len(data)
                if size > MAX_ANSWER:
                    raise TooLarge
                if b'"error"' in data:
                    # Whoever reads it makes a message of it.
                    data = self._clean(data.decode("utf-8", "replace")).encode()
                yield orjson.loads(data)
        except orjson.JSONDecodeError:
            raise self._no_json(to, answer, data) from None
        except (TooLarge, ValueError):
            raise _too_large(to) from None
        except Broken as error:
            raise self._broken(to, error) from None

    def _broken(self, to: Target, error: Broken) -> Exception:
        named = " (connect_seconds)" if isinstance(error, Late) else ""
        return _Failure(error.told(to.shown, self._clean) + named, fatal=error.lasting and not self._answered)

    def _no_json(self, to: Target, answer: Answer, body: bytes) -> Exception:
        start = clipped(self._clean(body[:4096].decode("utf-8", "replace")), 200) or "an empty body"
        return _Failure(f"{to.shown} answered {answer.status} with what is not JSON: {start}")

    def _refusal(self, to: Target, answer: Answer, body: bytes) -> Exception:
        """What a status other than 2xx means."""
        status = answer.status
        text, code = _said(body)
        text = self._clean(text)
        if code in FAULTS:
            # A model service of ours, whose own tries are over: what it says is what happened there.
            return FAULTS[code][0](f"{to.shown} answered {status}: {clipped(text)}")
        message = f"{to.shown} answered {status}: {clipped(text) or answer.reason or 'nothing'}"
        if status in (402, 429) and (status == 402 or "insufficient_quota" in code):
            return SetupError(f"{message}; the account has nothing left to spend")
        if status in (408, 429, 500, 502, 503, 504) or 520 <= status <= 529:
            return _Failure(message, after=retry_after(answer.headers.get("retry-after"), time.time()), polite=status == 429)
        if status in (401, 403):
            return SetupError(f"{message}; the key in {self._key_env} was refused or is missing; check: {self._check}")
        if (_NO_MODEL if status == 404 else _NO_SUCH_MODEL).search(f"{code} {text}") and status in (400, 404, 422):
            return SetupError(f"{message}; the models it has: {self._check}")
        if status == 404 and to.url in self._served:
            # A gateway whose servers come and go.
            return _Failure(message)
        if status in (404, 405) or 300 <= status < 400:
            moved = f" (it redirects to {shown(answer.headers['location'])})" if "location" in answer.headers else ""
            return SetupError(
                f"{message}{moved}; the base URL is wrong: most servers want http://HOST:PORT/v1; check: {self._check}"
            )
        return BadRequest(message, status, text, code)

    def _wait(self, failure: _Failure, tries: int, deadline: float) -> float:
        """Seconds until the next try. Raises the end of the call if there is none."""
        end = SetupError if failure.fatal else InfraFault
        count = f"{tries} tries" if tries > 1 else "1 try"
        if tries > self._options.retries:
            raise end(f"{failure.message} ({count}); check: {self._check}")
        now = asyncio.get_running_loop().time()
        seconds = random.uniform(0, min(BACKOFF[0] * 2 ** (tries - 1), BACKOFF[1]))
        if failure.after is not None:
            # Everybody was told the same: come back a little apart.
            seconds = failure.after + random.uniform(0, min(1.0, 0.1 * failure.after))
        if now + seconds >= deadline:
            asked = f", and asks to come back in {failure.after:g} s" if failure.after is not None else ""
            raise end(f"{failure.message}{asked} ({count}; call_seconds leaves no time for another); check: {self._check}")
        if not failure.polite and not self._budget.retry(now):
            raise end(f"{failure.message} ({count}; too many calls fail to try all of them again); check: {self._check}")
        return seconds

    def _clean(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


class Budget:
    """Retries are at most a fifth of the calls, plus a reserve that refills by ten a second: a few failures are always
    retried, and a dying server is not met by a storm. https://sre.google/sre-book/handling-overload/"""

    def __init__(self, reserve: float = 100.0, share: float = 0.2, per_second: float = 10.0, most: float = 1000.0) -> None:
        self._tokens = reserve
        self._reserve, self._share, self._per_second, self._most = reserve, share, per_second, most
        self._last: float | None = None

    def call(self) -> None:
        self._tokens = min(self._tokens + self._share, self._most)

    def retry(self, now: float) -> bool:
        """Whether one may be made; it is then counted."""
        if self._last is not None and self._tokens < self._reserve:
            self._tokens = min(self._tokens + (now - self._last) * self._per_second, self._reserve)
        self._last = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


def retry_after(value: str | None, now: float) -> float | None:
    """Seconds to wait from a Retry-After header, which has seconds or a date; None if it is absent or says nothing."""
    if not value:
        return None
    if re.fullmatch(r"\s*\d{1,9}(\.\d*)?\s*", value):
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, OverflowError):
        return None


class _Failure(Exception):
    """A try that failed and may be repeated."""

    def __init__(self, message: str, *, after: float | None = None, polite: bool = False, fatal: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.after = after
        """Seconds that the server asked to wait."""
        self.polite = polite
        """The server lives and paces its clients: such retries are no storm."""
        self.fatal = fatal
        """If it goes on like this, it will for every call."""


def _written(body: Mapping[str, Any]) -> bytes:
    try:
        return dumps(body)
    except ValueError as error:
        raise InfraFault(f"the request cannot be written as JSON: {error}") from error


def _too_large(to: Target) -> InfraFault:
    return InfraFault(f"{to.shown} answered with more than {MAX_ANSWER >> 20} MiB")


def _said(body: bytes) -> tuple[str, str]:
    """The message and the code of an error body, in the shapes of OpenAI, vLLM, FastAPI, Ollama and others."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return body[: 8 * SHOWN].decode("utf-8", "replace"), ""
    error = value.get("error", value) if isinstance(value, dict) else value
    if not isinstance(error, dict):
        return str(error), ""
    text = error.get("message") or error.get("detail") or error.get("error") or orjson.dumps(error).decode()
    code = error.get("code")
    # vLLM and llama.cpp put the status there.
    return str(text), str(code if isinstance(code, str) and not code.isdigit() else error.get("type") or "")


_NO_SUCH_MODEL = re.compile(r"model_not_found|DeploymentNotFound|\b(unknown|invalid|no such) model\b", re.IGNORECASE)
_NO_MODEL = re.compile(
    _NO_SUCH_MODEL.pattern + r"|^not_found_error model:|\bmodel\b.{0,200}\bnot (found|exist)", re.IGNORECASE | re.DOTALL
)
"""The second for a 404, which says itself that something is not there."""


def _check_url(url: str) -> None:
    try:
        parsed = URL(url)
    except ValueError as error:
        hidden = re.sub("//.*@", "//", url)  # whatever it is, there may be a password in it
        raise UserError(f"the base URL {hidden!r} cannot be read" + (f": {error}" if hidden == url else "")) from None
    if parsed.query_string:
        raise UserError(f"the base URL {shown(url)!r} has a query (?...), and paths are put behind it: leave the query out")
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise UserError(f"the base URL {shown(url)!r} is not like http://HOST:PORT/v1")


def _has_password(base: str) -> bool:
    return bool(URL(base).user or URL(base).password)


def _check_alone(name: str, key: str, bases: Sequence[str]) -> None:
    """A user and a password in a URL go into the header Authorization, and there is one of it."""
    for base in filter(_has_password, bases):
        what = f"{name} at {shown(base)} has a user or password in its URL, and there is {key} too"
        raise UserError(f"{what}: only one of them can be sent; take away the one that is not meant")


def _secrets(where: Endpoint, options: ModelOptions) -> tuple[str, ...]:
    found = [where.key or "", *options.headers.values(), *(URL(base).password or "" for base in where.bases)]
    words = {word for value in found for word in value.split()}
    return tuple(sorted((word for word in words if len(word) >= 4 and word.lower() != "bearer"), key=len, reverse=True))
