"""The commands of a shell script as bash would start them, with the variables and arrays that the script itself sets.

Nothing is run. What only running tells (`$(...)`, arguments, the environment, a variable set in a branch) stays as it is
written, with its `$`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Command:
    line: int
    """Where it begins, from 1."""
    words: tuple[str, ...]

    def split(self, wanted: str) -> tuple[tuple[str, ...], re.Match[str], tuple[str, ...]]:
        """The words before the first in which the pattern is found, what was found, and the words after it."""
        at, found = next((at, found) for at, word in enumerate(self.words) if (found := re.search(wanted, word)))
        return self.words[:at], found, self.words[at + 1 :]


@dataclass(frozen=True, slots=True)
class Script:
    commands: list[Command]
    unread: int = 0
    """The line where a quote or bracket opens that never closes, and reading ended; 0: none."""


UNREAD = "a quote or bracket that opens here never closes: what follows was not looked at"


@dataclass(frozen=True, slots=True)
class Options:
    """What a command is started with, as far as its script says."""

    values: Mapping[str, Any]
    whole: bool = True
    """False: there are more, which only running tells; then nothing is known to be absent."""

    def get(self, name: str) -> Any:
        """None: not given, or not known."""
        value = self.values.get(name)
        return value if known(value) else None

    def absent(self, name: str) -> bool:
        return self.whole and self.values.get(name) is None

    def shown(self, name: str, value: int) -> str:
        """A number and whether it is the default, for messages."""
        return f"{name} is {value}{'' if name in self.values else ' unless set'}"

    def number(self, name: str, default: int) -> int | None:
        """Of at least 1; the default where it is not given, None where it is not known."""
        if self.absent(name):
            return default
        try:
            return max(int(self.values[name]), 1)
        except (KeyError, TypeError, ValueError):
            return None


def known(value: Any) -> bool:
    return not isinstance(value, str) or not ("$" in value or "`" in value)


OVERRIDE = re.compile(r"(~?\+{0,2}[A-Za-z_][\w@]*(?:[./][\w@]+)*)=(.*)", re.DOTALL)


def overrides(words: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """(key, value) of the Hydra overrides among the words of a command; `+`, `++` stay on the key."""
    import yaml

    for word in words:
        if (found := OVERRIDE.fullmatch(word)) and not word.startswith("~"):
            try:
                value = yaml.safe_load(found[2])
            except yaml.YAMLError:
                value = found[2]
            yield found[1], value


def elsewhere(words: Sequence[str]) -> bool:
    """Whether what begins a command hands it to a container or a cluster, whose files are not those here."""
    return any(re.search(r"(^|/)docker$|^--container-|^submit$", word) for word in words)


def made_for(text: str, framework: str) -> str:
    """For which version of a framework an export wrote a script, as its head says; "" for anybody's."""
    found = re.match(rf"#![^\n]*\n# {framework} ([\d.]+):", text)
    return found[1] if found else ""


def read_script(text: str, wanted: str) -> Script:
    """The commands with a word in which the pattern `wanted` is found, those within quotes (`bash -c "..."`) and
    here-documents too."""
    reader = _Reader(text.replace("\r\n", "\n"), re.compile(wanted), {}, 1)
    try:
        reader.read()
    except _Unclosed as error:
        return Script(reader.found, reader.line_of(error.args[0]))
    return Script(reader.found, reader.unread)


class _Unclosed(Exception):
    """(where it opens)"""


_Value = str | list[str] | None
_OPEN, _CLOSE = {"if", "case", "for", "while", "until", "select", "{"}, {"fi", "esac", "done", "}"}
_BEFORE = {*_OPEN, *_CLOSE, "then", "else", "elif", "do", "!", "export", "readonly", "local", "declare", "typeset"}
"""After which a command, or an assignment, may begin."""
_NAME = re.compile(r"[A-Za-z_]\w*")
_SETS = re.compile(r"([A-Za-z_]\w*)(\+?)=")
_PLAIN = re.compile(r"[^\s'\"\\$`;|&()<>]+")
_LONGEST = 1 << 16
"""Of a variable's text, or words of an array: a script could double it line by line."""
_DEEPEST = 4
"""Quotes within quotes."""
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}


class _Reader:
    def __init__(self, text: str, wanted: re.Pattern[str], variables: dict[str, _Value], line: int, level: int = 0) -> None:
        self.text, self.wanted, self.variables, self.first, self.level = text, wanted, variables, line, level
        self.at = 0
        self.depth = 0
        """Of blocks: what is set in one may not be."""
        self.sure = True
        """False after `&&` and `||`."""
        self.found: list[Command] = []
        self.unread = 0
        """The line where a quote within quotes, or in a here-document, opens and never closes."""

    def line_of(self, place: int) -> int:
        return self.first + self.text.count("\n", 0, place)

    def read(self) -> None:
        words: list[str] = []
        start = 0
        documents: list[str] = []
        while self.at < len(self.text):
            char = self.text[self.at]
            if char in " \t":
                self.at += 1
            elif self.text.startswith("\\\n", self.at):
                self.at += 2
            elif char == "#":
                self._comment()
            elif char in "<>" or self.text.startswith("&>", self.at):
                documents += self._redirected(words)
            elif char in "\n;|&()":
                self._end(start, words)
                words = []
                self.sure = not self.text.startswith(("&&", "||"), self.at)
                self.at += 1 if self.sure else 2
                if char == "\n":
                    for end in documents:
                        self._document(end)
                    documents = []
            elif words or not self._assigned():
                start = start if words else self.at
                words += self._word(" \t\n;|&()<>")
                if len(words) == 1 and words[0] in _BEFORE:
                    self._keyword(words.pop())
        self._end(start, words)

    def _comment(self) -> None:
        end = self.text.find("\n", self.at)
        self.at = len(self.text) if end < 0 else end

    def _keyword(self, word: str) -> None:
        self.depth += (word in _OPEN) - (word in _CLOSE)
        if word in ("for", "select") and (name := re.compile(r"\s*([A-Za-z_]\w*)").match(self.text, self.at)):
            self.variables[name[1]] = None

    def _end(self, start: int, words: list[str]) -> None:
        if words[:1] == ["read"]:
            self.variables.update(dict.fromkeys(word for word in words[1:] if _NAME.fullmatch(word)))
        if words[:1] in (["echo"], ["printf"]):
            return
        named = [word for word in words if self.wanted.search(word)]
        scripts = [word for word in named if re.search(r"\s", word.strip())]
        if len(named) > len(scripts):
            self.found.append(Command(self.line_of(start), tuple(words)))
        for word in scripts:
            self._within(word, self.line_of(start))

    def _document(self, end: str) -> None:
        close = re.compile(rf"^\t*{re.escape(end)}$", re.MULTILINE).search(self.text, self.at)
        body = self.text[self.at : close.start() if close else len(self.text)]
        if self.wanted.search(body):
            self._within(body, self.line_of(self.at))
        self.at = close.end() if close else len(self.text)

    def _within(self, text: str, line: int) -> None:
        if self.level == _DEEPEST:
            return
        inner = _Reader(text, self.wanted, self.variables, line, self.level + 1)
        try:
            inner.read()
        except _Unclosed as error:
            inner.unread = inner.line_of(error.args[0])
        self.found += inner.found
        self.unread = self.unread or inner.unread

    def _redirected(self, words: list[str]) -> list[str]:
        """Passes over a redirection; the end of a here-document, if it is one."""
        if words and words[-1].isdecimal() and self.text[self.at - 1].isdecimal():
            words.pop()
        found = re.compile(r"&>>?|<<<|<<-?|[<>]\(|<>|[<>]&|>>|>\||[<>]").match(self.text, self.at)
        assert found
        self.at = found.end()
        if found[0].endswith("("):
            self.at = self._closing(self.at - 1)
            words.append("$(...)")
            return []
        while self.text.startswith((" ", "\t", "\\\n"), self.at):
            self.at += 2 if self.text[self.at] == "\\" else 1
        begin = self.at
        target = self._word(" \t\n;|&()<>")
        return [re.sub(r"[\\'\"]", "", self.text[begin : self.at])] if found[0] in ("<<", "<<-") and target else []

    def _assigned(self) -> bool:
        found = _SETS.match(self.text, self.at)
        if found is None:
            return False
        self.at = found.end()
        value: _Value = (
            self._array() if self.text.startswith("(", self.at) else "".join(self._word(" \t\n;|&()<>", split=False))
        )
        if self.depth or not self.sure:
            value = None
        elif found[2]:
            before = self.variables.get(found[1])
            alike = isinstance(before, str) and isinstance(value, str)
            both = isinstance(before, list) and isinstance(value, list)
            value = before + value if alike or both else None  # type: ignore[operator]
        self.variables[found[1]] = None if value is not None and len(value) > _LONGEST else value
        return True

    def _array(self) -> list[str]:
        begin = self.at
        found: list[str] = []
        self.at += 1
        while self.at < len(self.text):
            char = self.text[self.at]
            if char == ")":
                self.at += 1
                return found
            if char.isspace() or self.text.startswith("\\\n", self.at):
                self.at += 1 if char.isspace() else 2
            elif char == "#":
                self._comment()
            else:
                before = self.at
                found += self._word(" \t\n)")
                self.at += self.at == before
        raise _Unclosed(begin)

    def _word(self, ends: Collection[str], split: bool = True) -> list[str]:
        """The word that begins here: several for a variable with blanks or an array, none for an empty one."""
        fields: list[str] = []
        open_ = False  # whether the last field goes on

        def add(text: str) -> None:
            nonlocal open_
            if open_:
                fields[-1] += text
            else:
                fields.append(text)
            open_ = True

        def several(texts: list[str]) -> None:
            nonlocal open_
            for number, one in enumerate(texts):
                open_ = open_ and not number
                add(one)

        while self.at < len(self.text) and self.text[self.at] not in ends:
            char, here = self.text[self.at], self.at
            if char == "\\":
                self.at += 2
                if self.text[here + 1 : here + 2] != "\n":
                    add(self.text[here + 1 : here + 2])
            elif char == "'":
                add(self._until("'", here))
            elif char == '"':
                several(self._double())
            elif self.text.startswith("$'", here):
                found = re.compile(r"\$'((?:[^'\\]|\\.)*)'", re.DOTALL).match(self.text, here)
                if found is None:
                    raise _Unclosed(here)
                self.at = found.end()
                add(re.sub(r"\\(.)", lambda m: _ESCAPES.get(m[1], m[1]), found[1]))
            elif char in "$`":
                value = self._value()
                if isinstance(value, list):
                    several([word for one in value for word in _split(one)] if split else [" ".join(value)])
                else:
                    several(_split(value) if split else [value])
            elif plain := _PLAIN.match(self.text, here):
                self.at = plain.end()
                add(plain[0])
            else:
                self.at += 1
                add(char)
        return fields

    def _until(self, quote: str, begin: int) -> str:
        end = self.text.find(quote, begin + 1)
        if end < 0:
            raise _Unclosed(begin)
        self.at = end + 1
        return self.text[begin + 1 : end]

    def _double(self) -> list[str]:
        """A text in double quotes; an array in it may make several words of it, or none."""
        begin, fields, some = self.at, [""], False
        self.at += 1
        while self.at < len(self.text):
            char, here = self.text[self.at], self.at
            if char == '"':
                self.at += 1
                return fields if some or here == begin + 1 else []
            some = some or char not in "$`"
            if char == "\\" and self.text[here + 1 : here + 2] in ("$", "`", '"', "\\", "\n"):
                fields[-1] += self.text[here + 1].strip("\n")
                self.at += 2
            elif char in "$`":
                value = self._value()
                several = value if isinstance(value, list) else [value]
                some = some or bool(several)
                fields[-1:] = [fields[-1] + several[0], *several[1:]] if several else fields[-1:]
            else:
                fields[-1] += char
                self.at += 1
        raise _Unclosed(begin)

    def _value(self) -> str | list[str]:
        """What stands for `$...` here; the source itself where that is not known."""
        begin, text = self.at, self.text
        if text[begin] == "`":
            return f"`{self._until('`', begin)}`"
        if text.startswith("$(", begin):
            self.at = self._closing(begin + 1)
        elif text.startswith("${", begin):
            self.at = self._closing(begin + 1)
            return self._braced(text[begin + 2 : self.at - 1], text[begin : self.at])
        elif name := _NAME.match(text, begin + 1):
            self.at = name.end()
            return self._variable(name[0], text[begin : self.at])
        else:
            special = re.compile(r"\$[0-9@*#?!$-]?").match(text, begin)
            assert special
            self.at = special.end()
            if special[0] in ("$@", "$*"):
                return []  # as the script is started without arguments
        return text[begin : self.at]

    def _variable(self, name: str, source: str) -> str | list[str]:
        value = self.variables.get(name)
        if isinstance(value, list):
            return value[0] if value else ""
        return source if value is None else value

    def _braced(self, inner: str, source: str) -> str | list[str]:
        if re.match(r"[@*]", inner):
            return []
        if found := re.fullmatch(r"(\w+)\[[@*]\]", inner):
            value = self.variables.get(found[1])
            return source if value is None else [value] if isinstance(value, str) else value
        found = re.fullmatch(r"(\w+)(?:(:?[-=])(.*))?", inner, re.DOTALL)
        if found is None:
            return source
        name, sets, default = found.groups()
        if sets is None or self.variables.get(name) is not None:
            return self._variable(name, source)
        if name in self.variables:
            return source  # set in a branch
        value = "".join(_Reader(default, self.wanted, self.variables, 1)._word("", split=False))
        if sets.endswith("=") and not self.depth:
            self.variables[name] = value
        return value

    def _closing(self, begin: int) -> int:
        """The place after the bracket that closes the one at `begin`."""
        opens = self.text[begin]
        closes = {"(": ")", "{": "}"}[opens]
        depth, at = 0, begin
        while at < len(self.text):
            char = self.text[at]
            if char == "\\":
                at += 1
            elif char == '"' or (char == "'" and opens == "("):
                at = self._quoted(at)
            depth += (char == opens) - (char == closes)
            at += 1
            if not depth:
                return at
        raise _Unclosed(begin)

    def _quoted(self, begin: int) -> int:
        """The place of the quote that closes the one at `begin`."""
        found = re.compile(r"'[^']*'|\"(?:[^\"\\]|\\.)*\"", re.DOTALL).match(self.text, begin)
        if found is None:
            raise _Unclosed(begin)
        return found.end() - 1


def _split(value: str) -> list[str]:
    """The words of a variable without quotes around it."""
    return value.split() if known(value) else [value]
