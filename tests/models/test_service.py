"""Calls to a service: what is sent again and what never, cookies, deadlines, and messages without secrets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from rollforge.envs.load import load_env
from rollforge.errors import DeadlineExceeded, InfraFault, PolicyFault, SetupError, UserError
from rollforge.models.base import ModelOptions
from rollforge.models.hops import REQUEST_ID
from rollforge.models.load import load_model
from rollforge.models.service import RETRIES, Service, _Lost, _wait
from rollforge.models.transport import BACKOFF
from tests.models.server import HANG, Reply, Server, closing, serve

TOKEN = "tok-very-secret-0123456789"
FULL = {"type": "error", "error": {"type": "too_many_sessions", "message": "full"}}
DOWN = {"type": "error", "error": {"type": "shutting_down", "message": "the server is shutting down"}}
SOON = {"Retry-After": "0"}


@asynccontextmanager
async def service(*answers: Any, **options: Any) -> AsyncIterator[tuple[Service, Server]]:
    async with serve(*answers) as server, closing(Service(server.root, **options)) as made:
        yield made, server


@asynccontextmanager
async def raw(*answers: bytes | None) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server that reads a request and writes bytes, or None: cuts the connection at once; the last one for ever."""
    asked: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        answer = answers[min(len(asked), len(answers)) - 1]
        if answer is None:
            writer.transport.abort()
        else:
            writer.write(answer)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked


def http(body: bytes, status: str = "200 OK") -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (status.encode(), len(body), body)


async def test_an_answer_is_its_status_body_and_cookies() -> None:
    cookies = {"Set-Cookie": 'a="x=="; Path=/; HttpOnly'}
    async with service(Reply({"x": 1}, headers=cookies), Reply(b"", 204)) as (made, server):
        answer = await made.call("POST", "/seed", {"row": 1}, seconds=9)
        assert (answer.status, answer.json(), answer.cookies) == (200, {"x": 1}, {"a": '"x=="'})
        await made.call("POST", "/next", cookies=answer.cookies, seconds=9)
        await made.call("GET", "/other", seconds=9)
    first, second, third = server.seen
    assert (first.path, first.body, "Cookie" in first.headers) == ("/seed", {"row": 1}, False)
    assert (second.body, second.headers["Cookie"]) == (None, 'a="x=="')
    assert "Cookie" not in third.headers  # nobody else's session
    assert first.headers["Accept-Encoding"] == "identity"


async def test_the_id_of_the_request_goes_on() -> None:
    async with service({}) as (made, server):
        token = REQUEST_ID.set("req-1")
        await made.call("POST", "/x", {}, seconds=9)
        REQUEST_ID.reset(token)
    assert {name.lower(): value for name, value in server.seen[0].headers.items()}["x-request-id"] == "req-1"


AGAIN = {
    "paced": Reply(b"slow down", 429, SOON),
    "full": Reply(FULL, 503, SOON),
    "going down": Reply(DOWN, 503, SOON),
}


@pytest.mark.parametrize("name", AGAIN)
async def test_what_was_refused_before_anything_was_done_is_asked_again(name: str) -> None:
    async with service(*[AGAIN[name]] * (RETRIES + 3), {"x": 1}) as (made, server):
        assert (await made.call("POST", "/tool", {}, seconds=9)).json() == {"x": 1}
    assert len(server.seen) == RETRIES + 4


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_a_call_that_may_have_done_something_is_not_repeated(status: int) -> None:
    async with service(Reply(b"oh", status, SOON)) as (made, server):
        with pytest.raises(InfraFault, match=f"/tool answered {status}: oh"):
            await made.call("POST", "/tool", {}, seconds=9)
        assert len(server.seen) == 1
        answer = await made.call("POST", "/tool", {}, seconds=9, refuse=False)
        assert (answer.status, answer.text) == (status, "oh")


async def test_a_harmless_call_is_repeated_but_not_against_a_verdict() -> None:
    fault = {"type": "error", "error": {"type": "infra_fault", "message": "its own upstream is gone"}}
    async with service(Reply(b"", 502, SOON), Reply(b"", 503, SOON), {}, Reply(fault, 502)) as (made, server):
        assert (await made.call("POST", "/verify", {}, seconds=9, replay=True)).status == 200
        assert len(server.seen) == 3
        with pytest.raises(InfraFault, match="its own upstream is gone"):
            await made.call("POST", "/verify", {}, seconds=9, replay=True)
        assert len(server.seen) == 4


async def test_a_cut_connection_is_mended_only_where_that_does_no_harm() -> None:
    async with raw(None, None, http(b"{}")) as (url, asked), closing(Service(url)) as made:
        with pytest.raises(InfraFault, match="closed the connection"):
            await made.call("POST", "/tool", {}, seconds=9)
        assert len(asked) == 1
        assert (await made.call("POST", "/seed", {}, seconds=9, replay=True)).json() == {}
        assert len(asked) == 3


LIES: dict[str, tuple[bytes, str]] = {
    "cut off": (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{", "cut its answer off"),
    "another protocol": (b"SSH-2.0-OpenSSH_9.6\r\n", "does not speak HTTP"),
    "a terabyte": (b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n{", "more than 64 MiB"),
    "nothing": (b"", "closed the connection"),
}


@pytest.mark.parametrize("name", LIES)
async def test_a_lying_service_is_an_infra_fault_that_says_how(name: str) -> None:
    answer, says = LIES[name]
    async with raw(answer) as (url, _), closing(Service(url)) as made:
        with pytest.raises(InfraFault, match=f"{url}/x.*{says}"):
            await made.call("POST", "/x", {}, seconds=9)


async def test_no_service_at_all_is_an_infra_fault_that_says_how_to_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rollforge.models.service._wait", lambda *_: 0.0)  # a try just before the deadline tells of that
    async with raw(b"") as (url, _):
        pass
    async with closing(Service(url)) as made:
        with pytest.raises(InfraFault, match=f"cannot connect to {url}/x .*check: curl -s {url}/health"):
            await made.call("POST", "/x", {}, seconds=60)
    async with closing(Service("http://no-such-host.invalid")) as made:
        with pytest.raises((SetupError, InfraFault), match="cannot be resolved"):
            await made.call("POST", "/x", {}, seconds=60)


async def test_a_service_that_comes_back_is_found_again() -> None:
    async with raw(http(b"1")) as (url, _):
        made = Service(url)
        assert (await made.call("POST", "/x", {}, seconds=9)).json() == 1
    port = int(url.rpartition(":")[2])
    calling = asyncio.create_task(made.call("POST", "/x", {}, seconds=9))
    await asyncio.sleep(0)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(http(b"2"))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(handle, "127.0.0.1", port):
        assert (await calling).json() == 2  # nothing was sent where nobody listened
    await made.aclose()


async def test_a_deadline_covers_all_tries() -> None:
    async with service(Reply(FULL, 503, {"Retry-After": "30"}), HANG) as (made, _):
        with pytest.raises(InfraFault, match="full"):
            await made.call("POST", "/x", {}, seconds=20)  # no time left to come back
        with pytest.raises(DeadlineExceeded, match=r"/x gave no answer within 0.1 s"):
            await made.call("POST", "/x", {}, seconds=0.1)


NAMED: dict[str, tuple[Any, type[Exception]]] = {
    "a fault of the policy": ({"type": "error", "error": {"type": "policy_fault", "message": "it cheated"}}, PolicyFault),
    "FastAPI's": ({"detail": "it cheated"}, InfraFault),
    "a bare string": ("it cheated", InfraFault),
    "a deep one": ({"error": {"type": ["it cheated"]}, "message": 1}, InfraFault),
    "a list": (["it cheated"], InfraFault),
}


@pytest.mark.parametrize("name", NAMED)
async def test_an_error_answer_is_the_fault_that_it_names(name: str) -> None:
    body, kind = NAMED[name]
    async with service(Reply(body, 422)) as (made, _):
        with pytest.raises(kind) as error:
            await made.call("POST", "/x", {}, seconds=9)
        assert type(error.value) is kind


async def test_a_token_is_sent_and_shown_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", TOKEN)
    echo: Callable[[Any], Any] = lambda body: Reply({"detail": f"no entry for {TOKEN}"}, 403)  # noqa: E731
    async with service(echo, token_env="MY_TOKEN") as (made, server):
        with pytest.raises(SetupError, match=r"no entry for \*\*\*; the token in MY_TOKEN was refused") as error:
            await made.call("POST", "/x", {}, seconds=9)
        with pytest.raises(InfraFault, match=r"\*\*\*"):  # a session was let in before: it may be let in again
            await made.call("POST", "/x", {}, cookies={"s": "1"}, seconds=9)
    assert TOKEN not in str(error.value)
    assert server.seen[0].headers["Authorization"] == f"Bearer {TOKEN}"
    secret = Service(f"http://me:{TOKEN}@127.0.0.1:1")
    assert TOKEN not in secret.shown
    monkeypatch.setattr("rollforge.models.service._wait", lambda *_: 0.0)
    with pytest.raises(InfraFault) as refused:
        await secret.call("POST", "/x", {}, seconds=60)
    await secret.aclose()
    assert TOKEN not in str(refused.value)


def test_what_is_no_url_or_no_token_is_told_at_once() -> None:
    with pytest.raises(UserError, match="ftp://x"):
        Service("ftp://x")
    with pytest.raises(UserError, match="NOT_SET_ANYWHERE is not set"):
        Service("http://x", token_env="NOT_SET_ANYWHERE")


@pytest.mark.parametrize("load", [load_env, lambda url: load_model(url, ModelOptions())])
def test_a_password_in_a_reference_would_be_stored(load: Callable[[str], Any]) -> None:
    with pytest.raises(UserError, match=r"http://127\.0\.0\.1:1: a user or password in the URL") as error:
        load(f"http://me:{TOKEN}@127.0.0.1:1")
    assert TOKEN not in str(error.value)


async def test_what_is_no_json_cannot_be_sent() -> None:
    async with service({}) as (made, server):
        with pytest.raises(InfraFault, match="cannot be written as JSON"):
            await made.call("POST", "/x", {"a": object()}, seconds=9)
    assert not server.seen


def test_the_wait_before_another_try_has_an_end() -> None:
    assert max(_wait(_Lost("gone"), tries) for tries in (0, 9, 1100, 10**6)) <= BACKOFF[1]
