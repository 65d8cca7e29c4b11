"""The maximum over a group of points of a linear layer: from points to tokens in PointNet-like models.

    out[g, o] = max_k  x[g, k] . weight[o] + bias[o]

Qi et al., "PointNet" (2017), section 4.2. A maximum passes its gradient to one member of the group, so of K
rows that a dense backward would multiply only one takes part in each output: K times less work.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from recon_fast.kernels import backend, reference
from recon_fast.kernels._check import check_same_device, check_tensor, in_one_dtype
from recon_fast.kernels.backend import in_transform


@torch.library.custom_op("recon_fast::linear_max", mutates_args=())
def _linear_max(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """The maxima [G, O] and which member of the group each is of, int32 [G, O]."""
    with torch.autocast(x.device.type, enabled=False):
        values = F.linear(x, weight, bias)
    return backend.implementation("linear_max", "group_max", x)(values)


@_linear_max.register_fake
def _(x, weight, bias):
    shape = x.shape[0], weight.shape[0]
    return x.new_empty(shape), x.new_empty(shape, dtype=torch.int32)


@torch.library.custom_op("recon_fast::linear_max_backward", mutates_args=())
def _linear_max_backward(
    grad: Tensor, idx: Tensor, x: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias."""
    return backend.implementation("linear_max", "linear_max_backward", x)(grad, idx, x, weight)


@_linear_max_backward.register_fake
def _(grad, idx, x, weight):
    return x.new_empty(x.shape), weight.new_empty(weight.shape), weight.new_empty(weight.shape[:1])


def _setup_context(ctx, inputs, output):
    ctx.save_for_backward(output[1], inputs[0], inputs[1])
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _backward(ctx, grad, _):
    if grad is None:
        return None, None, None
    run = reference.linear_max_backward if in_transform() else _linear_max_backward
    return run(grad, *ctx.saved_tensors)


_linear_max.register_autograd(_backward, setup_context=_setup_context)


def linear_max(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Maximum over the members of each group of a linear layer.

    Args:
        x: groups [G, K, C], floating point.
        weight: [O, C], the dtype of `x` (autocast casts all three).
        bias: [O].

    Returns:
        [G, O] in the dtype of `x`, differentiable in all three; of equal members the first gets the gradient.

    Raises:
        TypeError: an argument that is not a tensor.
        ValueError: wrong shape, dtype or device.
    """
    for name, tensor in (("x", x), ("weight", weight), ("bias", bias)):
        check_tensor(name, tensor)
    if x.ndim != 3 or x.shape[1] == 0:
        raise ValueError(f"x must be [G, K, C] with members in each group, got {tuple(x.shape)}")
    if weight.ndim != 2 or weight.shape[1] != x.shape[2]:
        raise ValueError(f"weight must be [O, {x.shape[2]}] to match x, got {tuple(weight.shape)}")
    if bias.shape != weight.shape[:1]:
        raise ValueError(f"bias must be [{weight.shape[0]}] to match weight, got {tuple(bias.shape)}")
    check_same_device(x=x, weight=weight, bias=bias)
    x, weight, bias = in_one_dtype(x=x, weight=weight, bias=bias)
    # On a GPU the dense backward runs on tensor cores; in float64 it is differentiable again.
    if x.device.type != "cpu" or x.dtype == torch.float64 or in_transform():
        return reference.linear_max(x, weight, bias)
    return _linear_max(x, weight, bias)[0]
