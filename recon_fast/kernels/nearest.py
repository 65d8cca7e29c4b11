"""Nearest neighbours between two clouds, one way or both ways, and what all searches share: their gradients.

A search gives squared distances of its first argument to points of its second, and their indices: [B, N, K],
or without K for the one nearest point, or without B in a packed batch.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from recon_fast.kernels import backend, reference
from recon_fast.kernels._check import check_cloud, check_lengths, check_same_device, read_lengths, to_3d
from recon_fast.kernels.backend import in_transform


@torch.library.custom_op("recon_fast::distance_backward", mutates_args=())
def _distance_backward(grad: Tensor, src: Tensor, dst: Tensor, idx: Tensor) -> tuple[Tensor, Tensor]:
    return backend.implementation("nearest_neighbor", "distance_backward", src)(grad, src, dst, idx)


@_distance_backward.register_fake
def _(grad, src, dst, idx):
    return src.new_empty(src.shape), dst.new_empty(dst.shape)


def distance_backward(grad: Tensor, src: Tensor, dst: Tensor, idx: Tensor) -> tuple[Tensor, Tensor]:
    """See `reference.distance_backward`; float64 is differentiable again."""
    if src.dtype == torch.float64 or in_transform():
        return reference.distance_backward(grad, src, dst, idx)
    return _distance_backward(grad, src, dst, idx)


def empty_search(queries: Tensor, *shape: int) -> tuple[Tensor, Tensor]:
    """Distances and indices of this shape behind that of queries [..., D], for a fake kernel."""
    shape = (*queries.shape[:-1], *shape)
    dtype = reference.geometry_dtype(queries)
    return queries.new_empty(shape, dtype=dtype), queries.new_empty(shape, dtype=torch.int64)


def differentiable(search: Callable, queries: Tensor, points: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    """What the operator `search` gives, with distances that have all derivatives."""
    queries, points = to_3d(queries), to_3d(points)
    if not in_transform():
        return search(queries, points, *others)
    _, idx = search(queries.detach(), points.detach(), *others)
    if queries.ndim == 2:
        return reference.distances_to(queries[None], points[None], idx[None])[0], idx
    return reference.distances_to(queries, points, idx), idx


def _setup_search(ctx, inputs, output):
    ctx.save_for_backward(inputs[0], inputs[1], output[1])
    ctx.others = len(inputs) - 2
    ctx.set_materialize_grads(False)


def _search_backward(ctx, grad, _):
    if grad is None:
        return (None,) * (2 + ctx.others)
    src, dst, idx = ctx.saved_tensors
    if src.ndim == 2:
        to_src, to_dst = distance_backward(grad[None], src[None], dst[None], idx[None])
        to_src, to_dst = to_src[0], to_dst[0]
    elif idx.ndim == 2:
        to_src, to_dst = distance_backward(grad[..., None], src, dst, idx[..., None])
    else:
        to_src, to_dst = distance_backward(grad, src, dst, idx)
    return to_src, to_dst, *(None,) * ctx.others


def register_search(operator: Any) -> None:
    """Give a search, whose first arguments are the two clouds, its gradients in both."""
    operator.register_autograd(_search_backward, setup_context=_setup_search)


def read_both(
    src: Tensor, dst: Tensor, src_lengths: Tensor | None, dst_lengths: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    """The operators have callers with other names for their arguments."""
    src_lengths = read_lengths("lengths of the first clouds", src_lengths, src.shape[1])
    return src_lengths, read_lengths("lengths of the second clouds", dst_lengths, dst.shape[1])


@torch.library.custom_op("recon_fast::nearest_neighbor", mutates_args=())
def one_way(
    src: Tensor, dst: Tensor, src_lengths: Tensor | None, dst_lengths: Tensor | None
) -> tuple[Tensor, Tensor]:
    src_lengths, dst_lengths = read_both(src, dst, src_lengths, dst_lengths)
    run = backend.implementation("nearest_neighbor", "nearest_neighbor", src)
    return run(src, dst, src_lengths=src_lengths, dst_lengths=dst_lengths)


@one_way.register_fake
def _(src, dst, src_lengths, dst_lengths):
    return empty_search(src)


register_search(one_way)


@torch.library.custom_op("recon_fast::mutual_nearest", mutates_args=())
def _mutual_nearest(
    src: Tensor, dst: Tensor, src_lengths: Tensor | None, dst_lengths: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    src_lengths, dst_lengths = read_both(src, dst, src_lengths, dst_lengths)
    run = backend.implementation("nearest_neighbor", "mutual_nearest", src)
    return run(src, dst, src_lengths=src_lengths, dst_lengths=dst_lengths)


@_mutual_nearest.register_fake
def _(src, dst, src_lengths, dst_lengths):
    return *empty_search(src), *empty_search(dst)


def _setup_mutual(ctx, inputs, output):
    ctx.save_for_backward(inputs[0], inputs[1], output[1], output[3])


def _mutual_backward(ctx, grad_forth, _forth, grad_back, _back):
    src, dst, forth, back = ctx.saved_tensors
    to_src, to_dst = distance_backward(grad_forth[..., None], src, dst, forth[..., None])
    from_dst, from_src = distance_backward(grad_back[..., None], dst, src, back[..., None])
    return to_src + from_src, to_dst + from_dst, None, None


_mutual_nearest.register_autograd(_mutual_backward, setup_context=_setup_mutual)


def search_both_ways(
    src: Tensor, dst: Tensor, src_lengths: Tensor | None, dst_lengths: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`mutual_nearest` of arguments that are checked."""
    dtype = torch.promote_types(src.dtype, dst.dtype)
    src, dst = to_3d(src.to(dtype)), to_3d(dst.to(dtype))
    if not in_transform():
        return _mutual_nearest(src, dst, src_lengths, dst_lengths)
    _, forth, _, back = _mutual_nearest(src.detach(), dst.detach(), src_lengths, dst_lengths)
    return reference.distances_to(src, dst, forth), forth, reference.distances_to(dst, src, back), back


def nearest_neighbor(src: Tensor, dst: Tensor, *, dst_lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The nearest point of `dst` for each point of `src`.

    Args:
        src: [B, N, D], any D from 1 and any floating point dtype; distances are computed in float32 (float64
            for float64).
        dst: [B, M, D].
        dst_lengths: valid points of each cloud of `dst` [B], int32 or int64, 0 to M; None means all M.

    Returns:
        squared_distance [B, N], differentiable in both inputs, and idx [B, N], int64; ties go to the smallest
        index. A NaN coordinate gives a valid index and a NaN distance. In an empty cloud nothing is found:
        index -1 and distance inf.

    Raises:
        TypeError: an argument that is not a tensor.
        ValueError: wrong shape, dtype or device; lengths, on a CPU, out of range.
    """
    check_pair(src, dst, None, dst_lengths, "src", "dst", width=None)
    return differentiable(one_way, src, dst, None, dst_lengths)


def mutual_nearest(
    src: Tensor, dst: Tensor, *, src_lengths: Tensor | None = None, dst_lengths: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`nearest_neighbor` both ways at once.

    Args:
        src: [B, N, D], any D from 1 and any floating point dtype.
        dst: [B, M, D].
        src_lengths: valid points of each cloud of `src` [B], int32 or int64, 0 to N; None means all N.
        dst_lengths: the same for `dst`.

    Returns:
        squared_distance [B, N] and idx [B, N] of `src` in `dst`, then those of `dst` in `src` [B, M];
        distances are differentiable in both. Points behind the lengths, and all points of a cloud whose
        partner is empty, have index -1 and distance inf.

    Raises:
        TypeError: an argument that is not a tensor.
        ValueError: wrong shape, dtype or device; lengths, on a CPU, out of range.
    """
    check_pair(src, dst, src_lengths, dst_lengths, "src", "dst", width=None)
    return search_both_ways(src, dst, src_lengths, dst_lengths)


def check_pair(
    a: Tensor,
    b: Tensor,
    a_lengths: Tensor | None,
    b_lengths: Tensor | None,
    a_name: str = "pred",
    b_name: str = "target",
    width: int | None = 3,
) -> None:
    """Raise unless these are two batches of clouds and their lengths."""
    check_cloud(a_name, a, width=width)
    check_cloud(b_name, b, a_name, a)
    check_lengths(f"{a_name}_lengths", a_lengths, a.shape[0])
    check_lengths(f"{b_name}_lengths", b_lengths, b.shape[0])
    given = {a_name: a, b_name: b, f"{a_name}_lengths": a_lengths, f"{b_name}_lengths": b_lengths}
    check_same_device(**given)
