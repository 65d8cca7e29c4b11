"""Which device, which precision, how much memory, and randomness that depends on the step alone."""

import sys
from contextlib import AbstractContextManager, nullcontext

import torch

from recon_fast.errors import InputError, first_line


def resolve_device(name: str) -> torch.device:
    """The device that `name` ("auto", "cpu", "cuda", "cuda:1", ...) stands for."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.ones(1, device=device).item()  # the device `meta` has no values
    except (RuntimeError, AssertionError, ValueError) as error:
        raise InputError(f"device must be one that works here, got {name}: {first_line(error)}") from error
    return device


def multiplies_bf16_fast(device: torch.device) -> bool:
    """Whether bf16 matrix products have hardware of their own: on GPUs that support them, on CPUs with AMX or
    AVX512-BF16, whose products are 2 to 5 times as fast as in fp32.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return device.type == "cpu" and any(capabilities.get(name) for name in ("amx_bf16", "avx512_bf16"))


def resolve_precision(name: str, device: torch.device) -> torch.dtype:
    """torch.bfloat16 or torch.float32 for "auto", "bf16" or "fp32"."""
    if name == "auto":
        name = "bf16" if multiplies_bf16_fast(device) else "fp32"
    return {"bf16": torch.bfloat16, "fp32": torch.float32}[name]


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager:
    """Autocast to `dtype`, nothing for float32."""
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)


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


def seed_step(seed: int, step: int) -> None:
    """Make what the model draws in a step (drop-path) a function of (seed, step).

    A run that is resumed therefore continues bit by bit without a stored generator state. What is drawn of
    the data is so in any case; see `recon_fast.data.batches.counter`.
    """
    torch.manual_seed((seed * 1_000_003 + step + 1) % (1 << 63))
