"""Environments by reference: `path/to/file.py:name`, `package.module:name`, a registered name, or the URL of a service."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import os
import sys
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

from rollforge.envs.base import Env
from rollforge.envs.decorate import PythonEnv
from rollforge.envs.gymnasium import gymnasium_env, is_gymnasium
from rollforge.errors import UserError, describe, unknown
from rollforge.registry import attribute, refuse_address, resolve


def load_env(reference: str | Path) -> Env:
    """The environment that `reference` names. A class that was not decorated (TRL's, say) is wrapped. One that is served
    elsewhere is named by its URL; the variable ROLLFORGE_TOKEN may hold the token that it asks for. `gymnasium:ID` is one
    that Gymnasium knows.

    Raises `UserError`: no such file, module or name (with the nearest known), a file that does not import, no environment.
    """
    reference = str(reference)
    if reference.startswith(("http://", "https://")):
        from rollforge.envs.remote import RemoteEnv  # with an HTTP client
        from rollforge.models.service import as_name, token_env

        return RemoteEnv(as_name(reference), token_env())
    refuse_address(reference)
    if reference.startswith("gymnasium:"):
        return gymnasium_env(reference.removeprefix("gymnasium:"))
    path, _, name = reference.rpartition(":") if ":" in reference else (reference, "", "")
    if path.endswith(".py"):
        return _from_file(Path(path), name)
    if "/" in reference:
        there = "is not a Python file" if Path(path).exists() else "does not exist"
        raise UserError(f"{path} {there}; an environment in a file is written path/to/file.py:name")
    if ":" not in reference:
        return as_env(resolve("env", reference, _HINT), reference)
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # a command does not look there on its own
    return as_env(attribute(reference), reference)


def as_env(found: Any, reference: str) -> Env:
    """`found` if it is an environment; one made of it if it is a class that can be one. Raises `UserError`."""
    if inspect.isclass(found):
        if is_gymnasium(found):
            return gymnasium_env(found)
        if any(hasattr(found, name) for name in ("verify", "get_reward", "step")):
            return PythonEnv(found)
        found = _made(found, reference) if hasattr(found, "open") else found
    if callable(getattr(found, "open", None)) and not inspect.isclass(found) and not inspect.ismodule(found):
        return found  # type: ignore[no-any-return]
    what = f"the class {found.__name__}" if inspect.isclass(found) else type(found).__name__
    raise UserError(f"{reference} is {what}, not an environment: decorate it with @rollforge.env")


def environments(module: ModuleType) -> dict[str, Any]:
    """The environments that a module defines, in the order written; those it imports only if it defines none."""
    found: dict[int, tuple[str, PythonEnv]] = {}
    for name, value in vars(module).items():
        if isinstance(value, PythonEnv):
            found.setdefault(id(value), (name, value))
    own = {name: env for name, env in found.values() if env.target.__module__ == module.__name__}
    return own or dict(found.values())


_HINT = "(list them: rollforge env list; or give path/to/file.py:name)"


def _made(found: type, reference: str) -> Any:
    try:
        return found()
    except Exception as error:
        raise UserError(f"{reference} cannot be made without arguments: {describe(error)}") from error


def _from_file(path: Path, name: str) -> Env:
    if not path.is_file():
        names = sorted(beside.name for beside in path.parent.glob("*.py"))
        near = ", ".join(str(path.parent / name) for name in get_close_matches(path.name, names, n=1) or names[:5])
        raise UserError(f"there is no file {path}" + (f" (beside it: {near})" if near else ""))
    module = import_file(path)
    found = environments(module)
    if name:
        if not hasattr(module, name):
            raise unknown(f"name in {path}", name, found or (n for n in vars(module) if not n.startswith("_")))
        return as_env(getattr(module, name), f"{path}:{name}")
    if len(found) == 1:
        return next(iter(found.values()))  # type: ignore[no-any-return]
    if not found:
        classes = [n for n, value in vars(module).items() if inspect.isclass(value) and value.__module__ == module.__name__]
        hint = f" (or name a class of it: {' or '.join(f'{path}:{n}' for n in classes)})" if classes else ""
        raise UserError(f"{path} defines no environment: decorate a function or class with @rollforge.env{hint}")
    raise UserError(f"{path} defines {len(found)} environments; say which: " + " or ".join(f"{path}:{n}" for n in found))


def import_file(path: Path) -> ModuleType:
    """A Python file as a module, imported once. Raises `UserError` saying where it fails."""
    path = path.resolve()
    # Registered under a name of its own, so that two files called env.py do not meet; beside it, its folder's modules.
    name = f"{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if not isinstance(error, (Exception, SystemExit)):
            raise
        hint = "; a file with relative imports is named package.module:name" if "relative import" in str(error) else ""
        raise UserError(f"{path} cannot be imported: {describe(error)}{hint}") from error
    return module
