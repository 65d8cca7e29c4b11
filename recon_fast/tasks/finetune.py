"""Fine-tuning of a classifier, and training of a head on a frozen encoder (ReCon, sections 4.1 and 4.2).

<run>/config.yaml, run.json, metrics.jsonl, tensorboard/, checkpoints/    as in pretraining
<run>/best/model.safetensors                                              the weights that the result is of
<run>/result.json, confusion.csv, confusion.png                           how they do on the test set
"""

import json
import shutil
import signal
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor, nn

from recon_fast.checkpoint import load_weights, save_weights, weights_metadata
from recon_fast.checkpoint.restore import load_encoder, restore
from recon_fast.config import ReConConfig
from recon_fast.console import say
from recon_fast.data.conventions import check_conventions
from recon_fast.data.labelled import Change, LabelledStream, SampledShapes, split_off
from recon_fast.data.prepare import fingerprint, prepare_shapes
from recon_fast.data.shapes import Shapes
from recon_fast.data.stream import VERSION
from recon_fast.errors import InputError
from recon_fast.models import Classifier
from recon_fast.tasks.config import FinetuneConfig
from recon_fast.tasks.evaluate import Scores, predict, score, vote, write_confusion
from recon_fast.training.checkpoint import SaveFailed, list_checkpoints, load_optimizer, save_checkpoint
from recon_fast.training.compiled import compile_terms, wants_compile
from recon_fast.training.device import resolve_device, resolve_precision
from recon_fast.training.distributed import Terms
from recon_fast.training.loop import Loop
from recon_fast.training.memory import recompute_blocks
from recon_fast.training.metrics import Metrics
from recon_fast.training.optim import downstream_groups
from recon_fast.training.record import RunRecord, describe_data, versions
from recon_fast.training.setup import choose_run, run_folder
from recon_fast.training.signals import signals_as_flag
from recon_fast.training.step import rehearse


@dataclass
class FinetuneResult:
    """How a run ended."""

    run: Path
    scores: Scores | None  # of the test set; None where the run was stopped
    voted: Scores | None  # likewise; None too where no votes were cast
    stopped_by: str | None = None


class _Output(NamedTuple):
    losses: dict[str, Tensor]


class _Loss(nn.Module):
    """A classifier with its loss, called as a pretraining model is."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, points: Tensor, _image: None, _text: None, label: Tensor, *_: None) -> _Output:
        """points [B, N, 3] and label [B] -> the cross-entropy by name."""
        return _Output({"ce": nn.functional.cross_entropy(self.model(points).float(), label)})


@dataclass
class Splits:
    """Rows of the shapes for each purpose, and what picks the checkpoint."""

    train: NDArray[np.int64]
    select: NDArray[np.int64] | None
    test: NDArray[np.int64]
    selected_on: str  # "validation", "test" or "last epoch"


def choose_splits(shapes: Shapes, config: FinetuneConfig) -> Splits:
    """Rows to train, to select and to test on. Raises InputError where labels or a side are missing."""
    if shapes.labels is None:
        raise InputError(f"data must have labels, got none in {shapes.name}")
    test, train = shapes.rows("test"), shapes.rows("trainval")
    for name, rows in (("train on", train), ("test on", test)):
        if not len(rows):
            raise InputError(f"data must have shapes to {name}, got none in {shapes.name}")
    if config.official_protocol:
        return Splits(train, test, test, "test")
    if shapes.validation is not None and shapes.validation.any():
        return Splits(shapes.rows("train"), shapes.rows("val"), test, "validation")
    validating = split_off(shapes.labels, train, config.validation, config.seed)
    if not validating.any():
        return Splits(train, None, test, "last epoch")
    return Splits(train[~validating], train[validating], test, "validation")


def build_classifier(
    config: FinetuneConfig, num_classes: int, console: Console
) -> tuple[Classifier, dict[str, Any]]:
    """The classifier to train, and what the checkpoint was trained on (see `training_conventions`)."""
    m = config.model
    torch.manual_seed(config.seed)
    head: Literal["mlp3", "linear"] = "linear" if config.protocol == "linear" else "mlp3"
    changes: dict[str, Any] = {"num_group": m.num_group, "group_size": m.group_size, "drop_path": m.drop_path}
    if m.skip_near_origin is not None:
        changes["skip_near_origin"] = m.skip_near_origin
    if config.checkpoint is None:
        size = getattr(ReConConfig, "base" if m.size == "auto" else m.size)
        say(console, "no checkpoint: the encoder starts at random", style="yellow")
        return Classifier(size(**changes), num_classes, head), {}
    restored = restore(config.checkpoint, num_group=m.num_group, group_size=m.group_size)
    architecture = restored.model.config
    if m.size != "auto" and getattr(ReConConfig, m.size)().dim != architecture.dim:
        raise InputError(
            f"model.size must be the checkpoint's or auto, got {m.size} and width {architecture.dim}"
        )
    if architecture.arch != "recon":
        raise InputError(f"checkpoint must be of arch recon, got {architecture.arch} in {restored.file}")
    model = Classifier(replace(architecture, **changes), num_classes, head)
    report = load_encoder(config.checkpoint, model)
    say(console, f"encoder of {restored.file}: {report}")
    return model, restored.conventions


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
    console = console or Console(stderr=True)
    device = resolve_device(config.device)
    dtype = resolve_precision(config.precision, device)
    if shapes is None:
        shapes = prepare_shapes(config.data, config.seed, console)
    splits = choose_splits(shapes, config)
    batch_size, accumulate = config.optim.batch_size, config.optim.accumulate
    if len(splits.train) < batch_size and not config.evaluate:
        raise InputError(
            f"optim.batch_size must be at most the {len(splits.train)} shapes to train on, got {batch_size}"
        )
    run, start = choose_run(config, resume, console)
    data = fingerprint(shapes)
    if start is not None and start.state["data"] != data:
        raise InputError(f"{start.checkpoint} was trained on other shapes than {shapes.name} holds now")
    with run_folder(run, config):
        if config.evaluate:
            assert config.checkpoint is not None
            model, trained = _restored_classifier(config, len(shapes.class_names))
        else:
            model, trained = build_classifier(config, len(shapes.class_names), console)
        for text in check_conventions(shapes, trained) if trained else []:
            say(console, text, style="yellow")
        model.to(device)
        sets = [
            None if rows is None else _sampled(shapes, rows, config, model, device)
            for rows in (splits.train if not config.evaluate else None, splits.select, splits.test)
        ]
    train_set, select_set, test_set = sets
    assert test_set is not None
    change = Change(config.augment.scales, config.augment.translate, config.data.rotate)

    def result_of(epoch: int | None, stopped_by: str | None = None) -> FinetuneResult:
        scores = score(predict(model, test_set, dtype), test_set.label)
        voted = vote(model, test_set, dtype, change, config.seed, config.votes) if config.votes else None
        _write_result(run, config, shapes, splits, scores, voted, epoch)
        _show(console, config, shapes, splits, scores, voted, epoch, run)
        return FinetuneResult(run, scores, voted, stopped_by)

    if config.evaluate:
        return result_of(None)
    assert train_set is not None

    groups = downstream_groups(
        model, config.optim.lr, config.optim.weight_decay, config.head_factor, config.protocol != "full"
    )
    optimizer = torch.optim.AdamW(groups, betas=(0.9, config.optim.beta2), fused=True)
    step, skipped = 0, 0
    best: dict[str, Any] = {"epoch": 0, "accuracy": -1.0}  # None where nothing is selected on
    if start is not None:
        load_weights(start.checkpoint / "model.safetensors", model)
        load_optimizer(start.checkpoint / "optimizer.safetensors", model, optimizer)
        step, skipped, best = (start.state[key] for key in ("step", "skipped_in_a_row", "best"))
    terms = Terms(_Loss(model), sync_norm=False)
    if config.optim.recompute:
        recompute_blocks(model)
    steps_per_epoch = len(train_set) // batch_size
    batches = iter(LabelledStream(train_set, change, config.seed, batch_size, accumulate, step))
    model.train()
    if wants_compile(config.compile, device):
        batch = next(iter(LabelledStream(train_set, change, config.seed, batch_size, accumulate, step)))
        compile_terms(terms, lambda: rehearse(terms, batch, config.seed, dtype), device, dtype, console)

    def last_good() -> str:
        kept = list_checkpoints(run)
        return f"the last good checkpoint is {kept[-1]}" if kept else "there is no checkpoint yet"

    loop = Loop(config, terms, optimizer, batches, device, dtype, steps_per_epoch, step, skipped, last_good)

    def save() -> None:
        state = {
            "step": loop.step,
            "skipped_in_a_row": loop.skipped_in_a_row,
            "stream": VERSION,
            "data": data,
            "data_name": shapes.name,
            "conventions": trained,
            "teacher": {},
            "before": None,
            "best": best,
            "config": config.to_dict(),
            "versions": versions(),
        }
        record.update(loop.step)
        save_checkpoint(run, model, optimizer, state, config.save.keep)

    def after_epoch(epoch: int) -> None:
        accuracy = None
        if select_set is not None:
            accuracy = score(predict(model, select_set, dtype), select_set.label).accuracy
            log.write(loop.step, {"epoch": epoch - 1, f"{splits.selected_on}_accuracy": accuracy})
        if accuracy is None:
            best.update(epoch=epoch, accuracy=None)
        elif accuracy > best["accuracy"]:
            best.update(epoch=epoch, accuracy=accuracy)
            _save_best(run, model, trained)
        if epoch % config.save.every == 0 and loop.step < loop.total:
            try:
                save()
            except SaveFailed as error:
                say(console, f"{error}; training goes on", style="yellow")

    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    say(
        console,
        f"{config.protocol} on {shapes.name}: {len(splits.train)} shapes to train, "
        f"{0 if splits.select is None else len(splits.select)} to select ({splits.selected_on}), "
        f"{len(splits.test)} to test, {len(shapes.class_names)} classes | "
        f"{parameters / 1e6:.1f} M parameters learn, {str(dtype)[6:]} on {device} | "
        f"{loop.total} steps of {batch_size} | run {run}",
    )
    record = RunRecord(run, device, describe_data(shapes, config.data.path), {}, step)
    log = Metrics(run, console, config.save.log_every, config.save.tensorboard, step)
    with closing(log), record.running(lambda: loop.step):
        with signals_as_flag() as received, log.showing(loop.total, step):
            stopped = loop.run(log, received, lambda epoch: True, after_epoch, record.watch)
            save()
        if stopped:
            name = signal.Signals(received[0]).name
            record.update(loop.step, name)
            return FinetuneResult(run, None, None, name)
        if select_set is None:
            _save_best(run, model, trained)
        load_weights(run / "best" / "model.safetensors", model)
        result = result_of(best["epoch"])
        record.update(loop.step, "finished")
    return result


def _restored_classifier(config: FinetuneConfig, num_classes: int) -> tuple[Classifier, dict[str, Any]]:
    assert config.checkpoint is not None
    m = config.model
    restored = restore(config.checkpoint, num_group=m.num_group, group_size=m.group_size)
    model = restored.model
    if not isinstance(model, Classifier):
        raise InputError(f"evaluate needs a checkpoint with a classifier, got another in {restored.file}")
    if model.task["num_classes"] != num_classes:
        raise InputError(
            f"{restored.file} tells {model.task['num_classes']} classes apart, the data has {num_classes}"
        )
    return model, restored.conventions


def _sampled(
    shapes: Shapes, rows: NDArray[np.int64], config: FinetuneConfig, model: Classifier, device: torch.device
) -> SampledShapes:
    return SampledShapes(
        shapes,
        rows,
        config.data.num_points,
        config.augment.oversample,
        config.normalize,
        device,
        model.config.skip_near_origin,
    )


def _save_best(run: Path, model: Classifier, trained: dict[str, Any]) -> None:
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


def _write_result(
    run: Path,
    config: FinetuneConfig,
    shapes: Shapes,
    splits: Splits,
    scores: Scores,
    voted: Scores | None,
    epoch: int | None,
) -> None:
    """result.json and the confusion matrix."""
    result = {
        "task": config.command,
        "data": shapes.name,
        "num_points": config.data.num_points,
        "classes": len(shapes.class_names),
        "checkpoint": config.checkpoint,
        "seed": config.seed,
        "train": len(splits.train),
        "test": len(splits.test),
        "selected_on": None if epoch is None else splits.selected_on,
        "epoch": epoch,
        **scores.summary(),
        "voted_accuracy": None if voted is None else voted.accuracy,
        "votes": config.votes,
        "by_class": scores.by_class_name(shapes.class_names),
        "versions": versions(),
    }
    try:
        (run / "result.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
        write_confusion(scores, shapes.class_names, run / "confusion")
    except OSError as error:
        raise InputError(f"the result cannot be written to {run}: {error.strerror or error}") from error


def _show(
    console: Console,
    config: FinetuneConfig,
    shapes: Shapes,
    splits: Splits,
    scores: Scores,
    voted: Scores | None,
    epoch: int | None,
    run: Path,
) -> None:
    """A line for people, and a warning where a number is not what it seems."""
    text = f"{shapes.name}: {scores.accuracy:.2f} %, mean of the classes {scores.mean_class_accuracy:.2f} %"
    if voted is not None:
        text += f", voted {voted.accuracy:.2f} % ({config.votes} votes)"
    if epoch is not None:
        text += f"; weights of epoch {epoch}, chosen by: {splits.selected_on}"
    say(console, f"{text}; {run / 'confusion.png'}")
    if epoch is not None and splits.selected_on == "test":
        say(console, "official protocol: the test set chose the epoch, so this is optimistic", style="yellow")
