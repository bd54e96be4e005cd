"""Scores that weight the rows of a fit: from dH of groups of environments to weights of mean 1.

A group is whatever one row of a fit stands for: a measured point, a thermodynamic state, a structure. Averages inside
a group are never weighted.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from quests_zenn._core.arrays import as_codes, as_matrix
from quests_zenn._core.checks import DataError, DataWarning, bandwidth, finite, one_of
from quests_zenn.entropy import DEFAULT_BANDWIDTH, delta_entropy, get_all_metrics
from quests_zenn.entropy._leave_out import log_sums_without_own_group
from quests_zenn.entropy.metrics import DEFAULT_EPS

FloatArray = npt.NDArray[np.float64]

KINDS = ("uniform", "density", "novelty")

#: Weights are kept in this range: no row counts more than ten times, or less than a tenth, of the mean.
DEFAULT_CLIP = (0.1, 10.0)

#: Rows of score 0 weigh exp(-700) of the others before they are clipped: nothing, but they can still be told apart.
_NOTHING = 700.0


@dataclass(frozen=True)
class GroupScores:
    """dH of the environments of each group, in nats. Groups in sorted order, G of them.

    Attributes
    ----------
    names : numpy.ndarray, shape (G,)
        Labels of the groups.
    size : numpy.ndarray of int, shape (G,)
        Environments of each.
    density : numpy.ndarray, shape (G,)
        Mean dH given all groups, its own one as well, each group counted as one however many environments it has:
        0 where nothing resembles anything, -ln 2 for two groups of one and the same environment. For the weights
        ``density``.
    mean, max : numpy.ndarray, shape (G,)
        Of dH given all other groups. inf where no other group has a label.
    novel : numpy.ndarray, shape (G,)
        Mean of max(dH, 0) given all other groups: how much is novel, 0 where all is known. The plain mean would let
        many known environments hide a novel one. For the weights ``novelty``.
    """

    names: npt.NDArray[Any]
    size: npt.NDArray[np.int64]
    density: FloatArray
    mean: FloatArray
    max: FloatArray
    novel: FloatArray


def group_scores(
    x: npt.ArrayLike,
    groups: npt.ArrayLike,
    h: float = DEFAULT_BANDWIDTH,
    *,
    labels: npt.ArrayLike | None = None,
    jobs: int | None = None,
) -> GroupScores:
    """What each group of environments adds to all groups, exact, in float64.

    Parameters
    ----------
    x : array_like, shape (N, d), 1/Å
        Environments.
    groups : array_like, shape (N,)
        Labels of any kind that can be sorted.
    h : float, 1/Å
        Bandwidth.
    labels : array_like, shape (N,), optional
        Environments with different labels (elements, say) do not resemble each other.
    jobs : int or None
        Threads; None for all available cores. The result is the same bits for any number.

    Returns
    -------
    GroupScores

    Raises
    ------
    ValueError
        If x is not a finite matrix, or there is not one group for each row.
    DataError
        If there is only one group: nothing is left to compare it with.
    """
    matrix = as_matrix(x, "x")
    width = bandwidth(h)
    member = as_codes(groups, len(matrix), "groups")
    if member is None:
        raise ValueError("groups are needed, one label per environment")
    kinds = as_codes(labels, len(matrix), "labels")
    names, size = np.unique(np.asarray(groups), return_counts=True)
    if len(names) < 2:
        raise DataError("scores compare groups with each other, and there is only one")
    alike = 1.0 / size[member]
    inner = get_all_metrics(matrix, width, weights=alike, labels=kinds, precision="float64", jobs=jobs)[2]
    others = np.empty(len(matrix))
    for kind in range(1 if kinds is None else int(kinds.max()) + 1):
        mine = np.ones(len(matrix), bool) if kinds is None else kinds == kind
        sums = log_sums_without_own_group(matrix[mine], np.array([width]), member[mine], jobs=jobs)
        others[mine] = 0.0 - sums[0]
    most = np.full(len(names), -np.inf)
    np.maximum.at(most, member, others)
    return GroupScores(
        names,
        size,
        np.bincount(member, inner) / size,
        np.bincount(member, others) / size,
        most,
        np.bincount(member, positive_part(others)) / size,
    )


def novelty_of(
    y: npt.ArrayLike,
    x: npt.ArrayLike,
    h: float = DEFAULT_BANDWIDTH,
    *,
    y_labels: npt.ArrayLike | None = None,
    x_labels: npt.ArrayLike | None = None,
    jobs: int | None = None,
) -> float:
    """Mean of max(dH(y | X), 0), nats: how much of the environments y (n, d) is novel to x (N, d).

    inf where x has no environment with the label of one of y.

    Raises
    ------
    ValueError
        See `quests_zenn.entropy.delta_entropy`.
    """
    dh = delta_entropy(y, x, h, y_labels=y_labels, x_labels=x_labels, precision="float64", jobs=jobs)
    return float(positive_part(dh).mean())


def positive_part(dh: FloatArray) -> FloatArray:
    """dH where it says novel, 0 elsewhere; what rounding leaves of 0 is 0."""
    return np.where(dh >= DEFAULT_EPS, dh, 0.0)


def capped(scores: npt.ArrayLike) -> FloatArray:
    """Scores (n,) with inf, that of elements never seen elsewhere, replaced by the largest finite one, at least 1."""
    values = np.asarray(scores, dtype=np.float64)
    most = max(1.0, float(np.max(values[np.isfinite(values)], initial=1.0)))
    return np.where(values == np.inf, most, values)


def row_weights(
    scores: npt.ArrayLike, kind: str = "uniform", clip: tuple[float, float] = DEFAULT_CLIP
) -> npt.NDArray[np.float64]:
    """Weights of rows from their scores, of mean 1, each within a range.

    ``density``: proportional to exp(score), of mean dH given all rows: rare rows count more, redundant ones less.
    ``novelty``: proportional to max(score, 0), of dH given all other rows; where nothing is novel all rows count alike.
    Both are multiplied by a number such that the mean is 1 after clipping.

    Parameters
    ----------
    scores : array_like, shape (n,), nats
        One for each row: see `GroupScores`. Any size: nothing overflows.
    kind : {"uniform", "density", "novelty"}
    clip : (float, float)
        Smallest and largest weight; 1 lies between them.

    Returns
    -------
    numpy.ndarray, shape (n,)

    Raises
    ------
    DataError
        If scores are not a list of finite numbers.
    ValueError
        If `kind` or `clip` makes no sense.

    Warns
    -----
    DataWarning
        If nothing is novel, with ``novelty``.
    """
    one_of(kind, "weights", KINDS)
    low, high = check_clip(clip)
    try:
        values = np.asarray(scores, dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError("scores must be a list of numbers, one for each row") from None
    if values.ndim != 1:
        raise DataError(f"scores must be a list of numbers, one for each row, got the shape {values.shape}")
    if kind == "uniform" or not len(values):
        return np.ones(len(values))
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        raise DataError(f"scores must be finite, and that of row {wrong[0]} is {values[wrong[0]]}")
    logs = values
    if kind == "novelty":
        new = values > 0.0
        if not new.any():
            warnings.warn("nothing is novel: all rows have the same weight", DataWarning, stacklevel=2)
            return np.ones(len(values))
        logs = np.log(values, out=np.full(len(values), np.nan), where=new)
        logs[~new] = logs[new].min() - _NOTHING
    return _scaled(logs, low, high)


def check_clip(clip: Any) -> tuple[float, float]:
    """`clip` as a range that 1 lies in.

    Raises
    ------
    ValueError
        Otherwise.
    """
    try:
        first, last = clip
    except (TypeError, ValueError):
        raise ValueError(f"clip must be two numbers, the smallest and the largest weight, got {clip!r}") from None
    low, high = finite(first, "the smallest weight of clip"), finite(last, "the largest weight of clip")
    if not 0.0 <= low <= 1.0 <= high:
        raise ValueError(f"clip must be a range around 1 (the mean of weights) from 0 on, got {low:g} to {high:g}")
    return low, high


def _scaled(logs: FloatArray, low: float, high: float) -> FloatArray:
    """clip(c exp(logs), low, high) with c such that the mean is 1.

    The mean grows with ln c, and bends only where a row enters or leaves the range. Between two bends the rows that are
    not clipped share what the others leave.
    """
    if not np.ptp(logs) or low == 1.0 or high == 1.0:
        return np.ones(len(logs))
    entering = -np.inf if low == 0.0 else math.log(low)
    bends = np.sort(np.concatenate([math.log(high) - logs, [] if low == 0.0 else entering - logs]))

    def clipped(shift: float) -> FloatArray:
        # never the exponential of a large number
        return np.clip(np.exp(np.minimum(logs + shift, math.log(high))), low, high)

    first, last = -1, len(bends) - 1  # the mean is at least 1 at the last: there all are at the largest weight
    while last - first > 1:
        middle = (first + last) // 2
        if clipped(bends[middle]).mean() >= 1.0:
            last = middle
        else:
            first = middle
    # between these two bends the same rows are inside, judged half way: at the bends themselves rounding would decide
    inside_at = bends[last] - 1.0 if first < 0 else 0.5 * (bends[first] + bends[last])
    below, above = logs + inside_at <= entering, logs + inside_at >= math.log(high)
    free = ~(below | above)
    weights = np.where(below, low, high)
    if free.any():
        rest = len(logs) - low * below.sum() - high * above.sum()
        share = np.exp(logs[free] - logs[free].max())
        weights[free] = np.clip(rest * share / share.sum(), low, high)
    return weights


def effective_sample_size(weights: npt.ArrayLike) -> float:
    """(sum w)^2 / sum w^2: how many rows of equal weight hold as much.

    Parameters
    ----------
    weights : array_like, shape (n,)
        Not negative.

    Raises
    ------
    DataError
        If they are not finite, negative, or all zero.
    """
    values = np.asarray(weights, dtype=np.float64).ravel()
    if not np.isfinite(values).all() or (values < 0.0).any() or not values.any():
        raise DataError("weights must be finite and not negative, and not all zero")
    values = values / values.max()
    return float(values.sum() ** 2 / np.square(values).sum())
