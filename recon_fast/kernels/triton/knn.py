"""K nearest neighbours in one launch: distances, selection, sorting, gathering and centring.

    idx[q] = the k smallest of (|q - p_n|^2, n), in order

The distance matrix is never written to memory. A program holds the distances of a few queries in registers
and finds the k-th smallest by bisection on their bits (a float's bits sort like the float): the steps count
how many are below, and end as soon as the count is k; equal distances at the bound are bisected by index.
What is chosen is compacted by a prefix sum, and only k keys are sorted. Then the k points are gathered to
write exact distances, and for `group` the centred neighbourhoods.

Longer clouds are streamed in tiles past a running bound: only what is nearer than the k-th so far is
appended to a small buffer in L2, which is cut back to k when full. With few queries several programs share
a cloud, each takes a span of it, and a second launch selects among their results.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from recon_fast.kernels import reference
from recon_fast.kernels.triton._common import (
    INF_BITS,
    NO_CONTRACTION,
    NO_KEY,
    batch_and_block,
    load_points,
    num_processors,
    on_device_of,
    order_bits,
    pair_distances,
    sort_key,
    squared_norm,
    store_points,
    valid_points,
)

MAX_K = 1024  # more neighbours than this are a sort: left to the reference
MAX_TILE_POINTS = 2048  # clouds up to this are one tile of distances in registers
STREAM_TILE = 256
QUERY_TILE = 1024  # queries * points in one warp's registers
STREAM_QUERY_TILE = 512  # the same beside a buffer: with 1024 Triton 3.6 spills
WARPS_PER_PROCESSOR = 8  # enough of them to hide latency; with fewer, a cloud is split among programs

_EXCLUDED = tl.constexpr(0x7FFFFFFF)  # order bits of what can never be chosen


@triton.jit
def _bisect(b_values, b_high, b_low, m_open, b_wanted):
    """Lower b_high of the open rows while at least as many of their values as wanted do not exceed it.

    A row is closed as soon as they are as many. b_low is below all that b_high may become.
    """
    while tl.max(m_open.to(tl.int32), 0) > 0:
        b_mid = b_low + ((b_high - b_low) >> 1)
        b_count = tl.sum((b_values <= b_mid[:, None]).to(tl.int32), 1)
        b_high = tl.where(m_open & (b_count >= b_wanted), b_mid, b_high)
        b_low = tl.where(m_open & (b_count < b_wanted), b_mid, b_low)
        m_open = m_open & (b_count != b_wanted) & (b_high - b_low > 1)
    return b_high


@triton.jit
def _bound(b_bits, o_idx, k, K: tl.constexpr, COLUMNS: tl.constexpr):
    """Bits and index of the k-th smallest entry by (bits, index) of each row [Q, S], or as selective ones.

    Returns two numbers per row rather than a mask: a mask that lives across branches is packed and unpacked.
    COLUMNS, at least K, saves steps of the bisection; 0 where entries come from memory or the result is used
    within a loop, which Triton 3.6 does not compile with it.
    """
    Q: tl.constexpr = b_bits.shape[0]
    S: tl.constexpr = b_bits.shape[1]
    b_high = tl.max(b_bits, 1) * 0 + INF_BITS
    b_last = b_high * 0 + 0x7FFFFFFF
    if S >= K:
        b_column = b_bits
        if COLUMNS > 0:
            # The minima of K columns are K entries, so their largest bounds the k-th smallest from above.
            b_column = tl.min(tl.reshape(b_bits, [Q, S // COLUMNS, COLUMNS]), 1)
        b_low = tl.min(b_column, 1) - 1
        b_high = tl.minimum(tl.max(b_column, 1), INF_BITS)
        m_open = tl.sum((b_bits <= b_high[:, None]).to(tl.int32), 1) > k
        b_high = _bisect(b_bits, b_high, b_low, m_open, k)
        m_open = tl.sum((b_bits <= b_high[:, None]).to(tl.int32), 1) > k
        if tl.max(m_open.to(tl.int32), 0) > 0:
            # Too many are equal to b_high: the same bisection on their indices.
            b_tied = tl.where(b_bits == b_high[:, None], o_idx, 0x7FFFFFFF)
            b_room = k - tl.sum((b_bits < b_high[:, None]).to(tl.int32), 1)
            b_first = b_room * 0 - 1
            b_top = tl.max(tl.where(b_bits == b_high[:, None], o_idx, 0), 1)
            b_last = tl.where(m_open, b_top, b_last)
            b_last = _bisect(b_tied, b_last, b_first, m_open, b_room)
    return b_high, b_last


@triton.jit
def _choose(b_bits, o_idx, k, K: tl.constexpr, COLUMNS: tl.constexpr):
    """Mask of the k entries smallest by (bits, index) of each row, of all that are not excluded if fewer."""
    b_high, b_last = _bound(b_bits, o_idx, k, K, COLUMNS)
    b_high = b_high[:, None]
    return (b_bits < b_high) | ((b_bits == b_high) & (o_idx <= b_last[:, None]))


@triton.jit
def _places(m_keep):
    """A place in its row for every kept entry: lane by lane, so that only one scan crosses lanes."""
    Q: tl.constexpr = m_keep.shape[0]
    S: tl.constexpr = m_keep.shape[1]
    b_keep = tl.reshape(m_keep.to(tl.int32), [Q, S // 32, 32])
    b_lane = tl.sum(b_keep, 1)
    b_before = tl.cumsum(b_lane, 1) - b_lane
    return tl.reshape(b_before[:, None, :] + tl.cumsum(b_keep, 1) - 1, [Q, S])


@triton.jit
def _cut_back(p_rows, b_fill, m_q, k, K: tl.constexpr, SIZE: tl.constexpr):
    """Keep the k smallest keys of each row's buffer; returns their number and the bound for newcomers."""
    o_c = tl.arange(0, SIZE)
    tl.debug_barrier()
    m_c = m_q[:, None] & (o_c[None, :] < b_fill[:, None])
    b_key = tl.load(p_rows[:, None] + o_c[None, :], mask=m_c, other=NO_KEY)
    b_bits = (b_key >> 32).to(tl.int32)
    m_keep = _choose(b_bits, b_key.to(tl.int32), k, K, 0)
    tl.debug_barrier()
    tl.store(p_rows[:, None] + _places(m_keep), b_key, mask=m_keep)
    b_largest = tl.max(tl.where(m_keep, b_bits, -1), 1)
    b_bound = tl.where(b_fill >= k, b_largest, INF_BITS + 1)
    return tl.minimum(b_fill, k), b_bound


@triton.jit
def _finish(
    p_rows, b_fill, q_x, q_y, q_z, m_q, p_points, stride_n, stride_c,
    dist_ptr, idx_ptr, offset_ptr, o_out, k, K: tl.constexpr,
):  # fmt: skip
    """Sort the keys of each query, gather their points, write indices and, where asked for, distances and
    offsets, to the rows o_out [Q] of the outputs."""
    o_k = tl.arange(0, K)
    tl.debug_barrier()
    m_k = m_q[:, None] & (o_k[None, :] < b_fill[:, None])
    b_key = tl.load(p_rows[:, None] + o_k[None, :], mask=m_k, other=NO_KEY)
    b_key = tl.sort(b_key, 1)
    m_k = b_key != NO_KEY
    b_idx = tl.where(m_k, b_key & 0xFFFFFFFF, -1)
    p_x, p_y, p_z = load_points(p_points, stride_n, stride_c, b_idx, m_k)
    dx = p_x - q_x[:, None]
    dy = p_y - q_y[:, None]
    dz = p_z - q_z[:, None]
    o_out = o_out[:, None] * k + o_k[None, :]
    m_out = m_q[:, None] & (o_k[None, :] < k)
    tl.debug_barrier()  # the rows may be those of idx_ptr
    tl.store(idx_ptr + o_out, b_idx, mask=m_out)
    if dist_ptr is not None:
        tl.store(dist_ptr + o_out, tl.where(m_k, squared_norm(dx, dy, dz), float("inf")), mask=m_out)
    if offset_ptr is not None:
        dx, dy, dz = tl.where(m_k, dx, 0.0), tl.where(m_k, dy, 0.0), tl.where(m_k, dz, 0.0)
        store_points(offset_ptr + o_out * 3, dx, dy, dz, m_out)


@triton.jit
def _load_queries(query_ptr, query_idx_ptr, query_strides, i_b, o_q, m_q, M):
    """The queries themselves, or the points that `query_idx` [B, M] names (those < 0 are masked off)."""
    stride_b, stride_n, stride_c = query_strides
    o_n = o_q
    if query_idx_ptr is not None:
        o_n = tl.load(query_idx_ptr + i_b * M + o_q, mask=m_q, other=-1)
        m_q = m_q & (o_n >= 0)
    q_x, q_y, q_z = load_points(query_ptr + i_b * stride_b, stride_n, stride_c, o_n, m_q)
    return q_x, q_y, q_z, m_q


@triton.jit
def _tile_bits(p_points, stride_n, stride_c, o_n, last, q_x, q_y, q_z):
    """Order bits [Q, BLOCK_N] of the distances to the points `o_n`, excluded from `last` on."""
    m_n = o_n < last
    p_x, p_y, p_z = load_points(p_points, stride_n, stride_c, o_n, m_n)
    b_d2 = pair_distances(q_x, q_y, q_z, p_x, p_y, p_z)
    return tl.where(m_n[None, :], order_bits(b_d2), _EXCLUDED)


@triton.jit(do_not_specialize=["M", "N", "k", "row_size"])
def _knn_kernel(
    query_ptr,  # [B, M, 3]; the points again if query_idx is given
    query_idx_ptr,  # [B, M] int64 or None
    points_ptr,  # [B, N, 3]
    lengths_ptr,  # [B] or None
    rows_ptr,  # keys [B, SPLITS, M, row_size] int64; idx itself for one tile
    center_ptr,  # queries [B, M, 3] fp32 or None
    dist_ptr,  # [B, M, k] fp32 or None
    idx_ptr,  # [B, M, k] int64
    offset_ptr,  # [B, M, k, 3] fp32 or None
    M,
    N,
    k,
    row_size,
    query_strides,
    point_strides,
    K: tl.constexpr,  # power of two >= k
    SIZE: tl.constexpr,  # of a row's buffer; 0: one tile holds the cloud
    SPLITS: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    i_b, i_block = batch_and_block(tl.cdiv(M, BLOCK_Q))
    i_split = tl.program_id(1)
    o_q = i_block * BLOCK_Q + tl.arange(0, BLOCK_Q)
    m_in = o_q < M
    q_x, q_y, q_z, m_q = _load_queries(query_ptr, query_idx_ptr, query_strides, i_b, o_q, m_in, M)
    if center_ptr is not None and i_split == 0:
        store_points(center_ptr + (i_b * M + o_q) * 3, q_x, q_y, q_z, m_in)
    stride_b, stride_n, stride_c = point_strides
    p_points = points_ptr + i_b * stride_b
    length = valid_points(lengths_ptr, i_b, N)
    p_rows = rows_ptr + ((i_b * SPLITS + i_split) * M + o_q) * row_size

    if SIZE == 0:
        o_n = tl.arange(0, BLOCK_N)
        b_bits = _tile_bits(p_points, stride_n, stride_c, o_n, length, q_x, q_y, q_z)
        m_keep = _choose(b_bits, o_n[None, :], k, K, max(K, 32)) & m_q[:, None]
        tl.store(p_rows[:, None] + _places(m_keep), sort_key(b_bits, o_n[None, :]), mask=m_keep)
        b_fill = tl.sum(m_keep.to(tl.int32), 1)
    else:
        span = tl.cdiv(tl.cdiv(N, SPLITS), BLOCK_N) * BLOCK_N
        last = tl.minimum((i_split + 1) * span, length)
        b_fill = o_q * 0
        b_bound = b_fill + (INF_BITS + 1)
        for start in range(i_split * span, last, BLOCK_N):
            o_n = start + tl.arange(0, BLOCK_N)
            b_bits = _tile_bits(p_points, stride_n, stride_c, o_n, last, q_x, q_y, q_z)
            b_bits = tl.where((b_bits < b_bound[:, None]) & m_q[:, None], b_bits, _EXCLUDED)
            if tl.min(tl.min(b_bits, 1), 0) < _EXCLUDED:
                b_hits = tl.sum((b_bits < _EXCLUDED).to(tl.int32), 1)
                if tl.max(b_fill + b_hits, 0) > SIZE:
                    b_fill, b_bound = _cut_back(p_rows, b_fill, m_q, k, K, SIZE)
                    b_bits = tl.where(b_bits < b_bound[:, None], b_bits, _EXCLUDED)
                    b_bits = tl.where(_choose(b_bits, o_n[None, :], k, K, 0), b_bits, _EXCLUDED)
                m_hit = b_bits < _EXCLUDED
                b_key = sort_key(b_bits, o_n[None, :])
                tl.store((p_rows + b_fill)[:, None] + _places(m_hit), b_key, mask=m_hit)
                b_fill += tl.sum(m_hit.to(tl.int32), 1)
        b_fill, b_bound = _cut_back(p_rows, b_fill, m_q, k, K, SIZE)

    if SPLITS == 1:
        o_out = i_b * M + o_q
        _finish(
            p_rows, b_fill, q_x, q_y, q_z, m_in, p_points, stride_n, stride_c,
            dist_ptr, idx_ptr, offset_ptr, o_out, k, K,
        )  # fmt: skip
    else:
        o_k = tl.arange(0, K)
        m_pad = m_in[:, None] & (o_k[None, :] >= b_fill[:, None]) & (o_k[None, :] < k)
        tl.store(p_rows[:, None] + o_k[None, :], tl.full([BLOCK_Q, K], NO_KEY, tl.int64), mask=m_pad)


@triton.jit(do_not_specialize=["M", "k", "row_size"])
def _merge_kernel(
    query_ptr,
    query_idx_ptr,
    points_ptr,
    rows_ptr,
    dist_ptr,
    idx_ptr,
    offset_ptr,
    M,
    k,
    row_size,
    query_strides,
    point_strides,
    K: tl.constexpr,
    SPLITS: tl.constexpr,
):
    """Of one query, the k nearest among the k of each split; reads rows, then reuses the first."""
    i_b, i_q = batch_and_block(M)
    o_q = i_q + tl.arange(0, 1)
    m_in = o_q < M
    q_x, q_y, q_z, m_q = _load_queries(query_ptr, query_idx_ptr, query_strides, i_b, o_q, m_in, M)
    stride_b, stride_n, stride_c = point_strides
    o_e = tl.arange(0, SPLITS * K)
    o_s = o_e // K
    o_k = o_e % K
    p_rows = rows_ptr + (i_b * SPLITS * M + o_q) * row_size
    p_e = p_rows[:, None] + (o_s.to(tl.int64) * M * row_size + o_k)[None, :]
    b_key = tl.load(p_e, mask=m_q[:, None] & (o_k < k)[None, :], other=NO_KEY)
    b_bits = (b_key >> 32).to(tl.int32)
    m_keep = _choose(b_bits, b_key.to(tl.int32), k, K, 0)
    tl.debug_barrier()
    tl.store(p_rows[:, None] + _places(m_keep), b_key, mask=m_keep)
    b_fill = tl.sum(m_keep.to(tl.int32), 1)
    p_points = points_ptr + i_b * stride_b
    _finish(
        p_rows, b_fill, q_x, q_y, q_z, m_in, p_points, stride_n, stride_c,
        dist_ptr, idx_ptr, offset_ptr, i_b * M + o_q, k, K,
    )  # fmt: skip


def knn_config(B: int, M: int, N: int, k: int, processors: int) -> dict[str, int]:
    """The one place that chooses tiles, splits and warps."""
    K = max(triton.next_power_of_2(k), 16)  # two splits' keys fill a warp
    if N <= MAX_TILE_POINTS:
        block_n = max(triton.next_power_of_2(N), K, 32)
        block_q = max(1, min(4, QUERY_TILE // block_n))
        warps = max(1, block_n // QUERY_TILE)
        tile = {"SIZE": 0, "SPLITS": 1, "BLOCK_Q": block_q, "BLOCK_N": block_n}
        return {"K": K, **tile, "num_warps": warps, "num_stages": 1}
    size = max(STREAM_TILE, 2 * K)
    block_q = max(1, QUERY_TILE // size)
    programs = B * triton.cdiv(M, block_q)
    splits = 1
    while splits * programs < WARPS_PER_PROCESSOR * processors and splits * K < 4096 and splits * 8192 < N:
        splits *= 2
    return {
        "K": K,
        "SIZE": size,
        "SPLITS": splits,
        "BLOCK_Q": block_q,
        "BLOCK_N": STREAM_TILE,
        "num_warps": max(1, block_q * size // STREAM_QUERY_TILE),
        "num_stages": 1,  # the buffer is read back in the loop that writes it: no prefetching
    }


def merge_options(K: int, splits: int) -> dict[str, int]:
    """Warps that select among the keys of all splits: at most 32 keys per thread."""
    return {"num_warps": max(1, K * splits // 1024)}


def _launch(
    queries: Tensor,
    query_idx: Tensor | None,
    points: Tensor,
    k: int,
    lengths: Tensor | None,
    outputs: dict[str, Tensor],
) -> Tensor:
    """Indices [B, M, k]; the kernel writes `outputs` "dist", "center" and "offset" where they are given."""
    B, N, _ = points.shape
    M = queries.shape[1] if query_idx is None else query_idx.shape[1]
    device = points.device
    config = knn_config(B, M, N, k, num_processors(device))
    idx = torch.empty(B, M, k, dtype=torch.int64, device=device)
    rows, row_size = idx, k
    if config["SIZE"]:
        row_size = config["SIZE"]
        rows = torch.empty(B, config["SPLITS"], M, row_size, dtype=torch.int64, device=device)
    center, *results = outputs.get("center"), outputs.get("dist"), idx, outputs.get("offset")
    strides = queries.stride(), points.stride()
    with on_device_of(points):
        grid = (B * triton.cdiv(M, config["BLOCK_Q"]), config["SPLITS"])
        _knn_kernel[grid](
            queries, query_idx, points, lengths, rows, center, *results, M, N, k, row_size, *strides,
            **config, **NO_CONTRACTION,
        )  # fmt: skip
        if config["SPLITS"] > 1:
            _merge_kernel[(B * M,)](
                queries, query_idx, points, rows, *results, M, k, row_size, *strides,
                K=config["K"], SPLITS=config["SPLITS"],
                **merge_options(config["K"], config["SPLITS"]), **NO_CONTRACTION,
            )  # fmt: skip
    return idx


def knn(
    queries: Tensor,  # [B, M, 3]
    points: Tensor,  # [B, N, 3]
    k: int,
    *,
    lengths: Tensor | None = None,  # [B]
) -> tuple[Tensor, Tensor]:  # [B, M, k] fp32, [B, M, k] int64
    """See `recon_fast.kernels.knn`; indices are equal to the reference's, distances to the last bit."""
    if k > MAX_K:
        return reference.knn(queries, points, k, lengths=lengths)
    dist = torch.empty(*queries.shape[:2], k, dtype=torch.float32, device=points.device)
    return dist, _launch(queries, None, points, k, lengths, {"dist": dist})


def group(
    xyz: Tensor,  # [B, N, 3]
    center_idx: Tensor,  # [B, G] int64; -1 marks a center that is not there
    k: int,
    lengths: Tensor | None = None,  # [B]
) -> tuple[Tensor, Tensor, Tensor]:  # [B, G, 3] fp32, [B, G, k, 3] fp32, [B, G, k] int64
    """The points `center_idx`, their neighbourhoods relative to them, and the neighbours' indices.

    What is not there has index -1 and coordinates 0, as in `reference.sample_and_group`.
    """
    B, G = center_idx.shape
    if k > MAX_K:
        return reference.group_around(xyz, center_idx, k, lengths)
    centers = torch.empty(B, G, 3, dtype=torch.float32, device=xyz.device)
    offset = torch.empty(B, G, k, 3, dtype=torch.float32, device=xyz.device)
    outputs = {"center": centers, "offset": offset}
    return centers, offset, _launch(xyz, center_idx.contiguous(), xyz, k, lengths, outputs)
