"""What `recon-fast doctor` tells: whether every operator is right on this device, and how fast it is."""

import platform
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median
from time import perf_counter
from typing import NamedTuple

import torch
from torch import Tensor

from recon_fast import __version__, kernels
from recon_fast.errors import InputError
from recon_fast.info import version_of
from recon_fast.kernels import backend, selftest

_SECONDS = 0.15  # for which a call is repeated


class Finding(NamedTuple):
    """One operator on one device."""

    operator: str
    backend: str  # what runs there
    problem: str  # what differs from plain PyTorch; empty where nothing does
    note: str  # why plain PyTorch runs
    milliseconds: float  # of a call at ReCon's shape, with its gradient where there is one
    ratio: float  # of plain PyTorch's time to that


def examine(device: torch.device) -> Iterator[Finding]:
    """Compare each operator's kernels with plain PyTorch on `device`, and time both."""
    native = "triton" if device.type == "cuda" else "cpu"
    for operator, call in _calls(device).items():
        name, why = backend.backend_in_use(operator, device)
        problem = ""
        # A kernel that "auto" left out for a failure is tried again, so that the table shows it.
        if not backend.absent(native, operator):
            problem = selftest.run_cases(operator, device, partial(backend.load, native, operator))
        milliseconds = _milliseconds(call, device)
        with kernels.use_backend("reference"):
            plain = milliseconds if name == "reference" else _milliseconds(call, device)
        note = why if name == "reference" and not problem else ""
        yield Finding(operator, name, problem, note, milliseconds, plain / milliseconds)


def _milliseconds(call: Callable[[], object], device: torch.device) -> float:
    """The median of calls that are waited for."""
    times: list[float] = []
    call()  # compiles
    _wait(device)
    end = perf_counter() + _SECONDS
    while not times or perf_counter() < end:
        begin = perf_counter()
        call()
        _wait(device)
        times.append(perf_counter() - begin)
    return 1e3 * median(times)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _calls(device: torch.device) -> dict[str, Callable[[], object]]:
    """A call of each public operator at a shape ReCon has, 32 clouds of 1024 points."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device).requires_grad_()

    def trained(function: Callable[..., Tensor], *leaves: Tensor) -> Callable[[], object]:
        return lambda: torch.autograd.grad(function(*leaves).sum(), leaves)

    xyz, features = random(32, 1024, 3), random(32, 128, 1024)
    queries = xyz[:, :64].detach().requires_grad_()
    idx = torch.randint(1024, (32, 64, 3), generator=generator).to(device)
    weights = torch.rand(32, 64, 3, generator=generator).to(device).requires_grad_()
    pred, target = random(1216, 32, 3), random(1216, 32, 3)
    query, key, value = random(32, 6, 3, 64), random(32, 6, 26, 64), random(32, 6, 26, 64)
    mask = (torch.rand(32, 26, generator=generator) < 0.5).to(device)
    groups, weight, bias = random(256, 32, 128), random(512, 128), random(512)
    neighbors = torch.randint(-1, 1024, (2048, 32), generator=generator).to(device)
    return {
        "farthest_point_sample": lambda: kernels.farthest_point_sample(xyz, 64),
        "knn": trained(lambda q, p: kernels.knn(q, p, 32)[0], queries, xyz),
        "sample_and_group": trained(lambda p: kernels.sample_and_group(p, 64, 32).neighborhoods, xyz),
        "ball_query": lambda: kernels.ball_query(queries.detach(), xyz.detach(), 0.4, 32),
        "gather_features": trained(lambda f: kernels.gather_features(f, idx), features),
        "interpolate_features": trained(
            lambda f, w: kernels.interpolate_features(f, idx, w), features, weights
        ),
        "nearest_neighbor": trained(lambda q, p: kernels.nearest_neighbor(q, p)[0], queries, xyz),
        "chamfer_distance": trained(kernels.chamfer_distance, pred, target),
        "masked_cross_attention": trained(
            lambda q, k, v: kernels.masked_cross_attention(q, k, v, mask), query, key, value
        ),
        "linear_max": trained(kernels.linear_max, groups, weight, bias),
        "neighbor_edges": lambda: kernels.neighbor_edges(neighbors),
    }


def diagnose(device_name: str | None = None) -> bool:
    """Print a table of all operators on a device, "cuda" unless there is none; returns whether all are right.

    Raises:
        InputError: no such device, or one without kernels of ours.
    """
    device = _device(device_name)
    cuda = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if cuda else torch.backends.cpu.get_cpu_capability()
    packages = ", ".join(f"{package} {version_of(package)}" for package in ("torch", "triton", "numba"))
    print(f"{device}: {name}; recon-fast {__version__}, {packages}, Python {platform.python_version()}")
    print(f"{'operator':<24}{'backend':<12}{'right':<8}{'ms':>8}{'x plain':>9}")
    right = True
    for found in examine(device):
        right &= not found.problem
        numbers = f"{'WRONG' if found.problem else 'yes':<8}{found.milliseconds:8.3f}{found.ratio:9.2f}"
        line = f"{found.operator:<24}{found.backend:<12}{numbers}  {found.problem or found.note}"
        print(line.rstrip(), flush=True)
    print("ms: a call at ReCon's shape, with its gradient; x plain: plain PyTorch's time over it")
    return right


def _device(name: str | None) -> torch.device:
    name = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type in ("cuda", "cpu"):
            torch.empty(0, device=device)
            return device
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch was built without CUDA
        first = (str(error).strip().splitlines() or [""])[0]
        raise InputError(f"--device {name} cannot be used: {first}") from None
    raise InputError(f"--device must be cpu or a cuda device, got {name}")
