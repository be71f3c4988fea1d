"""`rollforge check RUN --for on-policy`: can these rollouts be trained on token by token?"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from rollforge.cli.output import print_json

if TYPE_CHECKING:
    from rollforge.records.rollout import Rollout
    from rollforge.records.rows import BadLine
    from rollforge.stats.source import Source
    from rollforge.train.agreement import Agreement
    from rollforge.train.on_policy import Example, OnPolicy


def check_on_policy(runs: Sequence[Path], model: str | None, tolerance: float, max_drift: float, json: bool) -> None:
    """Exits with 1 if a larger share than `max_drift` is flawed, or there is nothing to train on."""
    from rollforge.stats.source import find_run
    from rollforge.train.forward import forward
    from rollforge.train.on_policy import inspect

    sources = [find_run(run) for run in runs]
    found = inspect(_rollouts(sources), forward=None if model is None else forward(model), tolerance=tolerance)
    ok = found.rollouts > 0 and found.share <= max_drift
    if json:
        print_json({"runs": [source.name for source in sources], "ok": ok, **found.row()}, allow_nan=False)
    else:
        for line in _lines(found, sources):
            print(line)
    if not ok:
        raise typer.Exit(1)


def _rollouts(sources: Sequence[Source]) -> Iterator[Rollout | BadLine]:
    shown = sys.stderr.isatty()
    count = 0
    try:
        for source in sources:
            for rollout in source.rollouts():
                yield rollout
                count += 1
                if shown and count % 100 == 0:
                    print(f"\r{count:,} rollouts", end="", file=sys.stderr, flush=True)
    finally:
        if shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _lines(found: OnPolicy, sources: Sequence[Source]) -> Iterator[str]:
    from rollforge.stats.text import plural, share
    from rollforge.stats.visible import one_line
    from rollforge.train.on_policy import KINDS

    sound = found.rollouts - found.flawed
    yield f"{share(sound, found.rollouts)} of {plural(found.rollouts, 'rollout')} can be trained on token by token"
    made = f"{plural(found.model_calls, 'model call')}, {plural(found.tokens, 'token')}"
    yield f"  {made}, of which the policy chose {found.generated:,}"
    left = (
        (found.unjudged, "without a reward: no trainer gets them"),
        (found.silent, "in which nothing was said: nothing to learn"),
        (found.bad, f"unreadable ({one_line(found.first_bad, 120)})"),
    )
    for count, why in left:
        if count:
            yield f"  not counted: {count:,} {why}"
    for setting, count in found.sampled.most_common():
        yield f"  sampled with {one_line(setting, 40)}: {plural(count, 'rollout')}; the gradient assumes the model as it is"
    for kind, count in found.flaws.most_common():
        where = ", ".join(f"{number + 1}: {n:,}" for number, n in sorted(found.calls[kind].items())[:8])
        yield f"\n{kind}: {plural(count, 'rollout')}. {KINDS[kind][0].capitalize()} (model call {where})"
        for example in found.examples:
            if example.fault.kind == kind:
                yield from _example(example, sources)
        yield f"  {KINDS[kind][1]}"
    if found.agreement is not None:
        yield from _agreement(found.agreement)


def _example(example: Example, sources: Sequence[Source]) -> Iterator[str]:
    from rollforge.records.shown import typed
    from rollforge.stats.visible import one_line, visible

    fault = example.fault
    repeat = "" if example.index is None else f" repeat {example.index}"
    yield f"  {one_line(f'{example.env} {example.task[:12]}', 60)}{repeat}: {one_line(fault.text, 300)}"
    for name, text in (("seen", fault.seen), ("here", fault.found)):
        if text:
            yield f"    {name}  {one_line(text, 200)}"
    if len(sources) == 1:
        chosen = "" if example.index is None else f" --index {example.index}"
        yield visible(f"    rollforge show {typed(sources[0].name)} --task {shlex.quote(example.task)}{chosen}")


def _agreement(found: Agreement) -> Iterator[str]:
    from rollforge.stats.text import plural, share
    from rollforge.stats.visible import visible

    if not found.tokens:
        return
    yield f"\nlog probabilities against {visible(found.model)} ({found.by}), {plural(found.tokens, 'token')}:"
    yield f"  differ by at most {found.max:.2g}, {found.mean:.2g} on average; by more than {found.tolerance:g}: " + share(
        found.beyond, found.tokens
    )
    worst = ", ".join(
        f"{task[:12]}{'' if index is None else f' repeat {index}'} {value:.2g}" for value, task, index in found.worst
    )
    yield f"  furthest: {visible(worst)}"
    if found.other_prompts:
        yield (
            f"  {found.other_prompts:,} of {plural(found.prompts, 'prompt')} are not what the chat template writes here: "
            "other tools, date, template or settings of it; harmless where the log probabilities agree"
        )
