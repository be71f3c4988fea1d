"""A model server that costs next to nothing, so that what is measured is its client.

HTTP/1.1 with keep-alive by hand on raw sockets: POST /v1/chat/completions and /v1/responses, GET /v1/models, /health and
/stats. The first call of a conversation is answered with a tool call, a conversation that holds a tool's output with a final
text. Bodies are searched, not parsed, and the answers are made once. Prints its port, and ends on SIGTERM, after --seconds,
or with --until-eof when its standard input closes.

    python benchmarks/stub_server.py --latency lognormal:8:60:240 --fault 500=0.01 --fault drop=0.01
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import resource
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

import uvloop

FAULTS = ("500", "429", "drop", "garbage", "truncate", "hang")
P99 = 2.3263478740408408  # of the standard normal distribution


@dataclass
class Stats:
    started: float = 0.0
    connections: int = 0
    open: int = 0
    requests: int = 0
    finals: int = 0
    """Final texts sent: as many as rollouts were finished, unless the client repeats itself."""
    faults: int = 0
    drawn: int = 0
    delay: float = 0.0
    """Sum of the latencies drawn, in seconds."""
    waiting: int = 0
    """Requests being held back right now, and at most; `held` is its integral over time."""
    most_waiting: int = 0
    held: float = 0.0
    changed: float = 0.0

    def wait(self, change: int, now: float) -> None:
        self.held += self.waiting * (now - self.changed)
        self.changed = now
        self.waiting += change
        self.most_waiting = max(self.most_waiting, self.waiting)

    def row(self, now: float) -> dict[str, float]:
        self.wait(0, now)
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return {**vars(self), "now": now, "cpu": usage.ru_utime + usage.ru_stime}


@dataclass
class Server:
    latency: Callable[[Random], float]
    faults: dict[str, float]
    answers: dict[tuple[bytes, bool], bytes]
    rng: Random
    loop: asyncio.AbstractEventLoop
    stats: Stats = field(default_factory=Stats)

    def fault(self) -> str:
        if not self.faults:
            return ""
        drawn = self.rng.random()
        for kind, share in self.faults.items():
            drawn -= share
            if drawn < 0:
                self.stats.faults += 1
                return kind
        return ""


class Connection(asyncio.Protocol):
    """Requests of one connection, one after the other: a client that pipelines is answered in its order of latencies."""

    __slots__ = ("buffer", "server", "transport")

    def __init__(self, server: Server) -> None:
        self.server = server
        self.buffer = b""
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.server.stats.connections += 1
        self.server.stats.open += 1

    def connection_lost(self, error: Exception | None) -> None:
        self.server.stats.open -= 1

    def data_received(self, data: bytes) -> None:
        buffer = self.buffer + data if self.buffer else data
        while (end := buffer.find(b"\r\n\r\n")) >= 0:
            head = buffer[:end]
            at = head.lower().find(b"\r\ncontent-length:")
            size = int(head[at + 17 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            stop = end + 4 + size
            if len(buffer) < stop:
                break
            self.respond(head, buffer[end + 4 : stop])
            buffer = buffer[stop:]
        self.buffer = buffer

    def respond(self, head: bytes, body: bytes) -> None:
        path = head.split(b" ", 2)[1].partition(b"?")[0]
        final = b'"tool_call_id"' in body or b'"function_call_output"' in body
        answer = self.server.answers.get((path, final))
        if answer is None:
            self.transport.write(self.other(path))
            return
        stats, loop = self.server.stats, self.server.loop
        stats.requests += 1
        kind = self.server.fault()
        delay = self.server.latency(self.server.rng)
        stats.drawn += 1
        stats.delay += delay
        if kind == "hang":
            return
        if delay <= 0:
            self.send(kind, answer, final)
            return
        stats.wait(1, loop.time())
        loop.call_later(delay, self.send_later, kind, answer, final)

    def send_later(self, kind: str, answer: bytes, final: bool) -> None:
        self.server.stats.wait(-1, self.server.loop.time())
        self.send(kind, answer, final)

    def send(self, kind: str, answer: bytes, final: bool) -> None:
        if self.transport.is_closing():
            return
        if not kind:
            self.server.stats.finals += final
            self.transport.write(answer)
        elif kind == "drop":
            self.transport.abort()
        elif kind == "truncate":
            self.transport.write(answer[: len(answer) * 2 // 3])
            self.transport.close()
        else:
            self.transport.write(FAULT_ANSWERS[kind])

    def other(self, path: bytes) -> bytes:
        if path == b"/stats":
            return http(self.server.stats.row(self.server.loop.time()))
        if path == b"/health":
            return http({"status": "ok"})
        if path == b"/v1/models":
            return http({"object": "list", "data": [{"id": "stub", "object": "model"}]})
        return http({"error": {"message": f"no such path: {path.decode('latin-1')}"}}, "404 Not Found")


def http(body: object, status: str = "200 OK", extra: str = "") -> bytes:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{extra}Content-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


FAULT_ANSWERS = {
    "500": http({"error": {"message": "the stub was told to fail", "type": "server_error"}}, "500 Internal Server Error"),
    "429": http({"error": {"message": "slow down"}}, "429 Too Many Requests", "Retry-After: 0\r\n"),
    "garbage": http(b"<html>not what you asked for"),
}


def answers(tool: str, arguments: str, reply: str) -> dict[tuple[bytes, bool], bytes]:
    usage = {"prompt_tokens": 60, "completion_tokens": 20, "total_tokens": 80}

    def chat(message: dict[str, object], reason: str) -> bytes:
        choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": reason}
        body = {"id": "chatcmpl-stub", "object": "chat.completion", "created": 1, "model": "stub"}
        return http({**body, "choices": [choice], "usage": usage})

    def responses(item: dict[str, object]) -> bytes:
        inner = {"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}
        usage = {"input_tokens": 60, "output_tokens": 20, "total_tokens": 80, **inner}
        body = {"id": "resp_stub", "object": "response", "created_at": 1.0, "model": "stub", "status": "completed"}
        body |= {"parallel_tool_calls": True, "tool_choice": "auto", "tools": []}
        return http({**body, "output": [{"id": "item_stub", "status": "completed", **item}], "usage": usage})

    call = {"id": "call_stub", "type": "function", "function": {"name": tool, "arguments": arguments}}
    part = {"type": "output_text", "text": reply, "annotations": []}
    return {
        (b"/v1/chat/completions", False): chat({"content": None, "tool_calls": [call]}, "tool_calls"),
        (b"/v1/chat/completions", True): chat({"content": reply}, "stop"),
        (b"/v1/responses", False): responses(
            {"type": "function_call", "call_id": "call_stub", "name": tool, "arguments": arguments}
        ),
        (b"/v1/responses", True): responses({"type": "message", "role": "assistant", "content": [part]}),
    }


def latency(text: str) -> Callable[[Random], float]:
    """`none`, `fixed:SECONDS`, or `lognormal:MEDIAN:P99[:MOST]`."""
    kind, *numbers = text.split(":")
    values = [float(number) for number in numbers]
    if kind == "none" and not values:
        return lambda rng: 0.0
    if kind == "fixed" and len(values) == 1:
        return lambda rng: values[0]
    if kind == "lognormal" and len(values) in (2, 3):
        mu, sigma, most = math.log(values[0]), math.log(values[1] / values[0]) / P99, values[2] if values[2:] else math.inf
        return lambda rng: min(rng.lognormvariate(mu, sigma), most)
    raise argparse.ArgumentTypeError(f"{text!r} is not none, fixed:SECONDS or lognormal:MEDIAN:P99[:MOST]")


def fault(text: str) -> tuple[str, float]:
    kind, _, share = text.partition("=")
    if kind not in FAULTS or not share:
        raise argparse.ArgumentTypeError(f"{text!r} is not KIND=SHARE with one of {', '.join(FAULTS)}")
    return kind, float(share)


async def serve(options: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    given = answers(options.tool, options.arguments, options.reply)
    server = Server(options.latency, dict(options.fault), given, Random(options.seed), loop)
    server.stats.started = server.stats.changed = loop.time()
    listening = await loop.create_server(lambda: Connection(server), "127.0.0.1", options.port, backlog=16_384)
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    if options.until_eof:
        loop.add_reader(sys.stdin, lambda: None if os.read(0, 1024) else stop.set())
    print(listening.sockets[0].getsockname()[1], flush=True)
    try:
        async with asyncio.timeout(options.seconds):
            await stop.wait()
    except TimeoutError:
        print(f"the stub ends after --seconds {options.seconds}", file=sys.stderr)
    listening.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--latency", type=latency, default="none", help="none, fixed:SECONDS, lognormal:MEDIAN:P99[:MOST]")
    parser.add_argument("--seed", type=int, default=0, help="of the latencies and faults")
    parser.add_argument("--fault", type=fault, action="append", default=[], metavar="KIND=SHARE", help=", ".join(FAULTS))
    parser.add_argument("--tool", default="lookup", help="the tool that is called first")
    parser.add_argument("--arguments", default='{"key": "amber"}', help="its arguments, as JSON")
    parser.add_argument("--reply", default="The value of amber is 42.", help="the final text")
    parser.add_argument("--seconds", type=float, default=3600.0, help="end after this time")
    parser.add_argument("--until-eof", action="store_true", help="end when standard input closes")
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    uvloop.run(serve(options))


if __name__ == "__main__":
    main()
