"""Farthest-point sampling on the CPU.

Distances to the chosen set are non-negative, so the farthest is found by an integer maximum over their bits,
which vectorises where a float maximum does not. A chosen point gets negative bits: as a float a NaN that no
distance replaces, as an integer below all others. Large clouds are put in Hilbert order and cut into blocks;
a new sample touches only the blocks whose bounding box is nearer to it than their farthest point is to the
chosen set.
"""

import numpy as np
import torch
from torch import Tensor

from recon_fast.kernels.cpu.launch import as_float32, as_lengths, compiled, run, taken
from recon_fast.kernels.cpu.spatial import INF, NONE, box_distances, boxes, curve_order, first_equal
from recon_fast.kernels.reference import NEAR_ORIGIN

_NEAR_ORIGIN = np.float32(NEAR_ORIGIN)
_CHOSEN = np.int32(-2)
_BLOCK = 512  # 32 x 1024 -> 64, one thread: 0.57, 0.47, 0.46, 0.45 ms at 128, 256, 512, 1024
_LEAF = 256  # 1 x 100k -> 4096, one thread: 11.0, 8.9, 9.2, 10.9 ms at 128, 256, 512, 1024
_PRUNE_FROM = 4096  # points


@compiled
def update(x, y, z, d, cx, cy, cz):
    """Lower the distances [n] to the new center; the bits of the largest."""
    top = np.int32(-3)
    for i in range(x.shape[0]):
        dx = x[i] - cx
        dy = y[i] - cy
        dz = z[i] - cz
        v = dx * dx + dy * dy + dz * dz
        o = d[i]
        v = v if v < o else o
        d[i] = v
        top = max(top, np.float32(v).view(np.int32))
    return top


@compiled
def candidates(points, skip, x, y, z, index):
    """Copy the points that are finite (and, with `skip`, away from the origin) by column; how many."""
    n = 0
    for i in range(points.shape[0]):
        px, py, pz = points[i, 0], points[i, 1], points[i, 2]
        x[n] = px
        y[n] = py
        z[n] = pz
        index[n] = i
        ok = abs(px) < INF and abs(py) < INF and abs(pz) < INF
        if skip:
            ok = ok and px * px + py * py + pz * pz > _NEAR_ORIGIN
        n += 1 if ok else 0
    return n


@compiled
def sample_all(x, y, z, index, start, center, out):
    """Sample by sweeping over all points; `start` is the position of the first sample or -1."""
    n = x.shape[0]
    d = np.full(n, INF, np.float32)
    bits = d.view(np.int32)
    position = np.arange(n).astype(np.int32)
    blocks = (n + _BLOCK - 1) // _BLOCK
    current = start
    cx, cy, cz = center
    for m in range(1, out.shape[0]):
        if current >= 0:
            bits[current] = _CHOSEN
        best, at = np.int32(-3), 0
        for j in range(blocks):
            s, e = j * _BLOCK, min(n, j * _BLOCK + _BLOCK)
            top = update(x[s:e], y[s:e], z[s:e], d[s:e], cx, cy, cz)
            if top > best:
                best, at = top, s
        e = min(n, at + _BLOCK)
        current = first_equal(bits[at:e], position[at:e], best)
        out[m] = index[current]
        cx, cy, cz = x[current], y[current], z[current]


@compiled
def sample_pruned(px, py, pz, pindex, start, center, out):
    """The same samples; blocks that the new center cannot change are skipped."""
    n = px.shape[0]
    order = np.empty(n, np.int32)
    curve_order(px, py, pz, order)
    x, y, z = np.empty(n, np.float32), np.empty(n, np.float32), np.empty(n, np.float32)
    position = np.empty(n, np.int32)  # of each point in the new order
    for i in range(n):
        k = order[i]
        x[i] = px[k]
        y[i] = py[k]
        z[i] = pz[k]
        position[k] = i
    current = position[start] if start >= 0 else -1
    blocks = (n + _LEAF - 1) // _LEAF
    bounds = np.empty((6, blocks), np.float32)
    boxes(x, y, z, _LEAF, bounds)
    d = np.full(n, INF, np.float32)
    bits = d.view(np.int32)
    top = np.full(blocks, INF, np.float32)  # farthest of each block
    top_bits = top.view(np.int32)
    near = np.empty(blocks, np.float32)
    cx, cy, cz = center
    for m in range(1, out.shape[0]):
        if current >= 0:
            bits[current] = _CHOSEN
        box_distances(bounds, 0, blocks, cx, cx, cy, cy, cz, cz, near)
        if current >= 0:
            near[current // _LEAF] = np.float32(-1)  # its farthest point may be the one just chosen
        for j in range(blocks):
            if near[j] < top[j]:
                s, e = j * _LEAF, min(n, j * _LEAF + _LEAF)
                top_bits[j] = update(x[s:e], y[s:e], z[s:e], d[s:e], cx, cy, cz)
        best = np.int32(-3)
        for j in range(blocks):
            best = max(best, top_bits[j])
        smallest = NONE
        for j in range(blocks):
            if top_bits[j] == best:
                s, e = j * _LEAF, min(n, j * _LEAF + _LEAF)
                smallest = min(smallest, first_equal(bits[s:e], order[s:e], best))
        out[m] = pindex[smallest]
        current = position[smallest]
        cx, cy, cz = x[current], y[current], z[current]


@compiled
def _farthest_point_sample(counter, items, xyz, lengths, first, skip, prune, out):
    for b in taken(counter.ctypes.data, items):
        points, row = xyz[b], out[b]
        length = lengths[b]
        total = min(row.shape[0], length)
        row[total:] = -1
        if total == 0:
            continue
        x, y, z = np.empty(length, np.float32), np.empty(length, np.float32), np.empty(length, np.float32)
        index = np.empty(length, np.int32)
        n = candidates(points[:length], skip, x, y, z, index)
        row[0] = first
        center = (points[first, 0], points[first, 1], points[first, 2])
        start = -1
        for i in range(min(n, first + 1)):
            if index[i] == first:
                start = i
        proper = min(total, n if start >= 0 else n + 1)
        if proper > 1:
            if prune:
                sample_pruned(x[:n], y[:n], z[:n], index[:n], start, center, row[:proper])
            else:
                sample_all(x[:n], y[:n], z[:n], index[:n], start, center, row[:proper])
        # What is left once every candidate is taken: the points passed over, by index.
        m = max(proper, 1)
        c = 0
        for i in range(length):
            if m >= total:
                break
            if c < n and index[c] == i:
                c += 1
            elif i != first:
                row[m] = i
                m += 1


def farthest_point_sample(
    xyz: Tensor,
    num_samples: int,
    lengths: Tensor | None = None,
    start_index: int = 0,
    skip_near_origin: bool = False,
) -> Tensor:
    points = as_float32(xyz)
    B, N, _ = points.shape
    out = torch.empty(B, num_samples, dtype=torch.int64)
    valid = as_lengths(lengths, B, N)
    prune = N >= _PRUNE_FROM
    run(_farthest_point_sample, B, points, valid, start_index, skip_near_origin, prune, out.numpy())
    return out
