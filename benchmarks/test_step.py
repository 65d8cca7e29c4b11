"""One training step of ReCon on this machine, forward, backward and optimizer: fp32 and bf16."""

import pytest
import torch

from recon_fast.config import OptimConfig, ReConConfig
from recon_fast.models import build_model
from recon_fast.training.device import autocast, resolve_device
from recon_fast.training.optim import build_optimizer

BATCH, POINTS = 16, 1024


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("size", ["tiny", "base"])
def test_step(benchmark, size, precision):
    device = resolve_device("auto")
    torch.manual_seed(0)
    config = getattr(ReConConfig, size)()
    model = build_model(config).to(device).train()
    optimizer = build_optimizer(model, OptimConfig())
    points = torch.nn.functional.normalize(torch.randn(BATCH, POINTS, 3, device=device), dim=-1)
    image = torch.randn(BATCH, config.image_dim or 0, device=device)
    text = torch.randn(BATCH, config.text_dim or 0, device=device)

    def step():
        with autocast(device, precision):
            loss = model(points, image, text).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()  # waits for the device

    loss = benchmark.pedantic(step, rounds=3, warmup_rounds=1)
    assert 0 < loss < 100
    benchmark.extra_info.update(device=str(device), torch=torch.__version__, batch=BATCH, points=POINTS)
    if benchmark.stats is not None:
        benchmark.extra_info["clouds_per_second"] = round(BATCH / benchmark.stats.stats.median, 1)
