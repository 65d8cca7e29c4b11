"""Features of points by index on the CPU: channel after channel, whose row of points stays in the cache.

An index that does not exist is turned into that of a zero behind the row, so that the inner loops have no
branch; they run along the outputs, K times, and gather into the lanes of a vector.
"""

import numpy as np
from torch import Tensor

from recon_fast.kernels.cpu.launch import as_float32, compiled, empty, run, taken

_CHANNELS = 16  # of one item of work
_MATCHED = 256  # outputs of one item of work


@compiled
def _prepare(counter, items, idx, weights, weighted, N, places, factors):
    """Columns [B, K, M] of the indices, N for those that do not exist, and of the weights."""
    for b in taken(counter.ctypes.data, items):
        for m in range(idx.shape[1]):
            for k in range(idx.shape[2]):
                i = idx[b, m, k]
                places[b, k, m] = i if i >= 0 and i < N else N
                if weighted:
                    factors[b, k, m] = weights[b, m, k]


@compiled
def _sum(counter, items, features, places, factors, weighted, out):
    C, N = features.shape[1], features.shape[2]
    parts = (C + _CHANNELS - 1) // _CHANNELS
    row = np.zeros(N + 1, np.float32)
    for item in taken(counter.ctypes.data, items):
        b = item // parts
        first = (item - b * parts) * _CHANNELS
        for c in range(first, min(C, first + _CHANNELS)):
            row[:N] = features[b, c]
            target = out[b, c]
            for k in range(places.shape[1]):
                place = places[b, k]
                for m in range(target.shape[0]):
                    value = row[place[m]]
                    if weighted:
                        value = value * factors[b, k, m] if place[m] < N else np.float32(0)
                    target[m] = value if k == 0 else target[m] + value


@compiled
def _scatter(counter, items, values, places, factors, weighted, out):
    C, N = values.shape[1], out.shape[2]
    parts = (C + _CHANNELS - 1) // _CHANNELS
    row = np.empty(N + 1, np.float32)
    for item in taken(counter.ctypes.data, items):
        b = item // parts
        first = (item - b * parts) * _CHANNELS
        for c in range(first, min(C, first + _CHANNELS)):
            row[:] = np.float32(0)
            value = values[b, c]
            for k in range(places.shape[1]):
                place = places[b, k]
                for m in range(place.shape[0]):
                    row[place[m]] += value[m] * factors[b, k, m] if weighted else value[m]
            out[b, c] = row[:N]


@compiled
def _match(counter, items, values, features, places, out):
    C, N, M = features.shape[1], features.shape[2], values.shape[2]
    parts = (M + _MATCHED - 1) // _MATCHED
    for item in taken(counter.ctypes.data, items):
        b = item // parts
        first = (item - b * parts) * _MATCHED
        last = min(M, first + _MATCHED)
        total = np.empty(last - first, np.float32)
        for k in range(places.shape[1]):
            place = places[b, k, first:last]
            total[:] = np.float32(0)
            for c in range(C):
                row, value = features[b, c], values[b, c, first:last]
                for m in range(place.shape[0]):
                    total[m] += value[m] * row[place[m] if place[m] < N else 0]
            for m in range(place.shape[0]):
                out[b, first + m, k] = total[m] if place[m] < N else np.float32(0)


def _columns(idx: Tensor, weights: Tensor | None, N: int) -> tuple[np.ndarray, np.ndarray]:
    B, M, K = idx.shape
    # Unsigned, since numba asks of signed indices whether they count from the end.
    places = np.empty((B, K, M), np.uint32)
    factors = np.empty((0, 0, 0) if weights is None else (B, K, M), np.float32)
    given = factors if weights is None else as_float32(weights)
    index = idx.contiguous().numpy()
    run(_prepare, B, index, given, weights is not None, N, places, factors)
    return places, factors


def sum_features(features: Tensor, idx: Tensor, weights: Tensor | None = None) -> Tensor:
    B, C, N = features.shape
    places, factors = _columns(idx, weights, N)
    (out,) = empty([(B, C, idx.shape[1])])
    items = B * -(-C // _CHANNELS)
    run(_sum, items, as_float32(features), places, factors, weights is not None, out.numpy())
    return out.to(features.dtype)


def scatter_features(values: Tensor, idx: Tensor, weights: Tensor | None, num_points: int) -> Tensor:
    B, C, _ = values.shape
    places, factors = _columns(idx, weights, num_points)
    (out,) = empty([(B, C, num_points)])
    items = B * -(-C // _CHANNELS)
    run(_scatter, items, as_float32(values), places, factors, weights is not None, out.numpy())
    return out.to(values.dtype)


def match_features(values: Tensor, features: Tensor, idx: Tensor) -> Tensor:
    B, M, K = idx.shape
    places, _ = _columns(idx, None, features.shape[2])
    (out,) = empty([(B, M, K)])
    run(_match, B * -(-M // _MATCHED), as_float32(values), as_float32(features), places, out.numpy())
    return out
