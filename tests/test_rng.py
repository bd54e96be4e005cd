"""Random numbers: seeds give the same numbers again, generators are used as they are, anything else is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from quests_zenn._core.rng import as_rng


@pytest.mark.parametrize("seed", [0, 7, np.int64(7), 2**80])
def test_a_seed_gives_the_same_numbers_again(seed: Any) -> None:
    first, second = as_rng(seed), as_rng(seed)
    assert isinstance(first, np.random.Generator)
    assert first is not second
    np.testing.assert_array_equal(first.random(5), second.random(5))
    np.testing.assert_array_equal(as_rng(seed).random(5), np.random.default_rng(int(seed)).random(5))


def test_seeds_differ() -> None:
    assert as_rng(0).random() != as_rng(1).random()


def test_a_generator_is_used_as_it_is() -> None:
    generator = np.random.default_rng(3)
    assert as_rng(generator) is generator
    first = as_rng(generator).random(3)
    np.testing.assert_array_equal(
        np.concatenate([first, generator.random(3)]), np.random.default_rng(3).random(6)
    )  # one stream goes on


def test_none_is_fresh_each_time() -> None:
    assert not np.array_equal(as_rng(None).random(4), as_rng(None).random(4))


def test_the_global_state_stays_alone() -> None:
    before = np.random.get_state()[1].copy()  # type: ignore[index] # noqa: NPY002
    as_rng(None).random(10)
    as_rng(5).random(10)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # type: ignore[index] # noqa: NPY002


@pytest.mark.parametrize("bad", [-1, 1.5, "seed", object(), {"seed": 1}, [1, -2]])
def test_anything_else_is_refused(bad: Any) -> None:
    with pytest.raises(ValueError, match=r"random_state must be a whole number from 0, a numpy Generator or None, got"):
        as_rng(bad)
