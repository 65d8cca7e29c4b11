"""Farthest-point sampling in one launch.

    idx[m + 1] = argmax_n min_{j <= m} |p_n - p_idx[j]|^2        ties to the smallest n

All steps are fused: coordinates and running distances stay in registers, a step is one pass over them and
two integer reductions (largest distance, then smallest index that has it); the next center is one load that
hits L1. Nothing is written but the indices.

A cloud too large for one program is shared by several, one per multiprocessor. They agree on a step's
winner by an exchange of 64-bit keys in L2: each stores its own and reads all others until all are there. A
key carries a tag that alternates, so the data is its own flag, two sets of slots suffice, and no fence or
counter is needed.

Skipping what a bounding box rules out does not help while points stay in registers: a step lasts as long as
its slowest program, the one around the new center, which can skip nothing; and testing boxes of 512 points
costs each of 16 warps about as many instructions (25 for each of 8 boxes) as updating its points does (250).
What does not fit the registers of all multiprocessors together is streamed, and there a step would move 24
bytes for every point, 96 MB for 4M points. So these points are put in Morton order first, in tiles with
bounding boxes and their farthest point: a tile is touched only if its box is nearer than that. It is exact,
as the box's distance is rounded like the points'. Adjacent tiles belong to different programs.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from recon_fast.kernels.reference import NEAR_ORIGIN
from recon_fast.kernels.triton._common import (
    NO_CONTRACTION,
    load_points,
    num_processors,
    on_device_of,
    squared_norm,
)

# Points one program holds in registers: x, y, z and distance are 16 * 4 of 128 registers at 16 warps.
MAX_REGISTER_POINTS = 8192
# Points per program when a cloud is shared, if there are processors for it. Not measured: a step's exchange
# is a round trip to L2 whatever the tile, so larger tiles only pay once processors run out.
SHARED_POINTS = 4096
STREAM_TILE = 2048  # points under one bounding box; with 4096 the loop spills on sm_90
POINTS_PER_THREAD = 8

# Distances that are none, in the order in which their points are taken when nothing else is left: as int32
# the negative floats sort backwards, and minimum() with a real distance never changes them.
_LAST_RESORT = tl.constexpr(-3.0)
_CHOSEN = tl.constexpr(-2.0)
_OUTSIDE = tl.constexpr(-1.0)
_NEAR_ORIGIN = tl.constexpr(NEAR_ORIGIN)
_INDEX_MASK = tl.constexpr(0x7FFFFFFF)


@triton.jit
def _initial_distance(b_x, b_y, b_z, o_n, length, SKIP_NEAR_ORIGIN: tl.constexpr):
    """inf, or the rank of a point that is passed over."""
    m_usable = (tl.abs(b_x) < float("inf")) & (tl.abs(b_y) < float("inf")) & (tl.abs(b_z) < float("inf"))
    if SKIP_NEAR_ORIGIN:
        m_usable = m_usable & (squared_norm(b_x, b_y, b_z) > _NEAR_ORIGIN)
    b_dist = tl.where(m_usable, float("inf"), _LAST_RESORT)
    return tl.where(o_n < length, b_dist, _OUTSIDE)


@triton.jit
def _load_center(p_xyz, stride_n, stride_c, current):
    p_c = p_xyz + current.to(tl.int64) * stride_n
    c_x = tl.load(p_c).to(tl.float32)
    c_y = tl.load(p_c + stride_c).to(tl.float32)
    c_z = tl.load(p_c + stride_c + stride_c).to(tl.float32)
    return c_x, c_y, c_z


@triton.jit
def _step(b_x, b_y, b_z, b_dist, o_n, c_x, c_y, c_z, current):
    """Distances to the set with `current` in it, the farthest distance's bits and its smallest index."""
    b_dist = tl.where(o_n == current, _CHOSEN, b_dist)
    b_dist = tl.minimum(b_dist, squared_norm(b_x - c_x, b_y - c_y, b_z - c_z))  # keeps b_dist against a NaN
    b_bits = b_dist.to(tl.int32, bitcast=True)
    farthest = tl.max(b_bits, 0)
    return b_dist, farthest, tl.min(tl.where(b_bits == farthest, o_n, _INDEX_MASK), 0)


@triton.jit
def _load_tile(p_points, o_n, N):
    """Coordinates and indices of points in Morton order; indices behind the cloud where there are none."""
    b_x, b_y, b_z = load_points(p_points, 4, 1, o_n, o_n < N)
    b_idx = tl.load(p_points + o_n.to(tl.int64) * 4 + 3, mask=o_n < N, other=0.0).to(tl.int32, bitcast=True)
    return b_x, b_y, b_z, tl.where(o_n < N, b_idx, N)


@triton.jit
def _start_tile(b_x, b_y, b_z, b_dist, p_tile):
    """Write the box of the points that can be chosen; the first step, which touches all, writes the rest."""
    m_n = b_dist == float("inf")
    tl.store(p_tile, tl.min(tl.where(m_n, b_x, float("inf")), 0))
    tl.store(p_tile + 1, tl.min(tl.where(m_n, b_y, float("inf")), 0))
    tl.store(p_tile + 2, tl.min(tl.where(m_n, b_z, float("inf")), 0))
    tl.store(p_tile + 3, tl.max(tl.where(m_n, b_x, float("-inf")), 0))
    tl.store(p_tile + 4, tl.max(tl.where(m_n, b_y, float("-inf")), 0))
    tl.store(p_tile + 5, tl.max(tl.where(m_n, b_z, float("-inf")), 0))


@triton.jit
def _box_distance(p_tile, c_x, c_y, c_z):
    """Rounded like a point's distance, so never above that of a point in the box."""
    gap_x = tl.maximum(tl.maximum(tl.load(p_tile) - c_x, c_x - tl.load(p_tile + 3)), 0.0)
    gap_y = tl.maximum(tl.maximum(tl.load(p_tile + 1) - c_y, c_y - tl.load(p_tile + 4)), 0.0)
    gap_z = tl.maximum(tl.maximum(tl.load(p_tile + 2) - c_z, c_z - tl.load(p_tile + 5)), 0.0)
    return squared_norm(gap_x, gap_y, gap_z)


@triton.jit
def _read_slots(p_slots, programs, SLOTS: tl.constexpr, ATOMIC_READS: tl.constexpr):
    """The keys as they stand in memory; behind `programs` the smallest int64."""
    o_s = tl.arange(0, SLOTS)
    m_s = o_s < programs
    if ATOMIC_READS:
        b_key = tl.atomic_or(p_slots + o_s, tl.zeros([SLOTS], tl.int64), mask=m_s, sem="relaxed")
    else:
        b_key = tl.load(p_slots + o_s, mask=m_s, other=0, volatile=True)
    return tl.where(m_s, b_key, -(1 << 63))


@triton.jit
def _exchange(
    p_slots, i_program, farthest, winner, tag, programs, SLOTS: tl.constexpr, ATOMIC_READS: tl.constexpr
):
    """The winner among all programs of the cloud: key = distance bits | inverted index | tag."""
    key = (farthest.to(tl.int64) << 32) | ((winner ^ _INDEX_MASK).to(tl.int64) << 1) | tag
    tl.atomic_xchg(p_slots + i_program, key, sem="relaxed")
    m_unused = tl.arange(0, SLOTS) >= programs
    b_key = _read_slots(p_slots, programs, SLOTS, ATOMIC_READS)
    while tl.min((((b_key & 1) == tag) | m_unused).to(tl.int32), 0) == 0:
        b_key = _read_slots(p_slots, programs, SLOTS, ATOMIC_READS)
    return ((tl.max(b_key, 0) >> 1) & _INDEX_MASK).to(tl.int32) ^ _INDEX_MASK


@triton.jit
def _sample_cloud(
    p_xyz,  # [N, 3]
    p_idx,  # [M]
    p_slots,  # [2, programs] or None
    p_points,  # [N, 4] or None
    p_dist,  # [tiles, BLOCK] or None
    p_tiles,  # [tiles, 8] or None
    i_program,
    programs,
    N,
    length,
    num_samples,
    current,
    stride_n,
    stride_c,
    exchanges,  # done so far by this group of programs
    SHARED: tl.constexpr,
    SLOTS: tl.constexpr,
    ATOMIC_READS: tl.constexpr,
    STREAM: tl.constexpr,
    BLOCK: tl.constexpr,
    SKIP_NEAR_ORIGIN: tl.constexpr,
):
    """All samples of one cloud; returns the number of exchanges."""
    tiles = tl.cdiv(tl.cdiv(N, programs), BLOCK) if STREAM else 1
    o_block = tl.arange(0, BLOCK)
    if STREAM:
        tl.debug_barrier()  # the cloud before may still be read
        for i_tile in range(tiles):  # neighbouring tiles, which are near, belong to different programs
            o_n = (i_tile * programs + i_program) * BLOCK + o_block
            b_x, b_y, b_z, b_idx = _load_tile(p_points, o_n, N)
            b_dist = _initial_distance(b_x, b_y, b_z, b_idx, length, SKIP_NEAR_ORIGIN)
            tl.store(p_dist + i_tile * BLOCK + o_block, b_dist)
            _start_tile(b_x, b_y, b_z, b_dist, p_tiles + i_tile * 8)
    else:
        o_n = i_program * BLOCK + o_block
        b_x, b_y, b_z = load_points(p_xyz, stride_n, stride_c, o_n, o_n < N)
        b_dist = _initial_distance(b_x, b_y, b_z, o_n, length, SKIP_NEAR_ORIGIN)

    for m in range(num_samples):
        if i_program == 0:
            tl.store(p_idx + m, tl.where(m < length, current, -1).to(tl.int64))
        c_x, c_y, c_z = _load_center(p_xyz, stride_n, stride_c, current)
        if STREAM:
            farthest = current * 0 + (-(1 << 31))
            winner = current
            for i_tile in range(tiles):
                tl.debug_barrier()
                p_tile = p_tiles + i_tile * 8
                best = tl.load(p_tile + 6)
                best_idx = tl.load(p_tile + 7).to(tl.int32, bitcast=True)
                reached = (_box_distance(p_tile, c_x, c_y, c_z) < best) | (best_idx == current) | (m == 0)
                best = best.to(tl.int32, bitcast=True)
                if reached:
                    o_n = (i_tile * programs + i_program) * BLOCK + o_block
                    b_x, b_y, b_z, b_idx = _load_tile(p_points, o_n, N)
                    b_dist = tl.load(p_dist + i_tile * BLOCK + o_block)
                    b_dist, best, best_idx = _step(b_x, b_y, b_z, b_dist, b_idx, c_x, c_y, c_z, current)
                    tl.store(p_dist + i_tile * BLOCK + o_block, b_dist)
                    tl.store(p_tile + 6, best.to(tl.float32, bitcast=True))
                    tl.store(p_tile + 7, best_idx.to(tl.float32, bitcast=True))
                m_better = (best > farthest) | ((best == farthest) & (best_idx < winner))
                winner = tl.where(m_better, best_idx, winner)
                farthest = tl.maximum(best, farthest)
        else:
            b_dist, farthest, winner = _step(b_x, b_y, b_z, b_dist, o_n, c_x, c_y, c_z, current)
        if SHARED:
            # A program is at most one step ahead, so the slots of a step are free again two steps later.
            p_step = p_slots + (exchanges % 2) * programs
            tag = ((exchanges // 2 + 1) % 2).to(tl.int64)
            winner = _exchange(p_step, i_program, farthest, winner, tag, programs, SLOTS, ATOMIC_READS)
            exchanges += 1
        current = winner
    return exchanges


@triton.jit(do_not_specialize=["B", "N", "num_samples", "start_index", "programs"])
def _fps_kernel(
    xyz_ptr,  # [B, N, 3]
    lengths_ptr,  # [B] or None
    idx_ptr,  # [B, M] int64
    slots_ptr,  # [groups, 2, programs] int64, zeros; None unless SHARED
    points_ptr,  # [B, N, 4] fp32, x, y, z and the index's bits in Morton order; None unless STREAM
    dist_ptr,  # [groups, programs, tiles, BLOCK] fp32; None unless STREAM
    tiles_ptr,  # box, farthest distance and its index [groups, programs, tiles, 8] fp32; None unless STREAM
    B,
    N,
    num_samples,
    start_index,
    strides,  # of xyz
    programs,  # per cloud
    SHARED: tl.constexpr,  # more than one program per cloud
    SLOTS: tl.constexpr,  # a power of two, at least as many; see fps_config
    ATOMIC_READS: tl.constexpr,  # of slots: on AMD GPUs a volatile load may come from a cache that is stale
    STREAM: tl.constexpr,  # several tiles per program, in memory
    ONE_CLOUD: tl.constexpr,  # a program takes no second cloud
    BLOCK: tl.constexpr,
    SKIP_NEAR_ORIGIN: tl.constexpr,
):
    stride_b, stride_n, stride_c = strides
    i_program = tl.program_id(0) % programs if SHARED else 0
    i_group = tl.program_id(0) // programs if SHARED else tl.program_id(0)
    i_end = i_group + 1 if ONE_CLOUD else B  # a loop of one trip, which the compiler removes
    num_groups = 1 if ONE_CLOUD else tl.num_programs(0) // programs
    start = tl.cast(start_index, tl.int32)
    p_slots = None
    p_dist = None
    p_tiles = None
    if SHARED:
        p_slots = slots_ptr + i_group * 2 * programs
    if STREAM:
        first_tile = tl.program_id(0).to(tl.int64) * tl.cdiv(tl.cdiv(N, programs), BLOCK)
        p_dist = dist_ptr + first_tile * BLOCK
        p_tiles = tiles_ptr + first_tile * 8

    exchanges = i_group * 0
    for i_b in range(i_group, i_end, num_groups):
        p_xyz = xyz_ptr + tl.cast(i_b, tl.int64) * stride_b
        p_idx = idx_ptr + tl.cast(i_b, tl.int64) * num_samples
        p_points = None
        if STREAM:
            p_points = points_ptr + tl.cast(i_b, tl.int64) * N * 4
        length = N
        first = start
        if lengths_ptr is not None:
            length = tl.minimum(tl.load(lengths_ptr + i_b), N).to(tl.int32)
            first = tl.maximum(tl.minimum(start, length - 1), 0)
        exchanges = _sample_cloud(
            p_xyz, p_idx, p_slots, p_points, p_dist, p_tiles, i_program, programs, N, length, num_samples,
            first, stride_n, stride_c, exchanges,
            SHARED, SLOTS, ATOMIC_READS, STREAM, BLOCK, SKIP_NEAR_ORIGIN,
        )  # fmt: skip


def fps_config(B: int, N: int, processors: int, hip: bool = False) -> dict[str, int | bool]:
    """The one place that chooses how N points are held: kernel arguments and warps.

    One program per cloud up to MAX_REGISTER_POINTS; beyond, several per cloud, at most one per processor,
    that hold their points in registers if these suffice and stream them otherwise.
    """
    programs, stream, block = 1, False, max(triton.next_power_of_2(N), 32)
    if N > MAX_REGISTER_POINTS:
        block = SHARED_POINTS if B * triton.cdiv(N, SHARED_POINTS) <= processors else MAX_REGISTER_POINTS
        programs = min(triton.cdiv(N, block), processors)
        stream = programs * block < N
        block = min(block, STREAM_TILE) if stream else block
    groups = B if N <= MAX_REGISTER_POINTS else min(B, max(processors // programs, 1))
    warps = min(max(block // (32 * POINTS_PER_THREAD), 1), 16)
    slots = 1
    if programs > 1:
        # A slot is read by one thread. If several read it, one may see a key before another does, and Triton
        # takes either's. Only up to 32 slots every warp reads all, a lane each, and needs no other warp.
        slots = max(triton.next_power_of_2(programs), 32)
        if slots > 32 or hip:
            slots = max(slots, warps * (64 if hip else 32))
    return {
        "programs": programs,
        "SHARED": programs > 1,
        "SLOTS": slots,
        "ATOMIC_READS": hip,
        "STREAM": stream,
        "ONE_CLOUD": groups == B,
        "BLOCK": block,
        "num_warps": warps,
        "num_stages": 1,  # streamed distances are read back in the loop that writes them: no prefetching
    }


def _morton_order(xyz: Tensor) -> Tensor:
    """Points [B, N, 4] along a space-filling curve, in float32, the last column the bits of their index."""
    points = xyz.float()
    xyz = points.nan_to_num(0, 0, 0)  # what is not finite stands anywhere: no box holds it
    low = xyz.amin(1, keepdim=True)
    cell = ((xyz - low) / (xyz.amax(1, keepdim=True) - low)).nan_to_num(0).mul(1023).to(torch.int32)
    for shift, mask in ((16, 0x030000FF), (8, 0x0300F00F), (4, 0x030C30C3), (2, 0x09249249)):
        cell = (cell | (cell << shift)) & mask
    order = (cell[..., 0] | (cell[..., 1] << 1) | (cell[..., 2] << 2)).argsort(1)
    index = order.to(torch.int32).view(torch.float32)[..., None]
    return torch.cat([points.gather(1, order[..., None].expand(-1, -1, 3)), index], 2)


def farthest_point_sample(
    xyz: Tensor,  # [B, N, 3]
    num_samples: int,
    *,
    lengths: Tensor | None = None,  # [B]
    start_index: int = 0,
    skip_near_origin: bool = False,
) -> Tensor:  # [B, M] int64
    """See `recon_fast.kernels.farthest_point_sample`; indices are equal to the reference's."""
    B, N, _ = xyz.shape
    processors = num_processors(xyz.device)
    config = fps_config(B, N, processors, torch.version.hip is not None)
    programs = int(config["programs"])
    groups = B if config["ONE_CLOUD"] else max(processors // programs, 1)
    idx = torch.empty(B, num_samples, dtype=torch.int64, device=xyz.device)
    slots = torch.zeros(groups, 2, programs, dtype=torch.int64, device=xyz.device) if programs > 1 else None
    points = dist = tiles = None
    if config["STREAM"]:
        shape = groups * programs, triton.cdiv(triton.cdiv(N, programs), int(config["BLOCK"]))
        points = _morton_order(xyz)
        dist = torch.empty(*shape, int(config["BLOCK"]), dtype=torch.float32, device=xyz.device)
        tiles = torch.empty(*shape, 8, dtype=torch.float32, device=xyz.device)
    with on_device_of(xyz):
        _fps_kernel[(groups * programs,)](
            *(xyz, lengths, idx, slots, points, dist, tiles, B, N, num_samples, start_index, xyz.stride()),
            SKIP_NEAR_ORIGIN=skip_near_origin,
            launch_cooperative_grid=programs > 1,  # all programs resident, or an error instead of a hang
            **config,
            **NO_CONTRACTION,
        )
    return idx
