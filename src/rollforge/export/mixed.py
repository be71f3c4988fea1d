"""What `datasets.load_dataset("json")` makes of rows whose objects do not all have the same keys.

It fixes the schema from the first 10 MB of a file. Objects that differ there become free JSON; what differs only further on
kills the load, or is filled with nulls. (datasets 5.2, packaged_modules/json/json.py `_generate_tables` and utils/json.py
`find_mixed_struct_types_field_paths`.) The same rules, applied to rows one after the other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

import orjson

from rollforge.records.items import Json
from rollforge.records.lossless import dumps

FIRST = 10 << 20
"""Bytes of the block that fixes the schema; it ends with the line that goes over."""

_DATE = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)([ T]([01]\d|2[0-3])(:[0-5]\d){0,2}(Z|[+-]([01]\d|2[0-3])(:?[0-5]\d)?)?)?", re.ASCII
)


def written(row: Json, otherwise: Callable[[Any], bytes] = dumps) -> tuple[bytes, int | None]:
    """A row as JSON, and a whole number in it beyond Arrow's 64 bits: it becomes a float. Beyond the unsigned ones, too,
    `datasets` does not even see which objects differ, and fills all of them with nulls. `otherwise` writes what is not
    plain."""
    try:
        return orjson.dumps(row, None, orjson.OPT_STRICT_INTEGER | orjson.OPT_SERIALIZE_NUMPY), None
    except orjson.JSONEncodeError:  # something beyond 53 bits, mostly
        return otherwise(row), cut(row)


def cut(row: Json) -> int | None:
    """Such a number. `row`: exact, as `lossless.loads` has it."""
    return next(_beyond(row), None)


def _beyond(value: Any) -> Iterator[int]:
    if isinstance(value, int):
        if not -(1 << 63) <= value < 1 << 63:
            yield value
    elif isinstance(value, dict | list | tuple):
        for child in value.values() if isinstance(value, dict) else value:
            yield from _beyond(child)


@dataclass(frozen=True, slots=True)
class Misfit:
    """A later value that the schema of the first block has no place for."""

    path: str
    """`messages[].tool_calls[].function.arguments.city`"""
    effect: Literal["fails", "null", "changed", "read"]
    """The load fails; the key is filled with null; the value becomes text; the text becomes the value it is JSON of."""
    what: str


class Schema:
    """Learned from the rows of the first block, settled, then asked about each later row."""

    def __init__(self) -> None:
        self._root = _Node()
        self._texts: list[tuple[str, ...]] = []
        """Where texts stand beside other values."""

    def add(self, row: Json) -> None:
        self._root.add(row, top=True)

    def mixed(self) -> Iterator[str]:
        """Paths that became free JSON since their objects differ."""
        yield from self._root.mixed("")

    def dates(self) -> Iterator[str]:
        """Paths whose every text looks like a date: they are read as timestamps."""
        yield from self._root.dates("")

    def settle(self) -> None:
        """All rows of the first block are added: now it can be asked."""
        self._root.settle()
        self._root.free = False  # a new column fails, whatever the rows are
        self._texts = list(self._root.texts(()))

    def texts_read(self, row: Json) -> list[Misfit]:
        """Texts of any row that are JSON where other values stand, too: all that is there is read as JSON."""
        return [
            Misfit(".".join(path).replace(".[]", "[]"), "read", f"the text {text[:40]!r}")
            for path in self._texts
            for text in _texts_at(row, path)
            if _is_json(text)
        ]

    def misfits(self, row: Json) -> list[Misfit]:
        found: list[Misfit] = []
        self._root.fit(row, "", found, top=True)
        return found


class _Node:
    __slots__ = ("children", "free", "item", "keys", "kinds", "loose", "words")

    def __init__(self) -> None:
        self.kinds: set[str] = set()
        self.keys: frozenset[str] | None = None
        self.children: dict[str, _Node] = {}
        self.item: _Node | None = None
        self.loose = False
        """Objects with different keys, or an empty one."""
        self.free = False
        """Whether it is read as free JSON: anything fits. Known when all rows are added."""
        self.words = False
        """Whether any text fits."""

    def settle(self) -> None:
        families = {_FAMILY.get(kind, kind) for kind in self.kinds}
        self.free = self.loose or len(families) > 1
        self.words = "str" in self.kinds
        for child in self.children.values():
            child.settle()
        if self.item is not None:
            self.item.settle()

    def add(self, value: Any, top: bool = False) -> None:
        if value is None:
            return
        if self.loose:
            if isinstance(value, str):
                self.kinds.add("str")
            return
        if isinstance(value, dict):
            self.kinds.add("object")
            if not top and (not value or (self.keys is not None and self.keys != value.keys())):
                self.loose = True
                return
            if self.keys is None:
                self.keys = frozenset(value)
            for key, child in value.items():
                node = self.children.get(key)
                if node is None:
                    node = self.children[key] = _Node()
                node.add(child)
        elif isinstance(value, list):
            self.kinds.add("list")
            if self.item is None:
                self.item = _Node()
            for child in value:
                self.item.add(child)
        else:
            self.kinds.add(_kind(value))

    def mixed(self, path: str) -> Iterator[str]:
        if self.free:
            yield path or "the row"
            return
        for key, child in self.children.items():
            yield from child.mixed(f"{path}.{key}" if path else key)
        if self.item is not None:
            yield from self.item.mixed(f"{path}[]")

    def texts(self, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        if self.free:
            if not self.kinds.isdisjoint(("str", "date")):
                yield path
            return
        for key, child in self.children.items():
            yield from child.texts((*path, key))
        if self.item is not None:
            yield from self.item.texts((*path, "[]"))

    def dates(self, path: str) -> Iterator[str]:
        if self.free:
            return
        if self.kinds == {"date"}:
            yield path
        for key, child in self.children.items():
            yield from child.dates(f"{path}.{key}" if path else key)
        if self.item is not None:
            yield from self.item.dates(f"{path}[]")

    def fit(self, value: Any, path: str, found: list[Misfit], top: bool = False) -> None:
        if not self.kinds:
            found.append(Misfit(path, "fails", "is always null or empty before"))
        elif isinstance(value, dict):
            if "object" not in self.kinds:
                found.append(Misfit(path, "fails", f"is an object here, {self._name()} before"))
                return
            for key, child in value.items():
                node = self.children.get(key)
                if node is None:
                    place = f"{path}.{key}" if path else key
                    found.append(Misfit(place, "fails", "is a new column" if top else "is a new key"))
                elif not (node.free or child is None or (node.words and type(child) is str)):
                    node.fit(child, f"{path}.{key}" if path else key, found)
            if not top and len(value) < len(self.children):
                found.extend(Misfit(f"{path}.{key}", "null", "is missing") for key in self.children.keys() - value.keys())
        elif isinstance(value, list):
            if self.item is None:
                found.append(Misfit(path, "fails", f"is a list here, {self._name()} before"))
                return
            item = self.item
            if not item.free:
                for child in value:
                    if not (child is None or (item.words and type(child) is str)):
                        item.fit(child, f"{path}[]", found)
        else:
            self._fit_plain(_kind(value), path, found)

    def _fit_plain(self, kind: str, path: str, found: list[Misfit]) -> None:
        if kind in self.kinds or (kind == "int" and "float" in self.kinds) or (kind == "date" and "str" in self.kinds):
            return
        says = f"is {_NAMES[kind]} here, {self._name()} before"
        found.append(Misfit(path, "changed" if "str" in self.kinds else "fails", says))

    def _name(self) -> str:
        return " or ".join(sorted(_NAMES[kind] for kind in self.kinds))


def _texts_at(value: Any, path: tuple[str, ...]) -> Iterator[str]:
    if not path:
        if isinstance(value, str):
            yield value
    elif path[0] == "[]":
        for child in value if isinstance(value, list) else ():
            yield from _texts_at(child, path[1:])
    elif isinstance(value, dict):
        yield from _texts_at(value.get(path[0]), path[1:])


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _kind(value: Any) -> str:
    if isinstance(value, str):
        return "date" if len(value) <= 25 and value[:1].isdigit() and _is_date(value) else "str"
    return "bool" if isinstance(value, bool) else "int" if isinstance(value, int) else "float"


def _is_date(text: str) -> bool:
    """Arrow takes a text like 2024-05-01 for a timestamp, if all texts in its place are one."""
    found = _DATE.fullmatch(text)
    try:
        return bool(found and date(int(found[1]) or _LEAP, int(found[2]), int(found[3])))
    except ValueError:
        return False


_LEAP = 2000
"""Arrow has a year 0, Python has none."""
_FAMILY = {"int": "number", "float": "number", "date": "str"}
_NAMES = {
    "object": "an object",
    "list": "a list",
    "str": "a text",
    "date": "a date",
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
}
