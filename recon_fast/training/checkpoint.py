"""Checkpoints of a run: weights, optimizer and position, written aside and renamed, never a pickle.

<run>/config.yaml                     the resolved configuration
<run>/checkpoints/step-00001200/
    model.safetensors                 weights and running statistics; metadata: architecture, teachers
    optimizer.safetensors             AdamW moments, by parameter name
    state.json                        step, what was trained on, versions, probe results so far
"""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from recon_fast.checkpoint import open_tensors, read_tensors
from recon_fast.errors import InputError
from recon_fast.models import PretrainModel

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")
_STATE = ("step", "data", "data_name", "teacher", "before", "config")
_FILES = ("model.safetensors", "optimizer.safetensors", "state.json")


def named_optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """AdamW's moments as "<moment>/<parameter name>"."""
    return {
        f"{moment}/{name}": optimizer.state[parameter][moment].detach().cpu().contiguous()
        for name, parameter in model.named_parameters()
        for moment in _MOMENTS
        if moment in optimizer.state[parameter]
    }


def save_checkpoint(
    run: Path, model: PretrainModel, optimizer: torch.optim.Optimizer, state: Mapping[str, Any], keep: int
) -> Path:
    """Write the checkpoint of `state["step"]` and drop all but the `keep` newest. Raises InputError on a full
    disk.
    """
    final = run / "checkpoints" / f"step-{state['step']:08d}"
    aside = final.with_name(f".{final.name}.tmp")
    metadata = {
        "format": "recon-fast",
        "model": json.dumps(asdict(model.config)),
        "teacher": json.dumps(state["teacher"]),
    }
    try:
        for abandoned in final.parent.glob(".step-*.tmp"):
            shutil.rmtree(abandoned, ignore_errors=True)
        aside.mkdir(parents=True)
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
        save_file(weights, aside / "model.safetensors", metadata)
        save_file(named_optimizer_state(model, optimizer), aside / "optimizer.safetensors")
        (aside / "state.json").write_text(json.dumps(dict(state), indent=1), encoding="utf-8")
        for file in _FILES:
            with (aside / file).open("r+b") as written:  # Windows flushes only what is open for writing
                os.fsync(written.fileno())
        if final.exists():
            shutil.rmtree(final)
        aside.rename(final)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(aside, ignore_errors=True)
        if not any(final.parent.glob("*")):
            shutil.rmtree(final.parent, ignore_errors=True)
        raise InputError(f"checkpoint {final} cannot be written: {error}") from error
    for old in list_checkpoints(run)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def list_checkpoints(run: Path) -> list[Path]:
    """Complete checkpoints of a run, oldest first."""
    return sorted(path for path in (run / "checkpoints").glob("step-*") if path.is_dir())


def find_checkpoint(path: Path) -> Path:
    """The checkpoint that `path` names: a checkpoint folder, or the newest of a run folder."""
    if (path / "state.json").is_file():
        return path
    found = list_checkpoints(path)
    if not found:
        raise InputError(f"resume must name a run folder with checkpoints/step-* or one of those, got {path}")
    return found[-1]


def read_state(checkpoint: Path) -> dict[str, Any]:
    """The checkpoint's state.json.

    Raises:
        InputError: a file is missing or damaged; the message names the checkpoint before it.
    """
    try:
        for file in _FILES:
            if not (checkpoint / file).is_file():
                raise InputError(f"checkpoint {checkpoint} must hold {', '.join(_FILES)}, got no {file}")
        for file in _FILES[:2]:
            with open_tensors(checkpoint / file):
                pass
        try:
            state = json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))
            missing = [key for key in _STATE if key not in state]
        except (ValueError, TypeError) as error:
            raise InputError(f"checkpoint {checkpoint / 'state.json'} is damaged: {error}") from error
        if missing:
            raise InputError(f"checkpoint {checkpoint / 'state.json'} is damaged: it has no {missing[0]}")
    except InputError as error:
        older = [path for path in list_checkpoints(checkpoint.parent.parent) if path.name < checkpoint.name]
        hint = f"; delete {checkpoint} to continue from {older[-1].name}" if older else ""
        raise InputError(f"{error}{hint}") from error
    return state


def load_optimizer(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Restore AdamW's moments from optimizer.safetensors."""
    tensors = read_tensors(path)
    for name, parameter in model.named_parameters():
        moments = {m: tensors[f"{m}/{name}"] for m in _MOMENTS if f"{m}/{name}" in tensors}
        if not moments:
            continue  # a parameter that never had a gradient, such as the head of a loss that is off
        if len(moments) < len(_MOMENTS) or moments["exp_avg"].shape != parameter.shape:
            raise InputError(
                f"{path} does not belong to this model: moments of {name} are missing or misshapen"
            )
        step = moments.pop("step")
        optimizer.state[parameter] = {
            "step": step.to(parameter.device) if parameter.is_cuda else step,
            **{m: value.to(parameter.device) for m, value in moments.items()},
        }
