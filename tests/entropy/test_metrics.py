"""Entropy, diversity and dH: answers known by thought alone, laws that hold for any data, and clear refusals."""

from __future__ import annotations

import itertools
import math
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
    DEFAULT_BANDWIDTH,
    delta_entropy,
    diversity,
    entropy,
    get_all_metrics,
    get_bandwidth,
    group_metrics,
)

Array = npt.NDArray[np.float64]

EXACT = {"rtol": 1e-12, "atol": 1e-12}


def cloud(n: int, d: int, seed: int = 0) -> Array:
    """Environments at distances of about 2, whatever their width."""
    return np.random.default_rng([seed, n, d]).normal(size=(n, d)) * math.sqrt(2.0 / d)


# --- against the twin -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "d"), [(1, 1), (2, 3), (40, 63), (150, 7)])
@pytest.mark.parametrize("h", [0.2, 0.7, 3.0])
def test_metrics_follow_the_formulas(n: int, d: int, h: float) -> None:
    x, y = cloud(n, d), cloud(25, d, seed=1)
    np.testing.assert_allclose(entropy(x, h), naive.entropy(x, h), **EXACT)
    np.testing.assert_allclose(diversity(x, h), naive.diversity(x, h), **EXACT)
    np.testing.assert_allclose(delta_entropy(y, x, h), naive.delta_entropy(y, x, h), **EXACT)
    found_h, found_d, dh = get_all_metrics(x, h)
    assert found_h == entropy(x, h)
    assert found_d == diversity(x, h)
    np.testing.assert_allclose(dh, naive.delta_entropy(x, x, h), **EXACT)
    assert dh.shape == (n,)


def test_two_points_by_hand() -> None:
    x, h = np.array([[0.0, 0.0], [0.3, 0.4]]), 0.25
    k = math.exp(-0.5 * (0.5 / 0.25) ** 2)
    assert entropy(x, h) == pytest.approx(-math.log((1.0 + k) / 2.0), rel=1e-14)
    assert diversity(x, h) == pytest.approx(math.log(2.0 / (1.0 + k)), rel=1e-14)
    assert delta_entropy(x[:1], x[1:], h)[0] == pytest.approx(2.0, rel=1e-14)
    assert delta_entropy([[0.3, 0.0]], x, h)[0] == pytest.approx(
        -math.log(math.exp(-0.72) + math.exp(-1.28)), rel=1e-14
    )


def test_the_default_bandwidth() -> None:
    assert DEFAULT_BANDWIDTH == 0.015
    x = 0.02 * cloud(30, 5)
    assert entropy(x) == entropy(x, 0.015) != entropy(x, 0.016)
    assert diversity(x) == diversity(x, 0.015)
    np.testing.assert_array_equal(delta_entropy(x, x[:5]), delta_entropy(x, x[:5], 0.015))
    assert get_all_metrics(x)[0] == entropy(x, 0.015)


# --- known by thought -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 17, 600])
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_equal_environments_hold_no_information(n: int, precision: str) -> None:
    x = np.repeat(cloud(1, 63), n, axis=0)
    h, d, dh = get_all_metrics(x, precision=precision)
    assert h == pytest.approx(0.0, abs=1e-12)
    assert d == pytest.approx(0.0, abs=1e-12)
    np.testing.assert_allclose(dh, -math.log(n), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("n", [1, 2, 17, 600])
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_far_environments_hold_the_most(n: int, precision: str) -> None:
    x = 1000.0 * DEFAULT_BANDWIDTH * np.arange(n)[:, None] * np.ones((1, 2))
    h, d, dh = get_all_metrics(x, precision=precision)
    assert h == pytest.approx(math.log(n), rel=1e-12)
    assert d == pytest.approx(math.log(n), rel=1e-12)
    np.testing.assert_allclose(dh, np.zeros(n), rtol=0.0, atol=1e-12)


def test_clusters_hold_the_logarithm_of_their_number() -> None:
    x = np.repeat(1e3 * np.arange(7.0)[:, None], 20, axis=0)
    assert entropy(x, 1.0) == pytest.approx(math.log(7.0), rel=1e-12)
    assert diversity(x, 1.0) == pytest.approx(math.log(7.0), rel=1e-12)
    # of unequal size: H is Shannon's, D still counts clusters
    x = np.repeat(1e3 * np.arange(3.0)[:, None], [1, 3, 6], axis=0)
    shares = np.array([0.1, 0.3, 0.6])
    assert entropy(x, 1.0) == pytest.approx(-(shares * np.log(shares)).sum(), rel=1e-12)
    assert diversity(x, 1.0) == pytest.approx(math.log(3.0), rel=1e-12)


def test_a_set_taken_twice_says_the_same() -> None:
    x = cloud(300, 20)
    h, d, dh = get_all_metrics(x, 0.5)
    twice = get_all_metrics(np.concatenate([x, x]), 0.5)
    assert twice[0] == pytest.approx(h, abs=1e-12)
    assert twice[1] == pytest.approx(d, abs=1e-12)
    np.testing.assert_allclose(twice[2], np.tile(dh, 2) - math.log(2.0), **EXACT)


@pytest.mark.parametrize("h", [1e6, 1e9])
def test_an_infinite_bandwidth_sees_nothing(h: float) -> None:
    x = cloud(50, 5)
    assert entropy(x, h) == pytest.approx(0.0, abs=1e-11)
    assert diversity(x, h) == pytest.approx(0.0, abs=1e-11)
    np.testing.assert_allclose(delta_entropy(x, x, h), -math.log(50.0), rtol=1e-11)


def test_a_thousand_bandwidths_away() -> None:
    np.testing.assert_allclose(delta_entropy([[15.0]], [[0.0]], 0.015), [5e5], rtol=1e-12)
    np.testing.assert_allclose(delta_entropy([[15.0]], [[0.0], [0.0]], 0.015), [5e5 - math.log(2.0)], rtol=1e-12)
    # and 1e100 bandwidths
    np.testing.assert_allclose(delta_entropy([[1e100]], [[0.0]], 1.0), [5e199], rtol=1e-12)


def test_where_the_published_code_underflows() -> None:
    """|a - b| = 0.6 at h = 0.015: exp(-800) is no float64 any more."""
    y = np.zeros((1, 63))
    y[0, 5] = 0.6
    np.testing.assert_allclose(delta_entropy(y, np.zeros((1, 63))), [800.0], rtol=1e-12)


# --- weights ----------------------------------------------------------------------------------------------------------


def test_weights_are_multiplicities() -> None:
    x = cloud(60, 9)
    times = np.random.default_rng(2).integers(0, 4, size=60)
    repeated = np.repeat(x, times, axis=0)
    h, d, dh = get_all_metrics(x, 0.6, weights=times)
    assert h == pytest.approx(entropy(repeated, 0.6), abs=1e-12)
    assert d == pytest.approx(diversity(repeated, 0.6), abs=1e-12)
    np.testing.assert_allclose(dh, delta_entropy(x, repeated, 0.6), **EXACT)
    y = cloud(10, 9, seed=3)
    np.testing.assert_allclose(delta_entropy(y, x, 0.6, weights=times), delta_entropy(y, repeated, 0.6), **EXACT)
    assert entropy(x, 0.6, weights=times) == h != entropy(x, 0.6)
    assert diversity(x, 0.6, weights=times) == d != diversity(x, 0.6)


def test_weights_of_one_are_no_weights() -> None:
    x = cloud(60, 9)
    for found, plain in zip(get_all_metrics(x, 0.6, weights=np.ones(60)), get_all_metrics(x, 0.6), strict=True):
        np.testing.assert_allclose(found, plain, **EXACT)


def test_the_scale_of_weights_cancels_in_entropy_and_diversity() -> None:
    x, weights = cloud(60, 9), np.random.default_rng(4).random(60)
    for factor in (1e-200, 0.1, 1e200):
        h, d, dh = get_all_metrics(x, 0.6, weights=factor * weights)
        expected = get_all_metrics(x, 0.6, weights=weights)
        assert h == pytest.approx(expected[0], abs=1e-10)
        assert d == pytest.approx(expected[1], abs=1e-10)
        np.testing.assert_allclose(dh, expected[2] - math.log(factor), rtol=1e-12)


def test_a_weight_of_zero_asks_without_counting() -> None:
    x = cloud(40, 4)
    weights = np.ones(40)
    weights[::4] = 0.0
    counted = weights > 0.0
    h, d, dh = get_all_metrics(x, 0.5, weights=weights)
    assert h == pytest.approx(entropy(x[counted], 0.5), abs=1e-12)
    assert d == pytest.approx(diversity(x[counted], 0.5), abs=1e-12)
    np.testing.assert_allclose(dh, delta_entropy(x, x[counted], 0.5), **EXACT)


# --- labels -----------------------------------------------------------------------------------------------------------


def test_labels_keep_environments_apart() -> None:
    x = cloud(90, 6)
    x[30:60] = x[:30]  # the same environments around another element
    labels = np.array([29] * 30 + [47] * 30 + [79] * 30)
    parts = [x[labels == z] for z in (29, 47, 79)]
    dh = get_all_metrics(x, 0.5, labels=labels)[2]
    np.testing.assert_allclose(dh, np.concatenate([naive.delta_entropy(p, p, 0.5) for p in parts]), **EXACT)
    assert entropy(x, 0.5, labels=labels) == pytest.approx(dh.mean() + math.log(90.0), abs=1e-12)
    assert diversity(x, 0.5, labels=labels) == pytest.approx(math.log(np.exp(dh).sum()), abs=1e-12)
    assert entropy(x, 0.5, labels=labels) > entropy(x, 0.5)
    # of any kind
    names = np.array(["Cu", "Ag", "Au"])[np.searchsorted([29, 47, 79], labels)]
    assert entropy(x, 0.5, labels=names) == pytest.approx(entropy(x, 0.5, labels=labels), abs=1e-12)
    assert entropy(x, 0.5, labels=list(names)) == entropy(x, 0.5, labels=names)


def test_equal_labels_are_no_labels() -> None:
    x = cloud(40, 6)
    assert entropy(x, 0.5, labels=np.full(40, 13)) == entropy(x, 0.5)


def test_labels_and_weights_together() -> None:
    x, labels = cloud(50, 3), np.arange(50) % 3
    times = np.random.default_rng(5).integers(0, 4, size=50)
    found = get_all_metrics(x, 0.4, weights=times, labels=labels)
    expected = get_all_metrics(np.repeat(x, times, axis=0), 0.4, labels=np.repeat(labels, times))
    assert found[0] == pytest.approx(expected[0], abs=1e-12)
    assert found[1] == pytest.approx(expected[1], abs=1e-12)


def test_a_label_that_the_reference_never_saw_is_novel() -> None:
    y, x = cloud(12, 5, seed=1), cloud(30, 5)
    y_labels = np.array(["Cu", "Ag", "Zr"] * 4)
    x_labels = np.array(["Ag", "Cu"] * 15)
    weights = np.random.default_rng(6).random(30)
    for h, w in ((0.5, None), (np.array([0.5, 2.0]), None), (0.5, weights)):
        found = delta_entropy(y, x, h, weights=w, y_labels=y_labels, x_labels=x_labels)
        assert np.isposinf(found[..., y_labels == "Zr"]).all()
        for label in ("Cu", "Ag"):
            mine, theirs = y_labels == label, x_labels == label
            expected = delta_entropy(y[mine], x[theirs], h, weights=None if w is None else w[theirs])
            np.testing.assert_allclose(found[..., mine], expected, **EXACT)
    # not a question of distance: an identical environment of another element does not help
    assert np.isposinf(delta_entropy(x, x, 0.5, y_labels=[1] * 30, x_labels=[2] * 30)).all()


# --- laws -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [(10, 20), (1, 29), (5, 5, 5, 15)])
def test_densities_of_a_split_reference_add(parts: tuple[int, ...]) -> None:
    y, x = cloud(12, 5, seed=1), cloud(30, 5)
    y[0] += 300.0  # also where only logarithms survive
    edges = np.cumsum([0, *parts])
    pieces = [-delta_entropy(y, x[a:b], 0.5) for a, b in itertools.pairwise(edges)]
    np.testing.assert_allclose(-delta_entropy(y, x, 0.5), np.logaddexp.reduce(pieces), **EXACT)


@pytest.mark.parametrize("factor", [2.0**20, 2.0**-20, 3.7, 1e-8])
def test_only_the_ratio_of_distance_and_bandwidth_counts(factor: float) -> None:
    x, y = cloud(80, 12), cloud(9, 12, seed=1)
    y[0] += 100.0
    assert entropy(factor * x, factor * 0.5) == pytest.approx(entropy(x, 0.5), abs=1e-12)
    assert diversity(factor * x, factor * 0.5) == pytest.approx(diversity(x, 0.5), abs=1e-12)
    np.testing.assert_allclose(delta_entropy(factor * y, factor * x, factor * 0.5), delta_entropy(y, x, 0.5), **EXACT)


def test_only_differences_count() -> None:
    x, y = cloud(80, 12), cloud(9, 12, seed=1)
    shift = np.random.default_rng(7).normal(size=12) * 5.0
    assert entropy(x + shift, 0.5) == pytest.approx(entropy(x, 0.5), abs=1e-12)
    np.testing.assert_allclose(delta_entropy(y + shift, x + shift, 0.5), delta_entropy(y, x, 0.5), rtol=0.0, atol=1e-12)
    assert not np.allclose(delta_entropy(y + shift, x, 0.5), delta_entropy(y, x, 0.5))


def test_components_that_do_not_vary_add_nothing() -> None:
    x = cloud(80, 12)
    wider = np.concatenate([x[:, :6], np.full((80, 3), 7.0), x[:, 6:], np.zeros((80, 2))], axis=1)
    assert entropy(wider, 0.5) == pytest.approx(entropy(x, 0.5), abs=1e-12)


sets = st.tuples(st.integers(1, 40), st.integers(1, 9)).flatmap(
    lambda shape: hnp.arrays(np.float64, shape, elements=st.floats(-20.0, 20.0, width=32), fill=st.nothing())
)


@given(x=sets, h=st.floats(0.05, 50.0))
def test_bounds(x: Array, h: float) -> None:
    n = len(x)
    value, d, dh = get_all_metrics(x, h, jobs=1)
    assert -1e-11 <= value <= math.log(n) + 1e-11
    assert value - 1e-11 <= d <= math.log(n) + 1e-11  # D >= H: the mean of exponentials is above that of their argument
    assert (dh <= 1e-11).all()
    assert (dh >= -math.log(n) - 1e-11).all()
    assert value == pytest.approx(math.log(n) + dh.mean(), abs=1e-11)
    assert d == pytest.approx(math.log(np.exp(dh).sum()), abs=1e-11)


@given(x=sets, h=st.floats(0.05, 50.0), factor=st.floats(1.0, 100.0))
def test_a_wider_bandwidth_sees_less(x: Array, h: float, factor: float) -> None:
    values, ds, dh = get_all_metrics(x, [h, factor * h], jobs=1)
    assert values[1] <= values[0] + 1e-11
    assert ds[1] <= ds[0] + 1e-11
    assert (dh[1] <= dh[0] + 1e-11).all()


@given(x=sets, h=st.floats(0.05, 50.0), cut=st.floats(0.0, 1.0))
def test_more_references_never_raise_dh(x: Array, h: float, cut: float) -> None:
    some = x[: max(1, int(cut * len(x)))]
    assert (delta_entropy(x, x, h, jobs=1) <= delta_entropy(x, some, h, jobs=1) + 1e-11).all()


@given(x=sets, h=st.floats(0.05, 50.0))
def test_the_twin_agrees_on_anything(x: Array, h: float) -> None:
    dh = get_all_metrics(x, h, jobs=1)[2]
    np.testing.assert_allclose(dh, naive.delta_entropy(x, x, h), rtol=1e-11, atol=1e-10)


# --- several bandwidths -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [list, tuple, np.array])
def test_one_row_per_bandwidth(kind: Any) -> None:
    x, y, values = cloud(50, 8), cloud(7, 8, seed=1), [0.9, 0.3, 2.0]
    h = kind(values)
    all_h, all_d, all_dh = get_all_metrics(x, h)
    assert all_h.shape == all_d.shape == (3,)
    assert all_dh.shape == (3, 50)
    asked = delta_entropy(y, x, h)
    assert asked.shape == (3, 7)
    for i, value in enumerate(values):
        assert all_h[i] == pytest.approx(entropy(x, value), abs=1e-12)
        assert all_d[i] == pytest.approx(diversity(x, value), abs=1e-12)
        np.testing.assert_allclose(asked[i], delta_entropy(y, x, value), **EXACT)
    np.testing.assert_array_equal(entropy(x, h), all_h)
    np.testing.assert_array_equal(diversity(x, h), all_d)


def test_bandwidth_by_name_is_bandwidth_by_place() -> None:
    x, y = cloud(50, 8), cloud(7, 8, seed=1)
    for h in (0.4, [0.4, 0.9]):
        np.testing.assert_array_equal(entropy(x, h=h), entropy(x, h))
        np.testing.assert_array_equal(diversity(x=x, h=h), diversity(x, h))
        np.testing.assert_array_equal(delta_entropy(y=y, x=x, h=h), delta_entropy(y, x, h))
        np.testing.assert_array_equal(get_all_metrics(x, h=h)[2], get_all_metrics(x, h)[2])


def test_one_bandwidth_gives_a_number_and_a_list_of_one_an_array() -> None:
    x = cloud(20, 3)
    for number in (0.5, np.float64(0.5), np.array(0.5), 1):
        assert isinstance(entropy(x, number), float)
        assert isinstance(diversity(x, number), float)
        assert delta_entropy(x, x, number).shape == (20,)
    assert entropy(x, [0.5]).shape == (1,)
    assert delta_entropy(x, x, [0.5]).shape == (1, 20)


# --- groups -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labelled", [False, True])
def test_groups_are_sets_taken_alone(labelled: bool) -> None:
    rng = np.random.default_rng(8)
    groups = rng.permutation(np.repeat(np.arange(9), [1, 2, 3, 15, 16, 17, 33, 64, 600]))
    x = cloud(len(groups), 6)
    labels = rng.integers(0, 3, size=len(groups)) if labelled else None
    h = [0.3, 1.0]
    found = group_metrics(x, h, groups, labels=labels)
    assert found.entropy.shape == found.diversity.shape == found.mean_dh.shape == (2, 9)
    np.testing.assert_array_equal(found.sizes, [1, 2, 3, 15, 16, 17, 33, 64, 600])
    for g in range(9):
        mine = groups == g
        inside = None if labels is None else labels[mine]
        alone_h, alone_d, alone_dh = get_all_metrics(x[mine], h, labels=inside)
        np.testing.assert_allclose(found.entropy[:, g], alone_h, **EXACT)
        np.testing.assert_allclose(found.diversity[:, g], alone_d, **EXACT)
        np.testing.assert_allclose(found.mean_dh[:, g], alone_dh.mean(axis=1), **EXACT)


def test_one_group_is_the_whole_set() -> None:
    x = cloud(100, 6)
    found = group_metrics(x, 0.5, np.zeros(100, int))
    value, d, dh = get_all_metrics(x, 0.5)
    assert found.entropy == pytest.approx(np.array([[value]]), abs=1e-12)
    assert found.diversity == pytest.approx(np.array([[d]]), abs=1e-12)
    assert found.mean_dh == pytest.approx(np.array([[dh.mean()]]), abs=1e-12)


def test_groups_in_single_precision_and_on_borrowed_workers() -> None:
    x, groups = cloud(100, 6), np.arange(100) // 10
    exact = group_metrics(x, 0.5, groups)
    with Workers(2) as workers:
        borrowed = group_metrics(x, 0.5, groups, workers=workers)
        single = group_metrics(x, 0.5, groups, precision="float32", workers=workers)
    np.testing.assert_array_equal(borrowed.entropy, exact.entropy)
    assert not np.array_equal(single.entropy, exact.entropy)
    np.testing.assert_allclose(single.entropy, exact.entropy, rtol=0.0, atol=1e-5)


# --- precision, threads, layout ---------------------------------------------------------------------------------------


def test_single_precision_is_close_and_no_closer() -> None:
    x, y = cloud(600, 63), cloud(40, 63, seed=1)
    exact, single = get_all_metrics(x, 0.5), get_all_metrics(x, 0.5, precision="float32")
    assert 0.0 < abs(single[0] - exact[0]) < 1e-5
    assert 0.0 < np.abs(single[2] - exact[2]).max() < 2e-5
    asked = delta_entropy(y, x, 0.5, precision="float32")
    assert asked.dtype == np.float64
    assert 0.0 < np.abs(asked - delta_entropy(y, x, 0.5)).max() < 2e-5
    assert single[0] == entropy(x, 0.5, precision="float32")
    assert single[1] == diversity(x, 0.5, precision="float32")


@pytest.mark.parametrize("name", ["Ta_fitsnap", "acac_test_600K", "acac_test_H_transfer", "mlearn_Ge_test"])
def test_single_precision_on_real_data(name: str, data_dir: Path) -> None:
    """The stated errors at the default bandwidth: 1e-5 in H and 1e-3 in a single dH, in wide and in small sets."""
    from ase.io import read

    from quests_zenn.descriptors import get_descriptors

    x = get_descriptors(read(data_dir / f"{name}.xyz", ":"))
    exact, single = get_all_metrics(x), get_all_metrics(x, precision="float32")
    np.testing.assert_allclose(single[2], exact[2], rtol=0.0, atol=1e-3)
    assert single[0] == pytest.approx(exact[0], abs=1e-5)


def test_threads_do_not_change_a_bit() -> None:
    x, labels = cloud(900, 20), np.arange(900) % 2
    for jobs in (1, 2, 3):
        np.testing.assert_array_equal(get_all_metrics(x, 0.5, jobs=jobs)[2], get_all_metrics(x, 0.5)[2])
        assert entropy(x, 0.5, jobs=jobs) == entropy(x, 0.5)
        assert diversity(x, 0.5, jobs=jobs) == diversity(x, 0.5)
        np.testing.assert_array_equal(
            delta_entropy(x, x[:99], 0.5, y_labels=labels, x_labels=labels[:99], jobs=jobs),
            delta_entropy(x, x[:99], 0.5, y_labels=labels, x_labels=labels[:99]),
        )
        np.testing.assert_array_equal(
            group_metrics(x, 0.5, np.arange(900) // 300, jobs=jobs).entropy,
            group_metrics(x, 0.5, np.arange(900) // 300).entropy,
        )


def test_memory_layout_does_not_matter(tmp_path: Path) -> None:
    x = cloud(60, 10)
    expected = get_all_metrics(x, 0.5)[2]
    padded = np.full((120, 20), np.nan)
    padded[::2, ::2] = x
    np.save(tmp_path / "x.npy", x)
    locked = x.copy()
    locked.flags.writeable = False
    for same in (
        np.asfortranarray(x),
        padded[::2, ::2],
        x[::-1][::-1],
        x.astype(">f8"),
        np.load(tmp_path / "x.npy", mmap_mode="r"),
        locked,
        x.tolist(),
    ):
        np.testing.assert_array_equal(get_all_metrics(same, 0.5)[2], expected)
        np.testing.assert_array_equal(delta_entropy(same, same, 0.5), delta_entropy(x, x, 0.5))


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int32, np.uint8, bool])
def test_numbers_of_any_type(dtype: Any) -> None:
    x = np.round(3.0 * np.abs(cloud(30, 4))).astype(dtype)
    assert entropy(x, 0.8) == pytest.approx(entropy(x.astype(np.float64), 0.8), abs=1e-13)
    np.testing.assert_allclose(delta_entropy(x, x[:9], 0.8), naive.delta_entropy(x, x[:9], 0.8), **EXACT)


def test_arguments_are_left_alone() -> None:
    x, weights, h = cloud(30, 4), np.arange(30.0), np.array([0.5, 1.0])
    copies = x.copy(), weights.copy(), h.copy()
    get_all_metrics(x, h, weights=weights, labels=np.arange(30) % 2)
    delta_entropy(x, x, h, weights=weights)
    group_metrics(x, h, np.arange(30) // 10)
    for mine, copy in zip((x, weights, h), copies, strict=True):
        np.testing.assert_array_equal(mine, copy)


def test_progress_is_told() -> None:
    x, told = cloud(700, 3), []
    get_all_metrics(x, 0.5, progress=told.append)
    assert sum(told) >= 700**2 / 2
    told.clear()
    delta_entropy(x, x[:50], 0.5, progress=told.append)
    assert sum(told) >= 700 * 50


# --- bandwidth from the volume ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("volume", "h"),
    [
        (10.896, 0.0897141 * math.exp(-0.5) + 0.0119417),
        (21.792, 0.0897141 * math.exp(-2.0) + 0.0119417),
        (1e-9, 0.1016558),
        (1e6, 0.0119417),
        (11.81, 0.0618020),
        (20.0, 0.0285854),
    ],
)
def test_bandwidth_of_a_volume(volume: float, h: float) -> None:
    assert get_bandwidth(volume) == pytest.approx(h, abs=1e-6)


@given(volume=st.floats(0.1, 1e4), factor=st.floats(1.01, 10.0))
def test_a_thinner_phase_takes_a_narrower_bandwidth(volume: float, factor: float) -> None:
    assert 0.0119417 <= get_bandwidth(factor * volume) <= get_bandwidth(volume) <= 0.1016558


@pytest.mark.parametrize("volume", [0.0, -1.0, math.nan, math.inf])
def test_no_bandwidth_without_volume(volume: float) -> None:
    with pytest.raises(ValueError, match=r"volume per atom must be positive and finite, got "):
        get_bandwidth(volume)


def test_a_volume_is_a_number() -> None:
    with pytest.raises(ValueError, match=r"volume per atom must be a number, got 'large'"):
        get_bandwidth("large")  # type: ignore[arg-type]


# --- refusals ---------------------------------------------------------------------------------------------------------

X = cloud(6, 3)


def with_bad(value: float, row: int = 4) -> Array:
    x = X.copy()
    x[row, 1] = value
    return x


ONE_SET = [entropy, diversity, get_all_metrics]


@pytest.mark.parametrize("metric", ONE_SET)
@pytest.mark.parametrize(
    ("x", "sentence"),
    [
        (np.arange(5.0), r"x must have two dimensions \(environments, components\), got shape \(5,\)"),
        (np.zeros((2, 3, 4)), r"x must have two dimensions .*, got shape \(2, 3, 4\)"),
        (3.0, r"x must have two dimensions .*, got shape \(\)"),
        (np.zeros((0, 3)), r"x must hold at least one environment and one component, got shape \(0, 3\)"),
        (np.zeros((3, 0)), r"x must hold at least one environment and one component, got shape \(3, 0\)"),
        ([], r"x must have two dimensions"),
        ([["a", "b"]], r"x must be a matrix of real numbers, one row per environment"),
        ("traj.xyz", r"x must be a matrix of real numbers"),
        ([[1.0, 2.0], [3.0]], r"x must be a matrix of real numbers"),
        (np.ones((2, 2), complex), r"x must be a matrix of real numbers"),
        (None, r"x must be a matrix of real numbers"),
        (with_bad(math.nan), r"x must be finite, but row \d+ holds NaN or infinity"),
        (with_bad(math.inf), r"x must be finite, but row \d+ holds NaN or infinity"),
    ],
)
def test_a_set_is_a_finite_matrix(metric: Any, x: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        metric(x, 0.5)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_the_row_that_is_not_finite_is_named(bad: float) -> None:
    with pytest.raises(ValueError, match=r"x must be finite, but row 4 holds"):
        entropy(with_bad(bad), 0.5)
    with pytest.raises(ValueError, match=r"x must be finite, but row 4 holds"):
        delta_entropy(X, with_bad(bad), 0.5)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_the_row_asked_about_that_is_not_finite_is_named(bad: float) -> None:
    with pytest.raises(ValueError, match=r"y must be finite, but row 4 holds NaN or infinity"):
        delta_entropy(with_bad(bad), X, 0.5)


@pytest.mark.parametrize("unseen", [False, True])
def test_the_row_that_is_not_finite_is_named_among_labels(unseen: bool) -> None:
    labels = [0, 0, 0, 1, 1, 1]
    with pytest.raises(ValueError, match=r"y must be finite, but row 4 holds"):
        delta_entropy(with_bad(math.nan), X, 0.5, y_labels=labels, x_labels=[0] * 6 if unseen else labels)


@pytest.mark.parametrize(
    ("y", "x", "sentence"),
    [
        (X, X[:, :2], r"y has 3 components and x has 2: both must come from the same descriptor"),
        (X[0], X, r"y must have two dimensions .*, got shape \(3,\)"),
        (X, X[0], r"x must have two dimensions .*, got shape \(3,\)"),
        (X[:0], X, r"y must hold at least one environment"),
        (X, X[:0], r"x must hold at least one environment"),
        (X, with_bad(math.nan), r"x must be finite"),
        ([["a"]], X, r"y must be a matrix of real numbers"),
    ],
)
def test_both_sides_are_finite_matrices_of_one_width(y: Any, x: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        delta_entropy(y, x, 0.5)


@pytest.mark.parametrize(
    ("h", "sentence"),
    [
        (0.0, r"bandwidth must be positive and finite, got 0\.0"),
        (-0.015, r"bandwidth must be positive and finite, got -0\.015"),
        (math.nan, r"bandwidth must be positive and finite, got nan"),
        (math.inf, r"bandwidth must be positive and finite, got inf"),
        ([0.015, 0.0], r"bandwidth must be positive and finite, got 0\.0"),
        ("narrow", r"bandwidth must be a number, got 'narrow'"),
        (None, r"bandwidth must be a number, got None"),
        ([], r"at least one bandwidth is needed, got an empty list"),
    ],
)
def test_a_bandwidth_is_positive(h: Any, sentence: str) -> None:
    for metric in ONE_SET:
        with pytest.raises(ValueError, match=sentence):
            metric(X, h)
    with pytest.raises(ValueError, match=sentence):
        delta_entropy(X, X, h)
    with pytest.raises(ValueError, match=sentence):
        group_metrics(X, h, np.zeros(6, int))


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        (np.ones(5), r"weights must have shape \(6,\), one per environment, got \(5,\)"),
        (np.ones((6, 1)), r"weights must have shape \(6,\), one per environment, got \(6, 1\)"),
        (2.0, r"weights must have shape \(6,\)"),
        ([1, 1, -1, 1, 1, 1], r"weights must be finite and not negative"),
        ([1, 1, math.nan, 1, 1, 1], r"weights must be finite and not negative"),
        ([1, 1, math.inf, 1, 1, 1], r"weights must be finite and not negative"),
        (np.zeros(6), r"weights must not all be zero"),
    ],
)
def test_weights_are_positive_numbers_one_per_environment(weights: Any, sentence: str) -> None:
    for metric in ONE_SET:
        with pytest.raises(ValueError, match=sentence):
            metric(X, 0.5, weights=weights)
    with pytest.raises(ValueError, match=sentence):
        delta_entropy(X[:2], X, 0.5, weights=weights)


def test_labels_are_one_per_environment() -> None:
    for metric in ONE_SET:
        with pytest.raises(ValueError, match=r"labels must have shape \(6,\), one per environment, got \(5,\)"):
            metric(X, 0.5, labels=np.zeros(5))
    with pytest.raises(ValueError, match=r"groups must have shape \(6,\), one per environment, got \(7,\)"):
        group_metrics(X, 0.5, np.zeros(7))
    with pytest.raises(ValueError, match=r"labels must have shape \(6,\)"):
        group_metrics(X, 0.5, np.zeros(6), labels=np.zeros(5))


def test_labels_of_both_sides_go_together() -> None:
    with pytest.raises(ValueError, match=r"y_labels and x_labels go together: give both or none"):
        delta_entropy(X, X, 0.5, y_labels=np.zeros(6))
    with pytest.raises(ValueError, match=r"y_labels and x_labels go together: give both or none"):
        delta_entropy(X, X, 0.5, x_labels=np.zeros(6))
    with pytest.raises(ValueError, match=r"x_labels must have shape"):
        delta_entropy(X, X, 0.5, y_labels=np.zeros(6), x_labels=np.zeros(5))


@pytest.mark.parametrize(("y_labels", "x_labels"), [([0] * 2, [0] * 10), ([[0, 0, 0], [0, 0, 0]], [0] * 6)])
def test_labels_of_both_sides_are_one_per_environment_each(y_labels: Any, x_labels: Any) -> None:
    with pytest.raises(ValueError, match="shape"):
        delta_entropy(X, X, 0.5, y_labels=y_labels, x_labels=x_labels)


def test_groups_may_be_labels_of_any_kind() -> None:
    numbers = group_metrics(X, 0.5, [0, 0, 2, 2, 3, 3])
    names = group_metrics(X, 0.5, ["a", "a", "b", "b", "c", "c"])
    np.testing.assert_array_equal(numbers.entropy, names.entropy)
    np.testing.assert_array_equal(numbers.sizes, [2, 2, 2])
    with pytest.raises(ValueError, match="groups are needed"):
        group_metrics(X, 0.5, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("precision", ["float16", "single", "", None, 32])
def test_precision_is_one_of_three(precision: Any) -> None:
    sentence = r"precision must be one of auto, float64, float32, got "
    for metric in ONE_SET:
        with pytest.raises(ValueError, match=sentence):
            metric(X, 0.5, precision=precision)
    with pytest.raises(ValueError, match=sentence):
        delta_entropy(X, X, 0.5, precision=precision)
    with pytest.raises(ValueError, match=sentence):
        group_metrics(X, 0.5, np.zeros(6), precision=precision)


@pytest.mark.parametrize("jobs", [0, -2, 1.5, True, "two", math.nan, [2]])
def test_jobs_are_whole(jobs: Any) -> None:
    for metric in ONE_SET:
        with pytest.raises(ValueError, match=r"jobs must be a whole number of at least 1, got "):
            metric(X, 0.5, jobs=jobs)
    with pytest.raises(ValueError, match=r"jobs must be a whole number of at least 1, got "):
        delta_entropy(X, X, 0.5, jobs=jobs)


def test_parameters_are_named() -> None:
    with pytest.raises(TypeError):
        entropy(X, 0.5, np.ones(6))  # type: ignore[misc]
    with pytest.raises(TypeError):
        delta_entropy(X, X, 0.5, np.ones(6))  # type: ignore[misc]


@pytest.mark.parametrize("h", [1e80, 1e-80, [0.5, 1e-80], [1e80, 0.5]])
def test_bandwidths_beyond_reason_are_refused(h: Any) -> None:
    with pytest.raises(ValueError, match="bandwidth must lie between 1e-09 and 1e"):
        entropy(X, h)


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_bandwidths_of_very_different_size(precision: str) -> None:
    found = entropy(X, [1e9, 1e-9], precision=precision)
    np.testing.assert_allclose(found, [0.0, math.log(6.0)], atol=1e-6)


@pytest.mark.parametrize("factor", [1e308, 5e-324])
def test_weights_at_the_ends_of_float64(factor: float) -> None:
    assert entropy(X, 0.5, weights=[factor] * 6) == pytest.approx(entropy(X, 0.5), abs=1e-9)


def test_weights_that_decide_which_far_term_is_largest() -> None:
    """One reference near but almost weightless, fifty far ones: both count, as in a log-sum-exp."""
    x = np.concatenate([[[0.0]], np.full((50, 1), 76.0)])
    weights = np.array([1e-300, *[1.0] * 50])
    expected = -np.logaddexp(math.log(1e-300) - 0.5, math.log(50.0) - 0.5 * 75.0**2)
    np.testing.assert_allclose(delta_entropy([[1.0]], x, 1.0, weights=weights), [expected], rtol=1e-12)
    far = np.logaddexp(math.log(1e-300), math.log(50.0) - 0.5 * 76.0**2)
    np.testing.assert_allclose(get_all_metrics(x, 1.0, weights=weights)[2][0], -far, rtol=1e-12)


@pytest.mark.parametrize("far", [1e160, 1e300])
def test_distances_whose_squares_overflow_are_refused(far: float) -> None:
    with pytest.raises(ValueError, match="x and y spread over so many bandwidths"):
        delta_entropy([[far]], [[0.0]], 0.015)
    with pytest.raises(ValueError, match="x spreads over so many bandwidths"):
        entropy([[far], [0.0]], 0.015)


def test_mean_dh_of_a_lone_environment_is_plain_zero() -> None:
    assert str(group_metrics([[1.0]], 0.5, [0]).mean_dh[0, 0]) == "0.0"
