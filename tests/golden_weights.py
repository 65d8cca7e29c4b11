"""Deterministic stand-in weights, so that a golden file needs to store none.

A tensor's values depend on its official name and shape alone.
"""

import zlib

import numpy as np


def golden_tensor(name: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """float32 values of `shape` for the official state-dict entry `name`."""
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    draw = rng.standard_normal(shape).astype(np.float32)
    leaf = name.rsplit(".", 1)[-1]
    if leaf == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    if leaf == "running_var":
        return 1.0 + 0.5 * np.tanh(draw)
    if leaf == "running_mean":
        return 0.1 * draw
    if leaf == "bias":
        return 0.05 * draw
    if leaf == "weight" and len(shape) == 1:  # LayerNorm and BatchNorm scales
        return 1.0 + 0.1 * draw
    if leaf == "weight":
        fan_in = int(np.prod(shape[1:]))
        return draw / np.sqrt(fan_in)
    return 0.1 * draw  # tokens and positions
