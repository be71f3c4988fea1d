"""The loop of an environment that is played by steps (NeMo Gym's gymnasium servers): it runs the tools itself.

input ──> model ──> session.step ──> outputs and observation ──> input
                        └──> terminated, truncated, too many turns or tokens ──> done
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from rollforge.agents.episode import answer_items, episode, generated, shortened
from rollforge.envs.base import Step
from rollforge.errors import RolloutError
from rollforge.models.base import Model, Request
from rollforge.records.items import Item, Response, Usage, add_usage, function_call_output, input_items, user
from rollforge.records.task import Task


async def step_loop(
    task: Task,
    model: Model,
    step: Callable[[Response], Awaitable[Step]],
    max_turns: int,
    max_total_tokens: int,
    max_chars: int,
) -> Response:
    """Response of the whole episode: what the model said, the outputs of its calls, and the observations as user messages.

    Raises what the model and the session raise, with the response so far as `partial`.
    """
    prompt = input_items(task.params)
    output: list[Item] = []
    usage: Usage | None = None
    last: Response = {}
    tokens = 0
    try:
        for _ in range(max_turns):
            answer = await model(Request({**task.params, "input": prompt + output}))
            new = answer_items(answer, len(output))
            last = answer
            output += new
            usage = add_usage(usage, last.get("usage"))
            tokens += generated(last, new)
            seen = await step({**answer, "output": new})
            output += [function_call_output(call_id, shortened(text, max_chars)) for call_id, text in seen.outputs]
            if seen.observation:
                output.append(user(shortened(seen.observation, max_chars)))
            if seen.terminated or seen.truncated:
                # A last answer that was cut off is no sign of an episode cut short, but the environment's word is.
                return episode(last, output, usage, "truncated" if seen.truncated and not seen.terminated else None)
            if tokens >= max_total_tokens:
                return episode(last, output, usage, "max_total_tokens")
    except RolloutError as error:
        if output:
            error.partial = episode(last, output, usage, "fault")
        raise
    return episode(last, output, usage, "max_turns")
