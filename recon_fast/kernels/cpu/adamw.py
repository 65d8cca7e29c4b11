"""AdamW (Loshchilov & Hutter, 2019) on the CPU for float32 parameters that are used as bfloat16 copies.

One pass reads the gradient, which is bfloat16, and writes the parameter, its moments and its copy.
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


class Update(NamedTuple):
    """What an update of one parameter reads and writes; all contiguous and of one shape."""

    parameter: Tensor  # float32
    exp_avg: Tensor  # float32
    exp_avg_sq: Tensor  # float32
    copy: Tensor  # bfloat16
    grad: Tensor  # bfloat16


class Rates(NamedTuple):
    """Of one parameter, with its step in them."""

    keep: float  # 1 - lr * weight_decay
    size: float  # lr / (1 - beta1^step)
    unbias: float  # 1 / sqrt(1 - beta2^step)


def _pointers(kind):
    def at(typing_context, address):
        def generate(context, builder, signature, args):
            return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

        return types.CPointer(kind)(address), generate

    return intrinsic(at)


_floats, _halves = _pointers(types.float32), _pointers(types.uint16)


@compiled_loose
def update_piece(parameter, exp_avg, exp_avg_sq, copy, grad, rates, beta1, beta2, eps, scale):
    keep, size, unbias = rates[0], rates[1], rates[2]
    one = np.float32(1)
    for i in range(parameter.shape[0]):
        g = widen(grad[i]) * scale
        m = beta1 * exp_avg[i] + (one - beta1) * g
        v = beta2 * exp_avg_sq[i] + (one - beta2) * g * g
        w = parameter[i] * keep - size * m / (np.sqrt(v) * unbias + eps)
        exp_avg[i] = m
        exp_avg_sq[i] = v
        parameter[i] = w
        copy[i] = narrow(w, copy[i])


@compiled_loose
def _adamw(counter, items, addresses, sizes, ends, rates, beta1, beta2, eps, scale):
    """Item: a piece of one parameter; those of parameter t end at ends[t]."""
    while True:
        item = next_item(counter)
        if item >= items:
            break
        t = np.searchsorted(ends, item, "right")
        first = (item - (ends[t - 1] if t > 0 else 0)) * _PIECE
        n = min(_PIECE, sizes[t] - first)
        parameter = carray(_floats(addresses[t, 0] + 4 * first), n)
        exp_avg = carray(_floats(addresses[t, 1] + 4 * first), n)
        exp_avg_sq = carray(_floats(addresses[t, 2] + 4 * first), n)
        copy = carray(_halves(addresses[t, 3] + 2 * first), n)
        grad = carray(_halves(addresses[t, 4] + 2 * first), n)
        update_piece(parameter, exp_avg, exp_avg_sq, copy, grad, rates[t], beta1, beta2, eps, scale)


def adamw(
    updates: Sequence[Update],
    rates: Sequence[Rates],  # one for each
    beta1: float,
    beta2: float,
    eps: float,
    scale: float,  # factor on the gradients
) -> None:
    """One step of all parameters, in place."""
    addresses = np.array([[tensor.data_ptr() for tensor in update] for update in updates], np.int64)
    sizes = np.array([update.parameter.numel() for update in updates], np.int64)
    ends = np.cumsum(-(-sizes // _PIECE))
    constants = (np.float32(value) for value in (beta1, beta2, eps, scale))
    run(_adamw, int(ends[-1]), addresses, sizes, ends, np.array(rates, np.float32), *constants)
