"""The multi-turn tool loop: ask the model, run the tools it calls, tell it the results, until it replies.

input ──> model ──> message, no call ──────────────> done
             │
             ├──> function calls ──> session.call, in the order written ──> input
             ├──> reasoning only ──> ask again, at most `max_silent` times in a row
             └──> cut off, too many turns or tokens ──> done, marked incomplete
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import orjson

from rollforge.envs.base import Session, ToolCall
from rollforge.envs.tools import error_text
from rollforge.errors import RolloutError
from rollforge.models.base import Model, Request
from rollforge.records.items import Item, Response, Usage, add_usage, function_call_output, input_items, item_type
from rollforge.records.task import Task


@dataclass(frozen=True, slots=True)
class ToolLoop:
    max_turns: int = 16
    """Model calls in one rollout."""
    max_total_tokens: int = 131_072
    """Generated tokens in one rollout, as the usage of its calls reports them."""
    max_silent: int = 3
    """Model calls in a row with neither a message nor a call (reasoning only)."""
    max_tool_chars: int = 65_536
    """Characters of one tool output that the model is shown; the rest is cut, and it is told so."""

    async def __call__(self, task: Task, model: Model, session: Session, /) -> Response:
        """Response of the whole episode; `incomplete_details.reason` says why it was cut, if it was.

        Only declared tools are called; anything else, and arguments that are no JSON object, is answered to the model.
        Raises what the model and the session raise, with the response so far as `partial`.
        """
        prompt = input_items(task.params)
        declared = {tool.get("name") for tool in task.params.get("tools") or [] if tool.get("type") == "function"}
        output: list[Item] = []
        usage: Usage | None = None
        last: Response = {}
        silent = 0
        try:
            for _ in range(self.max_turns):
                last = await model(Request({**task.params, "input": prompt + output}))
                usage = add_usage(usage, last.get("usage"))
                new = last.get("output") or []
                output += new
                if last.get("status") == "incomplete" or last.get("incomplete_details"):
                    return _episode(last, output, usage, None)
                calls = [item for item in new if item.get("type") == "function_call"]
                for call in calls:
                    output.append(await self._run(call, declared, session))
                if not calls and any(item_type(item) == "message" for item in new):
                    return _episode(last, output, usage, None)
                silent = 0 if calls else silent + 1
                if silent >= self.max_silent:
                    return _episode(last, output, usage, "no_reply")
                if usage and usage.get("output_tokens", 0) >= self.max_total_tokens:
                    return _episode(last, output, usage, "max_total_tokens")
        except RolloutError as error:
            if output:
                error.partial = _episode(last, output, usage, "fault")
            raise
        return _episode(last, output, usage, "max_turns")

    async def _run(self, item: Item, declared: Collection[Any], session: Session) -> Item:
        name = item["name"]
        call_id: str = item.setdefault("call_id", item.get("id") or name)
        if name not in declared:
            known = ", ".join(sorted(str(tool) for tool in declared)) or "none"
            return function_call_output(call_id, error_text(f"unknown tool {name!r}; the tools are: {known}"))
        try:
            arguments = orjson.loads(item.get("arguments") or b"{}")
        except orjson.JSONDecodeError as error:
            return function_call_output(call_id, error_text(f"the arguments of {name} are not JSON: {error}"))
        if not isinstance(arguments, dict):
            what = f"the arguments of {name} are {type(arguments).__name__}, not an object"
            return function_call_output(call_id, error_text(what))
        text = (await session.call(ToolCall(name, arguments, call_id))).text
        if len(text) > self.max_tool_chars:
            text = f"{text[: self.max_tool_chars]}\n[cut: {len(text)} characters, {self.max_tool_chars} shown]"
        return function_call_output(call_id, text)


def _episode(last: Response, output: list[Item], usage: Usage | None, reason: str | None) -> Response:
    response: Response = {**last, "output": output, "usage": usage}
    if reason is not None:
        response["status"], response["incomplete_details"] = "incomplete", {"reason": reason}
    return response
