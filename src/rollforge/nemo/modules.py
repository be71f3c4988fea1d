"""Modules of server code. A program finds the files beside it by their bare names; here many such programs share a process.

    directory/app.py: import utils --> rollforge_server_<digest of the directory>.utils --> directory/utils.py

Each directory is a package of its own, and `import` in code that lies in it looks there first: also in a handler, later, and
whatever the others have under that name. The `__import__` that does so is in the `__builtins__` of this code alone.
"""

from __future__ import annotations

import builtins
import contextlib
import hashlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

from rollforge.nemo import compat_path
from rollforge.nemo.config import TYPES

_PREFIX = "rollforge_server_"


def module_of(file: Path) -> ModuleType:
    """A server's `app.py` under a name of its own: `resources_servers.<name>.app` where it can be imported as that."""
    if _Finder not in sys.meta_path:
        sys.meta_path.insert(0, _Finder)
    directory = file.parent
    if directory.parent.name in TYPES:
        _reachable(directory.parent)
        found = importlib.import_module(f"{directory.parent.name}.{directory.name}.{file.stem}")
        if found.__file__ and Path(found.__file__).resolve() == file:
            return found
    return importlib.import_module(f"{_package(directory)}.{file.stem}")


@contextlib.contextmanager
def as_program(directory: Path) -> Iterator[None]:
    """While it loads, a server finds files, and modules that it names at run time, as a program started in its directory.

    Such modules (`importlib.import_module("utils")`) are its own: the next server may have others of that name.
    """
    before, known = Path.cwd(), set(sys.modules)
    os.chdir(directory)
    sys.path.insert(0, str(directory))
    try:
        yield
    finally:
        sys.path.remove(str(directory))
        os.chdir(before)
        for name in set(sys.modules) - known:
            file = getattr(sys.modules.get(name), "__file__", None) or ""  # forgotten with its package
            if "." not in name and Path(file).parent in (directory, directory / name):
                _forget(name)


def bare(name: str) -> str:
    """The name by which the code asked for a module."""
    return name.partition(".")[2] if name.startswith(_PREFIX) else name


def _forget(name: str) -> None:
    for module in [found for found in sys.modules if found == name or found.startswith(f"{name}.")]:
        del sys.modules[module]


def _reachable(folder: Path) -> None:
    """Two roots may both have `resources_servers`, one of them with an `__init__.py`: Python looks into that one only."""
    package = importlib.import_module(folder.name)
    for place in (str(folder), os.path.join(compat_path(), folder.name)):
        if place not in list(package.__path__) and isinstance(package.__path__, list):
            package.__path__.append(place)


def _package(directory: Path) -> str:
    name = f"{_PREFIX}{hashlib.sha256(str(directory).encode()).hexdigest()[:12]}"
    if name not in sys.modules:
        parent = ModuleType(name)
        parent.__path__ = [str(directory)]
        sys.modules[name] = parent
    return name


class _Finder:
    """Of modules in servers' directories, whoever imports them."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        top = name.partition(".")[0]
        if path is None or not (top in TYPES or top.startswith(_PREFIX)):
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and type(spec.loader) is SourceFileLoader:
            file = spec.loader.path
            if top in TYPES:
                home = next((place for place in Path(file).parents if place.parent.name == top), None)
            else:
                home = Path(sys.modules[top].__path__[0])
            if home is not None:
                spec.loader = _Loader(name, file, home)
        return spec


class _Loader(SourceFileLoader):
    def __init__(self, name: str, path: str, home: Path) -> None:
        super().__init__(name, path)
        self._home = home

    def exec_module(self, module: ModuleType) -> None:
        vars(module)["__builtins__"] = _builtins(self._home)
        super().exec_module(module)


@cache
def _builtins(home: Path) -> dict[str, Any]:
    def imported(
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        top = name.partition(".")[0]
        if level or not _is_beside(home, top):
            return builtins.__import__(name, globals, locals, fromlist or (), level)
        package = _package(home)
        found = builtins.__import__(f"{package}.{name}", globals, locals, fromlist or (), 0)
        return found if fromlist else sys.modules[f"{package}.{top}"]

    return {**vars(builtins), "__import__": imported}


def _is_beside(home: Path, top: str) -> bool:
    """Whether a program in that directory finds the module there. A folder without `__init__.py` is a module of the last
    resort, as it is for Python: `datasets/` beside a server is no reason to miss the library."""
    if top in sys.stdlib_module_names:
        return False
    spec = PathFinder.find_spec(top, [str(home)])
    if spec is None or spec.origin is not None:
        return spec is not None
    if top in sys.modules:
        return False
    other = importlib.util.find_spec(top)
    return other is None or (other.origin is None and str(home / top) in (other.submodule_search_locations or ()))
