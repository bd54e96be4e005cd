"""Outputs: written whole or not at all, and never over an existing file unasked."""

from __future__ import annotations

import errno
import json
import math
import os
import platform
import secrets
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import quests_zenn
from quests_zenn._core.checks import DataError


def check_output(path: str | os.PathLike[str], overwrite: bool = False) -> Path:
    """`path`, if a file may be written there.

    Call it before long work, so that nobody waits for an hour to learn that the result has no place.

    Raises
    ------
    DataError
        If the file exists and `overwrite` is False, or the folder does not exist or cannot be written to.
    """
    target = Path(path)
    if not os.fspath(path):
        raise DataError("an output needs a name, got an empty one")
    try:
        os.lstat(target)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise DataError(f"{target}: the name is too long for a file") from error
    except ValueError as error:  # a null character
        raise DataError(f"{os.fspath(path)!r}: is no name of a file") from error
    if os.path.lexists(target) and not target.exists() and not overwrite:
        raise DataError(f"{target}: is a link that points nowhere; choose another name or say --overwrite")
    target = Path(os.path.realpath(target)) if target.is_symlink() else target  # what it points to is the file
    if target.is_dir():
        raise DataError(f"{target}: is a folder, not a file")
    if target.exists() and not target.is_file():
        raise DataError(f"{target}: is no plain file (a pipe or a device), and would be replaced by one")
    if target.exists() and not overwrite:
        raise DataError(f"{target}: exists already; choose another name or say --overwrite")
    check_parent(target)
    return target


def check_parent(target: Path) -> None:
    """Refuse a name in a folder that nothing can be written to.

    Raises
    ------
    DataError
        If the folder does not exist or cannot be written to.
    """
    if not target.parent.is_dir():
        raise DataError(f"{target}: the folder {target.parent} does not exist")
    if not os.access(target.parent, os.W_OK):
        raise DataError(f"{target}: no permission to write to {target.parent}")


@contextmanager
def replacing(path: str | os.PathLike[str], overwrite: bool = False) -> Iterator[Path]:
    """Name of a temporary file beside `path` that takes its place when the block ends well, and vanishes otherwise.

    Without `overwrite`, a file that appeared in the meantime is left alone and a DataError raised.
    """
    target = check_output(path, overwrite)
    endings = "".join(target.suffixes[-2:]) if target.suffix == ".gz" else target.suffix
    temporary = target.with_name(f".{secrets.token_hex(6)}.part{endings}")
    try:
        try:
            yield temporary
        except OSError as error:
            raise DataError(f"{target}: cannot be written ({error.strerror or error})") from error
        check_output(target, overwrite)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def user_cache(name: str) -> Path:
    """A folder of this package in the cache of the user: below ``$XDG_CACHE_HOME``, or ``~/.cache``.

    Raises
    ------
    RuntimeError
        If there is no home.
    """
    given = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(given) if os.path.isabs(given) else Path.home() / ".cache") / "quests_zenn" / name


def plain(value: Any) -> Any:
    """`value` in terms of JSON: arrays as lists, numbers in full precision; NaN and infinity become null."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value.item()
    if isinstance(value, np.ndarray | list | tuple):
        return [plain(item) for item in (value.tolist() if isinstance(value, np.ndarray) else value)]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value


def write_json(path: str | os.PathLike[str], document: Mapping[str, Any], overwrite: bool = False) -> None:
    """Write one JSON document, atomically; floats keep full precision.

    Raises
    ------
    DataError
        See `check_output`.
    """
    with replacing(path, overwrite) as temporary:
        text = json.dumps(plain(document), indent=1, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def write_matrix(
    path: str | os.PathLike[str], content: Mapping[str, npt.NDArray[Any]], overwrite: bool = False
) -> None:
    """Write arrays to a .npz file, or the one called ``x`` to a .npy file; both are read without pickle.

    Raises
    ------
    DataError
        See `check_output`.
    """
    with replacing(path, overwrite) as temporary, open(temporary, "wb") as stream:
        if os.fspath(path).endswith(".npy"):
            np.save(stream, content["x"], allow_pickle=False)
        else:
            np.savez(stream, **content)  # type: ignore[arg-type]


def versions() -> dict[str, str]:
    """Versions of this package and of those that its numbers rest on."""
    found = {"quests_zenn": quests_zenn.__version__, "python": platform.python_version()}
    for name in ("numpy", "numba", "ase"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found


def make_writable(atoms: Any, label: str) -> None:
    """Adapt an ``ase.Atoms`` to what extended XYZ can hold, in place.

    Line breaks in its info become blanks, and the results of its calculator go before info and arrays of the same name.

    Raises
    ------
    DataError
        If an array holds words that are empty or have blanks in them: such a file cannot be read back.
    """
    results = getattr(atoms.calc, "results", {})
    for key, value in list(atoms.info.items()):
        if key in results:
            del atoms.info[key]
        elif isinstance(value, str):
            atoms.info[key] = " ".join(value.splitlines())
    for name in set(results) & set(atoms.arrays):
        del atoms.arrays[name]
    for name, values in atoms.arrays.items():
        if values.dtype.kind in "US" and any(len(str(word).split()) != 1 for word in np.unique(values)):
            raise DataError(
                f"{label}: its array {name!r} holds words that are empty or have blanks in them, which extended XYZ "
                "cannot hold; remove it first"
            )


def write_scored(
    path: str | os.PathLike[str],
    frames: Iterable[tuple[str, Any]],
    scores: npt.NDArray[np.float64],
    overwrite: bool = False,
    *,
    notes: Mapping[str, Any] | None = None,
    errors: npt.NDArray[np.float64] | None = None,
) -> int:
    """Write frames as extended XYZ with their scores in the array ``dH``; everything else they carry is kept.

    Parameters
    ----------
    path : str or path
        Ends in .xyz or .extxyz, optionally followed by .gz.
    frames : iterable of (label, ase.Atoms)
        Read again from the input, one at a time.
    scores : (total number of atoms,)
    notes : mapping or None
        Added to the comment line of each frame: the bandwidth and scope of the scores, say.
    errors : (total number of atoms,) or None
        Standard errors of the scores, for the array ``dH_error``.

    Returns
    -------
    Number of frames written.

    Raises
    ------
    DataError
        See `check_output`; also if the input no longer has the number of atoms that was scored.
    """
    changed = "the input changed while it was being scored"
    count = first = 0
    with replacing(path, overwrite) as temporary, _open_text(temporary) as stream:
        for label, atoms in frames:
            last = first + len(atoms)
            if last > len(scores):
                raise DataError(f"{label}: {changed}")
            atoms.arrays["dH"] = scores[first:last]
            if errors is not None:
                atoms.arrays["dH_error"] = errors[first:last]
            atoms.info.update(notes or {})
            _write_frame(stream, label, atoms)
            first = last
            count += 1
        if first != len(scores):
            raise DataError(f"{os.fspath(path)}: {changed}")
    return count


def frame_mark(atoms: Any) -> int:
    """A number by which a frame is known again: of its elements, positions and cell."""
    mark = 0
    for part in (atoms.numbers, atoms.positions, atoms.cell.array):
        mark = zlib.crc32(np.ascontiguousarray(part).data, mark)
    return mark


def write_chosen(
    path: str | os.PathLike[str],
    frames: Iterable[tuple[str, Any]],
    notes: Mapping[int, Mapping[str, Any]],
    marks: Sequence[int],
    overwrite: bool = False,
    *,
    in_order: bool = True,
) -> None:
    """Write some frames as extended XYZ, with all that they carry.

    Parameters
    ----------
    path : str or path
        Ends in .xyz or .extxyz, optionally followed by .gz.
    frames : iterable of (label, ase.Atoms)
        All frames, read again from the input, one at a time.
    notes : mapping of mappings
        For the number of each frame that is written, what is added to its info; None removes a key.
    marks : sequence of int
        `frame_mark` of all frames, as they were when the choice was made.
    in_order : bool
        Write them in the order of `notes`, for which they are held in memory, not in that of the input.

    Raises
    ------
    DataError
        See `check_output`; also if the frames are not those that they were.
    """
    changed = "the input changed while it was in use"
    waiting = {}
    count = 0
    with replacing(path, overwrite) as temporary, _open_text(temporary) as stream:
        for number, (label, atoms) in enumerate(frames):
            count = number + 1
            if number >= len(marks) or frame_mark(atoms) != marks[number]:
                raise DataError(f"{label}: {changed}")
            if number not in notes:
                continue
            for name, value in notes[number].items():
                atoms.info.pop(name, None)
                if value is not None:
                    atoms.info[name] = value
            if in_order:
                waiting[number] = label, atoms
            else:
                _write_frame(stream, label, atoms)
        if count != len(marks):
            raise DataError(f"{os.fspath(path)}: {changed}")
        for number in notes if in_order else ():
            _write_frame(stream, *waiting.pop(number))


def _write_frame(stream: Any, label: str, atoms: Any) -> None:
    from ase.io.extxyz import write_extxyz

    make_writable(atoms, label)
    try:
        write_extxyz(stream, [atoms])
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"{label}: cannot be written as extended XYZ ({error})") from error


def _open_text(path: Path) -> Any:
    if path.suffix == ".gz":
        import gzip

        return gzip.open(path, "wt", encoding="utf-8")
    return open(path, "w", encoding="utf-8")
