"""Ideal mixing on sublattices: what the free energy of an alloy is where it is dilute, with all its singular slopes."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from quests_zenn._core.checks import DataError, whole_number

FloatArray = npt.NDArray[np.float64]

#: Fraction of a site below which o ln o goes on as a parabola, so that slopes stay finite at the edge of the domain.
FLOOR = 1e-3


class IdealMixing:
    """F = k_B T sum_s w_s o_s ln o_s, with occupations o = P x + c that are linear in the order parameters x.

    A model that is given this learns what is left of F: the logarithms at the edges of the domain, where Monte Carlo is
    hard to run and few rows lie, need not be learned from data. Outside of the domain, and nearer to its edge than
    `FLOOR`, each term goes on as a parabola with the same value, slope and curvature.

    Parameters
    ----------
    P : array, shape (n_species, q)
        One row for each species on each sublattice.
    c : array, shape (n_species,)
    weights : array, shape (n_species,)
        Sites of each sublattice, over the sites that F refers to.

    Raises
    ------
    DataError
        If the arrays do not go together, or hold numbers that make no sense.

    Notes
    -----
    This is the entropy of Bragg and Williams (1934) on as many sublattices as there are. The free energy of any lattice
    model approaches it, but for a part that is linear in o, where one species becomes dilute on all sublattices.
    """

    def __init__(self, P: npt.ArrayLike, c: npt.ArrayLike, weights: npt.ArrayLike) -> None:
        self.P, self.c, self.weights = _numbers(P, "P"), _numbers(c, "c"), _numbers(weights, "weights")
        if self.P.ndim != 2 or not self.P.size or self.c.shape != (len(self.P),) or self.weights.shape != self.c.shape:
            raise DataError(
                f"ideal mixing needs P (n, q), c (n,) and weights (n,), got {self.P.shape}, {self.c.shape} and "
                f"{self.weights.shape}"
            )
        if not (np.isfinite(self.P).all() and np.isfinite(self.c).all() and np.isfinite(self.weights).all()):
            raise DataError("ideal mixing needs finite numbers")
        if (self.weights <= 0.0).any():
            raise DataError("ideal mixing needs positive weights")

    @classmethod
    def sublattices(cls, Q: npt.ArrayLike, n: int | None = None) -> IdealMixing:
        """Of two species on sublattices of one size, whose occupations y give x = Q y.

        Parameters
        ----------
        Q : array, shape (m, m)
            As for `Polytope.from_sublattices`.
        n : int, optional
            The first n rows are the order parameters x; the others are zero. None for all.

        Returns
        -------
        IdealMixing, per site

        Raises
        ------
        DataError
            If Q has no inverse, or fewer rows than n.
        ValueError
            If n is no whole number from 1.
        """
        matrix = _numbers(Q, "Q")
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size or not np.isfinite(matrix).all():
            raise DataError(f"Q must be a square matrix of finite numbers, got the shape {matrix.shape}")
        m = len(matrix)
        if n is not None and whole_number(n, "n", 1) > m:
            raise DataError(f"n must lie between 1 and the {m} rows of Q, got {n!r}")
        if np.linalg.cond(matrix) > 1e10:
            raise DataError("Q has no inverse: its rows depend on each other")
        inverse = np.linalg.inv(matrix)[:, :n]
        return cls(
            np.concatenate([inverse, -inverse]), np.concatenate([np.zeros(m), np.ones(m)]), np.full(2 * m, 1.0 / m)
        )

    @classmethod
    def simplex(cls, q: int) -> IdealMixing:
        """Of q + 1 species on one lattice: x are the fractions of the first q, per site."""
        whole_number(q, "q", 1)
        return cls(np.concatenate([np.eye(q), -np.ones((1, q))]), np.append(np.zeros(q), 1.0), np.ones(q + 1))

    @property
    def n_inputs(self) -> int:
        """q, the order parameters."""
        return int(self.P.shape[1])

    def derivatives(
        self, x: npt.ArrayLike, T: npt.ArrayLike, orders: Sequence[tuple[int, ...]], boltzmann: float
    ) -> dict[tuple[int, ...], FloatArray]:
        """Derivatives of F of any order, in the units of `boltzmann`.

        Parameters
        ----------
        x : array, shape (n, q)
        T : array, shape (n,)
        orders : sequence of tuples of int
            Orders in x_1, ..., x_q and T.
        boltzmann : float

        Returns
        -------
        dict of (n,) arrays

        Raises
        ------
        DataError, ValueError
            If x, or an order, has another number of components.
        """
        points = np.asarray(x, dtype=np.float64)
        if points.ndim != 2 or points.shape[1] != self.n_inputs:
            raise DataError(f"x must have the shape (n, {self.n_inputs}), got {points.shape}")
        for order in orders:
            if len(order) != self.n_inputs + 1 or any(n < 0 or n != int(n) for n in order):
                raise ValueError(f"an order names {self.n_inputs} components of x and T, got {order}")
        o = points @ self.P.T + self.c
        heat = boltzmann * np.asarray(T, dtype=np.float64)
        slopes: dict[int, FloatArray] = {}
        found = {}
        for order in orders:
            *of_x, of_T = order
            if of_T > 1:
                found[order] = np.zeros(len(o))
                continue
            total = sum(of_x)
            if total not in slopes:
                slopes[total] = _x_log_x(o, total)
            factor = boltzmann if of_T else heat
            found[order] = factor * (slopes[total] @ (self.weights * np.prod(self.P ** np.array(of_x), axis=1)))
        return found

    def to_dict(self) -> dict[str, Any]:
        """All that it is, for JSON."""
        return {"P": self.P.tolist(), "c": self.c.tolist(), "weights": self.weights.tolist()}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> IdealMixing:
        """What `to_dict` gave.

        Raises
        ------
        DataError
            If it is nothing of the kind.
        """
        try:
            return cls(document["P"], document["c"], document["weights"])
        except (KeyError, TypeError):
            raise DataError("this is no ideal mixing: P, c and weights are needed") from None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, IdealMixing) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        # tells two apart: a run of active learning knows its model by this
        digest = hashlib.sha256(b"".join(array.tobytes() for array in (self.P, self.c, self.weights))).hexdigest()
        return f"IdealMixing({len(self.P)} occupations of {self.n_inputs} order parameters, {digest[:16]})"


def _numbers(values: npt.ArrayLike, name: str) -> FloatArray:
    try:
        found = np.array(values)
        if found.dtype.kind not in "iuf":
            raise TypeError
        return found.astype(np.float64)
    except (TypeError, ValueError):
        raise DataError(f"ideal mixing needs arrays of numbers; {name} is none") from None


def _x_log_x(o: FloatArray, order: int) -> FloatArray:
    """The derivative of o ln o, with its parabola below `FLOOR`."""
    inside = np.maximum(o, FLOOR)
    gap = np.minimum(o - FLOOR, 0.0)
    if order == 0:
        return np.asarray(inside * np.log(inside) + gap * (np.log(FLOOR) + 1.0) + 0.5 * gap**2 / FLOOR)
    if order == 1:
        return np.asarray(np.log(inside) + 1.0 + gap / FLOOR)
    if order == 2:
        return 1.0 / inside
    value = (-1.0) ** order * math.factorial(order - 2) * inside ** (1 - order)
    return np.where(o >= FLOOR, value, 0.0)
