"""Lengths hold what is written: the instructions around tools, too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from rollforge.cli.main import app
from rollforge.export.lengths import INSTRUCTIONS, MARKUP, Counted, estimate
from rollforge.export.text import plain, with_tools
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
