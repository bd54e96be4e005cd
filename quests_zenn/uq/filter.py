"""Which frames of a stream hold something that a reference does not know, and which of these are worth keeping."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from quests_zenn._core.checks import DataError, finite, one_of, whole_number
from quests_zenn._core.parallel import Workers, use_workers
from quests_zenn.descriptors import Environments, element_symbols
from quests_zenn.uq._scaled import Surroundings
from quests_zenn.uq.reference import DEFAULT_THRESHOLD, Reference
from quests_zenn.uq.thresholds import group_quantile

#: What a rate of false alarms may count.
RATES = ("frame", "atom")

#: A frame that resembles what was kept is kept nevertheless if its largest dH is above theirs by such a step: of an
#: excursion, what was kept reaches the highest dH but for this factor. Steps are counted from a dH of at least 1 nat.
HIGHER, LEAST_STEP = 1.5, 1.0


@dataclass(frozen=True)
class Verdict:
    """What a filter says of one frame.

    Attributes
    ----------
    environments : Environments
        Of all its atoms.
    novel : numpy.ndarray of bool, shape (n,)
        Whether dH of the atom (or its scaled dH, see `FrameFilter`) reaches the threshold; False for atoms that were
        not asked about.
    n_asked : int
        Number of atoms asked about.
    flagged : bool
        Whether enough of them are novel.
    new : bool
        Whether enough of them are novel and unlike all that was kept.
    largest : float
        Of a flagged frame, the largest dH (or scaled dH) of its novel atoms, nats; NaN for others.
    """

    environments: Environments
    novel: npt.NDArray[np.bool_]
    n_asked: int
    flagged: bool
    new: bool
    largest: float = math.nan

    @property
    def n_novel(self) -> int:
        """Number of novel atoms."""
        return int(np.count_nonzero(self.novel))


class FrameFilter:
    """Judges frames one by one.

    A frame is flagged when at least `min_atoms` of its atoms, and at least the share `min_share`, are novel: their dH
    given the reference reaches the threshold. With ``threshold="auto"`` and ``of="frame"``, it is the *scaled* dH that
    must reach it: dH, but where the reference itself is sparse, less (see Notes).

    A flagged frame is *new* when as many of its novel atoms are unlike those of the frames that were kept before: their
    dH given the novel atoms of the kept frames alone reaches the threshold, or 1e-5 nats where the threshold is lower.
    Kept frames count here only if their largest dH is as high as that of this frame, in steps of a factor 1.5. So one
    excursion is not kept a hundred times, and yet is kept up to its height.

    Parameters
    ----------
    reference : Reference
        It is not changed.
    threshold : float or "auto"
        dH in nats. ``"auto"``: see `frame_threshold`.
    false_alarm, of, elements
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
    scaled : bool
        Whether it is meant for scaled dH.
    unseen : set of str
        Elements met that the reference never saw.

    Raises
    ------
    ValueError, DataError
        For parameters out of range; see `frame_threshold`.

    Notes
    -----
    A reference of many kinds of frames is dense in some places and sparse in others. Where it holds single frames that
    are far from each other (crystals at extreme volumes), the largest dH of a frame that is left out is high, and one
    threshold for all would let anything pass that is no farther away, a liquid for instance. So a dH above 0 is divided
    by ``1 + b / 5``, b being dH (or 0 if that is less) of the nearest environment of the reference, given all groups
    but its own.
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
        elements: Sequence[str] | None = None,
        workers: Workers | None = None,
        jobs: int | None = None,
    ) -> None:
        self.reference = reference
        self.min_atoms = whole_number(min_atoms, "min_atoms", 1)
        self.min_share = _share(min_share)
        self._workers, self._jobs = workers, jobs
        self.scaled = False
        if isinstance(threshold, str) and threshold == "auto":
            self.scaled = one_of(of, "of", RATES) == "frame"
            self.threshold = frame_threshold(
                reference, false_alarm, of=of, min_atoms=self.min_atoms, min_share=self.min_share, elements=elements,
                scaled=self.scaled, workers=workers, jobs=jobs,
            )  # fmt: skip
        else:
            self.threshold = reference.as_threshold(threshold)
        self._surroundings: Surroundings | None = None  # found when they are first needed
        self.unseen: set[str] = set()
        self._seen = set(np.unique(reference.numbers).tolist())
        self._kept: dict[int, Reference] = {}  # novel atoms of the kept frames, by the step of their largest dH
        self.n_kept = 0

    def needed(self, n_asked: int) -> int:
        """How many of so many atoms must be novel."""
        return needed_atoms(n_asked, self.min_atoms, self.min_share)

    def judge(self, frame: Any, asked: npt.NDArray[np.int64] | None = None) -> Verdict:
        """What the filter says of a frame.

        Parameters
        ----------
        frame : Frame, ase.Atoms or tuple
        asked : numpy.ndarray of int or bool, optional
            Indices of the atoms that count, each once, or a mask (n,); by default all.

        Raises
        ------
        ValueError
            If `asked` names no atoms of the frame, or one twice.
        DataError
            See `get_descriptors`.
        """
        env = self.reference.describe([frame], jobs=self._jobs)
        strangers = [number for number in np.unique(env.numbers).tolist() if number not in self._seen]
        if strangers:
            self.unseen |= set(element_symbols(np.array(strangers)))
        rows = np.arange(len(env)) if asked is None else chosen_rows(asked, len(env), "asked")
        part = env if asked is None else _rows_of(env, rows)
        here, scores = self._judge(part)
        novel = np.zeros(len(env), bool)
        novel[rows] = here
        needed = self.needed(len(rows))
        flagged = new = bool(np.count_nonzero(here) >= needed)
        largest = math.nan
        if flagged:
            if scores is None:
                known = _rows_of(part, np.flatnonzero(here))
                scores = self._scaled(known) if self.scaled else self._score(self.reference, known)
            largest = float(scores.max(initial=-math.inf))
            unlike = self._unlike(_rows_of(env, np.flatnonzero(novel)), self._step(largest))
            new = bool(np.count_nonzero(unlike) >= needed)
        return Verdict(env, novel, len(rows), flagged, new, largest)

    def _judge(self, part: Environments) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64] | None]:
        """Which atoms are novel (m,); and scaled dH of those that are, where it took them to tell."""
        here = self._is_novel(self.reference, part, self.threshold)
        # scaled dH is never larger than dH, and differs from it above 0 only
        if not self.scaled or self.threshold <= 0.0 or not here.any():
            return here, None
        rows = np.flatnonzero(here)
        scores = self._scaled(_rows_of(part, rows))
        high = scores >= self.threshold
        here[rows[~high]] = False
        return here, scores[high]

    def _scaled(self, env: Environments) -> npt.NDArray[np.float64]:
        if self._surroundings is None:
            self._surroundings = Surroundings(self.reference)
        dh = self._score(self.reference, env)
        with use_workers(self._workers, self._jobs) as workers:
            return self._surroundings.scaled(dh, self.reference._rows(env)[0], env.numbers, workers)

    def _step(self, largest: float) -> int:
        """How many factors 1.5 a dH is above the threshold; infinite ones are above all."""
        if not math.isfinite(largest):
            return 10_000
        least = max(self.threshold, LEAST_STEP)
        return max(0, math.floor(math.log(largest / least) / math.log(HIGHER))) if largest > least else 0

    def _unlike(self, env: Environments, step: int) -> npt.NDArray[np.bool_]:
        """Which of the environments are unlike those of all kept frames whose largest dH is of this step or above."""
        rest = np.full(len(env), -math.inf)
        for own, kept in self._kept.items():
            if own >= step:
                rest = np.logaddexp(rest, 0.0 - self._score(kept, env))
        return 0.0 - rest >= self._least()

    def keep(self, verdict: Verdict) -> None:
        """From now on the novel atoms of this frame are known."""
        part = _rows_of(verdict.environments, np.flatnonzero(verdict.novel))
        if len(part) == 0:
            return
        step = self._step(verdict.largest)
        if step in self._kept:
            self._kept[step].extend(part)
        else:
            reference = self.reference
            self._kept[step] = Reference.from_environments(part, reference.bandwidth, same_centre=reference.same_centre)
        self.n_kept += 1

    def forget(self) -> None:
        """As if no frame had been judged or kept."""
        self._kept.clear()
        self.unseen.clear()
        self.n_kept = 0

    def score(self, verdict: Verdict) -> npt.NDArray[np.float64]:
        """dH of all atoms of the frame (n,), nats; inf for elements that the reference never saw. It is not scaled."""
        return self._score(self.reference, verdict.environments)

    def _score(self, reference: Reference, env: Environments) -> npt.NDArray[np.float64]:
        if len(env) == 0:
            return np.zeros(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # `unseen` tells
            return reference.score(env, jobs=self._jobs, workers=self._workers)

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
    elements: Sequence[str] | None = None,
    scaled: bool = False,
    workers: Workers | None = None,
    jobs: int | None = None,
) -> float:
    """dH from which on an atom is novel, such that few frames of the reference's own kind are flagged.

    Each group of frames of the reference is left out in turn and scored by the others. With ``of="frame"``, the
    threshold is such that a share `false_alarm` of these *frames* would be flagged by the rule of `FrameFilter`; with
    ``of="atom"``, such that it is the share of their *atoms* that would be novel: of 1,000 atoms, 10 at 1 %. Groups
    count alike, whatever their size (see `quests_zenn.uq.thresholds.group_quantile`).

    Parameters
    ----------
    reference : Reference
    false_alarm : float
        Between 0 and 1.
    of : {"frame", "atom"}
    min_atoms, min_share
        The rule.
    elements : sequence of str, optional
        Elements of the atoms that count; by default all. Frames without any are left out.
    scaled : bool
        Whether the threshold is meant for scaled dH, as that of `FrameFilter` is (with ``of="frame"``).
    workers : Workers or None
        Threads to use; by default all available cores.
    jobs : int or None
        Threads; None for all available cores.

    Returns
    -------
    float
        nats

    Raises
    ------
    ValueError, DataError
        See `quests_zenn.uq.thresholds.auto_threshold`; if frames of the reference have fewer atoms than `min_atoms`, or
        none has atoms of these elements.

    Notes
    -----
    The rate is promised for frames that are drawn as the groups of the reference were, and have as many atoms.
    """
    one_of(of, "of", RATES)
    min_atoms, min_share = whole_number(min_atoms, "min_atoms", 1), _share(min_share)
    if of == "atom" and elements is None:  # it may be known already
        return reference.threshold(false_alarm, of="atom", jobs=jobs)
    if min_atoms == 1 and min_share == 0.0 and elements is None and not scaled:
        return reference.threshold(false_alarm, of="max", jobs=jobs)
    rate = finite(false_alarm, "false_alarm")
    if not 0.0 < rate < 1.0:
        raise ValueError(f"false_alarm must lie between 0 and 1, got {false_alarm!r}")
    found = reference.leave_out(jobs=jobs)
    counted = found.first_copy[found.frames]
    if elements is not None:
        known = np.unique(reference.numbers)
        symbols = {z: element_symbols(known[i : i + 1])[0] for i, z in enumerate(known.tolist())}
        named = np.isin([symbols[z] for z in reference.numbers[found.rows].tolist()], list(elements))
        if not (counted & named).any():
            raise DataError(f"the reference holds no {' '.join(elements)} to find a threshold from; give one in nats")
        counted &= named
    dh, frames = found.dh[counted], found.frames[counted]
    if of == "atom":
        return group_quantile(dh, found.groups[frames], rate, "atoms")
    if scaled:
        with use_workers(workers, jobs) as pool:
            dh = Surroundings(reference).scaled_own(dh, found.rows[counted], pool)
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


def chosen_rows(chosen: Any, n: int, name: str) -> npt.NDArray[np.int64]:
    """Indices of some of `n` rows, given as such, each once, or as a mask.

    Raises
    ------
    ValueError
        If they are no whole numbers from 0 to n - 1, or one comes twice, or the mask has another length.
    """
    rows = np.asarray(chosen)
    if rows.dtype == bool and rows.shape == (n,):
        return np.flatnonzero(rows)
    if rows.ndim != 1 or not (rows.size == 0 or np.issubdtype(rows.dtype, np.integer)):
        raise ValueError(f"{name} must be a list of whole numbers, or a mask of {n} values")
    rows = rows.astype(np.int64)
    if rows.size and (rows.min() < 0 or rows.max() >= n):
        raise ValueError(f"{name} must lie between 0 and {n - 1}, got {rows.min() if rows.min() < 0 else rows.max()}")
    if len(np.unique(rows)) < len(rows):
        raise ValueError(f"{name} must hold each index once")
    return rows


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
