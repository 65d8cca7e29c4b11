"""Search and sampling in packed batches: clouds of different sizes, one behind the other in one [N, D].

The CPU's searches read clouds where they lie, unless these are large. All else goes to the dense operators:
together, padded to the longest one and masked by their lengths, or on a CPU one after the other where padding
would take longer.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import accumulate

import torch
from torch import Tensor

from recon_fast.kernels import backend, reference
from recon_fast.kernels._check import check_points, check_same_device, check_tensor, to_3d
from recon_fast.kernels.nearest import differentiable, empty_search, register_search

_SPARE = 128  # points a cloud that padding may add on a CPU: they take as long as a call


class _Clouds:
    """Packed points with the sizes of their clouds."""

    def __init__(self, points: Tensor, lengths: Tensor, name: str, rows: str = "points"):
        self.points, self.sizes = points, lengths.tolist()
        if sum(self.sizes) != points.shape[0] or min(self.sizes, default=0) < 0:
            want = f"{name} must be 0 or more and add up to the {points.shape[0]} {rows}"
            least = min(self.sizes, default=0)
            raise ValueError(f"{want}, got a sum of {sum(self.sizes)} and a smallest of {least}")
        self.starts = [0, *accumulate(self.sizes)]

    def wasteful(self) -> bool:
        return (max(self.sizes) - _SPARE) * len(self.sizes) > sum(self.sizes)

    def dense(self, first: int, last: int) -> tuple[Tensor, Tensor | None, Tensor]:
        """Clouds first:last as [B, N, D], their lengths unless they are equal, and where they start [B]."""
        sizes, device = self.sizes[first:last], self.points.device
        size = max(sizes)
        start = torch.tensor(self.starts[first:last], device=device)
        if min(sizes) == size:
            block = self.points[self.starts[first] : self.starts[last]]
            return block.view(len(sizes), size, 3), None, start
        place = start[:, None] + torch.arange(size, device=device)
        return self.points[place.clamp_max(len(self.points) - 1)], torch.tensor(sizes, device=device), start


def _portions(*clouds: _Clouds) -> Iterator[tuple[int, int]]:
    """Runs first:last of clouds that go through together; those that are empty on one side are left out."""
    count = len(clouds[0].sizes)
    if clouds[0].points.device.type != "cpu" or not any(c.wasteful() for c in clouds):
        if all(max(c.sizes, default=0) > 0 for c in clouds):
            yield 0, count
        return
    for b in range(count):
        if all(c.sizes[b] > 0 for c in clouds):
            yield b, b + 1


def _search(
    queries: Tensor,
    points: Tensor,
    k: int,
    query_lengths: Tensor,
    point_lengths: Tensor,
    find: Callable,
    packed: Callable | None,
) -> tuple[Tensor, Tensor]:
    """Neighbours [M, k], padded with -1.

    By `packed(query_sizes, point_sizes)` if it takes the clouds, else of some at a time by
    `find(queries, points, at most k, lengths)`.
    """
    q = _Clouds(queries, query_lengths, "query_lengths", "queries")
    p = _Clouds(points, point_lengths, "point_lengths")
    if len(q.sizes) != len(p.sizes):
        counts = f"{len(q.sizes)} and {len(p.sizes)}"
        raise ValueError(f"query_lengths and point_lengths must be of as many clouds, got {counts}")
    if packed is not None and (both := packed(q.sizes, p.sizes)) is not None:
        return both
    found = []
    for first, last in _portions(q, p):
        some_queries, query_sizes, _ = q.dense(first, last)
        some_points, point_sizes, starts = p.dense(first, last)
        d, i = find(some_queries, some_points, min(k, some_points.shape[1]), point_sizes)
        if first > 0 or last > 1:  # in place: a temporary of this size costs more than the sum
            nothing = i < 0
            i.add_(starts[:, None, None]).masked_fill_(nothing, -1)
        if query_sizes is None and d.shape[:2].numel() == len(queries) and d.shape[2] == k:
            return d.flatten(0, 1), i.flatten(0, 1)
        if query_sizes is not None:
            there = torch.arange(i.shape[1], device=i.device) < query_sizes[:, None]
            d, i = d[there], i[there]
        found.append((slice(q.starts[first], q.starts[last]), d.flatten(0, -2), i.flatten(0, -2)))
    dist = queries.new_full((len(queries), k), float("inf"), dtype=reference.geometry_dtype(queries))
    idx = torch.full((len(queries), k), -1, dtype=torch.int64, device=queries.device)
    for rows, d, i in found:
        dist[rows, : d.shape[1]], idx[rows, : i.shape[1]] = d, i
    return dist, idx


def _nearest_of(queries: Tensor, points: Tensor, k: int, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
    if k == 1:
        find = backend.implementation("nearest_neighbor", "nearest_neighbor", queries)
        dist, idx = find(queries, points, dst_lengths=lengths)
        return dist[..., None], idx[..., None]
    return backend.implementation("knn", "knn", queries)(queries, points, k, lengths=lengths)


@torch.library.custom_op("recon_fast::packed_knn", mutates_args=())
def _packed_knn(
    queries: Tensor, points: Tensor, k: int, query_lengths: Tensor, point_lengths: Tensor
) -> tuple[Tensor, Tensor]:
    run = backend.kernel("knn", "packed_knn", queries)
    packed = None if run is None else partial(run, queries, points, k)
    return _search(queries, points, k, query_lengths, point_lengths, _nearest_of, packed)


@torch.library.custom_op("recon_fast::packed_ball_query", mutates_args=())
def _packed_ball_query(
    queries: Tensor, points: Tensor, radius: float, k: int, query_lengths: Tensor, point_lengths: Tensor
) -> tuple[Tensor, Tensor]:
    def find(queries, points, some, lengths):
        run = backend.implementation("ball_query", "ball_query", queries)
        return run(queries, points, radius, some, lengths=lengths, padding="none")

    run = backend.kernel("ball_query", "packed_ball_query", queries)
    packed = None if run is None else partial(run, queries, points, radius, k)
    return _search(queries, points, k, query_lengths, point_lengths, find, packed)


@_packed_knn.register_fake
def _(queries, points, k, query_lengths, point_lengths):
    return empty_search(queries, k)


@_packed_ball_query.register_fake
def _(queries, points, radius, k, query_lengths, point_lengths):
    return empty_search(queries, k)


register_search(_packed_knn)
register_search(_packed_ball_query)


@torch.library.custom_op("recon_fast::packed_farthest_point_sample", mutates_args=())
def _packed_fps(points: Tensor, lengths: Tensor, counts: Tensor, starts: Tensor) -> Tensor:
    clouds, wanted = _Clouds(points, lengths, "lengths"), counts.tolist()
    for name, values, spare in (("num_samples", wanted, 0), ("starts", starts.tolist(), 1)):
        if len(values) != len(clouds.sizes):
            raise ValueError(f"{name} must be one for each of {len(clouds.sizes)} lengths, got {len(values)}")
        for cloud, (value, size) in enumerate(zip(values, clouds.sizes, strict=True)):
            if not 0 <= value <= max(size - spare, 0):
                want = f"{name} must be between 0 and {max(size - spare, 0)}"
                raise ValueError(f"{want} for the {size} points of cloud {cloud}, got {value}")
    run = backend.implementation("farthest_point_sample", "farthest_point_sample", points)
    pieces = []
    for first, last in _portions(clouds):
        xyz, lengths_, origin = clouds.dense(first, last)
        size = torch.tensor(clouds.sizes[first:last], device=points.device).clamp_min(1)
        begin = starts[first:last].to(points.device)
        if begin.any():  # the clouds turned, so that each begins with its own start
            turned = (torch.arange(xyz.shape[1], device=points.device) + begin[:, None]) % size[:, None]
            xyz = reference.gather_points(xyz, turned)
        most = max(wanted[first:last])
        if most == 0:
            continue
        idx = run(xyz, most, lengths=lengths_, start_index=0, skip_near_origin=False)
        idx = (idx + begin[:, None]) % size[:, None] + origin[:, None]
        taken = counts[first:last].to(points.device)[:, None]
        pieces.append(idx[torch.arange(most, device=points.device) < taken])
    return torch.cat(pieces) if pieces else torch.empty(0, dtype=torch.int64, device=points.device)


@_packed_fps.register_fake
def _(points, lengths, counts, starts):
    return points.new_empty(torch.library.get_ctx().new_dynamic_size(), dtype=torch.int64)


@torch.library.custom_op("recon_fast::neighbor_edges", mutates_args=())
def _edges(idx: Tensor) -> Tensor:
    return backend.implementation("neighbor_edges", "neighbor_edges", idx)(idx)


@_edges.register_fake
def _(idx):
    return idx.new_empty(2, torch.library.get_ctx().new_dynamic_size())


def _check_lengths(**lengths: Tensor) -> None:
    for name, value in lengths.items():
        check_tensor(name, value)
        if value.ndim != 1 or value.dtype not in (torch.int32, torch.int64):
            got = f"{value.dtype} {tuple(value.shape)}"
            raise ValueError(f"{name} must be an int32 or int64 [B], got {got}")


def _check_search(
    queries: Tensor, points: Tensor, k: int, query_lengths: Tensor, point_lengths: Tensor
) -> None:
    check_points("queries", queries, width=None)
    check_points("points", points, "queries", queries)
    _check_lengths(query_lengths=query_lengths, point_lengths=point_lengths)
    check_same_device(
        queries=queries, points=points, query_lengths=query_lengths, point_lengths=point_lengths
    )
    if k < 1:
        raise ValueError(f"k must be 1 or more, got {k}")


def packed_knn(
    queries: Tensor, points: Tensor, k: int, query_lengths: Tensor, point_lengths: Tensor
) -> tuple[Tensor, Tensor]:
    """`knn` in a packed batch: the nearest points of each query among those of its own cloud.

    Args:
        queries: [M, D], the queries of cloud 0, then those of cloud 1, ...; any floating point dtype.
        points: [N, D], in the same order.
        k: number of neighbours, 1 and more; may exceed the points of a cloud.
        query_lengths: queries of each cloud [B], int32 or int64, 0 and more; they add up to M.
        point_lengths: points of each cloud [B]; they add up to N.

    Returns:
        squared_distances [M, k], differentiable in queries and points, and idx [M, k], int64, into `points`.
        Where a cloud has fewer than k points the rest has index -1 and distance inf.

    Raises:
        TypeError: an argument that is not a tensor.
        ValueError: wrong shape, dtype or device; lengths that do not add up; k out of range.
    """
    _check_search(queries, points, k, query_lengths, point_lengths)
    return differentiable(_packed_knn, queries, points, k, query_lengths, point_lengths)


def packed_ball_query(
    queries: Tensor, points: Tensor, radius: float, k: int, query_lengths: Tensor, point_lengths: Tensor
) -> tuple[Tensor, Tensor]:
    """`ball_query` in a packed batch, padded with index -1 and distance inf; arguments as of `packed_knn`.

    Raises:
        TypeError: an argument that is not a tensor.
        ValueError: as `packed_knn`; a radius that is negative or NaN.
    """
    _check_search(queries, points, k, query_lengths, point_lengths)
    if not radius >= 0:
        raise ValueError(f"radius must be 0 or more, got {radius}")
    lengths = query_lengths, point_lengths
    return differentiable(_packed_ball_query, queries, points, float(radius), k, *lengths)


def packed_farthest_point_sample(
    points: Tensor, lengths: Tensor, num_samples: Tensor, *, starts: Tensor | None = None
) -> Tensor:
    """`farthest_point_sample` in a packed batch, with a number of samples for each cloud.

    Args:
        points: [N, D], cloud after cloud; any floating point dtype.
        lengths: points of each cloud [B], int32 or int64, 0 and more; they add up to N.
        num_samples: [B], int32 or int64, between 0 and the length of the cloud.
        starts: the first sample within each cloud [B], int32 or int64, below its length (of an empty cloud
            0); None means 0. Ties go to the first point from there on.

    Returns:
        idx [sum of num_samples], int64, into `points`, cloud after cloud; not differentiable.

    Raises:
        TypeError: an argument that is not a tensor.
        ValueError: wrong shape, dtype or device; lengths that do not add up; num_samples or starts out of
            range.
    """
    check_points("points", points, width=None)
    _check_lengths(lengths=lengths, num_samples=num_samples)
    starts = torch.zeros_like(lengths) if starts is None else starts
    _check_lengths(starts=starts)
    check_same_device(points=points, lengths=lengths, num_samples=num_samples, starts=starts)
    return _packed_fps(to_3d(points.detach()), lengths, num_samples, starts)


def neighbor_edges(idx: Tensor) -> Tensor:
    """Lists of neighbours as the edges of a graph.

    Args:
        idx: [M, k], int64, negative where there is no neighbour; as `packed_knn` gives them.

    Returns:
        [2, E], int64: the row of each index that is not negative, and the index, row after row.

    Raises:
        TypeError: an argument that is not a tensor.
        ValueError: wrong shape or dtype.
    """
    check_tensor("idx", idx)
    if idx.ndim != 2 or idx.dtype != torch.int64:
        raise ValueError(f"idx must be an int64 [M, k], got {idx.dtype} {tuple(idx.shape)}")
    return _edges(idx)
