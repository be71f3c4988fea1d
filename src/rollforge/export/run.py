"""`export_rollouts`: stored rollouts to the files that trainers read, for several targets in one pass.

    files ─► blocks ─► first(): rows of demonstrations and judged completions are made; attempts are indexed
                              │ attempts (group, reward, place), sorted on disk into groups
                              ▼
                       second(): of each group the first attempt's prompt, and pairs (both rows are read again)
                              │ what is left over, sorted by environment: only with `across_prompts`
                              ▼
                       third(): pairs of different prompts
    parts ─► writer.put_together ─► configuration, launch script ─► check, card, manifest ─► `place`: renamed

Workers do first, second and third; the parent holds counts and places.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, groupby
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import Any

from rollforge.bulk.alien import refuse_alien
from rollforge.bulk.blocks import Block, blocks
from rollforge.bulk.original import Original
from rollforge.bulk.spill import Kept, grouped, sort
from rollforge.bulk.workers import processes, spread
from rollforge.errors import UserError, unknown
from rollforge.export import card, manifest
from rollforge.export.aim import aimed, wrong_key
from rollforge.export.lengths import Counted
from rollforge.export.make import How
from rollforge.export.options import Input, Options, validated
from rollforge.export.pairs import Funnel, Left, across, for_across, told_without_effect, without_effect
from rollforge.export.passes import TOOLS, Found, Groups, Job, Plan, Reason, Run, Stored, first, second, third
from rollforge.export.place import move, workplace
from rollforge.export.result import Done, Exported
from rollforge.export.sizing import release, too_large
from rollforge.export.target import Data, Made, Settings, Target
from rollforge.export.text import LEARNED, takes_one_call
from rollforge.export.writer import Parts, sha256
from rollforge.models.template import find_template
from rollforge.records.items import Json
from rollforge.records.shown import typed
from rollforge.registry import known, resolve
from rollforge.stats.source import find_each
from rollforge.stats.text import plural
from rollforge.stats.thresholds import FEW


def export_rollouts(
    runs: str | Path | Sequence[str | Path],
    to: str | Sequence[str | tuple[Target, str]],
    out: str | Path,
    *,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> Exported:
    """Write data, configuration, launch script, check, manifest and card for each of `to` under `out/<target>-<kind>`.

    `to` has `target:kind`, as in "nemo-rl:grpo"; `options` are those of `Options` and `Settings`. `progress` is called with
    (bytes read, bytes in all). Raises `UserError`; nothing is left under the final names then.
    """
    settings = _found(validated(Settings, {key: value for key, value in options.items() if key in Settings.model_fields}))
    rest = {key: value for key, value in options.items() if key not in Settings.model_fields}
    for key in rest:
        if key not in Options.model_fields:
            raise unknown("option", key, {*Options.model_fields, *Settings.model_fields})
    given = validated(Options, rest)
    targets = map(find_target, [to] if isinstance(to, str) else to)
    wanted = list({f"{target.name}:{kind}": (target, kind) for target, kind in targets}.values())
    if not wanted:
        raise UserError(f"name at least one target: --to nemo-rl:grpo (targets: {', '.join(sorted(known('export')))})")
    inputs, planned = find_inputs([runs] if isinstance(runs, (str, Path)) else runs)
    _refuse_half_split(inputs, given)
    size = sum(one.file.stat().st_size for one in inputs)
    workers = given.workers or processes(size)
    final = Path(out).resolve()
    names = [f"{target.name}-{kind}" for target, kind in wanted]
    originals = [Original(one.file) for one in inputs]
    with workplace(final, names, given.overwrite) as work, manifest.hashed(originals, beside=workers > 1) as hashes:
        plan = _plan(wanted, inputs, settings, given, work / "parts")
        totals = Totals([_parts(job) for job in plan.jobs])
        ends = run_passes(plan, totals, planned, workers, lambda done: progress(done, size) if progress else None)
        done = [_finish(job, plan, totals, work, final, workers) for job in plan.jobs]
        notes = [*_without_effect(wanted, given), *too_large(settings)]
        result = Exported(final, inputs, given, totals.rows, totals.unusable, planned, done, notes)
        sources = manifest.sources(inputs, ends, hashes(ends))
        for original in originals:
            original.check()
        for one in done:
            if one.files:
                write(work / one.folder.name / "README.md", card.card(one, result, work / one.folder.name))
                write(work / one.folder.name / "manifest.json", manifest.dump(manifest.manifest(one, result, sources)))
        for one in done:
            if one.files:
                one.kept = move(work / one.folder.name, one.folder, given.overwrite)
            elif one.folder.exists():
                one.warnings.append(f"what stands in {one.folder} is of an earlier export: nothing was replaced")
    return result


def _found(settings: Settings) -> Settings:
    """What is on this machine by its absolute path: trainers start from directories of their own."""
    found = {
        "model": _absolute(settings.model, os.path.isdir),
        "container": settings.container and _absolute(settings.container, os.path.isfile),
        "checkpoints": os.path.expanduser(settings.checkpoints),
    }
    return settings.model_copy(update=found)


def _absolute(name: str, there: Callable[[str], bool]) -> str:
    """A name in a hub or a registry stays."""
    path = os.path.expanduser(name)
    return os.path.abspath(path) if path.startswith((".", "/")) or there(path) else name


def _refuse_half_split(inputs: list[Input], options: Options) -> None:
    split = next((one.name for one in inputs if one.split is not None), None)
    other = next((one.name for one in inputs if one.split is None), None)
    if split is not None and other is not None and options.validation:
        together = f"rollforge curate {typed(split)} {typed(other)} --split 90/10 --out DIR"
        raise UserError(
            f"{split} is split already, {other} is not: its prompts would fall on sides of their own. Split both together "
            f"({together}), or --validation 0: all of {other} is train"
        )


def _without_effect(wanted: list[tuple[Target, str]], options: Options) -> list[str]:
    families = {target.kinds[kind].family for target, kind in wanted}
    idle = without_effect(options) if "pair" in families else {}
    judged = ("high_threshold", "low_threshold") if "judged" in families else ()
    return told_without_effect({name: goes for name, goes in idle.items() if name not in judged})


def _plan(wanted: list[tuple[Target, str]], inputs: list[Input], settings: Settings, options: Options, parts: Path) -> Plan:
    names = {target.name for target, _ in wanted}
    for name, version in options.target_version.items():
        if name not in names:
            raise unknown("target", name, names, "(in --target-version)")
        versions = next(target.versions for target, _ in wanted if target.name == name)
        release(version, versions, name)
    jobs = []
    for number, ((target, kind), keys) in enumerate(zip(wanted, aimed(settings.set, wanted), strict=True)):
        if target.kinds[kind].needs_mapping and not settings.mapping:
            raise UserError(
                f"{target.name}:{kind} has no mapping: --mapping FILE, a YAML file with lines such as `question: prompt`"
            )
        wanted_version = options.target_version.get(target.name, settings.version)
        mine = settings.model_copy(update={"version": wanted_version, "set": keys})
        jobs.append(Job(number, target, kind, target.kinds[kind], mine, takes_one_call(settings.model)))
    if settings.tokenizer:
        # What is wrong with it is said before anything is read.
        Counted(settings.tokenizer)
        find_template(settings.tokenizer)
    elif options.arguments == "text":
        raise UserError("--arguments text: most chat templates quote it twice; give the one that wants it (--tokenizer)")
    parts.mkdir()
    how = How(options.reasoning, options.answer)
    return Plan(tuple(jobs), tuple(inputs), options, how, settings.tokenizer, parts)


def find_target(text: str | tuple[Target, str]) -> tuple[Target, str]:
    """Raises `UserError` listing the known targets, or the target's kinds."""
    if isinstance(text, tuple):
        return text[0], _kind(text[0], text[1])
    name, _, kind = text.partition(":")
    target: Target = resolve("export", name)
    if not kind:
        kinds = ", ".join(f"{name}:{one}" for one in target.kinds)
        raise UserError(f"--to {text}: say which kind of data: {kinds}")
    return target, _kind(target, kind)


def _kind(target: Target, kind: str) -> str:
    if "," in kind:
        raise UserError(f"--to {target.name}:{kind}: each target has a --to of its own: --to trl:sft --to trl:dpo")
    if kind not in target.kinds:
        raise unknown(f"kind of {target.name}", kind, target.kinds)
    return kind


def find_inputs(runs: Iterable[str | Path]) -> tuple[list[Input], int | None]:
    """The files of the runs, and how many rollouts were planned, if all of them say so. The files of a
    curated directory keep their split. Raises `UserError`, also for a file that is there twice."""
    inputs: list[Input] = []
    planned: int | None = 0
    for source in find_each(runs):
        planned = None if planned is None or source.planned is None else planned + source.planned
        for number, file in enumerate(source.files):
            inputs.append(Input(source.name, file, source.env, source.splits[number] if source.splits else None))
    for one in inputs:
        refuse_alien(one.file)
    if not inputs:
        raise UserError("name at least one run: a run directory, or a JSONL file of rollouts")
    return inputs, planned


# The passes


class Totals:
    """What all units of work found together."""

    def __init__(self, parts: list[Parts]) -> None:
        self.rows: Counter[str] = Counter()
        self.unusable: dict[str, Reason] = {}
        self.left_out: list[Counter[str]] = [Counter() for _ in parts]
        self.refused: list[dict[str, Reason]] = [{} for _ in parts]
        self.parts = parts
        self.funnels = [Funnel() for _ in parts]
        self.tasks = 0
        self.lost: Counter[tuple[str, str]] = Counter()
        self.tools: dict[bytes, Json] = {}

    def add(self, found: Found) -> None:
        self.rows += found.rows
        _add_reasons(self.unusable, found.unusable)
        for number, reasons in found.left_out.items():
            self.left_out[number] += reasons
        for number, refused in found.refused.items():
            _add_reasons(self.refused[number], refused)
        for number, segments in found.segments.items():
            self.parts[number].add(segments)
        for number, funnel in found.funnels.items():
            self.funnels[number].add(funnel)
        self.tasks += found.tasks
        self.lost += found.lost
        for key, tool in found.tools.items():
            if len(self.tools) < TOOLS:
                self.tools.setdefault(key, tool)


def _parts(job: Job) -> Parts:
    kind = job.kind
    columns = dict(kind.columns or {}) if kind.format == "parquet" else None
    per_env = kind.per_env is not None and kind.per_env(job.settings)
    return Parts(per_env=per_env, pairs=kind.family == "pair", columns=columns)


def _add_reasons(to: dict[str, Reason], more: dict[str, Reason]) -> None:
    for text, reason in more.items():
        if text in to:
            to[text].count += reason.count
        else:
            to[text] = reason


def run_passes(plan: Plan, totals: Totals, planned: int | None, workers: int, progress: Callable[[int], None]) -> list[int]:
    """How much of each file was read, in bytes."""
    ends = [0] * len(plan.inputs)

    def cut() -> Iterator[Block]:
        for block in blocks([one.file for one in plan.inputs]):
            ends[block.source] = block.end
            yield block

    def attempts() -> Iterator[Run]:
        done = 0
        for found in spread(partial(first, plan), cut(), workers):
            totals.add(found)
            done += found.done
            progress(done)
            yield from found.attempts

    def left(units: Iterable[tuple[int, Groups]]) -> Iterator[Left]:
        for found in spread(partial(second, plan), units, workers):
            totals.add(found)
            yield from found.left

    # The first group is known when everything was read.
    groups = grouped(attempts(), itemgetter(0), plan.folder, at_once=20_000)
    start = next(groups, None)
    _check_coverage(totals, planned, plan)
    if start is None:
        return ends
    in_order = sort((_by_place(group) for group in chain([start], groups)), _first_place, plan.folder, at_once=10_000)
    kept = Kept(plan.folder, sort(left(_units(in_order, len)), for_across, plan.folder))
    for found in spread(partial(third, plan), _units(across(kept, plan.options), lambda _: 2), workers):
        totals.add(found)
    kept.close()
    return ends


def _by_place(group: list[Run]) -> list[Stored]:
    return sorted(chain.from_iterable(run for _, run in group), key=_place)


_place = itemgetter(2, 3)


def _first_place(attempts: list[Stored]) -> Any:
    return _place(attempts[0])


def _units(items: Iterable[Any], size: Callable[[Any], int]) -> Iterator[tuple[int, list[Any]]]:
    """(number, items) of about a thousand rows."""
    number, batch, rows = 0, [], 0
    for item in items:
        batch.append(item)
        rows += size(item)
        if rows >= 1000:
            yield number, batch
            number, batch, rows = number + 1, [], 0
    if batch:
        yield number, batch


def _check_coverage(totals: Totals, planned: int | None, plan: Plan) -> None:
    judged = totals.rows["scored"] + totals.rows["policy_fault"]
    bad = sum(reason.count for text, reason in totals.unusable.items() if text != "blank line")
    read = sum(totals.rows.values()) + bad
    names = ", ".join(dict.fromkeys(one.name for one in plan.inputs))
    if not judged:
        whys = [f"{count:,} {name}" for name, count in totals.rows.items()]
        whys += [f"{text} ({reason.count:,} lines)" for text, reason in list(totals.unusable.items())[:3]]
        why = "; ".join(whys)
        raise UserError(f"{names}: no judged rollout in {read:,} lines{f': {why}' if why else ''}")
    least = plan.options.min_coverage
    if judged < least * max(planned or 0, read):
        failed = _failed(plan.inputs)
        ended = judged + failed.total() + bad
        asked = max(planned or 0, ended)
        if judged >= least * asked:
            return
        outcomes = [f"{count:,} {name}" for name, count in failed.items()]
        outcomes += [f"{bad:,} unusable lines"] if bad else []
        outcomes += [f"{asked - ended:,} not attempted"] if asked > ended else []
        raise UserError(
            f"{names}: {judged:,} of {asked:,} rollouts were judged ({judged / asked:.1%}; at least {least:.0%} must be), "
            f"the others: {', '.join(outcomes)}. Go on with the same `rollforge collect` command and --retry-failed, "
            f"or accept it: --min-coverage {int(judged / asked * 100) / 100:g}"
        )


def _failed(inputs: Iterable[Input]) -> Counter[str]:
    """The rollouts that no attempt gave a reward, by outcome. Rows are attempts: what failed before a rollout was judged is
    no loss."""
    from rollforge.stats.reading import read_files

    sources = [[(str(one.file), one.env) for one in group] for _, group in groupby(inputs, key=attrgetter("name"))]
    failed: Counter[str] = Counter()
    for kind, count in read_files(sources, keep_bad=0).failed.items():
        failed[kind.outcome] += count
    return failed


# One target's directory


def _finish(job: Job, plan: Plan, totals: Totals, work: Path, out: Path, workers: int) -> Done:
    target, kind, number, settings = job.target, job.name, job.number, job.settings
    name = f"{target.name}-{kind}"
    folder, place = out / name, work / name
    place.mkdir()
    files = totals.parts[number].write(place)
    data = [
        Data(
            split=one.split,
            envs=sorted(one.tally.envs),
            path=folder / one.name,
            rows=one.tally.rows,
            longest_prompt=one.tally.longest_prompt,
            longest=one.tally.longest,
            answered=one.tally.answered,
            desirable=one.tally.desirable,
            tools=one.tally.tools,
        )
        for one in files
    ]
    made = Made(kind, folder, data, settings, settings.tokenizer is not None, list(totals.tools.values()))
    family = job.kind.family
    done = Done(
        target=target,
        kind=kind,
        folder=folder,
        made=made,
        files=files,
        left_out=totals.left_out[number],
        refused=totals.refused[number],
        pairs=totals.funnels[number] if family == "pair" else None,
        tasks=totals.tasks if family in ("prompt", "pair") else None,
    )
    if files:
        # Checked where it stands, before it has its final name: for that the configuration names this place first.
        _configure(target, replace(made, folder=place, data=[replace(one, path=place / one.path.name) for one in data]))
        checked = _check(done, place, settings.tokenizer, workers)
        _configure(target, made, place)
        inside = sorted(path for path in place.rglob("*") if path.is_file())
        data_files = {one.name for one in files}
        done.beside = {str(path.relative_to(place)): sha256(path) for path in inside if path.name not in data_files}
        write(place / "check.json", manifest.dump(checked))
    done.warnings += _warnings(done, job, plan, totals)
    if done.over and (said := job.kind.overlong):
        # The check tells it of a sample, by an estimate.
        done.problems = [one for one in done.problems if said not in one.message]
    return done


def _warnings(done: Done, job: Job, plan: Plan, totals: Totals) -> Iterator[str]:
    kind, options = job.kind, plan.options
    for key in job.settings.set:
        if wrong := wrong_key(done.target, done.kind, key):
            yield f"--set {key}: {wrong}; it is written as given"
    for (of, what), count in sorted(totals.lost.items()):
        if of == kind.family and not kind.as_stored:
            whose = plural(count, "task" if of == "prompt" else "rollout")
            yield f"{whose} had {what}: chat messages have no place for it"
    if parallel := sum(one.tally.parallel for one in done.files):
        yield (
            f"{parallel:,} of {done.rows:,} rows have several calls in one turn: {job.settings.model}'s chat template "
            "refuses them (single tool-calls only), and training stops; give the tokenizer a template that takes them"
        )
    apart = sum((one.tally.loose for one in done.files), Counter[str]())
    for what, count in sorted(apart.items()):
        if not any(what in one.message for one in done.problems):  # with their lines
            yield f"{count:,} of {done.rows:,} rows have {what}: {LEARNED}"
    if kind.overlong and done.over:
        longest = max(one.tally.longest for one in done.files)
        yield (
            f"{done.over:,} of {done.rows:,} rows are longer than --max-length {job.settings.max_length:,}, the longest of "
            f"{'' if done.made.measured else 'about '}{longest:,} tokens: {kind.overlong}"
        )
    asked = options.validation
    if asked and {one.split for one in done.files} == {"train"} and not all(one.split for one in plan.inputs):
        yield (
            f"nothing is held out for validation: all rows fall on one side of --validation {asked:g}, by the hash of their "
            "prompts (another share, or another --seed)"
        )
    if kind.family == "prompt":
        yield from _unanswered(done, options.answer)
    rows = sum(one.rows for one in done.made.of("train"))
    if kind.family == "demonstration" and rows < FEW:
        refused = sum(one.count for one in done.refused.values())
        remedy = (
            "most were refused: another kind may hold them" if refused > rows else "a lower --min-reward, or collect more"
        )
        yield f"{plural(rows, 'demonstration')} to train on; {FEW} and more are usual ({remedy})"
    if done.pairs is not None:
        if few := done.pairs.few(options):
            yield few
        if done.pairs.across:
            yield f"{done.pairs.across:,} pairs are of different prompts: their rejected answers belong to another question"


def _unanswered(done: Done, field: str | None) -> Iterator[str]:
    """What is to be said of prompts without an expected answer."""
    lacking: Counter[str] = Counter()
    for file in done.files:
        lacking += file.tally.lacking
    missing = lacking.total()
    unanswered = done.target.kinds[done.kind].unanswered
    if missing and unanswered:
        why = "; ".join(f"{count:,}: {text}" for text, count in lacking.most_common(3))
        yield f"{missing:,} of {done.rows:,} prompts have no expected answer: {unanswered} ({why})"
    nowhere = f"the row has no {field} (--answer)"
    refused = sum(one.count for text, one in done.refused.items() if text.startswith(nowhere))
    if field is not None and done.tasks and lacking[nowhere] + refused == done.tasks:
        yield f"no row has {field}: --answer names a field that is not there"


def write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _configure(target: Target, made: Made, place: Path | None = None) -> None:
    """Configuration, launch script and helper modules, into the data's own folder or another `place`."""
    if not any(one.rows for one in made.of("train")):
        return
    try:
        files = target.files(made)
    except UserError as error:
        raise UserError(f"--to {target.name}:{made.kind}: {error}") from error
    for file, text in files.items():
        path = (place or made.folder) / file
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, text)
        if file.endswith(".sh"):
            path.chmod(0o755)


def _check(done: Done, place: Path, tokenizer: str | None, workers: int) -> Json:
    """What the check says of `place`, in the words of the final folder."""
    from rollforge.export.check import check_export

    model = tokenizer if tokenizer and find_template(tokenizer) else None
    checked = check_export(place, done.target, done.kind, tokenizer=model, workers=workers)
    checked = checked.moved(str(place), str(done.folder))
    done.problems, done.loader = checked.problems, checked.tried
    return checked.row()
