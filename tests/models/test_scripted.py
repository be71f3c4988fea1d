"""The scripted models: what each policy answers, and that an answer depends on the request alone."""

import asyncio
import json
from dataclasses import replace
from random import Random

import pytest

from rollforge.errors import InfraFault, SetupError, UserError, VerifierFault
from rollforge.models.base import ModelOptions, Request
from rollforge.models.schema_values import random_value
from rollforge.models.scripted import ANSWER_FIELDS, INJECTIONS, POLICIES, load, perturbed
from rollforge.records.items import (
    assistant,
    final_text,
    function_call,
    function_call_output,
    input_items,
    token_drift,
    tool_calls,
    user,
)
from rollforge.records.task import task_from_row

ADD = {
    "type": "function",
    "name": "add",
    "parameters": {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}, "notes": {"type": "array"}},
        "required": ["a", "b"],
    },
}
TASK = task_from_row({"prompt": "1 + 2 + 3?", "tools": [ADD], "answer": 6, "task_id": "sum"}, index=0)


def solve(task):
    first = yield "add", {"a": 1, "b": 2}
    second = yield "add", {"a": int(first), "b": 3}
    return f"The sum is {second}."


def request(task=TASK, since=(), **more):
    return Request({**task.params, "input": [*input_items(task.params), *since]}, task=task, **more)


async def episode(model, task=TASK, tool=lambda arguments: str(arguments["a"] + arguments["b"]), calls=8, **more):
    """A conversation with a tool that adds, as an agent would lead it: the items after the prompt."""
    since = []
    for _ in range(calls):
        response = await model(request(task, since, **more))
        since += response["output"]
        called = tool_calls(response)
        if not called:
            break
        for call in called:
            try:
                output = tool(json.loads(call["arguments"]))
            except (ValueError, TypeError, KeyError) as error:
                output = f"error: {error!r}"
            since.append(function_call_output(call["call_id"], output))
    return since


def kinds(items):
    return [item["type"] for item in items]


async def test_perfect_takes_the_steps_of_the_reference_policy():
    items = await episode(load("perfect", ModelOptions(solve=solve)))
    assert [json.loads(item["arguments"]) for item in items[::2][:2]] == [{"a": 1, "b": 2}, {"a": 3, "b": 3}]
    assert final_text({"output": items}) == "The sum is 6."
    assert len({item["call_id"] for item in items if item["type"] == "function_call"}) == 2


async def test_perfect_is_the_default():
    assert (await load(None, ModelOptions(solve=solve))(request()))["output"][0]["name"] == "add"


async def test_perfect_ignores_tool_outputs_that_belong_to_the_prompt():
    earlier = [user("hi"), function_call("add", "{}", "old"), function_call_output("old", "99"), user("1 + 2 + 3?")]
    task = task_from_row({"prompt": earlier, "tools": [ADD]})
    items = await episode(load("perfect", ModelOptions(solve=solve)), task)
    assert final_text({"output": items}) == "The sum is 6."


@pytest.mark.parametrize(
    ("row", "reply"),
    [
        ({"answer": "Paris"}, "Paris"),
        ({"answer": 4}, "4"),
        ({"expected_answer": "B", "answer": "ignored"}, "B"),
        ({"answer": {"city": "Zürich"}}, '{"city": "Zürich"}'),
    ],
)
async def test_without_a_reference_policy_perfect_replies_with_the_answer_of_the_row(row, reply):
    task = task_from_row({"prompt": "?", **row})
    for options in (ModelOptions(), ModelOptions(solve=lambda task: None)):
        assert final_text(await load("perfect", options)(request(task))) == reply


async def test_a_task_that_cannot_be_solved_stops_the_run_and_says_what_is_missing():
    with pytest.raises(SetupError, match=rf"{ANSWER_FIELDS[0]}.*solve.*scripted:random"):
        await load("perfect", ModelOptions())(request(task_from_row({"prompt": "?"})))
    with pytest.raises(SetupError, match="knowing the task"):
        await load("perfect", ModelOptions())(Request({"input": [user("?")]}))


def crash(task):
    yield "add", {}
    raise KeyError("price")


def nonsense(task):
    yield 7


async def test_a_broken_reference_policy_is_the_environments_fault():
    for broken, since, message in [
        (crash, [function_call_output("c", "3")], "KeyError: 'price'"),
        (nonsense, [], r"solve yielded 7; it yields \(tool name, arguments\)"),
    ]:
        with pytest.raises(VerifierFault, match=message):
            await load("perfect", ModelOptions(solve=broken))(request(since=since))


async def test_wrong_calls_the_same_tools_and_replies_otherwise():
    right = await episode(load("perfect", ModelOptions(solve=solve)))
    wrong = await episode(load("wrong", ModelOptions(solve=solve)))
    assert wrong[:-1] == right[:-1]
    assert final_text({"output": wrong}) == "The sum is 9."


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        ("42", "45"),
        ("3.50 and 007", "6.53 and 000"),
        ("Answer: C", "Answer: D"),
        ("\\boxed{D}", "\\boxed{A}"),
        ("Yes, TRUE, no", "No, FALSE, yes"),
        ("the capital is Paris.", "the capital is arisP."),
        ("aa", "aao"),
        ("", "?"),
        ("...", "...?"),
        ('{"name": "Bob", "age": 5}', '{"name": "Bob", "age": 8}'),
    ],
)
def test_perturbed_keeps_the_form_and_changes_the_content(text, changed):
    assert perturbed(text) == changed


def test_perturbed_always_changes_something():
    rng = Random(0)
    texts = ["".join(rng.choices("ab AD019.-{}\n", k=rng.randint(0, 12))) for _ in range(2000)]
    assert [text for text in texts if perturbed(text) == text] == []


async def test_empty_and_echo():
    answer = await load("empty", ModelOptions())(request())
    assert kinds(answer["output"]) == ["message"]
    assert final_text(answer) == ""
    assert final_text(await load("echo", ModelOptions())(request())) == "1 + 2 + 3?"


async def test_malformed_call_goes_through_its_four_stages_and_ends():
    items = await episode(load("malformed-call", ModelOptions()), tool=lambda arguments: "3")
    calls = [item for item in items if item["type"] == "function_call"]
    with pytest.raises(json.JSONDecodeError):
        json.loads(calls[0]["arguments"])
    assert [call["name"] for call in calls] == ["add", "no_such_tool", "add"]
    assert json.loads(calls[2]["arguments"]) == {"a": [None], "b": [None], "notes": 7}
    assert items[-1]["type"] == "message"
    bare = await episode(load("malformed-call", ModelOptions()), task_from_row({"prompt": "?"}), tool=lambda arguments: "3")
    assert kinds(bare) == kinds(items)


async def test_random_calls_declared_tools_with_arguments_of_the_schema_and_ends():
    model = load("random", ModelOptions())
    episodes = [await episode(model, index=index) for index in range(60)]
    called = [item for items in episodes for item in items if item["type"] == "function_call"]
    assert {call["name"] for call in called} == {"add"}
    assert all(isinstance(json.loads(call["arguments"])["a"], int) for call in called)
    assert all(items[-1]["type"] == "message" for items in episodes)
    assert 1 < len({len(items) for items in episodes}) < 10
    assert all(
        len({c["call_id"] for c in items if c["type"] == "function_call"}) * 2 == len(items) - 1 for items in episodes
    )


async def test_tools_may_be_nested_as_chat_completions_has_them():
    nested = {"type": "function", "function": {"name": "put", "parameters": {"type": "object", "properties": {}}}}
    task = task_from_row({"prompt": "?", "tools": [nested]})
    assert (await load("malformed-call", ModelOptions())(request(task)))["output"][0]["name"] == "put"


async def test_random_without_tools_is_a_text():
    task = task_from_row({"prompt": "?"})
    texts = {final_text(await load("random", ModelOptions())(request(task, seed=seed))) for seed in range(20)}
    assert len(texts) > 10


@pytest.mark.parametrize(
    ("schema", "allowed"),
    [
        ({"type": "integer", "minimum": 3, "maximum": 4}, lambda v: v in (3, 4)),
        ({"type": "integer", "maximum": -200}, lambda v: v <= -200),
        ({"type": "number", "minimum": 0, "maximum": 1}, lambda v: 0 <= v <= 1),
        ({"enum": ["a", "b"]}, lambda v: v in ("a", "b")),
        ({"const": 5}, lambda v: v == 5),
        ({"type": ["string", "null"]}, lambda v: v is None or isinstance(v, str)),
        (
            {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 2},
            lambda v: [type(x) for x in v] == [bool] * 2,
        ),
        ({"anyOf": [{"type": "null"}, {"type": "integer"}]}, lambda v: v is None or isinstance(v, int)),
        ({"$ref": "#/$defs/C", "$defs": {"C": {"enum": ["x"]}}}, lambda v: v == "x"),
        ({"properties": {"a": {"type": "string"}}, "required": ["a"]}, lambda v: isinstance(v["a"], str)),
        ({}, lambda v: isinstance(v, str)),
    ],
)
def test_random_values_obey_their_schema(schema, allowed):
    values = [random_value(schema, Random(seed)) for seed in range(50)]
    assert [value for value in values if not allowed(value)] == []


def test_a_schema_that_contains_itself_ends():
    tree = {
        "$ref": "#/$defs/T",
        "$defs": {"T": {"type": "object", "properties": {"next": {"$ref": "#/$defs/T"}}, "required": ["next"]}},
    }
    assert "next" in random_value(tree, Random(0))


async def test_slow_is_perfect_after_a_while():
    model = load("slow:0.01", ModelOptions(solve=solve))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await model(request())
    assert (await model(request()))["output"][0]["name"] == "add"


async def test_flaky_fails_at_its_rate_and_another_attempt_draws_again():
    model = load("flaky:0.5", ModelOptions(solve=solve))

    async def fails(**more):
        try:
            await model(request(**more))
        except InfraFault:
            return True
        return False

    first = [await fails(seed=seed, rollout="a") for seed in range(200)]
    assert 60 < sum(first) < 140
    assert first == [await fails(seed=seed, rollout="a") for seed in range(200)]
    assert first != [await fails(seed=seed, rollout="b") for seed in range(200)]
    with pytest.raises(InfraFault, match="100%"):
        await load("flaky:1", ModelOptions(solve=solve))(request())


async def test_injector_shows_every_variant_over_the_repeats():
    model = load("injector", ModelOptions())
    assert {final_text(await model(request(index=index))) for index in range(len(INJECTIONS))} == set(INJECTIONS)


@pytest.mark.parametrize("name", [*sorted(set(POLICIES) - {"slow", "flaky"}), "slow:0", "flaky:0", "perfect+tokens"])
async def test_answers_depend_on_the_request_alone(name):
    requests = [request(index=index, seed=seed, rollout=f"r{index}") for index in range(4) for seed in range(4)]
    one, other = (load(name, ModelOptions(solve=solve)) for _ in range(2))
    straight = [await one(r) for r in requests]
    assert straight == list(reversed([await other(r) for r in reversed(requests)]))
    json.dumps(straight)


@pytest.mark.parametrize("name", [*sorted(set(POLICIES) - {"slow", "flaky"}), "slow:0", "flaky:0"])
async def test_usage_counts_what_was_read_and_written(name):
    response = await load(name, ModelOptions(solve=solve))(request())
    usage = response["usage"]
    assert usage["input_tokens"] > 0
    assert usage["output_tokens"] > 0
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    assert response["model"] == f"scripted:{name}"


async def test_token_ids_extend_each_other_and_with_drift_they_do_not():
    items = await episode(load("perfect+tokens", ModelOptions(solve=solve)))
    made = [item for item in items if "generation_token_ids" in item]
    assert len(made) == 3
    assert all(len(item["generation_token_ids"]) == len(item["generation_log_probs"]) for item in made)
    assert all(log_prob < 0 for item in made for log_prob in item["generation_log_probs"])
    assert token_drift(items) is None
    assert token_drift(await episode(load("perfect+drift", ModelOptions(solve=solve)))) == 1


async def test_usage_is_the_number_of_token_ids():
    response = await load("echo+tokens", ModelOptions())(request())
    assert response["usage"]["input_tokens"] == len(response["output"][-1]["prompt_token_ids"])
    assert response["usage"]["output_tokens"] == len(response["output"][-1]["generation_token_ids"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("perfct", "did you mean perfect"),
        ("nothing-like-it", r"known: .*perfect.*FILE\.jsonl"),
        ("perfect:3", "takes no argument"),
        ("perfect+tokns", "unknown scripted policy"),
        ("slow:soon", "number of seconds, for example scripted:slow:1.0; not 'soon'"),
        ("slow:nan", "number of seconds"),
        ("slow:-1", "number of seconds"),
        ("flaky:2", "probability from 0 to 1"),
        ("missing.jsonl", "cannot read the recorded answers missing.jsonl: No such file"),
    ],
)
def test_a_wrong_name_says_what_would_be_right(name, message):
    with pytest.raises(UserError, match=message):
        load(name, ModelOptions())


# Recorded files.


def record(tmp_path, *lines):
    path = tmp_path / "answers.jsonl"
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return load(str(path), ModelOptions())


async def test_recorded_lines_of_a_task_are_its_turns(tmp_path):
    call = {"name": "add", "arguments": {"a": 1, "b": 2}}
    model = record(
        tmp_path,
        {"task": "sum", "tool_calls": [call, {"name": "add", "arguments": "{broken"}]},
        {"task": "other", "text": "not me"},
        {"task": "sum", "text": "let me see", "tool_calls": [call]},
        {"task": "sum", "text": "6"},
    )
    items = await episode(model)
    assert kinds(items) == [
        *("function_call", "function_call", "function_call_output", "function_call_output"),
        *("message", "function_call", "function_call_output", "message"),
    ]
    assert items[1]["arguments"] == "{broken"
    assert len({item["call_id"] for item in items if item["type"] == "function_call"}) == 3
    assert final_text({"output": items}) == "6"


@pytest.mark.parametrize(
    "address",
    [{"task": "sum"}, {"task": 0}, {"prompt": "1 + 2 + 3?"}, {}],
)
async def test_recorded_answers_are_found_by_id_index_or_prompt_and_else_dealt(tmp_path, address):
    model = record(tmp_path, {"task": "else", "text": "no"}, {"prompt": "else", "text": "no"}, {**address, "text": "6"})
    assert final_text(await model(request(index=3))) == "6"


async def test_a_repeat_has_its_own_recorded_answer(tmp_path):
    model = record(tmp_path, {"task": 0, "text": "any"}, {"task": 0, "repeat": 1, "text": "second"})
    assert [final_text(await model(request(index=index))) for index in range(3)] == ["any", "second", "any"]


async def test_unaddressed_conversations_are_dealt_in_order(tmp_path):
    call = {"tool_calls": [{"name": "add", "arguments": {"a": 1, "b": 1}}]}
    model = record(tmp_path, {"text": "first"}, call, {"text": "second"}, {"text": "third"})
    replies = [final_text({"output": await episode(model, replace(TASK, index=index))}) for index in range(4)]
    assert replies == ["first", "second", "third", "first"]
    replies = [final_text({"output": await episode(model, index=index)}) for index in range(4)]
    assert replies == ["first", "second", "third", "first"]


async def test_recorded_items_pass_as_they_are(tmp_path):
    output = [{"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]}, assistant("6")]
    answer = await record(tmp_path, {"output": output})(request())
    assert answer["output"] == output


async def test_a_request_without_a_task_is_answered_by_its_prompt(tmp_path):
    model = record(tmp_path, {"prompt": "ping", "text": "pong"})
    assert final_text(await model(Request({"input": [user("ping")]}))) == "pong"
    with pytest.raises(SetupError, match="has 0 answers for this prompt"):
        await model(Request({"input": [user("else")]}))


async def test_a_conversation_longer_than_the_recorded_one_stops_the_run(tmp_path):
    model = record(tmp_path, {"task": "sum", "tool_calls": [{"name": "add"}]})
    with pytest.raises(
        SetupError, match=r"has 1 answer for task sum .*call 2 asks for more; add a line: \{\"task\": \"sum\""
    ):
        await episode(model)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "answers.jsonl:2: not JSON"),
        ("[]", "list, not an object"),
        ({"task": "x"}, "has text, tool_calls or output"),
        ({"txt": "x"}, "did you mean text"),
        ({"text": 4}, "text is int"),
        ({"tool_calls": {}}, "tool_calls is dict"),
        ({"tool_calls": [{"arguments": {}}]}, r"tool_calls\[0\] is no"),
        ({"output": [{}]}, r"output\[0\] has neither type nor role"),
        ({"output": [], "text": "x"}, "output stands alone"),
        ({"text": "x", "repeat": "1"}, "repeat is '1', not int"),
        ({"text": "x", "task": True}, "task is True, not str or int"),
    ],
)
def test_a_recorded_line_that_cannot_be_used_is_named(tmp_path, line, message):
    with pytest.raises(UserError, match=message):
        record(tmp_path, {"text": "fine"}, line)


def test_a_file_without_answers_is_refused(tmp_path):
    with pytest.raises(UserError, match="no recorded answers"):
        record(tmp_path, "", "  ")
