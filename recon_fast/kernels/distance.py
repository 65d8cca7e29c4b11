"""The gradient kNN, nearest neighbour and Chamfer share: of squared distances between indexed points."""

import torch
from torch import Tensor

from recon_fast.kernels import backend, reference


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
    if src.dtype == torch.float64:
        return reference.distance_backward(grad, src, dst, idx)
    return _distance_backward(grad, src, dst, idx)
