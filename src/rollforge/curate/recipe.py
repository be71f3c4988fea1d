"""A recipe: the steps of a curation in their order, from YAML, from options, or made in Python.

    seed: 0
    steps:
      - preset: sft
      - filter: "tokens < 4000"
      - dedup: {by: prompt}
      - balance: {by: difficulty, cap: 500}
      - split: {train: 0.9, validation: 0.1}

The module of a step has `<Name>Args`, a `Section`, and `steps(args)`. A bare name takes the defaults; where a bare value
makes sense, `<Name>Args.short(value)` turns it into arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from itertools import takewhile
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from rollforge.config import Section, read_yaml, validate
from rollforge.curate.step import Step
from rollforge.errors import UserError, unknown
from rollforge.records.items import Json

STEPS = {
    "preset": "rollforge.curate.presets:PresetArgs",
    "filter": "rollforge.curate.filter:FilterArgs",
    "dedup": "rollforge.curate.dedup:DedupArgs",
    "near": "rollforge.curate.near:NearArgs",
    "decontaminate": "rollforge.curate.decontaminate:DecontaminateArgs",
    "balance": "rollforge.curate.balance:BalanceArgs",
    "mix": "rollforge.curate.mix:MixArgs",
    "shape": "rollforge.curate.shape:ShapeArgs",
    "split": "rollforge.curate.split:SplitArgs",
}
"""In the order in which the command's options are applied."""


@dataclass(frozen=True, slots=True)
class Recipe:
    steps: Sequence[Step] = ()
    seed: int = 0
    resolved: list[Json] = field(default_factory=list)
    """As recipe.yaml has them: one entry per step, with the defaults filled in."""

    def __post_init__(self) -> None:
        splits = [str(number) for number, step in enumerate(self.resolved, 1) if "split" in step]
        if len(splits) > 1:
            raise UserError(f"steps {' and '.join(splits)} are splits, and a prompt has one side: leave one out")

    @property
    def chain(self) -> list[Step]:
        """The steps, led by those that must see the samples before any is dropped (`first` of a step: balance measures the
        difficulty of whole groups). Before them are only shapes with which the recipe begins: they set what is solved."""
        first = {step.name: step for steps in (getattr(each, "first", ()) for each in self.steps) for step in steps}
        shapes = list(takewhile(lambda step: getattr(step, "shapes", False), self.steps))
        return [*shapes, *first.values(), *self.steps[len(shapes) :]]

    def then(self, more: Recipe) -> Recipe:
        return Recipe([*self.steps, *more.steps], self.seed, [*self.resolved, *more.resolved])

    def text(self, seed: int) -> Json:
        return {"seed": seed, "steps": self.resolved or [step.name for step in self.steps]}


def read_recipe(path: str | Path) -> Recipe:
    """Raises `UserError` with the file, the number of the step, and what is wrong."""
    return make_recipe(read_yaml(path), str(path))


def make_recipe(values: Mapping[str, Any], where: str = "recipe") -> Recipe:
    """From the content of a recipe file."""
    known = validate(_Recipe, values, where)
    steps: list[Step] = []
    resolved: list[Json] = []
    for count, entry in enumerate(known.steps, 1):
        name, value = _entry(entry, f"{where}, step {count}")
        made, arguments = _make(name, value, f"{where}, step {count}")
        steps += made
        resolved.append({name: arguments})
    return Recipe(steps, known.seed, resolved)


class _Recipe(Section):
    seed: int = 0
    steps: list[Any] = Field(default_factory=list)


def _entry(entry: Any, where: str) -> tuple[str, Any]:
    if isinstance(entry, str):
        entry = {entry: None}
    if not isinstance(entry, dict) or not entry:
        raise UserError(f"{where}: {entry!r} is no step; write `- name` or `- name: {{argument: value}}`")
    if len(entry) > 1:
        names = ", ".join(map(str, entry))
        raise UserError(f"{where} has several keys ({names}); a step is one, its arguments stand indented below it")
    ((name, value),) = entry.items()
    if name not in STEPS:
        raise unknown("step", str(name), STEPS, f"(in {where})")
    return name, value


def _make(name: str, value: Any, where: str) -> tuple[list[Step], Json]:
    place = f"{where} ({name})"
    module_name, _, class_name = STEPS[name].partition(":")
    module = import_module(module_name)
    section: type[Section] = getattr(module, class_name)
    short: Callable[[Any], Section | Json] | None = getattr(section, "short", None)
    if value is not None and not isinstance(value, Mapping):
        if short is None:
            known = ", ".join(section.model_fields)
            raise UserError(f"{place}: {value!r} is {type(value).__name__}, not arguments; known: {known}")
        value = _placed(short, value, place)
    args = value if isinstance(value, section) else validate(section, value or {}, place)
    steps: list[Step] = _placed(module.steps, args, place)
    # A null says something where it is not the default: `near: null` of a split.
    return steps, args.model_dump(mode="json")


def _placed(call: Callable[[Any], Any], value: Any, place: str) -> Any:
    try:
        return call(value)
    except UserError as error:
        raise UserError(f"{place}: {error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise UserError(f"{place}: {first['msg'].removeprefix('Value error, ')} (got {repr(value)[:80]})") from None
