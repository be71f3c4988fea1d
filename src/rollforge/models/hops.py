"""The id of the request being answered, sent on with every call it causes, so that the logs of all hops can be joined."""

from __future__ import annotations

from contextvars import ContextVar

HEADER = "X-Request-Id"
REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")
"""Empty outside of a service."""


def hop() -> dict[str, str]:
    """The headers that a call to another service carries on."""
    found = REQUEST_ID.get()
    return {HEADER: found} if found else {}
