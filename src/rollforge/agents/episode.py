"""What every loop needs: the items of one model call, its tokens, and the response of a whole episode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rollforge.errors import InfraFault
from rollforge.records.items import Item, Response, Usage, check_items, text_of


def answer_items(response: Any, before: int) -> list[Item]:
    """The items of a model's answer, every call with an id. Copies where one had none: the model may keep its own."""
    if not isinstance(response, dict):
        raise InfraFault(f"the model returned {type(response).__name__}, not a response")
    if response.get("status") in ("failed", "cancelled"):
        raise InfraFault(
            f"the model's answer has the status {response['status']}: {response.get('error') or 'no reason given'}"
        )
    items = response.get("output") or []
    problem = check_items(items, "output")
    if problem:
        raise InfraFault(f"the model's answer cannot be used: {problem}")
    return [
        {**item, "call_id": item.get("id") or f"call_{before + position}"}
        if item.get("type") == "function_call" and not item.get("call_id")
        else item
        for position, item in enumerate(items)
    ]


def generated(response: Response, items: Sequence[Item]) -> int:
    """Tokens of one answer: as its usage says, else counted, else estimated (four characters each)."""
    usage = response.get("usage")
    count = usage.get("output_tokens") if isinstance(usage, dict) else None
    if isinstance(count, (int, float)):
        return int(count)
    counted = sum(len(item.get("generation_token_ids") or ()) for item in items)
    texts = (
        text_of(item.get("content")) + text_of(item.get("summary")) + str(item.get("arguments") or "") for item in items
    )
    return counted or sum(map(len, texts)) // 4


def episode(last: Response, output: list[Item], usage: Usage | None, reason: str | None) -> Response:
    response: Response = {**last, "output": output, "usage": usage}
    if reason is not None:
        response["status"], response["incomplete_details"] = "incomplete", {"reason": reason}
    return response


def shortened(text: str, most: int) -> str:
    """A tool's output as the policy is shown it."""
    return text if len(text) <= most else f"{text[:most]}\n[cut: {len(text)} characters, {most} shown]"
