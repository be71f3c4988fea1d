"""The grammar of filter expressions: text in, nodes out, and errors that point at the character.

or < and < not < comparisons (chained, in, not in) < + - < * / < - < names, literals, lists, calls
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any, Literal, NoReturn

from rollforge.curate.facts import ABOUT, GROUP, ROOTS, Field, Path, fact
from rollforge.curate.step import Fact
from rollforge.errors import UserError

Kind = Literal["value", "name", "list", "or", "and", "not", "compare", "arith", "neg", "call"]

DEEPEST = 60
"""Levels of nesting; more is a mistake, and would exhaust Python's stack."""


class ExpressionError(UserError):
    """Shows the expression on a line of its own, and below it points at the mistake."""

    def __init__(self, text: str, at: int, end: int, what: str) -> None:
        shown = "".join(c if c.isprintable() else " " for c in text)
        cut = at - 60 if len(shown) > 100 and at > 60 else 0
        place = at - cut + (3 if cut else 0)
        shown = ("..." if cut else "") + shown[cut : cut + 100] + ("..." if len(shown) > cut + 100 else "")
        marks = "^" * max(1, min(end - at, len(shown) - place))
        super().__init__(f"{what}\n  {shown}\n  {' ' * place}{marks}")
        self.at = at


@dataclass(frozen=True, slots=True)
class Node:
    """A part of an expression. Picklable: workers make functions of it again."""

    kind: Kind
    text: str
    """As written."""
    at: int = field(compare=False)
    """The same part in two expressions is equal."""
    parts: tuple[Node, ...] = ()
    name: str = ""
    """Of a name, a function, an operator."""
    value: Any = None
    """A literal; the operators of a comparison; a pattern; the fact of a name."""
    depth: int = 1

    def names(self) -> Iterator[Node]:
        if self.kind == "name":
            yield self
        for part in self.parts:
            yield from part.names()


def parse(text: str) -> Node:
    """Raises `ExpressionError` that points at an unknown name, or at what is no expression."""
    return _Parser(text).whole()


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    """number, string, name, op, end."""
    text: str
    at: int

    @property
    def end(self) -> int:
        return self.at + len(self.text)


_TOKEN = re.compile(
    r"""\s*(?:
      (?P<number>(?:\d[\d_]*(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?(?!\w))
    | (?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    | (?P<name>[^\W\d]\w*)
    | (?P<op>===|!==|=>|=<|<>|<=|>=|==|!=|\*\*|&&|\|\||//|[-+*/<>()\[\],.=!&|%~^?:;{}≤≥≠])
    )""",
    re.VERBOSE | re.DOTALL,
)
_INSTEAD = {
    "=": "==",
    "===": "==",
    "!==": "!=",
    "<>": "!=",
    "=>": ">=",
    "=<": "<=",
    "&&": "and",
    "&": "and",
    "||": "or",
    "|": "or",
    "!": "not",
    "~": "not",
    "is": "==",
    "≤": "<=",
    "≥": ">=",
    "≠": "!=",
}
_A_LIST = "write a list in square brackets: [0, 1]"
_CONSTANTS = {"true": True, "false": False, "null": None, "none": None}
_WORDS = ("and", "or", "not", "in", "is", "if", "else", "lambda", "for")
_BEFORE_TEXT = ("==", "!=", "in", "[", ",")
_NOT_OF_A_ROW = frozenset(("reward", "source", *GROUP))
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", '"': '"', "'": "'"}
_ARITY = {
    "len": (1, 1),
    "lower": (1, 1),
    "contains": (2, 2),
    "matches": (2, 2),
    "min": (1, 99),
    "max": (1, 99),
    "abs": (1, 1),
}


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = list(self._split())
        self.at = 0
        self.level = 0

    def whole(self) -> Node:
        if self.token.kind == "end":
            self.fail(self.token, "there is no expression; one is for example: reward >= 0.8 and not truncated")
        node = self.either()
        if self.token.kind != "end":
            self.unexpected(self.token)
        return node

    @property
    def token(self) -> _Token:
        return self.tokens[self.at]

    def take(self, *texts: str) -> _Token | None:
        token = self.token
        if token.text in texts and token.kind in ("op", "name"):
            self.at += 1
            return token
        return None

    def need(self, text: str, opened: _Token) -> _Token:
        found = self.take(text)
        if found is None:
            if self.token.kind == "end":
                self.fail(opened, f"this {opened.text} is never closed")
            if text == ")" and self.token.text == ",":
                self.fail(opened, _A_LIST)
            self.unexpected(self.token)
        return found

    def fail(self, token: _Token, what: str) -> NoReturn:
        raise ExpressionError(self.text, token.at, token.end, what)

    def unexpected(self, token: _Token) -> NoReturn:
        if token.kind == "end":
            self.fail(token, "the expression ends too early")
        lower = token.text.lower()
        before, after = self.beside(token)
        if lower == "is" and after.text.lower() == "not":
            self.fail(replace(token, text=self.text[token.at : after.end]), "write !=")
        if lower == "=" and before.text in ("<", ">"):
            self.fail(replace(before, text=self.text[before.at : token.end]), f"write {before.text}= without a space")
        instead = _INSTEAD.get(token.text) or (lower if lower != token.text and lower in _WORDS else None)
        self.fail(token, f"write {instead}" if instead else "not expected here")

    def beside(self, token: _Token) -> tuple[_Token, _Token]:
        """What stands before and behind it."""
        at = self.tokens.index(token)
        return self.tokens[max(at - 1, 0)], self.tokens[min(at + 1, len(self.tokens) - 1)]

    def _split(self) -> Iterator[_Token]:
        at, text = 0, self.text
        while at < len(text):
            found = _TOKEN.match(text, at)
            if found is None:
                at += len(text[at:]) - len(text[at:].lstrip())
                if at == len(text):
                    break
                quote = text[at] in "\"'"
                what = (
                    "this quote is never closed" if quote else "not a number" if text[at].isdigit() else "not expected here"
                )
                raise ExpressionError(text, at, at + 1, what)
            kind = found.lastgroup
            assert kind is not None
            yield _Token(kind, found[kind], found.start(kind))
            at = found.end()
        yield _Token("end", "", len(text))

    def node(self, kind: Kind, start: int, *parts: Node, name: str = "", value: Any = None) -> Node:
        """Of the text from `start` to what was read last."""
        last = self.tokens[self.at - 1]
        depth = 1 + max((part.depth for part in parts), default=0)
        if depth > DEEPEST:
            raise ExpressionError(self.text, start, last.end, "nested too deeply")
        return Node(kind, self.text[start : last.end], start, parts, name, value, depth)

    def either(self) -> Node:
        return self.joined("or", self.both)

    def both(self) -> Node:
        return self.joined("and", self.denied)

    def joined(self, word: Literal["or", "and"], inner: Callable[[], Node]) -> Node:
        start = self.token.at
        parts = [inner()]
        while self.take(word):
            parts.append(inner())
        return self.node(word, start, *parts) if len(parts) > 1 else parts[0]

    def denied(self) -> Node:
        opened = self.take("not")
        return self.node("not", opened.at, self.deeper(self.denied, opened)) if opened else self.comparison()

    def comparison(self) -> Node:
        start = self.token.at
        parts, operators = [self.sum()], []
        while sign := self.comparator():
            operators.append(sign)
            parts.append(self.sum())
            last = parts[-1]
            if sign.endswith("in") and last.kind == "value" and not isinstance(last.value, str):
                raise ExpressionError(self.text, last.at, last.at + len(last.text), _A_LIST)
        return self.node("compare", start, *parts, value=tuple(operators)) if operators else parts[0]

    def comparator(self) -> str:
        token = self.take("<", "<=", ">", ">=", "==", "!=", "in")
        if token:
            return token.text
        if self.token.text == "not" and self.tokens[min(self.at + 1, len(self.tokens) - 1)].text == "in":
            self.at += 2
            return "not in"
        return ""

    def sum(self) -> Node:
        return self.arithmetic(self.product, "+", "-")

    def product(self) -> Node:
        return self.arithmetic(self.signed, "*", "/")

    def arithmetic(self, inner: Callable[[], Node], *signs: str) -> Node:
        start = self.token.at
        node = inner()
        while sign := self.take(*signs):
            node = self.node("arith", start, node, inner(), name=sign.text)
        return node

    def signed(self) -> Node:
        sign = self.take("-", "+")
        if sign is None:
            return self.atom()
        inner = self.deeper(self.signed, sign)
        if inner.kind == "value" and type(inner.value) in (int, float):
            return self.node("value", sign.at, value=-inner.value if sign.text == "-" else inner.value)
        return self.node("neg", sign.at, inner) if sign.text == "-" else inner

    def deeper(self, inner: Callable[[], Node], opened: _Token) -> Node:
        self.level += 1
        if self.level > DEEPEST:
            self.fail(opened, "nested too deeply")
        node = inner()
        self.level -= 1
        return node

    def atom(self) -> Node:
        token = self.token
        if token.kind == "end" or (token.kind == "op" and token.text not in ("(", "[")):
            self.unexpected(token)
        self.at += 1
        if token.kind == "number":
            return self.node("value", token.at, value=self.number(token))
        if token.kind == "string":
            return self.node("value", token.at, value=_string(token.text))
        if token.text == "(":
            inner = self.deeper(self.either, token)
            self.need(")", token)
            return inner
        if token.text == "[":
            return self.node("list", token.at, *self.listed("]", token))
        if token.text.lower() in _CONSTANTS:
            return self.node("value", token.at, value=_CONSTANTS[token.text.lower()])
        if token.text.lower() in _WORDS:
            self.unexpected(token)
        if self.token.text == "(" and self.token.kind == "op":
            return self.call(token)
        return self.path(token)

    def number(self, token: _Token) -> int | float:
        plain = token.text.replace("_", "")
        try:
            return int(plain) if plain.isdigit() else float(plain)
        except ValueError:  # Python's own limit
            self.fail(token, "a number of too many digits")

    def listed(self, end: str, opened: _Token) -> list[Node]:
        parts: list[Node] = []
        while not self.take(end):
            if parts and not self.take(","):
                self.need(end, opened)
                break
            if parts and self.take(end):
                break
            if self.token.kind == "end":
                self.fail(opened, f"this {opened.text} is never closed")
            parts.append(self.deeper(self.either, opened))
        return parts

    def call(self, token: _Token) -> Node:
        if token.text not in _ARITY:
            self.fail(token, f"unknown function; {_nearest(token.text, _ARITY)}")
        opened = self.token
        self.at += 1
        parts = self.listed(")", opened)
        least, most = _ARITY[token.text]
        if not least <= len(parts) <= most:
            wanted = f"{least}" if least == most else f"{least} or more"
            self.fail(token, f"takes {wanted} value{'s' * (wanted != '1')}, got {len(parts)}")
        pattern = self.pattern(parts[1]) if token.text == "matches" else None
        return self.node("call", token.at, *parts, name=token.text, value=pattern)

    def pattern(self, node: Node) -> re.Pattern[str]:
        end = node.at + len(node.text)
        if not isinstance(node.value, str):
            raise ExpressionError(self.text, node.at, end, "the pattern has to be a text in quotes")
        try:
            return re.compile(node.value)
        except (re.error, OverflowError, RecursionError) as error:
            at = node.at + 1 + (getattr(error, "pos", None) or 0)
            what = f"not a regular expression: {getattr(error, 'msg', error)}"
            raise ExpressionError(self.text, min(at, end - 1), at + 1, what) from None

    def path(self, token: _Token) -> Node:
        """`task.a.b`, `task["a b"]`, `task.list[0]`: one name."""
        path: list[str | int] = []
        name = token.text
        while True:
            if self.take("."):
                key = self.token
                if key.kind != "name":
                    self.fail(key, f'a field\'s name follows the dot; of any characters: {name}["..."]')
                self.at += 1
                path.append(key.text)
                name = f"{name}.{key.text}"
            elif token.text in ROOTS and (opened := self.take("[")):
                path.append(self.key())
                self.need("]", opened)
                last = path[-1]
                plain = isinstance(last, str) and last.isidentifier()
                name = f"{name}.{last}" if plain else f"{name}[{last!r}]"
            else:
                break
        return self.node("name", token.at, name=name, value=self.known(token, name, tuple(path)))

    def key(self) -> str | int:
        token, minus = self.token, self.take("-")
        token = self.token if minus else token
        self.at += token.kind != "end"
        if token.kind == "string" and not minus:
            return _string(token.text)
        if token.kind == "number" and token.text.isdigit():
            number = int(self.number(token))
            return -number if minus else number
        self.fail(token, "a field's name in quotes, or the number of a list's element, belongs here")

    def known(self, token: _Token, name: str, path: Path) -> Fact | None:
        """The fact of a name that a row knows. Raises for names that nobody does."""
        span = replace(token, text=self.text[token.at : self.tokens[self.at - 1].end])
        if token.text in ROOTS:
            if not path:
                self.fail(token, f"{token.text} needs a field: {token.text}.<name> is {ROOTS[token.text]}")
            return Field(token.text, path)
        if name in ABOUT:
            return None if name in _NOT_OF_A_ROW else fact(name)
        if path and token.text in ABOUT:
            self.fail(span, f"{token.text} has no fields")
        if token.text == "group":
            self.fail(span, f"unknown name; {_nearest(name, GROUP)}" if path else f"one of {', '.join(GROUP)} belongs here")
        near = get_close_matches(name, [*ABOUT, *ROOTS], n=1, cutoff=0.6)
        if near:
            text = f' A text is "{name}"' if self.beside(token)[0].text in _BEFORE_TEXT else ""
            self.fail(span, f"unknown name; did you mean {near[0]}?{text}")
        meant = f'a field of the row is task.{name}, a text is "{name}"'
        names = ", ".join([*(each for each in ABOUT if each not in GROUP), *(f"{root}.*" for root in ("group", *ROOTS))])
        self.fail(span, f"unknown name; {meant}; known: {names}")


def _nearest(name: str, known: Any) -> str:
    near = get_close_matches(name, known, n=2, cutoff=0.6)
    return f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"


def _string(text: str) -> str:
    """Unknown escapes stay as they are: they are a pattern's (`\\d`)."""
    return re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[0]), text[1:-1], flags=re.DOTALL)
