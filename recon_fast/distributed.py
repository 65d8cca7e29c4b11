"""Processes that train together: which one this is, and a batch that they hold between them in equal parts.

With one process, or without torch.distributed, everything here is the identity.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

T = TypeVar("T")


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def own_rows(count: int, draw: Callable[[int], Tensor]) -> Tensor:
    """This process's `count` rows of what one process would draw for the whole batch; `draw(n)` gives n rows.

    All processes have seeded their generators alike, so the whole batch gets the same draws in any division.
    """
    return draw(count * world_size())[rank() * count :][:count]


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        whole = x.new_empty(world_size() * len(x), *x.shape[1:])
        dist.all_gather(list(whole.chunk(world_size())), x.contiguous())
        return whole

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        grad = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(grad)
        return grad.chunk(world_size())[rank()]


def gather_rows(x: Tensor) -> Tensor:
    """Rows [B, ...] of all processes in order of their ranks: [world_size B, ...].

    The gradient of a process's rows is the sum over the losses of all processes.
    """
    return x if world_size() == 1 else _GatherRows.apply(x)


def shared_in_turn(own: list[T]) -> list[T]:
    """All processes' items, where process r of W made items r, r + W, r + 2 W, ...; in all of them."""
    if world_size() == 1:
        return own
    found: list[Any] = [None] * world_size()
    dist.all_gather_object(found, own)
    return [found[i % len(found)][i // len(found)] for i in range(sum(map(len, found)))]


def broadcast_buffers(model: nn.Module) -> None:
    """Give all processes the first one's buffers."""
    if world_size() > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)
