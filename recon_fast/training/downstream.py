"""A downstream run: a model trained on labelled shapes, its best weights kept, tested in the end.

<run>/best/model.safetensors    the weights that the result is of
<run>/result.json               how they do on the test set
"""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from recon_fast.checkpoint import load_weights
from recon_fast.checkpoint.restore import load_encoder, restore, untrained_architecture
from recon_fast.checkpoint.training import save_best
from recon_fast.config import ReConConfig
from recon_fast.config.check import check_groups
from recon_fast.config.downstream import DownstreamConfig
from recon_fast.config.model import UNTRAINED
from recon_fast.console import say, warn
from recon_fast.data.batches.labelled import Augmentation, LabelledShapes, split_off
from recon_fast.data.batches.resident import Batch
from recon_fast.data.batches.stream import BatchStream
from recon_fast.data.conventions import check_conventions
from recon_fast.data.shapes import Shapes
from recon_fast.distributed import from_first
from recon_fast.errors import InputError
from recon_fast.models import Classifier, PartSegmenter
from recon_fast.training.folder import Resumed
from recon_fast.training.metrics import Metrics
from recon_fast.training.optim import AdamW, downstream_groups
from recon_fast.training.record import write_result
from recon_fast.training.run import Task
from recon_fast.training.scores import check_sides, labels_of, score_doubts


class Summarised(Protocol):
    """Scores of a model on a set."""

    def summary(self) -> dict[str, Any]:
        """For JSON: the selecting metric by its name, and others."""
        ...


C = TypeVar("C", bound=DownstreamConfig)
M = TypeVar("M", Classifier, PartSegmenter)
D = TypeVar("D", bound=LabelledShapes)
S = TypeVar("S", bound=Summarised)


@dataclass
class DownstreamResult(Generic[S]):
    """How a run ended."""

    run: Path
    scores: S | None  # of the test set; None where the run was stopped
    voted: S | None  # likewise; None too where no votes were cast
    stopped_by: str | None = None


@dataclass
class Splits:
    """Rows of the shapes for each purpose, and what picks the checkpoint."""

    train: NDArray[np.int64]
    select: NDArray[np.int64] | None
    test: NDArray[np.int64]
    selected_on: str  # "validation", "test" or "last epoch"


def choose_splits(shapes: Shapes, config: DownstreamConfig) -> Splits:
    """Rows to train, to select and to test on. Raises InputError where labels or a side are missing."""
    labels, test, train = labels_of(shapes), shapes.rows("test"), shapes.rows("trainval")
    check_sides(shapes, train=train, test=test)
    if config.official_protocol:
        return Splits(train, test, test, "test")
    if shapes.validation is not None and shapes.validation.any():
        return Splits(shapes.rows("train"), shapes.rows("val"), test, "validation")
    validating = split_off(labels, train, config.validation, config.seed)
    if not validating.any():
        return Splits(train, None, test, "last epoch")
    return Splits(train[~validating], train[validating], test, "validation")


class DownstreamTask(Task[DownstreamResult[S]], Generic[C, M, D, S]):
    """What classification and segmentation share. With several processes the first one measures and writes.

    Args:
        config: settings.
        console: where lines and progress go.
        shapes: all shapes, in place of those that the settings name.
        change: what happens to a training cloud, and to a vote.

    Attributes:
        metric: of the scores' summary, the one that selects; the largest wins.
        kind: type of the model, and its name for errors.
        frozen: only what is new learns.
        splits: rows to train, select and test on.
        best: the epoch whose weights the result is of, and its metric; None where nothing is selected on.
    """

    metric: ClassVar[str]
    kind: ClassVar[tuple[type[Any], str]]
    frozen: bool = False
    keeps_best = True
    config: C
    model: M

    def __init__(
        self, config: C, console: Console | None, shapes: Shapes | None, change: Augmentation
    ) -> None:
        super().__init__(config, console, shapes)
        self.change, self.trains = change, not config.evaluate
        self.best: dict[str, Any] = {"epoch": 0, self.metric: -1.0}

    def read_data(self, resumed: Resumed | None) -> None:
        self.shapes = self.open_shapes(self.config.data)
        self.splits = choose_splits(self.shapes, self.config)
        self.train_count = len(self.splits.train)

    def prepare(self, run: Path, resumed: Resumed | None) -> None:
        splits = self.splits
        self.model, self.conventions = (
            start_model(self.config, self.make, self.console) if self.trains else self._restore()
        )
        if self.conventions:
            warn(self.console, *check_conventions(self.shapes, self.known(self.conventions)))
        self.model.to(self.device)
        if self.trains:
            self.train_set = self.gather(splits.train)
            self.select_set = None if splits.select is None else self.gather(splits.select)
            warn(self.console, *self.doubts)
        self.test_set = self.gather(splits.test)
        if resumed is not None:
            self.best = resumed.state["best"]

    @cached_property
    def doubts(self) -> list[str]:
        """See `score_doubts`, which looks at every cloud."""
        return score_doubts(self.shapes, self.splits.train if self.trains else None, self.splits.test)

    def _restore(self) -> tuple[M, dict[str, Any]]:
        """The trained model of the checkpoint with the groups of the settings, and what it was trained on."""
        config, (kind, name) = self.config, self.kind
        assert config.checkpoint is not None
        restored = restore(config.checkpoint)
        warn(self.console, *restored.notes)
        known = restored.model.config.num_group, restored.model.config.group_size
        wanted = config.model.num_group, config.model.group_size or known[1]
        if known != wanted:
            text = f"{restored.file} is of {known[0]} groups of {known[1]} points, here they are "
            warn(self.console, f"{text}{wanted[0]} of {wanted[1]}")
            restored = restore(config.checkpoint, num_group=wanted[0], group_size=wanted[1])
        model: Any = restored.model
        check_groups(model.config, config.data)
        if not isinstance(model, kind):
            raise InputError(f"evaluate needs a checkpoint with a {name}, got another in {restored.file}")
        trained = {size: model.task[f"num_{size}"] for size in self.sizes()}
        if trained != self.sizes():
            raise InputError(
                f"{restored.file} knows {_counted(trained)}, the data has {_counted(self.sizes())}"
            )
        return model, restored.conventions

    def build_optimizer(self) -> AdamW:
        optim, factor = self.config.optim, self.config.head_factor
        groups = downstream_groups(self.model, optim.lr, optim.weight_decay, factor, self.frozen)
        return AdamW(groups, betas=(0.9, optim.beta2))

    def announce(self, computing: str) -> str:
        splits = self.splits
        parameters = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        return (
            f"{self.config.command} on {self.shapes.name}: {len(splits.train)} shapes to train, "
            f"{0 if splits.select is None else len(splits.select)} to select ({splits.selected_on}), "
            f"{len(splits.test)} to test, {_counted(self.sizes())} | "
            f"{parameters:,} parameters learn, {computing}"
        )

    def batches(self, first: int, stop: int) -> AbstractContextManager[Iterator[Batch]]:
        how, optim = replace(self.change, seed=self.config.seed), self.config.optim
        return BatchStream(self.train_set, how, optim.batch_size, optim.accumulate, first, stop)

    def measure_epoch(self, run: Path, epoch: int, step: int, log: Metrics) -> None:
        if self.select_set is None:
            self.best.update({"epoch": epoch, self.metric: None})
            return
        select_set = self.select_set
        value = from_first(lambda: self.measure(select_set).summary()[self.metric])
        log.write(step, {"epoch": epoch - 1, f"{self.splits.selected_on}_{self.metric}": value})
        if value > self.best[self.metric]:
            self.best.update({"epoch": epoch, self.metric: value})
            from_first(lambda: save_best(run, self.model, self.conventions))

    def state(self) -> dict[str, Any]:
        return {"before": None, "best": self.best}

    def ended(self, run: Path, checkpoint: Path | None, stopped_by: str | None) -> DownstreamResult[S]:
        return DownstreamResult(run, None, None, stopped_by)

    def evaluate(
        self, run: Path, checkpoint: Path | None, step: int, log: Metrics | None
    ) -> DownstreamResult[S]:
        return from_first(lambda: self._evaluate(run))

    def _evaluate(self, run: Path) -> DownstreamResult[S]:
        """Test the best weights, write what the run leaves, and say it, with a warning where a number is not
        what it seems.
        """
        config, shapes, splits, console = self.config, self.shapes, self.splits, self.console
        epoch = self.best["epoch"] if self.trains else None
        if self.trains:
            if self.select_set is None:
                save_best(run, self.model, self.conventions)
            load_weights(run / "best" / "model.safetensors", self.model)
        scores = self.measure(self.test_set)
        voted = self.measure(self.test_set, config.votes) if config.votes else None
        warn(console, *self.doubts)
        details, table, sentence = self.report(scores, voted)
        result = {
            "task": config.command,
            "data": shapes.name,
            "num_points": config.data.num_points,
            **self.sizes(),
            "checkpoint": config.checkpoint,
            "seed": config.seed,
            "train": len(splits.train),
            "test": len(splits.test),
            "selected_on": None if epoch is None else splits.selected_on,
            "epoch": epoch,
            **scores.summary(),
            **details,
            "votes": config.votes,
            "warnings": self.doubts,
        }
        write_result(run, result, lambda: self.write(run, self.test_set, scores))
        if table:
            say(console, table)
        chosen = "" if epoch is None else f"; weights of epoch {epoch}, chosen by: {splits.selected_on}"
        say(console, f"{shapes.name}: {sentence}{chosen}; {run / 'result.json'}")
        if epoch is not None and splits.selected_on == "test":
            warn(console, "official protocol: the test set chose the epoch, so this is optimistic")
        return DownstreamResult(run, scores, voted)

    def known(self, conventions: dict[str, Any]) -> dict[str, Any]:
        """What of a checkpoint's conventions the shapes are to be compared with."""
        return conventions

    @abstractmethod
    def make(self, architecture: ReConConfig) -> M:
        """The freshly initialised model of an architecture."""

    @abstractmethod
    def gather(self, rows: NDArray[np.int64]) -> D:
        """The shapes at rows, on the device."""

    @abstractmethod
    def measure(self, shapes: D, votes: int = 0) -> S:
        """Scores of the model; with votes, of the mean over as many passes of changed clouds."""

    @abstractmethod
    def sizes(self) -> dict[str, int]:
        """Classes and the like, for the line at the start and for result.json."""

    @abstractmethod
    def report(self, scores: S, voted: S | None) -> tuple[dict[str, Any], str, str]:
        """What result.json holds beside the summary of the scores; and for people a table, which may be
        empty, and a sentence.
        """

    @abstractmethod
    def write(self, run: Path, shapes: D, scores: S) -> None:
        """Tables and pictures. May raise OSError."""


def start_model(
    config: DownstreamConfig, make: Callable[[ReConConfig], M], console: Console
) -> tuple[M, dict[str, Any]]:
    """A model on the encoder of `config.checkpoint`, or one that starts untrained.

    Args:
        config: its `model`, `checkpoint` and `seed` count.
        make: the freshly initialised model of an architecture.
        console: told where the encoder is from.

    Returns:
        The model, and what the checkpoint was trained on (see `training_conventions`).

    Raises:
        InputError: no such checkpoint, or not of the size or the arch that is wanted.
    """
    m = config.model
    torch.manual_seed(config.seed)
    names = "num_group", "group_size", "drop_path", "skip_near_origin"
    changes: dict[str, Any] = {name: value for name in names if (value := getattr(m, name)) is not None}
    restored = None
    if config.checkpoint in UNTRAINED:
        architecture = replace(untrained_architecture(m.size), **changes)
        size = f"{architecture.depth} blocks of width {architecture.dim}"
        hint = ", as the packaged one; --model.size base is the paper's" if m.size == "auto" else ""
        warn(console, f"the encoder starts untrained: {size}{hint}")
    else:
        restored = restore(config.checkpoint)
        architecture = replace(restored.model.config, **changes)
        if m.size != "auto" and getattr(ReConConfig, m.size)().dim != architecture.dim:
            raise InputError(
                f"model.size must be the checkpoint's or auto, got {m.size} and width {architecture.dim} of "
                f"{config.checkpoint}; --checkpoint random starts untrained in any size"
            )
        if architecture.arch != "recon":
            raise InputError(f"checkpoint must be of arch recon, got {architecture.arch} in {restored.file}")
    check_groups(architecture, config.data)
    try:
        model = make(architecture)
    except ValueError as error:
        raise InputError(str(error)) from error
    if restored is None:
        return model, {}
    report = load_encoder(str(config.checkpoint), model)
    say(console, f"encoder of {restored.file}: {report}")
    return model, restored.conventions


def _counted(sizes: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sizes.items())
