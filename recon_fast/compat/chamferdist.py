"""`chamferdist` (krrish94)."""

import warnings

import torch
from torch import Tensor, nn

from recon_fast import kernels

__all__ = ["ChamferDistance"]
_REDUCTIONS = ("sum", "mean", None)


def _reduced(values: Tensor, reduction: str | None, dim: int) -> Tensor:
    if reduction is None:
        return values
    return values.mean(dim) if reduction == "mean" else values.sum(dim)


class ChamferDistance(nn.Module):
    """Squared distances of a cloud to the nearest points of another, reduced over points and batch."""

    def forward(
        self,
        source_cloud: Tensor,
        target_cloud: Tensor,
        bidirectional: bool = False,
        reverse: bool = False,
        batch_reduction: str | None = "mean",
        point_reduction: str | None = "sum",
        reduction: str | None = None,
    ) -> Tensor:
        """From source [B, N, 3] to target [B, M, 3]; `reverse` the other way, `bidirectional` both, added.

        `reduction` is what versions before 1.0 call `batch_reduction`.
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
            forth, _, back, _ = kernels.mutual_nearest(source_cloud, target_cloud)
            ways = [forth, back]
        elif reverse:
            ways = [kernels.nearest_neighbor(target_cloud, source_cloud)[0]]
        else:
            ways = [kernels.nearest_neighbor(source_cloud, target_cloud)[0]]
        ways = [_reduced(_reduced(dist, point_reduction, 1), batch_reduction, 0) for dist in ways]
        return ways[0] + ways[1] if bidirectional else ways[0]
