"""Official ReCon checkpoints: what they are of, and their weights in models of this package."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from recon_fast.checkpoint.files import load_weights, read_tensors, read_torch_file
from recon_fast.checkpoint.names import from_official, official_names
from recon_fast.config import ReConConfig
from recon_fast.errors import InputError
from recon_fast.models import AnyModel

_CONTAINERS = ("base_model", "model", "model_state_dict", "state_dict")
_TEACHER = re.compile(r"^(img_encoder|text_encoder)\.")
# What official models hold beside the encoder.
_PARTS = re.compile(
    r"^(MAE_decoder|Dis_encoder|decoder_pos_embed|increase_dim|mask_token|(img|text|cls)_proj"
    r"|cls_head_finetune|label_conv|propagation_0|convs\d|bns\d)\b"
)
_HEADS = {384: 6, 256: 4, 192: 3}  # of the official widths


@dataclass
class LoadReport:
    """What an official checkpoint held, by official names."""

    loaded: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)  # wanted by the model, absent from the checkpoint
    unexpected: list[str] = field(default_factory=list)  # in the checkpoint, unknown to the official models
    other: list[str] = field(default_factory=list)  # of parts that this model has not, such as the decoder
    teachers: int = 0  # tensors of frozen teachers that were passed over

    def __str__(self) -> str:
        text = f"{len(self.loaded)} loaded, {len(self.missing)} missing, {len(self.unexpected)} unexpected"
        text += f", {len(self.other)} of parts that the model has not" if self.other else ""
        return text + (f", {self.teachers} of frozen teachers passed over" if self.teachers else "")


class Official(NamedTuple):
    """Tensors of an official checkpoint."""

    where: str  # how to call it in messages
    state: dict[str, Tensor]  # by official names, without "module."


def read_official(source: str | Path | Mapping[str, Any]) -> Official:
    """The tensors of an official checkpoint.

    Args:
        source: a checkpoint file (torch or safetensors), its contents, or a state dict.

    Raises:
        InputError: an unreadable file, a file that could run code, or no tensors.
    """
    where = str(source) if isinstance(source, str | Path) else "the given state dict"
    state = read_torch_file(source) if isinstance(source, str | Path) else source
    if isinstance(state, Mapping):
        held = (state[key] for key in _CONTAINERS if isinstance(state.get(key), Mapping))
        state = next(held, state)
    if not isinstance(state, Mapping) or not any(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{where} must hold a state dict, got {type(state).__name__} without tensors")
    tensors = {
        key.removeprefix("module."): value
        for key, value in state.items()
        if isinstance(key, str) and isinstance(value, Tensor)
    }
    if not tensors:
        raise InputError(f"{where} must hold a state dict, got tensors without names")
    for key, value in tensors.items():
        if problem := _problem(value):
            raise InputError(f"{key} of {where} must be an ordinary tensor of real numbers, got {problem}")
    return Official(where, tensors)


def _problem(value: Tensor) -> str:
    """Why a tensor is no weight as it is stored; empty where all is well."""
    if value.is_complex() or value.is_quantized:
        return str(value.dtype)
    if value.layout != torch.strided or value.device.type == "meta":
        return f"{value.layout} on {value.device}"
    if value.untyped_storage().nbytes() < value.numel() * value.element_size():
        return f"{tuple(value.shape)} of {value.untyped_storage().nbytes()} bytes"
    return ""


def _with_prefix(state: dict[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """The state with the encoder's names as in `names`: pretraining puts "MAE_encoder." in front of them."""
    prefix = "MAE_encoder."
    if any(key.startswith(prefix) for key in names):
        bare = (f"{prefix}{key}" in names and key not in names for key in state)
        return {
            f"{prefix}{key}" if is_bare else key: state[key] for key, is_bare in zip(state, bare, strict=True)
        }
    return {key.removeprefix(prefix): value for key, value in state.items()}


def match_official(
    official: Official, model: AnyModel, only: str = ""
) -> tuple[dict[str, Tensor], LoadReport]:
    """The tensors of an official checkpoint for `model`, under our names, and the report on them.

    Args:
        official: the checkpoint.
        model: is left as it is.
        only: take what starts with this of our names; "encoder." leaves out heads and decoder.

    Raises:
        InputError: no key in common with the model, or a tensor of another shape.
    """
    own, every = model.state_dict(), official_names(model)
    where, state = official.where, _with_prefix(official.state, every)
    names = {key: name for key, name in every.items() if name.startswith(only)}
    report = LoadReport(teachers=sum(bool(_TEACHER.match(key)) for key in state))
    update = {}
    for key, name in names.items():
        if key not in state:
            report.missing.append(key)
            continue
        value = from_official(key, state[key])
        if value.shape != own[name].shape:
            raise InputError(
                f"{key} of {where} must be {tuple(own[name].shape)} for this model, got {tuple(value.shape)}"
            )
        update[name] = value
        report.loaded.append(key)
    for key in state:
        if key not in names and not _TEACHER.match(key):
            (report.other if key in every or _PARTS.match(key) else report.unexpected).append(key)
    if not update:
        raise InputError(
            f"{where} must hold ReCon weights such as {next(iter(names))}, got {next(iter(state))}"
        )
    return update, report


def load_official(source: str | Path | Mapping[str, Any], model: AnyModel) -> LoadReport:
    """Load official ReCon weights into `model`.

    Args:
        source: a checkpoint file (torch or safetensors) of pretraining, classification, few-shot learning or
            segmentation, its contents, or a state dict. Keys may start with "module."; tensors of frozen
            teachers are passed over.
        model: of the checkpoint's sizes; changed in place.

    Returns:
        The keys that were loaded, missing, unexpected and of other parts, by official names.

    Raises:
        InputError: an unreadable file, a file that could run code, no key in common with the model, or a
            tensor of another shape; the model is untouched then.
    """
    update, report = match_official(read_official(source), model)
    model.load_state_dict(update, strict=False)
    return report


def infer_architecture(
    official: Official,
    num_heads: int | None = None,
    num_group: int | None = None,
    group_size: int | None = None,
) -> tuple[ReConConfig, dict[str, Any]]:
    """Architecture and task of an official checkpoint, from the names and shapes in it.

    Args:
        official: the checkpoint.
        num_heads: None takes those of the official widths (384: 6, 256: 4, 192: 3).
        num_group: None takes 64, for segmentation 128.
        group_size: None takes that of the decoder, 32 without one.

    Centers are sampled as pointnet2_ops does (`skip_near_origin`): the weights were trained so.

    Returns:
        The config and {"kind": "pretrain" | "classifier" | "segmenter", ...} as the models' `task`.

    Raises:
        InputError: no ReCon checkpoint; heads that are neither given nor known.
    """
    where, state = official
    prefix = "MAE_encoder." if any(key.startswith("MAE_encoder.") for key in state) else ""

    def width(key: str, axis: int = 0) -> int | None:
        return state[key].shape[axis] if key in state and state[key].ndim > axis else None

    dim = width(f"{prefix}norm.weight")
    blocks = re.compile(rf"^{re.escape(prefix)}blocks\.blocks\.(\d+)\.")
    depth = _depth(where, (int(m[1]) for m in map(blocks.match, state) if m))
    if dim is None or depth == 0:
        wanted = "norm.weight" if dim is None else "blocks.blocks.0.norm1.weight"
        raise InputError(f"{where} must hold ReCon weights such as {prefix}{wanted}, got {next(iter(state))}")
    num_heads = num_heads or _HEADS.get(dim)
    if num_heads is None:
        known = ", ".join(map(str, _HEADS))
        raise InputError(f"num_heads must be given for a width that is none of {known}, got {dim} in {where}")

    task: dict[str, Any] = {"kind": "pretrain"}
    last_head = max((key for key in state if re.match(r"cls_head_finetune\.\d\.weight$", key)), default=None)
    if last_head is not None:
        head = "linear" if last_head == "cls_head_finetune.0.weight" else "mlp3"
        task = {"kind": "classifier", "num_classes": width(last_head), "head": head}
    elif "convs3.weight" in state:
        categories = width("label_conv.0.weight", 1)
        task = {"kind": "segmenter", "num_parts": width("convs3.weight"), "num_categories": categories}
    decoder = re.compile(r"^MAE_decoder\.blocks\.(\d+)\.")
    rebuilt = width("increase_dim.0.weight")
    config = ReConConfig(
        arch="twotower" if any(key.startswith("Dis_encoder.") for key in state) else "recon",
        dim=dim,
        depth=depth,
        num_heads=num_heads,
        decoder_depth=_depth(where, (int(m[1]) for m in map(decoder.match, state) if m)) or 4,
        decoder_num_heads=num_heads,
        num_group=num_group or (128 if task["kind"] == "segmenter" else 64),
        group_size=rebuilt // 3 if rebuilt else group_size or 32,
        image_dim=width("img_proj.weight"),
        text_dim=width("text_proj.weight"),
        single_modal="cls_proj.0.weight" in state,
        skip_near_origin=True,
    )
    return config, task


def _depth(where: str, numbers: Iterable[int]) -> int:
    """How many blocks there are, counted from 0 without gaps; 0 for none."""
    found = set(numbers)
    if found and max(found) >= len(found):
        raise InputError(f"{where} must hold all blocks from 0 on, got {len(found)} and block {max(found)}")
    return len(found)


def load_initial(path: str | Path, model: AnyModel) -> str:
    """Start `model` from a model.safetensors of ours or an official checkpoint; returns a line that says what
    came.
    """
    path = Path(path).expanduser()
    if path.suffix == ".safetensors" and not read_tensors(path).keys().isdisjoint(model.state_dict()):
        load_weights(path, model)
        return f"weights of {path} loaded"
    return f"official weights of {path}: {load_official(path, model)}"
