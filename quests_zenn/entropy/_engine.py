"""Exact kernel sums p(y) = sum_j w_j exp(-|y - x_j|^2 / 2 h^2), in tiles, on any number of threads.

One engine serves symmetric and cross sums, weights, several bandwidths, groups that do not see each other, and sums
kept apart by the part of the set that they come from. Which tiles are computed is said in `_plan`.

*Far points.* Sums are accumulated linearly. A row whose sum is too small to be trusted (everything is more than 35
bandwidths away; 9 in single precision) is done again relative to its own largest term, which is a log-sum-exp.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from quests_zenn._core.jit import kernel, strict_kernel
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
from quests_zenn.entropy._plan import MIRROR, SELF, Tiles, batches, count_pairs, plan_symmetric, row_tiles
from quests_zenn.entropy._tile import (
    ROWS,
    tile_row_maxima,
    tile_rows,
    tile_rows_and_columns,
    tile_rows_with_self,
)

#: Sums below 2^this, relative to the largest weight, are done again as a log-sum-exp.
TRUSTED = {"float64": -900.0, "float32": -60.0}

#: Rows of a packed set that are visited together: 512 rows of 63 components of float64 fill a quarter of a 1 MiB L2.
_ROWS_AT_ONCE = 512
#: Panels visited together: 4 panels of 63 components of float64 fill 32 KiB.
_PANELS_AT_ONCE = 4

#: Exponents to base 2 below which sums are taken from differences of coordinates: products leave them six digits.
FARTHEST = -1e8

Progress = Callable[[int], None]


@kernel
def recentre(packed, offsets, first, last, width, shift, moved, moved_norms):
    """Panels [first, last) moved by `shift` (d,), and their norms plus `offsets`, into scratch."""
    d = len(shift)
    totals = np.empty(width)
    for q in range(first, last):
        at, to = q * width * d, (q - first) * width * d
        totals[:] = 0.0
        for c in range(d):
            by = shift[c]
            for lane in range(width):
                value = packed[at + c * width + lane] + by
                moved[to + c * width + lane] = value
                totals[lane] += np.float64(value) * np.float64(value)
        for lane in range(width):
            moved_norms[(q - first) * width + lane] = totals[lane] + offsets[q * width + lane]


@strict_kernel
def nearest_exponent(moved_norms, row, radius):
    """Largest exponent that one of the rows [row, row + ROWS) can have to any point within `radius` of the centre.

    A bound: a ten-thousandth of the lengths is left to rounding, far more than it can take even in single precision.
    """
    bound = -np.inf
    for r in range(row, row + ROWS):
        length = math.sqrt(moved_norms[r])
        gap = max(0.0, length - radius - 1e-4 * (length + radius))
        bound = max(bound, -gap * gap)
    return bound


# strict: Numba writes a kernel's flags onto every instruction, and re-association would undo the rounding in 2^t
@strict_kernel
def sum_tiles(
    tiles, width, packed_a, offsets_a, weights_a, centres_a, panel_block_a, packed_b, norms_b, weights_b, centres_b,
    panel_block_b, radii_b, scale, d, scales, floor, parts_a, parts_b, sums,
):  # fmt: skip
    """Add the kernel sums of the tiles (first row, last row, first panel, last panel, kind) to `sums` (S, H, rows).

    What a row receives from columns of block b is added to ``sums[parts_b[b]]``. Kind `MIRROR` also adds the transposed
    tile, from the rows' block a, to ``sums[parts_a[a]]``; kind `SELF` has its rows among its columns. Rows are moved to
    the centre of the block of columns that they meet: pairs that matter are close, and then both are short vectors, so
    that the differences of squares lose little. Rows whose exponents to a whole block of columns are provably below
    `floor` are skipped; -inf skips nothing.
    """
    n_scales = len(scales)
    stride = sums.shape[2]
    moved = np.empty(_ROWS_AT_ONCE * d, packed_a.dtype)
    moved_norms = np.empty(_ROWS_AT_ONCE, packed_a.dtype)
    shift = np.empty(d, packed_a.dtype)
    needed = np.empty(_ROWS_AT_ONCE // ROWS, np.bool_)
    for tile in range(tiles.shape[0]):
        row_0, row_1, panel_0, panel_1, kind = tiles[tile]
        rows = row_0
        while rows < row_1:
            block_a = panel_block_a[rows // width]
            rows_end = rows + width
            while rows_end < min(row_1, rows + _ROWS_AT_ONCE) and panel_block_a[rows_end // width] == block_a:
                rows_end += width
            first = panel_0
            while first < panel_1:
                block_b = panel_block_b[first]
                last = first + 1
                while last < panel_1 and panel_block_b[last] == block_b:
                    last += 1
                for c in range(d):
                    shift[c] = (centres_a[block_a, c] - centres_b[block_b, c]) * scale
                recentre(packed_a, offsets_a, rows // width, rows_end // width, width, shift, moved, moved_norms)
                weights = weights_a[rows:rows_end]
                flat, mirror = sums[parts_b[block_b]].reshape(-1), sums[parts_a[block_a]].reshape(-1)
                for row in range(0, rows_end - rows, ROWS):
                    needed[row // ROWS] = (
                        floor == -np.inf or nearest_exponent(moved_norms, row, radii_b[block_b]) >= floor
                    )
                for panels in range(first, last, _PANELS_AT_ONCE):
                    panels_end = min(panels + _PANELS_AT_ONCE, last)
                    for row in range(0, rows_end - rows, ROWS):
                        if not needed[row // ROWS]:
                            continue
                        if kind == MIRROR:
                            tile_rows_and_columns(
                                moved, moved_norms, weights, packed_b, norms_b, weights_b, d, row, panels, panels_end,
                                scales, n_scales, flat, rows + row, stride, mirror, stride,
                            )  # fmt: skip
                        elif kind == SELF:
                            tile_rows_with_self(
                                moved, moved_norms, weights, packed_b, norms_b, weights_b, d, row, panels, panels_end,
                                scales, n_scales, flat, rows + row, stride, mirror, stride,
                            )  # fmt: skip
                        else:
                            tile_rows(
                                moved, moved_norms, weights, packed_b, norms_b, weights_b, d, row, panels, panels_end,
                                scales, n_scales, flat, rows + row, stride, mirror, stride,
                            )  # fmt: skip
                first = last
            rows = rows_end


@strict_kernel
def max_tiles(
    tiles, width, packed_a, offsets_a, weights_a, centres_a, panel_block_a, packed_b, norms_b, weights_b, centres_b,
    panel_block_b, radii_b, scale, d, scales, maxima,
):  # fmt: skip
    """Raise `maxima` (rows,) to the largest exponents to base 2 (of the first bandwidth) in the tiles."""
    moved = np.empty(width * d, packed_a.dtype)
    moved_norms = np.empty(width, packed_a.dtype)
    shift = np.empty(d, packed_a.dtype)
    for tile in range(tiles.shape[0]):
        row_0, row_1, panel_0, panel_1, _ = tiles[tile]
        for rows in range(row_0, row_1, width):
            block_a = panel_block_a[rows // width]
            for panel in range(panel_0, panel_1):
                block_b = panel_block_b[panel]
                if panel == panel_0 or block_b != panel_block_b[panel - 1]:
                    for c in range(d):
                        shift[c] = (centres_a[block_a, c] - centres_b[block_b, c]) * scale
                    first = rows // width
                    recentre(packed_a, offsets_a, first, first + 1, width, shift, moved, moved_norms)
                for row in range(0, width, ROWS):
                    tile_row_maxima(
                        moved, moved_norms, weights_a, packed_b, norms_b, weights_b, d, row, panel, panel + 1,
                        scales, 1, maxima, rows + row, 0, maxima, 0,
                    )  # fmt: skip


def check_extent(a: Packed, b: Packed, scale: float) -> None:
    """Refuse sets so far apart that squared distances overflow (in float64, at about 1e154 bandwidths)."""
    with np.errstate(over="ignore"):
        apart = np.ptp(np.concatenate([a.centres, b.centres]), axis=0) * scale
        longest = np.linalg.norm(apart) + sum(np.sqrt(p.norms[p.rows >= 0].max(initial=0.0)) for p in (a, b))
    if not longest < 0.5 * np.sqrt(np.finfo(a.panels.dtype).max):
        raise ValueError(
            f"x and y spread over so many bandwidths that squared distances overflow in {a.panels.dtype}"
            if a is not b
            else f"x spreads over so many bandwidths that squared distances overflow in {a.panels.dtype}"
        )


def run_tiles(
    rounds: Iterable[Tiles],
    a: Packed,
    b: Packed,
    scale: float,
    scales: FloatArray,
    sums: npt.NDArray[np.float64],
    workers: Workers,
    progress: Progress | None = None,
    parts: npt.NDArray[np.int64] | None = None,
    floor: float = -math.inf,
) -> None:
    """Add the tiles to `sums` (S, H, rows of a); `progress` is told the number of pairs done.

    `parts` says, for each block of b (and then of a, which is b), which of the S sums it counts to: the first for None.
    Exponents to base 2 (of the widest bandwidth) below `floor` may be left out.
    """
    check_extent(a, b, scale)
    parts_b = np.zeros(len(b.centres), np.int64) if parts is None else parts
    parts_a = parts_b if a is b else np.zeros(len(a.centres), np.int64)
    lowest = floor / float(scales.min())

    def work(tiles: Tiles) -> None:
        sum_tiles(tiles, a.width, *a.as_rows, *b.as_columns, scale, a.d, scales, lowest, parts_a, parts_b, sums)

    def done(tiles: Tiles) -> None:
        if progress is not None:
            progress(count_pairs(tiles, a.width))

    for tiles in rounds:
        workers.run(work, batches(tiles, a.width), done)


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
        sums = np.zeros((1, len(h), len(packed.rows)))
        scales = relative_scales(h, precision)
        floor = math.log2(skip / n) if skip > 0.0 and weights is None else -math.inf
        run_tiles(plan_symmetric(packed), packed, packed, scale, scales, sums, pool, progress, floor=floor)
        real = packed.rows >= 0
        out = np.empty((len(h), n))
        out[:, packed.rows[real]] = sums[0][:, real]
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
        sums = np.zeros((1, len(self.h), len(a.rows)))
        run_tiles([row_tiles(a, b)], a, b, scale, relative_scales(self.h, self.precision), sums, workers, progress)
        real = a.rows >= 0
        out = np.empty((len(self.h), len(y)))
        out[:, a.rows[real]] = sums[0][:, real]
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
