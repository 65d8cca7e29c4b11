"""Shapes that a task trains, selects and tests on, and what makes a score on them mean less than it seems."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from recon_fast.config.downstream import DownstreamConfig
from recon_fast.console import say
from recon_fast.data.batches.labelled import split_off
from recon_fast.data.shapes import Shapes
from recon_fast.errors import InputError


@dataclass
class Splits:
    """Rows of the shapes for each purpose, and what picks the checkpoint."""

    train: NDArray[np.int64]
    select: NDArray[np.int64] | None
    test: NDArray[np.int64]
    selected_on: str  # "validation", "test" or "last epoch"


def choose_splits(shapes: Shapes, config: DownstreamConfig) -> Splits:
    """Rows to train, to select and to test on. Raises InputError where labels or a side are missing."""
    if shapes.labels is None:
        raise InputError(f"data must have labels, got none in {shapes.name}")
    test, train = shapes.rows("test"), shapes.rows("trainval")
    for name, rows in (("train on", train), ("test on", test)):
        if not len(rows):
            raise InputError(f"data must have shapes to {name}, got none in {shapes.name}")
    if config.official_protocol:
        return Splits(train, test, test, "test")
    if shapes.validation is not None and shapes.validation.any():
        return Splits(shapes.rows("train"), shapes.rows("val"), test, "validation")
    validating = split_off(shapes.labels, train, config.validation, config.seed)
    if not validating.any():
        return Splits(train, None, test, "last epoch")
    return Splits(train[~validating], train[validating], test, "validation")


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
