"""Items of Responses <-> blocks of Anthropic Messages, one by one; `records.anthropic` has requests and answers.

Reasoning travels with the signature of the model that made it (`encrypted_content`), and not without. Arguments of a call
are text on the one side and an object on the other.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rollforge.errors import UserError
from rollforge.records.items import Item, Json, assistant, item_type, text_of
from rollforge.records.lossless import dumps, loads
from rollforge.records.messages import unique

# Blocks -> items


def items_of(message: Any, place: int) -> list[Item]:
    role = message.get("role") if isinstance(message, dict) else None
    if role not in ("user", "assistant", "system"):
        raise UserError(f"messages[{place}] has the role {role!r}; known: user, assistant, system")
    content = message.get("content")
    given = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if not isinstance(given, list) or not all(isinstance(block, dict) for block in given):
        raise UserError(f"messages[{place}].content is neither a text nor a list of blocks")
    items: list[Item] = []
    for number, block in enumerate(given):
        try:
            item = _item(block, role)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"messages[{place}].content[{number}] is no {block.get('type')} block ({error!r})") from error
        last = items[-1] if items else {}
        if item.get("type") == last.get("type") == "message" and last["role"] == role:
            last["content"] += item["content"]
        else:
            items.append(item)
    return items


def _item(block: Json, role: str) -> Item:
    match block.get("type"):
        case "tool_result":
            content = block.get("content")
            output = _result(content) if isinstance(content, list) else content or ""
            failed = {"status": "incomplete"} if block.get("is_error") else {}
            return {"type": "function_call_output", "call_id": block["tool_use_id"], "output": output, **failed}
        case "tool_use" | "thinking" | "redacted_thinking":
            return output_item(block, given=True)
        case "text" | "image" | "document":
            part = _part(block, "output_text" if role == "assistant" else "input_text")
            return {"type": "message", "role": role, "content": [part]}
    return block


def output_item(block: Json, given: bool = False) -> Item:
    """The item of a block that the model made. `given`: as part of a request, where items have no ids."""
    kind = block.get("type")
    if kind == "tool_use":
        arguments = block[STREAMED] if STREAMED in block else _arguments(block.get("input") or {})
        named = {} if given else {"id": f"fc_{unique()}", "status": "completed"}
        return {"type": "function_call", "call_id": block["id"], "name": block["name"], "arguments": arguments, **named}
    if kind in ("thinking", "redacted_thinking"):
        text = block.get("thinking")
        summary = [{"type": "summary_text", "text": text}] if text else []
        sealed = block.get("signature") or block.get("data")
        named = {"id": f"rs_{unique()}"} if not given else {}
        return {"type": "reasoning", **named, "summary": summary, **({"encrypted_content": sealed} if sealed else {})}
    if kind == "text":
        return assistant(str(block.get("text") or ""), f"msg_{unique()}")
    return {"id": f"item_{unique()}", **block}


def _part(block: Json, text: str) -> Json:
    if block["type"] == "text":
        return {"type": text, "text": block["text"]}
    source = block["source"]
    kind = source["type"]
    data = f"data:{source.get('media_type')};base64,{source['data']}" if kind == "base64" else None
    if block["type"] == "image":
        if kind == "file":
            return {"type": "input_image", "file_id": source["file_id"], "detail": "auto"}
        return {"type": "input_image", "image_url": data or source["url"], "detail": "auto"}
    if kind == "text":
        return {"type": text, "text": source["data"]}
    if kind == "file":
        return {"type": "input_file", "file_id": source["file_id"]}
    where = {"file_data": data, "filename": block.get("title") or "document.pdf"} if data else {"file_url": source["url"]}
    return {"type": "input_file", **where}


def _result(blocks: Iterable[Json]) -> Any:
    parts = [_part(block, "input_text") if block["type"] in ("text", "image", "document") else block for block in blocks]
    return "".join(part["text"] for part in parts) if all(part["type"] == "input_text" for part in parts) else parts


# Items -> blocks


def turn_of(item: Item) -> tuple[str, list[Json]]:
    """Whose turn an item belongs to, and its blocks. Raises `UserError` for an item that Messages cannot express."""
    kind = item_type(item)
    if kind == "message":
        role = str(item.get("role", "assistant"))
        return "system" if role == "developer" else role, [block for part in parts_of(item) if (block := _block(part))]
    if kind == "function_call":
        return "assistant", [{"type": "tool_use", "id": item.get("call_id"), "name": item["name"], "input": _input(item)}]
    if kind == "function_call_output":
        output = item.get("output")
        content = output if isinstance(output, str) else [block for part in parts_of(item) if (block := _block(part))]
        failed = {"is_error": True} if item.get("status") == "incomplete" else {}
        return "user", [{"type": "tool_result", "tool_use_id": item.get("call_id"), "content": content, **failed}]
    if kind == "reasoning":
        return "assistant", [thinking_of(item)] if item.get("encrypted_content") else []
    if kind.endswith(("_tool_use", "_tool_result", "container_upload")):
        return "assistant", [{key: value for key, value in item.items() if key != "id" or kind.endswith("_tool_use")}]
    raise UserError(f"the conversation has an item of type {kind or '?'!r}, which the Messages API cannot express")


def thinking_of(item: Item) -> Json:
    text = text_of(item.get("content")) or "\n\n".join(text_of([part]) for part in item.get("summary") or [])
    sealed = item.get("encrypted_content") or ""
    if sealed and not text:
        return {"type": "redacted_thinking", "data": sealed}
    return {"type": "thinking", "thinking": text, "signature": sealed}


def parts_of(item: Item) -> list[Any]:
    content = item.get("output") if item.get("type") == "function_call_output" else item.get("content")
    if isinstance(content, list):
        return content
    return [{"type": "text", "text": content}] if content else []


def _block(part: Any) -> Json | None:
    """None for an empty text, which Messages refuses."""
    if isinstance(part, str):
        part = {"type": "text", "text": part}
    match part.get("type"):
        case "input_text" | "output_text" | "text" | "refusal":
            text = part.get("text") or part.get("refusal")
            return {"type": "text", "text": text} if text else None
        case "input_image" | "image_url":
            image = part.get("image_url")
            return {"type": "image", "source": _source(part, image["url"] if isinstance(image, dict) else image)}
        case "input_file":
            title = {"title": part["filename"]} if part.get("filename") else {}
            return {"type": "document", "source": _source(part, part.get("file_data") or part.get("file_url")), **title}
    raise UserError(f"the conversation has a part of type {part.get('type')!r}, which the Messages API cannot express")


def _source(part: Json, url: Any) -> Json:
    if part.get("file_id"):
        return {"type": "file", "file_id": part["file_id"]}
    head, found, data = str(url or "").partition(";base64,")
    if found:
        return {"type": "base64", "media_type": head.removeprefix("data:"), "data": data}
    return {"type": "url", "url": url}


def _input(call: Item) -> Json:
    """The arguments as the object that Messages requires. Text that is none stays readable."""
    arguments = call.get("arguments") or "{}"
    try:
        value = loads(arguments) if isinstance(arguments, str) else arguments
    except ValueError:
        value = None
    return value if isinstance(value, dict) else {INVALID: arguments}


def _arguments(value: Json) -> str:
    wrong = value.get(INVALID) if len(value) == 1 else None
    return wrong if isinstance(wrong, str) else dumps(value).decode()


INVALID = "_invalid_arguments"
"""The one key of a tool's input that is no JSON object: what the model wrote in place of one."""
STREAMED = "_streamed"
"""Of a tool_use block that was put together again: its input to the character, as the model wrote it."""
