"""Nearest neighbours between two clouds, and the Chamfer distance built on them.

    d(p, q) = mean_i min_j |p_i - q_j|^2 + mean_j min_i |p_i - q_j|^2        norm="l2"
    d(p, q) = (mean_i min_j |p_i - q_j| + mean_j min_i |p_i - q_j|) / 2      norm="l1"

Fan et al., "A point set generation network" (2017), section 4; the scalings are ReCon's `cdl2` and `cdl1`.
"""

from typing import Literal

import torch
from torch import Tensor

from recon_fast.kernels import backend, reference
from recon_fast.kernels._check import check_cloud, check_lengths, check_same_device
from recon_fast.kernels.distance import distance_backward

NORMS = ("l2", "l1")
REDUCTIONS = ("mean", "sum", "none")


@torch.library.custom_op("recon_fast::nearest_neighbor", mutates_args=())
def _nearest(src: Tensor, dst: Tensor, dst_lengths: Tensor | None) -> tuple[Tensor, Tensor]:
    return reference.nearest_neighbor(src, dst, dst_lengths=dst_lengths)


@_nearest.register_kernel(("cpu", "cuda"))
def _(src, dst, dst_lengths):
    run = backend.kernel("nearest_neighbor", "nearest_neighbor", src) or reference.nearest_neighbor
    return run(src, dst, dst_lengths=dst_lengths)


@_nearest.register_fake
def _(src, dst, dst_lengths):
    shape = src.shape[:2]
    dtype = reference.geometry_dtype(src)
    return src.new_empty(shape, dtype=dtype), src.new_empty(shape, dtype=torch.int64)


def _setup_nearest(ctx, inputs, output):
    ctx.save_for_backward(inputs[0], inputs[1], output[1])


def _nearest_backward(ctx, grad, _):
    src, dst, idx = ctx.saved_tensors
    return *distance_backward(grad[..., None], src, dst, idx[..., None]), None


_nearest.register_autograd(_nearest_backward, setup_context=_setup_nearest)


def _both_ways(
    src: Tensor, dst: Tensor, src_lengths: Tensor | None, dst_lengths: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    run = backend.kernel("nearest_neighbor", "nearest_neighbor", src) or reference.nearest_neighbor
    return *run(src, dst, dst_lengths=dst_lengths), *run(dst, src, dst_lengths=src_lengths)


@torch.library.custom_op("recon_fast::mutual_nearest", mutates_args=())
def _mutual_nearest(
    src: Tensor, dst: Tensor, src_lengths: Tensor | None, dst_lengths: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    forth = reference.nearest_neighbor(src, dst, dst_lengths=dst_lengths)
    return *forth, *reference.nearest_neighbor(dst, src, dst_lengths=src_lengths)


@_mutual_nearest.register_kernel(("cpu", "cuda"))
def _(src, dst, src_lengths, dst_lengths):
    run = backend.kernel("chamfer_distance", "mutual_nearest", src) or _both_ways
    return run(src, dst, src_lengths, dst_lengths)


@_mutual_nearest.register_fake
def _(src, dst, src_lengths, dst_lengths):
    dtype = reference.geometry_dtype(src)
    return tuple(
        cloud.new_empty(cloud.shape[:2], dtype=kind) for cloud in (src, dst) for kind in (dtype, torch.int64)
    )


def _setup_mutual(ctx, inputs, output):
    ctx.save_for_backward(inputs[0], inputs[1], output[1], output[3])


def _mutual_backward(ctx, grad_forth, _forth, grad_back, _back):
    src, dst, forth, back = ctx.saved_tensors
    to_src, to_dst = distance_backward(grad_forth[..., None], src, dst, forth[..., None])
    from_dst, from_src = distance_backward(grad_back[..., None], dst, src, back[..., None])
    return to_src + from_src, to_dst + from_dst, None, None


_mutual_nearest.register_autograd(_mutual_backward, setup_context=_setup_mutual)


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
    return _nearest(src, dst, dst_lengths)


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
    dtype = torch.promote_types(reference.geometry_dtype(pred), reference.geometry_dtype(target))
    forth, _, back, _ = _mutual_nearest(pred.to(dtype), target.to(dtype), pred_lengths, target_lengths)
    return reference.chamfer_loss(forth, back, pred_lengths, target_lengths, norm, reduction)
