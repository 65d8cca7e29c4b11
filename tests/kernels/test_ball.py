import pytest
import torch

from recon_fast.kernels import ball_query

pytestmark = pytest.mark.usefixtures("backend")


def by_definition(queries, points, radius, k):
    """Query by query: which points are inside, in order."""
    x, y, z = (queries[:, :, None] - points[:, None]).unbind(-1)
    d2 = x * x + y * y + z * z
    bound = torch.tensor(radius, dtype=d2.dtype) ** 2
    return [[row.lt(bound).nonzero()[:k, 0].tolist() for row in cloud] for cloud in d2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("M", "N", "k", "radius"), [(1, 1, 1, 1), (5, 63, 9, 0.7), (9, 600, 70, 0.9), (3, 40, 99, 3)]
)
def test_matches_the_definition(M, N, k, radius, dtype):
    generator = torch.Generator().manual_seed(N)
    queries = torch.randn(2, M, 3, generator=generator).to(dtype)
    points = torch.randn(2, N, 3, generator=generator).to(dtype)
    dist, idx = ball_query(queries, points, radius, k)
    want = by_definition(queries, points, radius, k)
    assert [[[i for i in row if i >= 0] for row in cloud] for cloud in idx.tolist()] == want
    assert dist.dtype == dtype
    assert dist[idx >= 0].lt(radius**2).all()
    assert dist[idx < 0].eq(float("inf")).all()


def test_the_radius_itself_is_outside():
    points = torch.tensor([[[2.0, 0, 0], [0, 0, 1], [0, 2, 0], [1, 1, 1]]])
    assert ball_query(torch.zeros(1, 1, 3), points, 2, 3)[1].tolist() == [[[1, 3, -1]]]
    assert ball_query(torch.zeros(1, 1, 3), points, 0, 1)[1].tolist() == [[[-1]]]


def test_padding_with_the_first():
    points = torch.tensor([[[9.0, 0, 0], [0, 0, 1], [0, 1, 0]]]).repeat(3, 1, 1)
    queries = torch.tensor([[[0.0, 0, 0], [50, 0, 0]]]).repeat(3, 1, 1)
    lengths = torch.tensor([3, 2, 0])
    dist, idx = ball_query(queries, points, 2, 4, lengths=lengths, padding="first")
    assert idx[:, 0].tolist() == [[1, 2, 1, 1], [1, 1, 1, 1], [-1] * 4]
    assert idx[:, 1].tolist() == [[0] * 4, [0] * 4, [-1] * 4]
    assert dist[:2, 0].eq(1).all()
    assert dist[:2, 1].eq(41**2).all()
    assert dist[2].eq(float("inf")).all()


def test_points_that_are_not_finite_are_outside():
    points = torch.randn(1, 10, 3)
    points[0, 2] = float("nan")
    points[0, 5] = float("-inf")
    assert ball_query(torch.zeros(1, 1, 3), points, 1e30, 10)[1].tolist() == [
        [[0, 1, 3, 4, 6, 7, 8, 9, -1, -1]]
    ]


@pytest.mark.parametrize("padding", ["none", "first"])
def test_distances_are_differentiable_in_both(padding):
    queries = torch.randn(1, 3, 3, dtype=torch.float64, requires_grad=True)
    points = torch.randn(1, 8, 3, dtype=torch.float64, requires_grad=True)

    def inside(q, p):
        dist, idx = ball_query(q, p, 1.5, 4, padding=padding)
        return dist.masked_fill(idx < 0, 0)

    assert torch.autograd.gradcheck(inside, (queries, points))
    single = [t.detach().float().requires_grad_() for t in (queries, points)]
    for got, want in zip(
        torch.autograd.grad(inside(*single).sum(), single),
        torch.autograd.grad(inside(queries, points).sum(), (queries, points)),
        strict=True,
    ):
        torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=1e-5)


def test_errors():
    points = torch.zeros(2, 5, 3)
    for radius in (-1, float("nan")):
        with pytest.raises(ValueError, match="radius must be 0 or more, got"):
            ball_query(points, points, radius, 2)
    with pytest.raises(ValueError, match="k must be 1 or more, got 0"):
        ball_query(points, points, 1, 0)
    with pytest.raises(ValueError, match=r"padding must be one of .*, got 'last'"):
        ball_query(points, points, 1, 2, padding="last")
    with pytest.raises(ValueError, match=r"points must be \[2, N, 3\], got \(1, 5, 3\)"):
        ball_query(points, points[:1], 1, 2)
