"""Each known trap of NeMo RL is reported: in a row, in a configuration, in the files it names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from rollforge.config import merge
from rollforge.export.check import check_files
from rollforge.export.nemo_rl import TARGET
from rollforge.export.nemo_rl.check import WARNING, answer_problem
from rollforge.export.target import Problem

Json = dict[str, Any]

# What matters here of NeMo RL's own examples/configs, from 0.6 on and before.
ONE_GPU = {"dtensor_cfg": {"enabled": True, "tensor_parallel_size": 1, "context_parallel_size": 1}}
TEMPLATE = "{% for message in messages %}Question: {{ message['content'] }}{% endfor %}"
LOADED = {"shuffle": True, "num_workers": 1}
TOKENS = {"add_bos": True, "add_eos": True, "add_generation_prompt": False}
PARENTS: dict[str, Json] = {
    "grpo_math_1B": {
        "loss_fn": {},
        "logger": {},
        "grpo": {"num_prompts_per_step": 32, "num_generations_per_prompt": 16, "val_period": 10, "max_val_samples": 256},
        "checkpointing": {"metric_name": "val:accuracy"},
        "policy": {
            **ONE_GPU,
            "model_name": "base",
            "tokenizer": {"name": "${policy.model_name}"},
            "train_global_batch_size": 512,
            "train_micro_batch_size": 4,
            "max_total_sequence_length": 512,
            "sequence_packing": {"enabled": True},
        },
        "data": {
            **LOADED,
            "use_multiple_dataloader": False,
            "max_input_seq_length": "${policy.max_total_sequence_length}",
            "train": {"dataset_name": "OpenMathInstruct-2", "split_validation_size": 0.05},
            "validation": None,
            "default": {
                "prompt_file": "examples/prompts/cot.txt",
                "processor": "math_hf_data_processor",
                "env_name": "math",
            },
        },
        "env": {"math": {"num_workers": 8}},
        "cluster": {"gpus_per_node": 1, "num_nodes": 1},
    },
    "sft": {
        "sft": {"max_num_epochs": 1, "max_num_steps": 60, "val_period": 10, "val_at_start": True},
        "checkpointing": {"metric_name": "val:val_loss"},
        "policy": {
            **ONE_GPU,
            "model_name": "base",
            "tokenizer": {"name": "${policy.model_name}", "chat_template": TEMPLATE},
            "train_global_batch_size": 32,
            "train_micro_batch_size": 1,
            "max_total_sequence_length": 1024,
        },
        "data": {
            **LOADED,
            **TOKENS,
            "max_input_seq_length": "${policy.max_total_sequence_length}",
            "train": {"dataset_name": "squad", "split": "train"},
            "validation": {"dataset_name": "squad"},
            "default": {"prompt_file": None, "processor": "sft_processor"},
        },
        "logger": {"wandb": {"name": "sft-${data.train.dataset_name}"}},
        "cluster": {"gpus_per_node": 1, "num_nodes": 1},
    },
    "dpo": {
        "dpo": {"max_num_steps": 150, "val_period": 25, "val_at_start": True},
        "checkpointing": {"metric_name": "val:validation-default_loss"},
        "policy": {
            **ONE_GPU,
            "model_name": "base",
            "tokenizer": {"name": "base"},
            "train_global_batch_size": 128,
            "train_micro_batch_size": 2,
            "max_total_sequence_length": 1024,
        },
        "data": {
            **LOADED,
            "max_input_seq_length": 1024,
            "train": {"dataset_name": "HelpSteer3"},
            "validation": {"dataset_name": "HelpSteer3"},
        },
        "logger": {},
        "cluster": {"gpus_per_node": 1, "num_nodes": 1},
    },
}
OLD_DATA: dict[str, Json] = {
    "sft": {"dataset_name": "squad", "output_key": None},
    "grpo_math_1B": {"dataset_name": "OpenMathInstruct-2", "prompt_file": None},
}

GOOD: dict[str, Json] = {
    "grpo": {"input": "2+2?", "output": "4", "ground_truth": "4"},
    "nemo-gym": {"responses_create_params": {"input": "2+2?"}, "agent_ref": {"name": "math_simple_agent"}, "answer": "4"},
    "sft": {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]},
    "sft-simple": {"input": "hi", "output": "hello"},
    "dpo": {"prompt": "hi", "chosen": "hello", "rejected": "go away"},
    "dpo-messages": {
        "context": [{"role": "user", "content": "hi"}],
        "completions": [
            {"rank": 0, "completion": [{"role": "assistant", "content": "hello"}]},
            {"rank": 1, "completion": [{"role": "assistant", "content": "no"}]},
        ],
    },
}
CALLS = {
    "messages": [
        {"role": "user", "content": "hi"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": {"x": 1}}}],
        },
        {"role": "tool", "tool_call_id": "a", "content": "1"},
        {"role": "assistant", "content": "done"},
    ],
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
}


class Place:
    """A directory with NeMo RL's parents, data files and the configuration that is checked."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.data = root / "data"
        self.data.mkdir()
        (root / "configs").mkdir()
        for name, values in PARENTS.items():
            (root / "configs" / f"{name}.yaml").write_text(yaml.safe_dump(values))
        for name, data in OLD_DATA.items():
            old = root / "configs" / f"{name.partition('_')[0]}_old.yaml"
            old.write_text(yaml.safe_dump(PARENTS[name] | {"data": data}))

    def rows(self, name: str, *rows: Json, times: int = 1, text: str = "") -> str:
        path = self.data / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows) * times + text)
        return str(path)

    def parent(self, name: str) -> str:
        return str(self.root / "configs" / f"{name}.yaml")

    def check(self, kind: str, values: Json) -> list[Problem]:
        path = self.root / "config.yaml"
        path.write_text(yaml.safe_dump(values, sort_keys=False))
        return list(TARGET.check_config(kind, path))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def grpo(place: Place, **over: Any) -> Json:
    """A configuration with nothing wrong."""
    data = place.rows("train.jsonl", GOOD["grpo"], times=32)
    entry = {"dataset_name": "ResponseDataset", "data_path": data, "processor": "math_hf_data_processor", "env_name": "math"}
    return merge(
        {
            "defaults": place.parent("grpo_math_1B"),
            "grpo": {"val_period": 0},
            "checkpointing": {"metric_name": None},
            "data": {
                "_override_": True,
                **LOADED,
                "use_multiple_dataloader": False,
                "max_input_seq_length": 512,
                "train": entry,
                "validation": None,
            },
        },
        over,
    )


def sft(place: Place, *rows: Json, kind: str = "openai_format", **over: Any) -> Json:
    data = place.rows("train.jsonl", *(rows or (GOOD["sft"],)), times=32)
    entry = {"dataset_name": kind, "data_path": data, "processor": "sft_processor", "use_preserving_dataset": True}
    return merge(
        {
            "defaults": place.parent("sft"),
            "sft": {"val_period": 0, "val_at_start": False},
            "checkpointing": {"metric_name": None},
            "policy": {"tokenizer": {"chat_template": "default"}},
            "data": {
                "_override_": True,
                **LOADED,
                **TOKENS,
                "max_input_seq_length": 1024,
                "train": entry,
                "validation": None,
            },
        },
        over,
    )


def dpo(place: Place, row: Json, kind: str = "BinaryPreferenceDataset", **over: Any) -> Json:
    return merge(
        {
            "defaults": place.parent("dpo"),
            "dpo": {"val_period": 0, "val_at_start": False},
            "checkpointing": {"metric_name": None},
            "data": {
                "_override_": True,
                **LOADED,
                "max_input_seq_length": 1024,
                "train": {"dataset_name": kind, "data_path": place.rows("train.jsonl", row, times=128)},
                "validation": None,
            },
        },
        over,
    )


def gym(place: Place, **over: Any) -> Json:
    entry = {"dataset_name": "NemoGymDataset", "data_path": place.rows("train.jsonl", GOOD["nemo-gym"], times=32)}
    entry |= {"processor": "nemo_gym_data_processor", "env_name": "nemo_gym"}
    paths = ["responses_api_models/vllm_model/configs/vllm_model_for_training.yaml", "x.yaml"]
    return merge(
        {
            "defaults": place.parent("grpo_math_1B"),
            "grpo": {"val_period": 0, "max_val_samples": None},
            "checkpointing": {"metric_name": None},
            "policy": {"generation": {"vllm_cfg": {"async_engine": True, "expose_http_server": True}}},
            "data": {
                "_override_": True,
                **LOADED,
                "use_multiple_dataloader": False,
                "max_input_seq_length": None,
                "train": entry,
                "validation": None,
            },
            "env": {"_override_": True, "should_use_nemo_gym": True, "nemo_gym": {"config_paths": paths}},
        },
        over,
    )


def expect(found: list[Problem], text: str, level: str = "error") -> None:
    matching = [problem for problem in found if text in problem.message]
    assert matching, [str(problem) for problem in found]
    assert matching[0].level == level


def test_nothing_is_said_of_what_is_right(place: Place) -> None:
    assert place.check("grpo", grpo(place)) == []
    assert place.check("sft", sft(place)) == []
    assert place.check("sft", sft(place, CALLS)) == []
    assert place.check("sft-simple", sft(place, GOOD["sft-simple"], kind="ResponseDataset")) == []
    assert place.check("dpo", dpo(place, GOOD["dpo"])) == []
    assert place.check("dpo-messages", dpo(place, GOOD["dpo-messages"], "PreferenceDataset")) == []
    assert place.check("nemo-gym", gym(place)) == []


# 1, 2: shape and parents


def test_flat_keys_under_todays_parent_train_the_parents_data(place: Place) -> None:
    flat = {"dataset_name": "ResponseDataset", "train_data_path": place.rows("t.jsonl", GOOD["grpo"])}
    found = place.check("grpo", {"defaults": place.parent("grpo_math_1B"), "data": flat})
    expect(found, "'OpenMathInstruct-2' would be trained")
    assert next(problem for problem in found if "OpenMath" in problem.message).line == 3


def test_flat_keys_without_a_known_parent_are_a_matter_of_the_version(place: Place) -> None:
    expect(
        place.check("grpo", {"data": {"dataset_name": "ResponseDataset", "train_data_path": "/x.jsonl"}}),
        "0.4 and 0.5",
        "warning",
    )


def test_todays_keys_under_an_old_parent_are_not_read(place: Place) -> None:
    values = sft(place)
    expect(place.check("sft", values | {"defaults": place.parent("sft_old")}), "up to 0.5 does not read it")


def test_flat_openai_format_needs_all_keys(place: Place) -> None:
    data = {"dataset_name": "openai_format", "train_data_path": place.rows("t.jsonl", GOOD["sft"])}
    found = place.check("sft", {"defaults": place.parent("sft_old"), "data": data})
    expect(found, "KeyError 'val_data_path'")
    expect(found, "len(None)")


def test_rows_of_04_need_their_task(place: Place) -> None:
    def data(*rows: Json) -> Json:
        return {"dataset_name": "ResponseDataset", "train_data_path": place.rows("t.jsonl", *rows, times=99)}

    values = {"defaults": place.parent("grpo_old"), "grpo": {"val_period": 0}, "checkpointing": {"metric_name": None}}
    expect(place.check("grpo", values | {"data": data(GOOD["grpo"])}), "no task_name 'math'")
    assert place.check("grpo", values | {"data": data(GOOD["grpo"] | {"task_name": "math"})}) == []
    assert place.check("grpo", values | {"data": data(GOOD["grpo"]) | {"env_name": "math"}}) == []


def test_flat_response_data_inherits_a_null_key(place: Place) -> None:
    data = {"dataset_name": "ResponseDataset", "train_data_path": place.rows("t.jsonl", GOOD["sft-simple"])}
    expect(place.check("sft-simple", {"defaults": place.parent("sft_old"), "data": data}), "KeyError None")


def test_no_training_data(place: Place) -> None:
    expect(place.check("grpo", {"data": {"shuffle": True}}), "data.train: it is missing")
    expect(place.check("grpo", {"grpo": {}}), "no such section")


@pytest.mark.parametrize("given", ["sft", ["sft"], "configs/sft", "nowhere/sft.yaml"])
def test_a_parent_that_is_not_found(place: Place, given: Any) -> None:
    found = place.check("sft", sft(place) | {"defaults": given})
    expect(found, "FileNotFoundError")
    expect(found, "/path/to/RL/examples/configs/sft.yaml")


def test_a_checkout_on_another_machine(place: Place, tmp_path: Path) -> None:
    values = sft(place) | {"defaults": f"{tmp_path}/RL/examples/configs/sft.yaml"}
    expect(place.check("sft", values), f"{tmp_path}/RL is not on this machine", "warning")
    (tmp_path / "RL").mkdir()
    expect(place.check("sft", values), "FileNotFoundError")


def test_a_parent_in_the_environment(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    values = sft(place) | {"defaults": "${oc.env:NEMO_RL_HOME}/configs/sft.yaml"}
    monkeypatch.delenv("NEMO_RL_HOME", raising=False)
    expect(place.check("sft", values), "NEMO_RL_HOME is not set", "warning")
    monkeypatch.setenv("NEMO_RL_HOME", str(place.root))
    assert place.check("sft", values) == []


def test_what_an_unknown_parent_may_have_is_not_missed(place: Place) -> None:
    values = grpo(place) | {"defaults": "/elsewhere/RL/examples/configs/grpo_math_1B.yaml"}
    del values["data"]["_override_"], values["data"]["train"]["processor"], values["data"]["train"]["env_name"]
    assert not any(one.level == "error" for one in place.check("grpo", values))
    values["data"]["_override_"] = True
    expect(place.check("grpo", values), "no environment, here or in data.default")
    values["env"] = {"_override_": True, "code": {}}
    values["data"]["train"]["env_name"] = "math"
    expect(place.check("grpo", values), "env.math is not defined")
    talks = sft(place) | {"defaults": "/elsewhere/RL/examples/configs/sft.yaml"}
    del talks["data"]["_override_"], talks["data"]["train"]["processor"]
    assert not any(one.level == "error" for one in place.check("sft", talks))


def test_not_yaml_at_all(place: Place) -> None:
    path = place.root / "broken.yaml"
    path.write_text("a: [1\nb: 2\n")
    expect(list(TARGET.check_config("sft", path)), "not YAML")
    path.write_text("- a\n")
    expect(list(TARGET.check_config("sft", path)), "list")


def script(place: Place, command: str, values: Json) -> list[Problem]:
    (place.root / "c.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    path = place.root / "run.sh"
    path.write_text(f"#!/bin/bash\ncd /opt/nemo-rl\nCONFIG={place.root}/c.yaml\n{command}\n")
    return list(TARGET.check_config("grpo", path))


@pytest.mark.parametrize(
    "command",
    [
        'uv run python examples/run_grpo.py --config "$CONFIG" cluster.gpus_per_node=1 +logger.mine=2 ++policy.more=3',
        "srun bash -c 'cd RL && uv run ./examples/run_grpo.py --config=c.yaml'",
        "uv run examples/run_sft.py --config sft.yaml\nuv run examples/run_grpo.py --config $CONFIG",
        "uv run examples/run_grpo.py --config $1 $OVERRIDES",
        "uv run examples/run_grpo.py data.train.dataset_name=gsm8k",
        "python prepare.py",
    ],
)
def test_scripts_with_nothing_wrong(place: Place, command: str) -> None:
    assert script(place, command, grpo(place)) == []


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("python examples/run_grpo_math.py --config $CONFIG", "examples/run_grpo_math.py is gone since NeMo RL 0.6"),
        ("uv run examples/run_grpo_rm.py", "examples/run_grpo_rm.py is gone"),
        ("uv run examples/run_sft.py --config $CONFIG", "it starts run_sft.py, which is not for grpo data"),
        ("uv run examples/nemo_gym/run_grpo_nemo_gym.py --config $CONFIG", "not for grpo data"),
        ("uv run examples/run_grpo.py --config $CONFIG grpo.num_prompts_per_step=64", "64, and there are 32 rows"),
        (
            "uv run examples/run_grpo.py --config $CONFIG grpo.num_prompt_per_step=8",
            "did you mean grpo.num_prompts_per_step?",
        ),
        ("uv run examples/run_grpo.py --config $CONFIG +grpo.val_period=5", "leave the + out"),
        ("uv run examples/run_grpo.py --config $CONFIG data.train.data_path=./x.jsonl", "IndexError"),
        ("uv run examples/run_grpo.py --config $CONFIG ++data.train_data_path=/x.jsonl", "not read since 0.6"),
    ],
)
def test_scripts_and_their_overrides(place: Place, command: str, said: str) -> None:
    found = script(place, command, grpo(place))
    expect(found, said)
    assert {(Path(problem.file).name, problem.line) for problem in found if said in problem.message} == {("run.sh", 4)}


def test_a_script_is_checked_with_the_configuration_that_it_names(place: Place) -> None:
    values = grpo(place, data={"train": {"env_name": "nobody"}})
    found = script(place, "uv run examples/run_grpo.py --config $CONFIG", values)
    expect(found, "env.nobody is not defined")
    assert Path(found[0].file).name == "c.yaml"
    both = [place.root / "c.yaml", place.root / "run.sh"]
    data = place.rows("train.jsonl", GOOD["grpo"], times=32)
    said = [one.message for one in check_files([data], TARGET, "grpo", both).problems if "env.nobody" in one.message]
    assert len(said) == 1


def test_the_script_of_04_is_right_for_its_configuration(place: Place) -> None:
    data = {"dataset_name": "ResponseDataset", "train_data_path": place.rows("t.jsonl", GOOD["grpo"])}
    values = {"defaults": place.parent("grpo_old"), "data": data}
    assert not any("gone" in str(one) for one in script(place, "uv run examples/run_grpo_math.py --config $CONFIG", values))


# 3: what GRPO compares with


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"input": "q", "output": 4}, "write it as a string"),
        ({"input": "q", "output": ""}, "is empty"),
        ({"input": "q", "output": None}, "is empty"),
        ({"input": "q"}, "KeyError"),
        ({"output": "4"}, "no 'input'"),
        ({"input": [{"role": "user", "content": "q"}], "output": "4"}, "'input' is a list"),
        ({"input": "q", "output": "The sum is 4, I think.", "ground_truth": "4"}, "output_key: ground_truth"),
        ({"messages": GOOD["sft"]["messages"]}, "messages[1] the expected answer"),
    ],
)
def test_grpo_rows(place: Place, row: Json, says: str) -> None:
    assert any(says in message for message in TARGET.kinds["grpo"].check(row))
    expect(place.check("grpo", grpo(place, data={"train": {"data_path": place.rows("x.jsonl", row, times=32)}})), says)


@pytest.mark.parametrize(
    "answer",
    ["4", "1,081", "x = 3", "0.5", "$5$", "\\frac{1}{2}", "\\boxed{Paris}", "(1, 2)", "3\\sqrt{2}", "-7", "50\\%", "2e"],
)
def test_answers_that_can_be_matched(answer: str) -> None:
    assert answer_problem(answer, "q") is None


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ("47 * 23 = 1081", "equation"),
        ("The answer is one thousand", "prose"),
        ("a\nb", "several lines"),
        ("50%", "write 50\\%"),
        ("1e-3", "write 0.001"),
        ("-1.5E6", "write -1500000"),
        ("6.02e23", "write 6.02 \\times 10^{23}"),
        ("Paris", "boxed"),
        ("A", "boxed"),
    ],
)
def test_answers_that_hardly_match(answer: str, says: str) -> None:
    assert says in (answer_problem(answer, "What is it?") or "")
    row = {"input": "q", "output": answer, "ground_truth": answer}
    assert all(message.startswith(WARNING) for message in TARGET.kinds["grpo"].check(row))


def test_a_prompt_that_asks_for_a_box_may_have_words() -> None:
    assert answer_problem("Paris", "Put it into \\boxed{}.") is None


# 4, 6: template and processor


def test_sft_inherits_a_template_without_tools(place: Place) -> None:
    values = sft(place, CALLS)
    del values["policy"]
    expect(place.check("sft", values), "no tools and no calls")
    values = sft(place)  # without any tools it is no more than another template
    del values["policy"]
    expect(place.check("sft", values), "not the model's; set it to default", "warning")


def test_a_null_template(place: Place) -> None:
    expect(place.check("sft", sft(place, policy={"tokenizer": {"chat_template": None}})), "null joins")


def test_the_parents_tokenizer_is_of_another_model(place: Place) -> None:
    expect(place.check("dpo", dpo(place, GOOD["dpo"], policy={"model_name": "other"})), "the parent's 'base'")


@pytest.mark.parametrize(
    ("model", "level"),
    [("nvidia/NVIDIA-Nemotron-3-Base", "warning"), ("/models/mine", "warning"), ("Qwen/Qwen2.5-1.5B", "error")],
)
def test_the_parents_tokenizer_may_be_of_the_same_family(place: Place, model: str, level: str) -> None:
    base = merge(PARENTS["dpo"], {"policy": {"tokenizer": {"name": "nvidia/NVIDIA-Nemotron-3-Instruct"}}})
    (place.root / "configs" / "dpo.yaml").write_text(yaml.safe_dump(base))
    values = dpo(place, GOOD["dpo"], policy={"model_name": model})
    expect(place.check("dpo", values), "the parent's 'nvidia/NVIDIA-Nemotron-3-Instruct'", level)


def test_the_processor(place: Place) -> None:
    values = sft(place)
    del values["data"]["train"]["processor"]
    expect(place.check("sft", values), "TypeError add_bos")
    expect(place.check("sft", sft(place, data={"train": {"processor": "math_hf_data_processor"}})), "does not fit")


# 5: rows that are read line by line, with their own schemas


def test_tools_without_the_preserving_data_set(place: Place) -> None:
    expect(place.check("sft", sft(place, CALLS, data={"train": {"use_preserving_dataset": False}})), "nulls")


def test_blank_lines_and_broken_ones(place: Place) -> None:
    path = place.rows("x.jsonl", GOOD["sft"], times=32, text="\n\n")
    expect(place.check("sft", sft(place, data={"train": {"data_path": path}})), "x.jsonl:33: a blank line")
    path = place.rows("y.jsonl", GOOD["sft"], text='{"messages": \n')
    expect(place.check("sft", sft(place, data={"train": {"data_path": path}})), "y.jsonl:2: not JSON")
    path = place.rows("z.jsonl", GOOD["nemo-gym"], times=32, text="\n")
    expect(place.check("nemo-gym", gym(place, data={"train": {"data_path": path}})), "a blank line")


def test_of_rows_of_megabytes_a_few_are_looked_at(place: Place) -> None:
    long = {**GOOD["sft"], "note": "x" * (3 << 20)}

    def said(times: int) -> bool:
        path = place.rows("x.jsonl", long, times=times, text="no JSON\n")
        found = place.check("sft", sft(place, data={"train": {"data_path": path}}))
        return any("not JSON" in one.message for one in found)

    assert said(2)
    assert not said(3)


def test_parquet_is_read_by_the_classes_that_use_datasets(place: Place) -> None:
    path = place.rows("train.parquet", text="PAR1")
    expect(place.check("sft", sft(place, data={"train": {"data_path": path}})), "openai_format reads JSON Lines: it fails")
    expect(place.check("nemo-gym", gym(place, data={"train": {"data_path": path}})), "NemoGymDataset reads JSON Lines")
    assert not any("reads JSON" in str(one) for one in place.check("grpo", grpo(place, data={"train": {"data_path": path}})))


def test_rows_of_parquet_are_counted_and_looked_at(place: Place) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = place.data / "train.parquet"

    def check(*rows: Json) -> list[Problem]:
        parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
        return place.check("grpo", grpo(place, data={"train": {"data_path": str(path)}}))

    assert check(*[GOOD["grpo"]] * 32) == []
    expect(check(*[GOOD["grpo"]] * 8), "32, and there are 8 rows")
    expect(check(*[{"input": "2+2?", "output": 4}] * 32), "train.parquet:1: 'output' is a whole number")
    long = {"input": "word " * 1000, "output": "4"}
    expect(check(*[GOOD["grpo"]] * 300, long), "train.parquet has rows of about 12", "warning")


@pytest.mark.parametrize("name", ["openai_format", "PreferenceDatset", "gsm8k", "ResponseDataset"])
def test_preference_data_has_data_sets_of_its_own(place: Place, name: str) -> None:
    found = place.check("dpo-messages", dpo(place, GOOD["dpo-messages"], name))
    expect(found, f"{name!r} is no data set of preference data (ValueError: Unsupported dataset_name)")


@pytest.mark.parametrize(
    ("name", "says"),
    [("openai_fromat", "did you mean openai_format?"), ("BinaryPreferenceDataset", "is no data set of responses")],
)
def test_a_data_set_that_nemo_rl_does_not_know(place: Place, name: str, says: str) -> None:
    expect(place.check("sft", sft(place, kind=name)), says)


def test_a_data_set_of_ones_own(place: Place) -> None:
    assert not any("is no data set" in str(one) for one in place.check("sft", sft(place, kind="mine.of.MyData")))
    (place.root / "old.yaml").write_text(f"# NeMo RL 0.6, sft\n{yaml.safe_dump(sft(place, kind='mine.of.MyData'))}")
    expect(list(TARGET.check_config("sft", place.root / "old.yaml")), "'mine.of.MyData' is no data set of responses")


def test_openai_format_does_not_split(place: Place) -> None:
    expect(place.check("sft", sft(place, data={"train": {"split_validation_size": 0.1}})), "does not split", "warning")


@pytest.mark.parametrize("name", ["OpenMathInstruct-2", "NuminaMath-1.5", "tulu3_sft_mixture", "mine.data.Set"])
def test_of_other_data_sets_nobody_says_that_they_do_not_split(place: Place, name: str) -> None:
    entry = {"dataset_name": name, "data_path": None, "split_validation_size": 0.1}
    assert not any("does not split" in str(one) for one in place.check("grpo", grpo(place, data={"train": entry})))


# 7, 8, 15: paths


@pytest.mark.parametrize(
    ("path", "says", "level"),
    [
        ("./x.jsonl", "IndexError", "error"),
        ("../x.jsonl", "IndexError", "error"),
        ("data/x.jsonl", "where NeMo RL is started", "warning"),
        ("/nowhere/x.jsonl", "is not there", "error"),
        ("org/name", "Hugging Face hub", "warning"),
    ],
)
def test_paths(place: Place, path: str, says: str, level: str) -> None:
    expect(place.check("grpo", grpo(place, data={"train": {"data_path": path}})), says, level)


def test_an_empty_file(place: Place) -> None:
    expect(place.check("grpo", grpo(place, data={"train": {"data_path": place.rows("x.jsonl")}})), "StopIteration")


def test_task_names_collide(place: Place) -> None:
    entries = [
        {"dataset_name": "ResponseDataset", "data_path": place.rows(name, GOOD["grpo"], times=32), "env_name": env}
        for name, env in (("train.math.jsonl", "math"), ("train.code.jsonl", "code"))
    ]
    values = grpo(place, env={"code": {}})
    values["data"]["train"] = entries
    expect(place.check("grpo", values), "'data-train'")


# 9, 10, 15: columns and messages


def test_a_task_name_column(place: Place) -> None:
    row = GOOD["sft"] | {"task_name": "x"}
    expect(place.check("sft-simple", sft(place, row, kind="ResponseDataset")), "task_name")
    expect(
        place.check("dpo-messages", dpo(place, GOOD["dpo-messages"] | {"task_name": "x"}, "PreferenceDataset")), "task_name"
    )


@pytest.mark.parametrize(
    ("kind", "row", "says"),
    [
        ("sft", {"messages": GOOD["sft"]["messages"][:1]}, "the last message must be the assistant's"),
        ("sft", {"messages": []}, "list of messages"),
        ("sft", {"messages": [*GOOD["sft"]["messages"][:1], {"role": "assistant", "content": ""}]}, "say nothing"),
        ("sft", {"messages": [{"content": "x"}, GOOD["sft"]["messages"][1]]}, "no role"),
        ("sft", CALLS | {"tools": "f"}, "list of objects"),
        ("sft", {"messages": CALLS["messages"]}, "was not told of"),
        ("sft", {"messages": [{"role": "assistant", "content": None}]}, "no content"),
        (
            "sft",
            {"messages": [{"role": "assistant", "content": "", "tool_calls": [{"name": "f", "arguments": {}}]}]},
            "flat calls",
        ),
        (
            "sft",
            {
                "messages": [
                    {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}
                ]
            },
            "it is not JSON",
        ),
        (
            "sft",
            {"messages": [{"role": "tool", "tool_call_id": "z", "content": ""}, CALLS["messages"][3]]},
            "answers no call before it",
        ),
        ("sft", {"messages": [{"role": "developer", "content": "x"}, CALLS["messages"][3]]}, "developer"),
        ("sft", {"messages": [{"role": "assistant", "content": "x", "reasoning_content": "y"}]}, "reasoning"),
        (
            "sft",
            {"messages": [{"role": "assistant", "content": "", "function_call": {"name": "f", "arguments": "{}"}}]},
            "write it into tool_calls",
        ),
        (
            "sft",
            {"messages": [{"role": "function", "name": "f", "content": "1"}, CALLS["messages"][3]]},
            "templates know tool",
        ),
        ("sft-simple", {"input": "x", "output": 3}, "must be a text"),
        ("dpo", GOOD["dpo"] | {"chosen": [{"role": "assistant", "content": "x"}]}, "is a list"),
        ("dpo", GOOD["dpo"] | {"rejected": "hello"}, "the same"),
        ("dpo", GOOD["dpo"] | {"prompt": 3}, "'prompt' is a whole number"),
        ("dpo", GOOD["dpo"] | {"chosen": ""}, "is empty"),
        ("dpo", GOOD["dpo"] | {"tools": CALLS["tools"]}, "never passed"),
        ("dpo-messages", GOOD["dpo-messages"] | {"context": "hi"}, "list of messages"),
        ("dpo-messages", GOOD["dpo-messages"] | {"completions": GOOD["dpo-messages"]["completions"][:1]}, "exactly two"),
        (
            "dpo-messages",
            GOOD["dpo-messages"] | {"completions": [one | {"rank": 1} for one in GOOD["dpo-messages"]["completions"]]},
            "ties",
        ),
        (
            "dpo-messages",
            GOOD["dpo-messages"] | {"completions": [one | {"rank": "0"} for one in GOOD["dpo-messages"]["completions"]]},
            "numbers are compared",
        ),
        ("nemo-gym", {"responses_create_params": {"input": "x"}}, "agent_ref.name"),
        ("nemo-gym", {"agent_ref": {"name": "x"}}, "responses_create_params"),
        ("nemo-gym", GOOD["nemo-gym"] | {"reward": 1.0, "response": {}}, "of an earlier attempt"),
        (
            "nemo-gym",
            {"responses_create_params": {"input": "x"}, "agent_ref": {"name": "x"}, "num_correct": 1},
            "verdict leaves",
        ),
        ("nemo-gym", {"responses_create_params": {"input": "x"}, "agent_ref": {"name": "x"}}, "the row has nothing"),
    ],
)
def test_rows(kind: str, row: Json, says: str) -> None:
    found = list(TARGET.kinds[kind].check(row))
    assert any(says in message for message in found), found


def test_ranks_may_be_fractions() -> None:
    better, worse = GOOD["dpo-messages"]["completions"]
    row = GOOD["dpo-messages"] | {"completions": [better | {"rank": 0.5}, worse]}
    assert list(TARGET.kinds["dpo-messages"].check(row)) == []


@pytest.mark.parametrize("kind", TARGET.kinds)
@pytest.mark.parametrize("value", [None, 3, "x", [], [3], {}, {"role": 3}])
def test_rows_of_anything(kind: str, value: Any) -> None:
    """No value anywhere makes a check fail itself."""
    check = TARGET.kinds[kind].check
    assert list(check({}))
    for key in (
        "input",
        "output",
        "messages",
        "tools",
        "prompt",
        "chosen",
        "rejected",
        "context",
        "completions",
        "agent_ref",
    ):
        list(check({key: value}))
        list(check({"messages": [{"role": "assistant", key: value, "tool_calls": value}]}))
        list(check({"context": value, "completions": [value, {"rank": value, "completion": value}]}))


# 11, 12, 13, 14: numbers, validation, what is inherited


def test_a_batch_larger_than_the_data(place: Place) -> None:
    path = place.rows("x.jsonl", GOOD["grpo"], times=31)
    expect(place.check("grpo", grpo(place, data={"train": {"data_path": path}})), "no step is made")
    path = place.rows("y.jsonl", GOOD["sft"], times=31)
    expect(place.check("sft", sft(place, data={"train": {"data_path": path}})), "no step is made")


def test_batches_that_do_not_divide(place: Place) -> None:
    expect(place.check("sft", sft(place, cluster={"gpus_per_node": 5})), "cannot be shared by 5 GPUs")
    expect(place.check("sft", sft(place, policy={"train_micro_batch_size": 5})), "does not divide")
    expect(place.check("grpo", grpo(place, policy={"train_global_batch_size": 300})), "set it to 512")
    loose = {"sequence_packing": {"enabled": False}, "train_micro_batch_size": 1, "logprob_batch_size": 5}
    expect(place.check("grpo", grpo(place, policy=loose)), "5 does not divide 512")
    assert place.check("grpo", grpo(place, policy=loose | {"logprob_batch_size": 4})) == []


@pytest.mark.parametrize(
    ("kind", "over", "says"),
    [
        ("sft", {}, "cannot be shared by 16 GPUs"),
        ("sft", {"dtensor_cfg": {"tensor_parallel_size": 8}}, None),
        ("sft", {"dtensor_cfg": {"tensor_parallel_size": 4, "context_parallel_size": 2}}, None),
        ("sft", {"dtensor_cfg": {"tensor_parallel_size": 2}}, "shared by 8 groups of 2 GPUs"),
        (
            "sft",
            {"dtensor_cfg": {"tensor_parallel_size": 8}, "train_micro_batch_size": 4},
            "4 does not divide 2, the rows of",
        ),
        ("sft", {"dtensor_cfg": {"tensor_parallel_size": "${div:16,2}"}}, None),
        ("sft", {"dtensor_cfg": {"tensor_parallel_size": None}}, None),
        (
            "sft",
            {
                "megatron_cfg": {
                    "enabled": True,
                    "tensor_model_parallel_size": 2,
                    "pipeline_model_parallel_size": 2,
                    "context_parallel_size": 1,
                }
            },
            None,
        ),
        ("sft", {"generation": {"colocated": {"enabled": False, "resources": {"num_nodes": 1}}}}, "shared by 16 GPUs"),
        ("dpo", {}, "shared by 16 GPUs"),
        ("dpo", {"dtensor_cfg": {"tensor_parallel_size": 4}, "train_micro_batch_size": 1}, None),
    ],
)
def test_a_batch_is_shared_by_the_copies_of_the_model(place: Place, kind: str, over: Json, says: str | None) -> None:
    made = sft(place) if kind == "sft" else dpo(place, GOOD["dpo"])
    sizes = {"policy": {"train_global_batch_size": 4, **over}, "cluster": {"gpus_per_node": 8, "num_nodes": 2}}
    found = [one for one in place.check(kind, merge(made, sizes)) if "train_global" in str(one) or "train_micro" in str(one)]
    if says:
        expect(found, says)
    else:
        assert found == []


@pytest.mark.parametrize("key", ["sequence_packing", "dynamic_batching"])
def test_preference_data_are_not_packed(place: Place, key: str) -> None:
    expect(place.check("dpo", dpo(place, GOOD["dpo"], policy={key: {"enabled": True}})), "refuses it for DPO")
    assert place.check("dpo", dpo(place, GOOD["dpo"], policy={key: {"enabled": False}})) == []


@pytest.mark.parametrize(
    ("nodes", "resources", "says"),
    [
        (1, {"gpus_per_node": 4}, None),
        (1, {"gpus_per_node": 3}, "shared by 5 GPUs"),
        (3, {"num_nodes": 1, "gpus_per_node": 8}, None),
        (4, {"num_nodes": 1, "gpus_per_node": 8}, "shared by 24 GPUs"),
        (5, {"num_nodes": None}, None),
    ],
)
def test_gpus_that_only_generate_have_no_share(place: Place, nodes: int, resources: Json, says: str | None) -> None:
    policy = {"generation": {"colocated": {"enabled": False, "resources": resources}}}
    found = place.check("grpo", grpo(place, policy=policy, cluster={"gpus_per_node": 8, "num_nodes": nodes}))
    if says:
        expect(found, says)
    else:
        assert found == []


def test_a_reward_model_or_an_unknown_parent_leaves_the_shares_unknown(place: Place) -> None:
    values = grpo(place, cluster={"gpus_per_node": 5}, env={"reward_model": {"enabled": True}})
    assert place.check("grpo", values) == []
    values = sft(place, cluster={"gpus_per_node": 5}) | {"defaults": "${oc.env:A_HOME_THAT_NOBODY_SETS}/configs/sft.yaml"}
    values["policy"]["train_global_batch_size"] = 32
    assert not any("shared" in str(one) for one in place.check("sft", values))


def test_the_parents_steps_end_early(place: Place) -> None:
    path = place.rows("x.jsonl", GOOD["sft"], times=32 * 61)
    expect(place.check("sft", sft(place, data={"train": {"data_path": path}})), "the parent's 60 stop", "warning")


def test_long_rows_are_masked(place: Place) -> None:
    row = {"messages": [{"role": "user", "content": "x" * 6000}, {"role": "assistant", "content": "y"}]}
    expect(place.check("sft", sft(place, row)), "masks them", "warning")


def test_validation_without_data(place: Place) -> None:
    expect(place.check("grpo", grpo(place, grpo={"val_period": 10})), "AssertionError")
    expect(place.check("sft", sft(place, sft={"val_at_start": True})), "AssertionError")
    expect(place.check("dpo", dpo(place, GOOD["dpo"], dpo={"val_period": 25})), "nothing is validated", "warning")
    never = grpo(place, checkpointing={"metric_name": "val:accuracy"})
    expect(place.check("grpo", never), "never measured", "warning")
    assert place.check("grpo", merge(never, {"checkpointing": {"enabled": False}})) == []
    expect(place.check("grpo", grpo(place, checkpointing={"metric_name": "accuracy"})), "must begin with")


def test_what_is_inherited_without_override(place: Place) -> None:
    values = grpo(place)
    del values["data"]["_override_"]
    found = place.check("grpo", values)
    expect(found, "train.split_validation_size, default.prompt_file", "warning")
    expect(found, "wraps every prompt", "warning")


def test_what_a_list_or_a_null_takes_the_place_of_is_not_inherited(place: Place) -> None:
    values = grpo(place)
    del values["data"]["_override_"]
    values["data"]["train"] = [values["data"]["train"]]
    values["data"]["default"] = {"prompt_file": None, "env_name": "math"}
    assert place.check("grpo", values) == []
    values = sft(place, GOOD["sft"])
    del values["data"]["_override_"]
    values["data"] |= {"train": {**values["data"]["train"], "split": None}, "validation": None}
    assert place.check("sft", values) == []


def test_a_parents_data_set_trained_instead_of_the_file(place: Place) -> None:
    values = grpo(place)
    del values["data"]["_override_"]
    values["data"]["default"] = {"dataset_name": values["data"]["train"].pop("dataset_name")}
    expect(place.check("grpo", values), "'OpenMathInstruct-2' is the parent's, and is trained instead of")
    values["data"]["_override_"] = True
    assert place.check("grpo", values) == []


@pytest.mark.parametrize("where", ["train", "default"])
@pytest.mark.parametrize(
    ("kind", "row", "keys"),
    [
        ("grpo", {"input": "q", "output": "The sum is 4, I think.", "ground_truth": "4"}, {"output_key": "ground_truth"}),
        ("grpo", {"question": "q", "answer": "4"}, {"input_key": "question", "output_key": "answer"}),
        ("sft", {"chat": GOOD["sft"]["messages"]}, {"chat_key": "chat"}),
        ("sft", GOOD["sft"], {"tool_key": None}),
        ("dpo", {"q": "?", "good": "a", "bad": "b"}, {"prompt_key": "q", "chosen_key": "good", "rejected_key": "bad"}),
    ],
)
def test_fields_are_read_under_the_names_that_the_configuration_gives(
    place: Place, kind: str, row: Json, keys: Json, where: str
) -> None:
    made = {"grpo": grpo, "sft": sft}.get(kind, lambda place: dpo(place, row))
    values = merge(made(place), {"data": {where: keys}})
    rows = [
        {key: f"{value}{number}" if key in ("input", "q") else value for key, value in row.items()} for number in range(2)
    ]
    data = place.rows("train.jsonl", *rows, times=64)
    path = place.root / "config.yaml"
    path.write_text(yaml.safe_dump(values))
    found = check_files([data], TARGET, kind, path)
    assert [problem for problem in found.problems if problem.level == "error"] == []
    prompts = 2 if {"input", "q"} & row.keys() else 1
    assert found.files[data]["distinct_prompts"] == prompts


@pytest.mark.parametrize("key", ["chat_key", "tool_key"])
def test_a_name_of_a_field_that_is_none(place: Place, key: str) -> None:
    values = sft(place, CALLS, data={"train": {key: ["messages"]}})
    path = place.root / "config.yaml"
    path.write_text(yaml.safe_dump(values))
    found = check_files([values["data"]["train"]["data_path"]], TARGET, "sft", path)
    expect(found.problems, f"data.train.{key}: ['messages'] is no name of a field")


@pytest.mark.parametrize(("answer", "truth"), [("3", 3.0), ("3", 3), ("1081", "1,081"), (" 4", "4")])
def test_the_same_answer_written_twice(answer: str, truth: Any) -> None:
    assert list(TARGET.kinds["grpo"].check({"input": "q", "output": answer, "ground_truth": truth})) == []
    assert any(
        "drops ground_truth" in one for one in TARGET.kinds["grpo"].check({"input": "q", "output": "5", "ground_truth": 3.0})
    )


def test_several_tasks_in_one_file(place: Place) -> None:
    rows = [{**GOOD["grpo"], "task_name": name} for name in ("math", "code", "math")]
    found = check_files([place.rows("train.jsonl", *rows)], TARGET, "grpo")
    expect(found.problems, "some rows are of task_name 'math', others of task_name 'code'", "warning")
    assert not any(
        "task_name" in one.message for one in check_files([place.rows("a.jsonl", rows[0])], TARGET, "grpo").problems
    )


def test_a_result_without_the_id_of_its_call() -> None:
    turns = [*CALLS["messages"][:2], {"role": "tool", "content": "1"}, CALLS["messages"][3]]
    said = [one for one in TARGET.kinds["sft"].check({**CALLS, "messages": turns}) if "messages[2]" in one]
    assert said == ["warning: messages[2] has no tool_call_id: nothing says which call it answers"]


def test_environments_must_be_defined(place: Place) -> None:
    expect(place.check("grpo", grpo(place, data={"train": {"env_name": "maths"}})), "env.maths is not defined")
    expect(place.check("grpo", grpo(place, data={"default": {"env_name": "code"}})), "env.code is not defined")
    expect(
        place.check("grpo", grpo(place, data={"train": {"env_name": "mine"}}, env={"mine": {}})), "register_env", "warning"
    )
    values = grpo(place)
    del values["data"]["train"]["env_name"]
    expect(place.check("grpo", values), "no environment")


@pytest.mark.parametrize("key", ["max_input_seq_length", "shuffle", "num_workers", "use_multiple_dataloader", "add_bos"])
def test_keys_that_are_read_without_asking(place: Place, key: str) -> None:
    kind, values = ("sft", sft(place)) if key == "add_bos" else ("grpo", grpo(place))
    del values["data"][key]
    expect(place.check(kind, values), f"KeyError {key!r}")
    del values["data"]["_override_"]  # the parent has it
    assert not any("KeyError" in problem.message for problem in place.check(kind, values))


def test_sections_that_nobody_wrote(place: Place) -> None:
    values = {"data": grpo(place)["data"], "grpo": {"val_period": 0}}
    expect(place.check("grpo", values), "no section loss_fn, env, policy, logger, cluster, checkpointing")
    elsewhere = values | {"defaults": "/elsewhere/RL/examples/configs/grpo_math_1B.yaml"}
    assert not any("no section" in problem.message for problem in place.check("grpo", elsewhere))


def test_a_mark_within_a_section_drops_nothing(place: Place) -> None:
    found = place.check("grpo", grpo(place, data={"train": {"_override_": True}}))
    expect(found, "data.train._override_: it drops nothing here", "warning")


@pytest.mark.parametrize(
    ("over", "said"),
    [
        ({"data": {"train": {"input_keys": "q"}}}, "data.train.input_keys: ResponseDataset does not read it"),
        ({"data": {"train": {"chat_key": "m"}}}, "it reads input_key, output_key"),
        ({"grpo": {"num_prompt_per_step": 8}}, "did you mean num_prompts_per_step?"),
        ({"policy": {"train_global_batchsize": 8}}, "did you mean train_global_batch_size?"),
    ],
)
def test_keys_that_nobody_reads(place: Place, over: Json, said: str) -> None:
    expect(place.check("grpo", grpo(place, **over)), said, "warning")


def test_keys_that_the_parent_lacks_and_are_no_slips(place: Place) -> None:
    over: Json = {"grpo": {"num_val_generations_per_prompt": 4}, "policy": {"optimizer": {"name": "adam"}}}
    assert place.check("grpo", grpo(place, **over)) == []


def test_a_loader_for_each_data_set(place: Place) -> None:
    more = {"num_prompts_per_dataloader": 8, "custom_dataloader": "a.b"}
    on = {"use_multiple_dataloader": True}
    expect(place.check("grpo", grpo(place, data=on)), "KeyError 'num_prompts_per_dataloader'")
    assert place.check("grpo", grpo(place, data=on | more)) == []
    expect(place.check("grpo", grpo(place, data=on | more, grpo={"async_grpo": {"enabled": True}})), "NotImplementedError")
    expect(place.check("sft", sft(place, data=on | more)), "only GRPO")


def test_validation_data_of_pairs(place: Place) -> None:
    other = place.rows("val.jsonl", GOOD["dpo-messages"])
    assert place.check("dpo", dpo(place, GOOD["dpo"], data={"val_data_paths": {"mine": other}})) == []
    found = place.check(
        "dpo", dpo(place, GOOD["dpo"], data={"val_data_paths": {"mine": place.rows("v.jsonl", GOOD["dpo"])}})
    )
    expect(found, "data.val_data_paths.mine")
    expect(found, "read as PreferenceDataset, whatever is trained on")
    entry = {"dataset_name": "PreferenceDataset", "data_path": other}
    expect(place.check("dpo", dpo(place, GOOD["dpo"], data={"validation": [entry]})), "not a list")
    both = {"validation": entry, "val_data_paths": {"mine": other}}
    expect(place.check("dpo", dpo(place, GOOD["dpo"], data=both)), "not read beside val_data_paths", "warning")


def test_a_system_prompt_that_is_not_there(place: Place) -> None:
    file = place.root / "system.txt"
    values = grpo(place, data={"train": {"system_prompt_file": str(file)}})
    expect(place.check("grpo", values), "data.train.system_prompt_file")
    file.write_text("Answer as {json}.")  # no format string
    assert place.check("grpo", values) == []


def test_a_prompt_file_with_braces(place: Place) -> None:
    file = place.root / "p.txt"
    file.write_text("Answer as {json}: {}")
    expect(place.check("grpo", grpo(place, data={"train": {"prompt_file": str(file)}})), "format string")
    file.write_text("Answer as {{json}}: {}")
    assert place.check("grpo", grpo(place, data={"train": {"prompt_file": str(file)}})) == []


def test_the_loggers_names(place: Place) -> None:
    values = sft(place)
    values["data"]["train"] = [values["data"]["train"]]
    expect(place.check("sft", values), "a list has not")
    values = sft(place)
    name = values["data"]["train"].pop("dataset_name")
    values["data"]["default"] = {"dataset_name": name}
    expect(place.check("sft", values), "InterpolationKeyError")


def test_data_sets_by_name(place: Place) -> None:
    expect(place.check("grpo", grpo(place, data={"train": {"data_path": None}})), "needs data_path")
    expect(place.check("grpo", grpo(place, data={"train": {"dataset_name": None}})), "no dataset_name")
    expect(place.check("grpo", grpo(place, data={"train": {"dataset_name": "squad"}})), "not read by it", "warning")
    values = dpo(place, GOOD["dpo"])
    values["data"]["train"] = [values["data"]["train"]]
    expect(place.check("dpo", values), "not a list")


# 16: NeMo Gym


@pytest.mark.parametrize(
    ("over", "says", "level"),
    [
        ({"grpo": {"max_val_samples": 256}}, "ValueError", "error"),
        ({"data": {"max_input_seq_length": 512}}, "not used", "warning"),
        ({"env": {"should_use_nemo_gym": False}}, "must be true", "error"),
        ({"env": {"nemo_gym": {"config_paths": []}}}, "no gym is named", "error"),
        ({"env": {"nemo_gym": {"config_paths": ["vllm_model.yaml"]}}}, "no token ids", "error"),
        ({"policy": {"generation": {"vllm_cfg": {"async_engine": False}}}}, "async_engine", "warning"),
    ],
)
def test_nemo_gym(place: Place, over: Json, says: str, level: str) -> None:
    expect(place.check("nemo-gym", gym(place, **over)), says, level)


# Whatever the file holds, the check itself does not fail


def places_in(values: Json, before: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = []
    for key, value in values.items():
        found.append((*before, key))
        if isinstance(value, dict):
            found += places_in(value, (*before, key))
    return found


@pytest.mark.parametrize(
    "weird", [None, 3, "x", "${a.b}", [], ["x"], [[1]], {}, {"a": 1}, True, 0, -1, "/", {"_override_": True}]
)
def test_anything_anywhere(place: Place, weird: Any) -> None:
    flat = {"dataset_name": "openai_format", "train_data_path": "/x.jsonl", "val_data_path": "x"}
    whole = [
        ("grpo", merge(PARENTS["grpo_math_1B"], grpo(place))),
        ("nemo-gym", merge(PARENTS["grpo_math_1B"], gym(place))),
        ("sft", merge(PARENTS["sft"], sft(place))),
        ("sft", {"data": flat}),
        ("dpo", merge(PARENTS["dpo"], dpo(place, GOOD["dpo"]))),
    ]
    for kind, values in whole:
        for path in places_in(values):
            over: Any = weird
            for key in reversed(path[1:]):
                over = {key: over}
            changed = merge(values, {path[0]: over})
            if len(path) == 1 or isinstance(weird, dict):
                changed = {**values, path[0]: over} if len(path) == 1 else changed
            place.check(kind, changed)
