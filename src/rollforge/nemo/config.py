"""NeMo Gym's configuration: its YAML files, `env.yaml` and arguments to one mapping of plain values, and its servers.

    config_paths (later files over earlier ones, a file over those it names) < env.yaml < +key=value
        --> _inherit_from, _copy, _delete_key --> ${...} --> servers, with their references checked

Three levels make a server: its name, its type, its implementation. Everything that is missing is reported at once. Files are
looked for in NEMO_GYM_EXTRA_ROOTS, then here; then `nemo.builtin` has those of NeMo Gym that need no code of its own.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from rollforge.config import merge, read_yaml
from rollforge.errors import UserError, unknown
from rollforge.nemo.arguments import Arguments
from rollforge.nemo.builtin import built_in
from rollforge.nemo.directives import directed
from rollforge.records.items import Json, inside

MODELS, RESOURCES, AGENTS = "responses_api_models", "resources_servers", "responses_api_agents"
TYPES = (MODELS, RESOURCES, AGENTS)
HEAD_PORT = 11000

OURS = (
    *("config_paths", "head_server", "default_host"),
    *("policy_base_url", "policy_api_key", "policy_model_name"),
)
IGNORED = (
    *("ray_head_node_address", "python_version", "pip_install_verbose", "uv_pip_set_python", "skip_venv_if_present"),
    *("head_server_deps", "uv_cache_dir", "uv_venv_dir", "allow_openai_version_skew", "uvicorn_timeout_worker_healthcheck"),
    *("port_range_low", "port_range_high", "disallowed_ports", "use_absolute_ip", "hf_token", "nemo_gym_log_dir", "verbose"),
    *("model_endpoint_readiness_timeout_seconds", "results_dir", "cache_dir", "error_on_almost_servers"),
)
"""Keys of theirs about things that are not here: Ray, a virtual environment per server, ports out of a range."""
UNSUPPORTED = {
    "observability_enabled": "rollouts hold the whole conversation; watch /metrics of each service",
    "model_call_capture_dir": "rollouts hold the whole conversation",
    "token_id_capture": "set return_token_id_information on the model server",
    "skip_verification": "rollforge verifies every rollout",
    "skip_verification_reward": "rollforge verifies every rollout",
}
"""Keys of theirs that would change what is collected, with what there is instead."""


@dataclass(frozen=True, slots=True)
class Server:
    """One server of a configuration."""

    name: str
    type: str
    implementation: str
    """The folder under `type`."""
    block: Json
    """Its own keys: host, port, references, what its code declares."""

    @property
    def directory(self) -> Path | None:
        """Where its code is, if it is here."""
        return next((found for root in roots() if (found := root / self.type / self.implementation).is_dir()), None)

    def target(self, key: str) -> str | None:
        """The name of the server that the reference `key` means."""
        value: Any = self.block.get(key)
        return str(value["name"]) if _is_reference(value) else None


@dataclass(frozen=True, slots=True)
class GymConfig:
    values: Json
    """Everything, resolved: with secrets. For showing it: `shown()`."""
    servers: tuple[Server, ...]
    warnings: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    """Keys given as arguments that no file has or refers to."""

    @property
    def head(self) -> tuple[str, int]:
        """Host and port of the head server."""
        given = self.values.get("head_server") or {}
        return str(given.get("host") or "127.0.0.1"), int(given.get("port", HEAD_PORT))

    def of_type(self, type: str) -> dict[str, Server]:
        return {server.name: server for server in self.servers if server.type == type}


def roots() -> list[Path]:
    """Where relative paths are looked for."""
    extra = os.environ.get("NEMO_GYM_EXTRA_ROOTS", "").split(os.pathsep)
    return [*(Path(root) for root in extra if root), Path.cwd()]


def find(path: str | Path) -> Path:
    """The path itself, or where it is under the first root that has it."""
    return next((found for root in roots() if (found := root / path).exists()), Path(path))


def read_config(arguments: Arguments, initial: Mapping[str, Any] | None = None, *, strict: bool = True) -> GymConfig:
    """The configuration of the files that `arguments` and env.yaml name. Raises `UserError`: a file that is not there,
    values that are missing (all of them), references to servers that do not exist.

    `initial` is laid under the arguments (a trainer's). Not `strict`: what is missing stays as it is written, for commands
    that start no server.
    """
    given = merge(initial or {}, arguments.values)
    dotenv = _dotenv()
    paths = _paths(given.get("config_paths") or dotenv.get("config_paths") or [])
    merged: Json = {}
    files = [*_files(paths, set()), dotenv]
    for values in (*files, given):
        merged = merge(merged, values)
    if paths:
        merged["config_paths"] = paths
    for key in arguments.deleted:
        _delete(merged, key)
    values = _resolved(directed(merged), strict)
    servers = tuple(servers_of(values))
    dangling = list(_check_references(servers)) if strict else []
    known = {key for file in files for key in file} | set(_REFERRED.findall(repr(merged)))
    unused = tuple(key for key in arguments.values if key not in known)
    return GymConfig(values, servers, (*_warnings(values), *dangling), unused)


def _dotenv() -> Json:
    file = find("env.yaml")
    return _read(file) if file.is_file() else {}


def _paths(given: Any) -> list[str]:
    listed = given.split(",") if isinstance(given, str) else given
    if not isinstance(listed, list) or not all(isinstance(path, str) for path in listed):
        raise UserError(f'config_paths is {given!r}, not a list of files: "+config_paths=[a.yaml,b.yaml]"')
    return [path.strip() for path in listed if path.strip()]


def _files(paths: Sequence[str], seen: set[str]) -> Iterator[Json]:
    """The files in the order of merging: each after those it names itself."""
    for path in paths:
        if path in seen:
            continue
        seen.add(path)
        values = _file(path)
        yield from _files(_paths(values.get("config_paths") or []), seen)
        yield values


def _file(path: str) -> Json:
    file = find(path)
    if file.is_file():
        return _read(file)
    found = built_in(path)
    if found is None:
        looked = ", ".join(str(root) for root in roots())
        raise UserError(
            f"config_paths: there is no {path} (looked in {looked}; NEMO_GYM_EXTRA_ROOTS adds folders), and no server "
            "of that name is built in (ng_help lists those)"
        )
    return found


def _read(file: Path) -> Json:
    found: Json = _plain(read_yaml(file))
    return found


def _plain(value: Any) -> Any:
    """Keys as text, dates as they were written."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.isoformat() if isinstance(value, date) else value


def _delete(values: Json, key: str) -> None:
    *path, last = key.split(".")
    where = inside(values, *path)
    if not isinstance(where, dict) or last not in where:
        raise unknown("key to delete", key, where or values)
    del where[last]


def _resolved(values: Json, strict: bool) -> Json:
    """Interpolations replaced by what they mean."""
    from omegaconf import DictConfig, ListConfig, OmegaConf
    from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

    problems: list[str] = []

    def walk(node: Any, path: str) -> Any:
        if isinstance(node, DictConfig):
            return {str(key): at(node, key, f"{path}.{key!s}" if path else str(key)) for key in node}
        return [at(node, index, f"{path}[{index}]") for index in range(len(node))]

    def at(node: Any, key: Any, path: str) -> Any:
        try:
            found = node[key]
        except MissingMandatoryValue:
            problems.append(f"{path} is not set (???)")
            return "???"
        except OmegaConfBaseException as error:
            held: Any = OmegaConf.to_container(node, resolve=False)
            raw = held[key]
            problems.append(f"{path} is {raw}: {str(error).partition(chr(10))[0]}")
            return raw
        return walk(found, path) if isinstance(found, (DictConfig, ListConfig)) else found

    try:
        config = OmegaConf.create(values)
    except OmegaConfBaseException as error:
        raise UserError(f"the configuration cannot be read: {error}") from error
    resolved: Json = walk(config, "")
    if problems and strict:
        listed = "".join(f"\n  {problem}" for problem in problems)
        named = re.search(r"Interpolation key '([^']+)'", problems[0])
        key = named[1] if named else problems[0].split(" ")[0]
        raise UserError(f"values are missing:{listed}\nset them in env.yaml, or here: ++{key}=VALUE")
    return resolved


_REFERRED = re.compile(r"\$\{(?:oc\.select:)?(\w+)")


def servers_of(values: Mapping[str, Any]) -> Iterator[Server]:
    """The servers among the keys of a resolved configuration. Raises `UserError` for what is nearly one."""
    for name, value in values.items():
        if not isinstance(value, dict):
            continue
        found = [type for type in TYPES if type in value]
        if not found:
            near = [close for key in value for close in get_close_matches(key, TYPES, n=1, cutoff=0.8)]
            if len(value) == 1 and near:
                raise UserError(f"{name} is nearly a server: {next(iter(value))!r} should be {near[0]!r}")
            continue
        yield _server(name, found[0], value[found[0]])


def _server(name: str, type: str, inner: Any) -> Server:
    if isinstance(inner, dict) and len(inner) > 1 and "dummy_model" in inner:
        # A place taken for a model whose implementation another file names.
        inner = dict(inner)
        under = inner.pop("dummy_model") or {}
        inner = {key: merge(under, block or {}) for key, block in inner.items()}
    if not isinstance(inner, dict) or len(inner) != 1:
        what = f"has {', '.join(inner) or 'nothing'}" if isinstance(inner, dict) else f"is {inner!r}"
        raise UserError(f"{name}.{type} {what}; a server names one implementation: {name}: {{{type}: {{FOLDER: {{...}}}}}}")
    implementation, block = next(iter(inner.items()))
    if block is not None and not isinstance(block, dict):
        raise UserError(f"{name}.{type}.{implementation} is {block!r}, not keys and values")
    return Server(name, type, implementation, block or {})


def _check_references(servers: Sequence[Server]) -> Iterator[str]:
    """Warnings of those inside a value: a server may do without them. Raises `UserError` for those that are a key's."""
    names = {(server.type, server.name) for server in servers}
    for server in servers:
        for path, reference in _references(server.block, ""):
            type, name = reference["type"], str(reference["name"])
            if (type, name) in names:
                continue
            known = [server.name for server in servers if server.type == type]
            error = unknown(f"{type} in {server.name}.{path}:", name, known, "(is its file among config_paths?)")
            if path in server.block:
                raise error
            yield str(error)


def _references(value: Any, path: str) -> Iterator[tuple[str, Json]]:
    if _is_reference(value):
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _references(item, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _references(item, f"{path}[{index}]")


def _is_reference(value: Any) -> bool:
    return isinstance(value, dict) and value.get("type") in TYPES and isinstance(value.get("name"), str)


def _warnings(values: Json) -> Iterator[str]:
    for key, instead in UNSUPPORTED.items():
        if values.get(key):
            yield f"{key} is not supported: {instead}"
