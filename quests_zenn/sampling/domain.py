"""Domains of order parameters: convex polytopes {x: A x <= b}, points in them, their corners and slices.

Points are never outside
------------------------
What `sample`, `vertices`, `boundary` and `Slice.embed` return is inside of every plane as it was given, and of the
normalised planes, whatever the order in which a product A x is summed: a point nearer to a plane than rounding can
tell is moved inwards by that much.
"""

from __future__ import annotations

import itertools
import math
import os
import warnings
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import OptimizeResult, linprog
from scipy.spatial import HalfspaceIntersection, QhullError
from scipy.stats import qmc

from quests_zenn._core.checks import DataError, DataWarning, finite, one_of, whole_number
from quests_zenn._core.parallel import Workers
from quests_zenn._core.rng import as_rng
from quests_zenn.sampling._walks import billiard, hit_and_run

Array = npt.NDArray[np.float64]

METHODS = ("sobol", "billiard", "hit-and-run", "random")

#: Numbers beyond this are refused: products would leave the range of numbers.
LARGEST = 1e100

#: A domain whose inscribed ball is smaller than this is flat. (In coordinates in which it is 2 wide along each axis.)
FLATTEST = 1e-9

#: A plane that cuts off less than this part of the distance from the centre is redundant.
REDUNDANT = 1e-9

#: Points of the box from which its acceptance is estimated, and the least at which points are drawn by rejection.
BOX_POINTS, LEAST_ACCEPTANCE = 4096, 0.02

#: No more vertices than this are enumerated (by the bound of McMullen), nor more simplices used.
MOST_VERTICES, MOST_SIMPLICES = 200_000, 50_000

#: Vertices are sought by at most this many linear programmes where there are too many to enumerate.
MOST_PROGRAMMES = 1000

#: Chains of a walk, points of each in a trial, kept points passed before the first that counts.
CHAINS, TRIAL, BURN_IN = 64, 32, 10

#: Autocorrelation of successive kept points, the largest that passes.
CORRELATED = 0.1

#: Doublings of the steps between kept points.
DOUBLINGS = 12

#: Random numbers of a walk are drawn for about this many steps at a time.
STEPS = 4096

#: Rows judged at a time.
ROWS = 8192


@dataclass(frozen=True)
class _Rounded:
    """x = origin + turn y: coordinates y in which the polytope G y <= h has about the same width in all directions."""

    origin: Array
    turn: Array
    G: Array
    h: Array

    def back(self, y: Array) -> Array:
        return np.asarray(self.origin + y @ self.turn.T)


class Polytope:
    """The convex polytope {x: A x <= b}.

    Parameters
    ----------
    A : (m, d)
        Normals of the planes, of any length but zero, pointing outwards.
    b : (m,)
    names : sequence of str, optional
        Of the coordinates; eta_0, eta_1, ... if not given.

    Attributes
    ----------
    A, b : (k, d), (k,)
        The planes that matter, with normals of length 1: b - A x is the distance of x from each.
    dim : int
    names : tuple of str
    n_redundant : int
        Planes that were given and do not matter.
    centre : (d,)
        Centre of a largest inscribed ball (Chebyshev centre). Where many balls are as large, one in the middle of them.
    radius : float
        Of that ball.
    bounds : (d, 2)
        Least and largest value of each coordinate.

    Raises
    ------
    DataError
        If shapes do not fit, a number is not finite or larger than 1e100, the domain is empty (planes contradict each
        other), flat (planes amount to an equation; or it is thinner than 1e-9 of its width) or not bounded.

    Notes
    -----
    All is found with linear programmes (HiGHS), in coordinates in which the domain is about as wide along each axis.
    """

    def __init__(self, A: npt.ArrayLike, b: npt.ArrayLike, names: Sequence[str] | None = None) -> None:
        given_A, given_b = _planes(A, b)
        self.dim: int = given_A.shape[1]
        self.names: tuple[str, ...] = _names(names, self.dim)

        lengths = _lengths(given_A)
        real = lengths > 0.0
        for plane in np.flatnonzero(~real & (given_b < 0.0)):
            raise DataError(
                f"the domain is empty: plane {plane} has only zeros in A and asks that 0 <= {given_b[plane]:g}"
            )
        if not real.any():
            raise DataError("the domain is not bounded: no plane limits it")
        unit_A, unit_b = given_A[real] / lengths[real, None], given_b[real] / lengths[real]
        numbers = np.flatnonzero(real)

        middle, half = self._extent(unit_A, unit_b, numbers)
        scaled_A, scaled_b, inside = _fit(unit_A, unit_b, middle, half, numbers)
        kept = _needed(scaled_A, scaled_b, inside)
        self.n_redundant = int(len(given_b) - len(kept))
        self.A: Array = unit_A[kept]
        self.b: Array = unit_b[kept]
        self._middle, self._half, self._inside = middle, half, _tidy(middle + half * inside, half)

        # all planes, as they were given and normalised, and by how much sums of their products may differ
        self._guard_A, self._guard_b = np.vstack([given_A[real], unit_A]), np.concatenate([given_b[real], unit_b])
        terms = (self._guard_A != 0.0).sum(axis=1)
        # one term is rounded in one way only
        self._guard_terms = np.where(terms > 1, terms + 1, 0) * np.finfo(float).eps
        self._guard_size = np.abs(self._guard_A)
        slack = self._guard_b - self._guard_A @ self._inside
        if not (slack > 100.0 * self._rounding(self._inside[None])[0]).all():
            raise DataError("the domain is flat: it is thinner than the rounding of its coordinates")

        self.bounds: Array = np.stack([_tidy(middle - half, half), _tidy(middle + half, half)], axis=1)
        self.centre, self.radius = self._chebyshev()
        for array in (self.A, self.b, self.bounds, self.centre):
            array.setflags(write=False)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.dim} dimensions, {len(self.b)} planes)"

    # ---------------------------------------------------------------- ways to make one

    @classmethod
    def box(cls, low: npt.ArrayLike, high: npt.ArrayLike, names: Sequence[str] | None = None) -> Polytope:
        """The box low <= x <= high.

        Parameters
        ----------
        low, high : (d,), or one of them a number

        Raises
        ------
        DataError
            If they have different shapes, are not finite, or some low is not below its high.
        """
        try:
            lows, highs = np.broadcast_arrays(np.asarray(low, dtype=float), np.asarray(high, dtype=float))
        except (TypeError, ValueError):
            raise DataError("low and high must be numbers, as many of one as of the other") from None
        lows, highs = np.atleast_1d(lows), np.atleast_1d(highs)
        if lows.ndim != 1 or not lows.size:
            raise DataError(f"low and high must have shape (d,), got {lows.shape}")
        for c in np.flatnonzero(~(lows < highs)):
            raise DataError(f"low must be below high, but coordinate {c} has low {lows[c]:g} and high {highs[c]:g}")
        one = np.eye(len(lows))
        return cls(np.vstack([one, -one]), np.concatenate([highs, -lows]), names)

    @classmethod
    def simplex(cls, d: int, names: Sequence[str] | None = None) -> Polytope:
        """The simplex x >= 0, x_0 + ... + x_(d-1) <= 1: compositions of d + 1 components, the last one left out.

        Raises
        ------
        ValueError
            If d is not a whole number of at least 1.
        """
        d = whole_number(d, "d", 1)
        return cls(np.vstack([-np.eye(d), np.ones((1, d))]), np.append(np.zeros(d), 1.0), names)

    @classmethod
    def read(cls, path: str | os.PathLike[str], names: Sequence[str] | None = None) -> Polytope:
        """A polytope from a file.

        Parameters
        ----------
        path
            Text with one plane a_1 ... a_d b per line, separated by spaces or commas, comments after #; or an archive
            of NumPy (.npz) with arrays A and b, and names if you like. Pickled objects are refused.

        Raises
        ------
        DataError
            If the file is not like this, or the domain cannot be used.
        OSError
            If the file cannot be read.
        """
        path = Path(path)
        if path.suffix.lower() == ".npz":
            arrays = _read_npz(path)
            for name in ("A", "b"):
                if name not in arrays:
                    raise DataError(f"{path}: holds no array {name!r}; a domain needs A and b")
            if names is None and "names" in arrays:
                names = [str(name) for name in np.ravel(arrays["names"])]
            A, b = arrays["A"], arrays["b"]
        else:
            rows = _read_text(path)
            if rows.shape[1] < 2:
                raise DataError(f"{path}: each line must hold a_1 ... a_d b, at least two numbers")
            A, b = rows[:, :-1], rows[:, -1]
        try:
            return cls(A, b, names)
        except DataError as error:
            raise DataError(f"{path}: {error}") from None

    @classmethod
    def from_sublattices(
        cls,
        Q: npt.ArrayLike | str | os.PathLike[str],
        n: int | None = None,
        low: float = 0.0,
        high: float = 1.0,
        names: Sequence[str] | None = None,
    ) -> Polytope:
        """Order parameters whose occupations of all sublattices lie between `low` and `high`.

        Order parameters are eta = Q x, x the occupations. Rows of Q are orthogonal, so that x = Q^T (eta / |row|^2);
        order parameters beyond the first `n` are zero.

        Parameters
        ----------
        Q : (r, s), or a file of text or .npy
            One row per order parameter, one column per sublattice, r <= s. Missing rows are those of zero parameters.
        n : int, optional
            Number of order parameters; r if not given.
        low, high
            Limits of occupations.
        names
            eta_0, eta_1, ... if not given.

        Raises
        ------
        DataError
            If Q is not a matrix of finite numbers with orthogonal rows, or the domain is not one (see `Polytope`).
        ValueError
            If n is not a whole number from 1 to r, or low is not below high.
        """
        where = ""
        if isinstance(Q, str | os.PathLike):
            path = Path(Q)
            where = f"{path}: "
            Q = _read_npy(path) if path.suffix.lower() == ".npy" else _read_text(path)
        matrix = _real(Q, f"{where}Q")
        if matrix.ndim != 2 or not 1 <= matrix.shape[0] <= matrix.shape[1]:
            raise DataError(f"{where}Q must be a matrix of at most as many rows as columns, got shape {matrix.shape}")
        n = len(matrix) if n is None else whole_number(n, "n", 1)
        if n > len(matrix):
            raise ValueError(f"n must be at most {len(matrix)}, the number of rows of Q, got {n}")
        low, high = finite(low, "low"), finite(high, "high")
        if not low < high:
            raise ValueError(f"low must be below high, got {low:g} and {high:g}")
        sizes = _lengths(matrix)
        for row in np.flatnonzero(sizes == 0.0):
            raise DataError(f"{where}row {row} of Q is zero")
        unit = matrix / sizes[:, None]
        overlap = np.abs(unit @ unit.T - np.eye(len(unit)))
        if overlap.max() > 1e-9:
            pair = sorted(int(i) for i in np.unravel_index(int(overlap.argmax()), overlap.shape))
            raise DataError(f"{where}rows of Q must be orthogonal, but rows {pair[0]} and {pair[1]} are not")
        occupations = (matrix / (matrix**2).sum(axis=1)[:, None])[:n].T
        A = np.vstack([occupations, -occupations])
        b = np.concatenate([np.full(len(occupations), high), np.full(len(occupations), -low)])
        return cls(A, b, names if names is not None else [f"eta_{i}" for i in range(n)])

    # ---------------------------------------------------------------- questions

    def contains(self, x: npt.ArrayLike, tolerance: float = 1e-9) -> npt.NDArray[np.bool_]:
        """Whether points are inside, or outside of no plane by more than `tolerance`.

        Parameters
        ----------
        x : (..., d)
        tolerance
            A distance, in units of x. 0 asks for A x <= b of each plane that was given, and of the normalised ones.

        Returns
        -------
        (...) of bool

        Raises
        ------
        ValueError
            If tolerance is negative or not finite.
        DataError
            If x has another number of coordinates, or is not finite.
        """
        tolerance = finite(tolerance, "tolerance")
        if tolerance < 0.0:
            raise ValueError(f"tolerance must not be negative, got {tolerance!r}")
        points = self._points(x)
        limits = self._guard_b + tolerance * _lengths(self._guard_A)
        flat = points.reshape(-1, self.dim)
        inside = np.empty(len(flat), dtype=bool)
        for first in range(0, len(flat), ROWS):
            part = slice(first, first + ROWS)
            inside[part] = (flat[part] @ self._guard_A.T <= limits).all(axis=1)
        return inside.reshape(points.shape[:-1])

    def distance_to_boundary(self, x: npt.ArrayLike) -> Array:
        """Distance of points from the nearest plane; negative outside, where it says how far the worst plane is passed.

        Parameters
        ----------
        x : (..., d)

        Returns
        -------
        (...)

        Raises
        ------
        DataError
            If x has another number of coordinates, or is not finite.
        """
        points = self._points(x)
        return np.asarray((self.b - points @ self.A.T).min(axis=-1))

    def vertices(self, most: int | None = None) -> Array:
        """Corners.

        All of them, where there cannot be too many (a bound from the numbers of planes and dimensions says so). In
        other cases those in up to 1000 random directions, found by linear programmes; the same ones in each call.

        If there are more than `most`, those that are far apart: each is the farthest from all before it.

        Returns
        -------
        (k, d)
            Each is inside and touches at least d planes, apart from rounding.

        Raises
        ------
        ValueError
            If most is not a whole number of at least 1.
        """
        most = None if most is None else whole_number(most, "most", 1)
        found = self._corners
        corners = found[0] if found is not None else self._some_corners(most)
        if most is not None and len(corners) > most:
            corners = corners[_far_apart((corners - self._middle) / self._half, most)]
        return np.array(corners)

    def boundary(self, n: int, rng: Any = None) -> Array:
        """Points on planes.

        From points that are uniform inside, rays in random directions (in coordinates in which the domain is about
        round) to the first plane. All faces are met; large ones and near ones more often. This is not uniform by area.

        Parameters
        ----------
        n : int
        rng : int, numpy Generator or None

        Returns
        -------
        (n, d)

        Raises
        ------
        ValueError
            If n is not a whole number of at least 0, or rng is not one.
        """
        n = whole_number(n, "n", 0)
        generator = as_rng(rng)
        inside = self.sample(n, "random", generator)
        rounded = self._rounded
        rays = generator.standard_normal((n, self.dim)) @ rounded.turn.T
        on = np.empty((n, self.dim))
        for first in range(0, n, ROWS):
            part = slice(first, first + ROWS)
            speed = rays[part] @ self.A.T
            gap = np.maximum(self.b - inside[part] @ self.A.T, 0.0)
            times = np.divide(gap, speed, out=np.full_like(gap, np.inf), where=speed > 0.0)
            on[part] = inside[part] + times.min(axis=1)[:, None] * rays[part]
        return self._inward(on)

    def slice(self, axes: Sequence[int] = (0, 1), at: npt.ArrayLike | None = None) -> Slice:
        """The part of the domain where all other coordinates are those of a point.

        Parameters
        ----------
        axes
            Numbers of the coordinates that remain free, two or any other number.
        at : (d,), optional
            A point inside; the centre if not given. Its coordinates along `axes` do not matter to the slice.

        Raises
        ------
        ValueError
            If axes are not different numbers of coordinates.
        DataError
            If `at` has another number of coordinates, is not finite or is outside, or the slice is flat (`at` is on the
            boundary).
        """
        chosen = tuple(whole_number(axis, "an axis", 0) for axis in axes)
        if not chosen or len(set(chosen)) != len(chosen) or max(chosen) >= self.dim:
            raise ValueError(f"axes must be different numbers from 0 to {self.dim - 1}, got {tuple(axes)!r}")
        point = self.centre if at is None else self._start(at, "at")
        return Slice(self, chosen, point)

    # ---------------------------------------------------------------- points inside

    def sample(
        self,
        n: int,
        method: str = "sobol",
        rng: Any = None,
        start: npt.ArrayLike | None = None,
        jobs: int | None = None,
    ) -> Array:
        """Points with uniform density.

        Parameters
        ----------
        n : int
        method
            "sobol"
                Points of a scrambled Sobol sequence, which fill space more evenly than random ones. Where at least
                2 % of the bounding box belong to the domain, those of the box that are inside. Else the domain is cut
                into simplices: one coordinate of the sequence chooses a simplex by its volume (neighbours follow each
                other), the others a point in it, by the map from cube to simplex that keeps volumes and folds
                nothing. Where there are too many vertices or simplices, it cannot be done: the points then come from
                the billiard walk, and a DataWarning says so.
            "billiard"
                Flights of random length that are reflected by the planes. See `quests_zenn.sampling._walks`.
            "hit-and-run"
                Steps to uniform points of random chords.
            "random"
                Independent points: by rejection from the box, or from simplices; the billiard walk in other cases.
        rng : int, numpy Generator or None
            The same seed gives the same bits, for any number of threads.
        start : (d,), optional
            Where walks start, or nearly: at 0.9 of the way there from the middle. If not given, each chain starts at a
            random point inside.
        jobs : int, optional
            Threads of a walk; all cores if not given.

        Returns
        -------
        (n, d)
            None is outside, not by rounding either.

        Raises
        ------
        ValueError
            If n is not a whole number of at least 0, method is unknown, rng or jobs is not one.
        DataError
            If start has another number of coordinates, is not finite or is outside.

        Notes
        -----
        Walks are made in coordinates in which the domain is about round: a Newton search for the analytic centre gives
        an ellipsoid, and trial walks its covariance, until that no longer changes. There are up to 64 chains, with
        streams of random numbers of their own. The number of steps between points that are kept begins at 4 d
        (hit-and-run) or 1 (billiard), and is doubled until successive kept points of a trial walk are uncorrelated
        (below 0.1 within the error of the trial, for all coordinates, their squares and the
        distance from the middle). The first ten of each chain are thrown away.
        """
        n = whole_number(n, "n", 0)
        method = one_of(method, "method", METHODS)
        generator = as_rng(rng)
        origin = None if start is None else self._start(start, "start")
        with Workers(jobs) as workers:
            if n == 0:
                return np.empty((0, self.dim))
            if method in ("sobol", "random"):
                if self._acceptance >= LEAST_ACCEPTANCE:
                    return self._from_box(n, method, generator)
                if self._simplices is not None:
                    return self._from_simplices(n, method, generator)
                if method == "sobol":
                    warnings.warn(
                        "this domain has too many corners for a Sobol sequence: points come from the billiard walk",
                        DataWarning,
                        stacklevel=2,
                    )
                method = "billiard"
            return self._from_walk(n, method, generator, origin, workers)

    def _from_box(self, n: int, method: str, rng: np.random.Generator) -> Array:
        low, width = self.bounds[:, 0], self.bounds[:, 1] - self.bounds[:, 0]
        # a power of two, as the sequence wants it
        block = min(2 ** math.ceil(math.log2(1.2 * n / self._acceptance + 16.0)), 2**17)
        sobol = qmc.Sobol(self.dim, scramble=True, seed=rng) if method == "sobol" else None
        kept: list[Array] = []
        missing = n
        while missing > 0:
            u = sobol.random(block) if sobol is not None else rng.random((block, self.dim))
            x = low + u * width
            x = x[self._certain(x)][:missing]
            kept.append(x)
            missing -= len(x)
        return np.concatenate(kept)

    def _from_simplices(self, n: int, method: str, rng: np.random.Generator) -> Array:
        assert self._simplices is not None
        corners, volumes = self._simplices
        if method == "sobol":
            power = max(math.ceil(math.log2(n)), 0)
            u = qmc.Sobol(self.dim + 1, scramble=True, seed=rng).random_base2(power)[:n]
        else:
            u = rng.random((n, self.dim + 1))
        edges = np.cumsum(volumes)
        which = np.minimum(np.searchsorted(edges, u[:, 0] * edges[-1], side="right"), len(volumes) - 1)
        # barycentric coordinates one after the other: the next takes 1 - v^(1/k) of what is left, k those to come
        x = np.zeros((n, self.dim))
        left = np.ones(n)
        for c in range(self.dim):
            share = left * (1.0 - u[:, c + 1] ** (1.0 / (self.dim - c)))
            x += share[:, None] * corners[which, c]
            left = left - share
        return self._inward(x + left[:, None] * corners[which, self.dim])

    def _from_walk(self, n: int, method: str, rng: np.random.Generator, start: Array | None, workers: Workers) -> Array:
        rounded, thin = self._rounded, self._thinning(method, workers)
        chains = min(n, CHAINS)
        keep = -(-n // chains)
        if start is None:
            starts = _random_starts(rounded, chains, rng)
        else:
            # not in a corner itself, out of which few directions lead
            starts = np.tile(0.9 * np.linalg.solve(rounded.turn, start - rounded.origin), (chains, 1))
        seeds = rng.integers(2**63, size=chains)
        y = _walk(method, rounded, starts, seeds, keep, thin, BURN_IN * thin, workers)
        # all chains take turns, so that a part of the rows comes from all of them
        return self._inward(rounded.back(y.transpose(1, 0, 2).reshape(-1, self.dim)[:n]))

    def _thinning(self, method: str, workers: Workers) -> int:
        """Steps between points that are kept, from the dimension and the autocorrelation of a trial walk."""
        known: dict[str, int] = self.__dict__.setdefault("_known_thinning", {})
        if method not in known:
            rounded = self._rounded
            thin = 4 * self.dim if method == "hit-and-run" else 1
            rng = np.random.default_rng(1)
            for _ in range(DOUBLINGS):
                starts = _random_starts(rounded, CHAINS, rng)
                seeds = rng.integers(2**63, size=CHAINS)
                y = _walk(method, rounded, starts, seeds, TRIAL, thin, BURN_IN * thin, workers)
                # three standard errors of the correlation of independent points
                if _autocorrelation(y) < CORRELATED + 3.0 / math.sqrt(CHAINS * TRIAL):
                    break
                thin *= 2
            else:
                warnings.warn(f"points of the {method} walk in this domain are correlated", DataWarning, stacklevel=4)
            known[method] = thin
        return known[method]

    # ---------------------------------------------------------------- what is found once

    @staticmethod
    def _extent(A: Array, b: Array, numbers: npt.NDArray[np.int64]) -> tuple[Array, Array]:
        """Middle and half width along each axis, (d,) each."""
        d = A.shape[1]
        free: list[tuple[float | None, float | None]] = [(None, None)] * d
        middle, half = np.zeros(d), np.full(d, float(np.abs(b).max()) or 1.0)
        # programmes are solved to an absolute precision: the extent is measured again in units of what was found
        for _ in range(10):
            scaled, limits = _in_units(A, b, middle, half)
            # in a bounded domain the radius of a ball is at most the largest limit
            most = float(np.abs(limits).max()) or 1.0
            found = _programme(
                -np.eye(d + 1)[d], np.column_stack([scaled, np.ones(len(b))]), limits, [*free, (None, 2.0 * most)]
            )
            if found.status != 0 or found.x[d] > 1.5 * most:
                raise _unbounded(A)
            if found.x[d] < -FLATTEST * most:
                raise DataError(f"the domain is empty: {_culprits(found, numbers)} contradict each other")
            # a flat domain may seem empty by rounding: the centre found counts as inside
            gap = np.maximum(limits - scaled @ found.x[:d], 0.0)
            ends = np.zeros((2, d))
            for c, (row, sign) in itertools.product(range(d), ((0, -1.0), (1, 1.0))):
                end = _programme(-sign * np.eye(d)[c], scaled, gap, free)
                if end.status != 0:
                    raise _unbounded(A)
                ends[row, c] = found.x[c] + end.x[c]
            width = (ends[1] - ends[0]) / 2.0
            middle = middle + half * ends.mean(axis=0)
            half = half * np.maximum(width, 1e-6)
            if (np.abs(width - 1.0) < 0.5).all() or (half <= 1e-14 * np.abs(middle)).any():
                break
        for fixed in np.flatnonzero((half <= 1e-13 * np.abs(middle)) | (width < 1e-5)):
            raise DataError(
                f"the domain is flat: coordinate {fixed} can only be {middle[fixed] + 0.0:.6g}; "
                "leave it out and put its value into b"
            )
        return middle, half

    def _chebyshev(self) -> tuple[Array, float]:
        """Centre and radius of a largest ball inside."""
        d = self.dim
        A, b = _in_units(self.A, self.b, self._middle, self._half)
        unit = float(self._half.min())
        # what a ball of radius `unit` takes of each limit
        share = unit / _lengths(self.A * self._half)
        limits = b.copy()
        held = np.zeros(len(b), dtype=bool)
        middle = (self._inside - self._middle) / self._half
        # a needle holds many largest balls: the planes that hold this one stay where they are, the others close in
        for _ in range(2 * d + 1):
            planes = np.column_stack([A, np.where(held, 0.0, share)])
            found = _programme(-np.eye(d + 1)[d], planes, limits, [(None, None)] * d + [(0.0, None)])
            if found.status != 0:
                break
            middle = found.x[:d]
            weights = -np.asarray(found.ineqlin.marginals)
            now = ~held & (weights > 1e-9 * weights[~held].max())
            if not held.any():
                limits -= found.x[d] * share  # all leave room for this ball
                share = np.ones(len(b))
            else:
                limits[now] -= found.x[d]
            held |= now
            if held.all() or np.linalg.matrix_rank(A[held], tol=1e-9) == d:
                break
        centre = _tidy(self._middle + self._half * middle, self._half)
        return centre, float((self.b - self.A @ centre).min())

    @cached_property
    def _rounded(self) -> _Rounded:
        """Coordinates in which the domain is about round. The same in each run."""
        rng = np.random.default_rng(0)
        A, b = _in_units(self.A, self.b, self._middle, self._half)
        start = (self._inside - self._middle) / self._half
        origin, curvature = _analytic_centre(A, b, start)
        # the ellipsoid of the curvature is inside; d is a guess of how much larger the domain is
        turn = np.linalg.inv(np.linalg.cholesky(curvature)).T * math.sqrt(self.dim)
        y: Array | None = None
        with Workers(1) as workers:
            for _ in range(10):
                planes = A @ turn
                lengths = _lengths(planes)
                G, h = planes / lengths[:, None], (b - A @ origin) / lengths
                current = _Rounded(origin, turn, np.ascontiguousarray(G), h)
                starts = _random_starts(current, CHAINS, rng) if y is None else y
                seeds = rng.integers(2**63, size=CHAINS)
                walked = _walk("hit-and-run", current, starts, seeds, TRIAL, 4 * self.dim, 0, workers)
                points = walked[:, TRIAL // 4 :].reshape(-1, self.dim)
                mean = points.mean(axis=0)
                spread = np.atleast_2d(np.cov(points, rowvar=False))
                factor = np.linalg.cholesky(spread)
                origin, turn = origin + turn @ mean, turn @ factor
                y = np.linalg.solve(factor, (walked[:, -1] - mean).T).T
                values = np.linalg.eigvalsh(spread)
                if values[-1] < 4.0 * values[0]:
                    break
        planes = A @ turn
        lengths = _lengths(planes)
        return _Rounded(
            self._middle + self._half * origin,
            self._half[:, None] * turn,
            np.ascontiguousarray(planes / lengths[:, None]),
            (b - A @ origin) / lengths,
        )

    @cached_property
    def _acceptance(self) -> float:
        """Part of the bounding box that belongs to the domain, from a fixed set of random points."""
        u = np.random.default_rng(0).random((BOX_POINTS, self.dim))
        return float(self._certain(self.bounds[:, 0] + u * (self.bounds[:, 1] - self.bounds[:, 0])).mean())

    @cached_property
    def _corners(self) -> tuple[Array, list[int]] | None:
        """All corners (k, d), and for each the planes it is on, as bits; None where there may be too many."""
        m, d = self.A.shape
        if d == 1:
            ends = self.bounds.reshape(2, 1)
            return self._inward(ends), [sum(1 << int(i) for i in np.flatnonzero(self.A[:, 0] * s > 0)) for s in (-1, 1)]
        if _most_corners(m, d) > MOST_VERTICES:
            return None
        rounded = self._rounded
        dual = rounded.G / rounded.h[:, None]
        try:
            hull = HalfspaceIntersection(np.column_stack([dual, -np.ones(m)]), np.zeros(d))
        except QhullError:
            return None
        y = hull.intersections[np.isfinite(hull.intersections).all(axis=1)]
        return self._exact_corners(y)

    def _exact_corners(self, y: Array) -> tuple[Array, list[int]]:
        """Corners from guesses (k, d) in round coordinates: its planes are solved for. No corner twice."""
        rounded = self._rounded
        A, b = _in_units(self.A, self.b, self._middle, self._half)
        planes: dict[int, Array] = {}
        for guess in y:
            on = np.flatnonzero(np.abs(rounded.h - rounded.G @ guess) < 1e-7 * np.maximum(rounded.h, 1.0))
            key = sum(1 << int(i) for i in on)
            if key in planes or len(on) < self.dim:
                continue
            point, _, rank, _ = np.linalg.lstsq(A[on], b[on], rcond=1e-9)
            if rank == self.dim:
                planes[key] = np.asarray(point, dtype=np.float64)
        if not planes:
            return np.empty((0, self.dim)), []
        z = np.array(list(planes.values()))
        order = np.lexsort(np.round(z, 9).T[::-1])
        on_planes = list(planes)
        corners = _tidy(self._middle + self._half * z[order], self._half)
        return self._inward(corners), [on_planes[i] for i in order]

    def _some_corners(self, most: int | None) -> Array:
        """Corners in random directions of round coordinates, (k, d)."""
        rounded = self._rounded
        rng = np.random.default_rng(2)
        free = [(None, None)] * self.dim
        tries = MOST_PROGRAMMES if most is None else min(2 * most, MOST_PROGRAMMES)
        ends = (_programme(rng.standard_normal(self.dim), rounded.G, rounded.h, free) for _ in range(tries))
        return self._exact_corners(np.array([end.x for end in ends if end.status == 0]))[0]

    @cached_property
    def _simplices(self) -> tuple[Array, Array] | None:
        """Corners (t, d + 1, d) and volumes (t,) of simplices that make up the domain; None where there are too many.

        Pulling triangulation: a face is cut into cones from its first corner over those of its facets which do not hold
        it. Only the lists of which corner is on which plane are needed. The simplices come in such an order that
        neighbours in the list are neighbours in space.
        """
        found = self._corners
        if found is None:
            return None
        corners, on = found
        planes = [sum(1 << v for v, bits in enumerate(on) if bits >> i & 1) for i in range(len(self.b))]
        cut = _pull((1 << len(corners)) - 1, self.dim, planes, {}, [MOST_SIMPLICES])
        if cut is None:
            return None
        members = [[v for v in range(len(corners)) if simplex >> v & 1] for simplex in cut]
        if not _fits_together(cut, planes):
            return None
        simplices = corners[np.array(members)]
        shape = (simplices - self._middle) / self._half
        volumes = np.abs(np.linalg.det(shape[:, 1:] - shape[:, :1]))
        order = _neighbours_together(shape.mean(axis=1))
        return simplices[order], volumes[order]

    # ---------------------------------------------------------------- rounding

    def _rounding(self, x: Array) -> Array:
        """By how much sums of the products of each plane with x (n, d) may differ between orders of summation."""
        rounding = np.asarray((np.abs(x) @ self._guard_size.T) * self._guard_terms)
        some_zero = np.flatnonzero((x == 0.0).any(axis=1))
        if len(some_zero):
            # a sum of one product and zeros is the same in any order: corners on axes can be met exactly
            terms = (x[some_zero] != 0.0).astype(float) @ (self._guard_A != 0.0).astype(float).T
            rounding[some_zero] = np.where(terms > 1.0, rounding[some_zero], 0.0)
        return rounding

    def _certain(self, x: Array) -> npt.NDArray[np.bool_]:
        """Whether points (n, d) are inside whatever the order of summation."""
        inside = np.empty(len(x), dtype=bool)
        for first in range(0, len(x), ROWS):
            part = x[first : first + ROWS]
            sums = part @ self._guard_A.T + self._rounding(part)
            inside[first : first + ROWS] = (sums <= self._guard_b).all(axis=1)
        return inside

    def _inward(self, x: Array, anchor: Array | None = None) -> Array:
        """Points (n, d) moved towards `anchor` (d,) inside as far as it takes to be certainly inside."""
        x = np.array(x)
        anchor = self._inside if anchor is None else anchor
        room = self._guard_b - self._guard_A @ anchor
        bad = np.flatnonzero(~self._certain(x))
        factor = 1.0
        while len(bad) and factor < 1e6:
            part = x[bad]
            gap = self._guard_b - part @ self._guard_A.T
            short = self._rounding(part) - gap
            towards = np.where(short > 0.0, short / np.maximum(room - gap, 1e-300), 0.0).max(axis=1)
            # at least one unit in the last place of the largest coordinate
            step = np.minimum(np.maximum(towards, np.finfo(float).eps) * factor, 1.0)
            x[bad] = part + step[:, None] * (anchor - part)
            bad = bad[~self._certain(x[bad])]
            factor *= 2.0
        x[bad] = anchor
        return x

    # ---------------------------------------------------------------- arguments

    def _points(self, x: npt.ArrayLike, name: str = "x") -> Array:
        points = _real(x, name)
        if points.ndim == 0 or points.shape[-1] != self.dim:
            raise DataError(f"{name} must have {self.dim} coordinates per point, got shape {points.shape}")
        return points

    def _start(self, x: npt.ArrayLike, name: str) -> Array:
        point = self._points(x, name)
        if point.shape != (self.dim,):
            raise DataError(f"{name} must be one point of shape ({self.dim},), got {point.shape}")
        if not self.contains(point):
            excess = self.A @ point - self.b
            raise DataError(f"{name} is outside of the domain: one plane is passed by {excess.max():.3g}")
        return point


class Slice(Polytope):
    """Part of a polytope where all but a few coordinates are fixed. Made by `Polytope.slice`.

    Attributes
    ----------
    axes : tuple of int
        The coordinates of the whole domain that are free.
    at : (d,)
        The point through which it goes.
    """

    def __init__(self, whole: Polytope, axes: tuple[int, ...], at: Array) -> None:
        self.axes = axes
        self.at: Array = np.array(at)
        self.at.setflags(write=False)
        self._whole = whole
        others = [c for c in range(whole.dim) if c not in axes]
        A, b = whole.A[:, list(axes)], whole.b - whole.A[:, others] @ self.at[others]
        # planes along which the slice lies do not limit it: `at` is inside of them
        across = _lengths(A) > 1e-13
        super().__init__(A[across], b[across], [whole.names[c] for c in axes])

    def embed(self, x: npt.ArrayLike) -> Array:
        """Points of the whole domain.

        Parameters
        ----------
        x : (..., k)
            Points of the slice. Those that are outside stay outside.

        Returns
        -------
        (..., d)

        Raises
        ------
        DataError
            If x has another number of coordinates, or is not finite.
        """
        points = self._points(x)
        full = np.broadcast_to(self.at, (*points.shape[:-1], self._whole.dim)).copy()
        full[..., list(self.axes)] = points
        flat = full.reshape(-1, self._whole.dim)
        anchor = self.at.copy()
        anchor[list(self.axes)] = self._inside
        inside = self.contains(points.reshape(-1, self.dim), 1e-12 * float(self._half.max()))
        # rounding only, and towards a point of the same slice
        flat[inside] = self._whole._inward(flat[inside], anchor)
        return flat.reshape(full.shape)


# -------------------------------------------------------------------- walks


def _walk(
    method: str,
    rounded: _Rounded,
    starts: Array,
    seeds: npt.NDArray[np.int64],
    keep: int,
    thin: int,
    burn_in: int,
    workers: Workers,
) -> Array:
    """Points of independent chains (chains, keep, d), in round coordinates."""
    d = rounded.G.shape[1]
    out = np.empty((len(starts), keep, d))
    planes = np.ascontiguousarray(rounded.G.T)
    products = rounded.G @ rounded.G.T
    # about the width of a domain whose variance is 1 along each axis
    flight = 2.0 * math.sqrt(d)

    def advance(y: Array, rng: np.random.Generator, steps: int, every: int, rows: Array) -> None:
        directions = rng.standard_normal((steps, d))
        work = np.empty(2 * len(rounded.h) + d)
        if method == "hit-and-run":
            hit_and_run(planes, rounded.h, y, directions, rng.random(steps), every, rows, work[:-d])
            return
        directions /= np.maximum(_lengths(directions), 1e-300)[:, None]
        lengths = rng.standard_exponential(steps) * flight
        billiard(planes, products, rounded.h, y, directions, lengths, 50 + 10 * d, every, rows, work)

    def chain(k: int) -> None:
        rng = np.random.default_rng(int(seeds[k]))
        y = np.array(starts[k])
        nothing = np.empty((1, d))
        for first in range(0, burn_in, STEPS):
            steps = min(STEPS, burn_in - first)
            advance(y, rng, steps, steps, nothing)
        rows = max(1, STEPS // thin)
        for first in range(0, keep, rows):
            part = out[k, first : first + rows]
            advance(y, rng, len(part) * thin, thin, part)

    workers.run(chain, range(len(starts)))
    return out


def _random_starts(rounded: _Rounded, n: int, rng: np.random.Generator) -> Array:
    """Points inside (n, d): in random directions from the origin, at random parts of the way to the boundary."""
    d = rounded.G.shape[1]
    rays = rng.standard_normal((n, d))
    speed = rays @ rounded.G.T
    reach = np.where(speed > 0.0, rounded.h / np.maximum(speed, 1e-300), np.inf).min(axis=1)
    return np.asarray(rays * (reach * rng.random(n) ** (1.0 / d) * (1.0 - 1e-9))[:, None])


def _autocorrelation(y: Array) -> float:
    """Largest correlation of points (n, k, d) and their successors: of coordinates, their squares, the distance."""
    features = np.concatenate([y, y**2, (y**2).sum(axis=2, keepdims=True)], axis=2)
    features -= features.mean(axis=(0, 1))
    together = (features[:, 1:] * features[:, :-1]).mean(axis=(0, 1))
    return float((together / (features**2).mean(axis=(0, 1))).max())


# -------------------------------------------------------------------- geometry


def _programme(cost: Array, A: Array, b: Array, bounds: Sequence[tuple[float | None, float | None]]) -> OptimizeResult:
    """The point of A x <= b with the least cost x. Status 0: found; 2: none inside; 3, 4: no end, or unclear."""
    # HiGHS gives up now and then where coefficients are of very different sizes: other ways through the same programme
    for presolve, tolerance in ((True, 1e-10), (False, 1e-10), (True, 1e-9), (False, 1e-7)):
        options = {
            "primal_feasibility_tolerance": tolerance,
            "dual_feasibility_tolerance": tolerance,
            "presolve": presolve,
        }
        found = linprog(cost, A_ub=A, b_ub=b, bounds=bounds, method="highs", options=options)
        if found.status != 4:
            break
    return found


def _culprits(found: OptimizeResult, numbers: npt.NDArray[np.int64]) -> str:
    """The planes that hold a largest ball in place, in words."""
    weights = -np.asarray(found.ineqlin.marginals)
    which = [int(numbers[i]) for i in np.flatnonzero(weights > 1e-9 * weights.max())]
    if len(which) > 8:
        return f"{len(which)} planes, among them {', '.join(map(str, which[:8]))},"
    return f"planes {', '.join(map(str, which[:-1]))} and {which[-1]}"


def _unbounded(A: Array) -> DataError:
    """The error that names a way out of the domain."""
    d = A.shape[1]
    for c, sign in itertools.product(range(d), (1.0, -1.0)):
        # a direction along which no plane is ever met
        ray = _programme(-sign * np.eye(d)[c], A, np.zeros(len(A)), [(-1.0, 1.0)] * d)
        if ray.status == 0 and sign * ray.x[c] > 0.5:
            way = ", ".join(f"{value:.3g}" for value in ray.x + 0.0)
            return DataError(f"the domain is not bounded: nothing limits it in the direction ({way})")
    return DataError(
        "the extent of the domain was not found: its planes are nearly parallel, or of very different sizes"
    )


def _in_units(A: Array, b: Array, middle: Array, half: Array) -> tuple[Array, Array]:
    """Planes in coordinates z = (x - middle) / half, normalised."""
    scaled = A * half
    sizes = _lengths(scaled)
    return scaled / sizes[:, None], (b - A @ middle) / sizes


def _fit(A: Array, b: Array, middle: Array, half: Array, numbers: npt.NDArray[np.int64]) -> tuple[Array, Array, Array]:
    """Planes in coordinates z = (x - middle) / half, normalised, and the centre (d,) of a largest ball there."""
    d = A.shape[1]
    scaled, limits = _in_units(A, b, middle, half)
    found = _programme(
        -np.eye(d + 1)[d], np.column_stack([scaled, np.ones(len(b))]), limits, [(None, None)] * d + [(-1.0, 2.0)]
    )
    if found.status != 0:
        raise DataError(f"the domain cannot be measured: {found.message}")
    if found.x[d] < -FLATTEST:
        raise DataError(f"the domain is empty: {_culprits(found, numbers)} contradict each other")
    if found.x[d] < FLATTEST:
        raise DataError(
            f"the domain is flat: {_culprits(found, numbers)} leave no room between them; write it in fewer coordinates"
        )
    return scaled, limits, found.x[:d]


def _needed(A: Array, b: Array, inside: Array) -> npt.NDArray[np.int64]:
    """Numbers of the planes that matter, in order. `inside` (d,) is in all of them."""
    origin, curvature = _analytic_centre(A, b, inside)
    turn = np.linalg.inv(np.linalg.cholesky(curvature)).T
    dual = (A @ turn) / (b - A @ origin)[:, None]  # planes g y <= 1 around the origin
    m, d = dual.shape
    # of planes that are the same, the first
    same = np.round(dual / np.abs(dual).max(axis=1, keepdims=True), 9) + 0.0
    order = np.lexsort((np.arange(m), -np.abs(dual).max(axis=1)))
    _, first = np.unique(same[order], axis=0, return_index=True)
    left = np.sort(order[first])
    # a plane that a ray meets before all others matters
    rays = np.random.default_rng(0).standard_normal((200 * d, d))
    met = rays @ dual[left].T
    rows = np.arange(len(met))
    winner = met.argmax(axis=1)
    best = met[rows, winner].copy()
    met[rows, winner] = -np.inf
    sure = set(winner[best > (1.0 + 1e-6) * met.max(axis=1)].tolist()) if len(left) > 1 else {0}
    kept = list(range(len(left)))
    for i in range(len(left)):
        if i in sure:
            continue
        others = [j for j in kept if j != i]
        planes = np.vstack([dual[left[others]], dual[left[i]]])
        limits = np.append(np.ones(len(others)), 2.0)
        end = _programme(-dual[left[i]], planes, limits, [(None, None)] * d)
        if end.status == 0 and -end.fun <= 1.0 + REDUNDANT:
            kept = others
    return np.asarray(left[kept], dtype=np.int64)


def _analytic_centre(A: Array, b: Array, start: Array) -> tuple[Array, Array]:
    """Where the sum of log(b - A x) is largest, (d,), and its negative second derivatives there, (d, d).

    Newton's method, with steps damped as in Boyd and Vandenberghe, Convex Optimization (2004), 9.6.
    """
    x = np.array(start)
    for _ in range(200):
        inverse = 1.0 / (b - A @ x)
        weighted = A * inverse[:, None]
        curvature = weighted.T @ weighted
        step = -np.linalg.solve(curvature, weighted.sum(axis=0))
        decrement = math.sqrt(max(float(step @ curvature @ step), 0.0))
        if decrement < 1e-8:
            break
        x = x + step / (1.0 + decrement if decrement > 0.25 else 1.0)
    weighted = A / (b - A @ x)[:, None]
    return x, weighted.T @ weighted


def _tidy(x: Array, size: Array) -> Array:
    """Numbers that differ from short ones by rounding alone, as these: 0.49999999999999994 as 0.5. `size` is of what
    they are coordinates of."""
    unit = 10.0 ** (9 - np.floor(np.log10(size)))
    short = np.rint(x * unit) / unit
    return np.asarray(np.where(np.abs(short - x) < 1e-13 * np.maximum(size, np.abs(x)), short, x) + 0.0)


def _most_corners(m: int, d: int) -> int:
    """The most corners of d-dimensional polytopes with m planes (McMullen's upper bound theorem)."""
    return math.comb(m - (d + 1) // 2, m - d) + math.comb(m - (d + 2) // 2, m - d)


def _pull(
    face: int, d: int, planes: Sequence[int], done: dict[int, list[int] | None], budget: list[int]
) -> list[int] | None:
    """Simplices of a face of d dimensions, as bits of its corners. None where there are more than the budget."""
    if face.bit_count() == d + 1:
        return [face]
    if face in done:
        return done[face]
    first = face & -face
    candidates = {face & plane for plane in planes} - {face}
    large = sorted((c for c in candidates if c.bit_count() >= d), key=lambda c: (-c.bit_count(), c))
    facets: list[int] = []
    for candidate in large:
        if not any(candidate & facet == candidate for facet in facets):
            facets.append(candidate)
    cut: list[int] | None = []
    for facet in sorted(facets):
        if facet & first:
            continue
        parts = _pull(facet, d - 1, planes, done, budget)
        if parts is None or cut is None or len(cut) + len(parts) > budget[0]:
            cut = None
            break
        cut.extend(first | part for part in parts)
    done[face] = cut
    return cut


def _fits_together(simplices: Sequence[int], planes: Sequence[int]) -> bool:
    """Whether there are no holes: each facet of a simplex, as bits of corners, is that of another, or on a plane."""
    facets: Counter[int] = Counter()
    for simplex in simplices:
        rest = simplex
        while rest:
            corner = rest & -rest
            facets[simplex ^ corner] += 1
            rest ^= corner
    return all(
        count == 2 or (count == 1 and any(facet & plane == facet for plane in planes))
        for facet, count in facets.items()
    )


def _neighbours_together(points: Array) -> npt.NDArray[np.int64]:
    """An order of points (n, d) in which those near each other follow each other: halves, along the widest axis."""
    order = np.arange(len(points))
    stack = [(0, len(points))]
    while stack:
        first, stop = stack.pop()
        if stop - first < 3:
            continue
        part = order[first:stop]
        axis = int(np.ptp(points[part], axis=0).argmax())
        order[first:stop] = part[np.argsort(points[part, axis], kind="stable")]
        middle = (first + stop) // 2
        stack += [(first, middle), (middle, stop)]
    return order


def _far_apart(points: Array, most: int) -> npt.NDArray[np.int64]:
    """Numbers of `most` points (n, d), each the farthest from all before; the first is the farthest from 0."""
    chosen = [int((points**2).sum(axis=1).argmax())]
    nearest = ((points - points[chosen[0]]) ** 2).sum(axis=1)
    while len(chosen) < most:
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, ((points - points[chosen[-1]]) ** 2).sum(axis=1))
    return np.array(chosen)


# -------------------------------------------------------------------- arguments and files


def _lengths(A: Array) -> Array:
    """Lengths of rows, without leaving the range of numbers."""
    largest = np.abs(A).max(axis=1)
    safe = np.where(largest > 0.0, largest, 1.0)
    return np.asarray(largest * np.sqrt(((A / safe[:, None]) ** 2).sum(axis=1)))


def _real(values: npt.ArrayLike, name: str) -> Array:
    try:
        array = np.asarray(values)
        if array.dtype.kind not in "fiu":
            raise TypeError
    except (TypeError, ValueError):
        raise DataError(f"{name} must consist of real numbers, in rows of one length") from None
    numbers: Array = np.array(array, dtype=np.float64)
    if not np.isfinite(numbers).all():
        place = np.argwhere(~np.isfinite(numbers))[0]
        where = f" in row {place[0]}" if len(place) > 1 else ""
        raise DataError(f"{name} must be finite, but holds NaN or infinity{where}")
    if numbers.size and np.abs(numbers).max() > LARGEST:
        raise DataError(f"{name} must not hold numbers beyond {LARGEST:g}")
    return numbers


def _planes(A: npt.ArrayLike, b: npt.ArrayLike) -> tuple[Array, Array]:
    matrix, limits = _real(A, "A"), _real(b, "b")
    if matrix.ndim != 2 or not matrix.size:
        raise DataError(f"A must have shape (planes, coordinates), with at least one of each, got {matrix.shape}")
    if limits.shape != (len(matrix),):
        raise DataError(f"b must have shape ({len(matrix)},), one number per plane of A, got {limits.shape}")
    return matrix, limits


def _names(names: Sequence[str] | None, d: int) -> tuple[str, ...]:
    if names is None:
        return tuple(f"eta_{i}" for i in range(d))
    given = (names,) if isinstance(names, str) else tuple(names)
    if len(given) != d or not all(isinstance(name, str) and name for name in given):
        raise DataError(f"names must be {d} words, one per coordinate, got {given!r}")
    if len(set(given)) != d:
        raise DataError(f"names must differ from each other, got {given!r}")
    return given


def _read_text(path: Path) -> Array:
    """Rows of numbers, separated by spaces or commas; comments after #."""
    rows: list[list[float]] = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise DataError(f"{path}: is not text; a matrix of NumPy has the suffix .npz or .npy") from None
    for number, line in enumerate(lines, 1):
        words = line.split("#", 1)[0].replace(",", " ").split()
        if not words:
            continue
        try:
            row = [float(word) for word in words]
        except ValueError:
            raise DataError(f"{path}, line {number}: must hold numbers only, got {line.strip()[:60]!r}") from None
        if rows and len(row) != len(rows[0]):
            raise DataError(f"{path}, line {number}: has {len(row)} numbers, the lines before it have {len(rows[0])}")
        rows.append(row)
    if not rows:
        raise DataError(f"{path}: holds no numbers")
    return np.array(rows)


def _read_npz(path: Path) -> dict[str, npt.NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files if name in ("A", "b", "names")}
    except (ValueError, EOFError, AttributeError, zipfile.BadZipFile):
        raise DataError(f"{path}: is not an archive of plain arrays") from None


def _read_npy(path: Path) -> npt.NDArray[Any]:
    try:
        loaded = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, zipfile.BadZipFile):
        raise DataError(f"{path}: is not a plain array") from None
    if not isinstance(loaded, np.ndarray):
        raise DataError(f"{path}: is an archive, not one array")
    return loaded
