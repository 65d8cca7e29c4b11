"""What kNN, ball query, nearest neighbour and Chamfer share: results and gradients of a search.

A search gives squared distances of its first argument to points of its second, and their indices.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from recon_fast.kernels import backend, reference
from recon_fast.kernels.transforms import in_transform


@torch.library.custom_op("recon_fast::distance_backward", mutates_args=())
def _distance_backward(grad: Tensor, src: Tensor, dst: Tensor, idx: Tensor) -> tuple[Tensor, Tensor]:
    return reference.distance_backward(grad, src, dst, idx)


@_distance_backward.register_kernel(("cpu", "cuda"))
def run_distance_backward(grad: Tensor, src: Tensor, dst: Tensor, idx: Tensor) -> tuple[Tensor, Tensor]:
    """The backend's kernel, without autograd."""
    run = backend.kernel("nearest_neighbor", "distance_backward", src) or reference.distance_backward
    return run(grad, src, dst, idx)


@_distance_backward.register_fake
def _(grad, src, dst, idx):
    return src.new_empty(src.shape), dst.new_empty(dst.shape)


def distance_backward(grad: Tensor, src: Tensor, dst: Tensor, idx: Tensor) -> tuple[Tensor, Tensor]:
    """See `reference.distance_backward`; float64 is differentiable again."""
    if src.dtype == torch.float64 or in_transform():
        return reference.distance_backward(grad, src, dst, idx)
    return _distance_backward(grad, src, dst, idx)


def empty_search(queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Distances and indices of k neighbours of queries [..., 3], for a fake kernel."""
    shape = (*queries.shape[:-1], k)
    dtype = reference.geometry_dtype(queries)
    return queries.new_empty(shape, dtype=dtype), queries.new_empty(shape, dtype=torch.int64)


def differentiable(search: Callable, queries: Tensor, points: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    """What the operator `search` gives for clouds [B, N, 3], with distances that have all derivatives."""
    if not in_transform():
        return search(queries, points, *others)
    _, idx = search(queries.detach(), points.detach(), *others)
    return reference.distances_to(queries, points, idx), idx


def setup_search(ctx, inputs, output):
    ctx.save_for_backward(inputs[0], inputs[1], output[1])
    ctx.others = len(inputs) - 2
    ctx.set_materialize_grads(False)


def search_backward(ctx, grad, _):
    """Gradients of a search in clouds [B, N, 3] with distances [B, M, k]."""
    if grad is None:
        return (None,) * (2 + ctx.others)
    return *distance_backward(grad, *ctx.saved_tensors), *(None,) * ctx.others
