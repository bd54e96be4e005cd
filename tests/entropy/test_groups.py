"""Parts of a set against each other: what direct calls say, all in one pass."""

from __future__ import annotations

import math
from typing import Any

import naive
import numpy as np
import numpy.typing as npt
import pytest

from quests_zenn._core.parallel import Workers
from quests_zenn.entropy import DEFAULT_BANDWIDTH, delta_entropy, diversity, entropy, get_all_metrics, group_matrix
from quests_zenn.entropy import overlap as overlap_of

Array = npt.NDArray[Any]

EXACT = {"rtol": 1e-11, "atol": 1e-11}
SIZES = [1, 2, 15, 33, 64, 600]


def cloud(n: int, d: int, seed: int = 0) -> Array:
    """Environments at distances of about 2, whatever their width."""
    return np.random.default_rng([seed, n, d]).normal(size=(n, d)) * math.sqrt(2.0 / d)


def parts() -> tuple[Array, Array]:
    """Environments of six parts that overlap more or less, in random order."""
    member = np.random.default_rng(0).permutation(np.repeat(np.arange(6), SIZES))
    return cloud(len(member), 4) + 0.5 * member[:, None], member


# --- against direct calls ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("h", [0.3, 1.5])
def test_parts_follow_direct_calls(h: float) -> None:
    x, member = parts()
    found = group_matrix(x, h, groups=member)
    assert found.names == list(range(6))
    np.testing.assert_array_equal(found.sizes, SIZES)
    assert found.h == h
    assert found.mean_dh.shape == found.overlap.shape == (6, 6)
    for a in range(6):
        mine = x[member == a]
        assert found.entropy[a] == pytest.approx(entropy(mine, h), abs=1e-11)
        assert found.diversity[a] == pytest.approx(diversity(mine, h), abs=1e-11)
        assert found.mean_dh[a, a] == pytest.approx(found.entropy[a] - math.log(SIZES[a]), abs=1e-11)
        for b in range(6):
            dh = delta_entropy(mine, x[member == b], h)
            assert found.mean_dh[a, b] == pytest.approx(dh.mean(), rel=1e-11, abs=1e-11)
            assert found.overlap[a, b] == pytest.approx(overlap_of(mine, x[member == b], h), abs=1e-12)
    assert (np.diag(found.overlap) == 1.0).all()
    assert len(np.unique(found.overlap)) > 3 or h == 0.3


def test_rows_and_columns_by_hand() -> None:
    """Row a, column b is a given b: two environments at 0 know the one at 0, and the far one knows none."""
    x = np.array([[0.0], [0.0], [5.0], [0.0]])
    found = group_matrix(x, 1.0, groups=["a", "a", "b", "b"])
    k = math.exp(-12.5)
    np.testing.assert_allclose(found.overlap, [[1.0, 1.0], [0.5, 1.0]])
    expected = [
        [-math.log(2.0), -math.log(1.0 + k)],
        [0.5 * (12.5 - math.log(2.0) - math.log(2.0)), -math.log(1.0 + k)],
    ]
    np.testing.assert_allclose(found.mean_dh, expected, rtol=1e-12)
    np.testing.assert_allclose(found.entropy, [0.0, math.log(2.0) - math.log(1.0 + k)], atol=1e-12)
    np.testing.assert_allclose(found.diversity, [0.0, math.log(2.0 / (1.0 + k))], atol=1e-12)


def test_the_twin_agrees() -> None:
    x, member = cloud(60, 3), np.arange(60) % 4
    found = group_matrix(x, 0.7, groups=member)
    for a in range(4):
        assert found.entropy[a] == pytest.approx(naive.entropy(x[member == a], 0.7), abs=1e-11)
        assert found.diversity[a] == pytest.approx(naive.diversity(x[member == a], 0.7), abs=1e-11)
        for b in range(4):
            dh = naive.delta_entropy(x[member == a], x[member == b], 0.7)
            assert found.mean_dh[a, b] == pytest.approx(dh.mean(), abs=1e-10)
            assert found.overlap[a, b] == np.mean(dh < 1e-5)


def test_eps_is_the_threshold_of_overlap() -> None:
    x, member = parts()
    for eps in (-1.0, 0.5, 3.0):
        found = group_matrix(x, 0.3, groups=member, eps=eps).overlap
        expected = [
            [np.mean(delta_entropy(x[member == a], x[member == b], 0.3) < eps) for b in range(6)] for a in range(6)
        ]
        np.testing.assert_allclose(found, expected, rtol=1e-15)


# --- known by thought -------------------------------------------------------------------------------------------------


def test_one_part_is_the_whole_set() -> None:
    x = cloud(200, 4)
    h, d, dh = get_all_metrics(x, 0.5)
    found = group_matrix(x, 0.5, groups=np.full(200, "all"))
    assert found.names == ["all"]
    np.testing.assert_allclose(found.entropy, [h], **EXACT)
    np.testing.assert_allclose(found.diversity, [d], **EXACT)
    np.testing.assert_allclose(found.mean_dh, [[dh.mean()]], **EXACT)
    np.testing.assert_array_equal(found.overlap, [[1.0]])


def test_copies_of_a_part_know_each_other() -> None:
    x = np.tile(cloud(70, 4), (3, 1))
    found = group_matrix(x, 0.5, groups=np.repeat([10, 5, 7], 70))
    assert found.names == [5, 7, 10]
    np.testing.assert_array_equal(found.overlap, np.ones((3, 3)))
    np.testing.assert_allclose(found.mean_dh, found.mean_dh[0, 0], **EXACT)


def test_far_parts_are_finite() -> None:
    """A thousand bandwidths apart: dH = 5e5 less the logarithm of how many there are."""
    x = np.repeat([[0.0], [15.0]], [3, 8], axis=0)
    found = group_matrix(x, 0.015, groups=[0] * 3 + [1] * 8)
    np.testing.assert_allclose(
        found.mean_dh, [[-math.log(3.0), 5e5 - math.log(8.0)], [5e5 - math.log(3.0), -math.log(8.0)]], rtol=1e-12
    )
    np.testing.assert_array_equal(found.overlap, np.eye(2))
    np.testing.assert_allclose(found.entropy, [0.0, 0.0], atol=1e-12)


def test_the_default_bandwidth() -> None:
    x = 0.02 * cloud(60, 5)
    found = group_matrix(x, groups=np.arange(60) % 2)
    assert found.h == DEFAULT_BANDWIDTH
    assert found.entropy[0] == pytest.approx(entropy(x[::2]), abs=1e-12)


# --- names and labels -------------------------------------------------------------------------------------------------


def test_names_are_sorted_and_stay_what_they_are() -> None:
    x, member = parts()
    numbers = group_matrix(x, 0.5, groups=member)
    names = np.array(["bulk", "gas", "liquid", "slab", "surface", "void"])
    for groups in (names[member], names[member].tolist(), 1.5 * member - 3.0):
        found = group_matrix(x, 0.5, groups=groups)
        np.testing.assert_array_equal(found.mean_dh, numbers.mean_dh)
        assert found.names == sorted(set(np.asarray(groups).tolist()))
    assert group_matrix(x, 0.5, groups=names[member]).names[0] == "bulk"
    # another order of names is another order of rows
    backwards = group_matrix(x, 0.5, groups=names[::-1][member])
    np.testing.assert_allclose(backwards.mean_dh[::-1, ::-1], numbers.mean_dh, **EXACT)
    np.testing.assert_array_equal(backwards.sizes, SIZES[::-1])


def test_labels_keep_environments_apart_and_missing_ones_are_novel() -> None:
    x, member = parts()
    labels = np.where(member < 3, "Cu", "Ag")
    labels[member == 4] = np.random.default_rng(1).choice(["Cu", "Ag"], 64)
    found = group_matrix(x, 0.5, groups=member, labels=labels)
    for a in range(6):
        mine = member == a
        assert found.entropy[a] == pytest.approx(entropy(x[mine], 0.5, labels=labels[mine]), abs=1e-11)
        assert found.diversity[a] == pytest.approx(diversity(x[mine], 0.5, labels=labels[mine]), abs=1e-11)
        for b in range(6):
            theirs = member == b
            dh = delta_entropy(x[mine], x[theirs], 0.5, y_labels=labels[mine], x_labels=labels[theirs])
            np.testing.assert_allclose(found.mean_dh[a, b], dh.mean(), **EXACT)
            assert found.overlap[a, b] == pytest.approx(np.mean(dh < 1e-5))
    assert np.isposinf(found.mean_dh[0, 5])  # copper given silver
    assert found.overlap[0, 5] == 0.0
    assert np.isposinf(found.mean_dh[4, 5])  # some of it copper
    assert np.isfinite(np.diag(found.mean_dh)).all()


# --- precision, threads, refusals -------------------------------------------------------------------------------------


def test_threads_do_not_change_a_bit() -> None:
    x, member = parts()
    first = group_matrix(x, 0.5, groups=member, jobs=1)
    with Workers(2) as workers:
        borrowed = group_matrix(x, 0.5, groups=member, workers=workers)
    for found in (borrowed, *(group_matrix(x, 0.5, groups=member, jobs=jobs) for jobs in (2, 3))):
        for name in ("entropy", "diversity", "mean_dh", "overlap"):
            np.testing.assert_array_equal(getattr(found, name), getattr(first, name))


def test_single_precision_is_close() -> None:
    x, member = parts()
    exact, single = group_matrix(x, 0.5, groups=member), group_matrix(x, 0.5, groups=member, precision="float32")
    assert (single.mean_dh != exact.mean_dh).any()
    np.testing.assert_allclose(single.mean_dh, exact.mean_dh, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(single.entropy, exact.entropy, atol=1e-5)


def test_progress_is_told() -> None:
    x, member = parts()
    told: list[int] = []
    group_matrix(x, 0.5, groups=member, progress=told.append)
    assert sum(told) >= len(x) ** 2 / 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"groups": None}, r"groups are needed, one label per environment"),
        ({"groups": [1, 2]}, r"groups must have shape \(5,\), one per environment, got \(2,\)"),
        ({"x": [1.0] * 5}, r"x must have two dimensions"),
        ({"h": -1.0}, r"bandwidth must be positive and finite, got -1\.0"),
        ({"labels": [1]}, r"labels must have shape \(5,\)"),
        ({"eps": math.nan}, r"eps must be finite, got nan"),
        ({"precision": "half"}, r"precision must be one of auto, float64, float32, got 'half'"),
        ({"jobs": 0}, r"jobs must be a whole number of at least 1"),
    ],
)
def test_arguments_out_of_range(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        group_matrix(**{"x": cloud(5, 2), "groups": [0, 0, 1, 1, 1], **arguments})
