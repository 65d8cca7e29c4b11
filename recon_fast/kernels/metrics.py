"""Measures of two clouds built on nearest neighbours: F-score and the density-aware Chamfer distance."""

from typing import NamedTuple

import torch
from torch import Tensor

from recon_fast.kernels._check import check_cloud, check_lengths
from recon_fast.kernels.chamfer import mutual_nearest
from recon_fast.kernels.reference import squared_radius, without_empty, zero_padding


class FScore(NamedTuple):
    """Shares of points near the other cloud, and their harmonic mean."""

    f_score: Tensor  # [B]
    precision: Tensor  # [B], of pred
    recall: Tensor  # [B], of target


def _valid(distances: Tensor, lengths: Tensor | None) -> Tensor:
    """Which of the points [B, N] are within the lengths."""
    if lengths is None:
        return torch.ones_like(distances, dtype=torch.bool)
    return torch.arange(distances.shape[1], device=distances.device) < lengths[:, None]


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
        pred_lengths: valid points of each cloud of `pred` [B], integer, 0 to N; None means all N.
        target_lengths: the same for `target`.

    Returns:
        FScore, each [B], between 0 and 1; F is 0 where precision and recall are, as with a cloud of length 0.
        Not differentiable.

    Raises:
        ValueError: wrong shape, dtype or device; a threshold that is not above 0.
    """
    check_cloud("pred", pred)
    check_cloud("target", target, batch=pred.shape[0])
    check_lengths("pred_lengths", pred_lengths, pred)
    check_lengths("target_lengths", target_lengths, target)
    if not threshold > 0:
        raise ValueError(f"threshold must be above 0, got {threshold}")
    lengths = {"src_lengths": pred_lengths, "dst_lengths": target_lengths}
    forth, _, back, _ = mutual_nearest(pred.detach(), target.detach(), **lengths)
    bound = squared_radius(threshold, forth.dtype)
    precision = _mean((forth < bound).to(forth.dtype), _valid(forth, pred_lengths))
    recall = _mean((back < bound).to(back.dtype), _valid(back, target_lengths))
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
        pred_lengths: valid points of each cloud of `pred` [B], integer, 0 to N; None means all N.
        target_lengths: the same for `target`.

    Returns:
        [B], differentiable in both clouds; 0 where a cloud has length 0.

    Raises:
        ValueError: wrong shape, dtype or device.
    """
    check_cloud("pred", pred)
    check_cloud("target", target, batch=pred.shape[0])
    check_lengths("pred_lengths", pred_lengths, pred)
    check_lengths("target_lengths", target_lengths, target)
    pred, target = zero_padding(pred, pred_lengths), zero_padding(target, target_lengths)
    forth, forth_idx, back, back_idx = mutual_nearest(
        pred, target, src_lengths=pred_lengths, dst_lengths=target_lengths
    )
    of_pred, of_target = _valid(forth, pred_lengths), _valid(back, target_lengths)
    losses = []
    for dist, idx, own, other in (
        (forth, forth_idx, of_pred, of_target),
        (back, back_idx, of_target, of_pred),
    ):
        idx = idx.clamp_min(0)
        count = torch.zeros_like(other, dtype=torch.int64).scatter_add(1, idx, own.long())
        share = count.gather(1, idx).clamp_min(1) ** count_power
        weight = other.sum(1, keepdim=True) / own.sum(1, keepdim=True).clamp_min(1) / share
        losses.append(_mean(1 - weight * torch.exp(-alpha * dist), own))
    return without_empty((losses[0] + losses[1]) / 2, pred_lengths, target_lengths)
