"""Training steps a second: `python -m benchmarks.throughput --rows-to FILE [--profile-to FILE]`.

Base and tiny model at growing batches, bf16, random clouds that lie on the device: uncompiled ("ours,
eager"), compiled, and compiled with CUDA graphs ("ours", what training does on a GPU). MFU is the matrix
products' share of the card's dense bf16 peak; without a known peak it is left out.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.rows import Rows
from recon_fast.config import OptimConfig, ReConConfig
from recon_fast.models import ReCon
from recon_fast.training.optim import build_optimizer

# Dense bf16, FLOP/s, by a part of the card's name; NVIDIA's data sheets of the SXM modules.
_PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12}
MODES: dict[str, dict[str, Any] | None] = {
    "ours": {"triton.cudagraphs": True},
    "ours, compiled": {"triton.cudagraphs": False},
    "ours, eager": None,
}
_SECONDS = 2.0  # of timing for a row


def _problem(size: str, batch: int, device: torch.device) -> tuple[ReCon, Callable[[], torch.Tensor]]:
    config = getattr(ReConConfig, size)()
    torch.manual_seed(0)
    model = ReCon(config).train().to(device)
    points = torch.randn(batch, 1024, 3, device=device)
    features = [torch.randn(batch, dim, device=device) for dim in (config.image_dim, config.text_dim)]

    def losses() -> torch.Tensor:
        return model(points, *features).loss

    return model, losses


def _stepper(
    model: ReCon, losses: Callable[[], torch.Tensor], device: torch.device
) -> Callable[[], torch.Tensor]:
    optimizer = build_optimizer(model, OptimConfig())

    def step() -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16):
            loss = losses()
        loss.backward()
        optimizer.clip(10.0)
        optimizer.step()
        return loss.detach()

    return step


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _times(step: Callable[[], Any], device: torch.device, seconds: float) -> list[float]:
    """Seconds of a step, of windows of five that are waited for at their ends."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        begin = time.perf_counter()
        for _ in range(5):
            step()
        _wait(device)
        times.append((time.perf_counter() - begin) / 5)
        if device.type == "cpu":
            break
    return times


def measure(rows: Rows, size: str, batch: int, mode: str, device: torch.device, profile_to: str = "") -> None:
    """One row; a step that fails is a check that failed."""
    what = {"operator": "training throughput", "shape": f"{size}, batch {batch}, bf16", "data": "normal"}
    name = f"{what['shape']}, {mode}"
    try:
        torch.compiler.reset()
        model, losses = _problem(size, batch, device)
        with FlopCounterMode(display=False) as counter, torch.autocast(device.type, torch.bfloat16):
            losses().backward()
        flops = counter.get_total_flops()
        options = MODES[mode]
        if options is not None:
            losses = torch.compile(losses, fullgraph=True, options=options)
        step = _stepper(model, losses, device)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        for _ in range(4):
            loss = step()
        times = sorted(_times(step, device, _SECONDS))
        median = statistics.median(times)
        row: dict[str, Any] = what | {
            "pass": "forward+backward+optimizer",
            "provider": mode,
            "device": device.type,
            "median": median,
            "low": times[len(times) // 4],
            "high": times[-1 - len(times) // 4],
            "rounds": len(times),
            "clouds_per_second": round(batch / median, 1),
            "gflop": round(flops / 1e9, 1),
            "loss": float(loss),
        }
        if device.type == "cuda":
            row["memory_mib"] = torch.cuda.max_memory_allocated() / 2**20
            card = torch.cuda.get_device_name()
            peak = next((value for part, value in _PEAKS.items() if part in card), None)
            row["mfu"] = None if peak is None else round(flops / median / peak, 4)
        rows.add(row)
        if profile_to:
            _profile(step, device, Path(profile_to), name)
    except Exception as error:  # out of memory, a compiler: the next row may go
        rows.check(name, False, f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}")


def _profile(step: Callable[[], Any], device: torch.device, path: Path, name: str) -> None:
    """Append where the time of five steps goes, as a table."""
    activity = torch.profiler.ProfilerActivity
    kinds = [activity.CPU, *([activity.CUDA] if device.type == "cuda" else [])]
    with torch.profiler.profile(activities=kinds) as profile:
        for _ in range(5):
            step()
        _wait(device)
    order = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    table = profile.key_averages().table(sort_by=order, row_limit=60, max_name_column_width=90)
    with path.open("a") as file:
        file.write(f"{name}, five steps\n{table}\n")


def _plan(device: torch.device) -> Iterator[tuple[str, int, str]]:
    if device.type == "cpu":
        yield "tiny", 2, "ours, eager"
        return
    for mode in MODES:  # what is missed most first
        yield "base", 128, mode
    for batch in (512, 256):
        yield "base", batch, "ours"
    yield "tiny", 128, "ours"
    yield "tiny", 512, "ours"
    yield "base", 512, "ours, eager"
    yield "base", 512, "ours, compiled"
    yield "base", 1024, "ours"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Training steps a second.")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--rows-to", default="", help="append each row to this file, as JSON lines")
    parser.add_argument("--profile-to", default="", help="append tables of the profiler to this file")
    parser.add_argument(
        "--stop-after", type=float, default=float("inf"), help="begin no row after so many seconds"
    )
    options = parser.parse_args(arguments)
    device, begin = torch.device(options.device), time.monotonic()
    for size, batch, mode in _plan(device):
        if time.monotonic() - begin > options.stop_after:
            break
        profiled = options.profile_to if (size, batch) in (("base", 128), ("tiny", 2)) else ""
        measure(Rows(options.rows_to), size, batch, mode, device, profiled)


if __name__ == "__main__":
    main()
