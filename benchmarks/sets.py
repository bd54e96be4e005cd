"""Sets of environments for the benchmarks of densities, of any size, made from fixed seeds.

*Thermal crystal*: fcc copper with Gaussian displacements. Many environments resemble each other, kernels overlap.
*Rattled silicon*: copies of mlearn's silicon training set, displaced anew each time. Few structures, wide variety.
*Liquid-like*: random points pushed apart until none are closer than 2.2 Å. Almost nothing resembles anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from ase import Atoms
from ase.build import bulk
from ase.io import iread
from scipy.spatial import cKDTree

from quests_zenn.descriptors import get_descriptors


def thermal_crystal(n: int, displacement: float = 0.1, seed: int = 0) -> Atoms:
    """At least n atoms of copper, each displaced by a Gaussian (Å per axis)."""
    repeats = int(np.ceil((n / 4.0) ** (1.0 / 3.0)))
    atoms = bulk("Cu", cubic=True).repeat(repeats)
    atoms.positions += np.random.default_rng(seed).normal(scale=displacement, size=atoms.positions.shape)
    return atoms


def rattled(path: Path, n: int, displacement: float = 0.05, seed: int = 0) -> Iterator[Atoms]:
    """Frames of a file over and over, displaced anew each time, until there are n atoms."""
    rng, frames, done = np.random.default_rng(seed), list(iread(path)), 0
    while done < n:
        for frame in frames:
            atoms = frame.copy()
            atoms.positions += rng.normal(scale=displacement, size=atoms.positions.shape)
            yield atoms
            done += len(atoms)
            if done >= n:
                return


def liquid_like(n: int, closest: float = 2.2, volume: float = 12.6, seed: int = 0) -> Atoms:
    """n atoms of copper at random, pushed apart until (almost) none are closer than `closest` Å."""
    rng = np.random.default_rng(seed)
    side = (n * volume) ** (1.0 / 3.0)
    positions = rng.uniform(0.0, side, size=(n, 3))
    for _ in range(60):
        pairs = cKDTree(positions, boxsize=side).query_pairs(closest, output_type="ndarray")
        if len(pairs) == 0:
            break
        vectors = positions[pairs[:, 0]] - positions[pairs[:, 1]]
        vectors -= side * np.round(vectors / side)
        distances = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)
        push = 0.55 * (closest - distances) / distances * vectors
        for axis in range(3):
            positions[:, axis] += np.bincount(pairs[:, 0], push[:, axis], n) - np.bincount(
                pairs[:, 1], push[:, axis], n
            )
        positions %= side
        positions[positions >= side] = 0.0
    return Atoms(f"Cu{n}", positions=positions, cell=[side] * 3, pbc=True)


def environments(
    name: str, n: int, data: Path | None, dtype: str = "float32", seed: int = 0
) -> npt.NDArray[np.floating]:
    """n environments of the set called ``crystal``, ``silicon``, ``liquid``, or of a file of `data`."""
    if name == "crystal":
        x = get_descriptors(thermal_crystal(n, seed=seed), dtype=dtype)
    elif name == "liquid":
        x = get_descriptors(liquid_like(n, seed=seed), dtype=dtype)
    elif data is None:
        raise SystemExit("set QUESTS_ZENN_DATA to the folder with the data sets")
    elif name == "silicon":
        x = get_descriptors(rattled(data / "mlearn_Si_train.xyz", n, seed=seed), dtype=dtype)
    else:
        x = get_descriptors(iread(data / f"{name}.xyz"), dtype=dtype)
    return x[:n]
