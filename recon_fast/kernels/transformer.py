"""Attention as transformer blocks compute it, and the precision that they compute in.

Which formula is fastest depends on the device; a model that calls these functions does not ask for it.
"""

from contextlib import AbstractContextManager

import torch
import torch.nn.functional as F
from torch import Tensor

from recon_fast.kernels.attention import masked_cross_attention


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
