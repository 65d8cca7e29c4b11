"""A downstream run: a model trained on labelled shapes, its best weights kept, tested in the end.

<run>/config.yaml, run.json, metrics.jsonl, tensorboard/, checkpoints/    as in pretraining
<run>/best/model.safetensors                                              the weights that the result is of
<run>/result.json                                                         how they do on the test set
"""

import shutil
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Generic

from recon_fast.checkpoint import load_weights, save_weights, weights_metadata
from recon_fast.checkpoint.training import SaveFailed, check_space, last_good, load_optimizer, save_checkpoint
from recon_fast.console import say
from recon_fast.data.batches.labelled import LabelledStream
from recon_fast.data.batches.resident import Batch
from recon_fast.data.batches.stream import VERSION
from recon_fast.data.conventions import check_conventions
from recon_fast.errors import InputError
from recon_fast.models import Classifier, PartSegmenter
from recon_fast.schema import write_json
from recon_fast.tasks.doubts import say_doubts
from recon_fast.tasks.task import C, D, DownstreamResult, M, S, Task
from recon_fast.training.adamw import AdamW
from recon_fast.training.compiled import compile_if_wanted
from recon_fast.training.distributed import Terms
from recon_fast.training.loop import Loop
from recon_fast.training.memory import recompute_blocks
from recon_fast.training.metrics import Metrics
from recon_fast.training.optim import downstream_groups
from recon_fast.training.record import RunRecord, describe_data, versions
from recon_fast.training.setup import Start, open_run, run_folder
from recon_fast.training.signals import signals_as_flag


def run_task(task: Task[C, M, D, S], resume: Path | str | None) -> DownstreamResult[S]:
    """Train as the task's `config` says, and test; with `resume`, continue bit by bit.

    Raises:
        InputError: anything wrong with the settings, the data, the weights or the disk.
    """
    config, console, splits = task.config, task.console, task.splits
    if len(splits.train) < config.optim.batch_size and not config.evaluate:
        raise InputError(
            f"optim.batch_size must be at most the {len(splits.train)} shapes to train on, "
            f"got {config.optim.batch_size}"
        )
    with open_run(config, resume, console) as (run, start):
        data = task.fingerprint()
        if start is not None and start.state["data"] != data:
            raise InputError(
                f"{start.checkpoint} was trained on other shapes than {task.shapes.name} holds now"
            )
        with run_folder(run, config):
            task.model, trained = task.restore() if config.evaluate else task.build()
            for text in check_conventions(task.shapes, task.known(trained)) if trained else []:
                say(console, text, style="yellow")
            task.model.to(task.device)
            space = "" if config.evaluate else check_space(run, task.model, config.save.keep, console, True)
            train_set = None if config.evaluate else task.gather(splits.train)
            select_set = None if config.evaluate or splits.select is None else task.gather(splits.select)
            test_set = task.gather(splits.test)
        if not config.evaluate:
            say_doubts(task.shapes, splits.train, splits.test, console)
        if train_set is None:
            return _conclude(task, run, test_set, None)
        return _Training(task, run, start, data, trained, space, train_set, select_set, test_set).result()


class _Training(Generic[C, M, D, S]):
    """The training of a run from its first step, or from where it was left, to its result."""

    def __init__(
        self,
        task: Task[C, M, D, S],
        run: Path,
        start: Start | None,
        data: str,
        trained: dict[str, Any],
        space: str,
        train_set: D,
        select_set: D | None,
        test_set: D,
    ) -> None:
        self.task: Task[C, M, D, S] = task
        self.run, self.data, self.trained, self.space = run, data, trained, space
        self.train_set, self.select_set, self.test_set = train_set, select_set, test_set
        config = task.config
        self.config = config
        groups = downstream_groups(
            task.model, config.optim.lr, config.optim.weight_decay, config.head_factor, task.frozen
        )
        self.optimizer = AdamW(groups, betas=(0.9, config.optim.beta2))
        self.first, skipped = 0, 0
        self.best: dict[str, Any] = {"epoch": 0, task.metric: -1.0}  # None where nothing is selected on
        if start is not None:
            load_weights(start.checkpoint / "model.safetensors", task.model)
            load_optimizer(start.checkpoint / "optimizer.safetensors", task.model, self.optimizer)
            self.first, skipped, self.best = (start.state[k] for k in ("step", "skipped_in_a_row", "best"))
        self.terms = Terms(task.losses(), sync_norm=False)
        if config.optim.recompute:
            recompute_blocks(task.model)
        task.model.train()
        compile_if_wanted(
            config.compile,
            self.terms,
            lambda: next(self._batches()),
            config,
            task.device,
            task.dtype,
            task.console,
        )
        self.loop = Loop(
            config,
            self.terms,
            self.optimizer,
            self._batches(),
            task.device,
            task.dtype,
            len(train_set) // config.optim.batch_size,
            self.first,
            skipped,
            lambda: last_good(run),
        )

    def _batches(self) -> Iterator[Batch]:
        optim = self.config.optim
        stream = LabelledStream(
            self.train_set, self.task.change, self.config.seed, optim.batch_size, optim.accumulate, self.first
        )
        return iter(stream)

    def result(self) -> DownstreamResult[S]:
        """Train and test."""
        task, config, loop = self.task, self.config, self.loop
        self._announce()
        data = describe_data(task.shapes, config.data.path)
        self.record = RunRecord(self.run, task.device, data, {}, self.first)
        self.log = Metrics(self.run, task.console, config.save.log_every, config.save.tensorboard, self.first)
        with closing(self.log), self.record.running(lambda: loop.step):
            with signals_as_flag() as received, self.log.showing(loop.total, self.first):
                stopped = loop.run(
                    self.log, received, lambda epoch: True, self._after_epoch, self.record.watch
                )
                self._save()
            if stopped:
                name = signal.Signals(received[0]).name
                self.record.update(loop.step, name)
                return DownstreamResult(self.run, None, None, name)
            if self.select_set is None:
                save_best(self.run, task.model, self.trained)
            load_weights(self.run / "best" / "model.safetensors", task.model)
            result = _conclude(task, self.run, self.test_set, self.best["epoch"])
            self.record.update(loop.step, "finished")
        return result

    def _announce(self) -> None:
        task, config, splits = self.task, self.config, self.task.splits
        parameters = sum(p.numel() for p in task.model.parameters() if p.requires_grad)
        sizes = ", ".join(f"{count} {name}" for name, count in task.sizes().items())
        say(
            task.console,
            f"{config.command} on {task.shapes.name}: {len(splits.train)} shapes to train, "
            f"{0 if splits.select is None else len(splits.select)} to select ({splits.selected_on}), "
            f"{len(splits.test)} to test, {sizes} | "
            f"{parameters:,} parameters learn, {str(task.dtype)[6:]} on {task.device} | "
            f"{self.loop.total} steps of {config.optim.batch_size}{self.space} | run {self.run}",
        )

    def _save(self) -> None:
        state = {
            "step": self.loop.step,
            "skipped_in_a_row": self.loop.skipped_in_a_row,
            "stream": VERSION,
            "data": self.data,
            "data_name": self.task.shapes.name,
            "conventions": self.trained,
            "teacher": {},
            "before": None,
            "best": self.best,
            "config": self.config.to_dict(),
            "versions": versions(),
        }
        self.record.update(self.loop.step)
        save_checkpoint(self.run, self.task.model, self.optimizer, state, self.config.save.keep)

    def _after_epoch(self, epoch: int) -> None:
        task, best = self.task, self.best
        if self.select_set is None:
            best.update({"epoch": epoch, task.metric: None})
        else:
            value = task.measure(self.select_set).summary()[task.metric]
            self.log.write(
                self.loop.step, {"epoch": epoch - 1, f"{task.splits.selected_on}_{task.metric}": value}
            )
            if value > best[task.metric]:
                best.update({"epoch": epoch, task.metric: value})
                save_best(self.run, task.model, self.trained)
        if epoch % self.config.save.every == 0 and self.loop.step < self.loop.total:
            try:
                self._save()
            except SaveFailed as error:
                say(task.console, f"{error}; training goes on", style="yellow")


def save_best(run: Path, model: Classifier | PartSegmenter, trained: dict[str, Any]) -> None:
    """Put the weights into best/, whole or not at all; `trained` are the conventions of the clouds."""
    folder, aside = run / "best", run / ".best.tmp"
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        save_weights(model, aside / "model.safetensors", weights_metadata(model, None, trained))
        shutil.rmtree(folder, ignore_errors=True)
        aside.rename(folder)
    except OSError as error:
        raise SaveFailed(f"{folder} cannot be written: {error}") from error


def _conclude(task: Task[C, M, D, S], run: Path, test_set: D, epoch: int | None) -> DownstreamResult[S]:
    """Test, write what the run leaves, and say it, with a warning where a number is not what it seems."""
    config, shapes, splits, console = task.config, task.shapes, task.splits, task.console
    scores = task.measure(test_set)
    voted = task.vote(test_set) if config.votes else None
    warnings = say_doubts(shapes, None if config.evaluate else splits.train, splits.test, console)
    result = {
        "task": config.command,
        "data": shapes.name,
        "num_points": config.data.num_points,
        **task.sizes(),
        "checkpoint": config.checkpoint,
        "seed": config.seed,
        "train": len(splits.train),
        "test": len(splits.test),
        "selected_on": None if epoch is None else splits.selected_on,
        "epoch": epoch,
        **scores.summary(),
        **task.details(scores, voted),
        "votes": config.votes,
        "warnings": warnings,
        "versions": versions(),
    }
    try:
        write_json(run / "result.json", result)
        task.write(run, test_set, scores)
    except OSError as error:
        raise InputError(f"the result cannot be written to {run}: {error.strerror or error}") from error
    if table := task.table(scores):
        say(console, table)
    chosen = "" if epoch is None else f"; weights of epoch {epoch}, chosen by: {splits.selected_on}"
    say(console, f"{shapes.name}: {task.sentence(scores, voted)}{chosen}; {run / 'result.json'}")
    if epoch is not None and splits.selected_on == "test":
        say(console, "official protocol: the test set chose the epoch, so this is optimistic", style="yellow")
    return DownstreamResult(run, scores, voted)
