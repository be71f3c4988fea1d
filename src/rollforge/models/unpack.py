"""Packed bodies: gzip and deflate, as `Content-Encoding` names them."""

from __future__ import annotations

import zlib
from typing import Any

from rollforge.models.broken import CutOff, TooLarge


class Unpacking:
    """Undoes gzip and deflate, up to the limit: a small body may unpack to a huge one."""

    def __init__(self, kind: str, limit: int) -> None:
        if kind not in ("gzip", "x-gzip", "deflate"):
            raise CutOff(f"it is packed as {kind!r:.100}, which was not asked for")
        self.ended = True
        self._gzip = kind != "deflate"
        self._limit = limit
        self._size = 0
        self._inner: Any = None

    def add(self, data: bytes) -> bytes:
        """What it unpacks to. Raises `CutOff` for what does not, `TooLarge`."""
        found = []
        try:
            while data:
                if self.ended:
                    # Some servers leave out what should be around it.
                    bare = not self._gzip and data[0] & 15 != zlib.DEFLATED
                    self._inner = zlib.decompressobj(31 if self._gzip else -15 if bare else 15)
                found.append(self._inner.decompress(data, self._limit - self._size + 1))
                self._size += len(found[-1])
                if self._size > self._limit:
                    raise TooLarge
                self.ended, data = self._inner.eof, self._inner.unused_data
        except zlib.error as error:
            raise CutOff(f"it cannot be unpacked: {error}") from None
        return b"".join(found)
