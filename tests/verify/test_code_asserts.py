"""Assertions of every form: what honest programs return passes, and nothing that a program shows instead of it."""

from __future__ import annotations

import pytest

from rollforge.errors import VerifierFault
from rollforge.verify.code import CodeLimits, code
from tests.jails import isolated

__all__ = ["isolated"]

pytestmark = pytest.mark.usefixtures("isolated")


async def judged(source: str, *asserts: str, setup: str = "", seconds: float = 5.0) -> float:
    tests = {"asserts": list(asserts), "setup": setup}
    found = await code(f"```python\n{source}\n```", tests, limits=CodeLimits(seconds=seconds))
    return float(found["reward"])


VOLUME = "assert math.isclose(volume(10), 4188.79, rel_tol=0.001)"
CLOSE = "def close(a, b):\n    return abs(a - b) < 1e-6"
NODE = "class Node:\n    def __init__(self, value):\n        self.val, self.next = value, None\n"
STACK = """
class Stack:
    def __init__(self): self.all = []
    def push(self, x): self.all.append(x); return self
    def top(self): return self.all[-1]
    def is_empty(self): return not self.all
    def __len__(self): return len(self.all)
"""
OBJECTS = """
from fractions import Fraction
def pairs(x): return zip(x, x[::-1])
def views(): return {1: 2}.items()
def half(): return Fraction(1, 2)
"""


@pytest.mark.parametrize(
    ("source", "setup", "asserts"),
    [
        ("def volume(r): return 4 / 3 * math.pi * r**3", "import math", [VOLUME]),
        ("def volume(r): return 4 / 3 * math.pi * r**3", "from math import *", [VOLUME.replace("math.", "")]),
        ("def volume(r): return 0", "", [VOLUME.replace("assert", "assert not")]),
        ("def f(x): return 40 + 1e-8", CLOSE, ["assert close(f(10), 40)", "assert not close(f(10), 41)"]),
        ("def f(x): return x * x", "def ref(x): return x * x\nK = 12", ["assert f(K) == ref(K)", "assert f(3) == ref(3)"]),
        ("def f(x): return x", "def run(x): return f(x) + 1", ["assert run(3) == 4", "assert run(2) in (3, 9)"]),
        ("def f(x): return x", "def good(x, y): return f(x) + 1 == y", ["assert good(3, 4)", "assert not good(3, 3)"]),
        ("def f(x): return 40", "def near(a): return abs(a - 40) < 1", ["assert near(f(3)) == True", "assert near(f(3))"]),
        ("def f(x): return 4", "", ["assert f(2).__eq__(4)", "assert f(2).bit_length() == 3", "assert -f(2) == -4"]),
        ("def f(x): return 2", "", ["assert (f(1) == 2) == True", "assert f(1) != 3", "assert f(1) in [1, 2]"]),
        ("def f(x): return 2", "", ["assert 1 < f(1) < 3", "assert 2 == f(1)", "assert isinstance(f(1), int)"]),
        ("def f(x): return 2", "", ["assert f(1) == f(2)", "assert f(1) == 2, 'two'", "assert f(1) == 2 and f(2) == 2"]),
        ("def f(x): return 2.05", "", ["assert abs(f(1) - 2) < 0.1", "assert (lambda v: v > 2)(f(1))"]),
        ("def f(x): return x", "", ["assert all(f(x) == x for x in [1, 2])", "assert all(map(f, [1, 2]))"]),
        ("def f(x): return x", "", ["assert [f(i) for i in (1, 2)] == [1, 2]", "assert sorted([3, 1], key=f) == [1, 3]"]),
        ("def f(x): return 'xabc'", "", ["assert f(1).endswith('abc')", "assert len(f(1)) > 3", "assert f(1)[0] == 'x'"]),
        ("def f(x): return {'a': [1, 2]}", "", ["assert f(1)['a'][0] < 2", "assert f(1).get('a', 3) == [1, 2]"]),
        ("def f(x): return {'a': [1, 2]}", "", ["assert f(1).get('b') is None", "assert {**f(1)} == {'a': [1, 2]}"]),
        ("def add(x): return lambda y: x + y", "", ["assert add(2)(3) == 5", "assert abs(add(2)(3) - 5) < 1"]),
        ("def twice(g, x): return g(g(x))", "", ["assert isclose(twice(lambda x: x * x, 3), 81)"]),
        (
            "def inner(x): return x\ndef outer(x): return [x]",
            "",
            ["assert outer(inner(2))", "assert outer(inner(2)) == [2]"],
        ),
        ("total = 15", "", ["assert total == 15", "assert abs(total - 15) < 1"]),
        (
            "def f(x): return x",
            "W = {}\nW['a'] = 5\nV = [W]\nL = []\nL.append(3)",
            ["assert f(5) == W['a']", "assert f(L) == [3]"],
        ),
        ("def f(x): return x", "W = 2\nL = {}\nL['a'] = W", ["assert f(L) == {'a': W}"]),
        ("def f(x): return x", "W = []\nfor i in range(3): W.append(i)\nW += [7]", ["assert f([0, 1, 2, 7]) == W"]),
        # Names that Python or the contests' judges give, too.
        ("def sum(a, b): return 6", "", ["assert sum(10, 15) == 6", "assert sum(10, 15) > 5"]),
        ("def gcd(a, b): return 5", "", ["assert abs(gcd(10, 15) - 5) < 1", "assert isclose(gcd(10, 15), 5)"]),
        ("def Split(x): return [x]", "", ["assert Split(3) == [3]", "assert Split(3)[0] > 2"]),
        ("def check_Vow(x): return 2.5", "", ["assert abs(check_Vow(3) - 2.5) < 1"]),
        # Objects stay with the program.
        (STACK, "", ["assert Stack().push(1).top() == 1", "assert not Stack().push(1).is_empty()"]),
        (STACK, "", ["assert len(Stack()) == 0", "assert Stack().all == []", "assert len(Stack().push(2)) > 0"]),
        ("class Solution:\n    def f(self, x): return 'abc'", "", ["assert Solution().f(1).endswith('c')"]),
        (f"{NODE}def f(x): return Node(x)", "", ["assert f(3).val == 3", "assert f(3) is not None", "assert f(3).val > 2"]),
        ("def f(x): return Node(x)", f"{NODE}def listed(n): return [n.val]", ["assert listed(f(3)) == [3]"]),
        (f"{NODE}def f(x): return Node(x)", "def listed(n): return [n.val]", ["assert listed(f(3)) == [3]"]),
        (
            "def f(x): return 40",
            "def off(a): return round(math.fabs(a - 40))",
            ["assert off(f(3)) == 0", "assert off(f(3)) < 1"],
        ),
        (f"{NODE}def depth(node): return 1", "", ["assert depth(Node(1)) == 1", "assert depth(Node(1)) > 0"]),
        (OBJECTS, "", ["assert set(pairs([1, 2])) == {(1, 2), (2, 1)}", "assert sorted(map(list, pairs([1]))) == [[1, 1]]"]),
        (OBJECTS, "", ["assert list(views()) == [(1, 2)]", "assert float(half()) == 0.5", "assert str(half()) != ''"]),
    ],
)
async def test_right_programs_pass(source: str, setup: str, asserts: list[str]) -> None:
    assert await judged(source, *asserts, setup=setup) == 1


YES = """class E:
    def __eq__(self, other): return True
    __lt__ = __gt__ = __le__ = __ge__ = __ne__ = endswith = __contains__ = __getitem__ = __eq__
    def __sub__(self, other): return 0
    def __bool__(self): return True
def f(x): return E()
"""
NO_ABS = "import builtins\nbuiltins.abs = lambda x: 0\ndef f(x): return 0"
SPY = """
import gc, sys
def f(x):
    frame, text = sys._getframe(), str([o for o in gc.get_objects() if type(o) in (str, dict, list, tuple)])
    while frame:
        text += f"{frame.f_locals}{frame.f_globals}{frame.f_code.co_consts}"
        frame = frame.f_back
    wanted = "4188" + chr(46) + "79"
    return float(wanted) if wanted in text else 0
"""


@pytest.mark.parametrize(
    ("source", "setup", "test"),
    [
        ("import math\nmath.isclose = lambda *a, **k: True\ndef volume(r): return 0", "import math", VOLUME),
        ("import math\nmath.isclose = lambda *a, **k: True\ndef volume(r): return 0", "", VOLUME),
        ("isclose = lambda *a, **k: True\ndef volume(r): return 0", "", VOLUME.replace("math.", "")),
        ("isclose = lambda *a, **k: True\ndef gcd(a, b): return 4", "", "assert isclose(gcd(10, 15), 5)"),
        (NO_ABS, CLOSE, "assert close(f(10), 40)"),
        (NO_ABS, "", "assert abs(f(10) - 40) < 1"),
        ("import builtins\nbuiltins.bool = lambda x: True\ndef f(x): return 0", "", "assert f(10) > 1"),
        (NO_ABS, "off = lambda a: abs(a - 4)", "assert off(f(1)) == 0"),
        ("def f(x): return W['a']", "W = {}\nW['a'] = 5", "assert f(5) == W['a']"),
        (YES, "", "assert f(2).__eq__(4)"),
        (YES, "", "assert f(2).__eq__(4) == True"),
        (YES, "", "assert (f(2) == 4) == True"),
        (YES, "", "assert f(2) == 4 and f(3) == 9"),
        (YES, "", "assert f(2) in [4]"),
        (YES, "", "assert 4 in f(2)"),
        (YES, "", "assert 3 < f(2) < 5"),
        (YES, "", "assert abs(f(2) - 4) < 1"),
        (YES, "", "assert f(2).endswith('x')"),
        (YES, "", "assert f(2).endswith('x') == True"),
        (f"{YES}\nclass Solution:\n    f = lambda self, x: E()", "", "assert Solution().f(2).endswith('x')"),
        ("class f:\n    def __init__(self, x): self.endswith = bool", "", "assert f(2).endswith('x')"),
        ("def f(x): raise StopIteration", "", "assert all(map(f, [1, 2]))"),
        ("def f(x): raise StopIteration", "", "assert all(f(x) == x for x in [1, 2])"),
        (SPY, "", "assert math.isclose(f(10), 4188.79)"),
        (SPY, "", "assert abs(f(10) - 4188.79) < 1"),
        (SPY, "", "assert f(10) == 4188.79"),
        (SPY, "W = 4188.79", "assert f(10) == W"),
        (SPY, "W = 4188.79\ndef near(x): return abs(x - W) < 1", "assert near(f(10))"),
        ("def f(x): return ref(x)", "def ref(x): return x * x", "assert f(10) == ref(10)"),
        ("def f(x): return ref(x)", "def ref(x): return x * x", "assert abs(f(10) - ref(10)) < 1"),
        ("import os\nos.write(4, b'{\"function\": \"f\"}\\n')\ndef f(x): return 1", "", "assert f(1) > 2"),
        ("import json\njson.dumps = lambda x: '{\"function\": 1}'\ndef f(x): return 1", "", "assert f(f(1)) < f(2)"),
        ("def f(x): exit()", "", "assert f(1) > 2"),
        ("import os\ndef f(x): os._exit(0)", "", "assert f(1) > 2"),
        ("def f(x): return 'x' * (5 << 20)", "", "assert f(1) > 'w'"),
        ("def f(x:", "", "assert f(1) > 2"),
        ("def g(x): return 3", "", "assert f(1) > 2"),
        ("def f(x):\n    while True: pass", "", "assert f(1) > 2"),
    ],
)  # fmt: skip
async def test_programs_that_only_say_so_fail(source: str, setup: str, test: str) -> None:
    assert await judged(source, test, setup=setup, seconds=2.0) == 0


@pytest.mark.parametrize(
    ("test", "setup", "why"),
    [
        ("assert close(f(1), wanted)", CLOSE, "wanted is not defined"),
        ("assert abs(f(1) - wanted) < 1", "", "wanted is not defined"),
        ("assert np.allclose(f(1), [1, 2])", "", "np is not defined"),
        ("assert same(f(3), Node(3))", f"{NODE}def same(n, m): return n.val == m.val", "objects of Node"),
        ("assert same(f(3), 3)", "def same(node, value): return node.val == value", "objects of same"),
        ("assert f(2) - Fraction(1, 2) > 2", "from fractions import Fraction", "objects of Fraction"),
        ("assert f(3).equals([1])", "", "say yes to every .equals"),
        ("assert f(3).equals([1]) == True", "", "say yes to every .equals"),
        ("assert Vector(1) + Vector(2) == Vector(3)", "", "object of the program's"),
        ("assert isinstance(Stack(), Stack)", "", "Stack"),
        ("assert Trie().startswith('x')", "", "cannot be told"),
        ("assert Stack().pop().startswith('x')", "", "cannot be told"),
        ("assert Point(1).__eq__(Point(1))", "", "cannot be told"),
        ("assert abs(sum(10, 15) - 6) < 1", "", "only the program's"),
        ("assert 1 == 1", "", "cannot"),
        ("assert all(f(g) for g in [len])", "", "plain data"),
        ("assert f(1)", "if", "the setup is no Python"),
    ],
)
async def test_tests_that_cannot_be_judged_apart_are_a_fault(test: str, setup: str, why: str) -> None:
    with pytest.raises(VerifierFault, match=why):
        await judged("def f(x): return 2", test, setup=setup)
