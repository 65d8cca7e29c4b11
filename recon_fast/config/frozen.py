"""Settings of the commands that only look at an encoder. Imports nothing heavy, as `recon_fast.config`."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from recon_fast.checks import check_numbers
from recon_fast.config import DataConfig, Kind, StatedUp
from recon_fast.errors import InputError

FeatureKind = Literal["svm", "global", "classification", "zeroshot", "zeroshot_text", "zeroshot_image"]


@dataclass(frozen=True)
class FrozenConfig:
    """A frozen encoder; what is null is as the checkpoint says.

    Attributes:
        size: of an encoder without a checkpoint.
        num_heads: attention heads, of official checkpoints of unusual width.
        num_group: groups that a cloud is divided into, where an official checkpoint was trained with an
            unusual number (128 for ScanObjectNN).
        group_size: points of a group, likewise.
    """

    size: Literal["base", "small", "tiny"] = "base"
    num_heads: int | None = None
    num_group: int | None = None
    group_size: int | None = None

    def __post_init__(self) -> None:
        check_numbers(self, "model.", num_heads=1, num_group=1, group_size=1)


@dataclass(frozen=True)
class ReadingConfig:
    """How clouds are read.

    Attributes:
        kind: how to read a folder; auto looks for the official layouts first. obj_bg, obj_only and hardest
            are ScanObjectNN's variants.
        held_out_fraction: share that is the test split where the layout names none.
        num_points: larger clouds are reduced to so many points, farthest first; null takes 16 per group, as
            the official protocols. Smaller ones are taken as they are.
        max_points: larger clouds are cut to this many random points when read.
        on_problem: broken or missing files stop the command before it starts, or are left out.
        up: axis that points up in the files; auto takes what the layout or the packed file states.
        turn_up: clouds whose up axis is known and another than this are turned so that it is up; "y" is up in
            ShapeNet and for the official checkpoints; none leaves clouds as they are.
        workers: threads that read files; null takes one per core.
    """

    kind: Kind = "auto"
    held_out_fraction: float = 0.1
    num_points: int | None = None
    max_points: int = 8192
    on_problem: Literal["stop", "skip"] = "stop"
    up: StatedUp = "auto"
    turn_up: Literal["x", "y", "z", "none"] = "y"
    workers: int | None = None

    def __post_init__(self) -> None:
        check_numbers(self, "data.", num_points=1, max_points=1, workers=1)
        if not 0 <= self.held_out_fraction < 1:
            raise InputError(f"data.held_out_fraction must be in [0, 1), got {self.held_out_fraction}")


@dataclass(frozen=True)
class LabelledConfig(ReadingConfig):
    """Labelled shapes that an encoder is tested on.

    Attributes:
        path: whatever `recon-fast pretrain` trains on; null makes the procedural set in memory.
        shapes: size of the procedural set.
    """

    path: str | None = None
    shapes: int = 4000

    def __post_init__(self) -> None:
        super().__post_init__()
        check_numbers(self, "data.", shapes=1)

    def reading(self, least: int) -> DataConfig:
        """The same for `prepare_shapes`, where clouds of fewer than `least` points are broken."""
        return DataConfig(**{**asdict(self), "num_points": least, "rotate": "none"})


@dataclass(frozen=True)
class QueryTeacherConfig:
    """The frozen teachers of texts and pictures that are compared with shapes.

    What is null is what the checkpoint was trained with; for one that does not say, CLIP ViT-B/32. Another
    teacher than the checkpoint's is an error.

    Attributes:
        text: open_clip model by name.
        image: timm model by name, or open_clip:NAME.
        weights: local reads weights from files and never downloads; random draws them from the seed.
        text_weights: weight file of the text teacher; null searches the libraries' caches.
        image_weights: weight file of the image teacher, likewise.
        text_pretrained: open_clip tag of the weights.
        prompts: prompts of each text, whose mean is taken; 60 are the official ones.
        batch_size: prompts that go through the teacher at once.
        seed: of random weights.
        store: folder in which features of texts are kept; null keeps them beside the data.
    """

    text: str | None = None
    image: str | None = None
    weights: Literal["local", "random"] | None = None
    text_weights: str | None = None
    image_weights: str | None = None
    text_pretrained: str | None = None
    prompts: int = 60
    batch_size: int = 64
    seed: int | None = None
    store: str | None = None

    def __post_init__(self) -> None:
        check_numbers(self, "teacher.", batch_size=1)
        if not 1 <= self.prompts <= 60:
            raise InputError(f"teacher.prompts must be from 1 to 60, got {self.prompts}")


@dataclass(frozen=True)
class SvmConfig:
    """Everything `recon-fast svm` can be told.

    Attributes:
        checkpoint: a run, a checkpoint or an official file; null tests an encoder at random.
        out: folder of the results; null makes a new one, runs/svm-<date>-<time>.
        seed: of an encoder at random, and of the procedural set.
        device: where to encode; auto takes the GPU if there is one.
        precision: auto takes bf16 where the device multiplies it fast.
        batch_size: clouds encoded at once; null takes 16 on a CPU, 256 on a GPU.
        model: the encoder.
        data: the shapes: the training split trains the SVM, the test split tests it.
        k: nearest training shapes that vote for the class of a test shape.
        temperature: a vote counts exp(cosine / temperature), as in DINO.
    """

    checkpoint: str | None = None
    out: str | None = None
    seed: int = 0
    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    batch_size: int | None = None
    model: FrozenConfig = field(default_factory=FrozenConfig)
    data: LabelledConfig = field(default_factory=LabelledConfig)
    k: int = 20
    temperature: float = 0.07

    def __post_init__(self) -> None:
        check_numbers(self, k=1, batch_size=1)
        if not self.temperature > 0:
            raise InputError(f"temperature must be above 0, got {self.temperature}")

    @property
    def command(self) -> str:
        """Which it is."""
        return "svm"

    def to_dict(self) -> dict[str, Any]:
        """Nested plain dict, for YAML and JSON."""
        return asdict(self)


@dataclass(frozen=True)
class ZeroShotConfig:
    """Everything `recon-fast zeroshot` can be told.

    Attributes:
        checkpoint: a pretraining run, a checkpoint of it, or an official file.
        out: folder of the results; null makes a new one, runs/zeroshot-<date>-<time>.
        seed: of the procedural set.
        device: where to encode; auto takes the GPU if there is one.
        precision: auto takes bf16 where the device multiplies it fast.
        batch_size: clouds encoded at once; null takes 16 on a CPU, 256 on a GPU.
        model: the encoder.
        data: labelled shapes.
        on: which shapes: the test split, or all of them.
        feature: full is ratio * text projection + image projection, for teachers that share a space; text and
            img are one projection alone; auto takes full where the teachers share a space, else text.
        ratio: weight of the text projection in the full feature.
        names: file with one name per class, a line each, in place of the set's own.
        teacher: the text teacher.
    """

    checkpoint: str
    out: str | None = None
    seed: int = 0
    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    batch_size: int | None = None
    model: FrozenConfig = field(default_factory=FrozenConfig)
    data: LabelledConfig = field(default_factory=LabelledConfig)
    on: Literal["test", "all"] = "test"
    feature: Literal["auto", "full", "text", "img"] = "auto"
    ratio: float = 0.25
    names: str | None = None
    teacher: QueryTeacherConfig = field(default_factory=QueryTeacherConfig)

    def __post_init__(self) -> None:
        check_numbers(self, batch_size=1)

    @property
    def command(self) -> str:
        """Which it is."""
        return "zeroshot"

    def to_dict(self) -> dict[str, Any]:
        """Nested plain dict, for YAML and JSON."""
        return asdict(self)


@dataclass(frozen=True)
class EmbedConfig:
    """Everything `recon-fast embed` can be told besides what it reads and writes.

    Attributes:
        kind: svm for linear classifiers; global tokens; classification; zeroshot, what is compared with text
            features; zeroshot_text and zeroshot_image, its two parts.
        overwrite: replace the output if it exists.
        device: where to encode; auto takes the GPU if there is one.
        precision: auto takes bf16 where the device multiplies it fast.
        batch_size: clouds encoded at once; null takes 16 on a CPU, 256 on a GPU.
        model: the encoder.
        data: how clouds are read.
    """

    kind: FeatureKind = "svm"
    overwrite: bool = False
    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    batch_size: int | None = None
    model: FrozenConfig = field(default_factory=FrozenConfig)
    data: ReadingConfig = field(default_factory=ReadingConfig)

    def __post_init__(self) -> None:
        check_numbers(self, batch_size=1)


@dataclass(frozen=True)
class RetrieveConfig:
    """Everything `recon-fast retrieve` can be told besides the set and the query.

    Attributes:
        checkpoint: a run, a checkpoint or an official file; null takes the one that made the features.
        query: what the query is; auto sees it: the key of a shape of the set, a file with a cloud or a
            picture, or a text.
        top: shapes that are shown.
        kind: features that shapes are compared by; svm finds alike shapes. Texts and pictures choose their
            own.
        sheet: picture (.png) or page (.html) of the found shapes.
        out: with captions, folder of the results; null makes a new one, runs/retrieve-<date>-<time>.
        device: where to encode; auto takes the GPU if there is one.
        precision: auto takes bf16 where the device multiplies it fast.
        batch_size: clouds encoded at once; null takes 16 on a CPU, 256 on a GPU.
        model: the encoder.
        data: how clouds are read.
        teacher: the text and image teachers.
    """

    checkpoint: str | None = None
    query: Literal["auto", "key", "shape", "picture", "text"] = "auto"
    top: int = 10
    kind: FeatureKind = "svm"
    sheet: str | None = None
    out: str | None = None
    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    batch_size: int | None = None
    model: FrozenConfig = field(default_factory=FrozenConfig)
    data: ReadingConfig = field(default_factory=ReadingConfig)
    teacher: QueryTeacherConfig = field(default_factory=QueryTeacherConfig)

    def __post_init__(self) -> None:
        check_numbers(self, top=1, batch_size=1)

    @property
    def command(self) -> str:
        """Which it is."""
        return "retrieve"

    def to_dict(self) -> dict[str, Any]:
        """Nested plain dict, for YAML and JSON."""
        return asdict(self)
