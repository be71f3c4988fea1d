"""The generic target: text and messages with scores, ShareGPT, OpenAI fine-tuning, any field names."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollforge.config import validate
from rollforge.errors import UserError
from rollforge.export.examples import Demonstration, Judged, Pair, Prompt
from rollforge.export.generic import TARGET
from rollforge.export.mapping import SOURCES, read_mapping
from rollforge.export.target import Refused, Settings
from rollforge.records.lossless import dumps
from tests.export.samples_trl import ASK, CLOCK, SUM, TOLD, WEATHER, call, examples, heard, made, origin, said

Json = dict[str, Any]
GOLDEN = Path(__file__).parent / "golden" / "generic"
KINDS = list(TARGET.kinds)
MAPPING = {
    "question": "prompt_messages",
    "meta.reward": "reward",
    "meta.env": "env",
    "level": "task.level",
    "gold": "answer",
    "reply": "final_text",
    "subject": "=math",
    "version": "=2",
}


TWO = said("", call("a", "f"), call("b", "f"))
TWINS = said("", call("a", "f"), call("a", "f"))


def row(kind: str, example: Any, **settings: Any) -> Json:
    return TARGET.kinds[kind].row(example, Settings(**settings))


def problems(kind: str, given: Json) -> list[str]:
    return list(TARGET.kinds[kind].check(given))


def rows(kind: str) -> list[Json]:
    found = []
    for example in examples(TARGET.kinds[kind].family):
        try:
            found.append(row(kind, example, mapping=MAPPING))
        except Refused as reason:
            found.append({"refused": str(reason)})
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_the_rows_are_as_kept(kind: str) -> None:
    kept = GOLDEN / f"{kind}.jsonl"
    written = b"".join(dumps(row) + b"\n" for row in rows(kind))
    if os.environ.get("ROLLFORGE_GOLDEN"):
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(written)
    assert written == kept.read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_passes_its_own_check(kind: str) -> None:
    assert [found for row in rows(kind) if "refused" not in row for found in problems(kind, row)] == []


# Text with a score


def judged(prompt: list[Json], completion: list[Json], reward: float = 0.5) -> Judged:
    return Judged(origin("s-0", reward), prompt, completion, [], False)


def test_text_keeps_system_turns_and_reasoning() -> None:
    thought = {**said("4"), "reasoning_content": "2 and 2"}
    found = row("prompt-completion-score", judged([{"role": "system", "content": "Be brief."}, *SUM], [thought]))
    assert found == {"prompt": "Be brief.\n\n2 + 2?", "completion": "<think>2 and 2</think>4", "score": 0.5}
    cut = row("prompt-completion-score", judged(SUM, [{**thought, "content": ""}]))
    assert cut["completion"] == "<think>2 and 2"


@pytest.mark.parametrize(
    ("prompt", "completion", "reason"),
    [
        ([*SUM, said("3"), *SUM], [said("4")], "earlier turns"),
        (SUM, TOLD, "more than one text"),
        (SUM, [said("", call("c", "f"))], "more than one text"),
        (SUM, [said("")], "empty"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], [said("4")], "more than text"),
    ],
)
def test_what_text_cannot_hold_is_refused(prompt: list[Json], completion: list[Json], reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        row("prompt-completion-score", judged(prompt, completion))


def test_text_holds_no_tools() -> None:
    with pytest.raises(Refused, match="tools offered would be lost"):
        row("prompt-completion-score", Judged(origin("s-0"), SUM, [said("4")], [CLOCK], True))


def test_a_tool_with_a_name_that_openai_does_not_take_is_refused() -> None:
    tool = {"type": "function", "function": {"name": "clock.now", "parameters": {"type": "object"}}}
    with pytest.raises(Refused, match=r"a tool named 'clock.now' \(OpenAI"):
        row("openai", Demonstration(origin("s-0"), SUM, [said("4")], [tool]))
    with pytest.raises(Refused, match=r"a tool named 'clock.now' \(OpenAI"):
        row("openai-dpo", Pair(origin("s-0"), origin("s-1"), SUM, [said("4")], [said("5")], [tool]))


def test_every_judged_rollout_is_wanted_where_there_is_a_score() -> None:
    assert [kind for kind in KINDS if TARGET.kinds[kind].every] == ["prompt-completion-score", "messages-score", "mapping"]


# ShareGPT


def test_sharegpt_turns_alternate_and_parallel_results_are_one_turn() -> None:
    found = rows("sharegpt")[1]
    assert [turn["from"] for turn in found["conversations"]] == ["system", "human", "function_call", "observation", "gpt"]
    calls, results = found["conversations"][2]["value"], found["conversations"][3]["value"]
    assert [one["name"] for one in json.loads(calls)] == ["get_weather", "get_time"]
    assert json.loads(results) == ["9 degrees", "noon"]
    assert json.loads(found["tools"]) == [WEATHER["function"], CLOCK["function"]]
    assert rows("sharegpt")[0]["tools"] == ""


def test_reasoning_before_a_call_stays_in_front_of_it() -> None:
    for message in (
        {**said("", call("c", "f", a=1)), "reasoning_content": "hm"},
        said("<think>hm</think>", call("c", "f", a=1)),
    ):
        found = row("sharegpt", Demonstration(origin("s-0"), SUM, [message, heard("c", "1"), said("1")], []))
        assert found["conversations"][1]["value"] == '<think>hm</think>{"name":"f","arguments":{"a":1}}'
        assert problems("sharegpt", found) == []


@pytest.mark.parametrize(
    ("completion", "reason"),
    [
        ([said("I look.", call("c", "f")), heard("c", "1"), said("1")], "text beside a tool call"),
        ([said("a"), said("b")], "after gpt comes gpt"),
        ([said("a"), {"role": "system", "content": "x"}, said("b")], "system turn in the middle"),
    ],
)
def test_what_sharegpt_cannot_hold_is_refused(completion: list[Json], reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        row("sharegpt", Demonstration(origin("s-0"), SUM, completion, []))


def test_sharegpt_brings_the_entries_for_llama_factory(tmp_path: Path) -> None:
    made(TARGET, "sharegpt", tmp_path, validation=True)
    entries = json.loads((tmp_path / "dataset_info.json").read_text())
    assert [Path(entry["file_name"]).name for entry in entries.values()] == ["train.jsonl", "validation.jsonl"]
    assert {entry["formatting"] for entry in entries.values()} == {"sharegpt"}


# OpenAI


def test_openai_arguments_are_text() -> None:
    plain, with_tools = rows("openai")
    assert plain == {"messages": [*SUM, {"role": "assistant", "content": "4"}]}
    calls = with_tools["messages"][2]["tool_calls"]
    assert [json.loads(one["function"]["arguments"]) for one in calls] == [{"city": "Oslo"}, {"zone": "CET", "utc": False}]
    assert "content" not in with_tools["messages"][2]
    assert with_tools["parallel_tool_calls"] is True
    assert with_tools["tools"] == [WEATHER, CLOCK]


def test_turns_that_both_answers_share_become_input() -> None:
    found = rows("openai-dpo")[1]
    assert len(found["input"]["messages"]) == 5
    assert found["preferred_output"] == [{"role": "assistant", "content": "9 degrees at noon."}]
    assert found["non_preferred_output"] == [{"role": "assistant", "content": "It is cold."}]


@pytest.mark.parametrize(
    ("kind", "example", "reason"),
    [
        ("openai-dpo", Pair(origin("s-0"), origin("s-1"), ASK, TOLD, [said("no")], []), "several turns"),
        ("openai-dpo", Pair(origin("s-0"), origin("s-1"), ASK, [said("no")], [said("no")], []), "the same"),
        ("openai", Demonstration(origin("s-0"), SUM, [said("")], []), "empty message"),
        ("openai", Demonstration(origin("s-0"), SUM, [heard("9", "?"), said("4")], []), "answers no call"),
        ("openai-dpo", Pair(origin("s-0"), origin("s-1"), ASK, TOLD, [heard("9", "?"), *TOLD], []), "answers no call"),
        ("openai", Demonstration(origin("s-0"), SUM, [TWO, heard("a", "1"), said("4")], []), "without a result"),
        ("openai", Demonstration(origin("s-0"), SUM, [TWINS, heard("a", "1"), said("4")], []), "without a result"),
        ("openai", Demonstration(origin("s-0"), SUM, [said("", call("a", "add b", x=1))], []), "letters, digits"),
        ("prompt-completion-score", Judged(origin("s-0"), SUM, [said(" \n")], [], True), "completion is empty"),
        ("openai", Demonstration(origin("s-0"), SUM, [{**said("4"), "reasoning_content": "hm"}], []), "--reasoning"),
    ],
)
def test_what_no_reader_could_use_is_refused(kind: str, example: Any, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        row(kind, example)


# Checks of rows that anybody wrote


USER = {"role": "user", "content": "?"}
GOOD = {"role": "assistant", "content": "!"}
HUMAN = {"from": "human", "value": "?"}
GPT = {"from": "gpt", "value": "!"}


@pytest.mark.parametrize(
    ("kind", "given", "said"),
    [
        ("prompt-completion-score", {"prompt": "?", "completion": "", "score": 1}, "completion is ''"),
        ("prompt-completion-score", {"prompt": "?", "completion": "!"}, "score is missing"),
        ("prompt-completion-score", {"prompt": "?", "completion": "!", "score": True}, "not a number"),
        ("messages-score", {"messages": [], "score": 1}, "not a list of messages"),
        ("messages-score", {"messages": [{"content": "x"}], "score": 1}, "has no role"),
        ("messages-score", {"messages": [{"role": "user"}], "score": 1}, "has no content"),
        ("sharegpt", {"messages": []}, "conversations is missing"),
        ("sharegpt", {"conversations": [{"from": "user", "value": "?"}]}, "from is 'user'"),
        ("sharegpt", {"conversations": [HUMAN, HUMAN]}, "after human comes human"),
        ("sharegpt", {"conversations": [GPT]}, "after the head comes gpt"),
        ("sharegpt", {"conversations": [HUMAN]}, "does not end"),
        ("sharegpt", {"conversations": [HUMAN, {"from": "gpt", "value": None}]}, "value is missing"),
        ("sharegpt", {"conversations": [HUMAN, {"from": "function_call", "value": "f()"}]}, "is no call"),
        ("sharegpt", {"conversations": [HUMAN, GPT], "tools": []}, "not JSON text"),
        ("sharegpt", {"conversations": [HUMAN, GPT], "tools": "{"}, "not the JSON of a list"),
        ("openai", {"messages": [USER]}, "at least one assistant"),
        ("openai", {"messages": [USER, said("", call("c", "f"))]}, "wants the JSON as a string"),
        ("openai", {"messages": [USER, GOOD, heard("c", "1"), GOOD]}, "id of no call"),
        (
            "openai",
            {"messages": [USER, TWO, heard("a", "1"), GOOD]},
            "messages[3]: the calls before it have no result ('b')",
        ),
        ("openai", {"messages": [USER, said("", call("a", "add b"))]}, "'add b' is no function's name"),
        ("openai", {"messages": [USER, GOOD], "tools": [{"function": {"name": ""}}]}, "tools[0]: '' is no function's name"),
        ("openai", {"messages": [USER, said("")]}, "neither content nor tool calls"),
        ("openai", {"messages": [USER, GOOD], "reward": 1}, "reward is no field"),
        ("openai", {"messages": [USER, GOOD], "tools": [{"name": "f"}]}, "tools[0] is not"),
        ("openai-dpo", {"input": [USER]}, "input is ["),
        ("openai-dpo", {"input": {"messages": [USER]}, "preferred_output": [GOOD]}, "non_preferred_output is missing"),
        (
            "openai-dpo",
            {"input": {"messages": [USER]}, "preferred_output": [GOOD, GOOD], "non_preferred_output": [GOOD]},
            "there are 2 messages",
        ),
        (
            "openai-dpo",
            {"input": {"messages": [USER]}, "preferred_output": [GOOD], "non_preferred_output": [GOOD]},
            "the same",
        ),
        ("mapping", {}, "empty"),
    ],
)
def test_a_check_says_what_is_wrong(kind: str, given: Json, said: str) -> None:
    assert any(said in found for found in problems(kind, given)), problems(kind, given)


KEYS = ["messages", "prompt", "completion", "score", "tools", "conversations", "from", "value", "input", "preferred_output"]
KEYS += [
    "non_preferred_output",
    "parallel_tool_calls",
    "role",
    "content",
    "tool_calls",
    "tool_call_id",
    "function",
    "name",
    "id",
]
JSON = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.text(max_size=5), st.sampled_from(["user", "assistant", "tool", "gpt"])
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)),
    max_leaves=12,
)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_a_check_survives_any_row(kind: str, data: st.DataObject) -> None:
    row = data.draw(st.dictionaries(st.sampled_from(KEYS), JSON, max_size=6))
    assert all(isinstance(found, str) for found in problems(kind, row))


# Any field names


def test_a_mapping_nests_and_takes_constants() -> None:
    found = row("mapping-prompts", examples("prompt")[0], mapping=MAPPING)
    meta = {"reward": 1.0, "env": "sums"}
    wanted = {"question": SUM, "meta": meta, "level": 2, "gold": "4", "reply": "4", "subject": "math", "version": 2}
    assert found == wanted


def test_a_mapping_of_rollouts() -> None:
    example = Judged(origin("w-1", 0.25), ASK, TOLD, [WEATHER], False, "9", {"a.b": 1, "sample": {"deep": {"x": 2}}})
    names = {name: name for name in SOURCES if name not in ("completion",)}
    found = row(
        "mapping", example, mapping=names | {"one": "task.a.b", "two": "task.sample.deep.x", "none": "task.sample.no.x"}
    )
    assert found["messages"] == ASK + TOLD
    assert found["tools"] == [WEATHER]
    assert (found["reward"], found["answer"], found["final_text"]) == (0.25, "9", "9 degrees at noon.")
    assert (found["env"], found["task"], found["model"], found["id"]) == ("weather", "w", "policy", "w-1")
    assert (found["one"], found["two"], found["none"]) == (1, 2, None)


def test_prompts_have_no_completion() -> None:
    with pytest.raises(Refused, match="generic:mapping"):
        row("mapping-prompts", examples("prompt")[0], mapping={"c": "completion"})


@pytest.mark.parametrize(
    ("mapping", "said"),
    [
        ({"q": "promt"}, "unknown source 'promt'; did you mean prompt"),
        ({"q": "task."}, "unknown source 'task.'"),
        ({"a": "prompt", "a.b": "reward"}, "a.b stands inside a"),
        ({"a.": "prompt"}, "empty part"),
        ({"a": {"b": 3}}, "a.b: 3 is no source"),
    ],
)
def test_a_wrong_mapping_is_refused_before_anything_is_read(mapping: Json, said: str) -> None:
    with pytest.raises(UserError, match=said.replace("?", r"\?")):
        validate(Settings, {"mapping": mapping}, "the options")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: {b: rewrd}", "did you mean reward"),
        ("a: {n: 3}", "a.n: 3 is no source; a constant is written as a.n: '=3'"),
        ("a: true", "a: true is no source"),
        ("a:", "a: null is no source"),
        ("- a", "not keys and values"),
    ],
)
def test_a_wrong_mapping_file_names_the_key(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "mapping.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as raised:
        read_mapping(path)
    assert said in str(raised.value)
    assert str(path) in str(raised.value)


def test_a_mapping_file_may_be_nested_or_dotted(tmp_path: Path) -> None:
    path = tmp_path / "mapping.yaml"
    path.write_text("question: prompt\nmeta:\n  env: env\n  deep: {er: reward}\nmeta.kind: '=a b'\n")
    assert read_mapping(path) == {"question": "prompt", "meta.env": "env", "meta.deep.er": "reward", "meta.kind": "=a b"}
    path.write_text("mapping:\n  question: prompt\n  meta: {env: env}\n")  # as an export's configuration has it
    assert read_mapping(path) == {"question": "prompt", "meta.env": "env"}
    path.write_text("mapping: prompt\n")
    assert read_mapping(path) == {"mapping": "prompt"}


@given(st.one_of(st.text(), st.integers(-(10**9), 10**9), st.booleans(), st.lists(st.integers(0, 9))))
def test_any_constant_comes_back(value: Any) -> None:
    example = Prompt(origin("s-0"), SUM, [], None, {})
    assert row("mapping-prompts", example, mapping={"c": "=" + json.dumps(value)}) == {"c": value}


@pytest.mark.trainers
@pytest.mark.parametrize("kind", KINDS)
def test_datasets_reads_what_was_written(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    path = tmp_path / "train.jsonl"
    path.write_bytes(b"".join(dumps(row) + b"\n" for row in rows(kind) if "refused" not in row))
    assert (TARGET.load(kind, path) or "").startswith("loaded")
