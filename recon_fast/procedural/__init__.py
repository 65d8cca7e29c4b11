"""The embedded data set: families of parametric objects with clouds, labels, captions and pictures, made in
memory from a seed.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from recon_fast.data.shapes import ArrayPictures, Conventions, Shapes
from recon_fast.procedural import buildings, furniture, nature, tools, vehicles, vessels  # noqa: F401
from recon_fast.procedural.family import FAMILIES, PARTED, Dice, Words, caption
from recon_fast.procedural.parts import Parts

__all__ = ["FAMILIES", "PARTED", "procedural_shapes"]

_CHUNK = 256  # shapes sampled and rendered at a time
CLOUD_POINTS = 2048
_PICTURE_POINTS = 30000  # splats of a picture, enough to leave no holes at 96 pixels


def procedural_shapes(
    num_shapes: int,
    seed: int = 0,
    *,
    num_points: int = CLOUD_POINTS,
    held_out: float = 0.2,
    pictures: bool = True,
    picture_size: int = 96,
    parts: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Shapes:
    """Make shapes 0 to `num_shapes`; shape i is a function of (seed, i) alone, its family is i modulo their
    number.

    Proportions are free, and every shape is turned about y, stretched along each axis by up to a third, bent
    and tilted a little, and jittered.

    Args:
        num_shapes: how many.
        seed: another seed gives other shapes of the same families.
        num_points: points of each cloud, uniform on the surfaces; y is up, centered, in the unit sphere.
        held_out: share of each family that is kept for probes.
        pictures: render a picture of each shape from its own camera.
        picture_size: pixels along a side.
        parts: take the families of `PARTED` alone, and say of each point to which of their parts the surface
            belongs that it was drawn from. Surfaces run into one another, so near a joint, and inside of what
            another part encloses, no geometry tells two parts apart.
        progress: called with the number of shapes made.
    """
    nouns = list(PARTED if parts else FAMILIES)
    index = np.arange(num_shapes)
    number = index // len(nouns)
    points = np.empty((num_shapes, num_points, 3), np.float32)
    shown = np.empty((num_shapes, picture_size, picture_size, 3), np.uint8) if pictures else None
    part = np.empty((num_shapes, num_points), np.uint8) if parts else None
    captions: list[str] = []
    for start in range(0, num_shapes, _CHUNK):
        stop = min(start + _CHUNK, num_shapes)
        some, labels = (None if array is None else array[start:stop] for array in (shown, part))
        captions += _make(nouns, seed, start, points[start:stop], some, labels)
        if progress is not None:
            progress(stop)
    return Shapes(
        name="procedural parts" if parts else "procedural",
        keys=[f"{nouns[i % len(nouns)].replace(' ', '_')}_{seed}_{i:06d}" for i in index],
        points=points.reshape(-1, 3),
        offsets=np.arange(num_shapes + 1) * num_points,
        held_out=np.floor((number + 1) * held_out) > np.floor(number * held_out),
        labels=index % len(nouns),
        class_names=nouns,
        captions=captions,
        pictures=None if shown is None else ArrayPictures(shown),
        parts=None if part is None else part.reshape(-1),
        class_parts=_class_parts() if parts else None,
        conventions=Conventions("y", "unit sphere"),
    )


def _class_parts() -> list[list[int]]:
    """Numbers of the parts of each family in `PARTED`, counted through."""
    ends = np.cumsum([len(names) for names in PARTED.values()]).tolist()
    return [list(range(end - len(names), end)) for end, names in zip(ends, PARTED.values(), strict=True)]


def _make(
    nouns: list[str],
    seed: int,
    start: int,
    points: NDArray[np.float32],
    shown: NDArray[np.uint8] | None,
    labels: NDArray[np.uint8] | None,
) -> list[str]:
    """Fill points [S, N, 3], pictures [S, size, size, 3] and parts [S, N] with shapes `start` and on; give
    captions.
    """
    # Imported here: numba takes a second to load.
    from recon_fast.procedural.render import render
    from recon_fast.procedural.surface import sample_shapes

    rows, captions, size = [], [], len(points)
    part_of_piece: list[NDArray[np.uint8]] = []
    warps, bends, jitters = np.empty((size, 3, 3)), np.empty(size), np.empty(size)
    seeds = np.empty(size, np.uint64)
    views, colors = np.empty((size, 2)), np.empty((size, 3))
    for i in range(size):
        rng = np.random.default_rng((seed, start + i))
        noun, dice = nouns[(start + i) % len(nouns)], Dice(rng)
        parts, words = Parts(), Words()
        FAMILIES[noun](parts, dice, words)
        rows.append(parts.array())
        if labels is not None:
            part_of_piece.append(_part_of_piece(noun, parts))
        captions.append(caption(noun, words, dice))
        height = rows[-1][:, 12].max() - rows[-1][:, 12].min()
        warps[i], bends[i] = _warp(dice), dice.real(-0.1, 0.1) / (height + 0.1)
        jitters[i] = dice.real(0.0, 0.012)
        views[i] = dice.real(0, 2 * math.pi), dice.real(0.1, 0.7)
        colors[i] = [dice.real(160, 240) for _ in range(3)]
        seeds[i] = rng.integers(2**63)
    offsets = np.zeros(size + 1, np.int64)
    np.cumsum([len(r) for r in rows], out=offsets[1:])
    parts_array = np.concatenate(rows)
    surfaces = sample_shapes(parts_array, offsets, warps, bends, jitters, seeds, points.shape[1])
    points[:] = surfaces[..., :3]
    if labels is not None:
        for i, of_piece in enumerate(part_of_piece):
            labels[i] = of_piece[surfaces[i, :, 6].astype(np.int64)]
    if shown is not None:
        dense = sample_shapes(
            parts_array, offsets, warps, bends, 0 * jitters, seeds + np.uint64(1), _PICTURE_POINTS
        )
        shown[:] = render(dense, views, colors, shown.shape[1])
    return captions


def _part_of_piece(noun: str, parts: Parts) -> NDArray[np.uint8]:
    """The number of the part, of those of all families in `PARTED`, that each piece of a shape belongs to."""
    first = _class_parts()[list(PARTED).index(noun)][0]
    found = np.zeros(parts.piece, np.uint8)
    for row, name in zip(parts.rows, parts.names, strict=True):
        found[int(row[-1])] = first + PARTED[noun].index(name)
    return found


def _warp(dice: Dice) -> NDArray[np.float64]:
    """A turn about y, a stretch along each axis, and a tilt of at most a few degrees."""
    yaw, pitch, roll = dice.real(0, 2 * math.pi), dice.real(-0.1, 0.1), dice.real(-0.1, 0.1)
    c, s = math.cos(yaw), math.sin(yaw)
    turn = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    stretch = np.diag([dice.real(0.75, 1.33), dice.real(0.75, 1.33), dice.real(0.75, 1.33)])
    tilt = np.array([[1, -roll, 0], [roll, 1, -pitch], [0, pitch, 1]])
    return tilt @ turn @ stretch
