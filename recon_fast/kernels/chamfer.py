"""Nearest neighbours between two clouds, and the Chamfer distance built on them.

    d(p, q) = mean_i min_j |p_i - q_j|^2 + mean_j min_i |p_i - q_j|^2        norm="l2"
    d(p, q) = (mean_i min_j |p_i - q_j| + mean_j min_i |p_i - q_j|) / 2      norm="l1"

Fan et al., "A point set generation network" (2017), section 4; the scalings are ReCon's `cdl2` and `cdl1`.
"""

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
from recon_fast.kernels.distance import differentiable, distance_backward, empty_search, register_search
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
    src_lengths, dst_lengths = _read_both(src, dst, src_lengths, dst_lengths)
    run = backend.implementation("nearest_neighbor", "nearest_neighbor", src)
    return run(src, dst, src_lengths=src_lengths, dst_lengths=dst_lengths)


@_nearest.register_fake
def _(src, dst, src_lengths, dst_lengths):
    return empty_search(src)


register_search(_nearest)


@torch.library.custom_op("recon_fast::mutual_nearest", mutates_args=())
def _mutual_nearest(
    src: Tensor, dst: Tensor, src_lengths: Tensor | None, dst_lengths: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    src_lengths, dst_lengths = _read_both(src, dst, src_lengths, dst_lengths)
    run = backend.implementation("chamfer_distance", "mutual_nearest", src)
    return run(src, dst, src_lengths=src_lengths, dst_lengths=dst_lengths)


@_mutual_nearest.register_fake
def _(src, dst, src_lengths, dst_lengths):
    return *empty_search(src), *empty_search(dst)


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
    return reference.distances_to(src, dst, forth), forth, reference.distances_to(dst, src, back), back


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
    lengths = _read_both(pred, target, pred_lengths, target_lengths)
    needed = need_pred_grad, need_target_grad
    run = backend.implementation("chamfer_distance", "chamfer_pairs", pred)
    loss, *gradients = run(pred, target, *lengths, norm, *needed)
    to_pred, to_target = (
        gradient if need and gradient is not None else loss.new_empty(0)
        for gradient, need in zip(gradients, needed, strict=True)
    )
    return loss, to_pred, to_target


@_chamfer_pairs.register_fake
def _(pred, target, pred_lengths, target_lengths, norm, need_pred_grad, need_target_grad):
    dtype = torch.promote_types(reference.geometry_dtype(pred), reference.geometry_dtype(target))
    of_pred, of_target = pred.shape if need_pred_grad else (0,), target.shape if need_target_grad else (0,)
    return tuple(pred.new_empty(shape, dtype=dtype) for shape in (pred.shape[:1], of_pred, of_target))


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
    check_pair(src, dst, None, dst_lengths, "src", "dst")
    return differentiable(_nearest, src, dst, None, dst_lengths)


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
    check_pair(src, dst, src_lengths, dst_lengths, "src", "dst")
    return search_both_ways(src, dst, src_lengths, dst_lengths)


def check_pair(
    a: Tensor,
    b: Tensor,
    a_lengths: Tensor | None,
    b_lengths: Tensor | None,
    a_name: str = "pred",
    b_name: str = "target",
) -> None:
    """Raise unless these are two batches of clouds and their lengths."""
    check_cloud(a_name, a)
    check_cloud(b_name, b, a_name, a)
    check_lengths(f"{a_name}_lengths", a_lengths, a.shape[0])
    check_lengths(f"{b_name}_lengths", b_lengths, b.shape[0])
    given = {a_name: a, b_name: b, f"{a_name}_lengths": a_lengths, f"{b_name}_lengths": b_lengths}
    check_same_device(**given)


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
        forth, _ = differentiable(_nearest, pred, target, pred_lengths, target_lengths)
        lengths = reference.of_pairs(pred_lengths, pred.shape[1], target_lengths)
        return reference.reduce_pairs(reference.one_way_loss(forth, lengths, norm), reduction, weights)
    if torch.float64 in (pred.dtype, target.dtype) or in_transform():  # by parts that have all derivatives
        forth, _, back, _ = search_both_ways(pred, target, pred_lengths, target_lengths)
        return reference.chamfer_loss(forth, back, pred_lengths, target_lengths, norm, reduction, weights)
    needed = [torch.is_grad_enabled() and cloud.requires_grad for cloud in (pred, target)]
    loss, _, _ = _chamfer_pairs(pred, target, pred_lengths, target_lengths, norm, *needed)
    return reference.reduce_pairs(loss, reduction, weights)
