"""Kernel sums over the environments of all other groups. (`small` in a name: quick with NUMBA_DISABLE_JIT=1 too.)"""

from __future__ import annotations

import math
from typing import Any

import naive
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quests_zenn._core.parallel import Workers
from quests_zenn.entropy import _leave_out
from quests_zenn.entropy._engine import log_sums_within
from quests_zenn.entropy._leave_out import log_sums_of_others, log_sums_without_own_group

Array = npt.NDArray[Any]

H = np.array([0.4, 0.05, 2.0])


def cloud(n: int, d: int, seed: int = 0) -> Array:
    return np.random.default_rng([seed, n, d]).normal(size=(n, d)) * math.sqrt(2.0 / d)


def twin(x: Array, h: Array, groups: Array) -> Array:
    """Row by row, over the rows of the other groups."""
    return np.array(
        [[naive.log_density(x[i : i + 1], x[groups != groups[i]], w)[0] for i in range(len(x))] for w in h.tolist()]
    )


@pytest.mark.parametrize(("n", "d", "n_groups"), [(2, 1, 2), (30, 3, 30), (40, 5, 2), (40, 63, 7)])
def test_small_sets_follow_the_formula(n: int, d: int, n_groups: int) -> None:
    x, groups = cloud(n, d), np.arange(n) % n_groups
    np.testing.assert_allclose(log_sums_without_own_group(x, H, groups), twin(x, H, groups), rtol=1e-9, atol=1e-6)
    if n == n_groups:
        np.testing.assert_array_equal(log_sums_without_own_group(x, H), log_sums_without_own_group(x, H, groups))


@given(groups=st.lists(st.integers(0, 3), min_size=2, max_size=12), seed=st.integers(0, 99))
def test_small_sets_in_any_groups(groups: list[int], seed: int) -> None:
    x, codes = cloud(len(groups), 2, seed), np.array(groups)
    np.testing.assert_allclose(log_sums_without_own_group(x, H, codes), twin(x, H, codes), rtol=1e-9, atol=1e-6)


def test_the_difference_and_the_direct_sum_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    x, groups, h = cloud(700, 6), np.arange(700) // 9, np.array([0.3, 0.6, 1.2])
    mixed = log_sums_without_own_group(x, h, groups)
    monkeypatch.setitem(_leave_out.LEAST_SHARE, "float64", 2.0)
    np.testing.assert_allclose(mixed, log_sums_without_own_group(x, h, groups), atol=1e-6)
    np.testing.assert_allclose(mixed[:, :20], twin(x, h, groups)[:, :20], atol=1e-6)


def test_small_sets_with_a_dominating_group() -> None:
    """A share of 1e-40 of p: nothing is left of it in a difference."""
    x = np.repeat([[0.0], [13.5]], [5, 1], axis=0)
    found = log_sums_without_own_group(x, np.array([1.0]), np.array([0, 0, 0, 0, 0, 1]))
    np.testing.assert_allclose(found[0], [-0.5 * 13.5**2] * 5 + [math.log(5.0) - 0.5 * 13.5**2], rtol=1e-14)


@pytest.mark.parametrize("far", [0.6, 15.0, 1e6, 1e100])
def test_small_sets_at_any_distance(far: float) -> None:
    found = log_sums_without_own_group(np.array([[0.0], [far]]), np.array([0.015, 1.0]))
    expected = [[-0.5 * (far / 0.015) ** 2] * 2, [-0.5 * far**2] * 2]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_small_sets_of_one_group_have_no_others() -> None:
    x = cloud(9, 3)
    assert (log_sums_without_own_group(x, H, np.zeros(9, int)) == -np.inf).all()
    assert (log_sums_without_own_group(x[:1], H) == -np.inf).all()
    out = np.zeros((1, 9))
    log_sums_of_others(x.T.copy(), np.zeros(9, int), np.arange(9), np.arange(9), np.ones((1, 9), bool), np.ones(1), out)
    assert (out == -np.inf).all()


def test_small_kernel_leaves_the_rest_alone() -> None:
    x, out, wanted = cloud(40, 3), np.full((2, 40), 7.0), np.zeros((2, 40), bool)
    wanted[1, [3, 20, 39]] = True
    log_sums_of_others(
        x.T.copy(), np.arange(40), np.arange(40), np.array([3, 5, 20, 39]), wanted, np.array([1.0, 0.5]), out
    )
    assert (out[~wanted] == 7.0).all()
    np.testing.assert_allclose(out[wanted], twin(x, np.ones(1), np.arange(40))[0, [3, 20, 39]], rtol=1e-12)


def test_a_group_taken_twice_counts_itself_once() -> None:
    """Of two copies of a set as two groups, each sees what the set sees of itself."""
    x = cloud(300, 8)
    found = log_sums_without_own_group(np.concatenate([x, x]), H, np.repeat([0, 1], 300))
    np.testing.assert_allclose(found, np.tile(log_sums_within(x, H), 2), atol=1e-9)


def test_the_number_of_threads_changes_nothing() -> None:
    x, groups = cloud(900, 20), np.arange(900) // 4
    h = np.array([0.05, 0.4, 0.8])
    expected = log_sums_without_own_group(x, h, groups, jobs=1)
    for jobs in (2, 5):
        np.testing.assert_array_equal(log_sums_without_own_group(x, h, groups, jobs=jobs), expected)
    with Workers(3) as workers:
        log_all = log_sums_within(x, h)
        copy = log_all.copy()
        again = log_sums_without_own_group(x, h, groups, log_all=log_all, workers=workers)
    np.testing.assert_array_equal(again, expected)
    np.testing.assert_array_equal(log_all, copy)


def test_the_order_of_rows_and_the_names_of_groups_do_not_matter() -> None:
    x, groups = cloud(400, 7), np.arange(400) // 3
    found = log_sums_without_own_group(x, H, groups)
    order = np.random.default_rng(0).permutation(400)
    np.testing.assert_allclose(log_sums_without_own_group(x[order], H, 500 - groups[order]), found[:, order], atol=1e-6)


def test_single_precision() -> None:
    x, groups = cloud(600, 10), np.arange(600) // 5
    expected = log_sums_without_own_group(x, H, groups)
    found = log_sums_without_own_group(x, H, groups, precision="float32")
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)
    single = x.astype(np.float32)
    found, expected = (log_sums_without_own_group(y, H, groups) for y in (single, single.astype(np.float64)))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_progress_is_told() -> None:
    told: list[int] = []
    log_sums_without_own_group(cloud(300, 3), np.array([0.01]), progress=told.append)
    assert sum(told) >= 300**2 * 3 // 2
