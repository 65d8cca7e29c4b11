"""The pretraining loop: prepare, build, resume, train, probe, save. It reads from top to bottom."""

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import recon_fast
from recon_fast.checkpoint import load_initial, load_weights
from recon_fast.config import PretrainConfig
from recon_fast.console import say
from recon_fast.data.prepare import fingerprint, prepare_shapes
from recon_fast.data.resident import ResidentShapes
from recon_fast.data.shapes import Shapes
from recon_fast.errors import InputError
from recon_fast.models import PretrainModel, build_model
from recon_fast.tasks.probe import ProbeData, ProbeResult, probe
from recon_fast.training.checkpoint import (
    find_checkpoint,
    list_checkpoints,
    load_optimizer,
    read_state,
    save_checkpoint,
)
from recon_fast.training.device import autocast, epoch_order, resolve_device, resolve_precision, seed_step
from recon_fast.training.metrics import Metrics
from recon_fast.training.optim import build_optimizer, learning_rate, num_epochs
from recon_fast.training.setup import (
    check_same_config,
    check_same_teacher,
    choose_run_folder,
    feature_dim,
    prepare_features,
    prepare_probe_shapes,
    run_folder,
    split_probe,
)


@dataclass
class PretrainResult:
    """How a run ended."""

    checkpoint: Path
    before: ProbeResult | None  # encoder at initialisation
    after: ProbeResult | None  # None too where the run was stopped
    stopped_by: str | None = None  # name of the signal


class NonFiniteLoss(InputError):
    """A loss became NaN or infinite."""


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


def pretrain(
    config: PretrainConfig,
    resume: Path | None = None,
    console: Console | None = None,
    shapes: Shapes | None = None,
) -> PretrainResult:
    """Pretrain as `config` says; with `resume`, continue that run or checkpoint bit by bit.

    `shapes` in memory take the place of those that `config.data.path` names.

    Raises:
        InputError: anything wrong with the settings, the data, the weights or the disk. Data and settings are
            checked before the run folder is made, and a failed write never touches an older checkpoint.
        NonFiniteLoss: the loss diverged; the last good checkpoint stays.
    """
    console = console or Console(stderr=True)
    device = resolve_device(config.device)
    dtype = resolve_precision(config.precision, device)
    saved: dict[str, Any] | None = None
    if resume is not None:
        resume = find_checkpoint(resume)
        saved = read_state(resume)
        check_same_config(saved["config"], config.to_dict(), resume)
    elif config.init is not None and not Path(config.init).expanduser().is_file():
        raise InputError(f"init must be a file of weights, got {config.init}")
    run = choose_run_folder(config, resume)

    # Data, then teachers: the run folder is made between them, when the data is known to be good.
    if shapes is None:
        shapes = prepare_shapes(config.data, config.seed, console)
    train_rows = np.arange(len(shapes)) if config.data.split == "all" else np.flatnonzero(~shapes.held_out)
    batch_size = config.optim.batch_size
    if len(train_rows) < batch_size:
        raise InputError(
            f"optim.batch_size must be at most the {len(train_rows)} shapes to train on, got {batch_size}"
        )
    if config.model.single_modal and shapes.labels is None:
        raise InputError(f"model.single_modal needs labels, and {shapes.name} has none")
    if saved is not None and saved["data"] != fingerprint(shapes):
        raise InputError(
            f"{resume} was trained on {saved['data_name']}, other shapes than {shapes.name} holds now"
        )
    probed = prepare_probe_shapes(config, shapes, console)
    class_names = shapes.class_names if probed is None else probed.class_names
    with run_folder(run, config):
        features = prepare_features(shapes, class_names, config, console)
        teacher = features.teacher if features else {}
        if resume is not None and saved is not None:
            check_same_teacher(saved["teacher"], teacher, resume)
        image, text = (features.image, features.text) if features else (None, None)
        model_config = replace(
            config.model,
            image_dim=feature_dim(image, config.model.image_dim, "image", console),
            text_dim=feature_dim(text, config.model.text_dim, "text", console),
        )
        train_set = ResidentShapes(shapes, features, train_rows, device)
        probe_data = None if probed is None else split_probe(config, probed, features, device)

        torch.manual_seed(config.seed)
        model = build_model(model_config).to(device)
        if config.init is not None and resume is None:
            say(console, load_initial(config.init, model))
        optimizer = build_optimizer(model, config.optim)
        step, before = 0, None
        if resume is not None and saved is not None:
            load_weights(resume / "model.safetensors", model)
            load_optimizer(resume / "optimizer.safetensors", model, optimizer)
            step = saved["step"]
            before = ProbeResult(**saved["before"]) if saved["before"] else None
        elif probe_data is not None:
            before = run_probe(model, probe_data, config, dtype, console, "at initialisation")

    steps_per_epoch = len(train_set) // batch_size
    total = steps_per_epoch * num_epochs(config.optim)
    parameters = sum(p.numel() for p in model.parameters())
    say(
        console,
        f"{type(model).__name__}, {parameters / 1e6:.1f} M parameters, {str(dtype)[6:]} on {device} | "
        f"{len(train_set)} shapes of {shapes.name} | {total} steps of {batch_size} | run {run}",
    )

    def save() -> Path:
        state = {
            "step": step,
            "data": fingerprint(shapes),
            "data_name": shapes.name,
            "teacher": teacher,
            "before": asdict(before) if before else None,
            "config": config.to_dict(),
            "versions": {"recon_fast": recon_fast.__version__, "torch": torch.__version__},
        }
        return save_checkpoint(run, model, optimizer, state, config.save.keep)

    log = Metrics(run, console, config.save.log_every, config.save.tensorboard, step)
    with closing(log):
        model.train()
        with signals_as_flag() as received, log.showing(total, step):
            while step < total and not received:
                epoch, position = divmod(step, steps_per_epoch)
                rows = epoch_order(config.seed, epoch, len(train_set))[position * batch_size :][:batch_size]
                values = train_step(model, optimizer, train_set, rows, config, step, steps_per_epoch, dtype)
                broken = [f"{name} = {value}" for name, value in values.items() if not math.isfinite(value)]
                if broken:
                    kept = list_checkpoints(run)
                    raise NonFiniteLoss(
                        f"step {step + 1} (epoch {epoch}) is not finite: {', '.join(broken)}; "
                        + (
                            f"the last good checkpoint is {kept[-1]}"
                            if kept
                            else "there is no checkpoint yet"
                        )
                    )
                optimizer.step()
                step += 1
                log.step(step, total, {"epoch": epoch, **values})

                if step % steps_per_epoch == 0 and step < total:
                    done = step // steps_per_epoch
                    if probe_data is not None and config.probe.every and done % config.probe.every == 0:
                        result = run_probe(model, probe_data, config, dtype, console, f"after epoch {done}")
                        log.write(step, {"probe_svm": result.svm, "probe_zero_shot": result.zero_shot})
                    if done % config.save.every == 0:
                        save()
            checkpoint = save()
        if received:
            return PretrainResult(checkpoint, before, None, signal.Signals(received[0]).name)
        if probe_data is None:
            return PretrainResult(checkpoint, before, None)
        try:
            after = run_probe(model, probe_data, config, dtype, console, "now")
        except KeyboardInterrupt:
            return PretrainResult(checkpoint, before, None, "SIGINT")
        log.write(step, {"probe_svm": after.svm, "probe_zero_shot": after.zero_shot})
        show_probe(console, probe_data, before, after)
        return PretrainResult(checkpoint, before, after)


def train_step(
    model: PretrainModel,
    optimizer: torch.optim.Optimizer,
    train_set: ResidentShapes,
    rows: torch.Tensor,
    config: PretrainConfig,
    step: int,
    steps_per_epoch: int,
    dtype: torch.dtype,
) -> dict[str, float]:
    """Gradients of one batch, clipped, and the step's values by name; the optimizer has not stepped yet.

    Args:
        rows: shapes of the batch, indices into `train_set` [batch_size].
        step: counted from 0; with the seed it fixes all that is drawn.
    """
    started = time.perf_counter()
    data_seconds = 0.0
    lr = learning_rate(config.optim, step, steps_per_epoch)
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.zero_grad(set_to_none=True)

    accumulate = config.optim.accumulate
    terms: list[torch.Tensor] = []
    for i, index in enumerate(rows.chunk(accumulate)):
        seed_step(config.seed, step * accumulate + i)
        drawing = time.perf_counter()
        batch = train_set.batch(index, config.data.num_points, config.data.rotate)
        data_seconds += time.perf_counter() - drawing
        with autocast(train_set.device, dtype):
            output = model(batch.points, batch.image_feature, batch.text_feature, batch.label)
        (output.loss / accumulate).backward()
        terms.append(torch.stack([term.detach() for term in output.losses.values()]))
    limit = math.inf if config.optim.clip_grad is None else config.optim.clip_grad
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), limit)

    # The one point of a step where the host waits for the device.
    *means, norm_value = torch.cat([torch.stack(terms).mean(0), norm[None]]).tolist()
    return {
        "lr": lr,
        "clouds": len(rows),
        **dict(zip(output.losses, means, strict=True)),
        "loss": sum(means),
        "grad_norm": norm_value,
        "data_ms": 1e3 * data_seconds,
        "step_ms": 1e3 * (time.perf_counter() - started - data_seconds),
    }


def run_probe(
    model: PretrainModel,
    data: ProbeData,
    config: PretrainConfig,
    dtype: torch.dtype,
    console: Console,
    when: str,
) -> ProbeResult:
    """Probe and say how it went in a line."""
    with console.status(f"probing the encoder {when}"):
        result = probe(model, data, config.data.num_points, dtype)
    scores = {"linear SVM": result.svm, "zero-shot": result.zero_shot}
    said = ", ".join(f"{name} {value:.1f} %" for name, value in scores.items() if value is not None)
    say(console, f"encoder {when}: {said or 'nothing to probe'}")
    return result


def show_probe(console: Console, data: ProbeData, before: ProbeResult | None, after: ProbeResult) -> None:
    """Accuracy at initialisation and now, side by side."""
    table = Table("accuracy, %", "initialisation", "now", "gain")

    def cell(value: float | None, sign: str = "") -> str:
        return "" if value is None else f"{value:{sign}.1f}"

    for name, key in (("linear SVM", "svm"), ("zero-shot", "zero_shot")):
        start, end = getattr(before, key, None), getattr(after, key)
        if end is not None:
            gain = None if start is None else end - start
            table.add_row(name, cell(start), cell(end), cell(gain, "+"))
    say(console, f"held-out shapes of {data.name}" + (f" ({data.note})" if data.note else ""))
    console.print(table)
    count = f"{len(data.train)} shapes train the SVM, {len(data.test)} test"
    say(console, f"{count}; chance {after.chance:.1f} %")
