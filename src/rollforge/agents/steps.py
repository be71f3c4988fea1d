"""The loop of an environment that is played by steps (NeMo Gym's gymnasium servers): it runs the tools itself.

input ──> model ──> session.step ──> outputs and observation ──> input
                        └──> terminated, truncated, too many turns or tokens ──> done
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from rollforge.agents.episode import Episode, shortened
from rollforge.envs.base import Step
from rollforge.errors import RolloutError
from rollforge.models.base import Model
from rollforge.records.items import Response, function_call_output, user
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
    episode = Episode(task, model)
    try:
        for _ in range(max_turns):
            new = await episode.ask()
            seen = await step({**episode.last, "output": new})
            episode.output += [function_call_output(call_id, shortened(text, max_chars)) for call_id, text in seen.outputs]
            if seen.observation:
                episode.output.append(user(shortened(seen.observation, max_chars)))
            if seen.terminated or seen.truncated:
                # A last answer that was cut off is no sign of an episode cut short, but the environment's word is.
                return episode.response("truncated" if seen.truncated and not seen.terminated else None)
            if episode.tokens >= max_total_tokens:
                return episode.response("max_total_tokens")
    except RolloutError as error:
        if episode.output:
            error.partial = episode.response("fault")
        raise
    return episode.response("max_turns")
