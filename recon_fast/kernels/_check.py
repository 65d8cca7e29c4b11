"""Argument checks shared by the operators: wanted, got, which argument."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad


def transformed() -> bool:
    """Whether torch.func or forward-mode differentiation follows the tensors of this thread.

    The kernels have no rules for these, so the operators are computed in plain PyTorch then.
    """
    if torch.compiler.is_compiling():
        return False
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def check_tensor(name: str, given: Any) -> None:
    """Raise TypeError unless `given` is a tensor."""
    if not isinstance(given, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(given).__module__}.{type(given).__name__}")


def check_cloud(name: str, cloud: Tensor, batch: int | None = None) -> None:
    """Raise unless `cloud` is a non-empty floating point [B, N, 3] (with the given B)."""
    check_tensor(name, cloud)
    if cloud.ndim != 3 or cloud.shape[-1] != 3 or (batch is not None and cloud.shape[0] != batch):
        want = f"[{'B' if batch is None else batch}, N, 3]"
        turned = cloud.ndim == 3 and cloud.shape[1] == 3 and cloud.shape[2] != 3
        hint = f": it looks transposed, {name}.transpose(1, 2) is what is wanted" if turned else ""
        raise ValueError(f"{name} must be {want}, got {tuple(cloud.shape)}{hint}")
    if not cloud.is_floating_point():
        raise ValueError(f"{name} must have a floating point dtype, got {cloud.dtype}")
    if cloud.shape[0] == 0 or cloud.shape[1] == 0:
        raise ValueError(f"{name} must hold at least one cloud of one point, got {tuple(cloud.shape)}")


def check_same_device(**tensors: Tensor | None) -> None:
    """Raise unless all tensors that are given sit on one device."""
    devices = {name: t.device for name, t in tensors.items() if t is not None}
    if len(set(devices.values())) > 1:
        raise ValueError(
            "all tensors must be on one device, got " + ", ".join(f"{n} on {d}" for n, d in devices.items())
        )


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


def check_lengths(name: str, lengths: Tensor | None, cloud: Tensor) -> None:
    """Raise unless `lengths` is None or an integer [B] from 0 to N for a cloud [B, N, 3].

    Values are read on a CPU alone: on a GPU that would wait for it.
    """
    if lengths is None:
        return
    check_tensor(name, lengths)
    batch, size = cloud.shape[:2]
    if lengths.shape != (batch,) or lengths.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"{name} must be an integer [{batch}], got {lengths.dtype} {tuple(lengths.shape)}")
    if (values := known_values(lengths)) is not None and (min(values) < 0 or max(values) > size):
        raise ValueError(f"{name} must be between 0 and the {size} points of a cloud, got {values}")


def known_values(tensor: Tensor) -> list[Any] | None:
    """The values of a small tensor where reading them costs no wait; None on a GPU or while it is traced."""
    if (
        tensor.device.type != "cpu"
        or type(tensor) is not Tensor
        or torch.compiler.is_compiling()
        or transformed()
    ):
        return None
    return tensor.numpy().tolist()


def check_count(name: str, count: int, most: int, what: str) -> None:
    """Raise unless 1 <= count <= most."""
    if not 1 <= count <= most:
        raise ValueError(f"{name} must be between 1 and the {most} {what}, got {count}")
