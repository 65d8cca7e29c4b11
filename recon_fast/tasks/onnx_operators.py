"""The operators of the kernels in standard ONNX, for the exporter of torch.

Ties are broken as in the kernels: ArgMax and TopK take the smallest index of equal values.
"""

from collections.abc import Callable
from typing import Any

import torch
from onnxscript import FLOAT, INT64, opset18, script

from recon_fast.kernels.reference.points import NEAR_ORIGIN

op: Any = opset18

_NOT_YET, _PASSED_OVER, _CHOSEN = float("inf"), -1.0, -2.0  # in place of a distance, as in the reference


@script()
def _sample(xyz: FLOAT[...], count: INT64, distance: FLOAT[...], chosen: FLOAT) -> INT64[...]:  # type: ignore
    clouds = op.Shape(xyz, start=0, end=1)
    points = op.Shape(xyz, start=1, end=2)
    if op.Squeeze(points) == count:  # all of them: what follows does not depend on their order
        idx = op.Expand(op.Range(0, count, 1), op.Concat(clouds, points, axis=0))
    else:
        planes = op.Transpose(xyz, perm=[0, 2, 1])  # [B, 3, N]
        current = op.Expand(op.Constant(value_ints=[0]), op.Concat(clouds, [1], axis=0))  # [B, 1]
        idx = op.Expand(op.Constant(value_ints=[0]), op.Concat(clouds, op.Reshape(count, [1]), axis=0))
        for i in range(count):  # type: ignore
            idx = op.ScatterElements(idx, op.Expand(i, op.Shape(current)), current, axis=1)
            offset = planes - op.Unsqueeze(op.GatherND(xyz, current, batch_dims=1), [2])
            squares = op.ReduceSum(offset * offset, [1], keepdims=0)  # [B, N]
            distance = op.Min(distance, squares)
            distance = op.ScatterElements(distance, current, op.Expand(chosen, op.Shape(current)), axis=1)
            current = op.ArgMax(distance, axis=1, keepdims=1)
    return idx


def _farthest_point_sample(
    xyz: Any, num_samples: Any, _lengths: None, _start: int, skip_near_origin: bool
) -> Any:
    count = op.Constant(value_int=num_samples) if isinstance(num_samples, int) else num_samples
    near = NEAR_ORIGIN if skip_near_origin else -1.0
    norm = op.ReduceSumSquare(xyz, [2], keepdims=0)
    first = op.Where(
        op.LessOrEqual(norm, op.Constant(value_float=near)),
        op.Constant(value_float=_PASSED_OVER),
        op.Constant(value_float=_NOT_YET),
    )
    return _sample(xyz, count, first, op.Constant(value_float=_CHOSEN))


def _group(xyz: Any, center_idx: Any, k: int, _lengths: None) -> tuple[Any, Any, Any]:
    centers = op.GatherND(xyz, op.Unsqueeze(center_idx, [2]), batch_dims=1)  # [B, G, 3]
    total = None
    for axis in range(3):
        queries = op.Gather(centers, op.Constant(value_ints=[axis]), axis=2)  # [B, G, 1]
        points = op.Unsqueeze(op.Gather(xyz, op.Constant(value_int=axis), axis=2), [1])  # [B, 1, N]
        offset = op.Sub(queries, points)
        square = op.Mul(offset, offset)
        total = square if total is None else op.Add(total, square)
    _, idx = op.TopK(total, op.Constant(value_ints=[k]), largest=0)  # [B, G, K]
    near = op.GatherND(xyz, op.Unsqueeze(idx, [3]), batch_dims=1)
    return centers, op.Sub(near, op.Unsqueeze(centers, [2])), idx


def _linear_max(x: Any, weight: Any, bias: Any) -> tuple[Any, Any]:
    values = op.Add(op.MatMul(x, op.Transpose(weight, perm=[1, 0])), bias)
    return op.ReduceMax(values, [1], keepdims=0), op.ArgMax(values, axis=1, keepdims=0)


def translations() -> dict[Callable, Callable]:
    """For `custom_translation_table` of torch.onnx.export."""
    ours = torch.ops.recon_fast
    return {
        ours.farthest_point_sample.default: _farthest_point_sample,
        ours.group.default: _group,
        ours.linear_max.default: _linear_max,
    }
