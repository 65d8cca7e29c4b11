"""Gradients that arrive by index: deterministic sums, equal to the reference's up to their order."""

import importlib

import pytest
import torch

from recon_fast.kernels import reference
from recon_fast.kernels.triton import distance_backward, group_backward

gradient = importlib.import_module("recon_fast.kernels.triton.gradient")


@pytest.mark.parametrize(
    ("B", "N", "M", "K"), [(1, 1, 1, 1), (2, 63, 130, 1), (2, 65, 70, 5), (1, 3, 200, 40)]
)
def test_gradient_of_distances(device, B, N, M, K):
    torch.manual_seed(N)
    src, dst = torch.randn(B, N, 3, device=device), torch.randn(B, M, 3, device=device)
    idx = torch.randint(-1, M, (B, N, K), device=device)
    grad = torch.randn(B, N, K, device=device).masked_fill(idx < 0, float("nan"))
    for g in (grad, torch.ones(1, device=device).expand(B, N, K), grad.mT.contiguous().mT):
        wanted = reference.distance_backward(g.double(), src.double(), dst.double(), idx)
        for got, want in zip(distance_backward(g, src, dst, idx), wanted, strict=True):
            torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=1e-5)
    got = distance_backward(g, src.half(), dst.half()[:, :, [2, 1, 0]], idx)
    assert [t.dtype for t in got] == [torch.float16] * 2


def test_every_point_has_the_same_neighbour(device):
    src, idx = torch.randn(1, 300, 3, device=device), torch.full((1, 300, 1), 64, device=device)
    to_src, to_dst = distance_backward(torch.ones(1, 300, 1, device=device), src, src[:, :70] * 0, idx)
    torch.testing.assert_close(to_src, 2 * src)
    torch.testing.assert_close(to_dst[0, 64], -2 * src[0].sum(0), rtol=1e-5, atol=1e-4)
    assert to_dst[0, :64].eq(0).all()
    assert to_dst[0, 65:].eq(0).all()


def test_gradient_of_groups(device):
    center_idx = torch.tensor([[0, 64, 5], [5, 1, -1]], device=device)
    neighbor_idx = torch.randint(0, 100, (2, 3, 30), device=device)
    neighbor_idx[1, :, 20:], neighbor_idx[1, 2] = -1, -1
    to_centers, to_neighbors = torch.randn(2, 3, 3, device=device), torch.randn(2, 3, 30, 3, device=device)
    to_neighbors[1, :, 20:] = float("nan")
    for gradients in [(to_centers, to_neighbors), (None, to_neighbors), (to_centers, None)]:
        got = group_backward(*gradients, center_idx, neighbor_idx, 100)
        want = reference.group_backward(*gradients, center_idx, neighbor_idx, 100)
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


def test_too_many_indices_are_left_to_the_reference(device, monkeypatch):
    points, idx = torch.randn(1, 70, 3, device=device), torch.zeros(1, 70, 1, device=device).long()
    arguments = torch.ones(1, 70, 1, device=device), points, points, idx
    want = distance_backward(*arguments)
    monkeypatch.setattr(gradient, "MAX_READS", 2 * 70 - 1)
    monkeypatch.setattr(gradient, "_gradient_kernel", None)
    for a, b in zip(distance_backward(*arguments), want, strict=True):
        torch.testing.assert_close(a, b)
