"""Pretraining: teacher features, a model that learns from them, a probe of what its encoder knows."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from recon_fast.checkpoint import load_initial
from recon_fast.checkpoint.restore import PACKAGED, SHIPPED_FILE, find_weights, restore
from recon_fast.config import DataConfig, PretrainConfig, ReConConfig
from recon_fast.console import ProgressBars, say, warn
from recon_fast.data.batches.resident import (
    PLACES,
    Batch,
    ResidentShapes,
    Sampling,
    choose_placement,
    free_memory,
    needed_bytes,
)
from recon_fast.data.batches.stream import BatchStream
from recon_fast.data.batches.transforms import standardize
from recon_fast.data.conventions import check_conventions, training_conventions
from recon_fast.data.open import prepare_shapes, torch_threads_kept
from recon_fast.data.shapes import Features, Rows, Shapes
from recon_fast.device import resolve_device
from recon_fast.distributed import from_first
from recon_fast.errors import InputError
from recon_fast.models import PretrainModel, build_model
from recon_fast.procedural import procedural_shapes
from recon_fast.teachers import compute_features
from recon_fast.training.folder import Resumed, features_beside
from recon_fast.training.metrics import Metrics
from recon_fast.training.optim import AdamW, build_optimizer
from recon_fast.training.probe import ProbeData, ProbeResult, probe, show_probe
from recon_fast.training.profile import Profile
from recon_fast.training.run import Task, run_task
from recon_fast.training.scores import score_doubts

REAL_SHAPES = PACKAGED / "game_models.h5"  # 233 of Kenney's (CC0), to try encoders of the procedural set on


@dataclass
class PretrainResult:
    """How a run ended."""

    run: Path
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
    loggers: Sequence[Any] = (),
) -> PretrainResult:
    """Pretrain as `config` says; with `resume`, continue that run or checkpoint bit by bit.

    Args:
        config: settings.
        resume: folder of a run, one of its checkpoints, or "auto": the run in `config.out` if it has a
            checkpoint, else a new one.
        console: where lines and progress go; stderr by default.
        shapes: shapes in memory, in place of those that `config.data.path` names.
        profile_steps: above 0 it only times that many steps, see `recon_fast.training.profile`; the folder of
            the run gets profile/ and no checkpoint.
        loggers: each gets every line of the log, see `recon_fast.training.metrics.Metrics`.

    Raises:
        InputError, SaveFailed, NonFiniteLoss, RankLost: see `recon_fast.training.run.run_task`.
    """
    task = Pretraining(config, console, shapes)
    task.profile_steps, task.loggers = profile_steps, loggers
    return run_task(task, resume)


class Pretraining(Task[PretrainResult]):
    """Masked point modelling with contrast against frozen teachers."""

    config: PretrainConfig
    before: ProbeResult | None = None
    init: Path | None = None  # file of the weights to start from

    def read_data(self, resumed: Resumed | None) -> None:
        config = self.config
        check_memory(config.model, self.device)
        if resumed is None and config.init is not None:
            self.init = find_weights(config.init)
        self.shapes = shapes = self.open_shapes(config.data)
        every = config.data.split == "all"
        self.rows = np.arange(len(shapes)) if every else np.flatnonzero(~shapes.held_out)
        self.train_count = len(self.rows)
        self.conventions = training_conventions(shapes, config.data.num_points)
        if config.fresh and self.given is not None:
            raise InputError(f"fresh must be 0 for shapes that are given, got {config.fresh}")
        if config.model.single_modal and shapes.labels is None:
            raise InputError(f"model.single_modal needs labels, and {shapes.name} has none")

    def prepare(self, run: Path, resumed: Resumed | None) -> None:
        config, shapes, console = self.config, self.shapes, self.console
        probed = None if self.profile_steps else prepare_probe_shapes(config, shapes, console)
        names = shapes.class_names if probed is None else probed.class_names
        if shapes.features is not None:  # at hand in every process, and may be mapped
            features = prepare_features(shapes, names, config, console)
        else:
            features = from_first(lambda: prepare_features(shapes, names, config, console))
        self.features, self.teacher = features, features.teacher if features else {}
        if resumed is not None:
            check_same_teacher(resumed.state["teacher"], self.teacher, resumed.checkpoint)
        image, text = (features.image, features.text) if features else (None, None)
        model_config = replace(
            config.model,
            image_dim=feature_dim(image, config.model.image_dim, "image", console),
            text_dim=feature_dim(text, config.model.text_dim, "text", console),
        )
        placement = choose_placement(config.data.placement, shapes, features, self.rows, self.device)
        self.train_set = ResidentShapes(shapes, features, self.rows, self.device, placement)
        self.fresh_set = 0, self.train_set
        placed, dtype = self.train_set.placement, str(shapes.points.dtype)
        needed = needed_bytes(shapes, features, self.rows)
        self.placement = {"placement": placed, "storage": dtype, "bytes": needed}
        self.placed = f"{dtype} clouds, {needed / 1e6:.1f} MB {PLACES[placed]}"
        self.probe_data = None if probed is None else split_probe(config, probed, features, self.device)
        torch.manual_seed(config.seed)
        self.model = build_model(model_config).to(self.device)
        if self.init is not None:
            say(console, load_initial(self.init, self.model))
        if resumed is None:
            self.before = self._probe("at initialisation")
        elif (found := resumed.state["before"]) is not None:
            self.before = ProbeResult(**found)

    def build_optimizer(self) -> AdamW:
        return build_optimizer(self.model, self.config.optim)

    def _probe(self, when: str) -> ProbeResult | None:
        if self.probe_data is None:
            return None
        with self.console.status(f"probing the encoder {when}"):
            result = probe(self.model, self.probe_data, self.config.data.num_points, self.dtype)
        scores = {"linear SVM": result.svm, "zero-shot": result.zero_shot, "real shapes": result.real}
        said = ", ".join(f"{name} {value:.1f} %" for name, value in scores.items() if value is not None)
        say(self.console, f"encoder {when}: {said or 'nothing to probe'}")
        return result

    @staticmethod
    def losses(model: PretrainModel, *batch: Tensor | None) -> dict[str, Tensor]:
        return model(*batch).losses

    def announce(self, computing: str) -> str:
        parameters = sum(p.numel() for p in self.model.parameters())
        return (
            f"{type(self.model).__name__}, {parameters / 1e6:.1f} M parameters, {computing} | "
            f"{self.train_count} shapes of {self.shapes.name}, {self.placed}"
        )

    def batches(self, first: int, stop: int) -> AbstractContextManager[Iterator[Batch]]:
        config = self.config
        how = Sampling(
            config.data.num_points,
            config.data.rotate,
            config.augment.scale,
            config.augment.jitter,
            config.model.num_group,
            config.seed,
        )
        size, parts = config.optim.batch_size, config.optim.accumulate
        of_epoch = self._fresh if config.fresh else None
        return BatchStream(self.train_set, how, size, parts, first, stop, of_epoch)

    def _fresh(self, epoch: int) -> ResidentShapes:
        """As `train_set`, with the procedural shapes of an epoch; the first ones are its own."""
        config, count, known = self.config, len(self.shapes), self.features
        number = epoch // config.fresh
        if number == self.fresh_set[0]:
            return self.fresh_set[1]
        pictures = known is not None and known.image is not None
        with torch_threads_kept():
            shapes = procedural_shapes(count, config.seed, first=number * count, pictures=pictures)
        features = None
        if known is not None:
            features = compute_features(shapes, config.teacher, device=str(self.device))
            assert features is not None
            features = replace(features, image_map=known.image_map, text_map=known.text_map)
        place = self.train_set.placement
        self.fresh_set = number, ResidentShapes(shapes, features, self.rows, self.device, place)
        return self.fresh_set[1]

    def measures_after(self, epoch: int, last: bool) -> bool:
        every = self.config.probe.every
        return every > 0 and epoch % every == 0 and self.probe_data is not None and not last

    def measure_epoch(self, run: Path, epoch: int, step: int, log: Metrics) -> None:
        result = self._probe(f"after epoch {epoch}")
        assert result is not None
        log.write(step, result.scores())

    def state(self) -> dict[str, Any]:
        return {"before": asdict(self.before) if self.before else None}

    def ended(self, run: Path, checkpoint: Path | None, stopped_by: str | None) -> PretrainResult:
        return PretrainResult(run, checkpoint, self.before, None, stopped_by, self.profile)

    def evaluate(self, run: Path, checkpoint: Path | None, step: int, log: Metrics | None) -> PretrainResult:
        try:
            after = self._probe("now")
        except KeyboardInterrupt:
            return PretrainResult(run, checkpoint, self.before, None, "SIGINT")
        if after is not None and log is not None and self.probe_data is not None:
            log.write(step, after.scores())
            packaged, points = None, self.config.data.num_points
            other: Any = restore(SHIPPED_FILE).model.to(self.device)
            if points >= max(other.config.num_group, other.config.group_size):
                data = replace(self.probe_data, class_text=None)  # these are features of this run's teacher
                with self.console.status("probing the encoder that comes with the package"):
                    packaged = probe(other, data, points, self.dtype)
            show_probe(self.console, self.probe_data, self.before, after, packaged)
        return PretrainResult(run, checkpoint, self.before, after)


def check_memory(config: ReConConfig, device: torch.device) -> None:
    """Raise InputError unless a model to train may fit into the free memory of a device.

    Counted are the weights of attention and MLP alone, with their gradients and moments.
    """
    needed = 16 * 12 * config.dim**2 * (config.depth + config.decoder_depth)
    free = free_memory(device)
    if needed > free:
        raise InputError(
            f"model.dim {config.dim} and model.depth {config.depth} need at least {needed / 2**30:,.1f} GiB "
            f"of memory to train, {free / 2**30:,.1f} are free on {device}"
        )


def check_same_teacher(old: dict[str, Any], new: dict[str, Any], checkpoint: Path) -> None:
    """Raise unless the features are of the teachers that the checkpoint saw, wherever their files lie."""
    changed = [
        f"{key} was {old.get(key)}, is {new.get(key)}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and key not in ("image_weights", "text_weights")
    ]
    if changed:
        raise InputError(f"resume must keep the teachers of {checkpoint}: {'; '.join(changed)}")


def prepare_features(
    shapes: Shapes, class_names: list[str], config: PretrainConfig, console: Console
) -> Features | None:
    """Teacher features of all shapes and of `class_names`: packed ones, stored ones, or computed now."""
    features = shapes.features
    if features is None:
        kept = config.teacher.store
        store = features_beside(config.data.path) if kept is None else Path(kept)
        with ProgressBars(console) as bars:
            features = compute_features(
                # Folders are called night_stand; a caption would say night stand.
                replace(shapes, class_names=[name.replace("_", " ") for name in class_names]),
                config.teacher,
                device=str(resolve_device(config.device)),
                store=store,
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
        warn(console, "teachers have random weights: they show that training works, real ones give results")
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
        warn(console, *check_conventions(shapes, trained))
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
    real = None
    if probed.name == "procedural":
        games = prepare_shapes(DataConfig(path=str(REAL_SHAPES), num_points=256), 0, Console(quiet=True))
        real = ResidentShapes(games, None, np.arange(len(games)), device)
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
        real,
    )
