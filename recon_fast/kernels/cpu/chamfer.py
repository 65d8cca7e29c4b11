"""Chamfer distance of each pair of clouds and its gradients, on the CPU.

A pair is one item of work: what its points give to their nearest neighbours is added by one thread, in their
order. Small pairs are searched, summed and differentiated in one pass; of larger ones the search comes first.
"""

import numpy as np
from torch import Tensor

from recon_fast.kernels.cpu.launch import as_float32, as_lengths, compiled, empty, run
from recon_fast.kernels.cpu.nearest import mutual_nearest, scratch, search_all
from recon_fast.kernels.cpu.simd import next_item
from recon_fast.kernels.cpu.spatial import columns_of

_SMALL = 1 << 14  # pairs of points up to which one thread searches a pair; more are shared out


@compiled
def one_way(src, dst, n, dist, idx, root, to_src, to_dst):
    """Mean over the first n points of `src`; adds to the gradients [N, 3] and [M, 3] that are not empty."""
    total = 0.0
    count = np.float32(n)
    for i in range(n):
        d, j = dist[i], idx[i]
        weight = np.float32(2) / count
        if root:
            d = np.sqrt(d) * np.float32(0.5) if d != np.float32(0) else d
            weight = np.float32(0.5) / (np.float32(2) * d * count) if d != np.float32(0) else np.float32(0)
        total += d
        gx = weight * (src[i, 0] - dst[j, 0])
        gy = weight * (src[i, 1] - dst[j, 1])
        gz = weight * (src[i, 2] - dst[j, 2])
        if to_src.shape[0] > 0:
            to_src[i, 0] += gx
            to_src[i, 1] += gy
            to_src[i, 2] += gz
        if to_dst.shape[0] > 0:
            to_dst[j, 0] -= gx
            to_dst[j, 1] -= gy
            to_dst[j, 2] -= gz
    return np.float32(total / count)


@compiled
def _pairs(counter, items, pred, target, pred_lengths, target_lengths, near, root, loss, to_pred, to_target):
    """Item: a pair. `near` holds distances and indices both ways, empty where the search is done here."""
    N, M = pred.shape[1], target.shape[1]
    forth, back, forth_idx, back_idx = near
    search = forth.shape[0] == 0
    size = max(N, M) if search else 0
    columns, targets = np.empty((3, size), np.float32), np.empty((3, size), np.float32)
    dist, idx, number = np.empty(size, np.float32), np.empty(size, np.int64), np.arange(size).astype(np.int32)
    q, best, found = scratch()
    while True:  # a pair takes 0.9 us: `taken` would be 2 % of it
        b = next_item(counter.ctypes.data)
        if b >= items:
            break
        p, t, n, m = pred[b], target[b], pred_lengths[b], target_lengths[b]
        gp, gt = to_pred[b if to_pred.shape[1] else 0], to_target[b if to_target.shape[1] else 0]
        gp[:] = np.float32(0)
        gt[:] = np.float32(0)
        if n == 0 or m == 0:
            loss[b] = np.float32(0)
        elif search:
            columns_of(p, columns[0, :n], columns[1, :n], columns[2, :n])
            columns_of(t, targets[0, :m], targets[1, :m], targets[2, :m])
            search_all(p, t, columns, n, targets, m, number, q, best, found, dist, idx)
            loss[b] = one_way(p, t, n, dist, idx, root, gp, gt)
            search_all(t, p, targets, m, columns, n, number, q, best, found, dist, idx)
            loss[b] += one_way(t, p, m, dist, idx, root, gt, gp)
        else:
            loss[b] = one_way(p, t, n, forth[b], forth_idx[b], root, gp, gt)
            loss[b] += one_way(t, p, m, back[b], back_idx[b], root, gt, gp)


def chamfer_pairs(
    pred: Tensor, target: Tensor, pred_lengths: Tensor | None, target_lengths: Tensor | None,
    norm: str, need_pred_grad: bool, need_target_grad: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """As the reference; a gradient that is not needed is empty."""
    p, t = as_float32(pred), as_float32(target)
    (B, N, _), M = p.shape, t.shape[1]
    if N * M > _SMALL:
        forth, forth_idx, back, back_idx = mutual_nearest(pred, target, pred_lengths, target_lengths)
        near = forth.numpy(), back.numpy(), forth_idx.numpy(), back_idx.numpy()
    else:
        near = (np.empty((0, 0), np.float32),) * 2 + (np.empty((0, 0), np.int64),) * 2
    loss, to_pred, to_target = empty(
        [
            (B,),
            (B, N, 3) if need_pred_grad else (1, 0, 3),
            (B, M, 3) if need_target_grad else (1, 0, 3),
        ]
    )
    lengths = as_lengths(pred_lengths, B, N), as_lengths(target_lengths, B, M)
    run(_pairs, B, p, t, *lengths, near, norm == "l1", loss.numpy(), to_pred.numpy(), to_target.numpy())
    return loss, to_pred, to_target
