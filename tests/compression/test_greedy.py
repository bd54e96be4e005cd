"""Greedy selections against slow twins that evaluate every candidate at every step."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import naive
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from scipy.stats import chi2
from small_sets import KINDS, H, compressor, make

from quests_zenn.compression import ORDERED, DatasetCompressor, Selection, Size
from quests_zenn.compression._greedy import Greedy

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

GREEDY = ("msc", "msc_sum", "fps", "mean_fps")


def assert_same(found: Selection, expected: naive.Selected) -> None:
    """The same structures, and scores that are the same numbers."""
    indices, scores = expected
    assert found.indices.tolist() == indices
    assert found.indices.dtype == np.int64
    np.testing.assert_allclose(found.scores, scores, rtol=1e-10, atol=1e-9)


# --- answers known by thought -----------------------------------------------------------------------------------------


def test_three_structures_by_hand() -> None:
    """The one that holds most first; then the one whose worst known environment, plus what it holds, is most."""
    data = compressor([np.array([[0.0], [0.1]]), np.array([[0.0], [40.0]]), np.array([[2.0]])], h=1.0)
    found = data.select("msc", 3)
    assert found.indices.tolist() == [1, 2, 0]
    assert found.scores[0] == math.inf
    assert found.scores[1] == pytest.approx(2.0, rel=1e-12)  # exp(-2) from 0; H = 0
    worst = -math.log(1.0 + math.exp(-2.0))
    own = math.log(2.0) - math.log(1.0 + math.exp(-0.005))
    assert found.scores[2] == pytest.approx(worst + own, rel=1e-12)
    found = data.select("fps", 3)
    assert found.indices.tolist() == [1, 0, 2]  # both are at 20
    np.testing.assert_allclose(found.scores, [math.nan, (0.0 + 40.0 + 0.1 + 39.9) / 4, 1.95], rtol=1e-12)
    found = data.select("mean_fps", 3)
    assert found.indices.tolist() == [1, 0, 2]
    np.testing.assert_allclose(found.scores, [math.nan, 19.95, 1.95], rtol=1e-12)


@pytest.mark.parametrize("method", GREEDY)
def test_equal_structures_come_in_the_order_of_their_indices(method: str) -> None:
    for structures in (
        [np.full((3, 4), 0.1)] * 9,  # means that are rounded
        make("equal", 12),  # of different sizes
        [np.random.default_rng(0).normal(size=(5, 7))] * 6,
        [np.random.default_rng(0).normal(size=(5, 7))[order] for order in ([0, 1, 2, 3, 4], [3, 4, 1, 0, 2])] * 3,
    ):
        found = compressor(structures).select(method, 1.0)
        assert found.indices.tolist() == list(range(len(structures)))
        assert not np.isinf(found.scores[1:]).any()


def test_copies_and_their_numbers() -> None:
    found = compressor([np.zeros((2, 3))] * 4).select("msc", 4)
    np.testing.assert_allclose(found.scores, [math.inf, -math.log(2), -math.log(4), -math.log(6)], rtol=1e-14)


def test_one_structure() -> None:
    for method in (*ORDERED, "k_means", "direct"):
        options = {"reference": np.ones((1, 3))} if method == "msc_conditional" else {}
        for size in (1, 0.1, 1.0, 100, "1env", "1000env", "1.0env"):
            for rows in (1, 7):
                found = compressor([np.ones((rows, 3))]).select(method, size, **options)
                expected = [] if size == "1env" and rows == 7 else [0]
                assert found.indices.tolist() == expected, (method, size, rows)
                assert found.scores.shape == found.indices.shape


# --- against the twin -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", GREEDY)
@given(kind=st.sampled_from(KINDS), n=st.integers(1, 10), d=st.sampled_from([1, 3, 18]), seed=st.integers(0, 10_000))
@settings(max_examples=60)
def test_whole_orders(method: str, kind: str, n: int, d: int, seed: int) -> None:
    structures = make(kind, n, seed, d)
    found = compressor(structures).select(method, 1.0)
    assert_same(found, naive.select(method, structures, H, n))
    assert found.stop == "all structures are chosen"
    assert np.isfinite(found.scores[1:]).all()


@pytest.mark.parametrize("method", GREEDY)
@given(
    kind=st.sampled_from(KINDS),
    n=st.integers(2, 9),
    seed=st.integers(0, 10_000),
    weights=st.booleans(),
    costs=st.booleans(),
    labels=st.booleans(),
    known=st.sampled_from(["nothing", "some", "all labels", "none of the labels"]),
    n_keep=st.integers(0, 2),
    balance=st.sampled_from([None, "equal", "proportional"]),
    unit=st.sampled_from(["structures", "environments", "cost"]),
    share=st.floats(0.2, 1.0),
)
@settings(max_examples=150)
def test_all_options_together(
    method: str, kind: str, n: int, seed: int, weights: bool, costs: bool, labels: bool, known: str, n_keep: int,
    balance: str | None, unit: str, share: float,
) -> None:  # fmt: skip
    rng = np.random.default_rng(seed)
    structures = make(kind, n, seed)
    sizes = [len(x) for x in structures]
    bonus, options, twin = np.zeros(n), {}, {}
    made: dict[str, Any] = {}
    if weights:
        made["weights"] = rng.choice([0.5, 1.0, 4.0], size=n)
        bonus += np.log(made["weights"])
    if costs or unit == "cost":
        made["costs"] = rng.choice([1.0, 2.0, 3.5], size=n)
        bonus -= np.log(made["costs"] / made["costs"].mean())
    marks = None
    if labels:
        marks = [rng.integers(3, size=size).tolist() for size in sizes]
        made["labels"] = np.array([["Ag", "Cu", "Zr"][label] for mark in marks for label in mark])
    if method.startswith("msc") and known != "nothing":
        allowed = {"some": [0, 7], "all labels": [0, 1, 2], "none of the labels": [7, 8]}[known]
        reference = make(kind, 4, seed + 1)
        codes = rng.choice(allowed, size=sum(len(x) for x in reference)).tolist()
        options["reference"] = reference
        twin["reference"] = np.concatenate(reference)
        if labels:
            options["reference_labels"] = [["Ag", "Cu", "Zr", "-", "-", "-", "-", "He", "Xe"][code] for code in codes]
            twin["reference_labels"] = codes
    if n_keep:
        options["keep"] = twin["keep"] = rng.permutation(n)[:n_keep].tolist()
    amounts = {"structures": np.ones(n), "environments": np.array(sizes, float), "cost": made.get("costs")}[unit]
    assert amounts is not None
    if balance is not None:
        by = rng.integers(3, size=n)
        present, codes_by = np.unique(by, return_inverse=True)
        options |= {"by": np.array(["b", "a", "c"])[by], "balance": balance}
        names, codes_by = np.unique(options["by"], return_inverse=True)
        shares = np.bincount(codes_by, amounts)
        twin |= {"by": codes_by.tolist(), "targets": shares.tolist() if balance == "proportional" else [1.0] * 3}
        assert len(names) == len(present)
    size = Size(unit, share, share=True)
    limit = max(1, math.ceil(share * n - 1e-9)) if unit == "structures" else share * float(amounts.sum())
    data = compressor(structures, **made)
    if n_keep and amounts[options["keep"]].sum() > limit * (1.0 + 1e-9):
        with pytest.raises(ValueError, match="structures to be kept count"):
            data.select(method, size, **options)
        return
    found = data.select("msc_conditional" if "reference" in options and method == "msc" else method, size, **options)
    expected = naive.select(method, structures, H, limit, amounts=amounts, labels=marks, bonus=bonus, **twin)
    assert_same(found, expected)
    assert found.n_kept == n_keep
    assert amounts[found.indices].sum() <= limit * (1.0 + 1e-9)


def judge(method: str, structures: list[Array], h: float, n: int) -> tuple[list[int], list[float]]:
    """The first n of larger sets: every candidate at every step, by SciPy."""
    x, sizes = np.concatenate(structures), [len(s) for s in structures]
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    own = np.array([naive.entropy(s, h) for s in structures])
    means = np.array([s.mean(axis=0) for s in structures])
    log_p, least = np.full(len(x), -np.inf), np.full(len(structures), np.inf)
    chosen, scores = [int(np.argmax(own))], [math.inf if method.startswith("msc") else math.nan]
    while len(chosen) < n:
        last = structures[chosen[-1]]
        if method.startswith("msc"):
            terms = -cdist(x, last, "sqeuclidean") / (2.0 * h * h)
            for column in terms.T:
                np.logaddexp(log_p, column, out=log_p)
            largest, novel = np.maximum.reduceat(-log_p, starts), np.add.reduceat(-np.minimum(log_p, 0.0), starts)
            value = own + (largest if method == "msc" else novel)
        else:
            if method == "fps":
                away = np.add.reduceat(cdist(x, last).sum(axis=1), starts) / np.multiply(sizes, len(last))
            else:
                away = np.linalg.norm(means - means[chosen[-1]], axis=1)
            least = np.minimum(least, away)
            value = least
        value = np.where(np.isin(np.arange(len(structures)), chosen), -np.inf, value)
        chosen.append(int(np.argmax(value)))
        scores.append(float(value[chosen[-1]]))
    return chosen, scores


@pytest.mark.parametrize("method", GREEDY)
@pytest.mark.parametrize("h", [0.2, 0.8, 3.0])
def test_larger_sets(method: str, h: float) -> None:
    """Large enough that most candidates are passed over, and rows are left below their floors."""
    structures = make("random", 300, d=5, largest=30) + make("clustered", 50, d=5, largest=30)
    found = compressor(structures, h).select(method, 0.5)
    assert_same(found, judge(method, structures, h, 175))


@pytest.mark.slow
@pytest.mark.parametrize("method", GREEDY)
@pytest.mark.parametrize(("kind", "d"), [("random", 2), ("random", 40), ("clustered", 8), ("atoms", 3)])
def test_much_larger_sets(method: str, kind: str, d: int) -> None:
    structures = make(kind, 1500, d=d, largest=20)
    found = compressor(structures, 0.6).select(method, 400)
    assert_same(found, judge(method, structures, 0.6, 400))


@pytest.mark.parametrize("far", [1e4, 1e8, 1e12])
@pytest.mark.parametrize("method", GREEDY)
def test_structures_near_each_other_and_far_from_all_others(method: str, far: float) -> None:
    """Two heaps with a great distance between them: in each of them, distances still decide."""
    near = make("random", 8, seed=3)
    structures = near + [np.ldexp(np.rint(np.ldexp(x, 8)), -8) + far * H for x in make("random", 8, seed=4, largest=3)]
    found = compressor(structures).select(method, 1.0)
    expected = naive.select(method, structures, H, 16)
    assert found.indices.tolist() == expected[0]
    # coordinates are rounded relative to the spread, as those given were
    digits = 1e-9 + 4e-15 * far
    np.testing.assert_allclose(found.scores, expected[1], rtol=1e-10, atol=digits)


# --- promises ---------------------------------------------------------------------------------------------------------


def options_of(method: str) -> dict[str, Any]:
    return {"reference": np.concatenate(make("random", 3, seed=99))} if method == "msc_conditional" else {}


@pytest.mark.parametrize("method", ORDERED)
@pytest.mark.parametrize("kind", KINDS)
def test_a_smaller_size_is_the_beginning_of_a_larger_one(method: str, kind: str) -> None:
    data = compressor(make(kind, 23, seed=5))
    whole = data.select(method, 1.0, **options_of(method))
    assert sorted(whole.indices.tolist()) == list(range(23))
    for size in (1, 2, 7, 22):
        part = data.select(method, size, **options_of(method))
        np.testing.assert_array_equal(part.indices, whole.indices[:size])
        np.testing.assert_array_equal(part.scores, whole.scores[:size])
        assert part.stop == "the size is reached"


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        (method, kind)
        for method in ("msc", "msc_conditional", "msc_sum", "fps", "mean_fps")
        for kind in ("random", "clustered", "atoms", "outliers")
        if (method, kind) != ("msc_sum", "atoms")  # what is not novel is worth the same there
    ],
)
def test_the_order_of_structures_does_not_matter(method: str, kind: str) -> None:
    structures = [x for x in make(kind, 25, seed=6, largest=9) if len(x) > 1 or kind == "atoms"]
    if kind == "atoms":  # which all hold the same, so that the first is chosen by its index
        structures[0] = np.concatenate([structures[0], structures[0] + 9.0])
    order = np.random.default_rng(0).permutation(len(structures))
    first = compressor(structures).select(method, 1.0, **options_of(method))
    found = compressor([structures[s] for s in order]).select(method, 1.0, **options_of(method))
    np.testing.assert_array_equal(order[found.indices], first.indices)
    np.testing.assert_allclose(found.scores, first.scores, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("method", ORDERED)
@pytest.mark.parametrize("kind", ["random", "lattice", "outliers"])
def test_the_number_of_threads_changes_no_bit(method: str, kind: str) -> None:
    structures = make(kind, 200, seed=7, largest=25)
    labels = np.arange(sum(len(x) for x in structures)) % 2
    found = []
    for jobs in (1, 3):
        data = compressor(structures, labels=labels, jobs=jobs)
        extra = options_of(method)
        if extra:
            extra["reference_labels"] = np.arange(len(extra["reference"])) % 2
        found.append(data.select(method, 0.4, random_state=1, **extra))
    np.testing.assert_array_equal(found[0].indices, found[1].indices)
    np.testing.assert_array_equal(found[0].scores, found[1].scores)


def test_single_precision_environments() -> None:
    structures = [x.astype(np.float32) for x in make("random", 30, seed=8)]
    wide = [x.astype(np.float64) for x in structures]
    for method in GREEDY:
        one, other = compressor(structures), compressor(wide)
        assert one.x.dtype == np.float32
        np.testing.assert_array_equal(one.get_indices(method, 1.0), other.get_indices(method, 1.0))
        np.testing.assert_array_equal(one.means, other.means)


def test_the_reference_is_a_start() -> None:
    """What was chosen from a first set, given as reference, is what the second set would be chosen after."""
    structures = make("random", 20, seed=9)
    data = compressor(structures)
    whole = data.select("msc", 20)
    for n in (1, 5, 19):
        known = [structures[s] for s in whole.indices[:n]]
        rest = sorted(set(range(20)) - set(whole.indices[:n].tolist()))
        found = compressor([structures[s] for s in rest]).select("msc_conditional", 1.0, reference=known)
        np.testing.assert_array_equal(np.array(rest)[found.indices], whole.indices[n:])
        np.testing.assert_allclose(found.scores, whole.scores[n:], rtol=1e-10, atol=1e-10)


def test_keep_is_a_start_too() -> None:
    structures = make("random", 20, seed=10)
    data = compressor(structures)
    for method in GREEDY:
        whole = data.select(method, 20)
        found = data.select(method, 12, keep=whole.indices[:4])
        np.testing.assert_array_equal(found.indices, whole.indices[:12])
        assert np.isnan(found.scores[:4]).all()
        np.testing.assert_allclose(found.scores[4:], whole.scores[4:12], rtol=1e-13, atol=1e-13)
        assert found.n_kept == 4
        backwards = data.select(method, 12, keep=whole.indices[3::-1])
        assert set(backwards.indices[4:].tolist()) == set(whole.indices[4:12].tolist())
        everything = data.select(method, 20, keep=np.arange(20)[::-1])
        assert everything.indices.tolist() == list(range(19, -1, -1))
        assert everything.stop == "all structures are chosen"


# --- groups -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ORDERED)
def test_groups_get_the_same_or_their_share(method: str) -> None:
    by = np.repeat(["a", "b", "c"], [24, 12, 4])
    data = compressor(make("random", 40, seed=11))
    counts = [
        Counter(by[data.get_indices(method, size, by=by, balance=balance, **options_of(method))].tolist())
        for balance, size in (("equal", 9), ("equal", 20), ("proportional", 10), ("proportional", 0.5))
    ]
    assert counts[0] == {"a": 3, "b": 3, "c": 3}
    assert counts[1] == {"a": 8, "b": 8, "c": 4}  # c has no more
    assert counts[2] == {"a": 6, "b": 3, "c": 1}
    assert counts[3] == {"a": 12, "b": 6, "c": 2}


def test_groups_in_environments() -> None:
    """Balance is in the unit of the size."""
    structures = [np.random.default_rng(s).normal(size=(10 if s < 10 else 1, 3)) for s in range(60)]
    by = np.arange(60) >= 10
    found = compressor(structures).get_indices("msc", "60env", by=by)
    assert Counter(by[found].tolist()) == {False: 3, True: 30}


def test_what_was_kept_counts_in_its_group() -> None:
    by = np.arange(20) % 2
    found = compressor(make("random", 20, seed=12)).get_indices("msc", 8, by=by, keep=[0, 2, 4, 6])
    assert Counter((found % 2).tolist()) == {0: 4, 1: 4}


# --- weights and costs ------------------------------------------------------------------------------------------------


def test_weights_and_costs_by_hand() -> None:
    """Three strangers of one environment each: dH grows with the distance, and weights add to it."""
    structures = [np.array([[0.0], [0.0]]), np.array([[2.0]]), np.array([[-2.2]])]
    assert compressor(structures, 1.0).get_indices("msc", 1.0, keep=[0]).tolist() == [0, 2, 1]
    # dH is 2.0 and 2.42 less ln 2: a factor of exp(0.42) = 1.52 decides
    for factor, expected in ((1.5, [0, 2, 1]), (1.55, [0, 1, 2])):
        data = compressor(structures, 1.0, weights=[1.0, factor, 1.0])
        assert data.get_indices("msc", 1.0, keep=[0]).tolist() == expected
        data = compressor(structures, 1.0, costs=[7.0, 1.0, factor])
        found = data.select("msc", 1.0, keep=[0])
        assert found.indices.tolist() == expected
        assert sorted(found.scores[1:]) == pytest.approx([2.0 - math.log(2.0), 2.42 - math.log(2.0)], rel=0.2)
    # distances are 2.0 and 2.2
    for factor, expected in ((1.09, [0, 2, 1]), (1.11, [0, 1, 2])):
        for method in ("fps", "mean_fps"):
            data = compressor(structures, 1.0, weights=[1.0, factor, 1.0])
            assert data.get_indices(method, 1.0, keep=[0]).tolist() == expected


def test_weights_that_are_all_the_same_change_nothing() -> None:
    structures = make("lattice", 20, seed=13)
    for method in ORDERED:
        plain = compressor(structures).select(method, 1.0, **options_of(method))
        for options in ({"weights": np.full(20, 3.7)}, {"costs": np.full(20, 0.3)}):
            found = compressor(structures, **options).select(method, 1.0, **options_of(method))
            np.testing.assert_array_equal(found.indices, plain.indices)
            np.testing.assert_array_equal(found.scores, plain.scores)


# --- random -----------------------------------------------------------------------------------------------------------

#: Draws, and the level of the tests, which the seeds fix anyway.
DRAWS, LEVEL = 4000, 1e-5


def first_two(data: DatasetCompressor, **options: Any) -> Array:
    n = data.n_structures
    counts = np.zeros((n, n))
    for seed in range(DRAWS):
        one, other = data.get_indices("random", 2, random_state=seed, **options)
        counts[one, other] += 1.0
    return counts


def assert_frequencies(counts: Array, expected: Array) -> None:
    off = ~np.eye(len(counts), dtype=bool)
    assert counts[~off].sum() == 0
    statistic = ((counts[off] - expected[off]) ** 2 / expected[off]).sum()
    degrees = int(off.sum()) - 1
    assert chi2.ppf(LEVEL, degrees) < statistic < chi2.ppf(1.0 - LEVEL, degrees)


def test_random_is_uniform() -> None:
    counts = first_two(compressor(make("copies", 5)))
    assert_frequencies(counts, np.full((5, 5), DRAWS / 20.0))


def test_random_follows_weights_and_no_costs() -> None:
    weights = np.array([1.0, 2.0, 4.0, 0.5])
    share = weights / weights.sum()
    second = share[None, :] / (1.0 - share[:, None])
    counts = first_two(compressor(make("random", 4), weights=weights, costs=[9.0, 1.0, 1.0, 1.0]))
    assert_frequencies(counts, DRAWS * share[:, None] * second)


def test_random_has_seeds() -> None:
    data = compressor(make("random", 30))
    first = data.get_indices("random", 1.0)
    np.testing.assert_array_equal(data.get_indices("random", 1.0, random_state=0), first)
    np.testing.assert_array_equal(data.get_indices("random", 1.0, random_state=np.random.default_rng(0)), first)
    assert (data.get_indices("random", 1.0, random_state=1) != first).any()
    orders = {tuple(data.get_indices("random", 1.0, random_state=None).tolist()) for _ in range(3)}
    assert len(orders) == 3
    assert np.isnan(data.select("random", 5).scores).all()


# --- budgets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ORDERED)
def test_budgets_are_used_up_and_never_exceeded(method: str) -> None:
    structures = make("random", 40, seed=14, largest=12)
    sizes = np.array([len(x) for x in structures])
    costs = np.random.default_rng(0).random(40) + 0.1
    data = compressor(structures, costs=costs)
    for budget in (1, 5, 50, int(sizes.sum()) - 1):
        found = data.select(method, f"{budget}env", **options_of(method))
        left = budget - sizes[found.indices].sum()
        others = np.setdiff1d(np.arange(40), found.indices)
        assert 0 <= left < sizes[others].min()
        assert found.stop in ("the size is reached", "the budget is used up: no other structure fits")
        assert (found.stop == "the size is reached") == (left == 0)
    for budget in (0.05, 0.3, 7.7):
        found = data.select(method, Size("cost", budget), **options_of(method))
        left = budget - costs[found.indices].sum()
        assert 0.0 <= left < costs[np.setdiff1d(np.arange(40), found.indices)].min()
    whole = data.select(method, f"{sizes.sum()}env", **options_of(method))
    assert len(whole) == 40
    assert whole.stop == "all structures are chosen"
    assert len(data.select(method, Size("cost", 1.0, share=True), **options_of(method))) == 40


def test_a_budget_that_fits_nothing() -> None:
    found = compressor(make("random", 5, largest=1) * 2, costs=np.full(10, 2.0)).select("msc", Size("cost", 1.9))
    assert found.indices.shape == found.scores.shape == (0,)
    assert found.stop == "the budget is used up: no other structure fits"


def test_budgets_of_fractions_that_rounding_would_spoil() -> None:
    data = compressor(make("random", 30, largest=1), costs=np.full(30, 0.1))
    found = data.select("msc", Size("cost", 3.0))
    assert len(found) == 30
    assert len(data.select("msc", Size("cost", 0.3))) == 3


class Lazy:
    """A scorer that lowers values only where they reach their floor, as rows of environments do."""

    def __init__(self, values: Array, true: Array, exact: npt.NDArray[np.bool_]) -> None:
        self.values, self._true, self._exact, self.calls = values, true, exact, 0

    def exact(self) -> npt.NDArray[np.bool_]:
        return self._exact

    def refresh(self, structures: Indices, floors: Array) -> None:
        self.calls += 1
        assert self.calls < 1000, "nothing changes any more"
        reached = structures[self.values[structures] >= floors]
        self.values[reached], self._exact[reached] = self._true[reached], True


def test_huge_scores_come_to_an_end() -> None:
    """Rounding must not leave out whoever ties with the best."""
    for seed in range(200):
        rng = np.random.default_rng(seed)
        own = rng.random(12) * 5.0
        top = np.nextafter(2.0 ** rng.integers(20, 40), 0.0)
        values = np.full(12, top)
        exact = np.zeros(12, bool)
        exact[0] = True
        greedy = Greedy(Lazy(values, values.copy(), exact), own, own, None, None, np.ones(12))  # type: ignore[arg-type]
        assert 0 <= greedy.best() < 12
