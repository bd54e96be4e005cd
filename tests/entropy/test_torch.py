"""Sums and searches through torch against the slow twin and the engine. `torch` as a device is the processor."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import naive
import numpy as np
import numpy.typing as npt
import pytest

import quests_zenn.entropy._torch as through_torch
from quests_zenn.entropy import _engine, approx_delta_entropy
from quests_zenn.entropy._torch import log_sums_against, log_sums_within, nearest, torch_device

torch: Any = pytest.importorskip("torch", reason="torch is not installed: pip install 'quests_zenn[zenn]'")
pytestmark = pytest.mark.extra

Array = npt.NDArray[np.float64]

#: Errors of ln p of sets a few bandwidths wide.
TOLERANCE = {"float64": 1e-12, "float32": 1e-5}
PRECISIONS = ("float64", "float32")


@pytest.fixture(params=["one tile", "small tiles"])
def tiles(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "small tiles":  # blocks of 7 columns, strips of 5 rows if these have 63 components
        monkeypatch.setattr(through_torch, "COLUMNS", 7)
        monkeypatch.setattr(through_torch, "TILE_BYTES", 8 * 63 * 5)


def cloud(n: int, d: int, seed: int = 0) -> Array:
    """Environments at distances of about 2, whatever their width."""
    return np.random.default_rng([seed, n, d]).normal(size=(n, d)) * math.sqrt(2.0 / d)


def clusters(n: int, spread: float) -> Array:
    """Environments of 63 components: clusters of ten neighbours, `spread` bandwidths of 1 from each other."""
    return np.repeat(cloud(n // 10, 63), 10, axis=0) * spread / 2.0 + cloud(n, 63, seed=1)


def bandwidths(*values: float) -> Array:
    return np.array(values)


def within(x: Array, *args: Any, precision: str = "float64", **kwargs: Any) -> Array:
    return log_sums_within(x, *args, precision=precision, device="torch", **kwargs)


def against(y: Array, x: Array, *args: Any, precision: str = "float64", **kwargs: Any) -> Array:
    return log_sums_against(y, x, *args, precision=precision, device="torch", **kwargs)


def near(
    y: Array, x: Array, n: int, precision: str = "float64", **kwargs: Any
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    return nearest(y, x, n, precision=precision, device="torch", **kwargs)


def assert_log_p(found: Array, expected: Array, precision: str = "float64") -> None:
    tolerance = TOLERANCE[precision]
    np.testing.assert_allclose(found, expected, rtol=min(tolerance, 1e-6), atol=tolerance)


# --- sums against the twin --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("d", [1, 2, 63])
@pytest.mark.parametrize("n", [1, 2, 16, 60])
@pytest.mark.usefixtures("tiles")
def test_sums_within_follow_the_formula(n: int, d: int, precision: str) -> None:
    x, h = cloud(n, d), bandwidths(0.7, 0.3, 5.0)
    found = within(x, h, precision=precision)
    assert found.shape == (3, n)
    assert found.dtype == np.float64
    for row, value in zip(found, h.tolist(), strict=True):
        assert_log_p(row, naive.log_density(x, x, value), precision)
        assert_log_p(within(x, bandwidths(value), precision=precision)[0], row, precision)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("n", "m", "d"), [(1, 1, 1), (33, 1, 2), (1, 33, 63), (23, 60, 1), (60, 23, 63)])
@pytest.mark.usefixtures("tiles")
def test_sums_against_follow_the_formula(n: int, m: int, d: int, precision: str) -> None:
    y, x, h = cloud(n, d, seed=1), cloud(m, d, seed=2), bandwidths(0.7, 0.3, 5.0)
    weights = np.random.default_rng(3).random(m) * 1e3
    weights[1::3] = 0.0
    for w in (None, weights):
        found = against(y, x, h, w, precision=precision)
        assert found.shape == (3, n)
        for row, value in zip(found, h.tolist(), strict=True):
            assert_log_p(row, naive.log_density(y, x, value, w), precision)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.usefixtures("tiles")
def test_weights_and_groups(precision: str) -> None:
    """Weights of 0 and of next to nothing; a group of one; a group that weighs nothing."""
    rng = np.random.default_rng(4)
    x, h = cloud(60, 5), bandwidths(0.6, 2.0)
    groups, weights = rng.integers(0, 3, size=60), rng.random(60)
    groups[50:] = [7, 8, 8, 8, 9, 9, 9, 9, 9, 9]
    weights[::4] = 0.0
    weights[[1, 2]] = 1e-300
    weights[51:54] = 0.0
    for w in (None, weights):
        found = within(x, h, w, groups, precision=precision)
        for group in np.unique(groups):
            rows = np.flatnonzero(groups == group)
            for row, value in zip(found, h.tolist(), strict=True):
                if w is not None and group == 8:
                    assert (row[rows] == -np.inf).all()
                else:
                    expected = naive.log_density(x[rows], x[rows], value, None if w is None else w[rows])
                    assert_log_p(row[rows], expected, precision)


@pytest.mark.usefixtures("tiles")
def test_the_engine_computes_the_same() -> None:
    rng = np.random.default_rng(5)
    x, y, h = clusters(700, 30.0), clusters(300, 30.0) + 3.0, bandwidths(1.0, 0.7, 20.0)
    weights, groups = rng.random(700), rng.integers(0, 4, size=700)
    weights[::5] = 0.0
    for w, g in ((None, None), (weights, groups)):
        np.testing.assert_allclose(
            within(x, h, w, g), _engine.log_sums_within(x, h, w, g, jobs=1), rtol=1e-11, atol=1e-11
        )
        np.testing.assert_allclose(
            against(y, x, h, w), _engine.log_sums_against(y, x, h, w, jobs=1), rtol=1e-11, atol=1e-11
        )


# --- answers known by thought alone -----------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_thousand_bandwidths_away(precision: str) -> None:
    x = np.zeros((1, 4))
    y = np.array([[600.0, 0.0, 800.0, 0.0]])
    rtol = 1e-12 if precision == "float64" else 1e-6
    np.testing.assert_allclose(against(y, x, bandwidths(1.0), precision=precision), [[-5e5]], rtol=rtol)
    np.testing.assert_allclose(
        against(y, x, bandwidths(0.5, 1.0), np.full(1, 2.0), precision=precision),
        [[math.log(2.0) - 2e6], [math.log(2.0) - 5e5]],
        rtol=rtol,
    )


@pytest.mark.parametrize("precision", PRECISIONS)
def test_far_points_at_every_distance(precision: str) -> None:
    x = np.array([[0.0, 0.0], [0.3, -0.1], [-0.2, 0.4]])
    y = np.stack([np.linspace(0.0, 80.0, 321), np.linspace(0.0, 3.0, 321)], axis=1)
    for row, h in zip(against(y, x, bandwidths(1.0, 0.5), precision=precision), (1.0, 0.5), strict=True):
        assert_log_p(row, naive.log_density(y, x, h), precision)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.usefixtures("tiles")
def test_lone_environments_know_only_themselves_and_equal_ones_all(precision: str) -> None:
    h = bandwidths(1.0, 3.0)
    lone = 1000.0 * np.arange(40.0)[:, None] * np.ones((1, 3))
    np.testing.assert_array_equal(within(lone, h, precision=precision), np.zeros((2, 40)))
    equal = np.tile(cloud(1, 63), (40, 1))
    np.testing.assert_allclose(within(equal, h, precision=precision), math.log(40), rtol=1e-7)


def test_empty_sides() -> None:
    x = cloud(3, 2)
    assert against(x[:0], x, bandwidths(1.0, 2.0)).shape == (2, 0)
    for y, reference, weights in ((x, x[:0], None), (x, x, np.zeros(3))):
        np.testing.assert_array_equal(against(y, reference, bandwidths(1.0), weights), np.full((1, 3), -np.inf))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_far_from_the_origin(precision: str) -> None:
    x = np.round(cloud(40, 6) * 2.0**10) / 2.0**10  # so that adding 2^20 is exact
    moved = x + 2.0**20
    assert_log_p(within(moved, bandwidths(1.0), precision=precision)[0], naive.log_density(x, x, 1.0), precision)
    np.testing.assert_allclose(near(moved, moved, 5, precision)[1], near(x, x, 5)[1], rtol=1e-12)


# --- digits in float32 ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spread", [3.0, 30.0])
@pytest.mark.parametrize("n", [100, 2000])
def test_entropy_in_float32_errs_by_less_than_a_millionth(n: int, spread: float) -> None:
    x, h = clusters(n, spread), bandwidths(1.0, 1.1)
    errors = within(x, h, precision="float32") - within(x, h)
    assert (abs(errors.mean(axis=1)) < 1e-6).all()
    assert 0.0 < abs(errors).max() < 1e-4


@pytest.mark.parametrize("name", ["acac_test_dihedral", "acac_test_H_transfer", "mlearn_Mo_test", "mlearn_Si_test"])
def test_entropy_in_float32_on_real_data(name: str, data_dir: Path) -> None:
    from quests_zenn.descriptors import describe
    from quests_zenn.io.frames import read_frames

    x, h = describe(read_frames([data_dir / f"{name}.xyz"])).x, bandwidths(0.015)
    exact = _engine.log_sums_within(x, h)
    np.testing.assert_allclose(within(x, h), exact, rtol=0.0, atol=1e-11)
    assert abs((within(x, h, precision="float32") - exact).mean()) < 1e-6


# --- nearest ----------------------------------------------------------------------------------------------------------


def assert_nearest(y: Array, x: Array, n: int, precision: str, exclude_same_row: bool = False) -> None:
    ids, distances = near(y, x, n, precision, exclude_same_row=exclude_same_row)
    assert ids.dtype == np.int64
    assert ids.shape == distances.shape == (len(y), n)
    for i in range(len(y)):
        all_distances = np.sqrt(((x - y[i]) ** 2).sum(axis=1))
        if exclude_same_row:
            all_distances[i] = np.inf
        expected = np.argsort(all_distances, kind="stable")[:n]
        np.testing.assert_array_equal(ids[i], expected)
        np.testing.assert_allclose(distances[i], all_distances[expected], rtol=1e-14)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("m", "d"), [(1, 1), (20, 3), (90, 63)])
@pytest.mark.usefixtures("tiles")
def test_nearest_are_those_of_all_distances(m: int, d: int, precision: str) -> None:
    y, x = cloud(30, d, seed=1), cloud(m, d, seed=2)
    for n in {1, min(m, 9), m}:
        assert_nearest(y, x, n, precision)
        if n < m:
            assert_nearest(x, x, n, precision, exclude_same_row=True)
    assert near(y[:0], x, 1, precision)[0].shape == (0, 1)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("exclude", [False, True])
@pytest.mark.usefixtures("tiles")
def test_nearest_in_order_of_rows_where_many_are_as_near(exclude: bool, precision: str) -> None:
    """Points of a lattice, taken three times: 18 neighbours at distance 1, which is more than the spare ones."""
    lattice = np.stack(np.meshgrid(*[np.arange(4.0)] * 3), axis=-1).reshape(-1, 3)
    x = np.random.default_rng(6).permutation(np.tile(lattice, (3, 1)))
    for n in (1, 3, 5, 100):
        assert_nearest(x, x, n, precision, exclude)


def test_nearest_whose_order_is_lost_in_float32() -> None:
    """A shell of rows around each query, nearer to each other in distance than float32 can tell."""
    rng = np.random.default_rng(7)
    shell = rng.normal(size=(200, 63))
    shell *= (1.0 + 1e-9 * rng.permutation(200) / 200)[:, None] / np.linalg.norm(shell, axis=1, keepdims=True)
    assert_nearest(np.zeros((1, 63)), shell, 5, "float32")
    assert_nearest(np.zeros((1, 63)), shell, 5, "float64")


# --- order, layout, settings ------------------------------------------------------------------------------------------


def test_permutations_do_not_matter() -> None:
    rng = np.random.default_rng(8)
    x, y, h, weights = cloud(600, 63), cloud(50, 63, seed=1), bandwidths(0.8), rng.random(600)
    shuffle = rng.permutation(600)
    np.testing.assert_allclose(within(x[shuffle], h), within(x, h)[:, shuffle], rtol=0.0, atol=1e-12)
    np.testing.assert_allclose(
        against(y, x[shuffle], h, weights[shuffle]), against(y, x, h, weights), rtol=0.0, atol=1e-12
    )
    np.testing.assert_array_equal(shuffle[near(y, x[shuffle], 9)[0]], near(y, x, 9)[0])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_neither_layout_nor_threads_nor_settings_change_a_bit(precision: str) -> None:
    x, y, h = clusters(1100, 10.0).astype(np.float32).astype(np.float64), cloud(300, 63), bandwidths(1.0)

    def everything(x: Array) -> list[Array]:
        return [
            within(x, h, precision=precision),
            against(y, x, h, precision=precision),
            near(y, x, 9, precision)[1],
        ]

    expected = everything(x)
    spaced = np.zeros((2200, 70))
    spaced[::2, 3:66] = x
    read_only = x.copy()
    read_only.flags.writeable = False
    layouts = (np.asfortranarray(x), spaced[::2, 3:66], x[::-1].copy()[::-1], read_only, x.astype(np.float32))
    for layout in layouts:
        for found, value in zip(everything(layout), expected, strict=True):
            np.testing.assert_array_equal(found, value)
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                for found, value in zip(everything(x), expected, strict=True):
                    np.testing.assert_array_equal(found, value)
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)


def test_short_products_are_switched_off_and_on_again() -> None:
    matmul, seen = torch.backends.cuda.matmul, []
    name, short, exact = (
        ("fp32_precision", "tf32", "ieee") if hasattr(torch.backends, "fp32_precision") else ("allow_tf32", True, False)
    )
    before = getattr(matmul, name)
    try:
        setattr(matmul, name, short)
        within(cloud(9, 2), bandwidths(1.0), progress=lambda _: seen.append(getattr(matmul, name)))
        assert getattr(matmul, name) == short
        with pytest.raises(ZeroDivisionError):
            within(cloud(9, 2), bandwidths(1.0), progress=lambda _: seen.append(1 // 0))
        assert getattr(matmul, name) == short
    finally:
        setattr(matmul, name, before)
    assert seen == [exact]


def test_input_is_left_alone() -> None:
    x, weights, groups, h = cloud(40, 6), np.arange(40.0), np.arange(40) % 3, bandwidths(0.5, 1.0)
    copies = [x.copy(), weights.copy(), groups.copy(), h.copy()]
    within(x, h, weights, groups)
    against(x, x + 50.0, h, weights)
    near(x, x, 3)
    for mine, copy in zip((x, weights, groups, h), copies, strict=True):
        np.testing.assert_array_equal(mine, copy)


@pytest.mark.usefixtures("tiles")
def test_progress_tells_all_pairs() -> None:
    x, told = cloud(300, 2), list[int]()
    against(x[:90], x, bandwidths(1.0, 2.0), progress=told.append)
    assert sum(told) == 90 * 300
    told.clear()
    within(x, bandwidths(1.0), progress=told.append)
    assert 0.98 * 300**2 / 2 <= sum(told) <= 300**2 / 2


# --- errors -----------------------------------------------------------------------------------------------------------


def test_devices_that_are_not_there() -> None:
    assert torch_device("torch") == torch.device("cpu")
    with pytest.raises(ValueError, match=r"^device must be torch, cuda, or cuda:0, cuda:1 and so on, got 'cuda:x'$"):
        torch_device("cuda:x")
    with pytest.raises(ValueError, match=r"^device mps has no float64, which these sums need: use cuda or the proc"):
        torch_device("mps")
    with pytest.raises(ValueError, match=r"^device cuda:99 is not there: torch finds \d+ CUDA devices$"):
        torch_device("cuda:99")


def test_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    text = r"^device cuda is not there: torch finds 0 CUDA devices$"
    x = cloud(3, 2)
    with pytest.raises(ValueError, match=text):
        log_sums_within(x, bandwidths(1.0), precision="float64", device="cuda")
    with pytest.raises(ValueError, match=text):
        log_sums_against(x, x, bandwidths(1.0), precision="float64", device="cuda")
    with pytest.raises(ValueError, match=text):
        nearest(x, x, 1, precision="float64", device="cuda")


def test_without_torch() -> None:
    """The module can be imported, and says what brings torch."""
    code = (
        "import sys; sys.modules['torch'] = None; from quests_zenn.entropy._torch import torch_device\n"
        "try: torch_device('torch')\n"
        "except ImportError as error: print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == (
        "MissingExtraError this needs torch, which is not installed: pip install 'quests_zenn[zenn]'\n"
    )


def test_too_wide_sets() -> None:
    x = cloud(5, 2)
    for y, precision in ((x + np.array([1e200, 0.0]), "float64"), (x + np.array([1e20, 0.0]), "float32")):
        text = rf"^environments spread so widely that squared distances overflow in {precision}$"
        with pytest.raises(ValueError, match=text):
            against(y, x, bandwidths(1.0), precision=precision)
        with pytest.raises(ValueError, match=text):
            within(np.concatenate([x, y]), bandwidths(1.0), precision=precision)
        with pytest.raises(ValueError, match=text):
            near(y, x, 2, precision)


def test_more_nearest_than_rows() -> None:
    x = cloud(5, 2)
    for n in (0, 6):
        with pytest.raises(ValueError, match=rf"^n must lie between 1 and the 5 rows that can be found, got {n}$"):
            near(x, x, n)
    with pytest.raises(ValueError, match=r"^n must lie between 1 and the 4 rows that can be found, got 5$"):
        near(x, x, 5, exclude_same_row=True)
    with pytest.raises(ValueError, match=r"^y has 5 rows, but x, within which they are to be left out, has 4$"):
        near(x, x[:4], 1, exclude_same_row=True)


# --- a GPU ------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")
@pytest.mark.parametrize("precision", PRECISIONS)
def test_cuda_computes_the_same(precision: str) -> None:
    x, y, h = clusters(3000, 10.0), clusters(400, 10.0) + 0.5, bandwidths(1.0, 3.0)
    weights, atol = np.arange(3000.0) % 4, 1e-11 if precision == "float64" else 1e-4
    for found, expected in (
        (log_sums_within(x, h, weights, precision=precision, device="cuda"), within(x, h, weights)),
        (log_sums_against(y, x, h, precision=precision, device="cuda"), against(y, x, h)),
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-6 if precision == "float32" else 1e-11, atol=atol)
    ids, distances = nearest(x, x, 20, precision=precision, device="cuda", exclude_same_row=True)
    expected_ids, expected = near(x, x, 20, exclude_same_row=True)
    np.testing.assert_array_equal(ids, expected_ids)
    np.testing.assert_allclose(distances, expected, rtol=1e-14)


@pytest.mark.parametrize("estimator", ["exact", "knn"])
@pytest.mark.parametrize("within", [True, False])
def test_approx_delta_entropy_on_a_device(estimator: str, within: bool) -> None:
    y = np.random.default_rng(4).normal(size=(300, 5))
    x = None if within else y[::2] + 0.1
    here = approx_delta_entropy(y, x, 0.5, estimator=estimator, random_state=0)
    there = approx_delta_entropy(y, x, 0.5, estimator=estimator, random_state=0, device="torch")
    assert there.estimator == estimator
    np.testing.assert_allclose(there.values, here.values, rtol=0.0, atol=1e-5)
    with pytest.raises(ValueError, match="samples are taken on the processor, not on torch"):
        approx_delta_entropy(y, x, 0.5, estimator="sampled", device="torch")
