"""The nearest point of another cloud on the CPU, and the gradient of distances between indexed points.

Queries fill the SIMD lanes, targets are broadcast one after the other in ascending index: no horizontal
reduction, and a strict "less than" keeps the smallest index and never takes a NaN. Large clouds are put in
Hilbert order first: the queries of one leaf search together, and skip every branch and every leaf of the
other cloud whose box is farther from theirs than the worst of their nearest points so far.
"""

import numpy as np
import torch
from torch import Tensor

from recon_fast.kernels.cpu.launch import as_float32, as_lengths, compiled, run, taken
from recon_fast.kernels.cpu.simd import QUERIES, search_run
from recon_fast.kernels.cpu.spatial import (
    FAN,
    INF,
    INF_BITS,
    LEAF,
    NONE,
    box_distances,
    columns_of,
    distance_to,
    position_of_smallest,
    put_in_order,
)

_QUERIES = 8 * LEAF  # queries of one item of work, pruned
_PRUNE_FROM = 1 << 17  # pairs of points in a cloud


@compiled
def scratch():
    """For the queries that search together: coordinates, distances and indices."""
    return np.empty((3, QUERIES), np.float32), np.empty(QUERIES, np.float32), np.empty(QUERIES, np.int32)


@compiled
def load_queries(x, y, z, q, best, idx):
    """Copy up to QUERIES of them into q [3, QUERIES] and start their search; the bits to search within."""
    bound = np.int32(-1)
    for i in range(QUERIES):
        j = min(i, x.shape[0] - 1)
        q[0, i], q[1, i], q[2, i] = x[j], y[j], z[j]
        finite = abs(x[j]) < INF and abs(y[j]) < INF and abs(z[j]) < INF
        best[i] = INF if finite else -INF  # to which nothing is nearer
        idx[i] = NONE
        bound = INF_BITS if finite else bound
    return bound


@compiled
def search_branch(q, box, x, y, z, order, leaves, branch, bound, near, best, idx):
    """Search the leaves of one branch whose gap is within the bound, the nearest one first; the new bound."""
    J = (x.shape[0] + LEAF - 1) // LEAF
    first = branch * FAN
    count = min(J - first, FAN)
    box_distances(leaves, first, first + count, box[0], box[1], box[2], box[3], box[4], box[5], near)
    bits = near.view(np.int32)
    home = position_of_smallest(bits[:count])
    for v in range(-1, count):
        j = home if v < 0 else v
        if bits[j] <= bound and v != home:
            s = (first + j) * LEAF
            bound = search_run(q, x, y, z, order, s, min(x.shape[0], s + LEAF), best, idx)
    return bound


@compiled
def search_ordered(q, box, x, y, z, order, leaves, branches, bound, gaps, near, best, idx):
    """Search all points for the queries, the finite ones of which lie in `box`."""
    count = ((x.shape[0] + LEAF - 1) // LEAF + FAN - 1) // FAN
    box_distances(branches, 0, count, box[0], box[1], box[2], box[3], box[4], box[5], gaps)
    bits = gaps.view(np.int32)
    home = position_of_smallest(bits[:count])
    for v in range(-1, count):
        i = home if v < 0 else v
        if bits[i] <= bound and v != home:
            bound = search_branch(q, box, x, y, z, order, leaves, i, bound, near, best, idx)


@compiled
def write_found(src, dst, best, found, i, p, dist, idx):
    """The result of query i, point p of `src`; index 0 where nothing is at a finite distance."""
    j = found[i] if abs(best[i]) < INF else np.int32(0)
    idx[p] = j
    dist[p] = distance_to((src[p, 0], src[p, 1], src[p, 2]), dst, j)


@compiled
def search_all(src, dst, columns, n, targets, m, number, q, best, found, dist, idx):
    """Nearest of the first m points of `dst` for each of the first n of `src`; their columns are [3, .]."""
    for s in range(0, n, QUERIES):
        e = min(n, s + QUERIES)
        load_queries(columns[0, s:e], columns[1, s:e], columns[2, s:e], q, best, found)
        search_run(q, targets[0], targets[1], targets[2], number, 0, m, best, found)
        for i in range(e - s):
            write_found(src, dst, best, found, i, s + i, dist, idx)


@compiled
def leave_out(dist, idx, first, last):
    """The result of points that are not there, or that search an empty cloud."""
    for i in range(first, last):
        dist[i] = INF
        idx[i] = -1


@compiled
def nearest_small(counter, items, src, dst, src_lengths, lengths, parts, dist, idx):
    """Item: one part of the queries of one cloud."""
    N, M = src.shape[1], dst.shape[1]
    size = (N + parts - 1) // parts
    columns, targets = np.empty((3, size), np.float32), np.empty((3, M), np.float32)
    number = np.arange(M).astype(np.int32)
    q, best, found = scratch()
    for item in taken(counter.ctypes.data, items):
        b = item // parts
        first = (item - b * parts) * size
        m = lengths[b]
        n = max(0, min(size, src_lengths[b] - first)) if m > 0 else 0
        part = src[b, first:]
        columns_of(part, columns[0, :n], columns[1, :n], columns[2, :n])
        columns_of(dst[b], targets[0, :m], targets[1, :m], targets[2, :m])
        search_all(
            part, dst[b], columns, n, targets, m, number, q, best, found, dist[b, first:], idx[b, first:]
        )
        leave_out(dist[b], idx[b], first + n, min(N, first + size))


@compiled
def nearest_pruned(
    counter, items, src, dst, src_lengths, lengths, src_columns, src_order, src_leaves,
    columns, order, leaves, branches, dist, idx,
):  # fmt: skip
    """Item: some queries of one cloud, consecutive in Hilbert order."""
    N = src.shape[1]
    parts = (N + _QUERIES - 1) // _QUERIES
    gaps, near = np.empty(branches.shape[2], np.float32), np.empty(FAN, np.float32)
    q, best, found = scratch()
    for item in taken(counter.ctypes.data, items):
        b = item // parts
        m = lengths[b]
        x, y, z = columns[b, 0, :m], columns[b, 1, :m], columns[b, 2, :m]
        first = (item - b * parts) * _QUERIES
        n = src_lengths[b] if m > 0 else 0
        for s in range(first, min(n, first + _QUERIES), LEAF):
            e = min(n, s + LEAF)
            bound = load_queries(
                src_columns[b, 0, s:e], src_columns[b, 1, s:e], src_columns[b, 2, s:e], q, best, found
            )
            if bound >= 0:
                box = src_leaves[b, :, s // LEAF]
                search_ordered(
                    q, box, x, y, z, order[b], leaves[b], branches[b], bound, gaps, near, best, found
                )
            for i in range(e - s):
                write_found(src[b], dst[b], best, found, i, src_order[b, s + i], dist[b], idx[b])
        leave_out(dist[b], idx[b], max(n, first), min(N, first + _QUERIES))


@compiled
def gradient_of_distances(counter, items, grad, src, dst, idx, grad_src, grad_dst):
    """Gradients of |src_i - dst_idx[i, k]|^2, weighted by grad [B, N, K]; one thread a cloud, in order."""
    for b in taken(counter.ctypes.data, items):
        grad_dst[b] = np.float32(0)
        for i in range(src.shape[1]):
            gx, gy, gz = np.float32(0), np.float32(0), np.float32(0)
            for k in range(idx.shape[2]):
                j = idx[b, i, k]
                if j < 0:
                    continue
                g = np.float32(2) * grad[b, i, k]
                dx = g * (src[b, i, 0] - dst[b, j, 0])
                dy = g * (src[b, i, 1] - dst[b, j, 1])
                dz = g * (src[b, i, 2] - dst[b, j, 2])
                gx += dx
                gy += dy
                gz += dz
                grad_dst[b, j, 0] -= dx
                grad_dst[b, j, 1] -= dy
                grad_dst[b, j, 2] -= dz
            grad_src[b, i, 0], grad_src[b, i, 1], grad_src[b, i, 2] = gx, gy, gz


def _find_nearest(
    a: tuple[np.ndarray, np.ndarray], t: tuple[np.ndarray, np.ndarray], ordered: tuple
) -> tuple[Tensor, Tensor]:
    """Distances [B, N] and indices [B, N] of two clouds with their lengths; `ordered` may be empty."""
    (src, src_lengths), (dst, lengths) = a, t
    B, N, _ = src.shape
    dist, idx = torch.empty(B, N), torch.empty(B, N, dtype=torch.int64)
    if not ordered:
        parts = 1 if B >= 8 else min(-(-N // QUERIES), -(-8 // B))
        run(nearest_small, B * parts, src, dst, src_lengths, lengths, parts, dist.numpy(), idx.numpy())
        return dist, idx
    queries, targets = ordered
    boxes = *queries[:3], *targets
    items = B * -(-N // _QUERIES)
    run(nearest_pruned, items, src, dst, src_lengths, lengths, *boxes, dist.numpy(), idx.numpy())
    return dist, idx


def _prepared(src: Tensor, dst: Tensor, src_lengths: Tensor | None, dst_lengths: Tensor | None) -> tuple:
    """Both clouds with their lengths and, where it pays, in order."""
    a, t = as_float32(src), as_float32(dst)
    (B, N, _), M = a.shape, t.shape[1]
    clouds = (a, as_lengths(src_lengths, B, N)), (t, as_lengths(dst_lengths, B, M))
    pays = N * M >= _PRUNE_FROM and min(N, M) >= LEAF
    return *clouds, tuple(put_in_order(*cloud) for cloud in clouds) if pays else ()


def nearest_neighbor(
    src: Tensor, dst: Tensor, src_lengths: Tensor | None = None, dst_lengths: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    a, t, ordered = _prepared(src, dst, src_lengths, dst_lengths)
    return _find_nearest(a, t, ordered)


def mutual_nearest(
    src: Tensor, dst: Tensor, src_lengths: Tensor | None = None, dst_lengths: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Nearest neighbours both ways; each cloud is put in order once."""
    a, t, ordered = _prepared(src, dst, src_lengths, dst_lengths)
    return *_find_nearest(a, t, ordered), *_find_nearest(t, a, ordered[::-1])


def distance_backward(grad: Tensor, src: Tensor, dst: Tensor, idx: Tensor) -> tuple[Tensor, Tensor]:
    a, t = as_float32(src), as_float32(dst)
    grad_src, grad_dst = torch.empty(a.shape), torch.empty(t.shape)
    g, index = grad.to(torch.float32).contiguous().numpy(), idx.contiguous().numpy()
    run(gradient_of_distances, a.shape[0], g, a, t, index, grad_src.numpy(), grad_dst.numpy())
    return grad_src.to(src.dtype), grad_dst.to(dst.dtype)
