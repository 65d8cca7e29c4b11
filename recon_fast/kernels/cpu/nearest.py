"""The nearest point of another cloud on the CPU, and the gradient of distances between indexed points.

Queries fill the SIMD lanes, targets are broadcast one after the other in ascending index: no horizontal
reduction, and a strict "less than" keeps the smallest index and never takes a NaN. In large clouds the
targets fill the lanes instead: both clouds are put in Morton order, a query starts at the block where the
one before it ended and skips every block whose bounding box is farther than the nearest point so far.
"""

import numpy as np
import torch
from torch import Tensor

from recon_fast.kernels.cpu.launch import as_lengths, as_points, compiled, next_item, run
from recon_fast.kernels.cpu.spatial import (
    INF,
    INF_BITS,
    NONE,
    box_distances,
    boxes,
    first_equal,
    morton_order,
)

_TILE = 64  # queries swept together
_QUERIES = 256  # queries of one item of work, pruned
_LEAF = 128  # targets of one bounding box
_PRUNE_FROM = 1 << 20  # pairs of points in a cloud; 8 x 2048², both ways, one thread: 6.9 against 9.0 ms


@compiled
def sweep(ax, ay, az, tx, ty, tz, best, idx):
    """Lower `best` [n] and set `idx` [n] int32 where one of the targets [m] is nearer, in their order."""
    m = tx.shape[0]
    for j in range(0, m - 3, 4):
        x0, x1, x2, x3 = tx[j], tx[j + 1], tx[j + 2], tx[j + 3]
        y0, y1, y2, y3 = ty[j], ty[j + 1], ty[j + 2], ty[j + 3]
        z0, z1, z2, z3 = tz[j], tz[j + 1], tz[j + 2], tz[j + 3]
        j0, j1, j2, j3 = np.int32(j), np.int32(j + 1), np.int32(j + 2), np.int32(j + 3)
        for i in range(ax.shape[0]):
            x, y, z = ax[i], ay[i], az[i]
            b, k = best[i], idx[i]
            v = (x - x0) * (x - x0) + (y - y0) * (y - y0) + (z - z0) * (z - z0)
            k = j0 if v < b else k
            b = v if v < b else b
            v = (x - x1) * (x - x1) + (y - y1) * (y - y1) + (z - z1) * (z - z1)
            k = j1 if v < b else k
            b = v if v < b else b
            v = (x - x2) * (x - x2) + (y - y2) * (y - y2) + (z - z2) * (z - z2)
            k = j2 if v < b else k
            b = v if v < b else b
            v = (x - x3) * (x - x3) + (y - y3) * (y - y3) + (z - z3) * (z - z3)
            k = j3 if v < b else k
            b = v if v < b else b
            best[i] = b
            idx[i] = k
    for j in range(m - m % 4, m):
        x0, y0, z0 = tx[j], ty[j], tz[j]
        j0 = np.int32(j)
        for i in range(ax.shape[0]):
            b = best[i]
            v = (ax[i] - x0) * (ax[i] - x0) + (ay[i] - y0) * (ay[i] - y0) + (az[i] - z0) * (az[i] - z0)
            idx[i] = j0 if v < b else idx[i]
            best[i] = v if v < b else b


@compiled
def nearest_in_block(x, y, z, qx, qy, qz, buffer):
    """Squared distances [n] into `buffer`, a NaN as inf; the bits of the smallest."""
    smallest = NONE
    for i in range(x.shape[0]):
        dx = qx - x[i]
        dy = qy - y[i]
        dz = qz - z[i]
        v = dx * dx + dy * dy + dz * dz
        v = v if v < INF else INF
        buffer[i] = v
        smallest = min(smallest, np.float32(v).view(np.int32))
    return smallest


@compiled
def columns_of(cloud, x, y, z):
    for i in range(x.shape[0]):
        x[i], y[i], z[i] = cloud[i, 0], cloud[i, 1], cloud[i, 2]


@compiled
def columns_in_order(cloud, order, x, y, z):
    for i in range(x.shape[0]):
        p = order[i]
        x[i], y[i], z[i] = cloud[p, 0], cloud[p, 1], cloud[p, 2]


@compiled
def prepare_ordered(counter, items, clouds, lengths, columns, orders, bounds):
    """Morton order [B, N], columns [B, 3, N] in that order and boxes [B, 6, J] of each cloud."""
    while True:
        b = next_item(counter)
        if b >= items:
            break
        n = lengths[b]
        if n == 0:
            continue
        x, y, z, order = columns[b, 0, :n], columns[b, 1, :n], columns[b, 2, :n], orders[b, :n]
        columns_of(clouds[b], x, y, z)
        morton_order(x, y, z, order)
        columns_in_order(clouds[b], order, x, y, z)
        boxes(x, y, z, _LEAF, bounds[b])


@compiled
def distance_to(src, dst, i, j):
    dx = src[i, 0] - dst[j, 0]
    dy = src[i, 1] - dst[j, 1]
    dz = src[i, 2] - dst[j, 2]
    return dx * dx + dy * dy + dz * dz


@compiled
def nearest_small(counter, items, src, dst, lengths, parts, dist, idx):
    """Item: one part of the queries of one cloud."""
    N, M = src.shape[1], dst.shape[1]
    size = (N + parts - 1) // parts
    ax, ay, az = np.empty(size, np.float32), np.empty(size, np.float32), np.empty(size, np.float32)
    tx, ty, tz = np.empty(M, np.float32), np.empty(M, np.float32), np.empty(M, np.float32)
    best, near = np.empty(size, np.float32), np.empty(size, np.int32)
    while True:
        item = next_item(counter)
        if item >= items:
            break
        b = item // parts
        first = (item - b * parts) * size
        n, m = max(0, min(size, N - first)), lengths[b]
        columns_of(src[b, first:], ax[:n], ay[:n], az[:n])
        columns_of(dst[b], tx[:m], ty[:m], tz[:m])
        best[:] = INF
        near[:] = 0
        for s in range(0, n, _TILE):
            e = min(n, s + _TILE)
            sweep(ax[s:e], ay[s:e], az[s:e], tx[:m], ty[:m], tz[:m], best[s:e], near[s:e])
        for i in range(n):
            idx[b, first + i] = near[i]
            dist[b, first + i] = distance_to(src[b], dst[b], first + i, near[i])


@compiled
def nearest_pruned(
    counter, items, src, dst, lengths, src_columns, src_order, dst_columns, dst_order, dst_bounds, dist, idx
):
    """Item: some queries of one cloud, consecutive in Morton order."""
    N = src.shape[1]
    parts = (N + _QUERIES - 1) // _QUERIES
    gap = np.empty(dst_bounds.shape[2], np.float32)
    gap_bits = gap.view(np.int32)
    buffer = np.empty(_LEAF, np.float32)
    bits = buffer.view(np.int32)
    while True:
        item = next_item(counter)
        if item >= items:
            break
        b = item // parts
        m = lengths[b]
        x, y, z, order = dst_columns[b, 0], dst_columns[b, 1], dst_columns[b, 2], dst_order[b]
        blocks = (m + _LEAF - 1) // _LEAF
        home = 0
        for i in range((item - b * parts) * _QUERIES, min(N, (item - b * parts + 1) * _QUERIES)):
            p = src_order[b, i]
            qx, qy, qz = src_columns[b, 0, i], src_columns[b, 1, i], src_columns[b, 2, i]
            best, near = INF_BITS, NONE
            finite = abs(qx) < INF and abs(qy) < INF and abs(qz) < INF
            if finite and blocks > 0:
                box_distances(dst_bounds[b], qx, qx, qy, qy, qz, qz, gap[:blocks])
                j, last = home, home
                for v in range(-1, blocks):
                    if v >= 0:
                        if gap_bits[v] > best or v == last:
                            continue
                        j = v
                    s, e = j * _LEAF, min(m, j * _LEAF + _LEAF)
                    smallest = nearest_in_block(x[s:e], y[s:e], z[s:e], qx, qy, qz, buffer)
                    if smallest < best:
                        best, near, home = smallest, first_equal(bits[: e - s], order[s:e], smallest), j
                    elif smallest == best and best < INF_BITS:
                        near = min(near, first_equal(bits[: e - s], order[s:e], smallest))
            near = np.int32(0) if near == NONE else near
            idx[b, p] = near
            dist[b, p] = distance_to(src[b], dst[b], p, near)


@compiled
def gradient_of_distances(counter, items, grad, src, dst, idx, grad_src, grad_dst):
    """Gradients of |src_i - dst_idx[i, k]|^2, weighted by grad [B, N, K]; one thread a cloud, in order."""
    while True:
        b = next_item(counter)
        if b >= items:
            break
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


class Ordered:
    """A batch of clouds in Morton order with bounding boxes."""

    def __init__(self, points: np.ndarray, lengths: np.ndarray):
        B, N, _ = points.shape
        self.columns = np.empty((B, 3, N), np.float32)
        self.order = np.empty((B, N), np.int32)
        self.bounds = np.empty((B, 6, -(-N // _LEAF)), np.float32)
        run(prepare_ordered, B, points, lengths, self.columns, self.order, self.bounds)


def find_nearest(
    src: np.ndarray, dst: np.ndarray, lengths: np.ndarray, ordered: tuple[Ordered, Ordered] | None
) -> tuple[Tensor, Tensor]:
    """Distances [B, N] and indices [B, N] of float32 arrays; `ordered` holds (src, dst) where it pays."""
    B, N, _ = src.shape
    dist, idx = torch.empty(B, N), torch.empty(B, N, dtype=torch.int64)
    if ordered is None:
        parts = 1 if B >= 8 else min(-(-N // _TILE), -(-8 // B))
        run(nearest_small, B * parts, src, dst, lengths, parts, dist.numpy(), idx.numpy())
        return dist, idx
    a, t = ordered
    items = B * -(-N // _QUERIES)
    out = (dist.numpy(), idx.numpy())
    run(nearest_pruned, items, src, dst, lengths, a.columns, a.order, t.columns, t.order, t.bounds, *out)
    return dist, idx


def pays_to_order(src: np.ndarray, dst: np.ndarray) -> bool:
    return src.shape[1] * dst.shape[1] >= _PRUNE_FROM and min(src.shape[1], dst.shape[1]) >= _TILE


def nearest_neighbor(
    src: Tensor,  # [B, N, 3]
    dst: Tensor,  # [B, M, 3]
    dst_lengths: Tensor | None = None,  # [B]
) -> tuple[Tensor, Tensor]:  # [B, N], [B, N] int64
    a, t = as_points(src), as_points(dst)
    lengths = as_lengths(dst_lengths, *t.shape[:2])
    ordered = None
    if pays_to_order(a, t):
        ordered = Ordered(a, as_lengths(None, *a.shape[:2])), Ordered(t, lengths)
    return find_nearest(a, t, lengths, ordered)


def mutual_nearest(
    src: Tensor,  # [B, N, 3]
    dst: Tensor,  # [B, M, 3]
    src_lengths: Tensor | None = None,  # [B]
    dst_lengths: Tensor | None = None,  # [B]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # [B, N], [B, N] int64, [B, M], [B, M] int64
    """Nearest neighbours both ways; each cloud is put in order once."""
    a, t = as_points(src), as_points(dst)
    counts = as_lengths(src_lengths, *a.shape[:2]), as_lengths(dst_lengths, *t.shape[:2])
    if not pays_to_order(a, t):
        return *find_nearest(a, t, counts[1], None), *find_nearest(t, a, counts[0], None)
    as_queries = Ordered(a, as_lengths(None, *a.shape[:2])), Ordered(t, as_lengths(None, *t.shape[:2]))
    as_targets = tuple(
        whole if lengths is None else Ordered(points, count)
        for whole, points, lengths, count in zip(
            as_queries, (a, t), (src_lengths, dst_lengths), counts, strict=True
        )
    )
    forth = find_nearest(a, t, counts[1], (as_queries[0], as_targets[1]))
    return *forth, *find_nearest(t, a, counts[0], (as_queries[1], as_targets[0]))


def distance_backward(
    grad: Tensor,  # [B, N, K]
    src: Tensor,  # [B, N, 3]
    dst: Tensor,  # [B, M, 3]
    idx: Tensor,  # [B, N, K] int64, -1 for none
) -> tuple[Tensor, Tensor]:  # [B, N, 3], [B, M, 3]
    a, t = as_points(src), as_points(dst)
    grad_src, grad_dst = torch.empty(a.shape), torch.empty(t.shape)
    g, index = grad.to(torch.float32).contiguous().numpy(), idx.contiguous().numpy()
    run(gradient_of_distances, a.shape[0], g, a, t, index, grad_src.numpy(), grad_dst.numpy())
    return grad_src.to(src.dtype), grad_dst.to(dst.dtype)
