"""What every reader hands on: entries that name files, and shapes loaded into memory.

A `Source` is cheap: it lists which files make up each shape and reads none of the big ones. `load` (in
`recon_fast.data.loading`) turns a source into `Shapes`, or reports every broken file at once. Packed files
and the procedural set give `Shapes` directly.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from recon_fast.data.rows import Rows


class Pictures(Protocol):
    """One RGB picture per shape, read on demand."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """Picture of shape `index`: uint8 [H, W, 3], RGB."""
        ...

    def digest(self, index: int) -> bytes:
        """16 bytes that change whenever the picture's content does."""
        ...


@dataclass(frozen=True)
class Entry:
    """One shape as files on disk."""

    key: str  # unique within the source
    cloud: Path  # .npy, .ply, .off, .obj or .h5
    row: int | None = None  # row of the file's `data` array, for .h5
    picture: Path | None = None
    caption: str | None = None
    label: int | None = None  # index into Source.class_names
    held_out: bool = False  # kept out of training, used by the probes


@dataclass(frozen=True)
class Problem:
    """A file that cannot be used, and why."""

    key: str
    file: Path
    what: str


@dataclass
class Source:
    """A data set before anything heavy is read."""

    name: str
    root: Path
    entries: list[Entry]
    class_names: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)  # found while listing


@dataclass
class Features:
    """Frozen teachers' view of a set of shapes; see `recon_fast.teachers`."""

    image: Rows | None  # [S, V, D_image]: V augmented views of each picture
    text: Rows | None  # [U, P, D_text]: P prompts of each distinct caption
    caption_index: NDArray[np.int64] | None  # [S]: row of `text` that belongs to the shape
    class_text: NDArray[np.floating] | None  # [C, D_text]: mean over the prompts of each class name
    teacher: dict[
        str, Any
    ]  # which models, which weights, which seeds; JSON-able, goes into log and checkpoint
    # What training does to them: less the mean [V, D], times the scale [V, D]; float32.
    image_map: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None
    text_map: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None


@dataclass
class Shapes:
    """S shapes, clouds one after another because their sizes may differ; in memory, or mapped from files."""

    name: str
    keys: list[str]  # [S]
    points: Rows  # [T, 3] float32 or float16, finite, x y z
    offsets: NDArray[np.int64]  # [S + 1]: shape i is points[offsets[i]:offsets[i + 1]]
    held_out: NDArray[np.bool_]  # [S]
    labels: NDArray[np.int64] | None = None  # [S] into class_names
    class_names: list[str] = field(default_factory=list)
    captions: list[str] | None = None  # [S]
    pictures: Pictures | None = None  # [S]
    features: Features | None = None  # already computed, for packed files
    checksum: str | None = None  # of all clouds, for packed files

    def __len__(self) -> int:
        return len(self.keys)

    def cloud(self, index: int) -> NDArray[np.floating]:
        """Points [N, 3] of shape `index`, a view."""
        return self.points[self.offsets[index] : self.offsets[index + 1]]


class ArrayPictures:
    """Pictures held in memory as one uint8 array [S, H, W, 3], RGB."""

    def __init__(self, array: NDArray[np.uint8]) -> None:
        self.array = array

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        return self.array[index]

    def digest(self, index: int) -> bytes:
        from hashlib import blake2b

        return blake2b(np.ascontiguousarray(self.array[index]).tobytes(), digest_size=16).digest()


def stack_clouds(
    clouds: Sequence[NDArray[np.floating]], dtype: Any = np.float32
) -> tuple[NDArray, NDArray[np.int64]]:
    """Concatenate clouds [N_i, 3] into (points [T, 3], offsets [S + 1])."""
    offsets = np.zeros(len(clouds) + 1, np.int64)
    np.cumsum([len(c) for c in clouds], out=offsets[1:])
    points = np.concatenate([np.asarray(c, dtype) for c in clouds]) if clouds else np.empty((0, 3), dtype)
    return points, offsets
