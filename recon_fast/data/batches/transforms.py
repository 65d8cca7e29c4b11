"""What happens to clouds and teacher features before the model, on the device they are on when drawn."""

import math
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recon_fast.data.batches.counter import uniform
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


def changed(points: Tensor, key: Tensor, scale: float, jitter: float) -> Tensor:
    """Clouds [B, N, 3], each axis times a factor from 1 / scale to scale, then each coordinate shifted by at
    most a share of `jitter` that is random for each cloud: a function of the keys [B].
    """
    numbers = uniform(key, 4 + 3 * points.shape[1] * bool(jitter))
    points = points * (scale ** (2 * numbers[:, :3] - 1))[:, None]
    if jitter:
        points = points + jitter * numbers[:, 3, None, None] * (2 * numbers[:, 4:] - 1).view_as(points)
    return points


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


def whitening(features: Rows, components: int = 64) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean [V, D] of each view, and a matrix [D, D]: features [S, V, D] less the one, times the other, vary
    alike along their first principal components and have unit variance on average.

    Pooled features of a random network vary along few directions: of 512 dimensions of a resnet10t, 176 had
    no variance and one component had 58 %. Whitening lets a model learn from the others too. The matrix is
    the symmetric one (ZCA, Bell & Sejnowski 1997), which no sign or order of components changes.
    """
    S, V, D = features.shape
    mean = sum(block.sum(0, dtype=np.float64) for block in blocks(features)) / S
    covariance = np.zeros((D, D))
    for block in blocks(features):
        centred = (block - mean).reshape(-1, D)
        covariance += centred.T @ centred / (S * V)
    variance, axes = np.linalg.eigh(covariance)
    kept = np.flatnonzero(variance > 1e-6 * variance[-1])[-components:]
    matrix = axes[:, kept] / np.sqrt(variance[kept]) @ axes[:, kept].T * np.sqrt(D / max(len(kept), 1))
    return np.asarray(mean, np.float32), matrix.astype(np.float32)


def standardize(features: Features) -> Features:
    """Features with maps: those of images are whitened (`whitening`), those of texts brought to zero mean and
    unit variance per dimension. The two share no space then.

    Class texts are mapped here, with the captions' statistics.
    """
    image = None if features.image is None else whitening(features.image)
    text = None if features.text is None else Standardizer(features.text)
    class_text = features.class_text
    if text is not None and class_text is not None:
        class_text = text.mean_view(class_text)
    stated = {"standardized": True, "aligned": False} | ({} if image is None else {"whitened": True})
    return replace(
        features,
        class_text=class_text,
        teacher=features.teacher | stated,
        image_map=image,
        text_map=None if text is None else (text.mean, text.scale),
    )
