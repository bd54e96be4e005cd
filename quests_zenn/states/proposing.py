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
    Candidates lie in the convex hull of the states, a tenth wider.

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
        ``volume``, ``temperature``, ``pressure_std`` (GPa) and ``extrapolated`` of each, most wanted first.

    Raises
    ------
    ValueError
        If the model is no committee.
    """
    count = whole_number(n, "n", 1)
    model = fit.model
    if model.n_members_ < 2:
        raise ValueError("a state is proposed where members of a committee disagree; this model has one member")
    known = np.array([[state.volume, state.temperature] for state in states])
    domain = _domain(known)
    axes = [np.linspace(low, high, GRID) for low, high in domain.bounds]
    candidates = np.column_stack([axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")])
    candidates = candidates[domain.contains(candidates)]
    surface = _Surface(model)
    context = Context(
        domain,
        candidates,
        T=1.0,
        known_x=known,
        known_mu=-np.column_stack([model.pressure(*known.T), model.entropy(*known.T)]) if len(known) else None,
        model=surface,
        rng=random_state,
        only_candidates=True,
        min_distance=APART,
    )
    points, _ = propose(context, {"committee": count}, filtered=False, fill=False)
    found = []
    for V, T in points.tolist():
        _, std = surface.pressure(V, T)
        found.append(
            {"volume": V, "temperature": T, "pressure_std": std, "extrapolated": bool(model.extrapolates(V, T))}
        )
    return found


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

    def pressure(self, V: float, T: float) -> tuple[float, float]:
        """Mean and standard deviation, GPa."""
        from quests_zenn.states.samples import GPA

        P = -GPA * self.model.derivatives(np.array([V]), np.array([T]), [(1, 0)], members=True)[1, 0][:, 0]
        return float(P.mean()), float(P.std(ddof=1))
