"""One training step at B = 16, forward, backward and optimizer, against the same model in plain PyTorch.

Both start from the same weights and see the same clouds and mask; their losses are compared first. Teachers
are left out on both sides. Each runs in a process of its own: ours keeps freed memory, as training does
(`keep_freed_memory`), which cannot be undone; "plain, memory kept" says what that alone does for the plain
step. On a GPU only ours is timed: the plain step samples points on the CPU.
"""

import multiprocessing
import warnings
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch

from benchmarks.measure import columns, peak_memory
from benchmarks.plain import PlainReCon
from recon_fast.checkpoint import export_official
from recon_fast.config import OptimConfig, ReConConfig
from recon_fast.device import autocast, resolve_device
from recon_fast.kernels import torch_threads
from recon_fast.models import build_model
from recon_fast.training.loop import keep_freed_memory
from recon_fast.training.optim import build_optimizer

BATCH, POINTS = 16, 1024
MODELS = ["ours", "ours, compiled", "plain", "plain, memory kept"]


def problem(size: str, device: torch.device):
    """Our model, the plain one with the same weights, and functions that give their losses of one batch."""
    torch.manual_seed(0)
    config = replace(getattr(ReConConfig, size)(), drop_path=0.0, skip_near_origin=False)
    points = torch.nn.functional.normalize(torch.randn(BATCH, POINTS, 3), dim=-1)
    image, text = torch.randn(BATCH, config.image_dim or 0), torch.randn(BATCH, config.text_dim or 0)
    hidden = torch.rand(BATCH, config.num_group).argsort(1)[:, : config.num_masked]
    mask = torch.zeros(BATCH, config.num_group, dtype=torch.bool).scatter_(1, hidden, True)
    ours, plain = build_model(config).train(), PlainReCon(config).train()
    plain.load_state_dict(export_official(ours))
    ours.to(device)
    batch = [t.to(device) for t in (points, image, text)]
    return {
        "ours": (ours, lambda: ours(*batch, mask=mask.to(device)).loss),
        "plain": (plain, lambda: plain(points, image, text, mask)),
    }


def serve(connection, size: str, precision: torch.dtype, model_of: str, threads: int) -> None:
    """In a process of its own: answers what is wrong ("" if nothing), then "step" and "memory"."""
    torch.set_num_threads(threads)
    if model_of != "plain":
        keep_freed_memory()
    device = resolve_device("auto")
    models = problem(size, device)
    if device.type == "cpu":
        with torch.no_grad():
            ours, plain = (loss() for _, loss in models.values())
        torch.testing.assert_close(ours, plain, rtol=1e-5, atol=0)
    model, loss_of = models.pop(model_of.split(",")[0])
    models.clear()
    if model_of == "ours, compiled":
        loss_of = torch.compile(loss_of, options={"triton.cudagraphs": device.type == "cuda"})
    optimizer = build_optimizer(model, OptimConfig())
    if model_of == "ours" and device.type == "cpu" and precision == torch.bfloat16:
        optimizer.multiply_copies(model)  # as `Loop` does

    def step():
        with torch_threads() if device.type == "cpu" else nullcontext():  # as `Loop` does
            with autocast(device, precision):
                loss = loss_of()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        return loss.item()  # waits for the device

    wrong = ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the compiler looks at gradients of inner tensors
            for _ in range(3):
                step()
    except Exception as error:
        if model_of != "ours, compiled":
            raise
        wrong = str(error).strip().splitlines()[0][:120]  # no C++ compiler, or what it cannot do
    connection.send(wrong)
    while (asked := connection.recv()) is not None:
        connection.send(step() if asked == "step" else peak_memory(step, device.type))


@pytest.mark.parametrize("model_of", MODELS)
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("size", ["tiny", "base"])
def test_step(benchmark, size, precision, model_of):
    device = resolve_device("auto")
    if model_of == "ours, compiled" and (size, precision) != ("base", torch.bfloat16):
        pytest.skip("compiling takes minutes; one size and precision tell")
    if model_of.startswith("plain") and device.type != "cpu":
        pytest.skip("the plain step runs on the CPU")
    context = multiprocessing.get_context("spawn")
    own, theirs = context.Pipe()
    arguments = (theirs, size, precision, model_of, torch.get_num_threads())
    process = context.Process(target=serve, args=arguments, daemon=True)
    process.start()
    theirs.close()  # so that its end is seen

    def ask(what):
        own.send(what)
        return own.recv()

    wrong = own.recv()
    if wrong:
        pytest.skip(f"torch.compile of the step: {wrong}")
    info = columns(
        benchmark,
        model_of,
        device.type,
        operator="training step",
        shape=f"{size}, batch {BATCH}, {str(precision).removeprefix('torch.')}",
        data="sphere",
        step="forward+backward+optimizer",
    )
    loss = benchmark.pedantic(ask, args=("step",), rounds=7, warmup_rounds=1)
    assert 0 < loss < 100
    benchmark.extra_info.update(info, memory_mib=ask("memory"))
    if benchmark.stats is not None:
        benchmark.extra_info["clouds_per_second"] = round(BATCH / benchmark.stats.stats.median, 1)
    own.send(None)
    process.join(30)
