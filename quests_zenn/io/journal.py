"""A file to which records are appended, and a journal beside it: a run that is killed goes on where it was.

First the record is written, then the line of the journal that says so, each forced to the disk. If a run is killed in
between, the next one cuts the file back to what the journal knows of, and writes the record again: nothing is lost, and
nothing is there twice.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from quests_zenn._core.checks import DataError
from quests_zenn._core.locks import try_to_lock
from quests_zenn.io.outputs import check_output, plain

#: What is added to the name of the output.
ENDING = ".progress.jsonl"

FORMAT = "quests_zenn progress"
FORMAT_VERSION = 1

#: What a journal says of whether its run was begun with leave to replace files.
_LEAVE = "overwrite"


def journal_of(output: str | os.PathLike[str]) -> Path:
    """Name of the journal of an output; that of a link is beside the file it points to."""
    target = Path(os.path.realpath(output)) if os.path.islink(output) else Path(output)
    return target.with_name(target.name + ENDING)


class Journal:
    """A file that grows, and what is known of its making. Use as a context manager.

    Parameters
    ----------
    output : str or path
        The file.
    run : mapping
        What makes a run the same as another: only then it may be continued. In terms of JSON.
    overwrite : bool
        Begin anew, whatever is there; but a run that was itself begun so, and did not come to its end (an entry that
        says ``ended`` or ``finished``), is continued.
    in_place : bool
        Records appear in `output` at once. Otherwise they are collected beside it, and `finish` moves them there.

    Attributes
    ----------
    resumed : bool
        Whether an earlier run is continued.
    state : dict
        All that entries said so far; later ones replace earlier ones.

    Raises
    ------
    DataError
        If the output exists and is none that may be continued; if another process is writing it; if the journal is of
        another run.
    """

    def __init__(
        self, output: str | os.PathLike[str], run: Mapping[str, Any], *, overwrite: bool = False, in_place: bool = False
    ) -> None:
        target = Path(os.path.realpath(output)) if os.path.islink(output) else Path(output)
        self.output, self.path = target, journal_of(target)
        self.target = target if in_place else target.with_name(f".{target.name}.part")
        self.run = {"format": FORMAT, "format_version": FORMAT_VERSION, **plain(run)}
        self.state: dict[str, Any] = {"size": 0}
        self._replaces = overwrite  # whether this run was begun with leave to replace what is there
        self.resumed = self.path.exists() and (not overwrite or self._is_unfinished())
        check_output(target, overwrite or self.resumed)
        check_output(self.path, True)
        self._overwrite, self._in_place = overwrite, in_place
        self._stream: io.FileIO | None = None
        self._data: io.FileIO | None = None

    def __enter__(self) -> Journal:
        self._stream = _appended(self.path)
        try:
            self._lock()
            good = self._read() if self.resumed else 0
            if good == 0:  # a journal that says nothing gives no leave to replace what is there
                check_output(self.output, self._overwrite)
            self._stream.truncate(good)
            if good == 0:
                self.resumed = False
                self.target.unlink(missing_ok=True)
                if self._in_place:
                    self.output.unlink(missing_ok=True)
                self._write({**self.run, _LEAVE: self._replaces})
            elif not self._in_place and not self.state.get("finished"):
                check_output(self.output, self._replaces)  # it appeared in the meantime
            try:
                self._cut_back()
            except DataError:
                if not self._overwrite:
                    raise
                self.restart()
        except BaseException:
            self._stream.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        for stream in (self._data, self._stream):
            if stream is not None:
                stream.close()
        self._data = self._stream = None

    def _lock(self) -> None:
        assert self._stream is not None
        if not try_to_lock(self._stream.fileno()):
            raise DataError(f"{self.output}: another process is writing it")

    def _read(self) -> int:
        """Take in what the journal says; returns the number of bytes of whole lines."""
        good = 0
        for line, end in self._lines():
            try:
                entry = json.loads(line)
            except ValueError:
                entry = None
            if not isinstance(entry, dict) or (good == 0 and entry.get("format") != FORMAT):
                raise DataError(
                    f"{self.path}: is damaged, or no journal of this package; --overwrite begins anew without it"
                )
            if good == 0:
                self._compare(entry)
            else:
                self.state |= entry
            good = end
        return good

    def _lines(self) -> Iterator[tuple[bytes, int]]:
        assert self._stream is not None
        self._stream.seek(0)
        end = 0
        reader = io.BufferedReader(self._stream)
        try:
            for line in reader:
                end += len(line)
                if line.endswith(b"\n"):  # else the run was killed while it wrote this
                    yield line, end
        finally:
            reader.detach()

    def entries(self) -> Iterator[dict[str, Any]]:
        """What was noted down so far, one entry at a time."""
        for number, (line, _) in enumerate(self._lines()):
            if number > 0:
                yield json.loads(line)

    def _is_unfinished(self) -> bool:
        """Whether the journal is of this very run, begun with leave to replace what is there, and broken off."""
        try:
            with open(self.path, "rb") as stream:
                header, *entries = [json.loads(line) for line in stream if line.endswith(b"\n")]
        except (OSError, ValueError):
            return False
        ended = any(entry.get(name) for entry in entries for name in ("ended", "finished"))
        return header == {**self.run, _LEAVE: True} and not ended

    def _compare(self, header: dict[str, Any]) -> None:
        self._replaces = bool(header.pop(_LEAVE, False)) or self._replaces
        for name in dict.fromkeys([*self.run, *header]):
            old, new = header.get(name), self.run.get(name)
            if old != new:
                raise DataError(
                    f"{self.path}: the run before this one had {name.replace('_', ' ')} {_short(old)}, and this one "
                    f"has {_short(new)}; repeat that command to go on, or say --overwrite to begin anew"
                )

    def _cut_back(self) -> None:
        """Remove what was written and not noted down."""
        size = self.state["size"]
        if self.state.get("finished") and not self.target.exists():
            return
        there = self.target.stat().st_size if self.target.exists() else 0
        if there < size:
            raise DataError(
                f"{self.target}: is shorter than {self.path.name} says, so it was changed; --overwrite begins anew"
            )
        if there > size:
            with open(self.target, "rb+") as stream:
                stream.truncate(size)

    def add(self, record: bytes, entry: Mapping[str, Any]) -> None:
        """Append a record to the file, where it is not empty, and then an entry to the journal."""
        if record:
            if self._data is None:
                self._data = _appended(self.target)
            _write(self._data, record)
            self.state["size"] += len(record)
        self._write({**entry, "size": self.state["size"]})
        self.state |= plain(entry)

    def _write(self, entry: Mapping[str, Any]) -> None:
        assert self._stream is not None
        _write(self._stream, json.dumps(plain(entry), allow_nan=False).encode() + b"\n")

    def restart(self) -> None:
        """Forget what an earlier run left, and begin anew."""
        assert self._stream is not None
        if self._data is not None:
            self._data.close()
            self._data = None
        self.target.unlink(missing_ok=True)
        self._stream.truncate(0)
        self.state, self.resumed = {"size": 0}, False
        self._write({**self.run, _LEAVE: self._replaces})

    def discard(self) -> None:
        """Remove the journal and, unless its records appear at once, what was collected."""
        self.__exit__()
        if not self._in_place:
            self.target.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    def finish(self) -> None:
        """Move the file to its place and remove the journal. Where records appear at once, both stay as they are."""
        if self._in_place:
            return
        if not self.state.get("finished"):
            self.add(b"", {"finished": True})
        if self.target.exists():
            check_output(self.output, self._replaces)
            os.replace(self.target, self.output)
        elif self._replaces:
            self.output.unlink(missing_ok=True)  # nothing takes the place of what was there
        self.path.unlink(missing_ok=True)


def _appended(path: Path) -> io.FileIO:
    """A file to append to, without a buffer: what could not be written must not be tried again when it is closed."""
    return open(path, "ab+", buffering=0)


def _write(stream: io.FileIO, content: bytes) -> None:
    rest = memoryview(content)
    try:
        while rest:
            rest = rest[stream.write(rest) :]
        os.fsync(stream.fileno())
    except OSError as error:
        raise DataError(f"{os.fspath(stream.name)}: cannot be written ({error.strerror or error})") from error


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
