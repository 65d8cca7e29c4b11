"""What happens to clouds and teacher features before the model, on the device they are on when drawn."""

import math
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recon_fast.data.shapes import Features, Rows, blocks


def unit_sphere(points: Tensor) -> Tensor:
    """Centre clouds [B, N, 3] on their mean and scale the farthest point to distance 1."""
    points = points - points.mean(1, keepdim=True)
    radius = points.square().sum(-1).amax(1).sqrt()[:, None, None]
    return points / radius.clamp_min(torch.finfo(points.dtype).tiny)


def random_rotation(points: Tensor, axis: str, turn: Tensor | None = None) -> Tensor:
    """Turn each cloud of [B, N, 3] about "x", "y" or "z" by `turn` [B] of a full circle, else at random."""
    angle = (torch.rand(points.shape[0], device=points.device) if turn is None else turn) * (2 * math.pi)
    cos, sin = angle.cos(), angle.sin()
    i = "xyz".index(axis)
    j, k = (i + 1) % 3, (i + 2) % 3
    rotation = torch.zeros(points.shape[0], 3, 3, device=points.device)
    rotation[:, i, i] = 1
    rotation[:, j, j] = cos
    rotation[:, k, k] = cos
    rotation[:, j, k] = -sin
    rotation[:, k, j] = sin
    return torch.bmm(points, rotation.transpose(1, 2))


class Standardizer:
    """Affine map to zero mean and unit variance per dimension, for each view (or prompt) of its own.

    What a prompt or a kind of view adds to all features says nothing about the shape. With random teachers it
    would be a third of the variance of texts.

    Args:
        features: [S, V, D]; read in blocks.
    """

    def __init__(self, features: Rows) -> None:
        count = len(features)
        total = np.zeros(features.shape[1:])
        for block in blocks(features):
            total += block.sum(0, dtype=np.float64)
        mean = total / count
        square = np.zeros_like(mean)
        for block in blocks(features):
            square += np.square(block - mean).sum(0)
        self.mean = mean.astype(np.float32)  # [V, D]
        self.scale = (1 / np.maximum(np.sqrt(square / count), 1e-6)).astype(np.float32)

    def mean_view(self, features: NDArray) -> NDArray[np.float32]:
        """Features [S, D] that were averaged over the views."""
        return (features.astype(np.float32) - self.mean.mean(0)) * self.scale.mean(0)


def standardize(features: Features) -> Features:
    """Features with the maps that bring them to zero mean and unit variance.

    Class texts are mapped here, with the captions' statistics.
    """
    image = None if features.image is None else Standardizer(features.image)
    text = None if features.text is None else Standardizer(features.text)
    class_text = features.class_text
    if text is not None and class_text is not None:
        class_text = text.mean_view(class_text)
    return replace(
        features,
        class_text=class_text,
        teacher={**features.teacher, "standardized": True},
        image_map=None if image is None else (image.mean, image.scale),
        text_map=None if text is None else (text.mean, text.scale),
    )
