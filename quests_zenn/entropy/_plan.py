"""Which tiles make up a sum, in which order: functions of sizes alone, never of who computes it.

*Symmetric sums* compute each pair of a group once. Pairs of blocks are played like a round-robin tournament, in which
each block meets every other once and no block plays twice in a round. Within a round all tiles touch different rows, so
threads need no locks; rounds follow each other, so every row receives its parts in one fixed order.

Large sets play two tournaments, one inside the other. *Runs* of consecutive blocks meet each other in rounds, and what
two runs give to each other, a `Square`, is summed from zero before it is added to what its rows have already. So a
square can be computed anywhere: in threads, all squares of a round at once, or each in a process of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from quests_zenn._core.parallel import split_evenly
from quests_zenn.entropy._packing import Packed

#: Tiles are rows of (first row, last row, first panel, last panel, kind).
Tiles = npt.NDArray[np.int64]

#: Kinds of tiles: rows and columns of two sets, a block with itself, two blocks of one set.
CROSS, SELF, MIRROR = 0, 1, 2

#: Pairs of environments in one task: some milliseconds of work, so that dispatching is cheap and Ctrl-C quick.
PAIRS_PER_TASK = 8_000_000

#: Rows of a run, about: two of them meet in a tenth of a second, which is worth sending to another process.
ROWS_OF_RUN = 16_384

#: There are no more runs than this, whose squares a thousand processes would not wait for long: whoever hands out tasks
#: manages some hundred in a second. Only runs of more rows than `MOST_ROWS` are cut further, since their squares would
#: take minutes, all of which is lost with a process.
MOST_RUNS, MOST_ROWS = 256, 100_000

#: A task never has fewer pairs than this, unless there are no more: calling the kernel takes some microseconds, and one
#: thread after the other does it.
LEAST_PAIRS_PER_TASK = 250_000

#: A task is at most one of so many parts of what is left of its round: threads wait little for the last of them.
TASKS_LEFT = 32


def tournament(n_blocks: int) -> Iterator[npt.NDArray[np.int64]]:
    """Rounds of pairs of blocks (n, 2): every pair meets once, and no block twice in a round (circle method)."""
    players = np.arange(n_blocks + n_blocks % 2)
    half = len(players) // 2
    for _ in range(len(players) - 1):
        pairs = np.stack([players[:half], players[: -half - 1 : -1]], axis=1)
        pairs.sort(axis=1)
        yield pairs[pairs[:, 1] < n_blocks]
        players[1:] = np.roll(players[1:], 1)


class Square(NamedTuple):
    """Two runs of blocks of a group, all pairs of which are summed together; or a run with itself."""

    rows: tuple[int, int]  #: first block, and the one after the last
    columns: tuple[int, int]


def run_edges(packed: Packed) -> list[list[int]]:
    """For each group, the first block of each of its runs, and the end of the last."""
    edges = []
    for first, last in pairwise(packed.group_blocks.tolist()):
        n_rows = int(packed.block_panels[last] - packed.block_panels[first]) * packed.width
        runs = count_runs(n_rows, last - first)
        edges.append([first + (last - first) * r // runs for r in range(runs + 1)])
    return edges


def count_runs(n_rows: int, blocks: int) -> int:
    """Runs that a group is cut into: a power of two, and a function of its size alone."""
    wanted = max(min(n_rows / ROWS_OF_RUN, MOST_RUNS), n_rows / MOST_ROWS, 1.0)
    return min(blocks, 1 << math.ceil(math.log2(wanted)))


def plan_squares(packed: Packed, across: bool = False) -> Iterator[list[Square]]:
    """Rounds of squares that cover each pair of a group once. No two squares of a round share a row.

    With `across`, one square that holds each pair of the whole set.
    """
    if across:
        every = (0, len(packed.block_panels) - 1)
        yield [Square(every, every)]
        return
    runs = [list(pairwise(edges)) for edges in run_edges(packed)]
    yield [Square(run, run) for of_group in runs for run in of_group]
    games = [(of_group, tournament(len(of_group))) for of_group in runs if len(of_group) > 1]
    while games:
        # groups do not share rows: their rounds are played at the same time
        played = [(of_group, next(game, None)) for of_group, game in games]
        squares = [
            Square(of_group[a], of_group[b])
            for of_group, pairs in played
            if pairs is not None
            for a, b in pairs.tolist()
        ]
        if not squares:
            return
        yield squares


def steps(edges: npt.NDArray[np.int64], width: int, squares: Sequence[Square]) -> Iterator[Tiles]:
    """Rounds of tiles of squares that share no rows; within each of these, no two tiles share a row.

    `edges` holds the first panel of each block, and the end of the last.
    """

    def tiles(pairs: npt.NDArray[np.int64], kind: int) -> Tiles:
        a, b = pairs.T
        parts = [edges[a] * width, edges[a + 1] * width, edges[b], edges[b + 1], np.full(len(a), kind)]
        return np.stack(parts, axis=1).astype(np.int64)

    alone = [square.rows for square in squares if square.rows == square.columns]
    games: list[Iterator[npt.NDArray[np.int64]]] = []
    if alone:
        blocks = np.concatenate([np.arange(*run) for run in alone])
        yield tiles(np.stack([blocks, blocks], axis=1), SELF)
    for rows, columns in squares:
        if rows == columns and rows[1] - rows[0] > 1:
            games.append(_games(rows))
        elif rows != columns:
            games.append(_meetings(rows, columns))
    while True:
        played = [pairs for game in games if (pairs := next(game, None)) is not None]
        if not played:
            return
        yield tiles(np.concatenate(played), MIRROR)


def _games(run: tuple[int, int]) -> Iterator[npt.NDArray[np.int64]]:
    """The tournament of the blocks of a run."""
    for pairs in tournament(run[1] - run[0]):
        yield pairs + run[0]


def _meetings(rows: tuple[int, int], columns: tuple[int, int]) -> Iterator[npt.NDArray[np.int64]]:
    """Rounds of pairs of a block of one run and a block of another, in which no block plays twice."""
    n, m = rows[1] - rows[0], columns[1] - columns[0]
    mine = np.arange(n)
    for turn in range(max(n, m)):
        theirs = (mine + turn) % max(n, m)
        there = theirs < m
        yield np.stack([mine[there] + rows[0], theirs[there] + columns[0]], axis=1)


def plan_symmetric(packed: Packed, across: bool = False) -> Iterator[Tiles]:
    """Rounds of tiles that cover each pair of a group once; each pair of the whole set for `across`."""
    for squares in plan_squares(packed, across):
        yield from steps(packed.block_panels, packed.width, squares)


def row_tiles(a: Packed, b: Packed) -> Tiles:
    """Tiles of all rows against all panels, in strips of whole panels of rows."""
    width = a.width
    strip = max(1, PAIRS_PER_TASK // (b.n_panels * width * width))
    parts = split_evenly(a.n_panels, strip, least_parts=16)
    return np.array([(p * width, q * width, 0, b.n_panels, CROSS) for p, q in parts], dtype=np.int64).reshape(-1, 5)


def batches(tiles: Tiles, width: int) -> list[Tiles]:
    """Consecutive tiles, ever fewer of them: a share of what is left, so that threads end a round together."""
    pairs = (tiles[:, 1] - tiles[:, 0]) * (tiles[:, 3] - tiles[:, 2]) * width
    done = np.cumsum(pairs)
    parts, first = [], 0
    while first < len(tiles):
        left = int(done[-1] - done[first] + pairs[first])
        size = max(LEAST_PAIRS_PER_TASK, min(PAIRS_PER_TASK, left // TASKS_LEFT))
        last = max(first + 1, int(np.searchsorted(done, done[first] - pairs[first] + size, side="right")))
        parts.append(tiles[first:last])
        first = last
    return parts


def count_pairs(tiles: Tiles, width: int) -> int:
    """Pairs of packed rows in the tiles."""
    return int(((tiles[:, 1] - tiles[:, 0]) * (tiles[:, 3] - tiles[:, 2])).sum()) * width
