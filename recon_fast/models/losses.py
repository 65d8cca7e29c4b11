"""The contrastive losses of ReCon."""

import torch.nn.functional as F
from torch import Tensor

from recon_fast.distributed import gather_rows

TEMPERATURE = 0.1
_NEVER = -1e9  # a logit without weight; -inf would give a batch of one label NaN gradients


def cross_modal(prediction: Tensor, feature: Tensor) -> Tensor:
    """SmoothL1 (beta = 1, mean) between projected tokens [B, D] and frozen teacher features [B, D]."""
    return F.smooth_l1_loss(prediction.float(), feature.float())


def single_modal(embedding: Tensor, label: Tensor) -> Tensor:
    """Contrast of shapes by label: the mean similarity of a row's positives against all its negatives.

    Where several processes train, positives and negatives come from the batches of all of them.

    Args:
        embedding: [B, D], normalised here.
        label: [B], integer. Positives share the label; a shape is a positive of itself.

    Returns:
        Mean cross-entropy over the batch, temperature 0.1; 0 for a batch of one label.
    """
    embedding = F.normalize(embedding.float(), dim=-1)
    similarity = embedding @ gather_rows(embedding).T / TEMPERATURE  # [B, W B] of W processes
    same = label[:, None] == gather_rows(label)[None, :]
    positive = (similarity * same).sum(1) / same.sum(1)  # [B]
    negatives = similarity.masked_fill(same, _NEVER).logsumexp(1)
    return F.softplus(negatives - positive).mean()
