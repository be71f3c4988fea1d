from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from rollforge.export.run import export_rollouts
from tests.export.toy import TOY, row, write


def card(tmp_path: Path, kind: str = "sft", **options: object) -> str:
    rows = [row(f"{n}?", f"```\n# pwned <script>\x1b[2J {n}", float(n % 2), agent_ref={"name": "a|b"}) for n in range(20)]
    rows += [row(f"{n}?", "other", 0.0, agent_ref={"name": "a|b"}) for n in range(20)]
    file = write(tmp_path / "a.jsonl", rows)
    given = {"validation": 0.3, "workers": 1, **options}
    result = export_rollouts(file, [(TOY, kind)], tmp_path / "out", **given)
    return (result.targets[0].folder / "README.md").read_text()


def test_the_front_matter_is_what_the_hub_reads(tmp_path: Path) -> None:
    head = yaml.safe_load(card(tmp_path, license="cc-by-4.0").split("---\n")[1])
    assert head["license"] == "cc-by-4.0"
    assert head["task_categories"] == ["text-generation"]
    assert head["size_categories"] == ["n<1K"]
    assert head["configs"][0]["description"].startswith("SHA-256 ")
    assert head["configs"][0]["data_files"] == [
        {"split": "train", "path": ["train.jsonl"]},
        {"split": "validation", "path": ["validation.jsonl"]},
    ]


def test_datasets_does_not_take_one_export_for_another(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    for number in (20, 40):
        file = write(tmp_path / "a.jsonl", [row(f"{n}?", f"{n}", 1.0) for n in range(number)])
        done = export_rollouts(file, [(TOY, "sft")], tmp_path / "out", validation=0.3, workers=1, overwrite=True)
        folder = done.targets[0].folder
        loaded = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
        assert sum(split.num_rows for split in loaded.values()) == number


def test_sections_and_numbers(tmp_path: Path) -> None:
    text = card(tmp_path)
    for section in ("Files", "Schema", "Distribution", "Sources", "How it was filtered", "Limits"):
        assert f"\n## {section}\n" in text
    assert "| lines read | 40 |" in text
    assert "| - left out: reward \\< 0.95 (--min-reward) | 30 |" in text
    assert "30% of the prompts are held out" in text
    assert "No licence was named" in text


def test_texts_of_models_stay_where_they_are(tmp_path: Path) -> None:
    text = card(tmp_path)
    assert "\x1b" not in text
    assert "a\\|b" in text
    fenced = text.split("````json\n")[1].split("\n````")[0]
    assert "pwned" in fenced
    assert "pwned" not in text.replace(fenced, "")


def test_pairs_tell_how_they_were_made(tmp_path: Path) -> None:
    text = card(tmp_path, "dpo")
    assert "Pairs: same_prompt, best_worst, a gap of at least 0.2; no ties, no equal texts" in text
    assert "| - tasks: equal rewards | " in text


def test_many_rewards_are_counted_in_intervals(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", [row(f"{n}?", f"{n}", n / 2) for n in range(300)])
    result = export_rollouts(file, [(TOY, "sft")], tmp_path / "out", min_reward=0, validation=0, workers=1)
    text = (result.targets[0].folder / "README.md").read_text()
    table = text.split("| reward of the rollout | rows |\n| --- | --- |\n")[1].split("\n\n")[0].splitlines()
    assert (table[0], table[-1]) == ("| 0 to 5 | 10 |", "| 145 to 150 | 10 |")
    assert sum(int(line.split("|")[2]) for line in table) == 300
