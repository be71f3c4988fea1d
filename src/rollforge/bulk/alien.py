"""Files that are not JSON Lines, told by how they begin: what they are, and the command that makes JSON Lines of them."""

from __future__ import annotations

import os
import shlex
from codecs import BOM_UTF8
from pathlib import Path

from rollforge.bulk.original import regular
from rollforge.errors import UserError, reported

HEAD = 4096
"""So many bytes of a file are enough."""


def alien(first: bytes, file: str | Path = "FILE") -> str | None:
    """What a file that begins like this is instead of JSON Lines, with the remedy; None if it may be JSON Lines (an empty
    file, and one with broken lines, may be). `file` is named in the remedy."""
    path, quoted = Path(file), shlex.quote(str(file))
    # Beside the file, and never the file itself: a shell empties what it writes to before the command reads.
    into = shlex.quote(str(path.with_name(f"{path.name.removesuffix(path.suffix).removesuffix('.jsonl')}.rows.jsonl")))
    for magic, name, remedy in _MAGIC:
        if first.startswith(magic):
            return f"the file is {name}: {remedy.format(file=quoted, into=into)}"
    if b"\0" in first:
        return "the file is binary, not JSON Lines"
    text = first.removeprefix(BOM_UTF8).lstrip()
    if _begins_array(text):
        what, command = "one JSON array", "jq -c '.[]'"
    elif text.partition(b"\n")[0].strip() == b"{":
        what, command = "one JSON object over many lines", "jq -c ."
    else:
        return None
    return f"the file is {what}, not one object per line: {command} < {quoted} > {into}"


def alien_file(file: str | Path) -> str | None:
    """The same of a file."""
    with open(file, "rb") as handle:
        return alien(handle.read(HEAD), file)


def is_array(file: str | Path) -> bool:
    """Whether a file is one JSON array, by its two ends."""
    with open(file, "rb") as handle:
        begins = _begins_array(handle.read(HEAD).removeprefix(BOM_UTF8).lstrip())
        handle.seek(max(0, os.fstat(handle.fileno()).st_size - HEAD))
        return begins and handle.read().rstrip().endswith(b"]")


def _begins_array(text: bytes) -> bool:
    line, _, rest = text.partition(b"\n")
    return text.startswith(b"[") and not (line.strip().endswith(b"]") and rest.lstrip().startswith(b"{"))


def refuse_alien(file: str | Path) -> None:
    """Raises `UserError` for a file that is not JSON Lines, or that cannot be read."""
    regular(file)
    with reported(f"cannot read {file}"):
        found = alien_file(file)
    if found:
        raise UserError(f"{file}: {found}")


_MAGIC = (
    (b"\x1f\x8b", "compressed (gzip)", "gunzip < {file} > {into}"),
    (b"\x28\xb5\x2f\xfd", "compressed (zstd)", "unzstd < {file} > {into}"),
    (b"BZh", "compressed (bzip2)", "bunzip2 < {file} > {into}"),
    (b"\xfd7zXZ", "compressed (xz)", "unxz < {file} > {into}"),
    (b"PK\x03\x04", "a zip archive", "unzip {file} first"),
    (b"PAR1", "Parquet, not JSON Lines", "write it with datasets' to_json"),
    (b"ARROW1", "an Arrow file", "write it with datasets' to_json"),
    (b"\xff\xfe", "UTF-16", "iconv -f utf-16 -t utf-8 < {file} > {into}"),
    (b"\xfe\xff", "UTF-16", "iconv -f utf-16 -t utf-8 < {file} > {into}"),
    (b"version https://git-lfs", "a Git LFS pointer, not the data", "git lfs pull"),
)
