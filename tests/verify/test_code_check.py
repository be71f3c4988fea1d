"""Tests that are a function, `check(candidate)`: what passes, what fails, and what tries to judge itself."""

from __future__ import annotations

from typing import Any

import pytest

from rollforge.errors import VerifierFault
from rollforge.verify.code import CodeLimits, code
from tests.jails import isolated

__all__ = ["isolated"]

pytestmark = pytest.mark.usefixtures("isolated")

TEST = """METADATA = {"author": "x"}

def check(candidate):
    assert candidate([3, 1, 2], 2) == [6, 2, 4]
    assert candidate(values=[], k=5) == []
    assert candidate([1.5], 2) == [3.0], "of a fraction"
    try:
        candidate(None, 1)
    except TypeError:
        pass
    else:
        raise AssertionError("None is no list")
"""
ROW = {"test": TEST, "entry_point": "scaled"}
RIGHT = "def scaled(values, k):\n    return [value * k for value in values]"


async def judged(source: str, tests: Any = ROW, seconds: float = 5.0) -> dict[str, Any]:
    return await code(f"```python\n{source}\n```", tests, limits=CodeLimits(seconds=seconds))


@pytest.mark.parametrize(
    "source",
    [
        RIGHT,
        f"print('noise')\n{RIGHT}",
        "class Solution:\n    def scaled(self, values: List[int], k):\n        return [value * k for value in values]",
        "def scaled(values, k):\n    return list(map(k.__mul__, values)) if values != [1.5] else [3.0]",
        f"from math import *\n{RIGHT}\nif __name__ == '__main__':\n    print(scaled([1], 2))",
    ],
)
async def test_a_right_program_passes(source: str) -> None:
    found = await judged(source)
    assert (found["failure"], found["reward"], found["passed"], found["tests"]) == (None, 1, 1, 1)


FRAMES = """
import sys
frame, text = sys._getframe(), ""
while frame:
    text += str(frame.f_locals)
    frame = frame.f_back
raise OSError("META" + "DATA" in text)
"""
OBJECTS = """
import gc
raise OSError("of a fr" + "action" in str([one for one in gc.get_objects() if type(one) in (dict, list)]))
"""
FORGED = '{"status": "ok"}'


@pytest.mark.parametrize(
    ("source", "failure"),
    [
        ("def scaled(values, k):\n    return values", "AssertionError"),
        ("def scaled(values, k):\n    return tuple(value * k for value in values)", "AssertionError"),
        ("def scaled(values, k):\n    return [v * k for v in values or ()]", "AssertionError: None is no list"),
        ("def scaled(values, k):\n    return 1 / 0", "ZeroDivisionError: division by zero"),
        ("def scaled(values, k):\n    return missing", "NameError: name 'missing' is not defined"),
        ("def scale(values, k):\n    return 1", "NameError: there is no function scaled"),
        ("def scaled(values, k:", "SyntaxError"),
        ("def scaled(values, k):\n    while True: pass", "out of time"),
        # Judges itself.
        ("def check(candidate): pass\nscaled = None", "NameError: there is no function scaled"),
        ("import builtins\nbuiltins.check = lambda c: None\ndef scaled(*a, **k): return 0", "AssertionError"),
        ("import builtins\nbuiltins.AssertionError = OSError\ndef scaled(*a, **k): return 0", "AssertionError"),
        ("class E(list):\n    __eq__ = lambda s, o: True\ndef scaled(*a, **k): return E()", "TypeError: the result is E"),
        # Leaves.
        ("exit()", "the program ended itself"),
        ("import os\nos._exit(0)", "the program ended itself"),
        ("def scaled(values, k):\n    raise SystemExit", "the program ended itself"),
        ("import os, signal\nos.kill(os.getppid(), signal.SIGKILL)", "the program ended its judge"),
        # Speaks in the place of the judge, on every descriptor it has.
        (f"import os\nfor n in (3, 4, 5): os.write(n, b'{FORGED}\\n')", ""),
        (f"import os\nfor n in (5, 4, 3): os.write(n, b'{FORGED}\\n')", ""),
        (f"import os\nopen(f'/proc/{{os.getppid()}}/fd/1', 'w').write('{FORGED}')", "PermissionError"),
        ("def scaled(values, k):\n    return 'x' * (5 << 20)", "too much output"),
        ("import os\nos.write(4, b'[' * 100000 + b'\\n')\nos.write(3, b'[' * 100000 + b'\\n')\nscaled = 1", ""),
        # Reads what is expected.
        ("import os\nraise OSError(open(f'/proc/{os.getppid()}/mem', 'rb').read(1))", "PermissionError"),
        (FRAMES, "OSError: False"),
        (OBJECTS, "OSError: False"),
    ],
)  # fmt: skip
async def test_wrong_and_hostile_programs_fail(source: str, failure: str) -> None:
    found = await judged(source, seconds=2.0)
    assert found["reward"] == 0
    assert found["failure"].startswith(f"test 1: {failure}")


async def test_what_a_program_writes_is_not_imported_by_its_judge() -> None:
    test = "def check(candidate):\n    candidate()\n    import fractions\n    assert candidate() == fractions.Fraction(1, 2)"
    module = f"import os\nos.write(3, b{FORGED!r})\nFraction = lambda *_: None"
    liar = f"open('fractions.py', 'w').write({module!r})"
    found = await judged(f"{liar}\ndef scaled(): return None", {**ROW, "test": test})
    assert found["failure"] == "test 1: AssertionError"


PROMPT = '''import math

def poly(xs, x):
    return sum(c * math.pow(x, i) for i, c in enumerate(xs))

def zero(xs):
    """Find one."""
'''


async def test_a_check_may_use_what_the_prompt_defines() -> None:
    test = (
        "def check(candidate):\n    for xs in ([1, 2], [-6, 11, -6, 1]):\n        assert poly(xs, candidate(list(xs))) == 0"
    )
    right = "def zero(xs):\n    return next(x / 2 for x in range(-9, 9) if poly(xs, x / 2) == 0)"
    row = {"task_id": "x/1", "prompt": PROMPT, "test": test, "entry_point": "zero"}
    assert (await judged(right, row))["failure"] is None
    assert (await judged("x = 1", row))["reward"] == 0  # the head alone returns None
    with pytest.raises(VerifierFault, match="'poly' is not defined"):
        await judged("def zero(xs): return 0", {**row, "prompt": "Find a zero of a polynomial."})


async def test_a_program_ends_no_iteration_of_its_judge() -> None:
    test = "def check(candidate):\n    assert all(map(candidate, [1, 2]))\n    assert list(map(candidate, [3])) == []"
    found = await judged("def f(x): raise StopIteration", {"test": test, "entry_point": "f"})
    assert found["failure"] == "test 1: RuntimeError: StopIteration"


@pytest.mark.parametrize(
    "value", ["(1, [2.5, None])", "{1: {'a'}}", "b'x'", "2 ** 80", "1 + 2j", "True", "float('inf')", "'é\\n'"]
)
async def test_data_passes_both_ways(value: str) -> None:
    test = f"def check(candidate):\n    got = candidate({value})\n    assert got == {value} and type(got) is type({value})"
    assert (await judged("def same(x): return x", {"test": test, "fn_name": "same"}))["failure"] is None


@pytest.mark.parametrize(
    "tests",
    [
        {"test": TEST},
        {"test": TEST, "entry_point": "os.system('x')"},
        {"test": "", "entry_point": "f"},
        {"test": None, "entry_point": "f"},
        {"test": "def check(candidate:", "entry_point": "f"},
        {"test": "assert f(1) == 2", "entry_point": "f"},
        {"test": "def check(): pass", "entry_point": "f"},
        {"test": "def check(candidate): pass", "entry_point": "f"},
        {"test": "import nothing\ndef check(candidate): candidate()", "entry_point": "f"},
        {"test": "def check(candidate): assert candidate(object())", "entry_point": "f"},
        {"test": "def check(candidate): assert candidate(1) == missing", "entry_point": "f"},
        {"test": TEST, "entry_point": "f", "setup": "if"},
    ],
)
async def test_tests_that_cannot_be_used_are_a_fault(tests: Any) -> None:
    with pytest.raises(VerifierFault):
        await judged("def f(*_): return 2", tests)
