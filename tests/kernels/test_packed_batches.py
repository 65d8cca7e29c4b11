import pytest
import torch

from recon_fast.kernels import (
    ball_query,
    farthest_point_sample,
    knn,
    neighbor_edges,
    packed_ball_query,
    packed_farthest_point_sample,
    packed_knn,
)

each_backend = pytest.mark.usefixtures("backend")
SIZES = {
    "equal": ([5, 5, 5], [20, 20, 20]),
    "ragged": ([5, 0, 7, 1], [20, 9, 3, 14]),
    "one long": ([1, 9, 2], [2, 300, 5]),
    "an empty cloud": ([3, 4, 2], [6, 0, 8]),
    "one cloud": ([4], [30]),
    "molecules": ([9] * 40, [7, 19, 33, 70] * 10),
    "one of many points": ([3, 2], [9000, 5]),
}


def packed(name):
    queries, points = (torch.tensor(sizes) for sizes in SIZES[name])
    generator = torch.Generator().manual_seed(len(name))
    return (
        torch.randn(int(queries.sum()), 3, generator=generator),
        torch.randn(int(points.sum()), 3, generator=generator),
        queries,
        points,
    )


def one_by_one(find, k, queries, points, query_lengths, point_lengths):
    """Each cloud by itself, as a batch of one."""
    dist, idx, start = [], [], 0
    for q, p in zip(queries.split(query_lengths.tolist()), points.split(point_lengths.tolist()), strict=True):
        d, i = torch.full((len(q), k), float("inf")), torch.full((len(q), k), -1)
        if len(q) and len(p):
            some = min(k, len(p))
            found_dist, found = find(q[None], p[None], some)
            d[:, :some], i[:, :some] = found_dist[0], torch.where(found[0] < 0, -1, found[0] + start)
        dist.append(d)
        idx.append(i)
        start += len(p)
    return torch.cat(dist), torch.cat(idx)


@each_backend
@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.parametrize("name", SIZES)
def test_search_is_that_of_each_cloud(name, k):
    clouds = packed(name)
    for got, want in (
        (packed_knn(*clouds[:2], k, *clouds[2:]), one_by_one(knn, k, *clouds)),
        (
            packed_ball_query(*clouds[:2], 1.1, k, *clouds[2:]),
            one_by_one(lambda q, p, some: ball_query(q, p, 1.1, some), k, *clouds),
        ),
    ):
        assert torch.equal(got[1], want[1])
        assert torch.equal(got[0], want[0])


@each_backend
@pytest.mark.parametrize("name", SIZES)
def test_samples_are_those_of_each_cloud(name):
    _, points, _, lengths = packed(name)
    counts = (lengths + 1) // 2
    starts = torch.where(lengths > 2, 2, 0)
    got = packed_farthest_point_sample(points, lengths, counts)
    turned = packed_farthest_point_sample(points, lengths, counts, starts=starts)
    assert got.shape == turned.shape == (int(counts.sum()),)
    begin = 0
    for cloud, count, start, a, b in zip(
        points.split(lengths.tolist()),
        counts.tolist(),
        starts.tolist(),
        got.split(counts.tolist()),
        turned.split(counts.tolist()),
        strict=True,
    ):
        if count:
            assert torch.equal(a, farthest_point_sample(cloud[None], count)[0] + begin)
            assert torch.equal(b, farthest_point_sample(cloud[None], count, start_index=start)[0] + begin)
        begin += len(cloud)


@pytest.mark.parametrize("name", ["ragged", "one long"])
def test_distances_are_differentiable(name):
    queries, points, *lengths = packed(name)
    inputs = queries.double().requires_grad_(), points.double().requires_grad_()

    def inside(dist, idx):
        return dist[idx >= 0].sum()

    loss = inside(*packed_knn(*inputs, 3, *lengths)) + inside(*packed_ball_query(*inputs, 1.1, 3, *lengths))
    _, near = packed_knn(queries.double(), points.double(), 3, *lengths)
    _, ball = packed_ball_query(queries.double(), points.double(), 1.1, 3, *lengths)
    want = 0.0
    for idx in (near, ball):
        d2 = (inputs[0][:, None] - inputs[1][idx.clamp_min(0)]).square().sum(-1)
        want = want + d2[idx >= 0].sum()
    for got, wanted in zip(torch.autograd.grad(loss, inputs), torch.autograd.grad(want, inputs), strict=True):
        torch.testing.assert_close(got, wanted)


@each_backend
def test_edges():
    idx = torch.tensor([[4, -1, 2], [-1, -1, -1], [0, 1, 7]])
    assert neighbor_edges(idx).tolist() == [[0, 0, 2, 2, 2], [4, 2, 0, 1, 7]]
    assert neighbor_edges(idx[1:2]).shape == (2, 0)
    many = torch.randint(-1, 5, (2500, 3)).mT.contiguous().mT
    there = many >= 0
    got = neighbor_edges(many)
    assert torch.equal(got[0], there.nonzero()[:, 0])
    assert torch.equal(got[1], many[there])
    with pytest.raises(ValueError, match=r"idx must be an int64 \[M, k\]"):
        neighbor_edges(idx.int())


def test_compiles_into_one_graph():
    def everything(queries, points, query_lengths, point_lengths):
        samples = packed_farthest_point_sample(points, point_lengths, point_lengths // 2)
        dist, idx = packed_knn(queries, points, 3, query_lengths, point_lengths)
        inside, _ = packed_ball_query(queries, points, 1.0, 3, query_lengths, point_lengths)
        return points[samples].sum() + dist[idx >= 0].sum(), inside, neighbor_edges(idx)

    clouds = packed("ragged")
    compiled = torch.compile(everything, fullgraph=True, backend="aot_eager")
    for got, want in zip(compiled(*clouds), everything(*clouds), strict=True):
        torch.testing.assert_close(got, want)


def test_operators_pass_torch_library_checks():
    queries, points, *lengths = packed("ragged")
    ops, checks = torch.ops.recon_fast, ("test_schema", "test_autograd_registration", "test_faketensor")
    clouds = queries.requires_grad_(), points.requires_grad_()
    torch.library.opcheck(ops.packed_knn.default, (*clouds, 3, *lengths), test_utils=checks)
    torch.library.opcheck(ops.packed_ball_query.default, (*clouds, 1.0, 3, *lengths), test_utils=checks)
    counts = lengths[1] // 2, torch.zeros_like(lengths[1])
    torch.library.opcheck(
        ops.packed_farthest_point_sample.default, (points.detach(), lengths[1], *counts), test_utils=checks
    )


def test_errors():
    queries, points, query_lengths, point_lengths = packed("ragged")
    with pytest.raises(ValueError, match=r"queries must be \[N, D\], got \(1, 13, 3\)"):
        packed_knn(queries[None], points, 2, query_lengths, point_lengths)
    with pytest.raises(ValueError, match=r"point_lengths must be an int32 or int64 \[B\], got torch.float32"):
        packed_knn(queries, points, 2, query_lengths, point_lengths.float())
    with pytest.raises(ValueError, match="point_lengths must be 0 or more and add up to the 46 points, got"):
        packed_knn(queries, points, 2, query_lengths, point_lengths - 1)
    with pytest.raises(ValueError, match="must be of as many clouds, got 1 and 4"):
        packed_knn(queries, points, 2, torch.tensor([13]), point_lengths)
    with pytest.raises(ValueError, match="k must be 1 or more"):
        packed_ball_query(queries, points, 1.0, 0, query_lengths, point_lengths)
    with pytest.raises(ValueError, match="radius must be 0 or more"):
        packed_ball_query(queries, points, -1.0, 1, query_lengths, point_lengths)
    with pytest.raises(
        ValueError, match="num_samples must be between 0 and 20 for the 20 points of cloud 0, got 21"
    ):
        packed_farthest_point_sample(points, point_lengths, point_lengths + 1)
    with pytest.raises(ValueError, match="starts must be between 0 and 8 for the 9 points of cloud 1, got 9"):
        packed_farthest_point_sample(points, point_lengths, point_lengths, starts=torch.tensor([0, 9, 0, 0]))
    with pytest.raises(ValueError, match="num_samples must be one for each of 4 lengths, got 3"):
        packed_farthest_point_sample(points, point_lengths, point_lengths[:3])
