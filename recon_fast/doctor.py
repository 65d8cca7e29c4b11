"""What `recon-fast doctor` and `recon-fast info` tell: whether every operator is right on this device and how
fast it is; versions, devices, and weights that were found.
"""

import os
import timeit
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor

from recon_fast import kernels
from recon_fast.config import DoctorConfig, TeacherConfig
from recon_fast.config.recipes import packaged_recipes, recipe_file
from recon_fast.device import multiplies_bf16_fast, resolve_device
from recon_fast.errors import InputError
from recon_fast.kernels import backend, selftest
from recon_fast.kernels.backend import OPERATORS, backend_in_use
from recon_fast.teachers import describe_weights
from recon_fast.training.record import versions

_SECONDS = 0.15  # for which a call is repeated


def diagnose(config: DoctorConfig) -> bool:
    """Print a table of all operators on a device, "cuda" unless there is none; returns whether all are right.

    An operator is right where its kernels give what plain PyTorch gives.

    Raises:
        InputError: no such device, or one without kernels of ours.
    """
    device = resolve_device(config.device or "auto")
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"device must be cpu or a cuda device, got {config.device}")
    cuda = device.type == "cuda"
    native = "triton" if cuda else "cpu"
    name = torch.cuda.get_device_name(device) if cuda else torch.backends.cpu.get_cpu_capability()
    found = versions()
    packages = ", ".join(f"{package} {found[package]}" for package in ("torch", "triton", "numba"))
    print(f"{device}: {name}; recon-fast {found['recon_fast']}, {packages}, Python {found['python']}")
    print(f"{'operator':<24}{'backend':<12}{'right':<8}{'ms':>8}{'x plain':>9}")
    right = True
    for operator, arguments in _arguments(device).items():
        call = partial(_call, getattr(kernels, operator), arguments)
        used, why = backend.backend_in_use(operator, device)
        problem = ""
        # A kernel that "auto" left out for a failure is tried again, so that the table shows it.
        if not backend.absent(native, operator):
            problem = selftest.run_cases(operator, device, partial(backend.load, native, operator))
        milliseconds = _milliseconds(call, device)
        with kernels.use_backend("reference"):
            plain = milliseconds if used == "reference" else _milliseconds(call, device)
        note = problem or (why if used == "reference" else "")
        numbers = f"{'WRONG' if problem else 'yes':<8}{milliseconds:8.3f}{plain / milliseconds:9.2f}"
        print(f"{operator:<24}{used:<12}{numbers}  {note}".rstrip(), flush=True)
        right &= not problem
    print("ms: a call at ReCon's shape, with its gradient; x plain: plain PyTorch's time over it")
    return right


def _call(operator: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """Run an operator, and its backward, from the last of its results that has one."""
    results = operator(*arguments)
    leaves = [argument for argument in arguments if isinstance(argument, Tensor) and argument.requires_grad]
    if leaves:
        results = [results] if isinstance(results, Tensor) else results
        last = [result for result in results if result.requires_grad][-1]
        torch.autograd.grad(last.sum(), leaves)


def _milliseconds(call: Callable[[], None], device: torch.device) -> float:
    """The median of calls that are waited for."""

    def waited() -> None:
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    waited()  # compiles
    once = timeit.timeit(waited, number=1)
    return 1e3 * median(timeit.repeat(waited, number=1, repeat=1 + int(_SECONDS / once)))


def _arguments(device: torch.device) -> dict[str, tuple[Any, ...]]:
    """Arguments of each public operator at a shape ReCon has, 32 clouds of 1024 points."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device).requires_grad_()

    xyz, features = random(32, 1024, 3), random(32, 128, 1024)
    still = xyz.detach()
    queries = still[:, :64].clone().requires_grad_()
    idx = torch.randint(1024, (32, 64, 3), generator=generator).to(device)
    weights = torch.rand(32, 64, 3, generator=generator).to(device).requires_grad_()
    query, key, value = random(32, 6, 3, 64), random(32, 6, 26, 64), random(32, 6, 26, 64)
    mask = (torch.rand(32, 26, generator=generator) < 0.5).to(device)
    neighbors = torch.randint(-1, 1024, (2048, 32), generator=generator).to(device)
    return {
        "farthest_point_sample": (still, 64),
        "knn": (queries, xyz, 32),
        "sample_and_group": (xyz, 64, 32),
        "ball_query": (still[:, :64], still, 0.4, 32),
        "gather_features": (features, idx),
        "interpolate_features": (features, idx, weights),
        "nearest_neighbor": (queries, xyz),
        "chamfer_distance": (random(1216, 32, 3), random(1216, 32, 3)),
        "masked_cross_attention": (query, key, value, mask),
        "linear_max": (random(256, 32, 128), random(512, 128), random(512)),
        "neighbor_edges": (neighbors,),
    }


def describe() -> dict[str, list[tuple[str, str]]]:
    """Sections of (name, text) rows: versions, devices, operators, teacher weights, recipes."""
    kinds = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    return {
        "versions": [
            (name.replace("recon_fast", "recon-fast"), found or "not installed")
            for name, found in versions().items()
        ],
        "devices": _devices(),
        "operators": [
            (name if kind == "cpu" else f"{name} ({kind})", _backend(name, kind))
            for name in OPERATORS
            for kind in kinds
        ],
        "teacher weights": describe_weights(TeacherConfig()),
        "recipes": [(name, str(recipe_file("pretrain"))) for name in packaged_recipes("pretrain")],
    }


def _backend(operator: str, device: str) -> str:
    try:
        return ": ".join(backend_in_use(operator, device))
    except (RuntimeError, ValueError) as error:
        return f"none: {error}"


def _devices() -> list[tuple[str, str]]:
    capability, threads = torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()
    found = {"cpu": f"{capability}, {os.cpu_count()} cores, {threads} threads"}
    for i in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(i)
        found[f"cuda:{i}"] = f"{device.name}, {device.total_memory / 2**30:.0f} GiB"
    fast = {name: multiplies_bf16_fast(torch.device(name)) for name in found}
    return [(name, f"{text}, trains in {'bf16' if fast[name] else 'fp32'}") for name, text in found.items()]
