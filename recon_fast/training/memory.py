"""How much memory a run takes, and how to take less."""

import ctypes
import sys
from functools import partial

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from recon_fast.config import ReConConfig
from recon_fast.data.batches.resident import free_memory
from recon_fast.errors import InputError
from recon_fast.models.blocks import Block, ReConBlock

_M_MXFAST, _M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = 1, -1, -3  # of malloc.h


def peak_memory(device: torch.device) -> int | None:
    """Most bytes held so far: on a GPU by torch's allocator, on a CPU by the process; None if none tells."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def check_memory(config: ReConConfig, device: torch.device) -> None:
    """Raise InputError unless a model to train may fit into the free memory of a device.

    Counted are the weights of attention and MLP alone, with their gradients and moments.
    """
    needed = 16 * 12 * config.dim**2 * (config.depth + config.decoder_depth)
    free = free_memory(device)
    if needed > free:
        raise InputError(
            f"model.dim {config.dim} and model.depth {config.depth} need at least {needed / 2**30:,.1f} GiB "
            f"of memory to train, {free / 2**30:,.1f} are free on {device}"
        )


def keep_freed_memory() -> bool:
    """Let the C library keep the memory that a step frees, for the next one; whether it does.

    By default it hands large pieces back to the system, and a step then spends its time on fresh pages:
    34,000 page faults and a seventh of a step of the base model (batch 16, bf16, two CPU cores) are gone with
    it. The process holds on to the most that it ever held. Small pieces are no longer set aside in lists that
    every large one sorts through again (1 % of that step). For Linux's glibc; elsewhere nothing happens.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    options = {_M_TRIM_THRESHOLD: 1 << 30, _M_MMAP_THRESHOLD: 1 << 30, _M_MXFAST: 0}
    return all(mallopt(option, value) == 1 for option, value in options.items())


def recompute_blocks(model: nn.Module) -> None:
    """Let the transformer blocks keep their inputs alone and run again in the backward pass (Chen et al.,
    "Training deep nets with sublinear memory cost", 2016); drop-path draws are the same both times.
    """
    for module in model.modules():
        if isinstance(module, Block | ReConBlock):
            module.forward = partial(checkpoint, module.forward, use_reentrant=False)  # type: ignore[method-assign]
