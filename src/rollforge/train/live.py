"""Live GRPO: TRL asks for rollouts, and the policy as it is now acts in an environment.

    TRL          rollout_func(prompts, trainer): each prompt repeated for its group; only the messages arrive, no row
    here         the prompt's last message names its task; weights to the sampler; one gather over all; trajectories back
    TRL          reward functions get what was returned beside the tokens: `verdict`; None has no part in the group's mean

TRL's own environment hooks (`environment_factory`) run reset, tools and rewards one completion after another, and never see
the final message; `rollout_func` leaves the loop to us. Source: trl/trainer/grpo_trainer.py, 1.16.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from rollforge.errors import SetupError
from rollforge.records.items import Json
from rollforge.records.messages import messages
from rollforge.records.rollout import Outcome, Rollout
from rollforge.records.task import Task
from rollforge.records.trajectory import Flaw, Trajectory, trajectory
from rollforge.train.play import Player, tried
from rollforge.train.policy import Sampler

TASK = "rollforge_task"
"""The key of a prompt's last message that names its task: TRL passes messages through as they are."""


@dataclass(slots=True)
class Counts:
    """What the rollouts of a training came to."""

    rollouts: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    flaws: Counter[str] = field(default_factory=Counter)
    """Rollouts with a reward whose tokens cannot be trained on, by kind."""
    seconds: float = 0.0
    """Wall-clock time in which the trainer waited for rollouts: sampling, tools, verification."""

    compared: int = 0
    """Tokens whose log probability was computed by the trainer's forward pass, too: those of one rollout a step."""
    apart: float = 0.0
    """The largest difference from the sampler's."""

    def row(self) -> Json:
        drifted = sum(self.flaws.values())
        share = drifted / self.rollouts if self.rollouts else 0.0
        return {
            "rollouts": self.rollouts,
            "outcomes": dict(self.outcomes),
            "flaws": dict(self.flaws),
            "drifted_share": share,
            "seconds": self.seconds,
            "log_probs": {"tokens": self.compared, "max": self.apart},
        }


class LiveRollouts:
    """TRL's `rollout_func`: `prompts` is the data set to train on, `reward` the reward function."""

    def __init__(
        self,
        player: Player,
        tasks: Sequence[Task],
        sampler: Sampler,
        loop: asyncio.Runner,
        *,
        seed: int = 0,
        sampling: Mapping[str, Any] | None = None,
    ) -> None:
        self._player = player
        self._tasks = tasks
        self._sampler = sampler
        self._seed = seed
        self._sampling = {"temperature": 1.0, **(sampling or {})}
        self._loop = loop
        self.counts = Counts()
        self.last: list[Rollout] = []
        """Of the latest step."""

    def prompts(self) -> list[Json]:
        """One row per task, for `datasets.Dataset.from_list`."""
        return [{"prompt": _prompt(task, number)} for number, task in enumerate(self._tasks)]

    def __call__(self, prompts: list[list[Json]], trainer: Any) -> Json:
        """Token ids, log probabilities and masks of one rollout per prompt, in order, and their verdicts.

        A rollout without a verdict, or whose tokens are not contiguous, is masked whole and has no reward.
        """
        began = time.perf_counter()
        self._sampler.sync()
        seen: Counter[int] = Counter()
        jobs = []
        for prompt in prompts:
            number = prompt[-1][TASK]
            jobs.append((self._tasks[number], seen[number]))
            seen[number] += 1
        # Another draw in every step, the same one when the training is resumed at it.
        seed = self._seed * 1_000_003 + trainer.state.global_step
        self.last = self._loop.run(self._play(jobs, seed))
        filler = trainer.processing_class.eos_token_id
        found = [self._taken(rollout, filler) for rollout in self.last]
        self.counts.seconds += time.perf_counter() - began
        self._compare(trainer, next((one for one, verdict in found if verdict is not None), None))
        return {
            "prompt_ids": [one.prompt_ids for one, _ in found],
            "completion_ids": [one.completion_ids for one, _ in found],
            "logprobs": [one.log_probs for one, _ in found],
            "env_mask": [one.mask for one, _ in found],
            "verdict": [reward for _, reward in found],
        }

    def _compare(self, trainer: Any, one: Trajectory | None) -> None:
        """The sampler's log probabilities with the trainer's: if these part, the gradient is that of another policy."""
        if one is None:
            return
        import torch

        model = trainer.accelerator.unwrap_model(trainer.model)
        ids = torch.tensor([[*one.prompt_ids, *one.completion_ids]], device=model.device)
        with torch.no_grad():
            logits = model(ids).logits[0, len(one.prompt_ids) - 1 : -1].float()
        trained = logits.log_softmax(-1).gather(-1, ids[0, len(one.prompt_ids) :, None])[:, 0].tolist()
        for theirs, ours, chosen in zip(trained, one.log_probs, one.mask, strict=True):
            if chosen:
                self.counts.compared += 1
                self.counts.apart = max(self.counts.apart, abs(theirs - ours))

    async def _play(self, jobs: Sequence[tuple[Task, int]], seed: int) -> list[Rollout]:
        play = partial(self._player.play, model=self._sampler.model, seed=seed, **self._sampling)
        return await asyncio.gather(*(tried(partial(play, task, index=index)) for task, index in jobs))

    def _taken(self, rollout: Rollout, filler: int) -> tuple[Trajectory, float | None]:
        counts = self.counts
        counts.rollouts += 1
        counts.outcomes[str(rollout.outcome)] += 1
        found = trajectory(rollout.output)
        if rollout.reward is not None and isinstance(found, Trajectory):
            return found, rollout.reward
        if isinstance(found, Flaw):
            if rollout.outcome is Outcome.SCORED:
                counts.flaws[found.kind] += 1
            # TRL wants a token at least.
            return Trajectory([filler], [filler], [0.0], [0], 0), None
        return replace(found, mask=[0] * len(found.mask)), None


def reward(completions: list[Any], verdict: list[float | None], **_: Any) -> list[float | None]:
    """TRL's reward function beside `LiveRollouts`: the verdicts that came with the rollouts."""
    if len(verdict) != len(completions):
        raise SetupError(f"TRL asks for {len(completions)} rewards and passed {len(verdict)} verdicts")
    return verdict


def _prompt(task: Task, number: int) -> list[Json]:
    """The messages, for TRL's logs, with the number of the task on the last."""
    chat = [{"role": one["role"], "content": str(one.get("content") or "")} for one in messages(task.params)]
    return [*chat[:-1], {**chat[-1], TASK: number}]
