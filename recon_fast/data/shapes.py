"""What every reader hands on: entries that name files, and shapes loaded into memory.

A `Source` is cheap: it lists which files make up each shape and reads none of the big ones. `load` (in
`recon_fast.data.loading`) turns a source into `Shapes`, or reports every broken file at once. Packed files
and the procedural set give `Shapes` directly. Rows of a set may lie in several files (`Joined`), to be read
when they are touched.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from recon_fast.data.archives import BROKEN, open_binary
from recon_fast.errors import InputError
from recon_fast.schema import instead

Up = Literal["x", "y", "z", "unknown"]
Scale = Literal["unit sphere", "raw", "unknown"]
Split = Literal["train", "val", "trainval", "test"]


class Joined:
    """Arrays [n_i, ...] one after another as if they were one, without a copy.

    Args:
        parts: at least one; alike in dtype and in all dimensions but the first.
        turn: columns (a, b) of points that become (-b, a) when rows are read; see `turned`.
    """

    def __init__(self, parts: "Sequence[NDArray | Joined]", turn: tuple[int, int] | None = None) -> None:
        self.parts, self.turn = list(parts), turn
        self.ends: list[int] = np.cumsum([len(part) for part in parts]).tolist()
        self.dtype: np.dtype[Any] = parts[0].dtype
        self.shape: tuple[int, ...] = (self.ends[-1], *parts[0].shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> NDArray:
        """Rows [start, stop) with step 1: a view where they lie in one part as they are, else a copy."""
        start, stop, _ = rows.indices(len(self))
        found = []
        at = bisect_right(self.ends, start)
        while start < stop:
            first = self.ends[at] - len(self.parts[at])
            end = min(stop, self.ends[at])
            found.append(self.parts[at][start - first : end - first])
            start, at = end, at + 1
        if not found:
            return self.parts[0][:0]
        block = found[0] if len(found) == 1 else np.concatenate(found)
        return block if self.turn is None else turned(block, *self.turn)

    def flat(self) -> "Joined":
        """The last dimension kept, all others made one."""
        return Joined([flat(part) for part in self.parts], self.turn)


def turned(points: NDArray, a: int, b: int) -> NDArray:
    """A copy of points [N, 3] turned by 90 degrees so that axis `a` points where `b` did."""
    copy = points.copy()
    copy[:, b] = points[:, a]
    copy[:, a] = -points[:, b]
    return copy


Rows = NDArray[Any] | Joined  # np.memmap is an NDArray


def flat(rows: Rows) -> Rows:
    """[..., D] as [T, D]."""
    return rows.flat() if isinstance(rows, Joined) else rows.reshape(-1, rows.shape[-1])


def is_mapped(rows: Rows) -> bool:
    """Whether rows lie in files, to be read when they are touched."""
    return isinstance(rows, Joined | np.memmap)


def blocks(rows: Rows, size: int = 4096) -> Iterator[NDArray]:
    """All rows in order, at most `size` at a time."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def gathered(items: Rows, starts: NDArray, sizes: NDArray) -> tuple[NDArray, NDArray]:
    """The rows' items alone, in memory one row after another, and where each row starts."""
    ends = np.cumsum(sizes)
    copy = np.empty((int(ends[-1]) if len(ends) else 0, items.shape[-1]), items.dtype)
    for start, size, end in zip(starts.tolist(), sizes.tolist(), ends.tolist(), strict=True):
        copy[end - size : end] = items[start : start + size]
    return copy, ends - sizes


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
    cloud: Path  # a file of one cloud or of many; a path into a .zip goes on behind the archive's name
    row: int | None = None  # which cloud of a file of many
    array: str | None = None  # the array of it that holds the clouds; None takes the one that is found
    picture: Path | None = None
    caption: str | None = None
    label: int | None = None  # index into Source.class_names
    held_out: bool = False  # kept out of training, used by the probes
    validation: bool = False  # of the training side, listed by the layout for choosing a model
    parts: range | None = None  # parts its points may have; the last column of a .txt, or `pid`, says which


class BadFile(InputError):
    """A file that cannot be used.

    Attributes:
        file: which one.
        what: what was wanted and what came, without the file's name.
    """

    def __init__(self, file: Path, what: str) -> None:
        what = " ".join(what.split()) + instead(file)
        super().__init__(f"{file}: {what}")
        self.file = file
        self.what = what


def read_bytes(path: Path) -> bytes:
    """The bytes of a file, which may lie in a .zip, or BadFile."""
    try:
        with open_binary(path) as file:
            return file.read()
    except (OSError, *BROKEN) as error:
        raise BadFile(path, f"cannot be read: {getattr(error, 'strerror', None) or error}") from error


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
    teacher: dict[str, Any]  # models, weights and seeds; JSON-able, goes into log and checkpoint
    # What training does to them, float32: less the mean [V, D], times the matrix [D, D] or the scale [V, D].
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
    notes: list[str] = field(default_factory=list)  # what of the files was changed or is not used

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """A shape as a dict: `points` float32 [N, 3]; `label` and `caption` where all shapes have them."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"index must be below {len(self)}, got {index}")
        index %= len(self)
        item: dict[str, Any] = {"points": np.array(self.cloud(index), np.float32)}
        if self.labels is not None:
            item["label"] = int(self.labels[index])
        if self.captions is not None:
            item["caption"] = self.captions[index]
        return item

    def rows(self, split: Split) -> NDArray[np.int64]:
        """Indices of the shapes of a split: "test" is what is held out, "trainval" all the rest, which "val"
        and "train" share where the layout has a list for validation.
        """
        validation = np.zeros(len(self), np.bool_) if self.validation is None else self.validation
        train = ~self.held_out
        masks = {"train": train & ~validation, "val": validation, "trainval": train, "test": self.held_out}
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
        return blake2b(np.ascontiguousarray(self.array[index]).tobytes(), digest_size=16).digest()


class JoinedPictures:
    """Pictures of several sets, one set after another."""

    def __init__(self, parts: Sequence[Pictures]) -> None:
        self.parts = list(parts)
        self.ends = list(accumulate(len(part) for part in parts))

    def __len__(self) -> int:
        return self.ends[-1]

    def _find(self, index: int) -> tuple[Pictures, int]:
        part = bisect_right(self.ends, index)
        return self.parts[part], index - (self.ends[part] - len(self.parts[part]))

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        part, i = self._find(index)
        return part[i]

    def digest(self, index: int) -> bytes:
        part, i = self._find(index)
        return part.digest(i)


def stack_clouds(
    clouds: Sequence[NDArray[np.floating]], dtype: Any = np.float32
) -> tuple[NDArray, NDArray[np.int64]]:
    """Concatenate clouds [N_i, 3] into (points [T, 3], offsets [S + 1])."""
    offsets = np.zeros(len(clouds) + 1, np.int64)
    np.cumsum([len(c) for c in clouds], out=offsets[1:])
    points = np.concatenate([np.asarray(c, dtype) for c in clouds]) if clouds else np.empty((0, 3), dtype)
    return points, offsets


def _each(items: Sequence[Any], name: str, join: Callable[[list[Any]], Any]) -> Any:
    """What all items have under a name, joined; None where they do not have it."""
    found = [getattr(item, name) for item in items]
    return None if any(one is None for one in found) else join(found)


def join_shapes(sets: list[Shapes], name: str, notes: list[str], checksum: str | None = None) -> Shapes:
    """One set of several that have the same things each; nothing that is mapped is read."""
    starts = np.cumsum([0] + [int(shapes.offsets[-1]) for shapes in sets])
    offsets = [shapes.offsets[:-1] + start for shapes, start in zip(sets, starts, strict=False)]
    validation = np.concatenate(  # a shard without such shapes leaves it out
        [np.zeros(len(one), np.bool_) if one.validation is None else one.validation for one in sets]
    )
    scales = {shapes.conventions.scale for shapes in sets}
    return Shapes(
        name=name,
        keys=[key for shapes in sets for key in shapes.keys],
        points=Joined([shapes.points for shapes in sets]),
        offsets=np.concatenate([*offsets, starts[-1:]]),
        held_out=np.concatenate([shapes.held_out for shapes in sets]),
        labels=_each(sets, "labels", np.concatenate),
        class_names=sets[0].class_names,
        captions=_each(sets, "captions", lambda lists: [text for texts in lists for text in texts]),
        pictures=_each(sets, "pictures", JoinedPictures),
        validation=validation if validation.any() else None,
        parts=_each(sets, "parts", np.concatenate),
        class_parts=sets[0].class_parts,
        conventions=Conventions(sets[0].conventions.up, scales.pop() if len(scales) == 1 else "raw"),
        features=_each(sets, "features", _join_features),
        checksum=checksum,
        notes=notes,
    )


def _join_features(parts: list[Features]) -> Features:
    def joined_index(index: list[NDArray[np.int64]]) -> NDArray[np.int64]:
        rows = np.cumsum([0] + [len(part.text) for part in parts if part.text is not None])
        return np.concatenate([one + start for one, start in zip(index, rows, strict=False)])

    return Features(
        image=_each(parts, "image", Joined),
        text=_each(parts, "text", Joined),
        caption_index=_each(parts, "caption_index", joined_index),
        class_text=parts[0].class_text,
        teacher=parts[0].teacher,
    )
