"""Answers to the problems of the reasoning-gym library (extra `reasoning-gym`), scored by the library.

Some of its scorers evaluate the answer as Python (`eval`, sympy's `parse_expr`), so an answer reaches these only if it is
plain data or plain arithmetic. One takes whatever is not empty for "True"; that one is replaced.
"""

from __future__ import annotations

import ast
import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from functools import lru_cache
from importlib import import_module
from io import StringIO
from types import ModuleType
from typing import Any

from rollforge.errors import UserError, VerifierFault, short
from rollforge.verify.answer import after_thinking, boxed

LONGEST = 20_000
"""Characters of an answer that is scored."""


def reasoning_gym(reply: str, answer: Any, metadata: Any, question: str = "") -> dict[str, Any]:
    """The library's score of a reply, 0 to 1, for an entry of its data set `metadata["source_dataset"]`; beside it
    `extracted_answer` and `extracted_by` (tag, box, reply).

    Raises `VerifierFault` for a row that the library cannot score, `UserError` without the library.
    """
    name = metadata.get("source_dataset") if isinstance(metadata, Mapping) else None
    if not isinstance(name, str):
        raise VerifierFault(f"metadata names no source_dataset: {metadata!r:.100}")
    entry = {"question": question, "answer": answer, "metadata": _as_made(name, metadata)}
    text, found = extract(reply)
    score = _score(name, text, entry)
    return {"reward": score, "extracted_answer": text[:LONGEST], "extracted_by": found}


def extract(reply: str) -> tuple[str, str]:
    """The answer and where it stood: between the last answer tags, in the last box, else the whole reply."""
    text = after_thinking(reply)
    before, closed, _ = text.rpartition("</answer>")
    _, opened, inside = before.rpartition("<answer>")
    if closed and opened:
        return inside.strip(), "tag"
    box = boxed(text)
    return (box, "box") if box is not None else (text.strip(), "reply")


def library() -> ModuleType:
    try:
        return import_module("reasoning_gym")
    except ModuleNotFoundError as error:
        raise UserError("reasoning-gym is not installed: pip install 'rollforge[reasoning-gym]'") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Around calls of the library: some of its data sets print dots, leave a file open, or warn of an answer."""
    with redirect_stdout(StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _score(name: str, answer: str, entry: dict[str, Any]) -> float:
    scorer = OWN.get(name) or _scorer(name)
    if len(answer) > LONGEST or not (answer in _listed(entry) or SAFE.get(name, _anything)(answer)):
        return 0.0
    try:
        score = float(scorer(answer, entry))
    except RecursionError:
        return 0.0
    except Exception as error:  # noqa: BLE001 - the library's, on some answers, and on rows that are none of its own
        _check_row(name, scorer, entry, error)
        return 0.0
    return score if math.isfinite(score) else 0.0


def _check_row(name: str, scorer: Callable[[str, dict[str, Any]], Any], entry: dict[str, Any], error: Exception) -> None:
    """Whether it is the row's fault: then its own answer cannot be scored either."""
    own = next(iter(_listed(entry)), None)
    try:
        if own is None or float(scorer(own, entry)) > 0:
            return
    except Exception as again:  # noqa: BLE001 - as above
        error = again
    raise VerifierFault(f"reasoning-gym cannot score this row of {name}: {short(error)}")


@lru_cache(256)
def _scorer(name: str) -> Callable[[str, dict[str, Any]], Any]:
    try:
        with quiet():
            found = library().get_score_answer_fn(name)
    except (ValueError, KeyError, AssertionError) as error:
        raise VerifierFault(f"reasoning-gym has no data set {name!r}: {short(error)}") from error

    def score(answer: str, entry: dict[str, Any]) -> Any:
        with quiet():
            return found(answer=answer, entry=entry)

    return score


def _listed(entry: dict[str, Any]) -> list[str]:
    """The row's own answers: they are compared, whatever they look like."""
    valid = entry["metadata"].get("valid_answers")
    return [text for text in (entry["answer"], *(valid if isinstance(valid, list) else ())) if isinstance(text, str)]


def _as_made(name: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Two data sets compare tuples, which JSON makes lists."""
    made = dict(metadata)
    return {key: _tuples(value) for key, value in made.items()} if name in ("arc_agi", "rearc") else made


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _halts(answer: str, entry: dict[str, Any]) -> float:
    # The library compares bool(answer), which is true of "False" too.
    words = {"true": "true", "yes": "true", "false": "false", "no": "false"}
    expected = str(entry["answer"]).strip().casefold()
    return float(words.get(answer.strip().strip(".").casefold()) == words.get(expected, expected))


OWN: dict[str, Callable[[str, dict[str, Any]], Any]] = {"game_of_life_halting": _halts}


def _anything(answer: str) -> bool:
    return True


def _is_data(answer: str) -> bool:
    try:
        ast.literal_eval(answer)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return False
    return True


_FUNCTIONS = ("sin", "cos", "tan", "sec", "csc", "cot", "asin", "acos", "atan", "sinh", "cosh", "tanh")
_NAMES = frozenset((*_FUNCTIONS, "arcsin", "arccos", "arctan", "exp", "log", "ln", "sqrt", "Abs", "pi"))
_WORD = re.compile(r"[A-Za-z_]\w*")
_OTHER = re.compile(r"[^A-Za-z0-9+\-*/^(). \n=]|\.\s*[A-Za-z(]")
_TOWER = re.compile(r"(?:\*\*|\^)[\s(+-]*(?:\d{3,}|\d+\s*\)*\s*(?:\*\*|\^))")


def _is_arithmetic(answer: str) -> bool:
    """Numbers, variables of one letter, known functions, small powers: nothing that sympy would run, or run for ever."""
    if len(answer) > 2000 or _OTHER.search(answer) or _TOWER.search(answer):
        return False
    return all(len(word) == 1 or word in _NAMES for word in _WORD.findall(answer))


SAFE: dict[str, Callable[[str], bool]] = {
    **dict.fromkeys(("binary_matrix", "n_queens", "spiral_matrix", "string_insertion"), _is_data),
    **dict.fromkeys(
        ("countdown", "intermediate_integration", "polynomial_multiplication", "puzzle24", "simple_integration"),
        _is_arithmetic,
    ),
}
"""What may be shown to the scorers that evaluate an answer."""
