"""The Chamfer distance of pairs of clouds, with its gradient computed in the same pass.

    d(p, q) = mean_i min_j |p_i - q_j|^2 + mean_j min_i |p_i - q_j|^2        norm="l2"
    d(p, q) = (mean_i min_j |p_i - q_j| + mean_j min_i |p_i - q_j|) / 2      norm="l1"

Fan et al., "A point set generation network" (2017), section 4; the scalings are ReCon's `cdl2` and `cdl1`.
"""

from typing import Literal

import torch
from torch import Tensor

from recon_fast.kernels import backend, reference
from recon_fast.kernels._check import check_same_device, check_tensor
from recon_fast.kernels.backend import in_transform
from recon_fast.kernels.nearest import check_pair, differentiable, one_way, read_both, search_both_ways

NORMS = ("l2", "l1")
REDUCTIONS = ("mean", "sum", "none")


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
    lengths = read_both(pred, target, pred_lengths, target_lengths)
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
        forth, _ = differentiable(one_way, pred, target, pred_lengths, target_lengths)
        lengths = reference.of_pairs(pred_lengths, pred.shape[1], target_lengths)
        return reference.reduce_pairs(reference.one_way_loss(forth, lengths, norm), reduction, weights)
    if torch.float64 in (pred.dtype, target.dtype) or in_transform():  # by parts that have all derivatives
        forth, _, back, _ = search_both_ways(pred, target, pred_lengths, target_lengths)
        return reference.chamfer_loss(forth, back, pred_lengths, target_lengths, norm, reduction, weights)
    needed = [torch.is_grad_enabled() and cloud.requires_grad for cloud in (pred, target)]
    loss, _, _ = _chamfer_pairs(pred, target, pred_lengths, target_lengths, norm, *needed)
    return reference.reduce_pairs(loss, reduction, weights)
