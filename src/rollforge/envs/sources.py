"""The code of an environment: the files that its own import from beside them, in their folder or the package they are in;
and what there is of code that is in no file, as in a notebook."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import CellType, CodeType, FunctionType
from typing import Any


def imported(files: Sequence[Path]) -> list[Path]:
    """All that `files` import from there, and what these import; nothing of installed packages, or of this one."""
    waiting = [file.resolve() for file in files]
    seen = set(waiting)
    found = []
    while waiting:
        for file in _modules(waiting.pop()):
            if file not in seen and not file.is_relative_to(_HERE):
                seen.add(file)
                found.append(file)
                waiting.append(file)
    return sorted(found)


_HERE = Path(__file__).resolve().parents[1]


def _modules(file: Path) -> Iterator[Path]:
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return  # it is not imported as it is
    beside, top, package = [file.parent], file.parent, ""
    while (top / "__init__.py").is_file():
        top, package = top.parent, top.name
    if file.parent.name in ("site-packages", "dist-packages"):
        beside = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names, level = [alias.name for alias in node.names], 0
        elif isinstance(node, ast.ImportFrom):
            names, level = [f"{node.module or ''}.{alias.name}".lstrip(".") for alias in node.names], node.level
        else:
            continue
        for name in names:
            parts = name.split(".")
            if level:
                yield from _found(file.parents[min(level, len(file.parents)) - 1], parts)
                continue
            for folder in [*beside, top] if parts[0] == package else beside:
                yield from _found(folder, parts)


def _found(folder: Path, name: Sequence[str]) -> Iterator[Path]:
    """The files that importing `a.b.c` runs; the last part may be a name in a module instead."""
    for part in name:
        module, folder = folder / f"{part}.py", folder / part
        yield from (file.resolve() for file in (folder / "__init__.py", module) if file.is_file())


def unfiled(target: Any) -> str:
    """The text of a function or class that is in no file, and of what it uses of its module; where nobody kept the text,
    what it was compiled to. The same in every process."""
    waiting, seen, texts = [target], {id(target)}, []
    while waiting:
        one = waiting.pop()
        texts.append(_code(one) if isinstance(one, FunctionType) else repr(_plain(_constants(one))))
        for found in _used(one):
            if found.__module__ == target.__module__ and id(found) not in seen:
                seen.add(id(found))
                waiting.append(found)
    return "\n".join(texts)


def _used(one: Any) -> Iterator[Any]:
    """The functions and classes that a function names, or that a class is made of."""
    if isinstance(one, FunctionType):
        enclosed = [cell.cell_contents for cell in one.__closure__ or () if cell != CellType()]
        members = [*enclosed, *map(one.__globals__.get, _names(one.__code__)), getattr(one, "__wrapped__", None)]
    else:
        members = [*one.__bases__, *vars(one).values()]
    for member in members:
        if isinstance(member, (staticmethod, classmethod)):
            member = member.__func__
        elif isinstance(member, property):
            member = member.fget
        if isinstance(member, (FunctionType, type)):
            yield member


def _constants(of: type) -> tuple[Any, ...]:
    return of.__qualname__, *(item for item in vars(of).items() if not item[0].startswith("__"))


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _code(function: FunctionType) -> str:
    try:
        return inspect.getsource(function.__code__)
    except OSError:
        kept = (function.__code__, function.__defaults__, tuple((function.__kwdefaults__ or {}).items()))
        return repr(_plain(kept))


def _plain(value: Any) -> Any:
    """Without addresses, and sets in an order."""
    if isinstance(value, CodeType):
        return value.co_code, value.co_names, value.co_varnames, _plain(value.co_consts)
    if isinstance(value, tuple):
        return tuple(map(_plain, value))
    if isinstance(value, frozenset):
        return sorted(repr(_plain(one)) for one in value)
    return value if isinstance(value, (str, bytes, int, float, complex, type(None))) else type(value).__name__
