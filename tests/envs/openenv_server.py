"""A server of the package `openenv-core`: guess a number; with `calls`, through MCP tools. Run as a program: port, kind."""

from __future__ import annotations

import sys
from typing import Any

import uvicorn
from openenv.core.env_server import Action, Environment, Observation, State, create_fastapi_app
from pydantic import Field


class Guess(Action):  # type: ignore[misc]
    number: int = Field(description="From 1 to 9.")


class Seen(Observation):  # type: ignore[misc]
    message: str = ""


class GuessEnv(Environment):  # type: ignore[misc]
    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self) -> None:
        super().__init__()
        self.number = self.steps = 0

    def reset(self, seed: int | None = None, episode_id: str | None = None, low: int = 1, **kwargs: Any) -> Seen:
        self.number, self.steps = low + (seed or 0) % 9, 0
        return Seen(message=f"A number from {low} up?")

    def step(self, action: Guess, timeout_s: float | None = None, **kwargs: Any) -> Seen:
        self.steps += 1
        if action.number == 13:
            raise ValueError("unlucky")
        if action.number == self.number:
            return Seen(message="right", reward=1.0, done=True)
        return Seen(message="higher" if action.number < self.number else "lower", reward=-0.25)

    @property
    def state(self) -> State:
        return State(step_count=self.steps)


def calls_app() -> Any:
    from fastmcp import FastMCP
    from openenv.core.env_server.mcp_environment import MCPEnvironment
    from openenv.core.env_server.mcp_types import CallToolAction, CallToolObservation

    class Shouting(MCPEnvironment):  # type: ignore[misc]
        def __init__(self) -> None:
            server = FastMCP("shouting")

            @server.tool
            def shout(text: str) -> str:
                """Say it louder."""
                if not text:
                    raise ValueError("nothing to say")
                return text.upper()

            super().__init__(server)

        def reset(self, seed: int | None = None, episode_id: str | None = None, **kwargs: Any) -> Observation:
            return Observation(done=False)

        def _step_impl(self, action: Any, timeout_s: float | None = None, **kwargs: Any) -> Observation:
            raise ValueError("only tools")

        @property
        def state(self) -> State:
            return State()

    return create_fastapi_app(Shouting, CallToolAction, CallToolObservation)


if __name__ == "__main__":
    made = calls_app() if sys.argv[2] == "calls" else create_fastapi_app(GuessEnv, Guess, Seen, max_concurrent_envs=2)
    uvicorn.run(made, port=int(sys.argv[1]), log_level="warning")
