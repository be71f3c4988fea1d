"""How an attempt failed, in a few words, from what its row shows: the first that applies (docs/how-to/evaluate.md)."""

from __future__ import annotations

from typing import Any

import orjson

from rollforge.bulk.conversation import is_error, item_of
from rollforge.records.items import Item, final_text, tool_calls
from rollforge.records.rollout import Outcome, Rollout
from rollforge.stats.thresholds import EQUAL
from rollforge.stats.visible import one_line

CALLED = "tools called, wrong answer"
SAME_CALLS = "the tool calls of a solved attempt, wrong answer"
OTHER_CALLS = "other tool calls than the solved attempts"
"""`CALLED` becomes one of the two where some attempt at the task was solved with tools."""


def failure_mode(rollout: Rollout, success: float) -> str:
    """ "" for a success. Without a reward it begins with "no reward"."""
    failure = rollout.failure
    if rollout.reward is None:
        return one_line(f"no reward: {rollout.outcome} in {failure.stage if failure else '?'}", 60)
    if rollout.reward >= success - EQUAL:
        return ""
    if rollout.outcome is Outcome.POLICY_FAULT:
        return one_line(f"policy fault: {failure.type if failure else '?'}", 60)
    if rollout.incomplete:
        return one_line(f"cut off: {rollout.incomplete}", 60)
    if not final_text(rollout.response).strip():
        return "no reply"
    if rollout.fields.get("extracted_answer", ...) in (None, ""):
        return "no answer in the reply"
    if tool_errors(rollout.output):
        return "a tool call failed"
    if tool_calls(rollout.response):
        return CALLED
    if rollout.params.get("tools"):
        return "no tool called"
    return "partly right" if rollout.reward > EQUAL else "wrong answer"


def tool_errors(output: list[Item]) -> list[str]:
    """The tool outputs that are errors."""
    made = (item_of(item) for item in output if item.get("type") == "function_call_output")
    return [str(item.output) for item in made if is_error(item)]


def calls_mark(rollout: Rollout) -> int:
    """Equal for the same tool calls in the same order, within a process; 0 without any."""
    calls = tool_calls(rollout.response)
    return hash(tuple((call.get("name"), _arguments(call.get("arguments"))) for call in calls)) or 1 if calls else 0


def _arguments(value: Any) -> bytes:
    """As written in one way, if it is JSON: spaces and the order of keys mean nothing."""
    try:
        parsed = orjson.loads(value) if isinstance(value, str) else value
        return orjson.dumps(parsed, option=orjson.OPT_SORT_KEYS)
    except (orjson.JSONDecodeError, TypeError):
        return str(value).encode("utf-8", "replace")
