"""Where the shapes of a run lie (the device, the host's memory, mapped files), and how rows are taken."""

import os
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recon_fast.data.shapes import Features, Rows, Shapes, gathered, is_mapped
from recon_fast.errors import InputError

SHARE = 0.5  # of the free memory that the shapes may take; the rest is the model's
_NAMES = {"device": "on the device", "host": "in the host's memory", "mmap": "mapped from files"}


def needed_bytes(shapes: Shapes, features: Features | None, rows: np.ndarray) -> int:
    """Memory that clouds and teacher features of the shapes at `rows` take."""
    total = int(np.diff(shapes.offsets)[rows].sum()) * 3 * shapes.points.dtype.itemsize
    if features is not None and features.image is not None:
        total += len(rows) * int(np.prod(features.image.shape[1:])) * features.image.dtype.itemsize
    if features is not None and features.text is not None:
        total += int(np.prod(features.text.shape)) * features.text.dtype.itemsize
    return total


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


def describe_placement(
    placement: str, shapes: Shapes, features: Features | None, rows: np.ndarray
) -> tuple[dict[str, Any], str]:
    """What was chosen, for run.json and for people."""
    needed, dtype = needed_bytes(shapes, features, rows), str(shapes.points.dtype)
    said = f"{dtype} clouds, {needed / 1e6:.1f} MB {_NAMES[placement]}"
    return {"placement": placement, "storage": dtype, "bytes": needed}, said


_UPLOAD = 4096  # rows copied to a device at once


class Table(Protocol):
    """Rows of different lengths, each of items [D]."""

    def take(self, row: Tensor, column: Tensor) -> Tensor:
        """Items at row [B] and columns [B, n], int64 both -> [B, n, D] in the table's dtype."""
        ...


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
