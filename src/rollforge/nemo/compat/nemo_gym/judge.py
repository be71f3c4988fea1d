"""Verifiers that ask a model. A judge that could not be asked gives no reward: the row says so instead of a zero's looks."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from fastapi.encoders import jsonable_encoder
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from .server_utils import ServerClient, get_response_json, raise_for_status

Reply = TypeVar("Reply", bound=BaseModel)
Result = TypeVar("Result")


class JudgeError(Exception):
    """The judge could not be asked, or did not answer."""


async def reraise_judge_errors(coro: Awaitable[Result]) -> Result:
    """Await it; whatever it raises is a `JudgeError`."""
    try:
        return await coro
    except JudgeError:
        raise
    except Exception as error:
        raise JudgeError(f"{type(error).__name__}: {error}") from error


async def call_judge(
    server_client: ServerClient, *, server_name: str, url_path: str, json: Any, response_model: type[Reply]
) -> Reply:
    """POST to a model server and read its answer. Raises `JudgeError`."""

    async def ask() -> Reply:
        response = await server_client.post(server_name=server_name, url_path=url_path, json=json)
        await raise_for_status(response)
        return response_model.model_validate(await get_response_json(response))

    return await reraise_judge_errors(ask())


def judge_failsafe(verify_fn: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """`verify_fn`, with a `JudgeError` answered by the request and `_ng_failure_class: judge_failed`."""

    @functools.wraps(verify_fn)
    async def judged(*args: Any, **kwargs: Any) -> Any:
        try:
            return await verify_fn(*args, **kwargs)
        except JudgeError as error:
            row = next((found for found in (*kwargs.values(), *args) if isinstance(found, BaseModel)), None)
            failed = {"reward": 0.0, "_ng_failure_class": "judge_failed", "_ng_failure_judge_error": str(error)}
            return JSONResponse(jsonable_encoder({**(row.model_dump() if row else {}), **failed}))

    return judged
