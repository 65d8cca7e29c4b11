"""Teacher features brought to zero mean and unit variance, when they are drawn."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from recon_fast.data.rows import Rows, blocks
from recon_fast.data.shapes import Features


class Standardizer:
    """Affine map to zero mean and unit variance per dimension, for each view (or prompt) of its own.

    What a prompt or a kind of view adds to all features says nothing about the shape. With random teachers it
    would be a third of the variance of texts.

    Args:
        features: [S, V, D]; read in blocks.
    """

    def __init__(self, features: Rows) -> None:
        count = len(features)
        total = np.zeros(features.shape[1:])
        for block in blocks(features):
            total += block.sum(0, dtype=np.float64)
        mean = total / count
        square = np.zeros_like(mean)
        for block in blocks(features):
            square += np.square(block - mean).sum(0)
        self.mean = mean.astype(np.float32)  # [V, D]
        self.scale = (1 / np.maximum(np.sqrt(square / count), 1e-6)).astype(np.float32)

    def mean_view(self, features: NDArray) -> NDArray[np.float32]:
        """Features [S, D] that were averaged over the views."""
        return (features.astype(np.float32) - self.mean.mean(0)) * self.scale.mean(0)


def standardize(features: Features) -> Features:
    """Features with the maps that bring them to zero mean and unit variance.

    Class texts are mapped here, with the captions' statistics.
    """
    image = None if features.image is None else Standardizer(features.image)
    text = None if features.text is None else Standardizer(features.text)
    class_text = features.class_text
    if text is not None and class_text is not None:
        class_text = text.mean_view(class_text)
    return replace(
        features,
        class_text=class_text,
        teacher={**features.teacher, "standardized": True},
        image_map=None if image is None else (image.mean, image.scale),
        text_map=None if text is None else (text.mean, text.scale),
    )
