"""Whether anything works on this device at all: `python -m benchmarks.smoke --rows-to FILE`.

Every kernel variant compiled for it, each operator compared with plain PyTorch, a CUDA graph captured and
replayed, and a training step, uncompiled and compiled. Each finding is written when it is made. Exits with 1
if something failed.
"""

import argparse
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import torch

from benchmarks.rows import Rows
from benchmarks.static import TARGETS, compile_variant
from benchmarks.variants import VARIANTS

_LOSS = 5e-2  # relative, between compiled and uncompiled in bf16


def _architecture(kind: str) -> str:
    """The name in `TARGETS` of the device's; that of an H100 without one."""
    if kind == "cpu":
        return "sm_90"
    if torch.version.hip:
        return torch.cuda.get_device_properties(0).gcnArchName.split(":")[0]
    return "sm_{}{}".format(*torch.cuda.get_device_capability())


def _compiles(index: int, arch: str) -> tuple[str, str]:
    """In a process of its own: a variant's name, and why it does not compile, if so."""
    variant = VARIANTS[index]
    try:
        compile_variant(variant, arch)
    except Exception as error:  # whatever the compiler raises
        return variant.name, f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
    return variant.name, ""


def variants(rows: Rows, kind: str, count: int) -> bool:
    """All variants compile for the device."""
    arch = _architecture(kind)
    if arch not in TARGETS:
        rows.check("variants", False, f"wanted one of {', '.join(TARGETS)}, got {arch}")
        return False
    context, ok = multiprocessing.get_context("spawn"), True
    with ProcessPoolExecutor(os.cpu_count(), mp_context=context) as pool:
        for name, problem in pool.map(partial(_compiles, arch=arch), range(len(VARIANTS))[:count]):
            rows.check(f"compile {name}", not problem, problem)
            ok = ok and not problem
    return ok


def operators(rows: Rows, kind: str) -> bool:
    """Each operator's kernels give what plain PyTorch gives."""
    from recon_fast.kernels import backend, selftest

    ok, name = True, "triton" if kind == "cuda" else "cpu"
    for operator in selftest.CASES:
        if backend.absent(name, operator):
            continue
        begin = time.perf_counter()
        problem = selftest.run_cases(operator, torch.device(kind), partial(backend.load, name, operator))
        rows.check(f"right {operator}", not problem, problem or f"{time.perf_counter() - begin:.1f} s")
        ok = ok and not problem
    return ok


def graph(rows: Rows, kind: str) -> bool:
    """Sampling, grouping and Chamfer in one CUDA graph, replayed: the same as called."""
    from recon_fast.kernels import chamfer_distance, sample_and_group

    xyz = torch.randn(8, 1024, 3, generator=torch.Generator().manual_seed(0)).to(kind)

    def run() -> torch.Tensor:
        groups = sample_and_group(xyz, 64, 32).neighborhoods.flatten(0, 1)
        return chamfer_distance(groups, groups.flip(0))

    want = run()
    torch.cuda.synchronize()
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured):
        got = run()
    captured.replay()
    ok = torch.equal(got, want)
    rows.check("graph", ok, "" if ok else f"{got.item()} instead of {want.item()}")
    return ok


def step(rows: Rows, kind: str) -> bool:
    """Losses and gradients of a step of the tiny model; on a GPU compiled with CUDA graphs too."""
    from recon_fast.config import ReConConfig
    from recon_fast.models import ReCon

    torch.manual_seed(0)
    config = ReConConfig.tiny(depth=2, decoder_depth=2, drop_path=0.0)
    model = ReCon(config).train().to(kind)
    points = torch.randn(8, 1024, 3).to(kind)
    features = [torch.randn(8, size or 1).to(kind) for size in (config.image_dim, config.text_dim)]
    noise = torch.rand(8, config.num_group).to(kind)

    def losses() -> torch.Tensor:
        return model(points, *features, mask_noise=noise).loss

    runs: dict[str, Callable[[], torch.Tensor]] = {"step": losses}
    if kind == "cuda":
        runs["step, compiled"] = torch.compile(losses, fullgraph=True)
        runs["step, in a CUDA graph"] = torch.compile(losses, fullgraph=True, mode="reduce-overhead")
    want, ok = None, True
    for name, run in runs.items():
        for _ in range(3):
            model.zero_grad()
            with torch.autocast(kind, torch.bfloat16):
                loss = run()
            loss.backward()
            gradients = [p.grad for p in model.parameters() if p.grad is not None]
            found = torch.stack([loss.detach(), torch.nn.utils.get_total_norm(gradients)]).clone()
        want = found if want is None else want
        right = bool(((found - want).abs() <= _LOSS * want.abs()).all())
        rows.check(name, right, f"loss and norm {found.tolist()}, uncompiled {want.tolist()}")
        ok = ok and right
    return ok


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Compile every kernel, and run each once, compared.")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--rows-to", default="", help="append each finding to this file, as JSON lines")
    parser.add_argument("--variants", type=int, default=len(VARIANTS), help="compile so many")
    options = parser.parse_args(arguments)
    rows, kind, ok = Rows(options.rows_to), options.device, True
    for name, part in _parts(rows, kind, options.variants):
        try:
            ok = part() and ok
        except Exception as error:  # the parts after it are worth their time all the same
            rows.check(name, False, f"{type(error).__name__}: {str(error).strip().splitlines()[:1]}")
            ok = False
    raise SystemExit(not ok)


def _parts(rows: Rows, kind: str, count: int) -> Iterator[tuple[str, Callable[[], bool]]]:
    yield "operators", partial(operators, rows, kind)
    if kind == "cuda":
        yield "graph", partial(graph, rows, kind)
    yield "variants", partial(variants, rows, kind, count)
    yield "step", partial(step, rows, kind)


if __name__ == "__main__":
    main()
