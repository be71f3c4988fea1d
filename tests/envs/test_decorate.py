"""`@env`: what of a function or class becomes an environment, how its parameters are filled, what its results mean."""

from __future__ import annotations

import functools
import json
import linecache
import math
import sqlite3
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import rollforge as rf
from rollforge.envs.base import ToolCall, Verdict
from rollforge.envs.decorate import PythonEnv
from rollforge.errors import RolloutError, UserError, VerifierFault
from rollforge.records.items import assistant, system, user
from rollforge.records.rows import BadLine
from rollforge.records.task import Task
from tests.envs.drive import attempt, solved, task, tasks_of
from tests.seeds import printed

ROW = task(answer="4", weight=2, options=["a", "b"])


async def judged(env: PythonEnv, row: Task = ROW, reply: str = "it is 4", calls: Any = ()) -> Verdict:
    try:
        return await attempt(env, row, reply, calls)
    finally:
        await env.aclose()


def of(result: Any) -> Callable[..., Any]:
    def verifier(reply: str) -> Any:
        return result() if callable(result) else result

    return verifier


# Results.

RESULTS = [
    (1.0, 1.0, {}),
    (0, 0.0, {}),
    (-2.5, -2.5, {}),
    (True, 1.0, {}),
    (False, 0.0, {}),
    (np.float32(0.5), 0.5, {}),
    (np.float64(0.5), 0.5, {}),
    (np.int64(3), 3.0, {}),
    (np.bool_(True), 1.0, {}),
    (np.array([0.25]).mean(), 0.25, {}),
    (Decimal("0.5"), 0.5, {}),
    (Fraction(1, 4), 0.25, {}),
    ({"reward": 1.0}, 1.0, {}),
    ({"reward": True, "length": 3, "note": "ok"}, 1.0, {"length": 3, "note": "ok"}),
    ({"reward": np.float32(0.5), "score": np.float32(0.5), "ids": np.arange(2)}, 0.5, {"score": 0.5, "ids": [0, 1]}),
    ({"reward": 1, "bleu": math.nan, 5: (1, 2)}, 1.0, {"bleu": None, "5": [1, 2]}),
    ({"form": 0.25, "result": True}, 1.25, {"reward_components": {"form": 0.25, "result": 1.0}}),
    ({"reward": 1.5, "reward_components": {"a": 1, "b": 0.5}}, 1.5, {"reward_components": {"a": 1, "b": 0.5}}),
    (Verdict(0.5), 0.5, {}),
    (Verdict(0.5, {"why": "half", "big": 10**30}), 0.5, {"why": "half", "big": 10**30}),
]


@pytest.mark.parametrize("inline", [True, False])
@pytest.mark.parametrize(("result", "reward", "fields"), RESULTS)
async def test_what_a_verifier_may_return(result: Any, reward: float, fields: dict[str, Any], inline: bool) -> None:
    verdict = await judged(rf.env(of(result), inline=inline))
    assert (verdict.reward, verdict.fields) == (reward, fields)
    assert type(verdict.reward) is float


NOT_A_VERDICT = [
    (None, "reward = None (NoneType), not a number"),
    ("1.0", "reward = '1.0' (str), not a number"),
    (b"1", "reward = b'1' (bytes), not a number"),
    (math.nan, "reward = nan (float), which is not finite"),
    (-math.inf, "reward = -inf (float), which is not finite"),
    (np.float32("nan"), "which is not finite"),
    (10**400, "not a number: int too large to convert to float"),
    ([1.0], "reward = [1.0] (list), not a number"),
    (np.ones(2), "not a number: "),
    (1j, "reward = 1j (complex), not a number"),
    ((1.0, "why"), "(tuple), not a number"),
    ({}, "the verifier returned an empty mapping"),
    ({"reward": None}, "reward = None"),
    ({"reward": "good"}, "reward = 'good'"),
    ({"form": 1.0, "note": "x"}, "note = 'x' (str), not a number"),
    ({"form": math.nan}, "form = nan (float), which is not finite"),
    ({"reward": 1.0, "reward_components": {"a": 0.4, "b": 0.5}}, "reward_components sum to 0.9, but reward is 1"),
    ({"reward": 1.0, "reward_components": {"a": None}}, "reward_components['a'] = None"),
    ({"reward": 1.0, "reward_components": [1.0]}, "reward_components is list, not a mapping of name to number"),
    (Verdict(math.inf), "which is not finite"),
    (Verdict(1.0, None), "the verdict's fields are NoneType, not a mapping"),  # type: ignore[arg-type]
    (Verdict(1.0, {"seen": {1, 2}}), "the verdict's fields cannot be stored: seen is set"),
    ({"reward": 1.0, "lock": threading.Lock}, "the verdict's fields cannot be stored: lock is "),
    (threading.Lock, "(lock), not a number"),
    ("x" * 10_000, "not a number"),
]


@pytest.mark.parametrize("inline", [True, False])
@pytest.mark.parametrize(("result", "message"), NOT_A_VERDICT)
async def test_what_is_no_verdict_is_the_verifier_s_fault(result: Any, message: str, inline: bool) -> None:
    with pytest.raises(VerifierFault) as error:
        await judged(rf.env(of(result), inline=inline))
    assert message in str(error.value)
    assert len(str(error.value)) < 500
    assert error.value.stage == "verify"


async def test_a_result_that_cannot_be_pickled_counts_all_the_same() -> None:
    def verifier(reply: str) -> Any:
        class Mine(float):
            pass

        return Mine(0.5)

    assert (await judged(rf.env(verifier))).reward == 0.5


async def test_what_a_verifier_raises_names_the_line_of_the_user() -> None:
    def verifier(reply: str) -> float:
        return {}["missing"]

    for inline in (True, False):
        with pytest.raises(VerifierFault, match=r"KeyError: 'missing' \(test_decorate.py:\d+\)"):
            await judged(rf.env(verifier, inline=inline))


@pytest.mark.parametrize("fault", [rf.PolicyFault, rf.JudgeFault, rf.InfraFault, rf.VerifierFault])
async def test_an_environment_says_itself_whose_fault_it_is(fault: type[RolloutError]) -> None:
    class Mine(fault):  # type: ignore[misc, valid-type]
        pass

    def verifier(reply: str) -> float:
        raise Mine("said so")

    for inline in (True, False):
        with pytest.raises(fault, match=r"^said so$") as error:
            await judged(rf.env(verifier, inline=inline))
        assert error.value.stage == "verify"


# Sync and async, decorated and wrapped.


async def test_async_functions_and_methods() -> None:
    @rf.env
    async def verifier(reply: str, answer: str) -> float:
        return float(answer in reply)

    @rf.env
    class Steps:
        async def reset(self, weight: int) -> str:
            self.weight = weight
            return f"weight {weight}"

        async def add(self, n: int) -> int:
            """Add."""
            self.weight += n
            return self.weight

        async def get_reward(self) -> float:
            return self.weight

        async def close(self) -> None:
            self.weight = 0

    assert (await judged(verifier)).reward == 1.0
    assert (await judged(Steps, calls=[("add", {"n": 5})])).reward == 7.0


async def test_a_sync_wrapper_of_an_async_function_is_awaited() -> None:
    async def later(reply: str) -> float:
        return 0.5

    @functools.wraps(later)
    def wrapper(**arguments: Any) -> Any:
        return later(**arguments)

    @rf.env
    class Waits:
        def say(self) -> Any:
            """Say it."""
            return self.later()

        async def later(self) -> str:
            return "said"

        def verify(self) -> Any:
            return later("")

    for inline in (True, False):
        assert (await judged(rf.env(wrapper, inline=inline))).reward == 0.5
    async with Waits.open(ROW) as session:
        assert (await session.call(ToolCall("say", {}))).text == "said"
    assert (await judged(Waits)).reward == 0.5


def test_a_decorated_function_and_class_are_still_what_they_were() -> None:
    @rf.env
    def double(reply: float) -> float:
        """Twice."""
        return 2 * reply

    @rf.env(name="bank")
    class Bank:
        """A bank."""

        FEE = 3

        def fee(self) -> int:
            return Bank.FEE

        def verify(self) -> float:
            return 0.0

    class Branch(Bank):
        pass

    assert (double(2), double.name, double.description) == (4, "double", "Twice.")
    assert (Bank().fee(), Branch().fee(), Bank.name, Bank.description) == (3, 3, "bank", "A bank.")
    assert repr(Bank).startswith("<env bank from ")
    assert not hasattr(Bank, "nothing")
    assert rf.env(Branch).name == "Branch"


NOT_AN_ENV = [
    (5, "@env is for a function or a class, not int: 5"),
    ("tasks.jsonl", "@env is for a function or a class, not str"),
    (functools.partial(print), "@env is for a function or a class, not partial"),
    (type("Empty", (), {}), "the class Empty has neither verify(self, ...) nor get_reward(self)"),
    (
        type("Needs", (), {"__init__": lambda self, size: None, "verify": lambda self: 0}),
        "Needs() needs size, but an environment's",
    ),
]


@pytest.mark.parametrize(("target", "message"), NOT_AN_ENV)
def test_what_cannot_be_an_environment(target: Any, message: str) -> None:
    with pytest.raises(UserError) as error:
        rf.env(target)
    assert str(error.value).startswith(message)


def test_what_cannot_be_an_environment_by_its_signatures() -> None:
    def unnamed(reply: str, /) -> float:
        return 0.0

    class Abstract(ABC):
        @abstractmethod
        def play(self) -> None:
            """Play."""

        def verify(self) -> float:
            return 0.0

    async def solve(answer: str) -> str:
        return answer

    with pytest.raises(UserError, match=r"unnamed\(\): parameter 'reply' cannot be filled by name; remove the '/'"):
        rf.env(unnamed)
    with pytest.raises(UserError, match="the class Abstract is abstract: it lacks play"):
        rf.env(Abstract)
    with pytest.raises(UserError, match="solve is called without an event loop"):
        rf.env(of(1.0), solve=solve)

    class Yields:
        def verify(self) -> float:
            return 1.0

        async def solve(self, answer: str) -> Any:
            yield "add", {"x": answer}

    with pytest.raises(UserError, match="solve is called without an event loop"):
        rf.env(Yields)


# Parameters.


async def test_parameters_are_filled_by_name() -> None:
    seen: dict[str, Any] = {}

    @rf.env(inline=True)
    def verifier(reply, response, prompt, task, seed, answer, weight=1, missing="default", *, options=None) -> float:
        seen.update(locals())
        return weight

    assert (await judged(verifier)).reward == 2.0
    assert (seen["reply"], seen["answer"], seen["prompt"], seen["missing"]) == ("it is 4", "4", "?", "default")
    assert seen["response"]["output"] == [assistant("it is 4")]
    assert (seen["task"], seen["options"]) == (ROW, ["a", "b"])
    assert isinstance(seen["seed"], int)


async def test_a_row_fills_prompt_task_and_seed_but_never_what_the_policy_said() -> None:
    row = task(seed=7, task="sort", reply="mine", response="mine", answer=1)
    seen: dict[str, Any] = {}

    @rf.env(inline=True)
    def verifier(reply, response, task, seed, **row) -> float:
        seen.update(locals())
        return 0.0

    await judged(verifier, row, reply="said")
    assert (seen["reply"], seen["task"], seen["seed"]) == ("said", "sort", 7)
    assert seen["response"]["output"] == [assistant("said")]
    assert seen["row"] == {"prompt": "?", "answer": 1}


async def test_a_function_of_the_whole_row() -> None:
    @rf.env
    def verifier(**row: Any) -> float:
        return float(row == {"prompt": "?", "answer": "4", "weight": 2, "options": ["a", "b"]})

    assert (await judged(verifier)).reward == 1.0


async def test_what_the_row_lacks_is_named() -> None:
    @rf.env
    def verifier(reply: str, expected: str) -> float:
        return 0.0

    @rf.env
    class Resets:
        def reset(self, level: int) -> None:
            pass

        def verify(self) -> float:
            return 0.0

    with pytest.raises(
        VerifierFault, match=r"verifier\(\) needs 'expected', which the task row lacks \(its fields: answer, "
    ):
        await judged(verifier)
    with pytest.raises(VerifierFault, match=r"reset\(\) needs 'level'.*its fields: none") as error:
        await judged(Resets, task())
    assert error.value.stage == "open"


@pytest.mark.parametrize("inline", [True, False])
async def test_rollouts_of_one_task_do_not_share_its_row(inline: bool) -> None:
    @rf.env(inline=inline)
    class Game:
        def reset(self, board: list[list[int]], task: Task, **row: Any) -> None:
            self.board, self.task, self.row = board, task, row

        def play(self) -> int:
            """Play."""
            self.board[0][0] += 1
            self.task.fields["board"].clear()
            self.row["names"].append("x")
            return self.board[0][0]

        def verify(self, board: list[list[int]], response: Any) -> float:
            response["output"].clear()
            return board[0][0] * 10 + self.board[0][0]

    row = task(board=[[1]], names=[])
    response: Any = {"output": [assistant("x")]}
    for _ in range(2):
        async with Game.open(row) as session:
            await session.call(ToolCall("play", {}))
            assert (await session.verify(response)).reward == 12.0
    assert row.fields == {"board": [[1]], "names": []}
    assert len(response["output"]) == 1
    await Game.aclose()


async def test_the_seed_is_that_of_the_task() -> None:
    @rf.env
    class Random:
        def reset(self, seed: int) -> str:
            return str(seed)

        def verify(self) -> float:
            return 0.0

    seeds = []
    for row in (ROW, ROW, task(other=1)):
        async with Random.open(row) as session:
            seeds.append(session.observation)
    assert seeds[0] == seeds[1] != seeds[2]
    await Random.aclose()


# Classes.


class Plain:
    """A class that knows nothing of rollforge: as TRL has it."""

    def reset(self, **row: Any) -> str:
        self.total = row["weight"]
        return f"start at {self.total}"

    def add(self, n: int) -> str:
        """Add a number.

        Args:
            n: which one.
        """
        self.total += n
        return str(self.total)

    def undocumented(self) -> None:
        self.total = -1

    def _private(self) -> None:
        """Not for the policy."""

    def get_reward(self) -> float:
        return float(self.total)


async def test_a_class_as_trl_has_it() -> None:
    found = rf.env(Plain)
    async with found.open(ROW) as session:
        assert session.observation == "start at 2"
        assert [tool.name for tool in session.tools] == ["add"]
        assert (await session.call(ToolCall("undocumented", {}))).error
    assert (await judged(found, calls=[("add", {"n": 3})])).reward == 5.0


class Base:
    def first(self) -> str:
        """Of the base."""
        return "base"

    def second(self) -> str:
        """Of the base too."""
        return "base"

    def dropped(self) -> None:
        """Not in the child."""

    def verify(self) -> float:
        return 1.0


class Child(Base):
    limit = 5
    dropped = None

    def second(self) -> str:
        return "child"

    def third(self) -> str:
        """Its own."""
        return "child"

    @staticmethod
    def fourth(n: int) -> int:
        """Static."""
        return n + 1

    @classmethod
    def fifth(cls, n: int) -> int:
        """Of the class."""
        return n + cls.limit

    @functools.lru_cache  # noqa: B019
    def sixth(self, n: int) -> int:
        """Cached."""
        return n + 2

    @property
    def state(self) -> str:
        """No tool."""
        return "x"

    class Inner:
        """No tool."""


async def test_inherited_static_and_class_methods_are_tools() -> None:
    found = rf.env(Child)
    outputs = []
    async with found.open(ROW) as session:
        for tool in session.tools:
            outputs.append(
                (
                    tool.name,
                    (await session.call(ToolCall(tool.name, {"n": 1} if tool.parameters["properties"] else {}))).text,
                )
            )
    expected = [("first", "base"), ("second", "child"), ("third", "child"), ("fourth", "2"), ("fifth", "6"), ("sixth", "3")]
    assert outputs == expected
    assert found.tools[1].description == "Of the base too."
    await found.aclose()


async def test_static_and_class_methods_reset_verify_and_solve() -> None:
    class Static:
        @staticmethod
        def reset(weight: int) -> str:
            return f"w{weight}"

        @classmethod
        def verify(cls, reply: str, weight: int) -> float:
            return float(reply == f"{cls.__name__} {weight}")

        @staticmethod
        def solve(weight: int) -> str:
            return f"Static {weight}"

    found = rf.env(Static)
    async with found.open(ROW) as session:
        assert session.observation == "w2"
    assert (await solved(found, ROW)).reward == 1.0
    await found.aclose()


class Slots:
    __slots__ = ("__hidden", "total")

    def reset(self, weight: int) -> None:
        self.total, self.__hidden = weight, 1

    def verify(self) -> float:
        return self.total + self.__hidden


class SlotsAndMore(Slots):
    def reset(self, weight: int) -> None:
        super().reset(weight)
        self.more = 10

    def verify(self) -> float:
        return super().verify() + self.more


class OwnState:
    def reset(self, weight: int) -> None:
        self.lock, self.weight = threading.Lock(), weight

    def __getstate__(self) -> tuple[str, int]:
        return ("mine", self.weight)

    def __setstate__(self, state: tuple[str, int]) -> None:
        self.weight = state[1] * 100

    def verify(self) -> float:
        return self.weight


class Dictionary(dict[str, int]):
    def reset(self, weight: int) -> None:
        self["weight"] = weight

    def verify(self) -> float:
        return self["weight"]


class Circular:
    def reset(self, weight: int) -> None:
        self.me, self.how, self.weight = self, self.verify, weight

    def verify(self) -> float:
        return self.weight if self.me is self and self.how == self.verify else -1


class Connected:
    def reset(self, weight: int) -> None:
        self.db = sqlite3.connect(":memory:")
        self.db.execute("create table t (n)")
        self.add(weight)

    def add(self, n: int) -> None:
        """Add."""
        self.db.execute("insert into t values (?)", (n,))

    def verify(self) -> float:
        return float(self.db.execute("select sum(n) from t").fetchone()[0])

    def close(self) -> None:
        self.db.close()


class Locked:
    def reset(self, weight: int) -> None:
        self.lock, self.rows, self.weight = threading.Lock(), (n for n in range(3)), weight

    def verify(self) -> float:
        with self.lock:
            return self.weight + sum(self.rows)


class TwoArgumentError(Exception):
    def __init__(self, one: str, two: str) -> None:
        super().__init__(one)


class CannotBeRead:
    """Pickles, and does not come back."""

    def reset(self, weight: int) -> None:
        self.error, self.weight = TwoArgumentError("a", "b"), weight

    def verify(self) -> float:
        return self.weight


@pytest.mark.parametrize(
    ("target", "reward"),
    [
        (Slots, 3.0),
        (SlotsAndMore, 13.0),
        (OwnState, 200.0),
        (Dictionary, 2.0),
        (Circular, 2.0),
        (Connected, 2.0),
        (Locked, 5.0),
        (CannotBeRead, 2.0),
    ],
)
async def test_a_verifier_sees_the_state_whatever_it_is_made_of(target: type, reward: float) -> None:
    assert (await judged(rf.env(target))).reward == reward


async def test_a_connection_works_in_every_call_of_its_session() -> None:
    assert (await judged(rf.env(Connected), calls=[("add", {"n": n}) for n in range(20)])).reward == 192.0


async def test_a_class_without_reset_and_with_an_attribute_called_close() -> None:
    @rf.env
    class Stock:
        def __init__(self) -> None:
            self.close = 12.5

        def verify(self) -> float:
            return self.close

    assert (await judged(Stock)).reward == 12.5


# Tasks.


def test_tasks_given_inline() -> None:
    found = rf.env(of(1), tasks=[{"prompt": "a", "n": 1}, {"n": 2}, 5, {"prompt": "b", "n": {3}}, {"prompt": "c"}])
    lines = list(found.tasks())
    assert [line.index for line in lines if isinstance(line, Task)] == [0, 1]
    bad = [line for line in lines if isinstance(line, BadLine)]
    assert [(line.line, line.reason.partition(":")[0]) for line in bad] == [
        (2, "no input"),
        (3, "the row is int, not a mapping"),
        (4, "the row is not JSON"),
    ]
    assert bad[0].file == "tasks of verifier"
    assert lines == list(found.tasks())


def test_tasks_by_a_function_with_options() -> None:
    def rows(level: str = "easy", *, count: int = 2) -> Any:
        for n in range(count):
            yield {"prompt": f"{level} {n}"}

    found = rf.env(of(1), tasks=rows)
    assert [row.params["input"] for row in tasks_of(found)] == ["easy 0", "easy 1"]
    assert [row.params["input"] for row in tasks_of(found, level="hard", count=1)] == ["hard 0"]
    with pytest.raises(UserError, match=r"unknown task option 'levle'; did you mean level\?"):
        found.tasks(levle="hard")
    with pytest.raises(UserError, match=r"unknown task option 'env'; .* \(here it is --set level=\.\.\., without env\.\)"):
        found.tasks(env={"level": "hard"})
    endless = rf.env(of(1), tasks=lambda: iter(lambda: {"prompt": "again"}, None))
    assert next(endless.tasks()).params == {"input": "again"}


def test_tasks_from_a_file_beside_the_environment_or_where_one_is(tmp_path: Any, monkeypatch: Any) -> None:
    beside, elsewhere = tmp_path / "envs", tmp_path / "elsewhere"
    for folder in (beside, elsewhere):
        folder.mkdir()
        (folder / "rows.jsonl").write_text(json.dumps({"prompt": folder.name}) + "\n\nnot json\n")
    (elsewhere / "more.jsonl").write_text('{"prompt": "more"}\n')
    source = "import rollforge as rf\n\n\n@rf.env(tasks={!r})\ndef {}(reply): return 0.0\n"
    names = {
        "rows.jsonl": "near",
        "more.jsonl": "far",
        str(elsewhere / "rows.jsonl"): "absolute",
        "nowhere.jsonl": "nowhere",
    }
    (beside / "mine.py").write_text("".join(source.format(file, name) for file, name in names.items()))
    monkeypatch.chdir(elsewhere)
    env = {name: rf.load_env(f"{beside}/mine.py:{name}") for name in names.values()}
    first, blank, broken = env["near"].tasks()
    assert (first.params, blank.line, broken.line) == ({"input": "envs"}, 2, 3)
    assert next(env["far"].tasks()).params == {"input": "more"}
    assert next(env["absolute"].tasks()).params == {"input": "elsewhere"}
    assert next(env["near"].tasks("rows.jsonl")).params == {"input": "elsewhere"}
    with pytest.raises(UserError, match=rf"cannot read {beside}/nowhere.jsonl: No such file"):
        env["nowhere"].tasks()
    with pytest.raises(
        UserError, match=r"unknown task option 'n'; known: none \(the tasks are not generated: rows.jsonl is a file\)"
    ):
        env["near"].tasks(n=1)


def fails() -> Any:
    raise ValueError("no data")


def refuses() -> Any:
    yield {"prompt": "one"}
    raise UserError("no such level")


def breaks_off() -> Any:
    yield {"prompt": "one"}
    raise ValueError("no more data")


async def later() -> Any:
    return []


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        (fails, r"the tasks of verifier cannot be made: ValueError: no data \(test_decorate.py:\d+\)"),
        (breaks_off, r"the tasks of verifier break off at number 2: ValueError: no more data \(test_decorate.py:\d+\)"),
        (refuses, r"^no such level$"),
        (lambda: None, "the tasks of verifier are NoneType; the function has to yield or return rows"),
        (lambda: "rows.jsonl", "the tasks of verifier are str; the function has to"),
        (lambda: {"prompt": "x"}, "the tasks of verifier are dict; the function has to"),
        (later, "the tasks of verifier are coroutine; the function has to"),
        (lambda level: [], r"the tasks of verifier need level=\.\.\. \(on the command line: --set level=\.\.\.\)"),
    ],
)
def test_tasks_that_cannot_be_made(tasks: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        list(rf.env(of(1), tasks=tasks).tasks())


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        (iter([{"prompt": "x"}]), "the tasks of verifier can be read only once; give a list, or the function"),
        (({"prompt": p} for p in "ab"), "can be read only once"),
        ({"prompt": "x"}, "the tasks of verifier are dict; they are a list of rows, a JSONL file, or a function"),
        (5, "the tasks of verifier are int"),
        (None, "the tasks of verifier are NoneType"),
    ],
)
def test_what_is_no_source_of_tasks(tasks: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        rf.env(of(1), tasks=tasks)


def test_a_prompt_template_is_for_rows_without_a_prompt() -> None:
    rows = [
        {"a": 1, "b": 2},
        {"prompt": "own", "a": 1},
        {"prompt": None, "a": 3, "b": 4},
        {"responses_create_params": {"input": "long"}},
    ]
    found = rf.env(of(1), tasks=rows, prompt="{a} + {b:>2} = {{?}}")
    assert [row.params["input"] for row in tasks_of(found)] == ["1 +  2 = {?}", "own", "3 +  4 = {?}", "long"]


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{b}", "the row lacks 'b', which the prompt template needs"),
        ("{a:d}", "the prompt template does not fit the row: ValueError: Unknown format code 'd'"),
        ("{a.x}", "the prompt template does not fit the row: AttributeError"),
        ("{a[k]}", "the prompt template does not fit the row: TypeError"),
    ],
)
def test_a_row_that_does_not_fill_the_template(template: str, reason: str) -> None:
    (line,) = rf.env(of(1), tasks=[{"a": "text"}], prompt=template).tasks()
    assert line.reason.startswith(reason)


@pytest.mark.parametrize("template", ["{", "{}", "{0}", 'Answer as {"a": 1}}'])
def test_a_template_that_names_no_fields(template: str) -> None:
    with pytest.raises(UserError, match=r"the prompt template .*for braces"):
        rf.env(of(1), prompt=template)


def test_a_system_message_is_for_tasks_that_bring_none() -> None:
    rows = [
        {"prompt": "a"},
        {"prompt": [user("b")]},
        {"prompt": [system("own"), user("c")]},
        {"prompt": [{"role": "developer", "content": "own"}, user("d")]},
        {"responses_create_params": {"input": "e", "instructions": "own"}},
        {"prompt": "f", "task_id": "named"},
    ]
    plain, found = tasks_of(rf.env(of(1), tasks=rows)), tasks_of(rf.env(of(1), tasks=rows, system="Be brief."))
    brief = system("Be brief.")
    assert [row.params["input"] for row in found[:2]] == [[brief, user("a")], [brief, user("b")]]
    assert [row.params for row in found[2:5]] == [row.params for row in plain[2:5]]
    assert [a.id == b.id for a, b in zip(found, plain, strict=True)] == [False, False, True, True, True, True]


# The reference policy.


async def test_the_reference_policy_is_a_reply_or_a_course_of_calls() -> None:
    @rf.env(solve=lambda answer: f"it is {answer}")
    def verifier(reply: str, answer: str) -> float:
        return float(answer in reply)

    @rf.env
    class Adds(Plain):
        def verify(self, reply: str) -> float:
            return float(reply == "5" and self.total == 5)

        def solve(self, weight: int) -> Any:
            total = yield "add", {"n": 5 - weight}
            return total

    for found in (verifier, Adds):
        assert (await solved(found, ROW)).reward == 1.0
        await found.aclose()
    assert rf.env(of(1)).solve(ROW) is None
    assert rf.env(of(1), solve=lambda: None).solve(ROW) is None


async def test_an_environment_can_be_used_again_after_it_was_closed() -> None:
    found = rf.env(Plain)
    for _ in range(2):
        assert (await judged(found, calls=[("add", {"n": 1})])).reward == 3.0


def test_the_digest_is_that_of_the_source(tmp_path: Any) -> None:
    text = "import rollforge as rf\n\n\n@rf.env\ndef one(reply): return {}\n"
    digests = []
    for number in (0, 0, 1):
        folder = tmp_path / str(len(digests))
        folder.mkdir()
        (folder / "mine.py").write_text(text.format(number))
        digests.append(rf.load_env(f"{folder}/mine.py").digest())
    assert digests[0] == digests[1] != digests[2]


CELL = """
import rollforge as rf
def near(a, b): return abs(a - b) < 0.1
class Base:
    fee = 2
    @staticmethod
    def share(n): return n in {"a", "b", "c", "d"}
@rf.env
class Bank(Base):
    def reset(self, n): self.n = n
    def verify(self, reply): return [near(one, self.n) for one in (1, 2)] != []
@rf.env
def add(reply: str, answer: str = "4") -> float: return near(float(reply), float(answer))
"""


def in_a_notebook(text: str, *, kept: bool) -> list[str]:
    """The digests of a cell's environments; `kept`: with its text, as IPython has it."""
    name = f"/tmp/cell/{hash(text)}.py"
    if kept:
        linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    cell: dict[str, Any] = {"__name__": "notebook"}
    exec(compile(text, name, "exec"), cell)
    return [cell[which].digest() for which in ("Bank", "add")]


@pytest.mark.parametrize("kept", [True, False])
def test_the_digest_of_what_is_in_no_file_is_that_of_its_code(kept: bool) -> None:
    before = in_a_notebook(CELL, kept=kept)
    assert len(set(before)) == 2
    assert in_a_notebook(f"import json{CELL}print", kept=kept) == before
    for old, new, changed in [
        ("0.1", "0.2", [True, True]),
        ("fee = 2", "fee = 3", [True, False]),
        ('"d"', '"e"', [True, False]),
        ("(1, 2)", "(1, 3)", [True, False]),
        ("abs(a", "round(a", [True, True]),
        ('= "4"', '= "5"', [False, True]),
    ]:
        now = in_a_notebook(CELL.replace(old, new), kept=kept)
        assert [one != other for one, other in zip(before, now, strict=True)] == changed, old


def test_the_digest_of_what_is_in_no_file_is_the_same_in_every_process() -> None:
    code = f"namespace = {{'__name__': 'notebook'}}\nexec({CELL!r}, namespace)\nprint(namespace['Bank'].digest())"
    assert len(printed(code)) == 1


def test_the_digest_is_also_that_of_the_modules_beside_it(tmp_path: Any) -> None:
    (tmp_path / "other.py").write_text("")
    package = tmp_path / "digested"
    package.mkdir()
    texts = {
        tmp_path / "mine.py": "import rollforge as rf\nimport digested.deep\n@rf.env\ndef mine(reply): return 1.0\n",
        package / "__init__.py": "",
        package / "deep.py": "from .deeper import one\nfrom digested import last\n",
        package / "deeper.py": "one = 1\n",
        package / "last.py": "import json, rollforge.errors\n",
    }
    for file, text in texts.items():
        file.write_text(text)
    env = rf.load_env(f"{tmp_path}/mine.py")
    digests = {env.digest()}
    for count, file in enumerate(texts, 2):
        file.write_text(file.read_text() + "# changed\n")
        digests.add(env.digest())
        assert len(digests) == count
    (tmp_path / "other.py").write_text("# not imported\n")
    assert env.digest() in digests
