"""The innermost step of every kernel sum: a few rows against panels of columns, all in registers.

Layout. Environments are centred, scaled by sqrt(log2(e) / 2) / h, and packed in *panels* of W = 2 vectors: panel q
holds environments q W ... q W + W - 1 as an array (d, W), so that one load brings one component of a vector's worth
of environments. Rows of the tile are read from the same layout, one number at a time. With n_i = |x_i|^2 the
exponent to base 2 is t_ij = 2 x_i . x_j - n_i - n_j; padding has n = inf and weight 0.

Work per pair of vectors: d fused multiply-adds and about 20 operations for 2^t. `ROWS` x `VECTORS` accumulators stay in
registers over the whole loop; each exponential is used at once, for its row and (symmetric sums) for its column.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba.core import types
from numba.core.cgutils import alloca_once_value, for_range_slice
from numba.extending import intrinsic

from quests_zenn._core.jit import PLAIN
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

_WIDE = binding.get_host_cpu_features().get("avx512f", False)

#: Rows of a register tile, and vectors of 512 bits that they meet at a time. Accumulators take half of the registers
#: (16 of 512 bits, or 8 of 256), the rest is for factors. With more of them, all move to memory and back each time.
ROWS, VECTORS = (8, 2) if _WIDE else (4, 1)

#: Exponents below are taken as this one: 2^-1000 still adds up without becoming subnormal.
LOWEST = {"double": -1000.0, "float": -120.0}


def panel_width(dtype: Any) -> int:
    """Environments in a panel: two vectors of 512 bits."""
    return 2 * 64 // np.dtype(dtype).itemsize


def exp2_coefficients(order: int) -> list[float]:
    """Taylor coefficients of 2^f. On |f| <= 1/2 the remainder is below (ln 2 / 2)^(order + 1) / (order + 1)!."""
    return [math.log(2.0) ** n / math.factorial(n) for n in range(order + 1)]


# remainders: 2e-16 (order 12) and 5e-9 (order 7), below the rounding of the type
_COEFFICIENTS = {"double": exp2_coefficients(12), "float": exp2_coefficients(7)}
_MANTISSA = {"double": 52, "float": 23}


def _exp2(builder: ir.IRBuilder, t: ir.Value) -> ir.Value:
    """2^t lane by lane, for t <= 0."""
    vtype = t.type
    kind = str(vtype.element)
    bits = _MANTISSA[kind]
    itype = ir.VectorType(ir.IntType({"double": 64, "float": 32}[kind]), vtype.count)

    def constant(value: float) -> ir.Constant:
        return ir.Constant(vtype, [value] * vtype.count)

    lowest = constant(LOWEST[kind])
    t = builder.select(builder.fcmp_ordered(">", t, lowest), t, lowest)
    # adding 1.5 * 2^bits rounds t to an integer and leaves it in the low bits; no fast flags here, they would undo it
    magic = constant(1.5 * 2.0**bits)
    shifted = builder.fadd(t, magic)
    fraction = builder.fsub(t, builder.fsub(shifted, magic))
    coefficients = _COEFFICIENTS[kind]
    value: ir.Value = constant(coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        value = vector_call(builder, "llvm.fmuladd", value, fraction, constant(coefficient))
    exponent = builder.shl(builder.bitcast(shifted, itype), ir.Constant(itype, [bits] * vtype.count))
    return builder.bitcast(builder.add(builder.bitcast(value, itype), exponent), vtype)


def _accumulate_wide(builder: ir.IRBuilder, total: ir.Value, out: ir.Value, at: ir.Value) -> None:
    """out[at:] += total, where `out` is float64 whatever the type of `total`."""
    wide = ir.VectorType(ir.DoubleType(), total.type.count)
    if total.type != wide:
        total = builder.fpext(total, wide)
    store_vector(builder, builder.fadd(load_vector(builder, out, at, wide, 8), total), out, at, 8)


def _emit(builder: ir.IRBuilder, context: Any, signature: Any, args: Any, mode: str) -> None:
    dtype = signature.args[0].dtype
    element = context.get_data_type(dtype)
    size = dtype.bitwidth // 8
    lanes = 64 // size
    vtype = ir.VectorType(element, lanes)
    intp = ir.IntType(64)
    pointers = [
        data_pointer(context, builder, t, v) if isinstance(t, types.Array) else v
        for t, v in zip(signature.args, args, strict=True)
    ]
    (
        packed_a, norms_a, weights_a, packed_b, norms_b, weights_b, d, row, first, last,
        scales, n_scales, sums, sums_at, stride, columns, columns_stride,
    ) = pointers  # fmt: skip
    width = ir.Constant(intp, 2 * lanes)
    parts = ir.Constant(intp, 2 // VECTORS)  # of a panel, one after the other
    vectors = range(VECTORS)

    def offset(base: ir.Value, n: int) -> ir.Value:
        return builder.add(base, ir.Constant(intp, n))

    def scalar(base: ir.Value, at: ir.Value) -> ir.Value:
        return splat(builder, builder.load(builder.gep(base, [at])), vtype)

    panel_size = builder.mul(d, width)
    in_panel = builder.urem(row, width)
    a_start = builder.add(builder.mul(builder.udiv(row, width), panel_size), in_panel)
    zero = ir.Constant(vtype, [0.0] * lanes)
    lowest = ir.Constant(vtype, [-math.inf] * lanes)

    start, stop = builder.mul(first, parts), builder.mul(last, parts)
    with for_range_slice(builder, start, stop, ir.Constant(intp, 1), intp) as (step, _):
        dots = [[alloca_once_value(builder, zero) for _ in vectors] for _ in range(ROWS)]
        column = builder.mul(step, ir.Constant(intp, VECTORS * lanes))
        b_start = builder.add(builder.mul(builder.udiv(column, width), panel_size), builder.urem(column, width))
        with for_range_slice(builder, ir.Constant(intp, 0), panel_size, width, intp) as (at, _):
            b_at = builder.add(b_start, at)
            a_at = builder.add(a_start, at)
            b = [load_vector(builder, packed_b, offset(b_at, v * lanes), vtype, size) for v in vectors]
            for r in range(ROWS):
                a = scalar(packed_a, offset(a_at, r))
                for v in vectors:
                    fused = vector_call(builder, "llvm.fmuladd", a, b[v], builder.load(dots[r][v]))
                    builder.store(fused, dots[r][v])
        two = ir.Constant(vtype, [2.0] * lanes)
        t = []
        minus_b = [
            builder.fsub(zero, load_vector(builder, norms_b, offset(column, v * lanes), vtype, size)) for v in vectors
        ]
        for r in range(ROWS):
            norm_a = scalar(norms_a, offset(row, r))
            t.append(
                [
                    vector_call(
                        builder, "llvm.fmuladd", two, builder.load(dots[r][v]), builder.fsub(minus_b[v], norm_a)
                    )
                    for v in vectors
                ]
            )
        if mode == "self":  # a row meets itself at distance 0, whatever rounding says
            itype = ir.VectorType(intp, lanes)
            for v in vectors:
                here = builder.add(
                    splat(builder, offset(column, v * lanes), itype), ir.Constant(itype, list(range(lanes)))
                )
                for r in range(ROWS):
                    same = builder.icmp_signed("==", here, splat(builder, offset(sums_at, r), itype))
                    finite = builder.fcmp_ordered(">", t[r][v], lowest)
                    t[r][v] = builder.select(builder.and_(same, finite), zero, t[r][v])
        if mode == "max":
            for r in range(ROWS):
                peak = lowest
                for v in vectors:
                    peak = builder.select(builder.fcmp_ordered(">", t[r][v], peak), t[r][v], peak)
                top = reduce_max(builder, peak)
                if dtype.bitwidth != 64:
                    top = builder.fpext(top, ir.DoubleType())
                pointer = builder.gep(sums, [builder.add(sums_at, ir.Constant(intp, r))])
                old = builder.load(pointer)
                builder.store(builder.select(builder.fcmp_ordered(">", top, old), top, old), pointer)
            return
        if mode == "exponents":
            for r in range(ROWS):
                start = builder.add(
                    builder.mul(builder.add(sums_at, ir.Constant(intp, r)), stride),
                    builder.sub(column, builder.mul(first, width)),
                )
                for v in vectors:
                    store_vector(builder, t[r][v], sums, offset(start, v * lanes), size)
            return
        w_b = [load_vector(builder, weights_b, offset(column, v * lanes), vtype, size) for v in vectors]
        with for_range_slice(builder, ir.Constant(intp, 0), n_scales, ir.Constant(intp, 1), intp) as (h, _):
            scale = scalar(scales, h)
            by_column = [zero for _ in vectors]
            for r in range(ROWS):
                by_row = zero
                w_a = scalar(weights_a, offset(row, r))
                for v in vectors:
                    k = _exp2(builder, builder.fmul(scale, t[r][v], flags=FAST))
                    by_row = vector_call(builder, "llvm.fmuladd", k, w_b[v], by_row)
                    if mode == "both":
                        by_column[v] = vector_call(builder, "llvm.fmuladd", k, w_a, by_column[v])
                total = reduce_add(builder, by_row)
                if dtype.bitwidth != 64:
                    total = builder.fpext(total, ir.DoubleType())
                at = builder.add(builder.mul(h, stride), builder.add(sums_at, ir.Constant(intp, r)))
                pointer = builder.gep(sums, [at])
                builder.store(builder.fadd(builder.load(pointer), total), pointer)
            if mode == "both":
                at = builder.add(builder.mul(h, columns_stride), column)
                for v in vectors:
                    _accumulate_wide(builder, by_column[v], columns, offset(at, v * lanes))


def _register_tile(mode: str) -> Any:
    @intrinsic
    def tile(
        typingctx, packed_a, norms_a, weights_a, packed_b, norms_b, weights_b, d, row, first, last,
        scales, n_scales, sums, sums_at, stride, columns, columns_stride,
    ):  # type: ignore[no-untyped-def]  # fmt: skip
        i = types.intp
        sig = types.void(
            packed_a, norms_a, weights_a, packed_b, norms_b, weights_b, i, i, i, i,
            scales, i, sums, i, i, columns, i,
        )  # fmt: skip

        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
            _emit(builder, context, signature, args, mode)
            return context.get_dummy_value()

        return sig, codegen

    return tile


def _plain_tile(mode: str) -> Any:
    def tile(
        packed_a, norms_a, weights_a, packed_b, norms_b, weights_b, d, row, first, last,
        scales, n_scales, sums, sums_at, stride, columns, columns_stride,
    ):  # type: ignore[no-untyped-def]  # fmt: skip
        width = panel_width(packed_a.dtype)
        start = row // width * d * width
        a = packed_a[start : start + d * width].reshape(d, width)[:, row % width : row % width + ROWS]
        rows = slice(row, row + ROWS)
        lowest = LOWEST["double" if packed_a.itemsize == 8 else "float"]
        for panel in range(first, last):
            b = packed_b[panel * d * width : (panel + 1) * d * width].reshape(d, width)
            cols = slice(panel * width, (panel + 1) * width)
            t = 2.0 * (a.T @ b) - norms_b[cols] - norms_a[rows, None]
            if mode == "self":
                own = np.arange(cols.start, cols.stop) == np.arange(sums_at, sums_at + ROWS)[:, None]
                t[own & np.isfinite(t)] = 0.0
            if mode == "max":
                out = sums[sums_at : sums_at + ROWS]
                out[:] = np.maximum(out, t.max(axis=1))
                continue
            if mode == "exponents":
                for r in range(ROWS):
                    at = (sums_at + r) * stride + (panel - first) * width
                    sums[at : at + width] = t[r]
                continue
            for h in range(n_scales):
                k = np.exp2(np.maximum(scales[h] * t, lowest))
                sums[h * stride + sums_at : h * stride + sums_at + ROWS] += k @ weights_b[cols]
                if mode == "both":
                    columns[h * columns_stride + cols.start : h * columns_stride + cols.stop] += weights_a[rows] @ k

    return tile


_make = _plain_tile if PLAIN else _register_tile

#: Add to ``sums[h * stride + sums_at + r]`` the kernel sums of rows ``row + r`` over panels [first, last).
tile_rows = _make("rows")

#: The same for rows that stand among the columns, at ``sums_at + r``: each meets itself at distance 0.
tile_rows_with_self = _make("self")

#: The same, and add the mirror images to ``columns[h * columns_stride + j]``.
tile_rows_and_columns = _make("both")

#: Raise ``sums[sums_at + r]`` to the largest exponent of rows ``row + r`` over panels [first, last).
tile_row_maxima = _make("max")

#: Store the exponents of rows ``row + r`` over panels [first, last) at ``sums[(sums_at + r) * stride:]``.
tile_exponents = _make("exponents")
