"""AdamW (Loshchilov & Hutter, 2019), which can train parameters through bfloat16 copies, as the official code
sets it up, for pretraining and downstream, and the learning-rate schedules.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from recon_fast.checkpoint import official_names
from recon_fast.config import OptimConfig
from recon_fast.models import Classifier, PartSegmenter
from recon_fast.models.blocks import Block, ReConBlock


class AdamW(torch.optim.AdamW):
    """torch's AdamW in its fused form, and on a CPU a way to spare autocast its casts.

    Autocast casts every weight in every step, and its gradient back. After `multiply_copies` the linear
    layers of the blocks compute with bfloat16 copies, which get the gradients, and the update writes weight
    and copy in one pass: 4 % less of a step of the base model (batch 16, two CPU cores). Gradients have the
    same values either way; weights and moments are the same to the rounding of the update.

    Attributes:
        copies: of the parameters that have one.
        grad_scale: what the next step divides gradients by, 0-d; None is 1.
        found_inf: above 0 where the next step must change nothing, 0-d; None is 0.
    """

    grad_scale: Tensor | None
    found_inf: Tensor | None

    def __init__(
        self, groups: Iterable[dict[str, Any]], betas: tuple[float, float], lr: float = 1e-3
    ) -> None:
        super().__init__(groups, lr=lr, betas=betas, fused=True)
        self.copies: dict[Tensor, Tensor] = {}
        self.grad_scale = self.found_inf = None

    def multiply_copies(self, model: nn.Module) -> None:
        """Let the blocks' linear layers that this optimizer trains compute with copies in training passes.

        The copies stand in for the parameters while `model` runs forward, and only then: the model's state,
        and what it computes in evaluation mode, stay those of the parameters.
        """
        trained = {id(parameter) for parameter in self._trained() if parameter.requires_grad}
        stand_ins: list[tuple[nn.Module, str, nn.Parameter, nn.Parameter]] = []
        for block in model.modules():
            if not isinstance(block, Block | ReConBlock):
                continue
            for layer in block.modules():
                if isinstance(layer, nn.Linear):
                    for name, parameter in layer.named_parameters():
                        if id(parameter) in trained:
                            copy = nn.Parameter(parameter.detach().to(torch.bfloat16))
                            self.copies[parameter] = copy
                            stand_ins.append((layer, name, parameter, copy))

        def put_copies(module: nn.Module, *_: Any) -> None:
            if module.training:
                for layer, name, _parameter, copy in stand_ins:
                    layer._parameters[name] = copy

        def put_parameters(*_: Any) -> None:
            for layer, name, parameter, _copy in stand_ins:
                layer._parameters[name] = parameter

        model.register_forward_pre_hook(put_copies)
        model.register_forward_hook(put_parameters, always_call=True)

    def clip(self, limit: float | None) -> Tensor:
        """The norm of all gradients, 0-d; the next step takes them divided by what it exceeds `limit` by."""
        trained = [(parameter, self.copies.get(parameter)) for parameter in self._trained()]
        norm = nn.utils.get_total_norm([p.grad for p, _ in trained if p.grad is not None])
        half = [copy.grad.contiguous() for _, copy in trained if copy is not None and copy.grad is not None]
        if half:
            # numba is loaded where it is used.
            from recon_fast.kernels.cpu.adamw import squared_norm

            norm = (norm.square() + squared_norm(half)).sqrt()
        self.grad_scale = None if limit is None else ((norm + 1e-6) / limit).clamp_min(1)
        return norm

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients."""
        super().zero_grad(set_to_none)
        for copy in self.copies.values():
            copy.grad = None

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # no closure is called again
        """Update every parameter that has a gradient, itself or its copy."""
        super().step(closure)
        if not self.copies or (self.found_inf is not None and self.found_inf > 0):
            return
        from recon_fast.kernels.cpu.adamw import Rates, Update, adamw

        updates, rates = [], []
        beta1, beta2 = self.defaults["betas"]
        for group in self.param_groups:
            for parameter in group["params"]:
                copy = self.copies.get(parameter)
                if copy is None or copy.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["step"] = torch.zeros(())
                    state["exp_avg"] = torch.zeros_like(parameter)
                    state["exp_avg_sq"] = torch.zeros_like(parameter)
                state["step"] += 1
                step = state["step"].item()
                moments = state["exp_avg"], state["exp_avg_sq"]
                updates.append(Update(parameter, *moments, copy, copy.grad.contiguous()))
                rates.append(
                    Rates(
                        keep=1 - group["lr"] * group["weight_decay"],
                        size=group["lr"] / (1 - beta1**step),
                        unbias=1 / math.sqrt(1 - beta2**step),
                    )
                )
        scale = 1.0 if self.grad_scale is None else 1 / self.grad_scale.item()
        if updates:
            adamw(updates, rates, beta1, beta2, self.defaults["eps"], scale)

    def _trained(self) -> Iterable[Tensor]:
        return (parameter for group in self.param_groups for parameter in group["params"])


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
