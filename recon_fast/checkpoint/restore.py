"""A model from any checkpoint: of a run of ours, a model.safetensors, an official file."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from recon_fast.checkpoint.files import load_weights, open_tensors, read_tensors
from recon_fast.checkpoint.official import LoadReport, infer_architecture, match_official, read_official
from recon_fast.checkpoint.training import find_checkpoint
from recon_fast.config import ReConConfig
from recon_fast.errors import InputError
from recon_fast.models import AnyModel, Classifier, PartSegmenter, build_model
from recon_fast.schema import parse_json

WEIGHTS = "model.safetensors"
OFFICIAL_CONVENTIONS = {"up": "y", "scale": "unit sphere", "points": 1024}  # of ShapeNet55, pretraining
_DECODER = ("MAE_decoder.", "decoder_pos_embed.", "increase_dim.", "mask_token")


@dataclass
class Restored:
    """A model with the weights of a checkpoint."""

    model: AnyModel
    teacher: dict[str, Any] | None  # what the checkpoint says of its frozen teachers
    report: LoadReport | None  # None for a checkpoint of ours: it holds all that its model has
    file: Path | None  # where the weights lie; None for weights at random
    conventions: dict[str, Any]  # of the clouds it was trained on, see `training_conventions`; {} if unknown


def find_weights(path: str | Path) -> Path:
    """The file that `path` names: itself, the model.safetensors in it, or that of a run's newest checkpoint.

    Raises:
        InputError: there is none.
    """
    path = Path(path).expanduser()
    if path.is_file():
        return path
    if (path / WEIGHTS).is_file():
        return path / WEIGHTS
    if (path / "checkpoints").is_dir():
        return find_checkpoint(path)[0] / WEIGHTS
    raise InputError(f"checkpoint must be a file, a folder with {WEIGHTS} or a run's folder, got {path}")


@dataclass
class Metadata:
    """What a model.safetensors of ours says of itself."""

    config: ReConConfig
    task: dict[str, Any]
    teacher: dict[str, Any] | None
    conventions: dict[str, Any]


def read_metadata(file: Path) -> Metadata | None:
    """What a model.safetensors of ours says of itself; None for any other file.

    Raises:
        InputError: the file is truncated, or its metadata are not of this version.
    """
    if file.suffix != ".safetensors":
        return None
    with open_tensors(file) as opened:
        metadata = opened.metadata() or {}
        names = list(opened.keys())
        elements = sum(math.prod(opened.get_slice(name).get_shape()) for name in names)
    if metadata.get("format") != "recon-fast":
        return None

    def stated(name: str, schema: Any, default: str) -> Any:
        wanted = f"{file} states its {name} in a way unknown here"
        return parse_json(metadata.get(name, default), schema, wanted)

    model = stated("model", dict[str, Any], "")
    task = stated("task", dict[str, Any], '{"kind": "pretrain"}')
    _check_sizes(file, {**model, **task}, elements)
    try:
        config = ReConConfig(**model)
    except (TypeError, ValueError) as error:
        raise InputError(f"{file} states its model in a way unknown here: {error}") from error
    conventions = stated("conventions", dict[str, Any] | None, "null") or {}
    return Metadata(config, task, stated("teacher", dict[str, Any] | None, "null"), conventions)


def _check_sizes(file: Path, stated: dict[str, Any], elements: int) -> None:
    """Raise InputError where a file states a model that is larger than its tensors, before it is made."""
    width, depth = stated.get("dim"), stated.get("depth")
    wrong = [
        f"{name} {value}"
        for name, value in stated.items()
        if isinstance(value, int) and not isinstance(value, bool) and value > elements
    ]
    if not wrong and isinstance(width, int) and isinstance(depth, int) and 12 * width**2 * depth > elements:
        wrong = [f"dim {width} and depth {depth}"]
    if wrong:
        raise InputError(f"{file} must hold the weights of its model, got {elements} numbers for {wrong[0]}")


def build(config: ReConConfig, task: dict[str, Any]) -> AnyModel:
    """The freshly initialised model of a config and a `task`. Raises ValueError for an unknown one."""
    model: Classifier | PartSegmenter
    if task.get("kind") == "pretrain":
        return build_model(config)
    if task.get("kind") == "classifier":
        model = Classifier(config, task["num_classes"], task["head"])
    elif task.get("kind") == "segmenter":
        model = PartSegmenter(config, task["num_parts"], task["num_categories"])
    else:
        raise ValueError(f"task must be of pretrain, classifier or segmenter, got {task}")
    model.task.update(task)
    return model


def restore(
    path: str | Path,
    *,
    num_heads: int | None = None,
    num_group: int | None = None,
    group_size: int | None = None,
) -> Restored:
    """The model of a checkpoint, on the CPU.

    Args:
        path: a run's folder, a checkpoint's folder, a model.safetensors, or an official checkpoint of
            pretraining, classification, few-shot learning or segmentation.
        num_heads: attention heads; an official checkpoint does not state them, `infer_architecture` knows
            those of the official widths.
        num_group: groups G; wanted for official checkpoints that were trained with an unusual number.
        group_size: points K of a group.

    Raises:
        InputError: no such checkpoint, a damaged one, one that could run code, or one that lacks a tensor of
            its model. Only the decoder may be missing as a whole; it is freshly initialised then.
    """
    file = find_weights(path)
    ours = read_metadata(file)
    if ours is not None:
        model = _build(file, replace(ours.config, num_heads=num_heads or ours.config.num_heads), ours.task)
        load_weights(file, model)
        _regroup(model, num_group, group_size)
        return Restored(model, ours.teacher, None, file, ours.conventions)
    official = read_official(file)
    config, task = infer_architecture(official, num_heads, num_group, group_size)
    sizes = {"dim": config.dim, "depth": config.depth, **task}
    _check_sizes(file, sizes, sum(value.numel() for value in official.state.values()))
    model = _build(file, config, task)
    update, report = match_official(official, model)
    partial = any(key.startswith(_DECODER) for key in report.loaded)
    _refuse_missing(file, [key for key in report.missing if partial or not key.startswith(_DECODER)])
    model.load_state_dict(update, strict=False)
    _regroup(model, num_group, group_size)
    return Restored(model, None, report, file, dict(OFFICIAL_CONVENTIONS))


def _build(file: Path, config: ReConConfig, task: dict[str, Any]) -> AnyModel:
    try:
        return build(config, task)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{file} is of a model that this version does not have: {error}") from error


def _regroup(model: AnyModel, num_group: int | None, group_size: int | None) -> None:
    """Let the encoder divide clouds otherwise than in training; the decoder rebuilds groups as before."""
    config = replace(
        model.config,
        num_group=num_group or model.config.num_group,
        group_size=group_size or model.config.group_size,
    )
    for part in (model, model.encoder):
        if hasattr(part, "config"):
            part.config = config


def load_encoder(path: str | Path, model: AnyModel) -> LoadReport:
    """Start the encoder of `model` from a checkpoint; its head stays as it is.

    Args:
        path: as for `restore`.
        model: a `Classifier`, `PartSegmenter` or `ReCon` of the checkpoint's width and depth; changed
            in place.

    Returns:
        What was loaded; the names are official ones for an official checkpoint, ours for one of ours.

    Raises:
        InputError: as `restore`, or an encoder of another size, which is named.
    """
    file = find_weights(path)
    own = {name: value for name, value in model.state_dict().items() if name.startswith("encoder.")}
    if read_metadata(file) is None:
        update, report = match_official(read_official(file), model, only="encoder.")
        extra = [key for key in report.unexpected if re.match(r"(MAE_encoder\.)?blocks\.", key)]
    else:
        tensors = read_tensors(file)
        update = {name: tensors[name] for name in own if name in tensors}
        report = LoadReport(
            loaded=list(update),
            missing=[name for name in own if name not in tensors],
            other=[name for name in tensors if name not in own],
        )
        for name, value in update.items():
            if value.shape != own[name].shape:
                want, got = tuple(own[name].shape), tuple(value.shape)
                raise InputError(f"{name} of {file} must be {want} for this model, got {got}")
        extra = [name for name in report.other if name.startswith("encoder.")]
    _refuse_missing(file, report.missing)
    if extra:
        raise InputError(f"{file} is no checkpoint of this model: it has {extra[0]}, unknown to the encoder")
    model.load_state_dict(update, strict=False)
    return report


def _refuse_missing(file: Path, missing: Sequence[str]) -> None:
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]  # without effect
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(f"{file} is no checkpoint of this model: it has no {missing[0]}{more}")
