"""What happens to a batch of clouds before the model, on the device the points are on."""

import math

import torch
from torch import Tensor


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
