"""The TRL target: its rows, what its checks find, its configuration, and TRL itself training on what was written."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import rollforge.models.tiny
from rollforge.errors import UserError
from rollforge.export.advice import advise
from rollforge.export.check import check_export, check_files
from rollforge.export.examples import Demonstration, Judged, Pair, Prompt
from rollforge.export.target import Data, Made, Refused, Seen, Settings
from rollforge.export.trl import TARGET
from rollforge.export.verl import TARGET as VERL
from rollforge.export.writer import Parts, Sheet
from rollforge.records.lossless import dumps
from tests.export.samples_trl import ASK, CLOCK, SUM, TOLD, WEATHER, call, examples, heard, made, origin, said

Json = dict[str, Any]
GOLDEN = Path(__file__).parent / "golden" / "trl"
POLICY = Path(rollforge.models.tiny.__file__).parent / "policy"
KINDS = list(TARGET.kinds)


def rows(kind: str) -> list[Json]:
    chosen = TARGET.kinds[kind]
    return [chosen.row(example, Settings()) for example in examples(chosen.family)]


def problems(kind: str, row: Json) -> list[str]:
    return list(TARGET.kinds[kind].check(row))


# Rows


@pytest.mark.parametrize("kind", KINDS)
def test_the_rows_are_as_kept(kind: str) -> None:
    kept = GOLDEN / f"{kind}.jsonl"
    written = b"".join(dumps(row) + b"\n" for row in rows(kind))
    if os.environ.get("ROLLFORGE_GOLDEN"):
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(written)
    assert written == kept.read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_passes_its_own_check(kind: str) -> None:
    plain, with_tools = ([*problems(kind, row)] for row in rows(kind))
    assert plain == []
    told = ["warning: GRPO reads no tools column: the task is attempted without; give tools= or environment_factory= to it"]
    assert with_tools == (told if kind == "grpo" else [])


@pytest.mark.parametrize("kind", KINDS)
def test_every_row_has_the_same_columns_of_the_same_types(kind: str) -> None:
    plain, with_tools = rows(kind)
    assert {key: type(value) for key, value in plain.items()} == {key: type(value) for key, value in with_tools.items()}
    assert plain["tools"] == "null"
    assert json.loads(with_tools["tools"]) == [WEATHER, CLOCK]


def test_tool_messages_get_the_name_of_the_tool() -> None:
    messages = rows("sft")[1]["messages"]
    assert [message.get("name") for message in messages if message["role"] == "tool"] == ["get_weather", "get_time"]
    assert messages[2]["tool_calls"][0]["function"]["arguments"] == {"city": "Oslo"}


def test_prompts_carry_the_answer_and_the_fields_of_the_task() -> None:
    row = rows("grpo")[0]
    assert row["ground_truth"] == "4"
    assert json.loads(row["fields"]) == {"expected_answer": "4", "level": 2}
    assert rows("grpo")[1]["ground_truth"] == ""


def test_the_example_is_not_changed() -> None:
    before = json.dumps(TOLD)
    rows("sft")
    assert json.dumps(TOLD) == before


IMAGE = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}]


@pytest.mark.parametrize(
    ("kind", "example", "reason"),
    [
        (
            "grpo",
            Prompt(origin("s-0"), [{"role": "system", "content": "Be brief."}], [], "4", {}),
            "ends with the turn of system",
        ),
        ("grpo", Prompt(origin("s-0"), [], [], "4", {}), "prompt is empty"),
        ("grpo", Prompt(origin("s-0"), IMAGE, [], "4", {}), "more than text"),
        ("sft-prompt-completion", Demonstration(origin("s-0"), SUM, [said("")], []), "completion is empty"),
        ("kto", Judged(origin("s-0"), SUM, [], [], True), "completion is empty"),
        ("dpo", Pair(origin("s-0"), origin("s-1"), SUM, [said("4")], [said("4")], []), "are the same"),
        ("dpo-implicit", Pair(origin("s-0"), origin("s-1"), ASK, TOLD, TOLD[:1], []), "the beginning of the other"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_reason(kind: str, example: Any, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        TARGET.kinds[kind].row(example, Settings())


def test_reasoning_alone_is_a_completion() -> None:
    thought = {"role": "assistant", "content": "", "reasoning_content": "hm"}
    row = TARGET.kinds["kto"].row(Judged(origin("s-0"), SUM, [thought], [], False), Settings())
    assert row["completion"] == [thought]


# Checks of rows that anybody wrote


USER = {"role": "user", "content": "?"}
GOOD = {"role": "assistant", "content": "!"}


@pytest.mark.parametrize(
    ("kind", "row", "said"),
    [
        ("sft", {"input": "x"}, "no messages"),
        ("sft", {"messages": [USER]}, "no assistant turn"),
        ("sft", {"messages": "hello"}, "not a list of messages"),
        ("sft", {"messages": []}, "empty list"),
        ("sft", {"messages": [USER, "x"]}, "messages[1] is text"),
        ("sft", {"messages": [{"from": "human", "value": "?"}, GOOD]}, "from and value"),
        ("sft", {"messages": [{"role": "bot", "content": "?"}, GOOD]}, "role is 'bot'"),
        ("sft", {"conversations": [{"from": "human", "value": "?"}, {"from": "gpt", "value": "!"}]}, "[0].from is 'human'"),
        ("sft", {"conversations": [{"from": "user", "value": "?"}]}, "no assistant turn"),
        ("sft", {"conversations": [USER, GOOD]}, "call it messages"),
        ("sft", {"conversations": []}, "empty list"),
        (
            "sft",
            {"messages": [USER, {"role": "assistant", "content": None}]},
            "content is null, and there are no tool calls",
        ),
        ("sft", {"messages": [USER, {**GOOD, "function_call": {"name": "f", "arguments": "{}"}}]}, "the call is lost"),
        ("sft", {"messages": [USER, said("", {"function": {"name": "f", "arguments": "{}"}})]}, "arguments are text"),
        ("sft", {"messages": [USER, said("", {"function": {"name": "", "arguments": {}}})]}, "name is ''"),
        ("sft", {"messages": [USER, GOOD], "tools": "[{"}, "not JSON"),
        ("sft", {"messages": [USER, GOOD], "tools": [{"type": "function"}]}, "tools[0] has no name"),
        ("sft", {"messages": [USER, GOOD], "tools": {"a": 1}}, "tools is an object"),
        ("sft-prompt-completion", {"prompt": [USER]}, "completion is missing"),
        ("sft-prompt-completion", {"prompt": "?", "completion": [GOOD]}, "prompt is text, completion is a list"),
        ("sft-prompt-completion", {"prompt": [USER], "completion": []}, "completion is empty"),
        ("sft-prompt-completion", {"prompt": [USER], "completion": [USER, GOOD]}, "begins with a user turn"),
        ("grpo", {"question": "?"}, "prompt is missing"),
        ("grpo", {"prompt": ""}, "prompt is empty"),
        (
            "grpo",
            {"prompt": [USER, {"role": "assistant", "tool_calls": [call("c", "f")]}, heard("c", "")]},
            "has no content",
        ),
        ("grpo", {"prompt": [USER], "completions": "x"}, "argument of reward functions"),
        ("dpo", {"prompt": [USER], "chosen": [GOOD]}, "rejected is missing"),
        (
            "dpo",
            {"chosen": [GOOD], "rejected": [said("?")]},
            "there is no prompt, and chosen and rejected begin differently",
        ),
        ("dpo", {"chosen": "yes", "rejected": "no"}, "there is no prompt, and chosen and rejected begin differently"),
        ("dpo", {"chosen": [GOOD]}, "prompt is missing"),
        ("dpo", {"prompt": [USER], "chosen": [GOOD], "rejected": [GOOD]}, "are the same"),
        ("dpo", {"prompt": [USER], "chosen": [GOOD], "rejected": [said("?")], "margin": 0}, "margin is 0"),
        (
            "dpo",
            {"prompt": [USER], "chosen": [GOOD], "rejected": [said("?")], "chosen_reward": 0.1, "rejected_reward": 0.5},
            "not above",
        ),
        ("dpo-implicit", {"prompt": [USER], "chosen": [GOOD], "rejected": [said("?")]}, "check the file as dpo"),
        ("dpo-implicit", {"chosen": [USER, GOOD], "rejected": [said("other"), GOOD]}, "begin differently"),
        ("dpo-implicit", {"chosen": [USER, GOOD], "rejected": [USER]}, "the beginning of the other"),
        ("kto", {"prompt": [USER], "completion": [GOOD]}, "label is missing"),
        ("kto", {"prompt": [USER], "completion": [GOOD], "label": 2}, "label is 2"),
        ("kto", {"prompt": [USER], "completion": [GOOD], "label": "good"}, "label is 'good'"),
    ],
)
def test_a_check_says_what_is_wrong(kind: str, row: Json, said: str) -> None:
    found = problems(kind, row)
    assert any(said in one and not one.startswith("warning: ") for one in found), found


PARTS = {"content": [{"type": "text", "text": "?"}]}


@pytest.mark.parametrize(
    ("kind", "row", "said"),
    [
        ("sft", {"messages": [USER, GOOD, USER]}, "the last turn is 'user'"),
        (
            "sft",
            {"conversations": [{"from": "assistant", "value": "!"}, {"from": "user", "value": "?"}]},
            "last turn is 'user'",
        ),
        ("sft", {"messages": [USER, {"role": "assistant", "tool_calls": [call("c", "f")]}]}, "has no content"),
        ("sft", {"messages": [USER, {"role": "assistant", "content": None, "tool_calls": [call("c", "f")]}]}, "is null"),
        ("sft", {"messages": [{**USER, **PARTS}, GOOD]}, "list of text parts"),
        ("dpo", {"prompt": [USER], "chosen": [GOOD], "rejected": [{**GOOD, **PARTS}]}, "list of text parts"),
        ("sft-prompt-completion", {"prompt": [USER, GOOD], "completion": [said("?")]}, "the last turn is 'assistant'"),
        ("grpo", {"prompt": [USER, GOOD]}, "the last turn is 'assistant'"),
        ("grpo", {"prompt": [{"role": "system", "content": "?"}]}, "the last turn is 'system'"),
        ("grpo", {"prompt": [USER], "completion": "x"}, "does not reach"),
        ("kto", {"prompt": [USER], "completion": [GOOD], "label": 1}, "label is 1"),
    ],
)
def test_what_trl_trains_all_the_same_is_a_warning(kind: str, row: Json, said: str) -> None:
    [found] = problems(kind, row)
    assert found.startswith("warning: ")
    assert said in found


def test_rows_of_text_and_of_messages_do_not_go_together(tmp_path: Path) -> None:
    rows = [{"prompt": "?", "completion": "!"}, {"prompt": [USER], "completion": [GOOD]}]
    file = tmp_path / "train.jsonl"
    for kind in ("sft", "sft-prompt-completion"):
        file.write_bytes(b"".join(dumps(row) + b"\n" for row in rows))
        errors = [one for one in check_files([file], TARGET, kind, load=False).problems if one.level == "error"]
        assert [one.line for one in errors] == [2]
        assert "some rows are of text, others of messages" in errors[0].message
        file.write_bytes(dumps(rows[0]) + b"\n")
        assert check_files([file], TARGET, kind, load=False).errors == 0
    assert advise("AttributeError: 'list' object has no attribute 'endswith'")[0].name == "rows of two shapes"


@pytest.mark.parametrize(
    ("kind", "row"),
    [
        ("sft", {"text": "hello"}),
        ("sft", {"prompt": "?", "completion": "!"}),
        ("sft", {"messages": [USER, GOOD], "tools": [WEATHER]}),
        ("sft", {"messages": [USER, GOOD], "tools": "null"}),
        ("sft", {"conversations": [{"from": "user", "value": "?"}, {"from": "assistant", "value": "!"}]}),
        ("sft", {"messages": [{**USER, **PARTS}, {**GOOD, **PARTS}], "images": ["a.png"]}),
        ("sft", {"messages": [{"role": "user", "content": [{"type": "image"}]}, {**GOOD, **PARTS}]}),
        ("sft", {"messages": [USER, {**GOOD, "function_call": None, "tool_calls": None}]}),
        ("dpo", {"prompt": "?", "chosen": "a", "rejected": "b"}),
        ("dpo", {"chosen": [USER, GOOD], "rejected": [USER, said("?")]}),
        ("dpo", {"chosen": "Human: ? Assistant: a", "rejected": "Human: ? Assistant: b"}),
        ("kto", {"chosen": [USER, GOOD], "rejected": [USER, said("?")]}),
        ("grpo", {"prompt": "?", "solution": "4"}),
    ],
)
def test_a_check_leaves_other_peoples_good_rows_alone(kind: str, row: Json) -> None:
    assert problems(kind, row) == []


KEYS = [
    "messages",
    "prompt",
    "completion",
    "chosen",
    "rejected",
    "tools",
    "label",
    "margin",
    "chosen_reward",
    "rejected_reward",
]
KEYS += ["role", "content", "tool_calls", "function", "name", "arguments", "from", "value"]
JSON = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.text(max_size=5), st.sampled_from(["user", "assistant", "tool", "gpt"])
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)),
    max_leaves=12,
)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_a_check_survives_any_row(kind: str, data: st.DataObject) -> None:
    row = data.draw(st.dictionaries(st.sampled_from(KEYS), JSON, max_size=6))
    assert all(isinstance(found, str) for found in problems(kind, row))


# Configuration


def config(kind: str, folder: Path, **settings: Any) -> Json:
    made(TARGET, kind, folder, **settings)
    read = yaml.safe_load((folder / f"{kind}.yaml").read_text())
    assert isinstance(read, dict)
    return read


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("validation", [False, True])
def test_what_is_written_passes_the_check_of_configurations(kind: str, validation: bool, tmp_path: Path) -> None:
    config(kind, tmp_path, validation=validation)
    assert [str(found) for found in TARGET.check_config(kind, tmp_path / f"{kind}.yaml")] == []


def test_files_are_the_same_for_the_same_data(tmp_path: Path) -> None:
    one = made(TARGET, "sft", tmp_path)
    assert TARGET.files(one) == TARGET.files(one)
    assert set(TARGET.files(one)) == {"sft.yaml", "train.py", "launch.sh"}
    assert set(TARGET.files(made(TARGET, "grpo", tmp_path))) == {"grpo.yaml", "train.py", "launch.sh", "rewards.py"}


def test_without_a_validation_set_nothing_is_evaluated(tmp_path: Path) -> None:
    found = config("dpo", tmp_path)
    assert found["eval_strategy"] == "no"
    assert found["datasets"] == [{"path": "json", "data_files": str(tmp_path / "train.jsonl")}]


def test_a_validation_set_is_read_from_the_folder(tmp_path: Path) -> None:
    found = config("dpo", tmp_path, validation=True)
    assert (found["dataset_name"], found["dataset_test_split"], found["eval_strategy"]) == (
        str(tmp_path),
        "validation",
        "epoch",
    )


@pytest.mark.parametrize(
    ("kind", "rows", "gpus", "taken"), [("sft", 3, 1, 3), ("dpo", 40, 8, 5), ("sft", 500, 8, 8), ("kto", 1, 1, 2)]
)
def test_a_pass_takes_no_more_rows_than_a_step(kind: str, rows: int, gpus: int, taken: int) -> None:
    settings = Settings(gpus=gpus, micro_batch_size=8)
    made = Made(kind, Path("/d"), [Data("train", [], Path("/d/train.jsonl"), rows, 100, 400)], settings, True)
    assert yaml.safe_load(TARGET.files(made)[f"{kind}.yaml"])["per_device_train_batch_size"] == taken


@pytest.mark.parametrize("gpus", [1, 3, 8])
@pytest.mark.parametrize("nodes", [1, 2])
@pytest.mark.parametrize("generations", [2, 5, 8, 16])
@pytest.mark.parametrize("rows", [1, 7, 500])
def test_completions_are_whole_groups_on_any_number_of_gpus(gpus: int, nodes: int, generations: int, rows: int) -> None:
    data = [Data(split, [], Path(f"/d/{split}.jsonl"), rows, 100, 400, rows) for split in ("train", "validation")]
    settings = Settings(gpus=gpus, nodes=nodes, generations=generations)
    found = yaml.safe_load(TARGET.files(Made("grpo", Path("/d"), data, settings, True))["grpo.yaml"])
    batch = gpus * nodes * found["per_device_train_batch_size"] * found["gradient_accumulation_steps"]
    assert batch % generations == 0
    assert gpus * nodes * found["per_device_eval_batch_size"] % generations == 0
    prompts = batch // generations
    note = TARGET.files(Made("grpo", Path("/d"), data, settings, True))["grpo.yaml"]
    assert prompts <= max(rows, 16)
    assert (prompts > rows) == ("trains no step" in note)


@pytest.mark.parametrize(("gpus", "nodes"), [(1, 1), (6, 1), (3, 2), (6, 2)])
def test_the_check_counts_the_processes_of_the_launch_script(gpus: int, nodes: int, tmp_path: Path) -> None:
    folder = tmp_path / "it's here"
    folder.mkdir()
    data = [Data("train", [], folder / "train.jsonl", 181, 100, 400, 181)]
    for name, text in TARGET.files(Made("grpo", folder, data, Settings(gpus=gpus, nodes=nodes), True)).items():
        (folder / name).write_text(text, encoding="utf-8")
    found = [one.message for one in TARGET.check_config("grpo", folder / "grpo.yaml")]
    assert not [one for one in found if "does not divide" in one]
    (folder / "launch.sh").unlink()
    found = [one.message for one in TARGET.check_config("grpo", folder / "grpo.yaml")]
    assert bool([one for one in found if "does not divide" in one]) == (gpus > 1)


@pytest.mark.parametrize(("gpus", "batch", "rows"), [(1, None, 5), (8, None, 3), (8, 512, 100_000), (1, 1, 50)])
def test_no_batch_is_larger_than_the_data(gpus: int, batch: int | None, rows: int) -> None:
    data = [Data("train", [], Path("/d/train.jsonl"), rows, 100, 400)]
    settings = Settings(gpus=gpus, batch_size=batch)
    for kind in ("sft", "dpo", "kto"):
        found = yaml.safe_load(TARGET.files(Made(kind, Path("/d"), data, settings, True))[f"{kind}.yaml"])
        per_step = gpus * found["per_device_train_batch_size"] * found["gradient_accumulation_steps"]
        assert per_step <= max(rows, gpus * (2 if kind == "kto" else 1))
        assert found["per_device_train_batch_size"] >= (2 if kind == "kto" else 1)
        if batch == 512:
            assert per_step == 512


def test_lengths_come_from_the_data_and_leave_room() -> None:
    data = [Data("train", [], Path("/d/train.jsonl"), 50, 1000, 3000)]
    read = [
        yaml.safe_load(TARGET.files(Made("sft", Path("/d"), data, Settings(max_length=limit), measured))["sft.yaml"])
        for limit, measured in ((None, True), (None, False), (777, True))
    ]
    assert [found["max_length"] for found in read] == [3392, 3840, 777]
    found = yaml.safe_load(TARGET.files(Made("grpo", Path("/d"), data, Settings(), True))["grpo.yaml"])
    assert found["max_completion_length"] == 2304


def test_options_reach_the_configuration(tmp_path: Path) -> None:
    options: Json = {"model": "Qwen/Qwen3-8B", "lora": 32, "epochs": 2, "learning_rate": 3e-4, "logger": "wandb"}
    found = config("sft", tmp_path, **options, set={"warmup_steps": 5, "model_init_kwargs.attn_implementation": "sdpa"})
    wanted = {"use_peft": True, "lora_r": 32, "num_train_epochs": 2, "learning_rate": 3e-4, "report_to": "wandb"}
    assert wanted.items() <= found.items()
    assert found["gradient_checkpointing"] is True
    assert found["warmup_steps"] == 5
    assert found["model_init_kwargs"] == {"attn_implementation": "sdpa"}
    script = (tmp_path / "launch.sh").read_text()
    assert "have_module peft" in script
    assert "WANDB_API_KEY" in script


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "--num_processes 1"),
        ({"gpus": 8}, "--accelerate_config multi_gpu --num_processes 8"),
        ({"gpus": 8, "model": "Qwen/Qwen2.5-7B-Instruct"}, "--accelerate_config zero3 --num_processes 8"),
        ({"gpus": 8, "model": "Qwen/Qwen2.5-7B-Instruct", "lora": 16}, "--accelerate_config multi_gpu --num_processes 8"),
        ({"gpus": 8, "nodes": 4}, "--accelerate_config multi_gpu --num_processes 32"),
    ],
)
def test_the_command_starts_a_process_on_each_gpu(settings: Json, words: str, tmp_path: Path) -> None:
    command = TARGET.command(made(TARGET, "sft", tmp_path, **settings))
    assert command == f"trl sft --config {tmp_path}/sft.yaml {words}"


def test_several_nodes_are_started_by_slurm(tmp_path: Path) -> None:
    made(TARGET, "kto", tmp_path, gpus=8, nodes=2, container="trl.sqsh")
    script = (tmp_path / "launch.sh").read_text()
    assert "sbatch --job-name=trl-kto --nodes=2" in script
    assert subprocess.run(["bash", "-n", str(tmp_path / "launch.sh")], check=False).returncode == 0
    shown = subprocess.run(["bash", str(tmp_path / "launch.sh"), "--print"], capture_output=True, text=True, check=True)
    assert "$SLURM_NODEID" in shown.stdout
    assert (
        f"--container-image=trl.sqsh --container-mounts={tmp_path}:{tmp_path} --container-workdir={tmp_path} bash"
        in shown.stdout
    )


def test_the_launcher_says_what_is_missing(tmp_path: Path) -> None:
    made(TARGET, "sft", tmp_path, gpus=4)
    (tmp_path / "train.jsonl").unlink()
    done = subprocess.run(["bash", str(tmp_path / "launch.sh"), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"{tmp_path}/train.jsonl is not there" in done.stderr


@pytest.mark.parametrize("words", [["--chek"], ["--help"], ["--check", "now"]])
def test_the_launcher_starts_nothing_for_words_it_does_not_know(tmp_path: Path, words: list[str]) -> None:
    made(TARGET, "sft", tmp_path)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/trl").write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    (tmp_path / "bin/trl").chmod(0o755)
    path = f"{tmp_path}/bin:{os.environ['PATH']}"
    command = ["bash", str(tmp_path / "launch.sh"), *words]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PATH": path}, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert [line.partition("  ")[0] for line in done.stderr.splitlines()] == [
        "usage: bash launch.sh",
        "usage: bash launch.sh --check",
        "usage: bash launch.sh --print",
    ]
    assert not (tmp_path / "started").exists()


def test_the_launcher_knows_that_it_was_moved(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    made(TARGET, "sft", old)
    command = ["bash", "launch.sh", "--check"]
    told = f"made as {old}, which these files name: export here again, or replace that path"
    assert told not in subprocess.run(command, cwd=old, capture_output=True, text=True, check=False).stderr
    old.rename(new)
    said = subprocess.run(command, cwd=new, capture_output=True, text=True, check=False).stderr
    assert f"{old}/train.jsonl is not there" in said
    assert told in said
    for file in (new / "launch.sh", new / "sft.yaml"):
        file.write_text(file.read_text().replace(str(old), str(new)))
    said = subprocess.run(command, cwd=new, capture_output=True, text=True, check=False).stderr
    assert "is not there" not in said
    assert "made as" not in said


LOSS = "completion_only_loss: true\n"
BROKEN = [
    ("sft", "model_name_or_path: m\nmax_length: 10\n", "neither datasets nor dataset_name"),
    ("sft", "max_length: 10\n", "model_name_or_path is missing"),
    ("sft", "datasets: [{path: json}]\n", "needs data_files"),
    ("sft", "datasets: [{path: json, data_files: /no/such.jsonl}]\n", "there is no /no/such.jsonl"),
    ("sft", "datasets: [{path: hub/name}]\neval_strategy: epoch\n", "gives no test split"),
    ("sft", "dataset_name: /no/such\n", "there is no directory"),
    ("sft", "dataset_name: .\neval_strategy: epoch\n", "has no file of that name"),
    ("sft", "max_seq_length: 10\n", "it is called max_length"),
    ("sft", "lr: 1\n", "it is called learning_rate"),
    ("grpo", "reward_funcs: [acuracy_reward]\n", "acuracy_reward is none of TRL's (accuracy_reward, "),
    ("sft", "datasets: [{path: json, data_files: {train: /gone/x.jsonl}}]\n", "there is no /gone/x.jsonl"),
    ("sft", "assistant_only_loss: true\n", "generation"),
    ("dpo", "model_name_or_path: m\n", "max_length is not set"),
    ("kto", "per_device_train_batch_size: 1\n", "wants 2 or more"),
    ("grpo", "model_name_or_path: m\n", "reward_funcs is missing"),
    ("grpo", "reward_funcs: [mine_of_mine.f]\n", "there is no mine_of_mine.py"),
    ("grpo", "num_generations: 1\n", "at least 2 attempts"),
    ("grpo", "num_generations: 6\nper_device_train_batch_size: 4\n", "does not divide"),
    ("grpo", "max_prompt_length: 512\n", "leave it out"),
    ("sft", "datasets: [{path: json, data_files: [null]}]\n", "there is no None"),
    ("sft", "learnin_rate: 1.0e-5\n", "learnin_rate is no setting of SFTTrainer; did you mean learning_rate?"),
    ("sft", "per_device_train_batchsize: 4\n", "did you mean per_device_train_batch_size?"),
    ("dpo", "num_generations: 4\n", "num_generations is no setting of DPOTrainer"),
    ("sft", "packing: true\nattn_implementation: null\n", "packing without attn_implementation"),
    ("grpo", "per_device_train_batch_size:\n", "per_device_train_batch_size is None: it must be a whole number"),
    ("grpo", "gradient_accumulation_steps: many\n", "gradient_accumulation_steps is 'many': it must be a whole number"),
    ("grpo", "num_generations: []\n", "num_generations is []: it must be a whole number"),
    ("grpo", "num_generations: 6\nper_device_train_batch_size: '4'\n", "num_generations 6 does not divide the 4"),
    ("grpo", "num_generations: 6\ngeneration_batch_size: 32\n", "num_generations 6 does not divide the 32"),
    ("sft", "per_device_train_batch_size: 0\n", "per_device_train_batch_size is 0: it must be 1 or more"),
    ("grpo", "num_generations: -2\n", "num_generations is -2: it must be 1 or more"),
    ("sft", "num_train_epochs: -1\n", "num_train_epochs is -1: it must be a number above 0"),
    ("sft", "learning_rate: fast\n", "learning_rate is 'fast': it must be a number above 0"),
    ("sft", "max_length: abc\n", "max_length is 'abc': it must be a whole number; leave it out for 1024"),
    ("grpo", "beta: -0.1\n", "beta is -0.1: it must be a number of 0 or more"),
    ("sft", "gradient_checkpointing: maybe\n", "gradient_checkpointing is 'maybe': it must be true or false"),
    ("sft", "a: [\n", "not YAML"),
    ("sft", "- a\n", "not keys and values"),
]


@pytest.mark.parametrize(("kind", "text", "said"), BROKEN)
def test_a_check_says_what_is_wrong_with_a_configuration(kind: str, text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    found = [str(problem) for problem in TARGET.check_config(kind, path)]
    assert any(said in one for one in found), found


@pytest.mark.parametrize(
    ("kind", "row", "settings", "said"),
    [
        (
            "sft",
            {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
            LOSS,
            "no completion",
        ),
        ("sft", {"prompt": "q", "completion": "a"}, LOSS, None),
        ("sft", {"text": "q a"}, LOSS.replace("true", "false"), None),
        ("grpo", {"prompt": "q", "ground_truth": "1"}, "reward_funcs: [accuracy_reward]\n", "there is no solution"),
        ("grpo", {"prompt": "q", "solution": "1"}, "reward_funcs: accuracy_reward\n", None),
        ("grpo", {"prompt": "q", "ground_truth": "1"}, "reward_funcs: [think_format_reward]\n", None),
        (
            "grpo",
            {"prompt": "q"},
            "per_device_train_batch_size: 32\n",
            "4 prompts are taken at once (num_processes 1), and there are 1",
        ),
        ("grpo", {"prompt": "q"}, "per_device_train_batch_size: 8\n", None),
    ],
)
def test_settings_want_fields_and_rows(
    kind: str, row: dict[str, Any], settings: str, said: str | None, tmp_path: Path
) -> None:
    file, config = tmp_path / "train.jsonl", tmp_path / "c.yaml"
    file.write_text(json.dumps(row) + "\n")
    data = f"datasets: [{{path: json, data_files: {{train: [{file}]}}}}]\n"
    rewards = "" if kind == "sft" or "reward_funcs" in settings else "reward_funcs: [think_format_reward]\n"
    usual = (
        "model_name_or_path: m\noutput_dir: o\nmax_length: 9\n"
        if kind == "sft"
        else "model_name_or_path: m\noutput_dir: o\n"
    )
    most = "max_completion_length: 9\n" if kind == "grpo" else ""
    config.write_text(usual + most + data + rewards + settings)
    found = [one.message for one in check_files([file], TARGET, kind, config, load=False).problems]
    assert found == [] if said is None else any(said in one for one in found), found


def test_settings_that_the_trl_command_hands_on(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("env: {A: b}\nmixed_precision: bf16\nnum_processes: 2\nfsdp_version: 2\ngpu_ids: 0,1\n")
    assert not any("is no setting" in str(found) for found in TARGET.check_config("sft", path))


def test_values_as_trls_parser_takes_them(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("max_length: null\nlearning_rate: 1e-5\nnum_train_epochs: '2'\nuse_peft: 'yes'\nbeta: 0\n")
    assert not any("it must be" in str(found) for found in TARGET.check_config("dpo", path))


@pytest.mark.parametrize("kind", KINDS)
def test_anything_anywhere_in_a_configuration(kind: str, tmp_path: Path) -> None:
    """Whatever the file holds, the check itself does not fail."""
    made(TARGET, kind, tmp_path)
    values = yaml.safe_load((tmp_path / f"{kind}.yaml").read_text())
    for key in values:
        for weird in (None, "x", -1, True, [], {}, [None], ["x"], 10**30, "${a}"):
            (tmp_path / "c.yaml").write_text(yaml.safe_dump({**values, key: weird}))
            assert all(found.message for found in TARGET.check_config(kind, tmp_path / "c.yaml"))


@pytest.mark.parametrize(
    ("kind", "gpus", "rows", "level", "told"),
    [
        ("grpo", 16, 1, "error", "2 prompts are taken at once (num_processes 16), and there are 1"),
        ("grpo", 16, 2, None, ""),
        ("grpo", 1, 1, None, ""),
        ("sft", 8, 3, "warning", "8 rows are taken at once (num_processes 8), and there are 3"),
        ("sft", 8, 8, None, ""),
        ("sft", 1, 1, None, ""),
        ("kto", 8, 8, "warning", "16 rows are taken at once (num_processes 8), and there are 8"),
        ("kto", 1, 1, None, ""),
    ],
)
def test_more_gpus_than_rows(kind: str, gpus: int, rows: int, level: str | None, told: str, tmp_path: Path) -> None:
    file = tmp_path / "train.jsonl"
    data = [Data("train", [], file, rows, 10, 20, rows)]
    for name, text in TARGET.files(Made(kind, tmp_path, data, Settings(gpus=gpus), True)).items():
        (tmp_path / name).write_text(text)
    assert TARGET.against is not None
    found = [*TARGET.against(kind, tmp_path / f"{kind}.yaml", {file: Seen(rows, Counter({True: rows}))})]
    assert [(one.level, told in one.message) for one in found] == ([(level, True)] if level else [])


def test_of_data_that_is_not_checked_there_may_be_more(tmp_path: Path) -> None:
    text = "datasets: [{path: json, data_files: other.jsonl}]\nper_device_train_batch_size: 16\n"
    (tmp_path / "grpo.yaml").write_text(text)
    assert TARGET.against is not None
    (found,) = TARGET.against("grpo", tmp_path / "grpo.yaml", {tmp_path / "train.jsonl": Seen(1, Counter())})
    assert found.level == "warning"


def verdicts(folder: Path, good: int, bad: int) -> Path:
    file = folder / "train.jsonl"
    labels = [True] * good + [False] * bad
    rows = ({"prompt": f"{n}", "completion": "a", "label": label} for n, label in enumerate(labels))
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.mark.parametrize(
    ("good", "bad", "weights", "said"),
    [
        (4, 4, "", ""),
        (4, 3, "", ""),
        (4, 5, "", "4 rows are desirable, 5 are not"),
        (34, 110, "", "TRL wants desirable_weight from 3.24 to 4.3 or undesirable_weight from 0.23 to 0.31"),
        (34, 110, "desirable_weight: 3.3\n", ""),
        (34, 110, "undesirable_weight: '0.25'\n", ""),
        (110, 34, "desirable_weight: 3.3\n", "110 rows are desirable, 34 are not"),
        (34, 110, "desirable_weight: [1]\n", ""),
    ],
)
def test_weights_of_kto_make_up_for_the_rarer_label(good: int, bad: int, weights: str, said: str, tmp_path: Path) -> None:
    file, path = verdicts(tmp_path, good, bad), tmp_path / "kto.yaml"
    path.write_text(f"model_name_or_path: m\nmax_length: 64\noutput_dir: o\ndataset_name: {tmp_path}\n{weights}")
    found = [one.message for one in check_files([file], TARGET, "kto", path, load=False).problems]
    assert [said in one for one in found] == ([True] if said else [])


@pytest.mark.parametrize(("good", "bad"), [(34, 110), (110, 34), (4, 4), (4, 0), (0, 4), (1, 3)])
def test_an_export_for_kto_weighs_its_labels(good: int, bad: int, tmp_path: Path) -> None:
    file = verdicts(tmp_path, good, bad)
    data = [Data("train", [], file, good + bad, 100, 400, desirable=good)]
    text = TARGET.files(Made("kto", tmp_path, data, Settings(), True))["kto.yaml"]
    (tmp_path / "kto.yaml").write_text(text)
    assert ("desirable_weight" in text) == (good != bad and min(good, bad) > 0)
    found = check_files([file], TARGET, "kto", tmp_path / "kto.yaml", load=False).problems
    assert not [one for one in found if "weights do not make up" in one.message]


@pytest.mark.parametrize("label", [True, False])
def test_one_label_alone_tells_nothing(label: bool, tmp_path: Path) -> None:
    file = verdicts(tmp_path, 5 * label, 5 * (not label))
    [problem] = check_files([file], TARGET, "kto", load=False).problems
    assert problem.message.startswith(f"every label is {str(label).lower()}")


def test_a_problem_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("model_name_or_path: m\nmax_seq_length: 10\n")
    assert any(found.line == 2 for found in TARGET.check_config("sft", path))


# The reward function that stands beside the data


def rewards(folder: Path) -> Any:
    made(TARGET, "grpo", folder)
    space: Json = {}
    exec((folder / "rewards.py").read_text(), space)
    return SimpleNamespace(**space)


@pytest.mark.parametrize(
    ("text", "expected", "reward"),
    [
        (r"So \boxed{42}", "42", 1.0),
        (r"So \boxed{41}, not 42", "42", 0.0),
        ("The answer is: 1,234.0", "1234", 1.0),
        ("I get 3, then 4", "4", 1.0),
        ("Paris", "paris", 1.0),
        ("**Answer:** B", "B", 1.0),
        ("<think>42</think> 41", "42", 0.0),
        ("", "42", 0.0),
        ("anything", "", None),
    ],
)
def test_the_reward_function(text: str, expected: str, reward: float | None, tmp_path: Path) -> None:
    correct = rewards(tmp_path).correct
    assert correct([[{"role": "assistant", "content": text}]], [expected]) == [reward]
    assert correct(completions=[text], ground_truth=[expected], prompts=["?"], env=["e"]) == [reward]


# TRL itself


def environment() -> dict[str, str]:
    more = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "TOKENIZERS_PARALLELISM": "false"}
    return {**os.environ, **more}


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment(), timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.mark.trainers
@pytest.mark.parametrize("kind", KINDS)
def test_trl_trains_a_step_with_the_written_script(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("trl")
    made(TARGET, kind, tmp_path, validation=kind == "dpo", logger="none", generations=4, set={"max_steps": 1})
    if kind == "grpo":
        text = (tmp_path / "grpo.yaml").read_text()
        (tmp_path / "grpo.yaml").write_text(text.replace("max_completion_length: 384", "max_completion_length: 8"))
    said = run([sys.executable, "train.py", "--model", str(POLICY), "--cpu"], tmp_path)
    assert "train_loss" in said
    assert (tmp_path / "results" / "model.safetensors").exists()


@pytest.mark.trainers
def test_the_trl_command_takes_the_configuration(tmp_path: Path) -> None:
    pytest.importorskip("trl")
    written = made(TARGET, "sft", tmp_path, model=str(POLICY), logger="none", validation=True, set={"max_steps": 1})
    words = TARGET.command(written).split()
    command = [str(Path(sys.executable).parent / words[0]), *words[1:], "--use_cpu", "true", "--bf16", "false"]
    assert "Training completed" in run(command, tmp_path)


@pytest.mark.trainers
@pytest.mark.filterwarnings("ignore:.gradient_checkpointing. is deprecated:FutureWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_trls_own_parser_reads_the_configuration(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("trl")
    made(TARGET, kind, tmp_path, validation=True, lora=8)
    trainer = {"sft-prompt-completion": "sft", "dpo-implicit": "dpo"}.get(kind, kind)
    parser = importlib.import_module(f"trl.scripts.{trainer}").make_parser()
    parsed = parser.parse_args_and_config(
        ["--config", str(tmp_path / f"{kind}.yaml"), "--use_cpu", "true", "--bf16", "false"], return_remaining_strings=True
    )
    assert parsed[-1] == []
    script, settings, model = parsed[:3]
    assert script.dataset_name == str(tmp_path)
    assert (model.use_peft, model.lora_r) == (True, 8)
    assert settings.output_dir == str(tmp_path / "results")


@pytest.mark.trainers
@pytest.mark.parametrize("kind", KINDS)
def test_the_loader_reads_what_was_written(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("trl")
    made(TARGET, kind, tmp_path)
    found = TARGET.load(kind, tmp_path / "train.jsonl")
    assert found is not None
    assert found.startswith("loaded 8 rows (conversational) with trl")


@pytest.mark.trainers
def test_the_loader_says_where_nulls_were_filled_in(tmp_path: Path) -> None:
    pytest.importorskip("trl")
    path = tmp_path / "train.jsonl"
    filler = "x" * 12_000_000
    first = {"messages": [USER, said(filler)], "tools": {"a": 1, "b": 2}}
    path.write_bytes(dumps(first) + b"\n" + dumps({"messages": [USER, GOOD], "tools": {"a": 1}}) + b"\n")
    with pytest.raises(UserError, match=r"train\.jsonl:2: .*tools\.b was filled with null"):
        TARGET.load("sft", path)


@pytest.mark.trainers
def test_trl_keeps_the_words_of_sharegpt_for_the_roles() -> None:
    trl = pytest.importorskip("trl")
    turns = [{"from": "human", "value": "?"}, {"from": "gpt", "value": "!"}]
    kept = trl.maybe_convert_to_chatml({"conversations": turns})["messages"]
    assert kept == [{"role": "human", "content": "?"}, {"role": "gpt", "content": "!"}]


@pytest.mark.trainers
def test_free_json_in_parquet_is_what_datasets_reads(tmp_path: Path) -> None:
    pytest.importorskip("trl")
    datasets = importlib.import_module("datasets")
    given = [{"messages": row["messages"]} for row in rows("sft")]
    free = datasets.Features({"messages": datasets.List(datasets.Json())})
    path = tmp_path / "train.parquet"
    datasets.Dataset.from_list(given, features=free).to_parquet(path)
    checked = check_files([path], TARGET, "sft")
    assert checked.problems == []
    assert checked.loader.startswith("loaded 2 rows (conversational)")
    [problem] = check_files([path], VERL, "sft", load=False).problems
    assert (problem.level, "verl reads with pandas" in problem.message) == ("error", True)


@pytest.mark.trainers
def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("trl")
    path = tmp_path / "train.jsonl"
    path.touch()
    with pytest.raises(UserError, match="no rows"):
        TARGET.load("sft", path)


WHOLE = """{% if tools %}TOOLS {{ tools | tojson }}
{% endif %}{% for m in messages %}[{{ m.role }}{% if m.name %} {{ m.name }}{% endif %}] {{ m.content }}\
{% for c in m.tool_calls or [] %} CALL {{ c.function.name }} {{ c.function.arguments | tojson }}{% endfor %}
{% endfor %}{% if add_generation_prompt %}[assistant] {% endif %}"""
"""A chat template that hides nothing."""


@pytest.mark.trainers
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("number", "fails"), [(1e-12, True), (3.141592653589793, False)])
def test_a_number_that_datasets_makes_zero_is_an_error(number: float, fails: bool, tmp_path: Path) -> None:
    """Numbers of free objects are written anew with ten decimal places."""
    pytest.importorskip("datasets")
    pytest.importorskip("trl")
    calls = call("c1", "solve", near=number), call("c2", "solve", start=1)
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps({"messages": [*ASK, said("", one)], "tools": "null"}) + "\n" for one in calls))
    problems = check_files([path], TARGET, "sft").problems
    assert any("near is 0.0, not 1e-12" in one.message for one in problems) is fails
    assert any(one.level == "error" for one in problems) is fails


@pytest.mark.parametrize(
    ("held_out", "says"),
    [
        ([{"role": "assistant", "content": "", "reasoning_content": "Hm."}], "completion[].reasoning_content is a new key"),
        ([{"role": "assistant", "content": "Yes."}], None),
    ],
)
def test_what_is_held_out_is_read_with_the_types_of_the_training_file(
    held_out: list[Json], says: str | None, tmp_path: Path
) -> None:
    """As load_dataset of the folder does, which fails (CastError), though each file by itself is sound."""
    asked = [{"role": "user", "content": "Well?"}]
    rows = {"train": [{"role": "assistant", "content": "No."}], "validation": held_out}
    for split, completion in rows.items():
        row = {"prompt": [{"role": "user", "content": split}, *asked], "completion": completion, "tools": "null"}
        (tmp_path / f"{split}.jsonl").write_text(json.dumps(row) + "\n")
    checked = check_export(tmp_path, TARGET, "sft-prompt-completion", load=False)
    errors = [one for one in checked.problems if one.level == "error"]
    assert [(one.line, says in one.message) for one in errors] == ([(1, True)] if says else [])


@pytest.mark.trainers
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["sft", "sft-prompt-completion", "dpo", "dpo-implicit", "kto"])
def test_what_is_trained_on_has_every_call_and_no_null(kind: str, tmp_path: Path) -> None:
    """12 MB, in which tools and arguments that were not in the first 10 MB come at the end."""
    trl = pytest.importorskip("trl")
    torch, transformers = importlib.import_module("torch"), importlib.import_module("transformers")
    datasets = importlib.import_module("datasets")
    torch.set_num_threads(1)
    path = large(kind, tmp_path)
    assert path.stat().st_size > 11_000_000
    data = datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    wanted = [number for number in range(len(data)) if len(json.dumps(data[number])) < 5000]
    tokenizer = transformers.AutoTokenizer.from_pretrained(POLICY)
    tokenizer.chat_template = WHOLE
    name = {"sft": "SFT", "kto": "KTO"}.get(kind.partition("-")[0], "DPO")
    shared = {"output_dir": str(tmp_path / "out"), "use_cpu": True, "bf16": False, "max_length": 4096, "report_to": "none"}
    trainer = getattr(trl, f"{name}Trainer")(
        model=str(POLICY),
        args=getattr(trl, f"{name}Config")(**shared, max_steps=1, per_device_train_batch_size=2, save_strategy="no"),
        train_dataset=data.select(wanted),
        processing_class=tokenizer,
    )
    texts = [text_of(tokenizer, row) for row in trainer.train_dataset]
    with_calls = [text for text in texts if "CALL" in text and "late_tool" not in text]
    assert with_calls
    for text in with_calls:
        assert 'CALL get_weather {"city": "Oslo"}' in text
        assert 'CALL get_time {"utc": false, "zone": "CET"}' in text or 'CALL get_time {"zone": "CET", "utc": false}' in text
        assert "[tool get_weather] 9 degrees" in text
        assert '"description": "The time in a zone."' in text
    late = [text for text in texts if "late_tool" in text]
    assert late
    assert all('CALL late_tool {"brand_new": {"deep": [1, 2]}}' in text for text in late)
    assert not any(word in text for text in texts for word in ("null", "None"))
    trainer.train()


def text_of(tokenizer: Any, row: Json) -> str:
    """The prompt and what is learned, decoded; of a pair the chosen side."""
    ids = row.get("input_ids") or [*row["prompt_ids"], *(row.get("chosen_ids") or row["completion_ids"])]
    return str(tokenizer.decode(ids))


def large(kind: str, folder: Path) -> Path:
    """Written as an export writes: plain conversations first, then those with tools, then one with a tool of its own."""
    chosen = TARGET.kinds[kind]
    late = {"type": "function", "function": {"name": "late_tool", "parameters": {"type": "object", "properties": {}}}}
    used = [said("", call("l", "late_tool", brand_new={"deep": [1, 2]})), heard("l", "ok"), said("done")]
    match chosen.family:
        case "pair":
            last: Any = Pair(origin("w-9"), origin("w-8", 0.0), ASK, used, [said("no")], [late])
        case "judged":
            last = Judged(origin("w-9"), ASK, used, [late], True)
        case _:
            last = Demonstration(origin("w-9"), ASK, used, [late])
    plain, with_tools = examples(chosen.family)
    sheet = Sheet(folder / "part")
    for number in range(1200):
        row = chosen.row(plain, Settings())
        key = next(key for key in ("completion", "chosen", "messages") if key in row)
        row[key] = [*row[key][:-1], said(f"{number} " + "word " * 2000)]
        sheet.add("train", "e", row, dumps(row), (origin("s-0"),))
    for example in (plain, with_tools, last):
        row = chosen.row(example, Settings())
        sheet.add("train", "e", row, dumps(row), (origin("w-0"),))
    parts = Parts()
    parts.add(sheet.close())
    return folder / parts.write(folder)[0].name
