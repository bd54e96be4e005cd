"""Dynamics of the benchmarks of free energies: energies and stresses mean what frames say; crystals are harmonic."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from quests_zenn._core.checks import MissingExtraError
from quests_zenn.states import group_states, read_samples
from quests_zenn.states.samples import BOLTZMANN, GPA
from quests_zenn.uq.lammps import import_lammps

BENCHMARKS = Path(__file__).resolve().parent.parent.parent / "benchmarks"


@pytest.fixture
def simulate(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    try:
        import_lammps()
    except MissingExtraError as error:
        pytest.skip(str(error))
    monkeypatch.syspath_prepend(str(BENCHMARKS / "thermo"))
    import simulate

    return simulate


def static(simulate: ModuleType, metal: str, volume: float) -> tuple[float, np.ndarray]:
    with simulate.crystal(metal, volume, 2) as lmp:
        lmp.command("run 0")
        energy, stress, x, _ = simulate.now(lmp)
    return energy / len(x), stress


@pytest.mark.extra
@pytest.mark.parametrize("metal", ["copper", "iron"])
def test_stress_is_the_slope_of_the_energy(simulate: ModuleType, metal: str) -> None:
    v, dv = 1.03 * simulate.METALS[metal].volume, 0.01
    slope = (static(simulate, metal, v + dv)[0] - static(simulate, metal, v - dv)[0]) / (2.0 * dv)
    stress = static(simulate, metal, v)[1]
    assert stress[:3].min() > 0.005  # the crystal is stretched: tension
    np.testing.assert_allclose(stress[:3], slope, rtol=1e-3)
    np.testing.assert_allclose(stress[3:], 0.0, atol=1e-8)


@pytest.mark.extra
def test_a_run_is_kept_and_cold_crystals_are_harmonic(
    simulate: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = {"cells": 2, "picoseconds": 20.0, "equilibration": 2.0, "every": 0.2, "cache": tmp_path}
    path = simulate.simulate("copper", 11.81, 50.0, **how)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    samples = read_samples(path)
    (state,) = group_states([samples])
    assert (len(samples), state.temperature, state.n_atoms) == (100, 50.0, 32)
    assert state.volume == pytest.approx(11.81, rel=1e-6)
    # 3 N - 3 modes of k_B T / 2 each
    thermal = state.internal_energy - 1.5 * BOLTZMANN * 50.0 - static(simulate, "copper", 11.81)[0]
    assert thermal == pytest.approx(1.5 * BOLTZMANN * 50.0 * 31 / 32, rel=0.1)
    # thermal pressure of a Grüneisen solid: gamma about 2
    pressure = state.pressure + GPA * static(simulate, "copper", 11.81)[1][:3].mean()
    assert pressure == pytest.approx(2.0 * GPA * 3.0 * BOLTZMANN * 50.0 / 11.81, rel=0.2)
    monkeypatch.setattr(simulate, "crystal", None)  # nothing is run again
    assert simulate.simulate("copper", 11.81, 50.0, **how) == path
    with pytest.raises(TypeError):
        simulate.simulate("copper", 11.81, 51.0, **how)


@pytest.mark.extra
def test_modes_of_the_supercell(simulate: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    import entropies

    monkeypatch.setitem(simulate.METALS, "copper", simulate.Metal(*vars_of(simulate, "copper"), cells=2))
    static_energy, pressure, omega, n = entropies.modes("copper", 11.81)
    assert (n, len(omega)) == (32, 93)
    assert pressure == pytest.approx(-GPA * static(simulate, "copper", 11.81)[1][:3].mean())
    assert static_energy == pytest.approx(static(simulate, "copper", 11.81)[0])
    # the highest mode of copper has 7 to 8 THz
    assert 6.5 < omega.max() / (2.0 * np.pi) / 1e12 < 8.5
    # curvature of the energy along one displacement, with all atoms in place
    with simulate.crystal("copper", 11.81, 2) as lmp:
        energies = []
        for shift in (0.0, 0.02):
            lmp.command(f"set atom 1 x {shift}")
            lmp.command("run 0")
            energies.append(simulate.now(lmp)[0])
    mean_square = float((omega**2).sum()) / 96.0  # trace of the Hessian by coordinate, over the mass
    curvature = 2.0 * (energies[1] - energies[0]) / 0.02**2
    assert mean_square * 63.546 / entropies.OMEGA**2 == pytest.approx(curvature, rel=0.01)


def vars_of(simulate: ModuleType, metal: str) -> list[object]:
    what = simulate.METALS[metal]
    return [what.symbol, what.potential, what.style, what.lattice, what.mass, what.volume]
