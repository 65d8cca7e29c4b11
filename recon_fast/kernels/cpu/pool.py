"""Maxima over groups on the CPU, and the gradient of a linear layer below them, which is sparse.

Only the member with the maximum takes part in an output. The gradient of the weight adds up such rows of the
input, of four groups at a time, so that a sum is read and written once for four products; the gradient of the
input adds up rows of the weight, member by member, in one cached row.
"""

import numpy as np
import torch
from torch import Tensor

from recon_fast.kernels.cpu.launch import compiled_loose, empty, run, taken
from recon_fast.kernels.cpu.rows import BLOCK, ROUNDS_TO_BF16, bits_of, kept, put, sum_bf16_rows, widen

_GROUPS = 16  # of one item of work
_TOGETHER = 8  # groups whose rows are added to a gradient of the weight at once
_OUTPUTS = 192  # at most of one item of work: 384 KiB at 512 inputs


@compiled_loose
def _group_max(counter, items, values, out, idx):
    G, K, O = values.shape
    best, found = np.empty(O, np.float32), np.empty(O, np.int32)
    for item in taken(counter.ctypes.data, items):
        for g in range(item * _GROUPS, min(G, (item + 1) * _GROUPS)):
            row = values[g, 0]
            for o in range(O):
                best[o] = widen(row[o])
                found[o] = np.int32(0)
            for k in range(1, K):
                row = values[g, k]
                kk = np.int32(k)
                for o in range(O):
                    v, b, f = widen(row[o]), best[o], found[o]
                    # A NaN wins, and the first one stays, as in torch.
                    better = v > b or (v != v and b == b)
                    best[o] = v if better else b
                    found[o] = kk if better else f
            top, which = out[g], idx[g]
            for o in range(O):
                put(top, o, best[o])
                which[o] = found[o]


@compiled_loose
def add_four(row, w0, a0, w1, a1, w2, a2, w3, a3):
    for c in range(row.shape[0]):
        row[c] += (w0 * widen(a0[c]) + w1 * widen(a1[c])) + (w2 * widen(a2[c]) + w3 * widen(a3[c]))


@compiled_loose
def add_one(row, w, a):
    for c in range(row.shape[0]):
        row[c] += w * widen(a[c])


@compiled_loose
def sort_by_member(idx, end, place):
    """Outputs [O] by the member [K] they are the maximum of: those of member k end at place[end[k]]."""
    end[:] = np.int32(0)
    for o in range(idx.shape[0]):
        end[idx[o] + 1] += np.int32(1)
    for k in range(end.shape[0] - 1):
        end[k + 1] += end[k]
    for o in range(idx.shape[0]):
        place[end[idx[o]]] = o
        end[idx[o]] += np.int32(1)


@compiled_loose
def _input_gradient(counter, items, grad, idx, weight, to_x):
    """Item: some groups. A member's row is the sum of the weight rows of the outputs it is the maximum of."""
    G, K, C = to_x.shape
    O = weight.shape[0]
    end, place = np.empty(K + 1, np.int32), np.empty(O, np.int32)
    total, flow = np.empty(C, np.float32), np.empty(O, np.float32)
    for item in taken(counter.ctypes.data, items):
        for g in range(item * _GROUPS, min(G, (item + 1) * _GROUPS)):
            sort_by_member(idx[g], end, place)
            for o in range(O):
                flow[o] = widen(grad[g, o])
            s = 0
            for k in range(K):
                e = end[k]
                total[:] = np.float32(0)
                for j in range(s, e - 3, 4):
                    o0, o1, o2, o3 = place[j], place[j + 1], place[j + 2], place[j + 3]
                    add_four(
                        total, flow[o0], weight[o0], flow[o1], weight[o1],
                        flow[o2], weight[o2], flow[o3], weight[o3],
                    )  # fmt: skip
                for j in range(e - (e - s) % 4, e):
                    add_one(total, flow[place[j]], weight[place[j]])
                row = to_x[g, k]
                for c in range(C):
                    put(row, c, total[c])
                s = e


@compiled_loose
def _weight_gradient(counter, items, grad, idx, x, to_weight):
    """Item: some outputs, whose rows of the gradient stay in the cache while all groups pass."""
    G = x.shape[0]
    O = to_weight.shape[0]
    size = (O + items - 1) // items
    for item in taken(counter.ctypes.data, items):
        first, last = item * size, min(O, (item + 1) * size)
        for o in range(first, last):
            to_weight[o] = np.float32(0)
        for g in range(0, G - 3, 4):
            for o in range(first, last):
                add_four(
                    to_weight[o],
                    widen(grad[g, o]), x[g, idx[g, o]],
                    widen(grad[g + 1, o]), x[g + 1, idx[g + 1, o]],
                    widen(grad[g + 2, o]), x[g + 2, idx[g + 2, o]],
                    widen(grad[g + 3, o]), x[g + 3, idx[g + 3, o]],
                )  # fmt: skip
        for g in range(G - G % 4, G):
            for o in range(first, last):
                add_one(to_weight[o], widen(grad[g, o]), x[g, idx[g, o]])


@compiled_loose
def _input_gradient_of_bf16(counter, items, grad, idx, weight, to_x):
    """As `_input_gradient`; channels must be a multiple of BLOCK."""
    G, K, C = to_x.shape
    O = weight.shape[0]
    flat = weight.reshape(O * C)
    end, place = np.empty(K + 1, np.int32), np.empty(O, np.int32)
    start, flow = np.empty(O, np.int64), np.empty(O, np.uint16)
    for item in taken(counter.ctypes.data, items):
        for g in range(item * _GROUPS, min(G, (item + 1) * _GROUPS)):
            sort_by_member(idx[g], end, place)
            for j in range(O):
                start[j] = place[j] * C
                flow[j] = grad[g, place[j]]
            s = 0
            for k in range(K):
                e = end[k]
                for d in range(0, C, BLOCK):
                    sum_bf16_rows(flow[s:e], flat, start[s:e], e - s, d, to_x[g, k])
                s = e


@compiled_loose
def _weight_gradient_of_bf16(counter, items, grad, idx, x, to_weight):
    """As `_weight_gradient`, in the order of `sum_bf16_rows`; channels must be a multiple of BLOCK."""
    G, K, C = x.shape
    O = to_weight.shape[0]
    flat = x.reshape(G * K * C)
    size = (O + items - 1) // items
    start, flow = np.empty(_TOGETHER, np.int64), np.empty(_TOGETHER, np.uint16)
    for item in taken(counter.ctypes.data, items):
        first, last = item * size, min(O, (item + 1) * size)
        for o in range(first, last):
            to_weight[o] = np.float32(0)
        for g in range(0, G, _TOGETHER):
            n = min(_TOGETHER, G - g)
            for o in range(first, last):
                for i in range(n):
                    start[i] = ((g + i) * K + idx[g + i, o]) * C
                    flow[i] = grad[g + i, o]
                for d in range(0, C, BLOCK):
                    sum_bf16_rows(flow, flat, start, n, d, to_weight[o])


def _readable(tensor: Tensor) -> np.ndarray:
    """Contiguous float32, or the bits of bfloat16."""
    return bits_of(tensor.detach().to(kept(tensor.dtype)).contiguous())


def _natural(sums: Tensor) -> Tensor:
    """Sums [O, C] of `sum_bf16_rows` with their channels in order."""
    return sums.view(len(sums), -1, 2, 4, 4).transpose(2, 3).reshape(sums.shape)


def group_max(values: Tensor) -> tuple[Tensor, Tensor]:  # [G, K, O] -> [G, O], [G, O] int32
    """Largest member of each group and which one it is, the first of equal ones; a NaN is the largest."""
    G, _, O = values.shape
    out = torch.empty(G, O, dtype=kept(values.dtype))
    idx = torch.empty(G, O, dtype=torch.int32)
    run(_group_max, -(-G // _GROUPS), _readable(values), bits_of(out), idx.numpy())
    return out.to(values.dtype), idx


def linear_max_backward(
    grad: Tensor, idx: Tensor, x: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    (to_x,) = empty([x.shape], kept(x.dtype))
    to_weight = torch.empty(weight.shape)
    flow, index = _readable(grad), idx.contiguous().numpy()
    paired = ROUNDS_TO_BF16 and x.dtype == torch.bfloat16 and x.shape[2] % BLOCK == 0
    of_input = _input_gradient_of_bf16 if paired else _input_gradient
    of_weight = _weight_gradient_of_bf16 if paired else _weight_gradient
    run(of_input, -(-x.shape[0] // _GROUPS), flow, index, _readable(weight), bits_of(to_x))
    parts = min(weight.shape[0], max(torch.get_num_threads(), -(-weight.shape[0] // _OUTPUTS)))
    run(of_weight, parts, flow, index, _readable(x), to_weight.numpy())
    if paired:
        to_weight = _natural(to_weight)
    to_bias = grad.sum(0, dtype=torch.float32)
    return to_x.to(x.dtype), to_weight.to(weight.dtype), to_bias.to(weight.dtype)
