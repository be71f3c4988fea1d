"""A training from configuration to report.

    data, tasks ─► policy ─► evaluation ─► TRL, with evaluations in between ─► model/ ─► evaluation ─► report, curve

Everything is under `out`: the same configuration goes on from the last checkpoint, and returns at once when all is done.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rollforge import __version__
from rollforge.collect.closing import close
from rollforge.collect.config import CollectConfig, EnvConfig
from rollforge.collect.run import Collection
from rollforge.collect.run_dir import differences, intact, new_path, taken, write_json
from rollforge.config import validate
from rollforge.errors import SetupError, UserError
from rollforge.records.items import Json
from rollforge.records.shown import typed, without_secrets
from rollforge.records.task import Task
from rollforge.train.config import OPERATIONAL, TrainConfig
from rollforge.train.data import Data, learned_tasks, prepare, tasks_of
from rollforge.train.live import LiveRollouts
from rollforge.train.play import player
from rollforge.train.policy import Policy, Sampler, load_policy, need_for, sampler
from rollforge.train.report import evaluations, write_report
from rollforge.train.tasks import held_out_tasks, split_tasks, write_tasks
from rollforge.train.trainers import LARGE, SMALL, defaults, make_trainer
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
        need_for(config)
        self._config = config
        self.path = config.out or new_path("train", f"{config.method}-{config.model}")
        self._data: Data | None = None
        self._env: EnvConfig | None = None
        self._tasks: list[Task] = []
        """That grpo acts on."""
        self._not_measured: str | None = None
        self._policy: Policy
        self._sampler: Sampler
        self._to_close: list[Any] = []
        self._loop: asyncio.Runner

    def run(self) -> Trained:
        with self._settled() as about:
            if (self.path / REPORT).exists():
                return Trained(self.path, self.path / "model", json.loads((self.path / REPORT).read_text("utf-8")))
            self._prepare()
            write_json(self.path / ABOUT, {**about, "sources": self._data.sources if self._data else []})
            self._policy = load_policy(self._config)
            with asyncio.Runner() as self._loop:
                try:
                    report = self._train()
                finally:
                    self._loop.run(self._close())
            write_json(self.path / REPORT, report)
            return Trained(self.path, self.path / "model", report)

    # What it is about

    @contextmanager
    def _settled(self) -> Iterator[Json]:
        """The directory, locked, and what train.json says: that of the same configuration or none."""
        made_with = json.loads(self._config.model_dump_json(exclude={"out", *OPERATIONAL}))
        identity = without_secrets(made_with, marked=True)
        with taken(self.path, ABOUT, "training", by="training"):
            file = self.path / ABOUT
            if file.exists():
                with intact(file, "training"):
                    about: Json = json.loads(file.read_bytes())
                    before = {key: value for key, value in about["config"].items() if key not in OPERATIONAL}
                listed = "\n".join(f"  {line}" for line in differences(without_secrets(before, marked=True), identity))
                if listed:
                    what = f"{self.path} was begun with another configuration:\n{listed}\n"
                    raise UserError(f"{what}Give the same one to go on, or another --out.")
            else:
                created = time.strftime("%Y-%m-%dT%H:%M:%S%z")
                about = {"rollforge": __version__, "created": created, "config": identity, "versions": _versions()}
                write_json(file, about)
            yield about

    def _prepare(self) -> None:
        """The data, the environment, the tasks of both kinds: what is wrong with them is told before a model is loaded."""
        config = self._config
        if config.data:
            self._data = prepare(config, self.path / "data")
        named = self._data.env if self._data else None
        self._env = config.env or (EnvConfig(use=named) if named else None)
        self._measured_in = config.eval.env or self._env
        learned = learned_tasks(self._data.files) if self._data else frozenset()
        held_out: list[Task] | None = None
        if config.method == "grpo":
            if self._env is None:
                raise UserError("grpo acts in an environment, and the data does not say which: name it with --env")
            if self._data is not None:
                self._tasks = tasks_of(self._data.files)[: config.limit or TASKS]
            else:
                split = split_tasks(self._env, config.tasks, config.limit or self._most_tasks(), config.eval.limit)
                self._tasks, held_out = split.train, split.test
            learned = frozenset(task.id for task in self._tasks)
        if self._measured_in is None:
            self._not_measured = "the data does not say which environment it is from; name one with --env"
            return
        if held_out is None or config.eval.env or config.eval.tasks:
            held_out = held_out_tasks(self._measured_in, config.eval.tasks, config.eval.limit, learned)
        if held_out:
            write_tasks(self.path / "eval" / "tasks.jsonl", held_out)
        else:
            where = config.eval.tasks or self._measured_in.use
            self._not_measured = f"every task of {where} is learned from; name others with --eval-tasks"
            print(f"warning: it will not be measured: {self._not_measured}", file=sys.stderr)

    def _most_tasks(self) -> int:
        """As many as are used, if that is known."""
        config = self._config
        batch = config.batch or max(SMALL["grpo"].batch, LARGE["grpo"].batch)  # the policy is not loaded yet
        return min(TASKS, config.steps * max(1, batch // config.group)) if config.steps else TASKS

    # The work

    def _train(self) -> Json:
        config, policy = self._config, self._policy
        began = time.monotonic()
        for name, value in (("WANDB_DIR", self.path), ("TENSORBOARD_LOGGING_DIR", self.path / "tensorboard")):
            os.environ.setdefault(name, str(value))
        self._sampler = sampler(policy)
        self._to_close.append(self._sampler.model)
        live = self._live() if config.method == "grpo" else None
        watch = Watch(
            self.path / "metrics.jsonl",
            None if self._not_measured else self._measure,
            config.eval.every,
            live.counts if live else None,
        )
        last = _last_checkpoint(self.path / "checkpoints")
        self._forget_after(last)
        if not self._not_measured:
            watch.evaluated(0)
        files = self._data.files if self._data else []
        trainer = make_trainer(config, policy, self.path, files=files, live=live, callbacks=[callback(watch)])
        watch.log = trainer.log
        parameters = policy.parameters
        try:
            trainer.train(resume_from_checkpoint=last)
        except KeyboardInterrupt:
            print(f"interrupted: the same command with --out {typed(self.path)} goes on", file=sys.stderr)
            raise
        finally:
            watch.end()
        policy = replace(policy, model=trainer.accelerator.unwrap_model(trainer.model))
        steps = trainer.state.global_step
        if not self._not_measured:
            watch.evaluated(steps)
        _store(policy, self.path / "model", {"method": config.method, "began_with": config.model})
        usual = defaults(config.method, policy, config.lora is not None)
        return write_report(
            self.path,
            watch,
            {
                "method": config.method,
                "model": config.model,
                "env": self._measured_in.use if self._measured_in else None,
                "not_measured": self._not_measured,
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

    async def _close(self) -> None:
        for thing in self._to_close:
            await close(thing, lambda text: print(text, file=sys.stderr))

    def _live(self) -> LiveRollouts:
        assert self._env is not None
        acting = player(self._env.use, max_turns=self._config.max_turns)
        self._to_close.append(acting)
        return LiveRollouts(
            acting, self._tasks, self._sampler, self._loop, seed=self._config.seed, sampling=self._config.sampling
        )

    def _measure(self, step: int) -> float:
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
        return summary.tally.mean


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


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in ("torch", "transformers", "trl", "datasets", "peft"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
