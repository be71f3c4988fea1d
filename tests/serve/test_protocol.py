"""HTTP as our services speak it, against callers that stutter, push, lie, stop or go away."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from rollforge.serve.exchange import EXCHANGE
from rollforge.serve.gone import Gone, while_connected
from rollforge.serve.model_app import model_app
from rollforge.serve.protocol import MAX_HEAD
from rollforge.serve.settings import Settings
from tests.serve.live import serving
from tests.serve.started import get
from tests.serve.talker import Talker


class Echo:
    """Answers with what was asked; the path says how."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.gone = asyncio.Event()
        self.written = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            while (message := await receive())["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            assert message["type"] == "lifespan.shutdown"
            await send({"type": "lifespan.shutdown.complete"})
            return
        self.asked.append(scope["path"])
        await getattr(self, scope["path"].strip("/") or "echo", self.echo)(scope, receive, send)

    async def echo(self, scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive)
        body = await request.body()
        told = {"method": request.method, "path": scope["path"], "query": request.url.query, "body": body.decode()}
        await Response(json.dumps(told), headers={"X-Id": request.headers.get("x-id", "")})(scope, receive, send)

    async def stream(self, scope: Any, receive: Any, send: Any) -> None:
        async def parts() -> AsyncIterator[bytes]:
            for part in (b"one", b"", b"two"):
                yield part

        await StreamingResponse(parts())(scope, receive, send)

    async def early(self, scope: Any, receive: Any, send: Any) -> None:
        await Response("enough", 413)(scope, receive, send)

    async def flood(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(1000):
            await send({"type": "http.response.body", "body": bytes(2**16), "more_body": True})
            self.written += 2**16
        await send({"type": "http.response.body"})

    async def slow(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await while_connected(Request(scope, receive), asyncio.Event().wait())
        except Gone:
            self.gone.set()

    async def disconnect(self, scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.gone.set()

    async def fail(self, scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("a secret of the server")

    async def fail_late(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise RuntimeError("a secret of the server")

    async def silence(self, scope: Any, receive: Any, send: Any) -> None:
        pass

    async def split(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-a", b"1\r\nx-b: 2")]})
        await send({"type": "http.response.body", "body": b""})


@asynccontextmanager
async def echoing() -> AsyncIterator[tuple[Echo, Any]]:
    """The application, and what opens a connection."""
    app = Echo()
    async with serving(app) as url:
        writers: list[asyncio.StreamWriter] = []

        async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(url).port, limit=2**27)
            writers.append(writer)
            return reader, writer

        try:
            yield app, connect
        finally:
            for writer in writers:
                writer.close()


async def answer(reader: asyncio.StreamReader, *, headless: bool = False) -> tuple[int, dict[str, str], bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
    status, body = int(head[0].split()[1]), b""
    if headless:
        pass
    elif headers.get("transfer-encoding") == "chunked":
        parts = []
        while size := int(await reader.readline(), 16):
            parts.append(await reader.readexactly(size))
            await reader.readline()
        await reader.readline()
        body = b"".join(parts)
    elif "content-length" in headers:
        body = await reader.readexactly(int(headers["content-length"]))
    elif status >= 200:
        body = await reader.read()
    return status, headers, body


async def sent(*pieces: bytes) -> tuple[int, dict[str, str], bytes]:
    async with echoing() as (_, connect):
        reader, writer = await connect()
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        return await answer(reader)


POST = b"POST /a%20b?q=1&r HTTP/1.1\r\nHost: h\r\nX-Id: 7\r\nContent-Length: 5\r\n\r\nhello"
CHUNKS = (
    b"POST /a%20b?q=1&r HTTP/1.1\r\nHost: h\r\nX-Id: 7\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"2;x\r\nhe\r\n3\r\nllo\r\n0\r\nX-Id: 8\r\n\r\n"
)
ABSOLUTE = POST.replace(b"/a", b"http://h/a", 1)
TOLD = {"method": "POST", "path": "/a b", "query": "q=1&r", "body": "hello"}


@pytest.mark.parametrize("request_", [POST, CHUNKS, ABSOLUTE])
async def test_a_request_is_what_was_asked_even_byte_by_byte(request_: bytes) -> None:
    status, headers, body = await sent(*(request_[n : n + 1] for n in range(len(request_))))
    assert (status, headers["x-id"], json.loads(body)) == (200, "7", TOLD)
    assert "date" in headers
    assert "connection" not in headers


@settings(max_examples=30, deadline=None)
@given(
    cuts=st.sets(st.integers(1, len(POST + CHUNKS + ABSOLUTE) - 1), max_size=8),
)
def test_however_they_are_cut_they_are_answered_in_their_order(cuts: set[int]) -> None:
    async def run() -> list[Any]:
        data = POST + CHUNKS.replace(b"hello", b"other") + ABSOLUTE
        async with echoing() as (app, connect):
            reader, writer = await connect()
            for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(data)], strict=True):
                writer.write(data[start:end])
                await asyncio.sleep(0)
            found = [json.loads((await answer(reader))[2]) for _ in range(3)]
            assert len(app.asked) == 3
            return found

    assert asyncio.run(run()) == [TOLD] * 3


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\nGET /second HTTP/1.1\r\nHost: h\r\n\r\n",
    ],
)
async def test_the_last_answer_of_a_connection_says_so(request_: bytes) -> None:
    async with echoing() as (app, connect):
        reader, writer = await connect()
        writer.write(request_)
        status, headers, body = await answer(reader)
        assert (status, headers["connection"], json.loads(body)["path"]) == (200, "close", "/")
        assert await reader.read() == b""
        assert app.asked == ["/"]


async def test_streams_end_as_the_caller_understands() -> None:
    for version, form in ((b"1.1", "transfer-encoding"), (b"1.0", "connection")):
        status, headers, body = await sent(b"GET /stream HTTP/%b\r\nHost: h\r\n\r\n" % version)
        assert (status, form in headers, body) == (200, True, b"onetwo")


async def test_a_head_is_answered_with_a_head() -> None:
    async with echoing() as (_, connect):
        reader, writer = await connect()
        for path in (b"/", b"/stream"):
            writer.write(b"HEAD %b HTTP/1.1\r\nHost: h\r\n\r\n" % path)
            assert (await answer(reader, headless=True))[0] == 200
        writer.write(POST)
        assert json.loads((await answer(reader))[2]) == TOLD


async def test_a_body_that_waits_to_be_asked_for_is_asked_for() -> None:
    async with echoing() as (_, connect):
        reader, writer = await connect()
        writer.write(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"hi")
        assert json.loads((await answer(reader))[2])["body"] == "hi"


async def test_a_body_that_was_not_asked_for_ends_the_connection_and_old_callers_are_not_told_to_go_on() -> None:
    async with echoing() as (_, connect):
        reader, writer = await connect()
        writer.write(b"POST /early HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        status, headers, _ = await answer(reader)
        assert (status, headers["connection"]) == (413, "close")
        assert await reader.read() == b""
        reader, writer = await connect()
        writer.write(b"POST / HTTP/1.0\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\nhi")
        assert (await answer(reader))[0] == 200


BAD = {
    "garbage": (b"\x16\x03\x01garbage\r\n\r\n", 400),
    "a length that is none": (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n", 400),
    "two lengths": (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
    "a length and chunks": (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    "chunks that are none": (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", 400),
    "a space before the colon": (b"GET / HTTP/1.1\r\nHost : h\r\n\r\n", 400),
    "no letters of ours": (b"GET /\xff HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    "a head without end": (b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"y" * (MAX_HEAD + 1), 431),
    "a path without end": (b"GET /" + b"y" * (MAX_HEAD + 1), 431),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two hosts": (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    "a URL without a host": (b"GET http:///x HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    "the wish for a proxy": (b"CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n", 501),
    "another encoding": (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
    "one more encoding": (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    "a trailer without end": (CHUNKS[:-4] + b"X: " + b"y" * (8 * MAX_HEAD), 431),
}


@pytest.mark.parametrize("name", BAD)
async def test_what_is_no_request_is_refused_in_our_shape(name: str) -> None:
    data, expected = BAD[name]
    status, headers, body = await sent(data)
    assert (status, headers["connection"]) == (expected, "close")
    told = json.loads(body)
    kind = "not_supported_error" if expected == 501 else "invalid_request_error"
    assert (told["type"], told["error"]["type"]) == ("error", kind)
    assert "callback" not in told["error"]["message"]
    assert told["request_id"] == headers["x-request-id"]


async def test_what_is_no_request_is_counted() -> None:
    async with serving(model_app(Talker(), "talker", Settings())) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(url).port)
        writer.write(b"garbage\r\n\r\n")
        assert (await answer(reader))[0] == 400
        writer.close()
        _, text = await get(f"{url}/metrics")
    assert 'rollforge_requests_total{method="(unknown)",path="(unknown)",status="400"} 1.0' in text


UPGRADE = b"POST /a%20b?q=1&r HTTP/1.1\r\nHost: h\r\nX-Id: 7\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"


@pytest.mark.parametrize("sizes", [(10_000,), (1,)])
async def test_the_wish_for_another_protocol_is_passed_over_and_the_body_is_read(sizes: tuple[int]) -> None:
    """As `curl --http2` and the HttpClient of Java ask."""
    whole = UPGRADE + b"Content-Length: 5\r\n\r\nhello"
    chunks = UPGRADE + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    data = whole + chunks + POST + whole
    async with echoing() as (_, connect):
        reader, writer = await connect()
        for start in range(0, len(data), sizes[0]):
            writer.write(data[start : start + sizes[0]])
            await asyncio.sleep(0)
        for _ in range(4):
            status, headers, body = await answer(reader)
            assert (status, headers["x-id"], json.loads(body)) == (200, "7", TOLD)


@pytest.mark.parametrize(
    ("line", "path", "query"),
    [
        (b"GET http://h", "/", ""),
        (b"GET http://h?a=1", "/", "a=1"),
        (b"GET http://h/x?a", "/x", "a"),
        (b"OPTIONS *", "*", ""),
    ],
)
async def test_targets_of_every_form_have_a_path(line: bytes, path: str, query: str) -> None:
    status, _, body = await sent(line + b" HTTP/1.1\r\nHost: h\r\n\r\n")
    told = json.loads(body)
    assert (status, told["path"], told["query"]) == (200, path, query)


async def test_blanks_behind_a_value_are_none_of_it() -> None:
    async with serving(model_app(Talker(), "talker", Settings())) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(url).port)
        writer.write(b'POST /v1/responses HTTP/1.1\r\nHost: h\r\nContent-Length: 13 \t\r\n\r\n{"input":"x"}')
        assert (await answer(reader))[0] == 200
        writer.close()


async def test_garbage_behind_a_request_does_not_harm_its_answer() -> None:
    status, headers, body = await sent(POST + b"\x00garbage\r\n\r\n")
    assert (status, headers["connection"], json.loads(body)) == (200, "close", TOLD)


async def test_an_early_answer_leaves_the_rest_of_the_body_behind() -> None:
    async with echoing() as (_, connect):
        reader, writer = await connect()
        writer.write(b"POST /early HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n12345")
        assert (await answer(reader))[0] == 413
        writer.write(b"67890" + POST)
        assert json.loads((await answer(reader))[2]) == TOLD


async def test_a_caller_that_goes_away_is_noticed() -> None:
    for path in (b"/slow", b"/disconnect"):
        async with echoing() as (app, connect):
            _, writer = await connect()
            writer.write(b"GET %b HTTP/1.1\r\nHost: h\r\n\r\n" % path)
            while not app.asked:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            writer.close()
            await app.gone.wait()


async def test_without_an_exchange_the_messages_tell_that_the_caller_went() -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    scope = {"type": "http", "headers": []}
    assert EXCHANGE not in scope
    with pytest.raises(Gone):
        await while_connected(Request(scope, receive), asyncio.Event().wait())


async def test_an_answer_that_nobody_reads_waits() -> None:
    async with echoing() as (app, connect):
        reader, writer = await connect()
        reader._transport.pause_reading()
        writer.write(b"GET /flood HTTP/1.1\r\nHost: h\r\n\r\n")
        before = -1
        while before < app.written or not app.asked:
            before = app.written
            await asyncio.sleep(0.05)
        assert app.written < 1000 * 2**16
        reader._transport.resume_reading()
        assert len((await answer(reader))[2]) == 1000 * 2**16


async def test_a_body_that_nobody_takes_waits() -> None:
    async with echoing() as (app, connect):
        _, writer = await connect()
        writer.write(b"POST /slow HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000000\r\n\r\n")
        sent = 0
        try:
            async with asyncio.timeout(0.5):
                while True:
                    writer.write(bytes(2**20))
                    await writer.drain()
                    sent += 2**20
        except TimeoutError:
            pass
        assert app.asked == ["/slow"]
        assert sent < 100 * 2**20
        writer.transport.abort()


FAILED = {"fail": 500, "silence": 500, "split": 500}


@pytest.mark.parametrize("path", FAILED)
async def test_an_application_that_fails_is_a_bug_that_tells_nothing(path: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        status, headers, body = await sent(b"GET /%b HTTP/1.1\r\nHost: h\r\n\r\n" % path.encode())
    assert (status, headers["connection"]) == (500, "close")
    assert "x-b" not in headers
    assert b"secret" not in body
    assert f"/{path}" in caplog.text


async def test_half_an_answer_is_cut_off(caplog: pytest.LogCaptureFixture) -> None:
    async with echoing() as (_, connect):
        reader, writer = await connect()
        writer.write(b"GET /fail_late HTTP/1.1\r\nHost: h\r\n\r\n")
        found = await reader.read()
        assert found.endswith(b"4\r\nhalf\r\n")
    assert "/fail_late" in caplog.text


@pytest.mark.parametrize("count", [2, 50])
async def test_requests_that_come_at_once_are_answered_one_after_the_other(count: int) -> None:
    requests: Sequence[bytes] = [POST.replace(b"hello", b"%05d" % number) for number in range(count)]
    async with echoing() as (_, connect):
        reader, writer = await connect()
        writer.write(b"".join(requests))
        bodies = [json.loads((await answer(reader))[2])["body"] for _ in requests]
    assert bodies == [f"{number:05}" for number in range(count)]
