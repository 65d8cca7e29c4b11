"""The first points within a radius of each query, in one launch.

    idx[q] = the k smallest n with |q - p_n|^2 < radius^2, in order

A program passes the points of a cloud in tiles for a few queries: a prefix sum gives every hit its place in
the row, and hits are written where they are found. It ends when all its rows are full, so that full balls
read the beginning of a cloud only. The distance matrix is never written to memory.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from recon_fast.kernels.triton._common import (
    NO_CONTRACTION,
    batch_and_block,
    load_points,
    on_device_of,
    pair_distances,
    squared_norm,
    valid_points,
)

BLOCK_Q = 2
BLOCK_N = 256
NUM_WARPS = 1  # 16 pairs per thread
BLOCK_K = 32  # places that are padded together

_NONE = tl.constexpr(0x7FFFFFFF)


@triton.jit
def _pad(p_idx, p_dist, b_fill, b_filler, b_dist, m_q, k, BLOCK_K: tl.constexpr):
    """Fill up the rows behind what was found."""
    for start in range(0, k, BLOCK_K):
        o_k = start + tl.arange(0, BLOCK_K)[None, :]
        m_pad = m_q[:, None] & (o_k >= b_fill[:, None]) & (o_k < k)
        tl.store(p_idx[:, None] + o_k, (b_filler[:, None] + 0 * o_k).to(tl.int64), mask=m_pad)
        tl.store(p_dist[:, None] + o_k, b_dist[:, None] + 0.0 * o_k, mask=m_pad)


@triton.jit(do_not_specialize=["M", "N", "k", "radius"])
def _ball_kernel(
    query_ptr,  # [B, M, 3]
    points_ptr,  # [B, N, 3]
    lengths_ptr,  # [B] or None
    dist_ptr,  # [B, M, k] fp32
    idx_ptr,  # [B, M, k] int64
    M,
    N,
    k,
    radius,
    query_strides,
    point_strides,
    FIRST: tl.constexpr,  # pad with the first neighbour, else with -1
    BLOCK_Q: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    i_b, i_block = batch_and_block(tl.cdiv(M, BLOCK_Q))
    o_q = i_block * BLOCK_Q + tl.arange(0, BLOCK_Q)
    m_q = o_q < M
    q_x, q_y, q_z = load_points(
        query_ptr + i_b * query_strides[0], query_strides[1], query_strides[2], o_q, m_q
    )
    p_points = points_ptr + i_b * point_strides[0]
    length = valid_points(lengths_ptr, i_b, N)
    p_idx = idx_ptr + (i_b * M + o_q) * k
    p_dist = dist_ptr + (i_b * M + o_q) * k
    bound = radius * radius
    b_fill = o_q * 0
    b_first = b_fill + _NONE
    start = 0
    while (start < length) & (tl.min(tl.where(m_q, b_fill, k), 0) < k):
        o_n = start + tl.arange(0, BLOCK_N)
        m_n = o_n < length
        p_x, p_y, p_z = load_points(p_points, point_strides[1], point_strides[2], o_n, m_n)
        b_d2 = pair_distances(q_x, q_y, q_z, p_x, p_y, p_z)
        m_in = (b_d2 < bound) & m_n[None, :] & m_q[:, None]
        b_in = m_in.to(tl.int32)
        b_hits = tl.sum(b_in, 1)
        if tl.max(b_hits, 0) > 0:
            b_place = b_fill[:, None] + tl.cumsum(b_in, 1) - 1
            m_in = m_in & (b_place < k)
            b_idx = (o_n[None, :] + 0 * b_place).to(tl.int64)
            tl.store(p_idx[:, None] + b_place, b_idx, mask=m_in)
            tl.store(p_dist[:, None] + b_place, b_d2, mask=m_in)
            b_first = tl.minimum(b_first, tl.min(tl.where(m_in, o_n[None, :], _NONE), 1))
            b_fill += b_hits
        start += BLOCK_N

    b_dist = tl.full([BLOCK_Q], float("inf"), tl.float32)
    if FIRST:
        if length > 0:
            b_first = tl.where(b_first == _NONE, 0, b_first)
            f_x, f_y, f_z = load_points(p_points, point_strides[1], point_strides[2], b_first, m_q)
            b_dist = squared_norm(q_x - f_x, q_y - f_y, q_z - f_z)
        else:
            b_first = b_fill * 0 - 1
        _pad(p_idx, p_dist, b_fill, b_first, b_dist, m_q, k, BLOCK_K)
    else:
        _pad(p_idx, p_dist, b_fill, b_fill * 0 - 1, b_dist, m_q, k, BLOCK_K)


def ball_config() -> dict[str, int | bool]:
    """The one place that chooses tiles and warps."""
    tiles = {"BLOCK_Q": BLOCK_Q, "BLOCK_N": BLOCK_N, "BLOCK_K": BLOCK_K}
    return {**tiles, "num_warps": NUM_WARPS, **NO_CONTRACTION}


def ball_query(
    queries: Tensor,  # [B, M, 3]
    points: Tensor,  # [B, N, 3]
    radius: float,
    k: int,
    *,
    lengths: Tensor | None = None,  # [B]
    padding: str = "none",
) -> tuple[Tensor, Tensor]:  # [B, M, k] fp32, [B, M, k] int64
    """See `recon_fast.kernels.ball_query`; equal to the reference to the last bit."""
    (B, M, _), N = queries.shape, points.shape[1]
    dist = torch.empty(B, M, k, dtype=torch.float32, device=points.device)
    idx = torch.empty(B, M, k, dtype=torch.int64, device=points.device)
    with on_device_of(points):
        _ball_kernel[(B * triton.cdiv(M, BLOCK_Q),)](
            *(queries, points, lengths, dist, idx, M, N, k, radius, queries.stride(), points.stride()),
            FIRST=padding == "first",
            **ball_config(),
        )
    return dist, idx
