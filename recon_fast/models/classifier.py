"""Classifier: ReCon's encoder with a head, for fine-tuning and few-shot learning (ReCon, section 4)."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from recon_fast.config import ReConConfig
from recon_fast.models.blocks import init_transformer
from recon_fast.models.recon import Encoder, Encoding

HEADS = ("mlp3", "linear")


def classification_feature(encoding: Encoding) -> Tensor:
    """[cls, img, text token, max over the local tokens]: [B, 4 C]."""
    return torch.cat([encoding.global_tokens.flatten(1), encoding.local_tokens.amax(1)], 1)


def build_head(in_dim: int, num_classes: int, head: Literal["mlp3", "linear"]) -> nn.Sequential:
    """Three layers with batch norm, ReLU and dropout between them, or one linear layer."""
    if head == "linear":
        return nn.Sequential(nn.Linear(in_dim, num_classes))
    layers: list[nn.Module] = []
    for width in (in_dim, 256):
        layers += [nn.Linear(width, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Dropout(0.5)]
    return nn.Sequential(*layers, nn.Linear(256, num_classes))


class Classifier(nn.Module):
    """Encoder of `ReCon`, feature [cls, img, text token, max over the local tokens], head.

    Nothing is masked and no gradient is stopped: the whole encoder learns from the labels.

    Args:
        config: architecture of the encoder; `drop_path` counts, what belongs to the decoder does not.
        num_classes: number of logits.
        head: "mlp3" (4C -> 256 -> 256 -> classes, batch norm, ReLU, dropout 0.5) or "linear".

    Raises:
        ValueError: an arch without a class token, fewer than one class, an unknown head.
    """

    def __init__(
        self, config: ReConConfig, num_classes: int, head: Literal["mlp3", "linear"] = "mlp3"
    ) -> None:
        super().__init__()
        if config.arch != "recon":
            raise ValueError(f"model.arch must be 'recon' for a classifier, got {config.arch!r}")
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}")
        if head not in HEADS:
            raise ValueError(f"head must be one of {HEADS}, got {head!r}")
        self.config = config
        self.task: dict[str, Any] = {"kind": "classifier", "num_classes": num_classes, "head": head}
        self.encoder = Encoder(config)
        self.head = build_head(4 * config.dim, num_classes, head)
        self.head.apply(init_transformer)

    def encode(self, points: Tensor) -> Encoding:
        """points [B, N, 3] -> global tokens [B, 3, C] and local tokens [B, G, C]."""
        return self.encoder.encode(points)

    def features(self, points: Tensor) -> Tensor:
        """points [B, N, 3] -> the input of the head [B, 4 C]."""
        return classification_feature(self.encode(points))

    def forward(self, points: Tensor) -> Tensor:
        """points [B, N, 3], float32, N at least num_group and group_size -> logits [B, num_classes]."""
        return self.head(self.features(points))
