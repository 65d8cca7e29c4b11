"""Nearest neighbours between two clouds, and the Chamfer distance built on them.

    d(p, q) = mean_i min_j |p_i - q_j|^2 + mean_j min_i |p_i - q_j|^2        norm="l2"
    d(p, q) = (mean_i min_j |p_i - q_j| + mean_j min_i |p_i - q_j|) / 2      norm="l1"

Fan et al., "A point set generation network" (2017), section 4; the scalings are ReCon's `cdl2` and `cdl1`.
"""

from typing import Literal

from torch import Tensor

from recon_fast.kernels import reference
from recon_fast.kernels._check import check_cloud, check_lengths, check_same_device

NORMS = ("l2", "l1")
REDUCTIONS = ("mean", "sum", "none")


def nearest_neighbor(src: Tensor, dst: Tensor, *, dst_lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The nearest point of `dst` for each point of `src`.

    Args:
        src: [B, N, 3], any floating point dtype; distances are computed in float32 (float64 for float64).
        dst: [B, M, 3].
        dst_lengths: valid points of each cloud of `dst` [B], integer, each at least 1; None means all M.

    Returns:
        squared_distance [B, N], differentiable in both inputs, and idx [B, N], int64; ties go to the smallest
        index. A NaN coordinate gives a valid index and a NaN distance.

    Raises:
        ValueError: wrong shape, dtype or device.
    """
    check_cloud("src", src)
    check_cloud("dst", dst, batch=src.shape[0])
    check_lengths("dst_lengths", dst_lengths, dst.shape[0])
    check_same_device(src=src, dst=dst, dst_lengths=dst_lengths)
    return reference.nearest_neighbor(src, dst, dst_lengths=dst_lengths)


def chamfer_distance(
    pred: Tensor,
    target: Tensor,
    *,
    pred_lengths: Tensor | None = None,
    target_lengths: Tensor | None = None,
    norm: Literal["l2", "l1"] = "l2",
    reduction: Literal["mean", "sum", "none"] = "mean",
) -> Tensor:
    """Symmetric Chamfer distance of each pair of clouds, reduced over the batch.

    Args:
        pred: [B, N, 3], any floating point dtype; computed in float32 (float64 for float64).
        target: [B, M, 3].
        pred_lengths: valid points of each cloud of `pred` [B], integer, each at least 1; None means all N.
        target_lengths: the same for `target`.
        norm: "l2": mean squared nearest distances both ways, added. "l1": mean nearest distances both ways,
            halved; its gradient at distance 0 is 0.
        reduction: over the batch; "none" gives one value per pair.

    Returns:
        A scalar, or [B] for reduction="none"; differentiable in both clouds. NaN coordinates give NaN.

    Raises:
        ValueError: wrong shape, dtype or device; unknown norm or reduction.
    """
    check_cloud("pred", pred)
    check_cloud("target", target, batch=pred.shape[0])
    check_lengths("pred_lengths", pred_lengths, pred.shape[0])
    check_lengths("target_lengths", target_lengths, target.shape[0])
    check_same_device(pred=pred, target=target, pred_lengths=pred_lengths, target_lengths=target_lengths)
    if norm not in NORMS:
        raise ValueError(f"norm must be one of {NORMS}, got {norm!r}")
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction must be one of {REDUCTIONS}, got {reduction!r}")
    return reference.chamfer_distance(
        pred, target, pred_lengths=pred_lengths, target_lengths=target_lengths, norm=norm, reduction=reduction
    )
