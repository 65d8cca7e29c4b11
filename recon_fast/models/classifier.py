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
    """Three layers with batch norm, ReLU and dropout between them, or one linear layer; none for no class."""
    if num_classes == 0:
        return nn.Sequential()
    if head == "linear":
        return nn.Sequential(nn.Linear(in_dim, num_classes))
    layers: list[nn.Module] = []
    for width in (in_dim, 256):
        layers += [nn.Linear(width, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Dropout(0.5)]
    return nn.Sequential(*layers, nn.Linear(256, num_classes))


class Classifier(nn.Module):
    """Encoder of `ReCon`, feature [cls, img, text token, max over the local tokens], head.

    Nothing is masked and no gradient is stopped: the whole encoder learns from the labels. Names of methods
    and attributes are those of timm's models.

    Args:
        config: architecture of the encoder; `drop_path` counts, what belongs to the decoder does not.
        num_classes: number of logits; 0 gives the feature itself.
        head: "mlp3" (4C -> 256 -> 256 -> classes, batch norm, ReLU, dropout 0.5) or "linear".

    Attributes:
        num_features: width of the feature, 4C.

    Raises:
        ValueError: an arch without a class token, a negative number of classes, an unknown head.
    """

    def __init__(
        self, config: ReConConfig, num_classes: int, head: Literal["mlp3", "linear"] = "mlp3"
    ) -> None:
        super().__init__()
        if config.arch != "recon":
            raise ValueError(f"model.arch must be 'recon' for a classifier, got {config.arch!r}")
        self.config = config
        self.encoder = Encoder(config)
        self.num_features = 4 * config.dim
        self.reset_classifier(num_classes, head)

    @property
    def num_classes(self) -> int:
        """Number of logits; 0 where there is no head."""
        return self.task["num_classes"]

    def reset_classifier(self, num_classes: int, head: Literal["mlp3", "linear"] | None = None) -> None:
        """A fresh head, on the device and in the dtype of the encoder.

        Args:
            num_classes: number of logits; 0 leaves the feature.
            head: as of the class; None takes the kind that it had.

        Raises:
            ValueError: a negative number of classes, an unknown head.
        """
        head = head or self.task["head"]
        if num_classes < 0:
            raise ValueError(f"num_classes must be at least 0, got {num_classes}")
        if head not in HEADS:
            raise ValueError(f"head must be one of {HEADS}, got {head!r}")
        self.task: dict[str, Any] = {"kind": "classifier", "num_classes": num_classes, "head": head}
        self.head = build_head(self.num_features, num_classes, head).to(self.encoder.norm.weight)
        self.head.apply(init_transformer)

    def get_classifier(self) -> nn.Sequential:
        """The head."""
        return self.head

    def encode(self, points: Tensor) -> Encoding:
        """points [B, N, 3] -> global tokens [B, 3, C] and local tokens [B, G, C]."""
        return self.encoder.encode(points)

    def features(self, points: Tensor) -> Tensor:
        """points [B, N, 3] -> the input of the head [B, 4 C]."""
        return classification_feature(self.encode(points))

    def forward_features(self, points: Tensor) -> Tensor:
        """points [B, N, 3] -> all tokens [B, 3 + G, C]: cls, img, text, then the local ones."""
        return torch.cat(self.encode(points), 1)

    def forward_head(self, tokens: Tensor, pre_logits: bool = False) -> Tensor:
        """Tokens of `forward_features` -> logits [B, num_classes], or with `pre_logits` features [B, 4 C]."""
        feature = classification_feature(Encoding(tokens[:, :3], tokens[:, 3:]))
        return feature if pre_logits else self.head(feature)

    def forward(self, points: Tensor) -> Tensor:
        """points [B, N, 3], float32, N at least num_group and group_size -> logits [B, num_classes]."""
        return self.head(self.features(points))
