"""Rows as the steps of curation see them, without an engine around."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rollforge.bulk.record import Record
from rollforge.curate.step import Drop, Sample, Step, Workspace, complete
from rollforge.records.items import assistant
from rollforge.records.lossless import dumps


def line(prompt: Any, reply: Any = "4", *, env: str = "math", reward: float = 1.0, **fields: Any) -> bytes:
    """A rollout row. `prompt` is text or items, `reply` text or output items."""
    output = [assistant(reply)] if isinstance(reply, str) else reply
    row = {"responses_create_params": {"input": prompt}, "response": {"output": output}, "reward": reward}
    return dumps({**row, "agent_ref": {"name": env}, **fields})


def samples(lines: Iterable[bytes], step: Step) -> list[Sample]:
    """What a step gets of these rows; `at` is the number of the row."""
    found = []
    for at, text in enumerate(lines):
        record = Record(text)
        assert record.reward is not None
        facts = {name: fact(record) for name, fact in step.facts.items()}
        found.append(Sample(0, at, record.env, record.group, record.prompt, record.reward, facts))
    for name, fact in step.facts.items():
        complete(name, fact, found)
    return found


class Result:
    def __init__(self, step: Step, given: Sequence[Sample], seed: int = 0) -> None:
        with tempfile.TemporaryDirectory() as folder:
            work = Workspace(Path(folder), seed)
            out = list(step(given, work))
        self.kept = sorted((each for each in out if isinstance(each, Sample)), key=lambda sample: sample.place)
        self.dropped = {each.sample.at: each for each in out if isinstance(each, Drop)}
        self.notes = work.notes
        self.warnings = work.warnings
        # Every sample comes out exactly once.
        assert sorted([sample.at for sample in self.kept] + list(self.dropped)) == sorted(sample.at for sample in given)

    @property
    def places(self) -> list[int]:
        return [sample.at for sample in self.kept]


def ran(steps: Sequence[Step], lines: Iterable[bytes], seed: int = 0) -> Result:
    (step,) = steps
    return Result(step, samples(lines, step), seed)
