"""Selections by clusters of structures, each structure one point: k-means, and DIRECT.

Sums of floating-point numbers that threads share depend on how many threads there are, in scikit-learn as in BLAS.
Here one thread does all, so that a seed means the same everywhere.
"""

from __future__ import annotations

import heapq
import math
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating]
IndexArray = npt.NDArray[np.int64]

#: Starts of k-means, of which the best counts; one where points times clusters exceed `LARGE`: it takes long then, and
#: with many clusters they hardly differ.
N_STARTS = 3
LARGE = 10**7

#: Fits of BIRCH at most. Each halves the logarithm of the range of thresholds.
N_FITS = 20

#: Thresholds of BIRCH, in units of the largest distance from the mean. It takes distances from differences of squares,
#: which mean nothing below 1e-8.
SMALLEST_THRESHOLD = 1e-7

#: Digits of distances from a centre, in units of the largest in the cluster. Two points are as far from their mean, and
#: it must not be rounding that chooses between them.
DIGITS = 9

#: Columns that vary by less, relative to their largest value, hold rounding errors.
CONSTANT = 1e-12


def k_means(points: FloatArray, n: int, rng: np.random.Generator) -> IndexArray:
    """One structure from each of `n` clusters, the one nearest to the centre of its cluster.

    k-means++ with Lloyd's iterations, the best of three starts (one start where S n > 1e7). Where fewer than `n`
    clusters can be told apart, the structures farthest from all that are chosen follow, one after the other. Ties go to
    the lowest index.

    Parameters
    ----------
    points : ndarray, shape (S, d)
        One point per structure.
    n : int
        How many, at least 1.
    rng : numpy.random.Generator

    Returns
    -------
    ndarray of int64, shape (min(n, S),)
        Different indices, those of the largest clusters first.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    if n >= len(points):
        return np.arange(len(points), dtype=np.int64)
    scaled = _scaled(points)
    first, member = _distinct(scaled)
    if len(first) <= n:
        chosen = [part[0] for part in _parts(scaled, member, scaled[first])]
        others = np.setdiff1d(np.arange(len(points)), chosen)
        return np.concatenate([chosen, others[: n - len(chosen)]]).astype(np.int64)
    seed = int(rng.integers(2**31 - 1))
    starts = N_STARTS if len(points) * n <= LARGE else 1
    with _one_thread(), warnings.catch_warnings():
        # points that differ by rounding only; `_fill` makes up for it
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = KMeans(n, n_init=starts, random_state=seed).fit(scaled)
    chosen = [part[0] for part in _parts(scaled, model.labels_, model.cluster_centers_)]
    return _fill(scaled, chosen, n)


def direct(points: FloatArray, n: int, rng: np.random.Generator) -> IndexArray:
    """DIRECT sampling: reduced dimensions, clusters, stratified picks.

    Columns are standardised. Principal components with eigenvalues above 1 are kept (at least one), each weighted by
    its share of the variance. BIRCH makes clusters, of each of which the structure nearest to the centroid is chosen.

    The published form has BIRCH make at least `n` clusters, and merges them to `n` by hierarchical clustering, which
    takes memory that grows with the square of S. Here the threshold of BIRCH is searched for, such that there are `n`
    clusters, or as few less as can be found. The picks that are left go to where a pick stands for most structures;
    several picks of one cluster are evenly spaced in the order of distances from the centroid, as published.

    Parameters
    ----------
    points : ndarray, shape (S, d)
        One point per structure.
    n : int
        How many, at least 1.
    rng : numpy.random.Generator
        Not used: no step is random. The order of the points matters, though, since BIRCH takes them one by one.

    Returns
    -------
    ndarray of int64, shape (min(n, S),)
        Different indices: one of each cluster, the largest clusters first, then the second ones, and so on.

    References
    ----------
    Qi, Ko, Wood, Pham, Ong, npj Comput. Mater. (2024), doi:10.1038/s41524-024-01227-4.
    """
    if n >= len(points):
        return np.arange(len(points), dtype=np.int64)
    with _one_thread():
        reduced = _components(points)
        parts = _parts(reduced, *_birch(reduced, n))
    counts = _shares([len(part) for part in parts], n)
    picks = [part[np.arange(m) * (len(part) - 1) // max(m - 1, 1)] for part, m in zip(parts, counts, strict=True)]
    rounds = np.concatenate([np.arange(m) for m in counts])
    return np.concatenate(picks)[np.argsort(rounds, kind="stable")]


def _one_thread() -> AbstractContextManager[Any]:
    """One thread for BLAS and for scikit-learn."""
    import sklearn.cluster  # noqa: F401  libraries that are loaded later would not be limited
    from threadpoolctl import threadpool_limits

    limits: AbstractContextManager[Any] = threadpool_limits(limits=1)
    return limits


def _scaled(points: FloatArray, axis: int | None = None) -> npt.NDArray[np.float64]:
    """Points times a power of two (by column for axis 0), so that no square of a number overflows or vanishes."""
    exponent = np.frexp(np.abs(points).max(axis=axis))[1]
    scaled: npt.NDArray[np.float64] = np.ldexp(np.asarray(points, dtype=np.float64), -exponent)
    return scaled + 0.0  # no negative zeros, so that equal rows have equal bits


def _distinct(points: npt.NDArray[np.float64]) -> tuple[IndexArray, IndexArray]:
    """Indices of the first of all equal points, and for every point the place among them."""
    _, first, member = np.unique(points, axis=0, return_index=True, return_inverse=True)
    return first, member.reshape(-1)


def _parts(
    points: npt.NDArray[np.float64], labels: npt.NDArray[np.integer], centres: npt.NDArray[np.float64]
) -> list[IndexArray]:
    """Points of each cluster, the nearest to its centre first; large clusters first. Ties go to the lowest index."""
    distance = np.linalg.norm(points - centres[labels], axis=1)
    largest = np.zeros(len(centres))
    np.maximum.at(largest, labels, distance)
    largest[largest == 0.0] = 1.0
    order = np.lexsort((np.round(distance / largest[labels], DIGITS), labels))
    parts = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
    return sorted(parts, key=lambda part: (-len(part), part[0]))


def _fill(points: npt.NDArray[np.float64], chosen: Sequence[int], n: int) -> IndexArray:
    """`chosen`, and then, one by one, the point farthest from all chosen, until there are `n`."""
    indices = np.empty(n, dtype=np.int64)
    indices[: len(chosen)] = chosen
    if len(chosen) == n:
        return indices
    nearest = np.full(len(points), math.inf)
    for place in range(n):
        if place >= len(chosen):
            indices[place] = np.argmax(nearest)
        away = points - points[indices[place]]
        np.minimum(nearest, np.einsum("sd,sd->s", away, away), out=nearest)
        nearest[indices[place]] = -1.0  # copies of it are at 0
    return indices


def _components(points: FloatArray) -> npt.NDArray[np.float64]:
    """Weighted principal components of the standardised points (S, components). Equal points stay equal to the bit."""
    scaled = _scaled(points, axis=0)
    away = scaled - scaled[0]  # exactly 0 in constant columns
    spread = away.std(axis=0)
    varies = spread > CONSTANT * np.abs(scaled).max(axis=0)
    if not varies.any():
        return np.zeros((len(points), 1))
    standard = (away[:, varies] - away[:, varies].mean(axis=0)) / spread[varies]
    variance, vectors = np.linalg.eigh(standard.T @ standard / (len(points) - 1))
    variance, vectors = variance[::-1], vectors[:, ::-1]
    kept = max(1, int(np.count_nonzero(variance > 1.0)))
    weights = variance[:kept] / variance.sum()
    # a product of matrices may treat rows differently, by where they stand
    first, member = _distinct(scaled)
    components: npt.NDArray[np.float64] = (standard[first] @ vectors[:, :kept] * weights)[member]
    return components


def _birch(points: npt.NDArray[np.float64], n: int) -> tuple[npt.NDArray[np.integer], npt.NDArray[np.float64]]:
    """Clusters by BIRCH, `n` or somewhat fewer: the label of each point, and centroids. Some may have no points."""
    from sklearn.cluster import Birch
    from sklearn.metrics import pairwise_distances_argmin

    first, member = _distinct(points)
    if len(first) <= n:
        return member, points[first]
    centres = points.mean(axis=0)[None, :]
    high = float(np.linalg.norm(points - centres, axis=1).max())  # all points are one cluster
    low = SMALLEST_THRESHOLD * high
    for _ in range(N_FITS):
        if len(centres) == n:
            break
        threshold = math.sqrt(low * high)
        found = Birch(threshold=threshold, n_clusters=None, compute_labels=False).fit(points).subcluster_centers_
        if len(found) > n:
            low = threshold
        else:
            high = threshold
            if len(found) > len(centres):
                centres = found
    return pairwise_distances_argmin(points, centres), centres


def _shares(sizes: Sequence[int], n: int) -> list[int]:
    """Picks from clusters of these sizes, `n` in all: one each, then ever from where a pick stands for most points."""
    counts = [1] * len(sizes)
    waiting = [(-float(size), cluster) for cluster, size in enumerate(sizes) if size > 1]
    heapq.heapify(waiting)
    for _ in range(n - len(sizes)):
        cluster = heapq.heappop(waiting)[1]
        counts[cluster] += 1
        if counts[cluster] < sizes[cluster]:
            heapq.heappush(waiting, (-sizes[cluster] / counts[cluster], cluster))
    return counts
