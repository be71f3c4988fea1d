"""Code that is written beside exported data and runs where rollforge is not installed. Here it is checked and tested."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

_HERE = Path(__file__).parent


def assemble(about: str, *pieces: str | Path) -> str:
    """One Python file of several: names of modules here (`matcher`, `episode`) or files. Their imports come first,
    docstrings are left out."""
    imports: set[str] = set()
    bodies: list[str] = []
    for piece in pieces:
        text = (piece if isinstance(piece, Path) else _HERE / f"{piece}.py").read_text(encoding="utf-8")
        lines = text.splitlines()
        for node in ast.parse(text).body:
            docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            if docstring or isinstance(node, (ast.Import, ast.ImportFrom)):
                taken = range(node.lineno - 1, node.end_lineno or node.lineno)
                if not docstring:
                    imports.add("\n".join(lines[at] for at in taken))
                for at in taken:
                    lines[at] = ""
            else:
                break  # imports lead; strings further down are notes on what stands above them
        bodies.append("\n".join(lines).strip("\n"))
    future = "from __future__ import annotations"
    grouped = [sorted(line for line in imports if _local(line) is local and line != future) for local in (True, False)]
    head = "\n\n".join("\n".join(lines) for lines in grouped if lines)
    return f'"""{about}\n"""\n\n{future}\n\n{head}\n\n\n' + "\n\n\n".join(bodies) + "\n"


def _local(line: str) -> bool:
    """Whether the import is of the standard library."""
    return line.split()[1].partition(".")[0] in sys.stdlib_module_names
