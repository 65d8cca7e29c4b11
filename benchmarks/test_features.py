"""Features by index: grouping of PointNet++'s first and second layer, interpolation of its last two."""

import pytest
import torch

from benchmarks.checks import close
from recon_fast.kernels import reference


def with_gradient(function, features, *arguments):
    out = function(features, *arguments)
    (grad,) = torch.autograd.grad(out, features, torch.ones_like(out))
    return out.detach(), grad


def forward(function, features, *arguments):
    with torch.no_grad():
        return (function(features, *arguments),)


STEPS = {"forward": forward, "forward+backward": with_gradient}


def measure(bench, provider, step, plain, features, *arguments):
    wrap = STEPS[step]
    want = wrap(plain, features, *arguments)
    bench.measure(
        provider,
        (features, *arguments),
        lambda got: close(got, want, 1e-5),
        wrap=wrap,
        step=step,
        shape=f"{'x'.join(map(str, features.shape))} at {'x'.join(map(str, arguments[0].shape[1:]))}",
        data="random",
    )


@pytest.mark.operator("gather")
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(("B", "C", "N", "M", "K"), [(16, 64, 1024, 512, 32), (16, 128, 512, 128, 64)])
def test_gather(bench, provider, step, B, C, N, M, K):
    torch.manual_seed(0)
    features = torch.randn(B, C, N, device=bench.kind, requires_grad=True)
    idx = torch.randint(0, N, (B, M, K), device=bench.kind)
    measure(bench, provider, step, reference.gather_features, features, idx)


@pytest.mark.operator("interpolate")
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(("B", "C", "N", "M"), [(16, 256, 128, 512), (16, 128, 512, 2048)])
def test_interpolate(bench, provider, step, B, C, N, M):
    torch.manual_seed(0)
    features = torch.randn(B, C, N, device=bench.kind, requires_grad=True)
    idx = torch.randint(0, N, (B, M, 3), device=bench.kind)
    weights = torch.rand(B, M, 3, device=bench.kind)
    measure(bench, provider, step, reference.interpolate_features, features, idx, weights)
