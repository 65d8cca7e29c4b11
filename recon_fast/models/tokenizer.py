"""From groups of points to tokens, and which of them are masked (Point-BERT, section 3.1; Point-MAE, 3.1)."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recon_fast.config import ReConConfig
from recon_fast.kernels import linear_max
from recon_fast.kernels.attention import without_autocast


class FoldedNorm(nn.BatchNorm1d):
    """Batch norm that is folded into the layer in front of it (Ioffe & Szegedy 2015, section 3).

    In training too: a layer's output is an affine function of its input, so the statistics of the one follow
    from those of the other, and no pass over the output is needed, forward or backward.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def fold(self, count: int, statistics: Callable[[], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Factor [C] and offset [C] of the norm.

        Args:
            count: rows in the batch.
            statistics: gives mean [C] and biased variance [C] of the layer's output; called in training only,
                when the running statistics move on as well.
        """
        if self.training:
            mean, var = statistics()
            var = var.clamp_min(0)  # a difference of sums
            with torch.no_grad():
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(var * (count / max(count - 1, 1)), self.momentum)
                self.num_batches_tracked.add_(1)
        else:
            mean, var = self.running_mean, self.running_var
        factor = self.weight * torch.rsqrt(var + self.eps)
        return factor, self.bias - factor * mean


class Moments(torch.autograd.Function):
    """Mean, covariance (biased) and means of groups of rows, and their gradient in one pass over the rows."""

    @staticmethod
    def forward(x: Tensor, groups: int) -> tuple[Tensor, Tensor, Tensor]:
        """x [P, C], whose rows are `groups` groups of equal size -> [C], [C, C], [groups, C], in float32 or
        more.
        """
        P, C = x.shape
        if x.dtype in (torch.float32, torch.float64):
            mean = x.mean(0)
            centered = x - mean
            return mean, centered.T @ centered / P, x.view(groups, -1, C).mean(1)
        # A sum over all rows would be rounded to 8 bits once; sums over parts of them are, and their mean is
        # not.
        parts = x.view(math.gcd(P, 32), -1, C)
        centers = x.view(groups, -1, C).mean(1, dtype=torch.float32)
        mean = centers.mean(0)
        product = (parts.transpose(1, 2) @ parts).mean(0, dtype=torch.float32) * (parts.shape[0] / P)
        return mean, product - mean[:, None] * mean, centers

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int], output: tuple[Tensor, Tensor, Tensor]) -> None:
        ctx.save_for_backward(inputs[0], output[0])

    @staticmethod
    def backward(ctx: Any, to_mean: Tensor, to_cov: Tensor, to_centers: Tensor) -> tuple[Tensor, None]:
        x, mean = ctx.saved_tensors
        P, C = x.shape
        groups = len(to_centers)
        twice = (to_cov + to_cov.T) / P
        shift = (to_mean / P - mean @ twice) + to_centers * (groups / P)  # of all rows of a group
        to_x = x @ twice.to(x.dtype)
        to_x.view(groups, -1, C).add_(shift[:, None].to(x.dtype))
        return to_x, None


class Tokenizer(nn.Module):
    """One token per group of points.

    A shared MLP 3 -> 128 -> 256 on every point, max over the group, the maximum set beside every point (512),
    MLP 512 -> 512 -> C, max over the group. Batch norms normalise over all points of all groups.

    Computed with less, by algebra that is exact: batch norms are folded into the layers in front of them, so
    that what follows the statistics runs for the groups that are wanted; the half of `mix` that sees the
    maximum runs once a group, the other half is one matrix with `local`, and a maximum passes its gradient on
    to one point of a group.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.lift = nn.Linear(3, 128)
        self.lift_norm = FoldedNorm(128)
        self.local = nn.Linear(128, 256)
        self.mix = nn.Linear(512, 512)
        self.mix_norm = FoldedNorm(512)
        self.out = nn.Linear(512, dim)

    def forward(self, neighborhoods: Tensor, wanted: Tensor | None = None) -> Tensor:
        """neighborhoods [B, G, K, 3] -> tokens [B, G, C], or [B, S, C] of the `wanted` groups [B, S] alone.

        Statistics are over all groups either way.
        """
        B, G, K, _ = neighborhoods.shape
        points = neighborhoods.reshape(B * G * K, 3)
        lifted = F.linear(points, *self._folded_lift(points)).relu_()  # [BGK, 128]
        whole = linear_max(lifted.view(B * G, K, 128), self.local.weight, self.local.bias)  # [BG, 256]
        weight, offset = self._folded_mix(lifted, whole)  # [512, 128], [BG, 512]
        lifted, offset = lifted.view(B, G, K, 128), offset.view(B, G, 512)
        if wanted is not None:
            lifted, offset = take_groups(lifted, wanted), take_groups(offset, wanted)
        mixed = F.linear(lifted, weight)  # [B, S, K, 512]
        mixed = mixed.add_(offset[:, :, None].to(mixed.dtype)).relu_()
        tokens = linear_max(mixed.flatten(0, 1), self.out.weight, self.out.bias)
        return tokens.view(*offset.shape[:2], -1)

    def _folded_lift(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Weight [128, 3] and bias [128] of `lift` with its norm."""
        weight, bias = self.lift.weight, self.lift.bias

        def statistics() -> tuple[Tensor, Tensor]:
            mean, cov, _ = Moments.apply(points, 1)
            return weight @ mean + bias, ((weight @ cov) * weight).sum(1)

        with without_autocast(points):
            factor, offset = self.lift_norm.fold(points.shape[0], statistics)
            return factor[:, None] * weight, factor * bias + offset

    def _folded_mix(self, lifted: Tensor, whole: Tensor) -> tuple[Tensor, Tensor]:
        """Of `local`, `mix` and its norm: weight [512, 128] of a point, offset [BG, 512] of its group.

        Products over all groups are formed in the dtype of `whole`, as autocast would.
        """
        low = whole.dtype
        weight_whole, weight_local = self.mix.weight.split(256, dim=1)

        def statistics() -> tuple[Tensor, Tensor]:
            mean, cov, centers = Moments.apply(lifted, len(shared))
            spread = shared - shared.mean(0)
            with_group = (spread.to(low).T @ (centers - mean).to(low)).to(cov.dtype) / len(shared)
            covs = weight @ cov + 2 * with_group
            return weight @ mean + shared.mean(0), (covs * weight).sum(1) + spread.square().mean(0)

        with without_autocast(lifted):
            weight = weight_local @ self.local.weight
            bias = self.mix.bias + weight_local @ self.local.bias
            shared = F.linear(whole, weight_whole.to(low), bias.to(low)).to(bias.dtype)  # [BG, 512]
            factor, offset = self.mix_norm.fold(lifted.shape[0], statistics)
            return factor[:, None] * weight, factor * shared + offset


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
    def sample(cls, centers: Tensor, config: ReConConfig, noise: Tensor | None = None) -> "Masking":
        """A random masking of the groups around `centers` [B, G, 3].

        Args:
            centers: of the groups; block masking hides those that are nearest to one of them.
            config: its `mask_type` and `mask_ratio` count.
            noise: [B, G] uniform in [0, 1), of which the masking is a function; torch's default generator
                makes it unless given.
        """
        G = centers.shape[1]
        if noise is None:
            noise = torch.rand_like(centers[..., 0])
        if config.mask_type == "rand":
            score = noise
        else:
            pick = (noise[:, :1, None] * G).long()  # [B, 1, 1]
            score = -(centers - centers.gather(1, pick.expand(-1, -1, 3))).square().sum(-1)
        order = score.argsort(dim=1)  # the highest scores are masked
        split = G - config.num_masked
        return cls(order[:, :split].sort(1).values, order[:, split:].sort(1).values)


def take_groups(x: Tensor, idx: Tensor) -> Tensor:
    """Rows of x [B, G, ...] at idx [B, S] -> [B, S, ...]."""
    B, G = x.shape[:2]
    rows = idx + torch.arange(0, B * G, G, device=idx.device)[:, None]
    return x.flatten(0, 1).index_select(0, rows.flatten()).unflatten(0, idx.shape)
