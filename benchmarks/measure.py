"""Time one provider at one input: check first, then pytest-benchmark's pedantic mode, then memory.

Memory is the peak over what was there before the call. On a CPU: resident memory of the process (VmHWM after
a reset, Linux only), which sees torch, numpy and C++ alike, in steps of some hundred KiB. On a GPU: torch's
allocator, which does not see what a foreign library allocates by itself.
"""

import ctypes
import gc
import json
import re
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.checks import Check
from benchmarks.peers import Provider
from benchmarks.providers import backend_of, call

_FEWEST, _FEWEST_LONG, _MAX_ROUNDS = 5, 3, 200
_LONG, _VERY_LONG = 0.3, 5.0  # seconds of a call
_LEAST = 200e-6  # seconds of a round: below it the clock and its calls are felt


def clock() -> float:
    """A clock that waits for the GPU, so that a round ends when its last kernel has."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


def _status(field: str) -> int:
    text = Path("/proc/self/status").read_text()
    match = re.search(rf"{field}:\s+(\d+) kB", text)
    assert match, field
    return 1024 * int(match[1])


def peak_memory(run: Callable[[], Any], kind: str) -> float | None:
    """MiB at the peak of a call; None where it cannot be told."""
    gc.collect()
    if kind == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # freed pages would hide what the call needs
        Path("/proc/self/clear_refs").write_text("5")
        before = _status("VmRSS")
        run()
        return max(0, _status("VmHWM") - before) / 2**20
    except (OSError, AttributeError):
        return None


def kernel_seconds(run: Callable[[], Any]) -> float | None:
    """Seconds a call keeps the GPU busy, without the gaps between launches; None without a profiler."""
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for _ in range(5):
            run()
        torch.cuda.synchronize()
    return sum(event.self_device_time_total for event in profile.key_averages()) / 5e6 or None


def _plain(function: Callable[..., Any], *inputs: Any) -> Any:
    return function(*inputs)


def columns(
    benchmark: Any,
    provider: str,
    device: str,
    *,
    operator: str,
    shape: str,
    data: str,
    step: str,
    **more: Any,
) -> dict[str, Any]:
    """The first columns of a row; groups it with the other providers' at this input."""
    info: dict[str, Any] = {"operator": operator, "shape": shape, "data": data, "pass": step}
    benchmark.group = " ".join(info.values())
    return info | {"provider": provider, "device": device, "threads": torch.get_num_threads(), **more}


class Bench:
    """What a benchmark test calls: `measure`, once."""

    def __init__(self, benchmark: Any, kind: str, seconds: float, rows_to: str, rows: list[dict[str, Any]]):
        self.benchmark, self.kind, self.seconds = benchmark, kind, seconds
        self.rows_to, self.rows = rows_to, rows

    def measure(
        self,
        provider: Provider,
        inputs: tuple[Any, ...],
        check: Callable[[Any], Check],
        *,
        shape: str,
        data: str,
        step: str = "forward",
        wrap: Callable[..., Any] = _plain,
        pairs: float = 0,
        **more: Any,  # further columns of the row
    ) -> None:
        """Refuse a wrong result, then time `wrap(function, *inputs)` and keep the row."""
        if pairs > provider.limit * (100 if self.kind == "cuda" else 1):
            pytest.skip(f"{provider.name} takes too long with so many points")
        what = {"operator": provider.operator, "shape": shape, "data": data, "step": step}
        info = columns(self.benchmark, provider.name, self.kind, **what, **more)
        if provider.compiles:
            torch.compiler.reset()  # many shapes of one function would end in the eager fallback
        with backend_of(provider, self.kind):
            setting = self._tune(provider, inputs, wrap)
            if setting:
                info["setting"] = ", ".join(f"{name}={value}" for name, value in setting.items())
            run = partial(wrap, partial(call, provider, **setting), *inputs)
            info["check"] = check(self._first(provider, run))
            once = self._seconds(run)
            if once < _VERY_LONG:
                info["memory_mib"] = peak_memory(run, self.kind)
            if self.kind == "cuda":
                info["kernel_seconds"] = kernel_seconds(run)
            self.benchmark.extra_info.update(info)
            iterations = max(1, round(_LEAST / once))
            rounds = min(_MAX_ROUNDS, int(self.seconds / (once * iterations)))
            fewest = _FEWEST if once < _LONG else _FEWEST_LONG if once < _VERY_LONG else 1
            rounds = max(rounds, fewest)
            self.benchmark.pedantic(run, rounds=rounds, iterations=iterations)
        if self.benchmark.stats is not None:  # None under --benchmark-disable
            self._keep(info)

    @staticmethod
    def _first(provider: Provider, run: Callable[[], Any]) -> Any:
        try:
            return run()
        except Exception as error:
            if provider.compiles:  # no C++ compiler, or something the compiler cannot do
                pytest.skip(
                    f"torch.compile of {provider.operator}: {str(error).strip().splitlines()[0][:120]}"
                )
            raise

    @staticmethod
    def _seconds(run: Callable[[], Any]) -> float:
        """The least of three calls, of one if it is long."""
        times = []
        for _ in range(3):
            start = clock()
            run()
            times.append(clock() - start)
            if times[-1] > _LONG:
                break
        return min(times)

    def _tune(self, provider: Provider, inputs: tuple[Any, ...], wrap: Callable[..., Any]) -> dict[str, Any]:
        if not provider.setting:
            return {}
        seconds = {}
        for choice in provider.choices:
            setting = {provider.setting: choice}
            run = partial(wrap, partial(call, provider, **setting), *inputs)
            seconds[choice] = self._seconds(run)
        return {provider.setting: min(seconds, key=seconds.__getitem__)}

    def _keep(self, info: dict[str, Any]) -> None:
        data = sorted(self.benchmark.stats.stats.data)
        quarter = len(data) // 4
        row = info | {
            "median": statistics.median(data),
            "low": data[quarter],
            "high": data[-1 - quarter],
            "rounds": len(data),
        }
        self.rows.append(row)
        if self.rows_to:
            with Path(self.rows_to).open("a") as file:  # a row at a time: a killed run keeps what it had
                file.write(json.dumps(row) + "\n")
