"""Rows and samples for the tests of curation's filters."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rollforge.bulk.record import Record
from rollforge.curate.step import Drop, Sample, Step, Workspace


def record(output: Any = None, *, reward: float = 1.0, response: dict[str, Any] | None = None, **fields: Any) -> Record:
    """A row of one user message and one reply, unless told otherwise."""
    items = [said("four")] if output is None else output
    row: dict[str, Any] = {
        "responses_create_params": {"input": [{"role": "user", "content": "2 + 2?"}]},
        "response": {"output": items, **(response or {})},
        "reward": reward,
    }
    return Record(json.dumps(row | fields).encode(), "math")


def said(text: str) -> dict[str, Any]:
    return {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}


def called(arguments: str = "{}", output: str = "ok") -> list[dict[str, Any]]:
    call = {"type": "function_call", "name": "add", "call_id": "c", "arguments": arguments}
    return [call, {"type": "function_call_output", "call_id": "c", "output": output}]


def sample(record: Record, step: Step, at: int = 0, group: str = "") -> Sample:
    assert record.reward is not None
    key = group.encode() or record.group
    facts = {name: fact(record) for name, fact in step.facts.items()}
    return Sample(0, at, record.env, key, record.prompt, record.reward, facts)


def through(step: Step, records: Iterable[Record], folder: Path, groups: Iterable[str] = ()) -> tuple[list[int], list[str]]:
    """What a step does: (numbers of the kept rows, reasons of the others in order); every row is accounted for."""
    kept, dropped, _ = worked(step, records, folder, groups)
    return kept, dropped


def worked(
    step: Step, records: Iterable[Record], folder: Path, groups: Iterable[str] = ()
) -> tuple[list[int], list[str], Workspace]:
    work = Workspace(folder, runs=["runs/a"])
    rows = list(records)
    names = list(groups) or [""] * len(rows)
    samples = (sample(row, step, at, name) for at, (row, name) in enumerate(zip(rows, names, strict=True)))
    done = list(step(samples, work))
    kept = sorted(each.at for each in done if isinstance(each, Sample))
    drops = sorted((each for each in done if isinstance(each, Drop)), key=lambda drop: drop.sample.at)
    assert sorted([*kept, *(drop.sample.at for drop in drops)]) == list(range(len(rows)))
    return kept, [drop.reason for drop in drops], work
