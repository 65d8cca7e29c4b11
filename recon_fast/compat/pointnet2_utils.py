"""`pointnet2_ops.pointnet2_utils` (Wijmans, "Pointnet++ Pytorch", 2018)."""

import torch
from torch import Tensor, nn

from recon_fast import kernels
from recon_fast.compat import any_dim
from recon_fast.kernels._check import check_cloud, check_tensor

__all__ = [
    "BallQuery",
    "FurthestPointSampling",
    "GatherOperation",
    "GroupAll",
    "GroupingOperation",
    "QueryAndGroup",
    "ThreeInterpolate",
    "ThreeNN",
    "ball_query",
    "furthest_point_sample",
    "gather_operation",
    "grouping_operation",
    "three_interpolate",
    "three_nn",
]


def furthest_point_sample(xyz: Tensor, npoint: int) -> Tensor:
    """Indices [B, npoint], int32, of farthest points of xyz [B, N, 3], from point 0 on.

    As the original, it passes over points with |p|^2 <= 1e-3. No index comes twice.
    """
    return kernels.farthest_point_sample(xyz, npoint, skip_near_origin=True).int()


def gather_operation(features: Tensor, idx: Tensor) -> Tensor:
    """features [B, C, N] at idx [B, npoint], as [B, C, npoint]; differentiable in the features."""
    return kernels.gather_features(features, idx)


def three_nn(unknown: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """The three nearest of known [B, m, 3]: distances (not squared) [B, n, 3], int32 indices [B, n, 3].

    Where known has fewer than three points, the rest has index 0 and distance inf.
    """
    check_cloud("unknown", unknown)
    check_cloud("known", known, "unknown", unknown)
    dist, idx = any_dim.knn(unknown.detach(), known.detach(), 3)
    return dist.sqrt(), idx.clamp_min(0).int()


def three_interpolate(features: Tensor, idx: Tensor, weight: Tensor) -> Tensor:
    """Weighted sums [B, c, n] of features [B, c, m] at idx [B, n, 3]; differentiable in the features."""
    check_tensor("weight", weight)
    return kernels.interpolate_features(features, idx, weight.detach())


def grouping_operation(features: Tensor, idx: Tensor) -> Tensor:
    """features [B, C, N] at idx [B, npoint, nsample], as [B, C, npoint, nsample]."""
    return kernels.gather_features(features, idx)


def ball_query(radius: float, nsample: int, xyz: Tensor, new_xyz: Tensor) -> Tensor:
    """The first nsample points of xyz [B, N, 3] nearer to new_xyz [B, npoint, 3] than radius, int32.

    Filled up with the first of them; all 0 where there is none.
    """
    check_cloud("new_xyz", new_xyz)
    check_cloud("xyz", xyz, "new_xyz", new_xyz)
    return kernels.ball_query(new_xyz.detach(), xyz.detach(), radius, nsample, padding="first")[1].int()


class FurthestPointSampling:
    apply = staticmethod(furthest_point_sample)


class GatherOperation:
    apply = staticmethod(gather_operation)


class ThreeNN:
    apply = staticmethod(three_nn)


class ThreeInterpolate:
    apply = staticmethod(three_interpolate)


class GroupingOperation:
    apply = staticmethod(grouping_operation)


class BallQuery:
    apply = staticmethod(ball_query)


class QueryAndGroup(nn.Module):
    """The points within a radius of each center, relative to it, with their features."""

    def __init__(self, radius: float, nsample: int, use_xyz: bool = True):
        super().__init__()
        self.radius, self.nsample, self.use_xyz = radius, nsample, use_xyz

    def forward(self, xyz: Tensor, new_xyz: Tensor, features: Tensor | None = None) -> Tensor:
        """xyz [B, N, 3], new_xyz [B, npoint, 3], features [B, C, N] -> [B, 3 + C, npoint, nsample]."""
        idx = ball_query(self.radius, self.nsample, xyz, new_xyz)
        grouped_xyz = grouping_operation(xyz.transpose(1, 2), idx) - new_xyz.transpose(1, 2)[..., None]
        if features is None:
            assert self.use_xyz, "Cannot have not features and not use xyz as a feature!"
            return grouped_xyz
        grouped = grouping_operation(features, idx)
        return torch.cat([grouped_xyz, grouped], 1) if self.use_xyz else grouped


class GroupAll(nn.Module):
    """All points as one group."""

    def __init__(self, use_xyz: bool = True):
        super().__init__()
        self.use_xyz = use_xyz

    def forward(self, xyz: Tensor, new_xyz: Tensor | None, features: Tensor | None = None) -> Tensor:
        """xyz [B, N, 3], features [B, C, N] -> [B, 3 + C, 1, N]; new_xyz is not used."""
        grouped_xyz = xyz.transpose(1, 2).unsqueeze(2)
        if features is None:
            return grouped_xyz
        grouped = features.unsqueeze(2)
        return torch.cat([grouped_xyz, grouped], 1) if self.use_xyz else grouped
