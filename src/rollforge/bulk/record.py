"""One row of a rollout file, decoded only as far as somebody asks.

`records.rows` reads a row whole and checks every part of it. Passes over gigabytes need a few fields of each: here the top
level is split into raw JSON, and what is asked for is decoded then. Both agree on every row (a test holds them together).

    line ─► a struct of raw JSON, of the keys that rows had so far ─► Record
              ├ another key: learned, from then on it is in the struct
              └ `eager`: the response is decoded in the same go, which costs half of doing it later
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import msgspec
import orjson

from rollforge.bulk.conversation import (
    MESSAGE_KEYS,
    Item,
    Turn,
    input_chat,
    is_chat,
    items_of,
    last_turn,
    output_chat,
    turn_of,
    turns,
)
from rollforge.errors import UserError
from rollforge.records.items import Json, check_params, cut_short, mapping, text_of
from rollforge.records.lossless import dumps, loads
from rollforge.records.messages import TEMPLATE, Dialect, messages
from rollforge.records.rollout import Outcome, Rollout
from rollforge.records.rows import (
    HOLDERS,
    SHADOWED,
    TRUTHS,
    agent_name,
    block_of,
    outcome_of,
    reward_of,
    rollout_from_row,
    told_of,
)

A = TypeVar("A")
T = TypeVar("T")

_NOTHING = msgspec.Raw()


class _Params(msgspec.Struct, gc=False):
    input: msgspec.Raw = _NOTHING
    instructions: str | None = None
    tools: msgspec.Raw = _NOTHING
    metadata: msgspec.Raw = _NOTHING
    ground_truth: msgspec.Raw = _NOTHING


class _About(msgspec.Struct, gc=False):
    """A response without its output, which is nearly all of it."""

    usage: Any = None
    incomplete_details: Any = None
    status: Any = None
    error: Any = None
    model: Any = None


class _Response(_About, gc=False):
    output: list[Item] | msgspec.UnsetType = msgspec.UNSET


class _Asked:
    """What a row was asked, and what was made of it; attempts at a task share it."""

    __slots__ = ("chats", "mark", "params", "truth")

    def __init__(self, params: _Params) -> None:
        self.params = params
        self.mark: tuple[bytes, str] | None = None
        self.truth: bytes | None = None
        self.chats: dict[int, tuple[Dialect, list[Json]]] = {}


_PARAMS = msgspec.json.Decoder(_Params | None)
_RESPONSE = msgspec.json.Decoder(_Response | None)
_ABOUT = msgspec.json.Decoder(_About | None)
_OUTPUT = msgspec.json.Decoder(list[Item])
_LOOSE = msgspec.json.Decoder(dict[str, msgspec.Raw] | None)
_SCORED = Outcome.SCORED
_OUTPUT_KEY = re.compile(b'"output"')
_NUMBERS = frozenset(b"-0123456789tf")
_OWN = {
    "responses_create_params": "params",
    "response": "response",
    "output": "output",
    "usage": "usage",
    "reward": "reward",
    "rollforge": "block",
}
"""Keys that the record itself stands for, and their attributes in a row's struct."""
_SMALL = ("reward", "block", "task_index", "index", "failure", "judge_error")
"""Attributes that are decoded with the row."""
_NAMED = {
    **_OWN,
    "agent_ref": "agent_ref",
    "_ng_task_index": "task_index",
    "_ng_rollout_index": "index",
    "_ng_failure_class": "failure",
    "_ng_failure_judge_error": "judge_error",
}
_MOST_KEYS = 200
_ESCAPED = re.compile(r'["\\\x00-\x1f]')
"""In a key that no field of a struct can be named."""
ANSWERS = (*TRUTHS, "answer", "target", "label")
"""Names under which rows carry the expected answer, the surest first: NeMo Gym's environments, verl
(`reward_model.ground_truth`), OpenRLHF (`label`), the usual public data sets."""


class _Keys:
    """The top-level keys that rows had so far. A struct of them is decoded in two thirds of a dict's time."""

    def __init__(self) -> None:
        self.names = dict(_NAMED)
        """Key -> attribute."""
        self.others: list[tuple[str, str]] = []
        """Of the row's own fields; not of what tools keep under "_"."""
        self.truths: tuple[str, ...] = ()
        """Those of `TRUTHS` and `HOLDERS` that any row had, in their order."""
        self._make()

    def read(self, line: bytes, eager: bool) -> tuple[Any, dict[str, msgspec.Raw] | None]:
        """The row; and all its keys, where the struct has no room for them."""
        if eager:
            try:
                return self._eager.decode(line), None
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                pass  # why is found out below
        try:
            return self._lazy.decode(line), None
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            every = _split(line)
        if self._learn(every):
            return self.read(line, eager)
        known = {name: every[key] for key, name in _NAMED.items() if key in every}
        return self._row(**{name: _loads(raw) if name in _SMALL else raw for name, raw in known.items()}), every

    def _learn(self, keys: Iterable[str]) -> bool:
        """Whether there was something new to know, and room for it."""
        new = [key for key in keys if key not in self.names and _ESCAPED.search(key) is None]
        if not new or len(self.names) + len(new) > _MOST_KEYS:
            return False
        for key in new:
            name = self.names[key] = f"key_{len(self.names)}"
            if key[:1] != "_":
                self.others.append((key, name))
        self.truths = tuple(key for key in (*TRUTHS, *HOLDERS) if key in self.names)
        self._make()
        return True

    def _make(self) -> None:
        rename = {name: key for key, name in self.names.items()}
        raw: dict[str, tuple[Any, Any]] = dict.fromkeys(rename, (msgspec.Raw, _NOTHING)) | dict.fromkeys(_SMALL, (Any, None))
        typed = {**raw, "response": (_Response | None, None)}
        self._row, whole = (
            msgspec.defstruct(
                "Row",
                [(name, *kind) for name, kind in fields.items()],
                rename=rename,
                forbid_unknown_fields=True,
                gc=False,
            )
            for fields in (raw, typed)
        )
        self._lazy, self._eager = msgspec.json.Decoder(self._row), msgspec.json.Decoder(whole)


_TOP = msgspec.json.Decoder(dict[str, msgspec.Raw])
_keys = _Keys()


class Record:
    """A usable row. Raises `UserError` saying what is wrong with it: when made, or when the broken part is asked for."""

    __slots__ = ("_asked", "_every", "_response", "_rollout", "_row", "block", "env", "line", "outcome", "reward")

    line: bytes
    """As it stands in the file, without the line end."""
    block: Json
    """The row's `rollforge` object; {} in other people's rows."""
    outcome: Outcome
    reward: float | None
    """A number exactly when `outcome.judged`."""
    env: str
    """The environment's name: the row's own, its agent's, else the one given by the source."""

    def __init__(self, line: bytes, env: str = "", *, eager: bool = False) -> None:
        """`eager`: the response's items will be asked for."""
        self.line = line
        self._row, self._every = _keys.read(line, eager)
        row = self._row
        response = row.response
        self._rollout: Rollout | None = None
        self._response: _Response | None = None
        if type(response) is _Response:
            self._response = response
            silent = response.output is msgspec.UNSET
        else:
            silent = _OUTPUT_KEY.search(response or b"") is None  # looks at the row itself, not at a copy
        params = bytes(row.params)
        asked = _asked.get(params)
        self._asked = self._ask(params or b"null") if asked is None else asked
        self.block = block = block_of(row.block) if row.block is not None else {}
        if block or row.failure is not None:
            failure = {"_ng_failure_class": row.failure, "_ng_failure_judge_error": row.judge_error}
            self.outcome, _ = outcome_of(failure, dict(block))
            judged = self.outcome.judged
        else:
            self.outcome, judged = _SCORED, True
        if judged:
            self.reward = reward_of(row.reward)
            if silent and not row.output and self.outcome is _SCORED:
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
    def named(self) -> bool:
        """Whether a run of ours named the task. A row from elsewhere that was written again has its number as a name."""
        task = self.block.get("task")
        return bool(task) and task != self.numbered

    @property
    def numbered(self) -> str:
        """NeMo Gym's index with its agent, as `group_of` has it; "" if there is none."""
        index, agent = self.task_index, self.agent
        return "" if index is None else f"{agent}:{index}" if agent else str(index)

    @property
    def task_index(self) -> int | None:
        """NeMo Gym's number of the task, within one collection."""
        index = self._row.task_index
        return index if type(index) is int else None

    @property
    def index(self) -> int | None:
        """Which repeat of the task this is."""
        index = self._row.index
        return index if type(index) is int else None

    @property
    def model(self) -> str | None:
        name = self.block.get("model") or self._about().model
        return name if isinstance(name, str) else None

    @property
    def prompt(self) -> bytes:
        """16 bytes that say which prompt this is: the roles, texts and calls of `instructions` and `input`, however they are
        written."""
        mark = self._asked.mark
        return self._prompt_of()[0] if mark is None else mark[0]

    @property
    def question(self) -> str:
        """The beginning of the last user message, 320 characters at most."""
        return self._prompt_of()[1]

    def _prompt_of(self) -> tuple[bytes, str]:
        asked = self._asked
        if asked.mark is None:
            chat = self.prompt_messages()
            question = next((message["content"] for message in reversed(chat) if message["role"] == "user"), "")
            mark = digest(dumps(list(map(_told, chat))))
            asked.mark = (mark, text_of(question)[:320])
        return asked.mark

    @property
    def task_key(self) -> tuple[str, str, bytes, bytes, bytes]:
        """What tells tasks apart: environment, name, prompt, tools, expected answer. `group` is its hash."""
        return self.env, self.task, self.prompt, self.offered, self._truth()

    @property
    def group(self) -> bytes:
        """16 bytes, the same for attempts at the same task of the same environment: over several files, too, in which task
        indices begin anew."""
        env, task, *asked = self.task_key
        key = b"\0".join((env.encode(), task.encode(), *asked))
        found = _groups.get(key)
        return _groups.keep(key, digest(key)) if found is None else found

    @property
    def offered(self) -> bytes:
        """16 bytes that say which tools are offered, in any order; b"" for none."""
        raw = bytes(self._asked.params.tools)
        mark = _tool_marks.get(raw)
        if mark is None:
            try:
                told = "\n".join(told_of(self.tools)).encode()
            except UserError:  # said to those who ask for the tools
                told = raw
            mark = _tool_marks.keep(raw, digest(told) if told else b"")
        return mark

    def _truth(self) -> bytes:
        """The expected answer as JSON, where a row that no run of ours named says it; b"" else."""
        if self.named:
            return b""
        for name in _keys.truths if self._every is None else (*TRUTHS, *HOLDERS):
            raw = bytes(self._raw(name) or b"null")
            if name in TRUTHS:
                if raw != b"null":
                    return _written(raw)
            elif truth := _held(raw):
                return truth
        asked = self._asked
        if asked.truth is None:
            params = asked.params
            asked.truth = _held(bytes(params.metadata)) or _written(bytes(params.ground_truth).removeprefix(b"null"))
        return asked.truth

    def expected(self) -> Iterator[tuple[str, Any]]:
        """(dotted name, value) of what the row calls its expected answer, the surest first."""
        yield from expected(self.field)
        params = self._asked.params
        within = {"metadata": _loads(params.metadata), "ground_truth": _loads(params.ground_truth)}
        yield from expected(within.get, "responses_create_params.")

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

    @property
    def answered(self) -> bool:
        """Whether the response is decoded: it was asked for, or `eager`."""
        return self._response is not None

    def response_turns(self) -> list[Turn]:
        """What `response_messages` writes as chat messages, for the template's dialect."""
        found = self._answer().output
        said = turns(found, TEMPLATE) if found else None
        return [turn_of(message) for message in self.response_messages()] if said is None else said

    def last_message(self, dialect: Dialect = TEMPLATE) -> Json | None:
        """The last of the assistant's in `response_messages`, without making the others. Raises what that raises, but for
        what is broken elsewhere in the row."""
        found = self._answer().output
        turn = last_turn(found) if found else None
        chat = output_chat(turn, dialect) if turn else None
        if chat is None:
            chat = self.response_messages(dialect)
        return next((message for message in reversed(chat) if message["role"] == "assistant"), None)

    def items(self) -> list[Item]:
        """The response's items, of each what `bulk.conversation` knows. Raises `UserError` for what is no list of items."""
        found = self._answer().output
        if found:
            for item in found:
                if item.name is None if item.type == "function_call" else not item.type and item.role is None:
                    break
                if item.role is not None and is_chat(item):
                    break
            else:
                return found
        return items_of(self.rollout.output)

    @property
    def tools(self) -> list[Json]:
        """The tools offered, flat (`{type, name, description, parameters, strict}`); nested ones become flat. Shared between
        rows: not to be changed."""
        raw = bytes(self._asked.params.tools or b"null")
        found = _tools.get(raw)
        if found is None:
            value = _loads(raw)
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
        return mapping(self._about().usage or _loads(self._row.usage))

    @property
    def size(self) -> int:
        """Bytes of the response as stored."""
        return len(bytes(self._raw("response") or self._row.output))

    @property
    def incomplete(self) -> str | None:
        """Why the response was cut short (`max_output_tokens`, `max_turns`, ...); None if it was not."""
        answer = self._about()
        return cut_short(answer.incomplete_details, answer.status)

    @property
    def failed(self) -> bool:
        """Whether the response says so: by an error, or the status failed or cancelled."""
        answer = self._about()
        return bool(answer.error) or answer.status in ("failed", "cancelled")

    def numbers(self) -> Iterator[tuple[str, float]]:
        """The row's own top-level fields that are numbers or booleans; not the reward, nor what tools keep under "_"."""
        row = self._row
        others = [(name, getattr(row, at, None)) for name, at in _keys.others] if self._every is None else self._fields()
        for name, raw in others:
            if raw:
                text = bytes(raw)
                if text[0] in _NUMBERS:
                    yield name, _loads(text)
        for name, value in self.block.get(SHADOWED, {}).items():
            if isinstance(value, (int, float)):
                yield name, value

    def __contains__(self, name: str) -> bool:
        return self._raw(name) is not None or name in self.block.get(SHADOWED, ())

    def field(self, name: str) -> Any:
        """A field of the row's top level; None if it is not there."""
        raw = self._raw(name)
        if raw is None:
            return self.block[SHADOWED].get(name) if SHADOWED in self.block else None
        return _loads(raw)

    def fields(self, but: Iterable[str] = ()) -> Json:
        """All fields that the record has no name for: the task's, the verdict's."""
        left_out = {*_OWN, *but}
        return {name: _loads(raw) for name, raw in _split(self.line).items() if name not in left_out}

    @property
    def rollout(self) -> Rollout:
        """The whole row, checked."""
        if self._rollout is None:
            self._rollout = rollout_from_row(_loads(self.line))
        return self._rollout

    @property
    def agent(self) -> str | None:
        """The name in `agent_ref`."""
        if self.block and "agent_ref" in self.block.get(SHADOWED, ()):
            return agent_name(self.block[SHADOWED])
        raw = bytes(self._row.agent_ref)
        if not raw:
            return None
        name = _agents.get(raw)
        if name is None:
            name = _agents.keep(raw, agent_name({"agent_ref": _loads(raw)}))
        return name

    def _raw(self, key: str) -> msgspec.Raw | None:
        """The JSON under a key of the top level."""
        every = self._every
        if every is None and (_NAMED.get(key) in _SMALL or (key == "response" and self._response is not None)):
            every = _split(self.line)  # decoded already
        if every is not None:
            return every.get(key)
        return getattr(self._row, _keys.names.get(key, ""), None) or None

    def _fields(self) -> Iterator[tuple[str, msgspec.Raw]]:
        return ((key, raw) for key, raw in (self._every or {}).items() if key not in _OWN and key[:1] != "_")

    def _about(self) -> _About:
        """What is known of the response beside its output."""
        if self._response is not None:
            return self._response
        try:
            return _ABOUT.decode(self._row.response or b"null") or _About()
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return self._answer()

    def _answer(self) -> _Response:
        """The response; without its output where that is unusual or missing."""
        if self._response is None:
            raw = self._row.response or b"null"
            try:
                found = _RESPONSE.decode(raw)
                if found is None:
                    found = _Response(output=_OUTPUT.decode(self._row.output or b"[]"))
            except (msgspec.MsgspecError, UnicodeDecodeError):
                found = self._loosely(raw)
            self._response = found
        return self._response

    def _loosely(self, raw: msgspec.Raw | bytes) -> _Response:
        try:
            fields = _LOOSE.decode(raw) or {}
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise self._problem(error) from None
        return _Response(**{name: _loads(fields[name]) for name in _About.__struct_fields__ if name in fields})

    def _problem(self, error: object) -> UserError:
        """What is wrong with the row in the words of `records.rows`."""
        try:
            rollout_from_row(_loads(self.line))
        except UserError as problem:
            return problem
        return UserError(f"the row cannot be read: {error}")


def _told(message: Json) -> list[Any]:
    """Role and content; of a message that calls tools the calls, without their ids, their arguments as values."""
    calls = [[call["function"]["name"], _argued(call["function"]["arguments"])] for call in message.get("tool_calls") or ()]
    return [message["role"], message["content"], *([calls] if calls else [])]


def _argued(text: str) -> str:
    try:
        return _written(text.strip().encode()).decode()
    except (UserError, ValueError):
        return text


def expected(get: Callable[[str], Any], at: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of what calls itself an expected answer, the surest first. `get`: a field of the row, or of an
    object in it that stands `at`."""
    places: list[tuple[str, Callable[[str], Any]]] = [(at, get)]
    places += [(f"{at}{name}.", held.get) for name in HOLDERS if isinstance(held := get(name), dict)]
    for name in ANSWERS:
        for place, look in places:
            value = look(name)
            if value is not None and value != "":
                yield place + name, value


def digest(content: bytes) -> bytes:
    """16 bytes of a hash that nobody makes collide by accident or on purpose."""
    return hashlib.blake2b(content, digest_size=16).digest()


def for_the_same(make: Callable[[A], T]) -> Callable[[A], T]:
    """Makes it once for the very same object: attempts at one task share prompt and tools, and stand together. What is made
    is shared as well: not to be changed."""
    last: list[tuple[A, T]] = []

    def made(of: A) -> T:
        if not last or last[0][0] is not of:
            last[:] = [(of, make(of))]
        return last[0][1]

    return made


class _Recent(dict[bytes, T]):
    """What was made of raw JSON. Repeats of a task stand near each other and share prompt, tools, agent: it is kept for them
    until the raw texts take up `most` bytes, each with `more` for what was made of it."""

    def __init__(self, most: int, more: int = 100) -> None:
        super().__init__()
        self._most, self._more = most, more
        self._size = 0

    def keep(self, raw: bytes, made: T) -> T:
        self._size += len(raw) + self._more
        if self._size > self._most:
            self.clear()
            self._size = len(raw)
        self[raw] = made
        return made


_groups = _Recent[bytes](1 << 20)
_asked = _Recent[_Asked](8 << 20, more=1000)
_tools = _Recent[list[Json]](2 << 20)
_tool_marks = _Recent[bytes](2 << 20)
_agents = _Recent[str | None](1 << 18)
_holders = _Recent[bytes](2 << 20)
_values = _Recent[bytes](2 << 20)


_SAID = frozenset(("tool_calls", "refusal", "reasoning_content", "reasoning"))
"""What only a model says."""


def _known(chat: list[Json]) -> list[Json]:
    """Of each message and tool call what trainers know."""
    for message in chat:
        for key in [key for key in message if key not in MESSAGE_KEYS]:
            del message[key]
        if message["role"] != "assistant":
            for key in _SAID.intersection(message):
                del message[key]
        elif calls := message.pop("tool_calls", None):
            message["tool_calls"] = [{key: call[key] for key in ("id", "type", "function")} for call in calls]
    return chat


def _split(line: bytes) -> dict[str, msgspec.Raw]:
    try:
        return _TOP.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        value = loads(line)  # says what is wrong
        if not isinstance(value, dict):
            raise UserError(f"the line is {type(value).__name__}, not an object") from None
        raise UserError(f"the row cannot be read: {error}") from None


def _loads(raw: msgspec.Raw | bytes | None) -> Any:
    if not raw:
        return None
    text = bytes(raw)
    try:
        # What `loads` adds to orjson is about numbers of 20 digits and texts nested 250 deep.
        return orjson.loads(text) if len(text) < 20 else loads(text)
    except ValueError as error:
        raise UserError(f"not JSON ({error})") from None


def _held(raw: bytes) -> bytes:
    """The expected answer in an object of the row, as JSON; b"" if there is none."""
    found = _holders.get(raw)
    if found is None:
        value = _loads(raw) if raw[:1] == b"{" else {}
        truth = next((value[name] for name in TRUTHS if value.get(name) is not None), None)
        found = _holders.keep(raw, b"" if truth is None else dumps(truth, sort_keys=True))
    return found


def _written(raw: bytes) -> bytes:
    """JSON, the same whoever wrote the value: the order of keys, spaces and escapes do not count."""
    if raw[:1] not in (b"{", b"[") and b"\\" not in raw:
        return raw
    found = _values.get(raw)
    return _values.keep(raw, dumps(_loads(raw), sort_keys=True)) if found is None else found


def _flat(tool: Json) -> Json:
    inner = tool.get("function")
    return {"type": "function", **inner} if tool.get("type") == "function" and isinstance(inner, dict) else tool
