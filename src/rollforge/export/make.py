"""Rollouts as examples: canonical messages, nested tools, the expected answer where rows really carry it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from itertools import count, groupby
from typing import Any, Literal

import orjson

from rollforge.bulk.conversation import Item, all_text, has_refusal, items_of
from rollforge.bulk.record import Record, digest
from rollforge.errors import UserError
from rollforge.export.examples import Demonstration, Judged, Origin, Pair, Prompt
from rollforge.export.target import Refused
from rollforge.export.text import last_text
from rollforge.records.items import Json, input_items, inside, mapping
from rollforge.records.lossless import dumps, loads
from rollforge.records.messages import ROLES, Dialect, NoMessage, split_think

Reasoning = Literal["keep", "inline", "drop"]
"""As `reasoning_content` on the message, as `<think>...</think>` at the head of its content, or not at all."""

DIALECTS: dict[Reasoning, Dialect] = {
    "keep": Dialect(reasoning="reasoning_content", developer="system", flat=True),
    "inline": Dialect(reasoning="think", developer="system", flat=True),
    "drop": Dialect(reasoning="none", developer="system", flat=True),
}


@dataclass(frozen=True, slots=True)
class How:
    reasoning: Reasoning = "keep"
    answer: str | None = None
    """Dotted path of the field with the expected answer, or several with commas; None: looked for (`Record.expected`)."""


VERDICT = frozenset(
    (
        *("reward", "reward_components", "accuracy", "truncated", "terminated", "score", "is_correct", "_rowidx"),
        *("extracted_answer", "extracted_model_code", "extracted_model_output", "extracted_sql", "extraction_successful"),
        *("library_reward", "judge_evaluations", "judge_output", "judge_response", "judge_passed", "invalid_judge_response"),
        *("predicted_calls", "model_output", "parse_failed", "failure_reason", "mask_sample", "eval_timed_out"),
        *("agent_run_time", "agent_timed_out", "agent_error_kind", "follow_all_instructions", "follow_instruction_list"),
    )
)
"""Fields that verifiers of NeMo Gym and rollforge add to a task. A gym that finds them in a task may be given the same field
twice, and a trainer has no use for what another model answered."""


def task_fields(record: Record) -> Json:
    """The task's own fields, as far as can be told: not a verdict's, NeMo Gym's marks (`_ng_...`) or statistics (`a/b`)."""
    fields = record.fields(but=VERDICT)
    own = mapping(record.block.get("task_fields"))  # what a verdict of the same name had replaced
    return {name: value for name, value in fields.items() if not name.startswith("_ng_") and "/" not in name} | own


# Examples. All of them raise `Refused`, or `UserError` for a conversation that chat messages cannot hold.


def make_prompt(record: Record, origin: Origin, how: How = How()) -> Prompt:
    return _Stored(record, origin, how)


class _Stored(Prompt):
    """What few formats need is decoded when they ask for it."""

    __slots__ = ("_dialect", "_record")

    def __init__(self, record: Record, origin: Origin, how: How) -> None:
        self._record = record
        self._dialect = DIALECTS[how.reasoning]
        self.origin, self.not_chat = origin, ""
        try:
            self.messages = _prompt(record, self._dialect)
            self.tools = _offered(record, self.messages)
        except Refused as reason:
            self.messages, self.tools = _chat(record.prompt_messages, self._dialect), _sorted_tools(record.tools)[0]
            self.not_chat = str(reason)
        self.answer = answer_of(record, how.answer)
        self.lacking = "" if self.answer is not None else why_no_answer(record, how.answer)

    @property
    def params(self) -> Json:  # type: ignore[override]
        return self._record.params

    @property
    def fields(self) -> Json:  # type: ignore[override]
        return task_fields(self._record)

    @property
    def task_id(self) -> str:  # type: ignore[override]
        return str(self._record.block.get("task") or "")

    @property
    def output(self) -> str:  # type: ignore[override]
        try:
            return last_text(self._record.response_messages(self._dialect))
        except UserError:  # it holds what no chat message can: a prompt is as good without
            said = [all_text(item.content) for item in self._record.items() if item.said]
            return said[-1] if said else ""


def generated(prompt: Prompt) -> int | None:
    """Tokens of the first rollout's response, if the row counts them."""
    found = prompt._record.usage.get("output_tokens") if isinstance(prompt, _Stored) else None
    return found if type(found) is int else None


def make_demonstration(record: Record, origin: Origin, how: How = How()) -> Demonstration:
    prompt, completion = _conversation(record, how, no_refusal=True)
    last = completion[-1]
    if last["role"] != "assistant":
        raise Refused("the conversation does not end with the assistant's message")
    if is_blank([last]):
        raise Refused("the last answer is empty")
    return Demonstration(origin, prompt, completion, _offered(record, prompt, completion))


def make_judged(record: Record, origin: Origin, label: bool, how: How = How(), *, whole: bool = False) -> Judged:
    """`whole`: with the expected answer and the row's other fields."""
    prompt, completion = _conversation(record, how)
    made = Judged(origin, prompt, completion, _offered(record, prompt, completion), label)
    if whole:
        made.answer, made.fields = answer_of(record, how.answer), record.fields()
    return made


@dataclass(slots=True)
class Half:
    """One side of a pair."""

    origin: Origin
    prompt: list[Json]
    completion: list[Json]
    tools: list[Json]
    _said: bytes = b""

    def says_the_same(self, other: Half) -> bool:
        """Whether a policy could not tell the two apart: ids of tool calls and white space at the ends do not count."""
        if _bare(self.completion[-1]["content"]) != _bare(other.completion[-1]["content"]):
            return False
        return _without_ids(self.completion) == _without_ids(other.completion)

    @property
    def said(self) -> bytes:
        """16 bytes that all have which say the same."""
        self._said = self._said or digest(dumps(_without_ids(self.completion), sort_keys=True))
        return self._said


def make_half(record: Record, origin: Origin, how: How = How()) -> Half:
    prompt, completion = _conversation(record, how)
    return Half(origin, prompt, completion, _offered(record, prompt, completion))


def make_pair(chosen: Half, rejected: Half) -> Pair:
    """The prompt and the tools are the chosen side's."""
    return Pair(chosen.origin, rejected.origin, chosen.prompt, chosen.completion, rejected.completion, chosen.tools)


def origin_of(record: Record, source: int, at: int) -> Origin:
    task, index = record.task, record.index
    name = f"{task}-{index}" if task and index is not None else f"{source}:{at}"
    return _Origin(name, source, at, record, task)


class _Origin(Origin):
    """The model's name stands in the response, which few need decoded for it."""

    __slots__ = ("_record",)

    def __init__(self, name: str, source: int, at: int, record: Record, task: str) -> None:
        self._record = record
        self.id, self.source, self.at, self.task = name, source, at, task
        self.env, self.reward = record.env, record.reward or 0.0

    @property
    def model(self) -> str | None:  # type: ignore[override]
        return self._record.model


# The expected answer


def answer_of(record: Record, path: str | None = None) -> str | None:
    """The expected answer as text; None if the row has none, or a list or an object under its surest name: those are answers
    only where `path` names them, as JSON."""
    if path is not None:
        return _answer_text(_at(record, path), structured=True)
    first = next((value for _, value in record.expected() if value not in _EMPTY), None)
    return _answer_text(first, structured=False)


def why_no_answer(record: Record, path: str | None = None) -> str:
    """Where `answer_of` found none: why, and what mends it."""
    if path is not None:
        value = _at(record, path)
        return f"the row has no {path} (--answer)" if value is None else f"{path} is empty (--answer)"
    for place, value in record.expected():
        if value and isinstance(value, (list, dict)):
            kind = "a list" if isinstance(value, list) else "an object"
            return f"{place} is {kind}: --answer {place} takes it as JSON"
    return "no expected answer was found (name its field: --answer FIELD)"


def _answer_text(value: Any, structured: bool) -> str | None:
    if isinstance(value, str):
        return value or None
    if isinstance(value, (bool, int, float)):
        return str(value)
    return dumps(value).decode() if structured and value else None


def _at(record: Record, paths: str) -> Any:
    """The value of the first that says something."""
    found = None
    for path in paths.split(","):
        found = record.field(path)  # a field may have a dot in its name
        first, *rest = path.split(".")
        found = inside(record.field(first), *rest) if found is None else found
        if found not in _EMPTY:
            break
    return found


_EMPTY: tuple[Any, ...] = (None, "", [], {})


# Messages and tools


def _conversation(record: Record, how: How, *, no_refusal: bool = False) -> tuple[list[Json], list[Json]]:
    """What an environment showed after the last action is no part of it. A last turn that only refuses is none: as an empty
    text it would be what the model never said. `no_refusal`: nor one that refuses beside a text."""
    dialect = DIALECTS[how.reasoning]
    asked, completion = _chat(record.prompt_messages, dialect), _chat(record.response_messages, dialect)
    while completion and completion[-1]["role"] == "user":
        completion.pop()
    if not completion:
        raise Refused("there is no response")
    if is_blank(asked):
        raise Refused("the prompt is empty")
    last = completion[-1]
    if last.get("refusal") and (no_refusal or not _answers(last)):
        raise Refused("the model refused to answer")
    prompt = _prompt(record, dialect)
    _canonical(completion, prompt)
    return prompt, _without_thoughts(completion) if how.reasoning == "drop" else completion


def _answers(message: Json) -> bool:
    """Whether it has a text beside its reasoning, or calls tools."""
    content = message["content"]
    told = split_think(content)[1] if isinstance(content, str) else content
    return bool(_bare(told) or message.get("tool_calls"))


def is_blank(messages: Iterable[Json]) -> bool:
    """Whether nothing is said or called in them: white space is nothing."""
    return not any(
        _bare(message["content"]) or message.get("tool_calls") or _bare(message.get("reasoning_content"))
        for message in messages
    )


def _chat(read: Callable[[Dialect], list[Json]], dialect: Dialect) -> list[Json]:
    try:
        return read(dialect)
    except UserError as error:
        raise Refused(told(error)) from None


def told(error: Exception) -> str:
    """Why a row is left out: nobody is about to ask a model."""
    return error.what if isinstance(error, NoMessage) else str(error)


def _without_thoughts(messages: list[Json]) -> list[Json]:
    """Reasoning at the head of the assistant's texts goes, too. The very list where there is none."""
    if not any(message["role"] == "assistant" and "think>" in message["content"] for message in messages):
        return messages
    return [_thoughtless(message) if message["role"] == "assistant" else message for message in messages]


def _thoughtless(message: Json) -> Json:
    thought, told = split_think(message["content"]) if isinstance(message["content"], str) else (None, None)
    return message if thought is None else {**message, "content": (told or "").lstrip()}


def lost(record: Record, how: How, *, asked: bool = False) -> list[str]:
    """What no chat message holds for a trainer, of the rollout with its prompt or of what was `asked` alone: refusals, some
    reasoning."""
    if b'"refusal"' not in record.line and b'"reasoning"' not in record.line:
        return []
    given = input_items(record.params) if any(one["role"] == "assistant" for one in record.prompt_messages()) else []
    items = [*items_of(given), *(() if asked else record.items())]
    found = [] if how.reasoning == "drop" else [*_lost_thoughts(dumps(given) if asked else record.line, items)]
    if has_refusal(items):
        found.append("a refusal")
    return found


def _lost_thoughts(line: bytes, items: Iterable[Item]) -> Iterator[str]:
    if b"encrypted_content" in line and _ENCRYPTED.search(line):
        yield "encrypted reasoning"
    if any(item.type == "reasoning" and all_text(item.content) and all_text(item.summary) for item in items):
        yield "summaries of reasoning that is there in full"


_ENCRYPTED = re.compile(rb'"encrypted_content"\s*:\s*"[^"]')


def _prompt(record: Record, dialect: Dialect) -> list[Json]:
    """Not to be changed: nearly all prompts are what all records of the task share."""
    chat = _chat(record.prompt_messages, dialect)
    if any("tool_calls" in message or "refusal" in message or message["role"] not in _PLAIN for message in chat):
        chat = _canonical(deepcopy(chat))
    return _without_thoughts(chat) if dialect.reasoning == "none" else chat


_PLAIN = frozenset(ROLES) - {"tool"}


def _canonical(messages: list[Json], before: Sequence[Json] = ()) -> list[Json]:
    """In place: arguments become objects, calls without ids get some, and so do the outputs that answer them, which come in
    the order of the calls. No chat template reads a `refusal`: what is beside it stays."""
    number, crossed = 0, False
    waiting: list[str] = []
    for message in before:
        if "tool_calls" in message:
            waiting = [call["id"] for call in message["tool_calls"]]
            number += len(waiting)
        elif message.get("tool_call_id") in waiting:
            waiting.remove(message["tool_call_id"])
    taken = {call["id"] for call in _calls((*before, *messages))}
    ours: set[str] = set()
    for message in messages:
        message.pop("refusal", None)
        if "tool_calls" in message:
            waiting = []
            for call in message["tool_calls"]:
                function = call["function"]
                if not function["name"]:
                    raise Refused("a tool call names no tool")
                text = function["arguments"]
                function["arguments"] = _arguments(text) if text else {}
                name = call["id"]
                if not name:
                    name = next(new for new in map("call_{}".format, count(number)) if new not in taken)
                    taken.add(name)
                    ours.add(name)
                call["id"] = name
                waiting.append(name)
                number += 1
        elif message["role"] == "tool":
            # One without an id is of a call that had none either, else of the first that waits.
            given = message.get("tool_call_id") or min(waiting, key=lambda one: one not in ours, default="")
            message["tool_call_id"] = given
            if given in waiting:
                crossed = crossed or given != waiting[0]
                waiting.remove(given)
        elif message["role"] not in ROLES:
            raise Refused(f"a message's role is {str(message['role'])[:40]!r}; known: {', '.join(ROLES)}")
    if crossed:
        _uncross(messages, before)
    return messages


def _calls(messages: Iterable[Json]) -> Iterator[Json]:
    return (call for message in messages for call in message.get("tool_calls") or ())


def _uncross(messages: list[Json], before: Sequence[Json]) -> None:
    """In place: the results of a turn's calls in their order. Formats without ids, and most chat templates, know which call
    a result is of by its place only."""
    last = next((message for message in reversed(before) if "tool_calls" in message), {})
    found: list[Json] = []
    for results, run in groupby(messages, lambda message: message["role"] == "tool"):
        if results:
            order = {call["id"]: place for place, call in enumerate(last.get("tool_calls") or ())}
            found += sorted(run, key=partial(_placed, order))
        else:
            found += run
            last = found[-1]
    messages[:] = found


def _placed(order: dict[str, int], result: Json) -> int:
    return order.get(result["tool_call_id"], len(order))


def _arguments(text: str) -> Json:
    try:
        value = orjson.loads(text)
        if isinstance(value, dict) and text.count(":") == len(value) and _EXACT.issuperset(map(type, value.values())):
            return value
        value = loads(text)
        json.loads(text, object_pairs_hook=_once)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise Refused("a tool call's arguments are not a JSON object")
    return value


def _once(pairs: list[tuple[str, Any]]) -> Json:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise Refused("a tool call's arguments have a key twice")
    return found


_EXACT = frozenset((str, int, bool, type(None)))
"""What orjson reads as it stands; a number that it cannot hold becomes a float."""


def _without_ids(messages: Iterable[Json]) -> list[Any]:
    return [
        (
            message["role"],
            _bare(message["content"]),
            _bare(message.get("reasoning_content")),
            [call["function"] for call in message.get("tool_calls") or ()],
        )
        for message in messages
    ]


def _bare(content: Any) -> Any:
    return content.strip() if isinstance(content, str) else content


def hosted(record: Record) -> list[str]:
    """The kinds of the tools that are no functions (`web_search_preview`): chat messages can neither offer nor call them."""
    kinds = {str(tool.get("type") or "function") for tool in _sorted_tools(record.tools)[1]}
    return sorted("function without a name" if kind == "function" else kind for kind in kinds)


def _offered(record: Record, *conversation: list[Json]) -> list[Json]:
    """The tools as `{type, function: {name, ...}}`. The same list for the same tools: not to be changed."""
    functions, others = _sorted_tools(record.tools)
    if others:
        called = {call["function"]["name"] for part in conversation for call in _calls(part)}
        for tool in others:
            if isinstance(name := tool.get("name"), str) and name in called:
                raise Refused(f"it calls a tool of type {tool['type']}, which is no function")
    return functions


_tools: dict[int, tuple[list[Json], list[Json], list[Json]]] = {}


def _sorted_tools(tools: list[Json]) -> tuple[list[Json], list[Json]]:
    """(functions, nested; the others as they are)."""
    found = _tools.get(id(tools))
    if found is None or found[0] is not tools:
        if len(_tools) >= 512:
            _tools.clear()
        others = [tool for tool in tools if not _is_function(tool)]
        found = _tools[id(tools)] = (tools, [_nest(tool) for tool in tools if _is_function(tool)], others)
    return found[1], found[2]


def _is_function(tool: Json) -> bool:
    return (tool.get("type") or "function") == "function" and isinstance(tool.get("name"), str)


def _nest(tool: Json) -> Json:
    # `strict` and nulls say nothing to a chat template, which would print them.
    function = {key: value for key, value in tool.items() if key not in ("type", "strict") and value is not None}
    return {"type": "function", "function": function}
