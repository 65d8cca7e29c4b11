"""Which shapes a downstream task trains, selects and tests on."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recon_fast.config.downstream import DownstreamConfig
from recon_fast.data.batches.labelled import split_off
from recon_fast.data.shapes import Shapes
from recon_fast.errors import InputError


@dataclass
class Splits:
    """Rows of the shapes for each purpose, and what picks the checkpoint."""

    train: NDArray[np.int64]
    select: NDArray[np.int64] | None
    test: NDArray[np.int64]
    selected_on: str  # "validation", "test" or "last epoch"


def choose_splits(shapes: Shapes, config: DownstreamConfig) -> Splits:
    """Rows to train, to select and to test on. Raises InputError where labels or a side are missing."""
    if shapes.labels is None:
        raise InputError(f"data must have labels, got none in {shapes.name}")
    test, train = shapes.rows("test"), shapes.rows("trainval")
    for name, rows in (("train on", train), ("test on", test)):
        if not len(rows):
            raise InputError(f"data must have shapes to {name}, got none in {shapes.name}")
    if config.official_protocol:
        return Splits(train, test, test, "test")
    if shapes.validation is not None and shapes.validation.any():
        return Splits(shapes.rows("train"), shapes.rows("val"), test, "validation")
    validating = split_off(shapes.labels, train, config.validation, config.seed)
    if not validating.any():
        return Splits(train, None, test, "last epoch")
    return Splits(train[~validating], train[validating], test, "validation")
