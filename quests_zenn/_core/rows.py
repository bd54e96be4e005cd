"""Environments that need not be in memory: a matrix that is read in pieces."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from quests_zenn._core.remote import fingerprint

FloatArray = npt.NDArray[np.floating]

#: Bytes (as float64) of the rows that are in memory at a time.
PIECE_BYTES = 2**27


@runtime_checkable
class Rows(Protocol):
    """A matrix (N, d) that is read in pieces. Rows are finite."""

    @property
    def token(self) -> str:
        """Equal for equal contents, and else different."""
        ...

    @property
    def shape(self) -> tuple[int, int]:
        """(N, d)"""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32 or float64"""
        ...

    def __len__(self) -> int: ...

    def read(self, first: int, last: int) -> FloatArray:
        """Rows [first, last)."""
        ...

    def take(self, rows: npt.NDArray[np.integer]) -> FloatArray:
        """Some rows, in the order asked for. One pass over the matrix."""
        ...

    def piece(self, first: int, last: int) -> Any:
        """Rows [first, last) for another process: an array, or a `quests_zenn._core.remote.Piece`."""
        ...


@dataclass(frozen=True)
class MemoryRows:
    """A matrix in memory, which is read like one that is not."""

    x: FloatArray

    @cached_property
    def token(self) -> str:
        """Of the contents, which are read for it."""
        return fingerprint(self.x)

    @property
    def shape(self) -> tuple[int, int]:
        """(N, d)"""
        return self.x.shape[0], self.x.shape[1]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the matrix."""
        return self.x.dtype

    def __len__(self) -> int:
        return len(self.x)

    def read(self, first: int, last: int) -> FloatArray:
        """Rows [first, last), not copied."""
        return self.x[first:last]

    def take(self, rows: npt.NDArray[np.integer]) -> FloatArray:
        """Some rows."""
        return self.x[rows]

    def piece(self, first: int, last: int) -> FloatArray:
        """Rows [first, last)."""
        return self.x[first:last]


@dataclass(frozen=True)
class SomeRows:
    """Some rows of a matrix, in ascending order, as a matrix."""

    whole: Rows
    members: npt.NDArray[np.integer]

    @cached_property
    def token(self) -> str:
        """Of the whole, and of which rows are meant."""
        return fingerprint(self.whole.token, self.members)

    @property
    def shape(self) -> tuple[int, int]:
        """(number of members, d)"""
        return len(self.members), self.whole.shape[1]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the matrix."""
        return self.whole.dtype

    def __len__(self) -> int:
        return len(self.members)

    def read(self, first: int, last: int) -> FloatArray:
        """Rows [first, last)."""
        return self.whole.take(self.members[first:last])

    def take(self, rows: npt.NDArray[np.integer]) -> FloatArray:
        """Some rows."""
        return self.whole.take(self.members[rows])

    def piece(self, first: int, last: int) -> Any:
        """Rows [first, last), to be taken from the whole where they are needed."""
        whole = self.whole.piece(0, 0)
        return _Taken(whole, self.members[first:last]) if hasattr(whole, "source") else self.read(first, last)


@dataclass(frozen=True, eq=False)
class _Taken:
    """Some rows of a matrix that another process opens."""

    whole: Any
    members: npt.NDArray[np.integer]

    def load(self) -> FloatArray:
        """The rows."""
        found: FloatArray = self.whole.source().take(self.members)
        return found


def piece_rows(d: int) -> int:
    """Rows of a piece: a function of the width alone, so that sums do not depend on anything else."""
    return 1 << max(10, (PIECE_BYTES // (8 * d)).bit_length() - 1)


def piece_edges(n: int, d: int) -> list[tuple[int, int]]:
    """Pieces of a matrix (n, d): first row, and the one after the last."""
    return list(pairwise([*range(0, n, piece_rows(d)), n]))


def read_ahead(rows: Rows, edges: list[tuple[int, int]]) -> Iterator[FloatArray]:
    """Pieces of a matrix, the next of which is read while the one before is in use."""
    with ThreadPoolExecutor(1, thread_name_prefix="quests_zenn_reader") as reader:
        coming = None
        for number, _ in enumerate(edges):
            piece = (coming or reader.submit(rows.read, *edges[number])).result()
            coming = reader.submit(rows.read, *edges[number + 1]) if number + 1 < len(edges) else None
            yield piece
