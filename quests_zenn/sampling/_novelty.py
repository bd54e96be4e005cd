"""Whether a proposed point is worth its cost: far from what is known, or of unknown environments, where g bends."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from quests_zenn._core.checks import DataError, finite
from quests_zenn._core.rng import as_rng
from quests_zenn.sampling.weights import capped

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]
BoolArray = npt.NDArray[np.bool_]

#: Known points that a mean distance is taken to.
NEIGHBOURS = 5

#: Rows that are compared with each other at a time.
BLOCK = 256


def novelty(
    points: npt.ArrayLike,
    known: npt.ArrayLike,
    max_abs_eigenvalue: npt.ArrayLike | None = None,
    scale: npt.ArrayLike | None = None,
    min_distance: float = 0.0,
    rng: Any = None,
    reference: float | None = None,
    distance: npt.ArrayLike | None = None,
) -> BoolArray:
    """Which proposals to keep, drawn at random.

    A proposal is kept with probability w / (w + w_0): w is its largest |eigenvalue| of the Hessian times its mean
    distance to the five nearest known points, and w_0 is what is usual. Proposals within the minimum distance of a
    known point are never kept.

    Parameters
    ----------
    points : array, shape (n, q)
    known : array, shape (k, q)
        Points that were evaluated before. Without any, all proposals are kept.
    max_abs_eigenvalue : array, shape (n,), optional
        Largest |eigenvalue| of the Hessian of g at the points. Values that are NaN count as the median of the others;
        where none is known or all are zero, distances alone decide.
    scale : array, shape (q,), optional
        Lengths that distances are measured in; by default 1.
    min_distance : float
        In units of `scale`. With 0, points that are known already are dropped and no others.
    rng : seed or numpy.random.Generator
    reference : float, optional
        w_0; by default the median of w over the proposals that are not too near.
    distance : array, shape (n,), optional
        In place of the mean distance to the five nearest known points, such as how novel the environments of a proposal
        are. NaN counts as the median of the others, and infinity as the largest of them; where nothing is known, it is
        the mean distance after all.

    Returns
    -------
    (n,) bool

    Raises
    ------
    DataError
        If shapes do not go together.
    ValueError
        If the distance is negative.
    """
    x, old, unit = _together(points, known, scale)
    least = _distance(min_distance)
    draws = as_rng(rng).random(len(x))
    if not len(old) or not len(x):
        return np.ones(len(x), bool)
    nearest, mean = distances(x, old, unit)
    far = nearest > least
    if distance is not None:
        mean = replaced(mean, distance)
    worth = mean * bend(max_abs_eigenvalue, len(x))
    if reference is None:
        reference = float(np.median(worth[far])) if far.any() else 0.0
    whole = worth + max(reference, 0.0)
    chance = np.divide(worth, whole, out=np.zeros(len(x)), where=whole > 0.0)
    return far & (draws < chance)


def spread(
    points: npt.ArrayLike,
    known: npt.ArrayLike | None = None,
    min_distance: float = 0.0,
    n: int | None = None,
    scale: npt.ArrayLike | None = None,
) -> IntArray:
    """Rows that keep a minimum distance from known points and from each other, first come first served.

    Parameters
    ----------
    points : array, shape (m, q)
        In order of preference.
    known : array, shape (k, q), optional
    min_distance : float
        In units of `scale`; two points at exactly this distance are too near. With 0, copies are dropped and no others.
    n : int, optional
        How many rows are enough.
    scale : array, shape (q,), optional
        Lengths that distances are measured in; by default 1.

    Returns
    -------
    numbers of the rows, increasing, at most `n`

    Raises
    ------
    DataError
        If shapes do not go together.
    ValueError
        If the distance is negative.
    """
    x, old, unit = _together(points, np.empty((0, np.shape(points)[-1])) if known is None else known, scale)
    least = _distance(min_distance)
    enough = len(x) if n is None else n
    x = x / unit
    free = np.ones(len(x), bool)
    if len(old) and len(x):
        free = cKDTree(old / unit).query(x)[0] > least
    rows = np.flatnonzero(free)
    taken: list[int] = []
    for first in range(0, len(rows), BLOCK):
        block = rows[first : first + BLOCK]
        if taken:
            block = block[(cdist(x[block], x[taken]) > least).all(1)]
        while len(block) and len(taken) < enough:
            taken.append(int(block[0]))
            gap = np.sqrt(((x[block] - x[block[0]]) ** 2).sum(1))
            block = block[gap > least]
        if len(taken) >= enough:
            break
    return np.array(taken, np.intp)


def distances(points: FloatArray, known: FloatArray, scale: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Distance to the nearest known point, and the mean of those to the five nearest (or to as many as there are)."""
    k = min(NEIGHBOURS, len(known))
    found = cKDTree(known / scale).query(points / scale, k=list(range(1, k + 1)))[0]
    return found[:, 0], found.mean(1)


def replaced(mean: FloatArray, distance: npt.ArrayLike) -> FloatArray:
    """Distances of another kind in place of those in order parameters, as far as they are known."""
    values = np.asarray(distance, dtype=np.float64)
    if values.shape != mean.shape:
        raise DataError(f"there are {len(mean)} points, but distances of shape {values.shape}")
    if (values < 0.0).any():
        raise DataError("distances must not be negative")
    if np.isnan(values).all():
        return mean
    values = capped(values)
    return np.where(np.isnan(values), np.median(values[~np.isnan(values)]), values)


def bend(max_abs_eigenvalue: npt.ArrayLike | None, n: int) -> FloatArray:
    """Largest |eigenvalues| fit for a product: finite, and 1 where they say nothing."""
    if max_abs_eigenvalue is None:
        return np.ones(n)
    values = np.abs(np.asarray(max_abs_eigenvalue, dtype=np.float64))
    if values.shape != (n,):
        raise DataError(f"there are {n} points, but eigenvalues of shape {values.shape}")
    known = np.isfinite(values)
    if not known.any() or not values[known].any():
        return np.ones(n)
    return np.where(known, values, np.median(values[known]))


def _distance(value: float) -> float:
    number = finite(value, "min_distance")
    if number < 0.0:
        raise ValueError(f"min_distance must not be negative, got {value!r}")
    return number


def _together(
    points: npt.ArrayLike, known: npt.ArrayLike, scale: npt.ArrayLike | None
) -> tuple[FloatArray, FloatArray, FloatArray]:
    x, old = np.asarray(points, dtype=np.float64), np.asarray(known, dtype=np.float64)
    if x.ndim != 2 or old.ndim != 2 or x.shape[1] != old.shape[1]:
        raise DataError(f"points of shape {x.shape} and known points of shape {old.shape} do not go together")
    unit = np.ones(x.shape[1]) if scale is None else np.asarray(scale, dtype=np.float64)
    if unit.shape != (x.shape[1],) or not (np.isfinite(unit).all() and (unit > 0.0).all()):
        raise DataError(f"scale must hold {x.shape[1]} positive lengths")
    if not math.isfinite(x.sum()) or not math.isfinite(old.sum()):
        raise DataError("points must be finite")
    return x, old, unit
