"""Search in more than three dimensions, in plain PyTorch on any device: the results of the reference, sooner.

|q|^2 + |p|^2 - 2qp of points relative to one of their cloud, less all that rounding can do to it and to the
reference, bounds the reference's distance from below. Such bounds are one matrix product, in float64, which
has the digits and which autocast and TF32 leave alone. Of the few points with the smallest bounds the
distances are computed from differences. Where the k-th of these is below all other bounds, nobody else is
nearer. Elsewhere more points are equally far than there was room for: once more with more candidates, and in
the end all points.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from recon_fast.kernels import reference
from recon_fast.kernels.reference import nearest_first, squared_norm, squared_radius, valid_rows

_ROOM = 1 << 22  # numbers held at once on a CPU
_INF = float("inf")

_Block = tuple[slice, slice]  # of clouds and of their queries


class _Bounds:
    """Lower bounds of the distances between clouds, as factors of a product."""

    def __init__(self, queries: Tensor, points: Tensor, lengths: Tensor | None):
        D, info = points.shape[2], torch.finfo(queries.dtype)
        self.direct = (2 * D.bit_length() + 6) * info.eps  # relative error of the reference
        self.least = 4 * D * info.tiny  # what it may lose in squares that are too small
        self.product = 4 * (D + 4) * torch.finfo(torch.float64).eps  # error relative to |q|^2 + |p|^2
        origin = points[:, :1].double().nan_to_num(0, 0, 0)
        q, q_norm = _from(origin, queries)
        p, p_norm = _from(origin, points)
        # No product may overflow. A query that could has bounds NaN, a float64 point is as near as can be; a
        # float32 one that could is not finite, so nowhere.
        usable = p_norm < 1e300
        elsewhere = torch.full_like(p_norm, -_INF if queries.dtype == torch.float64 else _INF)
        if lengths is not None:
            there = valid_rows(lengths, points.shape[1])[..., None]
            usable &= there
            elsewhere.masked_fill_(~there, _INF)
        self.largest = q_norm + p_norm.where(usable, 0).amax(1, keepdim=True)  # [B, M, 1]
        shrink, scale = 1 - self.product, 1 - self.direct  # (|q|^2 + |p|^2) shrink - 2qp, all times scale
        q_norm = q_norm.where(q_norm < 1e300, torch.nan)
        q[..., -2:] = torch.cat([q_norm, torch.ones_like(q_norm)], 2) * (shrink * scale)
        p.masked_fill_(~usable, 0).mul_(-2 * scale)
        p[..., -2:] = torch.cat([torch.ones_like(p_norm), p_norm.where(usable, elsewhere) - self.least], 2)
        self.queries, self.points = q, p.mT

    def of(self, block: _Block) -> Tensor:
        """[b, m, N] of some queries."""
        return self.queries[block] @ self.points[block[0]]


def _from(origin: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows [B, N, D] relative to the origin in float64, with room for two more columns, and their |.|^2."""
    B, N, D = rows.shape
    room = origin.new_empty(B, N, D + 2)
    torch.sub(rows, origin, out=room[..., :D])
    return room, torch.linalg.vector_norm(room[..., :D], dim=2, keepdim=True).square_()


def _blocks(queries: Tensor, num_points: int, k: int) -> Iterator[_Block]:
    """Queries whose bounds and k neighbours each are held at once."""
    B, M, D = queries.shape
    room = _ROOM * (1 if queries.device.type == "cpu" else 8) // (num_points + k * D)
    clouds = max(1, room // M)
    rows = max(1, room // clouds)
    for cloud in range(0, B, clouds):
        for row in range(0, M, rows):
            yield slice(cloud, cloud + clouds), slice(row, row + rows)


def _smallest(bound: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k smallest of [b, m, N], in no order, and their indices: [b, m, k] each.

    They are in the k groups of 8 with the smallest minima, which are found sooner.
    """
    N = bound.shape[2]
    if N % 8 or 16 * k > N:
        return bound.topk(k, largest=False, sorted=False)
    groups = bound.unflatten(2, (8, N // 8))
    first = groups.amin(2).topk(k, largest=False, sorted=False).indices[:, :, None]  # [b, m, 1, k]
    place = first + torch.arange(0, N, N // 8, device=bound.device)[:, None]  # [b, m, 8, k]
    values, idx = bound.gather(2, place.flatten(2)).topk(k, largest=False, sorted=False)
    return values, place.flatten(2).gather(2, idx)


def _squares(queries: Tensor, points: Tensor, idx: Tensor) -> Tensor:
    """`reference.distances_to` of indices that are 0 or more."""
    B, N, D = points.shape
    start = torch.arange(0, B * N, N, device=idx.device)[:, None, None]
    rows = F.embedding(idx + start, points.reshape(-1, D))  # [b, m, k, D]
    return _sum_(rows.sub_(queries[:, :, None]).square_().movedim(-1, 0))


def _sum_(terms: Tensor) -> Tensor:
    """Over the first axis, in the order of `reference.squared_norm` and in the memory of its argument."""
    size = len(terms)
    if size == 1:
        return terms[0]
    half = size // 2
    total = _sum_(terms[:half].add_(terms[half : 2 * half]))
    return total.add_(terms[-1]) if size % 2 else total


def _is_captured(tensor: Tensor) -> bool:
    """A CUDA graph is recorded, which cannot wait for the number of queries that are left."""
    return tensor.is_cuda and torch.cuda.is_current_stream_capturing()


def farthest_point_sample(xyz: Tensor, num_samples: int, **options: Any) -> Tensor:
    """See `reference.farthest_point_sample`; all steps share one memory for differences."""
    planes = xyz.to(reference.geometry_dtype(xyz)).permute(2, 0, 1).contiguous()  # [D, B, N]
    apart = torch.empty_like(planes)

    def distances(current: Tensor) -> Tensor:
        torch.sub(planes, planes.gather(2, current.expand(len(planes), -1, -1)), out=apart)
        return _sum_(apart.square_())

    return reference.farthest_point_sample(xyz, num_samples, **options, distances=distances)


def knn(
    queries: Tensor, points: Tensor, k: int, *, lengths: Tensor | None = None, spare: int = 8
) -> tuple[Tensor, Tensor]:
    """See `reference.knn`; with `spare` candidates beyond k at first."""
    dtype, some = reference.geometry_dtype(queries), k + spare
    queries, points = queries.to(dtype), points.to(dtype).contiguous()
    dist = queries.new_empty(*queries.shape[:2], k)
    idx = torch.empty_like(dist, dtype=torch.int64)
    done = torch.ones_like(dist[..., 0], dtype=torch.bool)
    few = some >= points.shape[1] or _is_captured(queries)
    bounds = None if few else _Bounds(queries, points, lengths)
    for block in _blocks(queries, points.shape[1], some):
        own, cloud = queries[block], points[block[0]]
        length = None if lengths is None else lengths[block[0]]
        if bounds is None:
            dist[block], idx[block] = reference.knn(own, cloud, k, lengths=length)
            continue
        bound, near = _smallest(bounds.of(block).to(dtype), some)
        near = near.sort().values  # [b, m, some]
        d2 = _squares(own, cloud, near)
        if length is not None:
            behind = near >= length[:, None, None]
            d2.masked_fill_(behind, _INF)
        order = nearest_first(d2.nan_to_num(_INF, _INF), k)
        dist[block] = d2.gather(2, order)
        done[block] = bound.amax(2) > dist[block][..., -1]
        if length is not None:
            done[block] |= (~behind).sum(2) >= length[:, None]  # there are no others
            near.masked_fill_(behind, -1)
        idx[block] = near.gather(2, order)
    if bounds is None:
        return dist, idx
    for b in (~done).any(1).nonzero()[:, 0].tolist():
        left, length = ~done[b], None if lengths is None else lengths[b : b + 1]
        found = knn(queries[b : b + 1, left], points[b : b + 1], k, lengths=length, spare=16 * spare)
        dist[b, left], idx[b, left] = found[0][0], found[1][0]
    return dist, idx


def nearest_neighbor(
    src: Tensor, dst: Tensor, *, src_lengths: Tensor | None = None, dst_lengths: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """See `reference.nearest_neighbor`."""
    dist, idx = knn(reference.zero_padding(src, src_lengths), dst, 1, lengths=dst_lengths)
    dist, idx = dist[..., 0], idx[..., 0]
    if src_lengths is not None:
        behind = ~valid_rows(src_lengths, src.shape[1])
        dist, idx = dist.masked_fill(behind, _INF), idx.masked_fill(behind, -1)
    return dist, idx


def mutual_nearest(
    src: Tensor, dst: Tensor, *, src_lengths: Tensor | None = None, dst_lengths: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See `reference.mutual_nearest`."""
    forth = nearest_neighbor(src, dst, src_lengths=src_lengths, dst_lengths=dst_lengths)
    return *forth, *nearest_neighbor(dst, src, src_lengths=dst_lengths, dst_lengths=src_lengths)


def distance_backward(grad: Tensor, src: Tensor, dst: Tensor, idx: Tensor) -> tuple[Tensor, Tensor]:
    """See `reference.distance_backward`."""
    to_src = src.new_empty(src.shape)
    to_dst = dst.new_zeros(dst.shape, dtype=reference.geometry_dtype(src))
    for block in _blocks(src, 0, idx.shape[2]):
        of_dst = dst[block[0]].to(to_dst.dtype)
        to_src[block], flow = reference.distance_backward(grad[block], src[block], of_dst, idx[block])
        to_dst[block[0]] += flow
    return to_src, to_dst.to(dst.dtype)


def ball_query(
    queries: Tensor,
    points: Tensor,
    radius: float,
    k: int,
    *,
    lengths: Tensor | None = None,
    padding: str = "none",
) -> tuple[Tensor, Tensor]:
    """See `reference.ball_query`; pairs whose bound leaves it open are compared by differences."""
    if _is_captured(queries):
        return reference.ball_query(queries, points, radius, k, lengths=lengths, padding=padding)
    dtype = reference.geometry_dtype(queries)
    queries, points = queries.to(dtype), points.to(dtype).contiguous()
    bounds, limit = _Bounds(queries, points, lengths), squared_radius(radius, dtype)
    surely = limit - 4 * (bounds.direct * limit + bounds.product * bounds.largest + bounds.least)
    dist = queries.new_empty(*queries.shape[:2], k)
    idx = torch.empty_like(dist, dtype=torch.int64)
    for block in _blocks(queries, points.shape[1], k):
        bound, own, cloud = bounds.of(block), queries[block], points[block[0]]
        inside = ~(bound >= limit)  # [b, m, N]
        some_lengths = None if lengths is None else lengths[block[0]]
        if some_lengths is not None:
            inside &= valid_rows(some_lengths, points.shape[1])[:, None]
        unsure = inside & ~(bound.abs_() < surely[block])
        for b, i, j in zip(*(t.split(1 << 16) for t in unsure.nonzero(as_tuple=True)), strict=True):
            inside[b, i, j] = squared_norm(own[b, i] - cloud[b, j]) < limit
        near = reference.first_inside(inside, k, some_lengths, padding)
        idx[block] = near
        dist[block] = _squares(own, cloud, near.clamp_min(0)).masked_fill_(near < 0, _INF)
    return dist, idx
