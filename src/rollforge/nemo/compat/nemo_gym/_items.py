"""Items, requests and answers of the Responses API, as pydantic models.

Unknown fields are kept, so that what passes through a server loses nothing. The class of an item follows from its type, and
from whether it carries token ids.
"""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator

REQUIRED_TOKEN_METADATA_FIELDS = frozenset({"prompt_token_ids", "generation_token_ids", "generation_log_probs"})
TOKEN_METADATA_FIELDS = REQUIRED_TOKEN_METADATA_FIELDS | {"routed_experts"}

Status = Literal["in_progress", "completed", "incomplete"] | None


class Open(BaseModel):
    """An object whose fields nobody here insists on; made of objects of OpenAI's client too."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, value: Any) -> Any:
        return _dumped(value) if isinstance(value, BaseModel) and not isinstance(value, Open) else value


def _dumped(value: BaseModel) -> dict[str, Any]:
    """What was set, and what the object is."""
    told = {name: getattr(value, name) for name in ("type", "role") if hasattr(value, name)}
    return {**told, **value.model_dump(exclude_unset=True)}


class Said(Open):
    """An item or a part of one. What it is by default (its type, its role) is said even where only what was set is."""

    def model_post_init(self, _: Any, /) -> None:
        self.__pydantic_fields_set__.update(_by_default(type(self)))


@cache
def _by_default(kind: type[BaseModel]) -> tuple[str, ...]:
    return tuple(name for name, field in kind.model_fields.items() if name in ("type", "role") and not field.is_required())


class TokenIDLogProbMixin(BaseModel):
    prompt_token_ids: list[int]
    generation_token_ids: list[int]
    generation_log_probs: list[float]
    routed_experts: str | list[list[list[int]]] | None = None


class NeMoGymSummary(Said):
    text: str
    type: Literal["summary_text"] = "summary_text"


class NeMoGymResponseReasoningItem(Said):
    id: str
    summary: list[NeMoGymSummary]
    type: Literal["reasoning"] = "reasoning"
    encrypted_content: str | None = None
    content: list[Open] | None = None


class NeMoGymResponseOutputText(Said):
    annotations: list[Any] = Field(default_factory=list)
    text: str
    type: Literal["output_text"] = "output_text"
    logprobs: list[Any] | None = None


class NeMoGymResponseOutputRefusal(Said):
    refusal: str
    type: Literal["refusal"] = "refusal"


NeMoGymContent = NeMoGymResponseOutputText | NeMoGymResponseOutputRefusal


class NeMoGymResponseOutputMessage(Said):
    id: str
    content: list[NeMoGymContent]
    role: Literal["assistant"] = "assistant"
    status: Literal["in_progress", "completed", "incomplete"] = "completed"
    type: Literal["message"] = "message"


class NeMoGymResponseInputText(Said):
    text: str
    type: Literal["input_text"] = "input_text"


NeMoGymResponseInputContentList = list[dict[str, Any]]


class NeMoGymEasyInputMessage(Open):
    content: str | NeMoGymResponseInputContentList
    role: Literal["user", "assistant", "system", "developer"]
    type: Literal["message"] = "message"


class NeMoGymMessage(Open):
    content: NeMoGymResponseInputContentList
    role: Literal["user", "system", "developer"]
    status: Literal["in_progress", "completed", "incomplete"] = "completed"
    type: Literal["message"] = "message"


class NeMoGymFunctionCallOutput(Said):
    call_id: str
    output: str | list[dict[str, Any]]
    type: Literal["function_call_output"] = "function_call_output"
    id: str | None = None
    status: Status = None


class NeMoGymResponseFunctionToolCall(Said):
    arguments: str
    call_id: str
    name: str
    type: Literal["function_call"] = "function_call"
    id: str | None = None
    status: Status = None


class NeMoGymOtherItem(Open):
    """What the provider executed itself: web searches, hosted MCP calls, code interpreters."""

    type: str


class NeMoGymEasyInputMessageForTraining(NeMoGymEasyInputMessage, TokenIDLogProbMixin): ...


class NeMoGymMessageForTraining(NeMoGymMessage, TokenIDLogProbMixin): ...


class NeMoGymResponseOutputMessageForTraining(NeMoGymResponseOutputMessage, TokenIDLogProbMixin): ...


class NeMoGymResponseFunctionToolCallForTraining(NeMoGymResponseFunctionToolCall, TokenIDLogProbMixin): ...


class NeMoGymResponseReasoningItemForTraining(NeMoGymResponseReasoningItem, TokenIDLogProbMixin): ...


RESPONSES_TO_TRAIN: dict[type[BaseModel], type[BaseModel]] = {
    NeMoGymEasyInputMessage: NeMoGymEasyInputMessageForTraining,
    NeMoGymMessage: NeMoGymMessageForTraining,
    NeMoGymResponseOutputMessage: NeMoGymResponseOutputMessageForTraining,
    NeMoGymResponseFunctionToolCall: NeMoGymResponseFunctionToolCallForTraining,
    NeMoGymResponseReasoningItem: NeMoGymResponseReasoningItemForTraining,
}


def training_variant_of(item_cls: type[BaseModel]) -> type[BaseModel]:
    """The class that carries token ids beside the fields of `item_cls`."""
    try:
        return RESPONSES_TO_TRAIN[item_cls]
    except KeyError:
        known = ", ".join(sorted(cls.__name__ for cls in RESPONSES_TO_TRAIN))
        raise NotImplementedError(f"{item_cls.__name__} cannot carry token ids; these can: {known}") from None


def _class_of(value: Any) -> str:
    if isinstance(value, BaseModel):
        known = (cls.__name__ for cls in type(value).__mro__ if cls.__name__ in _CLASSES)
        return next(known, None) or _class_of(_dumped(value))
    if not isinstance(value, dict):
        return _OTHER
    found = _plain_class_of(value)
    trained = any(value.get(name) is not None for name in REQUIRED_TOKEN_METADATA_FIELDS)
    return f"{found}ForTraining" if trained and f"{found}ForTraining" in _CLASSES else found


def _plain_class_of(item: dict[str, Any]) -> str:
    kind = item.get("type") or next((kind for field, kind in _TELLING.items() if field in item), "")
    if kind != "message":
        return _PLAIN.get(kind, _OTHER)
    parts = item.get("content")
    if not isinstance(parts, list):
        return NeMoGymEasyInputMessage.__name__
    if item.get("role", "assistant") == "assistant":
        spoken = all(isinstance(part, dict) and part.get("type") in ("output_text", "refusal") for part in parts)
        models = any(isinstance(part, BaseModel) for part in parts)
        return (NeMoGymResponseOutputMessage if (spoken or models) else NeMoGymEasyInputMessage).__name__
    return (NeMoGymMessage if item.get("status") else NeMoGymEasyInputMessage).__name__


_TELLING = {"role": "message", "output": "function_call_output", "arguments": "function_call", "summary": "reasoning"}
"""Which field tells the type of an item that does not say it."""
_OTHER = NeMoGymOtherItem.__name__
_PLAIN = {
    "function_call": NeMoGymResponseFunctionToolCall.__name__,
    "function_call_output": NeMoGymFunctionCallOutput.__name__,
    "reasoning": NeMoGymResponseReasoningItem.__name__,
}
_CLASSES = {
    *(cls.__name__ for pair in RESPONSES_TO_TRAIN.items() for cls in pair),
    *(NeMoGymFunctionCallOutput.__name__, NeMoGymOtherItem.__name__),
}

NeMoGymResponseInputItem = Annotated[
    Annotated[NeMoGymEasyInputMessage, Tag("NeMoGymEasyInputMessage")]
    | Annotated[NeMoGymMessage, Tag("NeMoGymMessage")]
    | Annotated[NeMoGymResponseOutputMessage, Tag("NeMoGymResponseOutputMessage")]
    | Annotated[NeMoGymResponseFunctionToolCall, Tag("NeMoGymResponseFunctionToolCall")]
    | Annotated[NeMoGymFunctionCallOutput, Tag("NeMoGymFunctionCallOutput")]
    | Annotated[NeMoGymResponseReasoningItem, Tag("NeMoGymResponseReasoningItem")]
    | Annotated[NeMoGymEasyInputMessageForTraining, Tag("NeMoGymEasyInputMessageForTraining")]
    | Annotated[NeMoGymMessageForTraining, Tag("NeMoGymMessageForTraining")]
    | Annotated[NeMoGymResponseOutputMessageForTraining, Tag("NeMoGymResponseOutputMessageForTraining")]
    | Annotated[NeMoGymResponseFunctionToolCallForTraining, Tag("NeMoGymResponseFunctionToolCallForTraining")]
    | Annotated[NeMoGymResponseReasoningItemForTraining, Tag("NeMoGymResponseReasoningItemForTraining")]
    | Annotated[NeMoGymOtherItem, Tag("NeMoGymOtherItem")],
    Discriminator(_class_of),
]
NeMoGymResponseInput = list[NeMoGymResponseInputItem]


def _typed(value: Any) -> Any:
    if isinstance(value, dict) and "type" not in value:
        raise ValueError("an output item needs a type")
    return value


NeMoGymResponseOutputItem = Annotated[NeMoGymResponseInputItem, BeforeValidator(_typed)]


class NeMoGymResponseCreateParamsNonStreaming(Open):
    background: bool | None = None
    include: list[str] | None = None
    input: str | NeMoGymResponseInput
    instructions: str | None = None
    max_output_tokens: int | None = None
    max_tool_calls: int | None = None
    metadata: dict[str, Any] | None = None
    model: str | None = None
    parallel_tool_calls: bool = True
    previous_response_id: str | None = None
    prompt: dict[str, Any] | None = None
    reasoning: Any = None
    service_tier: str | None = None
    store: bool | None = None
    temperature: float | None = None
    text: dict[str, Any] | None = None
    tool_choice: str | dict[str, Any] = "auto"
    tools: list[dict[str, Any]] = Field(default_factory=list)
    top_logprobs: int | None = None
    top_p: float | None = None
    truncation: Literal["auto", "disabled"] | None = None
    user: str | None = None
    stream: Literal[False] | None = None

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {key: found for key, found in value.items() if found is not None or key not in _WITH_DEFAULT}


_WITH_DEFAULT = ("parallel_tool_calls", "tool_choice", "tools")


class NeMoGymResponseInputTokensDetails(Open):
    cached_tokens: int | None = None


class NeMoGymResponseOutputTokensDetails(Open):
    reasoning_tokens: int | None = None


class NeMoGymResponseUsage(Open):
    input_tokens: int
    input_tokens_details: NeMoGymResponseInputTokensDetails
    output_tokens: int
    output_tokens_details: NeMoGymResponseOutputTokensDetails
    total_tokens: int

    @classmethod
    def sum_from_list(cls, usages: list[NeMoGymResponseUsage]) -> NeMoGymResponseUsage:
        total = cls(
            input_tokens=0,
            input_tokens_details=NeMoGymResponseInputTokensDetails(cached_tokens=0),
            output_tokens=0,
            output_tokens_details=NeMoGymResponseOutputTokensDetails(reasoning_tokens=0),
            total_tokens=0,
        )
        for usage in usages:
            total = _added(total, usage)
        return total


def accumulate_response_usage(
    total: NeMoGymResponseUsage | None, additional: NeMoGymResponseUsage | None
) -> NeMoGymResponseUsage | None:
    """The sum of both; a count that one of them does not know is unknown."""
    if total is None or additional is None:
        known = total or additional
        return known.model_copy(deep=True) if known else None
    return _added(total, additional)


def _added(one: NeMoGymResponseUsage, other: NeMoGymResponseUsage) -> NeMoGymResponseUsage:
    def plus(left: int | None, right: int | None) -> int | None:
        return None if left is None or right is None else left + right

    found = one.model_copy(deep=True)
    found.input_tokens += other.input_tokens
    found.output_tokens += other.output_tokens
    found.total_tokens += other.total_tokens
    come, gone = found.input_tokens_details, found.output_tokens_details
    come.cached_tokens = plus(come.cached_tokens, other.input_tokens_details.cached_tokens)
    gone.reasoning_tokens = plus(gone.reasoning_tokens, other.output_tokens_details.reasoning_tokens)
    return found


class NeMoGymResponse(Open):
    id: str
    created_at: float
    error: Open | None = None
    incomplete_details: Open | None = None
    instructions: Any = None
    max_output_tokens: int | None = None
    metadata: dict[str, Any] | None = None
    model: str
    object: Literal["response"]
    output: list[NeMoGymResponseOutputItem]
    parallel_tool_calls: bool
    previous_response_id: str | None = None
    reasoning: Open | None = None
    status: str | None = None
    temperature: float | None = None
    text: Open | None = None
    tool_choice: Any
    tools: list[Open]
    top_p: float | None = None
    truncation: str | None = None
    usage: NeMoGymResponseUsage | None = None
    user: str | None = None
    background: bool | None = None
    conversation: Any = None
    max_tool_calls: int | None = None
    prompt: Any = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    top_logprobs: int | None = None

    @property
    def output_text(self) -> str:
        """The text of all messages of the assistant."""
        messages = [item for item in self.output if isinstance(item, NeMoGymResponseOutputMessage)]
        parts = [part for message in messages for part in message.content]
        return "".join(part.text for part in parts if isinstance(part, NeMoGymResponseOutputText))
