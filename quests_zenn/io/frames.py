"""Frames in: everything that looks like a structure, from memory or from files, one at a time.

Below this module nobody knows ASE: the rest of the package sees `Frame`.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import StringIO
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from quests_zenn._core.checks import DataError


@dataclass(frozen=True, slots=True)
class Frame:
    """One structure.

    Attributes
    ----------
    positions : (n, 3) float64, Å
    cell : (3, 3) float64, Å, one vector per row; rows of non-periodic axes are ignored
    pbc : (3,) bool
    numbers : (n,) int64, atomic numbers
    label : str
        Where it came from, for messages: ``"traj.xyz, frame 3"``.
    properties : mapping
        What the frame says of itself, where it does: ``temperature`` (K), ``energy`` (eV), ``time`` (ps).
    """

    positions: npt.NDArray[np.float64]
    cell: npt.NDArray[np.float64]
    pbc: npt.NDArray[np.bool_]
    numbers: npt.NDArray[np.int64]
    label: str = "the frame"
    properties: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shapes = (self.positions.shape, self.cell.shape, self.pbc.shape, self.numbers.shape)
        n = self.positions.shape[:1]
        if shapes != ((*n, 3), (3, 3), (3,), n):
            raise DataError(
                f"{self.label}: positions, cell, pbc and numbers must have the shapes (atoms, 3), (3, 3), (3,) and "
                f"(atoms,), got {', '.join(map(str, shapes))}"
            )

    def __len__(self) -> int:
        return len(self.numbers)


@dataclass(frozen=True)
class Facts:
    """What is known of a frame beside its atoms: in the place of ``ase.Atoms`` where only that counts.

    Attributes
    ----------
    info, results : dict
        Of the frame, and of its calculator.
    """

    info: dict[str, Any] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)

    @property
    def calc(self) -> Facts:
        """Has the results."""
        return self


FrameLike = Any
"""A `Frame`, an ``ase.Atoms``, or a tuple ``(positions, cell, pbc, numbers)``."""

#: Types of positions, cell, pbc and numbers of ``ase.Atoms``.
_TYPES_OF_ASE = [np.dtype(np.float64), np.dtype(np.float64), np.dtype(bool), np.dtype(np.int64)]

FrameSource = Any
"""One frame-like object, or an iterable of them."""


def as_frame(structure: FrameLike, label: str = "the frame") -> Frame:
    """One door for anything that looks like a structure.

    Parameters
    ----------
    structure : Frame, ase.Atoms or tuple
        A tuple is ``(positions, cell, pbc, numbers)``; a cell of None means no cell, pbc may be one flag or three.
    label : str
        Name used in messages.

    Raises
    ------
    DataError
        If shapes do not fit together, or it is not a structure at all.
    """
    if isinstance(structure, Frame):
        return structure
    if hasattr(structure, "positions") and hasattr(structure, "numbers"):
        cell = getattr(structure.cell, "array", structure.cell)
        parts = (structure.positions, cell, structure.pbc, structure.numbers)
        if [getattr(part, "dtype", None) for part in parts] == _TYPES_OF_ASE:
            # ase.Atoms: nothing to convert, and there may be many small ones
            return Frame(np.ascontiguousarray(parts[0]), cell, parts[2], parts[3], label)
    elif isinstance(structure, tuple) and len(structure) == 4:
        parts = structure
    else:
        raise DataError(
            f"{label} is no structure: expected ase.Atoms or (positions, cell, pbc, numbers), "
            f"got {type(structure).__name__}"
        )
    try:
        positions = np.ascontiguousarray(_real(parts[0], "fiu"), dtype=np.float64)
        cell_array = np.zeros((3, 3)) if parts[1] is None else np.asarray(_real(parts[1], "fiu"), dtype=np.float64)
        pbc = np.asarray(_real(parts[2], "biu"), dtype=bool)
        given = _real(parts[3], "fiu")
        if given.dtype.kind == "f" and not (np.isfinite(given) & (given == np.rint(given))).all():
            raise ValueError("atomic numbers must be whole")
        numbers = given.astype(np.int64, copy=False)
    except (TypeError, ValueError) as error:
        raise DataError(f"{label} holds something that is no number: {error}") from None
    if pbc.shape == ():
        pbc = np.full(3, pbc)
    if cell_array.shape == (3,):
        cell_array = np.diag(cell_array)
    if positions.ndim != 2 or positions.shape[1] != 3:
        raise DataError(f"{label}: positions must have shape (atoms, 3), got {positions.shape}")
    if cell_array.shape != (3, 3) or pbc.shape != (3,):
        raise DataError(f"{label}: cell must have shape (3, 3) and pbc (3,)")
    if numbers.shape != (len(positions),):
        raise DataError(f"{label}: {len(positions)} positions but numbers of shape {numbers.shape}")
    return Frame(positions, cell_array, pbc, numbers, label)


def _real(values: Any, kinds: str) -> npt.NDArray[Any]:
    array = np.asarray(values)
    if array.dtype.kind not in kinds and array.size > 0:
        raise ValueError(f"{array.dtype} where numbers belong")
    return array


def is_single(source: FrameSource) -> bool:
    """Whether `source` is one structure, not an iterable of them."""
    if isinstance(source, Frame) or (hasattr(source, "positions") and hasattr(source, "numbers")):
        return True
    if not (isinstance(source, tuple) and len(source) == 4 and isinstance(source[0], np.ndarray | list | tuple)):
        return False
    try:
        return np.ndim(source[0]) == 2 and np.asarray(source[0]).dtype.kind in "fiu"
    except ValueError:  # ragged
        return False


def iterate_frames(source: FrameSource) -> Iterator[Frame]:
    """Frames of one structure, or of an iterable of structures, one at a time.

    Raises
    ------
    DataError
        If something is not a structure; the message counts frames from 0.
    """
    if is_single(source):
        yield as_frame(source, "frame 0")
        return
    if isinstance(source, str | os.PathLike):
        raise DataError(f"expected structures, got the name {str(source)!r}: read it first with read_frames")
    try:
        iterator = iter(source)
    except TypeError:
        raise DataError(f"expected structures, got {type(source).__name__}") from None
    for index, structure in enumerate(iterator):
        yield as_frame(structure, f"frame {index}")


def split_index(spec: str | os.PathLike[str]) -> tuple[str, str]:
    """File name and ASE index of ``name@index``; an existing file whose name holds an @ is taken whole.

    >>> split_index("traj.xyz@::10")
    ('traj.xyz', '::10')
    """
    name = os.fspath(spec)
    if "@" not in name or os.path.exists(name):
        return name, ":"
    path, _, index = name.rpartition("@")
    return path, index


def frame_slice(spec: str | os.PathLike[str]) -> slice:
    """Which frames the index of ``name@index`` asks for.

    Raises
    ------
    DataError
        If it is no index.
    """
    return _index_to_slice(split_index(spec)[1], os.fspath(spec))


def _index_to_slice(index: str, spec: str) -> slice:
    try:
        parts = [int(part) if part else None for part in index.split(":")]
        if len(parts) == 1 and parts[0] is not None:
            return slice(parts[0], parts[0] + 1 or None)
        if 2 <= len(parts) <= 3 and (len(parts) == 2 or parts[2] != 0):
            return slice(*parts)
    except ValueError:
        pass
    raise DataError(f"{spec}: {index!r} is no index; write for example traj.xyz@::10, traj.xyz@-1 or traj.xyz@0:100")


def read_atoms(
    spec: str | os.PathLike[str], type_map: Mapping[int, int] | None = None, *, skip: int = 0
) -> Iterator[tuple[str, Any]]:
    """Labels and ``ase.Atoms`` of a file in any format that ASE reads, one frame at a time.

    Parameters
    ----------
    spec : str or path
        File name, optionally with an ASE index: ``traj.xyz@::10``.
    type_map : mapping or None
        Atomic number for each atom type of the file (LAMMPS dumps name types 1, 2, ...).
    skip : int
        Leave out so many of the frames that are selected: they are known already.

    Raises
    ------
    DataError
        Missing, empty, truncated or unreadable files, unknown formats, indices that select nothing, frames without
        atoms, types without a mapping.
    """
    path, index = split_index(spec)
    selection = _index_to_slice(index, os.fspath(spec))
    if not os.path.exists(path):
        raise DataError(f"{path}: no such file")
    if not (os.path.isfile(path) or os.path.isdir(path)):
        raise DataError(f"{path}: is a pipe or a device; frames are read from files")
    if os.path.isfile(os.path.join(path, "zarr.json")):
        raise DataError(
            f"{path}: is a store, of environments and not of frames, which are needed here; name the frames"
        )
    if os.path.isdir(path) and not os.path.exists(os.path.join(path, "metadata.json")):
        raise DataError(f"{path}: is a folder, not a file of frames")
    if os.path.isfile(path) and os.path.getsize(path) == 0:
        raise DataError(f"{path}: the file is empty")
    if os.path.isfile(path) and not os.access(path, os.R_OK):
        raise DataError(f"{path}: no permission to read it")
    place = selection.start or 0
    step = selection.step or 1
    # frames are named by their place in the file, unless the index counts from the end
    named = place >= 0 and step > 0
    if skip and named:
        frames = _guarded(path, slice(place + skip * step, selection.stop, step))
    else:
        frames = islice(_guarded(path, selection), skip, None)
    count = skip
    for atoms in frames:
        number = place + count * step
        label = f"{path}, frame {number}" if named else f"{path}@{index}, frame {count} of the selection"
        count += 1
        if len(atoms) == 0:
            raise DataError(f"{label}: it has no atoms")
        yield label, map_types(atoms, type_map, label)
    if count == 0:
        raise DataError(f"{os.fspath(spec)}: no frame is selected; the file has none, or fewer than the index asks for")


def map_types(atoms: Any, type_map: Mapping[int, int] | None, label: str) -> Any:
    """The same ``ase.Atoms``, with the elements of its types.

    Raises
    ------
    DataError
        If the map lacks one.
    """
    if type_map:
        velocities = atoms.get_velocities() if atoms.has("momenta") else None
        atoms.numbers = _map_types(atoms.numbers, type_map, label)
        if velocities is not None:  # momenta were those of the masses of the types
            atoms.set_velocities(velocities)
    return atoms


def holds_bare_types(spec: str | os.PathLike[str]) -> bool:
    """Whether a file is a LAMMPS dump that numbers its atom types and does not name their elements."""
    from ase.io.formats import filetype

    path = split_index(spec)[0]
    if os.path.isdir(path) or filetype(path) != "lammps-dump-text":
        return False
    header = next(line for line in next(_dump_chunks(path)) if line.startswith("ITEM: ATOMS"))
    return "element" not in header.split()


def _guarded(path: str, selection: slice) -> Iterator[Any]:
    """Frames as ASE reads them; whatever a reader raises becomes one sentence."""
    from ase.io import iread
    from ase.io.formats import UnknownFileTypeError, filetype, get_ioformat

    count = 0
    try:
        format_ = filetype(path)
        plain = format_ == "extxyz" and not path.endswith((".gz", ".bz2", ".xz"))
        if plain:
            with open(path, "rb") as stream:
                announced = stream.readline(64).strip()
            if announced.isdigit() and int(announced) > os.path.getsize(path):
                raise DataError(f"{path}, frame 0: it announces {int(announced)} atoms, more than the file has bytes")
        single = get_ioformat(format_).single
        if single and len(range(1)[selection]) == 0:
            return
        whole = slice(-1, None) if single else slice(None)
        # the readers of databases know no steps
        by_hand = format_ in ("db", "json") and selection.step not in (None, 1)
        if plain:
            frames = _stream_xyz(path, selection)
        elif format_ == "lammps-dump-text":
            frames = quietly(_stream_dump(path, selection))
        elif format_ == "extxyz":
            frames = _xyz_by_ase(path, selection)
        else:
            chosen = whole if single or by_hand else selection
            frames = quietly(iread(path, index=chosen, do_not_split_by_at_sign=True))
        if by_hand:
            frames = iter(list(frames)[selection])
        for atoms in frames:
            yield atoms
            count += 1
    except UnknownFileTypeError:
        raise DataError(
            f"{path}: the format is not known; ASE guesses it from ending and content (ase info --formats lists all)"
        ) from None
    except (GeneratorExit, DataError, MemoryError):
        raise
    except Exception as error:  # the readers raise whatever they like
        what = " ".join(str(error).split()) or type(error).__name__
        if len(what) > 160:
            what = what[:157] + "..."
        raise DataError(
            f"{path}: cannot be read after {count} good frames ({what}); is it truncated or damaged?"
        ) from error


def quietly(frames: Iterator[Any]) -> Iterator[Any]:
    """The same, without remarks of readers about their own formats: what matters for our numbers is checked by us."""
    import warnings

    while True:
        if threading.current_thread() is threading.main_thread():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                atoms = next(frames, None)
        else:  # filters belong to all threads: whoever started this one has set them (see `ahead`)
            atoms = next(frames, None)
        if atoms is None:
            return
        yield atoms


def _xyz_by_ase(path: str, selection: slice) -> Iterator[Any]:
    from ase.io import iread

    yield from quietly(iread(path, index=selection, do_not_split_by_at_sign=True))
    if selection.stop is None or selection.stop < 0:
        _check_blank_lines(path)


def _stream_xyz(path: str, selection: slice) -> Iterator[Any]:
    """Frames of an extended XYZ file that is not compressed: fast where they are plain, by ASE where they are not."""
    from quests_zenn.io.index import WORTH_KEEPING, frame_index
    from quests_zenn.io.plain_xyz import UnusualError, plain_frames

    start, stop, step = selection.start or 0, selection.stop, selection.step or 1
    if start < 0 or (stop or 0) < 0 or step < 0:
        index = frame_index(path)
        if index is None:
            yield from _xyz_by_ase(path, selection)
            return
        with open(path) as stream:
            for number in range(len(index))[selection]:
                stream.seek(int(index.starts[number]))
                try:
                    yield next(plain_frames(stream, path, number, number, number + 1))
                except UnusualError:
                    yield from _xyz_by_ase(path, slice(number, number + 1))
        return
    with open(path) as stream:
        first = 0
        if start > 0 and os.path.getsize(path) >= WORTH_KEEPING:
            index = frame_index(path)
            if index is not None:
                first = min(start, len(index))
                stream.seek(int(index.starts[first]))
        try:
            yield from plain_frames(stream, path, first, start, stop, step)
            return
        except UnusualError as unusual:
            start = unusual.number
    yield from _xyz_by_ase(path, slice(start, stop, step))


def _stream_dump(path: str, selection: slice) -> Iterator[Any]:
    """Frames of a LAMMPS dump in text form, one at a time, each judged before ASE parses it.

    ASE's own reader takes however many atoms are left of a frame that was cut short.
    """
    from quests_zenn.io.index import WORTH_KEEPING, frame_index

    start, stop, step = selection.start, selection.stop, selection.step or 1
    backwards = (start or 0) < 0 or (stop or 0) < 0 or step < 0
    index = None
    if backwards or ((start or 0) > 0 and os.path.getsize(path) >= WORTH_KEEPING):
        index = frame_index(path)
    if index is not None:
        with open(path) as stream:
            for number in range(len(index))[selection]:
                stream.seek(int(index.starts[number]))
                yield parse_dump(next(dump_chunks(stream, path, number)))
        return
    if backwards:
        wanted = range(sum(1 for _ in _dump_chunks(path)))[selection]
        chosen, last = set(wanted), max(wanted, default=-1)
        frames = (chunk for number, chunk in enumerate(islice(_dump_chunks(path), last + 1)) if number in chosen)
        ordered = frames if step > 0 else iter(list(frames)[::-1])
    else:
        ordered = islice(_dump_chunks(path), start, stop, step)
    for lines in ordered:
        yield parse_dump(lines)


def parse_dump(lines: Sequence[str]) -> Any:
    """The frame of a LAMMPS dump in text form, from its lines."""
    from ase.io.lammpsrun import read_lammps_dump_text

    return read_lammps_dump_text(StringIO("".join(lines)), index=-1)


def _dump_chunks(path: str) -> Iterator[list[str]]:
    from ase.io.formats import open_with_compression

    with open_with_compression(path, "r") as stream:
        yield from dump_chunks(stream, path)


def dump_chunks(stream: Iterable[str], path: str, number: int = 0) -> Iterator[list[str]]:
    """Lines of each frame of a LAMMPS dump that begins with the frame `number`; blank lines at the end are left out.

    Raises
    ------
    DataError
        If a frame is not whole.
    """
    lines: list[str] = []
    atoms_from = 0  # place of the first atom in `lines`, once it is known
    source = iter(stream)
    while (line := next(source, None)) is not None:
        # units and time may stand before the time step
        if atoms_from and line.startswith("ITEM:"):
            yield _judged(lines, atoms_from, path, number)
            lines, number, atoms_from = [], number + 1, 0
        if line.strip():
            lines.append(line)
        if not atoms_from and line.startswith("ITEM: ATOMS"):
            atoms_from = len(lines)
            atoms = list(islice(source, min(_announced(lines) or 0, sys.maxsize)))  # all at once, which is much faster
            if any(map(str.isspace, atoms)) or "ITEM:" in "".join(atoms):
                source = chain(atoms, source)
            else:
                lines += atoms
    yield _judged(lines, atoms_from, path, number)


def _announced(lines: Sequence[str]) -> int | None:
    """The number of atoms that the header of a frame tells; None if it does not."""
    for title, line in pairwise(lines):
        if title.startswith("ITEM: NUMBER OF ATOMS"):
            return int(line) if line.strip().isdecimal() else None
    return None


def _judged(lines: list[str], atoms_from: int, path: str, number: int) -> list[str]:
    """The lines of a frame, if all its atoms are there."""
    n = _announced(lines[:atoms_from])
    if n is not None:
        found = len(lines) - atoms_from
        # LAMMPS ends every line, so that a last line without an end may have lost digits
        if n == found and lines[-1].endswith("\n"):
            return lines
        where = f"it announces {n} atoms and has {found}" if n != found else "its last line has no end"
    else:
        where = "its header is not complete"
    raise DataError(f"{path}, frame {number}: {where}; was the dump cut short?")


def _check_blank_lines(path: str) -> None:
    """ASE takes a blank line for the end of an XYZ file; what follows it would be lost without a word."""
    from ase.io.formats import open_with_compression

    with open_with_compression(path, "r") as stream:
        number = 0
        while header := stream.readline():
            if not header.strip():
                if stream.read().strip():
                    raise DataError(
                        f"{path}: a blank line follows frame {number - 1}, and more frames follow it; remove it"
                    )
                return
            if header.lstrip().startswith("VEC"):  # the cell of the frame before it
                continue
            for _ in range(int(header) + 1):
                stream.readline()
            number += 1


def _map_types(numbers: npt.NDArray[np.int64], type_map: Mapping[int, int], label: str) -> npt.NDArray[np.int64]:
    unknown = sorted(set(numbers.tolist()) - set(type_map))
    if unknown:
        raise DataError(f"{label}: atom type {unknown[0]} is not in the type map")
    return np.array([type_map[number] for number in numbers.tolist()], dtype=np.int64)


def frame_properties(atoms: Any, energy_key: str | None = None) -> dict[str, float]:
    """Temperature (K), energy (eV) and time (ps, ``info['time_ps']``) of an ``ase.Atoms``, where it carries them.

    The temperature is ``info['temperature']``, then ``info['temperature_K']``, then that of the velocities. The energy
    is ``info[energy_key]`` where a key is given, else that of the attached calculator or ``info['energy']``.
    """
    info = atoms.info
    found: dict[str, Any] = {
        "temperature": info.get("temperature", info.get("temperature_K")),
        "time": info.get("time_ps"),
    }
    if energy_key is not None:
        found["energy"] = info.get(energy_key, getattr(atoms.calc, "results", {}).get(energy_key))
    else:
        found["energy"] = getattr(atoms.calc, "results", {}).get("energy", info.get("energy"))
    if found["temperature"] is None and atoms.has("momenta") and atoms.arrays["momenta"].any():
        found["temperature"] = atoms.get_temperature()
    properties = {}
    for name, value in found.items():
        try:
            number = float(value)
        except (TypeError, ValueError):
            continue
        if np.isfinite(number):
            properties[name] = number
    return properties


def read_frames(
    specs: Sequence[str | os.PathLike[str]] | str | os.PathLike[str],
    *,
    type_map: Mapping[int, int] | None = None,
    energy_key: str | None = None,
    on_atoms: Callable[[str, Any], None] | None = None,
) -> Iterator[Frame]:
    """Frames of one or several files, streamed: only one is in memory at a time.

    Parameters
    ----------
    specs : file name, or sequence of file names
        Each may carry an ASE index: ``traj.xyz@::10``.
    type_map, energy_key
        See `read_atoms` and `frame_properties`.
    on_atoms : callable or None
        Called with label and ``ase.Atoms`` of each frame, before it is handed on.

    Raises
    ------
    DataError
        See `read_atoms`; also where `energy_key` is given and a frame does not carry it.
    """
    for spec in [specs] if isinstance(specs, str | os.PathLike) else specs:
        for frame, atoms in read_pairs(spec, type_map=type_map, energy_key=energy_key):
            if on_atoms is not None:
                on_atoms(frame.label, atoms)
            yield frame


def read_pairs(
    spec: str | os.PathLike[str],
    *,
    type_map: Mapping[int, int] | None = None,
    energy_key: str | None = None,
    skip: int = 0,
) -> Iterator[tuple[Frame, Any]]:
    """Frames of a file, each with its ``ase.Atoms``. See `read_frames`, and `read_atoms` for `skip`."""
    for label, atoms in read_atoms(spec, type_map, skip=skip):
        yield as_read(label, atoms, energy_key), atoms


def as_read(label: str, atoms: Any, energy_key: str | None) -> Frame:
    """The frame of an ``ase.Atoms``, with what it says of itself.

    Raises
    ------
    DataError
        Where `energy_key` is given and the frame does not carry it.
    """
    properties = frame_properties(atoms, energy_key)
    if energy_key is not None and "energy" not in properties:
        known = ", ".join(sorted(map(str, atoms.info))) or "nothing"
        raise DataError(f"{label}: no energy under the key {energy_key!r} (its info holds {known})")
    return Frame(
        np.ascontiguousarray(atoms.positions, dtype=np.float64),
        atoms.cell.array,
        atoms.pbc,
        np.asarray(atoms.numbers, dtype=np.int64),
        label,
        properties,
    )


def selected_atoms(atoms: Any, select: str, label: str = "the frame") -> npt.NDArray[np.int64]:
    """Indices of the atoms that a selection names.

    Parameters
    ----------
    atoms : ase.Atoms
    select : str
        Elements (``Cu`` or ``C,O``), indices (``0,5,10:20``), or an array of the frame, whose non-zero entries count.

    Raises
    ------
    DataError
        If the selection is none of these, or an index is out of range.
    """
    if select in atoms.arrays and atoms.arrays[select].ndim == 1:
        values = atoms.arrays[select]
        if values.dtype.kind not in "biuf":
            raise DataError(f"{label}: the array {select!r} does not hold numbers, so it cannot select atoms")
        return np.flatnonzero(values)
    return selected_numbers(
        atoms.numbers, select, label, "no elements, no indices, and no array with one number per atom"
    )


def selected_numbers(
    numbers: npt.NDArray[np.integer], select: str, label: str, wrong: str = "no elements and no indices"
) -> npt.NDArray[np.int64]:
    """The same for atoms of which only the elements are known.

    Raises
    ------
    DataError
        If the selection is neither elements nor indices, or an index is out of range.
    """
    from ase.data import atomic_numbers

    elements = [part.strip() for part in select.split(",")]
    if all(element in atomic_numbers for element in elements):
        return np.flatnonzero(np.isin(numbers, [atomic_numbers[element] for element in elements]))
    chosen: list[int] = []
    n = len(numbers)
    try:
        for part in select.split(","):
            if ":" in part:
                chosen.extend(range(n)[_index_to_slice(part, label)])
            else:
                chosen.append(range(n)[int(part)])
    except IndexError:
        raise DataError(f"{label}: the selection {select!r} names an atom that does not exist ({n} atoms)") from None
    except ValueError:
        raise DataError(f"{label}: the selection {select!r} names {wrong}") from None
    return np.unique(np.array(chosen, dtype=np.int64))


def stem(spec: str | os.PathLike[str]) -> str:
    """Short name of an input, for tables and legends."""
    return os.fsencode(Path(split_index(spec)[0]).name).decode("utf-8", "replace")
