"""Lengths hold what is written: the instructions around tools, too."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from rollforge.cli.main import app
from rollforge.export.check import check_export
from rollforge.export.lengths import INSTRUCTIONS, MARKUP, Counted, estimate, row_tokens
from rollforge.export.run import export_rollouts
from rollforge.export.text import plain, with_tools
from rollforge.registry import resolve
from tests.export import toy
from tests.export.samples_trl import ASK, CLOCK, TOLD, WEATHER, said
from tests.export.test_transform import rollout, write

POLICY = Path(__file__).parents[2] / "src" / "rollforge" / "models" / "tiny" / "policy" / "tokenizer.json"


@pytest.mark.parametrize("measure", [estimate, Counted(str(POLICY))], ids=["estimated", "counted"])
def test_tools_are_as_long_as_they_are_written(measure):
    written = plain(with_tools([*ASK, *TOLD], [WEATHER, CLOCK]))
    assert measure([*ASK, *TOLD], [WEATHER, CLOCK]) >= measure(written, [])
    # Chat templates say twice as much about tools as we do.
    assert measure(ASK, [CLOCK]) >= measure(with_tools(ASK, [CLOCK]), []) + measure([said(INSTRUCTIONS)], []) - 2 * MARKUP


def test_no_row_is_longer_than_the_limit_of_its_export(tmp_path):
    from tokenizers import Tokenizer
    from typer.testing import CliRunner

    file = write(tmp_path / "a.jsonl", *(rollout(f"2+{n}?", reward=r) for n in range(20) for r in (1.0, 0.0)))
    out = tmp_path / "out"
    targets = [part for name in ("openrlhf:sft", "trl:sft") for part in ("--to", name)]
    done = CliRunner().invoke(app, ["export", str(file), *targets, "--tokenizer", str(POLICY), "--out", str(out)])
    assert done.exit_code == 0, done.output
    row = json.loads((out / "openrlhf-sft" / "train.jsonl").read_text().splitlines()[0])
    words = Tokenizer.from_file(str(POLICY))
    tokens = sum(len(words.encode(turn["content"]).ids) for turn in row["messages"])
    launch = (out / "openrlhf-sft" / "launch.sh").read_text()
    assert int(launch.partition("--data.max_len ")[2].split()[0]) > tokens
    assert yaml.safe_load((out / "trl-sft" / "sft.yaml").read_text())["max_length"] > tokens


def test_a_row_is_as_long_as_its_conversation():
    row = {"messages": [*ASK, *TOLD], "tools": [WEATHER, CLOCK]}
    pair = {"prompt": ASK, "chosen": TOLD, "rejected": [said("no")], "tools": [WEATHER, CLOCK]}
    room = estimate([said(INSTRUCTIONS)]) - MARKUP  # for templates that say twice as much about tools
    whole = estimate([*ASK, *TOLD], [WEATHER, CLOCK]) - room
    assert 0.9 * whole <= row_tokens(row) <= 1.2 * whole
    assert row_tokens(pair) == row_tokens(row)


ADD = {"type": "function", "name": "add", "description": "adds " * 20, "parameters": {"type": "object", "properties": {}}}
CUTTING = {
    "trl:sft": "TRL cuts them",
    "trl:sft-prompt-completion": "TRL cuts them",
    "trl:dpo": "TRL cuts them",
    "trl:kto": "TRL cuts them",
    **({"verl:sft": "verl stops at the first"} if find_spec("pyarrow") else {}),
    "openrlhf:sft": "OpenRLHF drops rows",
    "openrlhf:dpo": "OpenRLHF drops rows",
    "nemo-rl:sft": "NeMo RL masks them",
    "nemo-rl:dpo-messages": "NeMo RL masks them",
}


@pytest.mark.parametrize("tokenizer", [None, str(POLICY)], ids=["estimated", "counted"])
def test_rows_longer_than_the_maximum_are_counted_and_said(tmp_path, tokenizer):
    rows = []
    for n in range(20):
        params = {"input": f"{n}+{n}?", "tools": [ADD]}
        for reward in (1.0, 0.0):
            long = "because " * 300 if n < 3 else ""
            items = [toy.call("add", '{"a": 1}'), toy.output("2"), toy.said(f"{long}{n} {reward}")]
            rows.append(toy.row(reward=reward, responses_create_params=params, response={"output": items}))
    file = toy.write(tmp_path / "a.jsonl", rows)

    def over(limit):
        options = {"max_length": limit, "tokenizer": tokenizer, "validation": 0, "workers": 1}
        for done in export_rollouts(file, list(CUTTING), tmp_path / str(limit), **options).targets:
            what = CUTTING[done.name]
            checked = check_export(done.folder, resolve("export", done.target.name), done.kind, load=False)
            assert not [one for one in done.problems if what in one.message]
            yield (
                [text.partition(", the longest")[0] for text in done.warnings if what in text],
                any(what in one.message for one in checked.problems),
            )

    most = 1200 if tokenizer else 500
    for name, found in zip(CUTTING, over(most), strict=True):
        several, rows = (6, 40) if name == "trl:kto" else (3, 20)
        assert found == ([f"{several} of {rows} rows are longer than --max-length {most:,}"], True), name
    assert set(map(str, over(8000))) == {"([], False)"}
