"""A model from any checkpoint: of a run of ours, a model.safetensors, an official file."""

import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from recon_fast.checkpoint.files import (
    LoadReport,
    load_weights,
    match_own,
    open_tensors,
    refuse_unfit,
    some,
)
from recon_fast.checkpoint.official import infer_architecture, match_official, read_official
from recon_fast.checkpoint.training import find_checkpoint, list_checkpoints
from recon_fast.config import ReConConfig
from recon_fast.config.model import SHIPPED
from recon_fast.errors import InputError
from recon_fast.models import AnyModel, Classifier, PartSegmenter, build_model
from recon_fast.schema import parse_json

WEIGHTS = "model.safetensors"
_SUFFIXES = (".pth", ".pt", ".ckpt", ".bin", ".tar", ".safetensors")  # of files of weights
PACKAGED = Path(__file__).parents[1] / "shipped"  # encoders that come with the package, NAME.safetensors
SHIPPED_FILE = PACKAGED / f"{SHIPPED}.safetensors"
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

    @property
    def notes(self) -> list[str]:
        """What of the file was passed over, in lines for people."""
        return [f"{self.file}: {note}" for note in self.report.notes] if self.report else []


def find_weights(path: str | Path) -> Path:
    """The file that `path` names: itself, the model.safetensors in it, that of its newest checkpoint, the one
    file of weights in it, or an encoder that comes with the package.
    """
    path = Path(path).expanduser()
    if path.is_file():
        return path
    if (path / WEIGHTS).is_file():
        return path / WEIGHTS
    inner = path / "checkpoints"
    files = sorted(file for folder in (path, inner) for file in folder.glob("*") if file.suffix in _SUFFIXES)
    if inner.is_dir() and (list_checkpoints(path) or not files):
        return find_checkpoint(path)[0] / WEIGHTS
    if len(files) > 1:
        raise InputError(
            f"checkpoint must be one file of {path}, which has {some(file.name for file in files)}"
        )
    if files:
        return files[0]
    packaged = {file.stem: file for file in PACKAGED.glob("*.safetensors")}
    if str(path) in packaged:
        return packaged[str(path)]
    raise InputError(
        "checkpoint must be a file, a folder with one, a run's folder or one of "
        f"{', '.join(sorted(packaged))}, got {path}"
    )


def weights_name(file: Path) -> str:
    """What finds a file of weights again: its path, or its name where it came with the package."""
    return file.stem if file.parent == PACKAGED else str(file.absolute())


@dataclass
class Metadata:
    """What a model.safetensors of ours says of itself."""

    config: ReConConfig
    task: dict[str, Any]
    teacher: dict[str, Any] | None
    conventions: dict[str, Any]


def read_metadata(file: Path) -> Metadata | None:
    """What a model.safetensors of ours says of itself; None for any other file.

    Raises InputError for a truncated file, or metadata that are not of this version.
    """
    if file.suffix != ".safetensors":
        return None
    with open_tensors(file) as opened:
        metadata = opened.metadata() or {}
        shapes = [opened.get_slice(name).get_shape() for name in list(opened.keys())]
    if metadata.get("format") != "recon-fast":
        return None

    def stated(name: str, schema: Any, default: str) -> Any:
        wanted = f"{file} states its {name} in a way unknown here"
        return parse_json(metadata.get(name, default), schema, wanted)

    model = stated("model", dict[str, Any], "")
    task = stated("task", dict[str, Any], '{"kind": "pretrain"}')
    _check_sizes(file, {**model, **task}, sum(map(math.prod, shapes)))
    try:
        config = ReConConfig(**model)
    except (TypeError, ValueError) as error:
        raise InputError(f"{file} states its model in a way unknown here: {error}") from error
    conventions = stated("conventions", dict[str, Any] | None, "null") or {}
    return Metadata(config, task, stated("teacher", dict[str, Any] | None, "null"), conventions)


def untrained_architecture(size: str) -> ReConConfig:
    """That of an encoder with fresh weights: the paper's "base", "small" or "tiny", or for "auto" that of the
    encoder that comes with the package, to compare with it.
    """
    if size != "auto":
        return getattr(ReConConfig, size)()
    packaged = read_metadata(SHIPPED_FILE)
    assert packaged is not None
    return packaged.config


def _check_sizes(file: Path, stated: dict[str, Any], elements: int) -> None:
    """Raise InputError where a file states a model that is larger than its tensors, before it is made."""
    sizes = {name: value for name, value in stated.items() if type(value) is int}
    sizes["weights of blocks"] = 12 * sizes.get("dim", 0) ** 2 * sizes.get("depth", 0)
    for name, size in sizes.items():
        if size > elements:
            got = f"{elements} numbers for {name} {size}"
            raise InputError(f"{file} must hold the weights of its model, got {got}")


def _build(file: Path, config: ReConConfig, task: dict[str, Any]) -> AnyModel:
    """The freshly initialised model of a config and a `task`, which `file` states."""
    model: AnyModel
    try:
        if task["kind"] == "pretrain":
            return build_model(config)
        if task["kind"] == "classifier":
            model = Classifier(config, task["num_classes"], task["head"])
        elif task["kind"] == "segmenter":
            model = PartSegmenter(config, task["num_parts"], task["num_categories"])
        else:
            raise ValueError(f"task must be of pretrain, classifier or segmenter, got {task}")
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{file} is of a model that this version does not have: {error}") from error
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
        num_heads: attention heads; wanted for an official checkpoint of another width than the official ones.
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
    refuse_unfit(file, [key for key in report.missing if partial or not key.startswith(_DECODER)], [])
    model.load_state_dict(update, strict=False)
    _regroup(model, num_group, group_size)
    return Restored(model, None, report, file, {} if official.own else dict(OFFICIAL_CONVENTIONS))


def _regroup(model: AnyModel, num_group: int | None, group_size: int | None) -> None:
    """Let the encoder divide clouds otherwise than in training; the decoder rebuilds groups as before."""
    given: dict[str, Any] = {"num_group": num_group, "group_size": group_size}
    model.config = config = replace(model.config, **{name: size for name, size in given.items() if size})
    if hasattr(model.encoder, "config"):
        model.encoder.config = config


def load_encoder(path: str | Path, model: AnyModel) -> LoadReport:
    """Start the encoder of a model from a checkpoint of its width and depth; its head stays as it is.

    Args:
        path: as for `restore`.
        model: a `Classifier`, `PartSegmenter` or `ReCon`; changed in place, untouched where InputError is
            raised.

    Returns:
        What was loaded; the names are official ones for an official checkpoint, ours for one of ours.
    """
    file = find_weights(path)
    if read_metadata(file) is None:
        tensors, report = match_official(read_official(file), model, only="encoder.")
        unknown = [key for key in report.unexpected if re.match(r"(MAE_encoder\.)?blocks\.", key)]
    else:
        tensors, report = match_own(file, model, only="encoder.")
        unknown = report.unexpected
    refuse_unfit(file, report.missing, unknown)
    model.load_state_dict(tensors, strict=False)
    return report
