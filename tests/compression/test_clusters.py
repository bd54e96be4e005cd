"""One structure per cluster: exactly as many as asked for, the same for any number of threads."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from quests_zenn.compression import _clusters
from quests_zenn.compression._clusters import direct, k_means

Array = npt.NDArray[Any]
Method = Callable[[Array, int, np.random.Generator], Array]

BOTH = pytest.mark.parametrize("method", [k_means, direct])


def chosen(method: Method, points: Any, n: int, seed: int = 0) -> list[int]:
    """What `method` selects, checked: whole numbers, all different, as many as there should be."""
    points = np.asarray(points)
    before = points.copy()
    found = method(points, n, np.random.default_rng(seed))
    np.testing.assert_array_equal(points, before)
    assert found.dtype == np.int64
    assert found.shape == (min(n, len(points)),)
    assert len(np.unique(found)) == len(found)
    assert found.min() >= 0
    assert found.max() < len(points)
    return found.tolist()


def cloud(n: int, d: int, seed: int = 0) -> Array:
    return np.random.default_rng([seed, n, d]).normal(size=(n, d))


def blobs(sizes: list[int], d: int) -> tuple[Array, Array]:
    """Points about centres that are far apart, in random order, and the blob of each."""
    rng = np.random.default_rng([len(sizes), d])
    member = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    centres = 1000.0 * rng.permuted(np.repeat(np.arange(len(sizes))[:, None], d, axis=1), axis=0)
    return centres[member] + rng.normal(size=(len(member), d)), member


# --- answers known by thought -----------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("d", [1, 3, 63])
@pytest.mark.parametrize("sizes", [[20, 50, 30], [400, 1, 7, 40, 2]])
def test_one_of_each_blob_the_largest_first(method: Method, sizes: list[int], d: int) -> None:
    points, member = blobs(sizes, d)
    for seed in range(3):
        assert member[chosen(method, points, len(sizes), seed)].tolist() == np.argsort(sizes)[::-1].tolist()


@BOTH
def test_the_middle_of_each_cluster(method: Method) -> None:
    points = np.array([0.0, 1.0, 2.0, 3.0, 4.0, 1000.0, 1001.0, 1002.0])[::-1, None]
    assert chosen(method, points, 2) == [5, 1]
    assert points[chosen(method, points, 2), 0].tolist() == [2.0, 1001.0]
    assert points[chosen(method, points, 1), 0].tolist() == [4.0]


@BOTH
@pytest.mark.parametrize("offset", [0.0, 0.1, -7.3])
def test_of_two_that_are_as_near_the_first(method: Method, offset: float) -> None:
    """Both are as far from their mean, but for rounding."""
    points = offset + np.array([[0.0, 0.3], [0.1, 0.0], [5.0, 9.3], [5.1, 9.0], [17.7, 17.8], [17.5, 17.6]])
    assert chosen(method, points, 3) == [0, 2, 4]


@BOTH
def test_all_when_there_are_no_more(method: Method) -> None:
    points = cloud(4, 2)
    assert chosen(method, points, 4) == [0, 1, 2, 3]
    assert chosen(method, points, 100) == [0, 1, 2, 3]
    assert chosen(method, points[:1], 1) == [0]


def test_copies_come_last() -> None:
    points = np.array([[1.0, 0.0], [5.0, 5.0], [1.0, 0.0], [1.0, -0.0], [5.0, 5.0], [2.0, 2.0], [1.0, 0.0]])
    order = [0, 1, 5, 2, 3, 4, 6]  # one of each, most copies first; then the lowest indices
    for n in range(3, 7):
        assert chosen(k_means, points, n) == order[:n]
    # where a pick stands for most: 4 copies of the first, then 2 as of the second
    assert chosen(direct, points, 3) == [0, 1, 5]
    assert chosen(direct, points, 4) == [0, 1, 5, 6]
    assert chosen(direct, points, 5) == [0, 1, 5, 2, 6]


@BOTH
@pytest.mark.parametrize("value", [0.0, -0.1, 1e300])
def test_all_equal(method: Method, value: float) -> None:
    points = np.full((9, 3), value)
    assert chosen(method, points, 1) == [0]
    chosen(method, points, 5)
    assert chosen(k_means, points, 5) == [0, 1, 2, 3, 4]


def test_the_farthest_fill_up() -> None:
    """Where clusters coincide, what is farthest from all chosen follows."""
    points = np.array([0.0, 1.0, 10.0, 4.0, 4.0, 10.0])[:, None]
    assert _clusters._fill(points, [1], 5).tolist() == [1, 2, 3, 0, 4]
    assert _clusters._fill(points, [1, 0], 2).tolist() == [1, 0]


def test_points_that_differ_by_rounding_only() -> None:
    """scikit-learn finds fewer clusters than asked for and warns; here that is no error, and no less is returned."""
    apart = np.nextafter(1.0, 2.0) ** np.arange(12.0)
    points = np.outer([*apart, *-apart], np.ones(5))
    assert len(np.unique(points)) == 24
    with pytest.warns(ConvergenceWarning):
        KMeans(20, n_init=1, random_state=0).fit(points)
    for n in range(1, 25):
        chosen(k_means, points, n)
        chosen(direct, points, n)
    assert not [one for one in warnings.filters if one[2] is ConvergenceWarning]


def test_picks_in_proportion() -> None:
    assert _clusters._shares([60, 30, 10], 10) == [6, 3, 1]
    assert _clusters._shares([60, 30, 10], 3) == [1, 1, 1]
    assert _clusters._shares([4, 1, 3], 8) == [4, 1, 3]
    assert _clusters._shares([2, 2, 2], 4) == [2, 1, 1]


def test_several_picks_span_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the nearest to the farthest, evenly; first the nearest of all clusters."""
    points = np.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 100.0, 101.0, 102.0])[:, None]
    labels, centres = np.repeat([0, 1], [7, 3]), np.array([[0.0], [100.0]])
    monkeypatch.setattr(_clusters, "_components", lambda points: points)
    monkeypatch.setattr(_clusters, "_birch", lambda points, n: (labels, centres))
    assert chosen(direct, points, 2) == [0, 7]
    assert chosen(direct, points, 3) == [0, 7, 6]
    assert chosen(direct, points, 4) == [0, 7, 3, 6]
    assert chosen(direct, points, 6) == [0, 7, 2, 9, 4, 6]


# --- as many as asked for ---------------------------------------------------------------------------------------------


@BOTH
@given(
    rows=st.lists(st.tuples(st.integers(-2, 2), st.integers(0, 1), st.just(7)), min_size=1, max_size=40),
    n=st.integers(1, 45),
    step=st.sampled_from([1.0, 0.1, 1e-160, 1e200]),
)
def test_exactly_as_many(method: Method, rows: list[tuple[int, ...]], n: int, step: float) -> None:
    points = np.array(rows) * step
    found = chosen(method, points, n)
    assert chosen(method, points, n) == found
    if n <= len(np.unique(points, axis=0)) and method is k_means:
        assert len(np.unique(points[found], axis=0)) == n


@BOTH
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_many_sizes(method: Method, dtype: type) -> None:
    points = cloud(300, 6).astype(dtype)
    points[100:] = points[:200]
    for n in [1, 2, 3, 10, 99, 199, 200, 201, 299]:
        chosen(method, points, n)


def test_birch_comes_near() -> None:
    points = cloud(600, 3) * [3.0, 1.0, 0.3]
    for n in [1, 2, 5, 20, 100, 300, 550]:
        labels, centres = _clusters._birch(points, n)
        assert 0.95 * n <= len(centres) <= n
        assert len(labels) == 600


def test_far_outliers_leave_the_rest_its_picks() -> None:
    points = cloud(200, 4)
    points[7] = 1e6
    points[9, 2] = -1e9
    for method in (k_means, direct):
        found = chosen(method, points, 20)
        assert {7, 9} <= set(found)


# --- what does not matter ---------------------------------------------------------------------------------------------


@BOTH
def test_a_seed_says_it_all(method: Method) -> None:
    points = cloud(400, 5)
    np.random.seed(1)  # noqa: NPY002  the global generator has no part in it
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    found = chosen(method, points, 40, seed=3)
    assert found == chosen(method, points, 40, seed=3)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    assert (found == chosen(method, points, 40, seed=4)) == (method is direct)


@BOTH
def test_threads_do_not_matter(method: Method) -> None:
    points = cloud(1500, 63)
    found = []
    for threads in (1, 2, 4):
        with threadpool_limits(limits=threads):
            found.append(chosen(method, points, 150))
    assert found[0] == found[1] == found[2]


@pytest.mark.slow
@BOTH
def test_one_thread_from_the_first_call_on(method: Method) -> None:
    """Libraries that come with the first call must be limited, too."""
    code = f"""
import numpy as np
from quests_zenn.compression import _clusters
from threadpoolctl import threadpool_info
inner = _clusters._one_thread
def spy():
    limits = inner()
    seen.extend((one["filepath"], one["num_threads"]) for one in threadpool_info())
    return limits
seen = []
_clusters._one_thread = spy
_clusters.{method.__name__}(np.random.default_rng(0).normal(size=(50, 3)), 5, np.random.default_rng(0))
assert seen and all(number == 1 for _, number in seen), seen
assert {{path for path, _ in seen}} == {{one["filepath"] for one in threadpool_info()}}
"""
    subprocess.run([sys.executable, "-c", code], timeout=120, check=True)


@BOTH
def test_units_do_not_matter(method: Method) -> None:
    points = cloud(150, 4)
    found = chosen(method, points, 15)
    for power in (-900, 40, 1000):
        assert chosen(method, np.ldexp(points, power), 15) == found


def test_direct_standardises() -> None:
    points = cloud(150, 4)
    found = chosen(direct, points, 15)
    assert chosen(direct, points * [1.0, 2.0**20, 2.0**-30, 2.0**300], 15) == found
    wider = np.insert(points, [0, 2, 4], [0.1, 0.0, -1e9], axis=1)  # constant columns
    assert chosen(direct, wider, 15) == found
    wider[::2, 0] += 2e-17 + 0.1 - wider[::2, 0]
    wider[::3, 0] = np.nextafter(0.1, 1.0)  # constant but for rounding
    assert chosen(direct, wider, 15) == found


# --- the parts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("d", "kept"), [(12, 3), (1, 1)])
def test_components_as_published(d: int, kept: int) -> None:
    """StandardScaler, PCA, eigenvalues above 1, times their share of the variance; up to signs."""
    mixing = np.eye(d) if d == 1 else np.random.default_rng(0).normal(size=(3, d))
    points = cloud(80, len(mixing)) @ mixing + 0.1 * cloud(80, d, seed=1)
    pca = PCA()
    expected = pca.fit_transform(StandardScaler().fit_transform(points))
    assert np.count_nonzero(pca.explained_variance_ > 1.0) == kept
    expected = expected[:, :kept] * pca.explained_variance_ratio_[:kept]
    found = _clusters._components(points)
    assert found.shape == expected.shape
    found *= np.sign((found * expected).sum(axis=0))
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_equal_points_have_equal_components() -> None:
    points = cloud(102, 7)
    points[51:] = points[:51]
    found = _clusters._components(points)
    np.testing.assert_array_equal(found[51:], found[:51])


def test_points_that_do_not_vary_have_one_component() -> None:
    np.testing.assert_array_equal(_clusters._components(np.full((5, 3), 0.1)), np.zeros((5, 1)))


@BOTH
def test_memory_grows_with_the_number_of_points_only(method: Method) -> None:
    points = cloud(2000, 8)
    chosen(method, points[:50], 5)  # imports
    tracemalloc.start()
    try:
        chosen(method, points, 40)
        assert tracemalloc.get_traced_memory()[1] < 8 * len(points) ** 2 / 10
    finally:
        tracemalloc.stop()
