import pytest
import torch

from recon_fast.kernels import farthest_point_sample, knn, sample_and_group

pytestmark = pytest.mark.usefixtures("backend")


def by_sorting(queries: torch.Tensor, points: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The definition: all distances, sorted stably, so by (distance, index)."""
    x, y, z = (queries[:, :, None] - points[:, None]).unbind(-1)
    dist, idx = (x * x + y * y + z * z).sort(dim=-1, stable=True)
    return dist[..., :k], idx[..., :k]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("M", "N", "k"), [(1, 1, 1), (5, 63, 63), (64, 130, 7), (17, 1000, 32)])
def test_matches_sorting(M, N, k, dtype):
    generator = torch.Generator().manual_seed(N)
    queries = torch.randn(2, M, 3, generator=generator).to(dtype)
    points = torch.randn(2, N, 3, generator=generator).to(dtype)
    dist, idx = knn(queries, points, k)
    want_dist, want_idx = by_sorting(queries, points, k)
    assert torch.equal(idx, want_idx)
    assert torch.equal(dist, want_dist)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ties_go_to_the_smallest_index(dtype):
    grid = torch.randint(0, 3, (2, 200, 3), generator=torch.Generator().manual_seed(0)).to(dtype)
    _, idx = knn(grid[:, :30], grid, 20)
    assert torch.equal(idx, by_sorting(grid[:, :30], grid, 20)[1])


def test_holds_far_from_the_origin():
    points = torch.randn(1, 300, 3) + 1e4
    queries = points[:, :40]
    assert torch.equal(knn(queries, points, 8)[1], by_sorting(queries, points, 8)[1])


def test_many_points_go_through_in_chunks(monkeypatch):
    from recon_fast.kernels.reference import points as of_points

    queries, points = torch.randn(2, 50, 3), torch.randn(2, 90, 3)
    whole = knn(queries, points, 5)
    monkeypatch.setattr(of_points, "_CHUNK", 400)
    for a, b in zip(knn(queries, points, 5), whole, strict=True):
        assert torch.equal(a, b)


def test_lengths_pad():
    points = torch.randn(2, 6, 3)
    dist, idx = knn(points, points, 4, lengths=torch.tensor([6, 2]))
    assert (idx[0] >= 0).all()
    assert (idx[1, :, 2:] == -1).all()
    assert dist[1, :, 2:].isinf().all()
    assert (idx[1, :, :2] < 2).all()


def test_points_that_are_not_finite_come_last():
    points = torch.randn(1, 10, 3)
    points[0, 2] = float("nan")
    points[0, 5] = float("-inf")
    _, idx = knn(torch.zeros(1, 1, 3), points, 10)
    assert idx[0, 0, -2:].tolist() == [2, 5]


def test_distances_are_differentiable_in_both():
    queries = torch.randn(1, 3, 3, dtype=torch.float64, requires_grad=True)
    points = torch.randn(1, 8, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda q, p: knn(q, p, 4)[0], (queries, points))


def test_sample_and_group_puts_the_pieces_together():
    xyz = torch.randn(2, 100, 3)
    groups = sample_and_group(xyz, 9, 7)
    batch = torch.arange(2)[:, None]
    assert torch.equal(groups.center_idx, farthest_point_sample(xyz, 9))
    assert torch.equal(groups.centers, xyz[batch, groups.center_idx])
    assert torch.equal(groups.neighbor_idx, knn(groups.centers, xyz, 7)[1])
    relative = xyz[batch[..., None], groups.neighbor_idx] - groups.centers[:, :, None]
    assert torch.equal(groups.neighborhoods, relative)
    assert (groups.neighborhoods[:, :, 0] == 0).all()


def test_sample_and_group_pads_short_clouds():
    xyz = torch.randn(2, 20, 3)
    groups = sample_and_group(xyz, 6, 5, lengths=torch.tensor([20, 4]))
    assert (groups.center_idx[1, 4:] == -1).all()
    assert (groups.centers[1, 4:] == 0).all()
    assert (groups.neighbor_idx[1, :4, 4:] == -1).all()
    assert (groups.neighbor_idx[1, 4:] == -1).all()
    assert (groups.neighborhoods[1][groups.neighbor_idx[1] < 0] == 0).all()


def test_grouping_is_differentiable_in_the_points():
    xyz = torch.randn(1, 12, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: sample_and_group(x, 3, 4).neighborhoods, (xyz,))


def test_errors():
    points = torch.zeros(2, 5, 3)
    with pytest.raises(ValueError, match="k must be between 1 and the 5 points, got 6"):
        knn(points, points, 6)
    with pytest.raises(ValueError, match=r"points must be \[2, N, 3\], got \(1, 5, 3\)"):
        knn(points, points[:1], 2)
    with pytest.raises(ValueError, match="group_size must be between 1 and the 5 points of xyz, got 9"):
        sample_and_group(points, 2, 9)
    with pytest.raises(ValueError, match="num_groups must be between 1"):
        sample_and_group(points, 0, 2)
