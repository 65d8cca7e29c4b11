"""The compiled module `chamfer` of GRNet and PoinTr, as their `extensions/chamfer_dist` calls it."""

import torch
from torch import Tensor

from recon_fast import kernels
from recon_fast.kernels.distance import distance_backward

__all__ = ["backward", "forward"]


@torch.no_grad()
def forward(xyz1: Tensor, xyz2: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Squared distances [B, N] and [B, M] and their int32 indices, of xyz1 [B, N, 3] and xyz2 [B, M, 3]."""
    dist1, idx1, dist2, idx2 = kernels.mutual_nearest(xyz1, xyz2)
    return dist1, dist2, idx1.int(), idx2.int()


@torch.no_grad()
def backward(
    xyz1: Tensor, xyz2: Tensor, idx1: Tensor, idx2: Tensor, grad_dist1: Tensor, grad_dist2: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of both clouds from those of the distances."""
    to_1, to_2 = distance_backward(grad_dist1[..., None], xyz1, xyz2, idx1.long()[..., None])
    from_2, from_1 = distance_backward(grad_dist2[..., None], xyz2, xyz1, idx2.long()[..., None])
    return to_1 + from_1, to_2 + from_2
