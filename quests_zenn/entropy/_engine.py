"""Exact kernel sums p(y) = sum_j w_j exp(-|y - x_j|^2 / 2 h^2), in tiles, on any number of threads.

One engine serves symmetric and cross sums, weights, several bandwidths and groups that do not see each other.

*Symmetric sums* compute each pair of a group once. The rows of a group are cut into blocks; pairs of blocks are
played like a round-robin tournament, in which each block meets every other once and no block plays twice in a round.
Within a round all tiles touch different rows, so threads need no locks; rounds follow each other, so every row
receives its parts in one fixed order. The plan depends on the sizes alone, hence the sums are the same bits for any
number of threads, and memory stays O(N d).

*Far points.* Sums are accumulated linearly. A row whose sum is too small to be trusted (everything is more than 35
bandwidths away; 9 in single precision) is done again relative to its own largest term, which is a log-sum-exp.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from quests_zenn._core.jit import kernel, strict_kernel
from quests_zenn._core.parallel import Workers, split_by_cost, split_evenly, use_workers
from quests_zenn.entropy._tile import (
    ROWS,
    panel_width,
    tile_row_maxima,
    tile_rows,
    tile_rows_and_columns,
    tile_rows_with_self,
)

FloatArray = npt.NDArray[np.floating]

#: Sums below 2^this, relative to the largest weight, are done again as a log-sum-exp.
TRUSTED = {"float64": -900.0, "float32": -60.0}

#: Pairs of environments in one task: some milliseconds of work, so that dispatching is cheap and Ctrl-C quick.
PAIRS_PER_TASK = 8_000_000

#: A task never has fewer pairs than this, unless there are no more: handing it to a thread costs a tenth of it.
LEAST_PAIRS_PER_TASK = 500_000

#: Rows that one task orders, averages or packs.
ROWS_PER_TASK = 8_192

#: Rows of a packed set that are visited together: 512 rows of 63 components of float64 fill a quarter of a 1 MiB L2.
_ROWS_AT_ONCE = 512
#: Panels visited together: 4 panels of 63 components of float64 fill 32 KiB.
_PANELS_AT_ONCE = 4

#: Kinds of tiles: rows and columns of two sets, a block with itself, two blocks of one set.
CROSS, SELF, MIRROR = 0, 1, 2

Progress = Callable[[int], None]


@kernel
def pack(x, rows, first, last, width, centres, panel_block, scale, packed, norms):
    """Fill panels [first, last): component c of lane l of panel q is ``(x[i, c] - centre[c]) * scale``.

    ``i = rows[q * width + l]``; -1 stands for padding; the centre is that of the block of the panel. `norms` gets the
    squared length of each packed row, inf for padding (and NaN or inf where x is not finite).
    """
    d = x.shape[1]
    for q in range(first, last):
        at = q * width * d
        centre = centres[panel_block[q]]
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
                totals[lane] += float(value) * float(value)
        for lane in range(width):
            moved_norms[(q - first) * width + lane] = totals[lane] + offsets[q * width + lane]


# strict: Numba writes a kernel's flags onto every instruction, and re-association would undo the rounding in 2^t
@strict_kernel
def sum_tiles(
    tiles, width, packed_a, offsets_a, weights_a, centres_a, panel_block_a, packed_b, norms_b, weights_b, centres_b,
    panel_block_b, scale, d, scales, sums, columns,
):  # fmt: skip
    """Add the kernel sums of the tiles (first row, last row, first panel, last panel, kind) to `sums` (H, rows).

    Kind `MIRROR` also adds the transposed tile to `columns`; kind `SELF` has its rows among its columns. Rows are moved
    to the centre of the block of columns that they meet: pairs that matter are close, and then both are short vectors,
    so that the differences of squares lose little.
    """
    n_scales = len(scales)
    stride = sums.shape[1]
    columns_stride = columns.shape[1]
    flat, flat_columns = sums.reshape(-1), columns.reshape(-1)
    moved = np.empty(_ROWS_AT_ONCE * d, packed_a.dtype)
    moved_norms = np.empty(_ROWS_AT_ONCE, packed_a.dtype)
    shift = np.empty(d, packed_a.dtype)
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
                for panels in range(first, last, _PANELS_AT_ONCE):
                    panels_end = min(panels + _PANELS_AT_ONCE, last)
                    for row in range(0, rows_end - rows, ROWS):
                        if kind == MIRROR:
                            tile_rows_and_columns(
                                moved, moved_norms, weights, packed_b, norms_b, weights_b, d, row, panels, panels_end,
                                scales, n_scales, flat, rows + row, stride, flat_columns, columns_stride,
                            )  # fmt: skip
                        elif kind == SELF:
                            tile_rows_with_self(
                                moved, moved_norms, weights, packed_b, norms_b, weights_b, d, row, panels, panels_end,
                                scales, n_scales, flat, rows + row, stride, flat_columns, columns_stride,
                            )  # fmt: skip
                        else:
                            tile_rows(
                                moved, moved_norms, weights, packed_b, norms_b, weights_b, d, row, panels, panels_end,
                                scales, n_scales, flat, rows + row, stride, flat_columns, columns_stride,
                            )  # fmt: skip
                first = last
            rows = rows_end


@strict_kernel
def max_tiles(
    tiles, width, packed_a, offsets_a, weights_a, centres_a, panel_block_a, packed_b, norms_b, weights_b, centres_b,
    panel_block_b, scale, d, scales, maxima,
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


@kernel
def principal_direction(x, members, step, direction):
    """Direction (d,) along which a sample of ``x[members]`` is widest, by a few steps of power iteration, in place."""
    d = x.shape[1]
    mean = np.zeros(d)
    count = 0
    for m in range(0, len(members), step):
        for c in range(d):
            mean[c] += x[members[m], c]
        count += 1
    for c in range(d):
        mean[c] /= count
    image = np.empty(d)
    for _ in range(4):
        image[:] = 0.0
        for m in range(0, len(members), step):
            i = members[m]
            along = 0.0
            for c in range(d):
                along += (x[i, c] - mean[c]) * direction[c]
            for c in range(d):
                image[c] += along * (x[i, c] - mean[c])
        length = 0.0
        for c in range(d):
            length += image[c] * image[c]
        if not length > 0.0:
            return
        for c in range(d):
            direction[c] = image[c] / math.sqrt(length)


@kernel
def project(x, members, direction, along):
    """along[m] = x[members[m]] . direction"""
    d = x.shape[1]
    for m in range(len(members)):
        total = 0.0
        for c in range(d):
            total += x[members[m], c] * direction[c]
        along[m] = total


@kernel
def block_means(x, rows, edges, first, last, means):
    """Mean (d,) of the environments of each block [first, last); block b holds ``rows[edges[b] : edges[b + 1]]``."""
    for b in range(first, last):
        means[b] = 0.0
        count = 0
        for m in range(edges[b], edges[b + 1]):
            if rows[m] >= 0:
                count += 1
                for c in range(x.shape[1]):
                    means[b, c] += x[rows[m], c]
        for c in range(x.shape[1]):
            means[b, c] /= count


@dataclass
class Packed:
    """Environments in the layout of the tiles.

    Groups are cut into blocks of neighbouring environments, blocks into panels. Each block is centred on its own mean.
    Only the last panel of a group is padded.
    """

    panels: FloatArray  #: flat, (n_panels * d * width,)
    norms: FloatArray  #: (n_panels * width,), inf for padding
    offsets: FloatArray  #: (n_panels * width,) added to the norm of a row: inf for padding
    weights: FloatArray  #: (n_panels * width,), 0 for padding
    rows: npt.NDArray[np.int64]  #: (n_panels * width,) index into the input, -1 for padding
    centres: npt.NDArray[np.float64]  #: (n_blocks, d)
    panel_block: npt.NDArray[np.int64]  #: (n_panels,) block of each panel
    block_panels: npt.NDArray[np.int64]  #: (n_blocks + 1,) first panel of each block
    group_blocks: npt.NDArray[np.int64]  #: (n_groups + 1,) first block of each group
    d: int
    width: int

    @property
    def n_panels(self) -> int:
        return len(self.panel_block)

    @property
    def as_rows(self) -> tuple[np.ndarray, ...]:
        """What tiles read of their rows."""
        return self.panels, self.offsets, self.weights, self.centres, self.panel_block

    @property
    def as_columns(self) -> tuple[np.ndarray, ...]:
        """What tiles read of their columns."""
        return self.panels, self.norms, self.weights, self.centres, self.panel_block


def pack_rows(
    x: FloatArray,
    groups: list[npt.NDArray[np.int64]],
    scale: float,
    weights: FloatArray | None,
    dtype: npt.DTypeLike,
    workers: Workers,
    name: str,
) -> Packed:
    """Pack the rows of x that each group names.

    Raises
    ------
    ValueError
        If a row is not finite.
    """
    width, d = panel_width(dtype), x.shape[1]
    panels = np.array([-(-len(members) // width) for members in groups])
    edges = [
        [first + n * b // blocks for b in range(blocks)]
        for first, n, blocks in zip(
            np.cumsum(panels) - panels, panels.tolist(), [block_count(n * width) for n in panels.tolist()], strict=True
        )
    ]
    n_panels = int(panels.sum())
    block_panels = np.array([edge for group in edges for edge in group] + [n_panels], np.int64)
    group_blocks = np.concatenate([[0], np.cumsum([len(group) for group in edges])]).astype(np.int64)
    panel_block = np.repeat(np.arange(len(block_panels) - 1), np.diff(block_panels))
    rows = np.full(n_panels * width, -1, np.int64)

    def place(part: tuple[int, int]) -> None:
        for group in range(*part):
            first = int(block_panels[group_blocks[group]]) * width
            sizes = np.diff(block_panels[group_blocks[group] : group_blocks[group + 1] + 1]) * width
            rows[first : first + len(groups[group])] = neighbours_together(x, groups[group], sizes)

    workers.run(place, split_by_cost(map(len, groups), ROWS_PER_TASK))
    real = rows >= 0
    centres = np.empty((len(block_panels) - 1, d))
    workers.run(
        lambda part: block_means(x, rows, block_panels * width, part[0], part[1], centres),
        split_by_cost((np.diff(block_panels) * width).tolist(), ROWS_PER_TASK),
    )
    packed, norms = np.empty(n_panels * width * d, dtype), np.empty(n_panels * width, dtype)
    workers.run(
        lambda part: pack(x, rows, part[0], part[1], width, centres, panel_block, scale, packed, norms),
        split_evenly(n_panels, max(1, ROWS_PER_TASK // width)),
    )
    if not np.isfinite(norms[real]).all():
        raise ValueError(f"{name} spreads over so many bandwidths that squared distances overflow in {np.dtype(dtype)}")
    offsets = np.where(real, 0.0, np.inf).astype(dtype)
    row_weights = np.zeros(n_panels * width, dtype)
    row_weights[real] = 1.0 if weights is None else weights[rows[real]]
    return Packed(packed, norms, offsets, row_weights, rows, centres, panel_block, block_panels, group_blocks, d, width)


def neighbours_together(
    x: FloatArray, members: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Reorder `members` so that blocks of the given sizes hold neighbouring rows of x.

    Halves of halves, each cut across the direction in which a sample of it is widest.
    """
    if len(sizes) == 1 or len(members) == 0:
        return members
    half = len(sizes) // 2
    left = int(sizes[:half].sum())
    direction = np.ones(x.shape[1])
    principal_direction(x, members, max(1, len(members) // 512), direction)
    along = np.empty(len(members))
    project(x, members, direction, along)
    order = np.argpartition(along, left) if left < len(members) else np.arange(len(members))
    return np.concatenate(
        [
            neighbours_together(x, members[order[:left]], sizes[:half]),
            neighbours_together(x, members[order[left:]], sizes[half:]),
        ]
    )


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


def plan_symmetric(packed: Packed) -> list[npt.NDArray[np.int64]]:
    """Rounds of tiles (first row, last row, first panel, last panel, kind) that cover each pair of a group once."""
    width = packed.width
    edges = packed.block_panels.tolist()
    rounds = [[(p * width, q * width, p, q, SELF) for p, q in pairwise(edges)]]
    for start, stop in pairwise(packed.group_blocks.tolist()):
        if stop - start == 1:
            continue
        for number, pairs in enumerate(tournament(stop - start), start=1):
            if len(rounds) <= number:
                rounds.append([])
            for a, b in pairs:
                a_0, a_1, b_0, b_1 = edges[start + a], edges[start + a + 1], edges[start + b], edges[start + b + 1]
                rounds[number].append((a_0 * width, a_1 * width, b_0, b_1, MIRROR))
    return [np.array(tiles, dtype=np.int64).reshape(-1, 5) for tiles in rounds]


def batches(tiles: npt.NDArray[np.int64], width: int) -> list[npt.NDArray[np.int64]]:
    """Consecutive tiles of about `PAIRS_PER_TASK` pairs, or of a 16th of the round if that is less."""
    pairs = (tiles[:, 1] - tiles[:, 0]) * (tiles[:, 3] - tiles[:, 2]) * width
    total = int(pairs.sum())
    if total == 0:
        return []
    size = max(LEAST_PAIRS_PER_TASK, min(PAIRS_PER_TASK, -(-total // 16)))
    edges = np.flatnonzero(np.diff((np.cumsum(pairs) - pairs // 2) // size)) + 1
    return np.split(tiles, edges)


def count_pairs(tiles: npt.NDArray[np.int64], width: int) -> int:
    """Pairs of packed rows in the tiles."""
    return int(((tiles[:, 1] - tiles[:, 0]) * (tiles[:, 3] - tiles[:, 2])).sum()) * width


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
    rounds: Sequence[npt.NDArray[np.int64]],
    a: Packed,
    b: Packed,
    scale: float,
    scales: FloatArray,
    workers: Workers,
    progress: Progress | None = None,
) -> npt.NDArray[np.float64]:
    """Kernel sums (H, rows of a) over the tiles; `progress` is told the number of pairs done."""
    check_extent(a, b, scale)
    sums = np.zeros((len(scales), len(a.norms)))

    def work(tiles: npt.NDArray[np.int64]) -> None:
        sum_tiles(tiles, a.width, *a.as_rows, *b.as_columns, scale, a.d, scales, sums, sums)

    def done(tiles: npt.NDArray[np.int64]) -> None:
        if progress is not None:
            progress(count_pairs(tiles, a.width))

    for tiles in rounds:
        workers.run(work, batches(tiles, a.width), done)
    return sums


def row_tiles(a: Packed, b: Packed) -> npt.NDArray[np.int64]:
    """Tiles of all rows against all panels, in strips of whole panels of rows."""
    width = a.width
    strip = max(1, PAIRS_PER_TASK // (b.n_panels * width * width))
    parts = split_evenly(a.n_panels, strip, least_parts=16)
    return np.array([(p * width, q * width, 0, b.n_panels, CROSS) for p, q in parts], dtype=np.int64).reshape(-1, 5)


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
    members = _members(groups, n)
    scale, scales = base_scale(h[0]), ((h[0] / h) ** 2).astype(precision)
    top = 1.0 if weights is None else float(weights.max())
    relative = None if weights is None else weights / top
    with use_workers(workers, jobs) as pool:
        packed = pack_rows(x, members, scale, relative, precision, pool, "x")
        sums = run_tiles(plan_symmetric(packed), packed, packed, scale, scales, pool, progress)
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
    scale, scales = base_scale(h[0]), ((h[0] / h) ** 2).astype(precision)
    top = 1.0 if weights is None else float(weights.max())
    relative = None if weights is None else weights / top
    with use_workers(workers, jobs) as pool:
        b = pack_rows(x, [np.arange(len(x))], scale, relative, precision, pool, "the reference")
        a = pack_rows(y, [np.arange(len(y))], scale, None, precision, pool, "y")
        sums = run_tiles([row_tiles(a, b)], a, b, scale, scales, pool, progress)
        real = a.rows >= 0
        out[:, a.rows[real]] = sums[:, real]
        del sums
        del a, b
        for row, bandwidth in zip(out, h, strict=True):
            far = row < 2.0 ** TRUSTED[precision]
            near = ~far
            row[near] = np.log(row[near])
            if far.any():
                row[far] = _far_log_sums(y[far], x, float(bandwidth), relative, pool)
    return out + math.log(top)


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
    sums = run_tiles([tiles], a, b, scale, one, workers)[0]
    out = np.empty(len(y))
    out[a.rows[real]] = maxima[real] * math.log(2.0) + np.log(sums[real])
    return out
