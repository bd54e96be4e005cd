"""Entropy in less time than exact sums take, with the error that it has."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from quests_zenn._core.arrays import as_bandwidths, as_codes, as_matrix
from quests_zenn._core.checks import one_of, positive, whole_number
from quests_zenn._core.parallel import Workers, use_workers
from quests_zenn._core.rng import as_rng
from quests_zenn._core.rows import MemoryRows, Rows, SomeRows
from quests_zenn.entropy._levels import (
    OVERHEAD,
    Z95,
    Level,
    SampledSums,
    estimate_means,
    means_and_errors,
    reference_sizes,
)
from quests_zenn.entropy._neighbours import DEFAULT_NEIGHBOURS, find_neighbours
from quests_zenn.entropy._packing import for_samples
from quests_zenn.entropy._squares import key_of_sums
from quests_zenn.entropy._sweep import Progress
from quests_zenn.entropy.bandwidth import DEFAULT_BANDWIDTH
from quests_zenn.entropy.metrics import PRECISIONS, get_all_metrics

Array = npt.NDArray[np.float64]

ESTIMATORS = ("auto", "exact", "sampled", "knn")

#: Environments up to which ``estimator="auto"`` is exact.
EXACT_UP_TO = 50_000

#: 95 % half-width of H, nats.
DEFAULT_TOLERANCE = 0.01


def is_exact(estimator: str, n: int) -> bool:
    """Whether this estimator sums all pairs of n environments from the start."""
    return estimator == "exact" or (estimator == "auto" and n <= EXACT_UP_TO)


@dataclass(frozen=True)
class EntropyEstimate:
    """Entropy of a set, and how sure it is.

    Attributes
    ----------
    value : float, or numpy.ndarray (H,) for several bandwidths; nats
        Entropy H.
    standard_error : float or numpy.ndarray, nats
        0.0 where H is exact.
    diversity, diversity_error : float or numpy.ndarray, nats
        Diversity D and its standard error.
    estimator : str
        What was used: ``exact``, ``sampled`` or ``knn``.
    n_environments : int
    tolerance : float, nats
        95 % half-width of H that was asked for.
    environments, references : tuple of int
        Environments asked on each level, and the references that each of them was compared with. Empty if exact.
    bound : float, numpy.ndarray or None; nats
        Upper bound of H from the neighbours alone; only for ``knn``.
    recall : float or None
        Share of the true nearest neighbours that were found; only for ``knn``. 1.0 where the search was exact.
    """

    value: Any
    standard_error: Any
    diversity: Any
    diversity_error: Any
    estimator: str
    n_environments: int
    tolerance: float
    environments: tuple[int, ...] = ()
    references: tuple[int, ...] = ()
    bound: Any = None
    recall: float | None = None

    @property
    def interval(self) -> tuple[Any, Any]:
        """95 % interval of H, nats."""
        half = Z95 * self.standard_error
        return self.value - half, self.value + half

    def __float__(self) -> float:
        return float(self.value)


def estimate_entropy(
    x: npt.ArrayLike | Rows,
    h: float | npt.ArrayLike = DEFAULT_BANDWIDTH,
    estimator: str = "auto",
    tolerance: float = DEFAULT_TOLERANCE,
    *,
    labels: npt.ArrayLike | None = None,
    n_neighbors: int = DEFAULT_NEIGHBOURS,
    random_state: int | np.random.Generator | None = None,
    precision: str = "auto",
    jobs: int | None = None,
    workers: Workers | None = None,
    progress: Callable[[int], None] | None = None,
) -> EntropyEstimate:
    """Entropy to a stated error, in time that grows far slower than the number of pairs.

    Parameters
    ----------
    x : array_like, shape (N, d), or Rows
        Environments, one per row, 1/Å. `Rows` (``open_store(path).rows``, say) are read in pieces, and may be larger
        than memory unless sums are exact or neighbours are searched.
    h : float or array_like, shape (H,)
        Bandwidth, 1/Å.
    estimator : {"auto", "exact", "sampled", "knn"}
        ``exact`` sums all pairs. ``sampled`` compares random environments with random references, on several levels
        that end with the whole set: free of bias, with an error bar that holds. ``knn`` sums the nearest neighbours of
        every environment and corrects the mean by exact sums of some; it is there for comparison, and rarely pays.
        ``auto`` is exact up to 50,000 environments, and then the cheapest that meets the tolerance: ``sampled``, or
        ``exact`` where that takes less work.
    tolerance : float
        95 % half-width of H, nats. D comes from the same samples, with the error that it has.
    labels : array_like, shape (N,), optional
        Environments with different labels do not resemble each other, as in `entropy`.
    n_neighbors : int
        Neighbours that ``knn`` sums, the environment itself among them.
    random_state : int, numpy.random.Generator or None
        Seed of the samples. None draws anew each time.
    precision, jobs
        See `entropy`. ``auto`` takes float32 for samples where its error is below a hundredth of the tolerance.
    workers : Workers or None
        Threads to use instead of new ones.
    progress : callable or None
        Called from any thread with the number of pairs done since the last call.

    Returns
    -------
    EntropyEstimate

    Raises
    ------
    ValueError
        If x is not a finite matrix, or an argument is out of range.

    References
    ----------
    Multilevel sampling: M. B. Giles, Oper. Res. 56 (2008) 607.
    """
    rows: Rows = x if isinstance(x, Rows) else MemoryRows(as_matrix(x, "x"))
    bandwidths, single = as_bandwidths(h)
    one_of(estimator, "estimator", ESTIMATORS)
    one_of(precision, "precision", PRECISIONS)
    tolerance = positive(tolerance, "tolerance")
    whole_number(n_neighbors, "n_neighbors", 1)
    rng, n = as_rng(random_state), len(rows)
    codes = as_codes(labels, n, "labels")
    members = [np.arange(n)] if codes is None else [np.flatnonzero(codes == c) for c in range(int(codes.max()) + 1)]
    exact = is_exact(estimator, n)
    with use_workers(workers, jobs) as pool:
        parts: list[_Means] = []
        key = ""
        if pool.keeper is not None:
            key = key_of_sums("samples", rows.token, bandwidths, codes, precision, repr(rng.bit_generator.state))
        for chosen in [] if exact else members:
            part = _some(rows, chosen)
            # the squared error of the whole is the sum of those of its parts, each weighted by its squared share
            target = tolerance / Z95 * math.sqrt(n / len(chosen))
            how = _Sampler(part, bandwidths, target, rng, precision, pool, progress, key and f"{key}-{len(parts)}")
            # all pairs are n^2 / 2, each with two exponentials to add
            most = 0.6 * len(part) ** 2 if estimator == "auto" else math.inf
            means = how.neighbours(n_neighbors) if estimator == "knn" else how.levels(most)
            if means is None:
                exact = True
                break
            parts.append(means)
        if not exact:
            used = "knn" if estimator == "knn" else "sampled"
            found = _assemble(parts, [len(chosen) for chosen in members], tolerance, used)
        else:
            value, d, _ = get_all_metrics(
                rows.read(0, n), bandwidths, labels=labels, precision=precision, workers=pool, progress=progress
            )
            zero = np.zeros(len(bandwidths))
            found = EntropyEstimate(value, zero, d, zero, "exact", n, tolerance)
    return _first_bandwidth(found) if single else found


@dataclass(frozen=True)
class _Means:
    """Means of ln p and of 1 / p over a set (2 H,), with standard errors, and how they were found."""

    values: Array
    errors: Array
    environments: tuple[int, ...]
    references: tuple[int, ...]
    neighbours_only: Array | None = None  #: mean ln p (H,) from the neighbours alone
    recall: float = 1.0


@dataclass(frozen=True)
class _Sampler:
    """A set, and the standard error to which the mean of ln p is wanted."""

    x: Rows
    h: Array
    target: float
    rng: np.random.Generator
    precision: str
    workers: Workers
    progress: Progress | None
    key: str = ""

    @cached_property
    def arithmetic(self) -> str:
        """Single precision where its error is small beside the target."""
        # where no environment resembles another, the rounding of an environment's own term is the error of H
        return for_samples(self.precision, self.x, float(self.h.min()), 0.01 * Z95 * self.target)

    def sums(self, members: npt.NDArray[np.integer]) -> SampledSums:
        return SampledSums(self.x, self.h, members, self.arithmetic, self.workers, self.key)

    def permutation(self) -> npt.NDArray[np.integer]:
        """All environments in random order."""
        n = len(self.x)
        return self.rng.permutation(np.arange(n, dtype=np.int32 if n < 2**31 else np.int64))

    def means(self, levels: list[Level], most_work: float = math.inf) -> tuple[Array, Array] | None:
        return estimate_means(levels, np.full(len(self.h), 0.98 * self.target), most_work)

    def levels(self, most_work: float) -> _Means | None:
        """Means from samples of references, each larger than the one before; None if that takes too much work."""
        n = len(self.x)
        sizes = reference_sizes(n)
        order = self.permutation()
        sums = [self.sums(order[:m]) for m in sizes]

        def difference(level: int) -> Callable[[npt.NDArray[np.integer]], Array]:
            def evaluate(queries: npt.NDArray[np.integer]) -> Array:
                here = log_and_inverse(sums[level](queries, self.progress))
                return here if level == 0 else here - log_and_inverse(sums[level - 1](queries, self.progress))

            return evaluate

        costs = [m + less + OVERHEAD for m, less in zip(sizes, [0, *sizes[:-1]], strict=True)]
        levels = [Level(cost, difference(i), self.permutation()) for i, cost in enumerate(costs)]
        if self.means(levels, most_work) is None:
            return None
        # of what makes up more than 3 in m, 19 of 20 samples of m show some; what they do not show may have ln p = 0
        k, first = len(self.h), levels[0]
        largest = max(1.0, float(first.values[:k].mean(axis=1).max()))
        first.ask(min(n, math.ceil(3.0 / Z95 * largest / (0.15 * self.target))))
        means, errors = self.with_rounding(means_and_errors(levels))
        unseen = 3.0 / Z95 / first.asked * (1.0 - first.asked / n)
        more = np.concatenate([unseen * np.maximum(means[:k], 0.0), np.full(k, unseen)])
        inverse = first.values[k:]
        for level in levels[1:]:
            # where a few environments make up most of the mean of 1 / p, later levels have hardly asked any of them:
            # their correction may be as large as what it corrects
            seen = level.asked / first.asked * inverse.sum(axis=1) ** 2 / (inverse**2).sum(axis=1)
            more[k:] += np.where(seen < 10.0, inverse.std(axis=1) / math.sqrt(level.asked), 0.0)
        return _Means(means, np.hypot(errors, more), tuple(level.asked for level in levels), tuple(sizes))

    def with_rounding(self, found: tuple[Array, Array]) -> tuple[Array, Array]:
        """The errors of mean ln p, with that of single precision."""
        means, errors = found
        if self.arithmetic == "float32":
            errors[: len(self.h)] = np.hypot(errors[: len(self.h)], 0.03 * self.target)
        return means, errors

    def neighbours(self, n_neighbors: int) -> _Means:
        """Means from the nearest neighbours of every environment, corrected by the exact sums of some."""
        n = len(self.x)
        seed = int(self.rng.integers(2**31))
        x = self.x.read(0, n)
        search = find_neighbours(x, x, min(n_neighbors, n) - 1, True, seed, self.workers, self.progress)
        p = 1.0 + np.exp(-0.5 * (search.distances[None] / self.h[:, None, None]) ** 2).sum(axis=2)
        base, exact = log_and_inverse(p), self.sums(np.arange(n))
        rest = Level(
            n,
            lambda queries: log_and_inverse(exact(queries, self.progress)) - base[:, queries],
            self.permutation(),
        )
        self.means([rest])
        found = self.with_rounding(means_and_errors([rest]))
        alone = base.mean(axis=1)
        return _Means(
            alone + found[0], found[1], (n, rest.asked), (n_neighbors, n), alone[: len(self.h)], search.recall
        )


def _some(rows: Rows, chosen: npt.NDArray[np.int64]) -> Rows:
    """Some rows of a matrix; of one that is in memory, in memory."""
    if len(chosen) == len(rows):
        return rows
    return MemoryRows(rows.take(chosen)) if isinstance(rows, MemoryRows) else SomeRows(rows, chosen)


def log_and_inverse(p: Array) -> Array:
    """ln p and 1 / p, one below the other: (2 H, m)."""
    return np.concatenate([np.log(p), 1.0 / p])


def _assemble(parts: list[_Means], sizes: list[int], tolerance: float, estimator: str) -> EntropyEstimate:
    """The whole set from its parts, which do not see each other."""
    n = sum(sizes)
    shares = np.array(sizes)[:, None] / n
    k = len(parts[0].values) // 2
    values = (shares * [part.values for part in parts]).sum(axis=0)
    errors = np.sqrt(((shares * [part.errors for part in parts]) ** 2).sum(axis=0))
    bound = recall = None
    if estimator == "knn":
        bound = math.log(n) - (shares * [part.neighbours_only for part in parts]).sum(axis=0)
        recall = float((shares[:, 0] * [part.recall for part in parts]).sum())
    largest = parts[int(np.argmax(sizes))]
    # a sum of differences may leave the range of 1 / p; half of the interval of the logarithm, which is not symmetric
    inverse = np.clip(values[k:], 1.0 / n, 1.0)
    low, high = np.clip(inverse - errors[k:], 1.0 / n, 1.0), np.clip(inverse + errors[k:], 1.0 / n, 1.0)
    return EntropyEstimate(
        math.log(n) - values[:k],
        errors[:k],
        math.log(n) + np.log(inverse),
        np.maximum(np.log(inverse / low), np.log(high / inverse)),
        estimator,
        n,
        tolerance,
        largest.environments,
        largest.references,
        bound,
        recall,
    )


def _first_bandwidth(found: EntropyEstimate) -> EntropyEstimate:
    """Numbers in place of arrays of length one."""
    names = ("value", "standard_error", "diversity", "diversity_error", "bound")
    numbers: dict[str, Any] = {name: getattr(found, name) for name in names}
    for name, array in numbers.items():
        numbers[name] = None if array is None else float(array[0])
    return replace(found, **numbers)
