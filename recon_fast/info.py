"""What `recon-fast info` tells."""

import os

import torch

from recon_fast.config import TeacherConfig
from recon_fast.config.recipes import packaged_recipes, recipe_file
from recon_fast.device import multiplies_bf16_fast
from recon_fast.kernels.backend import OPERATORS, backend_in_use
from recon_fast.teachers import describe_weights
from recon_fast.training.record import versions


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
