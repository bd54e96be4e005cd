"""Slow twins: the formulas of the package, written down as they stand and nothing else.

Plain loops over atoms, one image of one atom at a time where it costs nothing, NumPy where a loop would only hide the
formula. Nothing here imports the package that it judges.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import cmp_to_key
from typing import Any

import numpy as np
import numpy.typing as npt
from ase.data import chemical_symbols

Array = npt.NDArray[np.float64]

#: Distances closer than this (Å) are equal, and so are components of displacements.
TIE = 1e-8


# --- environments -----------------------------------------------------------------------------------------------------


def weight(r: float, cutoff: float) -> float:
    """w(r) = (1 - (r / r_c)^2)^2 inside the cutoff, 0 outside."""
    return (1.0 - (r / cutoff) ** 2) ** 2 if r <= cutoff else 0.0


def image_shifts(cell: Array, pbc: Sequence[bool], reach: float) -> tuple[Array, Array, Array]:
    """Periodic vectors A (p, 3), their duals B (p, 3) with A B^T = 1, and all lattice shifts that matter.

    A displacement v with |v| <= reach has |v . b| <= reach |b| for each dual vector b. Once v . b has been brought
    into [-1/2, 1/2], no image further than ceil(reach |b| + 1/2) turns along that axis can lie within reach.
    """
    vectors = np.asarray(cell, dtype=np.float64)[np.asarray(pbc, dtype=bool)]
    if len(vectors) == 0:
        return np.zeros((0, 3)), np.zeros((0, 3)), np.zeros((1, 3))
    duals = np.linalg.pinv(vectors).T
    turns = [math.ceil(reach * math.sqrt(b @ b) + 0.5) for b in duals]
    steps = itertools.product(*(range(-t, t + 1) for t in turns))
    return vectors, duals, np.array(list(steps), dtype=np.float64) @ vectors


def neighbours(
    positions: npt.ArrayLike, cell: npt.ArrayLike | None, pbc: Sequence[bool], cutoff: float
) -> list[list[tuple[float, Array, int]]]:
    """For each atom its neighbours inside the cutoff (distance, displacement, index), nearest first.

    Images along periodic axes only; an atom is no neighbour of itself, but its images are. Distances that are equal
    within `TIE` are ordered by displacement, x before y before z, components within `TIE` being equal.
    """
    points = np.asarray(positions, dtype=np.float64)
    lattice = np.zeros((3, 3)) if cell is None else np.asarray(cell, dtype=np.float64)
    vectors, duals, shifts = image_shifts(lattice, pbc, cutoff)
    environments = []
    for i in range(len(points)):
        found = []
        for j in range(len(points)):
            straight = points[j] - points[i]
            straight = straight - np.rint(duals @ straight) @ vectors
            images = straight + shifts
            lengths = np.sqrt((images**2).sum(axis=1))
            itself = int(np.argmin(lengths)) if i == j else -1
            found += [(float(lengths[s]), images[s], j) for s in np.flatnonzero(lengths < cutoff) if s != itself]
        environments.append(_in_order(found))
    return environments


def _in_order(found: list[tuple[float, Array, int]]) -> list[tuple[float, Array, int]]:
    found = sorted(found, key=lambda neighbour: neighbour[0])
    ordered: list[tuple[float, Array, int]] = []
    while found:
        n = 1
        while n < len(found) and found[n][0] - found[n - 1][0] < TIE:
            n += 1
        ordered += sorted(found[:n], key=cmp_to_key(_by_displacement))
        found = found[n:]
    return ordered


def _by_displacement(a: tuple[float, Array, int], b: tuple[float, Array, int]) -> int:
    for p, q in zip(a[1], b[1], strict=True):
        if abs(p - q) > TIE:
            return -1 if p < q else 1
    return 0


def block(environment: list[tuple[float, Array, int]], k: int, cutoff: float) -> Array:
    """One block [X1, X2] of one environment, from its neighbours, nearest first. Shape (2k - 1,)."""
    nearest = environment[:k]
    m = len(nearest)
    x1, x2 = np.zeros(k), np.zeros(k - 1)
    for j, (r_j, _, _) in enumerate(nearest):
        x1[j] = weight(r_j, cutoff) / r_j
    if m > 0:
        displacements = np.array([v for _, v, _ in nearest])
        root_w = np.sqrt([weight(r_j, cutoff) for r_j, _, _ in nearest])
    for j in range(m):
        row = []
        for l in range(m):
            if l == j:
                row.append(0.0)
            else:
                r_jl = math.sqrt(((displacements[j] - displacements[l]) ** 2).sum())
                row.append(root_w[j] * root_w[l] / r_jl)
        row.sort(reverse=True)
        for l in range(min(m, k - 1)):
            x2[l] += row[l] / k
    return np.concatenate([x1, x2])


def descriptor(
    positions: npt.ArrayLike,
    cell: npt.ArrayLike | None,
    pbc: Sequence[bool],
    k: int,
    cutoff: float,
    numbers: Sequence[int] | npt.NDArray[Any] | None = None,
    species: str = "none",
    elements: Sequence[str] | None = None,
) -> Array:
    """Descriptors of all atoms of one frame, one row per atom.

    `species` is none, blocks (all, then one block per element) or pairs (also one per unordered pair). `elements`
    names all elements of a run where this frame holds only some of them.
    """
    environments = neighbours(positions, cell, pbc, cutoff)
    if species == "none":
        return np.array([block(environment, k, cutoff) for environment in environments])
    assert numbers is not None
    symbols = [chemical_symbols[int(z)] for z in numbers]
    present = sorted(set(symbols if elements is None else elements))
    names: list[tuple[str, ...]] = [(), *((a,) for a in present)]
    if species == "pairs":
        names += list(itertools.combinations(present, 2))
    rows = []
    for i, environment in enumerate(environments):
        row = []
        for name in names:
            if not name:
                partners = set(symbols)
            elif symbols[i] not in name:
                partners = set()
            elif len(name) == 1:
                partners = {name[0]}
            else:
                partners = set(name) - {symbols[i]}
            row.append(block([n for n in environment if symbols[n[2]] in partners], k, cutoff))
        rows.append(np.concatenate(row))
    return np.array(rows)


def count_tied(positions: npt.ArrayLike, cell: npt.ArrayLike | None, pbc: Sequence[bool], k: int, cutoff: float) -> int:
    """Number of environments whose k-th and (k+1)-th neighbour, both inside the cutoff, are equally far."""
    tied = 0
    for environment in neighbours(positions, cell, pbc, cutoff):
        if len(environment) > k and environment[k][0] - environment[k - 1][0] < TIE:
            tied += 1
    return tied


# --- kernel sums ------------------------------------------------------------------------------------------------------


def log_sum_exp(exponents: Sequence[float]) -> float:
    """ln sum_j exp(v_j), for exponents of any size."""
    top = max(exponents, default=-math.inf)
    if math.isinf(top):
        return top
    return top + math.log(math.fsum(math.exp(v - top) for v in exponents))


def log_density(y: npt.ArrayLike, x: npt.ArrayLike, h: float, weights: npt.ArrayLike | None = None) -> Array:
    """ln p(y) with p(y) = sum_j omega_j exp(-|y - x_j|^2 / (2 h^2)), for each row of `y`."""
    queries, references = np.asarray(y, dtype=np.float64), np.asarray(x, dtype=np.float64)
    omega = np.ones(len(references)) if weights is None else np.asarray(weights, dtype=np.float64)
    out = np.empty(len(queries))
    for i in range(len(queries)):
        squared = ((references - queries[i]) ** 2).sum(axis=1)
        out[i] = log_sum_exp(
            [
                math.log(w) - d2 / (2.0 * h * h)
                for w, d2 in zip(omega.tolist(), squared.tolist(), strict=True)
                if w > 0.0
            ]
        )
    return out


def entropy(x: npt.ArrayLike, h: float) -> float:
    """H = -(1/N) sum_i ln(p(x_i) / N), nats."""
    n = len(np.asarray(x))
    return -math.fsum(value - math.log(n) for value in log_density(x, x, h).tolist()) / n


def diversity(x: npt.ArrayLike, h: float) -> float:
    """D = ln sum_i 1 / p(x_i), nats."""
    return log_sum_exp([-value for value in log_density(x, x, h).tolist()])


def delta_entropy(y: npt.ArrayLike, x: npt.ArrayLike, h: float) -> Array:
    """dH(y | x) = -ln p(y), nats, for each row of `y`."""
    return -log_density(y, x, h)
