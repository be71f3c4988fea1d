"""Questions over a corpus that is searched and read by tools: NeMo Gym's `google_search` without the network.

The corpus of a row is the invented `world` of that number, or the row's own `corpus` (`[{"title", "url", "text"}]`). Rows of
`google_search` work as they are: their tools have the same names, and without a `source` the box alone is graded, as there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from rollforge.envs.decorate import env
from rollforge.envs.search.index import Index, Page
from rollforge.envs.search.tasks import tasks
from rollforge.envs.search.world import world as world_of
from rollforge.errors import VerifierFault
from rollforge.models.base import Solution
from rollforge.verify.answer import after_thinking
from rollforge.verify.match import string_match

RESULTS = 5
SNIPPET = 90
"""Characters of a page that a result shows."""

ANSWERED, CITED = 0.8, 0.2


@env(name="search", tasks=tasks, inline=True)
class search:
    """Find the answer to a question by searching and reading pages, and say which page it is from."""

    def reset(self, world: int = 0, corpus: Sequence[Mapping[str, Any]] | None = None) -> None:
        self.index = world_of(world).index if corpus is None else Index(_pages(corpus))
        self.opened: set[str] = set()

    def search(self, query: str) -> list[dict[str, str]]:
        """Search the encyclopedia. Returns the best pages: title, url, how they begin.

        Args:
            query: words to look for.
        """
        return [
            {"title": page.title, "url": page.url, "snippet": page.text[:SNIPPET]}
            for page in self.index.search(query, RESULTS)
        ]

    def browse(self, url: str) -> str:
        """Read a page.

        Args:
            url: its address, as a search result gives it.
        """
        page = self.index.pages.get(url.strip())
        if page is None:
            raise ValueError(f"there is no page {url[:200]!r}")
        self.opened.add(page.url)
        return f"{page.title}\n\n{page.text}"

    def verify(self, reply: str, expected_answer: str, source: str | None = None) -> dict[str, Any]:
        """Most for the answer, if the page that has it was read: else it is a guess. The rest for naming that page too."""
        if source is None:
            return string_match(reply, expected_answer, "boxed", case_sensitive=True)
        if source not in self.index.pages:
            raise VerifierFault(f"source is {source!r:.200}, which is no page of the corpus")
        found = string_match(reply, expected_answer)
        right = found["reward"] == 1.0 and source in self.opened
        cited = right and _source(reply) == source
        parts = {"answered": ANSWERED * right, "cited": CITED * cited}
        return {
            "reward": sum(parts.values()),
            "reward_components": parts,
            "extracted_answer": found["extracted_answer"],
            "pages_read": len(self.opened),
        }

    def solve(self, expected_answer: str, path: Sequence[str] = (), source: str | None = None) -> Solution:
        if source is None:
            return f"\\boxed{{{expected_answer}}}"
        return (yield from _looked_up(path, expected_answer, source))


def _looked_up(path: Sequence[str], expected_answer: str, source: str) -> Solution:
    for name in path:
        results = json.loads((yield "search", {"query": name}))
        yield "browse", {"url": next(page["url"] for page in results if page["title"] == name)}
    return f"Answer: {expected_answer}\nSource: {source}"


_SOURCE = re.compile(r"^[ \t>*_-]{0,8}source[*_ \t]{0,4}:[*_ \t<(]{0,8}(\S+)[ \t]*$", re.IGNORECASE | re.MULTILINE)


def _source(reply: str) -> str | None:
    """The one page that a reply names; None if it names several, or none."""
    named = {found.rstrip(">)*_.,") for found in _SOURCE.findall(after_thinking(reply))}
    return named.pop() if len(named) == 1 else None


def _pages(corpus: Sequence[Mapping[str, Any]]) -> list[Page]:
    pages = []
    for place, row in enumerate(corpus):
        try:
            page = Page(row["title"], row["url"], row["text"])
        except (KeyError, TypeError) as error:
            raise VerifierFault(f"page {place} of the corpus needs a title, url and text: {row!r:.200}") from error
        if not all(isinstance(text, str) for text in (page.title, page.url, page.text)):
            raise VerifierFault(f"page {place} of the corpus has what is no text: {row!r:.200}")
        pages.append(page)
    return pages
