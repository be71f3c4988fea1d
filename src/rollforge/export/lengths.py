"""How many tokens an example has: counted by a tokenizer where one is at hand, else estimated from its bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

from rollforge.bulk.parquet import parquet_rows
from rollforge.errors import UserError
from rollforge.export.check_rows import decoded
from rollforge.export.text import listed, plain
from rollforge.models.template import local
from rollforge.records.items import BYTES_PER_TOKEN, Json, inside, text_of
from rollforge.records.lossless import dumps, loads
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

        file = local(path)
        file = file / "tokenizer.json" if file.is_dir() else file
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


def surely(estimated: int) -> int:
    """The tokens that there are at the least: an estimate may be a fifth too high."""
    return estimated * 4 // 5


def row_tokens(row: Json) -> int:
    """About how many tokens are in a row, anybody's: texts, calls and schemas as JSON, the instructions around tools and
    `MARKUP` tokens a message; of a pair, in its longer half."""
    answers = row.get("completions")
    halves = answers if isinstance(answers, list) else [row[key] for key in ("chosen", "rejected") if key in row]
    shorter = min(map(_size, halves)) if len(halves) == 2 else 0
    return (_size(list(row.values())) + len(INSTRUCTIONS) * bool(row.get("tools")) - shorter) // BYTES_PER_TOKEN


def longer_in(file: Path, limit: int, names: Sequence[str] = ()) -> int:
    """About the tokens of a file's longest row, 0 if even that may have no more than `limit`: as the export that wrote it
    counted, else of the first rows that are long enough, in these of their fields (default: all). 0 where it cannot be read.
    """
    if (counted := _counted(file)) is not None:
        return counted if counted > limit else 0
    try:
        # A line of fewer bytes cannot hold so many tokens.
        least = limit * BYTES_PER_TOKEN // 2 - len(INSTRUCTIONS) + 1
        rows = _long(file, least) if file.suffix == ".parquet" else objects(file, least)
        some = ({name: _opened(row[name]) for name in names or row if name in row} for row in islice(rows, _SAMPLE))
        longest = max(map(row_tokens, some), default=0)
        return longest if surely(longest) > limit else 0
    except (OSError, UserError):
        return 0


_SAMPLE = 200


def _long(file: Path, least: int) -> Iterator[Json]:
    """Rows of a Parquet file of at least so many bytes of JSON."""
    return (row for row in parquet_rows(file) if len(dumps(row, default=str)) >= least)


def _counted(file: Path) -> int | None:
    """The tokens of its longest row by the manifest beside it, if a tokenizer counted them and the file is as it was."""
    try:
        manifest = loads((file.absolute().parent / "manifest.json").read_bytes())
        size = file.stat().st_size
    except (OSError, ValueError):
        return None
    found = inside(manifest, "files", file.name)
    if not inside(manifest, "settings", "tokenizer") or inside(found, "bytes") != size:
        return None
    tokens = inside(found, "tokens")
    return tokens if type(tokens) is int else None


def _opened(value: Any) -> Any:
    """Messages and tools that are stored as JSON text."""
    if value == "null":
        return None
    return decoded(value) if isinstance(value, str) and value.startswith("[{") else value


def _size(value: Any) -> int:
    """Bytes, about, that a chat template makes of it."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, list):
        return sum(map(_size, islice(value, 1000)))
    if not isinstance(value, dict):
        return 0
    if "role" not in value and "from" not in value:  # a call, a schema
        return len(dumps(value))
    return sum(_size(inner) for key, inner in value.items() if key != "role") + MARKUP * BYTES_PER_TOKEN
