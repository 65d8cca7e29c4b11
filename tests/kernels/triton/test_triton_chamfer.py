"""Chamfer distance with its gradients, of small pairs in one launch and of large ones in three."""

import pytest
import torch

from recon_fast.kernels import reference
from recon_fast.kernels.triton import chamfer_pairs


def check_pairs(pred, target, **arguments):
    wide = pred.double().requires_grad_(), target.double().requires_grad_()
    expected = reference.chamfer_distance(*wide, reduction="none", **arguments)
    gradients = torch.autograd.grad(expected.sum(), wide)
    for mine, exact in zip(chamfer_pairs(pred, target, **arguments), (expected, *gradients), strict=True):
        torch.testing.assert_close(mine.double(), exact.detach(), rtol=1e-5, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("norm", ["l2", "l1"])
@pytest.mark.parametrize(
    ("B", "N", "M"), [(3, 32, 32), (1, 1, 1), (9, 4, 3), (5, 16, 9), (2, 63, 5), (1, 64, 64), (2, 65, 130)]
)
def test_loss_and_gradient_of_the_reference(device, B, N, M, norm):
    torch.manual_seed(N)
    pred, target = torch.randn(B, N, 3, device=device), torch.randn(B, M, 3, device=device)
    target[:, 0] = pred[:, 0]  # a distance of 0, where the square root has no slope
    check_pairs(pred, target, norm=norm)


@pytest.mark.parametrize("N", [8, 70])
def test_slope_of_a_squared_distance_that_is_denormal(device, N):
    target = torch.arange(N, device=device).float()[None, :, None].expand(1, N, 3)
    pred = target.clone()
    pred[0, 0, 0] = 1e-20
    check_pairs(pred, target, norm="l1")


@pytest.mark.parametrize(("N", "M"), [(20, 33), (6, 7), (90, 70)])
def test_ragged_clouds_with_junk_behind_them(device, N, M):
    torch.manual_seed(0)
    pred, target = torch.randn(3, N, 3, device=device), torch.randn(3, M, 3, device=device)
    pred[1, 6:], target[0, 1:] = float("nan"), float("inf")
    lengths = {
        "pred_lengths": torch.tensor([N, 6, 1], device=device),
        "target_lengths": torch.tensor([1, M, 5], device=device),
    }
    for norm in ("l2", "l1"):
        check_pairs(pred, target, norm=norm, **lengths)


@pytest.mark.parametrize("N", [16, 80])
def test_a_nan_stays_with_its_point_and_its_neighbour(device, N):
    torch.manual_seed(0)
    pred, target = torch.randn(2, N, 3, device=device), torch.randn(2, N, 3, device=device)
    pred[0, 3, 1] = float("nan")
    loss, grad_pred, grad_target = chamfer_pairs(pred, target)
    assert loss[0].isnan()
    assert loss[1].isfinite()
    assert grad_pred.isnan().nonzero().tolist() == [[0, 3, 1]]
    assert grad_target.isnan().nonzero().tolist() == [[0, 0, 1]]


@pytest.mark.parametrize("N", [8, 70])
def test_only_the_gradients_that_are_needed(device, N):
    torch.manual_seed(0)
    pred, target = torch.randn(2, N, 3, device=device).half(), torch.randn(2, 9, 3, device=device)
    loss, grad_pred, grad_target = chamfer_pairs(pred, target)
    for needed in [(False, False), (True, False), (False, True)]:
        only, *gradients = chamfer_pairs(pred, target, None, None, "l2", *needed)
        assert torch.equal(only, loss)
        for need, got, want in zip(needed, gradients, (grad_pred, grad_target), strict=True):
            assert torch.equal(got, want) if need else got is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("B", "N", "M"), [(4864, 32, 32), (8, 2048, 2048), (2, 8192, 5000)])
def test_shapes_of_the_model_on_a_gpu(B, N, M):
    torch.manual_seed(0)
    check_pairs(torch.randn(B, N, 3, device="cuda"), torch.randn(B, M, 3, device="cuda"), norm="l1")
