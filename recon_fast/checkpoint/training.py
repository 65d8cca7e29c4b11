"""Checkpoints of a run: folders of weights, optimizer and position, whole or absent, never a pickle.

<run>/config.yaml                     the resolved configuration
<run>/checkpoints/step-00001200/
    model.safetensors                 weights and running statistics; metadata: architecture, task, teachers
    optimizer.safetensors             AdamW moments, by parameter name
    state.json                        step, what was trained on, versions, probe results so far, checksums
<run>/best/model.safetensors          the weights that the result of a downstream run is of

A checkpoint that was found damaged is called damaged-step-00001200 from then on.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict

import torch
from msgspec import Meta
from rich.console import Console
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from recon_fast.checkpoint.files import open_tensors, read_tensors, save_weights, weights_metadata
from recon_fast.console import warn
from recon_fast.errors import InputError
from recon_fast.files import whole_file, whole_folder
from recon_fast.models import AnyModel
from recon_fast.schema import read_json

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")
_FILES = ("model.safetensors", "optimizer.safetensors", "state.json")


class _Probe(TypedDict):
    svm: float | None
    zero_shot: float | None
    chance: float
    real: NotRequired[float | None]


class _Best(TypedDict):
    epoch: int


class _State(TypedDict):
    """state.json."""

    step: Annotated[int, Meta(ge=0)]
    data: Any
    data_name: str
    teacher: dict[str, Any]
    before: _Probe | None
    config: dict[str, Any]
    skipped_in_a_row: NotRequired[Annotated[int, Meta(ge=0)]]
    stream: NotRequired[int]
    best: NotRequired[_Best]
    sha256: NotRequired[dict[str, str]]  # older checkpoints have none


class SaveFailed(InputError):
    """A checkpoint could not be written; older ones are as they were."""


def named_optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """AdamW's moments as "<moment>/<parameter name>"."""
    return {
        f"{moment}/{name}": optimizer.state[parameter][moment].detach().cpu().contiguous()
        for name, parameter in model.named_parameters()
        for moment in _MOMENTS
        if moment in optimizer.state[parameter]
    }


def save_checkpoint(
    run: Path, model: AnyModel, optimizer: torch.optim.Optimizer, state: Mapping[str, Any], keep: int
) -> Path:
    """Write the checkpoint of `state["step"]`, unless the run has it, and drop all but the `keep` newest.

    Raises:
        SaveFailed: the disk is full or cannot be written; nothing of the new checkpoint is left.
    """
    final = checkpoint_folder(run, state["step"])
    if final.is_dir():  # a step's checkpoint is always the same
        return final
    metadata = weights_metadata(model, state["teacher"], state.get("conventions"))
    try:
        for abandoned in final.parent.glob(".step-*.tmp"):
            shutil.rmtree(abandoned, ignore_errors=True)
        with whole_folder(final) as aside:
            save_weights(model, aside / "model.safetensors", metadata)
            save_file(named_optimizer_state(model, optimizer), aside / "optimizer.safetensors")
            sums = {file: _sha256(aside / file) for file in _FILES[:2]}
            text = json.dumps({**state, "sha256": sums}, indent=1)
            (aside / "state.json").write_text(text, encoding="utf-8")
    except (OSError, SafetensorError) as error:
        with suppress(OSError):
            final.parent.rmdir()  # where it holds no other checkpoint
        raise SaveFailed(f"checkpoint {final} cannot be written: {error}") from error
    for old in list_checkpoints(run)[:-keep]:
        with suppress(OSError):
            gone = old.rename(old.with_name(f".{old.name}.tmp"))  # half of one would look damaged
            shutil.rmtree(gone, ignore_errors=True)
    return final


def save_best(run: Path, model: AnyModel, conventions: Mapping[str, Any]) -> None:
    """Put the weights of a downstream run into best/; `conventions` are those of its clouds.

    Raises:
        SaveFailed: the disk is full or cannot be written.
    """
    file = run / "best" / "model.safetensors"
    try:
        file.parent.mkdir(exist_ok=True)
        with whole_file(file) as aside:
            save_weights(model, aside, weights_metadata(model, None, conventions))
    except (OSError, SafetensorError) as error:
        raise SaveFailed(f"{file.parent} cannot be written: {error}") from error


def check_space(run: Path, model: nn.Module, keep: int, console: Console, best: bool = False) -> str:
    """What checkpoints take of the disk and what is free, for the line at the start of a run.

    Args:
        run: the folder, which exists.
        model: its parameters are saved with two moments each.
        keep: checkpoints that stay; while the next one is written there is one more.
        console: told if not all of them may fit.
        best: the run keeps the weights of its best epoch too.

    Raises:
        InputError: there is no room for one checkpoint, so that all work would be lost.
    """
    weights = sum(tensor.nbytes for tensor in model.state_dict().values())
    one = weights + 2 * sum(p.nbytes for p in model.parameters() if p.requires_grad)
    try:
        free = shutil.disk_usage(run).free
    except OSError:  # a file system that does not tell
        return f", {one / 1e6:,.1f} MB a checkpoint"
    missing = max(0, keep + 1 - len(list_checkpoints(run)))
    text = f"{one / 1e6:,.1f} MB a checkpoint, {free / 1e9:,.1f} GB free"
    if missing and free < one:
        raise InputError(f"out must have room for checkpoints, got {run}: {text}")
    if free < missing * one + 2 * weights * best:
        warn(console, f"the disk may not hold the {keep} checkpoints of the run: {text}")
    return f", {text}"


def checkpoint_folder(run: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return run / "checkpoints" / f"step-{step:08d}"


def list_checkpoints(run: Path) -> list[Path]:
    """Complete checkpoints of a run, oldest first."""
    return sorted(path for path in (run / "checkpoints").glob("step-*") if path.is_dir())


def last_good(run: Path) -> str:
    """Which checkpoint of a run is left, as text for errors."""
    kept = list_checkpoints(run)
    return f"the last good checkpoint is {kept[-1]}" if kept else "there is no checkpoint yet"


def find_checkpoint(path: Path) -> tuple[Path, dict[str, Any], list[str]]:
    """The checkpoint that `path` names, its state, and what was wrong with newer ones that were passed over.

    Args:
        path: a checkpoint folder, or the folder of a run, which stands for its newest undamaged checkpoint.

    Raises:
        InputError: there is none, or the one that was named is damaged.
    """
    if (path / "state.json").is_file():
        return path, read_state(path), []
    damaged: list[str] = []
    for checkpoint in reversed(list_checkpoints(path)):
        try:
            return checkpoint, read_state(checkpoint), damaged
        except InputError as error:
            damaged.append(str(error))
    if damaged:
        raise InputError(f"{path} has no checkpoint that can be read: {'; '.join(damaged)}")
    raise InputError(f"resume must name a run folder with checkpoints/step-* or one of those, got {path}")


def set_damaged_aside(checkpoint: Path) -> None:
    """Rename the damaged checkpoints newer than `checkpoint`, so that they do not count any more."""
    for newer in list_checkpoints(checkpoint.parent.parent):
        if newer.name > checkpoint.name:
            aside = newer.with_name(f"damaged-{newer.name}")
            shutil.rmtree(aside, ignore_errors=True)
            newer.rename(aside)


def read_state(checkpoint: Path) -> dict[str, Any]:
    """The checkpoint's state.json, after a check of all its files. Raises InputError if one is missing or
    damaged.
    """
    for file in _FILES:
        if not (checkpoint / file).is_file():
            raise InputError(f"checkpoint {checkpoint} must hold {', '.join(_FILES)}, got no {file}")
    for file in _FILES[:2]:
        with open_tensors(checkpoint / file):
            pass
    try:
        state: dict[str, Any] = read_json(checkpoint / "state.json", _State, "a checkpoint's state")
    except InputError as error:
        raise InputError(f"checkpoint is damaged: {error}") from error
    for file, digest in state.get("sha256", {}).items():
        if file not in _FILES or _sha256(checkpoint / file) != digest:
            raise InputError(f"checkpoint {checkpoint / file} is damaged: its checksum does not match")
    return state


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_optimizer(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Restore AdamW's moments from optimizer.safetensors."""
    tensors = read_tensors(path)
    for name, parameter in model.named_parameters():
        moments = {m: tensors[f"{m}/{name}"] for m in _MOMENTS if f"{m}/{name}" in tensors}
        if not moments:
            continue  # a parameter that never had a gradient, such as the head of a loss that is off
        shapes = {"step": torch.Size(), "exp_avg": parameter.shape, "exp_avg_sq": parameter.shape}
        if {moment: value.shape for moment, value in moments.items()} != shapes:
            raise InputError(
                f"{path} does not belong to this model: moments of {name} are missing or misshapen"
            )
        step = moments.pop("step")
        optimizer.state[parameter] = {
            # Copies: what was read are views of the file.
            "step": step.to(parameter.device if parameter.is_cuda else "cpu", copy=True),
            **{m: value.to(parameter.device, copy=True) for m, value in moments.items()},
        }
