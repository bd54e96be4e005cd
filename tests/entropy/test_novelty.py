"""Decisions at a threshold, the precision that is picked, and the work that is left out."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import naive
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quests_zenn._core.parallel import Workers
from quests_zenn.entropy import delta_entropy, entropy, get_all_metrics, is_novel, novelty, overlap
from quests_zenn.entropy._packing import (
    ALLOWED_ERROR,
    SMALL,
    base_scale,
    expected_error,
    exponent_error,
    pack_precisely,
    pack_rows,
)
from quests_zenn.entropy.metrics import DEFAULT_EPS, PRECISIONS, SKIP

Array = npt.NDArray[Any]


def cloud(n: int, d: int, seed: int = 0) -> Array:
    """Environments at distances of about 2, whatever their width."""
    return np.random.default_rng([seed, n, d]).normal(size=(n, d)) * math.sqrt(2.0 / d)


def near_threshold(x: Array, h: float, eps: float, n: int, seed: int = 0) -> tuple[Array, Array]:
    """Environments whose dH is within 1e-7 nats of eps, and dH itself: found by halving, on lines out of the set."""
    rng = np.random.default_rng(seed)
    dense = np.argsort(naive.delta_entropy(x, x, h))[:40]
    start = x[rng.choice(dense, size=n)]
    direction = rng.normal(size=start.shape)
    direction /= np.linalg.norm(direction, axis=1)[:, None]
    aim = eps + rng.uniform(-1e-7, 1e-7, n)
    low, high = np.zeros(n), np.full(n, 60.0 * h + 20.0)
    for _ in range(60):
        middle = 0.5 * (low + high)
        below = naive.delta_entropy(start + middle[:, None] * direction, x, h) < aim
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    y = start + low[:, None] * direction
    return y, naive.delta_entropy(y, x, h)


# --- what is novel ----------------------------------------------------------------------------------------------------


def test_novel_is_what_reaches_eps() -> None:
    h = 0.015
    # |a - b| = h sqrt(2 dH) from a single reference
    dh = np.array([0.0, 0.9e-5, 1.1e-5, 0.5, 20.0, 1e6])
    y = h * np.sqrt(2.0 * dh)[:, None]
    np.testing.assert_array_equal(is_novel(y, [[0.0]], h), dh >= DEFAULT_EPS)
    assert novelty(y, [[0.0]], h) == pytest.approx(4.0 / 6.0)
    assert overlap(y, [[0.0]], h) == pytest.approx(2.0 / 6.0)
    assert novelty(y, [[0.0]], h, eps=1.0) == pytest.approx(2.0 / 6.0)
    assert novelty(y, [[0.0]]) == novelty(y, [[0.0]], 0.015)
    assert is_novel(y, [[0.0]]).dtype == np.bool_


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("h", [0.015, 0.5, 1e3])
def test_a_set_knows_itself(h: float, precision: str) -> None:
    x = cloud(700, 9)
    assert overlap(x, x, h, precision=precision) == 1.0
    assert novelty(x, x, h, precision=precision) == 0.0


@pytest.mark.parametrize("precision", PRECISIONS)
def test_far_sets_are_novel(precision: str) -> None:
    assert novelty(cloud(40, 5) + 100.0, cloud(60, 5, seed=1), 0.5, precision=precision) == 1.0


@given(n=st.integers(1, 30), m=st.integers(1, 30), h=st.floats(0.05, 5.0), eps=st.floats(-3.0, 30.0))
def test_novelty_is_the_share_of_dh_at_eps_or_above(n: int, m: int, h: float, eps: float) -> None:
    y, x = cloud(n, 3, seed=1), cloud(m, 3)
    dh = naive.delta_entropy(y, x, h)
    if np.abs(dh - eps).min() < 1e-9:
        return
    for precision in PRECISIONS:
        np.testing.assert_array_equal(is_novel(y, x, h, eps=eps, precision=precision, jobs=1), dh >= eps)
        assert novelty(y, x, h, eps=eps, precision=precision, jobs=1) == np.mean(dh >= eps)
        assert overlap(y, x, h, eps=eps, precision=precision, jobs=1) == 1.0 - np.mean(dh >= eps)


@pytest.mark.parametrize("eps", [DEFAULT_EPS, -1.0, 0.5, 8.0, 25.0])
@pytest.mark.parametrize("precision", ["auto", "float32"])
def test_close_to_the_threshold_rounding_does_not_decide(precision: str, eps: float) -> None:
    x, h = cloud(300, 20), 0.7
    y, dh = near_threshold(x, h, eps, 200)
    assert np.abs(dh - eps).max() < 2e-7
    clear = np.abs(dh - eps) > 1e-11
    assert clear.sum() > 150
    truth = dh >= eps
    assert 50 < truth.sum() < 150
    np.testing.assert_array_equal(is_novel(y, x, h, eps=eps, precision=precision)[clear], truth[clear])
    np.testing.assert_array_equal(
        is_novel(y, x, h, eps=eps, precision=precision), is_novel(y, x, h, eps=eps, precision="float64")
    )
    # single precision alone would be wrong
    assert ((delta_entropy(y, x, h, precision="float32") >= eps) != truth).sum() > 10


def test_the_threshold_with_labels() -> None:
    """References in one mixed cloud, so that those of a label are less dense than all of them."""
    x, h = cloud(900, 20), 0.7
    labels = np.arange(900) % 3
    x[labels == 2] *= 1e25  # of no concern to the others, but too wide for single precision
    y, dh = near_threshold(x[labels == 1], h, DEFAULT_EPS, 150)
    clear = np.abs(dh - DEFAULT_EPS) > 1e-11
    for precision in PRECISIONS:
        found = is_novel(y, x, h, y_labels=np.ones(150, int), x_labels=labels, precision=precision)
        np.testing.assert_array_equal(found[clear], (dh >= DEFAULT_EPS)[clear])
        found = is_novel(y, x, h, y_labels=np.full(150, 7), x_labels=labels, precision=precision)
        assert found.all()  # a label that the reference never saw


def test_the_threshold_for_scattered_environments() -> None:
    """Environments far from each other share a block, and each is near a reference: the rounding is in them."""
    places = 1e7 * np.random.default_rng(0).normal(size=(40, 3))
    x = np.repeat(places, 512, axis=0)
    x[1::2] += 0.3
    aim = DEFAULT_EPS + np.random.default_rng(1).uniform(-1e-3, 1e-3, 40)
    y = places.copy()
    y[:, 0] -= [_distance(value) for value in aim]
    truth = delta_entropy(y, x, 1.0, precision="float64") >= DEFAULT_EPS
    assert 5 < truth.sum() < 35
    for precision in PRECISIONS:
        np.testing.assert_array_equal(is_novel(y, x, 1.0, precision=precision), truth)
    assert ((delta_entropy(y, x, 1.0, precision="float32") >= DEFAULT_EPS) != truth).any()


def _distance(dh: float) -> float:
    """How far to the left of 256 references at 0 and 256 at (0.3, 0.3, 0.3) dH has this value."""
    low, high = 0.0, 10.0
    for _ in range(60):
        s = 0.5 * (low + high)
        p = 256.0 * (math.exp(-0.5 * s * s) + math.exp(-0.5 * ((s + 0.3) ** 2 + 0.18)))
        low, high = (s, high) if -math.log(p) < dh else (low, s)
    return low


@pytest.mark.parametrize("width", [1e20, 1e100])
def test_references_too_wide_for_single_precision(width: float) -> None:
    """Where single precision overflows, the default picks float64, and so does the decision."""
    x = [[0.0]] * 5 + [[width]]
    np.testing.assert_array_equal(is_novel([[0.0], [3.0], [width]], x, 1.0), [False, True, False])
    np.testing.assert_array_equal(is_novel([[0.0], [width]], [[0.0]], 1.0), [False, True])


def test_threads_do_not_change_a_decision() -> None:
    x, y = cloud(2100, 5), cloud(700, 5, seed=1)
    first = is_novel(y, x, 0.3, jobs=1, precision="float32")
    with Workers(2) as workers:
        np.testing.assert_array_equal(is_novel(y, x, 0.3, workers=workers, precision="float32"), first)
    np.testing.assert_array_equal(is_novel(y, x, 0.3, jobs=3, precision="float32"), first)
    assert 0.0 < first.mean() < 1.0


@pytest.mark.parametrize("function", [novelty, overlap, is_novel])
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"eps": math.nan}, r"eps must be finite, got nan"),
        ({"eps": math.inf}, r"eps must be finite, got inf"),
        ({"h": [0.1, 0.2]}, r"one bandwidth is needed to tell what is novel, got several"),
        ({"h": 0.0}, r"bandwidth must be positive and finite"),
        ({"y": [[1.0]]}, r"y has 1 components and x has 2"),
        ({"x": [[np.nan, 0.0]]}, r"x must be finite, but row 0"),
        ({"precision": "half"}, r"precision must be one of auto, float64, float32, got 'half'"),
        ({"jobs": 0}, r"jobs must be a whole number of at least 1"),
    ],
)
def test_novelty_arguments_out_of_range(function: Any, arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        function(**{"y": cloud(5, 2), "x": cloud(5, 2, seed=1), **arguments})


# --- the precision that is picked -------------------------------------------------------------------------------------


def picked(x: Array, h: float | list[float], precision: str = "auto", partners: int | None = None) -> str:
    bandwidths = np.atleast_1d(np.asarray(h, dtype=np.float64))
    with Workers(2) as workers:
        packed, used = pack_precisely(x, [np.arange(len(x))], bandwidths, None, precision, workers, "x", partners)
    assert packed.panels.dtype == used
    return used


def test_auto_takes_single_precision_for_large_tight_sets_only() -> None:
    x = 0.002 * cloud(SMALL, 9)
    assert picked(x, 0.015) == "float32"
    assert picked(x[:-1], 0.015) == "float64"  # small
    assert picked(x, 1e-4) == "float64"  # wide, in bandwidths
    assert picked(x, [0.015, 1e-4]) == picked(x, [1e-4, 0.015]) == "float64"  # the narrowest decides
    assert picked(x, [0.015, 0.03]) == picked(x, [0.03, 0.015]) == "float32"
    far = x.copy()
    far[7] = 1e30  # overflows in single precision
    assert picked(far, 0.015) == "float64"


def test_auto_counts_the_pairs_of_two_sets() -> None:
    x = 0.002 * cloud(SMALL, 9)
    assert picked(x, 0.015, partners=SMALL) == "float32"
    assert picked(x, 0.015, partners=SMALL - 1) == "float64"
    assert picked(x[:64], 0.015, partners=SMALL**2 // 64) == "float32"


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_a_precision_by_name_is_taken(precision: str) -> None:
    for x, h in ((cloud(10, 3), 0.5), (0.002 * cloud(SMALL, 9), 0.015), (cloud(SMALL, 9), 1e-3)):
        assert picked(x, h, precision) == precision


def test_the_expected_error_follows_squared_lengths_in_bandwidths() -> None:
    x = cloud(500, 9)  # one block
    with Workers(1) as workers:
        one, twice = (
            pack_rows(factor * x, [np.arange(500)], 1.0, None, "float32", workers, "x") for factor in (1.0, 2.0)
        )
    spread = float(((x - x.mean(axis=0)) ** 2).sum(axis=1).mean())
    assert expected_error(one, 1.0) == pytest.approx(2.0**-24 * spread, rel=1e-5)
    assert expected_error(twice, 1.0) == pytest.approx(4.0 * expected_error(one, 1.0), rel=1e-5)
    assert expected_error(one, 9.0) == pytest.approx(9.0 * expected_error(one, 1.0))


@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("d", [1, 63])
def test_exponents_err_by_less_than_their_bound(d: int, precision: str) -> None:
    """|a - b|^2 in float64 from differences against 2 a.b - a.a - b.b in arithmetic of the precision."""
    dtype = np.dtype(precision)
    x, y = 30.0 * cloud(400, d), 30.0 * cloud(50, d, seed=1)
    with Workers(1) as workers:
        b, a = (pack_rows(rows, [np.arange(len(rows))], 1.0, None, precision, workers, "x") for rows in (x, y))
    centre = b.centres[0]
    true = -((y[:, None] - x) ** 2).sum(axis=2)
    moved = (y - a.centres[0]).astype(dtype) + (a.centres[0] - centre).astype(dtype)
    columns = (x - centre).astype(dtype)
    found = 2 * (moved @ columns.T) - (moved**2).sum(axis=1)[:, None] - (columns**2).sum(axis=1)
    bound = np.asarray(exponent_error(b, true, a))
    off = np.abs(found.astype(np.float64) - true)
    assert (off <= bound).all()
    assert off.max() > 1e-4 * bound.max()  # and no more than it takes


def test_entropy_by_default_is_entropy_in_double_precision() -> None:
    for x in (0.05 * cloud(5000, 9), 0.004 * cloud(5000, 9)):
        exact, default = get_all_metrics(x, precision="float64"), get_all_metrics(x)
        assert default[0] == pytest.approx(exact[0], abs=ALLOWED_ERROR)
        assert entropy(x) == default[0]
        np.testing.assert_allclose(default[2], exact[2], rtol=0.0, atol=1e-4)
    assert picked(x, 0.015) == "float32"
    assert default[0] != exact[0]


@pytest.mark.slow
def test_default_entropy_of_real_sets(data_dir: Path) -> None:
    """Every set at hand: H of the default path within 1e-6 nats of float64."""
    from ase.io import read

    from quests_zenn.descriptors import get_descriptors

    names = sorted(data_dir.glob("*.xyz"))
    assert names
    used = []
    for name in names:
        x = get_descriptors(read(name, ":"))
        used.append(picked(x, 0.015))
        assert entropy(x) == pytest.approx(entropy(x, precision="float64"), abs=1e-6), name.stem
    assert "float64" in used


@pytest.mark.slow
def test_the_error_of_single_precision_is_foretold(data_dir: Path) -> None:
    """Every set at hand: the error of H stays below what `auto` expects, and within what the docs say."""
    from ase.io import read

    from quests_zenn.descriptors import get_descriptors

    for name in sorted(data_dir.glob("*.xyz")):
        x = get_descriptors(read(name, ":"))
        for h in (0.003, 0.015, 0.06):
            with Workers(None) as workers:
                packed = pack_rows(x, [np.arange(len(x))], base_scale(h), None, "float32", workers, "x")
            exact, _, dh = get_all_metrics(x, h, precision="float64")
            found, _, rough = get_all_metrics(x, h, precision="float32")
            assert abs(found - exact) <= expected_error(packed, 1.0), (name.stem, h)
            if h == 0.015:
                assert abs(found - exact) <= 1e-5
                assert np.abs(rough - dh).max() <= 1e-3


# --- work that is left out --------------------------------------------------------------------------------------------


def two_clusters(n: int, apart: float) -> Array:
    x = 0.01 * cloud(2 * n, 3)
    x[n:, 0] += apart
    return x


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_skipping_adds_up_to_the_share_that_was_allowed(precision: str) -> None:
    """Each environment misses 2,048 terms of 1.5e-7: left out where 1e-3 in all is allowed, counted where 3e-4."""
    n, k = 2048, 1.5e-7
    x = two_clusters(n, math.sqrt(-2.0 * math.log(k)))
    full = np.exp(-get_all_metrics(x, 1.0, skip=0.0, precision=precision)[2])
    less = np.exp(-get_all_metrics(x, 1.0, skip=1e-3, precision=precision)[2])
    missing = full - less
    assert (missing <= 1e-3 * full).all()
    np.testing.assert_allclose(missing, n * k, rtol=0.3)  # left out it was
    kept = get_all_metrics(x, 1.0, skip=3e-4, precision=precision)[2]
    np.testing.assert_array_equal(np.exp(-kept), full)


def test_the_default_leaves_out_less_than_rounding() -> None:
    x = two_clusters(600, 40.0)
    full = get_all_metrics(x, 1.0, skip=0.0)
    default = get_all_metrics(x, 1.0)
    np.testing.assert_allclose(default[2], full[2], rtol=0.0, atol=SKIP + 1e-15)
    assert default[0] == pytest.approx(full[0], abs=1e-14)


@given(
    apart=st.floats(0.0, 12.0), width=st.floats(0.001, 3.0), skip=st.sampled_from([1e-14, 1e-9, 1e-6, 1e-3]),
    seed=st.integers(0, 9),
)  # fmt: skip
def test_skipping_never_adds_and_never_takes_more(apart: float, width: float, skip: float, seed: int) -> None:
    x = width * cloud(1100, 2, seed=seed)
    x[550:, 0] += apart
    full = np.exp(-get_all_metrics(x, 1.0, skip=0.0, precision="float64", jobs=1)[2])
    less = np.exp(-get_all_metrics(x, 1.0, skip=skip, precision="float64", jobs=1)[2])
    slack = 1e-12 * full
    assert (less <= full + slack).all()
    assert (full - less <= skip * full + slack).all()


def test_the_narrowest_and_the_widest_bandwidth_are_both_served() -> None:
    """Blocks that the narrow bandwidth does not need, the wide one does."""
    x, h = two_clusters(700, 8.0), [0.2, 5.0, 1.0]
    found = get_all_metrics(x, h, skip=1e-3)[2]
    full = get_all_metrics(x, h, skip=0.0)[2]
    np.testing.assert_allclose(found, full, rtol=0.0, atol=1.1e-3)
    np.testing.assert_allclose(found[1], full[1], rtol=0.0, atol=1e-12)


def test_nothing_is_skipped_with_weights() -> None:
    x, weights = two_clusters(600, 6.0), np.random.default_rng(0).random(1200)
    np.testing.assert_array_equal(
        get_all_metrics(x, 1.0, weights=weights, skip=1e-3)[2], get_all_metrics(x, 1.0, weights=weights, skip=0.0)[2]
    )


@pytest.mark.parametrize("skip", [-1e-9, 0.01, math.nan, math.inf])
def test_skip_out_of_range(skip: float) -> None:
    with pytest.raises(ValueError, match=r"skip must lie between 0 and 0\.001, got"):
        get_all_metrics(cloud(5, 2), 1.0, skip=skip)
