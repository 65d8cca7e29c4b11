"""Residual branches of the transformer blocks with their gradients written out.

The values of the modules in `blocks` from fewer operators: on a CPU, calling them takes a sixth of a
step of the base model at batch 16. For training, with weights in the dtype that layers compute in; there is
no second derivative.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import Function, once_differentiable


def softmax(scores: Tensor) -> Tensor:
    """Softmax over the last dimension of scores on a CPU; the same values as torch's, to the bit."""
    if _is_slow(scores):
        return scores.float().softmax(-1).to(scores.dtype)
    return scores.softmax(-1)


def _is_slow(scores: Tensor) -> bool:
    """torch takes bfloat16 in pieces of 32 and the rest of a row value by value: 155 us for [96, 26, 26] on
    two threads, 40 through float32.
    """
    return scores.dtype == torch.bfloat16 and scores.shape[-1] % 32 != 0


def _softmax_gradient(grad: Tensor, weights: Tensor) -> Tensor:
    gradient = torch.ops.aten._softmax_backward_data
    if _is_slow(weights):
        return gradient(grad.float(), weights.float(), -1, torch.float32).to(weights.dtype)
    return gradient(grad, weights, -1, weights.dtype)


def _norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Layer norm of x [..., C], and what its gradient needs."""
    normed, mean, rstd = torch.native_layer_norm(x, x.shape[-1:], weight, bias, eps)
    return normed, (x, mean, rstd, weight, bias)


def _norm_gradient(grad: Tensor, saved: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Of x, weight and bias."""
    x, mean, rstd, weight, bias = saved
    gradient = torch.ops.aten.native_layer_norm_backward
    return gradient(grad, x, x.shape[-1:], mean, rstd, weight, bias, [True, True, True])


def _sum(kept: Tensor, out: Tensor, survives: Tensor | None) -> Tensor:
    """kept + survives * out, in the memory of `out` where that has room for it."""
    if survives is not None:
        out.mul_(survives)
    return out.add_(kept) if out.dtype == kept.dtype else kept + out


def _flow(grad: Tensor, survives: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Gradient [B, S, C] of a branch's sum -> of the output of its last layer, [B S, C]."""
    return (grad if survives is None else grad * survives).to(dtype).reshape(-1, grad.shape[-1])


def _add_product(kept: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """kept [B, S, C] + a [B S, D] @ b [D, C]."""
    if kept.dtype == a.dtype:
        return torch.addmm(kept.reshape(len(a), -1), a, b).view_as(kept)
    return kept + (a @ b).view_as(kept)


class MlpBranch(Function):
    """n + fc2(gelu(fc1(n))), or x + ... where `keep_normed` is False; n = norm(x)."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,  # [B, S, C]
        norm_weight: Tensor,
        norm_bias: Tensor,
        eps: float,
        keep_normed: bool,
        survives: Tensor | None,  # [B, 1, 1]: the factor of stochastic depth
        weight1: Tensor,  # [R C, C]
        bias1: Tensor,
        weight2: Tensor,  # [C, R C]
        bias2: Tensor,
    ) -> Tensor:
        normed, norm = _norm(x, norm_weight, norm_bias, eps)
        rows = normed.to(weight1.dtype).view(-1, x.shape[-1])
        hidden = torch.addmm(bias1, rows, weight1.T)
        active = F.gelu(hidden)
        out = torch.addmm(bias2, active, weight2.T).view_as(x)
        ctx.keep_normed = keep_normed
        ctx.save_for_backward(rows, hidden, active, weight1, weight2, survives, *norm)
        return _sum(normed if keep_normed else x, out, survives)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, hidden, active, weight1, weight2, survives, *norm = ctx.saved_tensors
        flow = _flow(grad, survives, rows.dtype)
        to_hidden = flow @ weight2
        torch.ops.aten.gelu_backward.grad_input(to_hidden, hidden, grad_input=to_hidden)
        of_layers = to_hidden.T @ rows, to_hidden.sum(0), flow.T @ active, flow.sum(0)
        if ctx.keep_normed:
            to_x, *of_norm = _norm_gradient(_add_product(grad, to_hidden, weight1), norm)
        else:
            to_x, *of_norm = _norm_gradient((to_hidden @ weight1).view_as(grad), norm)
            to_x += grad
        return to_x, *of_norm, None, None, None, *of_layers


class SelfAttentionBranch(Function):
    """n + proj(attention(n)), or x + ... where `keep_normed` is False, and n = norm(x)."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,  # [B, S, C]
        norm_weight: Tensor,
        norm_bias: Tensor,
        eps: float,
        keep_normed: bool,
        survives: Tensor | None,  # [B, 1, 1]
        num_heads: int,
        asking: int,  # the last so many positions are wanted; all of them where keep_normed
        qkv: Tensor,  # [3 C, C]
        proj: Tensor,  # [C, C]
        bias: Tensor,
    ) -> tuple[Tensor, Tensor]:
        B, S, C = x.shape
        H, D = num_heads, C // num_heads
        normed, norm = _norm(x, norm_weight, norm_bias, eps)
        rows = normed.to(qkv.dtype).view(B * S, C)
        heads = (rows @ qkv.T).view(B, S, 3, H, D).permute(2, 0, 3, 1, 4).reshape(3, B * H, S, D)
        query, key, value = heads.unbind()
        query.mul_(D**-0.5)
        weights = softmax(torch.bmm(query[:, S - asking :], key.mT))
        seen = torch.bmm(weights, value).view(B, H, asking, D).transpose(1, 2).reshape(B * asking, C)
        out = torch.addmm(bias, seen, proj.T).view(B, asking, C)
        ctx.keep_normed = keep_normed
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(rows, heads, weights, seen, qkv, proj, survives, *norm)
        return _sum(normed if keep_normed else x[:, S - asking :], out, survives), normed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor | None, of_normed: Tensor | None) -> tuple[Tensor | None, ...]:
        rows, heads, weights, seen, qkv, proj, survives, *norm = ctx.saved_tensors
        B, S, C = norm[0].shape
        _, N, _, D = heads.shape
        asking = weights.shape[1]
        if grad is None:
            grad = norm[0].new_zeros(B, asking, C)
        query, key, value = heads.unbind()
        to_heads = torch.empty_like(heads)
        to_query, to_key, to_value = to_heads.unbind()
        flow = _flow(grad, survives, rows.dtype)
        to_seen = (flow @ proj).view(B, asking, N // B, D).transpose(1, 2).reshape(N, asking, D)
        to_scores = _softmax_gradient(torch.bmm(to_seen, value.mT), weights)
        torch.bmm(weights.mT, to_seen, out=to_value)
        torch.bmm(to_scores.mT, query[:, S - asking :], out=to_key)
        if asking < S:
            to_query[:, : S - asking] = 0
            to_query[:, S - asking :] = torch.bmm(to_scores, key)
        else:
            torch.bmm(to_scores, key, out=to_query)
        to_query.mul_(D**-0.5)
        to_rows = to_heads.view(3, B, N // B, S, D).permute(1, 3, 0, 2, 4).reshape(B * S, 3 * C)
        to_normed = _add_product(grad, to_rows, qkv) if ctx.keep_normed else (to_rows @ qkv).view(B, S, C)
        if of_normed is not None:
            to_normed = to_normed + of_normed
        to_x, *of_norm = _norm_gradient(to_normed, norm)
        if not ctx.keep_normed:
            to_x[:, S - asking :] += grad
        of_layers = to_rows.T @ rows, flow.T @ seen, flow.sum(0)
        return to_x, *of_norm, None, None, None, None, None, *of_layers


class CrossAttentionBranch(Function):
    """n + proj(attention of n over tokens), n = norm(queries), by the algebra of `blocks.CrossAttention`."""

    @staticmethod
    def forward(
        ctx: Any,
        queries: Tensor,  # [B, Q, C]
        norm_weight: Tensor,
        norm_bias: Tensor,
        eps: float,
        survives: Tensor | None,  # [B, 1, 1]
        num_heads: int,
        tokens: Tensor,  # [B, S, C]
        q: Tensor,  # [C, C]
        kv: Tensor,  # [2 C, C]
        proj: Tensor,  # [C, C]
        bias: Tensor,
    ) -> Tensor:
        B, Q, C = queries.shape
        H, D = num_heads, C // num_heads
        normed, norm = _norm(queries, norm_weight, norm_bias, eps)
        rows = normed.to(q.dtype).view(B * Q, C)
        tokens = tokens.to(q.dtype)
        to_key, to_value = kv.view(2, H, D, C).unbind()
        query = (rows @ q.T).view(B * Q, H, D).transpose(0, 1)  # [H, B Q, D]
        asked = torch.bmm(query, to_key).view(H, B, Q, C).transpose(0, 1).reshape(B, H * Q, C).mul_(D**-0.5)
        weights = softmax(torch.bmm(asked, tokens.mT))  # [B, H Q, S]
        seen = torch.bmm(weights, tokens).view(B, H, Q, C).transpose(0, 1).reshape(H, B * Q, C)
        values = torch.bmm(seen, to_value.mT).transpose(0, 1).reshape(B * Q, C)
        out = torch.addmm(bias, values, proj.T).view(B, Q, C)
        layers = q, kv, proj
        ctx.save_for_backward(rows, tokens, query, asked, weights, seen, values, *layers, survives, *norm)
        return _sum(normed, out, survives)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, tokens, query, asked, weights, seen, values, q, kv, proj, survives, *norm = ctx.saved_tensors
        B, Q, C = grad.shape
        H, _, D = query.shape
        to_key, to_value = kv.view(2, H, D, C).unbind()
        of_kv = torch.empty_like(kv)
        of_key, of_value = of_kv.view(2, H, D, C).unbind()
        flow = _flow(grad, survives, rows.dtype)
        to_values = (flow @ proj).view(B * Q, H, D).transpose(0, 1)
        torch.bmm(to_values.mT, seen, out=of_value)
        to_seen = torch.bmm(to_values, to_value).view(H, B, Q, C).transpose(0, 1).reshape(B, H * Q, C)
        to_scores = _softmax_gradient(torch.bmm(to_seen, tokens.mT), weights)
        to_tokens = None
        if ctx.needs_input_grad[6]:
            to_tokens = torch.baddbmm(torch.bmm(weights.mT, to_seen), to_scores.mT, asked)
        to_asked = torch.bmm(to_scores, tokens).mul_(D**-0.5)
        to_asked = to_asked.view(B, H, Q, C).transpose(0, 1).reshape(H, B * Q, C)
        torch.bmm(query.mT, to_asked, out=of_key)
        to_query = torch.bmm(to_asked, to_key.mT).transpose(0, 1).reshape(B * Q, C)
        to_queries, *of_norm = _norm_gradient(_add_product(grad, to_query, q), norm)
        of_layers = to_query.T @ rows, of_kv, flow.T @ values, flow.sum(0)
        return to_queries, *of_norm, None, None, None, to_tokens, *of_layers
