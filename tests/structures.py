"""Small seeded structures, as plain tuples (positions, cell, pbc, numbers)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from naive import image_shifts

Array = npt.NDArray[np.float64]
Structure = tuple[Array, Array, tuple[bool, bool, bool], npt.NDArray[np.int64]]

#: All combinations of periodic axes.
ALL_PBC = [(bool(a), bool(b), bool(c)) for a in (0, 1) for b in (0, 1) for c in (0, 1)]


def gas(
    n: int,
    cell: npt.ArrayLike,
    pbc: Sequence[bool] = (True, True, True),
    numbers: Sequence[int] = (29,),
    *,
    least: float = 1.6,
    seed: int = 0,
) -> Structure:
    """`n` atoms thrown into the cell, none closer than `least` Å to another or its image; elements in turn.

    An atom alone is closer than that to its own images where the cell is small: only pairs are judged.
    """
    rng = np.random.default_rng(seed)
    lattice = np.asarray(cell, dtype=np.float64)
    vectors, duals, shifts = image_shifts(lattice, pbc, least)
    placed: list[Array] = []
    for _ in range(20_000):
        if len(placed) == n:
            break
        trial = rng.random(3) @ lattice
        if placed:
            straight = np.array(placed) - trial
            straight -= np.rint(straight @ duals.T) @ vectors
            if ((straight[:, None, :] + shifts) ** 2).sum(axis=2).min() < least * least:
                continue
        placed.append(trial)
    assert len(placed) == n, "the cell is too full"
    kinds = np.array([numbers[i % len(numbers)] for i in range(n)], dtype=np.int64)
    return np.array(placed), lattice, (bool(pbc[0]), bool(pbc[1]), bool(pbc[2])), kinds


def fcc(a: float = 3.615, repeat: tuple[int, int, int] = (2, 2, 2), rattle: float = 0.0, seed: int = 0) -> Structure:
    """Cubic fcc copper, perfect or rattled."""
    basis = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    corners = np.array([[x, y, z] for x in range(repeat[0]) for y in range(repeat[1]) for z in range(repeat[2])])
    positions = a * (corners[:, None, :] + basis).reshape(-1, 3)
    positions = positions + rattle * np.random.default_rng(seed).normal(size=positions.shape)
    return positions, np.diag(a * np.array(repeat, dtype=float)), (True, True, True), np.full(len(positions), 29)


def molecule(name: str = "CH3CH2OH") -> Structure:
    """A molecule of the G2 set, without cell, slightly bent so that no two distances are equal."""
    from ase.build import molecule as build

    atoms = build(name)
    positions = atoms.positions + 0.02 * np.random.default_rng(1).normal(size=atoms.positions.shape)
    return positions, np.zeros((3, 3)), (False, False, False), atoms.numbers.astype(np.int64)


def rotation(seed: int, *, mirrored: bool = False) -> Array:
    """A random rotation matrix (determinant 1), or rotation and reflection (-1)."""
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    if (np.linalg.det(q) < 0) != mirrored:
        q[:, 0] *= -1.0
    return q


def unimodular(size: int, rng: np.random.Generator, strength: int = 2) -> npt.NDArray[np.int64]:
    """A random integer matrix of determinant +1 or -1: another choice of vectors for the same lattice."""
    lower = np.tril(rng.integers(-strength, strength + 1, size=(size, size)), -1) + np.eye(size, dtype=np.int64)
    upper = np.triu(rng.integers(-strength, strength + 1, size=(size, size)), 1) + np.eye(size, dtype=np.int64)
    return (lower @ upper)[rng.permutation(size)] * rng.choice([-1, 1])


def repeated(structure: Structure, repeat: tuple[int, int, int]) -> Structure:
    """Supercell; the atoms of the first copy come first, in their order."""
    positions, cell, pbc, numbers = structure
    shifts = [
        x * cell[0] + y * cell[1] + z * cell[2]
        for x in range(repeat[0])
        for y in range(repeat[1])
        for z in range(repeat[2])
    ]
    copies = np.concatenate([positions + shift for shift in shifts])
    return copies, cell * np.array(repeat)[:, None], pbc, np.tile(numbers, len(shifts))


def as_atoms(structure: Structure) -> Any:
    """The same as ``ase.Atoms``."""
    from ase import Atoms

    positions, cell, pbc, numbers = structure
    return Atoms(numbers=numbers, positions=positions, cell=cell, pbc=pbc)
