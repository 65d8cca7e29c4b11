"""Settings of the commands that only look at an encoder, or convert it."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from recon_fast.config.check import Limits, Settings, above_zero, at_least
from recon_fast.config.data import LabelledConfig, ReadingConfig
from recon_fast.config.model import SHIPPED, FrozenConfig
from recon_fast.config.teacher import QueryTeacherConfig

FeatureKind = Literal["svm", "global", "classification", "zeroshot", "zeroshot_text", "zeroshot_image"]


@dataclass(frozen=True)
class EncodingConfig(Settings):
    """How a frozen encoder runs.

    Attributes:
        device: where to encode; auto takes the GPU if there is one.
        precision: auto takes bf16 where the device multiplies it fast.
        batch_size: clouds encoded at once; null takes 16 on a CPU, 256 on a GPU.
        model: the encoder.
    """

    limits: ClassVar[Limits] = at_least(1, "batch_size")

    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    batch_size: int | None = None
    model: FrozenConfig = field(default_factory=FrozenConfig)


@dataclass(frozen=True)
class SvmConfig(EncodingConfig):
    """Everything `recon-fast svm` can be told.

    Attributes:
        checkpoint: procedural, the encoder that comes with the package; a run, a checkpoint or an official
            file; random tests an untrained encoder.
        out: folder of the results; null makes a new one, runs/svm-<date>-<time>.
        seed: of an untrained encoder, and of the procedural set.
        data: the shapes: the training split trains the SVM, the test split tests it.
        k: nearest training shapes that vote for the class of a test shape.
        temperature: a vote counts exp(cosine / temperature), as in DINO.
    """

    command: ClassVar[str] = "svm"
    limits: ClassVar[Limits] = at_least(1, "k") | above_zero("temperature")

    checkpoint: str | None = SHIPPED
    out: str | None = None
    seed: int = 0
    data: LabelledConfig = field(default_factory=LabelledConfig)
    k: int = 20
    temperature: float = 0.07


@dataclass(frozen=True)
class ZeroShotConfig(EncodingConfig):
    """Everything `recon-fast zeroshot` can be told.

    Attributes:
        checkpoint: procedural, the encoder that comes with the package; a pretraining run, a checkpoint of
            it, or an official file.
        out: folder of the results; null makes a new one, runs/zeroshot-<date>-<time>.
        seed: of the procedural set.
        data: labelled shapes.
        on: which shapes: the test split, or all of them.
        feature: full is ratio * text projection + image projection, for teachers that share a space; text and
            img are one projection alone; auto takes full where the teachers share a space, else text.
        ratio: weight of the text projection in the full feature.
        names: file with one name per class, a line each, in place of the set's own.
        teacher: the text teacher.
    """

    command: ClassVar[str] = "zeroshot"
    checkpoint: str = SHIPPED
    out: str | None = None
    seed: int = 0
    data: LabelledConfig = field(default_factory=LabelledConfig)
    on: Literal["test", "all"] = "test"
    feature: Literal["auto", "full", "text", "img"] = "auto"
    ratio: float = 0.25
    names: str | None = None
    teacher: QueryTeacherConfig = field(default_factory=QueryTeacherConfig)


@dataclass(frozen=True)
class EmbedConfig(EncodingConfig):
    """Everything `recon-fast embed` can be told besides what it reads and writes.

    Attributes:
        checkpoint: as of `recon-fast svm`.
        kind: svm for linear classifiers; global tokens; classification; zeroshot, what is compared with text
            features; zeroshot_text and zeroshot_image, its two parts.
        overwrite: replace the output if it exists.
        data: how clouds are read.
    """

    checkpoint: str | None = SHIPPED
    kind: FeatureKind = "svm"
    overwrite: bool = False
    data: ReadingConfig = field(default_factory=ReadingConfig)


@dataclass(frozen=True)
class RetrieveConfig(EncodingConfig):
    """Everything `recon-fast retrieve` can be told besides the set and the query.

    Attributes:
        checkpoint: as of `recon-fast svm`; null takes the one that made the features, and procedural for
            clouds that are yet to be embedded.
        query: what the query is; auto sees it: the key of a shape of the set, a file with a cloud or a
            picture, or a text.
        top: shapes that are shown.
        kind: features that shapes are compared by; svm finds alike shapes. Texts and pictures choose their
            own.
        sheet: picture (.png) or page (.html) of the found shapes.
        out: with captions, folder of the results; null makes a new one, runs/retrieve-<date>-<time>.
        data: how clouds are read.
        teacher: the text and image teachers.
    """

    command: ClassVar[str] = "retrieve"
    limits: ClassVar[Limits] = at_least(1, "top")

    checkpoint: str | None = None
    query: Literal["auto", "key", "shape", "picture", "text"] = "auto"
    top: int = 10
    kind: FeatureKind = "svm"
    sheet: str | None = None
    out: str | None = None
    data: ReadingConfig = field(default_factory=ReadingConfig)
    teacher: QueryTeacherConfig = field(default_factory=QueryTeacherConfig)


@dataclass(frozen=True)
class ConvertConfig(Settings):
    """How `recon-fast convert` converts.

    Attributes:
        num_heads: attention heads of an official checkpoint; null takes those of the official widths (384: 6,
            256: 4, 192: 3).
        num_group: groups that a cloud is divided into; null takes 64, for segmentation 128.
        group_size: points of a group; null takes that of the decoder, 32 without one.
        dtype: of the weights in a file of ours; fp16 halves it and keeps 3 decimal digits.
        card: text file about the model, which a file of ours keeps in its metadata.
        overwrite: replace what is there.
    """

    limits: ClassVar[Limits] = at_least(1, "num_heads", "num_group", "group_size")

    num_heads: int | None = None
    num_group: int | None = None
    group_size: int | None = None
    dtype: Literal["fp32", "fp16"] = "fp32"
    card: str | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class ExportConfig(Settings):
    """What `recon-fast export` writes.

    Attributes:
        kind: features as of `recon-fast embed`; null takes the logits of a classifier, else svm.
        num_heads: attention heads of an official checkpoint, as of `recon-fast convert`.
        num_group: groups that a cloud is divided into; null takes the checkpoint's.
        group_size: points of a group; null takes the checkpoint's.
        overwrite: replace what is there.
    """

    limits: ClassVar[Limits] = at_least(1, "num_heads", "num_group", "group_size")

    kind: FeatureKind | None = None
    num_heads: int | None = None
    num_group: int | None = None
    group_size: int | None = None
    overwrite: bool = False
