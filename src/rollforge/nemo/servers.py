"""Server code that was written for NeMo Gym, as applications of this process: no Ray, no virtual environment per server.

    directory/app.py --> module of its own name --> its server(config, client).setup_webserver() --> our limits around it

`Servers` are those of one configuration; they reach each other by name, within the process without a socket. Handlers run as
they are: an `async def verify` that computes for a minute keeps this process busy for a minute, as it does theirs.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import logging
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, ValidationError
from starlette.types import ASGIApp

from rollforge.errors import UserError, describe
from rollforge.nemo import activate
from rollforge.nemo.config import TYPES as TYPES
from rollforge.nemo.missing import remedy
from rollforge.nemo.modules import as_program, bare, module_of
from rollforge.serve.app import Gate, Gauges, common
from rollforge.serve.settings import Settings

log = logging.getLogger(__name__)

Block = Mapping[str, Any]


class Servers:
    """The servers of one configuration that run in this process.

    `config` is the resolved one, three levels deep (name, type, directory). What else answers under a name of it, a model
    of ours say, is added to `applications`.
    """

    def __init__(self, config: Block | None = None) -> None:
        self.config = dict(config or {})
        self.applications: dict[str, ASGIApp] = {}

    def client(self) -> Any:
        """Their `ServerClient`."""
        activate()
        config, server_utils = theirs("global_config"), theirs("server_utils")
        config.set_global_config_dict(self.config)
        head = {"host": "127.0.0.1", "port": 11000, **(self.config.get("head_server") or {})}
        client = server_utils.ServerClient(head_server_config=head, global_config_dict=config.Block(self.config))
        return client.served_here(self.applications)


def load_server(
    place: str | os.PathLike[str],
    block: Block,
    *,
    name: str | None = None,
    servers: Servers | None = None,
    settings: Settings | None = None,
) -> FastAPI:
    """The application of the server in a directory (or of an entrypoint in it), configured by its block.

    It answers under `name` for the other `servers`. Raises `UserError`: no such file, a package that is not installed (with
    the pip line), a configuration that the server refuses, code that does not load.
    """
    servers = servers or Servers()
    file = entrypoint(place, block)
    name = name or str(block.get("name") or file.parent.name)
    activate(root_of(file.parent))
    with as_program(file.parent):
        found = server_class(_module(file))
        config = _config(found, block, name, file.parent)
        try:
            server = found(config=config, server_client=servers.client())
            app: FastAPI = server.setup_webserver()
            server.setup_exception_middleware(app)
        except (Exception, SystemExit) as error:
            raise UserError(f"the server {name!r} ({file}) does not start: {describe(error)}") from error
    if getattr(config, "expose_tools_over_mcp", False):
        log.warning("%s: expose_tools_over_mcp is not supported; its tools are served over HTTP only", name)
    app.state.server = server
    _enclose(app, settings or Settings())
    servers.applications[name] = app
    return app


def theirs(module: str) -> Any:
    """A module of `nemo_gym`."""
    return importlib.import_module(f"nemo_gym.{module}")


def entrypoint(place: str | os.PathLike[str], block: Block | None = None) -> Path:
    """The file that a server's directory starts with. Raises `UserError` if there is none."""
    path = Path(place).resolve()
    file = path / str((block or {}).get("entrypoint") or "app.py") if path.is_dir() or not path.suffix else path
    if not file.is_file():
        raise UserError(f"there is no {file}; a server is a directory with an app.py, or what its `entrypoint` names")
    return file


def root_of(directory: Path) -> Path:
    """What `resources_servers.<name>` is imported from: where the folder of that type is, else the directory's parent."""
    return directory.parent.parent if directory.parent.name in TYPES else directory.parent


def server_class(module: ModuleType) -> Any:
    """The class that the module starts as a program, else the last one it defines. Raises `UserError`."""
    base = theirs("server_utils").SimpleServer
    assert module.__file__ is not None
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    started = [
        node.value.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr == "run_webserver" and isinstance(node.value, ast.Name)
    ]
    defined = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
    for name in (*started, *reversed(defined)):
        found = getattr(module, name, None)
        if isinstance(found, type) and issubclass(found, base):
            return found
    raise UserError(f"{module.__file__} defines no server: no class on SimpleResourcesServer or its like")


def _module(file: Path) -> ModuleType:
    try:
        return module_of(file)
    except ImportError as error:
        raise UserError(_missing(error, file)) from error
    except (Exception, SystemExit) as error:
        raise UserError(f"{file} cannot be imported: {describe(error)}") from error


def _config(found: Any, block: Block, name: str, directory: Path) -> BaseModel:
    kind = found.model_fields["config"].annotation
    if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
        raise UserError(f"{found.__name__}.config is declared as {kind!r}, which is not a class of configuration")
    given = {"host": "127.0.0.1", "port": 0, "entrypoint": "app.py"}
    given |= {key: value for key, value in block.items() if value is not None or key not in given}
    try:
        config: BaseModel = kind.model_validate({**given, "name": name})
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or name}: {fault['msg']} (given: {_shown(fault)})"
            for fault in error.errors()
        )
        raise UserError(f"the configuration of {name!r} does not fit {kind.__name__}: {faults}") from error
    for field in kind.model_fields:
        value = getattr(config, field)
        if field != "entrypoint" and isinstance(value, (str, Path)) and _is_file_of(directory, str(value)):
            object.__setattr__(config, field, type(value)(directory / value))
    return config


def _is_file_of(directory: Path, value: str) -> bool:
    """A file named relative to the server's directory, which is not where this process runs."""
    named = len(value) < 256 and "\n" not in value and ("/" in value or "." in value)
    return named and not os.path.isabs(value) and (directory / value).is_file()


def _shown(fault: Any) -> str:
    return "nothing" if fault["type"] == "missing" else f"a {type(fault['input']).__name__}"  # it may be a secret


def _missing(error: ImportError, file: Path) -> str:
    if isinstance(error, ModuleNotFoundError):
        wanted = bare(error.name or "")
        if wanted != error.name:
            return f"{file.parent} imports {wanted}, and {wanted.partition('.')[0]} beside it has no such module"
        says = f"{file.parent} needs the module {error.name!r}, which is not here"
    else:
        says = f"{file} cannot be imported: {describe(error)}"
    helps = remedy(file.parent, str(error))
    return f"{says}: {helps}" if helps else says


def _enclose(app: FastAPI, settings: Settings) -> None:
    """What all our services have: health, limits, token, request ids, counts; and the end of its connections."""
    gauges = Gauges()
    app.state.gauges = gauges
    app.include_router(common(gauges, dict))
    app.add_middleware(Gate, settings=settings, gauges=gauges, direct={})
    inner = app.router.lifespan_context

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[Any]:
        async with inner(app) as state:
            try:
                yield state
            finally:
                await theirs("_calls").aclose()

    app.router.lifespan_context = lifespan
