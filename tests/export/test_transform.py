"""The pages' commands: every usable row becomes one, the others are named."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rollforge.errors import UserError
from rollforge.export.transform import ToGrpo, transform_rows

ROOT = Path(__file__).parents[2]


def message(text):
    return {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}


def rollout(prompt, text="4", reward=1.0, **more):
    system = {"role": "system", "content": "Think."}
    asked = [system, {"role": "user", "content": [{"type": "input_text", "text": prompt}]}]
    call = {"type": "function_call", "call_id": "c1", "name": "add", "arguments": '{"a": 2}'}
    told = {"type": "function_call_output", "call_id": "c1", "output": "4"}
    return {
        "responses_create_params": {"input": asked, "tools": [{"type": "function", "name": "add", "parameters": {}}]},
        "response": {"output": [call, told, message(text)]},
        "reward": reward,
        "expected_answer": "4",
        **more,
    }


def write(path, *rows):
    path.write_bytes(b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows))
    return path


def run(kind, *options, code=0):
    command = [sys.executable, str(ROOT / "scripts" / f"transform_gym_to_{kind}.py"), *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, done.stderr
    return done


def rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def source(tmp_path):
    old = {
        "responses_create_params": {"input": "1+1?"},
        "output": [{"type": "message", "content": [{"text": "2"}]}],
        "reward": 0.9,
    }
    return write(tmp_path / "rollouts.jsonl", rollout("2+2?"), b"{broken", old, b"", rollout("3+1?", reward=0.0))


def test_grpo_rows(source, tmp_path):
    out = tmp_path / "new" / "train.jsonl"
    done = run("grpo", "--input", source, "--output", out, "--reward_threshold", "0.0")
    assert rows(out) == [
        {"input": "2+2?", "output": "4", "ground_truth": "4"},
        {"input": "1+1?", "output": "2"},
        {"input": "3+1?", "output": "4", "ground_truth": "4"},
    ]
    assert f"{source}:2: not JSON" in done.stderr
    assert f"{source}:4: blank line" in done.stderr
    assert "output_key: ground_truth" in done.stderr
    assert "5 lines read, 2 cannot be used" in done.stdout
    assert [file.name for file in out.parent.iterdir()] == ["train.jsonl"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--no_ground_truth"], {"input": "2+2?", "output": "4"}),
        (["--with_reward", "--no_ground_truth"], {"input": "2+2?", "output": "4", "reward": 1.0}),
        (["--output_is", "answer"], {"input": "2+2?", "output": "7", "ground_truth": "7"}),
        (["--answer", "task.gold"], {"input": "2+2?", "output": "4", "ground_truth": "6"}),
        (["--reward-threshold", "0.5"], {"input": "2+2?", "output": "4", "ground_truth": "7"}),
    ],
)
def test_options_of_grpo(tmp_path, options, expected):
    given = write(tmp_path / "in.jsonl", rollout("2+2?", expected_answer=7, task={"gold": 6}))
    run("grpo", "--input", given, "--output", tmp_path / "out.jsonl", *options)
    assert rows(tmp_path / "out.jsonl") == [expected]


def test_an_answer_that_only_calls_tools_is_its_calls(tmp_path):
    row = rollout("2+2?")
    row["response"]["output"] = row["response"]["output"][:1]
    run("grpo", "--input", write(tmp_path / "in.jsonl", row), "--output", tmp_path / "out.jsonl")
    (made,) = rows(tmp_path / "out.jsonl")
    assert made["output"] == '<tool_call>\n{"name":"add","arguments":{"a":2}}\n</tool_call>'


def test_sft_rows_hold_the_whole_conversation(source, tmp_path):
    out = tmp_path / "train.jsonl"
    done = run("sft", "--input", source, "--output", out, "--reward_threshold", "0.95", "--format", "openai")
    (row,) = rows(out)
    assert [one["role"] for one in row["messages"]] == ["system", "user", "assistant", "tool", "assistant"]
    (call,) = row["messages"][2]["tool_calls"]
    assert call["function"] == {"name": "add", "arguments": {"a": 2}}
    assert row["messages"][3]["tool_call_id"] == call["id"]
    assert row["tools"][0]["function"]["name"] == "add"
    assert "fewer than 100 examples (1)" in done.stderr
    assert "2 below the reward threshold" in done.stdout


def test_what_rows_lack_is_noted(tmp_path):
    whole, unanswered, orphan, waiting = (rollout("2+2?") for _ in range(4))
    call, told, said = whole["response"]["output"]
    unanswered["response"]["output"] = [call, {**call, "call_id": "c2"}, told, said]
    orphan["response"]["output"] = [told, said]
    waiting["response"]["output"] = [call, told, said, {**call, "call_id": "c2"}]
    given = write(tmp_path / "in.jsonl", whole, unanswered, orphan, waiting, rollout("3+1?", ""))
    noted = run("sft", "--input", given, "--output", tmp_path / "o.jsonl").stderr
    assert "1 rows with a tool call that has no result\n" in noted
    assert "1 rows with a tool's result that answers no call before it\n" in noted
    assert "1 rows whose output is empty" in run("grpo", "--input", given, "--output", tmp_path / "o.jsonl").stderr


def test_simple_sft_rows(source, tmp_path):
    run("sft", "--input", source, "--output", tmp_path / "t.jsonl", "--reward_threshold", "0.5", "--format", "simple")
    assert rows(tmp_path / "t.jsonl") == [{"input": "2+2?", "output": "4"}, {"input": "1+1?", "output": "2"}]


def test_pairs_of_one_prompt(tmp_path):
    attempts = [("a", 1.0), ("b", 0.1), ("c", 0.0), ("c", 0.5)]
    given = write(tmp_path / "in.jsonl", *(rollout("p?", text, reward) for text, reward in attempts), rollout("q?"))
    run("dpo", "--input", given, "--output", tmp_path / "out.jsonl", "--min_gap", "0.2", "--strategy", "same_prompt")
    assert rows(tmp_path / "out.jsonl") == [
        {
            "prompt": "p?",
            "chosen": "a",
            "rejected": "c",
            "reward_gap": 1.0,
            "chosen_reward": 1.0,
            "rejected_reward": 0.0,
        }
    ]
    run("dpo", "--input", given, "--output", tmp_path / "all.jsonl", "--min_gap", "0.3", "--strategy", "all_pairs")
    assert {(row["chosen_reward"], row["rejected_reward"]) for row in rows(tmp_path / "all.jsonl")} == {
        (1.0, 0.0),
        (1.0, 0.1),
        (1.0, 0.5),
        (0.5, 0.1),
    }


def test_stratified_pairs_cross_prompts_only_when_asked(tmp_path):
    given = write(tmp_path / "in.jsonl", *(rollout(f"p{n}?", f"a{n}", float(n % 2)) for n in range(40)))
    options = ["--input", given, "--output", tmp_path / "out.jsonl", "--strategy", "stratified"]
    options += ["--high_threshold", "0.7", "--low_threshold", "0.4"]
    done = run("dpo", *options, code=1)
    assert not (tmp_path / "out.jsonl").exists()
    assert "no pairs created" in done.stderr
    assert "collect with --repeats" in done.stderr
    run("dpo", *options, "--across_prompts")
    assert len(rows(tmp_path / "out.jsonl")) == 20  # one to one, not 400


def test_pairs_of_different_prompts_differ_and_use_a_rollout_once(tmp_path):
    rewards = [0.5, 0.2, 0.5, 0.9, 0.5, 0.7]
    given = write(tmp_path / "in.jsonl", *(rollout(f"p{n}?", f"a{n}", reward) for n, reward in enumerate(rewards)))
    options = ["--input", given, "--output", tmp_path / "out.jsonl", "--strategy", "stratified", "--across_prompts"]
    run("dpo", *options, "--high_threshold", 0.5, "--low_threshold", 0.5, "--min_gap", 0)
    found = rows(tmp_path / "out.jsonl")
    assert [(row["chosen_reward"], row["rejected_reward"]) for row in found] == [(0.9, 0.2), (0.7, 0.5)]
    texts = [row[side] for row in found for side in ("chosen", "rejected")]
    assert len({*texts}) == len(texts)


def test_standard_output_and_several_files(tmp_path):
    files = [write(tmp_path / f"{n}.jsonl", rollout(f"p{n}?")) for n in range(2)]
    done = run("grpo", *files)
    assert [json.loads(line)["input"] for line in done.stdout.splitlines()] == ["p0?", "p1?"]


def test_the_order_is_kept_whatever_the_number_of_workers(tmp_path):
    given = write(tmp_path / "in.jsonl", *(rollout(f"p{n}?", "x" * 9000) for n in range(2000)), b"[]")
    for workers in (1, 2):
        done = run("grpo", "--input", given, "--output", tmp_path / f"{workers}.jsonl", "--workers", workers)
        assert f"{given}:2001: the line is list, not an object" in done.stderr
    assert [row["input"] for row in rows(tmp_path / "1.jsonl")] == [f"p{n}?" for n in range(2000)]
    assert (tmp_path / "1.jsonl").read_bytes() == (tmp_path / "2.jsonl").read_bytes()


@pytest.mark.parametrize("kind", ["grpo", "sft", "dpo"])
def test_nothing_usable_leaves_no_file(tmp_path, kind):
    out = tmp_path / "out.jsonl"
    out.write_text("what was there\n")
    given = write(tmp_path / "in.jsonl", b"\xfe\x01", b"{}", b"[]", rollout("p?", reward=None))
    done = run(kind, "--input", given, "--output", out, code=1)
    assert done.stderr.count(f"{given}:") == 4
    assert out.read_text() == "what was there\n"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


@pytest.mark.parametrize("kind", ["grpo", "sft", "dpo"])
def test_the_rollouts_are_not_replaced(tmp_path, kind):
    given = write(tmp_path / "in.jsonl", rollout("p?"), rollout("p?", "5", 0.0))
    (tmp_path / "link.jsonl").symlink_to(given)
    before = given.read_bytes()
    for name in ("in.jsonl", "link.jsonl"):
        assert "is the input itself" in run(kind, "--input", given, "--output", tmp_path / name, code=2).stderr
    assert given.read_bytes() == before


def test_rollouts_that_are_replaced_meanwhile_are_found_out(tmp_path):
    source = write(tmp_path / "a.jsonl", rollout("1 + 3?"), rollout("2 + 2?"))

    class Replacing(ToGrpo):
        def __call__(self, *args):
            write(tmp_path / "b.jsonl", rollout("something else, and longer")).replace(source)
            return super().__call__(*args)

    with pytest.raises(UserError, match="was replaced or cut while it was read"):
        transform_rows([source], tmp_path / "out.jsonl", Replacing())
    assert [one.name for one in tmp_path.iterdir()] == ["a.jsonl"]


def test_pairs_of_different_prompts_are_offered(tmp_path):
    given = write(tmp_path / "in.jsonl", *(rollout(f"{n}?", f"say {n}", float(n % 2)) for n in range(10)))
    wanted = ("--input", given, "--output", tmp_path / "o.jsonl", "--strategy", "stratified")
    assert "--across-prompts would give up to 5 pairs" in run("dpo", *wanted, code=1).stderr
    assert "5 pairs written" in run("dpo", *wanted, "--across_prompts").stdout


def test_options_of_another_strategy_are_named(tmp_path):
    given = write(tmp_path / "in.jsonl", rollout("p?", "good", 0.95), rollout("p?", "bad", 0.0))
    wanted = ("--input", given, "--output", tmp_path / "o.jsonl", "--high_threshold", 0.99)
    assert "without effect: --high-threshold (only with --strategy stratified)\n" in run("dpo", *wanted).stderr
    assert "without effect" not in run("dpo", *wanted, "--strategy", "stratified", code=1).stderr
    assert "without effect" not in run("dpo", *wanted[:4]).stderr


def test_texts_that_differ_in_white_space_at_the_ends_make_no_pair(tmp_path):
    given = write(tmp_path / "in.jsonl", rollout("p?", "good8", 1.0), rollout("p?", "  good8 \n", 0.0))
    run("dpo", "--input", given, "--output", tmp_path / "o.jsonl", code=1)


def test_other_formats_are_named(tmp_path):
    given = write(tmp_path / "in.jsonl", b'[{"reward": 1}]')
    assert "one JSON array" in run("sft", "--input", given, "--output", tmp_path / "o", code=2).stderr


def test_thresholds_in_the_words_of_the_options(tmp_path):
    given = write(tmp_path / "in.jsonl", rollout("p?"))
    assert "--min-gap -1.0: " in run("dpo", "--input", given, "--min_gap", -1, code=2).stderr
    done = run("dpo", "--input", given, "--low_threshold", 0.9, "--strategy", "stratified", code=2)
    assert "--low-threshold 0.9 is above --high-threshold 0.7" in done.stderr


@pytest.mark.parametrize("kind", ["grpo", "sft"])
def test_thresholds_are_numbers(tmp_path, kind):
    given = write(tmp_path / "in.jsonl", rollout("p?"))
    for value in ("nan", "inf", "high"):
        assert f"invalid number value: '{value}'" in run(kind, "--input", given, "--reward_threshold", value, code=2).stderr


@pytest.mark.parametrize("options", [["grpo"], ["sft"], ["sft", "--format", "simple"]])
def test_the_task_names_of_a_mix_are_kept(tmp_path, options):
    given = write(tmp_path / "in.jsonl", rollout("p?", task_name="math"), rollout("q?"))
    out = tmp_path / "out.jsonl"
    run(*options, "--input", given, "--output", out)
    assert [row.get("task_name") for row in rows(out)] == ["math", None]


@pytest.mark.parametrize("kind", ["grpo", "sft", "dpo"])
def test_wrong_requests(tmp_path, kind):
    none = tmp_path / "none.jsonl"
    said = run(kind, "--input", none, "--output", tmp_path / "o", code=2).stderr
    assert said == f"error: cannot read {none}: No such file or directory\n"
    assert "--input" in run(kind, code=2).stderr
    assert "unrecognized arguments" in run(kind, "--input", "x", "--minimum", "1", code=2).stderr


def test_text_of_models_does_not_steer_the_terminal(tmp_path):
    given = write(tmp_path / "in.jsonl", rollout("p?"), b'{"responses_create_params": {"input": [{"type": "\\u001b[31m"}]}}')
    done = run("grpo", "--input", given, "--output", tmp_path / "o.jsonl")
    assert "\x1b" not in done.stderr + done.stdout


def test_pairs_are_of_one_task_and_their_rewards_of_one_type(tmp_path):
    def attempt(text, reward, index, env, prompt="Guess the number."):
        return rollout(prompt, text, reward, _ng_task_index=index, expected_answer=str(index), agent_ref={"name": env})

    given = write(
        tmp_path / "a.jsonl",
        *(
            attempt(text, reward, index, "guess")
            for text, reward, index in (("4", 1, 4), ("7", 0, 4), ("9", 1, 9), ("4", 0.5, 9))
        ),
        attempt("a poem", 1, 1, "poet", "What now?"),
        attempt("print(1)", 0, 1, "coder", "What now?"),
    )
    out = tmp_path / "out.jsonl"
    run("dpo", "--input", given, "--output", out, "--strategy", "all_pairs")
    assert sorted((row["chosen"], row["rejected"]) for row in rows(out)) == [("4", "7"), ("9", "4")]
    numbers = {type(row[name]) for row in rows(out) for name in ("reward_gap", "chosen_reward", "rejected_reward")}
    assert numbers == {float}
    run("dpo", "--input", given, "--output", out, "--strategy", "stratified", "--across_prompts")
    assert {(row["chosen"], row["rejected"]) for row in rows(out)} == {("4", "7")}
    run("grpo", "--input", given, "--output", out, "--with_reward")
    assert {type(row["reward"]) for row in rows(out)} == {float}


def test_what_the_simple_forms_leave_out_or_mend(tmp_path):
    given = write(
        tmp_path / "a.jsonl", *(rollout(f"{n}?", expected_answer=given) for n, given in enumerate(["50%", "1e-3", " 4 "]))
    )
    lost = "3 rollouts with tool calls, which this format has no place for"
    for kind, *options in (("sft", "--format", "simple"), ("grpo",), ("dpo",)):
        code = int(kind == "dpo")  # of one attempt each
        assert lost in run(kind, "--input", given, "--output", tmp_path / "o.jsonl", *options, code=code).stderr
    done = run("grpo", "--input", given, "--output", tmp_path / "o.jsonl", "--output_is", "answer")
    assert lost not in done.stderr
    assert [row["output"] for row in rows(tmp_path / "o.jsonl")] == ["50\\%", "0.001", "4"]
