"""Several workers behind one socket: sessions stay whole, a dead worker costs only its own, nothing is left behind."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
import pytest
from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse
from yarl import URL

from rollforge.serve.app import App, answer, make_app
from rollforge.serve.forward import Forward, summed, together
from rollforge.serve.run import Service, start
from rollforge.serve.settings import Settings
from tests.serve.live import serving
from tests.serve.started import BANK, ROW, Started, get, post, started


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    (tmp_path / "bank.py").write_text(BANK, encoding="utf-8")
    return tmp_path


async def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.02)


async def session_of_each(url: str, workers: int) -> dict[int, dict[str, str]]:
    """A session on every worker: its cookie by the worker's number."""
    found: dict[int, dict[str, str]] = {}
    for _ in range(400):
        _, _, cookies = await post(f"{url}/seed_session", ROW)
        found[int(cookies["rollforge_session"].partition(".")[0])] = cookies
        if len(found) == workers:
            return found
    raise AssertionError(f"only the workers {sorted(found)} answered")


async def paid(url: str, cookies: dict[str, str]) -> tuple[int, int]:
    """Balance after paying one, and the process that keeps it."""
    status, text, _ = await post(f"{url}/pay", {"amount": 1}, cookies)
    assert status == 200, text
    balance, pid = text.strip('"').split()
    return int(balance), int(pid)


async def workers_of(url: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((await get(f"{url}/status"))[1])["workers"]
    return found


async def test_a_session_is_whole_whichever_worker_is_asked(bank: Path) -> None:
    with started(bank, "bank.py", "--port", "0", "--workers", "2") as service:
        url = service.urls["bank"]
        cookies = await session_of_each(url, 2)
        for cookie in cookies.values():
            seen = [await paid(url, cookie) for _ in range(6)]
            assert [balance for balance, _ in seen] == [1, 2, 3, 4, 5, 6]
            assert len({pid for _, pid in seen}) == 1
            status, text, _ = await post(f"{url}/verify", {**ROW, "response": {"output": []}}, cookie)
            assert (status, json.loads(text)["reward"]) == (200, 1.0)
            assert (await post(f"{url}/pay", {"amount": 1}, cookie))[0] == 410

        metrics = (await get(f"{url}/metrics"))[1]
        counted = re.search(r'rollforge_requests_total\{method="POST",path="/verify",status="200"\} (\S+)', metrics)
        assert counted
        assert float(counted[1]) == 2
        assert metrics.count("# TYPE rollforge_requests_total ") == 1
        assert len({worker["pid"] for worker in await workers_of(url)}) == 2

        for forged in ("1." + "0" * 32 + "." + "0" * 64, "77." + "0" * 32 + "." + "0" * 64, "x", "0.x.y"):
            status, text, _ = await post(f"{url}/pay", {"amount": 1}, {"rollforge_session": forged})
            assert (status, json.loads(text)["error"]["type"]) == (401, "authentication_error")
        assert service.stop()[0] == 0


async def test_an_opening_asked_for_again_is_one_session_whichever_worker_is_asked(bank: Path) -> None:
    with started(bank, "bank.py", "--port", "0", "--workers", "2") as service:
        url = service.urls["bank"]
        seen: dict[str, set[str]] = {}
        for number in range(24):
            key = f"{number % 3}" * 32
            # Each over a connection of its own, which any worker may take.
            async with aiohttp.request("POST", f"{url}/seed_session", json=ROW, headers={"Idempotency-Key": key}) as answer:
                seen.setdefault(key, set()).add(answer.cookies["rollforge_session"].value)
        assert [len(cookies) for cookies in seen.values()] == [1, 1, 1]
        assert json.loads((await get(f"{url}/status"))[1])["sessions"]["open"] == 3
        long = {"Idempotency-Key": "k" * 256}
        async with aiohttp.request("POST", f"{url}/seed_session", json=ROW, headers=long) as answer:
            assert (answer.status, "at most 255" in await answer.text()) == (400, True)


async def test_a_worker_that_dies_is_started_again_and_only_its_sessions_are_lost(bank: Path) -> None:
    with started(bank, "bank.py", "--port", "0", "--workers", "2") as service:
        url = service.urls["bank"]
        cookies = await session_of_each(url, 2)
        (_, lost), (_, kept) = await paid(url, cookies[0]), await paid(url, cookies[1])
        os.kill(lost, signal.SIGKILL)
        await until(lambda: "died" in service.said())
        statuses = [(await post(f"{url}/pay", {"amount": 1}, cookies[0]))[0] for _ in range(5)]
        assert set(statuses) <= {410, 502}
        assert await paid(url, cookies[1]) == (2, kept)
        pids: set[int] = set()
        while len(pids - {lost}) < 2:
            pids = {worker["pid"] for worker in await workers_of(url)}
        status, text, _ = await post(f"{url}/pay", {"amount": 1}, cookies[0])
        assert (status, json.loads(text)["error"]["type"]) == (410, "session_over")
        assert sorted(await session_of_each(url, 2)) == [0, 1]
        status, said = service.stop()
        assert status == 0
        assert "starting it again" in said
        assert "Traceback" not in said


async def test_what_is_in_flight_is_finished_also_where_it_was_passed_on(bank: Path) -> None:
    with started(bank, "bank.py", "--port", "0", "--workers", "2") as service:
        url = service.urls["bank"]
        cookies = await session_of_each(url, 2)
        waiting = [asyncio.create_task(post(f"{url}/wait", {"seconds": 1.0}, cookies[n % 2])) for n in range(2)]
        waiting += [asyncio.create_task(post(f"{url}/wait", {"seconds": 0.5}, cookies[n % 2])) for n in range(6)]
        await in_flight(url, 8)
        service.process.send_signal(signal.SIGTERM)
        await not_ready(url)
        assert (await post(f"{url}/seed_session", ROW))[0] == 503
        assert [(await task)[:2] for task in waiting] == [(200, "done")] * 8
        assert (service.process.wait(30), service.said()) == (0, "")


async def in_flight(url: str, number: int) -> None:
    """Until so many requests are under way, and all have come to where they are answered (those passed on count twice)."""
    count, same = 0, 0
    while count < number or same < 20:
        now = sum(worker["in_flight"] for worker in await workers_of(url))
        count, same = now, same + 1 if now == count else 0
        await asyncio.sleep(0.01)


async def not_ready(url: str) -> None:
    while (found := await get(f"{url}/ready"))[0] == 200:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    assert found[0] == 503


async def test_a_second_signal_ends_at_once_and_says_so_to_who_waits(bank: Path) -> None:
    with started(bank, "bank.py", "--port", "0", "--workers", "2") as service:
        url = service.urls["bank"]
        cookies = await session_of_each(url, 2)
        waiting = [asyncio.create_task(post(f"{url}/wait", {"seconds": 50}, cookie)) for cookie in cookies.values()]
        await in_flight(url, 2)
        service.process.send_signal(signal.SIGINT)
        await not_ready(url)
        service.process.send_signal(signal.SIGINT)
        for task in waiting:
            status, text, _ = await task
            assert (status, json.loads(text)["error"]["type"]) == (503, "shutting_down")
        assert service.process.wait(30) == 130
        assert "Traceback" not in service.said()


def processes(service: Started) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2][:3]
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_nothing_is_left_whoever_is_killed(
    bank: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    with TemporaryDirectory() as folder:
        monkeypatch.setenv("TMPDIR", folder)
        with started(bank, "bank.py", "--port", "0", "--workers", "2") as service:
            pids = processes(service)
            assert len(pids) == 2
            assert os.listdir(folder)
            service.process.send_signal(number)
            await until(lambda: not any(map(alive, [service.process.pid, *pids])))
        assert not os.listdir(folder)


async def test_services_in_processes_of_their_own_work_together(bank: Path) -> None:
    (bank / "rollforge.yaml").write_text(
        """
models: {echo: {use: "scripted:echo"}}
envs: {bank: {use: bank.py}}
agents: {teller: {env: bank, model: echo}}
head: {port: 0}
""",
        encoding="utf-8",
    )
    with started(bank, "rollforge.yaml", "--processes", services=4) as service:
        assert len(processes(service)) == 4
        status, text, _ = await post(f"{service.urls['teller']}/run", {**ROW, "target": 0})
        assert (status, json.loads(text)["reward"]) == (200, 1.0)
        instances = json.loads((await get(f"{service.urls['head']}/server_instances"))[1])
        assert len({one["pid"] for one in instances}) == 3
        assert {one["status"] for one in instances} == {"success"}
        sessions = json.loads((await get(f"{service.urls['bank']}/status"))[1])["sessions"]
        assert sessions["open"] == 0
        assert service.stop(signal.SIGINT) == (0, "")


@pytest.mark.parametrize("processes", [(), ("--processes",)], ids=["one process", "processes"])
async def test_a_scripted_model_knows_the_reference_policy_wherever_the_environment_is(
    tmp_path: Path, processes: tuple[str, ...]
) -> None:
    (tmp_path / "rollforge.yaml").write_text(
        """
models: {oracle: scripted}
envs: {sums: {use: arithmetic, level: easy}}
agents: {solver: {env: sums, model: oracle}}
head: {port: 0}
""",
        encoding="utf-8",
    )
    row = {"responses_create_params": {"input": "Multiply 552 by 7."}, "answer": 3864}
    with started(tmp_path, "rollforge.yaml", *processes, services=4) as service:

        async def played(row: dict[str, Any]) -> list[str]:
            status, text, _ = await post(f"{service.urls['solver']}/run", row)
            found = json.loads(text)
            assert (status, found["reward"]) == (200, 1.0)
            return [item["type"] for item in found["response"]["output"]]

        assert await played({**row, "steps": [["multiply", 552, 7]]}) == ["function_call", "function_call_output", "message"]
        assert await played(row) == ["message"]  # what the reference policy needs is not in the row, but the answer is
        assert service.stop(signal.SIGINT) == (0, "")


async def test_one_that_cannot_start_ends_all_with_its_reason(bank: Path) -> None:
    wrong = ("--port", "0", "--workers", "2", "--set", "env.level=3")
    with (
        pytest.raises(AssertionError, match="ended with 2: error: unknown task option 'level'"),
        started(bank, "bank.py", *wrong),
    ):
        pass


# The middleware on its own, between two applications of this process.


def echo(name: str, cancelled: list[str]) -> App:
    router = APIRouter()

    @router.post("/echo")
    async def back(request: Request) -> Response:
        return Response(await request.body(), 201, {"X-Name": name, "X-Query": request.url.query})

    @router.get("/stream")
    async def stream(_: Request) -> Response:
        async def parts() -> AsyncIterator[bytes]:
            try:
                yield b"first"
                await asyncio.sleep(60)
            finally:
                cancelled.append(name)

        return StreamingResponse(parts())

    @router.get("/rollouts/{id}")
    async def rollout(request: Request) -> Response:
        return answer({"name": name, "id": request.path_params["id"]})

    return make_app(name, "", [router], Settings())


@asynccontextmanager
async def pair(folder: Path, cancelled: list[str]) -> AsyncIterator[str]:
    """The URL of worker 0, which passes on to worker 1."""
    paths = [str(folder / "0"), str(folder / "1")]
    front, back = echo("0", cancelled), echo("1", cancelled)
    front.front = Forward(front.front, gauges=front.state.gauges, worker=0, paths=paths)
    with socket.socket(socket.AF_UNIX) as inner:
        inner.bind(paths[1])
        inner.listen()
        stop = await start(Service("1", "environment", back, inner), Settings())
        try:
            async with serving(front) as url:
                yield url
        finally:
            await stop()


COOKIE = {"rollforge_session": "1." + "0" * 32 + "." + "0" * 64}


async def test_requests_and_answers_are_passed_on_as_they_are(tmp_path: Path) -> None:
    async with pair(tmp_path, []) as url, aiohttp.ClientSession(cookies=COOKIE) as client:
        large = os.urandom(3 << 20)
        async with client.post(URL(f"{url}/echo?a=%2F&b", encoded=True), data=io.BytesIO(large)) as found:
            assert (found.status, found.headers["X-Name"], found.headers["X-Query"]) == (201, "1", "a=%2F&b")
            assert await found.read() == large

        async def parts() -> AsyncIterator[bytes]:
            yield b"one "
            yield b"two"

        async with client.post(f"{url}/echo", data=parts(), headers={"X-Request-Id": "trace-2"}) as found:
            assert await found.read() == b"one two"
            assert found.headers.getall("X-Request-Id") == ["trace-2"]
            assert len(found.headers.getall("Date")) == 1
        assert await (await client.get(f"{url}/rollouts/1.abc")).json() == {"name": "1", "id": "1.abc"}
        assert await (await client.get(f"{url}/rollouts/0.abc")).json() == {"name": "0", "id": "0.abc"}
        missing = await client.post(f"{url}/nothing")
        assert (missing.status, (await missing.json())["error"]["type"]) == (404, "not_found_error")


async def test_a_caller_that_goes_away_is_gone_at_the_other_worker_too(tmp_path: Path) -> None:
    cancelled: list[str] = []
    async with pair(tmp_path, cancelled) as url:
        async with aiohttp.ClientSession(cookies=COOKIE) as client:
            found = await client.get(f"{url}/stream")
            assert await found.content.readany() == b"first"
            found.close()
        while not cancelled:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert cancelled == ["1"]


async def test_a_worker_that_is_not_there_is_a_session_that_is_over(tmp_path: Path) -> None:
    async with pair(tmp_path, []) as url, aiohttp.ClientSession(cookies=COOKIE) as client:
        (tmp_path / "1").unlink()
        found = await client.post(f"{url}/echo", data=b"x")
        problem = await found.json()
        assert (found.status, problem["error"]["type"]) == (410, "session_over")
        assert problem["request_id"] == found.headers["X-Request-Id"]


def test_pages_of_metrics_are_added_up() -> None:
    one = (
        b'# HELP a_total A.\n# TYPE a_total counter\na_total{x="a b"} 1.0\n# TYPE a_created gauge\na_created{x="a b"} 5.0\n'
    )
    two = (
        b'# HELP a_total A.\n# TYPE a_total counter\na_total{x="a b"} 2.5\na_total{x="c"} 1.0\n# TYPE a_created gauge\n'
        b'a_created{x="a b"} 4.0\n# TYPE h histogram\nh_bucket{le="+Inf"} 1.0\nh_count 1.0\n'
    )
    assert summed([one, two]).decode().splitlines() == [
        *("# HELP a_total A.", "# TYPE a_total counter", 'a_total{x="a b"} 3.5', 'a_total{x="c"} 1.0'),
        *("# TYPE a_created gauge", 'a_created{x="a b"} 4.0'),
        *("# TYPE h histogram", 'h_bucket{le="+Inf"} 1.0', "h_count 1.0"),
    ]


def test_statuses_are_added_up_beside_each_workers_own() -> None:
    own, other = {"pid": 1, "in_flight": 2, "sessions": {"open": 1}, "name": "a"}, {"pid": 2, "in_flight": 3}
    found = json.loads(together([json.dumps(own).encode(), json.dumps(other).encode()], json.dumps(own).encode()))
    assert found == {**own, "in_flight": 5, "sessions": {"open": 1}, "workers": [own, other]}
