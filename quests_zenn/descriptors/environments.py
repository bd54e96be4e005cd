"""Structures to environments: the door of this room."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from quests_zenn._core.checks import DataError, one_of, positive, whole_number
from quests_zenn._core.parallel import Workers, split_by_cost, split_evenly
from quests_zenn.descriptors._cells import CROWDED, OK, first_strange, sort_into_bins
from quests_zenn.descriptors._kernels import fill_descriptors
from quests_zenn.descriptors._layout import block_names
from quests_zenn.descriptors._simd import sorting_network
from quests_zenn.io.frames import Frame, FrameSource, is_single, iterate_frames

DEFAULT_K = 32
DEFAULT_CUTOFF = 5.0

#: The pair matrix of one environment has k x k entries.
LARGEST_K = 4096

SPECIES = ("none", "blocks", "pairs")

#: Atoms whose frames are worked on together: enough for all threads, and ten megabytes. Between batches one thread
#: works, for a quarter of a per cent of the time of all.
BATCH_ATOMS = 131_072

#: Positions beyond this (Å) resolve less than 1e-9 Å, the order of the tolerance for ties.
FARTHEST = 1e7

#: Atomic numbers up to which tables are made.
_LARGEST_NUMBER = 1000

#: Atoms of one task: a millisecond or two.
TASK_ATOMS = 1_024


@dataclass(frozen=True)
class Environments:
    """Atom-centred descriptors of one or many frames, and what they were made with.

    Attributes
    ----------
    x : (N, d)
        One row per atom, 1/Å, in the order of frames and atoms.
    frame_offsets : (F + 1,)
        Rows of frame f are ``frame_offsets[f]`` to ``frame_offsets[f + 1]``.
    numbers : (N,)
        Atomic number of the centre of each environment.
    k : int
        Neighbours per atom.
    cutoff : float
        Cutoff radius, Å.
    species : str
        Kind of blocks.
    elements : tuple of str
        Elements present, in the order of their blocks (alphabetical).
    tied : (N,) bool
        Whether equal distances straddle place k: there X2 depends on the order chosen among them.
    incomplete : (N,) bool
        Whether there are fewer than k neighbours inside the cutoff.
    """

    x: npt.NDArray[np.floating]
    frame_offsets: npt.NDArray[np.int64]
    numbers: npt.NDArray[np.int64]
    k: int
    cutoff: float
    species: str
    elements: tuple[str, ...]
    tied: npt.NDArray[np.bool_]
    incomplete: npt.NDArray[np.bool_]

    @property
    def n_tied(self) -> int:
        """Number of tied environments."""
        return int(np.count_nonzero(self.tied))

    @property
    def n_incomplete(self) -> int:
        """Number of incomplete environments."""
        return int(np.count_nonzero(self.incomplete))

    def __len__(self) -> int:
        return len(self.x)

    def of_rows(self, rows: npt.NDArray[np.int64]) -> Environments:
        """Some environments, in ascending order; frames that have none of them stay, empty."""
        counts = np.diff(np.searchsorted(rows, self.frame_offsets))
        return replace(
            self,
            x=self.x[rows],
            frame_offsets=np.concatenate([[0], np.cumsum(counts)]),
            numbers=self.numbers[rows],
            tied=self.tied[rows],
            incomplete=self.incomplete[rows],
        )


def get_descriptors(
    frames: FrameSource,
    k: int = DEFAULT_K,
    cutoff: float = DEFAULT_CUTOFF,
    species: str = "none",
    dtype: npt.DTypeLike = "float64",
    *,
    elements: Sequence[str] | None = None,
    jobs: int | None = None,
) -> npt.NDArray[np.floating]:
    """Atom-centred descriptors X = (X1, X2) of every atom of every frame.

    For atom i with its k nearest neighbours j inside the cutoff r_c, nearest first, and
    w(r) = (1 - (r / r_c)^2)^2::

        X1_j = w(r_ij) / r_ij                                            j = 1..k
        X2_l = (1/k) sum_j sort_desc(sqrt(w(r_ij) w(r_il)) / r_jl)_l     l = 1..k-1

    Parameters
    ----------
    frames : ase.Atoms, Frame, tuple (positions, cell, pbc, numbers), or an iterable of them
        Positions and cell in Å. An iterable is consumed once, a batch of frames at a time. An axis is periodic
        exactly when `pbc` says so.
    k : int
        Number of neighbours, at least 2.
    cutoff : float
        Cutoff radius r_c, Å.
    species : {"none", "blocks", "pairs"}
        ``none``: one block, blind to elements. ``blocks``: also one block per element A (alphabetical), over the
        neighbours of element A of atoms of element A, zeros for others. ``pairs``: also one block per unordered pair
        of elements, over the neighbours of the other element.
    elements : sequence of str, optional
        Elements that have blocks; by default those present. Two sets that are compared need the same ones.
    dtype : {"float64", "float32"}
        Arithmetic and storage. Neighbours are found in float64 either way; float32 changes the result by about 1e-7.
    jobs : int or None
        Threads; None for all available cores. The result is the same bits for any number.

    Returns
    -------
    numpy.ndarray, shape (total number of atoms, blocks * (2 k - 1)), 1/Å
        Each block is [X1, X2].

    Raises
    ------
    DataError
        Naming frame and atom: positions that are not finite, two atoms at one point, a cell without volume along its
        periodic axes, a frame without atoms, an element that is not among `elements`, no frames.
    ValueError
        For parameters out of range.

    References
    ----------
    D. Schwalbe-Koda, S. Hamel, B. Sadigh, F. Zhou, V. Lordi, Model-free estimation of completeness, uncertainties,
    and outliers in atomistic machine learning using information theory, Nat. Commun. 16 (2025) 4014.
    """
    return describe(frames, k, cutoff, species, dtype, elements=elements, jobs=jobs).x


def describe(
    frames: FrameSource,
    k: int = DEFAULT_K,
    cutoff: float = DEFAULT_CUTOFF,
    species: str = "none",
    dtype: npt.DTypeLike = "float64",
    *,
    elements: Sequence[str] | None = None,
    jobs: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Environments:
    """The same as `get_descriptors`, with everything that belongs to it.

    Parameters
    ----------
    frames, k, cutoff, species, dtype, elements, jobs
        See `get_descriptors`.
    progress : callable or None
        Called with the number of atoms done since the last call.

    Returns
    -------
    Environments

    Raises
    ------
    DataError, ValueError
        See `get_descriptors`.
    """
    k = whole_number(k, "k", 2)
    if k > LARGEST_K:
        raise ValueError(f"k must be at most {LARGEST_K}, got {k}")
    cutoff = positive(cutoff, "cutoff")
    one_of(species, "species", SPECIES)
    try:
        name = np.dtype(dtype).name
    except TypeError:
        name = str(dtype)
    type_ = np.dtype(one_of(name, "dtype", ("float64", "float32")))
    known_rows = None
    if is_single(frames):
        frames = [frames]
    if isinstance(frames, Sequence) and not isinstance(frames, str):
        known_rows = sum(_length(frame) for frame in frames)
    layout = _Layout(k, species, elements)
    rows = _Rows(2 * k - 1, type_, known_rows)
    lengths: list[npt.NDArray[np.int64]] = []
    scratch = _Scratch()
    with Workers(jobs) as workers:
        for batch in _batches(iterate_frames(frames)):
            new = rows.extend(sum(len(frame) for frame in batch))
            packed = _concatenate(batch, rows.numbers[new], workers, scratch)
            if layout.widen(packed.present, batch[0].label):
                rows.relayout(layout, new.start)
            _describe_batch(batch, packed, layout, k, cutoff, rows, new, workers, scratch)
            lengths.append(np.diff(packed.offsets))
            del packed  # what it shows may move when rows are added
            if progress is not None:
                progress(new.stop - new.start)
    if not lengths:
        raise DataError("there are no frames to describe")
    rows.finish()
    return Environments(
        rows.x,
        np.concatenate([[0], np.cumsum(np.concatenate(lengths))]),
        rows.numbers,
        k,
        cutoff,
        species,
        tuple(layout.elements),
        rows.tied,
        rows.incomplete,
    )


def element_symbols(numbers: npt.NDArray[np.int64]) -> list[str]:
    """Symbols of the elements present, alphabetical. Unknown numbers read ``Z130``."""
    from ase.data import chemical_symbols

    present = np.unique(numbers).tolist()
    return sorted(chemical_symbols[z] if 0 <= z < len(chemical_symbols) else f"Z{z}" for z in present)


def _atomic_numbers(elements: Sequence[str]) -> set[int]:
    from ase.data import atomic_numbers

    for symbol in elements:
        if symbol not in atomic_numbers:
            raise ValueError(f"elements must be chemical symbols, got {symbol!r}")
    return {atomic_numbers[symbol] for symbol in elements}


def _length(frame: object) -> int:
    """Number of atoms of anything that `as_frame` accepts; 0 where it would refuse."""
    try:
        return len(frame[3] if isinstance(frame, tuple) and len(frame) == 4 else frame)  # type: ignore[arg-type]
    except TypeError:
        return 0


def _present(numbers: npt.NDArray[np.int64]) -> set[int]:
    """Atomic numbers that occur."""
    if numbers.max() > _LARGEST_NUMBER:
        return set(np.unique(numbers).tolist())
    return set(np.flatnonzero(np.bincount(numbers)).tolist())


class _Layout:
    """Which block of the row holds which neighbours of which centre."""

    def __init__(self, k: int, species: str, elements: Sequence[str] | None) -> None:
        self.width = 2 * k - 1
        self.species = species
        self.elements: list[str] = []
        self.codes: dict[int, int] = {}
        self._numbers: set[int] = set()
        self._given = None if elements is None else _atomic_numbers(elements)

    def widen(self, present: set[int], label: str) -> bool:
        """Take note of the elements of a batch that begins with the frame `label`. Returns whether the layout changed.

        Raises
        ------
        DataError
            For an element that is not among those given.
        """
        new = present - self._numbers
        if not new:
            return False
        if self._given is not None:
            if strangers := new - self._given:
                symbol = element_symbols(np.array([min(strangers)]))[0]
                raise DataError(
                    f"{label} or a frame soon after it holds {symbol}, which is not among the elements given"
                )
            new = self._given
        self._numbers |= new
        by_symbol = {element_symbols(np.array([z]))[0]: z for z in self._numbers}
        self.elements = sorted(by_symbol)
        self.codes = {by_symbol[symbol]: code for code, symbol in enumerate(self.elements)}
        return self.species != "none"

    def blocks(self) -> list[tuple[str, ...]]:
        """Names of the blocks, in order: (), then (A,) per element, then (A, B) per pair."""
        return block_names(self.elements, self.species)

    def encode(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Atomic numbers to places in `elements`; all the same where one block serves all of them."""
        if self.species == "none":
            return np.zeros(len(numbers), np.int64)
        known = np.array(sorted(self.codes), np.int64)
        codes = np.array([self.codes[z] for z in known.tolist()], np.int64)
        if known[-1] > _LARGEST_NUMBER:
            return codes[np.searchsorted(known, numbers)]
        table = np.zeros(int(known[-1]) + 1, np.int64)
        table[known] = codes
        return table[numbers]

    def partners(self) -> npt.NDArray[np.int64]:
        """For each element and block, the element of the neighbours: -1 for all, -2 where the block stays empty."""
        blocks = self.blocks()
        partner = np.full((max(1, len(self.elements)), len(blocks)), -2, np.int64)
        place = {symbol: code for code, symbol in enumerate(self.elements)}
        for b, name in enumerate(blocks):
            if not name:
                partner[:, b] = -1
            elif len(name) == 1:
                partner[place[name[0]], b] = place[name[0]]
            else:
                partner[place[name[0]], b] = place[name[1]]
                partner[place[name[1]], b] = place[name[0]]
        return partner


class _Rows:
    """Growing arrays with a row for each atom: exact where their number is known, else enlarged in place.

    Threads touch the new rows first, so that the system hands out their memory to all of them at once.
    """

    def __init__(self, block_width: int, dtype: np.dtype, known_rows: int | None) -> None:
        self._block_width = block_width
        self._blocks: list[tuple[str, ...]] = [()]
        self._capacity = known_rows or 0
        self._used = 0
        self.x: npt.NDArray[np.floating] = np.empty((self._capacity, block_width), dtype)
        self.numbers = np.empty(self._capacity, np.int64)
        self.tied, self.incomplete = np.empty(self._capacity, bool), np.empty(self._capacity, bool)

    def relayout(self, layout: _Layout, described: int) -> None:
        """Move what is described into a wider layout. Happens once, or when a later frame brings a new element."""
        blocks = layout.blocks()
        wider = np.zeros((self._capacity, len(blocks) * self._block_width), self.x.dtype)
        width = self._block_width
        for old, name in enumerate(self._blocks):
            new = blocks.index(name)
            source = self.x[:described, old * width : (old + 1) * width]
            wider[:described, new * width : (new + 1) * width] = source
        self.x, self._blocks = wider, blocks

    def extend(self, n: int) -> slice:
        """Where `n` fresh rows are, at the end."""
        first, self._used = self._used, self._used + n
        if self._used > self._capacity:
            self._resize(max(self._used, self._capacity + self._capacity // 4))
        return slice(first, self._used)

    def finish(self) -> None:
        """Give back spare rows."""
        if self._used != self._capacity:
            self._resize(self._used)

    def _resize(self, capacity: int) -> None:
        # large blocks are moved by the page table, not copied; no view of the old data is alive here
        for array in (self.x, self.numbers, self.tied, self.incomplete):
            array.resize((capacity, *array.shape[1:]), refcheck=False)
        self._capacity = capacity


class _Scratch:
    """Arrays for one batch after the other.

    Fresh ones would be handed out and taken back page by page, in one thread, while the others wait.
    """

    def __init__(self) -> None:
        self._arrays: dict[str, npt.NDArray[Any]] = {}

    def take(self, name: str, shape: tuple[int, ...], dtype: type) -> npt.NDArray[Any]:
        """An array of unknown content, valid until `name` is taken again."""
        size = math.prod(shape)
        if name not in self._arrays or self._arrays[name].size < size:
            self._arrays[name] = np.empty(size, dtype)
        return self._arrays[name][:size].reshape(shape)


@dataclass(frozen=True)
class _Batch:
    positions: npt.NDArray[np.float64]
    offsets: npt.NDArray[np.int64]
    cells: npt.NDArray[np.float64]
    pbc: npt.NDArray[np.bool_]
    numbers: npt.NDArray[np.int64]
    present: set[int]


def _batches(frames: Iterable[Frame]) -> Iterator[list[Frame]]:
    batch: list[Frame] = []
    atoms = 0
    for frame in frames:
        if len(frame) == 0:
            raise DataError(f"{frame.label}: it has no atoms")
        batch.append(frame)
        atoms += len(frame)
        if atoms >= BATCH_ATOMS:
            yield batch
            batch, atoms = [], 0
    if batch:
        yield batch


def _concatenate(batch: list[Frame], numbers: npt.NDArray[np.int64], workers: Workers, scratch: _Scratch) -> _Batch:
    """The frames one behind the other, judged; `numbers` is filled with their atomic numbers."""
    offsets = np.zeros(len(batch) + 1, np.int64)
    np.cumsum([len(frame) for frame in batch], out=offsets[1:])
    starts = offsets.tolist()
    cells = np.concatenate([frame.cell for frame in batch]).reshape(-1, 3, 3)
    pbc = np.concatenate([frame.pbc for frame in batch]).reshape(-1, 3)
    positions = scratch.take("positions", (starts[-1], 3), np.float64)
    parts = split_by_cost(np.diff(offsets).tolist(), 4 * TASK_ATOMS)
    strange = np.full(len(parts), -1, np.int64)
    present: list[set[int]] = [set()] * len(parts)

    def take_in(task: tuple[int, tuple[int, int]]) -> None:
        number, (first, last) = task
        for frame in range(first, last):
            positions[starts[frame] : starts[frame + 1]] = batch[frame].positions
            numbers[starts[frame] : starts[frame + 1]] = batch[frame].numbers
        strange[number] = first_strange(positions, numbers, starts[first], starts[last], FARTHEST)
        if strange[number] < 0:
            present[number] = _present(numbers[starts[first] : starts[last]])

    workers.run(take_in, list(enumerate(parts)))
    found = strange[strange >= 0]
    if len(found):
        frame, atom = _locate(batch, offsets, int(found[0]))
        raise DataError(f"{frame.label}, atom {atom}: {_strangeness(frame, atom)}")
    used = pbc[:, :, None] & np.ones(3, bool)
    bad = np.flatnonzero(~(np.isfinite(cells) | ~used).all(axis=(1, 2)))
    if len(bad):
        raise DataError(f"{batch[bad[0]].label}: its cell is not finite")
    return _Batch(positions, offsets, cells, pbc, numbers, set().union(*present))


def _strangeness(frame: Frame, atom: int) -> str:
    """What is wrong with an atom."""
    position = frame.positions[atom]
    if not np.isfinite(position).all():
        return f"its position is not finite ({_triple(position)})"
    if np.abs(position).max() > FARTHEST:
        return (
            f"it lies more than {FARTHEST:g} Å from the origin ({_triple(position)}), too far for its neighbours to "
            "be told apart"
        )
    return "its atomic number is negative"


def _locate(batch: list[Frame], offsets: npt.NDArray[np.int64], row: int) -> tuple[Frame, int]:
    f = int(np.searchsorted(offsets, row, side="right")) - 1
    return batch[f], row - int(offsets[f])


def _triple(values: npt.NDArray[np.float64]) -> str:
    return ", ".join(f"{value:g}" for value in values)


@cache
def _networks(k: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Sorting networks for 1, 2, 4, ... up to at least k inputs, concatenated, and where each begins."""
    levels = [sorting_network(1 << level) for level in range((k - 1).bit_length() + 1)]
    starts = np.concatenate([[0], np.cumsum([len(level) for level in levels])]).astype(np.int64)
    return np.concatenate(levels), starts


def _describe_batch(
    batch: list[Frame],
    packed: _Batch,
    layout: _Layout,
    k: int,
    cutoff: float,
    rows: _Rows,
    new: slice,
    workers: Workers,
    scratch: _Scratch,
) -> None:
    """Fill the `new` rows: descriptors, and whether atoms are tied and incomplete."""
    n, n_frames = len(packed.numbers), len(batch)
    lattices = np.empty((n_frames, 3, 3))
    shapes, reaches = np.empty((n_frames, 3), np.int64), np.empty((n_frames, 3), np.int64)
    bin_starts = scratch.take("bin_starts", (n + n_frames,), np.int64)
    xyz = scratch.take("xyz", (3, n), np.float64)
    order, atom_bin = scratch.take("order", (n,), np.int64), scratch.take("atom_bin", (n,), np.int64)
    status = np.full(n_frames, OK, np.int64)

    def sort(part: tuple[int, int]) -> None:
        sort_into_bins(
            part[0], part[1], packed.positions, packed.offsets, packed.cells, packed.pbc, cutoff, lattices, shapes,
            reaches, bin_starts, xyz, order, atom_bin, status,
        )  # fmt: skip

    workers.run(sort, split_by_cost(np.diff(packed.offsets).tolist(), 4 * TASK_ATOMS))
    bad = np.flatnonzero(status != OK)
    if len(bad):
        if status[bad[0]] == CROWDED:
            raise DataError(
                f"{batch[bad[0]].label}: a cutoff of {cutoff:g} Å reaches millions of atoms around each atom"
            )
        axes = " ".join("T" if flag else "F" for flag in packed.pbc[bad[0]])
        raise DataError(f"{batch[bad[0]].label}: its cell has no volume along the periodic axes (pbc = {axes})")

    partners, elements = layout.partners(), layout.encode(packed.numbers)
    networks, network_starts = _networks(k)
    tasks = split_evenly(n, TASK_ATOMS)
    x, tied, incomplete = rows.x[new], rows.tied[new], rows.incomplete[new]
    coincidences = np.full((len(tasks), 2), -1, np.int64)

    def fill(task: tuple[int, tuple[int, int]]) -> None:
        number, (first, last) = task
        fill_descriptors(
            first, last, packed.offsets, packed.pbc, lattices, shapes, reaches, bin_starts, xyz, order, atom_bin,
            elements, partners, k, cutoff, networks, network_starts, x, tied, incomplete,
            coincidences[number],
        )  # fmt: skip

    workers.run(fill, list(enumerate(tasks)))
    found = coincidences[coincidences[:, 0] >= 0]
    if len(found):
        row, other = found[np.argmin(found[:, 0])].tolist()
        frame, atom = _locate(batch, packed.offsets, row)
        _, other_atom = _locate(batch, packed.offsets, other)
        point = _triple(frame.positions[atom])
        raise DataError(f"{frame.label}: atoms {atom} and {other_atom} are at the same point ({point})")
