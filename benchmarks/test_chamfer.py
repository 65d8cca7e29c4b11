"""Chamfer distance, forward and with both gradients: ReCon's small pairs, larger clouds."""

from functools import lru_cache

import pytest
import torch

from benchmarks.checks import close
from benchmarks.clouds import SURFACES, cloud
from recon_fast.kernels import reference

pytestmark = pytest.mark.operator("chamfer")


def loss_only(function, pred, target):
    with torch.no_grad():
        return (function(pred, target),)


def loss_and_gradients(function, pred, target):
    loss = function(pred, target)
    return loss.detach(), *torch.autograd.grad(loss, (pred, target))


STEPS = {"forward": loss_only, "forward+backward": loss_and_gradients}


@lru_cache(maxsize=1)
def case(surface, B, N, device):
    pred, target = (cloud(surface, B, N, seed=seed, device=device).requires_grad_() for seed in (0, 1))
    return pred, target, loss_and_gradients(reference.chamfer_distance, pred, target)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize(("B", "N"), [(32 * 38, 32), (8, 2048), (2, 8192)])
def test_chamfer(bench, provider, B, N, surface, step):
    pred, target, want = case(surface, B, N, bench.kind)
    # An expansion picks another of two nearly equal neighbours: single entries of the gradient differ.
    slack = 0.05 if provider.expands else 1e-5
    bench.measure(
        provider,
        (pred, target),
        lambda got: close(got, want[: len(got)], slack),
        wrap=STEPS[step],
        step=step,
        shape=f"{B}x{N}x{N}",
        data=surface,
        pairs=B * N * N,
    )
