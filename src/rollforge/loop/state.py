"""`loop.json`: the recipe, and the steps that are done. One writer; what it says is on disk before the next step begins."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rollforge import __version__
from rollforge.collect.run_dir import differences, intact, taken, write_json
from rollforge.errors import UserError
from rollforge.loop.config import LoopConfig, identity, with_operational
from rollforge.records.items import Json
from rollforge.records.shown import without_secrets

LOOP = "loop.json"


class State:
    """What is known of a loop. Without `given` only to be looked at."""

    def __init__(self, path: Path, stored: Json, given: LoopConfig | None = None) -> None:
        self.path = path
        self._stored = stored
        self._given = given

    @property
    def steps(self) -> Mapping[str, Json]:
        """Name (its folder, too) -> facts, in the order in which they were done."""
        steps: Mapping[str, Json] = self._stored["steps"]
        return steps

    def config(self, iteration: int) -> LoopConfig:
        """The recipe of that iteration."""
        assert self._given is not None
        return with_operational(self._recipe(iteration)["recipe"], self._given)

    def since(self, iteration: int) -> int:
        """The iteration from which the recipe of this one holds."""
        first: int = self._recipe(iteration)["from"]
        return first

    def finish(self, step: str, facts: Json) -> None:
        self._stored["steps"][step] = facts
        self.save()

    def save(self) -> None:
        write_json(self.path / LOOP, self._stored)

    def settle(self, given: LoopConfig, apply_next: bool) -> None:
        """Raises `UserError` if the recipe is another one than the stored; `apply_next` takes it from the first iteration on
        that has not begun."""
        now, last = json.loads(json.dumps(identity(given))), self._stored["recipes"][-1]
        listed = "\n".join(f"  {line}" for line in differences(without_secrets(last["recipe"], marked=True), now))
        if listed and not apply_next:
            raise UserError(
                f"{self.path} was begun with another recipe:\n{listed}\n"
                "Give the same one to go on, add --apply-next to use this one from the next iteration on, or choose another "
                "--out."
            )
        if listed:
            begun = max((_iteration(step) for step in self.steps), default=0)
            entry = {"from": begun + 1, "recipe": now}
            # Tasks, and the measure of the start, that were made by a recipe of which nothing else came.
            kept = {name: facts for name, facts in self.steps.items() if begun and facts["iteration"] <= begun}
            self._stored["steps"] = kept
            self._stored["recipes"] = [r for r in self._stored["recipes"] if r["from"] < entry["from"]] + [entry]
            self.save()

    def _recipe(self, iteration: int) -> Json:
        recipe: Json = [r for r in self._stored["recipes"] if r["from"] <= max(iteration, 1)][-1]
        return recipe


@contextmanager
def opened(path: Path, given: LoopConfig, apply_next: bool = False) -> Iterator[State]:
    """The loop in that directory, begun or taken up. Raises `UserError`: another recipe, another writer, not a loop."""
    with taken(path, LOOP, "loop", by="loop"):
        if (path / LOOP).exists():
            state = State(path, _read(path), given)
            state.settle(given, apply_next)
        else:
            created = time.strftime("%Y-%m-%dT%H:%M:%S%z")
            first = {"from": 1, "recipe": identity(given)}
            state = State(path, {"rollforge": __version__, "created": created, "recipes": [first], "steps": {}}, given)
            state.save()
        yield state


def read_state(path: Path) -> State:
    """To look at a loop, under way or not. Raises `UserError`."""
    if not (path / LOOP).is_file():
        raise UserError(f"{path} is no loop: it has no {LOOP}")
    return State(path, _read(path))


def _read(path: Path) -> Json:
    with intact(path / LOOP, "loop"):
        stored: Json = json.loads((path / LOOP).read_bytes())
        first = stored["recipes"][0]
        _ = first["from"], first["recipe"], stored["steps"].items()
    return stored


def _iteration(step: str) -> int:
    head = step.partition("/")[0]
    return int(head.removeprefix("iteration-")) if head.startswith("iteration-") else 0
