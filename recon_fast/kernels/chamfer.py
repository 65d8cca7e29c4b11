"""The Chamfer distance of pairs of clouds, with its gradient computed in the same pass, and measures like it.

    d(p, q) = mean_i min_j |p_i - q_j|^2 + mean_j min_i |p_i - q_j|^2        norm="l2"
    d(p, q) = (mean_i min_j |p_i - q_j| + mean_j min_i |p_i - q_j|) / 2      norm="l1"

Fan et al., "A point set generation network" (2017), section 4; the scalings are ReCon's `cdl2` and `cdl1`.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from recon_fast.kernels import backend, reference
from recon_fast.kernels._check import check_same_device, check_tensor
from recon_fast.kernels.backend import in_transform
from recon_fast.kernels.nearest import check_pair, differentiable, one_way, read_both, search_both_ways
from recon_fast.kernels.reference import squared_radius

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


class FScore(NamedTuple):
    """Shares of points near the other cloud, and their harmonic mean."""

    f_score: Tensor  # [B]
    precision: Tensor  # [B], of pred
    recall: Tensor  # [B], of target


def _mean(values: Tensor, valid: Tensor) -> Tensor:
    """Mean [B] over the valid values [B, N]."""
    return values.masked_fill(~valid, 0).sum(1) / valid.sum(1).clamp_min(1)


def f_score(
    pred: Tensor,
    target: Tensor,
    threshold: float,
    *,
    pred_lengths: Tensor | None = None,
    target_lengths: Tensor | None = None,
) -> FScore:
    """Precision, recall and F-score of a cloud at a distance.

    Knapitsch et al., "Tanks and temples" (2017); Tatarchenko et al. (2019).

    Args:
        pred: [B, N, 3], any floating point dtype.
        target: [B, M, 3].
        threshold: a point is near where its distance, not squared, to the other cloud is below it.
        pred_lengths: valid points of each cloud of `pred` [B], int32 or int64, 0 to N; None means all N.
        target_lengths: the same for `target`.

    Returns:
        FScore, each [B], between 0 and 1; F is 0 where precision and recall are, and all three of a pair of
        which one cloud is empty. Not differentiable.

    Raises:
        TypeError: an argument that is not a tensor.
        ValueError: wrong shape, dtype or device; a threshold that is not above 0; lengths, on a CPU, out of
            range.
    """
    check_pair(pred, target, pred_lengths, target_lengths)
    if not threshold > 0:
        raise ValueError(f"threshold must be above 0, got {threshold}")
    forth, forth_idx, back, back_idx = search_both_ways(
        pred.detach(), target.detach(), pred_lengths, target_lengths
    )
    bound = squared_radius(threshold, forth.dtype)
    precision = _mean((forth < bound).to(forth.dtype), forth_idx >= 0)
    recall = _mean((back < bound).to(back.dtype), back_idx >= 0)
    both = precision + recall
    return FScore(2 * precision * recall / torch.where(both > 0, both, 1), precision, recall)


def density_aware_chamfer(
    pred: Tensor,
    target: Tensor,
    *,
    alpha: float = 1000.0,
    count_power: float = 1.0,
    pred_lengths: Tensor | None = None,
    target_lengths: Tensor | None = None,
) -> Tensor:
    """Density-aware Chamfer distance of each pair (Wu et al., 2021, equation 4).

        (mean_i (1 - w_i exp(-alpha |p_i - t|^2)) + mean_j (1 - w_j exp(-alpha |t_j - p|^2))) / 2

    with t and p the nearest point, w_i = M / N / c^count_power, w_j = N / M / c^count_power, and c the number
    of points whose nearest that one is. Distances are squared, as in the authors' code.

    Args:
        pred: [B, N, 3], any floating point dtype.
        target: [B, M, 3].
        alpha: scale of the distances.
        count_power: the authors' n_lambda.
        pred_lengths: valid points of each cloud of `pred` [B], int32 or int64, 0 to N; None means all N.
        target_lengths: the same for `target`.

    Returns:
        [B], differentiable in both clouds; 0 for a pair of which one cloud is empty.

    Raises:
        TypeError: an argument that is not a tensor.
        ValueError: wrong shape, dtype or device; lengths, on a CPU, out of range.
    """
    check_pair(pred, target, pred_lengths, target_lengths)
    forth, forth_idx, back, back_idx = search_both_ways(pred, target, pred_lengths, target_lengths)
    losses = []
    for dist, idx, partners in ((forth, forth_idx, back_idx), (back, back_idx, forth_idx)):
        own, other = idx >= 0, partners >= 0
        idx = idx.clamp_min(0)  # what is not there is not counted
        count = torch.zeros_like(other, dtype=torch.int64).scatter_add(1, idx, own.long())
        share = count.gather(1, idx).clamp_min(1) ** count_power
        weight = other.sum(1, keepdim=True) / own.sum(1, keepdim=True).clamp_min(1) / share
        losses.append(_mean(1 - weight * torch.exp(-alpha * dist), own))
    return (losses[0] + losses[1]) / 2
