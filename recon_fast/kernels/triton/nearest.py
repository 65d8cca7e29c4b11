"""The nearest point of another cloud, for clouds of any size, one way or both ways in one launch.

    idx[n] = argmin_m |src_n - dst_m|^2        ties to the smallest m

A block of `src` and a running minimum per (row, column) stay in registers while tiles of `dst` pass: a pair
costs its distance, one comparison and two selects, and rows are reduced once at the end. The distance
matrix is never written to memory. The distance that is returned is computed again from the two points, so a
NaN shows.

With few blocks several programs share one, each takes a span of `dst` and writes a 64-bit key (distance
bits, index) per row; a second launch takes the smallest.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from recon_fast.kernels.triton._common import (
    NO_CONTRACTION,
    batch_and_block,
    load_points,
    num_processors,
    on_device_of,
    pair_distances,
    sort_key,
    squared_norm,
    valid_points,
)

BLOCK_N = 64
BLOCK_M = 64
NUM_WARPS = 4  # 32 pairs per thread, 64 registers of running minima
PROGRAMS_PER_PROCESSOR = 2  # what fits the registers; with fewer, blocks are split
MIN_SPAN = 256  # points of `dst` that are worth a program


@triton.jit
def _direction(
    src_ptr, dst_ptr, src_lengths_ptr, dst_lengths_ptr, N, M, src_strides, dst_strides,
    BOTH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """What a program works on: item, is it `back`, first row, rows, how many are valid, points of the other,
    clouds [., 3]."""
    blocks = tl.cdiv(N, BLOCK)
    i_b, i_block = batch_and_block(blocks + tl.cdiv(M, BLOCK) if BOTH else blocks)
    first = i_block * BLOCK
    rows = N
    sources = valid_points(src_lengths_ptr, i_b, N)
    length = valid_points(dst_lengths_ptr, i_b, M)
    p_src = src_ptr + i_b * src_strides[0]
    p_dst = dst_ptr + i_b * dst_strides[0]
    src_n, src_c = src_strides[1], src_strides[2]
    dst_n, dst_c = dst_strides[1], dst_strides[2]
    back = False
    if BOTH:
        back = i_block >= blocks
        first = tl.where(back, first - blocks * BLOCK, first)
        rows = tl.where(back, M, N)
        sources, length = tl.where(back, length, sources), tl.where(back, sources, length)
        p_src, p_dst = tl.where(back, p_dst, p_src), tl.where(back, p_src, p_dst)
        src_n, dst_n = tl.where(back, dst_n, src_n), tl.where(back, src_n, dst_n)
        src_c, dst_c = tl.where(back, dst_c, src_c), tl.where(back, src_c, dst_c)
    return i_b, back, first, rows, sources, length, p_src, src_n, src_c, p_dst, dst_n, dst_c


@triton.jit
def _store_nearest(
    s_x, s_y, s_z, o_n, m_n, b_idx, p_dst, dst_n, dst_c, i_b, rows, sources, length, back,
    dist_ptr, idx_ptr, back_dist_ptr, back_idx_ptr, BOTH: tl.constexpr,
):  # fmt: skip
    """Distances to the points b_idx, and those, to the outputs of the direction; -1 and inf for none."""
    m_there = (o_n < sources) & (length > 0)
    d_x, d_y, d_z = load_points(p_dst, dst_n, dst_c, b_idx, m_there)
    b_dist = tl.where(m_there, squared_norm(s_x - d_x, s_y - d_y, s_z - d_z), float("inf"))
    b_idx = tl.where(m_there, b_idx, -1)
    if BOTH:
        dist_ptr, idx_ptr = tl.where(back, back_dist_ptr, dist_ptr), tl.where(back, back_idx_ptr, idx_ptr)
    tl.store(dist_ptr + i_b * rows + o_n, b_dist, mask=m_n)
    tl.store(idx_ptr + i_b * rows + o_n, b_idx.to(tl.int64), mask=m_n)


@triton.jit(do_not_specialize=["N", "M"])
def _nearest_kernel(
    src_ptr,  # [B, N, 3]
    dst_ptr,  # [B, M, 3]
    src_lengths_ptr,  # [B] or None
    dst_lengths_ptr,  # [B] or None
    dist_ptr,  # [B, N] fp32
    idx_ptr,  # [B, N] int64
    back_dist_ptr,  # [B, M] fp32 or None
    back_idx_ptr,  # [B, M] int64 or None
    keys_ptr,  # [SPLITS, B, rows of all blocks] int64, None for one split
    N,
    M,
    src_strides,
    dst_strides,
    BOTH: tl.constexpr,  # the programs behind the blocks of src take those of dst
    SPLITS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_M: tl.constexpr,
):
    i_split = tl.program_id(1)
    i_b, back, first, rows, sources, length, p_src, src_n, src_c, p_dst, dst_n, dst_c = _direction(
        src_ptr, dst_ptr, src_lengths_ptr, dst_lengths_ptr, N, M, src_strides, dst_strides, BOTH, BLOCK_N
    )
    o_n = first + tl.arange(0, BLOCK_N)
    m_n = o_n < rows
    s_x, s_y, s_z = load_points(p_src, src_n, src_c, o_n, m_n)
    begin = 0
    end = length
    if SPLITS > 1:
        span = tl.cdiv(tl.cdiv(length, SPLITS), BLOCK_M) * BLOCK_M
        begin = i_split * span
        end = tl.minimum(begin + span, length)

    o_m = tl.arange(0, BLOCK_M)
    b_best = tl.full([BLOCK_N, BLOCK_M], float("inf"), tl.float32)
    b_tile = tl.zeros([BLOCK_N, BLOCK_M], tl.int32)  # where the tile of the best one starts
    for start in range(begin, end, BLOCK_M):
        m_m = start + o_m < end
        d_x, d_y, d_z = load_points(p_dst, dst_n, dst_c, start + o_m, m_m)
        d_x = tl.where(m_m, d_x, float("nan"))  # a NaN is never nearer
        b_d2 = pair_distances(s_x, s_y, s_z, d_x, d_y, d_z)
        m_closer = b_d2 < b_best  # strictly: the earlier tile keeps a tie
        b_best = tl.where(m_closer, b_d2, b_best)
        b_tile = tl.where(m_closer, start, b_tile)

    b_bits = b_best.to(tl.int32, bitcast=True)
    b_nearest = tl.min(b_bits, 1)
    b_idx = tl.where(b_bits == b_nearest[:, None], b_tile + o_m[None, :], 0x7FFFFFFF)
    b_idx = tl.min(b_idx, 1)
    if SPLITS == 1:
        _store_nearest(
            s_x, s_y, s_z, o_n, m_n, b_idx, p_dst, dst_n, dst_c, i_b, rows, sources, length, back,
            dist_ptr, idx_ptr, back_dist_ptr, back_idx_ptr, BOTH,
        )  # fmt: skip
    else:
        # A span without a finite distance has (inf, 0), which is also what none of them gives in the end.
        i_row = i_split.to(tl.int64) * tl.num_programs(0) + tl.program_id(0)
        tl.store(keys_ptr + i_row * BLOCK_N + tl.arange(0, BLOCK_N), sort_key(b_nearest, b_idx))


@triton.jit(do_not_specialize=["N", "M"])
def _merge_kernel(
    src_ptr,
    dst_ptr,
    src_lengths_ptr,
    dst_lengths_ptr,
    dist_ptr,
    idx_ptr,
    back_dist_ptr,
    back_idx_ptr,
    keys_ptr,
    N,
    M,
    src_strides,
    dst_strides,
    BOTH: tl.constexpr,
    SPLITS: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """The smallest key of each row among those of all splits."""
    i_b, back, first, rows, sources, length, p_src, src_n, src_c, p_dst, dst_n, dst_c = _direction(
        src_ptr, dst_ptr, src_lengths_ptr, dst_lengths_ptr, N, M, src_strides, dst_strides, BOTH, BLOCK_N
    )
    o_n = first + tl.arange(0, BLOCK_N)
    m_n = o_n < rows
    o_split = tl.arange(0, SPLITS)
    i_row = o_split.to(tl.int64) * tl.num_programs(0) + tl.program_id(0)
    b_key = tl.load(keys_ptr + i_row[:, None] * BLOCK_N + tl.arange(0, BLOCK_N)[None, :])
    b_idx = tl.min(b_key, 0).to(tl.int32)
    s_x, s_y, s_z = load_points(p_src, src_n, src_c, o_n, m_n)
    _store_nearest(
        s_x, s_y, s_z, o_n, m_n, b_idx, p_dst, dst_n, dst_c, i_b, rows, sources, length, back,
        dist_ptr, idx_ptr, back_dist_ptr, back_idx_ptr, BOTH,
    )  # fmt: skip


def nearest_splits(programs: int, M: int, processors: int) -> int:
    """Programs that share a block: a power of two, so that all processors have work."""
    splits = 1
    while splits * programs < PROGRAMS_PER_PROCESSOR * processors and 2 * splits * MIN_SPAN <= M:
        splits *= 2
    return min(splits, 64)


def _launch(
    src: Tensor, dst: Tensor, src_lengths: Tensor | None, dst_lengths: Tensor | None, both: bool
) -> tuple[Tensor, ...]:
    (B, N, _), M = src.shape, dst.shape[1]
    sizes = (N, M) if both else (N,)
    outputs = [
        torch.empty(B, size, dtype=dtype, device=src.device)
        for size in sizes
        for dtype in (torch.float32, torch.int64)
    ]
    blocks = sum(triton.cdiv(size, BLOCK_N) for size in sizes)
    splits = nearest_splits(B * blocks, min(N, M) if both else M, num_processors(src.device))
    keys = None
    if splits > 1:
        keys = torch.empty(splits, B, blocks * BLOCK_N, dtype=torch.int64, device=src.device)
    arguments = (
        *(src, dst, src_lengths, dst_lengths, *outputs, *(() if both else (None, None)), keys),
        *(N, M, src.stride(), dst.stride()),
    )
    options = {"BOTH": both, "SPLITS": splits, "BLOCK_N": BLOCK_N, "num_warps": NUM_WARPS, **NO_CONTRACTION}
    with on_device_of(src):
        _nearest_kernel[(B * blocks, splits)](*arguments, BLOCK_M=BLOCK_M, **options)
        if splits > 1:
            _merge_kernel[(B * blocks,)](*arguments, **options | {"num_warps": 1})
    return tuple(outputs)


def nearest_neighbor(
    src: Tensor,  # [B, N, 3]
    dst: Tensor,  # [B, M, 3]
    *,
    src_lengths: Tensor | None = None,  # [B]
    dst_lengths: Tensor | None = None,  # [B]
) -> tuple[Tensor, Tensor]:  # [B, N] fp32, [B, N] int64
    """See `recon_fast.kernels.nearest_neighbor`; equal to the reference to the last bit.

    Points of `src` at or behind `src_lengths` get index -1 and distance inf.
    """
    dist, idx = _launch(src, dst, src_lengths, dst_lengths, both=False)
    return dist, idx


def mutual_nearest(
    src: Tensor,  # [B, N, 3]
    dst: Tensor,  # [B, M, 3]
    src_lengths: Tensor | None = None,  # [B]
    dst_lengths: Tensor | None = None,  # [B]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # [B, N] fp32, [B, N] int64, [B, M] fp32, [B, M] int64
    """`nearest_neighbor` both ways: of the valid points of `src` among those of `dst`, and back."""
    if src.dtype != dst.dtype:
        src, dst = src.float(), dst.float()
    forth, forth_idx, back, back_idx = _launch(src, dst, src_lengths, dst_lengths, both=True)
    return forth, forth_idx, back, back_idx
