"""Which state to simulate next, and where phases coexist."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq

from quests_zenn.states import Coexistence, StatesFit, coexistence, fit_states, propose_states
from quests_zenn.states.samples import BOLTZMANN, GPA

from .test_fitting import known, states, two_phases

pytestmark = pytest.mark.extra
pytest.importorskip("torch")


def old_of(of: list) -> np.ndarray:
    return np.array([[state.volume, state.temperature] for state in of])


@pytest.mark.filterwarnings("ignore:.*points lie outside the data")
def test_a_hole_in_the_grid_is_proposed() -> None:
    there = [state for state in states(error=2e-3) if state.volume < 11.7 or state.temperature < 500.0]
    fit = fit_states(there)
    found = propose_states(fit, there, 3)
    assert len(found) == 3
    # members disagree most there, in units of how far P and S spread
    V, T = (a.ravel() for a in np.meshgrid(np.linspace(11.2, 12.0, 9), np.linspace(300.0, 900.0, 9)))
    spread = [np.std([s.pressure for s in there]), np.std(fit.model.entropy(*old_of(there).T))]

    def disagreement(V: np.ndarray, T: np.ndarray) -> np.ndarray:
        parts = [getattr(fit.model, name)(V, T, std=True)[1] for name in ("pressure", "entropy")]
        return sum((part / unit) ** 2 for part, unit in zip(parts, spread, strict=True))

    first = found[0]
    assert disagreement(np.array([first["volume"]]), np.array([first["temperature"]]))[0] > disagreement(V, T).max()
    points = np.array([[entry["volume"], entry["temperature"]] for entry in found])
    old = old_of(there)
    every = np.vstack([old, points])
    scale = np.ptp(old, axis=0)
    for i, point in enumerate(points):
        others = np.delete(every, len(old) + i, axis=0)
        assert (np.sqrt((((others - point) / scale) ** 2).sum(1)) >= 0.07).all()
    assert found == propose_states(fit, there, 3)


def test_a_single_member_cannot_disagree() -> None:
    from quests_zenn.zenn import ZENN

    one = ZENN(1, thermal="classical", hidden=(), n_members=1, random_state=0, verbose=False)
    with pytest.raises(ValueError, match="one member"):
        propose_states(fit_states(states(), one), states())


def test_the_line_of_two_known_phases() -> None:
    of, H = two_phases(0.8, -2.0)
    fit = fit_states(of, entropies=H)
    T = np.array([600.0, 900.0])
    line = coexistence(*fit.phase_models, T)
    for kelvin, P, V, std in zip(T, line.pressure, line.volumes, line.pressure_std, strict=True):

        def volume(P: float, scale: float, kelvin: float = kelvin) -> float:
            return brentq(lambda v: known(v / scale, kelvin)["P"] / scale - P, 10.0, 16.0)

        def gap(P: float, kelvin: float = kelvin) -> float:
            a, b = volume(P, 1.0), volume(P, 1.05)
            first = known(a, kelvin)["F"] + P / GPA * a
            second = known(b / 1.05, kelvin)["F"] + 0.05 + 3 * BOLTZMANN * kelvin * np.log(0.7) + P / GPA * b
            return float(first - second)

        exact = brentq(gap, -20.0, 20.0)
        assert abs(P - exact) < 0.6
        assert std > 0.0
        assert pytest.approx([volume(exact, 1.0), volume(exact, 1.05)], abs=0.06) == V
    assert line.pressure[1] > line.pressure[0]  # the second has more entropy and more volume
    middle = float(line.pressure.mean())
    kelvin, std = line.temperature_at(middle)
    assert 600.0 < kelvin < 900.0
    assert std > 0.0
    assert np.isnan(line.temperature_at(1e3)).all()


def test_phases_that_never_meet() -> None:
    of, H = two_phases(0.8, -2.0)
    fit = fit_states(of, entropies=H)
    for model in fit.phase_models[1:]:
        model.shift_ += 10.0
    line = coexistence(*fit.phase_models, [600.0])
    assert isinstance(line, Coexistence)
    assert np.isnan(line.pressure).all()
    assert line.share_of_members.tolist() == [0.0]
    assert np.isnan(line.volumes).all()
    with pytest.raises(ValueError, match="must be positive"):
        coexistence(*fit.phase_models, [-1.0])


class Disagreeing:
    """Members that differ in P by the spread of P at large volumes, and in S by a third of its spread at small ones."""

    n_members_ = 2
    slope_P, slope_S = 0.1, 1e-7  # of P in V (eV/Å6) and S in T (eV/K2)

    def derivatives(self, x, T, orders, members=False):
        V, T = np.asarray(x, np.float64), np.asarray(T, np.float64)
        sign = np.array([[1.0], [-1.0]])
        found = {order: np.zeros((2, len(V))) for order in orders}
        for order in found:
            if order == (1, 0):
                found[order] = self.slope_P * (V - 11.8) + sign * 0.05 * (V - 11.2)
            if order == (0, 1):
                found[order] = -self.slope_S * T + sign * 1e-5 * (12.4 - V)
        return found if members else {order: values.mean(0) for order, values in found.items()}

    def pressure(self, V, T):
        return -GPA * self.derivatives(V, T, [(1, 0)])[1, 0]

    def entropy(self, V, T):
        return -self.derivatives(V, T, [(0, 1)])[0, 1]

    def extrapolates(self, V, T):
        return False


def test_pressures_and_entropies_count_in_units_of_their_spread() -> None:
    there = states()
    model = Disagreeing()
    fit = StatesFit(model, None, np.ones(16), 16.0, (11.8, 300.0), [model], {})
    assert propose_states(fit, there)[0]["volume"] > 12.2
