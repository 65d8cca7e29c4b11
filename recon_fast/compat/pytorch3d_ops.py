"""`pytorch3d.ops`: farthest points, nearest neighbours, ball queries."""

from collections import namedtuple

import torch
import torch.nn.functional as F
from torch import Tensor

from recon_fast import kernels
from recon_fast.compat import any_dim
from recon_fast.kernels._check import check_lengths, check_tensor, read_lengths
from recon_fast.kernels.reference import zero_padding
from recon_fast.kernels.transforms import in_transform

__all__ = ["ball_query", "knn_gather", "knn_points", "sample_farthest_points"]

KNN = namedtuple("KNN", "dists idx knn")


def check_cloud(name: str, points: Tensor, lengths: Tensor | None) -> None:
    """Raise unless `points` is [N, P, D] and the lengths are [N], on a CPU between 0 and P."""
    check_tensor(name, points)
    if points.ndim != 3:
        raise ValueError(f"{name} must be [N, P, D], got {tuple(points.shape)}")
    check_lengths(f"the lengths of {name}", lengths, points.shape[0])
    if points.shape[0] > 0 and not (torch.compiler.is_compiling() or in_transform()):
        read_lengths(f"the lengths of {name}", lengths, points.shape[1])


def _check_clouds(p1: Tensor, p2: Tensor, lengths1: Tensor | None, lengths2: Tensor | None) -> None:
    check_cloud("p1", p1, lengths1)
    check_cloud("p2", p2, lengths2)
    got = f"got p1 {tuple(p1.shape)} and p2 {tuple(p2.shape)}"
    if p1.shape[0] != p2.shape[0]:
        raise ValueError(f"pts1 and pts2 must have the same batch dimension, {got}")
    if p1.shape[2] != p2.shape[2]:
        raise ValueError(f"pts1 and pts2 must have the same point dimension, {got}")


def _hide_rows(idx: Tensor, lengths: Tensor | None) -> Tensor:
    """idx [N, P1, K] with -1 in the rows behind the lengths of p1."""
    if lengths is None:
        return idx
    return idx.masked_fill((torch.arange(idx.shape[1], device=idx.device) >= lengths[:, None])[..., None], -1)


def knn_points(
    p1: Tensor,
    p2: Tensor,
    lengths1: Tensor | None = None,
    lengths2: Tensor | None = None,
    norm: int = 2,
    K: int = 1,
    version: int = -1,
    return_nn: bool = False,
    return_sorted: bool = True,
) -> KNN:
    """The K nearest points of p2 [N, P2, D] for each of p1 [N, P1, D], always sorted; version has no effect.

    Returns squared distances (sums of absolute differences for norm=1), int64 indices and, with return_nn,
    the points. Where a cloud has fewer than K or P1 points, or none, all three are 0.
    """
    _check_clouds(p1, p2, lengths1, lengths2)
    if norm not in (1, 2):
        raise ValueError(f"norm must be 1 or 2, got {norm}")
    if K < 1:
        raise ValueError(f"K must be 1 or more, got {K}")
    p1, p2 = zero_padding(p1, lengths1), zero_padding(p2, lengths2)
    dist, idx = any_dim.knn(p1, p2, K, lengths2, norm)
    idx = _hide_rows(idx, lengths1)
    near = any_dim.rows_at(p2, idx) if return_nn else None
    return KNN(dist.masked_fill(idx < 0, 0), idx.clamp_min(0), near)


def knn_gather(x: Tensor, idx: Tensor, lengths: Tensor | None = None) -> Tensor:
    """x [N, M, U] at idx [N, L, K] as [N, L, K, U]; 0 for neighbours k >= lengths and for index -1."""
    check_cloud("x", x, None)
    check_tensor("idx", idx)
    if idx.ndim != 3 or x.shape[0] != idx.shape[0]:
        raise ValueError(
            f"x and idx must have the same batch dimension, got x {tuple(x.shape)} and idx {tuple(idx.shape)}"
        )
    check_lengths("lengths", lengths, x.shape[0])
    if lengths is not None:
        idx = idx.masked_fill(torch.arange(idx.shape[2], device=idx.device) >= lengths[:, None, None], -1)
    return any_dim.rows_at(x, idx)


def ball_query(
    p1: Tensor,
    p2: Tensor,
    lengths1: Tensor | None = None,
    lengths2: Tensor | None = None,
    K: int = 500,
    radius: float = 0.2,
    return_nn: bool = True,
    skip_points_outside_cube: bool = False,
) -> KNN:
    """The first K points of p2 [N, P2, D] nearer to each of p1 [N, P1, D] than radius, D up to 3.

    Returns squared distances, 0 behind the last, int64 indices, -1 there, and the points, 0 there. In an
    empty cloud nothing is found.
    skip_points_outside_cube has no effect: it changes the original's speed, not its results.
    """
    _check_clouds(p1, p2, lengths1, lengths2)
    if p1.shape[2] > 3:
        raise ValueError(f"points must have up to 3 dimensions, got {p1.shape[2]}")
    p1, p2 = zero_padding(p1, lengths1), zero_padding(p2, lengths2)
    if 0 in (*p1.shape[:2], p2.shape[1]):
        dist, idx = any_dim.knn(p1, p2, K)
    else:
        dist, idx = kernels.ball_query(any_dim.to_3d(p1), any_dim.to_3d(p2), radius, K, lengths=lengths2)
    idx = _hide_rows(idx, lengths1)
    near = any_dim.rows_at(p2, idx) if return_nn else None
    return KNN(dist.masked_fill(idx < 0, 0), idx, near)


def sample_farthest_points(
    points: Tensor,
    lengths: Tensor | None = None,
    K: int | list[int] | Tensor = 50,
    random_start_point: bool = False,
) -> tuple[Tensor, Tensor]:
    """Farthest points of [N, P, D], D up to 3: as [N, max K, D], 0 behind the last, and int64 indices, -1.

    An empty cloud has none.
    """
    check_tensor("points", points)
    if lengths is not None and lengths.shape != points.shape[:1]:
        got = f"got {tuple(points.shape)} and {tuple(lengths.shape)}"
        raise ValueError(f"points and lengths must have same batch dimension, {got}")
    check_cloud("points", points, lengths)
    N, P, D = points.shape
    if D > 3:
        raise ValueError(f"points must have up to 3 dimensions, got {D}")
    counts = None if isinstance(K, int) else torch.as_tensor(K, dtype=torch.int64).to(points.device)
    if counts is not None and counts.shape[0] != N:
        raise ValueError(f"K and points must have the same batch dimension, got {counts.shape[0]} and {N}")
    most = K if isinstance(K, int) else max(K) if isinstance(K, list) else int(K.max())
    if most < 1:
        raise ValueError(f"K must be 1 or more, got {most}")
    if 0 in (N, P):
        return points.new_zeros(N, most, D), torch.full((N, most), -1, device=points.device)
    xyz = any_dim.to_3d(points.detach())
    start = turned = None
    if random_start_point:
        size = torch.full((N,), P, device=points.device) if lengths is None else lengths
        start = (torch.rand(N, device=points.device) * size).long()[:, None]
        turned = (torch.arange(P, device=points.device) + start) % size.clamp_min(1)[:, None]
        xyz = any_dim.rows_at(xyz, turned)
    idx = kernels.farthest_point_sample(xyz, min(most, P), lengths=lengths)
    if turned is not None:
        idx = torch.where(idx < 0, idx, turned.gather(1, idx.clamp_min(0)))
    idx = F.pad(idx, (0, most - idx.shape[1]), value=-1)
    if counts is not None:
        idx = idx.masked_fill(torch.arange(most, device=idx.device) >= counts[:, None], -1)
    return any_dim.rows_at(points, idx), idx
