"""The verl target: rows, launch script, reward function, tools; and verl's own classes on what was written."""

from __future__ import annotations

import asyncio
import copy
import inspect
import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from rollforge.errors import UserError
from rollforge.export.check import check_files
from rollforge.export.pieces.matcher import answer, score
from rollforge.export.run import export_rollouts
from rollforge.export.target import Refused, Settings
from rollforge.export.verl import TARGET
from rollforge.records.lossless import dumps
from rollforge.registry import resolve
from tests.export.samples_gym import CLOCK, WEATHER, demonstration, environment, made, pair, prompt, rollouts
from tests.export.toy import row as toy_row

GOLDEN = Path(__file__).parent / "golden" / "verl"
EXAMPLES = {
    "grpo": lambda: [prompt(), prompt(None, [WEATHER])],
    "sft": lambda: [demonstration(), demonstration(tools=False)],
    "rm": lambda: [pair()],
}


def module(text: str, folder: Path, name: str) -> Any:
    """A written Python file, imported as the frameworks import it: by its path."""
    import importlib.util

    path = folder / name
    path.write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec
    assert spec.loader
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


# Rows


@pytest.mark.parametrize("kind", EXAMPLES)
def test_rows_are_as_kept(kind: str) -> None:
    rows = [TARGET.kinds[kind].row(example, Settings()) for example in EXAMPLES[kind]()]
    assert rows == [json.loads(line) for line in (GOLDEN / f"{kind}.jsonl").read_text(encoding="utf-8").splitlines()]
    assert all(list(TARGET.kinds[kind].check(row)) == [] for row in rows)


def test_all_prompt_rows_have_the_same_keys_and_types() -> None:
    def shape(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: shape(inner) for key, inner in value.items()}
        return type(value).__name__

    first, second = (TARGET.kinds["grpo"].row(example, Settings()) for example in EXAMPLES["grpo"]())
    assert shape(first) == shape(second)
    assert (first["agent_name"], second["agent_name"]) == ("single_turn_agent", "tool_agent")
    assert second["extra_info"]["tool_selection"] == ["weather"]
    assert "tools" not in json.loads(first["extra_info"]["tools_kwargs"]["_row"]["create_kwargs"]["row"])
    task = json.loads(second["extra_info"]["tools_kwargs"]["_row"]["create_kwargs"]["row"])
    assert task["difficulty"] == "easy"
    assert task["responses_create_params"]["tools"][0]["name"] == "weather"


def test_what_plain_texts_cannot_hold_is_refused() -> None:
    with pytest.raises(Refused, match="the tools would be lost"):
        TARGET.kinds["rm"].row(pair(tools=True), Settings())


BROKEN = [
    ("grpo", {"prompt": "6 * 7?"}, "not a list of messages"),
    ("grpo", {"data_source": None}, "data_source is missing"),
    ("grpo", {"reward_model": {"style": "rule"}}, "ground_truth is missing"),
    ("grpo", {"reward_model": {"style": "rule", "ground_truth": ""}, "extra_info": {}}, "ground_truth is empty"),
    ("grpo", {"prompt": [{"role": "user"}]}, r"prompt\[0\] has no content"),
    ("grpo", {"extra_info": {"tools_kwargs": {"f": None}}}, "filled in by Arrow"),
    ("grpo", {"extra_info": {"tool_selection": ["f"]}, "agent_name": "single_turn_agent"}, "calls no tools"),
    ("grpo", {"tools": [{"type": "function"}]}, "verl reads no tools column here"),
    ("grpo", {"extra_info": {"tool_selection": ["f"]}, "agent_name": None}, "there is no agent_name: single_turn_agent"),
    ("grpo", {"extra_info": {"tools_kwargs": {"f": {"create_kwargs": {"a": None}}}}}, "create_kwargs.a is null"),
    ("sft", {"messages": None}, "not a list of messages"),
    ("sft", {"messages": [{"role": "user", "content": "hi"}]}, "nothing of this row is trained on"),
    ("sft", {"tools": "[]"}, "one of messages and tools is JSON text"),
    ("sft", {"tools": [{"type": "function", "function": {"parameters": {"properties": {"a": None}}}}]}, "null parameters"),
    ("rm", {"chosen": [{"role": "assistant"}]}, "chosen is list, not text"),
    ("rm", {"chosen": "41"}, "chosen and rejected are the same"),
]


@pytest.mark.parametrize(("kind", "change", "says"), BROKEN)
def test_a_wrong_row_is_told(kind: str, change: dict[str, Any], says: str) -> None:
    row = TARGET.kinds[kind].row(EXAMPLES[kind]()[0], Settings()) | change
    found = "\n".join(TARGET.kinds[kind].check(row))
    assert re.search(says, found), found


# Configuration


def overrides(command: str) -> dict[str, Any]:
    words = [word for word in shlex.split(command.replace("\\\n", " ")) if "=" in word and not word.startswith("-")]
    return {key: yaml.safe_load(value) for key, _, value in (word.partition("=") for word in words)}


def test_batches_are_no_larger_than_the_data_and_divide(tmp_path: Path) -> None:
    for rows, gpus in ((3, 1), (103, 1), (1000, 8), (70, 4)):
        values = overrides(TARGET.command(made("grpo", tmp_path, rows=rows, gpus=gpus)))
        prompts, mini = values["data.train_batch_size"], values["actor_rollout_ref.actor.ppo_mini_batch_size"]
        assert mini <= prompts <= rows
        assert prompts % mini == 0
        assert prompts * values["actor_rollout_ref.rollout.n"] % gpus == 0
        assert mini * values["actor_rollout_ref.rollout.n"] % gpus == 0
    with pytest.raises(UserError, match="use fewer GPUs"):
        TARGET.command(made("sft", tmp_path, rows=3, gpus=8))


def test_without_a_validation_file_verl_gets_the_training_file_and_never_validates(tmp_path: Path) -> None:
    whole = made("grpo", tmp_path)
    whole.data.pop()
    values = overrides(TARGET.command(whole))
    assert values["data.val_files"] == values["data.train_files"]
    assert (values["trainer.val_before_train"], values["trainer.test_freq"]) == (False, -1)


def test_keys_of_the_named_version(tmp_path: Path) -> None:
    assert "reward.custom_reward_function.path" in overrides(TARGET.command(made("grpo", tmp_path, version="0.9.1")))
    old = overrides(TARGET.command(made("grpo-parquet", tmp_path, version="0.6")))
    assert "custom_reward_function.path" in old
    with pytest.raises(UserError, match="Parquet only"):
        TARGET.command(made("grpo", tmp_path, version="0.6"))
    with pytest.raises(UserError, match=r"unknown version '1\.0'"):
        TARGET.command(made("grpo", tmp_path, version="1.0"))


def test_the_old_place_of_the_reward_is_right_for_the_release_that_has_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "launch.sh"
    script.write_text(TARGET.command(made("grpo-parquet", tmp_path, version="0.6")), encoding="utf-8")
    for release, said in (("0.6.1", False), ("0.7.1", True)):
        about = tmp_path / release / f"verl-{release}.dist-info"
        about.mkdir(parents=True)
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: verl\nVersion: {release}\n", encoding="utf-8")
        with monkeypatch.context() as patch:
            patch.syspath_prepend(str(about.parent))
            found = [problem.message for problem in TARGET.check_config("grpo-parquet", script)]
        assert any("since verl 0.7 it is" in message for message in found) is said


@pytest.mark.parametrize(("nodes", "name"), [(1, "launch.sh"), (2, "job.sh")])
def test_and_for_the_release_that_an_export_names(nodes: int, name: str, tmp_path: Path) -> None:
    script = tmp_path / name
    script.write_text(TARGET.files(made("grpo-parquet", tmp_path, version="0.6", nodes=nodes))[name])
    assert "custom_reward_function.path" in script.read_text()
    assert not [one for one in TARGET.check_config("grpo-parquet", script) if "since verl 0.7" in one.message]


def test_a_release_that_shows_all_tools_to_all_rows_is_told(tmp_path: Path) -> None:
    for version, says in (("0.7", "verl 0.7 shows all of them to every row"), ("0.8", "a row chooses its own")):
        files = TARGET.files(made("grpo", tmp_path, tools=[WEATHER, CLOCK], version=version))
        assert says in files["tool_config.yaml"]


def test_tools_need_their_environment(tmp_path: Path) -> None:
    files = TARGET.files(made("grpo", tmp_path, tools=[WEATHER, CLOCK]))
    assert set(files) == {"reward.py", "gym_tools.py", "tool_config.yaml", "launch.sh"}
    assert "have_variable GYM_URL" in files["launch.sh"]
    assert "have_variable GYM_URL" not in TARGET.files(made("grpo", tmp_path))["launch.sh"]
    given = yaml.safe_load(files["tool_config.yaml"])["tools"]
    assert [json.loads(one["config"]["schema"]) for one in given] == [WEATHER, CLOCK]
    assert "${" not in files["tool_config.yaml"].split("tools:")[1]  # OmegaConf would resolve it


@pytest.mark.parametrize("kind", ["grpo", "grpo-parquet", "sft", "rm"])
def test_what_is_written_passes_its_own_check(kind: str, tmp_path: Path) -> None:
    whole = made(kind, tmp_path, tools=[WEATHER, CLOCK], nodes=2)
    for name, text in TARGET.files(whole).items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        if name.endswith(".py"):
            compile(text, name, "exec")
    for data in whole.data:
        data.path.touch()
    for name in ("launch.sh", "job.sh", "tool_config.yaml"):
        if (tmp_path / name).exists() and kind != "sft":
            assert list(TARGET.check_config(kind, tmp_path / name)) == []


def test_a_data_source_that_verl_does_not_know(tmp_path: Path) -> None:
    row = {"data_source": "my_gym", "question": [{"role": "user", "content": "q"}], "reward_model": {"ground_truth": "1"}}
    file, script = tmp_path / "train.jsonl", tmp_path / "run.sh"

    def said(row: dict[str, Any], command: str) -> list[str]:
        file.write_text(json.dumps(row) + "\n")
        script.write_text(f"python3 -m verl.trainer.main_ppo {command}\n")
        found = check_files([file], TARGET, "grpo", script, load=False).problems
        return [one.message for one in found if one.file == str(file)]

    [unknown] = said(row, "data.prompt_key=question")
    assert "'my_gym' is none that verl scores itself: NotImplementedError" in unknown
    assert said({**row, "data_source": "openai/gsm8k"}, "data.prompt_key=question") == []
    assert said(row, "data.prompt_key=question reward.custom_reward_function.path=/r.py") == []
    assert any("there is no prompt" in one for one in said(row, "custom_reward_function.path=/r.py"))
    # Our own rows are judged by a reward function: a command that leaves it out is told so, one that only submits is not.
    task = {"tools_kwargs": {"_row": {"create_kwargs": {"row": "{}", "env": "my_gym"}}}}
    [left_out] = said({**row, "extra_info": task}, "data.prompt_key=question")
    assert "NotImplementedError without a reward function (reward.custom_reward_function.path=...)" in left_out
    script.write_text("sbatch job.sh\n")
    file.write_text(json.dumps({**row, "prompt": row["question"], "extra_info": task}) + "\n")
    assert check_files([file], TARGET, "grpo", script, load=False).problems == []


GIVEN = "actor_rollout_ref.rollout.multi_turn.enable=True actor_rollout_ref.rollout.multi_turn.function_tool_path=t.py"


@pytest.mark.parametrize(
    ("change", "options", "says"),
    [
        ({}, GIVEN, "there is no agent_name"),
        ({}, f"{GIVEN} actor_rollout_ref.rollout.agent.default_agent_loop=tool_agent", ""),
        ({"agent_name": "tool_agent"}, GIVEN, ""),
        ({"extra_info": {"tool_selection": ["f"]}}, "", "there is no agent_name"),
        ({"agent_name": "gym"}, "", "'gym' is no agent loop of verl's"),
        ({"agent_name": "gym"}, "actor_rollout_ref.rollout.agent.agent_loop_config_path=loops.yaml", ""),
        ({"agent_name": "gym"}, '"$@" $MORE', ""),
    ],
)
def test_agent_loops_of_rows_and_of_the_command(change: dict[str, Any], options: str, says: str, tmp_path: Path) -> None:
    row = {
        "data_source": "openai/gsm8k",
        "prompt": [{"role": "user", "content": "q"}],
        "reward_model": {"ground_truth": "1"},
    }
    file, script = tmp_path / "a.jsonl", tmp_path / "run.sh"
    file.write_text(json.dumps(row | change) + "\n")
    script.write_text(f"python3 -m verl.trainer.main_ppo {options}\n")
    said = [one.message for one in check_files([file], TARGET, "grpo", script, load=False).problems if one.file == str(file)]
    assert any(says in one for one in said) if says else said == []


def test_messages_as_text_need_a_class_that_decodes_them(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow.parquet")
    file = parquet("sft", EXAMPLES["sft"](), tmp_path / "train.parquet")
    script = tmp_path / "run.sh"

    def said(options: str) -> list[str]:
        script.write_text(f"python3 -m verl.trainer.main_ppo\ntorchrun -m verl.trainer.sft_trainer {options}\n")
        found = check_files([file], TARGET, "sft", script, load=False).problems
        return [one.message for one in found if one.file == str(file) and one.level == "error"]

    assert "messages is JSON text, and MultiTurnSFTDataset takes it as it is" in said("data.max_length=99")[0]
    assert said("data.custom_cls.path=gym.py data.custom_cls.name=A") == []
    assert said("$OPTIONS") == []


def test_a_script_of_verls_own_examples_needs_no_reward_function(tmp_path: Path) -> None:
    row = {
        "data_source": "openai/gsm8k",
        "prompt": [{"role": "user", "content": "q"}],
        "reward_model": {"ground_truth": "1"},
    }
    file, script = tmp_path / "a.jsonl", tmp_path / "run.sh"
    file.write_text(f"{json.dumps(row)}\n" * 64)
    script.write_text(f"{PPO} {ALL.replace(' reward.custom_reward_function.path=r.py', '')} $@\n")
    found = [one.message for one in check_files([file], TARGET, "grpo", script, load=False).problems]
    assert not [one for one in found if "reward" in one and "the same" not in one], found


WRONG = [
    ("python3 -m verl.trainer.main_ppo algorithm.adv_estimator=grpo data.train_files=/gone.parquet", "is not there"),
    ("python3 -m verl.trainer.main_ppo algorithm.adv_estimator=grpo data.train_files=a.parquet", "val_files is not set"),
    ("python3 -m verl.trainer.main_ppo algorithm.adv_estimator=grpo", "nothing to compare with"),
    (
        "python3 -m verl.trainer.main_ppo data.train_batch_size=100 actor_rollout_ref.actor.ppo_mini_batch_size=64",
        "does not",
    ),
    ("python3 -m verl.trainer.main_ppo custom_reward_function.path=r.py", "it is reward.custom_reward_function.path"),
    ("torchrun -m verl.trainer.sft_trainer data.train_files=/a.jsonl", "is not Parquet"),
    ("torchrun -m verl.trainer.sft_trainer model.partial_pretrain=a/b", "it is model.path"),
    ("python3 -m verl.trainer.main_ppo \\\n  actor_rollout_ref.rollout.multi_turn.enable=True", "sees no tools"),
]


@pytest.mark.parametrize(("command", "says"), WRONG)
def test_a_script_of_anybodys_is_checked(command: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "run.sh").write_text(f"set -x\n{command}\n", encoding="utf-8")
    kind = "sft" if "sft" in command else "grpo"
    assert any(says in found.message for found in TARGET.check_config(kind, tmp_path / "run.sh"))


def test_a_tool_configuration_is_checked(tmp_path: Path) -> None:
    tools = [{"class_name": "a.B", "config": {"type": "native"}, "tool_schema": one} for one in (CLOCK, WEATHER, WEATHER)]
    (tmp_path / "tools.yaml").write_text(yaml.safe_dump({"tools": tools}), encoding="utf-8")
    found = "\n".join(problem.message for problem in TARGET.check_config("grpo", tmp_path / "tools.yaml"))
    assert "parameter 'zone' of the tool 'clock' has no type" in found
    assert "parameter 'days' of the tool 'weather' loses items" in found
    assert "two tools are named 'weather'" in found


@pytest.mark.parametrize(
    ("function", "says"),
    [
        ({"name": ["a"]}, "tools[0].tool_schema names no function"),
        ("a", "tools[0].tool_schema names no function"),
        ({"name": "a", "description": "x", "parameters": "none"}, "the tool 'a' has no parameters.properties"),
        (
            {"name": "a", "description": "x", "parameters": {"properties": ["q"]}},
            "the tool 'a' has no parameters.properties",
        ),
        ({"name": "a", "description": "x", "parameters": None}, "the tool 'a' has no parameters.properties"),
        ({"name": "a", "description": "x"}, None),
    ],
)
def test_a_tool_that_verl_refuses_is_named(function: Any, says: str | None, tmp_path: Path) -> None:
    tool = {"class_name": "a.B", "config": {"type": "native"}, "tool_schema": {"type": "function", "function": function}}
    (tmp_path / "tools.yaml").write_text(yaml.safe_dump({"tools": [tool]}), encoding="utf-8")
    found = [problem.message for problem in TARGET.check_config("grpo", tmp_path / "tools.yaml")]
    assert [says in one for one in found if says] == [True] * bool(says)


def test_anything_anywhere_in_a_tool_configuration(tmp_path: Path) -> None:
    """Whatever the file holds, the check itself does not fail."""
    schema = json.dumps(WEATHER)
    whole = {"tools": [{"class_name": "a.B", "config": {"type": "native", "schema": schema}, "tool_schema": WEATHER}]}

    def places(value: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
        yield here
        for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
            yield from places(value[key], (*here, key))

    for place in list(places(whole))[1:]:
        for weird in (None, "x", -1, True, [], {}, [None], ["x"], {1: 2, "a": [3]}, "${a}", "{"):
            changed = copy.deepcopy(whole)
            holder: Any = changed
            for key in place[:-1]:
                holder = holder[key]
            holder[place[-1]] = weird
            (tmp_path / "tools.yaml").write_text(yaml.safe_dump(changed, sort_keys=False))
            assert all(found.message for found in TARGET.check_config("grpo", tmp_path / "tools.yaml"))


PPO = "python3 -m verl.trainer.main_ppo"
GIVEN = (
    "algorithm.adv_estimator=grpo data.train_files=a.jsonl data.val_files=a.jsonl data.train_batch_size=64 "
    "actor_rollout_ref.actor.ppo_mini_batch_size=64 reward.custom_reward_function.path=r.py"
)
ALL = f"{GIVEN} actor_rollout_ref.rollout.n=8"
RIGHT_SCRIPTS = [
    f"n=8\nDATA=({GIVEN})\n{PPO} actor_rollout_ref.rollout.n=$n ${{DATA[@]}} $@",
    f"{PPO} {GIVEN} actor_rollout_ref.rollout.n=${{N}} trainer.nnodes=$NODES",
    f"{PPO} {GIVEN} $MORE",
    f"{PPO} --config-path=$HOME/mine --config-name=mine",
    f"{PPO} --config-name=ppo_megatron_trainer {ALL} trainer.n_gpus_per_node=7 "
    "actor_rollout_ref.actor.megatron.pipeline_model_parallel_size=7",
    f"bash -c '{PPO} {ALL}' 2>&1 | tee log",
    "python3 -m verl.trainer.main_generation data.path=/gone.parquet",
    "python3 -m verl.experimental.vla.main_ppo data.train_batch_size=8",
]


@pytest.mark.parametrize("script", RIGHT_SCRIPTS)
def test_what_only_running_tells_is_no_finding(script: str, tmp_path: Path) -> None:
    (tmp_path / "run.sh").write_text(script, encoding="utf-8")
    assert list(TARGET.check_config("grpo", tmp_path / "run.sh")) == []


def test_the_trainer_that_is_gone_has_keys_of_its_own(tmp_path: Path) -> None:
    text = "torchrun -m verl.trainer.fsdp_sft_trainer model.partial_pretrain=a data.prompt_dict_keys=['question']"
    (tmp_path / "run.sh").write_text(text, encoding="utf-8")
    [found] = TARGET.check_config("sft", tmp_path / "run.sh")
    assert found.level == "warning"
    assert "verl.trainer.sft_trainer takes messages" in found.message


def test_the_reward_function_must_be_in_its_file(tmp_path: Path) -> None:
    reward, script = tmp_path / "r.py", tmp_path / "run.sh"
    reward.write_text("def compute_score(data_source, solution_str, ground_truth, extra_info=None): return 1.0\n")
    for name, says in ((" reward.custom_reward_function.name=score_it", ["score_it"]), ("", [])):
        script.write_text(f"{PPO} {ALL} reward.custom_reward_function.path={reward}{name}\n", encoding="utf-8")
        found = [one.message for one in TARGET.check_config("grpo", script)]
        assert [f"reward.custom_reward_function: {reward} has no {one}" for one in says] == [
            one.split(",")[0] for one in found
        ]


@pytest.mark.parametrize(
    ("options", "level", "says"),
    [
        ("data.train_batch_size=4096", "error", "data.train_batch_size is 4096, the data has 4 rows"),
        ("", "error", "data.train_batch_size is 1024 unless set, the data has 4 rows"),
        ("data.train_batch_size=4096 data.train_files=[train.jsonl,more.jsonl]", "warning", "is 4096, the data has 4 rows"),
        ("data.train_batch_size=$SIZE", None, ""),
        ("data.train_batch_size=2", None, ""),
        ("data.train_batch_size=2 data.max_prompt_length=100", "warning", "data.max_prompt_length is 100, and"),
    ],
)
def test_batches_and_lengths_are_held_against_the_data(options: str, level: str | None, says: str, tmp_path: Path) -> None:
    row = {"data_source": "a", "reward_model": {"ground_truth": "1"}, "extra_info": {"notes": "x" * 9000}}
    asked = [{"role": "user", "content": "word " * 300}]
    file, script = tmp_path / "train.jsonl", tmp_path / "run.sh"
    file.write_bytes(b"".join(dumps({**row, "prompt": asked, "id": at}) + b"\n" for at in range(4)))
    usual = "data.train_files=train.jsonl actor_rollout_ref.actor.ppo_mini_batch_size=2 data.max_prompt_length=1000"
    script.write_text(f"{PPO} {ALL.replace('data.train_batch_size=64', '')} {usual} {options}\n", encoding="utf-8")
    found = check_files([file], TARGET, "grpo", script, load=False).problems
    found = [
        one for one in found if one.file == str(script) and "divide" not in one.message and "divisible" not in one.message
    ]
    assert [one.level for one in found] == ([level] if level else [])
    assert all(says in one.message for one in found)


# The reward function

REPLIES = [
    (r"so \boxed{42}", "42", 1),
    (r"\boxed{41} no, \boxed{42}", "42", 1),
    (r"\boxed{4", "4", 0),
    ("The answer is 42.", "42.0", 1),
    ("**Answer:** 1,200", "1200", 1),
    ("it costs 42 dollars", "42", 1),
    ("42 is wrong\nit is 43", "42", 0),
    (r"\boxed{\frac{1}{2}}", "0.5", 1),
    (r"\boxed{1 2 3}", "3", 0),
    ("a\n\nAnswer: (B) Paris", "B", 1),
    ("I think A\nC", "A", 0),
    ("It is Paris.\nParis", "paris", 1),
    ("<think>42</think>no", "42", 0),
    ("<think>is it 42", "42", 0),
    ('42 <tool_call>{"name": "f"}</tool_call>', "42", 0),
    ("<tool_response>\n42\n</tool_response>\nassistant\nIt is 7", "42", 0),
    ("x <|im_end|>", "x", 1),
    ("", "", 0),
    ("anything", "", 0),
    ("4" * 5000, "4" * 5000, 1),
    (r"\boxed{" * 50_000, "5", 0),
    ("1," * 50_000, "5", 0),
    ("(B)", "B", 1),
    ("b", "B", 1),
    ("The answer is B.\n\nHope this helps!", "B", 1),
    ("Answer: A\nAnswer: B", "A", 0),
    ("12 apples", "12", 1),
    (r"\boxed{1/2}", "0.5", 1),
    (r"\fbox {7}", "7", 1),
    ("1e3", "1000", 1),
    ("it is 1.5e-2", "0.015", 1),
    ("x1e3", "1000", 0),
    ("42\n\nHope this helps!", "42", 1),
    ("42 or 43", "42", 0),
    ("The answer is:\n42", "42", 1),
    ("The answer is found so:\n6*7 = 42", "42", 1),
    ("The answer is 5\n#### 6", "6", 0),
    ("## Answer\nParis", "paris", 1),
    ("a b\nc d", "a b\nc d", 1),
]


@pytest.mark.parametrize(("reply", "expected", "reward"), REPLIES)
def test_the_matcher(reply: str, expected: str, reward: int) -> None:
    assert score(reply, expected) == reward


def test_all_frameworks_reward_alike(tmp_path: Path) -> None:
    texts = {
        "trl": resolve("export", "trl").files(made("grpo", tmp_path))["rewards.py"],
        "verl": TARGET.files(made("grpo", tmp_path))["reward.py"],
        "openrlhf": resolve("export", "openrlhf").files(made("grpo", tmp_path))["reward_func.py"],
    }
    for name, text in texts.items():
        assert inspect.getsource(score) in text, name
        assert inspect.getsource(answer) in text, name
    correct = module(texts["trl"], tmp_path, "rewards.py").correct
    for reply, expected, reward in REPLIES:
        assert correct([reply], [expected]) == [reward if expected else None]


def test_verl_06_gets_a_reward_function_that_it_need_not_await(tmp_path: Path) -> None:
    old = made("grpo-parquet", tmp_path, version="0.6")
    name = overrides(TARGET.command(old))["custom_reward_function.name"]
    reward = getattr(module(TARGET.files(old)["reward.py"], tmp_path, "reward.py"), name)
    assert [reward("math", reply, "42", {})["score"] for reply in ("It is 42", "It is 41")] == [1.0, 0.0]
    assert name not in TARGET.files(made("grpo-parquet", tmp_path))["reward.py"]


def test_the_reward_function_compares_or_asks_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = TARGET.files(made("grpo", tmp_path))["reward.py"]
    reward = module(text, tmp_path, "reward.py")
    right, wrong = (asyncio.run(reward.compute_score("math", reply, "42", {})) for reply in ("It is 42", "It is 41"))
    assert (right["score"], wrong["score"]) == (1.0, 0.0)
    assert right.keys() == wrong.keys()
    row = TARGET.kinds["grpo"].row(prompt(None), Settings())
    info = row["extra_info"]
    monkeypatch.delenv("GYM_URL", raising=False)
    with pytest.raises(ValueError, match="set GYM_URL"):
        asyncio.run(reward.compute_score("math", "0 calls", "", info))
    with pytest.raises(ValueError, match="write what its reward is"):
        asyncio.run(reward.compute_score("math", "0 calls", "", {}))
    with environment() as server:
        monkeypatch.setenv("GYM_URL", server.url)
        assert asyncio.run(reward.compute_score("math", "0 calls", "", info))["score"] == 1.0
        assert [path for path, _, _ in server.requests] == ["/seed_session", "/verify"]
        assert server.requests[1][1]["difficulty"] == "easy"
        assert server.requests[1][2] == "session=1"


# verl itself


@pytest.fixture
def verl() -> Any:
    return pytest.importorskip("verl")


def sft_classes() -> Any:
    """Some releases of transformers are too new for it."""
    pytest.importorskip("verl")
    return pytest.importorskip("verl.utils.dataset.multiturn_sft_dataset", exc_type=ImportError)


def parquet(kind: str, examples: list[Any], file: Path) -> Path:
    from rollforge.export.writer import _Parquet

    made_of = TARGET.kinds[kind]
    writer = _Parquet(file, made_of.columns or {})
    writer.write(b"\n".join(dumps(made_of.row(example, Settings())) for example in examples))
    writer.close()
    return file


@pytest.mark.trainers
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", ["grpo", "grpo-parquet"])
def test_rlhf_dataset_gives_rows_back_as_they_were(form: str, verl: Any, tmp_path: Path) -> None:
    from rollforge.export.verl.loader import dataset

    examples = EXAMPLES["grpo"]()
    rows = [TARGET.kinds[form].row(example, Settings()) for example in examples]
    if form == "grpo":
        file = tmp_path / "train.jsonl"
        file.write_bytes(b"".join(dumps(row) + b"\n" for row in rows))
    else:
        file = parquet(form, examples, tmp_path / "train.parquet")
    data = dataset(form, file, str(tmp_path / "cache"))
    assert len(data) == len(rows)
    for at, row in enumerate(rows):
        found = data[at]
        assert found["raw_prompt"] == row["prompt"]
        assert {key: found[key] for key in row} == row
        assert found["tools_kwargs"] == row["extra_info"]["tools_kwargs"]


@pytest.mark.trainers
@pytest.mark.filterwarnings("ignore")
def test_sft_keeps_tools_and_masks_all_but_the_assistant(tmp_path: Path) -> None:
    sft_classes()
    from rollforge.export.trial import byte_tokenizer
    from rollforge.export.verl.loader import dataset

    tokenizer = byte_tokenizer()
    file = parquet("sft", [demonstration(), demonstration(tools=False)], tmp_path / "train.parquet")
    data = dataset("sft", file, str(tmp_path), tokenizer)
    item = data[0]
    text = tokenizer.decode(item["input_ids"])
    listed = text.split("<tools>\n")[1].split("\n</tools>")[0].splitlines()
    assert [json.loads(line) for line in listed] == [WEATHER, CLOCK]
    calls = [json.loads(one.split("\n</tool_call>")[0]) for one in text.split("<tool_call>\n")[1:]]
    assert calls == [
        {"name": "weather", "arguments": {"city": "Oslo", "days": [1, 2]}},
        {"name": "clock", "arguments": {"zone": None}},
    ]
    assert "<tool_response>\nsnow\n</tool_response>\n<tool_response>\n12:05" in text
    trained = tokenizer.decode(item["input_ids"][item["loss_mask"].bool()])
    assert trained == (
        '\n<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo", "days": [1, 2]}}\n</tool_call>'
        '\n<tool_call>\n{"name": "clock", "arguments": {"zone": null}}\n</tool_call><|im_end|>\n'
        "Snow; it is 12:05.<|im_end|>\n"
    )
    assert "<tools>" not in tokenizer.decode(data[1]["input_ids"])


@pytest.mark.trainers
@pytest.mark.filterwarnings("ignore")
def test_rm_dataset_reads_pairs(verl: Any, tmp_path: Path) -> None:
    assert "loaded 1 rows with verl" in str(TARGET.load("rm", parquet("rm", [pair()], tmp_path / "train.parquet")))


@pytest.mark.trainers
@pytest.mark.filterwarnings("ignore")
def test_an_export_with_mixed_tools_of_more_than_one_block_loads(verl: Any, tmp_path: Path) -> None:
    file = rollouts(tmp_path / "mixed.jsonl", 1600, padding=8000)
    options = {"min_coverage": 0.0, "min_reward": 0.5, "workers": 1, "validation": 0.0}
    export_rollouts([file], ["verl:grpo", "verl:sft"], tmp_path / "out", **options)
    from rollforge.export.verl.loader import dataset

    prompts = dataset("grpo", tmp_path / "out" / "verl-grpo" / "train.jsonl", str(tmp_path / "cache"))
    lines = (tmp_path / "out" / "verl-grpo" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(prompts) == len(lines) == 800
    for at in range(0, 800, 97):
        row = json.loads(lines[at])
        assert {key: prompts[at][key] for key in row} == row
    sft_classes()
    data = dataset("sft", tmp_path / "out" / "verl-sft" / "train.parquet", str(tmp_path / "cache"))
    assert len(data) == 800
    from rollforge.export.trial import byte_tokenizer

    text = byte_tokenizer().decode(data[799]["input_ids"])
    assert "null" not in text
    assert text.count('"type": "function"') == 2


def test_letters_that_hydra_does_not_know_stand_in_quotes(tmp_path: Path) -> None:
    folder = tmp_path / "jürgen"
    words = shlex.split(TARGET.command(made("grpo", folder)).replace("\\\n", " "))
    assert f"data.train_files='{folder}/train.jsonl'" in words


@pytest.mark.parametrize("kind", ["grpo", "sft"])
@pytest.mark.parametrize(
    ("gpus", "nodes", "micro", "rows"), [(1, 1, 3, 100), (8, 1, 3, 100), (8, 2, 4, 500), (6, 1, 16, 1000)]
)
def test_the_rows_of_each_gpu_are_whole_passes(
    kind: str, gpus: int, nodes: int, micro: int, rows: int, tmp_path: Path
) -> None:
    of = made(kind, tmp_path, rows=rows, gpus=gpus, nodes=nodes, micro_batch_size=micro)
    found = overrides(TARGET.command(of))
    size, actor = found["data.train_batch_size"], "actor_rollout_ref.actor"
    assert 0 < size <= rows
    if kind == "sft":
        assert size % (gpus * nodes * micro) == 0
        assert (found["data.val_files"] is None) == (gpus * nodes * micro > 10)
    else:
        mini = found[f"{actor}.ppo_mini_batch_size"]
        assert size % mini == 0 == mini * found["actor_rollout_ref.rollout.n"] % (gpus * nodes * micro)


def test_passes_larger_than_the_data_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="spread over 8 GPUs x 16 rows: use fewer GPUs, a smaller --micro-batch-size"):
        TARGET.command(made("sft", tmp_path, rows=100, gpus=8, micro_batch_size=16))


@pytest.mark.trainers
@pytest.mark.filterwarnings("ignore")
def test_a_program_keeps_its_own_hydra(verl: Any, tmp_path: Path) -> None:
    hydra = pytest.importorskip("hydra")
    (script := tmp_path / "launch.sh").write_text(TARGET.command(made("sft", tmp_path)))
    with hydra.initialize_config_dir(str(Path(verl.__file__).parent / "trainer" / "config"), version_base=None):
        assert not [one for one in TARGET.check_config("sft", script) if "does not take it" in one.message]
        assert hydra.compose("sft_trainer_engine").data


@pytest.mark.trainers
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["grpo", "grpo-parquet", "sft"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"lora": 16, "micro_batch_size": 2, "gpus": 8, "model": "Qwen/Qwen3-32B"},
        {"nodes": 2, "gpus": 4, "logger": "wandb"},
        {"checkpoints": "/home/jürgen/日本"},
    ],
)
def test_hydra_and_verl_accept_the_overrides(verl: Any, kind: str, settings: dict[str, Any], tmp_path: Path) -> None:
    hydra = pytest.importorskip("hydra")
    folder = tmp_path / "a b,c=d's"
    command = TARGET.command(made(kind, folder, tools=[WEATHER], rows=1000, **settings))
    words = [word for word in shlex.split(command.replace("\\\n", " ")) if "=" in word and word[:2] != "--"]
    given = [word for word in words if not word.startswith("PYTHONPATH")]
    place = Path(verl.__file__).parent / "trainer" / "config"
    with hydra.initialize_config_dir(str(place), version_base=None):
        config = hydra.compose("sft_trainer_engine" if kind == "sft" else "ppo_trainer", given)
    assert config.data.train_files == str(folder / "train.jsonl")
    if kind != "sft" and not settings.get("lora"):  # verl asks vLLM about LoRA
        checks = pytest.importorskip("verl.utils.config", exc_type=ImportError)
        checks.validate_config(config, use_reference_policy=True, use_critic=False)


@pytest.mark.trainers
@pytest.mark.filterwarnings("ignore")
def test_the_reward_manager_scores_with_the_reward_function(verl: Any, tmp_path: Path) -> None:
    managers = pytest.importorskip("verl.experimental.reward_loop.reward_manager.naive", exc_type=ImportError)
    import torch
    from omegaconf import OmegaConf
    from verl import DataProto

    from rollforge.export.trial import byte_tokenizer

    tokenizer = byte_tokenizer()
    reward = module(TARGET.files(made("grpo", tmp_path))["reward.py"], tmp_path, "reward.py")
    row = TARGET.kinds["grpo"].row(prompt(), Settings())

    async def rewards() -> list[Any]:
        manager = managers.NaiveRewardManager(OmegaConf.create({}), tokenizer, reward.compute_score)
        found = []
        for reply in (r"\boxed{42}<|im_end|>", "It is 41.<|im_end|>"):
            ids = torch.tensor([tokenizer(reply)["input_ids"]])
            data = DataProto.from_dict(
                tensors={"responses": ids, "attention_mask": torch.ones_like(ids)},
                non_tensors={key: [row[key]] for key in ("data_source", "reward_model", "extra_info")},
            )
            found.append(await manager.run_single(data))
        return found

    right, wrong = asyncio.run(rewards())
    assert (right["reward_score"], wrong["reward_score"]) == (1.0, 0.0)
    assert right["reward_extra_info"].keys() == wrong["reward_extra_info"].keys()


@pytest.mark.trainers
@pytest.mark.filterwarnings("ignore")
def test_tools_call_the_environment_in_one_session(verl: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = pytest.importorskip("verl.tools.tool_registry", exc_type=ImportError)
    files = TARGET.files(made("grpo", tmp_path, tools=[WEATHER, CLOCK]))
    for name in ("gym_tools.py", "tool_config.yaml"):
        (tmp_path / name).write_text(files[name], encoding="utf-8")
    reward = module(files["reward.py"], tmp_path, "reward.py")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "gym_tools", raising=False)
    monkeypatch.delenv("GYM_URL", raising=False)
    with pytest.raises(RuntimeError, match="set GYM_URL"):
        registry.initialize_tools_from_config(str(tmp_path / "tool_config.yaml"))
    row = TARGET.kinds["grpo"].row(prompt(None, [WEATHER, CLOCK]), Settings())
    with environment() as server:
        monkeypatch.setenv("GYM_URL", server.url)
        tools = registry.initialize_tools_from_config(str(tmp_path / "tool_config.yaml"))
        assert [tool.name for tool in tools] == ["weather", "clock"]
        shown = [tool.tool_schema.model_dump(exclude_unset=True, exclude_none=True) for tool in tools]
        assert shown == [WEATHER, CLOCK]  # with items and anyOf, which verl's own schema class drops or refuses
        agent = SimpleNamespace(tools_kwargs=row["extra_info"]["tools_kwargs"], extra_fields={}, request_id="r")

        async def episode() -> Any:
            async def one(tool: Any, arguments: Any) -> str:
                name, _ = await tool.create(create_kwargs={})
                response, _, _ = await tool.execute(name, arguments, agent_data=agent)
                await tool.release(name)
                return str(response.text)

            results = await asyncio.gather(one(tools[0], {"city": "Oslo"}), one(tools[1], {"zone": None}))
            info = row["extra_info"] | agent.extra_fields
            return results, await reward.compute_score("weather", "2 calls", "", info)

        results, verdict = asyncio.run(episode())
    assert json.loads(results[0]) == {"said": {"city": "Oslo"}}
    assert verdict["score"] == 1.0
    assert [path for path, _, _ in server.requests].count("/seed_session") == 1
    assert all(cookie for _, _, cookie in server.requests[1:])


@pytest.mark.parametrize(("gpus", "validation", "told"), [(8, 0.1, True), (1, 0.1, False), (8, 0, False)])
def test_validation_that_is_too_small_to_be_looked_at_is_told(
    gpus: int, validation: float, told: bool, tmp_path: Path
) -> None:
    pytest.importorskip("pyarrow")
    file = tmp_path / "a.jsonl"
    file.write_text("".join(json.dumps(toy_row(f"{number}?", f"{number}")) + "\n" for number in range(40)))
    [done] = export_rollouts([file], ["verl:sft"], tmp_path / "out", gpus=gpus, validation=validation).targets
    found = [one.message for one in done.problems if "neither trained on nor looked at" in one.message]
    assert bool(found) is told, done.problems
