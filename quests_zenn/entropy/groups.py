"""Parts of a data set: what each holds, and what each knows of the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from quests_zenn._core.arrays import as_codes, as_matrix
from quests_zenn._core.checks import bandwidth, finite, one_of
from quests_zenn._core.parallel import Workers, use_workers
from quests_zenn.entropy._engine import log_sums_by_part
from quests_zenn.entropy.bandwidth import DEFAULT_BANDWIDTH
from quests_zenn.entropy.metrics import DEFAULT_EPS, PRECISIONS, delta_entropy, single_precision_bound

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class GroupMatrix:
    """Parts of a data set, compared with each other.

    Attributes
    ----------
    names : list
        Labels of the parts, sorted; G of them.
    sizes : numpy.ndarray, shape (G,)
        Environments of each.
    entropy, diversity : numpy.ndarray, shape (G,), nats
        Of each part taken alone.
    mean_dh : numpy.ndarray, shape (G, G), nats
        Row a, column b: mean dH of the environments of a given b. On the diagonal environments count themselves:
        ``H - ln n``.
    overlap : numpy.ndarray, shape (G, G)
        Row a, column b: share of the environments of a that b knows, dH < eps. 1 on the diagonal where eps > 0.
    h : float, 1/Å
    """

    names: list[Any]
    sizes: npt.NDArray[np.int64]
    entropy: Array
    diversity: Array
    mean_dh: Array
    overlap: Array
    h: float


def group_matrix(
    x: npt.ArrayLike,
    h: float = DEFAULT_BANDWIDTH,
    *,
    groups: npt.ArrayLike,
    labels: npt.ArrayLike | None = None,
    eps: float = DEFAULT_EPS,
    precision: str = "auto",
    jobs: int | None = None,
    workers: Workers | None = None,
    progress: Callable[[int], None] | None = None,
) -> GroupMatrix:
    """Entropy of each part of a set, and dH of each part given each other, in one pass over all pairs.

    Parameters
    ----------
    x : array_like, shape (N, d)
        Environments, 1/Å.
    h : float
        Bandwidth, 1/Å.
    groups : array_like, shape (N,)
        The part of each environment: labels of any kind that can be sorted (configuration types, say).
    labels : array_like, shape (N,), optional
        Environments with different labels do not resemble each other, as in `entropy`. Where a part has none of a
        label, dH given that part is infinite, and so is its mean.
    eps : float
        dH below which an environment is known, nats.
    precision, jobs, workers, progress
        See `get_all_metrics`.

    Returns
    -------
    GroupMatrix

    Raises
    ------
    ValueError
        If x is not a finite matrix, or an argument is out of range.
    """
    matrix, h = as_matrix(x, "x"), bandwidth(h)
    n = len(matrix)
    one_of(precision, "precision", PRECISIONS)
    eps = finite(eps, "eps")
    member, kinds = as_codes(groups, n, "groups"), as_codes(labels, n, "labels")
    if member is None:
        raise ValueError("groups are needed, one label per environment")
    names = np.unique(np.asarray(groups)).tolist()
    dh = np.full((len(names), n), np.inf)
    with use_workers(workers, jobs) as pool:
        for kind in range(1 if kinds is None else int(kinds.max()) + 1):
            mine = np.arange(n) if kinds is None else np.flatnonzero(kinds == kind)
            present, parts = np.unique(member[mine], return_inverse=True)
            log_p = log_sums_by_part(
                matrix[mine], np.array([h]), parts, precision=precision, workers=pool, progress=progress
            )
            dh[np.ix_(present, mine)] = 0.0 - log_p[:, 0]
            if precision != "float64":  # what is known must not depend on rounding
                bound = single_precision_bound(matrix[mine], matrix[mine], np.array([h]), pool)
                for part, row in zip(present, dh[np.ix_(present, mine)], strict=True):
                    unsure = mine[(np.abs(row - eps) <= bound) & (member[mine] != part)]
                    if len(unsure):
                        others = matrix[mine[member[mine] == part]]
                        dh[part, unsure] = delta_entropy(matrix[unsure], others, h, precision="float64", workers=pool)
    sizes = np.bincount(member)
    mean_dh = np.array([np.bincount(member, row) for row in dh]).T / sizes[:, None]
    known = np.array([np.bincount(member, row < eps) for row in dh]).T / sizes[:, None]
    own = dh[member, np.arange(n)]
    diversity = np.log(np.bincount(member, np.exp(own)))
    return GroupMatrix(names, sizes, np.diag(mean_dh) + np.log(sizes), diversity, mean_dh, known, h)
