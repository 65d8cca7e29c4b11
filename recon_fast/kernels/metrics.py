"""Measures of two clouds built on nearest neighbours: F-score and the density-aware Chamfer distance."""

from typing import NamedTuple

import torch
from torch import Tensor

from recon_fast.kernels.nearest import check_pair, search_both_ways
from recon_fast.kernels.reference import squared_radius


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
