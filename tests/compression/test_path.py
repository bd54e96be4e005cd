"""What the beginnings of an order hold, and the sizes that are found along it, by brute force."""

from __future__ import annotations

import math
from typing import Any

import naive
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_sets import KINDS, H, compressor, make

from quests_zenn._core.parallel import Workers
from quests_zenn.compression import ORDERED, DatasetCompressor, Size, _path
from quests_zenn.compression._path import find_on_path, prefix_metrics, rows_of
from quests_zenn.entropy import diversity, entropy, get_all_metrics, overlap

Array = npt.NDArray[np.float64]

#: What is summed in single precision.
DIGITS = 2e-6


def options_of(method: str, seed: int = 99) -> dict[str, Any]:
    return {"reference": np.concatenate(make("random", 3, seed))} if method == "msc_conditional" else {}


def rows(structures: list[Array], indices: Any) -> Array:
    return np.concatenate([structures[s] for s in indices])


# --- H and D of prefixes ----------------------------------------------------------------------------------------------


def test_rows_of_structures() -> None:
    offsets = np.array([0, 2, 3, 7])
    assert rows_of(offsets, np.array([2, 0])).tolist() == [3, 4, 5, 6, 0, 1]
    assert rows_of(offsets, np.array([], np.int64)).tolist() == []
    assert rows_of(offsets, np.arange(3)).tolist() == list(range(7))


# without outliers: beyond 1e5 bandwidths, the engine of sums by part loses digits of a part of which half are
@given(
    kind=st.sampled_from([kind for kind in KINDS if kind != "outliers"]), n=st.integers(1, 9),
    labels=st.integers(1, 3), seed=st.integers(0, 1000),
)  # fmt: skip
def test_prefixes_follow_the_formula(kind: str, n: int, labels: int, seed: int) -> None:
    structures = make(kind, n, seed)
    x, ends = np.concatenate(structures), np.cumsum([len(s) for s in structures])
    marks = np.random.default_rng(seed).integers(labels, size=len(x))
    with Workers(1) as workers:
        found = prefix_metrics(x, marks if labels > 1 else None, H, ends, workers)
    for number, end in enumerate(ends.tolist()):
        dh = naive.labelled_delta_entropy(x[:end], marks[:end], x[:end], marks[:end], H)
        assert found[0][number] == pytest.approx(dh.mean() + math.log(end), abs=DIGITS)
        assert found[1][number] == pytest.approx(naive.log_sum_exp(dh.tolist()), abs=DIGITS)


def test_curve_and_summary_are_what_the_doors_of_entropy_say() -> None:
    structures = make("clustered", 60, seed=1, largest=30)
    labels = np.arange(sum(len(x) for x in structures)) % 2
    for marks in (None, labels):
        data = compressor(structures, labels=marks)
        chosen = data.get_indices("msc", 0.5)
        curve = data.get_curve(chosen)
        assert curve.sizes[0] == 1
        assert curve.sizes[-1] == 30
        assert 15 < len(curve.sizes) <= 30
        whole_d = diversity(data.x, H, labels=marks)
        for place in (0, 5, len(curve.sizes) - 1):
            indices = chosen[: curve.sizes[place]]
            mine = rows_of(data.frame_offsets, indices)
            summary = data.get_summary(indices)
            h = entropy(data.x[mine], H, labels=None if marks is None else marks[mine])
            d = diversity(data.x[mine], H, labels=None if marks is None else marks[mine])
            assert curve.n_environments[place] == summary["compressed_envs"] == len(mine)
            for name, value in (("entropy", h), ("diversity", d)):
                assert getattr(curve, name)[place] == pytest.approx(value, abs=DIGITS)
                assert summary[name] == pytest.approx(value, abs=DIGITS)
            known = sum(
                overlap(data.x[labels == code] if marks is not None else data.x,
                        data.x[mine][marks[mine] == code] if marks is not None else data.x[mine], H)
                * (np.mean(labels == code) if marks is not None else 1.0)
                for code in ((0, 1) if marks is not None else (0,))
            )  # fmt: skip
            assert curve.overlap[place] == summary["overlap"] == pytest.approx(known, abs=1e-12)
            assert summary["loss"] == pytest.approx(whole_d - d, abs=2 * DIGITS)
            assert summary["loss_error"] == 0.0
            assert summary["original_size"] == 60
            assert summary["original_envs"] == len(data.x)
            assert summary["compressed_size"] == curve.sizes[place]


def test_the_summary_of_everything() -> None:
    data = compressor(make("random", 20))
    summary = data.get_summary()
    h, d, _ = get_all_metrics(data.x, H)
    assert summary["entropy"] == pytest.approx(h, abs=DIGITS)
    assert summary["diversity"] == pytest.approx(d, abs=DIGITS)
    assert summary["overlap"] == 1.0
    assert summary["loss"] == pytest.approx(0.0, abs=DIGITS)
    assert summary == data.get_summary(np.arange(20))
    backwards = data.get_summary(np.arange(20)[::-1])
    assert backwards == pytest.approx(summary, abs=DIGITS)
    everything_but_one_copy = compressor([*make("random", 20), make("random", 20)[3]]).get_summary(np.arange(20))
    assert everything_but_one_copy["overlap"] == 1.0
    assert everything_but_one_copy["loss"] < 0.0  # a copy takes from what those near it are worth


def test_a_reference_counts_in_the_overlap_alone() -> None:
    structures = make("random", 20, seed=2)
    data = compressor(structures)
    known = rows(structures, [3, 4, 5])
    alone, together = data.get_summary([0, 1]), data.get_summary([0, 1], reference=known)
    assert alone["overlap"] < together["overlap"]
    assert together["overlap"] == pytest.approx(
        naive.covered_share(data.x, np.zeros(len(data.x)), rows(structures, [0, 1, 3, 4, 5]),
                            np.zeros(len(rows(structures, [0, 1, 3, 4, 5]))), H), abs=1e-12
    )  # fmt: skip
    alone.pop("overlap"), together.pop("overlap")
    assert alone == together
    far = data.get_summary([0, 1], reference=np.full((5, 3), 1e6))
    assert far["overlap"] == data.get_summary([0, 1])["overlap"]
    assert data.get_curve([0, 1], reference=data.x).overlap.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("eps", [-1e5, -1.0, 1e-5, 0.5, 100.0, 1e5])
def test_eps_may_be_any_number(eps: float) -> None:
    structures = make("outliers", 12, seed=3)
    data = compressor(structures)
    found = data.get_curve(np.arange(12), range(1, 13), eps=eps).overlap
    marks = np.zeros(len(data.x))
    for n in range(1, 13):
        known = rows(structures, range(n))
        assert found[n - 1] == pytest.approx(
            naive.covered_share(data.x, marks, known, np.zeros(len(known)), H, eps), abs=1e-12
        )


def test_sizes_of_a_curve() -> None:
    data = compressor(make("random", 40, seed=4))
    chosen = data.get_indices("fps", 40)
    some = data.get_curve(chosen, [7, 3, 3, 40])
    assert some.sizes.tolist() == [3, 7, 40]
    every = data.get_curve(chosen, range(1, 41))
    for name in ("n_environments", "overlap"):
        np.testing.assert_array_equal(getattr(some, name), getattr(every, name)[some.sizes - 1])
    for name in ("entropy", "diversity"):
        np.testing.assert_allclose(getattr(some, name), getattr(every, name)[some.sizes - 1], atol=DIGITS)
    assert (np.diff(every.overlap) >= 0.0).all()
    assert data.get_curve([5]).sizes.tolist() == [1]
    pairs: list[int] = []
    data.get_curve(chosen, progress=pairs.append)
    assert sum(pairs) > 0


# --- the grid ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 31, 32, 33, 64, 500])
def test_the_grid_ends_at_single_prefixes(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A monotone quantity is found exactly, however long the path is."""
    monkeypatch.setattr(_path, "_SUMS", 0)
    x = np.arange(n)[:, None] * 50.0  # strangers: D = H = ln of their number
    for goal in {1, 2, n // 3 + 1, n}:

        def wanted(h: Array, d: Array, goal: int = goal) -> tuple[int, int, int]:
            found = int(np.argmax(d >= math.log(goal) - 1e-9))
            return found, max(found - 1, 0), found

        with Workers(1) as workers:
            assert find_on_path(x, None, 1.0, np.arange(1, n + 1), wanted, workers) == min(goal, n) - 1


# --- auto -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ORDERED)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "equal"])
def test_auto_is_the_largest_h_d_of_all_prefixes(method: str, kind: str) -> None:
    structures = make(kind, 30, seed=5)
    data = compressor(structures)
    order = data.get_indices(method, 1.0, **options_of(method))
    best = [entropy(x, H) * diversity(x, H) for x in (rows(structures, order[:n]) for n in range(1, 31))]
    found = data.select(method, "auto", **options_of(method))
    np.testing.assert_array_equal(found.indices, order[: len(found)])
    assert best[len(found) - 1] == pytest.approx(max(best), abs=10 * DIGITS)
    assert found.stop == "the largest H D"
    assert found.size == Size("auto") or math.isnan(found.size.value)


def test_auto_of_structures_that_are_all_equal() -> None:
    found = compressor(make("equal", 30)).select("msc", "auto")
    assert 1 <= len(found) <= 30


def test_auto_where_a_finer_grid_is_needed() -> None:
    """New structures first, copies after them: the largest H D is where the last new one is in."""
    new, copies = make("strangers", 40, seed=6), 70
    data = compressor([*new, *([new[0]] * copies)])
    found = data.select("msc", "auto")
    assert sorted(found.indices.tolist()) == list(range(40))


# --- loss -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ORDERED)
@pytest.mark.parametrize("kind", ["random", "clustered", "duplicates", "outliers", "equal"])
@pytest.mark.parametrize("n", [20, 90])
def test_a_loss_is_not_exceeded_and_one_structure_less_would(method: str, kind: str, n: int) -> None:
    structures = make(kind, n, seed=7)
    data = compressor(structures)
    order = data.get_indices(method, 1.0, **options_of(method))
    whole = diversity(data.x, H)
    for target in (1e-6, 0.01, 0.2, 1.0, 100.0):
        found = data.select(method, Size("max_loss", target), **options_of(method))
        m = len(found)
        np.testing.assert_array_equal(found.indices, order[:m])
        assert whole - diversity(rows(structures, order[:m]), H) <= target + 5 * DIGITS
        assert m == 1 or whole - diversity(rows(structures, order[: m - 1]), H) > target - 5 * DIGITS
        assert found.stop == f"at most {target:g} nats of D are lost"
        for shorter in range(1, m):  # all prefixes are looked at: there is no shorter one
            assert whole - diversity(rows(structures, order[:shorter]), H) > target - 5 * DIGITS


def test_targets_and_pins() -> None:
    structures = make("copies", 30, seed=8)
    data = compressor(structures)
    keep = [7, 3, 11]
    for size in ("auto", Size("max_loss", 100.0), Size("overlap", 1e-9), Size("overlap", 0.01)):
        found = data.select("msc", size, keep=keep)
        assert found.indices[:3].tolist() == keep
        assert found.n_kept == 3
    assert len(data.select("msc", Size("max_loss", 100.0), keep=keep)) == 3
    everything = data.select("msc", Size("max_loss", 100.0), keep=range(30))
    assert len(everything) == 30
    assert len(data.select("msc", "auto", keep=range(30))) == 30


# --- overlap ----------------------------------------------------------------------------------------------------------


def shortest_cover(data: DatasetCompressor, order: Any, known: Array | None, share: float, eps: float) -> int:
    """Structures of the order that it takes, by looking at every beginning."""
    marks = np.zeros(len(data.x))
    for n in range(len(order) + 1):
        mine = data.x[rows_of(data.frame_offsets, np.asarray(order[:n]))]
        given = mine if known is None else np.concatenate([known, mine])
        if len(given) and naive.covered_share(data.x, marks, given, np.zeros(len(given)), H, eps) >= share - 1e-12:
            return n
    return len(order)


@given(
    kind=st.sampled_from(KINDS),
    method=st.sampled_from(ORDERED),
    n=st.integers(1, 14),
    share=st.sampled_from([0.01, 0.5, 0.8, 0.95, 1.0]),
    eps=st.sampled_from([1e-5, 0.5, -0.2]),
    seed=st.integers(0, 1000),
)
def test_the_shortest_beginning_that_covers(
    kind: str, method: str, n: int, share: float, eps: float, seed: int
) -> None:
    data = compressor(make(kind, n, seed))
    extra = options_of(method, seed)
    order = data.get_indices(method, 1.0, **extra)
    found = data.select(method, Size("overlap", share), eps=eps, **extra)
    expected = shortest_cover(data, order, extra.get("reference"), share, eps)
    np.testing.assert_array_equal(found.indices, order[:expected])
    assert found.overlap is not None
    assert found.overlap >= share - 1e-12 or len(found) == n
    assert f"{found.overlap:.4%} of the environments are covered" in found.stop
    if expected:
        curve = data.get_curve(order, [expected], reference=extra.get("reference"), eps=eps)
        assert found.overlap == pytest.approx(curve.overlap[0], abs=1e-15)


@pytest.mark.parametrize("share", [0.3, 0.9, 0.999, 1.0])
@pytest.mark.parametrize("method", ["msc", "random"])
def test_covers_that_take_several_looks(method: str, share: float) -> None:
    data = compressor(make("atoms", 300, seed=9))
    order = data.get_indices(method, 1.0)
    covered = data.get_curve(order, range(1, 301)).overlap
    found = data.select(method, Size("overlap", share))
    assert len(found) == 1 + int(np.argmax(covered >= share - 1e-12))
    np.testing.assert_array_equal(found.indices, order[: len(found)])


def test_a_reference_that_covers_everything() -> None:
    structures = make("random", 12, seed=10)
    data = compressor(structures)
    known = np.concatenate(structures)[::-1]
    for share in (1e-9, 0.5, 1.0):
        found = data.select("msc_conditional", Size("overlap", share), reference=known)
        assert found.indices.shape == found.scores.shape == (0,)
        assert found.overlap == 1.0
        assert found.stop == "the reference covers that already: 100.0000% of the environments are covered"
    # by numbers, it still selects, and nothing is new
    found = data.select("msc_conditional", 5, reference=known)
    assert len(found) == 5
    assert np.isfinite(found.scores).all()
    # and a reference of other elements covers nothing
    labelled = compressor(structures, labels=["Cu"] * len(data.x))
    found = labelled.select(
        "msc_conditional", Size("overlap", 1.0), reference=known, reference_labels=["Ag"] * len(known)
    )
    plain = data.select("msc", Size("overlap", 1.0))
    np.testing.assert_array_equal(found.indices, plain.indices)
    np.testing.assert_array_equal(found.scores, plain.scores)


def test_pins_that_cover_enough() -> None:
    structures = make("copies", 10, seed=11)
    data = compressor([*structures, *structures])
    found = data.select("msc", Size("overlap", 1.0), keep=range(10))
    assert found.indices.tolist() == list(range(10))
    assert found.stop == "100.0000% of the environments are covered by the structures that are kept alone"
    found = data.select("msc", Size("overlap", 1.0))
    assert found.stop == "100.0000% of the environments are covered"


def test_a_tiny_share_takes_one_structure() -> None:
    data = compressor(make("random", 10))
    found = data.select("msc", Size("overlap", 1e-12))
    assert len(found) == 1
    assert found.stop.endswith("% of the environments are covered")


def test_a_cover_that_cannot_be_reached() -> None:
    """With eps below 0, one copy is not enough."""
    found = compressor(make("strangers", 10)).select("msc", Size("overlap", 0.5), eps=-0.1)
    assert len(found) == 10
    assert found.overlap == 0.0


def test_parts_are_few_enough_for_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same prefix is found whatever the grid, where H D has one top."""
    structures = make("strangers", 25, seed=12)
    data = compressor(structures + structures)
    found = data.select("msc", "auto")
    monkeypatch.setattr(_path, "_PARTS", 5)
    monkeypatch.setattr(_path, "_SUMS", 0)
    assert len(data.select("msc", "auto")) == len(found) == 25  # a set taken twice holds no more than once
