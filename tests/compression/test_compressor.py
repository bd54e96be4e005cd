"""The door: data sets in, structures out; what it promises, and what it refuses."""

from __future__ import annotations

import math
import warnings
from types import SimpleNamespace
from typing import Any

import naive
import numpy as np
import numpy.typing as npt
import pytest
import structures as atoms
from ase.build import bulk
from small_sets import KINDS, H, compressor, make

import quests_zenn.compression
from quests_zenn._core.checks import DataError
from quests_zenn.compression import METHODS, ORDERED, DatasetCompressor, Size
from quests_zenn.descriptors import describe, get_descriptors
from quests_zenn.entropy import entropy

Array = npt.NDArray[np.float64]


def options_of(method: str) -> dict[str, Any]:
    return {"reference": np.concatenate(make("random", 3, seed=99))} if method == "msc_conditional" else {}


def frames() -> list[Any]:
    """Silver and copper, rattled more and more."""
    cell = np.diag([7.0, 7.5, 8.0])
    return [atoms.as_atoms(atoms.gas(n, cell, numbers=(29, 47), seed=n)) for n in (6, 4, 9, 5, 7)]


# --- ways in ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("species", ["none", "blocks"])
def test_frames_are_described(species: str) -> None:
    data = DatasetCompressor(iter(frames()), 0.05, k=8, cutoff=4.0, species=species, jobs=1)
    env = describe(frames(), 8, 4.0, species)
    labels = None if species == "none" else env.numbers
    by_hand = DatasetCompressor.from_environments(env.x, env.frame_offsets, 0.05, labels=labels, jobs=1)
    np.testing.assert_array_equal(data.x, env.x)
    assert data.frame_offsets.tolist() == [0, 6, 10, 19, 24, 31]
    assert data.sizes.tolist() == [6, 4, 9, 5, 7]
    assert data.n_structures == len(data) == 5
    assert repr(data) == "<DatasetCompressor: 5 structures, 31 environments>"
    assert (data.labels is None) == (species == "none")
    for method in METHODS:
        extra: dict[str, Any] = {}
        if method == "msc_conditional":
            extra = {"reference": describe(frames()[:1], 8, 4.0, species, elements=["Ag", "Cu"])}
        found = data.select(method, 0.6, **extra)
        np.testing.assert_array_equal(found.indices, by_hand.select(method, 0.6, **extra).indices)
        assert len(found) == 3
    if species == "none":
        for s, frame in enumerate(frames()):
            assert data.entropies[s] == pytest.approx(entropy(describe(frame, 8, 4.0).x, 0.05), abs=1e-12)


def test_any_function_may_describe_anything() -> None:
    words = ["alpha", "be", "gamma", "al", "alphabet"]

    def letters(word: str) -> list[list[float]]:
        return [[float(ord(letter) - 97), float(place)] for place, letter in enumerate(word)]

    data = DatasetCompressor((word for word in words), 0.5, letters, jobs=1)
    assert data.sizes.tolist() == [5, 2, 5, 2, 8]
    found = data.get_indices("msc", 1.0)
    assert found[0] == 4
    assert set(found[-2:].tolist()) == {0, 3}  # "alpha" and "al" are known from "alphabet"
    assert data.get_summary([4, 1, 2])["overlap"] == 1.0


def test_what_a_function_gives_is_judged() -> None:
    for bad, told in (
        ([1.0, 2.0], r"structure 1: what descriptor_fn gives must have two dimensions"),
        (np.empty((0, 2)), r"structure 1: what descriptor_fn gives must hold at least one environment"),
        ([[1.0, math.nan]], r"structure 1: what descriptor_fn gives must be finite, but row 0 holds NaN"),
        ("x", r"structure 1: what descriptor_fn gives must be a matrix of real numbers"),
        ([[1.0, 2.0, 3.0]], r"structure 1 has 3 components per environment and structure 0 has 2; descriptor_fn must"),
    ):
        with pytest.raises(DataError, match=told):
            DatasetCompressor([[[1.0, 2.0]], bad], 0.5, lambda x: x)
    with pytest.raises(DataError, match=r"no frames were given"):
        DatasetCompressor([], 0.5, lambda x: x)


def test_what_is_known_of_a_set() -> None:
    structures = make("clustered", 12, largest=9)
    labels = [np.random.default_rng(s).integers(2, size=len(x)).tolist() for s, x in enumerate(structures)]
    plain, labelled = compressor(structures), compressor(structures, labels=np.concatenate(labels))
    for s, x in enumerate(structures):
        assert plain.entropies[s] == pytest.approx(naive.entropy(x, H), abs=1e-12)
        assert labelled.entropies[s] == pytest.approx(naive.own_entropy(x, labels[s], H), abs=1e-12)
        np.testing.assert_allclose(plain.means[s], naive.mean_row(x), rtol=1e-13)
    assert plain.means.dtype == np.float64


def test_subsets() -> None:
    structures = make("random", 20, largest=9)
    labels = np.array(["Cu", "Ag"])[np.arange(sum(len(x) for x in structures)) % 2]
    weights, costs = np.linspace(1.0, 2.0, 20), np.linspace(3.0, 1.0, 20)
    data = compressor(structures, labels=labels, weights=weights, costs=costs)
    some = [17, 3, 4, 12]
    part = data.subset(some)
    offsets = data.frame_offsets
    by_hand = compressor(
        [structures[s] for s in some], labels=np.concatenate([labels[offsets[s] : offsets[s + 1]] for s in some]),
        weights=weights[some], costs=costs[some],
    )  # fmt: skip
    np.testing.assert_allclose(part.entropies, by_hand.entropies, atol=1e-12)
    known = {"reference": structures[0], "reference_labels": ["Ag"] * len(structures[0])}
    for method in ORDERED:
        extra = known if method == "msc_conditional" else {}
        assert part.get_indices(method, 1.0, **extra).tolist() == by_hand.get_indices(method, 1.0, **extra).tolist()


def test_input_is_left_alone() -> None:
    structures = make("random", 10)
    x = np.concatenate(structures)
    offsets = np.concatenate([[0], np.cumsum([len(s) for s in structures])])
    kept = x.copy()
    for array in (x, offsets):
        array.setflags(write=False)
    data = DatasetCompressor.from_environments(x, offsets, H, jobs=1)
    for method in METHODS:
        data.select(method, 4, **options_of(method))
    data.get_summary([1, 2])
    np.testing.assert_array_equal(x, kept)
    found = DatasetCompressor.from_environments(np.asfortranarray(x), offsets.astype(np.uint32), H, jobs=1)
    np.testing.assert_array_equal(found.get_indices("msc", 1.0), data.get_indices("msc", 1.0))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_method_on_every_kind_of_set(method: str, kind: str) -> None:
    data = compressor(make(kind, 24, seed=1))
    for size in (1, 5, 0.5, 24, 100, "20env"):
        with np.errstate(all="raise", under="ignore") if method in ORDERED else np.errstate():
            found = data.select(method, size, **options_of(method))
        assert len(set(found.indices.tolist())) == len(found)
        if size != "20env":
            assert len(found) == min(24, 12 if size == 0.5 else size)
        assert found.indices.dtype == np.int64
        assert found.scores.dtype == np.float64
        assert found.method == method
        assert found.n_candidates is None
        again = data.select(method, size, **options_of(method))
        np.testing.assert_array_equal(found.indices, again.indices)
        no_scores = method in ("random", "k_means", "direct") or (len(found) == 1 and not method.startswith("msc"))
        assert np.isnan(found.scores).all() == no_scores
        if method.startswith("msc"):
            assert np.isfinite(found.scores[1:]).all()
    assert data.get_indices().tolist() == data.get_indices("msc", 3).tolist()


def test_outliers_come_first_and_keep_their_order() -> None:
    """The published code ties what is far by index: here the farthest comes first."""
    structures = make("random", 10, largest=4)
    for place, far in ((3, 1e3), (5, 1e6), (7, 1e5), (8, 1e100)):
        structures[place] = structures[place] + far
    structures[0] = np.concatenate([structures[0], make("random", 4, seed=2)[0]] * 4)  # holds most
    for method in ("msc", "fps", "mean_fps"):
        found = compressor(structures).select(method, 5)
        assert found.indices.tolist() == [found.indices[0], 8, 5, 7, 3]
        assert np.isfinite(found.scores[1:]).all()
        assert (np.diff(found.scores[1:]) < 0.0).all()


# --- two stages -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [1, 7, 0.1, 1.0, 50, "60env", "0.3env", "20cost"])
@pytest.mark.parametrize("by", [False, True])
def test_two_stages(method: str, size: Any, by: bool) -> None:
    """As many as asked for, what is kept first, whatever the size of the chunks."""
    structures = make("clustered", 45, seed=2)
    sizes, costs = np.array([len(x) for x in structures]), np.linspace(1.0, 3.0, 45)
    data = compressor(structures, costs=costs)
    extra = options_of(method) | ({"by": np.arange(45) * 3 // 45} if by else {})
    keep = [44] if size == 1 else [44, 3]
    for chunk in (2, 10, 44) if method in ORDERED else (10,):
        found = data.select(method, size, chunk=chunk, keep=keep, **extra)
        assert len(set(found.indices.tolist())) == len(found)
        assert found.indices[: len(keep)].tolist() == keep
        assert found.n_kept == len(keep)
        assert found.n_candidates is not None
        assert len(found) <= found.n_candidates <= 45
        parsed = Size.parse(size)
        amounts = {"structures": np.ones(45), "environments": sizes, "cost": costs}[parsed.kind]
        limit = parsed.of(float(amounts.sum()))
        spent = amounts[found.indices].sum()
        if parsed.kind == "structures":
            assert len(found) == min(45, limit)
        else:
            assert spent <= limit * (1.0 + 1e-9)
            assert method in ("k_means", "direct") or spent > 0.8 * limit
    # one chunk is one stage
    for chunk in (45, 10**6):
        one, other = (data.select(method, size, chunk=c, **extra) for c in (chunk, None))
        np.testing.assert_array_equal(one.indices, other.indices)
        np.testing.assert_array_equal(one.scores, other.scores)
        assert one.n_candidates is None


def test_two_stages_by_hand() -> None:
    """Each chunk hands on twice its share by a selection of its own; the union is selected from."""
    structures = make("random", 40, seed=3)
    data = compressor(structures)
    for method in ("msc", "fps", "mean_fps"):
        union = sorted(
            s
            for chunk in range(4)
            for s in (10 * chunk + data.subset(range(10 * chunk, 10 * chunk + 10)).get_indices(method, 4)).tolist()
        )
        expected = np.array(union)[data.subset(union).get_indices(method, 8)]
        found = data.select(method, 8, chunk=10)
        assert found.indices.tolist() == expected.tolist()
        assert found.n_candidates == 16


def test_two_stages_where_a_chunk_lacks_a_group() -> None:
    by = np.repeat(["a", "b", "c"], 10)
    data = compressor(make("random", 30, seed=4))
    for method in METHODS:
        found = data.get_indices(method, 9, chunk=10, by=by, **options_of(method))
        assert np.unique(by[found], return_counts=True)[1].tolist() == [3, 3, 3]


def test_two_stages_are_nearly_as_good() -> None:
    """What is lost by chunks is less than what is lost by chance."""
    data = compressor(make("clustered", 300, seed=5, d=4))
    one, two, chance = (
        data.get_summary(data.get_indices(method, 30, chunk=chunk))["diversity"]
        for method, chunk in (("msc", None), ("msc", 50), ("random", None))
    )
    assert one - two < 0.3 * (one - chance)


@pytest.mark.parametrize("method", METHODS)
def test_two_stages_have_seeds_and_any_number_of_threads(method: str) -> None:
    structures = make("random", 60, seed=6)
    found = [
        compressor(structures, jobs=jobs).select(method, 10, chunk=20, random_state=3, **options_of(method))
        for jobs in (1, 3)
    ]
    np.testing.assert_array_equal(found[0].indices, found[1].indices)
    np.testing.assert_array_equal(found[0].scores, found[1].scores)


# --- progress ---------------------------------------------------------------------------------------------------------


def test_progress_counts_structures() -> None:
    data = compressor(make("random", 20))
    for method in ORDERED:
        seen: list[int] = []
        data.select(method, 12, progress=seen.append, **options_of(method))
        assert sum(seen) == 12


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"method": "best"}, r"method must be one of msc, msc_conditional, msc_sum, fps, mean_fps, random, k_means"),
        ({"size": "much"}, r"the size must be a share \(0\.1\), a number of structures"),
        ({"size": 0}, r"a size in structures must be positive and finite, got 0"),
        ({"method": "k_means", "size": "auto"}, r"k_means has no order, which a size given by auto needs; choose a"),
        ({"method": "direct", "size": Size("overlap", 0.5)}, r"direct has no order, which a size given by overlap"),
        ({"size": "5cost"}, r"a size in cost needs costs, one per structure"),
        ({"method": "msc_conditional"}, r"msc_conditional needs a reference"),
        ({"method": "fps", "reference": np.ones((2, 3))}, r"fps knows no reference; msc_conditional does"),
        ({"reference": np.ones((2, 4))}, r"the reference has 4 components per environment and the data set 3; both"),
        ({"reference": np.ones(3)}, r"the reference must have two dimensions"),
        ({"reference": [np.ones((2, 3)), np.ones((2, 4))]}, r"all parts of the reference must have the same number of"),
        ({"reference": np.full((2, 3), np.nan)}, r"the reference must be finite, but row 0 holds NaN"),
        ({"keep": [0, 10]}, r"keep names structure 10, but there are 10, counted from 0"),
        ({"keep": [-1]}, r"keep names structure -1, but there are 10, counted from 0"),
        ({"keep": [1, 2, 1]}, r"keep names a structure twice"),
        ({"keep": [0.5]}, r"keep must be a list of whole numbers, the indices of structures"),
        ({"keep": 3}, r"keep must be a list of whole numbers, the indices of structures"),
        ({"keep": [True] * 10}, r"keep must be a list of whole numbers, the indices of structures"),
        ({"keep": [1, 2, 3], "size": 2}, r"the 3 structures to be kept count 3 structures and the size is 2; ask for"),
        ({"by": [1, 2]}, r"by must have shape \(10,\), one per structure, got \(2,\)"),
        ({"by": [math.nan] * 10}, r"by must not hold NaN"),
        ({"balance": "fair"}, r"balance must be one of equal, proportional, got 'fair'"),
        ({"random_state": "x"}, r"random_state must be a whole number from 0, a numpy Generator or None, got 'x'"),
        ({"eps": math.nan}, r"eps must be finite, got nan"),
        ({"chunk": 1}, r"chunk must be a whole number of at least 2, got 1"),
        ({"chunk": 2.5}, r"chunk must be a whole number of at least 2, got 2.5"),
        ({"chunk": 5, "size": "auto"}, r"a size given by auto cannot be found in two stages; choose a number"),
    ],
)  # fmt: skip
def test_what_select_refuses(arguments: dict[str, Any], told: str) -> None:
    data = compressor(make("random", 10))
    with pytest.raises(ValueError, match=told):
        data.select(**arguments)


@pytest.mark.parametrize("name", ["weights", "costs"])
@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([1.0, 2.0], r"must be 3 numbers, one per structure, got shape \(2,\)"),
        ([[1.0], [2.0], [3.0]], r"must be 3 numbers, one per structure, got shape \(3, 1\)"),
        (["a", "b", "c"], r"must be 3 numbers, one per structure"),
        ([1.0, 0.0, 2.0], r"must be positive and finite, but that of structure 1 is 0.0"),
        ([1.0, 2.0, -1.0], r"must be positive and finite, but that of structure 2 is -1.0"),
        ([math.nan, 1.0, 1.0], r"must be positive and finite, but that of structure 0 is nan"),
        ([1.0, math.inf, 1.0], r"must be positive and finite, but that of structure 1 is inf"),
    ],
)
def test_weights_and_costs_are_judged(name: str, values: Any, told: str) -> None:
    with pytest.raises(ValueError, match=f"{name} {told}"):
        compressor(make("random", 3), **{name: values})


def test_weights_where_they_mean_nothing() -> None:
    data = compressor(make("random", 10), weights=np.ones(10))
    for method in ("k_means", "direct"):
        with pytest.raises(ValueError, match=rf"{method} knows no weights; leave them out, or choose another method"):
            data.select(method, 3)


@pytest.mark.parametrize(
    ("offsets", "told"),
    [
        ([0, 2, 2, 4], r"structure 1 has no environments"),
        ([0, 3, 2, 4], r"structure 1 has no environments"),
        ([0, 2, 5], r"frame_offsets must go from 0 to the 4 rows of x"),
        ([1, 4], r"frame_offsets must go from 0 to the 4 rows of x"),
        ([0.0, 4.0], r"frame_offsets must be whole numbers, one more than there are structures"),
        ([0], r"frame_offsets must be whole numbers, one more than there are structures"),
        ([[0, 4]], r"frame_offsets must be whole numbers, one more than there are structures"),
        ([], r"frame_offsets must be whole numbers, one more than there are structures"),
    ],
)
def test_offsets_are_judged(offsets: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        DatasetCompressor.from_environments(np.ones((4, 2)), offsets)


def test_other_arguments_are_judged() -> None:
    for options, told in (
        ({"bandwidth": 0.0}, r"bandwidth must be positive and finite"),
        ({"jobs": 0}, r"jobs must be a whole number of at least 1"),
        ({"labels": [1, 2]}, r"labels must have shape \(4,\), one per environment"),
        ({"labels": [1, 2, "a", None]}, r"labels must be of one kind"),
    ):
        if "labels" in options and None in options["labels"]:
            options["labels"] = np.array(options["labels"], dtype=object)
        with pytest.raises(ValueError, match=told):
            DatasetCompressor.from_environments(np.ones((4, 2)), [0, 4], **options)
    with pytest.raises(ValueError, match=r"x must be finite, but row 2 holds NaN"):
        DatasetCompressor.from_environments([[1.0], [2.0], [math.nan]], [0, 3])


def test_references_with_labels() -> None:
    structures = make("random", 6)
    n = sum(len(x) for x in structures)
    data = compressor(structures, labels=np.arange(n) % 2 + 29)
    known = np.ones((4, 3))
    with pytest.raises(ValueError, match=r"the data set has labels, so the reference needs reference_labels"):
        data.select("msc_conditional", 2, reference=known)
    with pytest.raises(ValueError, match=r"reference_labels must have shape \(4,\), one per environment, got \(3,\)"):
        data.select("msc_conditional", 2, reference=known, reference_labels=[29, 30, 29])
    kept = SimpleNamespace(x=known, numbers=np.array([29, 30, 29, 92]))
    one = data.select("msc_conditional", 4, reference=kept)
    other = data.select("msc_conditional", 4, reference=known[:3], reference_labels=[29, 30, 29])
    np.testing.assert_array_equal(one.indices, other.indices)
    np.testing.assert_array_equal(one.scores, other.scores)


def test_what_summaries_refuse() -> None:
    data = compressor(make("random", 5))
    for indices, told in (
        ([5], r"indices names structure 5, but there are 5, counted from 0"),
        ([1, 1], r"indices names a structure twice"),
        ([0.0], r"indices must be a list of whole numbers"),
    ):
        with pytest.raises(ValueError, match=told):
            data.get_summary(indices)
    with pytest.raises(ValueError, match=r"indices must name at least one structure"):
        data.get_curve([])
    for sizes in ([0], [4], [], [1, 9]):
        with pytest.raises(ValueError, match=r"sizes must lie between 1 and the 3 structures of the selection"):
            data.get_curve([1, 2, 3], sizes)
    with pytest.raises(ValueError, match=r"eps must be finite"):
        data.get_curve([1], eps=math.inf)


def test_too_wide_to_tell() -> None:
    """Beyond 1e154 bandwidths, squares of distances are no numbers: said, not computed."""
    structures = make("random", 4)
    structures[1][0] = 1e160
    with pytest.raises(ValueError, match=r"spreads over so many bandwidths that squared distances overflow"):
        compressor(structures).select("msc", 2)


def test_names_of_the_room() -> None:
    for name in quests_zenn.compression.__all__:
        assert getattr(quests_zenn.compression, name) is not None
    with pytest.raises(AttributeError, match=r"has no attribute 'Nothing'"):
        _ = quests_zenn.compression.Nothing
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert set(ORDERED) < set(METHODS)


def test_nothing_holds_nothing() -> None:
    x = np.random.default_rng(0).normal(size=(30, 4))
    data = DatasetCompressor.from_environments(x, np.arange(0, 31, 3), 0.1)
    found = data.get_summary([])
    assert np.isnan(found["entropy"])
    assert found["diversity"] == -np.inf
    assert (found["overlap"], found["compressed_size"], found["compressed_envs"]) == (0.0, 0, 0)
    assert data.get_summary([], reference=x[:15])["overlap"] == 0.5


def test_sizes_of_a_curve_are_whole() -> None:
    data = DatasetCompressor.from_environments(np.eye(4), np.arange(5), 0.1)
    with pytest.raises(ValueError, match="whole numbers of structures"):
        data.get_curve([0, 1], sizes=[1.5])


def test_a_reference_of_frames_is_described_like_the_set() -> None:
    frames = [bulk("Cu", cubic=True), bulk("Cu", a=3.7, cubic=True), bulk("CuZn", "cesiumchloride", a=2.95)]
    known = [bulk("Cu", a=3.7, cubic=True)]
    for options in ({}, {"species": "blocks"}, {"descriptor_fn": get_descriptors}):
        data = DatasetCompressor(frames, **options)  # type: ignore[arg-type]
        assert data.get_indices("msc_conditional", 3, reference=known)[-1] == 1
        assert data.get_indices("msc_conditional", 3, reference=known[0])[-1] == 1
    bare = DatasetCompressor.from_environments(data.x, data.frame_offsets)
    with pytest.raises(ValueError, match="the reference must be a matrix"):
        bare.get_indices("msc_conditional", 3, reference=known)


def test_arguments_in_the_order_of_the_peer() -> None:
    with pytest.raises(ValueError, match="bandwidth must be a number"):
        DatasetCompressor([bulk("Cu")], get_descriptors, 0.015)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="descriptor_fn must be a function"):
        DatasetCompressor([bulk("Cu")], 0.015, 0.015)  # type: ignore[arg-type]


@pytest.mark.parametrize("costs", [[1e308] * 10, [5e-324] * 9 + [1e300]])
def test_costs_of_any_size(costs: list[float]) -> None:
    x = np.random.default_rng(0).normal(size=(30, 3))
    data = DatasetCompressor.from_environments(x, np.arange(0, 31, 3), 0.3, costs=costs)
    assert len(data.get_indices("msc", 3)) == 3
    if sum(costs) == np.inf:
        with pytest.raises(ValueError, match="sum overflows"):
            data.get_indices("msc", "0.5cost")
