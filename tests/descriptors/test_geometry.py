"""Periodic geometry, judged by an outsider: the neighbour list of ASE.

ASE gives the distances, and X1 follows from them; X2 is judged by the twin, whose distances are judged by ASE too.
"""

from __future__ import annotations

import math

import naive
import numpy as np
import numpy.typing as npt
import pytest
import structures
from structures import ALL_PBC, Structure

from quests_zenn.descriptors import describe, get_descriptors

K = 24


def ase_distances(structure: Structure, cutoff: float) -> list[npt.NDArray[np.float64]]:
    """Sorted distances from each atom to its neighbours, by ASE."""
    from ase.neighborlist import neighbor_list

    positions, cell, pbc, numbers = structure
    clean = np.where(np.array(pbc)[:, None], cell, 0.0)  # ASE completes what is missing
    i, d = neighbor_list("id", structures.as_atoms((positions, clean, pbc, numbers)), cutoff)
    return [np.sort(d[i == atom]) for atom in range(len(positions))]


def x1_of_distances(distances: list[npt.NDArray[np.float64]], k: int, cutoff: float) -> npt.NDArray[np.float64]:
    x1 = np.zeros((len(distances), k))
    for atom, r in enumerate(distances):
        near = r[:k]
        x1[atom, : len(near)] = (1.0 - (near / cutoff) ** 2) ** 2 / near
    return x1


def assert_judged(structure: Structure, cutoff: float = 5.0, k: int = K, atol: float = 1e-12) -> None:
    """Distances as ASE finds them; X2 and the number of incomplete environments as they follow."""
    positions, cell, pbc, numbers = structure
    ours = describe((positions, cell, pbc, numbers), k, cutoff, jobs=1)
    distances = ase_distances(structure, cutoff)
    found = naive.neighbours(positions, cell, pbc, cutoff)
    assert [len(d) for d in distances] == [len(environment) for environment in found]
    np.testing.assert_allclose(ours.x[:, :k], x1_of_distances(distances, k, cutoff), rtol=1e-11, atol=atol)
    np.testing.assert_allclose(ours.x, naive.descriptor(positions, cell, pbc, k, cutoff), rtol=1e-11, atol=atol)
    assert ours.n_incomplete == sum(len(d) < k for d in distances)


SHAPES = {
    "cubic": np.diag([6.0, 6.0, 6.0]),
    "orthorhombic": np.diag([5.1, 6.7, 8.9]),
    "triclinic": np.array([[6.0, 0.4, -0.3], [1.9, 5.6, 0.7], [-1.2, 2.1, 6.3]]),
    "left-handed": np.array([[6.0, 0.4, -0.3], [-1.2, 2.1, 6.3], [1.9, 5.6, 0.7]]),
    "obtuse": np.array([[7.0, 0.0, 0.0], [-4.5, 5.5, 0.0], [-3.0, -4.0, 6.5]]),
    "flat and wide": np.diag([14.0, 13.0, 1.9]),
    "needle": np.array([[1.9, 0.0, 0.0], [0.3, 2.1, 0.0], [0.2, -0.4, 40.0]]),
}


@pytest.mark.parametrize("pbc", ALL_PBC)
@pytest.mark.parametrize("shape", SHAPES)
def test_all_eight_choices_of_periodic_axes(shape: str, pbc: tuple[bool, bool, bool]) -> None:
    assert_judged(structures.gas(9, SHAPES[shape], pbc, least=1.4, seed=1))


@pytest.mark.parametrize("pbc", ALL_PBC)
def test_pbc_triples_differ(pbc: tuple[bool, bool, bool]) -> None:
    """The flags mean what they say: each triple sees other neighbours than full periodicity does."""
    positions, cell, _, numbers = structures.gas(9, SHAPES["triclinic"], least=1.4, seed=1)
    full = get_descriptors((positions, cell, (True, True, True), numbers), K)
    this = get_descriptors((positions, cell, pbc, numbers), K)
    assert np.array_equal(full, this) == all(pbc)


@pytest.mark.parametrize("turns", [1, 3, -4, 7])
@pytest.mark.parametrize("pbc", ALL_PBC[1:])
def test_sheared_by_whole_vectors(turns: int, pbc: tuple[bool, bool, bool]) -> None:
    """The same lattice, described by cells sheared by several of their own lengths (along periodic axes only)."""
    positions, cell, _, numbers = structures.gas(8, SHAPES["triclinic"], pbc, least=1.4, seed=2)
    skewed = cell.copy()
    for a, b in ((0, 1), (0, 2), (1, 2)):
        if pbc[a] and pbc[b]:
            skewed[a] += turns * cell[b]
    plain = get_descriptors((positions, cell, pbc, numbers), K)
    np.testing.assert_allclose(get_descriptors((positions, skewed, pbc, numbers), K), plain, atol=1e-12)
    assert_judged((positions, skewed, pbc, numbers))


@pytest.mark.parametrize("shear", [0.37, 1.5, 2.73, -5.2])
def test_sheared_by_broken_amounts(shear: float) -> None:
    """Skewed beyond recognition, and not equivalent to anything simple."""
    cell = np.array([[5.5, 0.0, 0.0], [5.5 * shear, 6.1, 0.0], [-4.0 * shear, 6.1 * shear, 5.8]])
    assert_judged(structures.gas(8, cell, least=1.4, seed=3))


@pytest.mark.parametrize("angles", [(90, 90, 5), (5, 90, 90), (60, 60, 5), (8, 7, 6), (170, 90, 90), (119, 119, 119)])
def test_extreme_angles(angles: tuple[float, float, float]) -> None:
    from ase.geometry import cellpar_to_cell

    cell = cellpar_to_cell([22.0, 21.0, 20.0, *angles])
    assert_judged(structures.gas(4, cell, least=0.9, seed=4))


def test_three_vectors_at_120_degrees() -> None:
    """No pair of vectors can be shortened by the other, yet their sum is short."""
    third = 2 * math.pi / 3
    cell = np.array([[9 * math.cos(a * third), 9 * math.sin(a * third), 0.9] for a in range(3)])
    assert_judged(structures.gas(5, cell, least=0.9, seed=5), cutoff=4.0)


@pytest.mark.parametrize("shape", SHAPES)
def test_handedness_does_not_matter(shape: str) -> None:
    positions, cell, pbc, numbers = structures.gas(9, SHAPES[shape], least=1.4, seed=6)
    right = get_descriptors((positions, cell, pbc, numbers), K)
    for order in ([1, 0, 2], [0, 2, 1], [2, 1, 0]):
        left = get_descriptors((positions, cell[order], pbc, numbers), K)
        np.testing.assert_allclose(left, right, atol=1e-13)
    np.testing.assert_allclose(get_descriptors((positions, -cell, pbc, numbers), K), right, atol=1e-13)


@pytest.mark.parametrize("pbc", ALL_PBC)
@pytest.mark.parametrize("length", [0.8, 1.7, 2.6, 5.0, 5.1, 12.0])
def test_one_atom(length: float, pbc: tuple[bool, bool, bool]) -> None:
    """An atom among its own images, from cells far smaller than the cutoff to none in sight."""
    cell = length * np.array([[1.0, 0.02, 0.01], [0.03, 1.11, 0.0], [0.0, -0.05, 1.23]])
    assert_judged((np.array([[0.3, -4.0, 7.7]]), cell, pbc, np.array([29])), k=16)


@pytest.mark.parametrize("cutoff", [1.9, 3.6, 7.2, 10.0])
def test_cutoff_beyond_the_cell(cutoff: float) -> None:
    for shape in ("cubic", "triclinic"):
        assert_judged(structures.gas(3, SHAPES[shape] * 0.55, least=1.2, seed=7), cutoff=cutoff)


def test_cutoff_that_divides_the_cell() -> None:
    """Bins exactly as wide as the cutoff, atoms exactly on their edges."""
    grid = 2.5 * np.array([[x, y, z] for x in range(4) for y in range(4) for z in range(4)], dtype=float)
    assert_judged((grid, np.eye(3) * 10, (True, True, True), np.full(64, 29)), cutoff=5.0, k=6)
    assert_judged((grid, np.eye(3) * 10, (False, False, False), np.full(64, 29)), cutoff=2.5 + 1e-9, k=6)


@pytest.mark.parametrize("pbc", ALL_PBC)
def test_many_bins(pbc: tuple[bool, bool, bool]) -> None:
    """A cell of many cutoffs, sparse and dense in places."""
    rng = np.random.default_rng(8)
    positions = np.concatenate([rng.random((40, 3)) * 14.0, rng.normal(size=(25, 3)) * 2.0 + 7.0])
    cell = np.array([[14.0, 0.5, 0.0], [-0.7, 14.5, 0.3], [0.2, 1.0, 15.0]])
    assert_judged((positions, cell, pbc, np.full(65, 1)), cutoff=2.5, atol=1e-11)


# --- cells that mean nothing along some axes --------------------------------------------------------------------------


@pytest.mark.parametrize("pbc", ALL_PBC[:-1])
@pytest.mark.parametrize("garbage", ["zero", "tiny", "huge", "parallel", "nan", "inf"])
def test_vectors_along_non_periodic_axes_mean_nothing(garbage: str, pbc: tuple[bool, bool, bool]) -> None:
    positions, cell, _, numbers = structures.gas(9, SHAPES["triclinic"], pbc, least=1.4, seed=9)
    strange = cell.copy()
    used = cell[np.array(pbc)]
    for axis in np.flatnonzero(~np.array(pbc)):
        strange[axis] = {
            "zero": np.zeros(3),
            "tiny": np.array([1e-30, 0.0, 0.0]),
            "huge": np.array([1e30, -1e30, 5.0]),
            "parallel": 2.0 * used[0] if len(used) else np.ones(3),
            "nan": np.full(3, np.nan),
            "inf": np.full(3, np.inf),
        }[garbage]
    plain = get_descriptors((positions, cell, pbc, numbers), K)
    np.testing.assert_array_equal(get_descriptors((positions, strange, pbc, numbers), K), plain)
    assert_judged((positions, strange, pbc, numbers))


def test_no_cell() -> None:
    positions, _, _, numbers = structures.molecule()
    plain = get_descriptors((positions, None, False, numbers), K)
    np.testing.assert_array_equal(get_descriptors((positions, np.zeros((3, 3)), (False,) * 3, numbers), K), plain)
    np.testing.assert_array_equal(get_descriptors((positions, np.eye(3), False, numbers), K), plain)


@pytest.mark.parametrize("name", ["H2", "H2O", "CO2", "CH3CH2OH", "C6H6"])
def test_molecules(name: str) -> None:
    assert_judged(structures.molecule(name))
    assert_judged(structures.molecule(name), cutoff=1.2)


@pytest.mark.parametrize("name", ["H2O", "C6H6"])
def test_molecule_in_a_huge_box_is_a_molecule(name: str) -> None:
    positions, _, _, numbers = structures.molecule(name)
    alone = get_descriptors((positions, None, False, numbers), K)
    for side in (40.0, 1e4, 1e7):
        boxed = get_descriptors((positions, np.eye(3) * side, True, numbers), K)
        np.testing.assert_allclose(boxed, alone, atol=1e-8 * max(1.0, side / 1e6))
    assert_judged((positions, np.eye(3) * 60.0, (True, True, True), numbers))


def test_slab_is_no_molecule_and_no_bulk() -> None:
    positions, cell, _, numbers = structures.fcc(rattle=0.05, seed=10)
    slab = get_descriptors((positions, cell, (True, True, False), numbers))
    assert_judged((positions, cell, (True, True, False), numbers), k=32)
    assert not np.allclose(slab, get_descriptors((positions, cell, True, numbers)), atol=1e-3)
    assert not np.allclose(slab, get_descriptors((positions, cell, False, numbers)), atol=1e-3)
    vacuum = cell + np.diag([0.0, 0.0, 30.0])
    np.testing.assert_allclose(get_descriptors((positions, vacuum, True, numbers)), slab, atol=1e-12)


# --- atoms far away ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pbc", ALL_PBC)
def test_atoms_far_outside_the_cell(pbc: tuple[bool, bool, bool]) -> None:
    """Unwrapped trajectories: atoms many cells away along periodic axes, clusters far from the cell along others."""
    positions, cell, _, numbers = structures.gas(9, SHAPES["triclinic"], pbc, least=1.4, seed=11)
    turns = np.random.default_rng(12).integers(-60, 60, size=(9, 3)) * np.array(pbc)
    away = positions + turns @ cell + np.array([300.0, -200.0, 150.0])
    plain = get_descriptors((positions, cell, pbc, numbers), K)
    np.testing.assert_allclose(get_descriptors((away, cell, pbc, numbers), K), plain, atol=1e-11)
    assert_judged((away, cell, pbc, numbers), atol=1e-11)


def test_two_clusters_worlds_apart() -> None:
    """The grid of bins stays small however far the atoms are; neither cluster sees the other."""
    a, _, _, numbers = structures.molecule("H2O")
    far = np.concatenate([a, a + np.array([4e6, -3e6, 1e5])])
    x = get_descriptors((far, None, False, np.tile(numbers, 2)), K)
    alone = get_descriptors((a, None, False, numbers), K)
    np.testing.assert_array_equal(x[:3], alone)
    np.testing.assert_allclose(x[3:], alone, atol=1e-8)  # positions of 4e6 Å keep 1e-9 Å


def test_atoms_on_faces_edges_and_corners() -> None:
    """Fractional coordinates of exactly 0 and 1, and a rounding error to either side of them."""
    up, down = np.nextafter(1.0, 2.0), np.nextafter(1.0, 0.0)
    fractional = np.array([[0.0, 0.0, 0.0], [0.5, up, 1e-17], [down, 0.5, 0.5], [0.5, 0.5, -1e-17], [1.0, 1.0, 0.5]])
    cell = SHAPES["triclinic"] * 1.3
    assert_judged((fractional @ cell, cell, (True, True, True), np.full(5, 29)))
