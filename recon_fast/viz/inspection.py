"""What a data set holds: sizes, scales, classes, equal shapes, broken files, and which axis looks up."""

import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from recon_fast.data.conventions import radii
from recon_fast.data.loading import DataProblems, load
from recon_fast.data.open import open_source
from recon_fast.data.packed import open_packed
from recon_fast.data.shapes import Problem, Shapes, Source
from recon_fast.errors import InputError
from recon_fast.viz.clouds import PROCEDURAL, spread

_PROCEDURAL_SHAPES = 2400
_MESHES = (".off", ".obj", ".ply")
_BINS = 16
_VOTERS = 300  # shapes that are asked which axis looks up
_CLEAR = 0.5  # share of the votes from which a guess is made


@dataclass
class Inspection:
    """A data set, and what was found in it."""

    shapes: Shapes | None  # those that can be used; None where there is none
    name: str
    problems: list[Problem]
    duplicates: list[list[int]] = field(default_factory=list)  # rows of `shapes` that are equal
    up: str | None = None  # "x", "y" or "z", a guess; None where the shapes do not agree
    up_votes: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))  # share of the shapes, x y z
    radius: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))  # [S]
    offset: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))  # [S], of the mean, in radii

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Points of each shape [S]."""
        return np.zeros(0, np.int64) if self.shapes is None else np.diff(self.shapes.offsets)

    def across(self) -> list[list[int]]:
        """Groups of equal shapes of which some are held out and some are trained on."""
        if self.shapes is None:
            return []
        held = self.shapes.held_out
        return [group for group in self.duplicates if len({bool(held[i]) for i in group}) > 1]


def inspect_data(
    name: str,
    kind: str = "auto",
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Inspection:
    """Read a data set whole, no cloud cut, and look at it.

    Args:
        name: as `--data.path` of pretrain, or "procedural".
        kind: how to read a folder.
        workers: threads; None takes one per core.
        progress: gets (done, total) shapes while files are read.

    Raises:
        InputError: there is no such data set.
    """
    path = Path(name).expanduser()
    source: Source | None = None
    problems: list[Problem] = []
    if name == PROCEDURAL:
        from recon_fast.procedural import procedural_shapes

        shapes = procedural_shapes(_PROCEDURAL_SHAPES, pictures=False)
    elif (packed := open_packed(path)) is not None:
        shapes = packed
    else:
        source = open_source(path, kind)
        try:
            shapes, problems = load(
                source,
                num_points=1,
                max_points=sys.maxsize,
                on_problem="skip",
                workers=workers,
                progress=progress,
            )
        except DataProblems as error:
            return Inspection(None, source.name, error.problems)
    found = Inspection(shapes, shapes.name, problems, duplicates(shapes, source))
    found.up, found.up_votes = guess_up(shapes)
    found.radius = radii(cast(NDArray, shapes.points), found.sizes)  # what is mapped slices alike
    means = [np.linalg.norm(np.mean(shapes.cloud(i), 0, dtype=np.float64)) for i in range(len(shapes))]
    found.offset = np.array(means) / np.maximum(found.radius, 1e-12)
    return found


def duplicates(shapes: Shapes, source: Source | None = None) -> list[list[int]]:
    """Rows of shapes that are equal to the bit: equal mesh files, or else equal points in one order.

    Meshes are compared as files, because the points on them are drawn for each shape by its name.
    """
    meshes = {
        entry.key: entry.cloud
        for entry in (source.entries if source is not None else [])
        if entry.row is None and entry.cloud.suffix.lower() in _MESHES
    }
    groups: dict[bytes, list[int]] = {}
    for i, key in enumerate(shapes.keys):
        try:
            content = (
                meshes[key].read_bytes() if key in meshes else np.ascontiguousarray(shapes.cloud(i)).tobytes()
            )
        except OSError as error:
            raise InputError(f"{meshes[key]} cannot be read: {error.strerror or error}") from error
        groups.setdefault(blake2b(content, digest_size=16).digest(), []).append(i)
    return [group for group in groups.values() if len(group) > 1]


def asymmetry(cloud: NDArray[np.floating]) -> NDArray[np.float64]:
    """How unlike its mirror image a cloud [N, 3] is along x, y and z, from 0 to 1: the share of its points
    that lie in other sixteenths of its extent when that axis is turned round.
    """
    found = np.zeros(3)
    for axis in range(3):
        x = np.asarray(cloud[:, axis], np.float64)
        low, high = x.min(), x.max()
        if high > low:
            counts = np.histogram(x, _BINS, (low, high))[0] / len(x)
            found[axis] = 0.5 * np.abs(counts - counts[::-1]).sum()
    return found


def guess_up(shapes: Shapes) -> tuple[str | None, NDArray[np.float64]]:
    """The axis along which most shapes are least symmetric, and the share of the shapes for x, y and z.

    Things that stand are alike left and right and often front and back, but not above and below.
    """
    rows = spread(np.arange(len(shapes)), _VOTERS)
    votes = np.bincount([asymmetry(shapes.cloud(int(i))).argmax() for i in rows], minlength=3) / len(rows)
    return ("xyz"[votes.argmax()] if votes.max() >= _CLEAR else None), votes


def class_counts(shapes: Shapes) -> list[tuple[str, int, int]]:
    """(class, shapes to train on, shapes held out), the largest first; empty without labels."""
    if shapes.labels is None:
        return []
    train = Counter(shapes.labels[~shapes.held_out].tolist())
    test = Counter(shapes.labels[shapes.held_out].tolist())
    rows = [(name, train[i], test[i]) for i, name in enumerate(shapes.class_names)]
    return sorted(rows, key=lambda row: -(row[1] + row[2]))
