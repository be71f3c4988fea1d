"""Tasks of the qa_f1 environment: questions about people nobody knows, answered from passages; most take two of them."""

from __future__ import annotations

from random import Random

from rollforge.envs.generate import Kinds, generated
from rollforge.records.items import Json

FIRST = """
Ada Bruno Carla Dmitri Elif Farid Greta Hugo Ines Jonas Kira Liam Mona Nils Olga Pavel Rosa Sven Tara Umar Vera Wim Yara Zeno
""".split()  # noqa: SIM905
LAST = """
Abbot Barros Castell Dunmore Eklund Ferrante Grieg Hallam Ivens Jarosz Kestrel Lindqvist Moreau Norling Okafor Petrov Quiroga
Rasmus Sorel Tanaka Ulrich Voss Weller Zander
""".split()  # noqa: SIM905
TOWNS = "Almere Brastad Corvin Dalmore Esker Fennick Galdar Hollin Istrel Jorvik Kelso Lumen Marwick Norrby".split()  # noqa: SIM905
RIVERS = "Arun Brena Calder Drava Esk Foyle Garda Halle Inn Jary Kamp Lech Mersa Nidda".split()  # noqa: SIM905
WORK = (
    "glass blower",
    "cellist",
    "botanist",
    "map maker",
    "bridge engineer",
    "chess teacher",
    "clock maker",
    "poet",
    "baker",
    "surveyor",
)


@generated("qa_f1", n=80)
def tasks() -> Kinds:
    """Rows `{prompt, question, expected_answer, kind, level}`. Kinds: lookup (one passage), bridge (two passages),
    comparison (who is older), same (yes or no). Level: how many passages."""
    return {"lookup": _lookup, "bridge": _bridge, "comparison": _comparison, "same": _same}


def _world(rng: Random, level: int) -> tuple[list[str], dict[str, Json], dict[str, str]]:
    """People with what is known of them, and the river of each town; all rivers, works and years are different."""
    count = (3, 5, 8)[level]
    names = [f"{a} {b}" for a, b in zip(rng.sample(FIRST, count), rng.sample(LAST, count), strict=True)]
    towns = rng.sample(TOWNS, count)
    facts = zip(names, towns, rng.sample(WORK, count), rng.sample(range(1890, 1990), count), strict=True)
    people = {name: {"town": town, "work": work, "year": year} for name, town, work, year in facts}
    return names, people, dict(zip(towns, rng.sample(RIVERS, count), strict=True))


def _row(rng: Random, question: str, answer: str, people: dict[str, Json], rivers: dict[str, str]) -> tuple[str, Json]:
    passages = [
        rng.choice(
            (
                "{name} was born in {town} in {year} and worked as a {work}.",
                "Born in {year}, {name} grew up in {town}, the place of birth, and became a {work}.",
                "{name}, a {work}, was born in the town of {town}. The year was {year}.",
            )
        ).format(name=name, **facts)
        for name, facts in people.items()
    ]
    passages += [f"The town of {town} lies on the river {river}." for town, river in rivers.items()]
    rng.shuffle(passages)
    listed = "\n".join(f"[{number}] {passage}" for number, passage in enumerate(passages, 1))
    form = 'Answer from these passages, as a JSON object and nothing else: {"answer": "<short answer>"}'
    prompt = f"{listed}\n\nQuestion: {question}\n\n{form}"
    return f"{question} {listed}", {"prompt": prompt, "question": question, "expected_answer": answer}


def _lookup(rng: Random, level: int) -> tuple[str, Json]:
    names, people, rivers = _world(rng, level)
    one = people[names[0]]
    question, answer = rng.choice(
        (
            (f"What was the profession of {names[0]}?", one["work"]),
            (f"In which town was {names[0]} born?", one["town"]),
            (f"In which year was {names[0]} born?", str(one["year"])),
            (f"Who was the {one['work']}?", names[0]),
        )
    )
    return _row(rng, question, answer, people, rivers)


def _bridge(rng: Random, level: int) -> tuple[str, Json]:
    names, people, rivers = _world(rng, level)
    one = people[names[0]]
    river = rivers[one["town"]]
    question, answer = rng.choice(
        (
            (f"On which river lies the town where {names[0]} was born?", river),
            (f"Which river flows past the town where the {one['work']} was born?", river),
            (f"Who was born in the town on the river {river}?", names[0]),
            (f"What was the profession of the person born in the town on the river {river}?", one["work"]),
        )
    )
    return _row(rng, question, answer, people, rivers)


def _comparison(rng: Random, level: int) -> tuple[str, Json]:
    names, people, rivers = _world(rng, level)
    pair = names[:2]
    by_year = sorted(pair, key=lambda name: int(people[name]["year"]))
    word = rng.choice(("first", "later"))
    question = f"Who was born {word}, {pair[0]} or {pair[1]}?"
    return _row(rng, question, by_year[0 if word == "first" else 1], people, rivers)


def _same(rng: Random, level: int) -> tuple[str, Json]:
    names, people, rivers = _world(rng, level)
    left, right = names[:2]
    same = rng.random() < 0.5
    if same:
        gone = people[right]["town"]
        people[right]["town"] = people[left]["town"]
        rivers.pop(gone)
    return _row(rng, f"Were {left} and {right} born in the same town?", "yes" if same else "no", people, rivers)
