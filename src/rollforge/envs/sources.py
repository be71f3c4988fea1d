"""The source files that an environment's own import from beside them: their folder, or the package they are in."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path


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
