"""Fine-tuning of a classifier, and training of a head on a frozen encoder (ReCon, sections 4.1 and 4.2).

A run leaves what `recon_fast.training.downstream` says, and confusion.csv and confusion.png.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor, nn

from recon_fast.config import ReConConfig
from recon_fast.config.downstream import FinetuneConfig
from recon_fast.data.batches.labelled import Augmentation, SampledShapes
from recon_fast.data.shapes import Shapes
from recon_fast.device import autocast
from recon_fast.models import Classifier
from recon_fast.training.downstream import DownstreamResult, DownstreamTask
from recon_fast.training.run import run_task
from recon_fast.training.scores import Scores, count, write_confusion

_BATCH = {"cpu": 32, "cuda": 256}  # clouds that are tested at once
FinetuneResult = DownstreamResult[Scores]


def build_classifier(config: FinetuneConfig, num_classes: int, architecture: ReConConfig) -> Classifier:
    """The classifier of the protocol."""
    return Classifier(architecture, num_classes, "linear" if config.protocol == "linear" else "mlp3")


class Classification(DownstreamTask[FinetuneConfig, Classifier, SampledShapes, Scores]):
    """A classifier of whole shapes."""

    metric = "accuracy"
    kind = Classifier, "classifier"

    def __init__(self, config: FinetuneConfig, console: Console | None, shapes: Shapes | None) -> None:
        change = Augmentation(config.augment.scales, config.augment.translate, config.data.rotate)
        super().__init__(config, console, shapes, change)
        self.frozen = config.protocol != "full"

    def make(self, architecture: ReConConfig) -> Classifier:
        model = build_classifier(self.config, len(self.shapes.class_names), architecture)
        model.task["class_names"] = self.shapes.class_names
        return model

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

    @staticmethod
    def losses(
        model: Classifier, points: Tensor, _image: None, _text: None, label: Tensor, *_: None
    ) -> dict[str, Tensor]:
        return {"ce": nn.functional.cross_entropy(model(points).float(), label)}

    def measure(self, shapes: SampledShapes, votes: int = 0) -> Scores:
        """Of the farthest points as they are, or of the mean logits over passes of points that are drawn and
        changed as in training.
        """
        if not votes:
            return score(predict(self.model, shapes, shapes.sampled, self.dtype), shapes.label)
        how = replace(self.change, seed=self.config.seed)
        draws = [partial(shapes.voted, vote=i, how=how) for i in range(votes)]
        passes = [predict(self.model, shapes, draw, self.dtype) for draw in draws]
        return score(torch.stack(passes).mean(0), shapes.label)

    def sizes(self) -> dict[str, int]:
        return {"classes": len(self.shapes.class_names)}

    def write(self, run: Path, shapes: SampledShapes, scores: Scores) -> None:
        write_confusion(scores, self.shapes.class_names, run / "confusion")

    def report(self, scores: Scores, voted: Scores | None) -> tuple[dict[str, Any], str, str]:
        by_class = scores.by_class_name(self.shapes.class_names)
        text = f"{scores.accuracy:.2f} %, mean of the classes {scores.mean_class_accuracy:.2f} %"
        if voted is not None:
            text += f", voted {voted.accuracy:.2f} % ({self.config.votes} votes)"
        return {"voted_accuracy": voted and voted.accuracy, "by_class": by_class}, "", text


@torch.no_grad()
def predict(
    model: Classifier, shapes: SampledShapes, draw: Callable[[Tensor], Tensor], dtype: torch.dtype
) -> Tensor:
    """Logits [S, C] of all shapes in evaluation mode, on the CPU; the model's mode is left as it was.

    `draw` gives the points [B, N, 3] of the shapes at an index [B].
    """
    was_training = model.training
    model.eval()
    logits = []
    for index in torch.arange(len(shapes)).split(_BATCH.get(shapes.device.type, 256)):
        with autocast(shapes.device, dtype):
            logits.append(model(draw(index)).float())
    model.train(was_training)
    return torch.cat(logits).cpu()


def score(logits: Tensor, labels: Tensor) -> Scores:
    """Logits [S, C] against labels [S]; a shape whose logits are not all finite counts as wrong."""
    C = logits.shape[1]
    truth = labels.cpu()
    logits = logits.cpu()
    finite = logits.isfinite().all(1)
    guess = torch.where(finite, logits.nan_to_num().argmax(1), (truth + 1) % C)
    return count(guess.numpy(), truth.numpy(), C)


def finetune(
    config: FinetuneConfig,
    resume: Path | str | None = None,
    console: Console | None = None,
    shapes: Shapes | None = None,
    loggers: Sequence[Any] = (),
) -> FinetuneResult:
    """Fine-tune as `config` says, or train a head, and test; with `resume`, continue bit by bit.

    Args:
        config: settings.
        resume: folder of a run, one of its checkpoints, or "auto"; as `pretrain`.
        console: where lines and progress go; stderr by default.
        shapes: labelled shapes in memory, in place of those that `config.data.path` names.
        loggers: as `pretrain`.

    Raises:
        InputError: anything wrong with the settings, the data, the weights or the disk.
    """
    task = Classification(config, console, shapes)
    task.loggers = loggers
    return run_task(task, resume)
