"""The tokens of a rollout against a checkpoint: do they say what its items say, and are they as likely as it says?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from rollforge.errors import SetupError, UserError
from rollforge.records.items import input_items
from rollforge.records.rollout import Rollout
from rollforge.train.flaws import Fault, TokenCall, around, excerpt
from rollforge.train.forward import Forward
from rollforge.train.tokens_said import misread

CLOSER = 4
"""So many times nearer to the sampler's numbers are those of another prompt before that one is believed,"""
NOISE = 1e-5
"""and only where its own are further off than rounding explains."""


@dataclass(slots=True)
class Agreement:
    """Of the sampler's log probabilities with a forward pass, over all tokens that were generated."""

    model: str
    by: str
    tolerance: float
    tokens: int = 0
    beyond: int = 0
    """Tokens that differ by more than the tolerance."""
    max: float = 0.0
    sum: float = 0.0
    worst: list[tuple[float, str, int | None]] = field(default_factory=list)
    """The largest difference of a rollout, its task and repeat; the worst five."""
    prompts: int = 0
    other_prompts: int = 0
    """Prompts that are not what the checkpoint's chat template writes for the conversation. Harmless where the log
    probabilities agree: the sampler did see these tokens."""

    @property
    def mean(self) -> float:
        return self.sum / self.tokens if self.tokens else 0.0

    def add(self, differences: Sequence[float], rollout: Rollout) -> None:
        self.tokens += len(differences)
        self.beyond += sum(difference > self.tolerance for difference in differences)
        self.sum += sum(differences)
        largest = max(differences, default=0.0)
        self.max = max(self.max, largest)
        self.worst = sorted([*self.worst, (largest, rollout.task, rollout.index)], key=lambda one: -one[0])[:5]


def disagreement(rollout: Rollout, calls: Sequence[TokenCall], forward: Forward, agreement: Agreement) -> Fault | None:
    """The first thing in which a rollout with contiguous tokens contradicts the checkpoint; what was computed goes into
    `agreement`. Raises `UserError` if the checkpoint computes nonsense."""
    for call in calls:
        wrong = misread(call.items, call.generated, rollout, forward)
        if wrong is not None:
            return Fault("text", call.number, f"{call.name}: {wrong.text}", wrong.said, wrong.decoded)
    computed = forward.log_probs(calls[-1].ids)
    if not math.isfinite(sum(computed)):
        raise UserError(f"{forward.name} computes log probabilities that are not finite: are its weights sound?")
    differences = [_differences(call.log_probs, computed[len(call.prompt) - 1 :]) for call in calls]
    agreement.add([one for of_call in differences for one in of_call], rollout)
    others = list(_other_prompts(rollout, calls, forward, agreement))
    for call, off in zip(calls, differences, strict=True):
        place = next((place for place, one in enumerate(off) if one > agreement.tolerance), None)
        if place is None:
            continue
        ours = computed[len(call.prompt) - 1 + place]
        says = (
            f"{call.name}: generated token {place + 1} has log probability {call.log_probs[place]:.4g} where the checkpoint"
        )
        says += f" gives {ours:.4g}"
        for other, prompt in others:
            if other.number <= call.number:
                says += f"; the prompt of {other.name} is not what the chat template writes"
                return Fault("disagrees", call.number, says, *around(prompt, other.prompt, forward))
        return Fault("disagrees", call.number, says, found=excerpt(call.ids, len(call.prompt) + place, forward))
    for other, prompt in others:
        theirs = _differences(other.log_probs, forward.log_probs([*prompt, *other.generated])[len(prompt) - 1 :])
        if max(NOISE, CLOSER * max(theirs)) < max(differences[calls.index(other)]):
            says = f"the log probabilities of {other.name} are those of the prompt that the chat template writes"
            return Fault("disagrees", other.number, says, *around(prompt, other.prompt, forward))
    return None


def _other_prompts(
    rollout: Rollout, calls: Sequence[TokenCall], forward: Forward, agreement: Agreement
) -> Iterator[tuple[TokenCall, list[int]]]:
    """The prompts that the chat template would have written otherwise, each with what it would have written."""
    given = input_items(rollout.params)
    for call in calls:
        try:
            prompt = forward.chat.prompt_ids({**rollout.params, "input": [*given, *rollout.output[: call.start]]})
        except SetupError:  # it cannot write this conversation at all
            return
        agreement.prompts += 1
        if prompt != call.prompt:
            agreement.other_prompts += 1
            yield call, prompt


def _differences(said: Sequence[float], computed: Sequence[float]) -> list[float]:
    return [abs(a - b) for a, b in zip(said, computed, strict=False)]
