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

import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from types import SimpleNamespace
from typing import Any

from rollforge.errors import RolloutError, SetupError, UserError
from rollforge.records.items import Json
from rollforge.records.lossless import dumps, loads
from rollforge.records.messages import messages
from rollforge.train.adapters.live import Outside
from rollforge.train.adapters.verl_row import EPISODE, made_with, player_of, row_of


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
            episode = _Episode(Outside(playing, row_of(info)))
            setattr(agent_data, EPISODE, episode)
            weakref.finalize(agent_data, episode.played.abandon).atexit = False
        try:
            text = await episode.played.call(self.name, parameters)
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


@dataclass(slots=True)
class _Episode:
    played: Outside
    failure: str | None = None

    def state(self) -> str:
        return dumps({"messages": messages({"input": []}, self.played.made), "failure": self.failure}).decode()


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
