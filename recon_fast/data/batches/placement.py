"""Where the shapes of a run lie: on the device, in the host's memory, or in their files."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recon_fast.data.rows import is_mapped
from recon_fast.data.shapes import Features, Shapes
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
