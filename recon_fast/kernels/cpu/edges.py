"""Lists of neighbours as edges of a graph, on the CPU: counted first, then written in place."""

import numpy as np
import torch
from torch import Tensor

from recon_fast.kernels.cpu.launch import compiled, empty, next_item, run

_ROWS = 1024  # of one item of work


@compiled
def _count(counter, items, idx, counts):
    while True:
        item = next_item(counter)
        if item >= items:
            break
        count = 0
        for i in range(item * _ROWS, min(idx.shape[0], (item + 1) * _ROWS)):
            for k in range(idx.shape[1]):
                count += idx[i, k] >= 0
        counts[item] = count


@compiled
def _write(counter, items, idx, starts, out):
    while True:
        item = next_item(counter)
        if item >= items:
            break
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
