"""Stores: environments on disk that need not fit into memory, written in pieces and read in pieces.

A store is a folder, ``NAME.zarr``, in the format Zarr 3, which other programs read too: a matrix ``x``, one row per
environment, and beside it ``numbers`` (of the centres), ``flags`` (bit 0: tied, bit 1: incomplete), ``frame_lengths``,
and ``frames``, what is known of each frame as one line of JSON. What holds for all of them is in the attributes.

Why Zarr, and why so. Each chunk is a file of its own, which is written under another name and renamed: a chunk is there
or not. Each carries a checksum. Rows are not compressed: the digits of descriptors are random and would shrink by a few
per cent, for many times the time of reading. A chunk is thus its rows as they are in memory, and a few of them can be
read without the others. Rows per chunk depend on the width of the matrix alone. Reading runs no code of the store:
only numbers in the form described here are accepted, which is judged before anything is read.

A store that is not complete lies beside its place, as ``.NAME.zarr.part``, and is renamed at the end. Chunks are forced
to the disk first, then a small record that says how far they are good. A run that is killed goes on from there, if its
inputs and parameters are the same; else it begins anew. A lock keeps two runs from writing one store at the same time.
Where the file system has no locks, a run notices at its next record that another has begun, and stops.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import json
import math
import os
import secrets
import shutil
import stat
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from quests_zenn._core.checks import DataError, MissingExtraError
from quests_zenn._core.parallel import available_cores
from quests_zenn._core.rows import FloatArray, piece_rows
from quests_zenn.io.outputs import check_parent, plain, versions

try:
    import fcntl
except ImportError:  # a system without such locks
    fcntl = None  # type: ignore[assignment]

#: Ending of the name of a store.
ENDING = ".zarr"

FORMAT = "quests_zenn environments"
FORMAT_VERSION = 1

#: Bits of the flags.
TIED, INCOMPLETE = 1, 2

#: Bytes of one chunk of what is known of the frames, and lengths of frames in one chunk.
TEXT_CHUNK, LENGTH_CHUNK = 2**20, 2**16

#: A description of a store that is longer than this is none.
MOST_BYTES = 2**26

#: Threads that read chunks at the same time; each holds one.
MOST_READERS = 4

#: Below this share of a chunk its rows are read one by one, without the others.
FEW = 1 / 16

#: What is in the folder of an unfinished store and not in that of a finished one.
_RUN, _RECORD, _LOCK, _LINES = "run.json", "record.json", "lock", "frames.jsonl"

#: Types of the arrays.
_TYPES = {"numbers": "int16", "flags": "uint8", "frame_lengths": "int64", "frames": "uint8"}


@dataclass(frozen=True)
class FrameRecord:
    """What a store knows of a frame besides its rows.

    Attributes
    ----------
    label : str
        Where it came from, for messages.
    n : int
        Its rows.
    file : int
        Which of the inputs it came from.
    volume : float or None
        Per atom, Å3; None where it is undefined.
    without_volume : str
        Why it is.
    properties, info, results : mapping
        Temperature, energy and time; single values and texts of the info of the frame and of its calculator.
    arrays : tuple of str
        Keys of the info that hold more than single values.
    """

    label: str
    n: int
    file: int = 0
    volume: float | None = None
    without_volume: str = ""
    properties: Mapping[str, float] = field(default_factory=dict)
    info: Mapping[str, Any] = field(default_factory=dict)
    results: Mapping[str, Any] = field(default_factory=dict)
    arrays: tuple[str, ...] = ()

    def to_json(self) -> bytes:
        """One line."""
        content = {name: plain(value) for name, value in vars(self).items() if value or name == "n"}
        return json.dumps(content, allow_nan=False).encode() + b"\n"

    @classmethod
    def from_json(cls, line: bytes) -> FrameRecord:
        """The same, read again.

        Raises
        ------
        ValueError
            If the line is something else.
        """
        found = json.loads(line)
        if not isinstance(found, dict) or not found.keys() <= cls.__dataclass_fields__.keys():
            raise ValueError("no record of a frame")
        for name, kinds in _KINDS.items():
            if name in found and (not isinstance(found[name], kinds) or isinstance(found[name], bool)):
                raise ValueError(f"{name} of a frame")
        if found.get("n", -1) < 0 or found.get("file", 0) < 0 or "label" not in found:
            raise ValueError("label or size of a frame")
        if not all(map(_is_finite, found.get("properties", {}).values())):
            raise ValueError("properties of a frame")
        if "volume" in found and not (_is_finite(found["volume"]) and found["volume"] > 0.0):
            raise ValueError("volume of a frame")
        return cls(**{**found, "arrays": tuple(map(str, found.get("arrays", ())))})


_KINDS: dict[str, Any] = {
    "label": str, "n": int, "file": int, "volume": (int, float), "without_volume": str, "properties": dict,
    "info": dict, "results": dict, "arrays": list,
}  # fmt: skip


def _is_finite(value: Any) -> bool:
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # digits without end
        return False


@dataclass(frozen=True)
class StoreParameters:
    """What the rows of a store were made with.

    Attributes
    ----------
    k : int
    cutoff : float
        Å
    species : str
    elements : tuple of str
        In the order of the blocks of a row. Without blocks they are found in the numbers, and may be left out.
    dtype : str
        ``float32`` or ``float64``.
    """

    k: int
    cutoff: float
    species: str
    elements: tuple[str, ...] = ()
    dtype: str = "float64"


def is_store(name: str | os.PathLike[str]) -> bool:
    """Whether a name is that of a store, by its ending or by what is there."""
    path = os.fspath(name)
    return path.rstrip("/").endswith(ENDING) or os.path.isfile(os.path.join(path, "zarr.json"))


def require_zarr() -> Any:
    """The package that reads and writes the arrays.

    Raises
    ------
    MissingExtraError
        If it is not installed.
    """
    try:
        import zarr
    except ImportError:
        raise MissingExtraError("zarr", "dask") from None
    return zarr


# --- writing ----------------------------------------------------------------------------------------------------------


def check_store_output(path: str | os.PathLike[str], overwrite: bool = False) -> Path:
    """`path`, if a store may be written there.

    Raises
    ------
    DataError
        If something is there that is not to be replaced, or the folder does not exist or cannot be written to.
    """
    target = Path(os.path.realpath(path))
    if not target.name.endswith(ENDING):
        raise DataError(f"{os.fspath(path)}: the name of a store must end in {ENDING}")
    if os.path.lexists(target):
        if not overwrite:
            raise DataError(f"{os.fspath(path)}: exists already; choose another name or say --overwrite")
        if not target.is_dir() or _attributes(target) is None:
            raise DataError(f"{os.fspath(path)}: is no store of environments, and is not replaced by one; remove it")
    check_parent(target)
    return target


def part_of(path: str | os.PathLike[str]) -> Path:
    """Where a store lies until it is complete."""
    target = Path(os.path.realpath(path))
    return target.with_name(f".{target.name}.part")


class StoreWriter:
    """A store in the making. Use as a context manager; leave it well only after `finish`.

    Parameters
    ----------
    path : str or path
        Of the store.
    parameters : StoreParameters
        Blocks of species need all their elements now.
    key : mapping
        In terms of JSON: what makes a run the same as another, of its inputs and parameters. Only then it is continued.
    overwrite : bool
        Replace a store that is there, once this one is complete.

    Attributes
    ----------
    n_frames : int
        Frames that are there already: append those that follow.
    n_rows : int
        Rows of these.
    counts : dict
        Frames and rows of each input so far, by its number.
    began_anew : str
        Why what an earlier run left was not used; empty if it was, or there is none.

    Raises
    ------
    DataError
        If another process is writing the store; see `check_store_output`.
    MissingExtraError
        Without zarr.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        parameters: StoreParameters,
        key: Mapping[str, Any],
        overwrite: bool = False,
    ) -> None:
        require_zarr()
        self.name, self.overwrite = os.fspath(path), overwrite
        self.target = check_store_output(path, overwrite)
        self.part = part_of(path)
        self.parameters = parameters
        self.key = {
            "format": FORMAT, "format_version": FORMAT_VERSION, **plain(vars(parameters)), **plain(key),
            "versions": versions(),
        }  # fmt: skip
        self.n_frames = self.n_rows = 0
        self.began_anew = ""
        self._lock_file: Any = None
        self._lines: Any = None
        self._arrays: dict[str, Any] = {}
        self._pool: ThreadPoolExecutor | None = None
        self._writing: Future[None] | None = None
        self._waiting: deque[tuple[int, FrameRecord]] = deque()  # frames that end in no finished chunk, with their ends
        self._lengths: list[int] = []
        self.counts: dict[int, tuple[int, int]] = {}
        self._record = _empty_record()
        self._skip = 0  # rows that the first frame has in finished chunks
        self._end = 0  # of all rows appended
        self._buffer: dict[str, Any] | None = None
        self._used = 0
        self._finished = False

    def __enter__(self) -> StoreWriter:
        with self._errors_told():
            self._acquire()
            try:
                self._begin()
            except BaseException:
                self._release()
                raise
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="quests_zenn store")
        return self

    def __exit__(self, *exc: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True)
            self._pool = None
        if self._lines is not None:
            self._lines.close()
            self._lines = None
        if not self._finished and self._record["chunks"] == 0 and self._is_ours():
            shutil.rmtree(self.part, ignore_errors=True)  # nothing that another run could go on from
        self._release()

    @contextlib.contextmanager
    def _errors_told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            kept = "; what is finished is kept, and the same command goes on from there" if self.n_kept else ""
            raise DataError(f"{self.name}: cannot be written ({error.strerror or error}){kept}") from error

    @property
    def n_kept(self) -> int:
        """Rows from which another run could go on."""
        chunks: int = self._record["chunks"]
        return chunks * self._rows_per_chunk() if chunks else 0

    @property
    def shape(self) -> tuple[int, int]:
        """(N, d) of all rows so far."""
        return self._end, self._record["width"]

    @property
    def present(self) -> list[int]:
        """Atomic numbers of the rows, once finished."""
        return list(self._record["present"])

    @property
    def flagged(self) -> tuple[int, int]:
        """Numbers of rows that are tied, and that are incomplete, once finished."""
        return self._record["n_tied"], self._record["n_incomplete"]

    # --- who may write ---

    def _acquire(self) -> None:
        while True:
            self.part.mkdir(exist_ok=True)
            try:
                stream = open(self.part / _LOCK, "a+b")  # noqa: SIM115
            except FileNotFoundError:  # another run was just finished, or gave up
                continue
            if fcntl is not None:
                try:
                    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    stream.close()
                    raise DataError(f"{self.name}: another process is writing it") from None
                except OSError:
                    pass  # a file system without locks
            try:
                same = os.path.samestat(os.stat(self.part / _LOCK), os.fstat(stream.fileno()))
            except FileNotFoundError:
                same = False
            if same:
                break
            stream.close()
        self._lock_file = stream
        self._mark = secrets.token_hex(8)
        (self.part / _LOCK).write_text(self._mark)
        try:
            check_store_output(self.name, self.overwrite)  # it may have appeared in the meantime
        except DataError:
            if os.listdir(self.part) == [_LOCK]:
                shutil.rmtree(self.part, ignore_errors=True)
            self._release()
            raise

    def _release(self) -> None:
        if self._lock_file is not None:
            self._lock_file.close()
            self._lock_file = None

    def _is_ours(self) -> bool:
        try:
            return (self.part / _LOCK).read_text() == self._mark
        except OSError:
            return False

    def _still_ours(self) -> None:
        if not self._is_ours():
            raise DataError(f"{self.name}: another process has begun to write it; this one stops")

    # --- what an earlier run left ---

    def _begin(self) -> None:
        left = [name for name in os.listdir(self.part) if name != _LOCK]
        if left:
            self.began_anew = self._go_on()
            if self.began_anew:
                for name in left:
                    path = self.part / name
                    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
                self._record, self._lengths, self._arrays = _empty_record(), [], {}
                self.counts = {}
        if self._record["chunks"] == 0:
            _write_whole(self.part / _RUN, self.key)
            _write_whole(self.part / "zarr.json", {"zarr_format": 3, "node_type": "group", "attributes": {}})
        self._lines = open(self.part / _LINES, "ab+", buffering=0)  # noqa: SIM115
        self._lines.truncate(self._record["bytes"])
        self.n_frames, self.n_rows = self._record["frames"], self._record["first_row"]
        self._end = self.n_rows
        self._skip = self._record["chunks"] * self._rows_per_chunk() - self.n_rows if self._record["chunks"] else 0

    def _go_on(self) -> str:
        """Take up what an earlier run left; otherwise says why not."""
        key = _read_json(self.part / _RUN)
        record = _read_json(self.part / _RECORD)
        if key is None or record is None or not _is_record(record):
            return "what an earlier run left is not enough to go on from"
        for name in dict.fromkeys([*self.key, *key]):
            if key.get(name) != self.key.get(name):
                old, new = _short(key.get(name)), _short(self.key.get(name))
                return f"the run before this one had {name.replace('_', ' ')} {old}, and this one has {new}"
        self._record = record
        width = record["width"]
        try:
            with open(self.part / _LINES, "rb") as stream:
                for line in stream.read(record["bytes"]).splitlines(keepends=True):
                    frame = FrameRecord.from_json(line)
                    self._lengths.append(frame.n)
                    self._count(frame)
            for name in ("x", "numbers", "flags"):
                shape = (record["chunks"] * self._rows_per_chunk(), *((width,) if name == "x" else ()))
                layout = _Layout(name, shape, self._rows_per_chunk(), self._type(name))
                # it may say one chunk more than the record
                _write_whole(self.part / name / "zarr.json", layout.metadata())
                layout.check(self.part)
                self._arrays[name] = layout.open(self.part, write=True)
        except (OSError, ValueError, ArithmeticError):  # DataError too; numbers may be too large for anything
            return "what an earlier run left is damaged"
        if len(self._lengths) != record["frames"] or sum(self._lengths) != record["first_row"]:
            return "what an earlier run left is damaged"
        for name in ("x", "numbers", "flags"):
            for path in (self.part / name).rglob("*.partial"):
                path.unlink()
        return ""

    # --- rows ---

    def _type(self, name: str) -> str:
        return self.parameters.dtype if name == "x" else _TYPES[name]

    def _rows_per_chunk(self) -> int:
        return chunk_rows(self._record["width"])

    def append(
        self,
        x: FloatArray,
        numbers: npt.NDArray[np.integer],
        tied: npt.NDArray[np.bool_],
        incomplete: npt.NDArray[np.bool_],
        frames: Sequence[FrameRecord],
    ) -> None:
        """Add the environments of some whole frames. They are on disk when their chunk is full, or at the end.

        Parameters
        ----------
        x : (n, d)
        numbers, tied, incomplete : (n,)
        frames : sequence of FrameRecord
            In the same order.

        Raises
        ------
        DataError
            If the disk is full, or rows are not finite.
        """
        if sum(frame.n for frame in frames) != len(x):
            raise ValueError(f"frames of {sum(frame.n for frame in frames)} rows, got {len(x)}")
        for frame in frames:
            self._end += frame.n
            self._waiting.append((self._end, frame))
            self._count(frame)
        if len(x) == 0:
            return
        if numbers.min() < 0 or numbers.max() > np.iinfo(np.int16).max:
            raise DataError(f"{frames[0].label} or a frame soon after it: an atomic number is out of range")
        if not np.isfinite(x).all():
            raise DataError(f"{frames[0].label} or a frame soon after it: an environment is not finite")
        width = x.shape[1]
        if self._record["width"] not in (0, width):
            raise ValueError(f"rows must have {self._record['width']} columns, got {width}")
        self._record["width"] = width
        first, self._skip = self._skip, max(0, self._skip - len(x))
        while first < len(x):
            if self._buffer is None:
                n = self._rows_per_chunk()
                self._buffer = {
                    "x": np.empty((n, width), self.parameters.dtype),
                    "numbers": np.empty(n, np.int16),
                    "flags": np.empty(n, np.uint8),
                }
            buffer = self._buffer
            n = min(len(x) - first, len(buffer["x"]) - self._used)
            place, taken = slice(self._used, self._used + n), slice(first, first + n)
            buffer["x"][place] = x[taken]
            buffer["numbers"][place] = numbers[taken]
            buffer["flags"][place] = TIED * tied[taken] + INCOMPLETE * incomplete[taken]
            self._used += n
            first += n
            if self._used == len(buffer["x"]):
                self._flush()

    def _count(self, frame: FrameRecord) -> None:
        frames, rows = self.counts.get(frame.file, (0, 0))
        self.counts[frame.file] = frames + 1, rows + frame.n

    def _flush(self) -> None:
        """Hand a full chunk to the thread that writes; one is written while the next is filled."""
        buffer, self._buffer, self._used = self._buffer, None, 0
        self._wait()
        assert self._pool is not None
        assert buffer is not None
        self._writing = self._pool.submit(self._write_chunk, buffer)

    def _wait(self) -> None:
        if self._writing is not None:
            writing, self._writing = self._writing, None
            with self._errors_told():
                writing.result()

    def _write_chunk(self, buffer: dict[str, Any]) -> None:
        """One full chunk, and the record that it is there."""
        self._still_ours()
        number, n = self._record["chunks"], len(buffer["x"])
        self._write_rows(buffer, number, n)
        last = (number + 1) * n
        done = []
        while self._waiting and self._waiting[0][0] <= last:
            end, frame = self._waiting.popleft()
            done.append(frame)
            self._record["first_row"] = end
        self._write_lines(done)
        self._note(buffer, n)
        self._record["chunks"] = number + 1
        _write_whole(self.part / _RECORD, self._record)

    def _write_rows(self, buffer: dict[str, Any], number: int, rows: int) -> None:
        n = len(buffer["x"])
        for name, content in buffer.items():
            shape = (number * n + rows, *content.shape[1:])
            if name not in self._arrays:
                self._arrays[name] = _Layout(name, shape, n, self._type(name)).create(self.part)
            array = self._arrays[name]
            array.resize(shape)
            array[number * n : number * n + rows] = content[:rows]
            _force(_chunk_file(self.part, name, number, len(shape)))
            _force(_chunk_file(self.part, name, number, len(shape)).parent)
            _force(self.part / name / "zarr.json")

    def _write_lines(self, frames: Sequence[FrameRecord]) -> None:
        content = b"".join(frame.to_json() for frame in frames)
        rest = memoryview(content)
        while rest:
            rest = rest[self._lines.write(rest) :]
        os.fsync(self._lines.fileno())
        self._lengths += [frame.n for frame in frames]
        self._record["bytes"] += len(content)
        self._record["frames"] += len(frames)

    def _note(self, buffer: dict[str, Any], rows: int) -> None:
        """What is known of all rows so far."""
        record = self._record
        digest = hashlib.blake2b(record["digest"].encode(), digest_size=16)
        for name in ("x", "numbers", "flags"):
            part = buffer[name][:rows]
            digest.update(part.astype(part.dtype.newbyteorder("<"), copy=False).reshape(-1).view(np.uint8).data)
        record["digest"] = digest.hexdigest()
        flags = buffer["flags"][:rows]
        record["n_tied"] += int(np.count_nonzero(flags & TIED))
        record["n_incomplete"] += int(np.count_nonzero(flags & INCOMPLETE))
        record["present"] = sorted({*record["present"], *np.unique(buffer["numbers"][:rows]).tolist()})

    def finish(self, provenance: Sequence[Mapping[str, Any]]) -> None:
        """Write what is left, and put the store in its place.

        Parameters
        ----------
        provenance : sequence of mappings
            What was read from which file.

        Raises
        ------
        DataError
            If the disk is full, or there are no rows; if a store appeared there in the meantime.
        """
        self._wait()
        with self._errors_told():
            self._still_ours()
            whole, record = self._record["chunks"], self._record
            if self._end == 0 or record["width"] == 0:
                raise DataError(f"{self.name}: there are no environments to write")
            rows = self._rows_per_chunk()
            if self._used:
                assert self._buffer is not None
                buffer = self._buffer
                if whole == 0:  # all in one chunk, which is no larger than its rows
                    buffer, rows = {name: content[: self._used] for name, content in buffer.items()}, self._used
                self._write_rows(buffer, whole, self._used)
                self._note(buffer, self._used)
            self._write_lines([frame for _, frame in self._waiting])
            self._waiting.clear()
            self._write_rest()
            attributes = self._attributes(provenance, self._end, rows)
            _write_whole(
                self.part / "zarr.json", {"zarr_format": 3, "node_type": "group", "attributes": {FORMAT: attributes}}
            )
            self._still_ours()
            check_store_output(self.name, self.overwrite)
            self._replace()
        self._finished = True

    def _write_rest(self) -> None:
        """The arrays about frames."""
        self._lines.seek(0)
        text = np.frombuffer(self._lines.read(), np.uint8)
        contents = (("frame_lengths", np.array(self._lengths, np.int64)), ("frames", text))
        for name, content in contents:
            shutil.rmtree(self.part / name, ignore_errors=True)  # of a run that was killed here
            largest = LENGTH_CHUNK if name == "frame_lengths" else TEXT_CHUNK
            n = min(len(content), largest)
            array = _Layout(name, content.shape, n, _TYPES[name]).create(self.part)
            array[:] = content
            for number in range(-(-len(content) // n)):
                _force(_chunk_file(self.part, name, number, 1))
            _force(self.part / name / "zarr.json")

    def _attributes(self, provenance: Sequence[Mapping[str, Any]], n: int, rows: int) -> dict[str, Any]:
        record, parameters = self._record, vars(self.parameters)
        made = plain(parameters | {"elements": list(self.parameters.elements) or _symbols(record["present"])})
        digest = hashlib.blake2b(record["digest"].encode(), digest_size=16)
        digest.update(np.array(self._lengths, "<i8").tobytes())
        digest.update(json.dumps([FORMAT_VERSION, made, n], sort_keys=True).encode())
        return {
            "format_version": FORMAT_VERSION, "complete": True, "token": digest.hexdigest(), **made,
            "n_environments": n, "n_columns": record["width"], "n_frames": len(self._lengths), "rows_per_chunk": rows,
            "n_tied": record["n_tied"], "n_incomplete": record["n_incomplete"], "present": record["present"],
            "provenance": plain(list(provenance)), "versions": self.key["versions"],
        }  # fmt: skip

    def _replace(self) -> None:
        """Put the folder in its place. What was there goes only when the new one is ready."""
        old = self.target.with_name(f".{self.target.name}.old")
        if old.is_dir() and not old.is_symlink():
            shutil.rmtree(old)
        if self.target.exists():
            os.rename(self.target, old)
        os.rename(self.part, self.target)
        # not before: a run that is killed here could not go on, and whoever waits for the lock must find it
        for name in (_RUN, _RECORD, _LINES, _LOCK):
            (self.target / name).unlink(missing_ok=True)
        shutil.rmtree(old, ignore_errors=True)
        _force(self.target.parent)


def _empty_record() -> dict[str, Any]:
    """How far the chunks are good: `frames` end in them, and the next one begins at `first_row`."""
    return {
        "chunks": 0, "width": 0, "frames": 0, "first_row": 0, "bytes": 0, "digest": "", "n_tied": 0, "n_incomplete": 0,
        "present": [],
    }  # fmt: skip


def _is_record(found: Mapping[str, Any]) -> bool:
    """Whether it is one of `_empty_record`, by the types of its values."""
    wanted = _empty_record()
    if found.keys() != wanted.keys() or any(type(found[name]) is not type(wanted[name]) for name in wanted):
        return False
    numbers = [value for value in found.values() if isinstance(value, int)] + found["present"]
    return all(type(number) is int and number >= 0 for number in numbers)


def _symbols(numbers: Sequence[int]) -> list[str]:
    from ase.data import chemical_symbols

    return sorted(chemical_symbols[z] if z < len(chemical_symbols) else f"Z{z}" for z in numbers)


def chunk_rows(width: int) -> int:
    """Rows of a chunk: four make one piece of `quests_zenn._core.rows`."""
    return piece_rows(max(1, width)) // 4


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _force(path: Path) -> None:
    """Have a file or a folder on the disk, as far as the system can tell."""
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0)
    try:
        number = os.open(path, flags)
    except PermissionError:  # folders cannot be opened everywhere
        return
    try:
        os.fsync(number)
    except OSError:
        if not path.is_dir():
            raise
    finally:
        os.close(number)


def _write_whole(path: Path, content: Mapping[str, Any]) -> None:
    temporary = path.with_name(path.name + ".new")
    with open(temporary, "w", encoding="utf-8") as stream:
        json.dump(plain(content), stream, allow_nan=False)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)
    _force(path.parent)


def _read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object; None if there is none."""
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode) or os.path.getsize(path) > MOST_BYTES:
            return None
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _attributes(path: Path) -> dict[str, Any] | None:
    """What a store says of itself; None if it is none of ours."""
    found = _read_json(path / "zarr.json")
    if found is None or found.get("zarr_format") != 3 or found.get("node_type") != "group":
        return None
    attributes = found.get("attributes")
    own = attributes.get(FORMAT) if isinstance(attributes, dict) else None
    return own if isinstance(own, dict) else None


# --- the form of an array ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Layout:
    """The one form that an array of a store may have."""

    name: str
    shape: tuple[int, ...]
    rows: int  # of a chunk
    dtype: str

    @property
    def n_chunks(self) -> int:
        return -(-self.shape[0] // self.rows)

    @property
    def chunk_bytes(self) -> int:
        """Of its file: all its rows, the last chunk's too, and the checksum."""
        return self.rows * math.prod(self.shape[1:]) * np.dtype(self.dtype).itemsize + 4

    def metadata(self) -> dict[str, Any]:
        """What ``zarr.json`` says."""
        size = np.dtype(self.dtype).itemsize
        order: dict[str, Any] = {"name": "bytes"}
        if size > 1:
            order["configuration"] = {"endian": "little"}
        return {
            "zarr_format": 3, "node_type": "array", "shape": list(self.shape), "data_type": self.dtype,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [self.rows, *self.shape[1:]]}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": 0, "codecs": [order, {"name": "crc32c"}], "attributes": {}, "storage_transformers": [],
        }  # fmt: skip

    def create(self, folder: Path) -> Any:
        """A new array; chunks of zeros are written like others."""
        zarr = require_zarr()
        array = zarr.create_array(
            zarr.storage.LocalStore(folder / self.name), shape=self.shape, chunks=(self.rows, *self.shape[1:]),
            dtype=self.dtype, filters=(), compressors=(zarr.codecs.Crc32cCodec(),), fill_value=0, zarr_format=3,
            config={"write_empty_chunks": True},
        )  # fmt: skip
        _force(folder)
        return array

    def open(self, folder: Path, write: bool = False) -> Any:
        """An array that was checked. What its file says is not read again."""
        zarr = require_zarr()
        place = zarr.storage.StorePath(zarr.storage.LocalStore(folder / self.name, read_only=not write))
        array = zarr.Array.from_dict(place, self.metadata())
        return array.with_config({"write_empty_chunks": True}) if write else array

    def check(self, folder: Path) -> None:
        """Compare with what is there.

        Raises
        ------
        DataError
            If it has another form, or a chunk is missing or has not its length.
        """
        found = _read_json(folder / self.name / "zarr.json") or {}
        wanted = self.metadata()
        for name in ("attributes", "storage_transformers", "dimension_names"):
            if not found.get(name):
                found.pop(name, None)
                wanted.pop(name, None)
        found["codecs"] = [
            {key: value for key, value in codec.items() if value != {}} if isinstance(codec, dict) else codec
            for codec in found.get("codecs", ()) or ()
        ]
        if found != wanted:
            raise DataError(f"its array {self.name} has another form than this package writes")
        for number in range(self.n_chunks):
            wrong = self.wrong_with(folder, number)
            if wrong:
                raise DataError(f"chunk {number} of its array {self.name} {wrong}")

    def wrong_with(self, folder: Path, number: int) -> str:
        """What is wrong with the file of a chunk, without reading it."""
        try:
            found = os.stat(_chunk_file(folder, self.name, number, len(self.shape)), follow_symlinks=False)
        except OSError:
            return "is missing"
        if not stat.S_ISREG(found.st_mode):
            return "is no plain file"
        if found.st_size != self.chunk_bytes:
            return f"has {found.st_size:,} bytes and not {self.chunk_bytes:,}: it is truncated or damaged"
        return ""


def _chunk_file(folder: Path, name: str, number: int, dimensions: int) -> Path:
    path = folder / name / "c" / str(number)
    return path / "0" if dimensions == 2 else path


# --- reading ----------------------------------------------------------------------------------------------------------


def open_store(path: str | os.PathLike[str], verify: bool = False) -> Store:
    """A store of environments.

    Parameters
    ----------
    path : str or path
    verify : bool
        Read all of it once and compare checksums. Otherwise each chunk is judged when it is read.

    Raises
    ------
    DataError
        If it is none, of another version, not complete, or damaged.
    MissingExtraError
        Without zarr.
    """
    store = Store(path)
    if verify:
        store.verify()
    return store


class Store:
    """Environments on disk. A matrix of the kind `quests_zenn._core.rows.Rows`, and what belongs to it.

    Attributes
    ----------
    path : str
    token : str
        Of the contents: equal for equal ones.
    k, cutoff, species, elements
        Of the descriptor; elements in the order of the blocks.
    n_frames, n_tied, n_incomplete : int
    present : tuple of int
        Atomic numbers that occur.
    provenance : list of dict
        What was read from which file.
    versions : dict
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._folder = Path(path)
        if not self._folder.is_dir():
            unfinished = part_of(path).is_dir()
            told = "is not complete; repeat the command that makes it" if unfinished else "no such store"
            if self._folder.exists():
                told = "is no store of environments"
            raise DataError(f"{self.path}: {told}")
        self._known = self._look()
        found = _attributes(self._folder)
        if found is None:
            raise DataError(
                f"{self.path}: is no store of environments; quests-zenn descriptors FILE... -o NAME{ENDING} makes one"
            )
        if found.get("format_version") != FORMAT_VERSION:
            raise DataError(
                f"{self.path}: was written in version {_short(found.get('format_version'))} of the format, and this "
                f"package reads version {FORMAT_VERSION}"
            )
        require_zarr()
        try:
            self._take_in(found)
            for layout in self._layouts.values():
                layout.check(self._folder)
        except DataError as error:
            raise DataError(f"{self.path}: {error}; {_AGAIN}") from None
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise DataError(f"{self.path}: what it says of itself is damaged ({error}); {_AGAIN}") from None
        self._arrays: dict[str, Any] = {name: layout.open(self._folder) for name, layout in self._layouts.items()}
        self._verified: set[int] = set()

    def _look(self) -> tuple[int, ...]:
        """By what the store is known to be the one that was opened; nothing where it is away."""
        try:
            found = os.stat(self._folder / "zarr.json")
        except OSError:
            return ()
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns

    def _require_same(self) -> None:
        """Refuse a store that took the place of the one that was opened: its chunks have right checksums, too."""
        now = self._look()
        if now and now != self._known:
            raise DataError(f"{self.path}: was replaced while it was in use; repeat the command")

    def _take_in(self, found: Mapping[str, Any]) -> None:
        """Judge what the store says of itself before anything is made of it."""
        if found["complete"] is not True:
            raise DataError("is not complete")
        n, d, frames, rows = (
            _whole(found, name, 1) for name in ("n_environments", "n_columns", "n_frames", "rows_per_chunk")
        )
        if rows != min(n, chunk_rows(d)):
            raise ValueError("rows_per_chunk")
        if found["dtype"] not in ("float32", "float64"):
            raise ValueError("dtype")
        self.k, self.cutoff, self.species = _whole(found, "k", 2), float(found["cutoff"]), str(found["species"])
        if not (math.isfinite(self.cutoff) and self.cutoff > 0.0) or self.species not in ("none", "blocks", "pairs"):
            raise ValueError("cutoff or species")
        self.elements: tuple[str, ...] = tuple(map(str, found["elements"]))
        e = len(self.elements)
        blocks = 1 + {"none": 0, "blocks": e, "pairs": e + e * (e - 1) // 2}[self.species]
        if d != blocks * (2 * self.k - 1) or list(self.elements) != sorted({*self.elements}):
            raise ValueError("elements do not make so many columns")
        self.token = str(found["token"])
        self.n_frames, self.n_tied = frames, _whole(found, "n_tied", 0)
        self.n_incomplete = _whole(found, "n_incomplete", 0)
        self.present: tuple[int, ...] = tuple(found["present"])
        if not all(type(number) is int and 0 <= number <= np.iinfo(np.int16).max for number in self.present):
            raise ValueError("present")
        symbols = {*_symbols(self.present)}
        if not symbols or not symbols <= {*self.elements} or (self.species == "none" and len(symbols) < e):
            raise ValueError("elements are not those of its atoms")
        self.provenance: list[dict[str, Any]] = [dict(part) for part in found["provenance"]]
        self.versions: dict[str, str] = dict(found["versions"])
        text = self._text_length()
        self._layouts = {
            "x": _Layout("x", (n, d), rows, found["dtype"]),
            "numbers": _Layout("numbers", (n,), rows, _TYPES["numbers"]),
            "flags": _Layout("flags", (n,), rows, _TYPES["flags"]),
            "frame_lengths": _Layout("frame_lengths", (frames,), min(frames, LENGTH_CHUNK), _TYPES["frame_lengths"]),
            "frames": _Layout("frames", (text,), min(text, TEXT_CHUNK), _TYPES["frames"]),
        }

    def _text_length(self) -> int:
        found = _read_json(self._folder / "frames" / "zarr.json") or {}
        shape = found.get("shape")
        if not isinstance(shape, list) or len(shape) != 1:
            raise ValueError("frames")
        return _whole({"frames": shape[0]}, "frames", 1)

    # --- rows ---

    @property
    def rows(self) -> Store:
        """The matrix: this store itself."""
        return self

    @property
    def shape(self) -> tuple[int, int]:
        """(N, d)"""
        n, d = self._layouts["x"].shape
        return n, d

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32 or float64"""
        return np.dtype(self._layouts["x"].dtype)

    @property
    def chunk_rows(self) -> int:
        """Rows of each chunk but the last."""
        return self._layouts["x"].rows

    def __len__(self) -> int:
        return self.shape[0]

    def read(self, first: int, last: int) -> FloatArray:
        """Rows [first, last).

        Raises
        ------
        DataError
            If a chunk is damaged, or a row is not finite.
        """
        n, d = self.shape
        first, last, _ = slice(first, last).indices(n)
        out = np.empty((max(0, last - first), d), self.dtype)
        step = self.chunk_rows
        for number in range(first // step, -(-last // step)) if last > first else ():
            a, b = max(first, number * step), min(last, (number + 1) * step)
            if number in self._verified and b - a < FEW * step:
                out[a - first : b - first] = self._some(number, [(a - number * step, b - number * step)])
            else:
                out[a - first : b - first] = self._chunk(number)[a - number * step : b - number * step]
        return out

    def take(self, rows: npt.NDArray[np.integer]) -> FloatArray:
        """Some rows, in the order asked for. Each chunk is read once at most.

        Raises
        ------
        DataError
            If a chunk is damaged, or a row is not finite.
        IndexError
            For a row that is not there.
        """
        rows = np.asarray(rows)
        n, d = self.shape
        if len(rows) and (rows.min() < 0 or rows.max() >= n):
            raise IndexError(f"rows of a store range from 0 to {n - 1}")
        out = np.empty((len(rows), d), self.dtype)
        order = np.argsort(rows, kind="stable")
        ordered, step = rows[order], self.chunk_rows
        edges = [*np.flatnonzero(np.diff(ordered // step, prepend=-1)).tolist(), len(rows)]
        parts = list(itertools.pairwise(edges))

        def fill(part: tuple[int, int]) -> None:
            places, own = order[slice(*part)], ordered[slice(*part)]
            number = int(own[0]) // step
            own = own - number * step
            if number in self._verified and len(own) < FEW * step:
                starts = np.flatnonzero(np.diff(own, prepend=-2) != 1)
                ends = np.append(starts[1:], len(own))
                runs = [(int(own[a]), int(own[b - 1]) + 1) for a, b in zip(starts, ends, strict=True)]
                out[places] = self._some(number, runs)
            else:
                out[places] = self._chunk(number)[own]

        if len(parts) < 2:
            for part in parts:
                fill(part)
            return out
        with ThreadPoolExecutor(min(MOST_READERS, available_cores()), "quests_zenn store") as pool:
            try:
                for done in [pool.submit(fill, part) for part in parts]:
                    done.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        return out

    def piece(self, first: int, last: int) -> StorePiece:
        """Rows [first, last), to be read by another process."""
        return StorePiece(os.path.abspath(self.path), self.token, first, last)

    def _chunk(self, number: int) -> FloatArray:
        """A chunk of x, judged."""
        content: FloatArray = self._read("x", number)
        if number not in self._verified:
            if not np.isfinite(content).all():
                row = int(np.flatnonzero(~np.isfinite(content).all(axis=1))[0]) + number * self.chunk_rows
                raise DataError(f"{self.path}: row {row:,} of its array x is not finite; {_AGAIN}")
            self._verified.add(number)
        return content

    def _some(self, number: int, runs: Sequence[tuple[int, int]]) -> FloatArray:
        """Some rows of a chunk whose checksum was right when all of it was read."""
        d = self.shape[1]
        out = np.empty((sum(b - a for a, b in runs), d), self.dtype)
        size, done = d * self.dtype.itemsize, 0
        try:
            with open(_chunk_file(self._folder, "x", number, 2), "rb", buffering=0) as stream:
                for a, b in runs:
                    stream.seek(a * size)
                    view = out[done : done + b - a].reshape(-1).view(np.uint8)
                    if stream.readinto(view.data) != view.size:
                        raise self._damaged("x", number, "is truncated or damaged")
                    done += b - a
        except OSError as error:
            raise self._damaged("x", number, f"cannot be read ({error.strerror or error})") from None
        self._require_same()
        return out.byteswap(inplace=True) if _BIG_ENDIAN else out

    def _read(self, name: str, number: int) -> npt.NDArray[Any]:
        """One chunk; its checksum is compared."""
        layout = self._layouts[name]
        wrong = layout.wrong_with(self._folder, number)  # zarr takes zeros for a chunk that is missing
        if not wrong:
            first = number * layout.rows
            try:
                found = np.asarray(self._arrays[name][first : min(first + layout.rows, layout.shape[0])])
                self._require_same()
                return found
            except DataError:
                raise
            except OSError as error:
                wrong = f"cannot be read ({error.strerror or error})"
            except MemoryError:
                raise
            except Exception:
                wrong = "is damaged: its checksum is another"
        raise self._damaged(name, number, wrong)

    def _damaged(self, name: str, number: int, wrong: str) -> DataError:
        return DataError(f"{self.path}: chunk {number} of its array {name} {wrong}; {_AGAIN}")

    def _all(self, name: str) -> npt.NDArray[Any]:
        return np.concatenate([self._read(name, number) for number in range(self._layouts[name].n_chunks)])

    # --- beside the rows ---

    @functools.cached_property
    def numbers(self) -> npt.NDArray[np.int16]:
        """Atomic numbers of all rows, (N,)."""
        found = self._all("numbers")
        if not np.isin(found, self.present).all():
            raise DataError(f"{self.path}: its array numbers holds what is not among its elements; {_AGAIN}")
        return found

    @functools.cached_property
    def flags(self) -> npt.NDArray[np.uint8]:
        """Bits of all rows, (N,): `TIED`, `INCOMPLETE`."""
        return self._all("flags")

    @property
    def tied(self) -> npt.NDArray[np.bool_]:
        """Whether equal distances straddle place k, (N,)."""
        return (self.flags & TIED).astype(bool)

    @property
    def incomplete(self) -> npt.NDArray[np.bool_]:
        """Whether there are fewer than k neighbours, (N,)."""
        return (self.flags & INCOMPLETE).astype(bool)

    @functools.cached_property
    def frame_offsets(self) -> npt.NDArray[np.int64]:
        """Rows of frame f are ``frame_offsets[f]`` to ``frame_offsets[f + 1]``, (F + 1,)."""
        lengths = self._all("frame_lengths")
        n = len(self)
        if (lengths < 0).any() or (lengths > n).any() or int(lengths.sum()) != n:
            raise DataError(f"{self.path}: its array frame_lengths does not add up to its {n:,} rows; {_AGAIN}")
        return np.concatenate([[0], np.cumsum(lengths)])

    def records(self) -> Iterator[FrameRecord]:
        """What is known of each frame, one at a time."""
        lengths = np.diff(self.frame_offsets)
        rest, count = b"", 0
        for number in range(self._layouts["frames"].n_chunks):
            rest += self._read("frames", number).tobytes()
            *lines, rest = rest.split(b"\n")
            for line in lines:
                try:
                    record = FrameRecord.from_json(line)
                    if record.n != lengths[count] or record.file >= max(1, len(self.provenance)):
                        raise ValueError("size")
                except (ValueError, TypeError, IndexError, RecursionError):
                    raise DataError(f"{self.path}: what it says of frame {count} is damaged; {_AGAIN}") from None
                count += 1
                yield record
        if rest or count != self.n_frames:
            raise DataError(f"{self.path}: it says something of {count:,} of its {self.n_frames:,} frames; {_AGAIN}")

    @property
    def labels(self) -> list[str]:
        """Names of the frames."""
        return [record.label for record in self.records()]

    @property
    def parameters(self) -> StoreParameters:
        """What its rows were made with."""
        return StoreParameters(self.k, self.cutoff, self.species, self.elements, self.dtype.name)

    def verify(self) -> None:
        """Read all of it once.

        Raises
        ------
        DataError
            Naming the first chunk that is damaged.
        """
        for number in range(self._layouts["x"].n_chunks):
            self._chunk(number)
        for _ in self.records():
            pass
        _ = self.numbers, self.flags

    def __repr__(self) -> str:
        return f"Store({self.path!r}, {self.shape[0]:,} x {self.shape[1]:,}, {self.dtype})"


_AGAIN = "make the store again"
_BIG_ENDIAN = sys.byteorder == "big"


def _whole(found: Mapping[str, Any], name: str, least: int) -> int:
    value = found[name]
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value < 2**60:
        raise ValueError(name)
    return value


@dataclass(frozen=True)
class StorePiece:
    """Rows [first, last) of a store, for a process that reads them by itself."""

    path: str
    token: str
    first: int
    last: int

    def load(self) -> FloatArray:
        """The rows.

        Raises
        ------
        DataError
            If the store is not there, damaged, or another than it was.
        """
        return self.source().read(self.first, self.last)

    def source(self) -> Store:
        """The store itself; see `load`."""
        return _opened(self.path, self.token)


@functools.lru_cache(maxsize=4)
def _opened(path: str, token: str) -> Store:
    store = open_store(path)
    if store.token != token:
        raise DataError(f"{path}: is another store than it was when the run began; repeat the run")
    return store
