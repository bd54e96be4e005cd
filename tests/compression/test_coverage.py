"""What beginnings of an order know, against brute force."""

from __future__ import annotations

import naive
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from scipy.special import logsumexp

from quests_zenn._core.parallel import Workers
from quests_zenn.compression import _coverage
from quests_zenn.compression._coverage import Coverage

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


def cloud(n: int, d: int, seed: int = 0) -> Array:
    """Rows that are spread unevenly over their axes."""
    return 3.0 + np.random.default_rng([seed, n, d]).normal(size=(n, d)) / (1.0 + np.arange(d))


def first(coverage: Coverage, n: int, parts: list[Indices], jobs: int = 1) -> Indices:
    """For each of n rows the first part with which it is known."""
    with Workers(jobs) as workers:
        return coverage.first(np.arange(n), np.concatenate(parts), np.cumsum([len(p) for p in parts]), workers)


@given(
    n=st.integers(1, 50),
    d=st.sampled_from([1, 2, 17]),
    h=st.sampled_from([0.1, 0.5, 2.0]),
    eps=st.sampled_from([1e-5, 0.3, 3.0, -0.5, -2.0]),
    labels=st.integers(1, 2),
    seed=st.integers(0, 10_000),
)
def test_the_first_part_that_knows_a_row(n: int, d: int, h: float, eps: float, labels: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, marks = cloud(n, d, seed), rng.integers(labels, size=n)
    x[rng.random(n) < 0.3] = x[0]
    parts = [rng.integers(n, size=rng.integers(1, 9)) for _ in range(7)]
    expected = np.full(n, len(parts))
    for number in range(len(parts) - 1, -1, -1):
        known = np.concatenate(parts[: number + 1])
        expected[naive.labelled_delta_entropy(x, marks, x[known], marks[known], h) < eps] = number
    np.testing.assert_array_equal(first(Coverage(x, marks, h, eps, None), n, parts), expected)
    # what is known from the start is a part before all others
    known = (x[parts[0]], marks[parts[0]])
    rest = first(Coverage(x, marks, h, eps, known), n, parts[1:])
    np.testing.assert_array_equal(rest, np.maximum(expected - 1, 0))


@pytest.mark.parametrize("eps", [1e-5, 0.5])
def test_many_rows_and_any_number_of_threads(eps: float, monkeypatch: pytest.MonkeyPatch) -> None:
    x, rng = cloud(1500, 8), np.random.default_rng(3)
    parts = [rng.permutation(1500)[:size] for size in (1, 15, 16, 17, 100, 400)]
    expected = np.full(1500, len(parts))
    for number in range(5, -1, -1):
        known = x[np.concatenate(parts[: number + 1])]
        dh = -logsumexp(-cdist(x, known, "sqeuclidean") / (2.0 * 0.25**2), axis=1)
        expected[dh < eps] = number
    assert 3 < len(np.unique(expected)) <= 7
    for jobs in (1, 3):
        np.testing.assert_array_equal(first(Coverage(x, None, 0.25, eps, None), 1500, parts, jobs), expected)
    monkeypatch.setattr(_coverage, "_ROWS", 100)
    np.testing.assert_array_equal(first(Coverage(x, None, 0.25, eps, None), 1500, parts), expected)


@pytest.mark.parametrize("eps", [-1e6, -800.0, -60.0, 60.0, 120.0, 800.0, 1e6])
def test_limits_far_from_zero(eps: float) -> None:
    """Any number is allowed: from one that nothing reaches to one that rows far away reach."""
    x = np.array([[0.0], [1.0], [10.0], [11.5], [16.0], [41.0], [1500.0]])
    found = first(Coverage(x, None, 1.0, eps, None), len(x), [np.array([0])])
    np.testing.assert_array_equal(found == 0, 0.5 * x[:, 0] ** 2 < eps)


def test_equal_to_the_limit_is_not_below_it() -> None:
    x = np.zeros((3, 2))
    for eps, part in ((0.0, 1), (1e-5, 0), (-np.log(2.0), 2), (-0.6, 1)):
        assert first(Coverage(x, None, 1.0, eps, None), 3, [np.array([0]), np.array([1])]).tolist() == [part] * 3


def test_nothing_knows_nothing() -> None:
    x = np.zeros((3, 2))
    with Workers(1) as workers:
        found = Coverage(x, None, 1.0, 1e-5, None).first(np.arange(3), np.empty(0, np.int64), np.zeros(1, int), workers)
    assert found.tolist() == [1, 1, 1]
