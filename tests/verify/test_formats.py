"""Tags, citations, language, length."""

from __future__ import annotations

from typing import Any

import pytest

from rollforge.errors import VerifierFault
from rollforge.verify.formats import GRAMMARS, citations, cited, language, length, tags

HUGE = 200_000


@pytest.mark.parametrize(
    ("reply", "strict", "loose"),
    [
        ("<think>a</think><answer>b</answer>", 1, 1),
        ("\n<think>a</think>\n<answer>b</answer> ", 1, 1),
        ("Well. <think>a</think><answer>b</answer>", 0, 1),
        ("<think>a</think><answer>b</answer>c", 0, 1),
        ("<answer>b</answer><think>a</think>", 0, 0),
        ("<think>a</think><answer>b</answer><answer>c</answer>", 0, 0),
        ("<think>a<answer>b</answer></think>", 0, 0),
        ("<think></think><answer>b</answer>", 0, 0),
        ("<think>a</think><answer> </answer>", 0, 0),
        ("<think>a</think><answer>b", 0, 0),
        ("<Think>a</Think><answer>b</answer>", 0, 0),
        ("<think>a</think >​<answer>b</answer>", 0, 0),
        ("", 0, 0),
        ("<think>" * HUGE, 0, 0),
        ("<think>a</think><answer>b</answer>" * HUGE, 0, 0),
    ],
)
def test_tags(reply: str, strict: int, loose: int) -> None:
    assert tags(reply)["reward"] == strict
    assert tags(reply, strict=False)["reward"] == loose


def test_what_stands_in_tags() -> None:
    assert tags("<a> 1 </a>", ["a"]) == {"reward": 1.0, "a": "1"}
    assert tags("<a>1</a>", ["a", "b"]) == {"reward": 0.0, "a": "1", "b": None}
    for names in ([], ["a", "a"], ["<a>"]):
        with pytest.raises(VerifierFault, match="tags"):
            tags("", names)


IDS = ["citation_aa11", "citation_bb22", "citation_cc33"]
GOLD = [IDS[0]]
ROW_REGEX = "citation_[a-z0-9]{4}"


def judged(reply: str, grammar: str = "ascii_brackets", **options: Any) -> str | None:
    found = citations(reply, grammar, IDS, **{"expected": GOLD, "id_regex": ROW_REGEX, **options})
    assert found["reward"] == float(found["gate_failed"] is None)
    gate: str | None = found["gate_failed"]
    return gate


@pytest.mark.parametrize("grammar", GRAMMARS)
def test_every_grammar(grammar: str) -> None:
    assert judged(cited("The claim.", GOLD, grammar), grammar) is None
    assert judged(cited("The claim.", ["citation_zz99"], grammar), grammar) == "must_cite"
    both = f"{cited('The claim.', GOLD, grammar)} {cited('More.', ['citation_zz99'], grammar)}"
    assert judged(both, grammar) == "no_hallucination"
    assert judged(f"The claim. {GOLD[0]}", grammar) == "malformed_attempt"
    assert judged(cited("The claim.", GOLD, grammar) + f" Sources: {IDS[1]}", grammar) == "malformed_attempt"
    assert judged(cited("The claim.", GOLD, grammar), grammar, mode="no_cite") == "no_cite"
    assert judged(cited("", GOLD, grammar), grammar) in ("no_answer", "malformed_attempt", "must_cite")
    others = [name for name in GRAMMARS if name != grammar]
    assert {judged(cited("The claim.", GOLD, grammar), other) for other in others} <= {"malformed_attempt", "must_cite"}


@pytest.mark.parametrize(
    ("reply", "gate"),
    [
        ("It is [citation_aa11].", None),
        ("It [citation_aa11] is [citation_aa11].", None),
        ("It is [citation_aa11] [citation_bb22].", None),
        ("It is [citation_aa11] [citation_bb22] [citation_cc33].", "correctness_over_cap"),
        ("It is [citation_bb22].", "correctness_missed_gold"),
        ("It is.", "must_cite"),
        ("", "structural"),
        ("  \n", "structural"),
        ("[citation_aa11]", "no_answer"),
        ("[citation_aa11] - !", "no_answer"),
        ("It is [citation_aa11](http://a).", "malformed_attempt"),
        ("It is [Citation_AA11].", "malformed_attempt"),
        ("It is [citation_aa11, citation_bb22].", "malformed_attempt"),
        ("It is [citation_aa11:snippet_1].", "malformed_attempt"),
        ("It is [ citation_aa11 ].", "malformed_attempt"),
        ("It is [citation_xmpl].", "must_cite"),
        ("It is [сitation_aa11].", "must_cite"),  # Cyrillic
        ("[citation_aa11] " * HUGE + "yes", None),
        ("[citation_" * HUGE, "must_cite"),
        ("[" * HUGE, "no_answer"),
    ],
)
def test_gates(reply: str, gate: str | None) -> None:
    assert judged(reply) == gate


def test_tags_are_balanced_and_several_ids_may_stand_in_one() -> None:
    assert judged("It <cite>citation_aa11,citation_bb22</cite>.", "cite_xml") is None
    assert judged("It <cite>citation_aa11, citation_bb22</cite>.", "cite_xml") == "malformed_attempt"
    assert judged("It <cite>citation_aa11</cite> <cite>see</cite>.", "cite_xml") == "malformed_attempt"
    assert judged("It <cite>citation_aa11</cite> <cite>", "cite_xml") == "malformed_attempt"
    wrapped = cited("yes", ["citation_aa11", "citation_bb22"], "claim_wrap_xml")
    assert judged(wrapped, "claim_wrap_xml") is None
    assert judged(cited(" ", GOLD, "claim_wrap_xml") + " yes", "claim_wrap_xml") == "malformed_attempt"
    assert judged(cited("citation_bb22", GOLD, "claim_wrap_xml"), "claim_wrap_xml") == "malformed_attempt"
    assert judged(wrapped[: -len("</cite>")] * HUGE, "claim_wrap_xml") == "malformed_attempt"


def test_options_of_citations() -> None:
    assert judged("It is [citation_aa11] [citation_bb22].", slack=0) == "correctness_over_cap"
    assert judged("It is [citation_aa11].", minimum=2) == "must_cite"
    assert judged("It is [citation_cc33].", expected=None) is None
    assert judged("It is [citation_aa11].", calls=1) == "structural"
    assert judged("It is so.", mode="no_cite") is None
    assert judged("It is so (citation_1).", mode="no_cite") == "no_cite"
    assert judged("It is <cite>so</cite>.", "cite_xml", mode="no_cite") == "no_cite"
    found = citations("a [S1] b [S9]", "ascii_brackets", ["S1"], id_regex=r"S\d")
    assert (found["cited_ids"], found["invalid_ids"], found["gate_failed"]) == (["S1"], ["S9"], "no_hallucination")
    assert citations("a [S1], s2", "ascii_brackets", ["S1"], id_regex=r"S\d")["gate_failed"] == "malformed_attempt"


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"grammar": "footnotes"}, "grammar"),
        ({"mode": "maybe"}, "mode"),
        ({"expected": ["citation_zz99"]}, "valid_id_set"),
        ({"minimum": 4}, "valid_id_set"),
        ({"id_regex": "("}, "id_regex"),
    ],
)
def test_rows_that_nobody_can_satisfy(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(VerifierFault, match=problem):
        judged("It is [citation_aa11].", **options)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("en", "The cat sat on the mat, and it was happy with that."),
        ("de", "Der Hund ist nicht mit dem Mann in das Haus gegangen."),
        ("fr", "Le chat est dans la maison et il ne veut pas sortir."),
        ("es", "El perro no quiere salir de la casa por la noche."),
        ("it", "Il gatto non è nella casa ma è con il cane."),
        ("pt", "O gato não está na casa e o cão não quer sair."),
        ("nl", "De kat zit op de mat en het is niet van mij."),
        ("pl", "Kot nie jest w domu, ale pies jest na dworze i się bawi."),
        ("sv", "Katten är inte i huset men hunden är på gården."),
        ("tr", "Kedi evde değil ama köpek bahçede ve çok mutlu."),
        ("ru", "Кот сидит на окне и смотрит на улицу, где идёт снег."),
        ("uk", "Кіт сидить на вікні і дивиться на вулицю."),
        ("el", "Η γάτα είναι στο σπίτι."),
        ("he", "החתול בבית"),
        ("ar", "القط في البيت"),
        ("hi", "बिल्ली घर में है"),
        ("th", "แมวอยู่ในบ้าน"),
        ("ko", "고양이가 집에 있습니다"),
        ("ja", "猫は家の中にいます。"),
        ("zh", "猫在房子里面睡觉。"),
    ],
)
def test_languages(code: str, text: str) -> None:
    assert language(text, code) == {"reward": 1.0, "language": code}
    assert language(text, "en" if code != "en" else "fr")["reward"] == 0


@pytest.mark.parametrize(
    "text", ["", "42!", "Oslo", "x = f(y) + z * w - q", "qwe rty uio pas dfg hjk", "Кот кот кот the cat is here"]
)
def test_nothing_is_said_of_unclear_texts(text: str) -> None:
    assert language(text, "de") == {"reward": 0.0, "language": None}


def test_long_texts_are_read_in_part() -> None:
    assert language("the cat and the dog " * HUGE, "en")["reward"] == 1
    with pytest.raises(VerifierFault, match="known: ar"):
        language("x", "english")


@pytest.mark.parametrize(
    ("unit", "reply", "count"),
    [
        ("words", " one  two\nthree ", 3),
        ("characters", " ab c ", 4),
        ("sentences", "One. Two! Is 3.5 three? Yes", 4),
        ("sentences", "Wait... what?! ...", 2),
        ("lines", "a\n\n b\n", 2),
        ("paragraphs", "a\nb\n\nc\n \n\t\nd", 3),
        ("words", "", 0),
        ("sentences", ". " * HUGE, 0),
        ("paragraphs", "\n \n" * HUGE, 0),
    ],
)
def test_lengths(unit: str, reply: str, count: int) -> None:
    assert length(reply, unit, count, count) == {"reward": 1.0, "length": count}
    assert length(reply, unit, count + 1)["reward"] == 0
    if count:
        assert length(reply, unit, maximum=count - 1)["reward"] == 0


def test_lengths_that_nothing_has() -> None:
    with pytest.raises(VerifierFault, match="at least 3 and at most 2"):
        length("x", "words", 3, 2)
    with pytest.raises(VerifierFault, match="unit"):
        length("x", "pages")
