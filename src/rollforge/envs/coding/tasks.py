"""Tasks of the coding environment: problems with a parameter or two, hidden tests computed by their reference solutions."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any

from rollforge.envs.coding.problems import PROBLEMS, Problem
from rollforge.envs.generate import Kinds, generated
from rollforge.records.items import Json

TESTS = 14
SHOWN = 2
"""Examples in the statement; they are not among the tests."""


@generated("coding", n=60)
def tasks() -> Kinds:
    """Rows `{prompt, verifier_metadata, program, kind, level}`. Kinds: numbers, text, lists. Each problem is asked for as a
    whole program or as a function."""
    return {kind: _maker(kind) for kind in PROBLEMS}


def _maker(kind: str) -> Callable[[Random, int], tuple[str, Json]]:
    def make(rng: Random, level: int) -> tuple[str, Json]:
        return _row(rng, rng.choice(PROBLEMS[kind][level]), rng.random() < 0.5)

    return make


def _row(rng: Random, problem: Problem, whole: bool) -> tuple[str, Json]:
    values = problem.draw(rng)
    statement, source = _filled(problem.statement, values), _filled(problem.source, values).strip()
    space: dict[str, Any] = {}
    exec(source, space)  # ours
    arguments = _different([problem.arguments(rng, size) for size in range(4 * (TESTS + SHOWN))])[: TESTS + SHOWN]
    results = [space[problem.name](*json.loads(json.dumps(given))) for given in arguments]
    if whole:
        reading = "\n".join(f"{name} = {_READ[kind]}" for name, kind in problem.takes)
        shown = "print(*result)" if isinstance(results[0], list) else "print(result)"
        source = f"{source}\n\n\n{reading}\nresult = {problem.name}({', '.join(name for name, _ in problem.takes)})\n{shown}"
        lines = "; ".join(f"{_WORDS[kind]} {name}" for name, kind in problem.takes)
        ask = f"Write a program. It reads from standard input, each on a line of its own: {lines}. It prints the result"
        ask += ", separated by spaces." if isinstance(results[0], list) else "."
        inputs = ["".join(f"{_line(one)}\n" for one in given) for given in arguments]
        outputs = [f"{_line(result)}\n" for result in results]
        examples = [f"Input:\n{a}Output:\n{b}" for a, b in zip(inputs[:SHOWN], outputs, strict=False)]
    else:
        named = ", ".join(f"{name}: {_TYPES[kind]}" for name, kind in problem.takes)
        ask = f"Write a function `{problem.name}({named})` that returns the result."
        inputs = ["\n".join(map(json.dumps, given)) for given in arguments]
        outputs = [json.dumps(result) for result in results]
        called = [f"{problem.name}({', '.join(map(repr, given))})" for given in arguments[:SHOWN]]
        examples = [f"{a} returns {b!r}\n" for a, b in zip(called, results, strict=False)]
    unit_tests: Json = {"inputs": inputs[SHOWN:], "outputs": outputs[SHOWN:]}
    if not whole:
        unit_tests["fn_name"] = problem.name
    end = "Put the final code in one block that begins with ```python and ends with ```."
    prompt = f"{statement}\n\n{ask}\n\n{''.join(examples)}\n{end}"
    return f"{statement} {whole}", {"prompt": prompt, "verifier_metadata": {"unit_tests": unit_tests}, "program": source}


_READ = {"int": "int(input())", "ints": "list(map(int, input().split()))", "str": "input()"}
_WORDS = {"int": "a whole number", "ints": "whole numbers separated by spaces", "str": "a text"}
_TYPES = {"int": "int", "ints": "list[int]", "str": "str"}


def _line(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _filled(text: str, values: Json) -> str:
    for name, value in values.items():
        text = text.replace(f"<{name}>", str(value))
    return text


def _different(cases: list[list[Any]]) -> list[list[Any]]:
    return [case for index, case in enumerate(cases) if case not in cases[:index]]
