"""What a training learns from: exported TRL rows, or runs that are exported for it first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import orjson

from rollforge.errors import UserError
from rollforge.export.card import funnel
from rollforge.export.run import export_rollouts
from rollforge.export.writer import LINEAGE
from rollforge.records.items import Json, inside, mapping
from rollforge.records.task import Task
from rollforge.train.adapters.trl_rows import task_of
from rollforge.train.config import TrainConfig

COLUMNS = {"sft": {"messages", "prompt"}, "dpo": {"chosen"}, "grpo": {"prompt"}}
"""By any of which a file of rows is told from one of rollouts; `prompt` for SFT is that of `trl:sft-prompt-completion`."""


@dataclass(frozen=True, slots=True)
class Data:
    files: list[Path]
    """JSONL of TRL's rows, to be read by `datasets`."""
    sources: list[Json]
    """What it was made from: paths and digests."""
    env: str | None
    """Where the rollouts are from, if they are of one run and it says so."""


def prepare(config: TrainConfig, out: Path) -> Data:
    """The files to learn from. Runs are exported into `out`, where they are found again.

    Raises `UserError` for what is neither, and if nothing in it can be learned from.
    """
    files: list[Path] = []
    runs: list[Path] = []
    for path in config.data:
        found = _exported(path, config.method)
        if found is None:
            runs.append(path)
        else:
            files.append(found)
    sources = [{"path": str(file), "made_from": _read(file.parent / "manifest.json").get("inputs")} for file in files]
    if runs:
        made = out / f"trl-{config.method}"
        if not (made / "train.jsonl").exists():
            options: Json = {"min_reward": config.min_reward} if config.method == "sft" else {}
            done = export_rollouts(runs, [f"trl:{config.method}"], out, validation=0.0, overwrite=True, **options)
            if not (made / "train.jsonl").exists():
                counts = "; ".join(f"{text.strip(' -')} {count}" for text, count in funnel(done.targets[0], done))
                raise UserError(f"nothing in {', '.join(map(str, runs))} can be learned from: {counts}")
        files.append(made / "train.jsonl")
        sources += [{"path": str(run)} for run in runs]
        sources[-1] |= {"made_from": _read(made / "manifest.json").get("inputs")}
    for file in files:
        if not file.stat().st_size:
            raise UserError(f"{file} is empty: there is nothing to learn from")
    return Data(files, sources, _env(runs))


def read_rows(files: list[Path]) -> Iterator[Json]:
    """Raises `UserError` with the place of a line that is no row."""
    for file in files:
        with open(file, "rb") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    row = orjson.loads(line)
                except orjson.JSONDecodeError as error:
                    raise UserError(f"{file}:{number}: not JSON: {error}") from error
                if not isinstance(row, dict):
                    raise UserError(f"{file}:{number}: {type(row).__name__}, not a row")
                yield row


def tasks_of(files: list[Path]) -> list[Task]:
    """The tasks of `trl:grpo` rows, each once: their prompts, and the fields of the verifier."""
    found: dict[str, Task] = {}
    for row in read_rows(files):
        task = task_of(row)
        own = {"answer": row["ground_truth"]} if row.get("ground_truth") else {}
        found.setdefault(task.id, replace(task, fields={**own, **task.fields}, index=len(found)))
    return list(found.values())


def learned_tasks(files: list[Path]) -> frozenset[str]:
    """The ids of the tasks that the rows were made from, by the lineage beside each file; none where there is no such."""
    found = set()
    for file in files:
        lineage = file.parent / LINEAGE
        for line in lineage.read_text("utf-8").splitlines()[1:] if lineage.exists() else []:
            found |= {rollout.rpartition("-")[0] for rollout in line.split("\t")[2::3]}
    return frozenset(found)


def _exported(path: Path, method: str) -> Path | None:
    """The file of rows at `path`; None if it holds rollouts."""
    if path.is_dir():
        beside = path / f"trl-{method}"
        folder = beside if beside.is_dir() else path
        manifest = _read(folder / "manifest.json")
        if "target" not in manifest:
            return None
        name = f"{manifest['target']}:{manifest.get('kind')}"
        if manifest["target"] != "trl" or not str(manifest.get("kind")).startswith(method):
            raise UserError(f"{folder} was exported as {name}; {method} learns from trl:{method}")
        return folder / "train.jsonl"
    if not path.exists():
        raise UserError(f"there is no {path}: name a run directory, a file of rollouts, or an exported data set")
    first = next(read_rows([path]), {})
    if "responses_create_params" in first or "response" in first or "output" in first:
        return None
    if COLUMNS[method] & first.keys():
        return path
    raise UserError(f"{path} has the columns {', '.join(first) or 'none'}; {method} learns from rows of trl:{method}")


def _env(runs: list[Path]) -> str | None:
    names = {_env_of(run) for run in runs}
    return names.pop() if len(names) == 1 else None


def _env_of(run: Path) -> str | None:
    """As it was given to the collection, or (a text) to the verification; an agent service has an environment of its own."""
    env = inside(_read(run / "run.json"), "config", "env")
    use = env.get("use") if isinstance(env, dict) else env
    return use if isinstance(use, str) else None


def _read(path: Path) -> Json:
    try:
        value = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return {}
    return mapping(value)
