"""Whether a kernel sum exceeds a limit, without computing more of it than the answer needs.

The set is rotated onto its principal axes and cut into a balanced tree, whose leaves hold 64 neighbouring environments,
stored in single precision relative to their mean. A row descends to the leaf where it belongs, then visits others,
near ones first; nodes whose box (in the first few axes) proves them far are passed over, and leaves are given up as
soon as the first axes show that nothing in them is near. What was summed, less all that rounding may have added, is a
lower bound of the sum; that, plus all that rounding may have taken away and all that was passed over can hold at most,
is an upper bound. Rows whose limit lies between the two remain open.

Cost of a row that is decided in its first leaf: 64 distances. Its floor is one cache line for each of the axes that it
takes to tell; a full sum over 100,000 references is 1,500 times that.
"""

from __future__ import annotations

import math
from collections.abc import Callable
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
from quests_zenn.entropy._engine import TRUSTED, PackedReference
from quests_zenn.entropy._packing import ROWS_PER_TASK, FloatArray, base_scale, rounding_error
from quests_zenn.entropy._tile import _exp2

#: Environments of a leaf: four vectors of 512 bits in single precision, so that four chains of additions overlap.
LEAF = 64
_LANES = 16
_VECTORS = LEAF // _LANES

#: Axes of the boxes of the tree.
AXES = 8

#: First axes, in which all environments of a leaf are judged together; those that may be near are judged in the others.
HEAD = 16

#: Answers of the kernel.
KNOWN, NOVEL, OPEN = 0, 1, 2

#: Rows in one task: a tenth of a millisecond or more.
_ROWS = 64

#: Shares of the limit that all that is passed over may reach together: wide first, then narrow.
_SLACKS = np.array([0.3, 1e-3])

#: Coordinates of padding. Thousands of their squares can be added up in single precision.
_FAR = 1e17

_LN2 = math.log(2.0)

#: Unit of rounding in single precision.
_SINGLE = 2.0**-24

#: Leaves whose boxes are first looked at together; as many as a leaf has environments, so that one kernel serves both.
GROUP = LEAF

#: Steps of distance, or of a bound, in which leaves wait to be visited.
_BUCKETS = 32

#: Near leaves that are visited in full before bounds are asked of others.
_AT_ONCE = 8

#: Share of all leaves that a row may visit.
PATIENCE = 0.6

#: Rows that lost patience up to which they go on all the same: packing them for full sums takes a while, too.
_FEW = 48

#: Share of the set that a limit may amount to, beyond which no row is decided here (but for two leaves).
_DENSE = 1.0 / 1000.0

#: Rows that remain open up to which they are summed one by one; packing the set for them would take longer.
_DIRECTLY = 8

#: Smallest ln p that sums in each precision are asked for.
_LEAST = {"float32": -30.0, "float64": -500.0}


def _make_squares() -> Any:
    @intrinsic
    def squares(typingctx, packed, at, row, first, last, totals):  # type: ignore[no-untyped-def]
        i = types.intp
        sig = types.float32(packed, i, row, i, i, totals)

        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
            vtype = ir.VectorType(ir.FloatType(), _LANES)
            pointers = [
                data_pointer(context, builder, t, v) if isinstance(t, types.Array) else v
                for t, v in zip(signature.args, args, strict=True)
            ]
            packed, at, row, first, last, totals = pointers
            intp = ir.IntType(64)

            def constant(n: int) -> ir.Constant:
                return ir.Constant(intp, n)

            sums = [
                alloca_once_value(builder, load_vector(builder, totals, constant(v * _LANES), vtype, 4))
                for v in range(_VECTORS)
            ]
            with for_range_slice(builder, first, last, constant(1), intp) as (c, _):
                here = splat(builder, builder.load(builder.gep(row, [c])), vtype)
                start = builder.add(at, builder.mul(c, constant(LEAF)))
                for v in range(_VECTORS):
                    there = load_vector(builder, packed, builder.add(start, constant(v * _LANES)), vtype, 4)
                    apart = builder.fsub(there, here)
                    fused = vector_call(builder, "llvm.fmuladd", apart, apart, builder.load(sums[v]))
                    builder.store(fused, sums[v])
            highest = ir.Constant(vtype, [-math.inf] * _LANES)
            for v in range(_VECTORS):
                value = builder.load(sums[v])
                store_vector(builder, value, totals, constant(v * _LANES), 4)
                minus = builder.fsub(ir.Constant(vtype, [0.0] * _LANES), value)
                highest = builder.select(builder.fcmp_ordered(">", minus, highest), minus, highest)
            return reduce_max(builder, highest)

        return sig, codegen

    return squares


def _make_terms() -> Any:
    @intrinsic
    def terms(typingctx, totals, shift):  # type: ignore[no-untyped-def]
        sig = types.float64(totals, types.float32)

        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
            vtype = ir.VectorType(ir.FloatType(), _LANES)
            pointer = data_pointer(context, builder, signature.args[0], args[0])
            shifts = splat(builder, args[1], vtype)
            highest = ir.Constant(vtype, [120.0] * _LANES)
            total: ir.Value | None = None
            for v in range(_VECTORS):
                squares = load_vector(builder, pointer, ir.Constant(ir.IntType(64), v * _LANES), vtype, 4)
                t = builder.fsub(shifts, squares, flags=FAST)
                t = builder.select(builder.fcmp_ordered("<", t, highest), t, highest)
                term = _exp2(builder, t)
                total = term if total is None else builder.fadd(total, term)
            assert total is not None
            return builder.fpext(reduce_add(builder, total), ir.DoubleType())

        return sig, codegen

    return terms


def _plain_squares(packed, at, row, first, last, totals):  # type: ignore[no-untyped-def]
    leaf = packed[at + first * LEAF : at + last * LEAF].reshape(last - first, LEAF)
    totals += ((leaf - row[first:last, None]) ** 2).sum(axis=0)
    return -totals.min()


def _plain_terms(totals, shift):  # type: ignore[no-untyped-def]
    return float(np.exp2(np.clip(shift - totals.astype(np.float64), -120.0, 120.0)).sum())


#: ``totals[l] += sum_c (packed[at + c LEAF + l] - row[c])^2`` over the axes [first, last); minus the smallest total.
add_squares = _plain_squares if PLAIN else _make_squares()

#: Sum of ``2^(shift - totals[l])``, each at most 2^120 and at least 2^-120.
sum_terms = _plain_terms if PLAIN else _make_terms()


@kernel
def rotate(x, rows, mean, axes, scale, out):
    """``out[i] = axes^T (x[rows[i]] - mean) scale``; `axes` (d, m) may be some of the axes."""
    d, m = axes.shape
    for i in range(len(rows)):
        out[i, :] = 0.0
        for c in range(d):
            apart = (x[rows[i], c] - mean[c]) * scale
            for a in range(m):
                out[i, a] += apart * axes[c, a]


@strict_kernel
def fill_leaves(x, order, first, last, mean, axes, scale, heads, tails, centres, radii, low, high):
    """Leaves [first, last): coordinates relative to their mean, largest distance from it, and their box."""
    n, d = x.shape
    head = min(HEAD, d)
    m = low.shape[1]
    z = np.empty((LEAF, d))
    for leaf in range(first, last):
        start, stop = leaf * LEAF, min(n, (leaf + 1) * LEAF)
        rotate(x, order[start:stop], mean, axes, scale, z)
        for c in range(d):
            total = 0.0
            for lane in range(stop - start):
                total += z[lane, c]
            centres[leaf, c] = total / (stop - start)
        for c in range(m):
            low[leaf, c], high[leaf, c] = np.inf, -np.inf
        longest = 0.0
        for lane in range(stop - start):
            total = 0.0
            for c in range(d):
                value = z[lane, c] - centres[leaf, c]
                if c < head:
                    heads[(leaf * head + c) * LEAF + lane] = value
                else:
                    tails[leaf * LEAF + lane, c - head] = value
                total += value * value
            for c in range(m):
                low[leaf, c] = min(low[leaf, c], z[lane, c])
                high[leaf, c] = max(high[leaf, c], z[lane, c])
            longest = max(longest, total)
        radii[leaf] = math.sqrt(longest)
        for lane in range(stop - start, LEAF):
            for c in range(head):
                heads[(leaf * head + c) * LEAF + lane] = _FAR


@kernel
def sum_directly(y, x, first, last, scale, log_limits, sums):
    """``sums[i] = sum_j exp(-|y_i - x_j|^2 scale - log_limits[i])`` over rows [first, last) of x, in float64."""
    d = x.shape[1]
    sums[:] = 0.0
    for j in range(first, last):  # x, which may be large, is read once for all rows
        for i in range(len(y)):
            squared = 0.0
            for c in range(d):
                apart = np.float64(y[i, c]) - np.float64(x[j, c])
                squared += apart * apart
            sums[i] += math.exp(min(-squared * scale - log_limits[i], 600.0))


@kernel
def gaps_to_boxes(low, high, first, last, below, above, gaps):
    """Squared distances from a point to the boxes [first, last), whose sides are `low` and `high` (m, n).

    The point is given as numbers just below and just above its coordinates: single precision must not shrink a box.
    """
    gaps[: last - first] = 0.0
    for c in range(len(below)):
        under, over = below[c], above[c]
        for b in range(first, last):
            outside = max(max(low[c, b] - over, under - high[c, b]), np.float32(0.0))
            gaps[b - first] += outside * outside


@kernel
def relative_to(at, centre, row):
    """``row = at - centre`` in single precision; returns its length."""
    total = 0.0
    for c in range(len(at)):
        value = at[c] - centre[c]
        row[c] = value
        total += value * value
    return math.sqrt(total)


@kernel
def tail_square(tail, row, head):
    """Squared distance in the axes from `head` on."""
    total = np.float32(0.0)
    for c in range(len(tail)):
        apart = tail[c] - row[head + c]
        total += apart * apart
    return total


# strict: comparisons must mean what they say
@strict_kernel
def visit_leaf(leaf, size, in_full, at, shift, floor, reach, heads, tails, centres, radii, row, totals):
    """Bounds of what a leaf adds to the sum, relative to the limit: (at least, at most).

    Not `in_full`, only the first axes are looked at, for the second number. Terms below 2^floor count as nothing, or as
    that. `reach` is the distance beyond which terms cannot matter.
    """
    d = len(at)
    head = min(HEAD, d)
    length = relative_to(at, centres[leaf], row)
    if not length + radii[leaf] < _FAR / 1e3:
        return 0.0, np.inf
    least = math.exp(floor * _LN2)
    beyond = max(0.0, length - radii[leaf])
    if shift - beyond * beyond < floor:
        return 0.0, size * least
    # what single precision may add to squared distances within reach, or take from them
    apart = _SINGLE * (length + radii[leaf])
    rounding = 2.0 * reach * apart + apart * apart + (d + 4) * _SINGLE * reach * reach + 1e-6
    # it rounds the shift and the terms, too; 2^r <= 1 + r up to r = 1
    spread = 1.0 + rounding + (abs(shift) + 64.0) * _SINGLE + 1e-6
    if spread > 2.0:
        return 0.0, np.inf
    totals[:] = 0.0
    nearest = add_squares(heads, leaf * head * LEAF, row, 0, head, totals)
    if not in_full or shift + nearest + rounding < floor:
        return 0.0, sum_terms(totals, np.float32(shift)) * spread
    left_out = 0
    if head < d:
        limit = np.float32(shift - floor + rounding)
        for lane in range(LEAF):
            if totals[lane] <= limit:
                totals[lane] += tail_square(tails[leaf * LEAF + lane], row, head)
            else:
                totals[lane] = _FAR
                left_out += 1
    found = sum_terms(totals, np.float32(shift))
    return found / spread - LEAF * 2.0**-60, found * spread + left_out * least


@strict_kernel
def into_buckets(buckets, count, order, starts):
    """Sort 0 .. count - 1 by their buckets into `order`, those of one bucket in their order."""
    starts[:] = 0
    for w in range(count):
        starts[buckets[w] + 1] += 1
    for b in range(len(starts) - 1):
        starts[b + 1] += starts[b]
    for w in range(count):
        order[starts[buckets[w]]] = w
        starts[buckets[w]] += 1


@strict_kernel
def decide_rows(
    y, first, last, mean, axes, scale, extent, log_limits, children, split_axes, cuts, n, low, high, group_low,
    group_high, heads, tails, centres, radii, slacks, patience, answers,
):  # fmt: skip
    """For rows [first, last) of y, whether ln sum exceeds ``log_limits``: `KNOWN`, `NOVEL`, or `OPEN`.

    A row that visits more than `patience` leaves remains open: full sums of many rows together are faster then.

    `extent` is the largest distance of a row of the set from the mean, scaled. `low` and `high` (m, leaves) are the
    boxes of the leaves, `group_low` and `group_high` those of `GROUP` successive leaves.
    """
    d = y.shape[1]
    m, leaves = low.shape
    z = np.empty((last - first, d))
    rotate(y, np.arange(first, last), mean, axes, scale, z)
    row, totals = np.empty(d, np.float32), np.empty(LEAF, np.float32)
    below, above = np.empty(m, np.float32), np.empty(m, np.float32)
    group_gaps, gaps = np.empty(group_low.shape[1], np.float32), np.empty(GROUP, np.float32)
    waiting, order, bounds = np.empty(leaves, np.int64), np.empty(leaves, np.int64), np.empty(leaves)
    buckets, starts = np.empty(leaves, np.int8), np.empty(_BUCKETS + 1, np.int64)
    for i in range(first, last):
        at = z[i - first]
        answers[i] = OPEN
        shift = -log_limits[i] * math.log2(math.e)  # exponents relative to the limit, to base 2
        if not abs(shift) < 1e5:
            continue
        if shift <= -math.log2(n) - 1e-9:  # not even n copies would reach it
            answers[i] = NOVEL
            continue
        # where it takes too many leaves to be known, boxes alone may still tell that it is novel
        allowed = 0 if shift < -math.log2(max(n * _DENSE, 2.0 * LEAF)) else patience
        total = 0.0
        for c in range(d):
            total += at[c] * at[c]
        # what double precision may have added to a distance
        double = (d + 8) * 2.0**-52 * (math.sqrt(total) + extent)
        # terms far below the narrowest slack cannot matter, whatever their rounding
        reach = math.sqrt(shift - math.log2(slacks[-1] / n) + 64.0)
        if reach * double > 1e-7:
            continue

        # the leaf where it belongs
        node = leaf = 0
        while children[node] >= 0:
            node = node + 1 if at[split_axes[node]] < cuts[node] else children[node]
        leaf = -1 - children[node]
        size = min(n - leaf * LEAF, LEAF)
        floor = math.log2(slacks[-1] / n)
        if allowed > 0:
            lowest, _ = visit_leaf(leaf, size, True, at, shift, floor, reach, heads, tails, centres, radii, row, totals)
            if lowest > 1.0 + 1e-9:
                answers[i] = KNOWN
                continue

        for c in range(m):
            below[c] = at[c] - (abs(at[c]) * 2.0**-22 + double)
            above[c] = at[c] + (abs(at[c]) * 2.0**-22 + double)
        gaps_to_boxes(group_low, group_high, 0, len(group_gaps), below, above, group_gaps)
        spent = 0
        for slack in slacks:
            # leaves whose terms are all below 2^floor are passed over: together they hold less than the slack
            floor = math.log2(slack / n)
            limit = (shift - floor) * (1.0 + 1e-5)
            smallest = math.exp(floor * _LN2) * 2.0**-64
            lowest, highest = 0.0, 0.0
            count = 0
            for group in range(len(group_gaps)):
                start, stop = group * GROUP, min(leaves, (group + 1) * GROUP)
                if group_gaps[group] > limit:
                    size = min(n, stop * LEAF) - start * LEAF
                    gap = group_gaps[group] * (1.0 - 1e-5)
                    highest += size * max(math.exp((shift - gap) * _LN2), smallest)
                    continue
                gaps[:] = _FAR
                gaps_to_boxes(low, high, start, stop, below, above, gaps)
                for g in range(stop - start):
                    gap = gaps[g]
                    if gap <= limit:
                        gaps[g] = _FAR
                        waiting[count] = start + g
                        buckets[count] = min(int(2.0 * math.sqrt(gap)), _BUCKETS - 1)
                        count += 1
                    else:
                        gaps[g] = gap * np.float32(1.0 - 1e-5)
                highest += LEAF * sum_terms(gaps, np.float32(shift)) * (1.0 + (abs(shift) + 64.0) * _SINGLE)
            into_buckets(buckets, count, order, starts)
            # near ones first, in full; of the others a bound, then those of the largest bounds
            rest = 0.0
            for v in range(count):
                w = order[v]
                leaf, in_full = waiting[w], v < _AT_ONCE
                size = min(n - leaf * LEAF, LEAF)
                certain, possible = visit_leaf(
                    leaf, size, in_full, at, shift, floor, reach, heads, tails, centres, radii, row, totals
                )  # fmt: skip
                spent += 1
                if spent > allowed:
                    break
                if in_full:
                    lowest += certain
                    highest += possible
                    bounds[w] = 0.0
                    if lowest > 1.0 + 1e-9:
                        break
                else:
                    bounds[w] = possible
                    rest += possible
            undecided = lowest <= 1.0 + 1e-9 and highest + rest >= 1.0 - 1e-9
            if undecided and count > _AT_ONCE and spent <= allowed:
                for w in range(count):
                    buckets[w] = (
                        min(max(int(4.0 - math.log2(bounds[w])), 0), _BUCKETS - 1) if bounds[w] > 0.0 else _BUCKETS - 1
                    )
                into_buckets(buckets, count, order, starts)
                for v in range(count):
                    w = order[v]
                    if bounds[w] == 0.0:
                        continue
                    leaf = waiting[w]
                    size = min(n - leaf * LEAF, LEAF)
                    certain, possible = visit_leaf(
                        leaf, size, True, at, shift, floor, reach, heads, tails, centres, radii, row, totals
                    )  # fmt: skip
                    spent += 1
                    lowest += certain
                    highest += possible
                    rest -= bounds[w]
                    if lowest > 1.0 + 1e-9 or highest + rest < 1.0 - 1e-9 or spent > allowed:
                        break
            if lowest <= 1.0 + 1e-9 and spent > allowed:
                break
            highest += max(rest, 0.0)
            if lowest > 1.0 + 1e-9:
                answers[i] = KNOWN
                break
            if highest < 1.0 - 1e-9:
                answers[i] = NOVEL
                break


class Decider:
    """A set x (n, d) at one bandwidth, packed for decisions: half of what the set itself takes, and a tree."""

    def __init__(self, x: FloatArray, h: float, workers: Workers) -> None:
        n, d = x.shape
        self.x, self.h, self.scale = x, h, base_scale(h)
        some = np.asarray(x[:: max(1, n // 20_000)], np.float64)
        self.mean = some.mean(axis=0)
        apart = some - self.mean
        widest = max(float(np.abs(apart).max()), 1e-300)
        self.axes = np.ascontiguousarray(np.linalg.eigh((apart / widest).T @ (apart / widest))[1][:, ::-1])
        m = min(AXES, d)
        few, z, rows = np.ascontiguousarray(self.axes[:, :m]), np.empty((n, m)), np.arange(n)
        workers.run(
            lambda part: rotate(x, rows[slice(*part)], self.mean, few, self.scale, z[slice(*part)]),
            split_evenly(n, ROWS_PER_TASK),
        )
        order = self._plant(z)
        leaves = -(-n // LEAF)
        head = min(HEAD, d)
        self.heads = np.empty(leaves * head * LEAF, np.float32)
        self.tails = np.empty((leaves * LEAF, d - head), np.float32)
        self.centres, self.radii = np.empty((leaves, d)), np.empty(leaves)
        low, high = np.empty((leaves, m)), np.empty((leaves, m))
        workers.run(
            lambda part: fill_leaves(
                x, order, *part, self.mean, self.axes, self.scale, self.heads, self.tails, self.centres, self.radii,
                low, high,
            ),
            split_evenly(leaves, ROWS_PER_TASK // LEAF),
        )  # fmt: skip
        with np.errstate(over="ignore"):
            self.extent = float((np.linalg.norm(self.centres, axis=1) + self.radii).max())
        groups = np.arange(0, leaves, GROUP)
        self.low, self.group_low = (_outward(np.asarray(side), -1) for side in (low, np.minimum.reduceat(low, groups)))
        self.high, self.group_high = (
            _outward(np.asarray(side), 1) for side in (high, np.maximum.reduceat(high, groups))
        )

    def _plant(self, z: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """Cut the rows of z into leaves, each node across the axis in which it is widest; returns their order.

        Nodes are in preorder: the left child follows its parent, and `children` holds the right one; leaf l has -1 - l.
        """
        n = len(z)
        order = np.arange(n)
        children: list[int] = []
        split_axes: list[int] = []
        cuts: list[float] = []
        stack = [(0, -(-n // LEAF), -1)]
        while stack:
            first, last, parent = stack.pop()
            node = len(children)
            if parent >= 0:
                children[parent] = node
            if last - first == 1:
                children.append(-1 - first)
                split_axes.append(0)
                cuts.append(0.0)
                continue
            rows = order[first * LEAF : last * LEAF]
            half = (last - first) // 2
            values = z[rows]
            # of quartiles: an outlier must not draw all cuts to its axis
            quarter, three_quarters = np.percentile(values[:: max(1, len(rows) // 2_000)], (25, 75), axis=0)
            axis = int(np.argmax(three_quarters - quarter))
            along = values[:, axis]
            place = np.argpartition(along, half * LEAF)
            rows[:] = rows[place]
            children.append(0)
            split_axes.append(axis)
            cuts.append(float(along[place[half * LEAF]]))
            stack.append((first + half, last, node))
            stack.append((first, first + half, -1))
        self.children, self.split_axes, self.cuts = np.array(children), np.array(split_axes), np.array(cuts)
        return order

    def exceeds(
        self,
        y: FloatArray,
        log_limits: npt.NDArray[np.float64],
        workers: Workers,
        packed: Callable[[str, Workers], PackedReference] | None = None,
    ) -> npt.NDArray[np.bool_]:
        """Whether ln sum_j K(y, x_j) of each row of y (n,) exceeds its limit, as the exact sum in float64 decides.

        `packed` gives the set packed in a precision, for full sums, so that others can use it, too.
        """
        answers = self.decide(y, log_limits, workers)
        rows = np.flatnonzero(answers == OPEN)
        if 0 < len(rows) <= _FEW:
            answers[rows] = self.decide(y[rows], log_limits[rows], workers, 1.0)
            rows = rows[answers[rows] == OPEN]
        known: npt.NDArray[np.bool_] = answers == KNOWN
        known[rows[log_limits[rows] == -np.inf]] = True
        rows = rows[np.isfinite(log_limits[rows])]
        pack = self._pack if packed is None else packed
        for precision in ("float32", "float64"):
            if len(rows) > _DIRECTLY:
                rows = self._decide_in(precision, y, log_limits, rows, known, pack, workers)
        if len(rows) > 0:
            tasks = split_evenly(len(self.x), ROWS_PER_TASK)
            asked, limits = y[rows], log_limits[rows]
            sums = np.empty((len(tasks), len(rows)))
            scale = 0.5 / self.h**2

            def work(task: tuple[int, tuple[int, int]]) -> None:
                sum_directly(asked, self.x, *task[1], scale, limits, sums[task[0]])

            workers.run(work, list(enumerate(tasks)))
            known[rows] = sums.sum(axis=0) > 1.0
        return known

    def _pack(self, precision: str, workers: Workers) -> PackedReference:
        return PackedReference.pack(self.x, np.array([self.h]), None, precision, workers, 0)

    def _decide_in(
        self,
        precision: str,
        y: FloatArray,
        log_limits: npt.NDArray[np.float64],
        rows: npt.NDArray[np.int64],
        known: npt.NDArray[np.bool_],
        pack: Callable[[str, Workers], PackedReference],
        workers: Workers,
    ) -> npt.NDArray[np.int64]:
        """Full sums of these rows; returns those for which rounding leaves it open."""
        asked = rows[log_limits[rows] > _LEAST[precision]]
        if len(asked) <= _DIRECTLY:
            return rows
        try:
            reference = pack(precision, workers)
            least = float(log_limits[asked].min())
            bound = rounding_error(reference.packed, y[asked], least, self.scale, workers)
            if bound > 0.1:
                return rows
            sums = reference.sums(y[asked], workers)[0]
        except ValueError:  # too wide for that precision
            return rows
        # sums that are too small to be trusted are far below these limits, whatever they are
        apart = np.log(np.maximum(sums, 2.0 ** TRUSTED[precision])) - log_limits[asked]
        told = np.isfinite(apart) & (np.abs(apart) > bound)
        known[asked[told]] = apart[told] > 0.0
        return np.setdiff1d(rows, asked[told])

    def decide(
        self, y: FloatArray, log_limits: npt.NDArray[np.float64], workers: Workers, patience: float = PATIENCE
    ) -> npt.NDArray[np.int8]:
        """For every row of y, whether ln sum exceeds its limit: `KNOWN`, `NOVEL`, or `OPEN` (a full sum must say)."""
        answers = np.empty(len(y), np.int8)
        # with all the patience in the world, a leaf is visited at most once for each slack, and once for its bound
        most = max(_AT_ONCE, int(patience * len(self.radii))) if patience < 1.0 else 8 * len(self.radii)

        def work(part: tuple[int, int]) -> None:
            decide_rows(
                y, *part, self.mean, self.axes, self.scale, self.extent, log_limits, self.children, self.split_axes,
                self.cuts, len(self.x), self.low, self.high, self.group_low, self.group_high, self.heads, self.tails,
                self.centres, self.radii, _SLACKS, most, answers,
            )  # fmt: skip

        workers.run(work, split_evenly(len(y), _ROWS, least_parts=16))
        return answers


def _outward(sides: npt.NDArray[np.float64], direction: int) -> npt.NDArray[np.float32]:
    """Sides of boxes (n, m) in single precision, moved out by more than its rounding: (m, n)."""
    moved = sides + direction * (np.abs(sides) * 2.0**-22 + 1e-300)
    largest = float(np.finfo(np.float32).max)
    return np.ascontiguousarray(np.clip(moved.T, -largest, largest).astype(np.float32))
