"""What workers do with a block of rows, or with groups of attempts: examples, rows of every target, part files.

first(block): demonstrations and judged completions are written, attempts are named; second(groups): the prompt of a task's
first attempt, and pairs, for which both rows are read again; third(pairs): pairs of different prompts. All of them return a
`Found`: counts, and places in part files.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeAlias

from rollforge.bulk.asked import asked_of
from rollforge.bulk.blocks import Block, Unusable, read_at, records
from rollforge.bulk.original import replaced
from rollforge.bulk.record import Record, digest
from rollforge.bulk.spill import add_to_runs
from rollforge.errors import UserError
from rollforge.export.examples import Example, Judged, Origin, Pair, Prompt
from rollforge.export.lengths import Counted, Measure, estimate, row_estimate, surely
from rollforge.export.make import (
    Half,
    How,
    answer_of,
    generated,
    hosted,
    is_blank,
    lost,
    make_demonstration,
    make_half,
    make_judged,
    make_pair,
    make_prompt,
    origin_of,
    told,
)
from rollforge.export.mixed import written
from rollforge.export.options import Input, Options
from rollforge.export.pairs import EQUAL_TEXTS, REFUSED, Attempt, Funnel, Left, at_least, left_over, pair_up
from rollforge.export.target import Family, Kind, Refused, Settings, Target
from rollforge.export.text import loose, with_text_arguments
from rollforge.export.writer import Segment, Sheet, Tally
from rollforge.records.items import Json
from rollforge.records.lossless import dumps


@dataclass(slots=True)
class Reason:
    """Why rows were left out: how many, and where the first is."""

    count: int = 0
    source: int = 0
    at: int = 0


@dataclass(frozen=True, slots=True)
class Job:
    """A target's kind that is asked for."""

    number: int
    target: Target
    name: str
    """Of the kind."""
    kind: Kind
    settings: Settings
    one_call: bool
    """The model's chat template refuses turns with several calls."""


@dataclass(frozen=True, slots=True)
class Plan:
    jobs: tuple[Job, ...]
    inputs: tuple[Input, ...]
    options: Options
    how: How
    tokenizer: str | None
    folder: Path
    """For part files."""

    def of(self, *families: Family) -> list[Job]:
        return [job for job in self.jobs if job.kind.family in families]


Stored: TypeAlias = tuple[float, int, int, int, str, str]
"""An `Attempt`, as it is sorted: plain tuples are pickled in a third of the time."""
Run: TypeAlias = tuple[bytes, list[Stored]]
"""A group, and attempts of it that stand together."""
Place: TypeAlias = tuple[int, int]
"""The number of a row's file, and the byte where it starts."""
Build: TypeAlias = Callable[..., Example]
"""(record, origin, how=...): `make_demonstration` and its like."""


@dataclass(slots=True)
class Found:
    """What a unit of work found."""

    rows: Counter[str] = field(default_factory=Counter)
    unusable: dict[str, Reason] = field(default_factory=dict)
    left_out: dict[int, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    refused: dict[int, dict[str, Reason]] = field(default_factory=lambda: defaultdict(dict))
    segments: dict[int, list[tuple[Segment, Tally]]] = field(default_factory=dict)
    attempts: list[Run] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)
    funnels: dict[int, Funnel] = field(default_factory=lambda: defaultdict(Funnel))
    """Per kind of pairs."""
    tools: dict[bytes, Json] = field(default_factory=dict)
    lost: Counter[tuple[Family, str]] = field(default_factory=Counter)
    """What of rollouts no message holds: some reasoning, refusals, tools that are no functions."""
    tasks: int = 0
    done: int = 0
    """Bytes read for the first time."""


def _reason(reasons: dict[str, Reason], text: str, source: int, at: int) -> None:
    reason = reasons.get(text)
    if reason is None:
        if len(reasons) >= _REASONS:
            text = "other reasons"
        reason = reasons.setdefault(text, Reason(0, source, at))
    reason.count += 1


_REASONS = 50


class _Unit:
    """Rows made by one unit of work for all targets."""

    def __init__(self, plan: Plan, number: str) -> None:
        self.plan = plan
        self.found = Found()
        self._number = number
        self._sheets: dict[int, Sheet] = {}
        self._measure: Measure = _counted(plan.tokenizer) if plan.tokenizer else estimate
        self._tools: Any = None
        self._once: set[tuple[int, str, int, int]] = set()
        self._measured: tuple[Any, Any, int] = (None, None, 0)
        self._sides: dict[int, int] = {}

    def add(self, jobs: list[Job], split: str, example: Example) -> bool:
        """Whether any format could hold it."""
        origins = _origins(example)
        origin = origins[0]
        prompt, longest = 0, 0
        apart: set[str] | None = None
        for job in jobs:
            try:
                if isinstance(example, Prompt) and example.not_chat and not job.kind.as_stored:
                    raise Refused(example.not_chat)
                row = job.kind.row(example, job.settings)
                if self.plan.options.arguments == "text" and job.kind.rendered:
                    row = with_text_arguments(row)
                if isinstance(example, Prompt):
                    _check_prompt(example, row, job)
                line, number = written(row)
                if job.kind.by_datasets and number is not None:
                    raise Refused("a whole number beyond 64 bits (`datasets` makes a float of it)")
                if not longest:
                    prompt, longest = self._lengths(example, len(line))
            except (Refused, UserError) as error:
                refuse = self.refuse_once if isinstance(example, Pair) else self.refuse
                refuse([job], told(error), origin)
                continue
            sheet = self._sheets.get(job.number)
            if sheet is None:
                sheet = self._sheets[job.number] = Sheet(self.plan.folder / f"{job.number}-{self._number}")
            tally = sheet.add(split, origin.env, row, line, origins)
            answered = isinstance(example, Prompt) and example.answer is not None
            if isinstance(example, Prompt) and not answered:
                tally.lacking[example.lacking] += 1
            tally.count(
                origin.env, origin.reward, prompt, longest, answered, bool(example.tools) or _most_calls(example) > 0
            )
            if isinstance(example, Judged):
                tally.desirable += example.label
            if apart is None:
                apart = _apart(example)
            for what in apart:
                tally.loose[what] += 1
            if most := job.settings.max_length:
                tally.over += (longest if self.plan.tokenizer else surely(longest)) > most
            if job.one_call and b'"tool_calls"' in line:
                tally.parallel += _most_calls(example) > 1
        if example.tools and example.tools is not self._tools:
            self._tools = example.tools
            for tool in example.tools:
                if len(self.found.tools) < TOOLS:
                    self.found.tools.setdefault(dumps(tool, sort_keys=True), tool)
        return longest > 0

    def make(self, jobs: list[Job], split: str, record: Record, place: Place, build: Build, noted: Family | None) -> None:
        """Build an example and add it, or refuse it; `noted`: for which family to note what no message holds."""
        origin = origin_of(record, *place)
        try:
            self.add(jobs, split, build(record, origin, how=self.plan.how))
            if noted:
                self.note_lost(noted, record)
        except (Refused, UserError) as error:
            self.refuse(jobs, told(error), origin)

    def refuse(self, jobs: Iterable[Job], reason: str, origin: Origin | Attempt) -> None:
        for job in jobs:
            _reason(self.found.refused[job.number], reason, origin.source, origin.at)

    def refuse_once(self, jobs: Iterable[Job], reason: str, chosen: Origin | Attempt) -> None:
        """With however many it was to be paired."""
        for job in jobs:
            one = (job.number, reason, chosen.source, chosen.at)
            if one not in self._once:
                self._once.add(one)
                self.refuse([job], reason, chosen)

    def begin(self) -> None:
        """Attempts at another task follow."""
        self._sides.clear()

    def note_lost(self, family: Family, record: Record) -> None:
        for what in lost(record, self.plan.how, asked=family == "prompt"):
            self.found.lost[family, what] += 1
        for what in hosted(record):
            self.found.lost[family, f"a tool that is no function ({what})"] += 1

    def leave_out(self, jobs: Iterable[Job], reason: str) -> None:
        for job in jobs:
            self.found.left_out[job.number][reason] += 1

    def close(self) -> Found:
        for number, sheet in self._sheets.items():
            self.found.segments[number] = sheet.close()
        return self.found

    def _lengths(self, example: Example, size: int) -> tuple[int, int]:
        measure = self._measure
        if isinstance(example, Prompt):
            prompt = measure(example.messages, example.tools)
            answer = generated(example)
            if answer is None:
                answer = measure([{"role": "assistant", "content": example.output}], ())
            return prompt, prompt + answer
        if example.prompt is not self._measured[0] or example.tools is not self._measured[1]:
            # Attempts at one task share the very list.
            self._measured = (example.prompt, example.tools, measure(example.prompt, example.tools))
        prompt = self._measured[2]
        if measure is estimate and not isinstance(example, Pair):
            return prompt, max(prompt, row_estimate(size, example.tools))
        if isinstance(example, Pair):
            return prompt, prompt + max(self._side(example.chosen), self._side(example.rejected))
        return prompt, prompt + measure(example.completion, ())

    def _side(self, completion: list[Json]) -> int:
        """Of a pair: each kind makes pairs of the very same ones."""
        tokens = self._sides.get(id(completion))
        if tokens is None:
            tokens = self._sides[id(completion)] = self._measure(completion, ())
        return tokens


TOOLS = 2000
"""Distinct ones that are kept."""


def _check_prompt(example: Prompt, row: Json, job: Job) -> None:
    if job.kind.needs_answer and example.answer is None:
        raise Refused(example.lacking)
    # Some environments write the prompt themselves, when the session begins: their tasks are whole without one.
    if is_blank(example.messages) and "responses_create_params" not in row:
        raise Refused("the prompt is empty: the environment writes it (only nemo-rl:nemo-gym can hold such tasks)")


def _origins(example: Example) -> tuple[Origin, ...]:
    return (example.chosen_from, example.rejected_from) if isinstance(example, Pair) else (example.origin,)


def _most_calls(example: Example) -> int:
    """In one turn."""
    return max((len(message.get("tool_calls", ())) for part in _parts(example) for message in part), default=0)


def _apart(example: Example) -> set[str]:
    """What of its calls and results does not belong together."""
    prompt, *sides = _parts(example)
    return {what for side in sides or [[]] for _, what in loose([*prompt, *side])}


def _parts(example: Example) -> list[list[Json]]:
    """Its prompt, and what may follow it."""
    if isinstance(example, Prompt):
        return [example.messages]
    if isinstance(example, Pair):
        return [example.prompt, example.chosen, example.rejected]
    return [example.prompt, example.completion]


@lru_cache(maxsize=1)
def _counted(path: str) -> Counted:
    return Counted(path)


# The three passes


def first(plan: Plan, block: Block) -> Found:
    unit = _Unit(plan, f"1-{block.source}-{block.start}")
    found, options = unit.found, plan.options
    found.done = block.end - block.start
    source = plan.inputs[block.source]
    demonstrations = plan.of("demonstration")
    judged = [job for job in plan.of("judged") if not job.kind.every]
    every = [job for job in plan.of("judged") if job.kind.every]
    prompts, pairs = plan.of("prompt"), plan.of("pair")
    low = f"reward < {options.min_reward:g} (--min-reward)"
    between = f"reward between {options.low_threshold:g} and {options.high_threshold:g}"
    indexed = bool(prompts or pairs)
    seen: set[tuple[bytes, bool]] = set()
    prompt, split = b"", source.split or "train"
    group = b""
    for at, record in records(block, source.env, eager=bool(demonstrations or judged or every)):
        if isinstance(record, Unusable):
            _reason(found.unusable, record.reason, block.source, at)
            continue
        reward = record.reward
        if reward is None:
            found.rows[record.outcome] += 1
            continue
        try:
            if source.split is None and record.prompt != prompt:
                prompt, split = record.prompt, split_of(record, options)
            if indexed:
                group = _task(record, options.answer)
            found.rows[record.outcome] += 1
        except UserError as error:
            _reason(found.unusable, told(error), block.source, at)
            continue
        place, high = (block.source, at), at_least(reward, options.high_threshold)
        if demonstrations and at_least(reward, options.min_reward):
            unit.make(demonstrations, split, record, place, make_demonstration, "demonstration")
        else:
            unit.leave_out(demonstrations, low)
        if every:
            unit.make(every, split, record, place, partial(make_judged, label=high, whole=True), "judged")
        if judged and (high or at_least(options.low_threshold, reward)):
            unit.make(judged, split, record, place, partial(make_judged, label=high), None if every else "judged")
        else:
            unit.leave_out(judged, between)
        if pairs:
            add_to_runs(found.attempts, group, (reward, record.size, block.source, at, split, record.env))
        elif prompts and (one := (group, _prompt_wanted(reward, options))) not in seen:
            # Of each task its first attempt, and the first that is good enough.
            seen.add(one)
            found.attempts.append((group, [(reward, 0, block.source, at, split, record.env)]))
    return unit.close()


def _task(record: Record, answer: str | None) -> bytes:
    """`Record.group`; where --answer names what is expected, another answer makes another task, as it does under the usual
    names."""
    told = None if answer is None or record.named else answer_of(record, answer)
    return record.group if told is None else digest(record.group + dumps(told))


def _prompt_wanted(reward: float, options: Options) -> bool:
    """Whether an attempt's prompt is wanted."""
    return options.prompt_reward is None or at_least(reward, options.prompt_reward)


Groups: TypeAlias = list[list[Stored]]


def second(plan: Plan, work: tuple[int, Groups]) -> Found:
    """Prompts and pairs of groups. Their first attempts are in the order of the input."""
    number, groups = work
    unit = _Unit(plan, f"2-{number}")
    options = plan.options
    prompts, pairs = plan.of("prompt"), plan.of("pair")
    unit.found.tasks = len(groups)
    with Rows(plan.inputs, eager=bool(pairs)) as rows:
        for stored in groups:
            attempts = [Attempt(*one) for one in stored]
            held: dict[Place, Half | None] = {}
            if prompts:
                one = next((one for one in attempts if _prompt_wanted(one.reward, options)), None)
                if one is None:
                    unit.leave_out(prompts, f"no reward >= {options.prompt_reward:g} (--prompt-reward)")
                else:
                    unit.make(prompts, one.split, rows.at(one), one[2:4], make_prompt, "prompt")
            if not pairs:
                continue
            half = partial(_half, unit, rows, held)
            unit.begin()
            for job in pairs:
                whys: set[str] = set()
                made, outcome = pair_up(attempts, options, partial(_no_pair, unit, job, half, whys), partial(_said, half))
                if outcome == EQUAL_TEXTS and whys != {EQUAL_TEXTS}:
                    outcome = REFUSED
                unit.found.funnels[job.number].count(attempts, outcome, len(made), options)
                if options.strategy == "stratified" and options.across_prompts:
                    for is_high, left in zip((True, False), left_over(attempts, made, options), strict=True):
                        unit.found.left += [Left(is_high, one, job.number) for one in left]
    return unit.close()


def third(plan: Plan, work: tuple[int, list[tuple[int, Attempt, Attempt]]]) -> Found:
    """Pairs of different prompts."""
    number, pairs = work
    unit = _Unit(plan, f"3-{number}")
    with Rows(plan.inputs, eager=True) as rows:
        for job, good, bad in pairs:
            unit.begin()
            if not _no_pair(unit, plan.jobs[job], partial(_half, unit, rows, {}), set(), good, bad):
                unit.found.funnels[job].across += 1
    return unit.close()


class Rows:
    """Rows by their places; places that go up are read fastest."""

    def __init__(self, inputs: Sequence[Input], eager: bool) -> None:
        self._inputs, self._eager = inputs, eager
        self._files: dict[int, Any] = {}

    def __enter__(self) -> Rows:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()

    def at(self, place: Attempt) -> Record:
        one = self._inputs[place.source]
        file = self._files.get(place.source)
        if file is None:
            if len(self._files) >= _OPEN:
                self._files.pop(next(iter(self._files))).close()
            file = self._files[place.source] = open(one.file, "rb", buffering=1 << 16)
        record = read_at(file, place.at, one.env, eager=self._eager)
        if isinstance(record, Unusable):
            raise replaced(one.file)
        return record


_OPEN = 64


def _half(unit: _Unit, rows: Rows, held: dict[Place, Half | None], place: Attempt) -> Half | None:
    where = (place.source, place.at)
    if where not in held:
        record = rows.at(place)
        try:
            held[where] = make_half(record, origin_of(record, place.source, place.at), unit.plan.how)
            unit.note_lost("pair", record)
        except (Refused, UserError) as error:
            unit.refuse(unit.plan.of("pair"), told(error), place)
            held[where] = None
    return held[where]


def _said(half: Callable[[Attempt], Half | None], one: Attempt) -> bytes | None:
    found = half(one)
    return None if found is None else found.said


def _no_pair(
    unit: _Unit, job: Job, half: Callable[[Attempt], Half | None], whys: set[str], good: Attempt, bad: Attempt
) -> bool:
    """Write the row of two attempts, or say that they are no pair for this kind; why goes into `whys`."""
    one, other = half(good), half(bad)
    if one is not None and is_blank(one.completion[-1:]):
        unit.refuse_once(unit.plan.of("pair"), "the chosen answer is empty", good)
        return True
    if one is None or other is None:
        return True
    if one.says_the_same(other):
        whys.add(EQUAL_TEXTS)
        return True
    if unit.add([job], good.split, make_pair(one, other)):
        return False
    whys.add(REFUSED)
    return True


def split_of(record: Record, options: Options) -> str:
    """train or validation, by a hash of the prompt: no prompt is on both sides, and data that grows keeps its sides."""
    if not options.validation:
        return "train"
    place = int.from_bytes(digest(b"%d:%b" % (options.seed, asked_of(record)))[:8], "big") / 2**64
    return "validation" if place < options.validation else "train"
