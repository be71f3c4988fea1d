"""How many tokens an example has: counted by a tokenizer where one is at hand, else estimated from its bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

from rollforge.bulk.parquet import parquet_rows
from rollforge.bulk.record import for_the_same
from rollforge.errors import UserError
from rollforge.export.check_rows import decoded
from rollforge.export.text import listed, plain
from rollforge.records.items import BYTES_PER_TOKEN, Json, text_of
from rollforge.records.lossless import dumps
from rollforge.records.rows import objects

Measure: TypeAlias = Callable[[Sequence[Json], Sequence[Json]], int]
"""(messages, tools) -> tokens."""

MARKUP = 5
"""Tokens that a chat template puts around a message."""
INSTRUCTIONS = listed(())
"""What stands around tools where we write them into the text, as Qwen 2.5's template does. Qwen 3.5's and Nemotron 3's are
twice as long: so is the room for them."""


def estimate(messages: Sequence[Json], tools: Sequence[Json] = ()) -> int:
    """Bytes of text, calls and schemas / 4, rounded up, `MARKUP` tokens a message, and the instructions around tools."""
    size = _bytes(listed(tools)) + len(INSTRUCTIONS) if tools else 0
    for message in messages:
        content = message["content"]
        size += _bytes(content) if type(content) is str else len(dumps(content))
        thought = message.get("reasoning_content")
        if thought:
            size += _bytes(thought)
        calls = message.get("tool_calls")
        if calls:
            size += len(dumps([call["function"] for call in calls])) + _CALL * len(calls)
        if message["role"] == "tool":
            size += _RESULT
    return -(-size // BYTES_PER_TOKEN) + MARKUP * len(messages)


@for_the_same
def dumped(tools: Sequence[Json]) -> bytes:
    """Tools as JSON."""
    return dumps(tools)


_CALL, _RESULT = len("<tool_call>\n\n</tool_call>"), len("<tool_response>\n\n</tool_response>")


def row_estimate(size: int, tools: Sequence[Json]) -> int:
    """About the tokens of a row of so many bytes of JSON that offers these tools."""
    return -(-(size + 2 * len(INSTRUCTIONS) * bool(tools)) // BYTES_PER_TOKEN)


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


class Counted:
    """Tokens by a `tokenizer.json` (or a directory with one). Raises `UserError` where there is none.

    Without the chat template: its markup is taken as `MARKUP` tokens a message, calls and tools as we write them into texts.
    """

    def __init__(self, path: str) -> None:
        from tokenizers import Tokenizer

        file = Path(path) / "tokenizer.json" if Path(path).is_dir() else Path(path)
        if not file.is_file():
            raise UserError(f"--tokenizer {path}: there is no {file}; give a tokenizer.json, or a directory that holds one")
        try:
            self._tokenizer = Tokenizer.from_file(str(file))
        except Exception as error:
            raise UserError(f"--tokenizer {file}: {error}") from error

    def __call__(self, messages: Sequence[Json], tools: Sequence[Json] = ()) -> int:
        texts = [listed(tools), INSTRUCTIONS] if tools else []
        texts += [one["content"] for one in plain({**turn, "content": text_of(turn["content"])} for turn in messages)]
        found = self._tokenizer.encode_batch(texts, add_special_tokens=False)
        return sum(len(one.ids) for one in found) + MARKUP * len(messages)


def row_tokens(row: Json) -> int:
    """About how many tokens are in a row, anybody's; of a pair, in its longer half."""
    answers = row.get("completions")
    halves = answers if isinstance(answers, list) else [row[key] for key in ("chosen", "rejected") if key in row]
    shorter = min((sum(map(len, _texts(half))) for half in halves), default=0) if len(halves) == 2 else 0
    return (sum(map(len, _texts(row))) - shorter) // 4


def longest_of(file: Path, names: Sequence[str] = ()) -> int:
    """About the tokens of the longest of a file's first rows, in these of its fields (default: all); 0 where it cannot be
    read.

    A fifth less than estimated, which is what the estimate may be too high.
    """
    try:
        rows = parquet_rows(file) if file.suffix == ".parquet" else objects(file)
        some = ({name: _opened(row[name]) for name in names or row if name in row} for row in islice(rows, _SAMPLE))
        return max(map(row_tokens, some), default=0) * 4 // 5
    except (OSError, UserError):
        return 0


_SAMPLE = 200


def _opened(value: Any) -> Any:
    """Messages that are stored as JSON text."""
    return decoded(value) if isinstance(value, str) and value.startswith("[{") else value


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in islice(value, 1000):
            yield from _texts(inner)
