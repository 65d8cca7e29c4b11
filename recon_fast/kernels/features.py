"""Features of points by index: gathering, grouping and interpolation, and their gradients.

    sum       out[c, m] = sum_k w[m, k] f[c, i[m, k]]
    scatter   out[c, n] = sum of w[m, k] g[c, m] over all (m, k) with i[m, k] = n
    match     out[m, k] = sum_c g[c, m] f[c, i[m, k]]

PointNet++ (Qi et al., 2017), sections 3.2 and 3.4. The three are the derivatives of one trilinear form: the
gradients of each are the two others. Sums have one order, without atomics.
"""

import torch
from torch import Tensor

from recon_fast.kernels import backend, reference
from recon_fast.kernels._check import check_same_device, check_tensor
from recon_fast.kernels.backend import in_transform


@torch.library.custom_op("recon_fast::sum_features", mutates_args=())
def _sum(features: Tensor, idx: Tensor, weights: Tensor | None) -> Tensor:
    return backend.implementation("gather_features", "sum_features", features)(features, idx, weights)


@_sum.register_fake
def _(features, idx, weights):
    return features.new_empty(*features.shape[:2], idx.shape[1])


@torch.library.custom_op("recon_fast::scatter_features", mutates_args=())
def _scatter(values: Tensor, idx: Tensor, weights: Tensor | None, num_points: int) -> Tensor:
    return backend.implementation("gather_features", "scatter_features", values)(
        values, idx, weights, num_points
    )


@_scatter.register_fake
def _(values, idx, weights, num_points):
    return values.new_empty(*values.shape[:2], num_points)


@torch.library.custom_op("recon_fast::match_features", mutates_args=())
def _match(values: Tensor, features: Tensor, idx: Tensor) -> Tensor:
    return backend.implementation("gather_features", "match_features", features)(values, features, idx)


@_match.register_fake
def _(values, features, idx):
    return features.new_empty(idx.shape, dtype=reference.geometry_dtype(features))


# The same in plain PyTorch where a transform wants derivatives.
def _sums(features: Tensor, idx: Tensor, weights: Tensor | None) -> Tensor:
    return (reference.sum_features if in_transform() else _sum)(features, idx, weights)


def _scattered(values: Tensor, idx: Tensor, weights: Tensor | None, num_points: int) -> Tensor:
    return (reference.scatter_features if in_transform() else _scatter)(values, idx, weights, num_points)


def _matched(values: Tensor, features: Tensor, idx: Tensor) -> Tensor:
    return (reference.match_features if in_transform() else _match)(values, features, idx)


def _save_inputs(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:3])


def _sum_backward(ctx, grad):
    features, idx, weights = ctx.saved_tensors
    needed = ctx.needs_input_grad
    to_features = _scattered(grad, idx, weights, features.shape[2]) if needed[0] else None
    return to_features, None, _matched(grad, features, idx).to(weights.dtype) if needed[2] else None


def _scatter_backward(ctx, grad):
    values, idx, weights = ctx.saved_tensors
    needed = ctx.needs_input_grad
    to_values = _sums(grad, idx, weights) if needed[0] else None
    return to_values, None, _matched(values, grad, idx).to(weights.dtype) if needed[2] else None, None


def _match_backward(ctx, grad):
    values, features, idx = ctx.saved_tensors
    needed = ctx.needs_input_grad
    to_values = _sums(features, idx, grad).to(values.dtype) if needed[0] else None
    to_features = _scattered(values, idx, grad, features.shape[2]).to(features.dtype) if needed[1] else None
    return to_values, to_features, None


_sum.register_autograd(_sum_backward, setup_context=_save_inputs)
_scatter.register_autograd(_scatter_backward, setup_context=_save_inputs)
_match.register_autograd(_match_backward, setup_context=_save_inputs)


def _check(features: Tensor, idx: Tensor) -> None:
    check_tensor("features", features)
    check_tensor("idx", idx)
    if features.ndim != 3 or not features.is_floating_point():
        got = f"{features.dtype} {tuple(features.shape)}"
        raise ValueError(f"features must be a floating point [B, C, N], got {got}")
    if 0 in features.shape:
        raise ValueError(f"features must not be empty, got {tuple(features.shape)}")
    if idx.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"idx must be int32 or int64, got {idx.dtype}")
    if 0 in idx.shape:
        raise ValueError(f"idx must not be empty, got {tuple(idx.shape)}")


def gather_features(features: Tensor, idx: Tensor) -> Tensor:
    """The features of the points `idx` of each cloud: gathers samples, groups neighbourhoods.

    Args:
        features: [B, C, N], floating point.
        idx: [B, ...], int32 or int64; an index outside of [0, N), such as -1, gives 0.

    Returns:
        [B, C, ...] in the dtype of `features`, differentiable in them.

    Raises:
        TypeError: an argument that is not a tensor.
        ValueError: wrong shape, dtype or device.
    """
    _check(features, idx)
    if idx.ndim < 2 or idx.shape[0] != features.shape[0]:
        got = f"{tuple(idx.shape)}; features is {tuple(features.shape)}"
        raise ValueError(f"idx must be [{features.shape[0]}, ...], got {got}")
    check_same_device(features=features, idx=idx)
    return _sums(features, idx.flatten(1)[..., None], None).unflatten(2, idx.shape[1:])


def interpolate_features(features: Tensor, idx: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums of the features of K points: with 3 neighbours, the interpolation of PointNet++.

    Args:
        features: [B, C, N], floating point; summed in float32 (float64 for float64).
        idx: [B, M, K], int32 or int64; an index outside of [0, N), such as -1, adds 0.
        weights: [B, M, K], floating point.

    Returns:
        [B, C, M] in the dtype of `features`, differentiable in features and weights.

    Raises:
        TypeError: an argument that is not a tensor.
        ValueError: wrong shape, dtype or device.
    """
    _check(features, idx)
    if idx.ndim != 3 or idx.shape[0] != features.shape[0]:
        got = f"{tuple(idx.shape)}; features is {tuple(features.shape)}"
        raise ValueError(f"idx must be [{features.shape[0]}, M, K], got {got}")
    check_tensor("weights", weights)
    if weights.shape != idx.shape or not weights.is_floating_point():
        got = f"{weights.dtype} {tuple(weights.shape)}"
        raise ValueError(f"weights must be a floating point {list(idx.shape)} like idx, got {got}")
    check_same_device(features=features, idx=idx, weights=weights)
    return _sums(features, idx, weights)
