"""Sums over all pairs of one set or two: in threads, or in other processes, to the same bits.

Within a set they are done square by square. Whoever computes a square starts from zero; what comes of it is added to
the sums of its rows in the order of the plan. Finished squares are kept where a `Keeper` is at hand, and not computed
again by a run that goes on. Between two sets, rows receive nothing but their own sums, so that any part of them can be
done anywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from quests_zenn._core.parallel import Workers, split_evenly
from quests_zenn._core.remote import Keeper, Remote, State, Task, fingerprint
from quests_zenn.entropy._packing import FloatArray, Packed
from quests_zenn.entropy._plan import Square, plan_squares, row_tiles, run_edges, steps
from quests_zenn.entropy._sweep import Progress, check_extent, run_tiles, sum_tiles
from quests_zenn.entropy._tile import ROWS, VECTORS

Array = npt.NDArray[np.float64]

#: Pairs of one task for another process, about: a tenth of a second, so that sending it costs little.
PAIRS_PER_CALL = 100_000_000

#: Sums of two sets with fewer pairs are not kept: they take seconds.
LEAST_PAIRS_KEPT = 10_000_000_000

#: Sets with fewer pairs are summed here: they would be done before another process has heard of them.
LEAST_PAIRS_ELSEWHERE = 300_000_000


def key_of_sums(*parts: object) -> str:
    """A key under which sums are kept: their last bits depend on the shape of tiles, too."""
    return fingerprint(*parts, ROWS, VECTORS)


def sum_squares(
    packed: Packed,
    scale: float,
    scales: FloatArray,
    sums: Array,
    workers: Workers,
    progress: Progress | None = None,
    floor: float = -np.inf,
    key: str = "",
) -> None:
    """Add the kernel sums of each group with itself to `sums` (H, rows), which holds zeros.

    Parameters
    ----------
    floor
        See `run_tiles`.
    key : str
        Under which finished squares are kept; empty to keep nothing.
    """
    check_extent(packed, packed, scale)
    keeper = workers.keeper if key else None
    done = _restore(keeper, key, sums)
    rounds = list(plan_squares(packed))
    squares = [square for of_round in rounds for square in of_round]
    if progress is not None and done:
        progress(sum(_pairs(packed, square) for square in squares[:done]))
    if workers.remote is not None and sum(_pairs(packed, square) for square in squares) >= LEAST_PAIRS_ELSEWHERE:
        _sum_elsewhere(packed, rounds, scale, scales, sums, workers.remote, progress, floor, keeper, key, done)
    else:
        _sum_in_threads(packed, rounds, scale, scales, sums, workers, progress, floor, keeper, key, done)


def _sum_in_threads(
    packed: Packed, rounds: list[list[Square]], scale: float, scales: FloatArray, sums: Array, workers: Workers,
    progress: Progress | None, floor: float, keeper: Keeper | None, key: str, done: int,
) -> None:  # fmt: skip
    """All squares of a round at once."""
    partial = sums[None] if len(rounds) == 1 else np.zeros((1, *sums.shape))
    first = 0
    for squares in rounds:
        left, first = squares[max(0, done - first) :], first + len(squares)
        if not left:
            continue
        tiles = steps(packed.block_panels, packed.width, left)
        run_tiles(tiles, packed, packed, scale, scales, partial, workers, progress, floor=floor)
        if len(rounds) == 1:
            return
        sums += partial[0]
        partial[:] = 0.0
        if keeper is not None:
            keeper.save(key, lambda: _state(sums, first), squares is rounds[-1])  # noqa: B023


def _sum_elsewhere(
    packed: Packed, rounds: list[list[Square]], scale: float, scales: FloatArray, sums: Array, remote: Remote,
    progress: Progress | None, floor: float, keeper: Keeper | None, key: str, done: int,
) -> None:  # fmt: skip
    """Squares in other processes, small ones some at a time."""
    runs = [run for edges_ in run_edges(packed) for run in pairwise(edges_)]
    place = {run: number for number, run in enumerate(runs)}
    squares = [square for of_round in rounds for square in of_round][done:]
    calls = list(_calls(packed, squares))
    tasks = []
    for call in calls:
        needs = tuple(dict.fromkeys(place[run] for square in call for run in square))
        local = {run: number for number, run in enumerate(needs)}
        which = [(local[place[square.rows]], local[place[square.columns]]) for square in call]
        tasks.append(Task(needs, (which, scale, scales, floor)))

    def finished(number: int) -> None:
        if progress is not None:
            progress(sum(_pairs(packed, square) for square in calls[number]))

    edges = packed.block_panels * packed.width
    panels = packed.block_panels.tolist()
    pieces = [packed.part(panels[first], panels[last]) for first, last in runs]
    found = remote.map(squares_of_runs, pieces, tasks, finished)
    for call, results in zip(calls, found, strict=True):
        for (rows, columns), (mine, theirs) in zip(call, results, strict=True):
            sums[:, edges[rows[0]] : edges[rows[1]]] += mine
            if rows != columns:
                sums[:, edges[columns[0]] : edges[columns[1]]] += theirs
        done += len(call)
        if keeper is not None:
            keeper.save(key, lambda: _state(sums, done), call is calls[-1])  # noqa: B023


def sum_cross(
    a: Packed,
    b: Packed,
    scale: float,
    scales: FloatArray,
    sums: Array,
    workers: Workers,
    progress: Progress | None = None,
) -> None:
    """Add the kernel sums of the rows of a over the rows of b to `sums` (H, rows of a), which holds zeros.

    Large ones are done in parts of the rows, in other processes if there are any; finished parts are kept.
    """
    remote, pairs = workers.remote, len(a.rows) * len(b.rows)
    keeper = workers.keeper if pairs >= LEAST_PAIRS_KEPT else None
    if keeper is None and (remote is None or pairs < LEAST_PAIRS_ELSEWHERE):
        run_tiles([row_tiles(a, b)], a, b, scale, scales, sums[None], workers, progress)
        return
    check_extent(a, b, scale)
    key = "" if keeper is None else key_of_sums("cross", a.panels, a.norms, b.panels, b.norms, b.weights, scale, scales)
    done = _restore(keeper, key, sums)
    parts = split_evenly(a.n_panels, max(1, PAIRS_PER_CALL // (len(b.rows) * a.width)), least_parts=16)
    left = parts[done:]
    if progress is not None and done:
        progress(parts[done - 1][1] * a.width * len(b.rows))

    def finished(number: int) -> None:
        if progress is not None:
            progress((left[number][1] - left[number][0]) * a.width * len(b.rows))

    found: Iterable[Array]
    if remote is None:
        found = (rows_of_part(a.part(*part), b, scale, scales, workers, progress) for part in left)
    else:
        pieces = [b, *(a.part(*part) for part in left)]
        tasks = [Task((number + 1, 0), (scale, scales)) for number in range(len(left))]
        found = remote.map(rows_of_part, pieces, tasks, finished)
    for (first, last), of_part in zip(left, found, strict=True):
        sums[:, first * a.width : last * a.width] = of_part
        done += 1
        if keeper is not None:
            keeper.save(key, lambda: _state(sums, done), last == a.n_panels)  # noqa: B023


def rows_of_part(
    a: Packed,
    b: Packed,
    scale: float,
    scales: FloatArray,
    workers: Workers | None = None,
    progress: Progress | None = None,
) -> Array:
    """Kernel sums (H, rows of a) over the rows of b; in the calling thread, unless there are others."""
    sums = np.zeros((1, len(scales), len(a.rows)))
    run_tiles([row_tiles(a, b)], a, b, scale, scales, sums, workers or Workers(1), progress)
    return sums[0]


def squares_of_runs(*given: object) -> list[tuple[Array, Array | None]]:
    """What runs of blocks give to each other: called with the runs, which of them meet, scale, scales and floor.

    Returns for each pair of runs the sums (H, rows) of the first and of the second; None where they are the same.
    """
    *runs, which, scale, scales, floor = given
    found: list[tuple[Array, Array | None]] = []
    for i, j in which:  # type: ignore[attr-defined]
        a, b = runs[i], runs[j]
        found.append(_square(a, b if i != j else a, scale, scales, floor))  # type: ignore[arg-type]
    return found


def _square(a: Packed, b: Packed, scale: float, scales: FloatArray, floor: float) -> tuple[Array, Array | None]:
    mine, theirs = (0, len(a.centres)), (len(a.centres), len(a.centres) + len(b.centres))
    if a is b:
        sums = np.zeros((1, len(scales), len(a.rows)))
        tiles = steps(a.block_panels, a.width, [Square(mine, mine)])
        run_tiles(tiles, a, a, scale, scales, sums, Workers(1), floor=floor)
        return sums[0], None
    # one array for both: what rows receive is part 0 of it, what columns receive part 1
    sums = np.zeros((2, len(scales), max(len(a.rows), len(b.rows))))
    first, second = np.zeros(len(b.centres), np.int64), np.ones(len(a.centres), np.int64)
    edges = np.concatenate([a.block_panels, a.block_panels[-1] + b.block_panels[1:]])
    for tiles_ in steps(edges, a.width, [Square(mine, theirs)]):
        tiles_[:, 2:4] -= a.n_panels
        lowest = floor / float(scales.min())
        sum_tiles(tiles_, a.width, *a.as_rows, *b.as_columns, scale, a.d, scales, lowest, second, first, sums)
    return sums[0, :, : len(a.rows)], sums[1, :, : len(b.rows)]


def _calls(packed: Packed, squares: Sequence[Square]) -> Iterator[list[Square]]:
    """Consecutive squares, as many as make a task that is worth sending."""
    call: list[Square] = []
    pairs = 0
    for square in squares:
        call.append(square)
        pairs += _pairs(packed, square)
        if pairs >= PAIRS_PER_CALL:
            yield call
            call, pairs = [], 0
    if call:
        yield call


def _pairs(packed: Packed, square: Square) -> int:
    """Pairs of packed rows that a square computes."""
    edges = packed.block_panels * packed.width
    (first, last), columns = square
    n = int(edges[last] - edges[first])
    if square.rows == columns:  # each pair of blocks once, blocks with themselves whole
        return (n * n + int((np.diff(edges[first : last + 1]) ** 2).sum())) // 2
    return n * int(edges[columns[1]] - edges[columns[0]])


def _state(sums: Array, done: int) -> State:
    return {"sums": sums, "done": np.array(done)}


def _restore(keeper: Keeper | None, key: str, sums: Array) -> int:
    """Take in what an earlier run has finished; returns the number of squares."""
    state = None if keeper is None else keeper.load(key)
    if state is None or "sums" not in state or state["sums"].shape != sums.shape:
        return 0
    sums[:] = state["sums"]
    return int(state["done"])
