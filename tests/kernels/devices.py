"""Tests that name no device, run on any."""

from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._device import _device_constructors
from torch.utils._pytree import tree_map_only


class OnDevice(TorchFunctionMode):
    """What is made without a device is made on the CPU, with its generator, and moved to this one."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device = torch.device(device)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func not in _device_constructors() or kwargs.get("device") is not None:
            return func(*args, **kwargs)
        needs_grad = kwargs.pop("requires_grad", False)
        return func(*args, **kwargs).to(self.device).requires_grad_(needs_grad)


def here(tree: Any) -> Any:
    """The tensors of a test's constants where tensors are made now; leaves stay leaves."""
    device = torch.empty(0).device
    return tree_map_only(
        torch.Tensor, lambda t: t.detach().clone().to(device).requires_grad_(t.requires_grad), tree
    )


def device_type() -> str:
    """Of the device where tensors are made now."""
    return torch.empty(0).device.type
