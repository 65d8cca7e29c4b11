"""`pointnet2_ops.pointnet2_modules`: set abstraction and feature propagation of PointNet++.

Qi et al., "PointNet++" (2017), sections 3.2 to 3.4. The names of the parameters are those of the original, so
that its checkpoints load.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recon_fast.compat import pointnet2_utils as utils

__all__ = ["PointnetFPModule", "PointnetSAModule", "PointnetSAModuleMSG", "build_shared_mlp"]


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
        self,
        npoint: int | None,
        radii: Sequence[float | None],
        nsamples: Sequence[int | None],
        mlps: Sequence[list[int]],
        bn: bool = True,
        use_xyz: bool = True,
    ):
        super().__init__()
        counts = f"got {len(radii)}, {len(nsamples)} and {len(mlps)}"
        assert len(radii) == len(nsamples) == len(mlps), f"radii, nsamples and mlps must be as many, {counts}"
        self.npoint = npoint
        self.groupers, self.mlps = nn.ModuleList(), nn.ModuleList()
        for radius, nsample, spec in zip(radii, nsamples, mlps, strict=True):
            if npoint is None:
                self.groupers.append(utils.GroupAll(use_xyz))
            else:
                assert radius is not None, "radius must be given with npoint"
                assert nsample is not None, "nsample must be given with npoint"
                self.groupers.append(utils.QueryAndGroup(radius, nsample, use_xyz=use_xyz))
            if use_xyz:
                spec[0] += 3  # in the caller's list, as the original does
            self.mlps.append(build_shared_mlp(spec, bn))

    def forward(self, xyz: Tensor, features: Tensor | None = None) -> tuple[Tensor | None, Tensor]:
        """xyz [B, N, 3], features [B, C, N] -> centers [B, npoint, 3] or None, features [B, C', npoint]."""
        new_xyz = None
        if self.npoint is not None:
            idx = utils.furthest_point_sample(xyz, self.npoint)
            new_xyz = utils.gather_operation(xyz.transpose(1, 2).contiguous(), idx)
            new_xyz = new_xyz.transpose(1, 2).contiguous()
        outputs = []
        for grouper, mlp in zip(self.groupers, self.mlps, strict=True):
            outputs.append(mlp(grouper(xyz, new_xyz, features)).max(-1).values)
        return new_xyz, torch.cat(outputs, 1)


class PointnetSAModule(PointnetSAModuleMSG):
    """Set abstraction with one radius; without npoint all points are one group."""

    def __init__(
        self,
        mlp: list[int],
        npoint: int | None = None,
        radius: float | None = None,
        nsample: int | None = None,
        bn: bool = True,
        use_xyz: bool = True,
    ):
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
            dist, idx = utils.three_nn(unknown, known)
            weight = F.normalize(1 / (dist + 1e-8), p=1, dim=2)
            carried = utils.three_interpolate(known_feats, idx, weight)
        if unknow_feats is not None:
            carried = torch.cat([carried, unknow_feats], 1)
        return self.mlp(carried.unsqueeze(-1)).squeeze(-1)
