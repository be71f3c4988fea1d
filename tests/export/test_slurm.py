"""Jobs of several nodes in a container, run with a Slurm that only writes down what it is asked for."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from rollforge.errors import UserError
from rollforge.export.target import Made
from rollforge.registry import resolve
from tests.export.samples_gym import made

FAKES = {
    "sbatch": """
for last; do :; done
export SLURM_JOB_NODELIST=n[1-2]
case "$*" in
  *--wrap*) bash -c "$last" ;;
  *ray.sub) echo "ray.sub --container-image=$CONTAINER --container-mounts=$MOUNTS $COMMAND" >> "$LOG" ;;
  *) bash "$last" ;;
esac""",
    "scontrol": "printf 'n1\\nn2\\n'",
    "srun": """
given=
[[ "$*" != *"bash -s" ]] || given=$(cat)
echo "srun $* ${given//$'\\n'/ }" >> "$LOG\"""",
}


def submitted(of: str, folder: Path, **settings: Any) -> tuple[Made, list[str]]:
    """(what was made, the lines of srun)."""
    name, _, kind = of.partition(":")
    target, whole = resolve("export", name), made(kind, folder / "out", nodes=2, gpus=2, **settings)
    (fakes := folder / "bin").mkdir()
    for program, text in FAKES.items():
        (fakes / program).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (fakes / program).chmod(0o755)
    whole.folder.mkdir()
    for file, text in target.files(whole).items():
        (whole.folder / file).write_text(text)
        assert "#SBATCH --container" not in text
    show = ["bash", str(whole.folder / "launch.sh"), "--print"]
    command = subprocess.run(show, capture_output=True, text=True, check=True).stdout
    (log := folder / "log").touch()
    environment = {**os.environ, "PATH": f"{fakes}:{os.environ['PATH']}", "LOG": str(log)}
    # Captured: that waits for the steps in the background, too.
    subprocess.run(["bash", "-c", command], env=environment, capture_output=True, check=True, timeout=60)
    return whole, log.read_text().splitlines()


TARGETS = ["verl:grpo", "verl:sft", "openrlhf:grpo", "openrlhf:sft", "trl:sft", "nemo-rl:sft"]


@pytest.mark.parametrize("of", TARGETS)
def test_checkpoints_and_model_are_in_the_container(of: str, tmp_path: Path) -> None:
    paths = {"checkpoints": str(tmp_path / "kept here"), "model": "/data/models/q", "home": str(tmp_path)}
    whole, lines = submitted(of, tmp_path, container="an image", **paths)
    assert lines
    for line in lines:
        assert "--container-image=an image" in line
        assert all(f"{one}:{one}" in line for one in (whole.folder, paths["checkpoints"], paths["model"]))
        assert line.startswith("ray.sub") or f"--container-workdir={whole.folder} " in line
    assert Path(paths["checkpoints"]).is_dir()  # a mount of nothing ends the job


@pytest.mark.parametrize("of", TARGETS)
def test_results_lie_in_the_folder_that_is_mounted(of: str, tmp_path: Path) -> None:
    whole, lines = submitted(of, tmp_path, container="img", home=str(tmp_path))
    texts = [*lines, *(file.read_text() for file in whole.folder.glob("*.yaml"))]
    assert any(f"{whole.folder}/results" in text for text in texts)
    assert not any(f"{sign}results" in text for text in texts for sign in " =")


@pytest.mark.parametrize("of", ["verl:grpo", "openrlhf:grpo"])
def test_one_step_on_each_node(of: str, tmp_path: Path) -> None:
    """A driver in another container than its node's Ray finds no socket of it."""
    _, lines = submitted(of, tmp_path, container="img")
    assert sorted(line.partition("-w ")[2][:2] for line in lines) == ["n1", "n2"]
    [head] = [line for line in lines if "-w n1 " in line]
    assert head.index("ray start --head") < head.index("ray.init()") < head.index("python3 -m")


@pytest.mark.parametrize("of", TARGETS[:-1])  # NeMo RL's ray.sub wants one
def test_without_an_image_nothing_is_said_of_one(of: str, tmp_path: Path) -> None:
    assert not any("container" in line for line in submitted(of, tmp_path)[1])


def test_a_path_that_pyxis_would_split(tmp_path: Path) -> None:
    target = resolve("export", "verl")
    with pytest.raises(UserError, match="separators"):
        target.files(made("sft", tmp_path / "a:b", nodes=2, container="img"))
    target.files(made("sft", tmp_path / "a:b", container="img"))


@pytest.mark.parametrize("of", TARGETS)
def test_targets_do_not_resume_from_each_other(of: str, tmp_path: Path) -> None:
    name, _, kind = of.partition(":")
    whole = made(kind, tmp_path / of.replace(":", "-"), checkpoints="/ckpt")
    text = "\n".join(resolve("export", name).files(whole).values())
    assert set(re.findall(r"/ckpt\b(?:/[\w-]+)?", text)) == {f"/ckpt/{whole.folder.name}"}
