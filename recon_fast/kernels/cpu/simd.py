"""What numba cannot say of vectors and memory, in LLVM's own terms.

Dot products come in vector types, since LLVM's vectoriser sums the lanes of each one on its own. The vectors
are sixteen lanes wide on paper; LLVM splits them where a processor's are narrower.
"""

from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 16
_VECTOR = ir.VectorType(ir.FloatType(), LANES)
_FAST = ("reassoc", "contract", "nsz")


def _shuffle(builder, a, b, lanes):
    mask = ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes)
    return builder.shuffle_vector(a, b, mask)


def spread(builder, value, lanes):
    """A vector of that many lanes with the value in each."""
    kind = ir.VectorType(value.type, lanes)
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.IntType(32)(0))
    return _shuffle(builder, one, one, [0] * lanes)


def vector_at(builder, data, place, kind):
    """Pointer to the vector of type `kind` that begins at data[place]."""
    return builder.bitcast(builder.gep(data, [place]), kind.as_pointer())


def _zeros(builder, kind):
    """Four vectors of zeros to sum up in."""
    zero = ir.Constant(kind, [0.0] * kind.count)
    return [cgutils.alloca_once_value(builder, zero) for _ in range(4)]


def _fold(builder, a, b, width):
    """Add the two halves of every `width` lanes, of a and of b; they take turns in the result."""
    half = width // 2
    low = [i + n + k for i in range(0, LANES, width) for n in (0, LANES) for k in range(half)]
    high = [lane + half for lane in low]
    return builder.fadd(_shuffle(builder, a, b, low), _shuffle(builder, a, b, high), flags=_FAST)


def _store_sums(builder, sums, pointer):
    """Add up the lanes of each of four vectors, and store the four sums."""
    s0, s1, s2, s3 = (builder.load(total) for total in sums)
    pairs = _fold(builder, s0, s1, 16), _fold(builder, s2, s3, 16)
    quarters = _fold(builder, *pairs, 8)  # four lanes each of s0, s2, s1, s3
    halves = _fold(builder, quarters, quarters, 4)
    whole = _fold(builder, halves, halves, 2)
    result = _shuffle(builder, whole, whole, [0, 8, 4, 12])
    builder.store(result, builder.bitcast(pointer, result.type.as_pointer()), align=4)


def _four_dots(typing_context, row, rows, out, at):
    """out[at : at + 4] = rows [4, D] @ row [D], all contiguous float32; D must be a multiple of LANES."""

    def generate(context, builder, signature, args):
        row, rows, out = (
            context.make_array(kind)(context, builder, value)
            for kind, value in zip(signature.args[:3], args, strict=False)
        )
        size = builder.extract_value(row.shape, 0)
        index = size.type

        sums = _zeros(builder, _VECTOR)
        with cgutils.for_range_slice(builder, index(0), size, index(LANES), index) as (d, _):
            factor = builder.load(vector_at(builder, row.data, d, _VECTOR), align=4)
            for i, total in enumerate(sums):
                place = builder.add(builder.mul(index(i), size), d)
                other = builder.load(vector_at(builder, rows.data, place, _VECTOR), align=4)
                product = builder.fmul(factor, other, flags=_FAST)
                builder.store(builder.fadd(builder.load(total), product, flags=_FAST), total)
        _store_sums(builder, sums, builder.gep(out.data, [args[3]]))
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


class _BFloat(ir.Type):
    """LLVM's bfloat, for which llvmlite has no name."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat)

    def __hash__(self) -> int:
        return hash(_BFloat)


# Elsewhere LLVM calls a function of the compiler's runtime library, which numba does not link.
ROUNDS_TO_BF16 = bool(binding.get_host_cpu_features().get("avx512bf16"))


def _bf16_bits(builder, value):
    """The 16 bits of float32 values, a scalar or a vector, rounded to bfloat16: to nearest even."""
    lanes = value.type.count if isinstance(value.type, ir.VectorType) else 0

    def of(kind):
        return ir.VectorType(kind, lanes) if lanes else kind

    def constant(number):
        return ir.Constant(bits.type, [number] * lanes if lanes else number)

    if ROUNDS_TO_BF16:
        return builder.bitcast(builder.fptrunc(value, of(_BFloat())), of(ir.IntType(16)))
    bits = builder.bitcast(value, of(ir.IntType(32)))
    odd = builder.and_(builder.lshr(bits, constant(16)), constant(1))
    near = builder.lshr(builder.add(builder.add(bits, constant(0x7FFF)), odd), constant(16))
    near = builder.select(builder.fcmp_unordered("uno", value, value), constant(0x7FC0), near)
    return builder.trunc(near, of(ir.IntType(16)))


PAIRED = 2 * LANES  # bfloat16 values that one instruction multiplies
_WIDE = ir.VectorType(ir.FloatType(), PAIRED)


def _four_paired_dots(typing_context, row, flat, at0, at1, at2, at3, size, out, at):
    """out[at : at + 4] = the bfloat16 values flat[at0 : at0 + size], ... times row [size].

    `row` is float32 and holds bfloat16 values; `size` must be a multiple of PAIRED. Products of two values
    and their sum are one instruction, so nothing is widened. Only where ROUNDS_TO_BF16.
    """

    def generate(context, builder, signature, args):
        row, flat, out = (
            context.make_array(signature.args[i])(context, builder, args[i]).data for i in (0, 1, 7)
        )
        pairs = ir.VectorType(_BFloat(), PAIRED)
        kind = ir.FunctionType(_VECTOR, [_VECTOR, pairs, pairs])
        multiply = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.avx512bf16.dpbf16ps.512")

        size = args[6]
        index = size.type
        sums = _zeros(builder, _VECTOR)
        with cgutils.for_range_slice(builder, index(0), size, index(PAIRED), index) as (d, _):
            factor = builder.fptrunc(builder.load(vector_at(builder, row, d, _WIDE), align=4), pairs)
            for start, total in zip(args[2:6], sums, strict=True):
                other = builder.load(vector_at(builder, flat, builder.add(start, d), pairs), align=2)
                builder.store(builder.call(multiply, [builder.load(total), factor, other]), total)
        _store_sums(builder, sums, builder.gep(out, [args[8]]))
        return context.get_dummy_value()

    return types.void(row, flat, at0, at1, at2, at3, size, out, at), generate


four_paired_dots: Any = intrinsic(_four_paired_dots)


BLOCK = 4 * PAIRED  # channels whose sums over rows of bfloat16 stay in registers


def _sum_bf16_rows(typing_context, factors, flat, starts, count, d, out):
    """Sums over j < count of factors[j] * flat[starts[j] + d :], BLOCK values of each row.

    Factors and `flat` are the bits of bfloat16; two rows are multiplied at once, so nothing is widened. Where
    `out` holds such bits, out[d : d + BLOCK] = the sums. Where it is float32 they are added to it, and the
    values of each PAIRED channels stand there as two halves of four times four: channel 8 n + 4 half + k at
    16 half + 4 n + k. Only where ROUNDS_TO_BF16.
    """

    def generate(context, builder, signature, args):
        factors, flat, starts, out = (
            context.make_array(signature.args[i])(context, builder, args[i]).data for i in (0, 1, 2, 5)
        )
        count, d = args[3], args[4]
        index, lane = d.type, ir.IntType(32)
        pairs, words = ir.VectorType(_BFloat(), PAIRED), ir.VectorType(ir.IntType(16), PAIRED)
        kind = ir.FunctionType(_VECTOR, [_VECTOR, pairs, pairs])
        multiply = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.avx512bf16.dpbf16ps.512")
        adds = signature.args[5].dtype == types.float32
        none = ir.Constant(_VECTOR, [0.0] * LANES)
        sums = []
        for i in range(BLOCK // LANES):
            place = vector_at(builder, out, builder.add(d, index(i * LANES)), _VECTOR)
            sums.append(cgutils.alloca_once_value(builder, none))
            builder.store(builder.load(place, align=4) if adds else none, sums[-1])

        def row(j):
            """Where in `flat` the block of row j begins."""
            start = builder.load(builder.gep(starts, [j]))
            return builder.add(builder.sext(start, index) if start.type != index else start, d)

        def add(factor, first, second):
            """Add factor's two halves times the rows that begin at `first` and `second` (None: no row)."""
            factor = builder.bitcast(spread(builder, factor, LANES), pairs)
            for i in range(BLOCK // PAIRED):
                both = [
                    ir.Constant(words, [0] * PAIRED)
                    if at is None
                    else builder.load(
                        vector_at(builder, flat, builder.add(at, index(i * PAIRED)), words), align=2
                    )
                    for at in (first, second)
                ]
                for half in range(2):
                    # In each eighth of the vector by itself, which is one instruction.
                    lanes = [
                        8 * n + 4 * half + k + PAIRED * r
                        for n in range(4)
                        for k in range(4)
                        for r in range(2)
                    ]
                    values = builder.bitcast(_shuffle(builder, both[0], both[1], lanes), pairs)
                    total = sums[2 * i + half]
                    builder.store(builder.call(multiply, [builder.load(total), values, factor]), total)

        even = builder.and_(count, index(-2))
        with cgutils.for_range_slice(builder, index(0), even, index(2), index) as (j, _):
            factor = builder.bitcast(builder.gep(factors, [j]), lane.as_pointer())
            add(builder.load(factor, align=2), row(j), row(builder.add(j, index(1))))
        with builder.if_then(builder.icmp_signed("!=", even, count)):
            add(builder.zext(builder.load(builder.gep(factors, [even])), lane), row(even), None)
        for i in range(0, len(sums), 2):
            low, high = builder.load(sums[i]), builder.load(sums[i + 1])
            at = builder.add(d, index(i * LANES))
            if adds:
                builder.store(low, vector_at(builder, out, at, _VECTOR), align=4)
                at = builder.add(at, index(LANES))
                builder.store(high, vector_at(builder, out, at, _VECTOR), align=4)
            else:
                lanes = [4 * n + k + LANES * r for n in range(4) for r in range(2) for k in range(4)]
                bits = _bf16_bits(builder, _shuffle(builder, low, high, lanes))
                builder.store(bits, vector_at(builder, out, at, bits.type), align=2)
        return context.get_dummy_value()

    return types.void(factors, flat, starts, count, d, out), generate


sum_bf16_rows: Any = intrinsic(_sum_bf16_rows)


def _sum_rows(typing_context, weights, flat, start, step, keys, d, out):
    """out[q, d : d + PAIRED] = sum over j of weights[q, j] * flat[start + keys[j] * step + d :], for four q.

    `flat` is float32, or the 16 bits of bfloat16. The sums stay in registers while all rows pass.
    """

    def generate(context, builder, signature, args):
        weights, flat, keys, out = (
            context.make_array(signature.args[i])(context, builder, args[i]) for i in (0, 1, 4, 6)
        )
        start, step, d = args[2], args[3], args[5]
        index = d.type
        count = builder.extract_value(keys.shape, 0)
        stride, width = (builder.extract_value(array.shape, 1) for array in (weights, out))
        narrow = signature.args[1].dtype == types.uint16
        kind = ir.VectorType(ir.IntType(16), PAIRED) if narrow else _WIDE
        bits = ir.VectorType(ir.IntType(32), PAIRED)
        sums = _zeros(builder, _WIDE)
        with cgutils.for_range_slice(builder, index(0), count, index(1), index) as (j, _):
            key = builder.load(builder.gep(keys.data, [j]))
            place = builder.add(builder.add(start, builder.mul(key, step)), d)
            row = builder.load(vector_at(builder, flat.data, place, kind), align=2 if narrow else 4)
            if narrow:
                shift = ir.Constant(bits, [16] * PAIRED)
                row = builder.bitcast(builder.shl(builder.zext(row, bits), shift), _WIDE)
            for q, total in enumerate(sums):
                place = builder.add(builder.mul(index(q), stride), j)
                weight = builder.load(builder.gep(weights.data, [place]))
                product = builder.fmul(spread(builder, weight, PAIRED), row, flags=_FAST)
                builder.store(builder.fadd(builder.load(total), product, flags=_FAST), total)
        for q, total in enumerate(sums):
            place = builder.add(builder.mul(index(q), width), d)
            builder.store(builder.load(total), vector_at(builder, out.data, place, _WIDE), align=4)
        return context.get_dummy_value()

    return types.void(weights, flat, start, step, keys, d, out), generate


sum_rows: Any = intrinsic(_sum_rows)


def _spread_rows(lanes):
    """The intrinsic for vectors of that many lanes."""

    def spread_rows(typing_context, factors, rows, keys, d, out):
        """out[keys[j], d : d + lanes] = sum over four q of factors[q, j] * rows[q, d :], for all j.

        `out` is float32, or the 16 bits of bfloat16. The rows stay in registers while all keys pass.
        """

        def generate(context, builder, signature, args):
            factors, rows, keys, out = (
                context.make_array(signature.args[i])(context, builder, args[i]) for i in (0, 1, 2, 4)
            )
            d = args[3]
            index = d.type
            count = builder.extract_value(keys.shape, 0)
            stride, width, size = (builder.extract_value(a.shape, 1) for a in (factors, rows, out))
            wide = ir.VectorType(ir.FloatType(), lanes)
            held = []
            for q in range(4):
                place = builder.add(builder.mul(index(q), width), d)
                held.append(builder.load(vector_at(builder, rows.data, place, wide), align=4))
            with cgutils.for_range_slice(builder, index(0), count, index(1), index) as (j, _):
                products = []
                for q, row in enumerate(held):
                    place = builder.add(builder.mul(index(q), stride), j)
                    factor = builder.load(builder.gep(factors.data, [place]))
                    products.append(builder.fmul(spread(builder, factor, lanes), row, flags=_FAST))
                total = products[0]
                for product in products[1:]:
                    total = builder.fadd(total, product, flags=_FAST)
                if signature.args[4].dtype == types.uint16:
                    total = _bf16_bits(builder, total)
                key = builder.load(builder.gep(keys.data, [j]))
                place = builder.add(builder.mul(key, size), d)
                builder.store(total, vector_at(builder, out.data, place, total.type), align=2)
            return context.get_dummy_value()

        return types.void(factors, rows, keys, d, out), generate

    return intrinsic(spread_rows)


spread_rows: Any = _spread_rows(PAIRED)
spread_half_rows: Any = _spread_rows(LANES)


def _round_to_bf16(typing_context, value):
    """The 16 bits of a float32 rounded to bfloat16."""

    def generate(context, builder, signature, args):
        return _bf16_bits(builder, args[0])

    return types.uint16(value), generate


round_to_bf16: Any = intrinsic(_round_to_bf16)


def _rank_block(typing_context, keys, start, n, ranks):
    """ranks[start + i] = how many of the int64 keys[:n] are below keys[start + i], for the LANES values of i.

    Reads and writes LANES values from `start` on, also where these are not below n.
    """

    def generate(context, builder, signature, args):
        keys, ranks = (context.make_array(signature.args[i])(context, builder, args[i]).data for i in (0, 3))
        start, n = args[1], args[2]
        index, kind = start.type, ir.VectorType(ir.IntType(64), LANES)
        block = builder.load(vector_at(builder, keys, start, kind), align=8)
        count = cgutils.alloca_once_value(builder, ir.Constant(kind, [0] * LANES))
        with cgutils.for_range_slice(builder, index(0), n, index(1), index) as (j, _):
            key = spread(builder, builder.load(builder.gep(keys, [j])), LANES)
            below = builder.zext(builder.icmp_signed("<", key, block), kind)
            builder.store(builder.add(builder.load(count), below), count)
        builder.store(builder.load(count), vector_at(builder, ranks, start, kind), align=8)
        return context.get_dummy_value()

    return types.void(keys, start, n, ranks), generate


rank_block: Any = intrinsic(_rank_block)

QUERIES = 32  # that search together
_POINT = ir.VectorType(ir.FloatType(), QUERIES)
_BITS = ir.VectorType(ir.IntType(32), QUERIES)


def _search_run(typing_context, queries, x, y, z, number, start, end, best, found):
    """Lower `best` [QUERIES] to the points start:end where these are nearer to the queries [3, QUERIES].

    `found` [QUERIES] int32 becomes the number of the point: of equally near ones the first within the run,
    and the smaller of that and what was found before. A NaN distance is never nearer. No operation is
    contracted. Returns the largest int32 view of `best`.
    """

    def generate(context, builder, signature, args):
        arrays = [
            context.make_array(kind)(context, builder, value)
            for kind, value in zip(signature.args, args, strict=True)
            if isinstance(kind, types.Array)
        ]
        queries, x, y, z, number, best, found = (array.data for array in arrays)
        start, end = args[5], args[6]
        index, lane = start.type, ir.IntType(32)

        def vector(pointer, kind):
            return builder.bitcast(pointer, kind.as_pointer())

        def everywhere(pointer, position):
            """The value at `position` in every lane."""
            return spread(builder, builder.load(builder.gep(pointer, [position])), QUERIES)

        at = [
            builder.load(vector(builder.gep(queries, [index(axis * QUERIES)]), _POINT), align=4)
            for axis in range(3)
        ]
        near = cgutils.alloca_once_value(builder, ir.Constant(_POINT, [float("inf")] * QUERIES))
        which = cgutils.alloca_once_value(builder, ir.Constant(_BITS, [0] * QUERIES))
        with cgutils.for_range_slice(builder, start, end, index(1), index) as (i, _):
            squares = []
            for query, column in zip(at, (x, y, z), strict=True):
                difference = builder.fsub(query, everywhere(column, i))
                squares.append(builder.fmul(difference, difference))
            distance = builder.fadd(builder.fadd(squares[0], squares[1]), squares[2])
            before = builder.load(near)
            nearer = builder.fcmp_ordered("<", distance, before)
            builder.store(builder.select(nearer, distance, before), near)
            builder.store(builder.select(nearer, everywhere(number, i), builder.load(which)), which)
        distance, point = builder.load(near), builder.load(which)
        before, old = (builder.load(vector(p, k), align=4) for p, k in ((best, _POINT), (found, _BITS)))
        nearer = builder.fcmp_ordered("<", distance, before)
        tie = builder.and_(builder.fcmp_ordered("==", distance, before), builder.icmp_signed("<", point, old))
        distance = builder.select(nearer, distance, before)
        builder.store(distance, vector(best, _POINT), align=4)
        point = builder.select(builder.or_(nearer, tie), point, old)
        builder.store(point, vector(found, _BITS), align=4)
        kind = ir.FunctionType(lane, [_BITS])
        name = f"llvm.vector.reduce.smax.v{QUERIES}i32"
        largest = cgutils.get_or_insert_function(builder.module, kind, name)
        return builder.call(largest, [builder.bitcast(distance, _BITS)])

    return types.int32(queries, x, y, z, number, start, end, best, found), generate


search_run: Any = intrinsic(_search_run)
