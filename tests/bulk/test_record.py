"""A row decoded in part says what the row read whole says: for every shape, usual and odd, and for what is wrong with it."""

import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rollforge.bulk.asked import asked_of
from rollforge.bulk.blocks import Unusable, read
from rollforge.bulk.record import Record
from rollforge.errors import UserError
from rollforge.records.items import item_type, text_of
from rollforge.records.messages import Dialect, as_items, messages
from rollforge.records.rows import BadLine, read_rollouts, rollout_from_row

ROWS = Path(__file__).parents[1] / "records/rows/rollouts.jsonl"
DIALECTS = [Dialect(flat=True, reasoning=kind) for kind in ("think", "reasoning_content", "none")]
KNOWN = ("role", "content", "reasoning_content", "reasoning", "refusal", "tool_calls", "tool_call_id", "name")


def told(make: Any) -> Any:
    try:
        return make()
    except (UserError, ValueError) as error:
        return f"error: {error}"


def known(chat: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for message in chat:
        if message["role"] != "assistant":
            for key in ("tool_calls", "refusal", "reasoning_content", "reasoning"):
                message.pop(key, None)
        if not message.get("tool_calls"):
            message.pop("tool_calls", None)
        for call in message.get("tool_calls", ()):
            for key in call.keys() - {"id", "type", "function"}:
                del call[key]
    return [{key: value for key, value in message.items() if key in KNOWN} for message in chat]


def whole(line: bytes, dialect: Dialect) -> Any:
    rollout = rollout_from_row(json.loads(line))
    return known([*messages(rollout.params, (), dialect), *messages({}, rollout.output, dialect)])


def parts(line: bytes, dialect: Dialect, eager: bool) -> Any:
    record = Record(line, eager=eager)
    return [*record.prompt_messages(dialect), *record.response_messages(dialect)]


def last(line: bytes, dialect: Dialect, eager: bool) -> Any:
    said = Record(line, eager=eager).response_messages(dialect)
    return next((message for message in reversed(said) if message["role"] == "assistant"), None)


def agree(line: bytes) -> None:
    for dialect, eager in product(DIALECTS, (False, True)):
        final = told(lambda dialect=dialect, eager=eager: last(line, dialect, eager))
        if not isinstance(final, str):  # what is broken elsewhere in the row may be passed over
            assert told(lambda dialect=dialect, eager=eager: Record(line, eager=eager).last_message(dialect)) == final
        expected, found = (
            told(lambda dialect=dialect: whole(line, dialect)),
            told(lambda dialect=dialect, eager=eager: parts(line, dialect, eager)),
        )
        if isinstance(expected, str):  # of several mistakes either may name another
            assert isinstance(found, str)
            return
        assert found == expected
    rollout = rollout_from_row(json.loads(line))
    for record in (Record(line), Record(line, eager=True)):
        assert (record.outcome, record.reward, record.index) == (rollout.outcome, rollout.reward, rollout.index)
        assert record.env == (rollout.env or "")
        assert record.model == rollout.model
        assert record.size == Record(line).size
        assert [item.kind for item in record.items()] == [item_type(item) for item in as_items(rollout.output)]


@pytest.mark.parametrize("line", ROWS.read_bytes().splitlines())
def test_stored_rows(line: bytes) -> None:
    agree(line)


text = st.text(max_size=8)
part = st.one_of(
    text,
    st.fixed_dictionaries({"type": st.sampled_from(["output_text", "input_text", "text"]), "text": text}),
    st.fixed_dictionaries({"text": text}),
    st.fixed_dictionaries({"type": st.just("refusal"), "refusal": text}),
    st.fixed_dictionaries({"type": st.just("input_image"), "image_url": text}),
)
content = st.one_of(st.none(), text, st.lists(part, max_size=3))
call = st.fixed_dictionaries({"name": text, "arguments": st.one_of(text, st.just({"a": 1}))})
role = st.sampled_from(["user", "assistant", "system", "developer"])
item = st.one_of(
    st.fixed_dictionaries(
        {"role": role, "content": content}, optional={"type": st.just("message"), "id": text, "odd": text}
    ),
    st.fixed_dictionaries({"type": st.just("message"), "content": content}),
    st.fixed_dictionaries({"type": st.just("reasoning"), "summary": content}, optional={"content": content, "id": text}),
    st.fixed_dictionaries(
        {"type": st.just("function_call"), "name": text, "arguments": st.one_of(text, st.just('{"a": 1}'))},
        optional={"call_id": text, "status": text, "generation_token_ids": st.just([1]), "namespace": text},
    ),
    st.fixed_dictionaries({"type": st.just("function_call_output"), "output": content}, optional={"call_id": text}),
    st.fixed_dictionaries({"type": st.sampled_from(["web_search_call", "mcp_call"])}),
    st.just({"content": "neither type nor role"}),
    st.fixed_dictionaries(
        {"role": st.just("assistant"), "content": content},
        optional={
            "tool_calls": st.lists(st.fixed_dictionaries({"function": call}, optional={"id": text}), max_size=2),
            "function_call": call,
            "reasoning_content": st.one_of(st.none(), text),
            "reasoning": text,
            "refusal": st.one_of(st.none(), text),
        },
    ),
    st.fixed_dictionaries({"role": st.just("tool"), "content": content}, optional={"tool_call_id": text, "name": text}),
)
params = st.fixed_dictionaries(
    {"input": st.one_of(text, st.lists(item, max_size=3))}, optional={"instructions": st.one_of(st.none(), text)}
)
row = st.fixed_dictionaries(
    {
        "responses_create_params": params,
        "response": st.fixed_dictionaries({"output": st.lists(item, max_size=6)}),
        "reward": st.one_of(st.none(), st.booleans(), st.floats(-2, 2), text),
    },
    optional={"agent_ref": st.fixed_dictionaries({"name": text}), "_ng_rollout_index": st.integers(0, 3)},
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(row)
def test_any_row(made: dict[str, Any]) -> None:
    agree(json.dumps(made).encode())


LONG = b'{"responses_create_params": {"input": "q"}, "response": {"output": []}, "reward": %s, "rollforge": %s}'
BROKEN = {
    b"": "blank line",
    b"{": "not JSON",
    b"[1]": "the line is list, not an object",
    b"{}": "no responses_create_params",
    b'{"responses_create_params": 7}': "responses_create_params is not an object",
    b'{"responses_create_params": {"input": null}}': "responses_create_params.input is missing",
    b'{"responses_create_params": {"input": "q"}, "response": {"output": []}}': "no reward",
    b'{"responses_create_params": {"input": "q"}, "response": {"output": []}, "reward": "1"}': "reward is '1', not a number",
    LONG % (b"1" * 400, b"{}"): "reward is a whole number of more digits than any float holds",
    LONG % (b"1e400", b"{}"): "number is infinity",
    LONG % (b"1", b'{"attempt": %s}' % (b"1" * 400)): "rollforge.attempt is a whole number",
    LONG % (b"1", b'{"seconds": {"total": -%s}}' % (b"1" * 400)): "rollforge.seconds.total is a whole number",
    b'{"responses_create_params": {"input": "q"}, "reward": 1}': "no response.output and no output",
    b'{"responses_create_params": {"input": "q"}, "response": {"usage": 1}, "reward": 1}': "usage is int, not an object",
    b"\x1f\x8b\x08\x00binary": "not JSON",
    b'{"responses_create_params": {"input": "\xff"}, "response": {"output": []}, "reward": 1}': "",
}


@pytest.mark.parametrize("line", BROKEN)
def test_what_is_wrong_with_a_row(line: bytes, tmp_path: Path) -> None:
    found = read(line)
    if isinstance(found, Record):  # a part that nobody asked for yet
        with pytest.raises((UserError, ValueError)):
            found.prompt_messages()
        return
    assert isinstance(found, Unusable)
    assert BROKEN[line] in found.reason
    file = tmp_path / "rows.jsonl"
    file.write_bytes(line + b"\n")
    assert [type(one) for one in read_rollouts(file)] == [BadLine]


@pytest.mark.parametrize("number", ["1e400", "1" * 400, "-" + "1" * 5000])
def test_a_number_that_no_float_holds_is_named_when_it_is_asked_for(number: str) -> None:
    shown = (
        '{"responses_create_params": {"input": "q"}, "response": {"output": []}, "reward": 1, "_ng_task_index": 0, "x": %s}'
    )
    record = Record((shown % number).encode())
    for ask in (lambda: record.field("x"), record.fields):
        with pytest.raises(UserError, match="number is infinity"):
            ask()


def test_a_prompt_is_the_same_however_it_is_written() -> None:
    def prompt(params: dict[str, Any]) -> bytes:
        row = {"responses_create_params": params, "response": {"output": []}, "reward": 1}
        return Record(json.dumps(row).encode()).prompt

    asked = prompt({"input": "Which?"})
    assert asked == prompt({"input": [{"role": "user", "content": "Which?"}], "temperature": 1})
    assert asked == prompt(
        {"input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Which?"}]}]}
    )
    assert asked != prompt({"input": "Which? "})
    assert asked != prompt({"input": "Which?", "instructions": "Be brief."})
    system = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Which?"}]
    assert prompt({"input": system}) == prompt({"input": "Which?", "instructions": "Be brief."})


def test_prompts_that_called_tools_differently_are_others_of_one_question() -> None:
    def record(date: int, call_id: str = "c", *, chat: bool = False) -> Record:
        arguments = json.dumps({"to": 1, "date": date})
        call = {"type": "function_call", "name": "book", "arguments": arguments, "call_id": call_id}
        history = [call, {"type": "function_call_output", "call_id": call_id, "output": "ok"}]
        if chat:
            written = f'{{"date":{date},"to":1}}'
            calls = [{"id": call_id, "type": "function", "function": {"name": "book", "arguments": written}}]
            answer = {"role": "tool", "tool_call_id": call_id, "content": "ok"}
            history = [{"role": "assistant", "content": None, "tool_calls": calls}, answer]
        asked = [{"role": "user", "content": "Book it."}, *history, {"role": "user", "content": "For when?"}]
        row = {"responses_create_params": {"input": asked}, "response": {"output": []}, "reward": 1}
        return Record(json.dumps(row).encode())

    assert record(1).prompt == record(1, "d").prompt == record(1, chat=True).prompt
    assert record(1).prompt != record(2).prompt
    assert record(1).group != record(2).group
    assert asked_of(record(1)) == asked_of(record(2))  # on one side of a split


def test_history_in_the_form_of_chat_messages_keeps_its_calls() -> None:
    calls = [{"id": "h1", "type": "function", "function": {"name": "add", "arguments": '{"x": 1}'}}]
    history = [
        {"role": "user", "content": "1 + 2?"},
        {"role": "assistant", "content": None, "reasoning_content": "Add.", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "h1", "content": "3", "name": "add"},
        {"role": "assistant", "content": "3"},
        {"role": "user", "content": "Sure?"},
    ]
    row = {"responses_create_params": {"input": history}, "response": {"output": []}, "reward": 1}
    found = Record(json.dumps(row).encode()).prompt_messages(DIALECTS[1])
    assert found == [history[0], {**history[1], "content": ""}, *history[2:]]


@pytest.mark.parametrize("more", [{"reasoning_content": ""}, {"reasoning": ""}, {"refusal": ""}, {"tool_calls": []}])
def test_what_is_empty_is_there_as_well(more: dict[str, Any]) -> None:
    output = [{"role": "assistant", "content": "4", **more}]
    agree(json.dumps({"responses_create_params": {"input": "q"}, "response": {"output": output}, "reward": 1}).encode())


def test_calls_beside_an_empty_list_of_them_stay() -> None:
    call = {"type": "function_call", "call_id": 7, "name": "add", "arguments": "{}"}
    result = {"type": "function_call_output", "call_id": 7, "output": "4"}
    output = [{"role": "assistant", "content": "So:", "tool_calls": []}, call, result]
    line = json.dumps({"responses_create_params": {"input": "q"}, "response": {"output": output}, "reward": 1}).encode()
    agree(line)
    asked, answered = Record(line).response_messages()
    assert [(one["id"], one["function"]["name"]) for one in asked["tool_calls"]] == [("7", "add")]
    assert answered["tool_call_id"] == "7"


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": "q", "tool_calls": True},
        {"role": "user", "content": "q", "tool_calls": [{"type": []}], "reasoning_content": 5},
        {"role": "assistant", "content": "a", "tool_calls": False},
        {"role": "user", "content": [{"type": [], "text": "q"}]},
        {"type": "function_call_output", "call_id": ["c"], "output": "4"},
    ],
)
def test_what_stands_where_nobody_puts_it(message: dict[str, Any]) -> None:
    for where in ("input", "output"):
        items = {"input": [{"role": "user", "content": "q"}], "output": []}
        items[where] = [*items[where], message]
        row = {"responses_create_params": {"input": items["input"]}, "response": {"output": items["output"]}, "reward": 1}
        agree(json.dumps(row).encode())


def test_groups_of_two_collections_do_not_mix() -> None:
    def group(question: str, index: int | None, agent: str = "a", **block: Any) -> bytes:
        row = {"responses_create_params": {"input": question}, "response": {"output": []}, "reward": 1}
        row |= {"agent_ref": {"name": agent}, "rollforge": block} | ({} if index is None else {"_ng_task_index": index})
        return Record(json.dumps(row).encode()).group

    assert group("q", 0) == group("q", 0)
    assert group("q", 0) != group("other", 0)  # indices begin anew in each collection
    assert group("q", 0) != group("q", 1)  # the same words, another task
    assert group("q", 0) != group("q", 0, agent="b")
    assert group("q", None) == group("q", None)
    assert group("q", 3, task="t") == group("q", 9, task="t")


def test_tools_and_expected_answers_tell_tasks_apart() -> None:
    def group(params: dict[str, Any] | None = None, **fields: Any) -> bytes:
        row = {"responses_create_params": {"input": "q", **(params or {})}, "response": {"output": []}, "reward": 1}
        return Record(json.dumps(row | fields).encode()).group

    flat = {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}}
    nested = {"type": "function", "function": {"parameters": {"properties": {}, "type": "object"}, "name": "f"}}
    assert group({"tools": [flat]}) == group({"tools": [nested], "temperature": 1})
    assert group({"tools": [flat]}) != group({"tools": [{**flat, "name": "g"}]})
    assert group({"tools": []}) == group({"tools": None}) == group()
    for place in (
        {"expected_answer": 4},
        {"verifier_metadata": {"ground_truth": "4"}},
        {"reward_model": {"ground_truth": 4}},
        {"expected_answers": [4]},
        {"sample": {"correct_answer": "4"}},
    ):
        [(name, value)] = place.items()
        other = {name: dict.fromkeys(value, "5")} if isinstance(value, dict) else {name: 5}
        assert group(**place) == group(**place, extracted_answer="4")
        assert len({group(**place), group(**other), group()}) == 3
    asked = [group({"metadata": {"expected_answer": "4"}}), group({"metadata": {"expected_answer": "5"}}), group()]
    assert len({*asked, group({"ground_truth": "4"}), group({"ground_truth": "5"})}) == 3
    assert group({"ground_truth": None, "metadata": None}) == group()
    # What a run named is its task, whatever else the row says.
    assert group(expected_answer=4, rollforge={"task": "t"}) == group(expected_answer=5, rollforge={"task": "t"})


def test_the_expected_answer_is_looked_for_by_the_surest_name() -> None:
    params = {"input": "q", "metadata": {"expected_answer": "in the request"}, "ground_truth": "7"}
    row: dict[str, Any] = {"responses_create_params": params, "response": {"output": []}, "reward": 1}
    row |= {"answer": "a long way to 4", "verifier_metadata": {"expected_answer": "4"}, "ground_truth": "", "label": None}
    assert list(Record(json.dumps(row).encode()).expected()) == [
        ("verifier_metadata.expected_answer", "4"),
        ("answer", "a long way to 4"),
        ("responses_create_params.metadata.expected_answer", "in the request"),
        ("responses_create_params.ground_truth", "7"),
    ]


def test_fields_are_found_where_they_are() -> None:
    row = {
        "responses_create_params": {
            "input": "q",
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
        },
        "response": {
            "output": [],
            "usage": {"output_tokens": 7},
            "incomplete_details": {"reason": "max_turns"},
            "model": "m",
        },
        "reward": 0.5,
        "expected_answer": 123456789012345678901234567890,
        "accuracy": True,
        "name": "n",
        "rollforge": {"outcome": "scored", "shadowed": {"reward": 9}},
    }
    record = Record(json.dumps(row).encode())
    assert record.field("expected_answer") == 123456789012345678901234567890
    assert record.usage == {"output_tokens": 7}
    assert (record.incomplete, record.model) == ("max_turns", "m")
    assert record.tools == [{"type": "function", "name": "f", "parameters": {}}]
    assert dict(record.numbers())["accuracy"] is True
    assert "accuracy" in record
    assert "nothing" not in record
    assert record.fields(but=["name"]).keys() == {"expected_answer", "accuracy"}
    assert text_of(record.question) == "q"


@pytest.mark.parametrize("key", ['say "hi"', "C:\\tmp", "a\tb", "", "\x7f", "über"])
def test_a_key_of_any_characters(stored: bytes, key: str) -> None:
    row = json.loads(stored)
    for eager in (False, True):
        record = Record(json.dumps({**row, key: 7, "plain": 8}).encode(), eager=eager)
        assert (record.field(key), record.fields()[key], dict(record.numbers())[key]) == (7, 7, 7)
        assert [item.kind for item in record.items()] == [item_type(item) for item in row["response"]["output"]]
        # Nor does it stand in the way of the rows after it.
        later = Record(json.dumps({**row, f"after {key.encode().hex()} {eager}": 9}).encode(), eager=eager)
        assert dict(later.numbers())[f"after {key.encode().hex()} {eager}"] == 9


def test_rows_with_ever_other_keys(stored: bytes) -> None:
    """More keys than a struct has room for, and each of them is there."""
    row = json.loads(stored)
    for number in range(300):
        record = Record(
            json.dumps({**row, f"metric {number}": number, f"_own_{number}": number}).encode(), eager=number % 2 == 0
        )
        assert (f"metric {number}", number) in list(record.numbers())
        assert f"_own_{number}" not in dict(record.numbers())
        assert (record.field(f"_own_{number}"), f"metric {number - 1}" in record) == (number, False)
        assert record.fields()[f"metric {number}"] == number
        assert record.reward == row["reward"]
        assert [item.kind for item in record.items()] == [item_type(item) for item in row["response"]["output"]]


def test_the_last_of_a_key_that_stands_twice_counts(stored: bytes) -> None:
    line = stored.rstrip()[:-1] + b',"reward":0.25,"response":null,"output":[]}'
    for eager in (False, True):
        record = Record(line, eager=eager)
        assert (record.reward, record.items()) == (0.25, [])


@pytest.fixture
def stored() -> bytes:
    return ROWS.read_bytes().splitlines()[0]
