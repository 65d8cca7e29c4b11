"""Reading weights from disk without running code from it."""

import json
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from recon_fast.errors import InputError, first_line
from recon_fast.models import AnyModel
from recon_fast.schema import instead

_numpy_scalar = np.float64(0).__reduce__()[0]
# What numpy scalars among an official checkpoint's metrics unpickle through; none of it runs foreign code.
_NUMPY_SCALARS: list[Any] = [
    (_numpy_scalar, "numpy.core.multiarray.scalar"),
    _numpy_scalar,
    np.dtype,
    *(type(np.dtype(t)) for t in (np.float64, np.float32, np.int64, np.int32)),
]


def weights_metadata(
    model: AnyModel, teacher: Mapping[str, Any] | None, conventions: Mapping[str, Any] | None = None
) -> dict[str, str]:
    """What a model.safetensors of ours says of itself: architecture, task, teachers, clouds.

    Args:
        model: whose weights they are.
        teacher: what is known of the frozen teachers; None if nothing.
        conventions: of the clouds that it was trained on, see `training_conventions`; None if unknown.
    """
    return {
        "format": "recon-fast",
        "model": json.dumps(asdict(model.config)),
        "task": json.dumps(model.task),
        "teacher": json.dumps(teacher),
        "conventions": json.dumps(conventions),
    }


def save_weights(model: nn.Module, path: Path, metadata: Mapping[str, str]) -> None:
    """Write the state dict of `model` as safetensors. Raises OSError if that cannot be done."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    try:
        save_file(weights, path, dict(metadata))
    except SafetensorError as error:  # how safetensors reports a full disk
        raise OSError(str(error)) from error


@contextmanager
def open_tensors(path: Path) -> Iterator[Any]:
    """An open safetensors file. Raises InputError if it is truncated or not one."""
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is truncated or no safetensors file: {error}{instead(path)}") from error


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
    if hint := instead(path):
        raise InputError(f"checkpoint {path} must hold tensors{hint}")
    if path.stat().st_size == 0:
        raise InputError(f"checkpoint {path} must hold tensors, got an empty file")
    try:
        with torch.serialization.safe_globals(_NUMPY_SCALARS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = re.search(r"GLOBAL (\S+)", str(error))
        what = f"{reason[1]}, which could run code" if reason else "something that is no plain tensor"
        raise InputError(f"checkpoint {path} must hold only tensors and plain values, got {what}") from error
    except Exception as error:  # zip, tensor and format errors of a damaged file have no common type
        raise InputError(f"checkpoint {path} cannot be read: {first_line(error)}") from error
