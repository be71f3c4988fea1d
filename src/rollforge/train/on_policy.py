"""Whether stored rollouts can be trained on token by token: every flaw found, counted and shown; memory constant.

One rollout counts once, with the first flaw that is found, in this order: token ids that are missing or do not follow each
other (`records.trajectory`), numbers that no sampler gives, and, against a checkpoint, tokens that say something else than
the items, and log probabilities that its forward pass does not give.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rollforge.records.items import Item, Json, item_type, model_calls, text_of
from rollforge.records.rollout import Rollout
from rollforge.records.rows import BadLine
from rollforge.train.agreement import Agreement, disagreement
from rollforge.train.flaws import Fault, Kind, own_fault, token_calls
from rollforge.train.forward import Forward

TOLERANCE = 1e-3
MOST_EXAMPLES = 3
MOST_NAMES = 20

KINDS: dict[Kind, tuple[str, str]] = {
    "missing": (
        "a model call has no token ids",
        "NeMo RL leaves the call out, and stops if no call of the rollout has them. Collect from an endpoint that gives "
        "token ids (vllm:..., transformers:..., tiny).",
    ),
    "unequal": (
        "not as many log probabilities as tokens",
        "The trainer would stop, or pair them wrongly. A proxy cut one of the two lists.",
    ),
    "drift": (
        "a prompt does not begin with all that was seen before it",
        'NeMo RL stops at the first ("Non-contiguous messages found"); verl\'s recipe for NeMo Gym empties the rollout; '
        "rollforge train masks it. Send the token ids of earlier turns back to the server; let nothing edit the history.",
    ),
    "ids": (
        "token ids that are no ids, or not in the vocabulary",
        "The trainer's embedding would fail, on a GPU without a word of explanation. Another tokenizer made them.",
    ),
    "log_prob": (
        "a log probability above 0, not finite, or smaller than anything ever drawn",
        "One makes the whole loss NaN or useless; NeMo RL stops at NaN.",
    ),
    "length": ("more tokens than the checkpoint takes", "Cut by the trainer, or beyond the positions it has learned."),
    "text": (
        "the tokens of a call do not say what its items say",
        "The reward was given for other words than those that would be learned.",
    ),
    "disagrees": (
        "log probabilities that the checkpoint does not give",
        "Another checkpoint, prompt or precision sampled: ratios start away from 1, and the gradient is biased.",
    ),
}
"""What each means, and what comes of it."""


@dataclass(frozen=True, slots=True)
class Example:
    fault: Fault
    env: str | None
    task: str
    index: int | None
    attempt: int


@dataclass(slots=True)
class OnPolicy:
    """What `inspect` found."""

    rollouts: int = 0
    """With a reward, and something said."""
    flaws: Counter[Kind] = field(default_factory=Counter)
    calls: dict[Kind, Counter[int]] = field(default_factory=dict)
    """In which model call, from 0."""
    examples: list[Example] = field(default_factory=list)
    unjudged: int = 0
    """Without a reward: no trainer gets them."""
    silent: int = 0
    """With a reward, but no model call said anything (the prompt filled the context)."""
    bad: int = 0
    """Lines that are no rollouts."""
    first_bad: str = ""
    model_calls: int = 0
    tokens: int = 0
    generated: int = 0
    """Of sound rollouts: all tokens, and those with mask 1."""
    sampled: Counter[str] = field(default_factory=Counter)
    """Rollouts by settings that make the sampler another policy than the model: `temperature 0.7`."""
    agreement: Agreement | None = None

    @property
    def flawed(self) -> int:
        return sum(self.flaws.values())

    @property
    def share(self) -> float:
        """Of rollouts that cannot be trained on token by token."""
        return self.flawed / self.rollouts if self.rollouts else 0.0

    def row(self) -> Json:
        counted = {name: getattr(self, name) for name in ("rollouts", "flawed", "share", "unjudged", "silent", "bad")}
        flaws = {
            kind: {"rollouts": count, "by_call": {str(call): n for call, n in sorted(self.calls[kind].items())}}
            for kind, count in self.flaws.items()
        }
        made = {"model_calls": self.model_calls, "tokens": self.tokens, "generated": self.generated}
        row: Json = {**counted, "flaws": flaws, **made, "sampled": dict(self.sampled)}
        row["examples"] = [asdict(one.fault) | {k: getattr(one, k) for k in _WHO} for one in self.examples]
        agreement = self.agreement
        row["agreement"] = agreement and {**asdict(agreement), "mean": agreement.mean}
        return row


_WHO = ("env", "task", "index", "attempt")


def inspect(
    rollouts: Iterable[Rollout | BadLine], *, forward: Forward | None = None, tolerance: float = TOLERANCE
) -> OnPolicy:
    """Look at each rollout with a reward; with `forward`, also at what its tokens say and how likely they are."""
    found = OnPolicy(agreement=None if forward is None else Agreement(forward.name, forward.by, tolerance))
    for rollout in rollouts:
        if isinstance(rollout, BadLine):
            found.bad += 1
            found.first_bad = found.first_bad or str(rollout)
        elif not rollout.outcome.judged:
            found.unjudged += 1
        elif not _says_anything(rollout.output):
            found.silent += 1
        else:
            found.rollouts += 1
            for setting in _settings(rollout, forward):
                if setting in found.sampled or len(found.sampled) < MOST_NAMES:
                    found.sampled[setting] += 1
            fault = _fault(rollout, forward, found)
            if fault is not None:
                _count(found, fault, rollout)
    return found


def _count(found: OnPolicy, fault: Fault, rollout: Rollout) -> None:
    found.flaws[fault.kind] += 1
    found.calls.setdefault(fault.kind, Counter())[fault.call] += 1
    if found.flaws[fault.kind] <= MOST_EXAMPLES:
        found.examples.append(Example(fault, rollout.env, rollout.task, rollout.index, rollout.attempt))


def _fault(rollout: Rollout, forward: Forward | None, found: OnPolicy) -> Fault | None:
    """The first flaw, None if there is none; a sound one is added to the counts of `found`."""
    calls = token_calls(rollout.output)
    fault = own_fault(rollout, calls, forward)
    if fault is None and forward is not None and found.agreement is not None:
        fault = disagreement(rollout, calls, forward, found.agreement)
    if fault is None:
        found.model_calls += len(calls)
        # Each prompt holds everything before it.
        found.tokens += len(calls[-1].ids)
        found.generated += sum(len(call.generated) for call in calls)
    return fault


def _settings(rollout: Rollout, forward: Forward | None) -> Iterator[str]:
    defaults: Any = {} if forward is None else forward.defaults
    for name, neutral in (("temperature", (1,)), ("top_p", (1,)), ("top_k", (0, -1)), ("min_p", (0,))):
        value = rollout.params.get(name)
        value = defaults.get(name) if value is None else value
        if value is not None and value not in neutral:
            yield f"{name} {value}"


def _says_anything(output: Sequence[Item]) -> bool:
    said = (item for items in model_calls(output) for item in items)
    return any(
        item_type(item) != "message" or text_of(item.get("content")) or item.get("generation_token_ids") for item in said
    )
