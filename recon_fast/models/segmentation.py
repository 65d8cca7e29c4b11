"""PartSegmenter: a part for every point, from three depths of ReCon's encoder (ReCon, section 4).

The layers are those of Point-MAE's segmentation (Pang et al. 2022), with a feature of the global tokens.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recon_fast.config import ReConConfig
from recon_fast.kernels import knn
from recon_fast.models.recon import Encoder, Encoding, group_points

_POINT_DIM, _CATEGORY_DIM = 1024, 64


class FeaturePropagation(nn.Module):
    """From tokens of groups to points: inverse-squared-distance mean of the three nearest groups, two layers
    (PointNet++, section 3.4).

    The mean is linear, so the first layer runs on the G tokens instead of the N points, which is exact.
    """

    def __init__(self, in_dim: int, hidden_dim: int, out_dim: int) -> None:
        super().__init__()
        self.lift = nn.Linear(3 + in_dim, hidden_dim)
        self.lift_norm = nn.BatchNorm1d(hidden_dim)
        self.out = nn.Linear(hidden_dim, out_dim)
        self.out_norm = nn.BatchNorm1d(out_dim)

    def forward(self, points: Tensor, centers: Tensor, tokens: Tensor) -> Tensor:
        """points [B, N, 3], centers [B, G, 3], tokens [B, G, C] -> [B, N, out_dim]."""
        distance, idx = knn(points, centers, min(3, centers.shape[1]))
        weight = 1 / (distance + 1e-8)
        weight = weight / weight.sum(-1, keepdim=True)  # [B, N, 3]
        mean = weight.new_zeros(*points.shape[:2], centers.shape[1]).scatter(2, idx, weight)  # [B, N, G]
        of_point, of_token = self.lift.weight.split((3, tokens.shape[-1]), dim=1)
        lifted = F.linear(tokens, of_token)  # [B, G, hidden_dim]
        x = F.linear(points, of_point, self.lift.bias) + mean.to(lifted.dtype) @ lifted
        x = F.relu(over_points(self.lift_norm, x))
        return F.relu(over_points(self.out_norm, self.out(x)))


def over_points(norm: nn.BatchNorm1d, x: Tensor) -> Tensor:
    """Batch norm of x [B, N, C] over all points of all clouds."""
    return norm(x.flatten(0, 1)).view_as(x)


class PartSegmenter(nn.Module):
    """Log-probabilities of parts for every point, given the category of the shape.

    Args:
        config: architecture of the encoder; `drop_path` counts, what belongs to the decoder does not. The
            official recipe has num_group=128 at 2048 points.
        num_parts: parts of all categories together.
        num_categories: categories.

    Raises:
        ValueError: an arch without global tokens, no part or no category.
    """

    def __init__(self, config: ReConConfig, num_parts: int = 50, num_categories: int = 16) -> None:
        super().__init__()
        if config.arch != "recon":
            raise ValueError(f"model.arch must be 'recon' for a part segmenter, got {config.arch!r}")
        if num_parts < 1 or num_categories < 1:
            raise ValueError(
                f"num_parts and num_categories must be at least 1, got {num_parts} and {num_categories}"
            )
        C = config.dim
        self.config = config
        self.task: dict[str, Any] = {
            "kind": "segmenter",
            "num_parts": num_parts,
            "num_categories": num_categories,
        }
        self.num_categories = num_categories
        # Blocks 4, 8, 12 of 12; of fewer than three blocks the first counts more than once.
        self.taps = [max(1, config.depth * i // 3) for i in (1, 2, 3)]
        self.encoder = Encoder(config)
        self.category = nn.Sequential(
            nn.Linear(num_categories, _CATEGORY_DIM, bias=False),
            nn.BatchNorm1d(_CATEGORY_DIM),
            nn.LeakyReLU(0.2),
        )
        self.propagation = FeaturePropagation(3 * C, 4 * C, _POINT_DIM)
        self.mix = nn.Linear(_POINT_DIM + 7 * C + _CATEGORY_DIM, 512)
        self.mix_norm = nn.BatchNorm1d(512)
        self.dropout = nn.Dropout(0.5)
        self.narrow = nn.Linear(512, 256)
        self.narrow_norm = nn.BatchNorm1d(256)
        self.out = nn.Linear(256, num_parts)

    def encode(self, points: Tensor) -> Encoding:
        """points [B, N, 3] -> global tokens [B, 3, C] and local tokens [B, G, C]."""
        return self.encoder.encode(points)

    def forward(self, points: Tensor, category: Tensor) -> Tensor:
        """points [B, N, 3], float32, category [B] int64 -> log-probabilities [B, N, num_parts], float32."""
        groups = group_points(points, self.config)
        tokens = self.encoder.tokenizer(groups.neighborhoods)
        layers = enumerate(self.encoder.layers(tokens, groups.centers, stop_gradient=False), 1)
        tapped = {i: layer for i, layer in layers if i in self.taps}
        kept = [tapped[i] for i in self.taps]
        local = torch.cat([self.encoder.norm(layer.local_tokens) for layer in kept], -1)  # [B, G, 3 C]
        one_hot = F.one_hot(category, self.num_categories).to(points.dtype)
        # The maximum of the global tokens is taken before the norm; the official weights were trained so.
        queries = kept[-1].global_tokens.amax(1)
        whole = torch.cat(
            [local.amax(1), local.mean(1), queries, self.category(one_hot)], -1
        )  # [B, 7 C + 64]
        x = self.propagation(points, groups.centers, local)
        of_point, of_whole = self.mix.weight.split((_POINT_DIM, whole.shape[-1]), dim=1)
        x = F.linear(x, of_point) + F.linear(whole, of_whole, self.mix.bias)[:, None]
        x = self.dropout(F.relu(over_points(self.mix_norm, x)))
        x = F.relu(over_points(self.narrow_norm, self.narrow(x)))
        return F.log_softmax(self.out(x).float(), -1)
