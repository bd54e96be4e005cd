"""The calculator: everything of the other one as it is, dH on top, and nothing computed unasked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structures
from ase import Atoms, units
from ase.calculators.calculator import BaseCalculator, PropertyNotImplementedError
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.io import Trajectory, read, write
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS

from quests_zenn import DataError, DataWarning
from quests_zenn.uq import Monitor, Reference, UncertaintyCalculator


def copper(seed: int, rattle: float = 0.05) -> Atoms:
    return structures.as_atoms(structures.fcc(repeat=(2, 2, 2), rattle=rattle, seed=seed))


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference.fit([copper(seed) for seed in range(20)], bandwidth=0.03)


class Counted(Reference):
    """A reference that counts how often it is asked."""

    scores = decisions = 0

    def score(self, *given: Any, **options: Any) -> Any:
        self.scores += 1
        return super().score(*given, **options)

    def is_novel(self, *given: Any, **options: Any) -> Any:
        self.decisions += 1
        return super().is_novel(*given, **options)


@pytest.fixture
def counted(reference: Reference) -> Counted:
    copied = object.__new__(Counted)
    copied.__dict__.update(reference.copy().__dict__)
    return copied


@pytest.mark.parametrize("calc", [EMT, lambda: LennardJones(sigma=2.3, rc=5.0)])
def test_everything_of_the_other_calculator_is_there(reference: Reference, calc: Any) -> None:
    plain, wrapped = copper(30, 0.2), copper(30, 0.2)
    plain.calc, wrapped.calc = calc(), UncertaintyCalculator(calc(), reference)
    assert isinstance(wrapped.calc, BaseCalculator)
    assert wrapped.get_potential_energy() == plain.get_potential_energy()
    assert wrapped.get_potential_energy(force_consistent=True) == plain.get_potential_energy(force_consistent=True)
    np.testing.assert_array_equal(wrapped.get_forces(), plain.get_forces())
    np.testing.assert_array_equal(wrapped.get_stress(), plain.get_stress())
    np.testing.assert_array_equal(wrapped.get_potential_energies(), plain.get_potential_energies())
    assert wrapped.get_properties(["energy", "forces"])["energy"] == plain.get_potential_energy()
    with pytest.raises(PropertyNotImplementedError):
        wrapped.get_magnetic_moments()
    assert set(wrapped.calc.implemented_properties) == {*plain.calc.implemented_properties, "dH", "dH_max", "novel"}


def test_dh_is_that_of_the_reference(reference: Reference) -> None:
    atoms = copper(30, 0.2)
    atoms.calc = UncertaintyCalculator(EMT(), reference, threshold=2.0)
    dh = atoms.calc.get_property("dH", atoms)
    np.testing.assert_array_equal(dh, reference.score(atoms))
    assert atoms.calc.get_property("dH_max", atoms) == dh.max()
    np.testing.assert_array_equal(atoms.calc.get_property("novel", atoms), dh >= 2.0)
    np.testing.assert_array_equal(atoms.calc.get_property("dH"), dh)
    assert set(atoms.calc.results) == {"dH", "dH_max", "novel"}
    dh[:] = 0.0
    assert atoms.calc.get_property("dH", atoms).any(), "what was handed out is a copy"


def test_threshold(reference: Reference) -> None:
    atoms = copper(30, 0.2)
    low, high = UncertaintyCalculator(EMT(), reference, threshold=-20.0), UncertaintyCalculator(EMT(), reference)
    assert low.get_property("novel", atoms).all()
    np.testing.assert_array_equal(high.get_property("novel", atoms), reference.is_novel(atoms))
    auto = UncertaintyCalculator(EMT(), reference, threshold="auto")
    with pytest.warns(DataWarning, match="at least 99 groups"):
        found = auto.get_property("novel", atoms)
    np.testing.assert_array_equal(found, reference.is_novel(atoms, "auto"))


def test_nothing_is_computed_unasked_or_twice(counted: Counted) -> None:
    atoms = copper(30)
    atoms.calc = UncertaintyCalculator(EMT(), counted)
    VelocityVerlet(atoms, 2.0 * units.fs).run(5)
    atoms.get_stress()
    assert (counted.scores, counted.decisions) == (0, 0)
    for _ in range(3):
        atoms.calc.get_property("dH", atoms)
        atoms.calc.get_property("dH_max", atoms)
        atoms.calc.get_property("dH", atoms.copy())
        atoms.get_forces()
    assert counted.scores == 1
    assert not atoms.calc.calculation_required(atoms, ["dH", "energy"])
    assert atoms.calc.calculation_required(atoms, ["novel"])
    assert atoms.calc.get_property("novel", atoms, allow_calculation=False) is None
    assert counted.decisions == 0
    atoms.positions[0] += 0.1
    assert atoms.calc.calculation_required(atoms, ["dH"])
    assert atoms.calc.calculation_required(atoms, ["energy"])
    assert atoms.calc.get_property("dH", atoms, allow_calculation=False) is None
    np.testing.assert_array_equal(atoms.calc.get_property("dH", atoms), counted.score(atoms))


def test_every(counted: Counted) -> None:
    atoms = copper(30)
    atoms.calc = UncertaintyCalculator(EMT(), counted, every=4)
    seen = []
    dyn = VelocityVerlet(atoms, 2.0 * units.fs)
    dyn.attach(lambda: seen.append("dH" in atoms.calc.results))
    dyn.run(9)
    assert [step for step, there in enumerate(seen) if there] == [0, 4, 8]
    assert counted.scores == 3


def test_dh_survives_writing(reference: Reference, tmp_path: Path) -> None:
    atoms = copper(30, 0.2)
    atoms.calc = UncertaintyCalculator(EMT(), reference, every=2)
    dyn = VelocityVerlet(atoms, 2.0 * units.fs)
    dyn.attach(lambda: write(tmp_path / "md.xyz", atoms, append=True))
    with Trajectory(tmp_path / "md.traj", "w", atoms) as trajectory:  # it asks which results are there
        dyn.attach(trajectory)
        dyn.run(2)
    frames = read(tmp_path / "md.xyz", ":")
    assert [("dH" in frame.arrays) for frame in frames] == [True, False, True]
    for frame in frames[::2]:
        np.testing.assert_allclose(frame.arrays["dH"], reference.score(frame), atol=1e-4)
    assert all(frame.get_forces().any() for frame in frames)
    assert read(tmp_path / "md.traj").get_potential_energy() == pytest.approx(frames[-1].get_potential_energy())


def test_arrays_need_not_be_touched(reference: Reference) -> None:
    atoms = copper(30)
    atoms.calc = UncertaintyCalculator(EMT(), reference, keep_array=False)
    atoms.calc.get_property("dH", atoms)
    assert "dH" not in atoms.arrays
    atoms.arrays["dH"] = np.zeros(len(atoms))  # somebody else's
    atoms.positions[0] += 0.1
    atoms.calc.get_property("dH", atoms)
    atoms.get_forces()
    assert not atoms.arrays["dH"].any()


def test_new_settings_of_the_other_calculator_count(reference: Reference) -> None:
    atoms = copper(30)
    inner = LennardJones(sigma=2.3, rc=5.0)
    atoms.calc = UncertaintyCalculator(inner, reference)
    before = atoms.get_potential_energy()
    inner.set(epsilon=2.0)
    inner.reset()
    assert atoms.get_potential_energy() == pytest.approx(2.0 * before)
    atoms.calc.get_property("dH", atoms)
    atoms.calc.reset()
    assert atoms.calc.results == {}


def test_jobs(reference: Reference) -> None:
    atoms = copper(30, 0.2)
    one, two = (UncertaintyCalculator(EMT(), reference, jobs=jobs).get_property("dH", atoms) for jobs in (1, 2))
    np.testing.assert_array_equal(one, two)


def test_with_an_optimizer_and_a_monitor(reference: Reference) -> None:
    atoms = copper(30, 0.2)
    atoms.calc = UncertaintyCalculator(EMT(), reference)
    monitor = Monitor(reference, atoms, threshold=-20.0)
    with BFGS(atoms, logfile=None) as optimizer:
        optimizer.attach(monitor)
        optimizer.run(steps=2)
    kept = monitor.frames[0]
    assert kept.get_potential_energy() == pytest.approx(EMT().get_potential_energy(kept))
    np.testing.assert_array_equal(kept.arrays["dH"], reference.score(kept))


def test_bad_arguments(reference: Reference) -> None:
    with pytest.raises(ValueError, match="calc must be a calculator of ASE, got str"):
        UncertaintyCalculator("emt", reference)
    with pytest.raises(ValueError, match="every must be a whole number of at least 1, got 0"):
        UncertaintyCalculator(EMT(), reference, every=0)
    calc = UncertaintyCalculator(EMT(), reference)
    with pytest.raises(ValueError, match="dH of which atoms"):
        calc.get_property("dH")
    atoms = copper(30)
    atoms.positions[2, 0] = np.nan
    with pytest.raises(DataError, match="atom 2"):
        calc.get_property("dH", atoms)
