"""run.json: what was run, with what, on what, how long, with what energy; an entry per start of the run."""

import ctypes
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch

import recon_fast
from recon_fast.data.shapes import Shapes
from recon_fast.device import peak_memory
from recon_fast.distributed import world_size
from recon_fast.errors import InputError
from recon_fast.schema import read_json, write_json

_PACKAGES = ("triton", "numpy", "numba", "h5py", "timm", "open_clip_torch", "safetensors", "jsonargparse")


def describe_data(shapes: Shapes, path: str | None) -> dict[str, Any]:
    """Manifest of a set: its sizes, and a checksum of all clouds, names, labels and captions.

    Of packed clouds it takes the checksum that was verified when they were opened.
    """
    digest = blake2b(digest_size=16)
    texts = [shapes.keys, shapes.class_names, shapes.captions]
    digest.update(json.dumps(texts).encode())
    if shapes.checksum is not None:
        digest.update(shapes.checksum.encode())
    points = shapes.points if shapes.checksum is None else None
    for array in (points, shapes.offsets, shapes.held_out, shapes.labels):
        if array is not None:
            digest.update(np.ascontiguousarray(array).view(np.uint8).data)
    return {
        "name": shapes.name,
        "path": None if path is None else str(Path(path).expanduser().absolute()),
        "shapes": len(shapes),
        "held_out": int(shapes.held_out.sum()),
        "classes": len(shapes.class_names),
        "points": len(shapes.points),
        "notes": shapes.notes,
        "blake2b": digest.hexdigest(),
    }


def git_state() -> dict[str, Any] | None:
    """Commit of the package's checkout and whether files differ from it; None outside of a checkout."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        if not git("ls-files", Path(__file__).name):
            return None  # installed into a folder of somebody else's checkout
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".")
        return {"commit": git("rev-parse", "HEAD"), "changed": bool(changed)}
    except (OSError, subprocess.SubprocessError):
        return None


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Processor, memory and devices of the first process's machine."""
    gpus = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": [{"name": gpu.name, "memory_gib": round(gpu.total_memory / 2**30, 1)} for gpu in gpus],
        "device": str(device),
        "processes": world_size(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def versions() -> dict[str, str | None]:
    """Versions of this package, of Python and of what computes."""

    def of(package: str) -> str | None:
        try:
            return version(package)
        except PackageNotFoundError:
            return None

    return {
        "recon_fast": recon_fast.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        **{package: of(package) for package in _PACKAGES},
    }


def write_result(run: Path, result: dict[str, Any], write_tables: Callable[[], None] = lambda: None) -> None:
    """Write RUN/result.json, with versions; `write_tables` writes tables and pictures before it.

    Raises:
        InputError: something cannot be written.
    """
    try:
        write_tables()
        write_json(run / "result.json", {**result, "versions": versions()})
    except OSError as error:
        raise InputError(f"the result cannot be written to {run}: {error.strerror or error}") from error


class _Record(TypedDict):
    """run.json."""

    starts: list[dict[str, Any]]


class RunRecord:
    """The file run.json of a run folder. `run` None records nothing.

    Raises:
        InputError: the file cannot be written at the start; later failures leave the older file.
    """

    def __init__(
        self, run: Path | None, device: torch.device, data: dict[str, Any], teacher: dict[str, Any], step: int
    ) -> None:
        self.path = None if run is None else run / "run.json"
        self.device = device
        self.began = time.monotonic()
        if self.path is None:
            return
        self.energy = EnergyMeter(device)
        self.earlier: list[Any] = []
        if self.path.is_file():
            try:
                self.earlier = read_json(self.path, _Record, "the record of a run")["starts"]
            except InputError:  # somebody cut it
                with suppress(OSError):
                    self.path.rename(self.path.with_name("damaged-run.json"))
        self.start: dict[str, Any] = {
            "command": sys.argv,
            "began": datetime.now(UTC).isoformat(timespec="seconds"),
            "from_step": step,
            "to_step": step,
            "wall_seconds": 0.0,
            "energy_joules": self.energy.read(),
            "end": None,
            "versions": versions(),
            "git": git_state(),
            "machine": describe_machine(device),
            "data": data,
            "teacher": teacher,
        }
        try:
            self._write()
        except OSError as error:
            raise InputError(f"{self.path} cannot be written: {error.strerror or error}") from error

    def update(self, step: int, end: str | None = None) -> None:
        """How far the run has come, and how it ended."""
        if self.path is None:
            return
        seconds = round(time.monotonic() - self.began, 3)
        peak = peak_memory(self.device)
        self.start |= {
            "to_step": step,
            "wall_seconds": seconds,
            "energy_joules": self.energy.read(),
            "peak_memory_mib": None if peak is None else round(peak / 2**20, 1),
            "end": end,
        }
        with suppress(OSError):
            self._write()

    def watch(self) -> None:
        """Look at the counters of energy, before they start again."""
        if self.path is not None:
            self.energy.read()

    @contextmanager
    def running(self, step: Callable[[], int]) -> Iterator[None]:
        """Around what is recorded: an error becomes the end."""
        try:
            yield
        except BaseException as error:
            self.update(step(), type(error).__name__)
            raise

    def _write(self) -> None:
        assert self.path is not None
        write_json(self.path, {"starts": [*self.earlier, self.start]})


_POWERCAP = Path("/sys/class/powercap")
_NVML = "libnvidia-ml.so.1"  # comes with the driver


class _Gpu:
    """NVML's counter of one GPU, in millijoules since the driver was loaded."""

    def __init__(self, device: torch.device) -> None:
        self.nvml = ctypes.CDLL(_NVML)
        self.handle = ctypes.c_void_p()
        uuid = str(torch.cuda.get_device_properties(device).uuid)
        name = (uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}").encode()
        self._call("nvmlInit_v2")
        self._call("nvmlDeviceGetHandleByUUID", name, ctypes.byref(self.handle))

    def _call(self, name: str, *arguments: object) -> None:
        code = getattr(self.nvml, name)(*arguments)
        if code:
            raise OSError(f"{name} gives {code}")

    def joules(self) -> float:
        value = ctypes.c_ulonglong()
        self._call("nvmlDeviceGetTotalEnergyConsumption", self.handle, ctypes.byref(value))
        return value.value / 1e3


class _Package:
    """RAPL's counter of one processor, in microjoules; it starts again from 0 when it is full."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "energy_uj"
        self.full = int((folder / "max_energy_range_uj").read_text())
        self.last = int(self.file.read_text())
        self.total = 0

    def joules(self) -> float:
        now = int(self.file.read_text())
        self.total += (now - self.last) % self.full
        self.last = now
        return self.total / 1e6


class EnergyMeter:
    """Joules since it was made. A counter that is missing or may not be read tells nothing.

    Call `read` every few minutes at least: RAPL's counters fill up within an hour.

    Args:
        device: the GPU to measure, if it is one. The processors of the machine are measured in any case,
            whatever else runs on them.
    """

    def __init__(self, device: torch.device) -> None:
        self.gpu: Callable[[], float] | None = None
        self.packages: list[_Package] = []
        if device.type == "cuda":
            with suppress(OSError, AttributeError, RuntimeError, AssertionError):
                self.gpu = _Gpu(device).joules
                self.before = self.gpu()
        with suppress(OSError, ValueError):
            folders = sorted(_POWERCAP.glob("intel-rapl:*"))
            # A second colon is a part of a processor.
            self.packages = [_Package(folder) for folder in folders if folder.name.count(":") == 1]

    def read(self) -> dict[str, float | None]:
        """{"gpu": joules of this process's GPU, "cpu": of all processors}, None for what nobody tells."""
        gpu = cpu = None
        with suppress(OSError):
            if self.gpu is not None:
                gpu = round(self.gpu() - self.before, 3)
        with suppress(OSError, ValueError):
            if self.packages:
                cpu = round(sum(package.joules() for package in self.packages), 3)
        return {"gpu": gpu, "cpu": cpu}
