"""Exact kernel sums p(y) = sum_j w_j exp(-|y - x_j|^2 / 2 h^2), in tiles, on any number of threads.

One engine serves symmetric and cross sums, weights, several bandwidths and groups that do not see each other.

*Symmetric sums* compute each pair of a group once. The rows of a group are cut into blocks; pairs of blocks are
played like a round-robin tournament, in which each block meets every other once and no block plays twice in a round.
Within a round all tiles touch different rows, so threads need no locks; rounds follow each other, so every row
receives its parts in one fixed order. The plan depends on the sizes alone, hence the sums are the same bits for any
number of threads, and memory stays O(N d).

*Far points.* Sums are accumulated linearly. A row whose sum is too small to be trusted (everything is more than about
30 bandwidths away) is done again relative to its own largest term, which is a log-sum-exp.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from quests_zenn._core.jit import kernel, strict_kernel
from quests_zenn._core.parallel import Workers, split_evenly, use_workers
from quests_zenn.entropy._tile import ROWS, panel_width, tile_row_maxima, tile_rows, tile_rows_and_columns

FloatArray = npt.NDArray[np.floating]

#: Sums below 2^this, relative to the largest weight, are done again as a log-sum-exp.
TRUSTED = {"float64": -900.0, "float32": -60.0}

#: Pairs of environments in one task: some milliseconds of work, so that dispatching is cheap and Ctrl-C quick.
PAIRS_PER_TASK = 8_000_000

#: Rows of a packed set that are visited together: 512 rows of 63 components of float64 fill a quarter of a 1 MiB L2.
_ROWS_AT_ONCE = 512
#: Panels visited together: 4 panels of 63 components of float64 fill 32 KiB.
_PANELS_AT_ONCE = 4

Progress = Callable[[int], None]


@kernel
def pack(x, rows, first, last, width, centre, scale, packed, norms):
    """Fill panels [first, last): component c of lane l of panel q is ``(x[i, c] - centre[c]) * scale``.

    ``i = rows[q * width + l]``; -1 stands for padding. `norms` gets the squared length of each packed row, inf for
    padding (and NaN or inf where x is not finite).
    """
    d = x.shape[1]
    for q in range(first, last):
        at = q * width * d
        for lane in range(width):
            i = rows[q * width + lane]
            norm = 0.0
            if i < 0:
                norm = np.inf
                for c in range(d):
                    packed[at + c * width + lane] = 0.0
            else:
                for c in range(d):
                    packed[at + c * width + lane] = (x[i, c] - centre[c]) * scale
                    value = float(packed[at + c * width + lane])
                    norm += value * value
            norms[q * width + lane] = norm


# strict: Numba writes a kernel's flags onto every instruction, and re-association would undo the rounding in 2^t
@strict_kernel
def sum_tiles(
    tiles, width, packed_a, norms_a, weights_a, packed_b, norms_b, weights_b, d, scales, sums, columns
):  # fmt: skip
    """Add the kernel sums of the tiles (first row, last row, first panel, last panel, mirror) to `sums` (H, rows).

    With `mirror`, the transposed tile is added to `columns`.
    """
    n_scales = len(scales)
    stride = sums.shape[1]
    columns_stride = columns.shape[1]
    flat, flat_columns = sums.reshape(-1), columns.reshape(-1)
    for tile in range(tiles.shape[0]):
        row_0, row_1, panel_0, panel_1, mirror = tiles[tile]
        for rows in range(row_0, row_1, _ROWS_AT_ONCE):
            rows_end = min(rows + _ROWS_AT_ONCE, row_1)
            for panels in range(panel_0, panel_1, _PANELS_AT_ONCE):
                panels_end = min(panels + _PANELS_AT_ONCE, panel_1)
                for row in range(rows, rows_end, ROWS):
                    if mirror:
                        tile_rows_and_columns(
                            packed_a, norms_a, weights_a, packed_b, norms_b, weights_b, d, row, panels, panels_end,
                            scales, n_scales, flat, row, stride, flat_columns, columns_stride,
                        )  # fmt: skip
                    else:
                        tile_rows(
                            packed_a, norms_a, weights_a, packed_b, norms_b, weights_b, d, row, panels, panels_end,
                            scales, n_scales, flat, row, stride, flat_columns, columns_stride,
                        )  # fmt: skip


@strict_kernel
def max_tiles(tiles, width, packed_a, norms_a, weights_a, packed_b, norms_b, weights_b, d, scales, maxima):
    """Raise `maxima` (rows,) to the largest exponents to base 2 (of the first bandwidth) in the tiles."""
    for tile in range(tiles.shape[0]):
        row_0, row_1, panel_0, panel_1, _ = tiles[tile]
        for panels in range(panel_0, panel_1, _PANELS_AT_ONCE):
            panels_end = min(panels + _PANELS_AT_ONCE, panel_1)
            for row in range(row_0, row_1, ROWS):
                tile_row_maxima(
                    packed_a, norms_a, weights_a, packed_b, norms_b, weights_b, d, row, panels, panels_end,
                    scales, 1, maxima, row, 0, maxima, 0,
                )  # fmt: skip


@dataclass
class Packed:
    """Environments in the layout of the tiles; rows are padded to whole panels, group by group."""

    panels: FloatArray  #: flat, (n_panels * d * width,)
    norms: FloatArray  #: (n_panels * width,)
    weights: FloatArray  #: (n_panels * width,), 0 for padding
    rows: npt.NDArray[np.int64]  #: (n_panels * width,) index into the input, -1 for padding
    group_panels: npt.NDArray[np.int64]  #: (n_groups + 1,) first panel of each group
    d: int
    width: int

    @property
    def arrays(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """What the tiles read."""
        return self.panels, self.norms, self.weights


def pack_rows(
    x: FloatArray,
    order: npt.NDArray[np.int64],
    group_sizes: npt.NDArray[np.int64],
    centre: FloatArray,
    scale: float,
    weights: FloatArray | None,
    dtype: npt.DTypeLike,
    workers: Workers,
    name: str,
) -> Packed:
    """Pack ``x[order]``, whose first ``group_sizes[0]`` rows are group 0, and so on.

    Raises
    ------
    ValueError
        If a row is not finite.
    """
    width = panel_width(dtype)
    group_panels = np.concatenate([[0], np.cumsum(-(-group_sizes // width))]).astype(np.int64)
    n_rows = int(group_panels[-1]) * width
    rows = np.full(n_rows, -1, np.int64)
    within = np.arange(len(order)) - np.repeat(np.cumsum(group_sizes) - group_sizes, group_sizes)
    rows[np.repeat(group_panels[:-1] * width, group_sizes) + within] = order
    d = x.shape[1]
    packed = np.empty(n_rows * d, dtype)
    norms = np.empty(n_rows, dtype)
    tasks = split_evenly(int(group_panels[-1]), max(1, 200_000 // (width * d)))
    workers.run(lambda part: pack(x, rows, part[0], part[1], width, centre, scale, packed, norms), tasks)
    real = rows >= 0
    bad = real & ~np.isfinite(norms)
    if bad.any():
        raise ValueError(f"{name} must be finite, but row {int(rows[bad].min())} holds NaN, infinity or a huge number")
    row_weights = np.zeros(n_rows, dtype)
    row_weights[real] = 1.0 if weights is None else weights[rows[real]]
    return Packed(packed, norms, row_weights, rows, group_panels, d, width)


def tournament(n_blocks: int) -> list[list[tuple[int, int]]]:
    """Rounds of pairs of blocks: every pair meets once, and no block appears twice in a round (circle method)."""
    players = list(range(n_blocks + n_blocks % 2))
    half = len(players) // 2
    rounds = []
    for _ in range(len(players) - 1):
        pairs = [(players[i], players[-1 - i]) for i in range(half)]
        rounds.append([(min(p), max(p)) for p in pairs if max(p) < n_blocks])
        players[1:] = [players[-1], *players[1:-1]]
    return rounds


def block_count(n_rows: int) -> int:
    """Blocks that a group is cut into: a function of its size alone, at most 256."""
    if n_rows <= 512:
        return 1
    return min(256, max(4, 1 << math.ceil(math.log2(n_rows / 1024))))


def plan_symmetric(group_panels: npt.NDArray[np.int64], width: int) -> list[npt.NDArray[np.int64]]:
    """Rounds of tiles (first row, last row, first panel, last panel, mirror) that cover each pair of a group once."""
    rounds: list[list[tuple[int, int, int, int, int]]] = [[]]
    for first, last in zip(group_panels[:-1].tolist(), group_panels[1:].tolist(), strict=True):
        n_panels = last - first
        blocks = block_count(n_panels * width)
        edges = [first + n_panels * b // blocks for b in range(blocks + 1)]
        rounds[0] += [(edges[b] * width, edges[b + 1] * width, edges[b], edges[b + 1], 0) for b in range(blocks)]
        if blocks == 1:
            continue
        for number, pairs in enumerate(tournament(blocks), start=1):
            if len(rounds) <= number:
                rounds.append([])
            rounds[number] += [(edges[a] * width, edges[a + 1] * width, edges[b], edges[b + 1], 1) for a, b in pairs]
    return [np.array(tiles, dtype=np.int64).reshape(-1, 5) for tiles in rounds]


def batches(tiles: npt.NDArray[np.int64], width: int) -> list[npt.NDArray[np.int64]]:
    """Consecutive tiles of about `PAIRS_PER_TASK` pairs, or of a 16th of the round where that is less."""
    pairs = (tiles[:, 1] - tiles[:, 0]) * (tiles[:, 3] - tiles[:, 2]) * width
    total = int(pairs.sum())
    if total == 0:
        return []
    size = max(1, min(PAIRS_PER_TASK, -(-total // 16)))
    edges = np.flatnonzero(np.diff((np.cumsum(pairs) - pairs // 2) // size)) + 1
    return np.split(tiles, edges)


def count_pairs(tiles: npt.NDArray[np.int64], width: int) -> int:
    """Pairs of packed rows in the tiles."""
    return int(((tiles[:, 1] - tiles[:, 0]) * (tiles[:, 3] - tiles[:, 2])).sum()) * width


def run_tiles(
    rounds: Sequence[npt.NDArray[np.int64]],
    a: Packed,
    b: Packed,
    scales: FloatArray,
    workers: Workers,
    progress: Progress | None = None,
) -> npt.NDArray[np.float64]:
    """Kernel sums (H, rows of a) over the tiles; `progress` is told the number of pairs done."""
    sums = np.zeros((len(scales), len(a.norms)))

    def work(tiles: npt.NDArray[np.int64]) -> None:
        sum_tiles(tiles, a.width, *a.arrays, *b.arrays, a.d, scales, sums, sums)

    def done(tiles: npt.NDArray[np.int64]) -> None:
        if progress is not None:
            progress(count_pairs(tiles, a.width))

    for tiles in rounds:
        workers.run(work, batches(tiles, a.width), done)
    return sums


def row_tiles(n_rows: int, n_panels: int, width: int) -> npt.NDArray[np.int64]:
    """Tiles of all rows against all panels, in strips of whole panels of rows."""
    strip = max(width, PAIRS_PER_TASK // max(1, n_panels * width) // width * width)
    parts = split_evenly(n_rows // width, strip // width, least_parts=16)
    return np.array([(r0 * width, r1 * width, 0, n_panels, 0) for r0, r1 in parts], dtype=np.int64).reshape(-1, 5)


def base_scale(h: float) -> float:
    """Factor after which squared distances are exponents to base 2."""
    return math.sqrt(0.5 * math.log2(math.e)) / h


def log_sums_within(
    x: FloatArray,
    h: npt.NDArray[np.float64],
    weights: npt.NDArray[np.float64] | None = None,
    groups: npt.NDArray[np.int64] | None = None,
    *,
    precision: str = "float64",
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

    Returns
    -------
    (H, N) natural logarithms, -inf where nothing of positive weight is in the group.
    """
    n = len(x)
    order, sizes = _grouped(groups, n)
    centre = np.asarray(x.mean(axis=0, dtype=np.float64))
    scales = ((h[0] / h) ** 2).astype(precision)
    top = 1.0 if weights is None else float(weights.max())
    relative = None if weights is None else weights / top
    with use_workers(workers, jobs) as pool:
        packed = pack_rows(x, order, sizes, centre, base_scale(h[0]), relative, precision, pool, "x")
        rounds = plan_symmetric(packed.group_panels, packed.width)
        sums = run_tiles(rounds, packed, packed, scales, pool, progress)
        real = packed.rows >= 0
        out = np.empty((len(h), n))
        out[:, packed.rows[real]] = sums[:, real]
        del sums, packed
        if relative is not None:  # otherwise every row holds its own term, 1
            codes = np.repeat(np.arange(len(sizes)), sizes)[np.argsort(order)]
            for row, bandwidth in zip(out, h, strict=True):
                far = _untrusted(row, precision)
                for code in np.unique(codes[far]):
                    members = np.flatnonzero(codes == code)
                    rows = members[far[members]]
                    row[rows] = _far_log_sums(x[rows], x[members], float(bandwidth), relative[members], pool)
                near = ~far
                row[near] = np.log(row[near])
        else:
            np.log(out, out=out)
    return out + math.log(top)


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
    out = np.full((len(h), len(y)), -np.inf)
    if weights is not None:
        positive = weights > 0.0
        if not positive.all():
            x, weights = x[positive], weights[positive]
    if len(y) == 0 or len(x) == 0:
        return out
    centre = np.asarray(x.mean(axis=0, dtype=np.float64))
    scales = ((h[0] / h) ** 2).astype(precision)
    top = 1.0 if weights is None else float(weights.max())
    relative = None if weights is None else weights / top
    with use_workers(workers, jobs) as pool:
        scale = base_scale(h[0])
        b = _pack_all(x, centre, scale, relative, precision, pool, "the reference")
        a = _pack_all(y, centre, scale, None, precision, pool, "y")
        tiles = row_tiles(len(a.norms), len(b.norms) // b.width, b.width)
        out[:] = run_tiles([tiles], a, b, scales, pool, progress)[:, : len(y)]
        del a, b
        for row, bandwidth in zip(out, h, strict=True):
            far = _untrusted(row, precision)
            near = ~far
            row[near] = np.log(row[near])
            if far.any():
                row[far] = _far_log_sums(y[far], x, float(bandwidth), relative, pool)
    return out + math.log(top)


def _grouped(groups: npt.NDArray[np.int64] | None, n: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Order that brings groups together (stable), and their sizes."""
    if groups is None:
        return np.arange(n), np.array([n])
    _, codes = np.unique(groups, return_inverse=True)
    return np.argsort(codes, kind="stable"), np.bincount(codes)


def _untrusted(sums: npt.NDArray[np.float64], precision: str) -> npt.NDArray[np.bool_]:
    return sums < 2.0 ** TRUSTED[precision]


def _pack_all(
    x: FloatArray,
    centre: FloatArray,
    scale: float,
    weights: FloatArray | None,
    precision: str,
    workers: Workers,
    name: str,
) -> Packed:
    return pack_rows(x, np.arange(len(x)), np.array([len(x)]), centre, scale, weights, precision, workers, name)


def _far_log_sums(
    y: FloatArray, x: FloatArray, h: float, weights: FloatArray | None, workers: Workers
) -> npt.NDArray[np.float64]:
    """ln p as log-sum-exp in two passes, in float64: the largest exponent of each row, then sums relative to it."""
    if weights is not None:
        x, weights = x[weights > 0.0], weights[weights > 0.0]
    if len(x) == 0:
        return np.full(len(y), -np.inf)
    centre = np.asarray(x.mean(axis=0, dtype=np.float64))
    b = _pack_all(x, centre, base_scale(h), weights, "float64", workers, "the reference")
    a = _pack_all(y, centre, base_scale(h), None, "float64", workers, "y")
    tiles = row_tiles(len(a.norms), len(b.norms) // b.width, b.width)
    maxima = np.full(len(a.norms), -np.inf)
    one = np.ones(1)
    workers.run(lambda part: max_tiles(part, a.width, *a.arrays, *b.arrays, a.d, one, maxima), batches(tiles, a.width))
    real = a.rows >= 0
    a.norms[real] += maxima[real]
    sums = run_tiles([tiles], a, b, one, workers)[0]
    return maxima[real] * math.log(2.0) + np.log(sums[real])
