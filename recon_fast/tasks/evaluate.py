"""How well a classifier does: accuracy, by class, voted; the confusion matrix as CSV and picture."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recon_fast.data.batches.labelled import Change, SampledShapes
from recon_fast.device import autocast
from recon_fast.models import Classifier

_BATCH = {"cpu": 32, "cuda": 256}


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


@torch.no_grad()
def predict(
    model: Classifier,
    shapes: SampledShapes,
    dtype: torch.dtype,
    change: Change | None = None,
    seed: int = 0,
    vote: int = 0,
) -> Tensor:
    """Logits [S, C] of all shapes in evaluation mode, on the CPU; the model's mode is left as it was.

    Of the farthest points as they are or, with `change`, of points drawn and changed as in training; `vote`
    counts such passes.
    """
    was_training = model.training
    model.eval()
    logits = []
    for index in torch.arange(len(shapes)).split(_BATCH.get(shapes.device.type, 256)):
        if change is None:
            points = shapes.sampled(index)
        else:
            points = shapes.changed(index, seed, vote, change, vote=True)
        with autocast(shapes.device, dtype):
            logits.append(model(points).float())
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


def count(guess: NDArray[np.int64], truth: NDArray[np.int64], num_classes: int) -> Scores:
    """Predicted classes [S] against true ones [S]."""
    pairs = np.bincount(truth * num_classes + guess, minlength=num_classes**2)
    return Scores(pairs.reshape(num_classes, num_classes))


def vote(
    model: Classifier, shapes: SampledShapes, dtype: torch.dtype, change: Change, seed: int, votes: int
) -> Scores:
    """Scores of the mean logits over `votes` passes, each of other points, changed as in training."""
    passes = [predict(model, shapes, dtype, change, seed, i) for i in range(votes)]
    return score(torch.stack(passes).mean(0), shapes.label)


def write_confusion(scores: Scores, class_names: list[str], stem: Path) -> None:
    """STEM.csv, counts with class names, and STEM.png, shares of each class."""
    with stem.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["class \\ predicted", *class_names])
        for name, row in zip(class_names, scores.confusion.tolist(), strict=True):
            writer.writerow([name, *row])

    from matplotlib.figure import Figure

    C = len(class_names)
    size = 3 + 0.28 * C
    figure = Figure(figsize=(size, size), layout="constrained")
    axes = figure.add_subplot()
    counts = scores.confusion.sum(1, keepdims=True)
    shares = scores.confusion / np.maximum(counts, 1)
    picture = axes.imshow(shares, cmap="cividis", vmin=0, vmax=1)
    axes.set_xticks(range(C), class_names, rotation=90)
    axes.set_yticks(range(C), class_names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("class")
    axes.set_title(
        f"accuracy {scores.accuracy:.1f} %, mean of the classes {scores.mean_class_accuracy:.1f} %"
    )
    if C <= 20:
        for i, j in zip(*np.nonzero(scores.confusion), strict=True):
            color = "black" if shares[i, j] > 0.5 else "white"
            axes.text(j, i, str(scores.confusion[i, j]), ha="center", va="center", color=color, fontsize=7)
    figure.colorbar(picture, label="share of the class", shrink=0.7)
    figure.savefig(stem.with_suffix(".png"), dpi=120)
