"""Which rollouts made which model, and which model made which rollouts: from the steps that are done, both ways."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from rollforge import __version__
from rollforge.collect.run_dir import write_json
from rollforge.errors import unknown
from rollforge.export.writer import sha256
from rollforge.records.items import Json
from rollforge.records.lossless import dumps, loads

LINEAGE, MARK, MADE_OF = "lineage.json", "rollforge.json", "made_of.jsonl"
START = "start"
"""The id of the policy that a loop begins with; those it makes are called after their iterations."""


def lineage(steps: Mapping[str, Json]) -> Json:
    """`models` by id and `runs` by folder, each with its makers and with what it made."""
    models: dict[str, Json] = {}
    runs: dict[str, Json] = {}
    for facts in steps.values():
        if facts["kind"] == "train":
            models[facts["id"]] = {key: facts[key] for key in ("model", "digest", "parent", "training", "live", "made_of")}
        elif facts["kind"] in ("collect", "eval"):
            models.setdefault(facts["model"], {"model": facts["played"], "parent": None, "made_of": []})
            for run in facts["runs"]:
                runs[run["run"]] = {"purpose": facts["kind"], "model": facts["model"], **run}
    for run in runs.values():
        run["made"] = [name for name, model in models.items() if any(m["run"] == run["run"] for m in model["made_of"])]
    for name, model in models.items():
        model["made_runs"] = [run for run, about in runs.items() if about["model"] == name]
        model["made_models"] = [other for other, about in models.items() if about["parent"] == name]
    return {"models": models, "runs": runs}


def related(known: Json, name: str, *, up: bool) -> Iterator[tuple[int, str, str]]:
    """(depth, `model` or `run`, id) of all that a model or run was made of (`up`), or of all that was made of it; each once,
    at the place where it is met first."""
    seen: set[str] = set()

    def walk(name: str, depth: int) -> Iterator[tuple[int, str, str]]:
        if name in seen:
            return
        seen.add(name)
        model = known["models"].get(name)
        yield depth, "model" if model else "run", name
        about = model or known["runs"][name]
        if up:
            nearest = [*filter(None, [about["parent"]]), *_runs_of(about)] if model else [about["model"]]
        else:
            nearest = [*about["made_models"], *about["made_runs"]] if model else about["made"]
        for other in nearest:
            yield from walk(other, depth + 1)

    yield from walk(name, 0)


def find(known: Json, text: str, loop: Path) -> str:
    """The id that a person means by an id, a directory, a file in it, a model reference or a digest. Raises `UserError`."""
    given = Path(text.partition(":")[2] or text).expanduser()
    for name, about in {**known["models"], **known["runs"]}.items():
        if text in (name, about.get("model")) or (len(text) >= 6 and _digest(about).startswith(text)):
            return str(name)
        folder = Path(about["training"]) if about.get("training") else Path(name)
        if given.exists() and given.resolve().is_relative_to((loop / folder).resolve()):
            return str(name)
    raise unknown("model or run", text, [*known["models"], *known["runs"]], f"(of the loop {loop})")


def run_facts(folder: Path, loop: Path) -> list[Json]:
    """Of every run directory at or below `folder`: where it is, how many rollouts it has, and their file's digest."""
    found = []
    for file in sorted(folder.glob("**/rollouts.jsonl")):
        with open(file, "rb") as rows:
            count = sum(1 for _ in rows)
        found.append({"run": str(file.parent.relative_to(loop)), "rollouts": count, "sha256": sha256(file)})
    return found


def made_of(data: Iterable[Path], runs: Iterable[Path], loop: Path, to: Path) -> list[Json]:
    """Which rollouts of the runs are in the data: one line for each in `to`, and for each run how many with the digest of
    their ids. A rollout is known by its task, its repeat and what was said, which curation leaves as they are."""
    used = Counter(mark for file in data for mark, _ in _marks(file))
    found = []
    with open(to, "wb") as lines:
        for run in runs:
            digest, count, total = hashlib.sha256(), 0, 0
            name = str(run.relative_to(loop))
            for total, (mark, where) in enumerate(_marks(run / "rollouts.jsonl"), 1):
                if mark in used:
                    count += 1
                    digest.update(mark)
                    copies = {"copies": used[mark]} if used[mark] > 1 else {}
                    lines.write(dumps({"run": name, "line": total, **where, "id": mark.hex(), **copies}) + b"\n")
            ids = digest.hexdigest()
            found.append({"run": name, "used": count, "of": total, "ids": ids, "sha256": sha256(run / "rollouts.jsonl")})
    return [entry for entry in found if entry["used"]]


def model_digest(directory: Path) -> str:
    """Of the names and contents of a checkpoint's files."""
    files = sorted(file for file in directory.rglob("*") if file.is_file() and file.name != MARK)
    listed = "\n".join(f"{file.relative_to(directory)} {sha256(file)}" for file in files)
    return hashlib.sha256(listed.encode()).hexdigest()


def mark_model(directory: Path, facts: Json) -> None:
    """Beside the weights, so that a copied model still says where it is from."""
    mark = directory / MARK
    said = loads(mark.read_bytes()) if mark.is_file() else {}
    write_json(mark, {"rollforge": __version__, **said, **facts})


def _marks(file: Path) -> Iterator[tuple[bytes, Json]]:
    with open(file, "rb") as rows:
        for line in rows:
            row = loads(line)
            block = row.get("rollforge") or {}
            where = {"task": block.get("task"), "repeat": row.get("_ng_rollout_index"), "attempt": block.get("attempt")}
            said = dumps([*where.values(), block.get("model"), row.get("response")], sort_keys=True)
            yield hashlib.blake2b(said, digest_size=16).digest(), where


def _runs_of(model: Json) -> list[str]:
    return [entry["run"] for entry in model["made_of"]]


def _digest(about: Json) -> str:
    return str(about.get("digest") or about.get("sha256") or "")
