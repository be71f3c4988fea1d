"""A small environment, and a loop in it whose training is a stand-in that writes down more right answers.

As a program: `python parts.py RECIPE OUT` runs the loop, to be killed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from rollforge.config import validate
from rollforge.errors import UserError
from rollforge.evaluate.config import EvalConfig
from rollforge.loop.config import LoopConfig
from rollforge.loop.run import Looped, run_loop
from rollforge.loop.steps import Measured, RealSteps
from rollforge.train.config import TrainConfig

TASKS = [{"prompt": f"{a}+{b}", "answer": a + b, "level": "easy" if a < 3 else "hard"} for a in range(6) for b in range(32)]

ENV = f"""
import rollforge as rf

@rf.env(tasks={TASKS!r}, inline=True)
def sums(reply: str, answer: int) -> float:
    return float(reply == str(answer))
"""


def answers(path: Path, *, below: int) -> Path:
    """A recorded policy that is right where the first number is below `below`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ({"prompt": t["prompt"], "text": str(t["answer"] if int(t["prompt"][0]) < below else "?")} for t in TASKS)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def recipe(folder: Path, **more: Any) -> LoopConfig:
    """Two iterations from a policy that solves the easy half."""
    env = folder / "sums_env.py"
    env.write_text(ENV)
    usual = {
        "model": f"scripted:{answers(folder / 'start.jsonl', below=3)}",
        "trained": "scripted:{model}/answers.jsonl",
        "collect": {"env": f"{env}:sums", "repeats": 2, "limit": 300},
        "curate": {"steps": [{"filter": "reward >= 1"}]},
        "train": {"method": "sft", "steps": 1, "model": "tiny"},
        "eval": {"repeats": 1},
    }
    return validate(LoopConfig, usual | more, "the test")


class StandIn(RealSteps):
    """Training makes a policy that is right for one number more: `gain` of them."""

    def __init__(self, gain: int = 1) -> None:
        super().__init__()
        self.gain = gain
        self.trained: list[TrainConfig] = []
        self.evaluated: list[EvalConfig] = []

    def ready(self, config: TrainConfig, /) -> None:
        if config.model == "missing":
            raise UserError("there is no model 'missing'")

    def train(self, config: TrainConfig, /) -> Path:
        self.trained.append(config)
        assert config.out is not None
        parent = Path(config.model) / "below"
        below = (int(parent.read_text()) if parent.exists() else 3) + self.gain
        model = config.out / "model"
        answers(model / "answers.jsonl", below=below)
        (model / "below").write_text(str(below))
        return model

    def evaluate(self, config: EvalConfig, /) -> Measured:
        self.evaluated.append(config)
        return super().evaluate(config)


def loop(folder: Path, steps: StandIn | None = None, *, apply_next: bool = False, **more: Any) -> Looped:
    return run_loop(recipe(folder, **more), folder / "out", steps or StandIn(), apply_next=apply_next)


if __name__ == "__main__":
    done = run_loop(recipe(Path(sys.argv[1])), Path(sys.argv[2]), StandIn())
    print(json.dumps(done.row()))
