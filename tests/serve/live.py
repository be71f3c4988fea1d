"""A service on a real socket for as long as a test needs it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import uvicorn

from rollforge.serve.protocol import HttpProtocol
from rollforge.serve.run import listen


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # they are pytest's


@asynccontextmanager
async def serving(app: Any) -> AsyncIterator[str]:
    """The service's URL."""
    options: Any = {"ws": "none", "lifespan": "on", "log_config": None, "access_log": False, "proxy_headers": False}
    config = uvicorn.Config(app, http=HttpProtocol, timeout_graceful_shutdown=5, **options)
    server = _Server(config)
    with listen("127.0.0.1", 0) as socket:
        host, port = socket.getsockname()[:2]
        running = asyncio.create_task(server.serve([socket]))
        try:
            while not server.started and not running.done():  # noqa: ASYNC110 - uvicorn tells nobody
                await asyncio.sleep(0.005)
            yield f"http://{host}:{port}"
        finally:
            server.should_exit = True
            await running


@contextmanager
def in_thread(app: Any) -> Iterator[str]:
    """The same for clients that block."""
    urls: list[str] = []
    up = threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def live() -> None:
        try:
            async with serving(app) as url:
                urls.append(url)
                up.set()
                await stop.wait()
        finally:
            up.set()

    thread = threading.Thread(target=lambda: loop.run_until_complete(live()), daemon=True)
    thread.start()
    up.wait()
    try:
        yield urls[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()
