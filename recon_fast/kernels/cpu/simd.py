"""What numba cannot say of vectors of points and of rows of numbers, in LLVM's own terms.

The vectors are sixteen lanes or more wide on paper; LLVM splits them where a processor's are narrower. numba
sees bfloat16 as 16 bits, which are widened and rounded inside the loops at half the memory traffic.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from torch import Tensor

LANES = 16
RUN = 32  # points compared with a ball together
QUERIES = 32  # that search together
WIDTH = 32  # values of a row that are summed together
_WIDE = ir.VectorType(ir.FloatType(), WIDTH)
_HALF = ir.IntType(16)
_FAST = ("reassoc", "contract", "nsz")


def vector_code(result: Any) -> Callable[[Callable], Any]:
    """Make an intrinsic of `write(builder, *arguments)`, which gives a value of type `result` or nothing.

    Arrays reach it as numba's structs: `data` points to the first value, `shape` holds the sizes.
    """

    def decorate(write: Callable) -> Any:
        @wraps(write)
        def typed(typing_context, *kinds):
            def generate(context, builder, signature, args):
                values = [
                    context.make_array(kind)(context, builder, value)
                    if isinstance(kind, types.Array)
                    else value
                    for kind, value in zip(signature.args, args, strict=True)
                ]
                written = write(builder, *values)
                return context.get_dummy_value() if written is None else written

            return result(*kinds), generate

        return intrinsic(typed)

    return decorate


def spread(builder, value, lanes):
    """A vector of that many lanes with the value in each."""
    kind = ir.VectorType(value.type, lanes)
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.IntType(32)(0))
    return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes))


def vector_at(builder, data, place, kind):
    """Pointer to the vector of type `kind` that begins at data[place]."""
    return builder.bitcast(builder.gep(data, [place]), kind.as_pointer())


@vector_code(types.int64)
def next_item(builder, counter):
    """Atomically add 1 to the int64 at the address `counter`; the value before."""
    pointer = builder.inttoptr(counter, ir.IntType(64).as_pointer())
    return builder.atomic_rmw("add", pointer, ir.IntType(64)(1), "seq_cst")


@vector_code(types.int64)
def lowest_bit(builder, mask):
    """Position of the lowest bit that is set in an int64 other than 0."""
    return builder.cttz(mask, ir.IntType(1)(1))


def _squared_norm(builder, differences):
    """x * x + y * y + z * z, not contracted."""
    x, y, z = (builder.fmul(difference, difference) for difference in differences)
    return builder.fadd(builder.fadd(x, y), z)


@vector_code(types.int64)
def within(builder, x, y, z, start, qx, qy, qz, bound):
    """Bit i is set where point start + i of the columns is at a squared distance below `bound`.

    Reads RUN values of each column. A NaN distance is not below.
    """
    kind = ir.VectorType(ir.FloatType(), RUN)
    differences = []
    for column, query in zip((x, y, z), (qx, qy, qz), strict=True):
        points = builder.load(vector_at(builder, column.data, start, kind), align=4)
        differences.append(builder.fsub(spread(builder, query, RUN), points))
    distance = _squared_norm(builder, differences)
    inside = builder.fcmp_ordered("<", distance, spread(builder, bound, RUN))
    return builder.zext(builder.bitcast(inside, ir.IntType(RUN)), ir.IntType(64))


@vector_code(types.void)
def rank_block(builder, keys, start, n, ranks):
    """ranks[start + i] = how many of the int64 keys[:n] are below keys[start + i], for the LANES values of i.

    Reads and writes LANES values from `start` on, also where these are not below n.
    """
    index, kind = start.type, ir.VectorType(ir.IntType(64), LANES)
    block = builder.load(vector_at(builder, keys.data, start, kind), align=8)
    count = cgutils.alloca_once_value(builder, ir.Constant(kind, [0] * LANES))
    with cgutils.for_range_slice(builder, index(0), n, index(1), index) as (j, _):
        key = spread(builder, builder.load(builder.gep(keys.data, [j])), LANES)
        below = builder.zext(builder.icmp_signed("<", key, block), kind)
        builder.store(builder.add(builder.load(count), below), count)
    builder.store(builder.load(count), vector_at(builder, ranks.data, start, kind), align=8)


@vector_code(types.int32)
def search_run(builder, queries, x, y, z, number, start, end, best, found):
    """Lower `best` [QUERIES] to the points start:end where these are nearer to the queries [3, QUERIES].

    `found` [QUERIES] int32 becomes the number of the point: of equally near ones the first within the run,
    and the smaller of that and what was found before. A NaN distance is never nearer. Returns the largest
    int32 view of `best`.
    """
    index, lane = start.type, ir.IntType(32)
    floats, bits = ir.VectorType(ir.FloatType(), QUERIES), ir.VectorType(lane, QUERIES)

    def everywhere(array, position):
        """The value at `position` in every lane."""
        return spread(builder, builder.load(builder.gep(array.data, [position])), QUERIES)

    at = [
        builder.load(vector_at(builder, queries.data, index(axis * QUERIES), floats), align=4)
        for axis in range(3)
    ]
    near = cgutils.alloca_once_value(builder, ir.Constant(floats, [float("inf")] * QUERIES))
    which = cgutils.alloca_once_value(builder, ir.Constant(bits, [0] * QUERIES))
    with cgutils.for_range_slice(builder, start, end, index(1), index) as (i, _):
        differences = [
            builder.fsub(query, everywhere(column, i)) for query, column in zip(at, (x, y, z), strict=True)
        ]
        distance, before = _squared_norm(builder, differences), builder.load(near)
        nearer = builder.fcmp_ordered("<", distance, before)
        builder.store(builder.select(nearer, distance, before), near)
        builder.store(builder.select(nearer, everywhere(number, i), builder.load(which)), which)
    distance, point = builder.load(near), builder.load(which)
    best_at, found_at = (vector_at(builder, a.data, index(0), k) for a, k in ((best, floats), (found, bits)))
    before, old = builder.load(best_at, align=4), builder.load(found_at, align=4)
    nearer = builder.fcmp_ordered("<", distance, before)
    tie = builder.and_(builder.fcmp_ordered("==", distance, before), builder.icmp_signed("<", point, old))
    distance = builder.select(nearer, distance, before)
    builder.store(distance, best_at, align=4)
    builder.store(builder.select(builder.or_(nearer, tie), point, old), found_at, align=4)
    name = f"llvm.vector.reduce.smax.v{QUERIES}i32"
    largest = cgutils.get_or_insert_function(builder.module, ir.FunctionType(lane, [bits]), name)
    return builder.call(largest, [builder.bitcast(distance, bits)])


def bits_of(tensor: Tensor) -> np.ndarray:
    """A view: of bfloat16 its bits, of any other dtype its values."""
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


def kept(dtype: torch.dtype) -> torch.dtype:
    """What a kernel writes for inputs of this dtype: bfloat16, or float32."""
    return dtype if dtype == torch.bfloat16 else torch.float32


def _bf16_bits(builder, value):
    """The 16 bits of float32 values, a scalar or a vector, rounded to bfloat16: to nearest even."""
    lanes = value.type.count if isinstance(value.type, ir.VectorType) else 0

    def of(kind):
        return ir.VectorType(kind, lanes) if lanes else kind

    def constant(number):
        return ir.Constant(bits.type, [number] * lanes if lanes else number)

    bits = builder.bitcast(value, of(ir.IntType(32)))
    odd = builder.and_(builder.lshr(bits, constant(16)), constant(1))
    near = builder.lshr(builder.add(builder.add(bits, constant(0x7FFF)), odd), constant(16))
    near = builder.select(builder.fcmp_unordered("uno", value, value), constant(0x7FC0), near)
    return builder.trunc(near, of(ir.IntType(16)))


@vector_code(types.float32)
def widen(builder, value):
    """float32 of a float32, or of the 16 bits of a bfloat16."""
    if value.type != _HALF:
        return value
    bits = ir.IntType(32)
    return builder.bitcast(builder.shl(builder.zext(value, bits), bits(16)), ir.FloatType())


@vector_code(types.void)
def put(builder, row, at, value):
    """row[at] = the float32 value, rounded to bfloat16 (to nearest even) where `row` holds such bits."""
    place = builder.gep(row.data, [at])
    builder.store(_bf16_bits(builder, value) if place.type.pointee == _HALF else value, place)


@vector_code(types.void)
def sum_rows(builder, weights, flat, start, step, keys, d, out):
    """out[q, d : d + WIDTH] = sum over j of weights[q, j] * flat[start + keys[j] * step + d :], for four q.

    `flat` is float32, or the 16 bits of bfloat16. The sums stay in registers while all rows pass.
    """
    index = d.type
    count = builder.extract_value(keys.shape, 0)
    stride, width = (builder.extract_value(array.shape, 1) for array in (weights, out))
    narrow = flat.data.type.pointee == _HALF
    kind = ir.VectorType(ir.IntType(16), WIDTH) if narrow else _WIDE
    bits = ir.VectorType(ir.IntType(32), WIDTH)
    zero = ir.Constant(_WIDE, [0.0] * WIDTH)
    sums = [cgutils.alloca_once_value(builder, zero) for _ in range(4)]
    with cgutils.for_range_slice(builder, index(0), count, index(1), index) as (j, _):
        key = builder.load(builder.gep(keys.data, [j]))
        place = builder.add(builder.add(start, builder.mul(key, step)), d)
        row = builder.load(vector_at(builder, flat.data, place, kind), align=2 if narrow else 4)
        if narrow:
            shift = ir.Constant(bits, [16] * WIDTH)
            row = builder.bitcast(builder.shl(builder.zext(row, bits), shift), _WIDE)
        for q, total in enumerate(sums):
            place = builder.add(builder.mul(index(q), stride), j)
            weight = builder.load(builder.gep(weights.data, [place]))
            product = builder.fmul(spread(builder, weight, WIDTH), row, flags=_FAST)
            builder.store(builder.fadd(builder.load(total), product, flags=_FAST), total)
    for q, total in enumerate(sums):
        place = builder.add(builder.mul(index(q), width), d)
        builder.store(builder.load(total), vector_at(builder, out.data, place, _WIDE), align=4)


@vector_code(types.void)
def spread_rows(builder, factors, rows, keys, d, out):
    """out[keys[j], d : d + WIDTH] = sum over four q of factors[q, j] * rows[q, d :], for all j.

    `out` is float32, or the 16 bits of bfloat16. The rows stay in registers while all keys pass.
    """
    index = d.type
    count = builder.extract_value(keys.shape, 0)
    stride, width, size = (builder.extract_value(a.shape, 1) for a in (factors, rows, out))
    held = []
    for q in range(4):
        place = builder.add(builder.mul(index(q), width), d)
        held.append(builder.load(vector_at(builder, rows.data, place, _WIDE), align=4))
    with cgutils.for_range_slice(builder, index(0), count, index(1), index) as (j, _):
        products = []
        for q, row in enumerate(held):
            place = builder.add(builder.mul(index(q), stride), j)
            factor = builder.load(builder.gep(factors.data, [place]))
            products.append(builder.fmul(spread(builder, factor, WIDTH), row, flags=_FAST))
        total = products[0]
        for product in products[1:]:
            total = builder.fadd(total, product, flags=_FAST)
        if out.data.type.pointee == _HALF:
            total = _bf16_bits(builder, total)
        key = builder.load(builder.gep(keys.data, [j]))
        place = builder.add(builder.mul(key, size), d)
        builder.store(total, vector_at(builder, out.data, place, total.type), align=2)
