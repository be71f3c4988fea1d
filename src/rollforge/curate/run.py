"""Curation from end to end: rows become samples, samples go through the recipe's steps, what is left is written.

    blocks ─► scan (workers) ─► samples ─► step ─► step ─► … ─► orders, by place ─► write (workers) ─► DIR
                 └ no verdict, no row        └ drops ─────────────┘ (dropped.jsonl)

Two passes over the input: rows are never held, a sample is a few hundred bytes, and all orders together go through the disk.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import msgspec

from rollforge.bulk.alien import alien_file, is_array
from rollforge.bulk.blocks import Unusable, blocks, line_number
from rollforge.bulk.spill import Sorted
from rollforge.bulk.workers import processes, spread
from rollforge.curate.recipe import Recipe, make_recipe, read_recipe
from rollforge.curate.report import ENVIRONMENTS, Report, Stage, Tally
from rollforge.curate.scan import Hashing, Input, inputs, other_rows, scan
from rollforge.curate.split import shares_before
from rollforge.curate.step import Drop, Fact, Sample, Step, Workspace
from rollforge.curate.write import MANIFEST, Draft, Order, json_text, small, write
from rollforge.errors import UserError
from rollforge.records.items import Json
from rollforge.records.lossless import loads
from rollforge.records.rows import BadLine
from rollforge.records.shown import typed
from rollforge.stats.source import SPLITS
from rollforge.stats.visible import capped

ROWS, DROPPED = "rollouts", "dropped"
"""Files: of rows that are not split, of rows that were dropped."""
_BAD = 5
"""So many unusable lines are named."""
_FIRST = 10_000
"""So many tasks are remembered to find shards."""


@dataclass(frozen=True, slots=True)
class Curated:
    folder: Path | None
    """None if no row was left: then nothing was written."""
    report: Report
    carried: Sequence[str] = ()
    """What stood in the folder and no curation had written: it is there still."""


def curate_rollouts(
    runs: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    recipe: Recipe | Mapping[str, Any] | str | Path | None = None,
    workers: int | None = None,
    keep_dropped: bool = False,
    seed: int | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Curated:
    """Curate run directories and JSONL files into the directory `out`.

    `recipe`: a YAML file, its content, or a `Recipe`; `seed` wins over the recipe's. `workers`: processes (default: one per
    core, fewer for little data). `progress` hears bytes read and bytes in all. Raises `UserError`; then, and when it is
    killed, `out` is as before.
    """
    runs = [runs] if isinstance(runs, (str, Path)) else runs
    recipe = _recipe(recipe)
    seed = recipe.seed if seed is None else seed
    files = inputs(runs)
    workers = processes(sum(one.path.stat().st_size for one in files)) if workers is None else workers
    out = Path(os.path.realpath(out))
    for one in files:
        if out in one.path.resolve().parents:
            raise UserError(f"{one.path} lies in --out {out}: what is read cannot be replaced; another --out")
    with Draft(out, overwrite) as draft:
        work = _Work(files, recipe, seed, workers, draft.folder, keep_dropped)
        with _rare_collection():
            report = work.run([str(run) for run in runs], progress)
        if not report.rows:
            return Curated(None, report)
        text = recipe.text(seed)
        report.notes += _of_the_split_before(out, work, text)
        written = [*report.files, small(draft.folder, "recipe.yaml", _yaml(text))]
        written.append(small(draft.folder, "report.json", json_text(report.row())))
        small(draft.folder, MANIFEST, json_text(_manifest(work, text, written)))
        draft.publish()
    return Curated(out, report, draft.carried)


def _recipe(recipe: Recipe | Mapping[str, Any] | str | Path | None) -> Recipe:
    if recipe is None:
        return Recipe()
    if isinstance(recipe, Recipe):
        return recipe
    if not isinstance(recipe, (Mapping, str, Path)):
        raise UserError(f"recipe is {type(recipe).__name__}, not a file or its content (write: recipe={{'steps': [...]}})")
    return make_recipe(recipe) if isinstance(recipe, Mapping) else read_recipe(recipe)


@contextmanager
def _rare_collection() -> Iterator[None]:
    """Samples come and go by the thousand without cycles; looking for some at every turn costs a tenth of the time."""
    usual = gc.get_threshold()
    gc.set_threshold(50_000, 20, 100)
    try:
        yield
    finally:
        gc.set_threshold(*usual)


@dataclass(slots=True)
class _Work:
    files: list[Input]
    recipe: Recipe
    seed: int
    workers: int
    folder: Path
    keep_dropped: bool
    hashing: Hashing = field(init=False)
    counts: list[Json] = field(init=False)
    """Rows and unusable lines of each file."""

    def run(self, runs: list[str], progress: Callable[[int, int], None] | None) -> Report:
        self.hashing = Hashing([one.path for one in self.files])
        self.counts = [{"rows": 0, "unusable": 0} for _ in self.files]
        report = Report(runs, [Stage("read")])
        orders = _Orders(self.folder)
        samples: Iterator[Sample] = self._read(report, orders, progress)
        for step in self.recipe.chain:
            stage = Stage(step.name)
            report.stages.append(stage)
            samples = self._apply(step, stage, samples, orders)
        tallies: dict[tuple[str, str], Tally] = {}
        try:
            for sample in samples:
                target = sample.split or ROWS
                env = capped(sample.env, report.read, ENVIRONMENTS)
                tally = tallies.get((target, env))
                if tally is None:
                    tally = tallies[target, env] = Tally()
                tally.add(sample.reward, sample.copies)
                orders.add((sample.source, sample.at, target, sample.copies, sample.changes or None))
            for before, stage in zip(report.stages, report.stages[1:], strict=False):
                stage.check(before.kept)
            for name in (*SPLITS, ROWS):
                by_env = {env: tally for (target, env), tally in tallies.items() if target == name}
                if by_env:
                    report.written[name] = by_env
            if ROWS in report.written and len(report.written) > 1:
                unsplit = sum(tally.rows for tally in report.written[ROWS].values())
                split = report.rows - unsplit
                raise UserError(f"{split:,} rows are split already, {unsplit:,} are not: add a split step for all of them")
            if report.rows:
                report.notes += self._emptied(report)
                report.files = self._write(orders)
            self.hashing.check()
        finally:
            orders.close()
        return report

    def _emptied(self, report: Report) -> Iterator[str]:
        """The sides that had rows, of which none is left."""
        splits = [stage.notes["splits"] for stage in report.stages if "splits" in stage.notes]
        made = [side for split in splits for side, found in split.items() if found["rows"]]
        read = [one.split for one, count in zip(self.files, self.counts, strict=True) if count["rows"]]
        for side in SPLITS:
            if side in (made if splits else read) and side not in report.written:
                yield f"{side} is empty: the steps left none of its rows"

    def _write(self, orders: _Orders) -> list[Json]:
        try:
            files = write(orders, self.hashing.files, self.folder, changed=orders.changed, workers=self.workers)
        except (ValueError, msgspec.MsgspecError):
            self.hashing.check()  # a row that cannot be edited may be half of another
            raise
        return sorted(files, key=lambda file: file["file"])

    def _read(self, report: Report, orders: _Orders, progress: Callable[[int, int], None] | None) -> Iterator[Sample]:
        stage = report.stages[0]
        facts = _facts(self.recipe.chain)
        paths = [one.path for one in self.files]
        total, counts = sum(path.stat().st_size for path in paths), self.counts
        first: dict[bytes, str] = {}
        shards: set[str] = set()
        cut = self.hashing.through(blocks(paths))
        for block in spread(partial(scan, inputs=self.files, facts=facts), cut, self.workers):
            source = block.source
            counts[source]["rows"] += len(block.samples) + len(block.lost)
            counts[source]["unusable"] += len(block.bad)
            stage.taken += len(block.samples) + len(block.lost) + len(block.bad)
            for at, line in block.bad:
                stage.drop(_kind(line))
                if line.text and len(report.bad) < _BAD:
                    number, text = line_number(paths[source], at), line.text.decode("utf-8", "replace")
                    report.bad.append(BadLine(str(paths[source]), number, line.reason, text))
            for at, reason in block.lost:
                stage.drop(reason)
                if self.keep_dropped:
                    orders.add(_dropped(source, at, {}, stage.name, reason, None))
            stage.kept += len(block.samples)
            if progress:
                progress(sum(self.hashing.sizes), total)
            for env, tally in block.read.items():
                report.read.setdefault(capped(env, report.read, ENVIRONMENTS), Tally()).join(tally)
            if len(paths) > 1:
                _shards(block.samples, first, shards)
            yield from block.samples
        self._tell_of_lines(report)
        if shards:
            report.notes.append(
                f"attempts at the same tasks stand in {' and '.join(sorted(shards))}, whose rows name no environment: here "
                f"they are one group each, but they are written with the names of their files as their environments, and "
                f"other commands will part them; if they are shards of one file, join them first: cat A B > C"
            )

    def _tell_of_lines(self, report: Report) -> None:
        """Which files are something else, and how many lines no rows. Raises `UserError` for an array of rows."""
        read = list(zip(self.files, self.counts, strict=True))
        for path, count in ((one.path, count) for one, count in read):
            what = alien_file(path) if count["unusable"] > count["rows"] else None
            if what and count["rows"]:
                # Of an array with an object a line the last one is a row; else rows among other bytes are what is left.
                if is_array(path):
                    raise UserError(f"{path}: {what}")
                what = None
            elif what:
                report.bad[:] = [line for line in report.bad if line.file != str(path)]  # they say nothing
            elif count["unusable"] and not count["rows"]:
                what = other_rows(path) or "it holds blank lines only"
            if what:
                report.alien.append(f"{path}: {what}")
        filled = {one.run for one, count in read if count["rows"] or count["unusable"]}
        report.alien += [f"{run}: it is empty" for run in dict.fromkeys(one.run for one in self.files) if run not in filled]
        unusable, blank = sum(count["unusable"] for count in self.counts), report.stages[0].dropped["blank line"]
        if unusable > blank:
            lines = report.stages[0].taken - blank
            aside = f"; {DROPPED}.jsonl has rows only, not these" if self.keep_dropped else ""
            report.notes.append(f"{unusable - blank:,} of {lines:,} lines are no usable rows{aside}")

    def _apply(self, step: Step, stage: Stage, samples: Iterator[Sample], orders: _Orders) -> Iterator[Sample]:
        runs = [one.run for one in self.files]
        files = [one.path for one in self.files]
        work = Workspace(self.folder, self.seed, runs, files, stage.notes, stage.warnings)

        # Overflow of balancing is kept unless told otherwise: another choice of the same rows.
        keep = self.keep_dropped or getattr(step, "keep_dropped", False)

        def taken() -> Iterator[Sample]:
            for sample in samples:
                stage.taken += 1
                yield sample

        for item in step(taken(), work):
            if isinstance(item, Drop):
                stage.drop(item.reason)
                if keep:
                    sample = item.sample
                    block = sample.changes.get("rollforge", {})
                    orders.add(_dropped(sample.source, sample.at, block, step.name, item.reason, item.evidence))
            else:
                stage.kept += 1
                yield item
        # A step that stops before its input does would hide what it left: `Stage.check` must see it.
        for _ in samples:
            pass


def _shards(samples: Iterable[Sample], first: dict[bytes, str], found: set[str]) -> None:
    """Adds environments, named after files, that share a task; looks for the first tasks that `first` has room for."""
    for sample in samples:
        if sample.changes and (len(first) < _FIRST or sample.group in first):
            env = first.setdefault(sample.group, sample.env)
            if env != sample.env:
                found |= {env, sample.env}


def _facts(steps: Iterable[Step]) -> dict[str, Fact]:
    facts: dict[str, Fact] = {}
    for step in steps:
        for name, fact in step.facts.items():
            if facts.setdefault(name, fact) is not fact and facts[name] != fact:
                raise RuntimeError(f"two steps mean different things by the fact {name!r}")
    return facts


def _dropped(source: int, at: int, block: Json, step: str, reason: str, evidence: Json | None) -> Order:
    """The original row; what the steps before changed is not in it, but for its `rollforge` block."""
    why: Json = {"step": step, "reason": reason} | ({"evidence": evidence} if evidence is not None else {})
    return (source, at, DROPPED, 1, {"rollforge": {**block, "dropped": why}})


def _kind(line: Unusable) -> str:
    """Why, without what differs from line to line."""
    reason = line.reason.partition(" (")[0]
    return reason if reason == "blank line" else f"unreadable: {reason}"


class _Orders(Sorted[Order]):
    """Orders in any order, handed back by place."""

    def __init__(self, folder: Path) -> None:
        super().__init__(itemgetter(0, 1), folder)
        self.changed = False

    def add(self, order: Order) -> None:
        if order[4] is not None:
            self.changed = True
        super().add(order)


def _of_the_split_before(out: Path, work: _Work, recipe: Json) -> Iterator[str]:
    """What to know where a split is made anew, of other rows or in another way, in the place of an earlier one."""
    splits = [step["split"] for step in work.recipe.resolved if "split" in step]
    if not splits or splits[0]["previous"] or (splits[0]["keep"] and any(file.split for file in work.files)):
        return
    try:
        before = loads((out / MANIFEST).read_bytes())
        split = {f"{name}.jsonl" for name in SPLITS} & {file["file"] for file in before["outputs"]}
        hashes = [work.hashing.row(source)["sha256"] for source in range(len(work.files))]
        same = before["recipe"] == recipe and [file["sha256"] for file in before["inputs"]] == hashes
    except (OSError, ValueError, LookupError, TypeError):
        return
    if split and not same:
        yield (
            f"{out} held a split of other rows, or by another recipe: near duplicates, and what fills an empty split, may "
            f"have changed sides. --split-from {typed(out)} (previous, in a recipe) keeps every prompt on its side"
        )


def _yaml(values: Json) -> str:
    import yaml

    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def _manifest(work: _Work, recipe: Json, written: list[Json]) -> Json:
    """`shares`: of the split that the rows keep, for those who split on from here."""
    from rollforge import __version__

    kept = shares_before([str(file.path) for file in work.files if file.split])
    found = []
    for source, (file, count) in enumerate(zip(work.files, work.counts, strict=True)):
        name = {"file": str(file.path.resolve()), "run": file.run} | ({"split": file.split} if file.split else {})
        found.append(name | count | work.hashing.row(source))
    return {
        "rollforge": __version__,
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": "curate",
        "seed": recipe["seed"],
        "recipe": recipe,
        **({"shares": kept} if kept else {}),
        "inputs": found,
        "outputs": written,
    }
