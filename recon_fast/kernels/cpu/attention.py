"""Cross-attention of a few queries on the CPU, forward and backward.

One item is one head of one cloud, with up to four queries. A key is read once for all of them and never
where it is masked, so nothing behind the mask is touched; the weights are never written to memory, the
backward computes them again. bfloat16 is read as its 16 bits and widened in the loop, which halves the
memory traffic.
"""

import numpy as np
import torch
from numba import types
from numba.extending import overload
from torch import Tensor

from recon_fast.kernels.cpu.launch import compiled_loose, next_item, run
from recon_fast.kernels.cpu.spatial import INF

_LOG2E = np.float32(1.4426950408889634)
_LN2_HIGH, _LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
_LEAST = np.float32(-87)
_C0, _C1, _C2 = np.float32(1.9875691500e-4), np.float32(1.3981999507e-3), np.float32(8.3334519073e-3)
_C3, _C4, _C5 = np.float32(4.1665795894e-2), np.float32(1.6666665459e-1), np.float32(5.0000001201e-1)


def widen(value):
    """float32 of a float32, or of the 16 bits of a bfloat16."""
    raise NotImplementedError


@overload(widen, inline="always")
def _(value):
    if value == types.uint16:
        return lambda value: np.uint32(np.uint32(value) << np.uint32(16)).view(np.float32)
    return lambda value: value


def narrow(value, like):
    """`value`, or the 16 bits of it rounded to bfloat16 (to nearest even) where `like` is such bits."""
    raise NotImplementedError


@overload(narrow, inline="always")
def _(value, like):
    if like != types.uint16:
        return lambda value, like: value

    def rounded(value, like):
        bits = np.float32(value).view(np.int32)
        odd = np.int32(np.int32(bits >> np.int32(16)) & np.int32(1))
        near = np.int32(np.int32(np.int32(bits + np.int32(0x7FFF)) + odd) >> np.int32(16))
        nan = np.int32(bits & np.int32(0x7FFFFFFF)) > np.int32(0x7F800000)
        return np.uint16(np.int32(0x7FC0) if nan else near)

    return rounded


@compiled_loose
def exponential(x):
    """e^x for x <= 0 to 2e-7 (Cephes); vectorises, where a call of expf does not."""
    y = x if x > _LEAST else _LEAST
    n = np.int32(y * _LOG2E - np.float32(0.5))
    r = y - np.float32(n) * _LN2_HIGH - np.float32(n) * _LN2_LOW
    p = ((((_C0 * r + _C1) * r + _C2) * r + _C3) * r + _C4) * r + _C5
    p = p * r * r + r + np.float32(1)
    p = p * np.int32(np.int32(n + np.int32(127)) << np.int32(23)).view(np.float32)
    p = p if x > _LEAST else np.float32(0)
    return p if x == x else x


@compiled_loose
def load(row, out):
    for d in range(out.shape[0]):
        out[d] = widen(row[d])


@compiled_loose
def dots(rows, flat, start, step, seen, buffer, out):
    """out[q, s] = rows[q] . flat[start + s * step :] for the four rows and the keys seen."""
    D = buffer.shape[0]
    r0, r1, r2, r3 = rows[0], rows[1], rows[2], rows[3]
    for s in range(seen.shape[0]):
        if seen[s]:
            load(flat[start + s * step : start + s * step + D], buffer)
            t0, t1, t2, t3 = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
            for d in range(D):
                k = buffer[d]
                t0 += r0[d] * k
                t1 += r1[d] * k
                t2 += r2[d] * k
                t3 += r3[d] * k
            out[0, s], out[1, s], out[2, s], out[3, s] = t0, t1, t2, t3


@compiled_loose
def softmax(scores, seen, scale, logsumexp):
    """In place, along the keys [S] that are seen; the others get 0."""
    for q in range(scores.shape[0]):
        row = scores[q]
        top = -INF
        for s in range(row.shape[0]):
            row[s] = row[s] * scale if seen[s] else -INF
            top = row[s] if row[s] > top else top
        total = np.float32(0)
        for s in range(row.shape[0]):
            row[s] = exponential(row[s] - top) if seen[s] else np.float32(0)
            total += row[s]
        if q < logsumexp.shape[0]:
            logsumexp[q] = top + np.log(total) if total != np.float32(0) else -INF
        factor = np.float32(1) / total if total != np.float32(0) else np.float32(0)
        for s in range(row.shape[0]):
            row[s] *= factor


@compiled_loose
def add_keys(weights, flat, start, step, seen, buffer, out):
    """out[q] = sum over the keys seen of weights[q, s] * flat[start + s * step :], for four q."""
    D = buffer.shape[0]
    out[:] = np.float32(0)
    o0, o1, o2, o3 = out[0], out[1], out[2], out[3]
    for s in range(seen.shape[0]):
        if seen[s]:
            load(flat[start + s * step : start + s * step + D], buffer)
            w0, w1, w2, w3 = weights[0, s], weights[1, s], weights[2, s], weights[3, s]
            # In pairs: with four outputs LLVM gives up on proving that none overlap.
            for d in range(D):
                o0[d] += w0 * buffer[d]
                o1[d] += w1 * buffer[d]
            for d in range(D):
                o2[d] += w2 * buffer[d]
                o3[d] += w3 * buffer[d]


@compiled_loose
def outer(factors, rows, seen, out):
    """out[s] = sum over four q of factors[q, s] * rows[q]; 0 for the keys not seen."""
    D = out.shape[1]
    r0, r1, r2, r3 = rows[0], rows[1], rows[2], rows[3]
    for s in range(seen.shape[0]):
        row = out[s]
        if seen[s]:
            f0, f1, f2, f3 = factors[0, s], factors[1, s], factors[2, s], factors[3, s]
            for d in range(D):
                row[d] = narrow(f0 * r0[d] + f1 * r1[d] + f2 * r2[d] + f3 * r3[d], row[d])
        else:
            row[:] = 0


@compiled_loose
def load_queries(flat, start, step, count, out):
    for q in range(count):
        load(flat[start + q * step : start + q * step + out.shape[1]], out[q])


@compiled_loose
def save(rows, out):
    for q in range(out.shape[0]):
        row = out[q]
        for d in range(out.shape[1]):
            row[d] = narrow(rows[q, d], row[d])


@compiled_loose
def _attention(counter, items, query, q_step, key, k_step, value, v_step, mask, scale, out, logsumexp):
    H, Q, D = out.shape[1], out.shape[2], out.shape[3]
    S = mask.shape[1]
    rows, total = np.zeros((4, D), np.float32), np.empty((4, D), np.float32)
    weights, buffer = np.zeros((4, S), np.float32), np.empty(D, np.float32)
    while True:
        item = next_item(counter)
        if item >= items:
            break
        b = item // H
        h = item - b * H
        seen = mask[b]
        load_queries(query, b * q_step[0] + h * q_step[1], q_step[2], Q, rows)
        dots(rows, key, b * k_step[0] + h * k_step[1], k_step[2], seen, buffer, weights)
        softmax(weights, seen, scale, logsumexp[b, h])
        add_keys(weights, value, b * v_step[0] + h * v_step[1], v_step[2], seen, buffer, total)
        save(total, out[b, h])


@compiled_loose
def score_gradient(weights, change, seen, scale):
    """Gradient of the scores before scaling, from that of the weights, in place of the latter [4, S]."""
    for q in range(weights.shape[0]):
        mean = np.float32(0)
        for s in range(seen.shape[0]):
            change[q, s] = change[q, s] if seen[s] else np.float32(0)
            mean += weights[q, s] * change[q, s]
        for s in range(seen.shape[0]):
            change[q, s] = scale * weights[q, s] * (change[q, s] - mean)


@compiled_loose
def _attention_backward(
    counter, items, grad, g_step, query, q_step, key, k_step, value, v_step, mask, scale, dq, dk, dv, of_keys
):
    H, Q, D = dq.shape[1], dq.shape[2], dq.shape[3]
    S = mask.shape[1]
    rows, flow = np.zeros((4, D), np.float32), np.zeros((4, D), np.float32)
    weights, change = np.zeros((4, S), np.float32), np.zeros((4, S), np.float32)
    nothing = np.empty(0, np.float32)
    to_query, buffer = np.empty((4, D), np.float32), np.empty(D, np.float32)
    while True:
        item = next_item(counter)
        if item >= items:
            break
        b = item // H
        h = item - b * H
        seen = mask[b]
        load_queries(query, b * q_step[0] + h * q_step[1], q_step[2], Q, rows)
        load_queries(grad, b * g_step[0] + h * g_step[1], g_step[2], Q, flow)
        start = b * k_step[0] + h * k_step[1]
        dots(rows, key, start, k_step[2], seen, buffer, weights)
        dots(flow, value, b * v_step[0] + h * v_step[1], v_step[2], seen, buffer, change)
        softmax(weights, seen, scale, nothing)
        score_gradient(weights, change, seen, scale)
        add_keys(change, key, start, k_step[2], seen, buffer, to_query)
        save(to_query, dq[b, h])
        if of_keys:
            outer(change, rows, seen, dk[b, h])
            outer(weights, flow, seen, dv[b, h])


def _bits(tensor: Tensor) -> np.ndarray:
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _flat(tensor: Tensor) -> tuple[np.ndarray, tuple[int, ...]]:
    """One-dimensional view of all the memory a tensor [B, H, S, D] lies in, and its first three strides."""
    tensor = tensor.detach()
    if tensor.dtype not in (torch.float32, torch.bfloat16):
        tensor = tensor.float()
    if tensor.stride(-1) != 1:
        tensor = tensor.contiguous()
    strides = tensor.stride()
    span = 1 + sum((n - 1) * step for n, step in zip(tensor.shape, strides, strict=True))
    return _bits(tensor.as_strided((span,), (1,))), strides[:3]


def _seen(key: Tensor, key_mask: Tensor | None) -> np.ndarray:
    if key_mask is None:
        return np.ones((key.shape[0], key.shape[2]), np.bool_)
    return key_mask.contiguous().numpy()


def masked_cross_attention_forward(
    query: Tensor,  # [B, H, Q, D]
    key: Tensor,  # [B, H, S, D]
    value: Tensor,  # [B, H, S, D]
    key_mask: Tensor | None,  # [B, S] bool
    scale: float,
) -> tuple[Tensor, Tensor]:  # [B, H, Q, D], [B, H, Q] float32
    B, H = query.shape[:2]
    kept = query.dtype if query.dtype == torch.bfloat16 else torch.float32
    out, logsumexp = torch.empty(query.shape, dtype=kept), torch.empty(query.shape[:3])
    inputs = (*_flat(query), *_flat(key), *_flat(value), _seen(key, key_mask), np.float32(scale))
    run(_attention, B * H, *inputs, _bits(out), logsumexp.numpy())
    return out.to(value.dtype), logsumexp


def masked_cross_attention_backward(
    grad: Tensor,  # [B, H, Q, D]
    query: Tensor,  # [B, H, Q, D]
    key: Tensor,  # [B, H, S, D]
    value: Tensor,  # [B, H, S, D]
    key_mask: Tensor | None,  # [B, S] bool
    scale: float,
    out: Tensor,  # [B, H, Q, D], not needed here
    logsumexp: Tensor,  # [B, H, Q], not needed here
    need_key_grad: bool = True,
) -> tuple[Tensor, Tensor | None, Tensor | None]:  # shapes of query, key, value
    B, H = query.shape[:2]
    kept = query.dtype if query.dtype == torch.bfloat16 else torch.float32
    shapes = (query.shape, *((key.shape, value.shape) if need_key_grad else ((0, 0, 0, 0),) * 2))
    grads = [torch.empty(shape, dtype=kept) for shape in shapes]
    inputs = (*_flat(query), *_flat(key), *_flat(value), _seen(key, key_mask), np.float32(scale))
    run(_attention_backward, B * H, *_flat(grad.to(query.dtype)), *inputs, *map(_bits, grads), need_key_grad)
    to_query, to_key, to_value = (g.to(query.dtype) for g in grads)
    return to_query, to_key if need_key_grad else None, to_value if need_key_grad else None
