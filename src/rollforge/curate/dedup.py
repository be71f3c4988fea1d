"""The dedup step: of rows with the same prompt, the same response or both, one is kept."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from typing import Any, Literal, get_args

import orjson

from rollforge.bulk.conversation import Turn
from rollforge.bulk.record import Record, digest
from rollforge.config import Section
from rollforge.curate.distinct import Distinct
from rollforge.curate.step import Drop, Fact, Sample, Step, Workspace
from rollforge.errors import UserError, unknown
from rollforge.records.lossless import dumps, has_long_number, loads

By = Literal["prompt", "response", "both"]
Keep = Literal["first", "best", "shortest"]
Within = Literal["all", "env", "group"]


class DedupArgs(Section):
    by: By = "prompt"
    """What makes two rows the same: the prompt's roles and texts, the response's (with reasoning, calls, what the tools
    returned), or both."""
    keep: Keep = "first"
    """Which one stays: the first, the highest reward, the shortest response; of equals the first."""
    within: Within = "all"
    """Only rows of the same environment, or attempts at the same task, can be the same."""

    @classmethod
    def short(cls, value: Any) -> DedupArgs:
        if value is None or value is True:
            return cls()
        if not isinstance(value, str):
            raise UserError(f"dedup: {value!r} is not one of {', '.join(get_args(By))} (write: dedup: prompt)")
        if value not in get_args(By):
            raise unknown("kind of duplicate", value, get_args(By), "(in dedup)")
        return cls(by=value)


def steps(args: DedupArgs) -> list[Step]:
    return [Dedup(args.by, args.keep, args.within)]


class Dedup:
    """Memory: about 60 bytes per row, whatever the rows hold."""

    name: str
    facts: Mapping[str, Fact]

    def __init__(self, by: By = "prompt", keep: Keep = "first", within: Within = "all") -> None:
        what = "prompt and response" if by == "both" else by
        self.name = (
            f"dedup {what}{'' if keep == 'first' else f', keep {keep}'}{'' if within == 'all' else f' within {within}'}"
        )
        self.facts = {}
        if by != "prompt":
            self.facts["response digest"] = response_digest
        if keep == "shortest":
            self.facts["response length"] = response_length
        self._reason = f"duplicate {what}"
        self._by, self._keep, self._within = by, keep, within

    def __call__(self, samples: Iterable[Sample], work: Workspace, /) -> Iterator[Sample | Drop]:
        import numpy as np

        rows = Distinct()
        with closing(work.keep(rows.watch(samples, self._key))) as kept:
            numbers, digests = rows.numbers()
            rank = None
            if self._keep == "best":
                rank = np.frombuffer(rows.rewards) * -1
            elif self._keep == "shortest":
                rank = np.fromiter((sample.facts["response length"] for sample in kept), np.int64, len(kept))
            stays = firsts(numbers, len(digests), rank)
            for row, (sample, first) in enumerate(zip(kept, stays[numbers].data, strict=True)):
                if first == row:
                    yield sample
                else:
                    yield Drop(sample, self._reason, {"duplicate_of": rows.place(first)})
            work.notes["distinct"] = len(digests)

    def _key(self, sample: Sample) -> bytes:
        if self._by == "prompt":
            return scoped(sample.prompt, sample, self._within)
        response: bytes = sample.facts["response digest"]
        return scoped(response if self._by == "response" else sample.prompt + response, sample, self._within)


def scoped(key: bytes, sample: Sample, within: Within) -> bytes:
    """16 bytes: the key, within the sample's environment or group."""
    if within == "all":
        return key if len(key) == 16 else digest(key)
    return digest(key + (sample.group if within == "group" else sample.env.encode("utf-8", "replace")))


def firsts(numbers: Any, count: int, rank: Any = None) -> Any:
    """For every number below `count` its row with the lowest rank, of equals the first; 0 without a row."""
    import numpy as np

    order = np.argsort(numbers, kind="stable") if rank is None else np.lexsort((rank, numbers))
    found = np.zeros(count, np.int64)
    found[numbers[order][::-1]] = order[::-1]  # of those with one number the last assignment stays
    return found


def response_digest(record: Record) -> bytes:
    """16 bytes that say which response this is: roles, texts, calls with their arguments as values; no ids."""
    turns = record.response_turns()
    arguments = "\n".join([call.arguments or "" for turn in turns for call in turn.calls])
    value = loads if has_long_number(arguments.encode()) else orjson.loads
    try:
        said = orjson.dumps(_said(turns, value), option=orjson.OPT_SORT_KEYS)
    except TypeError:  # of numbers beyond 64 bits, of depth: each of the arguments by itself, to the same bytes
        said = dumps(_said(turns, _written), sort_keys=True)
    # Of kilobytes in half the time that `digest` takes.
    return hashlib.sha256(said).digest()[:16]


def response_length(record: Record) -> int:
    """Characters that the model wrote: reasoning, texts, arguments of calls."""
    from rollforge.curate.words import said

    return len(said(record.response_messages()))


def _said(turns: Iterable[Turn], value: Callable[[str], Any]) -> list[Any]:
    parts: list[Any] = []
    for turn in turns:
        calls: list[tuple[Any, ...]] = []
        for call in turn.calls:
            text = call.arguments or ""
            try:
                # The order of keys and the spaces of JSON do not count. What is no JSON is the text.
                calls.append((call.name, value(text)))
            except ValueError:
                calls.append((call.name, None, text))
        parts += turn.role, turn.content, turn.refusal or None, calls
    return parts


def _written(text: str) -> orjson.Fragment:
    return orjson.Fragment(dumps(loads(text), sort_keys=True))
