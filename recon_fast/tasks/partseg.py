"""Part segmentation: a part for every point, from a pretrained encoder (ReCon, section 4; its appendix).

A run leaves what `recon_fast.training.downstream` says, a row for each category in parts.csv, and parts.png,
coloured clouds of some test shapes. Points are drawn with replacement, in training and in testing (see
`recon_fast.data.batches.labelled`), and the instance mIoU selects, both as in the official code.
"""

from dataclasses import replace
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
from recon_fast.errors import InputError
from recon_fast.models import PartSegmenter
from recon_fast.tasks.part_scores import (
    PartScores,
    draw_sheet,
    score_parts,
    segment,
    write_table,
)
from recon_fast.training.downstream import DownstreamResult, DownstreamTask
from recon_fast.training.folder import Resumed
from recon_fast.training.run import run_task

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
        least = max(self.config.model.num_group, self.config.model.group_size)
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

    def details(self, scores: PartScores, voted: PartScores | None) -> dict[str, Any]:
        table = scores.table(self.shapes.class_names)
        return {
            "voted": None if voted is None else voted.summary(),
            "by_category": {
                name: {"shapes": count, "miou": iou, "accuracy": right} for name, count, iou, right in table
            },
        }

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

    def table(self, scores: PartScores) -> str:
        rows = [("category", "shapes", "mIoU %", "accuracy %")]
        for name, count, iou, right in scores.table(self.shapes.class_names):
            of_iou, of_right = ("" if x is None else f"{x:.2f}" for x in (iou, right))
            rows.append((name, str(count), of_iou, of_right))
        width = max(len(row[0]) for row in rows)
        return "\n".join(f"{name:<{width}}  {n:>6}  {iou:>6}  {right:>10}" for name, n, iou, right in rows)

    def sentence(self, scores: PartScores, voted: PartScores | None) -> str:
        text = (
            f"instance mIoU {scores.instance_miou:.2f} %, class mIoU {scores.class_miou:.2f} %, "
            f"accuracy {scores.accuracy:.2f} %"
        )
        if voted is not None:
            both = f"{voted.instance_miou:.2f} % and {voted.class_miou:.2f} %"
            text += f"; mIoU voted {both} ({self.config.votes} votes)"
        return text


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
