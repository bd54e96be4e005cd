"""Judging arrays at the door: what comes out is contiguous, of one type, and finite."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from quests_zenn._core.checks import bandwidth
from quests_zenn._core.jit import strict_kernel


@strict_kernel
def first_bad_row(x):  # type: ignore[no-untyped-def]
    """Index of the first row of x that holds NaN or infinity, or -1. Allocates nothing."""
    for i in range(x.shape[0]):
        for c in range(x.shape[1]):
            if not np.isfinite(x[i, c]):
                return i
    return -1


def as_matrix(x: npt.ArrayLike, name: str) -> npt.NDArray[np.floating]:
    """`x` as a C-contiguous matrix of float64 (float32 stays float32), whatever its memory layout.

    Raises
    ------
    ValueError
        If it is not two-dimensional with at least one row and one column, or not real and finite numbers.
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
    dtype: type[np.floating] = np.float32 if array.dtype == np.float32 else np.float64
    matrix: npt.NDArray[np.floating] = np.ascontiguousarray(array, dtype=dtype)
    bad = first_bad_row(matrix)
    if bad >= 0:
        raise ValueError(f"{name} must be finite, but row {bad} holds NaN or infinity")
    return matrix


def as_bandwidths(h: Any) -> tuple[npt.NDArray[np.float64], bool]:
    """Bandwidths as an array (H,), and whether a single number was given.

    Raises
    ------
    ValueError
        If one is not positive and finite, or there is none.
    """
    single = np.ndim(h) == 0
    values = [bandwidth(value) for value in np.ravel(np.asarray(h, dtype=object)).tolist()]
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
    given = np.asarray(weights)
    if given.dtype.kind not in "fiub":
        raise ValueError("weights must be real numbers, one per environment")
    array = np.ascontiguousarray(given, dtype=np.float64)
    if array.shape != (n,):
        raise ValueError(f"weights must have shape ({n},), one per environment, got {array.shape}")
    if not np.isfinite(array).all() or (array < 0.0).any():
        raise ValueError("weights must be finite and not negative")
    if not array.any():
        raise ValueError("weights must not all be zero")
    return array


def as_codes(labels: npt.ArrayLike | None, n: int, name: str) -> npt.NDArray[np.int64] | None:
    """Labels of any kind, one per environment, as whole numbers from 0 in sorted order; None stays None.

    Raises
    ------
    ValueError
        If their number is not `n`, or they cannot be sorted.
    """
    if labels is None:
        return None
    array = np.asarray(labels)
    if array.shape != (n,):
        raise ValueError(f"{name} must have shape ({n},), one per environment, got {array.shape}")
    if array.dtype.kind == "f" and np.isnan(array).any():
        raise ValueError(f"{name} must not hold NaN, which equals nothing, not even itself")
    try:
        return np.unique(array, return_inverse=True)[1].astype(np.int64)
    except TypeError:
        raise ValueError(f"{name} must be of one kind, so that they can be sorted") from None
