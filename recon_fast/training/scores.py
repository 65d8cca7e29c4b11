"""Accuracy of a classifier, by class and as a confusion matrix, and what makes it mean less than it seems."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon_fast.data.shapes import Shapes
from recon_fast.errors import InputError

_SHOWN = 3  # names in a line
_GLANCE = 16  # points that mostly tell that a cloud is one


@dataclass
class Scores:
    """Counts of predictions."""

    confusion: NDArray[np.int64]  # [C, C]: row = class, column = predicted

    @property
    def accuracy(self) -> float:
        """Percent of all shapes."""
        return 100 * float(self.confusion.trace() / self.confusion.sum())

    @property
    def by_class(self) -> NDArray[np.float64]:
        """Percent of each class [C]; nan for classes without shapes."""
        counts = self.confusion.sum(1)
        with np.errstate(invalid="ignore"):
            return 100 * self.confusion.diagonal() / counts

    @property
    def mean_class_accuracy(self) -> float:
        """Mean over the classes that have shapes."""
        return float(np.nanmean(self.by_class))

    def by_class_name(self, class_names: list[str]) -> dict[str, float | None]:
        """Percent of each class by name, None for classes without shapes; for JSON."""
        values = self.by_class.tolist()
        return {name: None if v != v else v for name, v in zip(class_names, values, strict=True)}

    def summary(self) -> dict[str, Any]:
        """For JSON."""
        return {"accuracy": self.accuracy, "mean_class_accuracy": self.mean_class_accuracy}


def count(guess: NDArray[np.int64], truth: NDArray[np.int64], num_classes: int) -> Scores:
    """Predicted classes [S] against true ones [S]."""
    pairs = np.bincount(truth * num_classes + guess, minlength=num_classes**2)
    return Scores(pairs.reshape(num_classes, num_classes))


def write_confusion(scores: Scores, class_names: list[str], stem: Path) -> None:
    """STEM.csv, counts with class names, and STEM.png, shares of each class."""
    with stem.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["class \\ predicted", *class_names])
        writer.writerows([name, *row] for name, row in zip(class_names, scores.confusion, strict=True))

    from matplotlib.figure import Figure
    from sklearn.metrics import ConfusionMatrixDisplay

    size = 3 + 0.28 * len(class_names)
    figure = Figure(figsize=(size, size), layout="constrained")
    axes = figure.add_subplot()
    shares = scores.confusion / np.maximum(scores.confusion.sum(1, keepdims=True), 1)
    ConfusionMatrixDisplay(shares, display_labels=class_names).plot(
        include_values=len(class_names) <= 20,
        values_format=".2g",
        cmap="cividis",
        xticks_rotation="vertical",
        ax=axes,
        im_kw={"vmin": 0, "vmax": 1},
        text_kw={"fontsize": 7},
    )
    axes.set(ylabel="class", xlabel="predicted")
    axes.set_title(
        f"accuracy {scores.accuracy:.1f} %, mean of the classes {scores.mean_class_accuracy:.1f} %"
    )
    figure.savefig(stem.with_suffix(".png"), dpi=120)


def labels_of(shapes: Shapes) -> NDArray[np.int64]:
    """The labels [S] of shapes that must have some. Raises InputError where they have none."""
    if shapes.labels is None:
        raise InputError(f"data must have labels, got none in {shapes.name}")
    return shapes.labels


def check_sides(shapes: Shapes, **sides: NDArray[np.int64]) -> None:
    """Raise InputError where a side of the shapes, `train` or `test`, has no rows."""
    for purpose, rows in sides.items():
        if not len(rows):
            raise InputError(f"data must have shapes to {purpose} on, got none in {shapes.name}")


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


def _is_point(cloud: NDArray[np.floating]) -> bool:
    return bool((cloud[:_GLANCE] == cloud[0]).all() and (cloud == cloud[0]).all())


def _classes(which: NDArray[np.int64], names: list[str]) -> str:
    some = _some([names[i] for i in which])
    return f"1 class is ({some})" if len(which) == 1 else f"{len(which)} classes are ({some})"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
