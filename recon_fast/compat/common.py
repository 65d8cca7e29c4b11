"""What several served modules need: neighbours of points of any dimension, and the shape of a Function.

Distances are searched by the kernels, sums of absolute differences by plain PyTorch.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from recon_fast import kernels
from recon_fast.kernels.reference import query_chunks, valid_rows, zero_padding

INF = float("inf")


def function_class(apply: Callable) -> Any:
    """A class that is called like an autograd Function: `apply` differentiates itself."""
    return type("Function", (), {"apply": staticmethod(apply)})


def rows_at(rows: Tensor, idx: Tensor) -> Tensor:
    """Rows [B, N, D] at idx [B, ...] as [B, ..., D], 0 where an index is negative.

    Differentiable where they are floating point, with gradients that are the same in every run.
    """
    if 0 in (*rows.shape, *idx.shape):
        return rows.new_zeros(*idx.shape, rows.shape[2])
    if rows.is_floating_point():
        return kernels.gather_features(rows.mT, idx).movedim(1, -1).contiguous()
    batch = torch.arange(len(rows), device=rows.device).view(-1, *[1] * (idx.ndim - 1))
    return rows[batch, idx.clamp_min(0)].masked_fill((idx < 0)[..., None], 0)


def hide(values: Tensor, lengths: Tensor | None, filler: float) -> Tensor:
    """Values [B, M, ...] with `filler` in the rows at and behind the lengths [B]."""
    if lengths is None:
        return values
    there = valid_rows(lengths, values.shape[1])
    return values.where(there.view(*there.shape, *[1] * (values.ndim - 2)), filler)


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
        dist = queries.new_full((*queries.shape[:2], k), INF)
        return dist, torch.full_like(dist, -1, dtype=torch.int64)
    if norm == 2:
        dist, idx = kernels.knn(queries, points, some, lengths=lengths)
    else:
        idx = _smallest(queries.detach(), points.detach(), some, lengths)
        dist = (queries[:, :, None] - rows_at(points, idx)).abs().sum(-1).masked_fill(idx < 0, INF)
    more = 0, k - some
    return (dist, idx) if some == k else (F.pad(dist, more, value=INF), F.pad(idx, more, value=-1))


def nearest(
    queries: Tensor,  # [B, M, D]
    points: Tensor,  # [B, N, D]
    query_lengths: Tensor | None,  # [B]
    lengths: Tensor | None,  # [B]
    norm: int,
) -> tuple[Tensor, Tensor]:  # [B, M], [B, M] int64
    """The nearest; index -1 and distance inf behind the lengths of the queries and in an empty cloud."""
    dist, idx = knn(zero_padding(queries, query_lengths), points, 1, lengths, norm)
    return hide(dist[..., 0], query_lengths, INF), hide(idx[..., 0], query_lengths, -1)


def _smallest(queries: Tensor, points: Tensor, k: int, lengths: Tensor | None) -> Tensor:
    """Indices of `knn` by sums of absolute differences, -1 for none."""
    found, points = [], points.float()
    outside = None if lengths is None else ~valid_rows(lengths, points.shape[1])[:, None]
    for chunk in query_chunks(queries.float(), points.shape[1]):
        dist = torch.cdist(chunk, points, p=1.0)
        if outside is not None:
            dist = dist.masked_fill(outside, INF)
        found.append(dist.topk(k, largest=False).indices)
    idx = torch.cat(found, 1)
    return idx if lengths is None else idx.masked_fill(idx >= lengths[:, None, None], -1)
