"""AdamW as the official code sets it up, for pretraining and downstream, and the learning-rate schedules."""

import math
from typing import Any

from torch import nn

from recon_fast.checkpoint import official_names
from recon_fast.config import OptimConfig
from recon_fast.models import Classifier, PartSegmenter
from recon_fast.training.adamw import AdamW


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """The official split: no decay on 1-d parameters (biases, norms) and tokens, the rest decays."""
    decay: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        is_plain = parameter.ndim == 1 or name.endswith("_token")
        (plain if is_plain else decay).append(parameter)
    return [{"params": plain, "weight_decay": 0.0}, {"params": decay, "weight_decay": weight_decay}]


def is_head(official: str, kind: str) -> bool:
    """Whether the official downstream code counts a parameter as new, which goes by its official name.

    In a classifier that is all with "cls" in it: the head, but `cls_token` and `cls_pos` as well. In a
    segmenter it is all with "conv" and without "encoder": of the new norms that of the category alone.
    """
    if kind == "segmenter":
        return "conv" in official and "encoder" not in official
    return "cls" in official


def downstream_groups(
    model: Classifier | PartSegmenter,
    lr: float,
    weight_decay: float,
    head_factor: float = 10.0,
    frozen: bool = False,
) -> list[dict[str, Any]]:
    """Parameter groups of fine-tuning by the official rules, for AdamW.

    Args:
        model: what is fine-tuned.
        lr: learning rate of what was pretrained.
        weight_decay: AdamW's. New parameters decay one and all, biases and norms too; of the others those do
            that are neither 1-d nor have "token" in their official name.
        head_factor: new parameters learn at `head_factor * lr`.
        frozen: only new parameters learn (MLP-3 and MLP-LINEAR); `requires_grad` of the others is
            switched off.

    Returns:
        One dict each for new parameters, those without and those with weight decay, where there are any; with
        `lr_factor`, what a schedule multiplies the group's rate by.
    """
    names = {own: official for official, own in official_names(model).items()}
    head: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    decay: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if is_head(names[name], model.task["kind"]):
            head.append(parameter)
        elif frozen:
            parameter.requires_grad_(False)
        else:
            (plain if parameter.ndim == 1 or "token" in names[name] else decay).append(parameter)
    groups = ((head, head_factor, weight_decay), (plain, 1.0, 0.0), (decay, 1.0, weight_decay))
    return [
        {"params": params, "lr": factor * lr, "lr_factor": factor, "weight_decay": decays}
        for params, factor, decays in groups
        if params
    ]


def build_optimizer(model: nn.Module, config: OptimConfig) -> AdamW:
    """AdamW over the official groups."""
    return AdamW(parameter_groups(model, config.weight_decay), (0.9, config.beta2), config.lr)


def num_epochs(config: OptimConfig) -> int:
    """Epochs that are run: the official loop runs epochs 0 to `epochs`, one more than the length of its
    schedule.
    """
    return config.epochs + (config.schedule == "official")


def learning_rate(config: OptimConfig, step: int, steps_per_epoch: int) -> float:
    """Learning rate of a step, counted from 0.

    Linear warm-up from `min_lr` to `lr` over `warmup_epochs`, then half a cosine down to `min_lr` at
    `epochs`. "cosine" follows it step by step, "official" holds for each epoch the value of the epoch before
    (the official loop steps its scheduler with the epoch just finished).
    """
    warmup, start = config.warmup_epochs, config.warmup_epochs
    epoch = (step + 1) / steps_per_epoch
    if config.schedule == "official":
        epoch, start = float(max(step // steps_per_epoch - 1, 0)), 0
    if epoch < warmup:
        return config.min_lr + (config.lr - config.min_lr) * (epoch / warmup)
    progress = (epoch - start) / (config.epochs - start)
    return config.min_lr + (config.lr - config.min_lr) * (1 + math.cos(math.pi * progress)) / 2
