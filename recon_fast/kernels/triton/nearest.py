"""The nearest point of another cloud, for clouds of any size.

    idx[n] = argmin_m |src_n - dst_m|^2        ties to the smallest m

A block of `src` and a running minimum per (row, column) stay in registers while tiles of `dst` pass: a pair
costs its distance, one comparison and two selects, and rows are reduced once at the end. The distance
matrix is never written to memory. The distance that is returned is computed again from the two points, so a
NaN shows.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from recon_fast.kernels.triton._common import NO_CONTRACTION, load_points, on_device_of, squared_norm

BLOCK_N = 64
BLOCK_M = 64
NUM_WARPS = 4  # 32 pairs per thread, 64 registers of running minima


@triton.jit(do_not_specialize=["N", "M"])
def _nearest_kernel(
    src_ptr,  # [B, N, 3]
    dst_ptr,  # [B, M, 3]
    src_lengths_ptr,  # [B] or None
    dst_lengths_ptr,  # [B] or None
    dist_ptr,  # [B, N] fp32
    idx_ptr,  # [B, N] int64
    N,
    M,
    src_strides,
    dst_strides,
    BLOCK_N: tl.constexpr,
    BLOCK_M: tl.constexpr,
):
    i_b = tl.program_id(1).to(tl.int64)
    o_n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    m_n = o_n < N
    s_x, s_y, s_z = load_points(src_ptr + i_b * src_strides[0], src_strides[1], src_strides[2], o_n, m_n)
    p_dst = dst_ptr + i_b * dst_strides[0]
    length = M
    if dst_lengths_ptr is not None:
        length = tl.minimum(tl.load(dst_lengths_ptr + i_b).to(tl.int32), M)

    o_m = tl.arange(0, BLOCK_M)
    b_best = tl.full([BLOCK_N, BLOCK_M], float("inf"), tl.float32)
    b_tile = tl.zeros([BLOCK_N, BLOCK_M], tl.int32)  # where the tile of the best one starts
    for start in range(0, length, BLOCK_M):
        m_m = start + o_m < length
        d_x, d_y, d_z = load_points(p_dst, dst_strides[1], dst_strides[2], start + o_m, m_m)
        d_x = tl.where(m_m, d_x, float("nan"))  # a NaN is never nearer
        b_d2 = squared_norm(
            s_x[:, None] - d_x[None, :], s_y[:, None] - d_y[None, :], s_z[:, None] - d_z[None, :]
        )
        m_closer = b_d2 < b_best  # strictly: the earlier tile keeps a tie
        b_best = tl.where(m_closer, b_d2, b_best)
        b_tile = tl.where(m_closer, start, b_tile)

    b_bits = b_best.to(tl.int32, bitcast=True)
    b_idx = tl.where(b_bits == tl.min(b_bits, 1)[:, None], b_tile + o_m[None, :], 0x7FFFFFFF)
    b_idx = tl.min(b_idx, 1)
    d_x, d_y, d_z = load_points(p_dst, dst_strides[1], dst_strides[2], b_idx, m_n)
    b_dist = squared_norm(s_x - d_x, s_y - d_y, s_z - d_z)
    if src_lengths_ptr is not None:
        m_there = o_n < tl.load(src_lengths_ptr + i_b).to(tl.int32)
        b_dist = tl.where(m_there, b_dist, float("inf"))
        b_idx = tl.where(m_there, b_idx, -1)
    tl.store(dist_ptr + i_b * N + o_n, b_dist, mask=m_n)
    tl.store(idx_ptr + i_b * N + o_n, b_idx.to(tl.int64), mask=m_n)


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
    B, N, _ = src.shape
    M = dst.shape[1]
    dist = torch.empty(B, N, dtype=torch.float32, device=src.device)
    idx = torch.empty(B, N, dtype=torch.int64, device=src.device)
    with on_device_of(src):
        _nearest_kernel[(triton.cdiv(N, BLOCK_N), B)](
            src,
            dst,
            src_lengths,
            dst_lengths,
            dist,
            idx,
            N,
            M,
            src.stride(),
            dst.stride(),
            BLOCK_N=BLOCK_N,
            BLOCK_M=BLOCK_M,
            num_warps=NUM_WARPS,
            **NO_CONTRACTION,
        )
    return dist, idx
