"""Energy that a run has taken, where counters tell: of the GPU by NVML, of the processors by RAPL."""

import ctypes
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch

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
