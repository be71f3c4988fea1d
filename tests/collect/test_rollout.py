"""The life of one rollout: every outcome from a scripted cause, deadlines, what closing can and cannot change, draws."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

import rollforge as rf
from rollforge.agents.tool_loop import ToolLoop
from rollforge.collect.replay import unshown
from rollforge.collect.rollout import Runner
from rollforge.envs.base import Limits, Verdict
from rollforge.errors import DeadlineExceeded, InfraFault, JudgeFault, PolicyFault, SetupError, UserError, VerifierFault
from rollforge.models.base import Request
from rollforge.records.items import final_text
from rollforge.records.rollout import Outcome, Rollout
from rollforge.records.task import Task
from tests.collect.parts import Script, calling, failing_group, for_ever, nothing, reply, task

TICK = 0.02


def raising(error: BaseException) -> Callable[..., Awaitable[Any]]:
    async def step(*_: object) -> Any:
        raise error

    return step


def giving(value: Any) -> Callable[..., Awaitable[Any]]:
    async def step(*_: object) -> Any:
        return value

    return step


async def hanging(*_: object) -> Any:
    await for_ever()


def model(*answers: Any) -> Callable[[Request], Awaitable[Any]]:
    """Answers by turn; the last one again and again. An exception is raised, a function is called."""

    async def ask(request: Request) -> Any:
        turn = sum(item.get("type") == "function_call_output" for item in request.params["input"])
        answer = answers[min(turn, len(answers) - 1)]
        if isinstance(answer, BaseException):
            raise answer
        return await answer() if callable(answer) else answer

    return ask


def runner(env: Any = None, policy: Any = None, **more: Any) -> Runner:
    parts: dict[str, Any] = {
        "env": env or Script(),
        "env_name": "script",
        "model": policy or model(reply()),
        "model_name": "test",
        "agent": ToolLoop(),
        "limits": Limits(tool=60.0, verify=60.0),
    }
    return Runner(**{**parts, **more})


def summary(one: Rollout) -> tuple[str, float | None, str | None, bool | None]:
    failure = one.failure
    return str(one.outcome), one.reward, failure and failure.stage, failure and failure.retryable


TOOLS = model(calling(), reply())

CAUSES: list[tuple[str, dict[str, Any], Any, tuple[str, float | None, str | None, bool | None]]] = [
    ("scored", {}, None, ("scored", 1.0, None, None)),
    ("zero", {"judge": giving(0.0)}, None, ("scored", 0.0, None, None)),
    ("tool used", {}, TOOLS, ("scored", 1.0, None, None)),
    # the environment
    ("open raises", {"opening": raising(KeyError("x"))}, None, ("verifier_fault", None, "open", False)),
    ("open: infra", {"opening": raising(InfraFault("x"))}, None, ("infra_fault", None, "open", True)),
    ("open: policy", {"opening": raising(PolicyFault("x"))}, None, ("policy_fault", 0.0, "open", False)),
    ("tool raises", {"tool": raising(OSError("x"))}, TOOLS, ("infra_fault", None, "tools", True)),
    ("tool: policy", {"tool": raising(PolicyFault("x"))}, TOOLS, ("policy_fault", 0.0, "tools", False)),
    ("tool: verifier", {"tool": raising(VerifierFault("x"))}, TOOLS, ("verifier_fault", None, "tools", False)),
    # the model and the agent
    ("model raises", {}, model(ValueError("x")), ("infra_fault", None, "model", True)),
    ("model: infra", {}, model(InfraFault("x")), ("infra_fault", None, "model", True)),
    ("model: policy", {}, model(PolicyFault("x")), ("policy_fault", 0.0, "model", False)),
    ("model: deadline", {}, model(DeadlineExceeded("x")), ("timeout", None, "model", True)),
    ("model: request", {}, model(UserError("x")), ("infra_fault", None, "model", False)),  # asking again is in vain
    ("model: own timeout", {}, model(TimeoutError()), ("infra_fault", None, "model", True)),
    ("model: None", {}, giving(None), ("infra_fault", None, "model", True)),
    ("model: text", {}, giving("yes"), ("infra_fault", None, "model", True)),
    ("model: no output", {}, giving({}), ("infra_fault", None, "model", True)),
    ("model: output null", {}, giving({"output": None}), ("infra_fault", None, "model", True)),
    ("model: items", {}, giving({"output": ["yes"]}), ("infra_fault", None, "model", True)),
    ("model: bare item", {}, giving({"output": [{}]}), ("infra_fault", None, "model", True)),
    # the verifier
    ("verify raises", {"judge": raising(ZeroDivisionError())}, None, ("verifier_fault", None, "verify", False)),
    ("verify exits", {"judge": raising(SystemExit(1))}, None, ("verifier_fault", None, "verify", False)),
    ("verify: judge", {"judge": raising(JudgeFault("x"))}, None, ("judge_fault", None, "verify", True)),
    ("verify: infra", {"judge": raising(InfraFault("x"))}, None, ("infra_fault", None, "verify", True)),
    ("verify: policy", {"judge": raising(PolicyFault("x"))}, None, ("policy_fault", 0.0, "verify", False)),
    ("verify: deadline", {"judge": raising(DeadlineExceeded("x"))}, None, ("timeout", None, "verify", False)),
    ("verify: nan", {"judge": giving(float("nan"))}, None, ("verifier_fault", None, "verify", False)),
    ("verify: inf", {"judge": giving(Verdict(float("inf")))}, None, ("verifier_fault", None, "verify", False)),
    ("verify: text", {"judge": giving("1.0")}, None, ("verifier_fault", None, "verify", False)),
    ("verify: {}", {"judge": giving({})}, None, ("verifier_fault", None, "verify", False)),
]


@pytest.mark.parametrize(("steps", "policy", "expected"), [case[1:] for case in CAUSES], ids=[case[0] for case in CAUSES])
async def test_outcomes(steps: dict[str, Any], policy: Any, expected: tuple[Any, ...]) -> None:
    env = Script(**steps)
    one = await runner(env, policy)(task(), 0)
    assert summary(one) == expected
    assert (one.reward is not None) == one.outcome.judged
    assert env.closed == env.opened


async def test_a_verifier_that_gives_none() -> None:
    class Silent(Script):
        async def verify(self, response: Any, /) -> Any:
            return None

    one = await runner(Silent())(task(), 0)
    assert summary(one) == ("verifier_fault", None, "verify", False)


@pytest.mark.parametrize("returned", [None, "done", {}, {"output": "text"}, {"output": [5]}])
async def test_an_agent_that_returns_no_response(returned: Any) -> None:
    one = await runner(agent=giving(returned))(task(), 0)
    assert summary(one) == ("infra_fault", None, "agent", True)
    assert one.response is None


@pytest.mark.parametrize("ids", [5, "text", [[1]], {"a": 1}])
async def test_token_ids_that_are_none(ids: Any) -> None:
    answer = reply()
    answer["output"][-1] |= {"prompt_token_ids": ids, "generation_token_ids": ids, "generation_log_probs": ids}
    one = await runner(None, model(answer))(task(), 0)
    assert one.outcome in (Outcome.SCORED, Outcome.INFRA_FAULT)


async def test_what_was_raised_is_told_with_its_place() -> None:
    async def judge() -> float:
        raise ValueError("not my day")

    one = await runner(Script(judge=judge))(task(), 0)
    assert one.failure is not None
    assert one.failure.message.startswith("ValueError: not my day (test_rollout.py:")


async def test_a_setup_error_is_about_the_whole_run() -> None:
    for steps, policy in (({}, model(SetupError("no key"))), ({"opening": raising(SetupError("no key"))}, None)):
        with pytest.raises(SetupError, match="no key"):
            await runner(Script(**steps), policy)(task(), 0)


# Deadlines


@pytest.mark.parametrize(
    ("steps", "policy", "limits", "expected"),
    [
        ({}, hanging, {"call_seconds": TICK}, ("timeout", None, "model", True)),
        ({"tool": hanging}, TOOLS, {"limits": Limits(tool=TICK)}, ("timeout", None, "tools", True)),
        ({"judge": hanging}, None, {"limits": Limits(verify=TICK)}, ("timeout", None, "verify", False)),
        ({"opening": hanging}, None, {"rollout_seconds": TICK}, ("timeout", None, "rollout", True)),
        ({}, hanging, {"rollout_seconds": TICK}, ("timeout", None, "rollout", True)),
        ({"tool": hanging}, TOOLS, {"rollout_seconds": TICK}, ("timeout", None, "rollout", True)),
        # a verifier that hangs on some answers must not select the others
        ({"judge": hanging}, None, {"rollout_seconds": TICK}, ("timeout", None, "verify", False)),
        # closing hangs too, after the deadline
        (
            {"judge": hanging, "closing": hanging},
            None,
            {"rollout_seconds": TICK, "limits": Limits(tool=TICK)},
            ("timeout", None, "verify", False),
        ),
        ({"closing": hanging}, model(InfraFault("x")), {"limits": Limits(tool=TICK)}, ("infra_fault", None, "model", True)),
    ],
    ids=["call", "tool", "verify", "open", "model", "in a tool", "in verify", "and closing", "fault and closing"],
)
async def test_deadlines(steps: dict[str, Any], policy: Any, limits: dict[str, Any], expected: tuple[Any, ...]) -> None:
    one = await asyncio.wait_for(runner(Script(**steps), policy, **limits)(task(), 0), 20)
    assert summary(one) == expected


async def test_a_deadline_says_which_and_how_long() -> None:
    one = await runner(None, hanging, call_seconds=TICK)(task(), 0)
    assert one.failure is not None
    assert one.failure.message == f"the model call took longer than {TICK:g} s"


async def test_an_environment_with_limits_keeps_them_itself() -> None:
    class Own(Script):
        limits = Limits()

    async def slow() -> None:
        await asyncio.sleep(5 * TICK)

    env = Own(tool=slow, judge=slow, closing=slow)
    one = await runner(env, TOOLS, limits=Limits(tool=TICK, verify=TICK))(task(), 0)
    assert summary(one) == ("scored", 1.0, None, None)


async def test_a_rollout_that_ran_out_of_time_tells_how_far_it_came() -> None:
    one = await runner(None, model(calling(), hanging), rollout_seconds=5 * TICK)(task(), 0)
    assert one.outcome is Outcome.TIMEOUT
    assert [item["type"] for item in one.output] == ["function_call"]
    assert one.response is not None
    assert one.response["usage"] == {"input_tokens": 7, "output_tokens": 3}


# Closing


@pytest.mark.parametrize("closing", [raising(ValueError("broken pipe")), hanging], ids=["raises", "hangs"])
async def test_a_verdict_outlives_its_session(closing: Any) -> None:
    one = await runner(Script(closing=closing), limits=Limits(tool=TICK))(task(), 0)
    assert summary(one) == ("scored", 1.0, None, None)
    assert "broken pipe" in one.extra["close_error"] or "closing the session took longer" in one.extra["close_error"]


async def test_a_verdict_outlives_the_rollout_that_ends_while_closing() -> None:
    one = await runner(Script(closing=hanging), rollout_seconds=3 * TICK)(task(), 0)
    assert summary(one) == ("scored", 1.0, None, None)
    assert "the rollout took longer" in one.extra["close_error"]


async def test_closing_does_not_hide_what_came_before() -> None:
    env = Script(closing=raising(ValueError("closing failed too")))
    one = await runner(env, model(InfraFault("the endpoint is gone")))(task(), 0)
    assert summary(one) == ("infra_fault", None, "model", True)
    assert one.failure is not None
    assert one.failure.message == "the endpoint is gone"


@pytest.mark.parametrize("closing", [nothing, raising(ValueError("x"))], ids=["closes", "fails"])
@pytest.mark.parametrize("own_limits", [False, True])
async def test_cancellation_passes_through(closing: Any, own_limits: bool) -> None:
    env = Script(closing=closing)
    if own_limits:
        env.limits = Limits()  # type: ignore[attr-defined]
    asked = asyncio.Event()

    async def ask(request: Request) -> Any:
        asked.set()
        await for_ever()

    job = asyncio.create_task(runner(env, ask)(task(), 0))  # type: ignore[arg-type]
    await asked.wait()
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job
    assert env.closed == 1


def after_failing_group(then: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def step(*given: Any) -> Any:
        await failing_group()
        return await then(*given)

    return step


@pytest.mark.parametrize("own_limits", [False, True])
async def test_a_task_group_that_failed_is_no_cancellation(own_limits: bool) -> None:
    env = Script(**dict.fromkeys(("opening", "tool", "judge", "closing"), failing_group))
    if own_limits:
        env.limits = Limits()  # type: ignore[attr-defined]
    one = await runner(env, after_failing_group(TOOLS), agent=after_failing_group(ToolLoop()))(task(), 0)
    assert summary(one) == ("scored", 1.0, None, None)


@pytest.mark.parametrize(
    ("steps", "policy", "limits", "expected"),
    [
        ({}, after_failing_group(hanging), {"call_seconds": TICK}, ("timeout", None, "model", True)),
        (
            {"tool": failing_group, "judge": hanging},
            TOOLS,
            {"limits": Limits(verify=TICK)},
            ("timeout", None, "verify", False),
        ),
        ({"judge": after_failing_group(hanging)}, None, {"limits": Limits(verify=TICK)}, ("timeout", None, "verify", False)),
        ({"judge": after_failing_group(hanging)}, None, {"rollout_seconds": TICK}, ("timeout", None, "verify", False)),
    ],
    ids=["call", "verify", "in verify", "rollout"],
)
async def test_a_task_group_that_failed_changes_no_deadline(
    steps: dict[str, Any], policy: Any, limits: dict[str, Any], expected: tuple[Any, ...]
) -> None:
    one = await asyncio.wait_for(runner(Script(**steps), policy, **limits)(task(), 0), 20)
    assert summary(one) == expected


async def test_a_cancellation_that_is_swallowed_is_one() -> None:
    judging = asyncio.Event()

    async def judge() -> float:
        await failing_group()
        judging.set()
        try:
            await for_ever()
        except asyncio.CancelledError:
            return 1.0
        return 0.0

    env = Script(judge=judge)
    job = asyncio.create_task(runner(env)(task(), 0))
    await judging.wait()
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job
    assert env.closed == 1


@pytest.mark.parametrize(
    ("steps", "policy", "expected"),
    [
        ({"tool": raising(asyncio.CancelledError())}, TOOLS, ("infra_fault", None, "rollout", True)),
        ({"judge": raising(asyncio.CancelledError())}, None, ("verifier_fault", None, "rollout", False)),
    ],
    ids=["tool", "verify"],
)
async def test_what_is_cancelled_by_itself_is_a_fault(steps: dict[str, Any], policy: Any, expected: tuple[Any, ...]) -> None:
    assert summary(await runner(Script(**steps), policy)(task(), 0)) == expected


async def test_a_verifier_that_cancels_itself_after_a_task_group_that_failed() -> None:
    async def judge(reply: str) -> float:
        await failing_group()
        raise asyncio.CancelledError

    one = await runner(rf.env(judge))(task(), 0)
    assert summary(one) == ("verifier_fault", None, "verify", False)
    assert one.failure is not None
    assert "cancelled by itself" in one.failure.message


@pytest.mark.parametrize("own_limits", [False, True])
async def test_an_environment_that_swallows_errors(own_limits: bool) -> None:
    class Swallowing(Script):
        @asynccontextmanager
        async def open(self, task: Task, /) -> Any:  # type: ignore[override]
            try:
                yield self
            except InfraFault:
                return

    env = Swallowing()
    if own_limits:
        env.limits = Limits()  # type: ignore[attr-defined]
    one = await runner(env, model(InfraFault("x")))(task(), 0)
    assert summary(one) == ("infra_fault", None, "model", True)


# What is asked, and what is kept


class Asked:
    def __init__(self, *answers: Any) -> None:
        self.requests: list[Request] = []
        self.answer = model(*(answers or (reply(),)))

    async def __call__(self, request: Request) -> Any:
        self.requests.append(request)
        return await self.answer(request)


async def test_sampling_lies_over_what_the_row_asks_for() -> None:
    row = {"input": "question", "temperature": 0.1, "top_p": 0.5}
    given = Task(params=row, id="t", index=0)  # type: ignore[arg-type]
    asked = Asked()
    one = await runner(None, asked, sampling={"temperature": 0.9, "top_k": 20})(given, 0)
    for params in (asked.requests[0].params, one.params):
        assert {name: params.get(name) for name in ("temperature", "top_p", "top_k")} == {
            "temperature": 0.9,
            "top_p": 0.5,
            "top_k": 20,
        }
    assert given.params == {"input": "question", "temperature": 0.1, "top_p": 0.5}


@pytest.mark.parametrize("tools", [None, [], "absent"])
async def test_the_environments_tools_unless_the_row_declares_its_own(tools: Any) -> None:
    own = [{"type": "function", "name": "other", "parameters": {}}]
    for declared, expected in ((tools, ["look"]), (own, ["other"])):
        params: Any = {"input": "question"} | ({} if declared == "absent" else {"tools": declared})
        asked = Asked()
        await runner(None, asked)(Task(params=params, id="t", index=0), 0)
        assert [tool["name"] for tool in asked.requests[0].params["tools"]] == expected


async def test_an_observation_stands_at_the_end_of_the_prompt() -> None:
    asked = Asked()
    await runner(Script(observation=" The door is shut."), asked)(task(), 0)
    assert asked.requests[0].params["input"][-1]["content"] == "question 0 The door is shut."


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "input_text", "text": "What is"}, {"type": "input_text", "text": " this?"}],
        [
            {"type": "input_text", "text": "What is this?"},
            {"type": "input_image", "image_url": "data:image/png;base64,aaaa"},
        ],
        [{"type": "input_image", "image_url": "data:image/png;base64,aaaa"}],
    ],
)
async def test_an_observation_is_a_part_of_a_message_of_parts(content: Any) -> None:
    asked, given = Asked(), task(0, prompt=[{"role": "user", "content": content}])
    one = await runner(Script(observation=" The door is shut."), asked)(given, 0)
    [message] = asked.requests[0].params["input"]
    assert message["content"] == [*content, {"type": "input_text", "text": " The door is shut."}]
    assert unshown(one.params, one.extra["observed"])["input"] == given.params["input"]
    again = await runner(Script(observation=" The door is shut."), asked)(replace(given, params=one.params), 0)
    assert again.params == one.params


async def test_what_a_verifier_adds_stands_beside_what_the_task_had() -> None:
    env = Script(judge=giving({"reward": 0.5, "accuracy": 1.0, "answer": "mine"}))
    one = await runner(env)(task(3, answer="theirs", level="easy"), 2)
    assert one.fields == {"answer": "mine", "level": "easy", "accuracy": 1.0}
    assert one.extra == {"task_fields": {"answer": "theirs"}}  # who judges again needs it
    assert (one.reward, one.task_index, one.index, one.task) == (0.5, 3, 2, task(3, answer="theirs", level="easy").id)
    assert set(one.seconds) == {"total", "model", "tools", "verify"}
    assert final_text(one.response) == "yes"


# Draws


async def draws(policy_seed: int, given: Task, index: int, attempt: int) -> list[int]:
    asked = Asked(calling(), reply())
    await runner(None, asked, seed=policy_seed)(given, index, attempt)
    return [request.seed for request in asked.requests]


async def test_every_call_has_a_draw_of_its_own() -> None:
    drawn = []
    for seed in (1, 2):
        for given in (task(0, task_id="a"), task(1, task_id="a"), task(1, task_id="b")):
            for index in (0, 1):
                for attempt in (1, 2):
                    drawn += await draws(seed, given, index, attempt)
    assert len(set(drawn)) == len(drawn) == 48
    assert all(0 <= draw < 2**31 for draw in drawn)
    assert await draws(1, task(0, task_id="a"), 0, 1) == drawn[:2]


@pytest.mark.parametrize("send", [False, True])
async def test_servers_see_the_draw_only_when_a_seed_was_set(send: bool) -> None:
    asked = Asked()
    await runner(None, asked, seed=1, send_seed=send)(task(), 0)
    request = asked.requests[0]
    assert request.params.get("seed") == (request.seed if send else None)


async def test_calls_of_an_attempt_are_one_conversation() -> None:
    asked = Asked(calling(), reply())
    one = runner(None, asked)
    for index, attempt in ((0, 1), (0, 2), (1, 1)):
        await one(task(4), index, attempt)
    assert [request.rollout for request in asked.requests] == ["4-0-1"] * 2 + ["4-0-2"] * 2 + ["4-1-1"] * 2
    assert {request.task.index for request in asked.requests if request.task} == {4}


@pytest.mark.parametrize("usage", ["many", 5, [1], {"input_tokens": "7", "output_tokens": None}, {"details": [1]}, None])
async def test_a_usage_that_is_none_is_a_fault_at_most(usage: Any) -> None:
    called, said = {**calling(), "usage": usage}, {**reply(), "usage": usage}
    for policy in (model(called, said), model(called, called, InfraFault("x")), model(called, called, hanging)):
        one = await runner(None, policy, rollout_seconds=5 * TICK)(task(), 0)
        assert one.outcome in (Outcome.SCORED, Outcome.INFRA_FAULT, Outcome.TIMEOUT)
