"""The selector of scikit-learn's kind selects what the compressor selects, and says so in rows of X."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils import estimator_checks

from quests_zenn._core.parallel import available_cores
from quests_zenn.compression import METHODS, DatasetCompressor, SampleSelector
from quests_zenn.compression.selector import _threads

Array = npt.NDArray[Any]

H = 0.5


def grouped(seed: int = 0) -> tuple[Array, Array]:
    """Rows of twelve groups of different sizes, in random order."""
    rng = np.random.default_rng(seed)
    groups = rng.permutation(np.repeat(np.arange(12), [1, 5, 9, 2, 4, 6, 3, 8, 7, 5, 5, 10]))
    return rng.normal(size=(len(groups), 3)) + 0.3 * groups[:, None], groups


# --- answers known by thought -----------------------------------------------------------------------------------------


def test_copies_are_selected_last() -> None:
    x = np.array([[0.0], [0.0], [50.0], [0.0], [0.0]])
    found = SampleSelector("msc", 1.0, bandwidth=1.0).fit(x, groups=["b", "a", "c", "a", "b"])
    assert found.selected_groups_.tolist() == ["a", "c", "b"]  # a before b, whose rows come first in x
    assert found.selected_idx_.tolist() == [1, 3, 2, 0, 4]
    assert found.selected_idx_.dtype == np.int64
    assert found.scores_.shape == (3,)
    assert isinstance(found.stop_, str)
    assert (found.n_features_in_, found.n_samples_fit_) == (1, 5)


@pytest.mark.parametrize("method", METHODS)
def test_rows_without_groups(method: str) -> None:
    """Three heaps of rows: all methods but `random` take one of each."""
    x = np.repeat([0.0, 40.0, 90.0], 4)[:, None] + np.tile([0.0, 0.01, 0.02, 0.03], 3)[:, None]
    found = SampleSelector(method, 3, bandwidth=1.0, random_state=0)
    found.fit(x, reference=np.array([[1e4]]) if method == "msc_conditional" else None)
    assert found.selected_groups_.tolist() == found.selected_idx_.tolist()
    assert len(found.selected_idx_) == 3
    if method != "random":
        assert sorted(found.selected_idx_ // 4) == [0, 1, 2]


def test_support() -> None:
    x, groups = grouped()
    found = SampleSelector("msc", 3, bandwidth=H).fit(x, groups=groups)
    mask = found.get_support()
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, np.isin(groups, found.selected_groups_))
    np.testing.assert_array_equal(found.get_support(indices=True), np.flatnonzero(mask))
    np.testing.assert_array_equal(np.sort(found.selected_idx_), np.flatnonzero(mask))


def test_transform_takes_rows_of_any_array() -> None:
    x, groups = grouped()
    selector = SampleSelector("fps", 0.5, bandwidth=H, random_state=0)
    taken = selector.fit_transform(x, groups=groups)
    np.testing.assert_array_equal(taken, x[selector.selected_idx_])
    np.testing.assert_array_equal(selector.transform(x), taken)
    np.testing.assert_array_equal(selector.transform(groups), groups[selector.selected_idx_])
    assert selector.transform(np.arange(len(x)).tolist()).tolist() == selector.selected_idx_.tolist()
    for wrong in (x[:-1], x.T, 3.0):
        with pytest.raises(
            ValueError, match="X must have the 65 rows that fit saw, of which some were selected, got sh"
        ):
            selector.transform(wrong)


# --- against the compressor -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_follows_the_compressor(method: str) -> None:
    x, groups = grouped()
    order = np.argsort(groups, kind="stable")
    offsets = np.searchsorted(groups[order], np.arange(13))
    known = x[:3] + 0.1 if method == "msc_conditional" else None
    direct = DatasetCompressor.from_environments(x[order], offsets, H)
    expected = direct.select(method, 0.5, reference=known, random_state=5)
    found = SampleSelector(method, 0.5, H, random_state=5).fit(x, groups=groups, reference=known)
    np.testing.assert_array_equal(found.selected_groups_, expected.indices)
    np.testing.assert_array_equal(found.scores_, expected.scores)
    assert found.stop_ == expected.stop
    np.testing.assert_array_equal(
        found.selected_idx_, np.concatenate([np.flatnonzero(groups == g) for g in expected.indices])
    )


@pytest.mark.parametrize("method", METHODS)
def test_rows_are_structures_of_one(method: str) -> None:
    x, _ = grouped()
    known = x[:3] + 0.1 if method == "msc_conditional" else None
    expected = DatasetCompressor.from_environments(x, np.arange(len(x) + 1), H).select(
        method, 20, reference=known, random_state=1
    )
    found = SampleSelector(method, 20, H, random_state=1).fit(x, reference=known)
    np.testing.assert_array_equal(found.selected_idx_, expected.indices)
    np.testing.assert_array_equal(found.selected_groups_, expected.indices)


def test_all_options_reach_the_compressor() -> None:
    x, groups = grouped()
    order = np.argsort(groups, kind="stable")
    offsets = np.searchsorted(groups[order], np.arange(13))
    weights, costs = np.linspace(0.1, 3.0, 12), np.arange(12.0, 0.0, -1.0)
    by = np.array(list("aabbccaabbcc"))
    compressor = DatasetCompressor.from_environments(x[order], offsets, H, weights=weights, costs=costs)
    plain = SampleSelector("msc", 6, H).fit(x, groups=groups).selected_groups_.tolist()
    for balance in ("equal", "proportional"):
        expected = compressor.select("msc", 6, keep=[7, 2], by=by, balance=balance)
        names = np.array(list("abcdefghijkl"))
        found = SampleSelector("msc", 6, H, balance=balance).fit(
            x,
            groups=names[groups],
            sample_weight=weights[groups],
            costs=costs[groups].tolist(),
            by=by[groups],
            keep=["h", "c", "h"],
        )
        assert found.selected_groups_.tolist() == names[expected.indices].tolist() != names[plain].tolist()
        assert set(found.selected_groups_[:2].tolist()) == {"h", "c"}


def test_keep_takes_rows_where_there_are_no_groups() -> None:
    x, _ = grouped()
    found = SampleSelector("msc", 4, H).fit(x, keep=[31, 8])
    assert set(found.selected_idx_[:2].tolist()) == {31, 8}
    assert set(SampleSelector("msc", 4, H).fit(x, keep=31).selected_idx_[:1].tolist()) == {31}


@pytest.mark.parametrize("method", sorted({*METHODS} - {"msc_conditional"}))
def test_where_rows_stand_does_not_matter(method: str) -> None:
    x, groups = grouped()
    found = SampleSelector(method, 5, H, random_state=2).fit(x, groups=groups)
    for order in (np.argsort(groups, kind="stable"), np.random.default_rng(3).permutation(len(x))):
        again = SampleSelector(method, 5, H, random_state=2).fit(x[order], groups=groups[order])
        np.testing.assert_array_equal(again.selected_groups_, found.selected_groups_)
        np.testing.assert_allclose(again.scores_, found.scores_, rtol=1e-9, atol=1e-9)
        assert set(order[again.selected_idx_].tolist()) == set(found.selected_idx_.tolist())


@pytest.mark.parametrize("size", [5, 0.4, "5", "20env", "0.3env", "auto"])
def test_sizes_are_those_of_the_command(size: Any) -> None:
    x, groups = grouped()
    order = np.argsort(groups, kind="stable")
    offsets = np.searchsorted(groups[order], np.arange(13))
    expected = DatasetCompressor.from_environments(x[order], offsets, H).select("msc", size)
    np.testing.assert_array_equal(
        SampleSelector("msc", size, H).fit(x, groups=groups).selected_groups_, expected.indices
    )


def test_a_seed_or_a_fresh_draw() -> None:
    x = np.random.default_rng(0).normal(size=(200, 2))

    def draw(random_state: Any) -> list[int]:
        return SampleSelector("random", 100, random_state=random_state).fit(x).selected_idx_.tolist()

    assert draw(None) != draw(None)
    assert draw(3) == draw(3) != draw(4)
    rng = np.random.default_rng(3)
    assert draw(rng) != draw(rng)


@pytest.mark.parametrize("method", ["msc", "k_means", "direct"])
def test_threads_do_not_matter(method: str) -> None:
    x, groups = grouped()
    one, two = (SampleSelector(method, 6, H, random_state=0, n_jobs=n).fit(x, groups=groups) for n in (1, 2))
    np.testing.assert_array_equal(one.selected_idx_, two.selected_idx_)
    np.testing.assert_array_equal(one.scores_, two.scores_)


def test_threads_are_counted_as_in_sklearn() -> None:
    assert _threads(None) is None
    assert _threads(3) == 3
    assert _threads(-1) == available_cores()
    assert _threads(-2) == max(1, available_cores() - 1)
    assert _threads(-1000) == 1
    for wrong in (0, 1.5, "all"):
        with pytest.raises(ValueError, match="n_jobs must be a whole number of at least 1, got "):
            _threads(wrong)  # type: ignore[arg-type]


# --- as an estimator --------------------------------------------------------------------------------------------------


def test_parameters() -> None:
    selector = SampleSelector("fps", 7, bandwidth=2.0, random_state=1)
    expected = {
        "method": "fps",
        "n_to_select": 7,
        "bandwidth": 2.0,
        "balance": "equal",
        "random_state": 1,
        "n_jobs": None,
    }
    assert selector.get_params() == expected
    assert SampleSelector().get_params() == {
        **expected,
        "method": "msc",
        "n_to_select": 0.1,
        "bandwidth": 0.015,
        "random_state": None,
    }
    assert repr(selector) == "SampleSelector(bandwidth=2.0, method='fps', n_to_select=7, random_state=1)"
    assert selector.set_params(n_to_select=2) is selector
    x, _ = grouped()
    assert selector.fit(x) is selector
    assert len(selector.selected_idx_) == 2
    copy = clone(selector)
    assert copy.get_params() == selector.get_params()
    assert vars(copy) == copy.get_params()
    with pytest.raises(ValueError, match="Invalid parameter 'size'"):
        selector.set_params(size=3)


def test_arguments_are_judged_when_fitting() -> None:
    selector = SampleSelector("neither", -1, bandwidth="wide", balance=None, n_jobs=0)  # type: ignore[arg-type]
    assert selector.get_params()["method"] == "neither"
    x, _ = grouped()
    with pytest.raises(ValueError, match="method must be one of msc, "):
        SampleSelector("neither").fit(x)
    with pytest.raises(ValueError, match="bandwidth must be positive and finite, got -1"):
        SampleSelector(bandwidth=-1).fit(x)
    with pytest.raises(ValueError, match="n_jobs must be a whole number of at least 1, got 0"):
        SampleSelector(n_jobs=0).fit(x)


def test_before_fit() -> None:
    for ask in (lambda s: s.get_support(), lambda s: s.transform(np.zeros((3, 1)))):
        with pytest.raises(NotFittedError, match="This SampleSelector instance is not fitted yet"):
            ask(SampleSelector())


@pytest.mark.parametrize(
    "check",
    [
        "check_dict_unchanged",
        "check_dont_overwrite_parameters",
        "check_estimators_dtypes",
        "check_estimators_fit_returns_self",
        "check_estimators_overwrite_params",
        "check_estimators_pickle",
        "check_estimators_unfitted",
        "check_f_contiguous_array_estimator",
        "check_fit1d",
        "check_fit2d_1feature",
        "check_fit2d_1sample",
        "check_fit_check_is_fitted",
        "check_fit_score_takes_y",
        "check_get_params_invariance",
        "check_n_features_in",
        "check_no_attributes_set_in_init",
        "check_parameters_default_constructible",
        "check_pipeline_consistency",
        "check_readonly_memmap_input",
        "check_sample_weights_list",
        "check_sample_weights_not_an_array",
        "check_sample_weights_not_overwritten",
        "check_sample_weights_shape",
        "check_set_params",
        "check_transformers_unfitted",
    ],
)
def test_what_sklearn_asks_of_estimators(check: str) -> None:
    """All but what holds for no selector of samples (as many rows out as in), and texts of messages."""
    if not hasattr(estimator_checks, check):
        pytest.skip("this version of scikit-learn does not have the check")
    getattr(estimator_checks, check)("SampleSelector", SampleSelector(n_to_select=0.5, bandwidth=1.0, random_state=0))


def test_a_second_fit_forgets_the_first() -> None:
    x, groups = grouped()
    selector = SampleSelector("msc", 3, H).fit(x, groups=groups)
    selector.fit(x[:20, :2])
    fresh = SampleSelector("msc", 3, H).fit(x[:20, :2])
    assert vars(selector).keys() == vars(fresh).keys()
    assert selector.n_features_in_ == 2
    np.testing.assert_array_equal(selector.selected_idx_, fresh.selected_idx_)


def test_importing_the_room_does_not_import_sklearn() -> None:
    code = "import sys, quests_zenn.compression as c; assert 'sklearn' not in sys.modules; c.SampleSelector()"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"groups": [0, 0, 1]}, r"groups must have shape \(4,\), one per row of X, got \(3,\)"),
        ({"groups": [0.0, 1.0, np.nan, 2.0]}, "groups must not hold NaN"),
        ({"groups": np.array([0, "a", 1, 2], dtype=object)}, "groups must be of one kind, so that they can be sorted"),
        ({"sample_weight": np.ones((4, 1))}, r"sample_weight must have shape \(4,\), one per row of X, got \(4, 1\)"),
        (
            {"sample_weight": [1.0, 0.0, 1.0, 1.0]},
            "sample_weight must be positive and finite numbers, one per row of X",
        ),
        ({"costs": [1.0, np.inf, 1.0, 1.0]}, "costs must be positive and finite numbers, one per row of X"),
        ({"costs": list("abcd")}, "costs must be positive and finite numbers, one per row of X"),
        ({"by": ["a", "b"]}, r"by must have shape \(4,\), one per row of X, got \(2,\)"),
        ({"keep": [4]}, "keep names group 4, which does not exist"),
        ({"keep": ["a"]}, "keep names group 'a', which does not exist"),
        (
            {"groups": list("abab"), "sample_weight": [1.0, 2.0, 1.0, 3.0]},
            "sample_weight must be the same in all rows of a group, but rows 1 and 3 of group 'b' differ",
        ),
        (
            {"groups": [7, 7, 8, 8], "costs": [1, 2, 1, 1]},
            "costs must be the same in all rows of a group, but rows 0 and 1 of group 7 differ",
        ),
        (
            {"groups": [7, 7, 8, 8], "by": ["x", "x", "x", "y"]},
            "by must be the same in all rows of a group, but rows 2 and 3 of group 8 differ",
        ),
        ({"groups": [7, 7, 8, 8], "keep": [0]}, "keep names group 0, which does not exist"),
    ],
)
def test_what_does_not_fit_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SampleSelector("msc", 2, H).fit(np.arange(8.0).reshape(4, 2), **given)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ([1.0, 2.0], "X must have two dimensions"),
        (np.empty((0, 3)), "X must hold at least one"),
        ([[1.0], [np.nan]], "X must be finite, but row 1 holds NaN or infinity"),
        ([["a"], ["b"]], "X must be a matrix of real numbers"),
    ],
)
def test_what_is_no_matrix_is_refused(x: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SampleSelector().fit(x)
