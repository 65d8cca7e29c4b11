"""Vector code that numba does not write: the points of a run within a ball as the bits of a number."""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from recon_fast.kernels.cpu.simd import spread, vector_at

RUN = 32  # points looked at together
_POINTS = ir.VectorType(ir.FloatType(), RUN)


def _within(typing_context, x, y, z, start, qx, qy, qz, bound):
    """Bit i is set where point start + i of the columns is at a squared distance below `bound`.

    Reads RUN values of each column. A NaN distance is not below. No operation is contracted.
    """

    def generate(context, builder, signature, args):
        squares = []
        for kind, column, query in zip(signature.args[:3], args[:3], args[4:7], strict=True):
            data = context.make_array(kind)(context, builder, column).data
            points = builder.load(vector_at(builder, data, args[3], _POINTS), align=4)
            difference = builder.fsub(spread(builder, query, RUN), points)
            squares.append(builder.fmul(difference, difference))
        distance = builder.fadd(builder.fadd(squares[0], squares[1]), squares[2])
        inside = builder.fcmp_ordered("<", distance, spread(builder, args[7], RUN))
        return builder.zext(builder.bitcast(inside, ir.IntType(RUN)), ir.IntType(64))

    f32 = types.float32
    return types.int64(x, y, z, types.int64, f32, f32, f32, f32), generate


within: Any = intrinsic(_within)


def _lowest_bit(typing_context, mask):
    """Position of the lowest bit that is set in an int64 other than 0."""

    def generate(context, builder, signature, args):
        return builder.cttz(args[0], ir.IntType(1)(1))

    return types.int64(types.int64), generate


lowest_bit: Any = intrinsic(_lowest_bit)
