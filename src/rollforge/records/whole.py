"""A response with every field that strict readers insist on (the SDKs' types, NeMo Gym's `/verify`, which refuse less).

Inside this package a response says only what is known of it; on the wire it is whole. Unknown fields, token fields among
them, stay as they are.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rollforge.records.items import Item, Json, Response, item_type, mapping
from rollforge.records.messages import unique

ECHOED = ("instructions", "max_output_tokens", "metadata", "reasoning", "temperature", "text", "top_p", "truncation", "user")
"""What a Responses server repeats of the request, null where nothing was asked."""


def whole(response: Response, params: Mapping[str, Any]) -> Response:
    """A copy of `response`, completed from the request it answers (OpenAI API reference, "The response object")."""
    found: Json = {
        "id": response.get("id") or f"resp_{unique()}",
        "object": "response",
        "created_at": time.time(),
        "model": str(params.get("model") or ""),
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        **{key: params.get(key) for key in ECHOED},
        "parallel_tool_calls": params.get("parallel_tool_calls") is not False,
        "tool_choice": params.get("tool_choice") or "auto",
        "tools": params.get("tools") or [],
        "previous_response_id": None,
        **{key: value for key, value in response.items() if value is not None},
        "output": [_item(item, place) for place, item in enumerate(response.get("output") or [])],
        "usage": _usage(response.get("usage")),
    }
    return found  # type: ignore[return-value]


def _item(item: Item, place: int) -> Item:
    kind = item_type(item)
    if kind == "message" and item.get("role") == "assistant":
        content = item.get("content")
        parts = [{"type": "output_text", "text": content or ""}] if not isinstance(content, list) else content
        parts = [
            {"annotations": [], **part} if isinstance(part, dict) and part.get("type") == "output_text" else part
            for part in parts
        ]
        return {"id": f"msg_{place}", "type": "message", "status": "completed", **item, "content": parts}
    if kind == "function_call":
        return {"id": f"fc_{place}", "status": "completed", **item}
    if kind == "reasoning":
        return {"id": f"rs_{place}", "summary": [], **item}
    return item


def _usage(usage: Any) -> Any:
    if not usage or not isinstance(usage, dict):
        return None
    come, gone, total = (_count(usage.get(f"{what}_tokens")) for what in ("input", "output", "total"))
    return {
        **usage,
        "input_tokens": come,
        "output_tokens": gone,
        "total_tokens": total or come + gone,
        "input_tokens_details": {"cached_tokens": 0, **mapping(usage.get("input_tokens_details"))},
        "output_tokens_details": {"reasoning_tokens": 0, **mapping(usage.get("output_tokens_details"))},
    }


def _count(value: Any) -> int | float:
    return value if isinstance(value, (int, float)) else 0
