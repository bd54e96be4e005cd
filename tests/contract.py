"""What every descriptor of atoms promises. A new one opts in with one line: ``check_descriptor(fn, cutoff=5.0)``."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import structures
from structures import Array, Structure

Descriptor = Callable[[Structure], npt.NDArray[np.floating]]
Rows = npt.NDArray[np.int64]
Change = Callable[[Structure, int], tuple[Structure, Rows]]


# --- changes that mean nothing: each returns the changed structure, and for each of its rows the old one it must equal


def rotate(structure: Structure, seed: int) -> tuple[Structure, Rows]:
    """Positions and cell, by the same random rotation."""
    positions, cell, pbc, numbers = structure
    q = structures.rotation(seed)
    return (positions @ q, cell @ q, pbc, numbers), np.arange(len(positions))


def reflect(structure: Structure, seed: int) -> tuple[Structure, Rows]:
    """Positions and cell, by the same random rotation and reflection."""
    positions, cell, pbc, numbers = structure
    q = structures.rotation(seed, mirrored=True)
    return (positions @ q, cell @ q, pbc, numbers), np.arange(len(positions))


def translate(structure: Structure, seed: int) -> tuple[Structure, Rows]:
    """All positions by some Å; the cell stays."""
    positions, cell, pbc, numbers = structure
    shift = 10.0 * np.random.default_rng(seed).normal(size=3)
    return (positions + shift, cell, pbc, numbers), np.arange(len(positions))


def relabel(structure: Structure, seed: int) -> tuple[Structure, Rows]:
    """Another order of the atoms."""
    positions, cell, pbc, numbers = structure
    order = np.random.default_rng(seed).permutation(len(positions))
    return (positions[order], cell, pbc, numbers[order]), order


def unwrap(structure: Structure, seed: int) -> tuple[Structure, Rows]:
    """Each atom by its own whole number of lattice vectors, along periodic axes."""
    positions, cell, pbc, numbers = structure
    turns = np.random.default_rng(seed).integers(-3, 4, size=(len(positions), 3)) * np.array(pbc)
    return (positions + turns @ np.where(np.array(pbc)[:, None], cell, 0.0), cell, pbc, numbers), np.arange(
        len(positions)
    )


def choose_cell(structure: Structure, seed: int) -> tuple[Structure, Rows]:
    """Other vectors for the same lattice, in another order, right- or left-handed."""
    positions, cell, pbc, numbers = structure
    rng = np.random.default_rng(seed)
    periodic = np.flatnonzero(pbc)
    chosen = cell.copy()
    chosen[periodic] = structures.unimodular(len(periodic), rng) @ cell[periodic]
    order = rng.permutation(3)
    flags = np.array(pbc)[order].tolist()
    return (positions, chosen[order], (flags[0], flags[1], flags[2]), numbers), np.arange(len(positions))


def repeat(structure: Structure, seed: int) -> tuple[Structure, Rows]:
    """A supercell, along periodic axes."""
    times = [1, 1, 1]
    for axis in np.flatnonzero(structure[2]):
        times[axis] = 1 + (seed >> int(axis)) % 2
    bigger = structures.repeated(structure, (times[0], times[1], times[2]))
    return bigger, np.tile(np.arange(len(structure[0])), len(bigger[0]) // len(structure[0]))


CHANGES: dict[str, Change] = {
    "rotation": rotate,
    "reflection": reflect,
    "translation": translate,
    "relabelling": relabel,
    "wrapping": unwrap,
    "cell choice": choose_cell,
    "supercell": repeat,
}


# --- the contract -----------------------------------------------------------------------------------------------------


def samples() -> list[Structure]:
    """Bulk, triclinic alloy, left-handed slab, wire, molecule: no equal distances anywhere."""
    cell = np.array([[6.4, 0.3, -0.2], [1.7, 6.1, 0.4], [-1.1, 1.9, 6.6]])
    return [
        structures.fcc(repeat=(1, 2, 2), rattle=0.1, seed=1),
        structures.gas(9, cell, (True, True, True), (29, 47), seed=2),
        structures.gas(9, cell[[1, 0, 2]], (True, True, False), (29, 47), seed=3),
        structures.gas(7, cell, (False, True, False), seed=4),
        structures.molecule(),
    ]


def assert_unchanged(fn: Descriptor, structure: Structure, name: str, seed: int, atol: float) -> None:
    """One of `CHANGES` leaves each row as it was."""
    changed, rows = CHANGES[name](structure, seed)
    before, after = fn(structure), fn(changed)
    np.testing.assert_allclose(after, before[rows], rtol=0.0, atol=atol, err_msg=f"not invariant under {name}")


def assert_input_unmodified(fn: Descriptor, structure: Structure) -> None:
    """The caller's arrays are left alone, and may be read-only."""
    positions, cell, pbc, numbers = structure
    kept = positions.copy(), cell.copy(), numbers.copy()
    first = fn(structure)
    for name, array, copy in zip(("positions", "cell", "numbers"), (positions, cell, numbers), kept, strict=True):
        assert np.array_equal(array, copy), f"the input was modified: {name}"
    for copy in kept:
        copy.setflags(write=False)
    assert np.array_equal(fn((kept[0], kept[1], pbc, kept[2])), first), "read-only input gives another result"
    assert not np.shares_memory(first, positions)


def assert_smooth(fn: Descriptor, cutoff: float, atol: float, steepness: float) -> None:
    """An atom that crosses the cutoff sphere, or moves a little anywhere, changes no component by a jump."""
    triangle = np.array([[0.0, 0.0, 0.0], [0.31 * cutoff, 0.0, 0.0], [0.1 * cutoff, 0.37 * cutoff, 0.0]])
    direction = np.array([-0.36, -0.48, 0.8])  # away from the others, so that atom 0 loses it last
    numbers = np.array([29, 29, 29, 29])

    def at(distance: float) -> Array:
        points = np.concatenate([triangle, [direction * distance]])
        return np.asarray(fn((points, np.zeros((3, 3)), (False, False, False), numbers)), dtype=np.float64)

    for distance in (cutoff, 0.4 * cutoff, 0.9 * cutoff):
        for step in (1e-2, 1e-3, 1e-4, 1e-5):
            jump = np.abs(at(distance + step) - at(distance - step)).max()
            assert jump <= steepness * 2 * step + atol, f"not smooth at {distance:g} Å: {jump:g} within {2 * step:g} Å"
    three = fn((triangle, np.zeros((3, 3)), (False, False, False), numbers[:3]))
    beyond = at(1.1 * cutoff)
    np.testing.assert_allclose(beyond[:3], three, rtol=0.0, atol=atol, err_msg="an atom beyond the cutoff is seen")


def check_descriptor(fn: Descriptor, *, cutoff: float, atol: float = 1e-10, steepness: float = 10.0) -> None:
    """The whole contract.

    Parameters
    ----------
    fn : callable
        From a structure (positions, cell, pbc, numbers) to one row per atom.
    cutoff : float
        Atoms beyond this distance (Å) are not seen.
    atol : float
        Rounding that is allowed.
    steepness : float
        Largest slope of a component with the position of one atom, 1/Å per Å.
    """
    for number, structure in enumerate(samples()):
        x = fn(structure)
        assert x.ndim == 2, "a descriptor is a matrix"
        assert len(x) == len(structure[0]), "one row per atom"
        assert np.isfinite(x).all(), "all components are finite"
        assert_input_unmodified(fn, structure)
        assert np.array_equal(fn(structure), x), "the same input gives the same bits"
        for name in CHANGES:
            for seed in range(7 * number, 7 * number + 3):
                assert_unchanged(fn, structure, name, seed, atol)
    assert_smooth(fn, cutoff, atol, steepness)
