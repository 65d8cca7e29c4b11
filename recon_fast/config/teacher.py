"""What the teachers are. Imports neither torch nor a model library, so that a command line reads it fast."""

from dataclasses import dataclass
from typing import Any, Literal

from recon_fast.checks import check_numbers
from recon_fast.errors import InputError


@dataclass(frozen=True)
class TeacherConfig:
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
        check_numbers(self, "teacher.", views=1, batch_size=1)
        if not 1 <= self.prompts <= 60:
            raise InputError(f"teacher.prompts must be from 1 to 60, got {self.prompts}")
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
