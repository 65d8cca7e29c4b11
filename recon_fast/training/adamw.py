"""AdamW (Loshchilov & Hutter, 2019) that can train parameters through bfloat16 copies."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

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
