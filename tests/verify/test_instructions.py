"""Verifiable instructions: each family with replies that follow it, that do not, and that try to seem to."""

from __future__ import annotations

from typing import Any

import pytest

from rollforge.errors import VerifierFault
from rollforge.verify.instructions import FAMILIES, instructions
from rollforge.verify.languages import language_of
from rollforge.verify.sentences import sentences, tokens, words

LEAST, LESS = "at least", "less than"

CASES: list[tuple[str, dict[str, Any], list[str], list[str]]] = [
    ("keywords:existence", {"keywords": ["sun", "a.b"]}, ["Sunny: A.B"], ["sun", "sun axb", "ѕun a.b"]),
    ("keywords:frequency", {"keyword": "so", "frequency": 2, "relation": LEAST}, ["So, also"], ["so", "s o s o"]),
    ("keywords:frequency", {"keyword": "so", "frequency": 2, "relation": LESS}, ["so", "x"], ["so so"]),
    ("keywords:forbidden_words", {"forbidden_words": ["part"]}, ["party apart"], ["a Part.", "part"]),
    ("keywords:letter_frequency", {"letter": "Q", "let_frequency": 2, "let_relation": LEAST}, ["q Q"], ["q", "kk"]),
    (
        "language:response_language",
        {"language": "de"},
        ["Das ist ein kurzer Satz und er ist gut."],
        ["This is a short one.", "123", "Ja"],
    ),
    (
        "language:response_language",
        {"language": "hi"},
        ["यह एक अच्छा दिन है और हम पार्क जा रहे हैं।"],
        ["हे एक चांगले पुस्तक आहे आणि ते मोठे आहे."],
    ),
    (
        "length_constraints:number_sentences",
        {"num_sentences": 3, "relation": LEAST},
        ["One. Two? Three!"],
        ["Dr. Ho is 3.5 m. Yes.", "..."],
    ),
    (
        "length_constraints:number_paragraphs",
        {"num_paragraphs": 2},
        ["a\n***\nb", "***a***b***"],
        ["a\n\nb", "a***b***c", "a******b"],
    ),
    (
        "length_constraints:number_words",
        {"num_words": 3, "relation": LESS},
        ["one two", "--- ..."],
        ["one two three", "one-two-three"],
    ),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Crash"},
        ["a\n\ncrash, b", "a\n\n'Crash'"],
        ["crash\n\na", "a\n\ncrashed", "a\n\ncrash\n\nb"],
    ),
    (
        "detectable_content:number_placeholders",
        {"num_placeholders": 2},
        ["[a] [b]", "[[a] []"],
        ["[a]", "[a\nb] [c]", "[" * 9],
    ),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, ["x\nP.S. y", "p. s. y"], ["PS y", "P.S y"]),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, ["x\nP.P.S y"], ["P.S. y"]),
    (
        "detectable_format:number_bullet_lists",
        {"num_bullets": 2},
        ["* a\n* b", "- a\n  * b", "* a\n**b**\n* c"],
        ["* a", "a * b * c", "* a\n* b\n- c"],
    ),
    (
        "detectable_format:constrained_response",
        {},
        ["My answer is no.", "Well. My answer is maybe."],
        ["No.", "My answer is yes. My answer is no."],
    ),
    (
        "detectable_format:number_highlighted_sections",
        {"num_highlights": 2},
        ["*a* and *b*", "**a**, *b*"],
        ["*a*", "* *\n* *", "*a\nb*"],
    ),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "Section", "num_sections": 2},
        ["Section 1\na\nSection 2\nb"],
        ["Section A\nSection B", "Section 1", "section 1 section 2"],
    ),
    (
        "detectable_format:json_format",
        {},
        ['{"a": 1}', '```json\n{"a": 1}\n```', "[]"],
        ["{a: 1}", 'Here: {"a": 1}', '{"a": NaN}', "[" * 9999],
    ),
    ("detectable_format:title", {}, ["<<a>>\nb", "x <<a b>> y"], ["<<>>", "<< >>", "<a>", "<<a\nb>>", "<<<<"]),
    (
        "combination:two_responses",
        {},
        ["a******b", "a\n******\nb\n******"],
        ["a***b", "a******a", "a******b******c", "a******"],
    ),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say it. "}, ["say it. OK"], ["OK. say it.", "say it"]),
    ("startend:end_checker", {"end_phrase": "Any more?"}, ["x any more?", '"x Any more?"\n'], ["Any more? No.", "Any more"]),
    ("startend:quotation", {}, ['"x"', ' "a" and "b" '], ['"', '"x', "'x'", "“x”"]),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": LEAST},
        ["NASA and I", "A, B"],
        ["NASA", "Nasa And"],
    ),
    (
        "change_case:english_capital",
        {},
        ["THIS IS IT.", "NO"],
        ["THIS IS it", "ЭТО НЕ ОН", "DAS IST NICHT DIE ART UND WEISE", "12"],
    ),
    ("change_case:english_lowercase", {}, ["this is it."], ["This is it", "das ist nicht die art und weise", "12"]),
    ("punctuation:no_comma", {}, ["a; b"], ["a, b"]),
    ("paragraphs:paragraphs", {}, ["a\n***\nb"], ["a\n\nb"]),
    ("paragraphs:paragraphs2", {}, ["a\n\nb", "\na\n\n\n\nb"], ["a\nb", "a\n\nb\n\nc"]),
    ("first_word:first_word_answer", {"first_word": "yes"}, ["Yes, it is", "**Yes**"], ["Yessir", "It is yes", "yes-man"]),
    ("first_word:first_word_sent", {"first_word": "yes"}, ["Yes. Yes, too!"], ["Yes. No.", "Yes-like."]),
    ("last_word:last_word_answer", {"last_word": "end"}, ["the End.", "end"], ["end it", "weekend"]),
    ("last_word:last_word_sent", {"last_word": "end"}, ["The end. An end!"], ["The end. No."]),
    ("letters:letter_counting", {"N": 3, "relation": LEAST}, ["a b c"], ["ab 12", "жжж"]),
    ("letters:letter_counting2", {"letter": "a", "let_frequency": 2, "let_relation": LESS}, ["Ab"], ["aA"]),
    ("count:lowercase_counting", {"N": 1}, ["ONE two", "X"], ["one two"]),
    ("count:count_unique", {}, ["Each word once. No more."], ["no, No", "a b a"]),
    ("count:count_increment_word", {"keyword1": "aa", "keyword2": "bb"}, ["aa bb bb"], ["aa bb", "aa aa bb bb"]),
    (
        "count:counting_composition",
        {"n_sent": 2, "n_words": 2},
        ["It is. I go.\n***\nIt is. I go.\n***\nIt is. I go."],
        ["It is. I go.", "It is.\n***\nIt is.\n***\nIt is."],
    ),
    ("copy:copy", {"prompt_to_repeat": "Do it"}, ["do it\n"], ["Do it now"]),
    ("copy:copying_simple", {"prompt_to_repeat": "Do it"}, ["Do it"], ["Done"]),
    ("copy:copying_multiple", {"prompt_to_repeat": "Do it", "N": 2}, ["Do it\n******\ndo it"], ["Do it", "Do it***Do it"]),
    (
        "copy:repeat_phrase",
        {"phrase": "Time flies when having fun", "small_n": 2},
        ["Time runs when having fun. Time flies while having fun."],
        ["Time flies when having fun. Time runs when having fun.", "Time runs when having fun."],
    ),
    ("new:copy_span_idx", {"prompt_to_repeat": "abc def", "n_start": 0, "n_end": 2}, ["ab", "abc"], ["abc d", "a"]),
    ("detectable_format:sentence_hyphens", {}, ["It is.-I go!"], ["It is. I go!", "It is. -I go!", "-"]),
    ("detectable_format:square_brackets", {}, ["[a] [b]"], ["[a b]", "[a] b", "[]"]),
    ("detectable_format:bigram_wrapping", {}, ["<<I am>> <<at home>>", "<<I am>> here"], ["<<I>> am", "I"]),
    ("keywords:exclude_word_harder", {"keyword": "part"}, ["party"], ["a part.", "part"]),
    ("keywords:word_once", {"keyword": "sun"}, ["the Sun"], ["sun sun", "moon"]),
    ("keywords:word_count_different_numbers", {"keyword": "sun", "frequency": 2, "relation": LEAST}, ["sun sun"], ["sun"]),
    ("keywords:no_adjacent_consecutive", {}, ["an ox"], ["an bee"]),
    ("keywords:palindrome", {}, ["at Noon,"], ["a I 11", "..."]),
    (
        "keywords:keyword_specific_position",
        {"keyword": "is", "n": 2, "m": 2},
        ["Oh. It, is so."],
        ["It is so.", "Oh. Is it so."],
    ),
    ("keywords:start_end", {}, ["Yes, it is yes"], ["Yes it is yes.", "yes", "! a !"]),
    ("punctuation:punctuation_dot", {}, ["a!"], ["a."]),
    ("punctuation:punctuation_exclamation", {}, ["a."], ["a!"]),
]


@pytest.mark.parametrize(("name", "arguments", "right", "wrong"), CASES, ids=[case[0] for case in CASES])
def test_families(name: str, arguments: dict[str, Any], right: list[str], wrong: list[str]) -> None:
    found = {reply: instructions(reply, [name], [arguments])["reward"] for reply in [*right, *wrong]}
    assert found == dict.fromkeys(right, 1.0) | dict.fromkeys(wrong, 0.0)
    assert instructions("", [name], [arguments])["reward"] == 0
    assert instructions(" \n", [name], [arguments])["reward"] == 0


def test_every_family_is_tested_and_any_reply_is_judged() -> None:
    assert {case[0] for case in CASES} == set(FAMILIES)
    junk = ("x" * 100_000, "." * 100_000, "[" * 100_000, "<" * 100_000, "*" * 100_000, "\n" * 100_000 + "x", "a. " * 30_000)
    for name, arguments, _, _ in CASES:
        for reply in (*junk, "☃ \x00 \u202e NaN {{{ ``` <think>", "'\"“”…", "ß" * 99, "\ud800"):
            assert instructions(reply, [name], [arguments])["reward"] in (0.0, 1.0)


def test_all_or_the_share_strict_or_loose() -> None:
    ids = ["punctuation:no_comma", "first_word:first_word_answer"]
    kwargs = [None, {"first_word": "yes", "other": None}]
    found = instructions("Sure, here it is:\nYes it is", ids, kwargs)
    assert found == {
        "reward": 0.0,
        "follow_all_instructions": False,
        "follow_instruction_list": [False, False],
        "followed_strict": 0.0,
        "followed_loose": 1.0,
    }
    assert instructions("Sure, here it is:\nYes it is", ids, kwargs, loose=True)["reward"] == 1
    assert instructions("Yes, it is", ids, kwargs, partial=True)["reward"] == 0.5
    assert instructions("*,*", ["punctuation:no_comma"], None, loose=True)["reward"] == 0


@pytest.mark.parametrize(
    ("ids", "kwargs", "says"),
    [
        ([], [], "instruction_id_list"),
        ("punctuation:no_comma", None, "instruction_id_list"),
        (["punctuation:no_commas"], [{}], "did you mean punctuation:no_comma"),
        (["punctuation:no_comma"], [{"n": 1}], "no argument 'n'"),
        (["punctuation:no_comma"], [{}, {}], "kwargs"),
        (["punctuation:no_comma"], ["x"], "not an object"),
        (["keywords:frequency"], [{"keyword": "a", "frequency": 2, "relation": None}], "needs 'relation'"),
        (["keywords:frequency"], [{"keyword": "a", "frequency": 2, "relation": "at most"}], "at least"),
        (["keywords:frequency"], [{"keyword": " ", "frequency": 2, "relation": LEAST}], "a text"),
        (["length_constraints:number_words"], [{"num_words": 2.5, "relation": LEAST}], "whole number"),
        (["length_constraints:number_words"], [{"num_words": -1, "relation": LEAST}], "whole number"),
        (["keywords:existence"], [{"keywords": []}], "list of texts"),
        (["keywords:letter_frequency"], [{"letter": "ab", "let_frequency": 1, "let_relation": LESS}], "one letter"),
        (["language:response_language"], [{"language": "tlh"}], "one of"),
    ],
)
def test_instructions_that_cannot_be_checked_are_faults(ids: Any, kwargs: Any, says: str) -> None:
    with pytest.raises(VerifierFault, match=says):
        instructions("yes", ids, kwargs)


def test_numbers_from_tables_are_numbers() -> None:
    assert instructions("a b", ["length_constraints:number_words"], [{"num_words": 2.0, "relation": LEAST}])["reward"] == 1


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("No end", 1),
        ("One. Two? Three!", 3),
        ("Mr. Lee met Dr. Ho at 5 p.m. on a bus.", 1),
        ("It costs 3.5 dollars. Cheap.", 2),
        ('He said "Go." Then he left.', 2),
        ("(I know.) But why?", 2),
        ("What?! Really?", 2),
        ("Wait... it goes on.", 1),
        ("J. K. wrote it. I read it.", 2),
        ("See a.b and example.com now.", 1),
        ("The U.S. is big. He left.", 2),
        ("." * 1000, 1),
    ],
)
def test_sentences(text: str, count: int) -> None:
    found = sentences(text)
    assert len(found) == count
    assert "".join("".join(found).split()) == "".join(text.split())


def test_words_and_tokens() -> None:
    assert words("**It's** a (well-known) «fact» – yes!") == ["It's", "a", "well-known", "fact", "yes"]
    assert tokens('**BE** A***B "DON\'T."') == [*"**", "BE", *"**", "A", *"***", "B", '"', "DO", "N'T", ".", '"']
    assert tokens("I don't know, it's U.S. 1,000.") == ["I", "do", "n't", "know", ",", "it", "'s", "U.S", ".", "1,000", "."]


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("The weather is nice today and we are going to the park.", "en"),
        ("El tiempo es agradable hoy y vamos al parque.", "es"),
        ("O tempo está agradável hoje e vamos ao parque.", "pt"),
        ("Il fait beau aujourd'hui et nous allons au parc.", "fr"),
        ("Oggi il tempo è bello e andiamo al parco.", "it"),
        ("Dzisiaj jest ładna pogoda i idziemy do parku.", "pl"),
        ("Сегодня хорошая погода и мы идём в парк.", "ru"),
        ("Сьогодні гарна погода, і ми йдемо в парк.", "uk"),
        ("Днес времето е хубаво и отиваме в парка.", "bg"),
        ("الطقس جميل اليوم وسنذهب إلى الحديقة.", "ar"),
        ("امروز هوا خوب است و ما به پارک می‌رویم.", "fa"),
        ("آج موسم اچھا ہے اور ہم پارک جا رہے ہیں۔", "ur"),
        ("今日は天気がいいので、公園に行きます。", "ja"),
        ("今天天气很好，我们去公园。", "zh"),
        ("오늘은 날씨가 좋아서 공원에 갑니다.", "ko"),
        ("Hôm nay thời tiết đẹp và chúng tôi sẽ đi công viên.", "vi"),
        ("Hali ya hewa ni nzuri leo na tunaenda kwenye bustani.", "sw"),
        ("THE WEATHER IS NICE TODAY AND WE ARE GOING TO THE PARK", "en"),
        ("HTTP://X.COM/A IS HOW", None),  # no Portuguese
        ("Oslo", None),
        ("12 + 30 = 42", None),
        ("", None),
    ],
)
def test_languages(text: str, language: str | None) -> None:
    assert language_of(text) == language
