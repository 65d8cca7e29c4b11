"""Cross-attention of a few queries over masked keys (ReCon, section 3.2), and attention as transformer blocks
compute it, by the formula that is fastest on the device: a model that calls these functions does not ask.
"""

from contextlib import AbstractContextManager

import torch
import torch.nn.functional as F
from torch import Tensor

from recon_fast.kernels import backend, reference
from recon_fast.kernels._check import check_same_device, check_tensor, in_one_dtype
from recon_fast.kernels.backend import in_transform

# Queries up to which reading each key once beats matrix products on a CPU; ReCon asks three.
_FEW = 4


@torch.library.custom_op("recon_fast::masked_cross_attention", mutates_args=())
def _attention(
    query: Tensor, key: Tensor, value: Tensor, key_mask: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    """The output and, where the backend keeps it, the log-sum-exp of the scores [B, H, Q]."""
    run = backend.kernel("masked_cross_attention", "masked_cross_attention_forward", query)
    if run is not None:
        return run(query, key, value, key_mask, scale)
    with torch.autocast(query.device.type, enabled=False):
        out = reference.masked_cross_attention(query, key, value, key_mask, scale=scale)
    return out, query.new_zeros(query.shape[:3], dtype=torch.float32)


@_attention.register_fake
def _(query, key, value, key_mask, scale):
    return query.new_empty(query.shape), query.new_empty(query.shape[:3], dtype=torch.float32)


@torch.library.custom_op("recon_fast::masked_cross_attention_backward", mutates_args=())
def _attention_backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, key_mask: Tensor | None, scale: float,
    out: Tensor, logsumexp: Tensor, need_key_grad: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of query, key and value; the last two are empty unless needed."""
    run = backend.kernel("masked_cross_attention", "masked_cross_attention_backward", query)
    if run is not None:
        gradients = run(grad, query, key, value, key_mask, scale, out, logsumexp, need_key_grad)
    else:
        with torch.autocast(query.device.type, enabled=False):
            gradients = reference.masked_cross_attention_backward(grad, query, key, value, key_mask, scale)
    return gradients if need_key_grad else (gradients[0], query.new_empty(0), query.new_empty(0))


@_attention_backward.register_fake
def _(grad, query, key, value, key_mask, scale, out, logsumexp, need_key_grad):
    of_keys = (key.shape, value.shape) if need_key_grad else ((0,), (0,))
    return tuple(query.new_empty(shape) for shape in (query.shape, *of_keys))


def _setup_context(ctx, inputs, output):
    query, key, value, key_mask, ctx.scale = inputs
    ctx.save_for_backward(query, key, value, key_mask, *output)
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(output[1])


def _backward(ctx, grad, _):
    if grad is None:
        return None, None, None, None, None
    query, key, value, key_mask, out, logsumexp = ctx.saved_tensors
    needed = ctx.needs_input_grad[1] or ctx.needs_input_grad[2]
    if in_transform():
        gradients = reference.masked_cross_attention_backward(grad, query, key, value, key_mask, ctx.scale)
        return *gradients, None, None
    to_query, to_key, to_value = _attention_backward(
        grad, query, key, value, key_mask, ctx.scale, out, logsumexp, needed
    )
    return to_query, to_key if needed else None, to_value if needed else None, None, None


_attention.register_autograd(_backward, setup_context=_setup_context)


def masked_cross_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_mask: Tensor | None = None,
    *,
    scale: float | None = None,
) -> Tensor:
    """softmax(scale * query key^T) value, over the keys that `key_mask` lets through.

    Args:
        query: [B, H, Q, D], floating point.
        key: [B, H, S, D], the dtype of `query`; autocast casts all three.
        value: [B, H, S, D], the dtype of `query`.
        key_mask: [B, S] bool, True = attend; None attends to all.
        scale: factor on the scores; D^-0.5 unless given.

    Returns:
        [B, H, Q, D] in the dtype of `value`, differentiable in query, key and value. A row whose keys are all
        masked, or whose scores are all -inf, is exactly 0 with zero gradients, and what stands behind the
        mask (NaN, inf) never leaks.

    Raises:
        TypeError: an argument that is not a tensor.
        ValueError: wrong shape, dtype or device.
    """
    for name, tensor in (("query", query), ("key", key), ("value", value)):
        check_tensor(name, tensor)
    if query.ndim != 4:
        raise ValueError(f"query must be [B, H, Q, D], got {tuple(query.shape)}")
    B, H, _, D = query.shape
    if key.ndim != 4 or key.shape[:2] != (B, H) or key.shape[3] != D:
        raise ValueError(f"key must be [{B}, {H}, S, {D}] to match query, got {tuple(key.shape)}")
    if value.shape != key.shape:
        raise ValueError(f"value must be {tuple(key.shape)} like key, got {tuple(value.shape)}")
    query, key, value = in_one_dtype(query=query, key=key, value=value)
    if key.shape[2] == 0:
        raise ValueError(f"key must hold at least one key, got {tuple(key.shape)}")
    if key_mask is not None:
        check_tensor("key_mask", key_mask)
        if key_mask.dtype != torch.bool or key_mask.shape != (B, key.shape[2]):
            got = f"{key_mask.dtype} {tuple(key_mask.shape)}"
            raise ValueError(
                f"key_mask must be bool [{B}, {key.shape[2]}], got {got}; key is {tuple(key.shape)}"
            )
    check_same_device(query=query, key=key, value=value, key_mask=key_mask)
    scale = D**-0.5 if scale is None else scale
    many = query.device.type == "cpu" and query.shape[2] > _FEW
    if many or query.dtype == torch.float64 or in_transform():
        return reference.masked_cross_attention(query, key, value, key_mask, scale=scale)
    return _attention(query, key, value, key_mask, scale)[0]


def softmax(scores: Tensor) -> Tensor:
    """Softmax over the last dimension; the same values as torch's, to the bit.

    On a CPU torch takes bfloat16 in pieces of 32 and the rest of a row value by value: 155 us for
    [96, 26, 26] on two threads, 40 through float32.
    """
    if scores.dtype == torch.bfloat16 and scores.shape[-1] % 32 != 0:
        return scores.float().softmax(-1).to(scores.dtype)
    return scores.softmax(-1)


def attention(query: Tensor, key: Tensor, value: Tensor, scale: float | None = None) -> Tensor:
    """softmax(scale * query key^T) value.

    Args:
        query: [B, H, Q, D].
        key: [B, H, S, D].
        value: [B, H, S, D].
        scale: factor on the scores; D^-0.5 unless given.

    Returns:
        [B, H, Q, D].
    """
    if query.is_cuda:
        return F.scaled_dot_product_attention(query, key, value, scale=scale)
    # At 26 to 64 tokens on a CPU plain matrix products are twice as fast.
    scores = (query * (query.shape[-1] ** -0.5 if scale is None else scale)) @ key.mT
    return softmax(scores) @ value


def attention_over_tokens(query: Tensor, tokens: Tensor, to_key_value: Tensor) -> Tensor:
    """Attention of a few queries over keys and values that are linear functions of tokens.

    Args:
        query: [B, H, Q, D].
        tokens: [B, S, C].
        to_key_value: weight [2 H D, C] of the linear layer that makes keys, then values, of tokens.

    Returns:
        [B, H, Q, D].
    """
    B, H, Q, D = query.shape
    C = tokens.shape[-1]
    if tokens.is_cuda:
        key, value = (
            t.unflatten(-1, (H, D)).transpose(1, 2) for t in F.linear(tokens, to_key_value).chunk(2, -1)
        )
        return masked_cross_attention(query, key, value)
    # q (x W_k)^T = (q W_k^T) x^T and w (x W_v) = (w x) W_v: with fewer queries than tokens it is cheaper on a
    # CPU to project the queries onto the tokens than to form keys and values.
    to_key, to_value = to_key_value.view(2, H, D, C)  # [H, D, C] each
    asked = query.transpose(0, 1).reshape(H, B * Q, D) @ to_key  # [H, B Q, C]
    asked = asked.view(H, B, Q, C).transpose(0, 1).reshape(B, 1, H * Q, C)
    one_head = tokens[:, None]  # of width C, whose queries are those of all heads
    seen = attention(asked, one_head, one_head, scale=D**-0.5)
    seen = seen.view(B, H, Q, C).transpose(0, 1).reshape(H, B * Q, C) @ to_value.mT  # [H, B Q, D]
    return seen.view(H, B, Q, D).transpose(0, 1)


def autocast_dtype(x: Tensor) -> torch.dtype:
    """The dtype that layers give for `x`: autocast's where it is on, else that of `x`."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def without_autocast(x: Tensor) -> AbstractContextManager:
    """A block in which operations on tensors beside `x` keep the dtype of their inputs."""
    return torch.autocast(x.device.type, enabled=False)
