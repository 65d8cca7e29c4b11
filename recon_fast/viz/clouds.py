"""The clouds that a command line names: files, data sets, or the procedural set."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recon_fast.config import StatedUp
from recon_fast.data.conventions import state_up, turn_up
from recon_fast.data.loading import load
from recon_fast.data.open import open_source
from recon_fast.data.packed import open_packed
from recon_fast.data.readers.clouds import FILES, SURFACE_POINTS, read_cloud
from recon_fast.data.shapes import Shapes
from recon_fast.errors import InputError

PROCEDURAL = "procedural"
_PROCEDURAL_SEED = 1  # training's default is 0: these are other shapes of the same families


@dataclass(frozen=True)
class Picked:
    """A cloud to look at."""

    name: str
    points: NDArray[np.floating]  # [N, 3]
    caption: str | None = None
    label: str | None = None


def is_cloud_file(path: Path) -> bool:
    """Whether `path` is one cloud rather than a set of them."""
    return path.suffix.lower() in FILES and not path.is_dir()


def spread(rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """At most `count` of the rows, evenly spaced."""
    if len(rows) <= count:
        return rows
    return rows[np.linspace(0, len(rows) - 1, count).round().astype(np.int64)]


def pick_shapes(name: str, count: int, kind: str = "auto", up: StatedUp = "auto") -> tuple[Shapes, list[str]]:
    """At most `count` shapes of a data set, those that are held out where some are, turned so that y is up.

    Only what is picked gets read; shapes that cannot be used are left out.

    Returns:
        The shapes, and the distinct captions of the whole set.

    Raises:
        InputError: there is no such set, or nothing in it can be used.
    """
    path = Path(name).expanduser()
    if name == PROCEDURAL:
        from recon_fast.procedural import FAMILIES, procedural_shapes

        # Whole rounds of the families: the last of them are held out.
        rounds = max(5, -(-count // len(FAMILIES)) * 5)
        shapes = procedural_shapes(rounds * len(FAMILIES), _PROCEDURAL_SEED, pictures=False)
    elif (packed := open_packed(path)) is not None:
        shapes = packed
    else:
        source = open_source(path, kind)
        held = np.array([entry.held_out for entry in source.entries], np.bool_)
        rows = np.flatnonzero(held) if held.any() else np.arange(len(held))
        few = replace(source, entries=[source.entries[i] for i in spread(rows, count)], problems=[])
        captions = [entry.caption for entry in source.entries if entry.caption]
        shapes, _ = load(few, num_points=1, max_points=SURFACE_POINTS, on_problem="skip")
        return _upright(shapes, up), list(dict.fromkeys(captions))
    rows = shapes.rows("test") if shapes.held_out.any() else np.arange(len(shapes))
    captions = list(dict.fromkeys(caption for caption in shapes.captions or [] if caption))
    return _upright(shapes.take(spread(rows, count)), up), captions


def _upright(shapes: Shapes, up: StatedUp) -> Shapes:
    return turn_up(state_up(shapes, up), "y")


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
        count: taken of each set.
        kind: how to read a folder.
        up: axis that is up in the sets, "auto" for what they state.
        say: gets a line for a set whose up axis is not known.

    Returns:
        The clouds, and the distinct captions of the sets.

    Raises:
        InputError: a file or a set cannot be read.
    """
    picked: list[Picked] = []
    captions: list[str] = []
    for name in names:
        path = Path(name).expanduser()
        if is_cloud_file(path):
            picked.append(Picked(path.name, read_cloud(path), _caption_beside(path)))
            continue
        if name != PROCEDURAL and not path.exists():
            raise InputError(
                f"clouds must be files ({' '.join(sorted(FILES))}), data sets or `{PROCEDURAL}`, got {name}"
            )
        shapes, more = pick_shapes(name, count, kind, up)
        if shapes.conventions.up == "unknown":
            say(f"which axis is up in {shapes.name} is not known, its clouds stay as they are: --up says")
        captions += more
        for i, key in enumerate(shapes.keys):
            picked.append(
                Picked(
                    key,
                    shapes.cloud(i),
                    None if shapes.captions is None else shapes.captions[i],
                    None if shapes.labels is None else shapes.class_names[shapes.labels[i]],
                )
            )
    return picked, list(dict.fromkeys(captions))


def _caption_beside(path: Path) -> str | None:
    text = path.with_suffix(".txt")
    if text == path or not text.is_file():
        return None
    return text.read_text(encoding="utf-8-sig", errors="replace").strip()[:500] or None
