"""Which rows of a stream are the same, by digests: numbers instead of sets, a few dozen bytes per row and no text."""

from __future__ import annotations

import os
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rollforge.curate.step import Sample

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Distinct:
    """Rows by the 16-byte digest of what they are compared by, and where the rows are."""

    def __init__(self, places: bool = True) -> None:
        """`places`: whether where the rows are and their rewards are wanted, too."""
        self._digests = bytearray()
        self._count = 0
        self._wanted = places
        self._sources = array("i")
        self._places = array("q")
        self.rewards = array("d")

    def watch(self, samples: Iterable[Sample], key: Callable[[Sample], bytes]) -> Iterator[Sample]:
        """The samples as they are, each taken down on its way."""
        sources, places, rewards = self._sources.append, self._places.append, self.rewards.append
        for sample in samples:
            self._digests += key(sample)
            self._count += 1
            if self._wanted:
                sources(sample.source)
                places(sample.at)
                rewards(sample.reward)
            yield sample

    def __len__(self) -> int:
        return self._count

    def place(self, row: int) -> tuple[int, int]:
        """(number of the file, byte) of the row that came as number `row`."""
        return self._sources[row], self._places[row]

    def firsts(self, numbers: Any, count: int, rank: Any) -> NDArray[np.int64]:
        """For every number below `count`, of the rows that have it (`numbers`: of each row) the one with the lowest rank, of
        equals the first as they were read, whatever the order in which they come; 0 without a row."""
        import numpy as np

        ranks = () if rank is None else (rank,)
        order = np.lexsort((np.frombuffer(self._places, np.int64), np.frombuffer(self._sources, np.int32), *ranks, numbers))
        found = np.zeros(count, np.int64)
        found[numbers[order][::-1]] = order[::-1]  # of those with one number the last assignment stays
        return found

    def numbers(self) -> tuple[NDArray[np.int32], NDArray[np.uint64]]:
        """For every row the number of its digest, counted in the order of the digests; and these, as pairs of 64 bits."""
        import numpy as np

        halves = np.frombuffer(self._digests, ">u8").reshape(-1, 2).astype(np.uint64)
        self._digests = bytearray()
        order = np.lexsort((halves[:, 1], halves[:, 0]))
        halves = halves[order]
        new = np.ones(len(halves), bool)
        new[1:] = (halves[1:] != halves[:-1]).any(axis=1)
        numbers = np.empty(len(halves), np.int32)
        numbers[order] = np.cumsum(new, dtype=np.int32) - np.int32(1)
        return numbers, halves[new]


class Signatures:
    """Signatures of the texts that rows are compared by: on disk, one per text (or a few, where its rows are far apart)."""

    def __init__(self, folder: str | Path, size: int) -> None:
        self.size = size
        """Bytes of a signature."""
        self._file = tempfile.TemporaryFile(dir=folder, prefix="rollforge-")
        self._seen: set[bytes] = set()
        self._rows = array("q")

    def add(self, row: int, key: bytes, signature: bytes) -> None:
        """The signature of a row; rows with the same key have the same one."""
        if key not in self._seen:
            if len(self._seen) >= _RECENT:
                self._seen.clear()
            self._seen.add(key)
            self._file.write(signature)
            self._rows.append(row)

    def settle(self, numbers: NDArray[np.int32], count: int) -> None:
        """To be asked by the numbers, below `count`, of `Distinct.numbers`. Nothing is added any more."""
        import numpy as np

        self._file.flush()
        self._seen.clear()
        texts = numbers[np.frombuffer(self._rows, np.int64)]
        lines = np.arange(len(texts), dtype=np.int32)
        self._lines = np.zeros(count, np.int32)
        self._lines[texts] = lines
        self._texts = np.where(self._lines[texts] == lines, texts, -1)
        self._rows = array("q")

    def __len__(self) -> int:
        """The number of texts, once settled."""
        return len(self._lines)

    def of(self, texts: Any) -> NDArray[np.uint8]:
        """The signatures of some texts."""
        import numpy as np

        # Read, not mapped: what is mapped counts as memory of the process.
        file, size = self._file.fileno(), self.size
        read = b"".join([os.pread(file, size, line * size) for line in self._lines[texts].tolist()])
        found: NDArray[np.uint8] = np.frombuffer(read, np.uint8).reshape(-1, size)
        return found

    def band(self, start: int, width: int) -> NDArray[np.uint64]:
        """`width` (at most 8) bytes of every signature, as a number for each text."""
        import numpy as np

        keys = np.zeros((len(self), 8), np.uint8)
        self._file.seek(0)
        for at in range(0, len(self._texts), _AT_ONCE):
            texts = self._texts[at : at + _AT_ONCE]
            table = np.frombuffer(self._file.read(len(texts) * self.size), np.uint8).reshape(-1, self.size)
            chosen = texts >= 0
            keys[texts[chosen], :width] = table[chosen, start : start + width]
        return keys.view(np.uint64).ravel()

    def close(self) -> None:
        self._file.close()


_RECENT = 1 << 14
_AT_ONCE = 1 << 15
