"""Cell lists: frames of any size and any mix of periodic axes, sorted into bins in O(N)."""

from __future__ import annotations

import math

import numpy as np

from quests_zenn._core.jit import strict_kernel

#: Status of a frame after `sort_into_bins`.
OK, FLAT_CELL, CROWDED = 0, 1, 2

#: Lattice planes closer than this (Å) are no lattice of atoms; it also bounds the number of images visited.
MIN_PLANE_DISTANCE = 0.05

#: Atoms (images included) around one atom beyond which a cutoff is a mistake: their search would take seconds per atom.
MOST_CANDIDATES = 2_000_000.0

#: Bins along one axis never exceed this, however sparse the frame.
MAX_BINS_PER_AXIS = 1_000_000.0


@strict_kernel
def cross(a, b, out):
    """out = a x b, each of shape (3,)."""
    out[0] = a[1] * b[2] - a[2] * b[1]
    out[1] = a[2] * b[0] - a[0] * b[2]
    out[2] = a[0] * b[1] - a[1] * b[0]


@strict_kernel
def dot(a, b):
    """Scalar product of two vectors of shape (3,)."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@strict_kernel
def reduce_lattice(lattice, periodic):
    """Shorten the periodic vectors by pairwise (Gauss) reduction, in place; the lattice stays the same.

    Skewed cells have lattice planes far closer than atoms are, so that a search would visit thousands of images;
    after the reduction the planes are about as far apart as the vectors are long.
    """
    for _ in range(100):
        changed = False
        for a in range(3):
            for b in range(3):
                if a == b or not (periodic[a] and periodic[b]):
                    continue
                length2 = dot(lattice[b], lattice[b])
                if length2 == 0.0:
                    continue
                times = np.rint(dot(lattice[a], lattice[b]) / length2)
                if times == 0.0 or not math.isfinite(times):
                    continue
                before = dot(lattice[a], lattice[a])
                shorter = lattice[a] - times * lattice[b]
                if dot(shorter, shorter) < before * (1.0 - 1e-12):
                    lattice[a] = shorter
                    changed = True
        if not changed:
            return


@strict_kernel
def complete_lattice(lattice, periodic):
    """Replace the vectors of non-periodic axes by unit vectors orthogonal to all others, in place.

    Distances along a non-periodic axis are then plain lengths, and wrapping along the periodic axes leaves them
    alone, whatever vector (or zero) the file holds there.
    """
    for a in range(3):
        if not periodic[a]:
            lattice[a] = 0.0
    known = np.zeros((3, 3))
    n_known = 0
    for a in range(3):
        if periodic[a]:
            residue = lattice[a].copy()
            for q in range(n_known):
                residue -= dot(residue, known[q]) * known[q]
            length = math.sqrt(dot(residue, residue))
            if length > 0.0:
                known[n_known] = residue / length
                n_known += 1
    for a in range(3):
        if periodic[a]:
            continue
        best = np.zeros(3)
        best_length2 = -1.0
        for axis in range(3):
            trial = np.zeros(3)
            trial[(a + axis) % 3] = 1.0
            for q in range(n_known):
                trial -= dot(trial, known[q]) * known[q]
            length2 = dot(trial, trial)
            if length2 > best_length2 + 1e-9:
                best_length2 = length2
                best = trial / math.sqrt(max(length2, 1e-300))
        lattice[a] = best
        known[n_known] = best
        n_known += 1


@strict_kernel
def invert(lattice, inverse):
    """inverse = lattice^-1 (3, 3), so that fractional = cartesian @ inverse. False where it is singular."""
    column = np.empty(3)
    cross(lattice[1], lattice[2], column)
    volume = dot(lattice[0], column)
    if not math.isfinite(volume) or volume == 0.0:
        return False
    for a in range(3):
        cross(lattice[(a + 1) % 3], lattice[(a + 2) % 3], column)
        for c in range(3):
            inverse[c, a] = column[c] / volume
    return True


@strict_kernel
def choose_bins(extent, width, periodic, n_atoms, shape, reach, cutoff):
    """Number of bins per axis (at most `n_atoms` in all) and how many bins away a neighbour can be."""
    for a in range(3):
        shape[a] = max(1, int(min(math.floor(extent[a] / width), MAX_BINS_PER_AXIS)))
    while shape[0] * shape[1] * shape[2] > max(n_atoms, 1):
        longest = 0
        for a in range(1, 3):
            if shape[a] > shape[longest]:
                longest = a
        # a fifth at a time: fast, yet close to the largest grid allowed
        shape[longest] = max(1, (shape[longest] * 4) // 5)
    for a in range(3):
        if periodic[a]:
            reach[a] = math.ceil(min(cutoff * shape[a] / extent[a], MAX_BINS_PER_AXIS))
        else:
            reach[a] = 0 if shape[a] == 1 else math.ceil(cutoff * shape[a] / extent[a])


@strict_kernel
def first_strange(positions, numbers, first, last, farthest):
    """First of the atoms [first, last) that is no finite place within `farthest`, or of a negative number; or -1."""
    for i in range(first, last):
        if numbers[i] < 0:
            return i
        for c in range(3):
            if not abs(positions[i, c]) <= farthest:  # NaN neither
                return i
    return -1


@strict_kernel
def sort_into_bins(
    first,
    last,
    positions,
    offsets,
    cells,
    pbc,
    cutoff,
    lattices,
    shapes,
    reaches,
    bin_starts,
    xyz,
    order,
    atom_bin,
    status,
):
    """Wrap and sort the atoms of frames [first, last) into bins no narrower than the cutoff.

    Parameters
    ----------
    positions : (N, 3); offsets : (F + 1,); cells : (F, 3, 3); pbc : (F, 3)
        The frames, concatenated.
    lattices : (F, 3, 3); shapes, reaches : (F, 3)
        Filled: reduced lattice, bins per axis, bins to visit to each side.
    bin_starts : (N + F,)
        Filled: frame f's bins begin at ``offsets[f] + f``; each entry is an index into the sorted atoms, with one
        entry past the last bin. (There are never more bins than atoms.)
    xyz : (3, N); order, atom_bin : (N,)
        Filled: wrapped positions, input index and bin of each atom, in sorted order. Stable within a bin.
    status : (F,)
        Filled: `OK`, `FLAT_CELL`, or `CROWDED` where the cutoff reaches more than `MOST_CANDIDATES`.
    """
    inverse = np.empty((3, 3))
    low, high, extent = np.empty(3), np.empty(3), np.empty(3)
    for f in range(first, last):
        start, stop = offsets[f], offsets[f + 1]
        n_atoms = stop - start
        lattice = lattices[f]
        lattice[:] = cells[f]
        periodic = pbc[f]
        reduce_lattice(lattice, periodic)
        complete_lattice(lattice, periodic)
        if not invert(lattice, inverse):
            status[f] = FLAT_CELL
            continue
        status[f] = OK
        for a in range(3):
            distance = 1.0 / math.sqrt(inverse[0, a] ** 2 + inverse[1, a] ** 2 + inverse[2, a] ** 2)
            if periodic[a] and not distance > MIN_PLANE_DISTANCE:
                status[f] = FLAT_CELL
            extent[a] = distance
        if status[f] != OK:
            continue

        wrapped = np.empty((n_atoms, 3))
        fractional = np.empty((n_atoms, 3))
        low[:] = np.inf
        high[:] = -np.inf
        for i in range(n_atoms):
            p = positions[start + i]
            for a in range(3):
                fractional[i, a] = p[0] * inverse[0, a] + p[1] * inverse[1, a] + p[2] * inverse[2, a]
                wrapped[i, a] = p[a]
            for a in range(3):
                if periodic[a]:
                    turns = math.floor(fractional[i, a])
                    if turns != 0.0:
                        fractional[i, a] -= turns
                        for c in range(3):
                            wrapped[i, c] -= turns * lattice[a, c]
                low[a] = min(low[a], fractional[i, a])
                high[a] = max(high[a], fractional[i, a])
        for a in range(3):
            if periodic[a]:
                low[a], high[a] = 0.0, 1.0
            else:
                extent[a] = max(high[a] - low[a], 1e-3)

        shape, reach = shapes[f], reaches[f]
        choose_bins(extent, cutoff, periodic, n_atoms, shape, reach, cutoff)
        n_bins = shape[0] * shape[1] * shape[2]
        candidates = n_atoms / n_bins
        for a in range(3):
            candidates *= 2.0 * reach[a] + 1.0
        if candidates > MOST_CANDIDATES:
            status[f] = CROWDED
            continue
        starts = bin_starts[start + f : start + f + n_bins + 1]
        starts[:] = 0
        own = np.empty(n_atoms, np.int64)
        for i in range(n_atoms):
            flat = 0
            for a in range(3):
                scale = 1.0 if periodic[a] else extent[a]
                place = int((fractional[i, a] - low[a]) / scale * shape[a])
                flat = flat * shape[a] + min(max(place, 0), shape[a] - 1)
            own[i] = flat
            starts[flat + 1] += 1
        for b in range(n_bins):
            starts[b + 1] += starts[b]
        cursor = starts[:n_bins].copy()
        for i in range(n_atoms):
            to = start + cursor[own[i]]
            cursor[own[i]] += 1
            order[to] = start + i
            atom_bin[to] = own[i]
            for a in range(3):
                xyz[a, to] = wrapped[i, a]
        starts += start


@strict_kernel
def count_candidates(bin_index, shape, reach, periodic, starts):
    """Atoms (images included) in the bins around `bin_index`."""
    iz = bin_index % shape[2]
    iy = (bin_index // shape[2]) % shape[1]
    ix = bin_index // (shape[2] * shape[1])
    total = 0
    for dx in range(-reach[0], reach[0] + 1):
        jx = ix + dx
        if not periodic[0] and (jx < 0 or jx >= shape[0]):
            continue
        for dy in range(-reach[1], reach[1] + 1):
            jy = iy + dy
            if not periodic[1] and (jy < 0 or jy >= shape[1]):
                continue
            for dz in range(-reach[2], reach[2] + 1):
                jz = iz + dz
                if not periodic[2] and (jz < 0 or jz >= shape[2]):
                    continue
                b = ((jx % shape[0]) * shape[1] + jy % shape[1]) * shape[2] + jz % shape[2]
                total += starts[b + 1] - starts[b]
    return total


@strict_kernel
def gather_candidates(bin_index, shape, reach, periodic, starts, lattice, xyz, candidates, candidate_atom):
    """Copy the atoms around `bin_index`, shifted to their images, into `candidates` (3, capacity).

    `candidate_atom` receives sorted indices. Returns the number of candidates, and where the bin itself begins.
    """
    iz = bin_index % shape[2]
    iy = (bin_index // shape[2]) % shape[1]
    ix = bin_index // (shape[2] * shape[1])
    n = 0
    home = 0
    for dx in range(-reach[0], reach[0] + 1):
        jx = ix + dx
        if not periodic[0] and (jx < 0 or jx >= shape[0]):
            continue
        for dy in range(-reach[1], reach[1] + 1):
            jy = iy + dy
            if not periodic[1] and (jy < 0 or jy >= shape[1]):
                continue
            for dz in range(-reach[2], reach[2] + 1):
                jz = iz + dz
                if not periodic[2] and (jz < 0 or jz >= shape[2]):
                    continue
                if dx == 0 and dy == 0 and dz == 0:
                    home = n
                tx, ty, tz = jx // shape[0], jy // shape[1], jz // shape[2]
                b = ((jx % shape[0]) * shape[1] + jy % shape[1]) * shape[2] + jz % shape[2]
                sx = tx * lattice[0, 0] + ty * lattice[1, 0] + tz * lattice[2, 0]
                sy = tx * lattice[0, 1] + ty * lattice[1, 1] + tz * lattice[2, 1]
                sz = tx * lattice[0, 2] + ty * lattice[1, 2] + tz * lattice[2, 2]
                for i in range(starts[b], starts[b + 1]):
                    candidates[0, n] = xyz[0, i] + sx
                    candidates[1, n] = xyz[1, i] + sy
                    candidates[2, n] = xyz[2, i] + sz
                    candidate_atom[n] = i
                    n += 1
    return n, home
