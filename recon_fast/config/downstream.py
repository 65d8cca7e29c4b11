"""Settings of the commands that train a downstream model."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from recon_fast.config.check import Limits, Settings, above_zero, at_least, check_groups, share
from recon_fast.config.data import DataConfig
from recon_fast.config.model import SHIPPED, UNTRAINED, EncoderConfig
from recon_fast.config.train import OptimConfig, TrainingConfig
from recon_fast.errors import InputError


@dataclass(frozen=True)
class ChangeConfig(Settings):
    """How a training cloud is scaled and shifted, besides `data.rotate`; votes are cast on clouds changed
    alike.

    Attributes:
        scale: largest factor s; factors are from 1/s (or `scale_least`) to s.
        scale_least: smallest factor; null takes 1/s.
        translate: each axis is shifted by at most this, in both directions.
    """

    section: ClassVar[str] = "augment."
    limits: ClassVar[Limits] = at_least(0, "translate") | above_zero("scale")

    scale: float = 1.5
    scale_least: float | None = None
    translate: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        least, most = self.scales
        if not 0 < least <= most:
            raise InputError(f"augment.scale must be at least augment.scale_least > 0, got {most}, {least}")

    @property
    def scales(self) -> tuple[float, float]:
        """Smallest and largest factor."""
        return (1 / self.scale if self.scale_least is None else self.scale_least), self.scale


@dataclass(frozen=True)
class AugmentConfig(ChangeConfig):
    """What happens to a training cloud of a classifier; each axis is scaled by a factor of its own.

    Attributes:
        oversample: a cloud is sampled down to this many times `data.num_points` points, farthest points
            first, and each pass draws `data.num_points` of those.
    """

    limits: ClassVar[Limits] = at_least(1, "oversample")

    oversample: float = 1.2


@dataclass(frozen=True)
class DownstreamConfig(TrainingConfig):
    """What all commands that train a downstream model can be told.

    Attributes:
        checkpoint: the pretrained encoder: procedural, which comes with the package; a run, a checkpoint or
            an official file; random starts untrained.
        model: the encoder.
        data: labelled shapes; null makes the procedural set.
        normalize: centre each cloud and scale it to the unit sphere, as in pretraining.
        optim: optimizer and schedule.
        head_factor: what is new learns at this many times `optim.lr`.
        validation: share of the training shapes that picks the checkpoint, where the data has no validation
            split; 0 takes the last epoch's.
        official_protocol: pick the checkpoint on the test set, as the literature does. Such results are
            optimistic, and the run says so.
        votes: passes over changed clouds whose mean decides in the voted result; 0 casts none.
        evaluate: train nothing; test the model that `checkpoint` holds.
    """

    limits: ClassVar[Limits] = at_least(0, "votes") | share("validation") | above_zero("head_factor")

    checkpoint: str | None = SHIPPED
    model: EncoderConfig = field(default_factory=EncoderConfig)
    data: DataConfig = field(default_factory=lambda: DataConfig(rotate="none"))
    normalize: bool = True
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(batch_size=32, lr=1e-5, clip_grad=10.0, schedule="official")
    )
    head_factor: float = 10.0
    validation: float = 0.1
    official_protocol: bool = False
    votes: int = 10
    evaluate: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_groups(self.model, self.data)
        if self.evaluate and self.checkpoint in (SHIPPED, *UNTRAINED):
            raise InputError(
                f"evaluate needs a checkpoint with the trained model, got {self.checkpoint or 'none'}"
            )


@dataclass(frozen=True)
class FinetuneConfig(DownstreamConfig):
    """Everything `recon-fast finetune`, `linear` and `mlp3` can be told.

    Attributes:
        protocol: "full" trains all weights; "mlp3" and "linear" train a head on a frozen encoder, and with it
            the class token, as the official code does.
        augment: what happens to training clouds.
    """

    protocol: Literal["full", "mlp3", "linear"] = "full"
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    @property
    def command(self) -> str:
        """The name of the command."""
        return "finetune" if self.protocol == "full" else self.protocol


@dataclass(frozen=True)
class FewshotConfig(FinetuneConfig):
    """Everything `recon-fast fewshot` can be told: what `finetune` can, and these. All shots train, and the
    last epoch counts, unless `official_protocol` lets the test set choose.

    Attributes:
        ways: numbers of classes.
        shots: numbers of shapes of each class to learn from.
        folds: episodes of each setting.
        num_test: shapes of each class to test on, where episodes are drawn from a labelled set.
        protocol: as that of `finetune`, `mlp3` and `linear`.
    """

    limits: ClassVar[Limits] = at_least(1, "folds", "num_test")

    ways: list[int] = field(default_factory=lambda: [5, 10])
    shots: list[int] = field(default_factory=lambda: [10, 20])
    folds: int = 10
    num_test: int = 20
    validation: float = 0.0
    votes: int = 0

    command = "fewshot"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("ways", "shots"):
            given = getattr(self, name)
            if not given or min(given) < 1 or len(set(given)) < len(given):
                raise InputError(f"{name} must be different numbers of at least 1, got {given}")
        if self.evaluate:
            raise InputError("evaluate is of `recon-fast finetune`; a fold has no classifier to test")


@dataclass(frozen=True)
class PartsegConfig(DownstreamConfig):
    """Everything `recon-fast partseg` can be told; the defaults are the official recipe for ShapeNetPart.

    Attributes:
        augment: what happens to training clouds; all axes of a cloud are scaled by the same factor.
        pictures: test shapes of each category that are drawn, truth beside prediction; 0 draws none.
    """

    limits: ClassVar[Limits] = at_least(0, "pictures")

    model: EncoderConfig = field(default_factory=lambda: EncoderConfig(num_group=128))
    data: DataConfig = field(default_factory=lambda: DataConfig(num_points=2048, rotate="none"))
    augment: ChangeConfig = field(default_factory=lambda: ChangeConfig(scale=1.25, translate=0.1))
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(batch_size=32, lr=1e-4, clip_grad=10.0, schedule="official")
    )
    pictures: int = 3

    command = "partseg"
