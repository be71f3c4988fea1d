"""What trainers learn from, before any framework's format: a prompt, a demonstration, a pair, a judged completion.

Messages are chat messages in one shape, whatever the row looked like. `content` is always there: a string; a list of
parts only where there is more than text. Tool calls are `{id, type: "function", function: {name, arguments: object}}`,
with ids that their `tool` messages repeat. Developer turns are system turns (chat templates know no other). Reasoning
stands where the option put it. Tools are nested: `{type: "function", function: {name, description, parameters}}`. A
framework's module brings them into its own shape.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from rollforge.records.items import Json


@dataclass(slots=True)
class Origin:
    """Where an example comes from: lineage, and what formats may carry along."""

    id: str
    """Of the rollout: `<task>-<repeat>` where the row says so, else the place."""
    source: int
    at: int
    env: str
    task: str
    reward: float
    model: str | None = None


@dataclass(slots=True)
class Prompt:
    """A task to be attempted anew by the trainer's own policy; one per task."""

    origin: Origin
    """Of the task's first rollout."""
    messages: list[Json]
    tools: list[Json]
    answer: str | None
    """The expected answer as text, if the row carries one."""
    params: Json
    """`responses_create_params` as stored, for live training."""
    fields: Json = field(default_factory=dict)
    """The task's own top-level fields (`export.make.task_fields`), `agent_ref`."""
    output: str = ""
    """The final text of the first rollout."""
    lacking: str = ""
    """Why there is no answer, with what mends it."""
    task_id: str = ""
    """Of the task, where a run of ours told it."""
    not_chat: str = ""
    """Why no chat template takes its messages: they show the length only, of a row that holds the task as it is stored."""

    @property
    def named_fields(self) -> Json:
        """The fields with the task's id: what an environment draws by the task's `seed` follows from it, and the prompt may
        hold what was shown of that, so whoever plays or judges the row has to draw the same."""
        return {"task_id": self.task_id, **self.fields} if self.task_id else self.fields


@dataclass(slots=True)
class Demonstration:
    """A conversation worth imitating."""

    origin: Origin
    prompt: list[Json]
    completion: list[Json]
    """Assistant and tool messages; the last is the assistant's."""
    tools: list[Json]


@dataclass(slots=True)
class Pair:
    chosen_from: Origin
    rejected_from: Origin
    prompt: list[Json]
    chosen: list[Json]
    rejected: list[Json]
    tools: list[Json]

    @property
    def margin(self) -> float:
        return self.chosen_from.reward - self.rejected_from.reward


@dataclass(slots=True)
class Judged:
    """One completion and whether it is desirable (KTO)."""

    origin: Origin
    prompt: list[Json]
    completion: list[Json]
    tools: list[Json]
    label: bool
    answer: str | None = None
    """The expected answer as text; filled, as `fields` are, where a kind wants `every` rollout."""
    fields: Json = field(default_factory=dict)
    """The row's other top-level fields."""


Example: TypeAlias = Prompt | Demonstration | Pair | Judged
