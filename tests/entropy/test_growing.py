"""Sums over a growing set against their slow twin: what is up to date is right, and what is not is a bound.

Tests with `small` in their name also run in reasonable time with ``NUMBA_DISABLE_JIT=1``, on the plain twins of the
vector steps.
"""

from __future__ import annotations

import math

import naive
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from scipy.special import logsumexp

from quests_zenn._core.jit import strict_kernel
from quests_zenn._core.parallel import Workers
from quests_zenn.entropy import _growing
from quests_zenn.entropy._growing import (
    LEAST_SEEN,
    MOST_AXES,
    ROWS,
    WIDTH,
    Columns,
    GrowingSums,
    Space,
)

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

#: Either side of a panel.
COUNTS = (1, 2, 15, 16, 17, 31, 32, 33)
WIDTHS = (1, 2, 16, 17, 63)


def cloud(n: int, d: int, seed: int = 0) -> Array:
    """Environments at distances of about 2, whose components vary less and less, as descriptors do."""
    return 3.0 + np.random.default_rng([seed, n, d]).normal(size=(n, d)) / (1.0 + np.arange(d))


def judge(y: Array, x: Array, h: float) -> Array:
    """dH by distances and a log-sum-exp of SciPy: nothing of ours, nothing clever."""
    return -logsumexp(-cdist(y, x, "sqeuclidean") / (2.0 * h * h), axis=1)


def grown(space: Space, parts: list[Indices]) -> Columns:
    """Columns of a space, added part by part."""
    columns = Columns(space)
    for rows in parts:
        columns.add(space.z[rows], space.labels[rows])
    return columns


def dh_of(x: Array, h: float, added: Indices) -> Array:
    """dH of all rows after some were added at once."""
    with Workers(1) as workers:
        sums = GrowingSums(Space(x, h, None, workers))
        sums.columns.add(sums.space.z[added], sums.space.labels[added])
        sums.refresh(np.arange(len(x)), workers)
    return sums.dh


def assert_dh(found: Array, expected: Array) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


# --- the vector steps -------------------------------------------------------------------------------------------------


@strict_kernel
def add_squares(gathered, panels, at, first, last, totals, limits):  # type: ignore[no-untyped-def]
    return _growing.add_squares(gathered, panels, at, first, last, totals, limits)


@strict_kernel
def sum_terms(totals, at, peak):  # type: ignore[no-untyped-def]
    return _growing.sum_terms(totals, at, peak)


def test_small_vector_steps_against_their_plain_twins() -> None:
    rng = np.random.default_rng(0)
    d = 20
    gathered, panels = rng.normal(size=d * ROWS), rng.normal(size=3 * d * WIDTH)
    panels.reshape(3, d, WIDTH)[1, :, 11:] = np.inf  # lanes that nothing was put into
    limits = rng.normal(size=ROWS)
    limits[0], limits[1] = np.inf, -np.inf
    ours, plain = np.zeros(ROWS * WIDTH), np.zeros(ROWS * WIDTH)
    for first, last in ((0, 3), (3, 19)):
        left = add_squares(gathered, panels, d * WIDTH, first, last, ours, limits)
        assert left == _growing._plain_squares(gathered, panels, d * WIDTH, first, last, plain, limits) == np.inf
    np.testing.assert_allclose(ours, plain, rtol=1e-14)
    columns, rows = panels.reshape(3, d, WIDTH)[1], gathered.reshape(d, ROWS)
    expected = ((columns[:19, None] - rows[:19, :, None]) ** 2).sum(axis=0)
    np.testing.assert_allclose(ours.reshape(ROWS, WIDTH), expected, rtol=1e-14)
    limits[0] = -1.0
    left = add_squares(gathered, panels, d * WIDTH, 19, 20, ours, limits)
    assert left == pytest.approx(_growing._plain_squares(gathered, panels, d * WIDTH, 19, 20, plain, limits), rel=1e-14)
    assert left == pytest.approx((limits - ours.reshape(ROWS, WIDTH).min(axis=1)).max(), rel=1e-14)
    for peak in (-900.0, -30.0, -3.0, 0.0):
        at = 2 * WIDTH
        near = ours[at : at + WIDTH].copy()
        near[near < -peak] = -peak  # terms are at most 1
        expected = math.fsum(2.0 ** (-value - peak) for value in near.tolist())
        assert sum_terms(near, 0, peak) == pytest.approx(expected, rel=1e-13)
        assert _growing._plain_terms(near, 0, peak) == pytest.approx(expected, rel=1e-13)


def test_small_terms_of_lanes_that_are_not_there_vanish() -> None:
    totals = np.full(WIDTH, np.inf)
    totals[3], totals[4] = 5.0, 1e300
    assert sum_terms(totals, 0, 0.0) == pytest.approx(2.0**-5, rel=1e-13)
    assert sum_terms(totals, 0, -5.0) == pytest.approx(1.0, rel=1e-13)


# --- dH ---------------------------------------------------------------------------------------------------------------


def test_small_sums_by_hand() -> None:
    x = np.array([[0.0], [1.0], [3.0]])
    e = math.exp
    assert dh_of(x, 1.0, np.array([0])).tolist() == pytest.approx([0.0, 0.5, 4.5], rel=1e-15)
    expected = [-math.log(1.0 + e(-4.5)), -math.log(e(-0.5) + e(-2.0)), -math.log(1.0 + e(-4.5))]
    assert dh_of(x, 1.0, np.array([0, 2])).tolist() == pytest.approx(expected, rel=1e-14)


def test_small_rows_know_nothing_before_anything_was_added() -> None:
    with Workers(1) as workers:
        sums = GrowingSums(Space(cloud(5, 3), 0.3, None, workers))
        assert np.isposinf(sums.dh).all()
        assert sums.is_fresh(np.arange(5)).all()
        sums.refresh(np.arange(5), workers)
        sums.refresh(np.empty(0, np.int64), workers)
    assert np.isposinf(sums.dh).all()


@pytest.mark.parametrize("d", WIDTHS)
@pytest.mark.parametrize("count", COUNTS)
def test_small_sums_follow_the_formula(count: int, d: int) -> None:
    x = cloud(40, d)
    assert_dh(dh_of(x, 0.4, np.arange(count)), naive.delta_entropy(x, x[:count], 0.4))


@pytest.mark.parametrize("d", [2, 600])
@pytest.mark.parametrize("h", [0.02, 0.3, 3.0])
def test_sums_over_many_panels(d: int, h: float) -> None:
    x = cloud(3000 if d == 2 else 300, d)
    assert d < MOST_AXES or d > MOST_AXES
    added = np.random.default_rng(1).permutation(len(x))[: len(x) // 2]
    assert_dh(dh_of(x, h, added), judge(x, x[added], h))


@pytest.mark.parametrize("d", [1, 17, 63])
def test_single_precision_rows(d: int) -> None:
    x = cloud(200, d).astype(np.float32)
    wide = x.astype(np.float64)
    added = np.arange(0, 200, 3)
    assert_dh(dh_of(x, 0.3, added), judge(wide, wide[added], 0.3))


@given(
    n=st.integers(1, 60),
    d=st.sampled_from([1, 2, 5, 16, 17, 30]),
    h=st.sampled_from([0.05, 0.4, 2.0]),
    labels=st.integers(1, 3),
    seed=st.integers(0, 10_000),
)
def test_small_schedules(n: int, d: int, h: float, labels: int, seed: int) -> None:
    """Rows are added and others refreshed, in any order, to any floor: fresh ones are right, all others are bounds."""
    rng = np.random.default_rng(seed)
    x = cloud(n, d, seed)
    x[rng.random(n) < 0.3] = x[0]
    marks = rng.integers(labels, size=n)
    with Workers(1) as workers:
        sums = GrowingSums(Space(x, h, marks, workers, labels))
        added = np.empty(0, np.int64)
        for _ in range(6):
            new = rng.integers(n, size=rng.integers(1, 12))
            sums.columns.add(sums.space.z[new], marks[new])
            added = np.concatenate([added, new])
            asked = rng.permutation(n)[: rng.integers(n + 1)]
            floors = np.where(rng.random(len(asked)) < 0.5, -np.inf, rng.normal(size=len(asked)))
            sums.refresh(asked, workers, floors)
            truth = naive.labelled_delta_entropy(x, marks, x[added], marks[added], h)
            fresh = sums.is_fresh(np.arange(n))
            assert_dh(sums.dh[fresh], truth[fresh])
            assert (sums.dh >= truth - 1e-12 * np.minimum(1.0 + np.abs(truth), 1e6)).all()
            low = sums.dh[asked] < floors
            assert (fresh[asked] | low).all()


def test_rows_below_their_floor_are_left_there_and_taken_up_again() -> None:
    n = 4 * LEAST_SEEN
    x = cloud(n, 5)
    rows = np.arange(200)
    with Workers(1) as workers:
        sums = GrowingSums(Space(x, 0.5, None, workers))
        sums.columns.add(sums.space.z, sums.space.labels)
        truth = judge(x[rows], x, 0.5)
        floors = np.where(rows % 2 == 0, 0.0, truth - 0.1)
        sums.refresh(rows, workers, floors)
        left = ~sums.is_fresh(rows)
        assert left[::2].sum() > 50  # or this test is of no use
        assert not left[1::2].any()
        assert (sums.dh[rows[left]] < floors[left]).all()
        assert (sums.seen[rows[left]] >= LEAST_SEEN).all()
        assert (sums.dh[rows] >= truth - 1e-12).all()
        assert np.isposinf(sums.dh[200:]).all()
        sums.refresh(rows, workers)
        assert sums.is_fresh(rows).all()
        assert_dh(sums.dh[rows], truth)
        once = sums.dh.copy()
        sums.refresh(rows, workers)
        np.testing.assert_array_equal(sums.dh, once)


@pytest.mark.parametrize("count", COUNTS)
def test_small_panels_that_fill_up(count: int) -> None:
    """What was seen of a panel that was not full is not counted again."""
    x = cloud(60, 3)
    with Workers(1) as workers:
        sums = GrowingSums(Space(x, 0.5, None, workers))
        for number in range(count):
            sums.columns.add(sums.space.z[number : number + 1], sums.space.labels[:1])
            if number % 5 == 0:
                sums.refresh(np.arange(7), workers)
        sums.refresh(np.arange(60), workers)
    assert_dh(sums.dh, judge(x, x[:count], 0.5))


def test_small_labels_do_not_see_each_other() -> None:
    x, labels = cloud(40, 4), np.arange(40) % 3
    x[::2] = x[0]  # copies with other labels must not count
    with Workers(1) as workers:
        sums = GrowingSums(Space(x, 0.4, labels, workers, 4))
        added = np.flatnonzero(labels < 2)[:17]
        sums.columns.add(sums.space.z[added], labels[added])
        sums.refresh(np.arange(40), workers)
    assert sums.columns.counts.tolist() == [9, 8, 0, 0]
    assert_dh(sums.dh, naive.labelled_delta_entropy(x, labels, x[added], labels[added], 0.4))
    assert np.isposinf(sums.dh[labels == 2]).all()


@pytest.mark.parametrize("d", [1, 3, 17, 63])
def test_small_copies_are_exact(d: int) -> None:
    x = cloud(50, d)
    x[10:40] = x[7]
    assert dh_of(x, 1e-3, np.arange(7, 8))[10:40].tolist() == [0.0] * 30
    found = dh_of(x, 1e-3, np.arange(7, 40))
    assert found[7] == pytest.approx(-math.log(31.0), rel=1e-15)
    assert (found[10:40] == found[7]).all()
    same = np.full((9, d), 0.1)
    np.testing.assert_allclose(dh_of(same, 0.015, np.arange(4)), np.full(9, -math.log(4.0)), rtol=1e-15)


@pytest.mark.parametrize("far", [1e3, 1e5, 1e8, 1e12, 1e100])
@pytest.mark.parametrize("d", [1, 3, 20, 600])
def test_outliers_however_far_cost_others_no_digits(far: float, d: int) -> None:
    """Bandwidths away from all others, where dH is finite, and where two of them are near each other."""
    h = 0.1
    x = cloud(60, d)
    x[20] = far * h
    x[21] = x[20]
    x[22] = -far * h
    x[23] = x[20] + np.where(np.arange(d) == 0, 0.05, 0.0)  # the same as x[20] from 1e16 on
    for added in (np.arange(10), np.array([3, 20, 4]), np.array([22])):
        found = dh_of(x, h, added)
        assert np.isfinite(found).all()
        expected = naive.delta_entropy(x, x[added], h)
        # coordinates are rounded once more than those given were
        digits = np.where(np.arange(60) == 23, min(1e-16 * far, 1.0), 0.0) + 1e-9
        assert (np.abs(found - expected) <= digits + 1e-12 * expected).all()
    copies = dh_of(x, h, np.array([3, 20, 4]))
    assert copies[21] == 0.0
    assert far < 1e16 or copies[23] == 0.0


def test_other_rows_in_the_same_coordinates() -> None:
    x, y = cloud(30, 5), cloud(30, 5, seed=1)
    y[:10] = x[:10]
    for far in (1.0, 1e9):
        x[29] *= far
        with Workers(1) as workers:
            sums = GrowingSums(Space(x, 0.3, None, workers))
            z = sums.space.place(y, workers)
            np.testing.assert_array_equal(z[:10], sums.space.z[:10])
            sums.columns.add(z, np.zeros(30, np.int64))
            sums.columns.add(sums.space.place(y[:0], workers), np.zeros(0, np.int64))
            sums.refresh(np.arange(30), workers)
        np.testing.assert_allclose(sums.dh, judge(x, y, 0.3), rtol=1e-12, atol=1e-11)


def test_the_number_of_threads_changes_no_bit() -> None:
    x = cloud(3000, 20)
    labels = np.arange(3000) % 2
    rng = np.random.default_rng(0)
    found = []
    for jobs in (1, 4):
        rng = np.random.default_rng(0)
        with Workers(jobs) as workers:
            space = Space(x, 0.4, labels, workers, 2)
            sums = GrowingSums(space)
            for _ in range(4):
                new, asked = rng.permutation(3000)[:900], rng.permutation(3000)[:2000]
                sums.columns.add(space.z[new], labels[new])
                sums.refresh(asked, workers, rng.normal(size=2000))
        found.append((space.z, sums.dh, sums.sums, sums.peaks, sums.seen))
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_tasks_of_any_size_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    x = cloud(500, 5)
    expected = dh_of(x, 0.4, np.arange(0, 500, 2))
    monkeypatch.setattr(_growing, "PAIRS_PER_TASK", 300)
    np.testing.assert_array_equal(dh_of(x, 0.4, np.arange(0, 500, 2)), expected)
