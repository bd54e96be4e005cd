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
    for row in rows:
        precision += row.T @ np.diag(noise**-2.0) @ row
    covariance = np.linalg.inv(precision)
    return float(np.mean([np.trace(ahead[i] @ covariance @ ahead[i].T) for i in over]))


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 3), st.integers(1, 6), st.integers(0, 5), st.integers(0, 10_000))
def test_gains_are_those_of_regressions_done_anew(q: int, size: int, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    known, ahead = rng.normal(size=(n, q, size)), rng.normal(size=(7, q, size))
    noise = rng.uniform(0.05, 2.0, q)
    over = np.array([0, 2, 3, 6])
    posterior = Posterior(known / noise[:, None], ahead, noise, over)
    rows = known
    for pick in (4, 2, 4):  # the same point may be measured twice
        before = mean_variance(rows, noise, ahead, over)
        gains = [before - mean_variance(np.concatenate([rows, ahead[i : i + 1]]), noise, ahead, over) for i in range(7)]
        np.testing.assert_allclose(posterior.gains(), gains, rtol=1e-7, atol=1e-10)
        posterior.measure(pick)
        rows = np.concatenate([rows, ahead[pick : pick + 1]])


def test_the_most_telling_point_is_in_the_middle_of_those_that_it_tells_of() -> None:
    """Parameters seen by one candidate alone tell of it alone; the one that all share tells of all."""
    ahead = np.zeros((5, 1, 5))
    for i in range(4):
        ahead[i, 0, i] = 1.0
    ahead[:, 0, 4] = 0.5
    ahead[4, 0, 4] = 1.0
    picks = most_telling([Posterior(np.zeros((0, 1, 5)), ahead, np.array([0.1]), np.arange(5))], 5)
    assert picks[0] == 4
    assert sorted(picks) == [0, 1, 2, 3, 4]
    assert picks[1:] == [0, 1, 2, 3]  # alike: in their order


def test_noisy_points_tell_less() -> None:
    ahead = np.array([[[1.0, 0.0]], [[0.0, 1.0]]])
    posterior = Posterior(np.array([[[10.0, 0.0]]]), ahead, np.array([0.1]), np.arange(2))
    assert posterior.gains()[1] > 50.0 * posterior.gains()[0]  # the first is known already
    noisy = Posterior(np.zeros((0, 1, 2)), ahead, np.array([10.0]), np.arange(2))
    quiet = Posterior(np.zeros((0, 1, 2)), ahead, np.array([0.01]), np.arange(2))
    assert quiet.gains()[0] > 50.0 * noisy.gains()[0]


def test_no_variance_becomes_negative() -> None:
    rng = np.random.default_rng(0)
    ahead = rng.normal(size=(40, 2, 10))
    posterior = Posterior(np.zeros((0, 2, 10)), ahead, np.array([1e-3, 1e-3]), np.arange(40))
    first = posterior.gains().max()
    for row in range(40):
        posterior.measure(row)
    assert (posterior.gains() > -1e-6 * first).all()
    assert np.linalg.eigvalsh(posterior.own).min() > -1e-6


@pytest.mark.parametrize("n", [0, 3, 9])
def test_as_many_as_there_are(n: int) -> None:
    rng = np.random.default_rng(1)
    posterior = Posterior(np.zeros((0, 1, 2)), rng.normal(size=(5, 1, 2)), np.array([0.1]), np.arange(5))
    picks = most_telling([posterior], n)
    assert len(picks) == len(set(picks)) == min(n, 5)
