"""From groups of points to tokens, and which of them are masked (Point-BERT, section 3.1; Point-MAE, 3.1)."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recon_fast.config import ReConConfig


class Tokenizer(nn.Module):
    """One token per group of points.

    A shared MLP 3 -> 128 -> 256 on every point, max over the group, the maximum set beside every point (512),
    MLP 512 -> 512 -> C, max over the group. Batch norms normalise over all points of all groups.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.lift = nn.Linear(3, 128)
        self.lift_norm = nn.BatchNorm1d(128)
        self.local = nn.Linear(128, 256)
        self.mix = nn.Linear(512, 512)
        self.mix_norm = nn.BatchNorm1d(512)
        self.out = nn.Linear(512, dim)

    def forward(self, neighborhoods: Tensor) -> Tensor:
        """neighborhoods [B, G, K, 3] -> tokens [B, G, C]."""
        B, G, K, _ = neighborhoods.shape
        points = neighborhoods.reshape(B * G * K, 3)
        local = self.local(F.relu(self.lift_norm(self.lift(points)))).view(B * G, K, 256)
        whole = local.amax(1)  # [BG, 256]
        # The layer on [whole, local] is a sum of two: the half that sees `whole` runs once a group, not a
        # point.
        weight_whole, weight_local = self.mix.weight.split(256, dim=1)
        mixed = (
            F.linear(local, weight_local) + F.linear(whole, weight_whole, self.mix.bias)[:, None]
        )  # [BG, K, 512]
        mixed = F.relu(self.mix_norm(mixed.flatten(0, 1)))
        return self.out(mixed).view(B, G, K, -1).amax(2)


class Masking(NamedTuple):
    """Which groups the encoder sees, as index sets of fixed size in ascending order."""

    visible: Tensor  # [B, S] int64
    masked: Tensor  # [B, M] int64

    @classmethod
    def from_mask(cls, mask: Tensor) -> "Masking":
        """From a mask [B, G], True = masked, with the same number of True in every row."""
        counts = mask.sum(1)
        num_masked = int(counts[0])
        if not bool((counts == num_masked).all()):
            raise ValueError(f"mask must hide the same number of groups in every row, got {counts.tolist()}")
        order = mask.to(torch.uint8).argsort(dim=1, stable=True)
        split = mask.shape[1] - num_masked
        return cls(order[:, :split], order[:, split:])

    @classmethod
    def draw(cls, centers: Tensor, config: ReConConfig) -> "Masking":
        """A random masking of the groups around `centers` [B, G, 3], from torch's default generator."""
        B, G, _ = centers.shape
        if config.mask_type == "rand":
            score = torch.rand(B, G, device=centers.device)
        else:
            pick = torch.randint(G, (B, 1, 1), device=centers.device)
            score = -(centers - centers.gather(1, pick.expand(-1, -1, 3))).square().sum(-1)
        order = score.argsort(dim=1)  # the highest scores are masked
        split = G - config.num_masked
        return cls(order[:, :split].sort(1).values, order[:, split:].sort(1).values)


def take_groups(x: Tensor, idx: Tensor) -> Tensor:
    """Rows of x [B, G, ...] at idx [B, S] -> [B, S, ...]."""
    index = idx.view(*idx.shape, *[1] * (x.ndim - 2)).expand(-1, -1, *x.shape[2:])
    return x.gather(1, index)
