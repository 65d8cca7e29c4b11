"""Argument checks shared by the operators: wanted, got, which argument."""

import numpy as np
import torch
from torch import Tensor

_UNSIGNED = {torch.int32: np.uint32, torch.int64: np.uint64}


def check_tensor(name: str, value: object) -> None:
    """Raise unless `value` is a tensor."""
    if not isinstance(value, Tensor):
        kind = type(value)
        module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
        raise TypeError(f"{name} must be a torch.Tensor, got {module}{kind.__qualname__}")


def check_cloud(name: str, cloud: Tensor, like: str = "", other: Tensor | None = None) -> None:
    """Raise unless `cloud` is a non-empty floating point [B, N, 3], with as many clouds as `other` has."""
    check_tensor(name, cloud)
    shape = cloud.shape
    if len(shape) != 3 or shape[2] != 3 or (other is not None and shape[0] != other.shape[0]):
        batch = "B" if other is None else other.shape[0]
        hint = _hint(name, cloud)
        if not hint and other is not None:
            hint = f"; {like} is {tuple(other.shape)}"
        raise ValueError(f"{name} must be [{batch}, N, 3], got {tuple(shape)}{hint}")
    if not cloud.is_floating_point():
        raise ValueError(f"{name} must have a floating point dtype, got {cloud.dtype}")
    if shape[0] == 0 or shape[1] == 0:
        raise ValueError(f"{name} must hold at least one cloud of one point, got {tuple(shape)}")


def check_points(name: str, points: Tensor) -> None:
    """Raise unless `points` is a non-empty floating point [N, 3]."""
    check_tensor(name, points)
    shape = points.shape
    if len(shape) != 2 or shape[1] != 3:
        hint = f"; it looks transposed: pass {name}.mT" if len(shape) == 2 and shape[0] == 3 else ""
        raise ValueError(f"{name} must be [N, 3], got {tuple(shape)}{hint}")
    if not points.is_floating_point():
        raise ValueError(f"{name} must have a floating point dtype, got {points.dtype}")
    if shape[0] == 0:
        raise ValueError(f"{name} must hold at least one point, got {tuple(shape)}")


def _hint(name: str, cloud: Tensor) -> str:
    """What to pass instead of a tensor that is no [B, N, 3]."""
    if cloud.ndim not in (2, 3) or (cloud.ndim == 3 and cloud.shape[2] == 3):
        return ""
    one = "[None]" if cloud.ndim == 2 else ""
    if cloud.shape[-1] == 3:
        return f"; for one cloud pass {name}{one}"
    return f"; it looks transposed: pass {name}.mT{one}" if cloud.shape[-2] == 3 else ""


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


def check_count(name: str, count: int, most: int, what: str) -> None:
    """Raise unless 1 <= count <= most."""
    if not 1 <= count <= most:
        raise ValueError(f"{name} must be between 1 and the {most} {what}, got {count}")
