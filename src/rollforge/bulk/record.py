"""One row of a rollout file, decoded only as far as somebody asks.

`records.rows` reads a row whole and checks every part of it. Passes over gigabytes need a few fields of each: here the top
level is split into raw JSON, and what is asked for is decoded then. Both agree on every row (a test holds them together).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import msgspec

from rollforge.bulk.conversation import input_chat, output_chat
from rollforge.errors import UserError
from rollforge.records.items import Json, check_params
from rollforge.records.lossless import dumps, loads
from rollforge.records.messages import TEMPLATE, Dialect, messages
from rollforge.records.rollout import Outcome, Rollout
from rollforge.records.rows import SHADOWED, agent_name, block_of, outcome_of, reward_of, rollout_from_row

_NOTHING = msgspec.Raw()


class _Params(msgspec.Struct, gc=False):
    input: msgspec.Raw = _NOTHING
    instructions: str | None = None
    tools: msgspec.Raw = _NOTHING


class _Response(msgspec.Struct, gc=False):
    output: msgspec.Raw = _NOTHING
    usage: msgspec.Raw = _NOTHING
    incomplete_details: msgspec.Raw = _NOTHING
    model: msgspec.Raw = _NOTHING


class _Row(msgspec.Struct, gc=False):
    """The fields that every pass reads; one scan of the line finds them all."""

    responses_create_params: _Params | None = None
    response: _Response | None = None
    output: msgspec.Raw = _NOTHING
    usage: msgspec.Raw = _NOTHING
    reward: msgspec.Raw = _NOTHING
    rollforge: msgspec.Raw = _NOTHING
    agent_ref: msgspec.Raw = _NOTHING
    task_index: msgspec.Raw = msgspec.field(default=_NOTHING, name="_ng_task_index")
    index: msgspec.Raw = msgspec.field(default=_NOTHING, name="_ng_rollout_index")
    failure: msgspec.Raw = msgspec.field(default=_NOTHING, name="_ng_failure_class")
    judge_error: msgspec.Raw = msgspec.field(default=_NOTHING, name="_ng_failure_judge_error")


_ROW = msgspec.json.Decoder(_Row)
_TOP = msgspec.json.Decoder(dict[str, msgspec.Raw])
_OWN = frozenset(("responses_create_params", "response", "output", "usage", "reward", "rollforge"))


class Record:
    """A usable row. Raises `UserError` saying what is wrong with it: when made, or when the broken part is asked for."""

    __slots__ = ("_params", "_prompt", "_rollout", "_row", "_top", "block", "env", "line", "outcome", "reward")

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
        self._row = row = _split(line)
        self._top: dict[str, msgspec.Raw] | None = None
        self._rollout: Rollout | None = None
        self._prompt: bytes | None = None
        params = row.responses_create_params
        if params is None:
            raise UserError("no responses_create_params")
        if not params.input or params.input == b"null":
            raise UserError("responses_create_params.input is missing")
        self._params = params
        self.block = block = block_of(_loads(row.rollforge)) if row.rollforge else {}
        head: Json = {"agent_ref": _loads(row.agent_ref)} if row.agent_ref else {}
        if row.failure:
            head |= {"_ng_failure_class": _loads(row.failure), "_ng_failure_judge_error": _loads(row.judge_error)}
        self.outcome, _ = outcome_of(head, dict(block))
        self.reward = reward_of(_loads(row.reward)) if self.outcome.judged else None
        if self.outcome.judged:
            self._output()
        self.env = block.get("env") or agent_name(head | block.get(SHADOWED, {})) or env

    @property
    def task(self) -> str:
        """The row's name of its task: `rollforge.task`, else NeMo Gym's index; "" if it has neither."""
        index = _loads(self._row.task_index)
        return self.block.get("task") or (str(index) if type(index) is int else "")

    @property
    def index(self) -> int | None:
        """Which repeat of the task this is."""
        index = _loads(self._row.index)
        return index if type(index) is int else None

    @property
    def model(self) -> str | None:
        name = self.block.get("model") or (_loads(self._row.response.model) if self._row.response else None)
        return name if isinstance(name, str) else None

    @property
    def prompt(self) -> bytes:
        """16 bytes that say which prompt this is: the roles and texts of `instructions` and `input`, however written."""
        if self._prompt is None:
            key = (bytes(self._params.input), self._params.instructions)
            found = _prompts.get(key)
            if found is None:
                if len(_prompts) >= 2048:
                    _prompts.clear()
                found = _prompts[key] = digest(dumps([[m.get("role"), m.get("content")] for m in self.prompt_messages()]))
            self._prompt = found
        return self._prompt

    @property
    def group(self) -> bytes:
        """16 bytes, the same for attempts at the same task of the same environment: over several files, too, in which task
        indices begin anew."""
        return digest(b"\0".join((self.env.encode(), self.task.encode(), self.prompt)))

    def prompt_messages(self, dialect: Dialect = TEMPLATE) -> list[Json]:
        """The prompt as chat messages, `instructions` leading."""
        found = input_chat(self._params.input, dialect)
        if found is None:
            return messages(self.params, (), dialect)
        instructions = self._params.instructions
        return [{"role": "system", "content": instructions}, *found] if instructions else found

    def response_messages(self, dialect: Dialect = TEMPLATE) -> list[Json]:
        """What followed the prompt as chat messages. Raises `UserError` for items that chat messages cannot hold."""
        raw = self._output()
        if not raw:
            return []
        found = output_chat(raw, dialect)
        return messages({}, self.rollout.output, dialect) if found is None else found

    @property
    def tools(self) -> list[Json]:
        """The tools offered, flat (`{type, name, description, parameters, strict}`); nested ones become flat. Shared between
        rows: not to be changed."""
        raw = bytes(self._params.tools or b"null")
        found = _tools.get(raw)
        if found is None:
            value = loads(raw)
            if not (value is None or (isinstance(value, list) and all(isinstance(tool, dict) for tool in value))):
                raise UserError("responses_create_params.tools is not a list of tools")
            if len(_tools) >= 256:
                _tools.clear()
            found = _tools[raw] = [_flat(tool) for tool in value or []]
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
        usage = _loads((self._row.response and self._row.response.usage) or self._row.usage)
        return usage if isinstance(usage, dict) else {}

    @property
    def incomplete(self) -> str | None:
        """Why the response was cut short (`max_output_tokens`, `max_turns`, ...); None if it was not."""
        details = _loads(self._row.response.incomplete_details) if self._row.response else None
        return str(details.get("reason") or "incomplete") if isinstance(details, dict) else None

    def field(self, name: str) -> Any:
        """A field of the row's top level; None if it is not there."""
        raw = self._fields.get(name)
        if raw is None:
            return self.block[SHADOWED].get(name) if SHADOWED in self.block else None
        return _loads(raw)

    def fields(self, but: Iterable[str] = ()) -> Json:
        """All fields that the record has no name for: the task's, the verdict's."""
        left_out = {*_OWN, *but}
        return {name: _loads(raw) for name, raw in self._fields.items() if name not in left_out}

    @property
    def rollout(self) -> Rollout:
        """The whole row, checked."""
        if self._rollout is None:
            self._rollout = rollout_from_row(loads(self.line))
        return self._rollout

    @property
    def _fields(self) -> dict[str, msgspec.Raw]:
        if self._top is None:
            self._top = _TOP.decode(self.line)
        return self._top

    def _output(self) -> msgspec.Raw:
        """Empty for an attempt that failed before its first answer."""
        response = self._row.response
        raw = self._row.output if response is None else response.output
        if raw and raw != b"null":
            return raw
        if self.outcome.judged:
            raise UserError("no response.output and no output" if response is None else "response has no output")
        return _NOTHING


def digest(content: bytes) -> bytes:
    """16 bytes of a hash that nobody makes collide by accident or on purpose."""
    return hashlib.blake2b(content, digest_size=16).digest()


_prompts: dict[tuple[bytes, str | None], bytes] = {}
_tools: dict[bytes, list[Json]] = {}
# Repeats of a task stand near each other and share prompt and tools: what was made of them is kept for a while.


def _split(line: bytes) -> _Row:
    try:
        return _ROW.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        value = loads(line)
        if not isinstance(value, dict):
            raise UserError(f"the line is {type(value).__name__}, not an object") from None
        rollout_from_row(value)  # says what is wrong
        raise UserError(f"the row cannot be read: {error}") from None


def _loads(raw: msgspec.Raw | None) -> Any:
    return loads(bytes(raw)) if raw else None


def _flat(tool: Json) -> Json:
    inner = tool.get("function")
    return {"type": "function", **inner} if tool.get("type") == "function" and isinstance(inner, dict) else tool
