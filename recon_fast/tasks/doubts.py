"""What makes a score mean less than it seems: for result.json, and for people."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from recon_fast.console import say
from recon_fast.data.shapes import Shapes

_SHOWN = 3  # names in a line
_GLANCE = 16  # points that mostly tell that a cloud is one


def score_doubts(shapes: Shapes, train: NDArray[np.int64] | None, test: NDArray[np.int64]) -> list[str]:
    """Lines on classes and clouds of which a score cannot tell anything; none where all is well.

    Args:
        shapes: labelled shapes.
        train: rows that a classifier learns from; None if nothing is learnt, as in zero-shot.
        test: rows that it is tested on.
    """
    assert shapes.labels is not None
    names = shapes.class_names
    rows = test if train is None else np.concatenate([train, test])
    total = np.bincount(shapes.labels[rows], minlength=len(names))
    lines = []
    if train is not None:
        learnt = np.bincount(shapes.labels[train], minlength=len(names)) > 0
        tested = np.bincount(shapes.labels[test], minlength=len(names)) > 0
        if (unknown := np.flatnonzero(tested & ~learnt)).size:
            lines.append(f"{_classes(unknown, names)} tested and not trained on: 0 % right by construction")
        if (single := np.flatnonzero(total == 1)).size:
            lines.append(f"{_classes(single, names)} known by one shape alone")
    if (empty := np.flatnonzero(total == 0)).size and names == [str(i) for i in range(len(names))]:
        lines.append(f"{_classes(empty, names)} without any shape, as labels count up to {names[-1]}")
    one_point = [shapes.keys[i] for i in rows.tolist() if _is_point(shapes.cloud(i))]
    if one_point:
        what = "1 cloud is" if len(one_point) == 1 else f"{len(one_point)} clouds are"
        lines.append(f"{what} one point again and again ({_some(one_point)})")
    return lines


def say_doubts(
    shapes: Shapes, train: NDArray[np.int64] | None, test: NDArray[np.int64], console: Console
) -> list[str]:
    """Say what `score_doubts` finds, and give it for the result."""
    lines = score_doubts(shapes, train, test)
    for line in lines:
        say(console, line, style="yellow")
    return lines


def _is_point(cloud: NDArray[np.floating]) -> bool:
    return bool((cloud[:_GLANCE] == cloud[0]).all() and (cloud == cloud[0]).all())


def _classes(which: NDArray[np.int64], names: list[str]) -> str:
    some = _some([names[i] for i in which])
    return f"1 class is ({some})" if len(which) == 1 else f"{len(which)} classes are ({some})"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
