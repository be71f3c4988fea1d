"""The dedup step: of rows with the same prompt, the same response or both, one is kept.

The tools are a part of the prompt: the policy sees them. What a task expects is not, but two tasks that ask the same and
expect something else are no duplicates: both stay, with a warning that names them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from typing import Any, Literal, get_args

import orjson

from rollforge.bulk.conversation import Turn
from rollforge.bulk.record import Record, digest
from rollforge.bulk.spill import Kept
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
    """What makes two rows the same: the prompt's roles and texts, with the tools and the expected answer; the response's,
    with reasoning, calls, what the tools returned; or both."""
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
        self.facts = {} if by == "response" else {"asked": asked}
        if by != "prompt":
            self.facts["response digest"] = response_digest
        if keep == "shortest":
            self.facts["response length"] = response_length
        self._reason = f"duplicate {what}"
        self._by, self._keep, self._within = by, keep, within

    def __call__(self, samples: Iterable[Sample], work: Workspace, /) -> Iterator[Sample | Drop]:
        rows = Distinct()
        with closing(work.keep(rows.watch(samples, self._key))) as kept:
            numbers, digests = rows.numbers()
            rank = ranked(self._keep, rows, kept, lambda sample: sample.facts["response length"])
            stays = rows.firsts(numbers, len(digests), rank)
            for row, (sample, first) in enumerate(zip(kept, stays[numbers].data, strict=True)):
                if first == row:
                    yield once(sample, work)
                else:
                    yield Drop(sample, self._reason, {"duplicate_of": work.place(*rows.place(first))})
            work.notes["distinct"] = len(digests)
            if self._by != "response":
                self._tell_of_answers(digests, stays, rows, work)

    def _key(self, sample: Sample) -> bytes:
        if self._by == "response":
            return scoped(sample.facts["response digest"], sample, self._within)
        known: bytes = sample.facts["asked"]
        what, answer = known[:16], known[16:]
        key = scoped(what + sample.facts["response digest"] if self._by == "both" else what, sample, self._within)
        # The first half says what is asked: where it is the same and the second is not, the expected answers differ.
        return key[:8] + (_number(key[8:]) ^ _number(answer)).to_bytes(8) if answer else key

    def _tell_of_answers(self, digests: Any, stays: Any, rows: Distinct, work: Workspace) -> None:
        import numpy as np

        again = np.flatnonzero(digests[1:, 0] == digests[:-1, 0])
        if len(again):
            pairs = (sorted(rows.place(int(stays[number])) for number in (one, one + 1)) for one in again[:_NAMED].tolist())
            named = "; ".join(" and ".join(work.line(*place) for place in pair) for pair in pairs)
            work.warnings.append(
                f"rows that ask the same expect different answers ({len(again):,} such pairs), and both stay: {named}"
                f"{'; ...' if len(again) > _NAMED else ''}. One of the two is wrong, or the prompt leaves something out"
            )


_NAMED = 3


def asked(record: Record) -> bytes:
    """16 bytes that say what is asked: the prompt, and the tools in any order; 8 more for the expected answer, if there is
    one."""
    what = digest(record.prompt + record.offered) if record.tools else record.prompt
    return what + _answer(record)


def beside(record: Record) -> bytes:
    """16 bytes that say which tools a row offers and which answer it expects; b"" without both."""
    tools, answer = record.tools, _answer(record)
    return digest((record.offered if tools else b"") + b"\0" + answer) if tools or answer else b""


def _answer(record: Record) -> bytes:
    _, answer = next(record.expected(), ("", None))
    if answer is None:
        return b""
    # 4 and "4" are one answer.
    said = answer.encode("utf-8", "replace") if isinstance(answer, str) else dumps(answer, sort_keys=True)
    return digest(said.strip())[:8]


def _number(half: bytes) -> int:
    return int.from_bytes(half)


def ranked(keep: Keep, rows: Distinct, kept: Kept[Sample], length: Callable[[Sample], int]) -> Any:
    """A number for every row, of which the lowest stays; None: the first does."""
    import numpy as np

    if keep == "best":
        return np.frombuffer(rows.rewards) * -1
    return np.fromiter(map(length, kept), np.int64, len(kept)) if keep == "shortest" else None


def once(sample: Sample, work: Workspace) -> Sample:
    """Without the copies that an earlier step made: they are duplicates."""
    if sample.copies > 1:
        work.notes["copies taken back"] = work.notes.get("copies taken back", 0) + sample.copies - 1
        sample.copies = 1
    return sample


def scoped(key: bytes, sample: Sample, within: Within) -> bytes:
    """16 bytes: the key, within the sample's environment or group."""
    if within == "all":
        return key if len(key) == 16 else digest(key)
    return digest(key + (sample.group if within == "group" else sample.env.encode("utf-8", "replace")))


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
