"""Configurations that were fitted on their own, in one model; reference states."""

from __future__ import annotations

import numpy as np
import pytest

from quests_zenn._core.checks import DataError

pytestmark = pytest.mark.extra
torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from quests_zenn.zenn import DNN, ZENN, join  # noqa: E402

K_B = 8.617333262145179e-05
GPA = 160.2176634


def rows(V0: float, E0: float, theta: float, low: float, high: float) -> dict[str, np.ndarray]:
    """U and P of a classical solid with a parabola as its equation of state."""
    V, T = (a.ravel() for a in np.meshgrid(np.linspace(low, high, 5), np.linspace(300.0, 1200.0, 4)))
    stiff = 100.0 / GPA
    U = E0 + 0.5 * stiff * (V - V0) ** 2 / V0 + 3.0 * K_B * T
    # theta(V) = theta (V / V0)^-2, so that the thermal pressure is 2 * 3 k T / V
    P = -stiff * (V - V0) / V0 + 6.0 * K_B * T / V
    return {"x": V, "T": T, "U": U, "P": P * GPA}


def model(seed: int = 0, **data: float) -> ZENN:
    return ZENN(1, thermal="classical", hidden=(), n_members=2, random_state=seed, verbose=False).fit(**rows(**data))


@pytest.fixture(scope="module")
def pair() -> tuple[ZENN, ZENN]:
    return (
        model(V0=12.0, E0=-3.5, theta=250.0, low=11.4, high=12.6),
        model(seed=1, V0=13.0, E0=-3.4, theta=200.0, low=12.4, high=13.9),
    )


def test_configurations_of_a_joined_model_are_the_models(pair: tuple[ZENN, ZENN]) -> None:
    both = join(pair, coherence=100.0)
    V, T = np.array([12.4, 12.5, 12.6]), np.array([400.0, 800.0, 1100.0])
    for member in range(2):
        found = both.configurations(V, T, member=member)
        for k, one in enumerate(pair):
            own = one.derivatives(V, T, [(0, 0), (0, 1)], members=True)
            np.testing.assert_allclose(found["F"][:, k], own[0, 0][member], rtol=0, atol=1e-12)
            np.testing.assert_allclose(found["S"][:, k], -own[0, 1][member], rtol=0, atol=1e-15)
    F = np.stack([one.free_energy(V, T) for one in pair], axis=1)
    # members draw apart, so that the mean over them mixes F_k by hand only for one of them
    one = [part.derivatives(V, T, [(0, 0)], members=True)[0, 0][0] for part in pair]
    by_hand = -K_B * T / 100.0 * np.log(np.exp(-100.0 * (np.stack(one) - one[0]) / (K_B * T)).sum(0)) + one[0]
    np.testing.assert_allclose(both.derivatives(V, T, [(0, 0)], members=True)[0, 0][0], by_hand, atol=1e-12)
    assert F.shape == (3, 2)
    assert both.x_range_.tolist() == [[11.4, 13.9]]
    # where neither phase was seen is beyond both
    other = model(seed=1, V0=13.0, E0=-3.4, theta=200.0, low=13.0, high=13.9)
    apart = join([pair[0], other])
    assert apart.extrapolates([11.5, 12.8, 13.5, 14.5], 600.0).tolist() == [False, True, False, True]


def test_reference_states_shift_entropies_and_nothing_else(pair: tuple[ZENN, ZENN], tmp_path) -> None:
    one = model(V0=12.0, E0=-3.5, theta=250.0, low=11.4, high=12.6)
    V, T = np.array([11.6, 12.2]), np.array([500.0, 900.0])
    before = {name: getattr(one, name)(V, T, std=True) for name in ("entropy", "internal_energy", "pressure")}
    F = one.free_energy(V, T)
    zero = one.entropy(11.9, 600.0)
    assert one.set_reference(11.9, 600.0) is one
    value, std = one.entropy(11.9, 600.0, std=True)
    assert abs(value) < 1e-15
    assert std < 1e-15
    np.testing.assert_allclose(one.entropy(V, T), before["entropy"][0] - zero, atol=1e-15)
    np.testing.assert_allclose(one.free_energy(V, T), F + T * zero, atol=1e-12)
    for name in ("internal_energy", "pressure"):
        for a, b in zip(getattr(one, name)(V, T, std=True), before[name], strict=True):
            np.testing.assert_allclose(a, b, atol=1e-10)
    assert one.configurations(V, T)["S"].ravel() == pytest.approx(
        -one.derivatives(V, T, [(0, 1)], members=True)[0, 1][0], abs=1e-15
    )
    assert "11.9 Å3 and 600 K" in one.relative_to_
    one.set_reference(12.1, 700.0)  # may be chosen anew
    one.save(tmp_path / "model")
    again = ZENN.load(tmp_path / "model")
    assert np.array_equal(again.free_energy(V, T), one.free_energy(V, T))
    joined = join([one, pair[1].set_reference(13.0, 700.0)])
    np.testing.assert_allclose(
        joined.configurations(V, T)["S"][:, 0], one.configurations(V, T)["S"][:, 0], rtol=0, atol=1e-15
    )


def test_what_does_not_go_together_is_refused(pair: tuple[ZENN, ZENN]) -> None:
    data = rows(12.0, -3.5, 250.0, 11.4, 12.6)
    debye = ZENN(1, hidden=(), n_members=2, random_state=0, verbose=False).fit(**data)
    with pytest.raises(ValueError, match="thermal='classical'"):
        join([pair[0], debye])
    with pytest.raises(ValueError, match="number of their members"):
        join([pair[0], ZENN(1, thermal="classical", hidden=(), n_members=3, verbose=False).fit(**data)])
    with pytest.raises(ValueError, match="no models"):
        join([])
    with pytest.raises(ValueError, match="are ZENN, got DNN"):
        join([DNN(verbose=False)])
    known = ZENN(1, thermal="classical", hidden=(), n_members=2, verbose=False).fit(
        **data, S=3 * K_B * np.log(data["T"])
    )
    with pytest.raises(ValueError, match="no constant of S"):
        known.set_reference(12.0, 600.0)
    with pytest.raises((ValueError, DataError), match="T must be positive"):
        pair[0].set_reference(12.0, -1.0)
