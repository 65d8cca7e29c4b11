"""Settings of the frozen teachers."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from recon_fast.config.check import Limits, Settings, at_least
from recon_fast.errors import InputError


def check_prompts(prompts: int) -> None:
    """Raise InputError unless so many prompts of a text exist."""
    if not 1 <= prompts <= 60:
        raise InputError(f"teacher.prompts must be from 1 to 60, got {prompts}")


@dataclass(frozen=True)
class TeacherConfig(Settings):
    """Frozen image and text teachers, and where their features are kept.

    Args:
        image: timm model by name, or `open_clip:NAME` for the image tower of an open_clip model
            (`open_clip:ViT-B-32` with text `ViT-B-32` gives both in one space, for zero-shot); null switches
            the image teacher off.
        text: open_clip model by name, of which only the text tower is built; `tiny` is a 2-layer tower for
            random weights; null switches the text teacher off.
        weights: `local` reads weights from the files below or from the libraries' caches and never downloads;
            `random` draws them from the seed, for trying things out. Take a CNN (resnet10t) then: a random
            ViT tells pictures apart worse, at the same cost.
        image_weights: weight file of the image teacher (.safetensors, .pth, .bin, or .npz where timm reads
            it); null searches the Hugging Face and torch hub caches.
        text_weights: weight file of the text teacher (.safetensors, or a .bin or .pt that holds only
            tensors); null searches the Hugging Face and open_clip caches.
        text_pretrained: open_clip tag of the weights, for `text` and for an `open_clip:` image teacher; it
            decides the activation too, so name it also for a weight file.
        views: views of each picture, V. View 0 is plain (resized, centre crop), the others are augmented.
        prompts: prompts of each caption, P, from 1 to 60; fewer are spread over prefixes and suffixes.
        image_size: side of the image teacher's input in pixels; null takes the model's own.
        batch_size: views, or prompts, that go through a teacher at once.
        seed: of the augmented views and of random weights.
        store: folder in which the features are kept; null keeps them beside the data.
    """

    section: ClassVar[str] = "teacher."
    limits: ClassVar[Limits] = at_least(1, "views", "batch_size")

    image: str | None = "vit_base_patch16_224.augreg_in21k"
    text: str | None = "ViT-B-32"
    weights: Literal["local", "random"] = "local"
    image_weights: str | None = None
    text_weights: str | None = None
    text_pretrained: str = "openai"
    views: int = 4
    prompts: int = 60
    image_size: int | None = None
    batch_size: int = 64
    seed: int = 0
    store: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_prompts(self.prompts)
        if self.image_size is not None and self.image_size < 16:
            raise InputError(f"teacher.image_size must be at least 16 pixels, got {self.image_size}")
        if self.weights not in ("local", "random"):
            raise InputError(f"teacher.weights must be local or random, got {self.weights!r}")
        if self.weights == "random" and (self.image_weights or self.text_weights):
            raise InputError(
                "teacher.weights random takes no weight file, got teacher.image_weights or text_weights"
            )


def random_teacher_config(**changes: Any) -> TeacherConfig:
    """Cheap seeded random teachers, for the procedural set and for trying things out.

    A random resnet10t at 64 pixels (512-d) and the `tiny` text tower (256-d), 2 views, 8 prompts: about 4 ms
    a view and 3 ms a prompt on 2 CPU cores. They know nothing, but similar pictures, and captions that share
    words, get similar features.
    """
    settings: dict[str, Any] = {
        "image": "resnet10t",
        "image_size": 64,
        "text": "tiny",
        "weights": "random",
        "views": 2,
        "prompts": 8,
    }
    return TeacherConfig(**(settings | changes))


@dataclass(frozen=True)
class QueryTeacherConfig(Settings):
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

    section: ClassVar[str] = "teacher."
    limits: ClassVar[Limits] = at_least(1, "batch_size")

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
        super().__post_init__()
        check_prompts(self.prompts)
