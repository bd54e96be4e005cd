"""Bandwidths from the data: the leave-out likelihood and the intrinsic dimension, on sets of which they are known."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError
from typing import Any

import naive
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quests_zenn.entropy.bandwidth import intrinsic_dimension, likelihood, select_bandwidth
from quests_zenn.entropy.metrics import entropy

Array = npt.NDArray[Any]

GRID = np.geomspace(0.05, 2.0, 13)


def normal(n: int, d: int, seed: int = 0, width: int | None = None) -> Array:
    """Standard normal in d dimensions; with `width`, turned into a space of that many."""
    rng = np.random.default_rng([seed, n, d])
    x = rng.normal(size=(n, d))
    return x if width is None else x @ np.linalg.qr(rng.normal(size=(width, d)))[0].T


def twin_score(x: Array, h: float, groups: Array, d: float) -> float:
    terms = []
    for i in range(len(x)):
        others = x[groups != groups[i]]
        terms.append(naive.log_density(x[i : i + 1], others, h)[0] - math.log(len(others)))
    return math.fsum(terms) / len(x) - d * math.log(h)


def twin_dimension(x: Array) -> float:
    """Maximum of the likelihood of ratios m with density d m^-(d + 1), the largest tenth censored."""
    logs = []
    for i in range(len(x)):
        first, second = np.sort(np.sqrt(((np.delete(x, i, axis=0) - x[i]) ** 2).sum(axis=1)))[:2]
        logs.append(math.log(second / first))
    logs.sort()
    seen = int(0.9 * len(logs))
    return seen / (math.fsum(logs[:seen]) + (len(logs) - seen) * logs[seen - 1])


# --- intrinsic dimension ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 2, 5])
def test_dimension_of_a_normal_set(d: int) -> None:
    x = normal(3000, d, width=20)
    assert intrinsic_dimension(0.5 * x, tolerance=1e-9) == pytest.approx(d, abs=4.0 * d / math.sqrt(2700))


def test_dimension_follows_the_formula() -> None:
    x = normal(150, 3, width=7)
    assert intrinsic_dimension(x) == pytest.approx(twin_dimension(x), rel=1e-10)
    assert intrinsic_dimension(x + 1e4) == pytest.approx(twin_dimension(x), rel=1e-6)
    assert intrinsic_dimension(x.astype(np.float32)) == pytest.approx(twin_dimension(x), rel=1e-3)


def test_dimension_of_a_sample_of_many() -> None:
    x = normal(9000, 2)
    assert intrinsic_dimension(x) == pytest.approx(2.0, abs=0.15)


def test_copies_have_no_say_in_the_dimension() -> None:
    x = normal(400, 3, width=9)
    expected = intrinsic_dimension(x)
    assert intrinsic_dimension(np.concatenate([x, x, x])) == expected
    jitter = 1e-9 * normal(400, 9, seed=1)
    assert intrinsic_dimension(np.concatenate([x, x + jitter])) == pytest.approx(expected, rel=1e-5)
    assert intrinsic_dimension(np.concatenate([x, x + jitter]), tolerance=1e-12) < 0.5 * expected


def test_dimension_does_not_depend_on_the_order() -> None:
    x = normal(5000, 2, width=4)
    order = np.random.default_rng(1).permutation(5000)
    assert intrinsic_dimension(x[order]) == pytest.approx(intrinsic_dimension(x), rel=1e-12)


def test_sets_without_a_dimension() -> None:
    with pytest.raises(ValueError, match=r"needs at least 3 distinct environments, got 1: give the dimension"):
        intrinsic_dimension(np.ones((50, 4)))
    with pytest.raises(ValueError, match=r"equally far everywhere, as on a grid: give the dimension"):
        intrinsic_dimension(np.eye(6))
    with pytest.raises(ValueError, match=r"x must have two dimensions"):
        intrinsic_dimension(np.ones(5))
    with pytest.raises(ValueError, match=r"tolerance must be positive and finite, got 0"):
        intrinsic_dimension(np.eye(6), tolerance=0)


# --- likelihood -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_groups", [2, 6, 60])
def test_likelihood_follows_the_formula(n_groups: int) -> None:
    x, groups = normal(60, 3), np.arange(60) % n_groups
    found = likelihood(x, GRID, groups, dimension=2.5)
    np.testing.assert_allclose(found.score, [twin_score(x, h, groups, 2.5) for h in GRID.tolist()], rtol=1e-7)
    np.testing.assert_allclose(found.entropy, entropy(x, GRID), atol=1e-12)
    assert found.best == GRID[found.score.argmax()]
    assert (found.dimension, found.distinct) == (2.5, 60)
    if n_groups == 60:
        np.testing.assert_array_equal(likelihood(x, GRID, dimension=2.5).score, found.score)


def test_dimension_is_estimated_if_not_given() -> None:
    x = normal(300, 2, width=5)
    found = likelihood(x, GRID)
    assert found.dimension == pytest.approx(intrinsic_dimension(x), rel=1e-12)
    np.testing.assert_allclose(found.score, likelihood(x, GRID, dimension=found.dimension).score, rtol=1e-12)


def mean_best(n: int, d: int) -> float:
    return float(np.exp(np.mean([np.log(select_bandwidth(normal(n, d, s), GRID, dimension=d).best) for s in range(6)])))


@pytest.mark.parametrize("d", [1, 2, 4])
def test_best_bandwidth_of_a_normal_set(d: int) -> None:
    """Near Silverman's (4 / (d + 2) / n)^(1 / (d + 4)), which is best for squared errors, and with its power of n."""
    few, many = mean_best(200, d), mean_best(1000, d)
    assert many == pytest.approx((4.0 / (d + 2.0) / 1000.0) ** (1.0 / (d + 4.0)), rel=0.3)
    assert many / few == pytest.approx(5.0 ** (-1.0 / (d + 4.0)), rel=0.15)


def test_the_widest_would_win_without_the_dimension() -> None:
    found = likelihood(normal(200, 2), GRID, dimension=1e-9)
    assert found.at_edge
    assert found.best == GRID[-1]


def test_copies_do_not_drive_the_bandwidth_to_zero() -> None:
    x = normal(300, 2)
    once = select_bandwidth(x, GRID)
    for twice in (np.concatenate([x, x]), np.concatenate([x, x + 1e-9])):
        found = select_bandwidth(twice, GRID)
        assert found.distinct == 300
        assert found.best == pytest.approx(once.best, rel=1e-5)
        np.testing.assert_allclose(found.score, once.score, rtol=1e-5)
    assert likelihood(np.concatenate([x, x + 1e-9]), GRID, dimension=2, tolerance=1e-12).best == GRID[0]


def test_near_copies_within_a_group_are_harmless() -> None:
    x = np.repeat(normal(200, 2), 5, axis=0) + 0.01 * normal(1000, 2, seed=3)
    frames = np.arange(1000) // 5
    one = select_bandwidth(x, GRID, frames, dimension=2).best
    assert one == pytest.approx(select_bandwidth(x[::5], GRID, dimension=2).best, rel=0.15)
    assert likelihood(x, GRID, dimension=2).best == GRID[0]


def test_groups_may_be_labels_of_any_kind() -> None:
    x, numbers = normal(90, 3), np.arange(90) // 10
    names = np.array([f"block {g}" for g in numbers])
    np.testing.assert_array_equal(likelihood(x, GRID, names).score, likelihood(x, GRID, numbers).score)


def test_order_and_threads_change_nothing() -> None:
    x, groups = normal(700, 3, width=8), np.arange(700) // 7
    found = likelihood(x, GRID, groups, jobs=1)
    np.testing.assert_array_equal(likelihood(x, GRID, groups, jobs=3).score, found.score)
    order = np.random.default_rng(1).permutation(700)
    turned = likelihood(x[order], GRID[::-1], groups[order])
    np.testing.assert_allclose(turned.score, found.score, rtol=1e-8)
    np.testing.assert_array_equal(turned.bandwidths, GRID)


def test_order_does_not_decide_which_copy_is_kept() -> None:
    x, groups = np.tile(normal(60, 3), (3, 1)), np.random.default_rng(0).integers(0, 5, 180)
    order = np.random.default_rng(1).permutation(180)
    one, other = likelihood(x, GRID, groups, dimension=3), likelihood(x[order], GRID, groups[order], dimension=3)
    np.testing.assert_allclose(other.score, one.score, rtol=1e-8)


@given(scale=st.floats(0.1, 10.0), shift=st.floats(-5.0, 5.0))
def test_the_unit_of_length_changes_the_unit_of_bandwidth(scale: float, shift: float) -> None:
    x = normal(80, 2)
    found = select_bandwidth(scale * x + shift, scale * GRID, dimension=2)
    assert found.best == pytest.approx(scale * select_bandwidth(x, GRID, dimension=2).best, rel=1e-6)


def test_refinement_stays_between_the_neighbours() -> None:
    x = normal(400, 2)
    coarse, fine = select_bandwidth(x, GRID, dimension=2), likelihood(x, np.geomspace(0.1, 0.9, 150), dimension=2)
    top = int(coarse.score.argmax())
    assert GRID[top - 1] < coarse.best < GRID[top + 1]
    assert coarse.best == pytest.approx(fine.best, rel=0.03)
    np.testing.assert_array_equal(coarse.score, likelihood(x, GRID, dimension=2).score)


@pytest.mark.parametrize("grid", [[0.01, 0.02, 0.03], [1.0, 2.0, 3.0], [0.3], 0.3, [0.2, 0.3]])
def test_a_best_at_the_edge_says_so(grid: Any) -> None:
    found = select_bandwidth(normal(400, 2), grid, dimension=2)
    assert found.at_edge
    assert found.best in np.ravel(grid)
    assert not likelihood(normal(400, 2), GRID, dimension=2).at_edge


def test_the_default_grid() -> None:
    found = select_bandwidth(0.05 * normal(300, 2), dimension=2)
    np.testing.assert_allclose(found.bandwidths, np.geomspace(0.003, 0.3, 15))
    assert not found.at_edge
    with pytest.raises(FrozenInstanceError):
        found.best = 0.1  # type: ignore[misc]


def test_single_precision() -> None:
    x, groups = normal(500, 3), np.arange(500) // 5
    found = likelihood(x, GRID, groups, precision="float32")
    np.testing.assert_allclose(found.score, likelihood(x, GRID, groups).score, rtol=1e-4)


@pytest.mark.parametrize("groups", [np.zeros(50), ["a"] * 50])
def test_one_group_cannot_be_left_out(groups: Any) -> None:
    with pytest.raises(ValueError, match=r"at least two groups are needed to leave one out, got 1 once copies"):
        likelihood(normal(50, 2), GRID, groups)


def test_equal_environments_have_no_bandwidth() -> None:
    with pytest.raises(ValueError, match=r"at least two groups are needed to leave one out"):
        likelihood(np.ones((40, 3)), GRID)
    with pytest.raises(ValueError, match=r"needs at least 3 distinct environments, got 2"):
        likelihood([[0.0], [1.0]], GRID)
    assert likelihood([[0.0], [1.0]], GRID, dimension=1).best == pytest.approx(1.0, rel=0.4)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"h_grid": []}, r"at least one bandwidth is needed"),
        ({"h_grid": [0.1, -1.0]}, r"bandwidth must be positive and finite, got -1\.0"),
        ({"groups": [1, 2]}, r"groups must have shape \(50,\)"),
        ({"dimension": 0.0}, r"dimension must be positive and finite, got 0\.0"),
        ({"tolerance": "small"}, r"tolerance must be a number, got 'small'"),
        ({"precision": "half"}, r"precision must be one of auto, float64, float32, got 'half'"),
        ({"jobs": 0}, r"jobs must be a whole number of at least 1"),
    ],
)
def test_arguments_out_of_range(arguments: dict[str, Any], sentence: str) -> None:
    for function in (likelihood, select_bandwidth):
        with pytest.raises(ValueError, match=sentence):
            function(normal(50, 2), **arguments)


def test_progress_is_told() -> None:
    told: list[int] = []
    likelihood(normal(300, 2), GRID, dimension=2, progress=told.append)
    assert sum(told) >= 300**2 / 2
