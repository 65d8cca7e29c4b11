"""The Chamfer distances of other packages, on `recon_fast.kernels.mutual_nearest`.

chamfer                      the compiled module that `extensions/chamfer_dist` of GRNet and PoinTr calls
extensions.chamfer_dist      what GRNet, PoinTr and Point-BERT put around it
chamfer3D.dist_chamfer_3D    ThibaultGROUEIX, ChamferDistancePytorch
chamfer_distance             chrdiller, pyTorchChamferDistance
chamferdist                  krrish94, chamferdist

Clouds are [B, N, 3] and [B, M, 3], floating point; distances are squared unless a name says L1.
"""

import warnings

import torch
from torch import Tensor, nn

from recon_fast import kernels
from recon_fast.compat.common import function_class
from recon_fast.kernels.nearest import distance_backward

_REDUCTIONS = ("sum", "mean", None)


def _both_ways(xyz1: Tensor, xyz2: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Squared distances [B, N] and [B, M] to the nearest points of the other cloud, their int32 indices."""
    dist1, idx1, dist2, idx2 = kernels.mutual_nearest(xyz1, xyz2)
    return dist1, dist2, idx1.int(), idx2.int()


def _distances(xyz1: Tensor, xyz2: Tensor) -> tuple[Tensor, Tensor]:
    """Squared distances [B, N] and [B, M] to the nearest points of the other cloud."""
    dist1, _, dist2, _ = kernels.mutual_nearest(xyz1, xyz2)
    return dist1, dist2


@torch.no_grad()
def forward(xyz1: Tensor, xyz2: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Squared distances [B, N] and [B, M] and their int32 indices, of xyz1 [B, N, 3] and xyz2 [B, M, 3]."""
    return _both_ways(xyz1, xyz2)


@torch.no_grad()
def backward(
    xyz1: Tensor, xyz2: Tensor, idx1: Tensor, idx2: Tensor, grad_dist1: Tensor, grad_dist2: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients [B, N, 3] and [B, M, 3] of both clouds from those of the distances [B, N] and [B, M]."""
    to_1, to_2 = distance_backward(grad_dist1[..., None], xyz1, xyz2, idx1.long()[..., None])
    from_2, from_1 = distance_backward(grad_dist2[..., None], xyz2, xyz1, idx2.long()[..., None])
    return to_1 + from_1, to_2 + from_2


chamfer_3DFunction, ChamferFunction = function_class(_both_ways), function_class(_distances)


class chamfer_3DDist(nn.Module):
    """dist1, dist2, idx1, idx2 of two clouds [B, N, 3] and [B, M, 3]; distances are differentiable."""

    def forward(self, input1: Tensor, input2: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return _both_ways(input1, input2)


class _ChamferDistance(nn.Module):
    def __init__(self, ignore_zeros: bool = False):
        super().__init__()
        self.ignore_zeros = ignore_zeros

    def _clouds(self, xyz1: Tensor, xyz2: Tensor) -> tuple[Tensor, Tensor]:
        """Without points whose coordinates sum to 0, for a batch of one and with ignore_zeros."""
        if not self.ignore_zeros or xyz1.shape[0] != 1:
            return xyz1, xyz2
        return xyz1[:, xyz1[0].sum(1) != 0], xyz2[:, xyz2[0].sum(1) != 0]


class ChamferDistanceL2(_ChamferDistance):
    """Mean squared distances both ways, added."""

    def forward(self, xyz1: Tensor, xyz2: Tensor) -> Tensor:
        return kernels.chamfer_distance(*self._clouds(xyz1, xyz2))


class ChamferDistanceL2_split(_ChamferDistance):
    """Mean squared distances, one for each way."""

    def forward(self, xyz1: Tensor, xyz2: Tensor) -> tuple[Tensor, Tensor]:
        dist1, dist2 = _distances(*self._clouds(xyz1, xyz2))
        return dist1.mean(), dist2.mean()


class ChamferDistanceL1(_ChamferDistance):
    """Mean distances both ways, halved; the gradient at distance 0 is 0, the original's NaN."""

    def forward(self, xyz1: Tensor, xyz2: Tensor) -> Tensor:
        return kernels.chamfer_distance(*self._clouds(xyz1, xyz2), norm="l1")


class ChamferDistancePair(nn.Module):
    """`chamfer_distance.ChamferDistance`: squared distances [B, N] and [B, M] to the other cloud's nearest.

    Later packages of this name return the int64 indices as well: `return_indices=True`.
    """

    def __init__(self, return_indices: bool = False):
        super().__init__()
        self.return_indices = return_indices

    def forward(self, xyz1: Tensor, xyz2: Tensor) -> tuple[Tensor, ...]:
        dist1, idx1, dist2, idx2 = kernels.mutual_nearest(xyz1, xyz2)
        return (dist1, dist2, idx1, idx2) if self.return_indices else (dist1, dist2)


def _reduced(values: Tensor, reduction: str | None, dim: int) -> Tensor:
    if reduction is None:
        return values
    return values.mean(dim) if reduction == "mean" else values.sum(dim)


class ChamferDistanceReduced(nn.Module):
    """`chamferdist.ChamferDistance`: squared distances to the other cloud, reduced over points and batch."""

    def forward(
        self, source_cloud: Tensor, target_cloud: Tensor, bidirectional: bool = False, reverse: bool = False,
        batch_reduction: str | None = "mean", point_reduction: str | None = "sum",
        reduction: str | None = None,
    ) -> Tensor:  # fmt: skip
        """From source [B, N, 3] to target [B, M, 3]; `reverse` the other way, `bidirectional` both, added.

        `reduction` is what versions before 1.0 call `batch_reduction`.

        Raises:
            TypeError: a cloud that is not a tensor.
            ValueError: clouds of different devices or shapes, unknown reductions.
        """
        for cloud in (source_cloud, target_cloud):
            if not isinstance(cloud, torch.Tensor):
                raise TypeError(f"Expected input type torch.Tensor. Got {type(cloud)} instead")
        if source_cloud.device != target_cloud.device:
            devices = f"Got {source_cloud.device} and {target_cloud.device}."
            raise ValueError(f"Source and target clouds must be on the same device. {devices}")
        if source_cloud.shape[0] != target_cloud.shape[0]:
            raise ValueError("Source and target pointclouds must have the same batchsize.")
        if source_cloud.shape[2] != target_cloud.shape[2]:
            raise ValueError("Source and target pointclouds must have the same dimensionality.")
        if bidirectional and reverse:
            warnings.warn(
                "Both bidirectional and reverse set to True. bidirectional behavior takes precedence.",
                stacklevel=2,
            )
        batch_reduction = reduction or batch_reduction
        for kind, name in (("Batch", batch_reduction), ("Point", point_reduction)):
            if name not in _REDUCTIONS:
                raise ValueError(f'{kind} reduction must either be "sum" or "mean" or None.')
        if bidirectional:
            ways = list(_distances(source_cloud, target_cloud))
        else:
            clouds = (target_cloud, source_cloud) if reverse else (source_cloud, target_cloud)
            ways = [kernels.nearest_neighbor(*clouds)[0]]
        ways = [_reduced(_reduced(dist, point_reduction, 1), batch_reduction, 0) for dist in ways]
        return ways[0] + ways[1] if bidirectional else ways[0]
