"""The model that a downstream task starts from: an encoder with a new head, or one that was trained."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import torch
from rich.console import Console

from recon_fast.checkpoint.restore import Restored, load_encoder, restore
from recon_fast.config import ReConConfig
from recon_fast.config.downstream import DownstreamConfig
from recon_fast.console import say
from recon_fast.errors import InputError
from recon_fast.models import Classifier, PartSegmenter

M = TypeVar("M", Classifier, PartSegmenter)


def start_model(
    config: DownstreamConfig, make: Callable[[ReConConfig], M], console: Console
) -> tuple[M, dict[str, Any]]:
    """A model on the encoder of `config.checkpoint`, or one that starts at random.

    Args:
        config: its `model`, `checkpoint` and `seed` count.
        make: the freshly initialised model of an architecture.
        console: told where the encoder is from.

    Returns:
        The model, and what the checkpoint was trained on (see `training_conventions`).

    Raises:
        InputError: no such checkpoint, or not of the size or the arch that is wanted.
    """
    m = config.model
    torch.manual_seed(config.seed)
    changes: dict[str, Any] = {"num_group": m.num_group, "group_size": m.group_size, "drop_path": m.drop_path}
    if m.skip_near_origin is not None:
        changes["skip_near_origin"] = m.skip_near_origin
    if config.checkpoint is None:
        size = getattr(ReConConfig, "base" if m.size == "auto" else m.size)
        say(console, "no checkpoint: the encoder starts at random", style="yellow")
        return _made(make, size(**changes)), {}
    restored = restore(config.checkpoint)
    architecture = restored.model.config
    if m.size != "auto" and getattr(ReConConfig, m.size)().dim != architecture.dim:
        raise InputError(
            f"model.size must be the checkpoint's or auto, got {m.size} and width {architecture.dim}"
        )
    if architecture.arch != "recon":
        raise InputError(f"checkpoint must be of arch recon, got {architecture.arch} in {restored.file}")
    model = _made(make, replace(architecture, **changes))
    report = load_encoder(config.checkpoint, model)
    say(console, f"encoder of {restored.file}: {report}")
    return model, restored.conventions


def _made(make: Callable[[ReConConfig], M], architecture: ReConConfig) -> M:
    try:
        return make(architecture)
    except ValueError as error:
        raise InputError(str(error)) from error


def restore_trained(
    config: DownstreamConfig, kind: type[M], name: str, console: Console
) -> tuple[M, Restored]:
    """The trained model that `config.checkpoint` holds, to be tested with the groups of `config.model`.

    Args:
        config: its `checkpoint` and `model` count.
        kind: what the model must be.
        name: of that kind, for errors.
        console: told where the model was trained on other groups.

    Raises:
        InputError: no such checkpoint, or one of another model.
    """
    assert config.checkpoint is not None
    wanted = config.model.num_group, config.model.group_size
    restored = restore(config.checkpoint)
    known = restored.model.config.num_group, restored.model.config.group_size
    if known != wanted:
        say(
            console,
            f"{restored.file} is of {known[0]} groups of {known[1]} points, "
            f"here they are {wanted[0]} of {wanted[1]}",
            style="yellow",
        )
        restored = restore(config.checkpoint, num_group=wanted[0], group_size=wanted[1])
    if not isinstance(restored.model, kind):
        raise InputError(f"evaluate needs a checkpoint with a {name}, got another in {restored.file}")
    return restored.model, restored
