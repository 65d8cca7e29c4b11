"""What a run needs before its first step: settings that match, a folder, teacher features, a probe."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import yaml
from rich.console import Console

from recon_fast.checkpoint.training import find_checkpoint, list_checkpoints
from recon_fast.config import DataConfig, OptimConfig, PretrainConfig
from recon_fast.console import ProgressBars, say
from recon_fast.data.batches.resident import ResidentShapes
from recon_fast.data.batches.stream import VERSION
from recon_fast.data.batches.transforms import standardize
from recon_fast.data.conventions import check_conventions, training_conventions
from recon_fast.data.open import prepare_shapes
from recon_fast.data.shapes import Features, Rows, Shapes
from recon_fast.device import resolve_device
from recon_fast.errors import InputError
from recon_fast.tasks.doubts import score_doubts
from recon_fast.tasks.probe import ProbeData
from recon_fast.teachers import compute_features
from recon_fast.training.distributed import from_first
from recon_fast.training.owner import LOCK, owned

# Settings that do not change what is computed, so a resumed run may change them.
_FREE_ON_RESUME = (
    "out", "init", "device", "data.path", "data.workers", "data.on_problem", "data.placement",
    "teacher.store", "save", "probe", "optim.skip_limit", "optim.recompute", "compile", "checkpoint",
)  # fmt: skip
_CONFIG, _CONFIG_ASIDE = "config.yaml", ".config.yaml.tmp"


def flatten(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as {"optim.lr": ...}."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def check_same_config(old: dict[str, Any], new: dict[str, Any], checkpoint: Path) -> None:
    """Raise unless all settings that a result depends on are the same."""
    old, new = flatten(json.loads(json.dumps(old))), flatten(json.loads(json.dumps(new)))
    changed = [
        f"{key} was {old[key]}, is {new.get(key)}"
        for key in sorted(old)  # a setting that is newer than the checkpoint had its default
        if old[key] != new.get(key) and not any(key == f or key.startswith(f"{f}.") for f in _FREE_ON_RESUME)
    ]
    if changed:
        raise InputError(f"resume must keep the settings of {checkpoint}: {'; '.join(changed)}")


def check_same_teacher(old: dict[str, Any], new: dict[str, Any], checkpoint: Path) -> None:
    """Raise unless the features are of the teachers that the checkpoint saw, wherever their files lie."""
    changed = [
        f"{key} was {old.get(key)}, is {new.get(key)}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and key not in ("image_weights", "text_weights")
    ]
    if changed:
        raise InputError(f"resume must keep the teachers of {checkpoint}: {'; '.join(changed)}")


@dataclass
class Start:
    """What a resumed run starts from."""

    checkpoint: Path
    state: dict[str, Any]  # its state.json
    damaged: list[str]  # what was wrong with newer checkpoints


class RunConfig(Protocol):
    """What a run's folder wants to know of the settings of any command that trains."""

    @property
    def command(self) -> str: ...

    @property
    def out(self) -> str | None: ...

    def to_dict(self) -> dict[str, Any]: ...


def choose_run(config: RunConfig, resume: Path | str | None, console: Console) -> tuple[Path, Start | None]:
    """The folder of the run, and what it starts from if it is resumed.

    Raises:
        InputError: the folder holds something and is not resumed, or the checkpoint cannot be used.
    """
    auto = resume == "auto"
    if auto:
        if config.out is None:
            raise InputError("resume auto needs the folder of the run: --out RUN")
        out = Path(config.out).expanduser()
        resume = out if list_checkpoints(out) else None
    start = None
    if resume is not None:
        start = Start(*find_checkpoint(Path(resume)))
        for text in start.damaged:
            say(console, f"{text}; continuing from {start.checkpoint.name}", style="yellow")
        check_same_config(start.state["config"], config.to_dict(), start.checkpoint)
        drawn = start.state.get("stream", 1)
        if drawn != VERSION:
            raise InputError(
                f"{start.checkpoint} saw batches drawn in another way (stream {drawn}, here {VERSION}); "
                "continue it with the version of recon-fast that began it, or start anew from its weights: "
                f"--init {start.checkpoint / 'model.safetensors'}"
            )
    return _choose_folder(config, start, auto), start


@contextmanager
def open_run(
    config: RunConfig, resume: Path | str | None, console: Console
) -> Iterator[tuple[Path, Start | None]]:
    """The folder of a run, which the first process of the job owns meanwhile, and what it starts from.

    Raises:
        InputError: as `choose_run` and `owned`.
    """
    with ExitStack() as stack:

        def choose() -> tuple[Path, Start | None]:
            run, start = choose_run(config, resume, console)
            stack.enter_context(owned(run))
            return run, start

        yield from_first(choose)


def _choose_folder(config: RunConfig, start: Start | None, auto: bool) -> Path:
    """The folder that the run goes to, which may not hold anything yet unless it is resumed."""
    resumed = None if start is None else start.checkpoint.parent.parent
    if config.out is not None:
        if not config.out.strip():
            raise InputError(f"out must name a folder, got {config.out!r}")
        run = Path(config.out).expanduser()
    elif resumed is not None:
        run = resumed
    else:
        name, number = f"{config.command}-{datetime.now():%Y%m%d-%H%M%S}", 1
        while (run := Path("runs") / (name if number == 1 else f"{name}-{number}")).exists():
            number += 1
    if start is not None and resumed is not None and run.resolve() == resumed.resolve():
        newest = list_checkpoints(run)[-1 - len(start.damaged)]
        if newest.resolve() != start.checkpoint.resolve():
            raise InputError(
                f"resume must name the run's newest checkpoint, {newest}, or get a new --out; "
                f"got {start.checkpoint}"
            )
    elif run.exists() and (not run.is_dir() or any(file.name != LOCK for file in run.iterdir())):
        if auto and any((run / name).is_file() for name in (_CONFIG, _CONFIG_ASIDE)):
            return run  # it ended before its first checkpoint
        hint = f" (or use --resume {run} to continue)" if run.is_dir() and list_checkpoints(run) else ""
        raise InputError(f"out must be a new or empty folder{hint}, got {run}")
    return run


def check_batch(config: OptimConfig, processes: int) -> None:
    """Raise unless each process gets the same part of each micro-batch."""
    if config.batch_size % (config.accumulate * processes):
        raise InputError(
            "optim.batch_size must be a multiple of optim.accumulate times the processes, "
            f"got {config.batch_size}, {config.accumulate} and {processes}"
        )


@contextmanager
def run_folder(run: Path, config: RunConfig) -> Iterator[None]:
    """Make the folder of the run at the start and put the resolved config into it at the end; if anything in
    between fails, leave nothing.
    """
    made = [folder for folder in (run, *run.parents) if not folder.exists()]
    aside = run / _CONFIG_ASIDE
    try:
        try:
            run.mkdir(parents=True, exist_ok=True)
            text = yaml.safe_dump({**config.to_dict(), "out": str(run)}, sort_keys=False)
            aside.write_text(text, encoding="utf-8")
        except OSError as error:
            reason = error.strerror or error
            raise InputError(f"out must be a folder that can be written, got {run}: {reason}") from error
        yield
        aside.replace(run / _CONFIG)
    except BaseException:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
            for folder in made:
                folder.rmdir()
        raise


def prepare_features(
    shapes: Shapes, class_names: list[str], config: PretrainConfig, console: Console
) -> Features | None:
    """Teacher features of all shapes and of `class_names`: packed ones, stored ones, or computed now."""
    features = shapes.features
    if features is None:
        path = Path(config.teacher.store) if config.teacher.store is not None else None
        if path is None and config.data.path is not None:
            data = Path(config.data.path).expanduser()
            path = (data.parent if data.is_file() else data) / ".recon_fast"
        with ProgressBars(console) as bars:
            features = compute_features(
                # Folders are called night_stand; a caption would say night stand.
                replace(shapes, class_names=[name.replace("_", " ") for name in class_names]),
                config.teacher,
                device=str(resolve_device(config.device)),
                store=path,
                progress=bars,
                log=lambda text: say(console, text),
            )
    else:
        names = {kind: features.teacher.get(kind) or "none" for kind in ("image", "text")}
        say(console, f"features came with the shapes: image {names['image']}, text {names['text']}")
        if class_names != shapes.class_names:
            features = replace(features, class_text=None)
    if features is None:
        return None
    is_random = features.teacher.get("weights") == "random"
    if is_random:
        text = "teachers have random weights: they show that training works, real ones give results"
        say(console, text, style="yellow")
    wanted = is_random if config.standardize == "auto" else config.standardize == "on"
    return standardize(features) if wanted else features


def feature_dim(features: Rows | None, wanted: int | None, kind: str, console: Console) -> int | None:
    """Width of the teacher's features, None where there are none or the loss is switched off."""
    if wanted is None:
        return None
    if features is None:
        missing = {"image": "no pictures: csc_img", "text": "no captions: csc_text"}[kind]
        say(console, f"{missing} is off")
        return None
    return features.shape[-1]


def prepare_probe_shapes(config: PretrainConfig, shapes: Shapes, console: Console) -> Shapes | None:
    """The labelled shapes that the encoder is judged on, None (and said so) where there are none."""
    if config.probe.data is not None:
        data = DataConfig(
            path=config.probe.data,
            kind=config.probe.kind,
            num_points=config.data.num_points,
            up=config.probe.up,
            turn_up=config.data.turn_up,
        )
        trained = training_conventions(shapes, config.data.num_points)
        shapes = prepare_shapes(data, config.seed, console)
        for text in check_conventions(shapes, trained, "--probe"):
            say(console, text, style="yellow")
    if shapes.labels is None or not shapes.held_out.any() or shapes.held_out.all():
        say(console, f"no probe: {shapes.name} has no labels or no held-out shapes")
        return None
    return shapes


def split_probe(
    config: PretrainConfig, probed: Shapes, features: Features | None, device: torch.device
) -> ProbeData:
    """Both sides of the probe on the device, at most `probe.max_shapes` of each."""
    rng = np.random.default_rng(config.seed)
    sides = [np.flatnonzero(~probed.held_out), np.flatnonzero(probed.held_out)]
    train, test = (np.sort(rng.permutation(side)[: config.probe.max_shapes]) for side in sides)
    notes = []
    if config.probe.data is None and config.data.split == "all":
        notes.append("these shapes were trained on, without labels")
    notes += score_doubts(probed, train, test)
    # Standardised targets have no mean, so what predictions have of one is error.
    centered = bool(features and features.teacher.get("standardized"))
    if centered:
        notes.append("zero-shot predictions less their mean over the shapes that train the SVM")
    return ProbeData(
        probed.name,
        ResidentShapes(probed, None, train, device),
        ResidentShapes(probed, None, test, device),
        features.class_text if features else None,
        bool(features and features.teacher.get("aligned")),
        centered,
        "; ".join(notes),
    )
