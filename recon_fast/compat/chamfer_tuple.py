"""`chamfer_distance` (chrdiller, pyTorchChamferDistance)."""

from torch import Tensor, nn

from recon_fast import kernels

__all__ = ["ChamferDistance"]


class ChamferDistance(nn.Module):
    """Squared distances [B, N] and [B, M] to the nearest point of the other cloud.

    Later packages of this name return the int64 indices as well: `return_indices=True`.
    """

    def __init__(self, return_indices: bool = False):
        super().__init__()
        self.return_indices = return_indices

    def forward(self, xyz1: Tensor, xyz2: Tensor) -> tuple[Tensor, ...]:
        dist1, idx1, dist2, idx2 = kernels.mutual_nearest(xyz1, xyz2)
        return (dist1, dist2, idx1, idx2) if self.return_indices else (dist1, dist2)
