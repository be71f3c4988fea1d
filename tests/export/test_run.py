from __future__ import annotations

import csv
import gzip
import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rollforge.bulk.record import digest
from rollforge.curate.run import curate_rollouts
from rollforge.errors import UserError
from rollforge.export.place import workplace
from rollforge.export.result import Done, Exported
from rollforge.export.run import export_rollouts
from rollforge.export.target import Made, Problem
from rollforge.registry import resolve
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
    assert result.targets[-1].made.data[0].desirable == sum(labels)
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


def test_what_holds_out_nothing_says_so(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", [row(f"{task}?", str(task)) for task in range(3)])
    for share in (0.99, 1e-9):
        (one,) = export(file, "sft", out=tmp_path / str(share), validation=share).targets
        assert [file.name for file in one.files] == ["train.jsonl"]
        assert any(
            f"nothing is held out for validation: all rows fall on one side of --validation {share:g}" in said
            for said in one.warnings
        )
        assert "Nothing is held out for validation." in (one.folder / "README.md").read_text()
    (usual,) = export_rollouts(file, [(TOY, "sft")], tmp_path / "usual", workers=1).targets
    assert any("one side of --validation 0.1" in said for said in usual.warnings)
    (none,) = export(file, "sft", out=tmp_path / "none", validation=0).targets
    assert not any("held out" in said for said in none.warnings)


def test_rows_of_one_trajectory_stay_on_one_side(tmp_path: Path) -> None:
    rows = []
    for task in range(30):
        asked: list[Any] = [{"role": "user", "content": f"{task}?"}]
        for step in range(3):
            rows.append(row(responses_create_params={"input": [*asked]}, answer=f"{task}.{step}"))
            asked += [call("add", "{}", f"c{step}"), output(f"{task}", f"c{step}")]
    (one,) = export(write(tmp_path / "a.jsonl", rows), "sft", out=tmp_path / "out", validation=0.3).targets
    train, held_out = (
        {line["messages"][0]["content"] for line in lines(one.folder / f"{split}.jsonl")}
        for split in ("train", "validation")
    )
    assert len(train) + len(held_out) == 30
    assert one.problems == []


@pytest.mark.parametrize("split", ["export", "curate", "curate by equal prompts"])
@pytest.mark.parametrize("what", ["texts of tools", "texts of tools in parts", "items", "no user"])
def test_what_a_prompt_asks_is_the_same_for_splits_and_checks(what: str, split: str, tmp_path: Path) -> None:
    def prompt(task: int, step: int) -> list[Any]:
        asked = {"role": "user", "content": f"{digest(b'%d' % task).hex()}?"}
        told = f"<tool_response>\n{step}\n</tool_response>"
        match what:
            case "texts of tools":
                return [asked, {"role": "assistant", "content": "I look."}, {"role": "user", "content": told}]
            case "texts of tools in parts":
                parts = [{"type": "input_text", "text": told}]
                return [asked, {"role": "assistant", "content": "I look."}, {"role": "user", "content": parts}]
            case "items":
                return [asked, call("look", "{}"), output(f"{step}")]
        return [{**asked, "role": "system"}, {"role": "assistant", "content": f"{step}"}]

    rows = [row(f"{n}", f"{n}", responses_create_params={"input": prompt(n % 30, n)}) for n in range(90)]
    file = write(tmp_path / "a.jsonl", rows)
    if split != "export":
        near = None if "equal" in split else 0.8
        recipe = {"steps": [{"split": {"train": 0.6, "validation": 0.4, "near": near}}]}
        curate_rollouts(file, tmp_path / "curated", recipe=recipe)
        file = tmp_path / "curated"
    (one,) = export_rollouts(file, "trl:sft", tmp_path / "out", workers=1, validation=0.4).targets
    assert {file.split for file in one.files} == {"train", "validation"}
    assert [problem for problem in one.problems if problem.level == "error"] == []


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


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        *(("openrlhf:sft", 1), ("trl:sft", 1), ("generic:messages-score", 1), ("trl:grpo", 1), ("openrlhf:grpo", 1)),
        *(("verl:grpo", 1), ("nemo-rl:sft", 2)),
    ],
)
def test_numbers_that_readers_cut_leave_their_row_out_with_its_line(tmp_path: Path, name: str, kept: int) -> None:
    asked = {"input": [{"role": "user", "content": "2 + 2?"}, call("add", f'{{"n":{1 << 70}}}'), output("4")]}
    rows = [row("1 + 1?", expected_answer="2"), row(responses_create_params=asked, expected_answer="4")]
    framework, _, kind = name.partition(":")
    place = tmp_path / "out"
    result = export_rollouts(
        write(tmp_path / "a.jsonl", rows), [(resolve("export", framework), kind)], place, workers=1, validation=0
    )
    [done] = result.targets
    assert done.rows == kept
    refused = [where for reason, where in done.first_refused(result.inputs) if "beyond 64 bits" in reason]
    assert refused == ([f"{tmp_path / 'a.jsonl'}:2"] if kept == 1 else [])


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


@pytest.mark.parametrize("plan", ['{"planned": 6}', None])
def test_attempts_that_failed_before_the_rollout_was_judged_are_no_loss(tmp_path: Path, plan: str | None) -> None:
    run = tmp_path / "run"
    run.mkdir()
    if plan:
        (run / "run.json").write_text(plan)

    def attempt(n: int, outcome: str) -> dict[str, Any]:
        about = {"_ng_task_index": n, "_ng_rollout_index": 0, "rollforge": {"task": f"e:{n}", "outcome": outcome}}
        return row(str(n), reward=1.0 if outcome == "scored" else None, **about)

    write(run / "rollouts.jsonl", [attempt(n, "scored") for n in range(4)])
    write(run / "failures.jsonl", [attempt(n, "infra_fault") for n in range(5) for _ in range(3)])
    assert export(run, "sft", out=tmp_path / "out", min_coverage=4 / 6 if plan else 0.8).targets[0].rows == 4
    told = r"4 of 6 .*66\.7%.* 1 infra_fault, 1 not attempted" if plan else r"4 of 5 .*80\.0%.*: 1 infra_fault\."
    with pytest.raises(UserError, match=told):
        export(run, "sft", out=tmp_path / "other", min_coverage=0.9)


def test_without_a_reward_it_says_why(tmp_path: Path) -> None:
    write(
        tmp_path / "a.jsonl",
        [
            row(
                str(n),
                reward=None,
                rollforge={"outcome": "infra_fault", "failure": {"type": "InfraFault", "message": "gone"}},
            )
            for n in range(3)
        ],
    )
    with pytest.raises(UserError, match="no judged rollout in 3 lines: 3 infra_fault"):
        export(tmp_path / "a.jsonl", "sft", out=tmp_path / "out")


def test_runs_of_which_one_is_split_are_not_split_by_halves(tmp_path: Path) -> None:
    run = write(tmp_path / "a.jsonl", [row(str(n)) for n in range(20)])
    other = write(tmp_path / "b.jsonl", [row(f"{n}!") for n in range(20)])
    curate_rollouts([run], tmp_path / "split", recipe={"steps": [{"split": "80/20"}]})
    with pytest.raises(UserError, match=r"split is split already, .*b\.jsonl is not.*--split 90/10.*--validation 0"):
        export([tmp_path / "split", other], "sft", out=tmp_path / "out", validation=0.1)
    done = export([tmp_path / "split", other], "sft", out=tmp_path / "out", validation=0.0)
    assert done.targets[0].rows == 40


def test_a_task_none_of_whose_attempts_can_be_read_has_no_equal_texts(tmp_path: Path) -> None:
    output = [call("f", '{"x":'), said("done")]
    bad = [row("bad", reward=float(k % 2), _ng_task_index=0, response={"output": output}) for k in range(4)]
    good = [row("same", reward=float(k % 2), _ng_task_index=1) for k in range(2)]
    done = export(write(tmp_path / "a.jsonl", [*bad, *good]), "dpo", out=tmp_path / "out").targets[0]
    assert done.pairs is not None
    assert done.pairs.row() == {"tasks": 2, "equal texts": 1, "refused": 1, "pairs": 0}


def test_what_is_said_before_anything_is_read(tmp_path: Path) -> None:
    run = write(tmp_path / "a.jsonl", [row("1")])
    with pytest.raises(UserError, match="each target has a --to of its own"):
        export_rollouts(run, ["trl:sft,trl:dpo"], tmp_path / "out")
    with pytest.raises(UserError, match=r"a\.jsonl is a file; --out names a directory"):
        export_rollouts(run, ["trl:sft"], run)
    for kind in ("generic:mapping", "generic:mapping-prompts"):
        with pytest.raises(UserError, match=f"{kind} has no mapping: --mapping FILE"):
            export_rollouts(run, ["trl:sft", kind], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", ["", "\n\n", '{"a"\n', '{"a": 1}\n', "1\n"])
def test_nothing_usable(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.jsonl").write_text(content)
    with pytest.raises(UserError, match="no judged rollout"):
        export(tmp_path / "a.jsonl", "sft", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            gzip.compress(b"{}", mtime=0),
            r"a\.jsonl: the file is compressed \(gzip\): gunzip < .*a\.jsonl > .*a\.rows\.jsonl",
        ),
        (b'[{"reward": 1}]', r"one JSON array.*jq -c '\.\[\]'"),
        (b'{\n "reward": 1\n}', r"one JSON object over many lines.*jq -c \."),
        ('{"reward": 1}'.encode("utf-16"), "UTF-16.*iconv"),
        (b"\x00\x01\x02", "binary"),
        (b"PAR1", "Parquet"),
    ],
)
def test_files_that_are_no_json_lines_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(UserError, match=message):
        export(tmp_path / "a.jsonl", "sft", out=tmp_path / "out")


def test_a_first_row_that_is_a_list_is_a_bad_line(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", ["[1, 2]", *[row(str(n)) for n in range(5)]])
    result = export(file, "sft", out=tmp_path / "out")
    assert (result.targets[0].rows, sum(one.count for one in result.unusable.values())) == (5, 1)


def test_answers_that_are_needed(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", [row("1?", expected_answer=1), row("2?"), row("3?", solution={"x": 2})])
    done = export(file, "answers", out=tmp_path / "out").targets[0]
    assert done.rows == 1
    assert list(done.refused) == ["no expected answer was found (name its field: --answer FIELD)"]
    assert done.made.data[0].answered == 1
    named = export(file, "answers", out=tmp_path / "named", answer="solution.x").targets[0]
    assert lines(named.folder / "train.jsonl")[0]["answer"] == "2"


def test_prompts_without_an_answer_are_warned_about(tmp_path: Path) -> None:
    several = row("2?", expected_answer=["5", "five"])
    inside = row("3?", verifier_metadata={"answer": {"x": 1}})
    file = write(tmp_path / "a.jsonl", [row("1?", expected_answer=1), several, inside])
    kinds = ("trl:grpo", "verl:grpo", "openrlhf:grpo")
    for done in export_rollouts(file, kinds, tmp_path / "out", workers=1, validation=0).targets:
        assert done.rows == 3
        [warning] = done.warnings
        assert warning.startswith("2 of 3 prompts have no expected answer: re")
        assert "expected_answer is a list: --answer expected_answer takes it as JSON" in warning
        assert "verifier_metadata.answer is an object" in warning
    refused = export_rollouts(file, ["nemo-rl:grpo"], tmp_path / "out", workers=1, validation=0).targets[0].refused
    assert any("expected_answer is a list: --answer expected_answer" in reason for reason in refused)
    named = export_rollouts(file, kinds[:1], tmp_path / "named", workers=1, validation=0, answer="no.such").targets[0]
    assert named.warnings[-1] == "no row has no.such: --answer names a field that is not there"
    full = export_rollouts(file, kinds[:1], tmp_path / "b", workers=1, validation=0, answer="responses_create_params")
    assert full.targets[0].warnings == []
    mix = export_rollouts(
        file, kinds[:1], tmp_path / "c", workers=1, validation=0, answer="no.such,verifier_metadata.answer,expected_answer"
    )
    assert [one["ground_truth"] for one in lines(mix.targets[0].folder / "train.jsonl")] == ["1", '["5","five"]', '{"x":1}']


def test_tasks_below_a_reward_are_left_out(tmp_path: Path) -> None:
    rows = [row("1?", "a", 0.0), row("1?", "b", 0.5), row("2?", "c", 0.1)]
    for kinds in (["prompts"], ["prompts", "dpo"]):
        file = write(tmp_path / "a.jsonl", rows)
        done = export(file, *kinds, out=tmp_path / "out", prompt_reward=0.5, overwrite=True).targets[0]
        assert [one["output"] for one in lines(done.folder / "train.jsonl")] == ["b"]
        assert (done.tasks, dict(done.left_out)) == (2, {"no reward >= 0.5 (--prompt-reward)": 1})


def test_a_sum_that_means_the_threshold_reaches_it(tmp_path: Path) -> None:
    rows = [row("1?", "a", 0.7 + 0.1), row("2?", "b", 0.79)]
    assert rows[0]["reward"] < 0.8
    file = write(tmp_path / "a.jsonl", rows)
    for kind, option in (("sft", "min_reward"), ("prompts", "prompt_reward")):
        done = export(file, kind, out=tmp_path / kind, **{option: 0.8}).targets[0]
        assert [line.split("\t")[-1] for line in (done.folder / "lineage.tsv").read_text().splitlines()[1:]] == ["0"]


def test_no_pairs_says_why_and_writes_nothing(tmp_path: Path) -> None:
    result = export(write(tmp_path / "a.jsonl", [row("1?"), row("2?")]), "dpo", "sft", out=tmp_path / "out")
    pairs, sft = result.targets
    assert result.failed
    assert pairs.rows == 0
    assert "--repeats 4" in pairs.warnings[0]
    assert sft.rows == 2
    assert not pairs.folder.exists()


def test_equal_texts_make_no_pair(tmp_path: Path) -> None:
    rows = [row("1?", "same", 1.0), row("1?", "  same \n", 0.0), row("1?", "other", 0.1)]
    done = export(write(tmp_path / "a.jsonl", rows), "dpo", out=tmp_path / "out").targets[0]
    assert [one["rejected"][0]["content"] for one in lines(done.folder / "train.jsonl")] == ["other"]


def test_copies_make_no_pair_twice(tmp_path: Path) -> None:
    rows = [row("1?", text, reward) for text, reward in (("a", 1.0), ("b", 0.9), ("c", 0.1), ("d ", 0.0), ("d", 0.0)) * 3]
    for pick in ("all_pairs", "margin"):
        done = export(write(tmp_path / "a.jsonl", rows), "dpo", out=tmp_path / pick, pick=pick).targets[0]
        told = [
            tuple(pair[side][0]["content"].strip() for side in ("chosen", "rejected"))
            for pair in lines(done.folder / "train.jsonl")
        ]
        assert sorted(told) == [("a", "c"), ("a", "d"), ("b", "c"), ("b", "d")]


def test_an_empty_answer_is_never_the_chosen_one(tmp_path: Path) -> None:
    rows = [row("1", "", 1.0), row("1", "4", 1.0), row("1", "5", 0.0), row("2", " ", 1.0), row("2", "6", 0.0)]
    (one,) = export(write(tmp_path / "a.jsonl", rows), "dpo", out=tmp_path / "out").targets
    (pair,) = lines(one.folder / "train.jsonl")
    assert (pair["chosen"][0]["content"], pair["rejected"][0]["content"]) == ("4", "5")
    assert {reason: found.count for reason, found in one.refused.items()} == {"the chosen answer is empty": 2}


def test_across_prompts_only_when_asked(tmp_path: Path) -> None:
    rows = [row("1?", "good", 1.0), row("2?", "bad", 0.0), row("3?", "better", 0.9), row("4?", "worse", 0.1)]
    file = write(tmp_path / "a.jsonl", rows)
    none = export(file, "dpo", out=tmp_path / "no", strategy="stratified").targets[0]
    assert none.rows == 0
    assert "--across-prompts would give up to 2 pairs of different tasks" in none.warnings[0]
    done = export(file, "dpo", out=tmp_path / "yes", strategy="stratified", across_prompts=True).targets[0]
    found = lines(done.folder / "train.jsonl")
    assert [(one["chosen"][0]["content"], one["rejected"][0]["content"]) for one in found] == [
        ("good", "bad"),
        ("better", "worse"),
    ]
    assert [text.partition(":")[0] for text in done.warnings] == ["2 pairs are of different prompts"]
    split = [{**one, "agent_ref": {"name": str(n % 2)}} for n, one in enumerate(rows)]
    apart = export(write(tmp_path / "b.jsonl", split), "dpo", out=tmp_path / "no", strategy="stratified").targets[0]
    assert "--across-prompts" not in apart.warnings[0]


def test_prompts_may_be_as_far_apart_as_the_least_gap(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", [row("1?", "good", 0.7), row("2?", "bad", 0.5)])
    options = {"strategy": "stratified", "across_prompts": True, "low_threshold": 0.5, "min_gap": 0.2}
    assert export(file, "dpo", out=tmp_path / "out", **options).targets[0].rows == 1


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


def test_lineage_names_both_sides_of_a_pair(tmp_path: Path) -> None:
    file = write(
        tmp_path / "a.jsonl", [row("?", f"answer {n}", float(n), _ng_task_index=0, _ng_rollout_index=n) for n in range(2)]
    )
    folder = export(file, "dpo", out=tmp_path / "out").targets[0].folder
    with open(folder / "lineage.tsv", newline="") as lines_:
        (pair,) = csv.DictReader(lines_, delimiter="\t")
    second = str(file.read_bytes().index(b"\n") + 1)
    assert (pair["chosen"], pair["chosen_byte"], pair["rejected"], pair["rejected_byte"]) == ("0-1", second, "0-0", "0")


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


def test_exports_into_one_directory_leave_each_other_alone(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()

    def work(number: int) -> bool:
        with workplace(out, [f"{number}"], overwrite=False) as place:
            (place / "file").write_text("x")
            return place.is_dir()

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(work, range(400)))
    assert not [*out.iterdir()]


def test_a_terminal_that_does_not_wait_is_an_error_like_others(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="could not complete"), workplace(tmp_path / "out", ["x"], overwrite=False):
        raise BlockingIOError(11, "write could not complete without blocking")
    assert not (tmp_path / "out").exists()


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
    "options",
    [
        {},
        {"pick": "all_pairs"},
        {"pick": "margin"},
        {"pick": "length_matched"},
        {"strategy": "stratified", "across_prompts": True},
    ],
)
def test_each_kind_has_the_pairs_that_it_would_have_alone(tmp_path: Path, options: dict[str, Any]) -> None:
    tools = {"output": [call("add", '{"a": 1}'), output("2"), said("2")]}
    rows = []
    for task in range(5):
        # The best attempt called a tool, which nemo-rl:dpo has no place for: the next pair does.
        rows += [row(f"{task}?", reward=1.0, response=tools), row(f"{task}?", "yes", 0.9), row(f"{task}?", "no", 0.0)]
    rows += [row("tools?", reward=1.0, response=tools), row("tools?", "no", 0.0), row("good?", "good", 1.0)]
    file, kinds = write(tmp_path / "a.jsonl", rows), ["nemo-rl:dpo", "nemo-rl:dpo-messages", "openrlhf:dpo"]
    together = export_rollouts(file, kinds, tmp_path / "out", workers=1, validation=0, **options).targets
    for kind, done in zip(kinds, together, strict=True):
        (alone,) = export_rollouts(file, [kind], tmp_path / kind, workers=1, validation=0, **options).targets
        assert lines(done.folder / "train.jsonl") == lines(alone.folder / "train.jsonl")
        assert done.pairs is not None
        assert alone.pairs is not None
        counted = done.pairs.row()
        assert counted == alone.pairs.row()
        assert counted["tasks"] == 7 == sum(count for name, count in counted.items() if "pairs" not in name) - 7
        assert counted["paired"] == (5 if kind == "nemo-rl:dpo" else 6)
        assert counted["pairs"] + counted.get("pairs_across_prompts", 0) == done.rows
        reason = "a completion has tool turns (nemo-rl:dpo-messages keeps them)"
        assert list(done.refused) == ([reason] if kind == "nemo-rl:dpo" else [])


@pytest.mark.parametrize(
    ("to", "options", "message"),
    [
        (["nemo"], {}, "unknown export target 'nemo'"),
        (["nemo-rl:grop"], {}, "did you mean grpo"),
        ([(TOY, "sfd")], {}, "unknown kind of toy 'sfd'; did you mean sft"),
        ([], {}, "name at least one target"),
        ([(TOY, "sft")], {"min_rewrad": 1}, "did you mean min_reward"),
        ([(TOY, "sft")], {"strategy": "best"}, "strategy"),
        ([(TOY, "sft")], {"tokenizer": "nowhere"}, "nowhere is not there, nor in the hub's cache"),
        ([(TOY, "sft")], {"gpus": 0}, r"--gpus 0: should be greater than or equal to 1"),
        ([(TOY, "sft")], {"nodes": -1}, r"--nodes -1: "),
        ([(TOY, "sft")], {"lora": -4}, r"--lora -4: "),
        ([(TOY, "sft")], {"min_gap": -1}, r"--min-gap -1: "),
        ([(TOY, "sft")], {"max_pairs": 0}, r"--max-pairs 0: "),
        ([(TOY, "sft")], {"min_reward": float("nan")}, r"--min-reward nan: should be a finite number"),
        ([(TOY, "sft")], {"prompt_reward": float("inf")}, r"--prompt-reward inf: should be a finite number"),
        ([(TOY, "sft")], {"low_threshold": 0.8}, r"--low-threshold 0\.8 is above --high-threshold 0\.7"),
        ([(TOY, "sft")], {"model": "a\nb"}, r"--model 'a\\nb': must be text on one line"),
        ([(TOY, "sft")], {"target_version": {"toy": "3"}}, "unknown version of toy '3'; known: 1, 2"),
        ([(TOY, "sft")], {"target_version": {"trl": "3"}}, "unknown target 'trl'"),
    ],
)
def test_wrong_requests(tmp_path: Path, to: list[Any], options: dict[str, Any], message: str) -> None:
    file = write(tmp_path / "a.jsonl", [row()])
    with pytest.raises(UserError, match=message):
        export_rollouts(file, to, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("to", ["trl:grpo", "nemo-rl:grpo", "nemo-rl:nemo-gym", "verl:grpo", "openrlhf:grpo"])
def test_a_length_that_leaves_no_room_for_an_answer_is_refused(tmp_path: Path, to: str) -> None:
    file = write(tmp_path / "a.jsonl", [row(f"What is {n} and {n} times {n}?", expected_answer="4") for n in range(20)])
    with pytest.raises(UserError, match=f"--to {to}: max_length 12 leaves no room for an answer: the longest prompt has"):
        export_rollouts(file, [to], tmp_path / "out", max_length=12, workers=1)
    assert not (tmp_path / "out").exists()


def test_a_name_that_was_taken_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", [row()])
    out = tmp_path / "out"

    def other(done: int, size: int) -> None:
        if not (out / "toy-sft").exists():
            (out / "toy-sft").mkdir()
            (out / "toy-sft" / "train.jsonl").write_text("another one's\n")

    with pytest.raises(UserError, match="was made by another export meanwhile"):
        export(file, "sft", out=out, progress=other)
    assert (out / "toy-sft" / "train.jsonl").read_text() == "another one's\n"
    assert [one.name for one in out.iterdir()] == ["toy-sft"]


@pytest.mark.parametrize("new", [[row("other")] * 3, [row("another, and longer")] * 9, []])
@pytest.mark.parametrize("workers", [1, 2])
def test_input_that_is_replaced_meanwhile_is_found_out(tmp_path: Path, new: list[Any], workers: int) -> None:
    file = write(tmp_path / "a.jsonl", [row(f"{n}?") for n in range(3)])
    out = tmp_path / "out"

    def other(done: int, size: int) -> None:
        write(tmp_path / "b.jsonl", new).replace(file)

    with pytest.raises(UserError, match="was replaced or cut while it was read"):
        export(file, "sft", "prompts", out=out, progress=other, workers=workers)
    assert not out.exists()


def test_input_that_grows_meanwhile_counts_as_far_as_it_was_read(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", [row(f"{n}?") for n in range(3)])
    before = file.read_bytes()

    def more(done: int, size: int) -> None:
        with file.open("a") as end:
            end.write(json.dumps(row("later?")) + "\n")

    for workers in (1, 2):
        done = export(file, "sft", out=tmp_path / f"out{workers}", progress=more, workers=workers).targets[0]
        (source,) = json.loads((done.folder / "manifest.json").read_bytes())["inputs"]
        assert source["sha256"] == hashlib.sha256(file.read_bytes()[: source["bytes"]]).hexdigest()
        assert done.rows == file.read_bytes()[: source["bytes"]].count(b"\n")
    assert file.read_bytes().startswith(before)
    assert b"later" in file.read_bytes()


def test_few_demonstrations_are_warned_about(tmp_path: Path) -> None:
    done: Done = export(write(tmp_path / "a.jsonl", [row()]), "sft", out=tmp_path / "out").targets[0]
    assert done.warnings[0].startswith("1 demonstration to train on")
    assert "--min-reward" in done.warnings[0]


def test_a_lower_reward_is_no_remedy_for_rows_that_were_refused(tmp_path: Path) -> None:
    tools = [call("add", '{"a": 1}'), output("2"), said("2")]
    rows = [{**row(f"{task}?"), "response": {"output": tools}} for task in range(3)]
    (done,) = export_rollouts(write(tmp_path / "a.jsonl", rows), ["nemo-rl:sft-simple"], tmp_path / "out", workers=1).targets
    assert done.rows == 0
    assert "another kind may hold them" in done.warnings[0]


@pytest.mark.parametrize(
    ("model", "target", "warned"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", "trl:sft", True),
        ("/models/Meta-Llama-3.3-70B-Instruct", "nemo-rl:sft", True),
        ("meta-llama/Llama-3.2-3B-Instruct", "trl:dpo", True),
        ("meta-llama/Llama-3.1-8B-Instruct", "openrlhf:sft-simple", False),
        ("nvidia/Llama-3.1-Nemotron-Nano-8B-v1", "trl:sft", False),
        ("NousResearch/Hermes-3-Llama-3.1-8B", "trl:sft", False),
        ("Qwen/Qwen3-8B", "trl:sft", False),
    ],
)
def test_several_calls_in_a_turn_are_named_where_the_models_template_refuses_them(
    model: str, target: str, warned: bool, tmp_path: Path
) -> None:
    both = [call("add", "{}", "c1"), call("add", "{}", "c2"), output("1", "c1"), output("2", "c2")]
    one = [call("add", "{}", "c1"), output("1", "c1")]
    rows = [
        {**row("1?", reward=reward), "response": {"output": [*turns, said(text)]}}
        for reward, turns, text in ((1.0, both, "3"), (0.96, one, "3, too"), (0.0, one, "4"))
    ]
    (done,) = export_rollouts(write(tmp_path / "a.jsonl", rows), [target], tmp_path / "out", model=model).targets
    found = [text for text in done.warnings if "single tool-calls" in text]
    assert len(found) == warned
    assert all(text.startswith(f"1 of {done.rows} rows") and model in text for text in found)


@pytest.mark.parametrize(
    ("to", "options", "said"),
    [
        (["nemo-rl:dpo"], {"high_threshold": 0.9, "across_prompts": True}, ["--high-threshold (only with --strategy strat"]),
        (["nemo-rl:dpo", "trl:kto"], {"high_threshold": 0.9}, []),
        (["nemo-rl:sft"], {"high_threshold": 0.9}, []),
        (["trl:dpo"], {"strategy": "stratified", "pick": "margin"}, ["--pick (only with --strategy same_prompt)"]),
        (["trl:sft", "nemo-rl:sft", "openrlhf:sft"], {"model": "Qwen/Qwen2.5-32B"}, ["on 1 GPU: weights, gradients"]),
        (["trl:sft"], {"model": "Qwen/Qwen2.5-32B", "gpus": 4}, []),
        (["trl:sft"], {"model": "Qwen/Qwen2.5-32B", "lora": 8}, []),
        (["trl:sft"], {"model": "Qwen/Qwen2.5-72B", "lora": 8}, ["the weights in bfloat16 take about 144 GB"]),
        (["trl:sft"], {"model": "Qwen/Qwen2.5-7B"}, []),
        (["trl:sft"], {"model": "mine"}, []),
    ],
)
def test_what_is_said_once_for_all_targets(to: list[str], options: dict[str, Any], said: list[str], tmp_path: Path) -> None:
    rows = [row("1?", "good", 1.0), row("1?", "bad", 0.0), row("2?", "fine", 1.0)]
    result = export_rollouts(write(tmp_path / "a.jsonl", rows), to, tmp_path / "out", workers=1, validation=0, **options)
    assert len(result.notes) == len(said)
    assert all(text in note for text, note in zip(said, result.notes, strict=True))
    assert result.row()["notes"] == result.notes


def test_tokens_are_counted_where_a_tokenizer_is_at_hand(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    made = Tokenizer(models.WordLevel({"[UNK]": 0, "word": 1}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.save(str(tmp_path / "tokenizer.json"))
    file = write(tmp_path / "a.jsonl", [row("word word", "word " * 100)])
    done = export(file, "sft", out=tmp_path / "out", tokenizer=str(tmp_path)).targets[0]
    assert done.made.measured
    assert (done.made.data[0].longest_prompt, done.made.data[0].longest) == (2 + 5, 2 + 5 + 100 + 5)


def test_what_no_export_wrote_survives_overwrite(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", [row()])
    folder = export(file, "sft", out=tmp_path / "out").targets[0].folder
    weights = folder / "results" / "step_100" / "model.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"weights")
    (folder / "notes.txt").write_text("mine")
    (folder / "validation.jsonl").write_text("not the export's\n")
    done = export(file, "sft", out=tmp_path / "out", overwrite=True).targets[0]
    assert weights.read_bytes() == b"weights"
    assert (folder / "notes.txt").read_text() == "mine"
    assert done.kept == ["notes.txt", "results", "validation.jsonl"]
    rows = [row(f"{n}?") for n in range(40)]
    again = export(write(tmp_path / "b.jsonl", rows), "sft", out=tmp_path / "out", overwrite=True, validation=0.3)
    assert (folder / "validation.jsonl.old").read_text() == "not the export's\n"
    assert again.targets[0].kept == ["notes.txt", "results", "validation.jsonl.old"]
    assert [one.name for one in (tmp_path / "out").iterdir()] == ["toy-sft"]


def test_without_rows_the_earlier_export_stays_and_is_called_so(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", [row()])
    folder = export(file, "sft", out=tmp_path / "out").targets[0].folder
    before = (folder / "train.jsonl").read_bytes()
    again = export(file, "sft", out=tmp_path / "out", overwrite=True, min_reward=5)
    assert again.failed
    assert f"what stands in {folder} is of an earlier export: nothing was replaced" in again.targets[0].warnings
    assert (folder / "train.jsonl").read_bytes() == before
    fresh = export(file, "sft", out=tmp_path / "fresh", overwrite=True, min_reward=5)
    assert not any("earlier" in said for said in fresh.targets[0].warnings)


def test_checkpoints_survive_a_kill_between_the_renames(tmp_path: Path) -> None:
    out = tmp_path / "out"
    file = write(tmp_path / "a.jsonl", [row()])
    folder = export(file, "sft", out=out).targets[0].folder
    (folder / "results").mkdir()
    (folder / "results" / "model").write_text("weights")
    folder.rename(out / ".old-toy-sft")
    export(file, "sft", out=tmp_path / "other")
    (tmp_path / "other" / "toy-sft").rename(folder)
    export(file, "prompts", out=out)
    assert (folder / "results" / "model").read_text() == "weights"
    assert sorted(one.name for one in out.iterdir()) == ["toy-prompts", "toy-sft"]


def test_the_check_comes_before_the_final_name(tmp_path: Path) -> None:
    seen: list[tuple[str, bool]] = []

    def files(made: Made) -> dict[str, str]:
        return {"config.yaml": f"data: {made.data[0].path}\n"}

    def check_config(kind: str, file: Path) -> list[Problem]:
        there = Path(file.read_text().removeprefix("data: ").strip())
        seen.append((str(file.parent), there.is_file() and not (tmp_path / "out" / "toy-sft").exists()))
        return [Problem(str(file), 1, "warning", f"{there} is looked at")]

    target = replace(TOY, files=files, check_config=check_config)
    found = export_rollouts(write(tmp_path / "a.jsonl", [row()]), [(target, "sft")], tmp_path / "out", workers=1)
    folder = tmp_path / "out" / "toy-sft"
    assert [at_work for _, at_work in seen] == [True]
    said = f"{folder}/config.yaml:1: {folder}/train.jsonl is looked at"
    assert [str(one) for one in found.targets[0].problems] == [said]
    assert (folder / "config.yaml").read_text() == f"data: {folder}/train.jsonl\n"
    assert ".partial-" not in "".join(file.read_text() for file in folder.iterdir())


def test_tools_that_are_no_functions_are_counted(tmp_path: Path) -> None:
    params = {"input": "q", "tools": [{"type": "web_search_preview"}]}
    rows = [row(answer=str(reward), reward=reward, responses_create_params=params, expected_answer="4") for reward in (1, 0)]
    kinds = ("trl:sft", "trl:grpo", "trl:dpo", "generic:openai", "verl:grpo", "nemo-rl:nemo-gym")
    made = export_rollouts(write(tmp_path / "a.jsonl", rows), kinds, tmp_path / "out", workers=1, validation=0)
    assert [(done.name, done.rows) for done in made.targets] == [(name, 1) for name in kinds]
    assert not any(problem.level == "error" for done in made.targets for problem in done.problems)
    said = {done.name: [text for text in done.warnings if "web_search_preview" in text] for done in made.targets}
    assert said.pop("nemo-rl:nemo-gym") == []
    for name, warnings in said.items():
        whose = {"trl:grpo": "1 task", "verl:grpo": "1 task", "trl:dpo": "2 rollouts"}.get(name, "1 rollout")
        why = "had a tool that is no function (web_search_preview): chat messages have no place for it"
        assert warnings == [f"{whose} {why}"]


def test_a_response_that_messages_cannot_hold_is_no_matter_for_a_prompt(tmp_path: Path) -> None:
    search = {"type": "web_search_call", "id": "w", "status": "completed", "action": {"type": "search", "query": "q"}}
    rows = [row(f"{n}?", response={"output": [search, said("4")]}, expected_answer="4") for n in range(3)]
    made = export_rollouts(write(tmp_path / "a.jsonl", rows), ["trl:grpo", "trl:sft"], tmp_path / "out", validation=0)
    prompts, demonstrations = made.targets
    assert (prompts.rows, prompts.refused, len(lines(prompts.folder / "train.jsonl"))) == (3, {}, 3)
    [reason] = demonstrations.refused
    assert "web_search_call" in reason
    assert "--model" not in reason


def test_a_task_as_it_is_stored_needs_no_chat_messages(tmp_path: Path) -> None:
    history = [{"role": "user", "content": "?"}, call("add", "{"), output("broken"), {"role": "user", "content": "again"}]
    params = {"input": history, "tools": [{"type": "bash_20250124", "name": "bash"}]}
    called = {"input": [history[0], call("bash", "{}"), output("ok")], "tools": params["tools"]}
    rows = [row(responses_create_params=one, expected_answer="4") for one in (params, called)]
    file = write(tmp_path / "a.jsonl", rows)
    live, prompts = export_rollouts(file, ["nemo-rl:nemo-gym", "trl:grpo"], tmp_path / "out", validation=0).targets
    assert (live.rows, live.refused, prompts.rows) == (2, {}, 0)
    assert [one["responses_create_params"] for one in lines(next(live.folder.glob("train*.jsonl")))] == [params, called]
    assert list(prompts.refused) == [
        "a tool call's arguments are not a JSON object",
        "it calls a tool of type bash_20250124, which is no function",
    ]


def test_the_same_words_with_other_tools_or_another_answer_are_another_task(tmp_path: Path) -> None:
    def tool(name: str) -> dict[str, Any]:
        return {"type": "function", "name": name, "parameters": {"type": "object"}}

    offered = [row(reward=n, responses_create_params={"input": "q", "tools": [tool(f"t{n}")]}) for n in (0, 1)]
    wanted = [row("r", reward=n, expected_answer=str(n)) for n in (0, 1)]
    same = [row("s", str(n), reward=n, expected_answer="4", verifier_metadata={"x": n}) for n in (0, 1)]
    file = write(tmp_path / "a.jsonl", [*offered, *wanted, *same])
    prompts, pairs = export(file, "prompts", "dpo", out=tmp_path / "out").targets
    assert (prompts.tasks, prompts.rows, pairs.rows) == (5, 5, 1)
    queries = [row(reward=n, sql=f"SELECT {n}", rollforge=block) for n in (0, 1) for block in ({}, {"task": "t"})]
    file = write(tmp_path / "b.jsonl", queries)
    for answer, tasks in ((None, 2), ("sql", 3)):
        [prompts] = export(file, "prompts", out=tmp_path / str(answer), answer=answer).targets
        assert (prompts.tasks, prompts.rows) == (tasks, tasks)


def thinking(*parts: dict[str, Any], text: str = "4") -> dict[str, Any]:
    return row(response={"output": [{"type": "reasoning", "id": "r", "summary": [], **one} for one in parts] + [said(text)]})


def test_reasoning_that_no_message_holds_is_said(tmp_path: Path) -> None:
    full = {"content": [{"type": "reasoning_text", "text": "all"}], "summary": [{"type": "summary_text", "text": "some"}]}
    rows = [thinking({"encrypted_content": "abc"}), thinking({"encrypted_content": None}), thinking(full)]
    file = write(tmp_path / "a.jsonl", rows)
    done = export(file, "sft", out=tmp_path / "out").targets[0]
    assert done.rows == 3
    assert done.warnings[:2] == [
        "1 rollout had encrypted reasoning: chat messages have no place for it",
        "1 rollout had summaries of reasoning that is there in full: chat messages have no place for it",
    ]
    dropped = export(file, "sft", out=tmp_path / "dropped", reasoning="drop").targets[0]
    assert not any("reasoning" in text for text in dropped.warnings)


def test_what_no_message_holds_of_earlier_turns_is_said(tmp_path: Path) -> None:
    full = {"content": [{"type": "reasoning_text", "text": "all"}], "summary": [{"type": "summary_text", "text": "some"}]}
    thoughts = [{"type": "reasoning", "id": "r", **one} for one in (full, {"summary": [], "encrypted_content": "abc"})]
    refusal = {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}
    user = {"role": "user", "content": "?"}
    asked = row(responses_create_params={"input": [user, *thoughts, refusal, user]})
    file = write(tmp_path / "a.jsonl", [asked, thinking({"encrypted_content": "abc"})])
    for kind, whose, hidden in (("sft", "1 rollout", "2 rollouts"), ("prompts", "1 task", "1 task")):
        warnings = export(file, kind, out=tmp_path / kind).targets[0].warnings
        assert [text for text in warnings if "chat messages have no place" in text] == [
            f"{whose} had a refusal: chat messages have no place for it",
            f"{hidden} had encrypted reasoning: chat messages have no place for it",
            f"{whose} had summaries of reasoning that is there in full: chat messages have no place for it",
        ]


def test_reasoning_in_the_text_is_dropped_too(tmp_path: Path) -> None:
    answers = ["<think>hm</think>\n\n4", "hm</think>4", "4 is what <think> says"]
    file = write(tmp_path / "a.jsonl", [row(str(n), text) for n, text in enumerate(answers)])
    done = export(file, "sft", out=tmp_path / "out", reasoning="drop").targets[0]
    texts = [one["messages"][-1]["content"] for one in lines(done.folder / "train.jsonl")]
    assert texts == ["4", "4", "4 is what <think> says"]
    asked = [{"role": "user", "content": "<think>1?"}, said("<think>hm</think>1"), {"role": "user", "content": "2?"}]
    file = write(tmp_path / "b.jsonl", [row(responses_create_params={"input": asked})])
    for kind in ("sft", "prompts"):
        done = export(file, kind, out=tmp_path / f"asked-{kind}", reasoning="drop").targets[0]
        [told] = lines(done.folder / "train.jsonl")
        assert [one["content"] for one in told["messages"][:3]] == ["<think>1?", "1", "2?"]


def test_why_a_rollout_is_no_demonstration(tmp_path: Path) -> None:
    refusal = {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}
    strange = {"type": "file_search_call", "id": "f", "queries": []}
    rows = [row("1"), row("2", response={"output": [refusal]}), row("3", response={"output": [strange, said("4")]})]
    refused = export(write(tmp_path / "a.jsonl", rows), "sft", out=tmp_path / "out").targets[0].refused
    assert list(refused) == [
        "the model refused to answer",
        "the conversation has an item of type 'file_search_call', which Chat Completions cannot express",
    ]


def test_local_models_and_images_are_named_by_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.jsonl", [row(f"{task}?", "4") for task in range(20)])
    (tmp_path / "org/mine").mkdir(parents=True)
    (tmp_path / "image.sqsh").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    given = {"./mine": "mine", "org/mine": "org/mine", "~/org/mine": "org/mine", str(tmp_path / "x"): "x"}
    for number, (model, place) in enumerate(given.items()):
        kinds = ["trl:sft", "nemo-rl:sft", "openrlhf:sft"]
        result = export_rollouts(["a.jsonl"], kinds, f"out{number}", model=model, container="image.sqsh", checkpoints="~/ck")
        for one in result.targets:
            assert one.made.settings.model == str(tmp_path / place)
            assert one.made.settings.container == str(tmp_path / "image.sqsh")
            assert one.made.settings.checkpoints == str(tmp_path / "ck")
            launch = (one.folder / "launch.sh").read_text()
            assert f"\nhave_path {tmp_path / place}\n" in launch
            assert "\nhub_login /" not in launch
    result = export_rollouts(["a.jsonl"], ["trl:sft"], "hub", model="org/theirs", container="nvcr.io/nvidia/nemo:25")
    [one] = result.targets
    assert (one.made.settings.model, one.made.settings.container) == ("org/theirs", "nvcr.io/nvidia/nemo:25")
    assert "\nhub_login org/theirs\n" in (one.folder / "launch.sh").read_text()


def test_a_version_without_quotes_is_told_so(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", [row()])
    with pytest.raises(UserError, match=r'--target-version.openrlhf 0.1: in YAML a version stands in quotes \("0.10"\)'):
        export_rollouts([file], ["openrlhf:sft"], tmp_path / "out", target_version={"openrlhf": 0.10})
