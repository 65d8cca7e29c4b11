"""AdamW as the official code sets it up, and the two learning-rate schedules."""

import math

import torch
from torch import nn

from recon_fast.config import OptimConfig


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """The official split: no decay on 1-d parameters (biases, norms) and tokens, the rest decays."""
    decay: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        is_plain = parameter.ndim == 1 or name.endswith("_token")
        (plain if is_plain else decay).append(parameter)
    return [{"params": plain, "weight_decay": 0.0}, {"params": decay, "weight_decay": weight_decay}]


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW over the official groups, in its fused form."""
    groups = parameter_groups(model, config.weight_decay)
    return torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, config.beta2), fused=True)


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
    if config.schedule == "official":
        epoch = float(max(step // steps_per_epoch - 1, 0))
        rising = epoch / config.warmup_epochs if config.warmup_epochs else 1.0
        progress = epoch / config.epochs
    else:
        epoch = (step + 1) / steps_per_epoch
        rising = epoch / config.warmup_epochs if config.warmup_epochs else 1.0
        progress = (epoch - config.warmup_epochs) / (config.epochs - config.warmup_epochs)
    if epoch < config.warmup_epochs:
        return config.min_lr + (config.lr - config.min_lr) * rising
    return config.min_lr + (config.lr - config.min_lr) * (1 + math.cos(math.pi * progress)) / 2
