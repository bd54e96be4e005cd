"""Vector steps of the descriptor: rows of the pair matrix, and sorting networks over its columns.

The columns of the matrix are sorted independently of each other, so one comparator of the network serves a whole
vector of columns. Matrices of up to 32 rows are sorted without leaving the registers.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.core.cgutils import alloca_once_value, for_range_slice
from numba.extending import intrinsic

from quests_zenn._core.jit import PLAIN
from quests_zenn._core.simd import (
    FAST,
    LANES,
    data_pointer,
    load_vector,
    reduce_add,
    splat,
    store_vector,
    vector_call,
    vector_type,
)

#: Bytes of a vector in the register networks: one AVX-512 register, so that 32 rows just fit.
REGISTER_BYTES = 64


@cache
def sorting_network(n: int) -> np.ndarray:
    """Comparators (i, j), i < j, of Batcher's odd-even merge sort for `n` inputs, `n` a power of two.

    Returns
    -------
    numpy.ndarray, shape (n_comparators, 2), int64
        191 comparators for n = 32. Leaving out those with j >= m sorts m <= n inputs.

    References
    ----------
    K. E. Batcher, Sorting networks and their applications, AFIPS Spring Joint Computer Conference 32 (1968) 307.
    """
    pairs = []
    merged = 1
    while merged < n:
        stride = merged
        while stride >= 1:
            for first in range(stride % merged, n - stride, 2 * stride):
                for i in range(first, min(first + stride, n - stride)):
                    if i // (2 * merged) == (i + stride) // (2 * merged):
                        pairs.append((i, i + stride))
            stride //= 2
        merged *= 2
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def _comparator(builder: ir.IRBuilder, a: ir.Value, b: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Lane-wise (larger, smaller), in the form that compiles to one maximum and one minimum."""
    larger = builder.select(builder.fcmp_ordered(">", a, b), a, b)
    smaller = builder.select(builder.fcmp_ordered("<", b, a), b, a)
    return larger, smaller


@intrinsic
def store_pair_row(typingctx, matrix, at, x, y, z, s, row, start):  # type: ignore[no-untyped-def]
    """``matrix[at + c] = s[row] s[start + c] / |r[start + c] - r[row]|`` for `LANES` columns c.

    `x`, `y`, `z`, `s` are 1-D contiguous arrays of one float type, `matrix` a flat array of the same type.
    The diagonal comes out infinite or NaN; the caller overwrites it.
    """
    sig = types.void(matrix, types.intp, x, y, z, s, types.intp, types.intp)

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        dtype = signature.args[0].dtype
        size = dtype.bitwidth // 8
        vtype = vector_type(context, dtype, LANES)
        out, px, py, pz, ps = (data_pointer(context, builder, signature.args[i], args[i]) for i in (0, 2, 3, 4, 5))
        at, row, start = args[1], args[6], args[7]
        r2 = ir.Constant(vtype, [0.0] * LANES)
        for base in (px, py, pz):
            centre = splat(builder, builder.load(builder.gep(base, [row])), vtype)
            delta = builder.fsub(load_vector(builder, base, start, vtype, size), centre)
            r2 = builder.fadd(r2, builder.fmul(delta, delta, flags=FAST), flags=FAST)
        weight = splat(builder, builder.load(builder.gep(ps, [row])), vtype)
        top = builder.fmul(weight, load_vector(builder, ps, start, vtype, size))
        value = builder.fdiv(top, vector_call(builder, "llvm.sqrt", r2), flags=FAST)
        store_vector(builder, value, out, at, size)
        return context.get_dummy_value()

    return sig, codegen


@intrinsic
def compare_exchange(typingctx, matrix, high, low):  # type: ignore[no-untyped-def]
    """Comparator on `LANES` columns at once: the larger of each pair goes to ``matrix[high:]``."""
    sig = types.void(matrix, types.intp, types.intp)

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        dtype = signature.args[0].dtype
        size = dtype.bitwidth // 8
        vtype = vector_type(context, dtype, LANES)
        base = data_pointer(context, builder, signature.args[0], args[0])
        a, b = (load_vector(builder, base, offset, vtype, size) for offset in args[1:])
        for value, offset in zip(_comparator(builder, a, b), args[1:], strict=True):
            store_vector(builder, value, base, offset, size)
        return context.get_dummy_value()

    return sig, codegen


@intrinsic
def rank_lanes(typingctx, values, n, start, ranks):  # type: ignore[no-untyped-def]
    """Ranks of ``values[start : start + LANES]`` among ``values[:n]``, ascending, equal values by index.

    `start` is a multiple of `LANES`; `values` and `ranks` (int64) are readable and writable up to the next one.
    """
    sig = types.void(values, types.intp, types.intp, ranks)

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        dtype = signature.args[0].dtype
        size = dtype.bitwidth // 8
        vtype = vector_type(context, dtype, LANES)
        itype = ir.VectorType(ir.IntType(64), LANES)
        base = data_pointer(context, builder, signature.args[0], args[0])
        out = data_pointer(context, builder, signature.args[3], args[3])
        n, start = args[1], args[2]
        intp = n.type
        mine = load_vector(builder, base, start, vtype, size)
        lanes = builder.add(splat(builder, start, itype), ir.Constant(itype, list(range(LANES))))
        total = alloca_once_value(builder, ir.Constant(itype, [0] * LANES))
        end = builder.add(start, ir.Constant(intp, LANES))
        end = builder.select(builder.icmp_signed("<", end, n), end, n)

        def count(first: ir.Value, stop: ir.Value, equal_counts: bool | None) -> None:
            with for_range_slice(builder, first, stop, ir.Constant(intp, 1), intp) as (other, _):
                value = splat(builder, builder.load(builder.gep(base, [other])), vtype)
                if equal_counts is None:
                    equal = builder.fcmp_ordered("==", value, mine)
                    lower = builder.icmp_signed("<", splat(builder, other, itype), lanes)
                    before = builder.or_(builder.fcmp_ordered("<", value, mine), builder.and_(equal, lower))
                else:
                    before = builder.fcmp_ordered("<=" if equal_counts else "<", value, mine)
                builder.store(builder.add(builder.load(total), builder.zext(before, itype)), total)

        count(ir.Constant(intp, 0), start, True)  # lower indices than any lane
        count(start, end, None)  # the lanes among themselves
        count(end, n, False)  # higher indices
        store_vector(builder, builder.load(total), out, start, 8)
        return context.get_dummy_value()

    return sig, codegen


@intrinsic
def row_total(typingctx, matrix, at, width):  # type: ignore[no-untyped-def]
    """Sum of ``matrix[at : at + width]``, `width` a multiple of `LANES`."""
    sig = matrix.dtype(matrix, types.intp, types.intp)

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        dtype = signature.args[0].dtype
        size = dtype.bitwidth // 8
        vtype = vector_type(context, dtype, LANES)
        base = data_pointer(context, builder, signature.args[0], args[0])
        intp = args[1].type
        total = alloca_once_value(builder, ir.Constant(vtype, [0.0] * LANES))
        end = builder.add(args[1], args[2])
        with for_range_slice(builder, args[1], end, ir.Constant(intp, LANES), intp) as (at, _):
            builder.store(builder.fadd(builder.load(total), load_vector(builder, base, at, vtype, size)), total)
        return reduce_add(builder, builder.load(total))

    return sig, codegen


def _register_sort(n_rows: int) -> Any:
    @intrinsic
    def sort_columns(typingctx, matrix, start, stride):  # type: ignore[no-untyped-def]
        """Sort one register of columns, largest first; row r starts at ``matrix[start + r * stride]``."""
        sig = types.void(matrix, types.intp, types.intp)

        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
            dtype = signature.args[0].dtype
            size = dtype.bitwidth // 8
            vtype = vector_type(context, dtype, REGISTER_BYTES // size)
            base = data_pointer(context, builder, signature.args[0], args[0])
            intp = args[1].type
            offsets = [builder.add(args[1], builder.mul(args[2], ir.Constant(intp, r))) for r in range(n_rows)]
            rows = [load_vector(builder, base, offset, vtype, size) for offset in offsets]
            for i, j in sorting_network(n_rows).tolist():
                rows[i], rows[j] = _comparator(builder, rows[i], rows[j])
            for offset, value in zip(offsets, rows, strict=True):
                store_vector(builder, value, base, offset, size)
            return context.get_dummy_value()

        return sig, codegen

    return sort_columns


def _plain_store_pair_row(matrix, at, x, y, z, s, row, start):  # type: ignore[no-untyped-def]
    lanes = slice(start, start + LANES)
    with np.errstate(divide="ignore", invalid="ignore"):
        r2 = (x[lanes] - x[row]) ** 2 + (y[lanes] - y[row]) ** 2 + (z[lanes] - z[row]) ** 2
        matrix[at : at + LANES] = s[row] * s[lanes] / np.sqrt(r2)


def _plain_compare_exchange(matrix, high, low):  # type: ignore[no-untyped-def]
    a, b = matrix[high : high + LANES].copy(), matrix[low : low + LANES].copy()
    matrix[high : high + LANES] = np.maximum(a, b)
    matrix[low : low + LANES] = np.minimum(a, b)


def _plain_row_total(matrix, at, width):  # type: ignore[no-untyped-def]
    return matrix[at : at + width].sum()


def _plain_rank_lanes(values, n, start, ranks):  # type: ignore[no-untyped-def]
    lanes = np.arange(start, start + LANES)
    mine = values[lanes]
    first = (values[:n, None] < mine) | ((values[:n, None] == mine) & (np.arange(n)[:, None] < lanes))
    ranks[lanes] = first.sum(axis=0)


def _plain_register_sort(n_rows):  # type: ignore[no-untyped-def]
    def sort_columns(matrix, start, stride):  # type: ignore[no-untyped-def]
        rows = [
            slice(start + r * stride, start + r * stride + REGISTER_BYTES // matrix.itemsize) for r in range(n_rows)
        ]
        block = -np.sort(-np.array([matrix[r] for r in rows]), axis=0)
        for r, values in zip(rows, block, strict=True):
            matrix[r] = values

    return sort_columns


if PLAIN:
    store_pair_row, compare_exchange = _plain_store_pair_row, _plain_compare_exchange  # type: ignore[assignment]
    row_total, rank_lanes = _plain_row_total, _plain_rank_lanes  # type: ignore[assignment]
    _register_sort = _plain_register_sort  # type: ignore[assignment]

sort_8_rows = _register_sort(8)
sort_16_rows = _register_sort(16)
sort_32_rows = _register_sort(32)
