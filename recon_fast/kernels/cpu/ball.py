"""The first points within a radius of each query on the CPU.

Points are looked at in runs of 32, whose hits are the bits of one number. In order of their indices the
search ends with the k-th hit: that is short where balls are full. Where they are nearly empty, large clouds
are put in Hilbert order: branches and leaves beyond the radius are skipped, and the hits sorted by index. A
sample of the cloud tells which of the two a query takes.
"""

import numpy as np
import torch
from torch import Tensor

from recon_fast.kernels.cpu.knn import RANKED, sort_smallest
from recon_fast.kernels.cpu.launch import compiled, empty, run, taken
from recon_fast.kernels.cpu.simd import LANES, RUN, lowest_bit, within
from recon_fast.kernels.cpu.spatial import (
    FAN,
    INF,
    LEAF,
    Flat,
    box_distances,
    distance_to,
    flat_batch,
    flat_packed,
    put_in_order,
)

_QUERIES = 16  # queries of one item of work
_ALONE = 1 << 16  # pairs of points up to which a second thread costs more than it helps
_PRUNE_FROM = 8192  # points
_QUERIES_FROM = 1024  # queries of a cloud from which putting it in order pays
_SAMPLE = 512  # points that tell how full a ball is
_SORTED = 16  # points that are passed while a hit is sorted
_PROBES = 32  # queries of a cloud that tell whether balls are full


@compiled
def scan(x, y, z, q, bound, start, end, out, m, k):
    """Append the points start:end inside to out[:m] until it holds k; their number then.

    Reads whole runs, so up to RUN - 1 values of the columns behind `end`.
    """
    for s in range(start, end, RUN):
        mask = within(x, y, z, s, q[0], q[1], q[2], bound)
        if end - s < RUN:
            mask &= (np.int64(1) << (end - s)) - 1
        while mask != 0:
            if m == k:
                return m
            out[m] = s + lowest_bit(mask)
            m += 1
            mask &= mask - 1
    return m


@compiled
def search(x, y, z, order, leaves, branches, n, q, bound, gaps, near, out):
    """Numbers of all of the n points inside, in no order; how many."""
    J = (n + LEAF - 1) // LEAF
    count = (J + FAN - 1) // FAN
    box_distances(branches, 0, count, q[0], q[0], q[1], q[1], q[2], q[2], gaps)
    m = 0
    for i in range(count):
        if gaps[i] >= bound:
            continue
        first = i * FAN
        inside = min(FAN, J - first)
        box_distances(leaves, first, first + inside, q[0], q[0], q[1], q[1], q[2], q[2], near)
        for j in range(inside):
            if near[j] >= bound:
                continue
            s = (first + j) * LEAF
            start = min(s, x.shape[0] - RUN)  # a run within the column
            mask = within(x, y, z, start, q[0], q[1], q[2], bound)
            mask &= ((np.int64(1) << min(n - start, RUN)) - 1) & -(np.int64(1) << (s - start))
            while mask != 0:
                out[m] = order[start + lowest_bit(mask)]
                m += 1
                mask &= mask - 1
    return m


@compiled
def write(found, m, first, cloud, n, q, idx, dist):
    """The m points found, then padding: -1 or, with `first`, the first of them or else point 0."""
    for j in range(m):
        idx[j] = found[j]
    filler = -1 if not first or n == 0 else (found[0] if m > 0 else 0)
    idx[m:] = filler
    for j in range(idx.shape[0] if filler >= 0 else m):
        dist[j] = distance_to(q, cloud, idx[j])
    if filler < 0:
        dist[m:] = INF


@compiled
def is_full(m, k, n, sample):
    """Whether a ball that holds m of the sample is searched in order: k / share points are passed that way,
    share * n hits sorted the other way."""
    return m >= k or m * m * n * _SORTED >= k * sample * sample


@compiled
def _full_balls(counter, items, queries, starts, lengths, bound, k, columns, full):
    """How many of _PROBES queries of each cloud find their ball full; queries [B, M, 3]."""
    found = np.empty(_SAMPLE, np.int64)
    for b in taken(counter.ctypes.data, items):
        s, n = starts[b], lengths[b]
        sample = min(n, _SAMPLE)
        for i in range(_PROBES):
            j = i * queries.shape[1] // _PROBES
            q = (queries[b, j, 0], queries[b, j, 1], queries[b, j, 2])
            most = min(k, sample)
            m = scan(columns[0, s:], columns[1, s:], columns[2, s:], q, bound, 0, sample, found, 0, most)
            full[b] += is_full(m, k, n, sample)


@compiled
def scan_flat(
    counter, items, queries, xyz, ends, starts, lengths, columns, bound, first, most, absolute, dist, idx
):
    """Item: some consecutive queries. Indices count from the start of the cloud or, `absolute`, of all."""
    M, K = idx.shape
    found = np.empty(most, np.int64)
    for item in taken(counter.ctypes.data, items):
        i, last = item * _QUERIES, min(M, (item + 1) * _QUERIES)
        b = np.searchsorted(ends, i, "right")
        while i < last:
            while i >= ends[b]:
                b += 1
            s, n, stop = starts[b], lengths[b], min(last, ends[b])
            k, shift = min(K, n), s if absolute else 0
            x, y, z, cloud = columns[0, s:], columns[1, s:], columns[2, s:], xyz[s:]
            for j in range(i, stop):
                q = (queries[j, 0], queries[j, 1], queries[j, 2])
                m = scan(x, y, z, q, bound, 0, n, found, 0, k)
                write(found, m, first, cloud, n, q, idx[j], dist[j])
                for o in range(m):
                    idx[j, o] += shift
            i = stop


@compiled
def _ball_query_pruned(
    counter, items, queries, xyz, starts, lengths, columns, bound, first,
    ordered, order, leaves, branches, dist, idx,
):  # fmt: skip
    M, N, K = queries.shape[1], xyz.shape[1], idx.shape[2]
    parts = (M + _QUERIES - 1) // _QUERIES
    found, ranks = np.empty(N + min(K, N) + LANES, np.int64), np.empty(RANKED, np.int64)
    gaps, near = np.empty(branches.shape[2], np.float32), np.empty(FAN, np.float32)
    for item in taken(counter.ctypes.data, items):
        b = item // parts
        s, n = starts[b], lengths[b]
        k = min(K, n)
        x, y, z = columns[0, s:], columns[1, s:], columns[2, s:]
        x_, y_, z_ = ordered[b, 0], ordered[b, 1], ordered[b, 2]
        sample = min(n, _SAMPLE)
        for i in range((item - b * parts) * _QUERIES, min(M, (item - b * parts + 1) * _QUERIES)):
            q = (queries[b, i, 0], queries[b, i, 1], queries[b, i, 2])
            m = scan(x, y, z, q, bound, 0, sample, found, 0, k)
            if is_full(m, k, n, sample):
                m = scan(x, y, z, q, bound, sample, n, found, m, k)
                write(found, m, first, xyz[b], n, q, idx[b, i], dist[b, i])
            else:
                m = search(x_, y_, z_, order[b], leaves[b], branches[b], n, q, bound, gaps, near, found)
                sort_smallest(found, m, min(m, k), ranks, found[m:])
                write(found[m:], min(m, k), first, xyz[b], n, q, idx[b, i], dist[b, i])


def squared(radius: float) -> np.float32:
    with np.errstate(over="ignore"):
        return np.float32(radius) * np.float32(radius)


def _search(
    clouds: Flat, columns: np.ndarray, radius: float, k: int, padding: str, absolute: bool
) -> tuple[Tensor, Tensor]:  # [M, k], [M, k] int64
    M = len(clouds.queries)
    (dist,), (idx,) = empty([(M, k)]), empty([(M, k)], torch.int64)
    most = int(clouds.lengths.max())
    settings = columns, squared(radius), padding == "first", most, absolute
    threads = None if M * most > _ALONE else 1
    run(scan_flat, -(-M // _QUERIES), *clouds, *settings, dist.numpy(), idx.numpy(), threads=threads)
    return dist, idx


def ball_query(
    queries: Tensor,
    points: Tensor,
    radius: float,
    k: int,
    lengths: Tensor | None = None,
    padding: str = "none",
) -> tuple[Tensor, Tensor]:
    (B, M, _), N = queries.shape, points.shape[1]
    clouds = flat_batch(queries, points, lengths)
    columns, bound = clouds.columns(), squared(radius)
    q, p = clouds.queries.reshape(B, M, 3), clouds.points.reshape(B, N, 3)
    prune = N >= _PRUNE_FROM and M >= _QUERIES_FROM
    if prune:
        full = np.zeros(B, np.int64)
        run(_full_balls, B, q, clouds.starts, clouds.lengths, bound, k, columns, full)
        prune = bool(full.sum() * 4 < 3 * _PROBES * B)
    if not prune:
        dist, idx = _search(clouds, columns, radius, k, padding, absolute=False)
        return dist.view(B, M, k), idx.view(B, M, k)
    (dist,), (idx,) = empty([(B, M, k)]), empty([(B, M, k)], torch.int64)
    boxes = put_in_order(p, clouds.lengths)
    settings = clouds.starts, clouds.lengths, columns, bound, padding == "first"
    run(_ball_query_pruned, B * -(-M // _QUERIES), q, p, *settings, *boxes, dist.numpy(), idx.numpy())
    return dist, idx


def packed_ball_query(
    queries: Tensor, points: Tensor, radius: float, k: int, query_lengths: list[int], point_lengths: list[int]
) -> tuple[Tensor, Tensor] | None:  # [M, k], [M, k] int64
    """None where clouds are so large that they are better searched one by one."""
    if max(point_lengths, default=0) >= _PRUNE_FROM:
        return None
    clouds = flat_packed(queries, points, query_lengths, point_lengths)
    return _search(clouds, clouds.columns(), radius, k, "none", absolute=True)
