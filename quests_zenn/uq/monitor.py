"""A filter inside a running simulation: what the reference does not know is kept, told, or ends the run.

Every look asks `Reference.is_novel` once. dH, which takes the whole sum, is computed for frames that are kept, and
where it is asked for.
"""

from __future__ import annotations

import os
import time as clock
import warnings
import weakref
from array import array
from collections.abc import Callable
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from quests_zenn._core.checks import DataError, finite, one_of, whole_number
from quests_zenn._core.parallel import Workers
from quests_zenn.descriptors import Environments, element_symbols
from quests_zenn.io.frames import Frame, FrameLike, as_frame, read_atoms
from quests_zenn.io.outputs import check_output, make_writable
from quests_zenn.uq.filter import RATES, frame_threshold, needed_atoms
from quests_zenn.uq.reference import DEFAULT_THRESHOLD, Reference

Action = str | Callable[[Any, "Report"], Any]

#: What can be done about a flagged frame, beside a call.
ACTIONS = ("record", "stop")

#: Scope of the dH of collected frames.
SCOPE = "the reference"

#: Columns of `Monitor.history`, and their types in an `array.array`.
_HISTORY = {
    "step": "q",
    "time_ps": "d",
    "n_atoms": "q",
    "n_novel": "q",
    "dh_max": "d",
    "flagged": "b",
    "collected": "b",
}


class NovelEnvironment(RuntimeError):
    """Raised by the action ``stop`` where the run cannot be ended in another way.

    Attributes
    ----------
    report : Report
    """

    def __init__(self, report: Report) -> None:
        super().__init__(f"step {report.step}: {report.n_novel} of {report.n_atoms} atoms are new to the reference")
        self.report = report


class Report:
    """What one look at a frame has found.

    Attributes
    ----------
    step : int
    time : float or None
        ps, where the engine tells it.
    novel : numpy.ndarray of bool, shape (n,)
        Whether ``dH >= threshold``, for each atom.
    threshold : float
        nats
    flagged : bool
        Whether so many atoms are novel that the monitor acts.
    n_new : int
        Of a flagged frame, atoms that are novel to what was collected before, too; 0 if no more frames are kept.
    collected : bool
        Whether the frame was kept.
    """

    def __init__(
        self,
        reference: Reference,
        environments: Environments,
        novel: npt.NDArray[np.bool_],
        threshold: float,
        flagged: bool,
        step: int,
        time: float | None,
        workers: Workers,
    ) -> None:
        self.step, self.time, self.novel, self.threshold, self.flagged = step, time, novel, threshold, flagged
        self.n_new, self.collected = 0, False
        self._reference, self._environments, self._workers = reference, environments, workers

    @property
    def n_atoms(self) -> int:
        """Number of atoms."""
        return len(self.novel)

    @property
    def n_novel(self) -> int:
        """Number of novel atoms."""
        return int(np.count_nonzero(self.novel))

    @property
    def share(self) -> float:
        """Share of the atoms that are novel."""
        return self.n_novel / self.n_atoms

    @cached_property
    def dh(self) -> npt.NDArray[np.float64]:
        """dH of every atom given the reference (n,), nats; computed when it is first asked for."""
        return _scores(self._reference, self._environments, self._workers)

    @property
    def dh_max(self) -> float:
        """Largest dH, nats."""
        return float(self.dh.max())

    @property
    def worst(self) -> int:
        """Index of the atom with the largest dH."""
        return int(self.dh.argmax())

    @property
    def scored(self) -> bool:
        """Whether dH was computed."""
        return "dh" in self.__dict__

    def __repr__(self) -> str:
        told = f", largest dH {self.dh_max:.4g}" if self.scored else ""
        marks = "".join(f", {name}" for name in ("flagged", "collected") if getattr(self, name))
        return f"<Report of step {self.step}: {self.n_novel} of {self.n_atoms} atoms novel{told}{marks}>"


class Monitor:
    """Looks at frames of a simulation, and acts when one of them leaves what a reference knows.

    An observer for ASE: ``dyn.attach(Monitor(reference, dyn), interval=10)``. For LAMMPS see
    `quests_zenn.uq.lammps.LammpsMonitor`; any other engine that is driven from Python calls `look`.

    Whatever the action, flagged frames are collected if they are new with respect to the reference *and* to all that
    was collected before: a frame is kept if as many atoms as it takes to flag it, and at least a share `min_new` of
    those that flagged it, are novel to both. (Novel to what was collected: dH given what was new in the frames that
    were kept reaches the threshold, or `DEFAULT_THRESHOLD` where that is higher.)

    Parameters
    ----------
    reference : Reference
        It may be extended while the monitor is at work.
    atoms : dynamics, ase.Atoms or None
        What to look at when the monitor is called. A dynamics object (or an optimizer) of ASE also tells step and
        time, and can be stopped.
    threshold : float or "auto"
        dH from which on an atom is novel, nats. ``"auto"`` finds it such that a share `false_alarm` of frames like
        those of the reference would be flagged, or of their atoms be novel; see `quests_zenn.uq.frame_threshold`. It is
        found anew when the reference has grown.
    false_alarm : float
        For ``"auto"``.
    of : {"frame", "atom"}
        What is counted there.
    min_atoms : int
        Novel atoms that it takes to flag a frame.
    min_share : float
        Share of the atoms of a frame that it takes, too.
    min_new : float
        Share of the novel atoms of a flagged frame that must be novel to what was collected, too, for the frame to be
        kept. With 0, one such atom is enough; in a liquid there nearly always is one.
    action : {"record", "stop"} or callable
        What to do about a flagged frame. ``"stop"`` ends the run after this step, so that ``dyn.run(n)`` returns; if
        `atoms` is no dynamics, or one that cannot be stopped, it raises `NovelEnvironment`. A callable gets ``(atoms,
        report)`` and may call `stop`. Both come after the frame was collected.
    path : str or path, optional
        Extended XYZ file for the frames that are collected, one by one, each forced to the disk; ends in .xyz or
        .extxyz. It is made when there is a first frame. By default they stay in memory.
    resume : bool
        Continue an existing `path`: its frames are read back, and count as collected. A last frame that was cut short
        is removed, with a warning.
    max_frames : int, optional
        Largest number of frames to collect, those read back included.
    jobs : int or None
        Threads; None for all available cores.

    Attributes
    ----------
    n_calls, n_flagged, n_collected, n_resumed : int
        Looks, flagged frames, frames that this monitor collected, frames that were read back.
    seconds : float
        Time spent, calls of `action` apart.
    last : Report or None
        Of the latest look.
    stopped : bool
        Whether the run was stopped.

    Raises
    ------
    DataError
        If `path` exists and is not to be resumed, or cannot be; see `quests_zenn.io.check_output`.
    ValueError
        For arguments out of range.

    Notes
    -----
    Where several MPI processes run the same dynamics (GPAW), each of them needs a monitor; the first writes.
    """

    def __init__(
        self,
        reference: Reference,
        atoms: Any = None,
        *,
        threshold: float | str = DEFAULT_THRESHOLD,
        false_alarm: float = 0.01,
        of: str = "frame",
        min_atoms: int = 1,
        min_share: float = 0.0,
        min_new: float = 0.1,
        action: Action = "record",
        path: str | os.PathLike[str] | None = None,
        resume: bool = False,
        max_frames: int | None = None,
        jobs: int | None = None,
    ) -> None:
        if not isinstance(reference, Reference):
            raise ValueError(f"reference must be a Reference, got {type(reference).__name__}")
        if not callable(action) and action not in ACTIONS:
            raise ValueError(f"action must be one of {', '.join(ACTIONS)}, or a callable, got {action!r}")
        self.reference, self.action, self.jobs = reference, action, jobs
        self._workers = Workers(jobs).__enter__()  # kept: looks are short, and starting threads is not
        weakref.finalize(self, self._workers.__exit__)
        self.min_atoms = whole_number(min_atoms, "min_atoms", 1)
        self.min_share, self.min_new = _share(min_share, "min_share"), _share(min_new, "min_new")
        self.max_frames = None if max_frames is None else whole_number(max_frames, "max_frames", 0)
        self._threshold = threshold if isinstance(threshold, str) else finite(threshold, "threshold")
        if isinstance(threshold, str) and threshold != "auto":
            raise ValueError(f'threshold must be a number or "auto", got {threshold!r}')
        self.false_alarm, self.of = finite(false_alarm, "false_alarm"), one_of(of, "of", RATES)
        self._auto: tuple[int, float] = (0, 0.0)  # size of the reference, and its threshold
        self._dynamics = atoms if hasattr(atoms, "attach") and hasattr(atoms, "atoms") else None
        self._atoms = atoms
        self.n_calls = self.n_flagged = self.n_collected = self.n_resumed = 0
        self.seconds = 0.0
        self.last: Report | None = None
        self.stopped = False
        self._stopped_at: tuple[int, npt.NDArray[np.float64]] | None = None
        self._history: dict[str, Any] = {name: array(code) for name, code in _HISTORY.items()}
        self._begun: float | None = None  # end of the first look, on the clock
        self._ended = self._first = 0.0
        self._elsewhere = self._last_action = 0.0  # in actions before the latest look, and in that after it
        self._warned: set[int] = set()
        self._full = False
        self._elements: tuple[int, npt.NDArray[np.int64]] = (0, np.zeros(0, np.int64))
        self._collected: Reference | None = None  # what was new in the frames that were kept
        self._file = None if path is None else _File(path, resume)
        self._frames: list[Any] = []
        if self._file is not None:
            self._read_back(self._file)

    # --- what the user sees ---------------------------------------------------------------------------------------

    def __call__(self) -> Report:
        """Look at the atoms, or at those of the dynamics, as they are now.

        Raises
        ------
        DataError
            See `look`.
        NovelEnvironment
            See the action ``stop``.
        """
        if self._atoms is None:
            raise ValueError("there is nothing to look at: give dynamics or atoms to Monitor, or frames to look")
        if self._dynamics is None:
            return self.look(_innermost(self._atoms))
        step, atoms = int(self._dynamics.nsteps), _innermost(self._dynamics.atoms)
        if self._stopped_at is not None and self.last is not None:
            if self._stopped_at[0] == step and np.array_equal(self._stopped_at[1], atoms.positions):
                return self.last  # a new run begins where the last one was stopped
            if self._dynamics.max_steps == self._stopped_at[0]:
                raise NovelEnvironment(self.last)  # the run has gone on
            self._stopped_at = None
        return self.look(atoms, step, _time_of(self._dynamics))

    def look(self, atoms: FrameLike, step: int | None = None, time: float | None = None) -> Report:
        """Judge one frame, and act.

        Parameters
        ----------
        atoms : ase.Atoms or another structure
            See `quests_zenn.io.as_frame`.
        step : int, optional
            By default the number of earlier looks.
        time : float, optional
            ps

        Returns
        -------
        Report

        Raises
        ------
        DataError
            If positions are not finite, or the frame is unusable for other reasons; the message names the step.
        """
        step = self.n_calls if step is None else int(step)
        return self._look(as_frame(atoms, f"step {step}"), lambda: atoms, step, time)

    def stop(self) -> None:
        """End the run that this monitor is attached to, after this step.

        Raises
        ------
        NovelEnvironment
            If there is no other way.
        """
        assert self.last is not None
        self.stopped = True
        if not hasattr(self._dynamics, "max_steps"):
            raise NovelEnvironment(self.last)
        assert self._dynamics is not None
        self._dynamics.max_steps = self._dynamics.nsteps
        self._stopped_at = (int(self._dynamics.nsteps), _innermost(self._dynamics.atoms).positions.copy())

    @property
    def threshold(self) -> float:
        """dH from which on an atom is novel, nats."""
        if isinstance(self._threshold, str):
            if self._auto[0] != len(self.reference):
                rule: dict[str, Any] = {"min_atoms": self.min_atoms, "min_share": self.min_share}
                found = frame_threshold(self.reference, self.false_alarm, of=self.of, jobs=self.jobs, **rule)
                self._auto = (len(self.reference), found)
            return self._auto[1]
        return self._threshold

    @property
    def frames(self) -> list[Any]:
        """Frames collected so far, as ``ase.Atoms``; those of `path` are read from there."""
        if self._file is None:
            return list(self._frames)
        return [atoms for _, atoms in read_atoms(self._file.path)] if self.n_resumed + self.n_collected else []

    @property
    def history(self) -> npt.NDArray[Any]:
        """One record for each look, in order.

        A structured array with the fields ``step``, ``time_ps`` (NaN where unknown), ``n_atoms``, ``n_novel``,
        ``dh_max`` (nats; NaN where dH was not computed), ``flagged``, ``collected``.
        """
        kinds = {"q": "i8", "d": "f8", "b": "?"}
        records = np.empty(len(self._history["step"]), [(name, kinds[code]) for name, code in _HISTORY.items()])
        for name, values in self._history.items():
            records[name] = values
        return records

    @property
    def overhead(self) -> float:
        """Share of the wall time that went into looks: those after the first, from its end to the end of the last.

        The first look also prepares the reference. NaN before there are two.
        """
        if self.n_calls < 2 or self._begun is None:
            return float("nan")
        return (self.seconds - self._first) / (self._ended - self._begun - self._elsewhere)

    def summary(self) -> dict[str, Any]:
        """Counters and settings, in terms of JSON; `threshold` in nats, seconds of wall time."""
        return {
            "n_calls": self.n_calls,
            "n_flagged": self.n_flagged,
            "n_collected": self.n_collected,
            "n_resumed": self.n_resumed,
            "threshold": self.threshold,
            "false_alarm": self.false_alarm if isinstance(self._threshold, str) else None,
            "of": self.of if isinstance(self._threshold, str) else None,
            "min_atoms": self.min_atoms,
            "min_share": self.min_share,
            "min_new": self.min_new,
            "stopped": self.stopped,
            "seconds": self.seconds,
            "overhead": self.overhead,
        }

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__}: {self.n_calls} looks, {self.n_flagged} flagged, {self.n_collected} collected, "
            f"{self.seconds:.3g} s>"
        )

    # --- one look -------------------------------------------------------------------------------------------------

    def _look(self, frame: Frame, atoms: Callable[[], Any], step: int, time: float | None) -> Report:
        """Judge a frame; `atoms` makes what is kept and handed to the action."""
        begun = clock.perf_counter()
        self._elsewhere, self._last_action = self._elsewhere + self._last_action, 0.0
        limit = self.threshold
        env = self.reference.describe(frame, jobs=self.jobs)
        self._warn_of_strangers(env)
        novel = self._novel(env, limit)
        n_novel = int(np.count_nonzero(novel))
        needed = needed_atoms(len(env), self.min_atoms, self.min_share)
        report = Report(self.reference, env, novel, limit, n_novel >= needed, step, time, self._workers)
        self.last = report
        if report.flagged:
            self.n_flagged += 1
            if self._has_room():
                new = self._new(env, novel, limit)
                report.n_new = len(new)
                if len(new) >= max(needed, self.min_new * n_novel):
                    self._collect(atoms(), report)
                    self._remember(env, new)
        self.n_calls += 1
        self._ended = clock.perf_counter()
        self.seconds += self._ended - begun
        if self.n_calls == 1:
            self._begun, self._first = self._ended, self.seconds
        try:
            if report.flagged:
                self._act(atoms, report)
        finally:
            self._note(report)  # last: the action may have asked for dH
        return report

    def _act(self, atoms: Callable[[], Any], report: Report) -> None:
        if callable(self.action):
            begun = clock.perf_counter()
            self.action(atoms(), report)
            self._last_action = clock.perf_counter() - begun
        elif self.action == "stop":
            self.stop()

    def _note(self, report: Report) -> None:
        """Append to the history."""
        values = {
            "step": report.step,
            "time_ps": float("nan") if report.time is None else report.time,
            "n_atoms": report.n_atoms,
            "n_novel": report.n_novel,
            "dh_max": report.dh_max if report.scored else float("nan"),
            "flagged": report.flagged,
            "collected": report.collected,
        }
        for name, value in values.items():
            self._history[name].append(value)

    def _novel(self, env: Environments, limit: float) -> npt.NDArray[np.bool_]:
        """`Reference.is_novel`, with elements that the reference never saw novel without a word."""
        rows = np.flatnonzero(np.isin(env.numbers, self._elements_known()))
        novel = np.ones(len(env), bool)
        if len(rows):
            part = env if len(rows) == len(env) else _subset(env, rows)
            novel[rows] = self.reference.is_novel(part, limit, workers=self._workers)
        return novel

    def _elements_known(self) -> npt.NDArray[np.int64]:
        """Atomic numbers that the reference holds."""
        if self._elements[0] != len(self.reference):
            self._elements = (len(self.reference), np.unique(self.reference.numbers))
        return self._elements[1]

    def _warn_of_strangers(self, env: Environments) -> None:
        strangers = set(np.unique(env.numbers).tolist()) - set(self._elements_known().tolist())
        if new := strangers - self._warned:
            self._warned |= new
            names = " ".join(element_symbols(np.array(sorted(new), np.int64)))
            warnings.warn(f"the reference never saw {names}: all these atoms are novel (dH = inf)", stacklevel=4)

    def _new(self, env: Environments, novel: npt.NDArray[np.bool_], limit: float) -> npt.NDArray[np.int64]:
        """Which of the novel atoms are novel to what was collected, too."""
        rows = np.flatnonzero(novel)
        if self._collected is None:
            return rows
        # a copy of an atom that was collected has dH = 0 there, which must not count as novel
        dh = _scores(self._collected, _subset(env, rows), self._workers)
        return rows[dh >= max(limit, DEFAULT_THRESHOLD)]

    def _remember(self, env: Environments, rows: npt.NDArray[np.int64]) -> None:
        """Take some environments of a frame that is kept into what was collected."""
        part, own = _subset(env, rows), self.reference
        if self._collected is None:
            self._collected = Reference.from_environments(part, own.bandwidth, same_centre=own.same_centre)
        else:
            self._collected.extend(part)

    # --- frames that are kept -------------------------------------------------------------------------------------

    def _has_room(self) -> bool:
        if self.max_frames is None or self.n_resumed + self.n_collected < self.max_frames:
            return True
        if self.max_frames > 0 and not self._full:
            self._full = True
            warnings.warn(f"{self.max_frames} frames were collected (max_frames); no more are kept", stacklevel=5)
        return False

    def _collect(self, atoms: Any, report: Report) -> None:
        kept = _copy(atoms)
        kept.arrays["dH"] = report.dh
        kept.info["step"] = report.step
        if report.time is not None:
            kept.info["time_ps"] = report.time
        kept.info |= {"dH_scope": SCOPE, "dH_threshold": report.threshold, "n_novel": report.n_novel}
        kept.info |= {f"dH_{name}": getattr(self.reference, name) for name in _PARAMETERS}
        if self._file is None:
            self._frames.append(kept)
        else:
            self._file.append(kept, f"step {report.step}")
        self.n_collected += 1
        report.collected = True

    def _read_back(self, file: _File) -> None:
        for label, atoms in file.read():
            for name in _PARAMETERS:
                own, its = getattr(self.reference, name), atoms.info.get(f"dH_{name}")
                if its != own:
                    raise DataError(
                        f"{label}: was collected with {name} {its}, and the reference has {own}; choose another name"
                    )
            env, limit = self.reference.describe(as_frame(atoms, label), jobs=self.jobs), self.threshold
            if len(new := self._new(env, self._novel(env, limit), limit)):
                self._remember(env, new)
            self.n_resumed += 1


#: Parameters of the reference that collected frames carry.
_PARAMETERS = ("bandwidth", "k", "cutoff", "species")


def _subset(env: Environments, rows: npt.NDArray[np.int64]) -> Environments:
    """Some environments of a frame."""
    return Environments(
        env.x[rows],
        np.array([0, len(rows)]),
        env.numbers[rows],
        env.k,
        env.cutoff,
        env.species,
        env.elements,
        env.tied[rows],
        env.incomplete[rows],
    )


def _scores(reference: Reference, env: Environments, workers: Workers) -> npt.NDArray[np.float64]:
    """`Reference.score`, with inf for elements that the reference never saw without a word."""
    rows = np.flatnonzero(np.isin(env.numbers, np.unique(reference.numbers)))
    values = np.full(len(env), np.inf)
    if len(rows):
        values[rows] = reference.score(_subset(env, rows), workers=workers)
    return values


def _share(value: float, name: str) -> float:
    number = finite(value, name)
    if not 0.0 <= number <= 1.0:
        raise ValueError(f"{name} must lie between 0 and 1, got {value!r}")
    return number


def _innermost(atoms: Any) -> Any:
    """The structure itself, where a filter of ASE stands before it."""
    while not hasattr(atoms, "numbers") and hasattr(atoms, "atoms"):
        atoms = atoms.atoms
    return atoms


def _time_of(dynamics: Any) -> float | None:
    """Time of a dynamics, ps; optimizers have none."""
    if not hasattr(dynamics, "get_time"):
        return None
    from ase import units

    return float(dynamics.get_time() / (1000.0 * units.fs))


def _copy(atoms: FrameLike) -> Any:
    """A copy with what the calculator knows of this very structure."""
    from ase import Atoms
    from ase.calculators.calculator import all_properties
    from ase.calculators.singlepoint import SinglePointCalculator

    if not isinstance(atoms, Atoms):
        frame = as_frame(atoms)
        return Atoms(frame.numbers, frame.positions, cell=frame.cell, pbc=frame.pbc)
    copied = atoms.copy()
    calculator = atoms.calc
    if hasattr(calculator, "check_state") and not calculator.check_state(atoms):
        results = {name: value for name, value in calculator.results.items() if name in all_properties}
        if results:
            copied.calc = SinglePointCalculator(copied, **results)
    return copied


class _File:
    """An extended XYZ file to which frames are appended, each of them whole."""

    def __init__(self, path: str | os.PathLike[str], resume: bool) -> None:
        from ase.parallel import world

        self.path = Path(path)
        if self.path.suffix not in (".xyz", ".extxyz"):
            raise DataError(f"{self.path}: collected frames are extended XYZ; choose a name that ends in .xyz")
        if os.path.lexists(self.path) and not resume:
            raise DataError(f"{self.path}: exists already; choose another name, or go on with it (resume=True)")
        check_output(self.path, True)
        self._writes = world.rank == 0
        if self._writes and self.path.exists():
            self._cut_tail()
        world.barrier()

    def _cut_tail(self) -> None:
        """Remove what follows the last complete frame. Files that were not written here are refused."""
        size, end, ours = os.path.getsize(self.path), 0, False
        if size == 0:
            return
        with open(self.path, "rb") as stream:
            while header := stream.readline():
                if not header.endswith(b"\n"):
                    break
                if not header.strip().isdigit():
                    raise DataError(f"{self.path}: no frame begins at byte {end}; the file is damaged, or none of ours")
                lines = [stream.readline() for _ in range(int(header) + 1)]
                ours = ours or (b"dH_threshold=" in lines[0])
                if not lines[-1].endswith(b"\n"):
                    break
                end = stream.tell()
        if not ours:
            raise DataError(f"{self.path}: holds no frame that a monitor collected; choose another name")
        if end < size:
            os.truncate(self.path, end)
            warnings.warn(f"{self.path}: its last frame was not complete, and was removed", stacklevel=5)

    def read(self) -> Any:
        """Labels and ``ase.Atoms`` of the frames that are there."""
        return read_atoms(self.path) if self.path.exists() and os.path.getsize(self.path) else iter(())

    def append(self, atoms: Any, label: str) -> None:
        """Write a frame, and have it on the disk before this returns."""
        from ase.io.extxyz import write_extxyz

        make_writable(atoms, label)
        text = StringIO()
        try:
            write_extxyz(text, [atoms])
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(f"{label}: cannot be written as extended XYZ ({error})") from error
        if not self._writes:
            return
        before = os.path.getsize(self.path) if self.path.exists() else 0
        try:
            with open(self.path, "ab") as stream:
                try:
                    stream.write(text.getvalue().encode("utf-8"))
                    stream.flush()
                    os.fsync(stream.fileno())
                except OSError:
                    os.truncate(self.path, before)  # no half frames
                    raise
        except OSError as error:
            raise DataError(f"{self.path}: cannot be written ({error.strerror or error})") from error
