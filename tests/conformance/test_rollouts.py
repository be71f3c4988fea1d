"""A rollout is the same wherever its parts run: environment, model, agent in this process or each behind HTTP.

The faults too: what went wrong behind three services is still told from what the policy did.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio

import rollforge as rf
from rollforge.agents.remote import RemoteRun
from rollforge.agents.tool_loop import ToolLoop
from rollforge.collect.rollout import Runner
from rollforge.envs.base import Limits
from rollforge.envs.remote import RemoteEnv
from rollforge.errors import DeadlineExceeded, InfraFault, JudgeFault, PolicyFault, SetupError, VerifierFault
from rollforge.models.base import Model, ModelOptions, Request
from rollforge.models.load import load_model
from rollforge.records.items import assistant, function_call
from rollforge.records.rollout import Outcome, Rollout
from rollforge.records.task import Task, task_from_row
from rollforge.serve.agent_app import agent_app
from rollforge.serve.env_app import env_app
from rollforge.serve.model_app import model_app
from rollforge.serve.settings import Settings
from tests.models.server import closing
from tests.serve.live import serving

FAULTS: dict[str, tuple[type[Exception], str]] = {
    "policy": (PolicyFault, "it cheated"),
    "infra": (InfraFault, "the disk is gone"),
    "judge": (JudgeFault, "no verdict"),
    "verifier": (VerifierFault, "the answer is missing"),
    "late": (DeadlineExceeded, "it slept"),
    "bug": (KeyError, "oops"),
    "setup": (SetupError, "wrong key"),
}


@rf.env(inline=True)
class Account:
    """Pay what is owed."""

    def reset(self, owed: int, open_fault: str = "") -> str:
        self.closed = False
        self.owed = owed
        _raise(open_fault)
        return f" You owe {owed}."

    def pay(self, amount: int) -> str:
        """Pay."""
        self.owed -= amount
        return f"left {self.owed}"

    def break_down(self, kind: str) -> str:
        """Fail."""
        _raise(kind)
        return "?"

    def verify(self, reply: str, verify_fault: str = "", answer: str = "") -> dict[str, Any]:
        _raise(verify_fault)
        parts = {"paid": 0.5 * (self.owed == 0), "said": 0.5 * (reply == answer)}
        return {"reward": sum(parts.values()), "reward_components": parts, "answer": reply, "left": self.owed}


def _raise(kind: str) -> None:
    if kind:
        error, text = FAULTS[kind]
        raise error(text)


ACCOUNT: Any = Account
"""To a type checker still the class."""


class Payer:
    """Pays what it is told to, or fails, as the prompt says."""

    async def __call__(self, request: Request, /) -> Any:
        items = request.params["input"]
        prompt = str(items[0]["content"])  # type: ignore[index]
        usage = {"input_tokens": 7, "output_tokens": 3, "total_tokens": 10}
        shared = {
            "id": f"resp_{len(items)}",
            "object": "response",
            "model": "payer",
            "created_at": 1.0,
            "status": "completed",
        }
        _raise(prompt.partition("model:")[2].partition(" ")[0])
        if any(item.get("type") == "function_call_output" for item in items):  # type: ignore[union-attr]
            return {**shared, "output": [assistant("done")], "usage": usage}
        kind = prompt.partition("tool:")[2].partition(" ")[0]
        call = (
            function_call("break_down", f'{{"kind": "{kind}"}}', "c1")
            if kind
            else function_call("pay", '{"amount": 5}', "c1")
        )
        return {**shared, "output": [call], "usage": usage}


class Forms:
    """What of a rollout is reached over HTTP: letters of e(nvironment), m(odel), a(gent)."""

    def __init__(self, letters: str, to: AsyncExitStack) -> None:
        self.letters = letters
        self.to = to

    async def run_one(self) -> Any:
        env: Any = ACCOUNT
        model: Model = Payer()
        enter = self.to.enter_async_context
        if "e" in self.letters:
            env = await enter(closing(RemoteEnv(await enter(serving(env_app(ACCOUNT, "e", Settings()))))))
        if "m" in self.letters:
            url = await enter(serving(model_app(model, "m", Settings())))
            model = await enter(closing(load_model(url, ModelOptions())))
        runner = Runner(env=env, env_name="account", model=model, model_name="payer", agent=ToolLoop(), limits=Limits(9, 9))
        if "a" not in self.letters:
            return runner
        return await enter(closing(RemoteRun(await enter(serving(agent_app(runner, "a", Settings()))), env_name="account")))


FORMS = ("", "e", "m", "a", "em", "ema")


pytestmark = pytest.mark.asyncio(loop_scope="module")  # starting and ending services costs more than the rollouts


@pytest_asyncio.fixture(params=FORMS, ids=lambda letters: letters or "local", scope="module", loop_scope="module")
async def run_one(request: Any) -> AsyncIterator[Any]:
    async with AsyncExitStack() as to:
        yield await Forms(request.param, to).run_one()


def task(prompt: str = "Pay.", **fields: Any) -> Task:
    return task_from_row({"prompt": prompt, "owed": 5, "answer": "done", "meta": {"x": [1]}, **fields}, 4)


def shape(rollout: Rollout) -> Any:
    """All that must be the same."""
    outputs = [(item["type"], item.get("name"), item.get("output"), item.get("content")) for item in rollout.output]
    usage = (rollout.response or {}).get("usage") or {}
    return {
        "outcome": rollout.outcome,
        "reward": rollout.reward,
        "fields": rollout.fields,
        "ids": (rollout.task, rollout.task_index, rollout.index, rollout.attempt, rollout.env),
        "output": outputs,
        "usage": {key: usage.get(key) for key in ("input_tokens", "output_tokens", "total_tokens")},
        "replaced": rollout.extra.get("task_fields"),
        "input": rollout.params["input"],
        "tools": rollout.params.get("tools"),
        "failure": rollout.failure and (rollout.failure.stage, rollout.failure.type, rollout.failure.retryable),
    }


async def local(*args: Any) -> Rollout:
    async with AsyncExitStack() as to:
        found: Rollout = await (await Forms("", to).run_one())(*args)
        return found


async def test_a_scored_rollout_is_the_same(run_one: Any) -> None:
    found = await run_one(task(), 2, 3)
    assert (found.outcome, found.reward, found.fields["left"]) == (Outcome.SCORED, 1.0, 0)
    assert shape(found) == shape(await local(task(), 2, 3))
    wrong = await run_one(task(answer="other", owed=9), 0, 1)
    assert (wrong.reward, wrong.extra["task_fields"]) == (0.0, {"answer": "other"})
    assert shape(wrong) == shape(await local(task(answer="other", owed=9), 0, 1))


WHERE = {
    "opening": lambda kind: task(open_fault=kind),
    "a tool": lambda kind: task(f"tool:{kind} now"),
    "the model": lambda kind: task(f"model:{kind} now"),
    "judging": lambda kind: task(verify_fault=kind),
}


@pytest.mark.parametrize("kind", [kind for kind in FAULTS if kind != "setup"])
@pytest.mark.parametrize("where", WHERE)
async def test_a_fault_is_the_same(run_one: Any, where: str, kind: str) -> None:
    made = WHERE[where](kind)
    found, expected = await run_one(made, 0, 1), await local(made, 0, 1)
    assert found.failure is None or found.failure.message
    assert shape(found) == shape(expected)


STEPPED = [
    ("opening", "infra"),
    ("a tool", "policy"),
    ("a tool", "late"),
    ("judging", "judge"),
    ("judging", "bug"),
    ("a tool", "bug"),
]


@pytest.mark.parametrize(("where", "kind"), [("nothing", ""), *STEPPED])
async def test_an_environment_that_is_played_by_steps_judges_the_same(where: str, kind: str) -> None:
    made = WHERE[where](kind) if kind else task()
    async with serving(env_app(ACCOUNT, "e", Settings())) as url, closing(RemoteEnv(url, style="steps")) as env:
        runner = Runner(
            env=env, env_name="account", model=Payer(), model_name="payer", agent=ToolLoop(), limits=Limits(9, 9)
        )
        found, expected = shape(await runner(made, 0, 1)), shape(await local(made, 0, 1))
    same = ("outcome", "reward", "ids", "output", "usage", "tools")
    assert {key: found[key] for key in same} == {key: expected[key] for key in same}
    if expected["failure"]:  # judging happens in a step
        assert found["failure"][1:] == expected["failure"][1:]


@pytest.mark.parametrize("where", ["opening", "the model"])
async def test_what_concerns_every_rollout_stops_the_run(run_one: Any, where: str) -> None:
    with pytest.raises(SetupError, match="wrong key"):
        await run_one(WHERE[where]("setup"), 0, 1)


async def test_many_at_once_do_not_meet(run_one: Any) -> None:
    tasks = [task(owed=5 + n % 2, answer="done" if n % 3 else "other") for n in range(60)]
    found = await asyncio.gather(*(run_one(one, n, 1) for n, one in enumerate(tasks)))
    assert [(one.index, one.reward) for one in found] == [(n, 0.5 * (n % 2 == 0) + 0.5 * (n % 3 > 0)) for n in range(60)]
