"""What every operator of this package computes, in plain PyTorch: the specification, on any device.

Geometry is computed in float32 (float64 for float64 inputs) from differences, dx*dx + dy*dy + dz*dz summed
from left to right: the expansion |q|^2 + |p|^2 - 2qp picks wrong neighbours away from the origin. Ties go to
the smallest index. Arguments are taken as valid; the public functions check them.
"""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

NEAR_ORIGIN = 1e-3  # pointnet2_ops passes over points with |p|^2 at or below this
_CHUNK = 1 << 24  # pairs of points held at once


def geometry_dtype(xyz: Tensor) -> torch.dtype:
    """The dtype distances are computed in: float32, or float64 for float64 input."""
    return torch.float64 if xyz.dtype == torch.float64 else torch.float32


def _squared_norm(diff: Tensor) -> Tensor:
    """|diff|^2 over the last axis, summed x, y, z in that order."""
    x, y, z = diff.unbind(-1)
    return x * x + y * y + z * z


def _pairwise(queries: Tensor, points: Tensor) -> Tensor:
    """Squared distances [B, M, N]; a NaN counts as inf."""
    d2 = (queries[:, :, None, 0] - points[:, None, :, 0]).square_()
    d2 += (queries[:, :, None, 1] - points[:, None, :, 1]).square_()
    d2 += (queries[:, :, None, 2] - points[:, None, :, 2]).square_()
    return d2.nan_to_num_(nan=float("inf"), posinf=float("inf"))


def query_chunks(queries: Tensor, num_points: int) -> Iterator[Tensor]:
    """Split [B, M, ...] along M so that a chunk's distance matrix stays small."""
    rows = max(1, _CHUNK // (queries.shape[0] * num_points))
    return iter(queries.split(rows, dim=1))


def _valid(length: Tensor, size: int) -> Tensor:
    """[B, size] bool: which positions lie within the lengths."""
    return torch.arange(size, device=length.device) < length[:, None]


def zero_padding(xyz: Tensor, lengths: Tensor | None) -> Tensor:
    """The clouds with zeros behind their lengths, so that a NaN there meets no gradient."""
    return xyz if lengths is None else xyz.masked_fill(~_valid(lengths, xyz.shape[1])[..., None], 0)


def gather_points(xyz: Tensor, idx: Tensor) -> Tensor:
    """Points [B, ..., 3] at `idx` [B, ...]; an index of -1 takes point 0. Differentiable in `xyz`."""
    flat = idx.clamp_min(0).reshape(idx.shape[0], -1, 1).expand(-1, -1, 3)
    return xyz.gather(1, flat).reshape(*idx.shape, 3)


def distances_to(src: Tensor, dst: Tensor, idx: Tensor) -> Tensor:  # [B, N, 3], [B, M, 3], [B, N, K]
    """|src_i - dst_idx[i, k]|^2 [B, N, K], inf at index -1. Differentiable in both, in every mode."""
    dtype, nothing = geometry_dtype(src), idx < 0
    diff = src.to(dtype)[:, :, None] - gather_points(dst.to(dtype), idx)
    # A difference of 0 before the square keeps what is not there out of the gradients, NaN included.
    return _squared_norm(diff.masked_fill(nothing[..., None], 0)).masked_fill(nothing, float("inf"))


def farthest_point_sample(
    xyz: Tensor,  # [B, N, 3]
    num_samples: int,
    *,
    lengths: Tensor | None = None,  # [B]
    start_index: int = 0,
    skip_near_origin: bool = False,
) -> Tensor:  # [B, M] int64
    xyz = xyz.detach().to(geometry_dtype(xyz))
    B, N, _ = xyz.shape
    point = torch.arange(N, device=xyz.device)
    # Distance to the chosen set; the negative values rank what is taken only when nothing better is left.
    dist = torch.full((B, N), float("inf"), dtype=xyz.dtype, device=xyz.device)
    last_resort = ~xyz.isfinite().all(-1)
    if skip_near_origin:
        last_resort |= _squared_norm(xyz) <= NEAR_ORIGIN
    dist.masked_fill_(last_resort, -1)
    if lengths is not None:
        dist.masked_fill_(~_valid(lengths, N), -3)

    idx = torch.empty(B, num_samples, dtype=torch.int64, device=xyz.device)
    current = torch.full((B, 1), start_index, dtype=torch.int64, device=xyz.device)
    if lengths is not None:
        current = current.minimum(lengths[:, None] - 1).clamp_min(0)
    for m in range(num_samples):
        idx[:, m : m + 1] = current
        dist.scatter_(1, current, -2)
        d2 = _squared_norm(xyz - gather_points(xyz, current))
        dist = torch.where(d2 < dist, d2, dist)  # a NaN distance is never nearer, a chosen point stays chosen
        farthest = dist.amax(1, keepdim=True)
        current = torch.where(dist == farthest, point, N).amin(1, keepdim=True)
    if lengths is not None:
        idx.masked_fill_(torch.arange(num_samples, device=xyz.device) >= lengths[:, None], -1)
    return idx


def knn(
    queries: Tensor,  # [B, M, 3]
    points: Tensor,  # [B, N, 3]
    k: int,
    *,
    lengths: Tensor | None = None,  # [B]
) -> tuple[Tensor, Tensor]:  # [B, M, k], [B, M, k] int64
    dtype = geometry_dtype(queries)
    queries, points = queries.to(dtype), points.to(dtype)
    N = points.shape[1]
    with torch.no_grad():
        chunks = []
        for chunk in query_chunks(queries, N):
            d2 = _pairwise(chunk, points)  # [B, m, N]
            if lengths is not None:
                d2.masked_fill_(~_valid(lengths, N)[:, None], float("inf"))
            if dtype == torch.float32:
                # Bits of a non-negative float sort like the float, so (bits, index) is one integer key.
                key = (d2.view(torch.int32).to(torch.int64) << 32) | torch.arange(N, device=d2.device)
                chunks.append(key.topk(k, largest=False).values & 0xFFFFFFFF)
            else:
                chunks.append(d2.sort(dim=-1, stable=True).indices[..., :k])
        idx = torch.cat(chunks, 1)  # [B, M, k]
    if lengths is not None:
        idx = idx.masked_fill(idx >= lengths[:, None, None], -1)
    return distances_to(queries, points, idx), idx


def neighbor_edges(idx: Tensor) -> Tensor:  # [M, k] int64, -1 for none -> [2, E]
    there = idx >= 0
    row = torch.arange(idx.shape[0], device=idx.device)[:, None].expand_as(idx)
    return torch.stack([row[there], idx[there]])


def squared_radius(radius: float, dtype: torch.dtype) -> float:
    """radius^2 as arithmetic in `dtype` rounds it."""
    rounded = torch.tensor(radius, dtype=dtype)
    return (rounded * rounded).item()


def ball_query(
    queries: Tensor,  # [B, M, 3]
    points: Tensor,  # [B, N, 3]
    radius: float,
    k: int,
    *,
    lengths: Tensor | None = None,  # [B]
    padding: str = "none",
) -> tuple[Tensor, Tensor]:  # [B, M, k], [B, M, k] int64
    dtype = geometry_dtype(queries)
    queries, points = queries.to(dtype), points.to(dtype)
    N = points.shape[1]
    point, bound = torch.arange(N, device=points.device), squared_radius(radius, dtype)
    with torch.no_grad():
        chunks = []
        for chunk in query_chunks(queries, N):
            inside = _pairwise(chunk, points) < bound  # [B, m, N]
            if lengths is not None:
                inside &= _valid(lengths, N)[:, None]
            chunks.append(torch.where(inside, point, N).topk(min(k, N), largest=False).values)
        idx = F.pad(torch.cat(chunks, 1), (0, max(0, k - N)), value=N)  # [B, M, k]
        idx = idx.masked_fill(idx == N, -1)
        if padding == "first":
            idx = torch.where(idx < 0, idx[..., :1], idx).clamp_min(0)
            if lengths is not None:
                idx = idx.masked_fill(lengths[:, None, None] <= 0, -1)
    return distances_to(queries, points, idx), idx


def sample_and_group(
    xyz: Tensor,  # [B, N, 3]
    num_groups: int,
    group_size: int,
    *,
    lengths: Tensor | None = None,  # [B]
    skip_near_origin: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # [B, G, 3], [B, G, K, 3], [B, G] int64, [B, G, K] int64
    center_idx = farthest_point_sample(xyz, num_groups, lengths=lengths, skip_near_origin=skip_near_origin)
    centers, neighborhoods, neighbor_idx = group_around(xyz, center_idx, group_size, lengths)
    return centers, neighborhoods, center_idx, neighbor_idx


def group(
    xyz: Tensor,  # [B, N, 3]
    centers: Tensor,  # [B, G, 3]
    center_idx: Tensor,  # [B, G] int64
    neighbor_idx: Tensor,  # [B, G, K] int64
    *,
    padded: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # as sample_and_group
    """The neighbours relative to their centers; with `padded`, index -1 gives coordinates 0."""
    neighborhoods = gather_points(xyz, neighbor_idx) - centers[:, :, None]
    if padded:
        no_center = center_idx < 0
        neighbor_idx = neighbor_idx.masked_fill(no_center[..., None], -1)
        centers = centers.masked_fill(no_center[..., None], 0)
        neighborhoods = neighborhoods.masked_fill((neighbor_idx < 0)[..., None], 0)
    return centers, neighborhoods, center_idx, neighbor_idx


def group_around(
    xyz: Tensor,  # [B, N, 3]
    center_idx: Tensor,  # [B, G] int64, -1 for none
    k: int,
    lengths: Tensor | None,  # [B]
    find: Callable[..., tuple[Tensor, Tensor]] = knn,
) -> tuple[Tensor, Tensor, Tensor]:  # [B, G, 3], [B, G, K, 3], [B, G, K] int64
    """Centers, neighbourhoods and neighbours of the points `center_idx`; `find` takes the place of `knn`."""
    xyz = xyz.to(geometry_dtype(xyz))
    centers = gather_points(xyz, center_idx)
    _, neighbor_idx = find(centers.detach(), xyz.detach(), k, lengths=lengths)
    centers, neighborhoods, _, neighbor_idx = group(
        xyz, centers, center_idx, neighbor_idx, padded=lengths is not None
    )
    return centers, neighborhoods, neighbor_idx


def group_backward(
    grad_centers: Tensor | None,  # [B, G, 3]
    grad_neighborhoods: Tensor | None,  # [B, G, K, 3]
    center_idx: Tensor,  # [B, G] int64, -1 for none
    neighbor_idx: Tensor,  # [B, G, K] int64, -1 for none
    num_points: int,
) -> Tensor:  # [B, N, 3]
    """Gradient of `group` in the points."""
    if grad_neighborhoods is None:
        assert grad_centers is not None
        idx, flow = center_idx, grad_centers
    else:
        flow = grad_neighborhoods.masked_fill((neighbor_idx < 0)[..., None], 0)
        to_centers = -flow.sum(2) if grad_centers is None else grad_centers - flow.sum(2)
        idx = torch.cat([center_idx, neighbor_idx.flatten(1)], 1)  # [B, G + G * K]
        flow = torch.cat([to_centers, flow.flatten(1, 2)], 1)
    flow = flow.masked_fill(idx[..., None] < 0, 0)
    batch = torch.arange(idx.shape[0], device=idx.device)[:, None]
    out = flow.new_zeros(idx.shape[0], num_points, 3)
    return out.index_put((batch, idx.clamp_min(0)), flow, accumulate=True)


def nearest_neighbor(
    src: Tensor,  # [B, N, 3]
    dst: Tensor,  # [B, M, 3]
    *,
    src_lengths: Tensor | None = None,  # [B]
    dst_lengths: Tensor | None = None,  # [B]
) -> tuple[Tensor, Tensor]:  # [B, N], [B, N] int64; -1 and inf behind src_lengths and in an empty cloud
    dtype = geometry_dtype(src)
    src, dst = src.to(dtype), dst.to(dtype)
    M = dst.shape[1]
    target = torch.arange(M, device=dst.device)
    with torch.no_grad():
        chunks = []
        for chunk in query_chunks(src, M):
            d2 = _pairwise(chunk, dst)  # [B, n, M]
            if dst_lengths is not None:
                d2.masked_fill_(~_valid(dst_lengths, M)[:, None], float("inf"))
            nearest = d2.amin(-1, keepdim=True)
            chunks.append(torch.where(d2 == nearest, target, M).amin(-1))
        idx = torch.cat(chunks, 1)  # [B, N]
        if dst_lengths is not None:
            idx = idx.masked_fill(dst_lengths[:, None] <= 0, -1)
        if src_lengths is not None:
            idx = idx.masked_fill(~_valid(src_lengths, src.shape[1]), -1)
    return nearest_distances(src, dst, idx), idx


def nearest_distances(src: Tensor, dst: Tensor, idx: Tensor) -> Tensor:  # [B, N]
    return distances_to(src, dst, idx[..., None])[..., 0]


def mutual_nearest(
    src: Tensor,  # [B, N, 3]
    dst: Tensor,  # [B, M, 3]
    *,
    src_lengths: Tensor | None = None,  # [B]
    dst_lengths: Tensor | None = None,  # [B]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # [B, N], [B, N] int64, [B, M], [B, M] int64
    forth = nearest_neighbor(src, dst, src_lengths=src_lengths, dst_lengths=dst_lengths)
    return *forth, *nearest_neighbor(dst, src, src_lengths=dst_lengths, dst_lengths=src_lengths)


def of_pairs(
    lengths: Tensor | None,  # [B]
    size: int,
    others: Tensor | None,  # [B]
) -> Tensor | None:  # [B]
    """The lengths of clouds of `size` points, 0 for those whose partner is empty: such pairs count 0."""
    if others is None:
        return lengths
    own = torch.full_like(others, size) if lengths is None else lengths
    return own.where(others > 0, 0)


def distance_backward(
    grad: Tensor,  # [B, N, K]
    src: Tensor,  # [B, N, 3]
    dst: Tensor,  # [B, M, 3]
    idx: Tensor,  # [B, N, K] int64, -1 for none
) -> tuple[Tensor, Tensor]:  # [B, N, 3], [B, M, 3]
    """Gradients of |src_i - dst_idx[i, k]|^2, weighted by `grad`."""
    dtype = geometry_dtype(src)
    diff = src.to(dtype)[:, :, None] - gather_points(dst.to(dtype), idx)
    flow = (2 * grad[..., None] * diff).masked_fill(idx[..., None] < 0, 0)  # [B, N, K, 3]
    batch = torch.arange(idx.shape[0], device=idx.device)[:, None, None]
    # index_put adds in a fixed order on CUDA, scatter_add does not.
    into = torch.zeros_like(dst, dtype=dtype).index_put((batch, idx.clamp_min(0)), -flow, accumulate=True)
    return flow.sum(2).to(src.dtype), into.to(dst.dtype)


def _root(d2: Tensor) -> Tensor:
    """Square root whose gradient at 0 is 0."""
    positive = d2 > 0
    return torch.where(positive, torch.where(positive, d2, 1).sqrt(), d2)


def chamfer_weights(
    d2: Tensor,  # [B, N]
    lengths: Tensor | None,  # [B]
    norm: str,
) -> Tensor:  # [B, N]
    """Derivative of the loss of each pair in its squared distances."""
    weights = torch.full_like(d2, 1 / d2.shape[1])
    if lengths is not None:
        weights = (_valid(lengths, d2.shape[1]) / lengths.clamp(1, d2.shape[1])[:, None]).to(d2.dtype)
    if norm == "l1":
        positive = d2 > 0
        weights = weights / torch.where(positive, 4 * torch.where(positive, d2, 1).sqrt(), 2)
    return weights


def _mean_over_points(values: Tensor, lengths: Tensor | None) -> Tensor:
    """[B, N] -> [B], over the valid points of each row."""
    if lengths is None:
        return values.mean(1)
    values = values.masked_fill(~_valid(lengths, values.shape[1]), 0)
    return values.sum(1) / lengths.clamp(1, values.shape[1])


def chamfer_distance(
    pred: Tensor,  # [B, N, 3]
    target: Tensor,  # [B, M, 3]
    *,
    pred_lengths: Tensor | None = None,  # [B]
    target_lengths: Tensor | None = None,  # [B]
    norm: str = "l2",
    reduction: str = "mean",
    weights: Tensor | None = None,  # [B]
    single_directional: bool = False,
) -> Tensor:  # [] or [B]
    if single_directional:
        forth, _ = nearest_neighbor(pred, target, src_lengths=pred_lengths, dst_lengths=target_lengths)
        lengths = of_pairs(pred_lengths, pred.shape[1], target_lengths)
        return reduce_pairs(one_way_loss(forth, lengths, norm), reduction, weights)
    forth, _, back, _ = mutual_nearest(pred, target, src_lengths=pred_lengths, dst_lengths=target_lengths)
    return chamfer_loss(forth, back, pred_lengths, target_lengths, norm, reduction, weights)


def chamfer_loss(
    forth: Tensor,  # [B, N] squared distances from pred to target
    back: Tensor,  # [B, M] squared distances from target to pred
    pred_lengths: Tensor | None,  # [B]
    target_lengths: Tensor | None,  # [B]
    norm: str,
    reduction: str,
    weights: Tensor | None = None,  # [B]
) -> Tensor:  # [] or [B]
    of_pred = of_pairs(pred_lengths, forth.shape[1], target_lengths)
    of_target = of_pairs(target_lengths, back.shape[1], pred_lengths)
    loss = one_way_loss(forth, of_pred, norm) + one_way_loss(back, of_target, norm)
    return reduce_pairs(loss / 2 if norm == "l1" else loss, reduction, weights)


def one_way_loss(forth: Tensor, lengths: Tensor | None, norm: str) -> Tensor:  # [B, N], [B] -> [B]
    """Mean squared distance of each pair, or mean distance for norm "l1"."""
    return _mean_over_points(_root(forth) if norm == "l1" else forth, lengths)


def reduce_pairs(loss: Tensor, reduction: str, weights: Tensor | None = None) -> Tensor:
    """The losses [B] of all pairs, times their weights [B], reduced; a mean is over the weights."""
    if weights is not None:
        loss = loss * weights
    if reduction == "none":
        return loss
    if reduction == "sum":
        return loss.sum()
    return loss.mean() if weights is None else loss.sum() / weights.sum()


def masked_cross_attention(
    query: Tensor,  # [B, H, Q, D]
    key: Tensor,  # [B, H, S, D]
    value: Tensor,  # [B, H, S, D]
    key_mask: Tensor | None = None,  # [B, S] bool
    *,
    scale: float | None = None,
) -> Tensor:  # [B, H, Q, D]
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
    grad: Tensor,  # [B, H, Q, D]
    query: Tensor,  # [B, H, Q, D]
    key: Tensor,  # [B, H, S, D]
    value: Tensor,  # [B, H, S, D]
    key_mask: Tensor | None,  # [B, S] bool
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:  # shapes of query, key, value
    """Gradients of `masked_cross_attention`, which computes the weights again."""
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


def linear_max(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:  # [G, K, C], [O, C], [O] -> [G, O]
    return F.linear(x, weight, bias).max(1).values


def group_max(values: Tensor) -> tuple[Tensor, Tensor]:  # [G, K, O] -> [G, O], [G, O] int32
    """The maxima over a group, and which member of it each is of."""
    out, idx = values.max(1)
    return out, idx.to(torch.int32)


def linear_max_backward(
    grad: Tensor,  # [G, O]
    idx: Tensor,  # [G, O] int32: which member is the maximum
    x: Tensor,  # [G, K, C]
    weight: Tensor,  # [O, C]
) -> tuple[Tensor, Tensor, Tensor]:  # [G, K, C], [O, C], [O]
    """Gradients of `linear_max`."""
    dtype = geometry_dtype(x)
    full = torch.zeros(x.shape[0], x.shape[1], weight.shape[0], dtype=dtype, device=x.device)
    full.scatter_(1, idx[:, None].long(), grad[:, None].to(dtype))
    flat = full.flatten(0, 1)
    to_x = (flat @ weight.to(dtype)).view(x.shape)
    return (
        to_x.to(x.dtype),
        (flat.T @ x.to(dtype).flatten(0, 1)).to(weight.dtype),
        flat.sum(0).to(weight.dtype),
    )


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


def sum_features(
    features: Tensor,  # [B, C, N]
    idx: Tensor,  # [B, M, K], what is not in [0, N) adds 0
    weights: Tensor | None = None,  # [B, M, K]
) -> Tensor:  # [B, C, M]
    """Sum over K of the features at `idx`, times their weights."""
    found, valid = _features_at(features, idx)
    if weights is not None:
        found = found * weights.to(found.dtype)[:, None]
    return found.masked_fill(~valid[:, None], 0).sum(-1).to(features.dtype)


def gather_features(features: Tensor, idx: Tensor) -> Tensor:  # [B, C, N], [B, ...] -> [B, C, ...]
    return sum_features(features, idx.flatten(1)[..., None]).unflatten(2, idx.shape[1:])


def interpolate_features(features: Tensor, idx: Tensor, weights: Tensor) -> Tensor:
    return sum_features(features, idx, weights)


def scatter_features(
    values: Tensor,  # [B, C, M]
    idx: Tensor,  # [B, M, K], what is not in [0, N) goes nowhere
    weights: Tensor | None,  # [B, M, K]
    num_points: int,
) -> Tensor:  # [B, C, N]
    """Gradient of `sum_features` in the features."""
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


def match_features(
    values: Tensor,  # [B, C, M]
    features: Tensor,  # [B, C, N]
    idx: Tensor,  # [B, M, K]
) -> Tensor:  # [B, M, K]
    """Gradient of `sum_features` in the weights."""
    found, valid = _features_at(features, idx)
    return (values.to(found.dtype)[..., None] * found).masked_fill(~valid[:, None], 0).sum(1)
