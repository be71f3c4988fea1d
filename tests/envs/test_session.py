"""Sessions: what tools and verifiers may do to each other and to us, and that every session that opens is closed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
import uvloop

import rollforge as rf
from rollforge.envs.base import Limits, ToolCall, ToolOutput
from rollforge.envs.decorate import PythonEnv
from rollforge.errors import DeadlineExceeded, InfraFault, PolicyFault, SetupError, VerifierFault
from rollforge.records.items import assistant
from tests.envs.drive import task

ROW = task(n=1)
SAID: Any = {"output": [assistant("said")]}
MEGABYTE = "x" * 1_000_000


def env(target: Any, *, inline: bool = False, tool: float = 10.0, verify: float = 10.0) -> PythonEnv:
    made: PythonEnv = rf.env(target, inline=inline)
    made.limits = Limits(tool, verify)
    return made


@contextlib.asynccontextmanager
async def opened(made: PythonEnv, row: Any = ROW) -> Any:
    try:
        async with made.open(row) as session:
            yield session
    finally:
        await made.aclose()


async def verdict_of(made: PythonEnv) -> Any:
    async with opened(made) as session:
        return await session.verify(SAID)


# Tools.


class Tools:
    def __init__(self) -> None:
        self.log: list[str] = []

    def text(self) -> str:
        """Text."""
        return "text"

    def nothing(self) -> None:
        """Nothing."""

    def mapping(self) -> dict[str, Any]:
        """A mapping."""
        return {"a": [1, None]}

    def data(self) -> bytes:
        """Bytes."""
        return b"data \xff"

    def megabyte(self) -> str:
        """A megabyte."""
        return MEGABYTE

    def raises(self, kind: str) -> None:
        """Raise."""
        kinds = {"KeyError": KeyError("key"), "TimeoutError": TimeoutError("own"), "AssertionError": AssertionError()}
        kinds |= {"SystemExit": SystemExit(3), "GeneratorExit": GeneratorExit(), "StopIteration": StopIteration(1)}
        kinds |= {"CancelledError": asyncio.CancelledError(), "megabyte": ValueError(MEGABYTE), "lone": ValueError("\ud800")}
        raise kinds[kind]

    async def raises_later(self, kind: str) -> None:
        """Raise."""
        await asyncio.sleep(0)
        self.raises(kind)

    def circle(self) -> list[Any]:
        """A list in itself."""
        found: list[Any] = []
        found.append(found)
        return found

    def verify(self) -> float:
        return 1.0


RESULTS = [
    ("text", {}, "text", False),
    ("nothing", {}, "null", False),
    ("mapping", {}, '{"a":[1,null]}', False),
    ("data", {}, "data �", False),
    ("megabyte", {}, MEGABYTE, False),
    ("circle", {}, '{"error":"ValueError: nested too deeply"}', True),
    ("raises", {"kind": "KeyError"}, '{"error":"KeyError: \'key\'"}', True),
    ("raises", {"kind": "TimeoutError"}, '{"error":"TimeoutError: own"}', True),
    ("raises", {"kind": "AssertionError"}, '{"error":"AssertionError"}', True),
    ("raises", {"kind": "lone"}, '{"error":"ValueError: ?"}', True),
    ("raises_later", {"kind": "KeyError"}, '{"error":"KeyError: \'key\'"}', True),
    ("raises_later", {"kind": "TimeoutError"}, '{"error":"TimeoutError: own"}', True),
    ("nowhere", {}, '{"error":"unknown tool \'nowhere\'; the tools are: text, nothing,', True),
    ("verify", {}, '{"error":"unknown tool \'verify\'', True),
    ("text", {"more": 1}, '{"error":"invalid arguments for text: more: Extra inputs are not permitted"}', True),
    ("raises", {}, '{"error":"invalid arguments for raises: kind: Field required"}', True),
]


@pytest.mark.parametrize("inline", [True, False])
@pytest.mark.parametrize(("name", "arguments", "text", "error"), RESULTS)
async def test_what_a_tool_returns_or_raises_is_for_the_policy_to_read(
    name: str, arguments: dict[str, Any], text: str, error: bool, inline: bool
) -> None:
    async with opened(env(Tools, inline=inline)) as session:
        output = await session.call(ToolCall(name, arguments))
    assert output.error == error
    assert output.text.startswith(text)


@pytest.mark.parametrize("inline", [True, False])
@pytest.mark.parametrize("name", ["raises", "raises_later"])
@pytest.mark.parametrize("kind", ["SystemExit", "CancelledError", "megabyte"])
async def test_a_tool_can_end_neither_the_program_nor_the_rollout(name: str, kind: str, inline: bool) -> None:
    async with opened(env(Tools, inline=inline)) as session:
        output = await session.call(ToolCall(name, {"kind": kind}))
    assert output.error
    assert output.text.startswith('{"error":"')
    assert len(output.text) < 2500


@pytest.mark.parametrize("fault", [PolicyFault, InfraFault, SetupError])
async def test_a_tool_that_says_whose_fault_it_is_ends_the_attempt(fault: type[Exception]) -> None:
    class Says:
        def say(self) -> None:
            """Say it."""
            raise fault("so")

        def verify(self) -> float:
            return 0.0

    async with opened(env(Says)) as session:
        with pytest.raises(fault, match=r"^so$"):
            await session.call(ToolCall("say", {}))


class Hangs:
    def __init__(self) -> None:
        self.let_go = threading.Event()

    def tool(self) -> None:
        """Hang."""
        self.let_go.wait(30)

    async def tool_later(self) -> None:
        """Hang."""
        await asyncio.sleep(30)

    def quick(self) -> str:
        """Do not."""
        return "quick"

    def verify(self) -> float:
        return 1.0

    def close(self) -> None:
        self.let_go.set()


@pytest.mark.parametrize("name", ["tool", "tool_later"])
async def test_a_hanging_tool_is_cut_off_and_others_still_work(name: str) -> None:
    async with opened(env(Hangs, tool=0.1)) as session:
        with pytest.raises(DeadlineExceeded, match=rf"^{name} took longer than 0.1 s$"):
            await session.call(ToolCall(name, {}))
        assert (await session.call(ToolCall("quick", {}))).text == "quick"
        assert (await session.verify(SAID)).reward == 1.0


# Verifiers.


def hangs(reply: str) -> float:
    while True:
        time.sleep(1)


def spins(reply: str) -> float:
    while True:
        pass


async def hangs_later(reply: str) -> float:
    await asyncio.sleep(30)
    return 1.0


@pytest.mark.parametrize(
    ("verifier", "how"),
    [(hangs, " and was killed"), (spins, " and was killed"), (hangs_later, "")],
    ids=["hangs", "spins", "later"],
)
async def test_a_hanging_verifier_is_a_deadline(verifier: Any, how: str) -> None:
    with pytest.raises(DeadlineExceeded, match=rf"^verify took longer than 0.1 s{how}$") as error:
        await verdict_of(env(verifier, verify=0.1))
    assert error.value.stage == "verify"


def exits(reply: str) -> float:
    sys.exit(3)


def leaves(reply: str) -> float:
    os._exit(3)


def eats(reply: str) -> float:
    return float(len(bytearray(1 << 36)))


def forks(reply: str) -> float:
    return float(os.fork() != 0)


def closes(reply: str) -> float:
    os.closerange(3, 1024)
    return 1.0


def prints(reply: str) -> float:
    print("printed")
    return 1.0


@pytest.mark.parametrize(
    ("verifier", "message"),
    [
        (exits, "SystemExit: 3 (test_session.py:"),
        (leaves, "the process of verify ended before it answered (exit status 3)"),
        (eats, "MemoryError"),
        (closes, "the process of verify ended before it answered (exit status 1)"),
    ],
)
async def test_a_verifier_that_ruins_its_process_ruins_nothing_else(verifier: Any, message: str) -> None:
    with pytest.raises(VerifierFault) as error:
        await verdict_of(env(verifier))
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("verifier", [forks, prints])
async def test_a_verifier_that_forks_or_prints_has_its_verdict(verifier: Any, capfd: Any) -> None:
    for _ in range(3):
        assert (await verdict_of(env(verifier))).reward == 1.0
    assert capfd.readouterr().out == ""


async def test_an_environment_says_how_much_memory_its_verifier_may_use() -> None:
    made: PythonEnv = rf.env(lambda reply: float(len(bytearray(300 << 20)) > 0), memory_mb=400)
    assert (await verdict_of(made)).reward == 1.0
    if sys.platform == "linux":
        made = rf.env(made.target, memory_mb=200)
        with pytest.raises(VerifierFault, match=r"MemoryError: more than the 200 MB \(memory_mb\) that its process may use"):
            await verdict_of(made)


async def test_an_inline_verifier_cannot_end_the_program_either() -> None:
    with pytest.raises(VerifierFault, match="SystemExit: 3"):
        await verdict_of(env(exits, inline=True))


async def test_a_verifier_with_state_that_cannot_leave_still_has_a_deadline() -> None:
    class Locked:
        def __init__(self) -> None:
            self.let_go = threading.Event()

        def verify(self) -> float:
            self.let_go.wait(30)
            return 1.0

        def close(self) -> None:
            self.let_go.set()

    with pytest.raises(DeadlineExceeded, match=r"^verify took longer than 0.1 s$"):
        await verdict_of(env(Locked, verify=0.1))


async def test_the_event_loop_turns_while_a_verifier_computes() -> None:
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0.001)

    turning = asyncio.create_task(turn())
    with pytest.raises(DeadlineExceeded):
        await verdict_of(env(spins, verify=0.3))
    turning.cancel()
    assert turns > 10


# Lives of sessions.


class Log:
    """Notes what is done with it."""

    entries: list[str] = []  # noqa: RUF012
    fail = ""

    def _do(self, what: str) -> None:
        Log.entries.append(what)
        if Log.fail == what:
            raise ValueError(f"in {what}")

    def reset(self) -> None:
        self._do("reset")

    def act(self) -> None:
        """Act."""
        self._do("act")

    async def verify(self) -> float:
        self._do("verify")
        return 1.0

    def close(self) -> None:
        self._do("close")


class LogInTheMaking(Log):
    def __init__(self) -> None:
        self._do("init")


LIVES = [
    (Log, "", None, ["reset", "act", "verify", "close"], None),
    (Log, "reset", None, ["reset", "close"], ("open", r"^ValueError: in reset \(test_session.py:\d+\)$")),
    (Log, "verify", None, ["reset", "act", "verify", "close"], ("verify", "^ValueError: in verify")),
    (Log, "close", None, ["reset", "act", "verify", "close"], ("close", "^ValueError: in close")),
    (Log, "", InfraFault, ["reset", "act", "close"], (None, r"^model$")),
    (
        Log,
        "close",
        InfraFault,
        ["reset", "act", "close"],
        (None, r"^model\nclosing failed too: VerifierFault: ValueError: in close"),
    ),
    (LogInTheMaking, "init", None, ["init"], ("open", "^ValueError: in init")),
]


@pytest.mark.parametrize("inline", [True, False])
@pytest.mark.parametrize(("target", "fail", "raised", "entries", "error"), LIVES)
async def test_a_session_is_always_closed_and_the_first_error_stands(
    target: Any, fail: str, raised: Any, entries: list[str], error: Any, inline: bool
) -> None:
    Log.entries, Log.fail = [], fail

    async def live() -> None:
        async with opened(env(target, inline=inline)) as session:
            await session.call(ToolCall("act", {}))
            if raised is not None:
                raise raised("model")
            await session.verify(SAID)

    if error is None:
        await live()
    else:
        with pytest.raises((VerifierFault, InfraFault), match=error[1]) as found:
            await live()
        assert found.value.stage == error[0]
    assert Log.entries == entries


async def test_a_cancelled_rollout_closes_its_session() -> None:
    Log.entries, Log.fail = [], ""
    inside = asyncio.Event()

    async def live() -> None:
        async with opened(env(Log)):
            inside.set()
            await asyncio.sleep(30)

    living = asyncio.create_task(live())
    await inside.wait()
    living.cancel()
    with pytest.raises(asyncio.CancelledError):
        await living
    assert Log.entries == ["reset", "close"]


async def test_a_hanging_reset_and_close_are_cut_off() -> None:
    class Stuck:
        def __init__(self) -> None:
            self.let_go = threading.Event()

        def reset(self, n: int) -> None:
            if n == 2:
                self.let_go.wait(30)

        def verify(self) -> float:
            return 1.0

        def close(self) -> None:
            let_go = self.let_go
            if not let_go.is_set():
                let_go.set()
                threading.Event().wait(0.3)

    for n, stage in ((2, "open"), (1, "close")):
        with pytest.raises(DeadlineExceeded) as error:
            async with opened(env(Stuck, tool=0.1), task(n=n)):
                pass
        assert error.value.stage == stage


@pytest.mark.parametrize("seen", [5, ["a"], {"board": 1}, True])
async def test_what_reset_returns_is_a_text_or_nothing(seen: Any) -> None:
    class Sees:
        def reset(self) -> Any:
            return seen

        def verify(self) -> float:
            return 0.0

    with pytest.raises(
        VerifierFault, match=rf"reset\(\) returned {type(seen).__name__}; it returns what the policy is shown"
    ):
        await verdict_of(env(Sees))


async def test_reset_may_return_content_parts() -> None:
    class Parts:
        def reset(self) -> Any:
            return [{"type": "text", "text": " It is "}, {"type": "text", "text": "cold."}]

        def verify(self) -> float:
            return 0.0

    async with opened(env(Parts), task()) as session:
        assert session.observation == " It is cold."


class Counter:
    def reset(self, start: int) -> None:
        self.count = start

    def up(self, by: int) -> int:
        """Count."""
        before = self.count
        time.sleep(0.0005)
        self.count = before + by
        return self.count

    async def later(self, by: int) -> int:
        """Count."""
        before = self.count
        await asyncio.sleep(0)
        self.count = before + by
        return self.count

    def verify(self, start: int) -> dict[str, float]:
        return {"reward": self.count - start}


@pytest.mark.parametrize("inline", [True, False])
async def test_sessions_side_by_side_know_nothing_of_each_other(inline: bool) -> None:
    made = env(Counter, inline=inline)

    async def live(number: int) -> float:
        async with made.open(task(start=number * 1000)) as session:
            for _ in range(3):
                calls = [session.call(ToolCall(name, {"by": number})) for name in ("up", "later", "up")]
                outputs = await asyncio.gather(*calls)
                assert not any(output.error for output in outputs)
            return (await session.verify(SAID)).reward

    assert await asyncio.gather(*(live(number) for number in range(40))) == [9 * number for number in range(40)]
    await made.aclose()


def test_one_environment_on_several_loops_one_after_the_other() -> None:
    made = env(Counter)

    async def live() -> list[float]:
        async def one() -> float:
            async with made.open(task(start=0)) as session:
                await session.call(ToolCall("up", {"by": 2}))
                return (await session.verify(SAID)).reward

        return await asyncio.gather(*(one() for _ in range(8)))

    for factory in (asyncio.new_event_loop, uvloop.new_event_loop, asyncio.new_event_loop):
        with asyncio.Runner(loop_factory=factory) as runner:
            assert runner.run(live()) == [2.0] * 8
    asyncio.run(made.aclose())


FORKS = """
import asyncio, os, warnings
import rollforge as rf
from rollforge.envs.base import ToolCall
from rollforge.records.task import Task

warnings.simplefilter("ignore")

@rf.env
class Counter:
    def reset(self, start: int):
        self.count = start

    def up(self) -> int:
        "Count."
        self.count += 1
        return self.count

    def verify(self) -> float:
        return self.count

async def use(start):
    rewards = []
    for n in range(20):
        async with Counter.open(Task({"input": "?"}, {"start": start + n})) as session:
            await session.call(ToolCall("up", {}))
            rewards.append((await session.verify({"output": []})).reward)
    return rewards == [start + n + 1 for n in range(20)]

assert asyncio.run(use(0))
child = os.fork()
right = asyncio.run(use(1000 if child else 2000))
if child == 0:
    os._exit(0 if right else 5)
_, status = os.waitpid(child, 0)
assert asyncio.run(use(3000))
asyncio.run(Counter.aclose())
print(right, status)
"""


def test_an_environment_in_use_survives_a_fork_of_its_process() -> None:
    """Trainers fork: neither process may get the answers, or use the threads, of the other."""
    done = subprocess.run([sys.executable, "-c", FORKS], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "True 0\n", done.stderr


async def test_a_tool_output_is_what_the_protocol_says() -> None:
    async with opened(env(Tools)) as session:
        assert await session.call(ToolCall("text", {}, "call_1")) == ToolOutput("text")
        assert session.observation is None
