"""Entropy and dH in less time than the exact sums take, each with the error that it has."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import cdist

from quests_zenn._core.arrays import as_bandwidths, as_codes, as_matrix
from quests_zenn._core.checks import one_of, positive, whole_number
from quests_zenn._core.parallel import Workers, use_workers
from quests_zenn._core.rng import as_rng
from quests_zenn.entropy import _torch
from quests_zenn.entropy._engine import Progress, run_tiles
from quests_zenn.entropy._levels import OVERHEAD, Level, SampledSums, estimate_means, reference_sizes
from quests_zenn.entropy._neighbours import nearest
from quests_zenn.entropy._packing import FloatArray, Packed, base_scale, pack_rows, relative_scales
from quests_zenn.entropy._plan import CROSS, SELF, Tiles
from quests_zenn.entropy.bandwidth import DEFAULT_BANDWIDTH
from quests_zenn.entropy.metrics import PRECISIONS, common_codes, delta_entropy, get_all_metrics

Array = npt.NDArray[np.float64]

ESTIMATORS = ("auto", "exact", "sampled", "knn")

#: Environments up to which ``estimator="auto"`` is exact.
EXACT_UP_TO = 50_000

#: 95 % half-width of H, nats.
DEFAULT_TOLERANCE = 0.01

#: Half-width of a 95 % interval in standard errors.
Z95 = 1.959963984540054

#: Neighbours that ``knn`` sums.
DEFAULT_NEIGHBOURS = 32

#: References up to which neighbours are found by exact search. Beyond, PyNNDescent is faster, in spite of the half
#: minute that it takes to compile in every process.
EXACT_SEARCH_UP_TO = 150_000

#: References that ``approx_delta_entropy`` visits for each environment.
DEFAULT_REFERENCES = 32_768

#: Standard error of dH from a sample, nats, from which on all references are summed instead.
POORLY_TOLD = 0.5

#: Environments on which estimates of dH are compared with the exact sums.
CHECKED = 1_000


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
    x: npt.ArrayLike,
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
    x : array_like, shape (N, d)
        Environments, one per row, 1/Å.
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
    matrix = as_matrix(x, "x")
    bandwidths, single = as_bandwidths(h)
    one_of(estimator, "estimator", ESTIMATORS)
    one_of(precision, "precision", PRECISIONS)
    tolerance = positive(tolerance, "tolerance")
    whole_number(n_neighbors, "n_neighbors", 1)
    rng, n = as_rng(random_state), len(matrix)
    codes = as_codes(labels, n, "labels")
    members = [np.arange(n)] if codes is None else [np.flatnonzero(codes == c) for c in range(int(codes.max()) + 1)]
    exact = is_exact(estimator, n)
    with use_workers(workers, jobs) as pool:
        parts: list[_Means] = []
        for rows in [] if exact else members:
            part = matrix if len(rows) == n else matrix[rows]
            # the squared error of the whole is the sum of those of its parts, each weighted by its squared share
            target = tolerance / Z95 * math.sqrt(n / len(rows))
            how = _Sampler(part, bandwidths, target, rng, precision, pool, progress)
            # all pairs are n^2 / 2, each with two exponentials to add
            most = 0.6 * len(part) ** 2 if estimator == "auto" else math.inf
            means = how.neighbours(n_neighbors) if estimator == "knn" else how.levels(most)
            if means is None:
                exact = True
                break
            parts.append(means)
        if not exact:
            used = "knn" if estimator == "knn" else "sampled"
            found = _assemble(parts, [len(rows) for rows in members], tolerance, used)
        else:
            value, d, _ = get_all_metrics(
                matrix, bandwidths, labels=labels, precision=precision, workers=pool, progress=progress
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

    x: FloatArray
    h: Array
    target: float
    rng: np.random.Generator
    precision: str
    workers: Workers
    progress: Progress | None

    def sums(self, members: npt.NDArray[np.integer]) -> SampledSums:
        # where no environment resembles another, the rounding of an environment's own term is the error of H
        arithmetic = _for_samples(self.precision, self.x, float(self.h.min()), 0.01 * Z95 * self.target)
        return SampledSums(self.x, self.h, members, arithmetic, self.workers)

    def means(self, levels: list[Level], most_work: float = math.inf) -> tuple[Array, Array] | None:
        return estimate_means(levels, np.full(len(self.h), self.target), most_work)

    def levels(self, most_work: float) -> _Means | None:
        """Means from samples of references, each larger than the one before; None if that takes too much work."""
        n = len(self.x)
        sizes = reference_sizes(n)
        order = self.rng.permutation(n)
        sums = [self.sums(order[:m]) for m in sizes]

        def difference(level: int) -> Callable[[npt.NDArray[np.integer]], Array]:
            def evaluate(queries: npt.NDArray[np.integer]) -> Array:
                here = _functions(sums[level](queries, self.progress))
                return here if level == 0 else here - _functions(sums[level - 1](queries, self.progress))

            return evaluate

        costs = [m + less + OVERHEAD for m, less in zip(sizes, [0, *sizes[:-1]], strict=True)]
        levels = [Level(cost, difference(i), self.rng.permutation(n)) for i, cost in enumerate(costs)]
        found = self.means(levels, most_work)
        if found is None:
            return None
        return _Means(*found, tuple(level.asked for level in levels), tuple(sizes))

    def neighbours(self, n_neighbors: int) -> _Means:
        """Means from the nearest neighbours of every environment, corrected by the exact sums of some."""
        n = len(self.x)
        seed = int(self.rng.integers(2**31))
        search = find_neighbours(self.x, self.x, min(n_neighbors, n) - 1, True, seed, self.workers, self.progress)
        p = 1.0 + np.exp(-0.5 * (search.distances[None] / self.h[:, None, None]) ** 2).sum(axis=2)
        base, exact = _functions(p), self.sums(np.arange(n))
        rest = Level(
            n, lambda queries: _functions(exact(queries, self.progress)) - base[:, queries], self.rng.permutation(n)
        )
        found = self.means([rest])
        assert found is not None
        alone = base.mean(axis=1)
        return _Means(
            alone + found[0], found[1], (n, rest.asked), (n_neighbors, n), alone[: len(self.h)], search.recall
        )


def _for_samples(precision: str, x: FloatArray, h: float, allowed: float) -> str:
    """Single precision for ``auto`` where its error, nats, is allowed: samples err by more, unless x is very wide."""
    if precision != "auto":
        return precision
    some = x[:: max(1, len(x) // 10_000)]
    exponent = base_scale(h) ** 2 * float(some.var(axis=0, dtype=np.float64).sum())
    return "float32" if 2.0**-24 * exponent <= allowed else "float64"


def _functions(p: Array) -> Array:
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
    low, inverse, high = (np.clip(values[k:] + sign * errors[k:], 1.0 / n, 1.0) for sign in (-1.0, 0.0, 1.0))
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


@dataclass(frozen=True)
class Neighbours:
    """The nearest references of every environment asked about, nearest first."""

    indices: npt.NDArray[np.int64]  #: (m, n)
    distances: Array  #: (m, n), 1/Å
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
    from pynndescent import NNDescent  # takes two seconds to import, and half a minute to compile

    graph = max(30, n + same)
    index = NNDescent(x, n_neighbors=graph, random_state=seed, n_jobs=workers.jobs)
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


@dataclass(frozen=True)
class DeltaEntropyEstimate:
    """dH of environments, and how sure it is. Converts to an array of the values.

    Attributes
    ----------
    values : numpy.ndarray, shape (n,), nats
        dH(y | X).
    standard_error : numpy.ndarray, shape (n,), nats
        Of each; 0 where dH is exact. For ``knn`` the root of the mean square by which environments of about this dH
        were found to be off (too high, always).
    estimator : str
        What was used: ``exact``, ``sampled`` or ``knn``.
    rms_error : float, nats
        Root of the mean square of the differences from exact sums, on a random sample of the environments.
    references : int
        References that each environment was compared with.
    recall : float or None
        Share of the true nearest neighbours that were found; only for ``knn``.
    """

    values: Array
    standard_error: Array
    estimator: str
    rms_error: float = 0.0
    references: int = 0
    recall: float | None = None

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.array(self.values, dtype=dtype, copy=True if copy is None else copy)

    def __len__(self) -> int:
        return len(self.values)


def approx_delta_entropy(
    y: npt.ArrayLike,
    x: npt.ArrayLike | None = None,
    h: float = DEFAULT_BANDWIDTH,
    *,
    estimator: str = "auto",
    n_neighbors: int = DEFAULT_NEIGHBOURS,
    n_references: int = DEFAULT_REFERENCES,
    y_labels: npt.ArrayLike | None = None,
    x_labels: npt.ArrayLike | None = None,
    random_state: int | np.random.Generator | None = None,
    precision: str = "auto",
    device: str = "cpu",
    jobs: int | None = None,
    workers: Workers | None = None,
    progress: Callable[[int], None] | None = None,
) -> DeltaEntropyEstimate:
    """dH of many environments against a large reference, each with its error.

    ``sampled``: references stand in blocks of neighbours. Each environment is summed over all references of the blocks
    that are near, a part of those that are farther, and a few of those that are far: a stratified sample, unbiased for
    p, whose own spread tells the error of p. The bias of the logarithm is corrected to first order. Environments
    that seem new (p < 1), or that the sample tells badly, are summed over all references. At last a thousand
    environments are summed exactly, and errors are widened until 95 % of their intervals hold, among those of like dH.

    Parameters
    ----------
    y : array_like, shape (n, d)
        Environments asked about, 1/Å.
    x : array_like, shape (N, d), or None
        Reference; None stands for y itself, each environment counting itself.
    h : float
        Bandwidth, 1/Å.
    estimator : {"auto", "exact", "sampled", "knn"}
        ``knn`` sums the nearest references only, an upper bound of dH: tight where the density is low, wrong by nats
        where it is high (it cannot fall below ``-ln n_neighbors``). ``auto`` is exact up to 50,000 x 50,000 pairs and
        where ``n_references`` would not be less than half of the reference, else ``sampled``.
    n_neighbors : int
        References that ``knn`` sums.
    n_references : int
        References that ``sampled`` visits for each environment, about; at least 1,024.
    y_labels, x_labels : array_like, optional
        Labels (elements, say); only references with the label of y count, and dH = inf where there is none. Without x,
        those of y count for both.
    random_state : int, numpy.random.Generator or None
        Seed of the samples. None draws anew each time.
    precision, jobs
        See `entropy`.
    device : str
        See `entropy`; for ``exact`` and ``knn``.
    workers, progress
        See `estimate_entropy`.

    Returns
    -------
    DeltaEntropyEstimate

    Raises
    ------
    ValueError
        If x or y is not a finite matrix, their widths differ, or an argument is out of range.
    """
    asked = as_matrix(y, "y")
    same = x is None
    reference = asked if x is None else as_matrix(x, "x")
    if asked.shape[1] != reference.shape[1]:
        raise ValueError(
            f"y has {asked.shape[1]} components and x has {reference.shape[1]}: both must come from the same descriptor"
        )
    bandwidths, single = as_bandwidths(h)
    if not single:
        raise ValueError("one bandwidth is needed, got several")
    one_of(estimator, "estimator", ESTIMATORS)
    one_of(precision, "precision", PRECISIONS)
    whole_number(n_neighbors, "n_neighbors", 1)
    whole_number(n_references, "n_references", 1024)
    rng = as_rng(random_state)
    if y_labels is None and x_labels is None:
        parts = [(np.arange(len(asked)), np.arange(len(reference)))]
    elif y_labels is None or (x_labels is None and not same):
        raise ValueError("y_labels and x_labels go together: give both or none")
    else:
        mine, theirs = common_codes(y_labels, y_labels if same else x_labels, len(asked), len(reference))
        parts = [(np.flatnonzero(mine == code), np.flatnonzero(theirs == code)) for code in np.unique(mine)]
    values, errors = np.full(len(asked), np.inf), np.zeros(len(asked))
    found: list[tuple[int, DeltaEntropyEstimate]] = []
    with use_workers(workers, jobs) as pool:
        for rows, others in parts:
            if len(others) == 0:
                continue
            one = len(rows) == len(asked) and len(others) == len(reference)
            how = _DeltaSampler(
                asked if one else asked[rows], reference if one else reference[others], same, bandwidths, rng,
                precision, pool, progress, device,
            )  # fmt: skip
            part = how.estimate(estimator, n_neighbors, n_references)
            values[rows], errors[rows] = part.values, part.standard_error
            found.append((len(rows), part))
    if not found:
        return DeltaEntropyEstimate(values, errors, "exact")
    total = sum(count for count, _ in found)
    used = [part.estimator for _, part in found]
    recalls = [(count, part.recall) for count, part in found if part.recall is not None]
    return DeltaEntropyEstimate(
        values,
        errors,
        next((name for name in ("sampled", "knn") if name in used), "exact"),
        math.sqrt(sum(count * part.rms_error**2 for count, part in found) / total),
        sum(count * part.references for count, part in found) // total,
        sum(c * r for c, r in recalls) / sum(c for c, _ in recalls) if recalls else None,
    )


@dataclass(frozen=True)
class _DeltaSampler:
    """Environments and a reference that see each other."""

    y: FloatArray
    x: FloatArray
    same: bool
    h: Array
    rng: np.random.Generator
    precision: str
    workers: Workers
    progress: Progress | None
    device: str

    def estimate(self, estimator: str, n_neighbors: int, n_references: int) -> DeltaEntropyEstimate:
        n = len(self.x)
        if estimator == "auto":
            small = len(self.y) * n <= EXACT_UP_TO**2 or n <= 2 * n_references or self.device != "cpu"
            estimator = "exact" if small else "sampled"
        if estimator == "sampled" and self.device != "cpu":
            raise ValueError(f"samples are taken on the processor, not on {self.device}: estimator exact or knn can be")
        if estimator == "exact":
            return DeltaEntropyEstimate(self.exact(self.progress), np.zeros(len(self.y)), "exact", references=n)
        checked = self.rng.permutation(len(self.y))[:CHECKED]
        truth = -self.exact(None, checked)
        if estimator == "sampled":
            arithmetic = _for_samples(self.precision, self.x, float(self.h[0]), 0.01)
            sample = _Stratified(
                self.y, self.x, self.same, float(self.h[0]), n_references, self.rng, arithmetic, self.workers
            )
            log_p, error, visited = sample.log_sums(self.progress)
            # what seems new, or is told badly by the sample, is worth all references
            unsure = error > POORLY_TOLD
            if not self.same:
                unsure |= log_p < 0.0
            rows = np.flatnonzero(unsure)
            if len(rows):
                log_p[rows] = -self.exact(self.progress, rows, "float64")
            off = log_p[checked] - truth
            # a sample cannot see what it has missed: as much is added as makes 95 % of the intervals hold
            told = ~unsure[checked]
            missing = np.sqrt(np.maximum((off / Z95) ** 2 - error[checked] ** 2, 0.0))[told]
            if len(missing):
                error = np.hypot(error, _error_of_like(log_p, log_p[checked[told]], missing, _most))
            error[rows] = 0.0
            return DeltaEntropyEstimate(0.0 - log_p, error, "sampled", _rms(off), visited)
        log_p, recall = self.nearest(min(n_neighbors, n))
        off = log_p[checked] - truth
        error = _error_of_like(log_p, log_p[checked], off, _rms)
        return DeltaEntropyEstimate(0.0 - log_p, error, "knn", _rms(off), min(n_neighbors, n), recall)

    def exact(
        self, progress: Progress | None, rows: npt.NDArray[np.int64] | None = None, precision: str | None = None
    ) -> Array:
        """dH of all environments, or of some."""
        common: dict[str, Any] = {
            "precision": precision or self.precision, "device": self.device, "workers": self.workers, "progress": progress,
        }  # fmt: skip
        h = float(self.h[0])
        if rows is None and self.same:
            return get_all_metrics(self.x, h, **common)[2]
        return delta_entropy(self.y if rows is None else self.y[rows], self.x, h, **common)

    def nearest(self, n_neighbors: int) -> tuple[Array, float]:
        """ln of the sum over the nearest references, and the share of them that was found."""
        seed = int(self.rng.integers(2**31))
        search = find_neighbours(
            self.y, self.x, n_neighbors - self.same, self.same, seed, self.workers, self.progress, self.device
        )
        exponents = -0.5 * (search.distances / self.h[0]) ** 2
        if self.same:
            exponents = np.concatenate([np.zeros((len(self.x), 1)), exponents], axis=1)
        top = exponents[:, :1]
        return top[:, 0] + np.log(np.exp(exponents - top).sum(axis=1)), search.recall


def _rms(values: Array) -> float:
    return float(np.sqrt(np.mean(values**2)))


def _most(values: Array) -> float:
    """What 95 % of the values do not exceed."""
    return float(np.quantile(values, 0.95))


def _error_of_like(values: Array, known: Array, off: Array, summary: Callable[[Array], float]) -> Array:
    """Summary of `off` among the known environments whose value is most like each value: tenths of them."""
    order = np.argsort(known)
    tenths = np.array_split(order, min(10, len(order)))
    edges = np.array([known[tenth[0]] for tenth in tenths[1:]])
    errors = np.array([summary(off[tenth]) for tenth in tenths])
    return np.asarray(errors[np.searchsorted(edges, values, side="right")])


@dataclass(frozen=True)
class _Stratified:
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
        visits = np.argsort(cdist(a.centres, b.centres), axis=1, kind="stable")
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
