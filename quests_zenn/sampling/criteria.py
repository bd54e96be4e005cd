"""Which points to buy next: criteria that name points, and what is made of all their proposals.

A criterion is a function of a `Context` and a number of points. It returns points in order of preference, more than are
asked for where it can (see `Context.many`), fewer where there are no more. A new one takes one line more than itself::

    @criterion("warmest")
    def warmest(context, n):
        return context.x[context.best(context.free_energy, context.many(n))]
"""

from __future__ import annotations

import difflib
import math
import zlib
from collections.abc import Callable, Mapping
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree
from threadpoolctl import threadpool_limits

from quests_zenn._core.checks import DataError, finite, whole_number
from quests_zenn.sampling._budget import Budget
from quests_zenn.sampling._context import SEPARATION, Context, Domain, FittedModel, LinearisedModel, Predictions
from quests_zenn.sampling._design import Posterior, most_telling
from quests_zenn.sampling._novelty import FloatArray, IntArray, novelty, spread
from quests_zenn.sampling._wells import along, minima, paths

__all__ = [
    "CRITERIA",
    "DEFAULT_CRITERIA",
    "Budget",
    "Context",
    "Domain",
    "FittedModel",
    "Predictions",
    "check_criteria",
    "criterion",
    "find_criterion",
    "novelty",
    "propose",
    "spread",
]

Criterion = Callable[[Context, int], FloatArray]

#: All criteria by name, in the order in which they choose.
CRITERIA: dict[str, Criterion] = {}

#: Those that need a fitted model.
NEEDS_MODEL: set[str] = set()

#: Those whose points are chosen as a set, of which the novelty filter takes none away.
CHOOSES_SETS: set[str] = set()

#: Shares of criteria where none are given.
DEFAULT_CRITERIA: dict[str, float] = {
    "expected-error": 12.0,
    "committee": 1.0,
    "sensitivity": 1.0,
    "high-error": 1.0,
    "non-convex": 1.0,
    "wells": 1.0,
    "predicted-wells": 1.0,
    "path": 1.0,
    "vertices": 1.0,
    "space-filling": 1.0,
}

#: Points of one 2-D slice.
PER_SLICE = 8

#: How often to look for more points of the domain where some are missing.
REFILLS = 6

#: How far an end member is drawn into the domain for a slice through it to have an area.
INWARDS = 0.1

#: Of "expected-error": candidates that are compared (at least so many for each point), candidates over which errors are
#: averaged, numbers that slopes of all members may hold, and members that are asked.
COMPARED, LEAST_COMPARED, AVERAGED, SLOPES, ASKED_MEMBERS = 1000, 2, 500, 60_000_000, 3

#: Parameters from which on one member is asked: time grows with their square.
LARGE = 1500

#: Parameters beyond which their covariance is not made: a matrix of so many rows and columns.
LARGEST = 6000

#: Least noise of mu that it counts on, in units of how far mu spread.
LEAST_NOISE = 1e-3


def criterion(name: str, *, needs_model: bool = False, chooses_sets: bool = False) -> Callable[[Criterion], Criterion]:
    """Register a criterion under a name.

    Parameters
    ----------
    name : str
    needs_model : bool
        Whether it can say nothing before the first fit.
    chooses_sets : bool
        Whether it looks at what its points tell together, so that the novelty filter must not take some of them away.

    Raises
    ------
    ValueError
        If another criterion has this name.
    """

    def register(function: Criterion) -> Criterion:
        there = CRITERIA.get(name)
        # a cell of a notebook may be run again
        if there is not None and (there.__module__, there.__qualname__) != (function.__module__, function.__qualname__):
            raise ValueError(f"there is a criterion {name!r} already; choose another name")
        CRITERIA[name] = function
        for names, wanted in ((NEEDS_MODEL, needs_model), (CHOOSES_SETS, chooses_sets)):
            names.discard(name)
            if wanted:
                names.add(name)
        return function

    return register


def find_criterion(name: str) -> Criterion:
    """The criterion of this name.

    Raises
    ------
    ValueError
        If there is none; with a suggestion.
    """
    if name in CRITERIA:
        return CRITERIA[name]
    near = difflib.get_close_matches(str(name), CRITERIA, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(CRITERIA)}"
    raise ValueError(f"there is no criterion {name!r}; {hint}")


def check_criteria(criteria: Mapping[str, float] | None) -> dict[str, float]:
    """Shares of criteria, checked; `DEFAULT_CRITERIA` for None.

    Raises
    ------
    ValueError
        If a name is unknown, a share is negative, or all are zero.
    """
    given = DEFAULT_CRITERIA if criteria is None else criteria
    shares = {}
    for name, share in given.items():
        find_criterion(name)
        shares[name] = finite(share, f"the share of {name!r}")
        if shares[name] < 0.0:
            raise ValueError(f"the share of {name!r} must not be negative, got {share!r}")
    if not any(shares.values()):
        raise ValueError("criteria need one share or more that is positive")
    return shares


# space filling --------------------------------------------------------------------------------------------------------


@criterion("space-filling")
def space_filling(context: Context, n: int) -> FloatArray:
    """Sobol points of the domain; the candidates farthest from known points and from each other where only they may be
    asked."""
    if context.only_candidates:
        return context.x[_farthest(context, context.many(n))]
    return _sampled(context, context.many(n), "sobol")


@criterion("space-filling-2d")
def space_filling_slices(context: Context, n: int) -> FloatArray:
    """Sobol points of 2-D slices through the centre, end members and wells. With one component, of the domain."""
    if context.q == 1:
        return space_filling(context, n)
    m = context.many(n)
    axes = list(combinations(range(context.q), 2)) if context.slices is None else list(context.slices)
    centre = np.asarray(context.domain.centre, dtype=np.float64)
    ends = _end_members(context)
    anchors = [centre[None], ends + INWARDS * (centre - ends)]
    if context.model is not None:
        wells = context.well_centres
        anchors.append(wells + INWARDS * (centre - wells))
    through = np.concatenate(anchors)
    # each plane once: where a slice is made does not depend on the coordinates that it leaves free
    each = {
        (pair, *np.round(np.delete(at, pair), 9).tolist()): (number, pair)
        for number, at in reversed(list(enumerate(through)))
        for pair in axes
    }
    pairs = sorted(each.values())
    count = min(math.ceil(m / PER_SLICE), len(pairs))
    parts = []
    for choice in context.rng.permutation(len(pairs)):
        at, pair = pairs[choice]
        try:
            cut = context.domain.slice(pair, at=through[at])
            flat = cut.sample(math.ceil(m / count), method="sobol", rng=context.rng)
        except DataError:
            continue  # a slice without area
        parts.append(np.asarray(cut.embed(flat), dtype=np.float64))
        if len(parts) == count:
            break
    return context.admit(_in_turn(parts, context.q)[:m])


@criterion("billiard")
def billiard(context: Context, n: int) -> FloatArray:
    """Points of a billiard walk, uniform over the domain."""
    return _sampled(context, context.many(n), "billiard")


@criterion("hit-and-run")
def hit_and_run(context: Context, n: int) -> FloatArray:
    """Points of a hit-and-run walk, uniform over the domain."""
    return _sampled(context, context.many(n), "hit-and-run")


@criterion("random")
def at_random(context: Context, n: int) -> FloatArray:
    """Independent points of the domain; candidates drawn at random where only they may be asked."""
    if context.only_candidates:
        rows = np.flatnonzero(context.fresh)
        return context.x[context.rng.permutation(rows)[: context.many(n)]]
    return _sampled(context, context.many(n), "random")


# physics --------------------------------------------------------------------------------------------------------------


@criterion("vertices")
def vertices(context: Context, n: int) -> FloatArray:
    """End members (largest and smallest of each component) first, then vertices farthest from what is known."""
    ends, all_ = _end_members(context), context.extremes
    known = np.concatenate([context.old, ends])
    rest = all_[_apart(all_ / context.units, known / context.units, context.many(n))] if len(all_) else all_
    return context.admit(np.concatenate([ends, rest]))[: context.many(n)]


@criterion("wells", needs_model=True)
def wells(context: Context, n: int) -> FloatArray:
    """Points near wells, where g is convex and |mu| small, and points drawn around them."""
    centres = context.well_centres
    m = context.many(n)
    if not len(centres):
        return np.empty((0, context.q))
    width = 0.5 * SEPARATION * context.reach / math.sqrt(context.q)
    rings = [centres]
    for _ in range(math.ceil(m / len(centres))):
        move = context.rng.normal(size=centres.shape) * width * context.units
        for _ in range(20):
            outside = ~np.asarray(context.domain.contains(centres + move), bool)
            if not outside.any():
                break
            move[outside] *= 0.5
        rings.append((centres + move)[~outside])
    return context.admit(np.concatenate(rings))[:m]


@criterion("predicted-wells", needs_model=True)
def predicted_wells(context: Context, n: int) -> FloatArray:
    """Minima of the predicted g inside the domain, lowest first."""
    return context.admit(minima(context, context.many(n)))


@criterion("path", needs_model=True)
def path(context: Context, n: int) -> FloatArray:
    """Points along the lowest paths from well to well, those half way first."""
    found = paths(context)
    m = context.many(n)
    each = math.ceil(m / max(len(found), 1))
    return context.admit(_in_turn([along(way, each, context.units) for way in found], context.q)[:m])


@criterion("non-convex", needs_model=True)
def non_convex(context: Context, n: int) -> FloatArray:
    """Candidates where the smallest eigenvalue of the Hessian lies below `Context.tolerance`, most negative first."""
    smallest = context.eigenvalues[:, 0]
    with np.errstate(invalid="ignore"):
        unstable = smallest < context.tolerance
    return context.x[context.best(-smallest, context.many(n), unstable)]


# uncertainty ----------------------------------------------------------------------------------------------------------


@criterion("high-error")
def high_error(context: Context, n: int) -> FloatArray:
    """Candidates around the known points whose error was largest in the last round: the nearest of each in turn."""
    m = context.many(n)
    rows, errors = np.flatnonzero(context.fresh), context.errors
    worst = np.flatnonzero(errors > 0.0)
    worst = worst[np.lexsort((*context.old[worst].T, -errors[worst]))][: max(1, math.ceil(m / 4))]
    if not len(worst) or not len(rows):
        return np.empty((0, context.q))
    # some of the nearest will be too near to each other
    k = min(4 * math.ceil(m / len(worst)) + 4, len(rows))
    near = cKDTree(context.x[rows] / context.units).query(context.old[worst] / context.units, k=list(range(1, k + 1)))[
        1
    ]
    points = context.x[rows[near.T.ravel()]]
    return points[spread(points, None, context.min_distance, m, context.units)]


@criterion("sensitivity", needs_model=True)
def sensitivity(context: Context, n: int) -> FloatArray:
    """Candidates with the largest |eigenvalue| of the Hessian first: mu changes fastest there."""
    return context.x[context.best(context.max_abs_eigenvalue, context.many(n))]


@criterion("committee", needs_model=True)
def committee(context: Context, n: int) -> FloatArray:
    """Candidates on which members of the committee disagree most first: variance of mu summed over its components,
    each in units of how far measured mu spread."""
    if len(context.x) and len(context.mu_members) < 2:
        raise ValueError("the criterion 'committee' needs a model of two members or more (n_members)")
    variance = (context.mu_members.var(axis=0) / _spread_of_mu(context) ** 2).sum(1)
    return context.x[context.best(variance, context.many(n))]


@criterion("expected-error", needs_model=True, chooses_sets=True)
def expected_error(context: Context, n: int) -> FloatArray:
    """Candidates whose measurement would lower the mean variance of mu over the domain most, one after the other: each
    with those before it measured. About the fit, the model is taken as linear in its parameters. See `Posterior`.

    Of models with more parameters than a matrix of their covariance can hold, those on which the committee disagrees
    most, if there is one."""
    rows = np.flatnonzero(context.fresh & np.isfinite(context.mu_members).all((0, 2)))
    model = context.model
    if not isinstance(model, LinearisedModel):
        raise ValueError("the criterion 'expected-error' needs a model that has slopes_of_mu, as IDNN and ZENN do")
    if not len(rows) or n < 1:
        return np.empty((0, context.q))
    if model.n_parameters_ > LARGEST:
        return committee(context, n) if model.n_members_ > 1 else np.empty((0, context.q))
    members = range(min(model.n_members_, ASKED_MEMBERS if model.n_parameters_ <= LARGE else 1))
    most = min(COMPARED, SLOPES // (context.q * model.n_parameters_ * len(members)))
    # one order for ties, whatever the order of the candidates
    rows = rows[np.lexsort(context.x[rows].T)]
    rows = rows[np.sort(context.rng.permutation(len(rows))[: max(most, LEAST_COMPARED * n)])]
    over = np.sort(context.rng.permutation(len(rows))[:AVERAGED])
    unit = _spread_of_mu(context)
    found = [model.report_["targets"].get(f"mu_{i}", {}) for i in range(context.q)]
    # where errors were given with the rows no noise was learned
    noise = np.array([entry.get("noise") or entry.get("rms") or 0.0 for entry in found]) / unit
    noise = np.maximum(noise, LEAST_NOISE)
    behind = context.behind
    error = np.where(np.isnan(behind.error), noise * unit, np.maximum(behind.error, LEAST_NOISE * unit))
    told = np.isfinite(behind.mu) * np.sqrt(behind.weight)[:, None] / error

    # what is measured is as noisy as it was nearby
    expected = np.broadcast_to(noise * unit, (len(rows), context.q))
    if len(error):
        expected = error[cKDTree(behind.x / context.units).query(context.x[rows] / context.units)[1]]

    def slopes(points: FloatArray, T: Any, member: int) -> FloatArray:
        return model.slopes_of_mu(points[:, 0] if context.q == 1 else points, T, member)

    # sums of BLAS depend on how many threads it takes
    with threadpool_limits(1, "blas"):
        posteriors = []
        for member in members:
            information = np.zeros((model.n_parameters_,) * 2)
            for start in range(0, len(behind.x), most):
                part = slice(start, start + most)
                known = slopes(behind.x[part], behind.T[part], member) * told[part, :, None]
                known = known.reshape(-1, model.n_parameters_)
                information += known.T @ known
            ahead = slopes(context.x[rows], context.T, member) / unit[:, None]
            posteriors.append(Posterior(information, ahead, expected / unit, over))
        # some may be too near to points of other criteria
        return context.x[rows[most_telling(posteriors, n + math.ceil(n / 4) + 1)]]


def _spread_of_mu(context: Context) -> FloatArray:
    """Standard deviation of each component of mu: measured, else predicted, else 1."""
    return np.array([
        spread_of(context.measured[:, i]) or spread_of(context.mu[:, i]) or 1.0 for i in range(context.q)
    ])  # fmt: skip


def spread_of(values: FloatArray) -> float:
    """Standard deviation of those that are finite; 0 where they differ by no more than rounding."""
    known = values[np.isfinite(values)]
    if len(known) < 2:
        return 0.0
    found = float(known.std())
    return found if found > 1e-12 * float(np.abs(known).max()) else 0.0


# from many proposals to the points of a round -------------------------------------------------------------------------


def propose(
    context: Context,
    budgets: Mapping[str, int],
    *,
    min_distance: float | None = None,
    filtered: bool = True,
    fill: bool = True,
) -> tuple[FloatArray, list[str]]:
    """Points of the next round.

    Criteria choose one after the other, in the order of `CRITERIA`, each with random numbers of its own. Their
    proposals pass the novelty filter (about every other one of each criterion does), and keep the minimum distance from
    known points and from those chosen before.
    What is missing then is filled from space filling, without the filter.

    Parameters
    ----------
    context : Context
    budgets : mapping of str to int
        Points that each criterion may buy.
    min_distance : float, optional
        In place of that of the context.
    filtered : bool
        Whether proposals of criteria pass the novelty filter. See `novelty`.
    fill : bool
        Whether points that criteria could not name are filled from space filling.

    Returns
    -------
    points : array, shape (n, q)
        All in the domain. Fewer than the budgets sum to where no more points keep the minimum distance.
    names : list of str
        The criterion that proposed each.

    Raises
    ------
    ValueError
        If a criterion is unknown, a budget is negative, or a criterion needs a model where there is none yet.
    DataError
        If a criterion returns anything but points.
    """
    counts = {}
    for name, count in budgets.items():
        find_criterion(name)
        counts[name] = whole_number(count, f"the budget of {name!r}", 0)
    if context.model is None:
        early = [name for name in CRITERIA if counts.get(name) and name in NEEDS_MODEL]
        if early:
            free = ", ".join(name for name in CRITERIA if name not in NEEDS_MODEL)
            raise ValueError(f"the criterion {early[0]!r} needs a fitted model; before the first fit use one of {free}")
    context = context.having(min_distance=min_distance)
    seed = int(context.rng.integers(2**63))
    chosen, names = np.empty((0, context.q)), []
    for name in CRITERIA:
        count = counts.get(name, 0)
        if not count:
            continue
        # a criterion draws the same, whichever others are asked
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        points = _offered(context.having(rng=rng), name, count)
        if filtered and name not in CHOOSES_SETS and len(points):
            points = points[_novel(context, points, rng)]
        points = _free(context, points, chosen, count)
        chosen = np.concatenate([chosen, points])
        names += [name] * len(points)
    missing = sum(counts.values()) - len(chosen)
    if missing and fill:
        rng = np.random.default_rng([seed, zlib.crc32(b"fill")])
        points = _filled(context.having(rng=rng), chosen, missing)
        chosen = np.concatenate([chosen, points])
        names += ["space-filling"] * len(points)
    return chosen, names


def _offered(context: Context, name: str, count: int) -> FloatArray:
    """What a criterion names, as far as it may be asked."""
    points = np.asarray(CRITERIA[name](context, count), dtype=np.float64)
    if context.q == 1 and points.ndim == 1:
        points = points[:, None]
    if points.ndim != 2 or points.shape[1] != context.q:
        raise DataError(f"the criterion {name!r} returned an array of shape {points.shape}, not (n, {context.q})")
    return context.admit(points)


def _novel(context: Context, points: FloatArray, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    bend = None if context.model is None else np.abs(context.at(points).eigenvalues).max(1)
    # usual is what the criterion itself offers: one that asks for known places must not lose its budget for it
    return novelty(
        points, context.old, bend, context.units, context.min_distance, rng, distance=context.novelty_at(points)
    )


def _free(context: Context, points: FloatArray, chosen: FloatArray, n: int) -> FloatArray:
    """Those that keep the minimum distance from all else, at most n."""
    taken = np.concatenate([context.old, chosen])
    return points[spread(points, taken, context.min_distance, n, context.units)]


def _filled(context: Context, chosen: FloatArray, missing: int) -> FloatArray:
    """Points that fill space, as many as are missing and there is room for."""
    if context.only_candidates:
        rows = np.flatnonzero(context.fresh)
        rows = rows[_apart_rows(context, rows, chosen, missing)]
        return _free(context, context.x[rows], chosen, missing)
    found = np.empty((0, context.q))
    for attempt in range(REFILLS):
        count = 4 * missing * 2**attempt
        points = context.admit(context.domain.sample(count, method="sobol", rng=context.rng))
        points = _free(context, points, np.concatenate([chosen, found]), missing - len(found))
        found = np.concatenate([found, points])
        if len(found) == missing:
            break
    return found


# shared by criteria ---------------------------------------------------------------------------------------------------


def _sampled(context: Context, m: int, method: str) -> FloatArray:
    if m < 1:
        return np.empty((0, context.q))
    points = np.asarray(context.domain.sample(m, method=method, rng=context.rng), dtype=np.float64)
    return context.admit(points)


def _end_members(context: Context) -> FloatArray:
    """Vertices with the smallest and the largest value of each component, each once."""
    ends = context.extremes
    if not len(ends):
        return ends
    rows: dict[int, None] = {}
    for axis in range(context.q):
        for sign in (1.0, -1.0):
            others = [ends[:, i] for i in range(context.q) if i != axis]
            rows[int(np.lexsort((*others, sign * ends[:, axis]))[0])] = None
    return ends[list(rows)]


def _farthest(context: Context, m: int) -> IntArray:
    """Candidates, each the farthest from known points and from those before it."""
    rows = np.flatnonzero(context.fresh)
    return rows[_apart_rows(context, rows, np.empty((0, context.q)), m)]


def _apart_rows(context: Context, rows: IntArray, chosen: FloatArray, m: int) -> IntArray:
    known = np.concatenate([context.old, chosen])
    if not len(known) and len(rows):
        # begin in the middle
        known = np.asarray(context.domain.centre, dtype=np.float64)[None]
        gap = (((context.x[rows] - known) / context.units) ** 2).sum(1)
        first = np.lexsort((*context.x[rows].T, gap))[:1]
        return np.concatenate(
            [first, _apart(context.x[rows] / context.units, context.x[rows[first]] / context.units, m - 1)]
        )
    return _apart(context.x[rows] / context.units, known / context.units, m)


def _apart(points: FloatArray, known: FloatArray, m: int) -> IntArray:
    """Farthest-point order: each row the farthest from all known and from those before it; copies are left out."""
    if not len(points) or m < 1:
        return np.empty(0, np.intp)
    # one order for ties, whatever the order of the points
    order = np.lexsort(points.T)
    points = points[order]
    gap = cKDTree(known).query(points)[0]
    rows: list[int] = []
    while len(rows) < min(m, len(points)):
        row = int(gap.argmax())
        if gap[row] <= 0.0:
            break
        rows.append(row)
        gap = np.minimum(gap, np.sqrt(((points - points[row]) ** 2).sum(1)))
    return order[np.array(rows, np.intp)]


def _in_turn(parts: list[FloatArray], q: int) -> FloatArray:
    """The first of each, then the second of each, and so on."""
    if not parts:
        return np.empty((0, q))
    place = np.concatenate([np.arange(len(part)) for part in parts])
    return np.concatenate(parts)[np.argsort(place, kind="stable")]
