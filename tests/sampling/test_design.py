"""Optimal design of a linear model, against regression done anew with each point added."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quests_zenn.sampling._design import Posterior, most_telling

Array = npt.NDArray[np.float64]


def mean_variance(rows: Array, noise: Array, ahead: Array, over: Array) -> float:
    """Of all components of mu at the candidates `over`, with unit priors and these rows (n, q, P) measured."""
    precision = np.eye(ahead.shape[-1])
    for row, width in zip(rows, noise, strict=True):
        precision += row.T @ np.diag(width**-2.0) @ row
    covariance = np.linalg.inv(precision)
    return float(np.mean([np.trace(ahead[i] @ covariance @ ahead[i].T) for i in over]))


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 3), st.integers(1, 6), st.integers(0, 5), st.integers(0, 10_000), st.booleans())
def test_gains_are_those_of_regressions_done_anew(q: int, size: int, n: int, seed: int, alike: bool) -> None:
    rng = np.random.default_rng(seed)
    known, ahead = rng.normal(size=(n, q, size)), rng.normal(size=(7, q, size))
    usual = rng.uniform(0.05, 2.0, q)
    own = np.tile(usual, (7, 1)) if alike else usual * rng.uniform(0.3, 3.0, (7, 1))
    over = np.array([0, 2, 3, 6])
    told = (known / usual[:, None]).reshape(-1, size)
    posterior = Posterior(told.T @ told, ahead, usual if alike else own, over)
    rows, noise = known, np.tile(usual, (n, 1))
    for pick in (4, 2, 4):  # the same point may be measured twice
        before = mean_variance(rows, noise, ahead, over)
        gains = [
            before - mean_variance(np.append(rows, ahead[[i]], 0), np.append(noise, own[[i]], 0), ahead, over)
            for i in range(7)
        ]
        np.testing.assert_allclose(posterior.gains(), gains, rtol=1e-7, atol=1e-10)
        posterior.measure(pick)
        rows, noise = np.append(rows, ahead[[pick]], 0), np.append(noise, own[[pick]], 0)


def test_the_most_telling_point_is_in_the_middle_of_those_that_it_tells_of() -> None:
    """Parameters seen by one candidate alone tell of it alone; the one that all share tells of all."""
    ahead = np.zeros((5, 1, 5))
    for i in range(4):
        ahead[i, 0, i] = 1.0
    ahead[:, 0, 4] = 0.5
    ahead[4, 0, 4] = 1.0
    picks = most_telling([Posterior(np.zeros((5, 5)), ahead, np.array([0.1]), np.arange(5))], 5)
    assert picks[0] == 4
    assert sorted(picks) == [0, 1, 2, 3, 4]
    assert picks[1:] == [0, 1, 2, 3]  # alike: in their order


def test_noisy_points_tell_less() -> None:
    ahead = np.array([[[1.0, 0.0]], [[0.0, 1.0]]])
    posterior = Posterior(np.diag([100.0, 0.0]), ahead, np.array([0.1]), np.arange(2))
    assert posterior.gains()[1] > 50.0 * posterior.gains()[0]  # the first is known already
    noisy = Posterior(np.zeros((2, 2)), ahead, np.array([10.0]), np.arange(2))
    quiet = Posterior(np.zeros((2, 2)), ahead, np.array([0.01]), np.arange(2))
    assert quiet.gains()[0] > 50.0 * noisy.gains()[0]


def test_no_variance_becomes_negative() -> None:
    rng = np.random.default_rng(0)
    ahead = rng.normal(size=(40, 2, 10))
    posterior = Posterior(np.zeros((10, 10)), ahead, np.array([1e-3, 1e-3]), np.arange(40))
    first = posterior.gains().max()
    for row in range(40):
        posterior.measure(row)
    assert (posterior.gains() > -1e-6 * first).all()
    assert np.linalg.eigvalsh(posterior.own).min() > -1e-6


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("n", [0, 3, 20])
def test_as_many_as_there_are(n: int, seed: int) -> None:
    """Also where all is known long before the last: rounding must not end it."""
    ahead = np.random.default_rng(seed).normal(size=(12, 1, 3))
    picks = most_telling([Posterior(np.zeros((3, 3)), ahead, np.array([1e-3]), np.arange(12))], n)
    assert len(picks) == len(set(picks)) == min(n, 12)


def test_members_are_asked_together() -> None:
    """To one member only the first point tells anything, to another only the second; the third tells both some."""
    shapes = [[3.0, 0.0, 2.0], [0.0, 3.0, 2.0]]
    members = [np.array(shape)[:, None, None] for shape in shapes]
    posteriors = [Posterior(np.zeros((1, 1)), ahead, np.array([2.0]), np.arange(3)) for ahead in members]
    alone = [most_telling([Posterior(np.zeros((1, 1)), a, np.array([2.0]), np.arange(3))], 1) for a in members]
    assert alone == [[0], [1]]
    assert most_telling(posteriors, 1) == [2]
