"""Official ReCon checkpoints: their names for our tensors, what they are of, and how they are loaded."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from recon_fast.checkpoint.files import (
    LoadReport,
    load_weights,
    match,
    read_tensors,
    read_torch_file,
    some,
)
from recon_fast.config import ReConConfig
from recon_fast.errors import InputError
from recon_fast.models import AnyModel

# Ours -> official; rules are applied one after the other.
_TOKENIZER = {
    "lift": "first_conv.0", "lift_norm": "first_conv.1", "local": "first_conv.3",
    "mix": "second_conv.0", "mix_norm": "second_conv.1", "out": "second_conv.3",
}  # fmt: skip
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
    "propagation.lift": "propagation_0.mlp_convs.0", "propagation.lift_norm": "propagation_0.mlp_bns.0",
    "propagation.out": "propagation_0.mlp_convs.1", "propagation.out_norm": "propagation_0.mlp_bns.1",
    "category": "label_conv", "mix": "convs1", "mix_norm": "bns1", "narrow": "convs2", "narrow_norm": "bns2",
    "out": "convs3",
}  # fmt: skip
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
_BLOCK = "blocks.blocks.0.norm1.weight"  # every official encoder has it
# It or our own name for it, after what wrappers of the model put in front.
_ENCODER_KEY = re.compile(
    rf"(|.*?\.)(?:(?:(?:MAE|Dis)_encoder\.)?{re.escape(_BLOCK)}|(?P<own>encoder\.blocks\.0\.norm1\.weight))"
)
# What torch's wrappers of a part of a model put into names.
_WRAPPED = re.compile(r"\b(module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_AVERAGED = re.compile(r"(?<![a-z])ema(?![a-z])")
_ENCODER = "MAE_encoder."  # in front of the encoder's names, in pretraining only
_TEACHER = re.compile(r"^(img_encoder|text_encoder)\.")
# What official models hold beside the encoder.
_PARTS = re.compile(
    r"^(MAE_decoder|Dis_encoder|decoder_pos_embed|increase_dim|mask_token|(img|text|cls)_proj"
    r"|cls_head_finetune|label_conv|propagation_0|convs\d|bns\d)\b"
)
_HEADS = {384: 6, 256: 4, 192: 3}  # of the official widths


def official_name(name: str, downstream: bool = False) -> str:
    """Official name of one of our parameters or buffers; in downstream models the encoder has no prefix."""
    for pattern, to in _DOWNSTREAM if downstream else _PRETRAINING:
        name = re.sub(pattern, to, name)
    return name


def official_names(model: AnyModel) -> dict[str, str]:
    """Official name -> ours, of all parameters and buffers of a model."""
    downstream = model.task["kind"] != "pretrain"
    return {official_name(name, downstream): name for name in model.state_dict()}


def export_official(model: AnyModel) -> dict[str, Tensor]:
    """State dict of `model` under the official names and shapes, for {"base_model": ...} in a torch file."""
    state = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
    return {
        name: state[own][..., None] if _CONVOLUTION.search(name) else state[own]
        for name, own in official_names(model).items()
    }


class Official(NamedTuple):
    """The tensors of an official checkpoint."""

    where: str  # what errors call it
    state: dict[str, Tensor]  # by official names, without what wrappers put in front
    notes: list[str]  # what of the file was passed over, for people
    own: bool  # the names were ours


class _Found(NamedTuple):
    """A state dict with an encoder, somewhere in a checkpoint."""

    at: str  # the keys that lead to it, and the prefix
    prefix: str  # of its names
    own: bool
    state: dict[str, Any]
    weight: int  # where a tensor of it lies


def _encoders(content: Any, at: str = "", depth: int = 3) -> Iterator[_Found]:
    """Every state dict with an encoder in dicts of dicts."""
    if not isinstance(content, Mapping):
        return
    state = {_WRAPPED.sub("", key): content[key] for key in content if isinstance(key, str)}
    for prefix, match_ in {m[1]: m for key in state if (m := _ENCODER_KEY.fullmatch(key))}.items():
        value = state[match_[0]]
        if isinstance(value, Tensor):
            weight = value.data_ptr() if value.layout == torch.strided else id(value)
            yield _Found(f"{at}{prefix}".removesuffix("."), prefix, match_["own"] is not None, state, weight)
    for key in state if depth else ():
        yield from _encoders(state[key], f"{at}{key}.", depth - 1)


def _choose(where: str, found: list[_Found]) -> tuple[_Found, list[str]]:
    """The one model of a checkpoint, or the moving average beside it; and what to say of the others."""
    averaged = [one for one in found if _AVERAGED.search(one.at)]
    if len(found) > 1 and len(averaged) != 1:
        raise InputError(
            f"{where} must hold one model, got {some(one.at or 'its top level' for one in found)}: write the "
            "one you want to a file of its own, as docs/checkpoints.md shows"
        )
    chosen = (averaged or found)[0]
    others = [one.at or "the top level" for one in found if one is not chosen]
    return chosen, [f"took {chosen.at}, the moving average, not {some(others)}"] if others else []


def read_official(source: str | Path | Mapping[str, Any]) -> Official:
    """The tensors of a checkpoint file (torch or safetensors), of its contents, or of a state dict.

    They may lie in dicts of any names. What DataParallel, torch.compile, Lightning and other wrappers put in
    front of names ("module.", "_orig_mod.", "model.") is taken off. Of weights and their moving average (a
    key with "ema"), the average is taken.

    Raises:
        InputError: a file that cannot be read or was made to run code; no encoder, or several.
    """
    where, content, notes = "the given state dict", source, list[str]()
    if isinstance(source, str | Path):
        where = str(source)
        content, passed_over = read_torch_file(source)
        classes = [name for name in passed_over if not name.startswith("numpy.")]
        notes += [f"objects of {some(classes)} passed over"] if classes else []
    found = list({one.weight: one for one in _encoders(content)}.values())
    if not found:
        got = type(content).__name__
        if isinstance(content, Mapping):
            got = some(map(str, content)) or "nothing"
        got = "; ".join([got, *notes])
        raise InputError(f"{where} must hold ReCon weights such as {_BLOCK}, got {got}")
    (_, prefix, own, state, _), others = _choose(where, found)
    tensors = {
        key.removeprefix(prefix): torch.Tensor.detach(value)
        for key, value in state.items()
        if isinstance(value, Tensor)
    }
    if own:
        downstream = not any(key.startswith("reconstruction.") for key in tensors)
        tensors = {official_name(key, downstream): value for key, value in tensors.items()}
    for key, value in tensors.items():
        held = 0 if value.is_meta or value.layout != torch.strided else value.untyped_storage().nbytes()
        if value.is_complex() or value.is_quantized or held < value.numel() * value.element_size():
            got = f"{value.dtype} {tuple(value.shape)}, {value.layout} on {value.device}, in {held} bytes"
            raise InputError(f"{key} of {where} must be an ordinary tensor of real numbers, got {got}")
    return Official(where, tensors, others + notes, own)


def match_official(
    official: Official, model: AnyModel, only: str = ""
) -> tuple[dict[str, Tensor], LoadReport]:
    """As `match`, for an official checkpoint, whatever it and the model are for.

    Wanted are the names of ours that start with `only`; "encoder." leaves out heads and decoder.
    """
    every = official_names(model)
    pretraining = any(key.startswith(_ENCODER) for key in every)

    def name_in_model(key: str) -> str:
        if not pretraining:
            return key.removeprefix(_ENCODER)
        return f"{_ENCODER}{key}" if key not in every and f"{_ENCODER}{key}" in every else key

    state = {
        name_in_model(key): value.squeeze(-1) if value.ndim == 3 and _CONVOLUTION.search(key) else value
        for key, value in official.state.items()
        if not _TEACHER.match(key)
    }
    names = {key: name for key, name in every.items() if name.startswith(only)}
    update, report = match(
        official.where, state, model, names, lambda key: key in every or bool(_PARTS.match(key))
    )
    report.teachers = sum(bool(_TEACHER.match(key)) for key in official.state)
    report.notes = official.notes
    return update, report


def load_official(source: str | Path | Mapping[str, Any], model: AnyModel) -> LoadReport:
    """Load official ReCon weights into a model of the checkpoint's sizes.

    Args:
        source: as of `read_official`; frozen teachers are passed over.
        model: changed in place; untouched where InputError is raised.

    Returns:
        The keys that were loaded, missing, unexpected and of other parts, by official names.
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

    What they do not tell may be given: heads (those of the official widths are known), groups (64, for
    segmentation 128) and, without a decoder, points of a group (32). Centers are sampled as pointnet2_ops
    does (`skip_near_origin`): the weights were trained so. Raises InputError for no ReCon checkpoint, or
    heads that are neither given nor known.
    """
    where, state = official.where, official.state
    prefix = _ENCODER if any(key.startswith(_ENCODER) for key in state) else ""

    def size(key: str, axis: int = 0) -> int | None:
        return state[key].shape[axis] if key in state and state[key].ndim > axis else None

    def depth(blocks: str) -> int:
        found = {int(m[1]) for m in (re.match(rf"{re.escape(blocks)}\.(\d+)\.", key) for key in state) if m}
        if found and max(found) >= len(found):
            last = max(found)
            raise InputError(f"{where} must hold all blocks from 0 on, got {len(found)} and block {last}")
        return len(found)

    dim, blocks = size(f"{prefix}norm.weight"), depth(f"{prefix}blocks.blocks")
    if dim is None or blocks == 0:
        wanted = "norm.weight" if dim is None else "blocks.blocks.0.norm1.weight"
        raise InputError(f"{where} must hold ReCon weights such as {prefix}{wanted}, got {next(iter(state))}")
    num_heads = num_heads or _HEADS.get(dim)
    if num_heads is None:
        known = ", ".join(map(str, _HEADS))
        raise InputError(
            f"num_heads must be given for a width that is none of {known}, got {dim} in {where}: "
            "`recon-fast convert` takes --num_heads and writes a file that states it"
        )

    task: dict[str, Any] = {"kind": "pretrain"}
    last_head = max((key for key in state if re.match(r"cls_head_finetune\.\d\.weight$", key)), default=None)
    if last_head is not None:
        head = "linear" if last_head == "cls_head_finetune.0.weight" else "mlp3"
        task = {"kind": "classifier", "num_classes": size(last_head), "head": head}
    elif "convs3.weight" in state:
        categories = size("label_conv.0.weight", 1)
        task = {"kind": "segmenter", "num_parts": size("convs3.weight"), "num_categories": categories}
    coordinates = size("increase_dim.0.weight")  # of a group that the decoder rebuilds
    config = ReConConfig(
        arch="twotower" if any(key.startswith("Dis_encoder.") for key in state) else "recon",
        dim=dim,
        depth=blocks,
        num_heads=num_heads,
        decoder_depth=depth("MAE_decoder.blocks") or 4,
        decoder_num_heads=num_heads,
        num_group=num_group or (128 if task["kind"] == "segmenter" else 64),
        group_size=coordinates // 3 if coordinates else group_size or 32,
        image_dim=size("img_proj.weight"),
        text_dim=size("text_proj.weight"),
        single_modal="cls_proj.0.weight" in state,
        skip_near_origin=not official.own,
    )
    return config, task


def load_initial(path: str | Path, model: AnyModel) -> str:
    """Start a model from a model.safetensors of ours or official weights; returns what came, as text."""
    path = Path(path).expanduser()
    if path.suffix == ".safetensors" and not read_tensors(path).keys().isdisjoint(model.state_dict()):
        load_weights(path, model)
        return f"weights of {path} loaded"
    return f"official weights of {path}: {load_official(path, model)}"
