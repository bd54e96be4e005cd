"""Estimates of H and dH: exact where they say so, and otherwise as far off as they say."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import naive
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from quests_zenn._core.parallel import Workers
from quests_zenn.entropy import (
    approx_delta_entropy,
    approximate,
    delta_entropy,
    diversity,
    entropy,
    estimate,
    estimate_entropy,
    get_all_metrics,
)
from quests_zenn.entropy._levels import Z95
from quests_zenn.entropy._strata import Stratified
from quests_zenn.entropy.estimate import ESTIMATORS, EntropyEstimate

Array = npt.NDArray[Any]

#: Enough for two levels of samples.
LARGE = 9_500


def cloud(n: int, d: int, seed: int = 0) -> Array:
    """Environments at distances of about 2, whatever their width."""
    return np.random.default_rng([seed, n, d]).normal(size=(n, d)) * math.sqrt(2.0 / d)


def uneven(n: int, seed: int = 0) -> Array:
    """Half of it in a tight cluster, a third around it, the rest far and alone."""
    rng = np.random.default_rng([seed, n])
    parts = [n // 2, n // 3, n - n // 2 - n // 3]
    x = np.concatenate([width * rng.normal(size=(m, 3)) for m, width in zip(parts, (0.1, 1.0, 6.0), strict=True)])
    return rng.permutation(x)


def labelled_entropy(x: Array, h: float, labels: Array) -> float:
    """H of environments that see only those with their own label."""
    log_p = np.concatenate([naive.log_density(x[labels == one], x[labels == one], h) for one in np.unique(labels)])
    return float(math.log(len(x)) - log_p.mean())


def same_bits(first: Any, second: Any) -> None:
    for name in first.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name), err_msg=name)


# --- entropy: small sets ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("n", [1, 2, 150])
def test_small_sets_are_exact_whatever_the_estimator(n: int, estimator: str) -> None:
    """A thousand environments are asked before anything is guessed."""
    x = uneven(n)
    found = estimate_entropy(x, 0.5, estimator, random_state=0, precision="float64")
    assert found.value == pytest.approx(naive.entropy(x, 0.5), abs=1e-11)
    assert found.diversity == pytest.approx(naive.diversity(x, 0.5), abs=1e-11)
    assert (found.standard_error, found.diversity_error) == (0.0, 0.0)
    assert found.interval == (found.value, found.value)
    assert float(found) == found.value
    assert isinstance(found.value, float)
    assert isinstance(found.diversity_error, float)
    assert found.n_environments == n
    assert found.estimator == ("exact" if estimator == "auto" else estimator)


def test_what_exact_tells() -> None:
    x = uneven(300)
    found = estimate_entropy(x, 0.5, "exact", 0.3)
    assert found == EntropyEstimate(entropy(x, 0.5), 0.0, diversity(x, 0.5), 0.0, "exact", 300, 0.3)
    with pytest.raises(FrozenInstanceError):
        found.value = 0.0  # type: ignore[misc]


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_several_bandwidths_and_labels(estimator: str) -> None:
    x, labels, h = uneven(200), np.array(["Cu", "Ag", "Ag", "Zr"] * 50), [0.3, 2.0, 0.7]
    found = estimate_entropy(x, h, estimator, labels=labels, random_state=0, precision="float64")
    for i, bandwidth in enumerate(h):
        assert found.value[i] == pytest.approx(labelled_entropy(x, bandwidth, labels), abs=1e-11)
        assert found.diversity[i] == pytest.approx(diversity(x, bandwidth, labels=labels), abs=1e-11)
    for array in (found.value, found.standard_error, found.diversity, found.diversity_error, *found.interval):
        assert array.shape == (3,)
    if estimator == "knn":
        assert found.bound.shape == (3,)
    one = estimate_entropy(x, [0.3], estimator, labels=labels, random_state=0, precision="float64")
    assert one.value.shape == (1,)


# --- entropy: known by thought ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("value", [0.0, 0.1])
def test_equal_environments_hold_no_information(estimator: str, value: float) -> None:
    found = estimate_entropy(np.full((LARGE, 3), value), 0.015, estimator, random_state=0)
    assert found.value == pytest.approx(0.0, abs=1e-9)
    assert found.diversity == pytest.approx(0.0, abs=1e-9)
    assert found.standard_error == pytest.approx(0.0, abs=1e-3)


@pytest.mark.parametrize("h", [0.1, 0.005])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_far_environments_hold_the_most(estimator: str, h: float) -> None:
    """Also where they are 400 bandwidths apart, and single precision would not even find p = 1 for each."""
    found = estimate_entropy(cloud(LARGE, 63), h, estimator, random_state=0)
    assert found.value == pytest.approx(math.log(LARGE), abs=2e-5)
    assert found.diversity == pytest.approx(math.log(LARGE), abs=2e-5)
    assert found.standard_error < 1e-3
    assert found.diversity_error < 2e-3


# --- entropy: samples -------------------------------------------------------------------------------------------------


def test_what_sampled_tells() -> None:
    x = uneven(LARGE)
    value, d, _ = get_all_metrics(x, 0.5)
    found = estimate_entropy(x, 0.5, "sampled", 0.1, random_state=3)
    assert found.estimator == "sampled"
    assert found.references == (LARGE // 30, LARGE)
    assert found.tolerance == 0.1
    assert 1000 <= found.environments[1] <= found.environments[0] <= LARGE
    assert 0.0 < found.standard_error <= 0.1 / Z95
    assert abs(found.value - value) < 4.0 * found.standard_error
    assert found.diversity_error > 0.0
    assert abs(found.diversity - d) < 4.0 * found.diversity_error
    assert found.interval == pytest.approx(
        (found.value - 1.959964 * found.standard_error, found.value + 1.959964 * found.standard_error), abs=1e-6
    )
    assert (found.bound, found.recall) == (None, None)


@pytest.mark.parametrize("estimator", ["sampled", "knn"])
@pytest.mark.parametrize("tolerance", [0.3, 0.06, 0.02])
def test_the_tolerance_is_respected_at_every_bandwidth(estimator: str, tolerance: float) -> None:
    x, h = uneven(LARGE), np.array([0.2, 1.0])
    found = estimate_entropy(x, h, estimator, tolerance, random_state=1)
    assert (found.standard_error <= tolerance / Z95).all()
    assert (np.abs(found.value - entropy(x, h)) < 4.0 * found.standard_error).all()


def test_smaller_errors_take_more_environments() -> None:
    x = uneven(LARGE)
    asked = [sum(estimate_entropy(x, 0.5, "sampled", t, random_state=1).environments) for t in (0.2, 0.08, 0.03)]
    assert asked[0] < asked[1] < asked[2]


def test_labels_are_sampled_apart() -> None:
    x = uneven(LARGE)
    labels = np.where(np.arange(LARGE) % 20 == 0, "Ag", "Cu")
    exact = get_all_metrics(x, 0.5, labels=labels)
    found = estimate_entropy(x, 0.5, "sampled", 0.05, labels=labels, random_state=1)
    assert 0.0 < found.standard_error <= 0.05 / Z95
    assert abs(found.value - exact[0]) < 4.0 * found.standard_error
    assert abs(found.diversity - exact[1]) < 4.0 * found.diversity_error
    assert found.references[-1] == (labels == "Cu").sum()
    assert found.n_environments == LARGE
    equal = estimate_entropy(x, 0.5, "sampled", 0.05, labels=np.full(LARGE, 29), random_state=1)
    same_bits(equal, estimate_entropy(x, 0.5, "sampled", 0.05, random_state=1))


def test_the_error_of_the_whole_is_that_of_its_parts_together() -> None:
    """Two labels, half each: their errors add up to the tolerance, no more and not much less."""
    x, labels = uneven(LARGE), np.arange(LARGE) % 2
    found = estimate_entropy(x, 0.5, "sampled", 0.02, labels=labels, random_state=1)
    assert 0.8 * 0.02 / Z95 < found.standard_error <= 0.02 / Z95


@pytest.mark.parametrize("estimator", ["sampled", "knn"])
def test_neither_threads_nor_repetition_change_a_bit(estimator: str) -> None:
    x = uneven(LARGE)
    first = estimate_entropy(x, [0.5, 0.1], estimator, 0.05, random_state=7, jobs=1)
    for jobs in (1, 2, 3):
        same_bits(estimate_entropy(x, [0.5, 0.1], estimator, 0.05, random_state=7, jobs=jobs), first)
    with Workers(2) as workers:
        generator = np.random.default_rng(7)
        same_bits(estimate_entropy(x, [0.5, 0.1], estimator, 0.05, random_state=generator, workers=workers), first)
        other = estimate_entropy(x, [0.5, 0.1], estimator, 0.05, random_state=generator, workers=workers)
    assert (other.value != first.value).all()


def test_the_set_itself_is_left_alone() -> None:
    x = uneven(LARGE)
    before = x.copy()
    for estimator in ESTIMATORS:
        estimate_entropy(x, 0.5, estimator, 0.1, random_state=0)
    np.testing.assert_array_equal(x, before)


def test_auto_is_exact_for_small_sets_and_where_that_is_less_work(monkeypatch: pytest.MonkeyPatch) -> None:
    x = uneven(LARGE)
    assert estimate_entropy(x, 0.5).estimator == "exact"
    monkeypatch.setattr(estimate, "EXACT_UP_TO", LARGE)
    assert estimate_entropy(x, 0.5, tolerance=0.1).estimator == "exact"
    monkeypatch.setattr(estimate, "EXACT_UP_TO", LARGE - 1)
    assert estimate_entropy(x, 0.5, tolerance=0.1, random_state=0).estimator == "sampled"
    labels = np.arange(LARGE) % 2
    for mine in (None, labels):
        strict = estimate_entropy(x, 0.5, tolerance=1e-4, labels=mine, random_state=0)
        assert strict.estimator == "exact"
        assert strict.standard_error == 0.0
        assert strict.value == entropy(x, 0.5, labels=mine)
        assert strict.references == ()


@pytest.mark.parametrize("width", [1e4, 1e7])
def test_sets_too_wide_for_single_precision(width: float) -> None:
    """Clusters many thousand bandwidths apart: in single precision H would be off by more than a nat."""
    rng = np.random.default_rng(0)
    x = np.repeat(width * rng.normal(size=(40, 3)), 250, axis=0) + 0.7 * rng.normal(size=(10_000, 3))
    value, d, dh = get_all_metrics(x, 1.0, precision="float64")
    found = estimate_entropy(x, 1.0, "sampled", 0.02, random_state=0)
    assert abs(found.value - value) < 4.0 * found.standard_error
    assert abs(found.diversity - d) < 4.0 * found.diversity_error
    each = approx_delta_entropy(x, h=1.0, estimator="sampled", n_references=2048, random_state=0)
    assert np.mean(np.abs(each.values - dh) <= 1.96 * each.standard_error) > 0.9
    assert np.abs(each.values - dh).max() < 1.5


# --- entropy: neighbours ----------------------------------------------------------------------------------------------


def test_what_knn_tells() -> None:
    x = uneven(LARGE)
    found = estimate_entropy(x, 0.5, "knn", 0.1, n_neighbors=20, random_state=3)
    value, d, _ = get_all_metrics(x, 0.5)
    assert found.estimator == "knn"
    assert found.recall == 1.0
    assert found.references == (20, LARGE)
    assert found.environments[0] == LARGE
    assert 1000 <= found.environments[1] <= LARGE
    assert found.bound > value
    assert abs(found.value - value) < 4.0 * found.standard_error
    assert abs(found.diversity - d) < 4.0 * found.diversity_error
    assert isinstance(found.bound, float)


small_sets = st.tuples(st.integers(1, 40), st.integers(1, 5)).flatmap(
    lambda shape: hnp.arrays(np.float64, shape, elements=st.floats(-9.0, 9.0, width=32), fill=st.nothing())
)


@given(x=small_sets, h=st.floats(0.05, 50.0), n_neighbors=st.integers(1, 50))
def test_neighbours_alone_give_an_upper_bound(x: Array, h: float, n_neighbors: int) -> None:
    found = estimate_entropy(x, h, "knn", n_neighbors=n_neighbors, precision="float64", jobs=1)
    exact = naive.entropy(x, h)
    assert found.bound >= exact - 1e-10
    assert found.value == pytest.approx(exact, abs=1e-9)
    if n_neighbors >= len(x):
        assert found.bound == pytest.approx(exact, abs=1e-9)
    if n_neighbors == 1:
        assert found.bound == pytest.approx(math.log(len(x)), abs=1e-12)


def test_the_bound_comes_down_with_more_neighbours() -> None:
    x = uneven(600)
    bounds = [estimate_entropy(x, 0.5, "knn", n_neighbors=n).bound for n in (1, 8, 64, 600)]
    assert (np.diff(bounds) < 0.0).all()
    assert bounds[0] == pytest.approx(math.log(600))
    assert bounds[-1] == pytest.approx(entropy(x, 0.5), abs=1e-10)


# --- entropy: refusals ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"x": [1.0, 2.0]}, r"x must have two dimensions \(environments, components\), got shape \(2,\)"),
        ({"x": [[np.nan]]}, r"x must be finite, but row 0 holds NaN or infinity"),
        ({"h": 0.0}, r"bandwidth must be positive and finite, got 0\.0"),
        ({"h": []}, r"at least one bandwidth is needed"),
        (
            {"estimator": "guess"},
            r"estimator must be one of auto, exact, sampled, knn, got 'guess'",
        ),
        ({"tolerance": 0.0}, r"tolerance must be positive and finite, got 0\.0"),
        ({"tolerance": "small"}, r"tolerance must be a number, got 'small'"),
        ({"n_neighbors": 0}, r"n_neighbors must be a whole number of at least 1, got 0"),
        ({"n_neighbors": 1.5}, r"n_neighbors must be a whole number of at least 1, got 1\.5"),
        ({"labels": [1, 2]}, r"labels must have shape \(5,\), one per environment, got \(2,\)"),
        ({"random_state": -1}, r"random_state must be a whole number from 0, a numpy Generator or None, got -1"),
        ({"precision": "half"}, r"precision must be one of auto, float64, float32, got 'half'"),
        ({"jobs": 0}, r"jobs must be a whole number of at least 1, got 0"),
    ],
)
def test_entropy_arguments_out_of_range(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        estimate_entropy(**{"x": cloud(5, 2), **arguments})


def test_progress_is_told() -> None:
    told: list[int] = []
    for estimator in ESTIMATORS:
        told.clear()
        estimate_entropy(cloud(1200, 3), 0.5, estimator, random_state=0, progress=told.append)
        assert sum(told) >= 1200**2 / 2


# --- dH: exact --------------------------------------------------------------------------------------------------------


def test_small_sets_get_exact_dh() -> None:
    y, x = uneven(30, seed=1), uneven(200)
    for estimator in ("auto", "exact"):
        found = approx_delta_entropy(y, x, 0.5, estimator=estimator)
        np.testing.assert_allclose(found.values, naive.delta_entropy(y, x, 0.5), rtol=1e-11, atol=1e-11)
        np.testing.assert_array_equal(found.standard_error, np.zeros(30))
        assert (found.estimator, found.rms_error, found.references, found.recall) == ("exact", 0.0, 200, None)
        within = approx_delta_entropy(x, h=0.5, estimator=estimator)
        np.testing.assert_allclose(within.values, naive.delta_entropy(x, x, 0.5), rtol=1e-11, atol=1e-11)


def test_estimates_are_arrays() -> None:
    found = approx_delta_entropy(uneven(30, seed=1), uneven(200), 0.5)
    assert len(found) == 30
    plain = np.asarray(found)
    np.testing.assert_array_equal(plain, found.values)
    assert plain.dtype == np.float64
    assert np.asarray(found, dtype=np.float32).dtype == np.float32
    copied = np.array(found)
    copied[:] = 0.0
    assert (found.values != 0.0).any()
    assert np.mean(found) == found.values.mean()


def test_auto_samples_large_sets_only(monkeypatch: pytest.MonkeyPatch) -> None:
    y, x = uneven(600, seed=1), uneven(LARGE)

    def used(**options: Any) -> str:
        return approx_delta_entropy(y, x, 0.5, random_state=0, **options).estimator

    assert used(n_references=1024) == "exact"
    monkeypatch.setattr(approximate, "EXACT_UP_TO", 2000)
    assert used(n_references=1024) == "sampled"
    assert used(n_references=LARGE // 2) == "exact"  # sampling half of it does not pay
    assert used() == "exact"


# --- dH: samples ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("within", [True, False])
@pytest.mark.parametrize("h", [0.2, 1.0])
def test_intervals_of_dh_hold(h: float, within: bool) -> None:
    x = uneven(20_000)
    y = x if within else uneven(3000, seed=1)
    exact = delta_entropy(y, x, h, precision="float64")
    held = []
    for seed in range(3):
        found = approx_delta_entropy(
            y, None if within else x, h, estimator="sampled", n_references=2048, random_state=seed
        )
        off = found.values - exact
        held.append(np.abs(off) <= Z95 * found.standard_error + 1e-6)
        for lowest, highest in ((-math.inf, -5.0), (-5.0, -1.0), (-1.0, math.inf)):
            alike = (found.values >= lowest) & (found.values < highest)
            assert held[-1][alike].mean() > 0.85  # not only on average over dense regions and empty ones
        assert found.estimator == "sampled"
        assert found.rms_error == pytest.approx(math.sqrt(np.mean(off**2)), rel=0.5)
        assert 1024 <= found.references <= 4096
        assert found.recall is None
        assert np.median(found.standard_error[exact < -6.0]) < 0.2
    assert 0.93 <= np.mean(held) <= 1.0


def test_samples_of_everything_are_exact() -> None:
    x = uneven(3000)
    found = approx_delta_entropy(x, h=0.5, estimator="sampled", n_references=10**6, random_state=0, precision="float64")
    np.testing.assert_allclose(found.values, get_all_metrics(x, 0.5)[2], rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(found.standard_error, 0.0, atol=1e-10)
    assert found.references == 3000


def test_sampled_p_is_free_of_bias() -> None:
    """exp(-dH), less the correction of the logarithm, is p on average over the seeds."""
    x, y = uneven(6000), uneven(400, seed=1)
    exact = np.exp(-delta_entropy(y, x, 1.0))
    found = np.array(
        [
            np.exp(-approx_delta_entropy(y, x, 1.0, estimator="sampled", n_references=1024, random_state=s).values)
            for s in range(60)
        ]
    )
    close = exact > 30.0  # where single estimates are good to some per cent, so that the correction is small
    ratio = (found.mean(axis=0) / exact)[close]
    assert close.sum() > 200
    assert ratio.mean() == pytest.approx(1.0, abs=0.01)


def test_the_bias_of_the_logarithm_is_corrected() -> None:
    """E ln p = ln p - var / 2 p^2: where var / p^2 is 0.01 to 0.1, what is left of it is a tenth of that."""
    x, y = cloud(6000, 8), cloud(300, 8, seed=1)
    exact = -delta_entropy(y, x, 0.4)
    log_p, error = np.empty((2, 50, 300))
    with Workers(1) as workers:
        for seed in range(50):
            rng = np.random.default_rng(seed)
            sample = Stratified(y, x, False, 0.4, 1024, rng, "float64", workers)
            log_p[seed], error[seed], _ = sample.log_sums(None)
    relative = (error**2).mean(axis=0)
    some = (relative > 0.01) & (relative < 0.1)
    assert some.sum() > 200
    assert (log_p.mean(axis=0) - exact)[some].mean() == pytest.approx(0.0, abs=0.2 * relative[some].mean())
    # and the sample knows its own spread
    assert log_p.var(axis=0)[some].mean() == pytest.approx(relative[some].mean(), rel=0.3)


@pytest.mark.parametrize("precision", ["auto", "float64"])
@pytest.mark.parametrize("estimator", ["sampled", "knn"])
def test_far_environments_are_finite_and_right(estimator: str, precision: str) -> None:
    """A thousand bandwidths from all references, where linear sums hold nothing."""
    x = cloud(6000, 3)
    y = np.concatenate([cloud(20, 3, seed=1), 1000.0 + cloud(20, 3, seed=2)])
    exact = delta_entropy(y, x, 1.0)
    found = approx_delta_entropy(y, x, 1.0, estimator=estimator, n_references=1024, random_state=0, precision=precision)
    assert np.isfinite(found.values).all()
    assert np.isfinite(found.standard_error).all()
    np.testing.assert_allclose(found.values[20:], exact[20:], rtol=1e-6)
    if estimator == "sampled":
        np.testing.assert_allclose(found.values[20:], exact[20:], rtol=1e-12)


@pytest.mark.parametrize("distance", [5.0, 12.0, 30.0])
@pytest.mark.parametrize("precision", ["auto", "float64"])
def test_errors_own_up_at_any_distance(distance: float, precision: str) -> None:
    x, y = cloud(6000, 3), cloud(300, 3, seed=1)
    y[:, 0] += distance
    found = approx_delta_entropy(y, x, 1.0, estimator="sampled", n_references=1024, random_state=0, precision=precision)
    off = np.abs(found.values - delta_entropy(y, x, 1.0))
    assert np.mean(off <= Z95 * found.standard_error + 1e-9) > 0.9


# --- dH: dense regions ------------------------------------------------------------------------------------------------


def test_neighbours_are_wrong_by_nats_where_many_are_close_and_say_so() -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate([0.05 * rng.normal(size=(6000, 3)), 40.0 * rng.normal(size=(2000, 3))])
    dense = np.arange(8000) < 6000
    exact = get_all_metrics(x, 1.0)[2]
    assert exact[dense].max() < -8.6  # ln 6000 = 8.7
    knn = approx_delta_entropy(x, h=1.0, estimator="knn", n_neighbors=32, random_state=0)
    assert knn.values.min() >= -math.log(32) - 1e-12
    off = knn.values - exact
    assert off.min() > -1e-6  # an upper bound
    assert (off[dense] > 5.0).all()
    np.testing.assert_allclose(knn.standard_error[dense], off[dense], rtol=0.2)
    assert np.median(knn.standard_error[~dense]) < 0.5
    assert np.mean(np.abs(off) <= Z95 * knn.standard_error + 1e-6) > 0.9
    assert knn.rms_error == pytest.approx(math.sqrt(np.mean(off**2)), rel=0.05)
    assert (knn.recall, knn.references) == (1.0, 32)
    sampled = approx_delta_entropy(x, h=1.0, estimator="sampled", n_references=1024, random_state=0)
    off = sampled.values - exact
    assert np.abs(off[dense]).max() < 0.5
    assert np.mean(np.abs(off[dense]) <= Z95 * sampled.standard_error[dense] + 1e-6) > 0.93


@given(x=small_sets, y=small_sets, h=st.floats(0.05, 50.0), n_neighbors=st.integers(1, 50))
def test_few_neighbours_bound_dh_from_above(x: Array, y: Array, h: float, n_neighbors: int) -> None:
    d = min(x.shape[1], y.shape[1])
    x, y = x[:, :d], y[:, :d]
    for queries, reference in ((x, None), (y, x)):
        exact = naive.delta_entropy(queries, x, h)
        found = approx_delta_entropy(
            queries, reference, h, estimator="knn", n_neighbors=min(n_neighbors, len(x)), random_state=0, jobs=1
        )
        slack = 1e-9 * (1.0 + np.abs(exact))
        assert (found.values >= exact - slack).all()
        if n_neighbors >= len(x):
            assert (found.values <= exact + slack).all()
        off = found.values - exact
        assert found.rms_error == pytest.approx(math.sqrt(np.mean(off**2)), abs=1e-6, rel=1e-6)


# --- dH: labels -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_only_the_same_label_counts(estimator: str) -> None:
    y, x = uneven(900, seed=1), uneven(6000)
    y_labels, x_labels = np.array(["Cu", "Ag", "Zr"] * 300), np.array(["Ag", "Cu", "Cu"] * 2000)
    exact = delta_entropy(y, x, 0.5, y_labels=y_labels, x_labels=x_labels)
    found = approx_delta_entropy(
        y, x, 0.5, estimator=estimator, y_labels=y_labels, x_labels=x_labels, n_references=1024, random_state=0
    )
    assert np.isposinf(found.values[y_labels == "Zr"]).all()
    seen = y_labels != "Zr"
    off = np.abs(found.values[seen] - exact[seen])
    assert np.mean(off <= Z95 * found.standard_error[seen] + 1e-6) > 0.9
    assert found.estimator == ("exact" if estimator == "auto" else estimator)
    # within a set
    within = approx_delta_entropy(x, h=0.5, estimator=estimator, y_labels=x_labels, n_references=1024, random_state=0)
    off = np.abs(within.values - get_all_metrics(x, 0.5, labels=x_labels)[2])
    assert np.mean(off <= Z95 * within.standard_error + 1e-6) > 0.9


def test_labels_that_the_reference_never_saw() -> None:
    x = uneven(50)
    found = approx_delta_entropy(x, x, 0.5, y_labels=[1] * 50, x_labels=[2] * 50)
    assert np.isposinf(found.values).all()
    np.testing.assert_array_equal(found.standard_error, np.zeros(50))


# --- dH: threads, refusals --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", ["sampled", "knn"])
@pytest.mark.parametrize("within", [True, False])
def test_dh_is_the_same_bits_for_any_number_of_threads(estimator: str, within: bool) -> None:
    x, y = uneven(6000), uneven(1500, seed=1)
    options: dict[str, Any] = {"h": 0.5, "estimator": estimator, "n_references": 1024}
    arguments = (x,) if within else (y, x)
    first = approx_delta_entropy(*arguments, random_state=7, jobs=1, **options)
    for jobs in (1, 2, 3):
        same_bits(approx_delta_entropy(*arguments, random_state=7, jobs=jobs, **options), first)
    other = approx_delta_entropy(*arguments, random_state=8, **options)
    if estimator == "sampled":
        assert (other.values != first.values).any()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"y": [[1.0]]}, r"y has 1 components and x has 2: both must come from the same descriptor"),
        ({"y": [[np.inf, 0.0]]}, r"y must be finite, but row 0 holds NaN or infinity"),
        ({"x": []}, r"x must have two dimensions \(environments, components\), got shape \(0,\)"),
        ({"h": [0.1, 0.2]}, r"one bandwidth is needed, got several"),
        ({"h": -1.0}, r"bandwidth must be positive and finite, got -1\.0"),
        ({"estimator": "levels"}, r"estimator must be one of auto, exact, sampled, knn, got 'levels'"),
        ({"n_neighbors": 0}, r"n_neighbors must be a whole number of at least 1, got 0"),
        ({"n_references": 1023}, r"n_references must be a whole number of at least 1024, got 1023"),
        ({"y_labels": [1] * 5}, r"y_labels and x_labels go together: give both or none"),
        ({"x_labels": [1] * 5}, r"y_labels and x_labels go together: give both or none"),
        ({"y_labels": [1], "x_labels": [1] * 5}, r"y_labels must have shape \(5,\), one per environment, got \(1,\)"),
        ({"random_state": "dice"}, r"random_state must be a whole number from 0, a numpy Generator or None"),
        ({"precision": "double"}, r"precision must be one of auto, float64, float32, got 'double'"),
        ({"jobs": 0.5}, r"jobs must be a whole number of at least 1, got 0\.5"),
    ],
)
def test_dh_arguments_out_of_range(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        approx_delta_entropy(**{"y": cloud(5, 2), "x": cloud(5, 2, seed=1), **arguments})


# --- on real data -----------------------------------------------------------------------------------------------------


def thermal_copper() -> Array:
    from structures import as_atoms, fcc

    from quests_zenn.descriptors import get_descriptors

    return get_descriptors([as_atoms(fcc(repeat=(14, 14, 14), rattle=0.1))])


def read_descriptors(path: Path) -> Array:
    from ase.io import read

    from quests_zenn.descriptors import get_descriptors

    return get_descriptors(read(path, ":"))


def hold_on(x: Array, tolerance: float) -> None:
    value, d, _ = get_all_metrics(x)
    found = [estimate_entropy(x, estimator="sampled", tolerance=tolerance, random_state=seed) for seed in range(200)]
    assert all(one.standard_error <= tolerance / Z95 for one in found)
    held = np.mean([one.interval[0] <= value <= one.interval[1] for one in found])
    assert 0.92 <= held <= 0.99
    held = np.mean([abs(one.diversity - d) <= Z95 * one.diversity_error for one in found])
    assert 0.9 <= held <= 0.99
    error = math.sqrt(np.mean([one.standard_error**2 for one in found]))
    assert np.mean([one.value for one in found]) == pytest.approx(value, abs=4.0 * error / math.sqrt(200))


@pytest.mark.slow
@pytest.mark.parametrize("tolerance", [0.02, 0.05])
@pytest.mark.parametrize("name", ["mlearn_Si_train", "acac_test_600K"])
def test_intervals_hold_on_real_data(name: str, tolerance: float, data_dir: Path) -> None:
    hold_on(read_descriptors(data_dir / f"{name}.xyz"), tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("tolerance", [0.02, 0.05])
def test_intervals_hold_in_a_thermal_crystal(tolerance: float) -> None:
    hold_on(thermal_copper(), tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("n_references", [1024, 4096])
def test_intervals_of_dh_hold_in_a_thermal_crystal(n_references: int) -> None:
    x = thermal_copper()
    exact = get_all_metrics(x)[2]
    held = []
    for seed in range(10):
        found = approx_delta_entropy(x, estimator="sampled", n_references=n_references, random_state=seed)
        held.append(np.abs(found.values - exact) <= Z95 * found.standard_error)
    assert 0.93 <= np.mean(held) <= 1.0


def test_rows_whose_squares_overflow_are_refused() -> None:
    """In one sentence: NumPy's remark about an overflow would be an error here."""
    x = 1e300 * np.random.default_rng(0).random((5000, 2))
    with pytest.raises(ValueError, match="spreads over so many bandwidths that squared distances overflow"):
        estimate_entropy(x, 0.03, "sampled")
