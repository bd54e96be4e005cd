"""Means from samples of samples: the formula of each part, the least work, no bias, and errors that hold."""

from __future__ import annotations

import itertools
import math
from typing import Any

import naive
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quests_zenn._core.parallel import Workers
from quests_zenn._core.rows import MemoryRows
from quests_zenn.entropy import _levels, estimate_entropy
from quests_zenn.entropy._levels import Level, SampledSums, allocate, estimate_means, reference_sizes

Array = npt.NDArray[np.float64]


def uneven(n: int, seed: int = 0) -> Array:
    """Half of it in a tight cluster, a third around it, the rest far and alone."""
    rng = np.random.default_rng([seed, n])
    parts = [n // 2, n // 3, n - n // 2 - n // 3]
    return np.concatenate([width * rng.normal(size=(m, 3)) for m, width in zip(parts, (0.1, 1.0, 6.0), strict=True)])


def variance_of_sum(variances: Array, numbers: Array, n: int) -> float:
    """Of means over m of n, drawn without replacement: v (1 / m - 1 / n) each."""
    terms = [v * (1.0 / m - 1.0 / n) for v, m in zip(variances, numbers, strict=True) if v > 0.0]
    return math.fsum(terms)


# --- how many to ask --------------------------------------------------------------------------------------------------


@given(
    variances=st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=4),
    costs=st.lists(st.floats(1.0, 1e5), min_size=4, max_size=4),
    share=st.floats(1e-4, 2.0),
    n=st.integers(2, 10**6),
)
def test_the_target_is_met_and_not_more(variances: list[float], costs: list[float], share: float, n: int) -> None:
    v = np.array(variances)
    target = share * float(v.sum()) / n
    numbers = allocate(v, costs[: len(v)], target, n)
    assert numbers.dtype == np.int64
    assert ((numbers >= 1) & (numbers <= n)).all()
    assert variance_of_sum(v, numbers, n) <= target * (1.0 + 1e-9)
    fewer = np.where(numbers < n, numbers - 1, numbers)
    if (numbers < n).any() and (fewer > 0).all():
        assert variance_of_sum(v, fewer, n) >= target * (1.0 - 1e-9)


@given(
    variances=st.tuples(st.floats(0.01, 10.0), st.floats(0.01, 10.0)),
    costs=st.tuples(st.floats(1.0, 100.0), st.floats(1.0, 100.0)),
    share=st.floats(0.01, 3.0),
    n=st.integers(2, 60),
)
def test_no_other_numbers_are_cheaper(
    variances: tuple[float, float], costs: tuple[float, float], share: float, n: int
) -> None:
    v = np.array(variances)
    target = share * float(v.sum()) / n
    found = allocate(v, list(costs), target, n) @ np.array(costs)
    best = min(
        m @ np.array(costs)
        for m in map(np.array, itertools.product(range(1, n + 1), repeat=2))
        if variance_of_sum(v, m, n) <= target * (1.0 + 1e-12)
    )
    assert best - 1e-9 <= found <= best + sum(costs)  # whole numbers: one more on each level at most


def test_equal_levels_share_the_work() -> None:
    """Two levels of variance 1 at cost 1 and 100, far more than enough environments: 10 to 1, and 1/10 + 1/1 = 1.1."""
    numbers = allocate(np.ones(2), [1.0, 100.0], 1.1e-4 - 2e-12, 10**12)
    np.testing.assert_allclose(numbers, [1e5, 1e4], rtol=1e-3)


def test_a_level_is_asked_in_full_and_the_others_make_up_for_it() -> None:
    """The first level is cheap enough to ask all: it has no error left, and the second gets all of the target."""
    numbers = allocate(np.array([100.0, 1.0]), [1.0, 1e6], 0.01, 1000)
    assert numbers[0] == 1000
    assert numbers[1] == math.ceil(1.0 / (0.01 + 1.0 / 1000))


def test_no_target_asks_everything_and_no_variance_nothing() -> None:
    np.testing.assert_array_equal(allocate(np.ones(3), [1.0, 2.0, 3.0], 1e-30, 50), [50, 50, 50])
    np.testing.assert_array_equal(allocate(np.array([1.0, 0.0]), [1.0, 1.0], 0.01, 10**6), [100, 0])


@pytest.mark.parametrize(
    ("n", "sizes"),
    [
        (1, [1]),
        (8_999, [8_999]),
        (9_000, [300, 9_000]),
        (269_999, [8_999, 269_999]),
        (270_000, [300, 9_000, 270_000]),
        (5_000_000, [5_555, 166_666, 5_000_000]),
    ],
)
def test_sizes_of_samples(n: int, sizes: list[int]) -> None:
    assert reference_sizes(n) == sizes


# --- one level --------------------------------------------------------------------------------------------------------


def test_each_environment_is_asked_once() -> None:
    asked: list[int] = []

    def evaluate(queries: npt.NDArray[np.int64]) -> Array:
        assert queries.dtype == np.int64
        asked.extend(queries.tolist())
        return np.stack([queries.astype(float), np.ones(len(queries))])

    order = np.random.default_rng(0).permutation(50).astype(np.int32)
    level = Level(1.0, evaluate, order)
    assert level.asked == 0
    for m, total in ((1, 1), (1, 1), (20, 20), (5, 20), (50, 50), (50, 50)):
        level.ask(m)
        assert level.asked == len(asked) == total
        np.testing.assert_array_equal(asked, order[:total])
        np.testing.assert_array_equal(level.values[0], order[:total])
        expected = np.var(order[:total], ddof=1) if total > 1 else 0.0
        np.testing.assert_allclose(level.variances(), [expected, 0.0], rtol=1e-13)
        np.testing.assert_allclose(level.variance_of_mean(), [expected * (1 / total - 1 / 50), 0.0], rtol=1e-13)
    assert (level.variance_of_mean() == 0.0).all()  # nothing left to ask
    assert level.values.mean(axis=1)[0] == 24.5


# --- sums over a sample -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("m", [2, 7, 60, 120])
def test_sums_over_a_sample_follow_the_formula(m: int, precision: str) -> None:
    """p = 1 + (N - 1) / m' sum_j K over the m' members of the sample that are not the environment itself."""
    x, h = 0.5 * uneven(120), np.array([0.4, 0.1, 2.0])
    members = np.random.default_rng(m).choice(120, m, replace=False)
    with Workers(1) as workers:
        found = SampledSums(MemoryRows(x), h, members, precision, workers)(np.arange(120))
    for row, bandwidth in zip(found, h.tolist(), strict=True):
        expected = np.empty(120)
        for i in range(120):
            others = [j for j in members.tolist() if j != i]
            kernel = [math.exp(-float(((x[i] - x[j]) ** 2).sum()) / (2.0 * bandwidth**2)) for j in others]
            expected[i] = 1.0 + 119.0 / len(others) * math.fsum(kernel)
        np.testing.assert_allclose(row, expected, rtol=1e-11 if precision == "float64" else 1e-3)


def test_sums_over_the_whole_set_are_exact() -> None:
    x, h = uneven(300), np.array([0.4])
    with Workers(1) as workers:
        sums = SampledSums(MemoryRows(x), h, np.random.default_rng(0).permutation(300), "float64", workers)
        found = sums(np.array([5, 250, 3]))
    np.testing.assert_allclose(np.log(found[0]), naive.log_density(x[[5, 250, 3]], x, 0.4), rtol=1e-12, atol=1e-12)


def test_a_member_that_is_alone_keeps_no_trace_of_its_own_term() -> None:
    """1,000 bandwidths from all others, in single precision, scaled up by (N - 1) / (m - 1) = 999: p is still 1."""
    x = 1e3 * np.arange(1000.0)[:, None]
    with Workers(1) as workers:
        found = SampledSums(MemoryRows(x), np.ones(1), np.array([10, 500]), "float32", workers)(np.arange(1000))
    np.testing.assert_array_equal(found, 1.0)


def test_sums_over_samples_are_free_of_bias() -> None:
    """The mean of p over all samples of 2 of 8 is p, for members of the sample and others together."""
    x = uneven(8)
    with Workers(1) as workers:
        samples = [np.array(pair) for pair in itertools.combinations(range(8), 2)]
        found = [
            SampledSums(MemoryRows(x), np.array([1.5]), pair, "float64", workers)(np.arange(8))[0] for pair in samples
        ]
    np.testing.assert_allclose(np.log(np.mean(found, axis=0)), naive.log_density(x, x, 1.5), rtol=1e-12, atol=1e-12)


# --- means ------------------------------------------------------------------------------------------------------------


def patch_pilots(monkeypatch: pytest.MonkeyPatch, pilot: int) -> None:
    monkeypatch.setattr(_levels, "PILOT", pilot)
    monkeypatch.setattr(_levels, "FIRST_PILOT", pilot)


def given_levels(values: list[Array], costs: list[float], seed: int) -> list[Level]:
    rng = np.random.default_rng(seed)

    def level(table: Array, cost: float) -> Level:
        return Level(cost, lambda queries: table[:, queries], rng.permutation(table.shape[1]))

    return [level(table, cost) for table, cost in zip(values, costs, strict=True)]


def test_a_small_set_is_asked_in_full() -> None:
    values = [np.random.default_rng(s).normal(size=(2, 500)) for s in (0, 1)]
    found = estimate_means(given_levels(values, [1.0, 10.0], 0), np.array([1e-9]))
    assert found is not None
    np.testing.assert_allclose(found[0], values[0].mean(axis=1) + values[1].mean(axis=1), atol=1e-14)
    np.testing.assert_array_equal(found[1], [0.0, 0.0])


def test_means_reach_their_targets_with_an_error_that_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    patch_pilots(monkeypatch, 200)
    rng = np.random.default_rng(0)
    # rare large differences on the dear level; of two functions only the first has a target
    values = [rng.exponential(size=(2, 20_000)), rng.standard_gamma(0.3, size=(2, 20_000))]
    true = sum(table.mean(axis=1) for table in values)
    target, held, work = 0.02, [], []
    for seed in range(200):
        levels = given_levels(values, [100.0, 3000.0], seed)
        found = estimate_means(levels, np.array([target]))
        assert found is not None
        assert found[1][0] <= target
        assert found[1][1] > 0.0
        held.append(np.abs(found[0] - true) <= 1.96 * found[1])
        work.append([level.asked for level in levels])
    assert (np.mean(held, axis=0) >= 0.92).all()
    assert (np.mean(held, axis=0) <= 0.99).all()
    assert np.mean(work, axis=0)[0] > 3.0 * np.mean(work, axis=0)[1]  # most of them where they are cheap
    # about the least: the optimum, with variances known
    best = allocate(np.array([table[0].var() for table in values]), [100.0, 3000.0], target**2, 20_000)
    np.testing.assert_allclose(np.mean(work, axis=0), best, rtol=0.1)


def test_several_targets_are_all_met(monkeypatch: pytest.MonkeyPatch) -> None:
    patch_pilots(monkeypatch, 100)
    scale = np.array([[1.0], [5.0], [1.0]])
    values = [scale * np.random.default_rng(s).normal(size=(3, 30_000)) for s in (0, 1)]
    targets = np.array([0.1, 0.1])
    found = estimate_means(given_levels(values, [1.0, 30.0], 0), targets)
    assert found is not None
    assert (found[1][:2] <= targets).all()
    assert found[1][1] > 0.09  # the widest decides
    assert found[1][0] < 0.03


def test_too_much_work_is_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    patch_pilots(monkeypatch, 100)
    values = [np.random.default_rng(s).normal(size=(1, 30_000)) for s in (0, 1)]
    levels = given_levels(values, [1.0, 30.0], 0)
    assert estimate_means(levels, np.array([0.01]), most_work=1e5) is None
    assert [level.asked for level in levels] == [100, 100]
    assert estimate_means(levels, np.array([0.01]), most_work=1e9) is not None


def test_equal_values_need_a_pilot_only(monkeypatch: pytest.MonkeyPatch) -> None:
    patch_pilots(monkeypatch, 100)
    levels = given_levels([np.full((1, 5000), 0.3), np.zeros((1, 5000))], [1.0, 30.0], 0)
    found = estimate_means(levels, np.array([1e-6]))
    assert found is not None
    assert found[0][0] == pytest.approx(0.3, abs=1e-15)
    assert found[1][0] == pytest.approx(0.0, abs=1e-15)
    assert [level.asked for level in levels] == [100, 100]


def test_the_first_level_is_looked_at_closely() -> None:
    """A quarter of it, so that what is rare shows up; a thousand of the others."""
    levels = given_levels([np.zeros((1, 20_000)), np.zeros((1, 20_000))], [1.0, 30.0], 0)
    estimate_means(levels, np.array([1e-6]))
    assert [level.asked for level in levels] == [5000, 1000]


# --- the whole of it --------------------------------------------------------------------------------------------------


def patch_sizes(monkeypatch: pytest.MonkeyPatch, growth: int, fewest: int, pilot: int) -> None:
    monkeypatch.setattr(_levels, "GROWTH", growth)
    monkeypatch.setattr(_levels, "FEWEST_REFERENCES", fewest)
    patch_pilots(monkeypatch, pilot)


def estimates(x: Array, h: Any, tolerance: float, seeds: int) -> dict[str, Array]:
    found = [estimate_entropy(x, h, "sampled", tolerance, random_state=seed, jobs=1) for seed in range(seeds)]
    names = ("value", "standard_error", "diversity", "diversity_error")
    return {name: np.array([getattr(one, name) for one in found]) for name in names}


def test_small_samples_of_references_leave_no_bias(monkeypatch: pytest.MonkeyPatch) -> None:
    """3 of 243 references on the first level: ln p of it alone is off by a third, the estimate by nothing."""
    patch_sizes(monkeypatch, growth=9, fewest=3, pilot=40)
    x, h = uneven(243), 0.5
    assert reference_sizes(243) == [3, 27, 243]
    exact = naive.entropy(x, h)
    found = estimates(x, h, 0.6, 600)
    error = found["value"].std() / math.sqrt(600)
    assert found["value"].mean() == pytest.approx(exact, abs=3.5 * error)
    # and it tells its own spread
    spread = math.sqrt(np.mean(found["standard_error"] ** 2))
    assert found["value"].std() == pytest.approx(spread, rel=0.12)
    with Workers(1) as workers:
        rng = np.random.default_rng(0)
        alone = [
            math.log(243.0)
            - np.log(
                SampledSums(MemoryRows(x), np.array([h]), rng.permutation(243)[:3], "float64", workers)(np.arange(243))
            ).mean()
            for _ in range(200)
        ]
    assert np.mean(alone) - exact > 10.0 * error


@pytest.mark.parametrize(("tolerance", "h"), [(0.15, 0.3), (0.1, 1.0)])
def test_intervals_hold_on_a_set_of_uneven_density(tolerance: float, h: float, monkeypatch: pytest.MonkeyPatch) -> None:
    patch_sizes(monkeypatch, growth=10, fewest=30, pilot=200)
    x = uneven(3000)
    exact = naive_entropy_in_numpy(x, h)
    found = estimates(x, h, tolerance, 200)
    assert (found["standard_error"] <= tolerance / 1.9599).all()
    assert found["standard_error"].min() > 0.3 * tolerance / 1.96
    for name, error, true in zip(("value", "diversity"), ("standard_error", "diversity_error"), exact, strict=True):
        held = np.mean(np.abs(found[name] - true) <= 1.96 * found[error])
        assert 0.92 <= held <= 0.99, name


def naive_entropy_in_numpy(x: Array, h: float) -> tuple[float, float]:
    """H and D from all pairs at once."""
    p = np.array([np.exp(-((x - row) ** 2).sum(axis=1) / (2.0 * h * h)).sum() for row in x])
    return math.log(len(x)) - float(np.log(p).mean()), math.log((1.0 / p).sum())


@pytest.mark.parametrize("seed", range(5))
def test_the_few_defects_of_a_crystal_are_not_overlooked(seed: int) -> None:
    """30 environments of their own among 9,470 equal ones: H = -(1/N) sum ln(p/N) = 0.0316, not nothing."""
    x = np.zeros((9500, 2))
    x[np.random.default_rng(0).choice(9500, 30, replace=False), 0] = 100.0 * np.arange(1, 31)
    exact = -(30 * math.log(1 / 9500) + 9470 * math.log(9470 / 9500)) / 9500
    found = estimate_entropy(x, 1.0, "sampled", 0.1, random_state=seed)
    assert 0.0 < found.standard_error <= 0.1 / 1.9599
    assert found.value == pytest.approx(exact, abs=4.0 * found.standard_error)
