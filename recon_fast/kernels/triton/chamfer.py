"""Chamfer distance of many small pairs of clouds: both directions, the loss and its gradient in one launch.

    loss = mean_i f(min_j |p_i - t_j|^2) + mean_j f(min_i |p_i - t_j|^2)        f(x) = x or sqrt(x) / 2

A program holds all differences of one pair in registers. With W_ij = [j nearest to i] f'(d_ij) / N +
[i nearest to j] f'(d_ij) / M the gradients are row and column sums of 2 W_ij (p_i - t_j): what other libraries
scatter with atomics is a reduction here, and so deterministic. Neither distances nor indices are written.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from recon_fast.kernels.triton._common import (
    INF_BITS,
    NO_CONTRACTION,
    load_points,
    on_device_of,
    order_bits,
    squared_norm,
)

MAX_PAIR_POINTS = 128  # per cloud; larger ones go through nearest_neighbor


@triton.jit
def _one_way(b_d2, m_target, m_source, o_target, count, axis: tl.constexpr, ROOT: tl.constexpr):
    """Mean of f over one direction, and f' / count at each source's nearest target (0 elsewhere)."""
    b_bits = tl.where(m_target, order_bits(b_d2), INF_BITS)
    b_first = tl.where(b_bits == tl.min(b_bits, axis, keep_dims=True), o_target, 0x7FFFFFFF)
    m_hit = (o_target == tl.min(b_first, axis, keep_dims=True)) & m_source
    b_dist = tl.sum(tl.where(m_hit, b_d2, 0.0), axis)
    b_slope = tl.where(m_hit, 1.0, 0.0)
    if ROOT:
        b_dist = tl.sqrt(b_dist) * 0.5
        b_slope = tl.where(m_hit & (b_d2 != 0), 0.25 / tl.sqrt(b_d2), 0.0)  # 0 at distance 0, not inf
    return tl.sum(b_dist, 0) / count, b_slope / count, m_hit


@triton.jit
def _store_points(ptr, i_b, o_n, N, b_x, b_y, b_z):
    p_n = ptr + (i_b * N + o_n) * 3
    tl.store(p_n, b_x, mask=o_n < N)
    tl.store(p_n + 1, b_y, mask=o_n < N)
    tl.store(p_n + 2, b_z, mask=o_n < N)


@triton.jit(do_not_specialize=["N", "M"])
def _chamfer_pairs_kernel(
    pred_ptr,  # [B, N, 3]
    target_ptr,  # [B, M, 3]
    pred_lengths_ptr,  # [B] or None
    target_lengths_ptr,  # [B] or None
    loss_ptr,  # [B] fp32
    grad_pred_ptr,  # [B, N, 3] fp32 or None
    grad_target_ptr,  # [B, M, 3] fp32 or None
    N,
    M,
    pred_strides,
    target_strides,
    ROOT: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_M: tl.constexpr,
):
    i_b = tl.program_id(0).to(tl.int64)
    n = N
    m = M
    if pred_lengths_ptr is not None:
        n = tl.minimum(tl.load(pred_lengths_ptr + i_b).to(tl.int32), N)
    if target_lengths_ptr is not None:
        m = tl.minimum(tl.load(target_lengths_ptr + i_b).to(tl.int32), M)
    o_n = tl.arange(0, BLOCK_N)
    o_m = tl.arange(0, BLOCK_M)
    p_pred = pred_ptr + i_b * pred_strides[0]
    p_target = target_ptr + i_b * target_strides[0]
    p_x, p_y, p_z = load_points(p_pred, pred_strides[1], pred_strides[2], o_n, o_n < n)
    t_x, t_y, t_z = load_points(p_target, target_strides[1], target_strides[2], o_m, o_m < m)
    dx = p_x[:, None] - t_x[None, :]
    dy = p_y[:, None] - t_y[None, :]
    dz = p_z[:, None] - t_z[None, :]
    b_d2 = squared_norm(dx, dy, dz)  # [BLOCK_N, BLOCK_M]

    o_row = o_n[:, None] + 0 * o_m[None, :]
    o_column = o_m[None, :] + 0 * o_n[:, None]
    n_count = tl.maximum(n, 1).to(tl.float32)
    m_count = tl.maximum(m, 1).to(tl.float32)
    forth, b_forth, m_forth = _one_way(b_d2, o_column < m, o_row < n, o_column, n_count, 1, ROOT)
    back, b_back, m_back = _one_way(b_d2, o_row < n, o_column < m, o_row, m_count, 0, ROOT)
    tl.store(loss_ptr + i_b, forth + back)
    if grad_pred_ptr is not None:
        b_weight = 2.0 * (b_forth + b_back)
        m_hit = m_forth | m_back  # keeps a NaN of one point out of the sums of the others
        g_x = tl.where(m_hit, b_weight * dx, 0.0)
        g_y = tl.where(m_hit, b_weight * dy, 0.0)
        g_z = tl.where(m_hit, b_weight * dz, 0.0)
        _store_points(grad_pred_ptr, i_b, o_n, N, tl.sum(g_x, 1), tl.sum(g_y, 1), tl.sum(g_z, 1))
        _store_points(grad_target_ptr, i_b, o_m, M, -tl.sum(g_x, 0), -tl.sum(g_y, 0), -tl.sum(g_z, 0))


def chamfer_config(N: int, M: int) -> dict[str, int]:
    """Tile of a pair and its warps: 32 pairs of points per thread."""
    block_n, block_m = (max(triton.next_power_of_2(size), 16) for size in (N, M))
    return {
        "BLOCK_N": block_n,
        "BLOCK_M": block_m,
        "num_warps": min(max(block_n * block_m // 1024, 1), 16),
    }


def chamfer_pairs(
    pred: Tensor,  # [B, N, 3]
    target: Tensor,  # [B, M, 3]
    *,
    pred_lengths: Tensor | None = None,  # [B]
    target_lengths: Tensor | None = None,  # [B]
    norm: str = "l2",
    need_grad: bool = True,
) -> tuple[Tensor, Tensor | None, Tensor | None]:  # [B], [B, N, 3], [B, M, 3], all fp32
    """Chamfer distance of each pair and its gradients in `pred` and `target`; N, M at most MAX_PAIR_POINTS.

    The distances are those of `reference.chamfer_distance(..., reduction="none")` up to the order of sums.
    """
    (B, N, _), M = pred.shape, target.shape[1]
    if max(N, M) > MAX_PAIR_POINTS:
        raise ValueError(f"clouds must have at most {MAX_PAIR_POINTS} points, got {N} and {M}")
    loss = torch.empty(B, dtype=torch.float32, device=pred.device)
    grad_pred = torch.empty(B, N, 3, dtype=torch.float32, device=pred.device) if need_grad else None
    grad_target = torch.empty(B, M, 3, dtype=torch.float32, device=pred.device) if need_grad else None
    with on_device_of(pred):
        _chamfer_pairs_kernel[(B,)](
            pred,
            target,
            pred_lengths,
            target_lengths,
            loss,
            grad_pred,
            grad_target,
            N,
            M,
            pred.stride(),
            target.stride(),
            ROOT=norm == "l1",
            **chamfer_config(N, M),
            **NO_CONTRACTION,
        )
    return loss, grad_pred, grad_target
