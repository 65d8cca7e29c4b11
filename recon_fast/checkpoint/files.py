"""Weights on disk: ours as safetensors, and interchange with the official ReCon checkpoints.

Nothing here unpickles objects: a checkpoint that holds anything but tensors and plain values is refused.
"""

import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from recon_fast.errors import InputError

# Ours -> official, tried in order. Layers that are 1x1 convolutions there carry a trailing axis of size 1.
_TOKENIZER = {
    "lift": "first_conv.0",
    "lift_norm": "first_conv.1",
    "local": "first_conv.3",
    "mix": "second_conv.0",
    "mix_norm": "second_conv.1",
    "out": "second_conv.3",
}
_RULES = [
    (r"(.*)\btokenizer\.(\w+)\.", lambda m: f"{m[1]}encoder.{_TOKENIZER[m[2]]}."),
    (r"^contrast_encoder\.", lambda m: "Dis_encoder."),
    (r"^encoder\.", lambda m: "MAE_encoder."),
    (r"^(MAE_encoder|Dis_encoder)\.blocks\.", lambda m: f"{m[1]}.blocks.blocks."),
    (r"^reconstruction\.pos_embed\.", lambda m: "decoder_pos_embed."),
    (r"^reconstruction\.(blocks|norm)\.", lambda m: f"MAE_decoder.{m[1]}."),
    (r"^reconstruction\.head\.", lambda m: "increase_dim.0."),
    (r"^reconstruction\.mask_token", lambda m: "mask_token"),
]
_CONVOLUTION = re.compile(r"((first|second)_conv\.[03]|increase_dim\.0)\.weight$")
_TEACHER = re.compile(r"^(img_encoder|text_encoder)\.")

_numpy_scalar = np.float64(0).__reduce__()[0]
# What numpy scalars among an official checkpoint's metrics unpickle through; none of it runs foreign code.
_NUMPY_SCALARS: list[Any] = [
    (_numpy_scalar, "numpy.core.multiarray.scalar"),
    _numpy_scalar,
    np.dtype,
    *(type(np.dtype(t)) for t in (np.float64, np.float32, np.int64, np.int32)),
]


@dataclass
class LoadReport:
    """What an official checkpoint held, by official names."""

    loaded: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)  # wanted by the model, absent from the checkpoint
    unexpected: list[str] = field(default_factory=list)  # in the checkpoint, unknown to the model
    teachers: int = 0  # tensors of frozen teachers that were passed over

    def __str__(self) -> str:
        text = f"{len(self.loaded)} loaded, {len(self.missing)} missing, {len(self.unexpected)} unexpected"
        return text + (f", {self.teachers} of frozen teachers passed over" if self.teachers else "")


def official_name(name: str) -> str:
    """Official state-dict name of one of our parameters or buffers."""
    for pattern, to in _RULES:
        name = re.sub(pattern, to, name)
    return name


def export_official(model: nn.Module) -> dict[str, Tensor]:
    """State dict of `model` under the official names and shapes, on the CPU.

    `torch.save({"base_model": export_official(model)}, path)` writes a file that the official code loads.
    """
    exported = {}
    for name, tensor in model.state_dict().items():
        name = official_name(name)
        tensor = tensor.detach().cpu().clone()
        exported[name] = tensor[..., None] if _CONVOLUTION.search(name) else tensor
    return exported


@contextmanager
def open_tensors(path: Path) -> Iterator[Any]:
    """An open safetensors file. Raises InputError if it is truncated or not one."""
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is truncated or no safetensors file: {error}") from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file. Raises InputError if it is truncated or not one."""
    with open_tensors(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping


def load_weights(path: Path, model: nn.Module) -> None:
    """Load a model.safetensors of ours; every name and shape must match, or nothing is changed."""
    tensors, own = read_tensors(path), model.state_dict()
    for name, value in own.items():
        if name not in tensors:
            raise InputError(f"{path} is of another architecture: it must hold {name}, which is missing")
        if tensors[name].shape != value.shape:
            want, got = tuple(value.shape), tuple(tensors[name].shape)
            raise InputError(f"{path} is of another architecture: {name} must be {want}, got {got}")
    extra = sorted(tensors.keys() - own.keys())
    if extra:
        raise InputError(f"{path} is of another architecture: it holds {extra[0]}, unknown to this model")
    model.load_state_dict(tensors)


def is_torchscript(file: Path) -> bool:
    """Whether a file is a TorchScript archive: loading one runs the code it holds."""
    try:
        with zipfile.ZipFile(file) as archive:
            return any("/code/" in name or name.endswith("/constants.pkl") for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def read_torch_file(path: str | Path) -> Any:
    """Contents of a torch or safetensors file, without running code from it. Raises InputError."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"checkpoint must be a file, got {path}")
    if path.suffix == ".safetensors":
        return read_tensors(path)
    if is_torchscript(path):
        raise InputError(f"checkpoint {path} must hold only tensors, got a TorchScript archive, with code")
    try:
        with torch.serialization.safe_globals(_NUMPY_SCALARS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = re.search(r"GLOBAL (\S+)", str(error))
        what = f"{reason[1]}, which could run code" if reason else "something that is no plain tensor"
        raise InputError(f"checkpoint {path} must hold only tensors and plain values, got {what}") from error
    except Exception as error:  # zip, tensor and format errors of a damaged file have no common type
        raise InputError(f"checkpoint {path} cannot be read: {str(error).splitlines()[0]}") from error


def load_official(source: str | Path | Mapping[str, Any], model: nn.Module) -> LoadReport:
    """Load official ReCon pretraining weights into `model`.

    Args:
        source: a checkpoint file (torch or safetensors), its contents, or a state dict. Keys may start with
            "module."; tensors of frozen teachers are passed over.
        model: a `ReCon` or `TwoTower` of the checkpoint's sizes; changed in place.

    Returns:
        The keys that were loaded, missing and unexpected, by official names.

    Raises:
        InputError: an unreadable file, a file that could run code, no key in common with the model, or a
            tensor of another shape; the model is untouched then.
    """
    where = str(source) if isinstance(source, str | Path) else "the given state dict"
    state = read_torch_file(source) if isinstance(source, str | Path) else source
    if isinstance(state, Mapping) and isinstance(state.get("base_model"), Mapping):
        state = state["base_model"]
    if not isinstance(state, Mapping) or not any(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{where} must hold a state dict, got {type(state).__name__} without tensors")
    state = {
        key.removeprefix("module."): value
        for key, value in state.items()
        if isinstance(key, str) and isinstance(value, Tensor)
    }

    report = LoadReport(teachers=sum(bool(_TEACHER.match(key)) for key in state))
    own = model.state_dict()
    names = {official_name(name): name for name in own}
    update = {}
    for key, name in names.items():
        if key not in state:
            report.missing.append(key)
            continue
        value = state[key].squeeze(-1) if _CONVOLUTION.search(key) else state[key]
        if value.shape != own[name].shape:
            raise InputError(
                f"{key} of {where} must be {tuple(own[name].shape)} for this model, got {tuple(value.shape)}"
            )
        update[name] = value
        report.loaded.append(key)
    report.unexpected = [key for key in state if key not in names and not _TEACHER.match(key)]
    if not update:
        raise InputError(
            f"{where} must hold ReCon weights such as {next(iter(names))}, got {next(iter(state))}"
        )
    model.load_state_dict(update, strict=False)
    return report


def load_initial(path: str | Path, model: nn.Module) -> str:
    """Start `model` from a model.safetensors of ours or an official checkpoint; returns a line that says what
    came.
    """
    path = Path(path).expanduser()
    if path.suffix == ".safetensors" and not read_tensors(path).keys().isdisjoint(model.state_dict()):
        load_weights(path, model)
        return f"weights of {path} loaded"
    return f"official weights of {path}: {load_official(path, model)}"
