"""Responses <-> Chat Completions: what each side's words become, and that nothing is lost on the way there and back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollforge.errors import InfraFault, UserError
from rollforge.records.chat import (
    chat_completion,
    chat_request,
    params_from_chat,
    response_from_completion,
    responses_request,
)
from rollforge.records.items import (
    assistant,
    check_items,
    final_text,
    function_call,
    function_call_output,
    reasoning_text,
    system,
    tool_calls,
    user,
)
from rollforge.records.messages import TEMPLATE, WIRE, Dialect, as_items, items_from_messages, messages

FIELD = Dialect(reasoning="reasoning_content")


def reasoning(text: str) -> dict[str, Any]:
    return {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": text}]}


def call_of(name: str = "add", arguments: str = "{}", call_id: str = "c1", **more: Any) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}, **more}


def completed(finish: str = "stop", usage: Any = None, **message: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    return {"id": "chatcmpl-7", "object": "chat.completion", "created": 5, "model": "m", "choices": [choice], "usage": usage}


# Conversations: items -> messages

CONVERSATIONS: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]]]] = {
    "roles": (
        [system("s"), {"role": "developer", "content": "d"}, user("u"), assistant("a")],
        [
            {"role": "system", "content": "s"},
            {"role": "developer", "content": "d"},
            {"role": "user", "content": "u"},
            {"role": "assistant", "content": "a"},
        ],
    ),
    "one turn is one message": (
        [reasoning("why"), assistant("let me add"), function_call("add", '{"a": 1}', "c1"), function_call_output("c1", "3")],
        [
            {"role": "assistant", "content": "<think>why</think>let me add", "tool_calls": [call_of("add", '{"a": 1}')]},
            {"role": "tool", "tool_call_id": "c1", "content": "3"},
        ],
    ),
    "a turn that only calls": (
        [function_call("f", "{}", "c1")],
        [{"role": "assistant", "content": "", "tool_calls": [call_of("f")]}],
    ),
    "parallel calls": (
        [
            function_call("f", "{}", "c1"),
            function_call("g", "{}", "c2"),
            function_call_output("c2", "2"),
            function_call_output("c1", "1"),
        ],
        [
            {"role": "assistant", "content": "", "tool_calls": [call_of("f"), call_of("g", call_id="c2")]},
            {"role": "tool", "tool_call_id": "c2", "content": "2"},
            {"role": "tool", "tool_call_id": "c1", "content": "1"},
        ],
    ),
    "outputs follow the calls even if the model went on": (
        [function_call("f", "{}", "c1"), reasoning("r"), assistant("text"), function_call_output("c1", "1")],
        [
            {"role": "assistant", "content": "<think>r</think>text", "tool_calls": [call_of("f")]},
            {"role": "tool", "tool_call_id": "c1", "content": "1"},
        ],
    ),
    "two answers in a row stay two": (
        [assistant("a"), assistant("b")],
        [{"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}],
    ),
    "reasoning that was cut off": ([reasoning("hm")], [{"role": "assistant", "content": "<think>hm"}]),
    "reasoning without a text, as OpenAI encrypts it": (
        [{"type": "reasoning", "id": "rs", "summary": [], "encrypted_content": "gAAA"}, assistant("a")],
        [{"role": "assistant", "content": "a"}],
    ),
    "reasoning as content rather than summary": (
        [{"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "t"}]}, assistant("a")],
        [{"role": "assistant", "content": "<think>t</think>a"}],
    ),
    "refusal": (
        [{"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}],
        [{"role": "assistant", "content": "", "refusal": "no"}],
    ),
    "images, audio and files": (
        [
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "what?"},
                    {"type": "input_image", "image_url": "data:image/png;base64,AA", "detail": "low"},
                    {"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}},
                    {"type": "input_file", "file_data": "AA", "filename": "a.pdf"},
                ],
            }
        ],
        [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "what?"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA", "detail": "low"}},
                    {"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}},
                    {"type": "file", "file": {"file_data": "AA", "filename": "a.pdf"}},
                ],
            }
        ],
    ),
    "a tool that returned a picture": (
        [
            function_call("see", "{}", "c1"),
            {"type": "function_call_output", "call_id": "c1", "output": [{"type": "input_image", "image_url": "u"}]},
        ],
        [
            {"role": "assistant", "content": "", "tool_calls": [call_of("see")]},
            {"role": "tool", "tool_call_id": "c1", "content": [{"type": "image_url", "image_url": {"url": "u"}}]},
        ],
    ),
    "unknown keys": (
        [{"role": "user", "name": "ann", "content": "u"}, {**function_call("f", "{}", "c1"), "extra_content": {"sig": 1}}],
        [
            {"role": "user", "name": "ann", "content": "u"},
            {"role": "assistant", "content": "", "tool_calls": [call_of("f", extra_content={"sig": 1})]},
        ],
    ),
}


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_items_become_messages(name: str) -> None:
    items, expected = CONVERSATIONS[name]
    assert messages({"input": items}) == expected
    assert messages({"input": []}, items) == expected


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_messages_survive_the_way_through_items(name: str) -> None:
    chat = messages({"input": CONVERSATIONS[name][0]}, (), WIRE)
    assert messages({"input": items_from_messages(chat)}, (), WIRE) == chat


def test_instructions_lead_as_a_system_message() -> None:
    assert messages({"input": "hi", "instructions": "be brief"}) == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "hi"},
    ]


def test_a_call_with_token_ids_ends_its_message() -> None:
    tokens = {"prompt_token_ids": [1], "generation_token_ids": [2], "generation_log_probs": [-0.5]}
    items = [assistant("a") | tokens, function_call("f", "{}", "c1") | tokens]
    assert [m["content"] for m in messages({"input": items})] == ["a", ""]
    assert "prompt_token_ids" not in messages({"input": items})[0]
    assert messages({"input": items}, (), Dialect(tokens=True))[0] == {"role": "assistant", "content": "a", **tokens}


DIALECTS = [
    (Dialect(reasoning="reasoning_content"), {"role": "assistant", "content": "a", "reasoning_content": "r"}),
    (Dialect(reasoning="reasoning"), {"role": "assistant", "content": "a", "reasoning": "r"}),
    (Dialect(reasoning="none"), {"role": "assistant", "content": "a"}),
    (Dialect(reasoning="think"), {"role": "assistant", "content": "<think>r</think>a"}),
]


@pytest.mark.parametrize(("dialect", "expected"), DIALECTS)
def test_reasoning_travels_as_the_dialect_says(dialect: Dialect, expected: Any) -> None:
    assert messages({"input": [reasoning("r"), assistant("a")]}, (), dialect) == [expected]


def test_the_developer_role_can_be_mapped_to_system() -> None:
    assert (
        messages({"input": [{"role": "developer", "content": "d"}]}, (), Dialect(developer="system"))[0]["role"] == "system"
    )


def test_templates_get_text_as_strings_and_servers_as_it_was() -> None:
    parts = [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]
    given = {"input": [{"role": "user", "content": parts}]}
    assert messages(given, (), TEMPLATE) == [{"role": "user", "content": "ab"}]
    assert messages(given, (), WIRE)[0]["content"] == [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]


@pytest.mark.parametrize("kind", ["web_search_call", "computer_call", "mcp_call", "item_reference", "local_shell_call"])
def test_items_of_hosted_tools_are_refused_by_name(kind: str) -> None:
    with pytest.raises(UserError, match=f"{kind}.*openai:"):
        messages({"input": [user("u"), {"type": kind, "id": "x"}]})


def test_what_is_no_message_is_refused_by_place() -> None:
    with pytest.raises(UserError, match=r"messages\[1\]"):
        items_from_messages([{"role": "user", "content": "a"}, {"content": "b"}])


# Requests

REQUESTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "sampling": (
        {"temperature": 0.5, "top_p": 0.9, "max_output_tokens": 10, "seed": 7, "stop": ["\n"], "top_k": 5, "min_p": 0.1},
        {"temperature": 0.5, "top_p": 0.9, "max_tokens": 10, "seed": 7, "stop": ["\n"], "top_k": 5, "min_p": 0.1},
    ),
    "tools": (
        {
            "tools": [
                {"type": "function", "name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True}
            ],
            "tool_choice": {"type": "function", "name": "f"},
            "parallel_tool_calls": False,
        },
        {
            "tools": [
                {
                    "type": "function",
                    "function": {"name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True},
                }
            ],
            "tool_choice": {"type": "function", "function": {"name": "f"}},
            "parallel_tool_calls": False,
        },
    ),
    "allowed tools": (
        {
            "tools": [{"type": "function", "name": "f"}],
            "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]},
        },
        {
            "tools": [{"type": "function", "function": {"name": "f"}}],
            "tool_choice": {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "f"}}]},
            },
        },
    ),
    "schema": (
        {"text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}}},
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True},
            }
        },
    ),
    "json object, verbosity": (
        {"text": {"format": {"type": "json_object"}, "verbosity": "low"}},
        {"response_format": {"type": "json_object"}, "verbosity": "low"},
    ),
    "effort": ({"reasoning": {"effort": "high"}}, {"reasoning_effort": "high"}),
    "log probabilities": (
        {"include": ["message.output_text.logprobs"], "top_logprobs": 3},
        {"logprobs": True, "top_logprobs": 3},
    ),
    "names of its own": (
        {"model": "m", "user": "u", "service_tier": "flex"},
        {"model": "m", "user": "u", "service_tier": "flex"},
    ),
    "metadata": ({"metadata": {"run": "7"}, "store": True}, {"metadata": {"run": "7"}, "store": True}),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_requests_convert_both_ways(name: str) -> None:
    params, body = REQUESTS[name]
    items = [{"type": "message", "role": "user", "content": "u"}]
    assert chat_request({"input": items, **params}) == {"messages": [{"role": "user", "content": "u"}], **body}
    assert params_from_chat({"messages": [{"role": "user", "content": "u"}], **body}) == {"input": items, **params}


def test_nulls_and_choices_without_tools_are_left_out() -> None:
    params = {
        "input": "u",
        "tools": [],
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "temperature": None,
        "stream": None,
    }
    assert chat_request(params) == {"messages": [{"role": "user", "content": "u"}]}


def test_the_newer_name_of_the_token_limit() -> None:
    body = chat_request({"input": "u", "max_output_tokens": 5}, Dialect(max_tokens="max_completion_tokens"))
    assert body["max_completion_tokens"] == 5
    assert params_from_chat(body)["max_output_tokens"] == 5


def test_tools_may_already_have_the_chat_shape() -> None:
    tool = {"type": "function", "function": {"name": "f"}}
    assert chat_request({"input": "u", "tools": [tool]})["tools"] == [tool]


def test_nemo_gym_hides_extras_in_the_metadata() -> None:
    metadata = {"extra_body": '{"seed": 3, "top_k": 9}', "chat_template_kwargs": '{"enable_thinking": false}', "run": "7"}
    body = chat_request({"input": "u", "metadata": metadata})
    assert (body["seed"], body["top_k"]) == (3, 9)
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    assert body["metadata"] == {"run": "7"}


REFUSED = [
    ({"tools": [{"type": "web_search"}]}, "web_search"),
    ({"tool_choice": {"type": "file_search"}, "tools": [{"type": "function", "name": "f"}]}, "file_search"),
    ({"previous_response_id": "resp_1"}, "previous_response_id"),
    ({"conversation": "conv_1"}, "conversation"),
    ({"prompt": {"id": "p"}}, "prompt"),
    ({"background": True}, "background"),
    ({"text": "json"}, "text is str"),
    ({"metadata": {"extra_body": "{no"}}, "metadata.extra_body is not JSON"),
    ({"metadata": {"chat_template_kwargs": "[1]"}}, "metadata.chat_template_kwargs is list"),
]


@pytest.mark.parametrize(("params", "says"), REFUSED)
def test_what_chat_cannot_express_is_refused(params: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        chat_request({"input": "u", **params})


def test_a_chat_request_needs_messages() -> None:
    with pytest.raises(UserError, match="no messages"):
        params_from_chat({"model": "m"})


# Answers

THINKING = [
    ("<think>a</think>b", "a", "b"),
    ("<think>\na\n</think>\n\nb", "\na\n", "\n\nb"),
    ("  <think>a</think>b", "a", "b"),
    ("a</think>b", "a", "b"),
    ("<think>a", "a", ""),
    ("<think>a</think>", "a", ""),
    ("<think></think>b", "", "b"),
    ("no <think>tag</think> at the head", "", "no <think>tag</think> at the head"),
    ("plain", "", "plain"),
]


@pytest.mark.parametrize(("content", "thought", "text"), THINKING)
def test_think_tags_become_reasoning(content: str, thought: str, text: str) -> None:
    response = response_from_completion(completed(content=content))
    assert (reasoning_text(response), final_text(response)) == (thought, text)


def test_reasoning_that_never_closes_has_no_answer() -> None:
    response = response_from_completion(completed("length", content="<think>a"))
    assert [item["type"] for item in response["output"]] == ["reasoning"]
    assert response["status"] == "incomplete"


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning_in_a_field_leaves_the_content_alone(field: str) -> None:
    response = response_from_completion(completed(content="x </think> y", **{field: "r"}))
    assert (reasoning_text(response), final_text(response)) == ("r", "x </think> y")


def test_an_answer_has_what_an_output_item_needs() -> None:
    given = completed("tool_calls", content="t", reasoning_content="r", tool_calls=[call_of(), call_of(call_id="c2")])
    first, second = (response_from_completion(given)["output"] for _ in range(2))
    assert [item["type"] for item in first] == ["reasoning", "message", "function_call", "function_call"]
    assert [item.get("status") for item in first[1:]] == ["completed"] * 3
    assert [item["call_id"] for item in first[2:]] == ["c1", "c2"]
    ids = [item["id"] for item in first + second]
    assert len(set(ids)) == len(ids)
    assert check_items(first, "output") is None


FINISHES = [
    ("stop", "completed", None),
    ("tool_calls", "completed", None),
    (None, "completed", None),
    ("eos_token", "completed", None),
    ("STOP", "completed", None),
    ("end_turn", "completed", None),
    ("what no server has said yet", "completed", None),
    ("length", "incomplete", "max_output_tokens"),
    ("content_filter", "incomplete", "content_filter"),
    ("repetition", "incomplete", "repetition"),
]


@pytest.mark.parametrize(
    ("finish", "reason"),
    [("LENGTH", "max_output_tokens"), ("max_tokens", "max_output_tokens"), ("SAFETY", "content_filter")],
)
def test_other_words_for_a_cut(finish: str, reason: str) -> None:
    assert response_from_completion(completed(finish, content="a"))["incomplete_details"] == {"reason": reason}


@pytest.mark.parametrize(("finish", "status", "reason"), FINISHES)
def test_finish_reasons(finish: Any, status: str, reason: Any) -> None:
    response = response_from_completion(completed(finish, content="a"))
    assert response["status"] == status
    assert (response.get("incomplete_details") or {}).get("reason") == reason
    assert chat_completion(response)["choices"][0]["finish_reason"] == (finish if reason else "stop")


def test_usage_with_details_both_ways() -> None:
    usage = {
        "prompt_tokens": 10,
        "completion_tokens": 4,
        "total_tokens": 14,
        "prompt_tokens_details": {"cached_tokens": 8},
        "completion_tokens_details": {"reasoning_tokens": 3},
        "prompt_cache_hit_tokens": 8,
    }
    response = response_from_completion(completed(content="a", usage=usage))
    assert response["usage"] == {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 8},
        "output_tokens": 4,
        "output_tokens_details": {"reasoning_tokens": 3},
        "total_tokens": 14,
        "prompt_cache_hit_tokens": 8,
    }
    assert chat_completion(response)["usage"] == usage


@pytest.mark.parametrize(
    "usage", [{"prompt_tokens": 1, "completion_tokens": None, "prompt_tokens_details": None}, {}, "?", None]
)
def test_usage_may_be_broken_or_absent(usage: Any) -> None:
    counted = response_from_completion(completed(content="a", usage=usage))["usage"]
    if not isinstance(usage, dict):
        assert counted is None
    else:
        assert counted is not None
        assert counted["total_tokens"] == counted["input_tokens"] + counted["output_tokens"]


@pytest.mark.parametrize("ten", [10, "10", 10.0])
def test_usage_may_be_text_or_a_float(ten: Any) -> None:
    usage = response_from_completion(completed(content="a", usage={"prompt_tokens": ten, "completion_tokens": ten}))["usage"]
    assert usage is not None
    assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == (10, 10, 20)


def test_a_refusal_is_a_part_of_its_own() -> None:
    response = response_from_completion(completed(content=None, refusal="I will not"))
    assert response["output"][0]["content"] == [{"type": "refusal", "refusal": "I will not"}]
    assert final_text(response) == ""


def test_odd_calls_are_made_usable() -> None:
    calls = [call_of(call_id=""), call_of(call_id="same"), call_of(call_id="same"), call_of(arguments={"a": 1})]  # type: ignore[arg-type]
    made = tool_calls(response_from_completion(completed(content="", tool_calls=calls)))
    assert len({call["call_id"] for call in made}) == 4
    assert json.loads(made[3]["arguments"]) == {"a": 1}


def test_an_answer_that_says_nothing_is_an_empty_message() -> None:
    output = response_from_completion(completed(content=None))["output"]
    assert [(item["type"], item["content"][0]["text"]) for item in output] == [("message", "")]


WRONG = [
    ([1], "is list"),
    (None, "is NoneType"),
    ({}, "no choices"),
    ({"choices": []}, "no choices"),
    ({"choices": None, "model": "m"}, "no choices"),
    ({"choices": [{"message": None}]}, "without a message"),
    ({"choices": ["x"]}, "without a message"),
    ({"choices": [{"message": {"content": 5}}]}, "content of type int"),
    ({"choices": [{"message": {"tool_calls": "x"}}]}, "tool_calls"),
    ({"choices": [{"message": {"tool_calls": [{"function": {"arguments": "{}"}}]}}]}, "tool_calls"),
    ({"error": {"message": "out of memory"}}, "out of memory"),
    ({"error": "boom"}, "boom"),
]


@pytest.mark.parametrize(("answer", "says"), WRONG)
def test_an_answer_of_another_shape_is_a_fault_that_says_so(answer: Any, says: str) -> None:
    with pytest.raises(InfraFault, match=says):
        response_from_completion(answer)


def test_token_fields_go_on_the_last_item_and_back_on_the_message() -> None:
    tokens = {"prompt_token_ids": [1, 2], "generation_token_ids": [3], "generation_log_probs": [-0.25]}
    given = completed("tool_calls", content="t", tool_calls=[call_of()], **tokens)
    response = response_from_completion(given)
    assert "generation_token_ids" not in response["output"][0]
    assert {key: response["output"][1][key] for key in tokens} == tokens
    assert chat_completion(response) == given | {"usage": None}


def test_an_episode_is_no_completion() -> None:
    with pytest.raises(UserError, match="function_call_output"):
        chat_completion({"output": [function_call("f", "{}", "c1"), function_call_output("c1", "1")]})


# There and back, over what hypothesis thinks of

words = st.text(max_size=12)
names = st.from_regex(r"[a-z_]{1,8}", fullmatch=True)
values = st.dictionaries(names, st.integers() | words | st.booleans(), max_size=2)
images = st.builds(
    lambda url, detail: {"type": "image_url", "image_url": {"url": url, **detail}},
    words,
    st.sampled_from([{}, {"detail": "low"}]),
)
parts = st.lists(st.builds(lambda t: {"type": "text", "text": t}, words) | images, min_size=1, max_size=3)
others = st.builds(
    lambda role, content, extra: {"role": role, "content": content, **extra},
    st.sampled_from(["user", "system", "developer"]),
    words | parts,
    st.sampled_from([{}, {"name": "ann"}]),
)


@st.composite
def turns(draw: st.DrawFn) -> list[dict[str, Any]]:
    """An assistant message with what may be in it, and the outputs of its calls."""
    count = draw(st.integers(0, 3))
    prefix = draw(st.uuids()).hex[:8]
    calls = [call_of(draw(names), json.dumps(draw(values)), f"{prefix}{n}") for n in range(count)]
    message: dict[str, Any] = {"role": "assistant", "content": draw(words)}
    if draw(st.booleans()):
        message["reasoning_content"] = draw(words.filter(bool))
    if draw(st.booleans()):
        message["refusal"] = draw(words.filter(bool))
    if calls:
        message["tool_calls"] = calls
    order = draw(st.permutations(calls))
    outputs = [{"role": "tool", "tool_call_id": call["id"], "content": draw(words | parts)} for call in order]
    return [message, *outputs]


conversations = st.lists(st.builds(lambda first, turn: [first, *turn], others, turns()), max_size=4).map(
    lambda rounds: [message for one in rounds for message in one]
)
schemas = st.fixed_dictionaries({"name": names, "schema": values}, optional={"strict": st.booleans(), "description": words})
bodies = st.fixed_dictionaries(
    {"messages": conversations},
    optional={
        "tools": st.lists(
            st.fixed_dictionaries(
                {"name": names, "parameters": values}, optional={"strict": st.booleans(), "description": words}
            ).map(lambda function: {"type": "function", "function": function}),
            min_size=1,
            max_size=2,
        ),
        "temperature": st.floats(0, 2),
        "max_tokens": st.integers(1, 99),
        "seed": st.integers(),
        "stop": st.lists(words),
        "response_format": schemas.map(lambda schema: {"type": "json_schema", "json_schema": schema})
        | st.just({"type": "json_object"}),
        "reasoning_effort": st.sampled_from(["low", "high"]),
    },
)


@given(conversations)
@settings(deadline=None)
def test_any_conversation_survives_the_way_through_items(chat: list[dict[str, Any]]) -> None:
    assert messages({"input": items_from_messages(chat)}, (), Dialect(reasoning="reasoning_content")) == chat


@given(bodies)
@settings(deadline=None)
def test_any_request_survives_the_way_through_params(body: dict[str, Any]) -> None:
    assert chat_request(params_from_chat(body), FIELD) == body


@given(turns(), st.sampled_from(["stop", "length", "content_filter"]), st.integers(0, 99), st.integers(0, 99))
@settings(deadline=None)
def test_any_answer_survives_the_way_through_a_response(turn: Any, finish: str, read: int, written: int) -> None:
    usage = {
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": read + written,
        "prompt_tokens_details": {"cached_tokens": 1},
        "completion_tokens_details": {"reasoning_tokens": 2},
    }
    finish = "tool_calls" if turn[0].get("tool_calls") and finish == "stop" else finish
    given = completed(finish, usage=usage, **turn[0])
    assert chat_completion(response_from_completion(given), FIELD) == given


@given(st.text(alphabet="ab<>/think\n ", max_size=40))
@settings(deadline=None)
def test_think_tags_survive_to_the_character(content: str) -> None:
    assert messages({"input": items_from_messages([{"role": "assistant", "content": content}])}) == [
        {"role": "assistant", "content": content}
    ]


@st.composite
def said(draw: st.DrawFn) -> list[dict[str, Any]]:
    """The output items of one model call."""
    items: list[dict[str, Any]] = []
    if draw(st.booleans()):
        items.append(reasoning(draw(words)))
    if draw(st.booleans()):
        items.append(assistant(draw(words.filter(lambda text: "<think>" not in text).filter(bool))))
    prefix = draw(st.uuids()).hex[:8]
    items += [function_call(draw(names), json.dumps(draw(values)), f"{prefix}{n}") for n in range(draw(st.integers(0, 2)))]
    return items or [assistant("x")]


def essence(items: list[dict[str, Any]]) -> list[Any]:
    """Without what chat messages have no place for: ids, status, the form of a text."""
    kept = []
    for item in items:
        match item.get("type", "message"):
            case "message":
                kept.append((item["role"], final_text({"output": [item | {"role": "assistant"}]})))
            case "reasoning":
                kept.append(("reasoning", item["summary"][0]["text"]))
            case "function_call":
                kept.append((item["call_id"], item["name"], item["arguments"]))
            case "function_call_output":
                kept.append((item["call_id"], item["output"]))
    return kept


@given(st.lists(said(), max_size=4), st.sampled_from(["think", "reasoning_content", "reasoning"]), st.data())
@settings(deadline=None)
def test_any_items_survive_the_way_through_messages(calls: Any, how: Any, data: st.DataObject) -> None:
    items: list[dict[str, Any]] = []
    for output in calls:
        items.append(user(data.draw(words)))
        if how != "think":
            # A field cannot say that there is reasoning of no words.
            output = [item for item in output if item["type"] != "reasoning" or item["summary"][0]["text"]] or [
                assistant("x")
            ]
        items += output
        items += [function_call_output(item["call_id"], data.draw(words)) for item in tool_calls({"output": output})]
    chat = messages({"input": items}, (), Dialect(reasoning=how))
    assert essence(items_from_messages(chat)) == essence(items)


@given(said())
@settings(deadline=None)
def test_any_response_survives_the_way_through_a_completion(output: list[dict[str, Any]]) -> None:
    response: Any = {"id": "r", "object": "response", "created_at": 1, "model": "m", "status": "completed", "output": output}
    back = response_from_completion(chat_completion(response))
    assert essence(back["output"]) == essence(output)
    assert {key: back[key] for key in ("id", "created_at", "model", "status")} == {  # type: ignore[literal-required]
        key: response[key] for key in ("id", "created_at", "model", "status")
    }


# A task in the form of Chat Completions, asked of an API that has items

TOOL = {"name": "add", "description": "Add.", "parameters": {"type": "object", "properties": {}}}
AS_CHAT = {
    "input": [
        {"role": "system", "content": "s"},
        {"role": "user", "content": [{"type": "text", "text": "u"}, {"type": "image_url", "image_url": {"url": "x"}}]},
        {"role": "assistant", "content": None, "tool_calls": [call_of("add", '{"a": 1}')]},
        {"role": "tool", "tool_call_id": "c1", "content": "3"},
        {"role": "assistant", "content": [{"type": "text", "text": "three"}]},
    ],
    "tools": [{"type": "function", "function": TOOL}],
    "tool_choice": {"type": "function", "function": {"name": "add"}},
    "temperature": None,
}
AS_ITEMS = {
    "input": [
        {"role": "system", "content": "s"},
        {"role": "user", "content": [{"type": "input_text", "text": "u"}, {"type": "input_image", "image_url": "x"}]},
        {"type": "function_call", "call_id": "c1", "name": "add", "arguments": '{"a": 1}'},
        {"type": "function_call_output", "call_id": "c1", "output": "3"},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "three"}]},
    ],
    "tools": [{"type": "function", **TOOL}],
    "tool_choice": {"type": "function", "name": "add"},
}


def test_a_task_in_chat_form_is_asked_in_items() -> None:
    assert responses_request(AS_CHAT) == AS_ITEMS


def test_what_is_in_items_already_stays_the_same_object() -> None:
    items = AS_ITEMS["input"]
    body = responses_request(AS_ITEMS)
    assert body == AS_ITEMS
    assert as_items(items) is items  # type: ignore[arg-type]
    assert body["tools"][0] is AS_ITEMS["tools"][0]  # type: ignore[index]


def test_chat_servers_are_asked_the_same_by_both_forms() -> None:
    assert chat_request(AS_CHAT) == chat_request(AS_ITEMS)
