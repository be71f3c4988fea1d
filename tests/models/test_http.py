"""The HTTP client against servers that stutter, lie, stop, say too much, or close at the wrong time."""

from __future__ import annotations

import asyncio
import gc
import gzip
import ssl
import subprocess
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from shutil import which
from typing import Any

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st
from yarl import URL

from rollforge.errors import UserError
from rollforge.models.broken import Closed, CutOff, Late, NoConnection, NoName, NotHttp, NoTls, TooLarge
from rollforge.models.dial import Target, header_lines, target
from rollforge.models.http import Answer, Client
from tests.models.server import closing

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Server:
    """What the connections, each in its turn, are told to do; the last one's is done for all that follow."""

    def __init__(self, talks: Sequence[Talk]) -> None:
        self.talks = talks
        self.connections = 0
        self.requests: list[bytes] = []
        self.tasks: set[Any] = set()
        self.url = URL()

    @property
    def to(self) -> Target:
        return target(self.url / "x")

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talk = self.talks[min(self.connections, len(self.talks) - 1)]
        self.connections += 1
        self.tasks.add(asyncio.current_task())
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await talk(reader, writer)
            writer.close()
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            self.tasks.discard(asyncio.current_task())

    async def end(self) -> None:
        for task in [*self.tasks]:
            task.cancel()
        await asyncio.sleep(0)


@asynccontextmanager
async def serving(*talks: Talk | bytes, host: str = "127.0.0.1", tls: Any = None) -> AsyncIterator[Server]:
    """Bytes: the answer to each request, on a connection that is kept."""
    found = Server(())
    found.talks = [answering(found, talk) if isinstance(talk, bytes) else talk for talk in talks]
    async with await asyncio.start_server(found.handle, host, 0, ssl=tls) as listening:
        port = listening.sockets[0].getsockname()[1]
        name = f"[{host}]" if ":" in host else host
        found.url = URL(f"{'https' if tls else 'http'}://{name}:{port}")
        yield found
        await found.end()


def answering(server: Server, *answers: bytes, close: bool = False) -> Talk:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for number in range(10**6):
            if number >= len(answers) and close:
                return
            server.requests.append(await request(reader))
            writer.write(answers[min(number, len(answers) - 1)])
            await writer.drain()

    return talk


async def request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    size = next((int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:")), 0)
    return head + await reader.readexactly(size)


@asynccontextmanager
async def client(**options: Any) -> AsyncIterator[Client]:
    async with closing(Client(options.pop("headers", {"User-Agent": "test"}), **options)) as made:
        yield made


async def ask(answer: bytes | Talk, method: str = "POST", **options: Any) -> Answer:
    async with serving(answer) as server, client(**options) as http:
        return await http.send(method, server.to, b"{}" if method == "POST" else None)


def chunked(*parts: bytes, last: bytes = b"0\r\n\r\n", head: bytes = b"") -> bytes:
    body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    return b"HTTP/1.1 200 OK\r\n%bTransfer-Encoding: chunked\r\n\r\n%b%b" % (head, body, last)


def sized(body: bytes, head: bytes = b"", status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 %b\r\n%bContent-Length: %d\r\n\r\n%b" % (status, head, len(body), body)


RAW = zlib.compressobj(wbits=-15)
BARE = RAW.compress(b"packed") + RAW.flush()
EARLY = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nX-Late: 1\r\n\r\n"
FORMS: dict[str, tuple[bytes, bytes]] = {
    "a length": (sized(b"hello"), b"hello"),
    "no body": (sized(b""), b""),
    "chunks": (chunked(b"hel", b"lo"), b"hello"),
    "extensions and trailers": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b;c\r\nhel\r\n2\r\nlo\r\n0;x\r\nX-Late: 1\r\n\r\n",
        b"hello",
    ),
    "the end": (b"HTTP/1.1 200 OK\r\n\r\nhello", b"hello"),
    "an old server": (b"HTTP/1.0 200 OK\r\nServer: old\r\n\r\nhello", b"hello"),
    "no reason": (b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nhi", b"hi"),
    "words before the answer": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nX-Late: 1\r\n\r\n" + sized(b"hi"),
        b"hi",
    ),
    "gzip": (sized(gzip.compress(b"packed"), b"Content-Encoding: gzip\r\n"), b"packed"),
    "gzip in members": (sized(gzip.compress(b"pac") + gzip.compress(b"ked"), b"Content-Encoding: x-gzip\r\n"), b"packed"),
    "deflate": (chunked(zlib.compress(b"packed"), head=b"Content-Encoding: deflate\r\n"), b"packed"),
    "bare deflate": (sized(BARE, b"Content-Encoding: deflate\r\n"), b"packed"),
    "nothing unpacked": (sized(b"as it is", b"Content-Encoding: identity\r\n"), b"as it is"),
}


def in_pieces(answer: bytes, cuts: Sequence[int]) -> Talk:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        for start, end in zip([0, *cuts], [*cuts, len(answer)], strict=True):
            writer.write(answer[start:end])
            await writer.drain()
            await asyncio.sleep(0)

    return talk


@pytest.mark.parametrize("form", FORMS)
async def test_an_answer_is_its_status_head_and_body_even_byte_by_byte(form: str) -> None:
    answer, body = FORMS[form]
    found = await ask(in_pieces(answer, range(1, len(answer))))
    assert (found.status, found.body) == (200, body)
    assert "x-late" not in found.headers


@settings(max_examples=60, deadline=None)
@given(form=st.sampled_from(sorted(FORMS)), data=st.data(), streamed=st.booleans())
def test_however_it_is_cut_it_is_the_same_answer(form: str, data: st.DataObject, streamed: bool) -> None:
    answer, body = FORMS[form]
    cuts = sorted(data.draw(st.sets(st.integers(1, len(answer) - 1), max_size=8)))

    async def run() -> bytes:
        async with serving(in_pieces(answer, cuts)) as server, client() as http:
            if not streamed:
                return (await http.send("POST", server.to, b"")).body
            return await (await http.open("POST", server.to, b"")).read()

    assert asyncio.run(run()) == body


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_on_both_loops_connections_are_kept_and_cancelled_requests_close_theirs(run: Callable[..., Any]) -> None:
    async def scenario() -> None:
        asked, gone = asyncio.Event(), asyncio.Event()

        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await request(reader)
            asked.set()
            await reader.read()
            gone.set()

        async with serving(sized(b"one"), silent) as server, client() as http:
            for _ in range(3):
                assert (await http.send("POST", server.to, b"{}")).body == b"one"
            assert server.connections == 1
            first, second = (asyncio.create_task(http.send("POST", server.to, b"{}")) for _ in range(2))
            assert (await first).body == b"one"
            await asked.wait()
            second.cancel()
            with pytest.raises(asyncio.CancelledError):
                await second
            await gone.wait()

    run(scenario())


async def test_a_request_is_what_was_asked_for() -> None:
    async with serving(OK) as server, client(headers={"User-Agent": "me", "Accept": "a"}) as http:
        await http.send("POST", target(server.url / "a b" % {"q": "é"}), b"body", {"accept": "b", "X-Id": "1"})
        await http.send("GET", target(server.url.with_user("ann").with_password("p:w")))
        await http.send("POST", server.to)
    first, second, third = (one.decode() for one in server.requests)
    assert first.startswith("POST /a%20b?q=%C3%A9 HTTP/1.1\r\nHost: 127.0.0.1:")
    assert "User-Agent: me\r\n" in first
    assert "accept: b\r\nX-Id: 1\r\nContent-Length: 4\r\n\r\nbody" in first
    assert "Accept: a" not in first
    assert "Authorization: Basic YW5uOnA6dw==\r\n" in second
    assert "Content-Length" not in second
    assert "Content-Length: 0\r\n" in third


async def test_headers_come_as_they_were_sent() -> None:
    head = b"X-A: 1\r\nx-a: 2\r\nSet-Cookie: a=1; Path=/\r\nSet-Cookie: b=\xff\r\nContent-Type: Text/Event-Stream; x=1\r\n"
    found = await ask(sized(b"", head, b"418 Short and stout"))
    assert (found.status, found.reason, found.headers["x-a"]) == (418, "Short and stout", "1, 2")
    assert (found.cookies[0], found.content_type) == ("a=1; Path=/", "text/event-stream")
    assert b"b=\xff" in header_lines({"Cookie": found.cookies[1]})


INJECTED = ["a\r\nX: 1", "a\nX: 1", "a\rb", "a\0b", "\ud800"]


@pytest.mark.parametrize("value", INJECTED)
async def test_no_header_can_be_smuggled_in(value: str) -> None:
    with pytest.raises(UserError, match="the header Cookie has a line break"):
        Client({"Cookie": value})
    async with serving(OK) as server, client() as http:
        with pytest.raises(UserError, match="Cookie"):
            await http.send("GET", server.to, headers={"Cookie": value})
        with pytest.raises(UserError, match="is no header that can be set"):
            await http.send("GET", server.to, headers={f"X{value}": "1"})
    assert not server.requests


@pytest.mark.parametrize("name", ["Content-Length", "transfer-encoding", "Connection", "", "X Y", "X:"])
async def test_where_a_request_ends_is_for_the_client_to_say(name: str) -> None:
    with pytest.raises(UserError, match="is no header that can be set"):
        Client({name: "1"})


BROKEN: dict[str, tuple[bytes, type[Exception], str]] = {
    "nothing": (b"", Closed, "before its answer was complete"),
    "half a head": (b"HTTP/1.1 200 OK\r\nContent-Le", Closed, "before"),
    "half a body": (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nabc", CutOff, "3 of 50 bytes"),
    "half a chunk": (chunked(b"abc", last=b"5\r\nab"), CutOff, "its end is missing"),
    "no last chunk": (chunked(b"abc", last=b""), CutOff, "its end is missing"),
    "another protocol": (b"SSH-2.0-OpenSSH_9.6\r\n", NotHttp, "Expected HTTP/"),
    "a status that is none": (b"HTTP/1.1 20x OK\r\n\r\n", NotHttp, "status"),
    "two lengths": (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", NotHttp, "Content-Length"),
    "a length and chunks": (sized(b"a", b"Transfer-Encoding: chunked\r\n"), NotHttp, "Content-Length"),
    "a chunk without a size": (chunked(last=b"xyz\r\n"), NotHttp, "chunk"),
    "a form that nobody asked for": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nab", NotHttp, "'gzip'"),
    "another protocol from here on": (
        b"HTTP/1.1 101 Go\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        NotHttp,
        "another protocol",
    ),
    "a packing that nobody asked for": (sized(b"a", b"Content-Encoding: br\r\n"), CutOff, "'br'"),
    "what does not unpack": (sized(b"abc", b"Content-Encoding: gzip\r\n"), CutOff, "cannot be unpacked"),
    "half of what is packed": (sized(gzip.compress(b"a")[:-9], b"Content-Encoding: gzip\r\n"), CutOff, "missing"),
    "a terabyte": (b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\nab", TooLarge, "^$"),
    "more than its limit": (sized(b"a" * 1001), TooLarge, "^$"),
    "chunks beyond the limit": (chunked(*[b"a" * 100] * 11), TooLarge, "^$"),
    "what unpacks to too much": (sized(gzip.compress(bytes(10**6)), b"Content-Encoding: gzip\r\n"), TooLarge, "^$"),
    "many that unpack to too much": (
        sized(gzip.compress(bytes(90)) * 20, b"Content-Encoding: gzip\r\n"),
        TooLarge,
        "^$",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("streamed", [False, True])
async def test_what_is_no_whole_answer_says_what_it_is(name: str, streamed: bool) -> None:
    answer, kind, says = BROKEN[name]
    async with serving(in_pieces(answer, [])) as server, client(limit=1000) as http:

        async def read() -> bytes:
            return await (await http.open("POST", server.to, b"{}")).read()

        with pytest.raises(kind, match=says):
            await (read() if streamed else http.send("POST", server.to, b"{}"))


ENDLESS = {
    "a head": (b"HTTP/1.1 200 OK\r\n", b"X: %b\r\n" % (b"y" * 1000)),
    "a header": (b"HTTP/1.1 200 OK\r\nX: ", b"y" * 1000),
    "a reason": (b"HTTP/1.1 200 ", b"y" * 1000),
    "a trailer": (chunked(b"a", last=b"0\r\nX: "), b"y" * 1000),
    "an extension of a chunk": (chunked(last=b"5;"), b"y" * 1000),
    "words before the answer": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 40),
}


@pytest.mark.parametrize("name", ENDLESS)
async def test_what_never_becomes_a_body_is_given_up(name: str) -> None:
    start, more = ENDLESS[name]
    sent = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await request(reader)
        writer.write(start)
        while True:
            writer.write(more)
            sent += len(more)
            await writer.drain()

    with pytest.raises(NotHttp, match="more than 64 KiB that are no body"):
        await ask(talk)
    assert sent < 64 * 2**20


async def test_a_second_answer_is_never_that_of_the_next_request() -> None:
    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(sized(b"first"))
        await writer.drain()
        told.set()
        await asyncio.sleep(0.01)
        writer.write(sized(b"surplus"))
        await reader.read()
        dropped.set()

    told, dropped = asyncio.Event(), asyncio.Event()
    at_once = sized(b"first") + sized(b"surplus")
    half = sized(b"first") + b"HTT"
    async with serving(at_once, half, late, sized(b"second")) as server, client() as http:
        for _ in range(3):
            assert (await http.send("POST", server.to, b"")).body == b"first"
        await told.wait()
        await dropped.wait()
        assert (await http.send("POST", server.to, b"")).body == b"second"
    assert server.connections == 4


async def test_a_connection_is_not_kept_where_the_server_says_so() -> None:
    answers = (
        sized(b"1", b"Connection: close\r\n"),
        b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n2",
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\n3",
    )
    async with serving(*answers) as server, client() as http:
        bodies = [(await http.send("POST", server.to, b"")).body for _ in range(4)]
    assert (bodies, server.connections) == ([b"1", b"2", b"3", b"3"], 3)


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"),
        ("HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n"),
    ],
)
async def test_some_answers_have_no_body_whatever_they_say(method: str, answer: bytes) -> None:
    async with serving(answer) as server, client() as http:
        for _ in range(2):
            assert (await http.send(method, server.to)).body == b""


async def test_an_answer_may_come_before_the_request_is_sent() -> None:
    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(sized(b"too large", status=b"413 Too Large"))
        await writer.drain()
        await over.wait()

    over = asyncio.Event()
    async with serving(early, OK) as server, client() as http:
        found = await http.send("POST", server.to, bytes(64 * 2**20))
        assert (found.status, found.body) == (413, b"too large")
        assert (await http.send("POST", server.to, b"")).body == b"ok"  # and not after the rest of the first
        over.set()


async def test_a_kept_connection_that_ends_is_mended_only_where_that_does_no_harm() -> None:
    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(OK)
        await request(reader)
        server.requests.append(b"read")

    async with serving(once, once, OK) as server, client() as http:
        await http.send("POST", server.to, b"")
        with pytest.raises(Closed):
            await http.send("POST", server.to, b"")
        assert server.connections == 1
        await http.send("POST", server.to, b"")
        assert (await http.send("GET", server.to)).body == b"ok"
        assert server.connections == 3
        assert server.requests.count(b"read") == 2


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # of the transports that the first loop left
@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_another_event_loop_has_connections_of_its_own(run: Callable[..., Any]) -> None:
    http = Client({})

    async def scenario(server: Server) -> None:
        to = target(server.url.with_host("localhost"))
        for _ in range(2):
            assert (await asyncio.wait_for(http.send("POST", to, b""), 5)).body == b"ok"

    with serving_elsewhere(OK) as server:
        for loops in (1, 2):
            run(scenario(server))
            assert server.connections == loops
        run(http.aclose())
        gc.collect()


@contextmanager
def serving_elsewhere(*talks: bytes) -> Iterator[Server]:
    """In a thread with a loop of its own, which outlives those of the clients."""
    with asyncio.Runner() as runner, ThreadPoolExecutor(1) as thread:
        served = serving(*talks)
        server, over = thread.submit(runner.run, served.__aenter__()).result(), asyncio.Event()

        async def wait() -> None:
            await over.wait()
            await served.__aexit__(None, None, None)

        waiting = thread.submit(runner.run, wait())
        try:
            yield server
        finally:
            runner.get_loop().call_soon_threadsafe(over.set)
            waiting.result()


async def test_a_connection_that_ended_while_idle_is_not_asked() -> None:
    async with serving(OK) as server, client() as http:
        server.talks = [answering(server, OK, close=True)]
        for _ in range(3):
            assert (await http.send("POST", server.to, b"")).body == b"ok"
            await asyncio.sleep(0.02)
    assert server.connections == 3


async def test_what_is_not_read_waits_at_the_server() -> None:
    size, sent = 64 * 2**20, 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        while sent < size:
            writer.write(bytes(2**16))
            sent += 2**16
            await writer.drain()

    async with serving(talk) as server, client() as http:
        found = await http.open("POST", server.to, b"")
        before = -1
        while before < sent:
            before = sent
            await asyncio.sleep(0.05)
        assert sent < size / 2
        assert found.ahead < 2**20
        assert len(await found.read()) == size


async def test_an_opened_answer_that_is_closed_ends_at_the_server() -> None:
    gone = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(chunked(b"data: 1\n\n", last=b""))
        await reader.read()
        gone.set()

    async with serving(talk) as server, client() as http:
        found = await http.open("POST", server.to, b"")
        assert await anext(found) == b"data: 1\n\n"
        found.close()
        await gone.wait()


async def test_names_and_addresses() -> None:
    async with serving(OK) as server, client() as http:
        for _ in range(2):
            assert (await http.send("GET", target(server.url.with_host("localhost")))).body == b"ok"
        with pytest.raises((NoName, NoConnection)) as error:
            await http.send("GET", target(URL("http://no-such-host.invalid")))
        assert not error.value.arrived
    with suppress(OSError):  # where there is no IPv6
        async with serving(OK, host="::1") as server, client() as http:
            assert (await http.send("GET", server.to)).body == b"ok"
            assert b"\r\nHost: [::1]:%d\r\n" % (server.url.port or 0) in server.requests[0]
    async with client() as http:
        with pytest.raises(NoConnection, match=r"refused|Connect call failed"):
            await http.send("GET", target(URL("http://127.0.0.1:1")))


@pytest.mark.parametrize("url", ["http://h/\x00", "http://h/ a"])
def test_paths_cannot_break_the_line(url: str) -> None:
    made = target(URL(url))
    assert made.line.count(b" ") == 2
    assert b"\0" not in made.line
    with pytest.raises(UserError, match="nothing that an HTTP request can ask for"):
        target(URL("http://h/a b\r\n", encoded=True))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    if which("openssl") is None:
        pytest.skip("openssl makes the certificate")
    folder = tmp_path_factory.mktemp("tls")
    key, cert = folder / "key.pem", folder / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    names = ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(cert)]
    subprocess.run([*command, *names], check=True, capture_output=True)
    return key, cert


@pytest.fixture
def tls(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate[1], certificate[0])
    return context


def trust(certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[1]))


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_tls(
    run: Callable[..., Any], tls: ssl.SSLContext, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with serving(sized(b"secret"), tls=tls) as server:
            local = target(server.url.with_host("localhost") / "x")
            async with client() as http:
                with pytest.raises(NoTls, match=r"CERTIFICATE_VERIFY_FAILED|self-signed") as error:
                    await http.send("POST", local, b"")
                assert error.value.lasting
            trust(certificate, monkeypatch)
            async with client() as http:
                for _ in range(2):
                    assert (await http.send("POST", local, b"")).body == b"secret"
                with pytest.raises(NoTls, match=r"127.0.0.1|mismatch"):
                    await http.send("POST", server.to, b"")
            monkeypatch.delenv("SSL_CERT_FILE")

    run(scenario())


async def test_plain_http_where_tls_was_asked_for() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with serving(talk) as server, client() as http:
        with pytest.raises(NoTls) as error:
            await http.send("POST", target(server.url.with_scheme("https").with_port(server.url.port)), b"")
    assert not error.value.arrived


async def test_a_proxy_is_asked_for_the_whole_url() -> None:
    async with serving(OK) as proxy, client() as http:
        via = target(URL("http://ann:pw@far.example/x?y=1"), str(proxy.url.with_user("me").with_password("it")))
        assert (await http.send("POST", via, b"")).body == b"ok"
    asked = proxy.requests[0]
    assert asked.startswith(b"POST http://far.example/x?y=1 HTTP/1.1\r\nHost: far.example\r\n")
    assert b"Proxy-Authorization: Basic bWU6aXQ=\r\n" in asked
    assert b"\r\nAuthorization: Basic YW5uOnB3\r\n" in asked


async def test_through_a_proxy_tls_is_spoken_to_the_server_itself(
    tls: ssl.SSLContext, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await request(reader))
        there, back = await asyncio.open_connection("127.0.0.1", server.url.port)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")

        async def copy(source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
            try:
                while data := await source.read(2**16):
                    to.write(data)
            finally:
                to.close()

        await asyncio.gather(copy(reader, back), copy(there, writer))

    trust(certificate, monkeypatch)
    async with serving(sized(b"secret"), tls=tls) as server, serving(tunnel) as proxy, client() as http:
        via = target(server.url.with_host("localhost") / "x", str(proxy.url.with_user("me").with_password("it")))
        assert (await http.send("POST", via, b"")).body == b"secret"
    port = server.url.port or 0
    assert asked[0].startswith(b"CONNECT localhost:%d HTTP/1.1\r\nHost: localhost:%d\r\n" % (port, port))
    assert b"Proxy-Authorization: Basic bWU6aXQ=\r\n" in asked[0]
    assert b"Proxy-Authorization" not in server.requests[0]


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 407 Who are you\r\n\r\n", b"", b"garbage", b"HTTP/1.1 200 OK\r\n\r\nsurplus", b"y" * 20_000]
)
async def test_a_proxy_that_does_not_lead_there_is_told(answer: bytes) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(answer)

    async with serving(refuse) as proxy, client() as http:
        with pytest.raises(NoConnection, match=r"the proxy 127.0.0.1:.* answered"):
            await http.send("POST", target(URL("https://far.example/"), str(proxy.url)), b"")


def test_other_proxies_are_refused_when_they_are_named() -> None:
    with pytest.raises(UserError, match=r"the proxy for h is socks5://p:1: only http"):
        target(URL("http://h/"), "socks5://me:secret@p:1")


async def test_a_connection_is_waited_for_as_long_as_was_said() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        gone.set()

    gone = asyncio.Event()
    async with serving(silent) as server, client(connect_seconds=0.05) as http:
        with pytest.raises(Late, match=r"0.05 s") as error:
            await http.send("GET", target(URL(f"https://127.0.0.1:{server.url.port}")))
        await gone.wait()
    assert not error.value.arrived
