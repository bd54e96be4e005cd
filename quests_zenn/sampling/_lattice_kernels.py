"""The kernels of lattice Monte Carlo: local energies, flips and swaps.

Values `v` (N,) are int8: 0 and 1 (occupations), or -1 and +1 (spins). A site's *field* is the sum over the clusters
that contain it of energy times the product of the other sites' values, so that a change of its value costs field times
change. Products are whole numbers and are summed as such, by groups of equal energy: the order does not matter.

Where there are only points and pairs, a site's field depends on how many partners of each group are occupied. These
numbers make up its *key*, and the energies of all flips stand in a table by key. There are two kernels of each kind of
move, one that sums fields and one that looks them up, and a third of flips whose probabilities stand in the table too.

Each attempt takes two numbers of the generator, whatever becomes of it: one for the site or sites, one for the
decision. Sites are chosen with probabilities equal to within 2^-32; but a flip and its reverse choose the same site,
and a swap and its reverse the same pair, so that detailed balance is exact.
"""

# mypy: allow-untyped-defs, allow-untyped-decorators

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from quests_zenn._core.jit import inlined, strict_kernel

_11, _17, _19, _23, _32 = np.uint64(11), np.uint64(17), np.uint64(19), np.uint64(23), np.uint64(32)
_41, _45 = np.uint64(41), np.uint64(45)
_LOW = np.uint64(0xFFFFFFFF)
_2_TO_MINUS_53 = 2.0**-53


class Tables(NamedTuple):
    """Clusters as seen from each site. Sites of one basis atom, a *kind*, share all but the indices of their partners.

    Attributes
    ----------
    kind : (N,) int32
        Basis atom of each site.
    points : (b,) float64
        Energy of the point cluster, by kind.
    pairs : (N, P) uint32
        Partners in pairs, grouped by energy. Unsigned, as negative indices would be looked out for.
    pair_starts, pair_energies : (b, G + 1) uint32, (b, G) float64
        Columns of `pairs` where each group begins, and its energy.
    more : (N, R) uint32
        Partners in larger clusters, one cluster after the other.
    more_starts : (b, S + 1) uint32
        Columns of `more` where each cluster begins.
    more_groups, more_energies, more_sizes : (b, H + 1) uint32, (b, H) float64, (b, H) float64
        First cluster of each group of equal energy and size, its energy, its sites per cluster.
    """

    kind: npt.NDArray[np.int32]
    points: npt.NDArray[np.float64]
    pairs: npt.NDArray[np.uint32]
    pair_starts: npt.NDArray[np.uint32]
    pair_energies: npt.NDArray[np.float64]
    more: npt.NDArray[np.uint32]
    more_starts: npt.NDArray[np.uint32]
    more_groups: npt.NDArray[np.uint32]
    more_energies: npt.NDArray[np.float64]
    more_sizes: npt.NDArray[np.float64]


@strict_kernel
def draw(s0, s1, s2, s3):
    """One number of 64 bits, and the next state: xoshiro256++ (Blackman and Vigna, ACM TOMS 47 (2021) 36)."""
    total = s0 + s3
    number = ((total << _23) | (total >> _41)) + s0
    t = s1 << _17
    s2 ^= s0
    s3 ^= s1
    s1 ^= s2
    s0 ^= s3
    s2 ^= t
    s3 = (s3 << _45) | (s3 >> _19)
    return number, s0, s1, s2, s3


@inlined
def group_total(i, v, k, g, pairs, pair_starts):
    """Sum of the values of the partners of site i in the pairs of group g."""
    total = 0
    first = pair_starts[k, g]
    for p in range(pair_starts[k, g + 1] - first):
        total += v[pairs[i, first + p]]
    return total


@inlined
def product_total(i, v, k, g, more, more_starts, more_groups):
    """Sum over the clusters of group g that contain site i of the product of the other values."""
    total = 0
    begin = more_groups[k, g]
    for s in range(more_groups[k, g + 1] - begin):
        first = more_starts[k, begin + s]
        product = 1
        for p in range(more_starts[k, begin + s + 1] - first):
            product *= v[more[i, first + p]]
        total += product
    return total


@inlined
def local_field(i, v, kind, points, pairs, pair_starts, pair_energies, more, more_starts, more_groups, more_energies):
    """Energy per change of the value of site i."""
    k = kind[i]
    field = points[k]
    for g in range(pair_energies.shape[1]):
        field += pair_energies[k, g] * group_total(i, v, k, g, pairs, pair_starts)
    for g in range(more_energies.shape[1]):
        field += more_energies[k, g] * product_total(i, v, k, g, more, more_starts, more_groups)
    return field


@inlined
def key_of(i, v, k, steps, pairs):
    """Sum over the occupied partners of site i, of kind k, of their `steps`."""
    key = 0
    for p in range(steps.shape[1]):
        key += steps[k, p] * v[pairs[i, p]]
    return key


@strict_kernel
def total_energy(v, t):
    """Energy of all sites: each cluster once."""
    kind, points, pairs, pair_starts, pair_energies, more, more_starts, more_groups, more_energies, more_sizes = t
    energy = 0.0
    for i in range(len(v)):
        k = kind[i]
        share = points[k]
        for g in range(pair_energies.shape[1]):
            share += 0.5 * pair_energies[k, g] * group_total(i, v, k, g, pairs, pair_starts)
        for g in range(more_energies.shape[1]):
            total = product_total(i, v, k, g, more, more_starts, more_groups)
            share += more_energies[k, g] * total / more_sizes[k, g]
        energy += v[i] * share
    return energy


@inlined
def take_slopes(linear, square, counts, slope):
    """slope = linear + square counts: from whole numbers, so that rounding does not add up."""
    for a in range(len(counts)):
        slope[a] = linear[a]
        for b in range(len(counts)):
            slope[a] += square[a, b] * counts[b]


@inlined
def record(sweep, every, energy, counts, energies, samples):
    """Write the sample of a sweep, where one is due."""
    if (sweep + 1) % every == 0:
        at = (sweep + 1) // every - 1
        energies[at] = energy
        for a in range(len(counts)):
            samples[at, a] = counts[a]


@strict_kernel
def flip_sweeps(
    v, low, t, label, counts, linear, square, beta, sweeps, every, state, energy, energies, samples
):  # fmt: skip
    """Sweeps of N attempted flips with weight ``exp(-beta (E + linear c + c square c / 2))``, c = `counts`.

    `v`, `counts` (L,), the occupied sites of each sublattice, and `state` (4,) of the generator are brought up to date;
    `energies` (n,) and `samples` (n, L), the counts, are filled after each `every` sweeps. `energy` is that at the
    start. Returns the accepted flips and the energy.
    """
    kind, points, pairs, pair_starts, pair_energies, more, more_starts, more_groups, more_energies, _ = t
    n = len(v)
    size = np.uint64(n)
    step = 1 - low
    accepted = 0
    slope = np.empty(len(counts))
    s0, s1, s2, s3 = state[0], state[1], state[2], state[3]
    for sweep in range(sweeps):
        take_slopes(linear, square, counts, slope)
        for _ in range(n):
            number, s0, s1, s2, s3 = draw(s0, s1, s2, s3)
            i = ((number >> _32) * size) >> _32
            number, s0, s1, s2, s3 = draw(s0, s1, s2, s3)
            a = label[i]
            change = 1 if v[i] == low else -1
            field = local_field(
                i, v, kind, points, pairs, pair_starts, pair_energies, more, more_starts, more_groups, more_energies
            )
            cost = change * step * field
            whole = cost + change * slope[a] + 0.5 * square[a, a]
            if np.int64(number >> _11) * _2_TO_MINUS_53 < math.exp(-beta * whole):
                v[i] += change * step
                energy += cost
                counts[a] += change
                accepted += 1
                for b in range(len(counts)):
                    slope[b] += change * square[a, b]
        record(sweep, every, energy, counts, energies, samples)
    state[0], state[1], state[2], state[3] = s0, s1, s2, s3
    return accepted, energy


@strict_kernel
def flip_lookup_sweeps(
    v, t, steps, row, look, label, counts, linear, square, beta, sweeps, every, state, energy, energies, samples
):  # fmt: skip
    """`flip_sweeps` for points and pairs, on occupations 0 and 1.

    `steps` (b, P) is what an occupied partner adds to the key; `look` (rows, keys, 2) holds probability (not used here)
    and energy of a flip, in row ``row[i] + v[i]``. No branches that nobody can foresee: an exponential costs less.
    """
    kind, pairs = t.kind, t.pairs
    n = len(v)
    size = np.uint64(n)
    accepted = 0
    slope = np.empty(len(counts))
    s0, s1, s2, s3 = state[0], state[1], state[2], state[3]
    for sweep in range(sweeps):
        take_slopes(linear, square, counts, slope)
        for _ in range(n):
            number, s0, s1, s2, s3 = draw(s0, s1, s2, s3)
            i = ((number >> _32) * size) >> _32
            number, s0, s1, s2, s3 = draw(s0, s1, s2, s3)
            a = label[i]
            change = 1 - 2 * v[i]
            cost = look[row[i] + v[i], key_of(i, v, kind[i], steps, pairs), 1]
            whole = cost + change * slope[a] + 0.5 * square[a, a]
            yes = 1 if np.int64(number >> _11) * _2_TO_MINUS_53 < math.exp(-beta * whole) else 0
            energy += yes * cost
            counts[a] += yes * change
            v[i] ^= yes
            accepted += yes
            for b in range(len(counts)):
                slope[b] += yes * change * square[a, b]
        record(sweep, every, energy, counts, energies, samples)
    state[0], state[1], state[2], state[3] = s0, s1, s2, s3
    return accepted, energy


@strict_kernel
def free_lookup_sweeps(v, t, steps, row, look, label, counts, sweeps, every, state, energy, energies, samples):
    """`flip_lookup_sweeps` without a square term: probabilities are looked up as well."""
    kind, pairs = t.kind, t.pairs
    n = len(v)
    size = np.uint64(n)
    accepted = 0
    s0, s1, s2, s3 = state[0], state[1], state[2], state[3]
    for sweep in range(sweeps):
        for _ in range(n):
            number, s0, s1, s2, s3 = draw(s0, s1, s2, s3)
            i = ((number >> _32) * size) >> _32
            number, s0, s1, s2, s3 = draw(s0, s1, s2, s3)
            key = key_of(i, v, kind[i], steps, pairs)
            here = row[i] + v[i]
            yes = 1 if np.int64(number >> _11) * _2_TO_MINUS_53 < look[here, key, 0] else 0
            energy += yes * look[here, key, 1]
            counts[label[i]] += yes * (1 - 2 * v[i])
            v[i] ^= yes
            accepted += yes
        record(sweep, every, energy, counts, energies, samples)
    state[0], state[1], state[2], state[3] = s0, s1, s2, s3
    return accepted, energy


@strict_kernel
def swap_sweeps(
    v, low, t, label, counts, order, occupied, beta, sweeps, every, state, energy, energies, samples
):  # fmt: skip
    """Sweeps of N attempted swaps of an occupied and a vacant site with weight ``exp(-beta E)``.

    `order` (N,) lists the sites, the first `occupied` of them being the occupied ones; it is kept so. There must be at
    least one of each. The rest as in `flip_sweeps`.
    """
    kind, points, pairs, pair_starts, pair_energies, more, more_starts, more_groups, more_energies, _ = t
    n = len(v)
    many, few = np.uint64(occupied), np.uint64(n - occupied)
    step = 1 - low
    accepted = 0
    s0, s1, s2, s3 = state[0], state[1], state[2], state[3]
    for sweep in range(sweeps):
        for _ in range(n):
            number, s0, s1, s2, s3 = draw(s0, s1, s2, s3)
            x = ((number >> _32) * many) >> _32
            y = many + (((number & _LOW) * few) >> _32)
            number, s0, s1, s2, s3 = draw(s0, s1, s2, s3)
            i, j = order[x], order[y]
            field = local_field(
                i, v, kind, points, pairs, pair_starts, pair_energies, more, more_starts, more_groups, more_energies
            )
            v[i] = low
            gain = local_field(
                j, v, kind, points, pairs, pair_starts, pair_energies, more, more_starts, more_groups, more_energies
            )
            cost = step * (gain - field)
            if np.int64(number >> _11) * _2_TO_MINUS_53 < math.exp(-beta * cost):
                v[j] = 1
                order[x], order[y] = j, i
                counts[label[i]] -= 1
                counts[label[j]] += 1
                energy += cost
                accepted += 1
            else:
                v[i] = 1
        record(sweep, every, energy, counts, energies, samples)
    state[0], state[1], state[2], state[3] = s0, s1, s2, s3
    return accepted, energy


@strict_kernel
def swap_lookup_sweeps(
    v, t, steps, row, look, label, counts, order, occupied, beta, sweeps, every, state, energy, energies, samples
):  # fmt: skip
    """`swap_sweeps` for points and pairs, on occupations 0 and 1; `steps`, `row`, `look` as in `flip_lookup_sweeps`."""
    kind, pairs = t.kind, t.pairs
    n = len(v)
    many, few = np.uint64(occupied), np.uint64(n - occupied)
    accepted = 0
    s0, s1, s2, s3 = state[0], state[1], state[2], state[3]
    for sweep in range(sweeps):
        for _ in range(n):
            number, s0, s1, s2, s3 = draw(s0, s1, s2, s3)
            x = ((number >> _32) * many) >> _32
            y = many + (((number & _LOW) * few) >> _32)
            number, s0, s1, s2, s3 = draw(s0, s1, s2, s3)
            i, j = np.uint32(order[x]), np.uint32(order[y])
            cost = look[row[i] + 1, key_of(i, v, kind[i], steps, pairs), 1]
            v[i] = 0
            cost += look[row[j], key_of(j, v, kind[j], steps, pairs), 1]
            yes = 1 if np.int64(number >> _11) * _2_TO_MINUS_53 < math.exp(-beta * cost) else 0
            v[i], v[j] = 1 - yes, yes
            order[x] = j if yes else i
            order[y] = i if yes else j
            counts[label[i]] -= yes
            counts[label[j]] += yes
            energy += yes * cost
            accepted += yes
        record(sweep, every, energy, counts, energies, samples)
    state[0], state[1], state[2], state[3] = s0, s1, s2, s3
    return accepted, energy
