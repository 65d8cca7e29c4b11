"""Features of 64 clouds of 1024 points with the base model, against its forward pass in plain PyTorch.

Ours is `recon_fast.load(...).embed(...)` from arrays to arrays, checks and normalisation included; plain is
the forward pass alone, in evaluation mode, without gradients. Both have the same weights, see the same
clouds, 16 at once, and give the feature for a linear SVM. The features are compared first: in fp32 they may
differ by 1e-4 of their norm, in bf16 by 2e-2. On a GPU only ours is timed: the plain model samples points on
the CPU.
"""

import pytest
import torch
from safetensors.torch import save_file

import recon_fast
from benchmarks.measure import columns
from benchmarks.plain import PlainReCon
from recon_fast.checkpoint import export_official, weights_metadata
from recon_fast.config import ReConConfig
from recon_fast.data.batches.transforms import unit_sphere
from recon_fast.device import autocast, resolve_device
from recon_fast.models import build_model

CLOUDS, BATCH, POINTS = 64, 16, 1024
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2}


@pytest.fixture(scope="module")
def problem(tmp_path_factory):
    """Clouds, the plain model, and the file of the same weights that ours is loaded from."""
    torch.manual_seed(0)
    model = build_model(ReConConfig.base())
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_file(model.state_dict(), path, weights_metadata(model, None))
    plain = PlainReCon(model.config).eval()
    plain.load_state_dict(export_official(model))
    shape = torch.randn(CLOUDS, 1, 3).exp()  # ellipsoids, each of its own proportions
    points = unit_sphere(torch.nn.functional.normalize(torch.randn(CLOUDS, POINTS, 3), dim=-1) * shape)
    return points, plain, path


def embed_plainly(plain: PlainReCon, points: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    with torch.no_grad(), autocast(torch.device("cpu"), dtype):
        return torch.cat([plain.embed(batch).float() for batch in points.split(BATCH)])


@pytest.mark.parametrize("model_of", ["ours", "ours in fp32", "plain", "plain in bf16"])
def test_embed(benchmark, problem, model_of):
    points, plain, path = problem
    device = resolve_device("auto")
    if model_of.startswith("plain"):
        if device.type != "cpu":
            pytest.skip("the plain model runs on the CPU")
        dtype = torch.bfloat16 if model_of.endswith("bf16") else torch.float32

        def run():
            return embed_plainly(plain, points, dtype)
    else:
        encoder = recon_fast.load(path, precision="fp32" if model_of.endswith("fp32") else "auto")
        dtype, clouds = encoder.dtype, points.numpy()

        def run():
            return torch.from_numpy(encoder.embed(clouds))

    want, got = embed_plainly(plain, points[:BATCH], torch.float32), run()[:BATCH]
    error = float((got - want).norm() / want.norm())
    assert error <= TOLERANCE[dtype], f"{error:.3g} of the norm off, allowed is {TOLERANCE[dtype]:.0e}"
    info = columns(
        benchmark,
        model_of,
        device.type,
        operator="embed",
        shape=f"base, {CLOUDS} x {POINTS}, batch {BATCH}",
        data="ellipsoids",
        step="forward",
        precision=str(dtype).removeprefix("torch."),
        relative_error=error,
    )
    benchmark.extra_info.update(info)
    benchmark.pedantic(run, rounds=5, warmup_rounds=1)
    if benchmark.stats is not None:
        benchmark.extra_info["clouds_per_second"] = round(CLOUDS / benchmark.stats.stats.median, 1)
