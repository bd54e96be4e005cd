"""From which dH on something is novel: what a reference says of its own structures when it has not seen them."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from quests_zenn._core.checks import DataError, DataWarning, one_of
from quests_zenn._core.parallel import Workers
from quests_zenn.entropy._leave_out import log_sums_of_unseen
from quests_zenn.entropy.bandwidth import SAME
from quests_zenn.uq import _conformal
from quests_zenn.uq._conformal import LEAST_RATE, equal_shares, fewest_groups, weighted_quantile
from quests_zenn.uq.reference import STATISTICS, Reference

#: Environments up to which each of them is scored; of larger references whole groups are drawn until so many are
#: reached. The rate of false alarms is then known to a tenth of itself at 1 %.
SCORED = 50_000


#: Groups drawn at least, of large frames: 99 of them tell a rate of 1 %.
GROUPS = 200


@dataclass(frozen=True)
class LeftOut:
    """dH of environments of a reference given all *other* groups of frames.

    Attributes
    ----------
    dh : numpy.ndarray, shape (n,), nats
        inf where no other group has that element.
    rows : numpy.ndarray, shape (n,)
        Which environments of the reference these are; in a large reference, a sample of whole groups.
    frames : numpy.ndarray, shape (n,)
        Their frames.
    groups : numpy.ndarray, shape (F,)
        Group of each frame of the reference, copies merged.
    first_copy : numpy.ndarray of bool, shape (F,)
        Whether no earlier frame is a copy of it.
    """

    dh: npt.NDArray[np.float64]
    rows: npt.NDArray[np.int64]
    frames: npt.NDArray[np.int64]
    groups: npt.NDArray[np.int64]
    first_copy: npt.NDArray[np.bool_]


def find_copies(
    x: npt.NDArray[np.floating],
    numbers: npt.NDArray[np.int64],
    frame_offsets: npt.NDArray[np.int64],
    tolerance: float = SAME,
) -> npt.NDArray[np.int64]:
    """For each frame (F,), the first frame that it is a copy of, which may be itself.

    Frames are copies of each other, up to rotations, reflections, order of atoms and repetition of the cell, if each
    environment of one has an environment of the same element in the other within `tolerance` (1/Å), and their means
    agree as well.
    """
    n_frames = len(frame_offsets) - 1
    sizes = np.diff(frame_offsets)
    means = np.add.reduceat(x, frame_offsets[:-1], axis=0, dtype=np.float64) / sizes[:, None]
    nearby = cKDTree(means)
    first = np.full(n_frames, -1, np.int64)

    def tree(frame: int) -> cKDTree:
        rows = slice(int(frame_offsets[frame]), int(frame_offsets[frame + 1]))
        # elements farther apart than any tolerance
        return cKDTree(np.column_stack([x[rows], 1e3 * numbers[rows]]))

    for frame in range(n_frames):
        if first[frame] >= 0:
            continue
        first[frame] = frame
        others = [other for other in nearby.query_ball_point(means[frame], tolerance) if first[other] < 0]
        if not others:
            continue
        own = tree(frame)
        for other in others:
            its = tree(other)
            there = own.query(its.data, distance_upper_bound=tolerance)[0]
            if np.isfinite(there).all() and np.isfinite(its.query(own.data, distance_upper_bound=tolerance)[0]).all():
                first[other] = frame
    return first


def merge_copies(groups: npt.NDArray[np.int64], first: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Groups (F,) of frames, joined wherever they hold copies of the same frame (see `find_copies`)."""
    n_groups = int(groups.max()) + 1
    links = coo_array((np.ones(len(first)), (groups, groups[first])), shape=(n_groups, n_groups))
    merged: npt.NDArray[np.int64] = connected_components(links, directed=False)[1][groups].astype(np.int64)
    return merged


def leave_out(
    reference: Reference, *, whole_only: bool = True, most: int = SCORED, seed: int = 0, jobs: int | None = None
) -> LeftOut:
    """dH of the environments of a reference given all other groups, copies merged.

    Frames of which only the new environments were added are among the others.

    Parameters
    ----------
    whole_only : bool
        Do not ask frames of which only the new environments were added: what is left of them is no sample of anything.
    most : int
        If there are more environments, groups are drawn at random until so many are reached.
    seed : int
        Of that draw.
    jobs : int or None
        Threads; None for all available cores.

    Raises
    ------
    DataError
        If there is only one group.
    """
    offsets = reference.frame_offsets
    whole = ~reference.in_part if whole_only else np.ones(reference.n_frames, bool)
    first = find_copies(reference.x, reference.numbers, offsets)
    groups = merge_copies(reference.groups, first)
    n_groups = int(groups.max()) + 1
    if n_groups < 2 or not whole.any():
        raise DataError(
            "leaving groups out needs at least two groups of frames that are no copies of each other, and there is "
            "only one"
        )
    owner = np.repeat(np.arange(len(groups)), np.diff(offsets))
    member = groups[owner]
    chosen = np.zeros(n_groups, bool)
    chosen[groups[whole]] = True
    sizes = np.bincount(member, minlength=n_groups) * chosen
    if sizes.sum() > most:
        order = np.random.default_rng(seed).permutation(np.flatnonzero(chosen))
        reached = np.cumsum(sizes[order])
        enough = int(np.searchsorted(reached, most)) + 1
        # so many groups, where that is not five times the work
        enough = max(enough, min(GROUPS, int(np.searchsorted(reached, 5 * most)) + 1))
        chosen[order[enough:]] = False
    rows = np.flatnonzero(chosen[member])
    dh = np.full(len(rows), np.inf)
    x, h = reference.x, np.array([reference.bandwidth])
    labels = reference.numbers if reference.tells_centres else np.zeros(len(owner), np.int64)
    with Workers(jobs) as workers:
        for label in np.unique(labels[rows]):
            alike = np.flatnonzero(labels == label)
            asked = np.flatnonzero(labels[rows] == label)
            among = np.searchsorted(alike, rows[asked])
            dh[asked] = 0.0 - log_sums_of_unseen(x[alike], h, member[alike], among, workers)[0]
    told = whole[owner[rows]]
    return LeftOut(dh[told], rows[told], owner[rows[told]], groups, first == np.arange(len(first)))


def group_quantile(
    scores: npt.NDArray[np.float64], groups: npt.NDArray[np.int64], false_alarm: float, what: str
) -> float:
    """The smallest threshold that a share `false_alarm` of what belongs to one more such group reaches, in expectation.

    Groups are what is exchangeable, so each of them counts alike, and its members share its weight. For frames, one
    more group stands above all, in the place of the one to come, so that the rate is at most the stated one (the
    quantile of `quests_zenn.uq.ErrorBound`). For atoms it does not: of many atoms of many groups, that would be far too
    careful. Their rate is the one found, and of new groups it may be larger by up to 1 / (number of groups + 1).

    Parameters
    ----------
    scores : numpy.ndarray, shape (n,)
    groups : numpy.ndarray, shape (n,)
        Whole numbers.
    what : {"atoms", "frames"}
        What the scores are of.

    Raises
    ------
    DataError
        If there are too few groups for such a small rate of frames, or the threshold would be infinite.

    Warns
    -----
    DataWarning
        If there are too few groups for such a small rate of atoms.
    """
    n_groups = len(np.unique(groups))
    needed = fewest_groups(1.0 - false_alarm)
    if what == "atoms":
        if n_groups < needed:
            warnings.warn(
                f"a false-alarm rate of {false_alarm:g} takes at least {needed} groups of frames to be certain, and "
                f"there are {n_groups}: up to {false_alarm + 1.0 / (n_groups + 1):.2g} of the atoms of new groups may "
                "be flagged",
                DataWarning,
                stacklevel=2,
            )
        value = weighted_quantile(scores, equal_shares(groups), 1.0 - false_alarm)
    elif n_groups >= needed:
        value = _conformal.group_quantile(scores, groups, (1.0 - false_alarm,))[0]
    else:
        raise DataError(
            f"a false-alarm rate of {false_alarm:g} takes at least {needed} groups of frames that are no copies of "
            f"each other, and there are {n_groups}; rates from {math.ceil(1e3 / (n_groups + 1)) / 1e3:g} on can be told"
        )
    if not math.isfinite(value):
        raise DataError(
            f"more than {false_alarm:g} of the {what} hold an element that no other group of frames holds, so that no "
            "threshold has this false-alarm rate"
        )
    return math.nextafter(value, math.inf)  # novel is what reaches the threshold


def auto_threshold(
    reference: Reference, false_alarm: float = 0.01, *, of: str = "atom", jobs: int | None = None
) -> float:
    """dH from which on something is novel, with a stated rate of false alarms.

    Every group of frames is left out in turn and scored by the others; the threshold is the quantile of these scores
    that the stated share reaches (see `group_quantile`). It holds for frames that are drawn as the groups were.
    Symmetry copies of a frame are left out with it, and counted once.

    Parameters
    ----------
    reference : Reference
    false_alarm : float
        Share of atoms (or of frames) that belong to what the reference describes and would still be called novel.
    of : {"atom", "mean", "max"}
        What is compared with the threshold: dH of an atom, or the mean or largest dH of a frame.
    jobs : int or None
        Threads; None for all available cores.

    Returns
    -------
    float
        nats

    Raises
    ------
    ValueError
        If `false_alarm` is not between 0 and 1, or `of` is none of these.
    DataError
        If there is only one group, or there are too few for that rate of frames.

    Warns
    -----
    DataWarning
        If there are too few groups for that rate of atoms to be certain.
    """
    one_of(of, "of", STATISTICS)
    if not (isinstance(false_alarm, int | float | np.floating) and LEAST_RATE <= false_alarm < 1.0):
        raise ValueError(f"false_alarm must lie between {LEAST_RATE:g} and 1, got {false_alarm!r}")
    found = reference.leave_out(jobs=jobs)
    counted = found.first_copy[found.frames]
    dh, frames = found.dh[counted], found.frames[counted]
    groups = found.groups[frames]
    if of == "atom":
        return group_quantile(dh, groups, false_alarm, "atoms")
    starts = np.flatnonzero(np.diff(frames, prepend=-1))
    if of == "max":
        return group_quantile(np.maximum.reduceat(dh, starts), groups[starts], false_alarm, "frames")
    sizes = np.diff(np.append(starts, len(dh)))
    return group_quantile(np.add.reduceat(dh, starts) / sizes, groups[starts], false_alarm, "frames")
