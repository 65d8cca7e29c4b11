"""Features of points by index, their maximum over groups and attention over them, in plain PyTorch."""

import torch
import torch.nn.functional as F
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


def linear_max(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:  # [G, K, C], [O, C], [O] -> [G, O]
    return F.linear(x, weight, bias).max(1).values


def group_max(values: Tensor) -> tuple[Tensor, Tensor]:  # [G, K, O] -> [G, O], [G, O] int32
    """The maxima over a group, and which member of it each is of."""
    out, idx = values.max(1)
    return out, idx.to(torch.int32)


def linear_max_backward(
    grad: Tensor, idx: Tensor, x: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `linear_max` in x, weight and bias; idx [G, O] int32 says which member is the maximum."""
    dtype = geometry_dtype(x)
    full = torch.zeros(x.shape[0], x.shape[1], weight.shape[0], dtype=dtype, device=x.device)
    full.scatter_(1, idx[:, None].long(), grad[:, None].to(dtype))
    flat = full.flatten(0, 1)
    to_x = (flat @ weight.to(dtype)).view(x.shape)
    to_weight = flat.T @ x.to(dtype).flatten(0, 1)
    return to_x.to(x.dtype), to_weight.to(weight.dtype), flat.sum(0).to(weight.dtype)


def masked_cross_attention(
    query: Tensor, key: Tensor, value: Tensor, key_mask: Tensor | None = None, *, scale: float | None = None
) -> Tensor:
    """query [B, H, Q, D], key and value [B, H, S, D], key_mask [B, S] bool -> [B, H, Q, D]."""
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    if key_mask is not None:
        # Zeroing first keeps a NaN behind the mask out of 0 * NaN.
        key = key.where(key_mask[:, None, :, None], 0)
        value = value.where(key_mask[:, None, :, None], 0)
    return _weights((query * scale) @ key.transpose(-2, -1), key_mask).to(value.dtype) @ value


def _weights(scores: Tensor, key_mask: Tensor | None) -> Tensor:
    """Softmax over the keys [B, H, Q, S]; 0 where no key is left or all scores are -inf, not NaN."""
    if key_mask is not None:
        scores = scores.masked_fill(~key_mask[:, None, None], float("-inf"))
    empty = scores.detach().amax(-1, keepdim=True) == float("-inf")
    weights = scores.masked_fill(empty, 0).softmax(-1, dtype=geometry_dtype(scores))
    return weights.masked_fill(empty, 0)


def masked_cross_attention_backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, key_mask: Tensor | None, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `masked_cross_attention` in query, key and value; computes the weights again."""
    dtype = query.dtype
    grad, query, key, value = (t.to(geometry_dtype(t)) for t in (grad, query, key, value))
    if key_mask is not None:
        column = key_mask[:, None, :, None]
        key, value = key.where(column, 0), value.where(column, 0)
    weights = _weights((query * scale) @ key.transpose(-2, -1), key_mask)  # [B, H, Q, S]
    change = grad @ value.transpose(-2, -1)
    change = weights * (change - (weights * change).sum(-1, keepdim=True)) * scale
    to_key, to_value = change.transpose(-2, -1) @ query, weights.transpose(-2, -1) @ grad
    if key_mask is not None:
        to_key, to_value = to_key.where(column, 0), to_value.where(column, 0)
    return (change @ key).to(dtype), to_key.to(dtype), to_value.to(dtype)
