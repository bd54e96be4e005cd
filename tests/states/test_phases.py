"""Clusters of whole frames: crystals whose structure is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.io import write

from quests_zenn._core.checks import DataError
from quests_zenn.states import find_phases, group_states, phase_shares, read_samples, single_states
from quests_zenn.states.phases import _settled
from quests_zenn.states.samples import Samples


def crystal(structure: str, V: float, T: float, rng: np.random.Generator, stiff: float = 2.0):
    n = {"fcc": 4, "bcc": 2}[structure]
    atoms = bulk("Cu", structure, a=(n * V) ** (1.0 / 3.0), cubic=True) * (2, 2, 2 if n == 4 else 4)
    atoms.positions += rng.normal(0.0, np.sqrt(8.617e-5 * T / stiff), (len(atoms), 3))
    atoms.wrap()
    atoms.info["temperature"] = T
    return atoms


def file_of(folder: Path, name: str, frames: list) -> Samples:
    write(folder / f"{name}.xyz", frames, format="extxyz")
    return read_samples(folder / f"{name}.xyz")


GRID = [(V, T) for V in (11.4, 11.8, 12.2) for T in (300.0, 600.0, 900.0)]


def test_one_crystal_is_one_phase_however_it_is_compressed_and_heated(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    samples = [file_of(tmp_path, "fcc", [crystal("fcc", V, T, rng) for V, T in GRID for _ in range(10)])]
    found = find_phases(samples, group_states(samples))
    assert found.n == 1
    assert found.left_over[0] < 2.0
    assert (found.labels[0] == 0).all()


def test_two_crystals_at_the_same_states(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    samples = [
        file_of(tmp_path, name, [crystal(name, V, T, rng) for V, T in GRID for _ in range(10)])
        for name in ("fcc", "bcc")
    ]
    states = group_states(samples)
    assert len(states) == 9  # both are in the same states
    found = find_phases(samples, states)
    assert found.n == 2
    assert len({tuple(np.unique(labels)) for labels in found.labels}) == 2
    assert all(len(np.unique(labels)) == 1 for labels in found.labels)
    assert len(group_states(samples, phases=found.labels)) == 18
    shares = phase_shares(states, found, samples)
    assert len(shares) == 9
    assert shares[0]["share"] == [0.5, 0.5]
    assert shares[0]["conversions"] == 0
    again = find_phases(samples, states, jobs=1)
    assert all(np.array_equal(a, b) for a, b in zip(found.labels, again.labels, strict=True))


def test_a_run_that_goes_to_and_fro(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    frames = [crystal("fcc", V, T, rng) for V, T in GRID for _ in range(10)]
    others = [crystal("bcc", V, T, rng) for V, T in GRID if V > 11.5 for _ in range(10)]
    mixed = [crystal("bcc" if (i // 5) % 2 else "fcc", 12.0, 450.0, rng) for i in range(40)]
    samples = [file_of(tmp_path, name, of) for name, of in (("a", frames), ("b", mixed), ("c", others))]
    found = find_phases(samples, group_states(samples))
    assert found.n == 2
    (entry,) = [e for e in phase_shares(group_states(samples), found, samples) if e["temperature"] == 450.0]
    assert entry["share"] == pytest.approx([0.5, 0.5], abs=0.05)
    assert entry["conversions"] == 7


def test_single_frames_tell_no_phases(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    samples = [file_of(tmp_path, "one", [crystal("fcc", V, T, rng) for V, T in GRID])]
    assert find_phases(samples, group_states(samples)).n == 1
    assert len(single_states(samples)) == 9
    with pytest.raises(DataError, match="10 phases need as many states, and there are 9"):
        find_phases(samples, group_states(samples), 10)


def test_volumes_that_fluctuate_are_one_state(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    frames = [crystal("fcc", V, 600.0, rng) for V in rng.normal(11.8, 0.118, 200)]
    (state,) = group_states([file_of(tmp_path, "npt", frames)])
    assert state.n_frames == 200
    assert not state.fixed_volume
    # two pressures in one file are two states
    frames = [crystal("fcc", V, 600.0, rng) for V in [*rng.normal(11.4, 0.05, 60), *rng.normal(12.2, 0.05, 60)]]
    assert [s.n_frames for s in group_states([file_of(tmp_path, "two", frames)])] == [60, 60]


def test_phases_go_with_frames(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    samples = [file_of(tmp_path, "c", [crystal("fcc", 11.8, 300.0, rng) for _ in range(4)])]
    with pytest.raises(ValueError, match="one number for each frame"):
        group_states(samples, phases=[np.zeros(3)])


@pytest.mark.parametrize(("gap", "kept"), [(2.0, False), (8.0, True)])
def test_a_run_is_of_two_phases_only_where_its_frames_fall_apart(gap: float, kept: bool) -> None:
    z = np.zeros((20, 2))
    z[14:, 0] = gap
    label = np.array([0] * 14 + [1] * 6)
    found = _settled(label, z, np.zeros(20, np.int64), 1.0)
    assert np.array_equal(found, label if kept else np.zeros(20))
    one = np.array([0] * 19 + [1])  # a single frame is a passing fluctuation, however odd
    assert not _settled(one, z, np.zeros(20, np.int64), 1.0).any()
