"""Records with which an agent describes its own course. They are accepted and passed on; nothing here reads them."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from ._items import NeMoGymResponse, Open


class ModelCallRef(Open): ...


class TrajectoryTurn(Open): ...


class AgentInvocation(Open):
    conversation: list[Any] = Field(default_factory=list)
    model_calls: list[ModelCallRef] = Field(default_factory=list)


class ToolCallObservation(Open): ...


class TrajectoryToolCall(ToolCallObservation): ...


class ContextCompactionObservation(Open): ...


class ObservationGap(Open):
    code: str


class AgentObservationBundle(Open):
    source: str
    records: list[Any] = Field(default_factory=list)
    gaps: list[ObservationGap] = Field(default_factory=list)


class TrajectoryRecord(Open):
    task_id: str
    rollout_id: str
    invocations: list[AgentInvocation] = Field(default_factory=list)
    turns: list[TrajectoryTurn] = Field(default_factory=list)
    tool_calls: list[TrajectoryToolCall] = Field(default_factory=list)
    gaps: list[ObservationGap] = Field(default_factory=list)


class AgentEpisode(Open):
    response: NeMoGymResponse
    observations: AgentObservationBundle
