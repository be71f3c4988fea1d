"""Programs against a test that is a function, as HumanEval has them: `check(candidate)` asserts what the candidate returns;
or against an expression that calls the program's functions.

The check and the program run in one cell, in two processes: arguments and results pass between them as plain data, so that a
program can neither read what is expected of it nor replace what judges it (`sandbox/inside/check.py`).
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rollforge.errors import InfraFault, VerifierFault
from rollforge.sandbox.jail import Allowance, Jail, Program, inner

MOST = 4 << 20
"""Bytes of one result."""


@dataclass(frozen=True, slots=True)
class Check:
    text: str
    """Defines `check(candidate)`."""
    function: str
    setup: str = ""
    """Definitions that the check and the program may use."""
    expression: str = ""
    """In the place of a check: its value is the trial's output. `__program__(SOURCE, VARIABLES)` in it is what the program
    makes of a call (`verify/code_asserts.py`)."""
    after: str = ""
    """What the program sees of the setup, with an expression: it goes after the program."""
    names: tuple[str, ...] = ()
    """Functions of the program that the setup calls, with an expression."""


def read_check(given: Mapping[str, Any]) -> Check:
    """Of `{test, entry_point}` (or `fn_name`), with `setup` or HumanEval's `prompt`. Raises `VerifierFault`."""
    text, entry = given.get("test"), given.get("entry_point") or given.get("fn_name")
    if not isinstance(entry, str) or not (name := _ENTRY.fullmatch(entry.strip())):
        raise VerifierFault(f"entry_point is {entry!r:.80}: name the function that check is called with")
    setup = given.get("setup") or ""
    for what, source in (("test", text), ("setup", setup)):
        if not isinstance(source, str) or _parsed(source) is None:
            raise VerifierFault(f"the {what} is no Python: {source!r:.100}")
    found = [node for node in _parsed(str(text)) or () if isinstance(node, ast.FunctionDef) and node.name == "check"]
    if not found or len(found[-1].args.args) != 1:
        raise VerifierFault(f"the test defines no check(candidate): {text!r:.100}")
    return Check(str(text), name[1], setup or _definitions(given.get("prompt")))


async def run_check(
    source: str, check: Check, jail: Jail, *, seconds: float, memory_mb: int
) -> tuple[dict[str, Any], float]:
    """Whether the program passes, as a trial (`status`, `error`; `output` of an expression), and the seconds that took."""
    job = {
        "code": f"{source}\n{check.after}" if check.after else source,
        "before": "" if check.expression else check.setup,
        "setup": check.setup,
        "test": check.text,
        "expression": check.expression,
        "names": check.names,
        "name": check.function,
        "trials": inner("trials"),
        "most": MOST,
    }
    allowance = Allowance(wall=seconds, cpu=seconds + 1, memory_mb=memory_mb, output_kb=MOST >> 9, processes=24)
    ended = await jail.run(Program(inner("check"), stdin=json.dumps(job)), allowance)
    if ended.timed_out or ended.out_of_memory:
        late: dict[str, Any] = {"status": "time"}
        return late if ended.timed_out else {"status": "error", "error": "too much memory"}, ended.seconds
    try:
        report: dict[str, Any] = json.loads(ended.stdout)
    except ValueError:
        if ended.code == 1:
            raise InfraFault(f"the test could not be run: {ended.stderr[-500:]}") from None
        return {"status": "error", "error": "the program ended its judge"}, ended.seconds
    if report["status"] == "fault":
        raise VerifierFault(f"the test cannot be used: {report['error']}; what it needs beside the program goes into setup")
    return report, ended.seconds


_ENTRY = re.compile(r"(?:Solution\(\)\.)?([A-Za-z_]\w*)")


def _parsed(source: str) -> list[ast.stmt] | None:
    try:
        return ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _definitions(prompt: Any) -> str:
    """HumanEval's prompt: imports, helpers and the head of the function. A prompt in words defines nothing."""
    body = _parsed(prompt) if isinstance(prompt, str) else None
    kinds = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
    return str(prompt) if body and all(isinstance(node, kinds) for node in body) else ""
