"""Where two phases have the same Gibbs energy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from quests_zenn._core.checks import positive
from quests_zenn.states.samples import GPA

FloatArray = npt.NDArray[np.float64]

#: Volumes at which Gibbs energies are computed; between them they are cubic, with the exact slope V.
GRID = 200

#: Share of the volumes of a phase by which the grid goes beyond them.
BEYOND = 0.02


@dataclass(frozen=True)
class Coexistence:
    """A line P(T) of two phases.

    Attributes
    ----------
    temperature : array (n,), K
    pressure, pressure_std : array (n,), GPa
        Mean and standard deviation over the members that have the line at this temperature; NaN where fewer than half
        of them do.
    pressure_members : array (M, n), GPa
    volumes : array (n, 2), Å3 per atom
        Of both phases, means over the members.
    extrapolated : array of bool (n,)
        Whether a volume lies outside of the states of its phase, or the temperature outside of those of either.
    """

    temperature: FloatArray
    pressure: FloatArray
    pressure_std: FloatArray
    pressure_members: FloatArray
    volumes: FloatArray
    extrapolated: npt.NDArray[np.bool_]

    @property
    def share_of_members(self) -> FloatArray:
        """(n,) share of the members that have the line at each temperature: those that do not are in no mean."""
        return np.asarray(np.isfinite(self.pressure_members).mean(axis=0))

    def temperature_at(self, pressure: float) -> tuple[float, float]:
        """Temperature at a pressure (GPa) and its standard deviation over the members, K; NaN where there is none."""
        found = []
        for line in self.pressure_members:
            gap = line - pressure
            for i in np.flatnonzero(gap[:-1] * gap[1:] <= 0.0):
                step = gap[i] / (gap[i] - gap[i + 1]) if gap[i] != gap[i + 1] else 0.0
                found.append(float(self.temperature[i] + step * (self.temperature[i + 1] - self.temperature[i])))
                break
        if 2 * len(found) < len(self.pressure_members) or not found:
            return float("nan"), float("nan")
        return float(np.mean(found)), float(np.std(found, ddof=1)) if len(found) > 1 else float("nan")


def coexistence(first: Any, second: Any, temperatures: npt.ArrayLike) -> Coexistence:
    """The line at which two phases, each with a model of its own, have the same Gibbs energy G = F + P V.

    Parameters
    ----------
    first, second : FreeEnergyModel
        Over volumes, with a common zero of energy and entropy and as many members, as `StatesFit.phase_models` are.
    temperatures : array, shape (n,)
        K.

    Returns
    -------
    Coexistence

    Raises
    ------
    ValueError
        If the models do not go together, or a temperature is not positive.
    """
    T = np.atleast_1d(np.asarray(temperatures, np.float64))
    for value in T.tolist():
        positive(value, "a temperature")
    if first.n_members_ != second.n_members_:
        raise ValueError("models of phases must have as many members")
    members = first.n_members_
    P = np.full((members, len(T)), np.nan)
    V = np.full((members, len(T), 2), np.nan)
    for i, kelvin in enumerate(T):
        branches = [_gibbs(model, float(kelvin)) for model in (first, second)]
        for m in range(members):
            found = _crossing(branches[0][m], branches[1][m])
            if found is not None:
                P[m, i], V[m, i, 0], V[m, i, 1] = found
    known = np.isfinite(P).sum(0) * 2 >= members
    mean, std, volumes = np.full(len(T), np.nan), np.full(len(T), np.nan), np.full((len(T), 2), np.nan)
    if known.any():
        mean[known], volumes[known] = np.nanmean(P[:, known], axis=0), np.nanmean(V[:, known], axis=0)
        several = known & (np.isfinite(P).sum(0) > 1)
        std[several] = np.nanstd(P[:, several], axis=0, ddof=1)
    beyond = np.zeros(len(T), bool)
    for k, model in enumerate((first, second)):
        (low, high), (cold, hot) = model.x_range_[0], model.T_range_
        beyond |= (volumes[:, k] < low) | (volumes[:, k] > high) | (cold > T) | (hot < T)
    return Coexistence(T, mean, std, P, volumes, beyond)


def gibbs(model: Any, pressure: float, T: float) -> FloatArray:
    """(M,) Gibbs energy of a phase, eV per atom, by member; NaN where it is not stable in the range of its volumes."""
    from scipy.interpolate import CubicHermiteSpline

    found = []
    for P, G, V in _gibbs(model, T):
        p = pressure / GPA
        found.append(float(CubicHermiteSpline(P, G, V)(p)) if len(P) > 1 and P[0] <= p <= P[-1] else np.nan)
    return np.array(found)


def _gibbs(model: Any, T: float) -> list[tuple[FloatArray, FloatArray, FloatArray]]:
    """For each member P (rising), G and V on the branch on which the phase is stable against compression."""
    low, high = model.x_range_[0]
    span = BEYOND * (high - low)
    V = np.linspace(low - span, high + span, GRID)
    found = model.derivatives(V, np.full(GRID, T), [(0, 0), (1, 0), (2, 0)], members=True)
    branches = []
    for F, slope, curve in zip(found[0, 0], found[1, 0], found[2, 0], strict=True):
        # the longest stretch of positive bulk modulus
        stable = np.flatnonzero(np.diff(np.concatenate([[0], (curve > 0.0).astype(int), [0]])))
        pairs = stable.reshape(-1, 2)
        if not len(pairs):
            branches.append((np.empty(0), np.empty(0), np.empty(0)))
            continue
        a, b = pairs[np.argmax(pairs[:, 1] - pairs[:, 0])]
        P, v = -slope[a:b][::-1], V[a:b][::-1]
        branches.append((P, F[a:b][::-1] + P * v, v))
    return branches


def _crossing(
    a: tuple[FloatArray, FloatArray, FloatArray], b: tuple[FloatArray, FloatArray, FloatArray]
) -> tuple[float, float, float] | None:
    """P (GPa) at which both have the same G, and both volumes; the one nearest to zero if there are several."""
    from scipy.interpolate import CubicHermiteSpline
    from scipy.optimize import brentq

    if min(len(a[0]), len(b[0])) < 2:
        return None
    low, high = max(a[0][0], b[0][0]), min(a[0][-1], b[0][-1])
    if not low < high:
        return None
    G = [CubicHermiteSpline(P, values, V) for P, values, V in (a, b)]
    P = np.linspace(low, high, GRID)
    gap = G[0](P) - G[1](P)
    changes = np.flatnonzero(gap[:-1] * gap[1:] <= 0.0)
    if not len(changes):
        return None
    i = min(changes.tolist(), key=lambda j: abs(P[j] + P[j + 1]))
    p = float(brentq(lambda q: float(G[0](q) - G[1](q)), P[i], P[i + 1]))
    return GPA * p, float(np.interp(p, a[0], a[2])), float(np.interp(p, b[0], b[2]))
