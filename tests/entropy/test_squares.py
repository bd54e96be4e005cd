"""Sums in parts: whoever computes them, in whatever pieces, the bits are the same; and nothing is computed twice."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import naive
import numpy as np
import numpy.typing as npt
import pytest
from elsewhere import Elsewhere, Memory

from quests_zenn._core import rows as rows_module
from quests_zenn._core.parallel import Workers
from quests_zenn._core.rows import MemoryRows, Rows, SomeRows, piece_edges, piece_rows, read_ahead
from quests_zenn.compression import DatasetCompressor
from quests_zenn.entropy import _neighbours, _plan, _squares, delta_entropy, estimate_entropy, get_all_metrics
from quests_zenn.entropy._levels import SampledSums
from quests_zenn.entropy._packing import Packed, pack_rows

Matrix = npt.NDArray[np.float64]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets of a few thousand rows are cut as those of millions are."""
    monkeypatch.setattr(_plan, "ROWS_OF_RUN", 300)
    monkeypatch.setattr(_squares, "PAIRS_PER_CALL", 100_000)
    monkeypatch.setattr(_squares, "LEAST_PAIRS_ELSEWHERE", 0)
    monkeypatch.setattr(_neighbours, "LEAST_PAIRS_ELSEWHERE", 0)


def two_clouds(n: int, seed: int = 0) -> Matrix:
    rng = np.random.default_rng(seed)
    x = rng.normal(scale=0.02, size=(n, 9))
    x[: n // 3] += 0.08
    return x


def packed_of(sizes: list[int]) -> Packed:
    members = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])
    return pack_rows(two_clouds(sum(sizes)), members, 1.0, None, "float64", Workers(1), "x")


# --- the plan ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [[5], [2000], [5000], [700, 5000, 3], [2000, 2000]])
def test_squares_cover_each_pair_of_blocks_of_a_group_once(sizes: list[int]) -> None:
    packed = packed_of(sizes)
    n = len(packed.block_panels) - 1
    seen = np.zeros((n, n), np.int64)
    for squares in _plan.plan_squares(packed):
        busy: set[int] = set()
        for rows, columns in squares:
            seen[slice(*rows), slice(*columns)] += 1
            touched = {*range(*rows), *range(*columns)}
            assert not touched & busy
            busy |= touched
    expected = np.zeros_like(seen)
    for first, last in itertools.pairwise(packed.group_blocks.tolist()):
        expected[first:last, first:last] = 1
    np.testing.assert_array_equal(np.maximum(seen, seen.T), expected)
    np.testing.assert_array_equal(seen + seen.T - np.diag(np.diag(seen)), expected)


@pytest.mark.parametrize("sizes", [[2000], [700, 5000, 3]])
def test_steps_cover_each_pair_of_panels_once(sizes: list[int]) -> None:
    packed = packed_of(sizes)
    seen = np.zeros((packed.n_panels, packed.n_panels), np.int64)
    for tiles in _plan.plan_symmetric(packed):
        busy: set[int] = set()
        for row_0, row_1, panel_0, panel_1, kind in tiles.tolist():
            rows, columns = range(row_0 // packed.width, row_1 // packed.width), range(panel_0, panel_1)
            seen[rows[0] : rows[-1] + 1, panel_0:panel_1] += 1
            if kind == _plan.MIRROR:
                seen[panel_0:panel_1, rows[0] : rows[-1] + 1] += 1
            assert not {*rows, *columns} & busy
            busy |= {*rows, *columns}
    edges = packed.block_panels[packed.group_blocks].tolist()
    for first, last in itertools.pairwise(edges):
        assert (seen[first:last, first:last] == 1).all()
    assert seen.sum() == sum((last - first) ** 2 for first, last in itertools.pairwise(edges))


def test_pairs_of_squares_are_those_of_their_tiles() -> None:
    packed = packed_of([700, 5000, 3])
    for squares in _plan.plan_squares(packed):
        for square in squares:
            told = sum(
                _plan.count_pairs(tiles, packed.width)
                for tiles in _plan.steps(packed.block_panels, packed.width, [square])
            )
            assert _squares._pairs(packed, square) == told


def test_runs_are_worth_sending_and_not_too_many() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_plan, "ROWS_OF_RUN", 16_384)
        sizes = (1, 16_384, 16_385, 10**5, 10**6, 10**7, 10**8, 10**9)
        assert [_plan.count_runs(n, 1024) for n in sizes] == [1, 1, 2, 8, 64, 256, 1024, 1024]
        assert _plan.count_runs(10**6, 16) == 16


# --- the same bits ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("labelled", [False, True])
def test_all_pairs_are_the_same_bits_here_and_elsewhere(precision: str, labelled: bool) -> None:
    x, h = two_clouds(3000), [0.03, 0.01]
    labels = np.arange(3000) % 7 // 3 if labelled else None
    told: list[int] = []
    found = []
    for workers in (Workers(1), Workers(2), Workers(2, Elsewhere())):
        with workers:
            found.append(
                get_all_metrics(x, h, labels=labels, precision=precision, workers=workers, progress=told.append)
            )
    assert sum(told) % 3 == 0  # all three told the same amount of work
    for other in found[1:]:
        for mine, theirs in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(mine, theirs)
    group = np.zeros(3000) if labels is None else labels
    for i in (0, 1234, 2999):
        own = x[group == group[i]]
        expected = -naive.log_density(x[i : i + 1], own, 0.03)[0]
        assert found[0][2][0, i] == pytest.approx(expected, abs=1e-9 if precision == "float64" else 1e-4)


def test_sums_over_another_set_are_the_same_bits_here_and_elsewhere() -> None:
    x, y = two_clouds(3000), two_clouds(700, 1)
    y[3] += 50.0  # far from everything
    found = []
    for workers in (Workers(1), Workers(2), Workers(1, Elsewhere())):
        with workers:
            found.append(delta_entropy(y, x, [0.03, 0.01], workers=workers))
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


@pytest.mark.parametrize("same", [False, True])
def test_neighbours_are_the_same_here_and_elsewhere(same: bool) -> None:
    x = two_clouds(2500)
    y = x if same else two_clouds(600, 1)
    remote = Elsewhere()
    found = []
    for workers in (Workers(2), Workers(1, remote)):
        with workers:
            found.append(_neighbours.nearest(y, x, 7, same=same, precision="float32", workers=workers))
    assert remote.ran > 1
    for mine, theirs in zip(*found, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    apart = np.linalg.norm(y[5] - x, axis=1)
    apart[5] = np.inf if same else apart[5]
    np.testing.assert_allclose(found[0][1][5], np.sort(apart)[:7], rtol=1e-12)


class Unread:
    """A matrix that is not in memory: it hands out copies, and notes down how much at a time."""

    def __init__(self, x: Matrix) -> None:
        self._x, self.most, self.token = x, 0, "unread"
        self.shape, self.dtype = x.shape, x.dtype

    def __len__(self) -> int:
        return len(self._x)

    def read(self, first: int, last: int) -> Matrix:
        self.most = max(self.most, last - first)
        return self._x[first:last].copy()

    def take(self, rows: npt.NDArray[np.integer]) -> Matrix:
        self.most = max(self.most, len(rows))
        return self._x[rows]

    def piece(self, first: int, last: int) -> Matrix:
        return self.read(first, last)


@pytest.mark.parametrize("labelled", [False, True])
def test_estimates_do_not_depend_on_where_rows_are_or_who_sums(labelled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module, "PIECE_BYTES", 2**16)  # pieces of 1,024 rows
    x = two_clouds(20_000)
    labels = np.arange(20_000) % 2 if labelled else None
    unread = Unread(x)
    found = set()
    for source in (x, MemoryRows(x), unread):
        for workers in (Workers(1), Workers(2), Workers(1, Elsewhere())):
            with workers:
                told = estimate_entropy(
                    source, 0.02, "sampled", 0.05, labels=labels, random_state=4, workers=workers
                )  # fmt: skip
            found.add((told.value, told.standard_error, told.diversity, told.diversity_error))
    assert len(found) == 1
    assert 0 < unread.most < 20_000
    exact = get_all_metrics(x, 0.02, labels=labels)[0]
    value, error, _, _ = found.pop()
    assert abs(value - exact) < 4.0 * error + 1e-6


def test_chunks_of_a_selection_may_be_chosen_from_elsewhere() -> None:
    data = DatasetCompressor.from_environments(two_clouds(2000), np.arange(0, 2001, 20), 0.02, jobs=1)
    told: list[int] = []
    here = data.select("msc", 12, chunk=30, progress=told.append)
    amount = sum(told)
    remote = Elsewhere()
    there = data.select("msc", 12, chunk=30, remote=remote, progress=told.append)
    assert remote.ran == 4
    np.testing.assert_array_equal(here.indices, there.indices)
    np.testing.assert_array_equal(here.scores, there.scores)
    assert sum(told) == 2 * amount


# --- nothing is computed twice ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("here", [False, True])
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(here: bool) -> None:
    """Begun elsewhere; ended elsewhere, or in threads: the plan is the same."""
    x, keeper = two_clouds(8000), Memory()
    whole = Elsewhere()
    with Workers(1, whole) as workers:
        expected = get_all_metrics(x, 0.02, workers=workers)[2]
    told: list[int] = []
    with pytest.raises(KeyboardInterrupt), Workers(1, Elsewhere(last=20), keeper) as workers:
        get_all_metrics(x, 0.02, workers=workers, progress=told.append)
    left = Elsewhere()
    with Workers(2, None if here else left, keeper) as workers:
        found = get_all_metrics(x, 0.02, workers=workers, progress=told.append)[2]
    np.testing.assert_array_equal(found, expected)
    if not here:
        assert left.ran == whole.ran - 20
    # and once more: all is done
    nothing = Elsewhere()
    with Workers(1, nothing, keeper) as workers:
        np.testing.assert_array_equal(get_all_metrics(x, 0.02, workers=workers)[2], expected)
    assert nothing.ran == 0


class Stop(Exception):
    pass


def test_threads_keep_their_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    x, keeper = two_clouds(8000), Memory()
    expected = get_all_metrics(x, 0.02, jobs=1)[2]
    rounds: list[Any] = []
    sweep = _squares.run_tiles

    def counted(*args: Any, **kwargs: Any) -> None:
        if len(rounds) == 5:
            raise Stop
        rounds.append(args)
        sweep(*args, **kwargs)

    monkeypatch.setattr(_squares, "run_tiles", counted)
    with pytest.raises(Stop), Workers(2, keeper=keeper) as workers:
        get_all_metrics(x, 0.02, workers=workers)
    before, rounds = len(rounds), []

    def noted(*args: Any, **kwargs: Any) -> None:
        rounds.append(args)
        sweep(*args, **kwargs)

    monkeypatch.setattr(_squares, "run_tiles", noted)
    with Workers(2, keeper=keeper) as workers:
        np.testing.assert_array_equal(get_all_metrics(x, 0.02, workers=workers)[2], expected)
    packed = packed_of([8000])
    assert before + len(rounds) == len(list(_plan.plan_squares(packed)))


@pytest.mark.parametrize("change", ["x", "h", "labels", "precision", "shape of tiles"])
def test_another_input_begins_anew(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, keeper = two_clouds(8000), Memory()
    given: dict[str, Any] = {"h": 0.02, "labels": np.arange(8000) % 2, "precision": "float32"}
    with Workers(2, keeper=keeper) as workers:
        get_all_metrics(x, workers=workers, **given)
        if change == "x":
            x = x.copy()
            x[17, 3] = np.nextafter(x[17, 3], 1.0)
        elif change == "shape of tiles":  # of another kind of processor: its sums have other last bits
            monkeypatch.setattr(_squares, "VECTORS", 7)
        else:
            given[change] = {"h": 0.021, "labels": np.arange(8000) % 3, "precision": "float64"}[change]
        found = get_all_metrics(x, workers=workers, **given)[2]
    assert len(keeper) == 2
    np.testing.assert_array_equal(found, get_all_metrics(x, **given)[2])


def test_what_does_not_fit_is_not_taken_in() -> None:
    x, keeper = two_clouds(8000), Memory()
    with Workers(1, keeper=keeper) as workers:
        expected = get_all_metrics(x, 0.02, workers=workers)[2]
        (key,) = keeper
        keeper[key] = {"sums": np.ones((1, 7)), "done": np.array(3)}
        np.testing.assert_array_equal(get_all_metrics(x, 0.02, workers=workers)[2], expected)
        keeper[key] = {"other": np.ones(2)}
        np.testing.assert_array_equal(get_all_metrics(x, 0.02, workers=workers)[2], expected)


@pytest.mark.parametrize("here", [False, True])
def test_sums_over_another_set_go_on(here: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_squares, "LEAST_PAIRS_KEPT", 0)
    x, y, keeper = two_clouds(3000), two_clouds(2000, 1), Memory()
    expected = delta_entropy(y, x, [0.03, 0.01], jobs=1)
    whole = Elsewhere()
    told: list[int] = []
    with Workers(1, whole) as workers:
        delta_entropy(y, x, [0.03, 0.01], workers=workers, progress=told.append)
    amount = sum(told)
    told.clear()
    with pytest.raises(KeyboardInterrupt), Workers(1, Elsewhere(last=5), keeper) as workers:
        delta_entropy(y, x, [0.03, 0.01], workers=workers)
    left = Elsewhere()
    with Workers(2, None if here else left, keeper) as workers:
        found = delta_entropy(y, x, [0.03, 0.01], workers=workers, progress=told.append)
    np.testing.assert_array_equal(found, expected)
    assert sum(told) == amount
    if not here:
        assert left.ran == whole.ran - 5
    with Workers(2, keeper=keeper) as workers:  # another reference is another sum
        np.testing.assert_array_equal(
            delta_entropy(y, x[:-1], [0.03, 0.01], workers=workers), delta_entropy(y, x[:-1], [0.03, 0.01], jobs=1)
        )


def test_selections_of_one_matrix_are_told_apart() -> None:
    x = np.tile(two_clouds(1), (40, 1))  # all alike: their sums tell nothing of which they are
    one, other = (SomeRows(MemoryRows(x), np.arange(n)) for n in (20, 30))
    assert one.token != other.token
    assert one.token == SomeRows(MemoryRows(x), np.arange(20)).token
    assert MemoryRows(x).token not in (one.token, other.token)


def test_samples_go_on_after_the_last_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module, "PIECE_BYTES", 2**16)
    x, keeper = two_clouds(20_000), Memory()

    def estimate(remote: Elsewhere | None, keeper: Memory | None) -> float:
        with Workers(1, remote, keeper) as workers:
            return float(estimate_entropy(x, 0.02, "sampled", 0.05, random_state=4, workers=workers))

    expected = estimate(None, None)
    whole = Elsewhere()
    assert estimate(whole, None) == expected
    with pytest.raises(KeyboardInterrupt):
        estimate(Elsewhere(last=whole.ran - 3), keeper)
    left = Elsewhere()
    assert estimate(left, keeper) == expected
    assert left.ran < whole.ran
    # what was kept is of this sum alone
    with Workers(1, keeper=keeper) as workers:
        other = estimate_entropy(x, 0.02, "sampled", 0.05, random_state=5, workers=workers)
    assert other.value == estimate_entropy(x, 0.02, "sampled", 0.05, random_state=5).value


def test_what_is_kept_of_samples_is_of_those_who_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module, "PIECE_BYTES", 2**16)
    x, h = MemoryRows(two_clouds(5000)), np.array([0.02])
    with Workers(1, keeper=Memory()) as workers:
        sums = SampledSums(x, h, np.arange(5000), "float64", workers, "a run")
        first, second = sums(np.arange(10)), sums(np.arange(10, 20))
    with Workers(1) as workers:
        alone = SampledSums(x, h, np.arange(5000), "float64", workers)
        np.testing.assert_array_equal(first, alone(np.arange(10)))
        np.testing.assert_array_equal(second, alone(np.arange(10, 20)))


# --- matrices in pieces -----------------------------------------------------------------------------------------------


def test_pieces_cover_all_rows_and_depend_on_the_width_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert piece_rows(63) == 262_144
    for n in (1, 262_144, 262_145, 1_000_000):
        edges = piece_edges(n, 63)
        assert edges[0][0] == 0
        assert edges[-1][1] == n
        assert all(last == first for (_, last), (first, _) in itertools.pairwise(edges))
        assert {last - first for first, last in edges[:-1]} <= {262_144}


class Opened(Unread):
    """A matrix that other processes open by themselves."""

    def piece(self, first: int, last: int) -> Any:
        return SimpleNamespace(source=lambda: self, load=lambda: self.read(first, last))


def test_some_rows_of_a_matrix_are_a_matrix() -> None:
    x = two_clouds(50)
    some = SomeRows(MemoryRows(x), np.array([3, 7, 8, 40]))
    assert isinstance(some, Rows)
    assert some.shape == (4, 9)
    np.testing.assert_array_equal(some.read(1, 3), x[7:9])
    np.testing.assert_array_equal(some.take(np.array([3, 0])), x[[40, 3]])
    np.testing.assert_array_equal(some.piece(0, 4), x[[3, 7, 8, 40]])
    # of one that others open, they take theirs
    taken = SomeRows(Opened(x), np.array([3, 7, 8, 40])).piece(1, 3)
    np.testing.assert_array_equal(taken.load(), x[[7, 8]])


def test_reading_ahead_hands_out_pieces_in_order_and_errors_in_their_place() -> None:
    class Torn(Unread):
        def read(self, first: int, last: int) -> Matrix:
            if first == 20:
                raise OSError("torn")
            return super().read(first, last)

    x = two_clouds(40)
    pieces = read_ahead(Torn(x), [(0, 10), (10, 20), (20, 30), (30, 40)])
    np.testing.assert_array_equal(np.concatenate([next(pieces), next(pieces)]), x[:20])
    with pytest.raises(OSError, match="torn"):
        next(pieces)
