"""Information in a set of environments: entropy, diversity, and what one environment adds to another set."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from quests_zenn._core.arrays import as_bandwidths, as_codes, as_matrix, as_weights
from quests_zenn._core.checks import finite, one_of
from quests_zenn._core.parallel import Workers, use_workers
from quests_zenn.entropy import _torch
from quests_zenn.entropy._engine import log_sums_against, log_sums_within
from quests_zenn.entropy._packing import base_scale, pack_rows, rounding_error
from quests_zenn.entropy.bandwidth import DEFAULT_BANDWIDTH

PRECISIONS = ("auto", "float64", "float32")

#: Share of any p that blocks may add at most to be left out: below the rounding of the sums themselves.
SKIP = 1e-14

#: dH from which on an environment counts as novel, nats.
DEFAULT_EPS = 1e-5


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
    precision: str = "auto",
    device: str = "cpu",
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
    precision : {"auto", "float64", "float32"}
        Arithmetic of the sums. float64 is exact to about 1e-12. float32 is about twice as fast; at h = 0.015 it errs
        by up to 1e-5 nats in H and 1e-3 in a single dH (measured on sets of bulk, molecules and extreme pressures).
        auto takes float32 where there are many environments and the error of H stays below 1e-6 nats.
    device : str
        "cpu", or "cuda", "cuda:1", ...: sums run on that device through torch (extra: zenn), to the same precision.
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
    return get_all_metrics(x, h, weights=weights, labels=labels, precision=precision, device=device, jobs=jobs)[0]


def diversity(
    x: npt.ArrayLike,
    h: float | npt.ArrayLike = DEFAULT_BANDWIDTH,
    *,
    weights: npt.ArrayLike | None = None,
    labels: npt.ArrayLike | None = None,
    precision: str = "auto",
    device: str = "cpu",
    jobs: int | None = None,
) -> Any:
    """Diversity D = ln sum_i 1 / p(x_i), exact, in nats: the logarithm of the number of distinct environments.

    Parameters, returns and errors are those of `entropy`.
    """
    return get_all_metrics(x, h, weights=weights, labels=labels, precision=precision, device=device, jobs=jobs)[1]


def get_all_metrics(
    x: npt.ArrayLike,
    h: float | npt.ArrayLike = DEFAULT_BANDWIDTH,
    *,
    weights: npt.ArrayLike | None = None,
    labels: npt.ArrayLike | None = None,
    precision: str = "auto",
    device: str = "cpu",
    skip: float = SKIP,
    jobs: int | None = None,
    workers: Workers | None = None,
    progress: Callable[[int], None] | None = None,
) -> tuple[Any, Any, npt.NDArray[np.float64]]:
    """Entropy, diversity and dH of every environment within its set, in one pass.

    Parameters
    ----------
    x, h, weights, labels, precision, device, jobs
        See `entropy`.
    skip : float
        Work may be left out where it provably adds less than this share to any p; 0 leaves out nothing.
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
    if not (isinstance(skip, int | float) and 0.0 <= skip <= 1e-3):
        raise ValueError(f"skip must lie between 0 and 0.001, got {skip!r}")
    if device != "cpu":
        on_device = _on_device(precision)
        log_p = _torch.log_sums_within(
            matrix, bandwidths, multiplicity, groups, precision=on_device, device=device, progress=progress
        )
    else:
        log_p = log_sums_within(
            matrix,
            bandwidths,
            multiplicity,
            groups,
            precision=precision,
            skip=skip,
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
    precision: str = "auto",
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
    precision: str = "auto",
    device: str = "cpu",
    jobs: int | None = None,
    workers: Workers | None = None,
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
    precision, device, jobs
        See `entropy`.
    workers : Workers or None
        Threads to use instead of new ones.
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
    asked, reference, bandwidths, single = _two_sets(y, x, h)
    given = as_weights(weights, len(reference))
    one_of(precision, "precision", PRECISIONS)
    if (y_labels is None) != (x_labels is None):
        raise ValueError("y_labels and x_labels go together: give both or none")

    def sums(mine: Any, theirs: Any, pool: Workers) -> npt.NDArray[np.float64]:
        some = None if given is None else given[theirs]
        if device != "cpu":
            on_device = _on_device(precision)
            return _torch.log_sums_against(
                asked[mine], reference[theirs], bandwidths, some, precision=on_device, device=device, progress=progress
            )
        return log_sums_against(
            asked[mine], reference[theirs], bandwidths, some, precision=precision, workers=pool, progress=progress
        )

    out = np.full((len(bandwidths), len(asked)), -np.inf)
    with use_workers(workers, jobs) as pool:
        if y_labels is None:
            out = sums(slice(None), slice(None), pool)
        else:
            y_codes, x_codes = common_codes(y_labels, x_labels, len(asked), len(reference))
            for code in np.unique(y_codes):
                mine = y_codes == code
                out[:, mine] = sums(mine, x_codes == code, pool)
    np.subtract(0.0, out, out=out)
    return out[0] if single else out


def novelty(
    y: npt.ArrayLike,
    x: npt.ArrayLike,
    h: float = DEFAULT_BANDWIDTH,
    *,
    eps: float = DEFAULT_EPS,
    precision: str = "auto",
    jobs: int | None = None,
) -> float:
    """Share of the environments y with ``dH(y | X) >= eps``: those that the reference x does not know.

    Decided as in float64 whatever the precision: where rounding could change the answer, dH is computed again.

    Parameters
    ----------
    y, x, h, precision, jobs
        See `delta_entropy`.
    eps : float
        Threshold, nats.

    Returns
    -------
    float
        Between 0 and 1.

    Raises
    ------
    ValueError
        See `delta_entropy`.
    """
    return float(np.mean(is_novel(y, x, h, eps=eps, precision=precision, jobs=jobs)))


def overlap(
    y: npt.ArrayLike,
    x: npt.ArrayLike,
    h: float = DEFAULT_BANDWIDTH,
    *,
    eps: float = DEFAULT_EPS,
    precision: str = "auto",
    jobs: int | None = None,
) -> float:
    """Share of the environments y that the reference x knows, ``dH(y | X) < eps``: one minus the `novelty`."""
    return 1.0 - novelty(y, x, h, eps=eps, precision=precision, jobs=jobs)


def is_novel(
    y: npt.ArrayLike,
    x: npt.ArrayLike,
    h: float = DEFAULT_BANDWIDTH,
    *,
    eps: float = DEFAULT_EPS,
    y_labels: npt.ArrayLike | None = None,
    x_labels: npt.ArrayLike | None = None,
    precision: str = "auto",
    jobs: int | None = None,
    workers: Workers | None = None,
    progress: Callable[[int], None] | None = None,
    dh: npt.NDArray[np.float64] | None = None,
) -> npt.NDArray[np.bool_]:
    """Whether dH of each row of y (n,) reaches `eps`, decided as in float64. See `novelty` and `delta_entropy`.

    `dh` may hold what `delta_entropy` has found already for the same arguments.
    """
    asked, reference, bandwidths, single = _two_sets(y, x, h)
    if not single:
        raise ValueError("one bandwidth is needed to tell what is novel, got several")
    eps = finite(eps, "eps")
    with use_workers(workers, jobs) as pool:
        if dh is None:
            dh = delta_entropy(
                asked,
                reference,
                h,
                y_labels=y_labels,
                x_labels=x_labels,
                precision=precision,
                workers=pool,
                progress=progress,
            )
        if precision != "float64":
            bound = single_precision_bound(asked, reference, bandwidths, pool)
            unsure = np.flatnonzero(np.abs(dh - eps) <= bound)
            if len(unsure):
                mine = None if y_labels is None else np.asarray(y_labels)[unsure]
                dh = dh.copy()
                dh[unsure] = delta_entropy(
                    asked[unsure], reference, h, y_labels=mine, x_labels=x_labels, precision="float64", workers=pool
                )
    novel: npt.NDArray[np.bool_] = dh >= eps
    return novel


def single_precision_bound(
    asked: npt.NDArray[np.floating], reference: npt.NDArray[np.floating], h: npt.NDArray[np.float64], workers: Workers
) -> float:
    """`rounding_error` of a dH near 0 in single precision, or infinity where the sets are too wide for it."""
    try:
        scale, rows = base_scale(h[0]), [np.arange(len(reference))]
        packed = pack_rows(reference, rows, scale, None, "float32", workers, "x")
        return rounding_error(packed, asked, 0.0, scale, workers)
    except ValueError:  # too wide for single precision
        return math.inf


def common_codes(
    y_labels: npt.ArrayLike, x_labels: npt.ArrayLike | None, n: int, m: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Whole numbers for labels of two sets: the same number for the same label."""
    assert x_labels is not None
    as_codes(y_labels, n, "y_labels")
    as_codes(x_labels, m, "x_labels")
    both = [*np.asarray(y_labels).tolist(), *np.asarray(x_labels).tolist()]
    place = {label: code for code, label in enumerate(dict.fromkeys(both))}
    codes = np.array([place[label] for label in both])
    return codes[:n], codes[n:]


def _two_sets(
    y: npt.ArrayLike, x: npt.ArrayLike, h: float | npt.ArrayLike
) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.floating], npt.NDArray[np.float64], bool]:
    """Both matrices, the bandwidths, and whether there is only one."""
    asked, reference = as_matrix(y, "y"), as_matrix(x, "x")
    if asked.shape[1] != reference.shape[1]:
        raise ValueError(
            f"y has {asked.shape[1]} components and x has {reference.shape[1]}: both must come from the same descriptor"
        )
    return asked, reference, *as_bandwidths(h)


def _on_device(precision: str) -> str:
    """Arithmetic on a device: there single precision errs by less than 1e-7 nats in H."""
    return "float32" if precision == "auto" else precision


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
