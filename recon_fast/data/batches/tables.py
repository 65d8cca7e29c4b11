"""Rows of points and features wherever they lie: on the device, in the host's memory or in mapped files."""

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recon_fast.data.rows import Rows, gathered, is_mapped

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
