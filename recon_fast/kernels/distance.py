"""What kNN, ball query, nearest neighbour and Chamfer share: results and gradients of a search.

A search gives squared distances of its first argument to points of its second, and their indices: [B, N, K],
or without K for the one nearest point, or without B in a packed batch.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from recon_fast.kernels import backend, reference
from recon_fast.kernels.transforms import in_transform


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
    """Distances and indices of this shape behind that of queries [..., 3], for a fake kernel."""
    shape = (*queries.shape[:-1], *shape)
    dtype = reference.geometry_dtype(queries)
    return queries.new_empty(shape, dtype=dtype), queries.new_empty(shape, dtype=torch.int64)


def differentiable(search: Callable, queries: Tensor, points: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    """What the operator `search` gives, with distances that have all derivatives."""
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
