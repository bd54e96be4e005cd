"""Kernel sums over a set that grows, each row brought up to date only when it is asked for.

A greedy selection asks again and again for the row that the set so far knows least. dH of a row only falls as the set
grows, so the dH that a row once had bounds what it has now, and most rows need not be looked at. That takes sums that
are kept row by row, at any distance (the farthest rows matter most), over the columns that the row has not seen yet.

Floor: d subtractions and d multiply-additions per pair in float64; on the first of the principal axes alone (`HEAD`)
where they show that the pair cannot matter, which is the rule. Distances come from differences, not from products: rows
that are equal are at distance exactly 0, and no spread of the set costs digits.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba.core import types
from numba.core.cgutils import alloca_once_value, for_range_slice
from numba.extending import intrinsic

from quests_zenn._core.jit import PLAIN, kernel, strict_kernel
from quests_zenn._core.parallel import Workers, split_evenly
from quests_zenn._core.simd import (
    FAST,
    data_pointer,
    load_vector,
    reduce_add,
    reduce_max,
    splat,
    store_vector,
    vector_call,
)
from quests_zenn.entropy._decide import rotate
from quests_zenn.entropy._packing import ROWS_PER_TASK, FloatArray, base_scale
from quests_zenn.entropy._tile import ROWS, _exp2

#: Columns of a panel: two vectors of 512 bits.
WIDTH = 16
_LANES = 8
_VECTORS = WIDTH // _LANES

#: First principal axes, in which pairs are judged before the others are looked at.
HEAD = 16

#: Terms smaller than 2^-60 of the largest one are left out: ten million of them would add 1e-11.
REACH = 60.0

#: Beyond so many components, axes are only sorted by their variance: the principal ones would take too long to find.
MOST_AXES = 512

#: Sets that spread over more bandwidths are not rotated: it would cost digits of what is close together far out.
WIDEST = 1e6

#: Columns that a row sees at least before it is left below its floor: coming back to it costs as much as some hundred.
LEAST_SEEN = 1024

#: Pairs that one task takes.
PAIRS_PER_TASK = 2_000_000

_LN2 = math.log(2.0)


def _make_squares() -> Any:
    @intrinsic
    def squares(typingctx, gathered, panels, at, first, last, totals, limits):  # type: ignore[no-untyped-def]
        i = types.intp
        sig = types.float64(gathered, panels, i, i, i, totals, limits)

        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
            vtype, intp = ir.VectorType(ir.DoubleType(), _LANES), ir.IntType(64)
            gathered, panels, at, first, last, totals, limits = (
                data_pointer(context, builder, t, v) if isinstance(t, types.Array) else v
                for t, v in zip(signature.args, args, strict=True)
            )

            def constant(n: int) -> ir.Constant:
                return ir.Constant(intp, n)

            def place(r: int, v: int) -> ir.Constant:
                return constant(r * WIDTH + v * _LANES)

            sums = [
                [
                    alloca_once_value(builder, load_vector(builder, totals, place(r, v), vtype, 8))
                    for v in range(_VECTORS)
                ]
                for r in range(ROWS)
            ]
            with for_range_slice(builder, first, last, constant(1), intp) as (c, _):
                start = builder.add(at, builder.mul(c, constant(WIDTH)))
                there = [
                    load_vector(builder, panels, builder.add(start, constant(v * _LANES)), vtype, 8)
                    for v in range(_VECTORS)
                ]
                row = builder.mul(c, constant(ROWS))
                for r in range(ROWS):
                    here = splat(builder, builder.load(builder.gep(gathered, [builder.add(row, constant(r))])), vtype)
                    for v in range(_VECTORS):
                        apart = builder.fsub(there[v], here)
                        fused = vector_call(builder, "llvm.fmuladd", apart, apart, builder.load(sums[r][v]))
                        builder.store(fused, sums[r][v])
            highest = ir.Constant(vtype, [-math.inf] * _LANES)
            for r in range(ROWS):
                limit = splat(builder, builder.load(builder.gep(limits, [constant(r)])), vtype)
                for v in range(_VECTORS):
                    value = builder.load(sums[r][v])
                    store_vector(builder, value, totals, place(r, v), 8)
                    left = builder.fsub(limit, value)
                    highest = builder.select(builder.fcmp_ordered(">", left, highest), left, highest)
            return reduce_max(builder, highest)

        return sig, codegen

    return squares


def _make_terms() -> Any:
    @intrinsic
    def terms(typingctx, totals, at, peak):  # type: ignore[no-untyped-def]
        sig = types.float64(totals, types.intp, types.float64)

        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
            vtype = ir.VectorType(ir.DoubleType(), _LANES)
            pointer = data_pointer(context, builder, signature.args[0], args[0])
            peaks = splat(builder, args[2], vtype)
            total: ir.Value | None = None
            for v in range(_VECTORS):
                place = builder.add(args[1], ir.Constant(ir.IntType(64), v * _LANES))
                squares = load_vector(builder, pointer, place, vtype, 8)
                zero = ir.Constant(vtype, [0.0] * _LANES)
                t = builder.fsub(builder.fsub(zero, squares), peaks, flags=FAST)
                term = _exp2(builder, t)
                total = term if total is None else builder.fadd(total, term)
            assert total is not None
            return reduce_add(builder, total)

        return sig, codegen

    return terms


def _plain_squares(gathered, panels, at, first, last, totals, limits):  # type: ignore[no-untyped-def]
    columns = panels[at + first * WIDTH : at + last * WIDTH].reshape(last - first, 1, WIDTH)
    rows = gathered[first * ROWS : last * ROWS].reshape(last - first, ROWS, 1)
    totals += ((columns - rows) ** 2).sum(axis=0).ravel()
    with np.errstate(invalid="ignore"):
        left = limits[:, None] - totals.reshape(ROWS, WIDTH)
    return float(np.nanmax(np.where(np.isnan(left), -np.inf, left)))


def _plain_terms(totals, at, peak):  # type: ignore[no-untyped-def]
    return float(np.exp2(np.maximum(-totals[at : at + WIDTH] - peak, -1000.0)).sum())


#: ``totals[r, l] += sum_c (panel[c, l] - gathered[c, r])^2`` over the axes [first, last); the largest ``limits[r]``
#: less its totals, which is negative where all are beyond their limits.
add_squares = _plain_squares if PLAIN else _make_squares()

#: Sum of ``2^(-totals[at + l] - peak)`` over a panel.
sum_terms = _plain_terms if PLAIN else _make_terms()


@kernel
def append(z, rows, panels, first):
    """Write rows of z into lanes [first, first + len(rows)) of the panels."""
    d = z.shape[1]
    for m in range(len(rows)):
        at = (first + m) // WIDTH * WIDTH * d + (first + m) % WIDTH
        for c in range(d):
            panels[at + c * WIDTH] = z[rows[m], c]


@kernel
def gather(z, rows, start, count, gathered):
    """Rows ``rows[start : start + count]`` of z as columns; the last one again where there are fewer than `ROWS`."""
    for r in range(ROWS):
        i = rows[start + min(r, count - 1)]
        for c in range(z.shape[1]):
            gathered[c * ROWS + r] = z[i, c]


# strict: infinities and comparisons must mean what they say
@strict_kernel
def refresh_rows(z, rows, floors, panels, n_columns, head, seen, peaks, sums, dh):
    """Bring some rows up to date: ln p = ln 2 (peak + log2 sum) over the columns [0, n_columns), and dH = -ln p.

    A row whose dH falls below its floor is left there, with what it has seen so far.
    """
    d = z.shape[1]
    gathered, totals, limits = np.empty(d * ROWS), np.empty(ROWS * WIDTH), np.empty(ROWS)
    for start in range(0, len(rows), ROWS):
        count = min(ROWS, len(rows) - start)
        gather(z, rows, start, count, gathered)
        limits[:] = -np.inf
        first = n_columns
        for r in range(count):
            i = rows[start + r]
            first = min(first, seen[i])
            limits[r] = REACH - peaks[i]
        left = count
        for panel in range(first // WIDTH, (n_columns + WIDTH - 1) // WIDTH):
            totals[:] = 0.0
            if add_squares(gathered, panels, panel * d * WIDTH, 0, head, totals, limits) < 0.0:
                continue
            if head < d and add_squares(gathered, panels, panel * d * WIDTH, head, d, totals, limits) < 0.0:
                continue
            for r in range(count):
                i = rows[start + r]
                known = seen[i] - panel * WIDTH
                if known >= WIDTH or limits[r] == -np.inf:
                    continue
                at = r * WIDTH
                for lane in range(known):
                    totals[at + lane] = np.inf
                nearest = np.inf
                for lane in range(WIDTH):
                    nearest = min(nearest, totals[at + lane])
                if not nearest < np.inf or nearest > limits[r]:
                    continue
                if -nearest > peaks[i]:
                    sums[i] *= 2.0 ** (peaks[i] + nearest)
                    peaks[i] = -nearest
                    limits[r] = REACH + nearest
                sums[i] += sum_terms(totals, at, peaks[i])
                below = 0.0 - (peaks[i] + math.log2(sums[i])) * _LN2
                if below < floors[start + r] and (panel + 1) * WIDTH - seen[i] >= LEAST_SEEN:
                    seen[i] = min(n_columns, (panel + 1) * WIDTH)
                    limits[r] = -np.inf
                    left -= 1
            if left == 0:
                break
        for r in range(count):
            i = rows[start + r]
            if limits[r] > -np.inf:
                seen[i] = n_columns
            if sums[i] > 0.0:
                dh[i] = 0.0 - (peaks[i] + math.log2(sums[i])) * _LN2


class Space:
    """Environments in units of exponents to base 2, on their principal axes, kept apart by label.

    Parameters
    ----------
    x : (M, d)
    h : float
    labels : (M,) or None
        Whole numbers from 0; environments of different labels do not see each other.
    n_labels : int
        How many there may be.
    """

    def __init__(
        self, x: FloatArray, h: float, labels: npt.NDArray[np.int64] | None, workers: Workers, n_labels: int = 1
    ) -> None:
        n, d = x.shape
        self.h, self.d, self.head = h, d, min(HEAD, d)
        self.labels = np.zeros(n, np.int64) if labels is None else labels
        self.n_labels = n_labels
        self.scale = base_scale(h)
        some = np.asarray(x[:: max(1, n // 20_000)], np.float64)
        self._mean, self._axes, self._order = np.zeros(d), None, None
        apart = some - some.mean(axis=0)
        widest = float(np.abs(apart).max(initial=0.0))
        if widest > 0.0 and np.ptp(x, axis=0).max() * self.scale < WIDEST:
            if d > MOST_AXES:
                self._order = np.argsort(-apart.var(axis=0), kind="stable")
            else:
                self._mean = some.mean(axis=0)
                self._axes = np.ascontiguousarray(np.linalg.eigh((apart / widest).T @ (apart / widest))[1][:, ::-1])
        self.z = self.place(x, workers)

    def place(self, x: FloatArray, workers: Workers) -> npt.NDArray[np.float64]:
        """Other environments in the same coordinates."""
        if self._axes is None:
            z = x * np.float64(self.scale)
            return z if self._order is None else np.ascontiguousarray(z[:, self._order])
        axes, rows, z = self._axes, np.arange(len(x)), np.empty(x.shape)
        workers.run(
            lambda part: rotate(x, rows[slice(*part)], self._mean, axes, self.scale, z[slice(*part)]),
            split_evenly(len(x), ROWS_PER_TASK),
        )
        return z


def with_room(panels: npt.NDArray[np.float64], size: int) -> npt.NDArray[np.float64]:
    """Panels of at least this size, the new ones empty; they double, so that growing costs little."""
    if size <= len(panels):
        return panels
    grown = np.full(max(size, 2 * len(panels)), np.inf)
    grown[: len(panels)] = panels
    return grown


class Columns:
    """Environments that were added, one list of panels for each label.

    Attributes
    ----------
    counts : (n_labels,)
        How many there are.
    """

    def __init__(self, space: Space) -> None:
        self.space = space
        self.counts = np.zeros(space.n_labels, np.int64)
        self.panels = [np.full(WIDTH * space.d, np.inf) for _ in range(space.n_labels)]

    def add(self, z: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]) -> None:
        """Add all rows of z."""
        for label in np.unique(labels).tolist():
            rows, count = np.flatnonzero(labels == label), int(self.counts[label])
            needed = -(-(count + len(rows)) // WIDTH) * WIDTH * self.space.d
            self.panels[label] = with_room(self.panels[label], needed)
            append(z, rows, self.panels[label], count)
            self.counts[label] += len(rows)


class GrowingSums:
    """dH of the environments of a space given a set that grows.

    Attributes
    ----------
    dh : (M,)
        Of each environment when it was last refreshed, infinite before that: an upper bound of what it is now.
    """

    def __init__(self, space: Space) -> None:
        n = len(space.z)
        self.space, self.columns = space, Columns(space)
        self.seen, self.sums = np.zeros(n, np.int64), np.zeros(n)
        self.peaks, self.dh = np.full(n, -np.inf), np.full(n, np.inf)

    def is_fresh(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Whether nothing was added that these rows have not seen."""
        fresh: npt.NDArray[np.bool_] = self.seen[rows] == self.columns.counts[self.space.labels[rows]]
        return fresh

    def refresh(
        self, rows: npt.NDArray[np.int64], workers: Workers, floors: npt.NDArray[np.float64] | None = None
    ) -> None:
        """Bring these rows up to date, or, where floors are given, as far as it takes to fall below them."""
        if len(rows) == 0:
            return
        floors = np.full(len(rows), -np.inf) if floors is None else floors
        space, columns = self.space, self.columns
        labels = space.labels[rows]
        for label in [0] if space.n_labels == 1 else np.unique(labels).tolist():
            place = np.arange(len(rows)) if space.n_labels == 1 else np.flatnonzero(labels == label)
            panels, n = columns.panels[label], int(columns.counts[label])
            seen = self.seen[rows[place]]
            if len(place) > ROWS:
                place = place[np.argsort(seen, kind="stable")]
            mine, least, pending = rows[place], floors[place], n - int(seen.min())

            def work(
                part: tuple[int, int], mine: Any = mine, least: Any = least, panels: Any = panels, n: int = n
            ) -> None:
                some = slice(*part)
                refresh_rows(
                    space.z, mine[some], least[some], panels, n, space.head, self.seen, self.peaks, self.sums, self.dh
                )

            per_task = max(1, PAIRS_PER_TASK // max(WIDTH, pending) // ROWS)
            groups = -(-len(mine) // ROWS)
            tasks = [(a * ROWS, min(len(mine), b * ROWS)) for a, b in split_evenly(groups, per_task)]
            workers.run(work, tasks)
