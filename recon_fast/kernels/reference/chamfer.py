"""The Chamfer distance in plain PyTorch."""

import torch
from torch import Tensor

from recon_fast.kernels.reference.points import (
    distance_backward,
    geometry_dtype,
    mutual_nearest,
    nearest_neighbor,
    valid_rows,
)


def of_pairs(lengths: Tensor | None, size: int, others: Tensor | None) -> Tensor | None:
    """The lengths [B] of clouds of `size` points, 0 for those whose partner is empty: such pairs count 0."""
    if others is None:
        return lengths
    own = torch.full_like(others, size) if lengths is None else lengths
    return own.where(others > 0, 0)


def _root(d2: Tensor) -> Tensor:
    """Square root whose gradient at 0 is 0."""
    positive = d2 > 0
    return torch.where(positive, torch.where(positive, d2, 1).sqrt(), d2)


def _chamfer_weights(d2: Tensor, lengths: Tensor | None, norm: str) -> Tensor:
    """Derivative of the loss of each pair in its squared distances [B, N]."""
    weights = torch.full_like(d2, 1 / d2.shape[1])
    if lengths is not None:
        weights = (valid_rows(lengths, d2.shape[1]) / lengths.clamp(1, d2.shape[1])[:, None]).to(d2.dtype)
    if norm == "l1":
        positive = d2 > 0
        weights = weights / torch.where(positive, 4 * torch.where(positive, d2, 1).sqrt(), 2)
    return weights


def _mean_over_points(values: Tensor, lengths: Tensor | None) -> Tensor:
    """[B, N] -> [B], over the valid points of each row."""
    if lengths is None:
        return values.mean(1)
    values = values.masked_fill(~valid_rows(lengths, values.shape[1]), 0)
    return values.sum(1) / lengths.clamp(1, values.shape[1])


def chamfer_distance(
    pred: Tensor,
    target: Tensor,
    *,
    pred_lengths: Tensor | None = None,
    target_lengths: Tensor | None = None,
    norm: str = "l2",
    reduction: str = "mean",
    weights: Tensor | None = None,
    single_directional: bool = False,
) -> Tensor:
    """pred [B, N, 3], target [B, M, 3], lengths [B], weights [B] -> a scalar, or [B] for reduction "none"."""
    if single_directional:
        forth, _ = nearest_neighbor(pred, target, src_lengths=pred_lengths, dst_lengths=target_lengths)
        lengths = of_pairs(pred_lengths, pred.shape[1], target_lengths)
        return reduce_pairs(one_way_loss(forth, lengths, norm), reduction, weights)
    forth, _, back, _ = mutual_nearest(pred, target, src_lengths=pred_lengths, dst_lengths=target_lengths)
    return chamfer_loss(forth, back, pred_lengths, target_lengths, norm, reduction, weights)


def chamfer_pairs(
    pred: Tensor,
    target: Tensor,
    pred_lengths: Tensor | None,
    target_lengths: Tensor | None,
    norm: str,
    need_pred_grad: bool,
    need_target_grad: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss of each pair [B] and its gradients in pred [B, N, 3] and target [B, M, 3]; both or none."""
    dtype = torch.promote_types(geometry_dtype(pred), geometry_dtype(target))
    pred, target = pred.to(dtype), target.to(dtype)
    forth, forth_idx, back, back_idx = mutual_nearest(
        pred, target, src_lengths=pred_lengths, dst_lengths=target_lengths
    )
    loss = chamfer_loss(forth, back, pred_lengths, target_lengths, norm, "none")
    if not (need_pred_grad or need_target_grad):
        return loss, loss.new_empty(0), loss.new_empty(0)
    of_forth = _chamfer_weights(forth, pred_lengths, norm)[..., None]
    of_back = _chamfer_weights(back, target_lengths, norm)[..., None]
    to_pred, to_target = distance_backward(of_forth, pred, target, forth_idx[..., None])
    from_target, from_pred = distance_backward(of_back, target, pred, back_idx[..., None])
    return loss, to_pred + from_pred, to_target + from_target


def chamfer_loss(
    forth: Tensor,
    back: Tensor,
    pred_lengths: Tensor | None,
    target_lengths: Tensor | None,
    norm: str,
    reduction: str,
    weights: Tensor | None = None,
) -> Tensor:
    """The loss from squared distances of pred to target [B, N] and of target to pred [B, M]."""
    of_pred = of_pairs(pred_lengths, forth.shape[1], target_lengths)
    of_target = of_pairs(target_lengths, back.shape[1], pred_lengths)
    loss = one_way_loss(forth, of_pred, norm) + one_way_loss(back, of_target, norm)
    return reduce_pairs(loss / 2 if norm == "l1" else loss, reduction, weights)


def one_way_loss(forth: Tensor, lengths: Tensor | None, norm: str) -> Tensor:  # [B, N], [B] -> [B]
    """Mean squared distance of each pair, or mean distance for norm "l1"."""
    return _mean_over_points(_root(forth) if norm == "l1" else forth, lengths)


def reduce_pairs(loss: Tensor, reduction: str, weights: Tensor | None = None) -> Tensor:
    """The losses [B] of all pairs, times their weights [B], reduced; a mean is over the weights."""
    if weights is not None:
        loss = loss * weights
    if reduction == "none":
        return loss
    if reduction == "sum":
        return loss.sum()
    return loss.mean() if weights is None else loss.sum() / weights.sum()
