"""How much memory a run takes, and how to take less."""

import sys
from functools import partial

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from recon_fast.models.blocks import Block, ReConBlock


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


def recompute_blocks(model: nn.Module) -> None:
    """Let the transformer blocks keep their inputs alone and run again in the backward pass (Chen et al.,
    "Training deep nets with sublinear memory cost", 2016); drop-path draws are the same both times.
    """
    for module in model.modules():
        if isinstance(module, Block | ReConBlock):
            module.forward = partial(checkpoint, module.forward, use_reentrant=False)  # type: ignore[method-assign]
