"""Settings of data: what is trained or tested on, and how it is read and packed."""

from dataclasses import asdict, dataclass, field
from typing import ClassVar, Literal

from recon_fast.config.check import Limits, Settings, at_least, share
from recon_fast.config.teacher import TeacherConfig
from recon_fast.errors import InputError

StatedUp = Literal["auto", "x", "y", "z"]  # by a user; auto keeps what the layout or the file states
Kind = Literal[
    "auto", "shapenet", "shapenetpart", "modelnet40", "modelnet10", "scanobjectnn", "obj_bg", "obj_only",
    "hardest", "fewshot", "folder",
]  # fmt: skip


@dataclass(frozen=True)
class FilesConfig(Settings):
    """How files of clouds are read.

    Attributes:
        kind: how to read a folder; auto looks for the official layouts first. obj_bg, obj_only and hardest
            are ScanObjectNN's variants.
        array: name of the array of clouds in .h5, .hdf5 and .npz files; null takes `data`, or the only array
            that may be one.
        up: axis that points up in the files; auto takes what the layout or the packed file states, or else
            guesses it from the symmetry of the shapes where they agree.
        on_small: clouds with fewer points than num_points stop the command, as broken ones do, or their
            points are repeated at random until there are enough.
        max_points: larger clouds are cut to this many random points when read.
        held_out_fraction: share that is held out as the test split where the layout names none.
        on_problem: broken or missing files stop the command before it starts, or are left out.
        workers: threads that read files; null takes one per core.
    """

    limits: ClassVar[Limits] = at_least(1, "max_points", "workers") | share("held_out_fraction")

    kind: Kind = "auto"
    array: str | None = None
    up: StatedUp = "auto"
    on_small: Literal["stop", "repeat"] = "stop"
    max_points: int = 8192
    held_out_fraction: float = 0.1
    on_problem: Literal["stop", "skip"] = "stop"
    workers: int | None = None


@dataclass(frozen=True)
class ReadingConfig(FilesConfig):
    """How clouds are read for an encoder.

    Attributes:
        turn_up: clouds whose up axis is known and another than this are turned so that it is up; "y" is up in
            ShapeNet and for the official checkpoints; none leaves clouds as they are.
        num_points: larger clouds are reduced to so many points, farthest first; null takes 16 per group, as
            the official protocols. Smaller ones are taken as they are.
    """

    section: ClassVar[str] = "data."
    limits: ClassVar[Limits] = at_least(1, "num_points")

    turn_up: Literal["x", "y", "z", "none"] = "y"
    num_points: int | None = None


@dataclass(frozen=True)
class LabelledConfig(ReadingConfig):
    """Labelled shapes that an encoder is tested on.

    Attributes:
        path: a folder in an official layout, any folder of clouds or a .zip of one, a file of arrays (.h5,
            .hdf5, .npz, .npy), a packed file or folder of shards, or a few-shot fold (.pkl); null makes the
            procedural set in memory.
        shapes: size of the procedural set.
    """

    limits: ClassVar[Limits] = at_least(1, "shapes")

    path: str | None = None
    shapes: int = 4000

    def reading(self, least: int) -> "DataConfig":
        """The same for `prepare_shapes`, where clouds of fewer than `least` points are broken."""
        return DataConfig(**{**asdict(self), "num_points": least, "rotate": "none"})


@dataclass(frozen=True)
class DataConfig(LabelledConfig):
    """What to train on.

    Attributes:
        num_points: points drawn from a cloud for each pass.
        split: "train" keeps the held-out shapes for the probe; "all" trains on both lists, as the official
            code does.
        storage: how clouds are kept in memory; fp16 halves it and keeps 3 decimal digits.
        placement: where clouds and features lie: in the device's memory, in the host's, or, of packed sets,
            mapped from their files, of which what is drawn gets read. auto takes the first of these that they
            fit into. It changes no result.
        rotate: axis of the random rotation; "y" is up in ShapeNet.
    """

    num_points: int = 1024
    split: Literal["train", "all"] = "train"
    storage: Literal["fp16", "fp32"] = "fp32"
    placement: Literal["auto", "device", "host", "mmap"] = "auto"
    rotate: Literal["x", "y", "z", "none"] = "y"


@dataclass(frozen=True)
class PackConfig(FilesConfig):
    """How `recon-fast pack` packs; a packed file states which axis is up.

    Attributes:
        dtype: clouds as fp16 (3 decimal digits, half the size) or fp32.
        num_points: smaller clouds count as broken.
        features: pack the features of the teachers too.
        overwrite: replace the output if it exists.
        shard_size: shapes in a file of a set in many files, for sets larger than memory: the output is then a
            folder of shards with a manifest; null packs one file.
        device: where the teachers run.
        teacher: frozen image and text models.
    """

    limits: ClassVar[Limits] = at_least(1, "num_points", "shard_size")

    dtype: Literal["fp16", "fp32"] = "fp16"
    num_points: int = 1024
    features: bool = True
    overwrite: bool = False
    shard_size: int | None = None
    device: str = "auto"
    teacher: TeacherConfig = field(default_factory=TeacherConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_points < self.num_points:
            raise InputError(
                f"max_points must be at least num_points, got {self.max_points} and {self.num_points}"
            )
