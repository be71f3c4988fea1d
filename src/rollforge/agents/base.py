"""The Agent protocol: takes a model and a session through one attempt and returns the whole conversation."""

from __future__ import annotations

from typing import Protocol

from rollforge.envs.base import Session
from rollforge.models.base import Model
from rollforge.records.items import Response
from rollforge.records.task import Task


class Agent(Protocol):
    async def __call__(self, task: Task, model: Model, session: Session, /) -> Response:
        """All new items of the episode in `output`, usage summed over its model calls."""
        ...
