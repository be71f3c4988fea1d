"""Tasks of the citations environment: pages about inventions nobody knows, questions they answer, and a way to cite them."""

from __future__ import annotations

from functools import partial
from random import Random

from rollforge.envs.generate import Kinds, generated
from rollforge.records.items import Json, system, user
from rollforge.verify.formats import GRAMMARS, cited

THINGS = """
abacus barometer carousel compass dynamo elevator furnace gearbox harvester inkwell kiln lathe metronome odometer periscope
quadrant ratchet sextant telegraph umbrella ventilator windmill zipper
""".split()  # noqa: SIM905
PEOPLE = "Aldous Bettina Corbin Delia Edmund Flavia Gideon Hester Ingmar Jolanda Konrad Lavinia".split()  # noqa: SIM905
TOWNS = "Ambleford Bracken Coldwater Dunmere Eastvale Fernhill Greywick Holloway Ironbridge Juniper Kingsmoor".split()  # noqa: SIM905
EXAMPLE = "citation_xmpl"
"""The id that the instruction shows: citing it is no citation."""
_LETTERS = "abcdefghjkmnpqrstuvwyz23456789"


@generated("citations", n=80)
def tasks() -> Kinds:
    """Rows `{prompt, verifier, expected_answers, other_answers, claims, kind, level}`. Kinds: one (a question), two (two
    questions, two sources), none (no citations wanted). Level: how many pages; at `hard` snippets of pages are cited."""
    return {
        "one": partial(_row, golds=1, mode="cite"),
        "two": partial(_row, golds=2, mode="cite"),
        "none": partial(_row, golds=1, mode="no_cite"),
    }


def _row(rng: Random, level: int, golds: int, mode: str) -> tuple[str, Json]:
    count = (3, 5, 8)[level]
    things, years = rng.sample(THINGS, count), rng.sample(range(1700, 1900), count)
    facts = list(zip(things, rng.sample(PEOPLE, count), rng.sample(TOWNS, count), years, strict=True))
    pages, ids, sources = [], [], []
    for thing, person, town, year in facts:
        page = f"citation_{''.join(rng.choices(_LETTERS, k=4))}"
        said = [f"{person} built the first {thing} of its kind in {year}.", f"It was made in the workshops of {town}."]
        if level == 2:
            snippets = [f"{page}:snippet_{number}" for number in (1, 2)]
            pages.append(f"{thing}\n" + "\n".join(f"<{name}> {text}" for name, text in zip(snippets, said, strict=True)))
            ids += snippets
            sources.append(snippets)
        else:
            pages.append(f"<{page}> {thing}: {' '.join(said)}")
            ids.append(page)
            sources.append([page, page])
    rng.shuffle(pages)
    asked, answers, others, claims = [], [], [], []
    for (thing, person, town, year), source in list(zip(facts, sources, strict=True))[:golds]:
        what = rng.randrange(3)
        asked.append(
            (
                f"In which year was the first {thing} built?",
                f"Who built the first {thing}?",
                f"In which town was the {thing} made?",
            )[what]
        )
        answer = (str(year), person, town)[what]
        answers.append(answer)
        others += [str((other[3], other[1], other[2])[what]) for other in facts if other[0] != thing]
        claims.append([f"The {thing}: {answer}.", source[1 if what == 2 else 0]])
    grammar = rng.choice(list(GRAMMARS))
    row = {
        "prompt": [system(_instruction(mode, grammar, level)), user("\n\n".join([*pages, " ".join(asked)]))],
        "verifier": {
            "type": "citation_if",
            "mode": mode,
            "grammar": grammar,
            "id_kind": "snippet" if level == 2 else "full_source",
            "id_regex": "citation_[a-z0-9]{4}" + (":snippet_[0-9]+" if level == 2 else ""),
            "valid_id_set": ids,
            "expected_ids": sorted({source for _, source in claims}) if mode == "cite" else None,
            "expected_slack": 0,
            "min_valid_citations": 1,
        },
        "expected_answers": answers,
        "other_answers": [other for other in dict.fromkeys(others) if other not in answers],
        "claims": claims,
    }
    return f"{grammar} {mode} {asked} {pages}", row


def _instruction(mode: str, grammar: str, level: int) -> str:
    """What the policy is told of the citations."""
    only = "You answer briefly, only from the pages that you are given."
    if mode == "no_cite":
        return f"{only} Do not cite: the answer has no ids of pages in it."
    name = f"{EXAMPLE}:snippet_1" if level == 2 else EXAMPLE
    example = cited("The claim.", [name], grammar)
    what = "snippet" if level == 2 else "page"
    return f"{only} Cite the {what} that says it with each claim, exactly so: {example}\nWrite ids nowhere else."
