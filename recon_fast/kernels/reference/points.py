"""Geometry, sampling, search and grouping in plain PyTorch.

Gradients are added with index_put, in a fixed order on CUDA, where scatter_add has none.
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


def squared_norm(diff: Tensor) -> Tensor:
    """|diff|^2 over the last axis: x, y, z in that order, of more coordinates the halves onto each other."""
    return _sum(diff * diff)


def _sum(terms: Tensor) -> Tensor:
    size = terms.shape[-1]
    if size == 1:
        return terms[..., 0]
    half = size // 2
    total = _sum(terms[..., :half] + terms[..., half : 2 * half])
    return total + terms[..., -1] if size % 2 else total


def pairwise(queries: Tensor, points: Tensor) -> Tensor:
    """Squared distances [B, M, N]; a NaN counts as inf."""
    if queries.shape[2] > 3:
        d2 = squared_norm(queries[:, :, None] - points[:, None])
    else:
        d2 = (queries[:, :, None, 0] - points[:, None, :, 0]).square_()
        for axis in range(1, queries.shape[2]):
            d2 += (queries[:, :, None, axis] - points[:, None, :, axis]).square_()
    return d2.nan_to_num_(nan=float("inf"), posinf=float("inf"))


def query_chunks(queries: Tensor, num_points: int) -> Iterator[Tensor]:
    """Split [B, M, D] along M so that what a chunk's distance matrix is made of stays small."""
    B, _, D = queries.shape
    rows = max(1, _CHUNK // (B * num_points * (4 * D if D > 3 else 1)))
    return iter(queries.split(rows, dim=1))


def valid_rows(length: Tensor, size: int) -> Tensor:
    """[B, size] bool: which positions lie within the lengths."""
    return torch.arange(size, device=length.device) < length[:, None]


def zero_padding(xyz: Tensor, lengths: Tensor | None) -> Tensor:
    """The clouds with zeros behind their lengths, so that a NaN there meets no gradient."""
    return xyz if lengths is None else xyz.masked_fill(~valid_rows(lengths, xyz.shape[1])[..., None], 0)


def gather_points(xyz: Tensor, idx: Tensor) -> Tensor:
    """Points [B, ..., D] at `idx` [B, ...]; an index of -1 takes point 0. Differentiable in `xyz`."""
    D = xyz.shape[2]
    flat = idx.clamp_min(0).reshape(idx.shape[0], -1, 1).expand(-1, -1, D)
    return xyz.gather(1, flat).reshape(*idx.shape, D)


def distances_to(src: Tensor, dst: Tensor, idx: Tensor) -> Tensor:
    """|src_i - dst_idx[i, k]|^2 [B, N, K] of src [B, N, D], dst [B, M, D] and idx [B, N, K], inf at index -1.

    Without K for idx [B, N]. Differentiable in both, in every mode.
    """
    dtype, nothing = geometry_dtype(src), idx < 0
    src = src.to(dtype)
    diff = (src if idx.ndim == 2 else src[:, :, None]) - gather_points(dst.to(dtype), idx)
    # A difference of 0 before the square keeps what is not there out of the gradients, NaN included.
    return squared_norm(diff.masked_fill(nothing[..., None], 0)).masked_fill(nothing, float("inf"))


def farthest_point_sample(
    xyz: Tensor,
    num_samples: int,
    *,
    lengths: Tensor | None = None,
    start_index: int = 0,
    skip_near_origin: bool = False,
    distances: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """xyz [B, N, D], lengths [B] -> [B, num_samples] int64.

    `distances` takes indices [B, 1] and gives the squared distances of all points to those [B, N].
    """
    xyz = xyz.detach().to(geometry_dtype(xyz))
    B, N, _ = xyz.shape
    # Distance to the chosen set; the negative values rank what is taken only when nothing better is left.
    dist = torch.full((B, N), float("inf"), dtype=xyz.dtype, device=xyz.device)
    last_resort = ~xyz.isfinite().all(-1)
    if skip_near_origin:
        last_resort |= squared_norm(xyz) <= NEAR_ORIGIN
    dist.masked_fill_(last_resort, -1)
    if lengths is not None:
        dist.masked_fill_(~valid_rows(lengths, N), -3)

    idx = torch.empty(B, num_samples, dtype=torch.int64, device=xyz.device)
    current = torch.full((B, 1), start_index, dtype=torch.int64, device=xyz.device)
    if lengths is not None:
        current = current.minimum(lengths[:, None] - 1).clamp_min(0)
    for m in range(num_samples):
        idx[:, m : m + 1] = current
        dist.scatter_(1, current, -2)
        d2 = distances(current) if distances else squared_norm(xyz - gather_points(xyz, current))
        dist = torch.where(d2 < dist, d2, dist)  # a NaN distance is never nearer, a chosen point stays chosen
        current = dist.argmax(1, keepdim=True)  # the first of those that are as far
    if lengths is not None:
        idx.masked_fill_(torch.arange(num_samples, device=xyz.device) >= lengths[:, None], -1)
    return idx


def nearest_first(dist: Tensor, k: int) -> Tensor:
    """Positions [..., k] of the smallest of distances that are 0 or more, by (distance, position)."""
    if dist.dtype == torch.float64:
        return dist.sort(dim=-1, stable=True).indices[..., :k]
    # Bits of a non-negative float sort like the float, so (bits, index) is one integer key.
    place = torch.arange(dist.shape[-1], device=dist.device)
    key = (dist.view(torch.int32).to(torch.int64) << 32) | place
    return key.topk(k, largest=False).values & 0xFFFFFFFF


def knn(queries: Tensor, points: Tensor, k: int, *, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Queries [B, M, D], points [B, N, D], lengths [B] -> distances [B, M, k], indices [B, M, k] int64."""
    dtype = geometry_dtype(queries)
    queries, points = queries.to(dtype), points.to(dtype)
    N = points.shape[1]
    with torch.no_grad():
        chunks = []
        for chunk in query_chunks(queries, N):
            d2 = pairwise(chunk, points)  # [B, m, N]
            if lengths is not None:
                d2.masked_fill_(~valid_rows(lengths, N)[:, None], float("inf"))
            chunks.append(nearest_first(d2, k))
        idx = torch.cat(chunks, 1)  # [B, M, k]
    if lengths is not None:
        idx = idx.masked_fill(idx >= lengths[:, None, None], -1)
    return distances_to(queries, points, idx), idx


def nearest_neighbor(
    src: Tensor, dst: Tensor, *, src_lengths: Tensor | None = None, dst_lengths: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """src [B, N, D], dst [B, M, D], lengths [B] -> distances [B, N], indices [B, N] int64.

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
    """Gradients in src [B, N, D] and dst [B, M, D] of |src_i - dst_idx[i, k]|^2, weighted by grad [B, N, K].

    idx is [B, N, K], -1 for none.
    """
    dtype = geometry_dtype(src)
    diff = src.to(dtype)[:, :, None] - gather_points(dst.to(dtype), idx)
    flow = (2 * grad[..., None] * diff).masked_fill(idx[..., None] < 0, 0)  # [B, N, K, D]
    batch = torch.arange(idx.shape[0], device=idx.device)[:, None, None]
    into = dst.new_zeros(dst.shape, dtype=dtype).index_put((batch, idx.clamp_min(0)), -flow, accumulate=True)
    return flow.sum(2).to(src.dtype), into.to(dst.dtype)


def neighbor_edges(idx: Tensor) -> Tensor:  # [M, k] int64, -1 for none -> [2, E]
    there = idx >= 0
    row = torch.arange(idx.shape[0], device=idx.device)[:, None].expand_as(idx)
    return torch.stack([row[there], idx[there]])


def squared_radius(radius: float, dtype: torch.dtype) -> float:
    """radius^2 as arithmetic in `dtype` rounds it."""
    rounded = torch.tensor(radius, dtype=dtype)
    return (rounded * rounded).item()


def first_inside(inside: Tensor, k: int, lengths: Tensor | None, padding: str) -> Tensor:
    """Of points inside [B, M, N], the first k, padded: [B, M, k] int64."""
    N = inside.shape[2]
    point = torch.arange(N, device=inside.device)
    idx = torch.where(inside, point, N).topk(min(k, N), largest=False).values
    idx = F.pad(idx, (0, max(0, k - N)), value=N)
    idx = idx.masked_fill(idx == N, -1)
    if padding == "first":
        idx = torch.where(idx < 0, idx[..., :1], idx).clamp_min(0)
        if lengths is not None:
            idx = idx.masked_fill(lengths[:, None, None] <= 0, -1)
    return idx


def ball_query(
    queries: Tensor,
    points: Tensor,
    radius: float,
    k: int,
    *,
    lengths: Tensor | None = None,
    padding: str = "none",
) -> tuple[Tensor, Tensor]:
    """Queries [B, M, D], points [B, N, D], lengths [B] -> distances [B, M, k], indices [B, M, k] int64."""
    dtype = geometry_dtype(queries)
    queries, points = queries.to(dtype), points.to(dtype)
    N = points.shape[1]
    bound = squared_radius(radius, dtype)
    with torch.no_grad():
        chunks = []
        for chunk in query_chunks(queries, N):
            inside = pairwise(chunk, points) < bound  # [B, m, N]
            if lengths is not None:
                inside &= valid_rows(lengths, N)[:, None]
            chunks.append(first_inside(inside, k, lengths, padding))
        idx = torch.cat(chunks, 1)  # [B, M, k]
    return distances_to(queries, points, idx), idx


def sample_and_group(
    xyz: Tensor,
    num_groups: int,
    group_size: int,
    *,
    lengths: Tensor | None = None,
    skip_near_origin: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """xyz [B, N, 3], lengths [B] -> [B, G, 3], [B, G, K, 3], [B, G] int64, [B, G, K] int64."""
    center_idx = farthest_point_sample(xyz, num_groups, lengths=lengths, skip_near_origin=skip_near_origin)
    centers, neighborhoods, neighbor_idx = group_around(xyz, center_idx, group_size, lengths)
    return centers, neighborhoods, center_idx, neighbor_idx


def group(
    xyz: Tensor, centers: Tensor, center_idx: Tensor, neighbor_idx: Tensor, *, padded: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What `sample_and_group` gives, of its parts; with `padded`, index -1 gives coordinates 0."""
    neighborhoods = gather_points(xyz, neighbor_idx) - centers[:, :, None]
    if padded:
        no_center = center_idx < 0
        neighbor_idx = neighbor_idx.masked_fill(no_center[..., None], -1)
        centers = centers.masked_fill(no_center[..., None], 0)
        neighborhoods = neighborhoods.masked_fill((neighbor_idx < 0)[..., None], 0)
    return centers, neighborhoods, center_idx, neighbor_idx


def group_around(
    xyz: Tensor,
    center_idx: Tensor,
    k: int,
    lengths: Tensor | None,
    find: Callable[..., tuple[Tensor, Tensor]] = knn,
) -> tuple[Tensor, Tensor, Tensor]:
    """xyz [B, N, 3], center_idx [B, G] (-1 for none) -> [B, G, 3], [B, G, K, 3], [B, G, K] int64.

    The neighbours of the points `center_idx`, found by `find` in place of `knn`.
    """
    xyz = xyz.to(geometry_dtype(xyz))
    centers = gather_points(xyz, center_idx)
    _, neighbor_idx = find(centers.detach(), xyz.detach(), k, lengths=lengths)
    centers, neighborhoods, _, neighbor_idx = group(
        xyz, centers, center_idx, neighbor_idx, padded=lengths is not None
    )
    return centers, neighborhoods, neighbor_idx


def group_backward(
    grad_centers: Tensor | None,
    grad_neighborhoods: Tensor | None,
    center_idx: Tensor,
    neighbor_idx: Tensor,
    num_points: int,
) -> Tensor:
    """Gradient [B, N, 3] of `group` in the points, from those of its first two results (one may be None)."""
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
