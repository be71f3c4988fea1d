"""The command line: one file per verb; what a verb needs is imported when it runs."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from errno import EDQUOT, ENOSPC
from math import inf

import typer

from rollforge.cli.advise import advise
from rollforge.cli.audit import audit
from rollforge.cli.check import check
from rollforge.cli.collect import collect
from rollforge.cli.curate import curate
from rollforge.cli.diff import diff
from rollforge.cli.env import app as env_app
from rollforge.cli.eval import evaluate
from rollforge.cli.export import export
from rollforge.cli.loop import loop
from rollforge.cli.reverify import reverify
from rollforge.cli.serve import serve
from rollforge.cli.show import show
from rollforge.cli.stats import stats
from rollforge.cli.test import contract
from rollforge.cli.train import train
from rollforge.cli.validate import validate
from rollforge.errors import RollforgeError, UserError

app = typer.Typer(
    name="rollforge",
    help="From environments to training data: verified rollouts for post-training language models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(collect)
app.command()(stats)
app.command()(show)
app.command()(curate)
app.command()(advise)
app.command()(check)
app.command()(diff)
app.command()(export)
app.command()(train)
app.command()(loop)
app.command()(serve)
app.command()(reverify)
app.command("test")(contract)
app.command()(audit)
app.command()(validate)
app.command("eval")(evaluate)
app.add_typer(env_app, name="env")


def _version(value: bool) -> None:
    if value:
        from rollforge import __version__

        print(f"rollforge {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    pass


def main() -> None:
    guarded(app)


def guarded(work: Callable[[], object]) -> None:
    """Exit status: 0 done, 1 failed or incomplete, 2 the request was wrong or refused, 130 interrupted, 143 terminated."""
    with _terminable():
        try:
            try:
                work()
            finally:
                sys.stdout.flush()  # here, where what goes wrong can be said
        except typer.Exit as end:  # of a verb that was called as a function
            sys.exit(end.exit_code)
        except RollforgeError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2 if isinstance(error, UserError) else 1)
        except KeyboardInterrupt:
            sys.exit(130)
        except BrokenPipeError:
            # The reader of a pipe left (`| head`): nothing more can be said.
            _close_stdout()
            sys.exit(1)
        except OSError as error:
            # Not 1, which some verbs have a meaning for: `diff` says "different" by it.
            where = "" if error.filename is None else f": {error.filename}"
            full = (
                "; no room for the output, or for temporary files (in TMPDIR, or where --temp says)"
                if error.errno in (ENOSPC, EDQUOT)
                else ""
            )
            print(f"error: {error.strerror or error}{where}{full}", file=sys.stderr)
            _close_stdout()
            sys.exit(2)


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM, which `timeout` and `scancel` send, does what Ctrl-C does: what is half done is removed."""
    main, at = os.getpid(), -inf

    def stop(number: int, _: object) -> None:
        nonlocal at
        if os.getpid() != main:  # a forked worker: just ends
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        again, at = time.monotonic() - at < 1, time.monotonic()
        if not again:  # `timeout` sends it twice at once, and must not end the removing
            raise KeyboardInterrupt

    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield  # whoever started us has it ignored, or handles it
        return
    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except SystemExit as end:
        if at > 0 and end.code == 130:
            sys.exit(143)
        raise
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _close_stdout() -> None:
    """Python's own flush at exit must not try again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
