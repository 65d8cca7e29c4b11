"""`pytorch3d.loss`: the Chamfer distance with lengths, weights, normals and reductions."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from recon_fast import kernels
from recon_fast.compat import any_dim
from recon_fast.kernels.reference import zero_padding

__all__ = ["chamfer_distance"]


def _check_reductions(batch_reduction: str | None, point_reduction: str | None) -> None:
    if batch_reduction not in ("mean", "sum", None):
        raise ValueError('batch_reduction must be one of ["mean", "sum"] or None')
    if point_reduction not in ("mean", "sum", "max", None):
        raise ValueError('point_reduction must be one of ["mean", "sum", "max"] or None')
    if point_reduction is None and batch_reduction is not None:
        raise ValueError("Batch reduction must be None if point_reduction is None")


def _cloud(
    points: Any, lengths: Tensor | None, normals: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Points [N, P, D], lengths and normals, of tensors or of an object like pytorch3d's Pointclouds."""
    if hasattr(points, "points_padded"):
        return points.points_padded(), points.num_points_per_cloud(), points.normals_padded()
    if not torch.is_tensor(points):
        raise ValueError(
            "The input pointclouds should be either Pointclouds objects or torch.Tensor of shape "
            "(minibatch, num_points, 3)."
        )
    if points.ndim != 3:
        raise ValueError("Expected points to be of shape (N, P, D)")
    if lengths is not None and lengths.shape != points.shape[:1]:
        raise ValueError("Expected lengths to be of shape (N,)")
    if normals is not None and normals.ndim != 3:
        raise ValueError("Expected normals to be of shape (N, P, 3)")
    return points, lengths, normals


def _reduce(
    values: Tensor,  # [N, P]
    lengths: Tensor | None,
    weights: Tensor | None,
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
        return F.pad(values, (0, 1)).amax(1)  # of no points it is 0
    return values.sum(1) / count if point_reduction == "mean" else values.sum(1)


def _over_batch(values: Tensor, weights: Tensor | None, batch_reduction: str | None) -> Tensor:
    """Values [N], weighted already, reduced."""
    if batch_reduction is None:
        return values
    if batch_reduction == "sum":
        return values.sum()
    if weights is None:
        return values.sum() / max(len(values), 1)
    share = weights.sum()
    return values.sum() / torch.where(share == 0, 1, share)  # weights of 0 give 0


def _cosine(normals: Tensor, others: Tensor, idx: Tensor, abs_cosine: bool) -> Tensor:
    """1 - cosine of the normals [N, P, 3] and those of the nearest points [N, P]; 0 where there is none."""
    cosine = F.cosine_similarity(normals, any_dim.rows_at(others, idx), dim=2, eps=1e-6)
    return (1 - (cosine.abs() if abs_cosine else cosine)).masked_fill(idx < 0, 0)


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
    both with point_reduction="max". Without point_reduction, a tuple of both ways unreduced. A cloud without
    points counts 0, and so does what has weight 0.
    """
    _check_reductions(batch_reduction, point_reduction)
    if norm not in (1, 2):
        raise ValueError("Support for 1 or 2 norm.")
    x, x_lengths, x_normals = _cloud(x, x_lengths, x_normals)
    y, y_lengths, y_normals = _cloud(y, y_lengths, y_normals)
    if y.shape[0] != x.shape[0] or y.shape[2] != x.shape[2]:
        raise ValueError("y does not have the correct shape.")
    if weights is not None:
        if weights.shape[0] != x.shape[0]:
            raise ValueError("weights must be of shape (N,).")
        if not torch.compiler.is_compiling() and not (weights >= 0).all():
            raise ValueError("weights cannot be negative.")
    if norm == 2 and x.shape[2] == 3 and not single_directional and x.numel() and y.numel():
        clouds = zero_padding(x, x_lengths), zero_padding(y, y_lengths)
        forth, forth_idx, back, back_idx = kernels.mutual_nearest(
            *clouds, src_lengths=x_lengths, dst_lengths=y_lengths
        )
        found = [(forth, forth_idx), (back, back_idx)]
    else:
        x, y = zero_padding(x, x_lengths), zero_padding(y, y_lengths)
        ways = [(x, y, x_lengths, y_lengths), (y, x, y_lengths, x_lengths)][: 1 if single_directional else 2]
        near = [any_dim.knn(a, b, 1, lb, norm) for a, b, _, lb in ways]
        found = [(dist[..., 0], idx[..., 0]) for dist, idx in near]
    lengths = x_lengths, y_lengths
    distances = [
        _reduce(dist.masked_fill(idx < 0, 0), size, weights, point_reduction)
        for (dist, idx), size in zip(found, lengths, strict=False)
    ]
    cosines: list[Tensor] = []
    if x_normals is not None and y_normals is not None:
        if point_reduction == "max":
            raise ValueError("normals cannot be reduced with point_reduction='max'")
        pairs = (x_normals, y_normals), (y_normals, x_normals)
        cosines = [
            _reduce(_cosine(*pair, idx, abs_cosine), size, weights, point_reduction)
            for pair, (_, idx), size in zip(pairs, found, lengths, strict=False)
        ]
        if weights is not None and not torch.compiler.is_compiling() and not weights.any():
            cosines = [0 * distance for distance in distances]  # as in pytorch3d, with a gradient in x
    losses = [
        _joined(ways, weights, batch_reduction, point_reduction) for ways in (distances, cosines) if ways
    ]
    return losses[0], losses[1] if cosines else None


def _joined(
    ways: list[Tensor], weights: Tensor | None, batch_reduction: str | None, point_reduction: str | None
) -> Any:
    """The result of both ways, or of one."""
    if point_reduction is None:
        return ways[0] if len(ways) == 1 else tuple(ways)
    if len(ways) == 1:
        each = ways[0]
    else:
        each = torch.maximum(*ways) if point_reduction == "max" else ways[0] + ways[1]
    return _over_batch(each, weights, batch_reduction)
