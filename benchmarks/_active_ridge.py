"""A ridge polynomial in invariants, fitted to chemical potentials: what a free energy must match at equal rows."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

#: Highest power of the composition, and highest degree in all other order parameters.
DEGREES = ((4, 4), (6, 4), (10, 4), (4, 6), (6, 6), (10, 6), (6, 8), (8, 8), (10, 8))
ALPHAS = tuple(10.0 ** np.arange(-9.0, 1.0))

#: Parts of the cross-validation.
PARTS = 5


@cache
def terms(degrees: tuple[int, ...], powers: int, degree: int) -> list[tuple[int, ...]]:
    """Exponents of products of invariants: the first up to `powers`, the others of degree up to `degree` in all."""
    found: list[tuple[int, ...]] = [()]
    for d in degrees[1:]:
        found = [(*head, k) for head in found for k in range(degree // d + 1)]
        found = [e for e in found if sum(a * b for a, b in zip(e, degrees[1:], strict=False)) <= degree]
    return [(k, *rest) for k in range(powers + 1) for rest in found if k or any(rest)]


class Ridge:
    """g(x) = sum of products of invariants h(x), its gradient fitted to mu by least squares.

    Degrees and penalty come from cross-validation in five parts; components count by their spread.

    Parameters
    ----------
    invariants : object
        Called with x (n, q) it gives h (n, m), the first of which is the composition; its ``gradient`` gives dh/dx
        (n, m, q); ``exponents`` and ``outputs`` tell their degrees.
    """

    def __init__(self, invariants: Any) -> None:
        self.invariants = invariants
        size = invariants.exponents.sum(1)
        self.degrees = tuple(int(size[invariants.outputs == j].max()) for j in range(invariants.n_outputs))

    def _design(self, x: Array, form: tuple[int, int]) -> Array:
        """Gradients of all products, (n, q, terms)."""
        h, slopes = self.invariants(x) - self.centre, self.invariants.gradient(x)
        h, slopes = h / self.scale, slopes / self.scale[:, None]
        exponents = np.array(terms(self.degrees, *form))
        powers = h[:, :, None] ** np.arange(exponents.max() + 1)
        columns = np.zeros((len(h), slopes.shape[2], len(exponents)))
        for j in range(h.shape[1]):
            own = exponents[:, j]
            factor = own * powers[:, j, np.maximum(own - 1, 0)]
            for k in range(h.shape[1]):
                if k != j:
                    factor = factor * powers[:, k, exponents[:, k]]
            columns += slopes[:, j, :, None] * factor[:, None, :]
        return columns

    def fit(self, x: Array, mu: Array, seed: int = 0) -> Ridge:
        """To rows x (n, q), mu (n, q)."""
        h = self.invariants(x)
        # only the composition is moved: products of the others keep their degree
        self.centre = np.where(np.arange(h.shape[1]) == 0, h.mean(0), 0.0)
        self.scale = np.sqrt(np.mean(np.square(h - self.centre), axis=0))
        self.spread = mu.std(0)
        part = np.random.default_rng(seed).permutation(len(x)) % PARTS
        best = np.inf
        for form in DEGREES:
            design = self._design(x, form) / self.spread[:, None]
            wanted = mu / self.spread
            errors = np.zeros(len(ALPHAS))
            for p in range(PARTS):
                weights = self._solve(design[part != p], wanted[part != p], ALPHAS)
                gaps = np.einsum("nqt,ta->nqa", design[part == p], weights) - wanted[part == p, :, None]
                errors += np.square(gaps).sum((0, 1))
            if errors.min() < best:
                best, self.form, self.alpha = float(errors.min()), form, ALPHAS[int(np.argmin(errors))]
        self.terms = len(terms(self.degrees, *self.form))
        design = self._design(x, self.form) / self.spread[:, None]
        self.weights = self._solve(design, mu / self.spread, (self.alpha,))[:, 0]
        return self

    def _solve(self, design: Array, wanted: Array, alphas: tuple[float, ...]) -> Array:
        """Weights for several penalties, (terms, penalties)."""
        a = design.reshape(-1, design.shape[-1])
        size = np.linalg.norm(a, axis=0)
        size[size == 0.0] = 1.0
        values, vectors = np.linalg.eigh((a / size).T @ (a / size))
        right = vectors.T @ ((a / size).T @ wanted.ravel())
        weights = [vectors @ (right / (np.maximum(values, 0.0) + alpha)) for alpha in alphas]
        return np.stack(weights, axis=1) / size[:, None]

    def potential(self, x: Array) -> Array:
        """mu (n, q)."""
        return np.asarray(self._design(x, self.form) @ self.weights)
