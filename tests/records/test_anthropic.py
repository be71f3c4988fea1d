"""Responses <-> Anthropic Messages."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rollforge.errors import InfraFault, UserError
from rollforge.records.anthropic import (
    MAX_TOKENS,
    message_from,
    messages_request,
    params_from_messages,
    response_from_message,
)
from rollforge.records.items import assistant, final_text, function_call, function_call_output, system, tool_calls, user

IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
PDF = {"type": "document", "title": "a.pdf", "source": {"type": "base64", "media_type": "application/pdf", "data": "BB"}}
CONVERSATION: list[Any] = [
    {"role": "user", "content": [{"type": "text", "text": "What is it?"}, IMAGE, PDF]},
    {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "a cat?", "signature": "sealed"},
            {"type": "redacted_thinking", "data": "secret"},
            {"type": "text", "text": "Let me look."},
            {"type": "tool_use", "id": "t1", "name": "look", "input": {"at": "é"}},
            {"type": "tool_use", "id": "t2", "name": "look", "input": {}},
        ],
    },
    {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": "t1", "content": "a cat"},
            {"type": "tool_result", "tool_use_id": "t2", "content": "broken", "is_error": True},
            {"type": "text", "text": "So?"},
        ],
    },
]
TOOL = {"name": "look", "description": "Look.", "input_schema": {"type": "object", "properties": {"at": {"type": "string"}}}}


def test_a_conversation_there_and_back_is_the_same() -> None:
    assert messages_request(params_from_messages({"messages": CONVERSATION}))["messages"] == CONVERSATION


def test_a_conversation_as_items() -> None:
    items = params_from_messages({"messages": CONVERSATION})["input"]
    assert [item["type"] for item in items] == [
        *("message", "reasoning", "reasoning", "message", "function_call", "function_call"),
        *("function_call_output", "function_call_output", "message"),
    ]
    assert items[0]["content"][1:] == [
        {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "auto"},
        {"type": "input_file", "file_data": "data:application/pdf;base64,BB", "filename": "a.pdf"},
    ]
    assert items[4] == {"type": "function_call", "call_id": "t1", "name": "look", "arguments": '{"at":"é"}'}
    assert items[6] == {"type": "function_call_output", "call_id": "t1", "output": "a cat"}


REQUEST = {
    "model": "m",
    "max_tokens": 100,
    "system": [{"type": "text", "text": "Be brief."}, {"type": "text", "text": "Be kind.", "cache_control": {}}],
    "messages": [{"role": "user", "content": "hi"}],
    "tools": [TOOL],
    "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
    "stop_sequences": ["END"],
    "temperature": 0.5,
    "top_k": 3,
    "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": {"type": "object"}}},
    "stream": True,
    "service_tier": "auto",
}


def test_parameters_of_a_request() -> None:
    params = params_from_messages(REQUEST)
    function = {"type": "function", "name": "look", "description": "Look.", "parameters": TOOL["input_schema"]}
    form = {"type": "json_schema", "name": "answer", "schema": {"type": "object"}, "strict": True}
    assert params == {
        "model": "m",
        "max_output_tokens": 100,
        "instructions": "Be brief.\n\nBe kind.",
        "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}],
        "tools": [function],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "stop": ["END"],
        "temperature": 0.5,
        "top_k": 3,
        "reasoning": {"effort": "low"},
        "text": {"format": form},
    }
    back = messages_request(params)
    assert back == {
        **{key: REQUEST[key] for key in ("model", "max_tokens", "tools", "tool_choice", "stop_sequences", "temperature")},
        **{key: REQUEST[key] for key in ("top_k", "output_config")},
        "system": "Be brief.\n\nBe kind.",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
        "thinking": {"type": "adaptive"},
    }


@pytest.mark.parametrize(
    ("thinking", "reasoning"),
    [
        ({"type": "enabled", "budget_tokens": 2000}, {"effort": "low", "budget_tokens": 2000}),
        ({"type": "enabled", "budget_tokens": 50000}, {"effort": "high", "budget_tokens": 50000}),
        ({"type": "disabled"}, None),
        ({"type": "adaptive"}, None),
    ],
)
def test_thinking_is_effort_and_keeps_its_budget(thinking: Any, reasoning: Any) -> None:
    params = params_from_messages({"messages": [], "thinking": thinking})
    assert params.get("reasoning") == reasoning
    if reasoning:
        assert messages_request(params)["thinking"] == thinking


def test_a_request_of_items() -> None:
    items = [system("Be brief."), user("2+2?"), {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}]
    items += [function_call("add", "{}", "c"), assistant("one moment"), user("well?"), function_call_output("c", "4")]
    body = messages_request({"instructions": "Be kind.", "input": items, "seed": 3, "tool_choice": "auto"})
    assert body == {
        "system": "Be kind.\n\nBe brief.",
        "max_tokens": MAX_TOKENS,
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "2+2?"}]},
            # The reasoning has no signature of Anthropic's, which refuses it.
            {
                "role": "assistant",
                "content": [
                    {"type": "tool_use", "id": "c", "name": "add", "input": {}},
                    {"type": "text", "text": "one moment"},
                ],
            },
            # Results come first, whatever was said before them.
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "c", "content": "4"},
                    {"type": "text", "text": "well?"},
                ],
            },
        ],
    }


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "no messages"),
        ({"messages": [{"role": "tool"}]}, "messages\\[0\\] has the role 'tool'"),
        ({"messages": [{"role": "user", "content": 5}]}, "neither a text nor a list"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, r"messages\[0\]\.content\[0\] is no image block"),
        ({"messages": [{"role": "user", "content": [{"type": "tool_result"}]}]}, "no tool_result block"),
        ({"messages": [], "tool_choice": {"type": "some"}}, "known types: auto, any, none, tool"),
        ({"messages": [], "mcp_servers": [{"url": "x"}]}, "mcp_servers needs"),
    ],
)
def test_what_is_no_request_says_why(body: Any, says: str) -> None:
    with pytest.raises(UserError, match=says):
        params_from_messages(body)


def test_a_request_of_chat_messages() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "put", "arguments": '{"n": 2}'}}
    chat = [
        {"role": "user", "content": [{"type": "text", "text": "u"}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "3"},
    ]
    assert messages_request({"input": chat})["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "u"}]},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "c1", "name": "put", "input": {"n": 2}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "3"}]},
    ]


def test_what_messages_cannot_say_is_refused() -> None:
    with pytest.raises(UserError, match="web_search_call"):
        messages_request({"input": [{"type": "web_search_call", "id": "x"}]})


# Answers

MESSAGE: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": CONVERSATION[1]["content"],
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "usage": {
        "input_tokens": 4,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 6,
        "output_tokens": 9,
    },
}


def test_an_answer_there_and_back_is_the_same() -> None:
    response = response_from_message(MESSAGE)
    assert message_from(response) == MESSAGE
    assert (final_text(response), len(tool_calls(response))) == ("Let me look.", 2)
    assert response["usage"] == {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 6},
        "output_tokens": 9,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 19,
    }


@pytest.mark.parametrize(
    ("stop", "reason"),
    [
        ("max_tokens", "max_output_tokens"),
        ("model_context_window_exceeded", "max_context"),
        ("refusal", "content_filter"),
        ("pause_turn", "pause_turn"),
    ],
)
def test_why_an_answer_is_incomplete(stop: str, reason: str) -> None:
    response = response_from_message({**MESSAGE, "content": [{"type": "text", "text": "a"}], "stop_reason": stop})
    assert (response["status"], response["incomplete_details"]) == ("incomplete", {"reason": reason})
    assert message_from(response)["stop_reason"] == stop


def test_a_stop_sequence_is_named() -> None:
    said = {**MESSAGE, "content": [{"type": "text", "text": "a"}], "stop_reason": "stop_sequence", "stop_sequence": "END"}
    response = response_from_message(said)
    assert response["status"] == "completed"
    assert message_from(response) == said


@pytest.mark.parametrize("arguments", ["not json", "[1]", '"a"', "{", '{"a": 1'])
def test_arguments_that_are_no_object_survive(arguments: str) -> None:
    """Messages has objects only: the model's own words stand under one key, and come back as they were."""
    response: Any = {"output": [function_call("f", arguments, "c")]}
    block = message_from(response)["content"][0]
    assert isinstance(block["input"], dict)
    back = params_from_messages({"messages": [{"role": "assistant", "content": [block]}]})["input"][0]
    assert back["arguments"] == arguments  # type: ignore[index]


def test_an_answer_without_content_is_an_empty_one() -> None:
    response = response_from_message({**MESSAGE, "content": []})
    assert final_text(response) == ""
    assert len(response["output"]) == 1


@pytest.mark.parametrize("answer", [None, [], {}, {"content": "x"}, {"content": [5]}, {"error": {"message": "it died"}}])
def test_what_is_no_answer_is_an_infra_fault(answer: Any) -> None:
    with pytest.raises(InfraFault, match="no message of the Messages API"):
        response_from_message(answer)


def test_an_episode_is_no_message() -> None:
    with pytest.raises(UserError, match="one model call"):
        message_from({"output": [function_call_output("c", "4")]})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "text", "id", "name"]), inner),
    max_leaves=6,
)
BLOCKS = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "image", "document", "tool_use", "tool_result", "thinking", "other"])},
    optional=dict.fromkeys(["text", "source", "id", "name", "input", "tool_use_id", "content", "thinking"], JSON),
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": JSON | st.lists(BLOCKS)})))
def test_whatever_comes_is_read_or_refused(messages: Any) -> None:
    try:
        params = params_from_messages({"messages": messages})
    except UserError:
        return
    assert isinstance(params["input"], list)
