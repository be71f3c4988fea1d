"""An environment behind HTTP: NeMo Gym's contract, spoken by its resources servers and by `rollforge serve`.

    open    POST /seed_session, the whole row   -> cookies, kept with the session; ours tells its tools and observation too,
            and asked again with the same Idempotency-Key, because the answer was lost, opens no second session
    call    POST /<tool>, the arguments         -> the body is the output, whatever it is
    verify  POST /verify, row and response      -> reward, and every field that the row did not have

A gymnasium server is opened by POST /reset and played by POST /step: its sessions have `step`, and `verify` sums the
rewards. Tasks are not its own: they come from a file.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Literal
from urllib.parse import quote

from rollforge.envs.base import Limits, Session, Step, Tool, ToolCall, ToolOutput, Verdict, verdict
from rollforge.envs.tools import error_text, result_text
from rollforge.errors import InfraFault, JudgeFault, RolloutError, SetupError, VerifierFault, describe
from rollforge.models.http import NONE
from rollforge.models.service import Answer, Service
from rollforge.records.chat import flat_tool
from rollforge.records.items import Json, Response, inside, mapping
from rollforge.records.problem import FAULTS, IDEMPOTENCY_KEY, TOOL_ERROR
from rollforge.records.rows import SHADOWED
from rollforge.records.task import Task
from rollforge.records.whole import whole

Style = Literal["tools", "steps"]

RESERVED = frozenset(("", ".", "..", "verify", "seed_session", "aggregate_metrics", "mcp"))
"""Never called as tools, whatever a row declares: a policy could otherwise write its own verdict."""
CLOSE_SECONDS = 30.0
"""Not less: a loop with a thousand rollouts on it may take many seconds to send anything, and the session would stay."""
ANSWER_SECONDS = 5.0


class RemoteEnv:
    """The environment at `url`. Keeps the deadlines of its calls itself.

    `style`: whether it is opened by /seed_session ("tools") or /reset ("steps"); found out if None.
    """

    def __init__(self, url: str, token_env: str | None = None, *, style: Style | None = None) -> None:
        self._service = Service(url, token_env=token_env)
        self.name = self._service.shown
        self.limits = Limits()
        self.ours: bool | None = None
        """Whether the service is one of ours, which tell their tools; known once a session was open."""
        self._style = style

    def __repr__(self) -> str:
        return f"RemoteEnv({self.name!r})"

    @asynccontextmanager
    async def open(self, task: Task, /) -> AsyncIterator[Session]:
        """Raises what the service says of opening; `SetupError` if it is no environment."""
        link = _Link(self._service, self.limits, task)
        opening = asyncio.ensure_future(self._opened(link))
        try:
            session = await asyncio.shield(opening)
            self.ours = link.ours
            yield session
        except BaseException as error:
            try:
                await _settled(opening)  # else a session would stay whose cookie nobody took
                await link.close()
            except Exception as closing:  # noqa: BLE001 - what came first is what ended the attempt
                error.add_note(f"closing failed too: {describe(closing)}")
            raise
        await link.close()

    async def aclose(self) -> None:
        await self._service.aclose()

    async def _opened(self, link: _Link) -> Session:
        """What kind of service it is shows at the first opening."""
        if self._style == "steps":
            return StepSession(link, await link.start("/reset"))
        seed = await link.seed(known=self._style is not None)
        if seed is not None and await self._has_tools(seed):
            self._style = "tools"
            return ToolSession(link, seed)
        answer = await link.start("/reset", missing=seed is None)
        if answer is None:
            raise SetupError(f"{self.name} is no environment: it has neither /seed_session nor /reset")
        self._style = "steps"
        return StepSession(link, answer)

    async def _has_tools(self, seed: Json) -> bool:
        """`seed`: what `/seed_session` answered. Ours says what it is; NeMo Gym's gymnasium servers have that path too,
        where it does nothing."""
        if isinstance(seed.get("tools"), list):
            return seed.get("steps") is not True
        return self._style == "tools" or not await self._has_steps()

    async def _has_steps(self) -> bool:
        answer = await self._service.call("GET", "/openapi.json", seconds=self.limits.tool, replay=True, refuse=False)
        page = answer.value if answer.ok else None
        paths = page.get("paths") if isinstance(page, dict) else None
        return isinstance(paths, dict) and {"/reset", "/step"} <= paths.keys()


class ToolSession:
    """One attempt at a service with tools."""

    def __init__(self, link: _Link, seed: Json) -> None:
        """`seed`: what `/seed_session` answered; a service of ours tells its tools there."""
        self._link = link
        told = seed.get("tools")
        link.ours = isinstance(told, list)
        declared = _tools(link.task.params.get("tools"))
        self.tools: Sequence[Tool] = _tools(told) if link.ours else declared
        seen = seed.get("observation") if link.ours else None
        self.observation = seen if isinstance(seen, str) else None
        self._names = {tool.name for tool in (*self.tools, *declared)} - RESERVED

    async def call(self, call: ToolCall, /) -> ToolOutput:
        if call.name not in self._names:
            known = ", ".join(sorted(self._names)) or "none"
            return ToolOutput(error_text(f"unknown tool {call.name!r}; the tools are: {known}"), error=True)
        answer = await self._link.tool(f"/{quote(call.name, safe='')}", dict(call.arguments))
        return ToolOutput(answer.text, error=not answer.ok or TOOL_ERROR.lower() in answer.headers)

    async def verify(self, response: Response, /) -> Verdict:
        return await self._link.judge(response)


class StepSession:
    """One attempt at a gymnasium server."""

    def __init__(self, link: _Link, answer: Json) -> None:
        """`answer`: what `/reset` answered."""
        self._link = link
        self.observation = _observation(answer)
        info = _info(answer)
        self.tools = _tools(link.task.params.get("tools")) or _tools(info.get("tools"))  # ours tells them
        link.closes = info.get("supports_explicit_close") is True
        self._idempotent = info.get("supports_step_idempotency") is True
        link.ours = info.get("steps") is True
        self._verdict: Verdict | None = None
        self._steps: list[Step] = []

    async def call(self, call: ToolCall, /) -> ToolOutput:
        if self._link.ours:
            return ToolOutput(error_text("there are no tools here"), error=True)
        raise VerifierFault(f"{call.name}: this environment runs the tools itself, in its steps: the agent must take steps")

    async def step(self, response: Response, /) -> Step:
        """What the environment makes of one model call. Raises `VerifierFault` for an answer that is no step."""
        if self._verdict is not None:
            return replace(self._steps[-1], observation=None, reward=0.0, outputs=())
        key = {"_ng_step_request_id": uuid.uuid4().hex} if self._idempotent else {}
        sent = {"response": whole(response, self._link.task.params), **key}
        limits = self._link.limits
        answer = await self._link.post("/step", sent, seconds=limits.tool + limits.verify, replay=self._idempotent)
        step = _step(answer)
        self._steps.append(step)
        if isinstance(answer.get("verdict"), dict):
            self._verdict = verdict(answer["verdict"])  # ours: the session is over, and this is what it was worth
            self._link.closes = False
        return step

    async def verify(self, response: Response, /) -> Verdict:
        if self._verdict is not None:
            return self._verdict
        if self._link.ours:
            return await self._link.judge(response)
        if not self._steps:
            raise VerifierFault("no step was taken: the rewards of this environment come with its steps")
        last = self._steps[-1]
        ended = last.terminated or last.truncated
        fields = {"terminated": last.terminated, "truncated": last.truncated or not ended, "steps": len(self._steps)}
        info = {key: value for key, value in last.info.items() if key != "tool_outputs"}
        return verdict({"reward": sum(step.reward for step in self._steps), **fields, "info": info})


class _Link:
    """One session's side of the conversation with the service: its row, its cookies."""

    def __init__(self, service: Service, limits: Limits, task: Task) -> None:
        self.task = task
        self.limits = limits
        self.ours = False
        self.closes = False
        """Whether it wants to be told the end."""
        self._service = service
        self._row: Json = {**task.fields, "responses_create_params": without_nulls(task.params)}
        if task.index is not None:
            self._row["_ng_task_index"] = task.index
        self._cookies: dict[str, str] = {}

    async def seed(self, *, known: bool) -> Json | None:
        """What the service answers to the row; None if it has no such path and `known` does not say otherwise."""
        seed: Json | None = await self.start("/seed_session", missing=not known)
        self.closes = seed is not None and isinstance(seed.get("tools"), list)
        return seed

    async def start(self, path: str, *, missing: bool = False) -> Any:
        """The object of the answer that opens the session; None if the path is `missing`, where that may be."""
        key = {IDEMPOTENCY_KEY: uuid.uuid4().hex}
        answer = await self._send(path, self._row, self.limits.tool, replay=True, headers=key)
        return None if missing and answer.status in (404, 405) else self._object(answer)

    async def post(self, path: str, more: Mapping[str, Any], *, seconds: float, replay: bool) -> Any:
        """The object of the answer to the row and `more`."""
        return self._object(await self._send(path, {**self._row, **more}, seconds, replay))

    def _object(self, answer: Answer) -> Json:
        if not answer.ok:
            raise self._fault(answer)
        value = answer.json() if answer.body else {}
        if value is not None and not isinstance(value, dict):
            raise VerifierFault(f"{answer.source} answered with {type(value).__name__}, not an object")
        return value or {}

    async def tool(self, path: str, arguments: Json) -> Answer:
        """The answer that the policy is shown; NeMo Gym's servers show it their errors too."""
        answer = await self._send(path, arguments, self.limits.tool, replay=False)
        if answer.ok:
            return answer
        around = answer.status < 400 or answer.status in (502, 503, 504)
        if self.ours or around or answer.problem is not None:
            raise self._fault(answer)
        return answer

    async def judge(self, response: Response) -> Verdict:
        params = self.task.params
        sent = {**self._row, "response": whole(response, params)}
        # Asking again gives the same verdict, and another attempt instead would choose among the answers.
        answer = await self._send("/verify", sent, self.limits.verify, replay=True)
        if not answer.ok:
            raise self._unjudged(answer)
        self.closes = self.closes and not self.ours  # judging ended the session
        return _verdict(sent, answer)

    async def close(self) -> None:
        if self.closes:
            self.closes = False
            answer = await self._send("/close", {}, min(CLOSE_SECONDS, self.limits.tool), replay=True)
            if not answer.ok and answer.status != 410:  # it is over already
                raise self._fault(answer)

    async def _send(self, path: str, body: Json, seconds: float, replay: bool, headers: Mapping[str, str] = NONE) -> Answer:
        answer = await self._service.call(
            "POST", path, body, cookies=self._cookies, headers=headers, seconds=seconds, replay=replay, refuse=False
        )
        self._cookies |= answer.cookies
        return answer

    def _fault(self, answer: Answer) -> RolloutError | SetupError:
        """A refusal of the row is one of every attempt at it."""
        error = self._service.fault(answer, known=bool(self._cookies))
        refused = answer.status in (400, 404, 405, 413, 422) and answer.problem not in FAULTS
        return VerifierFault(str(error)) if refused else error

    def _unjudged(self, answer: Answer) -> RolloutError | SetupError:
        """NeMo Gym's servers answer 500 for whatever a verifier raises: no verdict on this answer, now or later."""
        error = self._fault(answer)
        if answer.status != 500 or answer.problem is not None:
            return error
        judge = "calling an inner server" in answer.text
        return (JudgeFault if judge else VerifierFault)(str(error))


def without_nulls(params: Mapping[str, Any]) -> Json:
    """As NeMo Gym's servers take them: they refuse a null for `tool_choice`, and for others that their own rows have."""
    return {key: value for key, value in params.items() if value is not None}


async def _settled(opening: asyncio.Future[Session]) -> None:
    """Cancelled by now, its answer is waited for a little; who takes longer to open sees that the caller has gone."""
    if not opening.done():
        try:
            await asyncio.wait({opening}, timeout=ANSWER_SECONDS)
        finally:
            opening.cancel()
        await asyncio.wait({opening})


def _verdict(sent: Json, answer: Answer) -> Verdict:
    """Of the answer of `/verify`: the reward and what the row did not say."""
    found = answer.json()
    if not isinstance(found, dict) or "reward" not in found:
        what = f"keys: {', '.join(found) or 'none'}" if isinstance(found, dict) else type(found).__name__
        raise VerifierFault(f"{answer.source} answered without a reward ({what})")
    failure = found.get("_ng_failure_class")
    if failure:
        # NeMo Gym's servers put a reward of 0 beside it, which it is not.
        text = f"{answer.source}: {found.get('_ng_failure_judge_error') or failure}"
        raise (JudgeFault if failure == "judge_failed" else InfraFault)(text)
    fields = {
        key: value
        for key, value in found.items()
        if key not in ("reward", "response", "responses_create_params")
        and not key.startswith("_ng_")
        and (key not in sent or sent[key] != value)
    }
    shadowed = inside(fields, "rollforge", SHADOWED)
    if isinstance(shadowed, dict):  # ours: fields whose names the row itself needs
        del fields["rollforge"]
        fields |= shadowed
    return verdict(Verdict(found["reward"], fields))


def _step(answer: Json) -> Step:
    info = _info(answer)
    outputs = info.get("tool_outputs") or []
    if not isinstance(outputs, list) or not all(isinstance(one, dict) and "call_id" in one for one in outputs):
        raise VerifierFault(f"a step has tool_outputs that are none: {outputs!r:.200}")
    return Step(
        observation=_observation(answer),
        reward=verdict(answer.get("reward", 0.0)).reward,
        terminated=answer.get("terminated") is True,
        truncated=answer.get("truncated") is True,
        outputs=tuple((str(one["call_id"]), result_text(one.get("output"))) for one in outputs),
        info=info,
    )


def _observation(answer: Json) -> str | None:
    seen = answer.get("observation")
    if not isinstance(seen, (str, type(None))):
        raise VerifierFault(f"the observation is {type(seen).__name__}, not a text")
    return seen or None


def _info(answer: Json) -> Json:
    info = answer.get("info") or {}
    if not isinstance(info, dict):
        raise VerifierFault(f"info is {type(info).__name__}, not an object")
    return info


def _tools(rows: Any) -> list[Tool]:
    """The function tools of a row or of an answer; what is none is left out."""
    found = []
    for given in rows if isinstance(rows, list) else ():
        row = flat_tool(mapping(given))
        name = row.get("name") if row.get("type") == "function" else None
        if isinstance(name, str):
            description, parameters = row.get("description"), row.get("parameters")
            schema = {"parameters": parameters} if isinstance(parameters, dict) else {}
            found.append(Tool(name, description if isinstance(description, str) else "", **schema))
    return found
