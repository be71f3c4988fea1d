"""Tasks of the multi_step environment. Values are drawn for each task, so that they can only be known by asking."""

from __future__ import annotations

from random import Random

from rollforge.envs.generate import Kinds, generated
from rollforge.records.items import Json, system, user

TERMS: dict[str, tuple[str, tuple[str, ...]]] = {
    "Hot": ("Scorching Boiling Sweltering Torrid", ("The pan burned my hand.", "Ice melts here at once.")),
    "Cold": (
        "Freezing Frosty Icy Wintry",
        ("My breath turned to fog and the pond froze over.", "Bring gloves."),
    ),
    "Fast": ("Rapid Swift Speedy Brisk", ("The train covered 300 km in an hour.", "She ran 100 metres in 11 seconds.")),
    "Slow": ("Sluggish Unhurried Plodding Leaden", ("The snail took all day for a metre.", "The queue hardly moved.")),
    "Rich": ("Wealthy Affluent Opulent Moneyed", ("He owns three yachts and a bank.", "She bought the island in cash.")),
    "Poor": (
        "Needy Penniless Destitute Broke",
        ("They cannot pay for bread this week.", "His purse is empty."),
    ),
    "Old": ("Ancient Aged Antique Elderly", ("The oak was planted nine hundred years ago.", "My grandmother is 103.")),
    "Happy": ("Joyful Cheerful Merry Glad", ("She sang and danced when the letter came.", "He cannot stop smiling today.")),
    "Sad": ("Sorrowful Gloomy Tearful Mournful", ("He wept for a week after the farewell.", "Nobody could cheer her up.")),
    "Big": ("Huge Enormous Vast Giant", ("The ship is as long as four football fields.", "The hall seats ninety thousand.")),
    "Small": ("Tiny Little Minute Miniature", ("The chip fits on a grain of rice.", "You need a microscope to see it.")),
    "Quiet": ("Silent Hushed Noiseless Muted", ("You could hear a pin drop.", "In the library nobody said a word.")),
    "Loud": ("Noisy Deafening Thunderous Blaring", ("The drill made our ears ring.", "The speakers shook the windows.")),
    "Wet": ("Soaked Drenched Damp Soggy", ("I forgot my umbrella in the storm.", "Wring out the towel.")),
    "Dry": ("Arid Parched Waterless Dehydrated", ("It has not rained in the desert for years.", "The well is empty.")),
    "Brave": ("Courageous Fearless Heroic Valiant", ("She ran into the fire to save the dog.", "He faced the bear alone.")),
    "Dark": ("Dim Shadowy Murky Unlit", ("The lamp went out and we saw nothing.", "There is no moon tonight.")),
    "Clean": ("Spotless Immaculate Washed Pure", ("You could eat from this floor.", "Not a speck of dust was left.")),
    "Hard": ("Solid Rigid Stony Unyielding", ("The diamond scratched the steel.", "My teeth broke on the biscuit.")),
    "Smart": (
        "Clever Bright Intelligent Brainy",
        ("She solved the riddle in a second.", "At nine he reads six languages."),
    ),
}


@generated("multi_step", n=60)
def tasks() -> Kinds:
    """Rows as NeMo Gym's `example_multi_step` has them, with `values` besides: `{prompt, expected_synonyms,
    expected_synonym_values, minefield_label, minefield_label_value, values, kind, level}`. Level: how many terms are in the
    list, and how many synonyms each has."""
    return {"synonyms": _synonyms}


def _synonyms(rng: Random, level: int) -> tuple[str, Json]:
    terms = rng.sample(list(TERMS), (5, 10, 20)[level])
    chosen = terms[0]
    pairs = [(term, name) for term in terms for name in rng.sample(TERMS[term][0].split(), (2, 3, 4)[level])]
    rng.shuffle(pairs)
    names = [*(name for _, name in pairs), *terms]
    values = dict(zip(names, rng.sample(range(100, 1000), len(names)), strict=True))
    expected = [name for term, name in pairs if term == chosen]
    question = rng.choice(TERMS[chosen][1])
    listed = "\n".join(f"The term '{term}' has a synonym '{name}'." for term, name in pairs)
    row = {
        "prompt": [system(f"{RULES}\n\n# Synonyms\n{listed}"), user(question)],
        "expected_synonyms": expected,
        "expected_synonym_values": [values[name] for name in expected],
        "minefield_label": chosen,
        "minefield_label_value": values[chosen],
        "values": values,
    }
    return f"{question} {listed}", row


RULES = """\
One term of the list below fits what the user says. Get the value of each of its synonyms with get_synonym_value: of the
synonyms in the list, not of the term itself. Then hand the values in with extract_synonym_values, in the order in which the
synonyms stand in the list."""
