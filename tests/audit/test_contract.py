"""The contract's checks: an environment that keeps it passes, and each way to break it is found."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

import rollforge as rf
from rollforge.audit.audit import audit_env
from rollforge.audit.contract import Check, check_env
from rollforge.audit.schema import schema_problems, tool_problems
from rollforge.envs.base import Limits, Tool
from rollforge.envs.load import load_env
from rollforge.errors import UserError
from rollforge.records.items import Json
from rollforge.registry import BUILT_IN
from rollforge.serve.env_app import env_app
from rollforge.serve.settings import Settings
from tests.collect.parts import Script
from tests.conformance.served import served
from tests.envs.gym import counter, gymnasium

ROWS = [{"prompt": f"Bring it to {goal}.", "goal": goal} for goal in (3, 5, 8)]
LEFT: list[Any] = []


async def checked(env: Any, **options: Any) -> dict[str, Check]:
    try:
        checks = await check_env(env, getattr(env, "name", "script"), **{"n": 3, "limits": Limits(5, 5), **options})
    finally:
        if hasattr(env, "aclose"):
            await env.aclose()
    return {check.name: check for check in checks}


def failing(checks: dict[str, Check]) -> dict[str, Check]:
    return {name: check for name, check in checks.items() if check.status == "fail"}


class Count:
    """Bring a counter to a goal."""

    def reset(self) -> str:
        self.count = 0
        return "It is 0."

    def add(self, by: int) -> int:
        """Add to it."""
        self.count += by
        return self.count

    def verify(self, reply: str, goal: int) -> dict[str, Any]:
        return {"reward": float(self.count == goal), "distance": abs(self.count - goal)}

    def solve(self, goal: int) -> Any:
        yield "add", {"by": goal - 1}
        yield "add", {"by": 1}
        return "done"


@pytest.mark.parametrize("name", BUILT_IN["env"])
async def test_built_in_environments_keep_it(name: str) -> None:
    if name == "reasoning_gym":
        pytest.importorskip("reasoning_gym")
    checks = await checked(load_env(name))
    assert {check.status for check in checks.values()} == {"pass"}, checks


async def test_an_environment_with_tools_keeps_it() -> None:
    checks = await checked(rf.env(Count, tasks=ROWS))
    assert failing(checks) == {}
    assert list(checks) == [
        "tasks",
        "tools",
        "replies",
        "reference",
        "determinism",
        "fields",
        "isolation",
        "clean-up",
        "speed",
    ]
    assert "distance" in checks["fields"].says


# One way to break it after the other.


class SharedState(Count):
    count = 0

    def reset(self) -> str:
        type(self).count = 0
        return "It is 0."

    def add(self, by: int) -> int:
        """Add to it."""
        type(self).count += by
        return self.count


class NotSolved(Count):
    def solve(self, goal: int) -> Any:
        yield "add", {"by": goal - 1}
        return "done"


class BrokenSolution(Count):
    def solve(self, goal: int) -> Any:
        raise LookupError("no way")


class RewardsAnything(Count):
    def verify(self, reply: str, goal: int) -> float:  # type: ignore[override]
        return 1.0


class RewardsTheWrong(Count):
    def verify(self, reply: str, goal: int) -> float:  # type: ignore[override]
        return 2.0 if "harbour" in reply else 1.0


class FailsOnNothing(Count):
    def verify(self, reply: str, goal: int) -> float:  # type: ignore[override]
        return float(reply.split()[0] == "done")


class NotANumber(Count):
    def verify(self, reply: str, goal: int) -> float:  # type: ignore[override]
        return 1.0 if reply == "done" else float("nan")


class ByChance(Count):
    def verify(self, reply: str, goal: int) -> dict[str, Any]:
        return {"reward": float(self.count == goal), "luck": random.random()}


class OtherStart(Count):
    def reset(self) -> str:
        super().reset()
        return f"It is {random.random()}."


class NowAndThen(Count):
    def verify(self, reply: str, goal: int) -> dict[str, Any]:
        return {"reward": float(self.count == goal), **({"length": len(reply)} if reply else {})}


class TwoTypes(Count):
    def verify(self, reply: str, goal: int) -> dict[str, Any]:
        return {"reward": float(self.count == goal), "said": reply or 0}


class LeavesThreads(Count):
    def reset(self) -> str:
        LEFT.append(event := threading.Event())
        threading.Thread(target=event.wait, name="left-behind", daemon=True).start()
        return super().reset()


class ToolsLeaveThreads(Count):
    def add(self, by: int) -> int:
        """Add to it."""
        LEFT.append(event := threading.Event())
        threading.Thread(target=event.wait, name="left-behind", daemon=True).start()
        return super().add(by)


class ClosesOnlyTheUnsolved(Count):
    def reset(self) -> str:
        LEFT.append(event := threading.Event())
        threading.Thread(target=event.wait, name="left-behind", daemon=True).start()
        self.end = event.set
        return super().reset()

    def close(self) -> None:
        if not self.count:
            self.end()


class LeavesFiles(Count):
    def reset(self) -> str:
        Path(tempfile.mkdtemp()).joinpath("state").write_text("0")
        return super().reset()


class LeavesFilesBelow(Count):
    def reset(self) -> str:
        folder = Path(tempfile.gettempdir(), "below")
        folder.mkdir(exist_ok=True)
        tempfile.NamedTemporaryFile(dir=folder, delete=False).close()
        return super().reset()


class MovesAway(Count):
    def reset(self) -> str:
        os.chdir("/")
        return super().reset()


class SolvedForAll(Count):
    """Whoever solves a task solves it for all."""

    solved: set[int] = set()  # noqa: RUF012 - that is the fault

    def verify(self, reply: str, goal: int) -> float:  # type: ignore[override]
        if self.count == goal:
            self.solved.add(goal)
        return float(goal in self.solved)


class LeavesOpen(Count):
    def reset(self) -> str:
        LEFT.append(open("/dev/null"))
        return super().reset()


class CannotClose(Count):
    def close(self) -> None:
        raise OSError("busy")


class Hangs(Count):
    def verify(self, reply: str, goal: int) -> float:  # type: ignore[override]
        time.sleep(0 if reply else 60)
        return float(reply == "done")


@pytest.fixture(autouse=True)
def ended() -> Any:
    yield
    while LEFT:
        one = LEFT.pop()
        one.set() if isinstance(one, threading.Event) else one.close()


@pytest.mark.parametrize(
    ("target", "name", "says"),
    [
        (SharedState, "isolation", "beside task"),
        (NotSolved, "reference", "below full marks: task 0: 0"),
        (BrokenSolution, "reference", "solve() failed at task 0: LookupError: no way"),
        (RewardsAnything, "reference", "an empty reply gets as much on all 3 tasks"),
        (RewardsTheWrong, "reference", "nonsense, task 0: 2"),
        (FailsOnNothing, "replies", "an empty reply, task 0: verifier_fault in verify: IndexError"),
        (NotANumber, "replies", "not finite"),
        (ByChance, "determinism", "'luck'"),
        (OtherStart, "determinism", "It is 0."),
        (NowAndThen, "fields", "length in"),
        (TwoTypes, "fields", "said is number and text"),
        (LeavesThreads, "clean-up", "threads more, 'left-behind' among them"),
        (ToolsLeaveThreads, "clean-up", "threads more, 'left-behind' among them"),
        (ClosesOnlyTheUnsolved, "clean-up", "threads more, 'left-behind' among them"),
        (LeavesFiles, "clean-up", "files more on disk"),
        (LeavesFilesBelow, "clean-up", "files more on disk"),
        (MovesAway, "clean-up", ", and is / now"),
        (SolvedForAll, "isolation", "nonsense, task 0, after others have played: reward 1, before reward 0"),
        (LeavesOpen, "clean-up", "open files more"),
        (CannotClose, "clean-up", "closing failed: task 0: OSError: busy"),
    ],
)
async def test_what_breaks_it_is_found(target: type, name: str, says: str) -> None:
    checks = await checked(rf.env(target, tasks=ROWS, inline=True))
    failed = failing(checks)
    assert name in failed, checks
    assert says in failed[name].says
    assert failed[name].remedy


async def test_what_is_solved_for_all_is_found_where_verifiers_run_apart_too() -> None:
    class Bank:
        paid: set[int] = set()  # noqa: RUF012 - that is the fault

    @rf.env(tasks=ROWS, solve=lambda goal: str(goal))
    def first(reply: str, goal: int) -> float:
        if reply == str(goal):
            Bank.paid.add(goal)
        return float(goal in Bank.paid)

    class Asked(Count):
        async def verify(self, reply: str, goal: int) -> float:  # type: ignore[override]
            if self.count == goal:
                Bank.paid.add(goal)
            return float(goal in Bank.paid)

    for env in (first, rf.env(Asked, tasks=ROWS)):
        failed = failing(await checked(env))
        assert list(failed) == ["isolation"]
        assert "nonsense, task 0, after others have played: reward 1, before reward 0" in failed["isolation"].says


class Cart:
    """Every cart is the same one."""

    def reset(self) -> None:
        self.items: list[int] = []

    def add(self, number: int, cart: list[int] = []) -> str:  # noqa: B006 - that is the fault
        """Add to the cart."""
        cart.append(number)
        self.items = cart
        return "added"

    def verify(self, goal: int) -> float:
        return float(goal in self.items)

    def solve(self, goal: int) -> Any:
        yield "add", {"number": goal}
        return "done"


class Plain(Cart):
    def add(self, number: int) -> str:  # type: ignore[override]
        """Add to the cart."""
        return super().add(number)


class Picky(Cart):
    """What no task asks for does not get far."""

    def add(self, number: int) -> str:  # type: ignore[override]
        """Add to the cart."""
        if number not in (3, 5, 8):
            raise ValueError("there is none")
        return super().add(number)


class Floors:
    """Played by steps: a floor that one session has reached is reached for all."""

    def reset(self) -> str:
        self.at = 0
        return "go"

    def step(self, action: str) -> Any:
        self.at += action == "up"
        return "on", 0.0, action == "end"

    def verify(self, goal: int, reached: set[int] = set()) -> float:  # noqa: B006 - that is the fault
        reached.add(self.at)
        return float(goal in reached)

    def solve(self, goal: int) -> list[str]:
        return ["up"] * goal + ["end"]


@pytest.mark.parametrize(
    ("target", "kind", "tasks"),
    [
        (Cart, "the solution of task 2, task 0", 3),
        (Plain, "random calls, task 0", 1),
        (Picky, "the solution of task 2, task 1", 3),
        (Floors, "the solution of task 2, task 0", 3),
    ],
)
async def test_wrong_calls_that_are_paid_once_others_have_played(target: type, kind: str, tasks: int) -> None:
    for inline in (True, target is Floors):
        for function in (Cart.add, Floors.verify):
            function.__defaults__[0].clear()  # type: ignore[attr-defined]
        failed = failing(await checked(rf.env(target, tasks=ROWS[:tasks], inline=inline)))
        assert list(failed) == ["isolation"]
        assert f"{kind}, after others have played: reward 1, before reward 0" in failed["isolation"].says
        assert "a default argument" in failed["isolation"].remedy


class Stocked(Count):
    """It tells what all have left."""

    def add(self, by: int) -> int:
        """Add to it."""
        STATE["left"] = STATE.get("left", 100) - 1
        self.left = STATE["left"]
        return super().add(by)

    def verify(self, reply: str, goal: int) -> dict[str, Any]:
        return super().verify(reply, goal) | {"left": getattr(self, "left", 100)}


@pytest.mark.parametrize("inline", [True, False])
async def test_a_state_that_sessions_share_is_told_from_chance(inline: bool) -> None:
    failed = failing(await checked(rf.env(Stocked, tasks=ROWS, inline=inline)))
    assert list(failed) == ["determinism", "isolation"]
    assert "a state that sessions share" in failed["determinism"].says
    for check in failed.values():
        assert check.remedy.startswith("keep the state of a rollout in the instance")
    for target in (ByChance, OtherStart):
        chance = failing(await checked(rf.env(target, tasks=ROWS, inline=inline)))
        assert chance["determinism"].remedy.startswith("take all chance from the task")
        assert "isolation" not in chance


@pytest.mark.parametrize("where", ["reset", "verify", "mkdtemp"])
async def test_files_left_elsewhere_than_in_the_temporary_folder(where: str, tmp_path: Path) -> None:
    def leave() -> None:
        tempfile.mkdtemp() if where == "mkdtemp" else tmp_path.joinpath(uuid.uuid4().hex).write_text("0")

    class Leaves(Count):
        def reset(self) -> str:
            if where == "reset":
                leave()
            return super().reset()

        def verify(self, reply: str, goal: int) -> dict[str, Any]:
            if where != "reset":
                leave()
            return super().verify(reply, goal)

    failed = failing(await checked(rf.env(Leaves, tasks=ROWS)))
    assert list(failed) == ["clean-up"]
    assert "files more on disk" in failed["clean-up"].says
    assert (str(tmp_path) in failed["clean-up"].says) is (where != "mkdtemp")


async def test_files_that_were_there_or_go_away_are_not_left(tmp_path: Path) -> None:
    class Tidy(Count):
        def reset(self) -> str:
            self.file = tmp_path / uuid.uuid4().hex
            self.file.write_text("0")
            (tmp_path / "log").write_text("one for all")
            return super().reset()

        def close(self) -> None:
            self.file.unlink()

    others = 'while mktemp -q -p "$0"; do sleep 0.001; done'  # of another process, in the same folder
    process = await asyncio.create_subprocess_exec("sh", "-c", others, tmp_path, stdout=asyncio.subprocess.DEVNULL)
    try:
        assert failing(await checked(rf.env(Tidy, tasks=ROWS))) == {}
    finally:
        process.kill()
        await process.wait()
    assert len(os.listdir(tmp_path)) > 10


@pytest.mark.parametrize("stepwise", [True, False])
async def test_a_reference_that_takes_many_calls(stepwise: bool) -> None:
    class Up:
        """Count one by one."""

        def reset(self) -> None:
            self.at = 0

        def up(self) -> int:
            """One more."""
            self.at += 1
            return self.at

        def verify(self, goal: int) -> float:
            return float(self.at == goal)

        def solve(self, goal: int) -> Any:
            for _ in range(goal):
                yield "up", {}
            return "done"

    class Stairs:
        """Walk one by one."""

        def reset(self) -> str:
            self.at = 0
            return "go"

        def step(self, action: str, goal: int) -> Any:
            self.at += action == "up"
            return str(self.at), float(self.at == goal), self.at == goal

        def solve(self, goal: int) -> list[str]:
            return ["up"] * goal

    rows = [{"prompt": f"Up to {goal}.", "goal": goal} for goal in (64, 65, 130)]
    checks = await checked(rf.env(Stairs if stepwise else Up, tasks=rows, inline=True))
    assert checks["reference"].status == "pass"
    assert failing(checks) == {}


async def test_a_tool_by_chance_that_the_solution_does_not_need_is_told() -> None:
    class Dice(Count):
        def roll(self) -> float:
            """Roll."""
            return random.random()

    checks = await checked(rf.env(Dice, tasks=ROWS, inline=True))
    assert failing(checks) == {}
    assert checks["determinism"].status == "warn"
    assert "the same calls of tools that need not be in its solution" in checks["determinism"].says


# State that the process of a verifier does not see.

STATE = {"n": 0}


def reached() -> int:
    return STATE["n"]


class InTheModule(Count):
    def reset(self) -> str:
        STATE["n"] = 0
        return "It is 0."

    def add(self, by: int) -> int:
        """Add to it."""
        STATE["n"] += by
        return by

    def verify(self, reply: str, goal: int) -> float:  # type: ignore[override]
        return float(reached() == goal)


class InTheClass(Count):
    seen: list[int] = []  # noqa: RUF012 - that is the fault

    def add(self, by: int) -> int:
        """Add to it."""
        self.seen.append(by)
        return by

    def verify(self, reply: str, goal: int) -> float:  # type: ignore[override]
        return float(sum(self.seen) == goal)


class InAnotherObject(Count):
    """What the names in the verifier do not lead to."""

    def add(self, by: int) -> int:
        """Add to it."""
        LEFT.append(threading.Event())
        return by

    def verify(self, reply: str, goal: int) -> float:  # type: ignore[override]
        return float(len(vars(sys.modules[__name__])["LEFT"]))


class Forgets(Count):
    solve = None  # type: ignore[assignment]
    calls: list[int] = []  # noqa: RUF012 - that is the fault

    def add(self, by: int) -> int:
        """Add to it."""
        self.calls.append(by)
        return len(self.calls)

    def verify(self, reply: str, goal: int) -> float:  # type: ignore[override]
        return 0.0


class Remembers(Count):
    """A cache is no state: it is the same once it is warm."""

    squares: dict[int, int] = {}  # noqa: RUF012 - so is a cache shared

    def add(self, by: int) -> int:
        """Add to it."""
        self.squares.setdefault(by, by * by)
        return super().add(by)

    def verify(self, reply: str, goal: int) -> dict[str, Any]:
        return super().verify(reply, goal) | {"of_two": self.squares.get(2, 4)}


@pytest.mark.parametrize("solved", [True, False])
@pytest.mark.parametrize(
    ("target", "says"), [(InTheModule, "the verifier reads STATE"), (InTheClass, "the verifier reads InTheClass.seen")]
)
async def test_state_that_the_verifiers_process_does_not_see(target: type, says: str, solved: bool) -> None:
    made: Any = target if solved else type(target.__name__, (target,), {"solve": None, "__module__": __name__})
    checks = await checked(rf.env(made, tasks=ROWS))
    failed = failing(checks)
    assert says in checks["isolation"].says
    assert "runs in another process" in checks["isolation"].remedy
    # Without a solution no verdict shows that it matters.
    assert list(failed) == (["reference", "isolation"] if solved else [])
    assert checks["isolation"].status == ("fail" if solved else "warn")
    assert all("another process" in check.remedy for check in failed.values())


class Counted(Count):
    calls: list[int] = []  # noqa: RUF012 - for a log only

    def add(self, by: int) -> int:
        """Add to it."""
        self.calls.append(by)
        return super().add(by)

    def verify(self, reply: str, goal: int) -> dict[str, Any]:
        logging.debug("calls so far: %d", len(self.calls))
        return super().verify(reply, goal)


async def test_what_a_verifier_only_logs_is_a_warning() -> None:
    checks = await checked(rf.env(Counted, tasks=ROWS))
    assert failing(checks) == {}
    assert checks["isolation"].status == "warn"
    assert "the same verdicts, but task 0: the verifier reads Counted.calls" in checks["isolation"].says


async def test_a_verdict_that_would_be_another_where_the_tools_were_at_work() -> None:
    failed = failing(await checked(rf.env(InAnotherObject, tasks=ROWS)))
    assert "where the tools were at work" in failed["isolation"].says


async def test_tools_that_answer_otherwise_each_time_are_a_leak() -> None:
    failed = failing(await checked(rf.env(Forgets, tasks=ROWS)))
    assert "the same calls twice" in failed["isolation"].says
    assert "`seed` of reset" in failed["isolation"].remedy


async def test_a_cache_is_no_state() -> None:
    assert failing(await checked(rf.env(Remembers, tasks=ROWS))) == {}


async def test_a_method_that_no_model_is_told_of() -> None:
    class Untold(Count):
        def subtract(self, by: int) -> int:
            self.count -= by
            return self.count

        def _own(self) -> None: ...

    failed = failing(await checked(rf.env(Untold, tasks=ROWS, inline=True)))
    assert list(failed) == ["tools"]
    assert failed["tools"].says.startswith("subtract: a public method without a docstring")


async def test_a_verifier_that_hangs_is_cut_off() -> None:
    checks = await checked(rf.env(Hangs, tasks=ROWS[:1]), n=1, limits=Limits(1, 0.2))
    assert "timeout in verify" in failing(checks)["replies"].says


def double() -> Any:
    return [ROWS[0], ROWS[1], ROWS[0]]


def unsteady() -> Any:
    return [{"prompt": f"{random.random()}", "goal": 1}]


def breaks_off() -> Any:
    yield ROWS[0]
    raise OSError("gone")


@pytest.mark.parametrize(
    ("tasks", "says"),
    [
        (double, "task 2 is task 0 again"),
        (unsteady, "another reading gave other tasks"),
        (breaks_off, "OSError: gone"),
        ([], "there are none"),
        ([*ROWS, {"goal": 1}], "1 of 4 cannot be used"),
        ("nowhere.jsonl", "nowhere.jsonl"),
    ],
)
async def test_tasks(tasks: Any, says: str) -> None:
    checks = await checked(rf.env(Count, tasks=tasks, inline=True))
    assert says in failing(checks)["tasks"].says


async def test_tools_that_tasks_declare() -> None:
    def nested(name: str) -> dict[str, Any]:
        tools = [{"type": "function", "function": {"name": name}}]
        return {"responses_create_params": {"input": "?", "tools": tools}, "goal": 1}

    checks = await checked(rf.env(Count, tasks=[nested("add")], inline=True))
    assert checks["tools"].status == "pass"
    checks = await checked(rf.env(Count, tasks=[nested("sub")], inline=True))
    assert failing(checks)["tools"].says == "task 0 declares sub, which its session does not have"


async def test_without_a_reference_its_check_is_skipped_and_sessions_are_still_compared() -> None:
    class Plain(Count):
        solve = None  # type: ignore[assignment]

    class PlainShared(SharedState):
        solve = None  # type: ignore[assignment]

    checks = await checked(rf.env(Plain, tasks=ROWS, inline=True))
    assert checks["reference"].status == "skip"
    assert failing(checks) == {}
    assert "isolation" in failing(await checked(rf.env(PlainShared, tasks=ROWS, inline=True)))


async def test_an_environment_by_hand_with_tasks_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "tasks.jsonl"
    file.write_text('{"prompt": "a"}\n{"prompt": "b"}\n')
    script = Script(
        tools=[Tool("look", "Look."), Tool("look", "Again."), Tool("no good", "", {"type": "object"}), Tool("run", "x")]
    )
    checks = await checked(script, tasks=file)
    failed = failing(checks)
    assert list(failed) == ["tools"]
    for part in ("'look' is declared twice", "'no good': model servers take names", "'no good' has no description"):
        assert part in failed["tools"].says
    assert script.opened == script.closed > 0
    assert "no tasks of its own" in failing(await checked(script))["tasks"].says


async def test_a_session_that_does_not_open_is_told(tmp_path: Path) -> None:
    async def opening() -> None:
        raise OSError("no room")

    file = tmp_path / "tasks.jsonl"
    file.write_text('{"prompt": "a"}\n')
    checks = await checked(Script(opening=opening), tasks=file)
    assert "verifier_fault in open: OSError: no room" in failing(checks)["opening"].says
    assert {check.status for name, check in checks.items() if name not in ("tasks", "opening")} == {"skip"}


@pytest.mark.parametrize(("target", "expected"), [(Count, []), (SharedState, ["isolation"]), (NotANumber, ["replies"])])
async def test_an_environment_behind_http(tmp_path: Path, target: type, expected: list[str]) -> None:
    class Served(target):  # type: ignore[misc, valid-type]
        solve = None

    file = tmp_path / "tasks.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    local = rf.env(Served, inline=True)
    async with served(env_app(local, "count", Settings())) as url:
        checks = await checked(load_env(url), tasks=file)
    assert list(failing(checks)) == expected, checks
    assert checks["reference"].status == "skip"


@pytest.mark.parametrize(("app", "tool"), [(counter, {}), (gymnasium, {}), (counter, {"properties": 3})])
async def test_a_service_of_nemo_gym_keeps_rules_of_its_own(tmp_path: Path, app: Any, tool: Json) -> None:
    """Rows that repeat and a tool without a description are no failures there; a schema that is none is one."""
    add = {"type": "function", "name": "add", "parameters": {"type": "object", **tool}}
    row = {"responses_create_params": {"input": "Count.", "tools": [add]}, "goal": 5}
    file = tmp_path / "tasks.jsonl"
    file.write_text(2 * (json.dumps(row) + "\n"))
    async with served(app()) as url:
        checks = await checked(load_env(url), tasks=file)
    assert list(failing(checks)) == (["tools"] if tool else []), checks
    assert "task 1 is task 0 again" in checks["tasks"].says
    assert checks["reference"].says == "a server of NeMo Gym brings none"


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        ({"type": "object", "properties": {"a": {"type": "int"}}}, "parameters.a has the type 'int'"),
        ({"type": "object", "properties": {"a": {}}, "required": ["b"]}, "requires 'b'"),
        ({"type": "object", "properties": []}, "properties is list"),
        ({"type": "object", "required": "a"}, "required is no list"),
        ({"type": "object", "properties": {"a": {"$ref": "#/$defs/B"}}, "$defs": {}}, "leads nowhere"),
        ({"type": "object", "properties": {"a": {"$ref": "http://x/y"}}}, "leads nowhere"),
        ({"type": "object", "properties": {"a": {"enum": []}}}, "enum is no list"),
        ({"type": "object", "properties": {"a": {"anyOf": []}}}, "a.anyOf is NoneType"),
        ({"type": "object", "properties": {"a": {"type": ["string", "nil"]}}}, "'nil'"),
        ({"type": "object", "properties": {"a": {"type": "array", "items": 3}}}, "a.items is int"),
    ],
)
def test_schemas(schema: Any, problem: str) -> None:
    assert any(problem in found for found in schema_problems(schema)), list(schema_problems(schema))


def test_schemas_of_real_tools_are_fine() -> None:
    tree = {
        "type": "object",
        "properties": {"next": {"$ref": "#/$defs/T"}},
        "$defs": {"T": {"anyOf": [{"$ref": "#/$defs/T"}, True]}},
    }
    assert list(schema_problems(tree)) == []
    for name in BUILT_IN["env"]:
        assert list(tool_problems(load_env(name).tools)) == []  # type: ignore[attr-defined]


async def test_what_cannot_be_checked_is_said() -> None:
    with pytest.raises(UserError, match=r"^counter is str, not an environment"):
        await check_env("counter", "counter")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"^n is 0: at least one task"):
        await check_env(load_env("counter"), "counter", n=0)
    with pytest.raises(UserError, match=r"^n is -1: at least one task"):
        await audit_env(load_env("counter"), "counter", n=-1)
