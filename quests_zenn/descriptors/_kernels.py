"""The descriptor kernel: from sorted atoms to rows of the descriptor matrix.

Floor, per environment of 32 neighbours: the pair matrix takes 1,024 square roots and divisions (64 vectors of
float32, 128 of float64), the sort 191 comparators on 2 (4) vectors; about 0.2 (0.6) microseconds at 4 GHz with
512-bit vectors. Finding the neighbours costs about 300 distances and 50 x 50 comparisons more.
"""

from __future__ import annotations

import math

import numpy as np

from quests_zenn._core.jit import kernel, strict_kernel
from quests_zenn._core.simd import LANES
from quests_zenn.descriptors._cells import count_candidates, gather_candidates
from quests_zenn.descriptors._simd import (
    REGISTER_BYTES,
    compare_exchange,
    rank_lanes,
    row_total,
    sort_8_rows,
    sort_16_rows,
    sort_32_rows,
    store_pair_row,
)

#: Distances closer than this (Å) count as equal (ties), and atoms closer than this as coincident.
TIE = 1e-8

#: Neighbour lists longer than this are thinned by a histogram before they are ranked (ranking is quadratic).
RANK_LIMIT = 128
_BUCKETS = 64


@strict_kernel
def aligned(size, like):
    """Flat array of the type of `like` that starts on a cache line: split vectors cost twice."""
    lines = REGISTER_BYTES // like.itemsize
    raw = np.zeros(size + lines, like.dtype)
    skip = (-raw.ctypes.data) % REGISTER_BYTES // like.itemsize
    return raw[skip : skip + size]


@kernel
def squared_distances(candidates, n, x, y, z, out):
    """out[c] = squared distance of candidate c from (x, y, z)."""
    for c in range(n):
        dx = candidates[0, c] - x
        dy = candidates[1, c] - y
        dz = candidates[2, c] - z
        out[c] = dx * dx + dy * dy + dz * dz


@strict_kernel
def within(d2, n, limit2, inside):
    """Indices c < n with d2[c] < limit2, in order. Returns their number. Branch-free: half of them pass."""
    count = 0
    for c in range(n):
        inside[count] = c
        count += 1 if d2[c] < limit2 else 0
    return count


@strict_kernel
def thin_out(d2, inside, n, k, limit2):
    """Keep, in place, the members of `inside` that can be among the k nearest or tie with the k-th."""
    counts = np.zeros(_BUCKETS, np.int64)
    for a in range(n):
        counts[min(int(d2[inside[a]] / limit2 * _BUCKETS), _BUCKETS - 1)] += 1
    total = 0
    bucket = 0
    while bucket < _BUCKETS:
        total += counts[bucket]
        bucket += 1
        if total > k:
            break
    # the margin keeps whole tie groups, and absorbs the rounding of the bucket index
    bound = (math.sqrt(bucket * limit2 / _BUCKETS) + 100.0 * TIE) ** 2
    kept = 0
    for a in range(n):
        c = inside[a]
        if d2[c] <= bound:
            inside[kept] = c
            kept += 1
    return kept


@strict_kernel
def comes_first(candidates, c, e):
    """Order of two candidates at equal distance: by displacement, components within `TIE` being equal."""
    for axis in range(3):
        delta = candidates[axis, c] - candidates[axis, e]
        if delta < -TIE:
            return True
        if delta > TIE:
            return False
    return False


@strict_kernel
def order_tie(candidates, d2, nearest, n, k):
    """Put the run of equal distances across place k into a fixed order. Returns whether there is one."""
    if n <= k or math.sqrt(d2[nearest[k]]) - math.sqrt(d2[nearest[k - 1]]) >= TIE:
        return False
    first, last = k - 1, k
    while first > 0 and math.sqrt(d2[nearest[first]]) - math.sqrt(d2[nearest[first - 1]]) < TIE:
        first -= 1
    while last + 1 < n and math.sqrt(d2[nearest[last + 1]]) - math.sqrt(d2[nearest[last]]) < TIE:
        last += 1
    for a in range(first + 1, last + 1):
        c = nearest[a]
        b = a - 1
        while b >= first and comes_first(candidates, c, nearest[b]):
            nearest[b + 1] = nearest[b]
            b -= 1
        nearest[b + 1] = c
    return True


@kernel
def fill_block(
    candidates, d2, nearest, m, k, x, y, z, cutoff2, networks, network_starts, px, py, pz, s, r2, x1, matrix,
    out, atom, column,
):  # fmt: skip
    """One block [X1, X2] of one environment, from its m <= k nearest neighbours, into ``out[atom, column:]``.

    `px`, `py`, `pz`, `s` (neighbours relative to the centre, roots of their weights) and `matrix` are scratch of the
    type of `out`; `r2` and `x1` are scratch of float64.
    """
    width = (m + LANES - 1) // LANES * LANES
    for j in range(m):
        c = nearest[j]
        px[j] = candidates[0, c] - x
        py[j] = candidates[1, c] - y
        pz[j] = candidates[2, c] - z
        r2[j] = d2[c]
    for j in range(m, width):  # padding: no weight, and not on top of an atom
        px[j] = 1e6
        py[j] = 0.0
        pz[j] = 0.0
        r2[j] = cutoff2
    for j in range(width):
        weight = 1.0 - r2[j] / cutoff2  # sqrt(w)
        s[j] = weight
        x1[j] = weight * weight / math.sqrt(r2[j])
    for j in range(m, width):  # not by the formula, which leaves a rounding error there
        s[j] = 0.0
    for j in range(m):
        out[atom, column + j] = x1[j]
    for j in range(m, k):
        out[atom, column + j] = 0.0

    for l in range(m):
        for c in range(0, width, LANES):
            store_pair_row(matrix, l * width + c, px, py, pz, s, l, c)
        matrix[l * width + l] = 0.0

    if m <= 32:
        rows = 8 if m <= 8 else 16 if m <= 16 else 32
        for at in range(m * width, rows * width):
            matrix[at] = 0.0
        for c in range(0, width, REGISTER_BYTES // matrix.itemsize):
            if rows == 8:
                sort_8_rows(matrix, c, width)
            elif rows == 16:
                sort_16_rows(matrix, c, width)
            else:
                sort_32_rows(matrix, c, width)
    else:
        level = 0
        while (1 << level) < m:
            level += 1
        for c in range(0, width, LANES):
            for t in range(network_starts[level], network_starts[level + 1]):
                if networks[t, 1] < m:
                    compare_exchange(matrix, networks[t, 0] * width + c, networks[t, 1] * width + c)

    filled = min(m, k - 1)
    for l in range(filled):
        out[atom, column + k + l] = row_total(matrix, l * width, width) / k
    for l in range(filled, k - 1):
        out[atom, column + k + l] = 0.0


@kernel
def fill_descriptors(
    first, last, offsets, pbc, lattices, shapes, reaches, bin_starts, xyz, order, atom_bin,
    elements, partners, k, cutoff, networks, network_starts, out, tied, incomplete, coincidence,
):  # fmt: skip
    """Descriptors of the sorted atoms [first, last).

    Parameters
    ----------
    offsets, ..., atom_bin
        As filled by `sort_into_bins`.
    elements : (N,)
        Element code of each atom, in input order.
    partners : (n_elements, B)
        Element of the neighbours that block b holds for centres of each element; -1 for all neighbours, -2 where the
        block stays empty.
    networks, network_starts
        Comparators of the sorting networks for 1, 2, 4, ... inputs, concatenated.
    out : (N, B (2k - 1))
        Rows in input order.
    tied, incomplete : (N,) bool
        Filled, in input order: whether there is a tie at place k, and fewer than k neighbours.
    coincidence : (2,)
        Filled: the lowest input index of an atom that coincides with another (or -1), and that other.
    """
    capacity = 1024
    candidates = np.empty((3, capacity))
    candidate_atom = np.empty(capacity, np.int64)
    d2 = np.empty(capacity)
    inside = np.empty(capacity, np.int64)
    chosen = np.empty(capacity, np.int64)
    nearest = np.empty(capacity, np.int64)
    values = np.empty(capacity)
    ranks = np.empty(capacity, np.int64)
    padded = (k + LANES - 1) // LANES * LANES
    px, py, pz, s = aligned(padded, out), aligned(padded, out), aligned(padded, out), aligned(padded, out)
    r2, x1 = np.empty(padded), np.empty(padded)
    matrix = aligned(max(k, 32) * padded, out)
    width = 2 * k - 1
    cutoff2 = cutoff * cutoff
    n_blocks = partners.shape[1]
    coincidence[:] = -1

    f = np.searchsorted(offsets, first, side="right") - 1
    i = first
    while i < last:
        while offsets[f + 1] <= i:
            f += 1
        b = atom_bin[i]
        starts = bin_starts[offsets[f] + f : offsets[f + 1] + f + 1]
        stop = min(last, starts[b + 1])
        needed = count_candidates(b, shapes[f], reaches[f], pbc[f], starts)
        if needed > capacity:
            capacity = (2 * needed + LANES) // LANES * LANES
            candidates = np.empty((3, capacity))
            candidate_atom = np.empty(capacity, np.int64)
            d2 = np.empty(capacity)
            inside = np.empty(capacity, np.int64)
            chosen = np.empty(capacity, np.int64)
            nearest = np.empty(capacity, np.int64)
            values = np.empty(capacity)
            ranks = np.empty(capacity, np.int64)
        n, home = gather_candidates(
            b, shapes[f], reaches[f], pbc[f], starts, lattices[f], xyz, candidates, candidate_atom
        )
        home -= starts[b]
        while i < stop:
            atom = order[i]
            x, y, z = xyz[0, i], xyz[1, i], xyz[2, i]
            squared_distances(candidates, n, x, y, z, d2)
            d2[home + i] = np.inf
            n_inside = within(d2, n, cutoff2, inside)
            tie = False
            incomplete[atom] = n_inside < k
            for block in range(n_blocks):
                column = block * width
                partner = partners[elements[atom], block]
                if partner == -2:
                    for c in range(column, column + width):
                        out[atom, c] = 0.0
                    continue
                if partner == -1:
                    n_chosen = n_inside
                    for a in range(n_inside):
                        chosen[a] = inside[a]
                else:
                    n_chosen = 0
                    for a in range(n_inside):
                        if elements[order[candidate_atom[inside[a]]]] == partner:
                            chosen[n_chosen] = inside[a]
                            n_chosen += 1
                if n_chosen > RANK_LIMIT and n_chosen > k:
                    n_chosen = thin_out(d2, chosen, n_chosen, k, cutoff2)
                for a in range(n_chosen):
                    values[a] = d2[chosen[a]]
                for a in range(0, n_chosen, LANES):
                    rank_lanes(values, n_chosen, a, ranks)
                for a in range(n_chosen):
                    nearest[ranks[a]] = chosen[a]
                tie |= order_tie(candidates, d2, nearest, n_chosen, k)
                if block == 0 and n_inside > 0 and d2[nearest[0]] < TIE * TIE:
                    if coincidence[0] < 0 or atom < coincidence[0]:
                        coincidence[0] = atom
                        coincidence[1] = order[candidate_atom[nearest[0]]]
                    break
                fill_block(
                    candidates, d2, nearest, min(n_chosen, k), k, x, y, z, cutoff2, networks, network_starts,
                    px, py, pz, s, r2, x1, matrix, out, atom, column,
                )  # fmt: skip
            tied[atom] = tie
            i += 1
