"""Which frames of a stream hold something that a reference does not know, and which of these are worth keeping."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from quests_zenn._core.checks import DataError, finite, one_of, whole_number
from quests_zenn._core.parallel import Workers
from quests_zenn.descriptors import Environments, element_symbols
from quests_zenn.uq.reference import DEFAULT_THRESHOLD, Reference
from quests_zenn.uq.thresholds import group_quantile

#: What a rate of false alarms may count.
RATES = ("frame", "atom")


@dataclass(frozen=True)
class Verdict:
    """What a filter says of one frame.

    Attributes
    ----------
    environments : Environments
        Of all its atoms.
    novel : numpy.ndarray of bool, shape (n,)
        Whether dH of the atom reaches the threshold; False for atoms that were not asked about.
    n_asked : int
        Number of atoms asked about.
    flagged : bool
        Whether enough of them are novel.
    new : bool
        Whether enough of them are novel and unlike all that was kept.
    """

    environments: Environments
    novel: npt.NDArray[np.bool_]
    n_asked: int
    flagged: bool
    new: bool

    @property
    def n_novel(self) -> int:
        """Number of novel atoms."""
        return int(np.count_nonzero(self.novel))


class FrameFilter:
    """Judges frames one by one.

    A frame is flagged when at least `min_atoms` of its atoms, and at least the share `min_share`, are novel: their dH
    given the reference reaches the threshold. A flagged frame is *new* when as many of its novel atoms are unlike those
    of the frames that were kept before: their dH given the novel atoms of the kept frames alone reaches the threshold,
    or 1e-5 nats where the threshold is lower. So one excursion is not kept a hundred times.

    Parameters
    ----------
    reference : Reference
        It is not changed.
    threshold : float or "auto"
        dH in nats. ``"auto"``: see `frame_threshold`.
    false_alarm, of
        For ``"auto"``: see `frame_threshold`.
    min_atoms : int
        At least 1.
    min_share : float
        From 0 to 1.
    workers : Workers or None
        Threads to use; by default all available cores.
    jobs : int or None
        Threads for environments; None for all available cores.

    Attributes
    ----------
    threshold : float
        nats
    unseen : set of str
        Elements met that the reference never saw.

    Raises
    ------
    ValueError, DataError
        For parameters out of range; see `frame_threshold`.
    """

    def __init__(
        self,
        reference: Reference,
        threshold: float | str = "auto",
        *,
        false_alarm: float = 0.01,
        of: str = "frame",
        min_atoms: int = 1,
        min_share: float = 0.0,
        workers: Workers | None = None,
        jobs: int | None = None,
    ) -> None:
        self.reference = reference
        self.min_atoms = whole_number(min_atoms, "min_atoms", 1)
        self.min_share = _share(min_share)
        self._workers, self._jobs = workers, jobs
        if isinstance(threshold, str) and threshold == "auto":
            self.threshold = frame_threshold(
                reference, false_alarm, of=of, min_atoms=self.min_atoms, min_share=self.min_share, jobs=jobs
            )
        else:
            self.threshold = reference.as_threshold(threshold)
        self.unseen: set[str] = set()
        self._seen = set(np.unique(reference.numbers).tolist())
        self._kept: Reference | None = None
        self.n_kept = 0

    def needed(self, n_asked: int) -> int:
        """How many of so many atoms must be novel."""
        return needed_atoms(n_asked, self.min_atoms, self.min_share)

    def judge(self, frame: Any, asked: npt.NDArray[np.int64] | None = None) -> Verdict:
        """What the filter says of a frame.

        Parameters
        ----------
        frame : Frame, ase.Atoms or tuple
        asked : numpy.ndarray of int, optional
            Indices of the atoms that count; by default all.

        Raises
        ------
        DataError
            See `get_descriptors`.
        """
        env = self.reference.describe([frame], jobs=self._jobs)
        strangers = [number for number in np.unique(env.numbers).tolist() if number not in self._seen]
        if strangers:
            self.unseen |= set(element_symbols(np.array(strangers)))
        rows = np.arange(len(env)) if asked is None else asked
        part = env if asked is None else _rows_of(env, rows)
        here = self._is_novel(self.reference, part, self.threshold)
        novel = np.zeros(len(env), bool)
        novel[rows] = here
        needed = self.needed(len(rows))
        flagged = new = bool(np.count_nonzero(here) >= needed)
        if flagged and self._kept is not None:
            unlike = self._is_novel(self._kept, _rows_of(env, np.flatnonzero(novel)), self._least())
            new = bool(np.count_nonzero(unlike) >= needed)
        return Verdict(env, novel, len(rows), flagged, new)

    def keep(self, verdict: Verdict) -> None:
        """From now on the novel atoms of this frame are known."""
        part = _rows_of(verdict.environments, np.flatnonzero(verdict.novel))
        if len(part) == 0:
            return
        if self._kept is None:
            reference = self.reference
            self._kept = Reference.from_environments(part, reference.bandwidth, same_centre=reference.same_centre)
        else:
            self._kept.extend(part)
        self.n_kept += 1

    def score(self, verdict: Verdict) -> npt.NDArray[np.float64]:
        """dH of all atoms of the frame (n,), nats; inf for elements that the reference never saw."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # `unseen` tells
            return self.reference.score(verdict.environments, jobs=self._jobs, workers=self._workers)

    def _least(self) -> float:
        # with a lower threshold a frame would have to come many times before it is known
        return max(self.threshold, DEFAULT_THRESHOLD)

    def _is_novel(self, reference: Reference, env: Environments, threshold: float) -> npt.NDArray[np.bool_]:
        if len(env) == 0:
            return np.zeros(0, bool)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            return reference.is_novel(env, threshold, jobs=self._jobs, workers=self._workers)


def needed_atoms(n_asked: int, min_atoms: int = 1, min_share: float = 0.0) -> int:
    """How many of `n_asked` atoms must be novel for a frame to be flagged."""
    return max(min_atoms, math.ceil(min_share * n_asked - 1e-9))


def frame_threshold(
    reference: Reference,
    false_alarm: float = 0.01,
    *,
    of: str = "frame",
    min_atoms: int = 1,
    min_share: float = 0.0,
    jobs: int | None = None,
) -> float:
    """dH from which on an atom is novel, such that few frames of the reference's own kind are flagged.

    Each group of frames of the reference is left out in turn and scored by the others. With ``of="frame"``, the
    threshold is such that a share `false_alarm` of these *frames* would be flagged by the rule of `FrameFilter`; with
    ``of="atom"``, such that it is the share of their *atoms* that would be novel: of 1,000 atoms, 10 at 1 %.

    Parameters
    ----------
    reference : Reference
    false_alarm : float
        Between 0 and 1.
    of : {"frame", "atom"}
    min_atoms, min_share
        The rule.
    jobs : int or None
        Threads; None for all available cores.

    Returns
    -------
    float
        nats

    Raises
    ------
    ValueError, DataError
        See `quests_zenn.uq.thresholds.auto_threshold`; if frames of the reference have fewer atoms than `min_atoms`.

    Notes
    -----
    The rate is promised for frames that are drawn as the groups of the reference were, and have as many atoms.
    """
    one_of(of, "of", RATES)
    min_atoms, min_share = whole_number(min_atoms, "min_atoms", 1), _share(min_share)
    if of == "atom":
        return reference.threshold(false_alarm, of="atom", jobs=jobs)
    if min_atoms == 1 and min_share == 0.0:  # it may be known already
        return reference.threshold(false_alarm, of="max", jobs=jobs)
    rate = finite(false_alarm, "false_alarm")
    if not 0.0 < rate < 1.0:
        raise ValueError(f"false_alarm must lie between 0 and 1, got {false_alarm!r}")
    found = reference.leave_out(jobs=jobs)
    counted = found.first_copy[found.frames]
    dh, frames = found.dh[counted], found.frames[counted]
    dh = dh[np.lexsort((-dh, frames))]
    starts = np.flatnonzero(np.diff(frames, prepend=-1))
    sizes = np.diff(np.append(starts, len(frames)))
    needed = np.array([needed_atoms(int(n), min_atoms, min_share) for n in sizes])
    if (needed > sizes).any():
        raise DataError(
            f"min_atoms = {min_atoms} is more than the {sizes.min()} atoms of some frames of the reference, so that "
            "they cannot tell the rate of false alarms; give a threshold in nats"
        )
    return group_quantile(dh[starts + needed - 1], found.groups[frames[starts]], rate, "frames")


def _share(value: Any) -> float:
    share = finite(value, "min_share")
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"min_share must lie between 0 and 1, got {value!r}")
    return share


def _rows_of(env: Environments, rows: npt.NDArray[np.int64]) -> Environments:
    """Some of the environments, as one frame."""
    return replace(
        env, x=env.x[rows], frame_offsets=np.array([0, len(rows)]), numbers=env.numbers[rows], tied=env.tied[rows],
        incomplete=env.incomplete[rows],
    )  # fmt: skip
