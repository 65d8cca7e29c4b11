"""Nearest neighbour, one way and both ways, with blocks that are split or not."""

import importlib

import pytest
import torch

from recon_fast.kernels import reference
from recon_fast.kernels.triton import mutual_nearest, nearest_neighbor

module = importlib.import_module("recon_fast.kernels.triton.nearest")


def check(src, dst, dst_lengths=None, src_lengths=None):
    lengths = {"src_lengths": src_lengths, "dst_lengths": dst_lengths}
    found = *nearest_neighbor(src, dst, **lengths), *mutual_nearest(src, dst, **lengths)
    expected = (
        *reference.nearest_neighbor(src, dst, **lengths),
        *reference.mutual_nearest(src, dst, **lengths),
    )
    for got, want in zip(found, expected, strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=0, equal_nan=True)


@pytest.fixture(params=["whole", "split"])
def splits(request, monkeypatch):
    if request.param == "split":
        monkeypatch.setattr(module, "nearest_splits", lambda *arguments: 4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize(("B", "N", "M"), [(1, 1, 1), (2, 63, 130), (1, 65, 1), (3, 1, 65), (1, 130, 200)])
def test_equals_the_reference(splits, device, B, N, M, dtype):
    torch.manual_seed(N)
    check(torch.randn(B, N, 3, device=device).to(dtype), torch.randn(B, M, 3, device=device).to(dtype))


def test_ties_and_duplicates(splits, device):
    dst = torch.randn(1, 20, 3, device=device).repeat(1, 10, 1)
    check(torch.randn(1, 30, 3, device=device), dst)
    check(torch.zeros(1, 3, 3, device=device), torch.zeros(1, 300, 3, device=device))
    grid = torch.randint(0, 3, (2, 150, 3), device=device).float()
    check(grid, grid.flip(1))
    check(grid + 1e4, grid.flip(1) * 0.37 + 1e4)


def test_not_finite(splits, device):
    src = torch.randn(2, 70, 3, device=device)
    src[0, 5, 1], src[0, 9, 0], src[1, 7] = float("nan"), float("inf"), -float("inf")
    check(src, src.flip(1))
    check(src * float("nan"), src)
    check(src, src * float("inf"))


def test_lengths(splits, device):
    src, dst = torch.randn(3, 70, 3, device=device), torch.randn(3, 90, 3, device=device)
    lengths = torch.tensor([90, 1, 40], device=device)
    check(src, dst, dst_lengths=lengths)
    check(src, dst, dst_lengths=lengths, src_lengths=torch.tensor([1, 70, 65], device=device).int())
    dist, idx = nearest_neighbor(src, dst, src_lengths=lengths.int(), dst_lengths=lengths)
    expected, expected_idx = reference.nearest_neighbor(src, dst, dst_lengths=lengths)
    padded = torch.arange(70, device=device) >= lengths[:, None]
    assert torch.equal(idx, expected_idx.masked_fill(padded, -1))
    assert torch.equal(dist, expected.masked_fill(padded, float("inf")))


def test_any_strides(splits, device):
    dst = torch.randn(3, 70, 2, device=device).transpose(0, 2)
    check(dst[:, ::3], dst)
    check(dst[:1].expand(2, -1, -1), dst[:, ::2])


def test_splits_are_enough_to_fill_the_processors():
    assert module.nearest_splits(32, 2048, 132) * 32 >= 132
    assert module.nearest_splits(1, 1_000_000, 132) == 64
    assert module.nearest_splits(1, 300, 132) == 1
    assert module.nearest_splits(1024, 8192, 132) == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_large_clouds_on_a_gpu(dtype):
    torch.manual_seed(0)
    check(torch.randn(2, 8192, 3, device="cuda").to(dtype), torch.randn(2, 5000, 3, device="cuda").to(dtype))
