"""Learning curves and the information gap: known curves, known limits, and errors that own up."""

from __future__ import annotations

import math
import re
from typing import Any

import naive
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quests_zenn.entropy.curves import LearningCurve, _variance, information_gap, learning_curve
from quests_zenn.entropy.metrics import entropy

Array = npt.NDArray[Any]


def cloud(n: int, d: int, seed: int = 0) -> Array:
    return np.random.default_rng([seed, n, d]).normal(size=(n, d)) * math.sqrt(2.0 / d)


def known(sizes: Any, values: Any, repeats: int = 1, noise: float = 0.0, seed: int = 0) -> LearningCurve:
    """A curve of given means, with the noise of parts of a set."""
    n = np.asarray(sizes, np.int64)
    spread = noise * np.sqrt(1.0 / n - 1.0 / n.max())[:, None]
    scatter = spread * np.random.default_rng(seed).normal(size=(len(n), repeats))
    counts = np.repeat(n[:, None], repeats, axis=1)
    return LearningCurve(n, counts, np.asarray(values)[:, None] + scatter, 0.015, int(n.max()))


SIZES = np.geomspace(100, 20_000, 10).round()

# --- learning curves --------------------------------------------------------------------------------------------------


def test_the_whole_set_and_its_parts() -> None:
    x = cloud(400, 5)
    curve = learning_curve(x, 0.5, [400, 50, 200], repeats=4, random_state=1)
    np.testing.assert_array_equal(curve.sizes, [50, 200, 400])
    np.testing.assert_array_equal(curve.counts, np.repeat([[50], [200], [400]], 4, axis=1))
    assert (curve.values[-1] == entropy(x, 0.5)).all()
    assert curve.values[-1, 0] == pytest.approx(naive.entropy(x, 0.5), abs=1e-12)
    assert curve.std[-1] == 0.0
    assert (curve.std[:2] > 0.0).all()
    assert len(np.unique(curve.values[0])) == 4
    assert (curve.h, curve.n) == (0.5, 400)
    np.testing.assert_allclose(curve.mean, curve.values.mean(axis=1))
    np.testing.assert_allclose(curve.std, curve.values.std(axis=1, ddof=1))
    np.testing.assert_allclose(curve.redundancy, np.log([50, 200, 400]) - curve.mean)
    assert (np.diff(curve.mean) > 0.0).all()


def test_parts_hold_different_environments() -> None:
    """All far apart: H = ln n only if no row is drawn twice."""
    x = 1e3 * np.arange(300.0)[:, None]
    curve = learning_curve(x, 1.0, repeats=3, random_state=0)
    np.testing.assert_allclose(curve.values, np.log(curve.counts), atol=1e-12)
    np.testing.assert_allclose(curve.redundancy, 0.0, atol=1e-12)


def test_equal_environments_stay_at_zero() -> None:
    curve = learning_curve(np.ones((500, 3)), repeats=2)
    np.testing.assert_allclose(curve.values, 0.0, atol=1e-12)
    gap = information_gap(curve)
    assert gap.gap == pytest.approx(0.0, abs=1e-9)
    assert gap.standard_error == pytest.approx(0.0, abs=1e-6)
    assert gap.reason == ""


@pytest.mark.parametrize(("n", "first", "number"), [(1, 1, 1), (2, 1, 2), (100, 6, 10), (5000, 100, 10)])
def test_default_sizes(n: int, first: int, number: int) -> None:
    sizes = learning_curve(np.zeros((n, 1)), repeats=1).sizes
    assert (sizes[0], sizes[-1], len(sizes)) == (first, n, number)


def test_whole_groups_are_drawn() -> None:
    """Groups are far apart, and their members equal: H is Shannon's entropy of the shares of whole groups."""
    lengths = np.array([3, 10, 10, 20, 57])
    groups = np.repeat(np.arange(5), lengths)
    curve = learning_curve(1e3 * groups[:, None].astype(float), 1.0, [1, 30, 100], repeats=30, groups=groups)
    assert set(curve.counts[0]) <= set(lengths)
    assert (curve.counts[2] == 100).all()
    for count, value in zip(curve.counts[1].tolist(), curve.values[1].tolist(), strict=True):
        possible = []
        for pick in range(1, 32):
            shares = lengths[[bool(pick >> g & 1) for g in range(5)]]
            if shares.sum() == count:
                possible.append(math.log(count) - (shares * np.log(shares)).sum() / count)
        assert any(value == pytest.approx(p, abs=1e-9) for p in possible)
    assert np.abs(curve.counts[1] - 30).max() <= 28


def test_default_sizes_are_whole_groups() -> None:
    groups = np.arange(600) // 30
    curve = learning_curve(cloud(600, 3), 0.5, groups=groups, repeats=2, random_state=0)
    np.testing.assert_array_equal(curve.counts, np.repeat(curve.sizes[:, None], 2, axis=1))
    assert (curve.sizes % 30 == 0).all()
    assert curve.sizes[-1] == 600


def test_groups_and_labels_of_any_kind() -> None:
    x, numbers = cloud(200, 3), np.arange(200) // 8
    names = np.array([f"{g:02d} ps" for g in numbers])
    one, other = (learning_curve(x, 0.5, groups=g, random_state=3) for g in (numbers, names))
    np.testing.assert_array_equal(one.values, other.values)
    labels = np.array(["Cu", "Ag"])[np.arange(200) % 2]
    curve = learning_curve(x, 0.5, [100, 200], labels=labels, random_state=0)
    assert curve.values[-1, 0] == entropy(x, 0.5, labels=labels)
    assert curve.mean[0] > learning_curve(x, 0.5, [100, 200], random_state=0).mean[0]


def test_the_seed_decides_and_threads_do_not() -> None:
    x = cloud(1500, 4)
    one = learning_curve(x, 0.4, random_state=7, jobs=1)
    np.testing.assert_array_equal(learning_curve(x, 0.4, random_state=7, jobs=3).values, one.values)
    again = learning_curve(x, 0.4, random_state=np.random.default_rng(7))
    np.testing.assert_array_equal(again.values, one.values)
    assert not np.array_equal(learning_curve(x, 0.4, random_state=8).values, one.values)
    single = learning_curve(x, 0.4, random_state=7, precision="float32")
    np.testing.assert_allclose(single.values, one.values, atol=1e-4)


def test_the_order_of_rows_matters_to_no_mean() -> None:
    x = cloud(600, 3)
    order = np.random.default_rng(0).permutation(600)
    one, other = (learning_curve(y, 0.4, [150, 600], repeats=20, random_state=0) for y in (x, x[order]))
    assert other.values[-1, 0] == pytest.approx(one.values[-1, 0], abs=1e-12)
    assert other.mean[0] == pytest.approx(one.mean[0], abs=4.0 * one.std[0] * math.sqrt(2.0 / 20.0))


def test_progress_is_told() -> None:
    told: list[int] = []
    learning_curve(cloud(300, 3), 0.5, [100, 300], repeats=2, progress=told.append)
    assert sum(told) >= (2 * 100**2 + 300**2) / 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"h": [0.1, 0.2]}, r"bandwidth must be a number"),
        ({"h": 0.0}, r"bandwidth must be positive"),
        ({"sizes": []}, r"at least one size is needed, got an empty list"),
        ({"sizes": [10, 51]}, r"a part cannot be larger than the set of 50 environments, got a size of 51"),
        ({"sizes": [0, 10]}, r"a size must be a whole number of at least 1, got 0"),
        ({"sizes": [2.5]}, r"a size must be a whole number of at least 1, got 2\.5"),
        ({"repeats": 0}, r"repeats must be a whole number of at least 1, got 0"),
        ({"groups": [1]}, r"groups must have shape \(50,\)"),
        ({"labels": [1]}, r"labels must have shape \(50,\)"),
        ({"random_state": -1}, r"random_state must be a whole number from 0, a numpy Generator or None, got -1"),
        ({"random_state": "lucky"}, r"random_state must be .*, got 'lucky'"),
        ({"precision": "half"}, r"precision must be one of .*float64, float32, got .half."),
        ({"jobs": 0}, r"jobs must be a whole number"),
    ],
)
def test_arguments_out_of_range(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        learning_curve(cloud(50, 3), **arguments)


# --- information gap --------------------------------------------------------------------------------------------------


@given(a=st.floats(1.0, 12.0), b=st.floats(0.5, 20.0), c=st.floats(0.02, 0.08))
def test_a_curve_that_follows_the_model(a: float, b: float, c: float) -> None:
    curve = known(SIZES, a - b * np.exp(-c * np.log(SIZES) ** 2))
    found = information_gap(curve)
    np.testing.assert_allclose(found.coefficients, [a, b, c], rtol=1e-5)
    assert found.limit == pytest.approx(a - b * math.exp(-c * math.log(1e12) ** 2), abs=1e-6)
    assert found.gap == pytest.approx(found.limit - curve.mean[-1], abs=1e-12)
    assert found.standard_error < 0.1 * np.ptp(curve.mean)
    np.testing.assert_allclose(found.predict(SIZES), curve.mean, atol=1e-6)
    assert found.covariance.shape == (3, 3)
    assert found.reason == ""


def test_noise_is_covered_by_the_error() -> None:
    pulls = []
    truth = 6.0 - 7.0 * np.exp(-0.03 * np.log(SIZES) ** 2)
    for seed in range(60):
        found = information_gap(known(SIZES, truth, repeats=5, noise=1.0, seed=seed))
        pulls.append(
            (found.gap - (6.0 - 7.0 * math.exp(-0.03 * math.log(1e12) ** 2) - truth[-1])) / found.standard_error
        )
    assert np.mean(np.abs(pulls) < 1.0) > 0.6
    assert np.mean(np.abs(pulls) < 2.0) > 0.95


def test_variance_of_the_means() -> None:
    """Of parts of a set: s^2 (1/n - 1/N) / R, from the spread at all sizes together; zero for the whole set."""
    found = _variance(known(SIZES, np.log(SIZES), repeats=200, noise=0.7))
    expected = 0.49 * (1.0 / SIZES - 1.0 / SIZES[-1]) / 200
    np.testing.assert_allclose(found, expected, rtol=0.2)
    assert found[-1] == 0.0
    assert not _variance(known(SIZES, np.log(SIZES))).any()


@pytest.mark.parametrize("occupation", [2, 5, 10, 30])
@pytest.mark.parametrize("n", [1000, 10_000])
def test_a_curve_that_does_not_follow_the_model(n: int, occupation: int) -> None:
    """Uniform density: H = ln n - ln(1 + n q), whose limit is -ln q. The fit errs, and the error says by how much."""
    sizes = np.geomspace(n / 100, n, 10).round()
    found = information_gap(known(sizes, np.log(sizes / (1.0 + sizes * occupation / n))))
    gap = math.log1p(1.0 / occupation)
    assert found.reason == ""
    assert abs(found.gap - gap) < 3.0 * found.standard_error
    assert found.standard_error < 1.0


@pytest.mark.parametrize("states", [50, 600])
def test_a_set_of_known_limit(states: int) -> None:
    """Distinct states at equal shares: H tends to the logarithm of their number."""
    x = 1e3 * np.random.default_rng(0).integers(0, states, size=(4000, 1)).astype(float)
    found = information_gap(learning_curve(x, 1.0, random_state=0))
    assert abs(found.limit - math.log(states)) < 3.0 * found.standard_error
    assert found.standard_error < 0.4
    assert found.gap >= -found.standard_error


@pytest.mark.parametrize("smallest", [1, 10, 100, 1000])
@pytest.mark.parametrize("slope", [1.0, 0.2])
@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_a_straight_line_has_no_limit(smallest: int, slope: float, noise: float) -> None:
    sizes = np.geomspace(smallest, 20_000, 10).round()
    found = information_gap(known(sizes, slope * np.log(sizes), repeats=5, noise=noise))
    assert math.isinf(found.standard_error)
    assert re.search(r"the limit is not determined|its limit is not determined", found.reason)
    assert math.isfinite(found.gap)


def test_a_set_that_resembles_nothing_has_no_limit() -> None:
    found = information_gap(learning_curve(1e3 * np.arange(500.0)[:, None], 1.0))
    assert math.isinf(found.standard_error)
    assert "rises and has not flattened" in found.reason


def test_a_level_curve_lacks_nothing() -> None:
    level = [information_gap(known(SIZES, np.full(10, 3.0), repeats=5, noise=1.0, seed=s)) for s in range(20)]
    determined = [found for found in level if not found.reason]
    assert len(determined) >= 18
    for found in determined:
        assert abs(found.gap) < 3.0 * found.standard_error < 0.5


@pytest.mark.parametrize("sizes", [[100, 200, 400], [100]])
def test_a_short_curve_is_refused(sizes: list[int]) -> None:
    with pytest.raises(ValueError, match=rf"a curve of at least 4 different sizes, got {len(sizes)}"):
        information_gap(known(sizes, np.log(sizes)))
    assert math.isinf(information_gap(known([50, 100, 200, 400], np.log([50, 100, 200, 400]))).standard_error)


@given(values=st.lists(st.floats(0.0, 20.0), min_size=4, max_size=8), noise=st.sampled_from([0.0, 1.0]))
def test_any_curve_has_an_answer(values: list[float], noise: float) -> None:
    found = information_gap(known(np.geomspace(10, 5000, len(values)).round(), values, repeats=3, noise=noise))
    assert math.isfinite(found.gap)
    assert not math.isnan(found.standard_error)
    assert (found.coefficients[1:] >= 0.0).all()
    assert np.isfinite(found.covariance).all()
