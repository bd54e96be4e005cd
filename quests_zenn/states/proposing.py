"""Which state to simulate next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from quests_zenn._core.checks import whole_number
from quests_zenn.sampling import Context, Polytope, propose
from quests_zenn.states.fitting import StatesFit
from quests_zenn.states.grouping import State
from quests_zenn.states.samples import GPA

FloatArray = npt.NDArray[np.float64]

#: Candidates in each direction.
GRID = 41

#: By how much the region of the states is widened.
WIDER = 1.1

#: New states keep this distance from those that are there, and from each other, as a share of both ranges.
APART = 0.08


def propose_states(fit: StatesFit, states: Sequence[State], n: int = 1, random_state: int = 0) -> list[dict[str, Any]]:
    """States at which the committee disagrees most: their pressures and entropies, each in units of their spread.

    The criterion ``committee`` of `quests_zenn.sampling`, with V and T as coordinates: derivatives of F are -P and -S.
    Candidates lie in the convex hull of the states, of each phase apart, a tenth wider.

    Parameters
    ----------
    fit : StatesFit
        Of two members or more.
    states : sequence of State
        Those of the fit.
    n : int
        How many to name; fewer where no more keep their distance from what is there.
    random_state : int

    Returns
    -------
    list of dict
        ``volume``, ``temperature``, ``phase``, ``pressure_std`` (GPa) and ``extrapolated`` of each, most wanted first.

    Raises
    ------
    ValueError
        If the model is no committee.
    """
    count = whole_number(n, "n", 1)
    if fit.model.n_members_ < 2:
        raise ValueError("a state is proposed where members of a committee disagree; this model has one member")
    found = []
    for phase, model in enumerate(fit.phase_models):
        mine = [state for state in states if state.phase == phase]
        known = np.array([[state.volume, state.temperature] for state in mine])
        mu = -np.column_stack([np.asarray(model.pressure(*known.T)) / GPA, np.asarray(model.entropy(*known.T))])
        domain = _domain(known)
        axes = [np.linspace(low, high, GRID) for low, high in domain.bounds]
        candidates = np.column_stack([axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")])
        surface = _Surface(model)
        context = Context(
            domain,
            candidates[domain.contains(candidates)],
            T=1.0,
            known_x=known,
            known_mu=mu,
            model=surface,
            rng=random_state,
            only_candidates=True,
            min_distance=APART,
        )
        points, _ = propose(context, {"committee": count}, filtered=False, fill=False)
        for V, T in points.tolist():
            std = surface.slopes(V, T).std(axis=0, ddof=1)
            entry = {
                "volume": V,
                "temperature": T,
                "phase": phase,
                "pressure_std": GPA * float(std[0]),
                "extrapolated": bool(model.extrapolates(V, T)),
            }
            found.append((float(((std / mu.std(axis=0)) ** 2).sum()), entry))
    return [entry for _, entry in sorted(found, key=lambda pair: -pair[0])[:count]]


def _domain(known: FloatArray) -> Polytope:
    """Convex hull of states, a little wider; a box where they lie on a line."""
    from scipy.spatial import ConvexHull, QhullError

    low, high = known.min(0), known.max(0)
    width = np.where(high > low, high - low, 0.05 * np.abs(high))
    centre = 0.5 * (low + high)
    scaled = (known - centre) / width
    box = Polytope.box(np.maximum(centre - 0.5 * WIDER * width, 0.5 * low), centre + 0.5 * WIDER * width)
    try:
        hull = ConvexHull(scaled).equations
    except (QhullError, ValueError):
        return box
    # n . (x - c) / w + d <= 0, drawn apart about the centre
    A = hull[:, :2] / width
    b = -hull[:, 2] * WIDER + A @ centre
    return Polytope(np.vstack([A, box.A]), np.concatenate([b, box.b]))


class _Surface:
    """F(V, T) as a free energy of two coordinates, as criteria see it."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def derivatives(
        self, x: Any, T: Any, orders: Sequence[tuple[int, ...]], members: bool = False
    ) -> dict[tuple[int, ...], FloatArray]:
        """Derivatives with respect to V and T; the temperature of the criteria is none."""
        x = np.asarray(x, np.float64)
        found = self.model.derivatives(x[:, 0], x[:, 1], [order[:2] for order in orders], members=members)
        return {order: found[order[:2]] for order in orders}

    def slopes(self, V: float, T: float) -> FloatArray:
        """(M, 2) derivatives of F with respect to V and T at one state."""
        found = self.model.derivatives(np.array([V]), np.array([T]), [(1, 0), (0, 1)], members=True)
        return np.column_stack([found[1, 0][:, 0], found[0, 1][:, 0]])
