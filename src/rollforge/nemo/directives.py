"""The inheritance of NeMo Gym's YAML: `_inherit_from`, `_copy`, `_delete_key`, `${inherit_from:a.b}`, `${copy:a.b}`.

All name a place by its dotted path from the root. Inheriting moves what is there (the place is gone afterwards), copying
leaves it; keys that stand beside the directive win. What is taken may hold directives itself.
"""

from __future__ import annotations

import re
from copy import deepcopy
from typing import Any

from rollforge.config import merge
from rollforge.errors import UserError, unknown
from rollforge.records.items import Json, inside

MISSING = "???"
_WORD = re.compile(r"\$\{(inherit_from|copy):([^}]+)\}")


def directed(values: Json) -> Json:
    """`values` with every directive carried out. Raises `UserError`: a path that is not there, a circle, a key that is not
    there to delete."""
    moved: set[str] = set()
    found: Json = _Walk(values, moved).value(values, "", ())
    for path in sorted(moved, key=lambda path: -path.count(".")):
        *parents, last = path.split(".")
        where = inside(found, *parents)
        if isinstance(where, dict):
            where.pop(last, None)
    return found


class _Walk:
    def __init__(self, root: Json, moved: set[str]) -> None:
        self._root = root
        self._moved = moved
        """Paths that were inherited from."""

    def value(self, value: Any, at: str, through: tuple[str, ...]) -> Any:
        """What `value`, at the path `at`, means; `through` are the paths being followed."""
        if isinstance(value, list):
            return [self.value(item, f"{at}[{place}]", through) for place, item in enumerate(value)]
        if isinstance(value, str) and (match := _WORD.fullmatch(value)):
            return self._taken(match[2].strip(), at, through, move=match[1] == "inherit_from")
        if not isinstance(value, dict):
            return value
        own = dict(value)
        doomed = [key.strip() for key in str(own.pop("_delete_key", "")).split(",") if key.strip()]
        moves, copies = own.pop("_inherit_from", None), own.pop("_copy", None)
        present = [key for key in doomed if own.pop(key, None) is not None]  # before what they hold is followed
        own = {key: self.value(item, f"{at}.{key}" if at else key, through) for key, item in own.items()}
        source = moves or copies
        if source is None:
            missing = [key for key in doomed if key not in present]
        else:
            taken = self._taken(str(source), at, through, move=moves is not None)
            if taken == MISSING:
                return MISSING
            if not isinstance(taken, dict):
                raise UserError(f"{at}: {source} is {taken!r}, not keys and values; to take a value: ${{copy:{source}}}")
            missing = [key for key in doomed if key not in present and taken.pop(key, None) is None]
            own = merge(taken, own)
        if missing:
            raise unknown(f"key in _delete_key of {at}:", missing[0], own)
        return own

    def _taken(self, path: str, at: str, through: tuple[str, ...], *, move: bool) -> Any:
        if path in through:
            raise UserError(f"{at} inherits in a circle: {' -> '.join((*through, path))}")
        where: Any = self._root
        for part in path.split("."):
            if where == MISSING:
                return MISSING
            if not isinstance(where, dict) or part not in where:
                known = where if isinstance(where, dict) else ()
                raise unknown(f"place to inherit from ({path}, at {at}):", part, known)
            where = where[part]
        if move:
            self._moved.add(path)
        return deepcopy(self.value(where, path, (*through, path)))
