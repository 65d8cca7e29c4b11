"""How well a part segmenter does: class and instance mIoU as the literature computes them, accuracy.

The IoU of a shape is the mean over the parts of its category, where a part that neither the shape nor the
prediction has counts as 1 (PointNet, section 5.1). Instance mIoU is the mean over the shapes, class mIoU the
mean over the categories of the mean over their shapes. Every prediction is the likeliest of the parts of the
shape's category.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recon_fast.data.batches.labelled import Change, PartedShapes
from recon_fast.device import autocast
from recon_fast.models import PartSegmenter

_BATCH = {"cpu": 16, "cuda": 64}


@dataclass
class PartScores:
    """Scores of every shape."""

    iou: NDArray[np.float64]  # [S] in [0, 1]
    accuracies: NDArray[np.float64]  # [S]: share of the points whose part was found
    category: NDArray[np.int64]  # [S] in [0, C)
    num_categories: int

    @property
    def accuracy(self) -> float:
        """Percent of all points; every shape has as many."""
        return 100 * float(self.accuracies.mean())

    @property
    def instance_miou(self) -> float:
        """Percent, mean over the shapes."""
        return 100 * float(self.iou.mean())

    @property
    def class_miou(self) -> float:
        """Percent, mean over the categories that have shapes."""
        return float(np.nanmean(self.by_category(self.iou)))

    def by_category(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Percent: the mean of values [S] over the shapes of each category [C]; nan for those without."""
        counts = np.bincount(self.category, minlength=self.num_categories)
        sums = np.bincount(self.category, values, self.num_categories)
        with np.errstate(invalid="ignore"):
            return 100 * sums / counts

    def summary(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "instance_miou": self.instance_miou,
            "class_miou": self.class_miou,
            "accuracy": self.accuracy,
        }

    def table(self, class_names: Sequence[str]) -> list[tuple[str, int, float | None, float | None]]:
        """A row for each category: name, shapes, percent mIoU and accuracy (None without shapes)."""
        counts = np.bincount(self.category, minlength=self.num_categories)
        columns = (self.by_category(self.iou), self.by_category(self.accuracies))
        rows = zip(class_names, counts.tolist(), *(column.tolist() for column in columns), strict=True)
        return [(name, n, iou, right) if n else (name, n, None, None) for name, n, iou, right in rows]


def likeliest(scores: Tensor, category: Tensor, class_parts: Sequence[Sequence[int]]) -> Tensor:
    """The likeliest part of each point among those of the shape's category.

    Args:
        scores: [B, N, P], log-probabilities or others that rank alike.
        category: [B] int64.
        class_parts: parts of each category.

    Returns:
        [B, N] int64; -1, no part, where the scores are not finite.
    """
    allowed = torch.zeros(len(class_parts), scores.shape[-1], dtype=torch.bool)
    for row, parts in zip(allowed, class_parts, strict=True):
        row[list(parts)] = True
    own = allowed.to(scores.device)[category][:, None]  # [B, 1, P]
    best = scores.masked_fill(~own, -torch.inf).argmax(-1)
    return best.masked_fill(~scores.isfinite().all(-1), -1)


@torch.no_grad()
def segment(
    model: PartSegmenter,
    shapes: PartedShapes,
    class_parts: Sequence[Sequence[int]],
    dtype: torch.dtype,
    change: Change | None = None,
    votes: int = 0,
    index: Tensor | None = None,
) -> Tensor:
    """The parts that a model finds, in evaluation mode; its mode is left as it was.

    Args:
        model: gives log-probabilities.
        shapes: S shapes, whose tested points are segmented.
        class_parts: parts of each category.
        dtype: that the device computes in.
        change: None segments the points as they are; else the mean probabilities of `votes` copies, changed
            by it, decide.
        votes: at least 1 with `change`.
        index: [R] int64, which of the shapes; None for all.

    Returns:
        [R, N] int64 on the CPU; -1 where a log-probability is not finite.
    """
    was_training = model.training
    model.eval()
    found = []
    index = torch.arange(len(shapes)) if index is None else index
    for some in index.split(_BATCH.get(shapes.device.type, 64)):
        points, _ = shapes.tested(some)
        category = shapes.label[some.to(shapes.device)]
        copies = [points]
        if change is not None:
            copies = [shapes.voted(some, points, i, change) for i in range(votes)]
        with autocast(shapes.device, dtype):
            scores = torch.stack([model(copy, category) for copy in copies])
        # Of the sum of the probabilities; small ones would vanish outside of the logarithm.
        found.append(likeliest(scores.logsumexp(0), category, class_parts).cpu())
    model.train(was_training)
    return torch.cat(found)


def tested_parts(shapes: PartedShapes) -> Tensor:
    """The true parts [S, N] int64 of the tested points, on the CPU."""
    chunks = torch.arange(len(shapes)).split(_BATCH.get(shapes.device.type, 64))
    return torch.cat([shapes.tested(index)[1].cpu() for index in chunks])


def score_parts(
    found: Tensor, truth: Tensor, category: Tensor, class_parts: Sequence[Sequence[int]]
) -> PartScores:
    """Scores of parts [S, N] that were found, against the true ones; category [S]."""
    category = category.cpu()
    iou = torch.ones(len(found), dtype=torch.float64)
    for label in category.unique().tolist():
        rows = category == label
        guess, true = found[rows][..., None], truth[rows][..., None]
        parts = torch.tensor(class_parts[label])
        union = ((guess == parts) | (true == parts)).sum(1)  # [S of the category, parts]
        shared = ((guess == parts) & (true == parts)).sum(1)
        of_part = torch.where(union > 0, shared / union.clamp_min(1).double(), 1.0)
        iou[rows] = of_part.mean(1)
    right = (found == truth).double().mean(1)
    return PartScores(iou.numpy(), right.numpy(), category.numpy(), len(class_parts))


def write_table(scores: PartScores, class_names: Sequence[str], file: Path) -> None:
    """The table of categories as CSV, percent; empty cells where a category has no shapes."""
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        writer.writerow(["category", "shapes", "miou", "accuracy"])
        writer.writerows(scores.table(class_names))


# Okabe and Ito's colours, which people with any kind of colour vision tell apart.
_COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
_NO_PART = "#BBBBBB"
_YAW, _PITCH = 0.6, 0.35  # the camera's, in radians


def project(points: NDArray[np.float32], up: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Points [N, 3] seen from the front, a little from the side and from above: places [N, 2], depth [N].

    Larger depths are nearer. `up` "unknown" counts as y.
    """
    i = "xyz".index(up if up in ("x", "y", "z") else "y")
    height, right, front = points[:, i], points[:, (i + 2) % 3], points[:, (i + 1) % 3]
    side = np.cos(_YAW) * right - np.sin(_YAW) * front
    near = np.sin(_YAW) * right + np.cos(_YAW) * front
    place = np.stack([side, np.cos(_PITCH) * height - np.sin(_PITCH) * near], 1)
    return place, np.sin(_PITCH) * height + np.cos(_PITCH) * near


def draw_sheet(
    file: Path,
    shapes: PartedShapes,
    rows: Tensor,
    found: Tensor,
    scores: PartScores,
    class_names: Sequence[str],
    class_parts: Sequence[Sequence[int]],
    up: str,
) -> None:
    """Draw clouds as a PNG: a line for each category, truth and what was found side by side.

    Args:
        file: the picture.
        shapes: S shapes that were tested.
        rows: which of them [R] int64.
        found: their parts [R, N].
        scores: of all S.
        class_names: of the C categories.
        class_parts: parts of each category; the i-th of a category has the i-th colour.
        up: which axis is up in the clouds.
    """
    from matplotlib.figure import Figure

    label = scores.category[rows.numpy()]
    lines = [np.flatnonzero(label == c) for c in np.unique(label)]
    columns = 2 * max(len(line) for line in lines)
    figure = Figure(figsize=(1.6 * columns, 1.8 * len(lines)), layout="constrained")
    axes = figure.subplots(len(lines), columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for line, i in ((line, i) for line, of_line in enumerate(lines) for i in of_line.tolist()):
        row, column = int(rows[i]), 2 * int((label[:i] == label[i]).sum())
        points, truth = (x[0].cpu().numpy() for x in shapes.tested(rows[i : i + 1]))
        place, depth = project(points, up)
        order = np.argsort(depth)
        color = {part: _COLORS[k % len(_COLORS)] for k, part in enumerate(class_parts[label[i]])}
        said = f"found, IoU {100 * scores.iou[row]:.0f} %"
        for shift, parts, title in ((0, truth, class_names[label[i]]), (1, found[i].numpy(), said)):
            axis = axes[line, column + shift]
            tones = [color.get(int(part), _NO_PART) for part in parts[order]]
            axis.scatter(*place[order].T, c=tones, s=1.5, linewidths=0)
            axis.set_title(title, fontsize=8)
            axis.set_aspect("equal")
    figure.savefig(file, dpi=130)
