from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from rollforge.errors import UserError
from rollforge.export.result import Done, Exported
from rollforge.export.run import export_rollouts
from tests.export.toy import TOY, call, lines, output, row, said, write


def export(runs: Any, *kinds: str, out: Path, **options: Any) -> Exported:
    return export_rollouts(runs, [(TOY, kind) for kind in kinds], out, **{"workers": 1, "validation": 0, **options})


def test_several_targets_in_one_pass(tmp_path: Path) -> None:
    rows = [row(f"{task}?", f"{task}.{repeat}", float(repeat)) for task in range(3) for repeat in range(2)]
    result = export(write(tmp_path / "a.jsonl", rows), "prompts", "sft", "dpo", "kto", out=tmp_path / "out")
    assert {one.name: one.rows for one in result.targets} == {"toy:prompts": 3, "toy:sft": 3, "toy:dpo": 3, "toy:kto": 6}
    assert not result.failed
    prompts = lines(tmp_path / "out" / "toy-prompts" / "train.jsonl")
    assert [one["messages"][0]["content"] for one in prompts] == ["0?", "1?", "2?"]
    assert [one["output"] for one in prompts] == ["0.0", "1.0", "2.0"]
    pairs = lines(tmp_path / "out" / "toy-dpo" / "train.jsonl")
    assert [(one["chosen"][0]["content"], one["rejected"][0]["content"], one["margin"]) for one in pairs] == [
        ("0.1", "0.0", 1),
        ("1.1", "1.0", 1),
        ("2.1", "2.0", 1),
    ]
    labels = [one["label"] for one in lines(tmp_path / "out" / "toy-kto" / "train.jsonl")]
    assert labels == [False, True] * 3
    folder = tmp_path / "out" / "toy-sft"
    assert {file.name for file in folder.iterdir()} == {
        *("train.jsonl", "lineage.tsv", "config.yaml", "launch.sh", "check.json", "manifest.json", "README.md"),
    }
    assert os.access(folder / "launch.sh", os.X_OK)
    assert json.loads((folder / "check.json").read_text())["rows"] == 3
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["toy-dpo", "toy-kto", "toy-prompts", "toy-sft"]


def test_one_worker_or_two_write_the_same(tmp_path: Path) -> None:
    rows = [row(f"{task}?", f"{task}.{repeat} {'x' * 200}", repeat / 2) for task in range(300) for repeat in range(3)]
    file = write(tmp_path / "a.jsonl", rows[::2] + rows[1::2])
    for workers in (1, 2):
        export(file, "prompts", "sft", "dpo", out=tmp_path / str(workers), workers=workers, validation=0.2)
    for kind in ("prompts", "sft", "dpo"):
        for name in ("train.jsonl", "validation.jsonl", "lineage.tsv"):
            files = [tmp_path / str(workers) / f"toy-{kind}" / name for workers in (1, 2)]
            assert files[0].read_bytes() == files[1].read_bytes()


def test_no_prompt_is_on_both_sides_and_growing_data_keeps_them(tmp_path: Path) -> None:
    rows = [row(f"{task}?", f"{repeat}", 1.0) for task in range(60) for repeat in range(2)]
    few = export(write(tmp_path / "a.jsonl", rows[:60]), "sft", out=tmp_path / "few", validation=0.3)
    many = export(write(tmp_path / "b.jsonl", rows[::-1]), "sft", out=tmp_path / "many", validation=0.3)

    def sides(result: Exported) -> dict[str, set[str]]:
        folder = result.targets[0].folder
        return {
            split: {one["messages"][0]["content"] for one in lines(folder / f"{split}.jsonl")}
            for split in ("train", "validation")
        }

    assert not sides(many)["train"] & sides(many)["validation"]
    for split in ("train", "validation"):
        assert sides(few)[split] <= sides(many)[split]
    other = export(tmp_path / "b.jsonl", "sft", out=tmp_path / "other", validation=0.3, seed=1)
    assert sides(other) != sides(many)


def test_a_curated_directory_keeps_its_split(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    write(tmp_path / "data" / "train.jsonl", [row("1?"), row("2?")])
    write(tmp_path / "data" / "test.jsonl", [row("3?")])
    (tmp_path / "data" / "recipe.yaml").write_text("steps: [dedup]\n")
    result = export(tmp_path / "data", "sft", out=tmp_path / "out", validation=0.5)
    assert {one.name: one.tally.rows for one in result.targets[0].files} == {"train.jsonl": 2, "test.jsonl": 1}
    assert "steps: [dedup]" in (result.targets[0].folder / "README.md").read_text()


def test_rows_that_cannot_be_used_are_counted_with_their_place(tmp_path: Path) -> None:
    rows = [row(), "{", "", row(reward=0.5), row(answer="tabu"), row(reward=None), row(), row(), row(), row(), row()]
    result = export(write(tmp_path / "a.jsonl", rows), "sft", out=tmp_path / "out", min_coverage=0.5)
    done = result.targets[0]
    assert done.rows == 6
    assert done.left_out == {"reward < 0.95 (--min-reward)": 1}
    assert {reason: one.count for reason, one in done.refused.items()} == {"it says tabu": 1}
    assert done.first_refused(result.inputs) == [("it says tabu", f"{tmp_path / 'a.jsonl'}:5")]
    assert {reason: one.count for reason, one in result.unusable.items() if "JSON" not in reason} == {
        "blank line": 1,
        "no reward": 1,
    }
    assert sum(one.count for one in result.unusable.values()) == 3


def test_failed_judgements_are_no_zeros(tmp_path: Path) -> None:
    fault = row(reward=0.0, _ng_failure_class="judge_failed")
    result = export(write(tmp_path / "a.jsonl", [fault, *[row(str(n)) for n in range(9)]]), "kto", out=tmp_path / "out")
    assert result.targets[0].rows == 9
    assert result.read == {"scored": 9, "judge_fault": 1}


def test_too_few_judged_rollouts(tmp_path: Path) -> None:
    fault = row(reward=0.0, _ng_failure_class="judge_failed")
    file = write(tmp_path / "a.jsonl", [fault, row()])
    with pytest.raises(
        UserError, match=r"1 of 2 rollouts were judged .* 1 judge_fault.*--retry-failed.*--min-coverage 0\.5"
    ):
        export(file, "sft", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert export(file, "sft", out=tmp_path / "out", min_coverage=0.5).targets[0].rows == 1


def test_a_run_that_planned_more(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text('{"planned": 10}')
    write(run / "rollouts.jsonl", [row(str(n)) for n in range(7)])
    with pytest.raises(UserError, match=r"7 of 10 rollouts .* 3 not attempted"):
        export(run, "sft", out=tmp_path / "out")


@pytest.mark.parametrize("content", ["", "\n\n", "{\n", '{"a": 1}\n', "[1]\n", "\x00\x01\x02"])
def test_nothing_usable(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.jsonl").write_text(content)
    with pytest.raises(UserError, match="no judged rollout"):
        export(tmp_path / "a.jsonl", "sft", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_answers_that_are_needed(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", [row("1?", expected_answer=1), row("2?"), row("3?", solution={"x": 2})])
    done = export(file, "answers", out=tmp_path / "out").targets[0]
    assert done.rows == 1
    assert list(done.refused) == ["no expected answer was found (name its field: --answer FIELD)"]
    assert done.made.data[0].answered == 1
    named = export(file, "answers", out=tmp_path / "named", answer="solution.x").targets[0]
    assert lines(named.folder / "train.jsonl")[0]["answer"] == "2"


def test_tasks_below_a_reward_are_left_out(tmp_path: Path) -> None:
    rows = [row("1?", "a", 0.0), row("1?", "b", 0.5), row("2?", "c", 0.1)]
    for kinds in (["prompts"], ["prompts", "dpo"]):
        file = write(tmp_path / "a.jsonl", rows)
        done = export(file, *kinds, out=tmp_path / "out", prompt_reward=0.5, overwrite=True).targets[0]
        assert [one["output"] for one in lines(done.folder / "train.jsonl")] == ["b"]


def test_no_pairs_says_why_and_writes_nothing(tmp_path: Path) -> None:
    result = export(write(tmp_path / "a.jsonl", [row("1?"), row("2?")]), "dpo", "sft", out=tmp_path / "out")
    pairs, sft = result.targets
    assert result.failed
    assert pairs.rows == 0
    assert "--repeats 4" in pairs.warnings[0]
    assert sft.rows == 2
    assert not pairs.folder.exists()


def test_equal_texts_make_no_pair(tmp_path: Path) -> None:
    rows = [row("1?", "same", 1.0), row("1?", "same", 0.0), row("1?", "other", 0.1)]
    done = export(write(tmp_path / "a.jsonl", rows), "dpo", out=tmp_path / "out").targets[0]
    assert [one["rejected"][0]["content"] for one in lines(done.folder / "train.jsonl")] == ["other"]


def test_across_prompts_only_when_asked(tmp_path: Path) -> None:
    rows = [row("1?", "good", 1.0), row("2?", "bad", 0.0), row("3?", "better", 0.9), row("4?", "worse", 0.1)]
    file = write(tmp_path / "a.jsonl", rows)
    assert export(file, "dpo", out=tmp_path / "no", strategy="stratified").targets[0].rows == 0
    done = export(file, "dpo", out=tmp_path / "yes", strategy="stratified", across_prompts=True).targets[0]
    found = lines(done.folder / "train.jsonl")
    assert [(one["chosen"][0]["content"], one["rejected"][0]["content"]) for one in found] == [
        ("good", "bad"),
        ("better", "worse"),
    ]
    assert "different prompts" in done.warnings[-1]


def test_lineage_leads_back_to_the_lines(tmp_path: Path) -> None:
    rows = [row(f"{n}?", f"answer {n} {'y' * (n % 7)}", float(n % 2)) for n in range(40)]
    # A shape that is moved to the head of the file.
    rows[31]["response"]["output"] = [
        {"type": "function_call", "name": "f", "arguments": '{"x": 1}', "call_id": "c"},
        {"type": "function_call_output", "call_id": "c", "output": "1"},
        said("answer 31"),
    ]
    file = write(tmp_path / "a.jsonl", rows)
    folder = export(file, "sft", out=tmp_path / "out").targets[0].folder
    data = (folder / "train.jsonl").read_text().splitlines()
    assert "tool_calls" in data[0] or "tool_calls" in data[1]
    stored = file.read_bytes()
    head, *origins = (folder / "lineage.tsv").read_text().splitlines()
    assert head.split("\t") == ["file", "row", "rollout", "source", "byte"]
    assert len(origins) == len(data) == 20
    seen = set()
    for number, (line, origin) in enumerate(zip(data, origins, strict=True), 1):
        name, at, _, source, byte = origin.split("\t")
        assert (name, int(at), source) == ("train.jsonl", number, "0")
        read = json.loads(stored[int(byte) :].split(b"\n")[0])
        assert read["responses_create_params"]["input"][0]["content"] == json.loads(line)["messages"][0]["content"]
        seen.add(byte)
    assert len(seen) == 20


def test_one_file_for_each_environment(tmp_path: Path) -> None:
    rows = [row(f"{n}?", agent_ref={"name": name}) for n in range(2) for name in ("math.v1", "math v1", "code")]
    done = export(write(tmp_path / "a.jsonl", rows), "per-env", out=tmp_path / "out").targets[0]
    assert {one.name: one.env for one in done.files} == {
        "train-code.jsonl": "code",
        "train-math_v1.jsonl": "math v1",
        "train-math_v1-2.jsonl": "math.v1",
    }
    alone = export(write(tmp_path / "b.jsonl", rows[:1]), "per-env", out=tmp_path / "alone").targets[0]
    assert [one.name for one in alone.files] == ["train.jsonl"]


def test_what_exists_stays_unless_told(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", [row()])
    folder = export(file, "sft", out=tmp_path / "out").targets[0].folder
    before = (folder / "manifest.json").read_bytes()
    with pytest.raises(UserError, match=r"toy-sft exists; --overwrite"):
        export(file, "sft", out=tmp_path / "out", min_reward=0.5)
    assert (folder / "manifest.json").read_bytes() == before
    export(file, "sft", out=tmp_path / "out", min_reward=0.5, overwrite=True)
    assert json.loads((folder / "manifest.json").read_text())["options"]["min_reward"] == 0.5


def test_what_a_killed_run_left_is_removed(tmp_path: Path) -> None:
    left = tmp_path / "out" / ".partial-xyz" / "toy-sft"
    left.mkdir(parents=True)
    export(write(tmp_path / "a.jsonl", [row()]), "sft", out=tmp_path / "out")
    assert [one.name for one in (tmp_path / "out").iterdir()] == ["toy-sft"]


def test_what_stood_there_survives_a_kill_between_the_renames(tmp_path: Path) -> None:
    out = tmp_path / "out"
    file = write(tmp_path / "a.jsonl", [row()])
    folder = export(file, "sft", out=out).targets[0].folder
    before = (folder / "manifest.json").read_bytes()
    folder.rename(out / ".old-toy-sft")
    export(file, "prompts", out=out)
    assert (folder / "manifest.json").read_bytes() == before
    export(file, "sft", out=out, overwrite=True, min_reward=0.5)
    assert sorted(one.name for one in out.iterdir()) == ["toy-prompts", "toy-sft"]


def test_a_pair_that_the_format_cannot_hold_is_none(tmp_path: Path) -> None:
    rows = [row(f"{task}?", f"{task}.{repeat}", float(repeat)) for task in range(3) for repeat in range(2)]
    tools = [call("add", '{"a": 1}'), output("2"), said("2")]
    rows += [{**row("3?", reward=1.0), "response": {"output": tools}}, row("3?", "3", 0.0)]
    done = export_rollouts(
        write(tmp_path / "a.jsonl", rows), ["nemo-rl:dpo"], tmp_path / "out", workers=1, validation=0
    ).targets[0]
    assert done.rows == 3
    assert done.pairs is not None
    assert done.pairs.row() == {"tasks": 4, "refused": 1, "paired": 3, "pairs": 3}


@pytest.mark.parametrize(
    ("to", "options", "message"),
    [
        (["nemo"], {}, "unknown export target 'nemo'"),
        (["nemo-rl:grop"], {}, "did you mean grpo"),
        ([(TOY, "sfd")], {}, "unknown kind of toy 'sfd'; did you mean sft"),
        ([], {}, "name at least one target"),
        ([(TOY, "sft")], {"min_rewrad": 1}, "did you mean min_reward"),
        ([(TOY, "sft")], {"strategy": "best"}, "strategy"),
        ([(TOY, "sft")], {"tokenizer": "nowhere"}, "there is no nowhere"),
        ([(TOY, "sft")], {"target_version": {"toy": "3"}}, "unknown version of toy '3'; known: 1, 2"),
        ([(TOY, "sft")], {"target_version": {"trl": "3"}}, "unknown target 'trl'"),
    ],
)
def test_wrong_requests(tmp_path: Path, to: list[Any], options: dict[str, Any], message: str) -> None:
    file = write(tmp_path / "a.jsonl", [row()])
    with pytest.raises(UserError, match=message):
        export_rollouts(file, to, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_few_demonstrations_are_warned_about(tmp_path: Path) -> None:
    done: Done = export(write(tmp_path / "a.jsonl", [row()]), "sft", out=tmp_path / "out").targets[0]
    assert done.warnings[0].startswith("1 demonstrations")


def test_tokens_are_counted_where_a_tokenizer_is_at_hand(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    made = Tokenizer(models.WordLevel({"[UNK]": 0, "word": 1}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.save(str(tmp_path / "tokenizer.json"))
    file = write(tmp_path / "a.jsonl", [row("word word", "word " * 100)])
    done = export(file, "sft", out=tmp_path / "out", tokenizer=str(tmp_path)).targets[0]
    assert done.made.measured
    assert (done.made.data[0].longest_prompt, done.made.data[0].longest) == (2 + 5, 2 + 5 + 100 + 5)
