"""The maximum over a group of a linear layer, in plain PyTorch."""

import torch
import torch.nn.functional as F
from torch import Tensor

from recon_fast.kernels.reference.points import geometry_dtype


def linear_max(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:  # [G, K, C], [O, C], [O] -> [G, O]
    return F.linear(x, weight, bias).max(1).values


def group_max(values: Tensor) -> tuple[Tensor, Tensor]:  # [G, K, O] -> [G, O], [G, O] int32
    """The maxima over a group, and which member of it each is of."""
    out, idx = values.max(1)
    return out, idx.to(torch.int32)


def linear_max_backward(
    grad: Tensor, idx: Tensor, x: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `linear_max` in x, weight and bias; idx [G, O] int32 says which member is the maximum."""
    dtype = geometry_dtype(x)
    full = torch.zeros(x.shape[0], x.shape[1], weight.shape[0], dtype=dtype, device=x.device)
    full.scatter_(1, idx[:, None].long(), grad[:, None].to(dtype))
    flat = full.flatten(0, 1)
    to_x = (flat @ weight.to(dtype)).view(x.shape)
    to_weight = flat.T @ x.to(dtype).flatten(0, 1)
    return to_x.to(x.dtype), to_weight.to(weight.dtype), flat.sum(0).to(weight.dtype)
