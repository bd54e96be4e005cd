"""Exact kernel sums p(y) = sum_j w_j exp(-|y - x_j|^2 / 2 h^2), in tiles, on any number of threads.

One engine serves symmetric and cross sums, weights, several bandwidths, groups that do not see each other, and sums
kept apart by the part of the set that they come from. Which tiles are computed is said in `_plan`.

*Far points.* Sums are accumulated linearly. A row whose sum is too small to be trusted (everything is more than 35
bandwidths away; 9 in single precision) is done again relative to its own largest term, which is a log-sum-exp.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from quests_zenn._core.jit import kernel
from quests_zenn._core.parallel import Workers, split_evenly, use_workers
from quests_zenn.entropy._packing import (
    SMALL,
    FloatArray,
    Packed,
    base_scale,
    pack_precisely,
    pack_rows,
    relative_scales,
)
from quests_zenn.entropy._plan import batches, plan_symmetric, row_tiles
from quests_zenn.entropy._squares import key_of_sums, sum_cross, sum_squares
from quests_zenn.entropy._sweep import Progress, check_extent, max_tiles, run_tiles

#: Sums below 2^this, relative to the largest weight, are done again as a log-sum-exp.
TRUSTED = {"float64": -900.0, "float32": -60.0}

#: Exponents to base 2 below which sums are taken from differences of coordinates: products leave them six digits.
FARTHEST = -1e8


def log_sums_within(
    x: FloatArray,
    h: npt.NDArray[np.float64],
    weights: npt.NDArray[np.float64] | None = None,
    groups: npt.NDArray[np.int64] | None = None,
    *,
    precision: str = "float64",
    skip: float = 0.0,
    jobs: int | None = None,
    workers: Workers | None = None,
    progress: Progress | None = None,
) -> npt.NDArray[np.float64]:
    """ln p of every environment within its own set, each counting itself.

    Parameters
    ----------
    x : (N, d)
    h : (H,) bandwidths
    weights : (N,) or None
        Non-negative, not all zero.
    groups : (N,) or None
        Whole numbers; environments of different groups do not see each other.
    skip : float
        Blocks may be left out where they provably add less than this share to any p; 0 leaves out nothing. (Without
        weights, p >= 1: terms below skip / N cannot add more. With weights nothing is left out.)

    Returns
    -------
    (H, N) natural logarithms, -inf where nothing of positive weight is in the group.
    """
    n = len(x)
    members = _members(groups, n)
    scale = base_scale(h[0])
    top = 1.0 if weights is None else float(weights.max())
    relative = None if weights is None else weights / top
    with use_workers(workers, jobs) as pool:
        packed, precision = pack_precisely(x, members, h, relative, precision, pool, "x")
        sums = np.zeros((len(h), len(packed.rows)))
        scales = relative_scales(h, precision)
        floor = math.log2(skip / n) if skip > 0.0 and weights is None else -math.inf
        key = ""
        if pool.keeper is not None:
            # sums are kept in the order of the packed rows
            key = key_of_sums("all pairs", packed.rows, x, h, weights, groups, precision, floor, packed.width)
        sum_squares(packed, scale, scales, sums, pool, progress, floor, key)
        real = packed.rows >= 0
        out = np.empty((len(h), n))
        out[:, packed.rows[real]] = sums[:, real]
        del sums, packed
        far = out < 2.0 ** TRUSTED[precision]
        np.log(out, out=out, where=~far)
        if far.any():  # only where weights are tiny: otherwise every row holds its own term, 1
            for row, row_far, bandwidth in zip(out, far, h, strict=True):
                for group in members:
                    rows = group[row_far[group]]
                    if len(rows):
                        shares = None if relative is None else relative[group]
                        row[rows] = _far_log_sums(x[rows], x[group], float(bandwidth), shares, pool)
    return out + math.log(top)


def log_sums_by_part(
    x: FloatArray,
    h: npt.NDArray[np.float64],
    parts: npt.NDArray[np.int64],
    *,
    y: FloatArray | None = None,
    precision: str = "float64",
    jobs: int | None = None,
    workers: Workers | None = None,
    progress: Progress | None = None,
) -> npt.NDArray[np.float64]:
    """ln of the sum over each part of a set x, for every row of y, or of x: (S, H, n) in one pass over all pairs.

    `parts` (N,) holds whole numbers 0 .. S - 1, each at least once. Their log-sum-exp over S is ln p over the whole.
    """
    members = _members(parts, len(x))
    scale, asked = base_scale(h[0]), x if y is None else y
    with use_workers(workers, jobs) as pool:
        b, precision = pack_precisely(x, members, h, None, precision, pool, "x", len(asked))
        a = b if y is None else pack_rows(y, [np.arange(len(y))], scale, None, precision, pool, "y")
        sums = np.zeros((len(members), len(h), len(a.rows)))
        part_of_block = np.repeat(np.arange(len(members)), np.diff(b.group_blocks))
        rounds = plan_symmetric(b, across=True) if y is None else [row_tiles(a, b)]
        run_tiles(rounds, a, b, scale, relative_scales(h, precision), sums, pool, progress, part_of_block)
        real = a.rows >= 0
        out = np.empty((len(members), len(h), len(asked)))
        out[:, :, a.rows[real]] = sums[:, :, real]
        del sums, a, b
        _finish(out, asked, x, members, h, None, precision, pool)
    return out


@dataclass(frozen=True)
class PackedReference:
    """A set that others are compared with, packed once."""

    x: FloatArray  #: rows of positive weight
    h: npt.NDArray[np.float64]
    relative: npt.NDArray[np.float64] | None  #: weights over the largest of them
    log_top: float  #: ln of the largest weight
    packed: Packed
    precision: str
    as_they_are: bool = False  #: rows were not brought together with their neighbours

    @classmethod
    def pack(
        cls, x: FloatArray, h: npt.NDArray[np.float64], weights: npt.NDArray[np.float64] | None, precision: str,
        workers: Workers, partners: int, as_they_are: bool = False,
    ) -> PackedReference:  # fmt: skip
        """Pack the rows of positive weight (there must be one), to be compared with about so many partners.

        `as_they_are` is for a stated precision whose digits suffice for vectors as long as the set is wide.

        Raises
        ------
        ValueError
            If the rows spread over more than squares can tell.
        """
        if weights is not None and not (weights > 0.0).all():
            x, weights = x[weights > 0.0], weights[weights > 0.0]
        top = 1.0 if weights is None else float(weights.max())
        relative = None if weights is None else weights / top
        all_rows = [np.arange(len(x))]
        name = "the reference"
        if as_they_are:
            packed = pack_rows(x, all_rows, base_scale(h[0]), relative, precision, workers, name, as_they_are=True)
        else:
            packed, precision = pack_precisely(x, all_rows, h, relative, precision, workers, name, partners)
        return cls(x, h, relative, math.log(top), packed, precision, as_they_are)

    def sums(self, y: FloatArray, workers: Workers, progress: Progress | None = None) -> npt.NDArray[np.float64]:
        """Kernel sums (H, n) of every row of y, relative to the largest weight; 0 where they are too small."""
        scale = base_scale(self.h[0])
        b, all_rows = self.packed, [np.arange(len(y))]
        a = pack_rows(y, all_rows, scale, None, self.precision, workers, "y", as_they_are=self.as_they_are)
        sums = np.zeros((len(self.h), len(a.rows)))
        sum_cross(a, b, scale, relative_scales(self.h, self.precision), sums, workers, progress)
        real = a.rows >= 0
        out = np.empty((len(self.h), len(y)))
        out[:, a.rows[real]] = sums[:, real]
        return out

    def log_sums(self, y: FloatArray, workers: Workers, progress: Progress | None = None) -> npt.NDArray[np.float64]:
        """ln p of every row of y, finite at any distance: (H, n)."""
        if len(y) == 0:
            return np.empty((len(self.h), 0))
        out = self.sums(y, workers, progress)[None]
        _finish(out, y, self.x, [np.arange(len(self.x))], self.h, self.relative, self.precision, workers)
        return out[0] + self.log_top


def log_sums_against(
    y: FloatArray,
    x: FloatArray,
    h: npt.NDArray[np.float64],
    weights: npt.NDArray[np.float64] | None = None,
    *,
    precision: str = "float64",
    jobs: int | None = None,
    workers: Workers | None = None,
    progress: Progress | None = None,
) -> npt.NDArray[np.float64]:
    """ln p of every row of y (n, d) given the reference x (N, d): an array (H, n). See `log_sums_within`."""
    if len(y) == 0 or len(x) == 0 or (weights is not None and not weights.any()):
        return np.full((len(h), len(y)), -np.inf)
    with use_workers(workers, jobs) as pool:
        if precision == "auto" and len(x) * len(y) >= SMALL**2:  # rows that are scattered widely want digits, too
            precision = pack_precisely(y, [np.arange(len(y))], h, None, "auto", pool, "y", len(x))[1]
            precision = "auto" if precision == "float32" else precision
        return PackedReference.pack(x, h, weights, precision, pool, len(y)).log_sums(y, pool, progress)


def _finish(
    sums: npt.NDArray[np.float64],
    y: FloatArray,
    x: FloatArray,
    members: list[npt.NDArray[np.int64]],
    h: npt.NDArray[np.float64],
    relative: npt.NDArray[np.float64] | None,
    precision: str,
    workers: Workers,
) -> None:
    """Turn sums (S, H, n) of y over parts of x into logarithms, in place; what is too small is done again."""
    for of_part, part in zip(sums, members, strict=True):
        for row, bandwidth in zip(of_part, h, strict=True):
            far = row < 2.0 ** TRUSTED[precision]
            np.log(row, out=row, where=~far)
            if far.any():
                shares = None if relative is None else relative[part]
                row[far] = _far_log_sums(y[far], x[part], float(bandwidth), shares, workers)


def _members(groups: npt.NDArray[np.int64] | None, n: int) -> list[npt.NDArray[np.int64]]:
    """Rows of each group."""
    if groups is None:
        return [np.arange(n)]
    order = np.argsort(groups, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)


def _far_log_sums(
    y: FloatArray, x: FloatArray, h: float, weights: FloatArray | None, workers: Workers
) -> npt.NDArray[np.float64]:
    """ln p as log-sum-exp in two passes, in float64: the largest exponent of each row, then sums relative to it."""
    if weights is not None:
        x, weights = x[weights > 0.0], weights[weights > 0.0]
    if len(x) == 0:
        return np.full(len(y), -np.inf)
    scale, one = base_scale(h), np.ones(1)
    b = pack_rows(x, [np.arange(len(x))], scale, None, "float64", workers, "the reference")
    a = pack_rows(y, [np.arange(len(y))], scale, None, "float64", workers, "y")
    if weights is not None:  # in the exponent, so that the largest term is the largest with its weight
        real = b.rows >= 0
        b.norms[real] -= np.log2(weights[b.rows[real]])
    tiles = row_tiles(a, b)
    check_extent(a, b, scale)
    maxima = np.full(len(a.norms), -np.inf)
    workers.run(
        lambda part: max_tiles(part, a.width, *a.as_rows, *b.as_columns, scale, a.d, one, maxima),
        batches(tiles, a.width),
    )
    real = a.rows >= 0
    a.offsets[real] = maxima[real]
    sums = np.zeros((1, 1, len(a.rows)))
    run_tiles([tiles], a, b, scale, one, sums, workers)
    out, nearest = np.empty(len(y)), np.empty(len(y))
    nearest[a.rows[real]] = maxima[real]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        out[a.rows[real]] = maxima[real] * math.log(2.0) + np.log(sums[0, 0, real])
    # differences of squares as large as these leave too few digits to the exponents
    lost = np.flatnonzero(~np.isfinite(out) | (nearest < FARTHEST))
    log_weights = np.zeros(len(x)) if weights is None else np.log(weights)
    workers.run(
        lambda part: log_sums_directly(y, lost[slice(*part)], x, 0.5 / h**2, log_weights, out),
        split_evenly(len(lost), max(1, 1_000_000 // len(x))),
    )
    return out


@kernel
def log_sums_directly(y, rows, x, scale, log_weights, out):
    """``out[i] = ln sum_j exp(log_weights[j] - |y_i - x_j|^2 scale)`` for i of `rows`, from differences."""
    n, d = x.shape
    exponents = np.empty(n)
    for i in rows:
        highest = -np.inf
        for j in range(n):
            squared = 0.0
            for c in range(d):
                apart = np.float64(y[i, c]) - np.float64(x[j, c])
                squared += apart * apart
            exponents[j] = log_weights[j] - squared * scale
            highest = max(highest, exponents[j])
        total = 0.0
        for j in range(n):
            total += math.exp(exponents[j] - highest)
        out[i] = highest + math.log(total)
