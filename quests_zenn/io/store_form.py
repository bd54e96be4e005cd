"""The form of a store: environments on disk that need not fit into memory, written in pieces and read in pieces.

A store is a folder, ``NAME.zarr``, in the format Zarr 3, which other programs read too: a matrix ``x``, one row per
environment, and beside it ``numbers`` (of the centres), ``flags`` (bit 0: tied, bit 1: incomplete), ``frame_lengths``,
and ``frames``, what is known of each frame as one line of JSON. What holds for all of them is in the attributes.

Why Zarr, and why so. Each chunk is a file of its own, which is written under another name and renamed: a chunk is there
or not. Each carries a checksum. Rows are not compressed: the digits of descriptors are random and would shrink by a few
per cent, for many times the time of reading. A chunk is thus its rows as they are in memory, and a few of them can be
read without the others. Rows per chunk depend on the width of the matrix alone. Reading runs no code of the store:
only numbers in the form described here are accepted, which is judged before anything is read.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from quests_zenn._core.checks import DataError, MissingExtraError
from quests_zenn._core.rows import piece_rows
from quests_zenn.io.outputs import plain

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

#: Types of the arrays.
TYPES = {"numbers": "int16", "flags": "uint8", "frame_lengths": "int64", "frames": "uint8"}


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
        told = {name: printable(found[name]) for name in ("label", "without_volume") if name in found}
        return cls(**{**found, **told, "arrays": tuple(map(str, found.get("arrays", ())))})


_KINDS: dict[str, Any] = {
    "label": str, "n": int, "file": int, "volume": (int, float), "without_volume": str, "properties": dict,
    "info": dict, "results": dict, "arrays": list,
}  # fmt: skip


def printable(text: str) -> str:
    """The text with a question mark for all that moves a cursor or colours a screen: it may be a stranger's."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


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


def part_of(path: str | os.PathLike[str]) -> Path:
    """Where a store lies until it is complete."""
    target = Path(os.path.realpath(path))
    return target.with_name(f".{target.name}.part")


def symbols(numbers: Sequence[int]) -> list[str]:
    from ase.data import chemical_symbols

    return sorted(chemical_symbols[z] if z < len(chemical_symbols) else f"Z{z}" for z in numbers)


def chunk_rows(width: int) -> int:
    """Rows of a chunk: four make one piece of `quests_zenn._core.rows`."""
    return piece_rows(max(1, width)) // 4


def short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def force(path: Path) -> None:
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


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object; None if there is none."""
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode) or os.path.getsize(path) > MOST_BYTES:
            return None
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def own_attributes(path: Path) -> dict[str, Any] | None:
    """What a store says of itself; None if it is none of ours."""
    found = read_json(path / "zarr.json")
    if found is None or found.get("zarr_format") != 3 or found.get("node_type") != "group":
        return None
    attributes = found.get("attributes")
    own = attributes.get(FORMAT) if isinstance(attributes, dict) else None
    return own if isinstance(own, dict) else None


# --- the form of an array ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ArrayLayout:
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
        force(folder)
        return array

    def open(self, folder: Path, write: bool = False) -> Any:
        """An array that was checked. What its file says is not read again."""
        zarr = require_zarr()
        place = zarr.storage.StorePath(zarr.storage.LocalStore(folder / self.name, read_only=not write))
        return zarr.Array(zarr.AsyncArray(self.metadata(), place, config={"write_empty_chunks": True}))

    def check(self, folder: Path) -> None:
        """Compare with what is there.

        Raises
        ------
        DataError
            If it has another form, or a chunk is missing or has not its length.
        """
        found = read_json(folder / self.name / "zarr.json") or {}
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
            found = os.stat(chunk_file(folder, self.name, number, len(self.shape)), follow_symlinks=False)
        except OSError:
            return "is missing"
        if not stat.S_ISREG(found.st_mode):
            return "is no plain file"
        if found.st_size != self.chunk_bytes:
            return f"has {found.st_size:,} bytes and not {self.chunk_bytes:,}: it is truncated or damaged"
        return ""


def chunk_file(folder: Path, name: str, number: int, dimensions: int) -> Path:
    path = folder / name / "c" / str(number)
    return path / "0" if dimensions == 2 else path
