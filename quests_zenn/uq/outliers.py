"""What stands out in a data set: environments that no other group of its frames knows, and why."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import cdist

from quests_zenn._core.checks import whole_number
from quests_zenn.descriptors import DEFAULT_CUTOFF, DEFAULT_K, element_symbols
from quests_zenn.descriptors._layout import block_names
from quests_zenn.entropy import DEFAULT_BANDWIDTH
from quests_zenn.entropy.bandwidth import SAME
from quests_zenn.io.frames import FrameSource
from quests_zenn.uq.filter import chosen_rows
from quests_zenn.uq.reference import Reference
from quests_zenn.uq.thresholds import leave_out

#: Environments that are compared at once with the few that stand out.
_BLOCK = 65_536

#: Share of the squared distance from which on the places of the neighbours among each other are the reason.
MOSTLY = 0.8

#: Neighbours whose distances tell whether all is closer or farther; and the least change that counts as such.
_FIRST, _LEAST_SCALE = 12, 0.02


@dataclass(frozen=True)
class Outlier:
    """An atom, how far it stands out, and what it differs in from the nearest environment of another group.

    Attributes
    ----------
    dh : float
        Given all other groups, nats; inf where none of them has the element.
    row : int
        Its environment, among all of the data set.
    frame, atom : int
        From 0.
    element : str
    nearest_row, nearest_frame, nearest_atom : int
        The nearest environment of another group; -1 where there is none.
    nearest_element : str
        Element at its centre.
    distance : float
        Between the two, 1/Å.
    dh_nearest : float
        dH if there were no other environment than the nearest one, d^2 / (2 h^2), nats. Never less than `dh`.
    neighbour : int
        Place, from 1, of the neighbour whose distance differs most (in X1).
    neighbour_element : str
        Its element, where the descriptor tells it (species blocks or pairs, and no other neighbour is as far); else
        empty.
    here, there : float
        Distance of that neighbour, of the atom and in the nearest environment, Å; inf where there is none.
    n_here, n_there : int
        Neighbours inside the cutoff, at most k.
    share_of_neighbours : float
        Share of the squared distance that comes from distances to neighbours (X1); the rest is about distances among
        neighbours (X2), and about elements where the descriptor tells them apart.
    reason : str
        All that in words.
    """

    dh: float
    row: int
    frame: int
    atom: int
    element: str
    nearest_row: int
    nearest_frame: int
    nearest_atom: int
    nearest_element: str
    distance: float
    dh_nearest: float
    neighbour: int
    neighbour_element: str
    here: float
    there: float
    n_here: int
    n_there: int
    share_of_neighbours: float
    reason: str


@dataclass(frozen=True)
class Outliers:
    """Leave-out dH of a whole data set, and what stands out.

    Attributes
    ----------
    atoms : list of Outlier
        The most surprising first.
    dh : numpy.ndarray, shape (N,), nats
        Of every environment, given all other groups.
    mean, max : numpy.ndarray, shape (F,), nats
        Of the environments of each frame that were asked about; NaN where there are none.
    frame_order : numpy.ndarray, shape (F',)
        Frames in descending order of their mean dH; of copies only the first, and none without such environments.
    groups : numpy.ndarray, shape (F,)
        Group of each frame, with groups that hold copies of each other joined.
    first_copy : numpy.ndarray of bool, shape (F,)
        Whether no earlier frame is a copy of this one.
    reference : Reference
        The data set.
    """

    atoms: list[Outlier]
    dh: npt.NDArray[np.float64]
    mean: npt.NDArray[np.float64]
    max: npt.NDArray[np.float64]
    frame_order: npt.NDArray[np.int64]
    groups: npt.NDArray[np.int64]
    first_copy: npt.NDArray[np.bool_]
    reference: Reference


def find_outliers(
    data: Reference | FrameSource,
    number: int = 20,
    *,
    bandwidth: float = DEFAULT_BANDWIDTH,
    k: int = DEFAULT_K,
    cutoff: float = DEFAULT_CUTOFF,
    species: str = "none",
    groups: npt.ArrayLike | None = None,
    among: npt.NDArray[np.int64] | None = None,
    one_per_frame: bool = False,
    jobs: int | None = None,
) -> Outliers:
    """Atoms of a data set that no other group of its frames knows, the most surprising first, each with the reason.

    Parameters
    ----------
    data : Reference, structures, or names of files
        A reference brings its own parameters and groups.
    number : int
        Atoms to explain; fewer if there are not so many.
    bandwidth, k, cutoff, species, groups
        See `Reference.fit`. By default each frame is a group of its own. Frames that are copies of each other, up to
        symmetry, always belong to one group, and only the first of them is ranked.
    among : numpy.ndarray of int, optional
        Environments that are asked about, from 0 in the order of frames and atoms; by default all.
    one_per_frame : bool
        Of each frame, rank only the atom that stands out most.
    jobs : int or None
        Threads; None for all available cores.

    Returns
    -------
    Outliers

    Raises
    ------
    DataError, ValueError
        See `Reference.fit`; if there is only one group.
    """
    number = whole_number(number, "number", 1)
    if isinstance(data, Reference):
        reference = data
    else:
        reference = Reference.fit(data, bandwidth, k, cutoff, species, groups=groups, jobs=jobs)
    found = leave_out(reference, whole_only=False, most=len(reference), jobs=jobs)
    dh, owner = found.dh, found.frames
    ranked = np.zeros(len(dh), bool)
    ranked[slice(None) if among is None else chosen_rows(among, len(ranked), "among")] = True
    sizes = np.bincount(owner[ranked], minlength=reference.n_frames)
    there = sizes > 0
    starts = (np.cumsum(sizes) - sizes)[there]
    mean, largest = np.full((2, reference.n_frames), np.nan)
    if there.any():
        mean[there] = np.add.reduceat(dh[ranked], starts) / sizes[there]
        largest[there] = np.maximum.reduceat(dh[ranked], starts)
    rows = np.flatnonzero(ranked & found.first_copy[owner])
    rows = rows[np.argsort(-dh[rows], kind="stable")]
    if one_per_frame:
        rows = rows[np.sort(np.unique(owner[rows], return_index=True)[1])]
    order = np.argsort(-mean, kind="stable")
    return Outliers(
        _explain(reference, rows[:number], dh, owner, found.groups),
        dh,
        mean,
        largest,
        order[found.first_copy[order] & there[order]],
        found.groups,
        found.first_copy,
        reference,
    )


def _explain(
    reference: Reference,
    rows: npt.NDArray[np.int64],
    dh: npt.NDArray[np.float64],
    owner: npt.NDArray[np.int64],
    groups: npt.NDArray[np.int64],
) -> list[Outlier]:
    """The rows, each compared with the nearest environment of another group."""
    nearest, distances = _nearest_of_others(reference, rows, groups[owner])
    return [
        _compare(reference, int(row), float(dh[row]), int(other), float(distance), owner)
        for row, other, distance in zip(rows, nearest, distances, strict=True)
    ]


def _nearest_of_others(
    reference: Reference, rows: npt.NDArray[np.int64], member: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """For each of some rows (m,) the nearest environment of another group that it can resemble, and its distance."""
    x, numbers = reference.x, reference.numbers
    best, found = np.full(len(rows), np.inf), np.full(len(rows), -1)
    own = np.asarray(x[rows], np.float64)
    for first in range(0, len(x), _BLOCK):
        block = slice(first, first + _BLOCK)
        apart = cdist(own, np.asarray(x[block], np.float64))
        apart[member[rows][:, None] == member[block][None, :]] = np.inf
        if reference.tells_centres:
            apart[numbers[rows][:, None] != numbers[block][None, :]] = np.inf
        at = apart.argmin(axis=1)
        value = apart[np.arange(len(rows)), at]
        closer = value < best
        best[closer], found[closer] = value[closer], at[closer] + first
    return found, best


def _compare(
    reference: Reference, row: int, dh: float, other: int, distance: float, owner: npt.NDArray[np.int64]
) -> Outlier:
    """What an environment and the nearest of another group differ in."""
    frame = int(owner[row])
    element = _symbol(reference.numbers[row])
    own = neighbour_distances(reference.x[row], reference.k, reference.cutoff)
    n_here = int(np.isfinite(own).sum())
    if other < 0:
        reason = f"no other group holds {element}"
        return Outlier(
            dh, row, frame, row - int(reference.frame_offsets[frame]), element, -1, -1, -1, "", math.inf, math.inf,
            0, "", math.inf, math.inf, n_here, 0, math.nan, reason,
        )  # fmt: skip
    known = neighbour_distances(reference.x[other], reference.k, reference.cutoff)
    n_there = int(np.isfinite(known).sum())
    squares = (np.asarray(reference.x[row], np.float64) - reference.x[other]) ** 2
    width = 2 * reference.k - 1
    of_neighbours = squares.reshape(-1, width)[:, : reference.k].sum()
    total = squares.sum()
    share = float(of_neighbours / total) if total > 0.0 else math.nan
    place = int(squares[: reference.k].argmax())
    nearest_frame = int(owner[other])
    nearest_element = _symbol(reference.numbers[other])
    kind = _element_of(reference, row, float(reference.x[row][place]))
    reason = _in_words(
        own, known, place, kind, n_here, n_there, share, squares.reshape(-1, width).sum(axis=1), total, reference,
        element, nearest_element,
    )  # fmt: skip
    return Outlier(
        dh, row, frame, row - int(reference.frame_offsets[frame]), element, other, nearest_frame,
        other - int(reference.frame_offsets[nearest_frame]), nearest_element, distance,
        distance**2 / (2.0 * reference.bandwidth**2), place + 1, kind, float(own[place]), float(known[place]), n_here,
        n_there, share, reason,
    )  # fmt: skip


def _in_words(
    own: npt.NDArray[np.float64],
    known: npt.NDArray[np.float64],
    place: int,
    kind: str,
    n_here: int,
    n_there: int,
    share: float,
    of_blocks: npt.NDArray[np.float64],
    total: float,
    reference: Reference,
    element: str,
    nearest_element: str,
) -> str:
    """One sentence; `there` is the nearest environment of another group."""
    if total <= SAME**2:
        return "equal to one of another group"
    told = []
    if element != nearest_element:
        told.append(f"the atom there is {nearest_element}")
    name = "nearest neighbour" if place == 0 else f"{_ordinal(place + 1)} neighbour"
    by_neighbour = f"{name}{f' ({kind})' if kind else ''} at {_at(own[place])}, there at {_at(known[place])}"
    m = min(_FIRST, n_here, n_there)
    ratios = own[:m] / known[:m]
    scale = float(np.median(ratios)) if m > 1 else 1.0
    spread = float(np.abs(ratios - scale).max()) if m > 1 else math.inf
    if abs(scale - 1.0) >= _LEAST_SCALE and spread < 0.5 * abs(scale - 1.0):
        farther = "farther" if scale > 1.0 else "closer"
        told.append(
            f"all neighbours {abs(scale - 1.0):.0%} {farther} than there (the nearest at {_at(own[0])}, there at "
            f"{_at(known[0])})"
        )
    elif len(of_blocks) > 1 and of_blocks[1:].sum() > MOSTLY * total:
        told.append(f"the elements around it differ; {by_neighbour}")
    elif share < 1.0 - MOSTLY:
        told.append(f"its neighbours stand differently to each other; {by_neighbour}")
    else:
        told.append(by_neighbour)
    if n_here != n_there:
        told.append(f"{_count(n_here, reference.k)} neighbours within {reference.cutoff:g} Å, there "
                    f"{_count(n_there, reference.k)}")  # fmt: skip
    return "; ".join(told)


def _element_of(reference: Reference, row: int, value: float) -> str:
    """Element of the neighbour whose component of the first block has this value; empty where it cannot be told."""
    if reference.species == "none" or value <= 0.0:
        return ""
    width, centre = 2 * reference.k - 1, _symbol(reference.numbers[row])
    own = np.asarray(reference.x[row], np.float64)
    found = []
    for name, start in zip(block_names(reference.elements, reference.species), range(0, len(own), width), strict=True):
        if centre in name and np.isclose(own[start : start + reference.k], value, rtol=1e-6, atol=0.0).any():
            found.append(name[0] if name[-1] == centre else name[-1])
    if not found and reference.species == "blocks":  # there is a block of the own element only
        found = [element for element in reference.elements if element != centre]
    return found[0] if len(found) == 1 else ""


def _ordinal(n: int) -> str:
    ending = "th" if n % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{ending}"


def _at(distance: float) -> str:
    return f"{distance:.2f} Å" if math.isfinite(distance) else "no place inside the cutoff"


def _count(n: int, k: int) -> str:
    return f"{k} or more" if n == k else str(n)


def _symbol(number: Any) -> str:
    return element_symbols(np.array([number]))[0]


def neighbour_distances(x: npt.NDArray[np.floating], k: int, cutoff: float) -> npt.NDArray[np.float64]:
    """Distances r (k,) of the nearest neighbours from a row of environments, Å; inf where there is none.

    The first k components are ``X1 = (1 - (r / r_c)^2)^2 / r``, which falls from infinity to 0 between 0 and the cutoff
    r_c, and so has an inverse; it is found by bisection.
    """
    values = np.asarray(x[:k], np.float64)
    low, high = np.zeros(k), np.full(k, cutoff)
    for _ in range(60):
        middle = 0.5 * (low + high)
        beyond = (1.0 - (middle / cutoff) ** 2) ** 2 < values * middle
        low, high = np.where(beyond, low, middle), np.where(beyond, middle, high)
    return np.where(values > 0.0, 0.5 * (low + high), np.inf)
