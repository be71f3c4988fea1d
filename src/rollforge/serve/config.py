"""What `rollforge serve` can be told: named models, environments and agents, a head, and the settings of all services.

    models: {policy: {use: "chat:Qwen/Qwen3-8B", base_url: "http://localhost:8000/v1"}}
    envs:   {math: {use: arithmetic}, desk: {url: "http://other-host:8001"}}
    agents: {math_agent: {env: math, model: policy, max_turns: 8, port: 8100}}

`${NAME}` and `${NAME:-default}` in values are read from the environment. What is shown of a configuration is made from the
text before that, so that what came from there stays there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from rollforge.collect.config import CollectConfig, Deadlines, EnvConfig, ModelConfig, used
from rollforge.config import Section, merge, read_yaml, validate
from rollforge.errors import UserError, unknown
from rollforge.records.items import Json
from rollforge.records.shown import shown, without_secrets
from rollforge.serve.settings import Settings

Kind = Literal["environment", "model", "agent", "head"]

HEAD = "head"


def _http(url: str | None) -> str | None:
    if url is not None and not re.match(r"https?://[^/]", url):
        raise ValueError("an address begins with http:// or https://")
    return url and url.rstrip("/")


Address = Annotated[str | None, AfterValidator(_http)]


class EnvEntry(Section):
    """Which environment; further keys go to its task generator, as in a collection."""

    model_config = ConfigDict(extra="allow", frozen=True)
    use: str | None = None
    url: Address = None
    """Where it is served when it is not served here."""
    token_env: str | None = None
    """The environment variable with the token that it asks for there."""
    host: str | None = None
    port: int = Field(0, ge=0, le=65535)
    """0: any free one."""
    deadlines: Deadlines = Deadlines()

    @model_validator(mode="after")
    def _known(self) -> EnvEntry:
        _check_known(self.use, self.url)
        return self


class ModelEntry(ModelConfig):
    use: str = ""
    url: Address = None
    host: str | None = None
    port: int = Field(0, ge=0, le=65535)
    deadlines: Deadlines = Deadlines()

    @model_validator(mode="after")
    def _known(self) -> ModelEntry:
        _check_known(self.use, self.url)
        return self


class AgentEntry(Section):
    """An environment and a model, each a name of this file or any that `rollforge collect` takes, and what brings them
    together. Further keys are the agent's own options (`max_turns`)."""

    model_config = ConfigDict(extra="allow", frozen=True)
    use: str = "tool_loop"
    env: Annotated[EnvConfig | None, BeforeValidator(used)] = None
    model: Annotated[ModelConfig | None, BeforeValidator(used)] = None
    sampling: Annotated[dict[str, Any], *CollectConfig.model_fields["sampling"].metadata] = Field(default_factory=dict)
    seed: int | None = None
    deadlines: Deadlines = Deadlines()
    url: Address = None
    host: str | None = None
    port: int = Field(0, ge=0, le=65535)

    @model_validator(mode="after")
    def _complete(self) -> AgentEntry:
        missing = [name for name in ("env", "model") if getattr(self, name) is None]
        if missing and self.url is None:
            raise ValueError(f"an agent needs an env and a model (or the url of one that is served); missing: {missing[0]}")
        return self


class HeadEntry(Section):
    host: str | None = None
    port: int = Field(11000, ge=0, le=65535)
    """11000 is where NeMo Gym's commands look."""


class ServeConfig(Settings):
    models: dict[str, ModelEntry] = Field(default_factory=dict)
    envs: dict[str, EnvEntry] = Field(default_factory=dict)
    agents: dict[str, AgentEntry] = Field(default_factory=dict)
    head: HeadEntry | None = None

    def entries(self) -> Iterator[tuple[Kind, str, ModelEntry | EnvEntry | AgentEntry]]:
        """In the order of who needs whom."""
        for name, model in self.models.items():
            yield "model", name, model
        for name, env in self.envs.items():
            yield "environment", name, env
        for name, agent in self.agents.items():
            yield "agent", name, agent


@dataclass(frozen=True, slots=True)
class Loaded:
    config: ServeConfig
    shown: Json
    """The configuration as it was written, without secrets."""


def load_config(path: Path, over: Mapping[str, Any]) -> Loaded:
    """A file of named services, with `over` laid over it. Raises `UserError` naming the key, its value and the nearest
    known key, or the environment variable that is missing."""
    values = {key: value for key, value in merge(read_yaml(path), over).items() if value is not None}
    config = _validated(values, str(path))
    if not any(config.entries()):
        raise UserError(f"{path} names nothing to serve: it needs models, envs or agents")
    if config.head is None:
        config = config.model_copy(update={"head": HeadEntry()})
    return Loaded(config, without_secrets(values))


SECTIONS: dict[str, type[ModelEntry] | type[EnvEntry] | type[AgentEntry]] = {
    "models": ModelEntry,
    "envs": EnvEntry,
    "agents": AgentEntry,
}
ONE: dict[str, Any] = {"env": None, "model": None, "agent": None, "sampling": None, "seed": None, "deadlines": None}


def single(values: Mapping[str, Any], port: int) -> Loaded:
    """One service from the sections of a collection (env, model, agent, sampling, seed, deadlines) and settings: an agent
    where there are an environment and a model, else the one of them there is."""
    for key in values:
        if key not in ONE and key not in Settings.model_fields:
            raise unknown("key", key, [*ONE, *Settings.model_fields], "(in the options)")
    settings = {key: value for key, value in values.items() if key not in ONE}
    env, model = (used(values.get(key) or {}) for key in ("env", "model"))
    common = {key: values[key] for key in ("sampling", "seed") if values.get(key)}
    more = {"port": port, **({"deadlines": values["deadlines"]} if values.get("deadlines") else {})}
    if env.get("use") and model.get("use"):
        entry = {**(values.get("agent") or {}), **common, **more, "env": env, "model": model}
        return _one(settings, "agents", f"{_named(env['use'])}_agent", entry)
    useless = next((key for key in (*common, "agent") if values.get(key)), None)
    if useless:
        raise UserError(f"{useless} is of an agent, and that needs an environment and --model")
    if env.get("use"):
        return _one(settings, "envs", _named(env["use"]), {**env, **more})
    if model.get("use"):
        return _one(settings, "models", _named(model["use"]), {**model, **more})
    raise UserError(
        "name what to serve: an environment (rollforge env list), --model for a model, both for an agent, or a "
        "rollforge.yaml of named ones"
    )


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,59}")
_VARIABLE = re.compile(r"\$\$|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(:-(?P<default>[^}]*))?\}")


def expanded(value: Any, where: str) -> Any:
    """`value` with `${NAME}` and `${NAME:-default}` read from the environment; `$$` is a dollar. Raises `UserError`."""
    if isinstance(value, Mapping):
        return {key: expanded(item, f"{where}.{key}" if where else str(key)) for key, item in value.items()}
    if isinstance(value, list):
        return [expanded(item, where) for item in value]
    if not isinstance(value, str):
        return value

    def read(found: re.Match[str]) -> str:
        name, default = found["name"], found["default"]
        if name is None:
            return "$"
        given = os.environ.get(name)
        if not given and default is None:  # an empty one is mostly a slip, as in ${VAR:-...} of a shell
            raise UserError(
                f"{where}: the environment variable {name} is not set (a default is written ${{{name}:-default}})"
            )
        return given or str(default)

    return _VARIABLE.sub(read, value)


def _validated(values: Mapping[str, Any], where: str) -> ServeConfig:
    """Entry by entry, so that what is wrong is told of the entry. Raises `UserError`."""
    values, seen = expanded(values, ""), {HEAD}
    for section, kind in SECTIONS.items():
        if section in values and not isinstance(values[section], Mapping):
            raise UserError(f"{where}: {section} holds {type(values[section]).__name__}, not names with their settings")
        for name in values.get(section, ()):
            if not _NAME.fullmatch(str(name)):
                raise UserError(
                    f"{where}: {name!r} cannot name a service: letters, digits, '_', '-' and '.' can, at most 60"
                )
            if name in seen:
                raise UserError(f"{where}: {section}.{name}: the name is taken (all names of a file differ)")
            seen.add(name)
        entries = {
            str(name): validate(kind, _mapping(entry, where, f"{section}.{name}"), f"{where}: {section}.{name}")
            for name, entry in values.get(section, {}).items()
        }
        values = {**values, section: entries}
    config = validate(ServeConfig, values, where)
    if config.port and len(seen) > 1:
        raise UserError(f"{where}: port: each service has a port of its own: write it beside its name")
    return config


def _mapping(entry: Any, where: str, name: str) -> Mapping[str, Any]:
    entry = used(entry)
    if not isinstance(entry, Mapping):
        raise UserError(f"{where}: {name} holds {type(entry).__name__}, not keys and values")
    return entry


def _one(settings: Mapping[str, Any], section: str, name: str, entry: Mapping[str, Any]) -> Loaded:
    values = {**settings, section: {name: entry}}
    return Loaded(_validated({**values, "port": 0}, "the options"), without_secrets(values))


def _named(use: str) -> str:
    """A name for what was only referred to: `my/env.py:bank` is `bank`, `chat:Qwen/Qwen3-8B` is `Qwen3-8B`."""
    last = urlsplit(shown(use)).netloc if "://" in use else re.split(r"[/:]", use.rstrip("/:"))[-1].removesuffix(".py")
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", last).strip("-._")[:60] or "service"


def _check_known(use: str | None, url: str | None) -> None:
    if not use and url is None:
        raise ValueError("it needs `use:` (what it is) or `url:` (where it is served)")
