"""Neighbours of points of any dimension: up to three by the kernels, more by plain PyTorch."""

import torch
import torch.nn.functional as F
from torch import Tensor

from recon_fast import kernels
from recon_fast.kernels.reference import query_chunks, zero_padding


def to_3d(points: Tensor) -> Tensor:
    """[..., D] with D <= 3 as [..., 3]: zeros change no distance."""
    return F.pad(points, (0, 3 - points.shape[-1])) if points.shape[-1] < 3 else points


def rows_at(rows: Tensor, idx: Tensor) -> Tensor:
    """rows [B, N, D] at idx [B, ...] as [B, ..., D], 0 where an index is negative. Differentiable."""
    if rows.shape[1] == 0:
        return rows.new_zeros(*idx.shape, rows.shape[2])
    batch = torch.arange(len(rows), device=rows.device).view(-1, *[1] * (idx.ndim - 1))
    return rows[batch, idx.clamp_min(0)].masked_fill((idx < 0)[..., None], 0)


def knn(
    queries: Tensor,  # [B, M, D]
    points: Tensor,  # [B, N, D]
    k: int,
    lengths: Tensor | None = None,  # [B]
    norm: int = 2,
) -> tuple[Tensor, Tensor]:  # [B, M, k], [B, M, k] int64
    """The nearest by |.|_2^2 or |.|_1, sorted; where there are fewer than k, index -1 and distance inf."""
    some = min(k, points.shape[1])
    if 0 in (*queries.shape[:2], some):
        dist = queries.new_full((*queries.shape[:2], k), float("inf"))
        return dist, torch.full_like(dist, -1, dtype=torch.int64)
    if queries.shape[-1] <= 3 and norm == 2:
        dist, idx = kernels.knn(to_3d(queries), to_3d(points), some, lengths=lengths)
    else:
        idx = _knn_plain(queries.detach(), points.detach(), some, lengths, norm)
        difference = queries[:, :, None] - rows_at(points, idx)
        dist = difference.square().sum(-1) if norm == 2 else difference.abs().sum(-1)
        dist = dist.masked_fill(idx < 0, float("inf"))
    if some < k:
        dist = F.pad(dist, (0, k - some), value=float("inf"))
        idx = F.pad(idx, (0, k - some), value=-1)
    return dist, idx


def nearest(
    queries: Tensor,  # [B, M, D]
    points: Tensor,  # [B, N, D]
    query_lengths: Tensor | None,  # [B]
    lengths: Tensor | None,  # [B]
    norm: int,
) -> tuple[Tensor, Tensor]:  # [B, M], [B, M] int64
    """The nearest; index -1 and distance inf behind the lengths of the queries and in an empty cloud."""
    dist, idx = knn(zero_padding(queries, query_lengths), points, 1, lengths, norm)
    dist, idx = dist[..., 0], idx[..., 0]
    if query_lengths is not None:
        behind = torch.arange(idx.shape[1], device=idx.device) >= query_lengths[:, None]
        dist, idx = dist.masked_fill(behind, float("inf")), idx.masked_fill(behind, -1)
    return dist, idx


def _knn_plain(queries: Tensor, points: Tensor, k: int, lengths: Tensor | None, norm: int) -> Tensor:
    found = []
    points, outside = points.float(), None
    if lengths is not None:
        outside = (torch.arange(points.shape[1], device=points.device) >= lengths[:, None])[:, None]
    for chunk in query_chunks(queries.float(), points.shape[1]):
        dist = torch.cdist(chunk, points, p=float(norm), compute_mode="donot_use_mm_for_euclid_dist")
        if outside is not None:
            dist = dist.masked_fill(outside, float("inf"))
        found.append(dist.topk(k, largest=False).indices)
    idx = torch.cat(found, 1)
    return idx if lengths is None else idx.masked_fill(idx >= lengths[:, None, None], -1)


def packed_knn(
    queries: Tensor,  # [M, D]
    points: Tensor,  # [N, D]
    k: int,
    query_lengths: Tensor,  # [B]
    point_lengths: Tensor,  # [B]
) -> tuple[Tensor, Tensor]:  # [M, k], [M, k] int64
    """`knn` in a packed batch, all pairs of points compared; not differentiable."""
    example = torch.arange(len(query_lengths), device=queries.device)
    of_query = example.repeat_interleave(query_lengths, output_size=len(queries))
    of_point = example.repeat_interleave(point_lengths, output_size=len(points))
    some, points, found = min(k, len(points)), points.float(), []
    chunks = (query_chunks(rows[None], len(points)) for rows in (queries.float(), of_query))
    for (chunk,), (own,) in zip(*chunks, strict=True):
        dist = torch.cdist(chunk, points, compute_mode="donot_use_mm_for_euclid_dist")
        found.append(dist.masked_fill(own[:, None] != of_point, float("inf")).topk(some, largest=False))
    dist = torch.cat([f.values for f in found]).square()
    idx = torch.cat([f.indices for f in found]).masked_fill(dist.isinf(), -1)
    pad = (0, k - some)
    return F.pad(dist, pad, value=float("inf")), F.pad(idx, pad, value=-1)
