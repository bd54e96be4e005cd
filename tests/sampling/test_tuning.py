"""The search for the form of a model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("optuna")

from quests_zenn._core.checks import DataError
from quests_zenn.sampling.tuning import search
from quests_zenn.zenn import IDNN

pytestmark = pytest.mark.extra


def wavy(n: int) -> tuple[Any, Any]:
    """One neuron cannot follow it."""
    x = np.random.default_rng(0).uniform(-1.0, 1.0, (n, 1))
    return x, np.sin(6.0 * x)


MODEL = IDNN(hidden=(1,), adam_steps=60, max_iterations=25, verbose=False)
SPACE = {"hidden": [(1,), (6,)]}


def test_the_form_that_predicts_best_is_found() -> None:
    x, mu = wavy(40)
    found = search(MODEL, x, 300.0, mu, trials=3, space=SPACE, n_jobs=1)
    assert found == {"hidden": (6,)}


@pytest.mark.slow
def test_a_search_repeats_itself_and_leaves_the_model_alone() -> None:
    x, mu = wavy(20)
    space = {"hidden": [(1,), (2,), (3,)], "convexity": [0.0, 0.1]}
    first = search(MODEL, x, 300.0, mu, trials=3, space=space, random_state=5, n_jobs=1)
    assert search(MODEL, x, 300.0, mu, trials=3, space=space, random_state=5, n_jobs=2) == first
    assert not hasattr(MODEL, "z_")
    assert MODEL.hidden == (1,)


def test_what_is_refused() -> None:
    x, mu = wavy(6)
    with pytest.raises(ValueError, match="'dropout', which IDNN does not have"):
        search(MODEL, x, 300.0, mu, space={"dropout": [0.1]})
    with pytest.raises(ValueError, match="no choices for 'hidden'"):
        search(MODEL, x, 300.0, mu, space={"hidden": []})
    with pytest.raises(ValueError, match="trials"):
        search(MODEL, x, 300.0, mu, trials=0)
    with pytest.raises(DataError, match="needs 3 points with known potentials, got 2"):
        search(MODEL, x[:3], 300.0, np.concatenate([mu[:2], [[np.nan]]]))
