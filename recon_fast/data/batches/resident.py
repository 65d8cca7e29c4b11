"""The shapes to train on: where they lie, and batches of them that depend on (seed, step, shape) alone.

Whether a shape's points and features lie on the device, in the host's memory or in mapped files, whatever the
other shapes of its batch are and however many processes there are: the same numbers are drawn for it.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recon_fast.data.batches.counter import Stream, keys, permute, uniform
from recon_fast.data.batches.transforms import changed, random_rotation, unit_sphere
from recon_fast.data.shapes import Features, Rows, Shapes, flat, gathered, is_mapped
from recon_fast.errors import InputError

SHARE = 0.5  # of the free memory that the shapes may take; the rest is the model's
_UPLOAD = 4096  # rows copied to a device at once
PLACES = {"device": "on the device", "host": "in the host's memory", "mmap": "mapped from files"}


def needed_bytes(shapes: Shapes, features: Features | None, rows: np.ndarray) -> int:
    """Memory that clouds and teacher features of the shapes at `rows` take."""
    image, text = (None, None) if features is None else (features.image, features.text)
    tables = [(shapes.points, int(np.diff(shapes.offsets)[rows].sum())), (image, len(rows))]
    tables.append((text, 0 if text is None else len(text)))
    return sum(count * t[:1].nbytes for t, count in tables if t is not None)


def free_memory(device: torch.device) -> int:
    """Bytes that this process may still take on a device; of a CPU, its share of what the machine has."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # set by torchrun
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        kib = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
        return 1024 * kib // processes
    except (OSError, StopIteration):
        return 2**63 - 1  # nobody tells


def choose_placement(
    wanted: str, shapes: Shapes, features: Features | None, rows: np.ndarray, device: torch.device
) -> str:
    """What `wanted` stands for: "auto" for the first of "device", "host" and "mmap" that the shapes fit into.

    Raises:
        InputError: "mmap" is wanted, but the shapes do not lie in packed files.
    """
    mapped = is_mapped(shapes.points)
    if wanted == "mmap" and not mapped:
        raise InputError(
            f"data.placement mmap needs a set that `recon-fast pack` wrote, got {shapes.name}, in memory"
        )
    if wanted != "auto":
        return wanted
    needed = needed_bytes(shapes, features, rows)
    if needed <= SHARE * free_memory(device):
        return "device"
    if not mapped:
        return "host"  # where they are
    return "host" if needed <= SHARE * free_memory(torch.device("cpu")) else "mmap"


class DeviceTable:
    """A table in one tensor.

    Args:
        items: [T, D].
        starts: [S]: row i begins with item starts[i].
        sizes: [S].
        device: where the tensor lies; items that are there in memory already are not copied.
    """

    def __init__(self, items: Rows, starts: NDArray, sizes: NDArray, device: torch.device) -> None:
        if isinstance(items, np.ndarray) and not is_mapped(items) and device.type == "cpu":
            self.items = torch.from_numpy(items)
        else:  # what is needed of it, without a second copy in the host's memory
            dtype = torch.from_numpy(np.empty(0, items.dtype)).dtype
            self.items = torch.empty(int(sizes.sum()), items.shape[-1], dtype=dtype, device=device)
            end = 0
            for first in range(0, len(sizes), _UPLOAD):
                part = slice(first, first + _UPLOAD)
                copy = torch.from_numpy(gathered(items, starts[part], sizes[part])[0])
                self.items[end : end + len(copy)] = copy
                end += len(copy)
            starts = np.cumsum(sizes) - sizes
        self.starts = torch.from_numpy(starts).to(device)

    def take(self, row: Tensor, column: Tensor) -> Tensor:
        return self.items[self.starts[row, None] + column]


class HostTable:
    """A table in the host's memory or in mapped files, of which only the pages that are taken get read.

    Args:
        items, starts, sizes: as for `DeviceTable`; used as they are.
        pin: what is taken lies in page-locked memory, from which copies to a GPU do not wait.
    """

    def __init__(self, items: Rows, starts: NDArray, sizes: NDArray, pin: bool) -> None:
        self.items, self.starts, self.sizes, self.pin = items, starts, sizes, pin
        self.dtype = torch.from_numpy(np.empty(0, items.dtype)).dtype

    def take(self, row: Tensor, column: Tensor) -> Tensor:
        taken = torch.empty(*column.shape, self.items.shape[-1], dtype=self.dtype, pin_memory=self.pin)
        for out, i, columns in zip(taken.numpy(), row.tolist(), column.numpy(), strict=True):
            start = int(self.starts[i])
            np.take(self.items[start : start + int(self.sizes[i])], columns, axis=0, out=out, mode="clip")
        return taken


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
class Sampling:
    """How batches are drawn.

    Attributes:
        num_points: points of each cloud, without replacement and in random order.
        rotate: axis of a random rotation, "none" for none.
        scale: each axis is scaled by a factor from 1 / scale to scale.
        jitter: each coordinate is shifted by at most a share of this, which is random for each cloud.
        num_group: groups of a cloud that a mask is drawn for; 0 draws none.
        seed: all numbers are a function of it, the step and the shape.
    """

    num_points: int
    rotate: str = "none"
    scale: float = 1.0
    jitter: float = 0.0
    num_group: int = 0
    seed: int = 0


@dataclass
class StoredBatch:
    """A batch as it was drawn, where the shapes lie; `ResidentShapes.finish` makes a `Batch` of it."""

    points: Tensor  # [B, N, 3] as stored
    image: Tensor | None  # [B, D_image] as stored
    text: Tensor | None  # [B, D_text]
    label: Tensor | None  # [B] int64
    view: Tensor  # [B] int64
    prompt: Tensor  # [B] int64
    noise: Tensor  # [B, 1 + G] float32: the turn, and of each group
    changes: Tensor  # [B] int64: keys of scale and jitter

    def split(self, size: int) -> Iterator["StoredBatch"]:
        """Batches of `size` shapes."""
        parts = [
            [None] * (len(self.view) // size) if x is None else x.split(size) for x in vars(self).values()
        ]
        return (StoredBatch(*part) for part in zip(*parts, strict=True))


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
        self.ahead = self.placement != "device"  # a thread draws
        # On a GPU small kernels cost as much as large ones; on a CPU batches fit into its cache one by one.
        self.together = self.store.type == "cuda"
        self.pin = self.store.type == "cpu" and device.type == "cuda"
        sizes = np.diff(shapes.offsets)[rows]
        self.points = self._table(shapes.points, shapes.offsets[rows], sizes)
        self.sizes = torch.from_numpy(sizes).to(self.store)
        views = prompts = 1
        self.label = None if shapes.labels is None else torch.from_numpy(shapes.labels[rows]).to(self.store)
        self.image = self.text = None
        if features is not None and features.image is not None:
            views = features.image.shape[1]
            self.image = self._features(features.image, rows)
            self.image_map = self._affine(features.image_map)
        if features is not None and features.text is not None and features.caption_index is not None:
            prompts = features.text.shape[1]
            self.text = self._features(features.text, np.arange(len(features.text)))
            self.text_map = self._affine(features.text_map)
            self.caption = torch.from_numpy(features.caption_index[rows]).to(self.store)
        self.columns = torch.tensor([views, prompts], device=self.store)

    def __len__(self) -> int:
        return len(self.sizes)

    def _table(self, items: Rows, starts: np.ndarray, sizes: np.ndarray) -> DeviceTable | HostTable:
        if self.placement == "device":
            return DeviceTable(items, starts, sizes, self.device)
        if self.placement == "host" and is_mapped(items):
            items, starts = gathered(items, starts, sizes)
        return HostTable(items, starts, sizes, self.pin)

    def _features(self, features: Rows, rows: np.ndarray) -> DeviceTable | HostTable:
        """Table of features [S, V, D] at rows, with V items a row."""
        views = features.shape[1]
        return self._table(flat(features), rows * views, np.full(len(rows), views))

    def _affine(self, arrays: tuple[np.ndarray, np.ndarray] | None) -> tuple[Tensor, Tensor] | None:
        if arrays is None:
            return None
        return torch.from_numpy(arrays[0]).to(self.device), torch.from_numpy(arrays[1]).to(self.device)

    def _held(self, x: Tensor | None) -> Tensor | None:
        """In page-locked memory if it will be copied to a GPU."""
        return x if x is None or not self.pin else x.pin_memory()

    def draw(self, index: Tensor, step: Tensor, how: Sampling) -> StoredBatch:
        """Draw for the shapes at index [B] (into `rows`) in steps [B], both int64, where the shapes lie.

        It may run in a thread of its own.
        """
        index, step = index.to(self.store), step.to(self.store)
        key = keys(how.seed, step, Stream.POINTS, index)
        places = torch.arange(how.num_points, device=self.store)
        points = self.points.take(index, permute(places, self.sizes[index], key))
        noise = uniform(keys(how.seed, step, Stream.CHOICES, index), 3 + how.num_group)
        view, prompt = (noise[:, :2] * self.columns).long().unbind(1)
        image = None if self.image is None else self.image.take(index, view[:, None])[:, 0]
        text = None if self.text is None else self.text.take(self.caption[index], prompt[:, None])[:, 0]
        label = None if self.label is None else self.label[index]
        changes = keys(how.seed, step, Stream.CHANGES, index)
        small = [self._held(x) for x in (label, view, prompt, noise[:, 2:], changes)]
        return StoredBatch(points, image, text, *small)  # type: ignore[arg-type]  # the label alone may be None

    def finish(self, drawn: StoredBatch, how: Sampling) -> Batch:
        """Bring what was drawn to the device, centre, scale and turn it; does not wait for the device."""

        def move(x: Tensor) -> Tensor:
            return x.to(self.device, non_blocking=True)

        noise = move(drawn.noise)
        points = unit_sphere(move(drawn.points).float())
        if how.rotate != "none":
            points = random_rotation(points, how.rotate, noise[:, 0])
        if how.scale != 1 or how.jitter:
            points = unit_sphere(changed(points, move(drawn.changes), how.scale, how.jitter))
        image = text = None
        if drawn.image is not None:
            image = move(drawn.image).float()
            if self.image_map is not None:
                image = (image - self.image_map[0][move(drawn.view)]) @ self.image_map[1]
        if drawn.text is not None:
            text, prompt = move(drawn.text).float(), move(drawn.prompt)
            if self.text_map is not None:
                text = (text - self.text_map[0][prompt]).mul_(self.text_map[1][prompt])
        label = None if drawn.label is None else move(drawn.label)
        return Batch(points, image, text, label, noise[:, 1:] if how.num_group else None)

    def batch(self, index: Tensor, step: int, how: Sampling) -> Batch:
        """A batch of the shapes at index [B] (into `rows`) in a step."""
        return self.finish(self.draw(index, torch.full_like(index, step), how), how)
