"""Vector code that numba does not write: the points of a run within a ball as the bits of a number."""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

RUN = 32  # points looked at together
_POINTS = ir.VectorType(ir.FloatType(), RUN)


def _within(typing_context, x, y, z, start, qx, qy, qz, bound):
    """Bit i is set where point start + i of the columns is at a squared distance below `bound`.

    Reads RUN values of each column. A NaN distance is not below. No operation is contracted.
    """

    def generate(context, builder, signature, args):
        def spread(value):
            one = builder.insert_element(ir.Constant(_POINTS, ir.Undefined), value, ir.IntType(32)(0))
            zeros = ir.Constant(ir.VectorType(ir.IntType(32), RUN), [0] * RUN)
            return builder.shuffle_vector(one, ir.Constant(_POINTS, ir.Undefined), zeros)

        squares = []
        for kind, column, query in zip(signature.args[:3], args[:3], args[4:7], strict=True):
            data = context.make_array(kind)(context, builder, column).data
            pointer = builder.bitcast(builder.gep(data, [args[3]]), _POINTS.as_pointer())
            difference = builder.fsub(spread(query), builder.load(pointer, align=4))
            squares.append(builder.fmul(difference, difference))
        distance = builder.fadd(builder.fadd(squares[0], squares[1]), squares[2])
        inside = builder.fcmp_ordered("<", distance, spread(args[7]))
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
