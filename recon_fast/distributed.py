"""Processes that torchrun started, one device each, and a batch that they hold between them in equal parts.

With one process, or without torch.distributed, everything here is the identity.
"""

import gc
import importlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from recon_fast.device import resolve_device
from recon_fast.errors import InputError, first_line

T = TypeVar("T")
_PATIENCE = timedelta(hours=1)  # the others wait while the first process computes teacher features or probes
_LOST = re.compile(r"gloo|NCCL|[Cc]onnection|[Tt]imed? ?out|ProcessGroup|[Ss]ocket|recvValue")


class RankLost(InputError):
    """Another process of the job is gone, or cannot be reached."""


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


def _processes() -> int:
    """How many processes torchrun has started."""
    given = os.environ.get("WORLD_SIZE", "1")
    if not given.isdecimal() or int(given) < 1:
        raise InputError(f"WORLD_SIZE must be a number of processes, as torchrun sets it, got {given!r}")
    return int(given)


@contextmanager
def process_group(device: str) -> Iterator[torch.device]:
    """The device to train on; under torchrun it is this process's own, and the processes are connected."""
    if _processes() == 1 or dist.is_initialized():
        yield resolve_device(device)
        return
    if device in ("auto", "cuda") and torch.cuda.is_available():
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    own = resolve_device(device)
    if own.type == "cuda":
        torch.cuda.set_device(own)
    from torch.distributed.rendezvous import rendezvous

    # DistributedDataParallel imports it, and its functions keep the group that is the default one by then.
    importlib.import_module("torch.distributed.nn")
    try:
        with lost_ranks(lambda: "before the first step"):
            store, number, count = next(rendezvous("env://", timeout=_PATIENCE))
            if os.environ.get("GROUP_WORLD_SIZE") == "1":
                # torchrun keeps its store over restarts, with the addresses of processes that are gone.
                store = dist.PrefixStore(f"start {os.environ.get('TORCHELASTIC_RESTART_COUNT')}", store)
            backend = "nccl" if own.type == "cuda" else "gloo"
            dist.init_process_group(backend, store=store, rank=number, world_size=count, timeout=_PATIENCE)
            yield own
    finally:
        if dist.is_initialized():
            with suppress(RuntimeError):
                dist.destroy_process_group()
            # An interpreter that ends while a group still has threads may end with SIGABRT.
            gc.collect()


@contextmanager
def lost_ranks(where: Callable[[], str]) -> Iterator[None]:
    """Turn what torch.distributed raises when a process is gone into a `RankLost` that says where."""
    try:
        yield
    except RuntimeError as error:
        if _processes() == 1 or not (isinstance(error, dist.DistError) or _LOST.search(str(error))):
            raise
        reason = first_line(error)
        raise RankLost(f"process {rank()} lost another process of the job {where()}: {reason}") from error


def from_first(make: Callable[[], T]) -> T:
    """What `make` gives in the first process, in all of them; where it raises InputError, all of them end."""
    if world_size() == 1:
        return make()
    told: list[Any] = [None, None]
    error = None
    if rank() == 0:
        try:
            told = [True, make()]
        except InputError as raised:
            told, error = [False, None], raised
    dist.broadcast_object_list(told)
    if error is not None:
        raise error
    if not told[0]:
        raise SystemExit(2)  # the first process says why
    return told[1]


def mean_and_any(values: Tensor, flag: bool) -> Tensor:
    """Means over processes of values [V], then a number above 0 if `flag` holds in one of them: [V + 1]."""
    both = torch.cat([values, values.new_full((1,), float(flag))])
    if world_size() > 1:
        dist.all_reduce(both)
        both /= world_size()
    return both
