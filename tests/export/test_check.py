"""Whatever stands in a file, the check names its line; what the trainers' loaders do with it is what the check says."""

from __future__ import annotations

import gzip
import json
import time
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollforge.errors import UserError
from rollforge.export.advice import advise, advise_log
from rollforge.export.check import check_export, check_files, guess
from rollforge.export.check_file import File, leaks
from rollforge.export.check_rows import MASK, Part
from rollforge.export.mixed import Schema
from rollforge.export.target import Alike, Kind, Target
from rollforge.registry import resolve

PAD = "x" * 3000
"""4,000 rows of it are more than the 10 MB that fix a schema."""


def check_row(row):
    if "odd" in row:
        yield "warning: the row is odd"
    if "text" not in row:
        yield "the row has no text"
    elif not isinstance(row["text"], str):
        yield f"text is {row['text']!r}, not a string"


def no_loader(kind, path):
    return None


def target(
    name="made",
    *,
    load=no_loader,
    family="demonstration",
    format="jsonl",
    check=check_row,
    check_config=None,
    reader="datasets",
):
    kind = Kind(family, row=lambda example, settings: {}, check=check, about="", format=format, reader=reader)
    return Target(
        name=name,
        kinds={"sft": kind, "grpo": kind},
        versions=("1",),
        files=lambda made: {},
        command=lambda made: "",
        check_config=check_config or (lambda kind, path: ()),
        load=load,
    )


def write(folder: Path, *rows, name="train.jsonl") -> Path:
    path = folder / name
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def said(path, to=None, **options) -> list[tuple[int, str, str]]:
    found = check_files([path], to or target(), "sft", **options)
    return [(one.line, one.level, one.message) for one in found.problems]


def texts(count, **more):
    return [{"text": f"t{number}", **more} for number in range(count)]


def test_a_good_file_has_no_problems(tmp_path):
    found = check_files([write(tmp_path, *texts(3))], target(), "sft")
    assert (found.problems, found.rows, found.errors) == ([], 3, 0)
    assert found.loader == "contract check only: made is not installed"
    assert found.row()["ok"] is True
    json.dumps(found.row())


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"text": "a"', "not JSON"),
        (b'{"text": NaN}', "NaN is not JSON, column 10"),
        (b'{"text": -Infinity}', "not JSON"),
        (b'["text"]', "the line is a list, not an object"),
        (b"null", "the line is null, not an object"),
        (b'"text"', "the line is a string, not an object"),
        (b'{"text": "\xe9"}', "not UTF-8 at byte 10 (0xe9)"),
        (b'{"text": "a", "text": "b"}', "the key 'text' stands twice"),
        (b'{"text": "a", "more": {"k": ": ", "k": 2}}', "the key 'k' stands twice"),
        (b'{"text":"a","k":1,"k":2,"n":1e6}', "the key 'k' stands twice"),
        (b'{"text": "a", "more": ' + b"[" * 300 + b"]" * 300 + b"}", "nested too deeply"),
        (b'{"text": "a", "more": ' + b"[" * 2000 + b"]" * 2000 + b"}", "not JSON"),
        (b'{"no": 1}', "the row has no text"),
        (b'{"text": 7}', "text is 7, not a string"),
        (b'{"text": "a", "chosen_reward": 0.5, "rejected_reward": 0.5}', "the chosen reward 0.5 is not above"),
    ],
)
@pytest.mark.parametrize("workers", [1, 2])
def test_a_bad_line_is_named(tmp_path, line, message, workers):
    problems = said(write(tmp_path, *texts(2), line, *texts(4)[2:]), workers=workers)
    assert [(at, level) for at, level, _ in problems] == [(3, "error")]
    assert message in problems[0][2]


@pytest.mark.parametrize(
    "text", [b'{"a": ": b", "text": "\\\\"}', b'{"text" : "x\\":", "b": {"a": 1}}', b'{"text":"\\ud800"}']
)
def test_colons_and_quotes_in_texts_are_no_keys(tmp_path, text):
    assert not [message for _, _, message in said(write(tmp_path, text)) if "twice" in message]


def test_a_file_that_was_cut_off(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_bytes(b'{"text": "a"}\n{"text": "b')
    ((line, level, message),) = said(path)
    assert (line, level) == (2, "error")
    assert "was the file cut off?" in message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"\n", "blank line"),
        (gzip.compress(b"{}", mtime=0), "compressed (gzip)"),
        (b"PAR1....", "name it train.parquet"),
        (b"\xff\xfe{\x00}\x00", "UTF-16"),
        (b"\x00\x01\x02", "binary"),
        (b'[{"text": "a"}]', "one JSON array"),
        (b'{\n "text": "a"\n}\n', "one JSON object over many lines"),
        (b"PK\x03\x04", "a zip archive"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
    ],
)
def test_an_alien_file_is_one_clear_error(tmp_path, content, message):
    path = tmp_path / "train.jsonl"
    path.write_bytes(content)
    problems = said(path)
    assert message in problems[0][2]
    assert len(problems) <= 2


def test_a_line_without_end_does_not_fill_the_memory(tmp_path):
    path = tmp_path / "train.jsonl"
    with path.open("wb") as file:
        file.write(b'{"text": "' + b"x" * 4096)
        file.seek(100 << 20)  # a hole: no disk is used
        file.write(b'"}')
    said_of_all = "a line is longer than 64 MB (it goes on at byte 8,388,608): is this JSON Lines?"
    assert (0, "error", said_of_all) in said(path)


def test_line_ends_and_byte_order_mark(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": "a"}\r\n{"text": "b"}\r\n')
    problems = said(path)
    assert [level for _, level, _ in problems] == ["error", "warning"]
    assert "byte order mark" in problems[0][2]
    assert "2 lines end with CR LF" in problems[1][2]


def test_a_finding_that_may_be_meant_is_a_warning(tmp_path):
    assert said(write(tmp_path, {"text": "a", "odd": 1})) == [(1, "warning", "the row is odd")]


def test_many_problems_of_one_kind_are_counted(tmp_path):
    file = write(tmp_path, *({"no": number} for number in range(100)))
    assert [line for line, _, message in said(file) if message == "the row has no text"] == [1, 2, 3, 4, 5]
    found = check_files([file], target(), "sft")
    assert found.errors >= 100
    assert any(line.endswith(":1, 2, 3, 4, 5 and 95 more places: error: the row has no text") for line in found.lines())


def test_lines_are_counted_across_blocks(tmp_path):
    rows = texts(7000, pad=PAD)  # three blocks
    rows[6500] = {"no": 1, "pad": PAD}
    path = write(tmp_path, *rows)
    for workers in (1, 2):
        problems = said(path, workers=workers)
        assert (6501, "error", "the row has no text") in problems


# What datasets does with objects that differ


def tool(key, **more):
    return {"text": f"{key}{more}", "pad": PAD, "args": {key: "x"}, **more}


@pytest.mark.parametrize(
    ("later", "level", "message"),
    [
        (tool("days"), "error", "args.days is a new key"),
        (tool("city", extra=1), "error", "extra is a new column"),
        ({"text": "t", "pad": PAD, "args": {}}, "error", "args.city is missing"),
        ({"text": "t", "pad": PAD, "args": "city"}, "error", "args is a text here, an object before"),
        ({"text": "t", "pad": PAD, "args": None}, None, None),
        ({"text": "t", "pad": PAD}, None, None),
    ],
)
def test_what_first_comes_after_ten_megabytes(tmp_path, later, level, message):
    rows = [tool("city", number=number) for number in range(4000)]
    for row in rows:
        del row["number"]
    path = write(tmp_path, *rows, later)
    problems = [one for one in said(path) if one[0] == 4001]
    assert [one[1] for one in problems] == ([level] if level else [])
    assert not level or message in problems[0][2]
    assert said(write(tmp_path, later, *rows, later, name="first.jsonl"))[0][2].count("is a new") == 0


def schema_of(*rows):
    schema = Schema()
    for row in rows:
        schema.add(row)
    schema.settle()
    return schema


@pytest.mark.parametrize(
    ("first", "later", "effects"),
    [
        ([{"a": None}], {"a": "s"}, ["fails"]),
        ([{"a": []}], {"a": ["s"]}, ["fails"]),
        ([{"a": 1}], {"a": 1.5}, ["fails"]),
        ([{"a": 1.5}], {"a": 1}, []),
        ([{"a": "x"}], {"a": 1}, ["changed"]),
        ([{"a": "x"}], {"a": True}, ["changed"]),
        ([{"a": 1}], {"a": "x"}, ["fails"]),
        ([{"a": "2023-11-30"}], {"a": "x"}, ["fails"]),
        ([{"a": "2023-11-30"}, {"a": "x"}], {"a": "y"}, []),
        ([{"a": {"k": 1}}, {"a": {"j": 1}}], {"a": {"z": [1]}}, []),
        ([{"a": {"k": "b", "j": "x"}}], {"a": {"k": "b"}}, ["null"]),
        ([{"a": {}}], {"a": {"k": 1}}, []),
        ([{"a": "s"}, {"a": 1}], {"a": [1]}, []),
        ([{"a": [{"b": "x"}]}], {"a": [{"b": 1}, {"b": 2}]}, ["changed", "changed"]),
    ],
)
def test_the_schema_of_the_first_block(first, later, effects):
    assert [misfit.effect for misfit in schema_of(*first).misfits(later)] == effects


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from("abcd"), JSON, max_size=4), min_size=1, max_size=6))
def test_rows_of_the_first_block_fit_into_its_schema(rows):
    schema = schema_of(*rows)
    for row in rows:
        assert [misfit for misfit in schema.misfits(row) if misfit.effect == "fails"] == []


def test_a_blank_line_hides_mixed_objects_from_datasets(tmp_path):
    rows = [{"text": "a", "args": {"city": "x"}}, b"", {"text": "b", "args": {"days": "1"}}]
    assert any("line 2 is blank" in message and level == "error" for _, level, message in said(write(tmp_path, *rows)))


def test_dates_are_no_texts_to_datasets(tmp_path):
    path = write(tmp_path, *texts(2, day="2023-11-30"))
    assert [level for _, level, message in said(path) if "timestamp" in message] == ["warning"]
    path = write(tmp_path, *texts(2, reward_model={"ground_truth": "2023-11-30T10:20:30+02:00"}))
    assert [level for _, level, message in said(path) if "timestamp" in message] == ["error"]


DATES = ["2024-02-29", "2024-01-01T10", "2024-01-01 10:20Z", "2024-01-01T10:20:30-0800", "2024-01-01T10+02:00", "0000-02-29"]
WORDS = [
    "2023-02-29",
    "2024-13-01",
    "2024-01-01T24:00",
    "2024-01-01T1020",
    "2024-01-01Z",
    "2024-01-01T10:20:30.5",
    "٢٠٢٤-01-01",
]


@pytest.mark.parametrize("text", [*DATES, *WORDS])
def test_what_arrow_takes_for_a_date(text):
    assert list(schema_of({"day": text}).dates()) == (["day"] if text in DATES else [])
    with BytesIO(json.dumps({"day": text}).encode()) as file:
        arrow = pytest.importorskip("pyarrow.json").read_json(file)
    assert (str(arrow.schema.field("day").type) != "string") == (text in DATES)


@pytest.mark.parametrize(
    ("number", "level"),
    [(1 << 64, "error"), (-(1 << 63) - 1, "error"), (1 << 63, "warning"), ((1 << 63) - 1, None), (-(1 << 63), None)],
)
def test_a_number_that_arrow_has_no_type_for(tmp_path, number, level):
    path = write(tmp_path, *texts(2), {"text": f"c {1 << 80}", "calls": [{"n": {"m": number}}]})
    found = [(line, level) for line, level, message in said(path) if f"the whole number {number} " in message]
    assert found == ([(3, level)] if level else [])
    assert not [one for one in said(path, target(reader="lines")) if "whole number" in one[2]]


def test_every_number_beyond_64_bits_is_named(tmp_path):
    rng = Random(0)
    numbers = [rng.choice((1, -1)) * rng.randrange(10**n, 10 ** (n + 1)) for n in range(19, 40) for _ in range(10)]
    # Of each kind of problem in a file the first five are named.
    files = [
        write(tmp_path, *(b'{"text":"%d","n":%d}' % (n, n) for n in numbers[at : at + 5]), name=f"{at}.jsonl")
        for at in range(0, len(numbers), 5)
    ]
    problems = check_files(files, target(), "sft").problems
    assert [n for n in numbers if not any(f"the whole number {n} " in one.message for one in problems)] == []


@pytest.mark.parametrize("name", ["trl:sft", "openrlhf:sft", "verl:sft"])
def test_reasoning_that_templates_drop_is_said(tmp_path, name):
    turns = [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4", "reasoning_content": "two twos"}]
    framework, _, kind = name.partition(":")
    [one] = [
        one
        for one in check_files(
            [write(tmp_path, {"messages": turns})], resolve("export", framework), kind, load=False
        ).problems
        if "reasoning" in one.message
    ]
    assert (one.line, one.level) == (1, "warning")


# Nulls that Arrow filled in


def calling(name, arguments, properties=None):
    call = {"type": "function", "function": {"name": name, "arguments": arguments}}
    row = {"text": f"{name}{arguments}", "messages": [{"role": "assistant", "content": "", "tool_calls": [call]}]}
    if properties is not None:
        row["tools"] = [{"type": "function", "function": {"name": name, "parameters": {"properties": properties}}}]
    return row


STRING = {"type": "string"}


@pytest.mark.parametrize(
    ("rows", "bad"),
    [
        ([calling("a", {"city": "x", "days": None}, {"city": STRING})], True),
        ([calling("a", {"city": "x"}, {"city": STRING, "days": None})], True),
        ([calling("a", {"city": None}, {"city": STRING})], False),
        ([calling("a", {"city": "x", "days": None}), calling("b", {"city": None, "days": 3})], True),
        ([calling("a", {"city": None}), calling("a", {"city": "x"})], False),
        # Tools with optional parameters that are required and may be null; no tools at all, where nobody can tell.
        ([calling("a", {"q": "x", "n": None}, {"q": STRING, "n": STRING}), calling("b", {"q": "x", "n": 3})], False),
        ([calling("a", {"q": "x", "n": None}), calling("b", {"q": "x", "n": 3})], False),
        # Arrow would have given the third call the arguments of the others.
        ([calling("a", {"c": 1, "d": None}), calling("b", {"c": None, "d": 3}), calling("c", {"c": 1})], False),
        ([calling("a", {"c": "x", "d": None}, {"c": STRING}), calling("b", {"e": "x"}, {"e": STRING})], False),
        ([calling("a", json.dumps({"days": None}), {"city": STRING})], True),
    ],
)
def test_filled_in_nulls_are_found(tmp_path, rows, bad):
    found = [message for _, level, message in said(write(tmp_path, *rows)) if "filled it in" in message and level == "error"]
    assert bool(found) is bad


def test_what_may_be_filled_in_is_a_warning(tmp_path):
    rows = [calling("a", {"q": "x", "n": None}), calling("b", {"q": "x", "n": 3})]
    [(_, level, message)] = [one for one in said(write(tmp_path, *rows)) if "null" in one[2]]
    assert (level, "said by the model?" in message) == ("warning", True)


# The file as a whole


def test_rows_that_must_be_alike(tmp_path):
    made = target()
    kind = replace(made.kinds["sft"], alike=Alike(lambda row: row.get("kind"), "error", "write one kind"))
    made = replace(made, kinds={"sft": kind})
    rows = [{"text": "1", "kind": "a"}, {"text": "2"}, {"text": "3", "kind": "b"}, {"text": "4", "kind": "c"}]
    found = said(write(tmp_path, *rows), made)
    assert found == [(3, "error", "some rows are of a, others of b and 1 more: write one kind")]
    assert said(write(tmp_path, *rows[:2]), made) == []


def test_repeated_rows_and_prompts(tmp_path):
    path = write(tmp_path, {"text": "a", "prompt": "p"}, {"text": "b", "prompt": "p"}, {"text": "a", "prompt": "p"})
    found = check_files([path], target(family="prompt"), "grpo")
    assert [(one.line, one.level) for one in found.problems] == [(2, "warning"), (3, "warning")]
    assert "have only 1 prompts" in found.problems[0].message
    assert "repeats line 1" in found.problems[1].message
    assert found.files[str(path)]["distinct_rows"] == 2


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"reward": 0.0}, "every reward is 0"),
        ({"reward": 1}, "every reward is 1"),
        ({"ground_truth": "4"}, "all 12 answers are the same"),
        ({"reward_model": {"ground_truth": "4"}}, "all 12 answers are the same"),
    ],
)
def test_rewards_and_answers_without_differences(tmp_path, more, message):
    assert any(message in text for _, _, text in said(write(tmp_path, *texts(12, **more))))


@pytest.mark.parametrize("more", [{"ground_truth": ""}, {"solution": ""}, {"reward_model": {"ground_truth": None}}])
def test_no_answer_is_no_answer_that_all_have(tmp_path, more):
    assert said(write(tmp_path, *texts(12, **more))) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_rewards_are_summed_up(tmp_path, workers):
    rows = [{"text": f"{n}" + "x" * 100_000, "reward": n % 4 / 2} for n in range(120)]
    rows += [{"text": "none"}, {"text": "text", "reward": "high"}]
    file = write(tmp_path, *rows)
    [about] = check_files([file], target(), "sft", workers=workers).files.values()
    assert about["rewards"] == {"rows": 120, "min": 0.0, "max": 1.5, "mean": 0.75}
    [other] = check_files([write(tmp_path, *texts(3), name="b.jsonl")], target(), "sft").files.values()
    assert "rewards" not in other


def test_a_prompt_on_both_sides_is_a_leak(tmp_path):
    train = write(tmp_path, *({"text": "t", "prompt": f"p{n}"} for n in range(5)))
    held_out = write(tmp_path, {"text": "t", "prompt": "q"}, {"text": "u", "prompt": "p3"}, name="validation.jsonl")
    found = check_files([train, held_out], target(), "sft")
    (leak,) = [one for one in found.problems if one.level == "error"]
    assert (leak.file, leak.line) == (str(held_out), 2)
    assert f"1 of its prompts are in {train} as well: validation says nothing then; split by prompt" in leak.message
    # A word in the middle of another says nothing.
    latest = held_out.rename(tmp_path / "latest.jsonl")
    assert not check_files([train, latest], target(), "sft").problems


def test_leaks_of_a_file_for_each_of_thousands_of_environments() -> None:
    began = time.process_time()
    files = []
    for number in range(3000):
        for split in ("train", "validation"):
            one = File(f"{split}-{number}.jsonl")
            one.part.rows = 2
            asked = number if split == "train" or number == 7 else -number - 1
            for line, prompt in enumerate((asked, 10_000 + number % 2 if split == "train" else -1), 1):
                one.part.hashes.extend((line, line, prompt & MASK))
            files.append(one)
    (found,) = leaks(files)
    assert (found.file, found.line) == ("validation-7.jsonl", 1)
    assert found.message.startswith("1 of its prompts are in train-7.jsonl as well: validation says nothing then")
    assert time.process_time() - began < 20  # minutes if each were compared with each


USER, GREETED = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}


def ask(text, **more):
    return {"role": "user", "content": text, **more}


@pytest.mark.parametrize(
    "row",
    [
        lambda asked, answer: {"messages": [USER, GREETED, ask(asked), {"role": "assistant", "content": answer}]},
        lambda asked, answer: {"messages": [GREETED, ask(asked), {"role": "assistant", "content": answer}]},
        lambda asked, answer: {
            "conversations": [{"from": one, "value": text} for one, text in (("human", asked), ("gpt", answer))]
        },
        lambda asked, answer: {
            side: [USER, GREETED, ask(asked), {"role": "assistant", "content": f"{side} {answer}"}]
            for side in ("chosen", "rejected")
        },
        lambda asked, answer: {
            "messages": [
                ask(asked),
                {
                    "role": "assistant",
                    "content": "",
                    "tool_calls": [{"function": {"name": "f", "arguments": {"x": answer}}}],
                },
                {"role": "tool", "content": answer},
                {"role": "assistant", "content": answer},
            ]
        },
        lambda asked, answer: {
            "messages": [
                ask(asked),
                {"role": "assistant", "content": "<tool_call>{}</tool_call>"},
                {"role": "user", "content": f"<tool_response>\n{answer}\n</tool_response>"},
                {"role": "assistant", "content": answer},
            ]
        },
        lambda asked, answer: {"instruction": asked, "input": "", "output": answer},
        lambda asked, answer: {"question": asked, "context": "the same article", "output": answer},
    ],
)
def test_a_prompt_ends_with_the_last_that_was_asked(tmp_path, row):
    """Other questions after the same beginning are no leak; the same question with another answer is one."""
    train = write(tmp_path, *({"text": "t", **row(f"q{number}", "a")} for number in range(12)))
    other = write(tmp_path, {"text": "t", **row("another", "a")}, name="validation.jsonl")
    assert check_files([train, other], target(), "sft").problems == []
    leaked = write(tmp_path, {"text": "t", **row("q3", "b")}, name="validation.jsonl")
    (leak,) = check_files([train, leaked], target(), "sft").problems
    assert (leak.file, leak.level) == (str(leaked), "error")
    assert "1 of its prompts are in" in leak.message


@pytest.mark.parametrize(
    "more", [{}, {"prompt": ""}, {"input": ""}, {"chosen": "\n\nHuman: Hi", "rejected": "\n\nHuman: No"}]
)
@pytest.mark.parametrize("kind", ["sft", "grpo"])
def test_rows_without_a_prompt_have_none_in_common(tmp_path, more, kind):
    train = write(tmp_path, *texts(12, **more))
    found = check_files([train, write(tmp_path, {"text": "x", **more}, name="test.jsonl")], target(family="prompt"), kind)
    assert found.problems == []
    assert found.files[str(train)]["distinct_prompts"] == 0


# Loaders


def test_what_the_loader_says_is_passed_on(tmp_path):
    found = check_files([write(tmp_path, *texts(2))], target(load=lambda kind, path: f"loaded {kind}"), "sft")
    assert found.loader == "loaded sft"


def test_rows_of_several_files_are_added_up(tmp_path):
    def load(kind, path):
        return f"loaded {len(path.read_bytes().splitlines()):,} rows with made 1"

    files = [write(tmp_path, *texts(rows), name=f"{name}.jsonl") for name, rows in (("train", 1200), ("validation", 6))]
    assert check_files(files, target(load=load), "sft").loader == "loaded 1,206 rows with made 1"


def test_a_loader_that_fails_is_an_error_with_advice(tmp_path):
    def load(kind, path):
        raise KeyError("input")

    found = check_files([write(tmp_path, *texts(2))], target(load=load), "sft")
    assert found.errors == 1
    assert "own loader fails: KeyError: 'input'" in found.problems[0].message
    assert "input_key" in found.problems[0].message


def test_no_file_and_no_kind_are_named(tmp_path):
    with pytest.raises(UserError, match="is not there"):
        check_files([tmp_path / "none.jsonl"], target(), "sft")
    with pytest.raises(UserError, match="no kind of data 'dpo'; it has sft, grpo"):
        check_files([], target(), "dpo")


def test_a_folder_without_data_is_no_good_data(tmp_path):
    (tmp_path / "trl-sft").mkdir()
    (tmp_path / "notes.md").write_text("notes")
    with pytest.raises(UserError, match=r"holds no data files \(.jsonl, .parquet\); folders in it: trl-sft"):
        check_export(tmp_path, target(), "sft")


@pytest.mark.parametrize(
    ("name", "message"),
    [("none.sh", "is not there"), ("run.sh", "only .yaml, .yml files are looked at"), (".", "is a directory")],
)
def test_a_configuration_that_is_not_looked_at_is_not_passed_over(tmp_path, name, message):
    (tmp_path / "run.sh").write_text("trl sft --nonsense 5")
    with pytest.raises(UserError, match=message):
        check_files([write(tmp_path, *texts(3))], target(), "sft", tmp_path / name)


CONFIGS = {
    "nemo-rl:sft": (
        "c.yaml",
        "data: {{train: {{dataset_name: openai_format, data_path: '{}'}}, validation: {{data_path: '{}'}}}}",
    ),
    "trl:sft": ("c.yaml", "datasets: [{{path: json, data_files: '{}'}}, {{path: json, data_files: ['{}']}}]"),
    "trl:dpo": ("c.yaml", "dataset_name: '{}'"),
    "verl:grpo": ("c.sh", "python3 -m verl.trainer.main_ppo data.train_files={} data.val_files='[{}]'"),
    "openrlhf:sft": ("c.sh", "deepspeed --module openrlhf.cli.train_sft --data.dataset {}@0.5 --eval.dataset {}"),
}


@pytest.mark.parametrize("of", CONFIGS)
def test_a_configuration_that_trains_on_another_file(tmp_path, of, monkeypatch):
    name, _, kind = of.partition(":")
    file, text = CONFIGS[of]
    config = tmp_path / file
    rows = [{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": str(n)}]} for n in range(3)]
    mine, its, held_out = write(tmp_path, rows[0], name="mine.jsonl"), write(tmp_path, rows[1]), tmp_path / "val.jsonl"
    copy, held_out = write(tmp_path, rows[1], name="copy.jsonl"), write(tmp_path, rows[2], name="val.jsonl")

    def trains_on(train, *files):
        config.write_text(text.format(train, held_out))
        found = check_files(files, resolve("export", name), kind, config, load=False).problems
        return [(one.file, one.level, one.message) for one in found if "trains on" in one.message]

    [(where, level, message)] = trains_on(its, mine)
    assert (where, level) == (str(config), "warning")
    assert str(its) in message
    assert f"not on {mine}" in message
    assert not trains_on(its, its)
    assert not trains_on(its, copy)
    assert not trains_on(its, mine, its)
    monkeypatch.chdir(tmp_path)
    assert not trains_on("train.jsonl", its)
    assert len(trains_on("train.jsonl", mine)) == 1
    assert len(trains_on(tmp_path / "tr*.jsonl", mine)) == 1
    for name_of_a_hub in ("org/data", "/no/such/train.jsonl", "", "x" * 300, "**.jsonl"):
        assert not trains_on(name_of_a_hub, mine)
    if of != "trl:dpo":
        assert not trains_on(its, held_out)


@pytest.mark.parametrize(
    ("manifest", "meant"),
    [
        ({"target": "generic", "kind": "openai", "files": {"train.jsonl": {}}}, "generic:openai"),
        ({"target": "openrlhf", "kind": "sft", "files": {"train.jsonl": {}}}, "openrlhf:sft"),
        ({"target": "openrlhf", "kind": "sft", "files": {"other.jsonl": {}}}, "nemo-rl:sft"),
        ({"target": "openrlhf", "kind": ["sft"], "files": {"train.jsonl": {}}}, "nemo-rl:sft"),
        ({"target": None, "files": 3}, "nemo-rl:sft"),
        ([], "nemo-rl:sft"),
    ],
)
def test_the_manifest_of_an_export_knows_better_than_a_guess(tmp_path, manifest, meant):
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    name, kind, _ = guess(write(tmp_path, {"messages": []}))
    assert f"{name}:{kind}" == meant


@pytest.mark.parametrize(
    ("row", "meant"),
    [
        ({"messages": []}, "nemo-rl:sft"),
        ({"messages": [], "tools": []}, "nemo-rl:sft"),
        ({"messages": [], "tools": "[]"}, "trl:sft"),
        ({"responses_create_params": {}, "id": 1}, "nemo-rl:nemo-gym"),
        ({"input": "q", "output": "4", "ground_truth": "4"}, "nemo-rl:grpo"),
        ({"prompt": "q", "chosen": "a", "rejected": "b"}, "nemo-rl:dpo"),
        ({"prompt": [], "chosen": [], "rejected": []}, "trl:dpo"),
        ({"prompt": [], "completion": [], "label": True}, "trl:kto"),
        ({"responses_create_params": {}, "agent_ref": {}}, "nemo-rl:nemo-gym"),
    ],
)
def test_the_format_is_guessed_from_the_fields(tmp_path, row, meant):
    name, kind, why = guess(write(tmp_path, b"", row))
    assert f"{name}:{kind}" == meant
    assert why


def test_rollouts_are_no_training_data(tmp_path):
    with pytest.raises(UserError, match="holds rollouts"):
        guess(write(tmp_path, {"responses_create_params": {"input": "q"}, "response": {}, "reward": 1}))


@pytest.mark.parametrize(("reader", "level"), [("pandas", "error"), ("datasets", "warning")])
def test_json_lines_for_a_reader_of_parquet(tmp_path, reader, level):
    [(_, found, message)] = said(write(tmp_path, *texts(2)), target(format="parquet", reader=reader))
    assert (found, "reads Parquet for sft; this is JSON Lines" in message) == (level, True)


def test_parquet_for_a_reader_of_lines(tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    import pyarrow as pa

    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    path = tmp_path / "train.parquet"
    pq.write_table(pa.Table.from_pylist([{"messages": turns}]), path)
    [problem] = check_files([path], resolve("export", "nemo-rl"), "sft").problems
    assert (problem.level, "nemo-rl reads sft as JSON Lines: it fails on Parquet" in problem.message) == ("error", True)
    assert check_files([path], resolve("export", "nemo-rl"), "sft-simple").problems == []
    assert guess(path)[:2] == ("trl", "sft")


@pytest.mark.trainers
def test_parquet_with_filled_in_nulls(tmp_path):
    pytest.importorskip("pyarrow")
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [calling("a", {"city": "x"}), calling("b", {"days": 3})]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "train.parquet")
    assert any("filled it in" in message for _, _, message in said(tmp_path / "train.parquet"))
    [about] = check_files([tmp_path / "train.parquet"], target(), "sft").files.values()
    assert about["longest_row_bytes"] > 100
    assert about["longest_row_line"] == 1
    texts = [{**row, "messages": json.dumps(row["messages"])} for row in rows]
    pq.write_table(pa.Table.from_pylist(texts), tmp_path / "text.parquet")
    assert not any("filled it in" in message for _, _, message in said(tmp_path / "text.parquet"))


AS_TEXT = {"prompt": '[{"role": "user", "content": "2+2?"}]', "label": "4", "ground_truth": "4"}


@pytest.mark.parametrize("of", ["trl:grpo", "openrlhf:grpo", "nemo-rl:sft", "verl:grpo", "trl:sft"])
@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_json_text_that_nobody_decodes(tmp_path, of, form):
    name, _, kind = of.partition(":")
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    row = {"messages": json.dumps(turns)} if kind == "sft" else AS_TEXT
    path = write(tmp_path, row)
    if form == "parquet":
        pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        pq.write_table(pa.Table.from_pylist([row]), path := tmp_path / "train.parquet")
    found = check_files([path], resolve("export", name), kind, load=False)
    assert any("text" in one.message or "is str" in one.message for one in found.problems if one.level == "error")


def test_json_text_that_is_decoded(tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    row = {**AS_TEXT, "data_source": "math", "reward_model": '{"ground_truth": "4"}', "extra_info": "{}"}
    pq.write_table(pa.Table.from_pylist([row]), path := tmp_path / "train.parquet")
    assert guess(path)[:2] == ("verl", "grpo-parquet")
    assert check_files([path], resolve("export", "verl"), "grpo-parquet", load=False).problems == []


MIXED = [
    ([{"a": "0"}, {"a": {"x": 1}}], ["0"]),
    ([{"a": "yes"}, {"a": 5}, {"a": " 7"}, {"a": "null"}, {"a": "2024-01-01"}], [" 7", "null"]),
    ([{"a": {"c": "3"}}, {"a": {"d": 1}}], []),
    ([{"a": {"c": "3"}}, {"a": {"d": 1}}, {"a": "[1]"}], ["[1]"]),
    ([{"a": {"c": "3"}}, {"a": {"c": [1]}}], ["3"]),
    ([{"a": ["x", {"y": 1}]}, {"a": ["3", "true"]}], ["3", "true"]),
    ([{"a": "3"}, {"a": None}, {"a": '"q"'}], []),
]


@pytest.mark.parametrize(("rows", "read"), MIXED)
def test_texts_that_are_read_as_json_beside_other_values(tmp_path, rows, read):
    found = [message for _, _, message in said(write(tmp_path, *({"text": "t", **row} for row in rows)))]
    assert [message for message in found if "datasets reads it" in message] == found
    assert all(any(f"the text {text!r}" in message for message in found) for text in read)
    assert bool(found) == bool(read)


@pytest.mark.trainers
@pytest.mark.parametrize(("rows", "read"), MIXED)
def test_datasets_reads_such_texts(tmp_path, rows, read):
    datasets = pytest.importorskip("datasets")
    (path := tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    loaded = datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=str(tmp_path))
    assert ([row["a"] for row in loaded] != [row["a"] for row in rows]) == bool(read)


@pytest.mark.trainers
@pytest.mark.parametrize(
    ("first", "later"),
    [
        ({"a": {"k": "b"}}, {"a": {"k": "b", "j": 1}}),
        ({"a": "b"}, {"a": "b", "c": 1}),
        ({"a": {"k": "b", "j": "x"}}, {"a": {"k": "b"}}),
        ({"a": None}, {"a": "s"}),
        ({"a": 1}, {"a": 1.5}),
        ({"a": "x"}, {"a": True}),
        ({"a": "2023-11-30"}, {"a": "x"}),
        ({"a": "x"}, {"a": "2023-11-30"}),
        ({"a": 1.5}, {"a": 1}),
        ({"a": {"k": "b"}}, {"a": None}),
    ],
)
def test_datasets_does_what_the_check_says(tmp_path, first, later):
    datasets = pytest.importorskip("datasets")
    rows = [{"pad": PAD, **row} for row in [first] * 4000 + [later]]
    (path := tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    expected = [misfit.effect for misfit in schema_of(*rows[:4000]).misfits(rows[4000])]
    try:
        read = datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=str(tmp_path))[4000]
    except datasets.exceptions.DatasetGenerationError:
        assert expected == ["fails"]
    else:
        kept = {key: value for key, value in read.items() if value is not None} == {
            key: value for key, value in rows[4000].items() if value is not None
        }
        assert expected == ([] if kept else ["null"] if isinstance(later["a"], dict) else ["changed"])


# Known failures


@pytest.mark.parametrize(
    ("error", "name"),
    [
        ("KeyError: 'input'", "KeyError: a field of the rows"),
        ("KeyError: None", "KeyError: None"),
        ("KeyError: 'val_data_path'", "no val_data_path"),
        ("❌ No pairs created. Try:", "no pairs"),
        ("No pairs created", "no pairs"),
        ("No DPO pairs could be formed", "no pairs"),
        ("KeyError: 'expected_answer'", "KeyError: a field of the rows"),
        ("KeyError: 'use_multiple_dataloader'", "a key that the configuration lacks"),
        (
            "AssertionError: Agent loop gym not registered, registered agent loops: dict_keys([])",
            "an agent loop that is not registered",
        ),
        ("rewards: [0.0, 0.0, 0]", "all rewards zero"),
        ("train/reward: 0.0", "all rewards zero"),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB", "out of memory (GPU)"),
        ("GRPO rewards all 0.0", "all rewards zero"),
        ("mean_reward: 0.0000", "all rewards zero"),
        ("Couldn't cast array of type struct<k: string>", "mixed objects"),
        ("FileNotFoundError: [Errno 2] No such file: '/x/grpo_math_1B'", "defaults not found"),
        ("IndexError: string index out of range", "relative data path"),
        ("StopIteration", "empty data"),
        ("AssertionError: Train dataloader is empty!", "empty data"),
        ("reward: 0.0 for all samples", "all rewards zero"),
        ("Could not override 'foo.bar'. To append to your config use +foo.bar=1", "no such key in the configuration"),
        ("omegaconf.errors.ConfigKeyError: Key 'foo' is not in struct", "no such key in the configuration"),
        (
            "ValueError: generation_batch_size (4) must be divisible by num_generations (8).",
            "generations do not divide the batch",
        ),
        ("jinja2.exceptions.UndefinedError: 'str object' has no attribute 'role'", "text where messages are wanted"),
        ('TypeError: can only concatenate str (not "list") to str', "text and messages joined"),
        ("AssertionError: Non-contiguous messages found!", "non-contiguous tokens"),
        ("ValueError: Tools should either be a JSON schema", "tools of the wrong type"),
        ("train_sft.py: error: unrecognized arguments: --input_key messages", "flags of another version"),
        ("json.decoder.JSONDecodeError: Expecting value: line 1 column 1 (char 0)", "blank line"),
        ("ValueError: reward_model_group is required", "reward server"),
        ("all-zero rewards", "all rewards zero"),
        ("Killed", "out of memory (host)"),
        ("launch.sh: line 31: 4242 Killed    trl sft --config sft.yaml", "out of memory (host)"),
        ("KeyError 'input'", "KeyError: a field of the rows"),
        ("ray::run() KeyError(\\'input\\')", "KeyError: a field of the rows"),
        ("KeyError: 'responses_create_params'", "KeyError: a field of rollouts"),
        ("KeyError('reward')", "KeyError: a field of rollouts"),
        ("out of memory", "out of memory (GPU)"),
        ("RuntimeError: CUDA OOM", "out of memory (GPU)"),
        ("ray.exceptions.OutOfMemoryError", "out of memory (host)"),
        ("1 Workers (tasks / actors) killed due to memory pressure (OOM)", "out of memory (host)"),
        ("Rewards all zero", "all rewards zero"),
        ("rewards are all zero", "all rewards zero"),
        ("{'loss': 0.0, 'reward': 0.0, 'reward_std': 0.0}", "all rewards zero"),
        ("step:3 - critic/rewards/mean:0.0 - critic/rewards/max:0.0", "all rewards zero"),
        ("0 pairs created", "no pairs"),
    ],
)
def test_known_failures_get_advice(error, name):
    found = advise(error)
    assert found, error
    assert found[0].name == name
    assert found[0].cause
    assert found[0].remedy


def test_the_advice_on_verls_input_ids_is_another_template():
    """Qwen3's fails without reasoning in the messages, too; and ignored, it leaves the reasoning of all turns out."""
    [found] = advise("AssertionError: Set `ignore_input_ids_mismatch=True` to ignore input_ids mismatch")
    assert "chat_template.jinja" in found.remedy
    assert "without their reasoning" in found.remedy


@pytest.mark.parametrize(
    "text",
    [
        *("", "hello", "mean_reward: 0.41", "train loss 0.0", "reward: 0.05", "rewards/mean 0.25", "10 pairs created"),
        *("{'reward': 0.5}", "critic/rewards/mean:0.05", "if you run out of memory, lower max_len"),
    ],
)
def test_what_is_no_failure_gets_none(text):
    assert advise(text) == []


def test_a_log_is_read_for_failures():
    found = advise_log(["step 1", "KeyError: 'input'", "ok", "KeyError: 'input'", "CUDA out of memory"])
    assert [(one.line, one.count, one.advice.name) for one in found] == [
        (2, 2, "KeyError: a field of the rows"),
        (5, 1, "out of memory (GPU)"),
    ]


@pytest.mark.parametrize(
    ("line", "zero", "other"),
    [
        ("Avg Reward: {}", "0.0000", "0.3100"),
        ("{{'loss': 0.1, 'reward': {}, 'reward_std': 0.0}}", "0.0", "1.0"),
        ("step:1 - critic/rewards/mean:{}", "0.0", "-0.05"),
        ("train/mean_reward = {}", "0", "2"),
    ],
)
def test_one_step_without_rewards_is_no_failure(line, zero, other):
    assert [one.count for one in advise_log([line.format(zero)] * 3)] == [3]
    assert advise_log([line.format(value) for value in (other, zero, other)]) == []
    assert advise_log([line.format(zero), line.format(other)]) == []


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["    • Avg Reward: 0.0000"], "output_key"),
        (["uv run python examples/run_grpo.py", "mean reward: 0.0"], "output_key"),
        (["{'loss': '0', 'reward': '0', 'reward_std': '0'}"], "reward_funcs"),
        (["trl grpo --config grpo.yaml", "rewards are all zero"], "reward_funcs"),
        (["step:3 - critic/rewards/mean:0.0 - critic/rewards/max:0.0"], "compute_score"),
        (["python3 -m verl.trainer.main_ppo", "GRPO rewards all 0.0"], "compute_score"),
        (["Global step 4: {'policy_loss': 0.0, 'reward': 0.0}"], "--reward.remote_url"),
        (["rewards are all zero"], "No attempt is right"),
    ],
)
def test_rewards_of_zero_have_the_cause_of_the_framework(lines, says):
    [found] = advise_log(lines)
    assert (found.advice.name, says in found.advice.cause) == ("all rewards zero", True)
    [*_, advice] = advise(lines[-1])
    assert advice.name == "all rewards zero"


def test_new_columns_in_every_row_are_a_thousand_kinds_of_problem_at_most(tmp_path):
    """The names come from data: a file of a million of them is neither listed by name nor held."""
    rows = [{"text": "x" * 1000} for _ in range(11_000)] + [{"text": "", f"key {n}": 1} for n in range(5000)]
    found = check_files([write(tmp_path, *rows)], target(), "sft")
    new = [one for one in found.problems if one.level == "error"]
    assert len(new) < 1010
    assert found.errors == 5000
    assert new[0].message.startswith("key 0 is a new column")
    assert new[-1].message == "other problems than the first 1,000 kinds of them"


def test_arguments_of_ever_new_tools_are_not_held(tmp_path):
    part = Part()
    for block in range(4):
        names = [f"argument {block} {number}" for number in range(9000)]
        nulls = {("messages", "tool", name): [1, 0, 1] for name in names}
        part.add(Part(lines=1, rows=1, nulls=nulls, keys={"messages": (set(names), set(names[:1]))}))
    assert len(part.nulls) == 10_000
    assert len(part.keys["messages"][0]) <= 20_000
    assert part.differing() == {"messages"}
