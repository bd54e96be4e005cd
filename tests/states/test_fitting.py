"""Free energies of states whose free energy is known; the link between information entropy and entropy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from quests_zenn._core.checks import DataError
from quests_zenn.states import coexistence, state_weights
from quests_zenn.states.entropies import StateEntropies
from quests_zenn.states.fitting import fit_states, link_entropy
from quests_zenn.states.grouping import State
from quests_zenn.states.samples import BOLTZMANN, GPA

pytestmark = pytest.mark.extra


def known(V: Any, T: Any) -> dict[str, Any]:
    """Classical solid: E_0 + B (V - V_0)^2 / (2 V_0), theta = 300 K (V / V_0)^-2, per atom in eV, Å3 and K."""
    V0, B = 11.8, 140.0 / GPA
    theta = 300.0 * (V / V0) ** -2.0
    return {
        "F": -3.5 + 0.5 * B * (V - V0) ** 2 / V0 + 3.0 * BOLTZMANN * T * np.log(theta / T),
        "U": -3.5 + 0.5 * B * (V - V0) ** 2 / V0 + 3.0 * BOLTZMANN * T,
        "P": GPA * (-B * (V - V0) / V0 + 6.0 * BOLTZMANN * T / V),
        "S": 3.0 - 3.0 * np.log(theta / T),  # k_B
    }


def states(error: float = 1e-4, seed: int = 0) -> list[State]:
    rng, made = np.random.default_rng(seed), []
    for V in (11.2, 11.6, 12.0, 12.4):
        for T in (300.0, 600.0, 900.0, 1200.0):
            exact = known(V, T)
            made.append(
                State(
                    V, T, [], 100, 108.0, exact["U"] + error * rng.normal(), error,
                    exact["P"] + 0.05 * rng.normal(), 0.05, 1.0, True,
                )
            )  # fmt: skip
    return made


def informed(of: list[State], c: float, s0: float, noise: float = 0.0) -> StateEntropies:
    """Entropies H that are linked by S = H c + 3/2 ln T + s0."""
    V, T = (np.array([getattr(state, name) for state in of]) for name in ("volume", "temperature"))
    H = (known(V, T)["S"] - 1.5 * np.log(T) - s0) / c + noise * np.random.default_rng(1).normal(size=len(of))
    n = len(of)
    return StateEntropies(H, np.full(n, max(noise, 0.01)), 1000, np.ones(n, int), np.full(n, 10), 0.015, [])


def test_a_classical_solid_is_found() -> None:
    pytest.importorskip("torch")
    fit = fit_states(states())
    V, T = np.array([11.4, 11.8, 12.2]), np.array([450.0, 750.0, 1050.0])
    exact = known(V, T)
    np.testing.assert_allclose(fit.model.internal_energy(V, T), exact["U"], atol=5e-4)
    np.testing.assert_allclose(fit.model.pressure(V, T), exact["P"], atol=0.1)
    S = fit.model.entropy(V, T) / BOLTZMANN
    np.testing.assert_allclose(S - S[0], exact["S"] - exact["S"][0], atol=0.03)
    np.testing.assert_allclose(fit.model.heat_capacity(V, T) / BOLTZMANN, 3.0, atol=0.1)
    assert fit.link is None
    assert fit.effective_sample_size == 16.0


def test_the_link_finds_c() -> None:
    pytest.importorskip("torch")
    fit = fit_states(states(), entropies=informed(states(), 0.7, -3.0))
    assert fit.link is not None
    assert fit.link.c == pytest.approx(0.7, abs=0.02)
    assert fit.link.r2 > 0.999
    assert fit.link.rms < 0.02


@pytest.mark.slow
def test_entropies_as_targets_help_where_energies_are_noisy() -> None:
    pytest.importorskip("torch")
    noisy = states(error=0.02)
    V, T = np.array([11.2, 12.4]), np.array([300.0, 300.0])
    exact = known(V, T)["S"]
    wrong = []
    for target in (False, True):
        fit = fit_states(noisy, entropies=informed(noisy, 1.0, -3.0), entropy_as_target=target)
        S = fit.model.entropy(V, T) / BOLTZMANN
        wrong.append(abs((S[1] - S[0]) - (exact[1] - exact[0])))
    assert wrong[1] < 0.1
    assert wrong[1] < wrong[0] + 0.02


def two_phases(c: float, s0: float, noise: float = 0.0) -> tuple[list[State], StateEntropies]:
    """A second phase of larger volume, energy and entropy: theta is 0.7 times as large, E 0.05 eV higher, V0 5 %."""
    rng = np.random.default_rng(3)
    made, S = [], []
    for phase, volumes in enumerate(((11.4, 11.8, 12.2), (12.0, 12.4, 12.8))):
        for V in volumes:
            for T in (400.0, 700.0, 1000.0):
                scaled = V / (1.05 if phase else 1.0)
                exact = known(scaled, T)
                U = exact["U"] + (0.05 if phase else 0.0)
                P = exact["P"] / (1.05 if phase else 1.0)
                S.append(exact["S"] - (3.0 * np.log(0.7) if phase else 0.0))
                made.append(State(V, T, [], 100, 108.0, U + 1e-4 * rng.normal(), 1e-4, P, 0.05, 1.0, True, phase))
    T = np.array([state.temperature for state in made])
    H = (np.array(S) - 1.5 * np.log(T) - s0) / c + noise * rng.normal(size=len(S))
    n = len(made)
    return made, StateEntropies(H, np.full(n, max(noise, 1e-3)), 1000, np.ones(n, int), np.full(n, 10), 0.015, [])


@pytest.mark.slow
@pytest.mark.parametrize("target", [False, True])
def test_two_phases_are_compared_by_their_information_entropies(target: bool) -> None:
    pytest.importorskip("torch")
    of, H = two_phases(0.8, -2.0)
    fit = fit_states(of, entropies=H, entropy_as_target=target, reference=(11.8, 400.0))
    assert fit.link is not None
    assert fit.link.c == pytest.approx(0.8, abs=0.02)
    assert fit.model.n_configurations == 2
    assert fit.model.coherence == 108.0
    assert fit.reference == (11.8, 400.0)
    V, T = 12.2, 700.0
    exact = known(np.array([V, V / 1.05]), T)
    each = fit.model.configurations(V, T)
    assert (each["S"][1] - each["S"][0]) / BOLTZMANN == pytest.approx(
        exact["S"][1] - 3.0 * np.log(0.7) - exact["S"][0], abs=0.06
    )
    zero = known(11.8, 400.0)["S"]
    assert each["S"][0] / BOLTZMANN == pytest.approx(exact["S"][0] - zero, abs=0.05)
    assert each["F"][1] - each["F"][0] == pytest.approx(
        exact["F"][1] + 0.05 + 3 * BOLTZMANN * T * np.log(0.7) - exact["F"][0], abs=0.003
    )
    assert fit.phase_models[0].entropy(11.8, 400.0) == pytest.approx(0.0, abs=1e-12)
    assert "11.8 Å3 and 400 K" in fit.model.relative_to_
    # with a slope that is held, what is left shows it
    held = fit_states(of, entropies=H, c=1.6)
    assert held.link is not None
    assert held.link.c == 1.6
    assert held.link.c_error == 0.0
    assert held.link.rms > 5.0 * fit.link.rms


def test_phases_need_entropies_and_states_of_their_own() -> None:
    pytest.importorskip("torch")
    of, H = two_phases(0.8, -2.0)
    with pytest.raises(ValueError, match="several phases need entropies"):
        fit_states(of)
    few = [state for state in of if not state.phase or state.volume == 12.4]
    with pytest.raises(DataError, match=r"phase 1 .* have one volume, 12.4 Å3 per atom"):
        fit_states(few, entropies=H)


@pytest.mark.slow
def test_a_known_transition_needs_no_link() -> None:
    pytest.importorskip("torch")
    of, H = two_phases(0.8, -2.0)
    T = 800.0
    # G of both at 1 GPa from the known surfaces would do as well; here any state will: it is taken at its word
    fit = fit_states(of, entropies=H, equal_at=(1.0, T))
    line = coexistence(*fit.phase_models, [T])
    assert line.pressure[0] == pytest.approx(1.0, abs=1e-6)
    assert line.pressure_std[0] < 1e-6
    assert fit.link is not None
    gap = fit.link.s0_of_phases[1] - fit.link.s0_of_phases[0]
    assert abs(gap) > 0.1  # what H does not know
    assert fit_states(of, equal_at=(1.0, T)).link is None
    with pytest.raises(ValueError, match="compares two phases, and there is one"):
        fit_states(states(), equal_at=(1.0, T))
    with pytest.raises(DataError, match="phase 0 is not stable at 300 GPa and 800 K"):
        fit_states(of, equal_at=(300.0, T))
    with pytest.raises(ValueError, match="both say what S of a phase is"):
        fit_states(of, entropies=H, equal_at=(1.0, T), entropy_as_target=True)


def test_phases_need_energies_and_pressures() -> None:
    pytest.importorskip("torch")
    of, H = two_phases(0.8, -2.0)
    bare = [replace(state, internal_energy=np.nan, internal_energy_error=np.nan) for state in of]
    with pytest.raises(DataError, match="need energies and pressures"):
        fit_states(bare, entropies=H)
    one = fit_states([replace(s, internal_energy=np.nan, internal_energy_error=np.nan) for s in states()])
    assert set(one.targets) == {"P"}
    assert "S" not in one.model.known_


def test_errors_of_H_do_not_rule_the_link() -> None:
    T = np.array([100.0, 300.0, 600.0, 1200.0])
    H, S = np.array([0.06, 0.18, 0.36, 0.69]), 3.0 * np.log(T)
    found = [link_entropy(H, T, S, np.array(e)).c for e in ([0.003] * 4, [0.0005, 0.002, 0.004, 0.008])]
    assert found[1] == pytest.approx(found[0], rel=0.02)  # the surrogate fails by far more than either


def test_what_a_link_misses_counts_each_state_once() -> None:
    T = np.array([300.0, 300.0, 300.0, 300.0])
    H, S = np.array([1.0, 2.0, 3.0, 4.0]), 1.5 * np.log(300.0) + np.array([1.0, 2.0, 3.0, 6.0])
    found = link_entropy(H, T, S, np.full(4, 1e-3), weights=[1.0, 1.0, 1.0, 1e-6])
    assert found.c == pytest.approx(1.0, abs=1e-3)  # the last one counts nothing
    assert found.worst == pytest.approx(2.0, abs=1e-2)
    assert found.rms == pytest.approx(1.0, abs=1e-2)


@pytest.mark.filterwarnings("ignore:residuals of")
def test_errors_that_are_too_small_do_not_make_narrow_bands() -> None:
    pytest.importorskip("torch")
    rng = np.random.default_rng(8)
    of = [replace(s, pressure=s.pressure + 0.3 * rng.normal(), pressure_error=1e-3) for s in states()]
    fit = fit_states(of)
    assert fit.targets["P"]["chi2"] > 1e3
    assert fit.model.pressure(11.8, 600.0, std=True)[1] > 0.1  # 0.05 if they are believed


def test_phases_differ_by_what_the_link_may_miss() -> None:
    pytest.importorskip("torch")
    of, H = two_phases(0.8, -2.0, noise=0.3)
    fit = fit_states(of, entropies=replace(H, error=np.full(len(of), 1e-3)))
    assert fit.link is not None
    S = [
        model.derivatives([12.2], [700.0], [(0, 1)], members=True)[0, 1][:, 0] / BOLTZMANN for model in fit.phase_models
    ]
    assert np.std(S[1] - S[0], ddof=1) > fit.link.rms


def test_where_S_is_zero() -> None:
    pytest.importorskip("torch")
    fit = fit_states(states())
    assert fit.reference[1] == 300.0
    S, std = fit.model.entropy(*fit.reference, std=True)
    assert abs(S) < 1e-12
    assert std < 1e-12
    moved = fit_states(states(), reference=(12.0, 900.0))
    assert moved.model.entropy(12.0, 900.0) == pytest.approx(0.0, abs=1e-12)
    gap = moved.model.entropy(11.5, 500.0) - fit.model.entropy(11.5, 500.0)
    assert gap == pytest.approx(-fit.model.entropy(12.0, 900.0), rel=0.01)


def test_a_link_without_a_difference() -> None:
    with pytest.raises(DataError, match="the same information entropy"):
        link_entropy(np.full(4, 2.0), np.full(4, 300.0), np.arange(4.0), np.ones(4), np.ones(4))


def test_what_cannot_be_fitted() -> None:
    pytest.importorskip("torch")
    nothing = [State(11.8, 300.0, [], 3, 4.0, np.nan, np.nan, np.nan, np.nan, 0.5, True)] * 5
    with pytest.raises(DataError, match="neither energy nor stress"):
        fit_states(nothing)
    with pytest.raises(ValueError, match="weights must be 16 positive numbers"):
        fit_states(states(), weights=[1.0])
    with pytest.raises(ValueError, match="entropy_as_target needs entropies"):
        fit_states(states(), entropy_as_target=True)


def test_weights_of_states() -> None:
    x = [np.zeros((5, 3)), np.zeros((5, 3)), np.ones((5, 3))]
    of = StateEntropies(np.zeros(3), np.zeros(3), 5, np.ones(3, int), np.full(3, 5), 0.015, x)
    assert state_weights(of).tolist() == [1.0, 1.0, 1.0]
    np.testing.assert_allclose(state_weights(of, "density"), [0.75, 0.75, 1.5])
    assert state_weights(of, "novelty")[2] == state_weights(of, "novelty").max()
