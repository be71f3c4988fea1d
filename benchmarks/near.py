"""How well near duplicates are found: pairs of random texts with some words exchanged, against their exact similarity.

    python benchmarks/near.py

For texts of 12 to 1,000 words: the error of the estimated Jaccard similarity; how many of the pairs at or above the
threshold become one cluster (recall), and of the pairs from 0.85; how many of the pairs that do are at or above it
(precision); how many below 0.75 do.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from contextlib import closing

import numpy as np

from rollforge.curate.distinct import Signatures
from rollforge.curate.near import HASHES, THRESHOLD, WORDS, clusters, ring, signature_fact, signature_of, similarity
from rollforge.curate.words import asked, tokens


class Prompt:
    """As much of a record as a signature asks for."""

    def __init__(self, text: str) -> None:
        self.prompt = text.encode()
        self._text = text

    def prompt_messages(self) -> list[dict[str, str]]:
        return [{"role": "user", "content": self._text}]


def grams(text: str) -> set[tuple[bytes, ...]]:
    words = ring(tokens(asked([{"role": "user", "content": text}])[0]), WORDS).split(b" ")
    return {tuple(words[at : at + WORDS]) for at in range(len(words) - WORDS + 1)}


def pair(length: int, draw: random.Random) -> tuple[str, str]:
    """Two texts whose similarity lies between about 0.6 and 1."""
    words = [f"w{draw.randrange(100_000)}" for _ in range(length)]
    others = list(words)
    # One exchanged word changes WORDS n-grams of each text.
    for place in draw.sample(range(length), draw.randint(0, max(1, round(0.3 * length / WORDS)))):
        others[place] = f"w{draw.randrange(100_000)}"
    if length < 4 * WORDS:
        # One word of a short text is already a lot: here words are put in at the end.
        others = words + [f"w{draw.randrange(100_000)}" for _ in range(draw.randint(0, 2))]
    return " ".join(words), " ".join(others)


def measured(length: int, count: int) -> str:
    draw = random.Random(length)
    pairs = [pair(length, draw) for _ in range(count)]
    texts = [text for both in pairs for text in both]
    exact = np.array([len(one & other) / len(one | other) for one, other in ((grams(a), grams(b)) for a, b in pairs)])

    signature = signature_fact()[1]
    facts = signature.complete([signature(Prompt(text)) for text in texts])
    found = np.frombuffer(b"".join(map(signature_of, facts)), np.uint8).reshape(-1, HASHES)
    error = similarity(found[::2], found[1::2]) - exact

    with tempfile.TemporaryDirectory() as folder, closing(Signatures(folder, HASHES)) as signatures:
        for row, fact in enumerate(facts):
            signatures.add(row, row.to_bytes(8, "little"), signature_of(fact))
        signatures.settle(np.arange(len(texts), dtype=np.int32), len(texts))
        roots = clusters(signatures, THRESHOLD)
    near = roots[::2] == roots[1::2]
    true, clear = exact >= THRESHOLD, exact >= 0.85
    figures = (
        f"{length:,}",
        f"{np.sqrt((error**2).mean()):.3f}; {error.mean():.4f}",
        f"{near[true].mean():.3f}",
        f"{true[near].mean():.3f}",
        f"{near[clear].mean():.3f}",
        str((near & (exact < 0.75)).sum()),
    )
    return f"| {' | '.join(figures)} |"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--pairs", type=int, default=1000)
    count = arguments.parse_args().pairs
    print("| words | error of the estimate (rms; bias) | recall | precision | recall from 0.85 | found below 0.75 |")
    print("|---|---|---|---|---|---|")
    for length in (12, 30, 100, 1000):
        print(measured(length, count), flush=True)


if __name__ == "__main__":
    main()
