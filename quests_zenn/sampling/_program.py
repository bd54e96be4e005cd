"""Programs that answer points: command templates, processes in groups of their own, CSV out and in, answers on disk.

Nothing here goes through a shell. A process gets a folder and a process group of its own; when its time is over, or
when this process is interrupted, the whole group is killed. An answer counts once it lies in ``answer.json`` of the
folder of its point, which is written whole or not at all, so that a run that was killed finds it again.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
import shlex
import shutil
import signal
import string
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from quests_zenn._core.checks import DataError
from quests_zenn._core.parallel import resolve_jobs
from quests_zenn.io.outputs import write_json
from quests_zenn.io.tables import nearest
from quests_zenn.sampling.snapshots import file_inside

FloatArray = npt.NDArray[np.float64]

ANSWER = "answer.json"
_PROCESS = "process.json"
_FORMAT = "quests_zenn answer"

#: Placeholders that every command may use.
COMMON = ("input", "output", "folder", "jobs")

#: Placeholders (and columns) of one point, beside its order parameters.
OF_POINT = ("seed", "T")

#: The column of an answer that names a file of frames, relative to the folder of its run.
SNAPSHOTS = "snapshots"

#: Columns of the tables that go in and come out, which no order parameter may be called.
RESERVED = ("id", "F", SNAPSHOTS, *COMMON, *OF_POINT)

#: Bytes of an output beyond this are a mistake of the program, and would fill the memory.
_LARGEST = 1 << 26

#: Seconds between looks at a process: short at first, for programs that end at once.
_SHORTEST, _LONGEST = 0.002, 0.05


@dataclass(frozen=True)
class Answer:
    """What was found for one point.

    Attributes
    ----------
    x, mu : tuple of float
    mu_error : tuple of float or None
    F : float or None
    snapshots : Path or None
        File of frames.
    note : str
        What is to be told although there is an answer, such as why there are no snapshots.
    """

    x: tuple[float, ...]
    mu: tuple[float, ...]
    mu_error: tuple[float, ...] | None = None
    F: float | None = None
    snapshots: Path | None = None
    note: str = ""


@dataclass(frozen=True)
class Asked:
    """One point: its number in the call, where it is, and the seed of this attempt."""

    number: int
    x: tuple[float, ...]
    T: float
    seed: int


class Stopped(Exception):
    """Work ends because the caller was interrupted."""


def digest(content: Any) -> str:
    """SHA-256 of something in terms of JSON, as hexadecimal digits."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def another_seed(seed: int, attempt: int) -> int:
    """Seed of a repeated attempt: `seed` itself for the first, below 2^31 for all others."""
    if attempt == 0:
        return seed
    return int(np.random.SeedSequence([seed, attempt]).generate_state(1)[0]) & 0x7FFFFFFF


# the command ----------------------------------------------------------------------------------------------------------


def split_command(command: str | Sequence[str]) -> list[str]:
    """A command as a list of arguments; a string is split as a shell would, but no shell ever sees it.

    Raises
    ------
    ValueError
        If it is empty, not made of text, or its quotes do not match.
    """
    if isinstance(command, str):
        try:
            arguments = shlex.split(command)
        except ValueError as error:
            raise ValueError(f"command cannot be split into arguments ({error}): {command!r}") from None
    else:
        arguments = list(command)
        if not all(isinstance(argument, str) for argument in arguments):
            raise ValueError(f"command must be a list of arguments, each of them text, got {command!r}")
    if not arguments or not arguments[0]:
        raise ValueError("command is empty; it names a program and its arguments")
    if any("\0" in argument for argument in arguments):
        raise ValueError("command must not hold null characters")
    return arguments


class Template:
    """A command with placeholders such as ``{input}``; ``{{`` and ``}}`` stand for braces.

    An argument that is the name of a file relative to `folder` (by default the current one) is made absolute at once,
    since programs run in folders of their own. Where there is no program called python, ours is meant.

    Raises
    ------
    ValueError
        For an unknown placeholder, single braces, or a program that does not exist.
    """

    def __init__(
        self,
        command: str | Sequence[str],
        known: Sequence[str],
        refused: Mapping[str, str],
        folder: str | os.PathLike[str] | None = None,
    ) -> None:
        self.given = split_command(command)
        self._own = folder is not None
        self._folder = os.path.abspath(os.curdir if folder is None else folder)
        self._parts = [self._parse(argument, known, refused) for argument in self.given]
        self._parts = [
            self._anchored(parts) if number or os.path.dirname(self.given[0]) else parts
            for number, parts in enumerate(self._parts)
        ]
        if self.given[0] == "python" and shutil.which("python") is None:
            self._parts[0] = [(sys.executable, None)]  # an environment that was not activated
        first = self._parts[0]
        if all(field is None for _, field in first):
            program = "".join(text for text, _ in first)
            if shutil.which(program) is None:
                raise ValueError(f"command: there is no program {program!r} that can be run")

    @staticmethod
    def _parse(argument: str, known: Sequence[str], refused: Mapping[str, str]) -> list[tuple[str, str | None]]:
        parts: list[tuple[str, str | None]] = []
        try:
            pieces = list(string.Formatter().parse(argument))
        except ValueError as error:
            raise ValueError(f"command: {argument!r} has braces that do not match ({error}); {{{{ means {{") from None
        for text, name, spec, conversion in pieces:
            if text:
                parts.append((text, None))
            if name is None:
                continue
            if name in refused:
                raise ValueError(f"command: {{{name}}} {refused[name]}")
            if name not in known:
                raise ValueError(f"command: unknown placeholder {{{name}}}{nearest(name, known)}")
            if spec or conversion:
                raise ValueError(f"command: {{{name}}} takes no format, got {argument!r}")
            parts.append(("", name))
        return parts

    def _anchored(self, parts: list[tuple[str, str | None]]) -> list[tuple[str, str | None]]:
        if any(field is not None for _, field in parts):
            return parts
        text = "".join(piece for piece, _ in parts)
        try:
            here = bool(text) and not os.path.isabs(text) and os.path.isfile(os.path.join(self._folder, text))
        except ValueError:
            here = False
        return [(os.path.normpath(os.path.join(self._folder, text)), None)] if here else [(text, None)]

    @property
    def arguments(self) -> list[str]:
        """The arguments as they are run, with placeholders by name."""
        return ["".join(text if field is None else f"{{{field}}}" for text, field in parts) for parts in self._parts]

    @property
    def portable(self) -> list[str]:
        """The arguments as they were given; those in a folder that was given by their names there, wherever it lies."""
        names = []
        for text in self.given:
            inside = (
                self._own
                and os.path.isabs(text)
                and os.path.normpath(text).startswith(self._folder.rstrip(os.sep) + os.sep)
            )
            names.append(Path(os.path.relpath(text, self._folder)).as_posix() if inside else text)
        return names

    def fill(self, values: Mapping[str, str]) -> list[str]:
        """The arguments with each placeholder replaced."""
        return ["".join(text if field is None else values[field] for text, field in parts) for parts in self._parts]


# one process ----------------------------------------------------------------------------------------------------------


def run_process(
    arguments: Sequence[str],
    folder: Path,
    timeout: float | None,
    stop: threading.Event,
    environment: Mapping[str, str] | None = None,
) -> str:
    """Run a program in `folder`; what went wrong, or an empty text.

    Its outputs go to ``stdout.txt`` and ``stderr.txt`` there. When it has ended, so have all processes it left
    behind in its group.
    """
    with ExitStack() as files:
        streams = [files.enter_context(open(folder / f"{name}.txt", "wb")) for name in ("stdout", "stderr")]
        try:
            process = subprocess.Popen(
                list(arguments),
                cwd=folder,
                env=None if environment is None else dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=streams[0],
                stderr=streams[1],
                start_new_session=True,
            )
        except OSError as error:
            return f"{arguments[0]} cannot be run ({error.strerror or error})"
        over = None if timeout is None else time.monotonic() + timeout
        pause, timed_out = _SHORTEST, False
        try:
            _note(folder, process.pid)
            while not _ended(process):
                if stop.is_set():
                    raise Stopped
                if over is not None and time.monotonic() > over:
                    timed_out = True
                    break
                stop.wait(pause)
                pause = min(2.0 * pause, _LONGEST)
        finally:
            _kill(process)
            (folder / _PROCESS).unlink(missing_ok=True)
    said = _last_line(folder / "stderr.txt")
    if timed_out:
        return f"did not end within {timeout:g} s and was killed{said}"
    if process.returncode < 0:
        return f"was ended by signal {_signal_name(-process.returncode)}{said}"
    if process.returncode > 0:
        return f"ended with status {process.returncode}{said}"
    return ""


def _ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether it has; where possible without taking note of it, so that its number still stands for its group."""
    if process.returncode is None and hasattr(os, "waitid"):
        try:
            return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:  # somebody else's handler took note of it
            pass
    return process.poll() is not None


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the group of a process, and the process."""
    if process.returncode is None:
        try:
            if hasattr(os, "killpg"):
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
        except (ProcessLookupError, PermissionError):  # all have ended; some systems refuse when only a zombie is left
            pass
    process.wait()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


def _last_line(path: Path) -> str:
    """How a message ends that quotes the last line that a program wrote there."""
    try:
        with open(path, "rb") as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(0, stream.tell() - 4096))
            lines = stream.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    line = next((line for line in reversed(lines) if line.strip()), "")
    line = "".join(letter if letter.isprintable() else " " for letter in line).strip()
    line = line if len(line) <= 200 else f"{line[:197]}..."
    return f'; its last words: "{line}"' if line else ""


def _started(pid: int) -> str | None:
    """When a process began, as the system counts; None if there is none or the system does not tell."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None


def _note(folder: Path, pid: int) -> None:
    """Leave word of who runs here, for the run that comes after one that was killed."""
    owner = os.getpid()
    note = {"pid": pid, "owner": owner, "owner_started": _started(owner)}
    (folder / _PROCESS).write_text(json.dumps(note), encoding="utf-8")


def end_leftovers(folder: Path) -> None:
    """Kill programs that a run which is no more left running below the folder of a point.

    A process is one of those if it still works in the folder that it was given, and whoever started it is gone. Does
    nothing on systems without ``/proc``.
    """
    for note in sorted(folder.glob(f"run-*/{_PROCESS}")):
        try:
            said = json.loads(note.read_text(encoding="utf-8"))
            pid, owner, since = int(said["pid"]), int(said["owner"]), said["owner_started"]
            if pid <= 1 or since is None or _started(owner) == since:
                continue
            if os.readlink(f"/proc/{pid}/cwd") == os.path.realpath(note.parent) and os.getpgid(pid) == pid:
                os.killpg(pid, signal.SIGKILL)
        except (OSError, ValueError, KeyError, TypeError):  # ended, not ours, or no note at all
            continue


# tables ---------------------------------------------------------------------------------------------------------------


def write_points(path: Path, names: Sequence[str], points: Sequence[Asked]) -> None:
    """Points as CSV: ``id, T, names..., seed``; numbers are written so that they read back to the last bit."""
    lines = [",".join(("id", "T", *names, "seed"))]
    lines += [",".join((str(point.number), repr(point.T), *map(repr, point.x), str(point.seed))) for point in points]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_answers(path: Path, names: Sequence[str], points: Sequence[Asked]) -> dict[int, Answer | str]:
    """What a program wrote: for each point an answer, or why there is none.

    Rows are told apart by ``id``. A row that cannot be understood costs no other row.
    """
    records, wrong = _records(path)
    if wrong:
        return {point.number: wrong for point in points}
    header, *rows = records
    columns, wrong = _columns(header, names, alone=len(points) == 1)
    if wrong:
        return {point.number: f"{path.name}: {wrong}" for point in points}
    asked = {point.number: point for point in points}
    found: dict[int, Answer | str] = {}
    strangers: list[str] = []
    for cells in rows:
        number = _row_id(cells, columns, points)
        if number not in asked:
            strangers.append(cells[columns["id"]].strip() if columns.get("id", len(cells)) < len(cells) else "")
        elif number in found:
            found[number] = "is answered by more than one row"
        else:
            found[number] = _row(cells, header, columns, asked[number], path.parent)
    other = f", only one with id {strangers[0][:40]!r}" if strangers else ""
    for number in asked:
        found.setdefault(number, f"{path.name} has no row with id {number}{other}")
    return found


def _records(path: Path) -> tuple[list[list[str]], str]:
    """Lines of a CSV file that are not empty, the header first; or what is wrong with it."""
    try:
        if path.stat().st_size > _LARGEST:
            return [], f"{path.name} is larger than {_LARGEST >> 20} MiB"
        text = path.read_bytes().decode("utf-8-sig", "replace")
    except FileNotFoundError:
        return [], f"wrote no {path.name}"
    except OSError as error:
        return [], f"{path.name} cannot be read ({error.strerror or error})"
    records: list[list[str]] = []
    # line by line: an unmatched quote must not swallow the rows that follow
    for line in io.StringIO(text, newline=None):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            cells = next(csv.reader([line.rstrip("\n")], strict=True))
        except csv.Error:
            cells = [line.split(",")[0], "unreadable"]
        records.append([cell.strip() for cell in cells])
    if not records:
        return [], f"{path.name} is empty"
    return records, ""


def _columns(header: Sequence[str], names: Sequence[str], alone: bool) -> tuple[dict[str, int], str]:
    """Which column holds what: ``id``, ``F``, and ``mu_0, x_0, error_0, ...``; or what is wrong."""
    for name in header:
        if name and header.count(name) > 1:
            return {}, f"has two columns called {name[:40]!r}"
    found = {name: header.index(name) for name in ("id", "F", SNAPSHOTS) if name in header}
    if "id" not in found and not alone:
        return {}, f"has no column id{nearest('id', header)}"
    for kind in ("mu", "x", "error"):
        here = 0
        for i, name in enumerate(names):
            called = {
                "mu": (f"mu_{name}", f"mu_{i}"),
                "x": (f"x_{name}", name, f"x_{i}", f"eta_{i}"),
                "error": (f"mu_error_{name}", f"mu_{name}_error", f"mu_error_{i}", f"mu_{i}_error"),
            }[kind]
            column = next((header.index(one) for one in called if one in header), None)
            if column is not None:
                found[f"{kind}_{i}"] = column
                here += 1
            elif kind == "mu":
                return {}, f"has no column {called[0]}{nearest(called[0], header)}"
        if 0 < here < len(names):
            what = {"x": "order parameters", "error": "errors of mu"}[kind]
            return {}, f"has {here} of {len(names)} columns of {what}"
    return found, ""


def _row_id(cells: Sequence[str], columns: Mapping[str, int], points: Sequence[Asked]) -> int | None:
    if "id" not in columns:
        return points[0].number
    if columns["id"] >= len(cells):
        return None
    number = _number(cells[columns["id"]])
    return int(number) if number is not None and math.isfinite(number) and number == int(number) else None


def _number(cell: str) -> float | None:
    """A cell as a number; NaN if it is empty; None if it is something else."""
    if not cell:
        return math.nan
    if "_" in cell or not cell.isascii():  # Python reads 1_000 and digits of all scripts
        return None
    try:
        return float(cell)
    except ValueError:
        return None


def _row(
    cells: Sequence[str], header: Sequence[str], columns: Mapping[str, int], point: Asked, folder: Path
) -> Answer | str:
    """One row as an answer, or what is wrong with it. Snapshots lie in `folder`; without them it is still an answer."""
    if len(cells) != len(header):
        return f"its row has {len(cells)} cell{'s' * (len(cells) != 1)} under a header of {len(header)}"
    values: dict[str, float] = {}
    for kind, column in columns.items():
        if kind in ("id", SNAPSHOTS):
            continue
        value = _number(cells[column])
        if value is None:
            return f"{header[column]} must be a number, got {cells[column][:40]!r}"
        optional = kind == "F" or kind.startswith("error")
        if math.isinf(value) or (math.isnan(value) and not optional):
            return f"{header[column]} is {'infinite' if math.isinf(value) else 'NaN'}"
        if kind.startswith("error") and value < 0.0:
            return f"{header[column]} is negative"
        values[kind] = value
    if math.isnan(values.get("F", 0.0)):
        del values["F"]
    named = cells[columns[SNAPSHOTS]] if SNAPSHOTS in columns else ""
    file = file_inside(folder, named) if named else None
    q = range(len(point.x))
    return Answer(
        x=tuple(values[f"x_{i}"] for i in q) if "x_0" in values else point.x,
        mu=tuple(values[f"mu_{i}"] for i in q),
        mu_error=tuple(values[f"error_{i}"] for i in q) if "error_0" in values else None,
        F=values.get("F"),
        snapshots=None if isinstance(file, str) else file,
        note=file if isinstance(file, str) else "",
    )


# answers on disk ------------------------------------------------------------------------------------------------------


class Kept:
    """Answers in a folder, each in one of its own, named by a hash of what was asked and of whom.

    Parameters
    ----------
    folder : Path
        Created if it is not there.
    fingerprint : str
        Of the oracle: another one finds nothing here.

    Raises
    ------
    DataError
        If the folder cannot be made.
    """

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self.folder, self._fingerprint = folder, fingerprint
        make_folder(folder)

    def _key(self, point: Asked) -> dict[str, Any]:
        return {"oracle": self._fingerprint, "x": list(point.x), "T": point.T, "seed": point.seed}

    def folder_of(self, point: Asked) -> Path:
        """Where a point lives."""
        return self.folder / digest(self._key(point))[:24]

    def load(self, point: Asked) -> Answer | None:
        """The answer, if there is one that can be read; bit for bit as it was."""
        try:
            stored = json.loads((self.folder_of(point) / ANSWER).read_text(encoding="utf-8"))
            if stored["format"] != _FORMAT or stored["asked"] != self._key(point):
                return None
            error = stored["mu_error"]
            file = file_inside(self.folder, stored[SNAPSHOTS]) if stored.get(SNAPSHOTS) else None
            answer = Answer(
                x=tuple(map(float, stored["x"])),
                mu=tuple(map(float, stored["mu"])),
                mu_error=None if error is None else tuple(math.nan if e is None else float(e) for e in error),
                F=None if stored["F"] is None else float(stored["F"]),
                snapshots=None if isinstance(file, str) else file,
                note=file if isinstance(file, str) else str(stored.get("note", "")),
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None
        lengths = {len(answer.x), len(answer.mu), len(answer.mu_error or answer.mu)}
        return answer if lengths == {len(point.x)} else None

    def save(self, point: Asked, answer: Answer) -> None:
        """Keep an answer: all of it or nothing."""
        make_folder(self.folder_of(point))
        document = {
            "format": _FORMAT, "asked": self._key(point),
            "x": answer.x, "mu": answer.mu, "mu_error": answer.mu_error, "F": answer.F,
        }  # fmt: skip
        if answer.snapshots is not None:  # relative, so that a run may be moved
            document[SNAPSHOTS] = os.path.relpath(answer.snapshots, self.folder.resolve())
        if answer.note:
            document["note"] = answer.note
        write_json(self.folder_of(point) / ANSWER, document, overwrite=True)


def make_folder(folder: Path) -> None:
    """Make a folder and those it lies in.

    Raises
    ------
    DataError
        If that is not possible.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: this folder cannot be made ({error.strerror or error})") from None


# many points ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Programs:
    """How points are answered by a program.

    Attributes
    ----------
    template : Template
    names : tuple of str
        Of the order parameters.
    input, output : str
        Names of the two tables, in the folder of each run.
    timeout : float or None, s
        For one run of the program.
    retries : int
    batch : bool
        One run for all points first; those that it leaves open get runs of their own.
    fingerprint : str
    environment : mapping or None
        None for that of this process.
    """

    template: Template
    names: tuple[str, ...]
    input: str
    output: str
    timeout: float | None
    retries: int
    batch: bool
    fingerprint: str
    environment: Mapping[str, str] | None = None

    def answer(self, points: Sequence[Asked], jobs: int | None, folder: Path | None) -> list[Answer | str]:
        """For each point an answer, or why there is none."""
        jobs = resolve_jobs(jobs)
        with ExitStack() as stack:
            passing = folder is None
            if folder is None:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
            kept = Kept(folder.resolve(), self.fingerprint)
            loaded = [kept.load(point) for point in points]
            found: dict[int, Answer | str] = {i: one for i, one in enumerate(loaded) if one is not None}
            left = [i for i in range(len(points)) if i not in found]
            stop = threading.Event()
            pool = stack.enter_context(ThreadPoolExecutor(jobs, thread_name_prefix="quests_zenn"))
            futures: list[Future[Any]] = []
            try:
                first = 0
                if self.batch and left:
                    futures.append(pool.submit(self._together, [points[i] for i in left], kept, jobs, stop))
                    found.update(zip(left, futures[0].result(), strict=True))
                    left = [i for i in left if isinstance(found[i], str)]
                    first = 1
                if first <= self.retries:
                    futures = [pool.submit(self._alone, points[i], kept, first, jobs, stop) for i in left]
                    found.update({i: future.result() for i, future in zip(left, futures, strict=True)})
            except BaseException:
                stop.set()
                for future in futures:
                    future.cancel()
                raise
            answers = [found[i] for i in range(len(points))]
            return [_without_files(answer) for answer in answers] if passing else answers

    def _alone(self, point: Asked, kept: Kept, first: int, jobs: int, stop: threading.Event) -> Answer | str:
        """One point, tried until it is answered."""
        home = kept.folder_of(point)
        end_leftovers(home)
        said = ""
        for attempt in range(first, self.retries + 1):
            seeded = Asked(point.number, point.x, point.T, another_seed(point.seed, attempt))
            answer = self._run([seeded], home, jobs, stop)[point.number]
            if isinstance(answer, Answer):
                kept.save(point, answer)
                return answer
            said = answer
        return said

    def _together(self, points: Sequence[Asked], kept: Kept, jobs: int, stop: threading.Event) -> list[Answer | str]:
        """All points in one run."""
        home = kept.folder / f"batch-{digest([kept.folder_of(point).name for point in points])[:24]}"
        end_leftovers(home)
        answers = self._run(points, home, jobs, stop)
        for point in points:
            answer = answers[point.number]
            if isinstance(answer, Answer):
                kept.save(point, answer)
        return [answers[point.number] for point in points]

    def _run(self, points: Sequence[Asked], home: Path, jobs: int, stop: threading.Event) -> dict[int, Answer | str]:
        if stop.is_set():
            raise Stopped
        folder = _new_folder(home)
        values = {"input": str(folder / self.input), "output": str(folder / self.output)}
        values |= {"folder": str(folder), "jobs": str(jobs)}
        if not self.batch:
            point = points[0]
            values |= {"seed": str(point.seed), "T": repr(point.T)}
            values |= dict(zip(self.names, map(repr, point.x), strict=True))
        try:
            write_points(folder / self.input, self.names, points)
            wrong = run_process(self.template.fill(values), folder, self.timeout, stop, self.environment)
        except OSError as error:
            raise DataError(f"{folder}: cannot be written to ({error.strerror or error})") from error
        if wrong:
            return {point.number: wrong for point in points}
        answers = read_answers(folder / self.output, self.names, points)
        said = _last_line(folder / "stderr.txt")
        return {i: answer + said if isinstance(answer, str) else answer for i, answer in answers.items()}


def _without_files(answer: Answer | str) -> Answer | str:
    """An answer whose folder is about to go."""
    if isinstance(answer, str) or answer.snapshots is None:
        return answer
    return replace(answer, snapshots=None, note="snapshots are kept only where answers have a folder")


def _new_folder(home: Path) -> Path:
    """The next free one of ``run-1``, ``run-2``, ...: not even an orphan of an earlier run writes there."""
    make_folder(home)
    number = 1
    while True:
        folder = home / f"run-{number}"
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            number += 1
        except OSError as error:
            raise DataError(f"{folder}: this folder cannot be made ({error.strerror or error})") from None
