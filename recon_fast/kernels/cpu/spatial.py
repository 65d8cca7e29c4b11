"""Pieces the point kernels share: bits of floats, Morton order, bounding boxes."""

import numpy as np

from recon_fast.kernels.cpu.launch import compiled

INF = np.float32(np.inf)
INF_BITS = np.int32(0x7F800000)  # bits of a non-negative float sort like the float
NONE = np.int32(0x7FFFFFFF)  # sorts after every distance and every index
_FINE_FROM = 1 << 15  # points from which the Morton grid has 32 cells per axis, not 16
_SAMPLE = 256  # coordinates from which the range of the grid is taken


@compiled
def spread(v):
    """Five bits, two zeros between each."""
    v = (v | (v << 8)) & 0x0000F00F
    v = (v | (v << 4)) & 0x000C30C3
    return (v | (v << 2)) & 0x00249249


@compiled
def grid_range(values, cells):
    """Lower end and cells per unit of one axis [n]; outliers fall into the border cells."""
    n = values.shape[0]
    step = max(1, n // _SAMPLE)
    sample = np.empty(n // step + 1, np.float32)
    m = 0
    for i in range(0, n, step):
        v = values[i]
        if abs(v) < INF:
            j = m
            while j > 0 and sample[j - 1] > v:
                sample[j] = sample[j - 1]
                j -= 1
            sample[j] = v
            m += 1
    if m == 0:
        return np.float32(0), np.float32(0)
    lo, hi = sample[m // 64], sample[m - 1 - m // 64]
    width = hi - lo
    if not (width > np.float32(1e-30) and width < np.float32(1e30)):
        return lo, np.float32(0)
    return lo, np.float32(cells) / width


@compiled
def cell(v, lo, scale, cells):
    """Grid cell of one coordinate; NaN falls into cell 0."""
    t = (v - lo) * scale
    t = t if t > np.float32(0) else np.float32(0)
    t = t if t < np.float32(cells - 1) else np.float32(cells - 1)
    return np.int32(t)


@compiled
def morton_order(x, y, z, order):
    """Stable counting sort of points [n] along a Z-curve, into `order` [n] int32."""
    n = x.shape[0]
    cells = 32 if n >= _FINE_FROM else 16
    lox, sx = grid_range(x, cells)
    loy, sy = grid_range(y, cells)
    loz, sz = grid_range(z, cells)
    keys = np.empty(n, np.int32)
    start = np.zeros(cells * cells * cells + 1, np.int32)
    for i in range(n):
        k = (
            spread(cell(x[i], lox, sx, cells))
            | (spread(cell(y[i], loy, sy, cells)) << 1)
            | (spread(cell(z[i], loz, sz, cells)) << 2)
        )
        keys[i] = k
        start[k + 1] += np.int32(1)
    for k in range(start.shape[0] - 1):
        start[k + 1] += start[k]
    for i in range(n):
        k = keys[i]
        order[start[k]] = i
        start[k] += np.int32(1)


@compiled
def box(values, s, e):
    """Smallest and largest finite value of values[s:e]; (inf, -inf) if none is finite."""
    lo, hi = INF, -INF
    for i in range(s, e):
        v = values[i]
        if v < lo and v > -INF:
            lo = v
        if v > hi and v < INF:
            hi = v
    return lo, hi


@compiled
def boxes(x, y, z, leaf, out):
    """Bounding boxes (low x, high x, low y, …) of consecutive blocks of `leaf` points, into out [6, J]."""
    n = x.shape[0]
    for j in range((n + leaf - 1) // leaf):
        s, e = j * leaf, min(n, j * leaf + leaf)
        out[0, j], out[1, j] = box(x, s, e)
        out[2, j], out[3, j] = box(y, s, e)
        out[4, j], out[5, j] = box(z, s, e)


@compiled
def box_distances(b, lox, hix, loy, hiy, loz, hiz, out):
    """Squared distance from the box (lox … hiz) to the first boxes of `b` [6, J], into out.

    Rounding is monotone and the terms are summed in the order of the point distance, so no computed distance
    between points inside is below it. A NaN bound counts as distance 0.
    """
    zero = np.float32(0)
    b0, b1, b2, b3, b4, b5 = b[0], b[1], b[2], b[3], b[4], b[5]
    for j in range(out.shape[0]):
        u = b0[j] - hix
        v = lox - b1[j]
        dx = u if u > v else v
        dx = dx if dx > zero else zero
        u = b2[j] - hiy
        v = loy - b3[j]
        dy = u if u > v else v
        dy = dy if dy > zero else zero
        u = b4[j] - hiz
        v = loz - b5[j]
        dz = u if u > v else v
        dz = dz if dz > zero else zero
        out[j] = dx * dx + dy * dy + dz * dz


@compiled
def first_equal(bits, index, value):
    """The smallest index [n] of those whose bits equal `value`; 2^31 - 1 if none does."""
    smallest = NONE
    for i in range(bits.shape[0]):
        smallest = min(smallest, index[i] if bits[i] == value else NONE)
    return smallest
