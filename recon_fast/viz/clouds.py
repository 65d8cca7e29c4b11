"""The clouds that a command line names: files, data sets, or the procedural set."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon_fast.config import StatedUp
from recon_fast.data.conventions import turn_up
from recon_fast.data.loading import load
from recon_fast.data.open import open_dataset, stated_or_guessed
from recon_fast.data.readers.clouds import FILES, SURFACE_POINTS, is_one_cloud, read_cloud
from recon_fast.data.shapes import Shapes, Source
from recon_fast.errors import InputError
from recon_fast.procedural import FAMILIES, procedural_shapes
from recon_fast.viz.html import packed

PROCEDURAL = "procedural"
_PROCEDURAL_SEED = 1  # training's default is 0: these are other shapes of the same families
_THUMBNAIL_POINTS = 300


@dataclass(frozen=True)
class Picked:
    """A cloud to look at."""

    name: str
    points: NDArray[np.floating]  # [N, 3]
    caption: str | None = None
    label: str | None = None


def spread(rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """At most `count` of the rows, evenly spaced."""
    if len(rows) <= count:
        return rows
    return rows[np.linspace(0, len(rows) - 1, count).round().astype(np.int64)]


def thumbnails(clouds: list[NDArray[np.floating]]) -> dict[str, Any]:
    """Clouds for thumbs.js: 300 points of each [S, 300, 3], in the unit sphere, in 256 steps a side.

    Clouds with fewer points repeat some.
    """
    small = np.empty((len(clouds), _THUMBNAIL_POINTS, 3), np.uint8)
    for i, cloud in enumerate(clouds):
        rows = np.linspace(0, len(cloud) - 1, _THUMBNAIL_POINTS).round().astype(np.int64)
        if len(cloud) > _THUMBNAIL_POINTS:  # files often list a mesh part after part, or points row by row
            rows = np.random.default_rng(0).permutation(len(cloud))[:_THUMBNAIL_POINTS]
        points = np.asarray(cloud[rows], np.float64)
        points -= (points.min(0) + points.max(0)) / 2
        radius = np.sqrt((points**2).sum(1).max()) or 1.0
        small[i] = np.rint(127.5 + 127.5 * points / radius)
    return packed(small, "u1")


def open_or_list(name: str, kind: str, count: int, seed: int, array: str | None = None) -> Shapes | Source:
    """The shapes of a packed set or of `count` procedural ones; of any other set the list of its files.

    Raises:
        InputError: there is no such set.
    """
    if name == PROCEDURAL:
        return procedural_shapes(count, seed, pictures=False)
    return open_dataset(Path(name), kind, array=array)


def _pick_shapes(
    name: str, count: int, kind: str, up: StatedUp, say: Callable[[str], None]
) -> tuple[Shapes, list[str]]:
    """At most `count` shapes of a set, those that are held out where some are, turned so that y is up, and
    the captions of the whole set. Only what is picked gets read; shapes that cannot be used are left out.
    """
    # Whole rounds of the families: the last of them are held out.
    rounds = max(5, -(-count // len(FAMILIES)) * 5)
    found = open_or_list(name, kind, rounds * len(FAMILIES), _PROCEDURAL_SEED)
    if isinstance(found, Source):
        held_out = np.array([entry.held_out for entry in found.entries], np.bool_)
        captions = [entry.caption or "" for entry in found.entries]
    else:
        held_out, captions = found.held_out, found.captions or []
    rows = spread(np.flatnonzero(held_out if held_out.any() else ~held_out), count)
    if isinstance(found, Source):
        few = replace(found, entries=[found.entries[i] for i in rows], problems=[])
        shapes, _ = load(few, num_points=1, max_points=SURFACE_POINTS, on_problem="skip")
    else:
        shapes = found.take(rows)
    return turn_up(stated_or_guessed(shapes, up, say), "y"), [caption for caption in captions if caption]


def pick_clouds(
    names: Sequence[str],
    count: int,
    kind: str = "auto",
    up: StatedUp = "auto",
    say: Callable[[str], None] = lambda text: None,
) -> tuple[list[Picked], list[str]]:
    """All clouds that `names` mean, in their order.

    Args:
        names: files of clouds or meshes, data sets, or "procedural".
        count: taken of each set, of what is held out where something is.
        kind: how to read a folder.
        up: axis that is up in the sets, "auto" for what they state.
        say: gets a line for a set whose up axis is guessed or not known.

    Returns:
        The clouds, those of sets with y up, and the distinct captions of the sets.

    Raises:
        InputError: a file or a set cannot be read.
    """
    picked: list[Picked] = []
    captions: list[str] = []
    for name in names:
        path = Path(name).expanduser()
        if path.suffix.lower() in FILES and (not path.exists() or is_one_cloud(path)):
            text = path.with_suffix(".txt")
            beside = text != path and text.is_file()
            caption = text.read_text(encoding="utf-8-sig", errors="replace").strip() if beside else ""
            picked.append(Picked(path.name, read_cloud(path), caption[:500] or None))
            continue
        if name != PROCEDURAL and not path.exists():
            raise InputError(
                f"clouds must be files ({' '.join(sorted(FILES))}), data sets or `{PROCEDURAL}`, got {name}"
            )
        shapes, more = _pick_shapes(name, count, kind, up, say)
        captions += more
        for i, key in enumerate(shapes.keys):
            said = None if shapes.captions is None else shapes.captions[i]
            label = None if shapes.labels is None else shapes.class_names[shapes.labels[i]]
            picked.append(Picked(key, shapes.cloud(i), said, label))
    return picked, list(dict.fromkeys(captions))
