"""Training in several processes under torchrun: one device each, DistributedDataParallel between them."""

import gc
import importlib
import os
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from recon_fast.device import resolve_device
from recon_fast.distributed import gather_rows, own_rows, rank, world_size
from recon_fast.errors import InputError, first_line
from recon_fast.models.tokenizer import FoldedNorm

T = TypeVar("T")
_PATIENCE = timedelta(hours=1)  # the others wait while the first process computes teacher features or probes


class RankLost(InputError):
    """Another process of the job is gone, or cannot be reached."""


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


_LOST = re.compile(r"gloo|NCCL|[Cc]onnection|[Tt]imed? ?out|ProcessGroup|[Ss]ocket|recvValue")


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


def _over_all(mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [C] and biased variance [C] over the rows of all processes, each of which has as many."""
    means, variances = gather_rows(torch.stack([mean, var])[None]).unbind(1)  # [W, C] each
    mean = means.mean(0)
    return mean, (variances + (means - mean).square()).mean(0)


class _SyncedNorm(FoldedNorm):
    """Batch norm with the statistics of all processes: folded into a layer, or a layer of its own."""

    def fold(self, count: int, statistics: Callable[[], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        return super().fold(count * world_size(), lambda: _over_all(*statistics()))

    def forward(self, x: Tensor) -> Tensor:
        """x [B, C]."""
        if not self.training:
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            x = x.float()
            mean, var = _over_all(x.mean(0), x.var(0, correction=0))
            factor, _ = super().fold(len(x) * world_size(), lambda: (mean, var))
            # Differences first: early in training, global tokens are far from 0 and close together.
            return (x - mean) * factor + self.bias


def _share_norms(model: nn.Module) -> None:
    """Let batch norms normalise over the batches of all processes."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.BatchNorm1d):
                shared = _SyncedNorm(child.num_features, eps=child.eps, momentum=child.momentum)
                shared.weight, shared.bias = child.weight, child.bias
                for buffer, value in child.named_buffers():
                    setattr(shared, buffer, value)
                setattr(module, name, shared.train(child.training))


class _SharedDropout(nn.Dropout):
    """Dropout that draws for the whole batch, of which this process takes its rows."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        return x * own_rows(len(x), lambda n: nn.functional.dropout(x.new_ones(n, *x.shape[1:]), self.p))


def _share_dropout(model: nn.Module) -> None:
    """Let dropout draw alike, however many processes a batch is divided over."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Dropout):
                setattr(module, name, _SharedDropout(child.p).train(child.training))


class Terms(nn.Module):
    """From a batch to the losses of a model by name.

    Args:
        model: called with the `inputs` of a `Batch`, it gives something with `losses`.
        sync_norm: batch norms take the statistics of all processes.

    Attributes:
        run: what computes them; `compile_terms` may put a compiled one in its place.
    """

    def __init__(self, model: nn.Module, sync_norm: bool) -> None:
        super().__init__()
        if sync_norm and world_size() > 1:
            _share_norms(model)
        if world_size() > 1:
            _share_dropout(model)
        self.model = model
        self.run: Callable[..., dict[str, Tensor]] = self.losses

    def losses(self, *batch: Tensor | None) -> dict[str, Tensor]:
        """The losses, uncompiled."""
        return self.model(*batch).losses

    def forward(self, *batch: Tensor | None) -> dict[str, Tensor]:
        return self.run(*batch)


def averaged(terms: Terms, device: torch.device) -> nn.Module:
    """`terms` as a module whose backward averages gradients over all processes."""
    if world_size() == 1:
        return terms
    # Of tokens [1, 1, C], whose gradients may have any strides along dimensions of size 1.
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    return DistributedDataParallel(
        terms,
        device_ids=[device.index] if device.type == "cuda" else None,
        gradient_as_bucket_view=True,
        # Which parameters a loss reaches never changes. A static graph takes no `no_sync`, so that each
        # micro-batch is reduced.
        static_graph=True,
    )
