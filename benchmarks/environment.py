"""Where numbers come from: hardware, versions, commit."""

import os
import platform
import re
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import recon_fast

_PACKAGES = (
    "torch",
    "triton",
    "numba",
    "numpy",
    "scipy",
    "pykdtree",
    "torch_quickfps",
    "fpsample",
    "torch-fps",
    "torch_cluster",
    "open3d",
    "pytorch3d",
)
ROOT = Path(__file__).parents[1]


def _output(*command: str) -> str | None:
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20, cwd=ROOT)
    except (OSError, subprocess.SubprocessError):
        return None
    return run.stdout.strip()


def cpu_name() -> str:
    try:
        match = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        match = None
    return match[1].strip() if match else platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    found = {"recon-fast": recon_fast.__version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def describe(kind: str) -> dict[str, Any]:
    """Device, versions and commit, for the head of a report; nothing that names the machine."""
    head: dict[str, Any] = {"when": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()), "kind": kind}
    head |= {"cpu": cpu_name(), "threads": torch.get_num_threads(), "versions": _versions()}
    head["load"] = round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None
    if kind == "cuda":
        driver = _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
        head |= {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
        head["driver"] = driver.splitlines()[0] if driver else None
    status = _output("git", "status", "--porcelain", "--untracked-files=no")
    head["commit"] = _output("git", "rev-parse", "HEAD")
    head["dirty"] = None if status is None else bool(status)
    return head


def device_name(head: dict[str, Any]) -> str:
    return head.get("gpu") or head.get("cpu") or "unknown device"
