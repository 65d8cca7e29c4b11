"""Nearest neighbours, and the gradient of distances between indexed points, in plain PyTorch."""

import torch
from torch import Tensor

from recon_fast.kernels.reference.points import (
    distances_to,
    gather_points,
    geometry_dtype,
    pairwise,
    query_chunks,
    valid_rows,
)


def nearest_neighbor(
    src: Tensor, dst: Tensor, *, src_lengths: Tensor | None = None, dst_lengths: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """src [B, N, 3], dst [B, M, 3], lengths [B] -> distances [B, N], indices [B, N] int64.

    inf and -1 behind src_lengths and in an empty cloud.
    """
    dtype = geometry_dtype(src)
    src, dst = src.to(dtype), dst.to(dtype)
    M = dst.shape[1]
    target = torch.arange(M, device=dst.device)
    with torch.no_grad():
        chunks = []
        for chunk in query_chunks(src, M):
            d2 = pairwise(chunk, dst)  # [B, n, M]
            if dst_lengths is not None:
                d2.masked_fill_(~valid_rows(dst_lengths, M)[:, None], float("inf"))
            nearest = d2.amin(-1, keepdim=True)
            chunks.append(torch.where(d2 == nearest, target, M).amin(-1))
        idx = torch.cat(chunks, 1)  # [B, N]
        if dst_lengths is not None:
            idx = idx.masked_fill(dst_lengths[:, None] <= 0, -1)
        if src_lengths is not None:
            idx = idx.masked_fill(~valid_rows(src_lengths, src.shape[1]), -1)
    return distances_to(src, dst, idx), idx


def mutual_nearest(
    src: Tensor, dst: Tensor, *, src_lengths: Tensor | None = None, dst_lengths: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`nearest_neighbor` of src in dst, then of dst in src."""
    forth = nearest_neighbor(src, dst, src_lengths=src_lengths, dst_lengths=dst_lengths)
    return *forth, *nearest_neighbor(dst, src, src_lengths=dst_lengths, dst_lengths=src_lengths)


def distance_backward(grad: Tensor, src: Tensor, dst: Tensor, idx: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients in src [B, N, 3] and dst [B, M, 3] of |src_i - dst_idx[i, k]|^2, weighted by grad [B, N, K].

    idx is [B, N, K], -1 for none.
    """
    dtype = geometry_dtype(src)
    diff = src.to(dtype)[:, :, None] - gather_points(dst.to(dtype), idx)
    flow = (2 * grad[..., None] * diff).masked_fill(idx[..., None] < 0, 0)  # [B, N, K, 3]
    batch = torch.arange(idx.shape[0], device=idx.device)[:, None, None]
    # index_put adds in a fixed order on CUDA, scatter_add does not.
    into = torch.zeros_like(dst, dtype=dtype).index_put((batch, idx.clamp_min(0)), -flow, accumulate=True)
    return flow.sum(2).to(src.dtype), into.to(dst.dtype)
