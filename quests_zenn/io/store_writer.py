"""The making of a store, in pieces; a run that is killed goes on.

A store that is not complete lies beside its place, as ``.NAME.zarr.part``, and is renamed at the end. Chunks are forced
to the disk first, then a small record that says how far they are good. A run that is killed goes on from there, if its
inputs and parameters are the same; else it begins anew. A lock keeps two runs from writing one store at the same time.
Where the file system has no locks, a run notices at its next record that another has begun, and stops.

"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from quests_zenn._core.checks import DataError
from quests_zenn._core.locks import still_named, try_to_lock
from quests_zenn._core.rows import FloatArray
from quests_zenn.io import store_form as form
from quests_zenn.io.outputs import check_parent, plain, versions
from quests_zenn.io.store_form import FrameRecord, StoreParameters

#: What is in the folder of an unfinished store and not in that of a finished one.
_RUN, _RECORD, _LOCK, _LINES = "run.json", "record.json", "lock", "frames.jsonl"


def check_store_output(path: str | os.PathLike[str], overwrite: bool = False) -> Path:
    """`path`, if a store may be written there.

    Raises
    ------
    DataError
        If something is there that is not to be replaced, or the folder does not exist or cannot be written to.
    """
    target = Path(os.path.realpath(path))
    if not target.name.endswith(form.ENDING):
        raise DataError(f"{os.fspath(path)}: the name of a store must end in {form.ENDING}")
    if os.path.lexists(target):
        if not overwrite:
            raise DataError(f"{os.fspath(path)}: exists already; choose another name or say --overwrite")
        if not target.is_dir() or form.own_attributes(target) is None:
            raise DataError(f"{os.fspath(path)}: is no store of environments, and is not replaced by one; remove it")
    check_parent(target)
    return target


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
        form.require_zarr()
        self.name, self.overwrite = os.fspath(path), overwrite
        self.target = check_store_output(path, overwrite)
        self.part = form.part_of(path)
        self.parameters = parameters
        self.key = {
            "format": form.FORMAT, "format_version": form.FORMAT_VERSION, **plain(vars(parameters)), **plain(key),
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
            if not try_to_lock(stream.fileno()):
                stream.close()
                raise DataError(f"{self.name}: another process is writing it")
            if still_named(stream.fileno(), self.part / _LOCK):
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
        key = form.read_json(self.part / _RUN)
        record = form.read_json(self.part / _RECORD)
        if key is None or record is None or not _is_record(record):
            return "what an earlier run left is not enough to go on from"
        for name in dict.fromkeys([*self.key, *key]):
            if key.get(name) != self.key.get(name):
                old, new = form.short(key.get(name)), form.short(self.key.get(name))
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
                layout = form.ArrayLayout(name, shape, self._rows_per_chunk(), self._type(name))
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
        return self.parameters.dtype if name == "x" else form.TYPES[name]

    def _rows_per_chunk(self) -> int:
        return form.chunk_rows(self._record["width"])

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
            buffer["flags"][place] = form.TIED * tied[taken] + form.INCOMPLETE * incomplete[taken]
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
                self._arrays[name] = form.ArrayLayout(name, shape, n, self._type(name)).create(self.part)
            array = self._arrays[name]
            array.resize(shape)
            array[number * n : number * n + rows] = content[:rows]
            form.force(form.chunk_file(self.part, name, number, len(shape)))
            form.force(form.chunk_file(self.part, name, number, len(shape)).parent)
            form.force(self.part / name / "zarr.json")

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
        record["n_tied"] += int(np.count_nonzero(flags & form.TIED))
        record["n_incomplete"] += int(np.count_nonzero(flags & form.INCOMPLETE))
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
                self.part / "zarr.json",
                {"zarr_format": 3, "node_type": "group", "attributes": {form.FORMAT: attributes}},
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
            largest = form.LENGTH_CHUNK if name == "frame_lengths" else form.TEXT_CHUNK
            n = min(len(content), largest)
            array = form.ArrayLayout(name, content.shape, n, form.TYPES[name]).create(self.part)
            array[:] = content
            for number in range(-(-len(content) // n)):
                form.force(form.chunk_file(self.part, name, number, 1))
            form.force(self.part / name / "zarr.json")

    def _attributes(self, provenance: Sequence[Mapping[str, Any]], n: int, rows: int) -> dict[str, Any]:
        record, parameters = self._record, vars(self.parameters)
        made = plain(parameters | {"elements": list(self.parameters.elements) or form.symbols(record["present"])})
        digest = hashlib.blake2b(record["digest"].encode(), digest_size=16)
        digest.update(np.array(self._lengths, "<i8").tobytes())
        digest.update(json.dumps([form.FORMAT_VERSION, made, n], sort_keys=True).encode())
        return {
            "format_version": form.FORMAT_VERSION, "complete": True, "token": digest.hexdigest(), **made,
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
        form.force(self.target.parent)


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


def _write_whole(path: Path, content: Mapping[str, Any]) -> None:
    temporary = path.with_name(path.name + ".new")
    with open(temporary, "w", encoding="utf-8") as stream:
        json.dump(plain(content), stream, allow_nan=False)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)
    form.force(path.parent)
