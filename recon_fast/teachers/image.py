"""The frozen image teacher: a timm model, or the image tower of an open_clip model."""

import inspect
import sys
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recon_fast.config.teacher import TeacherConfig
from recon_fast.device import autocast, resolve_precision
from recon_fast.errors import InputError
from recon_fast.teachers.augment import view
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
