"""The contrastive losses of ReCon."""

import torch.nn.functional as F
from torch import Tensor

TEMPERATURE = 0.1
_NEVER = -1e9  # a logit without weight; -inf would give a batch of one label NaN gradients


def cross_modal(prediction: Tensor, feature: Tensor) -> Tensor:
    """SmoothL1 (beta = 1, mean) between projected tokens [B, D] and frozen teacher features [B, D]."""
    return F.smooth_l1_loss(prediction.float(), feature.float())


def single_modal(embedding: Tensor, label: Tensor) -> Tensor:
    """Contrast of shapes by label: the mean similarity of a row's positives against all its negatives.

    Args:
        embedding: [B, D], normalised here.
        label: [B], integer. Positives share the label; a shape is a positive of itself.

    Returns:
        Mean cross-entropy over the batch, temperature 0.1; 0 for a batch of one label.
    """
    embedding = F.normalize(embedding.float(), dim=-1)
    similarity = embedding @ embedding.T / TEMPERATURE  # [B, B]
    same = label[:, None] == label[None, :]
    positive = (similarity * same).sum(1) / same.sum(1)  # [B]
    negatives = similarity.masked_fill(same, _NEVER).logsumexp(1)
    return F.softplus(negatives - positive).mean()
