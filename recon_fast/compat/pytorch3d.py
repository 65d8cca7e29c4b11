"""`pytorch3d.ops` and `pytorch3d.loss`: farthest points, neighbours, ball queries, the Chamfer distance.

Points are [N, P, D], lengths [N] between 0 and P. As in the original, what is behind a length counts as 0.
"""

from collections import namedtuple
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from recon_fast import kernels
from recon_fast.compat import common
from recon_fast.kernels._check import check_lengths, check_tensor, read_lengths
from recon_fast.kernels.backend import in_transform
from recon_fast.kernels.reference import of_pairs, zero_padding

KNN = namedtuple("KNN", "dists idx knn")


def _check_cloud(name: str, points: Tensor, lengths: Tensor | None) -> None:
    """Raise unless `points` is [N, P, D] and the lengths are [N], on a CPU between 0 and P."""
    check_tensor(name, points)
    if points.ndim != 3:
        raise ValueError(f"{name} must be [N, P, D], got {tuple(points.shape)}")
    check_lengths(f"the lengths of {name}", lengths, points.shape[0])
    if points.shape[0] > 0 and not (torch.compiler.is_compiling() or in_transform()):
        read_lengths(f"the lengths of {name}", lengths, points.shape[1])


def _check_clouds(p1: Tensor, p2: Tensor, lengths1: Tensor | None, lengths2: Tensor | None) -> None:
    _check_cloud("p1", p1, lengths1)
    _check_cloud("p2", p2, lengths2)
    got = f"got p1 {tuple(p1.shape)} and p2 {tuple(p2.shape)}"
    if p1.shape[0] != p2.shape[0]:
        raise ValueError(f"pts1 and pts2 must have the same batch dimension, {got}")
    if p1.shape[2] != p2.shape[2]:
        raise ValueError(f"pts1 and pts2 must have the same point dimension, {got}")


def knn_points(
    p1: Tensor, p2: Tensor, lengths1: Tensor | None = None, lengths2: Tensor | None = None, norm: int = 2,
    K: int = 1, version: int = -1, return_nn: bool = False, return_sorted: bool = True,
) -> KNN:  # fmt: skip
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
    dist, idx = common.knn(p1, p2, K, lengths2, norm)
    idx = common.hide(idx, lengths1, -1)
    near = common.rows_at(p2, idx) if return_nn else None
    return KNN(dist.masked_fill(idx < 0, 0), idx.clamp_min(0), near)


def knn_gather(x: Tensor, idx: Tensor, lengths: Tensor | None = None) -> Tensor:
    """x [N, M, U] at idx [N, L, K] as [N, L, K, U]; 0 for neighbours k >= lengths and for index -1."""
    _check_cloud("x", x, None)
    check_tensor("idx", idx)
    if idx.ndim != 3 or x.shape[0] != idx.shape[0]:
        raise ValueError(
            f"x and idx must have the same batch dimension, got x {tuple(x.shape)} and idx {tuple(idx.shape)}"
        )
    check_lengths("lengths", lengths, x.shape[0])
    return common.rows_at(x, common.hide(idx.mT, lengths, -1).mT)


def ball_query(
    p1: Tensor, p2: Tensor, lengths1: Tensor | None = None, lengths2: Tensor | None = None, K: int = 500,
    radius: float = 0.2, return_nn: bool = True, skip_points_outside_cube: bool = False,
) -> KNN:  # fmt: skip
    """The first K points of p2 [N, P2, D] nearer to each of p1 [N, P1, D] than radius.

    Returns squared distances, 0 behind the last, int64 indices, -1 there, and the points, 0 there. In an
    empty cloud nothing is found.
    skip_points_outside_cube has no effect: it changes the original's speed, not its results.
    """
    _check_clouds(p1, p2, lengths1, lengths2)
    p1, p2 = zero_padding(p1, lengths1), zero_padding(p2, lengths2)
    if 0 in (*p1.shape[:2], p2.shape[1]):
        dist, idx = common.knn(p1, p2, K)
    else:
        dist, idx = kernels.ball_query(p1, p2, radius, K, lengths=lengths2)
    idx = common.hide(idx, lengths1, -1)
    near = common.rows_at(p2, idx) if return_nn else None
    return KNN(dist.masked_fill(idx < 0, 0), idx, near)


def sample_farthest_points(
    points: Tensor,
    lengths: Tensor | None = None,
    K: int | list[int] | Tensor = 50,
    random_start_point: bool = False,
) -> tuple[Tensor, Tensor]:
    """Farthest points of [N, P, D]: as [N, max K, D], 0 behind the last, and int64 indices, -1.

    An empty cloud has none.
    """
    check_tensor("points", points)
    if lengths is not None and lengths.shape != points.shape[:1]:
        got = f"got {tuple(points.shape)} and {tuple(lengths.shape)}"
        raise ValueError(f"points and lengths must have same batch dimension, {got}")
    _check_cloud("points", points, lengths)
    N, P, D = points.shape
    counts = None if isinstance(K, int) else torch.as_tensor(K, dtype=torch.int64).to(points.device)
    if counts is not None and counts.shape[0] != N:
        raise ValueError(f"K and points must have the same batch dimension, got {counts.shape[0]} and {N}")
    most = K if isinstance(K, int) else max(K) if isinstance(K, list) else int(K.max())
    if most < 1:
        raise ValueError(f"K must be 1 or more, got {most}")
    if 0 in (N, P):
        return points.new_zeros(N, most, D), torch.full((N, most), -1, device=points.device)
    xyz = points.detach()
    start = turned = None
    if random_start_point:
        size = torch.full((N,), P, device=points.device) if lengths is None else lengths
        start = (torch.rand(N, device=points.device) * size).long()[:, None]
        turned = (torch.arange(P, device=points.device) + start) % size.clamp_min(1)[:, None]
        xyz = common.rows_at(xyz, turned)
    idx = kernels.farthest_point_sample(xyz, min(most, P), lengths=lengths)
    if turned is not None:
        idx = torch.where(idx < 0, idx, turned.gather(1, idx.clamp_min(0)))
    idx = F.pad(idx, (0, most - idx.shape[1]), value=-1)
    if counts is not None:
        idx = idx.masked_fill(torch.arange(most, device=idx.device) >= counts[:, None], -1)
    return common.rows_at(points, idx), idx


class _Side(NamedTuple):
    """One cloud of a Chamfer distance."""

    points: Tensor  # [N, P, D]
    lengths: Tensor | None  # [N]
    normals: Any  # [N, P, 3], or None


def _side(name: str, points: Any, lengths: Tensor | None, normals: Tensor | None) -> _Side:
    """Of tensors, or of an object like pytorch3d's Pointclouds."""
    if hasattr(points, "points_padded"):
        return _Side(points.points_padded(), points.num_points_per_cloud(), points.normals_padded())
    _check_cloud(name, points, lengths)
    if normals is not None and (normals.ndim != 3 or normals.shape[:2] != points.shape[:2]):
        want = f"{name}_normals must be [{points.shape[0]}, {points.shape[1]}, 3] like {name}"
        raise ValueError(f"{want}, got {tuple(normals.shape)}")
    return _Side(points, lengths, normals)


def _of_points(
    values: Tensor,  # [N, P]
    lengths: Tensor | None,  # [N]
    weights: Tensor | None,  # [N]
    point_reduction: str | None,
) -> Tensor:  # [N], or [N, P] without a reduction
    count = max(values.shape[1], 1) if lengths is None else lengths.clamp_min(1)
    values = common.hide(values, lengths, 0)
    if weights is not None:
        values = values * weights[:, None]
    if point_reduction is None:
        return values
    if point_reduction == "max":
        return values.amax(1) if values.shape[1] > 0 else values.sum(1)
    return values.sum(1) / count if point_reduction == "mean" else values.sum(1)


def _joined(
    ways: list[Tensor], weights: Tensor | None, batch_reduction: str | None, point_reduction: str | None
) -> Any:
    """Both ways together, and reduced over the examples; a mean over weights of 0, or over none, is 0."""
    if point_reduction is None:
        return tuple(ways) if len(ways) > 1 else ways[0]
    total = ways[0]
    if len(ways) > 1:
        total = torch.maximum(*ways) if point_reduction == "max" else ways[0] + ways[1]
    if batch_reduction is None:
        return total
    if batch_reduction == "sum":
        return total.sum()
    if weights is None:
        return total.sum() / max(len(total), 1)
    share = weights.sum()
    return total.sum() / torch.where(share == 0, 1, share)


def _nothing(points: Tensor) -> Tensor:
    """Zeros [N, P] whose gradients in the points [N, P, D] are 0."""
    sums = points.sum(2)
    return sums.masked_fill(torch.ones_like(sums, dtype=torch.bool), 0)


def chamfer_distance(
    x: Any, y: Any, x_lengths: Tensor | None = None, y_lengths: Tensor | None = None,
    x_normals: Tensor | None = None, y_normals: Tensor | None = None, weights: Tensor | None = None,
    batch_reduction: str | None = "mean", point_reduction: str | None = "mean", norm: int = 2,
    single_directional: bool = False, abs_cosine: bool = True,
) -> tuple[Any, Any]:  # fmt: skip
    """Chamfer distance of x [N, P1, D] and y [N, P2, D], and that of their normals (None without them).

    Squared distances for norm=2, sums of absolute differences for norm=1; both ways added, or the larger of
    both with point_reduction="max". Without point_reduction, a tuple of both ways unreduced. An example of
    which one cloud is empty counts 0. Lengths [N] lie between 0 and P1 or P2.

    Raises:
        TypeError: a cloud or lengths that are no tensor.
        ValueError: wrong shapes; unknown norm or reductions; negative weights; lengths, on a CPU, out of
            range.
    """
    if batch_reduction not in ("mean", "sum", None):
        raise ValueError(f'batch_reduction must be one of ["mean", "sum"] or None, got {batch_reduction!r}')
    if point_reduction not in ("mean", "sum", "max", None):
        want = 'point_reduction must be one of ["mean", "sum", "max"] or None'
        raise ValueError(f"{want}, got {point_reduction!r}")
    if point_reduction is None and batch_reduction is not None:
        raise ValueError(f"Batch reduction must be None if point_reduction is None, got {batch_reduction!r}")
    if norm not in (1, 2):
        raise ValueError(f"norm must be 1 or 2, got {norm}")
    a, b = _side("x", x, x_lengths, x_normals), _side("y", y, y_lengths, y_normals)
    if b.points.shape[0] != a.points.shape[0] or b.points.shape[2] != a.points.shape[2]:
        shapes = f"got {tuple(b.points.shape)} for x {tuple(a.points.shape)}"
        raise ValueError(f"y does not have the correct shape, [N, P2, D] with the N and D of x: {shapes}")
    with_normals = a.normals is not None and b.normals is not None
    if with_normals and point_reduction == "max":
        raise ValueError("normals cannot be reduced with point_reduction='max'")
    some = 0 not in (*a.points.shape[:2], b.points.shape[1])
    if weights is not None:
        if weights.shape != a.points.shape[:1]:
            raise ValueError(f"weights must be of shape ({len(a.points)},), got {tuple(weights.shape)}")
        if not torch.compiler.is_compiling():
            if not (weights >= 0).all():
                raise ValueError("weights cannot be negative")
            some = some and bool(weights.any())
    sides = [(a, b)] if single_directional else [(a, b), (b, a)]
    if not some:
        distances = cosines = [_nothing(own.points) for own, _ in sides]
    else:
        if norm == 2 and not single_directional:
            forth, forth_idx, back, back_idx = kernels.mutual_nearest(
                a.points, b.points, src_lengths=a.lengths, dst_lengths=b.lengths
            )
            near = [(forth, forth_idx), (back, back_idx)]
        else:
            near = [
                common.nearest(own.points, other.points, own.lengths, other.lengths, norm)
                for own, other in sides
            ]
        distances = cosines = [dist for dist, _ in near]
        if with_normals:
            cosines = [
                F.cosine_similarity(own.normals, common.rows_at(other.normals, idx), dim=2, eps=1e-6)
                for (own, other), (_, idx) in zip(sides, near, strict=True)
            ]
            cosines = [1 - (cosine.abs() if abs_cosine else cosine) for cosine in cosines]
    results = []
    for ways in (distances, cosines) if with_normals else (distances,):
        reduced = [
            _of_points(
                values, of_pairs(own.lengths, values.shape[1], other.lengths), weights, point_reduction
            )
            for values, (own, other) in zip(ways, sides, strict=True)
        ]
        results.append(_joined(reduced, weights, batch_reduction, point_reduction))
    return results[0], results[1] if with_normals else None
