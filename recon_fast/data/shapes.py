"""What every reader hands on: entries that name files, and shapes loaded into memory.

A `Source` is cheap: it lists which files make up each shape and reads none of the big ones. `load` (in
`recon_fast.data.loading`) turns a source into `Shapes`, or reports every broken file at once. Packed files
and the procedural set give `Shapes` directly.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from recon_fast.data.rows import Rows

Up = Literal["x", "y", "z", "unknown"]
Scale = Literal["unit sphere", "raw", "unknown"]
Split = Literal["train", "val", "trainval", "test"]


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
    cloud: Path  # .npy, .ply, .off, .obj, .txt, or a file of many clouds: .h5, .dat, .pkl
    row: int | None = None  # which cloud of a file of many
    picture: Path | None = None
    caption: str | None = None
    label: int | None = None  # index into Source.class_names
    held_out: bool = False  # kept out of training, used by the probes
    validation: bool = False  # of the training side, listed by the layout for choosing a model
    parts: range | None = None  # parts its points may have; the last column of the .txt says which


@dataclass(frozen=True)
class Problem:
    """A file that cannot be used, and why."""

    key: str
    file: Path
    what: str


@dataclass(frozen=True)
class Conventions:
    """How the clouds of a set lie in space. What nobody stated is "unknown", never guessed."""

    up: Up = "unknown"  # the axis that points up
    scale: Scale = "unknown"  # "unit sphere": centred, the farthest point at distance 1


@dataclass
class Source:
    """A data set before anything heavy is read."""

    name: str
    root: Path
    entries: list[Entry]
    class_names: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)  # found while listing
    up: Up = "unknown"  # the axis that points up, where the layout defines it
    class_parts: list[list[int]] | None = None  # [C]: see `Shapes`
    notes: list[str] = field(default_factory=list)  # what of the files is not used, and why: a line each


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
    validation: NDArray[np.bool_] | None = None  # [S], none of them held out; None without such a list
    parts: NDArray[np.uint8] | None = None  # [T]: the part that each point belongs to
    class_parts: list[list[int]] | None = None  # [C]: the parts that shapes of a class have
    conventions: Conventions = Conventions()
    notes: list[str] = field(
        default_factory=list
    )  # what of the files was changed or is not used, a line each

    def __len__(self) -> int:
        return len(self.keys)

    def rows(self, split: Split) -> NDArray[np.int64]:
        """Indices of the shapes of a split: "test" is what is held out, "trainval" all the rest, which "val"
        and "train" share where the layout has a list for validation.
        """
        validation = np.zeros(len(self), np.bool_) if self.validation is None else self.validation
        masks = {
            "train": ~self.held_out & ~validation,
            "val": validation,
            "trainval": ~self.held_out,
            "test": self.held_out,
        }
        return np.flatnonzero(masks[split])

    def take(self, rows: NDArray[np.int64]) -> "Shapes":
        """The shapes at `rows` in that order, as copies, without pictures and features."""
        spans = [slice(self.offsets[i], self.offsets[i + 1]) for i in rows]
        points, offsets = stack_clouds([self.points[span] for span in spans], self.points.dtype)
        parts = None
        if self.parts is not None:
            parts = np.concatenate([self.parts[:0], *(self.parts[span] for span in spans)])
        return replace(
            self,
            keys=[self.keys[i] for i in rows],
            points=points,
            offsets=offsets,
            held_out=self.held_out[rows],
            labels=None if self.labels is None else self.labels[rows],
            captions=None if self.captions is None else [self.captions[i] for i in rows],
            validation=None if self.validation is None else self.validation[rows],
            parts=parts,
            pictures=None,
            features=None,
        )

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
