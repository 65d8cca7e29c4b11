"""`pytorch3d.loss`: the Chamfer distance with lengths, weights, normals and reductions."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from recon_fast import kernels
from recon_fast.compat import any_dim
from recon_fast.compat.pytorch3d_ops import check_cloud
from recon_fast.kernels.reference import of_pairs

__all__ = ["chamfer_distance"]


def _check_reductions(batch_reduction: str | None, point_reduction: str | None) -> None:
    if batch_reduction not in ("mean", "sum", None):
        raise ValueError(f'batch_reduction must be one of ["mean", "sum"] or None, got {batch_reduction!r}')
    if point_reduction not in ("mean", "sum", "max", None):
        raise ValueError(
            f'point_reduction must be one of ["mean", "sum", "max"] or None, got {point_reduction!r}'
        )
    if point_reduction is None and batch_reduction is not None:
        raise ValueError(f"Batch reduction must be None if point_reduction is None, got {batch_reduction!r}")


def _cloud(
    name: str, points: Any, lengths: Tensor | None, normals: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Points [N, P, D], lengths and normals, of tensors or of an object like pytorch3d's Pointclouds."""
    if hasattr(points, "points_padded"):
        return points.points_padded(), points.num_points_per_cloud(), points.normals_padded()
    check_cloud(name, points, lengths)
    if normals is not None and (normals.ndim != 3 or normals.shape[:2] != points.shape[:2]):
        want = f"{name}_normals must be [{points.shape[0]}, {points.shape[1]}, 3] like {name}"
        raise ValueError(f"{want}, got {tuple(normals.shape)}")
    return points, lengths, normals


def _of_points(
    values: Tensor,  # [N, P]
    lengths: Tensor | None,  # [N]
    weights: Tensor | None,  # [N]
    point_reduction: str | None,
) -> Tensor:  # [N], or [N, P] without a reduction
    count: Tensor | int = max(values.shape[1], 1)
    if lengths is not None:
        behind = torch.arange(values.shape[1], device=values.device) >= lengths[:, None]
        values, count = values.masked_fill(behind, 0), lengths.clamp_min(1)
    if weights is not None:
        values = values * weights[:, None]
    if point_reduction is None:
        return values
    if point_reduction == "max":
        return values.amax(1) if values.shape[1] > 0 else values.sum(1)
    return values.sum(1) / count if point_reduction == "mean" else values.sum(1)


def _of_batch(values: Tensor, weights: Tensor | None, batch_reduction: str | None) -> Tensor:
    """The values [N] of all examples, reduced; a mean over weights of 0, or over no example, is 0."""
    if batch_reduction is None:
        return values
    if batch_reduction == "sum":
        return values.sum()
    if weights is None:
        return values.sum() / max(len(values), 1)
    share = weights.sum()
    return values.sum() / torch.where(share == 0, 1, share)


def _nothing(points: Tensor) -> Tensor:
    """Zeros [N, P] whose gradients in the points [N, P, D] are 0."""
    sums = points.sum(2)
    return sums.masked_fill(torch.ones_like(sums, dtype=torch.bool), 0)


def _cosine(normals: Tensor, others: Tensor, idx: Tensor, abs_cosine: bool) -> Tensor:
    """1 - cosine of the normals [N, P, 3] and those of the nearest points [N, P]."""
    cosine = F.cosine_similarity(normals, any_dim.rows_at(others, idx), dim=2, eps=1e-6)
    return 1 - (cosine.abs() if abs_cosine else cosine)


def chamfer_distance(
    x: Any,
    y: Any,
    x_lengths: Tensor | None = None,
    y_lengths: Tensor | None = None,
    x_normals: Tensor | None = None,
    y_normals: Tensor | None = None,
    weights: Tensor | None = None,
    batch_reduction: str | None = "mean",
    point_reduction: str | None = "mean",
    norm: int = 2,
    single_directional: bool = False,
    abs_cosine: bool = True,
) -> tuple[Any, Any]:
    """Chamfer distance of x [N, P1, D] and y [N, P2, D], and that of their normals (None without them).

    Squared distances for norm=2, sums of absolute differences for norm=1; both ways added, or the larger of
    both with point_reduction="max". Without point_reduction, a tuple of both ways unreduced. An example of
    which one cloud is empty counts 0. Lengths [N] lie between 0 and P1 or P2.

    Raises:
        TypeError: a cloud or lengths that are no tensor.
        ValueError: wrong shapes; unknown norm or reductions; negative weights; lengths, on a CPU, out of
            range.
    """
    _check_reductions(batch_reduction, point_reduction)
    if norm not in (1, 2):
        raise ValueError(f"norm must be 1 or 2, got {norm}")
    x, x_lengths, x_normals = _cloud("x", x, x_lengths, x_normals)
    y, y_lengths, y_normals = _cloud("y", y, y_lengths, y_normals)
    if y.shape[0] != x.shape[0] or y.shape[2] != x.shape[2]:
        shapes = f"got {tuple(y.shape)} for x {tuple(x.shape)}"
        raise ValueError(f"y does not have the correct shape, [N, P2, D] with the N and D of x: {shapes}")
    with_normals = x_normals is not None and y_normals is not None
    if with_normals and point_reduction == "max":
        raise ValueError("normals cannot be reduced with point_reduction='max'")
    some = 0 not in (*x.shape[:2], y.shape[1])
    if weights is not None:
        if weights.shape != x.shape[:1]:
            raise ValueError(f"weights must be of shape ({x.shape[0]},), got {tuple(weights.shape)}")
        if not torch.compiler.is_compiling():
            if not (weights >= 0).all():
                raise ValueError("weights cannot be negative")
            some = some and bool(weights.any())
    sides: list[tuple[Any, ...]] = [(x, x_lengths, x_normals, y, y_lengths, y_normals)]
    if not single_directional:
        sides.append((y, y_lengths, y_normals, x, x_lengths, x_normals))
    if not some:
        distances = [_nothing(side[0]) for side in sides]
        indices = None
    elif norm == 2 and x.shape[2] == 3 and not single_directional:
        forth, forth_idx, back, back_idx = kernels.mutual_nearest(
            x, y, src_lengths=x_lengths, dst_lengths=y_lengths
        )
        distances, indices = [forth, back], [forth_idx, back_idx]
    else:
        near = [any_dim.nearest(a, b, of_a, of_b, norm) for a, of_a, _, b, of_b, _ in sides]
        distances, indices = [dist for dist, _ in near], [idx for _, idx in near]
    cosines = distances
    if with_normals and indices is not None:
        cosines = [
            _cosine(side[2], side[5], idx, abs_cosine) for side, idx in zip(sides, indices, strict=True)
        ]
    results = []
    for ways in (distances, cosines) if with_normals else (distances,):
        reduced = [
            _of_points(values, of_pairs(own, values.shape[1], others), weights, point_reduction)
            for values, (_, own, _, _, others, _) in zip(ways, sides, strict=True)
        ]
        results.append(_joined(reduced, weights, batch_reduction, point_reduction))
    return results[0], results[1] if with_normals else None


def _joined(
    ways: list[Tensor], weights: Tensor | None, batch_reduction: str | None, point_reduction: str | None
) -> Any:
    if point_reduction is None:
        return tuple(ways) if len(ways) > 1 else ways[0]
    total = ways[0]
    if len(ways) > 1:
        total = torch.maximum(*ways) if point_reduction == "max" else ways[0] + ways[1]
    return _of_batch(total, weights, batch_reduction)
