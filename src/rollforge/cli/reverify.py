"""`rollforge reverify`: stored rollouts judged again, and what changed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from rollforge.cli.options import ALLOW_UNSANDBOXED, SANDBOX, given, seldom_collect_garbage
from rollforge.cli.output import any_encoding, exit_if_signalled, print_json, print_unused, prints_aside, show
from rollforge.cli.tables import table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

    from rollforge.collect.reverify import Reverified
    from rollforge.stats.compare import Comparison, Flip


def reverify(
    run: str = typer.Argument(..., metavar="RUN", help="A run directory or a JSONL file of rollouts, ours or NeMo Gym's."),
    env: str = typer.Option(..., "--env", "-e", help="Whose verifier: a name, path/to/file.py:name, package.module:name."),
    tasks: Path | None = typer.Option(None, help="The tasks they are of (JSONL), if the rows lack what the verifier needs."),
    out: Path | None = typer.Option(
        None, "--out", "-o", help="Run directory (default RUN-reverified); resumed if it exists."
    ),
    diff: bool = typer.Option(False, "--diff", help="Print what changed: flips, rank correlation, pairs, pass@k."),
    fail_on_change: bool = typer.Option(False, "--fail-on-change", help="Exit with 1 if any reward changed."),
    success: float = typer.Option(1.0, help="The reward from which a rollout counts as solved."),
    examples: int = typer.Option(10, min=0, help="How many of those that rose and of those that fell are listed."),
    limit: int | None = typer.Option(None, "--limit", "-n", help="Only the first so many rows."),
    concurrency: int | None = typer.Option(None, help="Verifications in flight (default 64)."),
    replay: bool = typer.Option(True, help="Make the stored tool calls again, where the environment has tools."),
    force: bool = typer.Option(False, "--force", help="Take the verdict also where the tools answer otherwise now."),
    retry_failed: bool = typer.Option(False, "--retry-failed", help="When resuming, judge again what got no verdict."),
    max_attempts: int | None = typer.Option(None, help="Attempts at what fails for outside reasons (default 3)."),
    tool_seconds: float | None = typer.Option(None, help="Deadline of a tool call (default 60)."),
    verify_seconds: float | None = typer.Option(None, help="Deadline of a verification (default 60)."),
    set_: list[str] = typer.Option(
        [], "--set", help="An option of the environment, as in --set judge=chat:NAME (or env.judge=, as for collect)."
    ),
    sandbox: str | None = SANDBOX,
    allow_unsandboxed: bool = ALLOW_UNSANDBOXED,
    json: bool = typer.Option(False, "--json", help="Print the result as JSON; progress goes to stderr."),
) -> None:
    """Score stored rollouts again, offline, with the same or another version of the verifier. Killed, it goes on.

    Exit status 1: some could not be verified, or none was; or (--fail-on-change) some reward changed, or none was verified
    now by what may be another verifier than before (a service, say).
    """
    from rollforge.collect.reverify import Reverification, ReverifyConfig, compare
    from rollforge.config import validate, with_set

    options = {
        "tasks": tasks,
        "out": out,
        "limit": limit,
        "concurrency": concurrency,
        "max_attempts": max_attempts,
        "tool_seconds": tool_seconds,
        "verify_seconds": verify_seconds,
    }
    values = {
        "run": run,
        "env": env,
        "options": with_set({}, (text.strip().removeprefix("env.") for text in set_)),
        "replay": replay,
        "force": force,
        "retry_failed": retry_failed,
        **given(options),
    }
    with prints_aside():
        done = _run(Reverification(validate(ReverifyConfig, values, "the options")))
    found = compare(done.path, success, examples)
    unseen = fail_on_change and not done.now and not done.pinned
    if json:
        print_json({**_row(done), **found.row()}, allow_nan=False)
    else:
        _print(done, found, diff)
    exit_if_signalled(done.stopped)
    if unseen:
        print(f"nothing was verified now, and {env} may have changed since: give another --out", file=sys.stderr)
    changed = fail_on_change and found.up + found.down + found.newly_judged
    sys.exit(1 if done.failed or not done.verified or changed or unseen else 0)


def _run(work: Any) -> Reverified:
    import uvloop

    from rollforge.cli.progress import progress

    seldom_collect_garbage()
    with progress(work):
        done: Reverified = uvloop.run(work.run())
    return done


def _row(done: Reverified) -> dict[str, Any]:
    return {
        "run": str(done.path),
        "verified": done.verified,
        "failed": done.failed,
        "now": done.now,
        "earlier": done.earlier,
        "began": done.began,
        "kept_reasons": done.kept_reasons,
        "bad_lines": done.bad_count,
        "stopped": done.stopped,
    }


def _print(done: Reverified, found: Comparison, diff: bool) -> None:
    from rich.console import Group

    from rollforge.records.shown import typed
    from rollforge.stats.text import plural
    from rollforge.stats.visible import one_line

    any_encoding()
    print_unused(done.bad_lines, done.bad_count)
    kept = f", {done.kept:,} taken over as they were" if done.kept else ""
    print(f"{plural(done.verified, 'rollout')} verified again, {done.failed:,} could not be{kept}")
    for reason, count in done.kept_reasons[:5]:
        print(f"  {count:,} taken over: {one_line(reason, 300)}")
    if done.earlier:
        print(f"{done.now:,} of these now, {done.earlier:,} earlier (begun {done.began}); another --out does all anew")
    print(
        f"of {plural(found.rollouts, 'rollout')} with a reward before and after: {found.agree:,} agree, {found.up:,} rose "
        f"({found.to_solved:,} to solved), {found.down:,} fell ({found.from_solved:,} from solved)"
    )
    for reason, count in found.reasons[:5]:
        print(f"  {count:,} not verified: {one_line(reason, 300)}")
    if diff:
        show(Group(*_parts(found)))
    if done.stopped:
        print(f"stopped: {done.stopped}; the same command with --out {typed(done.path)} goes on")
    print(f"run: {done.path}   look: rollforge stats {typed(done.path)}")


def _parts(found: Comparison) -> Iterator[RenderableType]:
    from rollforge.stats.text import interval, number, percent

    ranks = [("Spearman", number(found.spearman)), ("Kendall tau-b", number(found.kendall))]
    yield from table("Rank correlation of the rewards", ("", "value"), ranks)
    means = (("before", found.before), ("after", found.after), ("difference", found.difference))
    yield from table("Mean reward", ("", "mean [95%]"), [(name, interval(mean)) for name, mean in means])
    rows = [(str(row.k), f"{row.tasks:,}", percent(row.before), percent(row.after)) for row in found.pass_at]
    yield from table(f"pass@k (reward >= {found.success:g})", ("k", "tasks", "before", "after"), rows)
    pairs = found.pairs
    counts = [
        ("kept", pairs.kept),
        ("reversed", pairs.reversed),
        ("lost (now equal)", pairs.lost),
        ("gained (were equal)", pairs.gained),
        ("equal before and after", pairs.tied),
    ]
    yield from table("Preference pairs within tasks", ("", "pairs"), [(name, f"{count:,}") for name, count in counts])
    columns = ("task", "repeat", "reply", "before", "after")
    yield from table(f"Rose: {found.up:,}", columns, [_flip(flip) for flip in found.raised], words=3)
    yield from table(f"Fell: {found.down:,}", columns, [_flip(flip) for flip in found.lowered], words=3)
    reasons = [(reason, f"{count:,}") for reason, count in found.reasons[:20]]
    yield from table(f"Not verified: {found.unjudged:,}", ("reason", "rollouts"), reasons)


def _flip(flip: Flip) -> tuple[str, ...]:
    from rollforge.stats.text import number
    from rollforge.stats.visible import one_line

    task = one_line(flip.task, 20) if flip.task_index is None else str(flip.task_index)
    repeat = "-" if flip.index is None else str(flip.index)
    return task, repeat, flip.reply or "(empty)", number(flip.before), number(flip.after)
