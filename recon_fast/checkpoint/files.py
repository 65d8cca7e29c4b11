"""Weights on disk: written as safetensors, read without running code, matched with a model by name."""

import json
import pickle
import re
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from recon_fast.errors import InputError, first_line
from recon_fast.files import is_torchscript
from recon_fast.models import AnyModel
from recon_fast.schema import instead

_ALONE = "keep its weights alone, as docs/checkpoints.md shows"
_MOST = 100  # classes that a file may name
# What no checkpoint needs: a file that names one of these was made to run code.
_HOSTILE = re.compile(
    r"builtins\.(eval|exec|compile|open|__import__)$|(os|posix|nt|sys|subprocess|commands|runpy|importlib|socket)\."
    r"|torch\.storage\._load_from_bytes$"
)
_STATED = re.compile(r"numpy\b|functools\.partial$")  # their objects take a state that is no dict


class _Emptied:
    """Stands for a class or function that a checkpoint names: a call gives an empty dict."""

    def __new__(cls, *_: Any, **__: Any) -> Any:
        return OrderedDict()  # the only type beside dict whose items and attributes torch lets a file set


class _Ignored:
    """Likewise, of numpy: takes any arguments and any state, and keeps nothing."""

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


def weights_metadata(
    model: AnyModel, teacher: Mapping[str, Any] | None, conventions: Mapping[str, Any] | None = None
) -> dict[str, str]:
    """What a model.safetensors of ours states: its model and task, what is known of the frozen teachers, and
    the conventions of the clouds that it was trained on (see `training_conventions`).
    """
    names = ("model", "task", "teacher", "conventions")
    values = (asdict(model.config), model.task, teacher, conventions)
    return {"format": "recon-fast"} | dict(zip(names, map(json.dumps, values), strict=True))


def save_weights(
    model: nn.Module, path: Path, metadata: Mapping[str, str], dtype: torch.dtype = torch.float32
) -> None:
    """Write the state dict of `model` as safetensors, its real numbers in `dtype`. Raises OSError if that
    cannot be done.
    """
    weights = {
        name: tensor.detach().cpu().to(dtype if tensor.is_floating_point() else tensor.dtype).contiguous()
        for name, tensor in model.state_dict().items()
    }
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


def read_torch_file(path: str | Path) -> tuple[Any, list[str]]:
    """The contents of a torch or safetensors file, without running code from it.

    Tensors and plain values are kept. Objects of any class, such as an argparse.Namespace, are not made; an
    empty dict or a blank object is in their place.

    Returns:
        The contents, and the names of the classes and functions that were passed over.

    Raises:
        InputError: no such file, a damaged one, or one that was made to run code.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"checkpoint must be a file, got {path}")
    if path.suffix == ".safetensors":
        return read_tensors(path), []
    hint = instead(path)
    if is_torchscript(path):
        hint = "; it is a TorchScript archive, which holds code: take the .safetensors file of the same model"
    if hint or path.stat().st_size == 0:
        raise InputError(f"checkpoint {path} must hold only tensors{hint or '; it is empty'}")
    passed_over: list[str] = []
    while True:
        stand_ins: list[Any] = [(_Ignored if _STATED.match(name) else _Emptied, name) for name in passed_over]
        try:
            with torch.serialization.safe_globals(stand_ins), warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Detected pickle protocol")  # the outcome says what matters
                return torch.load(path, map_location="cpu", weights_only=True), passed_over
        except pickle.UnpicklingError as error:  # torch names the first class that it does not know
            found = re.search(r"GLOBAL (\S+)", str(error))
            name = "" if found is None else found[1] if "." in found[1] else f"builtins.{found[1]}"
            if name and not _HOSTILE.match(name) and name not in passed_over and len(passed_over) < _MOST:
                passed_over.append(name)
                continue
            what = f"{name}, which could run code" if name else "something that is no plain tensor"
            beside = f", beside objects of {some(passed_over)}: {_ALONE}" if passed_over else ""
            wanted = f"checkpoint {path} must hold only tensors and plain values"
            raise InputError(f"{wanted}, got {what}{beside}") from error
        except Exception as error:  # zip, tensor and format errors of a damaged file have no common type
            beside = f", beside objects of {some(passed_over)}: {_ALONE}" if passed_over else ""
            raise InputError(f"checkpoint {path} cannot be read: {first_line(error)}{beside}") from error


def some(names: Iterable[str], most: int = 4) -> str:
    """Names as text, the first few of many."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


@dataclass
class LoadReport:
    """What became of the tensors of a checkpoint, by the names that they have in it."""

    loaded: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)  # wanted by the model, absent from the checkpoint
    unexpected: list[str] = field(default_factory=list)  # in the checkpoint, unknown to models of its kind
    other: list[str] = field(default_factory=list)  # of parts that this model has not, such as the decoder
    teachers: int = 0  # tensors of frozen teachers that were passed over
    notes: list[str] = field(default_factory=list)  # what else of the file was passed over

    def __str__(self) -> str:
        text = f"{len(self.loaded)} loaded, {len(self.missing)} missing, {len(self.unexpected)} unexpected"
        text += f", {len(self.other)} of parts that the model has not" if self.other else ""
        text += f", {self.teachers} of frozen teachers passed over" if self.teachers else ""
        return "; ".join([text, *self.notes])


def match(
    where: str,
    tensors: Mapping[str, Tensor],
    model: nn.Module,
    names: Mapping[str, str],
    is_other: Callable[[str], bool],
) -> tuple[dict[str, Tensor], LoadReport]:
    """The tensors of a checkpoint for a model, under the model's names, and the report on all of them.

    Errors call the checkpoint `where`. `names` has what is wanted: its name there -> its name in the model.
    What is not wanted counts as unexpected, unless `is_other` says that it is of another part. Raises
    InputError for no wanted tensor at all, or one of another shape or with NaN.
    """
    own, report = model.state_dict(), LoadReport()
    for key, name in names.items():
        (report.loaded if key in tensors else report.missing).append(key)
        if key in tensors and tensors[key].shape != own[name].shape:
            want, got = tuple(own[name].shape), tuple(tensors[key].shape)
            raise InputError(f"{key} of {where} must be {want} for this model, got {got}")
        if key in tensors and not tensors[key].isfinite().all():
            raise InputError(f"{key} of {where} must be finite, got NaN or inf")
    for key in tensors:
        if key not in names:
            (report.other if is_other(key) else report.unexpected).append(key)
    if not report.loaded:
        first = next(iter(tensors), "none")
        raise InputError(f"{where} must hold weights such as {next(iter(names))}, got {first}")
    return {names[key]: tensors[key] for key in report.loaded}, report


def refuse_unfit(where: str | Path, missing: Sequence[str], unknown: Sequence[str]) -> None:
    """Raise InputError where a checkpoint lacks tensors of a model, or has some that the model has not."""
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]  # without effect
    for names, what in ((missing, "has no {}"), (unknown, "has {}, unknown to the model")):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise InputError(f"{where} is no checkpoint of this model: it {what.format(names[0] + more)}")


def match_own(path: Path, model: nn.Module, only: str = "") -> tuple[dict[str, Tensor], LoadReport]:
    """As `match`, for a model.safetensors of ours; wanted are the names that start with `only`."""
    names = {name: name for name in model.state_dict() if name.startswith(only)}
    return match(str(path), read_tensors(path), model, names, lambda name: not name.startswith(only))


def load_weights(path: Path, model: nn.Module) -> None:
    """Load a model.safetensors of ours; every name and shape must match, or nothing is changed."""
    tensors, report = match_own(path, model)
    refuse_unfit(path, report.missing, report.unexpected)
    model.load_state_dict(tensors, strict=False)
