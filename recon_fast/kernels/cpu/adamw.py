"""AdamW (Loshchilov & Hutter, 2019) on the CPU for float32 parameters that are used as bfloat16 copies.

One pass reads the gradient, which is bfloat16, and writes the parameter, its moments and its copy.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numba import carray, types
from numba.extending import intrinsic
from torch import Tensor

from recon_fast.kernels.cpu.launch import compiled, compiled_loose, run, taken
from recon_fast.kernels.cpu.rows import put, widen

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
        put(copy, i, w)


@compiled_loose
def sum_of_squares(values):
    total = np.float32(0)
    for i in range(values.shape[0]):
        v = widen(values[i])
        total += v * v
    return total


@compiled
def piece_of(item, sizes, ends):
    """Which tensor an item is of, where it begins there and how many values it has."""
    t = np.searchsorted(ends, item, "right")
    first = (item - (ends[t - 1] if t > 0 else 0)) * _PIECE
    return t, first, min(_PIECE, sizes[t] - first)


@compiled
def _squares(counter, items, addresses, sizes, ends, sums):
    for item in taken(counter.ctypes.data, items):
        t, first, n = piece_of(item, sizes, ends)
        sums[item] = sum_of_squares(carray(_halves(addresses[t] + 2 * first), n))


@compiled_loose
def _adamw(counter, items, addresses, sizes, ends, rates, beta1, beta2, eps, scale):
    for item in taken(counter.ctypes.data, items):
        t, first, n = piece_of(item, sizes, ends)
        parameter = carray(_floats(addresses[t, 0] + 4 * first), n)
        exp_avg = carray(_floats(addresses[t, 1] + 4 * first), n)
        exp_avg_sq = carray(_floats(addresses[t, 2] + 4 * first), n)
        copy = carray(_halves(addresses[t, 3] + 2 * first), n)
        grad = carray(_halves(addresses[t, 4] + 2 * first), n)
        update_piece(parameter, exp_avg, exp_avg_sq, copy, grad, rates[t], beta1, beta2, eps, scale)


def _pieces(tensors: Sequence[Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """Sizes of the tensors, and which item is the first behind each."""
    sizes = np.array([tensor.numel() for tensor in tensors], np.int64)
    return sizes, np.cumsum(-(-sizes // _PIECE))


def squared_norm(grads: Sequence[Tensor]) -> float:
    """Sum of the squares of all values of contiguous bfloat16 tensors."""
    sizes, ends = _pieces(grads)
    sums = np.empty(ends[-1], np.float64)
    run(_squares, len(sums), np.array([grad.data_ptr() for grad in grads]), sizes, ends, sums)
    return float(sums.sum())


def adamw(
    updates: Sequence[Update],
    rates: Sequence[Rates],  # one for each
    beta1: float,
    beta2: float,
    eps: float,
    scale: float,  # factor on the gradients
) -> None:
    """One step of all parameters, in place."""
    sizes, ends = _pieces([update.parameter for update in updates])
    addresses = np.array([[tensor.data_ptr() for tensor in update] for update in updates], np.int64)
    constants = (np.float32(value) for value in (beta1, beta2, eps, scale))
    run(_adamw, int(ends[-1]), addresses, sizes, ends, np.array(rates, np.float32), *constants)
