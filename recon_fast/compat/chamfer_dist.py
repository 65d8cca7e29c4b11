"""`extensions.chamfer_dist` of GRNet, PoinTr and Point-BERT."""

from torch import Tensor, nn

from recon_fast import kernels

__all__ = ["ChamferDistanceL1", "ChamferDistanceL2", "ChamferDistanceL2_split", "ChamferFunction"]


def _squared(xyz1: Tensor, xyz2: Tensor) -> tuple[Tensor, Tensor]:
    """Squared distances [B, N] and [B, M] to the nearest point of the other cloud."""
    dist1, _, dist2, _ = kernels.mutual_nearest(xyz1, xyz2)
    return dist1, dist2


class ChamferFunction:
    apply = staticmethod(_squared)


class _Chamfer(nn.Module):
    def __init__(self, ignore_zeros: bool = False):
        super().__init__()
        self.ignore_zeros = ignore_zeros

    def _clouds(self, xyz1: Tensor, xyz2: Tensor) -> tuple[Tensor, Tensor]:
        """Without points whose coordinates sum to 0, for a batch of one and with ignore_zeros."""
        if not self.ignore_zeros or xyz1.shape[0] != 1:
            return xyz1, xyz2
        return xyz1[:, xyz1[0].sum(1) != 0], xyz2[:, xyz2[0].sum(1) != 0]


class ChamferDistanceL2(_Chamfer):
    """Mean squared distances both ways, added."""

    def forward(self, xyz1: Tensor, xyz2: Tensor) -> Tensor:
        xyz1, xyz2 = self._clouds(xyz1, xyz2)
        return kernels.chamfer_distance(xyz1, xyz2)


class ChamferDistanceL2_split(_Chamfer):
    """Mean squared distances, one for each way."""

    def forward(self, xyz1: Tensor, xyz2: Tensor) -> tuple[Tensor, Tensor]:
        dist1, dist2 = _squared(*self._clouds(xyz1, xyz2))
        return dist1.mean(), dist2.mean()


class ChamferDistanceL1(_Chamfer):
    """Mean distances both ways, halved; the gradient at distance 0 is 0, the original's NaN."""

    def forward(self, xyz1: Tensor, xyz2: Tensor) -> Tensor:
        xyz1, xyz2 = self._clouds(xyz1, xyz2)
        return kernels.chamfer_distance(xyz1, xyz2, norm="l1")
