"""pytorch3d's names against their published definitions, cloud by cloud, without padding."""

import pytest
import torch
import torch.nn.functional as F

from recon_fast.compat import pytorch3d as ops
from recon_fast.compat.pytorch3d import chamfer_distance

SIZES_1, SIZES_2 = torch.tensor([9, 4]), torch.tensor([12, 3])


def clouds(D=3, gradient=False):
    """Points behind the lengths are NaN: nothing may depend on them."""
    generator = torch.Generator().manual_seed(D)
    p1, p2 = torch.rand(2, 9, D, generator=generator), torch.rand(2, 12, D, generator=generator)
    p1[1, 4:], p2[1, 3:] = float("nan"), float("nan")
    return p1.requires_grad_(gradient), p2.requires_grad_(gradient)


def valid(p1, p2):
    return [(p1[b, : SIZES_1[b]], p2[b, : SIZES_2[b]]) for b in range(2)]


def pairwise(a, b, norm):
    difference = a[:, None] - b[None]
    return difference.square().sum(-1) if norm == 2 else difference.abs().sum(-1)


@pytest.mark.parametrize("norm", [1, 2])
@pytest.mark.parametrize("D", [2, 3, 5])
def test_knn_points(D, norm):
    p1, p2 = clouds(D)
    dists, idx, near = ops.knn_points(p1, p2, SIZES_1, SIZES_2, norm=norm, K=5, return_nn=True)
    assert dists.shape == idx.shape == (2, 9, 5)
    assert near.shape == (2, 9, 5, D)
    for b, (a, c) in enumerate(valid(p1, p2)):
        some = min(5, len(c))
        want, want_idx = pairwise(a, c, norm).topk(some, largest=False)
        assert torch.equal(idx[b, : len(a), :some], want_idx)
        torch.testing.assert_close(dists[b, : len(a), :some], want)
        torch.testing.assert_close(near[b, : len(a), :some], c[want_idx])
        for t in (dists[b], idx[b], near[b]):
            assert t[len(a) :].eq(0).all()
            assert t[:, some:].eq(0).all()
    assert torch.equal(ops.knn_gather(p2, idx, SIZES_2)[0], near[0])
    assert ops.knn_points(p1, p2, K=20).idx.shape == (2, 9, 20)


def test_gradients_of_distances():
    p1, p2 = clouds(gradient=True)
    dists = ops.knn_points(p1, p2, SIZES_1, SIZES_2, K=4).dists
    ball = ops.ball_query(p1, p2, SIZES_1, SIZES_2, K=4, radius=0.7).dists
    got = torch.autograd.grad(dists.sum() + ball.sum(), (p1, p2))
    loss = 0.0
    for a, c in valid(p1, p2):
        d2 = pairwise(a, c, 2)
        inside = (d2 < 0.49) & ((d2 < 0.49).cumsum(1) <= 4)
        loss = loss + d2.topk(min(4, len(c)), largest=False).values.sum() + d2[inside].sum()
    for a, b in zip(got, torch.autograd.grad(loss, (p1, p2)), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("D", [2, 3, 5])
def test_ball_query(D):
    p1, p2 = clouds(D)
    dists, idx, near = ops.ball_query(p1, p2, SIZES_1, SIZES_2, K=4, radius=0.5)
    for b, (a, c) in enumerate(valid(p1, p2)):
        d2 = pairwise(a, c, 2)
        for i in range(len(a)):
            inside = d2[i].lt(0.25).nonzero()[:4, 0].tolist()
            assert idx[b, i].tolist() == inside + [-1] * (4 - len(inside))
            torch.testing.assert_close(near[b, i, : len(inside)], c[inside])
        assert idx[b, len(a) :].eq(-1).all()
    assert dists[idx < 0].eq(0).all()
    assert near[idx < 0].eq(0).all()


@pytest.mark.parametrize("D", [2, 3, 5])
def test_sample_farthest_points(D):
    points, _ = clouds(D, gradient=True)
    for K in (6, [6, 3], torch.tensor([2, 6])):
        chosen, idx = ops.sample_farthest_points(points, SIZES_1, K)
        counts = torch.minimum(torch.as_tensor(K).expand(2), SIZES_1).tolist()
        for b in range(2):
            reach, want = torch.full((int(SIZES_1[b]),), float("inf")), [0]
            while len(want) < counts[b]:
                cloud = points[b, : SIZES_1[b]]
                reach = torch.minimum(reach, (cloud - cloud[want[-1]]).square().sum(-1))
                want.append(int(reach.argmax()))
            assert idx[b].tolist() == want + [-1] * (6 - counts[b])
            assert torch.equal(chosen[b, : counts[b]], points[b, want])
            assert chosen[b, counts[b] :].eq(0).all()
    (grad,) = torch.autograd.grad(chosen.sum(), points)
    assert grad.sum() == D * (2 + 4)
    torch.manual_seed(0)
    starts = {int(ops.sample_farthest_points(points, SIZES_1, 4, True)[1][1, 0]) for _ in range(30)}
    assert starts == {0, 1, 2, 3}
    assert ops.sample_farthest_points(points[..., :2], K=20)[1].shape == (2, 20)


def by_definition(x, y, normals, weights, batch_reduction, point_reduction, norm, single, absolute):
    """One cloud after the other; returns distance and distance of normals."""
    rows = []
    for b, (a, c) in enumerate(valid(x, y)):
        d = pairwise(a, c, norm)
        ways = [(d.amin(1), d.argmin(1)), (d.amin(0), d.argmin(0))][: 1 if single else 2]
        values = []
        for way, (dist, idx) in enumerate(ways):
            of, other = (normals[0][b], normals[1][b])[:: 1 - 2 * way]
            cosine = F.cosine_similarity(of[: len(dist)], other[idx], dim=1, eps=1e-6)
            values += [dist * weights[b], (1 - (cosine.abs() if absolute else cosine)) * weights[b]]
        reduce = {"mean": torch.mean, "sum": torch.sum, "max": torch.max}[point_reduction]
        values = [reduce(v) for v in values]
        join = max if point_reduction == "max" else sum
        rows.append(torch.stack([join(values[::2]), join(values[1::2])]))
    rows = torch.stack(rows)
    if batch_reduction is None:
        return rows.unbind(1)
    total = rows.sum(0)
    return (total / weights.sum() if batch_reduction == "mean" else total).unbind(0)


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("norm", [1, 2])
@pytest.mark.parametrize("point_reduction", ["mean", "sum"])
@pytest.mark.parametrize("batch_reduction", ["mean", "sum", None])
def test_chamfer_distance(batch_reduction, point_reduction, norm, single):
    x, y = clouds(gradient=True)
    normals = torch.randn(2, 9, 3), torch.randn(2, 12, 3)
    settings = batch_reduction, point_reduction, norm, single
    for weights, absolute in ((None, True), (torch.tensor([0.3, 2.0]), False)):
        got = chamfer_distance(x, y, SIZES_1, SIZES_2, *normals, weights, *settings, abs_cosine=absolute)
        ones = torch.ones(2) if weights is None else weights
        want = by_definition(x, y, normals, ones, *settings, absolute)
        for a, b in zip(got, want, strict=True):
            torch.testing.assert_close(a, b)
        grads = [torch.autograd.grad(loss[0].sum(), (x, y)) for loss in (got, want)]
        for a, b in zip(*grads, strict=True):
            torch.testing.assert_close(a, b)


def test_chamfer_distance_with_other_reductions():
    x, y = clouds()
    largest, nothing = chamfer_distance(x, y, SIZES_1, SIZES_2, point_reduction="max")
    want = [max(pairwise(a, c, 2).amin(1).max(), pairwise(a, c, 2).amin(0).max()) for a, c in valid(x, y)]
    assert nothing is None
    each, _ = chamfer_distance(x, y, SIZES_1, SIZES_2, batch_reduction=None, point_reduction="max")
    torch.testing.assert_close(each, torch.stack(want))
    assert largest <= each.mean()
    (forth, back), _ = chamfer_distance(x, y, SIZES_1, SIZES_2, batch_reduction=None, point_reduction=None)
    assert forth.shape == (2, 9)
    assert back.shape == (2, 12)
    assert forth[1, 4:].eq(0).all()
    assert chamfer_distance(x, y, SIZES_1, SIZES_2, weights=torch.zeros(2))[0] == 0


def test_empty_clouds_count_nothing():
    x, y = torch.zeros(2, 10, 3, requires_grad=True), torch.ones(2, 40, 3)
    sizes = torch.tensor([0, 10])
    for filling in (0.0, 1e30, float("nan")):
        filled = x.detach().clone()
        filled[0] = filling
        filled.requires_grad_()
        for first, second, lengths in ((filled, y, (sizes, None)), (y, filled, (None, sizes))):
            loss, _ = chamfer_distance(first, second, *lengths, batch_reduction=None)
            assert loss.tolist() == [0, 6]
            (gradient,) = torch.autograd.grad(loss.sum(), filled)
            assert gradient[0].eq(0).all()
            assert gradient[1].ne(0).all()
            normals = torch.ones_like(first), torch.ones_like(second)
            for norm, want in ((2, [0, 6]), (1, [0, 6])):
                loss, apart = chamfer_distance(
                    first, second, *lengths, *normals, batch_reduction=None, norm=norm
                )
                torch.testing.assert_close(loss, torch.tensor(want, dtype=loss.dtype))
                torch.testing.assert_close(apart, torch.zeros(2))
    one_way, _ = chamfer_distance(x, y, sizes, batch_reduction=None, single_directional=True)
    assert one_way.tolist() == [0, 3]
    for reduction in ("sum", "max"):
        total = 3 if reduction == "max" else 10 * 3 + 40 * 3
        assert chamfer_distance(x, y, sizes, point_reduction=reduction)[0] == total / 2


@pytest.mark.parametrize("shapes", [((0, 4, 3), (0, 5, 3)), ((2, 0, 3), (2, 5, 3)), ((2, 4, 3), (2, 0, 3))])
def test_batches_without_examples_or_points_give_zero(shapes):
    x, y = (torch.ones(shape, requires_grad=True) for shape in shapes)
    normals = torch.ones(shapes[0]), torch.ones(shapes[1])
    for point_reduction in ("mean", "sum"):
        for batch_reduction in ("mean", "sum", None):
            for loss in chamfer_distance(
                x,
                y,
                x_normals=normals[0],
                y_normals=normals[1],
                batch_reduction=batch_reduction,
                point_reduction=point_reduction,
            ):
                assert torch.equal(loss, torch.zeros(shapes[0][0] if batch_reduction is None else ()))
                for gradient in torch.autograd.grad(loss.sum(), (x, y), retain_graph=True):
                    assert gradient.eq(0).all()
    assert chamfer_distance(x, y, point_reduction="max")[0] == 0
    (forth, back), _ = chamfer_distance(x, y, batch_reduction=None, point_reduction=None)
    assert (forth.shape, back.shape) == (shapes[0][:2], shapes[1][:2])
    near = ops.knn_points(x, y, K=2, return_nn=True)
    assert near.dists.eq(0).all()
    assert near.idx.shape == near.dists.shape == near.knn.shape[:3] == (*shapes[0][:2], 2)
    inside = ops.ball_query(x, y, K=2)
    assert inside.idx.shape == (*shapes[0][:2], 2)
    assert inside.idx.eq(-1).all()
    chosen, idx = ops.sample_farthest_points(x, K=3)
    assert chosen.shape == (*idx.shape, 3) == (shapes[0][0], 3, 3)


def test_a_maximum_is_reduced_over_the_batch_after_it_is_joined():
    x, y = torch.zeros(2, 2, 3), torch.zeros(2, 2, 3)
    x[0, 1], y[1, 1] = 1, 2
    assert chamfer_distance(x, y, point_reduction="max")[0] == 7.5
    assert chamfer_distance(x, y, point_reduction="max", batch_reduction="sum")[0] == 15
    weights = torch.tensor([1.0, 3.0])
    assert chamfer_distance(x, y, weights=weights, point_reduction="max")[0] == (3 + 3 * 12) / 4


def test_weights_of_zero_give_zeros_that_require_grad():
    x, y = clouds(gradient=True)
    normals = torch.ones(2, 9, 3), torch.ones(2, 12, 3)
    for batch_reduction in ("mean", "sum", None):
        for loss in chamfer_distance(
            x, y, SIZES_1, SIZES_2, *normals, torch.zeros(2), batch_reduction=batch_reduction
        ):
            assert torch.equal(loss, torch.zeros(2 if batch_reduction is None else ()))
            for gradient in torch.autograd.grad(loss.sum(), (x, y), retain_graph=True):
                assert gradient.eq(0).all()


def test_empty_clouds_of_the_operators():
    p1, p2 = clouds()
    sizes = torch.tensor([12, 0])
    for norm in (1, 2):
        near = ops.knn_points(p1, p2, SIZES_1, sizes, norm=norm, K=4, return_nn=True)
        assert all(t[1].eq(0).all() for t in near)
    ball = ops.ball_query(p1, p2, SIZES_1, sizes, K=4, radius=9.0)
    assert ball.idx[1].eq(-1).all()
    assert ball.dists[1].eq(0).all()
    assert ball.knn[1].eq(0).all()
    chosen, idx = ops.sample_farthest_points(p2, sizes, 4, random_start_point=True)
    assert idx[1].eq(-1).all()
    assert chosen[1].eq(0).all()
    assert idx[0].ge(0).all()


def test_impossible_lengths():
    p1, p2 = clouds()
    for wrong in (torch.tensor([9, -1]), torch.tensor([10, 3])):
        for call in (
            lambda sizes: ops.knn_points(p1, p2, lengths1=sizes),
            lambda sizes: ops.knn_points(p2, p1, lengths2=sizes, norm=1),
            lambda sizes: ops.ball_query(p1, p2, lengths1=sizes),
            lambda sizes: ops.ball_query(p2, p1, lengths2=sizes),
            lambda sizes: ops.sample_farthest_points(p1, sizes, 2),
            lambda sizes: chamfer_distance(p1, p2, sizes),
            lambda sizes: chamfer_distance(p2, p1, y_lengths=sizes, norm=1),
        ):
            with pytest.raises(ValueError, match="must be between 0 and 9, the points of a cloud, got"):
                call(wrong)
    with pytest.raises(ValueError, match=r"lengths of p1 must be an int32 or int64 \[2\], got torch.float32"):
        ops.knn_points(p1, p2, SIZES_1.float())
    with pytest.raises(TypeError, match=r"p1 must be a torch.Tensor, got numpy.ndarray"):
        ops.knn_points(p1.numpy(), p2)
    with pytest.raises(TypeError, match=r"x must be a torch\.Tensor, got list"):
        chamfer_distance(p1.tolist(), p2)


def test_errors():
    x, y = clouds()
    with pytest.raises(ValueError, match="pts1 and pts2 must have the same batch dimension"):
        ops.knn_points(x, y[:1])
    with pytest.raises(ValueError, match="pts1 and pts2 must have the same point dimension"):
        ops.ball_query(x, y[..., :2])
    with pytest.raises(ValueError, match="points and lengths must have same batch dimension"):
        ops.sample_farthest_points(x, SIZES_1[:1])
    with pytest.raises(ValueError, match="y does not have the correct shape"):
        chamfer_distance(x, y[:1])
    with pytest.raises(ValueError, match="weights cannot be negative"):
        chamfer_distance(x, y, weights=torch.tensor([1.0, -1]))
    with pytest.raises(ValueError, match="batch_reduction must be one of"):
        chamfer_distance(x, y, batch_reduction="max")
    with pytest.raises(ValueError, match="Batch reduction must be None"):
        chamfer_distance(x, y, point_reduction=None)
    with pytest.raises(ValueError, match="norm must be 1 or 2, got 3"):
        chamfer_distance(x, y, norm=3)


def test_compiles_into_one_graph():
    def everything(x, y):
        chosen, idx = ops.sample_farthest_points(x, SIZES_1, [3, 2])
        near = ops.knn_points(chosen, y, lengths2=SIZES_2, K=2, return_nn=True)
        inside = ops.ball_query(chosen, y, lengths2=SIZES_2, K=2, radius=0.6)
        loss, _ = chamfer_distance(x, y, SIZES_1, SIZES_2, weights=torch.tensor([1.0, 2]))
        return loss + near.knn.sum() + near.dists.sum() + inside.knn.sum(), idx, inside.idx

    x, y = clouds()
    compiled = torch.compile(everything, fullgraph=True, backend="aot_eager")
    for got, want in zip(compiled(x, y), everything(x, y), strict=True):
        torch.testing.assert_close(got, want)
