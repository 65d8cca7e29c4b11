"""Fine-tuning of a classifier, and training of a head on a frozen encoder (ReCon, sections 4.1 and 4.2).

A run leaves what `recon_fast.training.downstream` says, and confusion.csv and confusion.png.
"""

from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor, nn

from recon_fast.config.downstream import FinetuneConfig
from recon_fast.data.batches.labelled import Change, SampledShapes
from recon_fast.data.shapes import Shapes
from recon_fast.errors import InputError
from recon_fast.models import Classifier
from recon_fast.tasks.evaluate import Scores, predict, score, vote, write_confusion
from recon_fast.training.downstream import (
    DownstreamResult,
    DownstreamTask,
    Losses,
    restore_trained,
    start_model,
)
from recon_fast.training.run import run_task

FinetuneResult = DownstreamResult[Scores]


class _Loss(nn.Module):
    """A classifier with its loss, called as a pretraining model is."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, points: Tensor, _image: None, _text: None, label: Tensor, *_: None) -> Losses:
        """points [B, N, 3] and label [B] -> the cross-entropy by name."""
        return Losses({"ce": nn.functional.cross_entropy(self.model(points).float(), label)})


def build_classifier(
    config: FinetuneConfig, num_classes: int, console: Console
) -> tuple[Classifier, dict[str, Any]]:
    """The classifier to train, and what the checkpoint was trained on (see `training_conventions`)."""
    head: Literal["mlp3", "linear"] = "linear" if config.protocol == "linear" else "mlp3"
    return start_model(config, lambda encoder: Classifier(encoder, num_classes, head), console)


class Classification(DownstreamTask[FinetuneConfig, Classifier, SampledShapes, Scores]):
    """A classifier of whole shapes."""

    metric = "accuracy"

    def __init__(self, config: FinetuneConfig, console: Console | None, shapes: Shapes | None) -> None:
        change = Change(config.augment.scales, config.augment.translate, config.data.rotate)
        super().__init__(config, console, shapes, change)
        self.frozen = config.protocol != "full"

    def build(self) -> tuple[Classifier, dict[str, Any]]:
        return build_classifier(self.config, len(self.shapes.class_names), self.console)

    def restore(self) -> tuple[Classifier, dict[str, Any]]:
        model, restored = restore_trained(self.config, Classifier, "classifier", self.console)
        known, classes = model.task["num_classes"], len(self.shapes.class_names)
        if known != classes:
            raise InputError(f"{restored.file} tells {known} classes apart, the data has {classes}")
        return model, restored.conventions

    def gather(self, rows: NDArray[np.int64]) -> SampledShapes:
        config = self.config
        return SampledShapes(
            self.shapes,
            rows,
            config.data.num_points,
            config.augment.oversample,
            config.normalize,
            self.device,
            self.model.config.skip_near_origin,
        )

    def losses(self) -> nn.Module:
        return _Loss(self.model)

    def measure(self, shapes: SampledShapes) -> Scores:
        return score(predict(self.model, shapes, self.dtype), shapes.label)

    def vote(self, shapes: SampledShapes) -> Scores:
        return vote(self.model, shapes, self.dtype, self.change, self.config.seed, self.config.votes)

    def sizes(self) -> dict[str, int]:
        return {"classes": len(self.shapes.class_names)}

    def details(self, scores: Scores, voted: Scores | None) -> dict[str, Any]:
        by_class = scores.by_class_name(self.shapes.class_names)
        return {"voted_accuracy": None if voted is None else voted.accuracy, "by_class": by_class}

    def write(self, run: Path, shapes: SampledShapes, scores: Scores) -> None:
        write_confusion(scores, self.shapes.class_names, run / "confusion")

    def sentence(self, scores: Scores, voted: Scores | None) -> str:
        text = f"{scores.accuracy:.2f} %, mean of the classes {scores.mean_class_accuracy:.2f} %"
        if voted is not None:
            text += f", voted {voted.accuracy:.2f} % ({self.config.votes} votes)"
        return text


def finetune(
    config: FinetuneConfig,
    resume: Path | str | None = None,
    console: Console | None = None,
    shapes: Shapes | None = None,
) -> FinetuneResult:
    """Fine-tune as `config` says, or train a head, and test; with `resume`, continue bit by bit.

    Args:
        config: settings.
        resume: folder of a run, one of its checkpoints, or "auto"; as `pretrain`.
        console: where lines and progress go; stderr by default.
        shapes: labelled shapes in memory, in place of those that `config.data.path` names.

    Raises:
        InputError: anything wrong with the settings, the data, the weights or the disk.
    """
    return run_task(Classification(config, console, shapes), resume)
