import pytest
import torch

from recon_fast.kernels import farthest_point_sample

pytestmark = pytest.mark.usefixtures("backend")


def brute_force(xyz: torch.Tensor, num_samples: int, start: int = 0) -> list[int]:
    """One cloud [N, 3], by the definition: distinct points first, ties to the smallest index."""
    chosen = [start]
    while len(chosen) < num_samples:
        dist = (xyz[:, None] - xyz[chosen]).square().sum(-1).amin(1)
        dist[chosen] = -1
        chosen.append(int((dist == dist.max()).nonzero()[0]))
    return chosen


@pytest.mark.parametrize(("B", "N", "M"), [(1, 1, 1), (2, 7, 7), (3, 63, 10), (2, 130, 65)])
def test_matches_the_definition(B, N, M):
    xyz = torch.randn(B, N, 3, generator=torch.Generator().manual_seed(N)).double()
    idx = farthest_point_sample(xyz, M)
    assert idx.dtype == torch.int64
    assert idx.tolist() == [brute_force(cloud, M) for cloud in xyz]


def test_ties_go_to_the_smallest_index():
    corners = torch.tensor([[x, y, z] for x in (0.0, 1) for y in (0.0, 1) for z in (0.0, 1)])
    assert farthest_point_sample(corners[None], 8).tolist() == [brute_force(corners, 8)]
    assert farthest_point_sample(corners[None], 2, start_index=3).tolist() == [[3, 4]]


def test_duplicates_come_after_all_distinct_points():
    xyz = torch.randn(20, 3).repeat(10, 1)[None]
    idx = farthest_point_sample(xyz, 64)[0]
    assert idx.unique().numel() == 64
    assert (idx[:20] % 20).unique().numel() == 20
    assert farthest_point_sample(torch.zeros(1, 5, 3), 5).tolist() == [[0, 1, 2, 3, 4]]


def test_lengths_pad_with_minus_one():
    xyz = torch.randn(2, 9, 3)
    xyz[1, 4:] = 100.0  # behind the length, must not be seen
    idx = farthest_point_sample(xyz, 6, lengths=torch.tensor([9, 4]))
    assert idx[0].tolist() == farthest_point_sample(xyz[:1], 6)[0].tolist()
    assert idx[1].tolist() == [*farthest_point_sample(xyz[1:, :4], 4)[0].tolist(), -1, -1]


def test_points_that_are_not_finite_come_last():
    xyz = torch.randn(1, 10, 3)
    xyz[0, 3, 1], xyz[0, 7, 0] = float("nan"), float("inf")
    assert farthest_point_sample(xyz, 10)[0, -2:].tolist() == [3, 7]


def test_skip_near_origin_passes_over_points_until_nothing_else_is_left():
    xyz = torch.tensor([[[1.0, 0, 0], [0.01, 0, 0], [0, 1, 0], [0, 0.02, 0]]])
    assert farthest_point_sample(xyz, 4, skip_near_origin=True)[0].tolist() == [0, 2, 1, 3]


def test_half_precision_is_computed_in_float32():
    xyz = torch.randn(2, 100, 3).bfloat16()
    assert torch.equal(farthest_point_sample(xyz, 20), farthest_point_sample(xyz.float(), 20))


def test_any_strides():
    xyz = torch.randn(3, 50, 2).transpose(0, 2)  # [2, 50, 3], not contiguous
    assert torch.equal(farthest_point_sample(xyz, 8), farthest_point_sample(xyz.contiguous(), 8))
    one = torch.randn(1, 50, 3).expand(4, -1, -1)
    assert (farthest_point_sample(one, 8) == farthest_point_sample(one[:1], 8)).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(4, 3), 2), r"xyz must be \[B, N, D\], got \(4, 3\)"),
        ((torch.zeros(1, 4, 3, dtype=torch.int64), 2), "xyz must have a floating point dtype"),
        ((torch.zeros(1, 0, 3), 1), "at least one cloud of one point"),
        ((torch.zeros(1, 4, 3), 5), "num_samples must be between 1 and the 4 points of xyz, got 5"),
        ((torch.zeros(1, 4, 3), 0), "num_samples must be between 1"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        farthest_point_sample(*arguments)


def test_errors_of_options():
    with pytest.raises(ValueError, match="start_index must be between 0 and 3, got 4"):
        farthest_point_sample(torch.zeros(1, 4, 3), 2, start_index=4)
    with pytest.raises(ValueError, match=r"lengths must be an int32 or int64 \[1\], got torch.float32"):
        farthest_point_sample(torch.zeros(1, 4, 3), 2, lengths=torch.ones(1))
