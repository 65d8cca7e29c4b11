"""What the point kernels share: order along a curve, bounding boxes, clouds one behind the other."""

from typing import NamedTuple

import numpy as np
from torch import Tensor

from recon_fast.kernels.cpu.launch import as_float32, as_lengths, compiled, run, taken
from recon_fast.kernels.cpu.simd import QUERIES, RUN

INF = np.float32(np.inf)
NAN = np.float32(np.nan)
INF_BITS = np.int32(0x7F800000)  # bits of a non-negative float sort like the float
NONE = np.int32(0x7FFFFFFF)  # sorts after every distance and every index
LEAF = QUERIES  # points of the smallest box, which search together
FAN = 16  # leaves of a branch: their boxes fill a vector
_FINE_FROM = 1 << 15  # points from which the grid has 32 cells per axis, not 16
_CROWD = 512  # points of a cell from which sorting them again pays
_SAMPLE = 64  # coordinates from which the range of the grid is taken


def _hilbert_ranks(bits: int) -> np.ndarray:
    """Rank of each cell (x, y, z) of a grid along Hilbert's curve, int16 [2^(3 bits)].

    Skilling, "Programming the Hilbert curve" (2004). A run along it stays connected, so the boxes of runs are
    smaller than those of Morton's curve: of 8192 points in a cube 26 leaves are near one, not 39.
    """
    axes = [axis.ravel() for axis in np.indices((1 << bits,) * 3)]
    for bit in range(bits - 1, 0, -1):
        low = (1 << bit) - 1
        for i in range(3):
            is_set = axes[i] >> bit & 1 == 1
            swap = np.where(is_set, 0, (axes[0] ^ axes[i]) & low)
            axes[0] = np.where(is_set, axes[0] ^ low, axes[0] ^ swap)
            axes[i] = axes[i] ^ swap if i else axes[i]
    axes[1] = axes[1] ^ axes[0]
    axes[2] = axes[2] ^ axes[1]
    flip = np.zeros_like(axes[0])
    for bit in range(bits - 1, 0, -1):
        flip ^= np.where(axes[2] >> bit & 1 == 1, (1 << bit) - 1, 0)
    rank = np.zeros_like(flip)
    for bit in range(bits - 1, -1, -1):
        for axis in axes:
            rank = rank << 1 | (axis ^ flip) >> bit & 1
    return rank.astype(np.int16)


_COARSE, _FINE = _hilbert_ranks(4), _hilbert_ranks(5)


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
    lo, hi = sample[m // 32], sample[m - 1 - m // 32]
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
def arrange(x, y, z, cells, end, order):
    """Stable counting sort of points [n] along Hilbert's curve into `order` [n] int32.

    Cell k of the curve gets the places from end[k - 1] to end[k]; `end` [cells^3 + 1].
    """
    n = x.shape[0]
    lox, sx = grid_range(x, cells)
    loy, sy = grid_range(y, cells)
    loz, sz = grid_range(z, cells)
    keys = np.empty(n, np.int32)
    end[:] = np.int32(0)
    for i in range(n):
        k = cell(x[i], lox, sx, cells) * cells + cell(y[i], loy, sy, cells)
        k = k * cells + cell(z[i], loz, sz, cells)
        k = np.int32(_FINE[k] if cells == 32 else _COARSE[k])
        keys[i] = k
        end[k + 1] += np.int32(1)
    for k in range(end.shape[0] - 1):
        end[k + 1] += end[k]
    for i in range(n):
        k = keys[i]
        order[end[k]] = i
        end[k] += np.int32(1)


@compiled
def curve_order(x, y, z, order):
    """Indices of the points [n] along Hilbert's curve, into `order` [n]; crowded cells get a grid each."""
    n = x.shape[0]
    cells = 32 if n >= _FINE_FROM else 16
    end = np.empty(cells * cells * cells + 1, np.int32)
    arrange(x, y, z, cells, end, order)
    inner = np.empty(16 * 16 * 16 + 1, np.int32)
    s = 0
    for k in range(end.shape[0] - 1):
        e = end[k]
        if _CROWD < e - s < n:
            piece = order[s:e].copy()
            within = np.empty(e - s, np.int32)
            arrange(x[piece], y[piece], z[piece], 16, inner, within)
            for i in range(e - s):
                order[s + i] = piece[within[i]]
        s = e


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
def box_distances(b, first, last, lox, hix, loy, hiy, loz, hiz, out):
    """Squared distance of the box (lox … hiz) to the boxes first:last of `b` [6, J], from out[0] on.

    Rounding is monotone and the terms are summed in the order of the point distance, so no computed distance
    between points inside is below it. A NaN bound counts as distance 0.
    """
    zero = np.float32(0)
    b0, b1, b2 = b[0, first:last], b[1, first:last], b[2, first:last]
    b3, b4, b5 = b[3, first:last], b[4, first:last], b[5, first:last]
    for j in range(last - first):
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
def position_of_smallest(bits):
    """Of the first of the smallest."""
    smallest = NONE
    for j in range(bits.shape[0]):
        smallest = min(smallest, bits[j])
    j = 0
    while bits[j] != smallest:
        j += 1
    return j


@compiled
def first_equal(bits, index, value):
    """The smallest index [n] of those whose bits equal `value`; 2^31 - 1 if none does."""
    smallest = NONE
    for i in range(bits.shape[0]):
        smallest = min(smallest, index[i] if bits[i] == value else NONE)
    return smallest


@compiled
def sort_leaves(order):
    """Each leaf in ascending order, so that of equal distances the first met has the smallest index."""
    n = order.shape[0]
    for s in range(0, n, LEAF):
        leaf = order[s : min(n, s + LEAF)]
        for i in range(1, leaf.shape[0]):
            v, j = leaf[i], i
            while j > 0 and leaf[j - 1] > v:
                leaf[j] = leaf[j - 1]
                j -= 1
            leaf[j] = v


@compiled
def join_boxes(b, out):
    """Boxes of every FAN consecutive boxes of b [6, J], into out."""
    J = b.shape[1]
    for i in range((J + FAN - 1) // FAN):
        s, e = i * FAN, min(J, i * FAN + FAN)
        for c in range(0, 6, 2):
            out[c, i], out[c + 1, i] = b[c, s:e].min(), b[c + 1, s:e].max()


@compiled
def distance_to(q, cloud, i):
    """Squared distance of the tuple q to point i."""
    dx = q[0] - cloud[i, 0]
    dy = q[1] - cloud[i, 1]
    dz = q[2] - cloud[i, 2]
    return dx * dx + dy * dy + dz * dz


@compiled
def columns_of(cloud, x, y, z):
    for i in range(x.shape[0]):
        x[i], y[i], z[i] = cloud[i, 0], cloud[i, 1], cloud[i, 2]


@compiled
def _order(counter, items, clouds, lengths, columns, orders, leaves, branches):
    for b in taken(counter.ctypes.data, items):
        n = lengths[b]
        if n == 0:
            continue
        x, y, z = columns[b, 0, :n], columns[b, 1, :n], columns[b, 2, :n]
        order, cloud = orders[b, :n], clouds[b]
        columns_of(cloud, x, y, z)
        curve_order(x, y, z, order)
        sort_leaves(order)
        for i in range(n):
            p = order[i]
            x[i], y[i], z[i] = cloud[p, 0], cloud[p, 1], cloud[p, 2]
        J = (n + LEAF - 1) // LEAF
        boxes(x, y, z, LEAF, leaves[b, :, :J])
        join_boxes(leaves[b, :, :J], branches[b])


def put_in_order(points: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, ...]:
    """Clouds [B, N, 3] along Hilbert's curve: columns [B, 3, N], indices [B, N], and boxes.

    The boxes [B, 6, .] are of LEAF points each, and of FAN such boxes each.
    """
    B, N, _ = points.shape
    leaves = -(-N // LEAF)
    columns, order = np.empty((B, 3, N), np.float32), np.empty((B, N), np.int32)
    boxes = np.empty((B, 6, leaves), np.float32), np.empty((B, 6, -(-leaves // FAN)), np.float32)
    run(_order, B, points, lengths, columns, order, *boxes)
    return columns, order, *boxes


@compiled
def padded_columns(points):
    """Points [N, 3] as columns [3, N + RUN]: a run that begins at a point may be read whole."""
    N = points.shape[0]
    columns = np.empty((3, N + RUN), np.float32)
    columns_of(points, columns[0, :N], columns[1, :N], columns[2, :N])
    columns[:, N:] = NAN
    return columns


class Flat(NamedTuple):
    """Queries and points of B clouds."""

    queries: np.ndarray  # [M, 3] float32
    points: np.ndarray  # [N, 3] float32
    query_ends: np.ndarray  # [B] int64: where the queries of each cloud end
    starts: np.ndarray  # [B] int64: where its points start
    lengths: np.ndarray  # [B] int64: how many they are

    def columns(self) -> np.ndarray:
        """See `padded_columns`."""
        return padded_columns(self.points)


def flat_batch(queries: Tensor, points: Tensor, lengths: Tensor | None) -> Flat:
    """Of queries [B, M, 3] and points [B, N, 3], of which `lengths` [B] are valid."""
    (B, M, _), N = queries.shape, points.shape[1]
    q, p = as_float32(queries).reshape(-1, 3), as_float32(points).reshape(-1, 3)
    return Flat(q, p, np.arange(1, B + 1) * M, np.arange(B) * N, as_lengths(lengths, B, N))


def flat_packed(queries: Tensor, points: Tensor, query_lengths: list[int], point_lengths: list[int]) -> Flat:
    """Of queries [M, 3] and points [N, 3], whose clouds have these sizes."""
    q, p, sizes = as_float32(queries), as_float32(points), np.array(point_lengths, np.int64)
    return Flat(q, p, np.cumsum(query_lengths), np.cumsum(sizes) - sizes, sizes)
