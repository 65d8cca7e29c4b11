"""Argument checks shared by the operators: wanted, got, which argument."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

_UNSIGNED = {torch.int32: np.uint32, torch.int64: np.uint64}


def check_tensor(name: str, value: object) -> None:
    """Raise unless `value` is a tensor."""
    if not isinstance(value, Tensor):
        kind = type(value)
        module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
        raise TypeError(f"{name} must be a torch.Tensor, got {module}{kind.__qualname__}")


def check_cloud(
    name: str, cloud: Tensor, like: str = "", other: Tensor | None = None, *, width: int | None = 3
) -> None:
    """Raise unless `cloud` is a non-empty floating point [B, N, width], of any width if that is None.

    With `other` it has as many clouds, and as wide ones.
    """
    _check_rows(name, cloud, 3, like, other, width)


def check_points(
    name: str, points: Tensor, like: str = "", other: Tensor | None = None, *, width: int | None = 3
) -> None:
    """Raise unless `points` is a non-empty floating point [N, width], of the width of `other`."""
    _check_rows(name, points, 2, like, other, width)


def _check_rows(
    name: str, rows: Tensor, axes: int, like: str, other: Tensor | None, width: int | None
) -> None:
    check_tensor(name, rows)
    shape = rows.shape
    batch = "B" if other is None else other.shape[0]
    width = width if other is None else other.shape[-1]
    if (
        len(shape) != axes
        or shape[-1] != (width or shape[-1])
        or (axes == 3 and other is not None and shape[0] != other.shape[0])
    ):
        want = f"[{batch}, N, {width or 'D'}]" if axes == 3 else f"[N, {width or 'D'}]"
        hint = _hint(name, rows, axes, width or 3)
        if not hint and other is not None:
            hint = f"; {like} is {tuple(other.shape)}"
        raise ValueError(f"{name} must be {want}, got {tuple(shape)}{hint}")
    if not rows.is_floating_point():
        raise ValueError(f"{name} must have a floating point dtype, got {rows.dtype}")
    if 0 in shape:
        least = "one cloud of one point" if axes == 3 else "one point"
        raise ValueError(f"{name} must hold at least {least}, got {tuple(shape)}")


def _hint(name: str, rows: Tensor, axes: int, width: int) -> str:
    """What to pass instead of a tensor that has another shape."""
    if rows.ndim not in (2, axes) or (rows.ndim == axes and rows.shape[-1] == width):
        return ""
    one = "[None]" if rows.ndim < axes else ""
    if rows.shape[-1] == width:
        return f"; for one cloud pass {name}{one}"
    return f"; it looks transposed: pass {name}.mT{one}" if rows.shape[-2] == width else ""


def to_3d(points: Tensor) -> Tensor:
    """Points [..., D] with D < 3 as [..., 3]: zeros change no distance."""
    return F.pad(points, (0, 3 - points.shape[-1])) if points.shape[-1] < 3 else points


def check_same_device(**tensors: Tensor | None) -> None:
    """Raise unless all tensors that are given sit on one device."""
    first = None
    for tensor in tensors.values():
        if tensor is not None:
            device = tensor.device
            if first is None:
                first = device
            elif device != first:
                places = ", ".join(f"{name} on {t.device}" for name, t in tensors.items() if t is not None)
                raise ValueError(f"all tensors must be on one device, got {places}")


def in_one_dtype(**tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors as autocast wants them; raise unless they have one floating point dtype then."""
    first = next(iter(tensors.values()))
    kind, given = first.device.type, tuple(tensors.values())
    if first.is_floating_point() and first.dtype != torch.float64 and torch.is_autocast_enabled(kind):
        given = tuple(t.to(torch.get_autocast_dtype(kind)) for t in given)
    dtypes = [t.dtype for t in given]
    if len(set(dtypes)) > 1 or not given[0].is_floating_point():
        *most, last = tensors
        raise ValueError(
            f"{', '.join(most)} and {last} must have one floating point dtype, "
            f"got {', '.join(map(str, dtypes))}"
        )
    return given


def check_lengths(name: str, lengths: Tensor | None, batch: int) -> None:
    """Raise unless `lengths` is None or an int32 or int64 [B]. Does not read the values."""
    if lengths is None:
        return
    check_tensor(name, lengths)
    if lengths.shape != (batch,) or lengths.dtype not in _UNSIGNED:
        got = f"{lengths.dtype} {tuple(lengths.shape)}"
        raise ValueError(f"{name} must be an int32 or int64 [{batch}], got {got}")


def read_lengths(name: str, lengths: Tensor | None, size: int) -> Tensor | None:
    """The lengths as kernels read them, contiguous; raise unless they lie between 0 and `size`.

    Those on a GPU are not looked at, the CPU would have to wait for them: what is below 0 counts as 0 there,
    and what is above `size` as `size`.
    """
    # As unsigned numbers negative ones are the largest.
    if (
        lengths is not None
        and lengths.device.type == "cpu"
        and np.maximum.reduce(lengths.numpy().view(_UNSIGNED[lengths.dtype])) > size
    ):
        cloud, length = next((i, n) for i, n in enumerate(lengths.tolist()) if not 0 <= n <= size)
        raise ValueError(
            f"{name} must be between 0 and {size}, the points of a cloud, got {length} for cloud {cloud}"
        )
    return None if lengths is None else lengths.contiguous()


def check_count(name: str, count: int, cloud: Tensor, what: str) -> None:
    """Raise unless 1 <= count <= N of a cloud [B, N, D]."""
    most = cloud.shape[1]
    if not 1 <= count <= most:
        hint = f"; [B, N, D] is wanted, got {tuple(cloud.shape)}" if most == 3 else ""
        raise ValueError(f"{name} must be between 1 and the {most} {what}, got {count}{hint}")
