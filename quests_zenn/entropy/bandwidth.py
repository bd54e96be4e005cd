"""Bandwidths: from the volume per atom, or from how well a set foretells the environments left out of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from quests_zenn._core.arrays import as_bandwidths, as_codes, as_matrix
from quests_zenn._core.checks import one_of, positive
from quests_zenn._core.jit import strict_kernel
from quests_zenn._core.parallel import Workers
from quests_zenn.entropy._engine import log_sums_within
from quests_zenn.entropy._leave_out import LEAST_SHARE, log_sums_without_own_group
from quests_zenn.entropy._neighbours import nearest

#: 1/Å
DEFAULT_BANDWIDTH = 0.015


def get_bandwidth(volume: float) -> float:
    """Bandwidth from the volume per atom v: ``h(v) = 0.0897141 exp(-(v / 10.896)^2 / 2) + 0.0119417``.

    Parameters
    ----------
    volume : float
        Volume per atom, Å3, of a bulk phase. Vacuum and molecules have none.

    Returns
    -------
    float
        1/Å.

    Raises
    ------
    ValueError
        If the volume is not positive and finite.

    References
    ----------
    The rule of the package ``quests``, fitted to elemental crystals.
    """
    z = positive(volume, "volume per atom") / 10.896
    return 0.0897141 * math.exp(-0.5 * z * z) + 0.0119417


#: 1/Å. Environments closer than this are copies: symmetry operations of a crystal, positions rounded in a file. Tenths
#: of the closest thermal environments, and 3 % of the narrowest bandwidth of the default grid.
SAME = 1e-4

#: Neighbour distances of at most this many environments are looked at for the intrinsic dimension.
_SAMPLED = 4_000


@dataclass(frozen=True)
class BandwidthLikelihood:
    """How well the environments of all other groups foretell each environment, for a range of bandwidths.

    Attributes
    ----------
    bandwidths : numpy.ndarray, shape (H,), 1/Å
        In ascending order.
    score : numpy.ndarray, shape (H,), nats
        Leave-out log likelihood per environment, up to a constant. Larger is better.
    entropy : numpy.ndarray, shape (H,), nats
        Information entropy of the distinct environments.
    best : float, 1/Å
        Bandwidth of the largest score.
    dimension : float
        Intrinsic dimension d of the normalisation h^-d.
    distinct : int
        Environments left once copies were dropped.
    at_edge : bool
        Whether the best is the first or last of the bandwidths, so that a better one may lie outside.
    """

    bandwidths: npt.NDArray[np.float64]
    score: npt.NDArray[np.float64]
    entropy: npt.NDArray[np.float64]
    best: float
    dimension: float
    distinct: int
    at_edge: bool


def intrinsic_dimension(x: npt.ArrayLike, *, tolerance: float = SAME, jobs: int | None = None) -> float:
    """Number of directions in which environments vary locally, from the ratios of neighbour distances (TwoNN).

    Where the density is constant across the second neighbour, the ratio ``m = r_2 / r_1`` of the distances to the
    second and the first neighbour follows ``P(m) = d m^-(d + 1)``. Its maximum-likelihood estimate is
    ``d = n / sum ln m``. The largest tenth of the ratios, where this is least true, counts only as "at least as large
    as the others" (a censored likelihood). The statistical error is d / sqrt(0.9 n), with n at most 4000.

    Parameters
    ----------
    x : array_like, shape (N, D)
        Environments, one per row, 1/Å. If there are many, an even sample of them is compared with all.
    tolerance : float
        1/Å. Environments closer than this are copies of each other, of which one is kept.
    jobs : int or None
        Threads; None for all available cores.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If x is not a finite matrix, fewer than 3 of its rows are distinct, or neighbours are equally far everywhere.

    References
    ----------
    E. Facco, M. d'Errico, A. Rodriguez, A. Laio, Sci. Rep. 7 (2017) 12140.
    """
    matrix = as_matrix(x, "x")
    kept = _distinct(matrix, np.zeros(len(matrix), np.int64), positive(tolerance, "tolerance"))
    with Workers(jobs) as workers:
        return _two_nn(matrix[kept], workers)


def likelihood(
    x: npt.ArrayLike,
    h_grid: npt.ArrayLike | None = None,
    groups: npt.ArrayLike | None = None,
    *,
    dimension: float | None = None,
    tolerance: float = SAME,
    precision: str = "auto",
    jobs: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> BandwidthLikelihood:
    """Leave-one-group-out log likelihood per environment, ``mean_i ln(p_others(x_i) / N_others,i) - d ln h``.

    ``p_others(x_i)`` sums the kernel over the environments of all groups but that of i, ``N_others,i`` is their number,
    and d the intrinsic dimension. Without the last term the widest bandwidth would always win. Near-copies in different
    groups drive the best bandwidth towards zero: name as one group what belongs together (the frames of a time block).
    A mean of logarithms is sensitive to outliers: at small h, one isolated environment can outweigh all others.

    Parameters
    ----------
    x : array_like, shape (N, D)
        Environments, one per row, 1/Å.
    h_grid : array_like, shape (H,), optional
        Bandwidths, 1/Å; by default 15 from 0.003 to 0.3, in geometric steps.
    groups : array_like, shape (N,), optional
        Labels of any kind that can be sorted; by default every environment is a group of its own.
    dimension : float, optional
        Intrinsic dimension; `intrinsic_dimension` by default.
    tolerance : float
        1/Å. Environments closer than this are copies of each other, of which one is kept.
    precision : {"float64", "float32"}
        Arithmetic of the sums, as in `entropy`.
    jobs : int or None
        Threads; None for all available cores. The result is the same bits for any number.
    progress : callable or None
        Called from any thread with the number of pairs done since the last call.

    Returns
    -------
    BandwidthLikelihood

    Raises
    ------
    ValueError
        If x is not a finite matrix, an argument is out of range, fewer than two groups are left once copies are
        dropped, or the dimension cannot be estimated.
    """
    matrix = as_matrix(x, "x")
    bandwidths = np.unique(as_bandwidths(np.geomspace(0.003, 0.3, 15) if h_grid is None else h_grid)[0])
    one_of(precision, "precision", ("auto", *LEAST_SHARE))
    precision = "float64" if precision == "auto" else precision  # differences of sums want digits
    given = as_codes(groups, len(matrix), "groups")
    codes = np.zeros(len(matrix), np.int64) if given is None else given
    kept = _distinct(matrix, codes, positive(tolerance, "tolerance"))
    matrix = matrix[kept]
    codes = np.arange(len(kept)) if given is None else np.unique(codes[kept], return_inverse=True)[1].astype(np.int64)
    sizes = np.bincount(codes)
    if len(sizes) < 2:
        raise ValueError("at least two groups are needed to leave one out, got 1 once copies were dropped")
    n = len(matrix)
    with Workers(jobs) as workers:
        d = _two_nn(matrix, workers) if dimension is None else positive(dimension, "dimension")
        log_all = log_sums_within(matrix, bandwidths, precision=precision, workers=workers, progress=progress)
        log_others = log_sums_without_own_group(
            matrix, bandwidths, codes, log_all=log_all, precision=precision, workers=workers, progress=progress
        )
    score = (log_others - np.log(n - sizes[codes])).mean(axis=1) - d * np.log(bandwidths)
    top = int(score.argmax())
    return BandwidthLikelihood(
        bandwidths, score, np.log(n) - log_all.mean(axis=1), float(bandwidths[top]), d, n, top in (0, len(score) - 1)
    )


def select_bandwidth(
    x: npt.ArrayLike,
    h_grid: npt.ArrayLike | None = None,
    groups: npt.ArrayLike | None = None,
    *,
    dimension: float | None = None,
    tolerance: float = SAME,
    precision: str = "auto",
    jobs: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> BandwidthLikelihood:
    """`likelihood`, with `best` moved to the top of the parabola in ln h through the best bandwidth and its neighbours.

    Parameters, returns and errors are those of `likelihood`. At an edge of the grid nothing is moved.
    """
    found = likelihood(
        x,
        h_grid,
        groups,
        dimension=dimension,
        tolerance=tolerance,
        precision=precision,
        jobs=jobs,
        progress=progress,
    )
    if found.at_edge:
        return found
    top = int(found.score.argmax())
    u = np.log(found.bandwidths[top - 1 : top + 2])
    below, above = np.diff(found.score[top - 1 : top + 2]) / np.diff(u)  # slopes on both sides: below >= 0 >= above
    if below == above:
        return found
    # the slope is linear along a parabola, and zero between the middles of both sides
    share = below / (below - above)
    peak = 0.5 * ((1.0 - share) * (u[0] + u[1]) + share * (u[1] + u[2]))
    return replace(found, best=float(np.exp(peak)))


@strict_kernel
def _drop_copies(x, order, along, tolerance, kept):  # type: ignore[no-untyped-def]
    """Visit rows in `order`, fill `kept` with those not within `tolerance` of a row kept before; return their number.

    `along` (N,) holds lengths along a unit vector, ascending in that order: only rows close there can be close.
    """
    count = 0
    for i in order:
        new = True
        for place in range(count - 1, -1, -1):
            k = kept[place]
            if along[i] - along[k] > tolerance:
                break
            squared = 0.0
            for c in range(x.shape[1]):
                apart = float(x[i, c]) - float(x[k, c])
                squared += apart * apart
                if squared > tolerance * tolerance:
                    break
            if squared <= tolerance * tolerance:
                new = False
                break
        if new:
            kept[count] = i
            count += 1
    return count


def _distinct(x: npt.NDArray[np.floating], codes: npt.NDArray[np.int64], tolerance: float) -> npt.NDArray[np.int64]:
    """Rows of x that are no copies, ordered along a fixed direction: neither depends on the order of the rows.

    Of equal rows in several groups, that of the smallest code is kept.
    """
    direction = np.random.default_rng(0).normal(size=x.shape[1])
    along = (x * (direction / np.linalg.norm(direction))).sum(axis=1)  # no matrix product: equal rows, equal bits
    order = np.lexsort((codes, along))
    kept = np.empty_like(order)
    return kept[: _drop_copies(x, order, along, tolerance, kept)]


def _two_nn(x: npt.NDArray[np.floating], workers: Workers) -> float:
    """TwoNN estimate for distinct rows, in an order that spreads an even sample over the set."""
    if len(x) < 3:
        raise ValueError(
            f"an intrinsic dimension needs at least 3 distinct environments, got {len(x)}: give the dimension"
        )
    rows = np.unique(np.linspace(0, len(x) - 1, min(len(x), _SAMPLED)).astype(np.int64))
    # itself, and the two nearest others: no two rows are equal
    distances = nearest(x[rows], x, 3, workers=workers)[1][:, 1:]
    logs = np.sort(np.log(distances[:, 1] / distances[:, 0]))
    seen = max(1, int(0.9 * len(logs)))
    total = float(logs[:seen].sum() + (len(logs) - seen) * logs[seen - 1])
    if not total > 0.0:
        raise ValueError("first and second neighbours are equally far everywhere, as on a grid: give the dimension")
    return seen / total
