"""Programs against tests: what passes, what fails, and what tries to pass without solving anything."""

from __future__ import annotations

import os
from typing import Any

import pytest

from rollforge.errors import VerifierFault
from rollforge.sandbox.jail import shared
from rollforge.sandbox.processes import descendants
from rollforge.verify.code import CodeLimits, code, program_of, read_tests, same_output
from tests.jails import isolated

__all__ = ["isolated"]

pytestmark = pytest.mark.usefixtures("isolated")
SQUARES = {"inputs": ["3\n", "-4\n", "10\n"], "outputs": ["9\n", "16\n", "100\n"]}
SHORT = CodeLimits(seconds=0.5)


def block(source: str) -> str:
    return f"Here it is:\n```python\n{source}\n```\nDone."


async def judged(source: str, tests: Any = SQUARES, **more: Any) -> dict[str, Any]:
    return await code(block(source), tests, limits=more.pop("limits", SHORT), **more)


async def test_a_right_program_passes() -> None:
    found = await judged("print(int(input()) ** 2)")
    assert found == {
        "reward": 1.0,
        "extracted_code": "print(int(input()) ** 2)",
        "passed": 3,
        "tests": 3,
        "failure": None,
    }


@pytest.mark.parametrize(
    "source",
    [
        "import sys\nfor line in sys.stdin:\n    print(int(line) ** 2)",
        "import sys\nn = int(sys.stdin.buffer.read())\nsys.stdout.write(str(n * n))",
        "print(int(open(0).read()) ** 2)",
        "n = int(stdin.readline())\nprint(math.prod([n, n]))",  # names that contest judges give
        "def main():\n    print(int(input()) ** 2)\nif __name__ == '__main__':\n    main()",
        "import threading\nthreading.Thread(target=lambda: print(int(input()) ** 2)).start()",
        "print(int(input()) ** 2)\nraise SystemExit",
        "import atexit\nn = int(input())\natexit.register(print, n * n)",
        "print(float(input()) ** 2, '  \\n')",
        "def f(n):\n    return 0 if n == 0 else 1 + f(n - 1)\nn = int(input())\nf(20000)\nprint(n * n)",
    ],
)
async def test_programs_read_and_write_in_many_ways(source: str) -> None:
    assert (await judged(source))["failure"] is None


@pytest.mark.parametrize(
    ("source", "failure"),
    [
        ("print(int(input()) * 3)", "test 2: wrong answer: '-12'"),
        ("print(9)", "test 2: wrong answer: '9'"),
        ("print(9); raise ValueError('no')", "test 1: ValueError: no"),
        ("print(9); exit(3)", "test 1: exit status 3"),
        ("import os; os._exit(0)", "test 1: wrong answer: ''"),
        ("if", "test 1: SyntaxError: invalid syntax (program.py, line 1)"),
        ("while True: pass", "test 1: out of time"),
        ("import time; time.sleep(9)", "test 1: out of time"),
        ("import os\nwhile True: os.write(1, b'9' * 4096)", "test 1: OSError: [Errno 27] File too large"),
        ("x = 'x' * 10**12", "test 1: MemoryError"),
        ("import os, signal; os.kill(os.getppid(), signal.SIGKILL)", "test 1: "),
        ("(" * 5000 + ")" * 5000, "test 1: "),
        ("print(open('/etc/shadow').read())", "test 1: "),
        ("import socket; socket.create_connection(('127.0.0.1', 80))", "test 1: "),
        ("import sys; print(sys._getframe(9))", "test 1: "),
    ],
)
async def test_wrong_and_hostile_programs_fail(source: str, failure: str) -> None:
    found = await judged(source)
    assert found["reward"] == 0
    assert found["failure"].startswith(failure)


async def test_a_trial_sees_nothing_of_the_one_before() -> None:
    counting = "import os, builtins\nprint(int(input()) ** 2 + len(os.listdir('/tmp')) - int(hasattr(builtins, 'seen')))\n"
    many = {"inputs": ["3\n"] * 8, "outputs": ["9\n"] * 8}
    assert (await judged(f"{counting}builtins.seen = True", many))["reward"] == 1


async def test_what_a_trial_leaves_running_is_ended() -> None:
    before = descendants(os.getpid())
    found = await judged(
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(60)\nprint(int(input()) ** 2)"
    )
    assert found["reward"] == 1
    shared().release()
    assert descendants(os.getpid()) <= before


async def test_partial_credit_is_the_share_that_passes() -> None:
    found = await judged("n = int(input())\nassert n > 0\nprint(n * n)", partial=True)
    assert (found["reward"], found["passed"], found["tests"]) == (pytest.approx(2 / 3), 2, 3)
    assert found["failure"] == "test 2: AssertionError"


async def test_all_tests_together_have_a_limit() -> None:
    many = {"inputs": ["3\n"] * 30, "outputs": ["9\n"] * 30}
    slow = "import time; time.sleep(0.2); print(9)"
    found = await judged(slow, many, limits=CodeLimits(seconds=1, total=0.9), partial=True)
    assert 0 < found["passed"] < 30
    assert found["failure"].endswith("out of time")


CALLS = {"inputs": ["[3, 1, 2]\n2", "[]\n0"], "outputs": ["[6, 2.0, 4]", "[]"], "fn_name": "scaled"}


@pytest.mark.parametrize(
    ("source", "reward"),
    [
        ("def scaled(values, k):\n    return [value * k for value in values]", 1),
        ("def scaled(values, k):\n    print('noise')\n    return tuple(value * k for value in values)", 1),
        ("class Solution:\n    def scaled(self, values: List[int], k) -> Any:\n        return [v * k for v in values]", 1),
        ("def scaled(values, k):\n    return [value * k + 1e-9 * (value == 1) for value in values]", 1),
        ("def scaled(values, k):\n    return [value * k + 1e-9 for value in values]", 0),  # 6 and 4 are whole
        ("def scaled(values, k):\n    return [value * k + 1e-3 for value in values]", 0),
        ("def scaled(values, k):\n    return str([value * k for value in values])", 0),
        ("def scaled(values, k):\n    return None", 0),
        ("def scale(values, k):\n    return [value * k for value in values]", 0),
        ("def scaled(values, k):\n    exit()", 0),
        ("class All(list):\n    __eq__ = lambda self, other: True\ndef scaled(values, k):\n    return All([1])", 0),
        ("class All:\n    __eq__ = lambda self, other: True\ndef scaled(values, k):\n    return All()", 0),
        ("import json\njson.dump = lambda value, file: file.write('[\"list\",[]]')\ndef scaled(*_): return 0", 0),
        ("import os\nos.write(100, b'[\"list\", []]')\nos._exit(0)", 0),
        ("import os\nos.write(100, b'[\"list\"]')\nos._exit(0)", 0),
        ('import os\nos.write(100, b\'["list", [[], ["float"], ["int", 7]]]\')\nos._exit(0)', 0),
        ("def scaled(values, k):\n    x = []\n    x.append(x)\n    return x", 0),
    ],
)
async def test_functions_are_judged_by_what_they_return(source: str, reward: float) -> None:
    assert (await judged(source, CALLS))["reward"] == reward


@pytest.mark.parametrize(
    ("expected", "returned", "same"),
    [
        ("0.3", "0.1 + 0.2", True),
        ("0.3", "0.3001", False),
        ("1", "True", True),
        ("1", "1.0", True),
        ('"1"', "1", False),
        ('{"1": [2]}', "{1: (2,)}", True),
        ('{"1": 2}', "{'1': 2, '3': 4}", False),
        ("[1, 2]", "{1, 2}", False),
        ("[1, 2]", "range(1, 3)", True),
        ("123456789012345678901234567890", "123456789012345678901234567890", True),
        ("123456789012345678901234567890", "123456789012345678901234567891", False),
        ("null", "None", True),
        ("null", "float('nan')", False),
        ('"é"', "'\\u00e9'", True),
        ("3162277", "3162277.66", False),
        ("1000000", "1000000.5", False),
        ("1000000", "1000000 + 1e-7", False),
        ("1000000.0", "1000000.5", True),
        ("1000000.0", "1000000", True),
        ("1180591620717411303424", "2.0 ** 70", True),  # is that number
        ("1180591620717411303425", "2.0 ** 70", False),
        ("[0]", "[1e-9]", False),
        ('{"1": 2}', "{1: 2, '1': 2}", False),
    ],
)
async def test_results_are_compared_as_data(expected: str, returned: str, same: bool) -> None:
    tests = {"inputs": [""], "outputs": [expected], "fn_name": "f"}
    assert (await judged(f"def f():\n    return {returned}", tests))["reward"] == same


@pytest.mark.parametrize(
    ("inputs", "outputs", "body", "reward"),
    [
        ([[5]], ["5"], "str(x)", 1),
        ([[5]], ["5"], "x", 0),
        ([["abc"], ["x"]], ["cba", "x"], "x[::-1]", 1),
        ([["abc"]], [["cba"]], "x[::-1]", 1),
        ([[2], [3]], [[4], [9]], "x * x", 1),
        ([[2], [3]], [[4], [9]], "[x * x]", 1),
        ([[2], [3]], [[4], [9]], "[x * x, 0]", 0),
        ([[1], [2]], [[1], [1, 2]], "list(range(1, x + 1))", 1),
        ([[1], [2]], [[1], [1, 2]], "1 if x == 1 else [1, 2]", 0),  # the lists are the result's own
        ([[1]], [[[1]]], "[x]", 1),
        (["1"], ["[1]"], "x", 0),
        (["1"], [[1]], "[x]", 1),
    ],
)
async def test_arguments_and_results_may_be_values(inputs: Any, outputs: Any, body: str, reward: float) -> None:
    found = await judged(f"def f(x):\n    return {body}", {"inputs": inputs, "outputs": outputs, "fn_name": "f"})
    assert found["reward"] == reward


@pytest.mark.parametrize(
    ("source", "inputs", "outputs"),
    [
        ("def f(n): return n ** 0.5", ["10000000000001", "99999999999999"], ["3162277", "9999999"]),
        (
            "def f(n): return math.sqrt(2*math.pi*n)*(n/math.e)**n*(1+1/(12*n)+1/(288*n*n))",
            ["20", "25"],
            ["2432902008176640000", "15511210043330985984000000"],
        ),
    ],
)
async def test_near_a_whole_number_is_beside_it(source: str, inputs: list[str], outputs: list[str]) -> None:
    assert (await judged(source, {"inputs": inputs, "outputs": outputs, "fn_name": "f"}, partial=True))["reward"] == 0


@pytest.mark.parametrize(
    ("expected", "returned", "same"),
    [
        ("1000000", "1000000.5", False),
        ("5", "5.0", True),
        ("2.5", "2.5 + 1e-9", True),
        ("{1: 'a'}", "{'1': 'a'}", False),
        ("{'1': 'a'}", "{1: 'a'}", False),
        ("{1: 'a'}", "{1.0: 'a'}", True),
        ("{(1, 2): 'a'}", "{(1.0, 2): 'a'}", True),
        ("{1, 2}", "{1.0, 2}", True),
        ("{1, 2}", "{1.5, 2}", False),
        ("{1, 2}", "{'1', 2}", False),
        ("{frozenset((8, 1))}", "{frozenset((1, 8))}", True),
        ("{2 ** 80}", "{float(2 ** 80)}", True),
    ],
)
async def test_what_an_assertion_says_is_the_same(expected: str, returned: str, same: bool) -> None:
    assert (await judged(f"def f(x): return {returned}", [f"assert f(1) == {expected}"]))["reward"] == same


async def test_assertions() -> None:
    tests = ["assert double(2) == 4", "assert set(pairs([1, 2])) == set(((1, 2), (2, 1)))", "assert not even(3)"]
    right = "def double(x): return 2 * x\ndef pairs(x): return [tuple(x), tuple(x[::-1])]\ndef even(x): return x % 2 == 0"
    assert (await judged(right, tests))["reward"] == 1
    found = await judged(
        right.replace("2 * x", "x + 2"), {"asserts": [*tests, "assert double(5) == TEN"], "setup": "TEN = 10"}
    )
    assert (found["reward"], found["passed"]) == (0, 3)
    liar = "class E:\n  __eq__ = lambda s, o: True\n  __bool__ = lambda s: True\ndouble = pairs = even = lambda x: E()"
    assert (await judged(liar, tests))["passed"] == 0


@pytest.mark.parametrize(
    "tests",
    [
        {},
        {"inputs": [], "outputs": []},
        {"inputs": ["1"], "outputs": []},
        {"inputs": "1", "outputs": "1"},
        {"inputs": [1], "outputs": ["1"]},
        {"inputs": ["nonsense"], "outputs": ["1"], "fn_name": "f"},
        {"inputs": ["1"], "outputs": ["nonsense"], "fn_name": "f"},
        {"inputs": [1], "outputs": [2], "fn_name": "f"},
        {"asserts": "assert f(1) == 2"},
        [],
        ["f(1) == 2"],
        ["assert f(1) == missing"],
    ],
)
async def test_tests_that_nothing_could_pass_are_a_fault(tests: Any) -> None:
    with pytest.raises(VerifierFault):
        await judged("def f(x): return 2", tests)


@pytest.mark.parametrize(
    ("reply", "program"),
    [
        ("```python\na\n```\n```python\nb\n```", "b"),
        ("```python\na\n```\nIts output:\n```\n9\n```", "a"),
        ("```\na\n```", "a"),
        ("```py\nif a:\n  b\n```", "if a:\n  b"),
        ("```python\na", None),
        ("```cpp\na\n```", None),
        ("print(1)", None),
        ("", None),
        ("<think>```python\na\n```</think>none", None),
        ("1. First:\n   ```python\n   if a:\n     b\n   ```", "if a:\n  b"),
        ("```python\r\na\r\n```\r\n", "a\r"),
        ("```python\nprint('\u2028')\n```", "print('\u2028')"),
    ],
)
def test_where_the_program_stands(reply: str, program: str | None) -> None:
    assert program_of(reply) == program


def test_other_places_for_the_program() -> None:
    reply = "```python\na\n```\n```python\nb\n```"
    assert [program_of(reply, "first_block"), program_of(reply, "all_blocks")] == ["a", "a\n\nb"]
    assert program_of("print(1)", "reply") == "print(1)"
    assert program_of("```python\n" * 200_000) is None


@pytest.mark.parametrize(
    ("given", "expected", "same"),
    [
        ("1 2\n3", "1 2 \n3\n\n", True),
        ("1 2 3", "1\n2 3", True),  # numbers: where lines end says nothing
        ("a b", "a\nb", False),
        ("Case 1: 0.5\n", "Case 1: 0.5000000", True),
        ("a  b", "a b", False),
        ("YES", "yes", False),
        ("0.3333333", "0.33333334", True),
        ("0.3334", "0.33333334", False),
        ("100000001", "100000000", False),
        ("1e3", "1000", True),
        ("nan", "0.5", False),
        ("inf", "0.5", False),
        ("١", "1", False),  # an Arabic digit
        ("1_0", "10", False),
        ("", "", True),
        ("0", "", False),
        ("", "0", False),
    ],
)
def test_outputs(given: str, expected: str, same: bool) -> None:
    assert same_output(given, expected) == same


def test_huge_numbers_are_compared_exactly() -> None:
    assert same_output("9" * 20_000, "9" * 20_000)
    assert not same_output("9" * 20_000, "9" * 19_999 + "8")
    assert not same_output("1e99999", "2.5")


async def test_expected_values_do_not_enter_the_cell() -> None:
    spy = "import gc, sys\ntext = str([o for o in gc.get_objects() if isinstance(o, (str, dict, list))])\n"
    spy += "f = sys._getframe()\nwhile f:\n    text += str(f.f_locals)\n    f = f.f_back\nprint(str(7 * 11111) in text)"
    found = await judged(spy, {"inputs": ["5\n"], "outputs": ["77777\n"]})
    assert found["failure"] == "test 1: wrong answer: 'False'"


def test_rows_may_give_inputs_as_data() -> None:
    assert read_tests({"inputs": [[1, [2]]], "outputs": [3], "fn_name": "f"}).inputs == ([1, [2]],)
    assert read_tests({"inputs": [["1", "2"]], "outputs": [["3"]]}).inputs == ("1\n2",)
