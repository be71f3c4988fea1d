"""Judging a program by running it against tests, in the sandbox; what is expected of it stays out here.

    verifier --the program, inputs--> cell: a fork per test (`sandbox/inside/trials.py`)
             <-what it put out-------
    compares it with what was expected

A test is an input and the output of a program, the arguments and the result of a function, an assertion, or a function that
checks another (`code_check`). Results leave the cell as plain data, so a program can return nothing that equals everything,
and it can read nothing that it should find.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from functools import partial
from math import isclose
from textwrap import dedent
from typing import Any, Literal

from rollforge.errors import InfraFault, VerifierFault
from rollforge.sandbox.deadline import remaining
from rollforge.sandbox.jail import Allowance, Ended, Jail, Program, inner, shared
from rollforge.verify.answer import after_thinking
from rollforge.verify.code_asserts import read_assertions
from rollforge.verify.code_check import Check, read_check, run_check

Extract = Literal["last_block", "first_block", "all_blocks", "reply"]

TOLERANCE = 1e-6
"""Relative and absolute, of numbers with a fraction: what checkers of programming contests allow."""
MOST = 4 << 20
"""Bytes of output of one test."""
BATCH_BYTES = 8 << 20
OVERHEAD = 2.0
"""Seconds that a run may take beside its tests."""


@dataclass(frozen=True, slots=True)
class Suite:
    """What a program is run on, and what is expected of it."""

    inputs: tuple[Any, ...]
    """Texts for standard input; lists of arguments; expressions, or `Check`s of one (`values`); or a `Check`."""
    outputs: tuple[Any, ...]
    mode: Literal["stdin", "call", "values", "check"] = "stdin"
    function: str = ""
    enclosed: bool = False
    """Each output of a `call` is in a list of one, the data set's (APPS, TACO) or the result's own: both pass."""
    setup: str = ""
    """Source that goes after the program."""
    reference: str = ""
    """Source that goes before the outputs of `values`, which are expressions too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeLimits:
    """What a program may use; beyond that a test is failed."""

    seconds: float = 10.0
    """For one test, on the clock and of the processor."""
    total: float = 45.0
    """For all tests. A tenth less than the deadline of the verification where that is shorter: too slow is a verdict."""
    memory_mb: int = 1024


async def code(
    reply: str,
    tests: Mapping[str, Any] | Sequence[str] | Suite,
    *,
    extract: Extract = "last_block",
    partial: bool = False,
    tolerance: float = TOLERANCE,
    limits: CodeLimits = CodeLimits(),
    jail: Jail | None = None,
) -> dict[str, Any]:
    """1 if the program in the reply passes all tests, else 0, or the share that it passes if `partial`.

    With the code, how many of how many tests it passed (without `partial` it stops at the first that it fails), and what
    went wrong at the first. Raises `VerifierFault` for tests that no program could pass or that cannot be read.
    """
    wanted = tests if isinstance(tests, Suite) else read_tests(tests)
    source = program_of(reply, extract)
    if source is None:
        return {"reward": 0.0, "extracted_code": None, "passed": 0, "tests": len(wanted.inputs), "failure": "no program"}
    outputs = await _expected(wanted, limits, jail)
    passed, failure = 0, ""
    async for index, trial in _trials(source, wanted, limits, jail or shared(), stop=not partial):
        what = trial.get("error") or {"time": "out of time"}.get(trial["status"], "")
        if trial["status"] == "ok" and wanted.mode != "check":
            what = await _difference(trial["output"], outputs[index], wanted.mode, tolerance)
            if what and wanted.enclosed and not await _difference(trial["output"], outputs[index][1][0], "call", tolerance):
                what = ""
        if not what:
            passed += 1
            continue
        failure = failure or f"test {index + 1}: {what}"
        if not partial:
            break
    total = len(wanted.inputs)
    reward = passed / total if partial else float(passed == total)
    return {
        "reward": reward,
        "extracted_code": source,
        "passed": passed,
        "tests": total,
        "failure": failure or None if passed < total else None,
    }


def program_of(reply: str, extract: Extract = "last_block") -> str | None:
    """The program in a reply: its last fenced block (its first; all of them together), or the whole reply. None if there is
    none: a block that is not closed was cut."""
    text = after_thinking(reply)
    if extract == "reply":
        return text if text.strip() else None
    blocks = [block for block in fenced(text) if block[1].strip()]
    python = [body for language, body in blocks if language in ("python", "py", "python3")]
    bodies = python or [body for language, body in blocks if not language]
    if not bodies:
        return None
    bodies = {"last_block": bodies[-1:], "first_block": bodies[:1]}.get(extract, bodies)
    return "\n\n".join(map(dedent, bodies))


def fenced(text: str) -> Iterator[tuple[str, str]]:
    """The language, in small letters, and the content of each closed block between lines that begin with three backticks."""
    language: str | None = None
    body: list[str] = []
    for line in text.split("\n"):
        stripped = line.strip()
        if not stripped.startswith("```"):
            body.append(line)
        elif language is None:
            words = stripped.strip("`").split()
            language, body = (words[0].lower() if words else ""), []
        else:
            yield language, "\n".join(body)
            language, body = None, []


def read_tests(given: Mapping[str, Any] | Sequence[str]) -> Suite:
    """Tests as rows have them: `{inputs, outputs, fn_name}` (if there is a function name, the arguments and the result, both
    in JSON, one argument a line, as in LiveCodeBench, or both as values, as in APPS and TACO), assertions, alone or as
    `{asserts, setup}`, or `{test, entry_point}` (HumanEval). Raises `VerifierFault` for anything else."""
    if isinstance(given, Mapping) and "test" in given:
        return Suite((read_check(given),), (None,), "check")
    if isinstance(given, Mapping) and "asserts" not in given:
        inputs, outputs, function = (given.get(key) for key in ("inputs", "outputs", "fn_name"))
        if not isinstance(inputs, list) or not isinstance(outputs, list):
            raise VerifierFault(f"the tests have no lists of inputs and outputs, but {', '.join(given) or 'nothing'}")
        if len(inputs) != len(outputs) or not inputs:
            raise VerifierFault(f"there are {len(inputs)} inputs and {len(outputs)} outputs")
        if function:
            pairs = list(zip(inputs, outputs, strict=True))
            results = tuple(_plain(_json(wanted) if isinstance(given, str) else wanted) for given, wanted in pairs)
            enclosed = all(
                isinstance(given, list) and isinstance(wanted, list) and len(wanted) == 1 for given, wanted in pairs
            )
            return Suite(tuple(map(_arguments, inputs)), results, "call", str(function), enclosed)
        return Suite(tuple(map(_text, inputs)), tuple(map(_text, outputs)))
    asserts = given["asserts"] if isinstance(given, Mapping) else given
    if not asserts or isinstance(asserts, str) or not all(isinstance(one, str) for one in asserts):
        raise VerifierFault(f"the tests are no list of assertions, but {asserts!r:.80}")
    setup = str(given.get("setup") or "") if isinstance(given, Mapping) else ""
    read = read_assertions(asserts, setup)
    return Suite(read.given, read.wanted, "values", setup=read.shown, reference=setup)


def _text(value: Any) -> str:
    if isinstance(value, list):
        return "\n".join(map(str, value))
    if not isinstance(value, str):
        raise VerifierFault(f"a test's input or output is {type(value).__name__}, not text: {value!r:.80}")
    return value


def _arguments(given: Any) -> list[Any]:
    if isinstance(given, str):
        return [_json(line) for line in given.split("\n") if line.strip()]
    if not isinstance(given, list):
        raise VerifierFault(f"the arguments of a function are {type(given).__name__}, not a list: {given!r:.80}")
    return given


def _json(given: Any) -> Any:
    try:
        return json.loads(given) if isinstance(given, str) else given
    except ValueError as error:
        raise VerifierFault(f"a test of a function is not JSON ({error}): {given!r:.80}") from None


async def _expected(tests: Suite, limits: CodeLimits, jail: Jail | None) -> Sequence[Any]:
    """What assertions expect is computed in a run without the program."""
    if tests.mode != "values":
        return tests.outputs
    alone = Suite(tests.outputs, tests.outputs, "values")
    found = [trial async for _, trial in _trials(tests.reference, alone, limits, jail or shared(), stop=True)]
    if len(found) < len(tests.outputs) or any(trial["status"] != "ok" for trial in found):
        raise VerifierFault(f"what a test expects cannot be computed: {found[-1].get('error') or found[-1]['status']}")
    return [json.loads(trial["output"]) for trial in found]


async def _trials(
    source: str, tests: Suite, limits: CodeLimits, jail: Jail, *, stop: bool
) -> AsyncIterator[tuple[int, dict[str, Any]]]:
    """Runs of growing batches, so that a program that fails the first test costs one test."""
    done, size, left = 0, 1, limits.total
    until = remaining()
    left = left if until is None else min(left, 0.9 * until)
    while done < len(tests.inputs):
        batch: list[Any] = []
        taken = 0
        for one in tests.inputs[done : done + size]:
            if batch and (isinstance(one, Check) or isinstance(batch[0], Check)):
                break  # it has a cell to itself
            taken += len(one) if isinstance(one, str) else 64
            if batch and taken > BATCH_BYTES:
                break
            batch.append(one)
        if left <= 0:
            yield done, {"status": "time"}
            return
        trials, spent = await _batch(source, tests, batch, limits, left, jail, stop)
        left -= spent
        for offset, trial in enumerate(trials):
            yield done + offset, trial
        if len(trials) < len(batch):
            if not trials or trials[-1]["status"] == "ok":
                yield done + len(trials), {"status": "time"}
            return
        done, size = done + len(batch), size * 4


async def _batch(
    source: str, tests: Suite, batch: list[Any], limits: CodeLimits, left: float, jail: Jail, stop: bool
) -> tuple[list[dict[str, Any]], float]:
    until = min(left, limits.seconds * len(batch))
    if isinstance(batch[0], Check):
        trial, spent = await run_check(source, batch[0], jail, seconds=until, memory_mb=limits.memory_mb)
        return [trial], spent
    job = {
        "code": f"{source}\n{tests.setup}" if tests.setup and tests.setup != source else source,
        "mode": tests.mode,
        "name": tests.function,
        "tests": batch,
        "seconds": limits.seconds,
        "until": until,
        "most": MOST,
        "stop": stop,
        "alone": len(batch) == 1,
    }
    allowance = Allowance(
        wall=until + OVERHEAD,
        cpu=limits.seconds + 1,
        memory_mb=limits.memory_mb,
        output_kb=(MOST >> 10) * (len(batch) + 1) * 2,
        processes=24,
    )
    if len(batch) == 1:
        alone = replace(allowance, wall=until + 0.1, output_kb=MOST >> 10)
        ended = await jail.run(Program(inner("trials"), stdin=json.dumps(job), collect=("value",)), alone)
        return [_trial(ended, tests.mode)], ended.seconds
    ended = await jail.run(Program(inner("trials"), stdin=json.dumps(job)), allowance)
    try:
        trials = json.loads(ended.stdout)
    except (ValueError, RecursionError):
        if ended.code == 1 and "trials.py" in ended.stderr:
            raise InfraFault(f"the tests could not be run: {ended.stderr[-500:]}") from None
        what = (
            "too much memory" if ended.out_of_memory else "out of time" if ended.timed_out else "the program ended its judge"
        )
        return [{"status": "error", "error": what}], ended.seconds
    return trials, ended.seconds


def _trial(ended: Ended, mode: str) -> dict[str, Any]:
    """Of a run that was a single trial."""
    if ended.timed_out or ended.out_of_memory:
        return {"status": "time"} if ended.timed_out else {"status": "error", "error": "too much memory"}
    if ended.code:
        told = ended.stderr.strip().splitlines() or [f"exit status {ended.code}"]
        return {"status": "error", "error": told[-1][:500]}
    if ended.cut:
        return {"status": "error", "error": "too much output"}
    return {"status": "ok", "output": ended.stdout if mode == "stdin" else ended.files["value"] or ""}


async def _difference(given: str, expected: Any, mode: str, tolerance: float) -> str:
    """What is wrong with an output, "" if nothing."""
    compare = same_output if mode == "stdin" else partial(_same_found, json_keys=mode == "call")
    if len(given) < 100_000:
        right = compare(given, expected, tolerance)
    else:
        right = await asyncio.to_thread(compare, given, expected, tolerance)
    return "" if right else f"wrong answer: {given.strip()[:200]!r}"


def same_output(given: str, expected: str, tolerance: float = TOLERANCE) -> bool:
    """Whether two outputs are the same: number by number where all that is expected is numbers, else line by line, without
    the spaces at both ends. Whole numbers are compared exactly, those with a fraction within the tolerance."""
    words, wanted = given.split(), expected.split()
    if words == wanted and _numbers(wanted):
        return True
    if _numbers(wanted):
        return len(words) == len(wanted) and all(_same_word(*pair, tolerance) for pair in zip(words, wanted, strict=True))
    lines, right = ([line.strip() for line in text.strip().split("\n")] for text in (given, expected))
    return len(lines) == len(right) and all(_same_line(*pair, tolerance) for pair in zip(lines, right, strict=True))


def _same_line(given: str, expected: str, tolerance: float) -> bool:
    if given == expected:
        return True
    words, wanted = given.split(" "), expected.split(" ")
    return len(words) == len(wanted) and all(_same_word(*pair, tolerance) for pair in zip(words, wanted, strict=True))


_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,4})?", re.ASCII)


def _numbers(words: Sequence[str]) -> bool:
    return all(map(_NUMBER.fullmatch, words))


def _same_word(given: str, expected: str, tolerance: float) -> bool:
    if given == expected:
        return True
    if not (_NUMBER.fullmatch(given) and _NUMBER.fullmatch(expected)):
        return False
    try:
        if Decimal(given) == Decimal(expected):
            return True
        fraction = not expected.lstrip("+-").isdigit()
        return fraction and isclose(float(given), float(expected), rel_tol=tolerance, abs_tol=tolerance)
    except (InvalidOperation, ValueError, OverflowError):
        return False


def _same_found(text: str, expected: Any, tolerance: float, json_keys: bool = False) -> bool:
    try:
        return same_value(json.loads(text), expected, tolerance, json_keys=json_keys)
    except (ValueError, TypeError, LookupError, RecursionError):  # a program may have written it in the place of `plain`
        return False


def same_value(given: Any, expected: Any, tolerance: float = TOLERANCE, *, json_keys: bool = False) -> bool:
    """Whether two results (as `trials.plain` writes them) are the same: a tuple is a list, as in JSON; numbers are compared
    exactly where a whole one (5, not 5.0) is expected, others within the tolerance; what is compared with a set must be one.
    With `json_keys`, the whole numbers that are keys of what is given are text, as JSON has them."""
    if isinstance(given, list) and isinstance(expected, list):
        kind, wanted = (_ALIKE.get(one[0], one[0]) for one in (given, expected))
        if kind != wanted:
            return _is_number(given) and _is_number(expected) and _same_number(given, expected, tolerance)
        if kind == "list":
            pairs = zip(given[1], expected[1], strict=False)
            return len(given[1]) == len(expected[1]) and all(
                same_value(*pair, tolerance, json_keys=json_keys) for pair in pairs
            )
        if kind == "set":
            return {_hashed(item) for item in given[1]} == {_hashed(item) for item in expected[1]}
        if kind == "dict":
            mine = {_hashed(str(key) if json_keys and type(key) is int else key): item for key, item in given[1]}
            theirs = {_hashed(key): item for key, item in expected[1]}
            return (
                mine.keys() == theirs.keys()
                and len(given[1]) == len(expected[1])
                and all(same_value(mine[key], theirs[key], tolerance, json_keys=json_keys) for key in theirs)
            )
    if _is_number(given) and _is_number(expected):
        return _same_number(given, expected, tolerance)
    return type(given) is type(expected) and given == expected


_ALIKE = {"tuple": "list"}


def _hashed(item: Any) -> str:
    """The same for items that are one in a set: 1, 1.0 and True."""
    if _is_number(item):
        number = _value(item)
        return hex(int(number)) if isinstance(number, int) or number.is_integer() else repr(number)
    if isinstance(item, list) and item[0] in ("tuple", "set"):
        inner = [_hashed(one) for one in item[1]]
        return json.dumps([item[0], sorted(inner) if item[0] == "set" else inner])
    return json.dumps(item)


def _is_number(value: Any) -> bool:
    return type(value) in (int, bool) or (isinstance(value, list) and value[0] in ("int", "float"))


def _same_number(given: Any, expected: Any, tolerance: float) -> bool:
    one, other = _value(given), _value(expected)
    if isinstance(other, int):
        return one == other
    try:
        return isclose(one, other, rel_tol=tolerance, abs_tol=tolerance) or (one != one and other != other)
    except OverflowError:
        return False


def _value(number: Any) -> int | float:
    if isinstance(number, list):
        return int(number[1], 16) if number[0] == "int" else float(number[1])
    return int(number)


def _plain(value: Any) -> Any:
    """JSON as `trials.plain` writes it."""
    if isinstance(value, float):
        return ["float", repr(value)]
    if type(value) is int and abs(value) >= 1 << 53:
        return ["int", hex(value)]
    if isinstance(value, list):
        return ["list", [_plain(item) for item in value]]
    return ["dict", [[key, _plain(item)] for key, item in value.items()]] if isinstance(value, dict) else value
