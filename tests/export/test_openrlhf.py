"""The OpenRLHF target: rows, flags, reward server, agent; and OpenRLHF's own classes on what was written."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rollforge.errors import UserError
from rollforge.export.check import check_files
from rollforge.export.openrlhf import TARGET
from rollforge.export.openrlhf.config_check import commands
from rollforge.export.openrlhf.flags import DOTTED, FLAT
from rollforge.export.run import export_rollouts
from rollforge.export.target import Refused, Settings
from rollforge.records.lossless import dumps
from tests.export.samples_gym import CLOCK, WEATHER, demonstration, environment, made, pair, prompt, rollouts
from tests.export.test_verl import module

GOLDEN = Path(__file__).parent / "golden" / "openrlhf"
EXAMPLES = {
    "grpo": lambda: [prompt(), prompt(None, [WEATHER])],
    "sft": lambda: [demonstration(), demonstration(tools=False)],
    "sft-simple": lambda: [demonstration(tools=False)],
    "dpo": lambda: [pair(), pair(tools=True)],
}


def rows(kind: str) -> list[dict[str, Any]]:
    return [TARGET.kinds[kind].row(example, Settings()) for example in EXAMPLES[kind]()]


def written(kind: str, folder: Path) -> Path:
    file = folder / "train.jsonl"
    file.write_bytes(b"".join(dumps(row) + b"\n" for row in rows(kind)))
    return file


# Rows


@pytest.mark.parametrize("kind", EXAMPLES)
def test_rows_are_as_kept(kind: str) -> None:
    assert rows(kind) == [json.loads(line) for line in (GOLDEN / f"{kind}.jsonl").read_text(encoding="utf-8").splitlines()]
    assert all(list(TARGET.kinds[kind].check(row)) == [] for row in rows(kind))


def test_tools_stand_in_the_system_turn() -> None:
    system = rows("sft")[0]["messages"][0]["content"]
    listed = system.split("<tools>\n")[1].split("\n</tools>")[0].splitlines()
    assert [json.loads(line) for line in listed] == [WEATHER, CLOCK]
    assert system.startswith("Be brief.\n\n# Tools")


def test_fields_are_read_under_the_names_that_the_flags_give(tmp_path: Path) -> None:
    file, script = tmp_path / "train.jsonl", tmp_path / "run.sh"
    file.write_bytes(dumps({"question": [{"role": "user", "content": "q"}], "label": "4"}) + b"\n")
    for flag in ("data.input_key", "input_key"):
        script.write_text(f"python3 -m openrlhf.cli.train_ppo_ray --{flag} question --data.apply_chat_template\n")
        found = check_files([file], TARGET, "grpo", script, load=False).problems
        assert [one for one in found if one.file == str(file)] == []
    script.write_text("python3 -m openrlhf.cli.train_ppo_ray --data.input_key prompt\n")
    assert any("no prompt" in one.message for one in check_files([file], TARGET, "grpo", script, load=False).problems)


def test_flat_flags_are_no_matter_where_they_were_asked_for(tmp_path: Path) -> None:
    script = tmp_path / "launch.sh"
    for version, told in (("0.9", False), ("0.11", True)):
        script.write_text(
            f"#!/usr/bin/env bash\n# OpenRLHF {version}: SFT\npython3 -m openrlhf.cli.train_sft --pretrain m\n"
        )
        assert any("flat flags" in one.message for one in TARGET.check_config("sft", script)) is told


def test_the_usual_batch_grows_with_the_gpus(tmp_path: Path) -> None:
    assert "--train.batch_size 128 " in TARGET.command(made("sft", tmp_path, rows=500, gpus=8, nodes=16))
    with pytest.raises(UserError, match="at most 100 rows cannot be spread over 128 GPUs"):
        TARGET.command(made("sft", tmp_path, rows=100, gpus=8, nodes=16))


@pytest.mark.parametrize(("rows", "gpus", "micro", "prompts"), [(38, 1, 3, 36), (100, 8, 3, 96), (40, 6, 16, 36)])
def test_samples_of_a_step_are_whole_passes(rows: int, gpus: int, micro: int, prompts: int, tmp_path: Path) -> None:
    command = TARGET.command(made("grpo", tmp_path, rows=rows, gpus=gpus, micro_batch_size=micro))
    found = dict(re.findall(r"--(\S+batch_size|\S+per_prompt) (\d+)", command))
    assert int(found["rollout.batch_size"]) == prompts
    step = int(found["train.batch_size"])
    assert prompts * int(found["rollout.n_samples_per_prompt"]) % step == 0 == step % (gpus * micro)


@pytest.mark.parametrize("kind", ["grpo", "sft"])
def test_nor_are_they_in_the_job_of_several_nodes(kind: str, tmp_path: Path) -> None:
    job = tmp_path / "job.sh"
    job.write_text(TARGET.files(made(kind, tmp_path, version="0.9.0", nodes=2))["job.sh"])
    assert "--pretrain" in job.read_text()
    assert not [one for one in TARGET.check_config(kind, job) if "OpenRLHF" in one.message]


@pytest.mark.parametrize(
    ("version", "there", "told"),
    [(None, "0.9.3", "0.11"), (None, "0.11.1", ""), ("0.9", "0.9.3", "0.9.10"), ("0.9.3", "0.9.3", ""), (None, None, "")],
)
def test_another_release_that_is_installed_is_named(
    tmp_path: Path, version: str | None, there: str | None, told: str
) -> None:
    script = tmp_path / "launch.sh"
    script.write_text(TARGET.files(made("sft", tmp_path, version=version))["launch.sh"])
    if there:
        about = tmp_path / f"openrlhf-{there}.dist-info" / "METADATA"
        about.parent.mkdir()
        about.write_text(f"Metadata-Version: 2.1\nName: openrlhf\nVersion: {there}\n")
    variables = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(["bash", script, "--check"], capture_output=True, text=True, env=variables, check=False)
    assert ("is there, these files are for" in done.stderr) is bool(told)
    assert f"openrlhf {there} is there, these files are for {told}" in done.stderr or not told


def test_a_label_is_the_answer_and_the_task() -> None:
    plain, live = (json.loads(row["label"]) for row in rows("grpo"))
    assert plain["expected_answer"] == "42"
    assert plain["task"]["responses_create_params"]["input"] == [{"role": "user", "content": "6 times 7?"}]
    assert live["expected_answer"] is None
    assert live["task"]["responses_create_params"]["tools"][0]["name"] == "weather"


@pytest.mark.parametrize(
    ("kind", "example", "reason"),
    [
        ("sft-simple", demonstration(), "the tools would be lost"),
        ("grpo", prompt(), "takes for a picture"),
    ],
)
def test_what_does_not_fit_is_refused(kind: str, example: Any, reason: str) -> None:
    if kind == "grpo":
        example.messages[0]["content"] = "what is <image>?"
    with pytest.raises(Refused, match=reason):
        TARGET.kinds[kind].row(example, Settings())


def test_a_tool_that_speaks_of_pictures_is_refused_in_prompts() -> None:
    tool = {"type": "function", "function": {**CLOCK["function"], "description": "Describes an <image>."}}
    with pytest.raises(Refused, match="takes for a picture"):
        TARGET.kinds["grpo"].row(prompt(tools=[tool]), Settings())


BROKEN = [
    ("grpo", {"prompt": None}, "prompt is null"),
    ("grpo", {"label": ""}, "the label is empty"),
    ("grpo", {"prompt": [{"role": "user", "content": "see <image>"}]}, "no images"),
    ("grpo", {"prompt": "see <image>"}, "no images"),
    ("sft", {"messages": "a text"}, "dropped without a word"),
    ("sft", {"messages": [{"role": "assistant", "content": "", "function_call": {"name": "f"}}]}, "the call is lost"),
    ("sft", {"tools": [WEATHER]}, "never gives it to the chat template"),
    ("sft", {"messages": [{"role": "user", "content": "x"}]}, "nothing of this row is trained on"),
    ("sft", {"messages": [{"role": "assistant"}]}, "has no content"),
    ("sft-simple", {"output": None}, "dropped without a word"),
    ("dpo", {"chosen": "42"}, "chosen is text beside a prompt of messages"),
    ("dpo", {"chosen": {"role": "assistant", "content": "x"}}, "wants a list of messages"),
    ("dpo", {"margin": "high"}, "not a number"),
]


@pytest.mark.parametrize(("kind", "change", "says"), BROKEN)
def test_a_wrong_row_is_told(kind: str, change: dict[str, Any], says: str) -> None:
    found = list(TARGET.kinds[kind].check(rows(kind)[0] | change))
    assert any(says in one and not one.startswith("warning: ") for one in found), found


ASKED = {"role": "user", "content": "6 times 7?"}
RIGHT, LEFT = ({"role": "assistant", "content": text} for text in ("42", "41"))
CALLED = {"role": "assistant", "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {}}}]}


@pytest.mark.parametrize(
    ("kind", "row", "says"),
    [
        ("grpo", {"prompt": "6 times 7?"}, "there is no label"),
        ("grpo", {"prompt": [{"role": "user", "content": [{"type": "text", "text": "?"}]}], "label": "4"}, "text parts"),
        ("sft", {"messages": [ASKED, RIGHT, ASKED]}, "without --data.multiturn"),
        ("sft", {"messages": [ASKED, CALLED, {"role": "tool", "content": "42"}, RIGHT]}, "has no content"),
        ("dpo", {"chosen": [ASKED, RIGHT, ASKED, RIGHT], "rejected": [ASKED, LEFT, ASKED, LEFT]}, "cuts rejected"),
    ],
)
def test_what_openrlhf_takes_all_the_same_is_a_warning(kind: str, row: dict[str, Any], says: str) -> None:
    [found] = TARGET.kinds[kind].check(row)
    assert found.startswith("warning: ")
    assert says in found


RENDERED = " --data.apply_chat_template"
GOOD = [
    ("grpo", {"prompt": "6 times 7?", "label": 42}),
    ("grpo", {"prompt": [ASKED], "label": {"answer": 42}}),
    ("dpo", {"chosen": [ASKED, RIGHT], "rejected": [ASKED, LEFT]}),
    ("dpo", {"prompt": "6 times 7?", "chosen": "42", "rejected": "41"}),
    ("dpo", {"prompt": "6 times 7?", "chosen": [ASKED, RIGHT], "rejected": [ASKED, LEFT]}),
    ("dpo", {"chosen": "Q: 6 times 7? A: 42", "rejected": "Q: 6 times 7? A: 41"}),
]


@pytest.mark.parametrize(("kind", "row"), GOOD)
def test_other_peoples_good_rows_are_left_alone(kind: str, row: dict[str, Any]) -> None:
    assert list(TARGET.kinds[kind].check(row)) == []


LAUNCHED = "python3 -m openrlhf.cli."


@pytest.mark.parametrize(
    ("kind", "row", "flags", "says"),
    [
        (
            "grpo",
            {"prompt": [ASKED]},
            f"train_ppo_ray --data.input_key prompt --reward.model_name_or_path m{RENDERED}",
            None,
        ),
        (
            "grpo",
            {"prompt": [ASKED]},
            "train_ppo_ray --data.input_key prompt --data.label_key label",
            "error: there is no label",
        ),
        ("grpo", {"prompt": [ASKED]}, "train_ppo_ray --data.input_key prompt $MORE", "warning: there is no label"),
        ("grpo", {"input": [ASKED]}, f"train_ppo_ray --reward.model_name_or_path m{RENDERED}", None),
        ("grpo", {"input": [ASKED]}, "train_ppo_ray --train.agent_func_path /a.py", None),
        ("grpo", {"input": [ASKED]}, "train_ppo_ray --reward.model_name_or_path m", "error: prompt holds messages, which"),
        ("grpo", {"prompt": [ASKED]}, "train_ppo_ray --reward.model_name_or_path m", "there is no prompt"),
        ("dpo", {"chosen": [ASKED, RIGHT], "rejected": [ASKED, LEFT]}, f"train_dpo --data.max_len 9{RENDERED}", None),
        (
            "dpo",
            {"chosen": [ASKED, RIGHT], "rejected": [ASKED, LEFT]},
            "train_dpo --data.max_len 9",
            "chosen holds messages",
        ),
        (
            "sft",
            {"messages": [ASKED, RIGHT]},
            "train_sft --data.input_key messages --input_template x",
            "messages holds messages",
        ),
        ("dpo", {"chosen": [ASKED, RIGHT], "rejected": [ASKED, LEFT]}, "train_dpo --data.prompt_key prompt", "no prompt"),
        ("dpo", {"prompt": [ASKED], "chosen": [RIGHT], "rejected": [LEFT]}, "train_dpo --data.max_len 9", "begins with the"),
        ("dpo", {"prompt": "6 times 7?", "chosen": "42", "rejected": "41"}, "train_dpo --data.max_len 9", "is not read"),
        ("dpo", {"prompt": "?", "chosen": "42", "rejected": "41"}, "train_dpo --data.prompt_key prompt", None),
        (
            "sft-simple",
            {"input": "6 times 7?", "output": "42"},
            f"train_sft{RENDERED}",
            "not read without --data.output_key",
        ),
        ("sft-simple", {"input": "?", "output": "42"}, f"train_sft --data.output_key output{RENDERED}", None),
        ("sft-simple", {"input": "?", "output": "42"}, f"train_sft $MORE{RENDERED}", None),
        (
            "grpo",
            {"input": [ASKED]},
            f"train_sft --data.input_key messages\n{LAUNCHED}train_ppo_ray --reward.model_name_or_path m{RENDERED}",
            None,
        ),
        (
            "dpo",
            {"prompt": "?", "chosen": "42", "rejected": "41"},
            "train_dpo --data.prompt_key prompt --data.apply_chat_template",
            "no chat template takes",
        ),
    ],
)
def test_rows_are_held_against_the_flags(
    kind: str, row: dict[str, Any], flags: str, says: str | None, tmp_path: Path
) -> None:
    file, script = tmp_path / "train.jsonl", tmp_path / "run.sh"
    file.write_bytes(dumps(row) + b"\n")
    script.write_text(f"{LAUNCHED}{flags}\n")
    found = check_files([file], TARGET, kind, script, load=False).problems
    told = [f"{one.level}: {one.message}" for one in found if one.file == str(file)]
    assert told == [] if says is None else any(says in one for one in told), told


# Flags


@pytest.mark.parametrize("version", ["0.11", "0.10.4", "0.10", "0.10.1", "0.9"])
@pytest.mark.parametrize("kind", EXAMPLES)
@pytest.mark.parametrize(
    "settings", [{}, {"gpus": 8, "model": "Qwen/Qwen3-32B", "lora": 16, "logger": "wandb"}, {"nodes": 2}]
)
def test_every_flag_is_one_of_that_version(version: str, kind: str, settings: dict[str, Any], tmp_path: Path) -> None:
    for tools in ([], [WEATHER]):
        command = TARGET.command(made(kind, tmp_path, tools=tools, rows=1000, version=version, **settings))
        [one], unread = commands(command)
        assert unread == 0
        assert one.whole
        assert one.flags.keys() <= (FLAT if version in ("0.10.1", "0.9") else DOTTED)[one.entry], one.flags.keys()
        assert "WANDB_API_KEY" in command if settings.get("logger") else "wandb" not in command


@pytest.mark.parametrize("kind", EXAMPLES)
def test_what_is_written_passes_its_own_check(kind: str, tmp_path: Path) -> None:
    for tools in ([], [WEATHER]):
        whole = made(kind, tmp_path, tools=tools)
        for name, text in TARGET.files(whole).items():
            (tmp_path / name).write_text(text, encoding="utf-8")
            if name.endswith(".py"):
                compile(text, name, "exec")
        for data in whole.data:
            data.path.touch()
        assert list(TARGET.check_config(kind, tmp_path / "launch.sh")) == []


def flags_of(version: str, kind: str, folder: Path, tools: list[Any]) -> dict[str, Any]:
    return commands(TARGET.command(made(kind, folder, tools=tools, version=version)))[0][0].flags


@pytest.mark.parametrize(
    ("version", "has", "lacks"),
    [
        ("0.9.1", {"bf16", "prompt_max_len", "generate_max_len"}, {"param_dtype", "max_len", "max_new_tokens"}),
        ("0.9.7", {"param_dtype", "prompt_max_len", "generate_max_len"}, {"bf16", "max_len", "max_new_tokens"}),
        ("0.9.8", {"param_dtype", "max_len", "max_new_tokens"}, {"bf16", "prompt_max_len", "generate_max_len"}),
        ("0.10.1.post2", {"param_dtype", "max_len", "max_new_tokens"}, {"bf16", "prompt_max_len", "generate_max_len"}),
    ],
)
@pytest.mark.parametrize("tools", [[], [WEATHER]])
def test_older_releases_get_the_flags_that_they_have(
    version: str, has: set[str], lacks: set[str], tools: list[Any], tmp_path: Path
) -> None:
    found = flags_of(version, "grpo", tmp_path, tools)
    assert has <= found.keys()
    assert not lacks & found.keys()
    for kind in ("sft", "dpo"):
        assert ("bf16" in flags_of(version, kind, tmp_path, [])) == (version == "0.9.1")
        assert ("param_dtype" in flags_of(version, kind, tmp_path, [])) == (version != "0.9.1")


def test_agents_before_0_10_2_are_given_a_limit_of_an_answer(tmp_path: Path) -> None:
    """They subtract it from `max_len` without asking whether it is there."""
    for version, name, given in (
        ("0.9.8", "max_new_tokens", True),
        ("0.10.1", "max_new_tokens", True),
        ("0.10.2", "rollout.max_new_tokens", False),
        ("0.11", "rollout.max_new_tokens", False),
    ):
        assert (name in flags_of(version, "grpo", tmp_path, [WEATHER])) is given
        assert name in flags_of(version, "grpo", tmp_path, [])
    assert "generate_max_len" in flags_of("0.9.0", "grpo", tmp_path, [])
    with pytest.raises(UserError, match="no MultiTurnAgentExecutor"):
        flags_of("0.9.0", "grpo", tmp_path, [WEATHER])


def test_a_minor_release_alone_is_its_newest(tmp_path: Path) -> None:
    for minor, newest in (("0.11", "0.11.2"), ("0.10", "0.10.4"), ("0.9", "0.9.10")):
        for kind in EXAMPLES:
            assert flags_of(minor, kind, tmp_path, []) == flags_of(newest, kind, tmp_path, [])


@pytest.mark.parametrize("version", ["0.9.1", "0.9.5", "0.9", "0.10.1", "0.10"])
@pytest.mark.parametrize("kind", EXAMPLES)
def test_what_is_written_for_older_releases_passes_its_own_check(version: str, kind: str, tmp_path: Path) -> None:
    whole = made(kind, tmp_path, version=version)
    for name, text in TARGET.files(whole).items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    for data in whole.data:
        data.path.write_bytes(b"".join(dumps(row) + b"\n" for row in rows(kind)[:1]) * 200)
    found = check_files([data.path for data in whole.data], TARGET, kind, tmp_path / "launch.sh", load=False).problems
    assert [one for one in found if one.file == str(tmp_path / "launch.sh")] == []


@pytest.mark.parametrize(
    ("flags", "limit"),
    [("--prompt_max_len 64 --generate_max_len 64", 128), ("--prompt_max_len 64", 1088), ("--prompt_max_len 4000", None)],
)
def test_lengths_of_prompt_and_answer_are_added_where_they_are_apart(flags: str, limit: int | None, tmp_path: Path) -> None:
    file, script = tmp_path / "train.jsonl", tmp_path / "run.sh"
    file.write_bytes((dumps({"prompt": [{"role": "user", "content": "word " * 1200}], "label": "4"}) + b"\n") * 200)
    script.write_text(f"python3 -m openrlhf.cli.train_ppo_ray --input_key prompt --label_key label {flags}\n")
    found = [one.message for one in check_files([file], TARGET, "grpo", script, load=False).problems]
    told = [one for one in found if "tokens: OpenRLHF" in one]
    assert len(told) == (limit is not None), found
    assert all(f"is {limit}" in one for one in told), told


def test_batches_fit(tmp_path: Path) -> None:
    for rows_, gpus in ((3, 1), (103, 1), (1000, 8), (70, 4)):
        flags = commands(TARGET.command(made("grpo", tmp_path, rows=rows_, gpus=gpus)))[0][0].flags
        samples = int(flags["rollout.batch_size"]) * int(flags["rollout.n_samples_per_prompt"])
        assert int(flags["rollout.batch_size"]) <= rows_
        assert samples % int(flags["train.batch_size"]) == 0
        assert int(flags["train.batch_size"]) % (int(flags["train.micro_batch_size"]) * gpus) == 0
        assert int(flags["vllm.num_engines"]) * int(flags["vllm.tensor_parallel_size"]) == gpus
    # 144 is the first batch that goes by 9 GPUs and by 16 rows; 63 of the 64 that are usual will do.
    for gpus, most in ((3, 63), (6, 54), (8, 48)):
        assert f"--train.batch_size {most} " in TARGET.command(made("sft", tmp_path, rows=1000, gpus=gpus, nodes=3))
    with pytest.raises(UserError, match=r"of at most 16 rows cannot be spread over 16 GPUs x 2 rows: .* --micro-batch-size"):
        TARGET.command(made("sft", tmp_path, gpus=8, nodes=2, batch_size=16, micro_batch_size=2))
    with pytest.raises(UserError, match="of at most 3 prompts times 8 attempts cannot be spread over 32 GPUs: "):
        TARGET.command(made("grpo", tmp_path, rows=3, gpus=8, nodes=4))
    with pytest.raises(UserError, match="separators"):
        TARGET.command(made("sft", tmp_path / "a,b"))


WRONG = [
    ("train_sft --dataset a.jsonl --data.max_len 10", "--dataset is of OpenRLHF up to 0.10"),
    ("train_sft --dataset a.jsonl --apply_chat_template", "flat flags"),
    ("train_sft --data.datset a.jsonl", "did you mean --data.dataset"),
    ("train_sft --data.dataset /gone.jsonl", "/gone.jsonl is not there"),
    ("train_sft --data.input_key messages --data.apply_chat_template", "only the last assistant turn"),
    ("train_dpo --eval.dataset a.jsonl --data.apply_chat_template", "--eval.split is test"),
    ("train_ppo_ray --algo.advantage.estimator group_norm", "needs --rollout.n_samples_per_prompt"),
    ("train_ppo_ray --data.prompt_dataset a", "there is no reward"),
    ("train_ppo_ray --train.partial_rollout_enable", "needs --train.async_enable"),
    ("train_ppo_ray --data.prompt_dataset a", "train_ppo_ray does not train on sft data"),
    ("train_kto --dataset a.jsonl", "OpenRLHF has no openrlhf.cli.train_kto"),
    ("train_ppo_ray \\\n  --rollout.batch_size 4 --train.batch_size 128", "more than the 4 samples"),
    ("train_sft --data.multiturn True", "--data.multiturn takes no value, but 'True' follows it"),
    ("train_ppo_ray --reward.remote_url $FOLDER --algo.advantage.is_correction_enable", "0.11.2 has"),
    ("train_sft --model.model_name_or_path 'it\"", "a quote or bracket that opens here never closes"),
]


@pytest.mark.parametrize(("command", "says"), WRONG)
def test_a_script_of_anybodys_is_checked(command: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "run.sh").write_text(f"set -x\n# train\ndeepspeed --module openrlhf.cli.{command}\n", encoding="utf-8")
    found = list(TARGET.check_config("sft", tmp_path / "run.sh"))
    assert any(says in problem.message and problem.line == 3 for problem in found), found


PPO = "python3 -m openrlhf.cli.train_ppo_ray"
USUAL = "--data.apply_chat_template --data.label_key label --algo.advantage.estimator group_norm"
GIVEN = f"{USUAL} --reward.remote_url http://h/r --rollout.n_samples_per_prompt 8"
RIGHT_SCRIPTS = [
    f"ARGS=(\n  {USUAL}  # usual\n)\nARGS+=(--reward.remote_url u --rollout.n_samples_per_prompt 8)\n{PPO} ${{ARGS[@]}}",
    f'srun bash -c "cd /x && {PPO} {GIVEN}" &> log',
    f"read -r -d '' command <<EOF\nopenrlhf.cli.train_ppo_ray \\\n  {GIVEN}\nEOF\npython3 -m $command",
    f"sbatch <<'JOB'\n{PPO} {GIVEN}\nJOB\necho \"don't use openrlhf.cli.train_sft --data.x\"",
    f"{PPO} {USUAL} --reward.remote_url $URL --rollout.n_samples_per_prompt $N --train.batch_size $B --rollout.batch_size 1",
    f"{PPO} {USUAL} $REWARD",
    f'{PPO} {USUAL} "${{MORE[@]}}"',
    f"if true; then N=1; else N=8; fi\n{PPO} {USUAL} --rollout.n_samples_per_prompt $N --reward.remote_url http://h/r",
    f"N=${{N:-8}}\n{PPO} {USUAL} --rollout.n_samples_per_prompt ${{N}} --reward.remote_url http://h/r $@",
    f"{PPO} --apply_chat_template --label_key l --advantage_estimator gae --reward_pretrain m --input_key $KEY",
    f"ray job submit -- {PPO} {USUAL} --rollout.n_samples_per_prompt 8 --train.agent_func_path $PWD/agent.py",
]


@pytest.mark.parametrize("script", RIGHT_SCRIPTS)
def test_what_only_running_tells_is_no_finding(script: str, tmp_path: Path) -> None:
    (tmp_path / "run.sh").write_text(script, encoding="utf-8")
    assert [one for one in TARGET.check_config("grpo", tmp_path / "run.sh") if "flat flags" not in one.message] == []
    assert len(commands(script)[0]) == 1


def test_flags_in_arrays_are_checked(tmp_path: Path) -> None:
    (tmp_path / "run.sh").write_text(f'DATA=(--data.labelkey label)\n\n{PPO} {GIVEN} "${{DATA[@]}}"\n', encoding="utf-8")
    [found] = TARGET.check_config("grpo", tmp_path / "run.sh")
    assert (found.line, found.level) == (3, "error")
    assert "has no flag --data.labelkey" in found.message


def test_a_file_that_another_machine_has(tmp_path: Path) -> None:
    (tmp_path / "run.sh").write_text(
        f"ray job submit -- {PPO} {GIVEN} --data.prompt_dataset /gone.jsonl\n", encoding="utf-8"
    )
    [found] = TARGET.check_config("grpo", tmp_path / "run.sh")
    assert (found.level, found.message) == ("warning", "--data.prompt_dataset: /gone.jsonl is not there on this machine")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("def reward(): ...", "has no reward_func"),
        ("def reward_func(queries, prompts, labels): ...", None),
        ("from mine import *", None),
        ("def reward_func(:", "is not Python"),
    ],
)
def test_the_reward_function_must_be_in_its_file(text: str, says: str | None, tmp_path: Path) -> None:
    (tmp_path / "r.py").write_text(text, encoding="utf-8")
    flags = f"{USUAL} --rollout.n_samples_per_prompt 8 --reward.remote_url {tmp_path}/r.py"
    (tmp_path / "run.sh").write_text(f"{PPO} {flags}\n", encoding="utf-8")
    found = [one.message for one in TARGET.check_config("grpo", tmp_path / "run.sh")]
    assert len(found) == (says is not None)
    assert all(says and says in one for one in found)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ("--data.max_len 128 --train.batch_size 4", "--data.max_len is 128, and"),
        ("--train.batch_size 4", None),
        ("--train.batch_size $SIZE --data.max_len $LENGTH", None),
        ("", "--train.batch_size is 128 unless set, the data has 4 rows times 2 epochs: not one step is trained"),
        ("--train.batch_size 16 --train.max_epochs 4", None),
    ],
)
def test_batches_and_lengths_are_held_against_the_data(flags: str, says: str | None, tmp_path: Path) -> None:
    row = {"messages": [{"role": "user", "content": "word " * 800}, {"role": "assistant", "content": "42"}]}
    file, script = tmp_path / "train.jsonl", tmp_path / "run.sh"
    file.write_bytes(b"".join(dumps({**row, "at": at}) + b"\n" for at in range(4)))
    usual = "--data.input_key messages --data.multiturn --data.apply_chat_template"
    script.write_text(f"deepspeed --module openrlhf.cli.train_sft {usual} {flags}\n", encoding="utf-8")
    found = [
        one.message for one in check_files([file], TARGET, "sft", script, load=False).problems if one.file == str(script)
    ]
    assert len(found) == (says is not None), found
    assert all(says and says in one for one in found)


# The reward server


@contextmanager
def reward_server(folder: Path, **variables: str) -> Iterator[str]:
    (folder / "reward_server.py").write_text(TARGET.files(made("grpo", folder))["reward_server.py"], encoding="utf-8")
    command = [sys.executable, str(folder / "reward_server.py"), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=variables) as process:
        try:
            assert process.stdout
            line = process.stdout.readline()
            found = re.search(r"--reward\.remote_url (http\S+)", line)
            assert found, line
            yield found[1]
        finally:
            process.terminate()
            process.wait(20)


def post(url: str, body: Any) -> tuple[int, Any]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def test_the_reward_server(tmp_path: Path) -> None:
    asked = "<|im_start|>user\nput it in \\boxed{7}<|im_end|>\n<|im_start|>assistant\n"
    with environment() as server, reward_server(tmp_path, GYM_URL=server.url) as url:
        body = {"query": [f"{asked}It is 42.<|im_end|>", f"{asked}It is 41."], "prompts": [asked] * 2, "labels": ["42"] * 2}
        logs = {"answered": [1.0, 1.0]}
        assert post(url, body) == (200, {"rewards": [1.0, 0.0], "scores": [1.0, 0.0], "extra_logs": logs})
        live = rows("grpo")[1]["label"]
        status, found = post(url, {"query": [f"{asked}0 calls"], "prompts": [asked], "labels": [live]})
        assert (status, found["rewards"]) == (200, [1.0])
        assert [path for path, _, _ in server.requests] == ["/seed_session", "/verify"]
        for wrong in (b"{", b"[]", {"query": ["a"]}, {"query": ["a"], "prompts": [], "labels": []}):
            status, found = post(url, wrong)
            assert status == 400
            assert found["error"]
        status, found = post(url, {"query": ["a"], "prompts": ["a"], "labels": [""]})
        assert status == 500
        assert "no label" in found["error"]
        assert post(url.replace("get_reward", "nothing"), {})[0] == 404
        with urllib.request.urlopen(url.replace("get_reward", "health"), timeout=30) as response:
            assert json.loads(response.read()) == {"status": "ok"}


# OpenRLHF itself


@pytest.fixture
def openrlhf() -> Any:
    pytest.importorskip("openrlhf")
    return pytest.importorskip("openrlhf.datasets", exc_type=ImportError)


@pytest.mark.trainers
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", EXAMPLES)
def test_its_data_sets_load_every_row(kind: str, openrlhf: Any, tmp_path: Path) -> None:
    assert f"loaded {len(rows(kind))} rows with OpenRLHF" in str(TARGET.load(kind, written(kind, tmp_path)))


@pytest.mark.trainers
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("kind", "row"), [*GOOD, ("grpo", {"prompt": [ASKED]}), ("sft", {"messages": [ASKED, RIGHT, ASKED]})]
)
def test_its_data_sets_take_other_peoples_rows(kind: str, row: dict[str, Any], openrlhf: Any, tmp_path: Path) -> None:
    file = tmp_path / "train.jsonl"
    file.write_bytes(dumps(row) + b"\n")
    assert "loaded 1 rows with OpenRLHF" in str(TARGET.load(kind, file))


@pytest.mark.trainers
@pytest.mark.filterwarnings("ignore")
def test_sft_trains_on_the_assistant_only_and_keeps_everything(openrlhf: Any, tmp_path: Path) -> None:
    from rollforge.export.openrlhf.loader import dataset
    from rollforge.export.trial import byte_tokenizer

    tokenizer = byte_tokenizer()
    data, _ = dataset("sft", written("sft", tmp_path), str(tmp_path / "cache"), tokenizer)
    ids, _, mask = data[0]
    text = tokenizer.decode(ids[0])
    expected = (
        '\n<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo", "days": [1, 2]}}\n</tool_call>'
        '\n<tool_call>\n{"name": "clock", "arguments": {"zone": null}}\n</tool_call><|im_end|>\n'
        "Snow; it is 12:05.<|im_end|>"
    )
    # The mask is that of the next token: it stands one place before what is trained on.
    assert tokenizer.decode(ids[0][1:][mask[0][:-1].bool()]) == expected
    assert '"items":{"type":"integer"}' in text
    assert "<tool_response>\nsnow\n</tool_response>\n<tool_response>\n12:05" in text
    assert text.count("null") == 2  # of the clock's schema and of the call


@pytest.mark.trainers
@pytest.mark.filterwarnings("ignore")
def test_dpo_pairs_share_the_prompt_with_its_tools(openrlhf: Any, tmp_path: Path) -> None:
    from rollforge.export.openrlhf.loader import dataset
    from rollforge.export.trial import byte_tokenizer

    tokenizer = byte_tokenizer()
    data, _ = dataset("dpo", written("dpo", tmp_path), str(tmp_path / "cache"), tokenizer)
    chosen, _, rejected, _, length = data[1]
    assert tokenizer.decode(chosen[0][:length]) == tokenizer.decode(rejected[0][:length])
    assert "<tools>" in tokenizer.decode(chosen[0][:length])
    assert tokenizer.decode(rejected[0][length:]) == "No idea.<|im_end|>"


@pytest.mark.trainers
@pytest.mark.filterwarnings("ignore")
def test_an_export_with_mixed_tools_of_more_than_one_block_loads(openrlhf: Any, tmp_path: Path) -> None:
    from rollforge.export.openrlhf.loader import dataset
    from rollforge.export.trial import byte_tokenizer, read_into

    file = rollouts(tmp_path / "mixed.jsonl", 400, padding=60_000)
    options = {"min_coverage": 0.0, "min_reward": 0.5, "workers": 1, "validation": 0.0}
    export_rollouts([file], ["openrlhf:sft", "openrlhf:dpo"], tmp_path / "out", **options)
    strategy = SimpleNamespace(args=SimpleNamespace(use_ms=False), print=print, is_rank_0=lambda: False)
    for kind in ("sft", "dpo"):
        train = tmp_path / "out" / f"openrlhf-{kind}" / "train.jsonl"
        assert train.stat().st_size > 11 << 20
        lines = train.read_text(encoding="utf-8").splitlines()
        with read_into(str(tmp_path / "cache")):
            loaded = openrlhf.utils.blending_datasets(str(train), None, strategy, dataset_split="train")
        assert len(loaded) == len(lines) == 200
        for at in range(0, 200, 29):
            assert loaded[at] == json.loads(lines[at])
    few = tmp_path / "few.jsonl"
    few.write_text("\n".join(lines[:3]) + "\n", encoding="utf-8")
    tokenizer = byte_tokenizer()
    pairs, given = dataset("dpo", few, str(tmp_path / "cache"), tokenizer)
    assert len(pairs) == given == 3
    assert "null" not in tokenizer.decode(pairs[2][0][0])


class Engine:
    """A scripted vLLM: token ids in, the next text's out."""

    def __init__(self, tokenizer: Any, *texts: str) -> None:
        self.tokenizer, self.texts, self.seen = tokenizer, list(texts), []

    async def generate(self, tokens: list[int], params: Any, multi_modal_data: Any = None) -> Any:
        self.seen.append(self.tokenizer.decode(tokens))
        text = self.texts.pop(0)
        ids = self.tokenizer(f"{text}<|im_end|>")["input_ids"]
        return SimpleNamespace(outputs=[SimpleNamespace(token_ids=ids, text=text, finish_reason="stop", logprobs=None)])


def attempt(executor: Any, engine: Engine, row: dict[str, Any]) -> Any:
    asked = engine.tokenizer.apply_chat_template(row["prompt"], tokenize=False, add_generation_prompt=True)
    params = SimpleNamespace(max_tokens=500, logprobs=None)
    return asyncio.run(executor.execute(asked, row["label"], params, 20_000, engine.tokenizer, engine))


@pytest.mark.trainers
@pytest.mark.filterwarnings("ignore")
def test_the_single_turn_executor_gets_rewards(openrlhf: Any, tmp_path: Path) -> None:
    agent = pytest.importorskip("openrlhf.utils.agent", exc_type=ImportError)
    from rollforge.export.trial import byte_tokenizer

    tokenizer = byte_tokenizer()
    file = tmp_path / "reward_func.py"
    file.write_text(TARGET.files(made("grpo", tmp_path))["reward_func.py"], encoding="utf-8")
    row = rows("grpo")[0]
    found = attempt(agent.SingleTurnAgentExecutor(str(file)), Engine(tokenizer, "It is 42."), row)
    assert (float(found["reward"]), float(found["scores"])) == (1.0, 1.0)
    with reward_server(tmp_path) as url:
        for reply, reward in (("It is 42.", 1.0), ("It is 41.", 0.0)):
            found = attempt(agent.SingleTurnAgentExecutor(url), Engine(tokenizer, reply), row)
            assert found["reward"] == [reward]


@pytest.mark.trainers
@pytest.mark.filterwarnings("ignore")
def test_the_agent_calls_tools_and_is_judged(openrlhf: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openrlhf.utils.agent", exc_type=ImportError)
    from rollforge.export.trial import byte_tokenizer

    tokenizer = byte_tokenizer()
    agent = module(TARGET.files(made("grpo", tmp_path))["agent_func.py"], tmp_path, "agent_func.py")
    plain, live = rows("grpo")
    found = attempt(agent.AgentExecutor(), Engine(tokenizer, "It is 42."), plain)
    assert found["reward"] == 1.0
    called = (
        '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "verify", "arguments": {}}\n</tool_call>'
    )
    engine = Engine(tokenizer, called, "I made 2 calls.")
    with environment() as server:
        monkeypatch.setenv("GYM_URL", server.url)
        found = attempt(agent.AgentExecutor(), engine, live)
    assert found["reward"] == 1.0
    assert float(found["extra_logs"]["tool_turns"]) == 1.0
    assert [path for path, _, _ in server.requests] == ["/seed_session", "/weather", "/verify"]
    assert engine.seen[1].endswith(
        "</tool_call><|im_end|>\n<|im_start|>user\n<tool_response>\n"
        '{"said": {"city": "Oslo"}}\n</tool_response>\n<tool_response>\n{"error": "there is no tool \'verify\'"}\n'
        "</tool_response><|im_end|>\n<|im_start|>assistant\n"
    )
    spoken = "".join(tokenizer.decode(found["observation_tokens"][start:end]) for start, end in found["action_ranges"])
    assert spoken == f"{called}<|im_end|>I made 2 calls.<|im_end|>"


@pytest.mark.trainers
def test_the_flags_are_those_of_the_installed_parsers(openrlhf: Any) -> None:
    import importlib.util

    release = pytest.importorskip("importlib.metadata").version("openrlhf")
    if not release.startswith("0.11."):
        pytest.skip(f"OpenRLHF {release} may have other flags than 0.11")
    found = importlib.util.find_spec("openrlhf")
    assert found
    assert found.submodule_search_locations
    for command, flags in DOTTED.items():
        text = (Path(found.submodule_search_locations[0]) / "cli" / f"{command}.py").read_text(encoding="utf-8")
        assert set(re.findall(r'"--([A-Za-z_][\w.]*)"', text)) <= flags
