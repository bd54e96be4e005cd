"""Rows of one layout of species blocks in that of more elements."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def block_names(elements: Sequence[str], species: str) -> list[tuple[str, ...]]:
    """Names of the blocks of a row, in order: (), then (A,) for each element, then (A, B) for each pair."""
    names: list[tuple[str, ...]] = [()]
    if species != "none":
        names += [(a,) for a in elements]
    if species == "pairs":
        names += [(a, b) for i, a in enumerate(elements) for b in elements[i + 1 :]]
    return names


def columns_of(some: Sequence[str], all_: Sequence[str], species: str, k: int) -> npt.NDArray[np.int64]:
    """Columns that blocks of some elements have in the layout of more elements."""
    width = 2 * k - 1
    place = {name: b for b, name in enumerate(block_names(all_, species))}
    starts = np.array([place[name] * width for name in block_names(some, species)], np.int64)
    return (starts[:, None] + np.arange(width)).ravel()


def relayout(
    x: npt.NDArray[np.floating], old: Sequence[str], new: Sequence[str], species: str, k: int
) -> npt.NDArray[np.floating]:
    """Rows of a layout of elements in that of more elements; new blocks hold zeros."""
    if species == "none" or tuple(old) == tuple(new):
        return x
    wider = np.zeros((len(x), len(block_names(new, species)) * (2 * k - 1)), x.dtype)
    wider[:, columns_of(old, new, species, k)] = x
    return wider
