"""What numba cannot say of vectors and memory, in LLVM's own terms.

Dot products come in vector types, since LLVM's vectoriser sums the lanes of each one on its own. The vectors
are sixteen lanes wide on paper; LLVM splits them where a processor's are narrower.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 16
_VECTOR = ir.VectorType(ir.FloatType(), LANES)
_FAST = ("reassoc", "contract", "nsz")


def _shuffle(builder, a, b, lanes):
    mask = ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes)
    return builder.shuffle_vector(a, b, mask)


def _fold(builder, a, b, width):
    """Add the two halves of every `width` lanes, of a and of b; they take turns in the result."""
    half = width // 2
    low = [i + n + k for i in range(0, LANES, width) for n in (0, LANES) for k in range(half)]
    high = [lane + half for lane in low]
    return builder.fadd(_shuffle(builder, a, b, low), _shuffle(builder, a, b, high), flags=_FAST)


def _four_dots(typing_context, row, rows, out, at):
    """out[at : at + 4] = rows [4, D] @ row [D], all contiguous float32; D must be a multiple of LANES."""

    def generate(context, builder, signature, args):
        row, rows, out = (
            context.make_array(kind)(context, builder, value)
            for kind, value in zip(signature.args[:3], args, strict=False)
        )
        size = builder.extract_value(row.shape, 0)
        index = size.type

        def load(data, position):
            pointer = builder.bitcast(builder.gep(data, [position]), _VECTOR.as_pointer())
            return builder.load(pointer, align=4)

        zero = ir.Constant(_VECTOR, [0.0] * LANES)
        sums = [cgutils.alloca_once_value(builder, zero) for _ in range(4)]
        step = ir.Constant(index, LANES)
        with cgutils.for_range_slice(builder, index(0), size, step, index) as (d, _):
            factor = load(row.data, d)
            for i, total in enumerate(sums):
                other = load(rows.data, builder.add(builder.mul(index(i), size), d))
                product = builder.fmul(factor, other, flags=_FAST)
                builder.store(builder.fadd(builder.load(total), product, flags=_FAST), total)
        s0, s1, s2, s3 = (builder.load(total) for total in sums)
        pairs = _fold(builder, s0, s1, 16), _fold(builder, s2, s3, 16)
        quarters = _fold(builder, *pairs, 8)  # four lanes each of s0, s2, s1, s3
        halves = _fold(builder, quarters, quarters, 4)
        whole = _fold(builder, halves, halves, 2)
        result = _shuffle(builder, whole, whole, [0, 8, 4, 12])
        pointer = builder.bitcast(builder.gep(out.data, [args[3]]), result.type.as_pointer())
        builder.store(result, pointer, align=4)
        return context.get_dummy_value()

    return types.void(row, rows, out, at), generate


four_dots: Any = intrinsic(_four_dots)


def _prefetch(typing_context, flat, at):
    """Ask for the cache line of flat[at], which may lie outside the array."""

    def generate(context, builder, signature, args):
        array = context.make_array(signature.args[0])(context, builder, args[0])
        pointer = builder.bitcast(builder.gep(array.data, [args[1]]), ir.IntType(8).as_pointer())
        flag = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, flag, flag, flag])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(function, [pointer, flag(0), flag(3), flag(1)])  # to read, into the first cache, data
        return context.get_dummy_value()

    return types.void(flat, at), generate


prefetch: Any = intrinsic(_prefetch)
