"""Where the frames of a large file begin: found once, kept in the user's cache, used to jump and to cut a file.

Known are plain extended XYZ and LAMMPS dumps in text form. The index of a file is kept under its name, size and time of
change; a cache that cannot be written, or that is damaged, is no error.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from quests_zenn._core.checks import DataError
from quests_zenn.io.frames import dump_chunks, map_types, parse_dump, quietly
from quests_zenn.io.outputs import user_cache
from quests_zenn.io.plain_xyz import UnusualError, plain_frames

#: Bytes that are searched at a time.
BLOCK = 2**24

#: Files below this size (bytes) are searched again each time.
WORTH_KEEPING = 2**24

_VERSION = 1


@dataclass(frozen=True)
class FrameIndex:
    """Where frames begin.

    Attributes
    ----------
    kind : str
        ``extxyz`` or ``lammps-dump-text``.
    starts : (F + 1,)
        First byte of each frame, and the end of the last.
    atoms : (F,)
        Atoms of each frame.
    """

    kind: str
    starts: npt.NDArray[np.int64]
    atoms: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.atoms)


@dataclass(frozen=True)
class FrameRange:
    """Some consecutive frames of a file: numbers [first, last), and their bytes."""

    first: int
    last: int
    first_byte: int
    last_byte: int


def frame_index(path: str | os.PathLike[str]) -> FrameIndex | None:
    """The index of a file; None where it is of another format, or so unusual that it must be read in order.

    Files are not judged here: what is wrong with a frame is told when it is read.
    """
    from ase.io.formats import UnknownFileTypeError, filetype

    name = os.fspath(path)
    if not os.path.isfile(name) or name.endswith((".gz", ".bz2", ".xz")):
        return None
    try:
        kind = filetype(name)
        found = os.stat(name)
    except (OSError, UnknownFileTypeError):
        return None
    if kind not in ("extxyz", "lammps-dump-text"):
        return None
    place = _place_of(name) if found.st_size >= WORTH_KEEPING else None
    kept = None if place is None else _load(place, kind, found)
    if kept is not None:
        return kept
    lines = _search_xyz(name) if kind == "extxyz" else _search_dump(name)
    if lines is None:
        return None
    starts, atoms = lines
    index = FrameIndex(kind, np.array(starts, np.int64), np.array(atoms, np.int64))
    if place is not None:
        _keep(place, index, found)
    return index


def frame_ranges(path: str | os.PathLike[str], atoms_per_range: int) -> list[FrameRange] | None:
    """Cut a file into ranges of whole frames, of about so many atoms each; None where it has no index.

    Parameters
    ----------
    path : str or path
        A name without an index.
    atoms_per_range : int
    """
    index = frame_index(path)
    if index is None:
        return None
    ranges, first, atoms = [], 0, 0
    for number, n in enumerate(index.atoms.tolist()):
        atoms += n
        if atoms >= atoms_per_range or number == len(index) - 1:
            last = number + 1
            ranges.append(FrameRange(first, last, int(index.starts[first]), int(index.starts[last])))
            first, atoms = last, 0
    return ranges


def range_atoms(
    path: str | os.PathLike[str], part: FrameRange, type_map: Mapping[int, int] | None = None, name: str | None = None
) -> Iterator[tuple[str, Any]]:
    """The frames of a range as ``ase.Atoms``, with their labels; `name` is what these call the file.

    May be called in another process: all arguments can be pickled.

    Raises
    ------
    DataError
        See `quests_zenn.io.frames.read_atoms`; also if the file is not what it was when it was cut.
    """
    name = os.fspath(path) if name is None else name
    try:
        with open(path, "rb") as stream:
            stream.seek(part.first_byte)
            content = stream.read(part.last_byte - part.first_byte)
    except OSError as error:
        raise DataError(f"{name}: cannot be read ({error.strerror or error})") from error
    if len(content) != part.last_byte - part.first_byte:
        raise DataError(f"{name}: is shorter than it was; was it changed in the meantime?")
    number = part.first
    try:
        text = content.decode().replace("\r\n", "\n")
        frames = _xyz_of(text, name, part) if not text.startswith("ITEM:") else _dump_of(text, name, part)
        for atoms in frames:
            label = f"{name}, frame {number}"
            if len(atoms) == 0:
                raise DataError(f"{label}: it has no atoms")
            yield label, map_types(atoms, type_map, label)
            number += 1
    except (GeneratorExit, DataError, MemoryError):
        raise
    except Exception as error:  # the readers raise whatever they like
        what = " ".join(str(error).split())[:160] or type(error).__name__
        raise DataError(f"{name}, frame {number}: cannot be read ({what}); is it truncated or damaged?") from error
    if number != part.last:
        raise DataError(f"{name}: holds other frames than it did; was it changed in the meantime?")


def _xyz_of(text: str, name: str, part: FrameRange) -> Iterator[Any]:
    done = 0
    try:
        for atoms in plain_frames(StringIO(text), name):
            done += 1
            yield atoms
    except UnusualError:
        from ase.io.extxyz import read_xyz

        yield from quietly(read_xyz(StringIO(text), index=slice(done, None)))


def _dump_of(text: str, name: str, part: FrameRange) -> Iterator[Any]:
    for lines in dump_chunks(StringIO(text), name, part.first):
        yield from quietly(iter([parse_dump(lines)]))


# --- the search -------------------------------------------------------------------------------------------------------


def _search_xyz(path: str) -> tuple[list[int], list[int]] | None:
    """Jump from header to header, through the places of all ends of lines."""
    starts: list[int] = []
    atoms: list[int] = []
    base = 0  # byte at which the block begins
    line_start = 0  # of the header that comes next
    to_skip = 0  # lines before it
    rest = b""
    with open(path, "rb") as stream:
        while True:
            block = stream.read(BLOCK)
            content = rest + block
            if not block and content and not content.endswith(b"\n"):
                content += b"\n"
            if not content:
                break
            ends = np.flatnonzero(np.frombuffer(content, np.uint8) == 10)
            place = 0  # of the next end of a line
            while True:
                if to_skip >= len(ends) - place:
                    to_skip -= len(ends) - place
                    break
                place += to_skip
                to_skip = 0
                begin = int(ends[place - 1]) + 1 if place else 0
                header = content[begin : int(ends[place])].strip()
                if not header:  # the end, if nothing follows
                    if content[begin:].strip() or stream.read().strip():
                        return None
                    return [*starts, base + begin], atoms
                try:
                    n = int(header)
                except ValueError:
                    return None
                if n < 1 or content[begin : begin + 200].lstrip().startswith(b"VEC"):
                    return None
                line_start = base + begin
                starts.append(line_start)
                atoms.append(n)
                place += 1
                to_skip = n + 1
            last = int(ends[-1]) + 1 if len(ends) else 0
            rest = content[last:]
            base += last
            if not block:
                break
    if to_skip or not starts:  # the last frame is not whole: whoever reads in order says so
        return None
    return [*starts, min(base, os.path.getsize(path))], atoms


def _search_dump(path: str) -> tuple[list[int], list[int]] | None:
    """All lines that begin with ``ITEM:``; a frame begins with the first of them after its atoms."""
    starts: list[int] = []
    atoms: list[int] = []
    in_atoms, base, rest = True, 0, b""
    with open(path, "rb") as stream:
        while True:
            block = stream.read(BLOCK)
            content = rest + block
            # what stands at the end may go on in the next block
            limit = len(content) if not block else content.rfind(b"\n", 0, max(0, len(content) - 256)) + 1
            place = 0 if content.startswith(b"ITEM:") else content.find(b"\nITEM:") + 1
            while place < limit and (place or content.startswith(b"ITEM:")):
                line = content[place : place + 256].split(b"\n", 2)
                if in_atoms:
                    starts.append(base + place)
                    in_atoms = False
                if line[0].startswith(b"ITEM: NUMBER OF ATOMS"):
                    if len(line) < 2 or not line[1].strip().isdigit():
                        return None
                    atoms.append(int(line[1]))
                elif line[0].startswith(b"ITEM: ATOMS"):
                    in_atoms = True
                following = content.find(b"\nITEM:", place)
                if following < 0:
                    break
                place = following + 1
            if not block:
                break
            rest, base = content[limit:], base + limit
    if not starts or len(starts) != len(atoms) or not in_atoms:
        return None
    return [*starts, os.path.getsize(path)], atoms


# --- the cache --------------------------------------------------------------------------------------------------------


def _place_of(path: str) -> Path | None:
    name = os.path.realpath(path)
    try:
        return user_cache("index") / f"{hashlib.blake2b(os.fsencode(name), digest_size=16).hexdigest()}.npz"
    except RuntimeError:  # nobody's home
        return None


def _load(place: Path, kind: str, file: os.stat_result) -> FrameIndex | None:
    try:
        with open(place, "rb") as stream:
            content = np.load(stream, allow_pickle=False)
            known = [str(content["kind"]), *content["state"].tolist()]
            starts, atoms = content["starts"], content["atoms"]
    except MemoryError:
        raise
    except Exception:  # a damaged archive fails in any way there is
        return None
    if known != [kind, _VERSION, file.st_size, file.st_mtime_ns]:
        return None
    whole = starts.dtype == atoms.dtype == np.int64 and starts.ndim == atoms.ndim == 1
    if not whole or len(starts) != len(atoms) + 1 or len(atoms) == 0:
        return None
    if starts[0] < 0 or starts[-1] > file.st_size or (np.diff(starts) <= 0).any() or (atoms < 1).any():
        return None
    return FrameIndex(kind, starts, atoms)


def _keep(place: Path, index: FrameIndex, file: os.stat_result) -> None:
    temporary = place.with_name(f".{secrets.token_hex(6)}.part")
    with contextlib.suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as stream:
                np.savez(
                    stream, kind=np.array(index.kind), state=np.array([_VERSION, file.st_size, file.st_mtime_ns]),
                    starts=index.starts, atoms=index.atoms,
                )  # fmt: skip
            os.replace(temporary, place)
        finally:
            temporary.unlink(missing_ok=True)
