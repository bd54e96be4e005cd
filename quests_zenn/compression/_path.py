"""What a subset holds while it grows: entropy and diversity of every prefix of a selection."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from quests_zenn._core.parallel import Workers
from quests_zenn.entropy._engine import log_sums_by_part

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

#: Prefixes that one pass tells apart: at least so many, and as many as so many sums of environments allow. All of them
#: are looked at where there are no more than that.
_PARTS, _SUMS = 32, 20_000_000


@dataclass(frozen=True)
class Curve:
    """What the prefixes of a selection hold.

    Attributes
    ----------
    sizes : numpy.ndarray, shape (n,)
        Structures of each prefix.
    n_environments : numpy.ndarray, shape (n,)
    entropy, diversity : numpy.ndarray, shape (n,), nats
        H and D of each prefix.
    overlap : numpy.ndarray, shape (n,)
        Share of all environments of the data set that the prefix (and the reference, where there is one) knows.
    """

    sizes: Indices
    n_environments: Indices
    entropy: Array
    diversity: Array
    overlap: Array


def rows_of(offsets: Indices, structures: Indices) -> Indices:
    """Rows of some structures, one structure after the other."""
    sizes = np.diff(offsets)[structures]
    starts = np.repeat(offsets[structures] - (np.cumsum(sizes) - sizes), sizes)
    rows: Indices = starts + np.arange(int(sizes.sum()))
    return rows


def prefix_metrics(
    x: npt.NDArray[np.floating],
    labels: Indices | None,
    h: float,
    ends: Indices,
    workers: Workers,
    progress: Callable[[int], None] | None = None,
) -> tuple[Array, Array]:
    """H and D of the prefixes ``x[:end]`` for all (increasing) ends, from one pass over all pairs of ``x[:ends[-1]]``.

    Sums are in the precision that errs by less than 1e-6 nats in H, see `get_all_metrics`.
    """
    entropy, diversity = np.empty(len(ends)), np.empty(len(ends))
    n = int(ends[-1])
    part = np.searchsorted(ends, np.arange(n), side="right")
    log_p = np.full((len(ends), n), -np.inf)
    for label in [None] if labels is None else np.unique(labels[:n]).tolist():
        mine = slice(n) if label is None else np.flatnonzero(labels[:n] == label)  # type: ignore[index]
        present, parts = np.unique(part[mine], return_inverse=True)
        found = log_sums_by_part(x[mine], np.array([h]), parts, precision="auto", workers=workers, progress=progress)
        for number, sums in zip(present, found[:, 0], strict=True):
            log_p[number, mine] = sums
    total = np.full(n, -np.inf)
    for number, end in enumerate(ends.tolist()):
        np.logaddexp(total, log_p[number], out=total)
        within = total[:end]
        entropy[number] = np.log(end) - within.mean()
        diversity[number] = np.log(np.exp(-within).sum())
    return entropy, diversity


def find_on_path(
    x: npt.NDArray[np.floating],
    labels: Indices | None,
    h: float,
    ends: Indices,
    wanted: Callable[[Array, Array], tuple[int, int, int]],
    workers: Workers,
    progress: Callable[[int], None] | None = None,
) -> int:
    """The prefix that is wanted, found on a grid of prefixes that is made finer around it until it is certain.

    `ends` are the environments of each prefix. `wanted(entropy, diversity)` gives, among the prefixes of a grid, the
    one that is wanted and the range (first, last) in which a finer grid should look for it.
    """
    first, last = 0, len(ends) - 1
    while True:
        parts = max(_PARTS, _SUMS // int(ends[last]))
        grid = np.unique(np.rint(np.linspace(first, last, min(parts, last - first + 1))).astype(np.int64))
        entropy, diversity = prefix_metrics(x, labels, h, ends[grid], workers, progress)
        found, low, high = wanted(entropy, diversity)
        if len(grid) == last - first + 1:
            return int(grid[found])
        first, last = int(grid[low]), int(grid[high])
