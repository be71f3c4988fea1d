"""An environment's tools in verl's own tool loop (experimental/agent_loop/tool_agent_loop.py, verl 0.9).

verl makes and releases a tool for each call, and says nothing at the end of an episode. A session is therefore held by a
task of its own, from the first call until verl lets go of the episode's `agent_data`:

verl's loop   execute ──> execute ──> ... ──> agent_data is collected
                 │           │                        │
session task     open, call, call, ...                close

There is no verdict here: the final message is not known. What was called is left in the episode's extra_fields, and
`verl.compute_score` calls it again before it judges.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from types import SimpleNamespace
from typing import Any

from rollforge.agents.tool_loop import ToolLoop, tool_name
from rollforge.collect.replay import no_model
from rollforge.envs.base import Session
from rollforge.errors import InfraFault, RolloutError, SetupError, UserError
from rollforge.models.base import Model
from rollforge.records.items import Json, Response, function_call
from rollforge.records.lossless import dumps, loads
from rollforge.records.task import Task
from rollforge.train.adapters.verl_row import EPISODE, made_with, player_of, row_of
from rollforge.train.play import Player


class EnvironmentTool:
    """One tool of an environment, by `tool_config_path`; `config` holds its `schema` as JSON text, as
    `rollforge export --to verl:grpo` writes it, and perhaps `env` (else the row's) and `seconds` (of an episode)."""

    def __init__(self, config: Mapping[str, Any], tool_schema: Any = None) -> None:
        text = config.get("schema")
        if not isinstance(text, str):
            raise UserError(
                "a tool's config has no schema (JSON text); write the file with: rollforge export --to verl:grpo"
            )
        self.tool_schema = _schema(loads(text))
        self.name: str = self.tool_schema.function.name
        self._env = config.get("env")
        self._seconds = float(config.get("seconds", 3600))

    async def create(self, instance_id: str | None = None, **_: Any) -> tuple[str, Any]:
        return instance_id or self.name, import_module("verl.tools.schemas").ToolResponse()

    async def execute(self, instance_id: str, parameters: Any, *, agent_data: Any, **_: Any) -> tuple[Any, float, Json]:
        """verl's ToolResponse with the tool's output. What breaks around the tool is raised (verl tells the policy) and left
        in the extra fields, so that the episode is not judged."""
        episode = getattr(agent_data, EPISODE, None)
        if episode is None:
            # By the object, not by its request_id: verl gives one name to several episodes where it must be deterministic.
            info = {"tools_kwargs": agent_data.tools_kwargs}
            playing = player_of(self._env, str(made_with(info).get("env") or ""), seconds=self._seconds)
            episode = _Episode(playing, row_of(info))
            setattr(agent_data, EPISODE, episode)
            weakref.finalize(agent_data, _end, asyncio.get_running_loop(), episode.over).atexit = False
        try:
            text = await episode.call(self.name, parameters)
        except (RolloutError, SetupError, UserError) as error:
            episode.failure = f"{self.name}: {error}"
            raise
        finally:
            agent_data.extra_fields[EPISODE] = episode.state()
        return import_module("verl.tools.schemas").ToolResponse(text=text), 0.0, {}

    async def calc_reward(self, instance_id: str, **_: Any) -> float:
        return 0.0

    async def release(self, instance_id: str, **_: Any) -> None:
        """After every call: the session goes on."""


class _Episode:
    """A session that is open until `over`, and what was called in it."""

    def __init__(self, playing: Player, row: Json) -> None:
        self.over = asyncio.Event()
        self.failure: str | None = None
        self._messages: list[Json] = []
        self._turn = asyncio.Lock()
        self._opened: asyncio.Future[tuple[Task, Session]] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._hold(replace(playing, agent=self._agent), row))

    async def call(self, name: str, arguments: Any) -> str:
        """The output, as the policy reads it. verl starts the calls of a turn together; they are made in their order."""
        task, session = await asyncio.shield(self._opened)
        async with self._turn:
            if self._task.done():
                raise InfraFault("the episode's session is closed: it was open for too long")
            call = function_call(name, dumps(arguments).decode(), f"call_{len(self._messages)}")
            declared = {tool_name(tool) for tool in task.params.get("tools") or []}
            output = await ToolLoop().run_call(call, declared, session)
            function = {"name": name, "arguments": call["arguments"]}
            made = {"id": call["call_id"], "type": "function", "function": function}
            self._messages += [
                {"role": "assistant", "content": "", "tool_calls": [made]},
                {"role": "tool", "tool_call_id": call["call_id"], "content": output["output"]},
            ]
            return str(output["output"])

    def state(self) -> str:
        return dumps({"messages": self._messages, "failure": self.failure}).decode()

    async def _agent(self, task: Task, model: Model, session: Session, /) -> Response:
        """The engine's agent: opening, deadlines and closing are the engine's."""
        self._opened.set_result((task, session))
        await self.over.wait()
        raise InfraFault("the episode is over, and nobody asks for its verdict")

    async def _hold(self, playing: Player, row: Json) -> None:
        try:
            failure = (await playing.play(row, no_model)).failure
            error: Exception = InfraFault(f"no session: {failure.message if failure else 'it ended at once'}")
        except (SetupError, UserError) as raised:
            error = raised
        if not self._opened.done():
            self._opened.set_exception(error)


def _end(loop: asyncio.AbstractEventLoop, over: asyncio.Event) -> None:
    # Collected in any thread, at any time.
    if not loop.is_closed():
        loop.call_soon_threadsafe(over.set)


class _Schema(SimpleNamespace):
    """A tool's schema as verl's loop and its parsers look at it. verl's own class drops of a parameter what it does not know
    (`items`, `anyOf`, `properties`)."""

    def model_dump(self, **_: Any) -> Json:
        return loads(self.text)  # type: ignore[no-any-return]


def _schema(tool: Json) -> _Schema:
    function = tool["function"]
    given = function.get("parameters") or {}
    properties = {name: _Parameter(one) for name, one in (given.get("properties") or {}).items()}
    parameters = SimpleNamespace(type="object", properties=properties, required=given.get("required") or [])
    about = SimpleNamespace(name=function["name"], description=function.get("description") or "", parameters=parameters)
    return _Schema(type="function", function=about, text=dumps(tool).decode())


class _Parameter(dict[str, Any]):
    def model_dump(self, **_: Any) -> Json:
        return dict(self)
