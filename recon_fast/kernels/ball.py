"""The first points of a cloud within a radius of each query (PointNet++, section 3.2)."""

from typing import Literal

import torch
from torch import Tensor

from recon_fast.kernels import backend
from recon_fast.kernels._check import check_cloud, check_lengths, check_same_device, read_lengths
from recon_fast.kernels.nearest import differentiable, empty_search, register_search

PADDINGS = ("none", "first")


@torch.library.custom_op("recon_fast::ball_query", mutates_args=())
def _ball_query(
    queries: Tensor, points: Tensor, radius: float, k: int, lengths: Tensor | None, padding: str
) -> tuple[Tensor, Tensor]:
    lengths = read_lengths("lengths", lengths, points.shape[1])
    run = backend.implementation("ball_query", "ball_query", queries)
    return run(queries, points, radius, k, lengths=lengths, padding=padding)


@_ball_query.register_fake
def _(queries, points, radius, k, lengths, padding):
    return empty_search(queries, k)


register_search(_ball_query)


def ball_query(
    queries: Tensor,
    points: Tensor,
    radius: float,
    k: int,
    *,
    lengths: Tensor | None = None,
    padding: Literal["none", "first"] = "none",
) -> tuple[Tensor, Tensor]:
    """Of the points nearer to each query than `radius`, the `k` with the smallest indices.

    Args:
        queries: [B, M, D], any D from 1 and any floating point dtype; distances are computed from differences
            in float32 (float64 for float64 queries).
        points: [B, N, D].
        radius: a point counts where its squared distance is below the radius squared, which is rounded to the
            dtype of the distances. 0 and more.
        k: number of neighbours, 1 and more; may exceed N.
        lengths: valid points of each cloud of `points` [B], int32 or int64, 0 to N; None means all N.
        padding: what stands behind the neighbours where fewer than k are inside. "none": index -1 and
            distance inf. "first": the first neighbour again and, where nothing is inside, point 0 with its
            distance (a cloud of length 0 has index -1 and distance inf).

    Returns:
        squared_distances [B, M, k], float32 or float64, differentiable in both inputs, and idx [B, M, k],
        int64, ascending. A point at a NaN or infinite distance is never inside.

    Raises:
        TypeError: an argument that is not a tensor.
        ValueError: wrong shape, dtype or device; lengths, on a CPU, radius, k or padding out of range.
    """
    check_cloud("queries", queries, width=None)
    check_cloud("points", points, "queries", queries)
    check_lengths("lengths", lengths, points.shape[0])
    check_same_device(queries=queries, points=points, lengths=lengths)
    if not radius >= 0:  # nor NaN
        raise ValueError(f"radius must be 0 or more, got {radius}")
    if k < 1:
        raise ValueError(f"k must be 1 or more, got {k}")
    if padding not in PADDINGS:
        raise ValueError(f"padding must be one of {PADDINGS}, got {padding!r}")
    return differentiable(_ball_query, queries, points, float(radius), k, lengths, padding)
