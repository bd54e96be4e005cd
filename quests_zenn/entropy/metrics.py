"""Information in a set of environments: entropy, diversity, and what one environment adds to another set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from quests_zenn._core.arrays import as_bandwidths, as_codes, as_matrix, as_weights
from quests_zenn._core.checks import one_of
from quests_zenn._core.parallel import Workers
from quests_zenn.entropy._engine import log_sums_against, log_sums_within
from quests_zenn.entropy.bandwidth import DEFAULT_BANDWIDTH

PRECISIONS = ("float64", "float32")


@dataclass(frozen=True)
class GroupMetrics:
    """Metrics of each group of a set, the group taken alone. Groups are in sorted order.

    Attributes
    ----------
    entropy, diversity, mean_dh : numpy.ndarray, shape (H, G), nats
        One row per bandwidth, also where there is only one.
    sizes : numpy.ndarray, shape (G,)
        Environments in each group.
    """

    entropy: npt.NDArray[np.float64]
    diversity: npt.NDArray[np.float64]
    mean_dh: npt.NDArray[np.float64]
    sizes: npt.NDArray[np.int64]


def entropy(
    x: npt.ArrayLike,
    h: float | npt.ArrayLike = DEFAULT_BANDWIDTH,
    *,
    weights: npt.ArrayLike | None = None,
    labels: npt.ArrayLike | None = None,
    precision: str = "float64",
    jobs: int | None = None,
) -> Any:
    """Information entropy ``H = -(1/N) sum_i ln(p(x_i) / N)``, exact, in nats; ``0 <= H <= ln N``.

    ``p(y) = sum_j K(y, x_j)`` with the Gaussian kernel ``K(a, b) = exp(-|a - b|^2 / (2 h^2))``.

    Parameters
    ----------
    x : array_like, shape (N, d)
        Environments, one per row, 1/Å.
    h : float or array_like, shape (H,)
        Bandwidth, 1/Å.
    weights : array_like, shape (N,), optional
        Multiplicities: a weight of 2 counts as that row given twice. The sum of the weights replaces N.
    labels : array_like, shape (N,), optional
        Environments with different labels do not resemble each other (K = 0), such as atoms of different elements.
    precision : {"float64", "float32"}
        Arithmetic of the sums. float64 is exact to about 1e-12. float32 is about twice as fast; at h = 0.015 it errs
        by up to 1e-5 nats in H and 1e-3 in a single dH (measured on sets of bulk, molecules and extreme pressures).
    jobs : int or None
        Threads; None for all available cores. The result is the same bits for any number.

    Returns
    -------
    float, or numpy.ndarray of shape (H,) for several bandwidths

    Raises
    ------
    ValueError
        If x is not a finite matrix, or an argument is out of range.

    References
    ----------
    D. Schwalbe-Koda et al., Nat. Commun. 16 (2025) 4014.
    """
    return get_all_metrics(x, h, weights=weights, labels=labels, precision=precision, jobs=jobs)[0]


def diversity(
    x: npt.ArrayLike,
    h: float | npt.ArrayLike = DEFAULT_BANDWIDTH,
    *,
    weights: npt.ArrayLike | None = None,
    labels: npt.ArrayLike | None = None,
    precision: str = "float64",
    jobs: int | None = None,
) -> Any:
    """Diversity D = ln sum_i 1 / p(x_i), exact, in nats: the logarithm of the number of distinct environments.

    Parameters, returns and errors are those of `entropy`.
    """
    return get_all_metrics(x, h, weights=weights, labels=labels, precision=precision, jobs=jobs)[1]


def get_all_metrics(
    x: npt.ArrayLike,
    h: float | npt.ArrayLike = DEFAULT_BANDWIDTH,
    *,
    weights: npt.ArrayLike | None = None,
    labels: npt.ArrayLike | None = None,
    precision: str = "float64",
    jobs: int | None = None,
    workers: Workers | None = None,
    progress: Callable[[int], None] | None = None,
) -> tuple[Any, Any, npt.NDArray[np.float64]]:
    """Entropy, diversity and dH of every environment within its set, in one pass.

    Parameters
    ----------
    x, h, weights, labels, precision, jobs
        See `entropy`.
    workers : Workers or None
        Threads to use instead of new ones.
    progress : callable or None
        Called from any thread with the number of pairs done since the last call; about N^2 / 2 in all.

    Returns
    -------
    entropy, diversity : float, or numpy.ndarray (H,) for several bandwidths
    dH : numpy.ndarray (N,), or (H, N)
        -ln p(x_i), with scope "all environments of x"; between -ln N and 0 where there are no weights.

    Raises
    ------
    ValueError
        See `entropy`.
    """
    matrix = as_matrix(x, "x")
    bandwidths, single = as_bandwidths(h)
    multiplicity = as_weights(weights, len(matrix))
    one_of(precision, "precision", PRECISIONS)
    groups = as_codes(labels, len(matrix), "labels")
    log_p = log_sums_within(
        matrix,
        bandwidths,
        multiplicity,
        groups,
        precision=precision,
        jobs=jobs,
        workers=workers,
        progress=progress,
    )
    h_, d_ = _summaries(log_p, multiplicity)
    dh = np.subtract(0.0, log_p, out=log_p)  # not the negative: no one wants to read -0.0
    return (float(h_[0]), float(d_[0]), dh[0]) if single else (h_, d_, dh)


def group_metrics(
    x: npt.ArrayLike,
    h: float | npt.ArrayLike,
    groups: npt.ArrayLike,
    *,
    labels: npt.ArrayLike | None = None,
    precision: str = "float64",
    jobs: int | None = None,
    workers: Workers | None = None,
) -> GroupMetrics:
    """Entropy, diversity and mean dH of each group of environments taken alone (each frame of a trajectory, say).

    Parameters
    ----------
    groups : array_like, shape (N,)
        Labels of any kind that can be sorted: frame numbers, configuration types.
    x, h, labels, precision, jobs, workers
        See `get_all_metrics`.

    Returns
    -------
    GroupMetrics

    Raises
    ------
    ValueError
        See `entropy`.
    """
    matrix = as_matrix(x, "x")
    bandwidths, _ = as_bandwidths(h)
    one_of(precision, "precision", PRECISIONS)
    member = as_codes(groups, len(matrix), "groups")
    if member is None:
        raise ValueError("groups are needed, one label per environment")
    sizes = np.bincount(member)
    inner = as_codes(labels, len(matrix), "labels")
    separate = member if inner is None else member * (int(inner.max()) + 1) + inner
    log_p = log_sums_within(matrix, bandwidths, None, separate, precision=precision, jobs=jobs, workers=workers)
    mean_dh = 0.0 - np.array([np.bincount(member, row) for row in log_p]) / sizes
    inverse = np.array([np.bincount(member, np.exp(-row)) for row in log_p])
    return GroupMetrics(mean_dh + np.log(sizes), np.log(inverse), mean_dh, sizes)


def delta_entropy(
    y: npt.ArrayLike,
    x: npt.ArrayLike,
    h: float | npt.ArrayLike = DEFAULT_BANDWIDTH,
    *,
    weights: npt.ArrayLike | None = None,
    y_labels: npt.ArrayLike | None = None,
    x_labels: npt.ArrayLike | None = None,
    precision: str = "float64",
    jobs: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> npt.NDArray[np.float64]:
    """Differential entropy dH(y | X) = -ln sum_j K(y, x_j) of each row of y given the reference x, exact, in nats.

    Finite for any distance (a log-sum-exp): 1000 bandwidths away from a single reference, dH = 5e5. Positive dH means
    that the reference does not know y.

    Parameters
    ----------
    y : array_like, shape (n, d)
        Environments asked about, 1/Å.
    x : array_like, shape (N, d)
        Reference.
    h : float or array_like, shape (H,)
        Bandwidth, 1/Å.
    weights : array_like, shape (N,), optional
        Weights of the reference.
    y_labels, x_labels : array_like, optional
        Labels (elements, say); only references with the label of y count, and dH = inf where there is none.
    precision, jobs
        See `entropy`.
    progress : callable or None
        Called with the number of pairs done since the last call.

    Returns
    -------
    numpy.ndarray, shape (n,), or (H, n) for several bandwidths

    Raises
    ------
    ValueError
        If x or y is not a finite matrix, their widths differ, or an argument is out of range.

    References
    ----------
    D. Schwalbe-Koda et al., Nat. Commun. 16 (2025) 4014.
    """
    asked, reference = as_matrix(y, "y"), as_matrix(x, "x")
    if asked.shape[1] != reference.shape[1]:
        raise ValueError(
            f"y has {asked.shape[1]} components and x has {reference.shape[1]}: both must come from the same descriptor"
        )
    bandwidths, single = as_bandwidths(h)
    given = as_weights(weights, len(reference))
    one_of(precision, "precision", PRECISIONS)
    if (y_labels is None) != (x_labels is None):
        raise ValueError("y_labels and x_labels go together: give both or none")
    out = np.full((len(bandwidths), len(asked)), -np.inf)
    with Workers(jobs) as workers:
        if y_labels is None:
            out = log_sums_against(
                asked, reference, bandwidths, given, precision=precision, workers=workers, progress=progress
            )
        else:
            as_codes(y_labels, len(asked), "y_labels")
            as_codes(x_labels, len(reference), "x_labels")
            both = [*np.asarray(y_labels).tolist(), *np.asarray(x_labels).tolist()]
            place = {label: code for code, label in enumerate(dict.fromkeys(both))}
            codes = np.array([place[label] for label in both])
            y_codes, x_codes = codes[: len(asked)], codes[len(asked) :]
            for code in np.unique(y_codes):
                mine, theirs = y_codes == code, x_codes == code
                out[:, mine] = log_sums_against(
                    asked[mine],
                    reference[theirs],
                    bandwidths,
                    None if given is None else given[theirs],
                    precision=precision,
                    workers=workers,
                    progress=progress,
                )
    np.subtract(0.0, out, out=out)
    return out[0] if single else out


def _summaries(
    log_p: npt.NDArray[np.float64], weights: npt.NDArray[np.float64] | None
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Entropy and diversity (H,) from ln p (H, N). Rows of weight 0 do not count."""
    if weights is None:
        log_total, mean = np.log(log_p.shape[1]), log_p.mean(axis=1)
        share = np.zeros(1)
    else:
        counted = weights > 0.0
        top = weights.max()
        log_p, relative = log_p[:, counted], weights[counted] / top  # sums of the weights themselves may overflow
        log_total, mean = np.log(top) + np.log(relative.sum()), log_p @ relative / relative.sum()
        share = np.log(weights[counted])
    lowest = (share - log_p).max(axis=1)
    return log_total - mean, lowest + np.log(np.exp(share - log_p - lowest[:, None]).sum(axis=1))
