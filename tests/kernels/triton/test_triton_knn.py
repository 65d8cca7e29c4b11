import importlib

import pytest
import torch

from recon_fast.kernels import reference
from recon_fast.kernels.triton import group, knn

module = importlib.import_module("recon_fast.kernels.triton.knn")  # the package's attribute is the function


def check(queries, points, k, **arguments):
    dist, idx = knn(queries, points, k, **arguments)
    expected, expected_idx = reference.knn(queries, points, k, **arguments)
    assert torch.equal(idx, expected_idx)
    torch.testing.assert_close(dist, expected, rtol=0, atol=0, equal_nan=True)


@pytest.fixture(params=["one tile", "streamed", "split"])
def path(request, monkeypatch):
    """The three ways to pass a cloud, whatever its size."""
    if request.param == "one tile":
        return
    monkeypatch.setattr(module, "MAX_TILE_POINTS", 0)
    if request.param == "split":
        config = module.knn_config
        monkeypatch.setattr(module, "knn_config", lambda *arguments: config(*arguments) | {"SPLITS": 2})


@pytest.mark.parametrize(
    ("B", "M", "N", "k"), [(1, 1, 1, 1), (2, 5, 63, 63), (1, 3, 65, 1), (2, 4, 130, 32), (1, 3, 600, 40)]
)
def test_equals_the_reference(path, device, B, M, N, k):
    torch.manual_seed(N)
    check(torch.randn(B, M, 3, device=device), torch.randn(B, N, 3, device=device), k)


def test_half_precision_far_from_the_origin(device):
    torch.manual_seed(0)
    points = torch.randn(1, 100, 3, device=device)
    check(points[:, :4].half(), points.half(), 9)
    check(points[:, :4] + 1e4, points + 1e4, 9)  # many distances are equal


def test_ties_and_duplicates(path, device):
    torch.manual_seed(0)
    points = torch.randn(1, 20, 3, device=device).repeat(1, 30, 1)
    check(points[:, :3], points, 37)
    check(torch.zeros(1, 2, 3, device=device), torch.zeros(1, 300, 3, device=device), 40)
    grid = torch.randint(0, 4, (1, 300, 3), device=device).float()
    check(grid[:, :4], grid, 17)


def test_points_that_come_nearer_and_nearer(path, device):
    """Every tile beats the bound, so that the buffer is cut back all the time."""
    line = torch.arange(900, 0, -1, device=device).float()[None, :, None].expand(1, 900, 3)
    check(torch.zeros(1, 2, 3, device=device), line, 40)
    check(torch.zeros(1, 1, 3, device=device), line, 300)


def test_lengths(path, device):
    torch.manual_seed(0)
    points = torch.randn(3, 300, 3, device=device)
    check(points[:, :3], points, 33, lengths=torch.tensor([300, 7, 0], device=device))
    check(points[:, :3], points, 33, lengths=torch.tensor([40, 33, 299], device=device, dtype=torch.int32))


def test_not_finite(path, device):
    points = torch.randn(2, 80, 3, device=device)
    points[0, 5, 1], points[0, 9, 0], points[1, 7] = float("nan"), float("inf"), -float("inf")
    check(points[:, 3:8], points, 80)
    check(points[:, 3:8], points, 80, lengths=torch.tensor([20, 80], device=device))


def test_any_strides(device):
    points = torch.randn(3, 70, 2, device=device).transpose(0, 2)
    check(points[:, ::20], points, 5)
    check(points[:1, :3].expand(2, -1, -1), points[:1].expand(2, -1, -1), 5)


def test_more_neighbours_than_a_kernel_sorts(device, monkeypatch):
    monkeypatch.setattr(module, "MAX_K", 8)
    points = torch.randn(1, 20, 3, device=device)
    check(points, points, 9)
    idx = torch.arange(4, device=device)[None]
    for mine, want in zip(group(points, idx, 9), reference.group_around(points, idx, 9, None), strict=True):
        assert torch.equal(mine, want)


def test_group_is_gather_and_centre(path, device):
    torch.manual_seed(0)
    xyz = torch.randn(2, 130, 3, device=device)
    for lengths in (None, torch.tensor([130, 6], device=device)):
        centers, neighborhoods, center_idx, neighbor_idx = reference.sample_and_group(
            xyz, 8, 9, lengths=lengths
        )
        my_centers, mine, idx = group(xyz, center_idx, 9, lengths)
        assert torch.equal(idx, neighbor_idx)
        assert torch.equal(mine, neighborhoods)
        assert torch.equal(my_centers, centers)


def test_splits_are_enough_to_fill_the_processors():
    assert module.knn_config(1, 4096, 100_000, 32, 132)["SPLITS"] * 4096 // 4 >= 8 * 132
    assert module.knn_config(1, 1, 1_000_000, 32, 132)["SPLITS"] > 1
    assert module.knn_config(128, 64, 1024, 32, 132)["SPLITS"] == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(
    ("B", "M", "N", "k"),
    [(128, 64, 1024, 32), (8, 512, 8192, 32), (1, 64, 500_000, 32), (1, 500, 5000, 1000)],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_large_clouds_on_a_gpu(B, M, N, k, dtype):
    torch.manual_seed(0)
    points = torch.randn(B, N, 3, device="cuda").to(dtype)
    check(points[:, :M], points, k)
