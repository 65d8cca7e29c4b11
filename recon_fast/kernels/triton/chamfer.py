"""Chamfer distance of many small pairs of clouds: both directions, the loss and its gradient in one launch.

    loss = mean_i f(min_j |p_i - t_j|^2) + mean_j f(min_i |p_i - t_j|^2)        f(x) = x or sqrt(x) / 2

A program takes one pair. A point's gradient is 2 f'(d) (p - t) / N towards its own nearest neighbour, less
what the points give it whose nearest neighbour it is: what other libraries scatter with atomics is a sum of
one-hot rows in registers here, and so deterministic. Neither distances nor indices are written.
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

MAX_PAIR_POINTS = 64  # per cloud; larger ones go through nearest_neighbor


@triton.jit
def _one_way(
    s_x, s_y, s_z, o_s, n_s,  # sources and how many there are
    p_target, stride_n, stride_c, o_t, n_t,
    ROOT: tl.constexpr,
):  # fmt: skip
    """One direction: mean of f, each source's nearest target, and the gradient in the source [BLOCK] x 3."""
    t_x, t_y, t_z = load_points(p_target, stride_n, stride_c, o_t, o_t < n_t)
    # Sources along the lanes: both reductions stay within a thread.
    b_d2 = squared_norm(t_x[:, None] - s_x[None, :], t_y[:, None] - s_y[None, :], t_z[:, None] - s_z[None, :])
    b_bits = tl.where((o_t < n_t)[:, None], order_bits(b_d2), INF_BITS)
    b_idx = tl.min(tl.where(b_bits == tl.min(b_bits, 0)[None, :], o_t[:, None], 0x7FFFFFFF), 0)
    m_s = o_s < n_s
    t_x, t_y, t_z = load_points(p_target, stride_n, stride_c, b_idx, m_s)
    dx = s_x - t_x
    dy = s_y - t_y
    dz = s_z - t_z
    b_d2 = squared_norm(dx, dy, dz)
    count = tl.maximum(n_s, 1).to(tl.float32)
    b_weight = b_d2 * 0 + 2.0 / count
    b_value = b_d2
    if ROOT:
        b_value = tl.sqrt(b_d2) * 0.5
        b_weight = tl.where(b_d2 == 0, 0.0, 0.5 / (b_value * 2 * count))  # 0 at distance 0, not inf
    b_value = tl.where(m_s, b_value, 0.0)
    b_weight = tl.where(m_s, b_weight, 0.0)
    b_idx = tl.where(m_s, b_idx, -1)
    return tl.sum(b_value, 0) / count, b_idx, b_weight * dx, b_weight * dy, b_weight * dz


@triton.jit
def _received(o_n, b_idx, b_x, b_y, b_z):
    """What the sources give to the points o_n that are their nearest: sums of one-hot rows, no atomics."""
    # All three rows first: they pass through shared memory, and the mask should not live across the barriers.
    g_x = b_x[:, None]
    g_y = b_y[:, None]
    g_z = b_z[:, None]
    m_hit = b_idx[:, None] == o_n[None, :]
    b_x = tl.sum(tl.where(m_hit, g_x, 0.0), 0)
    b_y = tl.sum(tl.where(m_hit, g_y, 0.0), 0)
    b_z = tl.sum(tl.where(m_hit, g_z, 0.0), 0)
    return b_x, b_y, b_z


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
    forth, b_forth, f_x, f_y, f_z = _one_way(
        p_x, p_y, p_z, o_n, n, p_target, target_strides[1], target_strides[2], o_m, m, ROOT
    )
    back, b_back, b_x, b_y, b_z = _one_way(
        t_x, t_y, t_z, o_m, m, p_pred, pred_strides[1], pred_strides[2], o_n, n, ROOT
    )
    tl.store(loss_ptr + i_b, forth + back)
    if grad_pred_ptr is not None:
        r_x, r_y, r_z = _received(o_n, b_back, b_x, b_y, b_z)
        _store_points(grad_pred_ptr, i_b, o_n, N, f_x - r_x, f_y - r_y, f_z - r_z)
        r_x, r_y, r_z = _received(o_m, b_forth, f_x, f_y, f_z)
        _store_points(grad_target_ptr, i_b, o_m, M, b_x - r_x, b_y - r_y, b_z - r_z)


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
