"""The shapes to train on, and batches of them that depend on (seed, step, shape) alone.

Whether a shape's points and features lie on the device, in the host's memory or in mapped files, whatever the
other shapes of its batch are and however many processes there are: the same numbers are drawn for it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recon_fast.data.batches.counter import Stream, keys, permute, uniform
from recon_fast.data.batches.placement import DeviceTable, HostTable, Table
from recon_fast.data.batches.transforms import random_rotation, unit_sphere
from recon_fast.data.shapes import Features, Rows, Shapes, flat, gathered, is_mapped


@dataclass
class Batch:
    """What one pass of the model takes."""

    points: Tensor  # [B, N, 3] float32
    image_feature: Tensor | None  # [B, D_image] float32
    text_feature: Tensor | None  # [B, D_text] float32
    label: Tensor | None  # [B] int64
    mask_noise: Tensor | None = None  # [B, G] float32 in [0, 1)

    @property
    def inputs(self) -> tuple[Tensor | None, ...]:
        """The arguments of `PretrainModel.forward`; the mask is drawn from the noise."""
        return self.points, self.image_feature, self.text_feature, self.label, None, self.mask_noise


@dataclass(frozen=True)
class Draw:
    """How batches are drawn.

    Attributes:
        num_points: points of each cloud, without replacement and in random order.
        rotate: axis of a random rotation, "none" for none.
        num_group: groups of a cloud that a mask is drawn for; 0 draws none.
        seed: all numbers are a function of it, the step and the shape.
    """

    num_points: int
    rotate: str = "none"
    num_group: int = 0
    seed: int = 0


@dataclass
class Drawn:
    """A batch as it was drawn, where the shapes lie; `ResidentShapes.finish` makes a `Batch` of it."""

    points: Tensor  # [B, N, 3] as stored
    image: Tensor | None  # [B, D_image] as stored
    text: Tensor | None  # [B, D_text]
    label: Tensor | None  # [B] int64
    view: Tensor  # [B] int64
    prompt: Tensor  # [B] int64
    noise: Tensor  # [B, 1 + G] float32: the turn, and of each group

    def split(self, size: int) -> Iterator["Drawn"]:
        """Batches of `size` shapes."""
        parts = [
            [None] * (len(self.view) // size) if x is None else x.split(size) for x in vars(self).values()
        ]
        return (Drawn(*part) for part in zip(*parts, strict=True))


class ResidentShapes:
    """Points, labels and teacher features of the shapes at `rows`, drawn in batches.

    Args:
        shapes: all shapes.
        features: of all shapes.
        rows: which of them, [S].
        device: where batches go.
        placement: "device"; "host", in the host's memory; or "mmap", where the shapes are now, such as mapped
            files. On a CPU "host" is "device".
    """

    def __init__(
        self,
        shapes: Shapes,
        features: Features | None,
        rows: np.ndarray,
        device: torch.device,
        placement: str = "device",
    ) -> None:
        self.device = device
        self.placement = "device" if placement == "host" and device.type == "cpu" else placement
        self.store = device if self.placement == "device" else torch.device("cpu")  # draws happen here
        self.pin = self.store.type == "cpu" and device.type == "cuda"
        sizes = np.diff(shapes.offsets)[rows]
        self.points = self._table(shapes.points, shapes.offsets[rows], sizes)
        largest = int(sizes.max())
        self.sizes: Tensor | int = largest  # [S], or of each
        if (sizes != largest).any():
            self.sizes = torch.from_numpy(sizes).to(self.store)
        self.count = len(rows)
        views = prompts = 1
        self.label = None if shapes.labels is None else torch.from_numpy(shapes.labels[rows]).to(self.store)
        self.image = self.text = None
        if features is not None and features.image is not None:
            views = features.image.shape[1]
            self.image = self._features(features.image, rows)
            self.image_map = _on(device, features.image_map)
        if features is not None and features.text is not None and features.caption_index is not None:
            prompts = features.text.shape[1]
            self.text = self._features(features.text, np.arange(len(features.text)))
            self.text_map = _on(device, features.text_map)
            self.caption = torch.from_numpy(features.caption_index[rows]).to(self.store)
        self.columns = torch.tensor([views, prompts], device=self.store)

    def __len__(self) -> int:
        return self.count

    def _table(self, items: Rows, starts: np.ndarray, sizes: np.ndarray) -> Table:
        if self.placement == "device":
            return DeviceTable(items, starts, sizes, self.device)
        if self.placement == "host" and is_mapped(items):
            items, starts = gathered(items, starts, sizes)
        return HostTable(items, starts, sizes, self.pin)

    def _features(self, features: Rows, rows: np.ndarray) -> Table:
        """Table of features [S, V, D] at rows, with V items a row."""
        views = features.shape[1]
        return self._table(flat(features), rows * views, np.full(len(rows), views))

    def _held(self, x: Tensor | None) -> Tensor | None:
        """In page-locked memory if it will be copied to a GPU."""
        return x if x is None or not self.pin else x.pin_memory()

    def draw(self, index: Tensor, step: Tensor, how: Draw) -> Drawn:
        """Draw for the shapes at index [B] (into `rows`) in steps [B], both int64, where the shapes lie.

        It may run in a thread of its own.
        """
        index, step = index.to(self.store), step.to(self.store)
        key = keys(how.seed, step, Stream.POINTS, index)
        places = torch.arange(how.num_points, device=self.store)
        sizes = self.sizes if isinstance(self.sizes, int) else self.sizes[index]
        points = self.points.take(index, permute(places, sizes, key))
        noise = uniform(keys(how.seed, step, Stream.CHOICES, index), 3 + how.num_group)
        view, prompt = (noise[:, :2] * self.columns).long().unbind(1)
        image = None if self.image is None else self.image.take(index, view[:, None])[:, 0]
        text = None if self.text is None else self.text.take(self.caption[index], prompt[:, None])[:, 0]
        label = None if self.label is None else self.label[index]
        small = [self._held(x) for x in (label, view, prompt, noise[:, 2:])]
        return Drawn(points, image, text, *small)  # type: ignore[arg-type]

    def finish(self, drawn: Drawn, how: Draw) -> Batch:
        """Bring what was drawn to the device, centre, scale and turn it; does not wait for the device."""

        def move(x: Tensor) -> Tensor:
            return x.to(self.device, non_blocking=True)

        noise = move(drawn.noise)
        points = unit_sphere(move(drawn.points).float())
        if how.rotate != "none":
            points = random_rotation(points, how.rotate, noise[:, 0])
        image = text = None
        if drawn.image is not None:
            image = _mapped(move(drawn.image), self.image_map, move(drawn.view))
        if drawn.text is not None:
            text = _mapped(move(drawn.text), self.text_map, move(drawn.prompt))
        label = None if drawn.label is None else move(drawn.label)
        return Batch(points, image, text, label, noise[:, 1:] if how.num_group else None)

    def batch(self, index: Tensor, step: int, how: Draw) -> Batch:
        """A batch of the shapes at index [B] (into `rows`) in a step."""
        return self.finish(self.draw(index, torch.full_like(index, step), how), how)


Map = tuple[Tensor, Tensor] | None


def _on(device: torch.device, arrays: tuple[np.ndarray, np.ndarray] | None) -> Map:
    if arrays is None:
        return None
    return torch.from_numpy(arrays[0]).to(device), torch.from_numpy(arrays[1]).to(device)


def _mapped(feature: Tensor, affine: Map, view: Tensor) -> Tensor:
    """Features [B, D] of views [B] in float32, less the views' mean and times their scale."""
    feature = feature.float()
    return feature if affine is None else (feature - affine[0][view]).mul_(affine[1][view])
