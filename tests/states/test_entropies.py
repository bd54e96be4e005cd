"""Entropies of states: equal numbers of environments, frames apart, known answers."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.io import write

from quests_zenn._core.checks import DataError, DataWarning
from quests_zenn.entropy import entropy
from quests_zenn.states import group_states, read_samples
from quests_zenn.states.entropies import state_entropies


def trajectory(folder: Path, T: float, n: int, width: float, repeat: int = 3, seed: int = 0) -> str:
    frames, rng = [], np.random.default_rng(seed)
    for _ in range(n):
        atoms = bulk("Cu", "fcc", 3.6, cubic=True).repeat(repeat)
        atoms.positions += rng.normal(size=atoms.positions.shape) * width
        atoms.info["temperature"] = T
        frames.append(atoms)
    name = str(folder / f"run_{T:g}.xyz")
    write(name, frames)
    return name


def test_hotter_states_have_more_entropy_and_all_the_same_number(tmp_path: Path) -> None:
    specs = [trajectory(tmp_path, T, n, 0.02 * math.sqrt(T / 300.0)) for T, n in ((300.0, 8), (600.0, 5), (900.0, 12))]
    states = group_states([read_samples(spec) for spec in specs])
    found = state_entropies(states, 0.03, jobs=1)
    assert found.n_environments == 5 * 108  # of the shortest
    assert [len(x) for x in found.environments] == [540] * 3
    assert (np.diff(found.H) > 0.0).all()
    assert ((found.error > 0.0) & (found.error < 0.2)).all()
    for x, H in zip(found.environments, found.H, strict=True):
        assert pytest.approx(entropy(x, 0.03)) == H
    again = state_entropies(states, 0.03, jobs=2)
    np.testing.assert_array_equal(found.H, again.H)


def test_a_crystal_at_rest_has_none(tmp_path: Path) -> None:
    found = state_entropies(group_states([read_samples(trajectory(tmp_path, 300.0, 4, 0.0))]), jobs=1)
    assert found.H[0] == pytest.approx(0.0, abs=1e-12)
    assert found.error[0] == pytest.approx(0.0, abs=1e-12)


def test_too_few_frames_or_environments(tmp_path: Path) -> None:
    states = group_states([read_samples(trajectory(tmp_path, 300.0, 3, 0.02))])
    with pytest.raises(DataError, match=r"V = 11.66 Å3, T = 300 K has 3 frames; an entropy needs 4 or more"):
        state_entropies(states)
    states = group_states([read_samples(trajectory(tmp_path, 300.0, 4, 0.02, repeat=2))])
    with pytest.raises(DataError, match="has 128 environments, fewer than the 200 asked for"):
        state_entropies(states, n_environments=200)
    with pytest.raises(DataError, match="no states"):
        state_entropies([])


def test_frames_that_remember_each_other_are_told(tmp_path: Path) -> None:
    (state,) = group_states([read_samples(trajectory(tmp_path, 300.0, 12, 0.02))])
    slow = replace(state, correlation_time=5.0)
    with pytest.warns(DataWarning, match=r"1 of 1 states have fewer than 4 frames .* correlation time 5 of 12 frames"):
        found = state_entropies([slow])
    assert found.n_frames[0] == 4
    assert found.stride[0] == 3
    assert state_entropies([replace(state, correlation_time=1.4)]).stride[0] == 3
