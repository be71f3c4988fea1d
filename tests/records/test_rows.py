"""Rows in every shape: what can be read is read whole and written whole; what cannot is named, and ends nothing."""

import contextlib
import json
import math
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rollforge.errors import UserError
from rollforge.records.items import final_text, tool_calls
from rollforge.records.rollout import Failure, Outcome, Rollout
from rollforge.records.rows import BadLine, dump, read_rollouts, read_tasks, rollout_from_row, row_of
from rollforge.records.task import task_from_row, task_id

ROWS = Path(__file__).parent / "rows"
PARAMS = {"input": "Which?"}
SAID = {"output": [{"role": "assistant", "content": "This."}]}


def row(**fields):
    return {"responses_create_params": PARAMS, "response": SAID, "reward": 1.0, **fields}


def lines_of(tmp_path, text: bytes, read=read_rollouts):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(text)
    return list(read(path))


# The shapes of the shipped files.

SHAPES = [
    # final text, tool calls, reward, outcome, group, env
    ("Which city are you in?", 0, 1.0, "scored", None, None),
    ("Oslo 2, Rome 20.", 2, 2.0, "scored", "weather_simple_agent:1", "weather_simple_agent"),
    ("The answer is 1,081", 1, 1.0, "scored", None, None),
    ("7", 0, -1.5, "scored", "3", None),
    ("", 0, 0, "scored", "gym:4", "gym"),
    ("", 0, 0.0, "scored", None, None),
    ("Yes.", 0, None, "judge_fault", "6", None),
]


def test_each_shape_is_read() -> None:
    rollouts = list(read_rollouts(ROWS / "rollouts.jsonl"))
    assert [type(rollout) for rollout in rollouts] == [Rollout] * len(SHAPES)
    for rollout, (text, calls, reward, outcome, group, env) in zip(rollouts, SHAPES, strict=True):
        assert final_text(rollout.response) == text
        assert len(tool_calls(rollout.response)) == calls
        assert (rollout.reward, str(rollout.outcome), rollout.env) == (reward, outcome, env)
        assert rollout.task == group if group else len(rollout.task) == 16


def test_what_is_read_and_written_again_loses_nothing() -> None:
    lines = (ROWS / "rollouts.jsonl").read_bytes().splitlines()
    for line, rollout in zip(lines, read_rollouts(ROWS / "rollouts.jsonl"), strict=True):
        before, after = json.loads(line), json.loads(dump(row_of(rollout)))
        assert_kept(before, after)
        assert rollout_from_row(after) == rollout


def assert_kept(before, after) -> None:
    """Every field is there, where it was or among those whose names the row itself needs."""
    kept = {**after, **after["rollforge"].get("shadowed", {})}
    for key, value in before.items():
        if key == "rollforge":
            assert [k for k, v in (value or {}).items() if v not in (None, after[key].get(k))] == []
        elif not (key == "response" and value is None):
            assert kept[key] == value, key


def test_a_failed_judgement_is_no_zero() -> None:
    *_, judged = read_rollouts(ROWS / "rollouts.jsonl")
    assert judged.failure == Failure("verify", "judge_failed", "429 from the judge", retryable=True)
    stored = row_of(judged)
    assert stored["reward"] is None
    assert stored["rollforge"]["shadowed"] == {"reward": 0.0}


def test_another_failure_class_is_the_infrastructure_s() -> None:
    rollout = rollout_from_row(row(reward=0.0, _ng_failure_class="agent_crashed"))
    assert (rollout.outcome, rollout.reward, rollout.failure.message) == (Outcome.INFRA_FAULT, None, "agent_crashed")


@pytest.mark.parametrize("reward", [0, 1, 1.0, -3.5, 1e9, True, False, 10**30])
def test_rewards_are_not_bounded_and_true_is_one(reward) -> None:
    found = rollout_from_row(row(reward=reward)).reward
    assert found == reward
    assert not isinstance(found, bool)


UNUSABLE = [
    ({}, "no responses_create_params"),
    ({"responses_create_params": []}, "responses_create_params is not an object"),
    ({"responses_create_params": {}}, "responses_create_params.input is missing"),
    ({"responses_create_params": {"input": None}}, "responses_create_params.input is missing"),
    ({"responses_create_params": {"input": 5}}, "responses_create_params.input is int, not a list of items"),
    ({"responses_create_params": {"input": ["x"]}}, "responses_create_params.input[0] is str, not an item"),
    ({"responses_create_params": {"input": [{}]}}, "responses_create_params.input[0] has neither type nor role"),
    ({"responses_create_params": {"input": "x", "tools": "calc"}}, "responses_create_params.tools is not a list of tools"),
    (row(reward=None), "no reward"),
    (row(reward="1.0"), "reward is '1.0', not a number"),
    (row(reward=[1.0]), "reward is [1.0], not a number"),
    (row(reward=math.nan), "reward is nan"),
    (row(reward=-math.inf), "reward is -inf"),
    (row(response=None), "no response.output and no output"),
    (row(response="text"), "response is str, not an object"),
    (row(response={}), "response has no output"),
    (row(response={"output": None}), "response has no output"),
    (row(response={"output": "text"}), "output is str, not a list of items"),
    (row(response={"output": [[{"role": "assistant", "content": "a"}]]}), "output[0] is list, not an item"),
    (row(response={"output": [{"type": "function_call"}]}), "output[0] is a function_call without a name"),
    (row(response={"output": [], "usage": 7}), "response.usage is int, not an object"),
    (row(response=None, output={}), "output is dict, not a list of items"),
    (row(rollforge="yes"), "rollforge is str, not an object"),
    (row(rollforge={"outcome": "won"}), "rollforge.outcome is 'won'; known: scored, policy_fault, infra_fault"),
    (row(rollforge={"outcome": ["scored"]}), "rollforge.outcome is ['scored']; known: scored"),
    (row(rollforge={"attempt": "1"}), "rollforge.attempt is str, not int"),
    (row(rollforge={"seconds": {"total": "1"}}), "rollforge.seconds.total is '1', not a number"),
    (row(rollforge={"shadowed": []}), "rollforge.shadowed is list, not dict"),
]


@pytest.mark.parametrize(("bad", "reason"), UNUSABLE)
def test_an_unusable_row_says_why(bad, reason) -> None:
    with pytest.raises(UserError) as error:
        rollout_from_row(bad)
    assert str(error.value).startswith(reason)


LINES = [
    (b"", "blank line"),
    (b"  \t ", "blank line"),
    (b'{"responses_create_params": ', "not JSON ("),
    (b"{'a': 1}", "not JSON ("),
    (b'{"reward": NaN}', "not JSON (NaN is not JSON, column 12)"),
    (b'{"reward": -Infinity}', "not JSON (Infinity is not JSON, column 13)"),
    (b'{"reward": 1e999}', "not JSON ("),
    (b'{"text": "\xff\xfe"}', "not JSON ("),
    (b'{"text": "\\ud800"}', "not JSON ("),
    (b'{"text": 1}{"text": 2}', "not JSON ("),
    (b"\x00\x00", "not JSON ("),
    (b"[1, 2]", "the line is list, not an object"),
    (b'"text"', "the line is str, not an object"),
    (b"null", "the line is NoneType, not an object"),
    (b"[" * 100_000, "not JSON ("),
    (b'{"reward": ' + b"9" * 5000 + b"}", "not JSON ("),
    (b'{"a": 1}', "no responses_create_params"),
]


def test_unusable_lines_are_counted_and_named_and_end_nothing(tmp_path) -> None:
    good = dump(row())
    text = b"".join(line + b"\n" + good for line, _ in LINES)
    found = lines_of(tmp_path, text)
    assert [type(line) for line in found] == [BadLine, Rollout] * len(LINES)
    for number, (line, (start, reason)) in enumerate(zip(found[::2], LINES, strict=True)):
        assert (line.file, line.line) == (str(tmp_path / "rows.jsonl"), 2 * number + 1)
        assert line.reason.startswith(reason)
        assert str(line).startswith(f"{line.file}:{line.line}: {line.reason}")
        assert len(line.text) <= 63, start


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbf" + dump(row()),
        b"\xef\xbb\xbf\n" + dump(row()),
        dump(row()).replace(b"\n", b"\r\n"),
        dump(row()).rstrip(),
        b"   " + dump(row()),
    ],
    ids=["byte order mark", "byte order mark alone", "CRLF", "no newline at the end", "indented"],
)
def test_how_lines_are_broken_does_not_matter(tmp_path, text) -> None:
    found = [line for line in lines_of(tmp_path, text) if isinstance(line, Rollout)]
    assert found == [rollout_from_row(row())]


def test_line_separators_inside_a_text_do_not_break_the_line(tmp_path) -> None:
    said = "a\u2028b\u0085c\x0bd\ne\rf"
    (found,) = lines_of(tmp_path, dump(row(note=said)))
    assert found.fields["note"] == said


@pytest.mark.parametrize("read", [read_rollouts, read_tasks])
@pytest.mark.parametrize(("name", "why"), [("nothing.jsonl", "No such file or directory"), (".", "it is a directory")])
def test_a_file_that_cannot_be_read_is_told_at_once(tmp_path, read, name, why) -> None:
    with pytest.raises(UserError, match=f"cannot read .*: {why}"):
        read(tmp_path / name)


def test_an_empty_file_has_no_rows(tmp_path) -> None:
    assert lines_of(tmp_path, b"") == []


# Writing.


def test_what_a_row_says_of_itself_stands_above_the_fields_of_a_task() -> None:
    """A task row may have a `reward`, a verdict a `response`: neither may replace the rollout's."""
    fields = {"reward": 0.5, "response": "mine", "responses_create_params": 1, "rollforge": "x", "answer": "4"}
    rollout = Rollout(PARAMS, SAID, 1.0, Outcome.SCORED, fields=fields, task="t", task_index=0, index=0)
    stored = json.loads(dump(row_of(rollout)))
    assert (stored["reward"], stored["response"], stored["answer"]) == (1.0, SAID, "4")
    assert rollout_from_row(stored) == rollout


def test_fields_of_a_later_version_survive() -> None:
    stored = row(rollforge={"outcome": "scored", "reviewed_by": "me", "attempt": 2}, new={"a": [1]})
    after = row_of(rollout_from_row(stored))
    assert after["rollforge"]["reviewed_by"] == "me"
    assert after["rollforge"]["attempt"] == 2
    assert after["new"] == {"a": [1]}


def test_a_failure_is_read_back_and_an_incomplete_one_is_kept() -> None:
    whole = {"stage": "model", "type": "InfraFault", "message": "502", "retryable": True}
    for failure in (whole, {"stage": "model", "note": "?"}):
        stored = row(reward=None, response=None, rollforge={"outcome": "infra_fault", "failure": failure})
        rollout = rollout_from_row(stored)
        assert rollout.failure.stage == "model"
        assert row_of(rollout)["rollforge"]["failure"] == failure


ODD_VALUES = [
    10**25,
    -(10**19),
    18446744073709551616,
    [1.5, 10**40],
    "\u2028 ☃ 💡 \x00",
    1e-300,
    [[[]]] * 3,
]


@pytest.mark.parametrize("value", ODD_VALUES)
def test_odd_values_are_exact_after_a_round_trip(tmp_path, value) -> None:
    (found,) = lines_of(tmp_path, dump(row(value=value)))
    assert found.fields["value"] == value
    assert isinstance(found.fields["value"], type(value))


def nested(depth):
    value = "leaf"
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("depth", [200, 300])
def test_a_deep_row_is_read_and_written(tmp_path, depth) -> None:
    (found,) = lines_of(tmp_path, json.dumps(row(value=nested(depth))).encode())
    assert found.fields["value"] == nested(depth)
    assert json.loads(dump(row_of(found)))["value"] == nested(depth)


def test_a_row_is_refused_or_can_be_written_again_however_deep_it_is(tmp_path) -> None:
    text = b'{"responses_create_params": {"input": "x"}, "response": {"output": []}, "reward": 1, "value": %s}'
    for depth in (400, 600, 900, 1010, 1500):
        (found,) = lines_of(tmp_path, text % (b"[" * depth + b"]" * depth))
        if isinstance(found, BadLine):
            assert found.reason.startswith("not JSON (")
        else:
            assert rollout_from_row(json.loads(dump(row_of(found)))) == found
    assert isinstance(found, BadLine)


def test_a_row_too_deep_to_be_read_again_is_not_written() -> None:
    deep: list = []
    deep.append(deep)
    with pytest.raises(UserError, match="nested too deeply"):
        dump(row(value=deep))


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({"a": [1, {2, 3}]}, "value.a[1] is set"),
        (object(), "value is object"),
        (b"x", "value is bytes"),
        (1j, "value is complex"),
    ],
)
def test_what_json_cannot_hold_is_named(value, place) -> None:
    with pytest.raises(
        UserError, match=rf"a row cannot be written as JSON: {place}".replace("[", r"\[").replace("]", r"\]")
    ):
        dump(row(value=value))


def test_what_is_not_finite_is_null_and_a_lone_surrogate_a_question_mark() -> None:
    stored = json.loads(dump(row(a=math.nan, b=[math.inf, 10**30], c="x\ud800")))
    assert (stored["a"], stored["b"], stored["c"]) == (None, [None, 10**30], "x?")


# Any row at all.

names = st.text(max_size=8) | st.sampled_from(
    [
        "reward",
        "response",
        "output",
        "usage",
        "agent_ref",
        "_ng_task_index",
        "_ng_rollout_index",
        "_ng_failure_class",
        "task",
    ]
)
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)
items = st.builds(
    lambda more, role: {**more, "role": role},
    st.dictionaries(names, values, max_size=3),
    st.sampled_from(["user", "assistant"]),
)
blocks = st.fixed_dictionaries(
    {},
    optional={
        "task": st.text(min_size=1, max_size=5),
        "outcome": st.sampled_from([*map(str, Outcome)]),
        "attempt": st.integers(0, 9),
        "seconds": st.dictionaries(st.text(max_size=3), st.floats(0, 9), max_size=2),
        "failure": st.dictionaries(st.sampled_from(["stage", "type", "message", "retryable", "x"]), values),
        "token_drift": st.integers(0, 5),
        "later": values,
    },
)
plausible = st.fixed_dictionaries(
    {"responses_create_params": st.fixed_dictionaries({"input": st.text() | st.lists(items, max_size=2)})},
    optional={
        "reward": numbers | st.none() | st.booleans(),
        "response": st.none()
        | st.fixed_dictionaries({"output": st.lists(items, max_size=3)}, optional={"usage": st.none()}),
        "output": st.lists(items, max_size=2),
        "rollforge": blocks | st.none(),
        "_ng_failure_class": st.sampled_from(["judge_failed", "other", "", None]),
        "_ng_task_index": st.integers(0, 9) | st.text(max_size=2),
        "agent_ref": st.none() | st.dictionaries(st.just("name"), st.text(max_size=4)),
    },
)
rows = st.builds(lambda more, row: {**more, **row}, st.dictionaries(names, values, max_size=5), plausible)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rows)
def test_any_row_is_refused_with_a_reason_or_loses_nothing(row) -> None:
    try:
        rollout = rollout_from_row(row)
    except UserError:
        return
    stored = json.loads(dump(row_of(rollout)))
    assert_kept(json.loads(json.dumps(row)), stored)
    again = rollout_from_row(stored)
    assert row_of(again) == stored
    assert (again.reward is not None) == again.outcome.judged


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(names | st.sampled_from(["prompt", "responses_create_params", "rollforge"]), values, max_size=5))
def test_any_object_is_a_row_or_refused(row) -> None:
    for read in (rollout_from_row, task_from_row):
        with contextlib.suppress(UserError):
            assert read(row)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=60))
def test_any_bytes_are_one_line_each(tmp_path_factory, text) -> None:
    path = tmp_path_factory.mktemp("rows") / "any.jsonl"
    path.write_bytes(text)
    found = list(read_rollouts(path))
    assert [line.line for line in found if isinstance(line, BadLine)] == list(range(1, len(found) + 1))
    assert len(found) == text.count(b"\n") + (text[-1:] not in (b"", b"\n"))


# Tasks.


def test_tasks_are_read_long_and_short() -> None:
    sokoban, prime, sum_, greeting = read_tasks(ROWS / "tasks.jsonl")
    assert sokoban.params["reasoning"] == {"effort": "medium"}
    assert sokoban.fields["dim_room"] == [5, 5]
    assert (prime.index, prime.fields["id"], prime.params["temperature"]) == (12, 7, 0.5)
    assert (sum_.params, sum_.fields, sum_.index) == ({"input": "2+2=?"}, {"answer": "4"}, 2)
    assert (greeting.id, greeting.params["tools"][0]["name"], greeting.fields["expected"]) == (
        "greeting",
        "get_weather",
        None,
    )
    assert len({sokoban.id, prime.id, sum_.id}) == 3


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({}, "no input: a task row has responses_create_params.input, or one of prompt, messages, input"),
        ({"answer": "4"}, "no input"),
        ({"prompt": None}, "no input"),
        ({"prompt": ""}, "input is empty"),
        ({"prompt": " \n"}, "input is empty"),
        ({"prompt": []}, "input is empty"),
        ({"prompt": 5}, "input is int, not a list of items"),
        ({"prompt": [{"content": "x"}]}, "input[0] has neither type nor role"),
        ({"responses_create_params": "x"}, "responses_create_params is str, not an object"),
        ({"responses_create_params": {}}, "input is missing"),
        ({"responses_create_params": {"input": "x", "tools": [1]}}, "tools is not a list of tools"),
        ({"prompt": "x", "seen": {1, 2}}, "the row is not JSON: [1].seen is set"),
    ],
)
def test_a_task_without_usable_input_says_what_is_missing(row, reason) -> None:
    with pytest.raises(UserError) as error:
        task_from_row(row)
    assert str(error.value).startswith(reason)


def test_a_task_s_id_is_its_content_unless_the_row_names_one() -> None:
    one = task_from_row({"prompt": "x", "a": 1, "b": [2]})
    other_order = task_from_row({"b": [2], "a": 1, "prompt": "x"})
    assert one.id == other_order.id == task_id({"input": "x"}, {"b": [2], "a": 1})
    assert one.id != task_from_row({"prompt": "x", "a": 2, "b": [2]}).id
    assert [task_from_row({"prompt": "x", "task_id": name}).id for name in ("mine", 17)] == ["mine", "17"]
    assert all(len(task_from_row({"prompt": "x", "task_id": name}).id) == 16 for name in ("", None, True, [1]))


def test_the_null_prompt_of_a_row_leaves_the_other_forms() -> None:
    assert task_from_row({"prompt": None, "messages": "Hi"}).params == {"input": "Hi"}


def test_what_reads_a_row_may_refuse_it(tmp_path) -> None:
    def read(row, index):
        if "a" not in row:
            raise UserError("the row lacks a")
        return task_from_row({**row, "prompt": f"a is {row['a']}"}, index)

    good, bad = lines_of(tmp_path, b'{"a": 1}\n{"b": 1}\n', lambda path: read_tasks(path, read))
    assert good.params == {"input": "a is 1"}
    assert (bad.line, bad.reason) == (2, "the row lacks a")


def test_repeats_of_a_materialised_task_have_one_id() -> None:
    first, second = (task_from_row({"prompt": "2+2?", "_ng_task_index": 3, "_ng_rollout_index": n}) for n in (0, 1))
    assert first.id == second.id
    assert first.index == second.index == 3


def test_a_policy_may_fault_before_it_answered() -> None:
    failure = Failure("open", "PolicyFault", "it cheated")
    made = Rollout(params={"input": "?"}, response=None, reward=0.0, outcome=Outcome.POLICY_FAULT, task="t", failure=failure)
    assert rollout_from_row(row_of(made)) == made
