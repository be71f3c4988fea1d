from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from rollforge.export.examples import Origin
from rollforge.export.writer import Parts, Sheet, Tally, file_names, new_shapes
from tests.export.toy import TOY, call, lines, output, row, said, write


def origin(at: int) -> Origin:
    return Origin(f"t-{at}", 0, at, "env", "t", 1.0)


def written(tmp_path: Path, units: list[list[dict[str, Any]]], **options: Any) -> Path:
    parts = Parts(**options)
    at = 0
    for number, unit in enumerate(units):
        sheet = Sheet(tmp_path / f"part-{number}")
        for one in unit:
            sheet.add("train", "env", one, json.dumps(one).encode(), (origin(at),)).count("env", 1.0, 1, 2, False, False)
            at += 1
        parts.add(sheet.close())
    folder = tmp_path / "out"
    folder.mkdir()
    parts.write(folder)
    assert not list(tmp_path.glob("part-*"))
    return folder


def called(**arguments: Any) -> dict[str, Any]:
    calls = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}]
    return {"messages": [{"role": "assistant", "content": "", "tool_calls": calls}]}


def plain(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}


def test_every_shape_comes_first_and_nothing_is_lost(tmp_path: Path) -> None:
    units = [[plain(str(number)) for number in range(50)] for _ in range(3)]
    units[1][20] = called(city="Paris")
    units[2][10] = called(city="Rome")
    units[2][30] = called(days=3)
    folder = written(tmp_path, units)
    rows = lines(folder / "train.jsonl")
    assert rows[:3] == [plain("0"), called(city="Paris"), called(days=3)]
    everything = [one for unit in units for one in unit]
    assert sorted(map(json.dumps, rows)) == sorted(map(json.dumps, everything))
    origins = [line.split("\t") for line in (folder / "lineage.tsv").read_text().splitlines()[1:]]
    assert [everything[int(cells[4])] for cells in origins] == rows
    assert [int(cells[1]) for cells in origins] == list(range(1, 151))


def test_a_large_unit_is_written_in_pieces(tmp_path: Path) -> None:
    rows = [plain(f"{number} {'x' * 9000}") for number in range(200)]
    assert lines(written(tmp_path, [rows]) / "train.jsonl") == rows


def test_shapes_are_keys_and_types_not_values() -> None:
    known: dict[Any, None] = {}
    assert new_shapes(called(city="Paris"), known)
    assert not new_shapes(called(city="Rome"), known)
    assert new_shapes(called(city=1), known)
    assert new_shapes(called(town="Paris"), known)
    assert new_shapes(called(where={"city": "Paris"}), known)
    assert new_shapes(called(where={"town": "Paris"}), known)
    assert new_shapes({"messages": [], "tools": []}, known)
    assert not new_shapes(called(town="Rome"), known)


def test_no_more_shapes_are_kept_than_can_stand_at_the_head() -> None:
    known: dict[Any, None] = {}
    new = [new_shapes({f"key{number}": 1}, known) for number in range(1100)]
    assert [bool(one) for one in new] == [number < 1000 for number in range(1100)]
    assert len(known) == 1000


def test_names_of_files_are_safe_and_different() -> None:
    names = file_names(["a.b", "A_b", "../x", "", "a_b"])
    assert list(names.values()) == ["a_b", "A_b-2", "_x", "env", "a_b-3"]


def test_odd_ids_stay_on_their_line(tmp_path: Path) -> None:
    parts = Parts()
    sheet = Sheet(tmp_path / "part")
    sheet.add("train", "env", {"a": 1}, b'{"a":1}', (Origin("x\ty\n", 0, 0, "env", "", 1.0),))
    parts.add(sheet.close())
    (tmp_path / "out").mkdir()
    parts.write(tmp_path / "out")
    assert (tmp_path / "out" / "lineage.tsv").read_text().splitlines()[1].split("\t")[2] == '"x\\ty\\n"'


def test_nothing_to_train_on_but_validation(tmp_path: Path) -> None:
    parts = Parts()
    sheet = Sheet(tmp_path / "part")
    sheet.add("validation", "env", {"a": 1}, b'{"a":1}', (origin(0),))
    parts.add(sheet.close())
    (tmp_path / "out").mkdir()
    assert [(one.name, one.split) for one in parts.write(tmp_path / "out")] == [("train.jsonl", "train")]


@pytest.mark.trainers
def test_parquet(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    from rollforge.export.run import export_rollouts

    rows = [row("1?", "good", 1.0), row("1?", "bad", 0.0)]
    file = write(tmp_path / "a.jsonl", rows)
    result = export_rollouts(file, [(TOY, "parquet")], tmp_path / "out", validation=0, workers=1)
    table = parquet.read_table(result.targets[0].folder / "train.parquet").to_pylist()
    assert table == [{"prompt": '[{"role":"user","content":"1?"}]', "margin": 1.0}]


@pytest.mark.trainers
def test_parquet_holds_whole_numbers_of_any_size(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    from rollforge.export.run import export_rollouts

    number = 10**25 + 1
    items = [call("get", f'{{"id": {number}}}'), output("a"), said("b")]
    file = write(tmp_path / "a.jsonl", [row(response={"output": items})])
    result = export_rollouts(file, ["verl:sft"], tmp_path / "out", validation=0, workers=1)
    [found] = parquet.read_table(result.targets[0].folder / "train.parquet").to_pylist()
    assert json.loads(found["messages"])[1]["tool_calls"][0]["function"]["arguments"] == {"id": number}


@pytest.mark.trainers
def test_mixed_tools_beyond_the_first_block_load(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    units = [[plain(f"{number} {'x' * 5000}") for number in range(1250)] for _ in range(2)]
    units.append([called(city="Paris"), called(days=3), called(city="Rome")] * 3)
    folder = written(tmp_path, units)
    assert (folder / "train.jsonl").stat().st_size > 10 << 20
    loaded = datasets.load_dataset(
        "json", data_files=str(folder / "train.jsonl"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert len(loaded) == 2509
    last = loaded[-1]["messages"][0]["tool_calls"][0]["function"]["arguments"]
    assert last == {"city": "Rome"}


def test_tallies_of_many_environments_are_added_in_linear_time() -> None:
    began = time.process_time()
    whole = Tally()
    for number in range(50_000):
        one = Tally()
        one.count(f"env {number}", number / 10, 1, 2, False, False)
        whole.add(one)
    assert (whole.rows, len(whole.envs), whole.rewards[4.2]) == (50_000, 50_000, 1)
    assert time.process_time() - began < 20  # minutes if each looked through all before it
