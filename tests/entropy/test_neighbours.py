"""Nearest environments against all distances, computed one by one."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from quests_zenn._core.parallel import Workers
from quests_zenn.entropy import _neighbours
from quests_zenn.entropy._neighbours import SPARE, find_neighbours, nearest

Array = npt.NDArray[Any]

PRECISIONS = ("float64", "float32")


def cloud(n: int, d: int, seed: int = 0) -> Array:
    """Environments at distances of about 2, whatever their width."""
    return np.random.default_rng([seed, n, d]).normal(size=(n, d)) * math.sqrt(2.0 / d)


def distances_one_by_one(y: Array, x: Array, same: bool = False) -> Array:
    """All |y_i - x_j| (len(y), len(x)), from differences; infinite between a row and itself for `same`."""
    y, x = y.astype(np.float64), x.astype(np.float64)
    out = np.array([np.sqrt(((x - row) ** 2).sum(axis=1)) for row in y])
    if same:
        np.fill_diagonal(out, np.inf)
    return out


def judge(y: Array, x: Array, n: int, same: bool = False, precision: str = "float64", atol: float = 0.0) -> None:
    """The n nearest are those, in order; each has the distance that is said, is named once, and is not itself."""
    with Workers(1) as workers:
        indices, distances = nearest(y, x, n, same=same, precision=precision, workers=workers)
    assert indices.shape == distances.shape == (len(y), n)
    assert (indices.dtype, distances.dtype) == (np.int64, np.float64)
    every = distances_one_by_one(y, x, same)
    np.testing.assert_allclose(distances, np.sort(every, axis=1)[:, :n], rtol=1e-12, atol=atol)
    np.testing.assert_allclose(distances, np.take_along_axis(every, indices, axis=1), rtol=1e-12)
    assert (np.diff(distances, axis=1) >= 0.0).all()
    assert all(len(set(row)) == n for row in indices.tolist())


# --- against all distances --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("rows", "d"), [(1, 63), (2, 1), (17, 63), (511, 1), (513, 63), (2100, 63), (2100, 1)])
def test_neighbours_within_a_set(rows: int, d: int, precision: str) -> None:
    x = cloud(rows, d)
    for n in sorted({0, 1, min(20, rows - 1), min(40, rows - 1)} - {-1}):
        if n < rows:
            judge(x, x, n, True, precision)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    ("rows", "others", "d"), [(1, 1, 3), (1, 2100, 63), (700, 1, 63), (40, 600, 1), (530, 2100, 9)]
)
def test_neighbours_in_another_set(rows: int, others: int, d: int, precision: str) -> None:
    y, x = cloud(rows, d, seed=1), cloud(others, d)
    for n in sorted({0, 1, min(25, others)}):
        judge(y, x, n, False, precision)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_all_rows_can_be_asked_for(precision: str) -> None:
    x, y = cloud(90, 5), cloud(7, 5, seed=1)
    judge(y, x, 90, False, precision)
    judge(x, x, 89, True, precision)
    judge(x, x, 90, False, precision)  # each finds itself first
    with Workers(1) as workers:
        indices, distances = nearest(x, x, 1, precision=precision, workers=workers)
    np.testing.assert_array_equal(indices[:, 0], np.arange(90))
    assert (distances == 0.0).all()


def test_nothing_asked_for() -> None:
    with Workers(1) as workers:
        for y, n in ((cloud(5, 3), 0), (np.empty((0, 3)), 2)):
            indices, distances = nearest(y, cloud(9, 3), n, workers=workers)
            assert indices.shape == distances.shape == (len(y), n)


sets = st.tuples(st.integers(1, 40), st.integers(1, 9)).flatmap(
    lambda shape: hnp.arrays(np.float64, shape, elements=st.floats(-20.0, 20.0, width=32), fill=st.nothing())
)


@given(x=sets, share=st.floats(0.0, 1.0), precision=st.sampled_from(PRECISIONS))
def test_neighbours_in_anything(x: Array, share: float, precision: str) -> None:
    extent = float(np.ptp(x, axis=0).max())
    judge(x, x, int(share * (len(x) - 1)), True, precision, atol=1e-7 * extent)
    judge(x[:3], x, int(share * len(x)), False, precision, atol=1e-7 * extent)


# --- ties and copies --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", PRECISIONS)
def test_ties_have_equal_distances(precision: str) -> None:
    """A cubic grid: 6 at 1, 12 at sqrt 2, 8 at sqrt 3. Which of them are named is open, how far they are is not."""
    steps = np.arange(9.0)
    x = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    judge(x, x, 20, True, precision)
    with Workers(1) as workers:
        middle = nearest(x, x, 26, same=True, precision=precision, workers=workers)[1][len(x) // 2]
    np.testing.assert_array_equal(middle, np.sqrt(np.repeat([1.0, 2.0, 3.0], [6, 12, 8])))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("copies", [2, SPARE, 5 * SPARE])
def test_copies_are_neighbours_and_oneself_is_not(copies: int, precision: str) -> None:
    x = np.repeat(cloud(30, 7), copies, axis=0)
    n = copies + 3
    judge(x, x, n, True, precision)
    with Workers(1) as workers:
        indices, distances = nearest(x, x, n, same=True, precision=precision, workers=workers)
    assert (indices != np.arange(len(x))[:, None]).all()
    assert ((distances == 0.0).sum(axis=1) == copies - 1).all()


def test_of_equal_distances_the_lower_index_comes_first() -> None:
    with Workers(1) as workers:
        indices, _ = nearest(np.zeros((1, 2)), np.zeros((6, 2)), 6, workers=workers)
    np.testing.assert_array_equal(indices, [np.arange(6)])


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("value", [0.0, 0.1, 1e3 / 3.0, -1e15, 1e-250])
def test_equal_rows(value: float, precision: str) -> None:
    """A set without width, whose mean may be a rounding off."""
    x = np.full((600, 3), value)
    judge(x, x, 40, True, precision)
    judge(x[:1], x[:1], 1, False, precision)
    judge(x[:1], x, 600, False, precision)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_two_points_far_apart(precision: str) -> None:
    """Neither set has a width of its own."""
    judge(np.array([[1.0, 5.0]]), np.array([[0.0, 5.0]]), 1, False, precision)
    judge(np.full((20, 2), 1e9), np.zeros((30, 2)), 30, False, precision)


# --- hard for single precision ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("apart", [1e-3, 1e-5])
def test_close_neighbours_in_a_wide_set(apart: float) -> None:
    """More of them than are kept to spare: single precision cannot order them, and must know."""
    x = np.repeat(cloud(40, 9), 60, axis=0) + apart * cloud(2400, 9, seed=1)
    judge(x, x, 8, True, "float32")
    judge(x, x, 8, True, "float64")
    y = x[::60] + apart * cloud(40, 9, seed=2)
    judge(y, x, 8, False, "float32")


def test_few_scattered_rows_against_tight_clusters() -> None:
    """Rows that are asked about share one wide block, references stand in tight ones: the rounding is in the rows."""
    places = 1e5 * np.random.default_rng(0).normal(size=(8, 3))
    x = np.repeat(places, 1024, axis=0) + 1e-2 * cloud(8192, 3, seed=1)
    y = places + 1e-2 * cloud(8, 3, seed=2)
    for precision in PRECISIONS:
        judge(y, x, 5, False, precision)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("far", [1e3, 1e12])
def test_outliers_do_not_hide_neighbours(far: float, precision: str) -> None:
    x = cloud(700, 5)
    x[[3, 350]] = far * cloud(2, 5, seed=1)
    judge(x, x, 12, True, precision)
    judge(x[:20], x, 12, False, precision)
    judge(x, x[:600], 12, False, precision)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_constant_columns_and_a_huge_offset(precision: str) -> None:
    x = cloud(900, 6)
    wider = np.concatenate([x[:, :3], np.full((900, 2), 1e8), x[:, 3:], np.zeros((900, 1))], axis=1)
    judge(wider, wider, 9, True, precision)
    moved = x + 1e6
    judge(moved, moved, 9, True, precision)
    judge(moved[:33] + 1.0, moved, 9, False, precision)
    judge(x[:33], moved, 9, False, precision)  # all of them far


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("factor", [1e-60, 1e60])
def test_the_unit_of_length_does_not_matter(factor: float, precision: str) -> None:
    x = factor * cloud(300, 4)
    judge(x, x, 7, True, precision)


def test_single_precision_input_is_taken_as_it_is() -> None:
    x = cloud(800, 9).astype(np.float32)
    for precision in PRECISIONS:
        judge(x, x, 9, True, precision)
        judge(x[:5].astype(np.float64), x, 9, False, precision)


# --- threads, progress ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", PRECISIONS)
def test_threads_do_not_change_a_bit(precision: str) -> None:
    x = np.concatenate([cloud(1500, 5), np.repeat(cloud(20, 5, seed=1), 40, axis=0)])
    found = []
    for jobs in (1, 2, 3):
        with Workers(jobs) as workers:
            found.append(nearest(x, x, 12, same=True, precision=precision, workers=workers))
    for indices, distances in found[1:]:
        np.testing.assert_array_equal(indices, found[0][0])
        np.testing.assert_array_equal(distances, found[0][1])


def test_progress_is_told() -> None:
    told: list[int] = []
    with Workers(1) as workers:
        nearest(cloud(300, 3), cloud(700, 3, seed=1), 4, workers=workers, progress=told.append)
    assert sum(told) >= 300 * 700


# --- the search that picks its method ---------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [200, 4500])
@pytest.mark.parametrize("n", [0, 5])
def test_an_exact_search_says_so(rows: int, n: int) -> None:
    x = cloud(rows, 5)
    with Workers(2) as workers:
        within = find_neighbours(x, x, n, True, 0, workers)
        against = find_neighbours(x[:50], x, n, False, 0, workers)
    assert within.recall == against.recall == 1.0
    some = slice(None, None, 45)
    expected = np.sort(distances_one_by_one(x, x, True)[some], axis=1)[:, :n]
    np.testing.assert_allclose(within.distances[some], expected, rtol=1e-12)
    np.testing.assert_allclose(against.distances, np.sort(distances_one_by_one(x[:50], x), axis=1)[:, :n], rtol=1e-12)
    assert within.indices.shape == (rows, n)
    assert (within.indices != np.arange(rows)[:, None]).all()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of another package, and what it compiles
def test_the_approximate_search_knows_what_it_finds(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyNNDescent, which takes a minute to compile."""
    from ase.io import read

    from quests_zenn.descriptors import get_descriptors

    x = get_descriptors(read(data_dir / "mlearn_Si_train.xyz", ":"))[::2]
    x[1] = x[0]  # a copy beside itself
    monkeypatch.setattr(_neighbours, "EXACT_SEARCH_UP_TO", 1000)
    with Workers(2) as workers:
        within = find_neighbours(x, x, 12, True, 0, workers)
        against = find_neighbours(x[:500], x[500:], 12, False, 0, workers)
        true = nearest(x, x, 12, same=True, workers=workers)
        true_against = nearest(x[:500], x[500:], 12, workers=workers)
    for found, (_, distances), own in ((within, true, True), (against, true_against, False)):
        assert found.indices.shape == found.distances.shape == distances.shape
        assert (found.indices.dtype, found.distances.dtype) == (np.int64, np.float64)
        assert not own or (found.indices != np.arange(len(x))[:, None]).all()
        share = float(np.mean(found.distances <= distances[:, -1:] * (1.0 + 1e-5)))
        assert 0.9 < share <= 1.0
        assert found.recall == pytest.approx(share, abs=0.05)
        assert (found.distances >= distances * (1.0 - 1e-4) - 1e-6).all()  # nearer than the nearest there is none
