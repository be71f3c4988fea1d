"""The tool loop: what it answers the model, when it ends, and what it hands on."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

import pytest

from rollforge.agents.tool_loop import ToolLoop
from rollforge.envs.base import Tool, ToolCall, ToolOutput, Verdict
from rollforge.errors import DeadlineExceeded, InfraFault, PolicyFault, RolloutError
from rollforge.models.base import Request
from rollforge.records.items import assistant, function_call, function_call_output, token_drift, user
from rollforge.records.task import Task

ADD = Tool("add", "Add.", {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}})
THINKING = {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "Hm."}]}
DONE = assistant("done")


def call(arguments: Any = '{"a": 1, "b": 2}', name: str = "add", call_id: str = "c1") -> Any:
    return {**function_call(name, "", call_id), "arguments": arguments}


def response(*output: Any, **more: Any) -> Any:
    return {"id": "resp", "object": "response", "model": "m", "output": list(output), "usage": None, **more}


class Model:
    """Answers in order, over and over the last; notes what it was asked."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.requests: list[Request] = []

    async def __call__(self, request: Request, /) -> Any:
        self.requests.append(deepcopy(request))
        answer = self.answers[min(len(self.requests), len(self.answers)) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer


class Session:
    """Adds; notes what was called."""

    tools = (ADD,)
    observation = None

    def __init__(self, output: Any = None) -> None:
        self.calls: list[ToolCall] = []
        self.output = output

    async def call(self, call: ToolCall, /) -> ToolOutput:
        self.calls.append(call)
        if isinstance(self.output, Exception):
            raise self.output
        return ToolOutput(self.output or str(call.arguments.get("a", 0) + call.arguments.get("b", 0)))

    async def verify(self, response: Any, /) -> Verdict:
        raise NotImplementedError


def task(**params: Any) -> Task:
    return Task({"input": "Add.", "tools": [ADD.row()], **params})


async def loop(
    *answers: Any, session: Session | None = None, asked: Task | None = None, **limits: Any
) -> tuple[Any, Model, Session]:
    model, session = Model(*answers), session or Session()
    return await ToolLoop(**limits)(asked or task(), model, session), model, session


def outputs(episode: Any) -> list[Any]:
    """What the tools answered: text, or the error."""
    texts = [item["output"] for item in episode["output"] if item["type"] == "function_call_output"]
    return [json.loads(text)["error"] if text.startswith('{"error"') else text for text in texts]


async def test_a_reply_ends_it() -> None:
    episode, model, session = await loop(response(THINKING, DONE, status="completed"))
    assert episode == response(THINKING, DONE, status="completed")
    assert (len(model.requests), session.calls) == (1, [])
    assert model.requests[0].params == {"input": [user("Add.")], "tools": [ADD.row()]}


async def test_calls_are_run_and_their_outputs_shown_to_the_model() -> None:
    first, last = response(THINKING, call()), response(DONE)
    episode, model, session = await loop(first, last)
    assert episode["output"] == [THINKING, call(), function_call_output("c1", "3"), DONE]
    assert [request.params["input"] for request in model.requests] == [
        [user("Add.")],
        [user("Add."), *episode["output"][:3]],
    ]
    assert session.calls == [ToolCall("add", {"a": 1, "b": 2}, "c1")]


async def test_what_is_asked_beside_the_input_is_asked_every_time() -> None:
    asked = task(temperature=0.5, instructions="Be brief.", metadata={"x": "y"})
    _, model, _ = await loop(response(call()), response(DONE), asked=asked)
    assert [{**request.params, "input": ""} for request in model.requests] == [{**asked.params, "input": ""}] * 2


async def test_parallel_calls_are_all_run_in_the_order_written() -> None:
    calls = [call(f'{{"a": {n}, "b": 0}}', call_id=f"c{n}") for n in range(4)]
    episode, _, session = await loop(response(assistant("I will add."), *calls), response(DONE))
    assert [made.call_id for made in session.calls] == ["c0", "c1", "c2", "c3"]
    assert episode["output"][5:] == [*(function_call_output(f"c{n}", str(n)) for n in range(4)), DONE]


ARGUMENTS = [
    # as the model wrote them -> what the tool saw, or what the model is told
    ('{"a": 1, "b": 2}', {"a": 1, "b": 2}),
    ("{}", {}),
    ("", {}),
    (None, {}),
    ({"a": 1}, {"a": 1}),
    ('{"a": 123456789012345678901234567890}', {"a": 123456789012345678901234567890}),
    ('{"a": 1', "the arguments of add are not JSON: "),
    ("a=1", "the arguments of add are not JSON: "),
    ("  ", "the arguments of add are not JSON: "),
    ('{"a": NaN}', "the arguments of add are not JSON: NaN is not JSON, column 7"),
    ('{"a": 1} {"b": 2}', "the arguments of add are not JSON: "),
    ('{"a": "\ud800"}', "the arguments of add are not JSON: "),
    ("[" * 5000, "the arguments of add are not JSON: "),
    ("[1, 2]", "the arguments of add are list, not an object"),
    ("null", "the arguments of add are NoneType, not an object"),
    ('"text"', "the arguments of add are str, not an object"),
    (7, "the arguments of add are int, not an object"),
]


@pytest.mark.parametrize(("arguments", "seen"), ARGUMENTS)
async def test_malformed_arguments_are_answered_to_the_model(arguments: Any, seen: Any) -> None:
    episode, model, session = await loop(response(call(arguments)), response(DONE))
    assert episode["output"][0]["arguments"] == arguments
    if isinstance(seen, dict):
        assert [made.arguments for made in session.calls] == [seen]
    else:
        assert session.calls == []
        assert outputs(episode)[0].startswith(seen)
    assert len(model.requests) == 2


@pytest.mark.parametrize(
    ("tools", "known"),
    [
        (None, "none"),
        ([], "none"),
        ([{"type": "web_search"}], "none"),
        ([ADD.row()], "add"),
        ([{**ADD.row(), "name": "sub"}, ADD.row()], "add, sub"),
    ],
)
async def test_only_declared_tools_are_called(tools: Any, known: str) -> None:
    calls = [call(name=name, call_id=name) for name in ("add", "reset", "verify", "")]
    episode, _, session = await loop(response(*calls), response(DONE), asked=task(tools=tools))
    refused = [f"unknown tool {name!r}; the tools are: {known}" for name in ("add", "reset", "verify", "")]
    assert outputs(episode) == (["3", *refused[1:]] if "add" in known else refused)
    assert [made.name for made in session.calls] == (["add"] if "add" in known else [])


async def test_tools_as_chat_completions_declares_them() -> None:
    _, _, session = await loop(
        response(call()), response(DONE), asked=task(tools=[{"type": "function", "function": ADD.row()}])
    )
    assert len(session.calls) == 1


async def test_calls_without_an_id_get_one_each_and_the_model_s_own_items_stay_as_they_were() -> None:
    bare = {"type": "function_call", "name": "add", "arguments": "{}"}
    first = response(deepcopy(bare), {**bare, "call_id": None}, {**bare, "id": "fc_7"})
    before = deepcopy(first)
    episode, _, session = await loop(first, response(deepcopy(bare)), response(DONE))
    ids = [made.call_id for made in session.calls]
    assert ids == ["call_0", "call_1", "fc_7", "call_6"]
    assert [item["call_id"] for item in episode["output"] if item["type"] == "function_call"] == ids
    assert [item["call_id"] for item in episode["output"] if item["type"] == "function_call_output"] == ids
    assert first == before


async def test_calls_of_one_answer_with_one_id_get_one_each() -> None:
    episode, _, session = await loop(response(call(), call(), call(call_id="c2")), response(call()), response(DONE))
    ids = [made.call_id for made in session.calls]
    assert ids == ["c1", "c1_1", "c2", "c1"]
    assert [item["call_id"] for item in episode["output"] if item["type"] == "function_call"] == ids


# Limits.


async def test_turns_are_limited() -> None:
    episode, model, session = await loop(response(call()), max_turns=3)
    assert (len(model.requests), len(session.calls)) == (3, 3)
    assert (episode["status"], episode["incomplete_details"]) == ("incomplete", {"reason": "max_turns"})
    assert len(episode["output"]) == 6


async def test_reasoning_only_replies_are_bounded_and_counted_in_a_row() -> None:
    episode, model, _ = await loop(response(THINKING), max_silent=3)
    assert (len(model.requests), episode["incomplete_details"]) == (3, {"reason": "no_reply"})
    assert episode["output"] == [THINKING] * 3
    episode, model, _ = await loop(
        *(response(THINKING), response(THINKING), response(call())) * 2, response(DONE), max_silent=3
    )
    assert (len(model.requests), episode.get("incomplete_details")) == (7, None)
    episode, model, _ = await loop(response(), max_silent=2)
    assert (len(model.requests), episode["output"]) == (2, [])


async def test_an_empty_message_is_a_reply() -> None:
    episode, model, _ = await loop(response(assistant("")))
    assert (len(model.requests), episode.get("incomplete_details")) == (1, None)


def tokens(count: int) -> Any:
    return {**call(), "prompt_token_ids": [1], "generation_token_ids": [2] * count, "generation_log_probs": [0.0] * count}


@pytest.mark.parametrize(
    ("answer", "turns"),
    [
        (response(call(), usage={"output_tokens": 40}), 3),
        (response(tokens(40)), 3),
        (response(tokens(40), usage={"output_tokens": 60}), 2),
        (response(tokens(40), usage={"output_tokens": None}), 3),
        (response(assistant("x" * 400), call()), 1),
        (response({**THINKING, "content": [{"text": "x" * 220}]}, call()), 2),
        (response(call(), usage=[]), 16),
    ],
    ids=["usage", "ids", "usage before ids", "null usage", "text", "reasoning", "nothing to count"],
)
async def test_tokens_are_limited_whatever_is_known_of_them(answer: Any, turns: int) -> None:
    episode, model, _ = await loop(answer, max_total_tokens=100)
    assert len(model.requests) == turns
    assert episode["incomplete_details"] == {"reason": "max_total_tokens" if turns < 16 else "max_turns"}


@pytest.mark.parametrize(
    "cut",
    [
        {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}},
        {"status": "incomplete", "incomplete_details": None},
        {"incomplete_details": {"reason": "content_filter"}},
    ],
)
async def test_an_answer_that_was_cut_ends_it_and_its_calls_are_not_run(cut: Any) -> None:
    episode, model, session = await loop(response(call()), response(call('{"a": 5'), **cut))
    assert (len(model.requests), len(session.calls)) == (2, 1)
    assert {key: episode[key] for key in cut} == cut
    assert len(episode["output"]) == 3


async def test_a_long_tool_output_is_cut_and_says_so() -> None:
    episode, _, _ = await loop(response(call()), response(DONE), session=Session("x" * 1_000_000), max_tool_chars=10)
    assert outputs(episode) == ["xxxxxxxxxx\n[cut: 1000000 characters, 10 shown]"]
    episode, _, _ = await loop(response(call()), response(DONE), session=Session("x" * 10), max_tool_chars=10)
    assert outputs(episode) == ["x" * 10]


# What is handed on.


async def test_usage_is_summed_with_its_details() -> None:
    usage = {
        "input_tokens": 10,
        "output_tokens": 2,
        "input_tokens_details": {"cached_tokens": 4},
        "output_tokens_details": None,
    }
    first, second = response(call(), usage=usage), response(call(), usage=None)
    third = response(DONE, usage={**usage, "output_tokens_details": {"reasoning_tokens": 1}})
    before = deepcopy([first, third])
    episode, _, _ = await loop(first, second, third)
    assert episode["usage"] == {
        "input_tokens": 20,
        "output_tokens": 4,
        "input_tokens_details": {"cached_tokens": 8},
        "output_tokens_details": {"reasoning_tokens": 1},
    }
    assert [first, third] == before
    assert (await loop(response(DONE)))[0]["usage"] is None


async def test_token_fields_stay_on_their_items() -> None:
    first = {**call(), "prompt_token_ids": [1, 2], "generation_token_ids": [3], "generation_log_probs": [-0.5]}
    second = {**DONE, "prompt_token_ids": [1, 2, 3, 4], "generation_token_ids": [5], "generation_log_probs": [-0.1]}
    episode, model, _ = await loop(response(first), response(second))
    assert episode["output"] == [first, function_call_output("c1", "3"), second]
    assert model.requests[1].params["input"][1] == first
    assert token_drift(episode["output"]) is None


async def test_the_last_answer_s_fields_and_status_are_the_episode_s() -> None:
    episode, _, _ = await loop(
        response(call(), id="one", status="completed"), response(DONE, id="two", status="completed", tier="x")
    )
    assert (episode["id"], episode["status"], episode["tier"]) == ("two", "completed", "x")


# Faults.


@pytest.mark.parametrize("fault", [InfraFault("502"), DeadlineExceeded("too slow"), PolicyFault("worthless")])
async def test_a_fault_has_the_conversation_so_far(fault: RolloutError) -> None:
    first = response(call(), usage={"output_tokens": 2})
    for answers, session, length in (((first, fault), None, 2), ((first,), Session(fault), 1)):
        with pytest.raises(type(fault)) as error:
            await loop(*answers, session=session)
        assert error.value is fault
        assert len(fault.partial["output"]) == length
        assert fault.partial["usage"] == {"output_tokens": 2}
        assert fault.partial["incomplete_details"] == {"reason": "fault"}


async def test_a_fault_before_the_first_answer_has_nothing_to_hand_on() -> None:
    fault = InfraFault("502")
    with pytest.raises(InfraFault):
        await loop(fault)
    assert fault.partial is None


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (None, "the model returned NoneType, not a response"),
        ("text", "the model returned str, not a response"),
        (response("text"), "the model's answer cannot be used: output[0] is str, not an item"),
        ({"output": "text"}, "the model's answer cannot be used: output is str, not a list of items"),
        (
            response({"type": "function_call"}),
            "the model's answer cannot be used: output[0] is a function_call without a name",
        ),
        (response(status="failed", error={"code": "x"}), "the model's answer has the status failed: {'code': 'x'}"),
        (response(DONE, status="cancelled"), "the model's answer has the status cancelled: no reason given"),
    ],
)
async def test_an_answer_that_is_none_is_the_infrastructure_s_fault(answer: Any, message: str) -> None:
    with pytest.raises(InfraFault) as error:
        await loop(response(call()), answer)
    assert str(error.value) == message
    assert len(error.value.partial["output"]) == 2
