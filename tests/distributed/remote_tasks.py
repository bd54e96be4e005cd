"""What the tests let worker processes do; they import this module."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from quests_zenn import DataError

Array = np.ndarray


def dot(a: Array, b: Array, factor: float) -> Array:
    return factor * a * b[::-1]  # no product of matrices: its bits depend on threads


def slow_dot(a: Array, b: Array, factor: float, seconds: float) -> Array:
    time.sleep(seconds)
    return dot(a, b, factor)


def number(n: int) -> int:
    return n


def slow_number(n: int, seconds: float) -> int:
    time.sleep(seconds)
    return n


def refuse(n: int, folder: str) -> int:
    if n == 7:
        with open(Path(folder) / "tries", "a") as stream:
            stream.write("x")
        raise DataError("set 7, frame 3: has no atoms; leave it out")
    return n


def no_memory(n: int) -> int:
    raise MemoryError("no")


def deadly(piece: Array, n: int) -> int:
    if n == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return n


def layout(piece: Array, argument: Array) -> tuple[Array, Array]:
    """Arrays of odd length before others: what comes over a connection begins anywhere."""
    for array in (piece, argument):
        assert array.flags.aligned
        assert array.flags.writeable
        assert array.ctypes.data % 16 == 0
    return piece, argument


def total(piece: Array, argument: Array) -> float:
    return float(piece.sum() + argument.sum())


def threads() -> dict[str, str | None]:
    import numba

    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return {"numba": str(numba.config.NUMBA_NUM_THREADS), **{name: os.environ.get(name) for name in names}}


@dataclass(frozen=True)
class Row:
    """A piece that a worker reads by itself, and notes down that it did."""

    path: str
    row: int

    def load(self) -> Array:
        with open(f"{self.path}.{os.getpid()}.{self.row}", "a") as stream:
            stream.write("x")
        return np.load(self.path)[self.row]


def wait_with(piece: list[float], n: int) -> int:
    time.sleep(piece[0])
    return n
