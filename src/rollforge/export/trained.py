"""A row as the model reads it, and what of it a trainer trains on: the loss is taken there, and nowhere else.

Each function does what a framework does with the chat template, in texts instead of tokens; `export.rendered` says what goes
wrong on the way, and where in the frameworks' sources it stands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeAlias

from rollforge.export.rendered import Cut, View, Where, added, alone_at, answers, common_length, groups, problems, talks
from rollforge.export.target import Part, Rendering
from rollforge.models.template import ChatTemplate
from rollforge.records.items import Json

Parts: TypeAlias = Callable[[View], Iterator[Part]]


def rendering(cut: Cut, parts: Parts, **where: Any) -> Rendering:
    """Of a function of `export.rendered` and one of this module; `where`: as of `Where`."""
    place = Where(**where)
    return Rendering(partial(problems, cut=cut, where=place), partial(_trained, parts=parts, where=place))


def _trained(template: ChatTemplate, row: Json, *, parts: Parts, where: Where) -> dict[str, list[Part]]:
    return {talk.name: [part for part in parts(View(talk, template)) if part.text] for talk in talks(row, where)}


def prompt(view: View) -> Iterator[Part]:
    """What attempts begin with."""
    view = view.given(None)
    yield Part(view.first(view.talk.prompt or len(view.messages), generation=True), False)


def everything(view: View) -> Iterator[Part]:
    """TRL's SFT on conversations."""
    yield Part(view.whole, True)


def after_common(view: View) -> Iterator[Part]:
    """TRL: what the prompt with the opening of an answer and the whole do not share."""
    shared = common_length(view.first(view.talk.prompt, generation=True), view.whole)
    yield Part(view.whole[:shared], False)
    yield Part(view.whole[shared:], True)


def by_message(view: View) -> Iterator[Part]:
    """NeMo RL: the assistant's messages; of pairs the last message."""
    view = view.given(None) if view.talk.prompt else view
    before, count = "", len(view.messages)
    for number, message in enumerate(view.messages, 1):
        text = view.first(number)
        learned = number == count if view.talk.prompt else message["role"] == "assistant"
        yield Part(text[common_length(before, text) :], learned)
        before = text


def by_lengths(view: View) -> Iterator[Part]:
    """OpenRLHF: answers stand where the beginnings of the conversation end."""
    view = view.given(None)
    spans = [
        (len(view.first(start, generation=True)), common_length(view.first(end), view.whole)) for start, end in answers(view)
    ]
    opened = view.first(view.talk.prompt or len(view.messages) - 1, generation=True)
    text, at = (opened + view.whole[len(opened) :]).rstrip("\n"), 0
    if not text.endswith(view.template.eos):
        text += f" {view.template.eos}"
    for start, end in spans:
        yield Part(text[at:start], False)
        yield Part(text[max(at, start) : end], True)
        at = max(at, end)
    yield Part(text[at:], False)


def one_by_one(view: View) -> Iterator[Part]:
    """verl: the assistant's messages after the opening of an answer."""
    view = view.given(view.talk.tools or None)
    opening = len(added(view.template)[1])
    for start, end in groups(view.messages):
        text = alone_at(view, start, end)
        learned = view.messages[start]["role"] == "assistant"
        yield Part(text[:opening] if learned else text, False)
        yield Part(text[opening:] if learned else "", True)
