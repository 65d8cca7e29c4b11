import pytest
import torch

from recon_fast.kernels import reference
from recon_fast.kernels.triton import ball_query


def check(queries, points, radius, k, **arguments):
    for padding in ("none", "first"):
        dist, idx = ball_query(queries, points, radius, k, padding=padding, **arguments)
        want, want_idx = reference.ball_query(queries, points, radius, k, padding=padding, **arguments)
        assert torch.equal(idx, want_idx)
        torch.testing.assert_close(dist, want, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(
    ("B", "M", "N", "k"), [(1, 1, 1, 1), (2, 5, 63, 70), (1, 3, 257, 1), (2, 6, 600, 32), (1, 4, 700, 100)]
)
@pytest.mark.parametrize("radius", [0.1, 0.8, 3])
def test_equals_the_reference(device, B, M, N, k, radius):
    torch.manual_seed(N)
    check(torch.randn(B, M, 3, device=device), torch.randn(B, N, 3, device=device), radius, k)


def test_half_precision_far_from_the_origin(device):
    torch.manual_seed(0)
    points = torch.randn(1, 100, 3, device=device)
    check(points[:, :4].half(), points.half(), 1, 9)
    check(points[:, :4] + 1e4, points + 1e4, 1, 9)


def test_lengths(device):
    torch.manual_seed(0)
    points = torch.randn(3, 300, 3, device=device)
    check(points[:, :3], points, 1, 33, lengths=torch.tensor([300, 7, 0], device=device))
    lengths = torch.tensor([40, 33, 299], device=device, dtype=torch.int32)
    check(points[:, :3], points, 0.01, 3, lengths=lengths)


def test_not_finite_and_any_strides(device):
    points = torch.randn(2, 80, 3, device=device)
    points[0, 5, 1], points[0, 9, 0], points[1, 7] = float("nan"), float("inf"), -float("inf")
    check(points[:, 3:8], points, 1e30, 80)
    points = torch.randn(3, 70, 2, device=device).transpose(0, 2)
    check(points[:, ::20], points, 1, 5)
    check(points[:1, :3].expand(2, -1, -1), points[:1].expand(2, -1, -1), 1, 5)
