"""Rows, configuration and launch script for NeMo RL."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rollforge.config import read_yaml
from rollforge.errors import UserError
from rollforge.export.examples import Demonstration, Example, Origin, Pair, Prompt
from rollforge.export.nemo_rl import TARGET
from rollforge.export.nemo_rl.check import WARNING
from rollforge.export.run import export_rollouts
from rollforge.export.target import Data, Made, Refused, Settings
from rollforge.registry import resolve
from tests.export.toy import row, write

GOLDEN = Path(__file__).parent / "golden" / "nemo_rl"
HOME = "/opt/RL"
FLAT = ("0.5", "0.4")

Json = dict[str, Any]


def origin(reward: float = 1.0, env: str = "sums") -> Origin:
    return Origin("t1-0", 0, 0, env, "t1", reward, "m")


def tool(name: str, argument: str) -> Json:
    parameters = {"type": "object", "properties": {argument: {"type": "string"}}, "required": [argument]}
    return {"type": "function", "function": {"name": name, "description": f"{name}.", "parameters": parameters}}


def call(number: int, name: str, arguments: Json) -> Json:
    return {"id": f"call_{number}", "type": "function", "function": {"name": name, "arguments": arguments}}


TOOLS = [tool("weather", "city"), tool("clock", "zone")]
QUESTION = [{"role": "user", "content": "What is 2 + 2?"}]
TOOL_TURNS = [
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [call(1, "weather", {"city": "Bonn"}), call(2, "clock", {"zone": "CET"})],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
    {"role": "tool", "tool_call_id": "call_2", "content": "12:00"},
    {"role": "assistant", "content": "It rains at noon."},
]
ASKED = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Weather in Bonn?"}]


def prompt(messages: list[Json] = QUESTION, answer: str | None = "4", **fields: Any) -> Prompt:
    params = {"input": [{"role": "user", "content": "What is 2 + 2?"}], "temperature": 0.7}
    return Prompt(origin(), messages, [], answer, params, fields, "4")


def demonstration() -> Demonstration:
    return Demonstration(origin(), ASKED, TOOL_TURNS, TOOLS)


def pair(chosen: list[Json] | None = None, tools: list[Json] | None = None) -> Pair:
    rejected = [{"role": "assistant", "content": "5"}]
    return Pair(origin(1.0), origin(0.25), ASKED, chosen or [{"role": "assistant", "content": "4"}], rejected, tools or [])


EXAMPLES: dict[str, Example] = {
    "grpo": prompt([*ASKED, {"role": "assistant", "content": "Rain."}, {"role": "user", "content": "2 + 2?"}]),
    "nemo-gym": prompt(
        agent_ref={"type": "responses_api_agents", "name": "sums_agent"},
        expected_answer="4",
    ),
    "sft": demonstration(),
    "sft-simple": Demonstration(
        origin(), QUESTION, [{"role": "assistant", "content": "4", "reasoning_content": "Add."}], []
    ),
    "dpo": pair(tools=TOOLS),
    "dpo-messages": pair(TOOL_TURNS, TOOLS),
}


def made(kind: str, folder: Path, settings: Settings, rows: int = 100, validation: int = 10, envs: int = 1) -> Made:
    names = [f"-env{number}" for number in range(envs)] if envs > 1 else [""]
    data = [
        Data(split, ["sums"], folder / f"{split}{name}.jsonl", count, 30, 90, count, tools=kind == "sft")
        for split, count in (("train", rows), ("validation", validation))
        for name in names
        if count
    ]
    return Made(kind, folder, data, settings, measured=True)


def config(
    kind: str, folder: Path = Path("/data"), rows: int = 100, validation: int = 10, envs: int = 1, **settings: Any
) -> Json:
    files = TARGET.files(made(kind, folder, Settings(home=HOME, **settings), rows, validation, envs))
    path = folder / f"{kind}.yaml"
    return parse(files[path.name])


def parse(text: str) -> Json:
    import yaml

    value: Json = yaml.safe_load(text)
    return value


def same_as_golden(name: str, text: str) -> None:
    """ROLLFORGE_GOLDEN=1 writes the files anew."""
    path = GOLDEN / name
    if os.environ.get("ROLLFORGE_GOLDEN"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


def test_it_is_registered() -> None:
    assert resolve("export", "nemo-rl") is TARGET
    assert set(TARGET.kinds) == set(EXAMPLES)


@pytest.mark.parametrize("kind", EXAMPLES)
def test_rows(kind: str) -> None:
    row = TARGET.kinds[kind].row(EXAMPLES[kind], Settings())
    same_as_golden(f"{kind}.jsonl", json.dumps(row) + "\n")
    assert [found for found in TARGET.kinds[kind].check(row) if not found.startswith(WARNING)] == []


@pytest.mark.parametrize("version", ["main", "0.6", "0.5", "0.4"])
@pytest.mark.parametrize("kind", EXAMPLES)
def test_configurations(kind: str, version: str) -> None:
    if (kind, version) == ("nemo-gym", "0.4"):
        return
    if version == "0.6" and kind != "sft":
        newest, older = (config(kind, version=one) for one in ("main", "0.6"))
        assert newest == older
        return
    files = TARGET.files(made(kind, Path("/data/x"), Settings(home=HOME, version=version)))
    same_as_golden(f"{kind}-{version}.yaml", files[f"{kind}.yaml"])


@pytest.mark.parametrize("messages", [[], [{"role": "user", "content": " "}]])
def test_a_prompt_without_text_is_refused(messages: list[Json]) -> None:
    with pytest.raises(Refused, match="empty"):
        TARGET.kinds["grpo"].row(prompt(messages), Settings())


@pytest.mark.parametrize(
    ("kind", "example", "reason"),
    [
        ("grpo", prompt(answer=None), "no expected answer"),
        ("grpo", prompt(answer="  "), "no expected answer"),
        ("grpo", prompt([{"role": "user", "content": [{"type": "image_url"}]}]), "more than text"),
        ("nemo-gym", replace(prompt(), origin=origin(env="")), "no agent_ref"),
        ("sft", Demonstration(origin(), QUESTION, TOOL_TURNS[:2], TOOLS), "does not end with the assistant"),
        ("sft-simple", demonstration(), "nemo-rl:sft"),
        ("sft-simple", Demonstration(origin(), ASKED, [{"role": "assistant", "content": "x"}], []), "nemo-rl:sft"),
        ("dpo", pair(TOOL_TURNS), "nemo-rl:dpo-messages"),
        ("dpo", pair([{"role": "assistant", "content": "5"}]), "the same"),
        ("dpo-messages", pair([{"role": "assistant", "content": ""}]), "empty"),
    ],
)
def test_what_a_format_cannot_hold_is_refused(kind: str, example: Example, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        TARGET.kinds[kind].row(example, Settings())


def test_another_environment_needs_no_answer() -> None:
    settings = Settings(set={"data.default.env_name": "reward_model"})
    assert TARGET.kinds["grpo"].row(prompt(answer=None), settings)["output"] == ""


@pytest.mark.parametrize(("answer", "written"), [("12.5%", "12.5\\%"), ("1e-3", "0.001"), ("1.5e6", "1500000"), ("7", "7")])
def test_expected_answers_are_written_as_math_verify_matches_them(answer: str, written: str) -> None:
    kind = TARGET.kinds["grpo"]
    row = kind.row(prompt(answer=answer), Settings())
    assert (row["output"], row["ground_truth"]) == (written, written)
    said = [message for message in kind.check(row) if "is written as" in message]
    assert len(said) == (answer != written)
    other = Settings(set={"data.default.env_name": "code"})
    assert kind.row(prompt(answer=answer), other)["output"] == answer


def test_rows_of_04_name_the_task_by_which_their_processor_is_found() -> None:
    row = TARGET.kinds["grpo"].row(prompt(), Settings(version="v0.4.0"))
    assert row["task_name"] == "math"
    assert "task_name" not in TARGET.kinds["grpo"].row(prompt(), Settings(version="0.5"))


def test_tools_are_named_where_they_cannot_be_used() -> None:
    kind = TARGET.kinds["grpo"]
    row = kind.row(replace(prompt(), tools=TOOLS), Settings())
    assert row["tools_left_out"] == ["weather", "clock"]
    assert [message for message in kind.check(row) if "offered tools ('weather, clock')" in message]


def test_a_task_without_an_agent_gets_one_of_its_environment() -> None:
    row = TARGET.kinds["nemo-gym"].row(prompt(expected_answer="4"), Settings())
    assert row["agent_ref"] == {"type": "responses_api_agents", "name": "sums_simple_agent"}
    assert row["expected_answer"] == "4"


@pytest.mark.parametrize("kind", EXAMPLES)
@pytest.mark.parametrize("rows", [1, 5, 7, 31, 1000])
@pytest.mark.parametrize("gpus", [1, 4])
def test_batches_are_no_larger_than_the_data_and_divide(kind: str, rows: int, gpus: int) -> None:
    if rows < gpus and not kind.startswith(("grpo", "nemo-gym")):
        text = TARGET.files(made(kind, Path("/data"), Settings(gpus=gpus), rows))[f"{kind}.yaml"]
        assert "PROBLEM" in text
        return
    values = config(kind, rows=rows, gpus=gpus)
    whole, micro = values["policy"]["train_global_batch_size"], values["policy"]["train_micro_batch_size"]
    assert whole % gpus == 0
    assert whole // gpus % micro == 0
    if "grpo" in values:
        grpo = values["grpo"]
        assert grpo["num_prompts_per_step"] <= rows
        assert whole == grpo["num_prompts_per_step"] * grpo["num_generations_per_prompt"]
    else:
        assert whole <= rows


@pytest.mark.parametrize("version", TARGET.versions)
@pytest.mark.parametrize("kind", EXAMPLES)
def test_without_validation_data_validation_is_off(kind: str, version: str) -> None:
    if (kind, version) == ("nemo-gym", "0.4"):
        return
    values = config(kind, validation=0, version=version)
    section = values["grpo" if "grpo" in values else kind.split("-")[0]]
    assert section["val_period"] == 0
    assert not section["val_at_start"]
    assert not section.get("val_at_end")
    assert values["checkpointing"]["metric_name"] is None
    if version not in FLAT:
        assert values["data"]["validation"] is None
    elif kind.startswith("sft"):
        assert values["data"]["val_data_path"] == values["data"]["train_data_path"]


def test_06_cannot_train_on_data_kept_as_they_are(tmp_path: Path) -> None:
    it = made("sft", tmp_path, Settings(version="0.6.0"), rows=4, validation=2)
    for data in it.data:
        data.path.write_text(json.dumps(TARGET.kinds["sft"].row(demonstration(), Settings())) + "\n")
    found: list[list[str]] = []
    for tools in (True, False):
        text = TARGET.files(replace(it, data=[replace(data, tools=tools) for data in it.data]))["sft.yaml"]
        assert parse(text)["data"]["train"]["use_preserving_dataset"] is tools
        (tmp_path / "sft.yaml").write_text(text)
        found.append([one.message for one in TARGET.check_config("sft", tmp_path / "sft.yaml") if one.level == "error"])
    assert [any("2515" in message for message in messages) for messages in found] == [True, False]
    assert any("fills arguments of calls with nulls" in message for message in found[1])


def test_each_environment_has_its_entry() -> None:
    entries = config("grpo", envs=3)["data"]["train"]
    assert [entry["data_path"] for entry in entries] == [f"/data/train-env{number}.jsonl" for number in range(3)]
    assert {entry["env_name"] for entry in entries} == {"math"}


def test_up_to_05_several_environments_are_one_file(tmp_path: Path) -> None:
    rows = [row(f"{n}?", agent_ref={"name": f"{env}_agent"}, expected_answer=f"{n}%") for n in range(4) for env in "ab"]
    file = write(tmp_path / "a.jsonl", rows)
    for version, kind, names in (
        ("0.4", "grpo", ["train.jsonl"]),
        ("0.5", "nemo-gym", ["train.jsonl"]),
        ("0.6", "grpo", ["train-a_agent.jsonl", "train-b_agent.jsonl"]),
    ):
        to, out = [f"nemo-rl:{kind}"], tmp_path / version
        done = export_rollouts(file, to, out, version=version, validation=0, workers=1).targets[0]
        assert [one.name for one in done.files] == names
        values = read_yaml(done.folder / f"{kind}.yaml")
        if kind == "nemo-gym":
            assert values["data"]["train_jsonl_fpath"] == str(done.folder / "train.jsonl")
            paths = values["env"]["nemo_gym"]["config_paths"][1:]
            assert paths == [f"resources_servers/{env}/configs/{env}.yaml" for env in "ab"]


def test_lengths_leave_room_and_the_users_wins() -> None:
    assert config("sft")["policy"]["max_total_sequence_length"] == 512
    assert config("sft", max_length=64)["policy"]["max_total_sequence_length"] == 64
    data = [Data("train", [], Path("/data/train.jsonl"), 50, 1000, 3000)]
    for kind, measured, length in (("sft", True, 3456), ("sft", False, 3840), ("grpo", True, 5632), ("grpo", False, 6400)):
        text = TARGET.files(Made(kind, Path("/data"), data, Settings(), measured))[f"{kind}.yaml"]
        assert parse(text)["policy"]["max_total_sequence_length"] == length
    # Long answers get no second time as much: the policy would have to be served beyond what most models hold.
    for longest, length in ((5000, 9600), (7000, 9600), (19000, 20992)):
        data = [Data("train", [], Path("/data/train.jsonl"), 50, 500, longest)]
        text = TARGET.files(Made("grpo", Path("/data"), data, Settings(), True))["grpo.yaml"]
        assert parse(text)["policy"]["max_total_sequence_length"] == length
    text = TARGET.files(made("sft", Path("/data"), Settings(max_length=64)))["sft.yaml"]
    assert "rows of 64 tokens and more are masked" in text


def test_settings_reach_the_configuration() -> None:
    values = config(
        "sft",
        model="meta-llama/Llama-3.1-8B",
        learning_rate=1e-5,
        epochs=3,
        lora=16,
        logger="wandb",
        gpus=2,
        nodes=2,
        checkpoints="/ckpt",
        set={"sft.seed": 7, "policy.precision": "float32", "data.train.chat_key": "turns"},
    )
    policy = values["policy"]
    assert policy["optimizer"]["kwargs"]["lr"] == 1e-5
    assert policy["dtensor_cfg"]["activation_checkpointing"] is True
    assert policy["dtensor_cfg"]["lora_cfg"]["dim"] == 16
    assert policy["precision"] == "float32"
    assert values["sft"]["max_num_epochs"] == 3
    assert values["sft"]["seed"] == 7
    assert values["data"]["train"]["chat_key"] == "turns"
    assert values["logger"]["wandb_enabled"]
    assert not values["logger"]["tensorboard_enabled"]
    assert values["checkpointing"]["checkpoint_dir"] == "/ckpt/data"
    assert values["cluster"] == {"gpus_per_node": 2, "num_nodes": 2}


def test_what_a_version_does_not_have_is_said(tmp_path: Path) -> None:
    text = TARGET.files(made("dpo", Path("/data"), Settings(version="0.5", lora=8)))["dpo.yaml"]
    assert "no LoRA" in text
    assert "lora_cfg" not in text
    (tmp_path / "dpo.yaml").write_text(text)
    said = [(one.level, one.message) for one in TARGET.check_config("dpo", tmp_path / "dpo.yaml")]
    assert ("warning", "NeMo RL 0.5 has no LoRA for dpo: all weights are trained (0.6 has it)") in said
    with pytest.raises(UserError, match="NeMo Gym"):
        config("nemo-gym", version="0.4")
    with pytest.raises(UserError, match="version"):
        config("sft", version="0.1")


@pytest.mark.parametrize(
    ("kind", "version", "script"),
    [
        ("grpo", None, "examples/run_grpo.py"),
        ("grpo", "0.5", "examples/run_grpo.py"),
        ("grpo", "0.4.0", "examples/run_grpo_math.py"),
        ("sft-simple", "v0.7.0", "examples/run_sft.py"),
        ("dpo-messages", "0.6", "examples/run_dpo.py"),
        ("nemo-gym", None, "examples/nemo_gym/run_grpo_nemo_gym.py"),
    ],
)
def test_the_command(kind: str, version: str | None, script: str) -> None:
    run = TARGET.command(made(kind, Path("/a b"), Settings(version=version, gpus=8)))
    assert run == f"uv run python {script} --config '/a b/{kind}.yaml' cluster.gpus_per_node=8"


def test_launch_script_on_slurm(tmp_path: Path) -> None:
    script = TARGET.files(made("sft", tmp_path, Settings(home=HOME, gpus=4, nodes=2, container="nemo.sqsh")))["launch.sh"]
    assert "sbatch --nodes=2 --gres=gpu:4 ray.sub" in script
    assert "\nGPUS_PER_NODE=4 COMMAND=" in script
    assert "cluster.num_nodes=2" in script
    assert "CONTAINER=nemo.sqsh" in script


def test_without_a_home_the_launch_script_asks_for_it(tmp_path: Path) -> None:
    files = TARGET.files(made("sft", tmp_path, Settings()))
    assert parse(files["sft.yaml"])["defaults"] == "${oc.env:NEMO_RL_HOME}/examples/configs/sft.yaml"
    script = tmp_path / "launch.sh"
    script.write_text(files["launch.sh"])
    environment = {name: value for name, value in os.environ.items() if name != "NEMO_RL_HOME"}
    done = subprocess.run(
        ["bash", str(script), "--check"], capture_output=True, text=True, env=environment, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "NEMO_RL_HOME is not set" in done.stderr
    assert f"{tmp_path}/train.jsonl is not there" in done.stderr
    assert "run_sft.py" not in done.stderr


@pytest.mark.parametrize("named", [True, False])
def test_what_the_checkout_must_hold_is_looked_for(named: bool, tmp_path: Path) -> None:
    home, script = tmp_path / "a checkout's", tmp_path / "launch.sh"
    of = Settings(home=str(home) if named else None, nodes=2)
    script.write_text(TARGET.files(made("sft", tmp_path, of))["launch.sh"])
    needed = ("examples/run_sft.py", "examples/configs/sft.yaml", "ray.sub")
    environment = {"PATH": os.environ["PATH"], "NEMO_RL_HOME": str(home)}  # no HOME either

    def said() -> str:
        done = subprocess.run(["bash", script, "--check"], capture_output=True, text=True, env=environment, check=False)
        assert "unbound variable" not in done.stderr
        return done.stderr

    assert all(f"{home}/{name} is not there" in said() for name in needed)
    for name in needed:
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).touch()
    assert str(home) not in said()


@pytest.mark.parametrize(
    ("version", "there", "told"),
    [("0.6", "0.5", True), ("0.5", "0.5", False), ("main", "0.5", True), ("main", "0.6", False), ("0.6", None, False)],
)
def test_another_release_in_the_checkout_is_named(tmp_path: Path, version: str, there: str | None, told: bool) -> None:
    home, script = tmp_path / "a checkout", tmp_path / "launch.sh"
    if there:
        major, minor = there.split(".")
        (home / "nemo_rl").mkdir(parents=True)
        (home / "nemo_rl/package_info.py").write_text(f"MAJOR = {major}\nMINOR = {minor}\nPATCH = 0\n")
    for settings in (Settings(version=version), Settings(version=version, home=str(home))):
        script.write_text(TARGET.files(made("dpo", tmp_path, settings))["launch.sh"])
        environment = os.environ | {"NEMO_RL_HOME": str(home)}
        done = subprocess.run(["bash", script, "--check"], capture_output=True, text=True, env=environment, check=False)
        assert (f"nemo-rl {there} is there, these files are for {version}" in done.stderr) is told
        assert "sed:" not in done.stderr


def test_what_is_written_passes_its_own_check(tmp_path: Path) -> None:
    for kind, example in EXAMPLES.items():
        folder = tmp_path / f"nemo-rl-{kind}"
        folder.mkdir()
        row = json.dumps(TARGET.kinds[kind].row(example, Settings())) + "\n"
        it = made(kind, folder, Settings(), rows=4, validation=2)
        for data in it.data:
            data.path.write_text(row * data.rows)
        for name, text in TARGET.files(it).items():
            (folder / name).write_text(text)
        found = [problem for path in sorted(folder.iterdir()) for problem in TARGET.check_config(kind, path)]
        assert [str(problem) for problem in found if problem.level == "error"] == []
        assert read_yaml(folder / f"{kind}.yaml")["data"]


@pytest.mark.trainers
@pytest.mark.parametrize("kind", EXAMPLES)
def test_nemo_rl_itself_loads_the_rows(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("nemo_rl")
    file = tmp_path / "train.jsonl"
    file.write_text(3 * (json.dumps(TARGET.kinds[kind].row(EXAMPLES[kind], Settings())) + "\n"))
    assert str(TARGET.load(kind, file)).startswith("loaded 3 rows with NeMo RL")


def test_the_loader_is_none_without_nemo_rl(tmp_path: Path) -> None:
    assert TARGET.load("sft", tmp_path / "train.jsonl") is None


@pytest.mark.parametrize(("argument", "loads"), [("data_path", True), ("train_data_path", False)])
def test_the_loader_of_05_takes_other_arguments(
    argument: str, loads: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = tmp_path / "nemo_rl" / "data" / "datasets" / "response_datasets"
    inside.mkdir(parents=True)
    (tmp_path / "nemo_rl" / "package_info.py").write_text("__version__ = '0.9'\n")
    (inside / "response_dataset.py").write_text(
        f"class ResponseDataset:\n    def __init__(self, {argument}):\n        self.dataset = list(range(2))\n"
    )
    file = tmp_path / "train.jsonl"
    file.write_text("{}\n{}\n")
    monkeypatch.syspath_prepend(tmp_path)
    try:
        said = TARGET.load("grpo", file)
        assert said == ("loaded 2 rows with NeMo RL 0.9 (ResponseDataset)" if loads else None)
        assert TARGET.load("nemo-gym", file) is None
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "nemo_rl"]:
            del sys.modules[name]
