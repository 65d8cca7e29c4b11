"""Farthest-point sampling: a subset in which each point is the farthest from those before it.

Eldar et al., "The farthest point strategy for progressive image sampling" (1997); PointNet++, section 3.2.
"""

import torch
from torch import Tensor

from recon_fast.kernels import backend
from recon_fast.kernels._check import (
    check_cloud,
    check_count,
    check_lengths,
    check_same_device,
    read_lengths,
    to_3d,
)


@torch.library.custom_op("recon_fast::farthest_point_sample", mutates_args=())
def _farthest_point_sample(
    xyz: Tensor, num_samples: int, lengths: Tensor | None, start_index: int, skip_near_origin: bool
) -> Tensor:
    lengths = read_lengths("lengths", lengths, xyz.shape[1])
    if start_index > 0 and lengths is not None and lengths.device.type == "cpu":
        for cloud, length in enumerate(lengths.tolist()):
            if 0 < length <= start_index:
                got = f"got {start_index} for the {length} points of cloud {cloud}"
                raise ValueError(f"start_index must be below every length, {got}")
    run = backend.implementation("farthest_point_sample", "farthest_point_sample", xyz)
    return run(xyz, num_samples, lengths=lengths, start_index=start_index, skip_near_origin=skip_near_origin)


@_farthest_point_sample.register_fake
def _(xyz, num_samples, lengths, start_index, skip_near_origin):
    return xyz.new_empty(xyz.shape[0], num_samples, dtype=torch.int64)


def farthest_point_sample(
    xyz: Tensor,
    num_samples: int,
    *,
    lengths: Tensor | None = None,
    start_index: int = 0,
    skip_near_origin: bool = False,
) -> Tensor:
    """Indices of `num_samples` points, each the farthest from all chosen before it.

    Args:
        xyz: points [B, N, D], any D from 1 and any floating point dtype; computed in float32 (float64 for
            float64).
        num_samples: M, 1 <= M <= N.
        lengths: valid points of each cloud [B], int32 or int64, 0 to N; None means all N. Rows with fewer
            than M valid points are filled up with index -1.
        start_index: index of the first sample in every cloud that is not empty.
        skip_near_origin: pass over points with |p|^2 <= 1e-3, as pointnet2_ops and so the official ReCon do.

    Returns:
        idx [B, M], int64, not differentiable. Ties go to the smallest index. No index comes twice: duplicates
        of chosen points come after all distinct points, and points that are not finite or passed over last.

    Raises:
        TypeError: an argument that is not a tensor.
        ValueError: wrong shape, dtype or device; num_samples or start_index out of range; on a CPU lengths
            out of range or start_index not below them.
    """
    check_cloud("xyz", xyz, width=None)
    check_count("num_samples", num_samples, xyz, "points of xyz")
    check_lengths("lengths", lengths, xyz.shape[0])
    check_same_device(xyz=xyz, lengths=lengths)
    if not 0 <= start_index < xyz.shape[1]:
        raise ValueError(f"start_index must be between 0 and {xyz.shape[1] - 1}, got {start_index}")
    return _farthest_point_sample(to_3d(xyz.detach()), num_samples, lengths, start_index, skip_near_origin)
