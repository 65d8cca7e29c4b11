"""Launch parameters of every kernel, timed against those in use: `python -m benchmarks.sweep --rows-to FILE`.

The kernels' modules hold each parameter as a constant, which their launchers read. A sweep sets one after the
other to the values below, the most promising first, compares the results with those in use, and times them.
It goes round the kernels, so that each has had its first tries when time is up.
"""

import argparse
import importlib
import itertools
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.rows import Rows
from recon_fast.kernels import triton as kernels

Call = Callable[[], Any]


class Sweep(NamedTuple):
    """A kernel at one shape, and the constants of its module to try."""

    kernel: str
    module: str
    shape: str
    make: Callable[[torch.device], Call]
    choices: dict[str, tuple[Any, ...]]


def _cloud(*shape: int, device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape))).to(device, dtype)


def _fps(B: int, N: int, M: int) -> Callable[[torch.device], Call]:
    def make(device: torch.device) -> Call:
        xyz = _cloud(B, N, 3, device=device)
        return lambda: kernels.farthest_point_sample(xyz, M)

    return make


def _knn(B: int, M: int, N: int, k: int) -> Callable[[torch.device], Call]:
    def make(device: torch.device) -> Call:
        points = _cloud(B, N, 3, device=device)
        queries = points[:, :M].contiguous()
        return lambda: kernels.knn(queries, points, k)

    return make


def _group(B: int, N: int, G: int, k: int) -> Callable[[torch.device], Call]:
    def make(device: torch.device) -> Call:
        xyz = _cloud(B, N, 3, device=device)
        centers = torch.arange(G, device=device).expand(B, G).contiguous()
        return lambda: kernels.group(xyz, centers, k)

    return make


def _chamfer(B: int, N: int, M: int) -> Callable[[torch.device], Call]:
    def make(device: torch.device) -> Call:
        pred, target = _cloud(B, N, 3, device=device), _cloud(B, M, 3, device=device) + 0.1
        return lambda: kernels.chamfer_pairs(pred, target)

    return make


def _attention(B: int, S: int, backward: bool) -> Callable[[torch.device], Call]:
    def make(device: torch.device) -> Call:
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float16  # the interpreter has no bfloat16
        query = _cloud(B, 6, 3, 64, device=device, dtype=dtype)
        key = _cloud(B, 6, S, 64, device=device, dtype=dtype)
        inputs = query, key, key, None, 0.125
        out, lse = kernels.masked_cross_attention_forward(*inputs)
        if not backward:
            return lambda: kernels.masked_cross_attention_forward(*inputs)
        return lambda: kernels.masked_cross_attention_backward(query, *inputs, out, lse)

    return make


def _ball(B: int, M: int, N: int, k: int) -> Callable[[torch.device], Call]:
    def make(device: torch.device) -> Call:
        points = _cloud(B, N, 3, device=device)
        return lambda: kernels.ball_query(points[:, :M], points, 0.4, k)

    return make


def _features(kind: str, B: int, C: int, N: int, M: int) -> Callable[[torch.device], Call]:
    def make(device: torch.device) -> Call:
        features, values = _cloud(B, C, N, device=device), _cloud(B, C, M, device=device)
        idx = (torch.arange(B * M * 3, device=device) * 37 % N).view(B, M, 3)
        weights = torch.full((B, M, 3), 1 / 3, device=device)
        calls: dict[str, Call] = {
            "sum": lambda: kernels.sum_features(features, idx, weights),
            "scatter": lambda: kernels.scatter_features(values, idx, weights, N),
            "match": lambda: kernels.match_features(values, features, idx),
        }
        return calls[kind]

    return make


def sweeps(small: bool) -> list[Sweep]:
    """Shapes of ReCon and larger ones; `small` ones are for the interpreter on a CPU."""
    B, large = (2, 300) if small else (128, 20_000)
    N = 64 if small else 1024
    warps = (1, 2, 4, 8)
    tiles = {"BLOCK_C": (8, 16, 32), "BLOCK_N": (32, 64, 128), "num_warps": warps}
    attention = {"NUM_WARPS": (2, 1, 8), "MAX_KEY_BLOCK": (32, 128)}
    nearest = {"BLOCK_N": (32, 128), "BLOCK_M": (32, 128), "NUM_WARPS": (2, 8), "MIN_SPAN": (128, 512, 1024)}
    nearest["PROGRAMS_PER_PROCESSOR"] = (1, 4)
    found = [
        Sweep("fps", "fps", f"{B}x{N} to 16", _fps(B, N, 16), {"POINTS_PER_THREAD": (4, 16, 32, 2)}),
        Sweep("group", "knn", f"{B}x16 of {N}, k=8", _group(B, N, 16, 8), {"QUERY_TILE": (512, 2048)}),
        Sweep("chamfer", "chamfer", f"{38 * B}x32x32", _chamfer(38 * B, 32, 32), {"PAIR_LANES": (64, 128)}),
        Sweep("attention", "attention", f"{B}x6x3x26x64", _attention(B, 26, False), attention),
        Sweep("attention backward", "attention", f"{B}x6x3x26x64", _attention(B, 26, True), attention),
    ]
    if not small:
        found[0] = Sweep("fps", "fps", "128x1024 to 64", _fps(128, 1024, 64), found[0].choices)
        found[1] = Sweep("group", "knn", "128x64 of 1024, k=32", _group(128, 1024, 64, 32), found[1].choices)
        shared = {"SHARED_POINTS": (2048, 8192, 1024), "POINTS_PER_THREAD": (4, 16)}
        streamed = {"STREAM_QUERY_TILE": (1024, 256), "STREAM_TILE": (128, 512)}
        streamed["WARPS_PER_PROCESSOR"] = (4, 16)
        pair = {"BLOCK": (32, 128), "TILE": (32, 128), "NUM_WARPS": (1, 4)}
        features = 32, 128, 2048, 4096
        found += [
            Sweep("attention", "attention", "128x6x3x64x64", _attention(128, 64, False), attention),
            Sweep("attention backward", "attention", "128x6x3x64x64", _attention(128, 64, True), attention),
            Sweep("fps", "fps", "1x100k to 4096", _fps(1, 100_000, 4096), shared),
            Sweep("fps", "fps", "1x1M to 16k", _fps(1, 1_000_000, 16_384), shared),
            Sweep("knn", "knn", "1x4096 in 100k, k=32", _knn(1, 4096, 100_000, 32), streamed),
            Sweep("nearest", "nearest", "8x8192x8192", _chamfer(8, 8192, 8192), nearest),
            Sweep("gradient", "gradient", "8x8192x8192", _chamfer(8, 8192, 8192), pair),
        ]
    else:
        features = 1, 8, 60, 40
    found.append(Sweep("nearest", "nearest", f"2x{large}x{large}", _chamfer(2, large, large), nearest))
    queries = {"BLOCK_Q": (1, 4, 8), "BLOCK_N": (128, 512), "NUM_WARPS": (2, 4)}
    found.append(Sweep("ball", "ball", f"{B}x16 in {N}, k=16", _ball(B, 16, N, 16), queries))
    for kind, second in (("sum", "BLOCK_M"), ("scatter", "BLOCK_N"), ("match", "BLOCK_M")):
        parts = {"BLOCK_C": tiles["BLOCK_C"], second: tiles["BLOCK_N"], "num_warps": warps}
        dicts = tuple(dict(zip(parts, values, strict=True)) for values in itertools.product(*parts.values()))
        shape = "x".join(map(str, features))
        found.append(
            Sweep(f"features {kind}", "features", shape, _features(kind, *features), {kind.upper(): dicts})
        )
    return found


@contextmanager
def setting(module: str, name: str, value: Any) -> Iterator[None]:
    """A constant of a kernel's module with another value."""
    where = importlib.import_module(f"recon_fast.kernels.triton.{module}")
    before = getattr(where, name)
    setattr(where, name, value)
    try:
        yield
    finally:
        setattr(where, name, before)


def _seconds(call: Call, device: torch.device) -> float:
    """The median of calls: on a GPU of replays of a CUDA graph, so that only the kernels count."""
    if device.type == "cpu":
        begin = time.perf_counter()
        call()
        return time.perf_counter() - begin
    call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    graph.replay()
    times = []
    for _ in range(15):
        first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        first.record()
        graph.replay()
        last.record()
        last.synchronize()
        times.append(first.elapsed_time(last) / 1e3)
    return statistics.median(times)


def _tries(sweep: Sweep) -> Iterator[tuple[str, Any]]:
    for name, values in sweep.choices.items():
        for value in values:
            yield name, value


def _same(got: Any, want: Any) -> bool:
    """Whether results agree; floats up to the order of sums."""
    got, want = ((t,) if isinstance(t, Tensor) else t for t in (got, want))
    for a, b in zip(got, want, strict=True):
        if a is None or b is None:
            continue
        if not a.is_floating_point():
            if not torch.equal(a, b):
                return False
        elif not torch.allclose(a.float(), b.float(), rtol=2e-2, atol=1e-3, equal_nan=True):
            return False
    return True


def run(rows: Rows, device: torch.device, seconds: float) -> None:
    """Try until all is tried or the seconds are over."""
    end = time.monotonic() + seconds
    going = []
    for sweep in sweeps(small=device.type == "cpu"):
        call = sweep.make(device)
        want = call()
        rows.add(_row(sweep, "ours", device, _seconds(call, device)))
        going.append((sweep, call, want, _tries(sweep)))
    while going and time.monotonic() < end:
        for item in list(going):
            sweep, call, want, tries = item
            choice = next(tries, None)
            if choice is None or time.monotonic() >= end:
                going.remove(item)
                continue
            name, value = choice
            label = ", ".join(
                f"{k}={v}" for k, v in (value if isinstance(value, dict) else {name: value}).items()
            )
            with setting(sweep.module, name, value):
                try:
                    right = _same(call(), want)
                    row = _row(sweep, label, device, _seconds(call, device))
                except Exception as error:  # a tile that does not compile or fit is a finding too
                    rows.check(f"sweep {sweep.kernel} {label}", False, str(error).strip().splitlines()[0])
                    continue
            if right:
                rows.add(row)
            else:
                rows.check(f"sweep {sweep.kernel} {label}", False, "another result")


def _row(sweep: Sweep, provider: str, device: torch.device, median: float) -> dict[str, Any]:
    what = {
        "operator": f"sweep {sweep.kernel}",
        "shape": sweep.shape,
        "data": "normal",
        "pass": "graph replay",
    }
    return what | {
        "provider": provider,
        "device": device.type,
        "median": median,
        "low": median,
        "high": median,
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Time launch parameters of the Triton kernels.")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--rows-to", default="", help="append each row to this file, as JSON lines")
    parser.add_argument("--stop-after", type=float, default=120.0, help="seconds")
    options = parser.parse_args(arguments)
    if options.device == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
        parser.error("without a GPU kernels are interpreted: set TRITON_INTERPRET=1")
    run(Rows(options.rows_to), torch.device(options.device), options.stop_after)


if __name__ == "__main__":
    main()
