"""Our parameter names and the official ones."""

import re

from torch import Tensor

from recon_fast.models import AnyModel

# Ours -> official; rules are applied one after the other.
_TOKENIZER = {
    "lift": "first_conv.0",
    "lift_norm": "first_conv.1",
    "local": "first_conv.3",
    "mix": "second_conv.0",
    "mix_norm": "second_conv.1",
    "out": "second_conv.3",
}
_PRETRAINING = [
    (r"(.*)\btokenizer\.(\w+)\.", lambda m: f"{m[1]}encoder.{_TOKENIZER[m[2]]}."),
    (r"^contrast_encoder\.", lambda m: "Dis_encoder."),
    (r"^encoder\.", lambda m: "MAE_encoder."),
    (r"^(MAE_encoder|Dis_encoder)\.blocks\.", lambda m: f"{m[1]}.blocks.blocks."),
    (r"^reconstruction\.pos_embed\.", lambda m: "decoder_pos_embed."),
    (r"^reconstruction\.(blocks|norm)\.", lambda m: f"MAE_decoder.{m[1]}."),
    (r"^reconstruction\.head\.", lambda m: "increase_dim.0."),
    (r"^reconstruction\.mask_token", lambda m: "mask_token"),
]
_SEGMENTER = {
    "category": "label_conv",
    "propagation.lift": "propagation_0.mlp_convs.0",
    "propagation.lift_norm": "propagation_0.mlp_bns.0",
    "propagation.out": "propagation_0.mlp_convs.1",
    "propagation.out_norm": "propagation_0.mlp_bns.1",
    "mix": "convs1",
    "mix_norm": "bns1",
    "narrow": "convs2",
    "narrow_norm": "bns2",
    "out": "convs3",
}
_DOWNSTREAM = [
    (r"^head\.", lambda m: "cls_head_finetune."),
    (rf"^({'|'.join(_SEGMENTER)})\.", lambda m: f"{_SEGMENTER[m[1]]}."),
    (r"^encoder\.blocks\.", lambda m: "encoder.blocks.blocks."),
    (r"^encoder\.tokenizer\.(\w+)\.", lambda m: f"encoder.encoder.{_TOKENIZER[m[1]]}."),
    (r"^encoder\.", lambda m: ""),
]
# Linear layers of ours that are 1x1 convolutions there: their weights carry a trailing axis of size 1.
_CONVOLUTION = re.compile(
    r"((first|second)_conv\.[03]|increase_dim\.0|label_conv\.0|mlp_convs\.\d|^convs\d)\.weight$"
)


def official_name(name: str, downstream: bool = False) -> str:
    """Official state-dict name of one of our parameters or buffers.

    In the official downstream models (`Classifier`, `PartSegmenter`) the encoder's names have no prefix.
    """
    for pattern, to in _DOWNSTREAM if downstream else _PRETRAINING:
        name = re.sub(pattern, to, name)
    return name


def official_names(model: AnyModel) -> dict[str, str]:
    """Official name -> ours, of all parameters and buffers of a model."""
    downstream = model.task["kind"] != "pretrain"
    return {official_name(name, downstream): name for name in model.state_dict()}


def to_official(name: str, value: Tensor) -> Tensor:
    """A tensor of ours in the shape that it has under the official `name`."""
    return value[..., None] if _CONVOLUTION.search(name) else value


def from_official(name: str, value: Tensor) -> Tensor:
    """The tensor of the official `name` in the shape that it has here."""
    return value.squeeze(-1) if _CONVOLUTION.search(name) and value.ndim == 3 else value


def export_official(model: AnyModel) -> dict[str, Tensor]:
    """State dict of `model` under the official names and shapes, on the CPU.

    `torch.save({"base_model": export_official(model)}, path)` writes a file that the official code loads.
    """
    state = model.state_dict()
    return {
        name: to_official(name, state[own].detach().cpu().clone())
        for name, own in official_names(model).items()
    }
