from __future__ import annotations

import json
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollforge.config import validate
from rollforge.curate import decontaminate
from rollforge.curate.decontaminate import DecontaminateArgs, steps
from rollforge.errors import UserError
from rollforge.records.items import system, user
from rollforge.records.lossless import dumps
from tests.curate.sampled import Result, line, ran

ITEM = "A farmer has seventeen sheep and all but nine of them run away in the night so how many are left"
WHOLE = "Who wrote the long novel War and Peace"


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    return write(tmp_path / "bench.jsonl", {"question": ITEM, "answer": "9"}, {"question": WHOLE})


def write(path: Path, *rows: Any) -> Path:
    path.write_bytes(b"".join(dumps(row) + b"\n" for row in rows))
    return path


def against(bench: Path, *prompts: Any, **args: Any) -> Result:
    values = {"benchmarks": str(bench), **args}
    return ran(steps(validate(DecontaminateArgs, values, "decontaminate")), [line(prompt) for prompt in prompts])


def test_an_ngram_of_a_benchmark_is_found_whatever_its_punctuation(bench: Path) -> None:
    dirty = f"Puzzle:\n{ITEM.upper().replace('sheep', 'sheep,')}??? Think."
    result = against(bench, "clean", dirty, ITEM[: len(ITEM) // 2])
    assert result.places == [0, 2]
    drop = result.dropped[1]
    assert drop.reason == "in benchmark bench.jsonl"
    assert drop.evidence == {
        "ngram": "a farmer has seventeen sheep and all but nine of them run away",
        "benchmark": str(bench),
        "line": 1,
        "overlap": 1.0,
        "in": "prompt",
    }
    assert result.notes["found"] == [{"row": "0:1", **drop.evidence}]
    assert result.notes["items"] == 2
    assert result.notes["benchmarks"] == {str(bench): 2}


def test_a_benchmark_that_was_written_again_is_read_again(bench: Path) -> None:
    assert against(bench, WHOLE, ITEM).places == []
    write(bench, {"question": WHOLE})
    assert against(bench, WHOLE, ITEM).places == [1]


def test_short_items_count_whole(bench: Path) -> None:
    assert against(bench, f"Tell me: {WHOLE}?", "Who wrote the long novel War").places == [1]
    assert against(bench, f"Tell me: {WHOLE}?", min_words=9).places == [0]
    warning = against(bench, "x", min_words=9).warnings[0]
    assert "1 benchmark items have fewer than 9 words: only prompts equal to one are found" in warning


def test_items_of_a_few_words_count_whole_and_the_shortest_as_the_whole_prompt(tmp_path: Path) -> None:
    bench = write(
        tmp_path / "b.jsonl",
        *({"question": text} for text in ("What is 3 + 5?", "- Name a well-known river", "17 * 3 =", "8 - 2", "!")),
    )
    prompts = [
        "Now tell me: what is 3+5 please",
        "What is 3 - 5?",
        "Somewhat is 3 + 5?",
        "Name a well known river.",
        "17 * 3",
        "What is 17 * 3?",
        "8 + 2",
        [system("You calculate."), user("8 - 2 = ?")],
        "What 3 + 5 is",
    ]
    result = against(bench, *prompts)
    assert list(result.dropped) == [0, 3, 4, 7]
    assert (result.dropped[7].evidence or {})["line"] == 4
    assert result.notes["equal_prompts_only"] == 2
    (warning,) = result.warnings
    assert warning.startswith("2 benchmark items have fewer than 3 words")


@pytest.mark.parametrize("sizes", [{}, {"words": 2}, {"words": 2, "min_words": 2}, {"words": 3, "min_words": 5}])
def test_items_of_few_words_are_found_whatever_the_size_of_an_ngram(tmp_path: Path, sizes: dict[str, int]) -> None:
    bench = write(tmp_path / "b.jsonl", {"question": "capital Peru"}, {"question": "the long way home again now"})
    assert list(against(bench, "Capital Peru?", "capital of France", **sizes).dropped) == [0]


def test_the_system_turn_and_the_response_are_looked_at_when_asked(bench: Path) -> None:
    assert against(bench, [system(ITEM), user("x")]).places == []
    lines = [line("x", ITEM), line("y")]
    args = {"benchmarks": str(bench)}
    assert ran(steps(DecontaminateArgs(**args)), lines).places == [0, 1]
    for check in ("response", "both"):
        result = ran(steps(validate(DecontaminateArgs, {**args, "check": check}, "decontaminate")), lines)
        assert result.places == [1]
        assert (result.dropped[0].evidence or {})["in"] == "response"


def test_overlap_asks_for_a_share_of_the_item(bench: Path) -> None:
    words = ITEM.split()
    part = " ".join(words[:14])
    share = 2 / (len(words) - 12)
    assert against(bench, part, overlap=share).places == []
    assert against(bench, part, overlap=share + 0.01).places == [0]
    assert against(bench, ITEM, overlap=1).places == []


def test_the_template_of_a_benchmark_is_ignored(tmp_path: Path) -> None:
    template = "Answer the following question and put the final letter of your choice inside of a box"
    rows = [{"question": f"{template}: item number {n} about {' '.join([f'thing{n}'] * 12)}"} for n in range(12)]
    bench = write(tmp_path / "choice.jsonl", *rows, {"question": template})
    result = against(bench, f"{template}: mine", rows[3]["question"])
    assert result.places == [0]
    assert (result.dropped[1].evidence or {})["line"] == 4
    assert result.notes["common_ngrams_ignored"] > 0
    assert result.notes["only_common"] == 1
    assert against(bench, f"{template}: mine", common=13).places == []


def test_a_template_of_the_data_is_warned_of(tmp_path: Path, bench: Path) -> None:
    result = against(bench, *[f"{ITEM} {n}" for n in range(120)])
    assert "120 of 120 rows are dropped for one n-gram" in result.warnings[0]
    assert len(result.notes["found"]) == 1
    said = "You are given a multiple choice question. Reason step by step and put the letter of your answer in a box."
    small = write(tmp_path / "small.jsonl", *[{"question": f"{said} {' '.join([f'thing{n}'] * 20)}"} for n in range(4)])
    result = against(small, *[f"{said} Mine, number {n}" for n in range(12)])
    assert len(result.dropped) == 12
    assert "12 of 12 rows are dropped for one n-gram, 'you are given a multiple" in result.warnings[0]
    assert against(small, *[f"{said} {' '.join(['thing1'] * 20)} {n}" for n in range(12)]).warnings == []


def test_a_book_is_not_taken_apart_for_each_row(tmp_path: Path) -> None:
    words = [f"word{number * 7919 % 100_003}" for number in range(100_000)]
    bench = write(tmp_path / "books.jsonl", {"question": " ".join(words)})
    began = time.process_time()
    # One stretch, and two that do not stand together in the book.
    quotes = [" ".join([*words[at : at + 20], *words[at + 500 : at + 520 + at % 3]]) for at in range(0, 30_000, 40)]
    result = against(bench, *quotes, "clean")
    assert result.places == [len(quotes)]
    assert {drop.evidence["overlap"] for drop in result.dropped.values() if drop.evidence} == {0.0002}
    assert time.process_time() - began < 10  # a minute if each row had the book's n-grams listed


def test_a_hash_alone_convicts_nobody(bench: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Colliding(decontaminate.Grams):
        def hashes(self, n: int) -> Any:
            return super().hashes(n) % 2

    monkeypatch.setattr(decontaminate, "Grams", Colliding)
    decontaminate._benchmarks.clear()
    decontaminate._prompts.clear()
    other = "some entirely different words that are a prompt of more than thirteen words but not of the benchmark"
    assert against(bench, other, ITEM).places == [0]
    decontaminate._benchmarks.clear()
    decontaminate._prompts.clear()


@pytest.mark.parametrize(
    "row",
    [
        {"question": ITEM},
        {"prompt": ITEM, "answer": "x"},
        {"input": ITEM},
        {"problem": ITEM, "text": "other"},
        {"text": ITEM},
        {"prompt": [{"role": "system", "content": "You help."}, {"role": "user", "content": ITEM}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": ITEM}]}, {"role": "assistant", "content": "9"}]},
        {"conversations": 1, "messages": [{"from": "human", "value": ITEM}]},
        {"responses_create_params": {"input": ITEM}, "expected_answer": "9"},
        {"responses_create_params": {"input": [user(ITEM)]}, "response": {"output": []}, "reward": 1.0},
        ITEM,
    ],
)
def test_shapes_of_benchmarks(row: Any, tmp_path: Path) -> None:
    assert against(write(tmp_path / "b.jsonl", row), ITEM, "clean").places == [1]


def test_arrays_and_tables(tmp_path: Path) -> None:
    array = tmp_path / "array.json"
    array.write_bytes(b"\xef\xbb\xbf" + json.dumps([{"question": "other"}, {"question": ITEM}], indent=1).encode())
    lines = write(tmp_path / "lines.json", {"question": "other"}, {"question": ITEM})
    comma, tab = tmp_path / "b.csv", tmp_path / "b.tsv"
    long = "context " * 20_000  # more than the csv module takes by itself
    comma.write_text(f'id,question\n1,"two\nlines {long}"\n2,"{ITEM}, so?"\n', "utf-8")
    tab.write_text(f"question\tid\nother\t1\n{ITEM}\t2\textra\n", "utf-8")
    for file, place in ((array, 2), (lines, 2), (comma, 4), (tab, 3)):
        result = against(file, ITEM, "clean")
        assert (result.places, (result.dropped[0].evidence or {})["line"]) == ([1], place)
    other, broken = tmp_path / "other.csv", tmp_path / "broken.json"
    other.write_text("id,stem\n1,x\n", "utf-8")
    with pytest.raises(UserError, match=r"other\.csv:2: no text in any of question.*it has id, stem; name its key"):
        against(other, ITEM)
    broken.write_text("[1")
    with pytest.raises(UserError, match=r"broken\.json: not JSON"):
        against(broken, ITEM)


def test_parquet_where_there_is_pyarrow(tmp_path: Path) -> None:
    file = tmp_path / "b.parquet"
    try:
        parquet: Any = import_module("pyarrow.parquet")
    except ImportError:
        file.write_bytes(b"PAR1")
        with pytest.raises(UserError, match=r"pip install .rollforge\[parquet\]"):
            against(file, ITEM)
        return
    parquet.write_table(import_module("pyarrow").table({"id": [1, 2], "question": ["other", ITEM]}), file)
    result = against(file, ITEM, "clean")
    assert (result.places, (result.dropped[0].evidence or {})["line"]) == ([1], 2)


def test_text_files_several_files_and_a_named_field(tmp_path: Path, bench: Path) -> None:
    text = tmp_path / "lines.txt"
    text.write_text(f"\ufeffsome first line of the file that has more than enough words\n\n{ITEM}\n", encoding="utf-8")
    result = ran(steps(DecontaminateArgs.short([str(text), str(bench)])), [line(ITEM), line(WHOLE)])
    assert [(drop.evidence or {})["line"] for drop in result.dropped.values()] == [3, 2]
    named = write(tmp_path / "n.jsonl", {"question": "no", "stem": ITEM})
    assert against(named, ITEM, field="stem").places == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"question": "x"}\n{"question": \n', r"b\.jsonl:2: not JSON"),
        (b"[1]\n", r"b\.jsonl:1: the row is list"),
        (
            b'{"q": "x", "a": "y"}\n',
            r"b\.jsonl:1: no text in any of question.*it has q, a; name its key in a recipe.*field: KEY",
        ),
        (b'{"messages": [1, {}]}\n', r"b\.jsonl:1: the messages are none"),
        (b'{"question": {"choices": []}}\n', r"b\.jsonl:1: no text"),
        (b'{"question": null}\n', "none of the 1 benchmark items has a word"),
        (b"\n\n", "is empty"),
        (b"", "is empty"),
        (b'{"question": "!?"}\n', "none of the 1 benchmark items has a word"),
        (b"\xff\xfe\x00", r"b\.jsonl:1: not JSON"),
    ],
)
def test_bad_benchmarks_are_errors_with_their_place(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "b.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        steps(DecontaminateArgs(benchmarks=str(path)))


@pytest.mark.parametrize(
    ("name", "content", "field"),
    [
        ("gpqa.csv", f'Question,Answer\n"{ITEM}",19\n', None),
        ("caps.jsonl", json.dumps({"PROBLEM": ITEM}), None),
        ("ctx.jsonl", json.dumps({"ctx": ITEM}), None),
        ("sharegpt.jsonl", json.dumps({"conversations": [{"from": "human", "value": ITEM}]}), None),
        ("arc.jsonl", json.dumps({"question": {"stem": ITEM, "choices": []}}), None),
        ("arc.json", json.dumps([{"about": {"stem": ITEM}}]), "about.stem"),
        ("dots.json", json.dumps([{"about.stem": ITEM}]), "about.stem"),
        ("nested.json", json.dumps({"version": 1, "data": [{"question": ITEM}]}, indent=1), None),
        ("one.json", json.dumps({"question": ITEM, "choices": [{"text": "x"}]}, indent=1), None),
        ("lines.json", f"{json.dumps({'question': 'no'})}\n{json.dumps({'question': ITEM})}\n", None),
        ("CAPS.CSV", f'id,question\n1,"{ITEM}"\n', None),
        ("CAPS.TSV", f"id\tquestion\n1\t{ITEM}\n", None),
        ("LINES.JSONL", f"{json.dumps({'question': 'no'})}\n{json.dumps({'question': ITEM})}\n", None),
        ("lines.txt", f"{json.dumps({'question': 'no'})}\n{json.dumps({'question': ITEM})}\n", None),
        ("lines", f"{json.dumps({'stem': 'no'})}\n{json.dumps({'stem': ITEM})}\n", "stem"),
        ("columns.json", json.dumps({"question": ["no", ITEM], "answer": ["1", "2"]}), None),
        ("verl.json", json.dumps({"prompt": [[user("no")], [user(ITEM)]], "data_source": ["a", "a"]}), None),
        ("stems.json", json.dumps({"stem": ["no", ITEM]}), "stem"),
        ("chat.json", json.dumps({"messages": [user(ITEM), {"role": "assistant", "content": "9"}]}), None),
        ("turns.json", json.dumps({"prompt": [ITEM, "And then?"], "id": 1}), None),
        ("numbers.jsonl", f"{json.dumps({'question': 5})}\n{json.dumps({'question': ITEM})}\n", None),
    ],
)
def test_benchmarks_as_they_are_published(name: str, content: str, field: str | None, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    assert against(tmp_path / name, ITEM, field=field).places == []


def test_short_items_of_every_format_are_items_of_their_own(tmp_path: Path) -> None:
    items = ["What is the capital of France?", "Name three primary colors please."]
    lines = "".join(json.dumps({"question": item}) + "\n" for item in items)
    contents = {
        "lines.txt": lines,
        "LINES.JSONL": lines,
        "columns.json": json.dumps({"question": items}),
        "B.CSV": "question\n" + "\n".join(items),
        "text.md": "\n".join(items),
    }
    for name, content in contents.items():
        (tmp_path / name).write_text(content)
        assert against(tmp_path / name, *items, "clean and free of it").places == [2], name


def test_a_file_of_several_lists_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "two.json"
    path.write_text(json.dumps({"train": [{"question": "x"}], "test": [{"question": ITEM}]}))
    with pytest.raises(UserError, match=r"two\.json: 2 lists of rows \(train, test\): write the one that is meant"):
        against(path, ITEM)


def test_rows_without_text_are_left_out_and_counted(tmp_path: Path) -> None:
    bench = write(tmp_path / "b.jsonl", {"question": None}, {"question": ITEM}, {"question": " ", "text": None})
    result = against(bench, ITEM)
    assert result.places == []
    assert "2 of the 3 benchmark rows have no text, and are left out" in result.warnings


def test_files_that_are_not_there_or_no_benchmark(tmp_path: Path, bench: Path) -> None:
    with pytest.raises(UserError, match=r"there is no benchmark file .*bensh\.jsonl; did you mean .*bench\.jsonl"):
        steps(DecontaminateArgs(benchmarks=str(tmp_path / "bensh.jsonl")))
    with pytest.raises(UserError, match="is a directory; benchmarks are files: name those in it"):
        steps(DecontaminateArgs(benchmarks=str(tmp_path)))
    with pytest.raises(UserError, match="unpack or convert it first"):
        steps(DecontaminateArgs(benchmarks="x.zip"))
    with pytest.raises(UserError, match=r"benchmarks: .* at least 1 item .*got \[\]"):
        validate(DecontaminateArgs, {"benchmarks": []}, "decontaminate")
    binary = tmp_path / "b.txt"
    binary.write_bytes(b"fine\n\xff\xfe\n")
    with pytest.raises(UserError, match=r"b\.txt:2: not UTF-8"):
        steps(DecontaminateArgs(benchmarks=str(binary)))
    for wrong in (None, 3, [], [1], ""):
        with pytest.raises(UserError, match="write: decontaminate: benchmark"):
            DecontaminateArgs.short(wrong)


words = st.lists(st.sampled_from("abcd"), min_size=1, max_size=12)


@given(st.lists(words, min_size=1, max_size=5), st.lists(words, min_size=1, max_size=6))
def test_what_is_dropped_is_what_shares_an_ngram(tmp_path_factory: pytest.TempPathFactory, items: Any, prompts: Any) -> None:
    bench = write(tmp_path_factory.mktemp("b") / "b.jsonl", *[{"question": " ".join(item)} for item in items])
    result = against(bench, *[" ".join(prompt) for prompt in prompts], words=4, min_words=1, common=100)

    def grams(text: list[str], n: int) -> set[tuple[str, ...]]:
        return {tuple(text[at : at + n]) for at in range(len(text) - n + 1)}

    for at, prompt in enumerate(prompts):
        shared = any(grams(prompt, min(len(item), 4)) & grams(item, min(len(item), 4)) for item in items)
        assert (at in result.dropped) == shared
