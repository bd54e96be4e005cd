"""Judging arguments at the door: one clear sentence for each thing that can be wrong."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt


class DataError(ValueError):
    """Input data that cannot be used. The message says what, where (file, frame, atom), and what to do."""


class MissingExtraError(ImportError):
    """An optional part is not installed. The message names the extra that brings it."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"this needs {package}, which is not installed: pip install 'quests_zenn[{extra}]'")


def positive(value: Any, name: str) -> float:
    """`value` as a float that is positive and finite.

    Raises
    ------
    ValueError
        Otherwise.
    """
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be a number, got {value!r}") from None
    if not (math.isfinite(number) and number > 0.0):
        raise ValueError(f"{name} must be positive and finite, got {value!r}")
    return number


def whole_number(value: Any, name: str, least: int) -> int:
    """`value` as an int of at least `least`.

    Raises
    ------
    ValueError
        Otherwise.
    """
    try:
        number = int(value)
        exact = number == value and not isinstance(value, bool | np.bool_)
    except (TypeError, ValueError, OverflowError):
        exact, number = False, 0
    if not exact or number < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
    return number


def one_of(value: Any, name: str, choices: Sequence[str]) -> str:
    """`value` if it is one of `choices`.

    Raises
    ------
    ValueError
        Otherwise, listing the choices.
    """
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
    return str(value)


def as_matrix(x: npt.ArrayLike, name: str) -> npt.NDArray[np.floating]:
    """`x` as a C-contiguous matrix of float64 (float32 stays float32), whatever its memory layout.

    Raises
    ------
    ValueError
        If it is not two-dimensional with at least one row and one column, or not real numbers.
    """
    try:
        array = np.asarray(x)
        if array.dtype.kind not in "fiub":
            raise TypeError
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be a matrix of real numbers, one row per environment") from None
    if array.ndim != 2:
        raise ValueError(f"{name} must have two dimensions (environments, components), got shape {array.shape}")
    if array.shape[0] == 0 or array.shape[1] == 0:
        raise ValueError(f"{name} must hold at least one environment and one component, got shape {array.shape}")
    return np.ascontiguousarray(array, dtype=np.float32 if array.dtype == np.float32 else np.float64)


def as_bandwidths(h: Any) -> tuple[npt.NDArray[np.float64], bool]:
    """Bandwidths as an array (H,), and whether a single number was given.

    Raises
    ------
    ValueError
        If one is not positive and finite, or there is none.
    """
    single = np.ndim(h) == 0
    values = [positive(value, "bandwidth") for value in np.ravel(np.asarray(h, dtype=object)).tolist()]
    if not values:
        raise ValueError("at least one bandwidth is needed, got an empty list")
    return np.array(values), single


def as_weights(weights: npt.ArrayLike | None, n: int) -> npt.NDArray[np.float64] | None:
    """Weights as an array (n,) of finite, non-negative numbers, not all zero; None stays None.

    Raises
    ------
    ValueError
        Otherwise.
    """
    if weights is None:
        return None
    array = np.ascontiguousarray(weights, dtype=np.float64)
    if array.shape != (n,):
        raise ValueError(f"weights must have shape ({n},), one per environment, got {array.shape}")
    if not np.isfinite(array).all() or (array < 0.0).any():
        raise ValueError("weights must be finite and not negative")
    if not array.any():
        raise ValueError("weights must not all be zero")
    return array
