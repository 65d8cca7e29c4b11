"""The pretraining loop: prepare, build, resume, train, probe, save. It reads from top to bottom."""

import signal
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from recon_fast.checkpoint import load_initial, load_weights
from recon_fast.checkpoint.training import (
    SaveFailed,
    check_space,
    checkpoint_folder,
    last_good,
    load_optimizer,
    save_checkpoint,
    set_damaged_aside,
)
from recon_fast.config import PretrainConfig
from recon_fast.console import say
from recon_fast.data.batches.placement import choose_placement, describe_placement
from recon_fast.data.batches.resident import Batch, Draw, ResidentShapes
from recon_fast.data.batches.stream import VERSION, BatchStream
from recon_fast.data.conventions import training_conventions
from recon_fast.data.open import fingerprint, prepare_shapes, verify_shards_of
from recon_fast.data.shapes import Shapes
from recon_fast.device import resolve_precision
from recon_fast.distributed import rank, world_size
from recon_fast.errors import InputError
from recon_fast.models import build_model
from recon_fast.tasks.probe import ProbeResult
from recon_fast.training.compiled import compile_if_wanted
from recon_fast.training.distributed import Terms, averaged, from_first, lost_ranks, process_group
from recon_fast.training.loop import Loop
from recon_fast.training.memory import check_memory, recompute_blocks
from recon_fast.training.metrics import Metrics
from recon_fast.training.optim import build_optimizer, num_epochs
from recon_fast.training.profile import Profile, profile, steps_profiled
from recon_fast.training.record import RunRecord, describe_data, versions
from recon_fast.training.report import run_probe, show_probe
from recon_fast.training.setup import (
    Start,
    check_batch,
    check_same_teacher,
    feature_dim,
    open_run,
    prepare_features,
    prepare_probe_shapes,
    run_folder,
    split_probe,
)
from recon_fast.training.signals import signals_as_flag


@dataclass
class PretrainResult:
    """How a run ended."""

    checkpoint: Path | None  # None of a profile
    before: ProbeResult | None  # encoder at initialisation
    after: ProbeResult | None  # None too where the run was stopped
    stopped_by: str | None = None  # name of the signal
    profile: Profile | None = None


def pretrain(
    config: PretrainConfig,
    resume: Path | str | None = None,
    console: Console | None = None,
    shapes: Shapes | None = None,
    profile_steps: int = 0,
) -> PretrainResult:
    """Pretrain as `config` says; with `resume`, continue that run or checkpoint bit by bit.

    Under torchrun each process calls this. The first one writes; what is computed does not depend on how many
    they are, but for the order of sums.

    Args:
        config: settings.
        resume: folder of a run, one of its checkpoints, or "auto": the run in `config.out` if it has a
            checkpoint, else a new one.
        console: where lines and progress go; stderr by default.
        shapes: shapes in memory, in place of those that `config.data.path` names.
        profile_steps: above 0 it only times that many steps, see `recon_fast.training.profile`; the folder of
            the run gets profile/ and no checkpoint.

    Raises:
        InputError: anything wrong with the settings, the data, the weights or the disk. Data and settings are
            checked before the run folder is made.
        SaveFailed: the last checkpoint could not be written; older ones are as they were.
        NonFiniteLoss: the loss diverged; the last good checkpoint stays.
        RankLost: another process of the job is gone.
    """
    console = console or Console(stderr=True)
    with process_group(config.device) as device:
        if rank() > 0:
            console = Console(quiet=True)
        check_batch(config.optim, world_size())
        check_memory(config.model, device)
        with open_run(config, resume, console) as (run, start):
            return _pretrain(config, run, start, console, shapes, profile_steps, device)


def _pretrain(
    config: PretrainConfig,
    run: Path,
    start: Start | None,
    console: Console,
    shapes: Shapes | None,
    profile_steps: int,
    device: torch.device,
) -> PretrainResult:
    first = rank() == 0
    dtype = resolve_precision(config.precision, device)
    if start is None and config.init is not None and not Path(config.init).expanduser().is_file():
        raise InputError(f"init must be a file of weights, got {config.init}")

    # Data, then teachers: the run folder is made between them, when the data is known to be good.
    if shapes is None:
        from_first(lambda: verify_shards_of(config.data, console))
        shapes = prepare_shapes(config.data, config.seed, console)
    train_rows = np.arange(len(shapes)) if config.data.split == "all" else np.flatnonzero(~shapes.held_out)
    batch_size = config.optim.batch_size
    if len(train_rows) < batch_size:
        raise InputError(
            f"optim.batch_size must be at most the {len(train_rows)} shapes to train on, got {batch_size}"
        )
    if config.model.single_modal and shapes.labels is None:
        raise InputError(f"model.single_modal needs labels, and {shapes.name} has none")
    data = fingerprint(shapes)
    if start is not None and start.state["data"] != data:
        raise InputError(
            f"{start.checkpoint} was trained on {start.state['data_name']}, other shapes than {shapes.name} "
            "holds now"
        )
    probed = None if profile_steps else prepare_probe_shapes(config, shapes, console)
    class_names = shapes.class_names if probed is None else probed.class_names
    with run_folder(run, config) if first else nullcontext():
        if shapes.features is not None:  # at hand in every process, and may be mapped
            features = prepare_features(shapes, class_names, config, console)
        else:
            features = from_first(lambda: prepare_features(shapes, class_names, config, console))
        teacher = features.teacher if features else {}
        if start is not None:
            check_same_teacher(start.state["teacher"], teacher, start.checkpoint)
        image, text = (features.image, features.text) if features else (None, None)
        model_config = replace(
            config.model,
            image_dim=feature_dim(image, config.model.image_dim, "image", console),
            text_dim=feature_dim(text, config.model.text_dim, "text", console),
        )
        placement = choose_placement(config.data.placement, shapes, features, train_rows, device)
        train_set = ResidentShapes(shapes, features, train_rows, device, placement)
        placed, said = describe_placement(train_set.placement, shapes, features, train_rows)
        probe_data = None if probed is None else split_probe(config, probed, features, device)

        torch.manual_seed(config.seed)
        model = build_model(model_config).to(device)
        space = (
            "" if profile_steps else from_first(lambda: check_space(run, model, config.save.keep, console))
        )
        if config.init is not None and start is None:
            say(console, load_initial(config.init, model))
        optimizer = build_optimizer(model, config.optim)
        step, before, skipped_in_a_row = 0, None, 0
        if start is not None:
            load_weights(start.checkpoint / "model.safetensors", model)
            load_optimizer(start.checkpoint / "optimizer.safetensors", model, optimizer)
            step = start.state["step"]
            skipped_in_a_row = start.state.get("skipped_in_a_row", 0)
            if (found := start.state["before"]) is not None:
                before = ProbeResult(found["svm"], found["zero_shot"], found["chance"])
        elif probe_data is not None:
            before = run_probe(model, probe_data, config, dtype, console, "at initialisation")

    terms = Terms(model, config.optim.sync_norm)
    if config.optim.recompute:
        recompute_blocks(model)

    if first and start is not None and start.checkpoint.parent.parent.resolve() == run.resolve():
        set_damaged_aside(start.checkpoint)
    steps_per_epoch = len(train_set) // batch_size
    total = steps_per_epoch * num_epochs(config.optim)
    parameters = sum(p.numel() for p in model.parameters())
    where_to = f"{device}, {world_size()} processes" if world_size() > 1 else str(device)
    say(
        console,
        f"{type(model).__name__}, {parameters / 1e6:.1f} M parameters, {str(dtype)[6:]} on {where_to} | "
        f"{len(train_set)} shapes of {shapes.name}, {said} | {total} steps of {batch_size}{space} | "
        f"run {run}",
    )

    def save() -> Path:
        state = {
            "step": loop.step,
            "skipped_in_a_row": loop.skipped_in_a_row,
            "stream": VERSION,
            "data": data,
            "data_name": shapes.name,
            "conventions": training_conventions(shapes, config.data.num_points),
            "teacher": teacher,
            "before": asdict(before) if before else None,
            "config": config.to_dict(),
            "versions": versions(),
        }
        record.update(loop.step)
        try:
            return save_checkpoint(run, model, optimizer, state, config.save.keep)
        except SaveFailed as error:
            raise SaveFailed(f"{error}; {last_good(run)}") from error

    def where() -> str:
        return f"in step {loop.step + 1}; {last_good(run)}"

    def probe_due(epoch: int) -> bool:
        return config.probe.every > 0 and epoch % config.probe.every == 0 and probe_data is not None

    def save_due(epoch: int) -> bool:
        return epoch % config.save.every == 0

    def due(epoch: int) -> bool:
        return probe_due(epoch) or save_due(epoch)

    def after_epoch(epoch: int) -> None:
        if loop.step == total:
            return
        if probe_due(epoch) and probe_data is not None:
            result = run_probe(model, probe_data, config, dtype, console, f"after epoch {epoch}")
            log.write(loop.step, result.scores())
        if first and save_due(epoch):
            try:
                save()
            except SaveFailed as error:
                say(console, f"{error}; training goes on", style="yellow")

    how = Draw(config.data.num_points, config.data.rotate, config.model.num_group, config.seed)
    accumulate = config.optim.accumulate
    stop = step + steps_profiled(profile_steps) if profile_steps else total
    with BatchStream(train_set, how, batch_size, accumulate, step, stop) as batches:

        def first_batch() -> Batch:
            rows = batches.rows(torch.tensor([step * accumulate]))[0]
            return train_set.batch(rows, step, how)

        model.train()
        compile_if_wanted(config.compile, terms, first_batch, config, device, dtype, console)
        loop = Loop(
            config,
            averaged(terms, device),
            optimizer,
            batches,
            device,
            dtype,
            steps_per_epoch,
            step,
            skipped_in_a_row,
            lambda: last_good(run),
        )
        if profile_steps:
            folder = run / "profile" if first else None
            with lost_ranks(where):
                costs = profile(loop, terms, profile_steps, folder, console)
            return PretrainResult(None, None, None, profile=costs)
        described = describe_data(shapes, config.data.path) | placed if first else {}
        record = RunRecord(run if first else None, device, described, teacher, step)
        log = Metrics(run if first else None, console, config.save.log_every, config.save.tensorboard, step)
        with closing(log), record.running(lambda: loop.step):
            with signals_as_flag() as received, log.showing(total, step), lost_ranks(where):
                stopped = loop.run(log, received, due, after_epoch, record.watch)
                checkpoint = save() if first else checkpoint_folder(run, loop.step)
            stopped_by = None
            if stopped or received:
                stopped_by = signal.Signals(received[0] if received else signal.SIGTERM).name
            record.update(loop.step, stopped_by or "finished")
            if stopped_by is not None or probe_data is None:
                return PretrainResult(checkpoint, before, None, stopped_by)
            try:
                with lost_ranks(lambda: f"in the last probe; {last_good(run)}"):
                    after = run_probe(model, probe_data, config, dtype, console, "now")
            except KeyboardInterrupt:
                return PretrainResult(checkpoint, before, None, "SIGINT")
            log.write(loop.step, after.scores())
            show_probe(console, probe_data, before, after)
            return PretrainResult(checkpoint, before, after)
