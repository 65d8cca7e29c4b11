"""`chamfer3D.dist_chamfer_3D` (ThibaultGROUEIX, ChamferDistancePytorch)."""

from torch import Tensor, nn

from recon_fast import kernels

__all__ = ["chamfer_3DDist", "chamfer_3DFunction"]


def _both_ways(xyz1: Tensor, xyz2: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Squared distances [B, N] and [B, M] to the nearest points of the other cloud, their int32 indices."""
    dist1, idx1, dist2, idx2 = kernels.mutual_nearest(xyz1, xyz2)
    return dist1, dist2, idx1.int(), idx2.int()


class chamfer_3DFunction:
    apply = staticmethod(_both_ways)


class chamfer_3DDist(nn.Module):
    """dist1, dist2, idx1, idx2 of two clouds [B, N, 3] and [B, M, 3]; distances are differentiable."""

    def forward(self, input1: Tensor, input2: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return _both_ways(input1, input2)
