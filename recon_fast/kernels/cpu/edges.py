"""Neighbours as edges of a graph, on the CPU: counted first, then written in place.

Of few points all is one call on one thread, from the example of each point to the edges: step by step, they
would wait for the steps.
"""

import numpy as np
import torch
from torch import Tensor

from recon_fast.kernels.cpu.ball import scan_flat, squared
from recon_fast.kernels.cpu.knn import search_flat
from recon_fast.kernels.cpu.launch import as_float32, compiled, empty, run, taken
from recon_fast.kernels.cpu.spatial import padded_columns

_ROWS = 1024  # of one item of work


@compiled
def _count(counter, items, idx, counts):
    for item in taken(counter.ctypes.data, items):
        count = 0
        for i in range(item * _ROWS, min(idx.shape[0], (item + 1) * _ROWS)):
            for k in range(idx.shape[1]):
                count += idx[i, k] >= 0
        counts[item] = count


@compiled
def _write(counter, items, idx, starts, out):
    for item in taken(counter.ctypes.data, items):
        place = starts[item]
        for i in range(item * _ROWS, min(idx.shape[0], (item + 1) * _ROWS)):
            for k in range(idx.shape[1]):
                if idx[i, k] >= 0:
                    out[0, place] = i
                    out[1, place] = idx[i, k]
                    place += 1


def neighbor_edges(idx: Tensor) -> Tensor:  # [M, k] int64, -1 for none -> [2, E] int64
    rows = idx.contiguous().numpy()
    items = -(-len(rows) // _ROWS)
    counts = np.empty(items, np.int64)
    run(_count, items, rows, counts)
    (out,) = empty([(2, int(counts.sum()))], torch.int64)
    run(_write, items, rows, counts.cumsum() - counts, out.numpy())
    return out


@compiled
def sizes_of(batch, count, points):
    """How many points each of `count` examples has; without a batch vector all are of example 0."""
    sizes = np.zeros(count, np.int64)
    if batch.shape[0] == 0:
        sizes[0] = points
    for i in range(batch.shape[0]):
        sizes[batch[i]] += 1
    return sizes


@compiled
def examples_of(batch):
    """How many examples a batch vector that ascends from 0 or more has, else -1; 1 of an empty one."""
    last = np.int64(0)
    for i in range(batch.shape[0]):
        if batch[i] < last:
            return np.int64(-1)
        last = batch[i]
    return last + 1


@compiled
def _edges_of_few(queries, points, query_batch, point_batch, k, bound):
    """Edges, and whether both batch vectors ascend and are there together; without, there are none."""
    M, N = queries.shape[0], points.shape[0]
    of_queries, of_points = examples_of(query_batch), examples_of(point_batch)
    count = max(of_queries, of_points)
    alone = (query_batch.shape[0] == 0) != (point_batch.shape[0] == 0)
    if min(of_queries, of_points) < 0 or (alone and count > 1):
        return np.empty((2, 0), np.int64), False
    lengths = sizes_of(point_batch, count, N)
    starts, ends = np.cumsum(lengths) - lengths, np.cumsum(sizes_of(query_batch, count, M))
    columns = padded_columns(points)
    dist, idx = np.empty((M, k), np.float32), np.empty((M, k), np.int64)
    counter, most = np.zeros(1, np.int64), lengths.max()
    if bound < 0:
        search_flat(counter, M, queries, points, ends, starts, lengths, columns, most, True, dist, idx)
    else:
        scan_flat(
            counter, M, queries, points, ends, starts, lengths, columns, bound, False, most, True, dist, idx
        )
    blocks = (M + _ROWS - 1) // _ROWS
    counts = np.empty(blocks, np.int64)
    _count(np.zeros(1, np.int64), blocks, idx, counts)
    edges = np.empty((2, counts.sum()), np.int64)
    _write(np.zeros(1, np.int64), blocks, idx, np.cumsum(counts) - counts, edges)
    return edges, True


_NO_BATCH = np.empty(0, np.int64)


def edges_of_few(
    queries: Tensor,  # [M, 3]
    points: Tensor,  # [N, 3]
    query_batch: Tensor | None,  # [M]: the example of each; None is 0
    point_batch: Tensor | None,  # [N]
    k: int,
    radius: float | None = None,
) -> Tensor | None:  # [2, E] int64
    """Edges to the `k` nearest points of a query's example or, with a radius, to the first `k` inside.

    None where a batch vector does not ascend from 0 or more, or where only one has several examples.
    """
    batches = (
        _NO_BATCH if batch is None else batch.to(torch.int64).contiguous().numpy()
        for batch in (query_batch, point_batch)
    )
    bound = np.float32(-1) if radius is None else squared(radius)
    edges, right = _edges_of_few(as_float32(queries), as_float32(points), *batches, k, bound)
    return torch.from_numpy(edges) if right else None
