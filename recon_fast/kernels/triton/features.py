"""Features of points by index: weighted sums, and their gradients in the features and the weights.

    sum       out[c, m] = sum_k w[m, k] f[c, i[m, k]]
    scatter   out[c, n] = sum of w[m, k] g[c, m] over all (m, k) with i[m, k] = n
    match     out[m, k] = sum_c g[c, m] f[c, i[m, k]]

Scattering sorts the indices first (torch's sort, once for all channels): every point then knows the run of
entries that name it, and its sums go through them in order, without atomics.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from recon_fast.kernels.triton._common import batch_and_block, on_device_of

SUM = {"BLOCK_C": 8, "BLOCK_M": 128, "num_warps": 4}
# Triton 3.6 does not compile a loop over counts that are fewer than the threads.
SCATTER = {"BLOCK_C": 8, "BLOCK_N": 64, "num_warps": 1}
MATCH = {"BLOCK_C": 32, "BLOCK_M": 32, "num_warps": 4}


@triton.jit
def _load_rows(ptr, i_b, strides, o_c, o_m, m):
    """Values [C, M] of the channels o_c of item i_b at the places o_m, in float32."""
    p_c = ptr + i_b * strides[0] + o_c.to(tl.int64)[:, None] * strides[1]
    return tl.load(p_c + o_m.to(tl.int64)[None, :] * strides[2], mask=m, other=0.0).to(tl.float32)


@triton.jit(do_not_specialize=["C", "N", "M", "K"])
def _sum_kernel(
    features_ptr,  # [B, C, N]
    idx_ptr,  # [B, M, K]
    weights_ptr,  # [B, M, K] or None
    out_ptr,  # [B, C, M]
    C,
    N,
    M,
    K,
    strides,
    BLOCK_C: tl.constexpr,
    BLOCK_M: tl.constexpr,
):
    i_b, i_block = batch_and_block(tl.cdiv(M, BLOCK_M))
    o_m = i_block * BLOCK_M + tl.arange(0, BLOCK_M)
    o_c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    m_m = o_m < M
    m_c = o_c < C
    o_e = (i_b * M + o_m) * K
    b_out = tl.zeros([BLOCK_C, BLOCK_M], tl.float32)
    for k in range(K):
        b_idx = tl.load(idx_ptr + o_e + k, mask=m_m, other=-1)
        m_in = (b_idx >= 0) & (b_idx < N)
        b_found = _load_rows(features_ptr, i_b, strides, o_c, b_idx, m_c[:, None] & m_in[None, :])
        if weights_ptr is not None:
            b_found *= tl.load(weights_ptr + o_e + k, mask=m_in, other=0.0).to(tl.float32)[None, :]
        b_out += b_found
    p_out = out_ptr + (i_b * C + o_c)[:, None] * M + o_m[None, :]
    tl.store(p_out, b_out, mask=m_c[:, None] & m_m[None, :])


@triton.jit(do_not_specialize=["C", "N", "M", "K"])
def _scatter_kernel(
    values_ptr,  # [B, C, M]
    entries_ptr,  # [B, M * K] int64: positions of the sorted indices
    ends_ptr,  # [B, N + 1] int64: where the entries of each point begin
    weights_ptr,  # [B, M, K] or None
    out_ptr,  # [B, C, N]
    C,
    N,
    M,
    K,
    strides,
    BLOCK_C: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    i_b, i_block = batch_and_block(tl.cdiv(N, BLOCK_N))
    o_n = i_block * BLOCK_N + tl.arange(0, BLOCK_N)
    o_c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    m_n = o_n < N
    m_c = o_c < C
    p_ends = ends_ptr + i_b * (N + 1) + o_n
    b_start = tl.load(p_ends, mask=m_n, other=0)
    b_count = tl.load(p_ends + 1, mask=m_n, other=0) - b_start
    b_out = tl.zeros([BLOCK_C, BLOCK_N], tl.float32)
    for j in range(tl.max(b_count, 0)):
        m_j = j < b_count
        b_entry = tl.load(entries_ptr + i_b * M * K + b_start + j, mask=m_j, other=0)
        b_flow = _load_rows(values_ptr, i_b, strides, o_c, b_entry // K, m_c[:, None] & m_j[None, :])
        if weights_ptr is not None:
            p_weights = weights_ptr + i_b * M * K + b_entry
            b_flow *= tl.load(p_weights, mask=m_j, other=0.0).to(tl.float32)[None, :]
        b_out += b_flow
    p_out = out_ptr + (i_b * C + o_c)[:, None] * N + o_n[None, :]
    tl.store(p_out, b_out, mask=m_c[:, None] & m_n[None, :])


@triton.jit(do_not_specialize=["C", "N", "M", "K"])
def _match_kernel(
    values_ptr,  # [B, C, M]
    features_ptr,  # [B, C, N]
    idx_ptr,  # [B, M, K]
    out_ptr,  # [B, M, K] fp32
    C,
    N,
    M,
    K,
    value_strides,
    feature_strides,
    BLOCK_C: tl.constexpr,
    BLOCK_M: tl.constexpr,
):
    i_b, i_block = batch_and_block(tl.cdiv(M, BLOCK_M))
    i_k = tl.program_id(1)
    o_m = i_block * BLOCK_M + tl.arange(0, BLOCK_M)
    m_m = o_m < M
    o_e = (i_b * M + o_m) * K + i_k
    b_idx = tl.load(idx_ptr + o_e, mask=m_m, other=-1)
    m_in = (b_idx >= 0) & (b_idx < N)
    b_out = tl.zeros([BLOCK_M], tl.float32)
    for start in range(0, C, BLOCK_C):
        o_c = start + tl.arange(0, BLOCK_C)
        m = (o_c < C)[:, None] & m_in[None, :]
        b_value = _load_rows(values_ptr, i_b, value_strides, o_c, o_m, m)
        b_found = _load_rows(features_ptr, i_b, feature_strides, o_c, b_idx, m)
        b_out += tl.sum(b_value * b_found, 0)
    tl.store(out_ptr + o_e, b_out, mask=m_m)


def _contiguous(weights: Tensor | None) -> Tensor | None:
    return None if weights is None else weights.contiguous()


def sum_features(
    features: Tensor,  # [B, C, N]
    idx: Tensor,  # [B, M, K] int32 or int64
    weights: Tensor | None = None,  # [B, M, K]
) -> Tensor:  # [B, C, M]
    """See `recon_fast.kernels.reference.sum_features`; equal up to the order of sums."""
    (B, C, N), (_, M, K) = features.shape, idx.shape
    out = torch.empty(B, C, M, dtype=features.dtype, device=features.device)
    grid = B * triton.cdiv(M, SUM["BLOCK_M"]), triton.cdiv(C, SUM["BLOCK_C"])
    with on_device_of(features):
        _sum_kernel[grid](
            *(features, idx.contiguous(), _contiguous(weights), out, C, N, M, K, features.stride()), **SUM
        )
    return out


def scatter_features(
    values: Tensor,  # [B, C, M]
    idx: Tensor,  # [B, M, K] int32 or int64
    weights: Tensor | None,  # [B, M, K]
    num_points: int,
) -> Tensor:  # [B, C, N]
    """See `recon_fast.kernels.reference.scatter_features`; equal up to the order of sums."""
    (B, C, M), K, N = values.shape, idx.shape[2], num_points
    out = torch.empty(B, C, N, dtype=values.dtype, device=values.device)
    # int32 keys sort in half the passes; what does not exist sorts in front of point 0 or behind the last.
    keys, entries = idx.flatten(1).clamp(-1, N).to(torch.int32).sort(dim=1, stable=True)
    point = torch.arange(N + 1, dtype=torch.int32, device=idx.device).expand(B, -1).contiguous()
    ends = torch.searchsorted(keys, point)
    grid = B * triton.cdiv(N, SCATTER["BLOCK_N"]), triton.cdiv(C, SCATTER["BLOCK_C"])
    with on_device_of(values):
        _scatter_kernel[grid](
            *(values, entries, ends, _contiguous(weights), out, C, N, M, K, values.stride()), **SCATTER
        )
    return out


def match_features(
    values: Tensor,  # [B, C, M]
    features: Tensor,  # [B, C, N]
    idx: Tensor,  # [B, M, K] int32 or int64
) -> Tensor:  # [B, M, K] fp32
    """See `recon_fast.kernels.reference.match_features`; equal up to the order of sums."""
    (B, C, N), (_, M, K) = features.shape, idx.shape
    out = torch.empty(B, M, K, dtype=torch.float32, device=features.device)
    with on_device_of(features):
        _match_kernel[(B * triton.cdiv(M, MATCH["BLOCK_M"]), K)](
            *(values, features, idx.contiguous(), out, C, N, M, K, values.stride(), features.stride()),
            **MATCH,
        )
    return out
