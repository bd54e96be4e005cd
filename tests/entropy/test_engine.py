"""The engine of the kernel sums against its slow twin, and the plan that it follows.

Tests with `small` in their name also run in reasonable time with ``NUMBA_DISABLE_JIT=1``, on the plain twins of the
vector steps.
"""

from __future__ import annotations

import itertools
import math

import naive
import numpy as np
import numpy.typing as npt
import pytest
from scipy.spatial.distance import cdist
from scipy.special import logsumexp

from quests_zenn._core.parallel import Workers
from quests_zenn.entropy import _plan
from quests_zenn.entropy._engine import log_sums_against, log_sums_by_part, log_sums_within
from quests_zenn.entropy._packing import Packed, block_count, pack_rows
from quests_zenn.entropy._plan import (
    CROSS,
    MIRROR,
    SELF,
    batches,
    count_pairs,
    plan_symmetric,
    row_tiles,
    tournament,
)
from quests_zenn.entropy._tile import ROWS, panel_width

Array = npt.NDArray[np.float64]

#: Either side of a register tile, a panel (16 or 32 environments), the block limit (512), and several blocks.
SMALL_SIZES = (1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33)
LARGE_SIZES = (511, 512, 513, 1025, 2100)
WIDTHS = (1, 2, 63, 64, 127)

#: Errors of ln p: rounding of float64; for float32 the docstring of `entropy` says "about 1e-5".
TOLERANCE = {"float64": 1e-12, "float32": 2e-5}


def cloud(n: int, d: int, seed: int = 0) -> Array:
    """Environments at distances of about 2, whatever their width."""
    return np.random.default_rng([seed, n, d]).normal(size=(n, d)) * math.sqrt(2.0 / d)


def bandwidths(*values: float) -> Array:
    return np.array(values)


def judge(y: Array, x: Array, h: float, weights: Array | None = None) -> Array:
    """ln p by distances and a log-sum-exp of SciPy: a judge of large sums. Nothing of ours, nothing clever."""
    return logsumexp(-cdist(y, x, "sqeuclidean") / (2.0 * h * h), axis=1, b=weights)


def assert_log_p(found: Array, expected: Array, precision: str = "float64") -> None:
    tolerance = TOLERANCE[precision]
    np.testing.assert_allclose(found, expected, rtol=tolerance if precision == "float64" else 1e-6, atol=tolerance)


# --- against the twin -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", WIDTHS)
@pytest.mark.parametrize("n", SMALL_SIZES)
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_small_sums_within_follow_the_formula(n: int, d: int, precision: str) -> None:
    x, h = cloud(n, d), bandwidths(0.7, 0.3, 5.0)
    found = log_sums_within(x, h, precision=precision, jobs=1)
    assert found.shape == (3, n)
    assert found.dtype == np.float64
    for row, value in zip(found, h.tolist(), strict=True):
        assert_log_p(row, naive.log_density(x, x, value), precision)


@pytest.mark.parametrize("d", WIDTHS)
@pytest.mark.parametrize(
    ("n", "m"), [(1, 1), (1, 33), (2, 15), (9, 16), (16, 17), (17, 32), (31, 8), (33, 1), (33, 31)]
)
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_small_sums_against_follow_the_formula(n: int, m: int, d: int, precision: str) -> None:
    y, x, h = cloud(n, d, seed=1), cloud(m, d, seed=2), bandwidths(0.7, 0.3, 5.0)
    found = log_sums_against(y, x, h, precision=precision, jobs=1)
    assert found.shape == (3, n)
    for row, value in zip(found, h.tolist(), strict=True):
        assert_log_p(row, naive.log_density(y, x, value), precision)


@pytest.mark.parametrize(("n", "d"), [*((n, 63) for n in LARGE_SIZES), (2100, 1), (2100, 2), (513, 64), (1025, 127)])
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_sums_within_over_several_blocks(n: int, d: int, precision: str) -> None:
    x, h = cloud(n, d), bandwidths(0.5, 1.5)
    found = log_sums_within(x, h, precision=precision, jobs=2)
    for row, value in zip(found, h.tolist(), strict=True):
        assert_log_p(row, judge(x, x, value), precision)
        some = [0, n // 3, n - 1]
        assert_log_p(row[some], naive.log_density(x[some], x, value), precision)


@pytest.mark.parametrize(("n", "m"), [(511, 513), (513, 16), (5, 2100), (2100, 5), (1025, 1025)])
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_sums_against_over_several_tiles(n: int, m: int, precision: str) -> None:
    y, x, h = cloud(n, 63, seed=1), cloud(m, 63, seed=2), bandwidths(1.5, 0.5)
    found = log_sums_against(y, x, h, precision=precision, jobs=2)
    for row, value in zip(found, h.tolist(), strict=True):
        assert_log_p(row, judge(y, x, value), precision)
        some = [0, n // 3, n - 1]
        assert_log_p(row[some], naive.log_density(y[some], x, value), precision)


def test_the_judge_of_large_sums_agrees_with_the_twin_in_small() -> None:
    y, x, weights = cloud(4, 5, seed=1), cloud(9, 5, seed=2), np.arange(9.0)
    np.testing.assert_allclose(judge(y, x, 0.3), naive.log_density(y, x, 0.3), rtol=1e-13)
    np.testing.assert_allclose(judge(y, x, 0.3, weights), naive.log_density(y, x, 0.3, weights), rtol=1e-13)


def test_small_sums_by_hand() -> None:
    x = np.array([[0.0], [1.0], [3.0]])
    e = math.exp
    p = [1.0 + e(-0.5) + e(-4.5), e(-0.5) + 1.0 + e(-2.0), e(-4.5) + e(-2.0) + 1.0]
    np.testing.assert_allclose(log_sums_within(x, bandwidths(1.0), jobs=1)[0], np.log(p), rtol=1e-15)
    # bandwidth 2 on twice the numbers is the same; 1/2 is not
    np.testing.assert_allclose(log_sums_within(2.0 * x, bandwidths(2.0), jobs=1)[0], np.log(p), rtol=1e-15)
    p = [1.0 + e(-2.0) + e(-18.0), e(-2.0) + 1.0 + e(-8.0), e(-18.0) + e(-8.0) + 1.0]
    np.testing.assert_allclose(log_sums_within(x, bandwidths(0.5), jobs=1)[0], np.log(p), rtol=0.0, atol=1e-15)


# --- several bandwidths -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [(0.1, 1.0, 10.0), (10.0, 0.1, 1.0), (1.0, 1.0, 1.0), (1.0, 30.0, 0.05)])
def test_small_bandwidths_in_one_pass_are_bandwidths_one_by_one(order: tuple[float, ...]) -> None:
    x, y = cloud(33, 7, seed=3), cloud(20, 7, seed=4)
    within, against = log_sums_within(x, bandwidths(*order), jobs=1), log_sums_against(y, x, bandwidths(*order), jobs=1)
    for i, h in enumerate(order):
        assert_log_p(within[i], naive.log_density(x, x, h))
        assert_log_p(against[i], naive.log_density(y, x, h))
        assert_log_p(within[i], log_sums_within(x, bandwidths(h), jobs=1)[0])


def test_many_bandwidths_over_several_blocks() -> None:
    x, h = cloud(700, 3), np.geomspace(0.05, 20.0, 11)
    found = log_sums_within(x, h, jobs=2)
    assert found.shape == (11, 700)
    for row, value in zip(found, h.tolist(), strict=True):
        assert_log_p(row, judge(x, x, value))


# --- weights ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("n", [1, 16, 33])
def test_small_weighted_sums(n: int, precision: str) -> None:
    rng = np.random.default_rng(5)
    x, y, weights = cloud(n, 10), cloud(12, 10, seed=6), rng.random(n) * 7.0
    weights[1::3] = 0.0
    h = bandwidths(1.0, 0.6)
    within = log_sums_within(x, h, weights, precision=precision, jobs=1)
    against = log_sums_against(y, x, h, weights, precision=precision, jobs=1)
    for i, value in enumerate(h.tolist()):
        assert_log_p(within[i], naive.log_density(x, x, value, weights), precision)
        assert_log_p(against[i], naive.log_density(y, x, value, weights), precision)


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_weights_over_several_blocks(precision: str) -> None:
    x = cloud(1300, 63)
    weights = np.random.default_rng(7).integers(0, 4, size=len(x)).astype(float)
    h = bandwidths(0.8, 2.0)
    found = log_sums_within(x, h, weights, precision=precision, jobs=2)
    for row, value in zip(found, h.tolist(), strict=True):
        assert_log_p(row, judge(x, x, value, weights), precision)


def test_small_weights_of_very_different_size() -> None:
    x, y = cloud(20, 4), cloud(6, 4, seed=8)
    weights = np.logspace(-290, 0, 20)
    weights[3] = 0.0
    for precision in ("float64", "float32"):
        assert_log_p(
            log_sums_against(y, x, bandwidths(0.4), weights, precision=precision, jobs=1)[0],
            naive.log_density(y, x, 0.4, weights),
            precision,
        )
    # all weights times a constant adds its logarithm
    low = log_sums_within(x, bandwidths(0.4), weights * 1e-10, jobs=1)
    np.testing.assert_allclose(low, log_sums_within(x, bandwidths(0.4), weights, jobs=1) - 10.0 * math.log(10.0))


def test_small_reference_rows_of_weight_zero_do_not_count() -> None:
    x, y = cloud(20, 4), cloud(6, 4, seed=8)
    weights = (np.arange(20) % 2).astype(float)
    expected = log_sums_against(y, x[1::2], bandwidths(0.4), jobs=1)
    np.testing.assert_allclose(log_sums_against(y, x, bandwidths(0.4), weights, jobs=1), expected, rtol=1e-13)
    # far away, where the sum underflows, they still do not
    x[0], weights[0] = 500.0, 0.0
    far = np.full((1, 4), 500.0)
    np.testing.assert_allclose(
        log_sums_against(far, x, bandwidths(0.4), weights, jobs=1)[0],
        naive.log_density(far, x[1::2], 0.4),
        rtol=1e-13,
    )


def test_small_groups_without_weight_have_no_density() -> None:
    x = cloud(6, 2)
    groups, weights = np.array([0, 0, 1, 1, 1, 0]), np.array([1.0, 2.0, 0.0, 0.0, 0.0, 1.0])
    found = log_sums_within(x, bandwidths(0.5), weights, groups, jobs=1)[0]
    assert np.isneginf(found[2:5]).all()
    mine = [0, 1, 5]
    assert_log_p(found[mine], naive.log_density(x[mine], x[mine], 0.5, weights[mine]))


# --- groups -----------------------------------------------------------------------------------------------------------


def assert_groups(x: Array, groups: npt.NDArray[np.int64], weights: Array | None, jobs: int) -> None:
    h = bandwidths(0.5, 1.5)
    found = log_sums_within(x, h, weights, groups, jobs=jobs)
    for code in np.unique(groups):
        members = groups == code
        mine = None if weights is None else weights[members]
        for row, value in zip(found, h.tolist(), strict=True):
            assert_log_p(row[members], naive.log_density(x[members], x[members], value, mine))


def test_small_groups_do_not_see_each_other() -> None:
    x = cloud(60, 5)
    x[30:] = x[:30]  # twins in other groups must not count
    groups = np.repeat(np.arange(6), 10)
    assert_groups(x, groups, None, jobs=1)
    assert_groups(x, np.random.default_rng(9).permutation(groups), None, jobs=1)
    # numbers need not be consecutive
    assert_groups(x, groups * 1000 + 7, None, jobs=1)


def test_many_small_groups_and_one_big() -> None:
    rng = np.random.default_rng(10)
    small = np.repeat(np.arange(1, 251), rng.integers(1, 5, size=250))
    groups = rng.permutation(np.concatenate([small, np.zeros(600, np.int64)]))
    x = np.concatenate([cloud(len(groups) // 2, 3)] * 2 + [cloud(len(groups) % 2, 3)])
    weights = rng.integers(1, 4, size=len(groups)).astype(float)
    assert_groups(x, groups, None, jobs=2)
    assert_groups(x, groups, weights, jobs=2)


def test_small_groups_of_one_have_density_one() -> None:
    found = log_sums_within(cloud(40, 3), bandwidths(1.0), None, np.arange(40), jobs=1)
    np.testing.assert_allclose(found, np.zeros((1, 40)), rtol=0.0, atol=1e-13)


# --- far points -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("d", [1, 2, 63])
@pytest.mark.parametrize("h", [0.015, 1.0, 40.0])
def test_small_far_point_from_a_single_reference(d: int, h: float, precision: str) -> None:
    direction = np.random.default_rng(11).normal(size=d)
    y = 1000.0 * h * direction / np.sqrt((direction**2).sum())
    for x in (np.zeros((1, d)), np.ones((1, d))):
        found = log_sums_against(y[None] + x, x, bandwidths(h), precision=precision, jobs=1)
        np.testing.assert_allclose(found, [[-5e5]], rtol=1e-12)


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_small_far_points_at_every_distance(precision: str) -> None:
    """Past the place where sums in float32 (9 bandwidths) and float64 (35) stop to be trusted, and then underflow."""
    x = np.array([[0.0, 0.0], [0.3, -0.1], [-0.2, 0.4]])
    y = np.stack([np.linspace(0.0, 80.0, 321), np.linspace(0.0, 3.0, 321)], axis=1)
    found = log_sums_against(y, x, bandwidths(1.0, 0.5), precision=precision, jobs=1)
    for row, h in zip(found, (1.0, 0.5), strict=True):
        assert_log_p(row, naive.log_density(y, x, h), precision)
        assert (np.diff(row[5:]) < 0.0).all()


@pytest.mark.parametrize(("precision", "atol"), [("float64", 1e-11), ("float32", 5e-3)])
def test_small_mixtures_of_near_and_far(precision: str, atol: float) -> None:
    """References 200 bandwidths apart cost digits: squared lengths of 1e4 are subtracted from each other."""
    rng = np.random.default_rng(12)
    x = np.concatenate([rng.normal(size=(20, 3)), 60.0 + rng.normal(size=(15, 3)), [[-200.0, 0.0, 0.0]]])
    y = np.concatenate([rng.normal(size=(3, 3)), 30.0 + rng.normal(size=(4, 3)), 1e4 + rng.normal(size=(2, 3))])
    weights = rng.random(36)
    for w in (None, weights):
        found = log_sums_against(y, x, bandwidths(1.0, 3.0), w, precision=precision, jobs=1)
        for row, h in zip(found, (1.0, 3.0), strict=True):
            np.testing.assert_allclose(row, naive.log_density(y, x, h, w), rtol=1e-12, atol=atol)


def test_small_far_rows_within_a_weighted_set() -> None:
    """A row of weight 0 or next to nothing that sits far away: its density is that of others, or its own."""
    x = np.concatenate([cloud(20, 2), [[300.0, 0.0], [0.0, -400.0], [300.5, 0.0]]])
    weights = np.ones(23)
    weights[20], weights[21] = 0.0, 1e-280
    groups = np.array([0] * 22 + [1])
    alone = log_sums_within(x, bandwidths(1.0), weights, groups, jobs=1)[0]
    expected = naive.log_density(x[:22], x[:22], 1.0, weights[:22])
    np.testing.assert_allclose(alone[:22], expected, rtol=1e-12, atol=1e-11)
    assert alone[22] == 0.0
    together = log_sums_within(x, bandwidths(1.0), weights, jobs=1)[0]
    np.testing.assert_allclose(together, naive.log_density(x, x, 1.0, weights), rtol=1e-12, atol=1e-11)


def test_far_points_over_several_tiles() -> None:
    y, x = 90.0 + cloud(600, 5, seed=1), cloud(700, 5, seed=2)
    y[::7] -= 90.0
    found = log_sums_against(y, x, bandwidths(1.0), jobs=2)[0]
    np.testing.assert_allclose(found, judge(y, x, 1.0), rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_small_far_environments_within_a_set_know_only_themselves(precision: str) -> None:
    x = 1000.0 * np.arange(40.0)[:, None] * np.ones((1, 2))
    np.testing.assert_array_equal(log_sums_within(x, bandwidths(1.0), precision=precision, jobs=1), np.zeros((1, 40)))


def pairs_of_neighbours(spread: float) -> Array:
    """40 environments in 20 pairs of neighbours, about `spread` from their centre: as wide as real data sets are."""
    x = np.repeat(cloud(20, 63), 2, axis=0) * spread / math.sqrt(2.0)
    x[::2] += cloud(20, 63, seed=1) * 0.5
    return x


@pytest.mark.parametrize("spread", [3.0, 30.0, 300.0])
def test_small_wide_sets_in_float32(spread: float) -> None:
    """Digits lost grow as the square of the spread of a block, as the docs say."""
    x = pairs_of_neighbours(spread)
    found = log_sums_within(x, bandwidths(1.0), precision="float32", jobs=1)[0]
    np.testing.assert_allclose(found, naive.log_density(x, x, 1.0), rtol=0.0, atol=1e-6 * spread**2)


@pytest.mark.parametrize(("spread", "atol"), [(30.0, 1e-12), (300.0, 1e-10), (3000.0, 1e-8)])
def test_small_wide_sets_in_float64(spread: float, atol: float) -> None:
    """Digits lost grow as the square of the spread, and no faster."""
    x = pairs_of_neighbours(spread)
    found = log_sums_within(x, bandwidths(1.0), jobs=1)[0]
    np.testing.assert_allclose(found, naive.log_density(x, x, 1.0), rtol=0.0, atol=atol)


def members_of(sizes: list[int]) -> list[npt.NDArray[np.int64]]:
    """Consecutive groups of rows."""
    return np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])


def packed_groups(sizes: list[int], dtype: str) -> Packed:
    return pack_rows(cloud(sum(sizes), 2), members_of(sizes), 1.0, None, dtype, Workers(1), "x")


# --- the plan ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", range(1, 21))
def test_small_tournament(n: int) -> None:
    rounds = list(tournament(n))
    games = [tuple(pair) for pairs in rounds for pair in pairs.tolist()]
    assert sorted(games) == list(itertools.combinations(range(n), 2))
    assert len(rounds) == max(0, n - 1 + n % 2)
    for pairs in rounds:
        players = pairs.ravel().tolist()
        assert len(set(players)) == len(players)


def test_small_block_count_grows_with_the_group_and_ends() -> None:
    counts = [block_count(n) for n in (1, 512, 513, 4096, 4097, 10_000, 100_000, 10**6, 10**7, 10**9)]
    assert counts == sorted(counts)
    assert counts[:3] == [1, 1, 4]
    assert counts[-1] == 1024
    for n in range(513, 40_000, 97):
        assert block_count(n) * panel_width("float32") <= n


@pytest.mark.parametrize("width", [16, 32])
@pytest.mark.parametrize("sizes", [[1], [16], [17], [512], [513], [2100], [5000], [1] * 40, [3, 2100, 1, 700, 16]])
def test_small_plan_covers_each_pair_of_a_group_once(sizes: list[int], width: int) -> None:
    packed = packed_groups(sizes, "float64" if width == 16 else "float32")
    panels = packed.block_panels[packed.group_blocks]
    seen = np.zeros((panels[-1], panels[-1]), np.int64)
    for tiles in plan_symmetric(packed):
        busy: set[int] = set()
        for row_0, row_1, panel_0, panel_1, kind in tiles.tolist():
            assert row_0 % width == row_1 % width == row_0 % ROWS == 0
            rows, columns = range(row_0 // width, row_1 // width), range(panel_0, panel_1)
            seen[rows[0] : rows[-1] + 1, panel_0:panel_1] += 1
            if kind == MIRROR:
                seen[panel_0:panel_1, rows[0] : rows[-1] + 1] += 1
                touched = {*rows, *columns}
                assert len(touched) == len(rows) + len(columns)
            else:
                assert kind == SELF
                touched = set(rows)
            # no row is written by two tiles of a round: threads need no locks
            assert not touched & busy
            busy |= touched
    expected = np.zeros_like(seen)
    for first, last in itertools.pairwise(panels.tolist()):
        expected[first:last, first:last] = 1
    np.testing.assert_array_equal(seen, expected)


def test_small_batches_keep_every_tile_in_order() -> None:
    for sizes in ([10_000], [5] * 300, [700, 3, 3, 2100]):
        for tiles in plan_symmetric(packed_groups(sizes, "float64")):
            parts = batches(tiles, 16)
            np.testing.assert_array_equal(np.concatenate(parts), tiles)
            assert all(len(part) > 0 for part in parts)
            assert sum(count_pairs(part, 16) for part in parts) == count_pairs(tiles, 16)
    assert batches(np.empty((0, 5), np.int64), 16) == []


def test_batches_end_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads wait for the last batch of a round: no batch is more than a share of what is left."""
    monkeypatch.setattr(_plan, "LEAST_PAIRS_PER_TASK", 16**2)
    monkeypatch.setattr(_plan, "PAIRS_PER_TASK", 50 * 16**2)
    tiles = np.array([(16 * i, 16 * (i + 1), 0, 1, 0) for i in range(10_000)], np.int64)
    pairs = [count_pairs(part, 16) for part in batches(tiles, 16)]
    left = np.cumsum(pairs[::-1])[::-1]
    assert pairs[0] == 50 * 16**2
    assert pairs[-1] == 16**2
    assert all(n <= max(16**2, rest // _plan.TASKS_LEFT) for n, rest in zip(pairs, left.tolist(), strict=True))


@pytest.mark.parametrize(("n", "m"), [(1, 1), (30, 70), (4800, 40), (60, 40_000)])
def test_small_row_tiles_cover_all_rows_once(n: int, m: int) -> None:
    a, b = packed_groups([n], "float64"), packed_groups([m], "float64")
    tiles = row_tiles(a, b)
    assert tiles[0, 0] == 0
    assert tiles[-1, 1] == len(a.rows)
    np.testing.assert_array_equal(tiles[1:, 0], tiles[:-1, 1])
    assert (tiles[:, 0] < tiles[:, 1]).all()
    np.testing.assert_array_equal(tiles[:, 2:], np.tile([0, b.n_panels, CROSS], (len(tiles), 1)))


@pytest.mark.parametrize("sizes", [[5], [600], [2100], [3, 700, 1]])
def test_small_packing_keeps_every_row_once_and_centres_blocks(sizes: list[int]) -> None:
    x = cloud(sum(sizes), 3)
    packed = pack_rows(x, members_of(sizes), 2.0, None, "float64", Workers(1), "x")
    assert sorted(packed.rows[packed.rows >= 0].tolist()) == list(range(len(x)))
    panels = packed.panels.reshape(packed.n_panels, 3, packed.width)
    for panel in range(packed.n_panels):
        rows = packed.rows[panel * packed.width : (panel + 1) * packed.width]
        centre = packed.centres[packed.panel_block[panel]]
        real = rows >= 0
        np.testing.assert_allclose(panels[panel][:, real].T, 2.0 * (x[rows[real]] - centre), rtol=0.0, atol=1e-14)
    for block, (first, last) in enumerate(itertools.pairwise(packed.block_panels.tolist())):
        rows = packed.rows[first * packed.width : last * packed.width]
        np.testing.assert_allclose(packed.centres[block], x[rows[rows >= 0]].mean(axis=0), rtol=0.0, atol=1e-14)


def test_blocks_hold_neighbours() -> None:
    """Two clouds far apart end in different blocks, however their rows are shuffled."""
    x = np.concatenate([cloud(1024, 3), cloud(1024, 3) + 100.0])[np.random.default_rng(5).permutation(2048)]
    packed = pack_rows(x, [np.arange(2048)], 1.0, None, "float64", Workers(1), "x")
    assert len(packed.block_panels) > 2
    for first, last in itertools.pairwise(packed.block_panels.tolist()):
        block = x[packed.rows[first * packed.width : last * packed.width]]
        assert np.ptp(block[:, 0]) < 50.0


def test_progress_tells_all_pairs() -> None:
    x = cloud(2100, 2)
    told: list[int] = []
    log_sums_against(x[:900], x, bandwidths(1.0), jobs=2, progress=told.append)
    assert 900 * 2100 <= sum(told) <= 912 * 2112
    assert len(told) >= 4
    told.clear()
    log_sums_within(x, bandwidths(1.0), jobs=2, progress=told.append)
    assert 2100**2 / 2 <= sum(told) <= 0.7 * 2112**2


# --- the same bits ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_the_number_of_threads_does_not_change_a_bit(precision: str) -> None:
    rng = np.random.default_rng(13)
    x, y = cloud(2100, 63), cloud(700, 63, seed=1)
    y[::50] += 1e3
    weights, groups = rng.random(2100), rng.integers(0, 3, size=2100)
    weights[::9] = 0.0
    h = bandwidths(0.5, 1.2)

    def everything(jobs: int) -> list[Array]:
        return [
            log_sums_within(x, h, precision=precision, jobs=jobs),
            log_sums_within(x, h, weights, groups, precision=precision, jobs=jobs),
            log_sums_against(y, x, h, precision=precision, jobs=jobs),
            log_sums_against(y, x, h, weights, precision=precision, jobs=jobs),
        ]

    serial = everything(1)
    for jobs in (2, 3, 4):
        for mine, expected in zip(everything(jobs), serial, strict=True):
            np.testing.assert_array_equal(mine, expected)


def test_borrowed_workers_give_the_same_and_stay_open() -> None:
    x = cloud(700, 5)
    with Workers(2) as workers:
        first = log_sums_within(x, bandwidths(1.0), workers=workers)
        second = log_sums_within(x, bandwidths(1.0), workers=workers)
        against = log_sums_against(x, x, bandwidths(1.0), workers=workers)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first, log_sums_within(x, bandwidths(1.0), jobs=1))
    np.testing.assert_allclose(first, against, rtol=0.0, atol=1e-12)


# --- order and memory layout ------------------------------------------------------------------------------------------


def test_permutations_do_not_matter() -> None:
    rng = np.random.default_rng(14)
    x, y, h = cloud(1100, 63), cloud(50, 63, seed=1), bandwidths(0.8)
    weights = rng.random(1100)
    shuffle = rng.permutation(1100)
    np.testing.assert_allclose(
        log_sums_against(y, x[shuffle], h, weights[shuffle]), log_sums_against(y, x, h, weights), rtol=0.0, atol=1e-12
    )
    np.testing.assert_allclose(log_sums_within(x[shuffle], h), log_sums_within(x, h)[:, shuffle], rtol=0.0, atol=1e-12)
    back = rng.permutation(50)
    np.testing.assert_allclose(log_sums_against(y[back], x, h), log_sums_against(y, x, h)[:, back], atol=1e-12)


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_small_float32_input(precision: str) -> None:
    """float32 rows are exact numbers: sums in float64 of them are exact, too."""
    x, y = cloud(33, 10).astype(np.float32), cloud(9, 10, seed=1).astype(np.float32)
    h = bandwidths(0.6)
    assert_log_p(log_sums_within(x, h, precision=precision, jobs=1)[0], naive.log_density(x, x, 0.6), precision)
    assert_log_p(log_sums_against(y, x, h, precision=precision, jobs=1)[0], naive.log_density(y, x, 0.6), precision)


def test_small_input_is_left_alone() -> None:
    x, weights, groups, h = cloud(40, 6), np.arange(40.0), np.arange(40) % 3, bandwidths(0.5, 1.0)
    copies = [x.copy(), weights.copy(), groups.copy(), h.copy()]
    log_sums_within(x, h, weights, groups, jobs=1)
    log_sums_against(x, x + 50.0, h, weights, jobs=1)
    for mine, copy in zip((x, weights, groups, h), copies, strict=True):
        np.testing.assert_array_equal(mine, copy)


def test_small_far_from_the_origin() -> None:
    """Everything is taken relative to the mean: an offset of a million bandwidths costs only its own rounding."""
    x = np.round(cloud(40, 6) * 2.0**10) / 2.0**10  # so that adding 2^20 is exact
    expected = naive.log_density(x, x, 1.0)
    assert_log_p(log_sums_within(x + 2.0**20, bandwidths(1.0), jobs=1)[0], expected)
    assert_log_p(log_sums_against(x + 2.0**20, x + 2.0**20, bandwidths(1.0), jobs=1)[0], expected)


def test_small_empty_sides() -> None:
    x = cloud(3, 2)
    assert log_sums_against(x[:0], x, bandwidths(1.0, 2.0), jobs=1).shape == (2, 0)
    np.testing.assert_array_equal(log_sums_against(x, x[:0], bandwidths(1.0), jobs=1), np.full((1, 3), -np.inf))
    none = log_sums_against(x, x, bandwidths(1.0), np.zeros(3), jobs=1)
    np.testing.assert_array_equal(none, np.full((1, 3), -np.inf))


def assert_refused(bad: float) -> None:
    x, y = cloud(5, 2), cloud(5, 2)
    y[3, 1] = bad
    with pytest.raises(
        ValueError, match=r"y spreads over so many bandwidths that squared distances overflow in float64"
    ):
        log_sums_against(y, x, bandwidths(1.0), jobs=1)
    with pytest.raises(ValueError, match=r"x spreads over so many bandwidths"):
        log_sums_within(y, bandwidths(1.0), jobs=1)
    with pytest.raises(ValueError, match=r"the reference spreads over so many bandwidths"):
        log_sums_against(x, y, bandwidths(1.0), jobs=1)


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")  # of plain Python: compiled code is silent
@pytest.mark.parametrize("bad", [math.nan, 1e200])
def test_small_rows_that_are_not_finite_are_refused(bad: float) -> None:
    assert_refused(bad)


@pytest.mark.parametrize("bad", [math.inf, -math.inf])
def test_infinite_rows_are_refused(bad: float) -> None:
    assert_refused(bad)


# --- sums by part -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "precision"), [(1, "float64"), (60, "float64"), (60, "float32"), (2300, "float64")])
def test_small_sums_by_part(n: int, precision: str) -> None:
    x, h = cloud(n, 4), bandwidths(0.4, 1.3)
    parts = np.unique(np.arange(n) ** 2 % 7, return_inverse=True)[1]
    found = log_sums_by_part(x, h, parts, precision=precision, jobs=1)
    assert found.shape == (parts.max() + 1, 2, n)
    for part, of_part in enumerate(found):
        for row, bandwidth in zip(of_part, h, strict=True):
            np.testing.assert_allclose(
                row, log_density_in_numpy(x, x[parts == part], bandwidth), rtol=0.0, atol=TOLERANCE[precision]
            )


def log_density_in_numpy(y: Array, x: Array, h: float) -> Array:
    found: Array = logsumexp(-0.5 * cdist(y, x, "sqeuclidean") / h**2, axis=1)
    return found


TOLERANCE = {"float64": 1e-11, "float32": 1e-5}


def test_small_sums_by_part_far_apart() -> None:
    """Sums over a part that is a thousand bandwidths away stay finite, and the parts add up to the whole."""
    x = cloud(90, 3)
    x[::2] += 1000.0
    parts = np.arange(90) % 2
    found = log_sums_by_part(x, bandwidths(1.0), parts, jobs=1)[:, 0]
    assert np.isfinite(found).all()
    assert found[0, 1::2].max() < -1e5
    np.testing.assert_allclose(found[0], log_density_in_numpy(x, x[::2], 1.0), rtol=1e-12)
    np.testing.assert_allclose(logsumexp(found, axis=0), log_sums_within(x, bandwidths(1.0), jobs=1)[0], atol=1e-12)


def test_sums_by_part_on_any_number_of_threads() -> None:
    x, parts = cloud(3000, 5), np.arange(3000) % 11
    serial = log_sums_by_part(x, bandwidths(0.7), parts, jobs=1)
    np.testing.assert_array_equal(log_sums_by_part(x, bandwidths(0.7), parts, jobs=3), serial)


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")  # of plain Python: compiled code is silent
@pytest.mark.parametrize("far", [1e6, 1e12, 1e100])
@pytest.mark.parametrize("n", [3, 40, 700])
def test_small_outliers_do_not_blur_the_others(far: float, n: int) -> None:
    """One environment very far away shares a block with near ones: their distances keep all digits."""
    x = cloud(n, 3)
    x[n // 2] = far
    found = log_sums_within(x, bandwidths(0.5), jobs=1)[0]
    np.testing.assert_allclose(found, log_density_in_numpy(x, x, 0.5), rtol=0.0, atol=1e-11)
