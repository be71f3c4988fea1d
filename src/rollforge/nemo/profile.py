"""Metrics of rollout files in NeMo Gym's shapes, without a server: per agent, and per task with its repeats."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from glob import glob
from hashlib import blake2b
from pathlib import Path
from typing import Any

from rollforge.errors import UserError
from rollforge.nemo.config import AGENTS
from rollforge.records.items import Json
from rollforge.records.lossless import dumps, loads
from rollforge.stats.aggregate import aggregate

BIG = ("responses_create_params", "response")
"""What statistics need nothing of, save the usage."""


def metrics_by_agent(paths: Sequence[Path]) -> list[Json]:
    """`agent_ref`, `agent_metrics`, `key_metrics`, `group_level_metrics` of each agent."""
    by_agent: dict[str, list[Json]] = defaultdict(list)
    for row in rows_of(paths):
        reference = row.get("agent_ref")
        name = reference.get("name") if isinstance(reference, dict) else None
        by_agent[str(name or "")].append(_small(row))
    return [
        {"agent_ref": {"type": AGENTS, "name": name}, **aggregate(_in_order(rows))}
        for name, rows in sorted(by_agent.items())
    ]


def matching(pattern: str) -> list[Path]:
    """The files of one glob pattern, or of several with commas between. Raises `UserError` if there are none."""
    found = {path: None for part in pattern.split(",") for path in sorted(glob(part.strip()))}
    if not found:
        raise UserError(f"no file matches +input_glob={pattern}")
    return [Path(path) for path in found]


def merge_shards(paths: Sequence[Path], output: Path) -> int:
    """All rows by task and repeat in one file; how many. A line that another shard has too is written once; rows are not
    compared by task and repeat, since shards may have been numbered each for itself."""
    if output.resolve() in {path.resolve() for path in paths}:
        raise UserError(f"{output} is one of the shards: choose another +output_jsonl_fpath")
    places: list[tuple[tuple[int, int], int, int]] = []
    seen: set[bytes] = set()
    with output.open("wb") as out:
        files = [open(path, "rb") for path in paths]
        try:
            for number, file in enumerate(files):
                offset = 0
                for line in file:
                    row, digest = _row(line), blake2b(line.strip(), digest_size=16).digest()
                    if row is not None and digest not in seen:
                        seen.add(digest)
                        places.append((_order(row), number, offset))
                    offset += len(line)
            places.sort()
            for _, number, offset in places:
                files[number].seek(offset)
                out.write(files[number].readline().strip() + b"\n")
        finally:
            for file in files:
                file.close()
    return len(places)


def reward_profile(inputs: Path, rollouts: Path, *, partial: bool) -> tuple[list[Json], list[Json]]:
    """One row per task (statistics, the task, its rollouts, how many are missing), and the metrics per agent.

    Raises `UserError` for rollouts that no input plans, and, unless `partial`, for inputs without their rollout.
    """
    samples: dict[int, Json] = {}
    expected: Counter[int] = Counter()
    planned = set()
    for row in rows_of([inputs]):
        key = _order(row)
        if key == _LAST:
            raise UserError(
                f"{inputs}: a row has no _ng_task_index and _ng_rollout_index: it is no file of materialized inputs"
            )
        planned.add(key)
        expected[key[0]] += 1
        samples.setdefault(key[0], {k: v for k, v in row.items() if k not in ("_ng_task_index", "_ng_rollout_index")})
    found: dict[tuple[int, int], Json] = {}
    for row in rows_of([rollouts]):
        found[_order(row)] = _small(row)
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
    tasks = [_profiled(task, rows, samples[task], expected[task]) for task, rows in sorted(groups.items())]
    return tasks, [{**one["agent_metrics"], "agent_ref": one["agent_ref"]} for one in metrics_by_agent([rollouts])]


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


def averages(path: Path) -> Json:
    """The mean over all rows of every number at the top of a row; a row that lacks one counts as 0, as in NeMo Gym."""
    totals: Counter[str] = Counter()
    count = 0
    for row in rows_of([path]):
        count += 1
        for key, value in row.items():
            if isinstance(value, (int, float)):
                totals[key] += value  # type: ignore[assignment]
    return {key: value / count for key, value in totals.items()}


def rows_of(paths: Iterable[Path]) -> Iterator[Json]:
    """The usable rows of JSONL files. Raises `UserError` if a file cannot be read."""
    for path in paths:
        try:
            with open(path, "rb") as file:
                yield from (row for line in file if (row := _row(line)) is not None)
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror or error}") from error


def write_jsonl(path: Path, rows: Iterable[Json]) -> None:
    with path.open("wb") as file:
        for row in rows:
            file.write(dumps(row) + b"\n")


_LAST = (1 << 62, 1 << 62)
"""Where rows without a key go."""


def _order(row: Json) -> tuple[int, int]:
    task, rollout = row.get("_ng_task_index"), row.get("_ng_rollout_index")
    return (task, rollout) if type(task) is int and type(rollout) is int else _LAST


def _in_order(rows: list[Json]) -> list[Json]:
    return sorted(rows, key=_order)


def _small(row: Json) -> Json:
    response = row.get("response")
    usage = response.get("usage") if isinstance(response, dict) else None
    return {key: value for key, value in row.items() if key not in BIG} | {"response": {"usage": usage}}


def _row(line: bytes) -> Json | None:
    try:
        row = loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def _few(keys: Sequence[Any]) -> str:
    return ", ".join(map(str, keys[:5])) + (", ..." if len(keys) > 5 else "")
