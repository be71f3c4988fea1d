"""Full-text search over a few hundred pages: BM25 (Robertson and Zaragoza 2009, "The Probabilistic Relevance Framework")."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

K1, B = 1.2, 0.75
TITLE = 2
"""As often as it stands there, a word of the title counts."""
LONGEST_QUERY = 2000
"""Characters; what follows is not looked for."""

_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True, slots=True)
class Page:
    title: str
    url: str
    text: str


class Index:
    """Finds pages by their words; letter case and punctuation do not matter."""

    def __init__(self, pages: Sequence[Page]) -> None:
        self.pages = {page.url: page for page in pages}
        self._order = list(self.pages.values())
        self._found: dict[str, list[tuple[int, int]]] = {}
        lengths = []
        for place, page in enumerate(self._order):
            words = words_of(page.title) * TITLE + words_of(page.text)
            lengths.append(len(words))
            for word, count in Counter(words).items():
                self._found.setdefault(word, []).append((place, count))
        mean = sum(lengths) / len(lengths) if lengths else 1.0
        self._norms = [K1 * (1 - B + B * length / (mean or 1.0)) for length in lengths]

    def search(self, query: str, most: int) -> list[Page]:
        """The best pages, best first; of equals the one that was given first."""
        scores: dict[int, float] = {}
        for word in dict.fromkeys(words_of(query[:LONGEST_QUERY])):
            pages = self._found.get(word, ())
            rarity = math.log(1 + (len(self._order) - len(pages) + 0.5) / (len(pages) + 0.5))
            for place, count in pages:
                scores[place] = scores.get(place, 0.0) + rarity * count * (K1 + 1) / (count + self._norms[place])
        best = sorted(scores, key=lambda place: (-scores[place], place))[:most]
        return [self._order[place] for place in best]


def words_of(text: str) -> list[str]:
    return _WORD.findall(text.casefold())
