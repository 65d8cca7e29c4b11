"""K nearest neighbours, and farthest-point sampling with grouping built on them (PointNet++, section 3.2)."""

from typing import NamedTuple

import torch
from torch import Tensor

from recon_fast.kernels import backend, reference
from recon_fast.kernels._check import check_cloud, check_count, check_lengths, check_same_device, read_lengths
from recon_fast.kernels.backend import in_transform
from recon_fast.kernels.fps import farthest_point_sample
from recon_fast.kernels.nearest import differentiable, empty_search, register_search


class PointGroups(NamedTuple):
    """Local neighbourhoods of a cloud, relative to their centers."""

    centers: Tensor  # [B, G, 3]
    neighborhoods: Tensor  # [B, G, K, 3], relative to the center
    center_idx: Tensor  # [B, G] int64
    neighbor_idx: Tensor  # [B, G, K] int64, nearest first


@torch.library.custom_op("recon_fast::knn", mutates_args=())
def _knn(queries: Tensor, points: Tensor, k: int, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
    lengths = read_lengths("lengths", lengths, points.shape[1])
    return backend.implementation("knn", "knn", queries)(queries, points, k, lengths=lengths)


@_knn.register_fake
def _(queries, points, k, lengths):
    return empty_search(queries, k)


register_search(_knn)


@torch.library.custom_op("recon_fast::group", mutates_args=())
def _group(xyz: Tensor, center_idx: Tensor, k: int, lengths: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Centers, neighbourhoods and neighbours of the points `center_idx`."""
    lengths = read_lengths("lengths", lengths, xyz.shape[1])
    run = backend.kernel("sample_and_group", "group", xyz)
    if run is not None:
        return run(xyz, center_idx, k, lengths)
    return reference.group_around(xyz, center_idx, k, lengths, backend.implementation("knn", "knn", xyz))


@_group.register_fake
def _(xyz, center_idx, k, lengths):
    dtype = reference.geometry_dtype(xyz)
    shape = (*center_idx.shape, k)
    centers = xyz.new_empty((*center_idx.shape, 3), dtype=dtype)
    return centers, xyz.new_empty((*shape, 3), dtype=dtype), center_idx.new_empty(shape)


@torch.library.custom_op("recon_fast::group_backward", mutates_args=())
def _group_backward(
    grad_centers: Tensor | None,
    grad_neighborhoods: Tensor | None,
    center_idx: Tensor,
    neighbor_idx: Tensor,
    num_points: int,
) -> Tensor:
    like = grad_centers if grad_neighborhoods is None else grad_neighborhoods
    assert like is not None
    run = backend.implementation("sample_and_group", "group_backward", like)
    return run(grad_centers, grad_neighborhoods, center_idx, neighbor_idx, num_points)


@_group_backward.register_fake
def _(grad_centers, grad_neighborhoods, center_idx, neighbor_idx, num_points):
    like = grad_centers if grad_neighborhoods is None else grad_neighborhoods
    return like.new_empty(center_idx.shape[0], num_points, 3)


def _setup_group(ctx, inputs, output):
    ctx.num_points, ctx.dtype = inputs[0].shape[1], inputs[0].dtype
    ctx.save_for_backward(inputs[1], output[2])
    ctx.set_materialize_grads(False)


def _backward_of_group(ctx, grad_centers, grad_neighborhoods, _):
    if grad_centers is None and grad_neighborhoods is None:
        return None, None, None, None
    backward = reference.group_backward if in_transform() else _group_backward
    center_idx, neighbor_idx = ctx.saved_tensors
    grad = backward(grad_centers, grad_neighborhoods, center_idx, neighbor_idx, ctx.num_points)
    return grad.to(ctx.dtype), None, None, None


def _setup_group_backward(ctx, inputs, output):
    ctx.save_for_backward(inputs[2], inputs[3])


def _backward_of_group_backward(ctx, grad):
    """Grouping is linear in the points: so are its gradients, and this is grouping again."""
    center_idx, neighbor_idx = ctx.saved_tensors
    centers = reference.gather_points(grad, center_idx)
    centers, neighborhoods, _, _ = reference.group(grad, centers, center_idx, neighbor_idx, padded=True)
    needed = ctx.needs_input_grad
    return centers if needed[0] else None, neighborhoods if needed[1] else None, None, None, None


_group.register_autograd(_backward_of_group, setup_context=_setup_group)
_group_backward.register_autograd(_backward_of_group_backward, setup_context=_setup_group_backward)


def knn(queries: Tensor, points: Tensor, k: int, *, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The `k` nearest points of each query, sorted by (squared distance, index).

    Args:
        queries: [B, M, D], any D from 1 and any floating point dtype; distances are computed from differences
            in float32 (float64 for float64 queries), so they hold far from the origin too.
        points: [B, N, D].
        k: number of neighbours, 1 <= k <= N.
        lengths: valid points of each cloud of `points` [B], int32 or int64, 0 to N; None means all N. Where
            fewer than k are valid the rest has index -1 and distance inf.

    Returns:
        squared_distances [B, M, k], float32 or float64, differentiable in both inputs, and idx [B, M, k],
        int64. Points at a NaN or infinite distance come last.

    Raises:
        TypeError: an argument that is not a tensor.
        ValueError: wrong shape, dtype or device; k or, on a CPU, lengths out of range.
    """
    check_cloud("queries", queries, width=None)
    check_cloud("points", points, "queries", queries)
    check_count("k", k, points, "points")
    check_lengths("lengths", lengths, points.shape[0])
    check_same_device(queries=queries, points=points, lengths=lengths)
    return differentiable(_knn, queries, points, k, lengths)


def sample_and_group(
    xyz: Tensor,
    num_groups: int,
    group_size: int,
    *,
    lengths: Tensor | None = None,
    skip_near_origin: bool = False,
) -> PointGroups:
    """Farthest-point centers and the nearest points of each, relative to the center.

    Args:
        xyz: points [B, N, 3], any floating point dtype.
        num_groups: G, 1 <= G <= N.
        group_size: K, 1 <= K <= N.
        lengths: valid points of each cloud [B], int32 or int64, 0 to N; None means all N. Groups and
            neighbours that a short cloud cannot fill have index -1 and coordinates 0.
        skip_near_origin: see `farthest_point_sample`.

    Returns:
        PointGroups; coordinates are float32 (float64 for float64 input) and differentiable in `xyz`.

    Raises:
        TypeError: an argument that is not a tensor.
        ValueError: wrong shape, dtype or device; num_groups, group_size or, on a CPU, lengths out of range.
    """
    check_cloud("xyz", xyz)
    check_count("num_groups", num_groups, xyz, "points of xyz")
    check_count("group_size", group_size, xyz, "points of xyz")
    center_idx = farthest_point_sample(xyz, num_groups, lengths=lengths, skip_near_origin=skip_near_origin)
    if in_transform():
        _, _, neighbor_idx = _group(xyz.detach(), center_idx, group_size, lengths)
        points = xyz.to(reference.geometry_dtype(xyz))
        centers = reference.gather_points(points, center_idx)
        padded = lengths is not None
        return PointGroups(*reference.group(points, centers, center_idx, neighbor_idx, padded=padded))
    centers, neighborhoods, neighbor_idx = _group(xyz, center_idx, group_size, lengths)
    return PointGroups(centers, neighborhoods, center_idx, neighbor_idx)
