from __future__ import annotations

import random
from contextlib import closing
from hashlib import sha256
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollforge.bulk.record import Record
from rollforge.curate.dedup import DedupArgs
from rollforge.curate.dedup import steps as dedup_steps
from rollforge.curate.distinct import Signatures
from rollforge.curate.near import NearArgs, Signature, bands, clusters, signature_of, similarity, steps
from rollforge.curate.run import curate_rollouts
from rollforge.curate.words import Grams, normal
from rollforge.errors import UserError
from rollforge.records.items import function_call, function_call_output, system, user
from tests.curate.sampled import Result, line, ran, samples
from tests.seeds import printed

WORDS = [f"w{number}" for number in range(3000)]


def text(rng: random.Random, length: int) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(length))


def edited(rng: random.Random, text: str, words: int) -> str:
    changed = text.split()
    for place in rng.sample(range(len(changed)), words):
        changed[place] = rng.choice(WORDS)
    return " ".join(changed)


def jaccard(one: str, other: str, n: int = 5) -> float:
    def grams(text: str) -> set[tuple[str, ...]]:
        words = text.split()
        ring = words + words[: n - 1]
        return {tuple(ring[at : at + n]) for at in range(len(words))}

    a, b = grams(one), grams(other)
    return len(a & b) / len(a | b)


def signature(text: str, size: int = 128) -> Any:
    fact = Signature("prompt", 5, size)
    return np.frombuffer(signature_of(fact.complete([fact(Record(line(text)))])[0]), np.uint8)


def test_similar_prompts_are_one_cluster_and_one_prompt_stays_with_all_its_rows() -> None:
    rng = random.Random(1)
    first = text(rng, 120)
    other = edited(rng, first, 1)
    lines = [line(first), line(other), line(first, "again"), line(other), line(text(rng, 120))]
    result = ran(steps(NearArgs()), lines)
    assert result.places == [0, 2, 4]
    assert result.dropped[1].reason == "near duplicate prompt"
    evidence = result.dropped[3].evidence
    assert evidence is not None
    assert evidence["duplicate_of"] == {"file": "0", "byte": 0}
    assert abs(evidence["similarity"] - jaccard(first, other)) < 0.1
    assert result.notes == {"prompts": 3, "clusters": 1, "largest": 2, "kept": 2}


def test_which_one_stays() -> None:
    rng = random.Random(2)
    long = text(rng, 100)
    short = " ".join(long.split()[:98])
    lines = [line(long, reward=0), line(short, reward=0), line(long + " end", reward=1), line(long, reward=0.5)]
    assert ran(steps(NearArgs(keep="best")), lines).places == [2]
    assert ran(steps(NearArgs(keep="shortest")), lines).places == [1]
    assert ran(steps(NearArgs()), lines).places == [0, 3]


def test_the_writing_does_not_count_the_signs_of_arithmetic_do() -> None:
    same = ["Compute, please: WHAT is 3 + 4?", "compute please “what” is\n3 + 4", "**Compute** please: what is 3 + 4"]
    assert len({normal(text) for text in same}) == 1
    assert normal("3 - 4") != normal("3 + 4") != normal("3 4")
    assert normal("3 - 4", signs=False) == normal("3 + 4", signs=False)
    assert normal("ﬁne　Ｔext") == b"fine text"
    assert normal("数学题") == "数 学 题".encode()
    assert normal("!?") == b""
    assert normal("caf\u0065\u0301 \ud800x").startswith("café".encode())


def test_the_system_turn_does_not_make_tasks_alike_but_counts_alone() -> None:
    rng = random.Random(3)
    rules = text(rng, 400)
    lines = [line([system(rules), user(f"add {n} and {n + 1}")]) for n in range(5)]
    assert ran(steps(NearArgs()), lines).places == [0, 1, 2, 3, 4]
    assert ran(steps(NearArgs()), [line([system(rules)]), line([system(edited(rng, rules, 1))])]).places == [0]


def test_equal_texts_about_different_images_are_not_near() -> None:
    def asks(image: str, extra: str = "") -> bytes:
        parts = [
            {"type": "input_text", "text": "what is to be seen in this image " + " ".join(WORDS[:40]) + extra},
            {"type": "input_image", "image_url": image},
        ]
        return line([{"role": "user", "content": parts}])

    assert ran(steps(NearArgs()), [asks("a"), asks("b"), asks("a", "?")]).places == [0, 1]


def test_prompts_of_signs_only_or_of_nothing() -> None:
    assert ran(steps(NearArgs()), [line("??"), line("!!"), line(""), line("??", "x"), line("🙂")]).places == [0, 1, 2, 3, 4]
    assert ran(steps(NearArgs()), []).places == []


@pytest.mark.parametrize("threshold", [0.8, 1])
@pytest.mark.parametrize(
    "tasks",
    [
        [f"Simplify: {task}" for task in ("a & b", "a | b", "a ^ b", "!a & b", "~(a|b)", "a ? b : b", "(a) b")],
        [
            f"Compute exactly: {task}"
            for task in ("3! 4", "3 4!", "3.4", "34%", "|3| 4", "[3, 4)", "(3, 4]", "$3$ 4", "x²", "x2")
        ],
        [
            f"What does this regular expression match? {task}"
            for task in (r"a.b", r"a*b", r"a?b", r"^a$b", "ab*", "ab?", "ab.")
        ],
        [f"What does this mean? Answer in one short sentence please: {task}" for task in "😀😡🚀🍎→←∀∃√∫≠"],
        [f"Solve the Sokoban puzzle:\n{row}\n##\n#" for row in ("#_O#", "#O_#", "##O#", "#_X#", "_OX_", "__OX", "√#__")],
    ],
)
def test_tasks_of_other_signs_are_other_tasks(tasks: list[str], threshold: float) -> None:
    found = ran(steps(NearArgs(threshold=threshold)), map(line, tasks))
    assert found.places == list(range(len(tasks)))
    again = [f" {task.upper()}\n".replace(" ", "  ") for task in tasks]
    assert ran(steps(NearArgs(threshold=threshold)), map(line, tasks + again)).places == found.places


def test_copies_of_a_response_are_duplicates_and_those_of_a_prompt_are_rows_of_it() -> None:
    for of, copies in (("prompt", 10), ("response", 1)):
        (step,) = steps(NearArgs(of=of))
        given = samples([line("a question", "a reply")], step)
        given[0].copies = 10
        assert Result(step, given).kept[0].copies == copies


def test_at_a_threshold_of_one_a_word_of_thousands_counts() -> None:
    rng = random.Random(11)
    long = text(rng, 4000)
    lines = [line(long), line(edited(rng, long, 1)), line(long.upper())]
    assert ran(steps(NearArgs(threshold=1)), lines).places == [0, 1]
    assert ran(steps(NearArgs()), lines).places == [0]


def test_prompts_that_differ_beside_the_user_turns_are_other_tasks() -> None:
    rng = random.Random(12)
    asks = "Schedule the meetings above so that no two of them overlap, and give me the final list."
    rules = [text(rng, 30) for _ in range(20)]
    lines = [line([system(each), user(asks)]) for each in rules]
    assert ran(steps(NearArgs(threshold=0.5)), lines).places == list(range(20))
    talks = [line([user("hi"), {"role": "assistant", "content": each}, user(asks)]) for each in rules[:3]]
    assert ran(steps(NearArgs()), talks).places == [0, 1, 2]
    # White space and case are no difference there, either.
    again = [line([system(each.upper() + "\n"), user(asks + " ")]) for each in rules]
    assert ran(steps(NearArgs()), lines + again).places == list(range(20))


def test_prompts_with_other_tools_or_answers_stay() -> None:
    def tool(name: str) -> dict[str, Any]:
        return {"type": "function", "name": name, "parameters": {"type": "object", "properties": {}}}

    rng = random.Random(13)
    asks = text(rng, 80)
    params = [{"input": ask, "tools": [tool(name)]} for ask in (asks, asks + " now") for name in ("search", "open")]
    lines = [line("", responses_create_params=each) for each in params]
    assert ran(steps(NearArgs()), lines).places == [0, 1]
    answers = [line(asks, expected_answer=4), line(asks + " now", expected_answer="4 "), line(asks, expected_answer=5)]
    assert ran(steps(NearArgs()), [*answers, line(asks)]).places == [0, 2, 3]
    assert ran(steps(NearArgs(of="response")), [*answers, line(asks)]).places == [0]


def test_within() -> None:
    rng = random.Random(4)
    first = text(rng, 60)
    other = first + " more"
    lines = [line(first, env="one"), line(other, env="two"), line(other, env="one")]
    assert ran(steps(NearArgs()), lines).places == [0]
    assert ran(steps(NearArgs(within="env")), lines).places == [0, 1]
    assert ran(steps(NearArgs(within="group")), lines).places == [0, 1, 2]


def test_prompts_with_other_calls_are_no_duplicates() -> None:
    def asked(date: int) -> list[Any]:
        calls = [function_call("book", f'{{"date": {date}}}', "c"), function_call_output("c", "ok")]
        return [user("Book it."), *calls, user("For when did you book it, and what did it cost?")]

    lines = [line(asked(1)), line(asked(2)), line(asked(1))]
    for made in (steps(NearArgs()), dedup_steps(DedupArgs())):
        assert [place for place in ran(made, lines).places if place < 2] == [0, 1]


def test_responses() -> None:
    rng = random.Random(5)
    reply = text(rng, 100)
    lines = [line("a", reply), line("b", reply + " yes"), line("a", reply), line("a", text(rng, 100))]
    result = ran(steps(NearArgs(of="response")), lines)
    assert result.places == [0, 3]
    assert result.dropped[1].reason == "near duplicate response"
    assert ran(steps(NearArgs(of="response", within="group")), lines).places == [0, 1, 3]


def test_responses_are_compared_whatever_other_steps_ask_of_the_rows(tmp_path: Path) -> None:
    rng = random.Random(5)
    reply = text(rng, 100)
    rows = tmp_path / "rows.jsonl"
    rows.write_bytes(b"\n".join(line(text(rng, 50), reply, expected_answer=answer) for answer in "12"))
    responses = {"near": {"of": "response"}}
    for number, more in enumerate([[], [{"near": {"of": "prompt"}}]]):
        report = curate_rollouts(rows, tmp_path / f"out{number}", recipe={"steps": [responses, *more]}).report
        assert report.stages[1].kept == 1


def test_a_template_that_swallows_the_data_is_warned_of() -> None:
    rng = random.Random(6)
    rules = text(rng, 200)
    result = ran(steps(NearArgs()), [line(f"{rules} add {n}") for n in range(40)])
    assert result.places == [0]
    assert "40 of 40 prompts" in result.warnings[0]
    assert "near: 0.95" in result.warnings[0]


@pytest.mark.parametrize("length", [8, 40, 300])
def test_the_estimate_is_unbiased_and_as_exact_as_it_says(length: int) -> None:
    rng = random.Random(length)
    errors = []
    for _ in range(300):
        one = text(rng, length)
        other = edited(rng, one, rng.randint(0, max(length // 15, 1)))
        errors.append(float(similarity(signature(one), signature(other))) - jaccard(one, other))
    assert abs(np.mean(errors)) < 0.01
    assert np.sqrt(np.mean(np.square(errors))) < 0.045  # sqrt(J (1 - J) / 128) is at most 0.044


@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.9])
def test_precision_and_recall_against_exact_jaccard(threshold: float, tmp_path: Path) -> None:
    rng = random.Random(7)
    texts = []
    for _ in range(300):
        one = text(rng, rng.choice([30, 100, 250]))
        texts += [one, edited(rng, one, rng.randint(0, max(1, len(one.split()) // 12)))]
    roots = clustered(texts, threshold, tmp_path)
    near = wrong = missed = 0
    for at in range(0, len(texts), 2):
        true, found = jaccard(texts[at], texts[at + 1]), roots[at] == roots[at + 1]
        near += true >= threshold + 0.1
        missed += true >= threshold + 0.1 and not found
        wrong += true < threshold - 0.12 and found
    assert near > 30
    assert missed <= near * 0.01
    assert wrong <= 1
    assert np.bincount(roots).max() <= 2  # texts that share nothing are never one


def clustered(texts: list[str], threshold: float, folder: Path) -> Any:
    with closing(Signatures(folder, 128)) as signatures:
        for row, each in enumerate(texts):
            signatures.add(row, str(row).encode(), signature(each).tobytes())
        signatures.settle(np.arange(len(texts), dtype=np.int32), len(texts))
        return clusters(signatures, threshold)


def test_clusters_are_connected_and_numbered_by_their_lowest(tmp_path: Path) -> None:
    rng = random.Random(8)
    chain = [text(rng, 200)]
    for _ in range(6):
        chain.append(edited(rng, chain[-1], 2))
    texts = [text(rng, 200), *chain, text(rng, 50)]
    assert clustered(texts, 0.8, tmp_path).tolist() == [0, *[1] * 7, 8]
    assert jaccard(chain[0], chain[-1]) < 0.8


def test_more_texts_in_a_band_than_are_compared(tmp_path: Path) -> None:
    # Half of every text is the same: they meet in some bands, and only true pairs may join there.
    rng = random.Random(9)
    half = text(rng, 150)
    texts = [f"{half} {text(rng, 100)}" for _ in range(150)]
    texts += [each + " end" for each in texts[:40]]
    roots = clustered(texts, 0.8, tmp_path).tolist()
    assert roots[:150] == list(range(150))
    assert sum(root == at for at, root in enumerate(roots[150:])) >= 38


@given(st.permutations(range(14)), st.integers(0, 3))
@settings(max_examples=25)
def test_the_order_of_the_rows_decides_nothing_but_which_is_first(order: list[int], seed: int) -> None:
    rng = random.Random(seed)
    base = [text(rng, 40) for _ in range(4)]
    lines = [line(base[n % 4] + " x" * (n // 4)) for n in range(14)]
    (step,) = steps(NearArgs(threshold=0.7))
    given_ = samples(lines, step)
    straight = Result(step, given_)
    shuffled = Result(step, [given_[at] for at in order])
    assert straight.notes == shuffled.notes
    groups = {frozenset(n for n in range(14) if n % 4 == at) for at in range(4)}
    assert all(len(group & set(shuffled.places)) == 1 for group in groups)


def test_signatures_are_the_same_in_every_process() -> None:
    code = (
        "from rollforge.curate.near import *; from rollforge.bulk.record import Record;"
        "fact = Signature('prompt', 5, 128); print(fact.complete([fact(Record(open(0, 'rb').read()))])[0].hex())"
    )
    row = line("What is the sum of 3 + 4 and of the numbers — “five” and 六七?", env="e")
    shown = printed(code, row)
    # Written down, since splits made with other versions must stay what they are.
    assert [sha256(each).hexdigest()[:8] for each in shown] == [DIGEST]


DIGEST = "f913830f"


@given(st.lists(st.sampled_from("ab c"), max_size=30).map("".join), st.integers(1, 4))
def test_equal_grams_have_equal_hashes_and_others_do_not(text: str, n: int) -> None:
    words = normal(text)
    if not words:
        return
    split = words.split(b" ")
    hashes = Grams(words).hashes(n).tolist()
    grams = [b" ".join(split[at : at + n]) for at in range(max(len(split) - n + 1, 1))]
    assert len(hashes) == len(grams)
    for one, other in combinations(range(len(grams)), 2):
        assert (hashes[one] == hashes[other]) == (grams[one] == grams[other])


@given(st.lists(st.text("ab ", max_size=12), min_size=1, max_size=6), st.integers(1, 4))
def test_texts_together_have_the_hashes_that_they_have_alone(texts: list[str], n: int) -> None:
    words = [text.encode() for text in texts]
    hashes, counts = Grams.of_many(words, n)
    assert hashes.tolist() == [each for text in words for each in Grams(text).hashes(n).tolist()]
    assert counts.tolist() == [len(Grams(text).hashes(n)) for text in words]


def test_signatures_made_together_are_those_made_alone() -> None:
    rng = random.Random(4)
    fact = Signature("prompt", 5, 128)
    texts = [fact(Record(line(text(rng, size)))) for size in (1, 3, 5, 40, 400, 5000) * 3]
    assert fact.complete([*texts, texts[0]]) == [fact.complete([each])[0] for each in [*texts, texts[0]]]


def test_a_long_text() -> None:
    words = normal("word " * 400_000)
    assert len(set(Grams(words).hashes(5).tolist())) == 1
    assert len(Grams(words)) == 400_000


def test_bands_find_what_is_at_the_threshold() -> None:
    for threshold in (0.3, 0.5, 0.7, 0.8, 0.9, 1.0):
        width, count = bands(128, threshold)
        assert width * count <= 128
        assert 1 - (1 - threshold**width) ** count >= 0.97


def test_shorthand() -> None:
    assert NearArgs.short(0.7) == NearArgs(threshold=0.7)
    for wrong in (2, "prompt", 0.1):
        with pytest.raises(UserError, match=r"write: near: 0\.8"):
            NearArgs.short(wrong)
