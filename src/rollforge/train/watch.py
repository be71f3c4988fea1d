"""What a training says while it runs: metrics.jsonl, evaluations, how far it is."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rollforge.records.items import Json
from rollforge.train.live import Counts

PLAIN_SECONDS = 10.0
SHOWN = ("reward", "loss", "mean_token_accuracy", "rewards/accuracies", "entropy")
"""Of what TRL logs, what a line of progress shows."""

Measure = Callable[[int], float]
"""The mean reward on held-out tasks, at a step."""


@dataclass(slots=True)
class Watch:
    """Fed by TRL's callbacks (`callback`)."""

    metrics: Path
    measure: Measure | None
    """Evaluates the policy as it is at that step."""
    every: int | None
    """Steps between two evaluations; a tenth of the training if None."""
    counts: Counts | None
    """Of live rollouts."""
    log: Callable[[Json], None] = lambda _: None
    """TRL's own logging, which the trackers hear."""
    training_seconds: float = 0.0
    evaluation_seconds: float = 0.0
    first: int = 0
    """The step at which this session began."""
    _began: float = 0.0
    _said: float = 0.0
    _bar: Any = None

    def begin(self, state: Any) -> None:
        self.first = state.global_step
        _forget(self.metrics, self.first)
        self._said = time.monotonic()
        if sys.stderr.isatty():
            self._bar = _bar(state)
            self._bar.start()

    def end(self) -> None:
        if self._bar is not None:
            self._bar.stop()

    def step_begins(self) -> None:
        self._began = time.monotonic()

    def step_ended(self, state: Any) -> None:
        self.training_seconds += time.monotonic() - self._began
        step, last = state.global_step, state.max_steps
        every = self.every or max(1, last // 10)
        if self.measure is not None and step % every == 0 and step < last:
            self.evaluated(step)
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=step, says="  ".join(self._numbers(state)))
        elif time.monotonic() - self._said > PLAIN_SECONDS:
            self._said = time.monotonic()
            rate = (self.training_seconds + self.evaluation_seconds) / max(step - self.first, 1)
            parts = [f"step {step} of {last}", *self._numbers(state), f"{rate * (last - step) / 60:.1f} min left"]
            print("  ".join(parts), file=sys.stderr, flush=True)

    def evaluated(self, step: int) -> None:
        assert self.measure is not None
        began = time.monotonic()
        reward = self.measure(step)
        self.evaluation_seconds += time.monotonic() - began
        self.log({"held_out/reward": reward})
        print(f"step {step}: reward {reward:.3f} on held-out tasks", file=sys.stderr, flush=True)

    def logged(self, state: Any, values: Json) -> None:
        numbers = {name: value for name, value in values.items() if isinstance(value, (int, float))}
        row = {"step": state.global_step, **{name: value for name, value in numbers.items() if math.isfinite(value)}}
        with open(self.metrics, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def _numbers(self, state: Any) -> list[str]:
        recent: Json = {}
        for entry in state.log_history[-20:]:
            recent |= entry
        shown = [f"{name.rpartition('/')[2]} {recent[name]:.4g}" for name in SHOWN if isinstance(recent.get(name), float)]
        if self.counts is not None and self.training_seconds:
            shown.append(f"rollouts {self.counts.seconds / self.training_seconds:.0%} of the time")
        return shown


def callback(watch: Watch) -> Any:
    from transformers import TrainerCallback

    class Callback(TrainerCallback):  # type: ignore[misc, unused-ignore]
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            watch.begin(state)

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            watch.step_begins()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            due = control.should_log
            watch.step_ended(state)
            control.should_log = due  # logging an evaluation counts as the step's own otherwise

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            watch.logged(state, dict(logs or {}))

    return Callback()


def _bar(state: Any) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[says]}"), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    bar.add_task("training", total=state.max_steps, completed=state.global_step, says="")
    return bar


def read_metrics(path: Path) -> list[Json]:
    """The rows; a line that a killed process left half is none."""
    rows = []
    for line in path.read_text("utf-8").splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def _forget(path: Path, step: int) -> None:
    """What was logged after the checkpoint that the training goes on from."""
    kept = [row for row in read_metrics(path) if row.get("step", 0) <= step]
    path.write_text("".join(json.dumps(row) + "\n" for row in kept), "utf-8")
