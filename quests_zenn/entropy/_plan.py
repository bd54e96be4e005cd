"""Which tiles make up a sum, in which order: functions of sizes alone, never of the number of threads.

*Symmetric sums* compute each pair of a group once. Pairs of blocks are played like a round-robin tournament, in which
each block meets every other once and no block plays twice in a round. Within a round all tiles touch different rows, so
threads need no locks; rounds follow each other, so every row receives its parts in one fixed order.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

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

#: A task never has fewer pairs than this, unless there are no more: handing it to a thread costs a tenth of it.
LEAST_PAIRS_PER_TASK = 500_000


def tournament(n_blocks: int) -> Iterator[npt.NDArray[np.int64]]:
    """Rounds of pairs of blocks (n, 2): every pair meets once, and no block twice in a round (circle method)."""
    players = np.arange(n_blocks + n_blocks % 2)
    half = len(players) // 2
    for _ in range(len(players) - 1):
        pairs = np.stack([players[:half], players[: -half - 1 : -1]], axis=1)
        pairs.sort(axis=1)
        yield pairs[pairs[:, 1] < n_blocks]
        players[1:] = np.roll(players[1:], 1)


def plan_symmetric(packed: Packed, across: bool = False) -> Iterator[Tiles]:
    """Rounds of tiles that cover each pair of a group once; each pair of the whole set for `across`."""
    width, edges = packed.width, packed.block_panels

    def tiles(a: npt.NDArray[np.int64], b: npt.NDArray[np.int64], kind: int) -> Tiles:
        parts = [edges[a] * width, edges[a + 1] * width, edges[b], edges[b + 1], np.full(len(a), kind)]
        return np.stack(parts, axis=1).astype(np.int64)

    blocks = np.arange(len(edges) - 1)
    yield tiles(blocks, blocks, SELF)
    groups = [0, len(blocks)] if across else packed.group_blocks.tolist()
    starts = [start for start, stop in pairwise(groups) if stop - start > 1]
    games = [tournament(stop - start) for start, stop in pairwise(groups) if stop - start > 1]
    while games:
        # groups do not share rows: their rounds are played at the same time
        played = [next(game, None) for game in games]
        pairs = [pairs + start for pairs, start in zip(played, starts, strict=True) if pairs is not None]
        if not pairs:
            return
        a, b = np.concatenate(pairs).T
        yield tiles(a, b, MIRROR)


def row_tiles(a: Packed, b: Packed) -> Tiles:
    """Tiles of all rows against all panels, in strips of whole panels of rows."""
    width = a.width
    strip = max(1, PAIRS_PER_TASK // (b.n_panels * width * width))
    parts = split_evenly(a.n_panels, strip, least_parts=16)
    return np.array([(p * width, q * width, 0, b.n_panels, CROSS) for p, q in parts], dtype=np.int64).reshape(-1, 5)


def batches(tiles: Tiles, width: int) -> list[Tiles]:
    """Consecutive tiles of about `PAIRS_PER_TASK` pairs, or of a 16th of the round if that is less."""
    pairs = (tiles[:, 1] - tiles[:, 0]) * (tiles[:, 3] - tiles[:, 2]) * width
    total = int(pairs.sum())
    if total == 0:
        return []
    size = max(LEAST_PAIRS_PER_TASK, min(PAIRS_PER_TASK, -(-total // 16)))
    edges = np.flatnonzero(np.diff((np.cumsum(pairs) - pairs // 2) // size)) + 1
    return np.split(tiles, edges)


def count_pairs(tiles: Tiles, width: int) -> int:
    """Pairs of packed rows in the tiles."""
    return int(((tiles[:, 1] - tiles[:, 0]) * (tiles[:, 3] - tiles[:, 2])).sum()) * width
