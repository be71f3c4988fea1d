"""Texts as words, and the hashes of their n-grams: what near duplicates and benchmark overlap compare.

The hashes depend on the text alone: the same in every process, on every machine, in every version that reads old splits.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

from rollforge.bulk.asked import role_of, up_to_user
from rollforge.bulk.record import digest
from rollforge.records.items import Json, text_of
from rollforge.records.lossless import dumps

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Hashes: TypeAlias = NDArray[np.uint64]


def normal(text: str, *, signs: bool = True) -> bytes:
    """The words in UTF-8, one space between them: NFKC, lower case, no punctuation or markup. Characters of scripts without
    spaces are a word each. Arithmetic signs stay if `signs`: 3 + 4 is not 3 - 4. Empty if there is no word."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text.encode("utf-8", "replace").decode()).replace("\u2212", "-")
        text = _NO_WORD[signs].sub(" ", text)
        text = _ALONE.sub(r" \g<0> ", text) if _ALONE.search(text) else text
    plain = text.lower().encode().translate(_ASCII[signs])
    return b" ".join(plain.split())


def tokens(text: str) -> bytes:
    """The words and the signs between them in UTF-8, one space between: two texts with the same tokens differ in white space
    and case only. Signs that stand together are one word (`a && b`, a row of a board), since every one may be the task."""
    found = _TOKEN[True]
    if not text.isascii():
        text = unicodedata.normalize("NFC", text.encode("utf-8", "replace").decode())
        text = _ALONE.sub(r" \g<0> ", text) if _ALONE.search(text) else text
        found = _TOKEN[False]
    return " ".join(found.findall(text.lower())).encode()


class Grams:
    """The n-grams of a text of words with one space between."""

    def __init__(self, words: bytes) -> None:
        import numpy as np

        letters = np.frombuffer(words, np.uint8)
        spaces = np.flatnonzero(letters == 32)
        self._starts = np.concatenate((_ZERO(), spaces + 1))
        self._ends = np.append(spaces, len(letters))
        powers, self._inverse = _powers(1 << max(len(letters), 1 << 12).bit_length())
        self._sums = np.zeros(len(letters) + 1, np.uint64)
        sums = self._sums[1:]
        np.cumsum(np.multiply(letters, powers[: len(letters)], out=sums), out=sums)

    def __len__(self) -> int:
        """The number of words."""
        return len(self._starts)

    def hashes(self, n: int) -> Hashes:
        """64 bits for each `n` words in a row; of fewer words than `n`, one for all of them."""
        count = max(len(self._starts) - n + 1, 1)
        return self._hashes(self._starts[:count], self._ends[-count:])

    @classmethod
    def of_many(cls, texts: Sequence[bytes], n: int) -> tuple[Hashes, NDArray[np.int64]]:
        """`hashes` of several texts, one after the other, and how many each has."""
        import numpy as np

        whole = cls(b" ".join(texts))
        words = np.array([text.count(b" ") + 1 for text in texts])
        counts = np.maximum(words - n + 1, 1)
        # Within its text the first word of every n-gram; the last one is n - 1 further, or the text's last.
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        first = within + np.repeat(np.cumsum(words) - words, counts)
        last = first + np.repeat(np.minimum(words, n) - 1, counts)
        return whole._hashes(whole._starts[first], whole._ends[last]), counts

    def _hashes(self, starts: Any, ends: Any) -> Hashes:
        import numpy as np

        # A polynomial over the bytes, of any stretch from two prefix sums (Karp and Rabin 1987); then mixed.
        found: Hashes = (self._sums[ends] - self._sums[starts]) * self._inverse[starts]
        found ^= found >> np.uint64(32)
        found *= np.uint64(0xD6E8FEB86659FD93)
        found ^= found >> np.uint64(32)
        return found


def asked(prompt: Sequence[Json], *, all_turns: bool = True) -> tuple[str, bytes]:
    """What a prompt asks: the text of its user turns (all turns if there is no user turn), and 16 bytes that stand for all
    beside: the other turns up to white space and case (if `all_turns`; else what follows the question is left out
    altogether), images and the like (b"" without any)."""
    prompt = prompt if all_turns else up_to_user(prompt) or prompt
    turns = [message for message in prompt if role_of(message) == "user"] or prompt
    others = [turn for turn in prompt if all_turns and turns is not prompt and role_of(turn) != "user"]
    beside = [*filter(None, map(_other, map(_with_calls, others))), *_beside_text(prompt)]
    return "\n".join(text_of(turn.get("content")) for turn in turns), digest(b"\0".join(beside)) if beside else b""


def said(messages: Iterable[Json]) -> str:
    """All that a model wrote: its texts with the reasoning, its calls with their arguments."""
    found = []
    for message in messages:
        if message.get("role") == "assistant":
            found.append(_with_calls(message))
    return "\n".join(found)


def _with_calls(message: Json) -> str:
    calls = (call["function"] for call in message.get("tool_calls") or ())
    return "\n".join([text_of(message.get("content")), *(f"{call['name']} {call['arguments']}" for call in calls)])


@lru_cache(16)
def _other(text: str) -> bytes:
    """16 bytes. The tasks of an environment mostly share their system turn."""
    words = tokens(text)
    return digest(words) if words else b""


def _beside_text(turns: Iterable[Json]) -> list[bytes]:
    contents = (turn.get("content") for turn in turns)
    parts = [part for content in contents if isinstance(content, list) for part in content if not _is_text(part)]
    return [dumps(parts, sort_keys=True)] if parts else []


def _is_text(part: Any) -> bool:
    return isinstance(part, str) or (isinstance(part, dict) and isinstance(part.get("text"), str))


_SIGNS = "+-/=<>^%"
_ASCII = {
    kept: bytes(code if code > 127 or chr(code).isalnum() or (kept and chr(code) in _SIGNS) else 32 for code in range(256))
    for kept in (True, False)
}
_MARKS = "\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0900-\u0dff"
# Vowel signs and other marks are no \w, but part of a word.
_NO_WORD = {
    True: re.compile(rf"[^\x00-\x7f\w{_MARKS}×÷±√∑∏∫≤≥≠≈∈∉⊂⊆∪∩∧∨¬→⇒]+"),
    False: re.compile(rf"[^\x00-\x7f\w{_MARKS}]+"),
}
_TOKEN = {
    True: re.compile(r"\w+|[^\w\s]+", re.ASCII),
    False: re.compile(rf"[\w{_MARKS}]+|[^\w\s{_MARKS}]+"),
}
"""By whether the text is ASCII."""
_ALONE = re.compile("[\u0e01-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")


_BASE = 0x9E3779B97F4A7C15
_MOST_KEPT = 1 << 20


def _powers(count: int) -> tuple[Hashes, Hashes]:
    # For texts beyond a megabyte the tables are made anew rather than kept.
    return (_kept_powers if count <= _MOST_KEPT else _kept_powers.__wrapped__)(count)


@cache
def _kept_powers(count: int) -> tuple[Hashes, Hashes]:
    import numpy as np

    def table(base: int) -> Hashes:
        factors = np.full(count, base, np.uint64)
        factors[0] = 1
        return np.multiply.accumulate(factors)

    return table(_BASE), table(pow(_BASE, -1, 1 << 64))


@cache
def _ZERO() -> Any:
    import numpy as np

    return np.zeros(1, np.int64)
