"""Which of several actions a reply names: `<action>hit</action>`."""

from __future__ import annotations

import re
from collections.abc import Iterable

_TAG = re.compile(r"<action>([^<>]{0,200})</action>", re.IGNORECASE)
_AROUND = " \t*_`\"'.!()[]"


def chosen_action(reply: str, names: Iterable[str]) -> str | None:
    """The one of `names` that the reply's action tags name, letter case and spaces around it ignored; without any tag, the
    one that is its last line. None if it names none, or several that differ."""
    known = {name.casefold(): name for name in names}
    # A word anywhere in a text is no choice: almost any text holds a "1" or a "right".
    said = _TAG.findall(reply) or [reply.rstrip().rpartition("\n")[2].strip(_AROUND)]
    found = {known.get(action.strip().casefold()) for action in said}
    return found.pop() if len(found) == 1 else None


def action_text(reply: str) -> str:
    """What stands in the last action tag, else the whole reply."""
    tags = _TAG.findall(reply)
    return (tags[-1] if tags else reply).strip()
