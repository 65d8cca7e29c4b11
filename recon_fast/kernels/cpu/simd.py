"""What numba cannot say of vectors of points and of memory, in LLVM's own terms.

The vectors are sixteen lanes or more wide on paper; LLVM splits them where a processor's are narrower.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 16
RUN = 32  # points compared with a ball together
QUERIES = 32  # that search together


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


def shuffle(builder, a, b, lanes):
    """These lanes of vector a and, counted on, of b."""
    mask = ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes)
    return builder.shuffle_vector(a, b, mask)


def spread(builder, value, lanes):
    """A vector of that many lanes with the value in each."""
    kind = ir.VectorType(value.type, lanes)
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.IntType(32)(0))
    return shuffle(builder, one, one, [0] * lanes)


def vector_at(builder, data, place, kind):
    """Pointer to the vector of type `kind` that begins at data[place]."""
    return builder.bitcast(builder.gep(data, [place]), kind.as_pointer())


@vector_code(types.int64)
def next_item(builder, address):
    """Atomically add 1 to the int64 at an address; the value before."""
    pointer = builder.inttoptr(address, ir.IntType(64).as_pointer())
    return builder.atomic_rmw("add", pointer, ir.IntType(64)(1), "seq_cst")


@vector_code(types.void)
def prefetch(builder, flat, at):
    """Ask for the cache line of flat[at], which may lie outside the array."""
    pointer = builder.bitcast(builder.gep(flat.data, [at]), ir.IntType(8).as_pointer())
    flag = ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [pointer.type, flag, flag, flag])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    builder.call(function, [pointer, flag(0), flag(3), flag(1)])  # to read, into the first cache, data


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
