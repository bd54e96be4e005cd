"""Tiles of a plan, computed: the loops around the innermost step, and a list of tiles on threads."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt

from quests_zenn._core.jit import kernel, strict_kernel
from quests_zenn._core.parallel import Workers
from quests_zenn.entropy._packing import FloatArray, Packed
from quests_zenn.entropy._plan import MIRROR, SELF, Tiles, batches, count_pairs
from quests_zenn.entropy._tile import (
    ROWS,
    tile_row_maxima,
    tile_rows,
    tile_rows_and_columns,
    tile_rows_with_self,
)

#: Rows of a packed set that are visited together: 512 rows of 63 components of float64 fill a quarter of a 1 MiB L2.
ROWS_AT_ONCE = 512
#: Panels visited together: 4 panels of 63 components of float64 fill 32 KiB.
PANELS_AT_ONCE = 4

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
    moved = np.empty(ROWS_AT_ONCE * d, packed_a.dtype)
    moved_norms = np.empty(ROWS_AT_ONCE, packed_a.dtype)
    shift = np.empty(d, packed_a.dtype)
    needed = np.empty(ROWS_AT_ONCE // ROWS, np.bool_)
    for tile in range(tiles.shape[0]):
        row_0, row_1, panel_0, panel_1, kind = tiles[tile]
        rows = row_0
        while rows < row_1:
            block_a = panel_block_a[rows // width]
            rows_end = rows + width
            while rows_end < min(row_1, rows + ROWS_AT_ONCE) and panel_block_a[rows_end // width] == block_a:
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
                for panels in range(first, last, PANELS_AT_ONCE):
                    panels_end = min(panels + PANELS_AT_ONCE, last)
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
