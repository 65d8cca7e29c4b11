"""Precision and random numbers for the teachers."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from recon_fast.config.teacher import TeacherConfig
from recon_fast.device import multiplies_bf16_fast


def autocast(device: torch.device, config: TeacherConfig) -> AbstractContextManager:
    """bfloat16 where the hardware multiplies it fast, float32 elsewhere.

    Random teachers always run in float32: the differences between their features are small against the mean.
    """
    if config.weights == "random" or not multiplies_bf16_fast(device):
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
