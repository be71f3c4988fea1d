"""A training from configuration to report.

    data, tasks ─► policy ─► evaluation ─► TRL, with evaluations in between ─► model/ ─► evaluation ─► report, curve

Everything is under `out`: the same configuration goes on from the last checkpoint, and returns at once when all is done.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rollforge import __version__
from rollforge.collect.config import CollectConfig, EnvConfig
from rollforge.collect.run import Collection
from rollforge.collect.run_dir import differences, take_lock, write_json
from rollforge.config import validate
from rollforge.errors import SetupError, UserError
from rollforge.records.items import Json
from rollforge.train.config import TrainConfig
from rollforge.train.curve import Point
from rollforge.train.data import Data, prepare, tasks_of
from rollforge.train.live import LiveRollouts
from rollforge.train.play import player
from rollforge.train.policy import Policy, Sampler, load_policy, need, sampler
from rollforge.train.report import evaluations, point_of, write_report
from rollforge.train.tasks import Split, held_out_tasks, split_tasks, write_tasks
from rollforge.train.trainers import defaults, make_trainer
from rollforge.train.watch import Watch, callback

ABOUT, REPORT = "train.json", "report.json"
TASKS = 100_000
"""Tasks that are read to be learned from, at most."""


@dataclass(frozen=True, slots=True)
class Trained:
    path: Path
    """The directory of the training."""
    model: Path
    """A Hugging Face checkpoint: `--model tiny:DIR` (a Llama) or `transformers:DIR` samples from it at once."""
    report: Json
    """As in report.json: the held-out rewards before and after, their difference with its interval, the curve, the costs."""


def train(config: TrainConfig) -> Trained:
    """Train, or go on with a training that was interrupted, or say what one that is complete came to.

    Raises `UserError` for what is wrong with the request: missing libraries, data, environments; another configuration than
    the one `config.out` was begun with.
    """
    return Training(config).run()


class Training:
    def __init__(self, config: TrainConfig) -> None:
        need("torch", "transformers", "trl", "datasets", "matplotlib", *config.track)
        self._config = config
        self.path = config.out or _new_path(config)
        self._data: Data | None = None
        self._env: EnvConfig | None = None
        self._split: Split | None = None
        self._policy: Policy
        self._sampler: Sampler
        self._loop: asyncio.Runner

    def run(self) -> Trained:
        with self._settled() as about:
            if (self.path / REPORT).exists():
                return Trained(self.path, self.path / "model", json.loads((self.path / REPORT).read_text("utf-8")))
            self._prepare()
            write_json(self.path / ABOUT, {**about, "sources": self._data.sources if self._data else []})
            self._policy = load_policy(self._config)
            with asyncio.Runner() as self._loop:
                report = self._train()
            write_json(self.path / REPORT, report)
            return Trained(self.path, self.path / "model", report)

    # What it is about

    @contextmanager
    def _settled(self) -> Iterator[Json]:
        """The directory, locked, and what train.json says: that of the same configuration or none."""
        self.path.mkdir(parents=True, exist_ok=True)
        identity = json.loads(self._config.model_dump_json(exclude={"out", "threads", "keep"}))
        lock = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            take_lock(lock, self.path, by="training")
            file = self.path / ABOUT
            if file.exists():
                about = json.loads(file.read_text("utf-8"))
                listed = "\n".join(f"  {line}" for line in differences(about["config"], identity))
                if listed:
                    what = f"{self.path} was begun with another configuration:\n{listed}\n"
                    raise UserError(f"{what}Give the same one to go on, or another --out.")
            else:
                others = sorted({entry.name for entry in self.path.iterdir()} - {".lock"})
                if others:
                    raise UserError(f"{self.path} is not empty and no training: it holds {', '.join(others[:3])}")
                created = time.strftime("%Y-%m-%dT%H:%M:%S%z")
                about = {"rollforge": __version__, "created": created, "config": identity, "versions": _versions()}
                write_json(file, about)
            yield about
        finally:
            os.close(lock)

    def _prepare(self) -> None:
        """The data, the environment, the tasks of both kinds: what is wrong with them is told before a model is loaded."""
        config = self._config
        if config.data:
            self._data = prepare(config, self.path / "data")
        named = self._data.env if self._data else None
        self._env = config.env or (EnvConfig(use=named) if named else None)
        measured_in = config.eval.env or self._env
        if config.method == "grpo":
            if self._env is None:
                raise UserError("grpo acts in an environment, and the data does not say which: name it with --env")
            if self._data is not None:
                learned = tasks_of(self._data.files)[: config.limit or TASKS]
                seen = frozenset(task.id for task in learned)
                assert measured_in is not None
                self._split = Split(learned, held_out_tasks(measured_in, config.eval.tasks, config.eval.limit, seen))
            else:
                self._split = split_tasks(self._env, config.tasks, config.limit or self._most_tasks(), config.eval.limit)
        if measured_in is not None and (self._split is None or config.eval.env or config.eval.tasks):
            tasks = held_out_tasks(measured_in, config.eval.tasks, config.eval.limit, frozenset())
            self._split = Split(self._split.train if self._split else [], tasks)
        self._measured_in = measured_in
        if self._split is not None:
            write_tasks(self.path / "eval" / "tasks.jsonl", self._split.test)

    def _most_tasks(self) -> int:
        """As many as are used, if that is known."""
        config = self._config
        return min(TASKS, config.steps * max(1, (config.batch or 128) // config.group)) if config.steps else TASKS

    # The work

    def _train(self) -> Json:
        config, policy = self._config, self._policy
        began = time.monotonic()
        for name, value in (("WANDB_DIR", self.path), ("TENSORBOARD_LOGGING_DIR", self.path / "tensorboard")):
            os.environ.setdefault(name, str(value))
        self._sampler = sampler(policy)
        live = self._live() if config.method == "grpo" else None
        watch = Watch(
            self.path / "metrics.jsonl",
            self._measure if self._split else None,
            config.eval.every,
            live.counts if live else None,
        )
        last = _last_checkpoint(self.path / "checkpoints")
        self._forget_after(last)
        if self._split:
            watch.evaluated(0)
        files = self._data.files if self._data else []
        trainer = make_trainer(config, policy, self.path, files=files, live=live, callbacks=[callback(watch)])
        watch.log = trainer.log
        parameters = policy.parameters
        try:
            trainer.train(resume_from_checkpoint=last)
        except KeyboardInterrupt:
            print(f"interrupted: the same command with --out {self.path} goes on", file=sys.stderr)
            raise
        finally:
            watch.end()
        policy = replace(policy, model=trainer.accelerator.unwrap_model(trainer.model))
        steps = trainer.state.global_step
        if self._split:
            watch.evaluated(steps)
        _store(policy, self.path / "model", {"method": config.method, "began_with": config.model})
        self._loop.run(_closed(self._sampler.model))
        usual = defaults(config.method, policy, config.lora is not None)
        return write_report(
            self.path,
            watch,
            {
                "method": config.method,
                "model": config.model,
                "env": self._measured_in.use if self._measured_in else None,
                "parameters": parameters,
                "device": policy.device,
                "seed": config.seed,
                "steps": steps,
                "learning_rate": config.learning_rate or usual.learning_rate,
                "batch": config.batch or usual.batch,
                "seconds": {"all": time.monotonic() - began},
            },
        )

    def _forget_after(self, checkpoint: str | None) -> None:
        """Evaluations of weights that are no more: those after the checkpoint that the training goes on from."""
        last = int(checkpoint.rpartition("-")[2]) if checkpoint else 0
        for step, run in evaluations(self.path / "eval").items():
            if step > last:
                shutil.rmtree(run)

    def _live(self) -> LiveRollouts:
        assert self._env is not None
        assert self._split is not None
        acting = player(self._env.use, max_turns=self._config.max_turns)
        return LiveRollouts(
            acting, self._split.train, self._sampler, self._loop, seed=self._config.seed, sampling=self._config.sampling
        )

    def _measure(self, step: int) -> Point:
        """The policy as it is, on the held-out tasks: a run directory like any other."""
        assert self._measured_in is not None
        out, how = self.path / "eval" / f"step-{step}", self._config.eval
        self._sampler.sync()
        sampling: Json = {"temperature": how.temperature}
        if how.max_output_tokens:
            sampling["max_output_tokens"] = how.max_output_tokens
        values: Json = {
            "env": {"use": self._measured_in.use},
            "model": {"use": f"{self._config.model} after {step} steps of {self.path.name}" if step else self._config.model},
            "tasks": self.path / "eval" / "tasks.jsonl",
            "repeats": how.repeats,
            "sampling": sampling,
            "seed": how.seed,
            "agent": {"max_turns": self._config.max_turns},
            "out": out,
            "min_coverage": 0.0,
        }
        collection = Collection(validate(CollectConfig, values, "the evaluation"), None, self._sampler.model)
        summary = self._loop.run(collection.run())
        if summary.stopped is not None:
            raise KeyboardInterrupt
        if summary.tally.mean is None:
            raise SetupError(f"none of the {summary.tally.total} rollouts of the evaluation has a reward: {out}")
        return point_of(out, step)


async def _closed(model: Any) -> None:
    close = getattr(model, "aclose", None)
    if close is not None:
        await close()


def _store(policy: Policy, directory: Path, about: Json) -> None:
    """Whole or not at all."""
    partial = directory.with_name(f".partial-{directory.name}")
    shutil.rmtree(partial, ignore_errors=True)
    policy.save(partial)
    write_json(partial / "rollforge.json", {"rollforge": __version__, **about})
    shutil.rmtree(directory, ignore_errors=True)
    partial.rename(directory)


def _last_checkpoint(folder: Path) -> str | None:
    """The latest that was written to its end; what a killed process left of one is removed."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)
    for path in found:
        try:
            json.loads((path / "trainer_state.json").read_text("utf-8"))  # written last
        except (OSError, ValueError):
            shutil.rmtree(path)
            continue
        print(f"going on from {path}", file=sys.stderr)
        return str(path)
    return None


def _new_path(config: TrainConfig) -> Path:
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", f"{config.method}-{config.model}").strip("-.")[-60:]
    return Path("runs") / f"train-{name}-{time.strftime('%Y%m%d-%H%M%S')}"


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in ("torch", "transformers", "trl", "datasets", "peft"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
