"""What is hidden of a configuration comes back from where it is known, and only from there."""

from __future__ import annotations

import json

import pytest

from rollforge.errors import UserError
from rollforge.records.shown import with_secrets, without_secrets

GIVEN = {
    "env": {"use": "bank", "judge": {"api_key": "hush", "base_url": "https://me:hush@host/v1?key=hush", "model": "m"}},
    "agent": "command:python agent.py --key hush",
    "calls": [{"token": "hush", "retries": 2}, {"headers": {"x-key": "hush"}}],
    "key": None,
    "max_tokens": 5,
}


def test_what_was_hidden_comes_back():
    stored = json.loads(json.dumps(without_secrets(GIVEN, marked=True)))
    assert "hush" not in json.dumps(stored)
    assert with_secrets(stored, GIVEN) == GIVEN


def test_what_is_not_hidden_stays_as_it_was_stored():
    now = {**GIVEN, "max_tokens": 6, "env": {**GIVEN["env"], "use": "another"}}
    assert with_secrets(without_secrets(GIVEN, marked=True), now) == GIVEN


@pytest.mark.parametrize(
    ("now", "named"),
    [({}, r"env\.judge\.api_key"), ({**GIVEN, "agent": None}, "agent"), ({**GIVEN, "calls": []}, r"calls\[0\]\.token")],
)
def test_what_is_not_given_any_more_is_named(now, named):
    with pytest.raises(UserError, match=f"^{named} is hidden where it was stored, and is not given now"):
        with_secrets(without_secrets(GIVEN, marked=True), now)
