"""The engine of curation: rows in, rows out, numbers that add up; with steps of its own, so that no other is needed."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rollforge.bulk.record import Record
from rollforge.curate.recipe import Recipe
from rollforge.curate.run import Curated, curate_rollouts
from rollforge.curate.step import Drop, Fact, Sample, Step, Workspace
from rollforge.errors import UserError
from rollforge.records.rollout import Rollout
from rollforge.stats.source import find_run
from tests.curate.sampled import line
from tests.stats.made import grid, made, write


class Each:
    """A step that asks a function about each sample: a reason drops it."""

    def __init__(self, decide: Callable[[Sample], str | None], name: str = "each", **facts: Fact) -> None:
        self.name = name
        self.facts: Mapping[str, Fact] = facts
        self._decide = decide

    def __call__(self, samples: Iterable[Sample], work: Workspace, /) -> Iterator[Sample | Drop]:
        for sample in samples:
            reason = self._decide(sample)
            yield sample if reason is None else Drop(sample, reason, {"reward": sample.reward})


class Backwards:
    name = "backwards"
    facts: Mapping[str, Fact] = {}

    def __call__(self, samples: Iterable[Sample], work: Workspace, /) -> Iterator[Sample | Drop]:
        work.notes["order"] = "reversed"
        yield from work.sort(samples, lambda sample: (-sample.source, -sample.at))


class Careless:
    name = "careless"
    facts: Mapping[str, Fact] = {}

    def __call__(self, samples: Iterable[Sample], work: Workspace, /) -> Iterator[Sample | Drop]:
        for number, sample in enumerate(samples):
            if number != 1:
                yield sample


LOW = Each(lambda sample: "reward < 0.5" if sample.reward < 0.5 else None, "filter")


def change(**changes: Any) -> Each:
    def decide(sample: Sample) -> None:
        for name, value in changes.items():
            if name == "fields":
                sample.changes |= value
            else:
                setattr(sample, name, value)

    return Each(decide, "change")


def curate(out: Path, *steps: Step, runs: Iterable[Path], **options: Any) -> Curated:
    return curate_rollouts(list(runs), out, recipe=Recipe(list(steps)), **options)


def rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Three tasks, four attempts each; one that timed out, three lines that are no rows."""
    folder = tmp_path / "math"
    write(folder / "rollouts.jsonl", grid([[1, 0, 0, 1], [1, 1, 1, 1], [0, 0, 0, 0]]))
    write(folder / "failures.jsonl", [made(None, 0, 0)])
    with open(folder / "rollouts.jsonl", "ab") as file:
        file.write(b'\n{"responses_create_params": {"inp\n[1]\n')
    return folder


def test_the_funnel_adds_up(run: Path, tmp_path: Path) -> None:
    done = curate(tmp_path / "out", LOW, runs=[run])
    read, step = (stage.row() for stage in done.report.stages)
    assert (read["in"], read["kept"]) == (16, 12)
    assert read["dropped"] == {
        "blank line": 1,
        "unreadable: not JSON": 1,
        "unreadable: the line is list, not an object": 1,
        "no verdict: infra_fault": 1,
    }
    assert step == {"step": "filter", "in": 12, "kept": 6, "dropped": {"reward < 0.5": 6}}
    assert [(bad.line, bad.reason.partition(" (")[0]) for bad in done.report.bad] == [
        (14, "not JSON"),
        (15, "the line is list, not an object"),
    ]
    assert done.folder is not None
    assert json.loads((done.folder / "report.json").read_text()) == done.report.row()


def test_unchanged_rows_are_the_same_bytes_in_the_same_order(run: Path, tmp_path: Path) -> None:
    curate(tmp_path / "out", Backwards(), LOW, runs=[run])
    given = (run / "rollouts.jsonl").read_bytes().splitlines(keepends=True)[:12]
    assert (tmp_path / "out/rollouts.jsonl").read_bytes() == b"".join(line for line in given if b'"reward":1' in line)


def test_changes_keep_every_other_field(tmp_path: Path) -> None:
    line = (
        '{"responses_create_params":{"input":"q"},"output":[],"reward":0.5,"big":123456789012345678901234567890,"x":{"y":1}}'
    )
    (tmp_path / "a.jsonl").write_text(line + "\n")
    curate(tmp_path / "out", change(fields={"reward": 2.0, "task_name": "math"}), runs=[tmp_path / "a.jsonl"])
    (row,) = rows(tmp_path / "out/rollouts.jsonl")
    assert row["rollforge"] == {"reward_before": 0.5, "env": "a"}
    assert (row["reward"], row["task_name"], row["big"], row["x"]) == (2.0, "math", 123456789012345678901234567890, {"y": 1})


def test_the_label_that_a_row_had_is_kept_beside_that_of_a_mix(tmp_path: Path) -> None:
    mix = {"steps": [{"mix": {"weights": {"a": 1}}}]}
    given = [made(1.0, 0, fields={"task_name": "knights"}), made(1.0, 1), made(1.0, 2, fields={"task_name": "a"})]
    file = write(tmp_path / "a.jsonl", given)
    curate_rollouts([file], tmp_path / "out", recipe=mix)
    assert [row["task_name"] for row in rows(tmp_path / "out/rollouts.jsonl")] == ["a", "a", "a"]
    before = [row["rollforge"].get("task_name_before") for row in rows(tmp_path / "out/rollouts.jsonl")]
    assert before == ["knights", None, None]


def test_the_first_reward_stays_known_when_a_result_is_curated_again(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", [made(0.25)])
    curate(tmp_path / "1", change(fields={"reward": 5}), runs=[file])
    curate(tmp_path / "2", change(fields={"reward": 7}), runs=[tmp_path / "1"])
    (row,) = rows(tmp_path / "2/rollouts.jsonl")
    assert (row["reward"], row["rollforge"]["reward_before"]) == (7, 0.25)


@pytest.mark.parametrize("number", ["9" * 400, "9" * 5000, "1e999", "-1e999"])
@pytest.mark.parametrize("workers", [1, 2])
def test_numbers_that_no_float_holds_are_kept(tmp_path: Path, number: str, workers: int) -> None:
    line = '{"responses_create_params":{"input":"q"},"output":[],"reward":0.5,"x": {"seed": %s},"rollforge":{"n":1}}'
    (tmp_path / "a.jsonl").write_text(line % number + "\n")
    curate(tmp_path / "out", change(fields={"reward": 1.0}), runs=[tmp_path / "a.jsonl"], workers=workers)
    written = (tmp_path / "out/rollouts.jsonl").read_text()
    assert f'"x":{{"seed": {number}}}' in written
    assert '"reward":1.0' in written
    assert '"reward_before":0.5' in written
    assert '"n":1' in written


def test_rewards_whose_sum_no_float_holds(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [made(1e308, number) for number in range(4)])
    done = curate(tmp_path / "out", runs=[tmp_path / "a.jsonl"])
    assert done.report.row()["read"]["reward"] == {"mean": None, "min": 1e308, "max": 1e308}


def test_shards_without_an_environment_are_one_group_and_spoken_of(tmp_path: Path) -> None:
    def shard(name: str, *attempts: Rollout) -> Path:
        return write(tmp_path / f"{name}.jsonl", attempts)

    groups: dict[str, set[bytes]] = {}
    watch = Each(lambda sample: groups.setdefault(sample.env, set()).add(sample.group))
    files = [
        shard("one", *(made(1, task, 0, env=None) for task in range(3)), made(1, 7, 0, env=None, prompt="mine")),
        shard("two", *(made(0, task, 1, env=None) for task in range(3)), made(1, 7, 0, env=None, prompt="yours")),
    ]
    done = curate(tmp_path / "out", watch, runs=files)
    assert len(groups["one"] & groups["two"]) == 3
    assert len(groups["one"] | groups["two"]) == 5
    assert any("stand in one and two, whose rows name no environment" in text for text in done.report.notes)
    named = [shard("three", made(1, 0, 0, env="math")), shard("four", made(1, 0, 1, env="math"))]
    assert curate(tmp_path / "named", runs=named).report.notes == []


def test_the_environment_of_a_file_goes_with_its_rows(tmp_path: Path) -> None:
    write(tmp_path / "math.jsonl", [made(env=None)])
    write(tmp_path / "code.jsonl", [made(env="own")])
    done = curate(tmp_path / "out", runs=[tmp_path / "math.jsonl", tmp_path / "code.jsonl"])
    found = [row.env for row in find_run(tmp_path / "out").rollouts() if isinstance(row, Rollout)]
    assert found == ["math", "own"]
    assert sorted(done.report.read) == ["math", "own"]


def test_splits_are_files_and_a_source_again(run: Path, tmp_path: Path) -> None:
    halves = Each(lambda sample: setattr(sample, "split", "test" if sample.reward else "train"), "split")
    curate(tmp_path / "out", halves, runs=[run])
    assert [len(rows(tmp_path / f"out/{name}.jsonl")) for name in ("train", "test")] == [6, 6]
    assert not (tmp_path / "out/rollouts.jsonl").exists()
    source = find_run(tmp_path / "out")
    assert ([file.name for file in source.files], source.splits) == (["train.jsonl", "test.jsonl"], ("train", "test"))
    again = curate(tmp_path / "again", LOW, runs=[tmp_path / "out"])
    assert {name: sum(tally.rows for tally in by.values()) for name, by in again.report.written.items()} == {"test": 6}
    with pytest.raises(UserError, match="split already, 12 are not: add a split step"):
        curate(tmp_path / "both", runs=[tmp_path / "out", run])
    assert not (tmp_path / "both").exists()


def test_copies(run: Path, tmp_path: Path) -> None:
    done = curate(tmp_path / "out", LOW, change(copies=3), runs=[run])
    written = (tmp_path / "out/rollouts.jsonl").read_bytes().splitlines()
    assert (len(written), len(set(written)), done.report.rows, done.report.kept) == (18, 6, 18, 6)
    assert done.report.row()["copies"] == 12


@pytest.mark.parametrize("workers", [1, 2])
def test_copies_of_long_rows_do_not_fill_the_memory(tmp_path: Path, workers: int) -> None:
    long, short = line("a", "x" * 1_000_000), line("b")
    (tmp_path / "a.jsonl").write_bytes(long + b"\n" + short + b"\n")
    tracemalloc.start()
    done = curate(tmp_path / "out", change(copies=50), runs=[tmp_path / "a.jsonl"], workers=workers)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / "out/rollouts.jsonl").read_bytes() == (long + b"\n") * 50 + (short + b"\n") * 50
    assert done.report.rows == 100
    assert peak < 25_000_000


def test_dropped_rows_are_kept_aside_as_they_were(run: Path, tmp_path: Path) -> None:
    done = curate(tmp_path / "out", change(fields={"reward": 9}), LOW, runs=[run], keep_dropped=True)
    dropped = rows(tmp_path / "out/dropped.jsonl")
    assert len(dropped) == 7
    assert {row["reward"] for row in dropped} == {0, None}
    why = [row["rollforge"].pop("dropped") for row in dropped]
    assert why[0] == {"step": "filter", "reason": "reward < 0.5", "evidence": {"reward": 0}}
    assert why[-1] == {"step": "read", "reason": "no verdict: infra_fault"}
    assert dropped[:6] == [row for row in _usable(run) if row["reward"] == 0]
    assert done.report.rows == 6
    assert not any("dropped.jsonl" in str(file) for file in find_run(tmp_path / "out").files)


def _usable(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "rollouts.jsonl").read_bytes().splitlines()[:12]]


def test_facts_are_asked_of_the_row_and_may_refuse_it(run: Path, tmp_path: Path) -> None:
    def index(record: Record) -> int:
        if record.index == 3:
            raise UserError("the third is wrong")
        return record.index or 0

    first = Each(lambda sample: None if sample.facts["index"] == 0 else "not the first", "first", index=index)
    done = curate(tmp_path / "out", first, runs=[run])
    assert done.report.stages[0].dropped["the third is wrong"] == 3
    assert done.report.rows == 3


@pytest.mark.parametrize("workers", [1, 2])
def test_the_manifest_traces_every_byte(run: Path, tmp_path: Path, workers: int) -> None:
    curate(tmp_path / "out", LOW, change(fields={"task_name": "x"}), runs=[run], workers=workers, seed=7)
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest["seed"] == 7
    assert [(file["rows"], file["unusable"]) for file in manifest["inputs"]] == [(12, 3), (1, 0)]
    for file in manifest["inputs"]:
        assert _hash(Path(file["file"])) == (file["sha256"], file["bytes"])
    assert {file["file"] for file in manifest["outputs"]} | {"manifest.json"} == set(os.listdir(tmp_path / "out"))
    for file in manifest["outputs"]:
        assert _hash(tmp_path / "out" / file["file"]) == (file["sha256"], file["bytes"])


def _hash(path: Path) -> tuple[str, int]:
    data = path.read_bytes()
    return hashlib.sha256(data).hexdigest(), len(data)


def test_workers_change_nothing(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for workers in (1, 3):
        curate(
            tmp_path / str(workers),
            Backwards(),
            LOW,
            change(fields={"x": 1}),
            runs=[run],
            workers=workers,
            keep_dropped=True,
        )
    for name in ("rollouts.jsonl", "dropped.jsonl", "report.json"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "3" / name).read_bytes()


def test_a_step_that_loses_samples_is_found_out(run: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"'careless' took 12 of 12 samples, kept 11 and dropped 0"):
        curate(tmp_path / "out", Careless(), runs=[run])
    assert os.listdir(tmp_path) == ["math"]


def test_nothing_left_writes_nothing(run: Path, tmp_path: Path) -> None:
    done = curate(tmp_path / "out", LOW, Each(lambda _: "no", "greedy"), Each(lambda _: None, "last"), runs=[run])
    assert done.folder is None
    assert done.report.took_all is not None
    assert done.report.took_all.name == "greedy"
    assert os.listdir(tmp_path) == ["math"]


def test_what_is_there_stays_unless_told(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    curate(out, LOW, runs=[run])
    with pytest.raises(UserError, match="there already; another --out, or --overwrite"):
        curate(out, runs=[run])
    with pytest.raises(ZeroDivisionError):
        curate(out, Each(lambda _: str(1 / 0)), runs=[run], overwrite=True)
    assert len(rows(out / "rollouts.jsonl")) == 6
    curate(out, runs=[run], overwrite=True)
    assert len(rows(out / "rollouts.jsonl")) == 12
    assert sorted(os.listdir(tmp_path)) == ["math", "out"]


def test_what_no_curation_wrote_stays_when_a_result_is_replaced(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    curate(out, runs=[run])
    (out / "notes.txt").write_text("mine")
    (out / "ckpt").mkdir()
    (out / "ckpt/w.bin").write_text("weights")
    (out / "train.jsonl").write_text("mine, too")
    done = curate(out, change(split="train"), runs=[run], overwrite=True)
    assert done.carried == ["ckpt", "notes.txt", "train.jsonl.old"]
    assert not (out / "rollouts.jsonl").exists()
    assert [(out / name).read_text() for name in ("notes.txt", "ckpt/w.bin", "train.jsonl.old")] == [
        "mine",
        "weights",
        "mine, too",
    ]
    assert curate(out, runs=[run], overwrite=True).carried == ["ckpt", "notes.txt", "train.jsonl.old"]


@pytest.mark.parametrize("name", ["out.partial", "out.partial.old"])
def test_directories_of_like_names_are_not_touched(run: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "file").write_text("precious")
    for _ in range(2):
        curate(tmp_path / "out", runs=[run], overwrite=True)
    assert (tmp_path / name / "file").read_text() == "precious"


def test_a_place_that_is_somebody_elses_is_refused(run: Path, tmp_path: Path) -> None:
    (tmp_path / ".out.curating").mkdir()
    (tmp_path / ".out.curating/file").write_text("precious")
    with pytest.raises(UserError, match="no curation made it: rename it"):
        curate(tmp_path / "out", runs=[run])
    assert (tmp_path / ".out.curating/file").read_text() == "precious"


def test_another_tools_manifest_is_no_leave_to_replace(run: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/manifest.json").write_text('{"files": {"train.jsonl": {}}}')
    with pytest.raises(UserError, match="not a data set made here"):
        curate(tmp_path / "out", runs=[run], overwrite=True)


@pytest.mark.parametrize("there", [True, False])
def test_a_link_leads_to_where_it_is_written(run: Path, tmp_path: Path, there: bool) -> None:
    if there:
        (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    for _ in range(2):
        curate(tmp_path / "link", runs=[run], overwrite=True)
    assert (tmp_path / "link").is_symlink()
    assert len(rows(tmp_path / "real/rollouts.jsonl")) == 12


@pytest.mark.parametrize("at", range(1, 6))
def test_a_kill_while_a_result_is_replaced_loses_none(run: Path, tmp_path: Path, at: int) -> None:
    curate(tmp_path / "out", runs=[run])
    (tmp_path / "out/notes.txt").write_text("mine")
    script = (
        "import os, signal\n"
        "left, rename = [%d], os.rename\n"
        "def dying(a, b):\n"
        "    left[0] -= 1\n"
        "    if not left[0]: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    rename(a, b)\n"
        "os.rename = dying\n"
        "from rollforge.curate.run import curate_rollouts\n"
        "curate_rollouts(['math'], 'out', recipe={'steps': [{'filter': 'reward == 1'}]}, overwrite=True, workers=1)\n"
    )
    code = subprocess.run([sys.executable, "-c", script % at], cwd=tmp_path, check=False).returncode
    assert code == (-signal.SIGKILL if at < 5 else 0)
    # The next command finds the old or the new one, whole, under its name; this one leaves it as it is.
    with pytest.raises(UserError, match="there already"):
        curate(tmp_path / "out", runs=[run])
    assert len(rows(tmp_path / "out/rollouts.jsonl")) == (12 if at < 3 else 6)
    assert sorted(os.listdir(tmp_path / "out")) == [
        "manifest.json",
        "notes.txt",
        "recipe.yaml",
        "report.json",
        "rollouts.jsonl",
    ]
    assert sorted(os.listdir(tmp_path)) == ["math", "out"]


@pytest.mark.parametrize("name", ["mine", "mine/file"])
def test_what_is_not_ours_is_never_replaced(run: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").write_text("precious")
    with pytest.raises(UserError, match=r"remove it yourself|is a file"):
        curate(tmp_path / name, runs=[run], overwrite=True)
    assert (tmp_path / "mine/file").read_text() == "precious"


def test_an_empty_directory_will_do(run: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert curate(tmp_path / "out", runs=[run]).folder == tmp_path / "out"


def test_inputs_that_make_no_sense(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="given twice"):
        curate(tmp_path / "out", runs=[run, run / "rollouts.jsonl"])
    with pytest.raises(UserError, match="lies in --out"):
        curate(run, runs=[run], overwrite=True)
    with pytest.raises(UserError, match="no runs given"):
        curate(tmp_path / "out", runs=[])
    with pytest.raises(UserError, match="recipe is list, not a file or its content"):
        curate_rollouts(run, tmp_path / "out", recipe=["dedup"])  # type: ignore[arg-type]
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(UserError, match="a pipe will not do"):
        curate(tmp_path / "out", runs=[tmp_path / "pipe.jsonl"])


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\x00\xff\xfe" * 1000, b"PK\x03\x04" + bytes(5000), b"[" * 100_000])
def test_files_that_hold_no_rollouts(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.jsonl").write_bytes(content)
    done = curate(tmp_path / "out", runs=[tmp_path / "a.jsonl"])
    assert done.folder is None
    assert done.report.stages[0].taken == done.report.stages[0].dropped.total()


def test_files_that_are_something_else_are_said_to_be(run: Path, tmp_path: Path) -> None:
    rows = (run / "rollouts.jsonl").read_bytes().splitlines()
    (tmp_path / "packed.jsonl").write_bytes(gzip.compress(b"\n".join(rows)))
    (tmp_path / "array.jsonl").write_bytes(b"[" + b",\n".join(rows) + b"]")
    report = curate(tmp_path / "out", runs=[run, tmp_path / "packed.jsonl", tmp_path / "array.jsonl"]).report
    assert [text.partition(": ")[2] for text in report.alien] == [
        f"the file is compressed (gzip): gunzip < {tmp_path}/packed.jsonl > {tmp_path}/packed.rows.jsonl",
        "the file is one JSON array, not one object per line: "
        f"jq -c '.[]' < {tmp_path}/array.jsonl > {tmp_path}/array.rows.jsonl",
    ]
    assert {bad.file for bad in report.bad} == {str(run / "rollouts.jsonl")}
    assert (report.rows, report.warnings[1:]) == (12, report.alien)


def test_an_array_with_an_object_a_line_is_no_file_of_one_row(run: Path, tmp_path: Path) -> None:
    rows = (run / "rollouts.jsonl").read_bytes().splitlines()[:12]
    (tmp_path / "array.jsonl").write_bytes(b"[\n" + b",\n".join(rows) + b"\n]\n")
    with pytest.raises(UserError, match=r"array\.jsonl: the file is one JSON array"):
        curate(tmp_path / "out", runs=[tmp_path / "array.jsonl"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"prompt": "p", "completion": "c"}', "a trainer's examples (keys: prompt, completion)"),
        ('{"messages": []}', "a trainer's examples (keys: messages)"),
        ('{"responses_create_params": {"input": "q"}, "answer": 4}', "tasks (keys: responses_create_params, answer), which"),
        ('{"question": "q", "answer": "4"}', "its rows have the keys question, answer: a rollout is one object a line with"),
        ("prompt,answer\n1,2", "rows of CSV: a rollout is"),
        ("hello", "lines that are not JSON: a rollout is"),
        ("[1, 2]", "one JSON array"),
        ("5", "JSON, but no objects"),
    ],
)
def test_rows_of_another_kind_are_said_to_be(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "a.jsonl").write_text(f"\n{content}\n")
    (said,) = curate(tmp_path / "out", runs=[tmp_path / "a.jsonl"]).report.alien
    assert says in said


def test_inputs_without_a_line_are_named(run: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "blank.jsonl").write_text("\n\n")
    (run / "failures.jsonl").write_text("")  # of a run in which nothing failed
    report = curate(tmp_path / "out", runs=[tmp_path / "empty.jsonl", tmp_path / "blank.jsonl", run]).report
    assert report.alien == [f"{tmp_path}/blank.jsonl: it holds blank lines only", f"{tmp_path}/empty.jsonl: it is empty"]


def test_a_name_that_is_no_unicode_can_be_replaced_and_split_on(run: Path, tmp_path: Path) -> None:
    file, first = tmp_path / os.fsdecode(b"lat\xe9.jsonl"), tmp_path / os.fsdecode(b"out\xe9")
    file.write_bytes((run / "rollouts.jsonl").read_bytes())
    recipe = {"steps": [{"split": {"near": None, "train": 0.5, "validation": 0.5}}]}
    for _ in range(2):
        assert curate_rollouts(file, first, recipe=recipe, overwrite=True).report.rows == 12
    again = curate_rollouts([file], tmp_path / "out", recipe={"steps": [{"split": {"previous": str(first)}}]})
    assert again.report.stages[-1].notes["splits"]["train"]["asked"] == 0.5
    assert curate_rollouts(run, tmp_path / "more", recipe=tmp_path / "out/recipe.yaml").report.rows == 12


def test_a_split_directory_that_was_curated_again_says_its_shares(run: Path, tmp_path: Path) -> None:
    recipes = [{"split": {"near": None, "train": 0.6, "validation": 0.4}}, {"filter": "turns > 0"}, {"filter": "turns < 9"}]
    source = run
    for number, step in enumerate(recipes):
        assert curate_rollouts(source, tmp_path / f"v{number}", recipe={"steps": [step]}).report.rows == 12
        source = tmp_path / f"v{number}"
    report = curate_rollouts(run, tmp_path / "out", recipe={"steps": [{"split": {"previous": str(source)}}]}).report
    assert {side: split["asked"] for side, split in report.stages[-1].notes["splits"].items()} == {
        "train": 0.6,
        "validation": 0.4,
    }
    assert not any("does not say its shares" in warning for warning in report.stages[-1].warnings)


def test_a_side_of_which_nothing_is_left_is_named(run: Path, tmp_path: Path) -> None:
    split = {"split": {"near": None, "train": 0.5, "validation": 0.5}}
    whole = curate_rollouts(run, tmp_path / "split", recipe={"steps": [split]}).report
    assert not any("is empty" in note for note in whole.notes)
    rows = (tmp_path / "split/validation.jsonl").read_bytes().splitlines()
    asked = {Record(row).question for row in rows}
    gone = {"filter": " and ".join(f"prompt != {json.dumps(question)}" for question in asked)}
    for source, steps in ((run, [split, gone]), (tmp_path / "split", [gone])):
        report = curate_rollouts(source, tmp_path / "out", recipe={"steps": steps}, overwrite=True).report
        assert "validation is empty: the steps left none of its rows" in report.notes
        assert not (tmp_path / "out/validation.jsonl").exists()


def test_every_step_goes_with_every_other(run: Path, tmp_path: Path) -> None:
    steps = [
        "dedup",
        {"dedup": "both"},
        "near",
        {"balance": "difficulty"},
        {"filter": "group.size > 0"},
        {"shape": "scale"},
        "split",
    ]
    for first, second in permutations(steps, 2):
        report = curate_rollouts(run, tmp_path / "out", recipe={"steps": [first, second]}, overwrite=True, workers=1).report
        assert report.rows, (first, second)


def test_blank_lines_are_not_called_unusable_rows(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes((run / "rollouts.jsonl").read_bytes() + b"\n\n")
    assert curate_rollouts(file, tmp_path / "out").report.notes == ["2 of 14 lines are no usable rows"]
    file.write_bytes(file.read_bytes() + b'{"responses_create_params": {"input": "q"}, "output": [], "reward": null}\n')
    report = curate_rollouts(file, tmp_path / "out", keep_dropped=True, overwrite=True).report
    assert report.notes == ["3 of 15 lines are no usable rows; dropped.jsonl has rows only, not these"]


@pytest.mark.parametrize("out", ["file/out", "/proc/out"])
def test_where_nothing_can_be_written(run: Path, tmp_path: Path, out: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write .*/out: (Not a directory|File exists|No such file)"):
        curate(tmp_path / out, runs=[run])


def test_ends_and_beginnings_of_lines(tmp_path: Path) -> None:
    row = b'{"responses_create_params":{"input":"%d"},"output":[],"reward":1,"agent_ref":{"name":"a"}}'
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf  " + row % 1 + b"\r\n" + row % 2 + b"\n\n" + row % 3)
    curate(tmp_path / "out", runs=[tmp_path / "a.jsonl"])
    data = (tmp_path / "out/rollouts.jsonl").read_bytes()
    assert data == row % 1 + b"\n" + row % 2 + b"\n" + row % 3 + b"\n"


def test_more_orders_than_memory_should_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = b'{"responses_create_params":{"input":"%d"},"output":[],"reward":1,"agent_ref":{"name":"a"}}\n'
    (tmp_path / "a.jsonl").write_bytes(b"".join(row % number for number in range(60_000)))
    curate(tmp_path / "out", Backwards(), runs=[tmp_path / "a.jsonl"], workers=1)
    assert (tmp_path / "out/rollouts.jsonl").read_bytes() == (tmp_path / "a.jsonl").read_bytes()


def test_a_killed_run_leaves_nothing_under_the_name(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [made(1.0, number) for number in range(50)])
    script = (
        "import sys, time\n"
        "from rollforge.curate.recipe import Recipe\n"
        "from rollforge.curate.run import curate_rollouts\n"
        "class Slow:\n"
        "    name, facts = 'slow', {}\n"
        "    def __call__(self, samples, work):\n"
        "        for sample in samples:\n"
        "            print('here', flush=True); time.sleep(60)\n"
        "            yield sample\n"
        "curate_rollouts(['a.jsonl'], 'out', recipe=Recipe([Slow()]), workers=2)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"here\n"
    with pytest.raises(UserError, match="another command is writing"):
        curate(tmp_path / "out", runs=[tmp_path / "a.jsonl"])
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not (tmp_path / "out").exists()
    # Its workers notice a moment later that nobody is there any more; the same command again waits for them.
    curate(tmp_path / "out", runs=[tmp_path / "a.jsonl"])
    assert sorted(os.listdir(tmp_path)) == ["a.jsonl", "out"]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("new", ["longer", "shorter", "gone", "longer in place", "cut in place", "as long in place"])
def test_a_file_that_is_replaced_between_the_passes_is_found_out(tmp_path: Path, new: str, workers: int) -> None:
    file, other = tmp_path / "in.jsonl", tmp_path / "other.jsonl"
    write(file, grid([[1, 0, 0, 1]] * 50))
    longer = b"".join(line[:9] + line for line in file.read_bytes().splitlines(keepends=True))
    size = {"as long in place": file.stat().st_size, "shorter": 1000, "cut in place": 1000}.get(new)
    other.write_bytes(longer[:size])

    def replace(sample: Sample) -> None:
        if new == "gone":
            file.unlink(missing_ok=True)
        elif "place" in new:
            file.write_bytes(other.read_bytes())
        elif other.exists():
            os.replace(other, file)
        sample.changes["seen"] = True

    with pytest.raises(UserError, match=r"in\.jsonl(: No such file| was replaced or cut while it was read; run)"):
        curate(tmp_path / "out", Each(replace), runs=[file], workers=workers)
    assert not (tmp_path / "out").exists()


def test_a_file_that_grows_meanwhile_counts_as_it_was_first_read(tmp_path: Path) -> None:
    file = tmp_path / "in.jsonl"
    write(file, grid([[1, 0, 0, 1]] * 50))
    before = file.read_bytes()

    def grow(sample: Sample) -> None:
        with open(file, "ab") as more:
            more.write(before)

    assert curate(tmp_path / "out", Each(grow), runs=[file]).report.rows == 200
    assert (tmp_path / "out/rollouts.jsonl").read_bytes() == before


def test_environments_beyond_ten_thousand_are_counted_together(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(b"\n".join(line(f"q {n}", env=f"env {n}") for n in range(10_020)))
    steps = [{"shape": "clip"}, {"split": {"near": None}}]
    report = curate_rollouts([tmp_path / "in.jsonl"], tmp_path / "out", recipe={"steps": steps}).report
    assert len(report.read) == 10_001
    assert report.read["(others)"].rows == 20
    assert sum(tally.rows for by_env in report.written.values() for tally in by_env.values()) == 10_020
    clipped, by_env = report.stages[1].notes["after"], report.stages[2].notes["by_env"]
    assert len(clipped) == len(by_env) == 10_001
    assert sum(side["rows"] for side in by_env["(others)"].values()) == 20
    with pytest.raises(UserError, match=r"more than 10,000 environments \('env 10000' is one\); take per: group, or"):
        curate_rollouts([tmp_path / "in.jsonl"], tmp_path / "no", recipe={"steps": [{"shape": "scale"}]})


def test_a_full_disk_is_a_message(run: Path, tmp_path: Path) -> None:
    class Full:
        name = "full"
        facts: Mapping[str, Fact] = {}

        def __call__(self, samples: Iterable[Sample], work: Workspace, /) -> Iterator[Sample | Drop]:
            yield from samples
            raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match=r"cannot write .*out: No space left on device; it is as before"):
        curate(tmp_path / "out", Full(), runs=[run])
    assert os.listdir(tmp_path) == ["math"]


@settings(max_examples=40, deadline=None)
@given(lines=st.lists(st.binary(max_size=60).filter(lambda line: b"\n" not in line), max_size=8), at=st.integers(0, 8))
def test_any_bytes_are_counted(tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], at: int) -> None:
    folder = tmp_path_factory.mktemp("any")
    row = b'{"responses_create_params":{"input":"q"},"output":[],"reward":1}'
    lines.insert(at, row)
    content = b"\n".join(lines)
    assume(not (content.lstrip().startswith(b"[") and content.rstrip().endswith(b"]")))  # an array is refused
    (folder / "a.jsonl").write_bytes(content)
    report = curate(folder / "out", runs=[folder / "a.jsonl"]).report
    stage = report.stages[0]
    assert stage.taken == stage.kept + stage.dropped.total()
    assert stage.kept >= 1
