"""Scores of groups, and weights of rows from them."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest

from quests_zenn._core.checks import DataError, DataWarning
from quests_zenn.sampling.weights import capped, effective_sample_size, group_scores, novelty_of, row_weights

H = 0.1

#: Two groups of one and the same environment, and one that lies 20 bandwidths away.
X = np.array([[0.0, 0.0], [0.0, 0.0], [2.0, 0.0]])


# --- scores -----------------------------------------------------------------------------------------------------------


def test_two_alike_and_one_other() -> None:
    found = group_scores(X, ["a", "b", "c"], H)
    assert found.names.tolist() == ["a", "b", "c"]
    np.testing.assert_allclose(found.density, [-math.log(2.0), -math.log(2.0), 0.0], atol=1e-12)
    far = 2.0**2 / (2.0 * H**2)
    # a has one like it among the others, and c two that lie far away
    np.testing.assert_allclose(found.mean, [0.0, 0.0, far - math.log(2.0)], atol=1e-9)
    np.testing.assert_array_equal(found.max, found.mean)
    assert found.novel[:2].tolist() == [0.0, 0.0]
    assert found.novel[2] == found.mean[2]
    np.testing.assert_allclose(row_weights(found.density, "density"), [0.75, 0.75, 1.5], atol=1e-12)
    np.testing.assert_allclose(row_weights(found.novel, "novelty"), [0.1, 0.1, 2.8], atol=1e-12)


def test_a_group_counts_as_one_however_many_environments_it_has() -> None:
    many = group_scores(np.repeat(X, [5, 1, 2], axis=0), [0] * 5 + [1] + [2] * 2, H)
    assert many.size.tolist() == [5, 1, 2]
    np.testing.assert_allclose(many.density, group_scores(X, [0, 1, 2], H).density, atol=1e-12)


def test_many_known_environments_do_not_hide_a_novel_one() -> None:
    x = np.concatenate([np.zeros((100, 1)), np.zeros((99, 1)), [[10.0 * H]]])
    found = group_scores(x, [0] * 100 + [1] * 100, H)
    assert found.mean[1] < 0.0
    np.testing.assert_allclose(found.novel, [0.0, (50.0 - math.log(100.0)) / 100.0], atol=1e-9)


def test_scores_are_those_of_plain_loops() -> None:
    rng = np.random.default_rng(0)
    x, groups, labels = rng.normal(0, 0.1, (40, 3)), rng.integers(0, 5, 40), rng.integers(0, 2, 40)
    for kinds in (None, labels):
        found = group_scores(x, groups, H, labels=kinds)
        kernel = np.exp(-((x[:, None] - x[None]) ** 2).sum(2) / (2.0 * H**2))
        if kinds is not None:
            kernel *= kinds[:, None] == kinds[None]
        size = np.bincount(groups)
        inside = -np.log((kernel / size[groups]).sum(1))
        others = -np.log((kernel * (groups[:, None] != groups[None])).sum(1))
        for g in range(5):
            mine = groups == g
            assert found.density[g] == pytest.approx(inside[mine].mean(), abs=1e-10)
            assert found.mean[g] == pytest.approx(others[mine].mean(), abs=1e-10)
            assert found.max[g] == pytest.approx(others[mine].max(), abs=1e-10)
            assert found.novel[g] == pytest.approx(np.maximum(others[mine], 0.0).mean(), abs=1e-10)
            mine_labels = None if kinds is None else (kinds[mine], kinds[~mine])
            more = {} if mine_labels is None else {"y_labels": mine_labels[0], "x_labels": mine_labels[1]}
            assert novelty_of(x[mine], x[~mine], H, **more) == pytest.approx(found.novel[g], abs=1e-10)


def test_an_element_that_no_other_group_has_is_novel_without_limit() -> None:
    found = group_scores(X[:2], [0, 1], H, labels=[29, 47])
    assert found.mean.tolist() == found.novel.tolist() == [np.inf, np.inf]
    assert capped([np.inf, 0.5, 3.0]).tolist() == [3.0, 0.5, 3.0]
    assert capped([np.inf, 0.0]).tolist() == [1.0, 0.0]


def test_one_group_alone_has_no_scores() -> None:
    with pytest.raises(DataError, match="there is only one"):
        group_scores(X, [0, 0, 0], H)


# --- weights ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["uniform", "density", "novelty"])
@pytest.mark.parametrize("score", [3.0, 1e5])
def test_equal_scores_are_equal_weights(kind: str, score: float) -> None:
    assert row_weights([score] * 4, kind).tolist() == [1.0] * 4
    assert row_weights([score], kind).tolist() == [1.0]
    assert row_weights([], kind).shape == (0,)


def test_large_scores_do_not_overflow() -> None:
    """One rare row takes the largest weight, and the others share the rest."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_allclose(row_weights([0.0, 0.0, 5e5], "density"), [0.1, 0.1, 2.8], atol=1e-12)
        found = row_weights([5e5] + [0.0] * 99, "density")
        np.testing.assert_allclose(found, [10.0] + [90.0 / 99.0] * 99, atol=1e-12)
        found = row_weights([1e-3] + [0.0] * 99, "novelty")
        np.testing.assert_allclose(found, [10.0] + [90.0 / 99.0] * 99, atol=1e-12)
        np.testing.assert_allclose(row_weights([-5e5, 0.0], "density", (0.0, 2.0)), [0.0, 2.0], atol=1e-12)


def test_without_clipping_weights_are_exponentials() -> None:
    scores = np.array([-0.3, 0.2, 0.1, 0.9])
    expected = np.exp(scores) / np.exp(scores).mean()
    np.testing.assert_allclose(row_weights(scores, "density"), expected, rtol=1e-13)
    np.testing.assert_allclose(row_weights([1.0, 3.0], "novelty"), [0.5, 1.5], rtol=1e-13)


def test_the_mean_is_one_after_clipping() -> None:
    rng = np.random.default_rng(1)
    for _ in range(2000):
        scores = rng.normal(size=rng.integers(1, 30)) * 10.0 ** rng.uniform(-8, 6)
        scores = np.round(scores) if rng.random() < 0.3 else scores
        low, high = float(rng.choice([0.0, 0.01, 0.1, 0.999])), float(rng.choice([1.001, 1.5, 10.0, 1e6]))
        for kind in ("density", "novelty"):
            if kind == "novelty" and not (scores > 0.0).any():
                continue
            weights = row_weights(scores, kind, (low, high))
            assert weights.mean() == pytest.approx(1.0, abs=1e-12)
            assert weights.min() >= low
            assert weights.max() <= high
            assert (np.diff(weights[np.argsort(scores)]) >= -1e-12).all()


def test_nothing_novel_is_uniform_with_a_warning() -> None:
    with pytest.warns(DataWarning, match="nothing is novel"):
        assert row_weights([0.0, -2.0, 0.0], "novelty").tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("scores", "options", "told"),
    [
        ([0.0, np.nan], {"kind": "density"}, "scores must be finite, and that of row 1 is nan"),
        ([np.inf, 0.0], {"kind": "novelty"}, "scores must be finite, and that of row 0 is inf"),
        (["what"], {"kind": "density"}, "scores must be a list of numbers"),
        ([[0.0]], {"kind": "density"}, r"got the shape \(1, 1\)"),
        ([0.0], {"kind": "densty"}, "weights must be one of uniform, density, novelty, got 'densty'"),
        ([0.0], {"clip": (2.0, 3.0)}, "clip must be a range around 1"),
        ([0.0], {"clip": (-1.0, 3.0)}, "clip must be a range around 1"),
        ([0.0], {"clip": (0.1, np.inf)}, "the largest weight of clip must be finite"),
        ([0.0], {"clip": 3.0}, "clip must be two numbers"),
    ],
)
def test_what_is_refused(scores: Any, options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told) as error:
        row_weights(scores, **options)
    assert "\n" not in str(error.value)


def test_effective_sample_size() -> None:
    assert effective_sample_size(np.full(7, 0.3)) == pytest.approx(7.0)
    assert effective_sample_size([0.0, 5.0, 0.0]) == 1.0
    assert effective_sample_size([1.0, 3.0]) == pytest.approx(1.6)
    assert effective_sample_size([1e300, 3e300]) == pytest.approx(1.6)
    for wrong in ([], [0.0], [-1.0, 2.0], [np.nan]):
        with pytest.raises(DataError, match="weights must be finite and not negative, and not all zero"):
            effective_sample_size(wrong)
