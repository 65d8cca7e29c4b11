"""`pointnet2_ops` (Wijmans, "Pointnet++ Pytorch", 2018): its operators, set abstraction, feature propagation.

Qi et al., "PointNet++" (2017), sections 3.2 to 3.4. The names of the parameters are those of the original, so
that its checkpoints load. Features are [B, C, N], indices int32.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recon_fast import kernels
from recon_fast.compat import common
from recon_fast.kernels._check import check_cloud, check_tensor


def furthest_point_sample(xyz: Tensor, npoint: int) -> Tensor:
    """Indices [B, npoint], int32, of farthest points of xyz [B, N, 3], from point 0 on.

    As the original, it passes over points with |p|^2 <= 1e-3. No index comes twice.
    """
    check_cloud("xyz", xyz)
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
    dist, idx = common.knn(unknown.detach(), known.detach(), 3)
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


FurthestPointSampling = common.function_class(furthest_point_sample)
GatherOperation = common.function_class(gather_operation)
ThreeNN = common.function_class(three_nn)
ThreeInterpolate = common.function_class(three_interpolate)
GroupingOperation = common.function_class(grouping_operation)
BallQuery = common.function_class(ball_query)


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


def build_shared_mlp(mlp_spec: Sequence[int], bn: bool = True) -> nn.Sequential:
    """1x1 convolutions of these widths, each followed by normalisation and ReLU."""
    layers: list[nn.Module] = []
    for wide, out in pairwise(mlp_spec):
        layers.append(nn.Conv2d(wide, out, kernel_size=1, bias=not bn))
        if bn:
            layers.append(nn.BatchNorm2d(out))
        layers.append(nn.ReLU(True))
    return nn.Sequential(*layers)


class PointnetSAModuleMSG(nn.Module):
    """Sampled centers, groups of several radii around them, the maximum of a shared MLP over each group."""

    def __init__(
        self, npoint: int | None, radii: Sequence[float | None], nsamples: Sequence[int | None],
        mlps: Sequence[list[int]], bn: bool = True, use_xyz: bool = True,
    ):  # fmt: skip
        super().__init__()
        counts = f"got {len(radii)}, {len(nsamples)} and {len(mlps)}"
        assert len(radii) == len(nsamples) == len(mlps), f"radii, nsamples and mlps must be as many, {counts}"
        self.npoint = npoint
        self.groupers, self.mlps = nn.ModuleList(), nn.ModuleList()
        for radius, nsample, spec in zip(radii, nsamples, mlps, strict=True):
            if npoint is None:
                self.groupers.append(GroupAll(use_xyz))
            else:
                assert radius is not None, "radius must be given with npoint"
                assert nsample is not None, "nsample must be given with npoint"
                self.groupers.append(QueryAndGroup(radius, nsample, use_xyz=use_xyz))
            if use_xyz:
                spec[0] += 3  # in the caller's list, as the original does
            self.mlps.append(build_shared_mlp(spec, bn))

    def forward(self, xyz: Tensor, features: Tensor | None = None) -> tuple[Tensor | None, Tensor]:
        """xyz [B, N, 3], features [B, C, N] -> centers [B, npoint, 3] or None, features [B, C', npoint]."""
        new_xyz = None
        if self.npoint is not None:
            idx = furthest_point_sample(xyz, self.npoint)
            new_xyz = gather_operation(xyz.transpose(1, 2).contiguous(), idx)
            new_xyz = new_xyz.transpose(1, 2).contiguous()
        outputs = []
        for grouper, mlp in zip(self.groupers, self.mlps, strict=True):
            outputs.append(mlp(grouper(xyz, new_xyz, features)).max(-1).values)
        return new_xyz, torch.cat(outputs, 1)


class PointnetSAModule(PointnetSAModuleMSG):
    """Set abstraction with one radius; without npoint all points are one group."""

    def __init__(
        self, mlp: list[int], npoint: int | None = None, radius: float | None = None,
        nsample: int | None = None, bn: bool = True, use_xyz: bool = True,
    ):  # fmt: skip
        super().__init__(npoint, [radius], [nsample], [mlp], bn=bn, use_xyz=use_xyz)


class PointnetFPModule(nn.Module):
    """Features of a coarse cloud carried to a fine one by inverse distances, then a shared MLP."""

    def __init__(self, mlp: Sequence[int], bn: bool = True):
        super().__init__()
        self.mlp = build_shared_mlp(mlp, bn)

    def forward(
        self, unknown: Tensor, known: Tensor | None, unknow_feats: Tensor | None, known_feats: Tensor
    ) -> Tensor:
        """unknown [B, n, 3], known [B, m, 3], features [B, C1, n] and [B, C2, m] -> [B, C', n]."""
        if known is None:
            carried = known_feats.expand(*known_feats.shape[:2], unknown.shape[1])
        else:
            dist, idx = three_nn(unknown, known)
            weight = F.normalize(1 / (dist + 1e-8), p=1, dim=2)
            carried = three_interpolate(known_feats, idx, weight)
        if unknow_feats is not None:
            carried = torch.cat([carried, unknow_feats], 1)
        return self.mlp(carried.unsqueeze(-1)).squeeze(-1)
