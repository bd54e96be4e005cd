"""Split-conformal prediction with whole groups of frames on one side or the other: quantiles, widths, and bands."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from quests_zenn._core.arrays import as_codes

#: The width never falls below this share of its mean: at dH where all errors seen were zero, the next one may not be.
FLOOR = 0.05

#: Nodes of the width, and rows (atoms, or frames) that each needs.
MOST_NODES, ROWS_PER_NODE = 30, 10

#: Smallest share that may be missed or flagged falsely; nobody has so many groups.
LEAST_RATE = 1e-9

#: Of sums of weights that are whole numbers but for rounding.
_ROUNDING = 1e-6

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


# --- rows, frames, groups ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rows:
    """Scores and errors of atoms (or of whole frames), sorted by group and frame."""

    dh: FloatArray
    errors: FloatArray
    group: IntArray  # of each row
    starts: IntArray  # first row of each frame
    frame_group: IntArray
    n_groups: int

    @classmethod
    def of(cls, dh: npt.ArrayLike, errors: npt.ArrayLike, groups: npt.ArrayLike, frames: npt.ArrayLike | None) -> Rows:
        scores = as_scores(dh)
        found = numbers(errors, "errors")
        n = len(scores)
        if found.shape != (n,):
            raise ValueError(f"errors must have shape ({n},), one for each dH, got {found.shape}")
        if not np.isfinite(found).all():
            raise ValueError(f"errors must be finite, but row {int(np.flatnonzero(~np.isfinite(found))[0])} is not")
        group = as_codes(groups, n, "groups")
        frame = as_codes(groups if frames is None else frames, n, "frames")
        if group is None or frame is None:
            raise ValueError("groups are needed: one label for each dH, of the structure that it belongs to")
        order = np.lexsort((frame, group))
        group, frame = group[order], frame[order]
        starts = np.flatnonzero((np.diff(frame, prepend=-1) != 0) | (np.diff(group, prepend=-1) != 0))
        if len(starts) != frame.max() + 1:
            raise ValueError("frames must belong to one group each")
        return cls(scores[order], np.abs(found[order]), group, starts, group[starts], int(group.max()) + 1)

    def items(self, coverage: str, values: FloatArray) -> FloatArray:
        """Values of what is covered: of atoms as they are, or the largest of each frame."""
        return values if coverage == "atom" else np.maximum.reduceat(values, self.starts)

    def item_groups(self, coverage: str) -> IntArray:
        return self.group if coverage == "atom" else self.frame_group


def as_scores(dh: npt.ArrayLike) -> FloatArray:
    """dH as an array (n,), where inf is a value like others.

    Raises
    ------
    ValueError
        If it is empty, has another shape, or holds NaN or -inf.
    """
    scores = numbers(dh, "dh")
    if scores.ndim != 1 or len(scores) == 0:
        raise ValueError(f"dh must have shape (n,) with n of at least 1, got {scores.shape}")
    bad = np.isnan(scores) | (scores == -np.inf)
    if bad.any():
        raise ValueError(f"dh must be numbers or inf, but row {int(np.flatnonzero(bad)[0])} is {scores[bad][0]}")
    return scores


def numbers(values: npt.ArrayLike, name: str) -> FloatArray:
    try:
        array = np.asarray(values)
        if array.dtype.kind not in "fiu":
            raise TypeError
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be real numbers") from None
    return np.ascontiguousarray(array, dtype=np.float64)


def equal_shares(groups: IntArray) -> FloatArray:
    """Weights with which every group counts 1, and its members equally."""
    return (1.0 / np.maximum(1, np.bincount(groups)))[groups]


def mean_over_groups(values: npt.NDArray[Any], groups: IntArray) -> float:
    """Mean over groups of the means over their members: what a random member of a random group has."""
    return float(np.average(values, weights=equal_shares(groups)))


def weighted_quantile(values: FloatArray, weights: FloatArray, share: float) -> float:
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order])
    at = int(np.searchsorted(reached, share * reached[-1] * (1.0 - 1e-12)))
    return float(values[order[min(at, len(order) - 1)]])


def as_levels(level: float | Sequence[float]) -> tuple[float, ...]:
    given: list[Any] = np.ravel(np.asarray(level, dtype=object)).tolist()
    levels = tuple(sorted({as_share(value, "a level") for value in given}))
    if not levels:
        raise ValueError("at least one level is needed, got none")
    return levels


def as_share(value: Any, name: str) -> float:
    if not isinstance(value, int | float | np.floating) or not 0.0 < value < 1.0:
        raise ValueError(f"{name} must lie between 0 and 1, got {value!r}")
    return float(value)


# --- the method -------------------------------------------------------------------------------------------------------


def fewest_groups(level: float) -> int:
    """Calibration groups from which on a bound of this level is finite: the least n with n / (n + 1) >= level."""
    return max(1, math.ceil(level / max(1.0 - level, LEAST_RATE) * (1.0 - 1e-9)))


def expected_coverage(level: float, n_groups: int) -> float:
    """Mean coverage of a bound from n calibration groups, one score each and none equal: ceil((n + 1) level) / (n + 1).

    1 where there are too few of them, and the bound is infinite.
    """
    return min(1.0, rank(level, n_groups) / (n_groups + 1))


def coverage_band(level: float, n_groups: int, n_test: int, share: float = 0.95) -> tuple[float, float]:
    """Where the coverage measured on so many test groups lies, in the stated share of cases.

    With one score for each group the coverage of a bound from n calibration groups follows a Beta distribution with
    the parameters k = ceil((n + 1) level) and n + 1 - k, and the number of m test groups that it covers a beta-binomial
    one. (V. Vovk, Conditional validity of inductive conformal predictors, Machine Learning 92, 2013, 349.) Where the
    scores are those of many atoms, shares of groups are covered, which vary less, so that the band is wide enough.

    Returns
    -------
    (float, float)
        Lower and upper end, both inside.
    """
    from scipy.stats import betabinom

    k = rank(level, n_groups)
    if k > n_groups:
        return 1.0, 1.0
    found = betabinom(n_test, k, n_groups + 1 - k)
    tail = 0.5 * (1.0 - share)
    return float(found.ppf(tail)) / n_test, float(found.ppf(1.0 - tail)) / n_test


def rank(level: float, n_groups: int) -> int:
    return math.ceil((n_groups + 1) * level - _ROUNDING)


def group_quantile(scores: FloatArray, groups: IntArray, levels: Sequence[float]) -> tuple[float, ...]:
    """For each level the least score q with ``sum_j F_j(q) >= (n + 1) level``.

    F_j(q) is the share of group j, one of n, that lies at or below q; one more group stands at infinity, in the place
    of the one to come. With one score for each group q is the ceil((n + 1) level)-th smallest. It is inf where there
    are too few groups.
    """
    n = len(np.unique(groups))
    order = np.argsort(scores, kind="stable")
    reached = np.cumsum(equal_shares(groups)[order])
    found = []
    for level in levels:
        target = (n + 1) * level - _ROUNDING
        at = min(int(np.searchsorted(reached, target)), len(order) - 1)
        found.append(math.inf if target > n else float(scores[order[at]]))
    return tuple(found)


def fit_width(dh: FloatArray, errors: FloatArray, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean error against dH, rising: nodes and values, positive.

    Means over bins of equal weight, each dH in one bin only, then the closest rising sequence.
    """
    from sklearn.isotonic import isotonic_regression

    known = np.isfinite(dh)
    if not known.any() or not errors[known].any():
        return np.zeros(1), np.ones(1)
    order = np.argsort(dh[known], kind="stable")
    x, e, w = dh[known][order], errors[known][order], weights[known][order]
    n_bins = min(MOST_NODES, max(1, len(x) // ROWS_PER_NODE))
    place = (np.cumsum(w) - 0.5 * w) / w.sum() * n_bins
    bins = np.unique(place.astype(np.int64)[np.searchsorted(x, x)], return_inverse=True)[1]
    mass = np.bincount(bins, w)
    nodes = np.bincount(bins, w * x) / mass
    means = isotonic_regression(np.bincount(bins, w * e) / mass, sample_weight=mass)
    floor = FLOOR * float(np.average(e, weights=w))
    return nodes, np.maximum(means, floor)


def n_train_groups(n_groups: int, share: float, levels: tuple[float, ...]) -> int:
    """Groups for the width: so many that enough are left to calibrate, where that can be."""
    n = min(n_groups - 1, max(1, round(share * n_groups)))
    for level in reversed(levels):
        if fewest_groups(level) < n_groups:  # the highest level that can be reached counts
            return min(n, n_groups - fewest_groups(level))
    return n
