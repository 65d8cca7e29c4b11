"""One run of a task that trains: data, model, optimizer, resume, loop, save, evaluate, from top to bottom.

<run>/config.yaml, run.json, metrics.jsonl, tensorboard/    settings, record and logs
<run>/checkpoints/                                          see `recon_fast.checkpoint.training`
"""

import signal
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any, Generic, TypeVar

import torch
from rich.console import Console
from torch import Tensor

from recon_fast.checkpoint import load_weights
from recon_fast.checkpoint.training import (
    SaveFailed,
    check_space,
    checkpoint_folder,
    last_good,
    load_optimizer,
    save_checkpoint,
    set_damaged_aside,
)
from recon_fast.config import DataConfig
from recon_fast.console import say, warn
from recon_fast.data.batches.resident import Batch
from recon_fast.data.batches.stream import VERSION
from recon_fast.data.open import fingerprint, prepare_shapes, verify_shards_of
from recon_fast.data.shapes import Shapes
from recon_fast.device import resolve_precision
from recon_fast.distributed import from_first, lost_ranks, process_group, rank, world_size
from recon_fast.errors import InputError
from recon_fast.training.folder import Resumed, check_batch, keep_config, open_run
from recon_fast.training.loop import Loop, StepValues
from recon_fast.training.losses import LossModule, averaged, compile_losses, recompute_blocks
from recon_fast.training.metrics import Metrics, log_function
from recon_fast.training.optim import AdamW, num_epochs
from recon_fast.training.profile import Profile, profile, steps_profiled
from recon_fast.training.record import RunRecord, describe_data, versions

R = TypeVar("R")


class Task(ABC, Generic[R]):
    """What pretraining, classification and segmentation do their own way; `run_task` does the rest.

    Under torchrun every process has one and calls the same methods. The methods come in the order in which
    `run_task` calls them.

    Args:
        config: settings of the command.
        console: where lines and progress go.
        shapes: shapes in memory, in place of those that `config.data.path` names.

    Attributes:
        device, dtype: what the run computes on and in; set by `run_task`.
        trains: False tests a trained model and takes no step.
        profile_steps: above 0, steps that are timed in place of training.
        keeps_best: the run keeps the weights of its best epoch beside the checkpoints.
        shapes: set by `read_data`.
        train_count: how many of them there are to train on; set by `read_data`.
        model, teacher: set by `prepare`; `teacher` says whose features the model learns from.
        conventions: of the clouds, as checkpoints state them; set by `prepare`.
        placement: where points and features lie, for run.json; `prepare` may set it.
        profile: what timed steps took; set by `run_task`.
        loggers: see `recon_fast.training.metrics.Metrics`.
    """

    config: Any
    device: torch.device
    dtype: torch.dtype
    shapes: Shapes
    train_count: int
    model: Any
    conventions: dict[str, Any]
    trains = True
    profile_steps = 0
    keeps_best = False

    def __init__(self, config: Any, console: Console | None, shapes: Shapes | None) -> None:
        self.config, self.given = config, shapes
        self.console = console or Console(stderr=True)
        self.teacher: dict[str, Any] = {}
        self.placement: dict[str, Any] = {}
        self.profile: Profile | None = None
        self.loggers: Sequence[Any] = ()

    def open_shapes(self, data: DataConfig, parts: bool = False) -> Shapes:
        """The shapes that were given, or those that the settings name."""
        if self.given is not None:
            return self.given
        from_first(lambda: verify_shards_of(data, self.console))
        return prepare_shapes(data, self.config.seed, self.console, parts=parts)

    @abstractmethod
    def read_data(self, resumed: Resumed | None) -> None:
        """Read the shapes and check them; nothing is written yet."""

    def fingerprint(self) -> str:
        """Of the shapes: is it the data a run started with?"""
        return fingerprint(self.shapes)

    @abstractmethod
    def prepare(self, run: Path, resumed: Resumed | None) -> None:
        """Build the model and put it and what it trains and is tested on onto the device; take up what a
        checkpoint says beside weights, or look at the model before its first step.
        """

    @abstractmethod
    def build_optimizer(self) -> AdamW:
        """The optimizer over the model's parameters."""

    @staticmethod
    @abstractmethod
    def losses(model: Any, *batch: Any) -> dict[str, Tensor]:
        """From the model and a batch's inputs to losses by name."""

    @abstractmethod
    def announce(self, computing: str) -> str:
        """Model and data, for the line at the start of a run; `computing` says in what and on what."""

    @abstractmethod
    def batches(self, first: int, stop: int) -> AbstractContextManager[Iterator[Batch]]:
        """This process's micro-batches of steps `first` to `stop`."""

    def measures_after(self, epoch: int, last: bool) -> bool:
        """Whether `measure_epoch` has something to do after so many epochs; alike in all processes."""
        return True

    @abstractmethod
    def measure_epoch(self, run: Path, epoch: int, step: int, log: Metrics) -> None:
        """Measure the model between two epochs."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """What state.json holds of this task alone."""

    @abstractmethod
    def ended(self, run: Path, checkpoint: Path | None, stopped_by: str | None) -> R:
        """The result of a run that a signal stopped, or that only timed its steps."""

    @abstractmethod
    def evaluate(self, run: Path, checkpoint: Path | None, step: int, log: Metrics | None) -> R:
        """Test the model and say how it does; without a checkpoint, the model that was restored."""


def run_task(task: Task[R], resume: Path | str | None) -> R:
    """Train as the task's `config` says and evaluate; with `resume`, continue bit by bit.

    Under torchrun each process calls this. The first one writes; what is computed does not depend on how many
    they are, but for the order of sums.

    Raises:
        InputError: anything wrong with the settings, the data, the weights or the disk. Data and settings are
            checked before the run folder is made.
        SaveFailed: the last checkpoint could not be written; older ones are as they were.
        NonFiniteLoss: the loss diverged; the last good checkpoint stays.
        RankLost: another process of the job is gone.
    """
    config = task.config
    with process_group(config.device) as task.device:
        task.dtype = resolve_precision(config.precision, task.device)
        if rank() > 0:
            task.console = Console(quiet=True)
        for logger in task.loggers:
            log_function(logger)
        if task.trains:
            check_batch(config.optim, world_size())
        with open_run(config, resume, task.console) as (run, resumed):
            return _run(task, run, resumed)


def _run(task: Task[R], run: Path, resumed: Resumed | None) -> R:
    config, device, console, first = task.config, task.device, task.console, rank() == 0
    batch_size = config.optim.batch_size

    # Data. The run folder is made when it is known to be good.
    task.read_data(resumed)
    if task.trains and task.train_count < batch_size:
        raise InputError(
            f"optim.batch_size must be at most the {task.train_count} shapes to train on, got {batch_size}"
        )
    data = task.fingerprint()
    if resumed is not None and resumed.state["data"] != data:
        raise InputError(
            f"{resumed.checkpoint} was trained on {resumed.state['data_name']}, other shapes than "
            f"{task.shapes.name} holds now"
        )

    # Model, optimizer, resume.
    with keep_config(run, config) if first else nullcontext():
        task.prepare(run, resumed)
        if task.trains:
            space = ""
            if not task.profile_steps:
                keep, best = config.save.keep, task.keeps_best
                space = from_first(lambda: check_space(run, task.model, keep, console, best))
            optimizer = task.build_optimizer()
            step, skipped_in_a_row = 0, 0
            if resumed is not None:
                load_weights(resumed.checkpoint / "model.safetensors", task.model)
                load_optimizer(resumed.checkpoint / "optimizer.safetensors", task.model, optimizer)
                step, skipped_in_a_row = resumed.state["step"], resumed.state.get("skipped_in_a_row", 0)
    if not task.trains:
        return task.evaluate(run, None, 0, None)
    if first and resumed is not None and resumed.run.resolve() == run.resolve():
        set_damaged_aside(resumed.checkpoint)
    losses = LossModule(task.model, task.losses, config.optim.sync_norm)
    if config.optim.recompute:
        recompute_blocks(task.model)
    task.model.train()

    steps_per_epoch = task.train_count // batch_size
    total = steps_per_epoch * num_epochs(config.optim)
    where = f"{device}, {world_size()} processes" if world_size() > 1 else str(device)
    announced = task.announce(f"{str(task.dtype)[6:]} on {where}")
    say(console, f"{announced} | {total} steps of {batch_size}{space} | run {run}")

    # Loop.
    def first_batch() -> Batch:
        with task.batches(step, step + 1) as batches:
            return next(batches)

    stop = step + steps_profiled(task.profile_steps) if task.profile_steps else total
    with task.batches(step, stop) as batches:
        compile_losses(losses, config, first_batch, device, task.dtype, console)
        loop = Loop(
            config,
            averaged(losses, device),
            optimizer,
            batches,
            device,
            task.dtype,
            steps_per_epoch,
            step,
            skipped_in_a_row,
            lambda: last_good(run),
        )
        in_step = lost_ranks(lambda: f"in step {loop.step + 1}; {last_good(run)}")
        if task.profile_steps:
            folder = run / "profile" if first else None
            with in_step:
                task.profile = profile(loop, losses, task.profile_steps, folder, console)
            return task.ended(run, None, None)
        folder = run if first else None
        described = describe_data(task.shapes, config.data.path) | task.placement if first else {}
        record = RunRecord(folder, device, described, task.teacher, step)
        log = Metrics(folder, console, config.save.log_every, config.save.tensorboard, step, task.loggers)
        stopped, unread = False, list[StepValues]()
        with closing(log), record.running(lambda: loop.step):
            with signals_as_flag() as received, log.showing(total, step), in_step:
                while loop.step < total and not stopped:
                    unread.append(loop.advance(received))
                    epoch, last = loop.finished_epoch, loop.step == total
                    measures = epoch > 0 and task.measures_after(epoch, last)
                    saves = epoch > 0 and epoch % config.save.every == 0
                    if not (measures or saves or loop.is_read(log.every)):
                        continue
                    stopped = loop.read(unread, log)
                    unread.clear()
                    if loop.step % log.every == 0:
                        record.watch()
                    if measures:
                        task.measure_epoch(run, epoch, loop.step, log)
                    if saves and first and not last:
                        try:
                            _save(task, run, data, loop, record)
                        except SaveFailed as error:
                            warn(console, f"{error}; training goes on")
                checkpoint = checkpoint_folder(run, loop.step)
                if first:
                    checkpoint = _save(task, run, data, loop, record)

            # Evaluate.
            if stopped or received:
                name = signal.Signals(received[0] if received else signal.SIGTERM).name
                record.update(loop.step, name)
                return task.ended(run, checkpoint, name)
            record.update(loop.step, "finished")
            with lost_ranks(lambda: f"in the evaluation; {last_good(run)}"):
                result = task.evaluate(run, checkpoint, loop.step, log)
            record.update(loop.step, "finished")
            return result


def _save(task: Task[R], run: Path, data: str, loop: Loop, record: RunRecord) -> Path:
    """Write a checkpoint of the run."""
    state = {
        "step": loop.step,
        "skipped_in_a_row": loop.skipped_in_a_row,
        "stream": VERSION,
        "data": data,
        "data_name": task.shapes.name,
        "conventions": task.conventions,
        "teacher": task.teacher,
        **task.state(),
        "config": task.config.to_dict(),
        "versions": versions(),
    }
    record.update(loop.step)
    try:
        return save_checkpoint(run, task.model, loop.optimizer, state, task.config.save.keep)
    except SaveFailed as error:
        raise SaveFailed(f"{error}; {last_good(run)}") from error


@contextmanager
def signals_as_flag() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in a list instead of dying in the middle of a step; a second one dies at
    once. Outside the main thread, where no signal arrives, the list stays empty.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def note(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        signal.signal(number, previous[signal.Signals(number)])

    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
