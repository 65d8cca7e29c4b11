"""Chamfer distance of many small pairs of clouds: both directions, the loss and its gradient in one launch.

    loss = mean_i f(min_j |p_i - t_j|^2) + mean_j f(min_i |p_i - t_j|^2)        f(x) = x or sqrt(x) / 2

A program takes one pair, or as many as fill a warp's lanes with points. A point's gradient is
2 f'(d) (p - t) / N towards its own nearest neighbour, less what the points give it whose nearest neighbour it
is: what other libraries scatter with atomics is a sum of one-hot rows in registers here, and so
deterministic. Neither distances nor indices are written. Larger clouds take a launch for the neighbours both
ways, one for the loss and one for the gradients.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from recon_fast.kernels.triton._common import (
    NO_CONTRACTION,
    distance_slope,
    load_points,
    on_device_of,
    order_bits,
    squared_norm,
    store_points,
)
from recon_fast.kernels.triton.gradient import chamfer_gradients
from recon_fast.kernels.triton.nearest import mutual_nearest

PAIR_LANES = 32  # of a program that takes several pairs
MAX_PAIR_POINTS = 64  # per cloud; larger ones take three launches


@triton.jit
def _sizes(pred_lengths_ptr, target_lengths_ptr, i_b, m_b, N, M):
    """Points [P] of both clouds of the pairs i_b [P]; 0 of a pair one of which is empty, and so counts 0."""
    b_n = tl.where(m_b, N, 0)
    b_m = tl.where(m_b, M, 0)
    if pred_lengths_ptr is not None:
        b_n = tl.minimum(tl.load(pred_lengths_ptr + i_b, mask=m_b, other=0), N).to(tl.int32)
    if target_lengths_ptr is not None:
        b_m = tl.minimum(tl.load(target_lengths_ptr + i_b, mask=m_b, other=0), M).to(tl.int32)
    m_both = (b_n > 0) & (b_m > 0)
    return tl.where(m_both, b_n, 0), tl.where(m_both, b_m, 0)


@triton.jit
def _load_cloud(ptr, i_b, b_size, o_n, strides):
    """Which points [P, BLOCK] the clouds i_b [P] of these sizes have, and their coordinates."""
    m_n = o_n[None, :] < b_size[:, None]
    b_x, b_y, b_z = load_points(ptr + (i_b * strides[0])[:, None], strides[1], strides[2], o_n[None, :], m_n)
    return m_n, b_x, b_y, b_z


@triton.jit
def _one_way(s_x, s_y, s_z, m_s, s_size, t_x, t_y, t_z, m_t, o_t, p_target, strides, ROOT: tl.constexpr):
    """One direction: means of f [P], each source's nearest target and gradient [P, BLOCK]."""
    t_x = tl.where(m_t, t_x, float("nan"))  # never nearer
    # Targets along registers, sources along lanes: both reductions stay within a thread.
    b_d2 = squared_norm(
        tl.trans(t_x)[:, :, None] - s_x[None, :, :],
        tl.trans(t_y)[:, :, None] - s_y[None, :, :],
        tl.trans(t_z)[:, :, None] - s_z[None, :, :],
    )
    b_bits = order_bits(b_d2)
    b_idx = tl.where(b_bits == tl.min(b_bits, 0)[None, :, :], o_t[:, None, None], 0x7FFFFFFF)
    b_idx = tl.min(b_idx, 0)
    t_x, t_y, t_z = load_points(p_target, strides[1], strides[2], b_idx, m_s)
    dx = s_x - t_x
    dy = s_y - t_y
    dz = s_z - t_z
    b_d2 = squared_norm(dx, dy, dz)
    b_count = tl.maximum(s_size, 1).to(tl.float32)
    b_weight = distance_slope(b_d2, b_count[:, None], ROOT)
    b_value = tl.sqrt_rn(b_d2) * 0.5 if ROOT else b_d2
    b_mean = tl.sum(tl.where(m_s, b_value, 0.0), 1) / b_count
    b_weight = tl.where(m_s, b_weight, 0.0)
    return b_mean, tl.where(m_s, b_idx, -1), b_weight * dx, b_weight * dy, b_weight * dz


@triton.jit
def _received(o_n, b_idx, b_x, b_y, b_z):
    """What the sources give to the points o_n that are their nearest: sums of one-hot rows, no atomics."""
    # All three rows first: they pass through shared memory, and the mask should not live across the barriers.
    g_x = tl.trans(b_x)[:, :, None]
    g_y = tl.trans(b_y)[:, :, None]
    g_z = tl.trans(b_z)[:, :, None]
    m_hit = tl.trans(b_idx)[:, :, None] == o_n[None, None, :]
    b_x = tl.sum(tl.where(m_hit, g_x, 0.0), 0)
    b_y = tl.sum(tl.where(m_hit, g_y, 0.0), 0)
    b_z = tl.sum(tl.where(m_hit, g_z, 0.0), 0)
    return b_x, b_y, b_z


@triton.jit
def _store_cloud(ptr, i_b, m_b, o_n, N, b_x, b_y, b_z):
    m_n = m_b[:, None] & (o_n < N)[None, :]
    store_points(ptr + (i_b[:, None] * N + o_n[None, :]) * 3, b_x, b_y, b_z, m_n)


@triton.jit(do_not_specialize=["B", "N", "M"])
def _chamfer_pairs_kernel(
    pred_ptr,  # [B, N, 3]
    target_ptr,  # [B, M, 3]
    pred_lengths_ptr,  # [B] or None
    target_lengths_ptr,  # [B] or None
    loss_ptr,  # [B] fp32
    grad_pred_ptr,  # [B, N, 3] fp32 or None
    grad_target_ptr,  # [B, M, 3] fp32 or None
    B,
    N,
    M,
    pred_strides,
    target_strides,
    ROOT: tl.constexpr,
    PAIRS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_M: tl.constexpr,
):
    i_b = tl.program_id(0).to(tl.int64) * PAIRS + tl.arange(0, PAIRS)
    m_b = i_b < B
    o_n = tl.arange(0, BLOCK_N)
    o_m = tl.arange(0, BLOCK_M)
    n, m = _sizes(pred_lengths_ptr, target_lengths_ptr, i_b, m_b, N, M)
    m_n, p_x, p_y, p_z = _load_cloud(pred_ptr, i_b, n, o_n, pred_strides)
    m_m, t_x, t_y, t_z = _load_cloud(target_ptr, i_b, m, o_m, target_strides)
    p_pred = pred_ptr + (i_b * pred_strides[0])[:, None]
    p_target = target_ptr + (i_b * target_strides[0])[:, None]
    b_loss, b_forth, f_x, f_y, f_z = _one_way(
        p_x, p_y, p_z, m_n, n, t_x, t_y, t_z, m_m, o_m, p_target, target_strides, ROOT
    )
    b_back_loss, b_back, b_x, b_y, b_z = _one_way(
        t_x, t_y, t_z, m_m, m, p_x, p_y, p_z, m_n, o_n, p_pred, pred_strides, ROOT
    )
    tl.store(loss_ptr + i_b, b_loss + b_back_loss, mask=m_b)
    if grad_pred_ptr is not None:
        r_x, r_y, r_z = _received(o_n, b_back, b_x, b_y, b_z)
        _store_cloud(grad_pred_ptr, i_b, m_b, o_n, N, f_x - r_x, f_y - r_y, f_z - r_z)
    if grad_target_ptr is not None:
        r_x, r_y, r_z = _received(o_m, b_forth, f_x, f_y, f_z)
        _store_cloud(grad_target_ptr, i_b, m_b, o_m, M, b_x - r_x, b_y - r_y, b_z - r_z)


def chamfer_config(N: int, M: int) -> dict[str, int]:
    """Pairs per program, their tile, and warps: a lane for each point of the larger cloud."""
    block_n, block_m = (max(triton.next_power_of_2(size), 4) for size in (N, M))
    lanes = max(block_n, block_m)
    pairs = max(PAIR_LANES // lanes, 1)
    tile = {"PAIRS": pairs, "BLOCK_N": block_n, "BLOCK_M": block_m}
    return {**tile, "num_warps": max(pairs * lanes // 32, 1)}


@triton.jit
def _mean_over_points(p_dist, size, ROOT: tl.constexpr, BLOCK: tl.constexpr):
    b_sum = tl.zeros([BLOCK], tl.float32)
    for start in range(0, size, BLOCK):
        o_n = start + tl.arange(0, BLOCK)
        b_d2 = tl.load(p_dist + o_n, mask=o_n < size, other=0.0)
        b_sum += tl.sqrt_rn(b_d2) * 0.5 if ROOT else b_d2
    return tl.sum(b_sum, 0) / tl.maximum(size, 1).to(tl.float32)


@triton.jit(do_not_specialize=["N", "M"])
def _loss_kernel(
    forth_ptr,  # [B, N] squared distances
    back_ptr,  # [B, M]
    pred_lengths_ptr,  # [B] or None
    target_lengths_ptr,  # [B] or None
    loss_ptr,  # [B] fp32
    N,
    M,
    ROOT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    i_b = tl.program_id(0).to(tl.int64)
    n, m = _sizes(pred_lengths_ptr, target_lengths_ptr, i_b, True, N, M)
    loss = _mean_over_points(forth_ptr + i_b * N, n, ROOT, BLOCK)
    tl.store(loss_ptr + i_b, loss + _mean_over_points(back_ptr + i_b * M, m, ROOT, BLOCK))


LOSS_OPTIONS = {"BLOCK": 1024, "num_warps": 8, **NO_CONTRACTION}


def _large_pairs(
    pred: Tensor,
    target: Tensor,
    pred_lengths: Tensor | None,
    target_lengths: Tensor | None,
    norm: str,
    need_pred_grad: bool,
    need_target_grad: bool,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Nearest neighbours, their mean, and the gradients: a launch each."""
    (B, N, _), M = pred.shape, target.shape[1]
    if pred.dtype != target.dtype:
        pred, target = pred.float(), target.float()
    forth, forth_idx, back, back_idx = mutual_nearest(pred, target, pred_lengths, target_lengths)
    loss = torch.empty(B, dtype=torch.float32, device=pred.device)
    with on_device_of(pred):
        _loss_kernel[(B,)](
            *(forth, back, pred_lengths, target_lengths, loss, N, M), ROOT=norm == "l1", **LOSS_OPTIONS
        )
    if not (need_pred_grad or need_target_grad):
        return loss, None, None
    lengths, needed = (pred_lengths, target_lengths), (need_pred_grad, need_target_grad)
    return loss, *chamfer_gradients(pred, target, *lengths, forth_idx, back_idx, norm, *needed)


def chamfer_pairs(
    pred: Tensor,  # [B, N, 3]
    target: Tensor,  # [B, M, 3]
    pred_lengths: Tensor | None = None,  # [B]
    target_lengths: Tensor | None = None,  # [B]
    norm: str = "l2",
    need_pred_grad: bool = True,
    need_target_grad: bool = True,
) -> tuple[Tensor, Tensor | None, Tensor | None]:  # [B], [B, N, 3], [B, M, 3], all fp32
    """Chamfer distance of each pair and, where needed, its gradients: one launch up to MAX_PAIR_POINTS.

    The distances are those of `reference.chamfer_distance(..., reduction="none")` up to the order of sums.
    """
    (B, N, _), M = pred.shape, target.shape[1]
    if max(N, M) > MAX_PAIR_POINTS:
        return _large_pairs(
            pred, target, pred_lengths, target_lengths, norm, need_pred_grad, need_target_grad
        )
    loss = torch.empty(B, dtype=torch.float32, device=pred.device)
    to_pred, to_target = (
        torch.empty(B, size, 3, dtype=torch.float32, device=pred.device) if needed else None
        for size, needed in ((N, need_pred_grad), (M, need_target_grad))
    )
    config = chamfer_config(N, M)
    with on_device_of(pred):
        _chamfer_pairs_kernel[(triton.cdiv(B, config["PAIRS"]),)](
            *(pred, target, pred_lengths, target_lengths, loss, to_pred, to_target, B, N, M),
            *(pred.stride(), target.stride()),
            ROOT=norm == "l1",
            **config,
            **NO_CONTRACTION,
        )
    return loss, to_pred, to_target
