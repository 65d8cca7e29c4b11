"""`recon-fast inspect`: sizes, scales, classes, equal shapes, broken files and the up axis of a data set."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from recon_fast.config import InspectConfig
from recon_fast.console import ProgressBars, say
from recon_fast.data.conventions import Guess, guess_up, radii, voters
from recon_fast.data.loading import DataProblems, load
from recon_fast.data.open import say_notes
from recon_fast.data.shapes import Problem, Shapes, Source, read_bytes, turned
from recon_fast.viz.clouds import open_or_list, spread, thumbnails
from recon_fast.viz.html import page, write_page

_PROCEDURAL_SHAPES = 2400
_MESHES = (".off", ".obj", ".ply", ".stl", ".glb", ".gltf")
_MOST_ROWS = 200  # of a table
_BARS = 12  # of a histogram


@dataclass
class Inspection:
    """A data set, and what was found in it."""

    shapes: Shapes | None  # those that can be used; None where there is none
    name: str
    problems: list[Problem]
    duplicates: list[list[int]] = field(default_factory=list)  # rows of `shapes` that are equal
    up: Guess | None = None
    sizes: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))  # [S], points of each
    radius: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))  # [S]
    offset: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))  # [S], of the mean, in radii

    def across(self) -> list[list[int]]:
        """Groups of equal shapes of which some are held out and some are trained on."""
        if self.shapes is None:
            return []
        held = self.shapes.held_out
        return [group for group in self.duplicates if held[group].any() and not held[group].all()]


def inspect(name: str, config: InspectConfig, console: Console) -> Path:
    """Look at a data set and write its page; returns the page's path.

    Raises:
        InputError: there is no such data set, or the page cannot be written.
    """
    with ProgressBars(console) as bars:
        found = inspect_data(name, config.kind, config.array, config.workers, bars.bar("reading shapes"))
    written = write_page(config.out, data_page(found, config.thumbnails))
    shapes = 0 if found.shapes is None else len(found.shapes)
    broken = len({problem.key for problem in found.problems})
    copies = sum(len(group) - 1 for group in found.duplicates)
    if found.shapes is not None:
        say_notes(found.shapes, console)
    say(console, f"{found.name}: {shapes} shapes, {broken} cannot be used, {copies} equal to another")
    return written


def inspect_data(
    name: str,
    kind: str = "auto",
    array: str | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Inspection:
    """Read a data set whole, no cloud cut, and look at it.

    Args:
        name: as `--data.path` of pretrain, or "procedural".
        kind: how to read a folder.
        array: name of the array of clouds in files of arrays; None takes the one that is found.
        workers: threads; None takes one per core.
        progress: gets (done, total) shapes while files are read.

    Raises:
        InputError: there is no such data set.
    """
    shapes = open_or_list(name, kind, _PROCEDURAL_SHAPES, seed=0, array=array)
    source: Source | None = None
    problems: list[Problem] = []
    if isinstance(shapes, Source):
        source = shapes
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
    sizes = np.diff(shapes.offsets)
    radius = radii(cast(NDArray, shapes.points), sizes)  # what is mapped slices alike
    means = [np.linalg.norm(np.mean(shapes.cloud(i), 0, dtype=np.float64)) for i in range(len(shapes))]
    offset = np.array(means) / np.maximum(radius, 1e-12)
    equal = duplicates(shapes, source)
    guess = guess_up(shapes.cloud(int(i)) for i in voters(len(shapes)))
    return Inspection(shapes, shapes.name, problems, equal, guess, sizes, radius, offset)


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
        content = read_bytes(meshes[key]) if key in meshes else shapes.cloud(i).tobytes()
        groups.setdefault(blake2b(content, digest_size=16).digest(), []).append(i)
    return [group for group in groups.values() if len(group) > 1]


def class_counts(shapes: Shapes) -> list[tuple[str, int, int]]:
    """(class, shapes to train on, shapes held out), the largest first; empty without labels."""
    if shapes.labels is None:
        return []
    names, held = shapes.class_names, shapes.held_out
    train, test = (np.bincount(shapes.labels[held == side], minlength=len(names)) for side in (False, True))
    rows = zip(names, train.tolist(), test.tolist(), strict=True)
    return sorted(rows, key=lambda row: -(row[1] + row[2]))


def data_page(found: Inspection, most: int = 240) -> str:
    """The HTML of an inspection, with at most `most` thumbnails."""
    shapes = found.shapes
    data: dict[str, Any] = {}
    if shapes is not None and most:
        rows = spread(np.arange(len(shapes)), most)
        up = shapes.conventions.up
        if up == "unknown" and found.up is not None and found.up.sure:
            up = found.up.axis
        clouds = [np.asarray(shapes.cloud(int(i))) for i in rows]
        if up in ("x", "z"):
            clouds = [turned(cloud, "xyz".index(up), 1) for cloud in clouds]
        labels = None if shapes.labels is None else shapes.labels[rows]
        data = {
            "names": [shapes.keys[i] for i in rows],
            "captions": None if shapes.captions is None else [shapes.captions[i] for i in rows],
            "classes": None if labels is None else [shapes.class_names[label] for label in labels],
            "thumbnails": thumbnails(clouds),
        }
    return page(
        "data.html",
        f"Data: {found.name}",
        data=data,
        scripts=["thumbs.js", "data.js"],
        most=_MOST_ROWS,
        shares=_shares,
        shapes=shapes,
        warnings=_warnings(found),
        problems=[(problem.key, problem.file, problem.what) for problem in found.problems],
        overview=[] if shapes is None else _overview(found, shapes),
        duplicates=[] if shapes is None else _duplicates(found, shapes),
        classes=[] if shapes is None else class_counts(shapes),
        sizes=histogram(found.sizes),
        radius=histogram(found.radius),
    )


def _warnings(found: Inspection) -> list[str]:
    """What to look at before training."""
    notes = []
    if found.problems:
        notes.append(f"{len({p.key for p in found.problems})} shapes cannot be used, see below.")
    if across := found.across():
        notes.append(f"{len(across)} groups of equal shapes lie on both sides of the split, see below.")
    if found.shapes is None:
        return notes
    notes += [f"{note[:1].upper()}{note[1:]}." for note in found.shapes.notes]
    stated = found.shapes.conventions.up
    guess = found.up
    if guess is not None and guess.sure and stated not in ("unknown", guess.axis):
        notes.append(f"{stated} is stated to be up, {guess}.")
    if stated == "unknown" and not (guess is not None and guess.sure):
        notes.append("Which axis is up is not known; training and checkpoints want to know it: --data.up.")
    return notes


def _range(values: NDArray[Any]) -> str:
    return f"{values.min():.6g} to {values.max():.6g}, median {np.median(values):.6g}"


def _overview(found: Inspection, shapes: Shapes) -> list[tuple[str, Any]]:
    train, val, test = (len(shapes.rows(split)) for split in ("train", "val", "test"))
    guess = "none"
    if found.up is not None:
        votes = ", ".join(f"{axis} {count}" for axis, count in zip("xyz", found.up.votes, strict=True))
        sure = "" if found.up.sure else ", too few agree for a guess"
        guess = (
            f"{found.up}{sure}; each votes for the axis along which it is least like its mirror image: "
            f"{votes}. This is a guess, --data.up states it"
        )
    middle, most = 100 * np.median(found.offset), 100 * found.offset.max()
    return [
        ("shapes", f"{len(shapes)}: {train} to train on, {val} for validation, {test} held out"),
        ("points of a shape", _range(found.sizes)),
        ("radius", f"{_range(found.radius)} ({shapes.conventions.scale})"),
        ("centre", f"off the origin by {middle:.1f} % of the radius (median), at most {most:.0f} %"),
        ("up axis, stated", shapes.conventions.up),
        ("up axis, guessed", guess),
        ("classes", len(shapes.class_names) if shapes.labels is not None else "no labels"),
        ("captions", "none" if shapes.captions is None else f"{len(set(shapes.captions))} different"),
        ("pictures", "none" if shapes.pictures is None else "of every shape"),
        ("parts", "none" if shapes.parts is None else "of every point"),
    ]


def histogram(values: NDArray[Any]) -> list[tuple[str, int]]:
    """At most 12 ranges of values with their counts; single values where there are few."""
    single, counts = np.unique(values, return_counts=True)
    if len(single) <= _BARS:
        names = [f"{value:.6g}" for value in single]
    else:
        edges = np.histogram_bin_edges(values, _BARS)
        if single[0] > 0 and single[-1] > 100 * single[0]:
            edges = np.geomspace(single[0], single[-1], _BARS + 1)
        edges[0], edges[-1] = single[0], single[-1]
        counts = np.histogram(values, edges)[0]
        names = [f"{low:.4g} to {high:.4g}" for low, high in pairwise(edges)]
    return list(zip(names, counts.tolist(), strict=True))


def _shares(rows: Sequence[tuple[Any, ...]]) -> list[float]:
    """Of each row of a name and counts, its sum over the largest one."""
    sums = [sum(counts) for _, *counts in rows]
    return [count / (max(sums) or 1) for count in sums]


def _duplicates(found: Inspection, shapes: Shapes) -> list[tuple[int, str, str]]:
    rows = []
    for group in found.duplicates:
        held = shapes.held_out[group]
        side = "held out" if held.all() else "both sides of the split" if held.any() else "to train on"
        names = ", ".join(shapes.keys[i] for i in group[:8])
        more = f" and {len(group) - 8} more" if len(group) > 8 else ""
        rows.append((len(group), side, names + more))
    return rows
