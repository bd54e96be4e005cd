"""Random numbers: always an argument."""

from __future__ import annotations

from typing import Any

import numpy as np


def as_rng(random_state: Any) -> np.random.Generator:
    """A generator from a seed, a generator (used as it is), or None for a fresh one.

    Raises
    ------
    ValueError
        If it is none of these.
    """
    try:
        return np.random.default_rng(random_state)
    except (TypeError, ValueError):
        raise ValueError(
            f"random_state must be a whole number from 0, a numpy Generator or None, got {random_state!r}"
        ) from None
