"""Settings of training: optimizer, probe, checkpoints, and all of pretraining."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from recon_fast.config.check import Limits, Settings, above_zero, at_least, check_groups, share
from recon_fast.config.data import DataConfig, Kind, StatedUp
from recon_fast.config.model import ReConConfig
from recon_fast.config.teacher import TeacherConfig
from recon_fast.errors import InputError


@dataclass(frozen=True)
class OptimConfig(Settings):
    """Optimizer and schedule.

    Attributes:
        epochs: length of the schedule, in passes over the data.
        batch_size: clouds per optimizer step, of all processes together.
        accumulate: micro-batches that a batch is split into, to save memory.
        lr: peak learning rate.
        min_lr: learning rate at the start of the warm-up and at the end.
        weight_decay: AdamW's; none on biases, norms and tokens.
        beta2: AdamW's memory of squared gradients; 0.95 forgets the first steps sooner, for short runs.
        warmup_epochs: epochs of linear warm-up.
        schedule: "cosine" is the textbook schedule, a function of the step, and the default because it wastes
            no step of a short run. "official" is what the official loop really applies: a constant rate per
            epoch, one epoch late, over epochs 0 to `epochs` (one more than it says).
        clip_grad: largest norm of the gradient; null clips nothing, as in the official pretraining.
        skip_limit: steps in a row with a loss or gradient that is not finite which are skipped; one more
            stops the run.
        recompute: keep only the inputs of the transformer blocks and compute the blocks again in the
            backward pass: the same numbers with less memory and a quarter more work.
        sync_norm: with several processes, batch norms take statistics of the whole batch, so that results do
            not depend on their number; false takes those of each process's own part.
    """

    section: ClassVar[str] = "optim."
    limits: ClassVar[Limits] = (
        at_least(1, "epochs", "batch_size", "accumulate")
        | at_least(0, "weight_decay", "skip_limit")
        | share("beta2")
        | above_zero("lr", "min_lr", "clip_grad")
    )

    epochs: int = 300
    batch_size: int = 128
    accumulate: int = 1
    lr: float = 5e-4
    min_lr: float = 1e-6
    weight_decay: float = 0.05
    beta2: float = 0.999
    warmup_epochs: float = 10
    schedule: Literal["cosine", "official"] = "cosine"
    clip_grad: float | None = None
    skip_limit: int = 5
    recompute: bool = False
    sync_norm: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_size % self.accumulate:
            raise InputError(
                "optim.batch_size must be a multiple of optim.accumulate, "
                f"got {self.batch_size} and {self.accumulate}"
            )
        if not 0 <= self.warmup_epochs < self.epochs:
            raise InputError(
                f"optim.warmup_epochs must be in [0, optim.epochs), got {self.warmup_epochs} of {self.epochs}"
            )


@dataclass(frozen=True)
class ProbeConfig(Settings):
    """Does it learn? A linear SVM and zero-shot classification of held-out shapes, before and after.

    Attributes:
        data: labelled shapes to probe on, in any layout that `data.path` takes (for instance ModelNet as
            HDF5); null probes on the held-out shapes of the training data.
        kind: how to read them, as `data.kind`.
        up: axis that points up in their files, as `data.up`; they are turned as `data.turn_up` says.
        every: epochs between probes; 0 probes at the end alone.
        max_shapes: shapes taken at most from either side of the split.
    """

    section: ClassVar[str] = "probe."
    limits: ClassVar[Limits] = at_least(0, "every") | at_least(1, "max_shapes")

    data: str | None = None
    kind: Kind = "auto"
    up: StatedUp = "auto"
    every: int = 0
    max_shapes: int = 4000


@dataclass(frozen=True)
class VariationConfig(Settings):
    """How a cloud is changed before each pass of pretraining, besides `data.rotate`. The paper changes
    nothing.

    Attributes:
        scale: each axis is scaled by a factor from 1 / scale to scale.
        jitter: each coordinate is shifted by at most a share of this, which is random for each cloud, where
            the cloud has radius 1.
    """

    section: ClassVar[str] = "augment."
    limits: ClassVar[Limits] = at_least(1, "scale") | at_least(0, "jitter")

    scale: float = 1.0
    jitter: float = 0.0


@dataclass(frozen=True)
class SaveConfig(Settings):
    """Checkpoints and logs.

    Attributes:
        every: epochs between checkpoints; the last step is always saved.
        keep: checkpoints kept, the newest.
        log_every: steps in one line of the log.
        tensorboard: write curves for TensorBoard beside the JSON lines.
    """

    section: ClassVar[str] = "save."
    limits: ClassVar[Limits] = at_least(1, "every", "keep", "log_every")

    every: int = 10
    keep: int = 2
    log_every: int = 10
    tensorboard: bool = True


@dataclass(frozen=True)
class TrainingConfig(Settings, ABC):
    """What every command that trains can be told.

    Attributes:
        out: folder of the run; null makes a new one, runs/<command>-<date>-<time>.
        seed: the whole run is a function of it, on one machine.
        device: where to train; auto takes the GPU if there is one.
        precision: auto takes bf16 where the device multiplies it fast (GPUs, CPUs with AMX or AVX512-BF16),
            fp32 elsewhere.
        compile: run the model through torch.compile, with CUDA graphs on a GPU; auto does so on GPUs. Where
            it fails, or its losses differ, the run says so and goes on without. On a CPU it needs a C++
            compiler.
        save: checkpoints and logs.
    """

    out: str | None = None
    seed: int = 0
    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    compile: Literal["auto", "on", "off"] = "auto"
    save: SaveConfig = field(default_factory=SaveConfig)

    @property
    @abstractmethod
    def command(self) -> str:
        """The command that these settings are of."""


@dataclass(frozen=True)
class PretrainConfig(TrainingConfig):
    """Everything `recon-fast pretrain` can be told.

    Attributes:
        init: weights to start from: procedural, the encoder that comes with the package; a run, a checkpoint
            or an official file, of the same architecture.
        model: architecture.
        data: what to train on.
        fresh: epochs after which the procedural set gives way to new shapes, as many as `data.shapes`; 1
            never shows a shape twice, 0 keeps the first ones.
        augment: how clouds are changed before each pass.
        teacher: frozen image and text models.
        standardize: bring text features to zero mean and unit variance per dimension over the training set,
            and image features to 64 uncorrelated components; auto does it for random teachers, whose features
            differ by little from their mean, and along few directions.
        optim: optimizer and schedule.
        probe: evaluation of the encoder.
    """

    limits: ClassVar[Limits] = at_least(0, "fresh")

    init: str | None = None
    model: ReConConfig = field(default_factory=ReConConfig)
    data: DataConfig = field(default_factory=DataConfig)
    fresh: int = 0
    augment: VariationConfig = field(default_factory=VariationConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    standardize: Literal["auto", "on", "off"] = "auto"
    optim: OptimConfig = field(default_factory=OptimConfig)
    probe: ProbeConfig = field(default_factory=ProbeConfig)

    command = "pretrain"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_groups(self.model, self.data)
        if self.fresh and self.data.path is not None:
            raise InputError(f"fresh must be 0 for files, got {self.fresh} for {self.data.path}")
        if self.data.max_points < self.data.num_points:
            raise InputError(
                "data.max_points must be at least data.num_points, "
                f"got {self.data.max_points} and {self.data.num_points}"
            )
