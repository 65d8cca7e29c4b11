"""Cross-attention of a few queries over masked keys (ReCon, section 3.2)."""

import torch
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
