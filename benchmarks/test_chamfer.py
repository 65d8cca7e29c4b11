"""Chamfer distance, forward and backward through autograd: ReCon's small pairs, larger clouds."""

import pytest
import torch
from conftest import points

from recon_fast.kernels import chamfer_distance, reference


def loss_and_gradients(function, pred, target):
    loss = function(pred, target)
    return loss, *torch.autograd.grad(loss, (pred, target))


@pytest.mark.parametrize("surface", ["sphere", "cube"])
@pytest.mark.parametrize(("B", "N"), [(32 * 38, 32), (8, 2048), (2, 8192)])
def test_chamfer(benchmark, backend, B, N, surface):
    pred = points(B, N, surface).requires_grad_()
    target = points(B, N, surface, seed=1).requires_grad_()
    got = loss_and_gradients(chamfer_distance, pred, target)
    for a, b in zip(got, loss_and_gradients(reference.chamfer_distance, pred, target), strict=True):
        torch.testing.assert_close(a, b)
    benchmark(loss_and_gradients, chamfer_distance, pred, target)
