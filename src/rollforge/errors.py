"""The error tree, and `stage()`: which part of a rollout an exception belongs to.

Two families. `UserError`: what a person asked for cannot be done; the command prints it in one line and exits with 2.
`RolloutError`: one attempt could not be completed; `collect.rollout` turns it into an outcome of the attempt.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any, Literal

Stage = Literal["open", "model", "tools", "agent", "verify", "close"]


class RollforgeError(Exception):
    """Everything this package raises on purpose."""


class UserError(RollforgeError):
    """The request itself is wrong: an unknown name, a bad file, another configuration. Nothing was started."""


class SetupError(RollforgeError):
    """No rollout of this run can succeed (wrong key, wrong URL, no such model): the run stops and says why."""


class RolloutError(RollforgeError):
    """One attempt failed. `stage` is filled by `stage()` where the raiser did not."""

    stage: Stage | None = None
    partial: Any = None
    """The response so far, where an agent had one."""


class PolicyFault(RolloutError):
    """The policy itself made the attempt worthless: a justified reward of 0. Environments may raise it."""


class InfraFault(RolloutError):
    """Something around the policy broke (endpoint, network, machine): no reward, worth another attempt."""


class JudgeFault(RolloutError):
    """A model acting as judge gave no usable verdict: no reward, worth another attempt."""


class VerifierFault(RolloutError):
    """The environment or its verifier is wrong for this task: no reward, another attempt would not help."""


class DeadlineExceeded(RolloutError):
    """A wait ran out: of a model call, a tool call, a verification, or the whole rollout."""


@contextmanager
def stage(name: Stage, fault: type[RolloutError]) -> Iterator[None]:
    """Attribute what is raised inside to a stage of the rollout; anything foreign becomes a `fault`.

    `SetupError` and cancellation pass through untouched: they are not about one rollout.
    """
    try:
        yield
    except RolloutError as error:
        error.stage = error.stage or name
        raise
    except SetupError:
        raise
    except Exception as error:
        wrapped = fault(describe(error))
        wrapped.stage = name
        raise wrapped from error


def unknown(kind: str, name: str, known: Iterable[str], hint: str = "") -> UserError:
    """The error for a name nobody registered; lists the nearest known names, or all when none is near."""
    names = sorted(known)
    near = get_close_matches(name, names, n=3, cutoff=0.5)
    listed = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(names) or 'none'}"
    return UserError(f"unknown {kind} {name!r}; {listed}" + (f" {hint}" if hint else ""))


def describe(error: BaseException) -> str:
    """`ValueError: message (file.py:12)`: the type, the text, and the last line of the user's own code it went through."""
    place = ""
    trace = error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not file.startswith(_NOT_THEIRS) and "site-packages" not in file:
            place = f" ({os.path.basename(file)}:{trace.tb_lineno})"
        trace = trace.tb_next
    text = str(error)
    return f"{type(error).__name__}{': ' if text else ''}{text}{place}"


_NOT_THEIRS = ("<frozen", os.path.dirname(__file__), os.path.dirname(os.__file__))
