"""Assertions about a program: what the program computes of one, and what is computed where it cannot reach.

    assert f(2) == 4                the program computes f(2); 4 is computed without it; the verifier compares
    assert isclose(f(2), 4.1)       a judge in a process of its own computes it, and asks the program for f(2)

Names that neither the setup nor Python defines are the program's.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module

from rollforge.errors import VerifierFault
from rollforge.sandbox.inside.trials import GIVEN, MODULES
from rollforge.verify.code_check import Check


@dataclass(frozen=True, slots=True)
class Assertions:
    given: tuple[str | Check, ...]
    """What the program makes of each: an expression of its own, or one for the judge."""
    wanted: tuple[str, ...]
    """What that must be: expressions, to be computed without the program."""
    shown: str
    """The part of the setup that goes after the program: without what only the judge or the expected values need."""


def read_assertions(asserts: Sequence[str], setup: str) -> Assertions:
    """Raises `VerifierFault` for what is no assertion, and for one that cannot be judged apart from the program."""
    try:
        statements = ast.parse(setup).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise VerifierFault(f"the setup is no Python ({error}): {setup!r:.100}") from None
    ours = frozenset[str]().union(*map(_defined, statements))
    theirs = frozenset(_names(statements) - _bound(statements) - _KNOWN)
    found: list[tuple[ast.expr | Check, str]] = []
    asked: list[ast.expr] = []
    for text in asserts:
        test = _test(text)
        try:
            found.append(_Reader(text, statements, ours, theirs, asked).read(test))
        except RecursionError:
            raise VerifierFault(f"the test {text[:100]!r} is nested too deeply") from None
    asked += [given for given, _ in found if not isinstance(given, Check)]
    shown = _shown(statements, _names(asked), _names(map(_test, asserts)))
    after = ast.unparse(ast.Module(shown, [])) if len(shown) < len(statements) else setup
    return Assertions(
        tuple(
            Check("", "", setup, given.expression, after, given.names) if isinstance(given, Check) else ast.unparse(given)
            for given, _ in found
        ),
        tuple(wanted for _, wanted in found),
        after,
    )


def _test(text: str) -> ast.expr:
    try:
        [statement] = ast.parse(text.strip()).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise VerifierFault(f"the test {text!r:.100} is no assertion") from None
    if not isinstance(statement, ast.Assert):
        raise VerifierFault(f"the test {text!r:.100} is no assertion")
    return statement.test


class _Reader(ast.NodeTransformer):
    """Reads one assertion; as a transformer, it puts questions to the program in the place of the program's parts."""

    def __init__(
        self, text: str, setup: Sequence[ast.stmt], ours: frozenset[str], theirs: frozenset[str], asked: list[ast.expr]
    ) -> None:
        self.text, self.setup, self.ours, self.theirs, self.asked = text, setup, ours, theirs, asked
        self.objects = _NO_DATA | {one.name for one in setup if isinstance(one, ast.ClassDef)}
        self.names: frozenset[str] = frozenset()
        self.bound: frozenset[str] = frozenset()
        self.called: set[str] = set()
        self.passed: set[int] = set()
        self.guessable = True
        """Whether "yes" is what is expected, or nothing."""

    def read(self, test: ast.expr) -> tuple[ast.expr | Check, str]:
        self.bound = frozenset(_bound([test]))
        self.names = frozenset(_names([test]) - self.bound - self.ours - _KNOWN) or self._called(test)
        calls = [node for node in ast.walk(test) if isinstance(node, ast.Call)]
        self.called = {root.id for call in calls if isinstance(root := _chain(call)[0], ast.Name)} & self.names
        for call in calls:
            over = call.args[:1] if isinstance(call.func, ast.Name) and call.func.id in ("map", "filter") else []
            self.passed |= {id(node) for node in (*over, *(word.value for word in call.keywords if word.arg == "key"))}
        if isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], (ast.Eq, ast.Is)):
            left, right = test.left, test.comparators[0]
            if self._has(right) and not self._has(left):
                left, right = right, left
            if not self._has(right) or not self.names & _names([right]) <= self.called:  # what is missing there is a fault
                self.guessable = isinstance(right, ast.Constant) and isinstance(right.value, (bool, type(None)))
                alone = self._tells_nothing(left) if self.names else any(isinstance(one, ast.Call) for one in ast.walk(left))
                return (left if alone else self._judged(left)), ast.unparse(right)
        wanted = "True"
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            test, wanted = test.operand, "False"
        said = ast.Call(ast.Name("bool", ast.Load()), [test], [])
        return (said if self._tells_nothing(test) else self._judged(said)), wanted

    def _called(self, test: ast.expr) -> frozenset[str]:
        """Where all names are known, the program's function has the name of one: the only one that is called."""
        if isinstance(test, ast.Compare):
            sides = [self._called(side) for side in (test.left, *test.comparators)]
            return next((side for side in sides if side), frozenset())
        calls = [node.func.id for node in ast.walk(test) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
        called = frozenset(calls) - self.ours - self.bound - {"isclose"}
        given = called - _BUILTINS
        return next((names for names in (given, called) if len(names) == 1), frozenset())

    def _has(self, node: ast.AST) -> bool:
        return not self.names.isdisjoint(_names([node]))

    def _judged(self, node: ast.expr) -> Check:
        if not self.names and not (self.theirs and _names([node]) & self.ours):
            raise self._fault("it calls nothing that is only the program's")
        reached = _reached(self.setup, _names([node]))
        if objects := sorted(self.objects & reached | {name for name in reached & self.ours if self._looks_into(name)}):
            raise self._fault(f"the objects of {objects[0]} cannot be handed from the one to the other")
        expression = ast.unparse(ast.fix_missing_locations(self.visit(node)))
        functions = sorted(name for name in self.theirs if not _is_class(name))
        return Check("", "", "", expression, "", tuple(functions))

    def visit(self, node: ast.AST) -> ast.AST:
        if isinstance(node, ast.expr) and self._has(node) and self._tells_nothing(node):
            return self._question(node)
        return super().visit(node)  # type: ignore[no-any-return]

    def _question(self, node: ast.expr) -> ast.expr:
        if isinstance(node, ast.Name) and (self.called or len(self.names) > 1) and id(node) not in self.passed:
            raise self._fault(f"{node.id} is not defined; what a test needs beside the program goes into setup")
        maker = node.func if isinstance(node, ast.Call) else node
        if isinstance(maker, ast.Name) and maker.id in self.names and _is_class(maker.id):
            raise self._fault(f"{ast.unparse(node)[:60]} is an object of the program's, which only the program can judge")
        self.asked.append(node)
        mine = sorted(_names([node]) & self.bound - _bound([node]))
        values = ast.Dict([ast.Constant(name) for name in mine], [ast.Name(name, ast.Load()) for name in mine])
        return ast.Call(ast.Name("__program__", ast.Load()), [ast.Constant(ast.unparse(node)), values], [])

    def _is_part(self, node: ast.expr) -> bool:
        """Whether all of it is the program's: a call of its function, or what only an object of its own can answer.

        What texts and lists can answer is not, of the result of a function: a type of its own could say yes to everything.
        """
        chain = _chain(node)
        root, steps = chain[0], chain[1:]
        if not (isinstance(root, ast.Name) and root.id in self.names):
            return False
        first = next((place for place, step in enumerate(steps) if isinstance(step, ast.Call)), None)
        if first is None:
            return not any(isinstance(step, ast.Attribute) and _is_special(step.attr) for step in steps)
        made = first == 0 and _is_class(root.id)
        if first and not _is_class(root.id) and any(self._has(argument) for argument in _arguments(steps[first])):
            raise self._fault(f"{root.id} is not defined; what a test needs beside the program goes into setup")
        own = made  # the first method of an object that the test makes is its own, whatever its name
        for before, step in zip(steps[first:], steps[first + 1 :], strict=False):
            if isinstance(step, ast.Attribute) and (
                _is_special(step.attr) or step.attr in (_PREDICATES if own else _METHODS)
            ):
                if made and (own or root.id != "Solution"):
                    raise self._fault(f"whether .{step.attr} is the program's or of what {root.id} returns cannot be told")
                return False
            if isinstance(step, ast.Call) and isinstance(before, ast.Attribute):
                if not made and _arguments(step) and self.guessable:
                    raise self._fault(f"what {root.id} returns could say yes to every .{before.attr}")
                own = False
        return True

    def _tells_nothing(self, node: ast.expr) -> bool:
        """Whether the program may compute it though not all of it is its own: it says nothing of what is expected."""
        if self._is_part(node):
            return True
        if isinstance(node, (ast.List, ast.Tuple)):
            return bool(node.elts) and all(map(self._tells_nothing, node.elts))
        if isinstance(node, ast.Subscript):
            plain = not any(isinstance(one, (ast.Name, ast.Call)) for one in ast.walk(node.slice))
            return plain and self._tells_nothing(node.value)
        if isinstance(node, ast.Compare):
            nothing = [isinstance(one, ast.Constant) and one.value is None for one in node.comparators]
            return all(nothing) and self._tells_nothing(node.left)
        if not isinstance(node, ast.Call) or any(map(self._has, node.keywords)):
            return False
        if isinstance(node.func, ast.Attribute):
            plain = node.func.attr in _VIEWS and not node.args and not node.keywords
            return plain and self._tells_nothing(node.func.value)
        if not isinstance(node.func, ast.Name):
            return False
        name = node.func.id
        if name == "map" and len(node.args) == 2 and isinstance(node.args[0], ast.Name):
            return node.args[0].id in _SHAPES and self._tells_nothing(node.args[1])
        ours = name in self.ours and not self.guessable and self._looks_into(name)
        fine = len(node.args) == 1 and (ours or name in _SHAPES)
        digits = name == "round" and len(node.args) == 2 and isinstance(node.args[1], ast.Constant)
        return (fine or digits) and self._tells_nothing(node.args[0])

    def _looks_into(self, name: str) -> bool:
        """Whether a function of the setup reads what no text, list or number has: it is given objects."""
        bodies = [one for one in self.setup if isinstance(one, ast.FunctionDef) and one.name in _reached(self.setup, {name})]
        read = (one for body in bodies for one in ast.walk(body) if isinstance(one, ast.Attribute))
        roots = ((_chain(one)[0], one.attr) for one in read)
        return any(
            attribute not in _METHODS and not (isinstance(root, ast.Name) and root.id in self.ours | _KNOWN)
            for root, attribute in roots
        )

    def _fault(self, why: str) -> VerifierFault:
        return VerifierFault(
            f"the test {self.text!r:.100} cannot be judged apart from the program ({why}); write it as assert CALL == VALUE"
        )


_STEPS = (ast.Call, ast.Attribute, ast.Subscript)


def _chain(node: ast.expr) -> list[ast.expr]:
    """`a`, `a.b`, `a.b(1)` of `a.b(1)`."""
    chain = [node]
    while isinstance(node, _STEPS):
        node = node.func if isinstance(node, ast.Call) else node.value
        chain.append(node)
    return chain[::-1]


def _arguments(node: ast.expr) -> list[ast.AST]:
    return [*node.args, *node.keywords] if isinstance(node, ast.Call) else []


def _is_special(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def _is_class(name: str) -> bool:
    """As names of classes are written; there is no other way to know."""
    return name[:1].isupper() and "_" not in name and (not name.isupper() or len(name) == 1)


def _names(nodes: Iterable[ast.AST]) -> set[str]:
    """That are read."""
    found = (one for node in nodes for one in ast.walk(node) if isinstance(one, ast.Name))
    return {one.id for one in found if isinstance(one.ctx, ast.Load)}


def _bound(nodes: Iterable[ast.AST]) -> set[str]:
    found: set[str] = set()
    for node in (inner for one in nodes for inner in ast.walk(one)):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            found.add(node.id)
        elif isinstance(node, _DEFINITIONS):
            found.add(node.name)
        elif isinstance(node, ast.arg):
            found.add(node.arg)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            found.add(node.name)
        elif isinstance(node, ast.ImportFrom) and node.names[0].name == "*":
            found.update(dir(import_module(node.module)) if node.module in MODULES.split() else ())
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            found.update((one.asname or one.name).partition(".")[0] for one in node.names)
    return found


def _defined(statement: ast.stmt) -> set[str]:
    """Names that a statement of the setup gives."""
    return {statement.name} if isinstance(statement, _DEFINITIONS) else _bound([statement])


def _shown(setup: Sequence[ast.stmt], asked: set[str], used: set[str]) -> list[ast.stmt]:
    """The setup without what the tests use, directly or not, and no call of the program's part does."""
    asked, used = _reached(setup, asked), _reached(setup, used)
    hidden = used - asked
    for one in setup:  # what is made of these
        if not isinstance(one, _DEFINITIONS) and hidden & _names([one]) and not asked & _changed(one):
            hidden |= _changed(one)
    return [one for one in setup if not _changed(one) or not _changed(one) <= hidden]


def _reached(setup: Sequence[ast.stmt], names: set[str]) -> set[str]:
    found = set(names)
    while more := {name for one in setup if found & _changed(one) for name in _names([one])} - found:
        found |= more
    return found


def _changed(statement: ast.stmt) -> set[str]:
    """Names that a statement of the setup gives, or whose values it may change; none for an import."""
    if isinstance(statement, (ast.Import, ast.ImportFrom)):
        return set()
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", statement)]
    plain = isinstance(statement, (ast.Assign, ast.AnnAssign)) and not any(
        isinstance(one, (ast.Subscript, ast.Attribute)) for target in targets for one in ast.walk(target)
    )
    others = set() if plain or isinstance(statement, _DEFINITIONS) else _names([statement]) - _KNOWN
    return _defined(statement) | others


_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_BUILTINS = frozenset(dir(builtins))
_KNOWN = _BUILTINS | {name for names in GIVEN.values() for name in names.split()} | set(MODULES.split())
_NAMES_OF_SHAPES = (
    "list tuple set frozenset dict sorted reversed str repr int float complex len round sum max min abs next iter "
    "Counter OrderedDict"
)
"""What is made of a result before it is compared."""
_SHAPES = frozenset(_NAMES_OF_SHAPES.split())
_NO_DATA = frozenset(["Decimal", "Fraction", "date", "datetime", "timedelta", "np", "numpy", "pd", "pandas"])
_NAMES_OF_VIEWS = "items keys values tolist item copy"
_VIEWS = frozenset(_NAMES_OF_VIEWS.split())
_METHODS = frozenset(
    name for kind in (str, bytes, int, float, list, tuple, dict, set) for name in dir(kind) if not _is_special(name)
)
_PREDICATES = frozenset(name for name in _METHODS if name.startswith("is") or name.endswith("with"))
