"""Early decisions against full sums: they may leave a question open, but never answer it wrongly."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from scipy.special import logsumexp

from quests_zenn._core.jit import strict_kernel
from quests_zenn._core.parallel import Workers
from quests_zenn.entropy import _decide
from quests_zenn.entropy._decide import KNOWN, LEAF, NOVEL, OPEN, Decider

Array = npt.NDArray[np.float64]

#: Either side of a leaf, and several levels of the tree.
SIZES = (1, 2, 63, 64, 65, 128, 129, 1000)


def cloud(n: int, d: int, spread: float = 1.0, seed: int = 0) -> Array:
    """Environments whose components vary less and less, as descriptors do."""
    rng = np.random.default_rng([seed, n, d])
    return 3.0 + rng.normal(size=(n, d)) * spread / (1.0 + np.arange(d))


def log_p(y: Array, x: Array, h: float) -> Array:
    """ln p by distances and a log-sum-exp of SciPy: nothing of ours."""
    return logsumexp(-cdist(y, x, "sqeuclidean") / (2.0 * h * h), axis=1)


def answers_of(y: Array, x: Array, h: float, limits: Array) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.bool_]]:
    with Workers(2) as workers:
        decider = Decider(x, h, workers)
        return decider.decide(y, limits, workers), decider.exceeds(y, limits, workers)


def assert_right(y: Array, x: Array, h: float, limits: Array) -> npt.NDArray[np.int8]:
    early, final = answers_of(y, x, h, limits)
    truth = log_p(y, x, h)
    told = np.abs(truth - limits) > 1e-9 * np.maximum(1.0, np.abs(truth))  # below, the judge itself rounds
    assert (early[told & (truth > limits)] != NOVEL).all()
    assert (early[told & (truth < limits)] != KNOWN).all()
    np.testing.assert_array_equal(final[told], (truth > limits)[told])
    return early


@strict_kernel
def add_squares(packed, at, row, first, last, totals):  # type: ignore[no-untyped-def]
    return _decide.add_squares(packed, at, row, first, last, totals)


@strict_kernel
def sum_terms(totals, shift):  # type: ignore[no-untyped-def]
    return _decide.sum_terms(totals, shift)


def test_small_vector_steps_against_their_plain_twins() -> None:
    rng = np.random.default_rng(0)
    packed, row = rng.normal(size=(3, 20, LEAF)).astype(np.float32), rng.normal(size=20).astype(np.float32)
    start = rng.random(LEAF).astype(np.float32)
    ours, plain = start.copy(), start.copy()
    nearest = add_squares(packed.ravel(), 20 * LEAF, row, 3, 19, ours)
    assert _decide._plain_squares(packed.ravel(), 20 * LEAF, row, 3, 19, plain) == pytest.approx(nearest, rel=1e-5)
    np.testing.assert_allclose(ours, plain, rtol=1e-5)
    assert nearest == -ours.min()
    np.testing.assert_allclose(ours, start + ((packed[1, 3:19] - row[3:19, None]) ** 2).sum(axis=0), rtol=1e-5)
    for shift in (-200.0, -3.0, 0.0, 5.0, 500.0):
        found = sum_terms(ours, np.float32(shift))
        assert found == pytest.approx(_decide._plain_terms(ours, shift), rel=1e-4)
    assert sum_terms(ours, np.float32(500.0)) == pytest.approx(LEAF * 2.0**120)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("d", [1, 7, 16, 17, 63])
def test_small_and_large_sets(n: int, d: int) -> None:
    x, y = cloud(n, d), np.concatenate([cloud(40, d, seed=1), cloud(n, d)[:10] + 1e-3, cloud(5, d, 30.0, seed=2)])
    truth = log_p(y, x, 0.3)
    for limits in (np.full(len(y), -1e-5), np.full(len(y), -30.0), np.full(len(y), 2.0), truth - 0.01, truth + 0.01):
        assert_right(y, x, 0.3, limits)


@given(
    n=st.integers(1, 400),
    d=st.integers(1, 40),
    h=st.floats(1e-3, 30.0),
    spread=st.floats(1e-6, 1e4),
    off=st.sampled_from([0.0, 1e-10, -1e-10, 1e-6, -1e-6, 0.3, -0.3, 50.0, -50.0]),
    seed=st.integers(0, 9),
)
def test_any_set_at_limits_near_its_sums(n: int, d: int, h: float, spread: float, off: float, seed: int) -> None:
    x, y = cloud(n, d, spread, seed), cloud(30, d, spread, seed + 1)
    assert_right(y, x, h, log_p(y, x, h) + off)


def test_nearly_all_is_decided_early() -> None:
    x, y = cloud(20_000, 63), cloud(300, 63, seed=1)
    early = assert_right(y, x, 0.25, np.full(len(y), -1e-5))
    assert {KNOWN, NOVEL} <= set(early.tolist())
    assert np.count_nonzero(early == OPEN) <= 15


def test_dense_sums_are_left_to_the_engine() -> None:
    x, y = cloud(3000, 63), cloud(200, 63, seed=1)
    truth = log_p(y, x, 1.0)
    early = assert_right(y, x, 1.0, np.full(len(y), float(np.median(truth))))
    assert np.count_nonzero(early == OPEN) > 100


def test_equal_rows_decide_by_their_number() -> None:
    x = np.full((300, 5), 0.3)
    limits = np.array([math.log(300.0) - 1e-6, math.log(300.0) + 1e-6, 0.0, -700.0])
    early, final = answers_of(x[:4], x, 0.015, limits)
    assert final.tolist() == [True, False, True, True]
    assert early.tolist() == [OPEN, NOVEL, KNOWN, KNOWN]


def test_one_reference_at_its_own_place() -> None:
    x = cloud(1, 9)
    _, final = answers_of(np.repeat(x, 3, axis=0), x, 0.015, np.array([-1e-12, 0.0, 1e-12]))
    assert final.tolist() == [True, False, False]


@pytest.mark.parametrize("far", [1e3, 1e6, 1e9, 1e15, 1e100, 1e160])
def test_outliers_however_far_change_nothing(far: float) -> None:
    x, y = cloud(500, 20), cloud(50, 20, seed=1)
    limits = log_p(y, x, 0.3) - 0.01
    x[7, 3] = far
    assert_right(y, x, 0.3, limits)
    y[4] = x[7]
    assert answers_of(y, x, 0.3, np.full(50, -1e-5))[1][4]


@pytest.mark.parametrize("h", [1e-9, 1e-6, 1e9])
def test_extreme_bandwidths(h: float) -> None:
    x = cloud(300, 10)
    y = np.concatenate([x[:20], x[:20] + 0.3 * h, cloud(20, 10, seed=1)])
    assert_right(y, x, h, np.full(60, -1e-5))
    assert_right(y, x, h, np.full(60, 1e-5))


def test_limits_beyond_all_numbers() -> None:
    x = cloud(100, 5)
    y = np.concatenate([x[:2], x[:2] + 1e3])
    for limit, expected in ((-np.inf, True), (np.inf, False), (1e300, False)):
        assert (answers_of(y, x, 0.1, np.full(4, limit))[1] == expected).all()
    # 1000 away at h = 0.1: ln p = -(1e4)^2 5 / 2 or so
    assert answers_of(y, x, 0.1, np.full(4, -1e9))[1].all()
    assert answers_of(y, x, 0.1, np.full(4, -1e7))[1].tolist() == [True, True, False, False]


def test_single_precision_rows() -> None:
    x, y = cloud(900, 30).astype(np.float32), cloud(60, 30, seed=1).astype(np.float32)
    assert_right(y.astype(np.float64), x.astype(np.float64), 0.2, np.full(60, -1e-5))
    with Workers(1) as workers:
        found = Decider(x, 0.2, workers).exceeds(y, np.full(60, -1e-5), workers)
    np.testing.assert_array_equal(found, log_p(y.astype(np.float64), x.astype(np.float64), 0.2) > -1e-5)


def test_the_number_of_threads_changes_nothing() -> None:
    x, y = cloud(3000, 40), cloud(700, 40, seed=1)
    limits = np.full(700, -1.0)
    found = []
    for jobs in (1, 2, 5):
        with Workers(jobs) as workers:
            found.append(Decider(x, 0.25, workers).decide(y, limits, workers))
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_many_open_rows_are_summed_together(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = cloud(500, 9), cloud(200, 9, seed=1)
    limits = log_p(y, x, 0.3)
    up_and_down = limits + np.where(np.arange(200) % 2 == 0, 1e-8, -1e-8)
    early, final = answers_of(y, x, 0.3, up_and_down)
    assert np.count_nonzero(early == OPEN) > _decide._DIRECTLY
    np.testing.assert_array_equal(final, np.arange(200) % 2 == 1)
    monkeypatch.setattr(_decide, "_DIRECTLY", 1000)
    np.testing.assert_array_equal(answers_of(y, x, 0.3, up_and_down)[1], final)
