"""dH of many environments in less time than exact sums take, each with the error that it has."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from quests_zenn._core.arrays import as_bandwidths, as_matrix
from quests_zenn._core.checks import one_of, whole_number
from quests_zenn._core.parallel import Workers, use_workers
from quests_zenn._core.rng import as_rng
from quests_zenn._core.rows import MemoryRows
from quests_zenn.entropy._levels import Z95
from quests_zenn.entropy._neighbours import DEFAULT_NEIGHBOURS, find_neighbours
from quests_zenn.entropy._packing import FloatArray, for_samples
from quests_zenn.entropy._strata import Stratified
from quests_zenn.entropy._sweep import Progress
from quests_zenn.entropy.bandwidth import DEFAULT_BANDWIDTH
from quests_zenn.entropy.estimate import ESTIMATORS, EXACT_UP_TO
from quests_zenn.entropy.metrics import PRECISIONS, common_codes, delta_entropy, get_all_metrics

Array = npt.NDArray[np.float64]

#: References that ``approx_delta_entropy`` visits for each environment.
DEFAULT_REFERENCES = 32_768

#: Standard error of dH from a sample, nats, from which on all references are summed instead.
POORLY_TOLD = 0.5

#: An environment seems rare where p is below this, and rare ones are few below this share.
RARE, FEW = 3.0, 0.05

#: Error of dH, nats, that single precision may make in a sample.
ROUNDING = 0.005

#: Environments on which estimates of dH are compared with the exact sums.
CHECKED = 1_000


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
    p, whose own spread tells the error of p. The bias of the logarithm is corrected to first order. Environments that
    seem new (p < 1), that seem rare (p < 3) where few do, or that the sample tells badly, are summed over all
    references. At last a thousand others are summed exactly, and errors are widened until 95 % of their intervals
    hold, among those of like dH.

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
            arithmetic = for_samples(self.precision, MemoryRows(self.x), float(self.h[0]), ROUNDING)
            sample = Stratified(
                self.y, self.x, self.same, float(self.h[0]), n_references, self.rng, arithmetic, self.workers
            )
            log_p, error, visited = sample.log_sums(self.progress)
            # what seems new, or is told badly by the sample, is worth all references. So is what seems rare, if it is:
            # one reference that was missed counts much there, and the few are not among those that are checked
            rare = log_p < math.log(RARE)
            unsure = (error > POORLY_TOLD) | (log_p < (-1e-3 if self.same else 0.0))
            if rare.mean() < FEW:
                unsure |= rare
            rows = np.flatnonzero(unsure)
            if len(rows):
                log_p[rows] = -self.exact(self.progress, rows, "float64")
            off = log_p[checked] - truth
            # a sample cannot see what it has missed: as much is added as makes 95 % of the intervals hold
            told = ~unsure[checked]
            missing = np.sqrt(np.maximum((off / Z95) ** 2 - error[checked] ** 2, 0.0))[told]
            if len(missing):
                error = np.hypot(error, _error_of_like(log_p, log_p[checked[told]], missing, _quantile_95))
            if arithmetic == "float32":
                error = np.hypot(error, ROUNDING)
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
            "precision": precision or self.precision,
            "device": self.device,
            "workers": self.workers,
            "progress": progress,
        }
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


def _quantile_95(values: Array) -> float:
    """What 95 % of the values do not exceed."""
    return float(np.quantile(values, 0.95))


def _error_of_like(values: Array, known: Array, off: Array, summary: Callable[[Array], float]) -> Array:
    """Summary of `off` among the known environments whose value is most like each value: tenths of them."""
    order = np.argsort(known)
    tenths = np.array_split(order, min(10, len(order)))
    edges = np.array([known[tenth[0]] for tenth in tenths[1:]])
    errors = np.array([summary(off[tenth]) for tenth in tenths])
    return np.asarray(errors[np.searchsorted(edges, values, side="right")])
