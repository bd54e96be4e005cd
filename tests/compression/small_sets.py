"""Small data sets of every awkward kind, as lists of matrices."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from quests_zenn.compression import DatasetCompressor

Array = npt.NDArray[np.float64]

#: Bandwidth at which they are neither all alike nor all strangers.
H = 0.5

KINDS = ("random", "clustered", "duplicates", "copies", "equal", "atoms", "lattice", "outliers", "strangers")


def make(kind: str, n: int, seed: int = 0, d: int = 3, largest: int = 6) -> list[Array]:
    """`n` structures of 1 to `largest` environments."""
    rng = np.random.default_rng([KINDS.index(kind), n, seed])
    sizes = rng.integers(1, largest + 1, size=n).tolist()
    if kind == "equal":
        return [np.full((size, d), 0.1) for size in sizes]
    if kind == "atoms":
        return [rng.normal(size=(1, d)) for _ in sizes]
    if kind == "lattice":  # many distances that are equal but for rounding
        return [0.3 * rng.integers(-2, 3, size=(size, d)) for size in sizes]
    if kind == "duplicates":
        pool = rng.normal(size=(4, d))
        return [pool[rng.integers(4, size=size)] for size in sizes]
    if kind == "clustered":
        centres = 3.0 * rng.normal(size=(3, d))
        return [centres[rng.integers(3)] + 0.3 * rng.normal(size=(size, d)) for size in sizes]
    made = [rng.normal(size=(size, d)) for size in sizes]
    if kind == "strangers":  # nobody knows anybody
        return [100.0 * x for x in made]
    if kind == "copies":
        return [made[rng.integers(1 + n // 2)].copy() for _ in range(n)]
    if kind == "outliers":
        for number, far in zip(rng.permutation(n)[:4], (1e3, 1e3, 1e7, 1e100), strict=False):
            made[number][-1] *= far * H
    return made


def compressor(structures: list[Array], h: float = H, **options: Any) -> DatasetCompressor:
    """The same as a data set, on one thread unless told otherwise."""
    offsets = np.concatenate([[0], np.cumsum([len(x) for x in structures])])
    return DatasetCompressor.from_environments(np.concatenate(structures), offsets, h, **{"jobs": 1, **options})
