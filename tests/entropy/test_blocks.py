"""Errors of correlated frames: H without each block, one block at a time, and series whose memory is known."""

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
from quests_zenn.entropy import (
    GAS_CONSTANT,
    autocorrelation_time,
    block_error,
    blocks,
    entropy,
    get_all_metrics,
    time_blocks,
)

Array = npt.NDArray[Any]


def cloud(n: int, d: int, seed: int = 0) -> Array:
    """Environments at distances of about 2, whatever their width."""
    return np.random.default_rng([seed, n, d]).normal(size=(n, d)) * math.sqrt(2.0 / d)


def labelled_entropy(x: Array, h: float, labels: Array) -> float:
    """H of environments that see only those with their own label."""
    log_p = [naive.log_density(x[labels == one], x[labels == one], h) for one in np.unique(labels)]
    return float(math.log(len(x)) - np.concatenate(log_p).mean())


def jackknife(without: Array) -> float:
    """Square root of (B - 1) / B sum_b (H_b - mean H_b)^2."""
    b, mean = len(without), math.fsum(without) / len(without)
    return math.sqrt((b - 1) / b * math.fsum((value - mean) ** 2 for value in without.tolist()))


# --- block error ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [[30, 30], [1, 1, 1], [5, 1, 40, 17, 2]])
@pytest.mark.parametrize("labelled", [False, True])
def test_each_block_is_left_out_in_turn(sizes: list[int], labelled: bool) -> None:
    rng = np.random.default_rng(0)
    member = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    x = cloud(len(member), 4) + 0.3 * member[:, None]
    labels = rng.integers(0, 3, len(member)) if labelled else np.zeros(len(member))
    h = [0.8, 0.2]
    found = block_error(x, h, blocks=member, labels=labels if labelled else None)
    assert found.without.shape == (2, len(sizes))
    assert found.standard_error.shape == (2,)
    for row, error, bandwidth in zip(found.without, found.standard_error, h, strict=True):
        expected = [labelled_entropy(x[member != b], bandwidth, labels[member != b]) for b in range(len(sizes))]
        np.testing.assert_allclose(row, expected, rtol=0.0, atol=1e-11)
        assert error == pytest.approx(jackknife(np.array(expected)), abs=1e-10)
    assert found.sampled == len(x)


def test_one_bandwidth_gives_numbers() -> None:
    x = cloud(40, 4)
    found = block_error(x, 0.5, blocks=np.arange(40) // 10)
    assert isinstance(found.standard_error, float)
    assert found.without.shape == (4,)
    several = block_error(x, [0.5], blocks=np.arange(40) // 10)
    assert several.standard_error.shape == (1,)
    assert several.standard_error[0] == found.standard_error


def test_a_label_that_only_one_block_has() -> None:
    """Without that block the label is gone, and no environment is asked about it."""
    x, member = cloud(60, 4), np.arange(60) // 20
    labels = np.where(np.arange(60) < 7, "Ag", "Cu")
    found = block_error(x, 0.5, blocks=member, labels=labels)
    for b in range(3):
        stay = member != b
        assert found.without[b] == pytest.approx(labelled_entropy(x[stay], 0.5, labels[stay]), abs=1e-11)


def test_blocks_of_any_kind_in_sorted_order() -> None:
    x, member = cloud(60, 4), np.arange(60) % 3
    expected = block_error(x, 0.5, blocks=member)
    for names in (np.array(["a", "b", "c"])[member], [f"t{m}" for m in member], 10.0 * member - 7.0):
        found = block_error(x, 0.5, blocks=names)
        np.testing.assert_array_equal(found.without, expected.without)


def test_copies_of_one_block_have_no_error() -> None:
    """Each block says the same, and what is left says it too: H does not change."""
    x = np.tile(cloud(50, 4), (4, 1))
    found = block_error(x, 0.5, blocks=np.repeat(np.arange(4), 50))
    np.testing.assert_allclose(found.without, entropy(x, 0.5), atol=1e-11)
    assert found.standard_error == pytest.approx(0.0, abs=1e-11)


def test_blocks_far_from_each_other() -> None:
    """B equal blocks of equal environments: H = ln B, and ln (B - 1) without any. The spread is nil."""
    x = np.repeat(1e3 * np.arange(5.0)[:, None], 20, axis=0)
    found = block_error(x, 1.0, blocks=np.repeat(np.arange(5), 20))
    np.testing.assert_allclose(found.without, math.log(4.0), atol=1e-12)
    assert found.standard_error == pytest.approx(0.0, abs=1e-11)


def test_the_error_is_the_spread_of_independent_sets() -> None:
    """Correlated frames: 20 independent runs of 25 environments each. The jackknife finds the spread of H."""

    def run(seed: int) -> Array:
        rng = np.random.default_rng(seed)
        return np.repeat(rng.normal(size=(20, 2)), 25, axis=0) + 0.1 * rng.normal(size=(500, 2))

    sets = [run(seed) for seed in range(60)]
    spread = np.std([entropy(x, 0.7) for x in sets], ddof=1)
    errors = [block_error(x, 0.7, blocks=np.repeat(np.arange(20), 25)).standard_error for x in sets[:20]]
    assert math.sqrt(np.mean(np.square(errors))) == pytest.approx(spread, rel=0.35)
    # as if all were independent it would be far too small
    shuffled = [
        block_error(x, 0.7, blocks=np.random.default_rng(0).permutation(500) // 25).standard_error for x in sets[:20]
    ]
    assert np.mean(shuffled) < 0.5 * spread


def test_samples_of_a_large_set(monkeypatch: pytest.MonkeyPatch) -> None:
    member = np.random.default_rng(0).permutation(np.arange(4000) % 8)
    x = cloud(4000, 3) * (1.0 + 0.1 * member[:, None])
    labels = np.arange(4000) % 3
    for mine in (None, labels):
        full = block_error(x, [0.5, 1.0], blocks=member, labels=mine)
        with monkeypatch.context() as patched:
            patched.setattr(blocks, "ASKED", 2000)
            found = block_error(x, [0.5, 1.0], blocks=member, labels=mine, random_state=0)
            again = block_error(x, [0.5, 1.0], blocks=member, labels=mine, random_state=0)
            other = block_error(x, [0.5, 1.0], blocks=member, labels=mine, random_state=1)
        assert full.sampled == 4000
        assert found.sampled == 2000
        np.testing.assert_allclose(found.without, full.without, rtol=0.0, atol=0.1)
        np.testing.assert_allclose(found.standard_error, full.standard_error, rtol=0.5)
        np.testing.assert_array_equal(found.without, again.without)
        assert (found.without != other.without).all()
        assert (found.without != full.without).all()


def test_threads_do_not_change_a_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    x, member = cloud(2500, 4), np.arange(2500) // 250
    for limit in (10_000, 1000):
        monkeypatch.setattr(blocks, "ASKED", limit)
        first = block_error(x, 0.5, blocks=member, random_state=3, jobs=1)
        with Workers(2) as workers:
            borrowed = block_error(x, 0.5, blocks=member, random_state=3, workers=workers)
        for found in (borrowed, *(block_error(x, 0.5, blocks=member, random_state=3, jobs=jobs) for jobs in (2, 3))):
            np.testing.assert_array_equal(found.without, first.without)
            assert found.standard_error == first.standard_error


def test_progress_is_told() -> None:
    told: list[int] = []
    block_error(cloud(600, 3), 0.5, blocks=np.arange(600) // 100, progress=told.append)
    assert sum(told) >= 600**2 / 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"blocks": [0] * 6}, r"a block error needs at least two blocks"),
        ({"blocks": None}, r"a block error needs at least two blocks"),
        ({"blocks": [0, 1]}, r"blocks must have shape \(6,\), one per environment, got \(2,\)"),
        ({"x": [[np.inf]] * 6}, r"x must be finite, but row 0 holds NaN or infinity"),
        ({"h": 0.0}, r"bandwidth must be positive and finite"),
        ({"labels": [1]}, r"labels must have shape \(6,\)"),
        ({"precision": "half"}, r"precision must be one of auto, float64, float32, got 'half'"),
        ({"jobs": 0}, r"jobs must be a whole number of at least 1, got 0"),
    ],
)
def test_block_arguments_out_of_range(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        block_error(**{"x": cloud(6, 2), "blocks": [0, 0, 0, 1, 1, 1], **arguments})


def test_a_sample_may_miss_all_but_one_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "ASKED", 5)
    with pytest.raises(ValueError, match=r"needs at least two blocks with environments among those sampled"):
        block_error(cloud(2000, 2), 0.5, blocks=np.arange(2000) > 1998, random_state=0)


# --- autocorrelation time ---------------------------------------------------------------------------------------------


def series_with_memory(phi: float, n: int, seed: int = 0) -> Array:
    """x_t = phi x_{t-1} + noise: rho(t) = phi^t, so that 1/2 + sum_t rho(t) = 1/2 (1 + phi) / (1 - phi)."""
    from scipy.signal import lfilter

    noise = np.random.default_rng(seed).normal(size=n + 1000)
    return lfilter([1.0], [1.0, -phi], noise)[1000:]


@pytest.mark.parametrize("phi", [0.3, 0.8, 0.95])
@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (-1e4, 3.0), (2.0, 1e-3)])
def test_a_series_of_known_memory(phi: float, shift: float, scale: float) -> None:
    expected = 0.5 * (1.0 + phi) / (1.0 - phi)
    found = autocorrelation_time(shift + scale * series_with_memory(phi, 200_000))
    assert found == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("seed", range(5))
def test_noise_has_no_memory(seed: int) -> None:
    found = autocorrelation_time(np.random.default_rng(seed).normal(size=5000))
    assert isinstance(found, float)
    assert 0.5 <= found < 0.6


def test_the_sum_ends_at_five_times_itself() -> None:
    """Against sums of products, one lag after the other."""
    series = series_with_memory(0.7, 3000, seed=4)
    centred = series - series.mean()
    variance = float(np.mean(centred**2))
    tau, t = 0.5, 0
    while t < 5.0 * tau:
        t += 1
        tau += float(np.mean(centred[:-t] * centred[t:])) / variance
    assert autocorrelation_time(series) == pytest.approx(tau, rel=1e-9)


@pytest.mark.parametrize("series", [[3.0], [2.0] * 50, [0.1] * 1000, 1e9 + np.zeros(77), list(range(1)), [0, 0, 0]])
def test_a_constant_series_has_no_memory(series: Any) -> None:
    assert autocorrelation_time(series) == 0.5


@given(values=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60))
def test_times_of_anything_are_between_a_half_and_the_length(values: list[float]) -> None:
    assert 0.5 <= autocorrelation_time(values) <= 0.5 + len(values)


def test_alternation_is_no_memory() -> None:
    assert autocorrelation_time([1.0, -1.0] * 500) == 0.5


@pytest.mark.parametrize("series", [[], [[1.0, 2.0]], [1.0, np.nan], [np.inf, 1.0], 3.0])
def test_what_is_no_series(series: Any) -> None:
    with pytest.raises(ValueError, match=r"a series must be a list of finite numbers, one for each frame"):
        autocorrelation_time(series)


# --- blocks of time ---------------------------------------------------------------------------------------------------


@given(n=st.integers(1, 500), b=st.integers(1, 40))
def test_blocks_of_frames_are_consecutive_and_nearly_equal(n: int, b: int) -> None:
    found = time_blocks(n, b)
    assert found.shape == (n,)
    assert (np.diff(found) >= 0).all()
    sizes = np.bincount(found)
    assert len(sizes) == min(n, b)
    assert sizes.max() - sizes.min() <= 1


def test_blocks_of_some_frames() -> None:
    np.testing.assert_array_equal(time_blocks(7, 3), [0, 0, 0, 1, 1, 2, 2])
    np.testing.assert_array_equal(time_blocks(3), [0, 1, 2])
    assert len(np.unique(time_blocks(1000))) == 10
    assert time_blocks(0).shape == (0,)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((-1, 3), r"n_frames must be a whole number of at least 0, got -1"),
        ((5, 0), r"blocks must be a whole number of at least 1, got 0"),
        ((5, 2.5), r"blocks must be a whole number of at least 1, got 2\.5"),
    ],
)
def test_no_such_blocks(arguments: tuple[Any, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        time_blocks(*arguments)


def test_the_gas_constant() -> None:
    from ase.units import _k, _Nav

    assert pytest.approx(_k * _Nav, rel=1e-6) == GAS_CONSTANT


def test_trajectory_entropy_is_made_of_its_parts() -> None:
    rng = np.random.default_rng(8)
    frames = np.repeat(np.arange(24), 20)
    x = rng.normal(size=(480, 4)) + np.cumsum(rng.normal(scale=0.2, size=(24, 4)), axis=0)[frames]
    found = blocks.trajectory_entropy(x, 0.5, frames=frames, blocks=6)
    h, _, dh = get_all_metrics(x, 0.5)
    error = blocks.block_error(x, 0.5, blocks=blocks.time_blocks(24, 6)[frames]).standard_error
    means = dh.reshape(24, 20).mean(axis=1)
    assert found.estimate.value == h
    assert found.block_error == error == found.error
    np.testing.assert_allclose(found.frame_dh, means, rtol=1e-12)
    assert found.autocorrelation_time == pytest.approx(blocks.autocorrelation_time(means))
    assert found.autocorrelation_time > 0.5
    assert found.block_length == 4.0
    sampled = blocks.trajectory_entropy(x, 0.5, frames=frames, blocks=6, estimator="sampled", random_state=1)
    assert sampled.error == math.hypot(sampled.block_error, float(sampled.estimate.standard_error))
