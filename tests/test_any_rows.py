"""Rows with something wrong anywhere in them, and recipes of anything: what cannot be used is named or left out, the rest is
kept. Nothing but `UserError` leaves a command, and the counts add up."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from rollforge.cli.main import app
from rollforge.curate.run import curate_rollouts
from rollforge.errors import UserError
from rollforge.export.check import check_export, check_files
from rollforge.export.pairs import Pairing
from rollforge.export.run import export_rollouts
from rollforge.export.transform import ToGrpo, ToSft, transform_pairs, transform_rows
from rollforge.registry import resolve
from tests.export.toy import call, output, row, said, write

STORED = Path(__file__).parent / "records" / "rows" / "rollouts.jsonl"
ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1.5, 1e308, 2**63, -(2**70), 10**25, "", "x", "\ud800", "é\u2028", "\x00", "2024-01-01"),
    *("<think>a</think>b", "null", "[]", "a" * 3000, [], {}, [[]], [{}], {"": 1}, {'a"b\\': 2}, ["a", 1], {"role": "user"}),
    *({"type": "text", "text": "hi"}, [{"type": "message", "role": "assistant", "content": "x"}]),
)
KEYS = ("extra", "name", "id", "role", "content", "tool_calls", "type", "")
KINDS = [f"{name}:{kind}" for name in ("nemo-rl", "trl", "openrlhf", "generic") for kind in resolve("export", name).kinds]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in inside:
        yield from places(inner, (*path, key))


def broken(value: Any, draw: random.Random) -> Any:
    """With up to three places of it gone, replaced or added to."""
    for _ in range(draw.choice((0, 1, 1, 3))):
        if not value:
            break
        *above, last = draw.choice(list(places(value)))
        inner = value
        for key in above:
            inner = inner[key]
        odd = json.loads(json.dumps(draw.choice(ODD)))
        match draw.choice(("gone", "other", "other", "more")):
            case "gone":
                del inner[last]
            case "other":
                inner[last] = odd
            case _ if isinstance(inner, list):
                inner.append(odd)
            case _:
                inner[draw.choice(KEYS)] = odd
    return value


def base() -> list[Any]:
    tools = [{"type": "function", "name": "add", "description": "Adds.", "parameters": {"type": "object", "properties": {}}}]
    asked = {"input": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1 + 1?"}], "tools": tools}
    thought = {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "Add."}]}
    calls = [thought, call("add", '{"a": 1}'), call("add", '{"b": "x"}', "c2"), output("2"), output("3", "c2"), said("2")]
    usage = {"input_tokens": 9, "output_tokens": 20}
    mine = row(responses_create_params=asked, response={"output": calls, "usage": usage}, accuracy=1.0, expected_answer="2")
    return [mine, row(), row("1 + 1?", "3", 0.0), *map(json.loads, STORED.read_text(encoding="utf-8").splitlines())]


def file_of(folder: Path, draw: random.Random) -> Path:
    lines = []
    for _ in range(draw.choice((3, 12))):
        value = broken(draw.choice(base()), draw)
        lines += [json.dumps(value, ensure_ascii=draw.random() < 0.5)]
        if isinstance(value, dict):
            lines += [
                json.dumps({**value, "reward": reward}) for reward in draw.sample((0, 1, 0.5, -1), draw.choice((0, 2)))
            ]
    lines += [json.dumps(row()), *draw.sample(["", "{", "null", "[1]", lines[0][:-5], '{"reward": 1e999}'], 2)]
    path = folder / "rows.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8", errors="surrogatepass")
    return path


@pytest.mark.parametrize("seed", range(60))
def test_broken_rows(seed: int, tmp_path: Path) -> None:
    draw = random.Random(seed)
    file = file_of(tmp_path, draw)
    to = draw.sample(KINDS, 4)
    options = {"min_coverage": 0, "min_reward": 0, "validation": 0.3, "mapping": {"question": "prompt", "reply": "messages"}}
    options |= {"reasoning": draw.choice(("keep", "drop", "inline")), "strategy": draw.choice(("same_prompt", "stratified"))}
    result = export_rollouts(file, to, tmp_path / "out", workers=1, **options)
    for one in result.targets:
        there = one.rows + one.left_out.total() + sum(reason.count for reason in one.refused.values())
        if one.pairs is None:
            assert there == (result.judged if one.tasks is None else one.tasks)
    for made in (ToGrpo(), ToSft()):
        transform_rows([file], tmp_path / "rows.out", made)
    transform_pairs([file], tmp_path / "pairs.out", Pairing())


@pytest.mark.parametrize("seed", range(60))
def test_broken_rows_in_commands(seed: int, tmp_path: Path) -> None:
    draw = random.Random(seed)
    file, other = file_of(tmp_path, draw), tmp_path / "other"
    other.mkdir()
    for command in (
        ("stats", file, "--json"),
        ("show", file, "--limit", 50),
        ("advise", file),
        ("check", file, "--for", draw.choice(KINDS)),
        ("diff", file, file_of(other, draw)),
        ("validate", file),
    ):
        found = CliRunner().invoke(app, [str(word) for word in command])
        assert found.exception is None or isinstance(found.exception, (SystemExit, UserError)), command


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    rows = [*base()[:3], row("1 + 1?", "2"), row("2 + 2?", "5", 0.0)]
    mapping = {"question": "prompt", "reply": "messages"}
    export_rollouts(write(folder / "rows.jsonl", rows), KINDS, folder / "out", workers=1, validation=0, mapping=mapping)
    return folder / "out"


@pytest.mark.parametrize("seed", range(60))
def test_broken_data_and_configurations(seed: int, exported: Path, tmp_path: Path) -> None:
    draw = random.Random(seed)
    name, _, kind = draw.choice(KINDS).partition(":")
    folder = tmp_path / "data"
    shutil.copytree(exported / f"{name}-{kind}", folder)
    data = folder / "train.jsonl"
    rows = [broken(json.loads(line), draw) for line in data.read_text().splitlines() * 3]
    data.write_text("\n".join(map(json.dumps, rows)))
    for config in folder.glob("*.yaml"):
        config.write_text(yaml.safe_dump(broken(yaml.safe_load(config.read_text()), draw)))
    for script in folder.glob("*.sh"):
        text = script.read_text()
        at = draw.randrange(len(text))
        script.write_text(text[:at] + draw.choice(('"', "'", "$(", "\\", "\n", "=", "--", "|", "<<EOF")) + text[at + 5 :])
    check_export(folder, resolve("export", name), kind)
    name, _, kind = draw.choice(KINDS).partition(":")
    check_files([data], resolve("export", name), kind)


PARTS = (
    *("reward >= 0.5", "tokens < 4000", "not truncated", "group.solve_rate >= 0.2", 'task.level == "hard"', "turns > 1"),
    *("metrics.accuracy == 1", 'matches(text, "a.*b")', 'not contains(lower(text), "sorry")', "not empty", "group.best"),
    *("total_tokens / 2 > 3", "0 <= reward <= 1", "len(text) > 3", 'env in ["arithmetic"]', "usage.output_tokens > 3"),
)
STEPS: tuple[Any, ...] = (
    *({"preset": name} for name in ("sft", "dpo", "grpo", "ppo")),
    *(
        {"dedup": {"by": by, "keep": keep}}
        for by in ("prompt", "response", "both")
        for keep in ("first", "best", "shortest")
    ),
    *({"near": given} for given in (0.8, 0.5, {"of": "response"}, {"words": 3, "within": "env"})),
    *({"balance": {"by": by, "cap": 2}} for by in ("env", "difficulty", ["env", "difficulty"], "tool_calls")),
    *({"shape": given} for given in ("scale", "standardize", "clip", {"method": "scale", "per": "group"})),
)


def expression(draw: random.Random) -> str:
    parts = [f"not ({part})" if draw.random() < 0.2 else part for part in draw.choices(PARTS, k=draw.choice((1, 2, 3)))]
    return draw.choice((" and ", " or ")).join(parts)


@pytest.mark.parametrize("seed", range(60))
def test_any_recipe(seed: int, tmp_path: Path) -> None:
    draw = random.Random(seed)
    steps = [draw.choice((draw.choice(STEPS), {"filter": expression(draw)})) for _ in range(draw.choice((2, 3, 4)))]
    recipe = {"steps": [*steps, *([{"split": "80/20"}] if draw.random() < 0.3 else [])]}
    try:
        found = curate_rollouts(file_of(tmp_path, draw), tmp_path / "out", recipe=recipe, workers=1, keep_dropped=True)
    except UserError:
        return
    files = sorted((tmp_path / "out").glob("[tvr]*.jsonl"))  # train, validation, rollouts
    assert sum(len(file.read_bytes().splitlines()) for file in files) == found.report.kept
