"""What can be wrong with the tokens of one rollout, as far as they show it themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rollforge.records.items import TOKEN_FIELDS, Item, model_calls
from rollforge.records.rollout import Rollout
from rollforge.records.trajectory import Flaw, trajectory
from rollforge.train.forward import Forward

Kind = Literal["missing", "unequal", "drift", "ids", "log_prob", "length", "text", "disagrees"]

LARGEST = 1e-4
"""A log probability may exceed 0 by rounding."""
SMALLEST = -1000.0
"""Nobody ever draws what is less likely; servers write -9999 for what they do not know."""


@dataclass(frozen=True, slots=True)
class Fault:
    kind: Kind
    call: int
    """0-based, among the model calls."""
    text: str
    seen: str = ""
    """Around the place: the tokens there should be; decoded where a tokenizer is known. As they are: not safe to print."""
    found: str = ""


@dataclass(frozen=True, slots=True)
class TokenCall:
    """A model call with token ids."""

    number: int
    start: int
    """Its first item among those of the output."""
    items: list[Item]
    prompt: list[int]
    generated: list[int]
    log_probs: list[float]

    @property
    def ids(self) -> list[int]:
        return [*self.prompt, *self.generated]

    @property
    def name(self) -> str:
        return f"model call {self.number + 1}"


def token_calls(output: Sequence[Item]) -> list[TokenCall]:
    found, start = [], 0
    for number, items in enumerate(model_calls(output)):
        while output[start] is not items[0]:
            start += 1
        prompt, generated, chosen = (items[-1].get(name) for name in TOKEN_FIELDS)
        if isinstance(prompt, list) and isinstance(generated, list) and prompt and generated:
            found.append(TokenCall(number, start, items, prompt, generated, chosen or []))
    return found


def own_fault(rollout: Rollout, calls: Sequence[TokenCall], forward: Forward | None) -> Fault | None:
    """The first flaw that needs no forward pass. `forward` only decodes, and bounds ids and lengths."""
    flaw = trajectory(rollout.output)
    if isinstance(flaw, Flaw):
        return _drift(flaw, calls, forward) if flaw.kind == "drift" else Fault(flaw.kind, flaw.call, flaw.text)
    if rollout.token_drift is not None:
        says = f"model call {rollout.token_drift + 1}: the collection noted that its prompt leaves what came before"
        return Fault("drift", rollout.token_drift, says)
    return next((fault for call in calls for fault in _impossible(call, forward)), None)


def around(seen: Sequence[Any], found: Sequence[Any], forward: Forward | None) -> tuple[str, str]:
    """Both at the first place where they differ."""
    place = parting(seen, found)
    return excerpt(seen, place, forward), excerpt(found, place, forward)


def parting(one: Sequence[Any], other: Sequence[Any]) -> int:
    """The first place where they differ; the end of the shorter one."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))


def excerpt(ids: Sequence[Any], place: int, forward: Forward | None) -> str:
    """What stands before the place, and from there on: decoded, or the ids."""
    show: Callable[[Sequence[Any]], str] = _numbers
    if forward is not None and all(_is_id(id, forward.vocab) for id in ids):
        show = forward.decode
    return f"{show(ids[max(0, place - 12) : place])} >>> {show(ids[place : place + 12])}"


def _drift(flaw: Flaw, calls: Sequence[TokenCall], forward: Forward | None) -> Fault:
    """With what stands around the first difference, and, if that can be told, how it came about."""
    at = next(place for place, call in enumerate(calls) if call.number == flaw.call)
    seen, prompt = calls[at - 1].ids, calls[at].prompt
    why = ""
    if forward is not None and all(_is_id(id, forward.vocab) for id in (*seen, *prompt)):
        again = forward.decode(prompt).startswith(forward.decode(seen))
        why = ": the same text in other tokens (tokenised again)" if again else ": another text (rendered again, or edited)"
    return Fault("drift", flaw.call, flaw.text + why, *around(seen, prompt, forward))


def _impossible(call: TokenCall, forward: Forward | None) -> Iterator[Fault]:
    vocab = None if forward is None else forward.vocab
    ids = call.ids
    if set(map(type, ids)) != {int} or min(ids) < 0 or (vocab is not None and max(ids) >= vocab):
        place = next(place for place, id in enumerate(ids) if not _is_id(id, vocab))
        known = "is no token id" if vocab is None else f"is none of the {vocab:,} token ids of the checkpoint"
        yield Fault("ids", call.number, f"{call.name}: {ids[place]!r} (token {place + 1}) {known}")
    for place, value in enumerate(call.log_probs):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not SMALLEST < value <= LARGEST:
            says = f"{call.name}: the log probability of generated token {place + 1} is {value!r}"
            yield Fault("log_prob", call.number, says)
            break
    if forward is not None and forward.context is not None and len(ids) > forward.context:
        yield Fault("length", call.number, f"{call.name}: {len(ids):,} tokens, the checkpoint takes {forward.context:,}")


def _is_id(value: Any, vocab: int | None) -> bool:
    return type(value) is int and value >= 0 and (vocab is None or value < vocab)


def _numbers(ids: Sequence[Any]) -> str:
    return " ".join(map(str, ids))
