"""Clouds whose points carry parts: resampled for each pass, as the official part segmentation does.

The official code takes `num_points` random points with replacement of every cloud, in training and in
testing, so clouds of any size make one batch, and metrics are over the points that were drawn.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recon_fast.data.batches.counter import Stream, integers, keys, uniform
from recon_fast.data.batches.labelled import Change
from recon_fast.data.batches.resident import Batch
from recon_fast.data.batches.transforms import unit_sphere
from recon_fast.data.shapes import Shapes


@dataclass
class PartBatch(Batch):
    """Clouds with a label, their category, and with parts."""

    part: Tensor | None = None  # [B, N] int64

    @property
    def inputs(self) -> tuple[Tensor | None, ...]:
        """Points, category and parts."""
        return self.points, self.label, self.part


class PartedShapes:
    """The shapes at `rows` with their parts, drawn with replacement.

    Args:
        shapes: with labels and parts.
        rows: which of them [S].
        num_points: points N of a pass.
        normalize: centre each cloud and scale it to the unit sphere first.
        device: where points and parts lie.
        seed: of the points that are tested.
    """

    def __init__(
        self,
        shapes: Shapes,
        rows: NDArray[np.int64],
        num_points: int,
        normalize: bool,
        device: torch.device,
        seed: int,
    ) -> None:
        assert shapes.labels is not None
        assert shapes.parts is not None
        self.num_points, self.device, self.seed = num_points, device, seed
        self.label = torch.from_numpy(shapes.labels[rows]).to(device)
        clouds = [torch.from_numpy(np.asarray(shapes.cloud(int(i)), np.float32)) for i in rows]
        if normalize:
            clouds = [unit_sphere(cloud[None])[0] for cloud in clouds]
        spans = [slice(shapes.offsets[i], shapes.offsets[i + 1]) for i in rows]
        parts = np.concatenate([shapes.parts[span] for span in spans])
        self.points = torch.cat(clouds).to(device)  # [T, 3]
        self.part = torch.from_numpy(parts).to(device)  # [T] uint8
        sizes = torch.tensor([len(cloud) for cloud in clouds])
        self.first, self.sizes = (sizes.cumsum(0) - sizes).to(device), sizes.to(device)  # [S]

    def __len__(self) -> int:
        return len(self.label)

    def _draw(self, index: Tensor, seed: int, draw: int, stream: Stream) -> tuple[Tensor, Tensor]:
        """Points [B, N, 3] and their parts [B, N] of the shapes at index [B] on the device."""
        key = keys(seed, torch.full_like(index, draw), stream, index)
        place = self.first[index][:, None] + integers(key, self.sizes[index], self.num_points)
        return self.points[place], self.part[place].long()

    def tested(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Points [B, N, 3] and parts [B, N] of the shapes at index [B], alike in every test."""
        return self._draw(index.to(self.device), self.seed, 0, Stream.TESTED_POINTS)

    def voted(self, index: Tensor, points: Tensor, vote: int, change: Change) -> Tensor:
        """The tested points [B, N, 3] of the shapes at index [B], changed for a vote."""
        index = index.to(self.device)
        key = keys(self.seed, torch.full_like(index, vote), Stream.VOTED_CHANGES, index)
        return change(points, uniform(key, 7))

    def batch(self, index: Tensor, seed: int, step: int, change: Change) -> PartBatch:
        """The shapes at index [B] as a training step sees them: a function of seed, step and shape."""
        index = index.to(self.device)
        points, part = self._draw(index, seed, step, Stream.POINTS)
        noise = uniform(keys(seed, torch.full_like(index, step), Stream.CHANGES, index), 7)
        return PartBatch(change(points, noise), None, None, self.label[index], part=part)
