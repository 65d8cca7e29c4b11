"""What `recon-fast info` tells."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version

import recon_fast
from recon_fast.config import TeacherConfig
from recon_fast.config.recipes import packaged_recipes, recipe_file
from recon_fast.device import multiplies_bf16_fast
from recon_fast.kernels.backend import OPERATORS, backend_in_use

PACKAGES = (
    "torch",
    "triton",
    "numpy",
    "numba",
    "h5py",
    "timm",
    "open_clip_torch",
    "safetensors",
    "jsonargparse",
)


def describe() -> dict[str, list[tuple[str, str]]]:
    """Sections of (name, text) rows: versions, devices, operators, teacher weights, recipes."""
    import torch

    return {
        "versions": [
            ("recon-fast", recon_fast.__version__),
            ("python", platform.python_version()),
            *((name, version_of(name)) for name in PACKAGES),
        ],
        "devices": _devices(),
        "operators": [
            (name if device == "cpu" else f"{name} ({device})", _backend(name, device))
            for name in OPERATORS
            for device in ("cpu", *(["cuda"] if torch.cuda.is_available() else []))
        ],
        "teacher weights": _weights(),
        "recipes": [(name, str(recipe_file("pretrain"))) for name in packaged_recipes("pretrain")],
    }


def _backend(operator: str, device: str) -> str:
    try:
        name, why = backend_in_use(operator, device)
    except (RuntimeError, ValueError) as error:
        return f"none: {error}"
    return f"{name}: {why}"


def version_of(package: str) -> str:
    """The version of an installed package, or "not installed"."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _devices() -> list[tuple[str, str]]:
    import torch

    def precision(device: torch.device) -> str:
        return "bf16" if multiplies_bf16_fast(device) else "fp32"

    capability, threads = torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()
    cpu = f"{capability}, {os.cpu_count()} cores, {threads} threads"
    rows = [("cpu", f"{cpu}, trains in {precision(torch.device('cpu'))}")]
    for i in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(i)
        memory = device.total_memory / 2**30
        rows.append(
            (f"cuda:{i}", f"{device.name}, {memory:.0f} GiB, trains in {precision(torch.device('cuda', i))}")
        )
    return rows


def _weights() -> list[tuple[str, str]]:
    from recon_fast.teachers import describe_weights

    return describe_weights(TeacherConfig())
