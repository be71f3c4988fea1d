"""The rows of a file for a trainer, one by one: JSON, the format's own rules, and what no loader says: nulls that Arrow
filled in, keys that stand twice, objects that differ after the first 10 MB.

A worker looks at a block and returns a `Part`: counts, the first lines of each kind of problem, three numbers per row.
"""

from __future__ import annotations

import json
import math
import re
from array import array
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import filterfalse, takewhile
from typing import Any, NamedTuple

import orjson

from rollforge.bulk.asked import up_to_user
from rollforge.bulk.blocks import Block
from rollforge.bulk.record import expected
from rollforge.export.mixed import Schema, cut, written
from rollforge.export.target import Level
from rollforge.export.text import of_templates
from rollforge.records.items import Json, inside
from rollforge.records.lossless import dumps, has_long_number, loads

SHOWN = 5
"""So many lines of each kind of problem are named; the others are counted."""
KINDS = 1000
"""So many kinds of problem are told apart, in a file."""
_FURTHER = f"other problems than the first {KINDS:,} kinds of them"
_NAMES = 10_000
"""Arguments of tools that are kept; they come from data."""
LONGEST = 64 << 20
"""Bytes of a line: nobody's training row is longer, and a file without line ends must not fill the memory."""


class Rewards(NamedTuple):
    low: float
    high: float
    sum: float
    rows: int

    def and_of(self, other: Rewards) -> Rewards:
        return Rewards(min(self.low, other.low), max(self.high, other.high), self.sum + other.sum, self.rows + other.rows)

    def row(self) -> Json:
        return {"rows": self.rows, "min": self.low, "max": self.high, "mean": round(self.sum / self.rows, 6)}


@dataclass(slots=True)
class Part:
    """What one block said."""

    lines: int = 0
    rows: int = 0
    longest: tuple[int, int] = (0, 0)
    """Bytes, line."""
    found: dict[str, tuple[int, list[tuple[int, Level, str]]]] = field(default_factory=dict)
    """Kind of problem -> how often, and the first lines (from 1 in the block) with level and message."""
    hashes: array[int] = field(default_factory=lambda: array("Q"))
    """Per row, three numbers: line, hash of the row, hash of its prompt."""
    nulls: dict[tuple[str, str, str], list[int]] = field(default_factory=dict)
    """(column, tool, argument) -> nulls, other values, line of the first null."""
    keys: dict[str, tuple[set[str], set[str]]] = field(default_factory=dict)
    """Column -> arguments of any call in it, those of every call."""
    answers: set[int] = field(default_factory=set)
    """At most two hashes: more than one is all that matters."""
    answered: int = 0
    labels: Counter[bool] = field(default_factory=Counter)
    """Verdicts of true and false."""
    alike: dict[str, int] = field(default_factory=dict)
    """What `Kind.alike` says of rows -> the first such line."""
    rewards: Rewards | None = None
    rendered: int = 0
    """Rows with a conversation that the chat template was given."""
    crlf: int = 0

    def differing(self) -> set[str]:
        """Columns in which calls have different arguments. Arrow gives all the calls of a column the same ones."""
        return {column for column, (some, every) in self.keys.items() if some != every}

    def say(self, line: int, level: Level, message: str, kind: str | None = None) -> None:
        self._count(kind or _kind_of(message), 1, [(line, level, message)])

    def _count(self, kind: str, count: int, lines: list[tuple[int, Level, str]]) -> None:
        if kind not in self.found and len(self.found) >= KINDS:
            # Names of columns come from data, and may be new in every row.
            level = lines[0][1]
            kind = f"further {level}"
            lines = [(line, level, _FURTHER) for line, _, _ in lines]
        before, first = self.found.get(kind, (0, []))
        self.found[kind] = (before + count, first + lines[: SHOWN - len(first)])

    def say_all(self, line: int, messages: Iterable[str]) -> int:
        """As `Kind.check` gives them. Returns how many of them are errors."""
        errors = 0
        for message in messages:
            warning = message.removeprefix("warning: ")
            errors += warning == message
            self.say(line, "error" if warning == message else "warning", warning)
        return errors

    def add(self, other: Part) -> None:
        """Another part that follows this one."""
        for kind, (count, first) in other.found.items():
            self._count(kind, count, [(line + self.lines, level, message) for line, level, message in first])
        for place in range(0, len(other.hashes), 3):
            other.hashes[place] += self.lines
        self.hashes.extend(other.hashes)
        for name, (nulls, values, line) in other.nulls.items():
            if name not in self.nulls and len(self.nulls) >= _NAMES:
                continue
            mine = self.nulls.setdefault(name, [0, 0, 0])
            mine[2] = mine[2] or (line and line + self.lines)
            mine[0] += nulls
            mine[1] += values
        for column, (some, every) in other.keys.items():
            held = self.keys.get(column)
            if held is None:
                self.keys[column] = (some, every)
                continue
            if len(held[0]) < _NAMES:
                held[0].update(some)
            held[1].intersection_update(every)
        if other.longest[0] > self.longest[0]:
            self.longest = (other.longest[0], other.longest[1] + self.lines)
        if len(self.answers) < 2:
            self.answers |= other.answers
        self.answered += other.answered
        self.labels.update(other.labels)
        for like, line in other.alike.items():
            self.alike.setdefault(like, line + self.lines)
        if other.rewards:
            self.rewards = self.rewards.and_of(other.rewards) if self.rewards else other.rewards
        self.rendered += other.rendered
        self.crlf += other.crlf
        self.lines += other.lines
        self.rows += other.rows


@lru_cache(4096)
def _kind_of(message: str) -> str:
    """The message without what is particular to the row: numbers and quoted words."""
    return _VARIES.sub("*", message)


_VARIES = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|\d+(\.\d+)?")
"""Words in quotes as `repr` writes them: quotes within have a backslash."""


@dataclass(slots=True)
class Work:
    """How rows are looked at; goes to the workers."""

    check: Callable[[Json], Iterable[str]]
    columns: Any
    by_line: bool
    alike: Callable[[Json], str | None] | None = None
    rendered: Callable[[Json], list[str] | None] | None = None
    """`Rendering.problems` with the model's chat template."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Usual name of a field -> its name in these rows."""
    schema: Schema | None = None
    """Of the first block; later rows must fit into it."""
    first_end: int = 0

    def __call__(self, block: Block) -> Part:
        part = Part()
        with open(block.file, "rb", buffering=1 << 18) as file:
            file.seek(block.start)
            at = block.start
            while at < block.end:
                line = file.readline()
                part.lines += 1
                if at == 0 and line.startswith(BOM_UTF8):
                    part.say(
                        1, "error", "the file begins with a byte order mark: remove it (sed -i '1s/^\\xEF\\xBB\\xBF//')"
                    )
                    line = line[3:]
                    at += 3
                self.line(line, part, self.schema if at >= self.first_end else None)
                at += len(line)
        return part

    def line(self, line: bytes, part: Part, schema: Schema | None) -> None:
        number = part.lines
        text = line.rstrip(b"\r\n")
        part.crlf += line.endswith(b"\r\n")
        if not text or text.isspace():
            part.say(number, "error" if self.by_line else "warning", _BLANK, "blank")
            return
        try:
            row = orjson.loads(text)
            again, number_cut = written(row, orjson.dumps)
        except orjson.JSONDecodeError:
            part.say(number, "error", _why_no_json(text, line.endswith(b"\n")), "json")
            return
        except orjson.JSONEncodeError:
            part.say(number, "error", "nested too deeply, more than 254 levels: Arrow and datasets fail on it", "json")
            return
        if not isinstance(row, dict):
            part.say(number, "error", f"the line is {_kind_name(row)}, not an object")
            return
        same = again == text
        twice = None if same else _twice(text, row)
        if twice:
            part.say(number, "error", f"the key {twice!r} stands twice in one object: loaders disagree on which one counts")
        if len(text) > part.longest[0]:
            part.longest = (len(text), number)
        self.row(row, hash(text), part, text)
        if self.by_line:
            return
        # orjson makes floats of numbers beyond 64 bits, and writes them as such.
        if not same and has_long_number(text):
            number_cut = cut(loads(text))
        if number_cut is not None:
            level: Level = "error" if number_cut.bit_length() > 64 or number_cut < 0 else "warning"
            part.say(number, level, f"the whole number {number_cut} {_CUT[level]}", f"cut {level}")
        misfits = self.schema.texts_read(row) if self.schema is not None else []
        for misfit in misfits + (schema.misfits(row) if schema is not None else []):
            part.say(number, "error", _MISFIT[misfit.effect].format(misfit.path, misfit.what), misfit.path + misfit.effect)

    def row(self, row: Json, digest: int, part: Part, text: bytes | None = None, *, prompt: Json | None = None) -> None:
        """A row of either format; the line's number is `part.lines`, `text` the line itself. `prompt`: the row in which to
        look for the prompt, if it is another."""
        number = part.lines
        part.rows += 1
        found: Iterable[str] = self.check(row)
        if self.rendered:
            found = filterfalse(of_templates, found)
        errors = part.say_all(number, found)
        if self.alike and (like := self.alike(row)) is not None and len(part.alike) < _ALIKE:
            part.alike.setdefault(like, number)
        row = self.usual(row)
        prompt = row if prompt is None else self.usual(prompt)
        if not errors and not self.columns and (name := _source_of(row)) is not None:
            errors += 1
            part.say(number, "error", f"{name!r} is JSON text: {_SOURCE}")
        if self.rendered and not errors and (said := self.rendered(prompt)) is not None:
            part.rendered += 1
            part.say_all(number, said)
        part.hashes.extend((number, digest & MASK, hash(prompt_of(prompt)) & MASK))
        if text is None or b"null" in text or (b'"tool_calls"' in text and not part.differing()):
            _nulls(row, number, part)
        answer = answer_of(row)
        part.answered += answer is not None
        if answer is not None and len(part.answers) < 2:
            part.answers.add(hash(str(answer)))
        if isinstance(row.get("label"), bool):
            part.labels[row["label"]] += 1
        reward = row.get("reward", row.get("score"))
        if isinstance(reward, int | float) and math.isfinite(reward):
            one = Rewards(reward, reward, reward, 1)
            part.rewards = part.rewards.and_of(one) if part.rewards else one
        chosen, rejected = row.get("chosen_reward"), row.get("rejected_reward")
        if isinstance(chosen, int | float) and isinstance(rejected, int | float) and chosen <= rejected:
            part.say(number, "error", f"the chosen reward {chosen} is not above the rejected one {rejected}")

    def usual(self, row: Json) -> Json:
        """With its fields under their usual names, too."""
        return {**row, **{usual: row[name] for usual, name in self.names.items() if name in row}} if self.names else row


def under_names(check: Callable[[Json], Iterable[str]], names: Mapping[str, str], row: Json) -> Iterable[str]:
    """A check that knows the usual names, of a row whose fields have others (usual -> its own)."""
    others = {key: value for key, value in row.items() if key not in names}
    return check({**others, **{usual: row[name] for usual, name in names.items() if name in row}})


MASK = (1 << 64) - 1
_ALIKE = 20
NULL_ARGUMENT = "null argument in "
FILLED = (
    "{}: a struct column of Arrow or pandas filled it in, and chat templates print it. Write tools and arguments as JSON "
    "text, or JSON Lines"
)
_SOURCE = (
    "nobody decodes it, and the model would read brackets and quotes instead of turns; write a list of messages "
    "(JSON text is what rollforge export --to verl:sft and --to verl:grpo-parquet write for the classes beside them)"
)
_BLANK = (
    "blank line: readers that take the file line by line die on it, and datasets stops looking for mixed objects; remove it"
)
_CUT = {
    "error": "is beyond 64 bits: datasets makes a float of it, and fills the keys of all objects that differ with null; "
    "write text",
    "warning": "is beyond 64 bits with a sign: datasets makes a float of it, unless it stands in objects that differ; "
    "write text",
}
_MISFIT = {
    "fails": "{} {}: datasets fixes the schema from the first 10 MB and fails here. Put one row of every set of keys first "
    "(as rollforge export does), or write tools and arguments as JSON text",
    "null": "{} {}: datasets fixes the schema from the first 10 MB and fills it with null, which chat templates print. Put "
    "one row of every set of keys first (as rollforge export does)",
    "changed": "{} {}: datasets turns it into text here. Use one type for the field",
    "read": "{}: {} is JSON, and other rows have other values there: datasets reads it, and gives its value. Use one type "
    "for the field",
}


def _source_of(row: Json) -> str | None:
    """The first field for text or messages that holds messages written as JSON."""
    for name in ("prompt", "messages", "input", "completion", "chosen", "rejected"):
        value = row.get(name)
        if type(value) is str and value.startswith(("[{", "[ {")):
            turns = decoded(value)
            if isinstance(turns, list) and all(isinstance(turn, dict) and "role" in turn for turn in turns):
                return name
    return None


def _why_no_json(text: bytes, ended: bool) -> str:
    try:
        text.decode()
    except UnicodeDecodeError as error:
        return f"not UTF-8 at byte {error.start} (0x{text[error.start]:02x}): iconv -f latin1 -t utf-8, if it is Latin-1"
    said = ""
    try:
        loads(text)
    except ValueError as error:
        said = str(error)
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        if not ended:
            return f"not JSON: {said}; the last line has no end: was the file cut off?"
        return f"not JSON: {said}"
    return f"not JSON that every loader reads: {said}"


def _kind_name(value: Any) -> str:
    return {list: "a list", str: "a string", bool: "true or false", type(None): "null"}.get(type(value), "a number")


def _twice(text: bytes, row: Json) -> str | None:
    """A key that stands twice in one object; the cheap look goes first."""
    keys = 0
    pending: list[Any] = [row]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            keys += len(value)
            pending += [child for child in value.values() if isinstance(child, dict | list)]
        else:
            pending += [child for child in value if isinstance(child, dict | list)]
    if len(_KEY.findall(text)) <= keys:
        return None
    found: list[str] = []

    def look(pairs: list[tuple[str, Any]]) -> Json:
        kept = dict(pairs)
        if len(kept) < len(pairs):
            found.extend(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        return kept

    json.loads(text, object_pairs_hook=look)
    return found[0] if found else None


_KEY = re.compile(rb'"\s*:')


def prompt_of(row: Json) -> bytes:
    """What of a row, anybody's, is the prompt, as bytes to compare; b"" if it has none."""
    params = row.get("responses_create_params")
    if isinstance(params, dict):
        return canonical([params.get("instructions"), params.get("input")])
    if row.get("prompt"):
        return canonical(row["prompt"])
    asked = [row[name] for name in _ASKED if row.get(name)]
    if not asked:
        messages = row.get("messages") or row.get("conversations") or common(row.get("chosen"), row.get("rejected"))
        shown = up_to_user(messages) if isinstance(messages, list) else ()
        return canonical(shown) if shown else b""
    return canonical(asked[0] if len(asked) == 1 else asked)


_ASKED = ("instruction", "input", "context", "question", "problem")
"""Fields that are the prompt together, where there is no `prompt`."""


def common(chosen: Any, rejected: Any) -> list[Any]:
    """The beginning of two conversations as far as they are the same; of one alone, all of it."""
    if not isinstance(chosen, list) or not isinstance(rejected, list):
        return chosen if isinstance(chosen, list) else []
    return [one for one, _ in takewhile(lambda pair: pair[0] == pair[1], zip(chosen, rejected, strict=False))]


def canonical(value: Any) -> bytes:
    return dumps(value, sort_keys=True, default=str)


def answer_of(row: Json) -> Any:
    # A label of true or false is a verdict, and `solution` what TRL's rewards are given.
    answer = next((value for _, value in expected(row.get) if not isinstance(value, bool)), row.get("solution"))
    return None if answer == "" else answer


def _nulls(row: Json, number: int, part: Part) -> None:
    """Nulls in tool schemas and in the arguments of calls."""
    known: dict[str, set[str]] = {}
    tools = row.get("tools")
    tools = _decoded(tools) if isinstance(tools, str) else tools
    for tool in tools if isinstance(tools, list) else ():
        inner = tool.get("function", tool) if isinstance(tool, dict) else None
        properties = inside(inner, "parameters", "properties")
        if not isinstance(properties, dict):
            continue
        name = inside(inner, "name")
        known[str(name)] = {key for key, schema in properties.items() if schema is not None}
        empty = next((key for key, schema in properties.items() if schema is None), None)
        if empty is not None:
            part.say(
                number,
                "error",
                FILLED.format(f"the tool {name} has a parameter {empty!r} that is null"),
                "null schema",
            )
    for name in ("messages", "prompt", "completion", "chosen", "rejected"):
        messages = decoded(row.get(name))
        for message in messages if isinstance(messages, list) else ():
            calls = message.get("tool_calls") if isinstance(message, dict) else None
            for call in calls if isinstance(calls, list) else ():
                function = call.get("function", call) if isinstance(call, dict) else None
                if isinstance(function, dict):
                    _null_arguments(name, function, known, number, part)


def _null_arguments(column: str, function: Json, known: dict[str, set[str]], number: int, part: Part) -> None:
    tool, arguments = str(function.get("name")), decoded(function.get("arguments"))
    if not isinstance(arguments, dict):
        return
    some, every = part.keys.setdefault(column, (set(arguments), set(arguments)))
    every.intersection_update(arguments)
    if len(some) < _NAMES:
        some.update(arguments)
    for key, value in arguments.items():
        if value is None and tool in known:
            if key not in known[tool]:
                part.say(
                    number,
                    "error",
                    FILLED.format(f"the argument {key!r} of {tool} is null and not one of its parameters"),
                    NULL_ARGUMENT + column,
                )
            continue  # else its own schema knows it: null is what was said
        if (column, tool, key) in part.nulls or len(part.nulls) < _NAMES:
            counts = part.nulls.setdefault((column, tool, key), [0, 0, 0])
            counts[value is not None] += 1
            if value is None and not counts[2]:
                counts[2] = number


@lru_cache(64)
def _decoded(text: str) -> Any:
    """Shared: not to be changed."""
    return decoded(text)


def decoded(value: Any) -> Any:
    """JSON text as what it says; everything else as it is."""
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            return loads(value)
        except ValueError:
            return value
    return value
