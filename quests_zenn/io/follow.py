"""Frames of a file that still grows: each one is read when it is complete, and not before.

Extended XYZ and LAMMPS dumps in text form. Both announce the number of their atoms, so that a frame is known to be
complete as soon as its last line has its end; the next frame need not have begun.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING, Any, BinaryIO

from quests_zenn._core.checks import DataError
from quests_zenn.io.frames import _map_types

if TYPE_CHECKING:
    from hashlib import _Hash

#: Bytes read at once.
_BLOCK = 1 << 20

#: Lines of a LAMMPS dump before its atoms; there are nine, or some more.
_LONGEST_HEADER = 40

#: Seconds between two looks at a file that does not grow.
SHORTEST_WAIT, LONGEST_WAIT = 0.05, 1.0


@dataclass(frozen=True)
class Place:
    """Where reading goes on.

    Attributes
    ----------
    number : int
        Of the next frame in the file.
    offset : int
        Byte where it begins.
    """

    number: int = 0
    offset: int = 0


class Follower:
    """Frames of a file that still grows; iterate over it once.

    Parameters
    ----------
    path : str
        The file; it may not be there yet.
    place : Place
        Where to begin.
    idle : float or None
        Stop when the file has not grown for so many seconds; None never stops, 0 reads what is there.
    every : int
        Frames whose number is no multiple of it are passed over.
    type_map : mapping or None
        Atomic number for each atom type.
    on_wait : callable or None
        Called once if the file is not there yet.
    stop : callable or None
        Asked after each frame and while waiting; true ends the reading, as `idle` does.
    hashed : hash or None
        Of all bytes before `place`, see `hash_of`; by default, `place` is the beginning.

    Attributes
    ----------
    hashed : hash
        Of all bytes up to the end of the frame that came last.
    left : str
        After the end: what is there of a frame that was not complete; empty if nothing is.
    """

    def __init__(
        self,
        path: str,
        place: Place = Place(),
        *,
        idle: float | None = None,
        every: int = 1,
        type_map: Mapping[int, int] | None = None,
        on_wait: Callable[[], None] | None = None,
        stop: Callable[[], bool] | None = None,
        hashed: _Hash | None = None,
    ) -> None:
        self.path, self.place, self.idle, self.every, self.type_map = path, place, idle, every, type_map
        self.on_wait, self.stop = on_wait, stop
        self.left = ""
        self.hashed = hashlib.sha256() if hashed is None else hashed
        self._lines: list[bytes] = []
        self._rest = b""
        self._kind = ""

    def __iter__(self) -> Iterator[tuple[str, Any, Place, Place]]:
        """Label, ``ase.Atoms``, where the frame begins, and where the next one does.

        Raises
        ------
        DataError
            If the file is truncated or replaced while it is read, or holds something else than complete frames and the
            beginning of one.
        """
        grown = time.monotonic()
        pause = SHORTEST_WAIT
        stream = None
        try:
            while True:
                if stream is None:
                    stream = self._open()
                block = b"" if stream is None else stream.read(_BLOCK)
                if block:
                    grown, pause = time.monotonic(), SHORTEST_WAIT
                    *whole, self._rest = (self._rest + block).split(b"\n")
                    self._lines += [line + b"\n" for line in whole]
                    for frame in self._complete():
                        yield frame
                        if self._stopped():
                            break
                elif stream is not None:
                    self._judge_file(stream)
                if self._stopped():
                    break
                if block:
                    continue
                left = float("inf") if self.idle is None else self.idle - (time.monotonic() - grown)
                if left <= 0.0:
                    break
                time.sleep(min(pause, left))
                pause = min(2.0 * pause, LONGEST_WAIT)
        finally:
            if stream is not None:
                stream.close()
        needed = self._length() if self._lines else None
        if (self._lines or self._rest.strip()) and (needed is None or needed > len(self._lines)):
            there = len(self._lines) + bool(self._rest)
            self.left = f"{self.path}, frame {self.place.number}: is not complete ({there} lines are there)"

    def _stopped(self) -> bool:
        return self.stop is not None and self.stop()

    def _open(self) -> BinaryIO | None:
        """The file at the place where reading begins; None as long as it is not there."""
        try:
            if os.path.exists(self.path) and not os.path.isfile(self.path):
                raise DataError(f"{self.path}: is no plain file, and cannot be followed")
            stream = open(self.path, "rb")  # noqa: SIM115 - closed by the caller
        except FileNotFoundError:
            if self.on_wait is not None:
                self.on_wait()
                self.on_wait = None
            return None
        except PermissionError:
            raise DataError(f"{self.path}: no permission to read it") from None
        if os.fstat(stream.fileno()).st_size < self.place.offset:
            stream.close()
            raise DataError(
                f"{self.path}: is shorter than what was read of it before; was it truncated, or written anew?"
            )
        stream.seek(self.place.offset)
        return stream

    def _judge_file(self, stream: BinaryIO) -> None:
        """Refuse to go on with a file that is another one by now."""
        try:
            there = os.stat(self.path)
        except FileNotFoundError:
            raise DataError(f"{self.path}: vanished while it was followed") from None
        here = os.fstat(stream.fileno())
        if (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino):
            raise DataError(f"{self.path}: was replaced by another file while it was followed")
        if there.st_size < stream.tell():
            raise DataError(f"{self.path}: was truncated while it was followed; what had been read is no longer there")

    def _complete(self) -> Iterator[tuple[str, Any, Place, Place]]:
        """All frames that are complete by now."""
        while True:
            blank = 0
            while blank < len(self._lines) and not self._lines[blank].strip():
                blank += 1
            self._advance(blank, 0)
            needed = self._length()
            if needed is None or needed > len(self._lines):
                return
            begin, chunk = self.place, self._lines[:needed]
            self._advance(needed, 1)
            if begin.number % self.every == 0:
                label = f"{self.path}, frame {begin.number}"
                yield label, self._parse(label, chunk), begin, self.place

    def _advance(self, lines: int, frames: int) -> None:
        if lines:
            passed = b"".join(self._lines[:lines])
            del self._lines[:lines]
            self.hashed.update(passed)
            self.place = Place(self.place.number + frames, self.place.offset + len(passed))

    def _length(self) -> int | None:
        """Lines of the frame that begins with the first line; None where that is not known yet."""
        if not self._lines:
            return None
        first = self._lines[0].strip()
        label = f"{self.path}, frame {self.place.number}"
        kind = "dump" if first.startswith(b"ITEM:") else "xyz" if first.isdigit() else ""
        if not kind or (self._kind and kind != self._kind):
            told = first[:40].decode("utf-8", "replace")
            raise DataError(
                f"{label}: does not begin as one of extended XYZ or of a LAMMPS dump in text form ({told!r}); files of "
                "other formats cannot be followed"
            )
        self._kind = kind
        if kind == "xyz":
            if int(first) == 0:
                raise DataError(f"{label}: it has no atoms")
            return int(first) + 2
        atoms = None
        for number, line in enumerate(self._lines[:_LONGEST_HEADER]):
            if line.startswith(b"ITEM: NUMBER OF ATOMS") and number + 1 < len(self._lines):
                count = self._lines[number + 1].strip()
                if not count.isdigit():
                    raise DataError(f"{label}: its number of atoms is none")
                if int(count) == 0:
                    raise DataError(f"{label}: it has no atoms")
                atoms = int(count)
            if line.startswith(b"ITEM: ATOMS"):
                if atoms is None:
                    raise DataError(f"{label}: does not say how many atoms it has")
                end = number + 1 + atoms
                if end <= len(self._lines):
                    found = next((i for i in range(number + 1, end) if self._lines[i].startswith(b"ITEM:")), end)
                    if found < end:
                        raise DataError(f"{label}: it announces {atoms} atoms and has {found - number - 1}")
                return end
        if len(self._lines) >= _LONGEST_HEADER:
            raise DataError(f"{label}: its header has no end")
        return None

    def _parse(self, label: str, chunk: list[bytes]) -> Any:
        import warnings

        from ase.io.extxyz import read_xyz
        from ase.io.lammpsrun import read_lammps_dump_text

        try:
            text = StringIO(b"".join(chunk).decode("utf-8"))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # remarks of readers about their own formats
                if self._kind == "dump":
                    atoms = read_lammps_dump_text(text, index=-1)
                else:
                    (atoms,) = read_xyz(text, slice(None))
        except Exception as error:  # the readers raise whatever they like
            what = " ".join(str(error).split()) or type(error).__name__
            raise DataError(f"{label}: cannot be read ({what[:160]})") from error
        if self.type_map:
            velocities = atoms.get_velocities() if atoms.has("momenta") else None
            atoms.numbers = _map_types(atoms.numbers, self.type_map, label)
            if velocities is not None:  # momenta were those of the masses of the types
                atoms.set_velocities(velocities)
        return atoms


def hash_of(path: str, size: int) -> tuple[int, _Hash]:
    """Number of bytes at the beginning of a file, at most `size`, and their hash; by these it is known again."""
    hashed, left = hashlib.sha256(), size
    with open(path, "rb") as stream:
        while left > 0 and (block := stream.read(min(left, _BLOCK))):
            hashed.update(block)
            left -= len(block)
    return size - left, hashed
