"""A store, opened: a matrix whose rows are read in pieces, and what belongs to it. Its form: `store_form`."""

from __future__ import annotations

import functools
import itertools
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from quests_zenn._core.checks import DataError
from quests_zenn._core.parallel import available_cores
from quests_zenn._core.rows import FloatArray
from quests_zenn.io import store_form as form
from quests_zenn.io.store_form import FrameRecord, StoreParameters

#: Threads that read chunks at the same time; each holds one.
MOST_READERS = 4

#: Below this share of a chunk its rows are read one by one, without the others.
FEW = 1 / 16


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
            unfinished = form.part_of(path).is_dir()
            told = "is not complete; repeat the command that makes it" if unfinished else "no such store"
            if self._folder.exists():
                told = "is no store of environments"
            raise DataError(f"{self.path}: {told}")
        self._known = self._look()
        found = form.own_attributes(self._folder)
        if found is None:
            raise DataError(
                f"{self.path}: is no store of environments; quests-zenn descriptors FILE... -o NAME{form.ENDING} makes "
                "one"
            )
        if found.get("format_version") != form.FORMAT_VERSION:
            raise DataError(
                f"{self.path}: was written in version {form.short(found.get('format_version'))} of the format, and "
                f"this package reads version {form.FORMAT_VERSION}"
            )
        form.require_zarr()
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
        if rows != min(n, form.chunk_rows(d)):
            raise ValueError("rows_per_chunk")
        if found["dtype"] not in ("float32", "float64"):
            raise ValueError("dtype")
        self.k, self.cutoff, self.species = _whole(found, "k", 2), float(found["cutoff"]), str(found["species"])
        if not (math.isfinite(self.cutoff) and self.cutoff > 0.0) or self.species not in ("none", "blocks", "pairs"):
            raise ValueError("cutoff or species")
        self.elements: tuple[str, ...] = tuple(map(str, found["elements"]))
        e = len(self.elements)
        blocks = 1 + {"none": 0, "blocks": e, "pairs": e + e * (e - 1) // 2}[self.species]
        if (
            d != blocks * (2 * self.k - 1)
            or list(self.elements) != sorted({*self.elements})
            or not all(symbol.isascii() and symbol.isalnum() for symbol in self.elements)
        ):
            raise ValueError("elements do not make so many columns")
        self.token = str(found["token"])
        self.n_frames, self.n_tied = frames, _whole(found, "n_tied", 0)
        self.n_incomplete = _whole(found, "n_incomplete", 0)
        self.present: tuple[int, ...] = tuple(found["present"])
        if not all(type(number) is int and 0 <= number <= np.iinfo(np.int16).max for number in self.present):
            raise ValueError("present")
        symbols = {*form.symbols(self.present)}
        if not symbols or not symbols <= {*self.elements} or (self.species == "none" and len(symbols) < e):
            raise ValueError("elements are not those of its atoms")
        self.provenance: list[dict[str, Any]] = [
            {name: form.printable(value) if isinstance(value, str) else value for name, value in dict(part).items()}
            for part in found["provenance"]
        ]
        self.versions: dict[str, str] = dict(found["versions"])
        text = self._text_length()
        self._layouts = {
            "x": form.ArrayLayout("x", (n, d), rows, found["dtype"]),
            "numbers": form.ArrayLayout("numbers", (n,), rows, form.TYPES["numbers"]),
            "flags": form.ArrayLayout("flags", (n,), rows, form.TYPES["flags"]),
            "frame_lengths": form.ArrayLayout(
                "frame_lengths", (frames,), min(frames, form.LENGTH_CHUNK), form.TYPES["frame_lengths"]
            ),
            "frames": form.ArrayLayout("frames", (text,), min(text, form.TEXT_CHUNK), form.TYPES["frames"]),
        }

    def _text_length(self) -> int:
        found = form.read_json(self._folder / "frames" / "zarr.json") or {}
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
            with open(form.chunk_file(self._folder, "x", number, 2), "rb", buffering=0) as stream:
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
        return (self.flags & form.TIED).astype(bool)

    @property
    def incomplete(self) -> npt.NDArray[np.bool_]:
        """Whether there are fewer than k neighbours, (N,)."""
        return (self.flags & form.INCOMPLETE).astype(bool)

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
