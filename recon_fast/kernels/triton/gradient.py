"""Gradients that arrive at points by index: of distances between two clouds, and of grouping.

    to_src[i] = sum_k w[i, k] (src_i - dst_idx[i, k])      to_dst[j] = -sum over the (i, k) with idx[i, k] = j

What a point gives is read where it stands. What it receives from others is found without atomics and
without sorting, so that sums have one order: a program owns a block of points and passes all indices; a tile
that names none of its points costs a load and a comparison, any other one-hot sums. All is one launch: both
clouds, and both directions of the Chamfer distance, whose weights follow from the distances and are never
written.

Every block of points reads all indices of its cloud, 8 * K * N * M / BLOCK bytes from L2: 34 MB for 8 clouds
of 2048 points each way, 13 GB for a million points and 100k indices. Beyond MAX_READS the reference sorts.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from recon_fast.kernels import reference
from recon_fast.kernels.triton._common import (
    NO_CONTRACTION,
    batch_and_block,
    distance_slope,
    load_points,
    on_device_of,
    squared_norm,
    store_points,
    valid_points,
)

BLOCK = 64  # points a program owns: each is a lane, so that sums stay within a thread
TILE = 64  # indices looked at together
NUM_WARPS = 2
MAX_READS = 1 << 33  # indices that all programs read, 64 GiB


@triton.jit
def _cloud(ptr, lengths_ptr, i_b, N, strides):
    """(pointer to cloud i_b, strides of a point and a coordinate, valid points)."""
    size = valid_points(lengths_ptr, i_b, N)
    return ptr + i_b * strides[0], strides[1], strides[2], size


@triton.jit
def _flow(own, other, links, o_e, m_e, b_idx, K, ROOT: tl.constexpr):
    """w (own_i - other_idx) of the entries o_e = i * K + k; 0 where masked.

    `links` are the indices [N, K] of the cloud and the weights with their three strides; without weights
    the Chamfer distance's.
    """
    o_i = o_e // K
    s_x, s_y, s_z = load_points(own[0], own[1], own[2], o_i, m_e)
    d_x, d_y, d_z = load_points(other[0], other[1], other[2], b_idx, m_e)
    dx = s_x - d_x
    dy = s_y - d_y
    dz = s_z - d_z
    if links[1] is not None:
        p_grad = links[1] + links[2] + o_i.to(tl.int64) * links[3] + (o_e % K).to(tl.int64) * links[4]
        b_weight = 2 * tl.load(p_grad, mask=m_e, other=0.0).to(tl.float32)
    else:
        b_weight = distance_slope(squared_norm(dx, dy, dz), tl.maximum(own[3], 1).to(tl.float32), ROOT)
    return b_weight * dx, b_weight * dy, b_weight * dz


@triton.jit
def _given(b_x, b_y, b_z, own, other, links, o_n, N, K, ROOT: tl.constexpr):
    """Add to the points o_n what their own links give them."""
    m_n = o_n < N
    if links[1] is None:
        m_n = o_n < own[3]
    for k in range(K):
        o_e = o_n * K + k
        b_idx = tl.load(links[0] + o_e, mask=m_n, other=-1).to(tl.int32)
        f_x, f_y, f_z = _flow(own, other, links, o_e, m_n & (b_idx >= 0), b_idx, K, ROOT)
        b_x += f_x
        b_y += f_y
        b_z += f_z
    return b_x, b_y, b_z


@triton.jit
def _take(b_x, b_y, b_z, o_n, b_idx, f_x, f_y, f_z):
    """Add to the points o_n the flows whose index is theirs."""
    m_hit = b_idx[:, None] == o_n[None, :]
    b_x += tl.sum(tl.where(m_hit, f_x[:, None], 0.0), 0)
    b_y += tl.sum(tl.where(m_hit, f_y[:, None], 0.0), 0)
    b_z += tl.sum(tl.where(m_hit, f_z[:, None], 0.0), 0)
    return b_x, b_y, b_z


@triton.jit
def _received(
    b_x, b_y, b_z, giver, owner, links, first, N, K,
    ROOT: tl.constexpr, BLOCK: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Take from the points [first, first + BLOCK) what the links of the other cloud that name them give."""
    o_n = first + tl.arange(0, BLOCK)
    entries = N * K
    if links[1] is None:
        entries = giver[3] * K
    for start in range(0, entries, TILE):
        o_e = start + tl.arange(0, TILE)
        b_idx = tl.load(links[0] + o_e, mask=o_e < entries, other=-1).to(tl.int32)
        m_e = (b_idx >= first) & (b_idx < first + BLOCK)
        if tl.max(m_e.to(tl.int32), 0) > 0:
            f_x, f_y, f_z = _flow(giver, owner, links, o_e, m_e, b_idx, K, ROOT)
            b_x, b_y, b_z = _take(b_x, b_y, b_z, o_n, b_idx, -f_x, -f_y, -f_z)
    return b_x, b_y, b_z


@triton.jit
def _store_block(ptr, i_b, o_n, N, b_x, b_y, b_z):
    store_points(ptr + (i_b * N + o_n) * 3, b_x, b_y, b_z, o_n < N)


@triton.jit(do_not_specialize=["N", "M", "K"])
def _gradient_kernel(
    src_ptr,  # [B, N, 3]
    dst_ptr,  # [B, M, 3]
    src_lengths_ptr,  # [B] or None
    dst_lengths_ptr,  # [B] or None
    grad_ptr,  # of the squared distances [B, N, K]; None for the Chamfer distance
    idx_ptr,  # [B, N, K] int64, -1 for none
    back_idx_ptr,  # [B, M] int64; None for one direction
    grad_src_ptr,  # [B, N, 3] or None
    grad_dst_ptr,  # [B, M, 3] or None
    N,
    M,
    K,
    src_strides,
    dst_strides,
    grad_strides,
    ROOT: tl.constexpr,
    BLOCK: tl.constexpr,
    TILE: tl.constexpr,
):
    blocks = 0 if grad_src_ptr is None else tl.cdiv(N, BLOCK)
    dst_blocks = 0 if grad_dst_ptr is None else tl.cdiv(M, BLOCK)
    i_b, i_block = batch_and_block(blocks + dst_blocks)
    src = _cloud(src_ptr, src_lengths_ptr, i_b, N, src_strides)
    dst = _cloud(dst_ptr, dst_lengths_ptr, i_b, M, dst_strides)
    forth = (idx_ptr + i_b * N * K, grad_ptr, i_b * grad_strides[0], grad_strides[1], grad_strides[2])
    b_x = tl.zeros([BLOCK], tl.float32)
    b_y = tl.zeros([BLOCK], tl.float32)
    b_z = tl.zeros([BLOCK], tl.float32)
    if i_block < blocks:
        if grad_src_ptr is not None:
            first = i_block * BLOCK
            o_n = first + tl.arange(0, BLOCK)
            b_x, b_y, b_z = _given(b_x, b_y, b_z, src, dst, forth, o_n, N, K, ROOT)
            if back_idx_ptr is not None:
                back = (back_idx_ptr + i_b * M, None)
                b_x, b_y, b_z = _received(b_x, b_y, b_z, dst, src, back, first, M, 1, ROOT, BLOCK, TILE)
            _store_block(grad_src_ptr, i_b, o_n, N, b_x, b_y, b_z)
    else:
        if grad_dst_ptr is not None:
            first = (i_block - blocks) * BLOCK
            o_n = first + tl.arange(0, BLOCK)
            if back_idx_ptr is not None:
                back = (back_idx_ptr + i_b * M, None)
                b_x, b_y, b_z = _given(b_x, b_y, b_z, dst, src, back, o_n, M, 1, ROOT)
            b_x, b_y, b_z = _received(b_x, b_y, b_z, src, dst, forth, first, N, K, ROOT, BLOCK, TILE)
            _store_block(grad_dst_ptr, i_b, o_n, M, b_x, b_y, b_z)


@triton.jit
def _from_center(p_centers, p_neighbors, p_idx, o_g, m_g, K):
    """What centers o_g give: their own gradient less that of their neighbours that are there."""
    f_x = o_g * 0.0
    f_y = o_g * 0.0
    f_z = o_g * 0.0
    if p_centers is not None:
        f_x, f_y, f_z = load_points(p_centers, 3, 1, o_g, m_g)
    if p_neighbors is not None:
        for k in range(K):
            o_e = o_g * K + k
            m_e = m_g & (tl.load(p_idx + o_e, mask=m_g, other=-1) >= 0)
            n_x, n_y, n_z = load_points(p_neighbors, 3, 1, o_e, m_e)
            f_x -= n_x
            f_y -= n_y
            f_z -= n_z
    return f_x, f_y, f_z


@triton.jit(do_not_specialize=["N", "G", "K"])
def _group_kernel(
    grad_centers_ptr,  # [B, G, 3] or None
    grad_neighbors_ptr,  # [B, G, K, 3] or None
    center_idx_ptr,  # [B, G] int64, -1 for none
    neighbor_idx_ptr,  # [B, G, K] int64, -1 for none
    out_ptr,  # [B, N, 3]
    N,
    G,
    K,
    BLOCK: tl.constexpr,
    TILE: tl.constexpr,
):
    i_b, i_block = batch_and_block(tl.cdiv(N, BLOCK))
    first = i_block * BLOCK
    o_n = first + tl.arange(0, BLOCK)
    b_x = tl.zeros([BLOCK], tl.float32)
    b_y = tl.zeros([BLOCK], tl.float32)
    b_z = tl.zeros([BLOCK], tl.float32)
    p_centers = None if grad_centers_ptr is None else grad_centers_ptr + i_b * G * 3
    p_neighbors = None if grad_neighbors_ptr is None else grad_neighbors_ptr + i_b * G * K * 3
    p_idx = neighbor_idx_ptr + i_b * G * K
    if p_neighbors is not None:
        for start in range(0, G * K, TILE):
            o_e = start + tl.arange(0, TILE)
            b_idx = tl.load(p_idx + o_e, mask=o_e < G * K, other=-1).to(tl.int32)
            m_e = (b_idx >= first) & (b_idx < first + BLOCK)
            if tl.max(m_e.to(tl.int32), 0) > 0:
                f_x, f_y, f_z = load_points(p_neighbors, 3, 1, o_e, m_e)
                b_x, b_y, b_z = _take(b_x, b_y, b_z, o_n, b_idx, f_x, f_y, f_z)
    for start in range(0, G, TILE):
        o_g = start + tl.arange(0, TILE)
        b_idx = tl.load(center_idx_ptr + i_b * G + o_g, mask=o_g < G, other=-1).to(tl.int32)
        m_g = (b_idx >= first) & (b_idx < first + BLOCK)
        if tl.max(m_g.to(tl.int32), 0) > 0:
            f_x, f_y, f_z = _from_center(p_centers, p_neighbors, p_idx, o_g, m_g, K)
            b_x, b_y, b_z = _take(b_x, b_y, b_z, o_n, b_idx, f_x, f_y, f_z)
    _store_block(out_ptr, i_b, o_n, N, b_x, b_y, b_z)


def gradient_config() -> dict[str, int | bool]:
    """The one place that chooses tiles and warps."""
    return {"BLOCK": BLOCK, "TILE": TILE, "num_warps": NUM_WARPS, **NO_CONTRACTION}


def _too_many_reads(B: int, points: int, entries: int) -> bool:
    return B * triton.cdiv(points, BLOCK) * entries > MAX_READS or entries >= 1 << 31


def distance_backward(
    grad: Tensor,  # [B, N, K]
    src: Tensor,  # [B, N, 3]
    dst: Tensor,  # [B, M, 3]
    idx: Tensor,  # [B, N, K] int64, -1 for none
) -> tuple[Tensor, Tensor]:  # [B, N, 3], [B, M, 3]
    """See `recon_fast.kernels.reference.distance_backward`; equal up to the order of sums."""
    B, N, K = idx.shape
    M = dst.shape[1]
    if _too_many_reads(B, M, N * K):
        return reference.distance_backward(grad, src, dst, idx)
    to_src = torch.empty(B, N, 3, dtype=src.dtype, device=src.device)
    to_dst = torch.empty(B, M, 3, dtype=dst.dtype, device=dst.device)
    blocks = triton.cdiv(N, BLOCK) + triton.cdiv(M, BLOCK)
    with on_device_of(src):
        _gradient_kernel[(B * blocks,)](
            *(src, dst, None, None, grad, idx.contiguous(), None, to_src, to_dst, N, M, K),
            *(src.stride(), dst.stride(), grad.stride()),
            ROOT=False,
            **gradient_config(),
        )
    return to_src, to_dst


def chamfer_gradients(
    pred: Tensor,  # [B, N, 3]
    target: Tensor,  # [B, M, 3]
    pred_lengths: Tensor | None,  # [B]
    target_lengths: Tensor | None,  # [B]
    forth: Tensor,  # [B, N] int64, contiguous
    back: Tensor,  # [B, M] int64, contiguous
    norm: str,
    need_pred_grad: bool,
    need_target_grad: bool,
) -> tuple[Tensor | None, Tensor | None]:  # [B, N, 3], [B, M, 3] fp32
    """Gradients of each pair's Chamfer distance, given the nearest neighbours both ways."""
    (B, N, _), M = pred.shape, target.shape[1]
    needed = need_pred_grad, need_target_grad
    to_pred, to_target = (
        torch.empty(B, size, 3, dtype=torch.float32, device=pred.device) if need else None
        for size, need in zip((N, M), needed, strict=True)
    )
    blocks = sum(triton.cdiv(size, BLOCK) for size, need in zip((N, M), needed, strict=True) if need)
    with on_device_of(pred):
        _gradient_kernel[(B * blocks,)](
            *(pred, target, pred_lengths, target_lengths, None, forth, back, to_pred, to_target, N, M, 1),
            *(pred.stride(), target.stride(), (0, 0, 0)),
            ROOT=norm == "l1",
            **gradient_config(),
        )
    return to_pred, to_target


def group_backward(
    grad_centers: Tensor | None,  # [B, G, 3]
    grad_neighborhoods: Tensor | None,  # [B, G, K, 3]
    center_idx: Tensor,  # [B, G] int64, -1 for none
    neighbor_idx: Tensor,  # [B, G, K] int64, -1 for none
    num_points: int,
) -> Tensor:  # [B, N, 3] fp32
    """See `recon_fast.kernels.reference.group_backward`; equal up to the order of sums."""
    B, G, K = neighbor_idx.shape
    if _too_many_reads(B, num_points, G * K):
        return reference.group_backward(
            grad_centers, grad_neighborhoods, center_idx, neighbor_idx, num_points
        )
    gradients = (None if t is None else t.contiguous() for t in (grad_centers, grad_neighborhoods))
    out = torch.empty(B, num_points, 3, dtype=torch.float32, device=neighbor_idx.device)
    with on_device_of(neighbor_idx):
        _group_kernel[(B * triton.cdiv(num_points, BLOCK),)](
            *(*gradients, center_idx.contiguous(), neighbor_idx.contiguous(), out, num_points, G, K),
            **gradient_config(),
        )
    return out
