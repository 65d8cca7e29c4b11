"""Rows of numbers, float32 or bfloat16, as vectors in LLVM's own terms: dot products and sums of rows.

numba sees bfloat16 as 16 bits, which are widened and rounded inside the loops at half the memory traffic.
Dot products come in vector types, since LLVM's vectoriser sums the lanes of each one on its own.
"""

import numpy as np
import torch
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from torch import Tensor

from recon_fast.kernels.cpu.simd import LANES, shuffle, spread, vector_at, vector_code

PAIRED = 2 * LANES  # bfloat16 values that one instruction multiplies
BLOCK = 4 * PAIRED  # channels whose sums over rows of bfloat16 stay in registers
_VECTOR = ir.VectorType(ir.FloatType(), LANES)
_WIDE = ir.VectorType(ir.FloatType(), PAIRED)
_HALF = ir.IntType(16)
_FAST = ("reassoc", "contract", "nsz")


def bits_of(tensor: Tensor) -> np.ndarray:
    """A view: of bfloat16 its bits, of any other dtype its values."""
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


def kept(dtype: torch.dtype) -> torch.dtype:
    """What a kernel writes for inputs of this dtype: bfloat16, or float32."""
    return dtype if dtype == torch.bfloat16 else torch.float32


def _zeros(builder, kind):
    """Four vectors of zeros to sum up in."""
    zero = ir.Constant(kind, [0.0] * kind.count)
    return [cgutils.alloca_once_value(builder, zero) for _ in range(4)]


def _fold(builder, a, b, width):
    """Add the two halves of every `width` lanes, of a and of b; they take turns in the result."""
    half = width // 2
    low = [i + n + k for i in range(0, LANES, width) for n in (0, LANES) for k in range(half)]
    high = [lane + half for lane in low]
    return builder.fadd(shuffle(builder, a, b, low), shuffle(builder, a, b, high), flags=_FAST)


def _store_sums(builder, sums, pointer):
    """Add up the lanes of each of four vectors, and store the four sums."""
    s0, s1, s2, s3 = (builder.load(total) for total in sums)
    pairs = _fold(builder, s0, s1, 16), _fold(builder, s2, s3, 16)
    quarters = _fold(builder, *pairs, 8)  # four lanes each of s0, s2, s1, s3
    halves = _fold(builder, quarters, quarters, 4)
    whole = _fold(builder, halves, halves, 2)
    result = shuffle(builder, whole, whole, [0, 8, 4, 12])
    builder.store(result, builder.bitcast(pointer, result.type.as_pointer()), align=4)


@vector_code(types.void)
def four_dots(builder, row, rows, out, at):
    """out[at : at + 4] = rows [4, D] @ row [D], all contiguous float32; D must be a multiple of LANES."""

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
    _store_sums(builder, sums, builder.gep(out.data, [at]))


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


def _multiplied_pairs(builder):
    """The instruction that adds products of pairs of bfloat16 to float32; the type of its factors."""
    pairs = ir.VectorType(_BFloat(), PAIRED)
    kind = ir.FunctionType(_VECTOR, [_VECTOR, pairs, pairs])
    name = "llvm.x86.avx512bf16.dpbf16ps.512"
    return cgutils.get_or_insert_function(builder.module, kind, name), pairs


@vector_code(types.void)
def four_paired_dots(builder, row, flat, at0, at1, at2, at3, size, out, at):
    """out[at : at + 4] = the bfloat16 values flat[at0 : at0 + size], ... times row [size].

    `row` is float32 and holds bfloat16 values; `size` must be a multiple of PAIRED. Products of two values
    and their sum are one instruction, so nothing is widened. Only where ROUNDS_TO_BF16.
    """

    multiply, pairs = _multiplied_pairs(builder)
    index = size.type
    sums = _zeros(builder, _VECTOR)
    with cgutils.for_range_slice(builder, index(0), size, index(PAIRED), index) as (d, _):
        factor = builder.fptrunc(builder.load(vector_at(builder, row.data, d, _WIDE), align=4), pairs)
        for start, total in zip((at0, at1, at2, at3), sums, strict=True):
            other = builder.load(vector_at(builder, flat.data, builder.add(start, d), pairs), align=2)
            builder.store(builder.call(multiply, [builder.load(total), factor, other]), total)
    _store_sums(builder, sums, builder.gep(out.data, [at]))


@vector_code(types.void)
def sum_bf16_rows(builder, factors, flat, starts, count, d, out):
    """Sums over j < count of factors[j] * flat[starts[j] + d :], BLOCK values of each row.

    Factors and `flat` are the bits of bfloat16; two rows are multiplied at once, so nothing is widened. Where
    `out` holds such bits, out[d : d + BLOCK] = the sums. Where it is float32 they are added to it, and the
    values of each PAIRED channels stand there as two halves of four times four: channel 8 n + 4 half + k at
    16 half + 4 n + k. Only where ROUNDS_TO_BF16.
    """

    index, lane = d.type, ir.IntType(32)
    multiply, pairs = _multiplied_pairs(builder)
    words = ir.VectorType(_HALF, PAIRED)
    adds = out.data.type.pointee == ir.FloatType()
    none = ir.Constant(_VECTOR, [0.0] * LANES)
    sums = []
    for i in range(BLOCK // LANES):
        place = vector_at(builder, out.data, builder.add(d, index(i * LANES)), _VECTOR)
        sums.append(cgutils.alloca_once_value(builder, none))
        builder.store(builder.load(place, align=4) if adds else none, sums[-1])

    def row(j):
        """Where in `flat` the block of row j begins."""
        start = builder.load(builder.gep(starts.data, [j]))
        return builder.add(builder.sext(start, index) if start.type != index else start, d)

    def add(factor, first, second):
        """Add factor's two halves times the rows that begin at `first` and `second` (None: no row)."""
        factor = builder.bitcast(spread(builder, factor, LANES), pairs)
        for i in range(BLOCK // PAIRED):
            both = [
                ir.Constant(words, [0] * PAIRED)
                if at is None
                else builder.load(
                    vector_at(builder, flat.data, builder.add(at, index(i * PAIRED)), words), align=2
                )
                for at in (first, second)
            ]
            for half in range(2):
                # In each eighth of the vector by itself, which is one instruction.
                lanes = [
                    8 * n + 4 * half + k + PAIRED * r for n in range(4) for k in range(4) for r in range(2)
                ]
                values = builder.bitcast(shuffle(builder, both[0], both[1], lanes), pairs)
                total = sums[2 * i + half]
                builder.store(builder.call(multiply, [builder.load(total), values, factor]), total)

    even = builder.and_(count, index(-2))
    with cgutils.for_range_slice(builder, index(0), even, index(2), index) as (j, _):
        factor = builder.bitcast(builder.gep(factors.data, [j]), lane.as_pointer())
        add(builder.load(factor, align=2), row(j), row(builder.add(j, index(1))))
    with builder.if_then(builder.icmp_signed("!=", even, count)):
        add(builder.zext(builder.load(builder.gep(factors.data, [even])), lane), row(even), None)
    for i in range(0, len(sums), 2):
        low, high = builder.load(sums[i]), builder.load(sums[i + 1])
        at = builder.add(d, index(i * LANES))
        if adds:
            builder.store(low, vector_at(builder, out.data, at, _VECTOR), align=4)
            at = builder.add(at, index(LANES))
            builder.store(high, vector_at(builder, out.data, at, _VECTOR), align=4)
        else:
            lanes = [4 * n + k + LANES * r for n in range(4) for r in range(2) for k in range(4)]
            bits = _bf16_bits(builder, shuffle(builder, low, high, lanes))
            builder.store(bits, vector_at(builder, out.data, at, bits.type), align=2)


@vector_code(types.void)
def sum_rows(builder, weights, flat, start, step, keys, d, out):
    """out[q, d : d + PAIRED] = sum over j of weights[q, j] * flat[start + keys[j] * step + d :], for four q.

    `flat` is float32, or the 16 bits of bfloat16. The sums stay in registers while all rows pass.
    """

    index = d.type
    count = builder.extract_value(keys.shape, 0)
    stride, width = (builder.extract_value(array.shape, 1) for array in (weights, out))
    narrow = flat.data.type.pointee == _HALF
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


@vector_code(types.void)
def spread_rows(builder, factors, rows, keys, d, out):
    """out[keys[j], d : d + PAIRED] = sum over four q of factors[q, j] * rows[q, d :], for all j.

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
            products.append(builder.fmul(spread(builder, factor, PAIRED), row, flags=_FAST))
        total = products[0]
        for product in products[1:]:
            total = builder.fadd(total, product, flags=_FAST)
        if out.data.type.pointee == _HALF:
            total = _bf16_bits(builder, total)
        key = builder.load(builder.gep(keys.data, [j]))
        place = builder.add(builder.mul(key, size), d)
        builder.store(total, vector_at(builder, out.data, place, total.type), align=2)
