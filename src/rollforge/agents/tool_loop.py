"""The multi-turn tool loop: ask the model, run the tools it calls, tell it the results, until it replies.

input ──> model ──> message, no call ──────────────> done
             │
             ├──> function calls ──> session.call, in the order written ──> input
             ├──> reasoning only ──> ask again, at most `max_silent` times in a row
             └──> cut off, too many turns or tokens ──> done, marked incomplete

A session that runs the tools itself (it has `step`) is played by `steps`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from rollforge.agents.episode import Episode, shortened
from rollforge.agents.steps import step_loop
from rollforge.envs.base import Session, ToolCall, ToolOutput
from rollforge.envs.tools import error_text
from rollforge.errors import RolloutError
from rollforge.models.base import Model
from rollforge.records.items import Item, Response, function_call_output, item_type, tool_name
from rollforge.records.lossless import loads
from rollforge.records.task import Task


@dataclass(frozen=True, slots=True)
class ToolLoop:
    max_turns: int = 16
    """Model calls in one rollout."""
    max_total_tokens: int = 131_072
    """Generated tokens in one rollout, by the usage of its calls; by token ids or length of text where there is none."""
    max_silent: int = 3
    """Model calls in a row with neither a message nor a call (reasoning only)."""
    max_tool_chars: int = 65_536
    """Characters of one tool output that the model is shown; the rest is cut, and it is told so."""

    async def __call__(self, task: Task, model: Model, session: Session, /) -> Response:
        """Response of the whole episode; `incomplete_details.reason` says why it was cut, if it was.

        Only declared tools are called; anything else, and arguments that are no JSON object, is answered to the model.
        Raises what the model and the session raise, with the response so far as `partial`, and `InfraFault` for an answer
        that is none.
        """
        step = getattr(session, "step", None)
        if step is not None:
            return await step_loop(task, model, step, self.max_turns, self.max_total_tokens, self.max_tool_chars)
        declared = {tool_name(tool) for tool in task.params.get("tools") or [] if tool.get("type") == "function"}
        episode = Episode(task, model)
        silent = 0
        try:
            for _ in range(self.max_turns):
                new = await episode.ask()
                if episode.last.get("status") == "incomplete" or episode.last.get("incomplete_details"):
                    return episode.response()
                calls = [item for item in new if item.get("type") == "function_call"]
                for call in calls:
                    episode.output.append(await self.run_call(call, declared, session))
                if not calls and any(item_type(item) == "message" for item in new):
                    return episode.response()
                silent = 0 if calls else silent + 1
                if silent >= self.max_silent:
                    return episode.response("no_reply")
                if episode.tokens >= self.max_total_tokens:
                    return episode.response("max_total_tokens")
        except RolloutError as error:
            if episode.output:
                error.partial = episode.response("fault")
            raise
        return episode.response("max_turns")

    async def run_call(self, item: Item, declared: Collection[Any], session: Session, /) -> Item:
        """The output item of one function call: the tool's text, or what is wrong with the call."""
        call_id = item["call_id"]
        output = await call_tool(session, declared, item["name"], item.get("arguments"), call_id)
        return function_call_output(call_id, shortened(output.text, self.max_tool_chars))


async def call_tool(session: Session, declared: Collection[Any], name: str, arguments: Any, call_id: str = "") -> ToolOutput:
    """What a call of the policy gives, of the tools that it was told of: what is wrong with the call is an output too.
    `arguments` are an object or the JSON text of one; nothing is an empty one."""
    wrong, arguments = "", arguments or {}
    if name not in declared:
        known = ", ".join(sorted(str(tool) for tool in declared)) or "none"
        wrong = f"unknown tool {name!r}; the tools are: {known}"
    elif isinstance(arguments, str):
        try:
            arguments = loads(arguments)
        except (ValueError, RecursionError) as error:
            wrong = f"the arguments of {name} are not JSON: {error}"
    if not wrong and not isinstance(arguments, dict):
        wrong = f"the arguments of {name} are {type(arguments).__name__}, not an object"
    if wrong:
        return ToolOutput(error_text(wrong), error=True)
    return await session.call(ToolCall(name, arguments, call_id))
