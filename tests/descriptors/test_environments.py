"""The door of the room: batches, threads, layouts and streams change nothing; bad input meets a clear sentence."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import structures
from ase.build import bulk
from structures import Structure

from quests_zenn._core.checks import DataError
from quests_zenn.descriptors import DEFAULT_K, Environments, describe, environments, get_descriptors
from quests_zenn.io import Frame, as_frame

SPECIES = ("none", "blocks", "pairs")
CELL = np.array([[6.4, 0.3, -0.2], [1.7, 6.1, 0.4], [-1.1, 1.9, 6.6]])


def zoo() -> list[Structure]:
    """Frames of all kinds and sizes, one atom to some dozens; the elements change on the way."""
    frames = [structures.fcc(repeat=(1, 1, 1))]  # tied, unless k closes a shell
    frames += [structures.gas(n, CELL, structures.ALL_PBC[n % 8], (29,), least=1.4, seed=n) for n in (5, 1, 14, 2, 9)]
    frames += [structures.gas(n, CELL, (True, True, False), (8, 29), least=1.4, seed=n) for n in (3, 8)]
    frames += [structures.molecule("CH3CH2OH"), structures.fcc(rattle=0.1), structures.molecule("H2O")]
    frames += [structures.gas(7, CELL, (True, True, True), (1, 47), least=1.4, seed=20)]
    return frames


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of a few atoms, tasks of fewer."""
    monkeypatch.setattr(environments, "BATCH_ATOMS", 12)
    monkeypatch.setattr(environments, "TASK_ATOMS", 3)


def same(a: Environments, b: Environments) -> None:
    """Equal in all parts, bit for bit."""
    np.testing.assert_array_equal(a.x, b.x, strict=True)
    np.testing.assert_array_equal(a.frame_offsets, b.frame_offsets)
    np.testing.assert_array_equal(a.numbers, b.numbers)
    assert (a.k, a.cutoff, a.species, a.elements) == (b.k, b.cutoff, b.species, b.elements)
    np.testing.assert_array_equal(a.tied, b.tied, strict=True)
    np.testing.assert_array_equal(a.incomplete, b.incomplete, strict=True)


# --- batches, threads -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_batches_equal_one_by_one(dtype: str, small_batches: None) -> None:
    """Without blocks, a frame gives the same bits alone and among others."""
    frames = zoo()
    together = describe(frames, 16, dtype=dtype)
    alone = [describe(frame, 16, dtype=dtype) for frame in frames]
    np.testing.assert_array_equal(together.x, np.concatenate([one.x for one in alone]), strict=True)
    np.testing.assert_array_equal(together.numbers, np.concatenate([frame[3] for frame in frames]))
    np.testing.assert_array_equal(together.frame_offsets, np.cumsum([0] + [len(frame[0]) for frame in frames]))
    np.testing.assert_array_equal(together.tied, np.concatenate([one.tied for one in alone]))
    np.testing.assert_array_equal(together.incomplete, np.concatenate([one.incomplete for one in alone]))
    assert together.n_tied == sum(one.n_tied for one in alone) >= 4
    assert together.n_incomplete == sum(one.n_incomplete for one in alone) >= 4
    assert together.x.dtype == dtype


@pytest.mark.parametrize("species", SPECIES)
def test_size_of_batches_and_tasks_does_not_matter(species: str, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = zoo()
    whole = describe(frames, 12, species=species)
    for batch, task in ((1, 1), (7, 2), (30, 5), (1000, 1), (10, 1000)):
        monkeypatch.setattr(environments, "BATCH_ATOMS", batch)
        monkeypatch.setattr(environments, "TASK_ATOMS", task)
        same(describe(frames, 12, species=species), whole)


@pytest.mark.parametrize("species", SPECIES)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_threads_do_not_matter(species: str, dtype: str, small_batches: None) -> None:
    frames = zoo()
    one = describe(frames, species=species, dtype=dtype, jobs=1)
    for jobs in (2, 4, None):
        same(describe(frames, species=species, dtype=dtype, jobs=jobs), one)


def test_threads_share_one_large_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "TASK_ATOMS", 50)
    frame = structures.fcc(repeat=(5, 5, 5), rattle=0.1)
    one = describe(frame, jobs=1)
    same(describe(frame, jobs=2), one)
    same(describe(frame, jobs=4), one)


def test_progress_counts_all_atoms(small_batches: None) -> None:
    done: list[int] = []
    frames = zoo()
    describe(frames, 4, progress=done.append)
    assert len(done) > 1
    assert sum(done) == sum(len(frame[0]) for frame in frames)


# --- anything that looks like a structure -----------------------------------------------------------------------------


def layouts(positions: npt.NDArray[np.float64]) -> Iterator[npt.NDArray[Any]]:
    """The same numbers in other memory."""
    yield np.asfortranarray(positions)
    spread = np.full((2 * len(positions), 7), np.nan)
    spread[::2, 1:6:2] = positions
    yield spread[::2, 1:6:2]
    yield positions[::-1].copy()[::-1]
    yield np.ascontiguousarray(positions.T).T
    yield positions.astype(">f8")
    frozen = positions.copy()
    frozen.setflags(write=False)
    yield frozen


def test_memory_layout_does_not_matter() -> None:
    positions, cell, pbc, numbers = structures.gas(14, CELL, (True, True, False), (8, 29), seed=3)
    plain = get_descriptors((positions, cell, pbc, numbers), 12, species="pairs")
    for other in layouts(positions):
        np.testing.assert_array_equal(get_descriptors((other, cell, pbc, numbers), 12, species="pairs"), plain)
    for lattice in layouts(cell):
        np.testing.assert_array_equal(get_descriptors((positions, lattice, pbc, numbers), 12, species="pairs"), plain)
    for kinds in (numbers.astype(np.int8), np.repeat(numbers, 2)[::2], numbers.tolist(), numbers.astype(float)):
        np.testing.assert_array_equal(get_descriptors((positions, cell, pbc, kinds), 12, species="pairs"), plain)


def test_positions_in_single_precision_are_converted() -> None:
    positions, cell, pbc, numbers = structures.gas(14, CELL, seed=3)
    short = positions.astype(np.float32)
    expected = get_descriptors((short.astype(np.float64), cell, pbc, numbers))
    got = get_descriptors((short, cell, pbc, numbers))
    assert got.dtype == np.float64
    np.testing.assert_array_equal(got, expected)


def test_all_forms_of_a_structure() -> None:
    """Tuple, Frame, ase.Atoms; one of them or a list; flags as one or three."""
    structure = structures.gas(14, CELL, seed=4)
    positions, cell, _, numbers = structure
    plain = get_descriptors(structure)
    atoms = structures.as_atoms(structure)
    forms: list[Any] = [
        as_frame(structure),
        atoms,
        (positions, cell, True, numbers),
        (positions, cell, [1, 1, 1], numbers),
    ]
    for form in forms:
        np.testing.assert_array_equal(get_descriptors(form), plain)
        np.testing.assert_array_equal(get_descriptors([form]), plain)
        np.testing.assert_array_equal(get_descriptors((form, form)), np.concatenate([plain, plain]))
    lengths = (positions, np.array([6.0, 7.0, 8.0]), True, numbers)
    boxed = (positions, np.diag([6.0, 7.0, 8.0]), True, numbers)
    np.testing.assert_array_equal(get_descriptors(lengths), get_descriptors(boxed))


def test_four_structures_are_no_tuple_of_parts() -> None:
    frames = zoo()[1:5]
    np.testing.assert_array_equal(get_descriptors(tuple(frames)), get_descriptors(frames))
    atoms = tuple(structures.as_atoms(frame) for frame in frames)
    np.testing.assert_array_equal(get_descriptors(atoms), get_descriptors(frames))


def test_tuple_of_lists_is_one_structure() -> None:
    parts = ([[0.0, 0.0, 0.0], [2.0, 0.0, 0.0]], None, False, [1, 1])
    plain = get_descriptors((np.array(parts[0]), None, False, [1, 1]))
    np.testing.assert_array_equal(get_descriptors([parts]), plain)
    np.testing.assert_array_equal(get_descriptors(parts), plain)


@pytest.mark.parametrize("species", SPECIES)
def test_streams_equal_lists(species: str, small_batches: None) -> None:
    """A list has a known length, a stream grows."""
    frames = zoo()
    listed = describe(frames, 12, species=species)
    same(describe(iter(frames), 12, species=species), listed)
    same(describe((frame for frame in frames), 12, species=species), listed)
    same(describe(map(structures.as_atoms, frames), 12, species=species), listed)
    grown = describe(iter(frames), 12, species=species).x
    assert grown.flags.c_contiguous
    assert grown.flags.owndata


def test_streams_are_read_once_and_batch_by_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """No more than a batch is read before the first descriptors are done."""
    monkeypatch.setattr(environments, "BATCH_ATOMS", 10)
    given: list[int] = []
    done: list[int] = []

    def stream() -> Iterator[Structure]:
        for number in range(8):
            assert sum(given) - sum(done) < 10
            given.append(5)
            yield structures.gas(5, CELL, seed=number)

    describe(stream(), 4, progress=done.append)
    assert sum(done) == 40


# --- what comes with the matrix ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("species", ["blocks", "pairs"])
@pytest.mark.parametrize("listed", [True, False])
def test_new_element_in_a_later_batch(species: str, listed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The layout widens in the middle of the run, also at its front: old rows end where they would have been."""
    import naive

    monkeypatch.setattr(environments, "BATCH_ATOMS", 1)
    kinds = [(29,), (29, 47), (79,), (13, 29), (1,)]
    frames = [structures.gas(4 + n, CELL, numbers=kind, least=1.4, seed=n) for n, kind in enumerate(kinds)]
    got = describe(frames if listed else iter(frames), 6, species=species)
    assert got.elements == ("Ag", "Al", "Au", "Cu", "H")
    expected = [naive.descriptor(*frame[:3], 6, 5.0, frame[3], species, got.elements) for frame in frames]
    np.testing.assert_allclose(got.x, np.concatenate(expected), rtol=1e-11, atol=1e-13)
    monkeypatch.undo()
    same(describe(frames, 6, species=species), got)


def test_elements_do_not_depend_on_the_choice_of_blocks() -> None:
    for species in SPECIES:
        assert describe(zoo(), 4, species=species).elements == ("Ag", "C", "Cu", "H", "O")


def test_frame_offsets_cut_the_rows() -> None:
    frames = zoo()
    got = describe(frames, 8)
    assert len(got) == len(got.x) == got.frame_offsets[-1] == len(got.numbers)
    assert got.frame_offsets[0] == 0
    for f, frame in enumerate(frames):
        rows = slice(got.frame_offsets[f], got.frame_offsets[f + 1])
        np.testing.assert_array_equal(got.x[rows], get_descriptors(frame, 8))
        np.testing.assert_array_equal(got.numbers[rows], frame[3])


def test_parameters_are_answered() -> None:
    got = describe(structures.molecule(), np.int64(7), 4, "blocks", np.float32)
    assert (got.k, got.cutoff, got.species) == (7, 4.0, "blocks")
    assert type(got.k) is int
    assert type(got.cutoff) is float
    assert got.x.dtype == np.float32
    assert got.x.shape == (9, 4 * 13)


def test_incomplete_environments_are_counted() -> None:
    """A row of 6 atoms 2 Å apart, cutoff 5 Å: 2, 3, 4, 4, 3, 2 neighbours."""
    row = (np.arange(6)[:, None] * np.array([2.0, 0.0, 0.0]), None, False, np.ones(6, int))
    for k, incomplete in ((2, ""), (3, "05"), (4, "0145"), (5, "012345")):
        got = describe(row, k)
        assert np.flatnonzero(got.incomplete).tolist() == [int(atom) for atom in incomplete]
        assert got.n_incomplete == len(incomplete)
    assert describe([row, row], 4).n_incomplete == 8


def test_ties_are_counted() -> None:
    """The same row: distances 2 2 4 4 in the middle, 2 2 4 beside the ends, 2 4 at them."""
    row = (np.arange(6)[:, None] * np.array([2.0, 0.0, 0.0]), None, False, np.ones(6, int))
    for k, tied in ((2, []), (3, [2, 3]), (4, [])):
        got = describe(row, k)
        assert np.flatnonzero(got.tied).tolist() == tied
        assert got.n_tied == len(tied)
    assert np.flatnonzero(describe([row, row], 3).tied).tolist() == [2, 3, 8, 9]
    nudged = (row[0] + np.array([[0.0], [0], [0], [1e-7], [0], [0]]), None, False, row[3])
    assert describe(nudged, 3).n_tied == 1  # its own tie is broken, that of its neighbour is not


def test_flags_belong_to_their_atoms() -> None:
    """Atoms are sorted into bins on the way; what is said of them comes back in the order of the input."""
    order = np.random.default_rng(0).permutation(60)
    row = (2.0 * order[:, None] * np.array([1.0, 0.0, 0.0]), None, False, np.ones(60, int))
    inner = (order > 1) & (order < 58)
    np.testing.assert_array_equal(describe(row, 3).tied, inner)
    np.testing.assert_array_equal(describe(row, 4).incomplete, ~inner)


def test_ties_beyond_the_cutoff_do_not_count() -> None:
    positions, cell, pbc, numbers = structures.fcc(repeat=(1, 1, 1))
    assert describe((positions, cell, pbc, numbers), 32, 5.0).n_tied == 4
    assert describe((positions, cell, pbc, numbers), 32, 4.4).n_tied == 0


def test_ties_within_a_block_count() -> None:
    """The centre sees two O at 1.5 Å and H at 2 Å; the others see the centre only."""
    cross = np.array([[0.0, 0, 0], [1.5, 0, 0], [-1.5, 0, 0], [0, 2.0, 0], [0, -2.0, 0], [0, 0, 2.05]])
    numbers = [1, 8, 8, 1, 1, 1]

    def tied(k: int, species: str) -> int:
        return describe((cross, None, False, numbers), k, 2.1, species).n_tied

    assert [tied(2, species) for species in SPECIES] == [0, 0, 0]
    assert [tied(3, species) for species in SPECIES] == [1, 1, 1]  # 1.5 1.5 2 | 2
    cross[5] = [0, 0, 2.0]
    assert [tied(2, species) for species in SPECIES] == [0, 1, 1]  # among H: 2 2 | 2
    numbers[0] = 6
    assert [tied(2, species) for species in SPECIES] == [0, 0, 1]  # now H are others: only pairs see them apart


# --- memory -----------------------------------------------------------------------------------------------------------


def peak_over_result(source: Any, n_bytes: int, dtype: str) -> float:
    """Peak of the memory allocated, over input and output together."""
    tracemalloc.start()
    try:
        x = get_descriptors(source, dtype=dtype)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    return peak / (n_bytes + x.nbytes)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_peak_memory_of_a_large_frame(dtype: str) -> None:
    positions, cell, pbc, numbers = structures.fcc(repeat=(50, 40, 25), rattle=0.1)
    assert len(positions) == 200_000
    assert peak_over_result((positions, cell, pbc, numbers), positions.nbytes + numbers.nbytes, dtype) < 1.5


def test_peak_memory_of_a_stream() -> None:
    """The growing matrix is enlarged in place; a quarter of spare rows is allowed for."""
    frame = structures.fcc(repeat=(10, 10, 10), rattle=0.1)
    assert peak_over_result((frame for _ in range(40)), 0, "float32") < 1.5


# --- bad input --------------------------------------------------------------------------------------------------------


GOOD = structures.gas(6, CELL, numbers=(29,), least=1.4, seed=30)


def spoiled(**parts: Any) -> tuple[Any, Any, Any, Any]:
    """A good structure with some parts replaced."""
    positions, cell, pbc, numbers = GOOD
    return (
        parts.get("positions", positions),
        parts.get("cell", cell),
        parts.get("pbc", pbc),
        parts.get("numbers", numbers),
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_bad_positions_not_finite(value: float) -> None:
    positions = GOOD[0].copy()
    positions[4, 1] = value
    with pytest.raises(DataError, match=r"frame 2, atom 4: its position is not finite \(.*(nan|inf).*\)"):
        describe([GOOD, GOOD, spoiled(positions=positions), GOOD])


@pytest.mark.parametrize("value", [1.1e7, -1e30])
def test_bad_position_too_far_to_be_resolved(value: float) -> None:
    positions = GOOD[0].copy()
    positions[3, 2] = value
    with pytest.raises(DataError, match=r"frame 1, atom 3: it lies more than 1e\+07 Å from the origin \("):
        describe([GOOD, spoiled(positions=positions)])


def test_bad_coincident_atoms() -> None:
    positions = GOOD[0].copy()
    positions[5] = positions[1]
    with pytest.raises(DataError, match=r"frame 1: atoms 1 and 5 are at the same point \("):
        describe([GOOD, spoiled(positions=positions)])


@pytest.mark.parametrize("jobs", [1, 2])
def test_bad_coincident_atoms_are_named_alike_by_all_threads(jobs: int, small_batches: None) -> None:
    positions = GOOD[0].copy()
    positions[5] = positions[1]
    with pytest.raises(DataError, match="frame 1: atoms 1 and 5 are at the same point"):
        describe([GOOD, spoiled(positions=positions), spoiled(positions=positions)], jobs=jobs)


def test_bad_coincident_without_cell() -> None:
    with pytest.raises(DataError, match=r"frame 0: atoms 0 and 1 are at the same point \(1, 2, 3\)"):
        describe((np.array([[1.0, 2, 3], [1, 2, 3], [0, 0, 0]]), None, False, [1, 1, 1]))


def test_bad_atom_on_the_image_of_another() -> None:
    positions = GOOD[0].copy()
    positions[3] = positions[2] + CELL[0] - 2 * CELL[2]
    with pytest.raises(DataError, match="frame 0: atoms 2 and 3 are at the same point"):
        describe(spoiled(positions=positions))
    describe(spoiled(positions=positions, pbc=(True, True, False)))  # without that image, all is well


def test_nearly_coincident_atoms_are_no_error() -> None:
    x = get_descriptors((np.array([[0.0, 0, 0], [1e-6, 0, 0], [2, 0, 0]]), None, False, [1, 1, 1]), 4)
    assert np.isfinite(x).all()


def test_bad_cell_with_atom_on_its_own_image() -> None:
    cell = CELL.copy()
    cell[1] = 1e-9
    with pytest.raises(DataError, match=r"frame 0: its cell has no volume along the periodic axes \(pbc = T T T\)"):
        describe((np.zeros((1, 3)), cell, True, [1]))


@pytest.mark.parametrize("pbc", structures.ALL_PBC[1:])
def test_bad_cell_zero_along_a_periodic_axis(pbc: tuple[bool, bool, bool]) -> None:
    flags = " ".join("T" if flag else "F" for flag in pbc)
    cell = CELL.copy()
    cell[np.flatnonzero(pbc)[0]] = 0.0
    with pytest.raises(DataError, match=rf"frame 1: its cell has no volume along the periodic axes \(pbc = {flags}\)"):
        describe([GOOD, spoiled(cell=cell, pbc=pbc)])


def test_bad_cell_flat() -> None:
    cell = CELL.copy()
    cell[2] = cell[0] - 3 * cell[1]
    with pytest.raises(DataError, match="its cell has no volume along the periodic axes"):
        describe(spoiled(cell=cell))
    with pytest.raises(DataError, match="its cell has no volume along the periodic axes"):
        describe(spoiled(cell=None))
    describe(spoiled(cell=cell, pbc=(True, True, False)))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_bad_cell_not_finite(value: float) -> None:
    cell = CELL.copy()
    cell[1, 2] = value
    with pytest.raises(DataError, match="frame 0: its cell is not finite"):
        describe(spoiled(cell=cell))


def test_bad_frame_without_atoms() -> None:
    with pytest.raises(DataError, match="frame 1: it has no atoms"):
        describe([GOOD, (np.zeros((0, 3)), None, False, [])])


@pytest.mark.parametrize("nothing", [[], (), iter([])])
def test_bad_no_frames(nothing: Any) -> None:
    with pytest.raises(DataError, match="there are no frames to describe"):
        describe(nothing)


@pytest.mark.parametrize("k", [1, 0, -3, 2.5, "many", None, True, float("nan"), float("inf")])
def test_bad_k(k: Any) -> None:
    with pytest.raises(ValueError, match=r"k must be a whole number of at least 2, got"):
        describe(GOOD, k)


def test_whole_float_is_a_whole_number() -> None:
    np.testing.assert_array_equal(get_descriptors(GOOD, 8.0), get_descriptors(GOOD, 8))  # type: ignore[arg-type]


@pytest.mark.parametrize("cutoff", [0, -1.0, float("nan"), float("inf")])
def test_bad_cutoff(cutoff: float) -> None:
    with pytest.raises(ValueError, match="cutoff must be positive and finite, got"):
        describe(GOOD, cutoff=cutoff)


@pytest.mark.parametrize("cutoff", ["wide", None, [5.0, 6.0]])
def test_bad_cutoff_is_no_number(cutoff: Any) -> None:
    with pytest.raises(ValueError, match="cutoff must be a number, got"):
        describe(GOOD, cutoff=cutoff)


@pytest.mark.parametrize("species", ["block", "", None, "all"])
def test_bad_species(species: Any) -> None:
    with pytest.raises(ValueError, match="species must be one of none, blocks, pairs, got"):
        describe(GOOD, species=species)


@pytest.mark.parametrize(
    "dtype",
    [
        "int32",
        np.float16,
        "complex128",
        "longdouble",
        bool,
        "half a float",
    ],
)
def test_bad_dtype(dtype: Any) -> None:
    with pytest.raises(ValueError, match="dtype must be one of float64, float32, got"):
        describe(GOOD, dtype=dtype)


@pytest.mark.parametrize("jobs", [0, -1, 1.5, True, "two", float("nan"), float("inf")])
def test_bad_jobs(jobs: Any) -> None:
    with pytest.raises(ValueError, match="jobs must be a whole number of at least 1, got"):
        describe(GOOD, jobs=jobs)


@pytest.mark.parametrize("shape", [(6,), (6, 2), (3, 6), (1, 6, 3)])
def test_bad_shape_of_positions(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"frame 0: positions must have shape \(atoms, 3\), got"):
        describe([spoiled(positions=np.zeros(shape))])


@pytest.mark.parametrize(
    "parts", [{"cell": np.eye(2)}, {"cell": 5.0}, {"pbc": [True, True]}, {"pbc": [[True] * 3] * 3}]
)
def test_bad_shape_of_cell_or_pbc(parts: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"frame 0: cell must have shape \(3, 3\) and pbc \(3,\)"):
        describe(spoiled(**parts))


@pytest.mark.parametrize("numbers", [[29] * 5, [29] * 7, [[29] * 6]])
def test_bad_shape_of_numbers(numbers: Any) -> None:
    with pytest.raises(DataError, match="frame 0: 6 positions but numbers of shape"):
        describe(spoiled(numbers=numbers))


@pytest.mark.parametrize("parts", [{"positions": [["a", "b", "c"]] * 6}, {"numbers": ["Cu"] * 6}, {"cell": "cubic"}])
def test_bad_parts_that_are_no_numbers(parts: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="frame 0 holds something that is no number"):
        describe([spoiled(**parts)])


def test_bad_number_negative() -> None:
    with pytest.raises(DataError, match="frame 0, atom 2: its atomic number is negative"):
        describe(spoiled(numbers=[29, 29, -1, 29, 29, 29]))


@pytest.mark.parametrize("value", [28.7, np.nan])
def test_bad_number_broken(value: float) -> None:
    with pytest.raises(DataError, match="frame 0 holds something that is no"):
        describe(spoiled(numbers=np.array([29, 29, value, 29, 29, 29])))


@pytest.mark.parametrize("numbers", [29, None])
def test_bad_numbers_without_length(numbers: Any) -> None:
    with pytest.raises(DataError, match="frame 0"):
        describe(spoiled(numbers=numbers))


@pytest.mark.parametrize("thing", [[1, 2, 3], ["Cu"], [None], [np.zeros((3, 3))], np.zeros((4, 3)), {"a": 1}, b"Cu"])
def test_bad_something_that_is_no_structure(thing: Any) -> None:
    with pytest.raises(
        DataError, match=r"frame 0 is no structure: expected ase.Atoms or \(positions, cell, pbc, numbers\)"
    ):
        describe(thing)


@pytest.mark.parametrize("thing", [3, None, 2.5])
def test_bad_something_that_is_no_list(thing: Any) -> None:
    with pytest.raises(DataError, match=r"expected structures, got (int|NoneType|float)"):
        describe(thing)


def test_bad_name_of_a_file() -> None:
    with pytest.raises(
        DataError, match=r"expected structures, got the name 'traj\.xyz': read it first with read_frames"
    ):
        describe("traj.xyz")


def test_bad_frame_in_the_middle_of_a_stream(small_batches: None) -> None:
    with pytest.raises(DataError, match="frame 3 is no structure"):
        describe(iter([GOOD, GOOD, GOOD, "Cu", GOOD]))


def test_bad_frame_built_by_hand() -> None:
    """A Frame whose parts do not fit together must not be read beyond its end."""
    positions, cell, pbc, numbers = GOOD
    with pytest.raises(DataError, match="positions"):
        Frame(positions[:3], cell, np.array(pbc), numbers)


def test_label_names_the_frame() -> None:
    _, cell, pbc, numbers = GOOD
    frame = as_frame((np.full((6, 3), np.nan), cell, pbc, numbers), "traj.xyz, frame 17")
    with pytest.raises(DataError, match=r"^traj.xyz, frame 17, atom 0: its position is not finite"):
        describe([GOOD, frame])
    assert describe(GOOD).k == DEFAULT_K


def test_elements_fix_the_blocks() -> None:
    """Sets that are compared need the same blocks, whichever elements each holds."""
    copper = bulk("Cu", cubic=True) * 2
    alone = describe(copper, species="pairs")
    among = describe(copper, species="pairs", elements=["Zr", "Cu", "Al"])
    width = alone.x.shape[1] // 2
    assert among.elements == ("Al", "Cu", "Zr")
    assert among.x.shape[1] == 7 * width  # all, Al, Cu, Zr, Al-Cu, Al-Zr, Cu-Zr
    np.testing.assert_array_equal(among.x[:, :width], alone.x[:, :width])
    np.testing.assert_array_equal(among.x[:, 2 * width : 3 * width], alone.x[:, width:])
    assert not among.x[:, 3 * width :].any()
    with pytest.raises(DataError, match="frame 0 or a frame soon after it holds Cu, which is not among the elements"):
        describe(copper, species="blocks", elements=["Al"])
    with pytest.raises(ValueError, match="elements must be chemical symbols, got 'Xx'"):
        describe(copper, elements=["Xx"])


def test_a_cutoff_that_reaches_millions_of_atoms_is_refused() -> None:
    """A compiled search cannot be interrupted, so that it must not run for hours."""
    for cutoff in (500.0, 1e6, 1e300):
        with pytest.raises(DataError, match=r"frame 0: a cutoff of .* reaches millions of atoms"):
            describe(bulk("Cu", cubic=True), cutoff=cutoff)
    # without images it reaches no more than there are
    assert (
        describe((np.random.default_rng(0).random((50, 3)) * 9.0, None, False, [29] * 50), cutoff=1e6).n_incomplete == 0
    )
