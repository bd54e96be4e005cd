"""A free energy from states: energies and pressures, entropies where asked for, rows weighted by their scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from quests_zenn._core.checks import DataError, one_of
from quests_zenn.sampling.weights import (
    DEFAULT_CLIP,
    KINDS,
    effective_sample_size,
    group_scores,
    row_weights,
)
from quests_zenn.states.entropies import StateEntropies, name_of
from quests_zenn.states.grouping import State
from quests_zenn.states.samples import BOLTZMANN

FloatArray = npt.NDArray[np.float64]

#: Fits in turn of the model and of the link between information entropy and entropy.
TURNS = 3


@dataclass(frozen=True)
class EntropyLink:
    """S / k_B = c H + 3/2 ln T + s0, fitted to the entropies of a model.

    Attributes
    ----------
    c, c_error : float
        1 if information entropy were thermodynamic entropy.
    s0 : float, k_B
        Holds the constant of S that energies and pressures leave open.
    rms, worst : float, k_B per atom
        What is left over.
    r2 : float
        Share of the variance of S - 3/2 k_B ln T that H explains.
    """

    c: float
    c_error: float
    s0: float
    rms: float
    worst: float
    r2: float

    def entropy(self, H: npt.ArrayLike, T: npt.ArrayLike) -> FloatArray:
        """S, k_B per atom."""
        return self.c * np.asarray(H, np.float64) + 1.5 * np.log(np.asarray(T, np.float64)) + self.s0


@dataclass(frozen=True)
class StatesFit:
    """A model fitted to states.

    Attributes
    ----------
    model : FreeEnergyModel
        F(V, T), eV per atom, the kinetic part included.
    link : EntropyLink or None
        None where no entropies were given.
    weights : array (S,)
        Of the states, mean 1.
    effective_sample_size : float
    """

    model: Any
    link: EntropyLink | None
    weights: FloatArray
    effective_sample_size: float


def state_weights(
    entropies: StateEntropies,
    kind: str = "uniform",
    clip: tuple[float, float] = DEFAULT_CLIP,
    jobs: int | None = None,
) -> FloatArray:
    """Weights (S,) of states from their environments, see `row_weights`. Averages inside a state are not touched."""
    one_of(kind, "kind", KINDS)
    if kind == "uniform":
        return np.ones(len(entropies.H))
    groups = np.repeat(np.arange(len(entropies.H)), entropies.n_environments)
    scores = group_scores(np.concatenate(entropies.environments), groups, entropies.bandwidth, jobs=jobs)
    return row_weights(scores.density if kind == "density" else scores.novel, kind, clip=clip)


def link_entropy(H: FloatArray, T: FloatArray, S: FloatArray, error: FloatArray, weights: FloatArray) -> EntropyLink:
    """Least squares for c and s0, S in k_B per atom; rows count by their weights and errors."""
    y = S - 1.5 * np.log(T)
    w = weights / np.maximum(error, 1e-3 * max(float(np.std(H)), 1e-12)) ** 2
    design = np.column_stack([H, np.ones(len(H))])
    normal = design.T @ (w[:, None] * design)
    if np.linalg.cond(normal) > 1e14:
        raise DataError("all states have the same information entropy; there is nothing to link")
    c, s0 = np.linalg.solve(normal, design.T @ (w * y))
    left = y - design @ [c, s0]
    rms = float(np.sqrt(np.average(left**2, weights=weights)))
    spread = float(np.average((y - np.average(y, weights=weights)) ** 2, weights=weights))
    deviation = math.sqrt(np.average((H - np.average(H, weights=weights)) ** 2, weights=weights))
    c_error = rms / (deviation * math.sqrt(max(len(H) - 2, 1))) if deviation > 0.0 else math.inf
    return EntropyLink(
        float(c),
        c_error,
        float(s0),
        rms,
        float(np.abs(left).max()),
        1.0 - rms**2 / spread if spread > 0.0 else math.nan,
    )


def fit_states(
    states: Sequence[State],
    model: Any = None,
    *,
    entropies: StateEntropies | None = None,
    weights: npt.ArrayLike | None = None,
    entropy_as_target: bool = False,
) -> StatesFit:
    """Fit F(V, T) to mean energies and pressures of states, each with its error.

    Parameters
    ----------
    states : sequence of State
    model : FreeEnergyModel, optional
        By default `ZENN` with one configuration, an equation of state and classical vibrations, as classical dynamics
        has them, and no networks: a grid of few volumes cannot tell them what to do between.
    entropies : StateEntropies, optional
        To compare with the entropies of the model: `EntropyLink`.
    weights : array, shape (S,), optional
        Of the states; uniform by default. See `state_weights`.
    entropy_as_target : bool
        Whether S = c k_B H + 3/2 k_B ln T + s0 is fitted as well: model and c, s0 in turn.

    Returns
    -------
    StatesFit

    Raises
    ------
    DataError
        If energies and pressures are missing, or states are too few.
    ValueError
        If an argument makes no sense.
    """
    if entropy_as_target and entropies is None:
        raise ValueError("entropy_as_target needs entropies")
    V, T = (np.array([getattr(state, name) for state in states]) for name in ("volume", "temperature"))
    targets, errors = {}, {}
    for symbol, name in (("U", "internal_energy"), ("P", "pressure")):
        values = np.array([getattr(state, name) for state in states])
        if np.isnan(values).all():
            continue
        targets[symbol] = values
        found = np.array([getattr(state, f"{name}_error") for state in states])
        usable = np.isfinite(found) & (found > 0.0)
        if usable.sum() * 2 >= len(found):  # few known errors tell nothing of the others: learned, then
            errors[symbol] = np.where(usable, found, np.median(found[usable]))
    if not targets:
        raise DataError(f"frames have neither energy nor stress ({name_of(states[0])}): nothing to fit")
    rows = np.ones(len(states)) if weights is None else np.asarray(weights, dtype=np.float64)
    if rows.shape != (len(states),) or not (np.isfinite(rows).all() and (rows > 0.0).all()):
        raise ValueError(f"weights must be {len(states)} positive numbers, got {weights!r}")
    rows = rows / rows.mean()
    if model is None:
        from quests_zenn.zenn import ZENN

        model = ZENN(1, thermal="classical", hidden=(), verbose=False)
    link = None
    for turn in range(TURNS if entropy_as_target else 1):
        more_targets, more_errors = dict(targets), dict(errors)
        if turn:
            assert link is not None
            assert entropies is not None
            more_targets["S"] = BOLTZMANN * link.entropy(entropies.H, T)
            more_errors["S"] = BOLTZMANN * np.hypot(link.c * entropies.error, max(link.rms, 1e-3))
        model.fit(V, T, **more_targets, errors=more_errors or None, sample_weight=rows)
        if entropies is not None:
            S = np.asarray(model.entropy(V, T)) / BOLTZMANN
            link = link_entropy(entropies.H, T, S, entropies.error, rows)
    return StatesFit(model, link, rows, effective_sample_size(rows))
