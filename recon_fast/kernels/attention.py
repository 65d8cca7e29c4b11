"""Cross-attention of a few queries over masked keys (ReCon, section 3.2)."""

import torch
from torch import Tensor

from recon_fast.kernels import reference
from recon_fast.kernels._check import check_same_device


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
        key: [B, H, S, D], the dtype of `query`.
        value: [B, H, S, D], the dtype of `query`.
        key_mask: [B, S] bool, True = attend; None attends to all.
        scale: factor on the scores; D^-0.5 unless given.

    Returns:
        [B, H, Q, D] in the dtype of `value`, differentiable in query, key and value. A row whose keys are all
        masked is exactly 0 with zero gradients, and what stands behind the mask (NaN, inf) never leaks.

    Raises:
        ValueError: wrong shape, dtype or device.
    """
    if query.ndim != 4:
        raise ValueError(f"query must be [B, H, Q, D], got {tuple(query.shape)}")
    B, H, _, D = query.shape
    if key.ndim != 4 or key.shape[:2] != (B, H) or key.shape[3] != D:
        raise ValueError(f"key must be [{B}, {H}, S, {D}] to match query, got {tuple(key.shape)}")
    if value.shape != key.shape:
        raise ValueError(f"value must be {tuple(key.shape)} like key, got {tuple(value.shape)}")
    if not query.dtype == key.dtype == value.dtype or not query.is_floating_point():
        raise ValueError(
            "query, key and value must have one floating point dtype, "
            f"got {query.dtype}, {key.dtype}, {value.dtype}"
        )
    if key.shape[2] == 0:
        raise ValueError(f"key must hold at least one key, got {tuple(key.shape)}")
    if key_mask is not None and (key_mask.dtype != torch.bool or key_mask.shape != (B, key.shape[2])):
        raise ValueError(
            f"key_mask must be bool [{B}, {key.shape[2]}], got {key_mask.dtype} {tuple(key_mask.shape)}"
        )
    check_same_device(query=query, key=key, value=value, key_mask=key_mask)
    return reference.masked_cross_attention(query, key, value, key_mask, scale=scale)
