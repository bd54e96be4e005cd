"""Kernel sums over a sample of references that is dense near each environment and thin far from it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import cdist

from quests_zenn._core.parallel import Workers
from quests_zenn.entropy._packing import FloatArray, Packed, base_scale, pack_rows, relative_scales
from quests_zenn.entropy._plan import CROSS, SELF, Tiles
from quests_zenn.entropy._sweep import Progress, run_tiles

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Stratified:
    """Kernel sums over a sample of references that is dense near each environment and thin far from it."""

    y: FloatArray
    x: FloatArray
    same: bool
    h: float
    n_references: int
    rng: np.random.Generator
    precision: str
    workers: Workers

    def log_sums(self, progress: Progress | None) -> tuple[Array, Array, int]:
        """ln p (n,), its standard error (n,), and the references visited for each row."""
        scale = base_scale(self.h)
        every = [np.arange(len(self.x))]
        b = pack_rows(self.x, every, scale, None, self.precision, self.workers, "the reference", self.rng)
        a = b
        if not self.same:
            a = pack_rows(self.y, [np.arange(len(self.y))], scale, None, self.precision, self.workers, "y")
        panels = np.diff(b.block_panels)
        strata = self._strata(int(panels.min()), len(panels), b.width)
        apart = cdist(a.centres, b.centres)
        if self.same:
            np.fill_diagonal(apart, -1.0)  # equal blocks have equal centres, and each must see itself
        visits = np.argsort(apart, axis=1, kind="stable")
        p, variance = np.zeros(len(a.rows)), np.zeros(len(a.rows))
        # K and K^2, which has half the squared bandwidth
        scales = relative_scales(np.array([1.0, math.sqrt(0.5)]), self.precision)
        members = np.add.reduceat((b.rows >= 0).astype(np.int64), b.block_panels[:-1] * b.width)
        first, visited = 0, 0
        for last, taken in strata:
            drawn = np.minimum(taken * b.width, members)
            factor = members / drawn
            of_panel = np.repeat(factor, panels)
            weighted = replace(b, weights=(b.weights * np.repeat(of_panel, b.width)).astype(self.precision))
            sampled = bool((drawn < members).any())
            sums = np.zeros((1, 1 + sampled, len(a.rows)))
            columns = visits[:, first:last]
            tiles = self._tiles(a, b, columns, np.minimum(taken, panels))
            # rows read their weights only in mirrored tiles, of which there are none
            run_tiles(tiles, a, weighted, scale, scales[: 1 + sampled], sums, self.workers, progress)
            p += sums[0, 0]
            if sampled:  # fixed numbers are drawn from the blocks, which differ no more than one pooled stratum would
                squares = np.maximum(sums[0, 1] - sums[0, 0] ** 2 / max(1.0, (last - first) * members.mean()), 0.0)
                variance += (float(factor.mean()) - 1.0) * squares
            visited += int((last - first) * drawn.mean())
            first = last
        real = a.rows >= 0
        log_p, error = np.empty(len(self.y)), np.empty(len(self.y))
        relative = (np.sqrt(variance[real]) / np.maximum(p[real], 1e-300)) ** 2
        with np.errstate(divide="ignore"):
            log_p[a.rows[real]] = np.log(p[real]) + 0.5 * np.minimum(relative, 0.5)
        error[a.rows[real]] = np.sqrt(relative)
        return log_p, error, visited

    def _strata(self, panels: int, blocks: int, width: int) -> list[tuple[int, int]]:
        """Ranks of blocks up to which so many panels are taken: all of the nearest, a sixth, and few of the far.

        A third of the references to visit goes to each.
        """
        third = self.n_references / 3.0 / width
        near = int(np.clip(third / panels, 1, blocks))
        some = max(1, panels // 6)
        middle = int(np.clip(near + third / some, near, blocks))
        few = int(np.clip(third / max(1, blocks - middle), 1, panels))
        return [(near, panels + 1), (middle, some), (blocks, few)]

    def _tiles(self, a: Packed, b: Packed, columns: npt.NDArray[np.int64], taken: npt.NDArray[np.int64]) -> Any:
        """Tiles of each block of rows against the first panels of its blocks of columns, one column after the other.

        No block of rows twice in a round: the tiles of a round are summed at the same time.
        """
        edges, rows = a.block_panels * a.width, np.arange(len(columns))
        for blocks in columns.T:
            kind = np.where((rows == blocks) & self.same, SELF, CROSS)
            tiles: Tiles = np.stack(
                [
                    edges[rows],
                    edges[rows + 1],
                    b.block_panels[blocks],
                    b.block_panels[blocks] + taken[blocks],
                    kind,
                ],
                axis=1,
            )
            yield tiles[tiles[:, 3] > tiles[:, 2]]
