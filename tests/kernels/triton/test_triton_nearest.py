"""Nearest neighbour, and the Chamfer distance of small pairs with its gradient."""

import pytest
import torch

from recon_fast.kernels import reference
from recon_fast.kernels.triton import chamfer_pairs, nearest_neighbor


def check(src, dst, **arguments):
    dist, idx = nearest_neighbor(src, dst, **arguments)
    expected, expected_idx = reference.nearest_neighbor(src, dst, **arguments)
    assert torch.equal(idx, expected_idx)
    torch.testing.assert_close(dist, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize(("B", "N", "M"), [(1, 1, 1), (2, 63, 130), (1, 65, 1), (3, 1, 65), (1, 130, 200)])
def test_equals_the_reference(device, B, N, M, dtype):
    torch.manual_seed(N)
    check(torch.randn(B, N, 3, device=device).to(dtype), torch.randn(B, M, 3, device=device).to(dtype))


def test_ties_and_duplicates(device):
    dst = torch.randn(1, 20, 3, device=device).repeat(1, 10, 1)
    check(torch.randn(1, 30, 3, device=device), dst)
    check(torch.zeros(1, 3, 3, device=device), torch.zeros(1, 300, 3, device=device))
    grid = torch.randint(0, 3, (2, 150, 3), device=device).float()
    check(grid, grid.flip(1))
    check(grid + 1e4, grid.flip(1) * 0.37 + 1e4)


def test_not_finite(device):
    src = torch.randn(2, 70, 3, device=device)
    src[0, 5, 1], src[0, 9, 0], src[1, 7] = float("nan"), float("inf"), -float("inf")
    check(src, src.flip(1))
    check(src * float("nan"), src)
    check(src, src * float("inf"))


def test_lengths(device):
    src, dst = torch.randn(3, 70, 3, device=device), torch.randn(3, 90, 3, device=device)
    lengths = torch.tensor([90, 1, 40], device=device)
    check(src, dst, dst_lengths=lengths)
    dist, idx = nearest_neighbor(src, dst, src_lengths=lengths.int(), dst_lengths=lengths)
    expected, expected_idx = reference.nearest_neighbor(src, dst, dst_lengths=lengths)
    padded = torch.arange(70, device=device) >= lengths[:, None]
    assert torch.equal(idx, expected_idx.masked_fill(padded, -1))
    assert torch.equal(dist, expected.masked_fill(padded, float("inf")))


def test_any_strides(device):
    dst = torch.randn(3, 70, 2, device=device).transpose(0, 2)
    check(dst[:, ::3], dst)
    check(dst[:1].expand(2, -1, -1), dst[:, ::2])


@pytest.mark.parametrize("norm", ["l2", "l1"])
@pytest.mark.parametrize(("B", "N", "M"), [(3, 32, 32), (1, 1, 1), (2, 63, 5), (1, 64, 64)])
def test_pairs_have_loss_and_gradient_of_the_reference(device, B, N, M, norm):
    torch.manual_seed(N)
    pred, target = torch.randn(B, N, 3, device=device), torch.randn(B, M, 3, device=device)
    target[:, 0] = pred[:, 0]  # a distance of 0, where the square root has no slope
    check_pairs(pred, target, norm=norm)


def check_pairs(pred, target, **arguments):
    wide = pred.double().requires_grad_(), target.double().requires_grad_()
    expected = reference.chamfer_distance(*wide, reduction="none", **arguments)
    gradients = torch.autograd.grad(expected.sum(), wide)
    for mine, exact in zip(chamfer_pairs(pred, target, **arguments), (expected, *gradients), strict=True):
        torch.testing.assert_close(mine.double(), exact.detach(), rtol=1e-5, atol=1e-6, equal_nan=True)


def test_pairs_of_ragged_clouds(device):
    pred, target = torch.randn(3, 20, 3, device=device), torch.randn(3, 33, 3, device=device)
    lengths = {
        "pred_lengths": torch.tensor([20, 7, 1], device=device),
        "target_lengths": torch.tensor([1, 33, 12], device=device),
    }
    for norm in ("l2", "l1"):
        check_pairs(pred, target, norm=norm, **lengths)


def test_a_nan_stays_with_its_point_and_its_neighbour(device):
    pred, target = torch.randn(2, 16, 3, device=device), torch.randn(2, 16, 3, device=device)
    pred[0, 3, 1] = float("nan")
    loss, grad_pred, grad_target = chamfer_pairs(pred, target)
    assert loss[0].isnan()
    assert loss[1].isfinite()
    assert grad_pred[0].isnan().any(-1).nonzero().flatten().tolist() == [3]
    assert grad_target.isnan().any(-1).nonzero().tolist() == [[0, 0]]


def test_pairs_without_gradient_and_too_large(device):
    pred = torch.randn(1, 8, 3, device=device)
    assert chamfer_pairs(pred, pred, need_grad=False)[1:] == (None, None)
    with pytest.raises(ValueError, match="at most 64 points, got 65 and 8"):
        chamfer_pairs(torch.zeros(1, 65, 3, device=device), pred)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_large_clouds_on_a_gpu(dtype):
    torch.manual_seed(0)
    check(torch.randn(2, 8192, 3, device="cuda").to(dtype), torch.randn(2, 5000, 3, device="cuda").to(dtype))
