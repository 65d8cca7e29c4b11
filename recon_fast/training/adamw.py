"""AdamW (Loshchilov & Hutter, 2019) that can train weights through bfloat16 copies."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from recon_fast.models.blocks import Linear


class AdamW(torch.optim.AdamW):
    """torch's AdamW in its fused form, and on a CPU a way to spare autocast its casts.

    Autocast casts every weight in every step, and its gradient back. After `multiply_copies` the linear
    layers of the blocks multiply by bfloat16 copies, which get the gradients, and the update writes weight
    and copy in one pass: 4 % less of a step of the base model (batch 16, two CPU cores). Gradients have the
    same values either way; weights and moments are the same to the rounding of the update.

    Attributes:
        copies: of the weights that have one.
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
        """Give the `Linear` layers of the model that this optimizer trains copies to multiply by."""
        trained = {id(weight) for weight in self._trained() if weight.requires_grad}
        for module in model.modules():
            if isinstance(module, Linear) and id(module.weight) in trained:
                module.copy = module.weight.detach().to(torch.bfloat16).requires_grad_()
                self.copies[module.weight] = module.copy

    def clip(self, limit: float | None) -> Tensor:
        """The norm of all gradients, 0-d; the next step takes them divided by what it exceeds `limit` by."""
        found = [self.copies.get(weight, weight).grad for weight in self._trained()]
        gradients = [grad for grad in found if grad is not None]
        half = [grad for grad in gradients if grad.dtype == torch.bfloat16]
        norm = nn.utils.get_total_norm([grad for grad in gradients if grad.dtype != torch.bfloat16])
        if half:  # summed up in float32
            norms = [torch.linalg.vector_norm(grad, dtype=torch.float32) for grad in half]
            norm = torch.linalg.vector_norm(torch.stack([norm, *norms]))
        self.grad_scale = None if limit is None else ((norm + 1e-6) / limit).clamp_min(1)
        return norm

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients."""
        super().zero_grad(set_to_none)
        for copy in self.copies.values():
            copy.grad = None

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # no closure is called again
        """Update every weight that has a gradient, itself or its copy."""
        super().step(closure)
        if not self.copies or (self.found_inf is not None and self.found_inf > 0):
            return
        # numba is loaded where it is used.
        from recon_fast.kernels.cpu.adamw import Matrix, Rates, adamw

        matrices, rates = [], []
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for weight in group["params"]:
                copy = self.copies.get(weight)
                if copy is None or copy.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["step"] = torch.zeros(())
                    state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(weight), torch.zeros_like(weight)
                state["step"] += 1
                step = state["step"].item()
                matrices.append(
                    Matrix(weight, state["exp_avg"], state["exp_avg_sq"], copy, copy.grad.contiguous())
                )
                rates.append(
                    Rates(
                        keep=1 - group["lr"] * group["weight_decay"],
                        size=group["lr"] / (1 - beta1**step),
                        root=math.sqrt(1 - beta2**step),
                    )
                )
        scale = 1.0 if self.grad_scale is None else 1 / self.grad_scale.item()
        if matrices:
            adamw(matrices, rates, beta1, beta2, self.defaults["eps"], scale)

    def _trained(self) -> Iterable[Tensor]:
        return (weight for group in self.param_groups for weight in group["params"])
