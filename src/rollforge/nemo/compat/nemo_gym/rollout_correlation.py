"""A prefix of paths, `/ng-rollout/<id>[/training-token-capture]`, that says which rollout a request belongs to."""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel
from starlette.types import ASGIApp, Receive, Scope, Send

from .config_types import ROLLOUT_PATH_PREFIX, TOKEN_CAPTURE_PATH_SEGMENT
from .global_config import ATTEMPT_INDEX_KEY_NAME, ROLLOUT_ID_KEY_NAME, ROLLOUT_INDEX_KEY_NAME, TASK_INDEX_KEY_NAME

_PREFIX = re.compile(rf"/{ROLLOUT_PATH_PREFIX}/([^/]+)(?:/{TOKEN_CAPTURE_PATH_SEGMENT})?(?=/)")


class RolloutContextMiddleware:
    """Takes the prefix off, so that the same routes answer with and without it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match = _PREFIX.match(scope["path"]) if scope["type"] == "http" else None
        if match is not None:
            path = scope["path"][match.end() :]
            scope = {**scope, "path": path, "raw_path": path.encode(), "rollout_id": match[1]}
        await self.app(scope, receive, send)


def maybe_rollout_id_from_run_body(body: Any) -> str | None:
    """The id of a row: what it says itself, else its task, rollout and attempt."""
    row = {**body.model_dump(), **(body.model_extra or {})} if isinstance(body, BaseModel) else body
    if not isinstance(row, dict):
        return None
    if row.get(ROLLOUT_ID_KEY_NAME):
        return str(row[ROLLOUT_ID_KEY_NAME])
    task, rollout, attempt = (row.get(key) for key in (TASK_INDEX_KEY_NAME, ROLLOUT_INDEX_KEY_NAME, ATTEMPT_INDEX_KEY_NAME))
    if task is None or rollout is None:
        return None
    return f"{task}-{rollout}" + (f"-a{attempt}" if attempt else "")
