"""Every setting of the package as typed dataclasses. Imports nothing heavy, so that `--help` and mistakes are
quick.
"""

from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from recon_fast.checks import check_numbers
from recon_fast.config.teacher import TeacherConfig
from recon_fast.errors import InputError


@dataclass(frozen=True)
class ReConConfig:
    """Architecture of ReCon and of its two-tower variant. The defaults are the paper's base model.

    Attributes:
        arch: "recon", or "twotower": two separate plain transformers for reconstruction and contrast.
        dim: width C of the tokens.
        depth: blocks of the encoder.
        num_heads: attention heads of the encoder.
        decoder_depth: blocks of the decoder.
        decoder_num_heads: attention heads of the decoder.
        num_group: groups G that a cloud is divided into.
        group_size: points K of a group.
        mask_ratio: share of the groups that is hidden from the encoder, rounded down.
        mask_type: "rand" hides any groups, "block" the nearest to a random one.
        drop_path: stochastic depth, rising linearly from 0 to this over the blocks.
        chamfer: "l2" (official cdl2) or "l1" (cdl1).
        image_dim: width of the image teacher's features; null switches csc_img off.
        text_dim: width of the text teacher's features; null switches csc_text off.
        single_modal: add smc, the contrastive loss between shapes of one label (needs labels).
        skip_near_origin: sample centers as pointnet2_ops does, passing over points with |p|^2 <= 1e-3.
        tokenize_visible: while pretraining, tokenize visible groups only. Faster, but other mathematics than
            the paper's: batch norms of the tokenizer see those groups alone.
    """

    arch: Literal["recon", "twotower"] = "recon"
    dim: int = 384
    depth: int = 12
    num_heads: int = 6
    decoder_depth: int = 4
    decoder_num_heads: int = 6
    num_group: int = 64
    group_size: int = 32
    mask_ratio: float = 0.6
    mask_type: Literal["rand", "block"] = "rand"
    drop_path: float = 0.1
    chamfer: Literal["l2", "l1"] = "l2"
    image_dim: int | None = 768
    text_dim: int | None = 512
    single_modal: bool = False
    skip_near_origin: bool = False
    tokenize_visible: bool = False

    def __post_init__(self) -> None:
        check_numbers(
            self, "model.", dim=1, depth=1, num_heads=1, decoder_depth=1, decoder_num_heads=1, num_group=1,
            group_size=1, image_dim=1, text_dim=1,
        )  # fmt: skip
        for name in ("num_heads", "decoder_num_heads"):
            if self.dim % getattr(self, name):
                raise InputError(
                    f"model.dim must be a multiple of model.{name}, got {self.dim} and {getattr(self, name)}"
                )
        if not 0 <= self.drop_path < 1:
            raise InputError(f"model.drop_path must be in [0, 1), got {self.drop_path}")
        if not 1 <= self.num_masked < self.num_group:
            raise InputError(
                "model.mask_ratio must hide at least one of the groups and leave one, "
                f"got {self.mask_ratio} of {self.num_group} groups"
            )
        if self.arch == "twotower" and self.single_modal:
            raise InputError("model.single_modal needs the class token of arch 'recon', got arch 'twotower'")

    @property
    def num_masked(self) -> int:
        """Groups that are hidden from the encoder."""
        return int(self.mask_ratio * self.num_group)

    @classmethod
    def base(cls, **changes: Any) -> "ReConConfig":
        """C=384, 6 heads, 12 blocks: the paper's model."""
        return replace(cls(), **changes)

    @classmethod
    def small(cls, **changes: Any) -> "ReConConfig":
        """C=256, 4 heads, 12 blocks."""
        return replace(cls(dim=256, num_heads=4, decoder_num_heads=4), **changes)

    @classmethod
    def tiny(cls, **changes: Any) -> "ReConConfig":
        """C=192, 3 heads, 12 blocks."""
        return replace(cls(dim=192, num_heads=3, decoder_num_heads=3), **changes)


StatedUp = Literal["auto", "x", "y", "z"]  # by a user; auto keeps what the layout or the file states
Kind = Literal[
    "auto", "shapenet", "shapenetpart", "modelnet40", "modelnet10", "scanobjectnn", "obj_bg", "obj_only",
    "hardest", "fewshot", "folder",
]  # fmt: skip


@dataclass(frozen=True)
class DataConfig:
    """What to train on.

    Attributes:
        path: a folder in an official layout, any folder of clouds, an .h5 file (packed, or with an array
            `data`), a folder of packed shards or a few-shot fold (.pkl); null makes the procedural set in
            memory.
        kind: how to read a folder; auto looks for the official layouts first. obj_bg, obj_only and hardest
            are ScanObjectNN's variants.
        split: "train" keeps the held-out shapes for the probe; "all" trains on both lists, as the official
            code does.
        held_out_fraction: share that is held out where the layout names no test split.
        num_points: points drawn from a cloud for each pass.
        max_points: larger clouds are cut to this many random points when read.
        storage: how clouds are kept in memory; fp16 halves it and keeps 3 decimal digits.
        placement: where clouds and features lie: in the device's memory, in the host's, or, of packed sets,
            mapped from their files, of which what is drawn gets read. auto takes the first of these that they
            fit into. It changes no result.
        on_problem: broken or missing files stop the run before it starts, or are left out.
        up: axis that points up in the files; auto takes what the layout or the packed file states.
        turn_up: clouds whose up axis is known and another than this are turned so that it is up; "y" is up in
            ShapeNet and for the official checkpoints; none leaves clouds as they are.
        rotate: axis of the random rotation; "y" is up in ShapeNet.
        shapes: size of the procedural set.
        workers: threads that read files; null takes one per core.
    """

    path: str | None = None
    kind: Kind = "auto"
    split: Literal["train", "all"] = "train"
    held_out_fraction: float = 0.1
    num_points: int = 1024
    max_points: int = 8192
    storage: Literal["fp16", "fp32"] = "fp32"
    placement: Literal["auto", "device", "host", "mmap"] = "auto"
    on_problem: Literal["stop", "skip"] = "stop"
    up: StatedUp = "auto"
    turn_up: Literal["x", "y", "z", "none"] = "y"
    rotate: Literal["x", "y", "z", "none"] = "y"
    shapes: int = 4000
    workers: int | None = None

    def __post_init__(self) -> None:
        check_numbers(self, "data.", num_points=1, max_points=1, shapes=1, workers=1)
        if not 0 <= self.held_out_fraction < 1:
            raise InputError(f"data.held_out_fraction must be in [0, 1), got {self.held_out_fraction}")


@dataclass(frozen=True)
class OptimConfig:
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
        check_numbers(self, "optim.", epochs=1, batch_size=1, accumulate=1, weight_decay=0, skip_limit=0)
        if self.batch_size % self.accumulate:
            raise InputError(
                "optim.batch_size must be a multiple of optim.accumulate, "
                f"got {self.batch_size} and {self.accumulate}"
            )
        if not 0 <= self.warmup_epochs < self.epochs:
            raise InputError(
                f"optim.warmup_epochs must be in [0, optim.epochs), got {self.warmup_epochs} of {self.epochs}"
            )
        if not 0 <= self.beta2 < 1:
            raise InputError(f"optim.beta2 must be in [0, 1), got {self.beta2}")
        for name in ("lr", "min_lr"):
            if not getattr(self, name) > 0:
                raise InputError(f"optim.{name} must be above 0, got {getattr(self, name)}")
        if self.clip_grad is not None and self.clip_grad <= 0:
            raise InputError(f"optim.clip_grad must be above 0 or null, got {self.clip_grad}")


@dataclass(frozen=True)
class ProbeConfig:
    """Does it learn? A linear SVM and zero-shot classification of held-out shapes, before and after.

    Attributes:
        data: labelled shapes to probe on, in any layout that `data.path` takes (for instance ModelNet as
            HDF5); null probes on the held-out shapes of the training data.
        kind: how to read them, as `data.kind`.
        up: axis that points up in their files, as `data.up`; they are turned as `data.turn_up` says.
        every: epochs between probes; 0 probes at the end alone.
        max_shapes: shapes taken at most from either side of the split.
    """

    data: str | None = None
    kind: Kind = "auto"
    up: StatedUp = "auto"
    every: int = 0
    max_shapes: int = 4000

    def __post_init__(self) -> None:
        check_numbers(self, "probe.", every=0, max_shapes=1)


@dataclass(frozen=True)
class SaveConfig:
    """Checkpoints and logs.

    Attributes:
        every: epochs between checkpoints; the last step is always saved.
        keep: checkpoints kept, the newest.
        log_every: steps in one line of the log.
        tensorboard: write curves for TensorBoard beside the JSON lines.
    """

    every: int = 10
    keep: int = 2
    log_every: int = 10
    tensorboard: bool = True

    def __post_init__(self) -> None:
        check_numbers(self, "save.", every=1, keep=1, log_every=1)


@dataclass(frozen=True)
class PretrainConfig:
    """Everything `recon-fast pretrain` can be told.

    Attributes:
        out: folder of the run; null makes a new one, runs/pretrain-<date>-<time>.
        init: weights to start from: an official checkpoint, or a model.safetensors of ours.
        seed: the whole run is a function of it, on one machine.
        device: where to train; auto takes the GPU if there is one.
        precision: auto takes bf16 where the device multiplies it fast (GPUs, CPUs with AMX or AVX512-BF16),
            fp32 elsewhere.
        compile: run the model through torch.compile, with CUDA graphs on a GPU; auto does so on GPUs. Where
            it fails, or its losses differ, the run says so and goes on without. On a CPU it needs a C++
            compiler.
        model: architecture.
        data: what to train on.
        teacher: frozen image and text models.
        standardize: bring teacher features to zero mean and unit variance per dimension over the training
            set; auto does it for random teachers, whose features differ by little from their mean.
        optim: optimizer and schedule.
        probe: evaluation of the encoder.
        save: checkpoints and logs.
    """

    out: str | None = None
    init: str | None = None
    seed: int = 0
    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    compile: Literal["auto", "on", "off"] = "auto"
    model: ReConConfig = field(default_factory=ReConConfig)
    data: DataConfig = field(default_factory=DataConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    standardize: Literal["auto", "on", "off"] = "auto"
    optim: OptimConfig = field(default_factory=OptimConfig)
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    save: SaveConfig = field(default_factory=SaveConfig)

    def __post_init__(self) -> None:
        check_numbers(self)
        for name, least in (("num_group", self.model.num_group), ("group_size", self.model.group_size)):
            if self.data.num_points < least:
                raise InputError(
                    f"model.{name} must be at most data.num_points, got {least} and {self.data.num_points}"
                )
        if self.data.max_points < self.data.num_points:
            raise InputError(
                "data.max_points must be at least data.num_points, "
                f"got {self.data.max_points} and {self.data.num_points}"
            )

    @property
    def command(self) -> str:
        """Which it is."""
        return "pretrain"

    def to_dict(self) -> dict[str, Any]:
        """Nested plain dict, for YAML and JSON."""
        return asdict(self)


@dataclass(frozen=True)
class PackConfig:
    """How `recon-fast pack` packs.

    Attributes:
        kind: how to read a folder; auto looks for the official layouts first. obj_bg, obj_only and hardest
            are ScanObjectNN's variants.
        up: axis that points up in the files, which the packed file then states; auto takes what the layout
            states.
        dtype: clouds as fp16 (3 decimal digits, half the size) or fp32.
        num_points: smaller clouds count as broken.
        max_points: larger clouds are cut to this many random points.
        held_out_fraction: share that is held out where the layout names no test split.
        on_problem: broken or missing files stop the packing before it starts, or are left out.
        features: pack the features of the teachers too.
        overwrite: replace the output if it exists.
        shard_size: shapes in a file of a set in many files, for sets larger than memory: the output is then a
            folder of shards with a manifest; null packs one file.
        workers: threads that read files; null takes one per core.
        device: where the teachers run.
        teacher: frozen image and text models.
    """

    kind: Kind = "auto"
    up: StatedUp = "auto"
    dtype: Literal["fp16", "fp32"] = "fp16"
    num_points: int = 1024
    max_points: int = 8192
    held_out_fraction: float = 0.1
    on_problem: Literal["stop", "skip"] = "stop"
    features: bool = True
    overwrite: bool = False
    shard_size: int | None = None
    workers: int | None = None
    device: str = "auto"
    teacher: TeacherConfig = field(default_factory=TeacherConfig)

    def __post_init__(self) -> None:
        check_numbers(self, num_points=1, max_points=1, shard_size=1, workers=1)
        if self.max_points < self.num_points:
            raise InputError(
                f"max_points must be at least num_points, got {self.max_points} and {self.num_points}"
            )
        if not 0 <= self.held_out_fraction < 1:
            raise InputError(f"held_out_fraction must be in [0, 1), got {self.held_out_fraction}")


@dataclass(frozen=True)
class ConvertConfig:
    """How `recon-fast convert` converts.

    Attributes:
        num_heads: attention heads of an official checkpoint; null takes those of the official widths (384: 6,
            256: 4, 192: 3).
        num_group: groups that a cloud is divided into; null takes 64, for segmentation 128.
        group_size: points of a group; null takes that of the decoder, 32 without one.
        overwrite: replace what is there.
    """

    num_heads: int | None = None
    num_group: int | None = None
    group_size: int | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        check_numbers(self, num_heads=1, num_group=1, group_size=1)
