"""Precision and random numbers for the teachers."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from recon_fast.teachers.config import TeacherConfig


def autocast(device: torch.device, config: TeacherConfig) -> AbstractContextManager:
    """bfloat16 where the hardware multiplies it fast, float32 elsewhere.

    Random teachers always run in float32: the differences between their features are small against the mean.
    """
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    fast = device.type == "cuda" or capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    if config.weights == "random" or not fast:
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the CPU's global generator for the block, then put its state back; CUDA's is not touched."""
    state = torch.random.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.random.set_rng_state(state)
