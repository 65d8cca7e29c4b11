"""One training step at B = 16, forward, backward and optimizer, against the same model in plain PyTorch.

Both start from the same weights and see the same clouds and mask; their losses are compared first. Teachers
are left out on both sides. On a GPU only ours is timed: the plain step samples points on the CPU.
"""

from dataclasses import replace

import pytest
import torch

from benchmarks.measure import peak_memory
from benchmarks.plain import PlainReCon
from recon_fast.checkpoint import export_official
from recon_fast.config import OptimConfig, ReConConfig
from recon_fast.models import build_model
from recon_fast.training.device import autocast, resolve_device
from recon_fast.training.optim import build_optimizer

BATCH, POINTS = 16, 1024


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


@pytest.mark.parametrize("model_of", ["ours", "ours, compiled", "plain"])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("size", ["tiny", "base"])
def test_step(benchmark, size, precision, model_of):
    device = resolve_device("auto")
    compiled = model_of == "ours, compiled"
    if compiled and (size, precision) != ("base", torch.bfloat16):
        pytest.skip("compiling takes minutes; one size and precision tell")
    if model_of == "plain" and device.type != "cpu":
        pytest.skip("the plain step runs on the CPU")
    models = problem(size, device)
    if device.type == "cpu":
        with torch.no_grad():
            losses = [loss() for _, loss in models.values()]
        torch.testing.assert_close(*losses, rtol=1e-5, atol=0)
    model, loss_of = models[model_of.split(",")[0]]
    if compiled:
        loss_of = torch.compile(loss_of, options={"triton.cudagraphs": device.type == "cuda"})
    optimizer = build_optimizer(model, OptimConfig())

    def step():
        with autocast(device, precision):
            loss = loss_of()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()  # waits for the device

    if compiled:
        try:
            step()
        except Exception as error:  # no C++ compiler, or something the compiler cannot do
            pytest.skip(f"torch.compile of the step: {str(error).strip().splitlines()[0][:120]}")
    loss = benchmark.pedantic(step, rounds=5, warmup_rounds=1)
    assert 0 < loss < 100
    info = {
        "operator": "training step",
        "shape": f"{size}, batch {BATCH}, {str(precision).removeprefix('torch.')}",
        "data": "sphere",
        "pass": "forward+backward+optimizer",
    }
    benchmark.group = " ".join(info.values())
    benchmark.extra_info.update(info, provider=model_of, device=device.type, threads=torch.get_num_threads())
    benchmark.extra_info["memory_mib"] = peak_memory(step, device.type)
    if benchmark.stats is not None:
        benchmark.extra_info["clouds_per_second"] = round(BATCH / benchmark.stats.stats.median, 1)
