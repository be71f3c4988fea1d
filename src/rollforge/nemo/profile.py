"""Metrics of rollout files in NeMo Gym's shapes, without a server: per agent, and per task with its repeats.

A line that is no rollout is handed to `bad`. `say` is told when task numbers had to be given anew.
"""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from glob import glob
from hashlib import blake2b
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import Any

from rollforge.errors import UserError
from rollforge.nemo.config import AGENTS
from rollforge.nemo.rows import as_object, lines, same_file, unusable
from rollforge.records.items import Json, inside, mapping
from rollforge.records.lossless import dumps
from rollforge.records.rows import BadLine, group_of
from rollforge.stats.aggregate import aggregate

Bad = Callable[[BadLine], None]
Say = Callable[[str], None]

BIG = ("responses_create_params", "response")
"""What statistics need nothing of, save the usage."""
BESIDE = re.compile(r"(.+)_(materialized_inputs|failures|reward_profiling|aggregate_metrics|agent_metrics)\.jsonl?(\.\d+)?")
"""Names of the files that stand beside rollouts and hold none."""


def metrics_by_agent(paths: Sequence[Path], bad: Bad, say: Say) -> list[Json]:
    """`agent_ref`, `agent_metrics`, `key_metrics`, `group_level_metrics` of each agent."""
    by_agent: dict[str, list[tuple[Json, _Place | None]]] = defaultdict(list)
    tasks = _Tasks()
    for number, path in enumerate(paths):
        for row in rollouts_of(path, bad):
            by_agent[str(inside(row, "agent_ref", "name") or "")].append((_small(row), tasks.place(number, row)))
    numbers = tasks.numbers(say)
    for row, place in (pair for pairs in by_agent.values() for pair in pairs):
        if place is not None and numbers:
            row["_ng_task_index"] = numbers[place]
    return [
        {"agent_ref": {"type": AGENTS, "name": name}, **aggregate(sorted((row for row, _ in pairs), key=_order))}
        for name, pairs in sorted(by_agent.items())
    ]


def matching(pattern: str) -> list[Path]:
    """The rollout files of one glob pattern, or of several with commas between, without those that stand beside them.
    Raises `UserError` if there are none."""
    found = {Path(path): None for part in pattern.split(",") for path in sorted(glob(part.strip()))}
    kept = [path for path in found if not _beside_rollouts(path)]
    if not kept:
        others = f" but what stands beside rollouts: {', '.join(map(str, found))}" if found else ""
        raise UserError(f"no file matches +input_glob={pattern}{others}")
    return kept


def _beside_rollouts(path: Path) -> bool:
    match = BESIDE.fullmatch(path.name)
    return match is not None and path.with_name(f"{match[1]}.jsonl").exists()


def merge_shards(paths: Sequence[Path], output: Path, bad: Bad, say: Say) -> int:
    """All rows by task and repeat in one file; how many. A line that another shard has too is written once. Where a number
    means one task in one shard and another task in another, tasks and repeats are numbered anew."""
    if any(same_file(path, output) for path in paths):
        raise UserError(f"{output} is one of the shards: choose another +output_jsonl_fpath")
    tasks = _Tasks()
    rows: list[tuple[int, int, int, int]] = []
    """Task, repeat, shard, offset in it."""
    seen: set[bytes] = set()
    with output.open("wb") as out, ExitStack() as opened:
        shards = [opened.enter_context(open(path, "rb")) for path in paths]
        for shard, file in enumerate(shards):
            offset = 0
            for number, line in enumerate(file, 1):
                digest = blake2b(line.strip(), digest_size=16).digest()
                row = _rollout(paths[shard], number, line, bad) if digest not in seen else None
                if row is not None:
                    seen.add(digest)
                    tasks.place(shard, row)
                    rows.append((*_order(row), shard, offset))
                offset += len(line)
        numbers = tasks.numbers(say)
        rows = sorted((numbers.get((shard, task), task), repeat, shard, offset) for task, repeat, shard, offset in rows)
        for task, of_task in groupby(rows, itemgetter(0)):
            for repeat, (_, _, shard, offset) in enumerate(of_task):
                shards[shard].seek(offset)
                line = _text(shards[shard].readline())
                if numbers and task != LAST:
                    line = dumps({**as_object(line), "_ng_task_index": task, "_ng_rollout_index": repeat})
                out.write(line + b"\n")
    return len(rows)


def reward_profile(
    inputs: Path, rollouts: Path, bad: Bad, *, partial: bool, threshold: float | None = None
) -> tuple[list[Json], list[Json]]:
    """One row per task (statistics, the task, its rollouts, how many are missing; how many have the reward `threshold`), and
    the metrics per agent.

    Raises `UserError` for rollouts that no input plans, and, unless `partial`, for inputs without their rollout.
    """
    samples: dict[int, Json] = {}
    expected: Counter[int] = Counter()
    planned = set()
    for number, row in _objects(inputs, bad):
        key = _order(row)
        if LAST in key:
            raise UserError(f"{inputs}:{number}: {UNNUMBERED}: it is no file of materialized inputs")
        planned.add(key)
        expected[key[0]] += 1
        samples.setdefault(key[0], {k: v for k, v in row.items() if k not in ("_ng_task_index", "_ng_rollout_index")})
    found: dict[tuple[int, int], Json] = {}
    for number, row in _objects(rollouts, bad):
        if LAST in (key := _order(row)):
            bad(BadLine(str(rollouts), number, UNNUMBERED))
        elif _is_rollout(row):
            found[key] = _small(row)
        else:
            bad(BadLine(str(rollouts), number, NO_ROLLOUT))
    extra, missing = sorted(found.keys() - planned), sorted(planned - found.keys())
    if extra:
        raise UserError(f"{rollouts} has {len(extra)} rollouts that {inputs} does not plan (task, repeat): {_few(extra)}")
    if missing and not partial:
        raise UserError(
            f"{len(missing)} planned rollouts are missing (task, repeat): {_few(missing)}; "
            "to profile those there are: ++allow_partial_rollouts=true"
        )
    groups: dict[int, list[Json]] = defaultdict(list)
    for key in sorted(found):
        groups[key[0]].append(found[key])
    tasks = [
        _profiled(task, rows, samples[task], expected[task]) | _passes(rows, threshold)
        for task, rows in sorted(groups.items())
    ]
    agents = metrics_by_agent([rollouts], _nobody, _nobody)  # what is wrong with them was told above
    return tasks, [{**one["agent_metrics"], "agent_ref": one["agent_ref"]} for one in agents]


def _profiled(task: int, rows: list[Json], sample: Json, expected: int) -> Json:
    return {
        "_ng_task_index": task,
        **{key: value for key, value in aggregate(rows)["agent_metrics"].items() if "@" not in key},
        "sample": sample,
        "num_rollouts": len(rows),
        "expected_num_rollouts": expected,
        "missing_num_rollouts": expected - len(rows),
        "reward_profile_completion_pct": 100.0 * len(rows) / expected,
        "rollout_infos": [_info(row) for row in rows],
    }


def _passes(rows: list[Json], threshold: float | None) -> Json:
    """Of the rollouts that have a reward."""
    if threshold is None:
        return {}
    rewards = [reward for row in rows if isinstance(reward := row.get("reward"), (int, float))]
    passed = sum(reward >= threshold for reward in rewards)
    return {
        "pass_threshold": threshold,
        "pass_rate": passed / len(rewards) if rewards else None,
        "pass_rate_total": len(rewards),
        "pass_rate_passed": passed,
    }


def is_plan(path: Path) -> bool:
    """Whether a file holds materialized inputs: its first row is numbered."""
    return any(LAST not in _order(row) for _, row in islice(_objects(path, _nobody), 1))


def _info(row: Json) -> Json:
    task, rollout = row["_ng_task_index"], row["_ng_rollout_index"]
    numbers = {**((row.get("response") or {}).get("usage") or {}), **row}
    return {
        "rollout_id": f"{task}:{rollout}",
        "_ng_task_index": task,
        "_ng_rollout_index": rollout,
        **{
            key: int(value) if isinstance(value, bool) else value
            for key, value in numbers.items()
            if isinstance(value, (int, float)) and not key.startswith("_ng_")
        },
    }


def averages(path: Path, bad: Bad) -> Json:
    """The mean over all rows of every number at the top of a row; a row that lacks one counts as 0, as in NeMo Gym."""
    totals: Counter[str] = Counter()
    count = 0
    for _, row in _objects(path, bad):
        count += 1
        for key, value in row.items():
            if isinstance(value, (int, float)):
                totals[key] += value  # type: ignore[assignment]
    return {key: value / count for key, value in totals.items()}


def rollouts_of(path: Path, bad: Bad) -> Iterator[Json]:
    """The rollouts of a JSONL file. Raises `UserError` if it cannot be read."""
    for number, line in lines(path):
        row = _rollout(path, number, line, bad)
        if row is not None:
            yield row


def write_jsonl(path: Path, rows: Iterable[Json]) -> None:
    with path.open("wb") as file:
        for row in rows:
            file.write(dumps(row) + b"\n")


_Place = tuple[int, int]
"""A file, by its number, and a task number in it."""


class _Tasks:
    """Which task numbers of several files mean the same tasks: a split input is numbered from 0 in each of its shards.

    Within a file its numbers stand. Between files, a number is one task if both have a rollout of the same task there: by
    the id of the task in rows of ours, else by the prompt.
    """

    def __init__(self) -> None:
        self._ids: dict[_Place, set[str]] = defaultdict(set)
        self._prompts: dict[_Place, set[str]] = defaultdict(set)

    def place(self, file: int, row: Json) -> _Place | None:
        index = row.get("_ng_task_index")
        if type(index) is not int:
            return None
        block = row.get("rollforge")
        if isinstance(block, dict) and isinstance(block.get("task"), str):
            self._ids[file, index].add(block["task"])
        self._prompts[file, index].add(_prompt(row))
        return file, index

    def numbers(self, say: Say) -> dict[_Place, int]:
        """A number for each place, in the order of files and numbers; empty if the numbers mean the same everywhere."""
        groups: dict[int, list[list[_Place]]] = defaultdict(list)
        known: dict[tuple[int, str, str], list[_Place]] = {}
        for place in sorted(self._prompts):
            index, ids, prompts = place[1], self._ids.get(place, ()), self._prompts[place]
            mine = [(index, "id", one) for one in ids]
            # Where both have ids, those decide: many tasks may have one prompt.
            asked = mine + [(index, "prompt without id" if ids else "prompt", one) for one in prompts]
            told = mine + [
                (index, kind, one) for one in prompts for kind in ("prompt", "prompt without id")[: 1 if ids else 2]
            ]
            group = next((known[key] for key in asked if key in known), None)
            if group is None:
                groups[index].append(group := [])
            group.append(place)
            for key in told:
                known.setdefault(key, group)
        unlike = sum(len(found) > 1 for found in groups.values())
        if not unlike:
            return {}
        every = sorted(group for found in groups.values() for group in found)
        say(f"{unlike} task numbers mean different tasks in different files: the {len(every)} tasks are numbered anew")
        return {place: number for number, group in enumerate(every) for place in group}


def _prompt(row: Json) -> str:
    params = mapping(row.get("responses_create_params"))
    items = params.get("input")
    if "terminated" in row and isinstance(items, list) and len(items) > 1:
        # NeMo Gym's gymnasium_agent puts what it saw first after the prompt; it may be another thing each time.
        params = {**params, "input": items[:-1]}
    return group_of(params, row, None)


NO_ROLLOUT = "neither reward nor response: it is no rollout"
UNNUMBERED = "no _ng_task_index and _ng_rollout_index"
LAST = 1 << 62
"""Where rows without a number go."""


def _order(row: Json) -> tuple[int, int]:
    task, rollout = row.get("_ng_task_index"), row.get("_ng_rollout_index")
    return task if type(task) is int else LAST, rollout if type(rollout) is int else LAST


def _small(row: Json) -> Json:
    small = {key: value for key, value in row.items() if key not in BIG}
    small["response"] = {"usage": inside(row, "response", "usage")}
    # Without a number, the task is told by what goes with the prompt.
    return small if type(row.get("_ng_task_index")) is int else {"task_id": _prompt(row), **small}


def _objects(path: Path, bad: Bad) -> Iterator[tuple[int, Json]]:
    for number, line in lines(path):
        try:
            yield number, as_object(line)
        except UserError as error:
            bad(unusable(path, number, line, error))


def _rollout(path: Path, number: int, line: bytes, bad: Bad) -> Json | None:
    text = _text(line)
    if not text:
        return None
    try:
        row = as_object(text)
        if not _is_rollout(row):
            raise UserError(NO_ROLLOUT)
    except UserError as error:
        bad(unusable(path, number, text, error))
        return None
    return row


def _is_rollout(row: Json) -> bool:
    return not row.keys().isdisjoint(("reward", "response", "output"))


def _text(line: bytes) -> bytes:
    return line.strip().removeprefix(BOM_UTF8)


def _nobody(_: object) -> None:
    pass


def _few(keys: Sequence[Any]) -> str:
    return ", ".join(map(str, keys[:5])) + (", ..." if len(keys) > 5 else "")
