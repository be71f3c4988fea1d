"""What a Python file defines, seen without running it."""

from __future__ import annotations

import ast
import os
from pathlib import Path
from typing import Any


def not_defined(file: Any, name: str) -> str | None:
    """That a Python file lacks a name, or is no Python; None where it has it, or only running it would tell."""
    if not isinstance(file, str) or not file.endswith(".py") or not os.path.isfile(file):
        return None
    try:
        tree = ast.parse(Path(file).read_bytes())
    except (OSError, SyntaxError, ValueError) as error:
        return f"{file} is not Python: {error}"
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {one.asname or one.name for one in node.names}
    return None if found & {name, "*", "__getattr__"} or "globals()" in ast.unparse(tree) else f"{file} has no {name}"
