"""The frozen image teacher, a timm model or the image tower of an open_clip model, and the views it sees."""

import inspect
import math
import sys
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode, RandAugment
from torchvision.transforms.autoaugment import _apply_op

from recon_fast.config.teacher import TeacherConfig
from recon_fast.device import autocast, resolve_precision
from recon_fast.errors import InputError
from recon_fast.teachers.weights import OPEN_CLIP, Weights, image_weights, load_state, read_state

# The official code normalises with these for its timm ViT too, whose weights were trained with 0.5 and 0.5
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


def teacher_dtype(config: TeacherConfig, device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware multiplies it fast, float32 elsewhere.

    Random teachers always run in float32: the differences between their features are small against the mean.
    """
    return torch.float32 if config.weights == "random" else resolve_precision("auto", device)


class ImageTeacher:
    """Features of pictures: the class token after the final norm for a ViT, pooled features for a CNN.

    Args:
        config: which model, weights, input size and seed.
        device: where it runs.
        weights: the result of looking for them; looked up if None.
    """

    def __init__(
        self, config: TeacherConfig, device: str | torch.device = "cpu", weights: Weights | None = None
    ) -> None:
        self.config = config
        self.device = torch.device(device)
        found = (weights or image_weights(config)).require()
        self.clip = (config.image or "").startswith(OPEN_CLIP)
        self.dtype = teacher_dtype(config, self.device)
        with torch.random.fork_rng(devices=[]):  # CUDA's generators are not touched
            torch.default_generator.manual_seed(config.seed)
            try:
                self.model, self.size = (_clip_tower if self.clip else _timm_model)(config, found)
            except InputError:
                raise
            except (AssertionError, RuntimeError, TypeError, ValueError) as error:
                raise InputError(f"teacher.image {config.image!r} cannot be built: {error}") from error
        self.model.eval().requires_grad_(False).to(self.device).to(memory_format=torch.channels_last)
        mean, std = IMAGENET
        if self.clip:
            trained = clip_settings(config, found)
            mean, std = trained.get("mean") or CLIP[0], trained.get("std") or CLIP[1]
        self.mean = torch.tensor(mean, device=self.device).view(3, 1, 1)
        self.std = torch.tensor(std, device=self.device).view(3, 1, 1)

    def view(self, picture: NDArray[np.uint8], digest: bytes, index: int) -> NDArray[np.uint8]:
        """View `index` of a picture uint8 [H, W, 3]: uint8 [size, size, 3]. Threads may call it at once."""
        return view(picture, self.size, index, digest, self.config.seed, bicubic=self.clip)

    @torch.inference_mode()
    def __call__(self, views: NDArray[np.uint8]) -> Tensor:
        """Features of views uint8 [B, size, size, 3], RGB: float32 [B, D] on the CPU."""
        x = torch.from_numpy(views).to(self.device).permute(0, 3, 1, 2)  # [B, 3, size, size], channels last
        x = (x.float() / 255 - self.mean) / self.std
        with autocast(self.device, self.dtype):
            return self.model(x).float().cpu()


def _timm_model(config: TeacherConfig, found: Weights) -> tuple[nn.Module, int]:
    import timm

    pretrained = timm.get_pretrained_cfg(found.model)
    assert pretrained is not None  # image_weights checked the name
    size = config.image_size or pretrained.input_size[-1]
    options: dict[str, Any] = {"img_size": size} if pretrained.fixed_input_size else {}
    model: Any = timm.create_model(found.model, pretrained=False, num_classes=0, **options)
    if found.file is None:
        return model, size
    # timm's own renaming and resampling for this family, where it has one
    adapt = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    state: Any = None if found.file.suffix == ".npz" else read_state(found.file)
    try:
        if state is None:
            model.load_pretrained(str(found.file))  # numpy refuses pickled arrays by default
            return model, size
        if adapt is not None:
            state = adapt(state, model) if len(inspect.signature(adapt).parameters) > 1 else adapt(state)
    except (KeyError, OSError, RuntimeError, ValueError, AssertionError, AttributeError) as error:
        raise InputError(f"weight file {found.file} does not fit {found.model}: {error!r}") from error
    classifier = pretrained.classifier or ()
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    load_state(model, state, found.file, found.model, spare=[f"{head}." for head in heads] + ["pre_logits."])
    return model, size


def _clip_tower(config: TeacherConfig, found: Weights) -> tuple[nn.Module, int]:
    from types import SimpleNamespace

    import open_clip
    from open_clip.model import CLIPVisionCfg, _build_vision_tower, resize_pos_embed

    settings = open_clip.get_model_config(found.model)
    vision = CLIPVisionCfg(**settings["vision_cfg"])
    vision.timm_model_pretrained = False
    if config.image_size is not None:
        vision.image_size = config.image_size
    model = _build_vision_tower(settings["embed_dim"], vision, quick_gelu(settings, config, found))
    size = vision.image_size if isinstance(vision.image_size, int) else vision.image_size[0]
    if found.file is not None:
        state = {k: v for k, v in read_state(found.file).items() if k.startswith("visual.")}
        if not state:
            raise InputError(f"weight file {found.file} must hold keys visual.* of {found.model}, got none")
        resize_pos_embed(state, SimpleNamespace(visual=model))
        load_state(model, {k.removeprefix("visual."): v for k, v in state.items()}, found.file, found.model)
    return model, size


def clip_settings(config: TeacherConfig, found: Weights) -> dict[str, Any]:
    """What open_clip says of the weights' training: normalisation, activation; empty for random weights."""
    from open_clip.pretrained import get_pretrained_cfg

    return {} if found.random else get_pretrained_cfg(found.model, config.text_pretrained)


def quick_gelu(settings: dict[str, Any], config: TeacherConfig, found: Weights) -> bool:
    """Whether an open_clip model's activation is QuickGELU, as OpenAI's weights were trained with."""
    return bool(settings.get("quick_gelu") or clip_settings(config, found).get("quick_gelu"))


_RESIZE = 256 / 224  # side before the crop over side after it
_AREA = (0.64, 1.0)
_LOG_RATIO = math.log(4 / 3)
_LEVEL, _LEVELS = 10, 31  # RandAugment's magnitude, and how many there are


def view(
    picture: NDArray[np.uint8], size: int, index: int, digest: bytes, seed: int, bicubic: bool = False
) -> NDArray[np.uint8]:
    """View `index` of a picture, the official augmentation as a pure function of the picture and a seed.

    The official order is resize 256, horizontal flip, random resized crop (area 0.64 to 1) to 224 and
    RandAugment (n = 2, m = 10 of 30). Here the crop is taken from the picture itself, which spares one
    resampling. Whoever changes what a view looks like raises the number of views in `store._image_key`.
    Threads may call it at once: it uses no global random numbers.

    Args:
        picture: uint8 [H, W, 3], RGB.
        size: side of the view in pixels.
        index: 0 is the plain view (resized, centre crop), others are augmented.
        digest: the picture's content, which with index and seed decides the augmentation.
        seed: changes every augmented view.
        bicubic: resample with bicubic (CLIP's preprocessing) rather than bilinear.

    Returns:
        uint8 [size, size, 3], RGB.
    """
    image = Image.fromarray(picture)
    resample = Image.Resampling.BICUBIC if bicubic else Image.Resampling.BILINEAR
    if index == 0:
        box = _square(image.width, image.height, min(image.size) / _RESIZE)
        return np.asarray(image.resize((size, size), resample, box=box))
    key = blake2b(digest + f"/{index}/{seed}".encode(), digest_size=16).digest()
    rng = np.random.default_rng(int.from_bytes(key, "little"))
    flip = rng.random() < 0.5
    image = image.resize((size, size), resample, box=_crop(image.width, image.height, rng))
    if flip:
        image = ImageOps.mirror(image)
    # As torchvision's RandAugment, whose random numbers are torch's global ones.
    operations = _operations(size)
    for i in rng.integers(len(operations), size=2):
        name, magnitude, signed = operations[i]
        sign = -1 if signed and rng.random() < 0.5 else 1
        image = _apply_op(image, name, sign * magnitude, InterpolationMode.NEAREST, None)
    return np.asarray(image)


@lru_cache
def _operations(size: int) -> list[tuple[str, float, bool]]:
    """Name, magnitude and whether it has a sign of RandAugment's operations on pictures of this side."""
    space = RandAugment()._augmentation_space(_LEVELS, (size, size))
    return [(name, float(m[_LEVEL]) if m.ndim else 0.0, signed) for name, (m, signed) in space.items()]


def _square(width: int, height: int, side: float) -> tuple[float, float, float, float]:
    """Box of the square in the middle."""
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def _crop(width: int, height: int, rng: np.random.Generator) -> tuple[float, float, float, float]:
    """Box of a random resized crop: area share in _AREA, aspect ratio from 3/4 to 4/3."""
    for _ in range(10):
        area = width * height * rng.uniform(*_AREA)
        ratio = math.exp(rng.uniform(-_LOG_RATIO, _LOG_RATIO))
        w, h = math.sqrt(area * ratio), math.sqrt(area / ratio)
        if w <= width and h <= height:
            left, top = rng.uniform(0, width - w), rng.uniform(0, height - h)
            return left, top, left + w, top + h
    return _square(width, height, min(width, height))
