"""Chat Completions: answers as models, messages of a request as the dictionaries they are."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field
from typing_extensions import TypedDict

from ._items import Open, TokenIDLogProbMixin


class NeMoGymFunction(Open):
    arguments: str
    name: str


class NeMoGymChatCompletionMessageToolCall(Open):
    id: str
    function: NeMoGymFunction
    type: Literal["function"] = "function"


class NeMoGymChatCompletionMessage(Open):
    role: Literal["assistant"] = "assistant"
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[NeMoGymChatCompletionMessageToolCall] | None = None


class NeMoGymChatCompletionMessageForTraining(NeMoGymChatCompletionMessage, TokenIDLogProbMixin): ...


class NeMoGymChoice(Open):
    finish_reason: str
    index: int
    message: NeMoGymChatCompletionMessageForTraining | NeMoGymChatCompletionMessage
    logprobs: Any = None


class NeMoGymCompletionUsage(Open):
    completion_tokens: int
    prompt_tokens: int
    total_tokens: int


class NeMoGymChatCompletion(Open):
    id: str
    choices: list[NeMoGymChoice]
    created: int
    model: str
    object: Literal["chat.completion"]
    usage: NeMoGymCompletionUsage | None = None


class NeMoGymFunctionDefinition(TypedDict, total=False):
    name: str
    description: str
    parameters: dict[str, Any]
    strict: bool | None


class NeMoGymChatCompletionToolParam(TypedDict, total=False):
    type: str
    function: NeMoGymFunctionDefinition


class NeMoGymFunctionToolParam(TypedDict, total=False):
    type: str
    name: str
    description: str | None
    parameters: dict[str, Any] | None
    strict: bool | None


class NeMoGymChatCompletionContentPartTextParam(TypedDict, total=False):
    type: str
    text: str


class NeMoGymChatCompletionContentPartImageParam(TypedDict, total=False):
    type: str
    image_url: dict[str, Any]


class NeMoGymChatCompletionUserMessageParam(TypedDict, total=False):
    role: str
    content: Any
    name: str


class NeMoGymChatCompletionSystemMessageParam(TypedDict, total=False):
    role: str
    content: Any
    name: str


class NeMoGymChatCompletionDeveloperMessageParam(TypedDict, total=False):
    role: str
    content: Any
    name: str


class NeMoGymChatCompletionToolMessageParam(TypedDict, total=False):
    role: str
    content: Any
    tool_call_id: str


class NeMoGymChatCompletionMessageToolCallFunctionParam(TypedDict, total=False):
    arguments: str
    name: str


class NeMoGymChatCompletionMessageToolCallParam(TypedDict, total=False):
    id: str
    type: str
    function: NeMoGymChatCompletionMessageToolCallFunctionParam


class NeMoGymChatCompletionAssistantMessageParam(TypedDict, total=False):
    role: str
    content: Any
    reasoning_content: str | None
    refusal: str | None
    tool_calls: list[NeMoGymChatCompletionMessageToolCallParam]


class NeMoGymChatCompletionAssistantMessageForTrainingParam(NeMoGymChatCompletionAssistantMessageParam, total=False):
    prompt_token_ids: list[int]
    generation_token_ids: list[int]
    generation_log_probs: list[float]


NeMoGymChatCompletionMessageParam = dict[str, Any]


class NeMoGymChatCompletionCreateParamsNonStreaming(Open):
    messages: list[NeMoGymChatCompletionMessageParam]
    model: str | None = None
    frequency_penalty: float | None = None
    logprobs: bool | None = None
    max_completion_tokens: int | None = None
    max_tokens: int | None = None
    metadata: dict[str, Any] | None = None
    n: int | None = None
    parallel_tool_calls: bool = True
    presence_penalty: float | None = None
    reasoning_effort: str | None = None
    response_format: Any = None
    seed: int | None = None
    stop: str | list[str] | None = None
    temperature: float | None = None
    tool_choice: Any = None
    tools: list[dict[str, Any]] | None = Field(default=None)
    top_logprobs: int | None = None
    top_p: float | None = None
    user: str | None = None
    stream: Literal[False] | None = None
