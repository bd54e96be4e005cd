"""What stands out in a data set, and why."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import structures
from ase.io import read
from structures import Structure

from quests_zenn._core.checks import DataError
from quests_zenn.descriptors import describe
from quests_zenn.uq import Reference
from quests_zenn.uq.outliers import Outliers, find_outliers, neighbour_distances

H = 0.03


def crystals(
    n: int, seed: int = 1, amplitude: float = 0.05, repeat: tuple[int, int, int] = (2, 2, 2)
) -> list[Structure]:
    return [structures.fcc(repeat=repeat, rattle=amplitude, seed=100 * seed + i) for i in range(n)]


def distances_of(structure: Structure, atom: int, cutoff: float = 5.0) -> npt.NDArray[np.float64]:
    """Distances of all neighbours inside the cutoff, images included, in ascending order."""
    positions, cell, pbc, _ = structure
    steps = [range(-3, 4) if periodic else (0,) for periodic in pbc]
    shifts = np.array([[a, b, c] for a in steps[0] for b in steps[1] for c in steps[2]]) @ cell
    apart = np.linalg.norm((positions - positions[atom])[:, None, :] + shifts, axis=2).ravel()
    return np.sort(apart[(apart > 1e-9) & (apart <= cutoff)])


@pytest.mark.parametrize("structure", [*crystals(1), structures.molecule()])
def test_distances_are_read_from_the_descriptor(structure: Structure) -> None:
    env = describe([structure], k=20)
    for atom in range(len(structure[0])):
        expected = distances_of(structure, atom)[:20]
        found = neighbour_distances(env.x[atom], 20, 5.0)
        n = len(expected)
        np.testing.assert_allclose(found[:n], expected, rtol=0.0, atol=1e-6)
        assert np.isposinf(found[n:]).all()


def test_a_displaced_atom_ranks_first_with_the_right_reason() -> None:
    frames = crystals(12)
    positions, cell, pbc, numbers = frames[7]
    positions = positions.copy()
    # towards its nearest neighbour, up to 1.6 Å
    apart = positions - positions[5]
    apart -= np.rint(apart @ np.linalg.inv(cell)) @ cell
    length = np.linalg.norm(apart, axis=1)
    length[5] = np.inf
    nearest = int(length.argmin())
    positions[5] += apart[nearest] * (1.0 - 1.6 / length[nearest])
    frames[7] = (positions, cell, pbc, numbers)
    found = find_outliers(frames, 5, bandwidth=H)
    first, second = found.atoms[:2]
    assert {first.atom, second.atom} == {5, nearest}
    for item in (first, second):
        assert item.frame == 7
        assert item.nearest_frame != 7
        assert item.element == item.nearest_element == "Cu"
        assert item.neighbour == 1
        assert item.here == pytest.approx(1.6, abs=1e-6)
        known = distances_of(frames[item.nearest_frame], item.nearest_atom)
        assert item.there == pytest.approx(known[0], abs=1e-6)
        assert item.reason.startswith(f"nearest neighbour at 1.60 Å, there at {known[0]:.2f} Å")
    assert found.frame_order[0] == 7
    # the one that moved has left its place, too
    assert first.atom == 5


def test_scores_are_those_of_all_other_groups() -> None:
    frames = crystals(8, repeat=(2, 2, 1))
    env = describe(frames, 12)
    codes = np.array([0, 0, 1, 1, 2, 2, 3, 3])
    for groups in (None, codes):
        found = find_outliers(frames, 200, bandwidth=H, k=12, groups=groups)
        member = np.repeat(np.arange(8) if groups is None else codes, 16)
        squared = ((env.x[:, None, :] - env.x[None]) ** 2).sum(axis=2)
        terms = np.where(member[:, None] == member[None, :], -np.inf, -squared / (2.0 * H**2))
        expected = -np.logaddexp.reduce(terms, axis=1)
        np.testing.assert_allclose(found.dh, expected, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(found.mean, expected.reshape(8, 16).mean(axis=1), rtol=1e-9)
        np.testing.assert_allclose(found.max, expected.reshape(8, 16).max(axis=1), rtol=1e-9)
        assert found.frame_order.tolist() == np.argsort(-found.mean).tolist()
        assert [item.row for item in found.atoms] == np.argsort(-found.dh, kind="stable").tolist()
        nearest = np.where(member[:, None] == member[None, :], np.inf, squared).argmin(axis=1)
        for item in found.atoms:
            assert item.row == 16 * item.frame + item.atom
            assert item.nearest_row == nearest[item.row] == 16 * item.nearest_frame + item.nearest_atom
            assert item.distance == pytest.approx(math.sqrt(squared[item.row, item.nearest_row]))
            assert item.dh_nearest == pytest.approx(item.distance**2 / (2.0 * H**2))
            assert item.dh_nearest >= item.dh
            difference = (env.x[item.row] - env.x[item.nearest_row]) ** 2
            assert item.share_of_neighbours == pytest.approx(difference[:12].sum() / difference.sum())
            assert item.neighbour == difference[:12].argmax() + 1
            assert (item.n_here, item.n_there) == (
                min(12, len(distances_of(frames[item.frame], item.atom))),
                min(12, len(distances_of(frames[item.nearest_frame], item.nearest_atom))),
            )


def test_copies_count_once_and_know_nothing_of_each_other() -> None:
    frames = crystals(6, repeat=(2, 2, 1))
    strange = structures.fcc(repeat=(2, 2, 1), rattle=0.2, seed=9)
    turned = structures.rotation(3)
    copy = (strange[0] @ turned, strange[1] @ turned, strange[2], strange[3])
    alone = find_outliers([*frames, strange], 3, bandwidth=H, k=12)
    both = find_outliers([*frames, strange, copy], 3, bandwidth=H, k=12)
    assert both.first_copy.tolist() == [True] * 7 + [False]
    assert both.groups[6] == both.groups[7]
    assert [item.row for item in alone.atoms] == [item.row for item in both.atoms]
    np.testing.assert_allclose(both.dh[96:112], alone.dh[96:112], rtol=1e-9)
    np.testing.assert_allclose(both.dh[112:], alone.dh[96:112], rtol=1e-6)
    assert len(both.frame_order) == 7


def test_arguments_choose_what_is_ranked() -> None:
    frames = crystals(6, repeat=(2, 2, 1))
    everything = find_outliers(frames, 10, bandwidth=H)
    assert len(everything.atoms) == 10
    assert len({item.frame for item in everything.atoms}) < 6
    each = find_outliers(frames, 10, bandwidth=H, one_per_frame=True)
    assert sorted(item.frame for item in each.atoms) == list(range(6))
    for item in each.atoms:
        assert item.dh == each.max[item.frame]
    few = find_outliers(frames, 10, bandwidth=H, among=np.array([3, 50, 17]))
    assert sorted(item.row for item in few.atoms) == [3, 17, 50]
    np.testing.assert_array_equal(few.dh, everything.dh)


def rows_of(found: Outliers) -> list[int]:
    return [item.row for item in found.atoms]


def test_parameters_reach_the_descriptor() -> None:
    frames = crystals(6, repeat=(2, 2, 1))
    base = find_outliers(frames, 5, bandwidth=H)
    for more in ({"bandwidth": 0.06}, {"k": 8}, {"cutoff": 4.0}):
        assert not np.array_equal(find_outliers(frames, 5, **({"bandwidth": H} | more)).dh, base.dh)
    made = find_outliers(Reference.fit(frames, H), 5)
    assert rows_of(made) == rows_of(base)
    np.testing.assert_array_equal(made.dh, base.dh)


def test_species() -> None:
    frames = []
    for number, (positions, cell, pbc, numbers) in enumerate(crystals(6, repeat=(2, 2, 1))):
        kinds = numbers.copy()
        kinds[::4] = 47
        if number == 2:
            kinds[1] = 79
        frames.append((positions, cell, pbc, kinds))
    blind = find_outliers(frames, 100, bandwidth=H, k=12)
    assert any(item.element != item.nearest_element for item in blind.atoms)
    assert any("the atom there is" in item.reason for item in blind.atoms)
    assert np.isfinite(blind.dh).all()
    seeing = find_outliers(frames, 100, bandwidth=H, k=12, species="blocks")
    first = seeing.atoms[0]
    assert np.isposinf(first.dh)
    assert (first.element, first.frame, first.atom) == ("Au", 2, 1)
    assert first.reason == "no other group holds Au"
    assert (first.nearest_row, first.nearest_frame) == (-1, -1)
    assert all(item.element == item.nearest_element for item in seeing.atoms[1:])
    assert any("the elements around it differ" in item.reason for item in seeing.atoms[1:])


def reason_of(strange: Structure, k: int = 12) -> str:
    frames = [*crystals(6, amplitude=0.02, repeat=(2, 2, 2)), strange]
    first = find_outliers(frames, 1, bandwidth=H, k=k).atoms[0]
    assert first.frame == 6
    return first.reason


def test_reasons() -> None:
    assert reason_of(structures.fcc(a=3.615 * 0.9)).startswith(
        "all neighbours 9% closer than there (the nearest at 2.30 Å"
    )
    assert reason_of(structures.fcc(a=3.615 * 1.1)).startswith("all neighbours 9% farther than there")
    positions, cell, pbc, numbers = structures.fcc(rattle=0.02, seed=7)
    slab = (positions, cell + np.diag([0.0, 0.0, 20.0]), pbc, numbers)
    reason = reason_of(slab, k=32)
    assert "neighbours within 5 Å, there 32 or more" in reason


def test_equal_environments_of_other_groups() -> None:
    """Frames that share some environments are no copies of each other, and know those."""
    positions, _, _, numbers = structures.fcc(rattle=0.05, seed=1)
    far = 100.0 + structures.molecule()[0]
    box, open_ = 200.0 * np.eye(3), (False, False, False)
    frames: list[Structure] = [
        (positions, box, open_, numbers),
        (np.concatenate([positions, far]), box, open_, np.concatenate([numbers, structures.molecule()[3]])),
        *crystals(2),
    ]
    found = find_outliers(frames, 200, bandwidth=H)
    assert found.first_copy.all()
    equal = [item for item in found.atoms if item.reason == "equal to one of another group"]
    assert sorted((item.frame, item.atom) for item in equal) == [(f, atom) for f in (0, 1) for atom in range(32)]
    assert all(
        item.distance == 0.0 and item.atom == item.nearest_atom and math.isnan(item.share_of_neighbours)
        for item in equal
    )


def test_bad_input() -> None:
    with pytest.raises(DataError, match="at least two groups"):
        find_outliers(crystals(1))
    with pytest.raises(DataError, match="at least two groups"):
        find_outliers(crystals(3), groups=[1, 1, 1])
    with pytest.raises(ValueError, match="number must be a whole number of at least 1"):
        find_outliers(crystals(3), 0)


def test_any_number_of_threads() -> None:
    frames = crystals(6)
    one, three = (find_outliers(frames, 10, bandwidth=H, jobs=jobs) for jobs in (1, 3))
    np.testing.assert_array_equal(one.dh, three.dh)
    assert one.atoms == three.atoms


# --- real data --------------------------------------------------------------------------------------------------------


def test_surfaces_stand_out_in_silicon(data_dir: Path) -> None:
    frames = read(data_dir / "mlearn_Si_train.xyz", ":")
    found = find_outliers(frames, 2, bandwidth=H)
    for item in found.atoms:
        assert frames[item.frame].info["config_type"] == "Surface"
        assert item.n_here < item.n_there
        assert "17 neighbours within 5 Å, there 23" in item.reason
    assert np.count_nonzero(~found.first_copy) == 40


def test_extreme_volumes_stand_out_in_tantalum(data_dir: Path) -> None:
    frames = read(data_dir / "Ta_fitsnap.xyz", ":")
    found = find_outliers(frames, 10, bandwidth=H, one_per_frame=True)
    for item in found.atoms:
        assert frames[item.frame].info["config_type"].startswith("Volume")
        assert "closer than there" in item.reason
    smallest = min(frames, key=lambda atoms: atoms.get_volume() / len(atoms))
    assert frames[found.atoms[0].frame] is smallest
    assert frames[found.frame_order[0]] is smallest


def test_the_reason_names_the_element_of_the_neighbour() -> None:
    from ase.build import bulk

    frames = []
    for i in range(6):
        atoms = bulk("Cu", cubic=True) * (2, 2, 2)
        atoms.symbols[::4] = "Ag"
        atoms.rattle(0.05, seed=i)
        frames.append(atoms)
    frames[3].set_distance(0, 5, 1.5, fix=0)  # silver and copper
    for species in ("none", "blocks", "pairs"):
        found = find_outliers(frames, 40, k=12, bandwidth=0.03, species=species).atoms
        (silver,) = [item for item in found if (item.frame, item.atom) == (3, 0)]
        if species == "none":
            assert silver.neighbour_element == ""
            assert "(" not in silver.reason.split(";")[-1]
        elif species == "pairs" or silver.neighbour == 1:
            assert (silver.neighbour, silver.neighbour_element) == (1, "Cu")
            assert "nearest neighbour (Cu) at 1.50 Å" in silver.reason


def test_only_some_environments_are_asked_about() -> None:
    data = [structures.fcc(repeat=(2, 2, 1), rattle=0.05, seed=60 + i) for i in range(7)]
    data.append(data[2])
    whole = find_outliers(data, bandwidth=H)
    offsets = whole.reference.frame_offsets
    among = np.concatenate([np.arange(first, first + 3) for first in offsets[:-1].tolist()[:-1]])
    part = find_outliers(data, bandwidth=H, among=among)
    for f in range(len(data) - 1):
        own = whole.dh[offsets[f] : offsets[f] + 3]
        assert part.mean[f] == pytest.approx(own.mean(), rel=1e-12)
        assert part.max[f] == own.max()
    assert np.isnan(part.mean[-1])
    assert np.isnan(part.max[-1])
    assert len(data) - 1 not in part.frame_order
    assert len(part.frame_order) == whole.first_copy[:-1].sum()


def test_environments_that_are_not_there_are_refused() -> None:
    data = [structures.fcc(repeat=(2, 2, 1), rattle=0.05, seed=60 + i) for i in range(3)]
    for among in ([10**6], [-1], [1e6], [3, 3]):
        with pytest.raises(ValueError, match=r"^among must"):
            find_outliers(data, bandwidth=H, among=np.array(among))
