"""TRL trains the embedded policy for a few steps, by each method; what is written, resumed, refused."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import rollforge as rf
from rollforge.config import validate
from rollforge.errors import UserError
from rollforge.models.base import ModelOptions, Request
from rollforge.models.load import load_model
from rollforge.records.items import user
from rollforge.train.config import TrainConfig

pytestmark = [
    pytest.mark.extras,
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
pytest.importorskip("trl")
pytest.importorskip("matplotlib")

from rollforge.train.run import Training, train  # noqa: E402

Json = dict[str, Any]
SMALL: Json = {"limit": 6, "repeats": 2, "every": 2}


def config(**values: Any) -> TrainConfig:
    return validate(TrainConfig, {"eval": SMALL, **values}, "the test")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "sums"
    asyncio.run(rf.collect_rollouts("arithmetic", "tiny", limit=24, repeats=4, seed=2, sampling={"temperature": 1}, out=out))
    return out


def lines(path: Path) -> list[Json]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def weights(directory: Path) -> Any:
    from safetensors.numpy import load_file

    return load_file(directory / "model.safetensors")["model.layers.0.mlp.up_proj.weight"]


@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_a_run_is_learned_from_and_the_model_is_usable_at_once(run: Path, tmp_path: Path, method: str) -> None:
    done = train(config(method=method, data=[run], steps=4, batch=4, out=tmp_path / "out"))
    assert done.report["env"] == "arithmetic"
    assert [point["step"] for point in done.report["curve"]] == [0, 2, 4]
    assert done.report["comparison"]["rollouts"] == 12
    assert (done.path / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert "reward on held-out tasks" in (done.path / "report.md").read_text("utf-8")
    assert [row["step"] for row in lines(done.path / "metrics.jsonl") if "loss" in row] == [1, 2, 3, 4]
    assert (weights(done.model) != weights(Path(rf.__file__).parent / "models/tiny/policy")).any()

    from transformers import AutoModelForCausalLM, AutoTokenizer

    assert AutoModelForCausalLM.from_pretrained(done.model).num_parameters() == done.report["parameters"]
    assert AutoTokenizer.from_pretrained(done.model).chat_template
    model: Any = load_model(f"tiny:{done.model}", ModelOptions())
    answer = asyncio.run(model(Request({"input": [user("2 plus 3 = ?")], "temperature": 0, "max_output_tokens": 40})))
    assert answer["output"]
    asyncio.run(model.aclose())


def test_only_what_the_assistant_says_is_learned(run: Path, tmp_path: Path) -> None:
    from rollforge.train.data import prepare
    from rollforge.train.policy import load_policy
    from rollforge.train.trainers import make_trainer

    settings = config(method="sft", data=[run], steps=1, batch=2)
    policy = load_policy(settings)
    trainer = make_trainer(settings, policy, tmp_path, files=prepare(settings, tmp_path / "data").files)
    batch = next(iter(trainer.get_train_dataloader()))
    said = policy.tokenizer.decode(batch["labels"][0][batch["labels"][0] != -100])
    assert said.startswith("<tool_call>")
    assert said.rstrip().endswith("<|im_end|>")
    assert "<tool_response>" not in said
    assert "Tools:" not in said


def test_grpo_acts_in_an_environment_and_goes_on_after_it_was_killed(tmp_path: Path) -> None:
    out = tmp_path / "live"
    options = [
        "--env",
        "arithmetic",
        "--steps",
        "8",
        "--batch",
        "8",
        "--group",
        "4",
        "--save-every",
        "1",
        "--eval-every",
        "4",
    ]
    command = [str(Path(sys.executable).with_name("rollforge")), "train", "grpo", *options]
    command += ["--eval-limit", "4", "--eval-repeats", "2", "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.monotonic() + 240
    while not list(out.glob("checkpoints/checkpoint-*/trainer_state.json")) and time.monotonic() < deadline:
        assert process.poll() is None, process.stdout.read() if process.stdout else ""
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    half = out / "checkpoints" / "checkpoint-99"  # as if it had been killed while it wrote one
    half.mkdir()
    (half / "trainer_state.json").write_text('{"global_step": 9')
    again = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "going on from" in again.stderr
    report = json.loads((out / "report.json").read_text("utf-8"))
    assert report["steps"] == 8
    assert [point["step"] for point in report["curve"]] == [0, 4, 8]
    rollouts = report["rollouts"]
    assert 0 < rollouts["rollouts"] < 64
    assert rollouts["flaws"] == {}
    assert rollouts["drifted_share"] == 0.0
    assert rollouts["log_probs"]["tokens"] > 20
    assert rollouts["log_probs"]["max"] < 1e-3
    assert 0 < report["rollout_share"] < 1
    assert [row["step"] for row in lines(out / "metrics.jsonl") if "reward" in row] == list(range(1, 9))
    assert not half.exists()
    # Done is done, and another configuration is another training.
    done = train(config(method="grpo", env="arithmetic", steps=8, batch=8, group=4, save_every=1, out=out, eval=_eval(4)))
    assert done.report == report
    with pytest.raises(UserError, match=r"another configuration[\s\S]*group: 4 there, 8 now"):
        train(config(method="grpo", env="arithmetic", steps=8, batch=8, group=8, save_every=1, out=out, eval=_eval(4)))


def _eval(every: int) -> Json:
    return {"limit": 4, "repeats": 2, "every": every}


MIXED = """
import rollforge as rf

@rf.env(tasks=[{"prompt": f"{n} plus {n} = ?", "answer": 2 * n} for n in range(1, 20)])
class mixed:
    def add(self, a: int, b: int) -> int:
        "Add a and b."
        return a + b

    def verify(self, reply: str, answer: int) -> float:
        if len(reply) % 2:
            raise rf.VerifierFault("nobody knows")
        return float(str(answer) in reply)
"""


def test_what_has_no_verdict_is_masked_and_has_no_part_in_the_means(tmp_path: Path) -> None:
    (tmp_path / "mixed.py").write_text(MIXED)
    settings: Json = {"method": "grpo", "env": f"{tmp_path}/mixed.py:mixed", "steps": 2, "batch": 16, "group": 4}
    done = train(config(**settings, eval={"limit": 2, "repeats": 4, "every": 2}, out=tmp_path / "out"))
    outcomes = done.report["rollouts"]["outcomes"]
    assert outcomes["verifier_fault"] > 0
    assert outcomes["scored"] > 0
    assert done.report["rollouts"]["flaws"] == {}
    assert all(row["loss"] == row["loss"] for row in lines(done.path / "metrics.jsonl") if "loss" in row)


def test_trainings_of_one_second_do_not_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    paths = []
    for _ in range(3):
        paths.append(Training(config(method="sft", data=["some/run"])).path)
        paths[-1].mkdir(parents=True)
    assert len(set(paths)) == 3
    assert all(str(path).startswith("runs/train-sft-tiny-") for path in paths)


def test_lora_is_merged_into_what_is_stored(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    lora: Json = {"rank": 4, "targets": ["q_proj", "v_proj"]}
    done = train(config(method="sft", data=[run], steps=2, batch=4, lora=lora, learning_rate=1e-2, out=tmp_path / "out"))
    from safetensors.numpy import load_file

    after, before = (load_file(path / "model.safetensors") for path in (done.model, _policy()))
    assert set(after) == set(before)
    name = "model.layers.0.self_attn.q_proj.weight"
    assert (after[name] != before[name]).any()
    assert len(done.report["curve"]) == 2


def _policy() -> Path:
    return Path(rf.__file__).parent / "models/tiny/policy"


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"method": "grpo", "env": "arithmetic", "batch": 10, "group": 4}, "not a multiple of the group"),
        ({"method": "grpo", "env": "arithmetic", "trainer": {"bta": 0.1}}, "beta"),
        ({"method": "grpo", "env": "arithmetic", "model": "tiny:nowhere/at/all"}, "cannot be loaded"),
        ({"method": "grpo", "env": "arithmetic", "device": "cuda"}, "no GPU"),
        ({"method": "grpo", "env": "arithmetik"}, "arithmetic"),
    ],
)
def test_what_cannot_be_trained_is_told(values: Json, says: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=says):
        train(config(**values, steps=1, out=tmp_path / "out"))
