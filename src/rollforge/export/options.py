"""What an export is asked for: thresholds, pairing, splitting, and the files it reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, Field, ValidationError

from rollforge.config import Section
from rollforge.errors import UserError
from rollforge.export.make import Reasoning
from rollforge.export.pairs import Pairing


def _text(version: Any) -> Any:
    if isinstance(version, int | float):
        raise ValueError('in YAML a version stands in quotes ("0.10"): without them 0.10 is 0.1')
    return version


class Options(Pairing):
    """What an export is made with, beside `Settings`."""

    min_reward: float = 0.95
    """From which a rollout is a demonstration."""
    prompt_reward: float | None = None
    """From which an attempt counts for prompts: tasks without one are left out. None: all."""
    min_coverage: float = Field(0.8, ge=0, le=1)
    """Share of rollouts (planned, or read) that must have been judged."""
    reasoning: Reasoning = "keep"
    arguments: Literal["object", "text"] = "object"
    """Of tool calls. Most chat templates write an object as JSON; some (DeepSeek's) want the text."""
    answer: str | None = None
    """Dotted path of the field with the expected answer; several with commas: of each row the first that it has."""
    validation: float = Field(0.1, ge=0, lt=1)
    """Share of the prompts held out, where the input is not split already."""
    seed: int = 0
    """Of that split."""
    license: str | None = None
    """Named in the data set card."""
    workers: int | None = Field(None, ge=1)
    overwrite: bool = False
    target_version: dict[str, Annotated[str, BeforeValidator(_text)]] = Field(default_factory=dict)
    """Framework -> version whose formats are written."""


S = TypeVar("S", bound=Section)


def validated(section: type[S], values: Mapping[str, Any]) -> S:
    """Raises `UserError` in the words of the command line: `--gpus 0: ...`."""
    try:
        return section.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        message = first["msg"].removeprefix("Value error, ").replace("Input should", "should")
        option = "--" + ".".join(map(str, first["loc"])).replace("_", "-")
        raise UserError(f"{option} {repr(first['input'])[:80]}: {message}" if first["loc"] else message) from None


@dataclass(frozen=True, slots=True)
class Input:
    """A file of rollouts."""

    name: str
    """The run it belongs to, as given."""
    file: Path
    env: str
    split: str | None
    """Of a curated directory's file."""
