"""Rows as the model will read them: rendered by its chat template, in the framework's own way.

A template may refuse a conversation, leave parts of it out, or write a turn otherwise once another follows. Trainers cut
answers out of what it writes, by prefixes or by lengths, and most say nothing where that goes wrong.

    row ─► its conversations ─► calls of the template as the framework makes them ─► what is wrong with what comes back

A problem is an error unless its text begins with "warning: ", as in `Kind.check`.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property, lru_cache, partial
from typing import Any, NamedTuple, TypeAlias

from rollforge.errors import short
from rollforge.export.check_rows import common, decoded
from rollforge.export.text import as_text
from rollforge.models.template import ChatTemplate
from rollforge.records.items import Json, inside, text_of
from rollforge.records.messages import split_think

MOST_TURNS = 64
"""Of a longer conversation, the beginnings of so many turns are rendered: the first few and the last ones."""


class Refusal(Exception):
    """In the template's own words."""


class Talk(NamedTuple):
    """A conversation in a row."""

    name: str
    """chosen, rejected, ...; "" for the only one."""
    messages: list[Json]
    tools: list[Json] | None
    prompt: int
    """So many of the messages are the prompt; 0: it is not parted."""
    variables: Json
    """What the template is told beside it: TRL's `chat_template_kwargs`, verl's `enable_thinking`."""


class View:
    """A conversation and its template."""

    def __init__(self, talk: Talk, template: ChatTemplate) -> None:
        self.talk = talk
        self.template = template
        self.messages = talk.messages

    def text(self, messages: Sequence[Json], tools: Sequence[Json] | None = None, *, generation: bool = False) -> str:
        """Raises `Refusal`."""
        try:
            return self.template.render(messages, tools, generation=generation, **self.talk.variables)
        except Exception as error:  # noqa: BLE001 - a template is a program, and whatever it raises is the finding
            raise Refusal(short(error).removeprefix("TemplateError: ")) from None

    def first(self, count: int, *, generation: bool = False) -> str:
        """So many messages."""
        return self.text(self.messages[:count], self.talk.tools, generation=generation)

    @cached_property
    def whole(self) -> str:
        return self.first(len(self.messages))

    def given(self, tools: list[Json] | None) -> View:
        """The same with other tools."""
        return self if tools is self.talk.tools else View(self.talk._replace(tools=tools), self.template)

    def bare(self, text: str) -> str:
        """Without the special tokens and line breaks at its end."""
        marks = [re.escape(value) for value in self.template.variables.values() if isinstance(value, str) and value]
        return re.sub(rf"(?:{'|'.join([*marks, _MARK])}|\s)+\Z", "", text)


Cut: TypeAlias = Callable[[View], Iterator[str]]


class Where(NamedTuple):
    """Where the conversations of a row stand."""

    messages: bool = False
    """In that field, whatever else a row has; else in a prompt and its answers, whatever messages it has beside them."""
    texts: bool = False
    """Prompts and answers of plain text are made messages of; else they are left alone."""
    told: str = ""
    """The field in which a row says what the template is told beside it, where it is read."""


def problems(template: ChatTemplate, row: Json, *, cut: Cut, where: Where) -> list[str] | None:
    """Of the row's conversations, each once; None: it holds none."""
    found = list(talks(row, where))
    said = (problem for talk in found for problem in _of(View(talk, template), cut))
    return list(dict.fromkeys(said)) if found else None


def _of(view: View, cut: Cut) -> Iterator[str]:
    try:
        yield from cut(view)
    except Refusal as refusal:
        yield f"the chat template refuses this conversation: {refusal}{_wanted(view)}"


def talks(row: Json, where: Where) -> Iterator[Talk]:
    """The conversations of a row; none where it is no chat, which the check of the row says."""
    given = row.get(where.told)
    variables = given if isinstance(given, dict) else {where.told: given} if isinstance(given, bool) else {}

    def chat(value: Any, role: str) -> list[Json]:
        if isinstance(value, list):
            return value
        return [{"role": role, "content": value}] if where.texts and isinstance(value, str) else []

    def talk(prompt: list[Json], answer: list[Json], name: str = "") -> Iterator[Talk]:
        turns = [*prompt, *answer]
        if turns and all(map(_is_message, turns)):
            yield Talk(name, turns, tools if _is_list(tools) else None, len(prompt), variables)

    tools = decoded(row.get("tools"))
    if where.messages:
        yield from talk([], chat(row.get("messages"), "user"))
    elif isinstance(row.get("completions"), list):
        for number, one in enumerate(row["completions"], 1):
            completion = chat(inside(one, "completion"), "assistant")
            yield from talk(chat(row.get("context"), "user"), completion, f"completion {number}")
    elif "prompt" in row or "input" in row:
        prompt = chat(row.get("prompt", row.get("input")), "user")
        names: list[str] = [name for name in ("completion", "chosen", "rejected", "output") if name in row]
        for name in names or [""]:
            answer = chat(row.get(name), "assistant")
            yield from talk(prompt, answer, name if len(names) > 1 else "") if prompt else ()
    elif "chosen" in row and "rejected" in row:
        shared = len(common(row["chosen"], row["rejected"]))
        for name in ("chosen", "rejected"):
            if isinstance(side := row[name], list):
                yield from talk(side[:shared], side[shared:], name)


def _wanted(view: View) -> str:
    """Where the arguments of calls are what a template stumbles over: how it takes them."""
    for form, change in (("JSON text: --arguments text of rollforge export", as_text), ("objects", decoded)):
        changed = [_changed(message, partial(_with_arguments, change=change)) for message in view.messages]
        if changed != view.messages:
            with suppress(Refusal):
                view.text(changed, view.talk.tools)
                return f" (it takes the arguments of calls as {form})"
    return ""


def _with_arguments(function: Json, change: Callable[[Any], Any]) -> Json:
    return {**function, "arguments": change(function["arguments"])} if "arguments" in function else function


def _changed(message: Json, change: Callable[[Json], Json]) -> Json:
    """With its calls' functions changed."""
    calls = message.get("tool_calls")
    return {**message, "tool_calls": [_inside(call, change) for call in calls]} if calls else message


def _inside(tool: Json, change: Callable[[Json], Json]) -> Json:
    """A tool, or a call, with its function changed; flat ones are it themselves."""
    function = tool.get("function")
    return {**tool, "function": change(function)} if isinstance(function, dict) else change(tool)


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("role"), str) and _is_list(value.get("tool_calls") or [])


def _is_list(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, dict) for one in value)


def asked(view: View) -> Iterator[str]:
    """Prompts: rendered with the opening of an answer. What tools there are is no matter of the rows."""
    view = view.given(None)
    count = view.talk.prompt or len(view.messages)
    yield from _left_out(view, count, generation=True)


def whole(view: View) -> Iterator[str]:
    """Conversations that are rendered once: TRL's SFT."""
    yield from _left_out(view, len(view.messages))


def grown(view: View) -> Iterator[str]:
    """NeMo RL (`get_formatted_message_log`, data/llm_message_utils.py): each beginning of the conversation is rendered; a
    message is what its beginning has after the first character that the one before has not. Tools are given with `messages`
    only."""
    if view.talk.prompt:
        view = view.given(None)
    yield from whole(view)
    before, count, warned = "", len(view.messages), False
    for number in _turns(count):
        try:
            text = view.first(number)
        except Refusal as refusal:
            yield (
                f"NeMo RL renders every beginning of a conversation, and the chat template refuses the first {number} of "
                f"the {count} messages: {refusal}"
            )
            return
        if lost := _left(before, text):
            torn = _torn(before, text)
            begins = f"; message {number} begins with {_cut(torn.splitlines()[0])}" if torn else ""
            level = "" if torn or view.bare(lost) else "warning: "
            if not (level and warned):
                yield (
                    f"{level}the chat template writes what stands before message {number} otherwise than without it "
                    f"({_cut(lost)} is gone): NeMo RL, which takes each message for what is new, trains on both{begins}. "
                    f"{_ALIKE}"
                )
            if not level:
                return
            warned = True
        before = text


def by_length(view: View) -> Iterator[str]:
    """OpenRLHF (datasets/sft_dataset.py, reward_dataset.py): an answer is what stands after as many characters as the prompt
    with the opening of an answer has; of several in a conversation each by itself, and tools are not given."""
    view = view.given(None)
    yield from whole(view)
    for start, end in answers(view)[-MOST_TURNS:]:
        opened, said = view.first(start, generation=True), view.first(end)
        if not said.startswith(opened):
            begins = _cut(said[len(opened) :])
            yield (
                f"the chat template opens message {start + 1} with {_cut(_left(opened, said))}, and does not write that "
                f"where an answer stands: OpenRLHF cuts at the opening's length, and trains on {begins}. {_ALIKE}"
            )
            return
        if lost := _left(said, view.whole):
            level = "" if view.bare(lost) else "warning: "
            yield (
                f"{level}the chat template writes message {end} otherwise once others follow ({_cut(lost)} is gone): "
                f"OpenRLHF counts where it stands before that, and trains on the wrong tokens. {_ALIKE}"
            )
            return


def answers(view: View) -> list[tuple[int, int]]:
    """Where OpenRLHF looks for answers, by messages."""
    if view.talk.prompt:
        return [(view.talk.prompt, len(view.messages))]
    return [(at, at + 1) for at, message in enumerate(view.messages) if message["role"] == "assistant"]


def at_common(view: View) -> Iterator[str]:
    """TRL (`common_prefix_length`, data_utils.py): the answer begins where the prompt with the opening of an answer and the
    whole conversation part."""
    yield from whole(view)
    opened = view.first(view.talk.prompt, generation=True)
    if not view.whole.startswith(opened):
        yield (
            f"warning: the chat template opens an answer with {_cut(_left(opened, view.whole))}, and where one stands it "
            f"writes {_cut(_left(view.whole, opened))}: TRL warns, and trains on the latter"
        )


def alone(view: View) -> Iterator[str]:
    """verl (multiturn_sft_dataset.py, utils/tokenizer/chat_template.py): each message is rendered alone, tools with the
    first one, results of parallel calls together (gym_sft_dataset.py); joined they must be the whole. Of an
    answer as many tokens are not trained on as its opening has."""
    view = view.given(view.talk.tools or None)
    yield from whole(view)
    try:
        _, opened = added(view.template)
    except Refusal as refusal:
        yield f"verl renders two questions in a row to find the system prompt, and the chat template refuses that: {refusal}"
        return
    joined, cut = "", False
    for start, end in groups(view.messages):
        try:
            text = alone_at(view, start, end)
        except Refusal as refusal:
            yield f"verl renders each message alone, and the chat template refuses that of message {start + 1}: {refusal}"
            return
        joined += text
        if not view.whole.startswith(joined):
            yield (
                f"the chat template writes message {start + 1} otherwise alone ({_cut(_left(joined, view.whole))} is not in "
                f"the whole): verl, which renders one by one, stops with an AssertionError. {_ALIKE}"
            )
            return
        if start and view.messages[start]["role"] == "assistant" and not text.startswith(opened) and not cut:
            cut = True
            yield (
                f"the chat template opens an answer with {_cut(_left(opened, text))}, and does not write that in message "
                f"{start + 1}: verl counts the opening's tokens, and does not train on as many of "
                f"{_cut(_left(text, opened))}. {_ALIKE}"
            )
    if joined != view.whole:
        yield (
            f"the chat template ends the conversation with {_cut(view.whole[len(joined) :])}, which no message alone has: "
            f"verl, which renders one by one, stops with an AssertionError. {_ALIKE}"
        )


@lru_cache(8)
def added(template: ChatTemplate) -> tuple[str, str]:
    """(the system prompt that a template adds, the opening of an answer), as verl finds them: once, without what rows tell
    the template. Raises `Refusal`."""
    untold, nothing = View(Talk("", [], None, 0, {}), template), {"role": "user", "content": ""}
    one, two = untold.text([nothing]), untold.text([nothing] * 2)
    return one[: 2 * len(one) - len(two)], untold.text([nothing], generation=True)[len(one) :]


def alone_at(view: View, start: int, end: int) -> str:
    """What verl makes of these messages: alone, without the system prompt that the template adds. Raises `Refusal`."""
    messages, tools = view.messages[start:end], None if start else view.talk.tools
    try:
        text = view.text(messages, tools)
    except Refusal:  # there are templates that want a question
        empty = [{"role": "user", "content": [{"type": "text", "text": ""}]}]
        text = view.text([*empty, *messages], tools)[len(view.text(empty, tools)) :]
    return text[len(added(view.template)[0]) :] if start and messages[0]["role"] != "system" else text


_MARK = r"<\|[^|<>]*\|>"
_ALIKE = (
    "Train with a template that writes every turn alike, as chat_template.jinja in a copy of the model (TRL brings some: "
    "chat_templates/*_training.jinja)"
)


def _turns(count: int) -> Iterator[int]:
    """Beginnings of a conversation, by their lengths."""
    if count <= MOST_TURNS:
        yield from range(1, count + 1)
    else:
        few = MOST_TURNS // 8
        yield from range(1, few + 1)
        yield from range(count - MOST_TURNS + few + 1, count + 1)


def groups(messages: Sequence[Json]) -> Iterator[tuple[int, int]]:
    """Messages one by one; tools' results that follow each other together."""
    start = 0
    for end in range(1, len(messages) + 1):
        if end == len(messages) or not (messages[start]["role"] == messages[end]["role"] == "tool"):
            yield start, end
            start = end


def _left_out(view: View, count: int, *, generation: bool = False) -> Iterator[str]:
    """What of the messages is not in the text that is made of them."""
    messages, tools = view.messages[:count], view.talk.tools
    text = view.first(count, generation=True) if generation else view.whole

    def same(messages: Sequence[Json], tools: Sequence[Json] | None) -> bool:
        """Whether other messages or tools make no difference."""
        try:
            return view.text(messages, tools, generation=generation) == text
        except Refusal:
            return False

    in_text: str | None = None
    for number, message in enumerate(messages, 1):
        thought, said = _parts(message)
        if not all(_stands(piece, text) for piece in said):
            whose = f"message {number}, the {message['role']}'s"
            yield f"the chat template leaves out what is said in {whose}: the model never reads it"
        if not _stands(thought, text):
            if in_text is None:
                in_text = _with_reasoning_in_text(view, messages)
            inline = "inline writes it into the text, " if _stands(thought, in_text) else "inline would not help, "
            yield (
                f"warning: the chat template leaves out the reasoning of message {number}: nothing is learned from it "
                f"(--reasoning {inline}drop leaves it out of the data)"
            )
        content = message.get("content")
        if isinstance(content, list) and content:
            for form, source in (("as Python does", str(content)), ("as JSON", json.dumps(content, ensure_ascii=False))):
                if source in text:
                    yield f"the chat template writes the list of message {number} {form}: give its content as text"
        for arguments in _arguments(message):
            given = decoded(arguments)
            if isinstance(arguments, str) and isinstance(given, dict) and json.dumps(arguments, ensure_ascii=False) in text:
                yield (
                    f"the chat template writes the arguments in message {number} as text within JSON, with every quote "
                    "escaped: give them as objects, not as JSON text"
                )
            elif isinstance(given, dict) and not all(_stands(one, text) for one in given.values() if isinstance(one, str)):
                yield f"the chat template leaves out arguments of the calls in message {number}: the model never reads them"
    if "None" in text and (number := _first_none(view, messages)):
        yield f'the chat template writes None for message {number}, which has no content: write ""'
    if any(message.get("tool_calls") for message in messages) and same([_changed(one, _renamed) for one in messages], tools):
        yield "the chat template leaves out the tool calls: the model never reads them, and turns of calls alone are empty"
    if tools and same(messages, [_inside(tool, _renamed) for tool in tools]):
        yield "the chat template leaves out the tools: the model is not told which ones it has"
    if tools == [] and not same(messages, None):
        yield "the chat template tells the model of tools where the list of them is empty: write null, or no such key"


def _first_none(view: View, messages: Sequence[Json]) -> int:
    """The first message without content for which None is written, from 1; 0: there is none. Renders a few times only."""
    silent = [at for at, message in enumerate(messages) if message.get("content", "") is None]

    def nones(count: int) -> int:
        filled = {at: {**messages[at], "content": ""} for at in silent[:count]}
        return view.text([filled.get(at, one) for at, one in enumerate(messages)], view.talk.tools).count("None")

    if not silent or nones(len(silent)) == (of_all := nones(0)):
        return 0
    return silent[bisect_left(range(1, len(silent)), True, key=lambda count: nones(count) < of_all)] + 1


def _with_reasoning_in_text(view: View, messages: Sequence[Json]) -> str:
    """ "" where the template refuses that."""

    def inlined(message: Json) -> Json:
        thought, content = message.get("reasoning_content"), message.get("content")
        if not thought or isinstance(content, list):
            return message
        others = {key: value for key, value in message.items() if key != "reasoning_content"}
        return {**others, "content": f"<think>{thought}</think>{content or ''}"}

    try:
        return view.text(list(map(inlined, messages)), view.talk.tools)
    except Refusal:
        return ""


def _parts(message: Json) -> tuple[str, list[str]]:
    """(what was thought, what is said: of a list each text, since templates trim and join them as they like)"""
    content = message.get("content")
    texts = [text_of([part]) for part in content] if isinstance(content, list) else [text_of(content)]
    if message["role"] != "assistant":
        return "", texts
    thought, said = split_think(text_of(content))
    if thought is not None:
        return thought, [said or ""]
    return str(message.get("reasoning_content") or ""), texts


def _stands(piece: str, text: str) -> bool:
    """As it is, or within JSON."""
    piece = piece.strip()
    return piece in text or any(json.dumps(piece, ensure_ascii=ascii)[1:-1] in text for ascii in (False, True))


def _arguments(message: Json) -> Iterator[Any]:
    for call in message.get("tool_calls") or ():
        yield inside(call, "function", "arguments") if "function" in call else inside(call, "arguments")


def _renamed(function: Json) -> Json:
    return {**function, "name": f"{function.get('name')}_"}


def _left(text: str, other: str) -> str:
    """What of a text stands after the beginning that it shares with the other; tags whole."""
    if other.startswith(text):
        return ""
    return text[_tag_before(text, common_length(text, other)) :]


def _torn(text: str, other: str) -> str:
    """What of the other stands after the beginning that it shares with a text, if that ends within a tag of the other."""
    at = common_length(text, other)
    return other[at:] if _tag_before(other, at) < at else ""


def common_length(text: str, other: str) -> int:
    """How many characters both begin with."""
    if other.startswith(text):
        return len(text)
    return next((at for at, (one, two) in enumerate(zip(text, other, strict=False)) if one != two), len(other))


def _tag_before(text: str, at: int) -> int:
    """Where the tag begins within which a place is; the place itself if it is in none."""
    begins = text.rfind("<", 0, at)
    tag = _TAG.match(text, begins) if begins >= 0 else None
    return begins if tag and tag.end() > at else at


_TAG = re.compile(r"<[^<>\s]{1,40}>")


def _cut(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:40]}...")
