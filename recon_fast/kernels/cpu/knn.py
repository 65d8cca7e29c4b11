"""K nearest neighbours on the CPU.

Points are dealt into groups (point i into group i modulo G). Any T that at least K group minima do not
exceed is an upper bound on the K-th distance, found by bisection over their bits with vectorised counts;
only members of groups whose minimum is within T are looked at, and what passes is sorted by counting ranks,
without a branch. Large clouds are put in Hilbert order: T comes from the nearest branch, and branches and
leaves beyond it are skipped.
"""

import numpy as np
import torch
from torch import Tensor

from recon_fast.kernels.cpu.launch import as_float32, as_lengths, compiled, run, taken
from recon_fast.kernels.cpu.simd import LANES, rank_block
from recon_fast.kernels.cpu.spatial import (
    FAN,
    INF,
    INF_BITS,
    LEAF,
    Flat,
    box_distances,
    distance_to,
    flat_batch,
    flat_packed,
    position_of_smallest,
    put_in_order,
)

_QUERIES = 16  # queries of one item of work
_FEW = 64  # points that are all ranked, without a bound
RANKED = 6 * LANES  # candidates up to which counting ranks beats sorting
_ALONE = 1 << 14  # pairs of points up to which a second thread costs more than it helps
_PRUNE_FROM = 8192  # points
_PACKED_NEAREST = 16  # points of a cloud from which one nearest point is left to `nearest`


@compiled
def distances(x, y, z, qx, qy, qz, out):
    """Squared distances [n]; a NaN counts as inf."""
    for i in range(x.shape[0]):
        dx = qx - x[i]
        dy = qy - y[i]
        dz = qz - z[i]
        v = dx * dx + dy * dy + dz * dz
        out[i] = v if v < INF else INF


@compiled
def lower(minima, bits):
    """Elementwise minimum, in place."""
    for i in range(bits.shape[0]):
        minima[i] = min(minima[i], bits[i])


@compiled
def count_within(bits, bound):
    count = np.int32(0)
    for i in range(bits.shape[0]):
        count = np.int32(count + np.int32(bits[i] <= bound))
    return count


@compiled
def upper_bound(bits, k):
    """A value that at least `k` of `bits` do not exceed, and not many more if it can be had."""
    lo, hi = INF_BITS, np.int32(0)
    for i in range(bits.shape[0]):
        lo = min(lo, bits[i])
    for i in range(bits.shape[0]):
        hi = max(hi, bits[i] if bits[i] <= INF_BITS else np.int32(0))
    most = k + (k >> 3)
    while lo < hi:
        middle = np.int32(lo + ((hi - lo) >> 1))
        count = count_within(bits, middle)
        if count >= k:
            hi = middle
            if count <= most:
                break
        else:
            lo = np.int32(middle + 1)
    return hi


@compiled
def sort_smallest(keys, n, k, ranks, out):
    """The k smallest of the distinct keys[:n], ascending, into out[:k].

    Reads up to LANES - 1 values behind keys[:n]; `ranks` is scratch, int64 [RANKED].
    """
    if n <= RANKED:
        for s in range(0, n, LANES):
            rank_block(keys, s, n, ranks)
        for i in range(n):
            if ranks[i] < k:
                out[ranks[i]] = keys[i]
        return
    out[:k] = np.sort(keys[:n])[:k]


@compiled
def bound_of(bits, k, minima):
    """A value that at least `k` of `bits` [n] do not exceed: one of the minima of groups of them.

    Returns it and the number of groups: those that reach it hold all members that do.
    """
    n = bits.shape[0]
    groups = 64
    while groups * groups < k * n or groups < 2 * k:
        groups *= 2
    if groups >= n:
        groups = n
        minima[:n] = bits
    else:
        minima[:groups] = bits[:groups]
        for s in range(groups, n, groups):
            lower(minima, bits[s : min(n, s + groups)])
    return upper_bound(minima[:groups], k), groups


@compiled
def select(bits, k, minima, picks, out):
    """Positions within a bound that at least `k` of `bits` [n] do not exceed, into `out`; how many."""
    n = bits.shape[0]
    bound, groups = bound_of(bits, k, minima)
    picked = 0
    for g in range(groups):
        picks[picked] = g
        picked += 1 if minima[g] <= bound else 0
    m = 0
    for j in range(picked):
        for i in range(picks[j], n, groups):
            out[m] = i
            m += 1 if bits[i] <= bound else 0
    return m


@compiled
def select_all(points, q, k, buffer, minima, picks, ranks, keys):
    """Keys (distance bits << 32 | index) of the k nearest of all n points, in keys[n : n + k]."""
    x, y, z = points
    n = x.shape[0]
    bits = buffer.view(np.int32)
    distances(x, y, z, q[0], q[1], q[2], buffer[:n])
    if k == 1:
        i = position_of_smallest(bits[:n])
        keys[n] = (np.int64(bits[i]) << 32) | i
        return
    m = select(bits[:n], k, minima, picks, keys)
    for j in range(m):
        keys[j] |= np.int64(bits[keys[j]]) << 32
    sort_smallest(keys, m, k, ranks, keys[n:])


@compiled
def select_pruned(
    points, order, leaves, branches, q, k, gaps, near, seen, buffer, minima, picks, ranks, keys
):
    """The same keys; branches and leaves farther than a bound on the k-th distance are skipped."""
    x, y, z = points
    qx, qy, qz = q
    n = x.shape[0]
    J = (n + LEAF - 1) // LEAF
    count = (J + FAN - 1) // FAN
    bits = buffer.view(np.int32)
    box_distances(branches, 0, count, qx, qx, qy, qy, qz, qz, gaps)
    gap_bits, near_bits = gaps.view(np.int32), near.view(np.int32)
    home = position_of_smallest(gap_bits[:count])
    # As many consecutive branches around the nearest as hold k points; the last one may be short.
    size = FAN * LEAF
    span = (k + size - 1) // size
    first = max(0, min(home, count - span - 1))
    s, e = first * size, min(n, (first + span) * size)
    distances(x[s:e], y[s:e], z[s:e], qx, qy, qz, buffer[: e - s])
    bound, _ = bound_of(bits[: e - s], k, minima)
    visited, total, enough = 0, 0, size  # only the last leaf can be short, and it is visited last
    for i in range(count):
        if total >= enough:  # the nearest branch was none of the best
            tighter, _ = bound_of(bits[:total], k, minima)
            bound, enough = min(bound, tighter), 2 * total
        if gap_bits[i] > bound:
            continue
        start = i * FAN
        inside = min(FAN, J - start)
        box_distances(leaves, start, start + inside, qx, qx, qy, qy, qz, qz, near)
        for j in range(inside):
            if near_bits[j] <= bound:
                s = (start + j) * LEAF
                e = min(n, s + LEAF)
                distances(x[s:e], y[s:e], z[s:e], qx, qy, qz, buffer[total : total + e - s])
                seen[visited] = s
                visited += 1
                total += e - s
    m = select(bits[:total], k, minima, picks, keys)
    for j in range(m):
        i = keys[j]
        keys[j] = (np.int64(bits[i]) << 32) | order[seen[i // LEAF] + i % LEAF]
    sort_smallest(keys, m, k, ranks, keys[n:])


@compiled
def write(keys, k, cloud, q, idx, dist):
    """Split keys into indices and distances; a distance of inf may stand for a NaN, so compute it anew."""
    for j in range(k):
        i = keys[j] & 0xFFFFFFFF
        idx[j] = i
        dist[j] = distance_to(q, cloud, i)


@compiled
def search_few(x, y, z, queries, i, k, buffer, keys, ranks, start, dist, idx):
    """The k nearest of few points by their ranks, into row i of dist and idx; indices count from -start.

    `select_all` and `write` gave the same, and took 1.1 (60 points) to 1.4 (20) times as long.
    """
    n = x.shape[0]
    qx, qy, qz = queries[i, 0], queries[i, 1], queries[i, 2]
    for j in range(n):
        dx = qx - x[j]
        dy = qy - y[j]
        dz = qz - z[j]
        buffer[j] = dx * dx + dy * dy + dz * dz
    for j in range(n):
        v = buffer[j] if buffer[j] < INF else INF
        keys[j] = (np.int64(np.float32(v).view(np.int32)) << 32) | j
    for s in range(0, n, LANES):
        rank_block(keys, s, n, ranks)
    for j in range(n):
        if ranks[j] < k:
            dist[i, ranks[j]] = buffer[j]
            idx[i, ranks[j]] = start + j


@compiled
def search_flat(counter, items, queries, xyz, ends, starts, lengths, columns, most, absolute, dist, idx):
    """Item: some consecutive queries. Indices count from the start of the cloud or, `absolute`, of all."""
    M, K = idx.shape
    keys, ranks = np.empty(most + K + LANES, np.int64), np.empty(RANKED, np.int64)
    minima, picks = np.empty(most, np.int32), np.empty(most + 1, np.int32)
    buffer = np.empty(most, np.float32)
    for item in taken(counter.ctypes.data, items):
        i, last = item * _QUERIES, min(M, (item + 1) * _QUERIES)
        b = np.searchsorted(ends, i, "right")
        while i < last:
            while i >= ends[b]:
                b += 1
            s, n, stop = starts[b], lengths[b], min(last, ends[b])
            e, k, shift = s + n, min(K, n), s if absolute else 0
            x, y, z = columns[0, s:e], columns[1, s:e], columns[2, s:e]
            for j in range(i, stop):
                if n <= _FEW:
                    search_few(x, y, z, queries, j, k, buffer, keys, ranks, shift, dist, idx)
                else:
                    q = (queries[j, 0], queries[j, 1], queries[j, 2])
                    select_all((x, y, z), q, k, buffer, minima, picks, ranks, keys)
                    write(keys[n:], k, xyz[s:], q, idx[j], dist[j])
                    for o in range(k):
                        idx[j, o] += shift
                for o in range(k, K):
                    idx[j, o] = -1
                    dist[j, o] = INF
            i = stop


@compiled
def _knn_pruned(counter, items, queries, xyz, lengths, columns, order, leaves, branches, dist, idx):
    M, N, K = queries.shape[1], xyz.shape[1], idx.shape[2]
    parts = (M + _QUERIES - 1) // _QUERIES
    keys, ranks = np.empty(N + K + LANES, np.int64), np.empty(RANKED, np.int64)
    minima, picks = np.empty(N, np.int32), np.empty(N + 1, np.int32)
    buffer = np.empty(N, np.float32)
    gaps, near = np.empty(branches.shape[2], np.float32), np.empty(FAN, np.float32)
    seen = np.empty(leaves.shape[2], np.int32)
    for item in taken(counter.ctypes.data, items):
        b = item // parts
        n = lengths[b]
        k = min(K, n)
        points = (columns[b, 0, :n], columns[b, 1, :n], columns[b, 2, :n])
        for i in range((item - b * parts) * _QUERIES, min(M, (item - b * parts + 1) * _QUERIES)):
            q = (queries[b, i, 0], queries[b, i, 1], queries[b, i, 2])
            if k > 0:
                select_pruned(
                    points, order[b], leaves[b], branches[b], q, k,
                    gaps, near, seen, buffer, minima, picks, ranks, keys,
                )  # fmt: skip
                write(keys[n:], k, xyz[b], q, idx[b, i], dist[b, i])
            idx[b, i, k:] = -1
            dist[b, i, k:] = INF


def _search(clouds: Flat, k: int, absolute: bool) -> tuple[Tensor, Tensor]:  # [M, k], [M, k] int64
    M = len(clouds.queries)
    dist, idx = torch.empty(M, k), torch.empty(M, k, dtype=torch.int64)
    most = int(clouds.lengths.max())
    settings = clouds.columns(), most, absolute
    threads = None if M * most > _ALONE else 1
    run(search_flat, -(-M // _QUERIES), *clouds, *settings, dist.numpy(), idx.numpy(), threads=threads)
    return dist, idx


def knn(queries: Tensor, points: Tensor, k: int, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
    (B, M, _), N = queries.shape, points.shape[1]
    if N < _PRUNE_FROM or k > N // 64:
        dist, idx = _search(flat_batch(queries, points, lengths), k, absolute=False)
        return dist.view(B, M, k), idx.view(B, M, k)
    q, p, valid = as_float32(queries), as_float32(points), as_lengths(lengths, B, N)
    dist, idx = torch.empty(B, M, k), torch.empty(B, M, k, dtype=torch.int64)
    run(_knn_pruned, B * -(-M // _QUERIES), q, p, valid, *put_in_order(p, valid), dist.numpy(), idx.numpy())
    return dist, idx


def packed_knn(
    queries: Tensor, points: Tensor, k: int, query_lengths: list[int], point_lengths: list[int]
) -> tuple[Tensor, Tensor] | None:  # [M, k], [M, k] int64
    """None where clouds are so large that they are better searched one by one."""
    largest = max(point_lengths, default=0)
    if largest >= (_PACKED_NEAREST if k == 1 else _PRUNE_FROM):
        return None
    return _search(flat_packed(queries, points, query_lengths, point_lengths), k, absolute=True)
