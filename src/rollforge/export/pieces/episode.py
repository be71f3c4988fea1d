"""One episode against an environment's HTTP server that speaks NeMo Gym's protocol: `/seed_session`, a path for each tool,
`/verify`; the session is a cookie."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import aiohttp


class Episode:
    """`row` is the task's row. Cookies and items (what was said and called, as Responses items) can be handed on: `state()`
    in one process, `Episode(row, url, state)` in another."""

    def __init__(self, row: dict[str, Any], url: str, state: dict[str, Any] | None = None) -> None:
        self.row = row
        self.url = url.rstrip("/")
        self.cookies: dict[str, str] = dict(state["cookies"]) if state else {}
        self.items: list[dict[str, Any]] = list(state["items"]) if state else []
        self._open = state is not None
        self._lock = asyncio.Lock()
        tools = (row.get("responses_create_params") or {}).get("tools") or []
        self._tools = {tool.get("name") or (tool.get("function") or {}).get("name") for tool in tools}

    def state(self) -> dict[str, Any]:
        return {"cookies": self.cookies, "items": self.items}

    def say(self, text: str) -> None:
        content = [{"type": "output_text", "text": text, "annotations": []}]
        message = {"type": "message", "role": "assistant", "status": "completed", "content": content}
        self.items.append({"id": f"msg_{len(self.items)}", **message})

    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        """The tool's result, as the model reads it; of an unknown tool or a failing one the error's text."""
        call_id = f"call_{len(self.items)}"
        call = {"type": "function_call", "call_id": call_id, "name": name, "arguments": json.dumps(arguments)}
        self.items.append(call | {"id": f"fc_{len(self.items)}", "status": "completed"})
        if name in self._tools:
            await self.open()
            _, result = await self._post(name, arguments)
        else:
            # The path is the name: without this a policy could call /verify or /seed_session.
            result = json.dumps({"error": f"there is no tool {name!r}"})
        self.items.append({"type": "function_call_output", "call_id": call_id, "output": result})
        return result

    async def open(self) -> None:
        async with self._lock:
            if not self._open:
                status, text = await self._post("seed_session", self.row)
                if status >= 400:
                    raise RuntimeError(f"{self.url}/seed_session answered {status}: {text[:500]}")
                self._open = True

    async def verify(self) -> float:
        """The reward. Raises `RuntimeError` when the environment could not judge: that is no reward of 0."""
        await self.open()
        response = {
            "id": "resp_0",
            "created_at": 0,
            "object": "response",
            "model": "policy",
            "output": self.items,
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
        }
        status, text = await self._post("verify", {**self.row, "response": response})
        if status >= 400:
            raise RuntimeError(f"{self.url}/verify answered {status}: {text[:500]}")
        verdict = json.loads(text)
        if verdict.get("_ng_failure_class"):
            raise RuntimeError(f"{self.url}/verify could not judge: {verdict.get('_ng_failure_judge_error')}")
        return float(verdict["reward"])

    async def _post(self, path: str, body: dict[str, Any]) -> tuple[int, str]:
        timeout = aiohttp.ClientTimeout(total=120)
        for attempt in range(5):
            try:
                async with (
                    aiohttp.ClientSession(timeout=timeout, cookies=self.cookies) as session,
                    session.post(f"{self.url}/{path}", json=body) as response,
                ):
                    text = await response.text()
                    self.cookies |= {name: cookie.value for name, cookie in response.cookies.items()}
                    return response.status, text
            except aiohttp.ClientConnectorError:
                # Nothing was sent yet; what was sent is not sent twice, since tools change things.
                if attempt == 4:
                    raise
                await asyncio.sleep(2**attempt * 0.25)
        raise AssertionError("unreachable")


def tool_calls(text: str) -> list[tuple[str, dict[str, Any]]]:
    """(name, arguments) of the `<tool_call>` blocks (Hermes and Qwen models write them). A block that is no such call is
    ("", {})."""
    return [_call(block) for block in _CALL.findall(text)]


def _call(block: str) -> tuple[str, dict[str, Any]]:
    try:
        call = json.loads(block)
    except ValueError:
        return "", {}
    name, arguments = (call.get("name"), call.get("arguments", {})) if isinstance(call, dict) else ("", {})
    return (name, arguments) if isinstance(name, str) and isinstance(arguments, dict) else ("", {})


_CALL = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)
