"""A data set resident on the training device: clouds and teacher features, batches drawn without the host."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recon_fast.data.shapes import Features, Shapes
from recon_fast.data.transforms import random_rotation, unit_sphere


@dataclass
class Batch:
    """What one pass of the model takes."""

    points: Tensor  # [B, N, 3] float32
    image_feature: Tensor | None  # [B, D_image] float32
    text_feature: Tensor | None  # [B, D_text] float32
    label: Tensor | None  # [B] int64


class Standardizer:
    """Affine map to zero mean and unit variance per dimension, for each view (or prompt) of its own.

    What a prompt or a kind of view adds to all features says nothing about the shape. With random teachers it
    would be a third of the variance of texts.
    """

    def __init__(self, features: np.ndarray) -> None:
        features = features.astype(np.float32)  # [S, V, D]
        self.mean = features.mean(0)  # [V, D]
        self.scale = 1 / np.maximum(features.std(0), 1e-6)

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Features [S, V, D]."""
        return (features.astype(np.float32) - self.mean) * self.scale

    def mean_view(self, features: np.ndarray) -> np.ndarray:
        """Features [S, D] that were averaged over the views."""
        return (features.astype(np.float32) - self.mean.mean(0)) * self.scale.mean(0)


def standardize(features: Features) -> Features:
    """Features brought to zero mean and unit variance; class texts with the captions' statistics."""
    image, text, class_text = features.image, features.text, features.class_text
    if image is not None:
        image = Standardizer(image)(image)
    if text is not None:
        scaler = Standardizer(text)
        text = scaler(text)
        class_text = None if class_text is None else scaler.mean_view(class_text)
    teacher = {**features.teacher, "standardized": True}
    return Features(image, text, features.caption_index, class_text, teacher)


class ResidentShapes:
    """Clouds, labels and teacher features of the shapes at `rows`, on a device."""

    def __init__(
        self, shapes: Shapes, features: Features | None, rows: np.ndarray, device: torch.device
    ) -> None:
        sizes = np.diff(shapes.offsets)[rows]
        points = np.concatenate([shapes.cloud(int(i)) for i in rows])
        self.points = torch.from_numpy(points).to(device)  # [T, 3]
        self.starts = torch.from_numpy(np.cumsum(sizes) - sizes).to(device)  # [S]
        self.sizes = torch.from_numpy(sizes).to(device)  # [S]
        self.largest = int(sizes.max())
        self.ragged = bool((sizes != self.largest).any())
        self.device = device
        self.label = None if shapes.labels is None else torch.from_numpy(shapes.labels[rows]).to(device)
        self.image: Tensor | None = None  # [S, V, D]
        self.text: Tensor | None = None  # [U, P, D]
        if features is not None and features.image is not None:
            self.image = torch.from_numpy(features.image[rows]).to(device)
        if features is not None and features.text is not None and features.caption_index is not None:
            self.text = torch.from_numpy(features.text).to(device)
            self.caption = torch.from_numpy(features.caption_index[rows]).to(device)

    def __len__(self) -> int:
        return len(self.sizes)

    def draw_points(self, index: Tensor, num_points: int, own: slice = slice(None)) -> Tensor:
        """A random subset of each cloud, in random order: index [B] -> [B, N, 3] float32; of rows `own`."""
        noise = torch.rand(len(index), self.largest, device=self.device)[own]
        index = index[own]
        if self.ragged:
            noise.masked_fill_(torch.arange(self.largest, device=self.device) >= self.sizes[index, None], -1)
        pick = noise.topk(num_points, dim=1).indices  # [B, N]
        return self.points[self.starts[index, None] + pick].float()

    def batch(
        self, index: Tensor, num_points: int, rotate: str = "none", part: tuple[int, int] = (0, 1)
    ) -> Batch:
        """A batch of the shapes at index [B], drawn from torch's default generator of the device.

        With `part` (i, n) the i-th of its n equal parts, with the draws that those shapes get in the whole.
        """
        index = index.to(self.device)
        count = len(index) // part[1]
        own = slice(part[0] * count, (part[0] + 1) * count)
        points = unit_sphere(self.draw_points(index, num_points, own))
        if rotate != "none":
            points = random_rotation(points, rotate, torch.rand(len(index), device=self.device)[own])
        mine = index[own]
        image_feature = text_feature = None
        if self.image is not None:
            view = torch.randint(self.image.shape[1], index.shape, device=self.device)[own]
            image_feature = self.image[mine, view].float()
        if self.text is not None:
            prompt = torch.randint(self.text.shape[1], index.shape, device=self.device)[own]
            text_feature = self.text[self.caption[mine], prompt].float()
        return Batch(points, image_feature, text_feature, None if self.label is None else self.label[mine])
