"""Nearest environments: exact, with the tiles of the engine; of very large sets approximately, with PyNNDescent."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import cdist

from quests_zenn._core.jit import strict_kernel
from quests_zenn._core.parallel import Workers, available_cores, split_evenly
from quests_zenn._core.remote import Task
from quests_zenn.entropy import _torch
from quests_zenn.entropy._packing import ROWS_PER_TASK, FloatArray, Packed, base_scale, exponent_error, pack_rows
from quests_zenn.entropy._plan import Tiles, batches, count_pairs, row_tiles
from quests_zenn.entropy._squares import LEAST_PAIRS_ELSEWHERE
from quests_zenn.entropy._sweep import (
    PANELS_AT_ONCE,
    ROWS_AT_ONCE,
    Progress,
    check_extent,
    nearest_exponent,
    recentre,
)
from quests_zenn.entropy._tile import ROWS, tile_exponents

#: Neighbours that ``knn`` sums.
DEFAULT_NEIGHBOURS = 32

#: References up to which neighbours are found by exact search. Beyond, PyNNDescent is faster, in spite of the
#: twenty seconds that it takes to compile in every process.
EXACT_SEARCH_UP_TO = 150_000

#: Candidates kept beyond those asked for when the search runs in single precision.
SPARE = 8


@strict_kernel
def nearest_tiles(
    tiles, width, packed_a, offsets_a, weights_a, centres_a, panel_block_a, packed_b, norms_b, weights_b, centres_b,
    panel_block_b, radii_b, scale, d, scales, block_panels, visits, rows_a, rows_b, same, best, found,
):  # fmt: skip
    """Keep the largest exponents of each row in `best` (rows, m), sorted, and the columns they come from in `found`.

    Blocks of columns are visited in the order of ``visits[block of the row]``, near ones first, so that most rows know
    their neighbours early; blocks that provably hold nothing nearer are passed over. With `same`, a row does not count
    itself.
    """
    m = best.shape[1]
    moved = np.empty(ROWS_AT_ONCE * d, packed_a.dtype)
    moved_norms = np.empty(ROWS_AT_ONCE, packed_a.dtype)
    shift = np.empty(d, packed_a.dtype)
    needed = np.empty(ROWS_AT_ONCE // ROWS, np.bool_)
    stride = PANELS_AT_ONCE * width
    exponents = np.empty(ROWS * stride, packed_a.dtype)
    for tile in range(tiles.shape[0]):
        row_0, row_1, _, _, _ = tiles[tile]
        rows = row_0
        while rows < row_1:
            block_a = panel_block_a[rows // width]
            rows_end = rows + width
            while rows_end < min(row_1, rows + ROWS_AT_ONCE) and panel_block_a[rows_end // width] == block_a:
                rows_end += width
            for block_b in visits[block_a]:
                first, last = block_panels[block_b], block_panels[block_b + 1]
                for c in range(d):
                    shift[c] = (centres_a[block_a, c] - centres_b[block_b, c]) * scale
                recentre(packed_a, offsets_a, rows // width, rows_end // width, width, shift, moved, moved_norms)
                for row in range(0, rows_end - rows, ROWS):
                    worst = best[rows + row, m - 1]
                    for r in range(1, ROWS):
                        worst = min(worst, best[rows + row + r, m - 1])
                    needed[row // ROWS] = nearest_exponent(moved_norms, row, radii_b[block_b]) > worst
                for panels in range(first, last, PANELS_AT_ONCE):
                    panels_end = min(panels + PANELS_AT_ONCE, last)
                    columns = (panels_end - panels) * width
                    for row in range(0, rows_end - rows, ROWS):
                        if not needed[row // ROWS]:
                            continue
                        tile_exponents(
                            moved, moved_norms, weights_a, packed_b, norms_b, weights_b, d, row, panels, panels_end,
                            scales, 1, exponents, 0, stride, exponents, 0,
                        )  # fmt: skip
                        for r in range(ROWS):
                            i = rows + row + r
                            worst = best[i, m - 1]
                            above = 0
                            for j in range(r * stride, r * stride + columns):
                                above += exponents[j] > worst
                            if above == 0:
                                continue
                            for j in range(columns):
                                t = exponents[r * stride + j]
                                if not t > best[i, m - 1]:
                                    continue
                                column = panels * width + j
                                if same and rows_a[i] == rows_b[column]:
                                    continue
                                at = m - 1
                                while at > 0 and t > best[i, at - 1]:
                                    best[i, at] = best[i, at - 1]
                                    found[i, at] = found[i, at - 1]
                                    at -= 1
                                best[i, at] = t
                                found[i, at] = column
            rows = rows_end


@strict_kernel
def sort_by_distance(y, x, first, last, candidates, distances):
    """Distances of rows [first, last) of y to their candidates (n, m), sorted; of equal ones the lower index first."""
    d, m = y.shape[1], candidates.shape[1]
    for i in range(first, last):
        for k in range(m):
            j = candidates[i, k]
            total = 0.0
            for c in range(d):
                apart = np.float64(y[i, c]) - np.float64(x[j, c])
                total += apart * apart
            at = k
            while at > 0 and (
                total < distances[i, at - 1] or (total == distances[i, at - 1] and j < candidates[i, at - 1])
            ):
                distances[i, at] = distances[i, at - 1]
                candidates[i, at] = candidates[i, at - 1]
                at -= 1
            distances[i, at] = total
            candidates[i, at] = j
        for k in range(m):
            distances[i, k] = math.sqrt(distances[i, k])


def nearest(
    y: FloatArray,
    x: FloatArray,
    n: int,
    *,
    same: bool = False,
    precision: str = "float64",
    workers: Workers,
    progress: Progress | None = None,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """The n nearest rows of x for each row of y, exact: indices and distances (len(y), n), nearest first.

    Parameters
    ----------
    n : int
        At most the number of rows that there are.
    same : bool
        y is x, and no row is its own neighbour.
    precision : {"float64", "float32"}
        Arithmetic of the search. Distances are float64 always. In single precision some more candidates are kept, and
        rows for which rounding might have hidden a neighbour are searched again in float64. There, neighbours that are
        closer than 1e-7 of the width of both sets may be taken for each other.
    """
    indices = np.zeros((len(y), n), np.int64)
    distances = np.zeros((len(y), n))
    if n == 0 or len(y) == 0:
        return indices, distances
    spare = 0 if precision == "float64" else SPARE
    kept = min(n + spare, len(x) - same)
    # exponents must neither overflow nor vanish: the unit of length is the width of both sets together, and of equal
    # rows what rounding leaves between them and their mean
    low, high = np.minimum(x.min(axis=0), y.min(axis=0)), np.maximum(x.max(axis=0), y.max(axis=0))
    rounding = 2.0**-52 * max(float(high.max()), -float(low.min()))
    scale = base_scale(max(float((high - low).max()), rounding, 1e-300))
    b = pack_rows(x, [np.arange(len(x))], scale, None, precision, workers, "x")
    a = b if same else pack_rows(y, [np.arange(len(y))], scale, None, precision, workers, "y")
    check_extent(a, b, scale)
    visits = np.argsort(cdist(a.centres, b.centres), axis=1, kind="stable")
    tiles = row_tiles(a, b)
    remote = workers.remote
    if remote is not None and len(a.rows) * len(b.rows) >= LEAST_PAIRS_ELSEWHERE:
        parts = [(int(part[0, 0]) // a.width, int(part[-1, 1]) // a.width) for part in batches(tiles, a.width)]
        pieces = [b, *((a.part(*part), visits[np.unique(a.panel_block[slice(*part)])]) for part in parts)]
        tasks = [Task((number + 1, 0), (scale, kept, same)) for number in range(len(parts))]

        def finished(number: int) -> None:
            if progress is not None:
                progress((parts[number][1] - parts[number][0]) * a.width * len(b.rows))

        found_parts = list(remote.map(nearest_of_part, pieces, tasks, finished))
        best, found = (np.concatenate(arrays) for arrays in zip(*found_parts, strict=True))
    else:
        best, found = _nothing_found(a, kept)

        def work(part: Tiles) -> None:
            _search(part, a, b, scale, visits, same, best, found)

        def done(part: Tiles) -> None:
            if progress is not None:
                progress(count_pairs(part, a.width))

        workers.run(work, batches(tiles, a.width), done)
    real = a.rows >= 0
    candidates = np.empty((len(y), kept), np.int64)
    candidates[a.rows[real]] = b.rows[found[real]]
    lengths = np.empty((len(y), kept))
    workers.run(
        lambda part: sort_by_distance(y, x, part[0], part[1], candidates, lengths),
        split_evenly(len(y), ROWS_PER_TASK),
    )
    indices[:], distances[:] = candidates[:, :n], lengths[:, :n]
    if kept < len(x) - same and precision != "float64":
        last = np.empty(len(y))
        last[a.rows[real]] = best[real, -1]
        nth = -((distances[:, -1] * scale) ** 2)
        unsure = np.flatnonzero(nth < last + np.asarray(exponent_error(b, np.minimum(nth, last), a)))
        if len(unsure):
            mine = nearest_of_rows(y, x, unsure, n, same, workers)
            indices[unsure], distances[unsure] = mine
    return indices, distances


def _nothing_found(a: Packed, kept: int) -> tuple[FloatArray, npt.NDArray[np.int64]]:
    """Exponents and columns of the best so far (rows, kept)."""
    best = np.full((len(a.rows), kept), -np.inf, a.panels.dtype)
    best[a.rows < 0] = np.inf  # padding looks for nothing
    return best, np.full((len(a.rows), kept), -1, np.int64)


def _search(
    tiles: Tiles, a: Packed, b: Packed, scale: float, visits: npt.NDArray[np.int64], same: bool, best: FloatArray,
    found: npt.NDArray[np.int64],
) -> None:  # fmt: skip
    nearest_tiles(
        tiles, a.width, *a.as_rows, *b.as_columns, scale, a.d, np.ones(1, a.panels.dtype), b.block_panels, visits,
        a.rows, b.rows, same, best, found,
    )  # fmt: skip


def nearest_of_part(
    mine: tuple[Packed, npt.NDArray[np.int64]], b: Packed, scale: float, kept: int, same: bool
) -> tuple[FloatArray, npt.NDArray[np.int64]]:
    """The best exponents of some rows, and the columns that they come from: (rows, kept) each.

    `mine` holds the rows, and for each of their blocks the order in which blocks of b are visited.
    """
    a, visits = mine
    best, found = _nothing_found(a, kept)
    _search(row_tiles(a, b), a, b, scale, visits, same, best, found)
    return best, found


def nearest_of_rows(
    y: FloatArray, x: FloatArray, rows: npt.NDArray[np.int64], n: int, same: bool, workers: Workers
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """`nearest` in float64 for some rows of y. With `same`, each is found once more among x, and dropped."""
    more = n + same
    indices, distances = nearest(y[rows], x, min(more, len(x)), workers=workers)
    if not same:
        return indices, distances
    own = indices == rows[:, None]
    own[~own.any(axis=1), -1] = True  # hidden behind copies of itself: any of them stands for it
    keep = ~own
    return indices[keep].reshape(len(rows), n), distances[keep].reshape(len(rows), n)


@dataclass(frozen=True)
class Neighbours:
    """The nearest references of every environment asked about, nearest first."""

    indices: npt.NDArray[np.int64]  #: (m, n)
    distances: npt.NDArray[np.float64]  #: (m, n), 1/Å
    recall: float  #: share of the true neighbours among them; 1.0 where the search was exact


def find_neighbours(
    y: FloatArray, x: FloatArray, n: int, same: bool, seed: int, workers: Workers, progress: Progress | None = None,
    device: str = "cpu",
) -> Neighbours:  # fmt: skip
    """Exact up to `EXACT_SEARCH_UP_TO` references or on a device, else PyNNDescent, its recall measured on a sample."""
    if device != "cpu" and n > 0:
        found = _torch.nearest(y, x, n, precision="float32", device=device, exclude_same_row=same)
        return Neighbours(*found, 1.0)
    if len(x) <= EXACT_SEARCH_UP_TO or n == 0:
        precision = "float32" if len(x) >= 4096 else "float64"
        found = nearest(y, x, n, same=same, precision=precision, workers=workers, progress=progress)
        return Neighbours(*found, 1.0)
    from pynndescent import NNDescent  # takes two seconds to import, and some twenty to compile

    graph = max(30, n + same)
    index = NNDescent(x, n_neighbors=graph, random_state=seed, n_jobs=min(workers.jobs, available_cores()))
    if same:
        indices, distances = index.neighbor_graph
        own = indices == np.arange(len(x))[:, None]
        own[~own.any(axis=1), -1] = True
        keep = ~own
        indices = indices[keep].reshape(len(x), -1)[:, :n]
        distances = distances[keep].reshape(len(x), -1)[:, :n]
    else:
        indices, distances = index.query(y, k=n)
    rows = np.random.default_rng(seed).choice(len(y), min(len(y), 200), replace=False)
    # of a set within itself, each row finds itself too
    true = nearest(y[rows], x, n + same, precision="float32", workers=workers)[1][:, -1]
    recall = float(np.mean(distances[rows] <= true[:, None] * (1.0 + 1e-5)))
    return Neighbours(indices.astype(np.int64), distances.astype(np.float64), recall)
