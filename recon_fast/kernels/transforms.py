"""Whether a derivative is being taken that registered operators have no formula for.

`register_autograd` gives gradients in reverse mode. Forward mode would take its operators for constants, and
the transforms of torch.func refuse them. There the operators only search, and what is differentiable in the
points they find is plain PyTorch.
"""

import torch
from torch.autograd import forward_ad


def in_transform() -> bool:
    """Within torch.func.grad, jvp, vmap, ..., or torch.autograd.forward_ad.dual_level."""
    return torch._C._functorch.peek_interpreter_stack() is not None or forward_ad._current_level >= 0


# What torch.compiler.assume_constant_result sets, which takes seconds to import: a graph is compiled for the
# transforms it is called in, and anew for others.
in_transform._dynamo_marked_constant = True  # type: ignore[attr-defined]
