"""bfloat16 as numba sees it: 16 bits, widened and rounded inside the loops at half the memory traffic."""

import numpy as np
import torch
from numba import types
from numba.extending import overload
from torch import Tensor

from recon_fast.kernels.cpu.simd import round_to_bf16


def bits_of(tensor: Tensor) -> np.ndarray:
    """A view: of bfloat16 its bits, of any other dtype its values."""
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


def kept(dtype: torch.dtype) -> torch.dtype:
    """What a kernel writes for inputs of this dtype: bfloat16, or float32."""
    return dtype if dtype == torch.bfloat16 else torch.float32


def widen(value):
    """float32 of a float32, or of the 16 bits of a bfloat16."""
    raise NotImplementedError


@overload(widen, inline="always")
def _(value):
    if value == types.uint16:
        return lambda value: np.uint32(np.uint32(value) << np.uint32(16)).view(np.float32)
    return lambda value: value


def narrow(value, like):
    """`value`, or the 16 bits of it rounded to bfloat16 (to nearest even) where `like` is such bits."""
    raise NotImplementedError


@overload(narrow, inline="always")
def _(value, like):
    if like != types.uint16:
        return lambda value, like: value
    return lambda value, like: round_to_bf16(value)
