"""Cross-attention of a few queries on the CPU, forward and backward.

One item is one head of one cloud, with up to four queries. A key is read once for all of them and never
where it is masked, so nothing behind the mask is touched; the weights are never written to memory, the
backward computes them again. bfloat16 is read as its 16 bits and widened in the loop, which halves the
memory traffic.
"""

import numpy as np
import torch
from torch import Tensor

from recon_fast.kernels.cpu.launch import compiled_loose, empty, run, taken
from recon_fast.kernels.cpu.rows import (
    LANES,
    PAIRED,
    ROUNDS_TO_BF16,
    bits_of,
    four_dots,
    four_paired_dots,
    kept,
    put,
    spread_rows,
    sum_rows,
    widen,
)
from recon_fast.kernels.cpu.simd import prefetch
from recon_fast.kernels.cpu.spatial import INF

_LOG2E = np.float32(1.4426950408889634)
_LN2_HIGH, _LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
_LEAST = np.float32(-87)
_C0, _C1, _C2 = np.float32(1.9875691500e-4), np.float32(1.3981999507e-3), np.float32(8.3334519073e-3)
_C3, _C4, _C5 = np.float32(4.1665795894e-2), np.float32(1.6666665459e-1), np.float32(5.0000001201e-1)


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
    for d in range(row.shape[0]):
        out[d] = widen(row[d])


@compiled_loose
def fetch(flat, start, step, keys, D):
    """Prefetch all keys of a head: the other heads lie between them, so no processor does by itself."""
    line = 64 // flat.itemsize
    for j in range(keys.shape[0]):
        at = start + keys[j] * step
        for d in range(0, D, line):
            prefetch(flat, at + d)


@compiled_loose
def widened_dots(rows, flat, start, step, keys, D, buffer, out):
    n, last = keys.shape[0], keys.shape[0] - 1
    for j in range(0, n, 4):
        for i in range(4):
            at = start + keys[min(j + i, last)] * step
            load(flat[at : at + D], buffer[i])
        for q in range(rows.shape[0]):
            four_dots(rows[q], buffer, out[q], j)


@compiled_loose
def paired_dots(rows, flat, start, step, keys, D, out):
    n, last = keys.shape[0], keys.shape[0] - 1
    for j in range(0, n, 4):
        at0, at1 = start + keys[j] * step, start + keys[min(j + 1, last)] * step
        at2, at3 = start + keys[min(j + 2, last)] * step, start + keys[min(j + 3, last)] * step
        for q in range(rows.shape[0]):
            four_paired_dots(rows[q], flat, at0, at1, at2, at3, D, out[q], j)


@compiled_loose
def dots(rows, flat, start, step, keys, D, buffer, out):
    """out[q, j] = rows[q] . flat[start + keys[j] * step :]; a multiple of four columns is written.

    The last axes of `rows` and `buffer` are padded with zeros to a multiple of LANES. Where the processor
    multiplies pairs of bfloat16, `rows` must hold values of the type of `flat`.
    """
    if ROUNDS_TO_BF16 and flat.itemsize == 2 and D % PAIRED == 0:
        paired_dots(rows, flat, start, step, keys, D, out)
    else:
        widened_dots(rows, flat, start, step, keys, D, buffer, out)


@compiled_loose
def softmax(scores, n, scale, logsumexp):
    """In place, along the first n keys; a row of nothing but -inf becomes 0."""
    for q in range(scores.shape[0]):
        row = scores[q, :n]
        top = -INF
        for j in range(row.shape[0]):
            row[j] = row[j] * scale
            top = row[j] if row[j] > top else top
        top = top if top > -INF else np.float32(0)
        total = np.float32(0)
        for j in range(row.shape[0]):
            row[j] = exponential(row[j] - top)
            total += row[j]
        if q < logsumexp.shape[0]:
            logsumexp[q] = top + np.log(total) if total != np.float32(0) else -INF
        factor = np.float32(1) / total if total != np.float32(0) else np.float32(0)
        for j in range(row.shape[0]):
            row[j] *= factor


@compiled_loose
def add_keys(weights, flat, start, step, keys, out):
    """out[q] = sum over j of weights[q, j] * flat[start + keys[j] * step :], for four q."""
    D = out.shape[1]
    whole = D - D % PAIRED
    for d in range(0, whole, PAIRED):
        sum_rows(weights, flat, start, step, keys, d, out)
    if whole == D:
        return
    out[:, whole:] = np.float32(0)
    for j in range(keys.shape[0]):
        at = start + keys[j] * step
        for q in range(4):
            row, w = out[q], weights[q, j]
            for d in range(whole, D):
                row[d] += w * widen(flat[at + d])


@compiled_loose
def outer(factors, rows, keys, out):
    """out[keys[j]] = sum over four q of factors[q, j] * rows[q]; 0 for all other keys."""
    D = out.shape[1]
    if keys.shape[0] < out.shape[0]:
        out[:] = 0
    whole = D - D % PAIRED
    for d in range(0, whole, PAIRED):
        spread_rows(factors, rows, keys, d, out)
    if whole == D:
        return
    for j in range(keys.shape[0]):
        row = out[keys[j]]
        for d in range(whole, D):
            total = np.float32(0)
            for q in range(4):
                total += factors[q, j] * rows[q, d]
            put(row, d, total)


@compiled_loose
def keys_seen(mask, out):
    """Indices of the True of mask [S], into `out`; how many."""
    n = 0
    for s in range(mask.shape[0]):
        out[n] = s
        n += 1 if mask[s] else 0
    return n


@compiled_loose
def load_queries(flat, start, step, D, out):
    for q in range(out.shape[0]):
        load(flat[start + q * step : start + q * step + D], out[q])


@compiled_loose
def save(rows, out):
    for q in range(out.shape[0]):
        row = out[q]
        for d in range(out.shape[1]):
            put(row, d, rows[q, d])


@compiled_loose
def _attention(counter, items, query, q_step, key, k_step, value, v_step, mask, scale, out, logsumexp):
    H, Q, D = out.shape[1], out.shape[2], out.shape[3]
    S = mask.shape[1]
    wide = (D + LANES - 1) // LANES * LANES
    rows, buffer = np.zeros((Q, wide), np.float32), np.zeros((4, wide), np.float32)
    total = np.empty((4, D), np.float32)
    weights, places = np.zeros((4, S + 3), np.float32), np.empty(S + 1, np.int64)
    for item in taken(counter.ctypes.data, items):
        b = item // H
        h = item - b * H
        n = keys_seen(mask[b], places)
        keys = places[:n]
        key_start, value_start = b * k_step[0] + h * k_step[1], b * v_step[0] + h * v_step[1]
        fetch(key, key_start, k_step[2], keys, D)
        fetch(value, value_start, v_step[2], keys, D)
        load_queries(query, b * q_step[0] + h * q_step[1], q_step[2], D, rows)
        dots(rows, key, key_start, k_step[2], keys, D, buffer, weights)
        softmax(weights[:Q], n, scale, logsumexp[b, h])
        add_keys(weights, value, value_start, v_step[2], keys, total)
        save(total[:Q], out[b, h])


@compiled_loose
def score_gradient(weights, change, n, scale):
    """Gradient of the scores before scaling, from that of the weights, in place of the latter [Q, n]."""
    for q in range(weights.shape[0]):
        w, c = weights[q, :n], change[q, :n]
        mean = np.float32(0)
        for j in range(w.shape[0]):
            mean += w[j] * c[j]
        for j in range(w.shape[0]):
            c[j] = scale * w[j] * (c[j] - mean)


@compiled_loose
def _attention_backward(
    counter, items, grad, g_step, query, q_step, key, k_step, value, v_step, mask, scale, dq, dk, dv, of_keys
):
    H, Q, D = dq.shape[1], dq.shape[2], dq.shape[3]
    S = mask.shape[1]
    wide = (D + LANES - 1) // LANES * LANES
    rows, flow = np.zeros((4, wide), np.float32), np.zeros((4, wide), np.float32)
    weights, change = np.zeros((4, S + 3), np.float32), np.zeros((4, S + 3), np.float32)
    to_query, buffer = np.empty((4, D), np.float32), np.zeros((4, wide), np.float32)
    nothing, places = np.empty(0, np.float32), np.empty(S + 1, np.int64)
    for item in taken(counter.ctypes.data, items):
        b = item // H
        h = item - b * H
        n = keys_seen(mask[b], places)
        keys = places[:n]
        key_start, value_start = b * k_step[0] + h * k_step[1], b * v_step[0] + h * v_step[1]
        fetch(key, key_start, k_step[2], keys, D)
        fetch(value, value_start, v_step[2], keys, D)
        load_queries(query, b * q_step[0] + h * q_step[1], q_step[2], D, rows[:Q])
        load_queries(grad, b * g_step[0] + h * g_step[1], g_step[2], D, flow[:Q])
        dots(rows[:Q], key, key_start, k_step[2], keys, D, buffer, weights)
        dots(flow[:Q], value, value_start, v_step[2], keys, D, buffer, change)
        softmax(weights[:Q], n, scale, nothing)
        score_gradient(weights[:Q], change[:Q], n, scale)
        add_keys(change, key, key_start, k_step[2], keys, to_query)
        save(to_query[:Q], dq[b, h])
        if of_keys:
            outer(change, rows, keys, dk[b, h])
            outer(weights, flow, keys, dv[b, h])


def _flat(tensor: Tensor) -> tuple[np.ndarray, tuple[int, ...]]:
    """One-dimensional view of all the memory a tensor [B, H, S, D] lies in, and its first three strides."""
    tensor = tensor.detach().to(kept(tensor.dtype))
    if tensor.stride(-1) != 1:
        tensor = tensor.contiguous()
    strides = tensor.stride()
    span = 1 + sum((n - 1) * step for n, step in zip(tensor.shape, strides, strict=True))
    return bits_of(tensor.as_strided((span,), (1,))), strides[:3]


def _inputs(query: Tensor, key: Tensor, value: Tensor, key_mask: Tensor | None, scale: float) -> tuple:
    """What both kernels read."""
    seen = key.new_ones(key.shape[0], key.shape[2], dtype=torch.bool) if key_mask is None else key_mask
    return *_flat(query), *_flat(key), *_flat(value), seen.contiguous().numpy(), np.float32(scale)


def masked_cross_attention_forward(
    query: Tensor, key: Tensor, value: Tensor, key_mask: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    """As the reference, with the log-sum-exp of the scores [B, H, Q]."""
    out, logsumexp = torch.empty(query.shape, dtype=kept(query.dtype)), torch.empty(query.shape[:3])
    inputs = _inputs(query, key, value, key_mask, scale)
    run(_attention, query.shape[:2].numel(), *inputs, bits_of(out), logsumexp.numpy())
    return out.to(value.dtype), logsumexp


def masked_cross_attention_backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, key_mask: Tensor | None, scale: float,
    out: Tensor, logsumexp: Tensor, need_key_grad: bool = True,
) -> tuple[Tensor, Tensor | None, Tensor | None]:  # fmt: skip
    """As the reference; `out` and `logsumexp` are for other backends, None is a gradient not needed."""
    shapes = (query.shape, *((key.shape, value.shape) if need_key_grad else ((0, 0, 0, 0),) * 2))
    grads = empty(shapes, kept(query.dtype))
    inputs = *_flat(grad.to(query.dtype)), *_inputs(query, key, value, key_mask, scale)
    run(_attention_backward, query.shape[:2].numel(), *inputs, *map(bits_of, grads), need_key_grad)
    to_query, to_key, to_value = (g.to(query.dtype) for g in grads)
    return to_query, to_key if need_key_grad else None, to_value if need_key_grad else None
