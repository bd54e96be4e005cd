"""Judging arguments at the door: one clear sentence for each thing that can be wrong. (Arrays: see `arrays`.)"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np


class DataError(ValueError):
    """Input data that cannot be used. The message says what, where (file, frame, atom), and what to do."""


class DataWarning(UserWarning):
    """Something about the data that a user should know; commands print it as one line."""


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
    except OverflowError:
        number = math.inf
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be a number, got {value!r}") from None
    if not (math.isfinite(number) and number > 0.0):
        raise ValueError(f"{name} must be positive and finite, got {value!r}")
    return number


def finite(value: Any, name: str) -> float:
    """`value` as a finite float.

    Raises
    ------
    ValueError
        Otherwise.
    """
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be a number, got {value!r}") from None
    if not math.isfinite(number):
        raise ValueError(f"{name} must be finite, got {value!r}")
    return number


#: Bandwidths outside of this range are mistakes, and their squares would leave the range of numbers.
NARROWEST, WIDEST = 1e-9, 1e9


def bandwidth(value: Any) -> float:
    """`value` as a bandwidth.

    Raises
    ------
    ValueError
        If it is not a number between `NARROWEST` and `WIDEST`.
    """
    number = positive(value, "bandwidth")
    if not NARROWEST <= number <= WIDEST:
        raise ValueError(f"bandwidth must lie between {NARROWEST:g} and {WIDEST:g}, got {number!r}")
    return number


def bandwidth_list(values: Iterable[Any]) -> list[float]:
    """Each of the values as a bandwidth. See `bandwidth`."""
    return [bandwidth(value) for value in values]


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
