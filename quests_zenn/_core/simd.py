"""Building blocks for vector code: what the automatic vectoriser cannot be relied upon to find.

Numba compiles loops; LLVM's vectoriser turns many of them into vector code, but gives up (or checks for overlap
at every turn) when two rows of one array are read and written. The few places where that decides the speed state
their vectors explicitly, as LLVM vector operations of a fixed width. LLVM maps them onto whatever the machine has, so
the code is portable. (Results are the same bits on one kind of processor; the last bit may differ on another.)
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.cgutils import get_or_insert_function
from numba.np.arrayobj import make_array

#: Lanes of the explicit vectors; one AVX-512 register of float32, two of float64.
LANES = 16

#: Floating-point freedom given to the compiler, the same as in `jit.kernel`: never `nnan`, never `ninf`.
FAST = ("nsz", "arcp", "contract", "reassoc")


def vector_type(context: Any, dtype: types.Float, lanes: int) -> ir.VectorType:
    """LLVM vector of `lanes` floats of the Numba type `dtype`."""
    return ir.VectorType(context.get_data_type(dtype), lanes)


def data_pointer(context: Any, builder: ir.IRBuilder, array_type: types.Array, array: ir.Value) -> ir.Value:
    """Pointer to the first element of a contiguous Numba array."""
    return make_array(array_type)(context, builder, array).data


def load_vector(
    builder: ir.IRBuilder, base: ir.Value, offset: ir.Value, vtype: ir.VectorType, itemsize: int
) -> ir.Value:
    """Vector stored at ``base[offset:]``; only the alignment of one item is assumed."""
    pointer = builder.bitcast(builder.gep(base, [offset]), vtype.as_pointer())
    return builder.load(pointer, align=itemsize)


def store_vector(builder: ir.IRBuilder, value: ir.Value, base: ir.Value, offset: ir.Value, itemsize: int) -> None:
    """Store a vector at ``base[offset:]``."""
    pointer = builder.bitcast(builder.gep(base, [offset]), value.type.as_pointer())
    builder.store(value, pointer, align=itemsize)


def splat(builder: ir.IRBuilder, scalar: ir.Value, vtype: ir.VectorType) -> ir.Value:
    """Vector whose lanes all hold `scalar`."""
    zero = ir.Constant(ir.IntType(32), 0)
    one_lane = builder.insert_element(ir.Constant(vtype, ir.Undefined), scalar, zero)
    mask = ir.Constant(ir.VectorType(ir.IntType(32), vtype.count), [0] * vtype.count)
    return builder.shuffle_vector(one_lane, ir.Constant(vtype, ir.Undefined), mask)


def vector_call(builder: ir.IRBuilder, name: str, *args: ir.Value) -> ir.Value:
    """Call an LLVM intrinsic such as ``llvm.sqrt`` on vectors of one type."""
    vtype = args[0].type
    suffix = {"float": "f32", "double": "f64"}[str(vtype.element)]
    function_type = ir.FunctionType(vtype, [vtype] * len(args))
    function = get_or_insert_function(builder.module, function_type, f"{name}.v{vtype.count}{suffix}")
    return builder.call(function, args)


def reduce_add(builder: ir.IRBuilder, vector: ir.Value) -> ir.Value:
    """Sum of the lanes of a vector of floats, halves first: the same order on every machine."""
    lanes = vector.type.count
    while lanes > 1:
        lanes //= 2
        mask = ir.Constant(ir.VectorType(ir.IntType(32), lanes), list(range(lanes)))
        upper = ir.Constant(ir.VectorType(ir.IntType(32), lanes), list(range(lanes, 2 * lanes)))
        undefined = ir.Constant(vector.type, ir.Undefined)
        vector = builder.fadd(
            builder.shuffle_vector(vector, undefined, mask), builder.shuffle_vector(vector, undefined, upper)
        )
    return builder.extract_element(vector, ir.Constant(ir.IntType(32), 0))


def reduce_max(builder: ir.IRBuilder, vector: ir.Value) -> ir.Value:
    """Largest lane of a vector of floats."""
    best = builder.extract_element(vector, ir.Constant(ir.IntType(32), 0))
    for lane in range(1, vector.type.count):
        value = builder.extract_element(vector, ir.Constant(ir.IntType(32), lane))
        best = builder.select(builder.fcmp_ordered(">", value, best), value, best)
    return best
