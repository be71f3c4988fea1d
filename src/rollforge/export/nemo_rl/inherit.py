"""A NeMo RL configuration with its parents, merged as `nemo_rl/utils/config.py` does, without OmegaConf."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from rollforge.config import merge, read_yaml
from rollforge.errors import UserError
from rollforge.export.target import Level
from rollforge.records.items import inside, mapping

Values = dict[str, Any]
Found = tuple[str, Level, str]
"""(dotted key, level, message)"""

_VARIABLE = re.compile(r"\$\{oc\.env:(\w+)\}")


def read(path: Path, found: list[Found]) -> tuple[Values, Values | None, Values]:
    """(what the file says, its parents or None where there are none to be read, all of it); problems go to `found`.

    Raises `UserError` if the file itself cannot be read.
    """
    own = read_yaml(path)
    parent = _parents(own, path.absolute().parent, found)
    return own, parent, merged(parent or {}, own)


def number(values: Values, key: str) -> int | None:
    """The whole number at a dotted key; a value that is `${a.b}` is followed, other interpolations are not."""
    for _ in range(5):
        value = inside(values, *key.split("."))
        reference = re.fullmatch(r"\$\{([\w.]+)\}", value) if isinstance(value, str) else None
        if not reference:
            return value if type(value) is int else None
        key = reference[1]
    return None


def section(values: Values, *keys: str) -> Values:
    """What stands under keys within each other; {} where there is no such section."""
    return mapping(inside(values, *keys))


def keys(values: Values, before: str = "") -> set[str]:
    found = set()
    for key, value in values.items():
        found.add(f"{before}{key}")
        if isinstance(value, dict):
            found |= keys(value, f"{before}{key}.")
    return found


def lines_of(path: Path) -> dict[str, int]:
    """Line of each dotted key."""
    found: dict[str, int] = {}

    def walk(node: yaml.Node | None, before: str) -> None:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                name = f"{before}.{key.value}" if before else str(key.value)
                found[name] = key.start_mark.line + 1
                walk(value, name)
        elif isinstance(node, yaml.SequenceNode):
            for place, value in enumerate(node.value):
                found[f"{before}[{place}]"] = value.start_mark.line + 1
                walk(value, f"{before}[{place}]")

    walk(yaml.compose(path.read_text(encoding="utf-8-sig"), yaml.SafeLoader), "")
    return found


def line_of(lines: Mapping[str, int], key: str) -> int:
    """Of the key, or of the nearest section around it; 0 if there is none."""
    while key and key not in lines:
        cut = max(key.rfind("."), key.rfind("["))
        key = key[:cut] if cut > 0 else ""
    return lines.get(key, 0)


def _parents(own: Values, folder: Path, found: list[Found], depth: int = 0) -> Values | None:
    """What `defaults` names, merged left to right; None if some of it could not be read (said in `found`)."""
    given = own.get("defaults")
    if given is None:
        return {} if depth else None
    names = given if isinstance(given, list) else [given]
    all_of_them: Values = {}
    known = True
    for name in names:
        path = _parent_path(name, folder, found)
        if path is None or depth > 9:
            known = False
            continue
        try:
            values = read_yaml(path)
        except UserError as error:
            found.append(("defaults", "error", str(error)))
            known = False
            continue
        above = _parents(values, path.parent, found, depth + 1)
        known = known and above is not None
        all_of_them = merged(all_of_them, merged(above or {}, values))
    return all_of_them if known else None


def _parent_path(name: Any, folder: Path, found: list[Found]) -> Path | None:
    if not isinstance(name, str):
        found.append(("defaults", "error", f"{name!r} is no path; write the absolute path of the parent, with .yaml"))
        return None
    missing = next((one for one in _VARIABLE.findall(name) if not os.environ.get(one)), None)
    if missing:
        what = f"{missing} is not set, so the parent was not looked at; NeMo RL needs it too: export {missing}=/path/to/RL"
        found.append(("defaults", "warning", what))
        return None
    text = _VARIABLE.sub(lambda match: os.environ[match[1]], name)
    path = folder / text
    home = text.partition("/examples/configs/")[0]
    if home.startswith("/") and home != text and not os.path.exists(home):
        # Data are often made elsewhere than where NeMo RL is.
        found.append(("defaults", "warning", f"{home} is not on this machine, so the parent {text} was not looked at"))
        return None
    if not os.path.isfile(path):
        base = Path(text).name
        like = f"/path/to/RL/examples/configs/{base.removesuffix('.yaml')}.yaml"
        what = f"{text!r}: FileNotFoundError {path}; it is looked for beside this file, with its ending; write {like}"
        found.append(("defaults", "error", what))
        return None
    return path


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> Values:
    """`_override_: true` in a top-level section drops the parent's; `???` keeps the parent's value."""
    kept = dict(base)
    mine = {key: value for key, value in over.items() if value != "???" or key not in base}
    for key, value in list(mine.items()):
        if isinstance(value, dict) and value.get("_override_"):
            kept.pop(key, None)
            mine[key] = {name: inner for name, inner in value.items() if name != "_override_"}
    return merge(kept, mine)
