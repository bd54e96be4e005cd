"""What tells crystal from liquid: dH, and order parameters of freud; clusters; change points.

freud (Steinhardt parameters, solid-liquid bonds) is independent of this package, in wheels for all systems, and takes
arrays; pyscal3 has the same parameters, but wants its own systems. Common-neighbour analysis with a fixed cutoff loses
a third of a crystal this close to melting; bond order averaged over neighbours (Lechner and Dellago, J. Chem. Phys.
129, 114707 (2008)) does not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.stats import rankdata

FloatArray = npt.NDArray[np.float64]

#: Neighbours of bond order: those of close packing.
BONDS = 12

#: Neighbours of clusters are nearer than this many times (volume per atom)^(1/3): between the first and the second
#: shell of fcc (1.12 and 1.59).
REACH = 1.34


def bond_order(positions: npt.NDArray[Any], lengths: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Averaged bond order q6 of every atom, and how many of its 12 bonds are crystalline (q6(i)·q6(j) > 0.7)."""
    import freud

    system = freud.box.Box(*lengths), np.asarray(positions, float) - lengths / 2.0
    near = {"num_neighbors": BONDS, "exclude_ii": True}
    order = freud.order.Steinhardt(6, average=True).compute(system, near).particle_order
    bonds = freud.order.SolidLiquid(6, 0.7, 6).compute(system, near).num_connections
    return np.array(order, float), np.array(bonds, float)


class Neighbours:
    """Pairs of near atoms of one frame."""

    def __init__(self, positions: npt.NDArray[Any], lengths: FloatArray) -> None:
        from scipy.spatial import cKDTree

        x = np.asarray(positions, float)
        self.n = len(x)
        tree = cKDTree(np.clip(x % lengths, 0.0, np.nextafter(lengths, 0.0)), boxsize=lengths)
        self.pairs = tree.query_pairs(REACH * (float(np.prod(lengths)) / self.n) ** (1 / 3), output_type="ndarray")

    def mean(self, values: FloatArray) -> FloatArray:
        """Mean over each atom and its neighbours: as averaged bond order does."""
        i, j = self.pairs.T
        total = values + np.bincount(i, values[j], self.n) + np.bincount(j, values[i], self.n)
        return total / (1.0 + np.bincount(self.pairs.ravel(), minlength=self.n))

    def clusters(self, chosen: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        """Number of the cluster of each atom, largest first; -1 where it is not chosen."""
        i, j = self.pairs[chosen[self.pairs].all(1)].T
        _, label = connected_components(coo_matrix((np.ones(len(i)), (i, j)), (self.n, self.n)), False)
        found = np.full(self.n, -1)
        if chosen.any():
            _, back, sizes = np.unique(label[chosen], return_inverse=True, return_counts=True)
            rank = np.empty(len(sizes), int)
            rank[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
            found[chosen] = rank[back]
        return found

    def largest(self, chosen: npt.NDArray[np.bool_]) -> int:
        """Atoms of the largest cluster."""
        return int((self.clusters(chosen) == 0).sum())


def auroc(score: FloatArray, truth: npt.NDArray[np.bool_]) -> float:
    """Chance that one of the true scores higher than one of the others; ties count half."""
    yes, no = int(truth.sum()), int((~truth).sum())
    if not yes or not no:
        return math.nan
    return float((rankdata(score)[truth].sum() - yes * (yes + 1) / 2) / (yes * no))


@dataclass(frozen=True)
class Change:
    """Where a series passes from one branch to the other.

    Attributes
    ----------
    at, error : float
        Where half of the step is done, and the standard error of the fit, at least half a step between frames.
    width : float
        From a tenth of the step to nine tenths.
    jump, noise : float
        Height of the step, and scatter about the fit.
    """

    at: float
    error: float
    width: float
    jump: float
    noise: float

    @property
    def clarity(self) -> float:
        """Step over scatter."""
        return abs(self.jump) / self.noise if self.noise else math.inf

    def row(self) -> dict[str, float]:
        """For the file."""
        names = ("at", "error", "width", "jump", "noise", "clarity")
        return {name: float(getattr(self, name)) for name in names}


#: Frames on either side of the steepest place that a change point is fitted to.
WINDOW = 40


def change_point(t: FloatArray, y: FloatArray, reach: int = 8) -> Change:
    """One step on a straight line: a + b t + J / (1 + exp(-(t - T) / w)), by least squares.

    It is fitted to `WINDOW` frames on either side of where means of the `reach` frames before and after differ most.
    T and w are tried on a grid; the error of T is half the range in which the sum of squares, at the best w for each T,
    exceeds the least by no more than the variance.
    """
    n = len(t)
    sums = np.concatenate(([0.0], np.cumsum(y)))
    places = np.arange(reach, n - reach + 1)
    steps = np.abs(sums[places + reach] - 2 * sums[places] + sums[places - reach])
    middle = int(places[np.argmax(steps)])
    rows = slice(max(0, middle - WINDOW), min(n, middle + WINDOW))
    x, values = np.asarray(t[rows], float), np.asarray(y[rows], float)
    direction, gap = np.sign(t[-1] - t[0]), abs(t[1] - t[0])
    at = np.arange(t[middle] - 15 * gap, t[middle] + 15 * gap, gap / 8)
    found: list[tuple[float, float, float, float]] = []  # sum of squares, T, w, J
    for w in gap * np.geomspace(0.05, 12.0, 24):
        for place in at:
            sigmoid = 1.0 / (1.0 + np.exp(-np.clip(direction * (x - place) / w, -50, 50)))
            columns = np.column_stack((np.ones_like(x), (x - x.mean()) / 100.0, sigmoid))
            solution = np.linalg.lstsq(columns, values, rcond=None)[0]
            found.append((float(((columns @ solution - values) ** 2).sum()), float(place), float(w), solution[2]))
    least, _, w, jump = min(found)
    variance = least / (len(x) - 5)
    good = [place for total, place, *_ in found if total <= least + variance]
    # where the step lies between two frames, all places between them are as good
    best = [place for total, place, *_ in found if total <= least + 1e-6 * variance]
    error = max((max(good) - min(good)) / 2, gap / 2)
    return Change(float(np.mean(best)), error, 2 * math.log(9.0) * w, float(jump), math.sqrt(variance))
