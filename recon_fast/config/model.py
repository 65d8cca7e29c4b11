"""Settings of models: the architecture that is pretrained, and encoders in other commands."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from recon_fast.config.check import Limits, Settings, at_least, share
from recon_fast.errors import InputError


@dataclass(frozen=True)
class ReConConfig(Settings):
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
        init: how linear weights of the encoder's blocks and positions start: "official" with deviation 0.02;
            "xavier" as those of the decoder, so that positions count from the first step, and a small model
            learns half as fast again at first.
        stop_gradient: while pretraining, the contrastive losses do not reach the local stream, as in the
            paper. false lets them teach it too, which is better where teachers know the shapes well.
        skip_near_origin: sample centers as pointnet2_ops does, passing over points with |p|^2 <= 1e-3.
        tokenize_visible: while pretraining, tokenize visible groups only. Faster, but other mathematics than
            the paper's: batch norms of the tokenizer see those groups alone.
    """

    section: ClassVar[str] = "model."
    limits: ClassVar[Limits] = at_least(
        1,
        "dim",
        "depth",
        "num_heads",
        "decoder_depth",
        "decoder_num_heads",
        "num_group",
        "group_size",
        "image_dim",
        "text_dim",
    ) | share("drop_path")

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
    init: Literal["official", "xavier"] = "official"
    stop_gradient: bool = True
    skip_near_origin: bool = False
    tokenize_visible: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("num_heads", "decoder_num_heads"):
            if self.dim % getattr(self, name):
                raise InputError(
                    f"model.dim must be a multiple of model.{name}, got {self.dim} and {getattr(self, name)}"
                )
        if not 1 <= self.num_masked < self.num_group:
            raise InputError(
                "model.mask_ratio must hide at least one of the groups and leave one, "
                f"got {self.mask_ratio} of {self.num_group} groups"
            )
        if self.arch == "twotower" and self.single_modal:
            raise InputError("model.single_modal needs the class token of arch 'recon', got arch 'twotower'")
        if self.arch == "twotower" and (self.init != "official" or not self.stop_gradient):
            raise InputError("model.init and model.stop_gradient are of arch 'recon', got arch 'twotower'")

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


SHIPPED = "procedural"  # the encoder that comes with the package, where a command is given no checkpoint
UNTRAINED = ("random", None)  # checkpoints that stand for an encoder with fresh weights


@dataclass(frozen=True)
class EncoderConfig(Settings):
    """The encoder under a head.

    Attributes:
        size: of an untrained encoder, base, small and tiny as in the paper; auto takes the checkpoint's, or
            for an untrained one that of the packaged encoder.
        num_group: groups G that a cloud is divided into; 16 points for each are usual.
        group_size: points K of a group; null takes the checkpoint's.
        drop_path: stochastic depth.
        skip_near_origin: sample centers as pointnet2_ops does; null does as the checkpoint.
    """

    section: ClassVar[str] = "model."
    limits: ClassVar[Limits] = at_least(1, "num_group", "group_size") | share("drop_path")

    size: Literal["auto", "base", "small", "tiny"] = "auto"
    num_group: int = 64
    group_size: int | None = None
    drop_path: float = 0.2
    skip_near_origin: bool | None = None


@dataclass(frozen=True)
class FrozenConfig(Settings):
    """A frozen encoder; what is null is as the checkpoint says.

    Attributes:
        size: of an untrained encoder, base, small and tiny as in the paper; auto takes that of the packaged
            encoder.
        num_heads: attention heads, of official checkpoints of unusual width.
        num_group: groups that a cloud is divided into, where an official checkpoint was trained with an
            unusual number (128 for ScanObjectNN).
        group_size: points of a group, likewise.
    """

    section: ClassVar[str] = "model."
    limits: ClassVar[Limits] = at_least(1, "num_heads", "num_group", "group_size")

    size: Literal["auto", "base", "small", "tiny"] = "auto"
    num_heads: int | None = None
    num_group: int | None = None
    group_size: int | None = None
