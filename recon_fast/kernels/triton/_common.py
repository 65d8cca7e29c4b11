"""What the kernels share: loading points, the distance and its order, launching on a tensor's device."""

from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

# Contracting dx*dx + dy*dy to an FMA rounds once instead of twice: another distance, so another index, than
# the reference on near ties. Triton's default changed between versions, so every geometry kernel states it.
NO_CONTRACTION = {"enable_fp_fusion": False}

INF_BITS = tl.constexpr(0x7F800000)
NO_KEY = tl.constexpr(0x7FFFFFFFFFFFFFFF)  # sorts after every key


@triton.jit
def batch_and_block(blocks):
    """Which item of the batch a program takes, int64, and which of its `blocks` blocks.

    Both lie on the first axis of the grid: the others end at 65535.
    """
    return (tl.program_id(0) // blocks).to(tl.int64), tl.program_id(0) % blocks


@triton.jit
def load_points(p_xyz, stride_n, stride_c, o_n, m_n):
    """Coordinates of the points `o_n` in float32, 0 where masked."""
    p_n = p_xyz + o_n.to(tl.int64) * stride_n
    b_x = tl.load(p_n, mask=m_n, other=0.0).to(tl.float32)
    b_y = tl.load(p_n + stride_c, mask=m_n, other=0.0).to(tl.float32)
    b_z = tl.load(p_n + stride_c + stride_c, mask=m_n, other=0.0).to(tl.float32)
    return b_x, b_y, b_z


@triton.jit
def store_points(p_xyz, b_x, b_y, b_z, m):
    """Write coordinates to x, y, z that stand one behind the other from p_xyz on."""
    tl.store(p_xyz, b_x, mask=m)
    tl.store(p_xyz + 1, b_y, mask=m)
    tl.store(p_xyz + 2, b_z, mask=m)


@triton.jit
def valid_points(lengths_ptr, i_b, N):
    """How many of the N points of cloud i_b are valid: all of them without lengths."""
    size = N
    if lengths_ptr is not None:
        size = tl.minimum(tl.load(lengths_ptr + i_b), N).to(tl.int32)
    return size


@triton.jit
def squared_norm(dx, dy, dz):
    """dx*dx + dy*dy + dz*dz from left to right, every operation rounded, as the reference does."""
    return dx * dx + dy * dy + dz * dz


@triton.jit
def pair_distances(q_x, q_y, q_z, p_x, p_y, p_z):
    """Squared distances [Q, N] between queries [Q] and points [N]."""
    return squared_norm(q_x[:, None] - p_x[None, :], q_y[:, None] - p_y[None, :], q_z[:, None] - p_z[None, :])


@triton.jit
def order_bits(d2):
    """An int32 that sorts like the squared distance, NaN as inf. Integer minima are one instruction."""
    return tl.minimum(d2, float("inf")).to(tl.int32, bitcast=True)


@triton.jit
def sort_key(b_bits, o_n):
    """int64 that sorts by (distance, index)."""
    return (b_bits.to(tl.int64) << 32) | o_n.to(tl.int64)


@triton.jit
def distance_slope(d2, count, ROOT: tl.constexpr):
    """Twice the derivative in d2 of f(d2) / count for f(x) = x, or sqrt(x) / 2 with ROOT; finite at 0."""
    b_slope = 2.0 / count
    if ROOT:
        # At 0 it meets a difference of 0; of a NaN distance only the coordinates that are NaN show it.
        b_slope = tl.where(d2 > 0, 0.5 / (tl.sqrt_rn(d2) * count), 1.0 / count)
    return b_slope


def on_device_of(tensor: Tensor) -> AbstractContextManager[object]:
    """Triton launches on the current device: make it the tensor's."""
    if not tensor.is_cuda or tensor.get_device() == torch.cuda.current_device():
        return nullcontext()
    return torch.cuda.device(tensor.device)


@lru_cache
def num_processors(device: torch.device) -> int:
    """Multiprocessors of the device; 1 on the CPU, where the interpreter runs one program after the other."""
    if device.type != "cuda":
        return 1
    return torch.cuda.get_device_properties(device).multi_processor_count
