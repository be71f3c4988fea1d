from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollforge.config import validate
from rollforge.curate.dedup import DedupArgs, steps
from rollforge.errors import UserError
from rollforge.records.items import assistant, function_call, function_call_output, user
from rollforge.records.lossless import dumps, loads
from tests.curate.sampled import Result, line, ran, samples


def kept(lines: list[bytes], **args: Any) -> list[int]:
    return ran(steps(validate(DedupArgs, args, "dedup")), lines).places


def test_of_equal_prompts_the_first_stays_however_they_are_written() -> None:
    parts = [{"role": "user", "content": [{"type": "input_text", "text": "a"}]}]
    result = ran(steps(DedupArgs()), [line("a"), line([user("a")]), line("b"), line(parts, "other")])
    assert result.places == [0, 2]
    assert result.dropped[3].reason == "duplicate prompt"
    assert result.dropped[3].evidence == {"duplicate_of": {"file": "0", "byte": 0}}
    assert result.notes == {"distinct": 2}


def test_keep_best_and_shortest() -> None:
    lines = [
        line("a", "long reply", reward=0.5),
        line("a", "long reply", reward=1),
        line("a", "x", reward=0),
        line("a", "y"),
    ]
    assert kept(lines, keep="best") == [1]
    assert kept(lines, keep="shortest") == [2]
    assert kept(lines, keep="first") == [0]


def test_response_and_both() -> None:
    lines = [line("a", "x"), line("b", "x"), line("a", "y"), line("a", "x")]
    assert kept(lines, by="response") == [0, 2]
    assert kept(lines, by="both") == [0, 1, 2]
    assert kept(lines, by="response", within="group") == [0, 1, 2]


def test_copies_that_an_earlier_step_made_are_duplicates() -> None:
    (step,) = steps(DedupArgs(by="both"))
    given = samples([line("a"), line("b")], step)
    given[0].copies = 10
    result = Result(step, given)
    assert [sample.copies for sample in result.kept] == [1, 1]
    assert result.notes == {"distinct": 2, "copies taken back": 9}


def test_within_an_environment() -> None:
    lines = [line("a", env="one"), line("a", env="two"), line("a", env="two")]
    assert kept(lines, within="env") == [0, 1]
    assert kept(lines) == [0]


def test_ids_and_the_writing_of_arguments_do_not_count_what_they_say_does() -> None:
    def calls(arguments: str, call_id: str, result: str = "3", name: str = "add") -> list[Any]:
        return [function_call(name, arguments, call_id), function_call_output(call_id, result), assistant("3", call_id)]

    lines = [
        line("a", calls('{"x": 1, "y": 2}', "c1")),
        line("a", calls('{"y":2,"x":1}', "c2")),
        line("a", calls('{"x": 1, "y": 3}', "c1")),
        line("a", calls('{"x": 1, "y": 2}', "c1", result="4")),
        line("a", calls('{"x": 1, "y": 2}', "c1", name="sub")),
        line("a", calls("no JSON", "c1")),
        line("a", calls("no  JSON", "c1")),
    ]
    assert kept(lines, by="response") == [0, 2, 3, 4, 5, 6]


LONG = "123456789012345678901234567890"
DEEP = "[" * 252 + "]" * 252


@pytest.mark.parametrize(
    ("one", "same", "other"),
    [
        (f'{{"n": {LONG}, "x": 1e16}}', f'{{"x":1E16,"n":{LONG}}}' + " " * 300, f'{{"n": {LONG[:-1]}1, "x": 1e16}}'),
        (DEEP, DEEP + " " * 300, DEEP[1:-1]),
        ("[" * 2000 + "]" * 2000, "[" * 2000 + "]" * 2000, "[" * 2000 + "]" * 2000 + " "),
        ('{"a": 1, "a": 2}', '{"a": 2}', '{"a": 1}'),
        ('"text"', ' "text"', "text"),
        ("1", " 1", "1.0"),
    ],
)
def test_arguments_are_compared_as_values_whatever_numbers_and_depth(one: str, same: str, other: str) -> None:
    def calls(arguments: str) -> list[Any]:
        # Beside them a call whose float would be written in another way by the standard library.
        return [function_call("f", '{"y": 1e16}', "a"), function_call("f", arguments, "b")]

    assert kept([line("a", calls(text)) for text in (one, same, other)], by="response") == [0, 2]


def test_how_a_text_is_cut_does_not_count() -> None:
    def said(thoughts: list[str], *parts: str) -> list[Any]:
        reasoning = [{"type": "reasoning", "summary": [{"type": "summary_text", "text": text}]} for text in thoughts]
        content = [{"type": "output_text", "text": text} for text in parts]
        return [*reasoning, {"type": "message", "role": "assistant", "content": content}]

    lines = [line("q", said(["p", "q"], "ab")), line("q", said(["p\n\nq"], "a", "b")), line("q", said(["p", "q"], "a b"))]
    assert kept(lines, by="response") == [0, 2]


def test_reasoning_counts() -> None:
    def thought(text: str) -> list[Any]:
        return [{"type": "reasoning", "summary": [{"type": "summary_text", "text": text}]}, assistant("4")]

    assert kept([line("a", thought("p")), line("a", thought("q")), line("a", thought("p"))], by="response") == [0, 1]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xyz"), st.sampled_from([0.0, 0.5, 1.0])), max_size=20))
def test_one_of_each_stays_and_the_best(rows: list[tuple[str, str, float]]) -> None:
    result = ran(steps(DedupArgs(by="both", keep="best")), [line(p, r, reward=reward) for p, r, reward in rows])
    best: dict[tuple[str, str], float] = {}
    for prompt, reply, reward in rows:
        best[prompt, reply] = max(reward, best.get((prompt, reply), 0.0))
    assert {rows[at] for at in result.places} == {(*key, reward) for key, reward in best.items()}
    assert len(result.places) == len(best)
    for drop in result.dropped.values():
        assert drop.evidence is not None
        assert rows[drop.evidence["duplicate_of"]["byte"]][:2] == rows[drop.sample.at][:2]


def test_tools_belong_to_the_prompt() -> None:
    def row(*names: str, nested: bool = False) -> bytes:
        found = loads(line("a"))
        flat = [{"type": "function", "name": name, "parameters": {}} for name in names]
        tools = [{"type": "function", "function": {k: v for k, v in tool.items() if k != "type"}} for tool in flat]
        found["responses_create_params"]["tools"] = tools if nested else flat
        return dumps(found)

    lines = [line("a"), row(), row("add"), row("add", "sub"), row("sub", "add", nested=True), row("mul")]
    assert kept(lines) == [0, 2, 3, 5]
    assert kept(lines, by="both") == [0, 2, 3, 5]
    assert kept(lines, by="response") == [0]


def test_another_expected_answer_is_no_duplicate_and_is_said() -> None:
    lines = [
        line("a", expected_answer="4"),
        line("a", "other", expected_answer=4),
        line("a", expected_answer="5"),
        line("b", answer="5"),
        line("b", answer="5"),
    ]
    result = ran(steps(DedupArgs()), lines)
    assert result.places == [0, 2, 3]
    assert result.notes == {"distinct": 3}
    (warning,) = result.warnings
    assert "expect different answers (1 such pairs), and both stay: 0:0 and 0:2" in warning
    assert ran(steps(DedupArgs()), lines[2:]).warnings == []


@pytest.mark.parametrize(
    "place",
    ["reward_model.ground_truth", "verifier_metadata.expected_answer", "reference_answer", "correct_answer", "label"],
)
def test_the_expected_answer_is_seen_wherever_rows_carry_it(place: str) -> None:
    holder, _, name = place.rpartition(".")
    answers = [{holder: {name: value}} if holder else {name: value} for value in ("4", "5", "4")]
    assert kept([line("a", **answer) for answer in answers]) == [0, 1]


def test_shorthand() -> None:
    assert DedupArgs.short("both") == DedupArgs(by="both")
    assert steps(DedupArgs.short("prompt"))[0].name == "dedup prompt"
    with pytest.raises(UserError, match="did you mean prompt"):
        DedupArgs.short("promt")
    with pytest.raises(UserError, match="write: dedup: prompt"):
        DedupArgs.short(3)


@pytest.mark.parametrize("by", ["prompt", "response"])
@pytest.mark.parametrize("keep", ["first", "best"])
def test_first_is_the_first_that_was_read_in_whatever_order_rows_come(by: str, keep: str) -> None:
    """Steps that look at groups pass rows on in the order of their groups."""
    (step,) = steps(validate(DedupArgs, {"by": by, "keep": keep}, "dedup"))
    lines = [line("a", "x", reward=0.5), line("a", "x", reward=1), line("a", "x", reward=1), line("b", "y")]
    given = samples(lines, step)
    for order in ([3, 2, 1, 0], [2, 0, 3, 1]):
        result = Result(step, [given[number] for number in order])
        assert sorted(result.places) == [0 if keep == "first" else 1, 3]
