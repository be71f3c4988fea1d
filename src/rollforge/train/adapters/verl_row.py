"""What the rows of `rollforge export --to verl:grpo` say to the adapters, and what these say of a rollout."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from rollforge.errors import UserError
from rollforge.records.items import Json
from rollforge.records.lossless import loads
from rollforge.records.rollout import Rollout
from rollforge.registry import known
from rollforge.train.play import Player, player

EPISODE = "rollforge_episode"
"""The extra field with what `verl_tools` has called, as JSON text: {"messages": [...]}, and "failure" if something broke."""


def row_of(info: Mapping[str, Any]) -> Json:
    """The task that an exported row carries in its extra_info. Raises `UserError` if there is none."""
    text = made_with(info).get("row")
    if not text:
        raise UserError(
            f"row {info.get('id') or info.get('index')} has no task at extra_info.tools_kwargs._row.create_kwargs.row; "
            f"write the data with: rollforge export RUN --to verl:grpo"
        )
    return loads(text)  # type: ignore[no-any-return]


def made_with(info: Mapping[str, Any]) -> Mapping[str, Any]:
    """`row`, the task as JSON text, and `env`: where verl hands them to tools, too."""
    row = (info.get("tools_kwargs") or {}).get("_row") or {}
    return row.get("create_kwargs") or {}


def player_of(env: str | Mapping[str, str] | None, name: str, turns: int = 16, seconds: float = 3600) -> Player:
    """The environment for a row that names `name`, made once in a process. Data may name registered environments only:
    files and modules are code, and are named in the configuration. Raises `UserError`."""
    reference = env if isinstance(env, str) else (env or {}).get(name)
    if reference is None:
        if name not in known("env"):
            raise UserError(
                f"the data names the environment {name!r}, which is not registered; "
                f"say where it is, as env: {{{name or 'NAME'}: path/to/file.py:name}}"
            )
        reference = name
    return _player(reference, turns, seconds)


def scores(rollout: Rollout, metrics: Iterable[str]) -> dict[str, float]:
    """`score` and the numbers asked for, of the verdict or of its reward_components; nan where there is none."""
    parts = rollout.fields.get("reward_components")
    known_here = {**(parts if isinstance(parts, Mapping) else {}), **rollout.fields}
    values = {name: known_here.get(name) for name in metrics}
    numbers = {name: float(value) if isinstance(value, (int, float)) else math.nan for name, value in values.items()}
    return {"score": math.nan if rollout.reward is None else rollout.reward, **numbers}


@cache
def _player(reference: str, turns: int, seconds: float) -> Player:
    return player(reference, max_turns=turns, rollout_seconds=seconds)
