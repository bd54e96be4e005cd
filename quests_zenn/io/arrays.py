"""Arrays and a JSON document in one file, opened as a memory map.

The file is an uncompressed zip archive: ``meta.json`` and one ``NAME.npy`` for each array, each of which begins at a
multiple of 64 bytes. `numpy.load` reads it too. Nothing in it can be executed: no pickle, no object arrays.
"""

from __future__ import annotations

import json
import os
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from quests_zenn._core.checks import DataError
from quests_zenn.io.outputs import plain, replacing

_META = "meta.json"
_ALIGNMENT = 64
#: Bytes of a local header before the name, and of the field that zip64 adds to it.
_HEADER, _ZIP64 = 30, 20
#: Identifier of the extra field that pads a header; of no registered use.
_PADDING = 0x5A51


def write_arrays(
    path: str | os.PathLike[str],
    meta: Mapping[str, Any],
    arrays: Mapping[str, npt.NDArray[Any]],
    overwrite: bool = False,
) -> None:
    """Write arrays and what is to be known of them; the file appears whole or not at all.

    Raises
    ------
    DataError
        See `quests_zenn.io.outputs.check_output`.
    """
    with replacing(path, overwrite) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for name, values in arrays.items():
            contiguous = np.asarray(values, order="C")  # single numbers stay so
            with _member(archive, f"{name}.npy") as stream:
                np.lib.format.write_array(stream, contiguous, version=(1, 0), allow_pickle=False)
        with _member(archive, _META) as stream:
            stream.write(json.dumps(plain(meta), indent=1, allow_nan=False).encode("utf-8"))


def _member(archive: zipfile.ZipFile, name: str) -> Any:
    # a fixed date: equal contents are equal bytes
    info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    assert archive.fp is not None
    start = archive.fp.tell() + _HEADER + len(name.encode()) + _ZIP64 + 4
    pad = -start % _ALIGNMENT
    info.extra = struct.pack("<HH", _PADDING, pad) + bytes(pad)
    return archive.open(info, "w", force_zip64=True)


class MappedFile:
    """A file that is mapped, and whether its contents are still those that were opened."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.path.abspath(path)
        self._found = self._look()

    def _look(self) -> tuple[int, int, int, int] | None:
        try:
            found = os.stat(self.path)
        except OSError:
            return None
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns

    def check(self) -> None:
        """Refuse a file that was written to in place. (One that was replaced or removed is still there for the map.)

        Raises
        ------
        DataError
            If it was.
        """
        now = self._look()
        if now is not None and self._found is not None and now[:2] == self._found[:2] and now[2:] != self._found[2:]:
            raise DataError(f"{self.path}: was written to while it was in use; load it again")


def read_arrays(
    path: str | os.PathLike[str], *, check: bool = True
) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """The document and the arrays of a file that `write_arrays` has written.

    Arrays are memory maps; writing to one changes memory only.

    Parameters
    ----------
    check : bool
        Read the whole file once and compare it with its checksums.

    Raises
    ------
    DataError
        If there is no such file, or it is truncated, damaged, or something else.
    """
    target = Path(path)
    if not os.path.exists(target):
        raise DataError(f"{target}: no such file")
    if not os.path.isfile(target):
        raise DataError(f"{target}: is a folder, a pipe or a device, not a file")
    try:
        with zipfile.ZipFile(target) as archive, open(target, "rb") as stream:
            members = archive.infolist()
            if any(info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 for info in members):
                raise DataError(f"{target}: its parts are compressed, so this package did not write it")
            if check and (damaged := archive.testzip()) is not None:
                raise DataError(f"{target}: its part {damaged} is damaged (checksum); make it again")
            meta = json.loads(archive.read(_META))
            arrays = {
                info.filename.removesuffix(".npy"): _map(target, stream, info)
                for info in members
                if info.filename.endswith(".npy")
            }
    except DataError:
        raise
    except PermissionError:
        raise DataError(f"{target}: no permission to read it") from None
    except MemoryError:
        raise
    except Exception as error:  # whatever the readers of archives, headers and documents raise for what is none
        what = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{target}: cannot be read ({what}); is it truncated, damaged, or something else?") from error
    if not isinstance(meta, dict):
        raise DataError(f"{target}: cannot be read (its {_META} is no document)")
    return meta, arrays


def _map(path: Path, stream: BinaryIO, info: zipfile.ZipInfo) -> npt.NDArray[Any]:
    """The array of one member, mapped where it lies."""
    stream.seek(info.header_offset)
    header = stream.read(_HEADER)
    name_length, extra_length = struct.unpack("<HH", header[26:30])
    stream.seek(name_length + extra_length, os.SEEK_CUR)
    start = stream.tell()
    version = np.lib.format.read_magic(stream)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read_header(stream)
    if dtype.hasobject or fortran:
        raise ValueError(f"{info.filename} does not hold plain numbers")
    at = stream.tell()
    size = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if at - start + size != info.file_size:
        raise ValueError(f"{info.filename} has another size than it announces")
    if size == 0:
        return np.empty(shape, dtype)
    if at % _ALIGNMENT:  # written by other hands
        stream.seek(at)
        return np.frombuffer(stream.read(size), dtype).reshape(shape)
    # copy-on-write: nothing reaches the file, and kernels see an ordinary array
    return np.memmap(path, dtype, "c", at, shape).view(np.ndarray)
