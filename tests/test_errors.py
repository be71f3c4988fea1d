"""Whose fault it is: what `stage` makes of an exception, and how one is told in a line."""

from __future__ import annotations

import asyncio

import pytest

from rollforge.errors import (
    DeadlineExceeded,
    InfraFault,
    JudgeFault,
    PolicyFault,
    SetupError,
    UserError,
    VerifierFault,
    describe,
    short,
    stage,
)


def group(*errors: Exception) -> ExceptionGroup[Exception]:
    return ExceptionGroup("several", errors)


@pytest.mark.parametrize(
    ("raised", "kind", "text"),
    [
        (ValueError("x"), VerifierFault, "ValueError: x (test_errors.py:"),
        (UserError("x"), VerifierFault, "UserError: x (test_errors.py:"),
        (KeyError("x"), VerifierFault, "KeyError: 'x' (test_errors.py:"),
        (AssertionError(), VerifierFault, "AssertionError (test_errors.py:"),
        (SystemExit(3), VerifierFault, "SystemExit: 3 (test_errors.py:"),
        (PolicyFault("x"), PolicyFault, "x"),
        (InfraFault("x"), InfraFault, "x"),
        (JudgeFault("x"), JudgeFault, "x"),
        (DeadlineExceeded("x"), DeadlineExceeded, "x"),
        (group(JudgeFault("x")), JudgeFault, "x"),
        (group(group(JudgeFault("x"))), JudgeFault, "x"),
        (group(ValueError("x")), VerifierFault, "ValueError: x"),
        (
            group(ValueError("x"), KeyError("y")),
            VerifierFault,
            "ExceptionGroup: several (2 sub-exceptions) (test_errors.py:",
        ),
    ],
)
def test_a_stage_attributes_what_is_raised_in_it(raised: BaseException, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind) as error, stage("verify", VerifierFault):
        raise raised
    assert str(error.value).startswith(text)
    assert error.value.stage == "verify"  # type: ignore[attr-defined]


@pytest.mark.parametrize("raised", [SetupError("x"), asyncio.CancelledError(), KeyboardInterrupt(), group(SetupError("x"))])
def test_what_is_not_about_one_rollout_passes_through(raised: BaseException) -> None:
    inner = raised.exceptions[0] if isinstance(raised, ExceptionGroup) else raised
    with pytest.raises(type(inner)) as error, stage("verify", VerifierFault):
        raise raised
    assert error.value is inner


def test_the_inner_stage_and_the_own_cause_stay() -> None:
    with pytest.raises(InfraFault) as error, stage("agent", VerifierFault), stage("model", VerifierFault):
        raise InfraFault("x") from ConnectionError("y")
    assert error.value.stage == "model"
    assert isinstance(error.value.__cause__, ConnectionError)
    with pytest.raises(VerifierFault) as foreign, stage("verify", VerifierFault):
        raise group(UserError("x"))
    assert isinstance(foreign.value.__cause__, UserError)


def test_an_exception_in_a_line() -> None:
    assert short(ValueError("x")) == "ValueError: x"
    assert short(ValueError()) == "ValueError"
    assert short(ValueError("x" * 5000)) == f"ValueError: {'x' * 2000}... (5000 characters)"
    assert describe(ValueError("never raised")) == "ValueError: never raised"
