"""Environments by reference: `path/to/file.py:name`, `package.module:name`, or a registered name."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from rollforge.envs.base import Env
from rollforge.envs.decorate import PythonEnv
from rollforge.errors import UserError, describe, unknown
from rollforge.registry import attribute, resolve


def load_env(reference: str) -> Env:
    """The environment that `reference` names. A class that was not decorated (TRL's, say) is wrapped.

    Raises `UserError`: no such file, module or name (with the nearest known), a file that does not import, no environment.
    """
    path, _, name = reference.rpartition(":") if ":" in reference else (reference, "", "")
    if path.endswith(".py"):
        return _from_file(Path(path), name)
    if "/" in reference and not Path(reference).exists():
        raise UserError(f"there is no file {reference!r} (an environment in a file is written path/to/file.py:name)")
    found = attribute(reference) if ":" in reference else resolve("env", reference, _HINT)
    return as_env(found, reference)


def as_env(found: Any, reference: str) -> Env:
    if hasattr(found, "open") and not inspect.isclass(found):
        return found  # type: ignore[no-any-return]
    if inspect.isclass(found) and (hasattr(found, "verify") or hasattr(found, "get_reward")):
        return PythonEnv(found)
    raise UserError(f"{reference} is {type(found).__name__}, not an environment: decorate it with @rollforge.env")


def environments(module: ModuleType) -> dict[str, Any]:
    """The environments that a module defines, in the order written."""
    return {name: value for name, value in vars(module).items() if isinstance(value, PythonEnv)}


_HINT = "(list them: rollforge env list; or give path/to/file.py:name)"


def _from_file(path: Path, name: str) -> Env:
    if not path.is_file():
        near = sorted(str(p) for p in path.parent.glob("*.py")) if path.parent.is_dir() else []
        raise UserError(f"there is no file {path}" + (f" (beside it: {', '.join(near[:5])})" if near else ""))
    module = _import(path)
    if name:
        if not hasattr(module, name):
            raise unknown(f"name in {path}", name, environments(module) or (n for n in vars(module) if n[0] != "_"))
        return as_env(getattr(module, name), f"{path}:{name}")
    found = environments(module)
    if len(found) == 1:
        return next(iter(found.values()))  # type: ignore[no-any-return]
    if not found:
        raise UserError(f"{path} defines no environment: decorate a function or class with @rollforge.env")
    raise UserError(f"{path} defines {len(found)} environments; say which: " + " or ".join(f"{path}:{n}" for n in found))


def _import(path: Path) -> ModuleType:
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
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise UserError(f"{path} cannot be imported: {describe(error)}") from error
    return module
