"""Which axis is up, how large clouds are and how many points they have: stated, turned, compared.

A model that learned on clouds that stand sees something else in clouds that lie, and no number says so.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recon_fast.config import StatedUp
from recon_fast.data.shapes import Conventions, Joined, Rows, Scale, Shapes, Up, is_mapped, turned

_BLOCK = 512  # clouds whose radii are taken at a time
_BINS = 16  # of a cloud's extent
_VOTERS = 300  # shapes that are asked which axis is up
_SURE = 0.5  # share of all shapes that must agree, with 95 % confidence, for a guess to be followed


def radii(points: NDArray[np.floating], sizes: NDArray[np.int64]) -> NDArray[np.float32]:
    """Distance of the farthest point of each cloud from the origin: points [T, 3], sizes [S] -> [S]."""
    found = np.zeros(len(sizes), np.float32)
    ends = np.cumsum(sizes)
    for i in range(0, len(sizes), _BLOCK):
        block = slice(i, i + _BLOCK)
        size, first = sizes[block], ends[i] - sizes[i]
        part = points[first : first + size.sum()].astype(np.float32)
        if len(part):
            squared = np.einsum("nc,nc->n", part, part)
            some = size > 0
            found[block][some] = np.maximum.reduceat(squared, (ends[block] - size - first)[some])
    return np.sqrt(found)


def scale_of(radius: NDArray[np.float32]) -> Scale:
    """ "unit sphere" where every cloud's farthest point is at distance 1, less a tenth for clouds that were
    cut after they were scaled.
    """
    if not len(radius):
        return "unknown"
    return "unit sphere" if ((radius > 0.9) & (radius < 1.001)).all() else "raw"


def turn_up(shapes: Shapes, up: Up | Literal["none"]) -> Shapes:
    """Shapes turned by 90 degrees about the axis that is neither their up axis nor `up`, so that `up` is up.

    Shapes that stand so already, and those whose up axis is unknown, come back as they are, as all do with
    "none". Pictures and teacher features are of the same objects and stay.
    """
    now = shapes.conventions.up
    if up == "none" or "unknown" in (now, up) or now == up:
        return shapes
    a, b = "xyz".index(now), "xyz".index(up)
    points: Rows
    if is_mapped(shapes.points):  # turned when they are read
        points = Joined([shapes.points], (a, b))
    else:
        points = turned(np.asarray(shapes.points), a, b)
    return replace(shapes, points=points, conventions=replace(shapes.conventions, up=up))


def state_up(shapes: Shapes, up: StatedUp) -> Shapes:
    """Shapes with the user's word for their up axis; "auto" keeps what the layout or the file states."""
    if up == "auto":
        return shapes
    stated = Conventions(up, shapes.conventions.scale)
    return replace(shapes, conventions=stated)


def asymmetry(cloud: NDArray[np.floating]) -> NDArray[np.float64]:
    """How unlike its mirror image a cloud [N, 3] is along x, y and z, from 0 to 1: the share of its points
    that lie in other sixteenths of its extent when that axis is turned round.
    """
    found = np.zeros(3)
    for axis in range(3):
        x = np.asarray(cloud[:, axis], np.float64)
        if np.ptp(x) > 0:
            counts = np.histogram(x, _BINS)[0] / len(x)
            found[axis] = 0.5 * np.abs(counts - counts[::-1]).sum()
    return found


class Guess(NamedTuple):
    """Which axis is up, by the votes of shapes."""

    axis: Literal["x", "y", "z"]  # with most votes
    votes: NDArray[np.int64]  # [3]: shapes for x, y and z
    sure: bool  # most shapes agree, and they are enough to tell

    def __str__(self) -> str:
        return f"{self.votes.max()} of {self.votes.sum()} shapes look as if {self.axis} were up"


def voters(count: int) -> NDArray[np.int64]:
    """Rows of the shapes of a set that `guess_up` is to ask: all, or 300 evenly spread ones."""
    return np.unique(np.linspace(0, count - 1, min(count, _VOTERS)).astype(np.int64))


def guess_up(clouds: Iterable[NDArray[np.floating]]) -> Guess:
    """The axis along which most clouds [N, 3] are least symmetric.

    Things that stand are alike left and right and often front and back, but not above and below. The guess is
    sure where the lower end of Wilson's 95 % interval of the share of its votes is above a half. It is never
    sure of x, which hardly any program has up.
    """
    votes = np.bincount([int(asymmetry(cloud).argmax()) for cloud in clouds], minlength=3)
    n, z = max(1, votes.sum()), 1.96
    share = votes.max() / n
    spread = z * np.sqrt(share * (1 - share) / n + (z / (2 * n)) ** 2)
    low = (share + z * z / (2 * n) - spread) / (1 + z * z / n)
    axis: Any = "xyz"[votes.argmax()]
    return Guess(axis, votes, axis != "x" and bool(low > _SURE))


def training_conventions(shapes: Shapes, num_points: int) -> dict[str, Any]:
    """What a model that trains on `shapes` gets used to, for its checkpoints: JSON-able.

    Training brings every cloud into the unit sphere, whatever the scale of its file.
    """
    return {"up": shapes.conventions.up, "scale": "unit sphere", "points": num_points}


def check_conventions(shapes: Shapes, trained: dict[str, Any]) -> list[str]:
    """What about `shapes` is not as the model knows it, each with its cure; empty where all is well.

    Args:
        shapes: clouds for a trained model.
        trained: "conventions" of its checkpoint (see `training_conventions`); what it lacks is not compared.
    """
    warnings = []
    own, theirs = shapes.conventions.up, trained.get("up", "unknown")
    if theirs == "unknown":
        if trained and own != "unknown":
            warnings.append(
                f"{shapes.name} is {own} up, which axis was up in training is not known: "
                "state it with --data.up when you train"
            )
    elif own not in ("unknown", theirs):
        warnings.append(
            f"clouds of {shapes.name} are {own} up, the checkpoint was trained on {theirs} up: "
            f"--data.turn_up {theirs} turns them"
        )
    if trained.get("scale") == "raw":
        warnings.append(
            "the checkpoint was trained on clouds of their own scale, here each is brought into the unit "
            "sphere: train it again, or expect less of it"
        )
    smallest = int(np.diff(shapes.offsets).min()) if len(shapes) else 0
    if smallest < trained.get("points", 0):
        warnings.append(
            f"the smallest cloud of {shapes.name} has {smallest} points, the checkpoint was trained on "
            f"{trained['points']}: take denser clouds, or train with --data.num_points {smallest}"
        )
    return warnings
