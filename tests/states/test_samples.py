"""What frames say: temperatures in the order of trust, pressures with their motion, states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from quests_zenn._core.checks import DataError
from quests_zenn.states import group_states, iterate_samples, read_samples
from quests_zenn.states.samples import BOLTZMANN, GPA


def frame(
    edge: float = 3.6, energy: float | None = -1.0, stress: Any = (-0.01,) * 3 + (0.0,) * 3, **info: Any
) -> Atoms:
    atoms = bulk("Cu", "fcc", edge, cubic=True)
    if energy is not None or stress is not None:
        atoms.calc = SinglePointCalculator(atoms, energy=energy, stress=stress)
    atoms.info.update(info)
    return atoms


def saved(folder: Path, frames: list[Atoms], name: str = "run.xyz") -> str:
    write(folder / name, frames)
    return str(folder / name)


def test_info_wins_over_what_is_given_and_that_over_velocities(tmp_path: Path) -> None:
    moving = frame()
    moving.set_velocities(np.random.default_rng(0).normal(size=(4, 3)) * 0.02)
    told = frame(temperature=300.0, temperature_K=1.0)
    other = frame(temperature_K=400.0)
    spec = saved(tmp_path, [moving, told, other, moving])
    found = read_samples(spec, 500.0)
    assert found.temperature.tolist() == [500.0, 300.0, 400.0, 500.0]
    assert found.told.all()
    measured = read_samples(spec)
    assert measured.temperature[0] == pytest.approx(moving.get_temperature())
    assert measured.told.tolist() == [False, True, True, False]


def test_temperatures_from_velocities_are_those_of_the_file(tmp_path: Path) -> None:
    frames = []
    for seed in range(5):
        atoms = frame()
        atoms.set_velocities(np.random.default_rng(seed).normal(size=(4, 3)) * 0.02)
        frames.append(atoms)
    found = read_samples(saved(tmp_path, frames))
    assert np.ptp(found.kinetic) > 1.0
    np.testing.assert_allclose(found.temperature, found.kinetic.mean())


def test_energy_and_pressure_hold_the_motion_of_atoms(tmp_path: Path) -> None:
    """4 atoms in 3.6^3 Å3, stress -0.01 eV/Å3 in all directions: 0.01 eV/Å3 of pressure, and k_B T / V."""
    state = group_states([read_samples(saved(tmp_path, [frame(temperature=600.0)] * 3))])[0]
    v = 3.6**3 / 4
    assert state.volume == pytest.approx(v)
    assert state.internal_energy == pytest.approx(-0.25 + 1.5 * BOLTZMANN * 600.0)
    assert state.pressure == pytest.approx(GPA * (0.01 + BOLTZMANN * 600.0 / v))
    assert state.internal_energy_error == 0.0
    total = read_samples(saved(tmp_path, [frame(temperature=600.0)] * 3), stress="total")
    assert group_states([total])[0].pressure == pytest.approx(GPA * 0.01)


def test_states_are_found_across_files_and_within_one(tmp_path: Path) -> None:
    grid = [(edge, T) for edge in (3.6, 3.65) for T in (300.0, 600.0)]
    one = saved(tmp_path, [frame(edge, temperature=T) for edge, T in grid for _ in range(3)], "one.xyz")
    two = saved(tmp_path, [frame(3.6, temperature=300.0)] * 2, "two.xyz")
    states = group_states(list(iterate_samples([one, two])))
    assert [(round(4 * s.volume, 3), s.temperature, s.n_frames) for s in states] == [
        (46.656, 300.0, 5),
        (46.656, 600.0, 3),
        (48.627, 300.0, 3),
        (48.627, 600.0, 3),
    ]
    assert all(state.fixed_volume for state in states)


def test_a_run_at_given_pressure_is_one_state(tmp_path: Path) -> None:
    edges = 3.6 + 0.01 * np.random.default_rng(0).normal(size=60)
    state = group_states(
        [read_samples(saved(tmp_path, [frame(e, temperature=300.0) for e in edges]))], volume_alike=0.01
    )
    assert len(state) == 1
    assert not state[0].fixed_volume
    assert state[0].volume == pytest.approx(np.mean(edges**3) / 4)


def test_errors_know_of_correlation(tmp_path: Path) -> None:
    """An AR(1) series of 4,000 frames: its mean has the error of 4,000 / (2 tau) independent frames."""
    rng, x = np.random.default_rng(1), [0.0]
    for _ in range(3999):
        x.append(0.9 * x[-1] + rng.normal())
    from quests_zenn.states.grouping import _mean

    mean, error, tau = _mean([np.array(x)])
    assert mean == pytest.approx(np.mean(x))
    assert tau == pytest.approx(0.5 * 1.9 / 0.1, rel=0.3)  # 1/2 + sum rho^t
    assert error == pytest.approx(np.std(x) * np.sqrt(19.0 / 4000), rel=0.3)
    halves = _mean([np.array(x[:2000]), np.array(x[2000:])])
    assert halves[1] == pytest.approx(error, rel=0.2)


@pytest.mark.parametrize(
    ("atoms", "told"),
    [
        (Atoms("Cu", [[0, 0, 0]], cell=[3, 3, 3], pbc=[True, True, False]), "not periodic in three directions"),
        (Atoms("Cu", [[0, 0, 0]], cell=[3, 3, 0], pbc=True), "no volume"),
        (frame(temperature=-3.0), "its temperature is -3 K"),
        (frame(temperature="hot"), "its temperature is no number"),
        (frame(), r"says no temperature and has no velocities; name it with --temperature .*run.xyz=K"),
    ],
)
def test_frames_that_cannot_be_a_state(atoms: Atoms, told: str, tmp_path: Path) -> None:
    good = frame(temperature=300.0)
    with pytest.raises(DataError, match=rf"run.xyz, frame 1: .*{told}"):
        read_samples(saved(tmp_path, [good, atoms]))


def test_a_temperature_of_no_file(tmp_path: Path) -> None:
    spec = saved(tmp_path, [frame()])
    with pytest.raises(DataError, match=r"--temperature names run2\.xyz, which is none"):
        list(iterate_samples([spec], {"run2.xyz": 300.0}))
    assert next(iterate_samples([spec], {spec: 300.0})).temperature.tolist() == [300.0]
    assert next(iterate_samples([spec + "@:"], {spec: 300.0})).temperature.tolist() == [300.0]


def test_what_frames_do_not_have_is_not_made_up(tmp_path: Path) -> None:
    state = group_states([read_samples(saved(tmp_path, [frame(energy=None, stress=None, temperature=300.0)] * 2))])[0]
    assert np.isnan([state.internal_energy, state.pressure]).all()
    assert state.n_frames == 2
