"""Which implementation an operator runs: `use_backend`, RECON_FAST_BACKEND, or what suits the tensor."""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache, partial
from importlib import import_module
from importlib.util import find_spec

import torch
from torch import Tensor
from torch.autograd import forward_ad

from recon_fast.kernels import reference, selftest, wide

BACKENDS = ("auto", "triton", "cpu", "reference")
VARIABLE = "RECON_FAST_BACKEND"

# The module that holds an operator's kernels, in kernels/cpu and in kernels/triton.
_MODULES = {
    "farthest_point_sample": "fps",
    "knn": "knn",
    "sample_and_group": "knn",
    "ball_query": "ball",
    "gather_features": "features",
    "interpolate_features": "features",
    "neighbor_edges": "edges",
    "nearest_neighbor": "nearest",
    "chamfer_distance": "chamfer",
    "masked_cross_attention": "attention",
    "linear_max": "pool",
}
OPERATORS = tuple(_MODULES)
# Those of points of any width; kernels take three coordinates.
_ANY_WIDTH = ("farthest_point_sample", "knn", "ball_query", "nearest_neighbor")
# What a GPU does well in plain PyTorch, and why.
_PLAIN_ON_GPU = {
    "linear_max": "a dense matrix product is left to plain PyTorch",
    "neighbor_edges": "a selection is left to plain PyTorch",
}
_DESCRIPTIONS = {"cpu": "numba kernels", "triton": "Triton kernels", "reference": "plain PyTorch"}
_DEVICES = {"triton": "cuda", "cpu": "cpu"}
_AUTO = {"cuda": "triton", "cpu": "cpu"}
_chosen: list[str] = []  # by the use_backend blocks the process is in


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Run the operators of the whole process (all threads) through one backend.

    Args:
        name: "auto" (numba kernels on a CPU, on a GPU the Triton kernels that are right there),
            "triton", "cpu" or "reference". Takes precedence over the environment variable RECON_FAST_BACKEND.
            float64 always goes to the reference, more than three dimensions to plain PyTorch.

    Raises:
        ValueError: unknown name.
        RuntimeError: the backend cannot run here; for tensors it does not take, when an operator is called.
    """
    _check_name(name, "name")
    if name in ("cpu", "triton"):
        problem = absent(name, OPERATORS[0])
        if problem:
            raise RuntimeError(f"backend {name!r} cannot be used: {problem}")
    _chosen.append(name)
    try:
        yield
    finally:
        _chosen.pop()


def backend_in_use(
    operator: str, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> tuple[str, str]:
    """The backend ("triton", "cpu" or "reference") `operator` runs with for such tensors, and why.

    Raises:
        ValueError: unknown operator or RECON_FAST_BACKEND.
        RuntimeError: the backend asked for does not take such tensors.
    """
    if operator not in _MODULES:
        raise ValueError(f"operator must be one of {OPERATORS}, got {operator!r}")
    kind = torch.device(device).type
    name, by = _requested()
    if name == "reference":
        return name, f"chosen by {by}"
    if dtype == torch.float64:
        return "reference", "float64 is left to plain PyTorch"
    if operator in _PLAIN_ON_GPU and "cuda" in (kind, _DEVICES.get(name)):
        return "reference", _PLAIN_ON_GPU[operator]
    if name == "auto":
        name = _AUTO.get(kind, "")
        problem = absent(name, operator) if name else f"there are no kernels for {kind}"
        if name == "triton":
            problem = (
                _warn_without_triton(problem) if problem else _fails_on_gpu(operator, torch.device(device))
            )
        return ("reference", problem) if problem else (name, f"{_DESCRIPTIONS[name]} for {kind} tensors")
    interpreted = name == "triton" and os.environ.get("TRITON_INTERPRET") == "1"
    problem = absent(name, operator)
    if not problem and kind != _DEVICES[name] and not (interpreted and kind == "cpu"):
        problem = f"it takes no {kind} tensors"
    if problem:
        raise RuntimeError(f"backend {name!r}, chosen by {by}, cannot run {operator}: {problem}")
    return name, f"chosen by {by}"


def torch_threads() -> AbstractContextManager[bool]:
    """For a block that alternates these operators with torch's own on a CPU, as training does.

    Inside, CPU kernels called by this thread run on the threads that torch's operators run on, which keep
    their cores for milliseconds after each; threads of our own would have to share these. Where operators are
    called now and then, it is slower: torch's threads may need 8 ms to come from sleep.

    Returns:
        A context manager; it gives whether it has an effect: torch must use OpenMP.
    """
    if absent("cpu", OPERATORS[0]):
        return nullcontext(False)
    return import_module(f"{__package__}.cpu.launch").torch_threads()


def in_transform() -> bool:
    """Within torch.func.grad, jvp, vmap, ..., or torch.autograd.forward_ad.dual_level.

    `register_autograd` gives gradients in reverse mode. Forward mode would take its operators for constants,
    and the transforms of torch.func refuse them. There the operators only search, and what is differentiable
    in the points they find is plain PyTorch.
    """
    return torch._C._functorch.peek_interpreter_stack() is not None or forward_ad._current_level >= 0


# What torch.compiler.assume_constant_result sets, which takes seconds to import: a graph is compiled for the
# transforms it is called in, and anew for others.
in_transform._dynamo_marked_constant = True  # type: ignore[attr-defined]


def implementation(operator: str, function: str, tensor: Tensor) -> Callable:
    """The backend's `function` for a tensor like this, or that of the reference."""
    return kernel(operator, function, tensor) or getattr(reference, function)


def kernel(operator: str, function: str, tensor: Tensor) -> Callable | None:
    """The backend's `function` for a tensor like this, or None where the reference is to be used."""
    if operator in _ANY_WIDTH and tensor.shape[-1] > 3:
        plain = _requested()[0] == "reference" or tensor.device.type not in _AUTO
        return None if plain else getattr(wide, function, None)
    name, _ = backend_in_use(operator, tensor.device, tensor.dtype)
    return None if name == "reference" else load(name, operator, function)


def _fails_on_gpu(operator: str, device: torch.device) -> str:
    """Why "auto" leaves an operator to plain PyTorch on a GPU that is there; empty where Triton is right."""
    found = selftest.verdicts.get((operator, device))  # a tensor's device has an index
    if found is not None:
        return found
    if not torch.cuda.is_available():
        return ""
    if device.index is None:
        device = torch.device(device.type, torch.cuda.current_device())
    found = selftest.failure(operator, device, partial(load, "triton", operator))
    return "not compared with the reference on this GPU yet" if found is None else found


@cache
def _warn_without_triton(problem: str) -> str:
    warnings.warn(f"recon_fast: {problem}; on a GPU plain PyTorch is used", RuntimeWarning, stacklevel=2)
    return problem


def _requested() -> tuple[str, str]:
    if _chosen:
        return _chosen[-1], "use_backend"
    name = os.environ.get(VARIABLE) or "auto"
    _check_name(name, VARIABLE)
    return name, VARIABLE


def _check_name(name: str, what: str) -> None:
    if name not in BACKENDS:
        raise ValueError(f"{what} must be one of {BACKENDS}, got {name!r}")


@cache
def absent(name: str, operator: str) -> str:
    """Why a backend ("cpu" or "triton") has no kernels for an operator here; empty where it has."""
    package = {"cpu": "numba", "triton": "triton"}[name]
    if find_spec(package) is None:
        return f"{package} is not installed"
    folder = f"{__package__}.{name}"
    if find_spec(folder) is None or find_spec(f"{folder}.{_MODULES[operator]}") is None:
        return f"there are no {_DESCRIPTIONS[name]} for it"
    return ""


@cache
def load(name: str, operator: str, function: str) -> Callable | None:
    """A backend's function for an operator; None where it has none."""
    # The Triton kernels are one package; of the CPU's only the module that is needed is loaded.
    module = "triton" if name == "triton" else f"{name}.{_MODULES[operator]}"
    return getattr(import_module(f"{__package__}.{module}"), function, None)
