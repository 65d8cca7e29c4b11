"""pointops' names against their published definitions, cloud by cloud."""

import pytest
import torch

from recon_fast.compat import pointops

SIZES, NEW_SIZES = [30, 4, 50], [6, 2, 9]


def packed():
    generator = torch.Generator().manual_seed(0)
    offset, new_offset = (torch.tensor(s).cumsum(0).int() for s in (SIZES, NEW_SIZES))
    xyz, new_xyz = (torch.rand(int(o[-1]), 3, generator=generator) for o in (offset, new_offset))
    return xyz, offset, new_xyz, new_offset


def each_query():
    """Row of the query, start of its cloud and squared distances to the points there."""
    xyz, _, new_xyz, _ = packed()
    row = start = 0
    for cloud, queries in zip(xyz.split(SIZES), new_xyz.split(NEW_SIZES), strict=True):
        for query in queries:
            yield row, start, (cloud - query).square().sum(-1)
            row += 1
        start += len(cloud)


def test_knn_query():
    idx, dist = pointops.knn_query(7, *packed())
    assert idx.dtype == torch.int32
    for row, start, d2 in each_query():
        some = min(7, len(d2))
        want, near = d2.topk(some, largest=False)
        assert idx[row].tolist() == [*(near + start).tolist(), *[-1] * (7 - some)]
        torch.testing.assert_close(dist[row, :some], want.sqrt())
        assert dist[row, some:].eq(1e5).all()
    xyz, offset, *_ = packed()
    assert pointops.knn_query(1, xyz, offset)[0][:, 0].tolist() == list(range(84))


def test_knnquery_is_point_transformers():
    """Its arguments come in another order, and its users gather by its indices: they name the first point."""
    xyz, offset, new_xyz, new_offset = packed()
    idx, dist = pointops.knn_query(7, xyz, offset, new_xyz, new_offset)
    old_idx, old_dist = pointops.knnquery(7, xyz, new_xyz, offset, new_offset)
    assert torch.equal(old_dist, dist)
    there = idx >= 0
    assert torch.equal(old_idx[there], idx[there])
    assert old_idx[~there].eq(30).all()
    assert (~there).any()
    assert torch.equal(
        pointops.knnquery(3, xyz, None, offset, offset)[0], pointops.knn_query(3, xyz, offset)[0]
    )
    with pytest.raises(
        ValueError, match=r"offset and new_offset must be int32 or int64 \[B\], got torch.float32"
    ):
        pointops.knn_query(7, xyz, offset.float(), new_xyz, new_offset)


@pytest.mark.parametrize("radii", [(0.5, 0.0), (0.6, 0.3), (0.001, 0.0)])
def test_ball_query(radii):
    xyz, offset, new_xyz, new_offset = packed()
    new_xyz[0] = xyz[3]  # at distance 0, so in every ball
    idx, dist = pointops.ball_query(4, *radii, xyz, offset, new_xyz, new_offset)
    for row, start, d2 in each_query():
        if row == 0:
            d2 = (xyz[:30] - xyz[3]).square().sum(-1)
        inside = (d2 <= 1e-5) | ((d2 >= radii[1] ** 2) & (d2 < radii[0] ** 2))
        order = [i for i in d2.argsort().tolist() if inside[i]]
        if len(order) > 4:
            order = [order[int(len(order) / 4 * i)] for i in range(4)]
        missing = 4 - len(order)
        assert idx[row].tolist() == [i + start for i in order] + [-1] * missing
        torch.testing.assert_close(dist[row], torch.cat([d2[order].sqrt(), torch.full((missing,), 1e5)]))


def test_farthest_point_sampling():
    xyz, offset, _, new_offset = packed()
    idx = pointops.farthest_point_sampling(xyz, offset, new_offset)
    assert idx.dtype == torch.int32
    start = 0
    for cloud, count, got in zip(xyz.split(SIZES), NEW_SIZES, idx.split(NEW_SIZES), strict=True):
        reach, want = torch.full((len(cloud),), float("inf")), [0]
        while len(want) < count:
            reach = torch.minimum(reach, (cloud - cloud[want[-1]]).square().sum(-1))
            want.append(int(reach.argmax()))
        assert got.tolist() == [i + start for i in want]
        start += len(cloud)


def test_grouping_interpolation_and_gradients():
    xyz, offset, new_xyz, new_offset = packed()
    feat = torch.randn(84, 5, requires_grad=True)
    idx, dist = pointops.knn_query(7, xyz, offset, new_xyz, new_offset)
    grouped = pointops.grouping(idx, feat, xyz, new_xyz, with_xyz=True)
    assert grouped.shape == (17, 7, 8)
    missing = idx < 0
    assert missing.any()
    assert grouped[missing].eq(0).all()
    torch.testing.assert_close(grouped[..., :3].norm(dim=-1)[~missing], dist[~missing])
    assert torch.equal(grouped[..., 3:], pointops.grouping2(feat, idx))
    clouds = xyz, offset, new_xyz, new_offset
    both, same = pointops.knn_query_and_group(feat, *clouds, nsample=7, with_xyz=True)
    assert torch.equal(both, grouped)
    assert torch.equal(same, idx)
    ball, _ = pointops.ball_query_and_group(feat, *clouds, max_radio=0.4, nsample=3)
    assert ball.shape == (17, 3, 5)

    near, dist = pointops.knn_query(3, xyz, offset, new_xyz, new_offset)
    weight = 1 / (dist + 1e-8)
    weight = weight / weight.sum(1, keepdim=True)
    want = (feat[near.long()] * weight[..., None]).sum(1)
    got = pointops.interpolation(xyz, new_xyz, feat, offset, new_offset)
    torch.testing.assert_close(got, want)
    grad = torch.randn(17, 5)
    torch.testing.assert_close(
        torch.autograd.grad(got, feat, grad)[0], torch.autograd.grad(want, feat, grad)[0]
    )


def test_subtraction_and_aggregation():
    n, nsample, c, wide = 11, 4, 6, 3
    first, second, value = (torch.randn(n, c, requires_grad=True) for _ in range(3))
    position = torch.randn(n, nsample, c, requires_grad=True)
    weight = torch.randn(n, nsample, wide, requires_grad=True)
    idx = torch.randint(0, n, (n, nsample), dtype=torch.int32)
    assert torch.equal(pointops.subtraction(first, second, idx), first[:, None] - second[idx.long()])
    got = pointops.aggregation(value, position, weight, idx)
    want = ((value[idx.long()] + position) * weight[..., torch.arange(c) % wide]).sum(1)
    torch.testing.assert_close(got, want)
    inputs, grad = (value, position, weight), torch.randn(n, c)
    for a, b in zip(
        torch.autograd.grad(got, inputs, grad), torch.autograd.grad(want, inputs, grad), strict=True
    ):
        torch.testing.assert_close(a, b)


def test_offsets():
    offset = torch.tensor([2, 2, 5], dtype=torch.int32)
    batch = pointops.offset2batch(offset)
    assert batch.tolist() == [0, 0, 2, 2, 2]
    assert torch.equal(pointops.batch2offset(batch), offset)


def test_compiles_into_one_graph():
    feat = torch.randn(84, 4)

    def everything(xyz, offset, new_xyz, new_offset):
        samples = pointops.farthest_point_sampling(xyz, offset, new_offset)
        idx, _ = pointops.knn_query(4, xyz, offset, new_xyz, new_offset)
        inside, _ = pointops.ball_query(4, 0.5, 0.1, xyz, offset, new_xyz, new_offset)
        out = pointops.grouping(inside, feat, xyz, new_xyz, with_xyz=True).sum()
        out = out + pointops.interpolation(xyz, new_xyz, feat, offset, new_offset).sum()
        own, _ = pointops.knn_query(3, xyz, offset)
        sums = pointops.aggregation(feat, pointops.subtraction(feat, feat, own), feat[own.long()], own)
        return samples, idx, out + sums.sum()

    compiled = torch.compile(everything, fullgraph=True, backend="aot_eager")
    for got, want in zip(compiled(*packed()), everything(*packed()), strict=True):
        torch.testing.assert_close(got, want)


def test_gradients_are_the_same_in_every_run():
    generator = torch.Generator().manual_seed(0)
    feat = torch.randn(30_000, 64, generator=generator, requires_grad=True)
    idx = torch.randint(-1, 30_000, (8192, 16), generator=generator)
    grad = torch.randn(8192, 16, 64, generator=generator)
    first, *others = (torch.autograd.grad(pointops.grouping2(feat, idx), feat, grad)[0] for _ in range(3))
    assert all(torch.equal(first, other) for other in others)
