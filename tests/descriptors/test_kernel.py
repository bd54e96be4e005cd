"""The compiled kernel against its slow twin, and against values known by thought alone."""

from __future__ import annotations

import math

import naive
import numpy as np
import numpy.typing as npt
import pytest
import structures
from hypothesis import given
from hypothesis import strategies as st
from structures import Structure

from quests_zenn.descriptors import get_descriptors

#: Where the code takes another path: networks in registers (8, 16, 32 rows) and beyond, padding of vectors.
MANY_K = (2, 3, 8, 9, 16, 17, 31, 32, 33, 40, 64, 65)

CUBE = np.diag([7.0, 7.3, 7.6])


def twin(
    structure: Structure, k: int, cutoff: float, species: str = "none", elements: list[str] | None = None
) -> npt.NDArray[np.float64]:
    positions, cell, pbc, numbers = structure
    return naive.descriptor(positions, cell, pbc, k, cutoff, numbers, species, elements)


def assert_like_twin(structure: Structure, k: int, cutoff: float, species: str = "none") -> None:
    """Both precisions agree with the twin, as closely as their arithmetic allows."""
    expected = twin(structure, k, cutoff, species)
    double = get_descriptors(structure, k, cutoff, species, jobs=1)
    single = get_descriptors(structure, k, cutoff, species, "float32", jobs=1)
    assert double.dtype == np.float64
    assert single.dtype == np.float32
    assert double.shape == expected.shape
    np.testing.assert_allclose(double, expected, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(single, expected, rtol=0.0, atol=5e-7)


# --- values known by thought alone ------------------------------------------------------------------------------------


def test_small_dimer() -> None:
    r, cutoff = 2.0, 5.0
    x = get_descriptors((np.array([[0.0, 0, 0], [0, 0, r]]), None, False, [1, 1]), k=3, cutoff=cutoff)
    w = (1 - 0.16) ** 2
    np.testing.assert_allclose(x, [[w / r, 0, 0, 0, 0]] * 2, rtol=1e-15)


def test_small_right_triangle() -> None:
    """The corner sees two atoms at 3 and 4 Å that are 5 Å apart; the mean over k rows holds one pair twice."""
    points = np.array([[0.0, 0, 0], [3, 0, 0], [0, 4, 0]])
    x = get_descriptors((points, None, False, [1, 1, 1]), k=4, cutoff=10.0)
    w3, w4 = (1 - 0.09) ** 2, (1 - 0.16) ** 2
    expected = [w3 / 3, w4 / 4, 0, 0, 2 * math.sqrt(w3 * w4) / 5 / 4, 0, 0]
    np.testing.assert_allclose(x[0], expected, rtol=1e-15)


def test_small_single_atom_sees_nothing() -> None:
    x = get_descriptors((np.zeros((1, 3)), None, False, [1]), k=5)
    np.testing.assert_array_equal(x, np.zeros((1, 9)))


def test_small_cutoff_is_the_end_of_sight() -> None:
    points = np.array([[0.0, 0, 0], [5.0, 0, 0]])
    assert not get_descriptors((points, None, False, [1, 1]), k=2, cutoff=5.0).any()
    assert get_descriptors((points, None, False, [1, 1]), k=2, cutoff=5.0 + 1e-3).any()


def test_small_simple_cubic_first_shell() -> None:
    """k = 6 takes exactly the first shell: opposite pairs 2a apart, all others a sqrt(2)."""
    a, cutoff = 2.5, 4.0
    x = get_descriptors((np.zeros((1, 3)), a * np.eye(3), True, [29]), k=6, cutoff=cutoff)
    w = (1 - (a / cutoff) ** 2) ** 2
    rows = [w / (a * math.sqrt(2))] * 4 + [w / (2 * a)]
    np.testing.assert_allclose(x, [[w / a] * 6 + rows], rtol=1e-14)


# --- the twin ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [2, 8, 9, 17, 33])
@pytest.mark.parametrize("species", ["none", "blocks", "pairs"])
def test_small_gas_like_twin(k: int, species: str) -> None:
    assert_like_twin(structures.gas(7, CUBE, numbers=(1, 8), seed=k), k, 4.0, species)


@pytest.mark.parametrize("k", MANY_K)
@pytest.mark.parametrize("cutoff", [2.5, 5.0, 7.5])
def test_gas_like_twin(k: int, cutoff: float) -> None:
    """At 2.5 Å nearly all environments are incomplete, at 7.5 Å all are full up to k = 65."""
    assert_like_twin(structures.gas(18, CUBE, seed=k), k, cutoff)


@pytest.mark.parametrize("k", MANY_K)
def test_cluster_like_twin(k: int) -> None:
    """Without a cell an atom has at most 19 neighbours: m < k from k = 31 on, m = k before."""
    assert_like_twin(structures.gas(20, CUBE, (False, False, False), seed=k), k, 20.0)


@pytest.mark.parametrize("n", [*range(1, 12), 16, 17, 18, 32, 33, 34])
def test_every_number_of_neighbours_like_twin(n: int) -> None:
    """n - 1 neighbours each: all ways to fill the last vector, for k above and below."""
    structure = structures.gas(n, np.eye(3) * 9, (False, False, False), seed=n)
    for k in (2, 8, 16, 32, 40):
        assert_like_twin(structure, k, 30.0)


@pytest.mark.parametrize("k", [8, 32, 33, 65, 127, 128, 129, 140])
def test_more_neighbours_than_are_ranked_at_once_like_twin(k: int) -> None:
    """About 200 neighbours: lists are thinned by a histogram first, except where all of them are wanted."""
    structure = structures.fcc(repeat=(2, 1, 1), rattle=0.15, seed=k)
    neighbours = naive.neighbours(*structure[:3], 8.4)
    assert min(map(len, neighbours)) > 160
    assert_like_twin(structure, k, 8.4)


@pytest.mark.parametrize("k", [2, 32, 64])
@pytest.mark.parametrize("spread", [0.0, 1e-5, 1e-3])
def test_all_neighbours_at_nearly_one_distance_like_twin(k: int, spread: float) -> None:
    """A hollow ball of 180 atoms: one bucket of the histogram holds all neighbours of the centre."""
    rng = np.random.default_rng(3)
    i = np.arange(180) + 0.5
    polar, azimuth = np.arccos(1 - 2 * i / 180), np.pi * (1 + math.sqrt(5)) * i
    shell = np.stack([np.cos(azimuth) * np.sin(polar), np.sin(azimuth) * np.sin(polar), np.cos(polar)], axis=1)
    shell *= (4.0 + spread * rng.permutation(180) / 180)[:, None]
    positions = np.concatenate([[[0.0, 0.0, 0.0]], shell])
    numbers = np.ones(181, np.int64)
    got = get_descriptors((positions, None, False, numbers), k, 4.5)[0]
    environment = naive.neighbours(positions, None, (False,) * 3, 4.5)[0]
    assert len(environment) == 180
    np.testing.assert_allclose(got, naive.block(environment, k, 4.5), rtol=1e-12, atol=1e-14)


def test_crowd_in_the_first_bucket_like_twin() -> None:
    """150 atoms far closer than the cutoff: the histogram cannot thin, and must not lose any."""
    structure = structures.gas(150, np.eye(3) * 2.0, (False, False, False), least=0.2, seed=5)
    got = get_descriptors(structure, 20, 40.0)
    np.testing.assert_allclose(got, twin(structure, 20, 40.0), rtol=1e-11)


@pytest.mark.parametrize("k", [6, 13, 32, 40])
def test_ties_like_twin(k: int) -> None:
    """A perfect crystal: the twin orders equal distances by displacement, and so do we."""
    for cutoff in (5.0, 8.4):
        structure = structures.fcc(repeat=(1, 1, 1))
        np.testing.assert_allclose(get_descriptors(structure, k, cutoff), twin(structure, k, cutoff), rtol=1e-12)


# --- several elements -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("species", ["none", "blocks", "pairs"])
@pytest.mark.parametrize("numbers", [(29,), (8, 1), (47, 29, 79)])
@pytest.mark.parametrize("k", [3, 16, 32, 40])
def test_elements_like_twin(k: int, numbers: tuple[int, ...], species: str) -> None:
    structure = structures.gas(15, CUBE, numbers=numbers, seed=k)
    assert_like_twin(structure, k, 6.0, species)
    blocks = {"none": 1, "blocks": 1 + len(numbers), "pairs": 1 + len(numbers) * (len(numbers) + 1) // 2}[species]
    assert get_descriptors(structure, k, 6.0, species).shape == (15, blocks * (2 * k - 1))


@pytest.mark.parametrize("species", ["blocks", "pairs"])
def test_crowded_elements_like_twin(species: str) -> None:
    """More than 128 neighbours of one element: the histogram works on the neighbours of each block."""
    positions, cell, pbc, _ = structures.fcc(repeat=(2, 1, 1), rattle=0.15, seed=2)
    numbers = np.array([29, 29, 29, 29, 29, 29, 29, 47])
    assert_like_twin((positions, cell, pbc, numbers), 32, 8.4, species)


@pytest.mark.parametrize("species", ["blocks", "pairs"])
def test_lone_element_like_twin(species: str) -> None:
    """One silver atom in a cluster of copper: its own block is empty, its row is not."""
    positions, cell, pbc, numbers = structures.gas(12, CUBE, (False, False, False), seed=1)
    numbers[4] = 47
    structure = positions, cell, pbc, numbers
    assert_like_twin(structure, 8, 6.0, species)
    x = get_descriptors(structure, 8, 6.0, species).reshape(12, -1, 15)
    ag, cu = 1, 2  # alphabetical, after the block of all
    assert not x[:, ag].any()
    assert not x[4, cu].any()
    assert x[4, 0].any()


def test_lone_element_meets_its_own_image() -> None:
    structure = (np.array([[0.0, 0, 0], [1.9, 1.7, 2.1]]), 4.0 * np.eye(3), (True,) * 3, np.array([29, 47]))
    x = get_descriptors(structure, 8, 5.0, "blocks").reshape(2, 3, 15)
    assert x[1, 1].any()
    np.testing.assert_allclose(x[1, 1], x[0, 2], rtol=1e-13)


def test_one_element_block_repeats_the_whole() -> None:
    structure = structures.gas(20, CUBE, seed=7)
    whole = get_descriptors(structure, 16)
    np.testing.assert_array_equal(get_descriptors(structure, 16, species="blocks"), np.hstack([whole, whole]))
    np.testing.assert_array_equal(get_descriptors(structure, 16, species="pairs"), np.hstack([whole, whole]))


def test_none_is_blind_to_elements() -> None:
    positions, cell, pbc, _ = structures.gas(10, CUBE, seed=8)
    same = get_descriptors((positions, cell, pbc, np.full(10, 29)))
    mixed = get_descriptors((positions, cell, pbc, np.arange(1, 11)))
    np.testing.assert_array_equal(same, mixed)


# --- anything ---------------------------------------------------------------------------------------------------------


@given(
    n=st.integers(1, 14),
    k=st.integers(2, 40),
    cutoff=st.floats(1.0, 9.0),
    pbc=st.sampled_from(structures.ALL_PBC),
    species=st.sampled_from(["none", "blocks", "pairs"]),
    seed=st.integers(0, 1000),
)
def test_anything_like_twin(
    n: int, k: int, cutoff: float, pbc: tuple[bool, bool, bool], species: str, seed: int
) -> None:
    cell = np.diag([5.0, 5.5, 6.0]) + np.random.default_rng(seed).normal(size=(3, 3))
    structure = structures.gas(n, cell, pbc, (1, 6, 8), least=1.2, seed=seed)
    expected = twin(structure, k, cutoff, species)
    np.testing.assert_allclose(get_descriptors(structure, k, cutoff, species), expected, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_values_are_finite_and_sorted(dtype: str) -> None:
    x = get_descriptors(structures.fcc(rattle=0.3, seed=4), dtype=dtype)
    assert np.isfinite(x).all()
    assert (x >= 0).all()
    assert (np.diff(x[:, :32], axis=1) <= 0).all()
    assert (np.diff(x[:, 32:], axis=1) <= 0).all()
