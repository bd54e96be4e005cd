"""Free energies by other means: splines, thin-plate splines, Gaussian processes; and what asks them all the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.interpolate import NdBSpline, RBFInterpolator, make_interp_spline

Array = np.ndarray

#: What the oracle chooses from: smoothing; and, where it is free, degree of the polynomial and stretch of T. The first
#: of each is taken where it is not (a polynomial of degree 1, the least that there must be, has errors of 8 meV).
SMOOTHINGS = np.logspace(-8, 2, 21)
DEGREES = (2, 1, 3, 4)
STRETCHES = (1.0, 0.5, 2.0, 4.0)


class Surface:
    """An interpolating spline through values on a grid, asked as a fitted model is.

    Parameters
    ----------
    v : (n,) volumes, Å3
    t : (m,) temperatures, K
    f : (n, m) free energies, eV
    degree : int
        Five for smooth fourth derivatives, which critical points need.
    """

    coordinate = "volume"
    n_members_ = 1

    def __init__(self, v: Array, t: Array, f: Array, degree: int = 5) -> None:
        along_v = make_interp_spline(v, f, k=degree, axis=0)
        along_t = make_interp_spline(t, along_v.c, k=degree, axis=1)
        # coefficients come with the axis of the interpolation first
        self.spline = NdBSpline((along_v.t, along_t.t), np.ascontiguousarray(along_t.c.T), k=degree)
        self.x_range_ = np.array([[v[0], v[-1]]])
        self.T_range_ = np.array([t[0], t[-1]])

    def derivatives(
        self, x: Any, T: Any, orders: Sequence[tuple[int, int]], members: bool = False
    ) -> dict[tuple[int, int], Array]:
        """As of a model; extrapolated from the outermost pieces."""
        x, T = np.broadcast_arrays(np.asarray(x, np.float64), np.asarray(T, np.float64))
        points = np.stack([x.ravel(), T.ravel()], axis=1)
        found = {}
        for order in orders:
            value = self.spline(points, nu=order, extrapolate=True).reshape(x.shape)
            found[order] = value[None] if members else value
        return found

    def extrapolates(self, x: Any, T: Any) -> Array:
        """Whether points lie outside of the grid."""
        x, T = np.asarray(x, np.float64), np.asarray(T, np.float64)
        (low, high), (cold, hot) = self.x_range_[0], self.T_range_
        return (x < low) | (x > high) | (cold > T) | (hot < T)


@dataclass(frozen=True)
class Answer:
    """Free energies (n, m) on the grid that was asked about, eV; standard deviations of them and of P (GPa), if any."""

    f: Array
    f_std: Array | None = None
    p_std: Array | None = None
    note: str = ""


@dataclass(frozen=True)
class Asked:
    """Data to be fitted, and the grid that is asked about.

    x, T, F: rows. v (n,), t (m,): the grid. baseline: derivatives of the single equation of state fitted to the rows, a
    function of points and orders. error: of free energies on the grid, for the oracle.
    """

    x: Array
    T: Array
    F: Array
    v: Array
    t: Array
    baseline: Callable[[Array, Array, list[tuple[int, int]]], dict[tuple[int, int], Array]]
    error: Callable[[Array], float]

    def scaled(self, x: Array, T: Array) -> Array:
        """Points (n, 2) in units of half the ranges of the grid."""
        v, t = self.v, self.t
        return np.stack([2.0 * (x - v[0]) / (v[-1] - v[0]) - 1.0, 2.0 * (T - t[0]) / (t[-1] - t[0]) - 1.0], axis=1)

    def grid(self) -> tuple[Array, Array]:
        """All points of the grid, flat."""
        v, t = np.meshgrid(self.v, self.t, indexing="ij")
        return v.ravel(), t.ravel()

    def on_grid(self, orders: tuple[int, int] = (0, 0)) -> Array:
        """The single equation of state on the grid."""
        return self.baseline(*self.grid(), [orders])[orders].reshape(len(self.v), len(self.t))


def bicubic(asked: Asked) -> Answer:
    """A cubic spline in V and T through rows that are a grid themselves."""
    v, t = np.unique(asked.x), np.unique(asked.T)
    table = np.full((len(v), len(t)), np.nan)
    table[np.searchsorted(v, asked.x), np.searchsorted(t, asked.T)] = asked.F
    spline = Surface(v, t, table, degree=3)
    return Answer(spline.derivatives(*asked.grid(), [(0, 0)])[0, 0].reshape(len(asked.v), len(asked.t)))


def thin_plate(physics: bool, free: bool) -> Callable[[Asked], Answer]:
    """A thin-plate spline whose smoothing has the smallest true error, of F or of what physics leaves of it.

    Where it is free, the degree of its polynomial and the stretch of T are those of the smallest true error, too.
    """

    def fit(asked: Asked) -> Answer:
        points, grid = asked.scaled(asked.x, asked.T), asked.scaled(*asked.grid())
        shape = len(asked.v), len(asked.t)
        base, rows = np.zeros(shape), asked.F
        if physics:
            base, rows = asked.on_grid(), asked.F - asked.baseline(asked.x, asked.T, [(0, 0)])[0, 0]
        best: tuple[float, Array, str] | None = None
        for degree in DEGREES if free else DEGREES[:1]:
            for stretch in STRETCHES if free else STRETCHES[:1]:
                wide = np.array([1.0, stretch])
                for smoothing in SMOOTHINGS:
                    spline = RBFInterpolator(
                        points * wide, rows, kernel="thin_plate_spline", smoothing=smoothing, degree=degree
                    )
                    f = base + spline(grid * wide).reshape(shape)
                    error = asked.error(f)
                    if best is None or error < best[0]:
                        best = error, f, f"degree {degree}, stretch {stretch:g}, smoothing {smoothing:.1e}"
        assert best is not None
        return Answer(best[1], note=best[2])

    return fit


def gaussian_process(seed: int) -> Callable[[Asked], Answer]:
    """A Gaussian process for what physics leaves of F; lengths, height and noise of the largest likelihood."""

    def fit(asked: Asked) -> Answer:
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

        points, grid = asked.scaled(asked.x, asked.T), asked.scaled(*asked.grid())
        shape = len(asked.v), len(asked.t)
        rows = 1e3 * (asked.F - asked.baseline(asked.x, asked.T, [(0, 0)])[0, 0])  # meV
        kernel = ConstantKernel(10.0, (1e-4, 1e6)) * RBF([0.5, 0.5], (0.03, 30.0)) + WhiteKernel(1.0, (1e-6, 1e3))
        model = GaussianProcessRegressor(kernel, n_restarts_optimizer=8, random_state=seed).fit(points, rows)
        mean = model.predict(grid)
        height = model.kernel_.k1.k1.constant_value
        lengths = model.kernel_.k1.k2.length_scale
        cross = height * np.exp(-0.5 * (((grid[:, None] - points[None]) / lengths) ** 2).sum(-1))
        # covariance of the slope in V at a point with the values of the rows, and of the slope with itself
        slope = -(grid[:, None, 0] - points[None, :, 0]) / lengths[0] ** 2 * cross
        solved = [np.linalg.solve(model.L_, part.T) for part in (cross, slope)]
        f_var = height - (solved[0] ** 2).sum(0)
        p_var = height / lengths[0] ** 2 - (solved[1] ** 2).sum(0)
        per_volume = 2.0 / (asked.v[-1] - asked.v[0])
        return Answer(
            asked.on_grid() + 1e-3 * mean.reshape(shape),
            1e-3 * np.sqrt(np.maximum(f_var, 0.0)).reshape(shape),
            160.2176634 * 1e-3 * per_volume * np.sqrt(np.maximum(p_var, 0.0)).reshape(shape),
            note=str(model.kernel_),
        )

    return fit
