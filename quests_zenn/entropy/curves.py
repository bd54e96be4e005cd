"""Learning curves: the entropy of ever larger parts of a set, and how much information the set still lacks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from quests_zenn._core.arrays import as_codes, as_matrix
from quests_zenn._core.checks import bandwidth, one_of, whole_number
from quests_zenn._core.parallel import Workers
from quests_zenn._core.rng import as_rng
from quests_zenn.entropy.bandwidth import DEFAULT_BANDWIDTH
from quests_zenn.entropy.metrics import PRECISIONS, get_all_metrics

FloatArray = npt.NDArray[np.float64]

#: Environments of a set that lacks nothing, for the extrapolation.
FAR_SIZE = 1e12

#: Least c ln^2 n at the largest size, where the fit has flattened to 71 % of its steepest slope. A straight line in
#: ln n fits the model too, around its inflection at c ln^2 n = 1/2, and mostly stays below this.
FLATTENED = 4.0 / 3.0

#: Range of the exponent c that is searched. Below, the model is a parabola in ln n; above, a constant.
_SLOWEST, _FASTEST = 1e-4, 4.0


@dataclass(frozen=True)
class LearningCurve:
    """Entropies of random parts of a set.

    Attributes
    ----------
    sizes : numpy.ndarray, shape (S,)
        Environments asked for, in ascending order.
    counts : numpy.ndarray, shape (S, R)
        Environments drawn; they differ from `sizes` only where whole groups are drawn.
    values : numpy.ndarray, shape (S, R), nats
        Entropy of each part. Where a part is the whole set, all repeats are the same number.
    h : float, 1/Å
        Bandwidth.
    n : int
        Environments of the whole set.
    """

    sizes: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]
    values: FloatArray
    h: float
    n: int

    @property
    def mean(self) -> FloatArray:
        """Mean over the repeats (S,), nats."""
        return np.asarray(self.values.mean(axis=1))

    @property
    def std(self) -> FloatArray:
        """Standard deviation over the repeats (S,), nats; 0 for a single repeat and for the whole set.

        Parts of one set overlap: towards the whole set this falls below the spread of independent sets of that size,
        by about ``sqrt(1 - n / N)``.
        """
        centred = self.values - self.values[:, :1]  # equal values have exactly no spread
        return np.asarray(centred.std(axis=1, ddof=min(1, self.values.shape[1] - 1)))

    @property
    def redundancy(self) -> FloatArray:
        """Mean of ln n - H over the repeats (S,), nats; 0 where no two environments resemble each other."""
        return np.asarray((np.log(self.counts) - self.values).mean(axis=1))


@dataclass(frozen=True)
class InformationGap:
    """What a set still lacks, judged by its learning curve.

    Attributes
    ----------
    gap : float, nats
        `limit` minus the entropy at the largest size. Meaningless where `standard_error` is infinite.
    standard_error : float, nats
        The widest of what the fit, the repeats, and other ranges of sizes say; infinite if the curve does not
        determine its limit.
    limit : float, nats
        Fit at 1e12 environments.
    coefficients : numpy.ndarray, shape (3,)
        a, b, c of ``a - b exp(-c ln^2 n)``.
    covariance : numpy.ndarray, shape (3, 3)
        Of the coefficients, from the fit alone.
    reason : str
        Why the limit is not determined; empty if it is.
    """

    gap: float
    standard_error: float
    limit: float
    coefficients: FloatArray
    covariance: FloatArray
    reason: str = ""

    def predict(self, n: npt.ArrayLike) -> FloatArray:
        """The fit at sets of `n` environments, nats."""
        return np.asarray(_model(self.coefficients, np.log(np.asarray(n, dtype=np.float64))))


def learning_curve(
    x: npt.ArrayLike,
    h: float = DEFAULT_BANDWIDTH,
    sizes: npt.ArrayLike | None = None,
    *,
    repeats: int = 5,
    groups: npt.ArrayLike | None = None,
    labels: npt.ArrayLike | None = None,
    random_state: int | np.random.Generator | None = None,
    precision: str = "auto",
    jobs: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> LearningCurve:
    """Entropy of random parts of a set, drawn without replacement, against their size.

    All parts are drawn independently of each other, also those of one repeat: the errors at different sizes are then
    independent, as a fit to them assumes. (Nested parts make smoother curves, whose noise is shared by all sizes.)

    Environments drawn one by one come from nearly as many frames as there are, so that the curve says how well the set
    is sampled by its own environments. Whole groups grow the set as it was made. Use frame numbers for data of
    independent frames, and time blocks longer than the autocorrelation time for trajectories.

    Parameters
    ----------
    x : array_like, shape (N, d)
        Environments, one per row, 1/Å.
    h : float
        Bandwidth, 1/Å.
    sizes : array_like, shape (S,), optional
        Environments in a part; by default about ten from 100 (N / 1000 if that is more) to N, in geometric steps.
    repeats : int
        Parts per size, R. The whole set is done once.
    groups : array_like, shape (N,), optional
        Labels of any kind that can be sorted. Whole groups are then drawn, as many (at least one) as come nearest to
        the size in sum; `LearningCurve.counts` says what came out.
    labels : array_like, shape (N,), optional
        Environments with different labels do not resemble each other, as in `entropy`.
    random_state : int, numpy.random.Generator or None
        Seed of the draws; None draws anew each time.
    precision, jobs
        See `entropy`.
    progress : callable or None
        Called from any thread with the number of pairs done since the last call; about n^2 / 2 for each part.

    Returns
    -------
    LearningCurve

    Raises
    ------
    ValueError
        If x is not a finite matrix, or an argument is out of range.
    """
    matrix = as_matrix(x, "x")
    n, width = len(matrix), bandwidth(h)
    repeats = whole_number(repeats, "repeats", 1)
    one_of(precision, "precision", PRECISIONS)
    codes, kinds = as_codes(groups, n, "groups"), as_codes(labels, n, "labels")
    rng = as_rng(random_state)
    members = None
    if codes is not None:
        members = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1])
    asked = _default_sizes(n, n if members is None else len(members)) if sizes is None else _as_sizes(sizes, n)

    def draw(size: int) -> npt.NDArray[np.int64]:
        if members is None:
            return np.sort(rng.choice(n, size, replace=False))
        order = rng.permutation(len(members))
        sums = np.cumsum([len(members[g]) for g in order])
        return np.sort(np.concatenate([members[g] for g in order[: int(np.abs(sums - size).argmin()) + 1]]))

    counts, values = np.zeros((len(asked), repeats), np.int64), np.zeros((len(asked), repeats))
    whole = None
    with Workers(jobs) as workers:
        for s, r in np.ndindex(values.shape):
            rows = draw(int(asked[s]))
            counts[s, r] = len(rows)
            if len(rows) == n and whole is not None:
                values[s, r] = whole
                continue
            kind = None if kinds is None else kinds[rows]
            values[s, r] = get_all_metrics(
                matrix[rows], width, labels=kind, precision=precision, workers=workers, progress=progress
            )[0]
            if len(rows) == n:
                whole = values[s, r]
    return LearningCurve(asked, counts, values, width, n)


def information_gap(curve: LearningCurve) -> InformationGap:
    """Fit ``H(n) = a - b exp(-c ln^2 n)`` to a learning curve; the fit at n = 1e12 minus H at the largest size.

    Sizes are weighted by the variance of their means, that of parts of a set, ``s^2 (1/n - 1/N)`` with one s for all
    sizes, plus the misfit of an unweighted fit that the variance leaves unexplained. Real curves follow the model to
    some 0.01 nats only, and the choice of sizes can matter more than noise. The standard error is therefore the widest
    of: the fit covariance, the jackknife over repeats, the range of limits when up to a third of the sizes are left out
    from below or two from above, and the misfit at the largest size. It is a guess at an
    error, no more. States that no environment of the set has visited are beyond them.

    A straight line in ln n, such as H = ln n where nothing resembles anything, fits the model too, with a limit that
    means nothing. If a curve rises beyond doubt, but its fit has not flattened (c ln^2 n < 4/3 at the largest size) or
    is no better than a straight line, the standard error is infinite, and `InformationGap.reason` says so. A curve that
    does not rise has a gap of about zero.

    Parameters
    ----------
    curve : LearningCurve
        Of at least 4 sizes.

    Returns
    -------
    InformationGap

    Raises
    ------
    ValueError
        If the curve has fewer than 4 different sizes.

    References
    ----------
    D. Schwalbe-Koda et al., Nat. Commun. 16 (2025) 4014.
    """
    u, mean = np.log(curve.counts).mean(axis=1), curve.mean
    sizes, repeats = curve.values.shape
    if len(np.unique(u)) < 4:
        raise ValueError(f"an information gap needs a curve of at least 4 different sizes, got {len(np.unique(u))}")
    variance = _variance(curve)
    first = _misfit(_fit(u, mean, np.ones(sizes)), u, mean)
    unexplained = max(float((first**2 - variance).mean()), (0.01 * float(np.ptp(mean))) ** 2, 1e-18)
    weights = 1.0 / (variance + unexplained)
    best = _fit(u, mean, weights)
    line, rises = _straight(u, mean, weights)
    reason = ""
    if best[2] * u[-1] ** 2 < FLATTENED and not rises:  # the slow fit to noise of a curve that is level
        best = _fit(u, mean, weights, FLATTENED / u[-1] ** 2)
    elif best[2] * u[-1] ** 2 < FLATTENED:
        reason = "the curve rises and has not flattened: its limit is not determined"
    elif rises and line <= float(weights @ _misfit(best, u, mean) ** 2):
        reason = "a straight line in ln n fits as well: the limit is not determined"
    limit, misfit = _limit(best), _misfit(best, u, mean)
    covariance, of_limit = _covariance(best, u, misfit, weights)

    def limit_within(part: slice, values: FloatArray) -> float:
        """Among limits that count as determined: a few noisy sizes alone would allow any."""
        return _limit(_fit(u[part], values[part], weights[part], FLATTENED / u[part][-1] ** 2))

    least = min(4, sizes - 1)
    windows = [slice(k, None) for k in range(1, min(-(-sizes // 3), sizes - least) + 1)]
    windows += [slice(None, -k) for k in range(1, min(2, sizes - least) + 1)]
    elsewhere = [limit, *(limit_within(part, mean) for part in windows)]
    errors = [of_limit, float(np.ptp(elsewhere)), float(abs(misfit[-1]))]
    if repeats > 1:
        without = (curve.values.sum(axis=1)[:, None] - curve.values) / (repeats - 1)
        limits = np.array([limit_within(slice(None), column) for column in without.T])
        errors.append(float(np.sqrt((repeats - 1) * limits.var())))
    error = np.inf if reason else max(errors)
    return InformationGap(limit - float(mean[-1]), error, limit, best, covariance, reason)


def _default_sizes(n: int, groups: int) -> npt.NDArray[np.int64]:
    """About ten sizes in geometric steps up to n: whole numbers of groups of the mean size."""
    first = max(n / 1000, min(100, n / 16)) * groups / n
    counts = np.unique(np.geomspace(max(1.0, first), groups, 10).round())
    return np.unique((counts * n / groups).round().astype(np.int64))


def _as_sizes(sizes: npt.ArrayLike, n: int) -> npt.NDArray[np.int64]:
    """Sizes in ascending order, each once."""
    asked = [whole_number(size, "a size", 1) for size in np.ravel(np.asarray(sizes, dtype=object)).tolist()]
    if not asked:
        raise ValueError("at least one size is needed, got an empty list")
    if max(asked) > n:
        raise ValueError(f"a part cannot be larger than the set of {n} environments, got a size of {max(asked)}")
    return np.unique(np.array(asked, np.int64))


def _model(p: FloatArray, u: FloatArray | float) -> FloatArray:
    """a - b exp(-c u^2), with u = ln n."""
    return np.asarray(p[0] - p[1] * np.exp(-p[2] * np.square(u)))


def _misfit(p: FloatArray, u: FloatArray, values: FloatArray) -> FloatArray:
    return _model(p, u) - values


def _limit(p: FloatArray) -> float:
    return float(_model(p, np.log(FAR_SIZE)))


def _variance(curve: LearningCurve) -> FloatArray:
    """Variance of the mean of each size (S,): s^2 (1/n - 1/N) / R, with s pooled over all sizes but the whole set."""
    share = (1.0 / curve.counts - 1.0 / curve.n).mean(axis=1)
    part = share > 0.0
    pooled = (curve.std[part] ** 2 / share[part]).mean() if part.any() else 0.0
    return np.asarray(pooled * share / curve.values.shape[1])


def _fit(u: FloatArray, values: FloatArray, weights: FloatArray, slowest: float = _SLOWEST) -> FloatArray:
    """Coefficients (3,) of least squares with b >= 0 and c >= `slowest`.

    For a given c the model is linear in a and b. That leaves a search in one dimension, on ever finer grids of ln c,
    which needs no start values and cannot fail.
    """
    weights = weights / weights.sum()
    middle = values @ weights
    low, high = np.log(slowest), np.log(_FASTEST)
    for zoom in range(14):
        grid = np.linspace(low, high, 200 if zoom == 0 else 21)
        # expm1: for small c, and thus a large b, the exponentials differ little from 1
        curves = -np.expm1(-np.exp(grid)[:, None] * u**2)
        means = curves @ weights
        centred = curves - means[:, None]
        b = np.maximum(0.0, (centred * (values - middle)) @ weights / np.maximum(centred**2 @ weights, 1e-300))
        k = int(((values - middle - b[:, None] * centred) ** 2 @ weights).argmin())
        best = np.array([middle - b[k] * means[k] + b[k], b[k], np.exp(grid[k])])
        low, high = grid[max(k - 1, 0)], grid[min(k + 1, len(grid) - 1)]
    return best


def _straight(u: FloatArray, values: FloatArray, weights: FloatArray) -> tuple[float, bool]:
    """Squares that a straight line leaves, and whether its slope is positive by more than two standard errors."""
    du = u - np.average(u, weights=weights)
    dv = values - np.average(values, weights=weights)
    spread = float(weights @ du**2)
    slope = float(weights @ (du * dv)) / spread
    squares = float(weights @ (dv - slope * du) ** 2)
    return squares, slope > 2.0 * float(np.sqrt(max(1.0, squares / (len(u) - 2)) / spread))


def _covariance(p: FloatArray, u: FloatArray, misfit: FloatArray, weights: FloatArray) -> tuple[FloatArray, float]:
    """Covariance of the coefficients and standard error of the limit, scaled up where the misfit exceeds the errors."""

    def slopes(at: FloatArray) -> FloatArray:
        decay = np.exp(-p[2] * at**2)
        return np.stack([np.ones_like(at), -decay, p[1] * at**2 * decay], axis=-1)

    jacobian = slopes(u)
    excess = max(1.0, float(weights @ misfit**2) / (len(u) - 3))
    covariance = np.asarray(excess * np.linalg.pinv(jacobian.T @ (weights[:, None] * jacobian)), np.float64)
    far = slopes(np.array([np.log(FAR_SIZE)]))[0]
    return covariance, float(np.sqrt(max(0.0, far @ covariance @ far)))
