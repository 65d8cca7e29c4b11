"""Features of points by index in plain PyTorch."""

import torch
from torch import Tensor

from recon_fast.kernels.reference.points import geometry_dtype


def _inside(idx: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Which indices exist, and int64 indices with 0 for the others."""
    valid = (idx >= 0) & (idx < size)
    return valid, idx.where(valid, 0).long()


def _features_at(features: Tensor, idx: Tensor) -> tuple[Tensor, Tensor]:
    """Features [B, C, M, K] at the indices [B, M, K], in the dtype of sums, and which indices exist."""
    valid, places = _inside(idx, features.shape[2])
    places = places.flatten(1)[:, None].expand(-1, features.shape[1], -1)
    found = features.to(geometry_dtype(features)).gather(2, places)
    return found.unflatten(2, idx.shape[1:]), valid


def sum_features(features: Tensor, idx: Tensor, weights: Tensor | None = None) -> Tensor:
    """Sum [B, C, M] over K of the features [B, C, N] at `idx` [B, M, K], times their weights [B, M, K].

    An index that is not in [0, N) adds 0.
    """
    found, valid = _features_at(features, idx)
    if weights is not None:
        found = found * weights.to(found.dtype)[:, None]
    return found.masked_fill(~valid[:, None], 0).sum(-1).to(features.dtype)


def gather_features(features: Tensor, idx: Tensor) -> Tensor:  # [B, C, N], [B, ...] -> [B, C, ...]
    return sum_features(features, idx.flatten(1)[..., None]).unflatten(2, idx.shape[1:])


def interpolate_features(features: Tensor, idx: Tensor, weights: Tensor) -> Tensor:
    return sum_features(features, idx, weights)


def scatter_features(values: Tensor, idx: Tensor, weights: Tensor | None, num_points: int) -> Tensor:
    """Gradient [B, C, N] of `sum_features` in the features, from that of the sums [B, C, M]."""
    valid, places = _inside(idx, num_points)
    dtype = geometry_dtype(values)
    flow = values.to(dtype)[..., None].expand(-1, -1, -1, idx.shape[2])
    if weights is not None:
        flow = flow * weights.to(dtype)[:, None]
    flow = flow.masked_fill(~valid[:, None], 0)  # [B, C, M, K]
    batch = torch.arange(values.shape[0], device=values.device)[:, None, None, None]
    channel = torch.arange(values.shape[1], device=values.device)[:, None, None]
    out = flow.new_zeros(*values.shape[:2], num_points)
    # index_put adds in a fixed order on CUDA, scatter_add does not.
    return out.index_put((batch, channel, places[:, None]), flow, accumulate=True).to(values.dtype)


def match_features(values: Tensor, features: Tensor, idx: Tensor) -> Tensor:
    """Gradient [B, M, K] of `sum_features` in the weights, from that of the sums [B, C, M]."""
    found, valid = _features_at(features, idx)
    return (values.to(found.dtype)[..., None] * found).masked_fill(~valid[:, None], 0).sum(1)
