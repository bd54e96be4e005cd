"""Thresholds that a reference finds in itself: the rates that they promise, and what belongs together."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from ase import Atoms
from ase.build import bulk
from scipy.spatial.distance import cdist
from scipy.special import logsumexp

from quests_zenn import DataError, DataWarning
from quests_zenn.descriptors import describe
from quests_zenn.uq import Reference, thresholds
from quests_zenn.uq.thresholds import find_copies, group_quantile, leave_out, merge_copies

SMALL: dict[str, Any] = {"k": 8, "cutoff": 4.0}


def rattled(n: int, amount: float = 0.08, seed: int = 0, symbols: str = "Cu") -> list[Atoms]:
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(n):
        atoms = bulk("Cu", cubic=True).repeat((2, 2, 1))
        atoms.symbols[:] = [symbols] * 16 if symbols == "Cu" else ["Cu", "Zr"] * 8
        atoms.positions += rng.normal(0.0, amount, atoms.positions.shape)
        frames.append(atoms)
    return frames


def turned(atoms: Atoms) -> Atoms:
    """The same structure, rotated, reflected and with its atoms in another order."""
    other = atoms[::-1]
    other.rotate(37.0, (1, 2, 3), rotate_cell=True)
    other.positions[:, 0] *= -1.0
    other.cell.array[:, 0] *= -1.0
    return other


def plain_left_out(reference: Reference, groups: npt.NDArray[np.int64], labels: npt.NDArray[np.int64]) -> Any:
    """dH given the environments of all other groups, row by row."""
    owner = np.repeat(np.arange(reference.n_frames), np.diff(reference.frame_offsets))
    out = np.empty(len(reference))
    for i, row in enumerate(reference.x):
        others = (groups[owner] != groups[owner[i]]) & (labels == labels[i])
        out[i] = np.inf
        if others.any():
            squared = cdist(row[None], reference.x[others], "sqeuclidean")[0]
            out[i] = -logsumexp(-squared / (2.0 * reference.bandwidth**2))
    return out


# --- copies -----------------------------------------------------------------------------------------------------------


def test_symmetry_copies_and_supercells_are_found() -> None:
    frames = rattled(4)
    frames[2] = turned(frames[0])
    frames.append(frames[1].repeat((1, 2, 1)))
    near = frames[3].copy()
    near.positions[5] += 0.02
    frames.append(near)
    env = describe(frames)
    first = find_copies(env.x, env.numbers, env.frame_offsets)
    assert first.tolist() == [0, 1, 0, 3, 1, 5]
    loose = find_copies(env.x, env.numbers, env.frame_offsets, tolerance=10.0)
    assert (loose == 0).all()


def test_equal_means_alone_are_no_copies() -> None:
    x = np.array([[0.0, 0.0], [1.0, 1.0], [0.5, 0.5], [0.5, 0.5], [1.0, 1.0], [0.0, 0.0]])
    numbers = np.full(6, 29)
    assert find_copies(x, numbers, np.array([0, 2, 4, 6])).tolist() == [0, 1, 0]


def test_other_elements_are_no_copies() -> None:
    frames = rattled(1, symbols="CuZr")
    swapped = frames[0].copy()
    swapped.symbols[:] = ["Zr", "Cu"] * 8
    env = describe([frames[0], swapped, turned(frames[0])])
    assert find_copies(env.x, env.numbers, env.frame_offsets).tolist() == [0, 1, 0]


def test_groups_with_copies_are_joined() -> None:
    first = np.array([0, 1, 0, 3, 1, 5])
    assert len(set(merge_copies(np.arange(6), first).tolist())) == 4
    joined = merge_copies(np.array([0, 0, 1, 1, 2, 3]), first)
    assert joined[0] == joined[1] == joined[2] == joined[3] == joined[4] != joined[5]
    np.testing.assert_array_equal(merge_copies(np.array([0, 1, 1]), np.arange(3)), [0, 1, 1])


# --- leaving out ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("species", ["none", "pairs"])
@pytest.mark.parametrize("groups", [None, [0, 0, 1, 1, 2, 2, 3, 3]])
def test_left_out_scores_are_those_of_the_formula(species: str, groups: Any) -> None:
    frames = rattled(8, symbols="CuZr")
    frames[3] = turned(frames[6])
    reference = Reference.fit(frames, 0.05, species=species, groups=groups, **SMALL)
    found = reference.leave_out()
    merged = np.arange(8) if groups is None else np.array(groups)
    merged[merged == merged[6]] = merged[3]
    labels = reference.numbers if species == "pairs" else np.zeros(len(reference), np.int64)
    np.testing.assert_allclose(found.dh, plain_left_out(reference, merged, labels), rtol=1e-8)
    assert found.first_copy.tolist() == [True] * 6 + [False, True]
    np.testing.assert_array_equal(found.frames, np.repeat(np.arange(8), 16))
    np.testing.assert_array_equal(found.groups[:, None] == found.groups, merged[:, None] == merged)


def test_an_element_of_one_group_alone_is_infinitely_new() -> None:
    frames = rattled(3)
    frames[1].symbols[4] = "Zr"
    dh = Reference.fit(frames, 0.05, species="blocks", **SMALL).leave_out().dh
    assert np.flatnonzero(np.isinf(dh)).tolist() == [20]


def test_large_references_are_sampled_by_whole_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    reference = Reference.fit(rattled(30), 0.05, groups=np.arange(30) // 2, **SMALL)
    whole = leave_out(reference)
    # of large frames more, so that there are groups enough, but not five times as many
    assert len(leave_out(reference, most=100).rows) == 480
    assert len(leave_out(reference, most=50).rows) == 256
    monkeypatch.setattr(thresholds, "GROUPS", 0)
    part = leave_out(reference, most=100)
    assert 100 <= len(part.rows) < 132
    np.testing.assert_allclose(part.dh, whole.dh[part.rows], rtol=1e-8)
    assert np.bincount(part.groups[part.frames])[np.unique(part.groups[part.frames])].tolist() == [32] * 4
    assert leave_out(reference, most=100, seed=1).rows.tolist() != part.rows.tolist()
    np.testing.assert_array_equal(leave_out(reference, most=100, jobs=1).dh, part.dh)


# --- quantiles --------------------------------------------------------------------------------------------------------


def test_quantiles_are_the_smallest_that_hold() -> None:
    scores, alone = np.random.default_rng(0).permutation(np.arange(1.0, 100.0)), np.arange(99)
    for rate, k in ((0.5, 50), (0.1, 90), (0.01, 99), (0.02, 98), (0.011, 99)):
        assert group_quantile(scores, alone, rate, "frames") == math.nextafter(k, math.inf)
    with pytest.raises(DataError, match=r"at least 111 groups.*there are 99; rates from 0\.01 on"):
        group_quantile(scores, alone, 0.009, "frames")
    scores[:3] = np.inf
    assert math.isfinite(group_quantile(scores, alone, 0.05, "frames"))
    with pytest.raises(DataError, match="no other group"):
        group_quantile(scores, alone, 0.01, "frames")


def test_groups_count_alike_whatever_their_size() -> None:
    scores = np.concatenate([np.zeros(1000), np.arange(1.0, 20.0)])
    groups = np.concatenate([np.zeros(1000, int), np.arange(1, 20)])
    # 20 groups and the one to come: 19 of 21 lie at or below the 19th
    assert group_quantile(scores, groups, 2.0 / 21.0, "frames") == math.nextafter(18.0, math.inf)


def test_atoms_of_few_groups_have_a_threshold_and_a_warning() -> None:
    rng = np.random.default_rng(0)
    scores, groups = rng.normal(size=1000), np.arange(1000) // 100
    with pytest.raises(DataError, match="at least 99 groups"):
        group_quantile(scores, groups, 0.01, "frames")
    with pytest.warns(DataWarning, match=r"at least 99 groups .* there are 10: up to 0\.1 of the atoms"):
        found = group_quantile(scores, groups, 0.01, "atoms")
    assert found == pytest.approx(np.quantile(scores, 0.99), abs=0.1)


def test_exchangeable_groups_exceed_it_as_often_as_stated() -> None:
    """Members of a group are alike: pooling them would promise too much."""
    rng = np.random.default_rng(1)
    groups, rates = np.repeat(np.arange(20), 30), []
    for _ in range(2000):
        scores = rng.normal(size=21)[:, None] + 0.1 * rng.normal(size=(21, 30))
        rates.append(np.mean(scores[20] >= group_quantile(scores[:20].ravel(), groups, 0.1, "frames")))
    error = np.std(rates) / math.sqrt(2000)
    assert 0.1 - 1.0 / 21.0 - 3.0 * error < np.mean(rates) < 0.1 + 3.0 * error


@pytest.mark.parametrize("of", ["atom", "mean", "max"])
def test_false_alarms_of_new_frames_come_as_often_as_stated(of: str) -> None:
    """Frames drawn as the reference was: the mean rate over many references is the stated one."""
    rates = []
    for seed in range(40):
        reference = Reference.fit(rattled(40, seed=seed), 0.03, **SMALL)
        found = reference.score_frames(rattled(10, seed=1000 + seed), reference.threshold(0.1, of=of))
        rates.append(
            {"atom": found.novel_share, "mean": found.mean >= found.threshold, "max": found.max >= found.threshold}[of]
        )
    error = np.std([np.mean(rate) for rate in rates]) / math.sqrt(40)
    assert np.mean(rates) == pytest.approx(0.1, abs=0.01 + 3.0 * error)


def test_copies_count_once() -> None:
    frames = rattled(30)
    once = Reference.fit(frames, 0.03, **SMALL)
    outlier = rattled(1, seed=7)[0]
    outlier.set_cell(0.8 * outlier.cell, scale_atoms=True)
    with_outlier = Reference.fit([*frames, outlier], 0.03, **SMALL)
    with_copies = Reference.fit([*frames, *[turned(outlier) for _ in range(20)]], 0.03, **SMALL)
    for of in ("mean", "max"):
        assert with_copies.threshold(0.1, of=of) == pytest.approx(with_outlier.threshold(0.1, of=of))
        assert with_copies.threshold(0.05, of=of) > once.threshold(0.1, of=of)


def test_groups_raise_the_threshold() -> None:
    frames = [atoms for seed in range(10) for atoms in rattled(4, 0.06 + 0.01 * seed, seed)]
    alone = Reference.fit(frames, 0.03, **SMALL).threshold(0.1)
    together = Reference.fit(frames, 0.03, groups=np.repeat(np.arange(10), 4), **SMALL).threshold(0.1)
    assert together > alone


def test_thresholds_are_found_anew_after_extending() -> None:
    reference = Reference.fit(rattled(20), 0.03, **SMALL)
    before = reference.threshold(0.1)
    with pytest.warns(DataWarning, match="at least 99 groups"):
        found = reference.as_threshold("auto")
    assert found == reference.threshold(0.01)  # told once
    reference.extend(rattled(20, 0.2, 5))
    whole = Reference.fit([*rattled(20), *rattled(20, 0.2, 5)], 0.03, **SMALL)
    assert reference.threshold(0.1) == pytest.approx(whole.threshold(0.1)) != pytest.approx(before)


def test_what_was_added_in_part_is_not_asked() -> None:
    reference = Reference.fit(rattled(20), 0.03, **SMALL)
    before = reference.leave_out()
    added = reference.extend(rattled(5, 0.25, 5), only_new=True, threshold=-2.0)
    assert 0 < added < 5 * 16
    after = reference.leave_out()
    np.testing.assert_array_equal(after.rows, before.rows)
    assert (after.dh <= before.dh + 1e-9).all()
    assert reference.in_part.tolist() == [False] * 20 + [True] * (reference.n_frames - 20)
    reference.extend(rattled(2, 0.25, 6))
    assert np.unique(reference.leave_out().frames).tolist() == [
        *range(20),
        reference.n_frames - 2,
        reference.n_frames - 1,
    ]
    assert set(leave_out(reference, most=20).frames.tolist()) < {
        *range(20),
        reference.n_frames - 2,
        reference.n_frames - 1,
    }


def test_bad_requests() -> None:
    reference = Reference.fit(rattled(3), 0.03, **SMALL)
    for rate in (0.0, 1.0, -0.1, math.nan, "often", 1e-17, 1e-310):
        with pytest.raises(ValueError, match="false_alarm must"):
            reference.threshold(rate)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="of must be one of"):
        reference.threshold(0.1, of="median")
    with pytest.raises(DataError, match=r"at least 9 groups.*there are 3"):
        reference.threshold(0.1, of="mean")
    with pytest.raises(DataError, match="at least two groups"):
        Reference.fit(rattled(1), 0.03).threshold(0.1)
    with pytest.raises(DataError, match="at least two groups"):
        Reference.fit([rattled(1)[0], turned(rattled(1)[0])], 0.03).threshold(0.1)
    with pytest.raises(DataError, match="at least two groups"):
        Reference.fit(rattled(3), 0.03, groups=["a"] * 3).threshold(0.1)


def test_real_data_keep_what_they_promise(data_dir: Path) -> None:
    """mlearn Si: 55 elastic structures hold 40 copies; the test set less its three copies is like the training set."""
    reference = Reference.fit(data_dir / "mlearn_Si_train.xyz")
    found = reference.leave_out()
    assert np.count_nonzero(~found.first_copy) == 40
    from ase.io import read

    frames = read(data_dir / "mlearn_Si_test.xyz", ":")
    both = describe([*read(data_dir / "mlearn_Si_train.xyz", ":"), *frames])
    first = find_copies(both.x, both.numbers, both.frame_offsets)[214:]
    assert np.count_nonzero(first < 214) == 3
    fresh = [atoms for atoms, place in zip(frames, first, strict=True) if place >= 214]
    for rate in (0.01, 0.05):
        share = float(np.mean(reference.is_novel(fresh, reference.threshold(rate))))
        assert rate / 3.0 < share < 3.0 * rate
