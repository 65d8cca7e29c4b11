"""Labelled clouds for downstream tasks, drawn and augmented anew: whole shapes, and shapes with parts.

Whole shapes are reduced to their farthest points once. For parts the official code takes `num_points` random
points with replacement of every cloud, in training and in testing, so clouds of any size make one batch, and
metrics are over the points that were drawn.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recon_fast.data.batches.counter import Stream, integers, keys, permute, uniform
from recon_fast.data.batches.resident import Batch
from recon_fast.data.batches.transforms import random_rotation, unit_sphere
from recon_fast.data.shapes import Shapes
from recon_fast.kernels import farthest_point_sample

_CHUNK = 256  # clouds sampled at once


@dataclass(frozen=True)
class Augmentation:
    """How a training cloud is changed.

    Attributes:
        scales: each axis is scaled by a factor between these.
        translate: each axis is shifted by at most this.
        rotate: axis of a random rotation, "none" for none.
        one_factor: all axes are scaled by the same factor.
        seed: all numbers are a function of it, the step and the shape.
    """

    scales: tuple[float, float] = (1.0, 1.0)
    translate: float = 0.0
    rotate: str = "none"
    one_factor: bool = False
    seed: int = 0

    def __call__(self, points: Tensor, step: Tensor, stream: Stream, index: Tensor) -> Tensor:
        """Points [B, N, 3] of shapes at index [B] in steps [B], turned, scaled and shifted in this order."""
        noise = uniform(keys(self.seed, step, stream, index), 7)
        if self.rotate != "none":
            points = random_rotation(points, self.rotate, noise[:, 0])
        least, most = self.scales
        scale = least + (most - least) * noise[:, None, 1 : 2 if self.one_factor else 4]
        return points * scale + self.translate * (2 * noise[:, None, 4:7] - 1)


class LabelledShapes(ABC):
    """The shapes at `rows` on a device, as a training set of `recon_fast.data.batches.stream.BatchStream`."""

    ahead = together = False  # as in `ResidentShapes`

    def __init__(
        self, shapes: Shapes, rows: NDArray[np.int64], num_points: int, device: torch.device
    ) -> None:
        assert shapes.labels is not None
        self.num_points, self.device = num_points, device
        self.label = torch.from_numpy(shapes.labels[rows]).to(device)

    def __len__(self) -> int:
        return len(self.label)

    @abstractmethod
    def draw(self, index: Tensor, step: Tensor, how: Augmentation) -> Batch:
        """The shapes at index [B] as training steps [B] see them, with their labels."""

    def finish(self, drawn: Batch, how: Augmentation) -> Batch:
        """What was drawn, as it is."""
        return drawn


def _clouds(shapes: Shapes, rows: NDArray[np.int64], normalize: bool) -> list[Tensor]:
    clouds = [torch.from_numpy(np.asarray(shapes.cloud(int(i)), np.float32)) for i in rows]
    return [unit_sphere(cloud[None])[0] for cloud in clouds] if normalize else clouds


class SampledShapes(LabelledShapes):
    """The shapes at `rows`, each a list of its points in the order of farthest-point sampling.

    The first n of such a list are the sample of n points, so one list serves training, which draws
    `num_points` from the whole list, and testing, which takes the first.

    Args:
        shapes: labelled, each of at least `num_points` points.
        rows: which of them [S].
        num_points: points N of a pass.
        oversample: the list has this many times N points, or as many as the smallest cloud.
        normalize: centre each cloud and scale it to the unit sphere first.
        device: where the lists lie.
        skip_near_origin: sample as pointnet2_ops does; see `farthest_point_sample`.
    """

    def __init__(
        self,
        shapes: Shapes,
        rows: NDArray[np.int64],
        num_points: int,
        oversample: float,
        normalize: bool,
        device: torch.device,
        skip_near_origin: bool = False,
    ) -> None:
        super().__init__(shapes, rows, num_points, device)
        sizes = np.diff(shapes.offsets)[rows]
        listed = min(int(num_points * oversample), int(sizes.min()))
        self.points = torch.empty(len(rows), listed, 3, device=device)
        for first in range(0, len(rows), _CHUNK):
            part = slice(first, first + _CHUNK)
            clouds = _clouds(shapes, rows[part], normalize)
            padded = torch.nn.utils.rnn.pad_sequence(clouds, batch_first=True).to(device)
            lengths = torch.from_numpy(sizes[part]).to(device) if len(set(sizes[part])) > 1 else None
            idx = farthest_point_sample(padded, listed, lengths=lengths, skip_near_origin=skip_near_origin)
            self.points[part] = padded.gather(1, idx[..., None].expand(-1, -1, 3))

    def sampled(self, index: Tensor) -> Tensor:
        """The farthest points of the shapes at index [B], as they are: [B, N, 3]."""
        return self.points[index.to(self.device), : self.num_points]

    def _augmented(
        self, index: Tensor, step: Tensor, how: Augmentation, points_of: Stream, changes_of: Stream
    ) -> Tensor:
        """Random points [B, N, 3] of the shapes at index [B] on the device, augmented."""
        places = torch.arange(self.num_points, device=self.device)
        pick = permute(places, self.points.shape[1], keys(how.seed, step, points_of, index), rounds=16)
        return how(self.points[index[:, None], pick], step, changes_of, index)

    def voted(self, index: Tensor, vote: int, how: Augmentation) -> Tensor:
        """Random points [B, N, 3] of the shapes at index [B], augmented for a vote."""
        index = index.to(self.device)
        step = torch.full_like(index, vote)
        return self._augmented(index, step, how, Stream.VOTED_POINTS, Stream.VOTED_CHANGES)

    def draw(self, index: Tensor, step: Tensor, how: Augmentation) -> Batch:
        index, step = index.to(self.device), step.to(self.device)
        points = self._augmented(index, step, how, Stream.POINTS, Stream.CHANGES)
        return Batch(points, None, None, self.label[index])


def split_off(
    labels: NDArray[np.int64], rows: NDArray[np.int64], share: float, seed: int
) -> NDArray[np.bool_]:
    """Which of the shapes at `rows` validate: a share of each class, chosen by seed.

    If it is above 0, at least one of each class that has two or more.
    """
    chosen = np.zeros(len(rows), bool)
    rng = np.random.default_rng(seed)
    for label in np.unique(labels[rows]):
        own = rng.permutation(np.flatnonzero(labels[rows] == label))
        count = min(max(1, round(share * len(own))), len(own) - 1) if share > 0 else 0
        chosen[own[:count]] = True
    return chosen


@dataclass
class PartBatch(Batch):
    """Clouds with a label, their category, and with parts."""

    part: Tensor | None = None  # [B, N] int64

    @property
    def inputs(self) -> tuple[Tensor | None, ...]:
        """Points, category and parts."""
        return self.points, self.label, self.part


class PartedShapes(LabelledShapes):
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
        super().__init__(shapes, rows, num_points, device)
        assert shapes.parts is not None
        self.seed = seed
        clouds = _clouds(shapes, rows, normalize)
        parts = np.concatenate([shapes.parts[shapes.offsets[i] : shapes.offsets[i + 1]] for i in rows])
        self.points = torch.cat(clouds).to(device)  # [T, 3]
        self.part = torch.from_numpy(parts).to(device)  # [T] uint8
        sizes = torch.tensor([len(cloud) for cloud in clouds])
        self.first, self.sizes = (sizes.cumsum(0) - sizes).to(device), sizes.to(device)  # [S]

    def _points(self, index: Tensor, seed: int, step: Tensor, stream: Stream) -> tuple[Tensor, Tensor]:
        """Points [B, N, 3] and their parts [B, N] of the shapes at index [B] on the device."""
        key = keys(seed, step, stream, index)
        place = self.first[index][:, None] + integers(key, self.sizes[index], self.num_points)
        return self.points[place], self.part[place].long()

    def tested(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Points [B, N, 3] and parts [B, N] of the shapes at index [B], alike in every test."""
        index = index.to(self.device)
        return self._points(index, self.seed, torch.zeros_like(index), Stream.TESTED_POINTS)

    def voted(self, index: Tensor, points: Tensor, vote: int, how: Augmentation) -> Tensor:
        """The tested points [B, N, 3] of the shapes at index [B], augmented for a vote."""
        index = index.to(self.device)
        return replace(how, seed=self.seed)(points, torch.full_like(index, vote), Stream.VOTED_CHANGES, index)

    def draw(self, index: Tensor, step: Tensor, how: Augmentation) -> PartBatch:
        index, step = index.to(self.device), step.to(self.device)
        points, part = self._points(index, how.seed, step, Stream.POINTS)
        return PartBatch(how(points, step, Stream.CHANGES, index), None, None, self.label[index], part=part)
