"""Nearest neighbours between two clouds, and the Chamfer distance built on them.

    d(p, q) = mean_i min_j |p_i - q_j|^2 + mean_j min_i |p_i - q_j|^2        norm="l2"
    d(p, q) = (mean_i min_j |p_i - q_j| + mean_j min_i |p_i - q_j|) / 2      norm="l1"

Fan et al., "A point set generation network" (2017), section 4; the scalings are ReCon's `cdl2` and `cdl1`.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from recon_fast.kernels import backend, reference
from recon_fast.kernels._check import (
    check_cloud,
    check_lengths,
    check_same_device,
    check_tensor,
    read_lengths,
)
from recon_fast.kernels.distance import distance_backward, run_distance_backward, setup_search
from recon_fast.kernels.transforms import in_transform

NORMS = ("l2", "l1")
REDUCTIONS = ("mean", "sum", "none")


def _read_both(
    src: Tensor, dst: Tensor, src_lengths: Tensor | None, dst_lengths: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    """The operators have callers with other names for their arguments."""
    src_lengths = read_lengths("lengths of the first clouds", src_lengths, src.shape[1])
    return src_lengths, read_lengths("lengths of the second clouds", dst_lengths, dst.shape[1])


@torch.library.custom_op("recon_fast::nearest_neighbor", mutates_args=())
def _nearest(
    src: Tensor, dst: Tensor, src_lengths: Tensor | None, dst_lengths: Tensor | None
) -> tuple[Tensor, Tensor]:
    return reference.nearest_neighbor(src, dst, src_lengths=src_lengths, dst_lengths=dst_lengths)


@_nearest.register_kernel(("cpu", "cuda"))
def _(src, dst, src_lengths, dst_lengths):
    src_lengths, dst_lengths = _read_both(src, dst, src_lengths, dst_lengths)
    run = backend.kernel("nearest_neighbor", "nearest_neighbor", src) or reference.nearest_neighbor
    return run(src, dst, src_lengths=src_lengths, dst_lengths=dst_lengths)


@_nearest.register_fake
def _(src, dst, src_lengths, dst_lengths):
    shape = src.shape[:2]
    dtype = reference.geometry_dtype(src)
    return src.new_empty(shape, dtype=dtype), src.new_empty(shape, dtype=torch.int64)


def _nearest_backward(ctx, grad, _):
    if grad is None:
        return None, None, None, None
    src, dst, idx = ctx.saved_tensors
    return *distance_backward(grad[..., None], src, dst, idx[..., None]), None, None


_nearest.register_autograd(_nearest_backward, setup_context=setup_search)


def _differentiable_nearest(
    src: Tensor, dst: Tensor, src_lengths: Tensor | None, dst_lengths: Tensor | None
) -> tuple[Tensor, Tensor]:
    if not in_transform():
        return _nearest(src, dst, src_lengths, dst_lengths)
    _, idx = _nearest(src.detach(), dst.detach(), src_lengths, dst_lengths)
    return reference.nearest_distances(src, dst, idx), idx


@torch.library.custom_op("recon_fast::mutual_nearest", mutates_args=())
def _mutual_nearest(
    src: Tensor, dst: Tensor, src_lengths: Tensor | None, dst_lengths: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return reference.mutual_nearest(src, dst, src_lengths=src_lengths, dst_lengths=dst_lengths)


@_mutual_nearest.register_kernel(("cpu", "cuda"))
def _(src, dst, src_lengths, dst_lengths):
    src_lengths, dst_lengths = _read_both(src, dst, src_lengths, dst_lengths)
    return _run_mutual_nearest(src, dst, src_lengths, dst_lengths)


def _run_mutual_nearest(
    src: Tensor, dst: Tensor, src_lengths: Tensor | None, dst_lengths: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    run = backend.kernel("chamfer_distance", "mutual_nearest", src) or reference.mutual_nearest
    return run(src, dst, src_lengths=src_lengths, dst_lengths=dst_lengths)


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


def search_both_ways(
    src: Tensor, dst: Tensor, src_lengths: Tensor | None, dst_lengths: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`mutual_nearest` of arguments that are checked."""
    dtype = torch.promote_types(src.dtype, dst.dtype)
    src, dst = src.to(dtype), dst.to(dtype)
    if not in_transform():
        return _mutual_nearest(src, dst, src_lengths, dst_lengths)
    _, forth, _, back = _mutual_nearest(src.detach(), dst.detach(), src_lengths, dst_lengths)
    forth_distance = reference.nearest_distances(src, dst, forth)
    return forth_distance, forth, reference.nearest_distances(dst, src, back), back


def pairs_by_parts(
    pred: Tensor,
    target: Tensor,
    pred_lengths: Tensor | None,
    target_lengths: Tensor | None,
    norm: str,
    need_pred_grad: bool,
    need_target_grad: bool,
    parts: tuple[Callable, Callable] = (_run_mutual_nearest, run_distance_backward),
) -> tuple[Tensor, Tensor, Tensor]:
    """What a backend's `chamfer_pairs` gives, from its parts; gradients that are not needed are empty."""
    mutual_nearest, distance_backward = parts
    dtype = torch.promote_types(reference.geometry_dtype(pred), reference.geometry_dtype(target))
    pred, target = pred.to(dtype), target.to(dtype)
    forth, forth_idx, back, back_idx = mutual_nearest(
        pred, target, src_lengths=pred_lengths, dst_lengths=target_lengths
    )
    loss = reference.chamfer_loss(forth, back, pred_lengths, target_lengths, norm, "none")
    if not (need_pred_grad or need_target_grad):
        return loss, loss.new_empty(0), loss.new_empty(0)

    def gradients(src, dst, dist, idx, lengths):
        weights = reference.chamfer_weights(dist, lengths, norm)
        return distance_backward(weights[..., None], src, dst, idx[..., None])

    to_pred, to_target = gradients(pred, target, forth, forth_idx, pred_lengths)
    from_target, from_pred = gradients(target, pred, back, back_idx, target_lengths)
    return loss, to_pred + from_pred, to_target + from_target


def _only_needed(
    loss: Tensor, to_pred: Tensor | None, to_target: Tensor | None, need_pred: bool, need_target: bool
) -> tuple[Tensor, Tensor, Tensor]:
    nothing = [loss.new_empty(0), loss.new_empty(0)]
    return (
        loss,
        to_pred if need_pred and to_pred is not None else nothing[0],
        to_target if need_target and to_target is not None else nothing[1],
    )


@torch.library.custom_op("recon_fast::chamfer_pairs", mutates_args=())
def _chamfer_pairs(
    pred: Tensor,
    target: Tensor,
    pred_lengths: Tensor | None,
    target_lengths: Tensor | None,
    norm: str,
    need_pred_grad: bool,
    need_target_grad: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss of each pair [B] and its gradients in both clouds, those that are not needed empty."""
    needed = need_pred_grad, need_target_grad
    results = pairs_by_parts(pred, target, pred_lengths, target_lengths, norm, *needed)
    return _only_needed(*results, *needed)


@_chamfer_pairs.register_kernel(("cpu", "cuda"))
def _(pred, target, pred_lengths, target_lengths, norm, *needed):
    pred_lengths, target_lengths = _read_both(pred, target, pred_lengths, target_lengths)
    run = backend.kernel("chamfer_distance", "chamfer_pairs", pred) or pairs_by_parts
    return _only_needed(*run(pred, target, pred_lengths, target_lengths, norm, *needed), *needed)


@_chamfer_pairs.register_fake
def _(pred, target, pred_lengths, target_lengths, norm, need_pred_grad, need_target_grad):
    dtype = torch.promote_types(reference.geometry_dtype(pred), reference.geometry_dtype(target))
    shapes = (
        pred.shape[:1],
        pred.shape if need_pred_grad else (0,),
        target.shape if need_target_grad else (0,),
    )
    return tuple(pred.new_empty(shape, dtype=dtype) for shape in shapes)


def _setup_pairs(ctx, inputs, output):
    pred, target, pred_lengths, target_lengths, ctx.norm, *ctx.computed = inputs
    ctx.dtypes = pred.dtype, target.dtype
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(*output[1:])
    # The clouds are only for gradients that nobody announced.
    clouds = (pred, target, pred_lengths, target_lengths) if not all(ctx.computed) else (None,) * 4
    ctx.save_for_backward(*output[1:], *clouds)


def _pairs_backward(ctx, grad, *_):
    if grad is None:
        return (None,) * 7
    if torch.is_grad_enabled():
        raise RuntimeError(
            "chamfer_distance has second derivatives of float64 clouds and within torch.func only, "
            f"got {ctx.dtypes[0]} and {ctx.dtypes[1]}"
        )
    *gradients, pred, target, pred_lengths, target_lengths = ctx.saved_tensors
    needed = ctx.needs_input_grad[:2]
    if any(need and not there for need, there in zip(needed, ctx.computed, strict=True)):
        _, *gradients = _chamfer_pairs(pred, target, pred_lengths, target_lengths, ctx.norm, *needed)
    scaled = [
        (gradient * grad[:, None, None]).to(dtype) if need else None
        for gradient, dtype, need in zip(gradients, ctx.dtypes, needed, strict=True)
    ]
    return *scaled, None, None, None, None, None


_chamfer_pairs.register_autograd(_pairs_backward, setup_context=_setup_pairs)


def nearest_neighbor(src: Tensor, dst: Tensor, *, dst_lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The nearest point of `dst` for each point of `src`.

    Args:
        src: [B, N, 3], any floating point dtype; distances are computed in float32 (float64 for float64).
        dst: [B, M, 3].
        dst_lengths: valid points of each cloud of `dst` [B], int32 or int64, 0 to M; None means all M.

    Returns:
        squared_distance [B, N], differentiable in both inputs, and idx [B, N], int64; ties go to the smallest
        index. A NaN coordinate gives a valid index and a NaN distance. In an empty cloud nothing is found:
        index -1 and distance inf.

    Raises:
        TypeError: an argument that is not a tensor.
        ValueError: wrong shape, dtype or device; lengths, on a CPU, out of range.
    """
    check_cloud("src", src)
    check_cloud("dst", dst, "src", src)
    check_lengths("dst_lengths", dst_lengths, dst.shape[0])
    check_same_device(src=src, dst=dst, dst_lengths=dst_lengths)
    return _differentiable_nearest(src, dst, None, dst_lengths)


def mutual_nearest(
    src: Tensor, dst: Tensor, *, src_lengths: Tensor | None = None, dst_lengths: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`nearest_neighbor` both ways at once.

    Args:
        src: [B, N, 3], any floating point dtype.
        dst: [B, M, 3].
        src_lengths: valid points of each cloud of `src` [B], int32 or int64, 0 to N; None means all N.
        dst_lengths: the same for `dst`.

    Returns:
        squared_distance [B, N] and idx [B, N] of `src` in `dst`, then those of `dst` in `src` [B, M];
        distances are differentiable in both. Points behind the lengths, and all points of a cloud whose
        partner is empty, have index -1 and distance inf.

    Raises:
        TypeError: an argument that is not a tensor.
        ValueError: wrong shape, dtype or device; lengths, on a CPU, out of range.
    """
    check_cloud("src", src)
    check_cloud("dst", dst, "src", src)
    check_lengths("src_lengths", src_lengths, src.shape[0])
    check_lengths("dst_lengths", dst_lengths, dst.shape[0])
    check_same_device(src=src, dst=dst, src_lengths=src_lengths, dst_lengths=dst_lengths)
    return search_both_ways(src, dst, src_lengths, dst_lengths)


def check_pair(
    pred: Tensor, target: Tensor, pred_lengths: Tensor | None, target_lengths: Tensor | None
) -> None:
    """Raise unless these are two batches of clouds and their lengths."""
    check_cloud("pred", pred)
    check_cloud("target", target, "pred", pred)
    check_lengths("pred_lengths", pred_lengths, pred.shape[0])
    check_lengths("target_lengths", target_lengths, target.shape[0])
    check_same_device(pred=pred, target=target, pred_lengths=pred_lengths, target_lengths=target_lengths)


def chamfer_distance(
    pred: Tensor,
    target: Tensor,
    *,
    pred_lengths: Tensor | None = None,
    target_lengths: Tensor | None = None,
    norm: Literal["l2", "l1"] = "l2",
    reduction: Literal["mean", "sum", "none"] = "mean",
    weights: Tensor | None = None,
    single_directional: bool = False,
) -> Tensor:
    """Symmetric Chamfer distance of each pair of clouds, reduced over the batch.

    Args:
        pred: [B, N, 3], any floating point dtype; computed in float32 (float64 for float64).
        target: [B, M, 3].
        pred_lengths: valid points of each cloud of `pred` [B], int32 or int64, 0 to N; None means all N.
        target_lengths: the same for `target`.
        norm: "l2": mean squared nearest distances both ways, added. "l1": mean nearest distances both ways,
            halved; its gradient at distance 0 is 0.
        reduction: over the batch; "none" gives one value per pair.
        weights: of the pairs [B], floating point; "mean" divides by their sum. Not differentiable.
        single_directional: from `pred` to `target` alone; "l1" is then the mean distance, not halved.

    Returns:
        A scalar, or [B] for reduction="none"; differentiable in both clouds, twice in float64 and within
        torch.func. What stands behind the lengths has gradient 0 and may be anything. A pair of which one
        cloud is empty counts 0, with gradient 0. Valid NaN coordinates give NaN.

    Raises:
        TypeError: an argument that is not a tensor.
        ValueError: wrong shape, dtype or device; unknown norm or reduction; lengths, on a CPU, out of range.
        RuntimeError: a second derivative, outside of torch.func, of a loss that is not float64.
    """
    check_pair(pred, target, pred_lengths, target_lengths)
    if norm not in NORMS:
        raise ValueError(f"norm must be one of {NORMS}, got {norm!r}")
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction must be one of {REDUCTIONS}, got {reduction!r}")
    if weights is not None:
        check_tensor("weights", weights)
        if weights.shape != pred.shape[:1] or not weights.is_floating_point():
            got = f"{weights.dtype} {tuple(weights.shape)}"
            raise ValueError(f"weights must be a floating point [{pred.shape[0]}], got {got}")
        check_same_device(pred=pred, weights=weights)
        weights = weights.detach()
    if single_directional:
        forth, _ = _differentiable_nearest(pred, target, pred_lengths, target_lengths)
        lengths = reference.of_pairs(pred_lengths, pred.shape[1], target_lengths)
        return reference.reduce_pairs(reference.one_way_loss(forth, lengths, norm), reduction, weights)
    if torch.float64 in (pred.dtype, target.dtype) or in_transform():  # by parts that have all derivatives
        forth, _, back, _ = search_both_ways(pred, target, pred_lengths, target_lengths)
        return reference.chamfer_loss(forth, back, pred_lengths, target_lengths, norm, reduction, weights)
    needed = [torch.is_grad_enabled() and cloud.requires_grad for cloud in (pred, target)]
    loss, _, _ = _chamfer_pairs(pred, target, pred_lengths, target_lengths, norm, *needed)
    return reference.reduce_pairs(loss, reduction, weights)
