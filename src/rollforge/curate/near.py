"""The near step: of prompts (or responses) that are nearly the same, one is kept.

Texts are compared as sets of n-grams of their words and signs, the last words followed by the first: one at the end, where
tasks of one template mostly differ, counts like any other. A signature estimates the Jaccard similarity of two sets
(MinHash, Broder 1997): by fast similarity sketching (Dahlgaard, Knudsen and Thorup 2017), with 8 bits of each value (b-bit
MinHash, Li and König 2010). Bands of it find candidates (locality-sensitive hashing), all of it confirms them, and what is
near the same third is one cluster (union-find).

    Signature (a fact, in the workers) ─► Distinct, Signatures (numbers; bytes on disk) ─► clusters ─► one of each stays
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import Field

from rollforge.bulk.record import Record, digest
from rollforge.config import Section
from rollforge.curate.dedup import Keep, Within, beside, once, ranked, scoped
from rollforge.curate.distinct import Distinct, Signatures
from rollforge.curate.step import Drop, Fact, Sample, Step, Workspace
from rollforge.curate.words import Grams, asked, said, tokens
from rollforge.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Of = Literal["prompt", "response"]
Compared = Literal["prompt", "question", "response"]
"""A question is a prompt whose turns beside those of the user do not count."""

THRESHOLD = 0.8
WORDS = 5
HASHES = 128


class NearArgs(Section):
    threshold: float = Field(THRESHOLD, ge=0.3, le=1)
    """Jaccard similarity of the n-grams of words and signs from which two texts are near duplicates; 1: they differ in white
    space and case only."""
    of: Of = "prompt"
    """`prompt`: prompts are compared, by their user turns; the other turns, the tools and the expected answer have to be the
    same. Every row of one that stays, stays. `response`: what the model wrote is compared, and one row stays."""
    keep: Keep = "first"
    """Which one stays: the first, the one with the highest reward, the shortest; of equals the first."""
    within: Within = "all"
    words: int = Field(WORDS, ge=1, le=50)
    """The n of the n-grams."""
    hashes: Literal[64, 128, 256, 512] = 128
    """Bytes of a signature: more of them estimate the similarity more exactly (standard error sqrt(J (1 - J) / hashes))."""

    @classmethod
    def short(cls, value: Any) -> NearArgs:
        if value is None or value is True:
            return cls()
        if type(value) in (int, float) and 0.3 <= value <= 1:
            return cls(threshold=value)
        raise UserError(f"near: {value!r} is no similarity from 0.3 to 1 (write: near: 0.8)")


def steps(args: NearArgs) -> list[Step]:
    return [Near(args)]


class Near:
    """Memory: about 70 bytes per row and 40 per distinct text, and of the signatures what has duplicates."""

    name: str
    facts: Mapping[str, Fact]

    def __init__(self, args: NearArgs) -> None:
        self.name = f"near duplicate {args.of}s, similarity >= {args.threshold:g}"
        self._args = args
        self._fact, signature = signature_fact(args.of, args.words, args.hashes)
        self.facts = {self._fact: signature} | ({"beside": beside} if args.of == "prompt" else {})

    def __call__(self, samples: Iterable[Sample], work: Workspace, /) -> Iterator[Sample | Drop]:
        with closing(Signatures(work.folder, self._args.hashes)) as signatures:
            yield from self._steps(samples, work, signatures)

    def _steps(self, samples: Iterable[Sample], work: Workspace, signatures: Signatures) -> Iterator[Sample | Drop]:
        import numpy as np

        args = self._args
        rows, scopes = Distinct(), array("Q")
        with closing(
            work.keep(rows.watch(samples, lambda sample: self._take(sample, len(rows), signatures, scopes)))
        ) as kept:
            numbers, digests = rows.numbers()
            count = len(digests)
            signatures.settle(numbers, count)
            of_text = np.zeros(count, np.uint64)
            of_text[numbers] = np.frombuffer(scopes, np.uint64)
            roots = clusters(signatures, args.threshold, of_text)
            rank = ranked(args.keep, rows, kept, lambda sample: length_of(sample.facts[self._fact]))
            stays = rows.firsts(roots[numbers], count, rank)[roots]
            alike = self._alike(signatures, numbers, stays)
            self._tell(work, roots)
            for row, sample in enumerate(kept):
                number = numbers[row]
                first = int(stays[number])
                if args.of == "prompt" and numbers[first] == number:
                    yield sample
                elif first == row:
                    yield once(sample, work)
                else:
                    evidence = {"duplicate_of": work.place(*rows.place(first)), "similarity": round(float(alike[number]), 2)}
                    yield Drop(sample, f"near duplicate {args.of}", evidence)

    def _take(self, sample: Sample, row: int, signatures: Signatures, scopes: array[int]) -> bytes:
        fact: bytes = sample.facts[self._fact]
        # The fact is there for another step's sake, too.
        about = sample.facts["beside"] if self._args.of == "prompt" else b""
        key = scoped((sample.prompt if self._args.of == "prompt" else key_of(fact)) + about, sample, self._args.within)
        signatures.add(row, key, signature_of(fact))
        # Only texts of one scope are compared. A signature cannot tell that texts are the same to the last word.
        scope = scoped(about + (key_of(fact) if self._args.threshold == 1 else b""), sample, self._args.within)
        scopes.append(int.from_bytes(scope[:8], "little"))
        return key

    def _alike(self, signatures: Signatures, numbers: Any, stays: Any) -> Any:
        """How similar every text is to that of the row which stays of its cluster."""
        import numpy as np

        found = np.ones(len(stays), np.float32)
        others = np.flatnonzero(numbers[stays] != np.arange(len(stays)))
        for at in range(0, len(others), _AT_ONCE):
            part = others[at : at + _AT_ONCE]
            found[part] = similarity(signatures.of(part), signatures.of(numbers[stays[part]]))
        return found

    def _tell(self, work: Workspace, roots: Any) -> None:
        import numpy as np

        sizes = np.bincount(roots, minlength=1)
        what = f"{self._args.of}s"
        work.notes.update(
            {
                what: len(roots),
                "clusters": int((sizes > 1).sum()),
                "largest": int(sizes.max()),
                "kept": int((sizes > 0).sum()),
            }
        )
        if self._args.of == "prompt" and sizes.max() >= 10 and sizes.max() > len(roots) / 4:
            work.warnings.append(
                f"{sizes.max():,} of {len(roots):,} prompts are near duplicates of one another: tasks of one "
                f"template with other values? Keep those with a higher threshold (near: 0.95)"
            )


# Signatures


def signature_fact(of: Compared = "prompt", words: int = WORDS, hashes: int = HASHES) -> tuple[str, Signature]:
    """The fact and the name that all steps call it by, so that it is computed once."""
    return f"near {of} {words} {hashes}", Signature(of, words, hashes)


class Text(NamedTuple):
    """What a signature is made of."""

    words: bytes
    """And signs: its `tokens`."""
    digest: bytes
    length: int
    """In characters."""
    salt: int
    """Texts are comparable only if it is the same: it stands for what they have beside words."""


@dataclass(frozen=True, slots=True)
class Signature:
    """A fact: the digest of the text (16 bytes), its length (4), its signature (`hashes`)."""

    of: Compared
    words: int
    hashes: int

    def __call__(self, record: Record) -> Text:
        if self.of == "response":
            return _text(said(record.response_messages()), b"")
        key = (self.of, record.prompt)
        found = _texts.get(key)
        if found is None:
            if len(_texts) >= 2048:
                _texts.clear()
            found = _texts[key] = _text(*asked(record.prompt_messages(), all_turns=self.of == "prompt"))
        return found

    def complete(self, texts: Sequence[Text]) -> list[bytes]:
        """The values of the fact, for many texts at once: array operations cost the same for one as for a thousand words."""
        distinct = list(dict.fromkeys(texts))
        made: dict[Text, bytes] = {}
        start = 0
        while start < len(distinct):
            stop, size = start, 0
            while stop < len(distinct) and (stop == start or size + len(distinct[stop].words) < _LETTERS):
                size += len(distinct[stop].words) + 1
                stop += 1
            some = distinct[start:stop]
            found = sketches(
                *gram_hashes([ring(text.words, self.words) for text in some], [text.salt for text in some], self.words),
                self.hashes,
            )
            for text, signature in zip(some, found, strict=True):
                made[text] = text.digest + text.length.to_bytes(4, "little") + signature.tobytes()
            start = stop
        return [made[text] for text in texts]


_texts: dict[tuple[str, bytes], Text] = {}
# Repeats of a task share the prompt and stand near each other.
_LETTERS = 1 << 16
"""So many at once: what is made of them stays in the cache of a core."""


def _text(text: str, beside: bytes) -> Text:
    words = tokens(text)
    return Text(words, digest(words + beside), len(text), int.from_bytes(beside[:8], "little"))


def ring(text: bytes, words: int) -> bytes:
    """The text with its beginning once more, so that it has as many n-grams as words."""
    first = text.split(b" ", words - 1)[: words - 1]
    return b" ".join((text, *first)) if len(first) == words - 1 else text


def key_of(fact: bytes) -> bytes:
    return fact[:16]


def length_of(fact: bytes) -> int:
    """In characters."""
    return int.from_bytes(fact[16:20], "little")


def signature_of(fact: bytes) -> bytes:
    return fact[20:]


def gram_hashes(texts: Sequence[bytes], salts: Sequence[int], words: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The hashes of all texts' n-grams, one text after the other, and how many each has."""
    import numpy as np

    hashes, counts = Grams.of_many(texts, words)
    if any(salts):
        salt = np.repeat(np.array(salts, np.uint64), counts)
        hashes = np.where(salt != 0, (hashes ^ salt) * np.uint64(_ODD), hashes)
    return hashes, counts


def sketches(hashes: NDArray[np.uint64], counts: NDArray[np.int64], size: int) -> NDArray[np.uint8]:
    """For each text `size` bytes; the share of places at which two of them agree estimates the sets' Jaccard similarity.

    The hashes of the texts stand one after the other; `counts` says how many each has.
    """
    import numpy as np

    # A round throws every hash into one of `size` bins; the first round that reaches a bin fills it, with the least value.
    # Few hashes need many rounds. A batch of them has 7 throws for each bin, so that one is mostly enough.
    salts = _salts(size)
    width = (size - 1).bit_length()
    least = np.full((len(counts), size), _NONE, np.uint64)
    flat = least.ravel()
    of = np.repeat(np.arange(len(counts)) * size, counts)
    start, left = 0, len(counts)
    while start < len(salts) and len(hashes):
        batch = max(1, min(-(-7 * size * left // len(hashes)), _THROWS // len(hashes)))
        rounds = salts[start : start + batch, None]
        throws, mixed = _room(len(rounds), len(hashes))
        np.bitwise_xor(hashes, rounds, out=throws)
        throws *= np.uint64(_ODD)
        throws ^= np.right_shift(throws, np.uint64(32), out=mixed)
        throws *= np.uint64(_ODD)
        bins = np.right_shift(throws, np.uint64(64 - width), out=mixed).view(np.int64)
        bins += of
        throws &= np.uint64((1 << 40) - 1)
        throws |= np.arange(start, start + len(rounds), dtype=np.uint64)[:, None] << np.uint64(40)
        np.minimum.at(flat, bins.ravel(), throws.ravel())
        start += batch
        empty = least.max(axis=1) == _NONE
        left = int(empty.sum())
        again = empty[of // size]
        hashes, of = hashes[again], of[again]
    # A hash of its own for each place: two values that agree by chance in 8 bits must not agree wherever they stand.
    least ^= np.arange(size, dtype=np.uint64) << np.uint64(56)
    least *= np.uint64(_ODD)
    least ^= least >> np.uint64(32)
    least *= np.uint64(_ODD)
    return (least >> np.uint64(56)).astype(np.uint8)


_THROWS = 1 << 16


@cache
def _scratch() -> NDArray[np.uint64]:
    import numpy as np

    return np.empty((2, _THROWS), np.uint64)


def _room(rows: int, columns: int) -> Any:
    """Two tables, the same memory at every turn: pages that the system has yet to give cost more than the arithmetic."""
    import numpy as np

    size = rows * columns
    return (_scratch() if size <= _THROWS else np.empty((2, size), np.uint64))[:, :size].reshape(2, rows, columns)


_NONE = (1 << 64) - 1


@cache
def _salts(size: int) -> NDArray[np.uint64]:
    """One for each round: enough of them that a single hash reaches every bin."""
    import numpy as np

    return np.frombuffer(hashlib.shake_128(b"rollforge near").digest(8 * 32 * size), "<u8").astype(np.uint64)


_ODD = 0xFF51AFD7ED558CCD


def similarity(one: Any, other: Any) -> Any:
    """The estimated Jaccard similarity of signatures, row by row: equal bytes, less those that are equal by chance."""
    equal = (one == other).mean(axis=-1)
    return ((equal - 1 / 256) / (1 - 1 / 256)).clip(0, 1)


# Clusters


def bands(size: int, threshold: float) -> tuple[int, int]:
    """(bytes in a band, number of bands): the widest bands that still find 98 % of the pairs at the threshold."""
    for width in range(8, 1, -1):
        count = size // width
        if 1 - (1 - threshold**width) ** count >= 0.98:
            return width, count
    return 1, size


def clusters(signatures: Signatures, threshold: float, scopes: NDArray[np.uint64] | None = None) -> NDArray[np.int32]:
    """For every text the lowest number of those that near duplicates connect it with: its own if there are none.

    Texts of different `scopes` are not compared. Where the numbers of texts follow from what they say, so do the clusters.
    """
    import numpy as np

    parents = np.arange(len(signatures), dtype=np.int32)
    if len(parents) < 2:
        return parents
    size = signatures.size
    width, count = bands(size, threshold)
    least = np.ceil(size * (threshold * 255 + 1) / 256 - 1e-9)
    for band in range(count):
        keys = signatures.band(band * width, width)
        if scopes is not None:
            keys ^= scopes * np.uint64(_ODD)
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        same = keys[1:] == keys[:-1]
        if not same.any():
            continue
        crowded = np.concatenate((same, [False])) | np.concatenate(([False], same))
        members, keys = order[crowded], keys[crowded]
        for _ in range(_REPRESENTATIVES):
            # Everybody who shares a band is compared with the first of them; those unlike it go on among themselves.
            new = np.ones(len(keys), bool)
            new[1:] = keys[1:] != keys[:-1]
            heads = members[np.flatnonzero(new)[np.cumsum(new) - 1]]
            apart = find(parents, heads) != find(parents, members)
            alike = ~apart
            asked_about = np.flatnonzero(apart)
            for at in range(0, len(asked_about), _AT_ONCE):
                part = asked_about[at : at + _AT_ONCE]
                one, other = heads[part], members[part]
                close = (signatures.of(one) == signatures.of(other)).sum(axis=1) >= least
                if scopes is not None:
                    close &= scopes[one] == scopes[other]
                alike[part] = close
                _join(parents, one[close], other[close])
            if alike.all():
                break
            members, keys = members[~alike], keys[~alike]
    return find(parents, np.arange(len(parents)))


_REPRESENTATIVES = 16
"""How many texts that share a band, but not much else, the others in it are compared with: all pairs would be quadratic."""
_AT_ONCE = 1 << 15


def find(parents: NDArray[np.int32], members: Any) -> NDArray[np.int32]:
    """The roots of the members."""
    roots: NDArray[np.int32] = parents[members]
    while (roots != (higher := parents[roots])).any():
        roots = higher
    return roots


def _join(parents: NDArray[np.int32], one: Any, other: Any) -> None:
    for left, right in zip(one.tolist(), other.tolist(), strict=True):
        while parents[left] != left:
            parents[left] = left = parents[parents[left]]
        while parents[right] != right:
            parents[right] = right = parents[parents[right]]
        parents[max(left, right)] = min(left, right)
