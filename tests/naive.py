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


# --- compression ------------------------------------------------------------------------------------------------------

#: Scores that differ by less, nats, are equal; the structure of the lowest index comes first.
SAME = 1e-9

#: Means that differ by less, relative to them, are equal.
MEANS_APART = 1e-13

Selected = tuple[list[int], list[float]]


def labelled_delta_entropy(
    y: npt.ArrayLike, y_labels: Sequence[int], x: npt.ArrayLike, x_labels: Sequence[int], h: float
) -> Array:
    """dH(y | x) where environments of different labels do not see each other: infinite where x has none of a label."""
    queries, references = np.asarray(y, dtype=np.float64), np.asarray(x, dtype=np.float64)
    out = np.empty(len(queries))
    for i in range(len(queries)):
        mine = np.asarray(x_labels) == y_labels[i]
        out[i] = delta_entropy(queries[i : i + 1], references[mine], h)[0] if mine.any() else math.inf
    return out


def own_entropy(x: npt.ArrayLike, labels: Sequence[int], h: float) -> float:
    """H of one structure, whose environments of different labels do not see each other."""
    return math.fsum(labelled_delta_entropy(x, labels, x, labels, h).tolist()) / len(labels) + math.log(len(labels))


def covered_share(x: npt.ArrayLike, labels: Sequence[int], known: npt.ArrayLike, known_labels: Sequence[int], h: float,
                  eps: float = 1e-5) -> float:  # fmt: skip
    """Share of the environments x whose dH given those that are known is below eps."""
    return float((labelled_delta_entropy(x, labels, known, known_labels, h) < eps).mean())


def log_value(
    method: str, one: Array, one_labels: Sequence[int], chosen: Sequence[Array], chosen_labels: Sequence[Sequence[int]],
    h: float,
) -> float:  # fmt: skip
    """What one structure is worth given those chosen: the largest dH, the sum of all that are positive, or ln of the
    distance to the nearest of them.
    """
    if not chosen:
        return math.inf
    if method in ("msc", "msc_sum"):
        known, labels = np.concatenate(chosen), [label for part in chosen_labels for label in part]
        dh = labelled_delta_entropy(one, one_labels, known, labels, h).tolist()
        return max(dh) if method == "msc" else math.fsum(value for value in dh if value > 0.0)
    least = math.inf
    for other in chosen:
        if method == "fps":
            distances = [math.dist(a, b) for a in one.tolist() for b in other.tolist()]
            least = min(least, math.fsum(distances) / len(distances))
        else:
            a, b = mean_row(one), mean_row(other)
            apart = math.dist(a, b)
            least = min(least, apart if apart > MEANS_APART * (math.hypot(*a) + math.hypot(*b)) else 0.0)
    return math.log(least) if least > 0.0 else -math.inf


def mean_row(x: Array) -> list[float]:
    """The mean of each column."""
    return [math.fsum(column) / len(column) for column in x.T.tolist()]


def select(
    method: str,
    structures: Sequence[Array],
    h: float,
    limit: float,
    *,
    amounts: Sequence[float] | None = None,
    labels: Sequence[Sequence[int]] | None = None,
    reference: Array | None = None,
    reference_labels: Sequence[int] | None = None,
    bonus: Sequence[float] | None = None,
    keep: Sequence[int] = (),
    by: Sequence[int] | None = None,
    targets: Sequence[float] | None = None,
) -> Selected:
    """Structures and their scores, by evaluating every candidate at every step. Methods: msc, msc_sum, fps, mean_fps.

    `amounts` is what each structure counts, 1 if not given, and `limit` what they may add up to. `bonus` is added to
    scores, but not reported. `by` are groups, of which that comes next which got least in relation to its target.
    """
    n = len(structures)
    marks = [[0] * len(x) for x in structures] if labels is None else labels
    counts = [1.0] * n if amounts is None else list(amounts)
    extra = [0.0] * n if bonus is None else list(bonus)
    own = [own_entropy(x, mark, h) for x, mark in zip(structures, marks, strict=True)]
    given = [reference] if reference is not None else []
    given_marks = [reference_labels or [0] * len(reference)] if reference is not None else []
    chosen, scores = list(keep), [math.nan] * len(keep)
    while True:
        left = limit - sum(counts[s] for s in chosen)
        allowed = [s for s in range(n) if s not in chosen and counts[s] <= left + SAME * limit]
        if by is not None and targets is not None and allowed:
            got = [sum(counts[s] for s in chosen if by[s] == g) / target for g, target in enumerate(targets)]
            least = min({by[s] for s in allowed}, key=lambda group: (got[group], group))
            allowed = [s for s in allowed if by[s] == least]
        if not allowed:
            return chosen, scores
        known = [*given, *(structures[s] for s in chosen)]
        known_marks = [*given_marks, *(marks[s] for s in chosen)]
        value = {s: log_value(method, structures[s], marks[s], known, known_marks, h) for s in allowed}
        unlike = [s for s in allowed if value[s] == math.inf]
        if unlike:  # like nothing chosen: what they hold by themselves decides
            rank = {s: own[s] + extra[s] for s in unlike}
        else:
            rank = {s: value[s] + (own[s] if method in ("msc", "msc_sum") else 0.0) + extra[s] for s in allowed}
        top = max(rank.values())
        best = min(s for s in rank if rank[s] >= top - SAME)
        chosen.append(best)
        if method in ("msc", "msc_sum"):
            scores.append(value[best] + own[best])
        else:
            scores.append(math.exp(value[best]) if value[best] < math.inf else math.nan)
