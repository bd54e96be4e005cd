"""What criteria see: the domain, candidates, what is known, and what the model says of all of it, computed once."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar, overload, runtime_checkable

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from quests_zenn._core.checks import DataError, finite, positive, whole_number
from quests_zenn._core.rng import as_rng
from quests_zenn.sampling._novelty import BoolArray, FloatArray, IntArray, spread

#: Points that a model is asked for at a time.
CHUNK = 8192

#: How far apart two wells are at least, and how far a well may lie from where it is seen, in units of the domain.
SEPARATION = 0.1

#: Wells that are looked at.
WELLS = 16

#: Places that are looked at for them, and steps of Newton's method from each.
PLACES, STEPS = 64, 4

#: Neighbours among which a proposal looks for a candidate that is still free.
SNAP = 16


class Domain(Protocol):
    """What criteria need of a polytope {x: A x <= b}."""

    @property
    def A(self) -> FloatArray: ...

    @property
    def b(self) -> FloatArray: ...

    @property
    def dim(self) -> int: ...

    @property
    def bounds(self) -> FloatArray: ...

    @property
    def centre(self) -> FloatArray: ...

    def contains(self, x: Any, /) -> BoolArray: ...

    def sample(self, n: int, /, *, method: str, rng: Any) -> FloatArray: ...

    def vertices(self, most: int | None = None, /) -> FloatArray: ...

    def slice(self, axes: tuple[int, int], at: Any) -> Any: ...


@runtime_checkable
class LinearisedModel(Protocol):
    """What the criterion ``expected-error`` needs besides: members that are linear in parameters about the fit."""

    n_members_: int
    n_parameters_: int
    report_: dict[str, Any]

    def slopes_of_mu(self, x: Any, T: Any, member: int = 0) -> FloatArray: ...


class FittedModel(Protocol):
    """What criteria need of a model: derivatives of g, see `quests_zenn.zenn.IDNN`."""

    def derivatives(
        self, x: Any, T: Any, orders: Sequence[tuple[int, ...]], members: bool = False
    ) -> dict[tuple[int, ...], FloatArray]: ...


@dataclass(frozen=True)
class Trained:
    """Rows that a model was trained on: x (m, q), T (m,), mu (m, q), its errors (m, q), NaN where the noise was
    learned, and weights (m,) of mean 1."""

    x: FloatArray
    T: FloatArray
    mu: FloatArray
    error: FloatArray
    weight: FloatArray


@dataclass(frozen=True)
class Predictions:
    """What a committee says of n points.

    Attributes
    ----------
    free_energy : array, shape (n,)
        Mean over the members, eV.
    mu : array, shape (n, q)
        Mean over the members, eV per unit of x.
    mu_members : array, shape (M, n, q)
    eigenvalues : array, shape (n, q)
        Of the mean Hessian in units of `Context.scale`, ``s_i s_j d2g/dx_i dx_j``, eV, smallest first.
    eigenvectors : array, shape (n, q, q)
        In columns, in the order of the eigenvalues.

    Points where anything is not finite have NaN in all of these.
    """

    free_energy: FloatArray
    mu: FloatArray
    mu_members: FloatArray
    eigenvalues: FloatArray
    eigenvectors: FloatArray


Found = TypeVar("Found")


class _Once(Generic[Found]):
    """A property that is computed when first asked for, and shared by the copies of a context."""

    def __init__(self, compute: Callable[[Any], Found]) -> None:
        self.compute, self.__doc__ = compute, compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type) -> _Once[Found]: ...

    @overload
    def __get__(self, instance: object, owner: type) -> Found: ...

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return self
        if self.name not in instance._found:
            instance._found[self.name] = self.compute(instance)
        return instance._found[self.name]


@dataclass(frozen=True, eq=False)
class Context:
    """What a criterion may look at.

    Attributes
    ----------
    domain : Polytope
    candidates : array, shape (N, q)
        Points of the domain to choose among.
    T : float
        Temperature, K.
    known_x : array, shape (n, q)
        Points that were evaluated before.
    known_mu : array, shape (n, q)
        What was measured there, eV per unit of x; NaN where unknown.
    known_error : array, shape (n,)
        |predicted - measured mu| of the points of the last round before the model was trained on them; NaN elsewhere.
    model : FittedModel or None
        None before the first fit.
    scale : array, shape (q,)
        Lengths that distances are measured in; by default the widths of the domain.
    rng : seed or numpy.random.Generator
    rounds : int
        Rounds done.
    only_candidates : bool
        Whether candidates are the only points that may be asked.
    min_distance : float
        Least distance of proposals from known points and from each other, in units of `scale`.
    surplus : float
        Criteria name about this many times the points they are asked for: filters will drop some.
    tolerance : float
        A point is not convex where the smallest eigenvalue of the Hessian (see `Predictions`) lies below this, eV.
    conserved : sequence of int
        Components, such as a composition, whose chemical potential may have any value in a well. In a well mu is
        small in all others.
    plane : array, shape (q,)
        Chemical potential of the surroundings: wells are minima of g - plane . x. By default zero.
    slices : sequence of pairs of int, optional
        Axes of 2-D slices; by default all pairs.
    environment_novelty : callable, optional
        How novel the environments of candidates are, by their numbers (m,): finite and not negative, NaN where unknown.
        The novelty filter then measures with it, in place of distances to known points.
    trained : Trained, optional
        All points that the model was trained on, those at other temperatures as well. By default the known ones, at
        `T`, of one weight, with learned noise.

    Raises
    ------
    DataError
        If arrays do not go together.
    ValueError
        If a number makes no sense.
    """

    domain: Any
    candidates: npt.ArrayLike
    T: float
    known_x: npt.ArrayLike | None = None
    known_mu: npt.ArrayLike | None = None
    known_error: npt.ArrayLike | None = None
    model: Any = None
    scale: npt.ArrayLike | None = None
    rng: Any = None
    rounds: int = 0
    only_candidates: bool = False
    min_distance: float = 0.0
    surplus: float = 4.0
    tolerance: float = 0.0
    conserved: Sequence[int] = ()
    plane: npt.ArrayLike | None = None
    slices: Sequence[tuple[int, int]] | None = None
    environment_novelty: Callable[[IntArray], FloatArray] | None = None
    trained: Trained | None = None
    _found: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        q = int(self.domain.dim)
        candidates = _points(self.candidates, "candidates", q)
        if not np.isfinite(candidates).all():
            raise DataError("candidates must be finite")
        known = _points(self.known_x, "known_x", q)
        measured = np.full(known.shape, np.nan) if self.known_mu is None else _points(self.known_mu, "known_mu", q)
        error = (
            np.full(len(known), np.nan)
            if self.known_error is None
            else np.asarray(self.known_error, dtype=np.float64).reshape(-1)
        )
        if len(measured) != len(known) or len(error) != len(known):
            raise DataError(f"{len(known)} known points have {len(measured)} rows of mu and {len(error)} errors")
        # points that failed have no place
        there = np.isfinite(known).all(1)
        bounds = np.asarray(self.domain.bounds, dtype=np.float64)
        width = bounds[:, 1] - bounds[:, 0]
        scale = (width if self.scale is None else np.asarray(self.scale, dtype=np.float64)).reshape(-1)
        if scale.shape != (q,) or not (np.isfinite(scale).all() and (scale > 0.0).all()):
            raise DataError(f"scale must hold {q} positive lengths")
        plane = np.zeros(q) if self.plane is None else np.asarray(self.plane, dtype=np.float64).reshape(-1)
        if plane.shape != (q,) or not np.isfinite(plane).all():
            raise DataError(f"plane must hold {q} chemical potentials")
        conserved = tuple(sorted({_axis(axis, q, "conserved") for axis in self.conserved}))
        if len(conserved) == q:
            raise ValueError(
                "conserved must leave one component or more that is not; with a composition alone leave it out, and "
                "say with plane which chemical potential it has in wells"
            )
        slices = None
        if self.slices is not None:
            slices = tuple((_axis(i, q, "slices"), _axis(j, q, "slices")) for i, j in self.slices)
            if any(i == j for i, j in slices):
                raise ValueError("the two axes of a slice must differ")
        if finite(self.min_distance, "min_distance") < 0.0:
            raise ValueError(f"min_distance must not be negative, got {self.min_distance!r}")
        if positive(self.surplus, "surplus") < 1.0:
            raise ValueError(f"surplus must be at least 1, got {self.surplus!r}")
        values = {
            "candidates": candidates,
            "T": positive(self.T, "T"),
            "known_x": known[there],
            "known_mu": measured[there],
            "known_error": error[there],
            "scale": scale,
            "plane": plane,
            "conserved": conserved,
            "slices": slices,
            "rng": as_rng(self.rng),
            "rounds": whole_number(self.rounds, "rounds", 0),
            "tolerance": finite(self.tolerance, "tolerance"),
            "min_distance": float(self.min_distance),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def having(self, rng: np.random.Generator | None = None, min_distance: float | None = None) -> Context:
        """The same with other random numbers or another distance; predictions are shared."""
        other = copy.copy(self)
        if rng is not None:
            object.__setattr__(other, "rng", rng)
        if min_distance is not None:
            if finite(min_distance, "min_distance") < 0.0:
                raise ValueError(f"min_distance must not be negative, got {min_distance!r}")
            object.__setattr__(other, "min_distance", float(min_distance))
        return other

    # what was given, with types -----------------------------------------------------------------------------------

    @property
    def q(self) -> int:
        """Components of x."""
        return len(self.units)

    @property
    def x(self) -> FloatArray:
        """(N, q) candidates."""
        return self.candidates  # type: ignore[return-value]

    @property
    def old(self) -> FloatArray:
        """(n, q) known points."""
        return self.known_x  # type: ignore[return-value]

    @property
    def measured(self) -> FloatArray:
        """(n, q) mu of the known points."""
        return self.known_mu  # type: ignore[return-value]

    @property
    def errors(self) -> FloatArray:
        """(n,) errors of the known points."""
        return self.known_error  # type: ignore[return-value]

    @property
    def units(self) -> FloatArray:
        """(q,) lengths that distances are measured in."""
        return self.scale  # type: ignore[return-value]

    @property
    def reservoir(self) -> FloatArray:
        """(q,) chemical potential of the surroundings."""
        return self.plane  # type: ignore[return-value]

    @property
    def others(self) -> IntArray:
        """Components that are not conserved."""
        return np.array([i for i in range(self.q) if i not in self.conserved], np.intp)

    def many(self, n: int) -> int:
        """How many points to name where `n` are asked for."""
        return math.ceil(n * self.surplus)

    # what the model says ------------------------------------------------------------------------------------------

    def at(self, points: npt.ArrayLike) -> Predictions:
        """What the model says of points.

        Raises
        ------
        ValueError
            Before the first fit.
        """
        x = _points(points, "points", self.q)
        if self.model is None:
            raise ValueError("there is no fitted model yet: only criteria that need none can propose")
        q = self.q
        zero = (0,) * (q + 1)
        first = [tuple(int(i == j) for j in range(q + 1)) for i in range(q)]
        second = {(i, j): tuple(int(i == k) + int(j == k) for k in range(q + 1)) for i in range(q) for j in range(i, q)}
        orders = [zero, *first, *second.values()]
        parts: list[tuple[FloatArray, FloatArray, FloatArray]] = []
        for start in range(0, len(x), CHUNK):
            chunk = x[start : start + CHUNK]
            found = self.model.derivatives(chunk[:, 0] if q == 1 else chunk, self.T, orders, members=True)
            hessian = np.empty((len(chunk), q, q))
            for (i, j), order in second.items():
                hessian[:, i, j] = hessian[:, j, i] = found[order].mean(0) * (self.units[i] * self.units[j])
            parts.append((found[zero].mean(0), np.stack([found[order] for order in first], -1), hessian))
        if not parts:
            return Predictions(
                np.empty(0), np.empty((0, q)), np.empty((1, 0, q)), np.empty((0, q)), np.empty((0, q, q))
            )
        free = np.concatenate([part[0] for part in parts])
        members = np.concatenate([part[1] for part in parts], axis=1)
        hessians = np.concatenate([part[2] for part in parts])
        bad = ~(np.isfinite(free) & np.isfinite(members).all((0, 2)) & np.isfinite(hessians).all((1, 2)))
        hessians[bad] = 0.0
        values, vectors = np.linalg.eigh(hessians)
        free[bad], members[:, bad], values[bad], vectors[bad] = np.nan, np.nan, np.nan, np.nan
        return Predictions(free, members.mean(0), members, values, vectors)

    @_Once
    def predictions(self) -> Predictions:
        """What the model says of the candidates."""
        return self.at(self.x)

    @_Once
    def predictions_known(self) -> Predictions:
        """What the model says of the known points."""
        return self.at(self.old)

    @property
    def free_energy(self) -> FloatArray:
        """(N,) g of the candidates, eV."""
        return self.predictions.free_energy

    @property
    def mu(self) -> FloatArray:
        """(N, q) mu of the candidates, mean over the members."""
        return self.predictions.mu

    @property
    def mu_members(self) -> FloatArray:
        """(M, N, q) mu of the candidates, of each member."""
        return self.predictions.mu_members

    @property
    def eigenvalues(self) -> FloatArray:
        """(N, q) eigenvalues of the Hessian at the candidates, smallest first. See `Predictions`."""
        return self.predictions.eigenvalues

    @property
    def eigenvectors(self) -> FloatArray:
        """(N, q, q) eigenvectors in columns."""
        return self.predictions.eigenvectors

    @property
    def max_abs_eigenvalue(self) -> FloatArray:
        """(N,) largest |eigenvalue|."""
        return np.abs(self.eigenvalues).max(1)

    # geometry -----------------------------------------------------------------------------------------------------

    @_Once
    def reach(self) -> float:
        """Diagonal of the bounds of the domain, in units of `scale`."""
        bounds = np.asarray(self.domain.bounds, dtype=np.float64)
        return float(np.linalg.norm((bounds[:, 1] - bounds[:, 0]) / self.units))

    @_Once
    def inside(self) -> BoolArray:
        """(N,) whether candidates lie in the domain."""
        return np.asarray(self.domain.contains(self.x), bool) if len(self.x) else np.empty(0, bool)

    @_Once
    def nearest_known(self) -> FloatArray:
        """(N,) distance of the candidates to the nearest known point, in units of `scale`."""
        if not len(self.old) or not len(self.x):
            return np.full(len(self.x), np.inf)
        found: FloatArray = cKDTree(self.old / self.units).query(self.x / self.units)[0]
        return found

    @property
    def fresh(self) -> BoolArray:
        """(N,) candidates that may be proposed: in the domain, and not too near to known points."""
        return self.inside & (self.nearest_known > self.min_distance)

    @_Once
    def extremes(self) -> FloatArray:
        """Vertices of the domain, (k, q)."""
        return np.asarray(self.domain.vertices(), dtype=np.float64).reshape(-1, self.q)

    @property
    def behind(self) -> Trained:
        """What the model was trained on."""
        if self.trained is not None:
            return self.trained
        m = len(self.old)
        return Trained(self.old, np.full(m, self.T), self.measured, np.full((m, self.q), np.nan), np.ones(m))

    @_Once
    def _places(self) -> dict[bytes, int]:
        """Number of each candidate by its coordinates; of copies, the first."""
        rows = self.x + 0.0  # -0.0 is 0.0
        return {rows[i].tobytes(): i for i in range(len(rows) - 1, -1, -1)}

    def novelty_at(self, points: FloatArray) -> FloatArray | None:
        """(n,) how novel the environments of points are that are candidates; None where that is not measured."""
        if self.environment_novelty is None:
            return None
        found = np.full(len(points), np.nan)
        rows = np.array([self._places.get(point.tobytes(), -1) for point in points + 0.0], np.intp)
        there = rows >= 0
        found[there] = self.environment_novelty(rows[there])
        return found

    # choosing -----------------------------------------------------------------------------------------------------

    def best(self, score: npt.ArrayLike, n: int, eligible: npt.ArrayLike | None = None) -> IntArray:
        """Numbers of the candidates with the largest score first, apart by the minimum distance, at most `n`.

        Candidates whose score is not finite, that lie outside or too near to known points, or that are not `eligible`,
        are passed over. Ties are broken by the coordinates, so that the order of candidates means nothing.
        """
        value = np.asarray(score, dtype=np.float64)
        allowed = self.fresh & np.isfinite(value)
        if eligible is not None:
            allowed &= np.asarray(eligible, bool)
        rows = np.flatnonzero(allowed)
        rows = rows[np.lexsort((*self.x[rows].T, -value[rows]))]
        return rows[spread(self.x[rows], None, self.min_distance, n, self.units)]

    def admit(self, points: npt.ArrayLike) -> FloatArray:
        """Those of the points that may be asked; where only candidates may be, the nearest free candidate of each."""
        x = _points(points, "points", self.q)
        x = x[np.isfinite(x).all(1)]
        if not len(x):
            return x
        if not self.only_candidates:
            return x[np.asarray(self.domain.contains(x), bool)]
        rows = np.flatnonzero(self.fresh)
        if not len(rows):
            return np.empty((0, self.q))
        k = min(SNAP, len(rows))
        near = cKDTree(self.x[rows] / self.units).query(x / self.units, k=list(range(1, k + 1)))[1]
        taken: dict[int, None] = {}
        for choice in near.tolist():
            for row in choice:
                if row not in taken:
                    taken[row] = None
                    break
        return self.x[rows[list(taken)]]

    @_Once
    def well_centres(self) -> FloatArray:
        """Points near wells, apart from each other, (k, q), smallest |mu| first.

        A point is near a well where g is convex and a step of Newton's method to the minimum is short. Among candidates
        by the predicted mu, among known points by the measured one.
        """
        limit = SEPARATION * self.reach
        held: list[tuple[FloatArray, FloatArray, FloatArray]] = []
        for x, mu, found in (
            (self.x, np.where(self.inside[:, None], self.mu, np.nan), self.predictions),
            (self.old, self.measured, self.predictions_known),
        ):
            step, size = self._newton(mu, found)
            near = np.linalg.norm(step, axis=1) <= limit  # not where there is no step
            held.append((x[near], x[near] + step[near] * self.units, size[near]))
        x, end, size = (np.concatenate(parts) for parts in zip(*held, strict=True))
        order = np.lexsort((*x.T, size))
        # points whose steps end at one place see the same well
        order = order[spread(end[order], None, limit, PLACES, self.units)]
        x, end = x[order], end[order]
        # along a bent valley the first step may be short and there is no well: more steps tell
        for _ in range(STEPS):
            found = self.at(end)
            step, _ = self._newton(found.mu, found)
            there = np.linalg.norm((end - x) / self.units + step, axis=1) <= 2.0 * limit
            x, end = x[there], end[there] + step[there] * self.units
        return x[spread(end, None, limit, WELLS, self.units)]

    def _newton(self, mu: FloatArray, found: Predictions) -> tuple[FloatArray, FloatArray]:
        """Steps to the minimum of the quadratic that mu and the Hessian describe, and |mu|, in units of `scale`.

        Conserved components do not move and do not count. NaN where g is not convex.
        """
        slope = ((mu - self.reservoir) * self.units)[:, self.others]
        with np.errstate(invalid="ignore"):
            convex = found.eigenvalues[:, 0] > max(self.tolerance, 0.0)
        rows = np.flatnonzero(convex & np.isfinite(slope).all(1))
        values, vectors = found.eigenvalues[rows], found.eigenvectors[rows]
        hessian = (vectors * values[:, None, :]) @ vectors.transpose(0, 2, 1)
        step = np.full((len(mu), self.q), np.nan)
        step[rows] = 0.0
        block = hessian[:, self.others[:, None], self.others]
        step[np.ix_(rows, self.others)] = -np.linalg.solve(block, slope[rows][..., None])[..., 0]
        return step, np.linalg.norm(slope, axis=1)


def _points(value: npt.ArrayLike | None, name: str, q: int) -> FloatArray:
    try:
        x = np.empty((0, q)) if value is None else np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError(f"{name} must be an array of numbers") from None
    if q == 1 and x.ndim == 1:
        x = x[:, None]
    if not x.size and x.ndim <= 2:
        x = x.reshape(0, q)
    if x.ndim != 2 or x.shape[1] != q:
        raise DataError(f"{name} has shape {x.shape}, expected (n, {q})")
    return x


def _axis(value: Any, q: int, name: str) -> int:
    axis = whole_number(value, f"an axis of {name}", 0)
    if axis >= q:
        raise ValueError(f"{name} names component {axis}, but x has {q}, counted from 0")
    return axis
