"""Part segmentation: a part for every point, from a pretrained encoder (ReCon, section 4; its appendix).

A run leaves what `recon_fast.training.downstream` says, a row for each category in parts.csv, and parts.png,
coloured clouds of some test shapes. Points are drawn with replacement, in training and in testing (see
`recon_fast.data.batches.labelled`), and the instance mIoU selects, both as in the official code.

The IoU of a shape is the mean over the parts of its category, where a part that neither the shape nor the
prediction has counts as 1 (PointNet, section 5.1). Instance mIoU is the mean over the shapes, class mIoU the
mean over the categories of the mean over their shapes. Every prediction is the likeliest of the parts of the
shape's category.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor, nn

from recon_fast.config import DataConfig, ReConConfig
from recon_fast.config.downstream import PartsegConfig
from recon_fast.data.batches.labelled import Augmentation, PartedShapes
from recon_fast.data.shapes import Shapes
from recon_fast.device import autocast
from recon_fast.errors import InputError
from recon_fast.models import PartSegmenter
from recon_fast.training.downstream import DownstreamResult, DownstreamTask
from recon_fast.training.folder import Resumed
from recon_fast.training.run import run_task

_BATCH = {"cpu": 16, "cuda": 64}
_UNCHANGED = Augmentation()


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
        return {name: getattr(self, name) for name in ("instance_miou", "class_miou", "accuracy")}

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
    change: Augmentation = _UNCHANGED,
    votes: int = 0,
    index: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The parts that a model finds, in evaluation mode, and the true ones; its mode is left as it was.

    Args:
        model: gives log-probabilities.
        shapes: S shapes, whose tested points are segmented.
        class_parts: parts of each category.
        dtype: that the device computes in.
        change: what happens to a copy of a cloud that votes.
        votes: copies whose mean probabilities decide; 0 segments the points as they are.
        index: [R] int64, which of the shapes; None for all.

    Returns:
        [R, N] int64 each, on the CPU; what is found is -1 where a log-probability is not finite.
    """
    was_training = model.training
    model.eval()
    found, truth = [], []
    index = torch.arange(len(shapes)) if index is None else index
    for some in index.split(_BATCH.get(shapes.device.type, 64)):
        points, parts = shapes.tested(some)
        truth.append(parts.cpu())
        category = shapes.label[some.to(shapes.device)]
        copies = [shapes.voted(some, points, i, change) for i in range(votes)] or [points]
        with autocast(shapes.device, dtype):
            scores = torch.stack([model(copy, category) for copy in copies])
        # Of the sum of the probabilities; small ones would vanish outside of the logarithm.
        found.append(likeliest(scores.logsumexp(0), category, class_parts).cpu())
    model.train(was_training)
    return torch.cat(found), torch.cat(truth)


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
        up: which axis is up in the clouds; "unknown" counts as y.
    """
    from matplotlib.figure import Figure

    label = scores.category[rows.numpy()]
    lines = [np.flatnonzero(label == c) for c in np.unique(label)]
    columns = 2 * max(len(line) for line in lines)
    figure = Figure(figsize=(1.6 * columns, 1.8 * len(lines)), layout="constrained")
    for first, line in zip(range(1, columns * len(lines), columns), lines, strict=True):
        for place, i in zip(range(first, first + columns, 2), line.tolist(), strict=False):
            points, truth = (x[0].cpu() for x in shapes.tested(rows[i : i + 1]))
            color = {part: _COLORS[k % len(_COLORS)] for k, part in enumerate(class_parts[label[i]])}
            said = f"found, IoU {100 * scores.iou[int(rows[i])]:.0f} %"
            for shift, parts, title in ((0, truth, class_names[label[i]]), (1, found[i], said)):
                axes = figure.add_subplot(len(lines), columns, place + shift, projection="3d")
                tones = [color.get(part, _NO_PART) for part in parts.tolist()]
                axes.scatter(*points.T, c=tones, s=1.5, linewidths=0, depthshade=False)
                axes.set_title(title, fontsize=8)
                axes.set_aspect("equal")
                axes.view_init(elev=20, azim=35, vertical_axis=up if up in ("x", "y", "z") else "y")
                axes.set_axis_off()
    figure.savefig(file, dpi=130)


PartsegResult = DownstreamResult[PartScores]


def check_parts(shapes: Shapes) -> list[list[int]]:
    """The parts of each category of the shapes, which have labels.

    Raises:
        InputError: points have no parts, a category has none or shares one with another, or a shape has a
            part that its category has not.
    """
    if shapes.parts is None or shapes.class_parts is None:
        raise InputError(f"data must have a part for every point, got none in {shapes.name}")
    assert shapes.labels is not None
    seen: dict[int, str] = {}
    for name, parts in zip(shapes.class_names, shapes.class_parts, strict=True):
        if not parts:
            raise InputError(f"every category must have parts, got none of {name} in {shapes.name}")
        for part in parts:
            if part in seen:
                raise InputError(
                    f"a part must be of one category, got part {part} in {seen[part]} and in {name} "
                    f"of {shapes.name}"
                )
            seen[part] = name
    for i, label in enumerate(shapes.labels.tolist()):
        own = shapes.parts[shapes.offsets[i] : shapes.offsets[i + 1]]
        others = np.setdiff1d(own, shapes.class_parts[label])
        if len(others):
            raise InputError(
                f"{shapes.keys[i]} of {shapes.name} has part {others[0]}, which {shapes.class_names[label]} "
                "has not"
            )
    return shapes.class_parts


class PartSegmentation(DownstreamTask[PartsegConfig, PartSegmenter, PartedShapes, PartScores]):
    """A part for every point, given the category."""

    metric = "instance_miou"
    kind = PartSegmenter, "part segmenter"

    def __init__(self, config: PartsegConfig, console: Console | None, shapes: Shapes | None) -> None:
        change = Augmentation(
            config.augment.scales, config.augment.translate, config.data.rotate, one_factor=True
        )
        super().__init__(config, console, shapes, change)

    def open_shapes(self, data: DataConfig, parts: bool = True) -> Shapes:
        """Shapes with parts: any cloud will do that has enough points to choose groups of."""
        least = max(self.config.model.num_group, self.config.model.group_size or 1)
        return super().open_shapes(replace(data, num_points=least), parts)

    def read_data(self, resumed: Resumed | None) -> None:
        super().read_data(resumed)
        self.class_parts = check_parts(self.shapes)

    def fingerprint(self) -> str:
        digest = blake2b(super().fingerprint().encode(), digest_size=16)
        digest.update(np.ascontiguousarray(self.shapes.parts).data)
        return digest.hexdigest()

    def known(self, conventions: dict[str, Any]) -> dict[str, Any]:
        """All but the number of points: clouds of any size are resampled."""
        return {name: value for name, value in conventions.items() if name != "points"}

    def sizes(self) -> dict[str, int]:
        parts = 1 + max(part for parts in self.class_parts for part in parts)
        return {"categories": len(self.class_parts), "parts": parts}

    def make(self, architecture: ReConConfig) -> PartSegmenter:
        categories, parts = self.sizes().values()
        return PartSegmenter(architecture, parts, categories)

    def gather(self, rows: NDArray[np.int64]) -> PartedShapes:
        config = self.config
        return PartedShapes(
            self.shapes, rows, config.data.num_points, config.normalize, self.device, config.seed
        )

    @staticmethod
    def losses(model: PartSegmenter, points: Tensor, category: Tensor, part: Tensor) -> dict[str, Tensor]:
        found = model(points, category)
        return {"nll": nn.functional.nll_loss(found.flatten(0, 1), part.flatten())}

    def measure(self, shapes: PartedShapes, votes: int = 0) -> PartScores:
        found, truth = segment(self.model, shapes, self.class_parts, self.dtype, self.change, votes)
        return score_parts(found, truth, shapes.label, self.class_parts)

    def write(self, run: Path, shapes: PartedShapes, scores: PartScores) -> None:
        write_table(scores, self.shapes.class_names, run / "parts.csv")
        if self.config.pictures:
            of_category = [np.flatnonzero(scores.category == c) for c in range(len(self.class_parts))]
            rows = torch.from_numpy(np.concatenate([of[: self.config.pictures] for of in of_category]))
            draw_sheet(
                run / "parts.png",
                shapes,
                rows,
                segment(self.model, shapes, self.class_parts, self.dtype, index=rows)[0],
                scores,
                self.shapes.class_names,
                self.class_parts,
                self.shapes.conventions.up,
            )

    def report(self, scores: PartScores, voted: PartScores | None) -> tuple[dict[str, Any], str, str]:
        by_category = {}
        names = self.shapes.class_names
        width = max(map(len, ("category", *names)))
        lines = [f"{'category':<{width}}  shapes  mIoU %  accuracy %"]
        for name, count, iou, right in scores.table(names):
            by_category[name] = {"shapes": count, "miou": iou, "accuracy": right}
            of_iou, of_right = ("" if x is None else f"{x:.2f}" for x in (iou, right))
            lines.append(f"{name:<{width}}  {count:>6}  {of_iou:>6}  {of_right:>10}")
        text = (
            f"instance mIoU {scores.instance_miou:.2f} %, class mIoU {scores.class_miou:.2f} %, "
            f"accuracy {scores.accuracy:.2f} %"
        )
        if voted is not None:
            both = f"{voted.instance_miou:.2f} % and {voted.class_miou:.2f} %"
            text += f"; mIoU voted {both} ({self.config.votes} votes)"
        return {"voted": voted and voted.summary(), "by_category": by_category}, "\n".join(lines), text


def partseg(
    config: PartsegConfig,
    resume: Path | str | None = None,
    console: Console | None = None,
    shapes: Shapes | None = None,
) -> PartsegResult:
    """Train a part segmenter as `config` says, and test it; with `resume`, continue bit by bit.

    Args:
        config: settings.
        resume: folder of a run, one of its checkpoints, or "auto"; as `pretrain`.
        console: where lines and progress go; stderr by default.
        shapes: shapes with labels and parts in memory, in place of those that `config.data.path` names.

    Raises:
        InputError: anything wrong with the settings, the data, the weights or the disk.
    """
    return run_task(PartSegmentation(config, console, shapes), resume)
