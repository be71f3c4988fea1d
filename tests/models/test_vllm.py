"""`vllm:MODEL`: token ids in every way servers report them, replicas with affinity."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import pytest

from rollforge.errors import InfraFault, SetupError
from rollforge.models import vllm
from rollforge.models.base import ModelOptions, Request
from rollforge.records.items import TOKEN_FIELDS, function_call_output, token_drift, user
from tests.models.server import Reply, Server, closing, completion, serve

PROMPT, IDS, LOG_PROBS = [1, 2, 3], [7, 8], [-0.5, -0.25]
ENTRIES = [
    {"token": f"token_id:{i}", "logprob": p, "bytes": None, "top_logprobs": []} for i, p in zip(IDS, LOG_PROBS, strict=True)
]
PLAIN = [{"token": "x", "logprob": p} for p in LOG_PROBS]
ASK = Request({"input": [user("hi")]}, rollout="r")


def report(choice: Any = (), message: Any = (), top: Any = (), **kwargs: Any) -> dict[str, Any]:
    """A completion with token ids where they are told to be."""
    answer = completion(**kwargs)
    answer["choices"][0] |= dict(choice)
    answer["choices"][0]["message"] |= dict(message)
    return answer | dict(top)


def load(server: Server, **extra_body: Any) -> Any:
    return closing(vllm.load("m", ModelOptions(base_urls=(server.url,), extra_body=extra_body)))


def fields(item: Any) -> Any:
    return [item.get(field) for field in TOKEN_FIELDS]


WAYS = {
    "vLLM": report({"token_ids": IDS, "logprobs": {"content": ENTRIES}}, top={"prompt_token_ids": PROMPT}),
    "SGLang": report({"token_ids": IDS, "prompt_token_ids": PROMPT, "logprobs": {"content": PLAIN}}),
    "SGLang, older": report(
        {"meta_info": {"output_token_logprobs": [[p, i, "x"] for i, p in zip(IDS, LOG_PROBS, strict=True)]}},
        top={"prompt_token_ids": PROMPT},
    ),
    "NeMo Gym": report(
        message={"prompt_token_ids": PROMPT, "generation_token_ids": IDS, "generation_log_probs": LOG_PROBS},
    ),
}


@pytest.mark.parametrize("way", WAYS)
async def test_token_ids_as_servers_report_them(way: str) -> None:
    async with serve(WAYS[way]) as server, load(server) as model:
        response = await model(ASK)
    assert fields(response["output"][-1]) == [PROMPT, IDS, LOG_PROBS]
    assert "logprobs" not in response["output"][0]["content"][0]
    body = server.seen[0].body
    assert (body["logprobs"], body["return_tokens_as_token_ids"], body["return_token_ids"]) == (True, True, True)


async def test_an_older_vllm_is_asked_to_tokenize_the_prompt() -> None:
    answers = report({"logprobs": {"content": ENTRIES}}), {"count": 3, "tokens": PROMPT}
    request = Request({"input": [user("hi")], "tools": [{"type": "function", "name": "f"}], "temperature": 1.0}, rollout="r")
    async with serve(*answers) as server, load(server) as model:
        response = await model(request)
    assert fields(response["output"][-1]) == [PROMPT, IDS, LOG_PROBS]
    assert server.seen[1].path == "/tokenize"
    assert server.seen[1].body == {key: server.seen[0].body[key] for key in ("messages", "tools", "model")}


async def test_the_fields_stand_on_the_last_item_of_the_call() -> None:
    answer = report(
        {"token_ids": IDS, "logprobs": {"content": ENTRIES}, "routed_experts": "AA"},
        top={"prompt_token_ids": PROMPT},
        text="<think>hm</think>so",
        calls=[("f", "{}"), ("g", "{}")],
    )
    async with serve(answer) as server, load(server) as model:
        output = (await model(ASK))["output"]
    assert [bool(item.get("generation_token_ids")) for item in output] == [False, False, False, True]
    assert output[-1]["routed_experts"] == "AA"


@pytest.mark.parametrize("send", [False, True])
async def test_later_turns_keep_the_fields_and_send_them_if_wanted(send: bool) -> None:
    first = report(
        {"token_ids": IDS, "logprobs": {"content": ENTRIES}}, top={"prompt_token_ids": PROMPT}, calls=[("f", "{}")]
    )
    second = report({"token_ids": IDS, "logprobs": {"content": ENTRIES}}, top={"prompt_token_ids": [*PROMPT, *IDS, 4]})
    async with serve(first, second) as server, load(server, send_token_ids=send) as model:
        output = (await model(ASK))["output"]
        output.append(function_call_output("call_0", "ok"))
        output += (await model(Request({"input": [user("hi"), *output]}, rollout="r")))["output"]
    assert token_drift(output) is None
    sent = server.seen[1].body["messages"][1]
    assert [sent.get(field) for field in TOKEN_FIELDS] == ([PROMPT, IDS, LOG_PROBS] if send else [None] * 3)
    assert "send_token_ids" not in server.seen[1].body


async def test_without_ids_the_run_stops_and_says_so() -> None:
    async with serve(report({"logprobs": {"content": PLAIN}})) as server, load(server) as model:
        with pytest.raises(SetupError, match=r"no token ids.*chat:m, or return_token_ids: false"):
            await model(ASK)


async def test_a_server_that_refuses_the_question_stops_the_run() -> None:
    refusal = Reply({"error": "Unexpected fields in the request: {'return_token_ids'}"}, 422)
    async with serve(refusal) as server, load(server) as model:
        with pytest.raises(SetupError, match=r"knows no token ids.*chat:m"):
            await model(ASK)


async def test_without_log_probabilities_the_run_stops_and_says_so() -> None:
    async with serve(report({"token_ids": IDS, "logprobs": None})) as server, load(server) as model:
        with pytest.raises(SetupError, match="no log probabilities"):
            await model(ASK)


async def test_without_prompt_ids_and_tokenize_the_run_stops_and_says_so() -> None:
    answers = report({"logprobs": {"content": ENTRIES}}), Reply({"detail": "Not Found"}, 404)
    async with serve(*answers) as server, load(server, return_token_ids=True) as model:
        with pytest.raises(SetupError, match=r"no token ids of the prompt.*/tokenize.*404"):
            await model(ASK)


LIES = [
    ({"token_ids": [1, 2, 3], "logprobs": {"content": ENTRIES}}, "3 token ids and 2 log probabilities"),
    ({"logprobs": {"content": [{"logprob": -1.0}]}}, "cannot be read"),
    ({"logprobs": {"content": [{"token": "token_id:x", "logprob": -1.0}]}}, "cannot be read"),
    ({"token_ids": IDS, "logprobs": {"content": [None, None]}}, "cannot be read"),
]


@pytest.mark.parametrize(("choice", "says"), LIES)
async def test_a_report_that_contradicts_itself_is_a_fault(choice: Any, says: str) -> None:
    async with serve(report(choice, top={"prompt_token_ids": PROMPT})) as server, load(server) as model:
        with pytest.raises(InfraFault, match=says):
            await model(ASK)


async def test_ids_can_be_turned_off() -> None:
    async with serve(completion()) as server, load(server, return_token_ids=False) as model:
        response = await model(ASK)
    assert fields(response["output"][-1]) == [None] * 3
    assert "logprobs" not in server.seen[0].body


async def test_a_rollout_stays_with_its_replica_and_rollouts_spread() -> None:
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(serve(WAYS["vLLM"])) for _ in range(3)]
        urls = tuple(server.url for server in servers)
        model = await stack.enter_async_context(closing(vllm.load("m", ModelOptions(base_urls=urls))))
        for turn in range(2):
            for rollout in range(30):
                await model(Request({"input": [user(f"{rollout}")]}, rollout=f"task-{rollout}"))
            assert sum(len(server.seen) for server in servers) == 30 * (turn + 1)
    asked = [[seen.body["messages"][0]["content"] for seen in server.seen] for server in servers]
    assert all(asked)
    assert all(sorted(names) == sorted(2 * list(set(names))) for names in asked)


async def test_calls_without_a_rollout_are_dealt_out() -> None:
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(serve(WAYS["vLLM"])) for _ in range(2)]
        urls = tuple(server.url for server in servers)
        model = await stack.enter_async_context(closing(vllm.load("m", ModelOptions(base_urls=urls))))
        for _ in range(4):
            await model(Request({"input": [user("hi")]}))
    assert [len(server.seen) for server in servers] == [2, 2]
