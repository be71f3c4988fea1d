"""The error tree, and `stage()`: which part of a rollout an exception belongs to.

Two families. `UserError`: what a person asked for cannot be done; the command prints it in one line and exits with 2.
`RolloutError`: one attempt could not be completed; `collect.rollout` turns it into an outcome of the attempt.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from types import TracebackType
from typing import Any, Literal

Stage = Literal["open", "model", "tools", "agent", "verify", "close"]


class RollforgeError(Exception):
    """Everything this package raises on purpose."""


class UserError(RollforgeError):
    """The request itself is wrong: an unknown name, a bad file, another configuration. Nothing was started."""


@contextmanager
def reported(what: str) -> Iterator[None]:
    """What the system refuses within is a `UserError`: `what` could not be done, and why."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{what}: {error.strerror or error}") from error


class SetupError(RollforgeError):
    """No rollout of this run can succeed (wrong key, wrong URL, no such model): the run stops and says why."""


class UnknownParameter(SetupError):
    """A model cannot do what a parameter of the request asks for. Whoever set it can leave it out."""

    def __init__(self, message: str, name: str = "") -> None:
        super().__init__(message)
        self.name = name


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


class stage:
    """Attribute what is raised inside to a stage of the rollout; anything foreign becomes a `fault`, `exit()` too.

    `SetupError` and cancellation pass through untouched: they are not about one rollout.
    """

    # A class, since a rollout enters a dozen of these, and a generator costs three times as much.
    __slots__ = ("_fault", "_name")

    def __init__(self, name: Stage, fault: type[RolloutError]) -> None:
        self._name = name
        self._fault = fault

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if not isinstance(error, (Exception, SystemExit)):
            return
        inner: BaseException = error
        while isinstance(inner, ExceptionGroup) and len(inner.exceptions) == 1:
            inner = inner.exceptions[0]  # a TaskGroup wraps even a single error
        if not isinstance(inner, (RolloutError, SetupError)):
            wrapped = self._fault(describe(inner))
            wrapped.stage = self._name
            raise wrapped from inner
        if isinstance(inner, RolloutError):
            inner.stage = inner.stage or self._name
        if inner is not error:
            raise inner from inner.__cause__


def unknown(kind: str, name: str, known: Iterable[str], hint: str = "") -> UserError:
    """The error for a name nobody registered; lists the nearest known names, or all when none is near."""
    names = sorted(known)
    last = name.rpartition(".")[2]  # `model.nmae` is a key `nmae` inside another
    near = get_close_matches(name, names, n=3, cutoff=0.5) or get_close_matches(last, names, n=3, cutoff=0.5)
    all_of_them = ", ".join(names[:_SHOWN]) + (f", ... ({len(names)})" if len(names) > _SHOWN else "")
    listed = f"did you mean {' or '.join(near)}?" if near else f"known: {all_of_them or 'none'}"
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
    return short(error) + place


def short(error: BaseException) -> str:
    """`ValueError: message`, cut if it is very long."""
    text = str(error)
    if len(text) > _LENGTH:
        text = f"{text[:_LENGTH]}... ({len(text)} characters)"
    return f"{type(error).__name__}{': ' if text else ''}{text}"


_LENGTH = 2000
_SHOWN = 30
_NOT_THEIRS = ("<frozen", os.path.dirname(__file__), os.path.dirname(os.__file__))
