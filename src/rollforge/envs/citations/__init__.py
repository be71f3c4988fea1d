"""Answers that cite their sources as asked (`verify.formats.citations`): rows of NeMo Gym's `citation_if` work as they are.

Its own rows also say what the answer is. How ids are written is an expression of the row, and can take for ever, so the
verifier runs in a process of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rollforge.envs.citations.tasks import tasks
from rollforge.envs.decorate import env
from rollforge.errors import VerifierFault
from rollforge.records.items import Response, tool_calls
from rollforge.verify.formats import GRAMMARS, cited
from rollforge.verify.formats import citations as graded
from rollforge.verify.match import plain


def solve(verifier: Mapping[str, Any], claims: Sequence[Sequence[str]] = ()) -> str:
    ids = verifier.get("expected_ids") or list(verifier.get("valid_id_set") or ())[:1]
    pairs = claims or [("The pages say so.", name) for name in ids]
    if verifier.get("mode") == "no_cite" or verifier.get("grammar") not in GRAMMARS:
        return " ".join(claim for claim, _ in pairs) or "The pages say so."
    return " ".join(cited(claim, [name], str(verifier["grammar"])) for claim, name in pairs)


@env(name="citations", tasks=tasks, solve=solve)  # type: ignore[untyped-decorator]
def citations(
    reply: str,
    response: Response,
    verifier: Mapping[str, Any],
    expected_answers: Sequence[str] = (),
    other_answers: Sequence[str] = (),
) -> dict[str, Any]:
    """Answer from pages, and cite those that say it in the grammar that is asked for."""
    try:
        slack, minimum = int(verifier.get("expected_slack", 1)), int(verifier.get("min_valid_citations", 1))
    except (TypeError, ValueError) as error:
        raise VerifierFault(f"expected_slack or min_valid_citations of the row is no number: {error}") from None
    found = graded(
        reply,
        str(verifier.get("grammar")),
        verifier.get("valid_id_set") or (),
        verifier.get("expected_ids"),
        mode=verifier.get("mode") or "cite",
        id_regex=verifier.get("id_regex"),
        slack=slack,
        minimum=minimum,
        calls=len(tool_calls(response)),
    )
    if found["reward"] and not _stated(reply, expected_answers, other_answers):
        found |= {"reward": 0.0, "gate_failed": "answer"}
    return found


def _stated(reply: str, expected: Sequence[str], others: Sequence[str]) -> bool:
    """Whether all of these answers stand in the reply as whole words, and none of the others."""
    text = _words(reply)
    return all(_words(answer) in text for answer in expected) and not any(_words(answer) in text for answer in others)


def _words(text: str) -> str:
    return f" {' '.join(''.join(char if char.isalnum() else ' ' for char in plain(text)).split())} "
