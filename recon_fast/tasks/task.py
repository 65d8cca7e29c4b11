"""What a downstream task is: model, data, loss and scores, for `recon_fast.tasks.run` to train and test."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor, nn

from recon_fast.config.downstream import DownstreamConfig
from recon_fast.data.batches.labelled import Change, Drawable
from recon_fast.data.open import fingerprint
from recon_fast.data.shapes import Shapes
from recon_fast.device import resolve_device, resolve_precision
from recon_fast.models import Classifier, PartSegmenter
from recon_fast.tasks.splits import choose_splits


class Summarised(Protocol):
    """Scores of a model on a set."""

    def summary(self) -> dict[str, Any]:
        """For JSON: the selecting metric by its name, and others."""
        ...


C = TypeVar("C", bound=DownstreamConfig)
M = TypeVar("M", Classifier, PartSegmenter)
D = TypeVar("D", bound=Drawable)
S = TypeVar("S", bound=Summarised)


@dataclass
class DownstreamResult(Generic[S]):
    """How a run ended."""

    run: Path
    scores: S | None  # of the test set; None where the run was stopped
    voted: S | None  # likewise; None too where no votes were cast
    stopped_by: str | None = None


class Losses(NamedTuple):
    """What a model's loss module gives, as pretraining models do."""

    losses: dict[str, Tensor]


class Task(ABC, Generic[C, M, D, S]):
    """What one downstream task does its own way; `run_task` does the rest.

    Args:
        config: settings.
        shapes: all shapes.
        change: what happens to a training cloud, and to a vote.
        console: where lines and progress go.

    Attributes:
        metric: of the scores' summary, the one that selects; the largest wins.
        frozen: only what is new learns.
        splits: rows to train, select and test on.
        model: set by `run_task`, on the device.
    """

    metric: ClassVar[str]
    frozen: bool = False
    model: M

    def __init__(self, config: C, shapes: Shapes, change: Change, console: Console) -> None:
        self.config, self.shapes, self.change, self.console = config, shapes, change, console
        self.device = resolve_device(config.device)
        self.dtype = resolve_precision(config.precision, self.device)
        self.splits = choose_splits(shapes, config)

    def fingerprint(self) -> str:
        """Of the shapes: is it the data a run started with?"""
        return fingerprint(self.shapes)

    def known(self, conventions: dict[str, Any]) -> dict[str, Any]:
        """What of a checkpoint's conventions the shapes are to be compared with."""
        return conventions

    @abstractmethod
    def build(self) -> tuple[M, dict[str, Any]]:
        """The model to train, and what its checkpoint was trained on (see `training_conventions`)."""

    @abstractmethod
    def restore(self) -> tuple[M, dict[str, Any]]:
        """The trained model of the checkpoint, likewise."""

    @abstractmethod
    def gather(self, rows: NDArray[np.int64]) -> D:
        """The shapes at rows, on the device."""

    @abstractmethod
    def losses(self) -> nn.Module:
        """From a batch's inputs to `Losses`."""

    @abstractmethod
    def measure(self, shapes: D) -> S:
        """Scores of the model."""

    @abstractmethod
    def vote(self, shapes: D) -> S:
        """Scores of the mean over `config.votes` passes of changed clouds."""

    @abstractmethod
    def sizes(self) -> dict[str, int]:
        """Classes and the like, for the line at the start and for result.json."""

    @abstractmethod
    def details(self, scores: S, voted: S | None) -> dict[str, Any]:
        """What result.json holds beside the summary of the scores."""

    @abstractmethod
    def write(self, run: Path, shapes: D, scores: S) -> None:
        """Tables and pictures. May raise OSError."""

    def table(self, scores: S) -> str:
        """Lines for people, before the sentence; empty for none."""
        return ""

    @abstractmethod
    def sentence(self, scores: S, voted: S | None) -> str:
        """The result for people."""
