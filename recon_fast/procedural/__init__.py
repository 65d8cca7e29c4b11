"""The embedded data set: families of parametric objects with clouds, labels, captions and pictures, made in
memory from a seed.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from recon_fast.data.shapes import ArrayPictures, Conventions, Shapes
from recon_fast.procedural import buildings, furniture, nature, tools, vehicles, vessels  # noqa: F401 - they register
from recon_fast.procedural.family import FAMILIES, PARTED, Dice, Parts, Words, caption

# Families that joined later come last: the labels of those above stay.
# isort: split
from recon_fast.procedural import (  # noqa: F401 - they register
    arms,
    craft,
    creatures,
    fittings,
    food,
    household,
    landmarks,
    structures,
    terrain,
    things,
)

__all__ = ["FAMILIES", "PARTED", "procedural_shapes"]

_CHUNK = 256  # shapes sampled and rendered at a time
CLOUD_POINTS = 2048
_PICTURE_POINTS = 30000  # splats of a picture, enough to leave no holes at 96 pixels


def procedural_shapes(
    num_shapes: int,
    seed: int = 0,
    *,
    first: int = 0,
    num_points: int = CLOUD_POINTS,
    held_out: float = 0.2,
    pictures: bool = True,
    picture_size: int = 96,
    parts: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Shapes:
    """Make shapes `first` to `first + num_shapes`; shape i is a function of (seed, i) alone, its family is i
    modulo their number.

    Proportions are free, and every shape is turned about y, stretched along each axis by up to a third, bent
    and tilted a little, and jittered.

    Args:
        num_shapes: how many.
        seed: another seed gives other shapes of the same families.
        first: number of the first shape.
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
    index = np.arange(first, first + num_shapes)
    number = index // len(nouns)
    points = np.empty((num_shapes, num_points, 3), np.float32)
    shown = np.empty((num_shapes, picture_size, picture_size, 3), np.uint8) if pictures else None
    labels = np.empty((num_shapes, num_points), np.uint8) if parts else None
    captions: list[str] = []
    for start in range(0, num_shapes, _CHUNK):
        chunk = slice(start, min(start + _CHUNK, num_shapes))
        some, of_points = (None if array is None else array[chunk] for array in (shown, labels))
        captions += _make(nouns, seed, first + start, points[chunk], some, of_points)
        if progress is not None:
            progress(chunk.stop)
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
        parts=None if labels is None else labels.reshape(-1),
        class_parts=[list(names.values()) for names in PARTED.values()] if parts else None,
        conventions=Conventions("y", "unit sphere"),
    )


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
    from recon_fast.procedural.surface import render, sample_shapes  # numba takes a second to load

    rows, captions, size = [], [], len(points)
    part_of_piece: list[NDArray[np.uint8]] = []
    warps, bends, jitters = np.empty((size, 3, 3)), np.empty(size), np.empty(size)
    seeds = np.empty(size, np.uint64)
    views, colors = np.empty((size, 2)), np.empty((size, 3))
    for i in range(size):
        rng = np.random.default_rng((seed, start + i))
        noun, dice = nouns[(start + i) % len(nouns)], Dice(rng)
        built, words = Parts(), Words()
        FAMILIES[noun](built, dice, words)
        rows.append(built.array())
        if labels is not None:
            part_of_piece.append(np.array([PARTED[noun][name] for name in built.names], np.uint8))
        captions.append(caption(noun, words, dice))
        height = rows[-1][:, 12].max() - rows[-1][:, 12].min()
        warps[i], bends[i] = _warp(dice), dice.real(-0.1, 0.1) / (height + 0.1)
        jitters[i] = dice.real(0.0, 0.012)
        views[i] = dice.real(0, 2 * math.pi), dice.real(0.1, 0.7)
        colors[i] = [dice.real(160, 240) for _ in range(3)]
        seeds[i] = rng.integers(2**63)
    offsets = np.cumsum([0, *map(len, rows)])
    parts = np.concatenate(rows)
    surfaces = sample_shapes(parts, offsets, warps, bends, jitters, seeds, points.shape[1])
    points[:] = surfaces[..., :3]
    if labels is not None:
        for own, of_piece, surface in zip(labels, part_of_piece, surfaces, strict=True):
            own[:] = of_piece[surface[:, 6].astype(np.int64)]
    if shown is not None:
        seeds += np.uint64(1)
        dense = sample_shapes(parts, offsets, warps, bends, 0 * jitters, seeds, _PICTURE_POINTS)
        shown[:] = render(dense, views, colors, shown.shape[1])
    return captions


def _warp(dice: Dice) -> NDArray[np.float64]:
    """A turn about y, a stretch along each axis, and a tilt of at most a few degrees."""
    yaw, pitch, roll = dice.real(0, 2 * math.pi), dice.real(-0.1, 0.1), dice.real(-0.1, 0.1)
    c, s = math.cos(yaw), math.sin(yaw)
    turn = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    stretch = np.diag([dice.real(0.75, 1.33), dice.real(0.75, 1.33), dice.real(0.75, 1.33)])
    tilt = np.array([[1, -roll, 0], [roll, 1, -pitch], [0, pitch, 1]])
    return tilt @ turn @ stretch
