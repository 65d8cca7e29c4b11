"""AdamW (Loshchilov & Hutter, 2019) on the CPU for float32 weights that are multiplied from bfloat16 copies.

One pass reads the gradient, which is bfloat16, and writes the weight, its moments and its copy.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numba import carray, types
from numba.extending import intrinsic
from torch import Tensor

from recon_fast.kernels.cpu.bits import narrow, widen
from recon_fast.kernels.cpu.launch import compiled_loose, next_item, run

_PIECE = 1 << 15  # values of one item of work


class Matrix(NamedTuple):
    """What an update of one weight reads and writes; all contiguous and of one shape."""

    weight: Tensor  # float32
    exp_avg: Tensor  # float32
    exp_avg_sq: Tensor  # float32
    copy: Tensor  # bfloat16
    grad: Tensor  # bfloat16


class Rates(NamedTuple):
    """Of one weight, with its step in them."""

    keep: float  # 1 - lr * weight_decay
    size: float  # lr / (1 - beta1^step)
    root: float  # sqrt(1 - beta2^step)


def _pointers(kind):
    def at(typing_context, address):
        def generate(context, builder, signature, args):
            return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

        return types.CPointer(kind)(address), generate

    return intrinsic(at)


_floats, _halves = _pointers(types.float32), _pointers(types.uint16)


@compiled_loose
def update(weight, exp_avg, exp_avg_sq, copy, grad, rates, beta1, beta2, eps, scale):
    keep, size, root = rates[0], rates[1], rates[2]
    one = np.float32(1)
    for i in range(weight.shape[0]):
        g = widen(grad[i]) * scale
        m = beta1 * exp_avg[i] + (one - beta1) * g
        v = beta2 * exp_avg_sq[i] + (one - beta2) * g * g
        w = weight[i] * keep - size * m / (np.sqrt(v) / root + eps)
        exp_avg[i] = m
        exp_avg_sq[i] = v
        weight[i] = w
        copy[i] = narrow(w, copy[i])


@compiled_loose
def _adamw(counter, items, addresses, sizes, ends, rates, beta1, beta2, eps, scale):
    """Item: a piece of one matrix; those of matrix t end at ends[t]."""
    while True:
        item = next_item(counter)
        if item >= items:
            break
        t = np.searchsorted(ends, item, "right")
        first = (item - (ends[t - 1] if t > 0 else 0)) * _PIECE
        n = min(_PIECE, sizes[t] - first)
        weight = carray(_floats(addresses[t, 0] + 4 * first), n)
        exp_avg = carray(_floats(addresses[t, 1] + 4 * first), n)
        exp_avg_sq = carray(_floats(addresses[t, 2] + 4 * first), n)
        copy = carray(_halves(addresses[t, 3] + 2 * first), n)
        grad = carray(_halves(addresses[t, 4] + 2 * first), n)
        update(weight, exp_avg, exp_avg_sq, copy, grad, rates[t], beta1, beta2, eps, scale)


def adamw(
    matrices: Sequence[Matrix],
    rates: Sequence[Rates],  # one for each
    beta1: float,
    beta2: float,
    eps: float,
    scale: float,  # factor on the gradients
) -> None:
    """One step of all matrices, in place."""
    addresses = np.array([[tensor.data_ptr() for tensor in matrix] for matrix in matrices], np.int64)
    sizes = np.array([matrix.weight.numel() for matrix in matrices], np.int64)
    ends = np.cumsum(-(-sizes // _PIECE))
    constants = (np.float32(value) for value in (beta1, beta2, eps, scale))
    run(_adamw, int(ends[-1]), addresses, sizes, ends, np.array(rates, np.float32), *constants)
