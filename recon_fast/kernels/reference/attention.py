"""Masked cross-attention in plain PyTorch."""

from torch import Tensor

from recon_fast.kernels.reference.points import geometry_dtype


def masked_cross_attention(
    query: Tensor, key: Tensor, value: Tensor, key_mask: Tensor | None = None, *, scale: float | None = None
) -> Tensor:
    """query [B, H, Q, D], key and value [B, H, S, D], key_mask [B, S] bool -> [B, H, Q, D]."""
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    if key_mask is not None:
        # Zeroing first keeps a NaN behind the mask out of 0 * NaN.
        key = key.where(key_mask[:, None, :, None], 0)
        value = value.where(key_mask[:, None, :, None], 0)
    return _weights((query * scale) @ key.transpose(-2, -1), key_mask).to(value.dtype) @ value


def _weights(scores: Tensor, key_mask: Tensor | None) -> Tensor:
    """Softmax over the keys [B, H, Q, S]; 0 where no key is left or all scores are -inf, not NaN."""
    if key_mask is not None:
        scores = scores.masked_fill(~key_mask[:, None, None], float("-inf"))
    empty = scores.detach().amax(-1, keepdim=True) == float("-inf")
    weights = scores.masked_fill(empty, 0).softmax(-1, dtype=geometry_dtype(scores))
    return weights.masked_fill(empty, 0)


def masked_cross_attention_backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, key_mask: Tensor | None, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `masked_cross_attention` in query, key and value; computes the weights again."""
    dtype = query.dtype
    grad, query, key, value = (t.to(geometry_dtype(t)) for t in (grad, query, key, value))
    if key_mask is not None:
        column = key_mask[:, None, :, None]
        key, value = key.where(column, 0), value.where(column, 0)
    weights = _weights((query * scale) @ key.transpose(-2, -1), key_mask)  # [B, H, Q, S]
    change = grad @ value.transpose(-2, -1)
    change = weights * (change - (weights * change).sum(-1, keepdim=True)) * scale
    to_key, to_value = change.transpose(-2, -1) @ query, weights.transpose(-2, -1) @ grad
    if key_mask is not None:
        to_key, to_value = to_key.where(column, 0), to_value.where(column, 0)
    return (change @ key).to(dtype), to_key.to(dtype), to_value.to(dtype)
