"""One row of a rollout file, decoded only as far as somebody asks.

`records.rows` reads a row whole and checks every part of it. Passes over gigabytes need a few fields of each: here the top
level is split into raw JSON, and what is asked for is decoded then. Both agree on every row (a test holds them together).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import msgspec
import orjson

from rollforge.bulk.conversation import MESSAGE_KEYS, Item, input_chat, item_of, output_chat
from rollforge.errors import UserError
from rollforge.records.items import Json, check_params, text_of
from rollforge.records.lossless import dumps, loads
from rollforge.records.messages import TEMPLATE, Dialect, messages
from rollforge.records.rollout import Outcome, Rollout
from rollforge.records.rows import SHADOWED, agent_name, block_of, outcome_of, reward_of, rollout_from_row

T = TypeVar("T")

_NOTHING = msgspec.Raw()


class _Params(msgspec.Struct, gc=False):
    input: msgspec.Raw = _NOTHING
    instructions: str | None = None
    tools: msgspec.Raw = _NOTHING


class _Response(msgspec.Struct, gc=False):
    output: list[Item] | msgspec.UnsetType = msgspec.UNSET
    usage: msgspec.Raw = _NOTHING
    incomplete_details: msgspec.Raw = _NOTHING
    status: msgspec.Raw = _NOTHING
    model: msgspec.Raw = _NOTHING


class _About(msgspec.Struct, gc=False):
    """A response without its output, which is nearly all of it."""

    usage: msgspec.Raw = _NOTHING
    incomplete_details: msgspec.Raw = _NOTHING
    status: msgspec.Raw = _NOTHING
    model: msgspec.Raw = _NOTHING


class _Asked:
    """What a row was asked, and what was made of it; attempts at a task share it."""

    __slots__ = ("chats", "mark", "params")

    def __init__(self, params: _Params) -> None:
        self.params = params
        self.mark: tuple[bytes, str] | None = None
        self.chats: dict[int, tuple[Dialect, list[Json]]] = {}


_TOP = msgspec.json.Decoder(dict[str, msgspec.Raw])
_PARAMS = msgspec.json.Decoder(_Params | None)
_RESPONSE = msgspec.json.Decoder(_Response | None)
_ABOUT = msgspec.json.Decoder(_About | None)
_OUTPUT = msgspec.json.Decoder(list[Item])
_LOOSE = msgspec.json.Decoder(dict[str, msgspec.Raw] | None)
_OWN = frozenset(("responses_create_params", "response", "output", "usage", "reward", "rollforge"))
_SCORED = Outcome.SCORED
_NUMBERS = frozenset(b"-0123456789tf")


class Record:
    """A usable row. Raises `UserError` saying what is wrong with it: when made, or when the broken part is asked for."""

    __slots__ = ("_asked", "_response", "_rollout", "_top", "block", "env", "line", "outcome", "reward")

    line: bytes
    """As it stands in the file, without the line end."""
    block: Json
    """The row's `rollforge` object; {} in other people's rows."""
    outcome: Outcome
    reward: float | None
    """A number exactly when `outcome.judged`."""
    env: str
    """The environment's name: the row's own, its agent's, else the one given by the source."""

    def __init__(self, line: bytes, env: str = "") -> None:
        self.line = line
        self._top = top = _split(line)
        self._rollout: Rollout | None = None
        self._response: _Response | None = None
        params = bytes(top.get("responses_create_params", b"null"))
        asked = _asked.get(params)
        self._asked = self._ask(params) if asked is None else asked
        self.block = block = block_of(_loads(top["rollforge"])) if "rollforge" in top else {}
        if block or "_ng_failure_class" in top:
            names = ("_ng_failure_class", "_ng_failure_judge_error")
            self.outcome, _ = outcome_of({name: _loads(top.get(name)) for name in names}, dict(block))
            judged = self.outcome.judged
        else:
            self.outcome, judged = _SCORED, True
        if judged:
            text = bytes(top.get("reward", b"null"))
            reward = _rewards.get(text)
            self.reward = _reward(text) if reward is None else reward
            silent = b'"output"' not in bytes(top.get("response", b"null")) and "output" not in top
            if silent and self.outcome is _SCORED:
                raise self._problem("no response.output and no output")
        else:
            self.reward = None
        self.env = block.get("env") or self.agent or env

    def _ask(self, raw: bytes) -> _Asked:
        try:
            params = _PARAMS.decode(raw)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise self._problem(error) from None
        if params is None:
            raise UserError("no responses_create_params")
        if bytes(params.input) in (b"", b"null"):
            raise UserError("responses_create_params.input is missing")
        return _asked.keep(raw, _Asked(params))

    @property
    def task(self) -> str:
        """The row's name of its task: `rollforge.task`, else NeMo Gym's index; "" if it has neither."""
        if "task" in self.block:
            return str(self.block["task"])
        index = self.task_index
        return "" if index is None else str(index)

    @property
    def task_index(self) -> int | None:
        """NeMo Gym's number of the task, within one collection."""
        index = _loads(self._top.get("_ng_task_index"))
        return index if type(index) is int else None

    @property
    def index(self) -> int | None:
        """Which repeat of the task this is."""
        index = _loads(self._top.get("_ng_rollout_index"))
        return index if type(index) is int else None

    @property
    def model(self) -> str | None:
        name = self.block.get("model") or _loads(self._about().model)
        return name if isinstance(name, str) else None

    @property
    def prompt(self) -> bytes:
        """16 bytes that say which prompt this is: the roles and texts of `instructions` and `input`, however written."""
        return self._prompt_of()[0]

    @property
    def question(self) -> str:
        """The beginning of the last user message, 320 characters at most."""
        return self._prompt_of()[1]

    def _prompt_of(self) -> tuple[bytes, str]:
        asked = self._asked
        if asked.mark is None:
            chat = self.prompt_messages()
            question = next((message["content"] for message in reversed(chat) if message["role"] == "user"), "")
            mark = digest(dumps([[message["role"], message["content"]] for message in chat]))
            asked.mark = (mark, text_of(question)[:320])
        return asked.mark

    @property
    def group(self) -> bytes:
        """16 bytes, the same for attempts at the same task of the same environment: over several files, too, in which task
        indices begin anew."""
        return digest(b"\0".join((self.env.encode(), self.task.encode(), self.prompt)))

    def prompt_messages(self, dialect: Dialect = TEMPLATE) -> list[Json]:
        """The prompt as chat messages, `instructions` leading. Shared between rows: not to be changed."""
        chats = self._asked.chats
        known = chats.get(id(dialect))
        if known is not None and known[0] is dialect:
            return known[1]
        params = self._asked.params
        found = input_chat(params.input, dialect)
        if found is None:
            found = _known(messages(self.params, (), dialect))
        elif params.instructions:
            found = [{"role": "system", "content": params.instructions}, *found]
        chats[id(dialect)] = (dialect, found)
        return found

    def response_messages(self, dialect: Dialect = TEMPLATE) -> list[Json]:
        """What followed the prompt as chat messages. Raises `UserError` for items that chat messages cannot hold."""
        found = self._answer().output
        chat = output_chat(found, dialect) if found else None
        return _known(messages({}, self.rollout.output, dialect)) if chat is None else chat

    def items(self) -> list[Item]:
        """The response's items, of each what `bulk.conversation` knows. Raises `UserError` for what is no list of items."""
        found = self._answer().output
        if found:
            for item in found:
                if item.name is None if item.type == "function_call" else not item.type and item.role is None:
                    break
            else:
                return found
        return [item_of(item) for item in self.rollout.output]

    @property
    def tools(self) -> list[Json]:
        """The tools offered, flat (`{type, name, description, parameters, strict}`); nested ones become flat. Shared between
        rows: not to be changed."""
        raw = bytes(self._asked.params.tools or b"null")
        found = _tools.get(raw)
        if found is None:
            value = loads(raw)
            if not (value is None or (isinstance(value, list) and all(isinstance(tool, dict) for tool in value))):
                raise UserError("responses_create_params.tools is not a list of tools")
            found = _tools.keep(raw, [_flat(tool) for tool in value or []])
        return found

    @property
    def params(self) -> Json:
        """`responses_create_params`, decoded and checked."""
        params: Json = self.field("responses_create_params")
        problem = check_params(params)
        if problem:
            raise UserError(f"responses_create_params.{problem}")
        return params

    @property
    def usage(self) -> Json:
        """Token counts of the response; {} if unknown."""
        raw = self._about().usage or self._top.get("usage")
        usage = orjson.loads(bytes(raw)) if raw else None
        return usage if isinstance(usage, dict) else {}

    @property
    def size(self) -> int:
        """Bytes of the response as stored."""
        return len(bytes(self._top.get("response") or self._top.get("output") or b""))

    @property
    def incomplete(self) -> str | None:
        """Why the response was cut short (`max_output_tokens`, `max_turns`, ...); None if it was not."""
        answer = self._about()
        details = _loads(answer.incomplete_details)
        if details:
            return str(details.get("reason") or "unknown") if isinstance(details, dict) else str(details)
        return "unknown" if bytes(answer.status) == b'"incomplete"' else None

    def numbers(self) -> Iterator[tuple[str, float]]:
        """The row's own top-level fields that are numbers or booleans; not the reward, nor what tools keep under "_"."""
        for name, raw in self._top.items():
            if name not in _OWN and name[:1] != "_":
                text = bytes(raw)
                if text[0] in _NUMBERS:
                    yield name, orjson.loads(text)
        for name, value in self.block.get(SHADOWED, {}).items():
            if isinstance(value, (int, float)):
                yield name, value

    def __contains__(self, name: str) -> bool:
        return name in self._top or name in self.block.get(SHADOWED, ())

    def field(self, name: str) -> Any:
        """A field of the row's top level; None if it is not there."""
        raw = self._top.get(name)
        if raw is None:
            return self.block[SHADOWED].get(name) if SHADOWED in self.block else None
        return _loads(raw)

    def fields(self, but: Iterable[str] = ()) -> Json:
        """All fields that the record has no name for: the task's, the verdict's."""
        left_out = {*_OWN, *but}
        return {name: _loads(raw) for name, raw in self._top.items() if name not in left_out}

    @property
    def rollout(self) -> Rollout:
        """The whole row, checked."""
        if self._rollout is None:
            self._rollout = rollout_from_row(loads(self.line))
        return self._rollout

    @property
    def agent(self) -> str | None:
        """The name in `agent_ref`."""
        if self.block and "agent_ref" in self.block.get(SHADOWED, ()):
            return agent_name(self.block[SHADOWED])
        raw = bytes(self._top.get("agent_ref", b""))
        if not raw:
            return None
        name = _agents.get(raw)
        if name is None:
            name = _agents.keep(raw, agent_name({"agent_ref": loads(raw)}))
        return name

    def _about(self) -> _Response | _About:
        """What is known of the response beside its output."""
        if self._response is not None:
            return self._response
        try:
            return _ABOUT.decode(self._top.get("response", b"null")) or _About()
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return self._answer()

    def _answer(self) -> _Response:
        """The response; without its output where that is unusual or missing."""
        if self._response is None:
            raw = self._top.get("response", b"null")
            try:
                found = _RESPONSE.decode(raw)
                if found is None:
                    found = _Response(output=_OUTPUT.decode(self._top.get("output", b"[]")))
            except (msgspec.MsgspecError, UnicodeDecodeError):
                found = self._loosely(raw)
            self._response = found
        return self._response

    def _loosely(self, raw: msgspec.Raw | bytes) -> _Response:
        try:
            fields = _LOOSE.decode(raw) or {}
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise self._problem(error) from None
        names = ("usage", "incomplete_details", "status", "model")
        return _Response(**{name: fields[name] for name in names if name in fields})

    def _problem(self, error: object) -> UserError:
        """What is wrong with the row in the words of `records.rows`."""
        try:
            rollout_from_row(loads(self.line))
        except UserError as problem:
            return problem
        return UserError(f"the row cannot be read: {error}")


def digest(content: bytes) -> bytes:
    """16 bytes of a hash that nobody makes collide by accident or on purpose."""
    return hashlib.blake2b(content, digest_size=16).digest()


class _Recent(dict[bytes, T]):
    """What was made of raw JSON. Repeats of a task stand near each other and share prompt, tools, agent: it is kept for them
    until the raw texts take up `most` bytes."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most
        self._size = 0

    def keep(self, raw: bytes, made: T) -> T:
        self._size += len(raw) + 100
        if self._size > self._most:
            self.clear()
            self._size = len(raw)
        self[raw] = made
        return made


_asked = _Recent[_Asked](8 << 20)
_tools = _Recent[list[Json]](2 << 20)
_agents = _Recent[str | None](1 << 18)
_rewards = _Recent[float](1 << 18)


def _reward(text: bytes) -> float:
    return _rewards.keep(text, reward_of(loads(text)))


def _known(chat: list[Json]) -> list[Json]:
    """Of each message and tool call what trainers know."""
    for message in chat:
        for key in [key for key in message if key not in MESSAGE_KEYS]:
            del message[key]
        if "tool_calls" in message:
            message["tool_calls"] = [
                {key: call[key] for key in ("id", "type", "function")} for call in message["tool_calls"]
            ]
    return chat


def _split(line: bytes) -> dict[str, msgspec.Raw]:
    try:
        return _TOP.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        value = loads(line)  # says what is wrong
        if not isinstance(value, dict):
            raise UserError(f"the line is {type(value).__name__}, not an object") from None
        raise UserError(f"the row cannot be read: {error}") from None


def _loads(raw: msgspec.Raw | None) -> Any:
    if not raw:
        return None
    text = bytes(raw)
    # What `loads` adds to orjson is about numbers of 20 digits and texts nested 250 deep.
    return orjson.loads(text) if len(text) < 20 else loads(text)


def _flat(tool: Json) -> Json:
    inner = tool.get("function")
    return {"type": "function", **inner} if tool.get("type") == "function" and isinstance(inner, dict) else tool
