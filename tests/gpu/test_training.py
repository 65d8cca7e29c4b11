"""Training, resuming and embedding on a GPU: the same as on a CPU, eager, compiled and in a CUDA graph."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny import TINY_MODEL, Lines, tiny_config, tiny_shapes

import recon_fast
from recon_fast.checkpoint import weights_metadata
from recon_fast.config.downstream import EncoderConfig, FinetuneConfig
from recon_fast.models import ReCon
from recon_fast.tasks.finetune import finetune
from recon_fast.training.pretrain import pretrain

NAMES = ("mdm", "csc_img", "csc_text", "grad_norm")
QUIET = pytest.mark.filterwarnings("ignore")  # of the compiler


def losses(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return torch.tensor([[line[name] for name in NAMES] for line in lines if "loss" in line])


@pytest.fixture(scope="module")
def on_cpu(tmp_path_factory):
    """Losses of a run on the CPU, in float32."""
    folder = tmp_path_factory.mktemp("cpu")
    pretrain(tiny_config(folder / "run", compile="off"), None, Lines(), tiny_shapes())
    return losses(folder / "run")


def train(folder, device, console=None, resume=None, **changes):
    changes = {"compile": "off", **changes}
    config = tiny_config(folder / "run", device=str(device), **changes)
    return pretrain(config, resume, console or Lines(), tiny_shapes())


@pytest.mark.parametrize("placement", ["auto", "device", "host", "mmap"])
def test_placements(tmp_path, device, on_cpu, placement, monkeypatch):
    """With "host" and "mmap" batches come out of page-locked memory on a GPU."""
    if placement == "mmap":  # the set in memory stands for a mapped one
        monkeypatch.setattr("recon_fast.data.batches.resident.is_mapped", lambda points: True)
    train(tmp_path, device, data__placement=placement)
    torch.testing.assert_close(losses(tmp_path / "run"), on_cpu, rtol=2e-3, atol=1e-4)


@QUIET
@pytest.mark.parametrize("accumulate", [1, 2])  # with several micro-batches there are no CUDA graphs
def test_a_compiled_run_is_the_same_run(tmp_path, gpu, accumulate):
    console = Lines()
    changes = {"optim__accumulate": accumulate, "model": replace(TINY_MODEL, drop_path=0.3)}
    train(tmp_path / "compiled", gpu, console, compile="on", **changes)
    assert console.has("the step is compiled")
    train(tmp_path / "eager", gpu, **changes)
    got, want = (losses(tmp_path / name / "run") for name in ("compiled", "eager"))
    torch.testing.assert_close(got, want, rtol=2e-3, atol=1e-4)


@QUIET
def test_bf16(tmp_path, device, on_cpu):
    train(tmp_path, device, precision="bf16")
    got = losses(tmp_path / "run")
    torch.testing.assert_close(got[:, :3], on_cpu[:, :3], rtol=0.05, atol=0.02)


def test_resume_is_bit_exact(tmp_path, device):
    """A run that ends after an epoch and goes on has the weights of one that never stopped."""
    train(tmp_path / "whole", device)
    whole = losses(tmp_path / "whole" / "run")
    run = tmp_path / "whole" / "run"
    for name in ("step-00000009", "step-00000006"):
        for file in (run / "checkpoints" / name).iterdir():
            file.unlink()
        (run / "checkpoints" / name).rmdir()
    train(tmp_path / "whole", device, resume=run)
    assert torch.equal(losses(run), whole)


def test_fine_tuning(tmp_path, device):
    torch.manual_seed(0)
    results = {}
    for name in {"cpu", device.type}:
        base = tiny_config(tmp_path)
        config = FinetuneConfig(
            out=str(tmp_path / name),
            device=name,
            precision="fp32",
            model=EncoderConfig(num_group=8, group_size=8, drop_path=0.0),
            data=replace(base.data, rotate="none"),
            optim=replace(base.optim, lr=1e-3, clip_grad=10.0),
            validation=0.2,
            votes=1,
            save=base.save,
        )
        finetune(config, None, Lines(), tiny_shapes(60, features=False))
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        results[name] = [line["loss"] for line in map(json.loads, lines) if "loss" in line]
    assert results[device.type] == pytest.approx(results["cpu"], rel=0.02, abs=0.01)


def test_embed(tmp_path, device):
    torch.manual_seed(0)
    model = ReCon(replace(TINY_MODEL, image_dim=6, text_dim=6))
    path = tmp_path / "model.safetensors"
    save_file(model.state_dict(), path, weights_metadata(model, None))
    clouds = np.random.default_rng(0).standard_normal((5, 128, 3)).astype(np.float32)
    want, got = (
        recon_fast.load(path, device=name, precision="fp32").embed(clouds) for name in ("cpu", str(device))
    )
    torch.testing.assert_close(torch.as_tensor(got).cpu(), torch.as_tensor(want), rtol=1e-4, atol=1e-4)


@QUIET
def test_one_process_under_nccl(tmp_path, gpu, monkeypatch):
    import torch.distributed as dist

    store = dist.FileStore(str(tmp_path / "store"), 1)
    dist.init_process_group("nccl", store=store, rank=0, world_size=1)
    try:
        train(tmp_path / "nccl", torch.device("cuda", 0))
    finally:
        dist.destroy_process_group()
    train(tmp_path / "alone", gpu)
    got, want = (losses(tmp_path / name / "run") for name in ("nccl", "alone"))
    assert torch.equal(got, want)
